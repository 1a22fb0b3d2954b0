//! Phi 3: llama, whose files hold queries, keys and values as one matrix, and gate and up as
//! another.

use assay_kernels::Pairing;

use super::{Graph, llama};

pub(super) const GRAPH: Graph = Graph {
    name: "phi3",
    code: 4,
    judged: false,
    pairing: Some(Pairing::Halves),
    fused_attention: true,
    fused_gate: true,
    ..llama::GRAPH
};
