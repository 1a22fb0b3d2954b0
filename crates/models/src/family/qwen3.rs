//! Qwen 3: llama with an RMSNorm on every query and key head before it is turned; no biases.
//!
//! Its heads need not share out the width: their size is stated apart.

use assay_kernels::Pairing;

use super::{Graph, llama};

pub(super) const GRAPH: Graph = Graph {
    name: "qwen3",
    code: 2,
    judged: false,
    head_norms: true,
    pairing: Some(Pairing::Halves),
    ..llama::GRAPH
};
