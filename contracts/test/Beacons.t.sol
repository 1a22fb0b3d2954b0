// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Beacons} from "../src/Beacons.sol";
import {Draw, IBeacons, Part} from "../src/interfaces/IBeacons.sol";
import {Value} from "../src/interfaces/IParameters.sol";
import {Span} from "../src/interfaces/IReceipts.sol";
import {AuditFixture} from "./AuditFixture.sol";

/// @notice Who audits, and what the beacons draw.
contract BeaconsTest is AuditFixture {
    address private una;

    function setUp() public override {
        super.setUp();
        una = crew[0];
        answer();
    }

    // Who audits.

    function test_an_auditor_joins_leaves_and_has_its_stake_back() public {
        uint256 held = token.balanceOf(una);
        vm.prank(una);
        auditors.leave();
        vm.snapshotGasLastCall("Auditors", "leave");
        uint256 release = block.timestamp + value(Value.UnbondingDelay) + 5 * EPOCH;
        assertEq(auditors.auditorOf(una).release, release);
        vm.warp(release - 1);
        vm.expectRevert(abi.encodeWithSelector(IBeacons.TooEarly.selector, release - 1, release));
        vm.prank(una);
        auditors.withdraw();
        vm.warp(release);
        vm.prank(una);
        assertEq(auditors.withdraw(), 3 * AUDITOR_BOND);
        assertEq(token.balanceOf(una), held + 3 * AUDITOR_BOND);
        vm.expectRevert(abi.encodeWithSelector(IBeacons.NotLeaving.selector, una));
        vm.prank(una);
        auditors.withdraw();
        vm.prank(una);
        auditors.join(uint128(AUDITOR_BOND));
        commitSecret(una);
    }

    function test_who_leaves_takes_no_part() public {
        vm.prank(una);
        auditors.leave();
        uint256 release = auditors.auditorOf(una).release;
        bytes memory leaving = abi.encodeWithSelector(IBeacons.Leaving.selector, una, release);
        vm.expectRevert(leaving);
        vm.prank(una);
        auditors.join(1);
        vm.expectRevert(leaving);
        vm.prank(una);
        auditors.leave();
        uint256 epoch = auditors.epochNow();
        vm.expectRevert(leaving);
        vm.prank(una);
        auditors.commit(epoch, 0);
        address nobody = makeAddr("nobody");
        vm.expectRevert(abi.encodeWithSelector(IBeacons.StakeTooSmall.selector, nobody, 0, 1));
        vm.prank(nobody);
        auditors.leave();
        vm.expectRevert(abi.encodeWithSelector(IBeacons.StakeTooSmall.selector, nobody, 0, AUDITOR_BOND));
        vm.prank(nobody);
        auditors.commit(epoch, 0);
    }

    function test_terms_have_bounds() public {
        bytes memory code = vm.getCode("Auditors.sol:Auditors");
        assertEq(deploy(code, 1e18 - 1, EPOCH, 1, FEE), address(0));
        assertEq(deploy(code, 1_000_000e18 + 1, EPOCH, 1, FEE), address(0));
        assertEq(deploy(code, 1e18, 3, 1, FEE), address(0));
        assertEq(deploy(code, 1e18, 1 days + 1, 1, FEE), address(0));
        assertEq(deploy(code, 1e18, EPOCH, 0, FEE), address(0));
        assertEq(deploy(code, 1e18, EPOCH, 10_001, FEE), address(0));
        assertEq(deploy(code, 1e18, EPOCH, 10_000, 1000e18 + 1), address(0));
        assertTrue(deploy(code, 1e18, 4, 1, 0) != address(0));
        assertTrue(deploy(code, 1_000_000e18, 1 days, 10_000, 1000e18) != address(0));
    }

    function deploy(bytes memory code, uint256 bond, uint256 length, uint256 rate, uint256 fee)
        private
        returns (address at)
    {
        code = bytes.concat(code, abi.encode(token, parameters, receipts, canaries, bond, length, rate, fee, 3));
        assembly {
            at := create(0, add(code, 32), mload(code))
        }
    }

    // Beacons.

    function test_a_secret_is_committed_and_revealed_in_its_time() public {
        uint256 epoch = auditors.epochNow();
        uint256 place_ = commitSecret(una);
        vm.snapshotGasLastCall("Auditors", "commit");
        vm.expectRevert(abi.encodeWithSelector(IBeacons.AlreadyCommitted.selector, una, epoch));
        vm.prank(una);
        auditors.commit(epoch, 0);
        vm.expectRevert(abi.encodeWithSelector(IBeacons.WrongEpoch.selector, epoch, epoch + 1));
        vm.prank(una);
        auditors.reveal(epoch, place_, secretOf(una, epoch));
        vm.expectRevert(abi.encodeWithSelector(IBeacons.WrongEpoch.selector, epoch, epoch + 1));
        vm.prank(crew[1]);
        auditors.commit(epoch + 1, 0);

        vm.warp((epoch + 2) * EPOCH - 1);
        revealSecret(una, epoch, place_);
        vm.snapshotGasLastCall("Auditors", "reveal");
        (uint256 count, bool sound) = auditors.revealedOf(epoch);
        assertEq(count, 1);
        assertFalse(sound);
        assertEq(auditors.beaconOf(epoch), keccak256(abi.encode(epoch, secretOf(una, epoch))));
        vm.expectRevert(abi.encodeWithSelector(IBeacons.WrongPart.selector, Part.Revealed, Part.Committed));
        vm.prank(una);
        auditors.reveal(epoch, place_, secretOf(una, epoch));
    }

    function test_nobody_reveals_anothers_or_another_secret() public {
        uint256 epoch = auditors.epochNow();
        commitSecret(una);
        // A copied commitment cannot be revealed.
        vm.prank(crew[1]);
        auditors.commit(epoch, keccak256(abi.encode(secretOf(una, epoch), una, epoch)));
        toEpoch(epoch + 1);
        bytes32 secret = secretOf(una, epoch);
        vm.expectRevert(abi.encodeWithSelector(IBeacons.NotYours.selector, crew[1], una));
        vm.prank(crew[1]);
        auditors.reveal(epoch, 0, secret);
        bytes32 found = keccak256(abi.encode(secret, crew[1], epoch));
        bytes32 expected = keccak256(abi.encode(secret, una, epoch));
        vm.expectRevert(abi.encodeWithSelector(IBeacons.WrongSecret.selector, found, expected));
        vm.prank(crew[1]);
        auditors.reveal(epoch, 1, secret);
        vm.expectRevert(abi.encodeWithSelector(IBeacons.NoSuchPlace.selector, 2, 2));
        vm.prank(una);
        auditors.reveal(epoch, 2, secret);
        toEpoch(epoch + 2);
        vm.expectRevert(abi.encodeWithSelector(IBeacons.WrongEpoch.selector, epoch + 2, epoch + 1));
        vm.prank(una);
        auditors.reveal(epoch, 0, secret);
    }

    function test_who_does_not_reveal_pays_once() public {
        uint256 epoch = auditors.epochNow();
        commitSecret(una);
        toEpoch(epoch + 1);
        vm.expectRevert(abi.encodeWithSelector(IBeacons.WrongEpoch.selector, epoch + 1, epoch + 2));
        auditors.miss(epoch, 0);
        toEpoch(epoch + 2);
        uint256 supply = token.totalSupply();
        auditors.miss(epoch, 0);
        vm.snapshotGasLastCall("Auditors", "miss");
        assertEq(stakeOf(una), 3 * AUDITOR_BOND - AUDITOR_BOND / 10);
        assertEq(token.totalSupply(), supply - AUDITOR_BOND / 10);
        vm.expectRevert(abi.encodeWithSelector(IBeacons.WrongPart.selector, Part.Missed, Part.Committed));
        auditors.miss(epoch, 0);
        vm.expectRevert(abi.encodeWithSelector(IBeacons.NoSuchPlace.selector, 1, 1));
        auditors.miss(epoch, 1);
    }

    function test_who_revealed_is_not_fined() public {
        uint256 epoch = makeBeacon();
        vm.expectRevert(abi.encodeWithSelector(IBeacons.WrongPart.selector, Part.Revealed, Part.Committed));
        auditors.miss(epoch, 0);
    }

    /// Whatever the order of the reveals, beacon and draws are the same.
    function test_the_order_of_reveals_changes_nothing(uint256 order) public {
        uint256 epoch = auditors.epochNow();
        uint256 period = post();
        for (uint256 i; i < 3; ++i) {
            commitSecret(crew[i]);
        }
        toEpoch(epoch + 1);
        uint256 state = vm.snapshotState();
        for (uint256 i; i < 3; ++i) {
            revealSecret(crew[i], epoch, i);
        }
        toEpoch(epoch + 2);
        bytes32 beacon = auditors.beaconOf(epoch);
        Draw memory draw = auditors.drawOf(owner, period, 1);
        vm.revertToState(state);
        uint256 first = order % 3;
        uint256 step_ = order / 3 % 2 + 1;
        for (uint256 i; i < 3; ++i) {
            uint256 which = (first + i * step_) % 3;
            revealSecret(crew[which], epoch, which);
        }
        toEpoch(epoch + 2);
        assertEq(auditors.beaconOf(epoch), beacon);
        assertEq(keccak256(abi.encode(auditors.drawOf(owner, period, 1))), keccak256(abi.encode(draw)));
    }

    // Draws.

    function test_a_draw_is_a_formula() public {
        (uint256 period, Draw memory draw) = postAndDraw();
        bytes32 mix = secretOf(crew[0], draw.epoch) ^ secretOf(crew[1], draw.epoch) ^ secretOf(crew[2], draw.epoch);
        bytes32 beacon = keccak256(abi.encode(draw.epoch, mix));
        bytes32 seed = keccak256(abi.encode(beacon, owner, period, uint256(1)));
        assertTrue(draw.drawn);
        assertEq(draw.first, crew[uint256(keccak256(abi.encode(seed, uint256(0)))) % 3]);
        uint256 i = 32;
        while (crew[uint256(keccak256(abi.encode(seed, i))) % 3] == draw.first) ++i;
        assertEq(draw.second, crew[uint256(keccak256(abi.encode(seed, i))) % 3]);
    }

    /// What is posted in an epoch's last second is drawn by its beacon; in the next second by the next one.
    function test_each_period_is_of_one_epoch() public {
        uint256 epoch = auditors.epochNow();
        vm.warp((epoch + 1) * EPOCH - 1);
        uint256 last = post();
        vm.warp((epoch + 1) * EPOCH);
        uint256 next = post();
        vm.expectRevert(abi.encodeWithSelector(IBeacons.NotDrawnYet.selector, epoch + 1, epoch + 2));
        auditors.drawOf(owner, last, 1);
        toEpoch(epoch + 2);
        assertEq(auditors.drawOf(owner, last, 1).epoch, epoch);
        vm.expectRevert(abi.encodeWithSelector(IBeacons.NotDrawnYet.selector, epoch + 2, epoch + 3));
        auditors.drawOf(owner, next, 1);
        toEpoch(epoch + 3);
        assertEq(auditors.drawOf(owner, next, 1).epoch, epoch + 1);
        vm.expectRevert(abi.encodeWithSelector(IBeacons.NoSuchReceipt.selector, 3, 3));
        auditors.drawOf(owner, next, 3);
    }

    function test_without_auditors_nothing_is_drawn() public {
        uint256 period = post();
        commitSecret(una);
        toEpoch(auditors.epochNow() + 2);
        Draw memory draw = auditors.drawOf(owner, period, 1);
        assertFalse(draw.drawn);
        assertEq(draw.first, address(0));
    }

    function test_one_auditor_draws_alone_and_the_network_says_so() public {
        uint256 period = post();
        uint256 epoch = auditors.epochNow();
        // The others commit, and do not reveal: nothing falls to them.
        commitSecret(crew[1]);
        uint256 place_ = commitSecret(una);
        commitSecret(crew[2]);
        toEpoch(epoch + 1);
        revealSecret(una, epoch, place_);
        toEpoch(epoch + 2);
        Draw memory draw = auditors.drawOf(owner, period, 1);
        assertTrue(draw.drawn);
        assertEq(draw.first, una);
        assertEq(draw.second, address(0));
        (, bool sound) = auditors.revealedOf(epoch);
        assertFalse(sound);
        assertEq(auditors.rollOf(epoch).length, 3);
    }

    /// Where one of very many revealed, it is found, and the second with it.
    function test_few_who_revealed_among_many_are_found() public {
        uint256 period = post();
        uint256 epoch = auditors.epochNow();
        for (uint256 i; i < 60; ++i) {
            commitSecret(auditor(vm.toString(i)));
        }
        uint256 place_ = commitSecret(una);
        commitSecret(crew[1]);
        toEpoch(epoch + 1);
        revealSecret(una, epoch, place_);
        revealSecret(crew[1], epoch, place_ + 1);
        toEpoch(epoch + 2);
        Draw memory draw = auditors.drawOf(owner, period, 1);
        assertTrue(draw.first != draw.second);
        assertTrue(draw.first == una || draw.first == crew[1]);
        assertTrue(draw.second == una || draw.second == crew[1]);
    }
}

