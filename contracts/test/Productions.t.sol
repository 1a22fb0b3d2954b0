// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Draw, IBeacons} from "../src/interfaces/IBeacons.sol";
import {IDisputes} from "../src/interfaces/IDisputes.sol";
import {Value} from "../src/interfaces/IParameters.sol";
import {IProductions, Showing, Stage, Texts} from "../src/interfaces/IProductions.sol";
import {Span} from "../src/interfaces/IReceipts.sol";
import {Trees} from "../src/libraries/dispute/Trees.sol";
import {Words} from "../src/libraries/Words.sol";
import {AuditFixture} from "./AuditFixture.sol";

/// @notice Who may ask a provider for what it posted, what answers, and what silence costs.
contract ProductionsTest is AuditFixture {
    uint256 private period;
    Draw private draw;

    function setUp() public override {
        super.setUp();
        answer();
        (period, draw) = postAndDraw();
    }

    function key() private view returns (bytes32) {
        return keccak256(abi.encode(owner, period, uint256(1)));
    }

    function stage() private view returns (Stage) {
        return productions.productionOf(owner, period, 1).stage;
    }

    // Answers.

    function test_an_answer_earns_the_auditors_bond() public {
        uint256 held = token.balanceOf(draw.first);
        ask(draw.first, period);
        vm.snapshotGasLastCall("Productions", "produce");
        assertEq(token.balanceOf(draw.first), held - ASKING_BOND);
        productions.show(owner, period, 1, showing());
        vm.snapshotGasLastCall("Productions", "show");
        assertTrue(stage() == Stage.Supplying);
        supplyAll(period);
        vm.snapshotGasLastCall("Productions", "supply, the last of few tokens");
        assertTrue(stage() == Stage.Answered);
        assertEq(token.balanceOf(owner), ASKING_BOND);
        assertEq(token.balanceOf(address(productions)), 0);

        skip(CLOCK);
        vm.expectRevert(abi.encodeWithSelector(IProductions.WrongStage.selector, Stage.Answered, Stage.Asked));
        productions.timeout(owner, period, 1);
        vm.expectRevert(abi.encodeWithSelector(IDisputes.NotSilent.selector, owner, period, 1));
        disputes.withhold(owner, period, 1);
        // What is public need not be asked for again.
        vm.expectRevert(abi.encodeWithSelector(IProductions.WrongStage.selector, Stage.Answered, Stage.None));
        vm.prank(draw.second);
        productions.produce(owner, period, 1);
    }

    function test_one_transaction_answers_in_the_last_second() public {
        ask(draw.second, period);
        skip(CLOCK / 2);
        bytes[] memory calls = new bytes[](3);
        calls[0] = abi.encodeCall(productions.show, (owner, period, 1, showing()));
        (bytes memory run, bytes32[] memory neighbours) = promptRun();
        calls[1] = abi.encodeCall(productions.supply, (owner, period, 1, texts(), run, neighbours));
        (run, neighbours) = outputRun();
        calls[2] = abi.encodeCall(productions.supply, (owner, period, 1, texts(), run, neighbours));
        productions.multicall(calls);
        assertTrue(stage() == Stage.Answered);
    }

    /// Tokens come in runs of any length, in order.
    function test_tokens_come_in_runs() public {
        ask(draw.first, period);
        productions.show(owner, period, 1, showing());
        bytes32[] memory leaves = tokens(prompt[0], prompt[1], prompt[2]);
        for (uint256 i; i < 3; ++i) {
            bytes memory one_ = abi.encodePacked(prompt[i]);
            productions.supply(owner, period, 1, texts(), one_, proofOf(leaves, i));
        }
        (bytes memory run, bytes32[] memory neighbours) = outputRun();
        productions.supply(owner, period, 1, texts(), run, neighbours);
        assertTrue(stage() == Stage.Answered);
    }

    /// An order that no stranger may look into is answered without its tokens.
    function test_a_private_order_is_answered_without_tokens() public {
        filed.order.audit = 0;
        resign();
        (period, draw) = postAndDraw();
        ask(draw.first, period);
        productions.show(owner, period, 1, showing());
        assertTrue(stage() == Stage.Answered);
    }

    // Silence.

    function test_silence_convicts_and_the_auditor_is_paid() public {
        ask(draw.first, period);
        skip(CLOCK / 2);
        vm.expectRevert(abi.encodeWithSelector(IProductions.StillTime.selector, CLOCK / 2, CLOCK / 2));
        productions.timeout(owner, period, 1);
        skip(1);
        vm.expectRevert(abi.encodeWithSelector(IProductions.TooLate.selector, CLOCK / 2 + 1, CLOCK / 2));
        productions.show(owner, period, 1, showing());
        uint256 held = token.balanceOf(draw.first);
        productions.timeout(owner, period, 1);
        vm.snapshotGasLastCall("Productions", "timeout");
        assertEq(token.balanceOf(draw.first), held + ASKING_BOND);
        assertTrue(productions.forfeited(owner, period, 1));
        vm.expectRevert(abi.encodeWithSelector(IProductions.WrongStage.selector, Stage.Forfeited, Stage.Asked));
        productions.timeout(owner, period, 1);

        disputes.withhold(owner, period, 1);
        vm.snapshotGasLastCall("Disputes", "withhold");
        vm.expectRevert(abi.encodeWithSelector(IDisputes.AlreadyGuilty.selector, key()));
        disputes.withhold(owner, period, 1);
        assertEq(disputes.caseOf(key()).owner, owner);
        disputes.punish(key());
        uint256 taken = share(4 * value(Value.TierBronze), value(Value.SlashMost));
        assertEq(token.balanceOf(draw.first), held + ASKING_BOND + share(taken, value(Value.ChallengerReward)));
        assertFalse(providers.active(owner));
        vm.expectRevert(abi.encodeWithSelector(IDisputes.AlreadyPunished.selector, key()));
        disputes.punish(key());
    }

    /// Half an answer is silence.
    function test_withheld_tokens_are_silence() public {
        ask(draw.first, period);
        productions.show(owner, period, 1, showing());
        (bytes memory run, bytes32[] memory neighbours) = promptRun();
        productions.supply(owner, period, 1, texts(), run, neighbours);
        skip(CLOCK / 2 + 1);
        (run, neighbours) = outputRun();
        vm.expectRevert(abi.encodeWithSelector(IProductions.TooLate.selector, CLOCK / 2 + 1, CLOCK / 2));
        productions.supply(owner, period, 1, texts(), run, neighbours);
        productions.timeout(owner, period, 1);
        assertEq(productions.silentTo(owner, period, 1), draw.first);
    }

    /// A tree of nothing cannot be shown.
    function test_a_root_without_receipts_convicts() public {
        vm.prank(owner);
        period = receipts.post(owner, keccak256("nothing"), 2, new Span[](0));
        makeBeacon();
        draw = auditors.drawOf(owner, period, 1);
        ask(draw.first, period);
        Showing memory shown = showing();
        shown.proof = new bytes32[](1);
        vm.expectRevert(abi.encodeWithSelector(IProductions.NotPosted.selector, digestOf()));
        productions.show(owner, period, 1, shown);
        skip(CLOCK);
        productions.timeout(owner, period, 1);
        disputes.withhold(owner, period, 1);
        assertTrue(disputes.caseOf(key()).guilty);
    }

    // Who may ask.

    function test_only_who_was_drawn_asks_and_in_time() public {
        address third;
        for (uint256 i; i < 3; ++i) {
            if (crew[i] != draw.first && crew[i] != draw.second) third = crew[i];
        }
        bytes memory refused = abi.encodeWithSelector(IProductions.NotDrawn.selector, third, draw.first, draw.second);
        vm.expectRevert(refused);
        vm.prank(third);
        productions.produce(owner, period, 1);
        uint256 late = draw.epoch + 4;
        toEpoch(late);
        vm.expectRevert(abi.encodeWithSelector(IProductions.WrongTime.selector, late, draw.epoch + 2, draw.epoch + 3));
        vm.prank(draw.first);
        productions.produce(owner, period, 1);
        vm.warp(late * EPOCH - 1);
        ask(draw.first, period);
    }

    function test_nobody_asks_before_the_draw() public {
        uint256 next = post();
        uint256 epoch = auditors.epochNow();
        vm.expectRevert(abi.encodeWithSelector(IBeacons.NotDrawnYet.selector, epoch, epoch + 2));
        vm.prank(crew[0]);
        productions.produce(owner, next, 1);
    }

    function test_nothing_is_owed_that_was_not_asked_for() public {
        vm.expectRevert(abi.encodeWithSelector(IProductions.WrongStage.selector, Stage.None, Stage.Asked));
        productions.show(owner, period, 1, showing());
        vm.expectRevert(abi.encodeWithSelector(IProductions.WrongStage.selector, Stage.None, Stage.Asked));
        productions.timeout(owner, period, 1);
    }

    function test_bond_and_clock_have_bounds() public {
        assertEq(deploy(1e15 - 1, 5), address(0));
        assertEq(deploy(100_000e18 + 1, 5), address(0));
        assertEq(deploy(1e15, 4), address(0));
        assertEq(deploy(1e15, 7 days + 1), address(0));
        assertTrue(deploy(1e15, 5) != address(0));
        assertTrue(deploy(100_000e18, 7 days) != address(0));
    }

    function deploy(uint256 bond, uint256 clock) private returns (address) {
        bytes memory rest = abi.encode(token, receipts, providers, auditors, bond, clock);
        return create("Productions.sol:Productions", rest);
    }

    // Bad answers.

    function refuse(Showing memory shown, bytes memory why) private {
        vm.expectRevert(why);
        productions.show(owner, period, 1, shown);
    }

    function test_an_answer_must_be_what_was_posted_and_signed() public {
        ask(draw.first, period);
        Showing memory shown = showing();
        shown.order.nonce = 99;
        bytes32 order = Words.digest(shown.order);
        refuse(shown, abi.encodeWithSelector(IProductions.WrongOrder.selector, shown.receipt.order, order));

        shown = showing();
        shown.orderSignature = signed(operatorKey, filed.receipt.order);
        refuse(shown, abi.encodeWithSelector(IProductions.WrongSigner.selector, operator, buyer));
        shown.orderSignature = "";
        refuse(shown, abi.encodeWithSelector(IProductions.WrongSigner.selector, address(0), buyer));

        shown = showing();
        shown.receiptSignature = signed(buyerKey, digestOf());
        refuse(shown, abi.encodeWithSelector(IProductions.WrongSigner.selector, buyer, operator));

        // Another receipt of the same provider.
        shown = showing();
        shown.receipt.price = 1;
        bytes32 digest = Words.digest(shown.receipt);
        shown.receiptSignature = signed(operatorKey, digest);
        refuse(shown, abi.encodeWithSelector(IProductions.NotPosted.selector, digest));

        shown = showing();
        shown.sampler.topK = 3;
        bytes32 found = Words.hash(shown.sampler);
        refuse(shown, abi.encodeWithSelector(IProductions.WrongSampler.selector, found, filed.order.sampler));

        shown = showing();
        shown.proof = new bytes32[](1);
        refuse(shown, abi.encodeWithSelector(IProductions.NotPosted.selector, digestOf()));
        assertTrue(stage() == Stage.Asked);
    }

    /// A receipt of another's operator, or for another deployment, should not have been posted.
    function test_what_should_not_have_been_posted_cannot_be_shown() public {
        filed.order.market = address(1);
        resign();
        (period, draw) = postAndDraw();
        ask(draw.first, period);
        refuse(showing(), abi.encodeWithSelector(IProductions.WrongMarket.selector, address(1), address(receipts)));
        filed.order.market = address(receipts);
        enrol("other", value(Value.TierBronze));
        uint256 theirs;
        (filed.receipt.provider, theirs) = makeAddrAndKey(operatorName("other"));
        resign();
        filed.receiptSignature = signed(theirs, digestOf());
        (period, draw) = postAndDraw();
        ask(draw.first, period);
        refuse(showing(), abi.encodeWithSelector(IProductions.WrongOwner.selector, makeAddr("other"), owner));
    }

    function test_tokens_must_be_the_next_ones() public {
        ask(draw.first, period);
        (bytes memory run, bytes32[] memory neighbours) = promptRun();
        Texts memory owed = texts();
        vm.expectRevert(abi.encodeWithSelector(IProductions.WrongStage.selector, Stage.Asked, Stage.Supplying));
        productions.supply(owner, period, 1, owed, run, neighbours);
        productions.show(owner, period, 1, showing());

        Texts memory others = texts();
        others.promptTokens = 0;
        vm.expectPartialRevert(IProductions.WrongTexts.selector);
        productions.supply(owner, period, 1, others, run, neighbours);
        vm.expectRevert(abi.encodeWithSelector(IProductions.BadRun.selector, 0, 3));
        productions.supply(owner, period, 1, owed, "", neighbours);
        vm.expectRevert(abi.encodeWithSelector(IProductions.BadRun.selector, 13, 3));
        productions.supply(owner, period, 1, owed, bytes.concat(run, hex"00"), neighbours);
        vm.expectRevert(abi.encodeWithSelector(IProductions.BadRun.selector, 16, 3));
        productions.supply(owner, period, 1, owed, bytes.concat(run, run[0], run[1], run[2], run[3]), neighbours);
        vm.expectRevert(abi.encodeWithSelector(Trees.WrongProof.selector, 0, 1));
        productions.supply(owner, period, 1, owed, run, new bytes32[](0));
        run[3] ^= 0x01;
        vm.expectPartialRevert(IProductions.WrongTexts.selector);
        productions.supply(owner, period, 1, owed, run, neighbours);
        // The second token first.
        bytes32[] memory leaves = tokens(prompt[0], prompt[1], prompt[2]);
        bytes memory second = abi.encodePacked(prompt[1]);
        bytes32[] memory proof = proofOf(leaves, 1);
        vm.expectPartialRevert(IProductions.WrongTexts.selector);
        productions.supply(owner, period, 1, owed, second, proof);
    }

    /// Whatever is cut up how, the honest provider's answer is taken.
    function test_an_honest_provider_is_never_convicted(uint256 cut, uint256 wait) public {
        ask(draw.first, period);
        skip(bound(wait, 0, CLOCK / 2));
        productions.show(owner, period, 1, showing());
        bytes32[] memory leaves = tokens(prompt[0], prompt[1], prompt[2]);
        cut = bound(cut, 1, 2);
        // As one token and two, or as two and one.
        bytes memory head = abi.encodePacked(prompt[0]);
        bytes memory rest = abi.encodePacked(prompt[1], prompt[2]);
        bytes32[] memory headProof = proofOf(leaves, 0);
        bytes32[] memory restProof = new bytes32[](2);
        (restProof[0], restProof[1]) = (leaves[0], bytes32(0));
        if (cut == 2) {
            (head, rest) = (abi.encodePacked(prompt[0], prompt[1]), abi.encodePacked(prompt[2]));
            headProof = new bytes32[](1);
            headProof[0] = proofOf(leaves, 0)[1];
            restProof = proofOf(leaves, 2);
        }
        productions.supply(owner, period, 1, texts(), head, headProof);
        productions.supply(owner, period, 1, texts(), rest, restProof);
        (bytes memory run, bytes32[] memory neighbours) = outputRun();
        productions.supply(owner, period, 1, texts(), run, neighbours);
        assertTrue(stage() == Stage.Answered);
        skip(2 * CLOCK);
        vm.expectRevert(abi.encodeWithSelector(IProductions.WrongStage.selector, Stage.Answered, Stage.Asked));
        productions.timeout(owner, period, 1);
        assertFalse(productions.forfeited(owner, period, 1));
    }

    function hashes(bytes calldata run, uint256 first) external pure returns (bytes32[] memory) {
        return Trees.tokenHashes(run, first);
    }

    /// The leaves of tokens, beside the plain way to hash them.
    function test_tokens_hash_as_their_leaves(bytes calldata run, uint32 first) public view {
        bytes32[] memory found = this.hashes(run, first);
        assertEq(found.length, run.length / 4);
        for (uint256 i; i < found.length; ++i) {
            uint32 index;
            unchecked {
                index = first + uint32(i);
            }
            assertEq(found[i], leafHash(bytes.concat(bytes4(index), run[4 * i:4 * i + 4])));
        }
    }

    function above(bytes32[] memory run, uint256 first, uint256 depth, bytes32[] calldata proof)
        external
        pure
        returns (bytes32)
    {
        return Trees.rangeRoot(run, first, depth, proof);
    }

    /// A run anywhere in a tree of any size leads to its root, beside the plain way to build it.
    function test_a_run_leads_to_the_root(uint256 size, uint256 first, uint256 count, bytes32 seed) public view {
        size = bound(size, 1, 40);
        first = bound(first, 0, size - 1);
        count = bound(count, 1, size - first);
        bytes32[] memory leaves = new bytes32[](size);
        for (uint256 i; i < size; ++i) {
            leaves[i] = keccak256(abi.encode(seed, i));
        }
        bytes32[] memory run = new bytes32[](count);
        for (uint256 i; i < count; ++i) {
            run[i] = leaves[first + i];
        }
        bytes32[][] memory levels = levelsOf(leaves);
        bytes32[] memory proof = new bytes32[](2 * levels.length);
        uint256 used;
        uint256 end = first + count;
        uint256 start = first;
        for (uint256 l; l + 1 < levels.length; ++l) {
            if (start % 2 == 1) proof[used++] = levels[l][start - 1];
            if (end % 2 == 1) proof[used++] = levels[l][end];
            (start, end) = (start / 2, (end + 1) / 2);
        }
        assembly {
            mstore(proof, used)
        }
        assertEq(this.above(run, first, levels.length - 1, proof), root(leaves));
    }

    /// What a token costs to publish, with its transport.
    function test_gas_of_many_tokens() public {
        uint32 count = 8192;
        bytes32[] memory leaves = new bytes32[](count);
        bytes memory run = new bytes(4 * uint256(count));
        for (uint32 i; i < count; ++i) {
            uint32 id = uint32(uint256(keccak256(abi.encode(i)))) % 150_000;
            leaves[i] = leafHash(abi.encodePacked(i, id));
            for (uint256 j; j < 4; ++j) {
                run[4 * i + j] = bytes4(id)[j];
            }
        }
        (filed.order.prompt, filed.order.promptTokens) = (root(leaves), count);
        filed.receipt.order = Words.digest(filed.order);
        filed.orderSignature = signed(buyerKey, Words.digest(filed.order));
        filed.receiptSignature = signed(operatorKey, Words.digest(filed.receipt));
        (period, draw) = postAndDraw();
        ask(draw.first, period);
        productions.show(owner, period, 1, showing());
        productions.supply(owner, period, 1, texts(), run, new bytes32[](0));
        uint256 gas_ = vm.snapshotGasLastCall("Productions", "supply, 8192 tokens");
        // One transaction of what EIP-7825 allows takes a prompt of this length.
        assertLe(gas_, 16_777_216);
        assertEq(productions.productionOf(owner, period, 1).supplied, count);
    }
}
