//! How the next token is drawn: the buyer's integers, their bounds and their hash.

use alloy_primitives::{B256, Keccak256, keccak256};
use alloy_sol_types::{SolStruct, SolValue};
use serde::{Deserialize, Serialize};

use crate::eip712::sol;

/// How the next token is drawn from the logits. Integers only, so that nothing is left to choose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sampler {
    /// round(2^16 · log2(e) / temperature); zero is greedy.
    #[serde(rename = "invT_q16")]
    pub inv_t_q16: u32,
    /// Keep the k best tokens, ties included; zero keeps all.
    pub top_k: u32,
    /// Keep the smallest set of best tokens with this share of the weight, in [1, 2^16].
    #[serde(rename = "topP_q16")]
    pub top_p_q16: u32,
    /// Drop tokens below this share of the best one's weight, at most 2^16.
    #[serde(rename = "minP_q16")]
    pub min_p_q16: u32,
    /// Repetition penalty, in [2^12, 2^20]; [`NEUTRAL_Q16`] is neutral.
    #[serde(rename = "rep_q16")]
    pub rep_q16: u32,
    /// Subtracted from a logit once per earlier occurrence of its token in the output.
    #[serde(rename = "freq_q16")]
    pub freq_q16: i32,
    /// Subtracted from a logit if its token occurred in the output.
    #[serde(rename = "pres_q16")]
    pub pres_q16: i32,
    /// [`stops_hash`] of the sequences that end the answer; zero for none.
    pub stops: B256,
    /// [`bias_hash`] of the logit biases; zero for none.
    pub bias: B256,
    /// [`grammar_hash`] of the grammar; zero for none.
    pub grammar: B256,
    /// Seed of the random numbers.
    pub seed: B256,
    /// Which of several answers to the same request this is.
    pub choice: u32,
}

/// One, in the 16-bit fractions of a sampler.
pub const NEUTRAL_Q16: u32 = 1 << 16;

/// A sampler that no order may carry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum SamplerError {
    /// A field is outside its range.
    #[error("sampler field {field} is {found}, expected {low} to {high}")]
    Range {
        /// Name of the field.
        field: String,
        /// Value found.
        found: u32,
        /// Lowest allowed.
        low: u32,
        /// Highest allowed.
        high: u32,
    },
}

impl Sampler {
    /// The best token every time.
    pub fn greedy() -> Self {
        Self {
            inv_t_q16: 0,
            top_k: 0,
            top_p_q16: NEUTRAL_Q16,
            min_p_q16: 0,
            rep_q16: NEUTRAL_Q16,
            freq_q16: 0,
            pres_q16: 0,
            stops: B256::ZERO,
            bias: B256::ZERO,
            grammar: B256::ZERO,
            seed: B256::ZERO,
            choice: 0,
        }
    }

    /// Refuses what the rules do not cover.
    pub fn check(&self) -> Result<(), SamplerError> {
        range("topP_q16", self.top_p_q16, 1, NEUTRAL_Q16)?;
        range("minP_q16", self.min_p_q16, 0, NEUTRAL_Q16)?;
        range("rep_q16", self.rep_q16, 1 << 12, 1 << 20)
    }

    /// EIP-712 struct hash, the `sampler` of an order.
    pub fn hash(&self) -> B256 {
        self.word().eip712_hash_struct()
    }

    /// ABI encoding, as contracts take it.
    pub fn encode(&self) -> Vec<u8> {
        self.word().abi_encode()
    }

    fn word(&self) -> sol::sampler::Sampler {
        sol::sampler::Sampler {
            invT_q16: self.inv_t_q16,
            topK: self.top_k,
            topP_q16: self.top_p_q16,
            minP_q16: self.min_p_q16,
            rep_q16: self.rep_q16,
            freq_q16: self.freq_q16,
            pres_q16: self.pres_q16,
            stops: self.stops,
            bias: self.bias,
            grammar: self.grammar,
            seed: self.seed,
            choice: self.choice,
        }
    }

    pub(crate) fn without_seed(&self) -> Self {
        Self { seed: B256::ZERO, ..self.clone() }
    }
}

fn range(field: &str, found: u32, low: u32, high: u32) -> Result<(), SamplerError> {
    if (low..=high).contains(&found) {
        return Ok(());
    }
    Err(SamplerError::Range { field: field.into(), found, low, high })
}

/// Hash of stop sequences: keccak256 over their number, then each one's length and token ids, all
/// 32-bit big-endian; zero for none.
pub fn stops_hash(stops: &[Vec<u32>]) -> B256 {
    if stops.is_empty() {
        return B256::ZERO;
    }
    let mut hasher = Keccak256::new();
    hasher.update(length(stops.len()));
    for stop in stops {
        hasher.update(length(stop.len()));
        stop.iter().for_each(|token| hasher.update(token.to_be_bytes()));
    }
    hasher.finalize()
}

/// Hash of logit biases: keccak256 over token id and bias (`Fx<16>`) of each, 32-bit big-endian;
/// zero for none.
pub fn bias_hash(bias: &[(u32, i32)]) -> B256 {
    if bias.is_empty() {
        return B256::ZERO;
    }
    let mut hasher = Keccak256::new();
    for (token, value) in bias {
        hasher.update(token.to_be_bytes());
        hasher.update(value.to_be_bytes());
    }
    hasher.finalize()
}

/// Hash of a grammar: keccak256 of its text, UTF-8; zero for none.
pub fn grammar_hash(grammar: Option<&str>) -> B256 {
    grammar.map_or(B256::ZERO, keccak256)
}

fn length(count: usize) -> [u8; 4] {
    u32::try_from(count).expect("sequences fit 32-bit counts").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl Fn(&mut Sampler), expected: &str) {
        let mut sampler = Sampler::greedy();
        change(&mut sampler);
        let said = sampler.check().map_or_else(|error| error.to_string(), |()| "ok".into());
        assert_eq!(said, expected);
    }

    #[test]
    fn bounds_are_the_protocols() {
        check(|_| (), "ok");
        check(|s| s.inv_t_q16 = u32::MAX, "ok");
        check(|s| s.rep_q16 = 1 << 12, "ok");
        check(
            |s| s.rep_q16 = (1 << 20) + 1,
            "sampler field rep_q16 is 1048577, expected 4096 to 1048576",
        );
        check(|s| s.top_p_q16 = 0, "sampler field topP_q16 is 0, expected 1 to 65536");
        check(|s| s.min_p_q16 = 65537, "sampler field minP_q16 is 65537, expected 0 to 65536");
        check(|s| s.grammar = B256::repeat_byte(1), "ok");
    }

    #[test]
    fn stop_hashes_tell_splits_apart() {
        assert_ne!(stops_hash(&[vec![1, 2]]), stops_hash(&[vec![1], vec![2]]));
        assert_eq!(stops_hash(&[]), B256::ZERO);
    }
}
