//! Products with 256-bit registers of numbers of four bits.
//!
//! Products of numbers below 16 with those of rows are so small that the multiply-add of bytes is
//! exact, and so is the sum of a whole group in 16 bits.

use std::arch::x86_64::*;

use super::{HALF, LINE, Shifts, Sums, TILE, put};
use crate::GROUP;
use crate::quantised::Rows;
use crate::weights::{LANES, Panels, QUAD};
use crate::x86::ahead;
use crate::x86::packed::{Packed, WORDS, tiles, whole};

/// Lines of a group of a panel.
const LINES: usize = GROUP / (2 * QUAD);

/// As [`super::matmul`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn matmul(panels: Panels<'_>, shifts: &[i8], x: Rows<'_>, y: &mut [&mut [i32]]) {
    let packed: Packed<WORDS> = whole(x, TILE);
    for panel in 0..panels.len() {
        let shifts = Shifts::halves(&shifts[panel * LANES..][..LANES]);
        for rows in tiles(x.len(), TILE) {
            let (y, x) = (&mut y[rows.clone()], packed.rows(rows));
            match y.len() {
                4 => put(tile::<4>(panels, panel, x), panel, &shifts, y),
                3 => put(tile::<3>(panels, panel, x), panel, &shifts, y),
                2 => put(tile::<2>(panels, panel, x), panel, &shifts, y),
                _ => put(tile::<1>(panels, panel, x), panel, &shifts, y),
            }
        }
    }
}

/// Exact products of both halves of a panel with the `T` rows of a tile.
#[inline]
#[target_feature(enable = "avx2")]
fn tile<const T: usize>(panels: Panels<'_>, panel: usize, x: &[[i32; WORDS]]) -> [[Sums; T]; 2] {
    let groups = panels.groups;
    assert_eq!(x.len(), groups * T, "panels and rows differ in groups");
    let quants = &panels.quants[panel * groups * LINES * LINE..][..groups * LINES * LINE];
    let scales = &panels.scales[panel * groups * LANES..][..groups * LANES];

    let low = _mm256_set1_epi8(15);
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[[_mm256_setzero_si256(); 2]; T]; 2];
    for group in 0..groups {
        // SAFETY: `group` is below `groups`, `word` below `WORDS`, `t` below `T`, `at` below
        // `LINES` and `half` below 2; the three slices have so many groups.
        unsafe {
            let x = x.as_ptr().cast::<i32>().add(group * WORDS * T);
            let word = |word: usize, t: usize| _mm256_set1_epi32(*x.add(word * T + t));
            let mut products = [[_mm256_setzero_si256(); T]; 2];
            for at in 0..LINES {
                let line = quants.as_ptr().add((group * LINES + at) * LINE);
                ahead::ask(line);
                let halves = [0, LINE / 2].map(|at| _mm256_loadu_si256(line.add(at).cast()));
                let lower = halves.map(|half| _mm256_and_si256(half, low));
                let upper = halves.map(|half| _mm256_and_si256(_mm256_srli_epi16::<4>(half), low));
                for t in 0..T {
                    let (first, second) = (word(2 * at, t), word(2 * at + 1, t));
                    for (half, products) in products.iter_mut().enumerate() {
                        // Eight pairs of products below 16 · 127 stay below 2^15.
                        let lower = _mm256_maddubs_epi16(lower[half], first);
                        let upper = _mm256_maddubs_epi16(upper[half], second);
                        products[t] = _mm256_add_epi16(products[t], _mm256_add_epi16(lower, upper));
                    }
                }
            }
            for (half, (sums, products)) in sums.iter_mut().zip(products).enumerate() {
                let scale = scales.as_ptr().add(group * LANES + half * HALF);
                let scale = _mm256_cvtepu16_epi32(_mm_loadu_si128(scale.cast()));
                for (t, (sums, product)) in sums.iter_mut().zip(products).enumerate() {
                    // Numbers are 8 too large instead of 128.
                    let offset = _mm256_srai_epi32::<4>(word(WORDS - 2, t));
                    let product = _mm256_add_epi32(_mm256_madd_epi16(product, ones), offset);
                    // 32 products of at most 8 · 127 fit 16 bits with their sign, so the upper half
                    // of a lane is nothing but that, and meets the zeros above the scale.
                    let scaled = _mm256_madd_epi16(product, scale);
                    let x_scale = word(WORDS - 1, t);
                    let even = _mm256_mul_epi32(scaled, x_scale);
                    let odd = _mm256_mul_epi32(_mm256_srli_epi64::<32>(scaled), x_scale);
                    *sums = [_mm256_add_epi64(sums[0], even), _mm256_add_epi64(sums[1], odd)];
                }
            }
        }
    }
    sums
}
