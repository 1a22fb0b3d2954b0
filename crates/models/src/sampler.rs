//! How logits become a token.
//!
//! Everything is integer arithmetic, so the choice can be judged from the logits, the request and
//! one random number. No step needs a sort by definition: thresholds are some logit's value, and
//! the draw walks token ids in ascending order, so a judge can check every step as sums over
//! chunks of the vocabulary.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use assay_kernels::reference::{argmax, exp2neg, rsh, sat32};

/// One in the Q16 numbers of a request.
const ONE_Q16: u32 = 1 << 16;
/// Fraction bits of a token's weight; the likeliest token weighs `2^30`.
const WEIGHT_BITS: u8 = 30;

/// What a request says about choosing tokens. All numbers are integers because they are signed.
///
/// The steps are taken in the order of the fields from `rep_q16` on, then temperature, `top_k`,
/// `top_p_q16`, `min_p_q16`; logits are clamped to 32 bits after each penalty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// `round(2^16 · log2(e) / temperature)`; 0 stands for temperature 0, the greedy choice.
    pub inv_t_q16: u32,
    /// Keep the `k` likeliest tokens, and all that tie with the last of them; 0 keeps all.
    pub top_k: u32,
    /// Keep the likeliest tokens that together hold this share of what `top_k` left; `2^16` keeps
    /// all.
    pub top_p_q16: u32,
    /// Keep tokens at least this likely relative to the likeliest one; 0 keeps all.
    pub min_p_q16: u32,
    /// Divides positive and multiplies negative logits of tokens in prompt or output; `2^16` is
    /// neutral.
    pub rep_q16: u32,
    /// Taken from a token's logit once for each time it occurs in the output.
    pub freq_q16: i32,
    /// Taken from the logit of every token that occurs in the output.
    pub pres_q16: i32,
    /// Added to the logits of single tokens: id and `Fx<16>`.
    pub bias: Vec<(u32, i32)>,
}

/// Why a request's sampler is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SamplerError {
    /// The repetition penalty would leave the range in which 64 bits suffice.
    #[error("repetition penalty is {found} / 2^16, expected 2^12 to 2^20")]
    Repetition {
        /// The penalty, Q16.
        found: u32,
    },
    /// A share of the probability is more than nothing and at most all of it.
    #[error("top-p is {found} / 2^16, expected 1 to 2^16")]
    TopP {
        /// The share, Q16.
        found: u32,
    },
    /// No token is likelier than the likeliest one.
    #[error("min-p is {found} / 2^16, expected at most 2^16")]
    MinP {
        /// The relative likelihood, Q16.
        found: u32,
    },
    /// The vocabulary lacks a biased token.
    #[error("bias names token {found}, but the vocabulary has {vocab}")]
    Bias {
        /// The token id.
        found: u32,
        /// Number of token ids.
        vocab: usize,
    },
}

/// Which tokens a sequence has seen, and how often each one occurs in its output.
///
/// Repetition looks at prompt and output; frequency and presence look at the output only, as the
/// OpenAI interface defines them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Occurrences in the output; 0 for a token that occurs in the prompt only.
    counts: BTreeMap<u32, u32>,
}

impl Seen {
    /// A sequence that has a prompt and no output yet.
    pub fn new(prompt: &[u32]) -> Seen {
        Seen { counts: prompt.iter().map(|&token| (token, 0)).collect() }
    }

    /// Adds one token of output.
    pub fn push(&mut self, token: u32) {
        let count = self.counts.entry(token).or_default();
        *count = count.saturating_add(1);
    }
}

impl Sampler {
    /// Always the likeliest token, without penalties or bias.
    pub fn greedy() -> Sampler {
        Sampler {
            inv_t_q16: 0,
            top_k: 0,
            top_p_q16: ONE_Q16,
            min_p_q16: 0,
            rep_q16: ONE_Q16,
            freq_q16: 0,
            pres_q16: 0,
            bias: Vec::new(),
        }
    }

