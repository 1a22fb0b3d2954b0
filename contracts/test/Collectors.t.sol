// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {AssayToken} from "../src/AssayToken.sol";
import {ApprovalDepositCollector} from "../src/collectors/ApprovalDepositCollector.sol";
import {DepositCollector} from "../src/collectors/DepositCollector.sol";
import {ERC3009DepositCollector} from "../src/collectors/ERC3009DepositCollector.sol";
import {PermitDepositCollector} from "../src/collectors/PermitDepositCollector.sol";
import {ChannelConfig} from "../src/interfaces/IChannels.sol";
import {ChannelFixture} from "./ChannelFixture.sol";

/// @notice Each way to deposit works, and none lets a stranger spend a payer's consent on another channel.
contract CollectorsTest is ChannelFixture {
    bytes32 private constant RECEIVE = keccak256(
        "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    );
    bytes32 private constant PERMIT =
        keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
    uint256 private constant NEVER = type(uint256).max;

    AssayToken private asy;
    ERC3009DepositCollector private authorizations;
    PermitDepositCollector private permits;
    ChannelConfig private config;
    uint256 private key;

    function setUp() public {
        setUpChannels();
        asy = new AssayToken();
        authorizations = new ERC3009DepositCollector(address(channels));
        permits = new PermitDepositCollector(address(channels));
        key = keyOf(0);
        config = configOf(0);
        config.token = address(asy);
        asy.transfer(config.payer, 1000);
    }

    function sign(bytes32 domain, bytes32 word) private view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, keccak256(abi.encodePacked(hex"1901", domain, word)));
        return abi.encodePacked(r, s, v);
    }

    /// Collector data of an ERC-3009 deposit of `amount` into the channel with this id.
    function authorization(bytes32 id, uint256 amount) private view returns (bytes memory) {
        bytes32 nonce = keccak256(abi.encode(id, uint256(7)));
        bytes32 word = keccak256(abi.encode(RECEIVE, config.payer, address(authorizations), amount, 0, NEVER, nonce));
        return abi.encode(0, NEVER, 7, sign(asy.DOMAIN_SEPARATOR(), word));
    }

    /// Collector data of a deposit by permit and consent.
    function consent(bytes32 id, uint256 amount, uint256 deadline) private view returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, permits.depositDigest(id, address(asy), amount, 5, deadline));
        return abi.encode(5, deadline, abi.encodePacked(r, s, v), permitOf(amount));
    }

    function permitOf(uint256 amount) private view returns (PermitDepositCollector.Permit memory) {
        uint256 nonce = asy.nonces(config.payer);
        bytes32 word = keccak256(abi.encode(PERMIT, config.payer, address(permits), amount, nonce, NEVER));
        bytes32 digest = keccak256(abi.encodePacked(hex"1901", asy.DOMAIN_SEPARATOR(), word));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(key, digest);
        return PermitDepositCollector.Permit(amount, NEVER, v, r, s);
    }

    function stranger() private returns (ChannelConfig memory other) {
        other = config;
        (other.receiver, other.receiverAuthorizer, other.payerAuthorizer) =
        (makeAddr("thief"), makeAddr("thief"), makeAddr("thief"));
    }

    function test_an_authorization_deposits_without_the_payers_transaction() public {
        bytes memory data = authorization(channels.getChannelId(config), 600);
        channels.deposit(config, 600, address(authorizations), data);
        vm.snapshotGasLastCall("Channels", "deposit, ERC-3009");
        assertEq(balanceOf(config), 600);
        assertEq(asy.balanceOf(address(channels)), 600);
        assertEq(asy.balanceOf(address(authorizations)), 0);
        vm.expectRevert();
        channels.deposit(config, 600, address(authorizations), data);
    }

    function test_an_authorization_is_good_for_its_channel_and_amount_only() public {
        bytes memory data = authorization(channels.getChannelId(config), 600);
        ChannelConfig memory other = stranger();
        vm.expectRevert();
        channels.deposit(other, 600, address(authorizations), data);
        vm.expectRevert();
        channels.deposit(config, 599, address(authorizations), data);
    }

    function test_a_permit_with_consent_deposits_once() public {
        bytes memory data = consent(channels.getChannelId(config), 600, NEVER);
        channels.deposit(config, 600, address(permits), data);
        vm.snapshotGasLastCall("Channels", "deposit, permit");
        assertEq(balanceOf(config), 600);
        vm.prank(config.payer);
        asy.approve(address(permits), 600);
        vm.expectPartialRevert(PermitDepositCollector.AlreadyUsed.selector);
        channels.deposit(config, 600, address(permits), data);
    }

    function test_a_permit_that_somebody_used_first_still_deposits() public {
        bytes memory data = consent(channels.getChannelId(config), 600, NEVER);
        (,,, PermitDepositCollector.Permit memory permit) =
            abi.decode(data, (uint256, uint256, bytes, PermitDepositCollector.Permit));
        asy.permit(config.payer, address(permits), permit.value, permit.deadline, permit.v, permit.r, permit.s);
        channels.deposit(config, 600, address(permits), data);
        assertEq(balanceOf(config), 600);
    }

    function test_a_consent_is_good_for_its_channel_amount_and_time_only() public {
        uint256 now_ = vm.getBlockTimestamp();
        bytes memory data = consent(channels.getChannelId(config), 600, now_);
        ChannelConfig memory other = stranger();
        vm.expectPartialRevert(PermitDepositCollector.NotConsented.selector);
        channels.deposit(other, 600, address(permits), data);
        vm.expectPartialRevert(PermitDepositCollector.NotConsented.selector);
        channels.deposit(config, 601, address(permits), data);
        skip(1);
        vm.expectRevert(abi.encodeWithSelector(PermitDepositCollector.Expired.selector, now_ + 1, now_));
        channels.deposit(config, 600, address(permits), data);
    }

    function test_an_allowance_serves_only_its_owners_own_call() public {
        vm.prank(config.payer);
        asy.approve(address(approvals), 600);
        ChannelConfig memory other = stranger();
        vm.expectPartialRevert(ApprovalDepositCollector.NotUnderWay.selector);
        channels.deposit(other, 600, address(approvals), "");
        vm.expectRevert(abi.encodeWithSelector(ApprovalDepositCollector.NotPayer.selector, address(this), config.payer));
        approvals.deposit(config, 600);
        vm.prank(config.payer);
        approvals.deposit(config, 600);
        vm.snapshotGasLastCall("Channels", "deposit, approval");
        assertEq(balanceOf(config), 600);
    }

    function test_only_the_channels_collect() public {
        DepositCollector[3] memory all = [DepositCollector(authorizations), permits, approvals];
        for (uint256 i; i < 3; ++i) {
            vm.expectRevert(
                abi.encodeWithSelector(DepositCollector.NotChannels.selector, address(this), address(channels))
            );
            all[i].collect(config.payer, address(asy), 1, 0, "");
        }
    }
}
