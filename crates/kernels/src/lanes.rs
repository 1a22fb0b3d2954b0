//! The fast twin in plain Rust: loops that a compiler turns into whatever lanes it is given.
//!
//! Every function is inlined into its caller, so that the same text is compiled once per
//! instruction set. Where a division is replaced by floating point, a comment proves the result.

use crate::attend::Attention;
use crate::cpu::{Angles, Norm, Pairing, Rope};
use crate::format::Format;
use crate::keccak::{self, States};
use crate::path::{Path, RowsMut, Values};
use crate::quantised::{Rows, Term};
use crate::reference::{self, GAIN_FRAC, QUANT_MAX, SCALE_MAX, WIDE_FRAC, inverse_root};
use crate::tables::{LOG2E_Q30, T1, T2};
use crate::weights::{LANES, Panels, QUAD, SIGN};
use crate::{BLOCK, GROUP};

/// Runs anywhere.
pub(crate) struct Plain;

impl Path for Plain {
    fn quantise(&self, x: &[i32], columns: usize, out: RowsMut<'_>) {
        quantise(x, columns, out);
    }

    fn rmsnorm(&self, x: &[i32], gain: &[i32], norm: &Norm, y: &mut [i32]) {
        rmsnorm(x, gain, norm, y);
    }

    fn rope(&self, x: &mut [i32], turn: &Rope, angles: &[Angles<'_>]) {
        rope(x, turn, angles);
    }

    fn swiglu(&self, gate: &[i32], up: &[i32], frac_out: u8, y: &mut [i32]) {
        swiglu(gate, up, frac_out, y);
    }

    fn add(&self, x: &mut [i32], y: &[i32]) {
        add(x, y);
    }

    fn matmul(&self, panels: Panels<'_>, shifts: &[i8], x: Rows<'_>, y: &mut [&mut [i32]]) {
        for panel in 0..panels.len() {
            let shifts = &shifts[panel * LANES..][..LANES];
            for (row, y) in y.iter_mut().enumerate() {
                let dots = panel_dots(panels, panel, x, row);
                let outputs = y.iter_mut().skip(panel * LANES);
                for ((y, dot), shift) in outputs.zip(dots).zip(shifts) {
                    *y = reference::sat32(reference::rsh(dot, i32::from(*shift)));
                }
            }
        }
    }

    fn scores(
        &self,
        keys: Panels<'_>,
        queries: Rows<'_>,
        attention: &Attention,
        scores: &mut [i32],
        stride: usize,
    ) {
        let (frac_q, att_q30) = (attention.frac_q, attention.att_q30);
        for panel in 0..keys.len() {
            for row in 0..queries.len() {
                let dots = panel_dots(keys, panel, queries, row);
                let scores = &mut scores[row * stride + panel * LANES..][..LANES];
                for (score, dot) in scores.iter_mut().zip(dots) {
                    *score = reference::score(dot, frac_q, att_q30);
                }
            }
        }
    }

    fn softmax(&self, scores: &[i32], weights: &mut [u32]) -> u64 {
        softmax(scores, weights)
    }

    fn blend(&self, values: Values<'_>, weights: &[u32], stride: usize, sums: &mut [i64]) {
        let groups = values.scales.len() / BLOCK;
        let head_dim = groups * GROUP;
        for (row, sums) in sums.chunks_mut(head_dim).enumerate() {
            let weights = &weights[row * stride..][..BLOCK];
            for group in 0..groups {
                let mut narrow = [0; BLOCK];
                let scales = &values.scales[group * BLOCK..][..BLOCK];
                let shift = scaled_weights(weights, scales, &mut narrow);
                let mut products = [0i32; GROUP];
                for (pair, weights) in narrow.chunks_exact(2).enumerate() {
                    let q = &values.q[(pair * head_dim + group * GROUP) * 2..][..GROUP * 2];
                    for (product, q) in products.iter_mut().zip(q.chunks_exact(2)) {
                        *product += i32::from(weights[0]) * i32::from(q[0])
                            + i32::from(weights[1]) * i32::from(q[1]);
                    }
                }
                for (sum, product) in sums[group * GROUP..].iter_mut().zip(products) {
                    *sum += i64::from(product) << shift;
                }
            }
        }
    }

    fn means(&self, sums: &[i64], weights: u64, attention: &Attention, y: &mut [i32]) {
        means(sums, weights, attention, y);
    }

    fn keccak(&self, states: &mut States) {
        keccak::permute(states);
    }
}

/// The exact products of one panel with one row.
fn panel_dots(panels: Panels<'_>, panel: usize, x: Rows<'_>, row: usize) -> [i64; LANES] {
    let Panels { format, groups, .. } = panels;
    let bytes = format.bytes(GROUP * LANES);
    let mut sums = [0i64; LANES];
    for group in 0..groups {
        let numbers = &panels.quants[(panel * groups + group) * bytes..][..bytes];
        let scales = &panels.scales[(panel * groups + group) * LANES..][..LANES];
        let at = row * groups + group;
        let products = match format {
            Format::W8 => dots_w8(numbers, &x.q[at * GROUP..][..GROUP]),
            Format::W4 => dots_w4(numbers, &x.q[at * GROUP..][..GROUP]),
        };
        // Both scales together have less than 31 bits.
        let x_scale = x.terms[at].scale;
        for ((sum, product), scale) in sums.iter_mut().zip(products).zip(scales) {
            *sum += i64::from(product) * i64::from(format.scale(*scale) * x_scale);
        }
    }
    sums
}

/// The products of a group of a panel, lines of four columns, with a group of a row.
fn dots_w8(lines: &[u8], x: &[i8]) -> [i32; LANES] {
    let mut products = [0i32; LANES];
    for (w, x) in lines.chunks_exact(LANES * QUAD).zip(x.chunks_exact(QUAD)) {
        for (product, w) in products.iter_mut().zip(w.chunks_exact(QUAD)) {
            for (w, x) in w.iter().zip(x) {
                *product += i32::from((w ^ SIGN) as i8) * i32::from(*x);
            }
        }
    }
    products
}

/// The same with lines of eight columns, two in a byte.
fn dots_w4(lines: &[u8], x: &[i8]) -> [i32; LANES] {
    let mut products = [0i32; LANES];
    for (w, x) in lines.chunks_exact(LANES * QUAD).zip(x.chunks_exact(2 * QUAD)) {
        let (lower, upper) = x.split_at(QUAD);
        for (product, w) in products.iter_mut().zip(w.chunks_exact(QUAD)) {
            for ((w, lower), upper) in w.iter().zip(lower).zip(upper) {
                *product += (i32::from(w & 15) - 8) * i32::from(*lower)
                    + (i32::from(w >> 4) - 8) * i32::from(*upper);
            }
        }
    }
    products
}

/// The nearest value that fits 32 bits.
#[inline(always)]
fn sat32(v: i64) -> i32 {
    v.clamp(i32::MIN as i64, i32::MAX as i64) as i32
}

/// `v / 2^s` for `s` in 1..=62, rounded half towards positive infinity.
#[inline(always)]
fn round_shift(v: i64, s: u32) -> i64 {
    (v + (1 << (s - 1))) >> s
}

/// Quantises rows; see [`Path::quantise`].
#[inline(always)]
pub(crate) fn quantise(x: &[i32], columns: usize, out: RowsMut<'_>) {
    let groups = out.columns / GROUP;
    let rows = out
        .q
        .chunks_exact_mut(out.columns)
        .zip(out.scales.chunks_exact_mut(groups))
        .zip(out.terms.chunks_exact_mut(groups));
    for (x, ((q, scales), terms)) in x.chunks_exact(columns).zip(rows) {
        let whole = x.chunks_exact(GROUP);
        let mut last = [0; GROUP];
        last[..whole.remainder().len()].copy_from_slice(whole.remainder());
        let zeros = [0; GROUP];
        let filled = whole.chain([&last[..]]).chain(std::iter::repeat(&zeros[..]));
        let groups = q.chunks_exact_mut(GROUP).zip(scales).zip(terms);
        for (x, ((q, scale), term)) in filled.zip(groups) {
            (*scale, *term) = quantise_group(x, q);
        }
    }
}

/// Quantises one group; gives its scale, and what the kernels need of it.
#[inline(always)]
fn quantise_group(x: &[i32], q: &mut [i8]) -> (u16, Term) {
    let mut largest = 0;
    for v in x {
        largest = v.unsigned_abs().max(largest);
    }
    let scale = largest.div_ceil(QUANT_MAX).clamp(1, SCALE_MAX);
    let mut sum = 0;
    for (q, v) in q.iter_mut().zip(x) {
        let magnitude = quantise_one(v.unsigned_abs(), scale as f32);
        let number = if *v < 0 { -magnitude } else { magnitude };
        sum += number;
        *q = number as i8;
    }
    (scale as u16, Term::new(sum, scale as i32))
}

/// `min(127, floor((2·magnitude + scale) / (2·scale)))` for the scale of the magnitude's group.
///
/// The cut to `127 · 32767` changes nothing: a larger magnitude has scale 32767, and 127 is the
/// result for both. Now the quotient is at most 127 and both operands are exact in 24 bits. A
/// quotient that is no half-integer is at least `1 / (2·scale) > 2^-17` away from one, and
/// half-integers, their neighbours at `2^-17` below 128 included, are exact; division rounds
/// monotonically. So adding `2^-17` lifts exact halves over the tie and nothing else over it, and
/// adding `2^23` rounds to the nearest integer, which then stands in the low bits.
/// A test tries every quotient next to a half-integer.
#[inline(always)]
fn quantise_one(magnitude: u32, scale: f32) -> i32 {
    let magnitude = magnitude.min(QUANT_MAX * SCALE_MAX) as i32;
    let lifted = magnitude as f32 / scale + 1.0 / 131_072.0;
    ((lifted + 8_388_608.0).to_bits() & 0xFF) as i32
}

/// Norms rows; see [`Path::rmsnorm`].
#[inline(always)]
pub(crate) fn rmsnorm(x: &[i32], gain: &[i32], norm: &Norm, y: &mut [i32]) {
    for (x, y) in x.chunks_exact(gain.len()).zip(y.chunks_exact_mut(gain.len())) {
        let mut largest = 0;
        for v in x {
            largest = v.unsigned_abs().max(largest);
        }
        let shift = reference::bit_length(u64::from(largest)).saturating_sub(24);
        let mut sum = 0i64;
        for v in x {
            let narrow = v >> shift;
            sum += i64::from(narrow) * i64::from(narrow);
        }
        let (factor, right) = inverse_root(sum as u64, gain.len(), u64::from(norm.eps_q), shift);
        // 2^31 as a factor does not fit 32 bits; -2^31 times the negated numbers is the same.
        let sign = if factor == 1 << 31 { -1 } else { 1 };
        let factor = i64::from(factor as u32 as i32);
        let last = u32::from(GAIN_FRAC) + 20 - u32::from(norm.frac_out);
        for ((y, v), gain) in y.iter_mut().zip(x).zip(gain) {
            // |n| < 2^20 · sqrt(columns) · (1 + 2^-29) < 2^28, so the cut to 32 bits is exact.
            let n = round_shift(i64::from((v >> shift) * sign) * factor, right as u32) as i32;
            *y = sat32(round_shift(i64::from(n) * i64::from(*gain), last));
        }
    }
}

/// Turns heads; see [`Path::rope`].
#[inline(always)]
pub(crate) fn rope(x: &mut [i32], turn: &Rope, angles: &[Angles<'_>]) {
    let half = turn.head_dim / 2;
    for (row, angles) in x.chunks_exact_mut(turn.row_stride).zip(angles) {
        let (cos, sin) = (&angles.cos[..half], &angles.sin[..half]);
        for head in row[..turn.heads * turn.head_dim].chunks_exact_mut(turn.head_dim) {
            match turn.pairing {
                Pairing::Halves => {
                    let (a, b) = head.split_at_mut(half);
                    for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                        (*a, *b) = turn_pair(*a, *b, *cos, *sin);
                    }
                }
                Pairing::Adjacent => {
                    for ((pair, cos), sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                        (pair[0], pair[1]) = turn_pair(pair[0], pair[1], *cos, *sin);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn turn_pair(a: i32, b: i32, cos: i32, sin: i32) -> (i32, i32) {
    let (a, b, cos, sin) = (i64::from(a), i64::from(b), i64::from(cos), i64::from(sin));
    (sat32(round_shift(a * cos - b * sin, 30)), sat32(round_shift(b * cos + a * sin, 30)))
}

/// `2^-u` in `Q<30 - DROPPED>` for `u` in `Fx<16>`; at least 1 bit is dropped.
///
/// With `DROPPED >= 1`, a shift of 32 or more leaves nothing of a number of at most `2^30`, and
/// below that the number and its rounding fit 32 bits.
#[inline(always)]
fn exp2neg<const DROPPED: u32>(u: u32) -> u32 {
    let (upper, lower) = (u >> 8 & 255, u & 255);
    let power = i64::from(T1[upper as usize]) * i64::from(T2[lower as usize]);
    let power = round_shift(power, 30) as u32;
    let shift = (u >> 16) + DROPPED;
    let rounded = (power + (1 << ((shift - 1) & 31))) >> (shift & 31);
    if shift < 32 { rounded } else { 0 }
}

/// Gates elements; see [`Path::swiglu`].
#[inline(always)]
pub(crate) fn swiglu(gate: &[i32], up: &[i32], frac_out: u8, y: &mut [i32]) {
    let last = 2 * u32::from(WIDE_FRAC) - u32::from(frac_out);
    for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
        let u = round_shift(i64::from(gate.unsigned_abs()) * i64::from(LOG2E_Q30), 30) as u32;
        let positive = inverse_q48(exp2neg::<6>(u));
        let sigmoid = if *gate >= 0 { positive } else { (1 << 24) - positive };
        // A sigmoid is at most 1, so the product of both is no larger than the gate.
        let silu = round_shift(i64::from(*gate) * i64::from(sigmoid), 24) as i32;
        *y = sat32(round_shift(i64::from(silu) * i64::from(*up), last));
    }
}

/// `floor(2^48 / (2^24 + power))` for a power of at most `2^24`.
///
/// The quotient lies in `2^23..=2^24`, so its 53-bit value is within `2^-30` of the truth, and a
/// quotient that is no integer is at least `1 / 2^25` away from one: less a half it is nearest to
/// its floor. The integers among them are `2^23` and `2^24`, as no other divisor divides a power
/// of two; less a half they are ties, which go to the even number, themselves. Adding `2^52` does
/// this rounding, into the low bits.
#[inline(always)]
fn inverse_q48(power: u32) -> i32 {
    let quotient = 281_474_976_710_656.0 / ((1 << 24) + power as i32) as f64;
    (quotient - 0.5 + 4_503_599_627_370_496.0).to_bits() as i32
}

/// Adds elements; see [`Path::add`].
#[inline(always)]
pub(crate) fn add(x: &mut [i32], y: &[i32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x = x.saturating_add(*y);
    }
}

/// The largest number; see [`Path::largest`].
#[inline(always)]
pub(crate) fn largest(x: &[i32]) -> i32 {
    let mut largest = i32::MIN;
    for v in x {
        largest = largest.max(*v);
    }
    largest
}

/// Weights from scores; see [`Path::softmax`].
#[inline(always)]
pub(crate) fn softmax(scores: &[i32], weights: &mut [u32]) -> u64 {
    let largest = largest(scores);
    let mut sum = 0;
    for (weight, score) in weights.iter_mut().zip(scores) {
        // The difference of two 32-bit numbers, the larger first, fits 32 bits without a sign.
        *weight = exp2neg::<8>(largest.wrapping_sub(*score) as u32);
        sum += u64::from(*weight);
    }
    sum
}

/// 15-bit weights of a block, and their shift; see [`reference::scaled_weights`].
#[inline(always)]
pub(crate) fn scaled_weights(weights: &[u32], scales: &[u16], narrow: &mut [i16; BLOCK]) -> u32 {
    let mut scaled = [0u64; BLOCK];
    let mut all = 0;
    for ((scaled, weight), scale) in scaled.iter_mut().zip(weights).zip(scales) {
        *scaled = u64::from(*weight) * u64::from(*scale);
        all |= *scaled;
    }
    // The union of all bits is as long as the largest number.
    let shift = reference::bit_length(all).saturating_sub(15);
    let half = (1u64 << shift) >> 1;
    for (narrow, scaled) in narrow.iter_mut().zip(scaled) {
        *narrow = ((scaled + half) >> shift).min(32_767) as i16;
    }
    shift
}

/// Weighted means; see [`Path::means`].
#[inline(always)]
pub(crate) fn means(sums: &[i64], weights: u64, attention: &Attention, y: &mut [i32]) {
    let (frac_v, frac_out) = (i32::from(attention.frac_v), i32::from(attention.frac_out));
    let weights = weights as i64;
    let inverse = 1.0 / (2 * weights) as f64;
    for (y, sum) in y.iter_mut().zip(sums) {
        let mean = sat32(divide(2 * sum + weights, 2 * weights, inverse));
        *y = sat32(reference::rsh(i64::from(mean), frac_v - frac_out));
    }
}

/// `floor(n / d)` for a positive `d` and a quotient below `2^50`.
///
/// The estimate, rounded to the nearest integer by adding `1.5 · 2^52`, is the floor or the
/// integer above it, or one off either; the remainder tells which.
#[inline(always)]
fn divide(n: i64, d: i64, inverse: f64) -> i64 {
    const MAGIC: f64 = 6_755_399_441_055_744.0;
    let estimate = (n as f64 * inverse + MAGIC).to_bits() as i64 - MAGIC.to_bits() as i64;
    let remainder = n - estimate * d;
    estimate + i64::from(remainder >= d) - i64::from(remainder < 0)
}