    /// Checks the bounds that make every intermediate fit, for a vocabulary of `vocab` tokens.
    ///
    /// # Errors
    /// Names the first number that is out of bounds.
    pub fn check(&self, vocab: usize) -> Result<(), SamplerError> {
        if !(1 << 12..=1 << 20).contains(&self.rep_q16) {
            return Err(SamplerError::Repetition { found: self.rep_q16 });
        }
        if !(1..=ONE_Q16).contains(&self.top_p_q16) {
            return Err(SamplerError::TopP { found: self.top_p_q16 });
        }
        if self.min_p_q16 > ONE_Q16 {
            return Err(SamplerError::MinP { found: self.min_p_q16 });
        }
        match self.bias.iter().find(|(token, _)| *token as usize >= vocab) {
            Some(&(found, _)) => Err(SamplerError::Bias { found, vocab }),
            None => Ok(()),
        }
    }

    /// Chooses the next token from its logits (`Fx<16>`, one per token id) and a uniform random
    /// number, which stands for itself divided by `2^64`.
    ///
    /// The logits are left as penalties and bias made them. A seen or biased token id beyond the
    /// logits has no effect.
    ///
    /// # Panics
    /// If `logits` is empty or the sampler is out of the bounds of [`Sampler::check`].
    pub fn choose(&self, logits: &mut [i32], seen: &Seen, uniform: u64) -> u32 {
        assert!(!logits.is_empty(), "there is no token to choose from");
        self.penalise(logits, seen);
        self.pick(logits, uniform)
    }

    /// Chooses as [`Self::choose`] does, among the `allowed` token ids alone: after penalties and
    /// bias, every other token is left out before temperature and filters are applied.
    ///
    /// `allowed` is ascending, each id once.
    ///
    /// # Panics
    /// As [`Self::choose`], and if no token is allowed or one is beyond the logits.
    pub fn choose_among(
        &self,
        logits: &mut [i32],
        seen: &Seen,
        allowed: &[u32],
        uniform: u64,
    ) -> u32 {
        assert!(!allowed.is_empty(), "there is no token to choose from");
        self.penalise(logits, seen);
        let left: Vec<i32> = allowed.iter().map(|&token| logits[token as usize]).collect();
        allowed[self.pick(&left, uniform) as usize]
    }

    /// The place of the chosen one among `logits` that penalties and bias have changed.
    fn pick(&self, logits: &[i32], uniform: u64) -> u32 {
        let checked = self.check(usize::MAX);
        assert!(checked.is_ok(), "unchecked sampler: {checked:?}");
        if self.inv_t_q16 == 0 {
            return argmax(logits) as u32;
        }
        let mut candidates = self.candidates(logits);
        if self.top_p_q16 < ONE_Q16 {
            let least = nucleus(&candidates, self.top_p_q16);
            candidates.retain(|candidate| candidate.z >= least);
        }
        let least_weight = u64::from(self.min_p_q16) << (u32::from(WEIGHT_BITS) - 16);
        candidates.retain(|candidate| u64::from(candidate.weight) >= least_weight);
        draw(&candidates, uniform)
    }

    /// Applies repetition, frequency and presence penalties and the bias, in this order.
    fn penalise(&self, logits: &mut [i32], seen: &Seen) {
        for (&token, &count) in &seen.counts {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = repeated(*logit, self.rep_q16);
                // |i32| · u32 stays below 2^63 - 2^31, so a logit more still fits 64 bits.
                *logit = sat32(i64::from(*logit) - i64::from(self.freq_q16) * i64::from(count));
                if count > 0 {
                    *logit = sat32(i64::from(*logit) - i64::from(self.pres_q16));
                }
            }
        }
        for &(token, bias) in &self.bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = sat32(i64::from(*logit) + i64::from(bias));
            }
        }
    }

    /// The tokens that `top_k` keeps and whose weight is not zero, in ascending order of id.
    fn candidates(&self, logits: &[i32]) -> Vec<Candidate> {
        let heat = |logit: i32| rsh(i64::from(logit) * i64::from(self.inv_t_q16), 16);
        // Heat grows with the logit, so the k-th largest logit gives the k-th largest heat.
        let best = logits.iter().copied().max().map_or(0, heat);
        let least = kth_largest(logits, self.top_k as usize).map_or(i64::MIN, heat);
        let weight = |z: i64| exp2neg((best - z) as u64, WEIGHT_BITS);
        (0..)
            .zip(logits)
            .map(|(token, &logit)| (token, heat(logit)))
            .filter(|&(_, z)| z >= least)
            .map(|(token, z)| Candidate { token, z, weight: weight(z) })
            .filter(|candidate| candidate.weight > 0)
            .collect()
    }
}

