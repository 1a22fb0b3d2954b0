//! Powers of two with 512-bit registers: gates and the weights of attention.
//!
//! A table of 256 numbers is sixteen registers. Looking sixteen numbers up in it by permutations
//! takes half the time of a gather.

use std::arch::x86_64::*;

use crate::lanes;
use crate::reference::WIDE_FRAC;
use crate::tables::{LOG2E_Q30, T1, T2};

/// 32-bit lanes of a register.
const LANES: usize = 16;
/// Fraction bits of a logistic function.
const SIGMOID_FRAC: u32 = 24;

/// See [`crate::path::Path::swiglu`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn swiglu(gate: &[i32], up: &[i32], frac_out: u8, y: &mut [i32]) {
    let right = 2 * u32::from(WIDE_FRAC) - u32::from(frac_out);
    let whole = y.len() / LANES * LANES;
    let (gates, gates_left) = gate.split_at(whole);
    let (ups, ups_left) = up.split_at(whole);
    let (outputs, outputs_left) = y.split_at_mut(whole);
    let inputs = gates.chunks_exact(LANES).zip(ups.chunks_exact(LANES));
    for (y, (gate, up)) in outputs.chunks_exact_mut(LANES).zip(inputs) {
        // SAFETY: all three slices have sixteen elements.
        unsafe {
            let gate = _mm512_loadu_si512(gate.as_ptr().cast());
            let up = _mm512_loadu_si512(up.as_ptr().cast());
            _mm512_storeu_si512(y.as_mut_ptr().cast(), gated(gate, up, right));
        }
    }
    lanes::swiglu(gates_left, ups_left, frac_out, outputs_left);
}

/// `silu(gate) · up`, shifted right by `right` in 1..=32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn gated(gate: __m512i, up: __m512i, right: u32) -> __m512i {
    let log2e = _mm512_set1_epi32(LOG2E_Q30);
    let power = exp2neg::<6>(scaled::<30, 2>(_mm512_abs_epi32(gate), log2e));
    let positive = inverse_q48(power);
    let one = _mm512_set1_epi32(1 << SIGMOID_FRAC);
    let negative = _mm512_movepi32_mask(gate);
    let sigmoid = _mm512_mask_sub_epi32(positive, negative, one, positive);
    // A sigmoid is at most 1, so the product of both is no larger than the gate.
    let half = _mm512_set1_epi64(1 << (SIGMOID_FRAC - 1));
    let [even, odd] = products(gate, sigmoid).map(|v| _mm512_add_epi64(v, half));
    let silu = interleave(_mm512_srli_epi64::<24>(even), _mm512_slli_epi64::<8>(odd));

    let half = _mm512_set1_epi64(1 << (right - 1));
    let right = _mm_cvtsi64_si128(i64::from(right));
    let (low, high) = (_mm512_set1_epi64(i32::MIN as i64), _mm512_set1_epi64(i32::MAX as i64));
    let [even, odd] = products(silu, up).map(|v| {
        let v = _mm512_sra_epi64(_mm512_add_epi64(v, half), right);
        _mm512_max_epi64(_mm512_min_epi64(v, high), low)
    });
    interleave(even, _mm512_slli_epi64::<32>(odd))
}

/// See [`crate::path::Path::softmax`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn softmax(scores: &[i32], weights: &mut [u32]) -> u64 {
    let largest = _mm512_set1_epi32(lanes::largest(scores));
    let mut sums = [_mm512_setzero_si512(); 2];
    for (scores, weights) in scores.chunks(LANES).zip(weights.chunks_mut(LANES)) {
        let count = scores.len().min(weights.len());
        let mask = (u32::MAX >> (32 - count as u32)) as u16;
        // SAFETY: the mask lets through as many lanes as both slices have elements.
        unsafe {
            let score = _mm512_maskz_loadu_epi32(mask, scores.as_ptr());
            // The difference of two 32-bit numbers, the larger first, fits 32 bits without a sign.
            let weight = exp2neg::<8>(_mm512_sub_epi32(largest, score));
            _mm512_mask_storeu_epi32(weights.as_mut_ptr().cast(), mask, weight);
            let weight = _mm512_maskz_mov_epi32(mask, weight);
            let even = _mm512_maskz_mov_epi32(0x5555, weight);
            let odd = _mm512_srli_epi64::<32>(weight);
            sums = [_mm512_add_epi64(sums[0], even), _mm512_add_epi64(sums[1], odd)];
        }
    }
    _mm512_reduce_add_epi64(_mm512_add_epi64(sums[0], sums[1])) as u64
}

