//! What every instruction set must provide.
//!
//! A path works on whole runs of rows on the calling thread; [`crate::Cpu`] cuts the work up.
//! Lengths are checked by the callers, once for all paths.

use crate::attend::Attention;
use crate::cpu::{Angles, Norm, Rope};
use crate::keccak::States;
use crate::quantised::{Rows, Term};
use crate::weights::Panels;

/// One implementation of the arithmetic.
pub(crate) trait Path: Send + Sync {
    /// Quantises `x`: (rows, columns) into `out`, whose rows are padded.
    fn quantise(&self, x: &[i32], columns: usize, out: RowsMut<'_>);

    /// Norms each row of `x`: (rows, gain) into `y`.
    fn rmsnorm(&self, x: &[i32], gain: &[i32], norm: &Norm, y: &mut [i32]);

    /// Turns the heads at the start of each row of `x`.
    fn rope(&self, x: &mut [i32], rope: &Rope, angles: &[Angles<'_>]);

    /// `y = silu(gate) · up`, element by element.
    fn swiglu(&self, gate: &[i32], up: &[i32], frac_out: u8, y: &mut [i32]);

    /// `x += y`, element by element.
    fn add(&self, x: &mut [i32], y: &[i32]);

    /// Multiplies panels with rows: `y` has a slice per row of `x`, which takes as many outputs as
    /// it is long. `shifts`: one per lane, in 1..=62.
    fn matmul(&self, panels: Panels<'_>, shifts: &[i8], x: Rows<'_>, y: &mut [&mut [i32]]);

    /// Scores 16 positions per panel of keys: `scores` has a row of `stride` per row of `queries`.
    fn scores(
        &self,
        keys: Panels<'_>,
        queries: Rows<'_>,
        attention: &Attention,
        scores: &mut [i32],
        stride: usize,
    );

    /// Turns scores into weights and gives their sum.
    fn softmax(&self, scores: &[i32], weights: &mut [u32]) -> u64;

    /// Adds one block of weighted values: `weights` has a row of `stride` per row of `sums`, of
    /// which the first 64 count; `sums`: (rows, head_dim).
    fn blend(&self, values: Values<'_>, weights: &[u32], stride: usize, sums: &mut [i64]);

    /// Divides the sums of one query by the sum of its weights.
    fn means(&self, sums: &[i64], weights: u64, attention: &Attention, y: &mut [i32]);

    /// Applies the permutation of Keccak to eight states.
    fn keccak(&self, states: &mut States);
}

/// Quantised rows to be written.
pub(crate) struct RowsMut<'a> {
    /// Columns of a row, with padding.
    pub(crate) columns: usize,
    /// (rows, columns).
    pub(crate) q: &'a mut [i8],
    /// (rows, columns / 32).
    pub(crate) scales: &'a mut [u16],
    /// (rows, columns / 32).
    pub(crate) terms: &'a mut [Term],
}

/// The values of one head in one block of positions.
#[derive(Clone, Copy)]
pub(crate) struct Values<'a> {
    /// (32 pairs, head_dim, 2 positions).
    pub(crate) q: &'a [i8],
    /// (head_dim / 32, 64 positions).
    pub(crate) scales: &'a [u16],
}
