//! What `exact-1` is: every operation in the plainest form.
//!
//! This file is the definition. It works on one row at a time, in row-major order, and says
//! exactly where a number is rounded, shifted or clamped; sums of integers have no order. The
//! fast paths must match it bit for bit, and tests hold them to it.
//!
//! Notation: `Fx<f>` is an `i32` that stands for its value times `2^f`; `Qn` is an unsigned
//! fraction with `n` bits. `rsh` rounds half towards positive infinity, `/` on integers is
//! rounded towards negative infinity where the divisor is positive.

use crate::tables::{LOG2E_Q30, T1, T2};
use crate::{Activation, BLOCK, GROUP};

/// Fraction bits of a norm's gain.
pub const GAIN_FRAC: u8 = 12;
/// Fraction bits of the gate and up projections, of logits and of scores.
pub const WIDE_FRAC: u8 = 16;
/// Largest magnitude of a quantised number.
pub const QUANT_MAX: u32 = 127;
/// Largest scale of a group of activations.
pub const SCALE_MAX: u32 = 32_767;
/// Fraction bits that a number to be [`scaled`] has more than the result.
pub const SCALED_BITS: u8 = 6;
/// Fraction bits of the shares of experts.
pub const SHARE_FRAC: u8 = 15;
/// `round(2^30 · 0.044715)`.
const GELU_CUBE_Q30: i64 = 48_012_366;
/// `round(2^30 · 2 · sqrt(2 / π))`.
const GELU_SLOPE_Q30: i64 = 1_713_444_047;
/// `round(2^30 · 0.3275911 / sqrt(2))`.
const ERF_P_Q30: i64 = 248_723_584;
/// `round(2^30 · a / 2)` for the five factors of the approximation.
const ERF_Q30: [i64; 5] = [136_810_595, -152_738_022, 763_115_691, -780_155_054, 569_837_701];
/// Exponents from this one on make a power of two vanish.
const VANISHING: u64 = 40;

