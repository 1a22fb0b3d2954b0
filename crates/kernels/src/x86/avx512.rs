//! Products with 512-bit registers: sixteen rows at a time.

mod w4;

use std::arch::x86_64::*;
use std::ops::Range;

use crate::attend::Attention;
use crate::format::Format;
use crate::lanes;
use crate::path::Values;
use crate::quantised::Rows;
use crate::reference::WIDE_FRAC;
use crate::weights::{LANES, Panels, QUAD};
use crate::x86::ahead;
use crate::x86::packed::{Packed, WORDS, tiles, whole};
use crate::{BLOCK, GROUP};

/// Most rows of `x` that a tile takes: their sums fill two thirds of the registers.
const TILE: usize = 6;
/// Most queries that share the values they load.
const BLEND_TILE: usize = 8;
/// Bytes of one quad of columns of a panel.
const LINE: usize = LANES * QUAD;

/// Most rows that are packed: more of them are computed for longer than their weights are read.
const PACKED_MAX: usize = 2 * TILE;

/// See [`crate::path::Path::matmul`].
///
/// Panels are taken one by one, as they lie: with two at once, hence two streams, the processor's
/// prefetcher falls behind, and a single row reads memory a third slower.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn matmul(panels: Panels<'_>, shifts: &[i8], x: Rows<'_>, y: &mut [&mut [i32]]) {
    assert_eq!(shifts.len(), panels.len() * LANES, "one shift per lane");
    assert_eq!(x.len(), y.len(), "one slice of outputs per row");
    if (2..=PACKED_MAX).contains(&x.len()) {
        panels_matmul(panels, shifts, &whole(x, TILE), y);
    } else {
        panels_matmul(panels, shifts, x, y);
    }
}

/// All panels times all rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn panels_matmul(panels: Panels<'_>, shifts: &[i8], x: impl Input, y: &mut [&mut [i32]]) {
    for panel in 0..panels.len() {
        let shifts = Shifts::load(&shifts[panel * LANES..][..LANES]);
        for rows in tiles(y.len(), TILE) {
            let y = &mut y[rows.clone()];
            match y.len() {
                6 => tile_matmul::<6>(panels, panel, shifts, x.tile::<6>(rows), y),
                5 => tile_matmul::<5>(panels, panel, shifts, x.tile::<5>(rows), y),
                4 => tile_matmul::<4>(panels, panel, shifts, x.tile::<4>(rows), y),
                3 => tile_matmul::<3>(panels, panel, shifts, x.tile::<3>(rows), y),
                2 => tile_matmul::<2>(panels, panel, shifts, x.tile::<2>(rows), y),
                _ => tile_matmul::<1>(panels, panel, shifts, x.tile::<1>(rows), y),
            }
        }
    }
}

/// Rows in some layout, of which tiles are made.
trait Input: Copy {
    /// The tile of some rows, of which there are `T`.
    fn tile<const T: usize>(&self, rows: Range<usize>) -> impl Tile;
}

/// The rows that a panel meets at once.
trait Tile: Copy {
    /// Whether there are so many rows of so many groups.
    fn is(&self, rows: usize, groups: usize) -> bool;

    /// Four numbers of a group of a row.
    ///
    /// # Safety
    /// The tile [is](Tile::is) `T` rows of more than `group` groups, `t` is below `T` and `quad`
    /// below 8; so for the others.
    unsafe fn four<const T: usize>(&self, t: usize, group: usize, quad: usize) -> i32;

    /// What undoes the sign flip of the weights that a group of a row meets.
    ///
    /// # Safety
    /// As for [`Tile::four`].
    unsafe fn offset<const T: usize>(&self, t: usize, group: usize) -> i32;

    /// The scale of a group of a row.
    ///
    /// # Safety
    /// As for [`Tile::four`].
    unsafe fn scale<const T: usize>(&self, t: usize, group: usize) -> i32;
}

impl Input for Rows<'_> {
    #[inline(always)]
    fn tile<const T: usize>(&self, rows: Range<usize>) -> impl Tile {
        self.part(rows.start, T)
    }
}

