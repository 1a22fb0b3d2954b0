// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IParameters, Value} from "../src/interfaces/IParameters.sol";
import {Bound, Bounds, VALUES} from "../src/libraries/Bounds.sol";
import {Parameters} from "../src/Parameters.sol";
import {Timelock} from "../src/Timelock.sol";
import {Base} from "./Base.sol";

/// @notice Governance moves values within their bounds, and nobody else moves anything.
contract ParametersTest is Base {
    Parameters private parameters;
    address private governor = makeAddr("governor");
    address private treasury = makeAddr("treasury");
    address private fees = makeAddr("fees");

    function setUp() public {
        parameters = new Parameters(governor, treasury, fees, new uint256[](0));
    }

    function test_the_usual_values() public view {
        uint256[VALUES] memory usual = [
            uint256(200),
            500,
            500,
            2000,
            1000,
            1 days,
            7 days,
            14 days,
            72 hours,
            7 days,
            100_000e18,
            100,
            1000e18,
            10_000e18,
            100_000e18
        ];
        for (uint256 i = 0; i < VALUES; ++i) {
            assertEq(parameters.value(Value(i)), usual[i]);
        }
        assertEq(parameters.governor(), governor);
        assertEq(parameters.treasury(), treasury);
        assertEq(parameters.feeRecipient(), fees);
        assertEq(parameters.arbiter(), address(0));
    }

    function test_every_value_has_bounds_around_its_usual_one() public view {
        assertEq(uint256(type(Value).max) + 1, VALUES);
        for (uint256 i = 0; i < VALUES; ++i) {
            Bound memory bound_ = Bounds.forKey(Value(i));
            assertLe(bound_.min, bound_.usual);
            assertLe(bound_.usual, bound_.max);
            assertLe(bound_.max, type(uint128).max);
            (uint256 least, uint256 most) = parameters.bounds(Value(i));
            assertEq(least, bound_.min);
            assertEq(most, bound_.max);
        }
    }

    function test_a_deployment_can_say_otherwise() public {
        uint256[] memory values = usualValues();
        values[uint256(Value.DisputeWindow)] = 2;
        values[uint256(Value.UnbondingDelay)] = 3;
        Parameters demo = new Parameters(governor, treasury, fees, values);
        assertEq(demo.value(Value.DisputeWindow), 2);
        assertEq(demo.value(Value.UnbondingDelay), 3);
        assertEq(demo.value(Value.TierGold), 100_000e18);
    }

    function test_a_deployment_obeys_the_bounds() public {
        uint256[] memory values = usualValues();
        values[0] = 501;
        vm.expectRevert(abi.encodeWithSelector(IParameters.OutOfBounds.selector, Value.NetworkFee, 501, 0, 500));
        new Parameters(governor, treasury, fees, values);

        vm.expectRevert(abi.encodeWithSelector(IParameters.WrongCount.selector, 3, VALUES));
        new Parameters(governor, treasury, fees, new uint256[](3));
    }

    function test_a_deployment_fills_the_offices() public {
        vm.expectRevert(IParameters.NoAddress.selector);
        new Parameters(address(0), treasury, fees, new uint256[](0));
        vm.expectRevert(IParameters.NoAddress.selector);
        new Parameters(governor, address(0), fees, new uint256[](0));
        vm.expectRevert(IParameters.NoAddress.selector);
        new Parameters(governor, treasury, address(0), new uint256[](0));
    }

    /// Within its bounds a value is taken, unless it contradicts another; outside it never is.
    function testFuzz_a_value_is_set_within_its_bounds(uint256 which, uint256 present, bool inside) public {
        Value key = Value(which % VALUES);
        (uint256 min, uint256 max) = parameters.bounds(key);
        uint256 before = parameters.value(key);
        if (inside) present = bound(present, min, max);

        vm.prank(governor);
        try parameters.set(key, present) {
            assertTrue(min <= present && present <= max);
            assertEq(parameters.value(key), present);
            requireOrder();
        } catch (bytes memory reason) {
            bool outside = present < min || max < present;
            bytes4 expected = outside ? IParameters.OutOfBounds.selector : IParameters.OutOfOrder.selector;
            assertEq(bytes32(bytes4(reason)), bytes32(expected));
            assertEq(parameters.value(key), before);
        }
    }

    function test_values_that_contradict_each_other_are_refused() public {
        refuse(Value.SlashLeast, 501, Value.SlashMost, 500);
        refuse(Value.DisputeWindow, 14 days, Value.UnbondingDelay, 14 days);
        refuse(Value.TierBronze, 10_001e18, Value.TierSilver, 10_000e18);
        refuse(Value.TierSilver, 100_001e18, Value.TierGold, 100_000e18);
    }

    function testFuzz_strangers_change_nothing(address stranger) public {
        vm.assume(stranger != governor);
        bytes memory refusal = abi.encodeWithSelector(IParameters.NotGovernor.selector, stranger, governor);
        vm.startPrank(stranger);
        vm.expectRevert(refusal);
        parameters.set(Value.NetworkFee, 0);
        vm.expectRevert(refusal);
        parameters.setGovernor(stranger);
        vm.expectRevert(refusal);
        parameters.setArbiter(stranger);
        vm.expectRevert(refusal);
        parameters.setTreasury(stranger);
        vm.expectRevert(refusal);
        parameters.setFeeRecipient(stranger);
        vm.stopPrank();
    }

    function test_the_governor_fills_offices_and_hands_over() public {
        address heir = makeAddr("heir");
        vm.startPrank(governor);
        parameters.set(Value.NetworkFee, 100);
        vm.snapshotGasLastCall("Parameters", "set");
        parameters.setArbiter(heir);
        vm.snapshotGasLastCall("Parameters", "setArbiter");
        parameters.setTreasury(heir);
        vm.snapshotGasLastCall("Parameters", "setTreasury");
        parameters.setFeeRecipient(heir);
        vm.snapshotGasLastCall("Parameters", "setFeeRecipient");
        vm.expectRevert(IParameters.NoAddress.selector);
        parameters.setGovernor(address(0));
        parameters.setGovernor(heir);
        vm.snapshotGasLastCall("Parameters", "setGovernor");
        vm.stopPrank();

        assertEq(parameters.arbiter(), heir);
        assertEq(parameters.treasury(), heir);
        assertEq(parameters.feeRecipient(), heir);
        assertEq(parameters.governor(), heir);
        vm.expectRevert(abi.encodeWithSelector(IParameters.NotGovernor.selector, governor, heir));
        vm.prank(governor);
        parameters.setGovernor(governor);
        vm.prank(heir);
        parameters.setArbiter(address(0));
        assertEq(parameters.arbiter(), address(0));
    }

    function refuse(Value lower, uint256 low, Value upper, uint256 high) private {
        vm.startPrank(governor);
        parameters.set(upper, high);
        vm.expectRevert(abi.encodeWithSelector(IParameters.OutOfOrder.selector, lower, low, upper, high));
        parameters.set(lower, low);
        vm.stopPrank();
    }

    function requireOrder() private view {
        assertLe(parameters.value(Value.SlashLeast), parameters.value(Value.SlashMost));
        assertLt(parameters.value(Value.DisputeWindow), parameters.value(Value.UnbondingDelay));
        assertLe(parameters.value(Value.TierBronze), parameters.value(Value.TierSilver));
        assertLe(parameters.value(Value.TierSilver), parameters.value(Value.TierGold));
    }

    function usualValues() private pure returns (uint256[] memory values) {
        values = new uint256[](VALUES);
        for (uint256 i = 0; i < VALUES; ++i) {
            values[i] = Bounds.forKey(Value(i)).usual;
        }
    }
}

