// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Doubt, Focus, IJudge, Opening} from "../src/libraries/dispute/Exhibits.sol";
import {Steps} from "../src/libraries/dispute/Steps.sol";
import {Sampler} from "../src/types/Sampler.sol";
import {Tensor} from "../src/types/Manifest.sol";
import {JudgesFixture} from "./DisputesJudges.t.sol";

/// @notice One position of a model of 32 numbers: embedding, norm, turn, activation and state.
contract VectorJudgeTest is JudgesFixture {
    bytes private weightsOfRow;
    bytes private gain;
    bytes private embedded;
    bytes[] private statistics;
    bytes private normed;
    bytes private quants;
    bytes private turned;
    bytes private cosines;
    bytes private sines;
    bytes private gated;
    bytes private upped;
    bytes private active;
    bytes private finals;
    bytes private word;
    bytes private state;
    bytes32 private ropeRoot;
    bytes32[] private above;
    bytes32[] private aside;

    uint256 private constant LAST = STEPS;

    function setUp() public override {
        super.setUp();
        // 32 rows of one leaf, then a gain of one leaf: leaf 7 is the row of the input, leaf 32 the gain.
        table.push(Tensor(1, 32, 32, 0));
        table.push(Tensor(2, 1, 32, 32));
        weightsOfRow = weights(3);
        gain = fixedLeaf(4000);
        bytes32[] memory leaves = new bytes32[](33);
        (leaves[7], leaves[32]) = (leafHash(weightsOfRow), leafHash(gain));
        weightsRoot = root(leaves);
        above = proofOf(leaves, 7);
        aside = proofOf(leaves, 32);
        program[0] = step(0, [NONE, NONE, NONE, NONE], 0, 32, 1, 0, 12);
        program[1] = step(1, [uint32(0), NONE, NONE, NONE], NONE, 3, 32, 12, 0);
        program[2] = step(2, [uint32(0), 1, NONE, NONE], 1, 32, 1, 12, 12);
        program[3] = step(3, [uint32(2), NONE, NONE, NONE], NONE, 32, 32, 12, 12);
        program[7] = step(7, [uint32(2), NONE, NONE, NONE], NONE, 32, 2, 12, 12);
        program[8] = step(8, [uint32(7), NONE, NONE, NONE], NONE, 32, 32, 12, 12);
        program[24] = step(24, [uint32(22), 23, NONE, NONE], NONE, 32, 1, 16, 12);
        _compute();
        bytes32[] memory table_ = new bytes32[](16);
        (table_[2 * POSITION], table_[2 * POSITION + 1]) = (leafHash(cosines), leafHash(sines));
        ropeRoot = root(table_);
        (ops[0], ops[1], ops[2], ops[3]) =
        (leafHash(embedded), root(hashes(statistics)), leafHash(normed), leafHash(quants));
        (ops[7], ops[8]) = (leafHash(turned), leafHash(quants));
        (ops[22], ops[23], ops[24]) = (leafHash(gated), leafHash(upped), leafHash(active));
        (ops[LAST - 4], ops[LAST - 1]) = (leafHash(finals), leafHash(word));
        answerWithRope();
        state = abi.encodePacked(rules.state(filed.receipt.order, 8, finals));
        ops[LAST] = leafHash(state);
    }

    function answerWithRope() private {
        manifestRope = ropeRoot;
        answer();
    }

    function _compute() private {
        statistics.push();
        statistics.push();
        statistics.push();
        for (uint256 i; i < 32; ++i) {
            embedded = abi.encodePacked(embedded, rules.embed(weightsOfRow, i, 12));
        }
        uint64 largest = uint64(rules.largestMagnitude(embedded, 32));
        uint64 shift = uint64(rules.normShift(largest));
        uint64 sum = uint64(rules.sumOfSquares(embedded, 32, shift));
        (uint256 factor, uint256 right) = rules.inverseRoot(sum, 32, 1, shift);
        (statistics[0], statistics[1]) = (words(largest), words(sum));
        uint64[] memory three = new uint64[](3);
        (three[0], three[1], three[2]) = (shift, uint64(factor), uint64(right));
        statistics[2] = wideLeaf(three);
        cosines = fixedLeaf(900_000_000);
        sines = fixedLeaf(500_000_000);
        for (uint256 i; i < 32; ++i) {
            int32 g = 4000 + int32(int256(i));
            normed =
                abi.encodePacked(normed, rules.norm(number(embedded, i), g, shift, uint64(factor), uint64(right), 12));
        }
        gated = fixedLeaf(40_000);
        upped = fixedLeaf(-70_000);
        for (uint256 i; i < 32; ++i) {
            uint256 pair = i % 16;
            (int32 a, int32 b) =
                rules.rope(number(normed, pair), number(normed, pair + 16), number(cosines, pair), number(sines, pair));
            turned = abi.encodePacked(turned, i < 16 ? a : b);
            active = abi.encodePacked(active, rules.activate(number(gated, i), number(upped, i), 12));
        }
        quants = quantised(normed);
        finals = activations(77);
        word = words(8);
    }

    function number(bytes memory leaf, uint256 i) private pure returns (int32) {
        return int32(uint32(bytes4(slice(leaf, 4 * i, 4))));
    }

    function quantised(bytes memory x) private view returns (bytes memory) {
        (uint16 scale, bytes32 numbers) = rules.quantise(x);
        bytes32 zeros = 0x8080808080808080808080808080808080808080808080808080808080808080;
        return abi.encodePacked(scale, uint16(1), uint16(1), uint16(1), numbers, zeros, zeros, zeros);
    }

    function asked(uint256 op, uint256 leaf, bytes memory data, uint256 element, Opening[] memory reads) private {
        Focus memory focus = focusOn(op, leaf, data, element, Doubt.Element);
        if (op == 0 || op == 2) (focus.weights, focus.weightDepth) = (weightsRoot, 6);
        if (op == 2) focus.tensorLeaf = 32;
        ask(disputes.vectors(), focus, data, noRounds(), reads);
    }

    function test_embedding() public {
        Opening memory token_ = open_(abi.encodePacked(prompt[2]), proofOf(tokens(prompt[0], prompt[1], prompt[2]), 2));
        for (uint256 i; i < 32; i += 5) {
            asked(0, 0, embedded, i, two(token_, open_(weightsOfRow, above)));
        }
    }

    function test_statistics() public {
        Opening memory residual = open_(embedded, inPosition(0));
        asked(1, 0, statistics[0], 0, one(residual));
        asked(1, 1, statistics[1], 0, two(at(statistics, 1, 0), residual));
        asked(1, 2, statistics[2], 0, one(at(statistics, 1, 0)));
        asked(1, 2, statistics[2], 1, two(at(statistics, 1, 0), at(statistics, 1, 1)));
        asked(1, 2, statistics[2], 2, two(at(statistics, 1, 0), at(statistics, 1, 1)));
        asked(1, 2, statistics[2], 3, new Opening[](0));
        asked(1, 0, statistics[0], 31, new Opening[](0));
    }

    function test_norm() public {
        Opening[] memory reads = two(open_(embedded, inPosition(0)), at(statistics, 1, 2));
        for (uint256 i; i < 32; i += 7) {
            asked(2, 0, normed, i, with(reads, open_(gain, aside)));
        }
    }

    function test_quantised_vectors() public {
        IJudge judge = disputes.vectors();
        for (uint256 group; group < 4; ++group) {
            Opening[] memory openings = new Opening[](group == 0 ? 2 : 1);
            openings[0] = bare(quants);
            if (group == 0) openings[1] = open_(normed, inPosition(2));
            Focus memory focus = focusOn(3, 0, quants, group, Doubt.Element);
            assertTrue(judge.judge(trace(), focus, facts, noRounds(), openings));
            // A scale, then a number.
            for (uint256 where; where < 2; ++where) {
                bytes memory other = bytes.concat(quants);
                other[where == 0 ? 2 * group + 1 : 8 + 32 * group + 13] ^= 0x01;
                openings[0] = bare(other);
                focus.node = leafHash(other);
                assertFalse(judge.judge(trace(), focus, facts, noRounds(), openings));
            }
        }
    }

    function test_quantised_heads() public {
        bytes memory data = quantised(turned);
        Opening[] memory openings = two(bare(data), open_(turned, inPosition(7)));
        Focus memory focus = focusOn(8, 0, data, 0, Doubt.Element);
        assertTrue(disputes.vectors().judge(trace(), focus, facts, noRounds(), openings));
        data[20] ^= 0x01;
        (openings[0], focus.node) = (bare(data), leafHash(data));
        assertFalse(disputes.vectors().judge(trace(), focus, facts, noRounds(), openings));
    }

    function test_turns() public {
        bytes32[] memory table_ = new bytes32[](16);
        (table_[2 * POSITION], table_[2 * POSITION + 1]) = (leafHash(cosines), leafHash(sines));
        Opening memory x = open_(normed, inPosition(2));
        Opening[] memory reads = with(two(x, x), open_(cosines, proofOf(table_, 2 * POSITION)));
        reads = with(reads, open_(sines, proofOf(table_, 2 * POSITION + 1)));
        for (uint256 i; i < 32; i += 3) {
            asked(7, 0, turned, i, reads);
        }
    }

    function test_activation() public {
        for (uint256 i; i < 32; i += 9) {
            asked(24, 0, active, i, two(open_(gated, inPosition(22)), open_(upped, inPosition(23))));
        }
    }

    function test_state() public {
        ask(
            disputes.vectors(),
            focusOn(LAST, 0, state, 0, Doubt.Element),
            state,
            noRounds(),
            two(open_(word, inPosition(LAST - 1)), open_(finals, inPosition(LAST - 4)))
        );
        Focus memory focus = focusOn(LAST, 0, state, 0, Doubt.FinalState);
        assertFalse(disputes.vectors().judge(trace(), focus, facts, noRounds(), one(bare(state))));
        Sampler memory sampler = filed.sampler;
        answer(sampler, 2, bytes32(state));
        assertTrue(disputes.vectors().judge(trace(), focus, facts, noRounds(), one(bare(state))));
    }
}
