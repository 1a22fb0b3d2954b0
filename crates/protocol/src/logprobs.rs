//! How likely the model held the tokens of an answer to be: what a buyer may ask for beside it.
//!
//! They change no token, so no order names them, and no receipt: whoever has the model computes
//! them again from the logits (`docs/protocol/replay.md`).

use serde::{Deserialize, Serialize};

/// Most alternatives that may be asked for with each token.
pub const LOGPROBS_MAX: u8 = 20;

/// One output token, and how likely the model held it and its likeliest alternatives to be: natural
/// logarithms of probabilities, `Fx<16>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Logprobs {
    /// The token.
    pub token: u32,
    /// Its logprob.
    pub logprob: i32,
    /// The likeliest tokens and their logprobs, likeliest first, of equals the lower id: as many as
    /// were asked for.
    pub top: Vec<(u32, i32)>,
}

/// Why logprobs cannot be a model's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogprobsError {
    /// Another number of alternatives than was asked for.
    #[error("{found} alternatives to a token, expected {expected}")]
    Count {
        /// How many there are.
        found: usize,
        /// How many were asked for, and are there to be had.
        expected: usize,
    },
    /// A token that the model does not have.
    #[error("a logprob of token {found}, which is not below the vocabulary's {vocabulary}")]
    Token {
        /// The token.
        found: u32,
        /// Number of token ids.
        vocabulary: usize,
    },
    /// A probability above one.
    #[error("a logprob above zero: {found} / 2^16")]
    Positive {
        /// The logprob.
        found: i32,
    },
    /// The alternatives are not in order, or one is there twice.
    #[error("the alternatives to a token are not in order")]
    Order,
    /// The drawn token's logprob contradicts those of the alternatives.
    #[error("the logprob of token {token} contradicts its alternatives'")]
    Contradiction {
        /// The token.
        token: u32,
    },
}

impl Logprobs {
    /// Refuses what no model of `vocabulary` tokens says when asked for `asked` alternatives.
    pub fn check(&self, asked: u8, vocabulary: usize) -> Result<(), LogprobsError> {
        let expected = usize::from(asked).min(vocabulary);
        if self.top.len() != expected {
            return Err(LogprobsError::Count { found: self.top.len(), expected });
        }
        let own = (self.token, self.logprob);
        for &(token, logprob) in self.top.iter().chain([&own]) {
            if token as usize >= vocabulary {
                return Err(LogprobsError::Token { found: token, vocabulary });
            }
            if logprob > 0 {
                return Err(LogprobsError::Positive { found: logprob });
            }
        }
        let rank = |&(token, logprob): &(u32, i32)| (-i64::from(logprob), token);
        if !self.top.windows(2).all(|pair| rank(&pair[0]) < rank(&pair[1])) || self.repeats() {
            return Err(LogprobsError::Order);
        }
        let fits = match self.top.iter().find(|(token, _)| *token == self.token) {
            Some(listed) => *listed == own,
            None => self.top.last().is_none_or(|last| rank(last) < rank(&own)),
        };
        if fits { Ok(()) } else { Err(LogprobsError::Contradiction { token: self.token }) }
    }

    fn repeats(&self) -> bool {
        let mut tokens: Vec<u32> = self.top.iter().map(|(token, _)| *token).collect();
        tokens.sort_unstable();
        tokens.windows(2).any(|pair| pair[0] == pair[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(token: u32, logprob: i32, top: &[(u32, i32)], expected: &str) {
        let logprobs = Logprobs { token, logprob, top: top.to_vec() };
        let said = logprobs.check(2, 10).map_or_else(|error| error.to_string(), |()| "ok".into());
        assert_eq!(said, expected);
    }

    #[test]
    fn only_what_a_model_can_say_is_taken() {
        check(3, -1, &[(3, -1), (1, -9)], "ok");
        check(4, -9, &[(3, -1), (1, -9)], "ok");
        check(1, -5, &[(2, -5), (9, -5)], "the logprob of token 1 contradicts its alternatives'");
        check(3, -2, &[(3, -1), (1, -9)], "the logprob of token 3 contradicts its alternatives'");
        check(3, -1, &[(3, -1)], "1 alternatives to a token, expected 2");
        check(
            3,
            -1,
            &[(3, -1), (10, -9)],
            "a logprob of token 10, which is not below the vocabulary's 10",
        );
        check(3, 1, &[(3, 1), (2, -9)], "a logprob above zero: 1 / 2^16");
        check(3, -1, &[(1, -9), (3, -1)], "the alternatives to a token are not in order");
        check(3, -1, &[(3, -1), (3, -9)], "the alternatives to a token are not in order");
        check(3, i32::MIN, &[(1, 0), (2, i32::MIN)], "ok");
    }

    #[test]
    fn a_small_vocabulary_has_fewer() {
        let logprobs = Logprobs { token: 0, logprob: 0, top: vec![(0, 0)] };
        assert_eq!(logprobs.check(20, 1), Ok(()));
    }
}
