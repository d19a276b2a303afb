// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.30;

import {LogActors} from "./LogActors.sol";
import {Vm} from "./Vm.sol";

/// @notice Random histories of two servers that cheat. That a log only grows, and that no accepted checkpoint contradicts an
/// earlier one, is checked by the actors with every checkpoint that is taken.
contract LogInvariantsTest {
    Vm private constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    LogActors private actors;

    function setUp() external {
        vm.roll(1000);
        actors = new LogActors();
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
        bytes4[] memory all = new bytes4[](9);
        all[0] = LogActors.offer.selector;
        all[1] = LogActors.fork.selector;
        all[2] = LogActors.receive_.selector;
        all[3] = LogActors.report.selector;
        all[4] = LogActors.answer.selector;
        all[5] = LogActors.wait.selector;
        all[6] = LogActors.offer.selector;
        all[7] = LogActors.report.selector;
        all[8] = LogActors.answer.selector;
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(actors), all);
    }

    function invariant_evidence_is_for_ever_and_counted() external {
        actors.look();
    }

    /// @dev The actors can get everywhere: otherwise the invariants would hold of nothing.
    function test_the_actors_reach_growth_refusal_answer_omission_and_fork() external {
        actors.offer(0, 8, 0, 0, false);
        actors.offer(0, 5, 2, 0, true);
        actors.offer(0, 5, 0, 0, false);
        vm.assertEq(actors.accepted(), 2, "accepted");
        vm.assertEq(actors.refused(), 1, "refused");
        actors.receive_(0, 3, 0, false);
        actors.receive_(0, 3, 0, true);
        actors.wait(1);
        actors.report(0);
        actors.report(1);
        actors.answer(0);
        actors.answer(1);
        for (uint256 i = 0; i < 3; ++i) {
            actors.look();
            actors.wait(39);
        }
        actors.look();
        vm.assertEq(actors.answered(), 1, "answered");
        vm.assertEq(actors.omitted(), 1, "omitted");
        actors.fork(0, 4);
        vm.assertEq(actors.forks(), 1, "fork");
    }

    function afterInvariant() external {
        actors.look();
        emit Reached(actors.accepted(), actors.refused(), actors.answered(), actors.omitted(), actors.forks());
    }

    event Reached(uint256 accepted, uint256 refused, uint256 answered, uint256 omitted, uint256 forks);
}
