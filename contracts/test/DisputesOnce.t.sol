// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Case, Filing, IDisputes, Phase, Tail} from "../src/interfaces/IDisputes.sol";
import {Value} from "../src/interfaces/IParameters.sol";
import {Opening} from "../src/libraries/dispute/Exhibits.sol";
import {Words} from "../src/libraries/Words.sol";
import {Receipt} from "../src/types/Receipt.sol";
import {Sampler} from "../src/types/Sampler.sol";
import {DisputeFixture} from "./DisputeFixture.sol";

/// @notice What a provider's own signatures convict it of, without a game.
contract DisputesOnceTest is DisputeFixture {
    function setUp() public override {
        super.setUp();
        answer();
    }

    function refuse() private {
        resign();
        Filing memory filing = filed;
        vm.expectRevert(IDisputes.NoContradiction.selector);
        disputes.contradict(filing);
    }

    function convict() private {
        resign();
        Filing memory filing = filed;
        uint256 state = vm.snapshotState();
        vm.prank(ada);
        disputes.contradict(filing);
        assertTrue(disputes.caseOf(digestOf()).guilty);
        uint256 held = token.balanceOf(ada);
        disputes.punish(digestOf());
        assertGt(token.balanceOf(ada), held);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.NothingDue.selector, Phase.Returned));
        disputes.close(1);
        vm.revertToState(state);
    }

    function test_an_honest_receipt_does_not_contradict_itself() public {
        refuse();
        (filed.receipt.finish, filed.receipt.outputTokens) = (3, 1);
        refuse();
        filed.receipt.finish = 0;
        refuse();
    }

    function test_each_contradiction_convicts() public {
        Receipt memory honest = filed.receipt;
        filed.receipt.price = 1001;
        filed.receipt.channelAfter = 1401;
        convict();
        filed.receipt = honest;
        filed.receipt.channelAfter = 1001;
        convict();
        filed.receipt = honest;
        filed.receipt.assurance = 1;
        Filing memory filing = filed;
        filing.receiptSignature = signed(operatorKey, Words.digest(filing.receipt));
        disputes.contradict(filing);
        filed.receipt = honest;
        filed.receipt.asset = address(token);
        convict();
        filed.receipt = honest;
        filed.receipt.finish = 4;
        convict();
        filed.receipt = honest;
        filed.receipt.outputTokens = 3;
        convict();
        filed.receipt = honest;
        filed.receipt.outputTokens = 1;
        convict();
        filed.receipt = honest;
        filed.receipt.started = filed.receipt.finished + 1;
        convict();
        filed.receipt = honest;
        (filed.receipt.started, filed.receipt.finished) = (honest.started + 1000, honest.finished + 1000);
        convict();
    }

    // Finish.

    function tail(uint32 length) private view returns (Tail memory found) {
        found.length = length;
        uint32 token_ = output[length - 1];
        found.tokens = abi.encodePacked(token_);
        found.proof = proofOf(outputHashes(), length - 1);
        found.eos = new uint32[](1);
        found.eos[0] = 31;
    }

    function test_an_answer_that_goes_on_after_its_end_convicts() public {
        output[0] = 31;
        answer();
        Filing memory filing = filed;
        vm.prank(ada);
        disputes.misfinish(filing, tail(1));
        vm.snapshotGasLastCall("Disputes", "misfinish");
        assertTrue(disputes.caseOf(digestOf()).guilty);
    }

    function test_a_finish_that_the_tokens_do_not_bear_out_convicts() public {
        Filing memory filing = filed;
        vm.expectRevert(IDisputes.NoContradiction.selector);
        disputes.misfinish(filing, tail(1));
        vm.expectRevert(IDisputes.NoContradiction.selector);
        disputes.misfinish(filing, tail(2));
        filed.receipt.finish = 0;
        resign();
        filing = filed;
        disputes.misfinish(filing, tail(2));
        assertTrue(disputes.caseOf(digestOf()).guilty);
    }

    function test_a_stop_sequence_ends_an_answer() public {
        Sampler memory sampler;
        (sampler.topP_q16, sampler.rep_q16) = (1 << 16, 1 << 16);
        bytes memory stops = abi.encodePacked(uint32(1), uint32(2), output[0], output[1]);
        sampler.stops = keccak256(stops);
        answer(sampler, 1, keccak256("state"));
        Tail memory found = tail(2);
        found.tokens = abi.encodePacked(output[0], output[1]);
        found.proof = new bytes32[](0);
        found.stops = stops;
        Filing memory filing = filed;
        vm.expectRevert(IDisputes.NoContradiction.selector);
        disputes.misfinish(filing, found);
        filed.receipt.finish = 2;
        resign();
        filing = filed;
        disputes.misfinish(filing, found);
        assertTrue(disputes.caseOf(digestOf()).guilty);
    }

    // Equivocation.

    /// Another receipt for the same order.
    function second() private view returns (Receipt memory other) {
        other = filed.receipt;
    }

    function accuse(Receipt memory a, Receipt memory b, uint32 index, Opening[2] memory tokens) private {
        Receipt[2] memory pair = [a, b];
        bytes[2] memory signatures = [signed(operatorKey, Words.digest(a)), signed(operatorKey, Words.digest(b))];
        vm.prank(ada);
        disputes.equivocate(pair, signatures, index, tokens);
    }

    function none() private pure returns (Opening[2] memory tokens) {}

    function test_equal_outputs_with_different_states_convict() public {
        Receipt memory other = second();
        other.state = keccak256("another");
        accuse(filed.receipt, other, 0, none());
        vm.snapshotGasLastCall("Disputes", "equivocate");
        assertTrue(disputes.caseOf(digestOf()).guilty);
        assertTrue(disputes.caseOf(Words.digest(other)).guilty);
        Receipt memory kept = filed.receipt;
        vm.expectRevert(abi.encodeWithSelector(IDisputes.AlreadyGuilty.selector, Words.digest(other)));
        this.again(other, kept);
    }

    function again(Receipt memory a, Receipt memory b) external {
        Receipt[2] memory pair = [a, b];
        bytes[2] memory signatures = [signed(operatorKey, Words.digest(a)), signed(operatorKey, Words.digest(b))];
        disputes.equivocate(pair, signatures, 0, none());
    }

    function test_outputs_that_differ_at_a_token_convict() public {
        Opening[2] memory tokens;
        tokens[0] = open_(abi.encodePacked(output[0]), proofOf(outputHashes(), 0));
        Receipt memory honest = filed.receipt;
        output[0] = 30;
        Receipt memory other = second();
        other.output = root(outputHashes());
        tokens[1] = open_(abi.encodePacked(output[0]), proofOf(outputHashes(), 0));
        accuse(honest, other, 0, tokens);
        assertTrue(disputes.caseOf(Words.digest(honest)).guilty);
    }

    function test_a_client_that_came_back_harms_nobody() public {
        // Cancelled after one token, then answered in full: the longer output extends the shorter one.
        Receipt memory whole = filed.receipt;
        Receipt memory shorter = second();
        bytes32[] memory one = new bytes32[](1);
        one[0] = outputHashes()[0];
        (shorter.output, shorter.outputTokens, shorter.finish) = (one[0], 1, 3);
        shorter.state = keccak256("state after one token");
        Opening[2] memory tokens;
        tokens[0] = open_(abi.encodePacked(output[0]), new bytes32[](0));
        tokens[1] = open_(abi.encodePacked(output[0]), proofOf(outputHashes(), 0));
        vm.expectRevert(IDisputes.NoContradiction.selector);
        this.accusation(shorter, whole, 0, tokens);
        tokens[1] = open_(abi.encodePacked(output[1]), proofOf(outputHashes(), 1));
        vm.expectRevert(abi.encodeWithSelector(IDisputes.Nowhere.selector, 1, 0, 0));
        this.accusation(shorter, whole, 1, tokens);
        // The same answer again, and the same receipt twice.
        Receipt memory retold = second();
        retold.channelBefore = 5;
        retold.channelAfter = 605;
        vm.expectRevert(IDisputes.NoContradiction.selector);
        this.accusation(whole, retold, 0, tokens);
        vm.expectRevert(IDisputes.NotAPair.selector);
        this.accusation(whole, whole, 0, tokens);
    }

    function accusation(Receipt memory a, Receipt memory b, uint32 index, Opening[2] memory tokens) external {
        Receipt[2] memory pair = [a, b];
        bytes[2] memory signatures = [signed(operatorKey, Words.digest(a)), signed(operatorKey, Words.digest(b))];
        disputes.equivocate(pair, signatures, index, tokens);
    }

    function test_a_stranger_signs_nothing_for_the_provider() public {
        Receipt memory other = second();
        other.state = keccak256("another");
        other.provider = buyer;
        Receipt[2] memory pair = [filed.receipt, other];
        bytes[2] memory signatures =
            [signed(operatorKey, Words.digest(pair[0])), signed(buyerKey, Words.digest(pair[1]))];
        vm.expectRevert(abi.encodeWithSelector(IDisputes.NoProvider.selector, buyer));
        disputes.equivocate(pair, signatures, 0, none());
    }

    /// Who opened before the contradiction was seen has the reward, and its bond.
    function test_the_first_to_open_is_paid() public {
        filed.receipt.started = filed.receipt.finished + 1;
        resign();
        address bob = challenger("bob");
        uint256 id = begin(bob);
        Filing memory filing = filed;
        vm.prank(ada);
        disputes.contradict(filing);
        uint256 held = token.balanceOf(bob);
        disputes.punish(digestOf());
        uint256 taken = share(4 * value(Value.TierBronze), value(Value.SlashMost));
        disputes.close(id);
        assertEq(token.balanceOf(bob), held + BOND + share(taken, value(Value.ChallengerReward)));
    }
}
