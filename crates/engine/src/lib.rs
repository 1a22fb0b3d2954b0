//! Answers jobs with tokens.
//!
//! A [`Backend`] takes a [`Job`] and gives a stream of [`Delta`]s; batching, caches and devices are
//! its own affair. [`Native`] computes exact-1 on this machine; `Remote` (with the feature `remote`) asks an
//! external server, and `Onnx` (with the feature `onnx`) runs foreign graphs that make vectors of texts.
//! [`import`] turns a foreign file
//! into a [`Package`] with a model id, and [`replay`] computes an answer again to judge it. Where an
//! answer is disputed, [`Trace`] shows every number that it was computed from, and [`Trees`] every
//! number of the model.

mod commit;
mod constrain;
mod draw;
mod hashing;
pub mod import;
mod job;
mod native;
#[cfg(feature = "onnx")]
mod onnx;
mod outline;
mod package;
#[cfg(feature = "remote")]
mod remote;
mod replay;
mod residents;
mod trace;
mod trees;

#[cfg(test)]
mod testing;

pub use job::{Backend, Busy, Delta, Deltas, DeltasSender, Job, Priority};
pub use native::{Figures, Native, NativeConfig};
#[cfg(feature = "onnx")]
pub use onnx::{
    Classes, Comparison, Onnx, OnnxError, OnnxModel, OnnxOptions, OnnxPackage, OnnxSummary,
    Pooling, Scores,
};
pub use outline::Outline;
pub use package::{Loaded, Package, PackageError, Summary};
#[cfg(feature = "remote")]
pub use remote::{Remote, RemoteConfig, RemoteError};
pub use replay::{ReplayError, logprobs_of, replay};
pub use residents::{Residents, ResidentsConfig, ResidentsError};
pub use trace::{Leaves, Trace, TraceError};
pub use trees::{Holder, Trees, WeightProof};
