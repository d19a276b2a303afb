// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice RFC 6962 section 2.1 word for word, recursions and all: the slow twin, and the prover, of Merkle.sol.
library Trees {
    function leaf(uint256 seed) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(uint8(0), seed));
    }

    function node(bytes32 left, bytes32 right) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(uint8(1), left, right));
    }

    /// @dev MTH(D[low:high]) over leaf hashes.
    function root(bytes32[] memory d, uint256 low, uint256 high) internal pure returns (bytes32) {
        if (low == high) return sha256("");
        if (high - low == 1) return d[low];
        uint256 middle = low + _split(high - low);
        return node(root(d, low, middle), root(d, middle, high));
    }

    /// @dev PATH(index, D[low:high]).
    function inclusion(bytes32[] memory d, uint256 index, uint256 low, uint256 high)
        internal
        pure
        returns (bytes32[] memory path)
    {
        if (high - low == 1) return new bytes32[](0);
        uint256 middle = low + _split(high - low);
        if (index < middle) return push(inclusion(d, index, low, middle), root(d, middle, high));
        return push(inclusion(d, index, middle, high), root(d, low, middle));
    }

    /// @dev SUBPROOF(older, D[low:high], whole); `older` is an index like low and high.
    function consistency(bytes32[] memory d, uint256 older, uint256 low, uint256 high, bool whole)
        internal
        pure
        returns (bytes32[] memory path)
    {
        if (older == high) {
            return whole ? new bytes32[](0) : push(new bytes32[](0), root(d, low, high));
        }
        uint256 middle = low + _split(high - low);
        if (older <= middle) return push(consistency(d, older, low, middle, whole), root(d, middle, high));
        return push(consistency(d, older, middle, high, false), root(d, low, middle));
    }

    // The same over a tree all of whose leaves are `leaf(0)`: a subtree's root depends on its size alone, so that a tree of a
    // million leaves needs no list of them.

    function uniformRoot(uint256 size) internal pure returns (bytes32) {
        if (size == 1) return leaf(0);
        uint256 split = _split(size);
        return node(_full(split), uniformRoot(size - split));
    }

    function uniformInclusion(uint256 index, uint256 size) internal pure returns (bytes32[] memory path) {
        if (size == 1) return new bytes32[](0);
        uint256 split = _split(size);
        if (index < split) return push(uniformInclusion(index, split), uniformRoot(size - split));
        return push(uniformInclusion(index - split, size - split), _full(split));
    }

    function uniformConsistency(uint256 older, uint256 size, bool whole) internal pure returns (bytes32[] memory path) {
        if (older == size) return whole ? new bytes32[](0) : push(new bytes32[](0), uniformRoot(size));
        uint256 split = _split(size);
        if (older <= split) return push(uniformConsistency(older, split, whole), uniformRoot(size - split));
        return push(uniformConsistency(older - split, size - split, false), _full(split));
    }

    function _full(uint256 size) private pure returns (bytes32 top) {
        top = leaf(0);
        for (; size > 1; size /= 2) {
            top = node(top, top);
        }
    }

    /// @dev The largest power of two below `size`.
    function _split(uint256 size) private pure returns (uint256 split) {
        split = 1;
        while (2 * split < size) {
            split *= 2;
        }
    }

    function push(bytes32[] memory path, bytes32 next) internal pure returns (bytes32[] memory longer) {
        longer = new bytes32[](path.length + 1);
        for (uint256 i = 0; i < path.length; ++i) {
            longer[i] = path[i];
        }
        longer[path.length] = next;
    }

    function cut(bytes32[] memory path) internal pure returns (bytes32[] memory shorter) {
        shorter = new bytes32[](path.length - 1);
        for (uint256 i = 0; i < shorter.length; ++i) {
            shorter[i] = path[i];
        }
    }
}
