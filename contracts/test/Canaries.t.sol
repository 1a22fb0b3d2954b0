// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {ICanaries, Plant} from "../src/interfaces/ICanaries.sol";
import {Filing, IDisputes, Phase} from "../src/interfaces/IDisputes.sol";
import {Value} from "../src/interfaces/IParameters.sol";
import {Words} from "../src/libraries/Words.sol";
import {Order} from "../src/types/Order.sol";
import {Receipt} from "../src/types/Receipt.sol";
import {AuditFixture} from "./AuditFixture.sol";

/// @notice What a canary excuses, what it does not, and where its prize goes.
contract CanariesTest is AuditFixture {
    // What it does.

    function test_who_disputes_a_canary_has_bond_and_prize() public {
        plantCanary();
        uint256 held = token.balanceOf(ada);
        uint256 id = begin(ada);
        commit(id);
        unveil();
        vm.snapshotGasLastCall("Canaries", "unveil");
        disputes.excuse(id);
        vm.snapshotGasLastCall("Disputes", "excuse");
        disputes.close(id);
        assertEq(token.balanceOf(ada), held + PRIZE);
        assertEq(token.balanceOf(address(canaries)), 0);
        assertEq(token.balanceOf(address(disputes)), 0);
        assertTrue(disputes.caseOf(digestOf()).canary);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.NotGuilty.selector, digestOf()));
        disputes.punish(digestOf());
        assertTrue(providers.active(owner));

        Filing memory filing = filed;
        vm.expectRevert(abi.encodeWithSelector(IDisputes.IsCanary.selector, digestOf()));
        vm.prank(ada);
        disputes.open(filing);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.NothingDue.selector, Phase.Returned));
        disputes.close(id);
    }

    /// All who disputed have their bonds back; the prize is the first one's.
    function test_every_dispute_about_a_canary_ends() public {
        plantCanary();
        address bob = challenger("bob");
        (uint256 hers, uint256 his) = (token.balanceOf(ada), token.balanceOf(bob));
        uint256 first = begin(ada);
        uint256 second = begin(bob);
        unveil();
        disputes.excuse(second);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.IsCanary.selector, digestOf()));
        disputes.excuse(first);
        skip(2 * CLOCK);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.IsCanary.selector, digestOf()));
        disputes.timeout(first);
        disputes.close(first);
        disputes.close(second);
        assertEq(token.balanceOf(ada), hers + PRIZE);
        assertEq(token.balanceOf(bob), his);
    }

    /// Whoever lost its dispute before has neither.
    function test_who_lost_before_is_not_paid() public {
        plantCanary();
        address bob = challenger("bob");
        uint256 first = begin(ada);
        commit(first);
        skip(CLOCK + 1);
        disputes.timeout(first);
        uint256 second = begin(bob);
        uint256 his = token.balanceOf(bob);
        unveil();
        disputes.excuse(second);
        disputes.close(first);
        disputes.close(second);
        assertEq(token.balanceOf(bob), his + BOND + PRIZE);
        assertEq(token.balanceOf(owner), BOND);
    }

    function test_the_payer_of_a_canary_has_its_money_back() public {
        plantCanary();
        open(0);
        uint256 id = begin(ada);
        unveil();
        disputes.excuse(id);
        assertEq(disputes.refund(filed.receipt, configOf(0)), 600);
        assertEq(disputes.refund(filed.receipt, configOf(0)), 0);
    }

    // What it does not.

    function test_a_defender_that_unveils_too_late_is_convicted() public {
        plantCanary();
        uint256 id = begin(ada);
        vm.expectRevert(abi.encodeWithSelector(ICanaries.NotUnveiled.selector, digestOf()));
        disputes.excuse(id);
        unveil();
        skip(CLOCK + 1);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.TooLate.selector, CLOCK + 1, CLOCK));
        disputes.excuse(id);
        disputes.timeout(id);
        assertTrue(disputes.caseOf(digestOf()).guilty);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.WrongPhase.selector, Phase.Won, Phase.Commit));
        disputes.excuse(id);
        disputes.punish(digestOf());
        vm.expectRevert(abi.encodeWithSelector(IDisputes.WrongPhase.selector, Phase.None, Phase.Commit));
        disputes.excuse(99);
    }

    function test_a_canary_excuses_no_contradiction() public {
        plantCanary();
        filed.receipt.price = 1001;
        filed.receipt.channelAfter = 1401;
        filed.receiptSignature = signed(operatorKey, digestOf());
        uint256 id = begin(ada);
        unveil();
        disputes.excuse(id);
        Filing memory filing = filed;
        disputes.contradict(filing);
        assertTrue(disputes.caseOf(digestOf()).guilty);
        disputes.punish(digestOf());
        disputes.close(id);
        assertFalse(providers.active(owner));
        assertEq(token.balanceOf(address(disputes)), 0);
    }

    /// The receipt was there, and disputed, before the canary was planted: whatever it says of its own time.
    function test_a_canary_cannot_be_planted_once_there_is_a_dispute() public {
        answer();
        filed.order.deadline = uint64(block.timestamp + 2 * EPOCH);
        filed.receipt.started = uint64(block.timestamp + EPOCH) * 1000;
        filed.receipt.finished = filed.receipt.started;
        bytes32 order = Words.digest(filed.order);
        filed.receipt.state = canaries.mark(order, SALT);
        resign();
        uint256 id = begin(ada);
        consented = signed(buyerKey, canaries.consentDigest(order, SALT));
        token.approve(address(canaries), PRIZE);
        canaries.plant(canaries.commitmentOf(order, SALT, consented), PRIZE);
        unveil();
        uint256 now_ = block.timestamp * 1000;
        vm.expectRevert(abi.encodeWithSelector(ICanaries.PlantedTooLate.selector, now_, now_));
        disputes.excuse(id);
    }

    function test_a_canary_planted_after_work_began_is_none() public {
        plantCanary();
        filed.receipt.started = uint64(block.timestamp - EPOCH) * 1000;
        vm.expectRevert(
            abi.encodeWithSelector(ICanaries.PlantedTooLate.selector, filed.receipt.started, filed.receipt.started)
        );
        unveil();
    }

    /// A true receipt's state is a chained one, and a false one's without the buyer's consent is no canary's.
    function test_no_other_receipt_is_a_canary() public {
        plantCanary();
        bytes32 mark = filed.receipt.state;
        filed.receipt.state = keccak256("state");
        vm.expectRevert(abi.encodeWithSelector(ICanaries.WrongMark.selector, filed.receipt.state, mark));
        unveil();
        filed.receipt.state = mark;
        bytes memory honest = consented;
        bytes32 digest = canaries.consentDigest(filed.receipt.order, SALT);
        consented = signed(operatorKey, digest);
        vm.expectRevert(abi.encodeWithSelector(ICanaries.WrongSigner.selector, operator, buyer));
        unveil();
        consented = "";
        vm.expectRevert(abi.encodeWithSelector(ICanaries.WrongSigner.selector, address(0), buyer));
        unveil();
        consented = honest;
        filed.receipt.order = 0;
        vm.expectRevert(abi.encodeWithSelector(ICanaries.WrongOrder.selector, 0, Words.digest(filed.order)));
        unveil();
    }

    /// With the buyer's consent, but nothing planted.
    function test_what_was_not_planted_is_no_canary() public {
        plantCanary();
        bytes32 salt = keccak256("another");
        filed.receipt.state = canaries.mark(filed.receipt.order, salt);
        bytes memory consent = signed(buyerKey, canaries.consentDigest(filed.receipt.order, salt));
        bytes32 commitment = canaries.commitmentOf(filed.receipt.order, salt, consent);
        vm.expectRevert(abi.encodeWithSelector(ICanaries.NotPlanted.selector, commitment));
        canaries.unveil(filed.order, filed.receipt, salt, consent);
    }

    /// One plant, one receipt: a second one for the same order is on its own.
    function test_a_plant_stands_for_one_receipt() public {
        bytes32 commitment = plantCanary();
        unveil();
        filed.receipt.text = keccak256("another");
        vm.expectRevert(abi.encodeWithSelector(ICanaries.AlreadyUnveiled.selector, commitment));
        unveil();
    }

    function test_what_cannot_be_checked_catches_nobody() public {
        plantCanary();
        Order memory order = filed.order;
        Receipt memory receipt = filed.receipt;
        order.audit = 0;
        _refuse(order, receipt);
        order.audit = 2;
        order.assurance = 3;
        _refuse(order, receipt);
        order.assurance = 0;
        receipt.assurance = 1;
        _refuse(order, receipt);
        receipt.assurance = 0;
        receipt.outputTokens = 0;
        _refuse(order, receipt);
        receipt.outputTokens = 2;
        order.promptTokens = 0;
        _refuse(order, receipt);
    }

    function _refuse(Order memory order, Receipt memory receipt) private {
        receipt.order = Words.digest(order);
        vm.expectPartialRevert(ICanaries.NotCheckable.selector);
        canaries.unveil(order, receipt, SALT, "");
    }

    // Prizes.

    function test_an_undisputed_prize_goes_back() public {
        bytes32 commitment = plantCanary();
        Plant memory plant = canaries.plantOf(commitment);
        assertEq(plant.funder, address(this));
        unveil();
        assertEq(canaries.canaryOf(digestOf()), commitment);
        uint256 due = block.timestamp + value(Value.DisputeWindow);
        vm.warp(due);
        vm.expectRevert(abi.encodeWithSelector(ICanaries.TooEarly.selector, due, due));
        canaries.recover(commitment);
        skip(1);
        uint256 held = token.balanceOf(address(this));
        vm.prank(ada);
        canaries.recover(commitment);
        assertEq(token.balanceOf(address(this)), held + PRIZE);
        vm.expectRevert(abi.encodeWithSelector(ICanaries.NothingLeft.selector, commitment));
        canaries.recover(commitment);
    }

    function test_a_plant_without_a_receipt_is_taken_out() public {
        bytes32 commitment = plantCanary();
        vm.expectRevert(abi.encodeWithSelector(ICanaries.NotFunder.selector, ada, address(this)));
        vm.prank(ada);
        canaries.recover(commitment);
        uint256 due = canaries.plantOf(commitment).planted + 60 days;
        vm.warp(due);
        vm.expectRevert(abi.encodeWithSelector(ICanaries.TooEarly.selector, due, due));
        canaries.recover(commitment);
        skip(1);
        canaries.recover(commitment);
        // And then it is none.
        vm.expectRevert(abi.encodeWithSelector(ICanaries.NotPlanted.selector, commitment));
        unveil();
    }

    function test_planting_has_its_bounds() public {
        token.approve(address(canaries), 10e18);
        vm.expectRevert(abi.encodeWithSelector(ICanaries.PrizeTooSmall.selector, 1e18 - 1, 1e18));
        canaries.plant("one", 1e18 - 1);
        canaries.plant("one", 1e18);
        vm.snapshotGasLastCall("Canaries", "plant");
        vm.expectRevert(abi.encodeWithSelector(ICanaries.AlreadyPlanted.selector, bytes32("one")));
        canaries.plant("one", 1e18);
        vm.expectRevert(abi.encodeWithSelector(ICanaries.NotPlanted.selector, bytes32("two")));
        canaries.recover("two");
    }

    function test_only_the_arbiter_awards() public {
        plantCanary();
        unveil();
        vm.expectRevert(abi.encodeWithSelector(ICanaries.NotArbiter.selector, ada, address(disputes)));
        vm.prank(ada);
        canaries.award(digestOf(), ada, block.timestamp);
    }

    /// A mark is the hash of four words; a chained state of 68 bytes.
    function test_a_mark_is_a_formula() public view {
        bytes32 mark = keccak256(abi.encode(keccak256("Assay canary"), address(canaries), bytes32("order"), SALT));
        assertEq(canaries.mark("order", SALT), mark);
    }
}
