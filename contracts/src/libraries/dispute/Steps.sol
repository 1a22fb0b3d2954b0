// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// @notice One step of a model's program.
struct Step {
    uint256 kind;
    /// Earlier steps whose outputs are read; {Steps.NONE} for none.
    uint256[4] inputs;
    /// The tensor that is read; {Steps.NONE} for none.
    uint256 tensor;
    /// Numbers in the output.
    uint256 outputs;
    /// Numbers that each is computed along.
    uint256 terms;
    uint256 fractionIn;
    uint256 fractionOut;
}

/// @notice A step as a leaf of the program holds it: 38 bytes in two words.
struct StepLeaf {
    /// Kind, layer, four inputs, tensor, outputs: 32 bits each.
    bytes32 head;
    /// Terms (32 bits), fraction bits in and out (8 bits each).
    bytes6 tail;
}

/// @notice The codes of steps, and how steps are read (docs/protocol/commitments.md).
library Steps {
    uint256 internal constant EMBED = 0;
    uint256 internal constant NORM_STAT_1 = 1;
    uint256 internal constant NORM_1 = 2;
    uint256 internal constant QUERY = 4;
    uint256 internal constant KEY = 5;
    uint256 internal constant VALUE = 6;
    uint256 internal constant ROPE_QUERY = 7;
    uint256 internal constant QUANTISE_QUERY = 8;
    uint256 internal constant ROPE_KEY = 9;
    uint256 internal constant QUANTISE_KEY = 10;
    uint256 internal constant QUANTISE_VALUE = 11;
    uint256 internal constant SCORE = 12;
    uint256 internal constant SCORE_MAX = 13;
    uint256 internal constant BLOCK_SHIFT = 14;
    uint256 internal constant ATTEND = 15;
    uint256 internal constant ATTENTION_OUTPUT = 17;
    uint256 internal constant RESIDUAL_1 = 18;
    uint256 internal constant NORM_STAT_2 = 19;
    uint256 internal constant NORM_2 = 20;
    uint256 internal constant GATE = 22;
    uint256 internal constant UP = 23;
    uint256 internal constant ACTIVATION = 24;
    uint256 internal constant DOWN = 26;
    uint256 internal constant RESIDUAL_2 = 27;
    uint256 internal constant NORM_STAT_FINAL = 28;
    uint256 internal constant NORM_FINAL = 29;
    uint256 internal constant LOGITS = 31;
    uint256 internal constant SAMPLE = 32;
    uint256 internal constant TOKEN = 33;
    /// The chained state, which is no step of the program.
    uint256 internal constant STATE = 34;

    /// Nothing, where a step could name an input or a tensor.
    uint256 internal constant NONE = type(uint32).max;

    /// Steps whose output is quantised: 3, 8, 10, 11, 16, 21, 25, 30.
    uint256 private constant QUANTISED = 1 << 3 | 1 << 8 | 1 << 10 | 1 << 11 | 1 << 16 | 1 << 21 | 1 << 25 | 1 << 30;
    uint256 private constant HEADS = 1 << QUANTISE_QUERY | 1 << QUANTISE_KEY | 1 << QUANTISE_VALUE;
    uint256 private constant STATISTICS = 1 << NORM_STAT_1 | 1 << NORM_STAT_2 | 1 << NORM_STAT_FINAL;
    uint256 private constant NORMS = 1 << NORM_1 | 1 << NORM_2 | 1 << NORM_FINAL;
    uint256 private constant PRODUCTS =
        1 << QUERY | 1 << KEY | 1 << VALUE | 1 << ATTENTION_OUTPUT | 1 << GATE | 1 << UP | 1 << DOWN | 1 << LOGITS;

    /// @notice The fields of a leaf.
    function read(StepLeaf memory leaf) internal pure returns (Step memory step) {
        uint256 head = uint256(leaf.head);
        step.kind = head >> 224;
        for (uint256 i; i < 4; ++i) {
            step.inputs[i] = uint32(head >> (160 - 32 * i));
        }
        step.tensor = uint32(head >> 32);
        step.outputs = uint32(head);
        uint256 tail = uint48(leaf.tail);
        step.terms = tail >> 16;
        step.fractionIn = uint8(tail >> 8);
        step.fractionOut = uint8(tail);
    }

    /// @notice The leaf's hash in the program's tree.
    function hash(StepLeaf memory leaf) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(bytes1(0), leaf.head, leaf.tail));
    }

    /// @notice The code of the step in a leaf.
    function kindOf(StepLeaf memory leaf) internal pure returns (uint256) {
        return uint256(leaf.head) >> 224;
    }

    /// @notice What stands for the chained state where a step is expected.
    function state() internal pure returns (StepLeaf memory) {
        return StepLeaf(bytes32(STATE << 224), 0);
    }

    function isQuantised(uint256 kind) internal pure returns (bool) {
        return QUANTISED >> kind & 1 == 1;
    }

    /// @notice Whether the step quantises head by head.
    function isHeads(uint256 kind) internal pure returns (bool) {
        return HEADS >> kind & 1 == 1;
    }

    function isStatistics(uint256 kind) internal pure returns (bool) {
        return STATISTICS >> kind & 1 == 1;
    }

    function isNorm(uint256 kind) internal pure returns (bool) {
        return NORMS >> kind & 1 == 1;
    }

    function isProduct(uint256 kind) internal pure returns (bool) {
        return PRODUCTS >> kind & 1 == 1;
    }
}
