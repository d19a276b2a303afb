// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title BLS signatures on BLS12-381, keys in G1 and signatures in G2, over the precompiles of EIP-2537
/// @notice The proof-of-possession ciphersuite of draft-irtf-cfrg-bls-signature, message always one 32-byte digest;
/// hash-to-curve is RFC 9380's BLS12381G2_XMD:SHA-256_SSWU_RO_. Points are EIP-2537's: a key is x ‖ y, a signature
/// x.c0 ‖ x.c1 ‖ y.c0 ‖ y.c1, each coordinate 64 bytes, infinity all zeros.
///
/// What the precompiles do not do by themselves:
/// - Where there are none, the call succeeds with empty output: the size of every answer is checked (NoPrecompile).
/// - One that fails burns all the gas that it was given: each gets a few times its price of today, and no more.
/// - G1ADD takes points outside the subgroup: here it only ever adds keys that PAIRING has seen when they registered.
/// - PAIRING takes infinity: a key at infinity, which every signature at infinity would fit, is refused here.
library Bls {
    uint256 internal constant KEY_BYTES = 128;
    uint256 internal constant SIGNATURE_BYTES = 256;
    bytes internal constant SIGNATURE = "BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_";
    bytes internal constant POSSESSION = "BLS_POP_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_";

    address private constant MODEXP = address(0x05);
    address private constant G1_ADD = address(0x0b);
    address private constant G2_ADD = address(0x0d);
    address private constant PAIRING = address(0x0f);
    address private constant MAP_FP2_TO_G2 = address(0x11);

    /// @dev The field's modulus as 64 bytes.
    bytes32 private constant P_HIGH = 0x000000000000000000000000000000001a0111ea397fe69a4b1ba7b6434bacd7;
    bytes32 private constant P_LOW = 0x64774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab;
    bytes private constant NEGATED_GENERATOR = hex"0000000000000000000000000000000017f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac58"
        hex"6c55e83ff97a1aeffb3af00adb22c6bb00000000000000000000000000000000114d1d6855d545a8aa7d76c8cf2e21f2"
        hex"67816aef1db507c96655b9d5caac42364e6f38ba0ecb751bad54dcd6b939c2ca";

    /// @notice This chain has no such precompile.
    error NoPrecompile(address precompile);

    /// @notice Did `key` sign `digest`? False for whatever is malformed, at infinity or outside its subgroup.
    function verify(bytes memory key, bytes32 digest, bytes memory tag, bytes memory signature)
        internal
        view
        returns (bool)
    {
        if (key.length != KEY_BYTES || signature.length != SIGNATURE_BYTES || _isInfinity(key)) return false;
        // e(key, H(digest)) · e(-G, signature) = 1
        bytes memory pairs = bytes.concat(key, hashToG2(bytes.concat(digest), tag), NEGATED_GENERATOR, signature);
        (bool taken, bytes memory answer) = _run(PAIRING, pairs, 32, 400_000);
        return taken && uint256(bytes32(answer)) == 1;
    }

    /// @notice The sum of one or more registered keys.
    function sum(bytes calldata keys) internal view returns (bytes memory total) {
        total = keys[:KEY_BYTES];
        for (uint256 i = KEY_BYTES; i < keys.length; i += KEY_BYTES) {
            (, total) = _run(G1_ADD, bytes.concat(total, keys[i:i + KEY_BYTES]), KEY_BYTES, 10_000);
        }
    }

    /// @notice hash_to_curve of RFC 9380 section 3 with `tag` (at most 255 bytes) as its domain separation tag.
    function hashToG2(bytes memory message, bytes memory tag) internal view returns (bytes memory point) {
        bytes32[8] memory uniform = _expand(message, bytes.concat(tag, bytes1(uint8(tag.length))));
        bytes memory first = bytes.concat(_reduce(uniform[0], uniform[1]), _reduce(uniform[2], uniform[3]));
        bytes memory second = bytes.concat(_reduce(uniform[4], uniform[5]), _reduce(uniform[6], uniform[7]));
        (, first) = _run(MAP_FP2_TO_G2, first, SIGNATURE_BYTES, 100_000);
        (, second) = _run(MAP_FP2_TO_G2, second, SIGNATURE_BYTES, 100_000);
        (, point) = _run(G2_ADD, bytes.concat(first, second), SIGNATURE_BYTES, 10_000);
    }

    /// @dev expand_message_xmd of RFC 9380 section 5.3.1 with SHA-256, to 256 bytes.
    function _expand(bytes memory message, bytes memory tag) private pure returns (bytes32[8] memory uniform) {
        bytes32 zero = sha256(bytes.concat(bytes32(0), bytes32(0), message, bytes3(0x010000), tag));
        uniform[0] = sha256(bytes.concat(zero, bytes1(0x01), tag));
        for (uint256 i = 1; i < 8; ++i) {
            uniform[i] = sha256(bytes.concat(zero ^ uniform[i - 1], bytes1(uint8(i + 1)), tag));
        }
    }

    /// @dev 64 bytes, taken as an integer, modulo p; as 64 bytes.
    function _reduce(bytes32 high, bytes32 low) private view returns (bytes memory reduced) {
        bytes memory sizes = bytes.concat(bytes32(uint256(64)), bytes32(uint256(1)), bytes32(uint256(64)));
        (, reduced) = _run(MODEXP, bytes.concat(sizes, high, low, bytes1(0x01), P_HIGH, P_LOW), 64, 10_000);
    }

    function _isInfinity(bytes memory key) private pure returns (bool) {
        (uint256 a, uint256 b, uint256 c, uint256 d) = abi.decode(key, (uint256, uint256, uint256, uint256));
        return a | b | c | d == 0;
    }

    /// @dev `taken` is false, and the answer empty, where the precompile refused its input.
    function _run(address precompile, bytes memory input, uint256 size, uint256 gasCap)
        private
        view
        returns (bool taken, bytes memory answer)
    {
        (taken, answer) = precompile.staticcall{gas: gasCap}(input);
        require(!taken || answer.length == size, NoPrecompile(precompile));
    }
}
