// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IFederation} from "./IFederation.sol";

// The beacon of a phase that closed in block X is the mixHash in the header of block X + BEACON_DELAY. Two, because the
// header of X + 1 holds the RANDAO mix after block X, which the proposer of X knows before it fills the block; the mix in
// the header of X + 2 contains the reveal of the next proposer too. ledger/round_state.py has the same number.
uint64 constant BEACON_DELAY = 2;

/// @title The life of a round
/// @notice
///   Commit ─▶ Train ─▶ (Prove) ─▶ Verify ─▶ Propose ─▶ Proposed ─▶ Final
///      any of them, its deadline passed and its condition unmet ─▶ Void(reason)
///
/// A phase closes early when everybody who may act in it has acted. Anyone may call `advance`.
/// Every phase's deadline follows from the block at which the phase before it closed, so the last block at which a
/// round can still be open is known when it opens.
///
/// Blocks. A phase of L blocks that begins with block S takes actions in blocks up to its deadline S + L:
///   Commit    S = block of `open`
///   Train     S = X + BEACON_DELAY, where X is the block in which Commit closed: its deadline, or the block of the last
///             member's commitment if all committed. `advance` can open it from block X + BEACON_DELAY + 1; a late
///             call shortens it.
///   Prove     S = X + BEACON_DELAY, likewise with Train (left out, with its `proveBlocks`, when no proofs are asked for)
///   Verify    S = X + BEACON_DELAY after Train; after Prove, Prove's deadline or the block of the last proof. This step
///             asks for no beacon and no `advance`: it just happens, and `getRound` shows it.
///   Propose   S = block of `postVerdicts`
///   Proposed  S = block of `propose`; with `challengeBlocks` 0 the round is Final in that same transaction
///
/// Who else may act. The aggregator of rank `round mod n` (n = number of aggregators in force) is on duty; the others
/// may post verdicts or propose from block `deadline - L / 2` on, L being the length of that phase.
///
/// Order of the checks, for those who imitate this contract: UnknownRound, NotSeated, EmptyDigest, "the same again"
/// (which does nothing in any phase, so that a lost receipt can be answered by sending again), WrongPhase,
/// PastDeadline, NotCommitted / NotSubmitted / Already…, BadSignature, OverCap, EpsilonDecreased. For aggregators:
/// UnknownRound, EmptyDigest, WrongPhase, PastDeadline, NotAggregator, NotYourTurn, then the contents.
///
/// Beacons. When Commit (and later Train) closes in block X, the beacon is the randomness (`mixHash`, EIP-4399) in the
/// header of block X + BEACON_DELAY = X + 2, whoever calls `advance` and whenever: waiting does not change it. The caller
/// hands in the header; the contract checks its hash.
///
/// Verdicts. A verifier is a seated member with a BLS12-381 key (IFederation.registerVerifier). Each re-runs the verdicts
/// and signs, under the tag SIGNATURE of Bls.sol,
///   keccak256(abi.encode(keccak256("candor/verdicts/1"), chain id, this contract, round, transcript, keccak256(reasons)))
/// where `transcript` is the round's running hash when it judged. An aggregator collects signatures over the same reasons
/// and posts their sum; it can neither admit nor exclude anybody by itself, nor can fewer than `verifierQuorum` verifiers.
///
/// Transcript. Every event of a round carries a running hash over all the round's events so far, which is also kept in
/// storage: nobody can show a reader a history of the round with an event removed, altered or added.
///   transcript' = keccak256(abi.encode(transcript, topic0, keccak256(abi.encode(fields except transcript, in order))))
///
/// Unkind truths:
/// - The mixHash of block X+2 is the RANDAO mix after block X+1 (EIP-4399), which contains the reveal of X+1's proposer.
///   Nobody but that proposer knows it when block X is filled (unless it has proposed in the same epoch before: a reveal
///   signs the epoch and nothing else). So to know the beacon in time, and have a member commit in block X having seen
///   it, takes the proposers of X and X+1 both. Two that collude, or one operator that owns both slots, can do it.
/// - The proposer of X+1 can withhold its block, and so choose between two beacons: one bit per slot that it owns.
/// - Verdicts are what `verifierQuorum` verifiers signed. So many of them that lie together can still admit and exclude
///   whom they like, though not unseen: whoever disagrees says so (`dissent`), any audit re-runs the verdicts, and members
///   can void the round (`object`, strict majority of those who committed); they cannot correct it.
/// - With too few verifiers left to make a quorum the round is void for NoVerdict: where two thirds are needed, it takes two
///   thirds to lie, and a third and one more to stop everything by silence.
/// - Nothing shows that a verifier re-ran anything. It may sign what others serve.
/// - An aggregator chooses whom of those who agree it counts, and when it posts within the phase. Being named or not among
///   `signers` says nothing of a verifier.
/// - An equivocation after verifiers signed makes every signature over the round void. Each member can do so once: let
///   `verifyBlocks` leave room to sign again.
/// - `dissent` changes nothing, and is nobody's proof but the sender's word. There is no time for it in a round that ends
///   with its verdicts (NothingAccepted), or in the block of its proposal (`challengeBlocks` 0).
/// - On a chain without EIP-2537 no verifier can register, so no round can open (NoPrecompile).
/// - The contract never sees a weight, a trajectory or an average. It fixes digests, order and deadlines.
/// - A submitted ε is spent even if the round ends in Void: what was published cannot be taken back.
/// - An equivocating member is out of the round, and both its submissions stay in the log.
interface IRounds {
    enum Phase {
        None,
        Commit,
        Train,
        Prove,
        Verify,
        Propose,
        Proposed,
        Final,
        Void
    }