/// A token that may be drawn.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    /// Its id.
    token: u32,
    /// Its logit over the temperature, in `Fx<16>` powers of two; below `2^47` in magnitude.
    z: i64,
    /// Its weight in the draw, Q30.
    weight: u32,
}

/// The repetition penalty makes a seen token less likely whatever the sign of its logit.
fn repeated(logit: i32, rep_q16: u32) -> i32 {
    let (logit, rep) = (i64::from(logit), i64::from(rep_q16));
    sat32(if logit > 0 { (logit << 16) / rep } else { rsh(logit * rep, 16) })
}

/// The `k`-th largest number; none when `k` is 0 or does not leave anything out.
fn kth_largest(numbers: &[i32], k: usize) -> Option<i32> {
    if k == 0 || k >= numbers.len() {
        return None;
    }
    let mut numbers = numbers.to_vec();
    let (_, kth, _) = numbers.select_nth_unstable_by_key(k - 1, |&number| Reverse(number));
    Some(*kth)
}

/// The largest `z` such that the candidates at or above it hold the given share of all weight.
///
/// Only the likeliest candidates are brought into order: usually a few hold nearly all weight.
fn nucleus(candidates: &[Candidate], share_q16: u32) -> i64 {
    let wanted = u128::from(share_q16) * u128::from(total(candidates));
    let enough = |weight: u64| u128::from(weight) << 16 >= wanted;
    let mut ordered = candidates.to_vec();
    let mut size = 64;
    while size < ordered.len() {
        ordered.select_nth_unstable_by_key(size, |candidate| Reverse(candidate.z));
        if enough(total(&ordered[..size])) {
            break;
        }
        size *= 8;
    }
    ordered.truncate(size);
    ordered.sort_unstable_by_key(|candidate| Reverse(candidate.z));
    let mut weight = 0;
    for candidate in &ordered {
        weight += u64::from(candidate.weight);
        if enough(weight) {
            return candidate.z;
        }
    }
    i64::MIN
}

/// Sum of the weights, which vocabularies of up to `2^32` tokens keep below 64 bits.
fn total(candidates: &[Candidate]) -> u64 {
    candidates.iter().map(|candidate| u64::from(candidate.weight)).sum()
}

