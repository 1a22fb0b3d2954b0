//! Products with 256-bit registers: eight rows, half a panel, at a time.

use std::arch::x86_64::*;

use crate::attend::Attention;
use crate::lanes;
use crate::path::Values;
use crate::quantised::Rows;
use crate::reference::WIDE_FRAC;
use crate::weights::{LANES, Panels, QUAD};
use crate::{BLOCK, GROUP};

/// Most rows of `x` that a tile takes: their sums fill the registers.
const TILE: usize = 3;
/// Most queries that share the values they load.
const BLEND_TILE: usize = 3;
/// Rows of half a panel.
const HALF: usize = LANES / 2;
/// Bytes of one quad of columns of a panel.
const LINE: usize = LANES * QUAD;

/// See [`crate::path::Path::matmul`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn matmul(panels: Panels<'_>, shifts: &[i8], x: Rows<'_>, y: &mut [&mut [i32]]) {
    assert_eq!(shifts.len(), panels.len() * LANES, "one shift per lane");
    assert_eq!(x.len(), y.len(), "one slice of outputs per row");
    let tiles = x.len().div_ceil(TILE);
    for panel in 0..panels.len() {
        for tile in 0..tiles {
            let (row, end) = (tile * x.len() / tiles, (tile + 1) * x.len() / tiles);
            for half in [0, HALF] {
                let shifts = Shifts::load(&shifts[panel * LANES + half..][..HALF]);
                let (y, at) = (&mut y[row..end], Place { panel, half, row });
                match end - row {
                    3 => tile_matmul::<3>(panels, shifts, x, y, at),
                    2 => tile_matmul::<2>(panels, shifts, x, y, at),
                    _ => tile_matmul::<1>(panels, shifts, x, y, at),
                }
            }
        }
    }
}

/// Which half of a panel and which rows a tile takes.
#[derive(Clone, Copy)]
struct Place {
    panel: usize,
    /// The first lane: 0 or 8.
    half: usize,
    row: usize,
}

/// Half a panel times `T` rows; `y` has a slice for each of them.
#[inline]
#[target_feature(enable = "avx2")]
fn tile_matmul<const T: usize>(
    panels: Panels<'_>,
    shifts: Shifts,
    x: Rows<'_>,
    y: &mut [&mut [i32]],
    at: Place,
) {
    let sums = tile::<T>(panels, x, at);
    for (sums, y) in sums.into_iter().zip(y) {
        let mut outputs = [0; HALF];
        store(&mut outputs, interleave(clamp(shifts.apply(sums))));
        // The last panel may have fewer rows than lanes.
        for (y, output) in y.iter_mut().skip(at.panel * LANES + at.half).zip(outputs) {
            *y = output;
        }
    }
}

/// The 64-bit sums of even and of odd lanes.
type Sums = [__m256i; 2];

/// Exact products of half a panel with `T` rows.
///
/// `maddubs` wants one operand without a sign, so the sign of the weight moves to the input.
/// Neither is ever -128, hence two products stay within `2 · 127 · 127 < 2^15`.
#[inline]
#[target_feature(enable = "avx2")]
fn tile<const T: usize>(panels: Panels<'_>, x: Rows<'_>, at: Place) -> [Sums; T] {
    let groups = panels.groups;
    assert_eq!(x.groups, groups, "panels and rows differ in groups");
    assert!(at.half + HALF <= LANES, "lane {} begins no half", at.half);
    let quants = &panels.quants[at.panel * groups * GROUP * LANES..][..groups * GROUP * LANES];
    let scales = &panels.scales[at.panel * groups * LANES..][..groups * LANES];
    let q = &x.q[at.row * groups * GROUP..][..T * groups * GROUP];
    let terms = &x.terms[at.row * groups..][..T * groups];

    let (ones, flip) = (_mm256_set1_epi16(1), _mm256_set1_epi8(i8::MIN));
    let mut sums = [[_mm256_setzero_si256(); 2]; T];
    for group in 0..groups {
        // SAFETY: `group` is below `groups`, `t` below `T`, `quad` below 8 and a half at most 8,
        // and the four slices were cut to one or `T` times `groups` groups above.
        unsafe {
            let mut products = [_mm256_setzero_si256(); T];
            for quad in 0..GROUP / QUAD {
                let line =
                    quants.as_ptr().add((group * GROUP / QUAD + quad) * LINE + at.half * QUAD);
                let weights = _mm256_xor_si256(_mm256_loadu_si256(line.cast()), flip);
                let magnitudes = _mm256_abs_epi8(weights);
                for (t, product) in products.iter_mut().enumerate() {
                    let four = q.as_ptr().add((t * groups + group) * GROUP + quad * QUAD);
                    let four = _mm256_set1_epi32(four.cast::<i32>().read_unaligned());
                    let signed = _mm256_sign_epi8(four, weights);
                    let pairs = _mm256_maddubs_epi16(magnitudes, signed);
                    *product = _mm256_add_epi32(*product, _mm256_madd_epi16(pairs, ones));
                }
            }
            let scale = scales.as_ptr().add(group * LANES + at.half);
            let scale = _mm256_cvtepu16_epi32(_mm_loadu_si128(scale.cast()));
            for (t, (sums, product)) in sums.iter_mut().zip(products).enumerate() {
                let term = terms.as_ptr().add(t * groups + group);
                // 16 bits times 15 bits stay below 31 bits.
                let scale = _mm256_mullo_epi32(scale, _mm256_set1_epi32((*term).scale));
                let even = _mm256_mul_epi32(product, scale);
                let odd = _mm256_mul_epi32(
                    _mm256_srli_epi64::<32>(product),
                    _mm256_srli_epi64::<32>(scale),
                );
                *sums = [_mm256_add_epi64(sums[0], even), _mm256_add_epi64(sums[1], odd)];
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
    let tiles = queries.len().div_ceil(TILE);
    for panel in 0..keys.len() {
        for tile in 0..tiles {
            let row = tile * queries.len() / tiles;
            let end = (tile + 1) * queries.len() / tiles;
            for half in [0, HALF] {
                let at = Place { panel, half, row };
                match end - row {
                    3 => tile_scores::<3>(keys, queries, attention, scores, stride, at),
                    2 => tile_scores::<2>(keys, queries, attention, scores, stride, at),
                    _ => tile_scores::<1>(keys, queries, attention, scores, stride, at),
                }
            }
        }
    }
}

/// Scores of half a panel of keys with `T` queries.
#[inline]
#[target_feature(enable = "avx2")]
fn tile_scores<const T: usize>(
    keys: Panels<'_>,
    queries: Rows<'_>,
    attention: &Attention,
    scores: &mut [i32],
    stride: usize,
    at: Place,
) {
    // `frac_q` is at least 8, so the shift is not negative.
    let right = 2 * i64::from(attention.frac_q) - i64::from(WIDE_FRAC);
    let narrow = Shifts::new([_mm256_set1_epi64x(right); 2]);
    let thirty = Shifts::new([_mm256_set1_epi64x(30); 2]);
    let factor = _mm256_set1_epi64x(i64::from(attention.att_q30));
    for (t, sums) in tile::<T>(keys, queries, at).into_iter().enumerate() {
        let products = clamp(narrow.apply(sums)).map(|v| _mm256_mul_epi32(v, factor));
        let mut eight = [0; HALF];
        store(&mut eight, interleave(thirty.apply(products)));
        let first = (at.row + t) * stride + at.panel * LANES + at.half;
        scores[first..first + HALF].copy_from_slice(&eight);
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
