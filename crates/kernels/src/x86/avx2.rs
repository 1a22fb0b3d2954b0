//! Products with 256-bit registers: a panel is two halves of eight rows.
//!
//! There is no exact multiply-add of bytes, so numbers are widened to 16 bits: a word of four
//! columns of a panel falls apart into its even and its odd ones by a mask and a shift, and inputs
//! are packed in the same way.

mod w4;

use std::arch::x86_64::*;

use crate::attend::Attention;
use crate::format::Format;
use crate::lanes;
use crate::path::Values;
use crate::quantised::Rows;
use crate::reference::WIDE_FRAC;
use crate::weights::{LANES, Panels, QUAD};
use crate::x86::ahead;
use crate::x86::packed::{Packed, tiles};
use crate::{BLOCK, GROUP};

/// Most rows of `x` that a tile takes: the products of both halves with them fill the registers.
const TILE: usize = 4;
/// Most queries that share the values they load.
const BLEND_TILE: usize = 3;
/// Rows of half a panel.
const HALF: usize = LANES / 2;
/// Bytes of one quad of columns of a panel.
const LINE: usize = LANES * QUAD;

/// Words per group and row of a tile: even and odd numbers of eight quads, the offset, the scale.
const WORDS: usize = 2 * (GROUP / QUAD) + 2;

/// Rows as [`tile`] reads them.
fn packed(x: Rows<'_>) -> Packed<WORDS> {
    let pair = |a: i8, b: i8| i32::from(a) & 0xFFFF | i32::from(b) << 16;
    Packed::new(x, TILE, |q, term| {
        let mut words = [0; WORDS];
        for (words, four) in words.chunks_exact_mut(2).zip(q.as_chunks::<QUAD>().0) {
            words.copy_from_slice(&[pair(four[0], four[2]), pair(four[1], four[3])]);
        }
        words[WORDS - 2..].copy_from_slice(&[term.offset, term.scale]);
        words
    })
}

/// See [`crate::path::Path::matmul`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn matmul(panels: Panels<'_>, shifts: &[i8], x: Rows<'_>, y: &mut [&mut [i32]]) {
    assert_eq!(shifts.len(), panels.len() * LANES, "one shift per lane");
    assert_eq!(x.len(), y.len(), "one slice of outputs per row");
    if panels.format == Format::W4 {
        return w4::matmul(panels, shifts, x, y);
    }
    let packed = packed(x);
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

/// Shifts the products of one panel with the `T` rows of a tile to their places; `y` has a slice
/// for each of these rows.
#[inline]
#[target_feature(enable = "avx2")]
fn put<const T: usize>(
    sums: [[Sums; T]; 2],
    panel: usize,
    shifts: &[Shifts; 2],
    y: &mut [&mut [i32]],
) {
    for (half, (sums, shifts)) in sums.into_iter().zip(shifts).enumerate() {
        for (sums, y) in sums.into_iter().zip(y.iter_mut()) {
            let mut outputs = [0; HALF];
            store(&mut outputs, interleave(clamp(shifts.apply(sums))));
            // The last panel may have fewer rows than lanes.
            for (y, output) in y.iter_mut().skip(panel * LANES + half * HALF).zip(outputs) {
                *y = output;
            }
        }
    }
}

/// The 64-bit sums of even and of odd lanes.
type Sums = [__m256i; 2];

