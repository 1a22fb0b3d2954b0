// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.24;

/// @notice The sizes of a model, in elements.
struct Shape {
    uint32 width;
    uint32 layers;
    uint32 heads;
    uint32 kvHeads;
    uint32 headDim;
    uint32 hidden;
    uint32 vocab;
    uint32 context;
}

/// @notice What an implementation may not choose.
struct Arithmetic {
    /// Columns that share one scale, in weights and activations, and in KV records.
    uint8 group;
    uint8 kvGroup;
    /// 0 silu.
    uint8 activation;
    /// 0: elements i and i + headDim/2 turn together; 1: elements 2i and 2i + 1.
    uint8 ropePairing;
    /// round(2^30 * log2(e) / sqrt(headDim)).
    uint32 attentionQ30;
    /// round(eps * 2^(2 * residual)).
    uint32 normEps;
    /// Fraction bits: residual stream, last norm, gate and up, logits, gains of norms.
    uint8 residual;
    uint8 outputNorm;
    uint8 gate;
    uint8 logits;
    uint8 gain;
    /// Six bytes a layer: attention norm, query, value, attention, hidden norm, hidden.
    bytes sites;
}

/// @notice One tensor of a model and where its leaves begin in the weight tree.
struct Tensor {
    /// 1: int8 groups, leaves of 128 columns of a row; 2: fixed point, leaves of 32 values.
    uint8 kind;
    uint32 rows;
    uint32 columns;
    /// Index of the tensor's first leaf.
    uint64 leaf;
}

/// @notice What the model is made of, by commitment.
struct Parts {
    /// Root of the weight tree, over the tensors in order.
    bytes32 weights;
    /// Root of the program: the list of ops of one position.
    bytes32 program;
    /// Root of the RoPE table: per position cosines, then sines, Q30.
    bytes32 rope;
    /// keccak256 of the canonical tokenizer; zero for none.
    bytes32 tokenizer;
    /// keccak256 of the chat template; zero for none.
    bytes32 template;
    /// keccak256 of the licence; zero if unknown.
    bytes32 licence;
    /// SHA-256 of the file that was converted.
    bytes32 source;
    /// Merkle root over the token ids that calibration ran on.
    bytes32 calibration;
}

/// @notice Everything a model id commits to: keccak256(abi.encode(manifest)) is the id.
struct Manifest {
    /// 1: arithmetic profile exact-1.
    uint16 version;
    /// Graph: 0 llama.
    uint8 family;
    Shape shape;
    Arithmetic arithmetic;
    /// Token ids that end an answer, ascending.
    uint32[] eos;
    /// Embedding, each layer's nine, last norm, output unless tied.
    Tensor[] tensors;
    Parts parts;
}
