// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Channels} from "../src/Channels.sol";
import {ApprovalDepositCollector} from "../src/collectors/ApprovalDepositCollector.sol";
import {ChannelConfig, Terms, Voucher, VoucherClaim} from "../src/interfaces/IChannels.sol";
import {Base} from "./Base.sol";
import {Dollar} from "./Dollar.sol";

/// @notice Channels with payers, a receiver and a dollar: what the tests of everything that pays begin with.
abstract contract ChannelFixture is Base {
    uint128 internal constant DEPOSIT = 1_000_000;
    uint40 internal constant DELAY = 900;

    Channels internal channels;
    ApprovalDepositCollector internal approvals;
    Dollar internal dollar;
    address internal receiver;
    address internal authorizer;
    uint256 internal authorizerKey;

    function setUpChannels() internal {
        vm.warp(1_800_000_000);
        channels = new Channels();
        approvals = new ApprovalDepositCollector(address(channels));
        dollar = new Dollar();
        receiver = makeAddr("receiver");
        (authorizer, authorizerKey) = makeAddrAndKey("authorizer");
    }

    /// The key of the payer with this number.
    function keyOf(uint256 payer) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode("payer", payer))) >> 1 | 1;
    }

    /// The channel of the payer with this number; its own key signs its vouchers.
    function configOf(uint256 payer) internal view returns (ChannelConfig memory) {
        address account = vm.addr(keyOf(payer));
        return ChannelConfig(account, account, receiver, authorizer, address(dollar), DELAY, 0);
    }

    function terms() internal view returns (Terms memory) {
        return Terms(receiver, authorizer, address(dollar), DELAY, 0);
    }

    /// Mints and deposits, by the payer's own transaction.
    function fund(ChannelConfig memory config, uint128 amount) internal {
        Dollar(config.token).mint(config.payer, amount);
        vm.prank(config.payer);
        Dollar(config.token).approve(address(approvals), amount);
        vm.prank(config.payer);
        approvals.deposit(config, amount);
    }

    /// A funded channel of the payer with this number.
    function open(uint256 payer) internal returns (ChannelConfig memory config) {
        config = configOf(payer);
        fund(config, DEPOSIT);
    }

    function signVoucher(uint256 key, ChannelConfig memory config, uint128 ceiling)
        internal
        view
        returns (bytes memory)
    {
        (uint8 v, bytes32 r, bytes32 s) =
            vm.sign(key, channels.getVoucherDigest(channels.getChannelId(config), ceiling));
        return abi.encodePacked(r, s, v);
    }

    /// A good row: what the payer with this number signed, claimed up to `total`.
    function row(uint256 payer, uint128 ceiling, uint128 total) internal view returns (VoucherClaim memory) {
        ChannelConfig memory config = configOf(payer);
        return VoucherClaim(Voucher(config, ceiling), signVoucher(keyOf(payer), config, ceiling), total);
    }

    /// The same as a packed row, of a channel whose payer signs.
    function packedRow(uint256 payer, uint128 ceiling) internal view returns (bytes memory) {
        ChannelConfig memory config = configOf(payer);
        bytes32 digest = channels.getVoucherDigest(channels.getChannelId(config), ceiling);
        (bytes32 r, bytes32 vs) = vm.signCompact(keyOf(payer), digest);
        return abi.encodePacked(config.payer, address(0), ceiling, r, vs);
    }

    function one(VoucherClaim memory only) internal pure returns (VoucherClaim[] memory rows) {
        rows = new VoucherClaim[](1);
        rows[0] = only;
    }

    function signBatch(VoucherClaim[] memory rows) internal view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(authorizerKey, channels.getClaimBatchDigest(rows));
        return abi.encodePacked(r, s, v);
    }

    function claimedOf(ChannelConfig memory config) internal view returns (uint128 claimed) {
        (, claimed) = channels.channels(channels.getChannelId(config));
    }

    function balanceOf(ChannelConfig memory config) internal view returns (uint128 balance) {
        (balance,) = channels.channels(channels.getChannelId(config));
    }
}