/// Exact products of both halves of a panel of numbers of eight bits with the `T` rows of a tile.
///
/// Numbers of the panel are below 256 with their signs flipped, those of the rows below 128, so
/// that a pair of products stays below 2^17 and all 32 of a group below 2^21.
#[inline]
#[target_feature(enable = "avx2")]
fn tile<const T: usize>(panels: Panels<'_>, panel: usize, x: &[[i32; WORDS]]) -> [[Sums; T]; 2] {
    let groups = panels.groups;
    assert_eq!(x.len(), groups * T, "panels and rows differ in groups");
    let quants = &panels.quants[panel * groups * GROUP * LANES..][..groups * GROUP * LANES];
    let scales = &panels.scales[panel * groups * LANES..][..groups * LANES];

    let low = _mm256_set1_epi16(0xFF);
    let mut sums = [[[_mm256_setzero_si256(); 2]; T]; 2];
    for group in 0..groups {
        // SAFETY: `group` is below `groups`, `word` below `WORDS`, `t` below `T`, `quad` below 8
        // and `half` below 2; the three slices have so many groups.
        unsafe {
            let x = x.as_ptr().cast::<i32>().add(group * WORDS * T);
            let word = |word: usize, t: usize| _mm256_set1_epi32(*x.add(word * T + t));
            let mut products = [[_mm256_setzero_si256(); T]; 2];
            for products in &mut products {
                for (t, product) in products.iter_mut().enumerate() {
                    *product = word(WORDS - 2, t);
                }
            }
            for quad in 0..GROUP / QUAD {
                let line = quants.as_ptr().add((group * GROUP / QUAD + quad) * LINE);
                ahead::ask(line);
                let halves = [0, LINE / 2].map(|at| _mm256_loadu_si256(line.add(at).cast()));
                let even = halves.map(|half| _mm256_and_si256(half, low));
                let odd = halves.map(|half| _mm256_srli_epi16::<8>(half));
                for t in 0..T {
                    let (x_even, x_odd) = (word(2 * quad, t), word(2 * quad + 1, t));
                    for (half, products) in products.iter_mut().enumerate() {
                        let even = _mm256_madd_epi16(even[half], x_even);
                        let odd = _mm256_madd_epi16(odd[half], x_odd);
                        products[t] = _mm256_add_epi32(products[t], _mm256_add_epi32(even, odd));
                    }
                }
            }
            for (half, (sums, products)) in sums.iter_mut().zip(products).enumerate() {
                let scale = scales.as_ptr().add(group * LANES + half * HALF);
                let scale = _mm256_cvtepu16_epi32(_mm_loadu_si128(scale.cast()));
                for (t, (sums, product)) in sums.iter_mut().zip(products).enumerate() {
                    // 16 bits times 15 bits stay below 31 bits.
                    let scale = _mm256_mullo_epi32(scale, word(WORDS - 1, t));
                    let odd = [product, scale].map(|v| _mm256_srli_epi64::<32>(v));
                    let even = _mm256_mul_epi32(product, scale);
                    let odd = _mm256_mul_epi32(odd[0], odd[1]);
                    *sums = [_mm256_add_epi64(sums[0], even), _mm256_add_epi64(sums[1], odd)];
                }
            }
        }
    }
    sums
}

/// Right shifts of eight lanes, for even and odd lanes.
#[derive(Clone, Copy)]
struct Shifts {
    by: Sums,
    half: Sums,
}

impl Shifts {
    /// Of both halves of a panel, from sixteen shifts in 1..=62.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn halves(shifts: &[i8]) -> [Shifts; 2] {
        [Shifts::load(&shifts[..HALF]), Shifts::load(&shifts[HALF..])]
    }

    /// From eight shifts in 1..=62.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(shifts: &[i8]) -> Shifts {
        assert_eq!(shifts.len(), HALF, "one shift per lane");
        // SAFETY: the slice has the eight bytes that are read.
        let bytes = unsafe { _mm_loadl_epi64(shifts.as_ptr().cast()) };
        let all = _mm256_cvtepi8_epi32(bytes);
        // Shifts are positive, so the lower half of a pair needs no sign.
        let even = _mm256_blend_epi32::<0xAA>(all, _mm256_setzero_si256());
        Shifts::new([even, _mm256_srli_epi64::<32>(all)])
    }

    /// From shifts in 0..=62.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn new(by: Sums) -> Shifts {
        let one = _mm256_set1_epi64x(1);
        // A shift by -1, as for a shift of zero, leaves nothing.
        let half = [
            _mm256_sllv_epi64(one, _mm256_sub_epi64(by[0], one)),
            _mm256_sllv_epi64(one, _mm256_sub_epi64(by[1], one)),
        ];
        Shifts { by, half }
    }

    /// Rounds and shifts. There is no arithmetic shift of 64 bits: adding `2^63` makes numbers
    /// unsigned, and what is left of it after the shift is taken away again.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn apply(&self, sums: Sums) -> Sums {
        let lift = _mm256_set1_epi64x(i64::MIN);
        let shift = |v: __m256i, by: __m256i, half: __m256i| {
            let lifted = _mm256_xor_si256(_mm256_add_epi64(v, half), lift);
            _mm256_sub_epi64(_mm256_srlv_epi64(lifted, by), _mm256_srlv_epi64(lift, by))
        };
        [shift(sums[0], self.by[0], self.half[0]), shift(sums[1], self.by[1], self.half[1])]
    }
}

/// The nearest values that fit 32 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn clamp(sums: Sums) -> Sums {
    let (low, high) = (_mm256_set1_epi64x(i32::MIN as i64), _mm256_set1_epi64x(i32::MAX as i64));
    sums.map(|v| {
        let v = _mm256_blendv_epi8(v, high, _mm256_cmpgt_epi64(v, high));
        _mm256_blendv_epi8(v, low, _mm256_cmpgt_epi64(low, v))
    })
}

/// The lower halves of both, in the order of lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn interleave([even, odd]: Sums) -> __m256i {
    _mm256_blend_epi32::<0xAA>(even, _mm256_slli_epi64::<32>(odd))
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(to: &mut [i32; HALF], v: __m256i) {
    // SAFETY: the array has the eight elements that are written.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), v) };
}

