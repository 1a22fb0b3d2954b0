//! Rules of the sampler: penalties, thresholds, masses and the draw.

use assay_kernels::reference::{exp2neg, rsh, sat32};

use super::error::{Quantity, RuleError, within};
use super::leaf::{FixedLeaf, WideLeaf};

/// Fraction bits of a token's weight.
const WEIGHT_BITS: u8 = 30;
/// Token ids lie below this, as the registrar's vocabulary bound says.
const TOKENS_MAX: i128 = 1 << 31;

/// What an order's sampler takes from the logits of tokens that were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Penalties {
    /// Divides positive and multiplies other logits, in 2^12..=2^20.
    pub rep_q16: u32,
    /// Taken once per occurrence in the output.
    pub freq_q16: i32,
    /// Taken once if the token occurs in the output.
    pub pres_q16: i32,
}

/// Where a token occurs among the inputs so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// Occurrences in the prompt.
    pub prompt: u32,
    /// Occurrences in the output.
    pub output: u32,
}

/// SMPL, an adjusted logit: repetition, frequency and presence penalties if the token was seen,
/// then the bias (0 for none), clamped to 32 bits after each.
///
/// # Errors
/// If the repetition penalty is not in 2^12..=2^20.
pub fn adjust(logit: i32, penalties: &Penalties, hits: Hits, bias: i32) -> Result<i32, RuleError> {
    let Penalties { rep_q16, freq_q16, pres_q16 } = *penalties;
    let rep = i64::from(within(Quantity::Repetition, rep_q16, 1 << 12, 1 << 20)?);
    let mut adjusted = logit;
    if hits.prompt > 0 || hits.output > 0 {
        let logit = i64::from(logit);
        adjusted = sat32(if logit > 0 { (logit << 16) / rep } else { rsh(logit * rep, 16) });
        // |i32|·u32 stays below 2^63 − 2^31, so a logit more still fits 64 bits.
        adjusted = sat32(i64::from(adjusted) - i64::from(freq_q16) * i64::from(hits.output));
    }
    if hits.output > 0 {
        adjusted = sat32(i64::from(adjusted) - i64::from(pres_q16));
    }
    Ok(sat32(i64::from(adjusted) + i64::from(bias)))
}

/// SMPL, tree of keys: the largest `l_i · 2^32 + (2^32 − 1 − i)` of the first `count` logits, the
/// first of which is that of token `first`.
///
/// # Errors
/// If `count` is not in 1..=32, or a token id is not below 2^31.
pub fn best_key(logits: &FixedLeaf, count: usize, first: u32) -> Result<i64, RuleError> {
    let logits = logits.first(count)?;
    within(Quantity::Token, first, 0, TOKENS_MAX - 32)?;
    let key = |(token, logit): (u32, &i32)| (i64::from(*logit) << 32) + i64::from(u32::MAX - token);
    Ok((first..).zip(logits).map(key).fold(i64::MIN, i64::max))
}

/// The token and the logit that a key stands for.
pub fn key_token(key: i64) -> (u32, i32) {
    (u32::MAX - key as u32, (key >> 32) as i32)
}

/// SMPL, tree of ranks: `#{l > threshold} · 2^32 + #{l ≥ threshold}` of the first `count` logits.
///
/// # Errors
/// If `count` is not in 1..=32.
pub fn rank(logits: &FixedLeaf, count: usize, threshold: i32) -> Result<u64, RuleError> {
    let logits = logits.first(count)?;
    let above = logits.iter().filter(|logit| **logit > threshold).count() as u64;
    let from = logits.iter().filter(|logit| **logit >= threshold).count() as u64;
    Ok((above << 32) + from)
}

/// SMPL, check: whether the threshold of these ranks is the `top_k`-th largest logit.
pub fn is_kth(ranks: u64, top_k: u32) -> bool {
    let (above, from) = (ranks >> 32, ranks & u64::from(u32::MAX));
    above < u64::from(top_k) && u64::from(top_k) <= from
}

