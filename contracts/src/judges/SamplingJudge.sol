// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Bench, Judge} from "./Judge.sol";
import {Doubt, Facts, Focus, Opening, Round} from "../libraries/dispute/Exhibits.sol";
import {Samplers} from "../libraries/dispute/Samplers.sol";
import {Steps} from "../libraries/dispute/Steps.sol";
import {Endings} from "../libraries/judge/Endings.sol";
import {Layouts} from "../libraries/judge/Layouts.sol";
import {BadLength, Leaves, OutOfBounds, Quantity} from "../libraries/judge/Leaves.sol";
import {Reductions} from "../libraries/judge/Reductions.sol";
import {Hits, Kept, Penalties, Sampling} from "../libraries/judge/Sampling.sol";

/// @notice Judges what the sampler derives from the logits, the draw, and the checks beside them.
contract SamplingJudge is Judge {
    /// The biases are not those that the order names.
    error WrongBias(bytes32 found, bytes32 expected);

    /// What lies where among the sampler's leaves.
    struct Parts {
        uint256 vocab;
        /// Leaves of a tree over the vocabulary, and of the whole op.
        uint256 tree;
        uint256 leaves;
        /// Where each part begins; zero for a part that is not there, but for the keys.
        uint256 keys;
        uint256 kth;
        uint256 nucleus;
        uint256 kept;
        /// The op itself, and that of the logits.
        uint256 op;
        uint256 logits;
    }

    /// Which thresholds a mass looks at: what top-k keeps; that, above top-p's; that, from top-p's on.
    enum Floor {
        All,
        Above,
        From
    }

    /// @inheritdoc Judge
    function _judge(
        Focus calldata focus,
        Bench memory bench,
        bytes calldata encoded,
        Round[] calldata rounds,
        Opening[] calldata openings
    ) internal pure override returns (bool) {
        Facts memory facts = abi.decode(encoded, (Facts));
        if (bench.step.kind == Steps.SAMPLE) return _sample(focus.doubt, bench, facts, rounds, openings);
        require(bench.step.kind == Steps.TOKEN, NoRule(bench.step.kind));
        _requireRounds(rounds, 0);
        if (focus.doubt == Doubt.Link) return _link(bench, facts, openings[0].data, openings);
        Parts memory parts = _parts(facts, bench.step.inputs[1], bench.step.inputs[0]);
        return _token(bench, facts, parts, openings[0].data, openings);
    }

    function _sample(
        Doubt doubt,
        Bench memory bench,
        Facts memory facts,
        Round[] calldata rounds,
        Opening[] calldata openings
    ) private pure returns (bool) {
        Parts memory parts = _parts(facts, bench.op, bench.step.inputs[0]);
        if (bench.leaf < parts.keys) return _adjusted(bench, facts, parts, rounds, openings);
        _requireRounds(rounds, 0);
        bytes calldata leaf = openings[0].data;
        if (doubt == Doubt.Kth) return _isKth(bench, facts, parts, leaf);
        if (doubt == Doubt.Nucleus) return _isNucleus(bench, facts, parts, leaf, openings);
        uint256 claimed = _wide(bench, leaf);
        // Advice has no rule of its own; a check refutes it.
        if (_isAdvice(parts, bench.leaf)) return bench.element == 0 || claimed == 0;
        return _word(bench, facts, parts, openings) == claimed;
    }

    function _isAdvice(Parts memory parts, uint256 leaf) private pure returns (bool) {
        return (parts.kth != 0 && leaf == parts.kth) || (parts.nucleus != 0 && leaf == parts.nucleus);
    }

    function _parts(Facts memory facts, uint256 op, uint256 logits) private pure returns (Parts memory parts) {
        parts.vocab = facts.spec.vocab;
        parts.tree = Layouts.treeLeaves(parts.vocab);
        parts.op = op;
        parts.logits = logits;
        uint256 next = Samplers.adjusts(facts) ? _ceil(parts.vocab, 32) : 0;
        parts.keys = next;
        next += parts.tree;
        if (facts.invT_q16 != 0) {
            if (Samplers.usesTopK(facts)) {
                parts.kth = next;
                next += 1 + parts.tree;
            }
            if (Samplers.usesTopP(facts)) {
                parts.nucleus = next;
                next += 1 + 3 * parts.tree;
            }
            parts.kept = next;
            next += parts.tree;
        }
        parts.leaves = next;
    }

    /// Word 0 of a leaf of the sampler.
    function _first(Bench memory bench, Parts memory parts, uint256 leaf, Opening[] calldata openings)
        private
        pure
        returns (uint64)
    {
        return uint64(Leaves.wideAt(_own(bench, parts, leaf, openings), 0));
    }

    /// A leaf of words of the sampler.
    function _own(Bench memory bench, Parts memory parts, uint256 leaf, Opening[] calldata openings)
        private
        pure
        returns (bytes calldata)
    {
        return _here(bench, openings, parts.op, leaf, parts.leaves, Leaves.WIDE);
    }

    /// A leaf of the logits that are sampled.
    function _logits(Bench memory bench, Parts memory parts, uint256 leaf, Opening[] calldata openings)
        private
        pure
        returns (bytes calldata)
    {
        if (parts.keys != 0) return _here(bench, openings, parts.op, leaf, parts.leaves, Leaves.FIXED);
        return _here(bench, openings, parts.logits, leaf, _ceil(parts.vocab, 32), Leaves.FIXED);
    }

    /// A word of one of the trees. Reads: above the lowest level, the leaf that is joined; there, for ranks the
    /// threshold, for masses what `_filters` reads, then the leaf of logits.
    function _word(Bench memory bench, Facts memory facts, Parts memory parts, Opening[] calldata openings)
        private
        pure
        returns (uint256)
    {
        uint256 first = _treeOf(parts, bench.leaf);
        (uint256 level, uint256 read, uint256 joined) = Layouts.treeWord(parts.vocab, bench.leaf - first, bench.element);
        if (joined == 0) return 0;
        if (level > 0) return _joint(bench, parts, first, read, joined, openings);
        if (first == parts.keys) {
            return uint64(Sampling.bestKey(_logits(bench, parts, read, openings), joined, 32 * read));
        }
        if (parts.kth != 0 && first == parts.kth + 1) return _rank(bench, parts, read, joined, openings);
        Kept memory kept = _filters(bench, facts, parts, _floorOf(parts, first), openings);
        if (first == parts.kept) kept.leastWeight = facts.minP_q16 << 14;
        return Sampling.mass(_logits(bench, parts, read, openings), joined, kept);
    }

    function _joint(
        Bench memory bench,
        Parts memory parts,
        uint256 first,
        uint256 read,
        uint256 joined,
        Opening[] calldata openings
    ) private pure returns (uint256) {
        bytes calldata words = _own(bench, parts, first + read, openings);
        if (first == parts.keys) return uint64(Reductions.maximumSigned(words, joined));
        return Reductions.total(words, joined);
    }

    function _rank(Bench memory bench, Parts memory parts, uint256 read, uint256 joined, Opening[] calldata openings)
        private
        pure
        returns (uint256)
    {
        int256 threshold = _leastLogit(bench, parts, openings);
        return Sampling.rank(_logits(bench, parts, read, openings), joined, threshold);
    }

    /// Where the tree begins that holds a leaf, which is no advice.
    function _treeOf(Parts memory parts, uint256 leaf) private pure returns (uint256) {
        if (parts.kept != 0 && leaf >= parts.kept) return parts.kept;
        if (parts.nucleus != 0 && leaf > parts.nucleus) {
            return parts.nucleus + 1 + (leaf - parts.nucleus - 1) / parts.tree * parts.tree;
        }
        if (parts.kth != 0 && leaf > parts.kth) return parts.kth + 1;
        return parts.keys;
    }

    function _floorOf(Parts memory parts, uint256 first) private pure returns (Floor) {
        if (first == parts.kept) return Floor.From;
        uint256 number = (first - parts.nucleus - 1) / parts.tree;
        return number == 0 ? Floor.Above : number == 1 ? Floor.From : Floor.All;
    }

    /// The threshold of top-k, which is some logit.
    function _leastLogit(Bench memory bench, Parts memory parts, Opening[] calldata openings)
        private
        pure
        returns (int256)
    {
        int256 found = int64(_first(bench, parts, parts.kth, openings));
        require(found == int32(found), OutOfBounds(Quantity.Logit, found));
        return found;
    }

    /// Reads: the top key; with top-k its threshold; with top-p its threshold, unless all mass counts.
    function _filters(
        Bench memory bench,
        Facts memory facts,
        Parts memory parts,
        Floor floor,
        Opening[] calldata openings
    ) private pure returns (Kept memory kept) {
        kept.invT_q16 = facts.invT_q16;
        int64 key = int64(_first(bench, parts, parts.keys + parts.tree - 1, openings));
        (, kept.best) = Sampling.keyToken(key);
        kept.leastHeat = type(int64).min;
        if (parts.kth != 0) kept.leastHeat = Sampling.heat(_leastLogit(bench, parts, openings), facts.invT_q16);
        if (parts.nucleus != 0 && floor != Floor.All) {
            int64 threshold = int64(_first(bench, parts, parts.nucleus, openings));
            if (floor == Floor.Above && threshold != type(int64).max) ++threshold;
            if (threshold > kept.leastHeat) kept.leastHeat = threshold;
        }
    }

    /// At the top of the tree of ranks. Reads nothing else.
    function _isKth(Bench memory bench, Facts memory facts, Parts memory parts, bytes calldata leaf)
        private
        pure
        returns (bool)
    {
        Leaves.checkLength(leaf, Leaves.WIDE);
        // Anywhere else there is nothing to check.
        if (parts.kth == 0 || bench.leaf != parts.kth + parts.tree) return true;
        return Sampling.isKth(uint64(Leaves.wideAt(leaf, 0)), facts.topK);
    }

    /// At the top of the last of the three trees of masses. Reads: the tops of the first two.
    function _isNucleus(
        Bench memory bench,
        Facts memory facts,
        Parts memory parts,
        bytes calldata leaf,
        Opening[] calldata openings
    ) private pure returns (bool) {
        Leaves.checkLength(leaf, Leaves.WIDE);
        uint256 first = parts.nucleus;
        if (first == 0 || bench.leaf != first + 3 * parts.tree) return true;
        uint256 above = _first(bench, parts, first + parts.tree, openings);
        uint256 from = _first(bench, parts, first + 2 * parts.tree, openings);
        return Sampling.isNucleus(above, from, Leaves.wideAt(leaf, 0), facts.topP_q16);
    }

    /// Reads: the answered token.
    function _link(Bench memory bench, Facts memory facts, bytes calldata leaf, Opening[] calldata openings)
        private
        pure
        returns (bool)
    {
        Leaves.checkLength(leaf, Leaves.WIDE);
        uint256 word = facts.invT_q16 == 0 ? 0 : 2 * _levels(facts.spec.vocab).length - 1;
        uint256 index = bench.position + 1 - facts.promptTokens;
        uint256 answered = uint32(bytes4(_tokens(bench, openings, facts.output, index, 1, facts.outputTokens)));
        return Leaves.wideAt(leaf, word) == answered;
    }

    /// Reads: greedy, the top key; the first word, the top of what is kept; a level, the leaf that is drawn from; the
    /// token, what `_filters` reads and the leaf of logits.
    function _token(
        Bench memory bench,
        Facts memory facts,
        Parts memory parts,
        bytes calldata leaf,
        Opening[] calldata openings
    ) private pure returns (bool) {
        uint256 claimed = _wide(bench, leaf);
        if (facts.invT_q16 == 0) {
            if (bench.element != 0) return claimed == 0;
            (uint32 token,) = Sampling.keyToken(int64(_first(bench, parts, parts.keys + parts.tree - 1, openings)));
            return token == claimed;
        }
        uint256[] memory levels = _levels(parts.vocab);
        if (bench.element >= 2 * levels.length) return claimed == 0;
        if (bench.element == 0) return _mark(bench, facts, parts, openings) == claimed;
        // Where the walk stands: at the top, or at what the two words before say.
        uint256 down = (bench.element - 1) / 2;
        uint256 node = down == 0 ? 0 : Leaves.wideAt(leaf, 2 * down - 1);
        uint256 rest = Leaves.wideAt(leaf, 2 * down);
        if (down == levels.length - 1) return _drawToken(bench, facts, parts, [node, rest], openings) == claimed;
        return _drawLevel(bench, parts, levels, [node, rest], openings) == claimed;
    }

    function _mark(Bench memory bench, Facts memory facts, Parts memory parts, Opening[] calldata openings)
        private
        pure
        returns (uint256)
    {
        uint256 sum = _first(bench, parts, parts.leaves - 1, openings);
        uint32 index = uint32(bench.position + 1 - facts.promptTokens);
        return Sampling.mark(Endings.uniform(facts.drawKey, index), sum);
    }

    /// One level down from a node and what is left of the mark: the child, or what is left then.
    function _drawLevel(
        Bench memory bench,
        Parts memory parts,
        uint256[] memory levels,
        uint256[2] memory from,
        Opening[] calldata openings
    ) private pure returns (uint256) {
        uint256 level = levels.length - 2 - (bench.element - 1) / 2;
        uint256 at = parts.kept + from[0];
        for (uint256 l; l < level; ++l) {
            at += _ceil(levels[l], 32);
        }
        uint256 count = _held(levels[level], from[0]);
        bytes calldata words = _own(bench, parts, at, openings);
        (uint256 child, uint256 left) = Sampling.draw(words, count, from[1]);
        return bench.element % 2 == 1 ? 32 * from[0] + child : left;
    }

    /// How many of so many elements leaf `leaf` holds.
    function _held(uint256 elements, uint256 leaf) private pure returns (uint256) {
        require(32 * leaf < elements, OutOfBounds(Quantity.Count, int256(leaf)));
        uint256 left = elements - 32 * leaf;
        return left < 32 ? left : 32;
    }

    function _drawToken(
        Bench memory bench,
        Facts memory facts,
        Parts memory parts,
        uint256[2] memory from,
        Opening[] calldata openings
    ) private pure returns (uint256) {
        uint256 count = _held(parts.vocab, from[0]);
        Kept memory kept = _filters(bench, facts, parts, Floor.From, openings);
        kept.leastWeight = facts.minP_q16 << 14;
        bytes calldata logits = _logits(bench, parts, from[0], openings);
        return 32 * from[0] + Sampling.drawToken(logits, count, kept, from[1]);
    }

    /// Words in each level of a radix tree over so many elements, from the lowest to the top.
    function _levels(uint256 elements) private pure returns (uint256[] memory levels) {
        uint256 count;
        for (uint256 words = elements; count == 0 || words > 1; ++count) {
            words = _ceil(words, 32);
        }
        levels = new uint256[](count);
        for (uint256 i; i < count; ++i) {
            elements = _ceil(elements, 32);
            levels[i] = elements;
        }
    }

    /// One round, whose list is, for each 32 inputs, how often prompt and output among them hold the token (8 bits
    /// each). Reads: the logit; the biases, without siblings, if the order has some; the chosen inputs of the prompt,
    /// if any; those of the output, if any.
    function _adjusted(
        Bench memory bench,
        Facts memory facts,
        Parts memory parts,
        Round[] calldata rounds,
        Opening[] calldata openings
    ) private pure returns (bool) {
        int256 claimed = _fixed(bench, openings[0].data);
        uint256 token = 32 * bench.leaf + bench.element;
        if (token >= parts.vocab) {
            _requireRounds(rounds, 0);
            return claimed == 0;
        }
        _requireRounds(rounds, 1);
        uint256 inputs = bench.position + 1;
        Leaves.checkLength(rounds[0].list, 2 * _ceil(inputs, 32));
        // There are no such inputs: the challenger doubts nothing.
        if (32 * uint256(rounds[0].entry) >= inputs) return true;
        Hits memory hits = _hits(rounds[0].list);
        if (_adjust(bench, facts, parts, hits, openings) != claimed) return false;
        return _counts(bench, facts, token, rounds[0], openings);
    }

    function _adjust(
        Bench memory bench,
        Facts memory facts,
        Parts memory parts,
        Hits memory hits,
        Opening[] calldata openings
    ) private pure returns (int256) {
        int256 logit = _logit(bench, parts, openings);
        uint256 token = 32 * bench.leaf + bench.element;
        int256 bias = facts.bias == 0 ? int256(0) : _bias(bench, facts.bias, token, openings);
        Penalties memory penalties = Penalties(facts.rep_q16, facts.freq_q16, facts.pres_q16);
        return Sampling.adjust(logit, penalties, hits, bias);
    }

    /// The logit that is adjusted at the focus.
    function _logit(Bench memory bench, Parts memory parts, Opening[] calldata openings) private pure returns (int256) {
        uint256 leaves = _ceil(parts.vocab, 32);
        bytes calldata logits = _here(bench, openings, parts.logits, bench.leaf, leaves, Leaves.FIXED);
        return Leaves.fixedAt(logits, bench.element);
    }

    /// The sum of the list's entries.
    function _hits(bytes calldata list) private pure returns (Hits memory hits) {
        for (uint256 i; i < list.length; i += 2) {
            hits.prompt += uint8(list[i]);
            hits.output += uint8(list[i + 1]);
        }
    }

    /// Whether the chosen entry is what the inputs hold.
    function _counts(
        Bench memory bench,
        Facts memory facts,
        uint256 token,
        Round calldata round,
        Opening[] calldata openings
    ) private pure returns (bool) {
        uint256[3] memory bounds = _bounds(bench.position + 1, facts.promptTokens, round.entry);
        uint256 count = _prompted(bench, facts, token, bounds, openings);
        if (uint8(round.list[2 * uint256(round.entry)]) != count) return false;
        count = _answered(bench, facts, token, bounds, openings);
        return uint8(round.list[2 * uint256(round.entry) + 1]) == count;
    }

    /// The first of 32 inputs, the first behind those of the prompt, and the first behind them all.
    function _bounds(uint256 inputs, uint256 prompt, uint256 entry) private pure returns (uint256[3] memory) {
        uint256 from = 32 * entry;
        uint256 until = from + 32 < inputs ? from + 32 : inputs;
        return [from, prompt < from ? from : prompt > until ? until : prompt, until];
    }

    /// How often the inputs that are of the prompt hold the token.
    function _prompted(
        Bench memory bench,
        Facts memory facts,
        uint256 token,
        uint256[3] memory bounds,
        Opening[] calldata openings
    ) private pure returns (uint256) {
        uint256 count = bounds[1] - bounds[0];
        if (count == 0) return 0;
        return _occurrences(_tokens(bench, openings, facts.prompt, bounds[0], count, facts.promptTokens), token);
    }

    /// As `_prompted`, of the output.
    function _answered(
        Bench memory bench,
        Facts memory facts,
        uint256 token,
        uint256[3] memory bounds,
        Opening[] calldata openings
    ) private pure returns (uint256) {
        uint256 count = bounds[2] - bounds[1];
        if (count == 0) return 0;
        uint256 first = bounds[1] - facts.promptTokens;
        return _occurrences(_tokens(bench, openings, facts.output, first, count, facts.outputTokens), token);
    }

    function _occurrences(bytes calldata tokens, uint256 token) private pure returns (uint256 count) {
        for (uint256 i; i < tokens.length; i += 4) {
            if (uint32(bytes4(tokens[i:])) == token) ++count;
        }
    }

    /// The bias of a token: the list is token ids and biases, 32 bits each.
    function _bias(Bench memory bench, bytes32 expected, uint256 token, Opening[] calldata openings)
        private
        pure
        returns (int256)
    {
        bytes calldata list = _next(bench, openings).data;
        bytes32 found = keccak256(list);
        require(found == expected, WrongBias(found, expected));
        require(list.length % 8 == 0, BadLength(list.length, list.length - list.length % 8));
        for (uint256 i; i < list.length; i += 8) {
            if (uint32(bytes4(list[i:])) == token) return int32(uint32(bytes4(list[i + 4:])));
        }
        return 0;
    }
}
