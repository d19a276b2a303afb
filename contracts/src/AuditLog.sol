// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";

import {IAuditLog} from "./interfaces/IAuditLog.sol";
import {LogErrors} from "./libraries/LogErrors.sol";
import {Merkle} from "./libraries/Merkle.sol";

/// @title The anchor of inference logs, and the evidence against those who keep them badly
/// @notice Meaning and unkind truths are in IAuditLog, errors in LogErrors. It calls nobody.
contract AuditLog is IAuditLog, EIP712 {
    /// @dev One slot.
    struct Report {
        uint64 answerBy; // 0: never reported
        bool late;
        bool answered;
    }

    uint256 public constant MAX_AUDITORS = 16;
    bytes32 private constant RECEIPT_TYPE = keccak256("Receipt(uint64 sequence,uint64 dueBlock,bytes32 leaf)");
    bytes32 private constant CHECKPOINT_TYPE = keccak256("Checkpoint(uint64 size,bytes32 root)");

    /// @inheritdoc IAuditLog
    uint32 public immutable answerBlocks;
    /// @inheritdoc IAuditLog
    mapping(address auditor => bytes32) public auditorKey;
    mapping(address server => Server) private _servers;
    mapping(address server => mapping(bytes32 receipt => Report)) private _reports;

    constructor(uint32 answerBlocks_) EIP712("Candor", "1") {
        require(answerBlocks_ != 0, LogErrors.NoWindow());
        answerBlocks = answerBlocks_;
    }

    // ------------------------------------------------------------------------------------------------------ who is who

    /// @inheritdoc IAuditLog
    function register(uint32 promiseBlocks) external {
        require(promiseBlocks != 0, LogErrors.NoPromise());
        Server storage s = _servers[msg.sender];
        require(s.promiseBlocks == 0, LogErrors.AlreadyServer(msg.sender));
        s.promiseBlocks = promiseBlocks;
        emit ServerRegistered(msg.sender, promiseBlocks);
    }

    /// @inheritdoc IAuditLog
    function registerAuditor(bytes32 key) external {
        require(key != 0, LogErrors.EmptyKey());
        auditorKey[msg.sender] = key;
        emit AuditorRegistered(msg.sender, key);
    }

    /// @inheritdoc IAuditLog
    function nameAuditors(address[] calldata auditors) external {
        Server storage s = _server(msg.sender);
        require(auditors.length <= MAX_AUDITORS, LogErrors.TooManyAuditors(auditors.length, MAX_AUDITORS));
        for (uint256 i = 0; i < auditors.length; ++i) {
            require(auditorKey[auditors[i]] != 0, LogErrors.UnknownAuditor(auditors[i]));
        }
        s.auditors = keccak256(abi.encode(auditors));
        emit AuditorsNamed(msg.sender, auditors);
    }

    // ------------------------------------------------------------------------------------------------------ checkpoints

    /// @inheritdoc IAuditLog
    function checkpoint(address server, uint64 size, bytes32 root, bytes32[] calldata proof, bytes calldata signature)
        external
    {
        Server storage s = _server(server);
        (uint64 anchored, bytes32 anchoredRoot) = (s.size, s.root);
        if (size == anchored && root == anchoredRoot) return;
        require(size > anchored, LogErrors.NotLonger(server, anchored, size));
        _checkSignature(server, _checkpointDigest(size, root), signature);
        if (anchored == 0) require(proof.length == 0, LogErrors.ProofLength(0, proof.length));
        else Merkle.checkConsistency(anchored, anchoredRoot, size, root, proof);

        (s.size, s.root) = (size, root);
        emit Checkpointed(server, size, root, signature);
    }

    // -------------------------------------------------------------------------------------------------------- omissions

    /// @inheritdoc IAuditLog
    function reportOmission(address server, uint64 sequence, uint64 dueBlock, bytes32 leaf, bytes calldata signature)
        external
    {
        Server storage s = _server(server);
        bytes32 receipt = receiptDigest(sequence, dueBlock, leaf);
        Report storage r = _reports[server][receipt];
        if (r.answerBy != 0) return;
        require(_now() > dueBlock, LogErrors.NotDue(dueBlock, _now()));
        _checkSignature(server, receipt, signature);

        bool late = s.size <= sequence;
        uint64 answerBy = _now() + answerBlocks;
        (r.answerBy, r.late) = (answerBy, late);
        ++s.reports;
        emit OmissionReported(server, sequence, dueBlock, leaf, signature, late, answerBy);
    }

    /// @inheritdoc IAuditLog
    function answerOmission(address server, uint64 sequence, uint64 dueBlock, bytes32 leaf, bytes32[] calldata proof)
        external
    {
        Server storage s = _server(server);
        bytes32 receipt = receiptDigest(sequence, dueBlock, leaf);
        Report storage r = _reports[server][receipt];
        require(r.answerBy != 0, LogErrors.NotReported(server, receipt));
        if (r.answered) return;
        require(_now() <= r.answerBy, LogErrors.AnsweredTooLate(receipt, r.answerBy, _now()));
        require(sequence < s.size, LogErrors.NotAnchored(sequence, s.size));
        Merkle.checkInclusion(leaf, sequence, s.size, s.root, proof);

        r.answered = true;
        ++s.answers;
        emit OmissionAnswered(server, sequence, dueBlock, leaf);
    }

    // ------------------------------------------------------------------------------------------------------------ forks

    /// @inheritdoc IAuditLog
    function reportFork(
        address server,
        uint64 size,
        bytes32 root,
        bytes calldata signature,
        bytes32 otherRoot,
        bytes calldata otherSignature
    ) external {
        Server storage s = _unforked(server);
        require(root != otherRoot, LogErrors.SameRoot(root));
        _checkSignature(server, _checkpointDigest(size, root), signature);
        _checkSignature(server, _checkpointDigest(size, otherRoot), otherSignature);

        s.forkBlock = _now();
        emit Forked(server, size, root, signature, otherRoot, otherSignature);
    }

    /// @inheritdoc IAuditLog
    function reportRewrite(
        address server,
        uint64 size,
        bytes32 root,
        bytes calldata signature,
        bytes32 trueRoot,
        bytes32[] calldata proof
    ) external {
        Server storage s = _unforked(server);
        (uint64 anchored, bytes32 anchoredRoot) = (s.size, s.root);
        require(root != trueRoot, LogErrors.SameRoot(root));
        require(size != 0 && size <= anchored, LogErrors.NotPassed(size, anchored));
        _checkSignature(server, _checkpointDigest(size, root), signature);
        if (size == anchored) {
            require(proof.length == 0, LogErrors.ProofLength(0, proof.length));
            require(trueRoot == anchoredRoot, LogErrors.ProofMismatch(anchoredRoot, trueRoot));
        } else {
            Merkle.checkConsistency(size, trueRoot, anchored, anchoredRoot, proof);
        }

        s.forkBlock = _now();
        emit Rewritten(server, size, root, signature, trueRoot, anchored, anchoredRoot, proof);
    }

    // ---------------------------------------------------------------------------------------------------------- reading

    /// @inheritdoc IAuditLog
    function getServer(address server) external view returns (Server memory) {
        return _server(server);
    }

    /// @inheritdoc IAuditLog
    function receiptDigest(uint64 sequence, uint64 dueBlock, bytes32 leaf) public view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(RECEIPT_TYPE, sequence, dueBlock, leaf)));
    }

    /// @inheritdoc IAuditLog
    function omission(address server, bytes32 receipt)
        external
        view
        returns (Outcome outcome, bool late, uint64 answerBy)
    {
        Report memory r = _reports[server][receipt];
        if (r.answerBy == 0) return (Outcome.None, false, 0);
        outcome = r.answered ? Outcome.Answered : _now() <= r.answerBy ? Outcome.Open : Outcome.Omitted;
        return (outcome, r.late, r.answerBy);
    }

    // ---------------------------------------------------------------------------------------------------------- the rest

    function _server(address server) private view returns (Server storage s) {
        s = _servers[server];
        require(s.promiseBlocks != 0, LogErrors.UnknownServer(server));
    }

    function _unforked(address server) private view returns (Server storage s) {
        s = _server(server);
        require(s.forkBlock == 0, LogErrors.AlreadyForked(server, s.forkBlock));
    }

    function _checkpointDigest(uint64 size, bytes32 root) private view returns (bytes32) {
        return _hashTypedDataV4(keccak256(abi.encode(CHECKPOINT_TYPE, size, root)));
    }

    function _checkSignature(address server, bytes32 digest, bytes calldata signature) private pure {
        (address recovered,,) = ECDSA.tryRecoverCalldata(digest, signature);
        require(recovered == server, LogErrors.BadSignature(server, recovered));
    }

    function _now() private view returns (uint64) {
        return uint64(block.number);
    }
}