impl Tile for Rows<'_> {
    #[inline(always)]
    fn is(&self, rows: usize, groups: usize) -> bool {
        self.groups == groups
            && self.q.len() == rows * groups * GROUP
            && self.terms.len() == rows * groups
    }

    #[inline(always)]
    unsafe fn four<const T: usize>(&self, t: usize, group: usize, quad: usize) -> i32 {
        // SAFETY: by the caller's promise there are so many numbers.
        unsafe {
            let four = self.q.as_ptr().add((t * self.groups + group) * GROUP + quad * QUAD);
            four.cast::<i32>().read_unaligned()
        }
    }

    #[inline(always)]
    unsafe fn offset<const T: usize>(&self, t: usize, group: usize) -> i32 {
        // SAFETY: by the caller's promise there are so many terms.
        unsafe { (*self.terms.as_ptr().add(t * self.groups + group)).offset }
    }

    #[inline(always)]
    unsafe fn scale<const T: usize>(&self, t: usize, group: usize) -> i32 {
        // SAFETY: by the caller's promise there are so many terms.
        unsafe { (*self.terms.as_ptr().add(t * self.groups + group)).scale }
    }
}

impl Input for &Packed<WORDS> {
    #[inline(always)]
    fn tile<const T: usize>(&self, rows: Range<usize>) -> impl Tile {
        self.rows(rows)
    }
}

impl Tile for &[[i32; WORDS]] {
    #[inline(always)]
    fn is(&self, rows: usize, groups: usize) -> bool {
        self.len() == rows * groups
    }

    #[inline(always)]
    unsafe fn four<const T: usize>(&self, t: usize, group: usize, quad: usize) -> i32 {
        // SAFETY: by the caller's promise there are so many words, `T` in a row.
        unsafe { *self.as_ptr().cast::<i32>().add((group * WORDS + quad) * T + t) }
    }

    #[inline(always)]
    unsafe fn offset<const T: usize>(&self, t: usize, group: usize) -> i32 {
        // SAFETY: as above.
        unsafe { *self.as_ptr().cast::<i32>().add((group * WORDS + WORDS - 2) * T + t) }
    }

    #[inline(always)]
    unsafe fn scale<const T: usize>(&self, t: usize, group: usize) -> i32 {
        // SAFETY: as above.
        unsafe { *self.as_ptr().cast::<i32>().add((group * WORDS + WORDS - 1) * T + t) }
    }
}

/// One panel times the `T` rows of a tile; `y` has a slice for each of them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile_matmul<const T: usize>(
    panels: Panels<'_>,
    panel: usize,
    shifts: Shifts,
    x: impl Tile,
    y: &mut [&mut [i32]],
) {
    let sums = match panels.format {
        Format::W8 => tile::<T>(panels, panel, x),
        Format::W4 => w4::tile::<T>(panels, panel, x),
    };
    for (sums, y) in sums.into_iter().zip(y) {
        let y = &mut y[panel * LANES..];
        let outputs = interleave(clamp(shifts.apply(sums)));
        let lanes = y.len().min(LANES);
        // SAFETY: the mask lets through as many lanes as `y` is long, at most sixteen.
        unsafe {
            let mask = ((1u32 << lanes) - 1) as u16;
            _mm512_mask_storeu_epi32(y.as_mut_ptr(), mask, outputs);
        }
    }
}

/// The 64-bit sums of even and of odd lanes.
type Sums = [__m512i; 2];

