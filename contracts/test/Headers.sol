// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @notice Builds RLP headers as after Prague: 21 fields, of which number and mixHash are the caller's.
library Headers {
    function build(uint256 number, bytes32 mixHash) internal pure returns (bytes memory) {
        bytes memory head = bytes.concat(word("parent"), word("ommers"), string_(abi.encodePacked(address(0xC0FFEE))));
        head = bytes.concat(head, word("state"), word("transactions"), word("receipts"), string_(new bytes(256)));
        head = bytes.concat(head, integer(0), integer(number)); // difficulty, number
        head = bytes.concat(head, integer(30_000_000), integer(21_000), integer(1_790_000_000)); // gas, time
        bytes memory tail = bytes.concat(string_("candor"), word(mixHash), string_(new bytes(8))); // extra, mix, nonce
        tail = bytes.concat(tail, integer(1_000_000_000), word("withdrawals"), integer(0), integer(0)); // fee, blobs
        tail = bytes.concat(tail, word("beacon root"), word("requests"));
        return list(head, tail);
    }

    function list(bytes memory head, bytes memory tail) internal pure returns (bytes memory) {
        return bytes.concat(prefix(0xc0, head.length + tail.length), head, tail);
    }

    function word(bytes32 value) internal pure returns (bytes memory) {
        return string_(abi.encodePacked(value));
    }

    function integer(uint256 value) internal pure returns (bytes memory) {
        return string_(bigEndian(value));
    }

    function string_(bytes memory data) internal pure returns (bytes memory) {
        if (data.length == 1 && uint8(data[0]) < 0x80) return data;
        return bytes.concat(prefix(0x80, data.length), data);
    }

    function prefix(uint8 base, uint256 length) internal pure returns (bytes memory) {
        if (length <= 55) return abi.encodePacked(base + uint8(length));
        bytes memory size = bigEndian(length);
        return bytes.concat(abi.encodePacked(base + 55 + uint8(size.length)), size);
    }

    function bigEndian(uint256 value) internal pure returns (bytes memory data) {
        for (; value != 0; value >>= 8) {
            data = bytes.concat(bytes1(uint8(value)), data);
        }
    }
}
