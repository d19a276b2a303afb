// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {IAccessControl} from "@openzeppelin/contracts/access/IAccessControl.sol";

import {Federation} from "../src/Federation.sol";
import {IFederation} from "../src/interfaces/IFederation.sol";
import {IRounds} from "../src/interfaces/IRounds.sol";
import {Scene} from "./Scene.sol";

/// @notice Who may join, leave, rotate and spend.
contract FederationTest is Scene {
    function _unauthorized(bytes32 role) private pure returns (bytes memory) {
        return abi.encodeWithSelector(IAccessControl.AccessControlUnauthorizedAccount.selector, STRANGER, role);
    }

    function _status(uint8 member) private view returns (uint256) {
        return uint256(federation.getMember(member).status);
    }

    // ------------------------------------------------------------------------------------------------------------- roles

    function test_needs_an_admin_and_a_coordinator() external {
        vm.expectRevert(IFederation.ZeroAddress.selector);
        new Federation(address(0), COORDINATOR);
        vm.expectRevert(IFederation.ZeroAddress.selector);
        new Federation(ADMIN, address(0));
    }

    function test_rounds_are_tied_once_and_by_the_admin_only() external {
        Federation fresh = new Federation(ADMIN, COORDINATOR);
        _refuses(_unauthorized(bytes32(0)));
        vm.prank(STRANGER);
        fresh.setRounds(address(rounds));
        vm.expectRevert(IFederation.ZeroAddress.selector);
        vm.prank(ADMIN);
        fresh.setRounds(address(0));
        vm.expectRevert(IFederation.RoundsAlreadySet.selector);
        vm.prank(ADMIN);
        federation.setRounds(STRANGER);
    }

    function test_only_the_coordinator_admits_and_names_aggregators() external {
        bytes32 role = federation.COORDINATOR_ROLE();
        _refuses(_unauthorized(role));
        vm.prank(STRANGER);
        federation.addMember(_owner(9), _signer(9), CAP);
        _refuses(_unauthorized(role));
        vm.prank(STRANGER);
        federation.setAggregators(new address[](0));
    }

    function test_only_rounds_seats_and_charges() external {
        bytes memory why = abi.encodeWithSelector(IFederation.NotRounds.selector, COORDINATOR);
        _refuses(why);
        vm.prank(COORDINATOR);
        federation.seatMembers();
        _refuses(why);
        vm.prank(COORDINATOR);
        federation.charge(0, 1);
    }

    // ---------------------------------------------------------------------------------------------- joining and leaving

    function test_a_member_is_pending_until_the_next_opening() external {
        vm.assertEq(_status(0), uint256(IFederation.Status.Pending), "before");
        uint64 id = _open();
        vm.assertEq(_status(0), uint256(IFederation.Status.Active), "after");
        _admit(3);
        vm.assertEq(rounds.getRound(id).seated, 7, "a running round does not change");
        vm.assertEq(federation.memberCount(), 4, "count");
    }

    function test_a_member_that_leaves_stays_to_the_end_of_the_round() external {
        uint64 id = _open();
        vm.prank(_owner(1));
        federation.removeMember(1);
        _toFinal(id);
        vm.assertEq(rounds.getRound(_open()).seated, 5, "members 0 and 2");
        vm.assertEq(_status(1), uint256(IFederation.Status.Gone), "gone");
    }

    function test_nobody_else_removes_a_member_and_nobody_twice() external {
        _refuses(abi.encodeWithSelector(IFederation.NotOwner.selector, 1, _owner(0)));
        vm.prank(_owner(0));
        federation.removeMember(1);
        vm.prank(COORDINATOR);
        federation.removeMember(1);
        _refuses(abi.encodeWithSelector(IFederation.NotLeavable.selector, 1, IFederation.Status.Leaving));
        vm.prank(_owner(1));
        federation.removeMember(1);
    }

    function test_a_member_that_left_before_it_was_seated_never_is() external {
        vm.prank(COORDINATOR);
        federation.removeMember(2);
        vm.assertEq(rounds.getRound(_open()).seated, 3, "members 0 and 1");
    }

    function test_unknown_member_has_a_name() external {
        _refuses(abi.encodeWithSelector(IFederation.UnknownMember.selector, 3));
        federation.getMember(3);
        _refuses(abi.encodeWithSelector(IFederation.UnknownMember.selector, 3));
        vm.prank(COORDINATOR);
        federation.removeMember(3);
    }

    function test_two_hundred_and_fifty_six_members_and_no_more() external {
        for (uint256 member = MEMBERS; member < 256; ++member) {
            _admit(uint8(member));
        }
        vm.expectRevert(IFederation.FederationFull.selector);
        vm.prank(COORDINATOR);
        federation.addMember(address(0xFF), address(0xFE), CAP);
        vm.assertEq(rounds.getRound(_open()).seated, type(uint256).max, "all of them have a seat");
    }

    // --------------------------------------------------------------------------------------------------------------- keys

    function test_a_key_signs_for_one_member_for_ever() external {
        bytes memory why = abi.encodeWithSelector(IFederation.SignerTaken.selector, _signer(0));
        _refuses(why);
        vm.prank(COORDINATOR);
        federation.addMember(_owner(9), _signer(0), CAP);
        _refuses(why);
        vm.prank(_owner(1));
        federation.rotateSigner(1, _signer(0));
        vm.prank(_owner(0));
        federation.rotateSigner(0, _signer(9));
        _open();
        _refuses(why);
        vm.prank(_owner(1));
        federation.rotateSigner(1, _signer(0));
        vm.prank(_owner(0));
        federation.rotateSigner(0, _signer(0));
        vm.assertEq(federation.memberOfSigner(_signer(9)), 1, "one plus member 0");
    }

    function test_owner_and_signer_are_apart_and_not_zero() external {
        address owner = address(0x77);
        _refuses(abi.encodeWithSelector(IFederation.SignerTaken.selector, owner));
        vm.prank(COORDINATOR);
        federation.addMember(owner, owner, CAP);
        vm.expectRevert(IFederation.ZeroAddress.selector);
        vm.prank(COORDINATOR);
        federation.addMember(owner, address(0), CAP);
        vm.expectRevert(IFederation.ZeroAddress.selector);
        vm.prank(COORDINATOR);
        federation.addMember(address(0), owner, CAP);
    }

    function test_a_rotated_key_works_from_the_next_opening() external {
        uint64 id = _open();
        address fresh = vm.addr(0xF00D);
        _refuses(abi.encodeWithSelector(IFederation.NotOwner.selector, 0, COORDINATOR));
        vm.prank(COORDINATOR);
        federation.rotateSigner(0, fresh);
        vm.prank(_owner(0));
        federation.rotateSigner(0, fresh);
        _refuses(abi.encodeWithSelector(IRounds.NotSeated.selector, id, fresh));
        vm.prank(fresh);
        rounds.commit(id, CONFIG, CONFIG);
        _toFinal(id);
        id = _open();
        vm.assertEq(rounds.seatOf(id, 0).signer, fresh, "the new key has the seat");
        vm.assertEq(federation.getMember(0).nextSigner, address(0), "and no rotation is under way");
        _refuses(abi.encodeWithSelector(IRounds.NotSeated.selector, id, _signer(0)));
        _commit(id, 0);
        vm.prank(fresh);
        rounds.commit(id, CONFIG, CONFIG);
    }

    // --------------------------------------------------------------------------------------------------------------- caps

    function test_the_owner_alone_sets_the_cap_and_not_below_what_is_spent() external {
        _refuses(abi.encodeWithSelector(IFederation.NotOwner.selector, 0, COORDINATOR));
        vm.prank(COORDINATOR);
        federation.setCap(0, CAP);
        vm.prank(address(rounds));
        federation.charge(0, 500);
        _refuses(abi.encodeWithSelector(IFederation.CapBelowSpent.selector, 0, 499, 500));
        vm.prank(_owner(0));
        federation.setCap(0, 499);
        vm.prank(_owner(0));
        federation.setCap(0, 500);
        vm.assertEq(federation.getMember(0).capMicro, 500, "cap");
    }

    /// @dev Whatever is charged in whatever order: spent never falls and never passes the cap.
    function testFuzz_charges_only_grow_up_to_the_cap(uint64[8] calldata charges) external {
        uint64 spent;
        for (uint256 i = 0; i < charges.length; ++i) {
            uint64 wanted = charges[i] % (2 * CAP);
            if (wanted > CAP) {
                _refuses(abi.encodeWithSelector(IFederation.OverCap.selector, 0, wanted, CAP));
            } else if (wanted < spent) {
                _refuses(abi.encodeWithSelector(IFederation.EpsilonDecreased.selector, 0, wanted, spent));
            } else {
                spent = wanted;
            }
            vm.prank(address(rounds));
            federation.charge(0, wanted);
            vm.assertEq(federation.getMember(0).spentMicro, spent, "spent");
        }
    }

    // -------------------------------------------------------------------------------------------------------- aggregators

    function test_aggregators_change_with_the_next_opening() external {
        uint64 id = _open();
        address[] memory order = new address[](1);
        order[0] = STRANGER;
        vm.prank(COORDINATOR);
        federation.setAggregators(order);
        vm.assertEq(federation.aggregatorRank(FIRST_AGGREGATOR), 1, "a running round keeps its aggregators");
        vm.assertEq(federation.aggregatorRank(STRANGER), 0, "not yet");
        _toFinal(id);
        _open();
        vm.assertEq(federation.aggregatorRank(STRANGER), 1, "now");
        vm.assertEq(federation.aggregatorRank(FIRST_AGGREGATOR), 0, "no longer");
        vm.assertEq(federation.aggregators().length, 1, "count");
    }

    function test_no_aggregator_is_nobody() external {
        vm.expectRevert(IFederation.ZeroAddress.selector);
        vm.prank(COORDINATOR);
        federation.setAggregators(new address[](1));
    }
}