/// See [`crate::path::Path::scores`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn scores(
    keys: Panels<'_>,
    queries: Rows<'_>,
    attention: &Attention,
    scores: &mut [i32],
    stride: usize,
) {
    let packed = packed(queries);
    for panel in 0..keys.len() {
        for rows in tiles(queries.len(), TILE) {
            let scores = &mut scores[rows.start * stride + panel * LANES..];
            let x = packed.rows(rows.clone());
            match rows.len() {
                4 => tile_scores::<4>(keys, panel, x, attention, scores, stride),
                3 => tile_scores::<3>(keys, panel, x, attention, scores, stride),
                2 => tile_scores::<2>(keys, panel, x, attention, scores, stride),
                _ => tile_scores::<1>(keys, panel, x, attention, scores, stride),
            }
        }
    }
}

/// Scores of one panel of keys with the `T` queries of a tile.
#[inline]
#[target_feature(enable = "avx2")]
fn tile_scores<const T: usize>(
    keys: Panels<'_>,
    panel: usize,
    queries: &[[i32; WORDS]],
    attention: &Attention,
    scores: &mut [i32],
    stride: usize,
) {
    // `frac_q` is at least 8, so the shift is not negative.
    let right = 2 * i64::from(attention.frac_q) - i64::from(WIDE_FRAC);
    let narrow = Shifts::new([_mm256_set1_epi64x(right); 2]);
    let thirty = Shifts::new([_mm256_set1_epi64x(30); 2]);
    let factor = _mm256_set1_epi64x(i64::from(attention.att_q30));
    for (half, sums) in tile::<T>(keys, panel, queries).into_iter().enumerate() {
        for (t, sums) in sums.into_iter().enumerate() {
            let products = clamp(narrow.apply(sums)).map(|v| _mm256_mul_epi32(v, factor));
            let mut eight = [0; HALF];
            store(&mut eight, interleave(thirty.apply(products)));
            scores[t * stride + half * HALF..][..HALF].copy_from_slice(&eight);
        }
    }
}

/// See [`crate::path::Path::blend`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn blend(values: Values<'_>, weights: &[u32], stride: usize, sums: &mut [i64]) {
    let head_dim = values.scales.len() / BLOCK * GROUP;
    let rows = sums.len() / head_dim;
    let tiles = rows.div_ceil(BLEND_TILE);
    for group in 0..head_dim / GROUP {
        for tile in 0..tiles {
            let (row, end) = (tile * rows / tiles, (tile + 1) * rows / tiles);
            let weights = &weights[row * stride..];
            let sums = &mut sums[row * head_dim..end * head_dim];
            match end - row {
                3 => tile_blend::<3>(values, group, weights, stride, sums),
                2 => tile_blend::<2>(values, group, weights, stride, sums),
                _ => tile_blend::<1>(values, group, weights, stride, sums),
            }
        }
    }
}

/// One group of dimensions of `T` queries.
#[inline]
#[target_feature(enable = "avx2")]
fn tile_blend<const T: usize>(
    values: Values<'_>,
    group: usize,
    weights: &[u32],
    stride: usize,
    sums: &mut [i64],
) {
    let head_dim = sums.len() / T;
    let scales = &values.scales[group * BLOCK..][..BLOCK];
    let q = &values.q[..BLOCK * head_dim];
    assert!((group + 1) * GROUP <= head_dim, "group {group} of a head of {head_dim}");
    let mut narrow = [[0i16; BLOCK]; T];
    let mut shifts = [0; T];
    for (t, (narrow, shift)) in narrow.iter_mut().zip(&mut shifts).enumerate() {
        *shift = lanes::scaled_weights(&weights[t * stride..][..BLOCK], scales, narrow);
    }

    let mut products = [[_mm256_setzero_si256(); 4]; T];
    for pair in 0..BLOCK / 2 {
        // SAFETY: a pair of positions holds `head_dim` pairs of bytes, of which a group has 64, and
        // `narrow` has two numbers per pair.
        unsafe {
            let line = q.as_ptr().add((pair * head_dim + group * GROUP) * 2);
            let quarters = [0, 16, 32, 48]
                .map(|at| _mm256_cvtepi8_epi16(_mm_loadu_si128(line.add(at).cast())));
            for (products, narrow) in products.iter_mut().zip(&narrow) {
                let two = narrow.as_ptr().add(2 * pair).cast::<i32>().read_unaligned();
                let two = _mm256_set1_epi32(two);
                for (product, quarter) in products.iter_mut().zip(quarters) {
                    // 64 products of 15 and 7 bits stay below 28 bits.
                    *product = _mm256_add_epi32(*product, _mm256_madd_epi16(quarter, two));
                }
            }
        }
    }
    for ((products, shift), sums) in
        products.iter().zip(shifts).zip(sums.chunks_exact_mut(head_dim))
    {
        let sums = sums[group * GROUP..][..GROUP].chunks_exact_mut(HALF);
        for (sums, products) in sums.zip(products) {
            let mut eight = [0; HALF];
            store(&mut eight, *products);
            for (sum, product) in sums.iter_mut().zip(eight) {
                *sum += i64::from(product) << shift;
            }
        }
    }
}
