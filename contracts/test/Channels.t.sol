// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {Channels} from "../src/Channels.sol";
import {ChannelConfig, IChannels, Terms, Voucher, VoucherClaim} from "../src/interfaces/IChannels.sol";
import {ChannelFixture} from "./ChannelFixture.sol";
import {Dollar} from "./Dollar.sol";
import {Vm} from "./Base.sol";

/// @notice A payer that is a contract: says yes, says no, burns all gas, or answers with a very long word.
contract PayerContract is IERC1271 {
    uint256 private _mood;

    function feel(uint256 mood) external {
        _mood = mood;
    }

    function isValidSignature(bytes32, bytes calldata) external view returns (bytes4) {
        if (_mood == 1) return 0xffffffff;
        if (_mood == 2) while (true) {}
        if (_mood == 3) {
            assembly ("memory-safe") {
                return(0, 1000000)
            }
        }
        return IERC1271.isValidSignature.selector;
    }
}

/// @notice Channels pay what was signed and deposited, and a bad row stops nobody.
contract ChannelsTest is ChannelFixture {
    function setUp() public {
        setUpChannels();
    }

    function asReceiver(VoucherClaim[] memory rows) private {
        vm.prank(receiver);
        channels.claim(rows);
    }

    function rowsOf(uint256 count) private view returns (VoucherClaim[] memory rows) {
        rows = new VoucherClaim[](count);
        for (uint256 i; i < count; ++i) {
            rows[i] = row(i, 500, 400);
        }
    }

    // Deposits.

    function test_a_deposit_is_credited_and_told() public {
        ChannelConfig memory config = configOf(0);
        bytes32 id = channels.getChannelId(config);
        dollar.mint(config.payer, 10);
        vm.prank(config.payer);
        dollar.approve(address(approvals), 10);
        vm.expectEmit(address(channels));
        emit IChannels.ChannelCreated(id, config);
        vm.expectEmit(address(channels));
        emit IChannels.Deposited(id, address(approvals), 10, 10);
        vm.prank(config.payer);
        approvals.deposit(config, 10);
        assertEq(balanceOf(config), 10);
    }

    function test_a_config_that_could_lock_money_is_refused() public {
        ChannelConfig memory config = configOf(0);
        config.receiver = address(0);
        expectRefused(config, IChannels.InvalidChannel.selector);
        config = configOf(0);
        config.receiverAuthorizer = address(0);
        expectRefused(config, IChannels.InvalidChannel.selector);
        config = configOf(0);
        config.token = address(0);
        expectRefused(config, IChannels.InvalidChannel.selector);
        config = configOf(0);
        config.payer = address(0);
        expectRefused(config, IChannels.InvalidChannel.selector);
        config = configOf(0);
        config.withdrawDelay = 899;
        expectRefused(config, IChannels.WithdrawDelayOutOfRange.selector);
        config.withdrawDelay = 2_592_001;
        expectRefused(config, IChannels.WithdrawDelayOutOfRange.selector);
    }

    function expectRefused(ChannelConfig memory config, bytes4 reason) private {
        vm.expectRevert(reason);
        channels.deposit(config, 1, address(approvals), "");
    }

    function test_a_deposit_of_nothing_or_from_nowhere_is_refused() public {
        ChannelConfig memory config = configOf(0);
        vm.expectRevert(IChannels.ZeroDeposit.selector);
        channels.deposit(config, 0, address(approvals), "");
        vm.expectRevert(IChannels.InvalidCollector.selector);
        channels.deposit(config, 1, address(0), "");
    }

    // Claims.

    function test_a_claim_is_recorded_and_told() public {
        ChannelConfig memory config = open(0);
        VoucherClaim[] memory rows = one(row(0, 500, 400));
        vm.expectEmit(address(channels));
        emit IChannels.Claimed(channels.getChannelId(config), receiver, 400, 400);
        asReceiver(rows);
        assertEq(claimedOf(config), 400);
        (uint128 claimed, uint128 settled) = channels.receivers(receiver, address(dollar));
        assertEq(claimed, 400);
        assertEq(settled, 0);
    }

    function test_the_receiver_authorizer_may_claim_too() public {
        ChannelConfig memory config = open(0);
        VoucherClaim[] memory rows = one(row(0, 500, 400));
        vm.prank(authorizer);
        channels.claim(rows);
        assertEq(claimedOf(config), 400);
    }

    function test_a_second_claim_adds_only_the_difference() public {
        ChannelConfig memory config = open(0);
        asReceiver(one(row(0, 500, 400)));
        asReceiver(one(row(0, 900, 900)));
        assertEq(claimedOf(config), 900);
        channels.settle(receiver, address(dollar));
        assertEq(dollar.balanceOf(receiver), 900);
    }

    function test_a_replayed_claim_changes_nothing_and_is_no_error() public {
        ChannelConfig memory config = open(0);
        VoucherClaim[] memory rows = one(row(0, 500, 400));
        asReceiver(rows);
        asReceiver(rows);
        asReceiver(one(row(0, 500, 399)));
        assertEq(claimedOf(config), 400);
    }

    function test_a_single_bad_claim_reverts_as_the_public_deployment_does() public {
        open(0);
        expectBad(row(0, 500, 501), IChannels.ClaimExceedsCeiling.selector);
        expectBad(row(0, DEPOSIT + 1, DEPOSIT + 1), IChannels.ClaimExceedsBalance.selector);
        expectBad(row(1, 1, 1), IChannels.ClaimExceedsBalance.selector);
        VoucherClaim memory forged = row(0, 500, 400);
        forged.signature = signVoucher(keyOf(1), configOf(0), 500);
        expectBad(forged, IChannels.InvalidSignature.selector);
        forged.signature = "";
        expectBad(forged, IChannels.InvalidSignature.selector);
        VoucherClaim[] memory rows = one(row(0, 500, 400));
        vm.expectRevert(IChannels.NotAuthorizedToClaim.selector);
        channels.claim(rows);
        vm.expectRevert(IChannels.EmptyBatch.selector);
        channels.claim(new VoucherClaim[](0));
        vm.expectRevert(IChannels.EmptyBatch.selector);
        channels.claimWithSignature(new VoucherClaim[](0), "");
    }

    function expectBad(VoucherClaim memory bad, bytes4 reason) private {
        vm.expectRevert(reason);
        vm.prank(receiver);
        channels.claim(one(bad));
    }

    function test_every_kind_of_bad_row_is_skipped_and_the_others_are_paid() public {
        for (uint256 i; i < 8; ++i) {
            if (i != 3) open(i);
        }
        VoucherClaim[] memory rows = rowsOf(8);
        // 0 and 7 are good.
        rows[1].totalClaimed = 501;
        rows[2].signature = signVoucher(keyOf(9), configOf(2), 500);
        // 3 was never opened.
        rows[4].voucher.channel.receiver = address(0xbad);
        rows[5].signature = hex"1234";
        rows[6].voucher.maxClaimableAmount = 501;
        vm.recordLogs();
        asReceiver(rows);
        checkSkips(
            [
                bytes4(0),
                IChannels.ClaimExceedsCeiling.selector,
                IChannels.InvalidSignature.selector,
                IChannels.ClaimExceedsBalance.selector,
                // Of another receiver.
                IChannels.NotAuthorizedToClaim.selector,
                IChannels.InvalidSignature.selector,
                IChannels.InvalidSignature.selector,
                bytes4(0)
            ]
        );
        for (uint256 i; i < 8; ++i) {
            assertEq(claimedOf(configOf(i)), i == 0 || i == 7 ? 400 : 0);
        }
        (uint128 claimed,) = channels.receivers(receiver, address(dollar));
        assertEq(claimed, 800);
    }

    /// Each row is claimed, or skipped with this reason.
    function checkSkips(bytes4[8] memory reasons) private {
        Vm.Log[] memory logs = vm.getRecordedLogs();
        assertEq(logs.length, 8);
        for (uint256 i; i < 8; ++i) {
            if (reasons[i] == 0) {
                assertEq(logs[i].topics[0], IChannels.Claimed.selector);
                continue;
            }
            assertEq(logs[i].topics[0], IChannels.Skipped.selector);
            assertEq(uint256(logs[i].topics[1]), i);
            assertEq(logs[i].data, abi.encode(reasons[i]));
        }
    }

    function test_a_channel_twice_in_a_batch_is_paid_once() public {
        ChannelConfig memory config = open(0);
        VoucherClaim[] memory rows = new VoucherClaim[](2);
        (rows[0], rows[1]) = (row(0, 500, 400), row(0, 500, 400));
        asReceiver(rows);
        assertEq(claimedOf(config), 400);
    }

    function test_a_batch_signed_by_the_authorizer_may_come_from_anyone() public {
        for (uint256 i; i < 3; ++i) {
            open(i);
        }
        VoucherClaim[] memory rows = rowsOf(3);
        rows[1].voucher.channel.receiverAuthorizer = address(0xbad);
        bytes memory signature = signBatch(rows);
        channels.claimWithSignature(rows, signature);
        assertEq(claimedOf(configOf(0)), 400);
        assertEq(claimedOf(configOf(1)), 0);
        assertEq(claimedOf(configOf(2)), 400);

        rows[2].totalClaimed = 500;
        vm.expectRevert(IChannels.InvalidSignature.selector);
        channels.claimWithSignature(rows, signature);
    }

    // Payers that are contracts.

    function contractRow(uint256 mood) private returns (VoucherClaim memory) {
        PayerContract payer = new PayerContract();
        payer.feel(mood);
        ChannelConfig memory config =
            ChannelConfig(address(payer), address(0), receiver, authorizer, address(dollar), DELAY, 0);
        fund(config, DEPOSIT);
        return VoucherClaim(Voucher(config, 500), "whatever", 400);
    }

    function test_a_contract_may_be_the_payer() public {
        VoucherClaim memory good = contractRow(0);
        asReceiver(one(good));
        assertEq(claimedOf(good.voucher.channel), 400);
    }

    function test_a_key_may_be_the_payer_without_an_authorizer() public {
        ChannelConfig memory config = configOf(0);
        config.payerAuthorizer = address(0);
        fund(config, DEPOSIT);
        asReceiver(one(VoucherClaim(Voucher(config, 500), signVoucher(keyOf(0), config, 500), 400)));
        assertEq(claimedOf(config), 400);
    }

    function test_a_payer_that_refuses_burns_gas_or_floods_memory_stops_no_other_row() public {
        open(0);
        VoucherClaim[] memory rows = new VoucherClaim[](5);
        for (uint256 mood; mood < 4; ++mood) {
            rows[mood] = contractRow(mood);
        }
        rows[4] = row(0, 500, 400);
        vm.prank(receiver);
        channels.claim{gas: 3_000_000}(rows);
        assertEq(claimedOf(rows[0].voucher.channel), 400);
        for (uint256 i = 1; i < 4; ++i) {
            assertEq(claimedOf(rows[i].voucher.channel), 0);
        }
        assertEq(claimedOf(configOf(0)), 400);
    }

    function test_a_relayer_cannot_starve_a_contract_of_its_answer() public {
        VoucherClaim[] memory rows = one(contractRow(0));
        vm.expectPartialRevert(IChannels.TooLittleGas.selector);
        vm.prank(receiver);
        channels.claim{gas: 300_000}(rows);
    }

    // Packed claims.

    function test_packed_rows_are_skipped_and_paid_alike() public {
        for (uint256 i; i < 5; ++i) {
            if (i != 1) open(i);
        }
        bytes memory forged = packedRow(2, 300);
        forged[60] ^= 0x01;
        bytes memory rows = bytes.concat(
            packedRow(0, 300), packedRow(1, 300), forged, packedRow(3, DEPOSIT + 1), packedRow(4, DEPOSIT)
        );
        bytes memory told = abi.encodePacked(
            channels.getChannelId(configOf(0)), uint128(300), channels.getChannelId(configOf(4)), DEPOSIT
        );
        bytes32 missing = channels.getChannelId(configOf(1));
        vm.expectEmit(address(channels));
        emit IChannels.Skipped(1, missing, IChannels.ClaimExceedsBalance.selector);
        vm.expectEmit(true, false, false, true, address(channels));
        emit IChannels.Skipped(2, bytes32(0), IChannels.InvalidSignature.selector);
        vm.expectEmit(true, false, false, true, address(channels));
        emit IChannels.Skipped(3, bytes32(0), IChannels.ClaimExceedsBalance.selector);
        vm.expectEmit(address(channels));
        emit IChannels.ClaimedPacked(receiver, address(dollar), authorizer, told);
        vm.prank(authorizer);
        channels.claimPacked(terms(), rows);
        assertEq(claimedOf(configOf(0)), 300);
        assertEq(claimedOf(configOf(4)), DEPOSIT);
        (uint128 claimed,) = channels.receivers(receiver, address(dollar));
        assertEq(claimed, 300 + DEPOSIT);
    }

    function test_a_packed_row_may_name_another_key_than_the_payers() public {
        ChannelConfig memory config = configOf(0);
        (config.payerAuthorizer,) = (vm.addr(keyOf(7)), 0);
        fund(config, DEPOSIT);
        bytes32 digest = channels.getVoucherDigest(channels.getChannelId(config), 300);
        (bytes32 r, bytes32 vs) = vm.signCompact(keyOf(7), digest);
        bytes memory rows = abi.encodePacked(config.payer, config.payerAuthorizer, uint128(300), r, vs);
        vm.prank(receiver);
        channels.claimPacked(terms(), rows);
        assertEq(claimedOf(config), 300);
    }

    function test_a_packed_batch_without_a_good_row_reverts() public {
        open(0);
        bytes memory bad = bytes.concat(packedRow(0, DEPOSIT + 1), packedRow(1, 1));
        vm.expectRevert(IChannels.ClaimExceedsBalance.selector);
        vm.prank(receiver);
        channels.claimPacked(terms(), bad);
        bytes memory good = packedRow(0, 1);
        vm.expectRevert(IChannels.NotAuthorizedToClaim.selector);
        channels.claimPacked(terms(), good);
        vm.expectRevert(abi.encodeWithSelector(IChannels.MalformedRows.selector, 0, 120));
        vm.prank(receiver);
        channels.claimPacked(terms(), "");
        vm.expectRevert(abi.encodeWithSelector(IChannels.MalformedRows.selector, 121, 120));
        vm.prank(receiver);
        channels.claimPacked(terms(), bytes.concat(good, hex"00"));
    }

    function test_a_packed_signature_has_no_second_form() public {
        open(0);
        open(1);
        bytes32 digest = channels.getVoucherDigest(channels.getChannelId(configOf(0)), 300);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(keyOf(0), digest);
        uint256 order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
        // The twin has s above half the order; the compact form cannot even hold most of those.
        uint256 twin = order - uint256(s);
        uint256 vs = (twin << 1 >> 1) | (v == 27 ? 1 << 255 : 0);
        bytes memory rows =
            bytes.concat(abi.encodePacked(configOf(0).payer, address(0), uint128(300), r, vs), packedRow(1, 5));
        vm.prank(receiver);
        channels.claimPacked(terms(), rows);
        assertEq(claimedOf(configOf(0)), 0);
        assertEq(claimedOf(configOf(1)), 5);
    }

    /// The fast path and its definition leave the same state, for any mixture of good, stale and bad rows.
    function testFuzz_packed_and_plain_claims_agree(uint256 seed, uint8 count) public {
        count = uint8(bound(count, 1, 12));
        for (uint256 i; i < 6; ++i) {
            open(i);
        }
        VoucherClaim[] memory plain = new VoucherClaim[](count);
        bytes memory packed;
        for (uint256 i; i < count; ++i) {
            uint256 dice = uint256(keccak256(abi.encode(seed, i)));
            uint256 payer = dice % 7;
            uint128 ceiling = uint128((dice >> 8) % (DEPOSIT * 5 / 4));
            plain[i] = row(payer, ceiling, ceiling);
            bytes memory packedOne = packedRow(payer, ceiling);
            if ((dice >> 64) % 4 == 0) {
                plain[i].signature = signVoucher(keyOf(payer), configOf(payer), ceiling + 1);
                packedOne = bytes.concat(
                    abi.encodePacked(configOf(payer).payer, address(0), ceiling), cut(packedRow(payer, ceiling + 1), 56)
                );
            }
            packed = bytes.concat(packed, packedOne);
        }
        uint256 snapshot = vm.snapshotState();
        (bool plainGood, bytes memory plainAnswer) = call(abi.encodeCall(IChannels.claim, (plain)));
        uint256[8] memory expected = states();
        vm.revertToState(snapshot);
        (bool packedGood, bytes memory packedAnswer) = call(abi.encodeCall(IChannels.claimPacked, (terms(), packed)));
        assertEq(packedGood, plainGood);
        assertEq(packedAnswer, plainAnswer);
        assertEq(abi.encode(states()), abi.encode(expected));
    }

    function call(bytes memory data) private returns (bool good, bytes memory answer) {
        vm.prank(receiver);
        return address(channels).call(data);
    }

    function states() private view returns (uint256[8] memory words) {
        for (uint256 i; i < 7; ++i) {
            (uint128 balance, uint128 claimed) = channels.channels(channels.getChannelId(configOf(i)));
            words[i] = uint256(claimed) << 128 | balance;
        }
        (words[7],) = channels.receivers(receiver, address(dollar));
    }

    function cut(bytes memory data, uint256 from) private pure returns (bytes memory rest) {
        rest = new bytes(data.length - from);
        for (uint256 i; i < rest.length; ++i) {
            rest[i] = data[from + i];
        }
    }

    // Settling, withdrawing, refunding.

    function test_settling_pays_once_and_only_the_receiver() public {
        open(0);
        asReceiver(one(row(0, 500, 400)));
        vm.expectEmit(address(channels));
        emit IChannels.Settled(receiver, address(dollar), address(this), 400);
        channels.settle(receiver, address(dollar));
        channels.settle(receiver, address(dollar));
        assertEq(dollar.balanceOf(receiver), 400);
        (uint128 claimed, uint128 settled) = channels.receivers(receiver, address(dollar));
        assertEq(claimed, settled);
    }

    function test_a_payer_withdraws_what_is_unclaimed_after_the_delay() public {
        ChannelConfig memory config = open(0);
        vm.prank(config.payer);
        channels.initiateWithdraw(config, DEPOSIT);
        asReceiver(one(row(0, 500, 400)));
        skip(DELAY - 1);
        vm.expectRevert(IChannels.WithdrawDelayNotElapsed.selector);
        vm.prank(config.payer);
        channels.finalizeWithdraw(config);
        skip(1);
        vm.prank(config.payer);
        channels.finalizeWithdraw(config);
        assertEq(dollar.balanceOf(config.payer), DEPOSIT - 400);
        channels.settle(receiver, address(dollar));
        assertEq(dollar.balanceOf(receiver), 400);
        assertEq(dollar.balanceOf(address(channels)), 0);
        expectBad(row(0, 500, 401), IChannels.ClaimExceedsBalance.selector);
    }

    function test_withdrawals_have_their_order() public {
        ChannelConfig memory config = open(0);
        vm.expectRevert(IChannels.InvalidChannel.selector);
        channels.initiateWithdraw(config, 1);
        vm.startPrank(config.payer);
        vm.expectRevert(IChannels.NothingToWithdraw.selector);
        channels.initiateWithdraw(config, 0);
        vm.expectRevert(IChannels.WithdrawAmountExceedsAvailable.selector);
        channels.initiateWithdraw(config, DEPOSIT + 1);
        vm.expectRevert(IChannels.WithdrawalNotPending.selector);
        channels.finalizeWithdraw(config);
        channels.initiateWithdraw(config, 1);
        vm.expectRevert(IChannels.WithdrawalAlreadyPending.selector);
        channels.initiateWithdraw(config, 1);
        vm.stopPrank();
        vm.expectRevert(IChannels.NotAuthorizedToFinalizeWithdraw.selector);
        channels.finalizeWithdraw(config);
    }

    function test_an_emptied_channel_that_was_never_used_closes() public {
        ChannelConfig memory config = open(0);
        bytes32 id = channels.getChannelId(config);
        vm.expectEmit(address(channels));
        emit IChannels.ChannelClosed(id, config);
        vm.prank(receiver);
        channels.refund(config, type(uint128).max);
        assertEq(dollar.balanceOf(config.payer), DEPOSIT);
        assertEq(channels.refundNonce(id), 1);
    }

    function test_a_refund_shrinks_a_pending_withdrawal() public {
        ChannelConfig memory config = open(0);
        bytes32 id = channels.getChannelId(config);
        vm.prank(config.payer);
        channels.initiateWithdraw(config, 1000);
        vm.startPrank(receiver);
        channels.refund(config, 400);
        (uint128 amount,) = channels.pendingWithdrawals(id);
        assertEq(amount, 600);
        channels.refund(config, 600);
        (, uint40 at) = channels.pendingWithdrawals(id);
        assertEq(at, 0);
        vm.expectRevert(IChannels.ZeroRefund.selector);
        channels.refund(config, 0);
        vm.stopPrank();
        vm.expectRevert(IChannels.NotAuthorizedToRefund.selector);
        channels.refund(config, 1);
    }

    function test_a_signed_refund_counts_once() public {
        ChannelConfig memory config = open(0);
        bytes32 digest = channels.getRefundDigest(channels.getChannelId(config), 0, 30);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(authorizerKey, digest);
        bytes memory signature = abi.encodePacked(r, s, v);
        vm.expectRevert(IChannels.InvalidSignature.selector);
        channels.refundWithSignature(config, 31, 0, signature);
        channels.refundWithSignature(config, 30, 0, signature);
        assertEq(dollar.balanceOf(config.payer), 30);
        vm.expectRevert(IChannels.InvalidRefundNonce.selector);
        channels.refundWithSignature(config, 30, 0, signature);
    }

    function test_claim_and_refund_go_in_one_multicall() public {
        ChannelConfig memory config = open(0);
        bytes[] memory calls = new bytes[](3);
        calls[0] = abi.encodeCall(IChannels.claim, (one(row(0, 500, 400))));
        calls[1] = abi.encodeCall(IChannels.refund, (config, DEPOSIT));
        calls[2] = abi.encodeCall(IChannels.settle, (receiver, address(dollar)));
        vm.prank(receiver);
        channels.multicall(calls);
        assertEq(dollar.balanceOf(receiver), 400);
        assertEq(dollar.balanceOf(config.payer), DEPOSIT - 400);
    }

    // Laws.

    /// Whatever is signed and claimed, in whatever order: never more than the voucher, never more than the deposit.
    function testFuzz_a_channel_never_pays_more_than_its_voucher_or_its_deposit(
        uint128 deposited,
        uint128 ceiling,
        uint128 total
    ) public {
        deposited = uint128(bound(deposited, 1, type(uint128).max));
        ChannelConfig memory config = configOf(0);
        fund(config, deposited);
        VoucherClaim[] memory rows = one(row(0, ceiling, total));
        bool good = total <= ceiling && total <= deposited;
        if (!good) vm.expectRevert();
        vm.prank(receiver);
        channels.claim(rows);
        channels.settle(receiver, address(dollar));
        assertEq(dollar.balanceOf(receiver), good ? total : 0);
        assertEq(dollar.balanceOf(address(channels)), deposited - dollar.balanceOf(receiver));
    }
}
