//! A tracer that says how far it is.

use std::sync::Arc;

use assay_court::{Model, Retraced, Tracer};
use assay_engine::{Loaded, Trace, TraceError, Trees};
use assay_kernels::Cpu;
use assay_protocol::{Answer, B256};

use super::{Event, Told};

/// Computes an answer again with the model at hand, and tells of each step.
pub(crate) struct Retrace {
    loaded: Arc<Loaded>,
    cpu: Arc<Cpu>,
    trees: Arc<Trees>,
    told: Told,
}

impl Retrace {
    /// With a model, told to `told`.
    pub(crate) fn new(loaded: Arc<Loaded>, cpu: Arc<Cpu>, told: Told) -> Self {
        let trees = Arc::new(Trees::new(Arc::clone(&loaded)));
        Self { loaded, cpu, trees, told }
    }
}

impl Tracer for Retrace {
    fn trace(&self, answer: &Answer) -> Result<Box<dyn Retraced>, TraceError> {
        let (loaded, cpu) = (Arc::clone(&self.loaded), Arc::clone(&self.cpu));
        let mut tell = |done, total| (self.told)(Event::Tracing { done, total });
        Ok(Box::new(Trace::compute(loaded, cpu, answer, &mut tell)?))
    }

    fn model(&self) -> Result<Model, TraceError> {
        Ok(Arc::clone(&self.trees) as Model)
    }

    fn weights(&self) -> B256 {
        self.loaded.manifest.parts.weights
    }
}
