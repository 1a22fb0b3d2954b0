//! Qwen 2 and 2.5: llama with biases on queries, keys and values, halves of a head turning
//! together in every file.

use assay_kernels::Pairing;

use super::{Biases, Graph, llama};

pub(super) const GRAPH: Graph = Graph {
    name: "qwen2",
    code: 1,
    judged: false,
    biases: Biases::Attention,
    pairing: Some(Pairing::Halves),
    ..llama::GRAPH
};
