//! Why a server is no backend, and why a job of one failed.

use std::time::Duration;

/// Why an external server does not answer a job, or is not taken as a backend at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError {
    /// Nobody answers, or the connection broke.
    #[error("the server at {url} cannot be asked: {reason}")]
    Unreachable {
        /// The server.
        url: String,
        /// What the connection says.
        reason: String,
    },
    /// It refuses a request.
    #[error("the server answers {what} with {status}")]
    Status {
        /// What was asked.
        what: &'static str,
        /// The HTTP status.
        status: u16,
    },
    /// Nothing came for too long.
    #[error("the server gave no {what} within {wait_max:?}")]
    Silent {
        /// What was waited for.
        what: &'static str,
        /// How long.
        wait_max: Duration,
    },
    /// It said more than any honest server would.
    #[error("the server's {what} is longer than {max} bytes")]
    TooLong {
        /// What was read.
        what: &'static str,
        /// Most bytes read.
        max: usize,
    },
    /// What it said is not what such a server says.
    #[error("the server's {what} makes no sense: {reason}")]
    Garbage {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// It gave a token that the model does not have.
    #[error("the server gave token {found}, the model has {vocabulary}")]
    Token {
        /// Its id.
        found: u32,
        /// Ids are below this.
        vocabulary: u32,
    },
    /// It gave more or fewer tokens than it says.
    #[error("the server counts {expected} tokens and gave {found}")]
    Count {
        /// Tokens that came.
        found: u64,
        /// Tokens by its own count.
        expected: u64,
    },
    /// It ended an answer that is not over by the order's rules.
    #[error(
        "the server ended the answer after {found} of at most {max} tokens, for no reason of the order's"
    )]
    Early {
        /// Tokens that came.
        found: usize,
        /// Tokens that were asked for at most.
        max: u32,
    },
    /// A part of the order that it cannot follow.
    #[error("the server's answers have no {what}")]
    Unable {
        /// Which part.
        what: &'static str,
    },
    /// No server that is known here.
    #[error("the server at {url} is neither llama.cpp's nor vLLM")]
    Unknown {
        /// The server.
        url: String,
    },
    /// It tells text, not tokens.
    #[error("{server} tells no token ids, so no receipt can be signed for its answers")]
    NoIds {
        /// What it is.
        server: &'static str,
    },
    /// Its context is too short for the model's offers.
    #[error("the server has a context of {found}, the model is offered with {expected}")]
    Context {
        /// Positions that the server has.
        found: u64,
        /// Positions of the model.
        expected: u32,
    },
    /// It cuts text into other tokens: another model.
    #[error("the server cuts {text:?} into {found:?}, the model into {expected:?}")]
    Tokenizer {
        /// The text.
        text: &'static str,
        /// The server's tokens.
        found: Vec<u32>,
        /// The model's.
        expected: Vec<u32>,
    },
    /// Nothing to compare the server's tokens with.
    #[error("the model has no tokenizer, so nobody can tell that the server has the same")]
    NoTokenizer,
}
