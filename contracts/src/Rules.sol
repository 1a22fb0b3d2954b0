// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Attention, Block} from "./libraries/judge/Attention.sol";
import {Elements} from "./libraries/judge/Elements.sol";
import {Endings} from "./libraries/judge/Endings.sol";
import {Extent, Layouts} from "./libraries/judge/Layouts.sol";
import {Norms} from "./libraries/judge/Norms.sol";
import {Openings} from "./libraries/judge/Openings.sol";
import {Products} from "./libraries/judge/Products.sol";
import {Reductions} from "./libraries/judge/Reductions.sol";
import {Hits, Kept, Penalties, Sampling} from "./libraries/judge/Sampling.sol";

/// @notice The rules by which single numbers of a trace are judged, one function each.
/// @dev Pure: no storage, no calls, nobody to trust. The arithmetic is that of docs/protocol/arithmetic.md, where each
/// number lies that of docs/protocol/trace.md. The twin of each function stands under the same name in
/// crates/evidence/src/op; tests/vectors/ops.json and a differential test hold both together. A contract of its own so
/// that the referee stays below the size that can be deployed, and so that anyone may ask it what a number should be.
contract Rules {
    /// @notice EMBED, one element.
    function embed(bytes calldata weights, uint256 column, uint8 fraction) external pure returns (int32) {
        return Elements.embed(weights, column, fraction);
    }

    /// @notice RES, one element.
    function add(int32 x, int32 y) external pure returns (int32) {
        return Elements.add(x, y);
    }

    /// @notice ROPE, both elements of a pair.
    function rope(int32 a, int32 b, int32 cos, int32 sin) external pure returns (int32, int32) {
        return Elements.rope(a, b, cos, sin);
    }

    /// @notice ACT, one element.
    function activate(int32 gate, int32 up, uint8 fraction) external pure returns (int32) {
        return Elements.activate(gate, up, fraction);
    }

    /// @notice AQ, one group.
    function quantise(bytes calldata x) external pure returns (uint16 scale, bytes32 quants) {
        return Elements.quantise(x);
    }

    /// @notice A word of a tree of largest unsigned words.
    function maximum(bytes calldata words, uint256 count) external pure returns (uint256) {
        return Reductions.maximum(words, count);
    }

    /// @notice A word of a tree of largest signed words.
    function maximumSigned(bytes calldata words, uint256 count) external pure returns (int64) {
        return Reductions.maximumSigned(words, count);
    }

    /// @notice A word of a tree of sums.
    function total(bytes calldata words, uint256 count) external pure returns (uint256) {
        return Reductions.total(words, count);
    }

    /// @notice NSTAT, the lowest level of the first tree.
    function largestMagnitude(bytes calldata x, uint256 count) external pure returns (uint256) {
        return Norms.largestMagnitude(x, count);
    }

    /// @notice NSTAT, the lowest level of the second tree.
    function sumOfSquares(bytes calldata x, uint256 count, uint64 shift) external pure returns (uint256) {
        return Norms.sumOfSquares(x, count, shift);
    }

    /// @notice NSTAT, the shift.
    function normShift(uint64 largest) external pure returns (uint256) {
        return Norms.normShift(largest);
    }

    /// @notice NSTAT, the reciprocal root and its right shift.
    function inverseRoot(uint64 sum, uint32 width, uint32 eps, uint64 shift)
        external
        pure
        returns (uint256 factor, uint256 right)
    {
        return Norms.inverseRoot(sum, width, eps, shift);
    }

    /// @notice NORM, one element.
    function norm(int32 x, int32 gain, uint64 shift, uint64 factor, uint64 right, uint8 fraction)
        external
        pure
        returns (int32)
    {
        return Norms.norm(x, gain, shift, factor, right, fraction);
    }

    /// @notice MATMUL, one partial sum.
    function chunk(bytes calldata weights, bytes calldata x) external pure returns (int64) {
        return Products.chunk(weights, x);
    }

    /// @notice MATMUL, one element from its partial sums.
    function product(bytes calldata partials, int32 shift) external pure returns (int32) {
        return Products.product(partials, shift);
    }

    /// @notice SCORE, one partial sum.
    function chunkOfRecords(bytes calldata query, bytes calldata key) external pure returns (int64) {
        return Products.chunkOfRecords(query, key);
    }

    /// @notice SCORE, one element from its partial sums.
    function score(bytes calldata partials, uint8 fraction, uint32 factor) external pure returns (int32) {
        return Attention.score(partials, fraction, factor);
    }

    /// @notice SMAX, the lowest level of the first tree.
    function largestScore(bytes calldata scores, uint256 count) external pure returns (int64) {
        return Attention.largestScore(scores, count);
    }

    /// @notice SMAX, the lowest level of the second tree.
    function weightSum(bytes calldata scores, uint256 count, int64 largest) external pure returns (uint256) {
        return Attention.weightSum(scores, count, largest);
    }

    /// @notice PSB, one element from the scales of its block.
    function blockShift(Block calldata b, bytes calldata scales) external pure returns (uint256) {
        return Attention.blockShift(b, scales);
    }

    /// @notice PVOUT, the sum of one block from its values.
    function blockSum(Block calldata b, uint64 shift, bytes calldata values) external pure returns (int64) {
        return Attention.blockSum(b, shift, values);
    }

    /// @notice PVOUT, one element from the sums of its blocks.
    function attend(bytes calldata sums, uint64 weights, uint8 fractionIn, uint8 fractionOut)
        external
        pure
        returns (int32)
    {
        return Attention.attend(sums, weights, fractionIn, fractionOut);
    }

    /// @notice SMPL, one adjusted logit.
    function adjust(int32 logit, Penalties calldata penalties, Hits calldata hits, int32 bias)
        external
        pure
        returns (int32)
    {
        return Sampling.adjust(logit, penalties, hits, bias);
    }

    /// @notice SMPL, the lowest level of the tree of keys.
    function bestKey(bytes calldata logits, uint256 count, uint32 first) external pure returns (int64) {
        return Sampling.bestKey(logits, count, first);
    }

    /// @notice The token and the logit that a key stands for.
    function keyToken(int64 key) external pure returns (uint32 token, int32 logit) {
        return Sampling.keyToken(key);
    }

    /// @notice SMPL, the lowest level of the tree of ranks.
    function rank(bytes calldata logits, uint256 count, int32 threshold) external pure returns (uint64) {
        return Sampling.rank(logits, count, threshold);
    }

    /// @notice SMPL, the check of topK.
    function isKth(uint64 ranks, uint32 topK) external pure returns (bool) {
        return Sampling.isKth(ranks, topK);
    }

    /// @notice The heat of a logit.
    function heat(int32 logit, uint32 invT) external pure returns (int64) {
        return Sampling.heat(logit, invT);
    }

    /// @notice SMPL, the lowest level of a tree of masses.
    function mass(bytes calldata logits, uint256 count, Kept calldata kept) external pure returns (uint64) {
        return Sampling.mass(logits, count, kept);
    }

    /// @notice SMPL, the check of topP.
    function isNucleus(uint64 above, uint64 from, uint64 all, uint32 topP) external pure returns (bool) {
        return Sampling.isNucleus(above, from, all, topP);
    }

    /// @notice TOKEN, the first word.
    function mark(uint64 uniform_, uint64 mass_) external pure returns (uint64) {
        return Sampling.mark(uniform_, mass_);
    }

    /// @notice TOKEN, one level down.
    function draw(bytes calldata words, uint256 count, uint64 mark_) external pure returns (uint32 index, uint64 rest) {
        return Sampling.draw(words, count, mark_);
    }

    /// @notice TOKEN, the last word.
    function drawToken(bytes calldata logits, uint256 count, Kept calldata kept, uint64 mark_)
        external
        pure
        returns (uint32)
    {
        return Sampling.drawToken(logits, count, kept, mark_);
    }

    /// @notice TOKEN, the check of the answer.
    function link(uint64 drawn, uint32 answered) external pure returns (bool) {
        return Endings.link(drawn, answered);
    }

    /// @notice STATE.
    function state(bytes32 before, uint32 token, bytes calldata hidden) external pure returns (bytes32) {
        return Endings.state(before, token, hidden);
    }

    /// @notice The key of an order's random numbers.
    function drawKey(bytes32 seed, bytes32 model, bytes32 prompt, bytes32 sampler) external pure returns (bytes32) {
        return Endings.drawKey(seed, model, prompt, sampler);
    }

    /// @notice The number that an output token is drawn with.
    function uniform(bytes32 key, uint32 index) external pure returns (uint64) {
        return Endings.uniform(key, index);
    }

    /// @notice FINISH: 0 an end token, 1 a stop sequence, 2 length, 255 the answer goes on.
    function finish(bytes calldata tail, uint32 length, uint32[] calldata eos, bytes calldata stops, uint32 tokensMax)
        external
        pure
        returns (uint8)
    {
        return Endings.finish(tail, length, eos, stops, tokensMax);
    }

    /// @notice Leaves of an op.
    function leaves(uint32 kind, uint32 outputs, uint32 terms, Extent calldata extent) external pure returns (uint256) {
        return Layouts.leaves(kind, outputs, terms, extent);
    }

    /// @notice Leaves of a radix tree over so many elements.
    function treeLeaves(uint64 elements) external pure returns (uint256) {
        return Layouts.treeLeaves(elements);
    }

    /// @notice What a word of a radix tree joins.
    function treeWord(uint64 elements, uint64 leaf, uint8 word)
        external
        pure
        returns (uint256 level, uint256 read, uint256 joined)
    {
        return Layouts.treeWord(elements, leaf, word);
    }

    /// @notice The root that an opened leaf leads to. A place of a trace has the index (position, op, leaf), in as many
    /// bits as the trees of positions, ops and leaves are deep.
    function root(bytes calldata data, uint256 index, bytes32[] calldata proof) external pure returns (bytes32) {
        return Openings.root(data, index, proof);
    }
}
