// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IFederation} from "../src/interfaces/IFederation.sol";
import {IRounds} from "../src/interfaces/IRounds.sol";
import {Scene} from "./Scene.sol";
import {Vm} from "./Vm.sol";

/// @notice The running hash, recomputed from nothing but the logs.
contract TranscriptTest is Scene {
    function _linked(bytes32 before, bytes32 topic0, bytes memory fields) private pure returns (bytes32) {
        return keccak256(bytes.concat(before, topic0, keccak256(fields)));
    }

    /// @dev All fields of `log` but the transcript, ABI-encoded in order, and the transcript that it carries.
    function _fields(Vm.Log memory log) private pure returns (bytes memory fields, bytes32 carried) {
        bytes32 t = log.topics[0];
        bytes32 a = log.topics[1];
        bytes memory d = log.data;
        if (t == IRounds.RoundOpened.selector) return _opened(a, d);
        if (t == IRounds.Submitted.selector || t == IRounds.Equivocation.selector) {
            bytes32 bundle;
            uint64 spent;
            bytes memory signature;
            (bundle, spent, signature, carried) = abi.decode(d, (bytes32, uint64, bytes, bytes32));
            return (abi.encode(a, log.topics[2], bundle, spent, signature), carried);
        }
        if (t == IRounds.VerdictsPosted.selector) {
            uint256 accepted;
            bytes memory reasons;
            IRounds.Signed memory signed;
            (accepted, reasons, signed, carried) = abi.decode(d, (uint256, bytes, IRounds.Signed, bytes32));
            return (abi.encode(a, log.topics[2], accepted, reasons, signed), carried);
        }
        if (t == IRounds.Dissented.selector) {
            bytes memory reasons;
            (reasons, carried) = abi.decode(d, (bytes, bytes32));
            return (abi.encode(a, log.topics[2], reasons), carried);
        }
        // the others have only static fields: the data as they are, without the last word
        return _static(log.topics, d);
    }

    function _opened(bytes32 id, bytes memory d) private pure returns (bytes memory, bytes32) {
        (bytes32 config, bytes32 bundle, IRounds.Policy memory policy, IFederation.Seat[] memory seats, bytes32 last) =
            abi.decode(d, (bytes32, bytes32, IRounds.Policy, IFederation.Seat[], bytes32));
        return (abi.encode(id, config, bundle, policy, seats), last);
    }

    function _static(bytes32[] memory topics, bytes memory d) private pure returns (bytes memory fields, bytes32 last) {
        for (uint256 i = 1; i < topics.length; ++i) {
            fields = bytes.concat(fields, topics[i]);
        }
        for (uint256 offset = 32; offset <= d.length; offset += 32) {
            if (offset > 32) fields = bytes.concat(fields, last);
            assembly ("memory-safe") {
                last := mload(add(d, offset))
            }
        }
    }

    /// @dev Recomputes the chain over all logs of Rounds; returns its end and the number of events.
    function _replay() private returns (bytes32 transcript, uint256 events) {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].emitter != address(rounds)) continue;
            (bytes memory fields, bytes32 carried) = _fields(logs[i]);
            transcript = _linked(transcript, logs[i].topics[0], fields);
            vm.assertEq(transcript, carried, "the event carries the running hash");
            ++events;
        }
    }

    function _expect(uint64 id, uint256 expected) private {
        (bytes32 transcript, uint256 events) = _replay();
        vm.assertEq(events, expected, "events");
        vm.assertEq(rounds.getRound(id).transcript, transcript, "and storage keeps it");
    }

    function test_a_final_round() external {
        vm.recordLogs();
        uint64 id = _open(_provingPolicy());
        _toVerify(id);
        for (uint8 member = 0; member < MEMBERS; ++member) {
            _prove(id, member);
        }
        _judge(id, hex"000000");
        vm.prank(_signer(2));
        rounds.dissent(id, hex"001100");
        _propose(id, hex"000000");
        _object(id, 1);
        vm.roll(_end(id) + 1);
        rounds.advance(id, "");
        _expect(id, 1 + 3 + 1 + 3 + 1 + 3 + 1 + 1 + 1 + 1 + 1);
    }

    function test_a_void_round_with_an_equivocator() external {
        vm.recordLogs();
        uint64 id = _open();
        _toTrain(id);
        _submit(id, 0);
        _submit(id, 0, keccak256("other"), 2);
        vm.roll(_end(id) + 1);
        rounds.advance(id, "");
        _expect(id, 1 + 3 + 1 + 1 + 1 + 1);
    }

    function test_every_round_starts_anew() external {
        uint64 id = _open();
        _toFinal(id);
        vm.recordLogs();
        id = _open();
        _commit(id, 2);
        _expect(id, 2);
    }
}
