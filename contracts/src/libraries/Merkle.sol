// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title RFC 6962 section 2.1 Merkle tree hashes over SHA-256
/// @notice Leaf = SHA-256(0x00 ‖ data), node = SHA-256(0x01 ‖ left ‖ right), empty tree = SHA-256(""). An odd last node
/// moves up unchanged, which is the same as RFC 6962's split at the largest power of two.
/// The trees of a round have these leaves, both in seat order:
///   included: uint8 member ‖ bytes32 bundle  (33 bytes)
///   excluded: uint8 member ‖ uint8 reason    (2 bytes)
library Merkle {
    function includedLeaf(uint8 member, bytes32 bundle) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(uint8(0), member, bundle));
    }

    function excludedLeaf(uint8 member, uint8 reason) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(uint8(0), member, reason));
    }

    /// @dev Root over the first `size` leaf hashes; overwrites them.
    function root(bytes32[] memory level, uint256 size) internal pure returns (bytes32) {
        if (size == 0) return sha256("");
        for (; size > 1; size = (size + 1) / 2) {
            for (uint256 i = 0; i < size; i += 2) {
                level[i / 2] = i + 1 < size ? sha256(abi.encodePacked(uint8(1), level[i], level[i + 1])) : level[i];
            }
        }
        return level[0];
    }
}
