// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {BEACON_DELAY, IRounds} from "../src/interfaces/IRounds.sol";
import {Scene} from "./Scene.sol";
import {Verifiers} from "./Verifiers.sol";

/// @notice What each transaction costs, all included (`isolate`: every call is a transaction of its own).
/// @dev snapshots/Gas.json is compared by `build.py test`, and rewritten by `build.py snapshot`.
contract GasTest is Scene {
    string private constant GROUP = "Gas";

    function _paid(string memory what) private {
        vm.snapshotGasLastCall(GROUP, what);
    }

    function _sealPaid(uint64 id, string memory what) private {
        uint64 end = _end(id);
        vm.roll(end + BEACON_DELAY + 1);
        bytes memory header = _header(end + BEACON_DELAY);
        rounds.advance(id, header);
        _paid(what);
    }

    /// @dev The second round of three members with proofs: slots that every round uses again are no longer zero.
    function test_gas_of_a_round_of_three() external {
        _toFinal(_open());
        uint64 id = _open(_provingPolicy());
        _paid("01 open, 3 members");
        _commit(id, 0);
        _paid("02 commit, first");
        _commit(id, 1);
        _paid("03 commit, next");
        _commit(id, 2);
        _paid("04 commit, last");
        _sealPaid(id, "05 advance, Commit to Train");
        _submit(id, 0);
        _paid("06 submit, first");
        _submit(id, 1);
        _paid("07 submit, next");
        _submit(id, 1);
        _paid("08 submit, the same again");
        _submit(id, 2);
        _paid("09 submit, last");
        _sealPaid(id, "10 advance, Train to Prove");
        _prove(id, 0);
        _paid("11 prove, first");
        _prove(id, 1);
        _paid("12 prove, next");
        _prove(id, 2);
        _paid("13 prove, last");
        _judge(id, hex"000011");
        _paid("14 postVerdicts, 3 members");
        vm.prank(_signer(2));
        rounds.dissent(id, hex"000000");
        _paid("27 dissent");
        _propose(id, hex"000011");
        _paid("15 propose, 3 members");
        _object(id, 1);
        _paid("16 object");
        vm.roll(_end(id) + 1);
        rounds.advance(id, "");
        _paid("17 advance, Proposed to Final");
    }

    function test_gas_of_an_equivocation() external {
        uint64 id = _open();
        _toTrain(id);
        _submit(id, 0);
        _submit(id, 0, keccak256("other"), 1000);
        _paid("18 submit, equivocation");
    }

    function test_gas_of_a_round_of_sixty_four() external {
        for (uint8 member = MEMBERS; member < 64; ++member) {
            _admit(member);
        }
        IRounds.Policy memory policy = _policy();
        policy.verifierQuorum = 43;
        uint64 id = _open(policy);
        _paid("19 open, 64 members for the first time");
        for (uint8 member = 0; member < 64; ++member) {
            _commit(id, member);
        }
        _seal(id);
        for (uint8 member = 0; member < 64; ++member) {
            _submit(id, member);
        }
        _seal(id);
        bytes memory reasons = new bytes(64);
        for (uint256 i = 0; i < 64; i += 5) {
            reasons[i] = 0x11;
        }
        _judge(id, reasons);
        _paid("20 postVerdicts, 64 members");
        _propose(id, reasons);
        _paid("21 propose, 64 members");
    }

    function test_gas_of_the_largest_opening() external {
        for (uint256 member = MEMBERS; member < 256; ++member) {
            _admit(uint8(member));
        }
        IRounds.Policy memory policy = _policy();
        vm.prank(COORDINATOR);
        rounds.open(CONFIG, GENESIS, policy);
        _paid("22 open, 256 members for the first time");
    }

    function test_gas_of_membership() external {
        vm.prank(COORDINATOR);
        federation.addMember(_owner(9), _signer(9), CAP);
        _paid("23 addMember");
        bytes memory key = Verifiers.keyOf(_secret(9));
        bytes memory proof = _possession(_secret(9), 3);
        vm.prank(_signer(9));
        federation.registerVerifier(3, key, proof);
        _paid("26 registerVerifier");
        vm.prank(_owner(0));
        federation.rotateSigner(0, _signer(8));
        _paid("24 rotateSigner");
        vm.prank(_owner(0));
        federation.setCap(0, CAP + 1);
        _paid("25 setCap");
    }
}
