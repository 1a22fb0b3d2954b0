// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {AssayToken} from "../src/AssayToken.sol";
import {Parameters} from "../src/Parameters.sol";
import {Providers} from "../src/Providers.sol";
import {Value} from "../src/interfaces/IParameters.sol";
import {Provider} from "../src/interfaces/IProviders.sol";
import {Seat} from "../src/interfaces/ISeats.sol";
import {Unbonding} from "../src/libraries/Stakes.sol";
import {Base} from "./Base.sol";
import {Staking} from "./Staking.sol";

/// @notice Does with stakes whatever may be done, and keeps its own books beside the registry's.
contract Stakers is Base {
    Providers private immutable PROVIDERS;
    AssayToken private immutable TOKEN;
    Parameters private immutable PARAMETERS;
    address private immutable CHALLENGER = makeAddr("challenger");

    address[] public owners;
    uint256 public staked;
    uint256 public withdrawn;
    uint256 public burned;
    uint256 public rewarded;
    uint64 private _epoch;

    /// What an owner asked back, and when it is due at the earliest.
    mapping(address => Unbonding[]) private _asked;
    mapping(address => uint256) public withdrawnBy;

    constructor(Providers providers, AssayToken token, Parameters parameters, address[] memory owners_) {
        (PROVIDERS, TOKEN, PARAMETERS, owners) = (providers, token, parameters, owners_);
    }

    function stake(uint256 who, uint128 amount) external {
        address owner = _owner(who);
        amount = uint128(bound(amount, 1, 300_000e18));
        TOKEN.transfer(owner, amount);
        vm.startPrank(owner);
        TOKEN.approve(address(PROVIDERS), amount);
        PROVIDERS.stake(amount);
        vm.stopPrank();
        staked += amount;
    }

    function unbond(uint256 who, uint128 amount) external {
        address owner = _owner(who);
        uint128 bonded = PROVIDERS.provider(owner).bonded;
        if (bonded == 0 || PROVIDERS.unbondings(owner).length == 16) return;
        amount = amount > bonded ? bonded : uint128(bound(amount, 1, bonded));
        vm.prank(owner);
        PROVIDERS.unbond(amount);
        uint256 release = block.timestamp + PARAMETERS.value(Value.UnbondingDelay);
        _asked[owner].push(Unbonding(amount, uint64(release)));
    }

    function withdraw(uint256 who) external {
        address owner = _first(who, _hasDue);
        uint256 due = _due(owner);
        if (due == 0) return;
        uint256 before = TOKEN.balanceOf(owner);
        vm.prank(owner);
        assertEq(PROVIDERS.withdraw(), due);
        assertEq(TOKEN.balanceOf(owner) - before, due);
        withdrawn += due;
        withdrawnBy[owner] += due;
    }

    function slash(uint256 who, uint256 bps, bool challenged) external {
        if (bps % 2 == 0) return;
        address owner = _owner(who);
        bps = bound(bps, PARAMETERS.value(Value.SlashLeast), PARAMETERS.value(Value.SlashMost));
        address arbiter = PARAMETERS.arbiter();
        address challenger = challenged ? CHALLENGER : address(0);
        uint256 expected = _expected(owner, bps);
        uint256 before = _open();
        vm.prank(arbiter);
        PROVIDERS.slash(owner, bps, challenger, "verdict");
        assertEq(_close(before), expected);
    }

    function reportAbsence(uint256 who) external {
        address owner = _first(who, _isAbsent);
        if (!_isAbsent(owner)) return;
        uint256 expected = _expected(owner, PARAMETERS.value(Value.SlashLeast));
        uint256 before = _open();
        vm.prank(CHALLENGER);
        PROVIDERS.reportAbsence(owner);
        assertEq(_close(before), expected);
    }

    function heartbeat(uint256 who) external {
        address operator = PROVIDERS.provider(_owner(who)).operator;
        vm.prank(operator);
        PROVIDERS.heartbeat();
    }

    function unjail(uint256 who) external {
        address owner = _first(who, _mayLeaveJail);
        if (!_mayLeaveJail(owner)) return;
        vm.prank(owner);
        PROVIDERS.unjail();
    }

    function takeSeat(uint256 who) external {
        address owner = _first(who, _maySit);
        if (!_maySit(owner)) return;
        vm.prank(owner);
        PROVIDERS.takeSeat(keccak256(abi.encode(owner, block.timestamp)), "s");
    }

    function leaveSeat(uint256 who) external {
        Seat[] memory seats = PROVIDERS.seats();
        address owner = seats[who % seats.length].owner;
        if (!_known(owner)) return;
        vm.prank(owner);
        PROVIDERS.leaveSeat();
    }

    function equivocate(uint256 who) external {
        if (who % 4 != 0) return;
        Seat[] memory seats = PROVIDERS.seats();
        Seat memory seat = seats[who / 4 % seats.length];
        uint256 expected = _known(seat.owner) ? _expected(seat.owner, PARAMETERS.value(Value.SlashMost)) : 0;
        vm.mockCall(PROVIDERS.EQUIVOCATION(), "evidence", abi.encode(seat.key, _epoch++));
        uint256 before = _open();
        vm.prank(CHALLENGER);
        PROVIDERS.reportEquivocation("evidence");
        assertEq(_close(before), expected);
    }

    function wait(uint256 time) external {
        skip(bound(time, 1, 10 days));
    }

    function govern(uint256 delay, uint256 seats) external {
        address governor = PARAMETERS.governor();
        vm.startPrank(governor);
        PARAMETERS.set(Value.UnbondingDelay, bound(delay, 2 days, 30 days));
        PARAMETERS.set(Value.Seats, bound(seats, 1, 5));
        vm.stopPrank();
    }

    /// What `owner` may have withdrawn by now had it never been slashed.
    function dueTo(address owner) external view returns (uint256 due) {
        for (uint256 i = 0; i < _asked[owner].length; i++) {
            if (_asked[owner][i].release <= block.timestamp) due += _asked[owner][i].amount;
        }
    }

    function count() external view returns (uint256) {
        return owners.length;
    }

    /// Everybody leaves: what is due, then the rest.
    function leave() external {
        for (uint256 i = 0; i < owners.length; i++) {
            skip(90 days);
            this.withdraw(i);
            this.unbond(i, type(uint128).max);
            skip(90 days);
            this.withdraw(i);
        }
    }

    function _owner(uint256 who) private view returns (address) {
        return owners[who % owners.length];
    }

    /// The first owner from `who` on of whom `holds` is true; `who` itself if there is none.
    function _first(uint256 who, function(address) view returns (bool) holds) private view returns (address) {
        for (uint256 i = 0; i < owners.length; i++) {
            address owner = _owner(who % owners.length + i);
            if (holds(owner)) return owner;
        }
        return _owner(who);
    }

    function _due(address owner) private view returns (uint256 due) {
        Unbonding[] memory queue = PROVIDERS.unbondings(owner);
        for (uint256 i = 0; i < queue.length; i++) {
            if (queue[i].release <= block.timestamp) due += queue[i].amount;
        }
    }

    function _hasDue(address owner) private view returns (bool) {
        return _due(owner) != 0;
    }

    function _isAbsent(address owner) private view returns (bool) {
        Provider memory found = PROVIDERS.provider(owner);
        bool onDuty = found.jailedUntil == 0 && found.bonded >= PARAMETERS.value(Value.TierBronze);
        return onDuty && block.timestamp > found.heartbeat + PARAMETERS.value(Value.AbsenceLimit);
    }

    function _mayLeaveJail(address owner) private view returns (bool) {
        Provider memory found = PROVIDERS.provider(owner);
        bool over = found.jailedUntil != 0 && block.timestamp >= found.jailedUntil;
        return over && found.bonded >= PARAMETERS.value(Value.TierBronze);
    }

    function _maySit(address owner) private view returns (bool) {
        Provider memory found = PROVIDERS.provider(owner);
        return found.jailedUntil == 0 && found.bonded >= PARAMETERS.value(Value.SeatStake);
    }

    function _known(address owner) private view returns (bool) {
        for (uint256 i = 0; i < owners.length; i++) {
            if (owners[i] == owner) return true;
        }
        return false;
    }

    /// What a slash of `bps` takes: its share of what is bonded and of each amount on its way out.
    function _expected(address owner, uint256 bps) private view returns (uint256 taken) {
        taken = PROVIDERS.provider(owner).bonded * bps / 10_000;
        Unbonding[] memory queue = PROVIDERS.unbondings(owner);
        for (uint256 i = 0; i < queue.length; i++) {
            taken += queue[i].amount * bps / 10_000;
        }
    }

    /// Before a slash: what there is of the token, and what the challenger has, to be compared in `_close`.
    function _open() private view returns (uint256) {
        return TOKEN.totalSupply() << 128 | TOKEN.balanceOf(CHALLENGER);
    }

    /// Books what a slash burned and paid; returns the sum.
    function _close(uint256 before) private returns (uint256) {
        uint256 burnt = (before >> 128) - TOKEN.totalSupply();
        uint256 paid = TOKEN.balanceOf(CHALLENGER) - uint128(before);
        burned += burnt;
        rewarded += paid;
        return burnt + paid;
    }
}

