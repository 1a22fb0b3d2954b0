//! Why there is no trace.

use assay_evidence::op::RuleError;
use assay_models::{Family, ForwardError};
use assay_protocol::{Assurance, ModelId, OrderError};

use crate::package::PackageError;

/// Why the trace of an answer cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The answer was ordered from another model.
    #[error("the answer is by model {expected}, the model given is {found}")]
    WrongModel {
        /// Model at hand.
        found: ModelId,
        /// Model that the order names.
        expected: ModelId,
    },
    /// No judge knows the arithmetic of the model's family, so nothing can be shown to one.
    #[error(
        "no judge knows models of family {family}: their answers are {offered}, not replayable"
    )]
    Unjudged {
        /// The family.
        family: Family,
        /// What its answers are sold as.
        offered: Assurance,
    },
    /// No judge knows the form of the model's weights.
    #[error(
        "no judge knows weights of four bits: answers of their models are {offered}, not replayable"
    )]
    UnjudgedWeights {
        /// What its answers are sold as.
        offered: Assurance,
    },
    /// The model at hand does not compute what its manifest says.
    #[error("the model's {what} is not the one that the manifest of {id} commits to")]
    Manifest {
        /// Which part.
        what: &'static str,
        /// Whose manifest.
        id: ModelId,
    },
    /// The order is not about the answer's terms.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// No rule judges which tokens a grammar allows.
    #[error("the answer to an order with a grammar has no trace")]
    Grammar,
    /// There is no output token, so no position answers.
    #[error("an answer without a token has no trace")]
    Empty,
    /// More tokens than the model has positions.
    #[error("prompt and output have {found} tokens, but the context is {context}")]
    Context {
        /// Tokens of prompt and output.
        found: usize,
        /// The most a model takes.
        context: u32,
    },
    /// A token of the prompt that the model does not have.
    #[error("prompt token {found} is not in a vocabulary of {vocab}")]
    Token {
        /// The token id.
        found: u32,
        /// Number of token ids.
        vocab: u32,
    },
    /// The model could not be read.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The model could not be run.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// A rule refuses what the model gave, which a model within its bounds never does.
    #[error(transparent)]
    Rule(#[from] RuleError),
}
