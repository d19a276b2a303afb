// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title The federation's roles besides OpenZeppelin's admin
library Roles {
    bytes32 internal constant COORDINATOR = keccak256("candor/coordinator/1");
}
