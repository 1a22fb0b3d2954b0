//! Products with 512-bit registers: sixteen rows at a time.

use std::arch::x86_64::*;

use crate::attend::Attention;
use crate::lanes;
use crate::path::Values;
use crate::quantised::Rows;
use crate::reference::WIDE_FRAC;
use crate::weights::{LANES, Panels, QUAD};
use crate::{BLOCK, GROUP};

/// Most rows of `x` that a tile takes: their sums fill two thirds of the registers.
const TILE: usize = 6;
/// Most queries that share the values they load.
const BLEND_TILE: usize = 8;
/// Bytes of one quad of columns of a panel.
const LINE: usize = LANES * QUAD;

/// See [`crate::path::Path::matmul`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn matmul(panels: Panels<'_>, shifts: &[i8], x: Rows<'_>, y: &mut [&mut [i32]]) {
    assert_eq!(shifts.len(), panels.len() * LANES, "one shift per lane");
    assert_eq!(x.len(), y.len(), "one slice of outputs per row");
    if x.len() == 1 {
        return single(panels, shifts, x, y);
    }
    let tiles = x.len().div_ceil(TILE);
    for panel in 0..panels.len() {
        let shifts = Shifts::load(&shifts[panel * LANES..][..LANES]);
        for tile in 0..tiles {
            let (row, end) = (tile * x.len() / tiles, (tile + 1) * x.len() / tiles);
            let y = &mut y[row..end];
            match end - row {
                6 => tile_matmul::<1, 6>(panels, panel, &[shifts], x, row, y),
                5 => tile_matmul::<1, 5>(panels, panel, &[shifts], x, row, y),
                4 => tile_matmul::<1, 4>(panels, panel, &[shifts], x, row, y),
                3 => tile_matmul::<1, 3>(panels, panel, &[shifts], x, row, y),
                2 => tile_matmul::<1, 2>(panels, panel, &[shifts], x, row, y),
                _ => tile_matmul::<1, 1>(panels, panel, &[shifts], x, row, y),
            }
        }
    }
}

/// One row: two panels at a time, so that memory is read in two streams.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn single(panels: Panels<'_>, shifts: &[i8], x: Rows<'_>, y: &mut [&mut [i32]]) {
    let mut panel = 0;
    while panel + 2 <= panels.len() {
        let both = [0, 1].map(|i| Shifts::load(&shifts[(panel + i) * LANES..][..LANES]));
        tile_matmul::<2, 1>(panels, panel, &both, x, 0, y);
        panel += 2;
    }
    if panel < panels.len() {
        let last = [Shifts::load(&shifts[panel * LANES..][..LANES])];
        tile_matmul::<1, 1>(panels, panel, &last, x, 0, y);
    }
}

/// `P` panels from `panel` on times `T` rows from `row` on; `y` has a slice for each of them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile_matmul<const P: usize, const T: usize>(
    panels: Panels<'_>,
    panel: usize,
    shifts: &[Shifts; P],
    x: Rows<'_>,
    row: usize,
    y: &mut [&mut [i32]],
) {
    let sums = tile::<P, T>(panels, panel, x, row);
    for (p, (sums, shifts)) in sums.iter().zip(shifts).enumerate() {
        for (sums, y) in sums.iter().zip(y.iter_mut()) {
            let y = &mut y[(panel + p) * LANES..];
            let outputs = interleave(clamp(shifts.apply(*sums)));
            let lanes = y.len().min(LANES);
            // SAFETY: the mask lets through as many lanes as `y` is long, at most sixteen.
            unsafe {
                let mask = ((1u32 << lanes) - 1) as u16;
                _mm512_mask_storeu_epi32(y.as_mut_ptr(), mask, outputs);
            }
        }
    }
}

/// The 64-bit sums of even and of odd lanes.
type Sums = [__m512i; 2];

