// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Rules} from "../src/Rules.sol";
import {Doubt, Facts, Focus, IJudge, Opening, Round} from "../src/libraries/dispute/Exhibits.sol";
import {Steps} from "../src/libraries/dispute/Steps.sol";
import {Sums} from "../src/libraries/dispute/Sums.sol";
import {Block} from "../src/libraries/judge/Attention.sol";
import {Hits, Kept, Penalties} from "../src/libraries/judge/Sampling.sol";
import {Sampler} from "../src/types/Sampler.sol";
import {DisputeFixture} from "./DisputeFixture.sol";

/// @notice Each judge finds the numbers of an honest position right, and each of them wrong once it is changed.
abstract contract JudgesFixture is DisputeFixture {
    Rules internal rules;

    function setUp() public virtual override {
        super.setUp();
        rules = new Rules();
    }

    function focusOn(uint256 op, uint256 leaf, bytes memory data, uint256 element, Doubt doubt)
        internal
        view
        returns (Focus memory focus)
    {
        (focus.position, focus.op, focus.leaf) = (uint32(POSITION), uint32(op), uint64(leaf));
        (focus.element, focus.doubt) = (uint8(element), doubt);
        (focus.positionDepth, focus.opDepth) = (2, 6);
        (focus.node, focus.here) = (leafHash(data), root(ops));
        focus.step = op == STEPS ? Steps.state() : program[op];
    }

    /// Asks the judge, first of the honest leaf, then of one whose element is another.
    function ask(IJudge judge, Focus memory focus, bytes memory data, Round[] memory rounds, Opening[] memory reads)
        internal
    {
        bytes32 committed = trace();
        Opening[] memory openings = new Opening[](reads.length + 1);
        for (uint256 i; i < reads.length; ++i) {
            openings[i + 1] = reads[i];
        }
        openings[0] = bare(data);
        assertTrue(judge.judge(committed, focus, facts, rounds, openings), "an honest number");
        if (focus.doubt != Doubt.Element) return;
        uint256 size = data.length / 32;
        bytes memory other = bytes.concat(data);
        other[size * focus.element + size - 1] ^= 0x01;
        openings[0] = bare(other);
        focus.node = leafHash(other);
        assertFalse(judge.judge(committed, focus, facts, rounds, openings), "a changed number");
    }

    function one(Opening memory a) internal pure returns (Opening[] memory list) {
        list = new Opening[](1);
        list[0] = a;
    }

    function two(Opening memory a, Opening memory b) internal pure returns (Opening[] memory list) {
        list = new Opening[](2);
        (list[0], list[1]) = (a, b);
    }

    function with(Opening[] memory list, Opening memory next) internal pure returns (Opening[] memory longer) {
        longer = new Opening[](list.length + 1);
        for (uint256 i; i < list.length; ++i) {
            longer[i] = list[i];
        }
        longer[list.length] = next;
    }

    function round(bytes memory list, uint32 entry) internal pure returns (Round[] memory rounds) {
        rounds = new Round[](1);
        rounds[0] = Round(list, entry);
    }

    function hashes(bytes[] memory leaves) internal pure returns (bytes32[] memory found) {
        found = new bytes32[](leaves.length);
        for (uint256 i; i < leaves.length; ++i) {
            found[i] = leafHash(leaves[i]);
        }
    }

    function at(bytes[] memory leaves, uint256 op, uint256 leaf) internal view returns (Opening memory) {
        return open_(leaves[leaf], join(proofOf(hashes(leaves), leaf), inPosition(op)));
    }

    function words(uint64 a) internal pure returns (bytes memory) {
        uint64[] memory list = new uint64[](1);
        list[0] = a;
        return wideLeaf(list);
    }

    function words(uint64 a, uint64 b) internal pure returns (bytes memory) {
        uint64[] memory list = new uint64[](2);
        (list[0], list[1]) = (a, b);
        return wideLeaf(list);
    }

    function slice(bytes memory data, uint256 from, uint256 length) internal pure returns (bytes memory part) {
        part = new bytes(length);
        for (uint256 i; i < length; ++i) {
            part[i] = data[from + i];
        }
    }
}

