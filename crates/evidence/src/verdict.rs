//! True, or false with the first thing that is wrong.

use assay_protocol::{Answer, AnswerError, B256, Blame, Ending, State};

/// What the model gives at one output position, the claimed output before it taken as given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The token that the order's sampler draws.
    pub token: u32,
    /// Hash of the quantised last-norm vector.
    pub hidden: B256,
}

/// How a claim was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The model gives exactly this answer.
    True,
    /// It does not.
    False(Fault),
}

/// The first thing that is wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The answer contradicts itself; no replay is needed to see it.
    #[error("{0}")]
    Contradiction(AnswerError),
    /// The order does not fit the model, so no answer to it can be right.
    #[error("the order cannot be answered: {reason}")]
    Unanswerable {
        /// What does not fit.
        reason: String,
    },
    /// The sampler draws another token.
    #[error("output token {index} is {claimed}, the model gives {recomputed}")]
    Token {
        /// Position in the output, from zero.
        index: usize,
        /// What the receipt claims.
        claimed: u32,
        /// What the model gives.
        recomputed: u32,
    },
    /// The token is right, but was not computed by this model from this order.
    #[error(
        "output token {index} is right, but its state is not: other weights, another context or another computation produced it"
    )]
    State {
        /// Position in the output, from zero.
        index: usize,
    },
    /// Some state is wrong; the file does not list them, so which one cannot be said.
    #[error(
        "every token is right, but the final state is not: other weights, another context or another computation produced them"
    )]
    FinalState,
    /// The text is not what the tokens spell.
    #[error("the text is not what the output tokens spell, from byte {byte} on")]
    Text {
        /// First byte that differs.
        byte: usize,
    },
}

impl Fault {
    /// The first output token that is wrong, if one can be named.
    pub fn token(&self) -> Option<usize> {
        match self {
            Self::Token { index, .. } | Self::State { index } => Some(*index),
            _ => None,
        }
    }

    /// Whether the provider's own signature convicts it, or the file may have been altered since.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Contradiction(error) => error.blame(),
            _ => Blame::Provider,
        }
    }
}

/// Judges what needs no model: signatures, commitments, finish, price, and the text.
///
/// `spelled` is what the output's text tokens spell ([`Ending::text_len`]), or `None` where no
/// tokenizer is at hand.
pub fn check_without_model(
    answer: &Answer,
    ending: &Ending,
    spelled: Option<&str>,
) -> Result<(), Fault> {
    answer.check(ending).map_err(Fault::Contradiction)?;
    match spelled {
        Some(spelled) if spelled != answer.text => {
            let pairs = spelled.bytes().zip(answer.text.bytes());
            Err(Fault::Text { byte: pairs.take_while(|(a, b)| a == b).count() })
        }
        _ => Ok(()),
    }
}

/// Judges an answer that [`check_without_model`] has let pass, by the steps of a replay. Steps may
/// end at the first whose token differs from the claimed one.
///
/// # Panics
/// If there are fewer steps than output tokens although every token agrees.
pub fn check(answer: &Answer, steps: &[Step]) -> Verdict {
    let given = steps.iter().map(|step| (step.token, step.hidden));
    let states = Answer::states_of(answer.hash(), given);
    let other_state = answer.states.iter().zip(&states).position(|(listed, state)| listed != state);

    let mut claims = answer.output.iter().zip(steps);
    if let Some(index) = claims.position(|(&claimed, step)| claimed != step.token) {
        // A state may have gone wrong while the token still came out right.
        return Verdict::False(match other_state {
            Some(earlier) if earlier < index => Fault::State { index: earlier },
            _ => Fault::Token {
                index,
                claimed: answer.output[index],
                recomputed: steps[index].token,
            },
        });
    }
    assert_eq!(steps.len(), answer.output.len(), "a replay covers the whole output");

    let last = states.last().copied().unwrap_or(State::start(answer.hash()).0);
    match other_state {
        None if last == answer.receipt.state => Verdict::True,
        None => Verdict::False(Fault::FinalState),
        // The provider signed the true last state, so someone else altered the list.
        Some(_) if last == answer.receipt.state => {
            Verdict::False(Fault::Contradiction(AnswerError::States))
        }
        Some(index) => Verdict::False(Fault::State { index }),
    }
}
