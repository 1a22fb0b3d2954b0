// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ChannelConfig} from "../src/interfaces/IChannels.sol";
import {Span} from "../src/interfaces/IReceipts.sol";
import {ITill, Taken} from "../src/interfaces/ITill.sol";
import {Till} from "../src/Till.sol";
import {Tills} from "../src/Tills.sol";
import {TillFixture} from "./TillFixture.sol";

/// @notice A Till pays each position of a channel once: to the provider, to a verdict, or back to the payer.
contract TillTest is TillFixture {
    address private buyer;

    function setUp() public {
        setUpTill();
        buyer = makeAddr("buyer");
        open(0);
        open(1);
    }

    function payerOf(uint256 payer) private view returns (address) {
        return configOf(payer).payer;
    }

    // Where a Till is.

    function test_the_address_is_known_before_the_till_is() public {
        address bob = makeAddr("bob");
        address expected = tills.tillOf(bob);
        assertEq(expected.code.length, 0);
        bytes memory code = abi.encodePacked(
            hex"6100413d81600a3d39f3363d3d373d3d3d363d73",
            tills.implementation(),
            hex"5af43d82803e903d91602b57fd5bf3",
            bob
        );
        bytes32 hash =
            keccak256(abi.encodePacked(hex"ff", address(tills), bytes32(uint256(uint160(bob))), keccak256(code)));
        assertEq(expected, address(uint160(uint256(hash))));
        vm.expectEmit(address(tills));
        emit Tills.Opened(bob, expected);
        assertEq(tills.open(bob), expected);
        assertEq(tills.open(bob), expected);
        assertEq(Till(expected).provider(), bob);
    }

    function test_the_shared_code_is_no_till() public {
        Till code = Till(tills.implementation());
        vm.expectRevert(ITill.NotATill.selector);
        code.provider();
    }

    function test_a_channel_may_pay_a_till_that_does_not_exist_yet() public {
        address bob = makeAddr("bob");
        receiver = tills.tillOf(bob);
        ChannelConfig memory config = open(5);
        claimUpTo(5, 1000);
        Span[] memory spans = new Span[](1);
        spans[0] = Span(channels.getChannelId(config), 0, 1000);
        vm.prank(bob);
        receipts.post(bob, keccak256("root"), 1, spans);
        tills.open(bob);
        see(config);
        skip(disputeWindow);
        Till(receiver).release(config);
        assertEq(dollar.balanceOf(bob), 930);
    }

    // Releases.

    function test_money_is_divided_and_the_dust_is_the_providers() public {
        claimUpTo(0, 1049);
        coverUpTo(0, 1049);
        skip(disputeWindow);
        vm.expectEmit(address(till));
        emit ITill.Released(idOf(0), address(dollar), 1049, 20, 52);
        assertEq(till.release(configOf(0)), 1049);
        assertEq(dollar.balanceOf(fees), 20);
        assertEq(dollar.balanceOf(treasury), 52);
        assertEq(dollar.balanceOf(owner), 977);
        assertEq(dollar.balanceOf(address(till)), 0);
    }

    function test_nothing_is_released_before_the_window_or_above_the_receipts() public {
        claimUpTo(0, 1000);
        assertEq(till.release(configOf(0)), 0);
        coverUpTo(0, 600);
        skip(disputeWindow - 1);
        assertEq(till.release(configOf(0)), 0);
        skip(1);
        assertEq(till.release(configOf(0)), 600);
        assertEq(till.release(configOf(0)), 0);
        coverUpTo(0, 5000);
        skip(disputeWindow);
        assertEq(till.release(configOf(0)), 400);
        claimUpTo(0, 1100);
        assertEq(till.release(configOf(0)), 0);
        skip(disputeWindow);
        assertEq(till.release(configOf(0)), 100);
    }

    function test_coverage_in_advance_leaves_a_whole_window_for_a_verdict() public {
        coverUpTo(0, type(uint128).max);
        skip(disputeWindow);
        claimUnseen(0, 1000);
        assertEq(till.release(configOf(0)), 0);
        skip(disputeWindow - 1);
        assertEq(till.release(configOf(0)), 0);
        assertEq(judge(0, 100, 350, buyer), 250);
        skip(1);
        assertEq(till.release(configOf(0)), 750);
    }

    function test_what_nobody_showed_the_till_is_not_released() public {
        coverUpTo(0, 1000);
        claimUnseen(0, 1000);
        skip(10 * disputeWindow);
        assertEq(till.release(configOf(0)), 0);
        assertEq(till.seen(idOf(0), uint48(vm.getBlockTimestamp() - 1)), 0);
        assertEq(till.seen(idOf(0), uint48(vm.getBlockTimestamp())), 1000);
        skip(disputeWindow);
        assertEq(till.release(configOf(0)), 1000);
    }

    function test_calling_often_puts_nothing_off() public {
        coverUpTo(0, 2000);
        uint256 first = vm.getBlockTimestamp();
        for (uint128 i = 1; i <= 10; ++i) {
            vm.warp(first + i * disputeWindow / 10);
            claimUpTo(0, 100 * i);
        }
        for (uint128 i = 1; i <= 10; ++i) {
            vm.warp(first + disputeWindow + i * disputeWindow / 10);
            assertEq(till.release(configOf(0)), 100);
            assertEq(till.release(configOf(0)), 0);
        }
    }

    function test_a_young_chain_releases_nothing_instead_of_failing() public {
        vm.warp(100);
        claimUpTo(0, 10);
        assertEq(till.release(configOf(0)), 0);
    }

    function test_a_channel_that_pays_somebody_else_is_refused() public {
        ChannelConfig memory config = configOf(0);
        config.receiver = owner;
        vm.expectRevert(abi.encodeWithSelector(ITill.NotMyChannel.selector, owner, address(till)));
        till.release(config);
    }

    // Verdicts.

    function test_a_verdict_takes_a_receipts_span_and_nothing_else() public {
        claimUpTo(0, 1000);
        claimUpTo(1, 1000);
        coverUpTo(0, 1000);
        coverUpTo(1, 1000);
        assertEq(judge(0, 100, 350, buyer), 250);
        assertEq(dollar.balanceOf(buyer), 250);
        skip(disputeWindow);
        assertEq(till.release(configOf(0)), 750);
        assertEq(till.release(configOf(1)), 1000);
        assertEq(till.takenOf(idOf(0)).length, 0);
        assertEq(dollar.balanceOf(address(till)), 0);
    }

    function test_no_position_is_given_twice() public {
        claimUpTo(0, 1000);
        assertEq(judge(0, 100, 350, buyer), 250);
        assertEq(judge(0, 100, 350, buyer), 0);
        assertEq(judge(0, 50, 400, buyer), 100);
        assertEq(dollar.balanceOf(buyer), 350);
    }

    function test_what_was_released_is_out_of_reach_of_a_verdict() public {
        claimUpTo(0, 1000);
        claimUpTo(1, 1000);
        coverUpTo(0, 600);
        skip(disputeWindow);
        till.release(configOf(0));
        assertEq(judge(0, 100, 700, buyer), 100);
        assertEq(dollar.balanceOf(buyer), 100);
    }

    function test_a_verdict_reaches_what_is_claimed_later() public {
        claimUpTo(0, 150);
        coverUpTo(0, 1000);
        assertEq(judge(0, 100, 350, buyer), 250);
        assertEq(dollar.balanceOf(buyer), 50);
        skip(disputeWindow);
        claimUpTo(0, 1000);
        skip(disputeWindow);
        assertEq(till.release(configOf(0)), 750 - 100);
        assertEq(till.owed(address(dollar), buyer), 200);
        till.collect(address(dollar), buyer);
        assertEq(dollar.balanceOf(buyer), 250);
        assertEq(dollar.balanceOf(address(till)), 0);
    }

    function test_only_the_arbiter_judges_and_only_sensibly() public {
        ChannelConfig memory config = configOf(0);
        vm.expectRevert(abi.encodeWithSelector(ITill.NotArbiter.selector, address(this), arbiter));
        till.verdict(config, 0, 1, buyer);
        vm.startPrank(arbiter);
        vm.expectRevert(abi.encodeWithSelector(ITill.EmptySpan.selector, 1, 1));
        till.verdict(config, 1, 1, buyer);
        vm.expectRevert(ITill.NoReceiver.selector);
        till.verdict(config, 1, 2, address(0));
        vm.stopPrank();
    }

    /// Each wrong receipt lies between two right ones, so no two verdicts are one run.
    function test_twenty_wrong_receipts_all_reach_their_money() public {
        coverUpTo(0, 1000);
        claimUpTo(0, 400);
        for (uint128 i; i < 20; ++i) {
            assertEq(judge(0, 20 * i + 5, 20 * i + 15, buyer), 10);
        }
        assertEq(till.takenOf(idOf(0)).length, 20);
        assertEq(dollar.balanceOf(buyer), 200);
        skip(disputeWindow);
        assertEq(till.release(configOf(0)), 200);
        assertEq(till.takenOf(idOf(0)).length, 0);
        assertEq(dollar.balanceOf(address(till)), 0);
    }

    function test_verdicts_that_touch_are_one_run() public {
        claimUpTo(0, 500);
        // Paid at once, in an order that closes gaps from both sides.
        judge(0, 100, 200, buyer);
        judge(0, 300, 400, owner);
        assertEq(judge(0, 200, 300, buyer), 100);
        assertEq(till.takenOf(idOf(0)).length, 1);
        // Over the end of what is claimed, and on: the rest of both is one promise.
        assertEq(judge(0, 350, 600, buyer), 200);
        assertEq(judge(0, 600, 700, buyer), 100);
        assertEq(till.takenOf(idOf(0)).length, 2);
        // Somebody else's promise stays its own.
        assertEq(judge(0, 650, 800, fees), 100);
        assertEq(till.takenOf(idOf(0)).length, 3);
        claimUpTo(0, 800);
        till.collect(address(dollar), fees);
        till.collect(address(dollar), buyer);
        assertEq(dollar.balanceOf(buyer), 500);
        assertEq(dollar.balanceOf(owner), 100);
        assertEq(dollar.balanceOf(fees), 100);
        coverUpTo(0, 800);
        skip(disputeWindow);
        assertEq(till.release(configOf(0)), 100);
        assertEq(dollar.balanceOf(address(till)), 0);
    }

    function test_a_full_channel_waits_and_what_it_costs_is_bounded() public {
        claimUpTo(0, 400);
        // Promises are the dearest to keep: nothing of them is paid yet.
        for (uint128 i; i < 256; ++i) {
            judge(0, 400 + 2 * i, 401 + 2 * i, buyer);
        }
        ChannelConfig memory config = configOf(0);
        vm.expectRevert(abi.encodeWithSelector(ITill.TooManyVerdicts.selector, 257, 256));
        vm.prank(arbiter);
        till.verdict(config, 1000, 1001, buyer);
        // One that adds no run is passed still.
        assertEq(judge(0, 910, 912, buyer), 1);

        claimUnseen(0, 912);
        till.release(config);
        vm.snapshotGasLastCall("Till", "release, 256 promises paid");
        coverUpTo(0, 912);
        skip(disputeWindow);
        assertEq(till.release(config), 400 + 255);
        vm.snapshotGasLastCall("Till", "release, 256 runs forgotten");
        assertEq(till.takenOf(idOf(0)).length, 0);
        assertEq(judge(0, 1000, 1001, buyer), 1);
    }

    // Returns.

    function test_what_no_receipt_covers_goes_back() public {
        claimUpTo(0, 1000);
        coverUpTo(0, 600);
        vm.expectRevert(abi.encodeWithSelector(ITill.NotMarked.selector, idOf(0)));
        till.reclaim(configOf(0));
        vm.expectRevert(abi.encodeWithSelector(ITill.NotPayer.selector, address(this), payerOf(0)));
        till.mark(configOf(0));
        markAs(0);
        skip(coverWindow - 1);
        vm.expectPartialRevert(ITill.TooEarly.selector);
        till.reclaim(configOf(0));
        skip(1);
        assertEq(till.reclaim(configOf(0)), 400);
        assertEq(dollar.balanceOf(payerOf(0)), 400);
        assertEq(till.release(configOf(0)), 600);
        // What went back is kept for nobody.
        assertEq(till.owed(address(dollar), address(0)), 0);
        assertEq(dollar.balanceOf(address(till)), 0);
    }

    function test_receipts_that_come_too_late_earn_nothing() public {
        claimUpTo(0, 1000);
        markAs(0);
        skip(coverWindow);
        assertEq(till.reclaim(configOf(0)), 1000);
        claimUpTo(0, 1500);
        coverUpTo(0, 1500);
        skip(disputeWindow);
        assertEq(till.release(configOf(0)), 500);
        assertEq(dollar.balanceOf(address(till)), 0);
    }

    function test_receipts_that_come_in_time_stop_the_return() public {
        claimUpTo(0, 1000);
        markAs(0);
        skip(coverWindow - 1);
        coverUpTo(0, 1000);
        skip(1);
        vm.expectRevert(abi.encodeWithSelector(ITill.NothingUncovered.selector, 1000, 1000));
        till.reclaim(configOf(0));
        skip(disputeWindow);
        assertEq(till.release(configOf(0)), 1000);
    }

    function test_receipts_between_the_due_time_and_the_call_come_too_late() public {
        claimUpTo(0, 1000);
        markAs(0);
        skip(coverWindow + 1);
        coverUpTo(0, 1000);
        assertEq(till.reclaim(configOf(0)), 1000);
        skip(disputeWindow);
        assertEq(till.release(configOf(0)), 0);
        assertEq(dollar.balanceOf(address(till)), 0);
    }

    function test_coverage_above_all_claims_stops_no_return() public {
        coverUpTo(0, type(uint128).max);
        claimUnseen(0, 1000);
        markAs(0);
        skip(coverWindow);
        assertEq(till.reclaim(configOf(0)), 1000);
        assertEq(dollar.balanceOf(payerOf(0)), 1000);
        assertEq(till.release(configOf(0)), 0);
        assertEq(dollar.balanceOf(address(till)), 0);
    }

    function test_coverage_that_is_claimed_in_time_stops_the_return() public {
        coverUpTo(0, 1500);
        claimUpTo(0, 1000);
        markAs(0);
        skip(coverWindow);
        claimUpTo(0, 1500);
        vm.expectRevert(abi.encodeWithSelector(ITill.NothingUncovered.selector, 1000, 1500));
        till.reclaim(configOf(0));
    }

    function test_only_what_was_claimed_when_asked_goes_back() public {
        claimUpTo(0, 1000);
        markAs(0);
        skip(coverWindow);
        claimUpTo(0, 1700);
        assertEq(till.reclaim(configOf(0)), 1000);
        vm.expectPartialRevert(ITill.NotMarked.selector);
        till.reclaim(configOf(0));
    }

    function test_a_provider_cannot_delay_a_return_by_covering_crumbs() public {
        claimUpTo(0, 1000);
        markAs(0);
        skip(coverWindow - 1);
        coverUpTo(0, 1);
        skip(1);
        assertEq(till.reclaim(configOf(0)), 999);
        markAs(0);
        claimUpTo(0, 2000);
        markAs(0);
        skip(coverWindow - 1);
        coverUpTo(0, 1001);
        skip(1);
        assertEq(till.reclaim(configOf(0)), 999);
        skip(disputeWindow);
        assertEq(till.release(configOf(0)), 2);
        assertEq(dollar.balanceOf(address(till)), 0);
    }

    function test_a_payer_that_never_gets_a_receipt_gets_all_back_again_and_again() public {
        for (uint128 i = 1; i <= 20; ++i) {
            claimUpTo(0, 100 * i);
            markAs(0);
            skip(coverWindow);
            assertEq(till.reclaim(configOf(0)), 100);
        }
        Taken[] memory taken = till.takenOf(idOf(0));
        assertEq(taken.length, 1);
        assertEq(taken[0].until, 2000);
    }

    function test_a_verdict_comes_before_a_return_and_neither_is_paid_twice() public {
        claimUpTo(0, 1000);
        coverUpTo(0, 200);
        judge(0, 100, 300, buyer);
        markAs(0);
        skip(coverWindow);
        assertEq(till.reclaim(configOf(0)), 700);
        assertEq(judge(0, 250, 900, buyer), 0);
        assertEq(till.release(configOf(0)), 100);
        assertEq(dollar.balanceOf(buyer), 200);
        assertEq(dollar.balanceOf(address(till)), 0);
    }

    // Gas.

    function test_gas() public {
        claimUpTo(0, 1000);
        claimUpTo(1, 1000);
        coverUpTo(0, 400);
        skip(disputeWindow);
        till.release(configOf(0));
        vm.snapshotGasLastCall("Till", "release, first");
        coverUpTo(0, 600);
        skip(disputeWindow);
        till.release(configOf(0));
        vm.snapshotGasLastCall("Till", "release");
        till.release(configOf(0));
        vm.snapshotGasLastCall("Till", "release, nothing due");
        judge(0, 600, 700, buyer);
        vm.snapshotGasLastCall("Till", "verdict");
        judge(0, 1500, 1600, buyer);
        claimUpTo(0, 2000);
        markAs(0);
        vm.snapshotGasLastCall("Till", "mark");
        skip(coverWindow);
        till.reclaim(configOf(0));
        vm.snapshotGasLastCall("Till", "reclaim");
        till.collect(address(dollar), buyer);
        vm.snapshotGasLastCall("Till", "collect");
        tills.open(buyer);
        vm.snapshotGasLastCall("Tills", "open");
    }

    function test_many_channels_are_released_at_once_as_each_would_be() public {
        ChannelConfig[] memory configs = new ChannelConfig[](3);
        for (uint256 payer; payer < 3; ++payer) {
            configs[payer] = open(payer);
            claimUnseen(payer, uint128(1000 * (payer + 1)));
        }
        coverUpTo(0, 1000);
        coverUpTo(1, 500);
        uint128[] memory amounts = till.releaseAll(configs);
        assertEq(amounts[0] + amounts[1] + amounts[2], 0);
        skip(disputeWindow);
        amounts = till.releaseAll(configs);
        assertEq(amounts[0], 1000);
        assertEq(amounts[1], 500);
        assertEq(amounts[2], 0);
        configs[1].receiver = address(this);
        vm.expectRevert(abi.encodeWithSelector(ITill.NotMyChannel.selector, address(this), address(till)));
        till.releaseAll(configs);
    }
}
