// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Federation} from "../src/Federation.sol";
import {IFederation} from "../src/interfaces/IFederation.sol";
import {IRounds} from "../src/interfaces/IRounds.sol";
import {Bits} from "../src/libraries/Bits.sol";
import {Bls} from "../src/libraries/Bls.sol";
import {Scene} from "./Scene.sol";
import {Verifiers} from "./Verifiers.sol";

/// @notice So that a revert of the library is a revert.
contract BlsDoor {
    function verify(bytes memory key, bytes32 digest, bytes memory signature) external view returns (bool) {
        return Bls.verify(key, digest, Bls.SIGNATURE, signature);
    }
}

/// @notice Keys of verifiers, their signatures, and what an aggregator cannot do without them.
contract QuorumTest is Scene {
    using Bits for uint256;

    // made with py_ecc 8.0.0, ciphersuite G2ProofOfPossession; tests/ledger/test_bls.py has the same
    bytes32 private constant DIGEST = 0x121fc62463275dc033b7e57931d69da9a4bf4cfeca7a45462aa7fe4f9c03e0a6;
    bytes private constant KEY = hex"00000000000000000000000000000000189608ccf76dfe07fb7d750b78a88398e5ec9320fee27a839d61ae76aaa23e1af778"
        hex"94a8f4e5a6f835b66d59f160bca5000000000000000000000000000000000ee06e06cd75d65fd7102e3b0dd8717f7cddf482"
        hex"058e9c0636a7a9a8506ab0dcb3714cb2239270b41c8b4dcb3b6a3a57";
    bytes private constant SIGNATURE = hex"000000000000000000000000000000000b5e833c17eec575ebc1a2fa9944252584a3dea0b418c0572f1b7c2076f00cf44170"
        hex"86d7017511379b12c3aaf62ccaf400000000000000000000000000000000155e1fbda80cd974497a53a970383a1e72ba03a0"
        hex"05bf11d05b6143b1e8e3237d72fd58829d4b0f8e9a636de6550bc18400000000000000000000000000000000036c46b65644"
        hex"d4d2c059cc037153bf4d64eca6471a5ca2280bf4085f1180bbd3ee8d6b72fdd458c1be8ea2e8d43dd7e90000000000000000"
        hex"0000000000000000062f156173451131e0227cfafd5aa0dca913af1b848249ac294d70481c0eb4220aade18d486716bb39e3"
        hex"ed53a0a94583";
    // on the curve, outside the subgroup of order r
    bytes private constant STRAY_KEY = hex"0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
        hex"0000000000000000000000000004000000000000000000000000000000000a989badd40d6212b33cffc3f3763e9bc760f988"
        hex"c9926b26da9dd85e928483446346b8ed00e1de5d5ea93e354abe706c";
    bytes private constant STRAY_SIGNATURE = hex"0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
        hex"0000000000000000000000000002000000000000000000000000000000000000000000000000000000000000000000000000"
        hex"000000000000000000000000000000000000000000000000000000000000000000000000000000000000000018c6b864ae17"
        hex"dc9da64203ffefb966306425a7bc6aeb7c75247438372716284a4173830420cd476ba1a365b95bfcec380000000000000000"
        hex"0000000000000000172e93db764a8400a7d5071b6b6f5de0da2f0f4a063119abca014006b7c40a2cfe291a1924e65db0d6d0"
        hex"fcfbf3bf3d5c";
    bytes32 private constant P_HIGH = 0x000000000000000000000000000000001a0111ea397fe69a4b1ba7b6434bacd7;
    bytes32 private constant P_LOW = 0x64774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab;
    bytes private constant RFC_TAG = "QUUX-V01-CS02-with-BLS12381G2_XMD:SHA-256_SSWU_RO_";
    bytes private constant GOOD = hex"000000";
    uint256 private constant FIRST_TWO = 3;

    BlsDoor private door;
    uint64 private id;

    function setUp() public override {
        super.setUp();
        door = new BlsDoor();
        id = _open();
    }

    // -------------------------------------------------------------------------------------------------------- the curve

    function _hashed(bytes memory message, bytes memory expected) private view {
        vm.assertEq(keccak256(Bls.hashToG2(message, RFC_TAG)), keccak256(expected), string(message));
    }

    /// @dev RFC 9380, appendix J.10.1.
    function test_hash_to_curve_is_that_of_rfc_9380() external view {
        _hashed(
            "",
            hex"000000000000000000000000000000000141ebfbdca40eb85b87142e130ab689c673cf60f1a3e98d69335266f30d9b8d4ac4"
            hex"4c1038e9dcdd5393faf5c41fb78a0000000000000000000000000000000005cb8437535e20ecffaef7752baddf98034139c3"
            hex"8452458baeefab379ba13dff5bf5dd71b72418717047f5b0f37da03d000000000000000000000000000000000503921d7f6a"
            hex"12805e72940b963c0cf3471c7b2a524950ca195d11062ee75ec076daf2d4bc358c4b190c0c98064fdd920000000000000000"
            hex"000000000000000012424ac32561493f3fe3c260708a12b7c620e7be00099a974e259ddc7d1f6395c3c811cdd19f1e8dbf3e"
            hex"9ecfdcbab8d6"
        );
        _hashed(
            "abc",
            hex"0000000000000000000000000000000002c2d18e033b960562aae3cab37a27ce00d80ccd5ba4b7fe0e7a210245129dbec778"
            hex"0ccc7954725f4168aff2787776e600000000000000000000000000000000139cddbccdc5e91b9623efd38c49f81a6f83f175"
            hex"e80b06fc374de9eb4b41dfe4ca3a230ed250fbe3a2acf73a41177fd8000000000000000000000000000000001787327b6815"
            hex"9716a37440985269cf584bcb1e621d3a7202be6ea05c4cfe244aeb197642555a0645fb87bf7466b2ba480000000000000000"
            hex"000000000000000000aa65dae3c8d732d10ecd2c50f8a1baf3001578f71c694e03866e9f3d49ac1e1ce70dd94a733534f106"
            hex"d4cec0eddd16"
        );
        _hashed(
            "abcdef0123456789",
            hex"00000000000000000000000000000000121982811d2491fde9ba7ed31ef9ca474f0e1501297f68c298e9f4c0028add35aea8"
            hex"bb83d53c08cfc007c1e005723cd000000000000000000000000000000000190d119345b94fbd15497bcba94ecf7db2cbfd1e"
            hex"1fe7da034d26cbba169fb3968288b3fafb265f9ebd380512a71c3f2c0000000000000000000000000000000005571a0f8d3c"
            hex"08d094576981f4a3b8eda0a8e771fcdcc8ecceaf1356a6acf17574518acb506e435b639353c2e14827c80000000000000000"
            hex"00000000000000000bb5e7572275c567462d91807de765611490205a941a5a6af3b1691bfe596c31225d3aabdf15faff860c"
            hex"b4ef17c7c3be"
        );
    }

    function test_a_signature_made_elsewhere_holds_and_one_bit_breaks_it() external view {
        vm.assertTrue(door.verify(KEY, DIGEST, SIGNATURE), "py_ecc's own");
        vm.assertTrue(!door.verify(KEY, DIGEST ^ bytes32(uint256(1)), SIGNATURE), "another digest");
        vm.assertTrue(!door.verify(Verifiers.keyOf(7), DIGEST, SIGNATURE), "another key");
    }

    function testFuzz_who_signs_is_believed_and_nobody_else(uint256 secret, bytes32 digest, bytes32 other)
        external
        view
    {
        secret = 1 + secret % (Verifiers.ORDER - 1);
        bytes memory signature = Verifiers.sign(secret, digest, Bls.SIGNATURE);
        vm.assertTrue(door.verify(Verifiers.keyOf(secret), digest, signature), "signed");
        vm.assertTrue(other == digest || !door.verify(Verifiers.keyOf(secret), other, signature), "another digest");
        bytes memory next = Verifiers.keyOf(addmod(secret, 1, Verifiers.ORDER));
        vm.assertTrue(secret + 1 == Verifiers.ORDER || !door.verify(next, digest, signature), "another key");
    }

    function test_what_is_no_point_of_the_subgroup_is_no_signature() external view {
        vm.assertTrue(!door.verify(KEY, DIGEST, STRAY_SIGNATURE), "a signature outside the subgroup");
        vm.assertTrue(!door.verify(STRAY_KEY, DIGEST, SIGNATURE), "a key outside the subgroup");
        vm.assertTrue(!door.verify(KEY, DIGEST, new bytes(256)), "infinity");
        vm.assertTrue(!door.verify(new bytes(128), DIGEST, new bytes(256)), "infinity under a key at infinity");
        vm.assertTrue(!door.verify(KEY, DIGEST, ""), "nothing");
        vm.assertTrue(!door.verify("", DIGEST, SIGNATURE), "no key");
        vm.assertTrue(!door.verify(KEY, DIGEST, bytes.concat(SIGNATURE, hex"00")), "a byte too much");
        vm.assertTrue(!door.verify(bytes.concat(KEY, KEY), DIGEST, SIGNATURE), "two keys");
    }

    /// @dev A coordinate plus p is the same number written otherwise: there is one encoding of a point and no second.
    function test_coordinates_are_below_the_modulus() external view {
        bytes memory zero = new bytes(64);
        // (0, 2) is on the curve; (p, 2) would be the same
        bytes memory two = bytes.concat(bytes32(0), bytes32(uint256(2)));
        vm.assertTrue(!door.verify(bytes.concat(zero, two), DIGEST, SIGNATURE), "(0, 2)");
        vm.assertTrue(!door.verify(bytes.concat(P_HIGH, P_LOW, two), DIGEST, SIGNATURE), "(p, 2)");
    }

    function testFuzz_garbage_is_no_signature(bytes32 seed) external view {
        bytes memory garbage;
        for (uint256 i = 0; i < 8; ++i) {
            bytes32 word = keccak256(abi.encode(seed, i));
            garbage = bytes.concat(garbage, i % 2 == 0 ? word >> 132 : word);
        }
        vm.assertTrue(!door.verify(KEY, DIGEST, garbage), "garbage");
    }

    /// @dev A precompile that fails keeps all the gas it was given.
    function test_a_malformed_signature_burns_no_more_than_its_share() external view {
        uint256 before = gasleft();
        door.verify(KEY, DIGEST, STRAY_SIGNATURE);
        vm.assertLe(before - gasleft(), 600_000, "gas");
    }

    /// @dev Without EIP-2537 these addresses are empty: a call succeeds and returns nothing.
    function test_a_chain_without_the_precompiles_says_so() external {
        for (uint160 missing = 0x0f; missing <= 0x11; missing += 2) {
            vm.mockCall(address(missing), "", "");
            _refuses(abi.encodeWithSelector(Bls.NoPrecompile.selector, address(missing)));
            door.verify(KEY, DIGEST, SIGNATURE);
            vm.clearMockedCalls();
        }
        vm.assertTrue(door.verify(KEY, DIGEST, SIGNATURE), "and with them it goes on");
    }

    // ------------------------------------------------------------------------------------------------------ registration

    function _newcomer() private returns (uint8 member) {
        member = uint8(federation.memberCount());
        vm.prank(COORDINATOR);
        federation.addMember(_owner(member), _signer(member), CAP);
    }

    function _registers(address sender, uint8 member, uint256 secret, bytes memory proof) private {
        bytes memory key = Verifiers.keyOf(secret);
        vm.prank(sender);
        federation.registerVerifier(member, key, proof);
    }

    function _notPossessed(uint8 member, bytes memory key, bytes memory proof) private {
        _refuses(abi.encodeWithSelector(IFederation.BadPossession.selector, member));
        vm.prank(_owner(member));
        federation.registerVerifier(member, key, proof);
    }

    function test_a_key_is_registered_with_proof_that_somebody_has_its_secret() external {
        uint8 member = _newcomer();
        bytes memory proof = _possession(77, member);
        bytes memory key = Verifiers.keyOf(77);
        _notPossessed(member, key, _possession(77, 0)); // for another member
        _notPossessed(member, key, _possession(78, member)); // by another secret
        _notPossessed(member, key, Verifiers.sign(77, keccak256(key), Bls.POSSESSION)); // over the key alone
        _notPossessed(member, Verifiers.keyOf(Verifiers.ORDER - 77), proof); // the negated key
        _notPossessed(member, STRAY_KEY, proof);
        _notPossessed(member, new bytes(128), new bytes(256));
        _notPossessed(member, bytes.concat(key, key), proof);
        _notPossessed(member, key, "");
        _registers(_owner(member), member, 77, proof);
        vm.assertEq(federation.getMember(member).verifier, keccak256(key), "at once, as it waits for its first round");
        vm.assertEq(federation.memberOfVerifier(keccak256(key)), uint256(member) + 1, "one plus the member");
    }

    /// @dev The tags differ: verdicts are never proofs of possession.
    function test_a_signature_on_something_else_is_no_proof_of_possession() external {
        uint8 member = _newcomer();
        bytes memory key = Verifiers.keyOf(77);
        bytes32 label = keccak256("candor/possession/1");
        bytes32 told = keccak256(abi.encode(label, block.chainid, federation, member, keccak256(key)));
        _notPossessed(member, key, Verifiers.sign(77, told, Bls.SIGNATURE));
        _registers(_owner(member), member, 77, Verifiers.sign(77, told, Bls.POSSESSION));
    }

    function test_a_proof_counts_on_one_chain_and_one_contract() external {
        uint8 member = _newcomer();
        bytes memory key = Verifiers.keyOf(77);
        bytes memory proof = _possession(77, member);
        vm.chainId(block.chainid + 1);
        _notPossessed(member, key, proof);
        Federation elsewhere = new Federation(ADMIN, COORDINATOR);
        vm.prank(COORDINATOR);
        elsewhere.addMember(_owner(0), _signer(0), CAP);
        bytes memory ours = _possession(77, 0);
        _refuses(abi.encodeWithSelector(IFederation.BadPossession.selector, 0));
        vm.prank(_owner(0));
        elsewhere.registerVerifier(0, key, ours);
    }

    function test_a_key_serves_one_member_for_ever() external {
        uint8 member = _newcomer();
        bytes memory proof = _possession(_secret(0), member);
        bytes32 verifier = keccak256(Verifiers.keyOf(_secret(0)));
        _takenBy(member, verifier, proof);
        proof = _possession(77, 0);
        _registers(_owner(0), 0, 77, proof);
        _toFinal(id);
        _open();
        proof = _possession(_secret(0), member);
        _takenBy(member, verifier, proof);
        proof = _possession(_secret(0), 0);
        _registers(_owner(0), 0, _secret(0), proof);
    }

    function _takenBy(uint8 member, bytes32 verifier, bytes memory proof) private {
        bytes memory key = Verifiers.keyOf(_secret(0));
        _refuses(abi.encodeWithSelector(IFederation.VerifierTaken.selector, verifier));
        vm.prank(_owner(member));
        federation.registerVerifier(member, key, proof);
    }

    function test_the_signer_registers_the_first_key_and_the_owner_every_other() external {
        uint8 member = _newcomer();
        bytes memory key = Verifiers.keyOf(77);
        bytes memory proof = _possession(77, member);
        _refuses(abi.encodeWithSelector(IFederation.NotOwner.selector, member, COORDINATOR));
        vm.prank(COORDINATOR);
        federation.registerVerifier(member, key, proof);
        _registers(_signer(member), member, 77, proof);
        proof = _possession(78, member);
        key = Verifiers.keyOf(78);
        _refuses(abi.encodeWithSelector(IFederation.NotOwner.selector, member, _signer(member)));
        vm.prank(_signer(member));
        federation.registerVerifier(member, key, proof);
        _registers(_owner(member), member, 78, proof);
    }

    function test_a_new_key_is_in_force_from_the_next_opening() external {
        bytes32 before = keccak256(Verifiers.keyOf(_secret(0)));
        bytes memory proof = _possession(77, 0);
        _registers(_owner(0), 0, 77, proof);
        vm.assertEq(federation.getMember(0).verifier, before, "a running round knows one key");
        _toFinal(id); // signed with the old one
        id = _open();
        vm.assertEq(rounds.seatOf(id, 0).verifier, keccak256(Verifiers.keyOf(77)), "the new key has the seat");
        vm.assertEq(federation.getMember(0).nextVerifier, 0, "and nothing waits");
        _toVerify(id);
        IRounds.Signed memory signed = _quorum(id, GOOD);
        _refuses(abi.encodeWithSelector(IFederation.WrongKeys.selector, FIRST_TWO));
        _judge(id, GOOD, signed);
    }

    function test_a_round_opens_with_enough_verifiers() external {
        _toFinal(id);
        _newcomer();
        IRounds.Policy memory policy = _policy();
        policy.verifierQuorum = MEMBERS + 1;
        _refuses(abi.encodeWithSelector(IRounds.TooFewVerifiers.selector, id + 1, MEMBERS, MEMBERS + 1));
        vm.prank(COORDINATOR);
        rounds.open(CONFIG, AGGREGATE, policy);
        policy.verifierQuorum = MEMBERS;
        _open(policy);
    }

    // -------------------------------------------------------------------------------------------------------- the quorum

    function _transcript() private view returns (bytes32) {
        return rounds.getRound(id).transcript;
    }

    function _refusesSigned(IRounds.Signed memory signed, bytes memory why) private {
        _refuses(why);
        _judge(id, GOOD, signed);
    }

    function _refusesDigest(bytes32 digest) private {
        _refusesSigned(_signedBy(FIRST_TWO, digest), abi.encodeWithSelector(IRounds.BadQuorumSignature.selector, id));
    }

    function test_any_quorum_will_do() external {
        _toVerify(id);
        uint256 snapshot = vm.snapshotState();
        for (uint256 signers = 0; signers < 8; ++signers) {
            IRounds.Signed memory signed = _signedBy(signers, _verdictDigest(id, _transcript(), GOOD));
            uint256 found = signers.count();
            if (found < 2) _refuses(abi.encodeWithSelector(IRounds.TooFewVerifiers.selector, id, found, 2));
            _judge(id, GOOD, signed);
            vm.revertToState(snapshot);
            snapshot = vm.snapshotState();
        }
    }

    function test_what_was_signed_is_these_reasons_of_this_round_as_it_stands() external {
        _toVerify(id);
        bytes32 transcript = _transcript();
        _refusesDigest(_verdictDigest(id, transcript, hex"000011"));
        _refusesDigest(_verdictDigest(id + 1, transcript, GOOD));
        _refusesDigest(_verdictDigest(id, keccak256("another history"), GOOD));
        bytes32 told = _verdictDigest(id, transcript, GOOD);
        vm.chainId(block.chainid + 1);
        _refusesDigest(told);
        vm.chainId(block.chainid - 1);
        _judge(id, GOOD, _signedBy(FIRST_TWO, told));
    }

    function test_a_signature_under_another_tag_is_none() external {
        _toVerify(id);
        IRounds.Signed memory signed = _quorum(id, GOOD);
        uint256 secret = addmod(_secret(0), _secret(1), Verifiers.ORDER);
        signed.signature = Verifiers.sign(secret, _verdictDigest(id, _transcript(), GOOD), Bls.POSSESSION);
        _refusesSigned(signed, abi.encodeWithSelector(IRounds.BadQuorumSignature.selector, id));
    }

    function test_an_equivocation_after_signing_is_a_new_question() external {
        _toVerify(id);
        IRounds.Signed memory before = _quorum(id, GOOD);
        bytes memory right = hex"000003";
        IRounds.Signed memory early = _quorum(id, right);
        _submit(id, 2, keccak256("other"), id * 1000);
        _refuses(abi.encodeWithSelector(IRounds.BadVerdicts.selector, id, 2, 0));
        _judge(id, GOOD, before);
        _refuses(abi.encodeWithSelector(IRounds.BadQuorumSignature.selector, id));
        _judge(id, right, early);
        _judge(id, right);
    }

    function test_signers_are_seated_members_with_their_own_keys_in_order() external {
        _toVerify(id);
        IRounds.Signed memory signed = _quorum(id, GOOD);
        bytes memory first = Verifiers.keyOf(_secret(0));
        bytes memory second = Verifiers.keyOf(_secret(1));
        bytes memory why = abi.encodeWithSelector(IFederation.WrongKeys.selector, FIRST_TWO);
        signed.keys = bytes.concat(second, first);
        _refusesSigned(signed, why);
        signed.keys = bytes.concat(first, Verifiers.keyOf(_secret(2)));
        _refusesSigned(signed, why);
        signed.keys = bytes.concat(first, first);
        _refusesSigned(signed, why);
        signed.keys = first;
        _refusesSigned(signed, why);
        signed.keys = bytes.concat(first, second, first);
        _refusesSigned(signed, why);
        signed.keys = bytes.concat(first, second);
        signed.signers = 9; // member 3 does not exist
        _refusesSigned(signed, abi.encodeWithSelector(IRounds.NotVerifiers.selector, id, 9));
        signed.signers = FIRST_TWO;
        _judge(id, GOOD, signed);
    }

    function test_one_signature_counts_once() external {
        _toVerify(id);
        IRounds.Signed memory signed = _signedBy(1, _verdictDigest(id, _transcript(), GOOD));
        signed.signers = FIRST_TWO;
        signed.keys = bytes.concat(signed.keys, Verifiers.keyOf(_secret(1)));
        _refusesSigned(signed, abi.encodeWithSelector(IRounds.BadQuorumSignature.selector, id));
    }

    function test_a_member_without_a_key_verifies_nothing() external {
        _toFinal(id);
        uint8 member = _newcomer();
        IRounds.Policy memory policy = _policy();
        policy.quorum = 3;
        id = _open(policy);
        _toVerify4(member);
        bytes memory reasons = hex"00000001";
        IRounds.Signed memory signed = _signedBy(9, _verdictDigest(id, _transcript(), reasons));
        _refuses(abi.encodeWithSelector(IFederation.WrongKeys.selector, 9));
        _judge(id, reasons, signed);
        _judge(id, reasons);
    }

    function _toVerify4(uint8 absent) private {
        for (uint8 member = 0; member < absent; ++member) {
            _commit(id, member);
        }
        _seal(id);
        for (uint8 member = 0; member < absent; ++member) {
            _submit(id, member);
        }
        _seal(id);
    }

    /// @dev Two who conspire can choose keys that cancel; a sum at infinity would fit every signature at infinity.
    function test_keys_that_cancel_sign_nothing() external {
        _toFinal(id);
        for (uint8 member = 0; member < 2; ++member) {
            uint256 secret = member == 0 ? 77 : Verifiers.ORDER - 77;
            bytes memory proof = _possession(secret, member);
            _registers(_owner(member), member, secret, proof);
        }
        id = _open();
        _toVerify(id);
        bytes memory keys = bytes.concat(Verifiers.keyOf(77), Verifiers.keyOf(Verifiers.ORDER - 77));
        IRounds.Signed memory signed = IRounds.Signed(FIRST_TWO, keys, new bytes(256));
        _refusesSigned(signed, abi.encodeWithSelector(IRounds.BadQuorumSignature.selector, id));
    }

    // ----------------------------------------------------------------------------------------------------------- dissent

    function _dissent(uint8 member, bytes memory reasons) private {
        vm.prank(_signer(member));
        rounds.dissent(id, reasons);
    }

    function test_dissent_is_kept_and_changes_nothing() external {
        _toPropose(id);
        _dissent(2, hex"001100");
        _propose(id, GOOD);
        _dissent(1, hex"000011");
        IRounds.Round memory r = rounds.getRound(id);
        vm.assertEq(r.dissented, 6, "members 1 and 2");
        vm.assertEq(r.accepted, 7, "all are still accepted");
        vm.roll(r.deadlineBlock + 1);
        _dissent(0, hex"110000");
        rounds.advance(id, "");
        _phaseIs(id, IRounds.Phase.Final);
    }

    function test_dissent_is_about_verdicts_that_were_posted() external {
        _toVerify(id);
        _refuses(abi.encodeWithSelector(IRounds.WrongPhase.selector, id, IRounds.Phase.Propose, IRounds.Phase.Verify));
        _dissent(0, hex"000011");
        _judge(id, GOOD);
        _propose(id, GOOD);
        vm.roll(rounds.getRound(id).deadlineBlock + 1);
        rounds.advance(id, "");
        _refuses(abi.encodeWithSelector(IRounds.WrongPhase.selector, id, IRounds.Phase.Propose, IRounds.Phase.Final));
        _dissent(0, hex"000011");
    }

    function test_dissent_is_a_seats_other_verdicts_once() external {
        _toPropose(id);
        _refuses(abi.encodeWithSelector(IRounds.NotSeated.selector, id, STRANGER));
        vm.prank(STRANGER);
        rounds.dissent(id, hex"000011");
        _refuses(abi.encodeWithSelector(IRounds.NoDissent.selector, id, 0));
        _dissent(0, GOOD);
        _refuses(abi.encodeWithSelector(IRounds.BadVerdicts.selector, id, 2, 0));
        _dissent(0, hex"0000");
        _refuses(abi.encodeWithSelector(IRounds.BadVerdicts.selector, id, 2, 4));
        _dissent(0, hex"000004");
        _dissent(0, hex"000011");
        _refuses(abi.encodeWithSelector(IRounds.AlreadyDissented.selector, id, 0));
        _dissent(0, hex"000012");
    }
}
