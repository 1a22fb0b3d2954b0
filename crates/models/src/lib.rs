//! Runs models, written in the order the papers draw them.

// What a model is, and how it gets here.
mod binary;
mod blocks;
mod bounds;
pub mod convert;
mod family;
pub mod load;
pub mod rope;
mod shape;
mod tensors;

// Running it.
mod batch;
mod cache;
mod decoder;
mod encoder;
mod logprobs;
mod model;
mod sampler;

// Watching it, and describing it to a judge.
mod float;
mod program;
mod tap;

#[cfg(test)]
mod testing;

pub use batch::{ForwardError, Output, Row};
pub use bounds::ModelError;
pub use cache::{Cache, Page};
pub use decoder::Scratch;
pub use encoder::FRAC_EMBEDDING;
pub use family::{Biases, Family, Graph, Norms};
pub use float::{FloatError, FloatModel};
pub use logprobs::{Logprobs, logprobs};
pub use model::Model;
pub use program::{Step, program};
pub use sampler::{Sampler, SamplerError, Seen};
pub use shape::{
    Experts, FRAC_BIAS, FRAC_GAIN, FRAC_GATE, FRAC_HEAD, FRAC_LOGITS, FRAC_ROUTER, LayerRole,
    Precision, Role, Rope, Shape, Sites, Window,
};
pub use tap::{Op, OpKind, Tap, Values};
pub use tensors::Tensors;
