//! Gemma 3, its text half.
//!
//! ```text
//! x = E[token] · √width
//! per layer:  x += rms(Wo · attend(turn(rms(Wq · n)), turn(rms(Wk · n)), Wv · n))  with n = rms(x)
//!             x += rms(Wdown · (gelu(Wgate · n) ⊙ Wup · n))                        with n = rms(x)
//! logits = Eᵀ · rms(x)
//! ```
//! Five layers of six see a window of recent positions only, and turn by angles of their own
//! ([`crate::Window`]). GGUF files state the gains of norms as they multiply; the published
//! safetensors state them less one.

use assay_kernels::{Activation, Pairing};

use super::{Graph, Norms, llama};

pub(super) const GRAPH: Graph = Graph {
    name: "gemma3",
    code: 3,
    judged: false,
    norms: Norms::Around,
    head_norms: true,
    pairing: Some(Pairing::Halves),
    activation: Activation::GeluTanh,
    scaled_embedding: true,
    ..llama::GRAPH
};