/// @notice Attention over three positions.
contract AttentionJudgeTest is JudgesFixture {
    uint256 private constant T = 3;
    bytes[] private keys;
    bytes[] private values;
    bytes[] private sums;
    bytes private query;
    bytes private scores;
    bytes private shifts;
    bytes private means;
    bytes private blocks;
    bytes private pairs;
    bytes private scales;
    /// The dimension of the output that is looked at.
    uint256 private constant DIM = 9;
    bytes32[][] private others;

    function setUp() public override {
        super.setUp();
        program[12] = step(12, [uint32(8), 10, NONE, NONE], NONE, 1, 32, 12, 16);
        program[13] = step(13, [uint32(12), NONE, NONE, NONE], NONE, 2, 0, 16, 22);
        program[14] = step(14, [uint32(12), 13, 11, NONE], NONE, 1, 64, 22, 0);
        program[15] = step(15, [uint32(11), 12, 13, 14], NONE, 32, 0, 12, 12);
        query = activations(1);
        for (uint256 j; j < T; ++j) {
            keys.push(activations(10 + j));
            values.push(activations(20 + j));
        }
        _attend();
        for (uint256 j; j < T; ++j) {
            bytes32[] memory there = new bytes32[](OPS);
            (there[10], there[11]) = (leafHash(keys[j]), leafHash(values[j]));
            others.push(there);
            if (j < POSITION) positions[j] = root(there);
        }
        (ops[8], ops[10], ops[11]) = (leafHash(query), leafHash(keys[POSITION]), leafHash(values[POSITION]));
        (ops[12], ops[13], ops[14], ops[15]) = (leafHash(scores), root(hashes(sums)), leafHash(shifts), leafHash(means));
        answer();
    }

    function _attend() private {
        for (uint256 j; j < 32; ++j) {
            int32 z;
            if (j < T) z = int32(Sums.score(rules.chunkOfRecords(query, keys[j]), 12, 1 << 28));
            // Small enough for every weight to count.
            scores = abi.encodePacked(scores, z);
        }
        int64 largest = rules.largestScore(scores, T);
        uint64 weight = uint64(rules.weightSum(scores, T, largest));
        sums.push(words(uint64(largest)));
        sums.push(words(weight));
        for (uint256 j; j < T; ++j) {
            scales = bytes.concat(scales, slice(values[j], 0, 2));
            pairs = bytes.concat(pairs, slice(values[j], 0, 2), slice(values[j], 8 + DIM, 1));
        }
        Block memory b = Block(scores, "", T, largest);
        uint256 shift = rules.blockShift(b, scales);
        shifts = abi.encodePacked(int32(uint32(shift)), new bytes(124));
        blocks = abi.encodePacked(rules.blockSum(b, uint64(shift), pairs));
        int32 mean = rules.attend(blocks, weight, 12, 12);
        means = bytes.concat(new bytes(4 * DIM), abi.encodePacked(mean), new bytes(4 * (31 - DIM)));
    }

    /// A record at a position, opened from the trace's root.
    function record(uint256 j, uint256 op, bytes memory data) private view returns (Opening memory) {
        bytes32[] memory there = j == POSITION ? ops : others[j];
        bytes32[] memory all = positions;
        all[POSITION] = root(ops);
        return open_(data, join(proofOf(there, op), proofOf(all, j)));
    }

    function asked(
        uint256 op,
        uint256 leaf,
        bytes memory data,
        uint256 element,
        Round[] memory rounds,
        Opening[] memory reads
    ) private {
        ask(disputes.attention(), focusOn(op, leaf, data, element, Doubt.Element), data, rounds, reads);
    }

    function test_scores() public {
        for (uint256 j; j < T; ++j) {
            asked(12, 0, scores, j, noRounds(), two(open_(query, inPosition(8)), record(j, 10, keys[j])));
        }
        asked(12, 0, scores, T, noRounds(), new Opening[](0));
    }

    function test_largest_score_and_sum_of_weights() public {
        Opening memory read = open_(scores, inPosition(12));
        asked(13, 0, sums[0], 0, noRounds(), one(read));
        asked(13, 0, sums[0], 1, noRounds(), new Opening[](0));
        asked(13, 1, sums[1], 0, noRounds(), two(at(sums, 13, 0), read));
    }

    function test_shift_of_a_block() public {
        Opening[] memory reads = two(at(sums, 13, 0), open_(scores, inPosition(12)));
        for (uint32 j; j < T; ++j) {
            asked(14, 0, shifts, 0, round(scales, j), with(reads, record(j, 11, values[j])));
        }
        asked(14, 0, shifts, 1, noRounds(), new Opening[](0));
    }

    function test_mean_of_values() public {
        Opening[] memory reads = two(at(sums, 13, 1), at(sums, 13, 0));
        reads = with(reads, open_(scores, inPosition(12)));
        reads = with(reads, open_(shifts, inPosition(14)));
        for (uint32 j; j < T; ++j) {
            Round[] memory rounds = new Round[](2);
            (rounds[0], rounds[1]) = (Round(blocks, 0), Round(pairs, j));
            asked(15, 0, means, DIM, rounds, with(reads, record(j, 11, values[j])));
        }
    }

    function test_a_false_list_of_scales_is_found() public {
        bytes memory lie = bytes.concat(scales);
        lie[2] ^= 0x01;
        Opening[] memory reads = two(at(sums, 13, 0), open_(scores, inPosition(12)));
        reads = with(reads, record(1, 11, values[1]));
        Opening[] memory openings = new Opening[](4);
        openings[0] = bare(shifts);
        for (uint256 i; i < 3; ++i) {
            openings[i + 1] = reads[i];
        }
        Focus memory focus = focusOn(14, 0, shifts, 0, Doubt.Element);
        assertFalse(disputes.attention().judge(trace(), focus, facts, round(lie, 1), openings));
    }
}

