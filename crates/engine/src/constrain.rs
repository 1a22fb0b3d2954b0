//! Keeps an answer to its grammar.
//!
//! A thread of the answer's own finds out which tokens may come next while the batch computes how
//! likely they are, so that other answers need not wait for it. What it says is a function of the
//! grammar and the tokens so far; when it says it changes nothing.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use assay_text::{Grammar, GrammarError};

/// Stack of the thread: grammars nest, and are walked by recursion.
const STACK_BYTES: usize = 16 << 20;

/// The tokens that may come next, for one answer.
pub(crate) struct Constraint {
    tokens: Sender<u32>,
    allowed: Receiver<Result<Vec<u32>, GrammarError>>,
}

impl Constraint {
    /// Begins to look at what the first token may be. The thread ends with the constraint.
    pub(crate) fn start(grammar: Grammar) -> Result<Self, GrammarError> {
        let (tokens, drawn) = mpsc::channel();
        let (found, allowed) = mpsc::channel();
        thread::Builder::new()
            .name("assay-grammar".into())
            .stack_size(STACK_BYTES)
            .spawn(move || follow(grammar, &drawn, &found))
            .map_err(|error| GrammarError::Stack { reason: error.to_string() })?;
        Ok(Self { tokens, allowed })
    }

    /// The tokens that may come next, ascending; asked once for each token.
    pub(crate) fn allowed(&self) -> Result<Vec<u32>, GrammarError> {
        let gone = || GrammarError::Refused { reason: "its thread broke".into() };
        self.allowed.recv().unwrap_or_else(|_| Err(gone()))
    }

    /// Goes on by `token`.
    pub(crate) fn push(&self, token: u32) {
        // A thread that has ended has said why, or is not asked again.
        let _ = self.tokens.send(token);
    }
}

/// Answers until the answer ends, nobody asks any more, or it cannot go on.
fn follow(
    mut grammar: Grammar,
    drawn: &Receiver<u32>,
    found: &Sender<Result<Vec<u32>, GrammarError>>,
) {
    loop {
        let allowed = grammar.allowed();
        let is_stuck = allowed.is_err();
        if found.send(allowed).is_err() || is_stuck {
            return;
        }
        let Ok(token) = drawn.recv() else { return };
        if let Err(error) = grammar.push(token) {
            // The one who draws looks at this only if it draws on.
            let _ = found.send(Err(error));
            return;
        }
    }
}
