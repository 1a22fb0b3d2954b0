//! The sampler and the draw at one position: what choosing a token computes, as a judge reads it.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::HashMap;

use assay_evidence::op::{
    self, Claim, FixedLeaf, Hits, Kept, RuleError, WideLeaf, adjust, best_key, heat,
};
use assay_kernels::reference::exp2neg;

use super::leaves::Leaves;
use super::radix::{RADIX, Radix, maximum_signed, total};

/// Fraction bits of a token's weight.
const WEIGHT_BITS: u8 = 30;
/// Candidates that are brought into order first; nearly all weight is usually in as few.
const LIKELIEST: usize = 64;

/// The sampler at one position.
pub(super) struct Sampling<'a> {
    claim: &'a Claim<'a>,
    position: u32,
    /// The logits that are sampled.
    logits: Cow<'a, [i32]>,
    /// What finds the largest one.
    keys: Radix,
    /// That one.
    best: i32,
}

/// What the sampler leaves to draw from.
pub(super) struct Drawable {
    filters: Kept,
    masses: Radix,
}

/// A token and its weight.
#[derive(Clone, Copy)]
struct Candidate {
    heat: i64,
    weight: u32,
}

impl<'a> Sampling<'a> {
    /// Of the logits that a position gave.
    pub(super) fn new(
        claim: &'a Claim<'a>,
        position: u32,
        logits: &'a [i32],
    ) -> Result<Self, RuleError> {
        let logits = adjusted(claim, position, logits)?;
        let keys = (0..).zip(logits.chunks(RADIX)).map(|(leaf, logits)| {
            let key = best_key(&padded(logits), logits.len(), RADIX as u32 * leaf)?;
            Ok(key.cast_unsigned())
        });
        let keys = Radix::new(keys.collect::<Result<_, RuleError>>()?, maximum_signed);
        let (_, best) = op::key_token(keys.top().cast_signed());
        Ok(Self { claim, position, logits, keys, best })
    }

    /// SMPL, and what is left to draw from; nothing where the choice is greedy.
    pub(super) fn write(&self) -> (Leaves, Option<Drawable>) {
        let (choice, sampling) = (self.claim.choice, self.claim.sampling());
        let mut leaves = Leaves::default();
        if sampling.adjusted {
            leaves.push_fixed(&self.logits);
        }
        self.keys.write(&mut leaves);
        if sampling.greedy {
            return (leaves, None);
        }
        let mut least = i64::MIN;
        if sampling.top_k {
            let threshold = self.kth();
            leaves.push_wide(&[i64::from(threshold).cast_unsigned()]);
            self.ranks(threshold).write(&mut leaves);
            least = heat(threshold, choice.inv_t_q16);
        }
        let (all, mut above) = (least, least);
        if sampling.top_p {
            let kept = self.candidates().filter(|candidate| candidate.heat >= least);
            let threshold = nucleus(kept.collect(), choice.top_p_q16);
            leaves.push_wide(&[threshold.cast_unsigned()]);
            (above, least) = (threshold.saturating_add(1), threshold);
        }
        let least_weight = choice.min_p_q16 << 14;
        let [above, from, all, masses] = self.masses([above, least, all], least_weight);
        if sampling.top_p {
            [above, from, all].iter().for_each(|tree| tree.write(&mut leaves));
        }
        masses.write(&mut leaves);
        let (inv_t_q16, best) = (choice.inv_t_q16, self.best);
        let filters = Kept { inv_t_q16, best, least_heat: least, least_weight };
        (leaves, Some(Drawable { filters, masses }))
    }

    /// The threshold of top-k, which satisfies its check, as [`op::advice`] gives it.
    fn kth(&self) -> i32 {
        let mut logits = self.logits.to_vec();
        let kth = self.claim.choice.top_k as usize - 1;
        let (_, threshold, _) = logits.select_nth_unstable_by_key(kth, |logit| Reverse(*logit));
        *threshold
    }

    /// TOKEN, and the token that it names.
    pub(super) fn token(&self, drawable: Option<&Drawable>) -> Result<(Leaves, u32), RuleError> {
        let mut leaves = Leaves::default();
        let words = match drawable {
            Some(drawable) => self.draw(drawable)?,
            None => vec![op::key_token(self.keys.top().cast_signed()).0.into()],
        };
        leaves.push_wide(&words);
        // Token ids are below 2^31.
        Ok((leaves, words[words.len() - 1] as u32))
    }