/// Exact products of one panel of numbers of eight bits with `T` rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile<const T: usize>(panels: Panels<'_>, panel: usize, x: impl Tile) -> [Sums; T] {
    let groups = panels.groups;
    assert!(x.is(T, groups), "panels and rows differ in groups");
    let quants = &panels.quants[panel * groups * GROUP * LANES..][..groups * GROUP * LANES];
    let scales = &panels.scales[panel * groups * LANES..][..groups * LANES];

    let mut sums = [[_mm512_setzero_si512(); 2]; T];
    for group in 0..groups {
        // SAFETY: `group` is below `groups`, `t` below `T` and `quad` below 8; the tile was asked
        // about its size, and both slices were cut to `groups` groups.
        unsafe {
            let mut products = [_mm512_setzero_si512(); T];
            for (t, product) in products.iter_mut().enumerate() {
                *product = _mm512_set1_epi32(x.offset::<T>(t, group));
            }
            for quad in 0..GROUP / QUAD {
                let line = quants.as_ptr().add((group * GROUP / QUAD + quad) * LINE);
                ahead::ask(line);
                let weights = _mm512_loadu_si512(line.cast());
                for (t, product) in products.iter_mut().enumerate() {
                    let four = _mm512_set1_epi32(x.four::<T>(t, group, quad));
                    *product = _mm512_dpbusd_epi32(*product, weights, four);
                }
            }
            let scale = scales.as_ptr().add(group * LANES);
            let scale = _mm512_cvtepu16_epi32(_mm256_loadu_si256(scale.cast()));
            for (t, (sums, product)) in sums.iter_mut().zip(products).enumerate() {
                // 16 bits times 15 bits stay below 31 bits.
                let x_scale = _mm512_set1_epi32(x.scale::<T>(t, group));
                let scale = _mm512_mullo_epi32(scale, x_scale);
                let odd = [product, scale].map(|v| _mm512_srli_epi64::<32>(v));
                let even = _mm512_mul_epi32(product, scale);
                let odd = _mm512_mul_epi32(odd[0], odd[1]);
                *sums = [_mm512_add_epi64(sums[0], even), _mm512_add_epi64(sums[1], odd)];
            }
        }
    }
    sums
}

/// Right shifts of sixteen lanes with the halves that round them, for even and odd lanes.
#[derive(Clone, Copy)]
struct Shifts {
    by: Sums,
    half: Sums,
}

impl Shifts {
    /// From sixteen shifts in 1..=62.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn load(shifts: &[i8]) -> Shifts {
        assert_eq!(shifts.len(), LANES, "one shift per lane");
        // SAFETY: the slice has the sixteen bytes that are read.
        let bytes = unsafe { _mm_loadu_si128(shifts.as_ptr().cast()) };
        let all = _mm512_cvtepi8_epi32(bytes);
        // Shifts are positive, so the lower half of a pair needs no sign.
        let even = _mm512_maskz_mov_epi32(0x5555, all);
        let by = [even, _mm512_srli_epi64::<32>(all)];
        let one = _mm512_set1_epi64(1);
        let half = by.map(|by| _mm512_sllv_epi64(one, _mm512_sub_epi64(by, one)));
        Shifts { by, half }
    }

    /// Rounds and shifts.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    fn apply(&self, sums: Sums) -> Sums {
        [
            _mm512_srav_epi64(_mm512_add_epi64(sums[0], self.half[0]), self.by[0]),
            _mm512_srav_epi64(_mm512_add_epi64(sums[1], self.half[1]), self.by[1]),
        ]
    }
}

/// The nearest values that fit 32 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn clamp(sums: Sums) -> Sums {
    let (low, high) = (_mm512_set1_epi64(i32::MIN as i64), _mm512_set1_epi64(i32::MAX as i64));
    sums.map(|v| _mm512_max_epi64(_mm512_min_epi64(v, high), low))
}

/// The lower halves of both, in the order of lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn interleave([even, odd]: Sums) -> __m512i {
    _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64::<32>(odd))
}

