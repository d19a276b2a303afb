// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title Logs of answered inferences that can only grow
/// @notice A server is the address of its key. It keeps an RFC 6962 log (SHA-256) with one leaf for each answer, and signs
/// two kinds of statements, EIP-712 structs in the domain ("Candor","1",chain,this):
///   Receipt(uint64 sequence,uint64 dueBlock,bytes32 leaf)
///     "the leaf hash at index `sequence` of my log is `leaf`, and a checkpoint here covers it by block `dueBlock`"
///   Checkpoint(uint64 size,bytes32 root)
///     "the first `size` leaves of my log have this root"
/// This contract anchors checkpoints, each only with the proof that it continues the one before it; and it keeps evidence
/// against a server that breaks one of its statements. It pays nobody and stops nobody: what evidence is worth is for its
/// readers to decide. All deadlines are in blocks.
///
/// Omissions. From the block after `dueBlock` on anybody may report a receipt. If no checkpoint covered it then, the report
/// is `late`, whatever follows. Until block `answerBy` anybody may answer with the proof that the leaf is where the receipt
/// says, under the checkpoint then anchored. With no answer the outcome is Omitted, for ever.
///
/// Forks. Two checkpoints signed for one size with different roots (`reportFork`), or one signed that the log anchored here
/// contradicts (`reportRewrite`). Either marks the server for ever.
///
/// Order of the checks, for those who imitate this contract: UnknownServer, "the same again" (which does nothing), then as
/// listed at each function.
///
/// Unkind truths:
/// - What a server did before its first checkpoint is bound by its receipts alone: the first one is believed.
/// - The chain sees no answer, no prompt and no tile. A server may log whatever it likes; whether leaves are what the
///   receipts say, and answers what the model says, is for auditors to find out.
/// - A server that never answers a user, or answers without a receipt, leaves no trace here.
/// - `late` is only known if somebody reports in time: a receipt covered late and never reported before that looks answered.
///   The blocks of the Checkpointed events tell, to whoever reads them.
/// - Each receipt can be reported once, by anybody who holds it, right or not. A server whose users report what is in the log
///   pays for an answer each time (much the same gas as the report), and one that is asleep for `answerBlocks` is marked
///   for receipts that it kept. Whoever delays its transactions for so long can do the same to it.
/// - A checkpoint that is anchored while an answer is under way makes the answer's proof stale. Only the server signs
///   checkpoints, but once signed anybody can send them.
/// - Two receipts for one `sequence` with different leaves: one of them cannot be answered. Report both.
/// - A key that leaked signs forks and receipts that are held against its server. There is no rotation: a new key is a new
///   log, and the old one keeps its record.
/// - An auditor's key is taken as it comes, but for zero. Whoever encrypts checks that it is a point of large order.
/// - Naming auditors promises nothing about what they are sent: each of them can tell, for itself.
interface IAuditLog {
    enum Outcome {
        None, // never reported
        Open, // the server may still answer
        Answered,
        Omitted // no answer by `answerBy`
    }

    struct Server {
        uint64 size; // of the last checkpoint
        uint32 promiseBlocks; // the longest delay that its receipts may promise; 0: no server
        uint32 reports; // omissions reported, each in an event
        uint32 answers; // of them answered
        uint64 forkBlock; // 0: no fork proven
        bytes32 root; // of the last checkpoint
        bytes32 auditors; // keccak256(abi.encode(address[])) of those named, zero before the first naming
    }

    event ServerRegistered(address indexed server, uint32 promiseBlocks);
    event AuditorRegistered(address indexed auditor, bytes32 key);
    event AuditorsNamed(address indexed server, address[] auditors);
    event Checkpointed(address indexed server, uint64 size, bytes32 root, bytes signature);
    event OmissionReported(
        address indexed server,
        uint64 sequence,
        uint64 dueBlock,
        bytes32 leaf,
        bytes signature,
        bool late,
        uint64 answerBy
    );
    event OmissionAnswered(address indexed server, uint64 sequence, uint64 dueBlock, bytes32 leaf);
    event Forked(
        address indexed server, uint64 size, bytes32 root, bytes signature, bytes32 otherRoot, bytes otherSignature
    );
    /// @notice The server signed `root` for `size`; the checkpoint (`anchoredSize`, `anchoredRoot`) continues `trueRoot`.
    event Rewritten(
        address indexed server,
        uint64 size,
        bytes32 root,
        bytes signature,
        bytes32 trueRoot,
        uint64 anchoredSize,
        bytes32 anchoredRoot,
        bytes32[] proof
    );

    /// @notice The caller's key becomes a server, once and for ever. `promiseBlocks`: how far behind the block of issue the
    /// `dueBlock` of its receipts may be; users refuse an answer that promises less. NoPromise if 0, AlreadyServer.
    function register(uint32 promiseBlocks) external;

    /// @notice The caller can read what is encrypted to `key` (X25519, 32 bytes as in RFC 7748) from now on. Again replaces
    /// it; what was encrypted to the old key stays so. EmptyKey if zero.
    function registerAuditor(bytes32 key) external;

    /// @notice A server: its records are encrypted to these auditors from now on. TooManyAuditors (more than 16),
    /// UnknownAuditor. With none, nobody can look into its records.
    function nameAuditors(address[] calldata auditors) external;

    /// @notice Anyone may relay. NotLonger unless `size` grows; BadSignature; ProofLength, ProofMismatch: `proof` is RFC
    /// 6962's from the last checkpoint to this one, and empty for a server's first.
    function checkpoint(address server, uint64 size, bytes32 root, bytes32[] calldata proof, bytes calldata signature)
        external;

    /// @notice Anyone. NotDue until `dueBlock` has passed; BadSignature.
    function reportOmission(address server, uint64 sequence, uint64 dueBlock, bytes32 leaf, bytes calldata signature)
        external;

    /// @notice Anyone. NotReported; (answered already: nothing happens); AnsweredTooLate; NotAnchored if the last checkpoint
    /// does not cover `sequence`; ProofLength, ProofMismatch: `proof` is RFC 6962's inclusion path under it.
    function answerOmission(address server, uint64 sequence, uint64 dueBlock, bytes32 leaf, bytes32[] calldata proof)
        external;

    /// @notice Anyone. AlreadyForked: one proof is enough; SameRoot; BadSignature, of either.
    function reportFork(
        address server,
        uint64 size,
        bytes32 root,
        bytes calldata signature,
        bytes32 otherRoot,
        bytes calldata otherSignature
    ) external;

    /// @notice Anyone: the server signed `root` for `size`, and its log as anchored here had `trueRoot` at that size, by
    /// `proof` of consistency from there to the last checkpoint (empty where that has the same size). AlreadyForked;
    /// SameRoot; NotPassed if `size` is 0 or not yet anchored; BadSignature; ProofLength, ProofMismatch.
    function reportRewrite(
        address server,
        uint64 size,
        bytes32 root,
        bytes calldata signature,
        bytes32 trueRoot,
        bytes32[] calldata proof
    ) external;

    /// @notice How long a reported server may take to answer.
    function answerBlocks() external view returns (uint32);
    /// @notice UnknownServer if it never registered.
    function getServer(address server) external view returns (Server memory);
    /// @notice Zero for who is no auditor.
    function auditorKey(address auditor) external view returns (bytes32);
    /// @notice What the server signs for a receipt, and what an omission is looked up by.
    function receiptDigest(uint64 sequence, uint64 dueBlock, bytes32 leaf) external view returns (bytes32);
    function omission(address server, bytes32 receipt)
        external
        view
        returns (Outcome outcome, bool late, uint64 answerBy);
}
