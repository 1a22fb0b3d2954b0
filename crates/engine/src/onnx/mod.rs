//! Has texts turned into vectors, or told apart, by ONNX models, which rten runs on this machine.
//!
//! Such a model is a graph of floats as its publisher made it, and is not converted: every operator may
//! occur. So nothing of it can be judged on a chain, and its answers are [`Assurance::Scored`]: the receipt
//! binds the vector, and [`OnnxModel::compare`] computes it again where the model is at hand. One text is computed at a
//! time, so what others ask cannot change a bit. Between threads, and between runs, rten gave the same bits
//! in every test; between instruction sets nothing was compared, and nothing is promised.
//!
//! A graph is a foreign program. Its file is looked through before rten reads it ([`survey`]), loops are
//! refused, a text is no longer than the context, and where rten breaks only that job ends. What a graph
//! takes of memory and time beyond that is not bounded here: an operator serves what he has tried.

mod card;
mod compare;
mod error;
mod graph;
mod model;
mod package;
mod survey;
#[cfg(test)]
#[path = "../../tests/support/onnx_writer.rs"]
mod testing;
#[cfg(test)]
mod tests;
mod vector;

use std::error::Error;
use std::num::NonZeroUsize;
use std::sync::Arc;

use assay_protocol::Assurance;

use crate::job::{Backend, Busy, Deltas, Job};
use crate::native::{Figures, Native, NativeConfig, Vectors};
pub use card::Classes;
pub use compare::Comparison;
pub use error::OnnxError;
pub use model::OnnxModel;
pub use package::{OnnxOptions, OnnxPackage, OnnxSummary};
pub use vector::{Pooling, Scores};

/// The backend of an ONNX model. Dropping it stops its thread; streams that are open then close.
pub struct Onnx(Native);

impl Onnx {
    /// Starts the backend's thread. Jobs wait in the queue that `config` gives, served fairly; one is
    /// computed at a time.
    pub fn start(model: Arc<OnnxModel>, config: NativeConfig) -> Self {
        let config = NativeConfig { running_max: NonZeroUsize::MIN, ..config };
        Self(Native::encode(Box::new(Texts(model)), Assurance::Scored, config))
    }
}

impl std::fmt::Debug for Onnx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Onnx").finish_non_exhaustive()
    }
}

impl Backend for Onnx {
    fn assurance(&self) -> Assurance {
        self.0.assurance()
    }

    fn so_far(&self) -> Option<Figures> {
        self.0.so_far()
    }

    fn run(&self, job: Job) -> Result<Deltas, Busy> {
        self.0.run(job)
    }
}

/// Texts, one after the other.
struct Texts(Arc<OnnxModel>);

impl Vectors for Texts {
    fn embed(&mut self, texts: &[&[u32]]) -> Result<Vec<Vec<i32>>, Box<dyn Error + Send + Sync>> {
        texts.iter().map(|text| Ok(self.0.embed(text)?)).collect()
    }

    fn token(&self) -> u32 {
        self.0.vector_token()
    }

    fn reset(&mut self) {}
}
