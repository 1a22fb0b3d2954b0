// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.24;

/// @notice How the next token is drawn from the logits: integers only, fixed by the buyer.
struct Sampler {
    /// round(2^16 * log2(e) / temperature); zero is greedy.
    uint32 invT_q16;
    /// Keep the k best tokens, ties included; zero keeps all.
    uint32 topK;
    /// Keep the smallest set of best tokens with this share of the weight, in [1, 2^16].
    uint32 topP_q16;
    /// Drop tokens below this share of the best one's weight, at most 2^16.
    uint32 minP_q16;
    /// Divides (multiplies, below zero) logits of tokens already seen, in [2^12, 2^20]; 2^16 is neutral.
    uint32 rep_q16;
    /// Subtracted once per earlier occurrence in the output.
    int32 freq_q16;
    /// Subtracted once if the token occurred in the output.
    int32 pres_q16;
    /// Hash of the token-id sequences that end the answer; zero for none.
    bytes32 stops;
    /// Hash of the per-token logit biases; zero for none.
    bytes32 bias;
    /// Hash of the grammar; zero for none.
    bytes32 grammar;
    /// Seed of the counter-based random numbers.
    bytes32 seed;
    /// Which of several answers to the same request this is.
    uint32 choice;
}
