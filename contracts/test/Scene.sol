// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Federation} from "../src/Federation.sol";
import {IFederation} from "../src/interfaces/IFederation.sol";
import {BEACON_DELAY, IRounds} from "../src/interfaces/IRounds.sol";
import {Bits} from "../src/libraries/Bits.sol";
import {Merkle} from "../src/libraries/Merkle.sol";
import {Bls} from "../src/libraries/Bls.sol";
import {Rounds} from "../src/Rounds.sol";
import {Headers} from "./Headers.sol";
import {Verifiers} from "./Verifiers.sol";
import {Vm} from "./Vm.sol";

/// @notice A federation of three members and two aggregators, and the honest way through a round.
abstract contract Scene {
    using Bits for uint256;

    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    address internal constant ADMIN = address(0xAD);
    address internal constant COORDINATOR = address(0xC0);
    address internal constant FIRST_AGGREGATOR = address(0xA0);
    address internal constant SECOND_AGGREGATOR = address(0xA1);
    address internal constant STRANGER = address(0x5EED);
    uint64 internal constant CAP = 10_000_000;
    bytes32 internal constant CONFIG = keccak256("config");
    bytes32 internal constant GENESIS = keccak256("genesis");
    bytes32 internal constant AGGREGATE = keccak256("aggregate");
    bytes32 internal constant NO_LEAF = 0xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855;
    uint8 internal constant MEMBERS = 3;

    Federation internal federation;
    Rounds internal rounds;

    function setUp() public virtual {
        vm.roll(1000);
        federation = new Federation(ADMIN, COORDINATOR);
        rounds = new Rounds(IFederation(address(federation)));
        vm.prank(ADMIN);
        federation.setRounds(address(rounds));
        address[] memory order = new address[](2);
        (order[0], order[1]) = (FIRST_AGGREGATOR, SECOND_AGGREGATOR);
        vm.prank(COORDINATOR);
        federation.setAggregators(order);
        for (uint8 member = 0; member < MEMBERS; ++member) {
            _admit(member);
        }
    }

    // ------------------------------------------------------------------------------------------------------- the people

    function _key(uint8 member) internal pure returns (uint256) {
        return 0xB0B0 + uint256(member);
    }

    function _signer(uint8 member) internal pure returns (address) {
        return vm.addr(_key(member));
    }

    function _owner(uint8 member) internal pure returns (address) {
        return address(uint160(0x1000 + uint256(member)));
    }

    function _admit(uint8 member) internal {
        vm.prank(COORDINATOR);
        federation.addMember(_owner(member), _signer(member), CAP);
        _register(member);
    }

    function _secret(uint8 member) internal pure returns (uint256) {
        return 0xB150000 + uint256(member);
    }

    function _register(uint8 member) internal {
        bytes memory key = Verifiers.keyOf(_secret(member));
        bytes memory proof = _possession(_secret(member), member);
        vm.prank(_signer(member));
        federation.registerVerifier(member, key, proof);
    }

    /// @dev Round 1 has rank 1 on duty (1 mod 2), round 2 rank 0.
    function _onDuty(uint64 id) internal pure returns (address) {
        return id % 2 == 0 ? FIRST_AGGREGATOR : SECOND_AGGREGATOR;
    }

    function _offDuty(uint64 id) internal pure returns (address) {
        return _onDuty(id + 1);
    }

    // ------------------------------------------------------------------------------------------------------- the actions

    function _policy() internal pure returns (IRounds.Policy memory) {
        return IRounds.Policy({
            commitBlocks: 10,
            trainBlocks: 20,
            proveBlocks: 10,
            verifyBlocks: 10,
            proposeBlocks: 10,
            challengeBlocks: 10,
            quorum: 2,
            proofRequired: false,
            verifierQuorum: 2
        });
    }

    function _provingPolicy() internal pure returns (IRounds.Policy memory policy) {
        policy = _policy();
        policy.proofRequired = true;
    }

    function _open() internal returns (uint64) {
        return _open(_policy());
    }

    function _open(IRounds.Policy memory policy) internal returns (uint64) {
        bytes32 bundle = rounds.globalBundle();
        vm.prank(COORDINATOR);
        return rounds.open(CONFIG, bundle == 0 ? GENESIS : bundle, policy);
    }

    function _commit(uint64 id, uint8 member) internal {
        vm.prank(_signer(member));
        rounds.commit(id, keccak256(abi.encode("data", member)), keccak256(abi.encode("words", id, member)));
    }

    function _bundle(uint8 member) internal pure returns (bytes32) {
        return keccak256(abi.encode("bundle", member));
    }

    function _submit(uint64 id, uint8 member) internal {
        _submit(id, member, _bundle(member), id * 1000);
    }

    function _submit(uint64 id, uint8 member, bytes32 bundle, uint64 spentMicro) internal {
        rounds.submit(id, member, bundle, spentMicro, _signature(_key(member), id, member, bundle, spentMicro));
    }

    function _prove(uint64 id, uint8 member) internal {
        vm.prank(_signer(member));
        rounds.prove(id, keccak256(abi.encode("proof", member)));
    }

    /// @dev Signed by as many as are needed.
    function _judge(uint64 id, bytes memory reasons) internal {
        _judge(id, reasons, _quorum(id, reasons));
    }

    function _judge(uint64 id, bytes memory reasons, IRounds.Signed memory signed) internal {
        vm.prank(_onDuty(id));
        rounds.postVerdicts(id, reasons, signed);
    }

    /// @dev For what is refused before anybody looks at a signature.
    function _unsigned() internal pure returns (IRounds.Signed memory signed) {}

    /// @dev By the first members of the round, as many as are needed.
    function _quorum(uint64 id, bytes memory reasons) internal view returns (IRounds.Signed memory) {
        IRounds.Round memory r = rounds.getRound(id);
        uint256 signers = r.seated;
        uint256 surplus = signers.count() - r.policy.verifierQuorum;
        for (uint8 member = 255; surplus > 0; --member) {
            if (!signers.has(member)) continue;
            signers ^= uint256(1) << member;
            --surplus;
        }
        return _signedBy(signers, _verdictDigest(id, r.transcript, reasons));
    }

    /// @dev The sum of many signatures is the signature of the sum of their secrets.
    function _signedBy(uint256 signers, bytes32 digest) internal view returns (IRounds.Signed memory) {
        bytes memory keys;
        uint256 secret;
        for (uint256 i = 0; i < 256 && signers >> i != 0; ++i) {
            if (!signers.has(uint8(i))) continue;
            keys = bytes.concat(keys, Verifiers.keyOf(_secret(uint8(i))));
            secret = addmod(secret, _secret(uint8(i)), Verifiers.ORDER);
        }
        return IRounds.Signed(signers, keys, Verifiers.sign(secret, digest, Bls.SIGNATURE));
    }

    function _propose(uint64 id, bytes memory reasons) internal {
        (bytes32 included, bytes32 excluded) = _roots(reasons);
        vm.prank(_onDuty(id));
        rounds.propose(id, AGGREGATE, included, excluded);
    }

    function _object(uint64 id, uint8 member) internal {
        vm.prank(_signer(member));
        rounds.object(id, keccak256("the right one"));
    }

    // --------------------------------------------------------------------------------------------- the way through a round

    /// @dev Everybody commits, and Train begins.
    function _toTrain(uint64 id) internal {
        for (uint8 member = 0; member < MEMBERS; ++member) {
            _commit(id, member);
        }
        _seal(id);
    }

    /// @dev Everybody submits, and Prove or Verify begins.
    function _toVerify(uint64 id) internal {
        _toTrain(id);
        for (uint8 member = 0; member < MEMBERS; ++member) {
            _submit(id, member);
        }
        _seal(id);
    }

    function _toPropose(uint64 id) internal {
        _toVerify(id);
        _judge(id, hex"000000");
    }

    function _toProposed(uint64 id) internal {
        _toPropose(id);
        _propose(id, hex"000000");
    }

    function _toFinal(uint64 id) internal {
        _toProposed(id);
        vm.roll(rounds.getRound(id).deadlineBlock + 1);
        rounds.advance(id, "");
    }

    /// @dev Closes Commit or Train at its end, with the beacon block's real header.
    function _seal(uint64 id) internal {
        uint64 end = _end(id);
        vm.roll(end + BEACON_DELAY + 1);
        rounds.advance(id, _header(end + BEACON_DELAY));
    }

    function _end(uint64 id) internal view returns (uint64) {
        IRounds.Round memory r = rounds.getRound(id);
        return r.closeBlock == 0 ? r.deadlineBlock : r.closeBlock;
    }

    function _mixHash(uint64 number) internal pure returns (bytes32) {
        return keccak256(abi.encode("randomness", number));
    }

    /// @dev The header of block `number`, which the chain is made to remember.
    function _header(uint64 number) internal returns (bytes memory header) {
        header = Headers.build(number, _mixHash(number));
        vm.setBlockhash(number, keccak256(header));
    }

    // ------------------------------------------------------------------------------------------------ told independently

    function _beacon(uint64 id, uint8 closed, bytes32 mixHash) internal view returns (bytes32) {
        bytes32 label = keccak256(bytes("candor/beacon/1"));
        return
            keccak256(bytes.concat(label, bytes32(block.chainid), _left(address(rounds)), _u(id), _u(closed), mixHash));
    }

    function _structHash(uint64 id, uint8 member, bytes32 bundle, uint64 spentMicro) internal pure returns (bytes32) {
        bytes32 kind = keccak256("Submission(uint64 round,uint8 member,bytes32 bundle,uint64 spentMicro)");
        return keccak256(bytes.concat(kind, _u(id), _u(member), bundle, _u(spentMicro)));
    }

    function _digest(uint256 chain, address verifier, bytes32 structHash) internal pure returns (bytes32) {
        bytes32 kind = keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
        bytes32 domain =
            keccak256(bytes.concat(kind, keccak256("Candor"), keccak256("1"), bytes32(chain), _left(verifier)));
        return keccak256(bytes.concat(hex"1901", domain, structHash));
    }

    function _signature(uint256 key, uint64 id, uint8 member, bytes32 bundle, uint64 spentMicro)
        internal
        view
        returns (bytes memory)
    {
        bytes32 structHash = _structHash(id, member, bundle, spentMicro);
        return _signed(key, _digest(block.chainid, address(rounds), structHash));
    }

    function _signed(uint256 key, bytes32 digest) internal pure returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return bytes.concat(r, s, bytes1(v));
    }

    function _verdictDigest(uint64 id, bytes32 transcript, bytes memory reasons) internal view returns (bytes32) {
        bytes32 label = keccak256(bytes("candor/verdicts/1"));
        bytes32 chain = bytes32(block.chainid);
        return keccak256(bytes.concat(label, chain, _left(address(rounds)), _u(id), transcript, keccak256(reasons)));
    }

    function _possession(uint256 secret, uint8 member) internal view returns (bytes memory) {
        bytes32 label = keccak256(bytes("candor/possession/1"));
        bytes32 hash = keccak256(Verifiers.keyOf(secret));
        bytes32 where = _left(address(federation));
        bytes32 digest = keccak256(bytes.concat(label, bytes32(block.chainid), where, _u(member), hash));
        return Verifiers.sign(secret, digest, Bls.POSSESSION);
    }

    /// @dev Roots over members 0, 1, 2… by RFC 6962's own recursion.
    function _roots(bytes memory reasons) internal pure returns (bytes32 included, bytes32 excluded) {
        bytes[] memory ins = new bytes[](reasons.length);
        bytes[] memory outs = new bytes[](reasons.length);
        uint256 i;
        uint256 o;
        for (uint8 member = 0; member < reasons.length; ++member) {
            if (reasons[member] == 0) ins[i++] = abi.encodePacked(member, _bundle(member));
            else outs[o++] = abi.encodePacked(member, reasons[member]);
        }
        return (_treeHash(ins, 0, i), _treeHash(outs, 0, o));
    }

    /// @dev MTH of RFC 6962 section 2.1 over leaves[from, to): the slow twin of Merkle.root.
    function _treeHash(bytes[] memory leaves, uint256 from, uint256 to) internal pure returns (bytes32) {
        uint256 size = to - from;
        if (size == 0) return NO_LEAF;
        if (size == 1) return sha256(bytes.concat(hex"00", leaves[from]));
        uint256 split = 1;
        while (2 * split < size) split *= 2;
        bytes32 left = _treeHash(leaves, from, from + split);
        return sha256(bytes.concat(hex"01", left, _treeHash(leaves, from + split, to)));
    }

    function _u(uint256 value) internal pure returns (bytes32) {
        return bytes32(value);
    }

    function _left(address who) internal pure returns (bytes32) {
        return bytes32(uint256(uint160(who)));
    }

    // ------------------------------------------------------------------------------------------------------ expectations

    function _refuses(bytes memory why) internal {
        vm.expectRevert(why);
    }

    function _phaseIs(uint64 id, IRounds.Phase phase) internal view {
        vm.assertEq(uint256(rounds.getRound(id).phase), uint256(phase), "phase");
    }

    function _voidIs(uint64 id, IRounds.VoidReason reason) internal view {
        _phaseIs(id, IRounds.Phase.Void);
        vm.assertEq(uint256(rounds.getRound(id).voidReason), uint256(reason), "void reason");
    }
}
