//! What a forward pass computes of attention without ever writing it down: scores, their largest
//! and the sum of their weights, and the shifts of blocks.

use assay_evidence::op::{Claim, Step};
use assay_kernels::reference::{bit_length, exp2neg, score};
use assay_kernels::{BLOCK, GROUP};

use super::leaves::Leaves;
use super::past::Records;
use super::radix::{RADIX, Radix, maximum_signed, total};

/// Fraction bits of attention weights.
const WEIGHT_BITS: u8 = 22;
/// Bits that a scaled weight is brought to.
const NARROW_BITS: u32 = 15;

/// All heads of one layer at one position.
pub(super) struct Heads {
    heads: Vec<Head>,
    /// Heads that share a key and value head.
    group: usize,
    head_dim: usize,
}

/// One head: its view of every attended position.
struct Head {
    scores: Vec<i32>,
    /// Q22.
    weights: Vec<u32>,
    largest: Radix,
    sum: Radix,
}

impl Heads {
    /// The heads of a position that attends to so many, from its queries (all heads one after
    /// another) and the keys.
    pub(super) fn new(
        claim: &Claim<'_>,
        step: &Step,
        (q, scales): (&[i8], &[u16]),
        keys: &Records,
        attended: usize,
    ) -> Self {
        let [heads, kv_heads, head_dim] =
            [claim.model.heads, claim.model.kv_heads, claim.model.head_dim].map(|n| n as usize);
        let group = heads / kv_heads;
        // The manifest's factor is below 2^29, which the model was checked for.
        let factor = claim.model.attention_q30.cast_signed();
        let queries = q.chunks(head_dim).zip(scales.chunks(head_dim / GROUP)).enumerate();
        let heads = queries.map(|(head, query)| {
            let key = |position| keys.head(position, head / group);
            let score = |position| score(dot(query, key(position)), step.frac_in, factor);
            Head::new((0..attended).map(score).collect())
        });
        Self { heads: heads.collect(), group, head_dim }
    }

    /// SCORE.
    pub(super) fn scores(&self) -> Leaves {
        let mut leaves = Leaves::default();
        self.heads.iter().for_each(|head| leaves.push_fixed(&head.scores));
        leaves
    }

    /// SMAX.
    pub(super) fn softmax(&self) -> Leaves {
        let mut leaves = Leaves::default();
        for head in &self.heads {
            head.largest.write(&mut leaves);
            head.sum.write(&mut leaves);
        }
        leaves
    }

    /// PSB.
    pub(super) fn shifts(&self, values: &Records) -> Leaves {
        let mut leaves = Leaves::default();
        for (index, head) in self.heads.iter().enumerate() {
            for group in 0..self.head_dim / GROUP {
                let scale = |position| values.head(position, index / self.group).1[group];
                leaves.push_fixed(&head.shifts(scale));
            }
        }
        leaves
    }
}

impl Head {
    fn new(scores: Vec<i32>) -> Self {
        let best = scores.iter().copied().fold(i32::MIN, i32::max);
        let below = |score: &i32| best.abs_diff(*score).into();
        let weights: Vec<u32> =
            scores.iter().map(|score| exp2neg(below(score), WEIGHT_BITS)).collect();
        let best_of = |scores: &[i32]| {
            let best = scores.iter().fold(i32::MIN, |most, score| most.max(*score));
            i64::from(best).cast_unsigned()
        };
        let sum_of = |weights: &[u32]| weights.iter().map(|weight| u64::from(*weight)).sum();
        Self {
            largest: Radix::new(scores.chunks(RADIX).map(best_of).collect(), maximum_signed),
            sum: Radix::new(weights.chunks(RADIX).map(sum_of).collect(), total),
            scores,
            weights,
        }
    }

    /// The shift of every block, `scale` being that of the values at a position.
    fn shifts(&self, scale: impl Fn(usize) -> u16) -> Vec<i32> {
        let blocks = self.weights.chunks(BLOCK).enumerate();
        let shift = |(block, weights): (usize, &[u32])| {
            let scaled = weights
                .iter()
                .enumerate()
                .map(|(at, weight)| u64::from(*weight) * u64::from(scale(block * BLOCK + at)));
            bit_length(scaled.fold(0, u64::max)).saturating_sub(NARROW_BITS).cast_signed()
        };
        blocks.map(shift).collect()
    }
}

/// The exact product of a query and a key: `assay_kernels::reference::dot`, with sums of a group in
/// 32 bits.
fn dot((a, a_scales): (&[i8], &[u16]), (b, b_scales): (&[i8], &[u16])) -> i64 {
    let groups = a.as_chunks::<GROUP>().0.iter().zip(b.as_chunks::<GROUP>().0);
    let scales = a_scales.iter().zip(b_scales);
    groups
        .zip(scales)
        .map(|((a, b), (a_scale, b_scale))| {
            let sum: i32 = a.iter().zip(b).map(|(a, b)| i32::from(*a) * i32::from(*b)).sum();
            i64::from(sum) * i64::from(*a_scale) * i64::from(*b_scale)
        })
        .sum()
}
