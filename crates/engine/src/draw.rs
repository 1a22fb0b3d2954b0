//! Draws a job's tokens from their logits: the same code while an answer is made and when it is
//! replayed.

use assay_models::{Sampler, Seen, logprobs};
use assay_protocol::{Draws, Logprobs};
use assay_text::GrammarError;

use crate::constrain::Constraint;
use crate::job::Job;

/// What one answer's next token depends on beside its logits: all that was drawn before.
pub(crate) struct Drawing {
    sampler: Sampler,
    draws: Draws,
    seen: Seen,
    /// Alternatives to give with each token.
    logprobs: Option<u8>,
    constraint: Option<Result<Constraint, GrammarError>>,
    /// Tokens drawn so far.
    drawn: u32,
}

/// An output token.
pub(crate) struct Drawn {
    pub(crate) token: u32,
    /// How likely it was, if the job asks.
    pub(crate) logprobs: Option<Box<Logprobs>>,
}

/// Why an answer cannot go on, though nothing ended it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stuck {
    /// What the grammar allows takes more to find out than it may.
    #[error(transparent)]
    Grammar(#[from] GrammarError),
}

impl Drawing {
    /// Before the first token of `job`.
    pub(crate) fn new(job: &Job) -> Self {
        Self {
            sampler: job.sampler.clone(),
            draws: job.draws,
            seen: Seen::new(&job.prompt),
            logprobs: job.logprobs,
            constraint: job.grammar.clone().map(|grammar| Constraint::start(*grammar)),
            drawn: 0,
        }
    }

    /// Draws the next output token, which from now on is part of the answer. `logits`: one per token
    /// id, as the model gave them; their memory is used.
    pub(crate) fn next(&mut self, logits: &mut [i32]) -> Result<Drawn, Stuck> {
        let raw = self.logprobs.map(|top| (top, logits.to_vec()));
        let uniform = self.draws.uniform(self.drawn, 0);
        let token = match &self.constraint {
            None => self.sampler.choose(logits, &self.seen, uniform),
            Some(constraint) => {
                let constraint = constraint.as_ref().map_err(GrammarError::clone)?;
                let allowed = allowed(constraint, logits.len())?;
                let token = self.sampler.choose_among(logits, &self.seen, &allowed, uniform);
                constraint.push(token);
                token
            }
        };
        self.seen.push(token);
        self.drawn += 1;
        let logprobs = raw.map(|(top, raw)| Box::new(rate(&raw, token, top)));
        Ok(Drawn { token, logprobs })
    }
}

/// The tokens of a vocabulary that may come next, at least one.
fn allowed(constraint: &Constraint, vocabulary: usize) -> Result<Vec<u32>, GrammarError> {
    let mut allowed = constraint.allowed()?;
    allowed.retain(|&token| (token as usize) < vocabulary);
    if allowed.is_empty() {
        return Err(GrammarError::Refused { reason: "no token of the model leads on".into() });
    }
    Ok(allowed)
}

/// The logprobs of `token` by the logits that the model gave.
fn rate(logits: &[i32], token: u32, top: u8) -> Logprobs {
    let found = logprobs(logits, token, usize::from(top));
    Logprobs { token, logprob: found.drawn, top: found.top }
}
