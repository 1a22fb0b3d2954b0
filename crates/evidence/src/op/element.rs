//! Rules of single elements: embedding, residual sums, turns, activation, quantisation.

use assay_kernels::reference;
use assay_protocol::LEAF_COLUMNS;

use super::error::{Quantity, RuleError, fraction, within};
use super::leaf::{FixedLeaf, GROUP, WeightLeaf};

/// One in Q30.
const ONE_Q30: i128 = 1 << 30;

/// EMBED: `sat32(rsh(q · sw, clamp(e − frac_residual, −40, 62)))` of a column of the leaf.
///
/// # Errors
/// If there is no such column, or more than 16 fraction bits.
pub fn embed(weights: &WeightLeaf, column: usize, frac_residual: u8) -> Result<i32, RuleError> {
    within(Quantity::Column, column as u64, 0, LEAF_COLUMNS as i128 - 1)?;
    fraction(frac_residual)?;
    let scale = weights.scales[column / GROUP];
    Ok(reference::embed(weights.quants[column], scale.into(), weights.exponent, frac_residual))
}

/// RES: `sat32(x + y)`.
pub fn add(x: i32, y: i32) -> i32 {
    reference::add(x, y)
}

/// ROPE: `sat32(rsh(a·C − b·S, 30))` and `sat32(rsh(b·C + a·S, 30))`.
///
/// # Errors
/// If cosine or sine are beyond one.
pub fn rope(a: i32, b: i32, cos: i32, sin: i32) -> Result<(i32, i32), RuleError> {
    within(Quantity::Angle, cos, -ONE_Q30, ONE_Q30)?;
    within(Quantity::Angle, sin, -ONE_Q30, ONE_Q30)?;
    Ok(reference::rope(a, b, cos, sin))
}

/// ACT: `sat32(rsh(sat32(rsh(g·σ(g), 24)) · u, 32 − frac_out))` for gate and up in `Fx<16>`.
///
/// # Errors
/// If there are more than 16 fraction bits.
pub fn activate(gate: i32, up: i32, frac_out: u8) -> Result<i32, RuleError> {
    fraction(frac_out)?;
    Ok(reference::silu_mul(gate, up, frac_out))
}

/// A group as quantisation gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// 1..=32767.
    pub scale: u16,
    /// −127..=127.
    pub quants: [i8; GROUP],
}

/// AQ: the scale `clamp(⌈max|x|/127⌉, 1, 32767)` and the numbers
/// `min(127, ⌊(2|x| + scale)/(2·scale)⌋)` with the sign of x.
pub fn quantise(x: &FixedLeaf) -> Group {
    let (quants, scale) = reference::quantise_group(&x.0);
    Group { scale, quants: std::array::from_fn(|k| quants[k]) }
}