/// @notice How often receipts are drawn, and by whom, at a rate of one in ten.
contract DrawsTest is AuditFixture {
    uint256 private constant MANY = 2000;

    function setUpAudits(uint256) internal override {
        super.setUpAudits(1000);
    }

    function postMany() private returns (uint256 period) {
        vm.prank(owner);
        return receipts.post(owner, keccak256("many"), uint64(MANY), new Span[](0));
    }

    /// Two beacons draw the same places of two periods; that one draws a place says nothing about the other.
    function test_draws_come_at_the_rate_and_beacons_are_independent() public {
        uint256 one = postMany();
        makeBeacon();
        uint256 two = postMany();
        makeBeacon();
        uint256[4] memory joint;
        uint256[3] memory falls;
        for (uint256 i; i < MANY; ++i) {
            Draw memory a = auditors.drawOf(owner, one, i);
            Draw memory b = auditors.drawOf(owner, two, i);
            ++joint[(a.drawn ? 1 : 0) + (b.drawn ? 2 : 0)];
            for (uint256 j; j < 3; ++j) {
                if (a.drawn && (a.first == crew[j] || a.second == crew[j])) ++falls[j];
            }
            assertTrue(!a.drawn || (a.first != a.second && a.second != address(0)));
            assertTrue(a.drawn || a.first == address(0));
        }
        // 200 each expected, 20 of both; four standard deviations around.
        assertApprox(joint[1] + joint[3], 200, 54);
        assertApprox(joint[2] + joint[3], 200, 54);
        assertApprox(joint[3], 20, 18);
        for (uint256 j; j < 3; ++j) {
            assertApprox(falls[j] * 3, 2 * (joint[1] + joint[3]), 90);
        }
    }

    /// As many beacons as runs: none of them draws everything or nothing.
    function test_no_beacon_draws_all_or_nothing(bytes32 seed) public {
        uint256 period = postMany();
        uint256 epoch = auditors.epochNow();
        vm.prank(crew[0]);
        auditors.commit(epoch, keccak256(abi.encode(seed, crew[0], epoch)));
        toEpoch(epoch + 1);
        vm.prank(crew[0]);
        auditors.reveal(epoch, 0, seed);
        toEpoch(epoch + 2);
        uint256 drawn;
        for (uint256 i; i < 300; ++i) {
            if (auditors.drawOf(owner, period, i).drawn) ++drawn;
        }
        // 30 expected; five standard deviations of 5.2 around.
        assertApprox(drawn, 30, 26);
    }

    function assertApprox(uint256 found, uint256 expected, uint256 distance) private pure {
        vm.assertApproxEqAbs(found, expected, distance);
    }
}
