//! Products with 512-bit registers of numbers of four bits.
//!
//! A cache line holds eight columns: masked, its lower halves are one word of unsigned bytes per
//! row and its upper halves, shifted, another. From there on a group goes the way of eight bits,
//! but for what it ends in: its sum has sixteen bits, so that one instruction scales it.

use std::arch::x86_64::*;

use super::{LINE, Sums, Tile};
use crate::GROUP;
use crate::weights::{LANES, Panels, QUAD};
use crate::x86::ahead;

/// Lines of a group of a panel.
const LINES: usize = GROUP / (2 * QUAD);

/// Exact products of one panel with `T` rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn tile<const T: usize>(panels: Panels<'_>, panel: usize, x: impl Tile) -> [Sums; T] {
    let groups = panels.groups;
    assert!(x.is(T, groups), "panels and rows differ in groups");
    let quants = &panels.quants[panel * groups * LINES * LINE..][..groups * LINES * LINE];
    let scales = &panels.scales[panel * groups * LANES..][..groups * LANES];

    let halves = _mm512_set1_epi8(15);
    let mut sums = [[_mm512_setzero_si512(); 2]; T];
    for group in 0..groups {
        // SAFETY: `group` is below `groups`, `t` below `T` and the quads below 8; the tile was
        // asked about its size, and both slices were cut to `groups` groups.
        unsafe {
            let mut products = [_mm512_setzero_si512(); T];
            for (t, product) in products.iter_mut().enumerate() {
                // Numbers are 8 too large instead of 128.
                *product = _mm512_set1_epi32(x.offset::<T>(t, group) >> 4);
            }
            for at in 0..LINES {
                let line = quants.as_ptr().add((group * LINES + at) * LINE);
                ahead::ask(line);
                let line = _mm512_loadu_si512(line.cast());
                let lower = _mm512_and_si512(line, halves);
                let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(line), halves);
                for (t, product) in products.iter_mut().enumerate() {
                    let four = _mm512_set1_epi32(x.four::<T>(t, group, 2 * at));
                    *product = _mm512_dpbusd_epi32(*product, lower, four);
                    let four = _mm512_set1_epi32(x.four::<T>(t, group, 2 * at + 1));
                    *product = _mm512_dpbusd_epi32(*product, upper, four);
                }
            }
            let scale = scales.as_ptr().add(group * LANES);
            let scale = _mm512_cvtepu16_epi32(_mm256_loadu_si256(scale.cast()));
            for (t, (sums, product)) in sums.iter_mut().zip(products).enumerate() {
                // 32 products of at most 8 · 127 fit 16 bits with their sign, so the upper half of
                // a lane is nothing but that, and meets the zeros above the scale.
                let scaled = _mm512_madd_epi16(product, scale);
                let x_scale = _mm512_set1_epi32(x.scale::<T>(t, group));
                let even = _mm512_mul_epi32(scaled, x_scale);
                let odd = _mm512_mul_epi32(_mm512_srli_epi64::<32>(scaled), x_scale);
                *sums = [_mm512_add_epi64(sums[0], even), _mm512_add_epi64(sums[1], odd)];
            }
        }
    }
    sums
}
