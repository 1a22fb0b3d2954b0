// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Bench, Judge} from "./Judge.sol";
import {Facts, Focus, Opening, Round, Spec} from "../libraries/dispute/Exhibits.sol";
import {Steps} from "../libraries/dispute/Steps.sol";
import {Sums} from "../libraries/dispute/Sums.sol";
import {Attention, Block} from "../libraries/judge/Attention.sol";
import {Layouts} from "../libraries/judge/Layouts.sol";
import {Leaves} from "../libraries/judge/Leaves.sol";
import {Products} from "../libraries/judge/Products.sol";
import {Reductions} from "../libraries/judge/Reductions.sol";

/// @notice Judges attention: scores, their softmax, the shifts of blocks and the weighted mean of the values.
contract AttentionJudge is Judge {
    /// The sizes that attention at one position has.
    struct Sizes {
        uint256 heads;
        uint256 kvHeads;
        uint256 dim;
        /// Leaves of a record.
        uint256 records;
        /// Positions attended to, leaves of their scores in one head, and of a tree over them.
        uint256 attended;
        uint256 scores;
        uint256 tree;
        /// Blocks of 64 positions, and leaves of their shifts in one group of one head.
        uint256 blocks;
        uint256 shifts;
        /// The head, the group of 32 of its dimensions and the block that are looked at.
        uint256 head;
        uint256 group;
        uint256 number;
        /// The attended position that is looked at.
        uint256 position;
        /// The ops of scores, and of largest scores and sums.
        uint256 scoreOp;
        uint256 sumOp;
    }

    /// @inheritdoc Judge
    function _judge(
        Focus calldata,
        Bench memory bench,
        bytes calldata facts,
        Round[] calldata rounds,
        Opening[] calldata openings
    ) internal view override returns (bool) {
        Spec memory spec = abi.decode(facts, (Facts)).spec;
        Sizes memory sizes = _sizes(spec, bench.position + 1);
        uint256 kind = bench.step.kind;
        bytes calldata leaf = openings[0].data;
        if (kind == Steps.BLOCK_SHIFT) return _blockShift(bench, sizes, leaf, rounds, openings);
        if (kind == Steps.ATTEND) return _attend(bench, sizes, leaf, rounds, openings);
        _requireRounds(rounds, 0);
        if (kind == Steps.SCORE) return _score(bench, sizes, leaf, spec.attentionQ30, openings);
        require(kind == Steps.SCORE_MAX, NoRule(kind));
        return _wide(bench, leaf) == _softmax(bench, sizes, openings);
    }

    function _sizes(Spec memory spec, uint256 attended) private pure returns (Sizes memory sizes) {
        sizes.heads = spec.heads;
        sizes.kvHeads = spec.kvHeads;
        sizes.dim = spec.headDim;
        sizes.records = _ceil(spec.headDim, 128);
        sizes.attended = attended;
        sizes.scores = _ceil(attended, 32);
        sizes.tree = Layouts.treeLeaves(attended);
        sizes.blocks = _ceil(attended, 64);
        sizes.shifts = _ceil(sizes.blocks, 32);
    }

    /// Reads, for each part of a record: the query's, the key's at the attended position.
    function _score(
        Bench memory bench,
        Sizes memory sizes,
        bytes calldata leaf,
        uint256 factor,
        Opening[] calldata openings
    ) private pure returns (bool) {
        int256 claimed = _fixed(bench, leaf);
        sizes.head = bench.leaf / sizes.scores;
        sizes.position = 32 * (bench.leaf % sizes.scores) + bench.element;
        if (sizes.position >= sizes.attended) return claimed == 0;
        int256 dot;
        for (uint256 part; part < sizes.records; ++part) {
            dot += _part(bench, sizes, part, openings);
        }
        return Sums.score(dot, bench.step.fractionIn, factor) == claimed;
    }

    /// The product of one part of the records.
    function _part(Bench memory bench, Sizes memory sizes, uint256 part, Opening[] calldata openings)
        private
        pure
        returns (int256)
    {
        bytes calldata query = _query(bench, sizes, part, openings);
        return Products.chunkOfRecords(query, _record(bench, sizes, bench.step.inputs[1], part, openings));
    }

    function _query(Bench memory bench, Sizes memory sizes, uint256 part, Opening[] calldata openings)
        private
        pure
        returns (bytes calldata)
    {
        uint256 record = sizes.head * sizes.records + part;
        uint256 leaves = sizes.heads * sizes.records;
        return _here(bench, openings, bench.step.inputs[0], record, leaves, Leaves.ACTIVATION);
    }

    /// A part of the key's or the value's record that serves the head at the attended position.
    function _record(Bench memory bench, Sizes memory sizes, uint256 op, uint256 part, Opening[] calldata openings)
        private
        pure
        returns (bytes calldata)
    {
        uint256 leaf = sizes.head * sizes.kvHeads / sizes.heads * sizes.records + part;
        uint256 leaves = sizes.kvHeads * sizes.records;
        return _at(bench, openings, sizes.position, op, leaf, leaves, Leaves.ACTIVATION);
    }

    /// Reads: in the lowest level of the second tree, the top of the first; the leaf that is joined.
    function _softmax(Bench memory bench, Sizes memory sizes, Opening[] calldata openings)
        private
        pure
        returns (uint256)
    {
        sizes.head = bench.leaf / (2 * sizes.tree);
        uint256 first = bench.leaf / sizes.tree * sizes.tree;
        bool second = first != 2 * sizes.head * sizes.tree;
        (uint256 level, uint256 read, uint256 joined) =
            Layouts.treeWord(sizes.attended, bench.leaf - first, bench.element);
        if (joined == 0) return 0;
        if (level == 0) return _lowest(bench, sizes, second, read, joined, openings);
        return _joint(bench, sizes, second, first + read, joined, openings);
    }

    function _joint(
        Bench memory bench,
        Sizes memory sizes,
        bool second,
        uint256 read,
        uint256 joined,
        Opening[] calldata openings
    ) private pure returns (uint256) {
        uint256 leaves = 2 * sizes.heads * sizes.tree;
        bytes calldata words = _here(bench, openings, bench.op, read, leaves, Leaves.WIDE);
        return second ? Reductions.total(words, joined) : _word(Reductions.maximumSigned(words, joined));
    }

    function _lowest(
        Bench memory bench,
        Sizes memory sizes,
        bool second,
        uint256 read,
        uint256 joined,
        Opening[] calldata openings
    ) private pure returns (uint256) {
        int256 largest = second ? _largest(bench, sizes, bench.op, sizes.head, openings) : int64(0);
        bytes calldata scores = _scores(bench, sizes, bench.step.inputs[0], sizes.head, read, openings);
        return second ? Attention.weightSum(scores, joined, largest) : _word(Attention.largestScore(scores, joined));
    }

    function _word(int64 signed) private pure returns (uint256) {
        return uint64(signed);
    }

    /// The top of the first tree of a head.
    function _largest(Bench memory bench, Sizes memory sizes, uint256 op, uint256 head, Opening[] calldata openings)
        private
        pure
        returns (int64)
    {
        return int64(uint64(_top(bench, sizes, op, 2 * head, openings)));
    }

    /// The top of tree `number` of the op of largest scores and sums.
    function _top(Bench memory bench, Sizes memory sizes, uint256 op, uint256 number, Opening[] calldata openings)
        private
        pure
        returns (uint256)
    {
        uint256 leaf = (number + 1) * sizes.tree - 1;
        return Leaves.wideAt(_here(bench, openings, op, leaf, 2 * sizes.heads * sizes.tree, Leaves.WIDE), 0);
    }

    function _scores(
        Bench memory bench,
        Sizes memory sizes,
        uint256 op,
        uint256 head,
        uint256 leaf,
        Opening[] calldata openings
    ) private pure returns (bytes calldata) {
        uint256 leaves = sizes.heads * sizes.scores;
        return _here(bench, openings, op, head * sizes.scores + leaf, leaves, Leaves.FIXED);
    }

    /// Reads: the largest score; the first leaf of the block's scores, and the second if there is one.
    function _block(Bench memory bench, Sizes memory sizes, Opening[] calldata openings)
        private
        pure
        returns (Block memory b)
    {
        uint256 left = sizes.attended - 64 * sizes.number;
        b.count = left < 64 ? left : 64;
        b.largest = _largest(bench, sizes, sizes.sumOp, sizes.head, openings);
        b.lower = _scores(bench, sizes, sizes.scoreOp, sizes.head, 2 * sizes.number, openings);
        if (b.count > 32) b.upper = _scores(bench, sizes, sizes.scoreOp, sizes.head, 2 * sizes.number + 1, openings);
    }

    /// The record of the value at position `entry` of the block.
    function _value(Bench memory bench, Sizes memory sizes, uint256 op, uint256 entry, Opening[] calldata openings)
        private
        pure
        returns (bytes calldata value)
    {
        sizes.position = 64 * sizes.number + entry;
        value = _record(bench, sizes, op, sizes.group / 4, openings);
        Leaves.checkActivation(value);
    }

    /// One round, whose list is the scales of the block's values. Reads what `_block` does; the value's record.
    function _blockShift(
        Bench memory bench,
        Sizes memory sizes,
        bytes calldata leaf,
        Round[] calldata rounds,
        Opening[] calldata openings
    ) private view returns (bool) {
        int256 claimed = _fixed(bench, leaf);
        sizes.group = bench.leaf / sizes.shifts % (sizes.dim / 32);
        sizes.head = bench.leaf / sizes.shifts / (sizes.dim / 32);
        sizes.number = 32 * (bench.leaf % sizes.shifts) + bench.element;
        (sizes.scoreOp, sizes.sumOp) = (bench.step.inputs[0], bench.step.inputs[1]);
        if (sizes.number >= sizes.blocks) {
            _requireRounds(rounds, 0);
            return claimed == 0;
        }
        _requireRounds(rounds, 1);
        return _isShift(bench, sizes, claimed, rounds[0], openings);
    }

    function _isShift(
        Bench memory bench,
        Sizes memory sizes,
        int256 claimed,
        Round calldata round,
        Opening[] calldata openings
    ) private view returns (bool) {
        Block memory b = _block(bench, sizes, openings);
        bytes calldata scales = round.list;
        Leaves.checkLength(scales, 2 * b.count);
        // There is no such scale: the challenger doubts nothing.
        if (round.entry >= b.count) return true;
        if (int256(this.blockShift(b, scales)) != claimed) return false;
        bytes calldata value = _value(bench, sizes, bench.step.inputs[2], round.entry, openings);
        return bytes2(value[2 * (sizes.group % 4):]) == bytes2(scales[2 * uint256(round.entry):]);
    }

    /// Two rounds: the sums of all blocks, then scale and number of each value of the chosen block. Reads: the sum of
    /// weights; what `_block` does; the block's shift; the value's record.
    function _attend(
        Bench memory bench,
        Sizes memory sizes,
        bytes calldata leaf,
        Round[] calldata rounds,
        Opening[] calldata openings
    ) private view returns (bool) {
        int256 claimed = _fixed(bench, leaf);
        uint256 index = 32 * bench.leaf + bench.element;
        if (index >= bench.step.outputs) {
            _requireRounds(rounds, 0);
            return claimed == 0;
        }
        _requireRounds(rounds, 2);
        sizes.head = index / sizes.dim;
        sizes.group = index % sizes.dim / 32;
        sizes.number = rounds[0].entry;
        (sizes.scoreOp, sizes.sumOp) = (bench.step.inputs[1], bench.step.inputs[2]);
        // There is no such block: the challenger doubts nothing.
        if (sizes.number >= sizes.blocks) return true;
        if (_mean(bench, sizes, rounds[0].list, openings) != claimed) return false;
        return _isSum(bench, sizes, int64(uint64(bytes8(rounds[0].list[8 * sizes.number:]))), rounds[1], openings);
    }

    /// The element from the sums of all blocks.
    function _mean(Bench memory bench, Sizes memory sizes, bytes calldata sums, Opening[] calldata openings)
        private
        pure
        returns (int256)
    {
        Leaves.checkLength(sums, 8 * sizes.blocks);
        uint256 weights = _top(bench, sizes, sizes.sumOp, 2 * sizes.head + 1, openings);
        return Attention.attend(sums, weights, bench.step.fractionIn, bench.step.fractionOut);
    }

    function _isSum(
        Bench memory bench,
        Sizes memory sizes,
        int256 sum,
        Round calldata round,
        Opening[] calldata openings
    ) private view returns (bool) {
        Block memory b = _block(bench, sizes, openings);
        Leaves.checkLength(round.list, 3 * b.count);
        // There is no such value: the challenger doubts nothing.
        if (round.entry >= b.count) return true;
        if (this.blockSum(b, _shift(bench, sizes, openings), round.list) != sum) return false;
        return _isPair(bench, sizes, round, openings);
    }

    /// Whether the chosen pair is scale and number of its value.
    function _isPair(Bench memory bench, Sizes memory sizes, Round calldata round, Opening[] calldata openings)
        private
        pure
        returns (bool)
    {
        bytes calldata value = _value(bench, sizes, bench.step.inputs[0], round.entry, openings);
        bytes calldata pair = round.list[3 * uint256(round.entry):];
        uint256 group = sizes.group % 4;
        return bytes2(pair) == bytes2(value[2 * group:]) && pair[2] == value[8 + 32 * group + bench.element];
    }

    /// The shift of the block, for the group of dimensions.
    function _shift(Bench memory bench, Sizes memory sizes, Opening[] calldata openings)
        private
        pure
        returns (uint256)
    {
        uint256 leaves = sizes.heads * (sizes.dim / 32) * sizes.shifts;
        uint256 leaf = bench.leaf * sizes.shifts + sizes.number / 32;
        bytes calldata words = _here(bench, openings, bench.step.inputs[3], leaf, leaves, Leaves.FIXED);
        // A negative word is far out of bounds either way.
        return uint256(Leaves.fixedAt(words, sizes.number % 32));
    }

    /// @notice {Attention.blockShift}, for blocks put together here.
    function blockShift(Block calldata b, bytes calldata scales) external pure returns (uint256) {
        return Attention.blockShift(b, scales);
    }

    /// @notice {Attention.blockSum}, for blocks put together here.
    function blockSum(Block calldata b, uint256 shift, bytes calldata values) external pure returns (int64) {
        return Attention.blockSum(b, shift, values);
    }
}
