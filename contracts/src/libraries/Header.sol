// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

/// @title The randomness in the header of a recent block
/// @notice A header is believed because its keccak256 is the block's hash, as the chain itself remembers it: BLOCKHASH for
/// the last 256 blocks, EIP-2935's history contract for the last 8191. What RLP reading remains is therefore minimal:
/// it walks over the first items of a list that is known to be a real header, and only refuses to leave its bounds.
library Header {
    address internal constant HISTORY = 0x0000F90827F1C53a10cb7A02335B175320002935;
    uint256 private constant NUMBER_ITEM = 8;
    uint256 private constant MIX_HASH_ITEM = 13;
    uint256 private constant MIX_HASH_PREFIX = 0xa0; // RLP: a string of 32 bytes

    error Malformed();

    /// @notice The hash of block `number`, or zero if this chain no longer (or not yet) remembers it.
    function hashOf(uint256 number) internal view returns (bytes32 found) {
        found = blockhash(number);
        if (found != 0 || number >= block.number) return found;
        (bool ok, bytes memory answer) = HISTORY.staticcall(abi.encode(number));
        // without EIP-2935 the address is empty, and the call succeeds with empty output
        if (ok && answer.length == 32) found = abi.decode(answer, (bytes32));
    }

    /// @notice Block number and mixHash (EIP-4399's prevrandao) of an RLP header. Reverts with Malformed.
    function read(bytes calldata header) internal pure returns (uint256 number, bytes32 mixHash) {
        (uint256 offset, uint256 end, bool isList) = _item(header, 0);
        require(isList && end == header.length, Malformed());
        for (uint256 i = 0; i < MIX_HASH_ITEM; ++i) {
            (uint256 start, uint256 next,) = _item(header, offset);
            if (i == NUMBER_ITEM) number = _integer(header[start:next]);
            offset = next;
        }
        require(offset + 33 <= header.length && uint8(header[offset]) == MIX_HASH_PREFIX, Malformed());
        mixHash = bytes32(header[offset + 1:offset + 33]);
    }

    /// @dev Payload bounds of the RLP item at `offset`: payload in [start, end), `end` being where the next item begins.
    function _item(bytes calldata data, uint256 offset) private pure returns (uint256 start, uint256 end, bool isList) {
        require(offset < data.length, Malformed());
        uint256 prefix = uint8(data[offset]);
        isList = prefix >= 0xc0;
        if (prefix < 0x80) return (offset, offset + 1, false);
        uint256 length = prefix - (isList ? 0xc0 : 0x80);
        start = offset + 1;
        if (length > 55) {
            uint256 width = length - 55;
            require(start + width <= data.length, Malformed());
            length = _integer(data[start:start + width]);
            start += width;
        }
        require(start + length <= data.length, Malformed()); // length has 8 bytes at most: no overflow
        end = start + length;
    }

    function _integer(bytes calldata data) private pure returns (uint256) {
        require(data.length <= 32, Malformed());
        return data.length == 0 ? 0 : uint256(bytes32(data)) >> (8 * (32 - data.length));
    }
}
