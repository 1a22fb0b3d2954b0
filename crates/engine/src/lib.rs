//! Answers jobs with tokens.
//!
//! A [`Backend`] takes a [`Job`] and gives a stream of [`Delta`]s; batching, caches and devices are
//! its own affair. [`Native`] computes exact-1 on this machine. [`import`] turns a foreign file
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
mod package;
mod replay;
mod residents;
mod trace;
mod trees;

#[cfg(test)]
mod testing;

pub use job::{Backend, Busy, Delta, Deltas, DeltasSender, Job, Priority};
pub use native::{Figures, Native, NativeConfig};
pub use package::{Loaded, Package, PackageError, Summary};
pub use replay::{ReplayError, logprobs_of, replay};
pub use residents::{Residents, ResidentsConfig, ResidentsError};
pub use trace::{Leaves, Trace, TraceError};
pub use trees::{Trees, WeightProof};