    /// The walk from the top of all masses down to one token.
    fn draw(&self, drawable: &Drawable) -> Result<Vec<u64>, RuleError> {
        let Drawable { filters, masses } = drawable;
        let index = self.claim.index(self.position).unwrap_or_default();
        let mut rest = op::mark(op::uniform(self.claim.draw_key, index), masses.top());
        let (mut words, mut node) = (vec![rest], 0);
        for level in masses.levels.iter().rev().skip(1) {
            let below = &level[RADIX * node..];
            let below = &below[..below.len().min(RADIX)];
            let mut leaf = WideLeaf([0; RADIX]);
            leaf.0[..below.len()].copy_from_slice(below);
            let (child, left) = op::draw(&leaf, below.len(), rest)?;
            (node, rest) = (RADIX * node + child as usize, left);
            words.extend([node as u64, rest]);
        }
        let logits = &self.logits[RADIX * node..];
        let logits = &logits[..logits.len().min(RADIX)];
        let last = op::draw_token(&padded(logits), logits.len(), filters, rest)?;
        words.push((RADIX * node) as u64 + u64::from(last));
        Ok(words)
    }

    /// Every token with its weight.
    fn candidates(&self) -> impl Iterator<Item = Candidate> {
        let inv_t_q16 = self.claim.choice.inv_t_q16;
        let best = heat(self.best, inv_t_q16);
        self.logits.iter().map(move |logit| {
            let heat = heat(*logit, inv_t_q16);
            Candidate { heat, weight: exp2neg(best.abs_diff(heat), WEIGHT_BITS) }
        })
    }

    /// How many logits lie above a threshold, and how many at it or above.
    fn ranks(&self, threshold: i32) -> Radix {
        let rank =
            |logit: &i32| u64::from(*logit > threshold) << 32 | u64::from(*logit >= threshold);
        let leaf = |logits: &[i32]| logits.iter().map(rank).sum();
        Radix::new(self.logits.chunks(RADIX).map(leaf).collect(), total)
    }

    /// The mass from each of three heats on, and what is drawn from: the mass from the second on of
    /// tokens that have at least `least_weight`.
    fn masses(&self, least: [i64; 3], least_weight: u32) -> [Radix; 4] {
        let leaves = self.logits.len().div_ceil(RADIX);
        let mut sums = [(); 4].map(|()| vec![0; leaves]);
        for (token, Candidate { heat, weight }) in self.candidates().enumerate() {
            let mut count = |tree: usize, counts: bool| {
                sums[tree][token / RADIX] += if counts { u64::from(weight) } else { 0 };
            };
            least.iter().enumerate().for_each(|(tree, least)| count(tree, heat >= *least));
            count(3, heat >= least[1] && weight >= least_weight);
        }
        sums.map(|sums| Radix::new(sums, total))
    }
}

/// The logits that are sampled: as they are, or with penalties and biases.
fn adjusted<'a>(
    claim: &Claim<'_>,
    position: u32,
    logits: &'a [i32],
) -> Result<Cow<'a, [i32]>, RuleError> {
    if !claim.sampling().adjusted {
        return Ok(Cow::Borrowed(logits));
    }
    let mut changes: HashMap<u32, (Hits, i32)> = HashMap::new();
    let inputs = claim.prompt.iter().chain(claim.output).take(position as usize + 1);
    for (at, token) in inputs.enumerate() {
        let (hits, _) = changes.entry(*token).or_default();
        if at < claim.prompt.len() { hits.prompt += 1 } else { hits.output += 1 }
    }
    for (token, bias) in &claim.choice.bias {
        changes.entry(*token).or_default().1 = *bias;
    }
    // A token that was neither seen nor biased keeps its logit.
    let mut logits = logits.to_vec();
    for (token, (hits, bias)) in changes {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit = adjust(*logit, &claim.choice.penalties, hits, bias)?;
        }
    }
    Ok(Cow::Owned(logits))
}

/// At most 32 numbers as a rule reads them.
fn padded(values: &[i32]) -> FixedLeaf {
    let mut leaf = [0; RADIX];
    leaf[..values.len()].copy_from_slice(values);
    FixedLeaf(leaf)
}

/// The threshold of top-p, which satisfies its check, as [`op::advice`] gives it: the largest heat
/// from which on the candidates hold the given share of all weight. It is that of one of them, so
/// never below what top-k keeps.
fn nucleus(mut candidates: Vec<Candidate>, share_q16: u32) -> i64 {
    let sum = |candidates: &[Candidate]| -> u64 {
        candidates.iter().map(|candidate| u64::from(candidate.weight)).sum()
    };
    let wanted = u128::from(share_q16) * u128::from(sum(&candidates));
    let enough = |weight: u64| u128::from(weight) << 16 >= wanted;
    let mut likeliest = LIKELIEST;
    while likeliest < candidates.len() {
        candidates.select_nth_unstable_by_key(likeliest, |candidate| Reverse(candidate.heat));
        if enough(sum(&candidates[..likeliest])) {
            candidates.truncate(likeliest);
        }
        likeliest *= 8;
    }
    candidates.sort_unstable_by_key(|candidate| Reverse(candidate.heat));
    let mut weight = 0;
    for candidate in &candidates {
        weight += u64::from(candidate.weight);
        if enough(weight) {
            return candidate.heat;
        }
    }
    i64::MIN
}