/// Exact products of `P` panels with `T` rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile<const P: usize, const T: usize>(
    panels: Panels<'_>,
    panel: usize,
    x: Rows<'_>,
    row: usize,
) -> [[Sums; T]; P] {
    let groups = panels.groups;
    assert_eq!(x.groups, groups, "panels and rows differ in groups");
    let quants = &panels.quants[panel * groups * GROUP * LANES..][..P * groups * GROUP * LANES];
    let scales = &panels.scales[panel * groups * LANES..][..P * groups * LANES];
    let q = &x.q[row * groups * GROUP..][..T * groups * GROUP];
    let terms = &x.terms[row * groups..][..T * groups];

    let mut sums = [[[_mm512_setzero_si512(); 2]; T]; P];
    for group in 0..groups {
        // SAFETY: `group` is below `groups`, `p` below `P`, `t` below `T` and `quad` below 8, and
        // the four slices were cut to `P` or `T` times `groups` groups above.
        unsafe {
            let term = |t: usize| terms.as_ptr().add(t * groups + group);
            let mut products = [[_mm512_setzero_si512(); T]; P];
            for (p, products) in products.iter_mut().enumerate() {
                let _ = p;
                for (t, product) in products.iter_mut().enumerate() {
                    *product = _mm512_set1_epi32((*term(t)).offset);
                }
            }
            for quad in 0..GROUP / QUAD {
                for (p, products) in products.iter_mut().enumerate() {
                    let line =
                        quants.as_ptr().add(((p * groups + group) * GROUP / QUAD + quad) * LINE);
                    let weights = _mm512_loadu_si512(line.cast());
                    for (t, product) in products.iter_mut().enumerate() {
                        let four = q.as_ptr().add((t * groups + group) * GROUP + quad * QUAD);
                        let four = _mm512_set1_epi32(four.cast::<i32>().read_unaligned());
                        *product = _mm512_dpbusd_epi32(*product, weights, four);
                    }
                }
            }
            for (p, (sums, products)) in sums.iter_mut().zip(products).enumerate() {
                let scale = scales.as_ptr().add((p * groups + group) * LANES);
                let scale = _mm512_cvtepu16_epi32(_mm256_loadu_si256(scale.cast()));
                for (t, (sums, product)) in sums.iter_mut().zip(products).enumerate() {
                    // 16 bits times 15 bits stay below 31 bits.
                    let scale = _mm512_mullo_epi32(scale, _mm512_set1_epi32((*term(t)).scale));
                    let odd = [product, scale].map(|v| _mm512_srli_epi64::<32>(v));
                    let even = _mm512_mul_epi32(product, scale);
                    let odd = _mm512_mul_epi32(odd[0], odd[1]);
                    *sums = [_mm512_add_epi64(sums[0], even), _mm512_add_epi64(sums[1], odd)];
                }
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
    let tiles = queries.len().div_ceil(TILE);
    for panel in 0..keys.len() {
        for tile in 0..tiles {
            let row = tile * queries.len() / tiles;
            let end = (tile + 1) * queries.len() / tiles;
            let at = Place { panel, row, stride };
            match end - row {
                6 => tile_scores::<6>(keys, queries, attention, scores, at),
                5 => tile_scores::<5>(keys, queries, attention, scores, at),
                4 => tile_scores::<4>(keys, queries, attention, scores, at),
                3 => tile_scores::<3>(keys, queries, attention, scores, at),
                2 => tile_scores::<2>(keys, queries, attention, scores, at),
                _ => tile_scores::<1>(keys, queries, attention, scores, at),
            }
        }
    }
}

/// Where a tile of scores lies.
#[derive(Clone, Copy)]
struct Place {
    panel: usize,
    row: usize,
    stride: usize,
}

/// Scores of one panel of keys with `T` queries.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile_scores<const T: usize>(
    keys: Panels<'_>,
    queries: Rows<'_>,
    attention: &Attention,
    scores: &mut [i32],
    at: Place,
) {
    // `frac_q` is at least 8, so the shift is not negative; it is zero at 8, and then so is half.
    let right = 2 * u32::from(attention.frac_q) - u32::from(WIDE_FRAC);
    let half = _mm512_set1_epi64((1i64 << right) >> 1);
    let right = _mm512_set1_epi64(i64::from(right));
    let factor = _mm512_set1_epi64(i64::from(attention.att_q30));
    let round = _mm512_set1_epi64(1 << 29);
    let [sums] = tile::<1, T>(keys, at.panel, queries, at.row);
    for (t, sums) in sums.into_iter().enumerate() {
        let narrow = sums.map(|v| _mm512_srav_epi64(_mm512_add_epi64(v, half), right));
        let scaled = clamp(narrow)
            .map(|v| _mm512_srai_epi64::<30>(_mm512_add_epi64(_mm512_mul_epi32(v, factor), round)));
        let scores = &mut scores[(at.row + t) * at.stride + at.panel * LANES..][..LANES];
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
