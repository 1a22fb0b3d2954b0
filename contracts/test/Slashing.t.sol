// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Value} from "../src/interfaces/IParameters.sol";
import {IProviders, Provider} from "../src/interfaces/IProviders.sol";
import {Unbonding} from "../src/libraries/Stakes.sol";
import {Staking} from "./Staking.sol";

/// @notice What a provider loses, to whom, and how it comes back.
contract SlashingTest is Staking {
    bytes32 private constant REASON = keccak256("verdict 1");

    address private immutable BUYER = makeAddr("buyer");
    uint256 private bronze;
    uint256 private limit;
    address private ada;
    address private operator;

    function setUp() public override {
        super.setUp();
        bronze = value(Value.TierBronze);
        limit = value(Value.AbsenceLimit);
        (ada, operator) = enrol("ada", 4 * bronze);
    }

    function test_a_verdict_burns_pays_the_challenger_and_jails() public {
        uint256 amount = share(4 * bronze, 1500);
        uint256 reward = share(amount, 1000);
        uint256 until = block.timestamp + value(Value.JailTime);
        uint256 supply = token.totalSupply();
        vm.expectEmit(address(providers));
        emit IProviders.Slashed(ada, BUYER, amount, reward, REASON);
        vm.expectEmit(address(providers));
        emit IProviders.Jailed(ada, until);
        vm.prank(ARBITER);
        providers.slash(ada, 1500, BUYER, REASON);
        vm.snapshotGasLastCall("Slashing", "slash");

        assertEq(token.balanceOf(BUYER), reward);
        assertEq(token.totalSupply(), supply - (amount - reward));
        assertEq(token.balanceOf(address(providers)), 4 * bronze - amount);
        Provider memory found = providers.provider(ada);
        assertEq(found.bonded, 4 * bronze - amount);
        assertEq(found.jailedUntil, until);
        assertFalse(providers.active(ada));
    }

    function test_without_a_challenger_everything_burns() public {
        uint256 supply = token.totalSupply();
        vm.prank(ARBITER);
        providers.slash(ada, 500, address(0), REASON);
        assertEq(token.totalSupply(), supply - share(4 * bronze, 500));
    }

    function test_slashing_reaches_what_is_on_its_way_out_even_when_due() public {
        vm.startPrank(ada);
        for (uint256 i = 0; i < 15; i++) {
            providers.unbond(uint128(bronze / 5));
        }
        skip(value(Value.UnbondingDelay));
        providers.unbond(uint128(bronze));
        vm.stopPrank();
        assertEq(providers.provider(ada).bonded, 0);

        vm.prank(ARBITER);
        providers.slash(ada, 2000, BUYER, REASON);
        vm.snapshotGasLastCall("Slashing", "slash, 16 unbonding");
        Unbonding[] memory queue = providers.unbondings(ada);
        for (uint256 i = 0; i < 15; i++) {
            assertEq(queue[i].amount, bronze / 5 * 8 / 10);
        }
        assertEq(queue[15].amount, bronze * 8 / 10);
        assertEq(providers.provider(ada).unbonding, 4 * bronze * 8 / 10);

        // In jail too, the rest can leave: nothing is locked.
        vm.prank(ada);
        assertEq(providers.withdraw(), 3 * bronze * 8 / 10);
        skip(value(Value.UnbondingDelay));
        vm.prank(ada);
        assertEq(providers.withdraw(), bronze * 8 / 10);
        assertEq(token.balanceOf(address(providers)), 0);
    }

    function test_only_the_arbiter_passes_verdicts_within_bounds() public {
        vm.expectRevert(abi.encodeWithSelector(IProviders.NotArbiter.selector, ada, ARBITER));
        vm.prank(ada);
        providers.slash(ada, 500, ada, REASON);

        vm.expectRevert(abi.encodeWithSelector(IProviders.SlashOutOfBounds.selector, 499, 500, 2000));
        vm.prank(ARBITER);
        providers.slash(ada, 499, BUYER, REASON);
        vm.expectRevert(abi.encodeWithSelector(IProviders.SlashOutOfBounds.selector, 2001, 500, 2000));
        vm.prank(ARBITER);
        providers.slash(ada, 2001, BUYER, REASON);
        vm.expectRevert(abi.encodeWithSelector(IProviders.NotRegistered.selector, BUYER));
        vm.prank(ARBITER);
        providers.slash(BUYER, 500, BUYER, REASON);

        parameters.setArbiter(address(0));
        vm.expectRevert(abi.encodeWithSelector(IProviders.NotArbiter.selector, ARBITER, address(0)));
        vm.prank(ARBITER);
        providers.slash(ada, 500, BUYER, REASON);
    }

    function test_a_verdict_on_an_empty_stake_still_jails() public {
        (address bob,) = enrol("bob");
        vm.prank(ARBITER);
        providers.slash(bob, 500, BUYER, REASON);
        assertEq(token.balanceOf(BUYER), 0);
        assertGt(providers.provider(bob).jailedUntil, block.timestamp);
    }

    function test_absence_slashes_the_least_and_jails_once() public {
        skip(limit);
        vm.expectRevert(abi.encodeWithSelector(IProviders.NotAbsent.selector, limit, limit));
        providers.reportAbsence(ada);

        skip(1);
        uint256 amount = share(4 * bronze, 500);
        uint256 reward = share(amount, 1000);
        vm.expectEmit(address(providers));
        emit IProviders.Slashed(ada, BUYER, amount, reward, "absence");
        vm.prank(BUYER);
        providers.reportAbsence(ada);
        vm.snapshotGasLastCall("Slashing", "reportAbsence");
        assertEq(token.balanceOf(BUYER), reward);

        uint256 until = block.timestamp + value(Value.JailTime);
        vm.expectRevert(abi.encodeWithSelector(IProviders.InJail.selector, ada, until));
        providers.reportAbsence(ada);

        // Silence in jail is none; after jail it begins anew.
        skip(30 days);
        vm.prank(ada);
        providers.unjail();
        vm.expectRevert(abi.encodeWithSelector(IProviders.NotAbsent.selector, 0, limit));
        providers.reportAbsence(ada);
        skip(limit + 1);
        providers.reportAbsence(ada);
        assertEq(providers.provider(ada).bonded, 4 * bronze - amount - share(4 * bronze - amount, 500));
    }

    function test_a_heartbeat_ends_the_absence() public {
        skip(limit + 1);
        vm.prank(operator);
        providers.heartbeat();
        vm.expectRevert(abi.encodeWithSelector(IProviders.NotAbsent.selector, 0, limit));
        providers.reportAbsence(ada);
    }

    function test_who_is_not_on_duty_cannot_be_absent() public {
        vm.prank(ada);
        providers.unbond(uint128(3 * bronze + 1));
        skip(limit + 1);
        vm.expectRevert(abi.encodeWithSelector(IProviders.StakeShort.selector, bronze - 1, bronze));
        providers.reportAbsence(ada);
    }

    function test_jail_is_left_after_its_time_with_enough_stake() public {
        vm.expectRevert(abi.encodeWithSelector(IProviders.NotInJail.selector, ada));
        vm.prank(ada);
        providers.unjail();

        vm.prank(ARBITER);
        providers.slash(ada, 2000, BUYER, REASON);
        uint256 until = providers.provider(ada).jailedUntil;
        vm.warp(until - 1);
        vm.expectRevert(abi.encodeWithSelector(IProviders.InJail.selector, ada, until));
        vm.prank(ada);
        providers.unjail();

        // Another verdict starts the time again.
        vm.prank(ARBITER);
        providers.slash(ada, 2000, BUYER, REASON);
        assertEq(providers.provider(ada).jailedUntil, until - 1 + value(Value.JailTime));
        vm.warp(providers.provider(ada).jailedUntil);

        uint256 bonded = providers.provider(ada).bonded;
        vm.prank(ada);
        providers.unbond(uint128(bonded - bronze + 1));
        vm.expectRevert(abi.encodeWithSelector(IProviders.StakeShort.selector, bronze - 1, bronze));
        vm.prank(ada);
        providers.unjail();

        fund(ada, 1);
        vm.prank(ada);
        providers.stake(1);
        assertFalse(providers.active(ada));
        vm.expectEmit(address(providers));
        emit IProviders.Unjailed(ada);
        vm.prank(ada);
        providers.unjail();
        vm.snapshotGasLastCall("Slashing", "unjail");
        assertTrue(providers.active(ada));
    }

    function testFuzz_a_slash_takes_its_share_of_every_part(uint128 bonded, uint128[4] memory parts, uint256 bps)
        public
    {
        (address bob,) = enrol("bob");
        bonded = uint128(bound(bonded, 1, 1e26));
        uint256 sum = bonded;
        for (uint256 i = 0; i < 4; i++) {
            parts[i] = uint128(bound(parts[i], 1, 1e26));
            sum += parts[i];
        }
        fund(bob, sum);
        vm.startPrank(bob);
        providers.stake(uint128(sum));
        for (uint256 i = 0; i < 4; i++) {
            providers.unbond(parts[i]);
        }
        vm.stopPrank();

        bps = bound(bps, 500, 2000);
        uint256 held = token.balanceOf(address(providers));
        uint256 supply = token.totalSupply();
        vm.prank(ARBITER);
        providers.slash(bob, bps, BUYER, REASON);

        uint256 taken = share(bonded, bps);
        Unbonding[] memory queue = providers.unbondings(bob);
        for (uint256 i = 0; i < 4; i++) {
            assertEq(queue[i].amount, parts[i] - share(parts[i], bps));
            taken += share(parts[i], bps);
        }
        assertEq(providers.provider(bob).bonded, bonded - share(bonded, bps));
        assertEq(providers.provider(bob).unbonding, sum - bonded - (taken - share(bonded, bps)));
        assertEq(held - token.balanceOf(address(providers)), taken);
        assertEq(token.balanceOf(BUYER), share(taken, 1000));
        assertEq(supply - token.totalSupply(), taken - share(taken, 1000));
    }
}
