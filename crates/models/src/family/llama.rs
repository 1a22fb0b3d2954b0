//! Llama, and Mistral's models without a window.
//!
//! ```text
//! x = E[token]
//! per layer:  n = rms(x);  x += Wo · attend(turn(Wq · n), turn(Wk · n), Wv · n)
//!             n = rms(x);  x += Wdown · (silu(Wgate · n) ⊙ Wup · n)
//! logits = Wout · rms(x)
//! ```
//! GGUF files permute queries and keys so that neighbouring elements turn together.

use assay_kernels::{Activation, Pairing};

use super::{Biases, Graph, Norms};

pub(super) const GRAPH: Graph = Graph {
    name: "llama",
    code: 0,
    judged: true,
    centred: false,
    norms: Norms::Before,
    biases: Biases::None,
    head_norms: false,
    pairing: Some(Pairing::Adjacent),
    gated: true,
    routed: false,
    activation: Activation::Silu,
    scaled_embedding: false,
    causal: true,
    fused_attention: false,
    fused_gate: false,
};
