// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {Actors} from "./Actors.sol";
import {Vm} from "./Vm.sol";

/// @notice Random histories. What must hold after every call is checked by the actors themselves (Actors._look); what must
/// be *possible* from every state is tried here, on a copy of it.
contract InvariantsTest {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    Actors private actors;

    function setUp() external {
        vm.roll(1000);
        actors = new Actors();
        actors.setUp();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(actors);
    }

    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    function targetSelectors() external view returns (FuzzSelector[] memory targets) {
        bytes4[] memory all = new bytes4[](20);
        all[0] = Actors.open.selector;
        all[1] = Actors.commit.selector;
        all[2] = Actors.submit.selector;
        all[3] = Actors.prove.selector;
        all[4] = Actors.object.selector;
        all[5] = Actors.everybodyActs.selector;
        all[6] = Actors.judge.selector;
        all[7] = Actors.propose.selector;
        all[8] = Actors.advance.selector;
        all[9] = Actors.wait.selector;
        all[10] = Actors.waitForTheEnd.selector;
        all[11] = Actors.ownersDecide.selector;
        all[12] = Actors.comeAndGo.selector;
        // the ordinary course of things more often, so that histories get somewhere
        all[13] = Actors.everybodyActs.selector;
        all[14] = Actors.waitForTheEnd.selector;
        all[15] = Actors.advance.selector;
        all[16] = Actors.judge.selector;
        all[17] = Actors.propose.selector;
        all[18] = Actors.everybodyActs.selector;
        all[19] = Actors.dissent.selector;
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(actors), all);
    }

    /// @dev From any state that random actors reach, time and four calls of `advance` are enough.
    function invariant_every_round_can_reach_an_end() external {
        uint256 snapshot = vm.snapshotState();
        actors.wakeUpAfterTheLastPossibleBlock();
        vm.revertToState(snapshot);
    }

    /// @dev The actors can get everywhere: otherwise the invariants above would hold of nothing.
    function test_the_actors_reach_final_void_and_equivocation() external {
        actors.everybodyActs(type(uint256).max);
        actors.waitForTheEnd(0);
        actors.advance();
        actors.everybodyActs(type(uint256).max);
        actors.submit(1, 9, true);
        actors.waitForTheEnd(0);
        actors.advance();
        actors.judge(true, type(uint256).max, 0);
        actors.propose(true, true);
        actors.propose(true, false);
        actors.waitForTheEnd(0);
        actors.advance();
        vm.assertEq(actors.finals(), 1, "final");
        vm.assertEq(actors.equivocations(), 1, "equivocation");
        actors.open(1, true);
        actors.waitForTheEnd(0);
        actors.advance();
        vm.assertEq(actors.voids(), 1, "void");
    }

    /// @dev Shown with -vv: what the random histories did reach.
    function afterInvariant() external {
        emit Reached(actors.finals(), actors.voids(), actors.equivocations());
    }

    event Reached(uint256 finals, uint256 voids, uint256 equivocations);
}