/// @notice Sampling from forty tokens with every option, two levels of trees.
contract SamplingJudgeTest is JudgesFixture {
    uint32 private constant V = 40;
    uint32 private constant INV_T = 30_000;
    uint32 private constant TOP_K = 12;
    uint32 private constant TOP_P = 40_000;
    bytes[] private logits;
    bytes[] private smpl;
    bytes private drawn;
    bytes private list = hex"0101";
    int32[] private adjusted;
    uint64 private uniform;
    int64 private kth;
    int64 private nucleus;
    int32 private best;
    uint256 private constant L = 31;
    uint256 private constant S = 32;

    function setUp() public override {
        super.setUp();
        vocab = V;
        program[S] = step(S, [uint32(L), NONE, NONE, NONE], NONE, 3, V, 16, 0);
        program[33] = step(33, [uint32(L), uint32(S), NONE, NONE], NONE, 1, V, 16, 0);
        Sampler memory sampler = Sampler(INV_T, TOP_K, TOP_P, 600, 80_000, 3000, 2000, 0, 0, 0, keccak256("seed"), 0);
        answer(sampler, 2, 0);
        Facts memory said = abi.decode(facts, (Facts));
        uniform = rules.uniform(said.drawKey, 0);
        _logits();
        _sample();
        ops[L] = root(hashes(logits));
        ops[S] = root(hashes(smpl));
        ops[33] = leafHash(drawn);
    }

    function number(uint256 i) private pure returns (int32) {
        return int32(int256(uint256(keccak256(abi.encode("logit", i))) % 400_000)) - 100_000;
    }

    function _logits() private {
        bytes memory all;
        bytes memory changed;
        for (uint256 i; i < 64; ++i) {
            int32 logit = i < V ? number(i) : int32(0);
            // Prompt 5, 6, 7 and nothing of the output are inputs at the position that answers first.
            uint32 seen = i >= 5 && i <= 7 ? 1 : 0;
            int32 after_ = i < V ? rules.adjust(logit, Penalties(80_000, 3000, 2000), Hits(seen, 0), 0) : int32(0);
            adjusted.push(after_);
            (all, changed) = (abi.encodePacked(all, logit), abi.encodePacked(changed, after_));
        }
        logits.push(slice(all, 0, 128));
        logits.push(slice(all, 128, 128));
        smpl.push(slice(changed, 0, 128));
        smpl.push(slice(changed, 128, 128));
    }

    function _tree(uint64 a, uint64 b, uint64 top) private {
        smpl.push(words(a, b));
        smpl.push(words(top));
    }

    function _sample() private {
        int64 a = rules.bestKey(smpl[0], 32, 0);
        int64 b = rules.bestKey(smpl[1], 8, 32);
        int64 top = a > b ? a : b;
        _tree(uint64(a), uint64(b), uint64(top));
        (, best) = rules.keyToken(top);
        _advise();
        smpl.push(words(uint64(kth)));
        uint64 x = rules.rank(smpl[0], 32, int32(kth));
        uint64 y = rules.rank(smpl[1], 8, int32(kth));
        assertTrue(rules.isKth(x + y, TOP_K));
        _tree(x, y, x + y);
        smpl.push(words(uint64(nucleus)));
        int64 least = rules.heat(int32(kth), INV_T);
        _masses(nucleus + 1 > least ? nucleus + 1 : least, 0);
        _masses(nucleus > least ? nucleus : least, 0);
        _masses(least, 0);
        _masses(nucleus > least ? nucleus : least, 600 << 14);
        _draw(nucleus > least ? nucleus : least);
    }

    function _masses(int64 least, uint32 weight) private {
        Kept memory kept = Kept(INV_T, best, least, weight);
        (uint64 x, uint64 y) = (rules.mass(smpl[0], 32, kept), rules.mass(smpl[1], 8, kept));
        _tree(x, y, x + y);
    }

    /// The thresholds, by trying all.
    function _advise() private {
        for (uint256 i; i < V; ++i) {
            uint64 ranks = rules.rank(smpl[0], 32, adjusted[i]) + rules.rank(smpl[1], 8, adjusted[i]);
            if (rules.isKth(ranks, TOP_K)) kth = adjusted[i];
        }
        int64 least = rules.heat(int32(kth), INV_T);
        uint64 all = _mass(least);
        nucleus = type(int64).min;
        for (uint256 i; i < V; ++i) {
            int64 heat = rules.heat(adjusted[i], INV_T);
            if (heat < least) continue;
            if (rules.isNucleus(_mass(heat + 1), _mass(heat), all, TOP_P)) nucleus = heat;
        }
        assertTrue(nucleus != type(int64).min);
    }

    function _mass(int64 least) private view returns (uint64) {
        Kept memory kept = Kept(INV_T, best, least, 0);
        return rules.mass(smpl[0], 32, kept) + rules.mass(smpl[1], 8, kept);
    }

    function _draw(int64 least) private {
        uint64 mass = uint64(uint256(bytes32(slice(smpl[15], 0, 32))) >> 192);
        uint64 mark = rules.mark(uniform, mass);
        (uint32 node, uint64 rest) = rules.draw(smpl[14], 2, mark);
        Kept memory kept = Kept(INV_T, best, least, 600 << 14);
        uint32 token_ = 32 * node + rules.drawToken(smpl[node], node == 0 ? 32 : 8, kept, rest);
        uint64[] memory all = new uint64[](4);
        (all[0], all[1], all[2], all[3]) = (mark, node, rest, token_);
        drawn = wideLeaf(all);
        output[0] = token_;
        Sampler memory sampler = filed.sampler;
        answer(sampler, 2, 0);
    }

    function own(uint256 leaf) private view returns (Opening memory) {
        return at(smpl, S, leaf);
    }

    function asked(uint256 leaf, uint256 element, Opening[] memory reads) private {
        ask(disputes.sampling(), focusOn(S, leaf, smpl[leaf], element, Doubt.Element), smpl[leaf], noRounds(), reads);
    }

    /// Top key, threshold of top-k, of top-p.
    function filters(bool all) private view returns (Opening[] memory reads) {
        reads = two(own(3), own(4));
        return all ? reads : with(reads, own(7));
    }

    function test_every_tree() public {
        assertEq(smpl.length, 16);
        for (uint256 word; word < 2; ++word) {
            asked(2, word, one(own(word)));
            asked(5, word, two(own(4), own(word)));
            asked(8, word, with(filters(false), own(word)));
            asked(10, word, with(filters(false), own(word)));
            asked(12, word, with(filters(true), own(word)));
            asked(14, word, with(filters(false), own(word)));
        }
        asked(2, 2, new Opening[](0));
        uint256[6] memory tops = [uint256(3), 6, 9, 11, 13, 15];
        for (uint256 i; i < 6; ++i) {
            asked(tops[i], 0, one(own(tops[i] - 1)));
        }
    }

    function test_adjusted_logits() public {
        uint32[6] memory some = [uint32(0), 5, 7, 31, 32, 39];
        for (uint256 i; i < 6; ++i) {
            bool seen = some[i] == 5 || some[i] == 7;
            uint256 leaf = some[i] / 32;
            Opening[] memory reads =
                two(at(logits, L, leaf), open_(abi.encodePacked(prompt[0], prompt[1], prompt[2]), promptProof()));
            ask(
                disputes.sampling(),
                focusOn(S, leaf, smpl[leaf], some[i] % 32, Doubt.Element),
                smpl[leaf],
                round(seen ? bytes(hex"0100") : bytes(hex"0000"), 0),
                reads
            );
        }
        ask(disputes.sampling(), focusOn(S, 1, smpl[1], 8, Doubt.Element), smpl[1], noRounds(), new Opening[](0));
    }

    /// A run of all three tokens has one neighbour, the padding.
    function promptProof() private pure returns (bytes32[] memory proof) {
        proof = new bytes32[](1);
    }

    function test_checks() public {
        IJudge judge = disputes.sampling();
        ask(judge, focusOn(S, 6, smpl[6], 0, Doubt.Kth), smpl[6], noRounds(), new Opening[](0));
        ask(judge, focusOn(S, 13, smpl[13], 0, Doubt.Nucleus), smpl[13], noRounds(), two(own(9), own(11)));
        Opening memory token_ = open_(abi.encodePacked(output[0]), proofOf(outputHashes(), 0));
        ask(judge, focusOn(33, 0, drawn, 0, Doubt.Link), drawn, noRounds(), one(token_));
        output[0] ^= 1;
        Sampler memory sampler = filed.sampler;
        answer(sampler, 2, 0);
        token_ = open_(abi.encodePacked(output[0]), proofOf(outputHashes(), 0));
        Opening[] memory openings = two(bare(drawn), token_);
        assertFalse(judge.judge(trace(), focusOn(33, 0, drawn, 0, Doubt.Link), facts, noRounds(), openings));
        uint64 rank_ = uint64(uint256(bytes32(slice(smpl[6], 0, 32))) >> 192);
        bytes memory lie = words(rank_ + (uint64(TOP_K) << 32));
        assertFalse(judge.judge(trace(), focusOn(S, 6, lie, 0, Doubt.Kth), facts, noRounds(), one(bare(lie))));
    }

    function test_the_draw() public {
        uint256 node = uint256(uint8(slice(drawn, 15, 1)[0]));
        ask(disputes.sampling(), focusOn(33, 0, drawn, 0, Doubt.Element), drawn, noRounds(), one(own(15)));
        ask(disputes.sampling(), focusOn(33, 0, drawn, 1, Doubt.Element), drawn, noRounds(), one(own(14)));
        ask(disputes.sampling(), focusOn(33, 0, drawn, 2, Doubt.Element), drawn, noRounds(), one(own(14)));
        Opening[] memory reads = with(filters(false), own(node));
        ask(disputes.sampling(), focusOn(33, 0, drawn, 3, Doubt.Element), drawn, noRounds(), reads);
        ask(disputes.sampling(), focusOn(33, 0, drawn, 4, Doubt.Element), drawn, noRounds(), new Opening[](0));
    }

    function test_advice_is_nobodys_loss_but_its_padding_is_judged() public {
        Focus memory focus = focusOn(S, 4, smpl[4], 0, Doubt.Element);
        assertTrue(disputes.sampling().judge(trace(), focus, facts, noRounds(), one(bare(smpl[4]))));
        asked(4, 1, new Opening[](0));
        asked(7, 31, new Opening[](0));
    }
}
