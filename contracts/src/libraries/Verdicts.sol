// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IRounds} from "../interfaces/IRounds.sol";
import {Bits} from "./Bits.sol";
import {Merkle} from "./Merkle.sol";
import {Reasons} from "./Reasons.sol";

/// @title One byte per seat, in seat order: who is in the average, and why the others are not
library Verdicts {
    using Bits for uint256;

    /// @notice The members with reason 0, after every byte was held against what the contract itself knows.
    function accepted(uint64 id, IRounds.Round storage r, bytes calldata reasons) internal view returns (uint256 set) {
        uint256 seated = r.seated;
        require(reasons.length == seated.count(), IRounds.BadVerdicts(id, reasons.length, 0));
        uint256 seat;
        for (uint256 i = 0; i < 256 && seated >> i != 0; ++i) {
            uint8 member = uint8(i);
            if (!seated.has(member)) continue;
            uint8 found = uint8(reasons[seat]);
            require(_fits(found, known(r, member)), IRounds.BadVerdicts(id, seat, found));
            if (found == Reasons.ACCEPTED) set = set.with(member);
            ++seat;
        }
    }

    /// @notice The first reason against the member that follows from the chain alone, or ACCEPTED.
    function known(IRounds.Round storage r, uint8 member) internal view returns (uint8) {
        if (!r.committed.has(member)) return Reasons.NOT_COMMITTED;
        if (!r.submitted.has(member)) return Reasons.NOT_SUBMITTED;
        if (r.equivocated.has(member)) return Reasons.EQUIVOCATED;
        if (r.policy.proofRequired && !r.proved.has(member)) return Reasons.NOT_PROVED;
        return Reasons.ACCEPTED;
    }

    /// @notice Roots over the included and the excluded, with the leaves of Merkle.sol.
    function roots(uint256 seated, bytes memory reasons, mapping(uint8 member => bytes32) storage bundles)
        internal
        view
        returns (bytes32 included, bytes32 excluded)
    {
        bytes32[] memory inLeaves = new bytes32[](reasons.length);
        bytes32[] memory outLeaves = new bytes32[](reasons.length);
        uint256 ins;
        uint256 outs;
        for (uint256 i = 0; i < 256 && seated >> i != 0; ++i) {
            uint8 member = uint8(i);
            if (!seated.has(member)) continue;
            uint8 reason = uint8(reasons[ins + outs]);
            if (reason == Reasons.ACCEPTED) inLeaves[ins++] = Merkle.includedLeaf(member, bundles[member]);
            else outLeaves[outs++] = Merkle.excludedLeaf(member, reason);
        }
        return (Merkle.root(inLeaves, ins), Merkle.root(outLeaves, outs));
    }

    function _fits(uint8 found, uint8 known_) private pure returns (bool) {
        if (known_ != Reasons.ACCEPTED) return found == known_;
        return found == Reasons.ACCEPTED || found >= Reasons.FIRST_OFF_CHAIN;
    }
}
