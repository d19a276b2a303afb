// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {AuditLog} from "../src/AuditLog.sol";
import {IAuditLog} from "../src/interfaces/IAuditLog.sol";
import {LogErrors} from "../src/libraries/LogErrors.sol";
import {Merkle} from "../src/libraries/Merkle.sol";
import {LogScene} from "./LogScene.sol";
import {Trees} from "./Trees.sol";
import {Vm} from "./Vm.sol";

/// @notice Calldata is calldata, and a revert is a revert.
contract MerkleDoor {
    function inclusion(bytes32 leaf, uint64 index, uint64 size, bytes32 root, bytes32[] calldata path) external pure {
        Merkle.checkInclusion(leaf, index, size, root, path);
    }

    function consistency(uint64 older, bytes32 olderRoot, uint64 size, bytes32 root, bytes32[] calldata path)
        external
        pure
    {
        Merkle.checkConsistency(older, olderRoot, size, root, path);
    }
}

/// @notice A log grows and does nothing else; a broken promise and a second history become evidence.
contract AuditLogTest is LogScene {
    bytes32 private constant LIE = keccak256("a leaf or root that never was");

    MerkleDoor private door;

    function setUp() public override {
        super.setUp();
        door = new MerkleDoor();
    }

    // ------------------------------------------------------------------------------------------------------ who is who

    function test_a_key_becomes_a_server_once() external {
        vm.assertEq(log.getServer(server).promiseBlocks, PROMISE, "promise");
        _refuses(abi.encodeWithSelector(LogErrors.AlreadyServer.selector, server));
        vm.prank(server);
        log.register(PROMISE + 1);
        _refuses(abi.encodeWithSelector(LogErrors.NoPromise.selector));
        vm.prank(STRANGER);
        log.register(0);
        _refuses(abi.encodeWithSelector(LogErrors.NoWindow.selector));
        new AuditLog(0);
    }

    function test_nothing_can_be_said_to_or_of_who_never_registered() external {
        bytes memory why = abi.encodeWithSelector(LogErrors.UnknownServer.selector, STRANGER);
        _refuses(why);
        log.getServer(STRANGER);
        _refuses(why);
        log.checkpoint(STRANGER, 1, 0, none, "");
        _refuses(why);
        log.reportOmission(STRANGER, 1, 2, 0, "");
        _refuses(why);
        log.answerOmission(STRANGER, 1, 2, 0, none);
        _refuses(why);
        log.reportFork(STRANGER, 1, 0, "", 0, "");
        _refuses(why);
        log.reportRewrite(STRANGER, 1, 0, "", 0, none);
        _refuses(why);
        vm.prank(STRANGER);
        log.nameAuditors(new address[](0));
    }

    function test_a_server_names_auditors_that_have_a_key() external {
        address[] memory auditors = new address[](1);
        auditors[0] = STRANGER;
        _refuses(abi.encodeWithSelector(LogErrors.UnknownAuditor.selector, STRANGER));
        vm.prank(server);
        log.nameAuditors(auditors);
        _refuses(abi.encodeWithSelector(LogErrors.EmptyKey.selector));
        vm.prank(STRANGER);
        log.registerAuditor(0);
        vm.prank(STRANGER);
        log.registerAuditor(keccak256("x25519"));
        vm.prank(server);
        log.nameAuditors(auditors);
        vm.assertEq(log.getServer(server).auditors, keccak256(abi.encode(auditors)), "named");
        vm.assertEq(log.auditorKey(STRANGER), keccak256("x25519"), "key");
        vm.prank(STRANGER);
        log.registerAuditor(keccak256("newer"));
        vm.assertEq(log.auditorKey(STRANGER), keccak256("newer"), "replaced");
    }

    function test_sixteen_auditors_and_no_more() external {
        address[] memory auditors = new address[](17);
        _refuses(abi.encodeWithSelector(LogErrors.TooManyAuditors.selector, 17, 16));
        vm.prank(server);
        log.nameAuditors(auditors);
    }

    // ------------------------------------------------------------------------------------------------------ checkpoints

    function test_a_log_grows_by_proof() external {
        uint8[6] memory sizes = [1, 2, 3, 8, 13, 21];
        for (uint256 i = 0; i < sizes.length; ++i) {
            _anchor(sizes[i]);
            vm.assertEq(log.getServer(server).size, sizes[i], "size");
            vm.assertEq(log.getServer(server).root, _root(sizes[i]), "root");
        }
    }

    function test_the_same_checkpoint_again_does_nothing() external {
        _anchor(5);
        vm.recordLogs();
        log.checkpoint(server, 5, _root(5), none, "not even signed");
        vm.assertEq(vm.getRecordedLogs().length, 0, "no event");
    }

    function test_a_log_neither_shrinks_nor_changes_at_its_size() external {
        _anchor(5);
        bytes memory signature = _signCheckpoint(KEY, 4, _root(4));
        _refuses(abi.encodeWithSelector(LogErrors.NotLonger.selector, server, 5, 4));
        log.checkpoint(server, 4, _root(4), none, signature);
        signature = _signCheckpoint(KEY, 5, _root(4));
        _refuses(abi.encodeWithSelector(LogErrors.NotLonger.selector, server, 5, 5));
        log.checkpoint(server, 5, _root(4), none, signature);
        bytes32 empty = sha256("");
        signature = _signCheckpoint(OTHER_KEY, 0, empty);
        _register(OTHER_KEY);
        address other = vm.addr(OTHER_KEY);
        _refuses(abi.encodeWithSelector(LogErrors.NotLonger.selector, other, 0, 0));
        log.checkpoint(other, 0, empty, none, signature);
    }

    function test_nobody_but_the_server_extends_its_log() external {
        address other = vm.addr(OTHER_KEY);
        bytes memory signature = _signCheckpoint(OTHER_KEY, 1, _root(1));
        _refuses(abi.encodeWithSelector(LogErrors.BadSignature.selector, server, other));
        log.checkpoint(server, 1, _root(1), none, signature);
        _refuses(abi.encodeWithSelector(LogErrors.BadSignature.selector, server, address(0)));
        log.checkpoint(server, 1, _root(1), none, "short");
    }

    /// @dev The owner has the key, and still cannot: no proof leads from the old root to a log with another third leaf.
    function test_not_even_the_owner_rewrites_history() external {
        _anchor(5);
        bytes32[] memory rewritten = _leaves(9, 0);
        rewritten[2] = LIE;
        bytes32 root = Trees.root(rewritten, 0, 9);
        bytes memory signature = _signCheckpoint(KEY, 9, root);
        bytes32[] memory proof = Trees.consistency(rewritten, 5, 0, 9, true);
        bytes32 other = Trees.root(rewritten, 0, 5);
        _refuses(abi.encodeWithSelector(LogErrors.ProofMismatch.selector, _root(5), other));
        log.checkpoint(server, 9, root, proof, signature);
        proof = _proof(5, 9);
        _refuses(abi.encodeWithSelector(LogErrors.ProofMismatch.selector, root, _root(9)));
        log.checkpoint(server, 9, root, proof, signature);
    }

    function test_a_proof_of_the_wrong_length_is_refused_before_anything_is_hashed() external {
        _anchor(5);
        bytes memory signature = _signCheckpoint(KEY, 9, _root(9));
        bytes32[] memory proof = _proof(5, 9);
        vm.assertEq(proof.length, 5, "length");
        bytes32[] memory wrong = Trees.cut(proof);
        _refuses(abi.encodeWithSelector(LogErrors.ProofLength.selector, 5, 4));
        log.checkpoint(server, 9, _root(9), wrong, signature);
        wrong = Trees.push(proof, 0);
        _refuses(abi.encodeWithSelector(LogErrors.ProofLength.selector, 5, 6));
        log.checkpoint(server, 9, _root(9), wrong, signature);
        wrong = new bytes32[](3000);
        _refuses(abi.encodeWithSelector(LogErrors.ProofLength.selector, 5, 3000));
        log.checkpoint(server, 9, _root(9), wrong, signature);
        _refuses(abi.encodeWithSelector(LogErrors.ProofLength.selector, 5, 0));
        log.checkpoint(server, 9, _root(9), none, signature);
        wrong = new bytes32[](1);
        _register(OTHER_KEY);
        signature = _signCheckpoint(OTHER_KEY, 9, _root(9));
        address other = vm.addr(OTHER_KEY);
        _refuses(abi.encodeWithSelector(LogErrors.ProofLength.selector, 0, 1));
        log.checkpoint(other, 9, _root(9), wrong, signature);
    }

    function test_a_statement_counts_on_one_chain_and_one_contract() external {
        bytes memory signature = _signCheckpoint(KEY, 1, _root(1));
        bytes memory receipt = _signReceipt(KEY, 0, 10, _root(1));
        uint256 here = block.chainid;
        vm.chainId(here + 1);
        vm.expectPartialRevert(LogErrors.BadSignature.selector);
        log.checkpoint(server, 1, _root(1), none, signature);
        vm.expectPartialRevert(LogErrors.BadSignature.selector);
        log.reportOmission(server, 0, 10, _root(1), receipt);
        vm.chainId(here);
        log = new AuditLog(WINDOW);
        _register(KEY);
        vm.expectPartialRevert(LogErrors.BadSignature.selector);
        log.checkpoint(server, 1, _root(1), none, signature);
        vm.expectPartialRevert(LogErrors.BadSignature.selector);
        log.reportOmission(server, 0, 10, _root(1), receipt);
    }

    // -------------------------------------------------------------------------------------------------------- omissions

    function test_a_promise_that_no_checkpoint_kept_is_late_and_without_an_answer_an_omission() external {
        _anchor(3);
        bytes32 receipt = _report(3, 999, leafHashes[3]);
        (IAuditLog.Outcome outcome, bool late, uint64 answerBy) = log.omission(server, receipt);
        vm.assertEq(uint256(outcome), uint256(IAuditLog.Outcome.Open), "open");
        vm.assertTrue(late, "not covered when it was reported");
        vm.assertEq(answerBy, 1000 + WINDOW, "window");
        vm.roll(answerBy);
        vm.assertEq(uint256(_outcome(receipt)), uint256(IAuditLog.Outcome.Open), "to its last block");
        vm.roll(answerBy + 1);
        vm.assertEq(uint256(_outcome(receipt)), uint256(IAuditLog.Outcome.Omitted), "omitted");
        vm.assertEq(log.getServer(server).reports, 1, "reports");
        _anchor(4);
        bytes32[] memory path = _path(3, 4);
        _refuses(abi.encodeWithSelector(LogErrors.AnsweredTooLate.selector, receipt, 1000 + WINDOW, 1001 + WINDOW));
        log.answerOmission(server, 3, 999, leafHashes[3], path);
        vm.assertEq(uint256(_outcome(receipt)), uint256(IAuditLog.Outcome.Omitted), "for ever");
    }

    function test_an_answer_in_time_clears_the_omission_and_not_the_delay() external {
        _anchor(3);
        bytes32 receipt = _report(3, 999, leafHashes[3]);
        _refuses(abi.encodeWithSelector(LogErrors.NotAnchored.selector, 3, 3));
        log.answerOmission(server, 3, 999, leafHashes[3], none);
        _anchor(6);
        log.answerOmission(server, 3, 999, leafHashes[3], _path(3, 6));
        (IAuditLog.Outcome outcome, bool late,) = log.omission(server, receipt);
        vm.assertEq(uint256(outcome), uint256(IAuditLog.Outcome.Answered), "answered");
        vm.assertTrue(late, "and late");
        vm.assertEq(log.getServer(server).answers, 1, "answers");
        vm.roll(5000);
        log.answerOmission(server, 3, 999, leafHashes[3], none);
        vm.assertEq(log.getServer(server).answers, 1, "again does nothing");
    }

    function test_a_report_of_what_is_in_the_log_ends_answered_and_not_late() external {
        _anchor(6);
        bytes32 receipt = _report(2, 999, leafHashes[2]);
        log.answerOmission(server, 2, 999, leafHashes[2], _path(2, 6));
        (IAuditLog.Outcome outcome, bool late,) = log.omission(server, receipt);
        vm.assertEq(uint256(outcome), uint256(IAuditLog.Outcome.Answered), "answered");
        vm.assertTrue(!late, "not late");
    }

    /// @dev Covered by size, but another leaf stands there: no proof fits.
    function test_a_dropped_record_cannot_be_answered_for() external {
        _anchor(6);
        bytes32 dropped = LIE;
        _report(2, 999, dropped);
        bytes32[] memory path = _path(2, 6);
        vm.expectPartialRevert(LogErrors.ProofMismatch.selector);
        log.answerOmission(server, 2, 999, dropped, path);
        path = Trees.push(path, 0);
        _refuses(abi.encodeWithSelector(LogErrors.ProofLength.selector, 3, 4));
        log.answerOmission(server, 2, 999, dropped, path);
    }

    function test_the_same_leaf_at_another_place_is_no_answer() external {
        _anchor(6);
        _report(2, 999, leafHashes[3]);
        bytes32[] memory path = _path(3, 6);
        vm.expectPartialRevert(LogErrors.ProofMismatch.selector);
        log.answerOmission(server, 2, 999, leafHashes[3], path);
    }

    function test_no_report_before_the_promise_is_due_and_none_without_the_servers_word() external {
        bytes memory signature = _signReceipt(KEY, 0, 1000, leafHashes[0]);
        _refuses(abi.encodeWithSelector(LogErrors.NotDue.selector, 1000, 1000));
        log.reportOmission(server, 0, 1000, leafHashes[0], signature);
        signature = _signReceipt(OTHER_KEY, 0, 999, leafHashes[0]);
        _refuses(abi.encodeWithSelector(LogErrors.BadSignature.selector, server, vm.addr(OTHER_KEY)));
        log.reportOmission(server, 0, 999, leafHashes[0], signature);
        bytes32 receipt = log.receiptDigest(0, 999, leafHashes[0]);
        _refuses(abi.encodeWithSelector(LogErrors.NotReported.selector, server, receipt));
        log.answerOmission(server, 0, 999, leafHashes[0], none);
        vm.assertEq(uint256(_outcome(receipt)), uint256(IAuditLog.Outcome.None), "none");
    }

    function test_a_checkpoint_is_no_receipt() external {
        bytes memory signature = _signCheckpoint(KEY, 3, _root(3));
        vm.expectPartialRevert(LogErrors.BadSignature.selector);
        log.reportOmission(server, 3, 0, _root(3), signature);
    }

    function test_the_same_report_again_does_nothing_and_does_not_move_the_window() external {
        bytes32 receipt = _report(0, 999, leafHashes[0]);
        vm.roll(1050);
        _report(0, 999, leafHashes[0]);
        (,, uint64 answerBy) = log.omission(server, receipt);
        vm.assertEq(answerBy, 1000 + WINDOW, "window");
        vm.assertEq(log.getServer(server).reports, 1, "reports");
    }

    /// @dev The digest that two servers sign is the same: the report is not.
    function test_a_receipt_convicts_its_own_server_alone() external {
        _register(OTHER_KEY);
        bytes32 receipt = _report(0, 999, leafHashes[0]);
        (IAuditLog.Outcome outcome,,) = log.omission(vm.addr(OTHER_KEY), receipt);
        vm.assertEq(uint256(outcome), uint256(IAuditLog.Outcome.None), "not the other's");
        vm.assertEq(log.getServer(vm.addr(OTHER_KEY)).reports, 0, "reports");
    }

    // ------------------------------------------------------------------------------------------------------------ forks

    function test_two_roots_for_one_size_mark_the_server_for_ever() external {
        bytes memory one = _signCheckpoint(KEY, 9, _root(9));
        bytes memory two = _signCheckpoint(KEY, 9, _root(8));
        log.reportFork(server, 9, _root(9), one, _root(8), two);
        vm.assertEq(log.getServer(server).forkBlock, 1000, "marked");
        _refuses(abi.encodeWithSelector(LogErrors.AlreadyForked.selector, server, 1000));
        log.reportFork(server, 9, _root(9), one, _root(8), two);
        _refuses(abi.encodeWithSelector(LogErrors.AlreadyForked.selector, server, 1000));
        log.reportRewrite(server, 9, _root(9), one, _root(8), none);
        _anchor(4);
        vm.assertEq(log.getServer(server).size, 4, "its log goes on growing");
        vm.assertEq(log.getServer(server).forkBlock, 1000, "and it stays marked");
    }

    function test_a_fork_needs_both_signatures_and_two_roots() external {
        bytes memory one = _signCheckpoint(KEY, 9, _root(9));
        bytes memory two = _signCheckpoint(OTHER_KEY, 9, _root(8));
        bytes memory another = _signCheckpoint(KEY, 8, _root(8));
        _refuses(abi.encodeWithSelector(LogErrors.SameRoot.selector, _root(9)));
        log.reportFork(server, 9, _root(9), one, _root(9), one);
        _refuses(abi.encodeWithSelector(LogErrors.BadSignature.selector, server, vm.addr(OTHER_KEY)));
        log.reportFork(server, 9, _root(9), one, _root(8), two);
        _refuses(abi.encodeWithSelector(LogErrors.BadSignature.selector, server, vm.addr(OTHER_KEY)));
        log.reportFork(server, 9, _root(8), two, _root(9), one);
        vm.expectPartialRevert(LogErrors.BadSignature.selector);
        log.reportFork(server, 9, _root(9), one, _root(8), another);
    }

    function test_a_checkpoint_that_the_anchored_log_contradicts_is_a_rewrite() external {
        _anchor(13);
        bytes32 lie = LIE;
        bytes memory signature = _signCheckpoint(KEY, 6, lie);
        log.reportRewrite(server, 6, lie, signature, _root(6), _proof(6, 13));
        vm.assertEq(log.getServer(server).forkBlock, 1000, "marked");
    }

    function test_a_rewrite_at_the_anchored_size_needs_no_path() external {
        _anchor(13);
        bytes32 lie = LIE;
        bytes memory signature = _signCheckpoint(KEY, 13, lie);
        bytes32[] memory one = new bytes32[](1);
        _refuses(abi.encodeWithSelector(LogErrors.ProofLength.selector, 0, 1));
        log.reportRewrite(server, 13, lie, signature, _root(13), one);
        _refuses(abi.encodeWithSelector(LogErrors.ProofMismatch.selector, _root(13), _root(12)));
        log.reportRewrite(server, 13, lie, signature, _root(12), none);
        log.reportRewrite(server, 13, lie, signature, _root(13), none);
        vm.assertEq(log.getServer(server).forkBlock, 1000, "marked");
    }

    function test_an_honest_server_cannot_be_accused_of_rewriting() external {
        _anchor(13);
        bytes memory signature = _signCheckpoint(KEY, 6, _root(6));
        bytes32[] memory proof = _proof(6, 13);
        _refuses(abi.encodeWithSelector(LogErrors.SameRoot.selector, _root(6)));
        log.reportRewrite(server, 6, _root(6), signature, _root(6), proof);
        vm.expectPartialRevert(LogErrors.ProofMismatch.selector);
        log.reportRewrite(server, 6, _root(6), signature, _root(7), proof);
        bytes memory later = _signCheckpoint(KEY, 14, _root(14));
        _refuses(abi.encodeWithSelector(LogErrors.NotPassed.selector, 14, 13));
        log.reportRewrite(server, 14, _root(14), later, _root(13), proof);
        _refuses(abi.encodeWithSelector(LogErrors.NotPassed.selector, 0, 13));
        log.reportRewrite(server, 0, _root(14), later, _root(13), proof);
        vm.expectPartialRevert(LogErrors.BadSignature.selector);
        log.reportRewrite(server, 6, _root(7), later, _root(6), proof);
    }

    // ------------------------------------------------------------------------------------------------------------ proofs

    function testFuzz_every_two_sizes_of_one_log_are_consistent(uint64 older, uint64 size) external view {
        size = 2 + size % 70;
        older = 1 + older % (size - 1);
        bytes32[] memory proof = _proof(older, size);
        door.consistency(older, _root(older), size, _root(size), proof);
    }

    function testFuzz_every_leaf_is_included_at_its_place(uint64 index, uint64 size) external view {
        size = 1 + size % 70;
        index = index % size;
        door.inclusion(Trees.leaf(index), index, size, _root(size), _path(index, size));
    }

    /// @dev One bit anywhere: in a root, in any hash of the path.
    function testFuzz_a_changed_bit_is_refused(uint64 older, uint64 size, uint8 where, uint8 bit) external {
        size = 2 + size % 70;
        older = 1 + older % (size - 1);
        bytes32[] memory proof = _proof(older, size);
        (bytes32 before, bytes32 later) = (_root(older), _root(size));
        uint256 place = where % (proof.length + 2);
        bytes32 flip = bytes32(uint256(1) << bit);
        if (place == proof.length) before ^= flip;
        else if (place > proof.length) later ^= flip;
        else proof[place] ^= flip;
        vm.expectPartialRevert(LogErrors.ProofMismatch.selector);
        door.consistency(older, before, size, later, proof);
    }

    /// @dev A proof for (a, b) shows nothing of (c, d), unless it happens to be the proof for these too.
    function testFuzz_a_proof_for_other_sizes_is_refused(uint64 older, uint64 size, uint64 older2, uint64 size2)
        external
        view
    {
        size = 2 + size % 40;
        older = 1 + older % (size - 1);
        size2 = 2 + size2 % 40;
        older2 = 1 + older2 % (size2 - 1);
        bytes32[] memory proof = _proof(older, size);
        bool same = keccak256(abi.encode(proof)) == keccak256(abi.encode(_proof(older2, size2)));
        vm.assume(!same);
        (bytes32 before, bytes32 later) = (_root(older2), _root(size2));
        try door.consistency(older2, before, size2, later, proof) {
            vm.assertTrue(false, "taken");
        } catch (bytes memory why) {
            bool known =
                bytes4(why) == LogErrors.ProofLength.selector || bytes4(why) == LogErrors.ProofMismatch.selector;
            vm.assertTrue(known, "by name");
        }
    }

    /// @dev Whatever comes in, the answer is yes or a named error, at sizes up to 2^64 - 1 too.
    function testFuzz_garbage_is_refused_by_name(
        uint64 older,
        uint64 size,
        bytes32 a,
        bytes32 b,
        bytes32[] calldata path
    ) external view {
        vm.assume(size > 1);
        older = 1 + older % (size - 1);
        try door.consistency(older, a, size, b, path) {
            vm.assertTrue(false, "taken");
        } catch (bytes memory why) {
            bool known =
                bytes4(why) == LogErrors.ProofLength.selector || bytes4(why) == LogErrors.ProofMismatch.selector;
            vm.assertTrue(known, "by name");
        }
        try door.inclusion(a, older, size, b, path) {
            vm.assertTrue(false, "taken");
        } catch (bytes memory why) {
            bool known =
                bytes4(why) == LogErrors.ProofLength.selector || bytes4(why) == LogErrors.ProofMismatch.selector;
            vm.assertTrue(known, "by name");
        }
    }

    function testFuzz_large_logs(uint64 older, uint64 size) external view {
        size = 2 + size % 1e12;
        older = 1 + older % (size - 1);
        bytes32[] memory proof = Trees.uniformConsistency(older, size, true);
        door.consistency(older, Trees.uniformRoot(older), size, Trees.uniformRoot(size), proof);
        door.inclusion(Trees.leaf(0), older, size, Trees.uniformRoot(size), Trees.uniformInclusion(older, size));
    }
}