/// See [`crate::path::Path::scores`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn scores(
    keys: Panels<'_>,
    queries: Rows<'_>,
    attention: &Attention,
    scores: &mut [i32],
    stride: usize,
) {
    for panel in 0..keys.len() {
        for rows in tiles(queries.len(), TILE) {
            let scores = &mut scores[rows.start * stride + panel * LANES..];
            let x = queries.part(rows.start, rows.len());
            match rows.len() {
                6 => tile_scores::<6>(keys, panel, x, attention, scores, stride),
                5 => tile_scores::<5>(keys, panel, x, attention, scores, stride),
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile_scores<const T: usize>(
    keys: Panels<'_>,
    panel: usize,
    queries: Rows<'_>,
    attention: &Attention,
    scores: &mut [i32],
    stride: usize,
) {
    // `frac_q` is at least 8, so the shift is not negative; it is zero at 8, and then so is half.
    let right = 2 * u32::from(attention.frac_q) - u32::from(WIDE_FRAC);
    let half = _mm512_set1_epi64((1i64 << right) >> 1);
    let right = _mm512_set1_epi64(i64::from(right));
    let factor = _mm512_set1_epi64(i64::from(attention.att_q30));
    let round = _mm512_set1_epi64(1 << 29);
    for (t, sums) in tile::<T>(keys, panel, queries).into_iter().enumerate() {
        let narrow = sums.map(|v| _mm512_srav_epi64(_mm512_add_epi64(v, half), right));
        let scaled = clamp(narrow)
            .map(|v| _mm512_srai_epi64::<30>(_mm512_add_epi64(_mm512_mul_epi32(v, factor), round)));
        let scores = &mut scores[t * stride..][..LANES];
        // SAFETY: the slice has sixteen elements.
        unsafe { _mm512_storeu_si512(scores.as_mut_ptr().cast(), interleave(scaled)) };
    }
}

/// See [`crate::path::Path::blend`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
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
                8 => tile_blend::<8>(values, group, weights, stride, sums),
                7 => tile_blend::<7>(values, group, weights, stride, sums),
                6 => tile_blend::<6>(values, group, weights, stride, sums),
                5 => tile_blend::<5>(values, group, weights, stride, sums),
                4 => tile_blend::<4>(values, group, weights, stride, sums),
                3 => tile_blend::<3>(values, group, weights, stride, sums),
                2 => tile_blend::<2>(values, group, weights, stride, sums),
                _ => tile_blend::<1>(values, group, weights, stride, sums),
            }
        }
    }
}

/// One group of dimensions of `T` queries.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
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

    let mut products = [[_mm512_setzero_si512(); 2]; T];
    for pair in 0..BLOCK / 2 {
        // SAFETY: a pair of positions holds `head_dim` pairs of bytes, of which a group has 64, and
        // `narrow` has two numbers per pair.
        unsafe {
            let line = q.as_ptr().add((pair * head_dim + group * GROUP) * 2);
            let lower = _mm512_cvtepi8_epi16(_mm256_loadu_si256(line.cast()));
            let upper = _mm512_cvtepi8_epi16(_mm256_loadu_si256(line.add(32).cast()));
            for (products, narrow) in products.iter_mut().zip(&narrow) {
                let two = narrow.as_ptr().add(2 * pair).cast::<i32>().read_unaligned();
                let two = _mm512_set1_epi32(two);
                // 64 products of 15 and 7 bits stay below 28 bits.
                products[0] = _mm512_dpwssd_epi32(products[0], lower, two);
                products[1] = _mm512_dpwssd_epi32(products[1], upper, two);
            }
        }
    }
    for ((products, shift), sums) in
        products.iter().zip(shifts).zip(sums.chunks_exact_mut(head_dim))
    {
        let sums = &mut sums[group * GROUP..][..GROUP];
        let shift = _mm_cvtsi64_si128(i64::from(shift));
        for (half, products) in products.iter().enumerate() {
            let parts =
                [_mm512_castsi512_si256(*products), _mm512_extracti64x4_epi64::<1>(*products)];
            for (quarter, part) in parts.into_iter().enumerate() {
                let part = _mm512_sll_epi64(_mm512_cvtepi32_epi64(part), shift);
                let sums = &mut sums[half * 16 + quarter * 8..][..8];
                // SAFETY: the slice has the eight elements that are read and written.
                unsafe {
                    let sum = _mm512_loadu_si512(sums.as_ptr().cast());
                    _mm512_storeu_si512(sums.as_mut_ptr().cast(), _mm512_add_epi64(sum, part));
                }
            }
        }
    }
}
