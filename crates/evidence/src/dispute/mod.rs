//! How a dispute is played (`docs/protocol/dispute.md`): what each side shows, and what it says next.
//!
//! Both sides compute; neither is believed. Nothing here knows a chain: what stands on it comes in as
//! an argument, and a move goes out as plain words.

mod trace;

pub use trace::{ModelTrees, Trace};
