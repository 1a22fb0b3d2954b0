//! Decides whether a claim is true, from bytes alone.
//!
//! A claim is an [`Answer`](assay_protocol::Answer); the bytes to judge it by are what a model
//! gives when the claimed output is fed back to it, one [`Step`] per output token. Where a claim
//! is disputed, [`op`] judges single numbers of its trace, and [`dispute`] plays the game that leads to one. Where the bytes come from is not this
//! crate's affair: no clock, disk, socket or randomness here.

pub mod dispute;
pub mod op;
mod verdict;

pub use verdict::{Fault, Step, Verdict, check, check_without_model};
