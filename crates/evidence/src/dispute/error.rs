//! Why a side has nothing to say.

use assay_protocol::B256;

use super::path::Way;
use crate::op::{Place, RecomputeError, Source};

/// Why a side cannot make the move that it owes: what stands on chain, or what it was given, does
/// not fit its claim or its trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// A trace of this claim has nothing there, or nothing below it.
    #[error("a trace of this claim has nothing {} levels down at {:#x}", .0.depth, .0.turns)]
    Nowhere(Way),
    /// There is no such leaf or element in a trace of this claim.
    #[error("nothing to judge at {place:?}, element {element}")]
    NoElement {
        /// The leaf.
        place: Place,
        /// The element.
        element: u8,
    },
    /// A leaf that has to be opened is not at hand.
    #[error("a leaf is missing: {0:?}")]
    Missing(Source),
    /// The dispute is about another node than this trace has there.
    #[error("the dispute is about node {found}, this trace has {expected}")]
    OtherTrace {
        /// The dispute's.
        found: B256,
        /// This trace's.
        expected: B256,
    },
    /// What is said to be the focus, or a list, is not what the dispute keeps the hash of.
    #[error("focus and lists hash to {found}, the dispute has {expected}")]
    WrongPoint {
        /// The hash of what was brought.
        found: B256,
        /// The dispute's.
        expected: B256,
    },
    /// No number was named yet, or what was named is not known.
    #[error("the number that the dispute is about is not known")]
    NoFocus,
    /// Nodes that were revealed do not hang from the committed root.
    #[error("the nodes revealed {} levels down do not hang from the root", .0.depth)]
    Unhung(Way),
    /// The rule has no such round.
    #[error("the rule has no list after {0} rounds")]
    NoRound(usize),
    /// The model has no such step or tensor.
    #[error("the model has no step {op} that fits the claim")]
    NotInModel {
        /// The step.
        op: u32,
    },
    /// A rule refuses what it reads.
    #[error(transparent)]
    Refused(#[from] RecomputeError),
}