/// The nearest value that fits 32 bits.
pub fn sat32(v: i64) -> i32 {
    v.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

/// `v / 2^s`, rounded half towards positive infinity; exact to the left when `s` is not positive.
pub fn rsh(v: i64, s: i32) -> i64 {
    if s > 0 { (v + (1 << (s - 1))) >> s } else { v << -s }
}

/// Number of bits of `v` without leading zeros; 0 for 0.
pub fn bit_length(v: u64) -> u32 {
    u64::BITS - v.leading_zeros()
}

/// `2^-u` in `Q<fraction>` for `u` in `Fx<16>`; `fraction` is at most 30.
pub fn exp2neg(u: u64, fraction: u8) -> u32 {
    let whole = u >> 16;
    if whole >= VANISHING {
        return 0;
    }
    let (upper, lower) = ((u >> 8) & 255, u & 255);
    let power = rsh(i64::from(T1[upper as usize]) * i64::from(T2[lower as usize]), 30);
    rsh(power, whole as i32 + 30 - i32::from(fraction)) as u32
}

/// The logistic function of `x` in `Fx<16>`, as Q24.
pub fn sigmoid24(x: i32) -> i32 {
    let u = rsh(i64::from(x.unsigned_abs()) * i64::from(LOG2E_Q30), 30);
    let power = i64::from(exp2neg(u as u64, 24));
    let positive = ((1i64 << 48) / ((1 << 24) + power)) as i32;
    if x >= 0 { positive } else { (1 << 24) - positive }
}

/// `gate · sigmoid(gate) · up` for `gate` and `up` in `Fx<16>`, as `Fx<frac_out>`.
pub fn silu_mul(gate: i32, up: i32, frac_out: u8) -> i32 {
    let silu = sat32(rsh(i64::from(gate) * i64::from(sigmoid24(gate)), 24));
    sat32(rsh(i64::from(silu) * i64::from(up), 2 * i32::from(WIDE_FRAC) - i32::from(frac_out)))
}

/// `activation(x)` for `x` in `Fx<16>`, as `Fx<16>`.
pub fn activate(activation: Activation, x: i32) -> i32 {
    let share = match activation {
        Activation::Silu => sigmoid24(x),
        Activation::GeluTanh => gelu_share(x),
        Activation::GeluErf => normal24(x),
    };
    sat32(rsh(i64::from(x) * i64::from(share), 24))
}

/// `activated · up` for both in `Fx<16>`, as `Fx<frac_out>`.
pub fn gated(activated: i32, up: i32, frac_out: u8) -> i32 {
    let right = 2 * i32::from(WIDE_FRAC) - i32::from(frac_out);
    sat32(rsh(i64::from(activated) * i64::from(up), right))
}

/// The logistic function of `2 · sqrt(2 / π) · (x + 0.044715 · x³)`, which GELU's approximation
/// multiplies `x` in `Fx<16>` with, as Q24.
fn gelu_share(x: i32) -> i32 {
    // From 16 on the share is one to 24 bits.
    let x = i64::from(x.clamp(-(16 << 16), 16 << 16));
    let cube = rsh(rsh(x * x, 16) * x, 16);
    let sum = x + rsh(cube * GELU_CUBE_Q30, 30);
    sigmoid24(rsh(sum * GELU_SLOPE_Q30, 30) as i32)
}

/// The normal distribution function of `x` in `Fx<16>`, as Q24: half of
/// `1 + erf(x / sqrt(2))`, by the rational approximation 7.1.26 of Abramowitz and Stegun, whose
/// error is below 2^-22.
fn normal24(x: i32) -> i32 {
    let size = i64::from(x.unsigned_abs().min(16 << 16));
    // t = 1 / (1 + p · |x| / sqrt(2)) in Q30.
    let t = (1i64 << 60) / ((1 << 30) + rsh(size * ERF_P_Q30, 16));
    let series = ERF_Q30.iter().rev().fold(0, |sum, factor| rsh((sum + factor) * t, 30));
    // exp(-x² / 2) as a power of two in Q30.
    let exponent = rsh(rsh(size * size, 16) * i64::from(LOG2E_Q30), 31);
    let tail = rsh(series * i64::from(exp2neg(exponent as u64, 30)), 30);
    let below = rsh(tail, 6) as i32;
    if x >= 0 { (1 << 24) - below } else { below }
}

/// Subtracts from a row its mean, rounded half towards positive infinity.
pub fn centre(x: &mut [i32]) {
    let (sum, count) = (x.iter().map(|v| i64::from(*v)).sum::<i64>(), x.len() as i64);
    let mean = (2 * sum + count).div_euclid(2 * count);
    x.iter_mut().for_each(|v| *v = sat32(i64::from(*v) - mean));
}

/// `x` in `Fx<frac>` plus a bias in `Fx<16>`, clamped; `frac` is at most 16.
pub fn add_bias(x: i32, bias: i32, frac: u8) -> i32 {
    let bias = rsh(i64::from(bias), i32::from(WIDE_FRAC) - i32::from(frac));
    sat32(i64::from(x) + bias)
}

/// `x` times a factor in Q16, with [`SCALED_BITS`] fraction bits fewer.
pub fn scaled(x: i32, factor_q16: i64) -> i32 {
    sat32(rsh(i64::from(x) * factor_q16, 16 + i32::from(SCALED_BITS)))
}

/// Quantises one group: the numbers in -127..=127 and their scale in 1..=32767.
///
/// Each number is the nearest multiple of the scale, halves away from zero.
pub fn quantise_group(x: &[i32]) -> (Vec<i8>, u16) {
    let largest = x.iter().map(|v| v.unsigned_abs()).max().unwrap_or(0);
    let scale = largest.div_ceil(QUANT_MAX).clamp(1, SCALE_MAX);
    let number = |v: &i32| {
        let magnitude = (2 * u64::from(v.unsigned_abs()) + u64::from(scale)) / u64::from(2 * scale);
        let magnitude = magnitude.min(u64::from(QUANT_MAX)) as i8;
        if *v < 0 { -magnitude } else { magnitude }
    };
    (x.iter().map(number).collect(), scale as u16)
}

/// Quantises a row in groups of [`GROUP`], filled up with zeros to `padded` numbers.
pub fn quantise(x: &[i32], padded: usize) -> (Vec<i8>, Vec<u16>) {
    let mut filled = x.to_vec();
    filled.resize(padded, 0);
    let (mut q, mut scales) = (Vec::new(), Vec::new());
    for group in filled.chunks(GROUP) {
        let (numbers, scale) = quantise_group(group);
        q.extend(numbers);
        scales.push(scale);
    }
    (q, scales)
}

/// The exact inner product of two quantised rows, group by group. The scales of weights of four
/// bits have a sign.
pub fn dot<S: Copy + Into<i64>>(a: (&[i8], &[S]), b: (&[i8], &[u16])) -> i64 {
    let groups = a.0.chunks(GROUP).zip(b.0.chunks(GROUP));
    let scales = a.1.iter().zip(b.1);
    groups
        .zip(scales)
        .map(|((a, b), (sa, sb))| {
            let sum: i64 = a.iter().zip(b).map(|(a, b)| i64::from(*a) * i64::from(*b)).sum();
            sum * (*sa).into() * i64::from(*sb)
        })
        .sum()
}

/// One output of a matrix product: `shift` is the row's exponent plus the fraction bits that go
/// in, minus those that come out.
pub fn matmul<S: Copy + Into<i64>>(weights: (&[i8], &[S]), x: (&[i8], &[u16]), shift: i32) -> i32 {
    sat32(rsh(dot(weights, x), shift))
}

/// One element of an embedding row: number, scale and row exponent become `Fx<frac_residual>`.
pub fn embed(q: i8, scale: i32, exponent: i8, frac_residual: u8) -> i32 {
    // Beyond these shifts every product of 8 and 16 bits is saturated, or zero, as it is at them.
    let shift = (i32::from(exponent) - i32::from(frac_residual)).clamp(-40, 62);
    sat32(rsh(i64::from(q) * i64::from(scale), shift))
}

/// The sum of two numbers, clamped.
pub fn add(x: i32, y: i32) -> i32 {
    sat32(i64::from(x) + i64::from(y))
}

/// Root-mean-square norm of a row, times a gain in `Fx<12>`, as `Fx<frac_out>`.
///
/// `eps_q` is epsilon in twice the fraction bits of `x`.
pub fn rmsnorm(x: &[i32], gain: &[i32], eps_q: u32, frac_out: u8) -> Vec<i32> {
    let largest = x.iter().map(|v| v.unsigned_abs()).max().unwrap_or(0);
    // 24 bits keep the sum of squares below 64 bits.
    let shift = bit_length(u64::from(largest)).saturating_sub(24);
    let narrow: Vec<i64> = x.iter().map(|v| i64::from(v >> shift)).collect();
    let sum: u64 = narrow.iter().map(|v| (v * v) as u64).sum();
    let (scale, right) = inverse_root(sum, x.len(), u64::from(eps_q), shift);
    let last = i32::from(GAIN_FRAC) + 20 - i32::from(frac_out);
    let normed = narrow.iter().map(|v| rsh(v * scale as i64, right));
    normed.zip(gain).map(|(n, gain)| sat32(rsh(n * i64::from(*gain), last))).collect()
}

/// The factor and the right shift that take a row of `len` numbers, already shifted right by
/// `shift` and with this `sum` of squares, to a root mean square of one in `Fx<20>`.
///
/// The factor lies in `2^30..=2^31`, the shift in 11..=35.
pub fn inverse_root(sum: u64, len: usize, eps_q: u64, shift: u32) -> (u64, i32) {
    let mean = sum / len as u64 + (eps_q >> (2 * shift)).max(1);
    let half = (62 - bit_length(mean)) / 2;
    let factor = (1u64 << 61) / (mean << (2 * half)).isqrt();
    (factor, 41 - half as i32)
}

/// Turns the pair `(a, b)` by an angle whose cosine and sine are in Q30.
pub fn rope(a: i32, b: i32, cos: i32, sin: i32) -> (i32, i32) {
    let [a, b, cos, sin] = [a, b, cos, sin].map(i64::from);
    (sat32(rsh(a * cos - b * sin, 30)), sat32(rsh(b * cos + a * sin, 30)))
}

/// The score of one position, in `Fx<16>` powers of two, from the inner product of the quantised
/// query and key, both `Fx<frac_q>`; `att_q30` is [`crate::tables::att_q30`].
pub fn score(dot: i64, frac_q: u8, att_q30: i32) -> i32 {
    let right = 2 * i32::from(frac_q) - i32::from(WIDE_FRAC);
    // 30 bits less than 31: |att_q30| < 2^29 for every head of at least 32.
    rsh(i64::from(sat32(rsh(dot, right))) * i64::from(att_q30), 30) as i32
}

/// The weight of every position, Q22 with the largest at one, and their sum.
pub fn softmax(scores: &[i32]) -> (Vec<u32>, u64) {
    let largest = scores.iter().copied().max().unwrap_or(0);
    let below = |score: &i32| (i64::from(largest) - i64::from(*score)) as u64;
    let weights: Vec<u32> = scores.iter().map(|score| exp2neg(below(score), 22)).collect();
    let sum = weights.iter().map(|w| u64::from(*w)).sum();
    (weights, sum)
}

/// Within one block of positions: the weights times the scales of one group of values, brought to
/// 15 bits, and the shift that takes sums of them back.
pub fn scaled_weights(weights: &[u32], scales: &[u16]) -> (Vec<i16>, u32) {
    let scaled: Vec<u64> =
        weights.iter().zip(scales).map(|(w, s)| u64::from(*w) * u64::from(*s)).collect();
    let largest = scaled.iter().copied().max().unwrap_or(0);
    let shift = bit_length(largest).saturating_sub(15);
    let narrow = |v: &u64| rsh(*v as i64, shift as i32).min(32_767) as i16;
    (scaled.iter().map(narrow).collect(), shift)
}

/// The weighted mean from its numerator, as `Fx<frac_out>` from `Fx<frac_v>`.
pub fn mean(numerator: i64, weights: u64, frac_v: u8, frac_out: u8) -> i32 {
    let sum = weights as i64;
    let rounded = sat32((2 * numerator + sum).div_euclid(2 * sum));
    sat32(rsh(i64::from(rounded), i32::from(frac_v) - i32::from(frac_out)))
}

/// The keys or values of one head: quantised rows of `head_dim`, one per position.
pub type Records<'a> = [(&'a [i8], &'a [u16])];

/// Attention of one query head over all the given positions, as `Fx<frac_out>`.
///
/// Positions count from zero and blocks of [`BLOCK`] positions are absolute, so a prefix gives
/// the same partial sums whatever follows it.
pub fn attend(
    query: (&[i8], &[u16]),
    keys: &Records<'_>,
    values: &Records<'_>,
    att_q30: i32,
    fractions: [u8; 3],
) -> Vec<i32> {
    attend_from(0, query, keys, values, att_q30, fractions)
}

/// As [`attend`], over the positions from `first` on: those before have a weight of zero, and
/// blocks stay where they are.
pub fn attend_from(
    first: usize,
    query: (&[i8], &[u16]),
    keys: &Records<'_>,
    values: &Records<'_>,
    att_q30: i32,
    [frac_q, frac_v, frac_out]: [u8; 3],
) -> Vec<i32> {
    let scores: Vec<i32> =
        keys[first..].iter().map(|key| score(dot(query, *key), frac_q, att_q30)).collect();
    let (seen, sum) = softmax(&scores);
    let weights = [vec![0; first], seen].concat();
    let output = |dim: usize| {
        let blocks = weights.chunks(BLOCK).zip(values.chunks(BLOCK));
        let numerator = blocks.map(|(weights, values)| {
            let scales: Vec<u16> = values.iter().map(|(_, s)| s[dim / GROUP]).collect();
            let (narrow, shift) = scaled_weights(weights, &scales);
            let products = narrow.iter().zip(values);
            products.map(|(p, (q, _))| i64::from(*p) * i64::from(q[dim])).sum::<i64>() << shift
        });
        mean(numerator.sum(), sum, frac_v, frac_out)
    };
    (0..query.0.len()).map(output).collect()
}

/// The experts with the `chosen` largest logits in `Fx<16>`, largest first and of equal ones the lower
/// index, each with its share in Q15: the softmax over the chosen.
pub fn route(logits: &[i32], chosen: usize) -> Vec<(usize, i32)> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    // Stable, so that equal ones stay in ascending order.
    order.sort_by_key(|expert| std::cmp::Reverse(logits[*expert]));
    order.truncate(chosen);
    let largest = order.first().map_or(0, |expert| logits[*expert]);
    let power = |expert: &usize| {
        let below = i64::from(largest) - i64::from(logits[*expert]);
        // Below 2^32 times below 2^31: no overflow.
        u64::from(exp2neg(rsh(below * i64::from(LOG2E_Q30), 30) as u64, 22))
    };
    let powers: Vec<u64> = order.iter().map(power).collect();
    let sum: u64 = powers.iter().sum();
    let share = |power: u64| (((power << (1 + SHARE_FRAC)) + sum) / (2 * sum)) as i32;
    order.into_iter().zip(powers.into_iter().map(share)).collect()
}

/// One number of what a row's experts found together: the sum of their numbers times their shares in
/// Q15, rounded once.
pub fn mix(found: impl Iterator<Item = (i32, i32)>) -> i32 {
    let sum: i64 = found.map(|(number, share)| i64::from(number) * i64::from(share)).sum();
    sat32(rsh(sum, SHARE_FRAC.into()))
}

/// Index of the largest number; the lowest of equal ones.
pub fn argmax(x: &[i32]) -> usize {
    let mut best = 0;
    for (i, v) in x.iter().enumerate() {
        if *v > x[best] {
            best = i;
        }
    }
    best
}
