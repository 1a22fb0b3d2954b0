// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";
import {IDepositCollector} from "../src/interfaces/IDepositCollector.sol";
import {ChannelConfig, IChannels, Voucher, VoucherClaim} from "../src/interfaces/IChannels.sol";
import {Span} from "../src/interfaces/IReceipts.sol";
import {ITill} from "../src/interfaces/ITill.sol";
import {TillFixture} from "./TillFixture.sol";

/// @notice A token that takes a share of each transfer, refuses receivers, calls whom it is told to, or invents
/// balances.
contract HostileToken is ERC20 {
    uint256 public fee;
    mapping(address => bool) public refused;
    address private _target;
    bytes private _call;
    bytes public answer;
    bool public succeeded;
    uint256 private _invented;

    constructor() ERC20("Hostile", "HOS") {}

    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }

    function setFee(uint256 bps) external {
        fee = bps;
    }

    function refuse(address to, bool yes) external {
        refused[to] = yes;
    }

    function callBack(address target, bytes calldata data) external {
        (_target, _call) = (target, data);
    }

    function invent(uint256 amount) external {
        _invented += amount;
    }

    function balanceOf(address account) public view override returns (uint256) {
        return super.balanceOf(account) + _invented;
    }

    function _update(address from, address to, uint256 amount) internal override {
        require(!refused[to], "refused");
        uint256 taken = from == address(0) ? 0 : amount * fee / 10_000;
        super._update(from, to, amount - taken);
        if (taken != 0) super._update(from, address(0), taken);
        if (_target == address(0)) return;
        (succeeded, answer) = _target.call(_call);
    }
}

/// @notice Says that it brought tokens, and lets the token say so too.
contract Inventor is IDepositCollector {
    function collect(address, address token, uint256 amount, bytes32, bytes calldata) external {
        HostileToken(token).invent(amount);
    }
}

/// @notice A hostile token harms nobody but its own holders.
contract HostileTokensTest is TillFixture {
    HostileToken private token;

    function setUp() public {
        setUpTill();
        token = new HostileToken();
    }

    function hostile(uint256 payer) private view returns (ChannelConfig memory config) {
        config = configOf(payer);
        config.token = address(token);
    }

    function rowOf(uint256 payer, uint128 total) private view returns (VoucherClaim memory) {
        ChannelConfig memory config = hostile(payer);
        return VoucherClaim(Voucher(config, total), signVoucher(keyOf(payer), config, total), total);
    }

    function claimHostile(uint256 payer, uint128 total) private {
        VoucherClaim[] memory rows = one(rowOf(payer, total));
        vm.prank(authorizer);
        channels.claim(rows);
    }

    function coverHostile(uint256 payer, uint128 position) private {
        Span[] memory spans = new Span[](1);
        spans[0] = Span(channels.getChannelId(hostile(payer)), 0, position);
        vm.prank(owner);
        receipts.post(owner, keccak256("root"), 1, spans);
    }

    function test_a_fee_on_transfer_is_not_credited() public {
        token.setFee(100);
        fund(hostile(0), 1000);
        assertEq(balanceOf(hostile(0)), 990);
        assertEq(token.balanceOf(address(channels)), 990);
    }

    function test_a_token_that_brings_nothing_is_refused() public {
        token.setFee(10_000);
        ChannelConfig memory config = hostile(0);
        token.mint(config.payer, 1000);
        vm.startPrank(config.payer);
        token.approve(address(approvals), 1000);
        vm.expectRevert(IChannels.DepositCollectionFailed.selector);
        approvals.deposit(config, 1000);
        vm.stopPrank();
    }

    /// Two deposits that no token could bear overflow the receiver's sum; the honest row beside them is paid.
    function test_an_invented_fortune_does_not_stop_an_honest_row() public {
        Inventor inventor = new Inventor();
        uint128 most = type(uint128).max;
        for (uint256 i; i < 2; ++i) {
            channels.deposit(hostile(i), most, address(inventor), "");
        }
        open(2);
        VoucherClaim[] memory rows = new VoucherClaim[](3);
        (rows[0], rows[1], rows[2]) = (rowOf(0, most), rowOf(1, most), row(2, 500, 400));
        bytes32 second = channels.getChannelId(hostile(1));
        vm.expectEmit(address(channels));
        emit IChannels.Skipped(1, second, IChannels.ReceiverOverflow.selector);
        vm.prank(authorizer);
        channels.claim(rows);
        assertEq(claimedOf(configOf(2)), 400);
    }

    function test_more_than_a_channel_can_hold_is_refused() public {
        Inventor inventor = new Inventor();
        channels.deposit(hostile(0), type(uint128).max, address(inventor), "");
        ChannelConfig memory config = hostile(0);
        vm.expectRevert(IChannels.DepositOverflow.selector);
        channels.deposit(config, 1, address(inventor), "");
    }

    /// Whatever a transfer calls, it finds the door shut.
    function test_a_token_cannot_enter_again() public {
        fund(hostile(0), 1000);
        claimHostile(0, 600);
        coverHostile(0, 600);
        see(hostile(0));
        skip(disputeWindow);
        bytes memory shut = abi.encodeWithSignature("ReentrancyGuardReentrantCall()");

        token.callBack(address(channels), abi.encodeCall(IChannels.settle, (address(till), address(token))));
        channels.settle(address(till), address(token));
        assertFalse(token.succeeded());
        assertEq(token.answer(), shut);

        token.callBack(address(till), abi.encodeCall(ITill.release, (hostile(0))));
        till.release(hostile(0));
        assertFalse(token.succeeded());
        assertEq(token.answer(), shut);
        assertEq(token.balanceOf(owner), 558);

        ChannelConfig memory config = hostile(0);
        token.callBack(address(channels), abi.encodeCall(IChannels.refund, (config, 400)));
        vm.prank(authorizer);
        channels.refund(config, 400);
        assertFalse(token.succeeded());
        assertEq(token.balanceOf(config.payer), 400);
    }

    function test_a_refused_receiver_stops_nobody_and_is_paid_later() public {
        fund(hostile(0), 1000);
        claimHostile(0, 1000);
        coverHostile(0, 1000);
        see(hostile(0));
        skip(disputeWindow);
        token.refuse(treasury, true);
        token.refuse(owner, true);
        assertEq(till.release(hostile(0)), 1000);
        assertEq(token.balanceOf(fees), 20);
        assertEq(till.owed(address(token), treasury), 50);
        assertEq(till.owed(address(token), owner), 930);
        assertEq(till.collect(address(token), treasury), 0);
        token.refuse(owner, false);
        token.refuse(treasury, false);
        assertEq(till.collect(address(token), treasury), 50);
        assertEq(till.collect(address(token), owner), 930);
        assertEq(token.balanceOf(address(till)), 0);
    }

    /// The fee is borne in this token alone; the dollar beside it stays whole.
    function test_a_fee_on_the_way_out_touches_no_other_token() public {
        open(1);
        claimUpTo(1, 1000);
        coverUpTo(1, 1000);
        fund(hostile(0), 1000);
        claimHostile(0, 1000);
        coverHostile(0, 1000);
        see(hostile(0));
        token.setFee(1000);
        skip(disputeWindow);
        till.release(hostile(0));
        till.collect(address(token), owner);
        assertEq(token.balanceOf(address(till)), 0);
        assertEq(till.release(configOf(1)), 1000);
        assertEq(dollar.balanceOf(owner), 930);
    }
}
