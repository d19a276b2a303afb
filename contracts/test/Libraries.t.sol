// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Bits} from "../src/libraries/Bits.sol";
import {Header} from "../src/libraries/Header.sol";
import {Merkle} from "../src/libraries/Merkle.sol";
import {Headers} from "./Headers.sol";
import {Scene} from "./Scene.sol";

/// @notice Libraries are reached through this, so that calldata is calldata and a revert is a revert.
contract LibraryDoor {
    function read(bytes calldata header) external pure returns (uint256 number, bytes32 mixHash) {
        return Header.read(header);
    }

    function root(bytes32[] memory hashes) external pure returns (bytes32) {
        return Merkle.root(hashes, hashes.length);
    }
}

contract LibrariesTest is Scene {
    using Bits for uint256;

    // ---------------------------------------------------------------------------------------------------------- real header
    // block 301 of a fresh anvil 1.7.1 (chain 31337), with its hash as the node gave it
    bytes private constant REAL_HEADER = hex"f9025fa0f6324fa8ed8f0a78920bbaa2d31037a21b49f17599d32c6baea6032759544b1fa01dcc4de8dec75d7aab85b567b6"
        hex"ccd41ad312451b948a7413f0a142fd40d49347940000000000000000000000000000000000000000a077c3e6a93618637d79"
        hex"a0ed2cd57aa85a5d3ac7f561dc47fccadc0f85fc337fd9a0dfeb5e39931b89c7e57e51224616c7ee9d2a62f30b4872cef5db"
        hex"1463a27008cca0f78dfb743fbd92ade140711c8bbc542b5e307f0ab7984eff35d751969fe57efab901000000000000000000"
        hex"0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
        hex"0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
        hex"0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
        hex"0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
        hex"0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000008082"
        hex"012d8401c9c380825208846b04b4d880a0665fe1ef211ee0613791184d16c6cd1eed834729ecd4c4b31a6f78fd70d320c788"
        hex"000000000000000007a056e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b4218080a00000000000"
        hex"000000000000000000000000000000000000000000000000000000a0e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b"
        hex"934ca495991b7852b855";
    bytes32 private constant REAL_HASH = 0x56f2fa7687995fde817eb5b6602e1ee56c908020b20e1d477cf919a4fcd19dcf;
    bytes32 private constant REAL_MIX_HASH = 0x665fe1ef211ee0613791184d16c6cd1eed834729ecd4c4b31a6f78fd70d320c7;
    uint256 private constant REAL_NUMBER = 301;

    LibraryDoor private door;

    function setUp() public override {
        door = new LibraryDoor();
    }

    // -------------------------------------------------------------------------------------------------------------- headers

    function test_a_header_from_a_real_node() external view {
        vm.assertEq(keccak256(REAL_HEADER), REAL_HASH, "its keccak is the block's hash");
        (uint256 number, bytes32 mixHash) = door.read(REAL_HEADER);
        vm.assertEq(number, REAL_NUMBER, "number");
        vm.assertEq(mixHash, REAL_MIX_HASH, "mixHash");
    }

    function testFuzz_any_number_and_mix_hash(uint256 number, bytes32 mixHash) external view {
        (uint256 readNumber, bytes32 readMixHash) = door.read(Headers.build(number, mixHash));
        vm.assertEq(readNumber, number, "number");
        vm.assertEq(readMixHash, mixHash, "mixHash");
    }

    function test_what_is_no_header_is_malformed() external {
        bytes memory header = Headers.build(7, bytes32(uint256(1)));
        _malformed("");
        _malformed(hex"80"); // a string
        _malformed(hex"c0"); // an empty list
        _malformed(hex"f9"); // a length that is not there
        _malformed(hex"ffffffffffffffffff"); // a length beyond all bounds
        _malformed(hex"c9bfffffffffffffffff"); // a string whose length would overflow
        _malformed(bytes.concat(header, hex"00")); // something behind the list
        _malformed(_cut(header, 1)); // something missing from it
        _malformed(Headers.list(_repeat(Headers.word("x"), 13), Headers.string_("short mix"))); // wrong size
        _malformed(Headers.list(_repeat(Headers.word("x"), 13), Headers.string_(new bytes(40)))); // too long
        _malformed(Headers.string_(_repeat(Headers.word("x"), 15))); // all that a header has, in a string
        _malformed(Headers.list(_repeat(Headers.word("x"), 13), "")); // thirteen items
        _malformed(Headers.list(_repeat(Headers.word("x"), 13), hex"a0")); // mixHash announced and not there
        _malformed(Headers.list(_repeat(Headers.string_(new bytes(33)), 14), "")); // a number of 33 bytes
    }

    function _malformed(bytes memory header) private {
        vm.expectRevert(Header.Malformed.selector);
        door.read(header);
    }

    /// @dev Whatever bytes come in, the answer is a value or Malformed: never a panic, never out of bounds.
    function testFuzz_garbage_is_malformed_or_read(bytes calldata garbage) external view {
        bytes memory inside = garbage.length > 2000 ? garbage[:2000] : garbage;
        _valueOrMalformed(inside);
        _valueOrMalformed(Headers.list(inside, ""));
        _valueOrMalformed(Headers.list(_repeat(Headers.word("x"), 8), inside));
    }

    function _valueOrMalformed(bytes memory header) private view {
        try door.read(header) {}
        catch (bytes memory why) {
            vm.assertEq(bytes32(bytes4(why)), bytes32(Header.Malformed.selector), "Malformed");
        }
    }

    function _cut(bytes memory data, uint256 bytes_) private pure returns (bytes memory shorter) {
        shorter = new bytes(data.length - bytes_);
        for (uint256 i = 0; i < shorter.length; ++i) {
            shorter[i] = data[i];
        }
    }

    function _repeat(bytes memory item, uint256 times) private pure returns (bytes memory items) {
        for (uint256 i = 0; i < times; ++i) {
            items = bytes.concat(items, item);
        }
    }

    // ---------------------------------------------------------------------------------------------------------------- trees

    /// @dev The vectors of the Certificate Transparency project's reference implementation (its eight test leaves).
    function test_the_roots_of_certificate_transparency() external view {
        bytes[] memory leaves = new bytes[](8);
        leaves[0] = "";
        leaves[1] = hex"00";
        leaves[2] = hex"10";
        leaves[3] = hex"2021";
        leaves[4] = hex"3031";
        leaves[5] = hex"40414243";
        leaves[6] = hex"5051525354555657";
        leaves[7] = hex"606162636465666768696a6b6c6d6e6f";
        vm.assertEq(_rootOf(leaves, 0), NO_LEAF, "0");
        vm.assertEq(_rootOf(leaves, 1), 0x6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d, "1");
        vm.assertEq(_rootOf(leaves, 2), 0xfac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125, "2");
        vm.assertEq(_rootOf(leaves, 3), 0xaeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77, "3");
        vm.assertEq(_rootOf(leaves, 8), 0x5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328, "8");
    }

    function testFuzz_the_root_is_that_of_the_slow_twin(bytes32 seed, uint8 size) external view {
        bytes[] memory leaves = new bytes[](size % 70);
        for (uint256 i = 0; i < leaves.length; ++i) {
            leaves[i] = abi.encode(keccak256(abi.encode(seed, i)));
        }
        vm.assertEq(_rootOf(leaves, leaves.length), _treeHash(leaves, 0, leaves.length), "root");
    }

    function test_leaves_have_the_layout_that_everybody_agreed_on() external pure {
        bytes32 bundle = keccak256("bundle");
        vm.assertEq(Merkle.includedLeaf(7, bundle), sha256(bytes.concat(hex"0007", bundle)), "included");
        vm.assertEq(Merkle.excludedLeaf(7, 21), sha256(hex"000715"), "excluded");
    }

    function _rootOf(bytes[] memory leaves, uint256 size) private view returns (bytes32) {
        bytes32[] memory hashes = new bytes32[](size);
        for (uint256 i = 0; i < size; ++i) {
            hashes[i] = sha256(bytes.concat(hex"00", leaves[i]));
        }
        return door.root(hashes);
    }

    // ----------------------------------------------------------------------------------------------------------------- sets

    function testFuzz_a_set_holds_what_was_put_in(uint256 set, uint8 member) external pure {
        uint256 members;
        for (uint256 i = 0; i < 256; ++i) {
            members += (set >> i) & 1;
        }
        vm.assertEq(set.count(), members, "count");
        vm.assertTrue(set.with(member).has(member), "has");
        vm.assertEq(set.with(member).count(), members + (set.has(member) ? 0 : 1), "counted once");
    }
}
