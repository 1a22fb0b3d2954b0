// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IAuditors, Place, Said, Verdict} from "../src/interfaces/IAuditors.sol";
import {Draw, IBeacons} from "../src/interfaces/IBeacons.sol";
import {Value} from "../src/interfaces/IParameters.sol";
import {AuditFixture} from "./AuditFixture.sol";

/// @notice What verdicts are paid, and what they cost.
contract AuditorsTest is AuditFixture {
    uint256 private period;
    Draw private draw;

    function setUp() public override {
        super.setUp();
        answer();
        (period, draw) = postAndDraw();
        token.approve(address(auditors), 100 * FEE);
        auditors.fund(10 * FEE);
    }

    /// Convicts the provider of the posted receipt: nobody answers a dispute.
    function convict() private {
        uint256 id = begin(ada);
        skip(CLOCK + 1);
        disputes.timeout(id);
    }

    function earns(address who) private {
        uint256 held = token.balanceOf(who);
        uint256 left = auditors.pool();
        auditors.pay(who, placed(period));
        assertEq(token.balanceOf(who), held + FEE);
        assertEq(auditors.pool(), left - FEE);
        Place memory at = placed(period);
        Verdict said = auditors.opinionOf(who, owner, period, 1).verdict;
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NothingEarned.selector, said));
        auditors.pay(who, at);
    }

    function earnsNothing(address who) private {
        Place memory at = placed(period);
        Verdict said = auditors.opinionOf(who, owner, period, 1).verdict;
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NothingEarned.selector, said));
        auditors.pay(who, at);
    }

    // Fees.

    function test_two_who_agree_are_paid() public {
        judge(period, Verdict.True, Verdict.True);
        auditors.pay(draw.first, placed(period));
        vm.snapshotGasLastCall("Auditors", "pay");
        earns(draw.second);
    }

    function test_who_stands_alone_is_paid() public {
        judge(period, Verdict.None, Verdict.True);
        earns(draw.second);
        earnsNothing(draw.first);
    }

    function test_silence_and_inability_are_no_contradiction_and_not_paid() public {
        judge(period, Verdict.True, Verdict.Unable);
        earns(draw.first);
        earnsNothing(draw.second);
        period = post();
        makeBeacon();
        draw = judge(period, Verdict.Silent, Verdict.True);
        earns(draw.second);
        earnsNothing(draw.first);
    }

    /// Of two who contradict each other the arbiter's finding pays one.
    function test_false_is_paid_once_it_is_found() public {
        judge(period, Verdict.True, Verdict.False);
        earnsNothing(draw.first);
        earnsNothing(draw.second);
        convict();
        earnsNothing(draw.first);
        earns(draw.second);
    }

    function test_the_pool_and_the_number_of_fees_are_bounded() public {
        uint256[4] memory periods;
        for (uint256 i; i < 4; ++i) {
            periods[i] = post();
        }
        uint256 epoch = makeBeacon();
        address who = crew[0];
        Said[] memory list = new Said[](4);
        uint256 count;
        for (uint256 i; i < 4; ++i) {
            for (uint256 index; index < 3 && count < 4; ++index) {
                Draw memory each = auditors.drawOf(owner, periods[i], index);
                if (index == 1 && (each.first == who || each.second == who)) {
                    list[count++] = Said(owner, periods[i], index, Verdict.True);
                }
            }
        }
        assembly {
            mstore(list, count)
        }
        commitVerdicts(who, epoch, list);
        toEpoch(epoch + 3);
        revealVerdicts(who, epoch, list);
        toEpoch(epoch + 4);
        for (uint256 i; i < count; ++i) {
            period = list[i].period;
            Place memory at = placed(period);
            if (i == FEES_MOST) vm.expectRevert(abi.encodeWithSelector(IAuditors.EnoughPaid.selector, FEES_MOST));
            auditors.pay(who, at);
        }
        assertEq(auditors.attendanceOf(who, epoch).paid, count < FEES_MOST ? count : FEES_MOST);
    }

    function test_an_empty_pool_pays_later() public {
        judge(period, Verdict.True, Verdict.True);
        // Emptied by others.
        vm.store(address(auditors), bytes32(poolSlot()), bytes32(FEE - 1));
        Place memory at = placed(period);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.PoolEmpty.selector, FEE - 1, FEE));
        auditors.pay(draw.first, at);
        auditors.fund(1);
        earns(draw.first);
    }

    /// Where `pool` lies.
    function poolSlot() private view returns (uint256 slot) {
        uint256 now_ = auditors.pool();
        while (uint256(vm.load(address(auditors), bytes32(slot))) != now_) ++slot;
    }

    // Commitments.

    function test_a_list_is_committed_once_and_revealed_as_it_was() public {
        Said[] memory list = saying(period, Verdict.True);
        uint256 epoch = draw.epoch;
        commitVerdicts(draw.first, epoch, list);
        vm.snapshotGasLastCall("Auditors", "commitVerdicts");
        vm.expectRevert(abi.encodeWithSelector(IAuditors.AlreadyJudged.selector, draw.first, epoch));
        vm.prank(draw.first);
        auditors.commitVerdicts(epoch, "other");
        // A copied commitment cannot be revealed.
        vm.prank(draw.second);
        auditors.commitVerdicts(epoch, keccak256(abi.encode(list, SALT, draw.first, epoch)));
        vm.expectRevert(abi.encodeWithSelector(IBeacons.WrongEpoch.selector, epoch + 2, epoch + 3));
        vm.prank(draw.first);
        auditors.revealVerdicts(epoch, list, SALT);
        toEpoch(epoch + 3);
        vm.expectRevert(abi.encodeWithSelector(IBeacons.WrongEpoch.selector, epoch + 3, epoch + 2));
        vm.prank(crew[0]);
        auditors.commitVerdicts(epoch, "late");
        vm.expectPartialRevert(IAuditors.WrongList.selector);
        vm.prank(draw.second);
        auditors.revealVerdicts(epoch, list, SALT);
        Said[] memory other = saying(period, Verdict.False);
        vm.expectPartialRevert(IAuditors.WrongList.selector);
        vm.prank(draw.first);
        auditors.revealVerdicts(epoch, other, SALT);
        revealVerdicts(draw.first, epoch, list);
        vm.snapshotGasLastCall("Auditors", "revealVerdicts, one");
        vm.expectRevert(abi.encodeWithSelector(IAuditors.AlreadyJudged.selector, draw.first, epoch));
        vm.prank(draw.first);
        auditors.revealVerdicts(epoch, list, SALT);
    }

    function refuseList(address who, uint256 epoch, Said[] memory list, bytes memory why) private {
        toEpoch(epoch + 2);
        commitVerdicts(who, epoch, list);
        toEpoch(epoch + 3);
        vm.expectRevert(why);
        vm.prank(who);
        auditors.revealVerdicts(epoch, list, SALT);
    }

    function test_nobody_speaks_twice_or_of_nothing_or_of_what_is_anothers() public {
        Said[] memory twice = new Said[](2);
        (twice[0], twice[1]) = (saying(period, Verdict.True)[0], saying(period, Verdict.False)[0]);
        bytes memory bad = abi.encodeWithSelector(IAuditors.BadVerdict.selector, owner, period, 1);
        refuseList(draw.first, draw.epoch, twice, bad);
        toEpoch(draw.epoch + 2);
        refuseList(draw.second, draw.epoch, saying(period, Verdict.None), bad);
        address third;
        for (uint256 i; i < 3; ++i) {
            if (crew[i] != draw.first && crew[i] != draw.second) third = crew[i];
        }
        bytes memory notDrawn = abi.encodeWithSelector(IAuditors.NotDrawnFor.selector, third, draw.epoch);
        refuseList(third, draw.epoch, saying(period, Verdict.True), notDrawn);
    }

    /// A list of one epoch says nothing about another's draws.
    function test_a_list_speaks_of_its_own_epoch() public {
        uint256 next = draw.epoch + 1;
        Said[] memory list = saying(period, Verdict.True);
        refuseList(draw.first, next, list, abi.encodeWithSelector(IAuditors.NotDrawnFor.selector, draw.first, next));
    }

    // Absence.

    function test_who_says_nothing_of_a_whole_epoch_pays_once() public {
        judge(period, Verdict.True, Verdict.None);
        uint256 supply = token.totalSupply();
        auditors.absent(draw.second, owner, period, 1);
        vm.snapshotGasLastCall("Auditors", "absent");
        assertEq(stakeOf(draw.second), 3 * AUDITOR_BOND - AUDITOR_BOND / 50);
        assertEq(token.totalSupply(), supply - AUDITOR_BOND / 50);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NotAbsent.selector, draw.second, draw.epoch));
        auditors.absent(draw.second, owner, period, 1);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NotAbsent.selector, draw.first, draw.epoch));
        auditors.absent(draw.first, owner, period, 1);
    }

    function test_who_was_not_drawn_or_has_time_is_not_absent() public {
        vm.expectRevert(abi.encodeWithSelector(IBeacons.WrongEpoch.selector, draw.epoch + 2, draw.epoch + 4));
        auditors.absent(draw.first, owner, period, 1);
        toEpoch(draw.epoch + 4);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NotDrawnFor.selector, ada, draw.epoch));
        auditors.absent(ada, owner, period, 1);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NotDrawnFor.selector, address(0), draw.epoch));
        auditors.absent(address(0), owner, period, 1);
    }

    /// An empty list is presence: who is drawn for more than it can check loses fees, and no bond.
    function test_an_empty_list_is_presence() public {
        Said[] memory nothing;
        commitVerdicts(draw.first, draw.epoch, nothing);
        toEpoch(draw.epoch + 3);
        revealVerdicts(draw.first, draw.epoch, nothing);
        toEpoch(draw.epoch + 4);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NotAbsent.selector, draw.first, draw.epoch));
        auditors.absent(draw.first, owner, period, 1);
    }

    // Falsehood.

    function test_true_of_what_was_found_false_costs_half_a_bond() public {
        judge(period, Verdict.True, Verdict.True);
        Place memory at = placed(period);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NothingToFine.selector, Verdict.True));
        auditors.mistaken(draw.first, at);
        convict();
        disputes.punish(digestOf());
        uint256 supply = token.totalSupply();
        auditors.mistaken(draw.first, at);
        vm.snapshotGasLastCall("Auditors", "mistaken");
        auditors.mistaken(draw.second, at);
        assertEq(stakeOf(draw.first), 3 * AUDITOR_BOND - AUDITOR_BOND / 2);
        assertEq(token.totalSupply(), supply - AUDITOR_BOND);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NothingToFine.selector, Verdict.True));
        auditors.mistaken(draw.first, at);
    }

    /// A provider that has itself convicted of a true receipt takes no more from auditors than is burned of it: with
    /// next to nothing at stake, next to nothing.
    function test_a_provider_without_stake_harms_nobody(uint256 left) public {
        judge(period, Verdict.True, Verdict.True);
        left = bound(left, 0, AUDITOR_BOND);
        uint256 stake = 4 * value(Value.TierBronze);
        vm.prank(owner);
        providers.unbond(uint128(stake - left));
        skip(value(Value.UnbondingDelay));
        vm.prank(owner);
        providers.withdraw();
        answer();
        filed.receipt.text = bytes32(left);
        resign();
        (period, draw) = postAndDraw();
        judge(period, Verdict.True, Verdict.True);
        Place memory at = placed(period);
        convict();
        // Not before it is known what was burned.
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NothingToFine.selector, Verdict.True));
        auditors.mistaken(draw.first, at);
        disputes.punish(digestOf());
        uint256 taken = share(left, value(Value.SlashMost));
        uint256 burned = taken - share(taken, value(Value.ChallengerReward));
        assertEq(disputes.burnedOf(digestOf()), burned);
        if (burned < 2) {
            vm.expectRevert(abi.encodeWithSelector(IAuditors.NothingToFine.selector, Verdict.True));
            auditors.mistaken(draw.first, at);
            return;
        }
        uint256 before = stakeOf(draw.first) + stakeOf(draw.second);
        auditors.mistaken(draw.first, at);
        auditors.mistaken(draw.second, at);
        assertLe(before - stakeOf(draw.first) - stakeOf(draw.second), burned);
    }

    function test_who_said_false_or_nothing_is_not_fined() public {
        judge(period, Verdict.False, Verdict.Silent);
        convict();
        disputes.punish(digestOf());
        Place memory at = placed(period);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NothingToFine.selector, Verdict.False));
        auditors.mistaken(draw.first, at);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NothingToFine.selector, Verdict.Silent));
        auditors.mistaken(draw.second, at);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NothingToFine.selector, Verdict.False));
        auditors.careless(draw.first, at);
    }

    /// Another receipt's conviction is not this one's.
    function test_the_receipt_must_be_the_one_at_the_place() public {
        judge(period, Verdict.True, Verdict.True);
        Place memory at = placed(period);
        at.receipt = keccak256("another");
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NotThere.selector, at.receipt));
        auditors.mistaken(draw.first, at);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NotThere.selector, at.receipt));
        auditors.pay(draw.first, at);
    }

    /// While nobody holds the office, nothing is found false.
    function test_without_an_arbiter_verdicts_are_paid() public {
        parameters.setArbiter(address(0));
        judge(period, Verdict.True, Verdict.True);
        earns(draw.first);
        parameters.setArbiter(makeAddr("a person"));
        earns(draw.second);
    }

    // Canaries.

    function test_true_of_a_canary_costs_half_a_bond_whenever_it_shows() public {
        bytes32 commitment = plantCanary();
        (period, draw) = postAndDraw();
        judge(period, Verdict.True, Verdict.False);
        Place memory at = placed(period);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NothingToFine.selector, Verdict.True));
        auditors.careless(draw.first, at);
        unveil();
        uint256 held = token.balanceOf(address(this));
        uint256 supply = token.totalSupply();
        auditors.careless(draw.first, at);
        vm.snapshotGasLastCall("Auditors", "careless");
        assertEq(stakeOf(draw.first), 3 * AUDITOR_BOND - AUDITOR_BOND / 2);
        assertEq(token.balanceOf(address(this)), held + AUDITOR_BOND / 4);
        assertEq(token.totalSupply(), supply - AUDITOR_BOND / 4);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NothingToFine.selector, Verdict.True));
        auditors.careless(draw.first, at);
        // Who looked is paid, and the prize goes back.
        earns(draw.second);
        earnsNothing(draw.first);
        vm.warp(canaries.plantOf(commitment).unveiled + 1 days + 1);
        canaries.recover(commitment);
    }

    /// Planted in the epoch that it was posted in: too late for auditors to be held to it.
    function test_a_canary_planted_in_its_own_epoch_holds_nobody() public {
        plantCanary();
        vm.warp(block.timestamp - EPOCH);
        period = post();
        makeBeacon();
        draw = auditors.drawOf(owner, period, 1);
        judge(period, Verdict.True, Verdict.True);
        unveil();
        Place memory at = placed(period);
        vm.expectRevert(abi.encodeWithSelector(IAuditors.NothingToFine.selector, Verdict.True));
        auditors.careless(draw.first, at);
    }

    /// What is left of a stake is all that can be taken.
    function test_a_fine_takes_no_more_than_there_is() public {
        judge(period, Verdict.True, Verdict.True);
        convict();
        disputes.punish(digestOf());
        vm.prank(draw.first);
        auditors.leave();
        vm.warp(auditors.auditorOf(draw.first).release);
        vm.prank(draw.first);
        auditors.withdraw();
        auditors.mistaken(draw.first, placed(period));
        assertEq(stakeOf(draw.first), 0);
    }

    /// One transaction an epoch does all four duties.
    function test_an_epochs_duties_are_one_transaction() public {
        uint256 epoch = draw.epoch;
        address who = draw.first;
        uint256 epoch1 = epoch + 2;
        uint256 at = commitSecret(who);
        commitVerdicts(who, epoch, saying(period, Verdict.True));
        toEpoch(epoch + 3);
        bytes[] memory calls = new bytes[](4);
        bytes32 next = keccak256(abi.encode(secretOf(who, epoch + 3), who, epoch + 3));
        calls[0] = abi.encodeCall(auditors.commit, (epoch + 3, next));
        calls[1] = abi.encodeCall(auditors.reveal, (epoch1, at, secretOf(who, epoch1)));
        calls[2] = abi.encodeCall(auditors.revealVerdicts, (epoch, saying(period, Verdict.True), SALT));
        Said[] memory nothing;
        calls[3] =
            abi.encodeCall(auditors.commitVerdicts, (epoch + 1, keccak256(abi.encode(nothing, SALT, who, epoch + 1))));
        vm.prank(who);
        auditors.multicall(calls);
        vm.snapshotGasLastCall("Auditors", "an epoch's four duties, one verdict");
        assertTrue(auditors.opinionOf(who, owner, period, 1).verdict == Verdict.True);
    }
}
