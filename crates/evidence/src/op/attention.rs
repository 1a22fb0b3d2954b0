//! Rules of attention: scores, their softmax, and the weighted mean of the values.

use assay_kernels::BLOCK;
use assay_kernels::reference::{self, WIDE_FRAC, bit_length, exp2neg};

use super::error::{Quantity, RuleError, fraction, within};
use super::leaf::{ActivationLeaf, FixedLeaf, counted};
use super::product::{rsh, sat32};

/// Fraction bits of attention weights.
const WEIGHT_BITS: u8 = 22;
/// Largest weight of a position within a block.
const NARROW_MAX: i128 = 32_767;
/// Shift that brings the largest possible scaled weight, of 37 bits, to 15.
const BLOCK_SHIFT_MAX: i128 = 22;

/// SCORE, one partial sum: the exact product of 128 dimensions of a query and a key.
pub fn chunk_of_records(query: &ActivationLeaf, key: &ActivationLeaf) -> i64 {
    reference::dot((&query.quants, &query.scales), (&key.quants, &key.scales))
}

/// SCORE: `rsh(sat32(rsh(Σ partials, 2·frac_query − 16))·att, 30)`, in `Fx<16>` powers of two.
///
/// # Errors
/// If queries have not 8 to 16 fraction bits, or `att_q30` is not below 2^29.
pub fn score(partials: &[i64], frac_query: u8, att_q30: u32) -> Result<i32, RuleError> {
    let frac = within(Quantity::Fraction, frac_query, 8, 16)?;
    let att = within(Quantity::ScoreFactor, att_q30, 0, (1 << 29) - 1)?;
    let dot = partials.iter().map(|partial| i128::from(*partial)).sum();
    let narrow = sat32(rsh(dot, 2 * i32::from(frac) - i32::from(WIDE_FRAC)));
    Ok(sat32(rsh(i128::from(narrow) * i128::from(att), 30)))
}

/// SMAX, first tree: the largest of the first `count` scores.
///
/// # Errors
/// If `count` is not in 1..=32.
pub fn largest_score(scores: &FixedLeaf, count: usize) -> Result<i64, RuleError> {
    Ok(scores.first(count)?.iter().fold(i64::MIN, |most, z| most.max(i64::from(*z))))
}

/// SMAX, second tree: `Σ exp2neg(largest − z, 22)` over the first `count` scores.
///
/// # Errors
/// If `count` is not in 1..=32, or a score exceeds `largest`.
pub fn weight_sum(scores: &FixedLeaf, count: usize, largest: i64) -> Result<u64, RuleError> {
    scores.first(count)?.iter().map(|z| weight(*z, largest).map(u64::from)).sum()
}

/// The weight of one position, Q22.
fn weight(score: i32, largest: i64) -> Result<u32, RuleError> {
    within(Quantity::Score, score, i128::MIN, i128::from(largest))?;
    Ok(exp2neg(largest.abs_diff(i64::from(score)), WEIGHT_BITS))
}

/// The weights of a block of up to 64 positions, from the two leaves that hold their scores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Q22, one per attended position of the block.
    weights: Vec<u32>,
}

impl Block {
    /// Reads the scores of a block's first `count` positions. The second leaf is empty where the
    /// block has no more than 32.
    ///
    /// # Errors
    /// If `count` is not in 1..=64, a leaf has a wrong length, or a score exceeds `largest`.
    pub fn read(lower: &[u8], upper: &[u8], count: usize, largest: i64) -> Result<Self, RuleError> {
        counted(count, BLOCK)?;
        let lower = FixedLeaf::read(lower)?;
        let mut scores = lower.0.to_vec();
        if count > scores.len() {
            scores.extend(FixedLeaf::read(upper)?.0);
        } else if !upper.is_empty() {
            return Err(RuleError::Length { found: upper.len(), expected: 0 });
        }
        let weights = scores[..count].iter().map(|z| weight(*z, largest));
        Ok(Self { weights: weights.collect::<Result<_, _>>()? })
    }