/// The heat of a logit: `rsh(logit · inv_t, 16)`, below 2^47 in magnitude.
pub fn heat(logit: i32, inv_t_q16: u32) -> i64 {
    rsh(i64::from(logit) * i64::from(inv_t_q16), 16)
}

/// Which tokens a mass counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Inverse temperature, Q16.
    pub inv_t_q16: u32,
    /// The largest logit.
    pub best: i32,
    /// The least heat that is kept: the largest of the thresholds in force, `i64::MIN` for none.
    pub least_heat: i64,
    /// The least weight that is kept, Q30: minP · 2^14.
    pub least_weight: u32,
}

impl Kept {
    /// The weight of a logit, zero if it is not kept.
    fn weight(&self, logit: i32) -> Result<u64, RuleError> {
        within(Quantity::Logit, logit, i128::MIN, i128::from(self.best))?;
        let z = heat(logit, self.inv_t_q16);
        let best = heat(self.best, self.inv_t_q16);
        let weight = exp2neg(best.abs_diff(z), WEIGHT_BITS);
        let kept = z >= self.least_heat && weight >= self.least_weight;
        Ok(if kept { u64::from(weight) } else { 0 })
    }

    fn weights(&self, logits: &FixedLeaf, count: usize) -> Result<Vec<u64>, RuleError> {
        let logits = logits.first(count)?;
        within(Quantity::LeastWeight, self.least_weight, 0, 1 << 30)?;
        logits.iter().map(|logit| self.weight(*logit)).collect()
    }
}

/// SMPL, tree of masses: the sum of the weights `exp2neg(z_best − z, 30)` of what is kept of the
/// first `count` logits.
///
/// # Errors
/// If `count` is not in 1..=32, the least weight exceeds one, or a logit exceeds the best.
pub fn mass(logits: &FixedLeaf, count: usize, kept: &Kept) -> Result<u64, RuleError> {
    Ok(kept.weights(logits, count)?.iter().sum())
}

/// SMPL, check: whether a threshold is the largest from which on the given share of all mass lies:
/// `above · 2^16 < top_p · all ≤ from · 2^16`.
pub fn is_nucleus(above: u64, from: u64, all: u64, top_p_q16: u32) -> bool {
    let wanted = u128::from(top_p_q16) * u128::from(all);
    u128::from(above) << 16 < wanted && wanted <= u128::from(from) << 16
}

/// TOKEN, where the draw falls: `⌊uniform · mass / 2^64⌋`.
pub fn mark(uniform: u64, mass: u64) -> u64 {
    ((u128::from(uniform) * u128::from(mass)) >> 64) as u64
}

/// TOKEN, one level down: the first of the first `count` words at which their running sum exceeds
/// `mark`, and what is left of the mark before it.
///
/// # Errors
/// If `count` is not in 1..=32, or the words' sum does not exceed `mark`.
pub fn draw(words: &WideLeaf, count: usize, mark: u64) -> Result<(u32, u64), RuleError> {
    walk(words.first(count)?, mark)
}

/// TOKEN, the last level: as [`draw`], over the weights of what is kept of a leaf of logits.
///
/// # Errors
/// As [`mass`], or if the weights' sum does not exceed `mark`.
pub fn draw_token(
    logits: &FixedLeaf,
    count: usize,
    kept: &Kept,
    mark: u64,
) -> Result<u32, RuleError> {
    walk(&kept.weights(logits, count)?, mark).map(|(index, _)| index)
}

fn walk(words: &[u64], mark: u64) -> Result<(u32, u64), RuleError> {
    let mut rest = mark;
    for (index, word) in (0..).zip(words) {
        match rest.checked_sub(*word) {
            Some(less) => rest = less,
            None => return Ok((index, rest)),
        }
    }
    Err(RuleError::OutOfBounds { what: Quantity::Mark, found: i128::from(mark) })
}