    enum VoidReason {
        None,
        CommitQuorum, // fewer than `quorum` committed
        SubmitQuorum, // fewer than `quorum` submitted without equivocating
        BeaconLost, // nobody called advance while the beacon's block hash could still be read
        NoVerdict, // no authorised aggregator posted verdicts in time
        NothingAccepted, // fewer than `quorum` accepted
        NoProposal, // no authorised aggregator proposed in time
        Disputed // a strict majority of the committed members objected
    }

    /// @notice Lengths of the phases in blocks, the least number of members for which a round counts, and how many of them
    /// must have signed its verdicts.
    struct Policy {
        uint32 commitBlocks;
        uint32 trainBlocks;
        uint32 proveBlocks;
        uint32 verifyBlocks;
        uint32 proposeBlocks;
        uint32 challengeBlocks;
        uint8 quorum;
        bool proofRequired;
        uint8 verifierQuorum;
    }

    /// @notice Who signed verdicts: the set of members, their keys (128 bytes each, in the order of their numbers; the chain
    /// keeps only the hash of each), and the sum of their signatures.
    struct Signed {
        uint256 signers;
        bytes keys;
        bytes signature;
    }

    /// @dev What the members did one by one is beside it: `seatOf`, `commitmentHash`, `submissionHash`, `proofDigest`.
    struct Round {
        Phase phase;
        VoidReason voidReason;
        uint64 closeBlock; // last block of the current phase if it closed early, else 0
        uint64 deadlineBlock; // last block in which the current phase takes actions
        Policy policy;
        uint256 seated; // bitmaps over member numbers
        uint256 committed;
        uint256 submitted;
        uint256 equivocated;
        uint256 proved;
        uint256 accepted;
        uint256 objected;
        uint256 dissented;
        bytes32 configDigest;
        bytes32 globalBundle;
        bytes32 trainBeacon;
        bytes32 proveBeacon;
        bytes32 aggregateBundle;
        bytes32 transcript;
    }

