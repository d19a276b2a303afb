// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {BEACON_DELAY, IRounds} from "../src/interfaces/IRounds.sol";
import {Headers} from "./Headers.sol";
import {Scene} from "./Scene.sol";

/// @notice How a round moves on: beacons, deadlines, early closes, and every way to end in Void.
contract AdvanceTest is Scene {
    /// @dev EIP-2935's runtime code, as its specification gives it.
    bytes private constant HISTORY_CODE = hex"3373fffffffffffffffffffffffffffffffffffffffe14604657602036036042575f35600143038111604257611fff814303116042"
        hex"57611fff9006545f5260205ff35b5f5ffd5b5f35611fff60014303065500";
    address private constant HISTORY = 0x0000F90827F1C53a10cb7A02335B175320002935;

    /// @dev Of Commit, when it runs to its deadline.
    uint64 private constant BEACON_BLOCK = 1010 + BEACON_DELAY;

    uint64 private id;

    function setUp() public override {
        super.setUp();
        id = _open();
    }

    function _notYet(uint64 earliest) private view returns (bytes memory) {
        return abi.encodeWithSelector(IRounds.NotYet.selector, id, earliest);
    }

    function _badHeader(uint64 number) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IRounds.BadHeader.selector, number);
    }

    function _commitTwo() private {
        _commit(id, 0);
        _commit(id, 1);
    }

    // -------------------------------------------------------------------------------------------------------- early, late

    function test_commit_closes_early_when_all_have_committed() external {
        vm.roll(1003);
        _commitTwo();
        vm.assertEq(rounds.getRound(id).closeBlock, 0, "one is missing");
        vm.roll(1004);
        _commit(id, 2);
        vm.assertEq(rounds.getRound(id).closeBlock, 1004, "closed");
        uint64 drawn = 1004 + BEACON_DELAY;
        vm.roll(drawn + 1);
        rounds.advance(id, _header(drawn));
        IRounds.Round memory r = rounds.getRound(id);
        vm.assertEq(r.deadlineBlock, drawn + 20, "train counts from the beacon's block");
        vm.assertEq(r.closeBlock, 0, "train is open");
        vm.assertEq(r.trainBeacon, _beacon(id, 1, _mixHash(drawn)), "beacon");
    }

    function test_train_closes_early_when_all_who_committed_have_submitted() external {
        _commitTwo();
        _seal(id);
        _submit(id, 1);
        vm.roll(block.number + 3);
        _submit(id, 0);
        uint64 end = uint64(block.number);
        vm.assertEq(rounds.getRound(id).closeBlock, end, "closed");
        uint64 drawn = end + BEACON_DELAY;
        vm.roll(drawn + 1);
        rounds.advance(id, _header(drawn));
        IRounds.Round memory r = rounds.getRound(id);
        vm.assertEq(uint256(r.phase), uint256(IRounds.Phase.Verify), "phase");
        vm.assertEq(r.deadlineBlock, drawn + 10, "verify counts from the beacon's block");
        vm.assertEq(r.proveBeacon, _beacon(id, 2, _mixHash(drawn)), "beacon");
    }

    function test_no_phase_ends_before_its_time() external {
        _refuses(_notYet(1011));
        rounds.advance(id, "");
        _commitTwo();
        bytes memory header = _headerOf(BEACON_BLOCK);
        _refuses(_notYet(BEACON_BLOCK + 1));
        rounds.advance(id, header);
        vm.roll(BEACON_BLOCK);
        _refuses(_notYet(BEACON_BLOCK + 1));
        rounds.advance(id, header);
        _seal(id);
        uint64 deadline = rounds.getRound(id).deadlineBlock;
        _refuses(_notYet(deadline + 1));
        rounds.advance(id, "");
    }

    function test_waiting_changes_neither_beacon_nor_deadline() external {
        _commitTwo();
        bytes memory header = _headerOf(BEACON_BLOCK);
        uint256 snapshot = vm.snapshotState();
        vm.roll(BEACON_BLOCK + 1);
        vm.setBlockhash(BEACON_BLOCK, keccak256(header));
        rounds.advance(id, header);
        IRounds.Round memory soon = rounds.getRound(id);
        vm.revertToState(snapshot);
        vm.roll(1200);
        vm.setBlockhash(BEACON_BLOCK, keccak256(header));
        rounds.advance(id, header);
        IRounds.Round memory late = rounds.getRound(id);
        vm.assertEq(soon.trainBeacon, late.trainBeacon, "beacon");
        vm.assertEq(soon.deadlineBlock, late.deadlineBlock, "deadline");
        vm.assertEq(soon.transcript, late.transcript, "transcript");
    }

    function _headerOf(uint64 number) private pure returns (bytes memory) {
        return Headers.build(number, _mixHash(number));
    }

    // ------------------------------------------------------------------------------------------------------------- headers

    function test_a_forged_header_is_refused() external {
        _commitTwo();
        vm.roll(BEACON_BLOCK + 1);
        _header(BEACON_BLOCK);
        bytes memory forged = Headers.build(BEACON_BLOCK, keccak256("the beacon that I would like"));
        _refuses(_badHeader(BEACON_BLOCK));
        rounds.advance(id, forged);
        _refuses(_badHeader(BEACON_BLOCK));
        rounds.advance(id, "");
    }

    function test_the_real_header_of_another_block_is_refused() external {
        _commitTwo();
        vm.roll(BEACON_BLOCK + 2);
        _header(BEACON_BLOCK);
        bytes memory later = _header(BEACON_BLOCK + 1);
        _refuses(_badHeader(BEACON_BLOCK));
        rounds.advance(id, later);
    }

    /// @dev EIP-4399: its mixHash is the mix after block X, which the proposer of X knew when it filled the block.
    function test_the_header_right_after_the_close_is_refused() external {
        _commitTwo();
        uint64 afterClose = _end(id) + 1;
        vm.roll(afterClose + 1);
        bytes memory early = _header(afterClose);
        _refuses(_notYet(afterClose + 2));
        rounds.advance(id, early);
        vm.roll(afterClose + 2);
        bytes memory right = _header(afterClose + 1);
        _refuses(_badHeader(afterClose + 1));
        rounds.advance(id, early);
        rounds.advance(id, right);
        vm.assertEq(rounds.getRound(id).trainBeacon, _beacon(id, 1, _mixHash(afterClose + 1)), "beacon");
    }

    function test_after_train_too_the_header_right_after_the_close_is_refused() external {
        _toTrain(id);
        for (uint8 member = 0; member < MEMBERS; ++member) {
            _submit(id, member);
        }
        uint64 afterClose = _end(id) + 1;
        vm.roll(afterClose + 2);
        bytes memory early = _header(afterClose);
        bytes memory right = _header(afterClose + 1);
        _refuses(_badHeader(afterClose + 1));
        rounds.advance(id, early);
        rounds.advance(id, right);
        vm.assertEq(rounds.getRound(id).proveBeacon, _beacon(id, 2, _mixHash(afterClose + 1)), "beacon");
    }

    function test_one_changed_byte_is_another_header() external {
        _commitTwo();
        vm.roll(BEACON_BLOCK + 1);
        bytes memory header = _header(BEACON_BLOCK);
        header[header.length - 1] ^= 0x01;
        _refuses(_badHeader(BEACON_BLOCK));
        rounds.advance(id, header);
    }

    function test_a_header_that_says_another_number_is_refused_even_under_the_right_hash() external {
        _commitTwo();
        vm.roll(BEACON_BLOCK + 1);
        bytes memory header = Headers.build(BEACON_BLOCK - 1, _mixHash(BEACON_BLOCK));
        vm.setBlockhash(BEACON_BLOCK, keccak256(header));
        _refuses(_badHeader(BEACON_BLOCK));
        rounds.advance(id, header);
    }

    function test_the_history_contract_remembers_what_blockhash_forgot() external {
        _commitTwo();
        bytes memory header = _headerOf(BEACON_BLOCK);
        vm.roll(BEACON_BLOCK + 8191);
        vm.etch(HISTORY, HISTORY_CODE);
        vm.store(HISTORY, bytes32(uint256(BEACON_BLOCK % 8191)), keccak256(header));
        rounds.advance(id, header);
        _phaseIs(id, IRounds.Phase.Train);
    }

    function test_the_history_contract_forgets_too() external {
        _commitTwo();
        vm.roll(BEACON_BLOCK + 8192);
        vm.etch(HISTORY, HISTORY_CODE);
        vm.store(HISTORY, bytes32(uint256(BEACON_BLOCK % 8191)), keccak256(_headerOf(BEACON_BLOCK)));
        rounds.advance(id, _headerOf(BEACON_BLOCK));
        _voidIs(id, IRounds.VoidReason.BeaconLost);
    }

    function test_without_history_the_beacon_is_lost_after_256_blocks() external {
        _commitTwo();
        bytes memory header = _headerOf(BEACON_BLOCK);
        uint256 snapshot = vm.snapshotState();
        vm.roll(BEACON_BLOCK + 256);
        vm.setBlockhash(BEACON_BLOCK, keccak256(header));
        rounds.advance(id, header);
        _phaseIs(id, IRounds.Phase.Train);
        vm.revertToState(snapshot);
        vm.roll(BEACON_BLOCK + 257);
        rounds.advance(id, header);
        _voidIs(id, IRounds.VoidReason.BeaconLost);
    }

    function test_the_second_beacon_can_be_lost_too() external {
        _toTrain(id);
        for (uint8 member = 0; member < MEMBERS; ++member) {
            _submit(id, member);
        }
        vm.roll(_end(id) + BEACON_DELAY + 257);
        rounds.advance(id, "");
        _voidIs(id, IRounds.VoidReason.BeaconLost);
    }

    // ---------------------------------------------------------------------------------------------------------------- void

    function test_too_few_commitments() external {
        _commit(id, 0);
        vm.roll(1011);
        rounds.advance(id, "");
        _voidIs(id, IRounds.VoidReason.CommitQuorum);
    }

    function test_all_vanish_after_committing() external {
        _toTrain(id);
        vm.roll(rounds.getRound(id).deadlineBlock + 1);
        rounds.advance(id, "");
        _voidIs(id, IRounds.VoidReason.SubmitQuorum);
    }

    function test_the_aggregators_sleep() external {
        _toVerify(id);
        vm.roll(rounds.getRound(id).deadlineBlock + 1);
        rounds.advance(id, "");
        _voidIs(id, IRounds.VoidReason.NoVerdict);
    }

    function test_the_aggregators_fall_asleep_after_judging() external {
        _toPropose(id);
        vm.roll(rounds.getRound(id).deadlineBlock);
        _refuses(_notYet(uint64(block.number) + 1));
        rounds.advance(id, "");
        vm.roll(block.number + 1);
        rounds.advance(id, "");
        _voidIs(id, IRounds.VoidReason.NoProposal);
    }

    function test_nobody_objected_in_time() external {
        _toProposed(id);
        vm.roll(rounds.getRound(id).deadlineBlock);
        _refuses(_notYet(uint64(block.number) + 1));
        rounds.advance(id, "");
        vm.roll(block.number + 1);
        vm.prank(STRANGER);
        rounds.advance(id, "");
        _phaseIs(id, IRounds.Phase.Final);
    }

    function test_what_has_ended_stays_ended() external {
        _toFinal(id);
        _refuses(abi.encodeWithSelector(IRounds.WrongPhase.selector, id, IRounds.Phase.Proposed, IRounds.Phase.Final));
        rounds.advance(id, "");
        uint64 next = _open();
        vm.roll(_end(next) + 1);
        rounds.advance(next, "");
        _refuses(abi.encodeWithSelector(IRounds.WrongPhase.selector, next, IRounds.Phase.Proposed, IRounds.Phase.Void));
        rounds.advance(next, "");
    }

    // ------------------------------------------------------------------------------------------------- the last possible block

    function test_the_last_possible_block_is_known_at_the_opening() external {
        // commit 10, beacon, train 20, beacon, verify 10, propose 10, challenge 10
        uint64 beacons = 2 * BEACON_DELAY;
        vm.assertEq(rounds.lastPossibleBlock(id), 1000 + 10 + 20 + 10 + 10 + 10 + beacons, "without proofs");
        vm.roll(1011);
        rounds.advance(id, "");
        vm.assertEq(rounds.lastPossibleBlock(id), 0, "ended");
        id = _open(_provingPolicy());
        vm.assertEq(rounds.lastPossibleBlock(id), 1011 + 10 + 20 + 10 + 10 + 10 + 10 + beacons, "with proofs");
    }

    /// @dev Everybody acts at the last moment: the bound is reached and not passed.
    function test_the_last_possible_block_is_tight() external {
        vm.roll(1011);
        rounds.advance(id, "");
        id = _open(_provingPolicy());
        uint64 last = rounds.lastPossibleBlock(id);
        vm.roll(_end(id));
        _commitTwo();
        _seal(id);
        vm.roll(_end(id));
        _submit(id, 0);
        vm.assertEq(rounds.lastPossibleBlock(id), last, "unmoved in train");
        _submit(id, 1);
        _seal(id);
        vm.roll(_end(id));
        _prove(id, 0);
        vm.roll(_end(id) + 1);
        vm.assertEq(rounds.lastPossibleBlock(id), last, "unmoved when prove is over");
        vm.roll(_end(id));
        _judge(id, hex"000401");
        _voidIs(id, IRounds.VoidReason.NothingAccepted);
    }

    function test_everybody_sleeps_after_the_last_moment_and_the_round_still_ends() external {
        uint64 last = rounds.lastPossibleBlock(id);
        vm.roll(_end(id));
        _commitTwo();
        _seal(id);
        vm.roll(_end(id));
        _submit(id, 0);
        _submit(id, 1);
        _seal(id);
        vm.roll(_end(id));
        _judge(id, hex"000001");
        vm.roll(_end(id));
        _propose(id, hex"000001");
        vm.assertEq(rounds.lastPossibleBlock(id), last, "unmoved to the end");
        vm.roll(last);
        _refuses(_notYet(last + 1));
        rounds.advance(id, "");
        vm.roll(last + 1);
        rounds.advance(id, "");
        _phaseIs(id, IRounds.Phase.Final);
    }
}
