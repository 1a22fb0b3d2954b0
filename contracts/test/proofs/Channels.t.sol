// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Channels} from "../../src/Channels.sol";
import {ChannelConfig, Voucher, VoucherClaim} from "../../src/interfaces/IChannels.sol";
import {Base} from "../Base.sol";

/// @notice The law of vouchers, for the contract as it is deployed: whatever a channel's state, the row and the
/// signature, a claim takes no more than the voucher allows and the channel holds, and takes it once.
contract ChannelsProofs is Base {
    address private constant RECEIVER = address(0xbeef);

    /// Slots of `Channels`, as artifacts/Channels.json lists them; `place` checks that they are right.
    uint256 private constant CHANNELS = 2;
    uint256 private constant RECEIVERS = 5;

    Channels private channels;

    function setUp() public {
        channels = new Channels();
    }

    function check_a_claim_stays_within_voucher_and_balance(
        uint128 balance,
        uint128 claimed,
        uint128 sum,
        uint128 ceiling,
        uint128 total,
        bytes32 r,
        bytes32 s,
        uint8 v
    ) public {
        vm.assume(claimed <= balance);
        ChannelConfig memory config = channel();
        bytes32 id = channels.getChannelId(config);
        place(id, balance, claimed, sum);
        VoucherClaim[] memory rows = new VoucherClaim[](1);
        rows[0] = VoucherClaim(Voucher(config, ceiling), abi.encodePacked(r, s, v), total);

        vm.prank(RECEIVER);
        (bool done,) = address(channels).call(abi.encodeCall(channels.claim, (rows)));

        (uint128 balanceAfter, uint128 claimedAfter) = channels.channels(id);
        (uint128 sumAfter, uint128 settled) = channels.receivers(RECEIVER, config.token);
        assert(balanceAfter == balance);
        assert(claimedAfter >= claimed && claimedAfter <= balance);
        assert(claimedAfter == claimed || claimedAfter <= ceiling);
        assert(claimedAfter == claimed || claimedAfter == total);
        assert(sumAfter - sum == claimedAfter - claimed);
        assert(settled == 0);
        assert(done || claimedAfter == claimed);
    }

    function check_nobody_else_claims(address stranger, uint128 balance, uint128 claimed, uint128 total, bytes32 r)
        public
    {
        vm.assume(stranger != RECEIVER && claimed <= balance);
        ChannelConfig memory config = channel();
        bytes32 id = channels.getChannelId(config);
        place(id, balance, claimed, 0);
        VoucherClaim[] memory rows = new VoucherClaim[](1);
        rows[0] = VoucherClaim(Voucher(config, total), abi.encodePacked(r, r, uint8(27)), total);

        vm.prank(stranger);
        (bool done,) = address(channels).call(abi.encodeCall(channels.claim, (rows)));
        (, uint128 claimedAfter) = channels.channels(id);
        assert(!done && claimedAfter == claimed);
    }

    function channel() private pure returns (ChannelConfig memory config) {
        config.payer = address(0xada);
        config.payerAuthorizer = address(0xadb);
        config.receiver = RECEIVER;
        config.receiverAuthorizer = RECEIVER;
        config.token = address(0xd0);
        config.withdrawDelay = 1 days;
    }

    /// Puts the channel and its receiver into any state; the slots are those that the compiler gave the mappings.
    function place(bytes32 id, uint128 balance, uint128 claimed, uint128 sum) private {
        vm.store(address(channels), keccak256(abi.encode(id, CHANNELS)), pack(balance, claimed));
        bytes32 inner = keccak256(abi.encode(RECEIVER, RECEIVERS));
        vm.store(address(channels), keccak256(abi.encode(address(0xd0), inner)), pack(sum, 0));
        (uint128 found,) = channels.channels(id);
        (uint128 foundSum,) = channels.receivers(RECEIVER, address(0xd0));
        assert(found == balance && foundSum == sum);
    }

    function pack(uint128 low, uint128 high) private pure returns (bytes32) {
        return bytes32(uint256(high) << 128 | low);
    }
}
