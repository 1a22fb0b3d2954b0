//! BERT and the sentence transformers made of it: an encoder that gives a text one vector.
//!
//! ```text
//! x = layer(E[token] + P[position] + T[0])
//! per layer:  x = layer(x + Wo · attend(Wq · x + bq, Wk · x + bk, Wv · x + bv) + bo)
//!             x = layer(x + Wdown · gelu(Wup · x + bup) + bdown)
//! text = mean of x over all positions, brought to length one
//! ```
//! Every position sees all others, so a text is computed in one piece.

use assay_kernels::Activation;

use super::{Graph, Norms, gpt2};

pub(super) const GRAPH: Graph = Graph {
    name: "bert",
    code: 6,
    judged: false,
    norms: Norms::After,
    activation: Activation::GeluErf,
    causal: false,
    fused_attention: false,
    ..gpt2::GRAPH
};
