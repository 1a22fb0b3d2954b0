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
        skip(disputeWindow);
        Till(tills.open(bob)).release(config);
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
        assertEq(till.release(configOf(0)), 100);
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
        assertEq(till.release(configOf(0)), 750);
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

    function test_a_seventeenth_open_verdict_waits() public {
        claimUpTo(0, 1000);
        for (uint128 i; i < 16; ++i) {
            judge(0, 10 * i, 10 * i + 5, buyer);
        }
        ChannelConfig memory config = configOf(0);
        vm.expectRevert(abi.encodeWithSelector(ITill.TooManyVerdicts.selector, 16, 16));
        vm.prank(arbiter);
        till.verdict(config, 500, 505, buyer);
        coverUpTo(0, 60);
        skip(disputeWindow);
        assertEq(till.release(configOf(0)), 30);
        assertEq(judge(0, 500, 505, buyer), 5);
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
}