    event RoundOpened(
        uint64 indexed round,
        bytes32 configDigest,
        bytes32 globalBundle,
        Policy policy,
        IFederation.Seat[] seats,
        bytes32 transcript
    );
    event Committed(
        uint64 indexed round, uint8 indexed member, bytes32 datasetRoot, bytes32 wordsRoot, bytes32 transcript
    );
    /// @notice Commit or Train closed in `closeBlock`; `beacon` comes from `mixHash` of block `closeBlock + BEACON_DELAY`.
    event Sealed(
        uint64 indexed round, Phase closed, uint64 closeBlock, bytes32 mixHash, bytes32 beacon, bytes32 transcript
    );
    event Submitted(
        uint64 indexed round,
        uint8 indexed member,
        bytes32 bundle,
        uint64 spentMicro,
        bytes signature,
        bytes32 transcript
    );
    /// @notice The second, different submission of the same member; the first is in its `Submitted` event.
    event Equivocation(
        uint64 indexed round,
        uint8 indexed member,
        bytes32 bundle,
        uint64 spentMicro,
        bytes signature,
        bytes32 transcript
    );
    event Proved(uint64 indexed round, uint8 indexed member, bytes32 proof, bytes32 transcript);
    /// @notice `reasons` has one byte per seat, in seat order; 0 is accepted, the rest are in Reasons.sol.
    event VerdictsPosted(
        uint64 indexed round,
        address indexed aggregator,
        uint256 accepted,
        bytes reasons,
        Signed signed,
        bytes32 transcript
    );
    /// @notice What the verdicts should have been, says this member.
    event Dissented(uint64 indexed round, uint8 indexed member, bytes reasons, bytes32 transcript);
    event AggregateProposed(
        uint64 indexed round,
        address indexed aggregator,
        bytes32 aggregateBundle,
        bytes32 includedRoot,
        bytes32 excludedRoot,
        bytes32 transcript
    );
    event Objected(uint64 indexed round, uint8 indexed member, bytes32 expectedBundle, bytes32 transcript);
    event Finalised(uint64 indexed round, bytes32 aggregateBundle, bytes32 transcript);
    event Voided(uint64 indexed round, Phase phase, VoidReason reason, bytes32 transcript);

    error UnknownRound(uint64 round);
    error RoundStillOpen(uint64 round, Phase phase);
    error WrongPhase(uint64 round, Phase expected, Phase found);
    error PastDeadline(uint64 round, uint64 deadlineBlock, uint64 blockNumber);
    error NotYet(uint64 round, uint64 earliestBlock);
    error NotSeated(uint64 round, address caller);
    error NotCommitted(uint64 round, uint8 member);
    error NotSubmitted(uint64 round, uint8 member);
    error AlreadyCommitted(uint64 round, uint8 member);
    error AlreadyProved(uint64 round, uint8 member);
    error AlreadyObjected(uint64 round, uint8 member);
    error BadSignature(uint64 round, uint8 member, address recovered);
    error WrongGlobalBundle(bytes32 expected, bytes32 found);
    error BadPolicy();
    error EmptyDigest();
    error BadHeader(uint64 blockNumber);
    error NotAggregator(address caller);
    error NotYourTurn(address caller, uint64 earliestBlock);
    error BadVerdicts(uint64 round, uint256 seat, uint8 reason);
    error TooFewVerifiers(uint64 round, uint256 found, uint8 needed);
    error NotVerifiers(uint64 round, uint256 signers);
    error BadQuorumSignature(uint64 round);
    error NoDissent(uint64 round, uint8 member);
    error AlreadyDissented(uint64 round, uint8 member);
    error WrongRoot(bytes32 expected, bytes32 found);

    /// @notice Coordinator only; the previous round must have ended (RoundStillOpen). BadPolicy if Commit, Train, Verify
    /// or Propose (or Prove, when proofs are required) has no block, or `quorum` or `verifierQuorum` is 0 or more than the
    /// seats; TooFewVerifiers if fewer than `verifierQuorum` of them have a verifier key.
    /// `globalBundle` must be the aggregate of the last
    /// Final round; before the first Final round it is the coordinator's choice, fixed by the first opening.
    function open(bytes32 configDigest, bytes32 globalBundle, Policy calldata policy) external returns (uint64 round);

    /// @notice Signer only, once. Repeating the same commitment is fine and does nothing; another one reverts.
    function commit(uint64 round, bytes32 datasetRoot, bytes32 wordsRoot) external;

