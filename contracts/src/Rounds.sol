// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

import {IFederation} from "./interfaces/IFederation.sol";
import {BEACON_DELAY, IRounds} from "./interfaces/IRounds.sol";
import {Bits} from "./libraries/Bits.sol";
import {Header} from "./libraries/Header.sol";
import {Quorum} from "./libraries/Quorum.sol";
import {Roles} from "./libraries/Roles.sol";
import {Verdicts} from "./libraries/Verdicts.sol";

/// @title The rounds of one federation
/// @notice The law is in IRounds; this contract carries it out. It calls nothing but its Federation, which calls nobody,
/// and reads EIP-2935's history.
contract Rounds is IRounds, EIP712 {
    using Bits for uint256;

    /// @dev A seat in two slots; its owner never changes and is read from the Federation.
    struct SeatSlots {
        address signer;
        uint64 capMicro;
        uint64 spentMicro; // at the opening
        uint64 declaredMicro; // with the first submission; the rest of the submission is its bundle's digest
    }

    /// @dev All of a round. A submission takes one new slot: `bundles`.
    struct Book {
        Round round;
        bytes reasons; // one byte per seat
        mapping(uint8 member => SeatSlots) seats;
        mapping(uint8 member => bytes32) commitments;
        mapping(uint8 member => bytes32) bundles;
        mapping(uint8 member => bytes32) proofs;
    }

    bytes32 private constant BEACON_LABEL = keccak256("candor/beacon/1");
    bytes32 private constant SUBMISSION_TYPE =
        keccak256("Submission(uint64 round,uint8 member,bytes32 bundle,uint64 spentMicro)");

    IFederation public immutable federation;

    /// @inheritdoc IRounds
    uint64 public latestRound;
    /// @inheritdoc IRounds
    bytes32 public globalBundle;
    mapping(uint64 id => Book) private _books;

    constructor(IFederation federation_) EIP712("Candor", "1") {
        require(address(federation_) != address(0), IFederation.ZeroAddress());
        federation = federation_;
    }

    // ------------------------------------------------------------------------------------------------- the coordinator

    /// @inheritdoc IRounds
    function open(bytes32 configDigest, bytes32 globalBundle_, Policy calldata policy) external returns (uint64 id) {
        _checkCoordinator();
        _checkPrevious();
        require(configDigest != 0 && globalBundle_ != 0, EmptyDigest());
        bytes32 expected = globalBundle;
        require(expected == 0 || expected == globalBundle_, WrongGlobalBundle(expected, globalBundle_));

        id = ++latestRound;
        globalBundle = globalBundle_;
        // The one call before the effects that need its answer: to our own Federation, which calls nobody.
        IFederation.Seat[] memory seats = federation.seatMembers();
        _checkPolicy(id, policy, seats);

        Book storage book = _books[id];
        Round storage r = book.round;
        r.phase = Phase.Commit;
        r.deadlineBlock = _now() + policy.commitBlocks;
        r.policy = policy;
        r.seated = _takeSeats(book, seats);
        r.configDigest = configDigest;
        r.globalBundle = globalBundle_;
        bytes32 transcript = _note(r, RoundOpened.selector, abi.encode(id, configDigest, globalBundle_, policy, seats));
        emit RoundOpened(id, configDigest, globalBundle_, policy, seats, transcript);
    }

    // ------------------------------------------------------------------------------------------------------ the members

    /// @inheritdoc IRounds
    function commit(uint64 id, bytes32 datasetRoot, bytes32 wordsRoot) external {
        (Book storage book, Round storage r) = _book(id);
        uint8 member = _seatOfCaller(id, book);
        require(datasetRoot != 0 && wordsRoot != 0, EmptyDigest());
        bytes32 commitment = keccak256(abi.encode(datasetRoot, wordsRoot));
        if (book.commitments[member] == commitment) return;
        _requireOpen(id, r, Phase.Commit);
        require(book.commitments[member] == 0, AlreadyCommitted(id, member));

        book.commitments[member] = commitment;
        uint256 committed = r.committed.with(member);
        r.committed = committed;
        if (committed == r.seated) r.closeBlock = _now();
        bytes32 transcript = _note(r, Committed.selector, abi.encode(id, member, datasetRoot, wordsRoot));
        emit Committed(id, member, datasetRoot, wordsRoot, transcript);
    }

    /// @inheritdoc IRounds
    function submit(uint64 id, uint8 member, bytes32 bundle, uint64 spentMicro, bytes calldata signature) external {
        (Book storage book, Round storage r) = _book(id);
        require(r.seated.has(member), NotSeated(id, msg.sender));
        require(bundle != 0, EmptyDigest());
        if (r.submitted.has(member)) _submitAgain(id, book, r, member, bundle, spentMicro, signature);
        else _submitFirst(id, book, r, member, bundle, spentMicro, signature);
    }

    /// @inheritdoc IRounds
    function prove(uint64 id, bytes32 proof) external {
        (Book storage book, Round storage r) = _book(id);
        uint8 member = _seatOfCaller(id, book);
        require(proof != 0, EmptyDigest());
        if (book.proofs[member] == proof) return;
        _requireOpen(id, r, Phase.Prove);
        require(_standing(r).has(member), NotSubmitted(id, member));
        require(book.proofs[member] == 0, AlreadyProved(id, member));

        book.proofs[member] = proof;
        r.proved = r.proved.with(member);
        _closeProveIfComplete(r);
        bytes32 transcript = _note(r, Proved.selector, abi.encode(id, member, proof));
        emit Proved(id, member, proof, transcript);
    }

    /// @inheritdoc IRounds
    function object(uint64 id, bytes32 expectedBundle) external {
        (Book storage book, Round storage r) = _book(id);
        uint8 member = _seatOfCaller(id, book);
        _requireOpen(id, r, Phase.Proposed);
        require(r.committed.has(member), NotCommitted(id, member));
        require(!r.objected.has(member), AlreadyObjected(id, member));

        uint256 objected = r.objected.with(member);
        r.objected = objected;
        bytes32 transcript = _note(r, Objected.selector, abi.encode(id, member, expectedBundle));
        emit Objected(id, member, expectedBundle, transcript);
        if (2 * objected.count() > r.committed.count()) _void(id, r, VoidReason.Disputed);
    }

    /// @inheritdoc IRounds
    function dissent(uint64 id, bytes calldata reasons) external {
        (Book storage book, Round storage r) = _book(id);
        uint8 member = _seatOfCaller(id, book);
        bool judged = r.phase == Phase.Propose || r.phase == Phase.Proposed;
        require(judged, WrongPhase(id, Phase.Propose, r.phase));
        require(!r.dissented.has(member), AlreadyDissented(id, member));
        Verdicts.accepted(id, r, reasons);
        require(keccak256(reasons) != keccak256(book.reasons), NoDissent(id, member));

        r.dissented = r.dissented.with(member);
        bytes32 transcript = _note(r, Dissented.selector, abi.encode(id, member, reasons));
        emit Dissented(id, member, reasons, transcript);
    }

    // -------------------------------------------------------------------------------------------------- the aggregators

    /// @inheritdoc IRounds
    function postVerdicts(uint64 id, bytes calldata reasons, Signed calldata signed) external {
        (Book storage book, Round storage r) = _book(id);
        _requireOpen(id, r, Phase.Verify);
        _checkTurn(id, r.deadlineBlock, r.policy.verifyBlocks);
        uint256 accepted = Verdicts.accepted(id, r, reasons);
        Quorum.check(id, r, federation, reasons, signed);

        r.accepted = accepted;
        book.reasons = reasons;
        bytes32 transcript = _note(r, VerdictsPosted.selector, abi.encode(id, msg.sender, accepted, reasons, signed));
        emit VerdictsPosted(id, msg.sender, accepted, reasons, signed, transcript);
        if (accepted.count() < r.policy.quorum) _void(id, r, VoidReason.NothingAccepted);
        else _enter(r, Phase.Propose, _now() + r.policy.proposeBlocks);
    }

    /// @inheritdoc IRounds
    function propose(uint64 id, bytes32 aggregateBundle, bytes32 includedRoot, bytes32 excludedRoot) external {
        (Book storage book, Round storage r) = _book(id);
        require(aggregateBundle != 0, EmptyDigest());
        _requireOpen(id, r, Phase.Propose);
        _checkTurn(id, r.deadlineBlock, r.policy.proposeBlocks);
        _checkRoots(book, r, includedRoot, excludedRoot);

        r.aggregateBundle = aggregateBundle;
        _enter(r, Phase.Proposed, _now() + r.policy.challengeBlocks);
        bytes32 transcript = _note(
            r, AggregateProposed.selector, abi.encode(id, msg.sender, aggregateBundle, includedRoot, excludedRoot)
        );
        emit AggregateProposed(id, msg.sender, aggregateBundle, includedRoot, excludedRoot, transcript);
        if (r.policy.challengeBlocks == 0) _finalise(id, r);
    }

    // ----------------------------------------------------------------------------------------------------------- anyone

    /// @inheritdoc IRounds
    function advance(uint64 id, bytes calldata header) external {
        Round storage r = _existing(id).round;
        if (_settle(r)) return;
        Phase phase = r.phase;
        if (phase == Phase.Commit || phase == Phase.Train) return _seal(id, r, header);
        require(phase != Phase.Final && phase != Phase.Void, WrongPhase(id, Phase.Proposed, phase));
        require(_now() > r.deadlineBlock, NotYet(id, r.deadlineBlock + 1));
        if (phase == Phase.Verify) _void(id, r, VoidReason.NoVerdict);
        else if (phase == Phase.Propose) _void(id, r, VoidReason.NoProposal);
        else _finalise(id, r);
    }

    // ---------------------------------------------------------------------------------------------------------- reading

    /// @inheritdoc IRounds
    function getRound(uint64 id) external view returns (Round memory r) {
        r = _existing(id).round;
        if (_proveIsOver(r.phase, r.deadlineBlock)) {
            r.phase = Phase.Verify;
            r.deadlineBlock += r.policy.verifyBlocks;
        }
    }

    /// @inheritdoc IRounds
    function seatOf(uint64 id, uint8 member) external view returns (IFederation.Seat memory) {
        Book storage book = _existing(id);
        require(book.round.seated.has(member), NotSeated(id, msg.sender));
        SeatSlots storage seat = book.seats[member];
        IFederation.Member memory m = federation.getMember(member);
        return IFederation.Seat(member, m.owner, seat.signer, seat.capMicro, seat.spentMicro, m.verifier);
    }

    /// @inheritdoc IRounds
    function commitmentHash(uint64 id, uint8 member) external view returns (bytes32) {
        return _books[id].commitments[member];
    }

    /// @inheritdoc IRounds
    function submissionHash(uint64 id, uint8 member) external view returns (bytes32) {
        Book storage book = _books[id];
        bytes32 bundle = book.bundles[member];
        return bundle == 0 ? bytes32(0) : _submissionHash(id, member, bundle, book.seats[member].declaredMicro);
    }

    /// @inheritdoc IRounds
    function proofDigest(uint64 id, uint8 member) external view returns (bytes32) {
        return _books[id].proofs[member];
    }

    /// @inheritdoc IRounds
    function lastPossibleBlock(uint64 id) external view returns (uint64) {
        Round storage r = _existing(id).round;
        Phase phase = r.phase;
        if (phase == Phase.Final || phase == Phase.Void) return 0;
        Policy memory p = r.policy;
        uint64 last = _end(r);
        // what comes after the present phase, at its longest; the wait for each beacon
        if (phase == Phase.Commit) last += BEACON_DELAY + p.trainBlocks;
        if (phase <= Phase.Train) last += BEACON_DELAY + (p.proofRequired ? p.proveBlocks : 0);
        if (phase <= Phase.Prove) last += p.verifyBlocks;
        if (phase <= Phase.Verify) last += p.proposeBlocks;
        if (phase <= Phase.Propose) last += p.challengeBlocks;
        return last;
    }

    // --------------------------------------------------------------------------------------------------- the coordinator

    function _checkCoordinator() private view {
        bool may = IAccessControl(address(federation)).hasRole(Roles.COORDINATOR, msg.sender);
        require(may, IAccessControl.AccessControlUnauthorizedAccount(msg.sender, Roles.COORDINATOR));
    }

    function _checkPrevious() private view {
        Phase phase = _books[latestRound].round.phase;
        require(phase == Phase.None || phase == Phase.Final || phase == Phase.Void, RoundStillOpen(latestRound, phase));
    }

    function _checkPolicy(uint64 id, Policy calldata p, IFederation.Seat[] memory seats) private pure {
        bool lengths = p.commitBlocks > 0 && p.trainBlocks > 0 && p.verifyBlocks > 0 && p.proposeBlocks > 0;
        bool proving = !p.proofRequired || p.proveBlocks > 0;
        bool quorums = p.quorum > 0 && p.verifierQuorum > 0;
        require(lengths && proving && quorums, BadPolicy());
        require(p.quorum <= seats.length && p.verifierQuorum <= seats.length, BadPolicy());
        uint256 verifiers;
        for (uint256 i = 0; i < seats.length; ++i) {
            if (seats[i].verifier != 0) ++verifiers;
        }
        require(verifiers >= p.verifierQuorum, TooFewVerifiers(id, verifiers, p.verifierQuorum));
    }

    function _takeSeats(Book storage book, IFederation.Seat[] memory seats) private returns (uint256 seated) {
        for (uint256 i = 0; i < seats.length; ++i) {
            IFederation.Seat memory seat = seats[i];
            book.seats[seat.member] = SeatSlots(seat.signer, seat.capMicro, seat.spentMicro, 0);
            seated = seated.with(seat.member);
        }
    }

    // ------------------------------------------------------------------------------------------------------- submissions

    function _submitFirst(
        uint64 id,
        Book storage book,
        Round storage r,
        uint8 member,
        bytes32 bundle,
        uint64 spentMicro,
        bytes calldata signature
    ) private {
        SeatSlots storage seat = book.seats[member];
        _requireOpen(id, r, Phase.Train);
        require(r.committed.has(member), NotCommitted(id, member));
        _checkSignature(id, seat.signer, member, bundle, spentMicro, signature);
        require(spentMicro <= seat.capMicro, IFederation.OverCap(member, spentMicro, seat.capMicro));

        book.bundles[member] = bundle;
        seat.declaredMicro = spentMicro;
        uint256 submitted = r.submitted.with(member);
        r.submitted = submitted;
        if (submitted == r.committed) r.closeBlock = _now();
        bytes32 transcript = _note(r, Submitted.selector, abi.encode(id, member, bundle, spentMicro, signature));
        emit Submitted(id, member, bundle, spentMicro, signature, transcript);
        federation.charge(member, spentMicro);
    }

    function _submitAgain(
        uint64 id,
        Book storage book,
        Round storage r,
        uint8 member,
        bytes32 bundle,
        uint64 spentMicro,
        bytes calldata signature
    ) private {
        SeatSlots storage seat = book.seats[member];
        if (book.bundles[member] == bundle && seat.declaredMicro == spentMicro) return;
        if (r.equivocated.has(member)) return;
        Phase phase = r.phase;
        require(
            phase == Phase.Train || phase == Phase.Prove || phase == Phase.Verify, WrongPhase(id, Phase.Train, phase)
        );
        _checkSignature(id, seat.signer, member, bundle, spentMicro, signature);

        r.equivocated = r.equivocated.with(member);
        if (phase == Phase.Prove) _closeProveIfComplete(r);
        bytes32 transcript = _note(r, Equivocation.selector, abi.encode(id, member, bundle, spentMicro, signature));
        emit Equivocation(id, member, bundle, spentMicro, signature, transcript);
    }

    function _checkSignature(
        uint64 id,
        address signer,
        uint8 member,
        bytes32 bundle,
        uint64 spentMicro,
        bytes calldata signature
    ) private view {
        bytes32 digest = _hashTypedDataV4(_submissionHash(id, member, bundle, spentMicro));
        (address recovered,,) = ECDSA.tryRecoverCalldata(digest, signature);
        require(recovered == signer, BadSignature(id, member, recovered));
    }

    function _submissionHash(uint64 id, uint8 member, bytes32 bundle, uint64 spentMicro)
        private
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(SUBMISSION_TYPE, id, member, bundle, spentMicro));
    }

    // ---------------------------------------------------------------------------------------------- verdicts and proposal

    function _checkTurn(uint64 id, uint64 deadlineBlock, uint32 blocks) private view {
        address[] memory order = federation.aggregators();
        uint256 rank = 0;
        while (rank < order.length && order[rank] != msg.sender) ++rank;
        require(rank < order.length, NotAggregator(msg.sender));
        uint64 earliest = deadlineBlock - blocks / 2;
        require(rank == id % order.length || _now() >= earliest, NotYourTurn(msg.sender, earliest));
    }

    function _checkRoots(Book storage book, Round storage r, bytes32 includedRoot, bytes32 excludedRoot) private view {
        (bytes32 included, bytes32 excluded) = Verdicts.roots(r.seated, book.reasons, book.bundles);
        require(includedRoot == included, WrongRoot(included, includedRoot));
        require(excludedRoot == excluded, WrongRoot(excluded, excludedRoot));
    }

    // ----------------------------------------------------------------------------------------------- the round moves on

    /// @dev Closes Commit or Train: into Void without a quorum, else with the beacon into the next phase.
    function _seal(uint64 id, Round storage r, bytes calldata header) private {
        bool committing = r.phase == Phase.Commit;
        uint64 end = _end(r);
        bool quorum = (committing ? r.committed : _standing(r)).count() >= r.policy.quorum;
        uint64 beaconBlock = end + BEACON_DELAY;
        uint64 earliest = (quorum ? beaconBlock : end) + 1;
        require(_now() >= earliest, NotYet(id, earliest));
        if (!quorum) return _void(id, r, committing ? VoidReason.CommitQuorum : VoidReason.SubmitQuorum);
        bytes32 blockHash = Header.hashOf(beaconBlock);
        if (blockHash == 0) return _void(id, r, VoidReason.BeaconLost);
        require(keccak256(header) == blockHash, BadHeader(beaconBlock));
        (uint256 number, bytes32 mixHash) = Header.read(header);
        require(number == beaconBlock, BadHeader(beaconBlock));
        _sealWith(id, r, r.phase, end, mixHash);
    }

    function _sealWith(uint64 id, Round storage r, Phase closed, uint64 end, bytes32 mixHash) private {
        bytes32 beacon = keccak256(abi.encode(BEACON_LABEL, block.chainid, address(this), id, uint8(closed), mixHash));
        if (closed == Phase.Commit) {
            r.trainBeacon = beacon;
            _enter(r, Phase.Train, end + BEACON_DELAY + r.policy.trainBlocks);
        } else {
            r.proveBeacon = beacon;
            if (r.policy.proofRequired) _enter(r, Phase.Prove, end + BEACON_DELAY + r.policy.proveBlocks);
            else _enter(r, Phase.Verify, end + BEACON_DELAY + r.policy.verifyBlocks);
        }
        bytes32 transcript = _note(r, Sealed.selector, abi.encode(id, closed, end, mixHash, beacon));
        emit Sealed(id, closed, end, mixHash, beacon, transcript);
    }

    function _finalise(uint64 id, Round storage r) private {
        bytes32 aggregateBundle = r.aggregateBundle;
        _enter(r, Phase.Final, 0);
        globalBundle = aggregateBundle;
        bytes32 transcript = _note(r, Finalised.selector, abi.encode(id, aggregateBundle));
        emit Finalised(id, aggregateBundle, transcript);
    }

    function _void(uint64 id, Round storage r, VoidReason reason) private {
        Phase phase = r.phase;
        _enter(r, Phase.Void, 0);
        r.voidReason = reason;
        bytes32 transcript = _note(r, Voided.selector, abi.encode(id, phase, reason));
        emit Voided(id, phase, reason, transcript);
    }

    function _enter(Round storage r, Phase phase, uint64 deadlineBlock) private {
        r.phase = phase;
        r.closeBlock = 0;
        r.deadlineBlock = deadlineBlock;
    }

    /// @dev Everybody with a standing submission has proved: Verify begins.
    function _closeProveIfComplete(Round storage r) private {
        if (_standing(r) & ~r.proved == 0) _enter(r, Phase.Verify, _now() + r.policy.verifyBlocks);
    }

    /// @dev Prove ends by the clock alone; this writes down what `getRound` shows.
    function _settle(Round storage r) private returns (bool moved) {
        moved = _proveIsOver(r.phase, r.deadlineBlock);
        if (moved) _enter(r, Phase.Verify, r.deadlineBlock + r.policy.verifyBlocks);
    }

    function _proveIsOver(Phase phase, uint64 deadlineBlock) private view returns (bool) {
        return phase == Phase.Prove && _now() > deadlineBlock;
    }

    // ------------------------------------------------------------------------------------------------------- small words

    /// @dev The round's book, brought up to date.
    function _book(uint64 id) private returns (Book storage book, Round storage r) {
        book = _existing(id);
        r = book.round;
        _settle(r);
    }

    function _existing(uint64 id) private view returns (Book storage book) {
        book = _books[id];
        require(book.round.phase != Phase.None, UnknownRound(id));
    }

    function _requireOpen(uint64 id, Round storage r, Phase phase) private view {
        require(r.phase == phase, WrongPhase(id, phase, r.phase));
        require(_now() <= r.deadlineBlock, PastDeadline(id, r.deadlineBlock, _now()));
    }

    function _seatOfCaller(uint64 id, Book storage book) private view returns (uint8 member) {
        uint256 oneAndMember = federation.memberOfSigner(msg.sender);
        require(oneAndMember != 0, NotSeated(id, msg.sender));
        member = uint8(oneAndMember - 1);
        require(book.seats[member].signer == msg.sender, NotSeated(id, msg.sender));
    }

    /// @dev Those who submitted once, and only once.
    function _standing(Round storage r) private view returns (uint256) {
        return r.submitted & ~r.equivocated;
    }

    /// @dev The block in which the present phase closes, or closed.
    function _end(Round storage r) private view returns (uint64) {
        return r.closeBlock == 0 ? r.deadlineBlock : r.closeBlock;
    }

    /// @dev Appends an event to the round's running hash.
    function _note(Round storage r, bytes32 topic0, bytes memory fields) private returns (bytes32 transcript) {
        transcript = keccak256(abi.encode(r.transcript, topic0, keccak256(fields)));
        r.transcript = transcript;
    }

    function _now() private view returns (uint64) {
        return uint64(block.number);
    }
}
