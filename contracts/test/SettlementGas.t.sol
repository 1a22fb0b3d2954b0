// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ChannelConfig} from "../src/interfaces/IChannels.sol";
import {Span} from "../src/interfaces/IReceipts.sol";
import {TillFixture} from "./TillFixture.sol";

/// @notice What the chain costs per answer when a provider settles in bulk, everything included: whole transactions
/// from the first deposit to the last wei in the provider's hand.
contract SettlementGasTest is TillFixture {
    uint256 private constant CHANNELS = 100;
    uint128 private constant SPENT = 700_000;
    uint256 private spent;
    uint256 private claiming;
    /// What of `spent` the payers pay: all before the first receipt is posted.
    uint256 private depositing;

    function setUp() public {
        setUpTill();
        // A provider that was paid before: its words and its receivers' exist.
        open(CHANNELS);
        claimUpTo(CHANNELS, SPENT);
        coverUpTo(CHANNELS, SPENT);
        skip(disputeWindow);
        till.release(configOf(CHANNELS));
    }

    /// Counts the transaction that was the last call.
    function count() private returns (uint256 gas) {
        gas = vm.lastCallGas().gasTotalUsed;
        spent += gas;
    }

    function settle() private {
        Span[] memory spans = new Span[](CHANNELS);
        ChannelConfig[] memory configs = new ChannelConfig[](CHANNELS);
        bytes memory rows;
        for (uint256 payer; payer < CHANNELS; ++payer) {
            ChannelConfig memory config = configOf(payer);
            configs[payer] = config;
            dollar.mint(config.payer, DEPOSIT);
            vm.prank(config.payer);
            dollar.approve(address(approvals), DEPOSIT);
            count();
            vm.prank(config.payer);
            approvals.deposit(config, DEPOSIT);
            count();
            spans[payer] = Span(idOf(payer), 0, SPENT);
            rows = bytes.concat(rows, packedRow(payer, SPENT));
        }
        depositing = spent;
        vm.prank(owner);
        receipts.post(owner, keccak256("root"), 1000, spans);
        count();
        vm.prank(authorizer);
        channels.claimPacked(terms(), rows);
        claiming = count();
        till.releaseAll(configs);
        count();
        skip(disputeWindow);
        till.releaseAll(configs);
        count();
    }

    function test_a_thousand_answers_a_channel_cost_at_most_400_gas_each() public {
        uint256 before = dollar.balanceOf(owner);
        settle();
        assertGt(dollar.balanceOf(owner), before + CHANNELS * SPENT * 9 / 10);
        for (uint256 answers = 10; answers <= 1000; answers *= 10) {
            string memory name = string.concat(vm.toString(answers), " answers a channel, gas each");
            vm.snapshotValue("Settlement", name, spent / CHANNELS / answers);
            vm.snapshotValue("Settlement", string.concat(name, ", claim alone"), claiming / CHANNELS / answers);
        }
        vm.snapshotValue("Settlement", "a channel, the provider's part", (spent - depositing) / CHANNELS);
        assertLe(spent / CHANNELS / 1000, 400);
        assertLe(claiming / CHANNELS / 1000, 150);
    }
}
