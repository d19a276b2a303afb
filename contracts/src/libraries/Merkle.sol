// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

import {Bits} from "./Bits.sol";
import {LogErrors} from "./LogErrors.sol";

/// @title RFC 6962 section 2.1 Merkle tree hashes over SHA-256
/// @notice Leaf = SHA-256(0x00 ‖ data), node = SHA-256(0x01 ‖ left ‖ right), empty tree = SHA-256(""). An odd last node
/// moves up unchanged, which is the same as RFC 6962's split at the largest power of two.
/// The trees of a round have these leaves, both in seat order:
///   included: uint8 member ‖ bytes32 bundle  (33 bytes)
///   excluded: uint8 member ‖ uint8 reason    (2 bytes)
/// A log (AuditLog.sol) is checked by its paths alone. The two sizes, or index and size, say how many hashes a path has and
/// on which side each stands, so its length is held against them before anything is hashed.
library Merkle {
    using Bits for uint256;

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
                level[i / 2] = i + 1 < size ? _node(level[i], level[i + 1]) : level[i];
            }
        }
        return level[0];
    }

    /// @notice Reverts unless `leaf` (a leaf hash) is at `index` of the tree of `size` leaves. `index` is below `size`.
    function checkInclusion(bytes32 leaf, uint64 index, uint64 size, bytes32 expected, bytes32[] calldata path)
        internal
        pure
    {
        (uint256 inner, uint256 border) = _shape(index, size);
        require(path.length == inner + border, LogErrors.ProofLength(inner + border, path.length));
        for (uint256 i = 0; i < path.length; ++i) {
            bool left = i >= inner || (index >> i) & 1 == 1;
            leaf = left ? _node(path[i], leaf) : _node(leaf, path[i]);
        }
        require(leaf == expected, LogErrors.ProofMismatch(expected, leaf));
    }

    /// @notice Reverts unless the tree of `older` leaves is the beginning of the tree of `size`; 0 < `older` < `size`.
    /// The path starts with the largest complete subtree at the end of the older tree, unless that is all of it. From
    /// there it climbs: a hash on the left belongs to both trees, one on the right only to the larger.
    function checkConsistency(uint64 older, bytes32 olderRoot, uint64 size, bytes32 root_, bytes32[] calldata path)
        internal
        pure
    {
        uint256 shift = Math.log2(older & (~uint256(older) + 1));
        uint256 start = older == uint256(1) << shift ? 0 : 1;
        (uint256 inner, uint256 border) = _shape(older - 1, size);
        inner = inner - shift + start; // the older tree ends below the last bit in which the two differ
        require(path.length == inner + border, LogErrors.ProofLength(inner + border, path.length));
        bytes32 before = start == 0 ? olderRoot : path[0];
        bytes32 later = before;
        for (uint256 i = start; i < path.length; ++i) {
            bool left = i >= inner || ((older - 1) >> (shift + i - start)) & 1 == 1;
            if (left) before = _node(path[i], before);
            later = left ? _node(path[i], later) : _node(later, path[i]);
        }
        require(before == olderRoot, LogErrors.ProofMismatch(olderRoot, before));
        require(later == root_, LogErrors.ProofMismatch(root_, later));
    }

    /// @dev How many hashes of an inclusion path lie below the first common ancestor of the leaf and the tree's right edge,
    /// and how many above it, where all of them stand on the left.
    function _shape(uint256 index, uint256 size) private pure returns (uint256 inner, uint256 border) {
        uint256 differing = index ^ (size - 1);
        inner = differing == 0 ? 0 : Math.log2(differing) + 1;
        border = (index >> inner).count();
    }

    function _node(bytes32 left, bytes32 right) private pure returns (bytes32) {
        return sha256(abi.encodePacked(uint8(1), left, right));
    }
}
