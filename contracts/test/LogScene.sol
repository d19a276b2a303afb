// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {AuditLog} from "../src/AuditLog.sol";
import {IAuditLog} from "../src/interfaces/IAuditLog.sol";
import {Trees} from "./Trees.sol";
import {Vm} from "./Vm.sol";

/// @notice A server with a log of numbered leaves, and a stranger who relays and reports.
abstract contract LogScene {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    uint256 internal constant KEY = 0x5E17E1;
    uint256 internal constant OTHER_KEY = 0x07E1;
    address internal constant STRANGER = address(0x5EED);
    uint32 internal constant PROMISE = 50;
    uint32 internal constant WINDOW = 100;

    AuditLog internal log;
    address internal server;
    bytes32[] internal none;
    /// @dev Hashing calls a precompile, and what is expected to revert is the next call: so these are made beforehand.
    bytes32[] internal roots;
    bytes32[] internal leafHashes;

    function setUp() public virtual {
        vm.roll(1000);
        log = new AuditLog(WINDOW);
        server = vm.addr(KEY);
        _register(KEY);
        for (uint256 size = 0; size <= 21; ++size) {
            roots.push(Trees.root(_leaves(size, 0), 0, size));
            leafHashes.push(Trees.leaf(size));
        }
    }

    function _register(uint256 key) internal {
        vm.prank(vm.addr(key));
        log.register(PROMISE);
    }

    // ------------------------------------------------------------------------------------------------------- statements

    function _domain() internal view returns (bytes32) {
        bytes32 kind = keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
        return keccak256(abi.encode(kind, keccak256("Candor"), keccak256("1"), block.chainid, address(log)));
    }

    function _signed(uint256 key, bytes32 structHash) internal view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, keccak256(abi.encodePacked("\x19\x01", _domain(), structHash)));
        return abi.encodePacked(r, s, v);
    }

    function _signCheckpoint(uint256 key, uint64 size, bytes32 root) internal view returns (bytes memory) {
        return _signed(key, keccak256(abi.encode(keccak256("Checkpoint(uint64 size,bytes32 root)"), size, root)));
    }

    function _signReceipt(uint256 key, uint64 sequence, uint64 dueBlock, bytes32 leaf)
        internal
        view
        returns (bytes memory)
    {
        bytes32 kind = keccak256("Receipt(uint64 sequence,uint64 dueBlock,bytes32 leaf)");
        return _signed(key, keccak256(abi.encode(kind, sequence, dueBlock, leaf)));
    }

    // --------------------------------------------------------------------------------------------------------- the log

    /// @dev Leaves first, first + 1, … of a history that is told apart from others by its name.
    function _leaves(uint256 size, uint256 history) internal pure returns (bytes32[] memory leaves) {
        leaves = new bytes32[](size);
        for (uint256 i = 0; i < size; ++i) {
            leaves[i] = Trees.leaf(history * 1000 + i);
        }
    }

    function _root(uint64 size) internal view returns (bytes32) {
        if (size < roots.length) return roots[size];
        return Trees.root(_leaves(size, 0), 0, size);
    }

    function _proof(uint64 older, uint64 size) internal pure returns (bytes32[] memory) {
        if (older == 0) return new bytes32[](0);
        return Trees.consistency(_leaves(size, 0), older, 0, size, true);
    }

    function _path(uint64 index, uint64 size) internal pure returns (bytes32[] memory) {
        return Trees.inclusion(_leaves(size, 0), index, 0, size);
    }

    function _anchor(uint64 size) internal {
        uint64 older = log.getServer(server).size;
        vm.prank(STRANGER);
        log.checkpoint(server, size, _root(size), _proof(older, size), _signCheckpoint(KEY, size, _root(size)));
    }

    function _report(uint64 sequence, uint64 dueBlock, bytes32 leaf) internal returns (bytes32 receipt) {
        vm.prank(STRANGER);
        log.reportOmission(server, sequence, dueBlock, leaf, _signReceipt(KEY, sequence, dueBlock, leaf));
        return log.receiptDigest(sequence, dueBlock, leaf);
    }

    function _outcome(bytes32 receipt) internal view returns (IAuditLog.Outcome outcome) {
        (outcome,,) = log.omission(server, receipt);
    }

    function _refuses(bytes memory why) internal {
        vm.expectRevert(why);
    }
}
