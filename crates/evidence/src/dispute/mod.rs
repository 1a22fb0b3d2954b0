//! How a dispute is played (`docs/protocol/dispute.md`): what each side shows, and what it says next.
//!
//! Both sides compute; neither is believed. Nothing here knows a chain: what stands on it comes in as
//! an argument, and a move goes out as plain words.

mod advice;
mod challenger;
mod defender;
mod error;
mod exhibits;
mod explain;
mod known;
mod path;
mod signed;
mod standing;
mod subject;
mod trace;

pub use challenger::{Challenger, Next, NoSource, NodeSource, drawn_token};
pub use defender::Defender;
pub use error::NoAnswer;
pub use exhibits::{exhibits, needs_facts};
pub use explain::{Explanation, explain, op_name};
pub use known::Known;
pub use path::{Depths, LEVELS, Way, fan, fold, node};
pub use signed::{Equivocation, contradicts, equivocate, misfinish};
pub use standing::{Fan, Move, Proof, Standing};
pub use subject::{Subject, point_of};
pub use trace::{ModelTrees, Trace};