/// @notice Laws of stakes, whatever happens in whatever order.
contract StakesInvariants is Staking {
    Stakers private stakers;

    function setUp() public override {
        super.setUp();
        address[] memory owners = new address[](5);
        for (uint256 i = 0; i < 5; i++) {
            (owners[i],) = enrol(vm.toString(i));
        }
        stakers = new Stakers(providers, token, parameters, owners);
        require(token.transfer(address(stakers), token.balanceOf(address(this))), "no transfer");
        // Everybody starts with a seat, so that there is something to lose.
        parameters.set(Value.Seats, 3);
        for (uint256 i = 0; i < 5; i++) {
            stakers.stake(i, 300_000e18);
            stakers.takeSeat(i);
        }

        bytes4[] memory selectors = new bytes4[](12);
        selectors[0] = Stakers.stake.selector;
        selectors[1] = Stakers.unbond.selector;
        selectors[2] = Stakers.withdraw.selector;
        selectors[3] = Stakers.slash.selector;
        selectors[4] = Stakers.reportAbsence.selector;
        selectors[5] = Stakers.heartbeat.selector;
        selectors[6] = Stakers.unjail.selector;
        selectors[7] = Stakers.takeSeat.selector;
        selectors[8] = Stakers.leaveSeat.selector;
        selectors[9] = Stakers.equivocate.selector;
        selectors[10] = Stakers.wait.selector;
        selectors[11] = Stakers.govern.selector;
        targetContract(address(stakers));
        targetSelector(FuzzSelector(address(stakers), selectors));
    }

    /// One run checks all laws after each call, because runs are what takes time.
    /// forge-config: default.invariant.runs = 32
    function invariant_stakes_obey_their_laws() public view {
        _whatCameInWentOutOrBurnedOrWasPaidOrIsHeld();
        _theQueueIsBoundedAndAddsUp();
        _nobodyWithdrawsBeforeTheDelay();
        _seatsAreNeverEmptyBoundedAndHeldByStake();
        _whoIsActiveMayBeBoughtFrom();
    }

    function _whatCameInWentOutOrBurnedOrWasPaidOrIsHeld() private view {
        uint256 held = token.balanceOf(address(providers));
        assertEq(stakers.staked(), stakers.withdrawn() + stakers.burned() + stakers.rewarded() + held);
        assertEq(token.totalSupply(), token.SUPPLY() - stakers.burned());
        uint256 sum = 0;
        for (uint256 i = 0; i < stakers.count(); i++) {
            Provider memory found = providers.provider(stakers.owners(i));
            sum += uint256(found.bonded) + found.unbonding;
        }
        assertEq(held, sum);
    }

    function _theQueueIsBoundedAndAddsUp() private view {
        for (uint256 i = 0; i < stakers.count(); i++) {
            Unbonding[] memory queue = providers.unbondings(stakers.owners(i));
            assertLe(queue.length, 16);
            uint256 sum = 0;
            for (uint256 j = 0; j < queue.length; j++) {
                sum += queue[j].amount;
                assertGt(queue[j].amount, 0);
            }
            assertEq(sum, providers.provider(stakers.owners(i)).unbonding);
        }
    }

    function _nobodyWithdrawsBeforeTheDelay() private view {
        for (uint256 i = 0; i < stakers.count(); i++) {
            address owner = stakers.owners(i);
            assertLe(stakers.withdrawnBy(owner), stakers.dueTo(owner));
        }
    }

    function _seatsAreNeverEmptyBoundedAndHeldByStake() private view {
        Seat[] memory seats = providers.seats();
        assertGt(seats.length, 0);
        assertLe(seats.length, value(Value.Seats));
        if (seats[0].owner == GENESIS) return;
        for (uint256 i = 0; i < seats.length; i++) {
            Provider memory found = providers.provider(seats[i].owner);
            assertEq(found.jailedUntil, 0);
            assertGe(found.bonded, value(Value.SeatStake));
            assertEq(providers.ownerOfKey(seats[i].key), seats[i].owner);
            for (uint256 j = 0; j < i; j++) {
                assertTrue(seats[i].owner != seats[j].owner && seats[i].key != seats[j].key);
            }
        }
    }

    function _whoIsActiveMayBeBoughtFrom() private view {
        for (uint256 i = 0; i < stakers.count(); i++) {
            Provider memory found = providers.provider(stakers.owners(i));
            bool expected = found.jailedUntil == 0 && found.bonded >= value(Value.TierBronze)
                && block.timestamp <= found.heartbeat + value(Value.AbsenceLimit);
            assertEq(providers.active(stakers.owners(i)), expected);
        }
    }

    /// Nothing is locked: after whatever happened, everybody can leave with all that is theirs.
    function afterInvariant() public {
        stakers.leave();
        assertEq(token.balanceOf(address(providers)), 0);
        _whatCameInWentOutOrBurnedOrWasPaidOrIsHeld();
    }
}
