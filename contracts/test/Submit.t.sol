// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IFederation} from "../src/interfaces/IFederation.sol";
import {IRounds} from "../src/interfaces/IRounds.sol";
import {Scene} from "./Scene.sol";

/// @notice Submissions: signed, once, in time, within the cap. And every way of cheating at that.
contract SubmitTest is Scene {
    uint256 private constant CURVE_ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;

    uint64 private id;

    function setUp() public override {
        super.setUp();
        id = _open();
    }

    function _wrongPhase(IRounds.Phase found) private view returns (bytes memory) {
        return abi.encodeWithSelector(IRounds.WrongPhase.selector, id, IRounds.Phase.Train, found);
    }

    function _badSignature(uint8 member, address recovered) private view returns (bytes memory) {
        return abi.encodeWithSelector(IRounds.BadSignature.selector, id, member, recovered);
    }

    function _spent(uint8 member) private view returns (uint64) {
        return federation.getMember(member).spentMicro;
    }

    // ------------------------------------------------------------------------------------------------------- the honest

    function test_anyone_may_relay_what_the_signer_signed() external {
        _toTrain(id);
        bytes memory signature = _signature(_key(1), id, 1, _bundle(1), 700);
        vm.prank(STRANGER);
        rounds.submit(id, 1, _bundle(1), 700, signature);
        vm.assertEq(rounds.submissionHash(id, 1), _structHash(id, 1, _bundle(1), 700), "struct hash");
        vm.assertEq(rounds.submissionHash(id, 0), 0, "nothing from member 0");
        vm.assertEq(_spent(1), 700, "spent");
        vm.assertEq(rounds.getRound(id).submitted, 2, "member 1");
    }

    function test_the_same_again_does_nothing_in_any_phase_and_whatever_the_signature() external {
        _toTrain(id);
        _submit(id, 1);
        bytes32 transcript = rounds.getRound(id).transcript;
        _submit(id, 1);
        rounds.submit(id, 1, _bundle(1), id * 1000, "");
        vm.assertEq(rounds.getRound(id).transcript, transcript, "no trace");
        _submit(id, 0);
        _submit(id, 2);
        _seal(id);
        _judge(id, hex"000000");
        _propose(id, hex"000000");
        vm.roll(rounds.getRound(id).deadlineBlock + 1);
        rounds.advance(id, "");
        transcript = rounds.getRound(id).transcript;
        _submit(id, 1);
        vm.assertEq(rounds.getRound(id).transcript, transcript, "no trace after the end either");
        vm.assertEq(_spent(1), id * 1000, "charged once");
    }

    function test_the_hash_of_a_submission_outlives_later_rounds() external {
        _toFinal(id);
        bytes32 before = rounds.submissionHash(id, 1);
        uint64 next = _open();
        _toFinal(next);
        vm.assertEq(_spent(1), next * 1000, "the member has spent more");
        vm.assertEq(rounds.submissionHash(id, 1), before, "round 1 still says the same");
    }

    // -------------------------------------------------------------------------------------------------- late, early, foreign

    function test_late_is_late() external {
        _toTrain(id);
        uint64 deadline = rounds.getRound(id).deadlineBlock;
        vm.roll(deadline);
        _submit(id, 0);
        vm.roll(deadline + 1);
        _refuses(abi.encodeWithSelector(IRounds.PastDeadline.selector, id, deadline, deadline + 1));
        _submit(id, 1);
    }

    function test_too_early_is_another_phase() external {
        _refuses(_wrongPhase(IRounds.Phase.Commit));
        _submit(id, 0);
    }

    function test_after_the_seal_is_another_phase() external {
        _toTrain(id);
        _submit(id, 0);
        _submit(id, 1);
        _seal(id);
        _refuses(_wrongPhase(IRounds.Phase.Verify));
        _submit(id, 2);
    }

    function test_who_did_not_commit_cannot_submit() external {
        _commit(id, 0);
        _commit(id, 1);
        _seal(id);
        _refuses(abi.encodeWithSelector(IRounds.NotCommitted.selector, id, 2));
        _submit(id, 2);
    }

    function test_who_has_no_seat_cannot_submit() external {
        _toTrain(id);
        _refuses(abi.encodeWithSelector(IRounds.NotSeated.selector, id, address(this)));
        _submit(id, 3);
    }

    function test_an_empty_bundle_is_no_submission() external {
        _toTrain(id);
        vm.expectRevert(IRounds.EmptyDigest.selector);
        _submit(id, 0, 0, 1);
    }

    function test_another_rounds_signature_is_worth_nothing() external {
        _toTrain(id);
        bytes32 digest = _digest(block.chainid, address(rounds), _structHash(id + 1, 0, _bundle(0), 1));
        _expectForeign(digest);
    }

    function test_another_chains_signature_is_worth_nothing() external {
        _toTrain(id);
        _expectForeign(_digest(block.chainid + 1, address(rounds), _structHash(id, 0, _bundle(0), 1)));
    }

    function test_another_contracts_signature_is_worth_nothing() external {
        _toTrain(id);
        _expectForeign(_digest(block.chainid, address(federation), _structHash(id, 0, _bundle(0), 1)));
    }

    function test_a_signature_dies_when_the_chain_forks_away() external {
        _toTrain(id);
        bytes memory signature = _signature(_key(0), id, 0, _bundle(0), 1);
        vm.chainId(4242);
        vm.expectPartialRevert(IRounds.BadSignature.selector);
        rounds.submit(id, 0, _bundle(0), 1, signature);
    }

    /// @dev Signed by the right key over `digest`: it must not recover to that key for the submission (id, 0, bundle, 1).
    function _expectForeign(bytes32 digest) private {
        bytes memory signature = _signed(_key(0), digest);
        vm.expectPartialRevert(IRounds.BadSignature.selector);
        rounds.submit(id, 0, _bundle(0), 1, signature);
    }

    function test_one_member_cannot_sign_for_another() external {
        _toTrain(id);
        bytes memory signature = _signature(_key(1), id, 0, _bundle(0), 1);
        _refuses(_badSignature(0, _signer(1)));
        rounds.submit(id, 0, _bundle(0), 1, signature);
    }

    function test_broken_and_malleable_signatures_recover_nobody() external {
        _toTrain(id);
        _refuses(_badSignature(0, address(0)));
        rounds.submit(id, 0, _bundle(0), 1, "");
        _refuses(_badSignature(0, address(0)));
        rounds.submit(id, 0, _bundle(0), 1, new bytes(65));
        bytes32 digest = _digest(block.chainid, address(rounds), _structHash(id, 0, _bundle(0), 1));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(_key(0), digest);
        bytes memory twin = bytes.concat(r, bytes32(CURVE_ORDER - uint256(s)), bytes1(v == 27 ? 28 : 27));
        _refuses(_badSignature(0, address(0)));
        rounds.submit(id, 0, _bundle(0), 1, twin);
    }

    // ------------------------------------------------------------------------------------------------------------- privacy

    function test_over_the_cap_is_refused_whatever_the_owner_does_meanwhile() external {
        _toTrain(id);
        bytes memory why = abi.encodeWithSelector(IFederation.OverCap.selector, 0, CAP + 1, CAP);
        _refuses(why);
        _submit(id, 0, _bundle(0), CAP + 1);
        vm.prank(_owner(0));
        federation.setCap(0, CAP + 1);
        _refuses(why);
        _submit(id, 0, _bundle(0), CAP + 1);
        _submit(id, 0, _bundle(0), CAP);
    }

    function test_lowering_the_cap_counts_at_once() external {
        _toTrain(id);
        vm.prank(_owner(0));
        federation.setCap(0, 500);
        _refuses(abi.encodeWithSelector(IFederation.OverCap.selector, 0, 501, 500));
        _submit(id, 0, _bundle(0), 501);
        vm.assertEq(rounds.getRound(id).submitted, 0, "a refused charge leaves no submission");
        _submit(id, 0, _bundle(0), 500);
    }

    function test_privacy_is_not_refunded() external {
        _toFinal(id);
        uint64 next = _open();
        _toTrain(next);
        _refuses(abi.encodeWithSelector(IFederation.EpsilonDecreased.selector, 0, 999, 1000));
        _submit(next, 0, _bundle(0), 999);
        _submit(next, 0, _bundle(0), 1000);
    }

    function test_privacy_is_spent_even_if_the_round_is_void() external {
        _toTrain(id);
        _submit(id, 0);
        vm.roll(_end(id) + 1);
        rounds.advance(id, "");
        _voidIs(id, IRounds.VoidReason.SubmitQuorum);
        vm.assertEq(_spent(0), 1000, "published is published");
    }

    // -------------------------------------------------------------------------------------------------------- equivocation

    function test_a_second_different_submission_is_equivocation_and_spends_nothing() external {
        _toTrain(id);
        _submit(id, 0);
        _submit(id, 0, keccak256("other"), CAP + 5);
        IRounds.Round memory r = rounds.getRound(id);
        vm.assertEq(r.equivocated, 1, "member 0");
        vm.assertEq(r.submitted, 1, "and it did submit");
        vm.assertEq(_spent(0), 1000, "only the first was charged");
        vm.assertEq(rounds.submissionHash(id, 0), _structHash(id, 0, _bundle(0), 1000), "the first one stays");
    }

    function test_another_declared_privacy_is_another_submission() external {
        _toTrain(id);
        _submit(id, 0);
        _submit(id, 0, _bundle(0), 1001);
        vm.assertEq(rounds.getRound(id).equivocated, 1, "member 0");
    }

    function test_nobody_is_framed_as_an_equivocator() external {
        _toTrain(id);
        _submit(id, 0);
        bytes memory signature = _signature(_key(1), id, 0, keccak256("other"), 1);
        _refuses(_badSignature(0, _signer(1)));
        rounds.submit(id, 0, keccak256("other"), 1, signature);
    }

    function test_an_equivocator_can_do_nothing_more() external {
        _toTrain(id);
        _submit(id, 0);
        _submit(id, 0, keccak256("other"), 1000);
        bytes32 transcript = rounds.getRound(id).transcript;
        _submit(id, 0, keccak256("a third"), 1000);
        rounds.submit(id, 0, keccak256("a fourth"), 1, "unsigned");
        vm.assertEq(rounds.getRound(id).transcript, transcript, "no trace");
    }

    function test_equivocation_is_heard_after_the_phase_closed_early_and_in_verify() external {
        _toTrain(id);
        for (uint8 member = 0; member < MEMBERS; ++member) {
            _submit(id, member);
        }
        _submit(id, 0, keccak256("other"), 1000);
        _seal(id);
        vm.roll(rounds.getRound(id).deadlineBlock + 1);
        _submit(id, 1, keccak256("other"), 1000);
        vm.assertEq(rounds.getRound(id).equivocated, 3, "members 0 and 1");
    }

    function test_after_the_verdicts_it_is_too_late_for_equivocation() external {
        _toPropose(id);
        _refuses(_wrongPhase(IRounds.Phase.Propose));
        _submit(id, 0, keccak256("other"), 1000);
    }

    function test_equivocators_do_not_count_for_the_quorum() external {
        _toTrain(id);
        _submit(id, 0);
        _submit(id, 1);
        _submit(id, 1, keccak256("other"), 1000);
        vm.roll(_end(id) + 1);
        rounds.advance(id, "");
        _voidIs(id, IRounds.VoidReason.SubmitQuorum);
    }

    /// @dev Any change to what was signed is a different submission, for which there is no signature.
    function testFuzz_a_signature_is_for_one_submission(uint64 round, uint8 member, bytes32 bundle, uint64 spent)
        external
    {
        _toTrain(id);
        if (round % 2 == 0) (round, member) = (id, 0);
        if (spent % 2 == 0) (bundle, spent) = (_bundle(0), 5);
        bytes memory signature = _signature(_key(0), round, member, bundle, spent);
        bool same = round == id && member == 0 && bundle == _bundle(0) && spent == 5;
        if (!same) vm.expectPartialRevert(IRounds.BadSignature.selector);
        rounds.submit(id, 0, _bundle(0), 5, signature);
    }

    // -------------------------------------------------------------------------------------------------------------- proofs

    function _toProve() private {
        vm.roll(_end(id) + 1);
        rounds.advance(id, "");
        id = _open(_provingPolicy());
        _toVerify(id);
        _phaseIs(id, IRounds.Phase.Prove);
    }

    function test_the_last_proof_begins_the_verification() external {
        _toProve();
        _prove(id, 0);
        _prove(id, 0);
        _prove(id, 2);
        _phaseIs(id, IRounds.Phase.Prove);
        _prove(id, 1);
        _phaseIs(id, IRounds.Phase.Verify);
        vm.assertEq(rounds.getRound(id).deadlineBlock, block.number + 10, "from this block on");
        vm.assertEq(rounds.proofDigest(id, 2), keccak256(abi.encode("proof", 2)), "digest");
        vm.assertEq(rounds.getRound(id).proved, 7, "all");
        _prove(id, 1);
    }

    function test_one_proof_each() external {
        _toProve();
        _prove(id, 0);
        _refuses(abi.encodeWithSelector(IRounds.AlreadyProved.selector, id, 0));
        vm.prank(_signer(0));
        rounds.prove(id, CONFIG);
        vm.expectRevert(IRounds.EmptyDigest.selector);
        vm.prank(_signer(1));
        rounds.prove(id, 0);
        _refuses(abi.encodeWithSelector(IRounds.NotSeated.selector, id, STRANGER));
        vm.prank(STRANGER);
        rounds.prove(id, CONFIG);
    }

    function test_proofs_only_where_they_are_asked_for() external {
        _toVerify(id);
        _refuses(abi.encodeWithSelector(IRounds.WrongPhase.selector, id, IRounds.Phase.Prove, IRounds.Phase.Verify));
        _prove(id, 0);
    }

    function test_the_end_of_prove_happens_by_itself() external {
        _toProve();
        _prove(id, 0);
        uint64 deadline = rounds.getRound(id).deadlineBlock;
        vm.roll(deadline + 1);
        _phaseIs(id, IRounds.Phase.Verify);
        vm.assertEq(rounds.getRound(id).deadlineBlock, deadline + 10, "verify follows from prove's deadline");
        _refuses(abi.encodeWithSelector(IRounds.WrongPhase.selector, id, IRounds.Phase.Prove, IRounds.Phase.Verify));
        _prove(id, 1);
        rounds.advance(id, "");
        _phaseIs(id, IRounds.Phase.Verify);
        _refuses(abi.encodeWithSelector(IRounds.NotYet.selector, id, deadline + 11));
        rounds.advance(id, "");
    }

    function test_who_did_not_submit_or_equivocated_has_nothing_to_prove() external {
        vm.roll(_end(id) + 1);
        rounds.advance(id, "");
        IRounds.Policy memory policy = _provingPolicy();
        policy.quorum = 1;
        id = _open(policy);
        _toTrain(id);
        _submit(id, 0);
        _submit(id, 1);
        _seal(id);
        _refuses(abi.encodeWithSelector(IRounds.NotSubmitted.selector, id, 2));
        _prove(id, 2);
        _prove(id, 1);
        _submit(id, 0, keccak256("other"), 1);
        _phaseIs(id, IRounds.Phase.Verify);
        vm.assertEq(rounds.getRound(id).deadlineBlock, block.number + 10, "nobody is left to wait for");
    }

    function test_an_equivocator_cannot_prove() external {
        _toProve();
        _submit(id, 0, keccak256("other"), 1);
        _refuses(abi.encodeWithSelector(IRounds.NotSubmitted.selector, id, 0));
        _prove(id, 0);
    }
}
