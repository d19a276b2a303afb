// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {BEACON_DELAY, IRounds} from "../src/interfaces/IRounds.sol";
import {Bits} from "../src/libraries/Bits.sol";
import {Scene} from "./Scene.sol";

/// @notice Verdicts, proposal and objections: what an aggregator can, and what it cannot get away with.
contract VerdictsTest is Scene {
    using Bits for uint256;

    uint64 private id;

    function setUp() public override {
        super.setUp();
        id = _open();
    }

    function _badVerdicts(uint256 seat, uint8 reason) private view returns (bytes memory) {
        return abi.encodeWithSelector(IRounds.BadVerdicts.selector, id, seat, reason);
    }

    function _refusesVerdicts(bytes memory reasons, uint256 seat, uint8 reason) private {
        _refuses(_badVerdicts(seat, reason));
        _judge(id, reasons, _unsigned());
    }

    // ------------------------------------------------------------------------------------------------------------ verdicts

    function test_the_accepted_follow_from_the_reasons() external {
        _toVerify(id);
        _judge(id, hex"001500");
        IRounds.Round memory r = rounds.getRound(id);
        vm.assertEq(r.accepted, 5, "members 0 and 2");
        vm.assertEq(uint256(r.phase), uint256(IRounds.Phase.Propose), "phase");
        vm.assertEq(r.deadlineBlock, block.number + 10, "deadline");
    }

    function test_one_byte_per_seat() external {
        _toVerify(id);
        _refusesVerdicts(hex"0000", 2, 0);
        _refusesVerdicts(hex"00000000", 4, 0);
        _refusesVerdicts("", 0, 0);
    }

    function test_reasons_of_the_chain_are_not_the_aggregators_to_give() external {
        _toVerify(id);
        for (uint8 reason = 1; reason < 16; ++reason) {
            _refusesVerdicts(abi.encodePacked(uint8(0), reason, uint8(0)), 1, reason);
        }
    }

    function test_who_did_not_act_is_named_so_and_not_otherwise() external {
        vm.roll(_end(id) + 1);
        rounds.advance(id, "");
        for (uint8 member = MEMBERS; member < 6; ++member) {
            _admit(member);
        }
        IRounds.Policy memory policy = _provingPolicy();
        policy.quorum = 1;
        id = _open(policy);
        // 0 honest, 1 did not commit, 2 did not submit, 3 equivocated, 4 did not prove, 5 has a bad bundle
        for (uint8 member = 0; member < 6; ++member) {
            if (member != 1) _commit(id, member);
        }
        _seal(id);
        for (uint8 member = 0; member < 6; ++member) {
            if (member != 1 && member != 2) _submit(id, member);
        }
        _submit(id, 3, keccak256("other"), 1);
        vm.roll(_end(id) + BEACON_DELAY + 1);
        rounds.advance(id, _header(_end(id) + BEACON_DELAY));
        _prove(id, 0);
        _prove(id, 5);
        vm.roll(rounds.getRound(id).deadlineBlock + 1);

        bytes memory right = hex"000102030411";
        for (uint256 seat = 1; seat < 5; ++seat) {
            for (uint8 lie = 0; lie < 20; ++lie) {
                if (lie == uint8(right[seat])) continue;
                bytes memory wrong = bytes.concat(right);
                wrong[seat] = bytes1(lie);
                _refusesVerdicts(wrong, seat, lie);
            }
        }
        _judge(id, right);
        vm.assertEq(rounds.getRound(id).accepted, 1, "member 0");
        _propose(id, right);
        _phaseIs(id, IRounds.Phase.Proposed);
    }

    function test_too_few_accepted_is_void() external {
        _toVerify(id);
        _judge(id, hex"001515");
        _voidIs(id, IRounds.VoidReason.NothingAccepted);
        vm.assertEq(rounds.lastPossibleBlock(id), 0, "ended");
    }

    function test_verdicts_once_and_in_time() external {
        _toVerify(id);
        uint64 deadline = rounds.getRound(id).deadlineBlock;
        vm.roll(deadline + 1);
        _refuses(abi.encodeWithSelector(IRounds.PastDeadline.selector, id, deadline, deadline + 1));
        _judge(id, hex"000000", _unsigned());
        vm.roll(deadline);
        _judge(id, hex"000000");
        _refuses(abi.encodeWithSelector(IRounds.WrongPhase.selector, id, IRounds.Phase.Verify, IRounds.Phase.Propose));
        _judge(id, hex"000000", _unsigned());
    }

    /// @dev Random bytes are taken only if they fit, and then the accepted are exactly the zeros.
    function testFuzz_verdicts(bytes5 raw, uint8 length) external {
        _toVerify(id);
        bytes memory reasons = new bytes(length % 3 == 0 ? length % 6 : MEMBERS);
        for (uint256 i = 0; i < reasons.length; ++i) {
            reasons[i] = uint8(raw[i]) < 64 ? bytes1(0) : raw[i];
        }
        bool fits = reasons.length == MEMBERS;
        uint256 accepted;
        for (uint256 i = 0; fits && i < MEMBERS; ++i) {
            uint8 reason = uint8(reasons[i]);
            fits = reason == 0 || reason >= 16;
            if (reason == 0) accepted = accepted.with(uint8(i));
        }
        IRounds.Signed memory signed = _quorum(id, reasons);
        if (!fits) vm.expectPartialRevert(IRounds.BadVerdicts.selector);
        _judge(id, reasons, signed);
        if (fits) vm.assertEq(rounds.getRound(id).accepted, accepted, "accepted");
    }

    // --------------------------------------------------------------------------------------------------- whose turn it is

    function test_a_stranger_judges_nothing() external {
        _toVerify(id);
        _refuses(abi.encodeWithSelector(IRounds.NotAggregator.selector, COORDINATOR));
        vm.prank(COORDINATOR);
        rounds.postVerdicts(id, hex"000000", _unsigned());
    }

    function test_the_other_aggregator_waits_for_the_middle_of_verify() external {
        _toVerify(id);
        uint64 middle = rounds.getRound(id).deadlineBlock - 5;
        vm.roll(middle - 1);
        _refuses(abi.encodeWithSelector(IRounds.NotYourTurn.selector, _offDuty(id), middle));
        vm.prank(_offDuty(id));
        rounds.postVerdicts(id, hex"000000", _unsigned());
        vm.roll(middle);
        IRounds.Signed memory signed = _quorum(id, hex"000000");
        vm.prank(_offDuty(id));
        rounds.postVerdicts(id, hex"000000", signed);
        _phaseIs(id, IRounds.Phase.Propose);
    }

    function test_the_other_aggregator_waits_for_the_middle_of_propose() external {
        _toPropose(id);
        uint64 middle = rounds.getRound(id).deadlineBlock - 5;
        (bytes32 included, bytes32 excluded) = _roots(hex"000000");
        _refuses(abi.encodeWithSelector(IRounds.NotYourTurn.selector, _offDuty(id), middle));
        vm.prank(_offDuty(id));
        rounds.propose(id, AGGREGATE, included, excluded);
        vm.roll(middle);
        vm.prank(_offDuty(id));
        rounds.propose(id, AGGREGATE, included, excluded);
        _phaseIs(id, IRounds.Phase.Proposed);
    }

    function test_duty_goes_round() external {
        _toFinal(id);
        vm.assertEq(_onDuty(id), SECOND_AGGREGATOR, "1 mod 2");
        id = _open();
        _toVerify(id);
        IRounds.Signed memory signed = _quorum(id, hex"000000");
        vm.prank(FIRST_AGGREGATOR);
        rounds.postVerdicts(id, hex"000000", signed);
    }

    function test_without_aggregators_nobody_judges_and_the_round_still_ends() external {
        vm.roll(_end(id) + 1);
        rounds.advance(id, "");
        vm.prank(COORDINATOR);
        federation.setAggregators(new address[](0));
        id = _open();
        _toVerify(id);
        _refuses(abi.encodeWithSelector(IRounds.NotAggregator.selector, FIRST_AGGREGATOR));
        vm.prank(FIRST_AGGREGATOR);
        rounds.postVerdicts(id, hex"000000", _unsigned());
        vm.roll(rounds.lastPossibleBlock(id) + 1);
        rounds.advance(id, "");
        _voidIs(id, IRounds.VoidReason.NoVerdict);
    }

    // ------------------------------------------------------------------------------------------------------------ proposal

    function test_a_proposal_names_who_is_in_and_who_is_out() external {
        _toVerify(id);
        _judge(id, hex"001500");
        (bytes32 included, bytes32 excluded) = _roots(hex"001500");
        (bytes32 all, bytes32 none) = _roots(hex"000000");
        (, bytes32 otherwise) = _roots(hex"001600");
        _refuses(abi.encodeWithSelector(IRounds.WrongRoot.selector, included, all));
        vm.prank(_onDuty(id));
        rounds.propose(id, AGGREGATE, all, excluded);
        _refuses(abi.encodeWithSelector(IRounds.WrongRoot.selector, excluded, none));
        vm.prank(_onDuty(id));
        rounds.propose(id, AGGREGATE, included, none);
        _refuses(abi.encodeWithSelector(IRounds.WrongRoot.selector, excluded, otherwise));
        vm.prank(_onDuty(id));
        rounds.propose(id, AGGREGATE, included, otherwise);
        vm.prank(_onDuty(id));
        rounds.propose(id, AGGREGATE, included, excluded);
        vm.assertEq(rounds.getRound(id).aggregateBundle, AGGREGATE, "aggregate");
    }

    function test_an_empty_aggregate_is_none() external {
        _toPropose(id);
        (bytes32 included, bytes32 excluded) = _roots(hex"000000");
        vm.expectRevert(IRounds.EmptyDigest.selector);
        vm.prank(_onDuty(id));
        rounds.propose(id, 0, included, excluded);
    }

    function test_a_stranger_proposes_nothing_and_nobody_too_late_or_too_early() external {
        _toVerify(id);
        (bytes32 included, bytes32 excluded) = _roots(hex"000000");
        _refuses(abi.encodeWithSelector(IRounds.WrongPhase.selector, id, IRounds.Phase.Propose, IRounds.Phase.Verify));
        vm.prank(_onDuty(id));
        rounds.propose(id, AGGREGATE, included, excluded);
        _judge(id, hex"000000");
        _refuses(abi.encodeWithSelector(IRounds.NotAggregator.selector, STRANGER));
        vm.prank(STRANGER);
        rounds.propose(id, AGGREGATE, included, excluded);
        uint64 deadline = rounds.getRound(id).deadlineBlock;
        vm.roll(deadline + 1);
        _refuses(abi.encodeWithSelector(IRounds.PastDeadline.selector, id, deadline, deadline + 1));
        vm.prank(_onDuty(id));
        rounds.propose(id, AGGREGATE, included, excluded);
    }

    function test_without_a_challenge_window_a_proposal_is_final_at_once() external {
        vm.roll(_end(id) + 1);
        rounds.advance(id, "");
        IRounds.Policy memory policy = _policy();
        policy.challengeBlocks = 0;
        id = _open(policy);
        _toProposed(id);
        _phaseIs(id, IRounds.Phase.Final);
        vm.assertEq(rounds.globalBundle(), AGGREGATE, "global");
    }

    // ---------------------------------------------------------------------------------------------------------- objections

    function test_a_strict_majority_of_the_committed_voids_the_round() external {
        _toProposed(id);
        _object(id, 0);
        _phaseIs(id, IRounds.Phase.Proposed);
        _object(id, 2);
        _voidIs(id, IRounds.VoidReason.Disputed);
        vm.assertEq(rounds.globalBundle(), GENESIS, "the disputed aggregate leads nowhere");
    }

    function test_half_is_no_majority_and_those_who_never_committed_do_not_count() external {
        _commit(id, 0);
        _commit(id, 1);
        _seal(id);
        _submit(id, 0);
        _submit(id, 1);
        _seal(id);
        _judge(id, hex"000001");
        _propose(id, hex"000001");
        _refuses(abi.encodeWithSelector(IRounds.NotCommitted.selector, id, 2));
        _object(id, 2);
        _object(id, 0);
        vm.roll(rounds.getRound(id).deadlineBlock + 1);
        rounds.advance(id, "");
        _phaseIs(id, IRounds.Phase.Final);
    }

    function test_the_majority_is_of_the_committed_and_not_of_the_seated() external {
        vm.roll(_end(id) + 1);
        rounds.advance(id, "");
        _admit(3);
        id = _open();
        _commit(id, 0);
        _commit(id, 1);
        _seal(id);
        _submit(id, 0);
        _submit(id, 1);
        _seal(id);
        _judge(id, hex"00000101");
        _propose(id, hex"00000101");
        _object(id, 0);
        _object(id, 1);
        _voidIs(id, IRounds.VoidReason.Disputed);
    }

    function test_one_objection_each_from_the_seated_and_within_the_window() external {
        _toPropose(id);
        _refuses(abi.encodeWithSelector(IRounds.WrongPhase.selector, id, IRounds.Phase.Proposed, IRounds.Phase.Propose));
        _object(id, 0);
        _propose(id, hex"000000");
        _refuses(abi.encodeWithSelector(IRounds.NotSeated.selector, id, STRANGER));
        vm.prank(STRANGER);
        rounds.object(id, 0);
        _object(id, 0);
        _refuses(abi.encodeWithSelector(IRounds.AlreadyObjected.selector, id, 0));
        _object(id, 0);
        uint64 deadline = rounds.getRound(id).deadlineBlock;
        vm.roll(deadline + 1);
        _refuses(abi.encodeWithSelector(IRounds.PastDeadline.selector, id, deadline, deadline + 1));
        _object(id, 1);
    }
}
