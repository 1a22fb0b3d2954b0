// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Branch, Case, Dispute, Filing, IDisputes, OpenStep, Phase} from "../src/interfaces/IDisputes.sol";
import {Value} from "../src/interfaces/IParameters.sol";
import {Doubt, Focus, Opening, Round} from "../src/libraries/dispute/Exhibits.sol";
import {Steps} from "../src/libraries/dispute/Steps.sol";
import {DisputeFixture} from "./DisputeFixture.sol";

/// @notice The game over one element of a sum: who wins it, who is paid, and what nobody can do.
contract DisputesTest is DisputeFixture {
    uint256 private constant X = Steps.EMBED;
    uint256 private constant Y = Steps.ATTENTION_OUTPUT;
    uint256 private constant SUM = Steps.RESIDUAL_1;
    /// The element that is wrong in a false trace.
    uint8 private constant ELEMENT = 7;

    bytes private x;
    bytes private y;
    bytes private sum;

    function setUp() public override {
        super.setUp();
        program[SUM] = step(SUM, [uint32(X), uint32(Y), NONE, NONE], NONE, 32, 1, 12, 12);
        answer();
        (x, y) = (fixedLeaf(1000), fixedLeaf(-300));
        for (int32 i; i < 32; ++i) {
            sum = abi.encodePacked(sum, 700 + 2 * i);
        }
        write();
    }

    function write() private {
        (ops[X], ops[Y], ops[SUM]) = (leafHash(x), leafHash(y), leafHash(sum));
    }

    /// Makes the trace, and so the receipt, false.
    function lie() private {
        sum[4 * ELEMENT + 3] ^= 0x01;
        write();
    }

    function reads() private view returns (Opening[] memory openings) {
        openings = new Opening[](3);
        openings[0] = bare(sum);
        openings[1] = open_(x, inPosition(X));
        openings[2] = open_(y, inPosition(Y));
    }

    /// Plays up to where the number is named.
    function named(address by) private returns (uint256 id, Focus memory focus) {
        id = begin(by);
        commit(id);
        focus = nameAt(id, SUM, 0, sum, new bytes32[](0), ELEMENT, Doubt.Element);
    }

    function settle(uint256 id, Focus memory focus) private {
        disputes.prove(id, focus, "", noRounds(), reads());
    }

    // Both outcomes.

    function test_a_lie_costs_stake_and_pays_the_challenger() public {
        lie();
        (uint256 id, Focus memory focus) = named(ada);
        uint256 held = token.balanceOf(ada);
        uint256 supply = token.totalSupply();
        settle(id, focus);
        assertTrue(phaseOf(id) == Phase.Won);
        disputes.punish(digestOf());
        vm.snapshotGasLastCall("Disputes", "punish");
        disputes.close(id);
        vm.snapshotGasLastCall("Disputes", "close");

        uint256 taken = share(4 * value(Value.TierBronze), value(Value.SlashMost));
        uint256 reward = share(taken, value(Value.ChallengerReward));
        assertEq(token.balanceOf(ada), held + BOND + reward);
        assertEq(token.totalSupply(), supply - (taken - reward));
        assertEq(token.balanceOf(address(disputes)), 0);
        assertFalse(providers.active(owner));
    }

    function test_the_truth_costs_the_challenger_its_bond() public {
        (uint256 id, Focus memory focus) = named(ada);
        settle(id, focus);
        assertTrue(phaseOf(id) == Phase.Lost);
        disputes.close(id);
        assertEq(token.balanceOf(owner), BOND);
        assertEq(token.balanceOf(address(disputes)), 0);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.NotGuilty.selector, digestOf()));
        disputes.punish(digestOf());
        assertTrue(providers.active(owner));
    }

    /// On an honest trace every element that can be named is the challenger's loss.
    function test_no_element_of_an_honest_trace_wins(uint8 element) public {
        element = uint8(bound(element, 0, 31));
        uint256 id = begin(ada);
        commit(id);
        Focus memory focus = nameAt(id, SUM, 0, sum, new bytes32[](0), element, Doubt.Element);
        settle(id, focus);
        assertTrue(phaseOf(id) == Phase.Lost);
    }

    function test_the_payer_has_its_money_back() public {
        lie();
        open(0);
        bytes32 channel = channels.getChannelId(configOf(0));
        (uint256 id, Focus memory focus) = named(ada);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.NotGuilty.selector, digestOf()));
        disputes.refund(filed.receipt, configOf(0));
        settle(id, focus);
        vm.expectRevert(
            abi.encodeWithSelector(IDisputes.WrongChannel.selector, channels.getChannelId(configOf(1)), channel)
        );
        disputes.refund(filed.receipt, configOf(1));
        assertEq(disputes.refund(filed.receipt, configOf(0)), 600);
        assertEq(disputes.refund(filed.receipt, configOf(0)), 0);
    }

    function test_one_transaction_suffices_where_the_nodes_are_known() public {
        lie();
        uint256 id = begin(ada);
        vm.snapshotGasLastCall("Disputes", "open");
        commit(id);
        vm.snapshotGasLastCall("Disputes", "commit");
        uint256 state = vm.snapshotState();
        Focus memory focus = nameAt(id, SUM, 0, sum, new bytes32[](0), ELEMENT, Doubt.Element);
        vm.snapshotGasLastCall("Disputes", "name, by one jump");
        settle(id, focus);
        vm.snapshotGasLastCall("Disputes", "prove, a sum");
        vm.revertToState(state);

        bytes[] memory calls = new bytes[](4);
        Branch memory branch = way(SUM, 0, leafHash(sum), new bytes32[](0));
        calls[0] = abi.encodeCall(disputes.name, (id, branch, accuse(SUM, ELEMENT, Doubt.Element)));
        calls[1] = abi.encodeCall(disputes.prove, (id, focus, "", noRounds(), reads()));
        calls[2] = abi.encodeCall(disputes.punish, (digestOf()));
        calls[3] = abi.encodeCall(disputes.close, (id));
        vm.prank(ada);
        disputes.multicall(calls);
        vm.snapshotGasLastCall("Disputes", "one shot: name, prove, punish, close");
        assertTrue(phaseOf(id) == Phase.Returned);
    }

    // The way down.

    /// Descends by what the defender reveals, four levels at a time.
    function test_the_descent_needs_no_node_server() public {
        lie();
        uint256 id = begin(ada);
        commit(id);
        bytes32[][] memory inside = levelsOf(ops);
        bytes32[][] memory above = levelsOf(positions);
        // Ask at the root; two levels of positions.
        pick(id, 0, above[2][0], new bytes32[](0));
        disputes.reveal(id, above[0]);
        vm.snapshotGasLastCall("Disputes", "reveal, 4 nodes");
        pick(id, uint128(POSITION), positions[POSITION], proofOf(positions, POSITION));
        assertEq(disputes.disputeOf(id).here, root(ops));
        disputes.reveal(id, slice(inside[2], 0, 16));
        vm.snapshotGasLastCall("Disputes", "reveal, 16 nodes");
        pick(id, uint128(SUM >> 2), inside[2][SUM >> 2], proofOf(inside[2], SUM >> 2));
        vm.snapshotGasLastCall("Disputes", "pick");
        disputes.reveal(id, slice(inside[0], SUM & ~uint256(3), 4));
        // Two levels down to the op's root, which is its only leaf.
        bytes32[] memory proof = proofOf(slice(inside[0], SUM & ~uint256(3), 4), SUM & 3);
        vm.prank(ada);
        disputes.name(id, Branch(uint128(SUM & 3), leafHash(sum), proof), accuse(SUM, ELEMENT, Doubt.Element));
        assertTrue(phaseOf(id) == Phase.Prove);
        Focus memory focus = focusOf(SUM);
        settle(id, focus);
        assertTrue(phaseOf(id) == Phase.Won);
    }

    function test_a_leaf_is_shown_to_whom_its_data_are_withheld() public {
        lie();
        uint256 id = begin(ada);
        commit(id);
        bytes32[] memory none = new bytes32[](0);
        Branch memory there = way(SUM, 0, leafHash(sum), none);
        OpenStep memory step_ = openStep(SUM);
        vm.prank(ada);
        disputes.ask(id, there.turns, 8, step_);
        vm.snapshotGasLastCall("Disputes", "ask");
        vm.expectRevert(abi.encodeWithSelector(IDisputes.IsAsked.selector, there.turns));
        disputes.reveal(id, positions);
        vm.expectPartialRevert(IDisputes.NotBelow.selector);
        disputes.show(id, x, there.proof);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.WrongCount.selector, 0, 8));
        disputes.show(id, sum, none);
        disputes.show(id, sum, there.proof);
        vm.snapshotGasLastCall("Disputes", "show");
        // The descent goes on where it was.
        settle(id, nameAt(id, SUM, 0, sum, none, ELEMENT, Doubt.Element));
        assertTrue(phaseOf(id) == Phase.Won);
    }

    function test_only_leaves_are_shown_and_only_a_few() public {
        uint256 id = begin(ada);
        commit(id);
        OpenStep memory step_ = openStep(SUM);
        vm.startPrank(ada);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.WrongDepth.selector, 2, 8, 127));
        disputes.ask(id, uint128(POSITION), 2, step_);
        // An op of one leaf has no second one, and nothing below the first.
        uint128 turns = uint128(POSITION * OPS + SUM);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.Nowhere.selector, POSITION, SUM, 1));
        disputes.ask(id, turns << 1 | 1, 9, step_);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.WrongDepth.selector, 9, 8, 8));
        disputes.ask(id, turns << 1, 9, step_);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.BadTurns.selector, turns, 1));
        disputes.ask(id, turns, 1, step_);
        vm.stopPrank();
        bytes32[] memory proof = inTrace(SUM);
        vm.expectPartialRevert(IDisputes.WrongPhase.selector);
        disputes.show(id, sum, proof);
        for (uint256 i; i < 3; ++i) {
            vm.prank(ada);
            disputes.ask(id, turns, 8, step_);
            disputes.show(id, sum, proof);
        }
        vm.prank(ada);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.TooManyAsks.selector, 3));
        disputes.ask(id, turns, 8, step_);
        // Nobody shows what nobody asked for.
        pick(id, 0, trace(), new bytes32[](0));
        vm.expectRevert(abi.encodeWithSelector(IDisputes.WrongCount.selector, 0, 0));
        disputes.show(id, "", new bytes32[](0));
        // Who keeps silent about a leaf loses.
        id = begin(ada);
        commit(id);
        vm.prank(ada);
        disputes.ask(id, turns, 8, step_);
        skip(CLOCK + 1);
        disputes.timeout(id);
        assertTrue(phaseOf(id) == Phase.Won);
    }

    function focusOf(uint256 op) private view returns (Focus memory focus) {
        (focus.position, focus.op, focus.element) = (uint32(POSITION), uint32(op), ELEMENT);
        (focus.positionDepth, focus.opDepth) = (2, 6);
        (focus.node, focus.here, focus.step) = (leafHash(sum), root(ops), program[op]);
    }

    function slice(bytes32[] memory all, uint256 from, uint256 length) private pure returns (bytes32[] memory part) {
        part = new bytes32[](length);
        for (uint256 i; i < length; ++i) {
            part[i] = all[from + i];
        }
    }

    function pick(uint256 id, uint128 turns, bytes32 node, bytes32[] memory proof) private {
        vm.prank(ada);
        disputes.pick(id, Branch(turns, node, proof));
    }

    function test_a_pick_goes_behind_what_was_revealed_and_not_below_an_op() public {
        uint256 id = begin(ada);
        commit(id);
        bytes32[][] memory above = levelsOf(positions);
        pick(id, 0, above[2][0], new bytes32[](0));
        disputes.reveal(id, above[0]);
        bytes32[] memory one = new bytes32[](1);
        one[0] = above[1][0];
        vm.expectRevert(abi.encodeWithSelector(IDisputes.WrongDepth.selector, 1, 2, 7));
        pick(id, 1, above[1][1], one);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.WrongDepth.selector, 8, 2, 7));
        pick(id, uint128(POSITION * OPS + SUM), ops[SUM], inTrace(SUM));
    }

    function test_a_pick_ends_at_a_position_of_the_trace() public {
        positions.pop();
        positions.pop();
        positions.push();
        positions.push();
        (positions[2], positions[3]) = (bytes32(0), bytes32(0));
        uint256 id = begin(ada);
        vm.prank(operator);
        disputes.commit(id, root(positions), "");
        // Five tokens make four positions: all are there. One token less makes three.
        pick(id, 3, positions[3], proofOf(positions, 3));
        filed.receipt.outputTokens = 1;
        filed.receipt.finish = 0;
        resign();
        id = begin(ada);
        vm.prank(operator);
        disputes.commit(id, root(positions), "");
        vm.expectRevert(abi.encodeWithSelector(IDisputes.Nowhere.selector, 3, 0, 0));
        pick(id, 3, positions[3], proofOf(positions, 3));
    }

    function test_nodes_that_fold_to_another_node_are_refused() public {
        uint256 id = begin(ada);
        commit(id);
        bytes32[][] memory above = levelsOf(positions);
        pick(id, 0, above[2][0], new bytes32[](0));
        vm.expectRevert(abi.encodeWithSelector(IDisputes.WrongCount.selector, 2, 4));
        disputes.reveal(id, above[1]);
        (above[0][0], above[0][1]) = (above[0][1], above[0][0]);
        vm.expectPartialRevert(IDisputes.NotBelow.selector);
        disputes.reveal(id, above[0]);
    }

    function test_what_stands_nowhere_must_be_zero() public {
        ops[STEPS + 1] = keccak256("padding");
        uint256 id = begin(ada);
        commit(id);
        bytes32[] memory none = new bytes32[](0);
        OpenStep memory open_step = openStep(SUM);
        Branch memory zero = way(STEPS + 2, 0, 0, none);
        Branch memory there = way(SUM, 0, ops[SUM], none);
        Branch memory lie_ = way(STEPS + 1, 0, ops[STEPS + 1], none);
        vm.startPrank(ada);
        vm.expectRevert(IDisputes.Empty.selector);
        disputes.empty(id, zero, open_step);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.Somewhere.selector, POSITION, SUM, 0));
        disputes.empty(id, there, open_step);
        disputes.empty(id, lie_, open_step);
        vm.stopPrank();
        assertTrue(phaseOf(id) == Phase.Won);
    }

    // Clocks.

    function test_silence_loses_on_each_side(uint8 when) public {
        uint256 id = begin(ada);
        uint256 moves = when % 4;
        if (moves > 0) commit(id);
        if (moves == 2) pick(id, 0, trace(), new bytes32[](0));
        if (moves == 3) nameAt(id, SUM, 0, sum, new bytes32[](0), ELEMENT, Doubt.Element);
        skip(CLOCK);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.TooEarly.selector, CLOCK, CLOCK));
        disputes.timeout(id);
        skip(1);
        disputes.timeout(id);
        assertTrue(phaseOf(id) == (moves == 1 ? Phase.Lost : Phase.Won));
        vm.expectRevert(abi.encodeWithSelector(IDisputes.WrongPhase.selector, phaseOf(id), Phase.Commit));
        disputes.timeout(id);
    }

    function test_a_move_in_the_last_second_counts_and_one_later_does_not() public {
        uint256 id = begin(ada);
        uint256 state = vm.snapshotState();
        skip(CLOCK);
        commit(id);
        assertEq(disputes.disputeOf(id).defenderLeft, 0);
        vm.revertToState(state);
        skip(CLOCK + 1);
        bytes32 committed = trace();
        vm.prank(operator);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.TooLate.selector, CLOCK + 1, CLOCK));
        disputes.commit(id, committed, "");
    }

    function test_the_clock_is_one_for_all_moves() public {
        uint256 id = begin(ada);
        skip(CLOCK / 2);
        commit(id);
        skip(CLOCK / 4);
        Focus memory focus = nameAt(id, SUM, 0, sum, new bytes32[](0), ELEMENT, Doubt.Element);
        skip(CLOCK / 2 + 1);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.TooLate.selector, CLOCK / 2 + 1, CLOCK / 2));
        settle(id, focus);
        disputes.timeout(id);
        assertTrue(phaseOf(id) == Phase.Won);
    }

    // Who may move.

    function test_a_relayer_moves_for_the_provider() public {
        uint256 id = begin(ada);
        bytes32 committed = trace();
        bytes memory word = signed(operatorKey, disputes.moveDigest(id, committed));
        vm.expectPartialRevert(IDisputes.NotDefender.selector);
        disputes.commit(id, keccak256("other"), word);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.NotDefender.selector, ada, owner));
        vm.prank(ada);
        disputes.commit(id, committed, "");
        disputes.commit(id, committed, word);
        assertTrue(phaseOf(id) == Phase.Pick);
    }

    function test_only_the_challenger_accuses() public {
        uint256 id = begin(ada);
        commit(id);
        Branch memory root_ = Branch(0, trace(), new bytes32[](0));
        vm.expectRevert(abi.encodeWithSelector(IDisputes.NotChallenger.selector, address(this), ada));
        disputes.pick(id, root_);
    }

    function test_an_order_without_audit_is_its_buyers_affair() public {
        filed.order.audit = 0;
        resign();
        Filing memory filing = filed;
        vm.expectRevert(abi.encodeWithSelector(IDisputes.NotBuyer.selector, ada, buyer));
        vm.prank(ada);
        disputes.open(filing);
        challenger("buyer");
        begin(buyer);
    }

    // What can be opened.

    function test_both_words_must_be_signed_and_belong_together() public {
        Filing memory filing = filed;
        filing.order.nonce = 2;
        vm.expectPartialRevert(IDisputes.WrongOrder.selector);
        disputes.open(filing);
        filing = filed;
        filing.orderSignature = signed(operatorKey, filing.receipt.order);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.WrongSigner.selector, operator, buyer));
        disputes.open(filing);
        filing = filed;
        filing.receipt.price = 1;
        vm.expectPartialRevert(IDisputes.WrongSigner.selector);
        disputes.open(filing);
        filing = filed;
        filing.sampler.seed = keccak256("another");
        vm.expectPartialRevert(IDisputes.WrongSampler.selector);
        disputes.open(filing);
        filing = filed;
        filing.receiptSignature = "";
        vm.expectRevert(abi.encodeWithSelector(IDisputes.WrongSigner.selector, address(0), operator));
        disputes.open(filing);
    }

    function test_a_receipt_is_in_reach_for_a_window() public {
        uint256 last = block.timestamp + value(Value.DisputeWindow);
        skip(value(Value.DisputeWindow));
        uint256 state = vm.snapshotState();
        begin(ada);
        vm.revertToState(state);
        skip(1);
        Filing memory filing = filed;
        vm.expectRevert(abi.encodeWithSelector(IDisputes.OutOfReach.selector, last + 1, last));
        vm.prank(ada);
        disputes.open(filing);
    }

    // Several disputes.

    function test_a_friend_who_plays_badly_saves_nobody() public {
        lie();
        address friend = challenger("friend");
        uint256 first = begin(friend);
        (uint256 id, Focus memory focus) = named(ada);
        commit(first);
        skip(CLOCK + 1);
        disputes.timeout(first);
        assertTrue(phaseOf(first) == Phase.Lost);
        // Ada has moved in time, and the provider has not.
        assertTrue(phaseOf(id) == Phase.Prove);
        vm.expectPartialRevert(IDisputes.TooLate.selector);
        settle(id, focus);
        disputes.timeout(id);
        uint256 held = token.balanceOf(ada);
        disputes.punish(digestOf());
        assertGt(token.balanceOf(ada), held);
        disputes.close(first);
        disputes.close(id);
        assertEq(token.balanceOf(owner), BOND);
        assertEq(token.balanceOf(address(disputes)), 0);
    }

    function test_the_first_to_open_has_the_reward_and_all_their_bonds() public {
        lie();
        address bob = challenger("bob");
        uint256 first = begin(ada);
        (uint256 second, Focus memory focus) = named(bob);
        settle(second, focus);
        uint256 held = token.balanceOf(bob);
        disputes.punish(digestOf());
        assertEq(token.balanceOf(bob), held);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.AlreadyPunished.selector, digestOf()));
        disputes.punish(digestOf());
        disputes.close(first);
        disputes.close(second);
        assertEq(token.balanceOf(bob), held + BOND);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.NothingDue.selector, Phase.Returned));
        disputes.close(first);
        assertEq(token.balanceOf(address(disputes)), 0);
        Filing memory filing = filed;
        vm.expectRevert(abi.encodeWithSelector(IDisputes.AlreadyGuilty.selector, digestOf()));
        disputes.open(filing);
    }

    function test_nothing_is_decided_after_the_verdict() public {
        lie();
        address bob = challenger("bob");
        uint256 first = begin(bob);
        (uint256 second, Focus memory focus) = named(ada);
        settle(second, focus);
        skip(CLOCK + 1);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.AlreadyGuilty.selector, digestOf()));
        disputes.timeout(first);
    }

    function test_stake_on_its_way_out_is_reached() public {
        lie();
        uint256 all = 4 * value(Value.TierBronze);
        vm.prank(owner);
        providers.unbond(uint128(all));
        skip(value(Value.DisputeWindow));
        (uint256 id, Focus memory focus) = named(ada);
        settle(id, focus);
        uint256 supply = token.totalSupply();
        disputes.punish(digestOf());
        uint256 taken = share(all, value(Value.SlashMost));
        assertEq(token.totalSupply(), supply - (taken - share(taken, value(Value.ChallengerReward))));
    }

    // What a proof must hold.

    function test_openings_are_of_the_leaves_that_the_rule_reads() public {
        (uint256 id, Focus memory focus) = named(ada);
        Opening[] memory openings = reads();
        (openings[1], openings[2]) = (openings[2], openings[1]);
        vm.expectRevert();
        disputes.prove(id, focus, "", noRounds(), openings);
        openings = reads();
        openings[1].data = bytes.concat(x, hex"00");
        vm.expectRevert();
        disputes.prove(id, focus, "", noRounds(), openings);
        // An inner node is no leaf.
        openings = reads();
        bytes32[][] memory inside = levelsOf(ops);
        openings[1].data = bytes.concat(inside[0][0], inside[0][1]);
        vm.expectRevert();
        disputes.prove(id, focus, "", noRounds(), openings);
        openings = new Opening[](2);
        (openings[0], openings[1]) = (bare(sum), reads()[1]);
        vm.expectRevert();
        disputes.prove(id, focus, "", noRounds(), openings);
        focus.element = 8;
        vm.expectPartialRevert(IDisputes.WrongFocus.selector);
        disputes.prove(id, focus, "", noRounds(), reads());
    }

    function test_names_are_of_what_there_is() public {
        uint256 id = begin(ada);
        commit(id);
        Branch memory branch = way(SUM, 0, leafHash(sum), new bytes32[](0));
        vm.startPrank(ada);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.NoElement.selector, 32, 32));
        disputes.name(id, branch, accuse(SUM, 32, Doubt.Element));
        vm.expectRevert(abi.encodeWithSelector(IDisputes.NoSuchDoubt.selector, Doubt.Link, SUM));
        disputes.name(id, branch, accuse(SUM, 0, Doubt.Link));
        vm.expectPartialRevert(IDisputes.NotInModel.selector);
        disputes.name(id, branch, accuse(SUM + 1, 0, Doubt.Element));
        branch.turns = 1 << 20;
        vm.expectRevert(abi.encodeWithSelector(IDisputes.BadTurns.selector, 1 << 20, 8));
        disputes.name(id, branch, accuse(SUM, 0, Doubt.Element));
        vm.stopPrank();
    }

    // Silent lists.

    function test_lists_come_from_the_provider_and_are_few() public {
        (uint256 id,) = named(ada);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.NotDefender.selector, ada, owner));
        vm.prank(ada);
        disputes.list(id, hex"00", "");
        for (uint256 i; i < 2; ++i) {
            vm.prank(owner);
            disputes.list(id, hex"00", "");
            vm.prank(ada);
            disputes.choose(id, 0);
        }
        vm.expectRevert(abi.encodeWithSelector(IDisputes.TooManyRounds.selector, 2));
        vm.prank(owner);
        disputes.list(id, hex"00", "");
    }
}
