// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Bls} from "../src/libraries/Bls.sol";

/// @notice BLS keys and signatures for tests, made with the multiplication precompiles that the contracts never use.
library Verifiers {
    uint256 internal constant ORDER = 0x73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001;
    address private constant G1_MSM = address(0x0c);
    address private constant G2_MSM = address(0x0e);
    bytes internal constant GENERATOR = hex"0000000000000000000000000000000017f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac58"
        hex"6c55e83ff97a1aeffb3af00adb22c6bb0000000000000000000000000000000008b3f481e3aaa0f1a09e30ed741d8ae4"
        hex"fcf5e095d5d00af600db18cb2c04b3edd03cc744a2888ae40caa232946c5e7e1";

    function keyOf(uint256 secret) internal view returns (bytes memory) {
        return _times(G1_MSM, GENERATOR, secret);
    }

    function sign(uint256 secret, bytes32 digest, bytes memory tag) internal view returns (bytes memory) {
        return _times(G2_MSM, Bls.hashToG2(bytes.concat(digest), tag), secret);
    }

    function _times(address precompile, bytes memory point, uint256 scalar)
        private
        view
        returns (bytes memory product)
    {
        bool taken;
        (taken, product) = precompile.staticcall(bytes.concat(point, bytes32(scalar)));
        require(taken && product.length == point.length, "no multiplication");
    }
}