/// `2^-u` in `Q<30 - DROPPED>`; see [`lanes`]. A vector shift by 32 or more leaves nothing.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn exp2neg<const DROPPED: i32>(u: __m512i) -> __m512i {
    let upper = look_up(&T1, _mm512_srli_epi32::<8>(u));
    let lower = look_up(&T2, u);
    let power = scaled::<30, 2>(upper, lower);
    let shift = _mm512_add_epi32(_mm512_srli_epi32::<16>(u), _mm512_set1_epi32(DROPPED));
    let one = _mm512_set1_epi32(1);
    let half = _mm512_sllv_epi32(one, _mm512_sub_epi32(shift, one));
    _mm512_srlv_epi32(_mm512_add_epi32(power, half), shift)
}

/// The entries that the low bytes of sixteen indices name.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn look_up(table: &[i32; 256], index: __m512i) -> __m512i {
    // SAFETY: eight times 32 entries are the 256 of the table.
    let part = |i: usize| unsafe {
        let part = table.as_ptr().add(32 * i);
        let lower = _mm512_loadu_si512(part.cast());
        let upper = _mm512_loadu_si512(part.add(LANES).cast());
        _mm512_permutex2var_epi32(lower, index, upper)
    };
    let bit = |bit: i32| _mm512_test_epi32_mask(index, _mm512_set1_epi32(bit));
    let (b5, b6, b7) = (bit(32), bit(64), bit(128));
    let pair = |i: usize| _mm512_mask_blend_epi32(b5, part(i), part(i + 1));
    let lower = _mm512_mask_blend_epi32(b6, pair(0), pair(2));
    let upper = _mm512_mask_blend_epi32(b6, pair(4), pair(6));
    _mm512_mask_blend_epi32(b7, lower, upper)
}

/// `a · b / 2^RIGHT`, rounded half up, of numbers without a sign; `LEFT` is `32 - RIGHT`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn scaled<const RIGHT: u32, const LEFT: u32>(a: __m512i, b: __m512i) -> __m512i {
    const { assert!(RIGHT + LEFT == 32, "odd lanes end up in the upper half") };
    let half = _mm512_set1_epi64(1 << (RIGHT - 1));
    let [a_odd, b_odd] = [a, b].map(|v| _mm512_srli_epi64::<32>(v));
    let even = _mm512_add_epi64(_mm512_mul_epu32(a, b), half);
    let odd = _mm512_add_epi64(_mm512_mul_epu32(a_odd, b_odd), half);
    interleave(_mm512_srli_epi64::<RIGHT>(even), _mm512_slli_epi64::<LEFT>(odd))
}

/// The products of even and of odd lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn products(a: __m512i, b: __m512i) -> [__m512i; 2] {
    let [a_odd, b_odd] = [a, b].map(|v| _mm512_srli_epi64::<32>(v));
    [_mm512_mul_epi32(a, b), _mm512_mul_epi32(a_odd, b_odd)]
}

/// The lower halves of `even` and the upper halves of `odd`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn interleave(even: __m512i, odd: __m512i) -> __m512i {
    _mm512_mask_blend_epi32(0xAAAA, even, odd)
}

/// `floor(2^48 / (2^24 + power))` for powers of at most `2^24`, by the division that [`lanes`]
/// proves right.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn inverse_q48(power: __m512i) -> __m512i {
    let divisor = _mm512_add_epi32(power, _mm512_set1_epi32(1 << SIGMOID_FRAC));
    let invert = |divisor: __m256i| {
        let dividend = _mm512_set1_pd(281_474_976_710_656.0);
        let quotient = _mm512_div_pd(dividend, _mm512_cvtepi32_pd(divisor));
        let lowered = _mm512_sub_pd(quotient, _mm512_set1_pd(0.5));
        _mm512_castpd_si512(_mm512_add_pd(lowered, _mm512_set1_pd(4_503_599_627_370_496.0)))
    };
    let lower = invert(_mm512_castsi512_si256(divisor));
    let upper = invert(_mm512_extracti64x4_epi64::<1>(divisor));
    // The low halves of all sixteen.
    let halves = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    _mm512_permutex2var_epi32(lower, halves, upper)
}
