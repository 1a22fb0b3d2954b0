//! GPT-2.
//!
//! ```text
//! x = E[token] + P[position]
//! per layer:  n = layer(x);  x += Wo · attend(Wq · n + bq, Wk · n + bk, Wv · n + bv) + bo
//!             n = layer(x);  x += Wdown · gelu(Wup · n + bup) + bdown
//! logits = Eᵀ · layer(x)
//! ```

use assay_kernels::Activation;

use super::{Biases, Graph, llama};

pub(super) const GRAPH: Graph = Graph {
    name: "gpt2",
    code: 5,
    judged: false,
    centred: true,
    biases: Biases::All,
    pairing: None,
    gated: false,
    activation: Activation::GeluTanh,
    fused_attention: true,
    ..llama::GRAPH
};
