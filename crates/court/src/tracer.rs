//! Who computes an answer again: with the engine, or, in tests, otherwise.

use std::sync::Arc;

use assay_engine::{Loaded, Trace, TraceError, Trees};
use assay_evidence::dispute::{self, ModelTrees};
use assay_evidence::op::Claim;
use assay_kernels::Cpu;
use assay_protocol::{Answer, B256, ModelId};

/// A trace, and what it is a function of.
pub trait Retraced: dispute::Trace + Send + Sync {
    /// Order, tokens and sizes.
    fn claim(&self) -> Claim<'_>;
}

impl Retraced for Trace {
    fn claim(&self) -> Claim<'_> {
        Self::claim(self)
    }
}

/// The trees of a model, to be shown from any thread.
pub type Model = Arc<dyn ModelTrees + Send + Sync>;

/// Computes answers of one model again.
pub trait Tracer: Send + Sync {
    /// The trace of an answer. Takes as long as a prefill of prompt and output: call it where blocking
    /// is allowed.
    ///
    /// # Errors
    /// If the answer is by another model, or does not fit this one.
    fn trace(&self, answer: &Answer) -> Result<Box<dyn Retraced>, TraceError>;

    /// The model's trees.
    ///
    /// # Errors
    /// If the model cannot be read.
    fn model(&self) -> Result<Model, TraceError>;

    /// Root of its weights, as its manifest has it.
    fn weights(&self) -> B256;
}

/// A tracer that computes with a model at hand.
pub struct Retracer {
    loaded: Arc<Loaded>,
    cpu: Arc<Cpu>,
    trees: Arc<Trees>,
    sold_as: ModelId,
}

impl Retracer {
    /// A tracer of answers by `loaded`.
    pub fn new(loaded: Arc<Loaded>, cpu: Arc<Cpu>) -> Self {
        let sold_as = loaded.id;
        Self::passing_as(sold_as, loaded, cpu)
    }

    /// A tracer of answers that were sold as model `sold_as` and computed with another one.
    pub fn passing_as(sold_as: ModelId, loaded: Arc<Loaded>, cpu: Arc<Cpu>) -> Self {
        let trees = Arc::new(Trees::new(Arc::clone(&loaded)));
        Self { loaded, cpu, trees, sold_as }
    }

    /// The trees of the model that it computes with.
    pub fn trees(&self) -> &Arc<Trees> {
        &self.trees
    }
}

impl Tracer for Retracer {
    fn trace(&self, answer: &Answer) -> Result<Box<dyn Retraced>, TraceError> {
        let (loaded, cpu) = (Arc::clone(&self.loaded), Arc::clone(&self.cpu));
        let trace = Trace::compute_as(loaded, cpu, answer, self.sold_as, &mut |_, _| ())?;
        Ok(Box::new(trace))
    }

    fn model(&self) -> Result<Model, TraceError> {
        Ok(Arc::clone(&self.trees) as Model)
    }

    fn weights(&self) -> B256 {
        self.loaded.manifest.parts.weights
    }
}

impl std::fmt::Debug for Retracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retracer").field("sold_as", &self.sold_as).finish_non_exhaustive()
    }
}
