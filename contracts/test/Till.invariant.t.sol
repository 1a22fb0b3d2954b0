// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ChannelConfig, IChannels, Voucher, VoucherClaim} from "../src/interfaces/IChannels.sol";
import {Span} from "../src/interfaces/IReceipts.sol";
import {Account} from "../src/interfaces/ITill.sol";
import {Till} from "../src/Till.sol";
import {Base} from "./Base.sol";
import {TillFixture} from "./TillFixture.sol";

/// @notice Payers, two providers, an arbiter and time, acting in any order, beside a plain model of who was paid for
/// each position of each channel.
contract Market is TillFixture {
    /// Positions move in whole units, so that the model is short; the unit is odd, so that shares leave dust.
    uint128 public constant UNIT = 1049;
    /// Longest channel of the model, units.
    uint256 private constant LINE = 60;
    uint256 public constant CHANNELS = 4;

    enum Paid {
        Nobody,
        Provider,
        Verdict,
        OtherVerdict,
        Payer
    }

    struct Sighting {
        uint256 at;
        uint128 claimed;
    }

    /// Two receivers of verdicts, whose runs lie side by side.
    address public buyer;
    address public other;
    address[2] public owners;
    Till[2] public pair;
    uint256 public clock;
    uint256 public minted;

    /// Configs, kept because computing an address from a key is slow.
    ChannelConfig[] private _configs;
    mapping(uint256 channel => mapping(uint256 unit => Paid)) private _model;
    mapping(uint256 channel => Sighting[]) private _sightings;
    /// Base units that left each Till for the provider's side and for payers.
    uint256[2] public released;
    uint256[2] public reclaimed;

    constructor() {
        setUpTill();
        buyer = makeAddr("buyer");
        other = makeAddr("other");
        owners = [owner, makeAddr("second owner")];
        pair = [till, Till(tills.open(owners[1]))];
        clock = vm.getBlockTimestamp();
        for (uint256 i; i < CHANNELS; ++i) {
            ChannelConfig memory config = configOf(i);
            config.receiver = address(pair[i % 2]);
            _configs.push(config);
        }
    }

    modifier timed() {
        vm.warp(clock);
        _;
    }

    /// Channel `i` pays Till `i % 2`, and has a payer of its own.
    function channelOf(uint256 i) public view returns (ChannelConfig memory) {
        return _configs[i];
    }

    function deposit(uint256 i, uint256 units) external timed {
        i %= CHANNELS;
        uint128 held = balanceOf(channelOf(i));
        if (held == LINE * UNIT) return;
        uint128 amount = uint128(bound(units, 1, LINE - held / UNIT)) * UNIT;
        fund(channelOf(i), amount);
        minted += amount;
    }

    /// Vouchers may promise more than there is; such a claim must fail.
    function claim(uint256 i, uint256 units, bool packed) external timed {
        i %= CHANNELS;
        ChannelConfig memory config = channelOf(i);
        uint128 total = uint128(bound(units, 0, LINE + 5)) * UNIT;
        bytes32 digest = channels.getVoucherDigest(channels.getChannelId(config), total);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(keyOf(i), digest);
        bytes memory call;
        if (packed) {
            uint256 vs = uint256(s) | (v == 28 ? 1 << 255 : 0);
            receiver = config.receiver;
            bytes memory only = abi.encodePacked(config.payer, address(0), total, r, vs);
            call = abi.encodeCall(IChannels.claimPacked, (terms(), only));
        } else {
            VoucherClaim memory only = VoucherClaim(Voucher(config, total), abi.encodePacked(r, s, v), total);
            call = abi.encodeCall(IChannels.claim, (one(only)));
        }
        bool good = total <= balanceOf(config);
        vm.prank(authorizer);
        (bool done,) = address(channels).call(call);
        assertEq(done, good);
    }

    function cover(uint256 i, uint256 units) external timed {
        i %= CHANNELS;
        bytes32 id = channels.getChannelId(channelOf(i));
        uint128 from = receipts.covered(owners[i % 2], id);
        Span[] memory spans = new Span[](1);
        spans[0] = Span(id, from, from + uint128(bound(units, 1, 8)) * UNIT);
        vm.prank(owners[i % 2]);
        receipts.post(owners[i % 2], keccak256("root"), 1, spans);
    }

    function release(uint256 i) public timed {
        i %= CHANNELS;
        _see(i);
        uint256 until = _ripe(i);
        uint256 expected;
        for (uint256 unit; unit < until; ++unit) {
            if (_model[i][unit] != Paid.Nobody) continue;
            _model[i][unit] = Paid.Provider;
            ++expected;
        }
        uint256 amount = pair[i % 2].release(channelOf(i));
        assertEq(amount, expected * UNIT, "released");
        released[i % 2] += amount;
    }

    function verdict(uint256 i, uint256 first, uint256 size) external timed {
        i %= CHANNELS;
        _see(i);
        first = bound(first, 0, LINE - 1);
        uint256 last = first + bound(size, 1, 10);
        uint256 expected;
        for (uint256 unit = first; unit < last; ++unit) {
            if (_model[i][unit] != Paid.Nobody) continue;
            _model[i][unit] = size % 2 == 0 ? Paid.Verdict : Paid.OtherVerdict;
            ++expected;
        }
        ChannelConfig memory config = channelOf(i);
        vm.prank(arbiter);
        uint256 amount =
            pair[i % 2].verdict(config, uint128(first) * UNIT, uint128(last) * UNIT, size % 2 == 0 ? buyer : other);
        assertEq(amount, expected * UNIT, "judged");
    }

    function mark(uint256 i) public timed {
        i %= CHANNELS;
        _see(i);
        ChannelConfig memory config = channelOf(i);
        vm.prank(config.payer);
        pair[i % 2].mark(config);
    }

    function reclaim(uint256 i) public timed {
        i %= CHANNELS;
        bytes32 id = channels.getChannelId(channelOf(i));
        Account memory account = pair[i % 2].accountOf(id);
        if (account.markedAt == 0 || clock < account.markedAt + coverWindow) return;
        uint256 from = receipts.covered(owners[i % 2], id, uint48(account.markedAt + coverWindow)) / UNIT;
        // Above all claims for a whole window: words without vouchers.
        if (receipts.covered(owners[i % 2], id, account.markedAt) > claimedOf(channelOf(i))) from = 0;
        uint256 expected;
        for (uint256 unit = from; unit < account.marked / UNIT; ++unit) {
            if (_model[i][unit] != Paid.Nobody) continue;
            _model[i][unit] = Paid.Payer;
            ++expected;
        }
        if (expected == 0) return;
        _see(i);
        uint256 amount = pair[i % 2].reclaim(channelOf(i));
        assertEq(amount, expected * UNIT, "reclaimed");
        reclaimed[i % 2] += amount;
    }

    function collect(uint256 i) public timed {
        pair[i % 2].collect(address(dollar), buyer);
        pair[i % 2].collect(address(dollar), other);
    }

    function sweep(uint256 i) external timed {
        channels.settle(address(pair[i % 2]), address(dollar));
    }

    function withdraw(uint256 i) public timed {
        i %= CHANNELS;
        ChannelConfig memory config = channelOf(i);
        (uint128 amount, uint40 at) = channels.pendingWithdrawals(channels.getChannelId(config));
        uint128 unclaimed = balanceOf(config) - claimedOf(config);
        if (at == 0) {
            if (unclaimed == 0) return;
            vm.prank(config.payer);
            channels.initiateWithdraw(config, unclaimed);
        } else if (clock >= at + DELAY) {
            vm.prank(config.payer);
            channels.finalizeWithdraw(config);
            // What was claimed meanwhile stays.
            assertEq(balanceOf(config) - claimedOf(config), amount < unclaimed ? unclaimed - amount : 0);
        }
    }

    function refund(uint256 i, uint256 units) external timed {
        ChannelConfig memory config = channelOf(i % CHANNELS);
        vm.prank(authorizer);
        channels.refund(config, uint128(bound(units, 1, 5)) * UNIT);
    }

    function wait(uint256 time) external {
        clock += bound(time, 1, coverWindow);
    }

    /// Everyone goes home: all windows pass, and everyone takes what is his.
    function close() external {
        for (uint256 i; i < CHANNELS; ++i) {
            mark(i);
        }
        clock += disputeWindow + coverWindow;
        for (uint256 i; i < CHANNELS; ++i) {
            reclaim(i);
            release(i);
            collect(i);
            withdraw(i);
        }
        clock += DELAY;
        for (uint256 i; i < CHANNELS; ++i) {
            withdraw(i);
        }
        for (uint256 i; i < CHANNELS; ++i) {
            withdraw(i);
        }
        clock += DELAY;
        for (uint256 i; i < CHANNELS; ++i) {
            withdraw(i);
        }
    }

    // What the invariants ask.

    function totals(uint256 which) external view returns (uint256 claimed, uint256 paid, uint256 held) {
        for (uint256 i = which; i < CHANNELS; i += 2) {
            claimed += claimedOf(channelOf(i));
        }
        (uint128 all, uint128 settled) = channels.receivers(address(pair[which]), address(dollar));
        held = dollar.balanceOf(address(pair[which])) + all - settled;
        paid = released[which] + reclaimed[which];
    }

    function channelsHold() external view returns (uint256 held, uint256 owing) {
        held = dollar.balanceOf(address(channels));
        for (uint256 i; i < CHANNELS; ++i) {
            owing += balanceOf(channelOf(i)) - claimedOf(channelOf(i));
        }
        for (uint256 which; which < 2; ++which) {
            (uint128 all, uint128 settled) = channels.receivers(address(pair[which]), address(dollar));
            owing += all - settled;
        }
    }

    function claimedIsCovered() external view returns (bool) {
        for (uint256 i; i < CHANNELS; ++i) {
            if (claimedOf(channelOf(i)) > balanceOf(channelOf(i))) return false;
        }
        return true;
    }

    function balance(address account) external view returns (uint256) {
        return dollar.balanceOf(account);
    }

    function owed(uint256 which, address to) external view returns (uint256) {
        return pair[which].owed(address(dollar), to);
    }

    function everyone() external view returns (uint256 sum) {
        sum = dollar.balanceOf(buyer) + dollar.balanceOf(other) + dollar.balanceOf(fees) + dollar.balanceOf(treasury)
            + dollar.balanceOf(owners[0]) + dollar.balanceOf(owners[1]);
        for (uint256 i; i < CHANNELS; ++i) {
            sum += dollar.balanceOf(channelOf(i).payer);
        }
    }

    /// What verdicts gave the buyer, or the other, and was claimed.
    function judged(bool toOther) external view returns (uint256 sum) {
        Paid kind = toOther ? Paid.OtherVerdict : Paid.Verdict;
        for (uint256 i; i < CHANNELS; ++i) {
            uint256 claimed = claimedOf(channelOf(i)) / UNIT;
            for (uint256 unit; unit < claimed; ++unit) {
                if (_model[i][unit] == kind) sum += UNIT;
            }
        }
    }

    function channelsAddress() external view returns (address) {
        return address(channels);
    }

    /// The channel's Till looks at its claims.
    function _see(uint256 i) private {
        _sightings[i].push(Sighting(clock, claimedOf(channelOf(i))));
    }

    /// Units of the channel that may be released now.
    function _ripe(uint256 i) private view returns (uint256) {
        bytes32 id = channels.getChannelId(channelOf(i));
        uint128 covered = receipts.covered(owners[i % 2], id, uint48(clock - disputeWindow));
        uint128 claimed;
        for (uint256 k; k < _sightings[i].length; ++k) {
            if (_sightings[i][k].at + disputeWindow <= clock) claimed = _sightings[i][k].claimed;
        }
        return (covered < claimed ? covered : claimed) / UNIT;
    }
}

