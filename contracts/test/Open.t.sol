// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";

import {IFederation} from "../src/interfaces/IFederation.sol";
import {IRounds} from "../src/interfaces/IRounds.sol";
import {Rounds} from "../src/Rounds.sol";
import {Scene} from "./Scene.sol";

/// @notice Opening a round, and the members' commitments.
contract OpenTest is Scene {
    function test_opening_fixes_what_the_round_is_about() external {
        uint64 id = _open();
        IRounds.Round memory r = rounds.getRound(id);
        vm.assertEq(id, 1, "numbered from one");
        vm.assertEq(rounds.latestRound(), 1, "latest");
        vm.assertEq(r.seated, 7, "three seats");
        vm.assertEq(r.deadlineBlock, 1010, "deadline");
        vm.assertEq(r.configDigest, CONFIG, "config");
        vm.assertEq(r.globalBundle, GENESIS, "global");
        IFederation.Seat memory seat = rounds.seatOf(id, 2);
        vm.assertEq(seat.owner, _owner(2), "owner");
        vm.assertEq(seat.signer, _signer(2), "signer");
        vm.assertEq(seat.capMicro, CAP, "cap");
    }

    function test_rounds_need_a_federation() external {
        vm.expectRevert(IFederation.ZeroAddress.selector);
        new Rounds(IFederation(address(0)));
    }

    function test_only_the_coordinator_opens() external {
        bytes32 role = federation.COORDINATOR_ROLE();
        _refuses(
            abi.encodeWithSelector(IAccessControl.AccessControlUnauthorizedAccount.selector, FIRST_AGGREGATOR, role)
        );
        vm.prank(FIRST_AGGREGATOR);
        rounds.open(CONFIG, GENESIS, _policy());
    }

    function test_one_round_at_a_time() external {
        uint64 id = _open();
        _refuses(abi.encodeWithSelector(IRounds.RoundStillOpen.selector, id, IRounds.Phase.Commit));
        vm.prank(COORDINATOR);
        rounds.open(CONFIG, GENESIS, _policy());
    }

    function test_nothing_is_named_by_zero() external {
        vm.expectRevert(IRounds.EmptyDigest.selector);
        vm.prank(COORDINATOR);
        rounds.open(0, GENESIS, _policy());
        vm.expectRevert(IRounds.EmptyDigest.selector);
        vm.prank(COORDINATOR);
        rounds.open(CONFIG, 0, _policy());
    }

    function test_every_round_starts_where_the_last_final_one_ended() external {
        uint64 id = _open();
        _toFinal(id);
        vm.assertEq(rounds.globalBundle(), AGGREGATE, "global");
        _refuses(abi.encodeWithSelector(IRounds.WrongGlobalBundle.selector, AGGREGATE, GENESIS));
        vm.prank(COORDINATOR);
        rounds.open(CONFIG, GENESIS, _policy());
    }

    function test_the_first_opening_fixes_the_genesis_even_if_its_round_is_void() external {
        uint64 id = _open();
        vm.roll(1011);
        rounds.advance(id, "");
        _refuses(abi.encodeWithSelector(IRounds.WrongGlobalBundle.selector, GENESIS, AGGREGATE));
        vm.prank(COORDINATOR);
        rounds.open(CONFIG, AGGREGATE, _policy());
        vm.assertEq(_open(), 2, "the same genesis is fine");
    }

    function _badPolicy(IRounds.Policy memory policy) private {
        vm.expectRevert(IRounds.BadPolicy.selector);
        vm.prank(COORDINATOR);
        rounds.open(CONFIG, GENESIS, policy);
    }

    function test_every_phase_has_a_block_and_the_quorum_can_be_met() external {
        IRounds.Policy memory policy = _policy();
        policy.commitBlocks = 0;
        _badPolicy(policy);
        policy = _policy();
        policy.trainBlocks = 0;
        _badPolicy(policy);
        policy = _policy();
        policy.verifyBlocks = 0;
        _badPolicy(policy);
        policy = _policy();
        policy.proposeBlocks = 0;
        _badPolicy(policy);
        policy = _provingPolicy();
        policy.proveBlocks = 0;
        _badPolicy(policy);
        policy = _policy();
        policy.quorum = 0;
        _badPolicy(policy);
        policy.quorum = MEMBERS + 1;
        _badPolicy(policy);
        policy.quorum = MEMBERS;
        policy.verifierQuorum = 0;
        _badPolicy(policy);
        policy.verifierQuorum = MEMBERS + 1;
        _badPolicy(policy);
        policy.verifierQuorum = MEMBERS;
        policy.proveBlocks = 0;
        policy.challengeBlocks = 0;
        vm.assertEq(_open(policy), 1, "proofs and challenges are optional");
    }

    // -------------------------------------------------------------------------------------------------------- commitments

    function test_a_commitment_is_kept_and_may_be_repeated() external {
        uint64 id = _open();
        vm.assertEq(rounds.commitmentHash(id, 1), 0, "before");
        _commit(id, 1);
        bytes32 transcript = rounds.getRound(id).transcript;
        _commit(id, 1);
        IRounds.Round memory r = rounds.getRound(id);
        vm.assertEq(r.committed, 2, "member 1");
        vm.assertEq(r.transcript, transcript, "the repetition left no trace");
        bytes32 data = keccak256(abi.encode("data", 1));
        bytes32 words = keccak256(abi.encode("words", id, 1));
        vm.assertEq(rounds.commitmentHash(id, 1), keccak256(bytes.concat(data, words)), "hash");
    }

    function test_the_same_commitment_again_does_nothing_in_any_phase() external {
        uint64 id = _open();
        _toFinal(id);
        _commit(id, 1);
        _phaseIs(id, IRounds.Phase.Final);
    }

    function test_a_second_thought_is_refused() external {
        uint64 id = _open();
        _commit(id, 1);
        _refuses(abi.encodeWithSelector(IRounds.AlreadyCommitted.selector, id, 1));
        vm.prank(_signer(1));
        rounds.commit(id, CONFIG, CONFIG);
    }

    function test_a_stranger_and_an_owner_cannot_commit() external {
        uint64 id = _open();
        _refuses(abi.encodeWithSelector(IRounds.NotSeated.selector, id, STRANGER));
        vm.prank(STRANGER);
        rounds.commit(id, CONFIG, CONFIG);
        _refuses(abi.encodeWithSelector(IRounds.NotSeated.selector, id, _owner(0)));
        vm.prank(_owner(0));
        rounds.commit(id, CONFIG, CONFIG);
    }

    function test_a_member_that_joined_later_has_no_seat() external {
        uint64 id = _open();
        _admit(3);
        _refuses(abi.encodeWithSelector(IRounds.NotSeated.selector, id, _signer(3)));
        _commit(id, 3);
        _refuses(abi.encodeWithSelector(IRounds.NotSeated.selector, id, address(this)));
        rounds.seatOf(id, 3);
    }

    function test_roots_are_not_zero() external {
        uint64 id = _open();
        vm.expectRevert(IRounds.EmptyDigest.selector);
        vm.prank(_signer(0));
        rounds.commit(id, 0, CONFIG);
        vm.expectRevert(IRounds.EmptyDigest.selector);
        vm.prank(_signer(0));
        rounds.commit(id, CONFIG, 0);
    }

    function test_the_deadline_is_the_last_block_that_counts() external {
        uint64 id = _open();
        vm.roll(1010);
        _commit(id, 0);
        vm.roll(1011);
        _refuses(abi.encodeWithSelector(IRounds.PastDeadline.selector, id, 1010, 1011));
        _commit(id, 1);
    }

    function test_nobody_commits_once_the_beacon_is_known() external {
        uint64 id = _open();
        _commit(id, 0);
        _commit(id, 1);
        _seal(id);
        _refuses(abi.encodeWithSelector(IRounds.WrongPhase.selector, id, IRounds.Phase.Commit, IRounds.Phase.Train));
        _commit(id, 2);
    }

    function test_there_is_no_round_zero_and_none_after_the_last() external {
        uint64 id = _open();
        bytes memory why = abi.encodeWithSelector(IRounds.UnknownRound.selector, id + 1);
        _refuses(why);
        _commit(id + 1, 0);
        _refuses(why);
        rounds.getRound(id + 1);
        _refuses(abi.encodeWithSelector(IRounds.UnknownRound.selector, 0));
        rounds.advance(0, "");
    }
}
