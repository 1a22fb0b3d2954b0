//! Answers jobs with tokens.
//!
//! A [`Backend`] takes a [`Job`] and gives a stream of [`Delta`]s; batching, caches and devices are
//! its own affair. [`Native`] computes exact-1 on this machine. [`import`] turns a foreign file
//! into a [`Package`] with a model id, and [`replay`] computes an answer again to judge it.

mod commit;
pub mod import;
mod job;
mod native;
mod package;
mod replay;

pub use job::{Backend, Busy, Delta, Deltas, DeltasSender, Job};
pub use native::{Native, NativeConfig};
pub use package::{Loaded, Package, PackageError, Summary};
pub use replay::{ReplayError, replay};