/// @notice Governance acts through the timelock: announced, delayed, executed once.
contract TimelockTest is Base {
    uint256 private constant DELAY = 2 days;

    address private admin = makeAddr("admin");
    Timelock private timelock;
    Parameters private parameters;

    function setUp() public {
        vm.warp(1_800_000_000);
        timelock = new Timelock(DELAY, admin);
        parameters = new Parameters(address(timelock), admin, admin, new uint256[](0));
    }

    function test_an_act_takes_effect_after_the_delay() public {
        bytes memory act = abi.encodeCall(parameters.set, (Value.NetworkFee, 100));
        vm.prank(admin);
        timelock.schedule(address(parameters), 0, act, 0, 0, DELAY);
        vm.snapshotGasLastCall("Timelock", "schedule");

        vm.expectRevert();
        vm.prank(admin);
        timelock.execute(address(parameters), 0, act, 0, 0);

        skip(DELAY);
        vm.expectRevert();
        timelock.execute(address(parameters), 0, act, 0, 0);

        vm.prank(admin);
        timelock.execute(address(parameters), 0, act, 0, 0);
        vm.snapshotGasLastCall("Timelock", "execute");
        assertEq(parameters.value(Value.NetworkFee), 100);
    }

    function test_the_admin_cannot_act_around_the_delay() public {
        vm.expectRevert(abi.encodeWithSelector(IParameters.NotGovernor.selector, admin, address(timelock)));
        vm.prank(admin);
        parameters.set(Value.NetworkFee, 100);

        // Nor hand out the roles: only the timelock itself is their admin.
        bytes32 proposer = timelock.PROPOSER_ROLE();
        assertFalse(timelock.hasRole(timelock.DEFAULT_ADMIN_ROLE(), admin));
        vm.expectRevert();
        vm.prank(admin);
        timelock.grantRole(proposer, admin);
    }

    function test_a_scheduled_act_can_be_cancelled() public {
        bytes memory act = abi.encodeCall(parameters.setGovernor, (admin));
        vm.prank(admin);
        timelock.schedule(address(parameters), 0, act, 0, 0, DELAY);
        bytes32 id = timelock.hashOperation(address(parameters), 0, act, 0, 0);
        vm.prank(admin);
        timelock.cancel(id);
        vm.snapshotGasLastCall("Timelock", "cancel");
        skip(DELAY);
        vm.expectRevert();
        vm.prank(admin);
        timelock.execute(address(parameters), 0, act, 0, 0);
    }

    function test_another_governance_takes_over_through_an_act() public {
        address senate = makeAddr("senate");
        bytes32 proposer = timelock.PROPOSER_ROLE();
        address[] memory targets = new address[](2);
        targets[0] = targets[1] = address(timelock);
        bytes[] memory acts = new bytes[](2);
        acts[0] = abi.encodeCall(timelock.grantRole, (proposer, senate));
        acts[1] = abi.encodeCall(timelock.revokeRole, (proposer, admin));
        vm.prank(admin);
        timelock.scheduleBatch(targets, new uint256[](2), acts, 0, 0, DELAY);
        skip(DELAY);
        vm.prank(admin);
        timelock.executeBatch(targets, new uint256[](2), acts, 0, 0);
        assertTrue(timelock.hasRole(proposer, senate));
        assertFalse(timelock.hasRole(proposer, admin));
    }
}
