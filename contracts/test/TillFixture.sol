// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ChannelConfig, VoucherClaim} from "../src/interfaces/IChannels.sol";
import {Value} from "../src/interfaces/IParameters.sol";
import {Span} from "../src/interfaces/IReceipts.sol";
import {Parameters} from "../src/Parameters.sol";
import {Receipts} from "../src/Receipts.sol";
import {Till} from "../src/Till.sol";
import {Tills} from "../src/Tills.sol";
import {ChannelFixture} from "./ChannelFixture.sol";

/// @notice Channels that pay a Till, with receipts, parameters and an arbiter.
abstract contract TillFixture is ChannelFixture {
    Receipts internal receipts;
    Parameters internal parameters;
    Tills internal tills;
    Till internal till;
    address internal owner;
    address internal arbiter;
    address internal fees;
    address internal treasury;
    uint256 internal disputeWindow;
    uint256 internal coverWindow;

    function setUpTill() internal {
        setUpChannels();
        (owner, arbiter) = (makeAddr("owner"), makeAddr("arbiter"));
        (fees, treasury) = (makeAddr("fees"), makeAddr("treasury"));
        address governor = makeAddr("governor");
        parameters = new Parameters(governor, treasury, fees, new uint256[](0));
        vm.prank(governor);
        parameters.setArbiter(arbiter);
        disputeWindow = parameters.value(Value.DisputeWindow);
        coverWindow = parameters.value(Value.CoverWindow);
        receipts = new Receipts();
        tills = new Tills(channels, receipts, parameters);
        till = Till(tills.open(owner));
        receiver = address(till);
    }

    /// Claims up to `total` from the channel of the payer with this number.
    function claimUpTo(uint256 payer, uint128 total) internal {
        claimUnseen(payer, total);
        see(configOf(payer));
    }

    /// Lets the Till see what is claimed, as who claims does.
    function see(ChannelConfig memory config) internal {
        if (config.receiver.code.length != 0) Till(config.receiver).release(config);
    }

    /// As `claimUpTo`, and nobody tells the Till.
    function claimUnseen(uint256 payer, uint128 total) internal {
        VoucherClaim[] memory rows = one(row(payer, total, total));
        vm.prank(authorizer);
        channels.claim(rows);
    }

    /// Posts receipts up to `position` of the payer's channel.
    function coverUpTo(uint256 payer, uint128 position) internal {
        bytes32 channel = idOf(payer);
        Span[] memory spans = new Span[](1);
        spans[0] = Span(channel, receipts.covered(owner, channel), position);
        vm.prank(owner);
        receipts.post(owner, keccak256("root"), 1, spans);
    }

    function idOf(uint256 payer) internal view returns (bytes32) {
        return channels.getChannelId(configOf(payer));
    }

    function judge(uint256 payer, uint128 from, uint128 until, address to) internal returns (uint128) {
        ChannelConfig memory config = configOf(payer);
        vm.prank(arbiter);
        return till.verdict(config, from, until, to);
    }

    function markAs(uint256 payer) internal {
        ChannelConfig memory config = configOf(payer);
        vm.prank(config.payer);
        till.mark(config);
    }
}
