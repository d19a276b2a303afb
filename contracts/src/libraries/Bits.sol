// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title Sets of members as one word: bit i is member i
library Bits {
    function has(uint256 set, uint8 member) internal pure returns (bool) {
        return (set >> member) & 1 == 1;
    }

    function with(uint256 set, uint8 member) internal pure returns (uint256) {
        return set | (uint256(1) << member);
    }

    function count(uint256 set) internal pure returns (uint256 members) {
        for (; set != 0; set &= set - 1) {
            ++members;
        }
    }
}
