// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {AccessControl} from "@openzeppelin/contracts/access/AccessControl.sol";

import {IFederation} from "./interfaces/IFederation.sol";
import {Bits} from "./libraries/Bits.sol";
import {Bls} from "./libraries/Bls.sol";
import {Roles} from "./libraries/Roles.sol";

/// @title The members of a federation, their keys and their privacy caps
/// @notice Meaning and unkind truths are in IFederation. The admin grants roles and ties the federation to its Rounds,
/// once; the coordinator admits, removes and opens; each owner rules over its own key and cap.
contract Federation is IFederation, AccessControl {
    using Bits for uint256;

    bytes32 public constant COORDINATOR_ROLE = Roles.COORDINATOR;
    uint256 public constant MAX_MEMBERS = 256;
    bytes32 private constant POSSESSION_LABEL = keccak256("candor/possession/1");

    address public rounds;

    Member[] private _members;
    mapping(address signer => uint256 oneAndMember) private _memberOfSigner;
    /// @inheritdoc IFederation
    mapping(bytes32 verifier => uint256 oneAndMember) public memberOfVerifier;
    address[] private _aggregators;
    address[] private _nextAggregators;
    bool private _aggregatorsChange;
    bool private _everSeated;

    constructor(address admin, address coordinator) {
        require(admin != address(0) && coordinator != address(0), ZeroAddress());
        _grantRole(DEFAULT_ADMIN_ROLE, admin);
        _grantRole(COORDINATOR_ROLE, coordinator);
    }

    modifier onlyRounds() {
        require(msg.sender == rounds, NotRounds(msg.sender));
        _;
    }

    modifier onlyOwner(uint8 member) {
        address owner = _at(member).owner;
        require(msg.sender == owner, NotOwner(member, msg.sender));
        _;
    }

    /// @notice Admin only, once and for ever: which contract may seat members and charge ε.
    function setRounds(address rounds_) external onlyRole(DEFAULT_ADMIN_ROLE) {
        require(rounds == address(0), RoundsAlreadySet());
        require(rounds_ != address(0), ZeroAddress());
        rounds = rounds_;
        emit RoundsSet(rounds_);
    }

    /// @inheritdoc IFederation
    function addMember(address owner, address signer, uint64 capMicro)
        external
        onlyRole(COORDINATOR_ROLE)
        returns (uint8 member)
    {
        require(_members.length < MAX_MEMBERS, FederationFull());
        require(owner != address(0), ZeroAddress());
        member = uint8(_members.length);
        _members.push(Member(owner, Status.Pending, signer, address(0), capMicro, 0, 0, 0));
        _bindSigner(member, owner, signer);
        emit MemberAdded(member, owner, signer, capMicro);
    }

    /// @inheritdoc IFederation
    function removeMember(uint8 member) external {
        Member storage m = _at(member);
        require(msg.sender == m.owner || hasRole(COORDINATOR_ROLE, msg.sender), NotOwner(member, msg.sender));
        require(m.status == Status.Pending || m.status == Status.Active, NotLeavable(member, m.status));
        m.status = Status.Leaving;
        emit MemberLeaving(member, msg.sender);
    }

    /// @inheritdoc IFederation
    function rotateSigner(uint8 member, address signer) external onlyOwner(member) {
        Member storage m = _members[member];
        _bindSigner(member, m.owner, signer);
        m.nextSigner = signer;
        emit SignerRotated(member, signer);
    }

    /// @inheritdoc IFederation
    function registerVerifier(uint8 member, bytes calldata key, bytes calldata proof) external {
        Member storage m = _at(member);
        bool first = m.verifier == 0 && m.nextVerifier == 0;
        require(msg.sender == m.owner || (first && msg.sender == m.signer), NotOwner(member, msg.sender));
        bytes32 verifier = keccak256(key);
        uint256 taken = memberOfVerifier[verifier];
        require(taken == 0 || taken == uint256(member) + 1, VerifierTaken(verifier));
        bytes32 digest = keccak256(abi.encode(POSSESSION_LABEL, block.chainid, address(this), member, verifier));
        require(Bls.verify(key, digest, Bls.POSSESSION, proof), BadPossession(member));

        memberOfVerifier[verifier] = uint256(member) + 1;
        if (m.status == Status.Pending) m.verifier = verifier;
        else m.nextVerifier = verifier;
        emit VerifierRegistered(member, key);
    }

    /// @inheritdoc IFederation
    function setCap(uint8 member, uint64 capMicro) external onlyOwner(member) {
        Member storage m = _members[member];
        require(capMicro >= m.spentMicro, CapBelowSpent(member, capMicro, m.spentMicro));
        m.capMicro = capMicro;
        emit CapSet(member, capMicro);
    }

    /// @inheritdoc IFederation
    function setAggregators(address[] calldata aggregators_) external onlyRole(COORDINATOR_ROLE) {
        for (uint256 i = 0; i < aggregators_.length; ++i) {
            require(aggregators_[i] != address(0), ZeroAddress());
        }
        if (_everSeated) {
            _nextAggregators = aggregators_;
            _aggregatorsChange = true;
        } else {
            _aggregators = aggregators_;
        }
        emit AggregatorsSet(aggregators_);
    }

    /// @inheritdoc IFederation
    function seatMembers() external onlyRounds returns (Seat[] memory seats) {
        _everSeated = true;
        if (_aggregatorsChange) {
            _aggregators = _nextAggregators;
            _aggregatorsChange = false;
        }
        uint256 seated;
        for (uint256 i = 0; i < _members.length; ++i) {
            if (_seat(_members[i])) seated = seated.with(uint8(i));
        }
        seats = new Seat[](seated.count());
        uint256 next;
        for (uint256 i = 0; i < _members.length; ++i) {
            if (!seated.has(uint8(i))) continue;
            Member storage m = _members[i];
            seats[next++] = Seat(uint8(i), m.owner, m.signer, m.capMicro, m.spentMicro, m.verifier);
        }
    }

    /// @inheritdoc IFederation
    function charge(uint8 member, uint64 spentMicro) external onlyRounds {
        Member storage m = _at(member);
        require(spentMicro <= m.capMicro, OverCap(member, spentMicro, m.capMicro));
        require(spentMicro >= m.spentMicro, EpsilonDecreased(member, spentMicro, m.spentMicro));
        m.spentMicro = spentMicro;
        emit Spent(member, spentMicro);
    }

    /// @inheritdoc IFederation
    function memberCount() external view returns (uint256) {
        return _members.length;
    }

    /// @inheritdoc IFederation
    function getMember(uint8 member) external view returns (Member memory) {
        return _at(member);
    }

    /// @inheritdoc IFederation
    function aggregators() external view returns (address[] memory) {
        return _aggregators;
    }

    /// @inheritdoc IFederation
    function memberOfSigner(address signer) external view returns (uint256) {
        return _memberOfSigner[signer];
    }

    /// @inheritdoc IFederation
    function signedBy(uint256 members, bytes calldata keys, bytes32 digest, bytes calldata signature)
        external
        view
        returns (bool)
    {
        require(keys.length > 0 && keys.length == members.count() * Bls.KEY_BYTES, WrongKeys(members));
        uint256 next;
        for (uint256 i = 0; next < keys.length; ++i) {
            if (!members.has(uint8(i))) continue;
            bytes32 hash = keccak256(keys[next:next + Bls.KEY_BYTES]);
            require(i < _members.length && hash == _members[i].verifier, WrongKeys(members));
            next += Bls.KEY_BYTES;
        }
        return Bls.verify(Bls.sum(keys), digest, Bls.SIGNATURE, signature);
    }

    /// @inheritdoc IFederation
    function aggregatorRank(address who) external view returns (uint256) {
        for (uint256 i = 0; i < _aggregators.length; ++i) {
            if (_aggregators[i] == who) return i + 1;
        }
        return 0;
    }

    /// @dev Carries out what waited for an opening; true if the member takes part in the round.
    function _seat(Member storage m) private returns (bool) {
        if (m.status == Status.Gone) return false;
        if (m.status == Status.Leaving) {
            m.status = Status.Gone;
            return false;
        }
        if (m.status == Status.Pending) m.status = Status.Active;
        if (m.nextSigner != address(0)) {
            m.signer = m.nextSigner;
            m.nextSigner = address(0);
        }
        if (m.nextVerifier != 0) {
            m.verifier = m.nextVerifier;
            m.nextVerifier = 0;
        }
        return true;
    }

    /// @dev A key belongs to one member for ever, so that a signature names its member without doubt.
    function _bindSigner(uint8 member, address owner, address signer) private {
        require(signer != address(0), ZeroAddress());
        uint256 taken = _memberOfSigner[signer];
        require(signer != owner && (taken == 0 || taken == uint256(member) + 1), SignerTaken(signer));
        _memberOfSigner[signer] = uint256(member) + 1;
    }

    function _at(uint8 member) private view returns (Member storage) {
        require(member < _members.length, UnknownMember(member));
        return _members[member];
    }
}