/// The first candidate, in ascending order of id, at which the sum of weights passes the share
/// `uniform / 2^64` of the total.
fn draw(candidates: &[Candidate], uniform: u64) -> u32 {
    let mark = (u128::from(uniform) * u128::from(total(candidates))) >> 64;
    let mut sum = 0;
    for candidate in candidates {
        sum += u128::from(candidate.weight);
        if sum > mark {
            return candidate.token;
        }
    }
    // The mark is below the total, and the likeliest candidate is never left out.
    unreachable!("no candidate was drawn")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `log2(e)` in Q16: temperature 1.
    const T1: u32 = 94_548;
    /// A logit of this much more doubles a token's weight at temperature 1, to within 2^-16.
    const LN_2: i32 = 45_426;

    fn plain() -> Sampler {
        Sampler { inv_t_q16: T1, ..Sampler::greedy() }
    }

    /// Draws once from the middle of each of `draws` equal parts and counts the tokens.
    fn counts(sampler: &Sampler, logits: &[i32], draws: u64) -> Vec<u64> {
        let mut counts = vec![0; logits.len()];
        for draw in 0..draws {
            let uniform = (2 * draw + 1) * (u64::MAX / (2 * draws));
            let token = sampler.choose(&mut logits.to_vec(), &Seen::default(), uniform);
            counts[token as usize] += 1;
        }
        counts
    }

    /// Tokens that are ever drawn.
    fn support(sampler: &Sampler, logits: &[i32]) -> Vec<usize> {
        let counts = counts(sampler, logits, 4096);
        (0..logits.len()).filter(|&token| counts[token] > 0).collect()
    }

    fn penalised(sampler: &Sampler, logits: [i32; 4], seen: &Seen) -> Vec<i32> {
        let mut logits = logits.to_vec();
        sampler.choose(&mut logits, seen, 0);
        logits
    }

    #[test]
    fn greedy_takes_the_lowest_of_the_best() {
        let token = Sampler::greedy().choose(&mut [3, 9, 9, -1], &Seen::default(), u64::MAX);
        assert_eq!(token, 1);
    }

    #[test]
    fn draws_are_proportional_to_weights() {
        // Heats are exactly 2, 1 and 0 powers of two at this inverse temperature.
        let sampler = Sampler { inv_t_q16: ONE_Q16, ..plain() };
        assert_eq!(counts(&sampler, &[1 << 16, 0, 2 << 16], 7000), [2000, 1000, 4000]);
    }

    #[test]
    fn temperature_flattens() {
        assert_eq!(counts(&plain(), &[LN_2, 0], 3000), [2000, 1000]);
        let half = Sampler { inv_t_q16: 2 * T1, ..plain() };
        assert_eq!(counts(&half, &[LN_2, 0], 5000), [4000, 1000]);
    }

    #[test]
    fn the_smallest_and_largest_random_numbers_draw_the_ends() {
        for (uniform, token) in [(0, 0), (u64::MAX, 2)] {
            let chosen = plain().choose(&mut [5, 5, 5], &Seen::default(), uniform);
            assert_eq!(chosen, token);
        }
    }

    #[test]
    fn extreme_logits_do_not_overflow() {
        let sampler = Sampler { inv_t_q16: u32::MAX, ..plain() };
        assert_eq!(support(&sampler, &[i32::MIN, i32::MAX, i32::MIN]), [1]);
        assert_eq!(support(&sampler, &[i32::MIN; 2]), [0, 1]);
    }

    #[test]
    fn top_k_keeps_ties() {
        let logits = [1, 7, 3, 7, 5, 5];
        for (top_k, kept) in
            [(0, vec![0, 1, 2, 3, 4, 5]), (1, vec![1, 3]), (2, vec![1, 3]), (3, vec![1, 3, 4, 5])]
        {
            assert_eq!(support(&Sampler { top_k, ..plain() }, &logits), kept, "top_k {top_k}");
        }
        assert_eq!(support(&Sampler { top_k: 6, ..plain() }, &logits).len(), 6);
        assert_eq!(support(&Sampler { top_k: u32::MAX, ..plain() }, &logits).len(), 6);
    }

    #[test]
    fn top_p_keeps_the_smallest_set_that_holds_the_share() {
        // Weights 4, 2, 1, 1 of 8.
        let logits = [0, 2 << 16, 1 << 16, 0];
        let p = |eighths: u32, more: u32| Sampler {
            inv_t_q16: ONE_Q16,
            top_p_q16: (eighths << 13) + more,
            ..plain()
        };
        assert_eq!(support(&p(0, 1), &logits), [1]);
        assert_eq!(support(&p(4, 0), &logits), [1]);
        assert_eq!(support(&p(4, 1), &logits), [1, 2]);
        assert_eq!(support(&p(6, 0), &logits), [1, 2]);
        assert_eq!(support(&p(6, 1), &logits), [0, 1, 2, 3]);
        assert_eq!(support(&p(8, 0), &logits), [0, 1, 2, 3]);
    }

    #[test]
    fn top_p_looks_at_what_top_k_left() {
        // Top-k leaves 4 and 2; 4 of 6 is less than three quarters, 4 of 6 more than half.
        let logits = [0, 2 << 16, 1 << 16, 0];
        let sampler = |top_p_q16| Sampler { inv_t_q16: ONE_Q16, top_k: 2, top_p_q16, ..plain() };
        assert_eq!(support(&sampler(3 << 14), &logits), [1, 2]);
        assert_eq!(support(&sampler(43_690), &logits), [1]);
    }

    #[test]
    fn min_p_is_relative_to_the_best() {
        let logits = [0, 2 << 16, 1 << 16, 0];
        let sampler = |min_p_q16| Sampler { inv_t_q16: ONE_Q16, min_p_q16, ..plain() };
        assert_eq!(support(&sampler(1 << 14), &logits), [0, 1, 2, 3]);
        assert_eq!(support(&sampler((1 << 14) + 1), &logits), [1, 2]);
        assert_eq!(support(&sampler(1 << 16), &logits), [1]);
    }

    #[test]
    fn repetition_looks_at_prompt_and_output() {
        let mut seen = Seen::new(&[0, 1]);
        seen.push(2);
        let sampler = Sampler { rep_q16: 2 << 16, ..plain() };
        assert_eq!(penalised(&sampler, [9, -9, 8, 7], &seen), [4, -18, 4, 7]);
    }

    #[test]
    fn frequency_and_presence_look_at_output_only() {
        let mut seen = Seen::new(&[0, 1]);
        for token in [1, 2, 1] {
            seen.push(token);
        }
        let sampler = Sampler { freq_q16: 10, pres_q16: 100, ..plain() };
        assert_eq!(penalised(&sampler, [0; 4], &seen), [0, -120, -110, 0]);
    }

    #[test]
    fn each_penalty_is_clamped_before_the_next() {
        let mut seen = Seen::default();
        seen.push(0);
        // Doubling clamps at the least i32; a negative penalty then lifts it by exactly one.
        let sampler = Sampler { rep_q16: 2 << 16, freq_q16: -1, ..plain() };
        assert_eq!(penalised(&sampler, [i32::MIN, 0, 0, 0], &seen)[0], i32::MIN + 1);
        // The bias comes last: the clamped sum of penalties is what it lifts.
        let bias = vec![(0, 5), (9, 1)];
        let sampler = Sampler { freq_q16: i32::MAX, pres_q16: i32::MAX, bias, ..plain() };
        assert_eq!(penalised(&sampler, [-2, 0, 0, 0], &seen)[0], i32::MIN + 5);
    }

    #[test]
    fn what_is_not_allowed_is_as_good_as_absent() {
        let seen = Seen::new(&[2]);
        let sampler = Sampler { rep_q16: 2 << 16, bias: vec![(4, 3)], ..plain() };
        for greedy in [true, false] {
            let sampler =
                if greedy { Sampler { inv_t_q16: 0, ..sampler.clone() } } else { sampler.clone() };
            for uniform in [0, 1 << 62, u64::MAX] {
                let allowed = [1, 2, 4];
                let chosen =
                    sampler.choose_among(&mut [99, 5, 14, 99, 3], &seen, &allowed, uniform);
                // The repetition penalty halves 14, the bias lifts 3.
                let alone = Sampler { rep_q16: ONE_Q16, bias: Vec::new(), ..sampler.clone() };
                let place = alone.choose(&mut [5, 7, 6], &Seen::default(), uniform);
                assert_eq!(chosen, allowed[place as usize]);
            }
        }
    }

    #[test]
    fn numbers_out_of_bounds_are_named() {
        let check = |sampler: Sampler| sampler.check(10).unwrap_err().to_string();
        assert_eq!(
            check(Sampler { rep_q16: 0, ..plain() }),
            "repetition penalty is 0 / 2^16, expected 2^12 to 2^20"
        );
        assert_eq!(
            check(Sampler { top_p_q16: 0, ..plain() }),
            "top-p is 0 / 2^16, expected 1 to 2^16"
        );
        assert_eq!(
            check(Sampler { min_p_q16: 65_537, ..plain() }),
            "min-p is 65537 / 2^16, expected at most 2^16"
        );
        assert_eq!(
            check(Sampler { bias: vec![(9, 0), (10, 0)], ..plain() }),
            "bias names token 10, but the vocabulary has 10"
        );
        assert_eq!(plain().check(10), Ok(()));
    }

    /// The definition, word for word, with a full sort and no shortcuts.
    fn plainly(sampler: &Sampler, logits: &[i32], uniform: u64) -> u32 {
        if sampler.inv_t_q16 == 0 {
            return argmax(logits) as u32;
        }
        let z: Vec<i64> =
            logits.iter().map(|&l| rsh(i64::from(l) * i64::from(sampler.inv_t_q16), 16)).collect();
        let mut sorted = z.clone();
        sorted.sort_unstable();
        sorted.reverse();
        let m = sorted[0];
        let kept = if sampler.top_k == 0 { z.len() } else { (sampler.top_k as usize).min(z.len()) };
        let theta_k = sorted[kept - 1];
        let w = |z: i64| if z >= theta_k { u128::from(exp2neg((m - z) as u64, 30)) } else { 0 };
        let sum = |theta: i64| z.iter().filter(|z| **z >= theta).map(|z| w(*z)).sum::<u128>();
        let enough = |theta: i64| sum(theta) << 16 >= u128::from(sampler.top_p_q16) * sum(theta_k);
        let theta_p = sorted.iter().copied().find(|theta| enough(*theta)).unwrap();
        let in_set = |z: i64| z >= theta_p && w(z) << 16 >= u128::from(sampler.min_p_q16) << 30;
        let left = |z: i64| if in_set(z) { w(z) } else { 0 };
        let total: u128 = z.iter().map(|z| left(*z)).sum();
        let r = (u128::from(uniform) * total) >> 64;
        let mut prefix = 0;
        for (token, z) in z.iter().enumerate() {
            prefix += left(*z);
            if prefix > r {
                return token as u32;
            }
        }
        panic!("nothing drawn");
    }

    fn request() -> impl Strategy<Value = Sampler> {
        let inv_t = prop_oneof![Just(0), Just(T1), 1..1u32 << 20, any::<u32>()];
        let top_k = prop_oneof![Just(0), Just(1), 0..700u32];
        let top_p = prop_oneof![Just(ONE_Q16), 1..=ONE_Q16];
        let min_p = prop_oneof![Just(0), 0..=ONE_Q16];
        (inv_t, top_k, top_p, min_p).prop_map(|(inv_t_q16, top_k, top_p_q16, min_p_q16)| Sampler {
            inv_t_q16,
            top_k,
            top_p_q16,
            min_p_q16,
            ..Sampler::greedy()
        })
    }

    fn logits() -> impl Strategy<Value = Vec<i32>> {
        let flat = proptest::collection::vec(-300_000..300_000i32, 1..600);
        let tied = proptest::collection::vec((-9..9i32).prop_map(|l| l << 16), 1..600);
        let wild = proptest::collection::vec(any::<i32>(), 1..20);
        prop_oneof![flat, tied, wild]
    }

    proptest! {
        #[test]
        fn shortcuts_change_nothing(
            sampler in request(), logits in logits(), uniform in any::<u64>()
        ) {
            let chosen = sampler.choose(&mut logits.clone(), &Seen::default(), uniform);
            prop_assert_eq!(chosen, plainly(&sampler, &logits, uniform));
        }

        #[test]
        fn one_candidate_is_the_greedy_choice_or_ties_with_it(
            logits in logits(), uniform in any::<u64>()
        ) {
            let sampler = Sampler { top_k: 1, ..plain() };
            let greedy = argmax(&logits);
            let chosen = sampler.choose(&mut logits.clone(), &Seen::default(), uniform) as usize;
            let heat = |l: i32| rsh(i64::from(l) * i64::from(T1), 16);
            prop_assert_eq!(heat(logits[chosen]), heat(logits[greedy]));
        }
    }

    #[test]
    fn golden_vectors_hold() {
        let text = include_str!("../../../tests/vectors/sampler.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        let cases = vectors["cases"].as_array().unwrap();
        assert!(cases.len() >= 20);
        for case in cases {
            let number = |value: &serde_json::Value| value.as_i64().unwrap();
            let list = |value: &serde_json::Value| -> Vec<i64> {
                value.as_array().unwrap().iter().map(number).collect()
            };
            let field = |name: &str| number(&case["sampler"][name]);
            let bias = case["sampler"]["bias"].as_array().unwrap();
            let sampler = Sampler {
                inv_t_q16: field("invT_q16") as u32,
                top_k: field("topK") as u32,
                top_p_q16: field("topP_q16") as u32,
                min_p_q16: field("minP_q16") as u32,
                rep_q16: field("rep_q16") as u32,
                freq_q16: field("freq_q16") as i32,
                pres_q16: field("pres_q16") as i32,
                bias: bias.iter().map(|b| (number(&b[0]) as u32, number(&b[1]) as i32)).collect(),
            };
            let tokens = |name: &str| list(&case[name]).into_iter().map(|t| t as u32);
            let mut seen = Seen::new(&tokens("prompt").collect::<Vec<_>>());
            tokens("output").for_each(|token| seen.push(token));
            let mut logits: Vec<i32> = list(&case["logits"]).iter().map(|l| *l as i32).collect();
            // A string, because 64 bits do not survive every JSON reader.
            let uniform = case["uniform"].as_str().unwrap().parse().unwrap();
            let token = sampler.choose(&mut logits, &seen, uniform);
            assert_eq!(i64::from(token), number(&case["token"]), "{}", case["name"]);
        }
    }
}