    /// Positions of the block.
    pub fn count(&self) -> usize {
        self.weights.len()
    }

    /// Weight times scale of every position, below 2^37.
    fn scaled(&self, scales: impl Iterator<Item = u16>) -> impl Iterator<Item = u64> {
        self.weights.iter().zip(scales).map(|(weight, scale)| u64::from(*weight) * u64::from(scale))
    }
}

/// PSB: `max(0, bitlen(max E·sv) − 15)` over a block, for one group of dimensions.
///
/// `scales`: the values' scales at the block's positions, u16 each.
///
/// # Errors
/// If there is not one scale in 1..=32767 per position.
pub fn block_shift(block: &Block, scales: &[u8]) -> Result<u64, RuleError> {
    let entries = entries::<2>(scales, block.count())?;
    let scales = entries.iter().enumerate().map(|(at, entry)| scale(at, *entry));
    let scales: Vec<u16> = scales.collect::<Result<_, _>>()?;
    let largest = block.scaled(scales.into_iter()).fold(0, u64::max);
    Ok(u64::from(bit_length(largest).saturating_sub(15)))
}

/// PVOUT, one block: `(Σ min(32767, rsh(E·sv, shift))·q) << shift` for one dimension.
///
/// `values`: scale (u16) and number (u8, `q ^ 0x80`) of the values at the block's positions.
///
/// # Errors
/// If `shift` is not in 0..=22, or there is not one pair of a scale in 1..=32767 and a number
/// other than −128 per position.
pub fn block_sum(block: &Block, shift: u64, values: &[u8]) -> Result<i64, RuleError> {
    let shift = within(Quantity::BlockShift, shift, 0, BLOCK_SHIFT_MAX)? as i32;
    let entries = entries::<3>(values, block.count())?;
    let (mut scales, mut quants) = (Vec::new(), Vec::new());
    for (at, [high, low, quant]) in entries.iter().enumerate() {
        scales.push(scale(at, [*high, *low])?);
        if *quant == 0 {
            return Err(RuleError::Quant { group: at });
        }
        quants.push(i8::from_be_bytes([quant ^ 0x80]));
    }
    let narrow =
        block.scaled(scales.into_iter()).map(|v| rsh(i128::from(v), shift).min(NARROW_MAX));
    let sum: i64 = narrow.zip(quants).map(|(p, q)| p as i64 * i64::from(q)).sum();
    Ok(sum << shift)
}

/// PVOUT: `sat32(⌊(2·Σ sums + weights)/(2·weights)⌋)` in `Fx<frac_value>`, then shifted to
/// `Fx<frac_out>`.
///
/// # Errors
/// If `weights` is zero, or there are more than 16 fraction bits.
pub fn attend(sums: &[i64], weights: u64, frac_value: u8, frac_out: u8) -> Result<i32, RuleError> {
    let weights = i128::from(within(Quantity::Weights, weights, 1, i128::MAX)?);
    let right = fraction(frac_value)? - fraction(frac_out)?;
    let numerator: i128 = sums.iter().map(|sum| i128::from(*sum)).sum();
    let mean = sat32((2 * numerator + weights).div_euclid(2 * weights));
    Ok(sat32(rsh(i128::from(mean), right)))
}

/// A revealed list of `count` entries of `N` bytes.
fn entries<const N: usize>(bytes: &[u8], count: usize) -> Result<&[[u8; N]], RuleError> {
    match bytes.as_chunks() {
        (entries, []) if entries.len() == count => Ok(entries),
        _ => Err(RuleError::Length { found: bytes.len(), expected: N * count }),
    }
}

fn scale(at: usize, bytes: [u8; 2]) -> Result<u16, RuleError> {
    let found = u16::from_be_bytes(bytes);
    if (1..=reference::SCALE_MAX).contains(&u32::from(found)) {
        return Ok(found);
    }
    Err(RuleError::Scale { group: at, found })
}
