// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {LogScene} from "./LogScene.sol";
import {Trees} from "./Trees.sol";

/// @notice What each transaction of AuditLog costs, all included, in logs of up to a million entries.
/// @dev See Gas.t.sol. All leaves are the same one here: the price depends on sizes alone.
contract LogGasTest is LogScene {
    string private constant GROUP = "Gas";
    uint64 private constant MILLION = 1_000_000;

    function _paid(string memory what) private {
        vm.snapshotGasLastCall(GROUP, what);
    }

    function _grow(uint64 size) private {
        uint64 older = log.getServer(server).size;
        bytes32 root = Trees.uniformRoot(size);
        bytes32[] memory proof = older == 0 ? none : Trees.uniformConsistency(older, size, true);
        bytes memory signature = _signCheckpoint(KEY, size, root);
        vm.prank(STRANGER);
        log.checkpoint(server, size, root, proof, signature);
    }

    function test_gas_of_a_log_that_grows_tenfold() external {
        _grow(1);
        _paid("30 checkpoint, first, 1 entry");
        _grow(1000);
        _paid("31 checkpoint, 1 to 1,000 entries");
        _grow(10_000);
        _paid("32 checkpoint, 1,000 to 10,000 entries");
        _grow(100_000);
        _paid("33 checkpoint, 10,000 to 100,000 entries");
        _grow(MILLION);
        _paid("34 checkpoint, 100,000 to 1,000,000 entries");
    }

    function test_gas_of_a_log_that_grows_a_little() external {
        _grow(MILLION - 1000);
        _grow(MILLION - 1);
        _paid("35 checkpoint, 999,000 to 999,999 entries");
        _grow(MILLION);
        _paid("36 checkpoint, 999,999 to 1,000,000 entries");
        _grow(MILLION);
        _paid("37 checkpoint, the same again");
    }

    /// @dev The longest proof that there is below 2^20 entries: from an odd size to the end of a full tree.
    function test_gas_of_the_longest_proof() external {
        _grow(1);
        _grow(2 ** 20 - 1);
        _grow(2 ** 20);
        _paid("38 checkpoint, longest proof up to 2^20 entries");
    }

    function test_gas_of_an_omission() external {
        _grow(MILLION);
        bytes32 leaf = Trees.leaf(0);
        bytes memory signature = _signReceipt(KEY, 123_456, 999, leaf);
        log.reportOmission(server, 123_456, 999, leaf, signature);
        _paid("40 reportOmission, first of a server");
        signature = _signReceipt(KEY, 123_457, 999, leaf);
        log.reportOmission(server, 123_457, 999, leaf, signature);
        _paid("41 reportOmission, next");
        bytes32[] memory path = Trees.uniformInclusion(123_456, MILLION);
        log.answerOmission(server, 123_456, 999, leaf, path);
        _paid("42 answerOmission, 1,000,000 entries");
    }

    function test_gas_of_forks() external {
        _grow(MILLION);
        (bytes32 root, bytes32 lie) = (Trees.uniformRoot(999_000), keccak256("lie"));
        bytes32[] memory proof = Trees.uniformConsistency(999_000, MILLION, true);
        bytes memory one = _signCheckpoint(KEY, 999_000, root);
        bytes memory two = _signCheckpoint(KEY, 999_000, lie);
        uint256 snapshot = vm.snapshotState();
        log.reportFork(server, 999_000, root, one, lie, two);
        _paid("43 reportFork");
        vm.revertToState(snapshot);
        log.reportRewrite(server, 999_000, lie, two, root, proof);
        _paid("44 reportRewrite, 1,000,000 entries");
    }

    function test_gas_of_who_is_who() external {
        address[] memory auditors = new address[](3);
        for (uint256 i = 0; i < 3; ++i) {
            auditors[i] = address(uint160(0xA0D0 + i));
            vm.prank(auditors[i]);
            log.registerAuditor(keccak256(abi.encode(i)));
        }
        _paid("46 registerAuditor");
        vm.prank(server);
        log.nameAuditors(auditors);
        _paid("47 nameAuditors, 3 of them");
        vm.prank(STRANGER);
        log.register(PROMISE);
        _paid("45 register");
    }
}
