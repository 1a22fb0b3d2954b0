// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {StepLeaf} from "./Steps.sol";

/// @notice What judges need of a manifest.
struct Spec {
    bytes32 weights;
    bytes32 program;
    bytes32 rope;
    /// Merkle root over the tensor table: leaf i is keccak256(0x00 ‖ abi.encode(tensor i)).
    bytes32 tensors;
    /// keccak256 of the end tokens, 32 bits each.
    bytes32 eos;
    /// Leaves of the weight tree.
    uint64 weightLeaves;
    uint32 tensorCount;
    /// Steps of the program.
    uint32 steps;
    uint32 width;
    uint32 heads;
    uint32 kvHeads;
    uint32 headDim;
    uint32 vocab;
    uint32 context;
    uint32 attentionQ30;
    uint32 normEps;
    /// Whether elements i and i + headDim/2 turn together, rather than 2i and 2i + 1.
    bool halves;
}

/// @notice What an order, its sampler and a receipt say, and the model that they name.
/// @dev A dispute keeps keccak256(abi.encode(facts)); whoever moves brings the facts along.
struct Facts {
    /// The order's digest.
    bytes32 order;
    /// Roots over the token ids of prompt and output.
    bytes32 prompt;
    bytes32 output;
    /// The receipt's last state.
    bytes32 state;
    /// Key of the order's random numbers.
    bytes32 drawKey;
    uint32 promptTokens;
    uint32 outputTokens;
    // The sampler, but its seed.
    uint32 invT_q16;
    uint32 topK;
    uint32 topP_q16;
    uint32 minP_q16;
    uint32 rep_q16;
    int32 freq_q16;
    int32 pres_q16;
    bytes32 bias;
    Spec spec;
}

/// @notice What is doubted about the leaf that a challenger names.
enum Doubt {
    /// One of its elements.
    Element,
    /// TOKEN: that the drawn token is the one that was answered.
    Link,
    /// SMPL: that the threshold of top-k is the k-th largest logit.
    Kth,
    /// SMPL: that the threshold of top-p leaves just enough mass.
    Nucleus,
    /// STATE of the last position: that it is the receipt's.
    FinalState
}

/// @notice The one number of a trace that a dispute has come down to, and all of the model that judging it needs.
/// @dev A dispute keeps its hash; whoever moves brings it along.
struct Focus {
    uint32 position;
    uint32 op;
    uint64 leaf;
    uint8 element;
    Doubt doubt;
    /// Levels of the tree over positions, and of the one over ops.
    uint8 positionDepth;
    uint8 opDepth;
    /// The leaf's hash in the committed trace.
    bytes32 node;
    /// The root of the leaf's position.
    bytes32 here;
    /// The step that the op carries out.
    StepLeaf step;
    /// Root and depth of the weight tree, and where the step's tensor begins in it; zero without a tensor.
    bytes32 weights;
    uint8 weightDepth;
    uint64 tensorLeaf;
}

/// @notice One leaf, or a run of leaves, with the siblings from there up.
struct Opening {
    bytes data;
    bytes32[] proof;
}

/// @notice A list that the defender revealed, and the entry that the challenger doubts.
struct Round {
    bytes list;
    uint32 entry;
}

/// @notice Decides whether what stands at a focus is right.
/// @dev Trust: none; views over what is handed in. Reverts where an opening is not what the rule reads, or holds what
/// no rule can have produced.
interface IJudge {
    /// @dev The arguments lie as those of `IDisputes.prove`, with the trace for the dispute's number.
    /// @param trace The committed root.
    /// @param facts ABI encoding of {Facts}; may be empty where the rule needs none.
    /// @param rounds The lists revealed so far, and the entries chosen.
    /// @param openings The disputed leaf, without siblings, then what the rule reads, in the order of
    /// docs/protocol/dispute.md.
    /// @return right Whether the defender is.
    function judge(
        bytes32 trace,
        Focus calldata focus,
        bytes calldata facts,
        Round[] calldata rounds,
        Opening[] calldata openings
    ) external view returns (bool right);
}
