//! How likely the model held a token to be, as integers.
//!
//! The distribution is the model's own: softmax of the logits as they left the model, at temperature
//! one, before penalties, biases, a grammar and every filter. Integer arithmetic only, so whoever
//! computes the logits again gets the same bits.

use std::cmp::Reverse;

use assay_kernels::reference::{exp2neg, rsh, sat32};

/// `round(2^30 · log2(e))`.
const LOG2E_Q30: i64 = 1_549_082_005;
/// `round(2^32 · ln(2))`.
const LN2_Q32: u64 = 2_977_044_472;
/// Fraction bits of a token's weight; the likeliest token weighs `2^30`.
const WEIGHT_BITS: u8 = 30;

/// The natural logarithms of some tokens' probabilities, in `Fx<16>`; none is above zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logprobs {
    /// Of the token that was drawn.
    pub drawn: i32,
    /// Of the likeliest tokens, with their ids: likeliest first, of equals the lower id.
    pub top: Vec<(u32, i32)>,
}

/// The logprobs of `token` and of the `top` likeliest tokens; of all, if there are fewer.
///
/// `logits`: `Fx<16>`, one per token id, untouched by any sampler.
///
/// # Panics
/// If `logits` has no such token.
pub fn logprobs(logits: &[i32], token: u32, top: usize) -> Logprobs {
    let best = logits.iter().copied().max().unwrap_or_default();
    let below = |logit: i32| i64::from(best) - i64::from(logit);
    // Below 2^32 times below 2^31 fits 63 bits.
    let weight = |&logit: &i32| exp2neg(rsh(below(logit) * LOG2E_Q30, 30) as u64, WEIGHT_BITS);
    let total: u64 = logits.iter().map(weight).map(u64::from).sum();
    // The likeliest token alone weighs 2^30, so the sum is one or more.
    let ln_total = ln_q16(total) - ln_q16(1 << WEIGHT_BITS);
    let logprob = |logit: i32| sat32(-below(logit) - ln_total);
    let top = likeliest(logits, top).into_iter().map(|(id, logit)| (id, logprob(logit))).collect();
    Logprobs { drawn: logprob(logits[token as usize]), top }
}

/// The `count` largest logits with their ids, largest first, of equals the lower id first.
fn likeliest(logits: &[i32], count: usize) -> Vec<(u32, i32)> {
    let mut best: Vec<(u32, i32)> = Vec::with_capacity(count + 1);
    for (id, &logit) in (0..).zip(logits) {
        if best.len() == count && best.last().is_none_or(|&(_, least)| logit <= least) {
            continue;
        }
        let place = best.partition_point(|&(_, other)| Reverse(other) <= Reverse(logit));
        best.insert(place, (id, logit));
        best.truncate(count);
    }
    best
}

/// The natural logarithm of a positive number in `Fx<16>`, rounded.
///
/// The binary logarithm comes bit by bit: squaring doubles it, so each square that reaches two
/// gives a one.
fn ln_q16(value: u64) -> i64 {
    let whole = value.ilog2();
    // In [1, 2) with 63 fraction bits.
    let mut power = value << (63 - whole);
    let mut log2_q32 = u64::from(whole) << 32;
    for bit in (0..32).rev() {
        let square = (u128::from(power) * u128::from(power)) >> 63;
        let reaches_two = square >> 64 != 0;
        log2_q32 |= u64::from(reaches_two) << bit;
        power = (square >> u32::from(reaches_two)) as u64;
    }
    let ln_q64 = u128::from(log2_q32) * u128::from(LN2_Q32);
    ((ln_q64 + (1 << 47)) >> 48) as i64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One over `2^16`.
    const STEP: f64 = 1.0 / 65536.0;

    #[test]
    fn equal_tokens_share_the_probability() {
        for count in [1, 2, 4, 1000, 151_936] {
            let found = logprobs(&vec![-77; count], 0, 1);
            let expected = -(count as f64).ln();
            assert!((f64::from(found.drawn) * STEP - expected).abs() <= STEP, "{count}");
            assert_eq!(found.top, [(0, found.drawn)]);
        }
    }

    #[test]
    fn the_likeliest_come_first_and_of_equals_the_lower_id() {
        let ids = |logits: &[i32], top| {
            let top = logprobs(logits, 0, top).top;
            top.into_iter().map(|(id, _)| id).collect::<Vec<_>>()
        };
        assert_eq!(ids(&[3, 9, 9, -1, 12], 3), [4, 1, 2]);
        assert_eq!(ids(&[3, 9, 9, -1, 12], 20), [4, 1, 2, 0, 3]);
        assert!(ids(&[1, 2], 0).is_empty());
    }

    #[test]
    fn known_values() {
        // Logits ln 4, ln 2 and 0 of weights 4, 2 and 1 of 7.
        let found = logprobs(&[90_852, 45_426, 0], 2, 3);
        assert_eq!(found.top, [(0, -36_675), (1, -82_101), (2, -127_527)]);
        assert_eq!(found.drawn, -127_527);
    }

    #[test]
    fn extremes_are_clamped() {
        let found = logprobs(&[i32::MIN, i32::MAX], 0, 2);
        assert_eq!((found.drawn, found.top), (i32::MIN, vec![(1, 0), (0, i32::MIN)]));
    }

    proptest! {
        #[test]
        fn as_floating_point_has_it(logits in proptest::collection::vec(-900_000..900_000i32, 1..400)) {
            let best = f64::from(*logits.iter().max().unwrap_or(&0)) * STEP;
            let total: f64 = logits.iter().map(|&l| (f64::from(l) * STEP - best).exp()).sum();
            let found = logprobs(&logits, 0, 20);
            let top = found.top.iter().copied().chain([(0, found.drawn)]);
            for (id, logprob) in top {
                let expected = f64::from(logits[id as usize]) * STEP - best - total.ln();
                prop_assert!((f64::from(logprob) * STEP - expected).abs() < 2.0 * STEP);
                prop_assert!(logprob <= 0);
            }
            prop_assert!(found.top.is_sorted_by_key(|&(id, logprob)| (Reverse(logprob), id)));
        }
    }
}
