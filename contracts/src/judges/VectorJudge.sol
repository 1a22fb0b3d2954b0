// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Judge, Bench} from "./Judge.sol";
import {Doubt, Facts, Focus, Opening, Round} from "../libraries/dispute/Exhibits.sol";
import {Steps} from "../libraries/dispute/Steps.sol";
import {Sums} from "../libraries/dispute/Sums.sol";
import {Elements} from "../libraries/judge/Elements.sol";
import {Endings} from "../libraries/judge/Endings.sol";
import {Layouts} from "../libraries/judge/Layouts.sol";
import {Leaves} from "../libraries/judge/Leaves.sol";
import {Norms} from "../libraries/judge/Norms.sol";
import {Products} from "../libraries/judge/Products.sol";
import {Reductions} from "../libraries/judge/Reductions.sol";
import {Merkle} from "../libraries/Merkle.sol";

/// @notice Judges all of a trace but attention and sampling: embedding, norms, quantisation, matrix products, turns,
/// sums, activation and the chained state.
contract VectorJudge is Judge {
    /// 32 numbers that are zero.
    bytes32 private constant ZEROS = 0x8080808080808080808080808080808080808080808080808080808080808080;

    /// @inheritdoc Judge
    function _judge(
        Focus calldata focus,
        Bench memory bench,
        bytes calldata facts,
        Round[] calldata rounds,
        Opening[] calldata openings
    ) internal pure override returns (bool) {
        uint256 kind = bench.step.kind;
        bytes calldata leaf = openings[0].data;
        if (Steps.isProduct(kind)) return _product(bench, leaf, rounds, openings);
        _requireRounds(rounds, 0);
        if (kind == Steps.STATE) return _state(focus, bench, leaf, abi.decode(facts, (Facts)), openings);
        if (Steps.isHeads(kind)) return _quantiseHead(bench, leaf, abi.decode(facts, (Facts)).spec.headDim, openings);
        if (Steps.isQuantised(kind)) return _quantise(bench, leaf, openings);
        if (Steps.isStatistics(kind)) return _statistics(bench, leaf, facts, openings);
        if (Steps.isNorm(kind)) return _norm(bench, leaf, openings);
        if (kind == Steps.RESIDUAL_1 || kind == Steps.RESIDUAL_2) return _add(bench, leaf, openings);
        if (kind == Steps.ACTIVATION) return _activate(bench, leaf, openings);
        if (kind == Steps.ROPE_QUERY || kind == Steps.ROPE_KEY) {
            return _rope(bench, leaf, abi.decode(facts, (Facts)), openings);
        }
        require(kind == Steps.EMBED, NoRule(kind));
        return _embed(bench, leaf, abi.decode(facts, (Facts)), openings);
    }

    /// The number that stands at the focus, counted through its vector.
    function _index(Bench memory bench) private pure returns (uint256) {
        return 32 * bench.leaf + bench.element;
    }

    /// Reads: the input token; the leaf of weights of its row.
    function _embed(Bench memory bench, bytes calldata leaf, Facts memory facts, Opening[] calldata openings)
        private
        pure
        returns (bool)
    {
        int256 claimed = _fixed(bench, leaf);
        if (_index(bench) >= bench.step.outputs) return claimed == 0;
        return _embedded(bench, _input(bench, facts, openings), openings) == claimed;
    }

    function _embedded(Bench memory bench, uint256 token, Opening[] calldata openings) private pure returns (int256) {
        uint256 column = _index(bench);
        uint256 at = token * _ceil(bench.step.outputs, 128) + column / 128;
        bytes calldata weights = _weight(bench, openings, at, Leaves.WEIGHT);
        return Elements.embed(weights, column % 128, bench.step.fractionOut);
    }

    /// Reads, of a tree: the top of the first tree if this is the lowest level of the second; the leaf that is
    /// joined. Of the rest: the top of the first tree; but for the shift, the top of the second.
    function _statistics(Bench memory bench, bytes calldata leaf, bytes calldata facts, Opening[] calldata openings)
        private
        pure
        returns (bool)
    {
        uint256 claimed = _wide(bench, leaf);
        uint256 tree = Layouts.treeLeaves(bench.step.terms);
        if (bench.leaf < 2 * tree) return _statisticsWord(bench, tree, openings) == claimed;
        if (bench.element > 2) return claimed == 0;
        uint256 shift = _normShift(bench, tree, openings);
        if (bench.element == 0) return shift == claimed;
        return _root(bench, tree, shift, abi.decode(facts, (Facts)).spec.normEps, openings) == claimed;
    }

    /// The reciprocal root or its right shift.
    function _root(Bench memory bench, uint256 tree, uint256 shift, uint256 eps, Opening[] calldata openings)
        private
        pure
        returns (uint256)
    {
        uint256 sum = Leaves.wideAt(_words(bench, tree, 2 * tree - 1, openings), 0);
        (uint256 factor, uint256 right) = Norms.inverseRoot(sum, bench.step.terms, eps, shift);
        return bench.element == 1 ? factor : right;
    }

    /// A leaf of the op's own.
    function _words(Bench memory bench, uint256 tree, uint256 leaf, Opening[] calldata openings)
        private
        pure
        returns (bytes calldata)
    {
        return _here(bench, openings, bench.op, leaf, 2 * tree + 1, Leaves.WIDE);
    }

    function _statisticsWord(Bench memory bench, uint256 tree, Opening[] calldata openings)
        private
        pure
        returns (uint256)
    {
        bool second = bench.leaf >= tree;
        uint256 first = second ? tree : 0;
        (uint256 level, uint256 read, uint256 joined) =
            Layouts.treeWord(bench.step.terms, bench.leaf - first, bench.element);
        if (joined == 0) return 0;
        if (level > 0) {
            bytes calldata words = _words(bench, tree, first + read, openings);
            return second ? Reductions.total(words, joined) : Reductions.maximum(words, joined);
        }
        if (!second) return Norms.largestMagnitude(_residual(bench, read, openings), joined);
        uint256 shift = _normShift(bench, tree, openings);
        return Norms.sumOfSquares(_residual(bench, read, openings), joined, shift);
    }

    function _residual(Bench memory bench, uint256 leaf, Opening[] calldata openings)
        private
        pure
        returns (bytes calldata)
    {
        return _here(bench, openings, bench.step.inputs[0], leaf, _ceil(bench.step.terms, 32), Leaves.FIXED);
    }

    /// The shift that follows from the top of the first tree.
    function _normShift(Bench memory bench, uint256 tree, Opening[] calldata openings) private pure returns (uint256) {
        return Norms.normShift(Leaves.wideAt(_words(bench, tree, tree - 1, openings), 0));
    }

    /// Reads: the residual; the last leaf of the statistics; the gain.
    function _norm(Bench memory bench, bytes calldata leaf, Opening[] calldata openings) private pure returns (bool) {
        int256 claimed = _fixed(bench, leaf);
        if (_index(bench) >= bench.step.outputs) return claimed == 0;
        int256 x = _same(bench, openings, 0);
        bytes calldata s = _factors(bench, openings);
        return _normed(bench, x, _gain(bench, openings), s) == claimed;
    }

    /// The last leaf of the statistics.
    function _factors(Bench memory bench, Opening[] calldata openings) private pure returns (bytes calldata) {
        uint256 trees = 2 * Layouts.treeLeaves(bench.step.outputs);
        return _here(bench, openings, bench.step.inputs[1], trees, trees + 1, Leaves.WIDE);
    }

    function _gain(Bench memory bench, Opening[] calldata openings) private pure returns (int256) {
        return Leaves.fixedAt(_weight(bench, openings, bench.leaf, Leaves.FIXED), bench.element);
    }

    function _normed(Bench memory bench, int256 x, int256 gain, bytes calldata s) private pure returns (int256) {
        return
            Norms.norm(x, gain, Leaves.wideAt(s, 0), Leaves.wideAt(s, 1), Leaves.wideAt(s, 2), bench.step.fractionOut);
    }

    /// The number at the same place of an input.
    function _same(Bench memory bench, Opening[] calldata openings, uint256 input) private pure returns (int256) {
        uint256 leaves = _ceil(bench.step.outputs, 32);
        return Leaves.fixedAt(
            _here(bench, openings, bench.step.inputs[input], bench.leaf, leaves, Leaves.FIXED), bench.element
        );
    }

    /// Reads: the leaf of the same 32 numbers.
    function _quantise(Bench memory bench, bytes calldata leaf, Opening[] calldata openings)
        private
        pure
        returns (bool)
    {
        uint256 group = 4 * bench.leaf + bench.element;
        if (group >= _ceil(bench.step.outputs, 32)) return _isEmpty(bench, leaf);
        bench.index = group;
        return _isGroup(bench, leaf, openings);
    }

    /// As `_quantise`, each head padded for itself.
    function _quantiseHead(Bench memory bench, bytes calldata leaf, uint256 dim, Opening[] calldata openings)
        private
        pure
        returns (bool)
    {
        uint256 records = _ceil(dim, 128);
        uint256 group = 4 * (bench.leaf % records) + bench.element;
        if (group >= dim / 32) return _isEmpty(bench, leaf);
        bench.index = bench.leaf / records * (dim / 32) + group;
        return _isGroup(bench, leaf, openings);
    }

    /// Whether the group at the focus is that of nothing.
    function _isEmpty(Bench memory bench, bytes calldata leaf) private pure returns (bool) {
        (uint256 scale, bytes32 quants) = _group(bench, leaf);
        return scale == 1 && quants == ZEROS;
    }

    /// Whether the group at the focus is that of the input's leaf that `index` names.
    function _isGroup(Bench memory bench, bytes calldata leaf, Opening[] calldata openings)
        private
        pure
        returns (bool)
    {
        (uint256 scale, bytes32 quants) = _group(bench, leaf);
        uint256 leaves = _ceil(bench.step.outputs, 32);
        bytes calldata x = _here(bench, openings, bench.step.inputs[0], bench.index, leaves, Leaves.FIXED);
        (uint16 expected, bytes32 numbers) = Elements.quantise(x);
        return scale == expected && quants == numbers;
    }

    /// Scale and numbers of the group at the focus.
    function _group(Bench memory bench, bytes calldata leaf) private pure returns (uint256 scale, bytes32 quants) {
        Leaves.checkLength(leaf, Leaves.ACTIVATION);
        scale = uint16(bytes2(leaf[2 * bench.element:]));
        quants = bytes32(leaf[8 + 32 * bench.element:]);
    }

    /// Without a round it reads: all leaves of the input; all leaves of weights of the row. With one, whose list is
    /// the partial sums: the leaf of weights and the leaf of the input that the entry is the product of.
    function _product(Bench memory bench, bytes calldata leaf, Round[] calldata rounds, Opening[] calldata openings)
        private
        pure
        returns (bool)
    {
        int256 claimed = _fixed(bench, leaf);
        uint256 row = _index(bench);
        if (row >= bench.step.outputs) return claimed == 0;
        uint256 chunks = _ceil(bench.step.terms, 128);
        if (rounds.length == 0) return _row(bench, row * chunks, chunks, openings) == claimed;
        _requireRounds(rounds, 1);
        Leaves.checkLength(rounds[0].list, 8 * chunks);
        // There is no such partial sum: the challenger doubts nothing.
        if (rounds[0].entry >= chunks) return true;
        return _isPartial(bench, claimed, row * chunks, chunks, rounds[0], openings);
    }

    /// Whether partial sums give the element, and the chosen one is the product of its leaves.
    function _isPartial(
        Bench memory bench,
        int256 claimed,
        uint256 first,
        uint256 chunks,
        Round calldata round,
        Opening[] calldata openings
    ) private pure returns (bool) {
        bytes calldata weights = _weight(bench, openings, first + round.entry, Leaves.WEIGHT);
        if (Products.product(round.list, _shift(bench, weights)) != claimed) return false;
        bytes calldata x = _part(bench, round.entry, chunks, openings);
        return Products.chunk(weights, x) == int64(uint64(bytes8(round.list[8 * uint256(round.entry):])));
    }

    /// A leaf of the input.
    function _part(Bench memory bench, uint256 leaf, uint256 leaves, Opening[] calldata openings)
        private
        pure
        returns (bytes calldata)
    {
        return _here(bench, openings, bench.step.inputs[0], leaf, leaves, Leaves.ACTIVATION);
    }

    /// An element from the whole row, which begins at leaf `first` of its tensor.
    function _row(Bench memory bench, uint256 first, uint256 chunks, Opening[] calldata openings)
        private
        pure
        returns (int256)
    {
        bytes calldata x = _whole(bench, openings, bench.step.inputs[0], chunks, Leaves.ACTIVATION);
        (bench.root, bench.index, bench.depth) = (bench.weights, bench.tensorLeaf + first, bench.weightDepth);
        bytes calldata weights = _run(bench, openings, chunks, Leaves.WEIGHT);
        int256 sum;
        for (uint256 i; i < chunks; ++i) {
            sum += _chunk(weights, x, i);
        }
        return Sums.product(sum, _shift(bench, weights));
    }

    function _chunk(bytes calldata weights, bytes calldata x, uint256 i) private pure returns (int256) {
        bytes calldata w = weights[Leaves.WEIGHT * i:Leaves.WEIGHT * (i + 1)];
        return Products.chunk(w, x[Leaves.ACTIVATION * i:Leaves.ACTIVATION * (i + 1)]);
    }

    /// The shift of a product: the row's exponent and the fraction bits.
    function _shift(Bench memory bench, bytes calldata weights) private pure returns (int256) {
        return int256(int8(uint8(weights[1]))) + int256(bench.step.fractionIn) - int256(bench.step.fractionOut);
    }

    /// Reads: the leaves of both numbers of the pair; cosines; sines.
    function _rope(Bench memory bench, bytes calldata leaf, Facts memory facts, Opening[] calldata openings)
        private
        pure
        returns (bool)
    {
        int256 claimed = _fixed(bench, leaf);
        if (_index(bench) >= bench.step.outputs) return claimed == 0;
        (uint256[3] memory places, bool isFirst) = _places(_index(bench), facts.spec.headDim, facts.spec.halves);
        int256 a = _number(bench, openings, places[0]);
        int256 b = _number(bench, openings, places[1]);
        (int256 cos, int256 sin) = _angle(bench, facts, places[2], openings);
        (int32 x, int32 y) = Elements.rope(a, b, cos, sin);
        return (isFirst ? x : y) == claimed;
    }

    /// The two numbers that turn together with number `index`, and their place among the pairs of a head.
    function _places(uint256 index, uint256 dim, bool halves)
        private
        pure
        returns (uint256[3] memory places, bool isFirst)
    {
        uint256 within = index % dim;
        uint256 head = index - within;
        if (halves) {
            uint256 pair = within % (dim / 2);
            return ([head + pair, head + pair + dim / 2, pair], within == pair);
        }
        return ([head + within / 2 * 2, head + within / 2 * 2 + 1, within / 2], within % 2 == 0);
    }

    /// Number `index` of the first input.
    function _number(Bench memory bench, Opening[] calldata openings, uint256 index) private pure returns (int256) {
        uint256 leaves = _ceil(bench.step.outputs, 32);
        bytes calldata x = _here(bench, openings, bench.step.inputs[0], index / 32, leaves, Leaves.FIXED);
        return Leaves.fixedAt(x, index % 32);
    }

    function _angle(Bench memory bench, Facts memory facts, uint256 pair, Opening[] calldata openings)
        private
        pure
        returns (int256 cos, int256 sin)
    {
        uint256 each = _ceil(facts.spec.headDim / 2, 32);
        uint256 depth = Merkle.depth(2 * each * facts.spec.context);
        uint256 at = 2 * each * bench.position + pair / 32;
        bytes32 root = facts.spec.rope;
        cos = Leaves.fixedAt(_open(bench, openings, root, at, depth, Leaves.FIXED), pair % 32);
        sin = Leaves.fixedAt(_open(bench, openings, root, at + each, depth, Leaves.FIXED), pair % 32);
    }

    /// Reads: both summands.
    function _add(Bench memory bench, bytes calldata leaf, Opening[] calldata openings) private pure returns (bool) {
        (int256 claimed, int256 x, int256 y) = _pair(bench, leaf, openings);
        return Elements.add(x, y) == claimed;
    }

    /// Reads: gate and up.
    function _activate(Bench memory bench, bytes calldata leaf, Opening[] calldata openings)
        private
        pure
        returns (bool)
    {
        (int256 claimed, int256 gate, int256 up) = _pair(bench, leaf, openings);
        return Elements.activate(gate, up, bench.step.fractionOut) == claimed;
    }

    /// What is claimed, and both numbers that it is made of; three zeros beyond the vector, if it is zero there.
    function _pair(Bench memory bench, bytes calldata leaf, Opening[] calldata openings)
        private
        pure
        returns (int256 claimed, int256 x, int256 y)
    {
        claimed = _fixed(bench, leaf);
        if (_index(bench) >= bench.step.outputs) return (claimed, 0, 0);
        x = _same(bench, openings, 0);
        y = _same(bench, openings, 1);
    }

    /// Reads: but for the first output token, the state before; the token's leaf; all leaves of the last norm's
    /// quantised vector. Of the final state: nothing.
    function _state(
        Focus calldata focus,
        Bench memory bench,
        bytes calldata leaf,
        Facts memory facts,
        Opening[] calldata openings
    ) private pure returns (bool) {
        Leaves.checkLength(leaf, 32);
        if (focus.doubt == Doubt.FinalState) return bytes32(leaf) == facts.state;
        bytes32 before = _stateBefore(bench, facts, openings);
        uint32 token = _drawn(bench, facts, openings);
        return _chained(bench, facts, before, token, openings) == bytes32(leaf);
    }

    /// Ops at the end: last norm quantised, logits, sample, token, and behind them the state.
    function _stateBefore(Bench memory bench, Facts memory facts, Opening[] calldata openings)
        private
        pure
        returns (bytes32)
    {
        if (bench.position + 1 == facts.promptTokens) return facts.order;
        return bytes32(_at(bench, openings, bench.position - 1, facts.spec.steps, 0, 1, 32));
    }

    function _drawn(Bench memory bench, Facts memory facts, Opening[] calldata openings) private pure returns (uint32) {
        bytes calldata words = _here(bench, openings, facts.spec.steps - 1, 0, 1, Leaves.WIDE);
        // Beyond 32 bits it is no token, and not the link's.
        return uint32(Leaves.wideAt(words, facts.invT_q16 == 0 ? 0 : 2 * _levels(facts.spec.vocab) - 1));
    }

    function _chained(Bench memory bench, Facts memory facts, bytes32 before, uint32 token, Opening[] calldata openings)
        private
        pure
        returns (bytes32)
    {
        uint256 leaves = _ceil(facts.spec.width, 128);
        bytes calldata hidden = _whole(bench, openings, facts.spec.steps - 4, leaves, Leaves.ACTIVATION);
        return Endings.state(before, token, hidden);
    }

    /// Levels of a radix tree over so many elements.
    function _levels(uint256 elements) private pure returns (uint256 levels) {
        do {
            elements = _ceil(elements, 32);
            ++levels;
        } while (elements > 1);
    }
}