/// @notice Channels and Tills conserve money to the base unit, pay each position once, and keep nothing.
contract TillInvariants is Base {
    Market private market;

    function setUp() public {
        market = new Market();
        targetContract(address(market));
        bytes4[] memory acts = new bytes4[](12);
        acts[0] = Market.deposit.selector;
        acts[1] = Market.claim.selector;
        acts[2] = Market.cover.selector;
        acts[3] = Market.release.selector;
        acts[4] = Market.verdict.selector;
        acts[5] = Market.mark.selector;
        acts[6] = Market.reclaim.selector;
        acts[7] = Market.collect.selector;
        acts[8] = Market.sweep.selector;
        acts[9] = Market.withdraw.selector;
        acts[10] = Market.refund.selector;
        acts[11] = Market.wait.selector;
        targetSelector(FuzzSelector(address(market), acts));
    }

    /// One campaign for all laws: it is the acting that takes time, not the asking.
    function invariant_money_is_where_it_belongs() public view {
        checkDeposits();
        checkChannels();
        checkPromises();
        checkTills();
    }

    /// A channel never owes its receiver more than was put into it.
    function checkDeposits() private view {
        assertTrue(market.claimedIsCovered());
    }

    /// Channels hold what is unclaimed and what is unsettled, and nothing else.
    function checkChannels() private view {
        (uint256 held, uint256 owing) = market.channelsHold();
        assertEq(held, owing);
    }

    /// Nobody is promised more than is there, and what went back to a payer is promised to nobody.
    function checkPromises() private view {
        for (uint256 which; which < 2; ++which) {
            (,, uint256 held) = market.totals(which);
            assertLe(market.owed(which, market.buyer()) + market.owed(which, market.other()), held);
            assertEq(market.owed(which, address(0)), 0);
        }
    }

    /// What was claimed for the Tills is what they and the channels still hold for them, and what they paid.
    function checkTills() private view {
        uint256 claimed;
        uint256 left;
        for (uint256 which; which < 2; ++which) {
            (uint256 mine, uint256 paid, uint256 held) = market.totals(which);
            claimed += mine;
            left += paid + held;
        }
        assertEq(left + market.balance(market.buyer()) + market.balance(market.other()), claimed);
    }

    /// Nothing is locked: when everyone takes what is his, nothing is left, and all of it is with someone.
    function afterInvariant() public {
        market.close();
        assertEq(market.balance(address(market.pair(0))), 0, "first till");
        assertEq(market.balance(address(market.pair(1))), 0, "second till");
        assertEq(market.balance(market.channelsAddress()), 0, "channels");
        assertEq(market.everyone(), market.minted(), "everyone");
        assertEq(market.balance(market.buyer()), market.judged(false), "buyer");
        assertEq(market.balance(market.other()), market.judged(true), "other");
        invariant_money_is_where_it_belongs();
    }
}
