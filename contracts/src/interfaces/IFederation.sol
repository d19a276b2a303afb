// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title Who takes part, with which key, and how much privacy each may spend
/// @notice Members are numbered 0…255 in the order they were added and never renumbered, so that a set of
/// members is one 256-bit word. A member is its `owner` (cold key: joins, leaves, rotates, sets the cap), its `signer`
/// (hot key of the daemon: commits, submits, objects) and its `verifier` (BLS12-381 key: signs verdicts).
///
/// Unkind truths:
/// - The coordinator chooses who may join and who must leave. It cannot act for a member, raise a member's cap, or
///   touch a round that is already open. It does name a member's first cap: whoever disagrees lowers it, or does not
///   train (the daemon has a limit of its own).
/// - ε is what the member's own accountant declares, in units of 1e-6. The contract only guarantees that it never
///   decreases and never passes the cap. Whether it is *enough* is re-derived off chain from the configs.
/// - A signer that leaks can spend the rest of the member's cap until `rotateSigner` and the next opening.
/// - A signer may register the member's first verifier key and no other. Where both leaked (the daemon derives one from
///   the other), the owner replaces both: `rotateSigner` alone leaves the old verifier in force.
/// - A member without a verifier key takes part in rounds and signs no verdicts. One key serves one member, for ever.
/// - Of a key the chain keeps the hash alone, one slot in place of four: who uses a key brings it along. It is in the
///   event of its registration.
interface IFederation {
    enum Status {
        None,
        Pending, // joins at the next opening
        Active,
        Leaving, // leaves at the next opening
        Gone
    }

    struct Member {
        address owner;
        Status status;
        address signer;
        address nextSigner; // zero: no rotation under way; takes effect at the next opening
        uint64 capMicro; // ε cap, 1e-6
        uint64 spentMicro; // ε declared so far, 1e-6
        bytes32 verifier; // keccak256 of the BLS key in force, zero: none
        bytes32 nextVerifier; // zero: no change under way; takes effect at the next opening
    }

    /// @notice What a round freezes of a member when it opens.
    struct Seat {
        uint8 member;
        address owner;
        address signer;
        uint64 capMicro;
        uint64 spentMicro;
        bytes32 verifier;
    }

    event MemberAdded(uint8 indexed member, address indexed owner, address signer, uint64 capMicro);
    event MemberLeaving(uint8 indexed member, address by);
    event SignerRotated(uint8 indexed member, address signer);
    event VerifierRegistered(uint8 indexed member, bytes key);
    event CapSet(uint8 indexed member, uint64 capMicro);
    event Spent(uint8 indexed member, uint64 spentMicro);
    event AggregatorsSet(address[] aggregators);
    event RoundsSet(address rounds);

    error UnknownMember(uint8 member);
    error NotOwner(uint8 member, address caller);
    error NotRounds(address caller);
    error RoundsAlreadySet();
    error FederationFull();
    error SignerTaken(address signer);
    error VerifierTaken(bytes32 verifier);
    error BadPossession(uint8 member);
    error WrongKeys(uint256 members);
    error ZeroAddress();
    error NotLeavable(uint8 member, Status status);
    error OverCap(uint8 member, uint64 declaredMicro, uint64 capMicro);
    error EpsilonDecreased(uint8 member, uint64 declaredMicro, uint64 spentMicro);
    error CapBelowSpent(uint8 member, uint64 capMicro, uint64 spentMicro);

    /// @notice Coordinator only. The member becomes active when the next round opens. SignerTaken if the key ever
    /// signed for another member, or is the owner's own: the hot key is apart from the cold one.
    function addMember(address owner, address signer, uint64 capMicro) external returns (uint8 member);

    /// @notice The member's owner, or the coordinator. Takes effect when the next round opens.
    function removeMember(uint8 member) external;

    /// @notice Owner only; takes effect when the next round opens, so that one round knows one key per member.
    function rotateSigner(uint8 member, address signer) external;

    /// @notice The owner, or the signer as long as the member has no verifier key. In force from the next opening (at once
    /// for a member that waits for its first). `key` and `proof` as in Bls.sol; the proof of possession is a signature,
    /// under the tag POSSESSION, by `key` over
    ///   keccak256(abi.encode(keccak256("candor/possession/1"), chain id, this contract, member, keccak256(key)))
    /// so that nobody registers another's key, or one made up from others' to cancel them. BadPossession if it is none;
    /// VerifierTaken if the key ever served another member.
    function registerVerifier(uint8 member, bytes calldata key, bytes calldata proof) external;

    /// @notice Owner only: nobody else may decide how much of a member's privacy is for sale.
    function setCap(uint8 member, uint64 capMicro) external;

    /// @notice Coordinator only. The order is the order of failover (see IRounds). In force from the next opening, so
    /// that a running round keeps its aggregators; at once as long as no round was ever opened.
    function setAggregators(address[] calldata aggregators) external;

    /// @notice Rounds only: admit the pending, drop the leaving, rotate signers; return the seats of the new round.
    function seatMembers() external returns (Seat[] memory seats);

    /// @notice Rounds only: raise what a member declares to have spent. Reverts over the cap or downwards.
    function charge(uint8 member, uint64 spentMicro) external;

    function memberCount() external view returns (uint256);
    function getMember(uint8 member) external view returns (Member memory);
    /// @notice Those in force for the latest round.
    function aggregators() external view returns (address[] memory);
    /// @notice 1 + number of the member that this key signs (or once signed) for, 0 if none: a key is never passed on.
    function memberOfSigner(address signer) external view returns (uint256);
    /// @notice Is `signature` the sum of the signatures of all of `members` over `digest`, under the tag SIGNATURE of
    /// Bls.sol? `keys` are their keys in the latest round, 128 bytes each, in the order of their numbers: WrongKeys if not.
    function signedBy(uint256 members, bytes calldata keys, bytes32 digest, bytes calldata signature)
        external
        view
        returns (bool);
    /// @notice 1 + number of the member whose verifier key has (or once had) this hash, 0 if none.
    function memberOfVerifier(bytes32 verifier) external view returns (uint256);
    /// @notice 1 + position in the failover order, 0 if the address is not an aggregator.
    function aggregatorRank(address who) external view returns (uint256);
}