    /// @notice Anyone may relay; `signature` is the seat's signer's over the EIP-712 struct
    /// Submission(uint64 round,uint8 member,bytes32 bundle,uint64 spentMicro) in the domain ("Candor","1",chain,this).
    /// `spentMicro` may not pass the cap: neither the seat's (so raising a cap counts from the next opening) nor the
    /// member's present one (so lowering it counts at once), and not fall below what was declared before.
    /// The same submission again does nothing. A different one, validly signed, is recorded as equivocation: in Train,
    /// Prove and Verify, past their deadlines too, until verdicts are posted. It spends nothing. Whatever an
    /// equivocating member sends after that does nothing.
    function submit(uint64 round, uint8 member, bytes32 bundle, uint64 spentMicro, bytes calldata signature) external;

    /// @notice Signer only, when the policy asks for proofs; once. The same digest again does nothing, another one
    /// reverts with AlreadyProved. An equivocating member has no standing submission: NotSubmitted.
    function prove(uint64 round, bytes32 proof) external;

    /// @notice The aggregator on duty (rank `round mod n`) at any time of the phase; any other from its middle on.
    /// The contract itself knows who did not commit, submit or prove and who equivocated, and checks those reasons:
    /// exactly one of 1–4 where it applies (the first that does), and otherwise 0 or at least 16. Reverts with
    /// BadVerdicts(round, seat, reason found), or (round, length found, 0) when there is not one byte per seat.
    /// With fewer than `quorum` accepted, the round is void in the same transaction.
    /// `signed`: over these reasons and the round as it stands before this call. TooFewVerifiers if they are fewer than
    /// `verifierQuorum`, NotVerifiers if one has no seat, IFederation.WrongKeys if one has not that key, BadQuorumSignature if
    /// the signature is not theirs.
    function postVerdicts(uint64 round, bytes calldata reasons, Signed calldata signed) external;

    /// @notice Signer of a seat, once, between verdicts and the end of the round: what the verdicts should have been. It is
    /// evidence and has no effect. `reasons` as for `postVerdicts` (BadVerdicts); NoDissent if they are the posted ones.
    function dissent(uint64 round, bytes calldata reasons) external;

    /// @notice As `postVerdicts`. The contract recomputes both roots (RFC 6962 over sha256, leaves as in Merkle.sol).
    function propose(uint64 round, bytes32 aggregateBundle, bytes32 includedRoot, bytes32 excludedRoot) external;

    /// @notice Signer of a committed member: "the right aggregate, by the rules, is `expectedBundle`" (or zero: the
    /// verdicts themselves are wrong). A strict majority of the committed voids the round.
    function object(uint64 round, bytes32 expectedBundle) external;

    /// @notice Anyone. Moves the round one phase on if its time has come. `header` is the RLP header of the beacon block
    /// when Commit or Train closes with a quorum, and empty otherwise. Voiding for want of a quorum is possible
    /// earlier, from the block after the close. NotYet if it is too early, WrongPhase if the round has ended.
    /// A beacon is lost when its hash is neither among the last 256 blocks nor in EIP-2935's history (8191 blocks).
    function advance(uint64 round, bytes calldata header) external;

    function latestRound() external view returns (uint64);
    /// @notice What the next round must start from: the last Final aggregate, or the first opening's bundle, or zero.
    function globalBundle() external view returns (bytes32);
    function getRound(uint64 round) external view returns (Round memory);
    /// @notice `verifier` is the one in force in the latest round.
    function seatOf(uint64 round, uint8 member) external view returns (IFederation.Seat memory);
    /// @notice keccak256(abi.encode(datasetRoot, wordsRoot)), zero before the member committed.
    function commitmentHash(uint64 round, uint8 member) external view returns (bytes32);
    /// @notice The EIP-712 struct hash of the member's first submission, zero before it.
    function submissionHash(uint64 round, uint8 member) external view returns (bytes32);
    function proofDigest(uint64 round, uint8 member) external view returns (bytes32);
    /// @notice The last block in which the round can still be open if everybody sleeps and somebody calls `advance`:
    /// 0 once it has ended. It only ever moves down.
    function lastPossibleBlock(uint64 round) external view returns (uint64);
}
