//! Rules of the root-mean-square norm.

use assay_kernels::reference::{self, GAIN_FRAC, bit_length};

use super::error::{Quantity, RuleError, fraction, within};
use super::leaf::FixedLeaf;
use super::product::{rsh, sat32};

/// Widest row that may be normed, as `assay_kernels::NORM_COLUMNS_MAX`.
const WIDTH_MAX: i128 = 1 << 15;

/// NSTAT, first tree: `max |x|` of the first `count` numbers.
///
/// # Errors
/// If `count` is not in 1..=32.
pub fn largest_magnitude(x: &FixedLeaf, count: usize) -> Result<u64, RuleError> {
    Ok(x.first(count)?.iter().map(|v| u64::from(v.unsigned_abs())).fold(0, u64::max))
}

/// NSTAT, second tree: `Σ (x >> shift)²` over the first `count` numbers.
///
/// # Errors
/// If `count` is not in 1..=32 or `shift` not in 0..=8.
pub fn sum_of_squares(x: &FixedLeaf, count: usize, shift: u64) -> Result<u128, RuleError> {
    let x = x.first(count)?;
    let shift = within(Quantity::NormShift, shift, 0, 8)?;
    Ok(x.iter().map(|v| i64::from(v >> shift)).map(|v| (v * v) as u128).sum())
}

/// NSTAT, shift: `max(0, bitlen(largest) − 24)`.
pub fn norm_shift(largest: u64) -> u64 {
    u64::from(bit_length(largest).saturating_sub(24))
}

/// NSTAT, reciprocal root: with `M = ⌊sum/width⌋ + max(1, eps >> 2·shift)` and
/// `c = ⌊(62 − bitlen(M))/2⌋`, the factor `⌊2^61 / isqrt(M << 2c)⌋` and the right shift `41 − c`.
///
/// # Errors
/// If `width` is not in 1..=2^15, `shift` not in 0..=8, or M not below 2^50.
pub fn inverse_root(sum: u64, width: u32, eps_q: u32, shift: u64) -> Result<(u64, u64), RuleError> {
    within(Quantity::Width, width, 1, WIDTH_MAX)?;
    let shift = within(Quantity::NormShift, shift, 0, 8)? as u32;
    let mean = i128::from(sum / u64::from(width)) + i128::from((eps_q >> (2 * shift)).max(1));
    within(Quantity::Mean, mean, 1, (1 << 50) - 1)?;
    let (factor, right) = reference::inverse_root(sum, width as usize, u64::from(eps_q), shift);
    Ok((factor, u64::from(right.unsigned_abs())))
}

/// NORM: `n = rsh((x >> shift)·factor, right)`, then `sat32(rsh(n·gain, 32 − frac_out))`.
///
/// # Errors
/// If shift, factor, right shift or fraction bits are out of bounds, in this order.
pub fn norm(
    x: i32,
    gain: i32,
    shift: u64,
    factor: u64,
    right: u64,
    frac_out: u8,
) -> Result<i32, RuleError> {
    let shift = within(Quantity::NormShift, shift, 0, 8)?;
    let factor = within(Quantity::Factor, factor, 1 << 30, 1 << 31)?;
    let right = within(Quantity::FactorShift, right, 11, 35)?;
    let last = i32::from(GAIN_FRAC) + 20 - fraction(frac_out)?;
    let normed = rsh(i128::from(x >> shift) * i128::from(factor), right as i32);
    Ok(sat32(rsh(normed * i128::from(gain), last)))
}
