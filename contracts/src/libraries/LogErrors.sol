// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title Everything for which AuditLog refuses a call
library LogErrors {
    // -------------------------------------------------------------------------------------------------- who is who
    error NoWindow();
    error NoPromise();
    error AlreadyServer(address server);
    error UnknownServer(address server);
    error EmptyKey();
    error UnknownAuditor(address auditor);
    error TooManyAuditors(uint256 found, uint256 most);

    // ------------------------------------------------------------------------------------------------- checkpoints
    error NotLonger(address server, uint64 anchored, uint64 found);
    error BadSignature(address server, address recovered);
    /// @notice The sizes decide how many hashes a proof has.
    error ProofLength(uint256 expected, uint256 found);
    error ProofMismatch(bytes32 expected, bytes32 found);

    // --------------------------------------------------------------------------------------------------- omissions
    error NotDue(uint64 dueBlock, uint64 blockNumber);
    error NotReported(address server, bytes32 receipt);
    error AnsweredTooLate(bytes32 receipt, uint64 answerBy, uint64 blockNumber);
    error NotAnchored(uint64 sequence, uint64 anchored);

    // ------------------------------------------------------------------------------------------------------- forks
    error SameRoot(bytes32 root);
    error NotPassed(uint64 size, uint64 anchored);
    error AlreadyForked(address server, uint64 forkBlock);
}
