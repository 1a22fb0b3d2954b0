// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ChannelConfig, VoucherClaim} from "../src/interfaces/IChannels.sol";
import {ChannelFixture} from "./ChannelFixture.sol";

/// @notice What the entry points of Channels cost: whole transactions, calldata included.
contract ChannelsGasTest is ChannelFixture {
    uint256 private constant MOST = 100;
    /// What the claim of one voucher costs in a hundred with 80-byte rows in a contract that can do nothing else.
    uint256 private constant LEAN = 10_405;

    function setUp() public {
        setUpChannels();
        for (uint256 payer; payer < MOST; ++payer) {
            open(payer);
        }
        // The receiver's own word exists, as it does for a receiver that was paid before.
        open(MOST);
        VoucherClaim[] memory first = one(row(MOST, 1, 1));
        vm.prank(receiver);
        channels.claim(first);
    }

    function rowsOf(uint256 count, uint128 total) private view returns (VoucherClaim[] memory rows) {
        rows = new VoucherClaim[](count);
        for (uint256 payer; payer < count; ++payer) {
            rows[payer] = row(payer, DEPOSIT, total);
        }
    }

    function packedOf(uint256 count, uint128 total) private view returns (bytes memory rows) {
        for (uint256 payer; payer < count; ++payer) {
            rows = bytes.concat(rows, packedRow(payer, total));
        }
    }

    function claimGas(uint256 count) private returns (uint256) {
        VoucherClaim[] memory rows = rowsOf(count, 700_000);
        vm.prank(receiver);
        channels.claim(rows);
        return vm.snapshotGasLastCall("Channels", string.concat("claim ", vm.toString(count)));
    }

    function claimWithSignatureGas(uint256 count) private returns (uint256) {
        VoucherClaim[] memory rows = rowsOf(count, 700_000);
        bytes memory signature = signBatch(rows);
        channels.claimWithSignature(rows, signature);
        return vm.snapshotGasLastCall("Channels", string.concat("claimWithSignature ", vm.toString(count)));
    }

    function claimPackedGas(uint256 count) private returns (uint256) {
        bytes memory rows = packedOf(count, 700_000);
        vm.prank(receiver);
        channels.claimPacked(terms(), rows);
        return vm.snapshotGasLastCall("Channels", string.concat("claimPacked ", vm.toString(count)));
    }

    function test_claim_1() public {
        claimGas(1);
    }

    function test_claim_10() public {
        claimGas(10);
    }

    /// The public deployment's rows, in a re-implementation that reverts instead of skipping, cost 22,322 each.
    function test_claim_100_costs_less_per_row_than_the_public_contract() public {
        assertLe(claimGas(100) / 100, 22_322);
    }

    function test_claimWithSignature_1() public {
        claimWithSignatureGas(1);
    }

    function test_claimWithSignature_10() public {
        claimWithSignatureGas(10);
    }

    /// As above: 25,316.
    function test_claimWithSignature_100_costs_less_per_row_than_the_public_contract() public {
        assertLe(claimWithSignatureGas(100) / 100, 25_316);
    }

    function test_claimPacked_1() public {
        claimPackedGas(1);
    }

    function test_claimPacked_10() public {
        claimPackedGas(10);
    }

    function test_claimPacked_100_costs_at_most_a_tenth_more_than_the_lean_floor() public {
        assertLe(claimPackedGas(100) / 100, LEAN * 11 / 10);
    }

    function test_the_other_entry_points() public {
        VoucherClaim[] memory rows = one(row(0, 500, 400));
        vm.prank(receiver);
        channels.claim(rows);
        channels.settle(receiver, address(dollar));
        vm.snapshotGasLastCall("Channels", "settle");
        ChannelConfig memory config = configOf(0);
        vm.prank(config.payer);
        channels.initiateWithdraw(config, 1000);
        vm.snapshotGasLastCall("Channels", "initiateWithdraw");
        skip(DELAY);
        vm.prank(config.payer);
        channels.finalizeWithdraw(config);
        vm.snapshotGasLastCall("Channels", "finalizeWithdraw");
        vm.prank(receiver);
        channels.refund(config, 1000);
        vm.snapshotGasLastCall("Channels", "refund");
        bytes32 digest = channels.getRefundDigest(channels.getChannelId(config), 1, 1000);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(authorizerKey, digest);
        channels.refundWithSignature(config, 1000, 1, abi.encodePacked(r, s, v));
        vm.snapshotGasLastCall("Channels", "refundWithSignature");
    }
}
