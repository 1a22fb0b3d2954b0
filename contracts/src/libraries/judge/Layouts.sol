// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {Leaves, Quantity} from "./Leaves.sol";

/// @notice The sizes, of model, order and position, that decide how leaves lie.
struct Extent {
    uint32 heads;
    uint32 kvHeads;
    uint32 headDim;
    uint32 vocab;
    /// Positions up to and with this one.
    uint32 attended;
    /// Whether the position produces a token.
    bool answers;
    /// Whether penalties or biases change the logits; the choice is greedy; topK or topP leave something out.
    bool adjusted;
    bool greedy;
    bool topK;
    bool topP;
}

/// @notice Where the numbers of an op lie among its leaves (docs/protocol/trace.md).
library Layouts {
    // Codes of steps, as the program's leaves hold them; one more stands for the chained state.
    uint256 internal constant NORM_STAT_1 = 1;
    uint256 internal constant QUANTISE_1 = 3;
    uint256 internal constant QUANTISE_QUERY = 8;
    uint256 internal constant QUANTISE_KEY = 10;
    uint256 internal constant QUANTISE_VALUE = 11;
    uint256 internal constant SCORE = 12;
    uint256 internal constant SCORE_MAX = 13;
    uint256 internal constant BLOCK_SHIFT = 14;
    uint256 internal constant QUANTISE_ATTENTION = 16;
    uint256 internal constant NORM_STAT_2 = 19;
    uint256 internal constant QUANTISE_2 = 21;
    uint256 internal constant QUANTISE_HIDDEN = 25;
    uint256 internal constant NORM_STAT_FINAL = 28;
    uint256 internal constant QUANTISE_FINAL = 30;
    uint256 internal constant SAMPLE = 32;
    uint256 internal constant TOKEN = 33;
    uint256 internal constant STATE = 34;

    /// Steps that have so many leaves as their vectors have.
    uint256 private constant QUANTISED =
        1 << QUANTISE_1 | 1 << QUANTISE_ATTENTION | 1 << QUANTISE_2 | 1 << QUANTISE_HIDDEN | 1 << QUANTISE_FINAL;
    uint256 private constant STATISTICS = 1 << NORM_STAT_1 | 1 << NORM_STAT_2 | 1 << NORM_STAT_FINAL;

    /// @notice Leaves of an op: what the depth of its tree follows from.
    /// @param kind Code of the step, or {STATE}.
    /// @param outputs Numbers in the step's output, and `terms` that each is computed along, as the program says.
    function leaves(uint256 kind, uint256 outputs, uint256 terms, Extent memory extent)
        internal
        pure
        returns (uint256)
    {
        Leaves.check(Quantity.Kind, int256(kind), 0, int256(STATE));
        if (kind >= NORM_STAT_FINAL && !extent.answers) return 0;
        if (STATISTICS >> kind & 1 == 1) return 2 * treeLeaves(terms) + 1;
        if (QUANTISED >> kind & 1 == 1) return ceil(outputs, 128);
        if (kind == SAMPLE) return _sampling(extent);
        if (kind == TOKEN || kind == STATE) return 1;
        uint256 records = ceil(extent.headDim, 128);
        if (kind == QUANTISE_QUERY) return extent.heads * records;
        if (kind == QUANTISE_KEY || kind == QUANTISE_VALUE) return extent.kvHeads * records;
        if (kind == SCORE) return extent.heads * ceil(extent.attended, 32);
        if (kind == SCORE_MAX) return 2 * extent.heads * treeLeaves(extent.attended);
        if (kind == BLOCK_SHIFT) {
            return uint256(extent.heads) * (extent.headDim / 32) * ceil(ceil(extent.attended, 64), 32);
        }
        return ceil(outputs, 32);
    }

    /// @notice Leaves of a radix tree over so many elements; the last one holds its top.
    function treeLeaves(uint256 elements) internal pure returns (uint256 count) {
        uint256 words = elements;
        do {
            words = ceil(words, 32);
            count += ceil(words, 32);
        } while (words > 1);
    }

    /// @notice What a word of a radix tree joins: its level, the leaf that it reads (on level 0 of the section that is
    /// reduced, above it of the tree), and how many elements of that leaf. A word that only fills up its leaf joins
    /// none.
    function treeWord(uint256 elements, uint256 leaf, uint256 word)
        internal
        pure
        returns (uint256 level, uint256 read, uint256 joined)
    {
        uint256 start;
        uint256 before;
        uint256 below = elements;
        while (true) {
            uint256 words = ceil(below, 32);
            uint256 count = ceil(words, 32);
            if (leaf < start + count) {
                word += 32 * (leaf - start);
                joined = below > 32 * word ? below - 32 * word : 0;
                return (level, before + word, joined < 32 ? joined : 32);
            }
            require(words > 1, NotInTree(leaf, start + count));
            before = start;
            start += count;
            below = words;
            ++level;
        }
    }

    /// @notice n / d, rounded up.
    function ceil(uint256 n, uint256 d) internal pure returns (uint256) {
        return (n + d - 1) / d;
    }

    function _sampling(Extent memory extent) private pure returns (uint256 count) {
        uint256 tree = treeLeaves(extent.vocab);
        count = tree;
        if (extent.adjusted) count += ceil(extent.vocab, 32);
        if (extent.greedy) return count;
        if (extent.topK) count += 1 + tree;
        if (extent.topP) count += 1 + 3 * tree;
        count += tree;
    }
}

/// @notice A tree has no such leaf.
error NotInTree(uint256 leaf, uint256 leaves);
