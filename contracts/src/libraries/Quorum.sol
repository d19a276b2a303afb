// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IFederation} from "../interfaces/IFederation.sol";
import {IRounds} from "../interfaces/IRounds.sol";
import {Bits} from "./Bits.sol";

/// @title Verdicts are the verifiers': one aggregate signature of enough of them, over exactly what was judged
library Quorum {
    using Bits for uint256;

    bytes32 private constant VERDICTS_LABEL = keccak256("candor/verdicts/1");

    /// @notice What verifiers sign. `transcript` is the round's running hash when they judged, so that it pins config,
    /// seats, commitments, beacons, submissions, equivocations and proofs: whatever happens after it is a new question.
    function digest(uint64 id, bytes32 transcript, bytes calldata reasons) internal view returns (bytes32) {
        return keccak256(abi.encode(VERDICTS_LABEL, block.chainid, address(this), id, transcript, keccak256(reasons)));
    }

    /// @notice Reverts unless enough verifiers signed `reasons` over the round as it stands.
    function check(
        uint64 id,
        IRounds.Round storage r,
        IFederation federation,
        bytes calldata reasons,
        IRounds.Signed calldata signed
    ) internal view {
        uint256 found = signed.signers.count();
        uint8 needed = r.policy.verifierQuorum;
        require(found >= needed, IRounds.TooFewVerifiers(id, found, needed));
        require(signed.signers & ~r.seated == 0, IRounds.NotVerifiers(id, signed.signers));
        bytes32 told = digest(id, r.transcript, reasons);
        bool right = federation.signedBy(signed.signers, signed.keys, told, signed.signature);
        require(right, IRounds.BadQuorumSignature(id));
    }
}
