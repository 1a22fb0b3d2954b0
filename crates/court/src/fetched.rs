//! Models that are not in memory until somebody asks what was computed with them.
//!
//! A [`Desk`] holds one of them at a time, for whoever asks next: disputes and questions of auditors come
//! in rows about the same model.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use assay_engine::{Holder, Package, PackageError, TraceError, WeightProof};
use assay_kernels::Cpu;
use assay_protocol::{Answer, B256, ModelId};

use crate::tracer::{Model, Retraced, Retracer, Tracer};

/// Where models lie open that are read for disputes: one at most.
pub struct Desk {
    cpu: Arc<Cpu>,
    open: Mutex<Option<(ModelId, Arc<Retracer>)>>,
}

impl Desk {
    /// An empty desk, with what computes.
    pub fn new(cpu: Arc<Cpu>) -> Self {
        Self { cpu, open: Mutex::new(None) }
    }

    /// Reads a model, unless it lies here already.
    fn fetch(&self, id: ModelId, path: &Path) -> Result<Arc<Retracer>, PackageError> {
        // A panic while it was locked can have left nothing half-done.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, found)) = open.as_ref().filter(|(found, _)| *found == id) {
            return Ok(Arc::clone(found));
        }
        // Before another is read: only traces that still run hold on to this one.
        *open = None;
        let loaded = Package::read(path)?.load()?;
        if loaded.id != id {
            return Err(PackageError::Altered { what: "manifest", id });
        }
        let retracer = Arc::new(Retracer::new(Arc::new(loaded), Arc::clone(&self.cpu)));
        *open = Some((id, Arc::clone(&retracer)));
        Ok(retracer)
    }
}

/// Shows a model, and computes its answers again, with a package that is read when it is needed.
pub struct Fetched {
    id: ModelId,
    weights: B256,
    path: PathBuf,
    desk: Arc<Desk>,
}

impl Fetched {
    /// The model `id` with this root of its weights, whose package lies at `path`. Nothing is read yet.
    pub fn new(id: ModelId, weights: B256, path: PathBuf, desk: Arc<Desk>) -> Self {
        Self { id, weights, path, desk }
    }

    fn fetch(&self) -> Result<Arc<Retracer>, PackageError> {
        self.desk.fetch(self.id, &self.path)
    }
}

impl Tracer for Fetched {
    fn trace(&self, answer: &Answer) -> Result<Box<dyn Retraced>, TraceError> {
        self.fetch()?.trace(answer)
    }

    fn model(&self) -> Result<Model, TraceError> {
        self.fetch()?.model()
    }

    fn weights(&self) -> B256 {
        self.weights
    }
}

impl Holder for Fetched {
    fn show(&self, index: u64) -> Result<Option<WeightProof>, PackageError> {
        self.fetch()?.trees().show(index)
    }
}
