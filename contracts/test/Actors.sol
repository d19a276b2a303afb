// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IFederation} from "../src/interfaces/IFederation.sol";
import {BEACON_DELAY, IRounds} from "../src/interfaces/IRounds.sol";
import {Bits} from "../src/libraries/Bits.sol";
import {Scene} from "./Scene.sol";

/// @notice Everybody at once: members, aggregators, the coordinator, strangers and the clock, each doing what it likes when
/// it likes, mostly sensible and sometimes not. The contract refuses what it must; here a refusal is swallowed, and what
/// is true after every single call is checked in `looked`.
contract Actors is Scene {
    using Bits for uint256;

    uint8 private constant MOST_MEMBERS = 6;

    mapping(uint64 id => uint256) private _rank; // how far the round has come
    mapping(uint64 id => uint64) private _lastPossible;
    mapping(uint8 member => uint64) private _spent;
    bytes32 private _lastFinal = GENESIS;
    uint256 public finals;
    uint256 public voids;
    uint256 public equivocations;
    uint256 public dissents;

    modifier looked() {
        _;
        _look();
    }

    function setUp() public override {
        super.setUp();
        try this.open(1, false) {} catch {}
    }

    // ---------------------------------------------------------------------------------------------------- what they may do

    function open(uint256 seed, bool proofs) external looked {
        IRounds.Policy memory policy = _policy();
        policy.proofRequired = proofs;
        policy.quorum = uint8(1 + seed % MEMBERS);
        policy.challengeBlocks = seed % 5 == 0 ? 0 : 10;
        policy.trainBlocks = uint32(seed % 6 == 0 ? 1 : 20);
        bytes32 bundle = rounds.globalBundle();
        vm.prank(COORDINATOR);
        try rounds.open(CONFIG, bundle == 0 ? GENESIS : bundle, policy) {} catch {}
    }

    function commit(uint8 member) external looked {
        _tryCommit(member % MOST_MEMBERS);
    }

    function submit(uint8 member, uint64 spent, bool second) external looked {
        member %= MOST_MEMBERS;
        uint64 before = federation.memberCount() > member ? federation.getMember(member).spentMicro : 0;
        _trySubmit(member, second ? keccak256("other") : _bundle(member), before + spent % (CAP / 4));
    }

    function prove(uint8 member) external looked {
        uint64 id = rounds.latestRound();
        vm.prank(_signer(member % MOST_MEMBERS));
        try rounds.prove(id, keccak256(abi.encode("proof", member))) {} catch {}
    }

    function object(uint8 member) external looked {
        uint64 id = rounds.latestRound();
        vm.prank(_signer(member % MOST_MEMBERS));
        try rounds.object(id, 0) {} catch {}
    }

    /// @dev Nearly everybody does the next thing, as in an ordinary round.
    function everybodyActs(uint256 absent) external looked {
        uint64 id = rounds.latestRound();
        for (uint8 member = 0; member < MEMBERS; ++member) {
            if (_oneIn(12, absent, member)) continue;
            _tryCommit(member);
            bool again = rounds.submissionHash(id, member) != 0; // honest members do not equivocate
            if (!again) _trySubmit(member, _bundle(member), federation.getMember(member).spentMicro + 1);
            vm.prank(_signer(member));
            try rounds.prove(id, CONFIG) {} catch {}
        }
    }

    /// @dev Right verdicts, except that `lie` is put over one of them now and then.
    function judge(bool onDuty, uint256 seed, uint8 lie) external looked {
        uint64 id = rounds.latestRound();
        bytes memory reasons = _honest(id, seed);
        if (reasons.length > 0 && seed % 7 == 0) reasons[seed % reasons.length] = bytes1(lie);
        IRounds.Signed memory signed = _anySigned(id, reasons, seed);
        vm.prank(onDuty ? _onDuty(id) : _offDuty(id));
        try rounds.postVerdicts(id, reasons, signed) {
            _judged[id] = reasons;
            vm.assertTrue(seed % 11 != 3, "nothing is taken that the quorum did not sign");
        } catch {}
    }

    /// @dev Signed over other verdicts now and then.
    function _anySigned(uint64 id, bytes memory reasons, uint256 seed) private view returns (IRounds.Signed memory) {
        if (id == 0 || rounds.getRound(id).phase != IRounds.Phase.Verify) return _unsigned();
        return _quorum(id, seed % 11 == 3 ? bytes.concat(reasons, hex"00") : reasons);
    }

    function dissent(uint8 member, uint256 seed) external looked {
        uint64 id = rounds.latestRound();
        bytes memory reasons = _honest(id, seed);
        vm.prank(_signer(member % MOST_MEMBERS));
        try rounds.dissent(id, reasons) {
            vm.assertTrue(keccak256(reasons) != keccak256(_judged[id]), "dissent says something else");
            ++dissents;
        } catch {}
    }

    mapping(uint64 id => bytes) private _judged;

    function propose(bool onDuty, bool wrong) external looked {
        uint64 id = rounds.latestRound();
        (bytes32 included, bytes32 excluded) = _rootsOf(id);
        vm.prank(onDuty ? _onDuty(id) : _offDuty(id));
        try rounds.propose(id, keccak256(abi.encode("aggregate", id)), wrong ? CONFIG : included, excluded) {
            vm.assertTrue(!wrong, "wrong roots are refused");
        } catch {}
    }

    function advance() external looked {
        _advance(rounds.latestRound());
    }

    function wait(uint256 blocks) external looked {
        vm.roll(block.number + 1 + blocks % (blocks % 8 == 0 ? 12 : 3));
    }

    /// @dev Seldom where somebody's silence would void the round: it has to come to an end of every kind.
    function waitForTheEnd(uint256 seed) external looked {
        uint64 id = rounds.latestRound();
        if (id == 0) return;
        IRounds.Phase phase = rounds.getRound(id).phase;
        bool waiting = phase == IRounds.Phase.Prove || phase == IRounds.Phase.Verify || phase == IRounds.Phase.Propose;
        if (waiting && seed % 8 != 0) return;
        uint64 over = _end(id) + BEACON_DELAY + 1;
        if (block.number < over) vm.roll(over);
    }

    function ownersDecide(uint8 member, uint64 cap, bool rotate) external looked {
        member %= MOST_MEMBERS;
        vm.prank(_owner(member));
        try federation.setCap(member, cap % (2 * CAP)) {} catch {}
        if (!rotate) return;
        vm.prank(_owner(member));
        try federation.rotateSigner(member, _signer(member)) {} catch {}
    }

    function comeAndGo(uint8 member, uint256 seed) external looked {
        uint8 next = uint8(federation.memberCount());
        if (next < MOST_MEMBERS && seed % 2 == 0) _admit(next);
        if (seed % 9 != 0) return;
        vm.prank(COORDINATOR);
        try federation.removeMember(member % MOST_MEMBERS) {} catch {}
    }

    /// @dev Somebody wakes up after everybody slept: a few calls of `advance`, and the round has ended.
    function wakeUpAfterTheLastPossibleBlock() external {
        uint64 id = rounds.latestRound();
        if (id == 0) return;
        uint64 last = rounds.lastPossibleBlock(id);
        if (block.number <= last) vm.roll(last + 1);
        for (uint256 calls = 0; calls < 4 && !_ended(id); ++calls) {
            _advance(id);
        }
        vm.assertTrue(_ended(id), "four calls of advance end any round");
    }

    // -------------------------------------------------------------------------------------------------- what is always true

    function _look() private {
        uint64 id = rounds.latestRound();
        for (uint64 i = id < 2 ? 1 : id - 1; i <= id; ++i) {
            _lookAtRound(i);
        }
        for (uint8 member = 0; member < federation.memberCount(); ++member) {
            _lookAtMember(id, member);
        }
    }

    function _lookAtRound(uint64 id) private {
        IRounds.Round memory r = rounds.getRound(id);
        uint256 phase = uint256(r.phase);
        uint256 before = _rank[id];
        vm.assertGe(phase, before, "rounds only move forward");
        bool wasFinal = before == uint256(IRounds.Phase.Final);
        vm.assertTrue(!wasFinal || phase == before, "final is final");
        _rank[id] = phase;
        if (phase != before) _count(id, r);

        uint64 last = rounds.lastPossibleBlock(id);
        vm.assertTrue(before == 0 || last <= _lastPossible[id], "the last possible block only moves down");
        vm.assertEq(last == 0 ? 1 : 0, _ended(id) ? 1 : 0, "and is zero when the round has ended");
        _lastPossible[id] = last;

        vm.assertEq(r.committed & ~r.seated, 0, "committed within seated");
        vm.assertEq(r.submitted & ~r.committed, 0, "submitted within committed");
        vm.assertEq(r.equivocated & ~r.submitted, 0, "equivocated within submitted");
        vm.assertEq(r.proved & ~r.submitted, 0, "proved within submitted");
        vm.assertEq(r.objected & ~r.committed, 0, "objected within committed");
        vm.assertEq(r.dissented & ~r.seated, 0, "dissented within seated");
        vm.assertEq(r.accepted & ~(r.submitted & ~r.equivocated), 0, "accepted within submitted once");
        vm.assertEq(r.accepted & (r.policy.proofRequired ? ~r.proved : 0), 0, "accepted within proved, if asked for");
    }

    function _count(uint64 id, IRounds.Round memory r) private {
        if (r.phase == IRounds.Phase.Void) ++voids;
        if (r.phase != IRounds.Phase.Final) return;
        ++finals;
        _lastFinal = r.aggregateBundle;
        vm.assertGe(r.accepted.count(), r.policy.quorum, "a final round has its quorum");
        vm.assertTrue(2 * r.objected.count() <= r.committed.count(), "and no majority against it");
        vm.assertEq(rounds.latestRound(), id, "and is the latest");
    }

    function _lookAtMember(uint64 id, uint8 member) private {
        IFederation.Member memory m = federation.getMember(member);
        vm.assertGe(m.spentMicro, _spent[member], "spent never falls");
        vm.assertLe(m.spentMicro, m.capMicro, "and never passes the cap");
        _spent[member] = m.spentMicro;
        IRounds.Round memory r = rounds.getRound(id);
        if (!r.seated.has(member)) return;
        bytes32 first = rounds.submissionHash(id, member);
        vm.assertEq(first != 0 ? 1 : 0, r.submitted.has(member) ? 1 : 0, "a submission is kept, or there is none");
        if (first == 0) vm.assertEq(m.spentMicro, rounds.seatOf(id, member).spentMicro, "nothing was charged");
        else vm.assertTrue(_isFirst(id, member, first, m.spentMicro), "charged once, as the first submission said");
        vm.assertEq(rounds.globalBundle(), _lastFinal, "the next round starts from the last final one");
    }

    function _isFirst(uint64 id, uint8 member, bytes32 first, uint64 spent) private pure returns (bool) {
        return first == _structHash(id, member, _bundle(member), spent)
            || first == _structHash(id, member, keccak256("other"), spent);
    }

    // ------------------------------------------------------------------------------------------------------- how they do it

    function _tryCommit(uint8 member) private {
        uint64 id = rounds.latestRound();
        vm.prank(_signer(member));
        try rounds.commit(id, CONFIG, keccak256(abi.encode(id, member))) {} catch {}
    }

    function _trySubmit(uint8 member, bytes32 bundle, uint64 spent) private {
        uint64 id = rounds.latestRound();
        bytes memory signature = _signature(_key(member), id, member, bundle, spent);
        uint256 before = id == 0 ? 0 : rounds.getRound(id).equivocated;
        try rounds.submit(id, member, bundle, spent, signature) {
            if (rounds.getRound(id).equivocated != before) ++equivocations;
        } catch {}
    }

    function _advance(uint64 id) private {
        if (id == 0) return;
        uint64 beaconBlock = _end(id) + BEACON_DELAY;
        bytes memory header = "";
        if (block.number > beaconBlock && block.number <= beaconBlock + 256) header = _header(beaconBlock);
        try rounds.advance(id, header) {} catch {}
    }

    function _honest(uint64 id, uint256 seed) private view returns (bytes memory reasons) {
        if (id == 0) return "";
        IRounds.Round memory r = rounds.getRound(id);
        for (uint8 member = 0; member < MOST_MEMBERS; ++member) {
            if (!r.seated.has(member)) continue;
            uint8 reason = _oneIn(8, seed, member) ? 17 : 0;
            if (r.policy.proofRequired && !r.proved.has(member)) reason = 4;
            if (r.equivocated.has(member)) reason = 3;
            if (!r.submitted.has(member)) reason = 2;
            if (!r.committed.has(member)) reason = 1;
            reasons = bytes.concat(reasons, bytes1(reason));
        }
    }

    function _rootsOf(uint64 id) private view returns (bytes32 included, bytes32 excluded) {
        if (id == 0) return (0, 0);
        bytes memory reasons = _judged[id];
        bytes[] memory ins = new bytes[](MOST_MEMBERS);
        bytes[] memory outs = new bytes[](MOST_MEMBERS);
        (uint256 i, uint256 o) = (0, 0);
        uint256 seated = rounds.getRound(id).seated;
        for (uint8 member = 0; member < MOST_MEMBERS && i + o < reasons.length; ++member) {
            if (!seated.has(member)) continue;
            bytes1 reason = reasons[i + o];
            if (reason == 0) ins[i++] = abi.encodePacked(member, _bundleOnChain(id, member));
            else outs[o++] = abi.encodePacked(member, reason);
        }
        return (_treeHash(ins, 0, i), _treeHash(outs, 0, o));
    }

    function _bundleOnChain(uint64 id, uint8 member) private view returns (bytes32) {
        uint64 spent = federation.getMember(member).spentMicro;
        bool usual = rounds.submissionHash(id, member) == _structHash(id, member, _bundle(member), spent);
        return usual ? _bundle(member) : keccak256("other");
    }

    /// @dev Hashed, because a fuzzer likes numbers whose upper bytes are all zero.
    function _oneIn(uint256 times, uint256 seed, uint8 member) private pure returns (bool) {
        return uint256(keccak256(abi.encode(seed, member))) % times == 0;
    }

    function _ended(uint64 id) private view returns (bool) {
        IRounds.Phase phase = rounds.getRound(id).phase;
        return phase == IRounds.Phase.Final || phase == IRounds.Phase.Void;
    }
}
