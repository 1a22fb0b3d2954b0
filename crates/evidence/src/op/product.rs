//! Rules of matrix products: 128 products at a time, then their rounded sum.

use assay_kernels::reference;

use super::error::{Quantity, RuleError, within};
use super::leaf::{ActivationLeaf, WeightLeaf};

/// MATMUL, one partial sum: `Σ_groups (Σ qw·qx)·(sw·sx)` over the 128 columns of two leaves.
///
/// Its magnitude is below 2^52.
pub fn chunk(weights: &WeightLeaf, x: &ActivationLeaf) -> i64 {
    reference::dot((&weights.quants, &weights.scales), (&x.quants, &x.scales))
}

/// MATMUL, the element: `sat32(rsh(Σ partials, shift))` with `shift = e + f_in − f_out`.
///
/// # Errors
/// If `shift` is not in 1..=62.
pub fn product(partials: &[i64], shift: i32) -> Result<i32, RuleError> {
    let shift = within(Quantity::Shift, shift, 1, 62)?;
    Ok(sat32(rsh(partials.iter().map(|partial| i128::from(*partial)).sum(), shift)))
}

/// `v / 2^s`, rounded half towards positive infinity; exact to the left when `s` is not positive.
pub(super) fn rsh(v: i128, s: i32) -> i128 {
    if s > 0 { (v + (1 << (s - 1))) >> s } else { v << -s }
}

/// The nearest value that fits 32 bits.
pub(super) fn sat32(v: i128) -> i32 {
    v.clamp(i128::from(i32::MIN), i128::from(i32::MAX)) as i32
}
