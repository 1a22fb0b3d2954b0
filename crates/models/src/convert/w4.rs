//! Turns published weights into numbers of four bits.
//!
//! Sixteen numbers a group are few, so its scale is searched for: the one that loses least of what
//! the group contributes to outputs, which is the square of the error times how large its input
//! usually is. The search is in binary64, one IEEE 754 operation after the other in the order
//! written here, so every machine finds the same scale. What it finds is one number a group; the
//! scales of a row and its numbers follow from that by exact fractions, as in eight bits.

use assay_kernels::{GROUP, Weights};
use rayon::prelude::*;

use super::{ConvertError, ZERO_ROW_EXPONENT};
use super::{block_scale, check_columns, check_length, numbers, round, row_scales};
use crate::binary::Binary;
use crate::blocks;
use crate::load::{Kind, RawTensor};

/// Largest magnitude of a group's scale.
const SCALE_MAX: u64 = 32_767;
/// The least and the largest number.
const RANGE: [i8; 2] = [-8, 7];
/// By what the largest of a group is divided for a first scale: between cutting it off and leaving
/// the last number unused.
const DIVISORS: [f64; 7] = [7.0, 7.5, 8.0, 8.5, 9.0, 9.5, 10.0];
/// How often numbers are chosen for a scale, and then the best scale for those numbers.
const ROUNDS: usize = 2;
/// Sums are taken in so many lanes, which are added in pairs.
const LANES: usize = 4;
/// Added to a small number and taken away again, this leaves the nearest whole one, ties to even.
const WHOLE: f64 = 6_755_399_441_055_744.0;

/// Whether blocks of this kind are four-bit numbers with one scale, which [`weights_w4`] keeps.
pub fn keeps_w4(kind: Kind) -> bool {
    kind == Kind::Q4_0
}

/// Converts a matrix to W4: `q · scale · 2^-exponent` with `q` in -8..=7 and a signed scale.
///
/// `importance`: (columns), how much an error at a column tells, such as the mean square of its
/// inputs; none is below zero. Per row, with `s` the groups' scales: `exponent` is the largest with
/// `max |s| · 2^exponent ≤ 32767`, at most 127, and `scale` is `s · 2^exponent` rounded, at least 1
/// in magnitude. Q4_0 keeps its numbers, and `s` is the block's scale. For all others `s` is the
/// binary32 next to what a search finds, and `q = clamp(round(w · 2^exponent / scale), -8, 7)`.
/// Rows of zeros are as in [`weights`](super::weights).
///
/// # Errors
/// As [`weights`](super::weights).
///
/// # Panics
/// If `importance` has another length than a row.
pub fn weights_w4(raw: &RawTensor, importance: &[f64]) -> Result<Weights, ConvertError> {
    assert_eq!(importance.len(), raw.columns, "one importance per column");
    check_length(raw)?;
    check_columns(raw)?;
    let row = |row| match keeps_w4(raw.kind) {
        true => kept_row(raw, row),
        false => Ok(found_row(&numbers(raw, row)?, importance)),
    };
    let rows: Vec<_> = (0..raw.rows).into_par_iter().map(row).collect();
    let (mut quants, mut scales, mut exponents) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let row = row?;
        quants.extend(row.quants);
        scales.extend(row.scales);
        exponents.push(row.exponent);
    }
    Weights::from_rows_w4(raw.rows, raw.columns, &quants, &scales, &exponents)
        .map_err(|source| ConvertError::Weights { name: raw.name.clone(), source })
}

/// A row of a matrix.
struct Row {
    quants: Vec<i8>,
    scales: Vec<i16>,
    exponent: i8,
}

impl Row {
    /// A row whose groups have these scales, and the numbers that `quants` finds for the exponent
    /// and the scales; the one form of a row of zeros if those are zeros.
    fn new(scales: &[Binary], quants: impl FnOnce(i32, &[i16]) -> Vec<i8>) -> Row {
        let mut sizes = vec![1; scales.len()];
        let exponent = row_scales(scales, 1, SCALE_MAX, &mut sizes);
        let signed = |(scale, size): (&Binary, u16)| match scale.negative && scale.mantissa > 0 {
            true => -(size as i16),
            false => size as i16,
        };
        let scales: Vec<i16> = scales.iter().zip(sizes).map(signed).collect();
        let quants = quants(exponent.into(), &scales);
        if quants.iter().all(|q| *q == 0) {
            return Row { quants, scales: vec![1; scales.len()], exponent: ZERO_ROW_EXPONENT };
        }
        Row { quants, scales, exponent }
    }
}

/// A row of blocks that keep their numbers.
fn kept_row(raw: &RawTensor, row: usize) -> Result<Row, ConvertError> {
    let (block, bytes) = raw.kind.block();
    let groups = raw.columns / block;
    let stored = &raw.bytes[row * groups * bytes..][..groups * bytes];
    let (mut scales, mut quants) = (Vec::with_capacity(groups), Vec::with_capacity(raw.columns));
    for (group, stored) in stored.chunks_exact(bytes).enumerate() {
        let scale = block_scale(raw, stored, row * raw.columns + group * block)?;
        match scale.mantissa {
            0 => quants.extend([0; GROUP]),
            _ => quants.extend(blocks::quants(raw.kind, stored)),
        }
        scales.push(scale);
    }
    Ok(Row::new(&scales, |_, _| quants))
}

/// A row of numbers whose scales are searched for.
fn found_row(numbers: &[Binary], importance: &[f64]) -> Row {
    let values: Vec<f64> = numbers.iter().map(|number| number.to_f32().into()).collect();
    let groups = values.chunks_exact(GROUP).zip(importance.chunks_exact(GROUP));
    let scales: Vec<Binary> = groups
        .map(|(values, importance)| best_scale(values, importance) as f32)
        // A scale is no larger than the largest number of its group.
        .map(|scale| Binary::from_f32(scale.to_bits()).unwrap_or(ZERO))
        .collect();
    Row::new(&scales, |exponent, scales| {
        let groups = numbers.chunks_exact(GROUP).zip(scales);
        let quants = groups.flat_map(|(numbers, scale)| {
            numbers.iter().map(move |number| quant(*number, exponent, *scale))
        });
        quants.collect()
    })
}

const ZERO: Binary = Binary { negative: false, mantissa: 0, exponent: 0 };

/// `clamp(round(number · 2^exponent / scale), -8, 7)`, ties away from zero.
fn quant(number: Binary, exponent: i32, scale: i16) -> i8 {
    let [least, most] = RANGE;
    let negative = number.negative != (scale < 0);
    let bound = if negative { least.unsigned_abs() } else { most.unsigned_abs() };
    let size = match number.exponent + exponent {
        // Beyond any scale times 8, and beyond what can be shifted.
        32.. if number.mantissa > 0 => bound,
        _ => round(number, exponent, scale.unsigned_abs().into()).min(bound.into()) as u8,
    };
    if negative { -(size as i8) } else { size as i8 }
}

/// The scale with which a group loses least, of those that are tried; zero for a group of zeros.
///
/// With numbers `q`, the best scale is `Σ hwq / Σ hq²`, and what is lost is `Σ hw²` without
/// `(Σ hwq)² / Σ hq²`.
fn best_scale(values: &[f64], importance: &[f64]) -> f64 {
    let largest = values.iter().fold(0.0f64, |a, b| if b.abs() > a.abs() { *b } else { a });
    let (mut most, mut best) = (0.0, -largest / 8.0);
    for divisor in DIVISORS.into_iter().flat_map(|divisor| [-divisor, divisor]) {
        let mut scale = largest / divisor;
        for _ in 0..ROUNDS {
            if scale == 0.0 {
                break;
            }
            let [products, squares] = moments(values, importance, 1.0 / scale);
            let kept = products * products / squares;
            scale = products / squares;
            // Not so where nothing tells, and both sums are zero.
            if kept > most {
                (most, best) = (kept, scale);
            }
        }
    }
    best
}

/// `Σ hwq` and `Σ hq²` over a group, where `q` is `w · inverse`, rounded and cut to four bits.
fn moments(values: &[f64], importance: &[f64], inverse: f64) -> [f64; 2] {
    let [least, most] = RANGE.map(f64::from);
    let (mut products, mut squares) = ([0.0; LANES], [0.0; LANES]);
    let lines = values.chunks_exact(LANES).zip(importance.chunks_exact(LANES));
    for (values, importance) in lines {
        for lane in 0..LANES {
            let whole = (values[lane] * inverse).max(least).min(most) + WHOLE - WHOLE;
            let weighted = importance[lane] * whole;
            products[lane] += weighted * values[lane];
            squares[lane] += weighted * whole;
        }
    }
    [products, squares].map(|[a, b, c, d]| (a + b) + (c + d))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::convert::floats;

    fn raw(kind: Kind, columns: usize, bytes: Vec<u8>) -> RawTensor {
        let (block, size) = kind.block();
        let rows = bytes.len() / size * block / columns;
        RawTensor { name: "t".into(), kind, rows, columns, bytes }
    }

    fn raw_f32(columns: usize, numbers: &[f32]) -> RawTensor {
        raw(Kind::F32, columns, numbers.iter().flat_map(|number| number.to_le_bytes()).collect())
    }

    fn converted(raw: &RawTensor) -> Weights {
        weights_w4(raw, &vec![1.0; raw.columns]).unwrap()
    }

    fn value(weights: &Weights, row: usize, column: usize) -> f64 {
        let scale = f64::from(weights.scale(row, column / GROUP));
        f64::from(weights.q(row, column)) * scale / 2f64.powi(weights.exponent(row).into())
    }

    /// What a matrix loses: the sum of the squares of its errors.
    fn loss(weights: &Weights, values: &[f32], columns: usize) -> f64 {
        let error =
            |(at, v): (usize, &f32)| value(weights, at / columns, at % columns) - f64::from(*v);
        values.iter().enumerate().map(error).map(|error| error * error).sum()
    }

    #[test]
    fn four_bit_blocks_keep_their_numbers_whatever_their_sign() {
        // Scales 2 and -0.5; the halves of the bytes run over all numbers.
        let mut bytes = Vec::new();
        for scale in [0x4000u16, 0xb800] {
            bytes.extend(scale.to_le_bytes());
            bytes.extend((0..16).map(|at: u8| at << 4 | (15 - at)));
        }
        let tensor = raw(Kind::Q4_0, 64, bytes);
        let (weights, values) = (converted(&tensor), floats(&tensor).unwrap());
        assert_eq!((weights.q(0, 0), weights.q(0, 15), weights.q(0, 32)), (7, -8, 7));
        assert_eq!((weights.scale(0, 0), weights.scale(0, 1)), (16_384, -4_096));
        for (column, expected) in values.into_iter().enumerate() {
            assert_eq!(value(&weights, 0, column), f64::from(expected));
        }
    }

    #[test]
    fn zeros_have_one_form() {
        for tensor in [raw_f32(64, &[0.0; 128]), raw(Kind::Q4_0, 64, vec![0; 72])] {
            let weights = converted(&tensor);
            assert_eq!((weights.q(1, 3), weights.scale(1, 1), weights.exponent(1)), (0, 1, 31));
        }
        let mut numbers = [0.0; 64];
        numbers[40] = 1.0;
        let weights = converted(&raw_f32(64, &numbers));
        assert_eq!((weights.q(0, 3), weights.scale(0, 0)), (0, 1));
        // A scale has 15 bits.
        assert!((value(&weights, 0, 40) - 1.0).abs() < 1e-4);
    }

    #[test]
    fn what_tells_more_is_kept_better() {
        let numbers: Vec<f32> =
            (0..32).map(|at| ((at * at * 37 % 101) as f32 - 50.0) / 51.0).collect();
        let tensor = raw_f32(32, &numbers);
        let importance: Vec<f64> = (0..32).map(|at| if at < 4 { 1000.0 } else { 1.0 }).collect();
        let first_four = |weights: &Weights| -> f64 {
            let errors = numbers.iter().enumerate().take(4);
            errors.map(|(at, w)| (value(weights, 0, at) - f64::from(*w)).powi(2)).sum()
        };
        let weighed = weights_w4(&tensor, &importance).unwrap();
        assert!(first_four(&weighed) < first_four(&converted(&tensor)));
        // Nothing tells at all: still a matrix, and a near one.
        let blind = weights_w4(&tensor, &[0.0; 32]).unwrap();
        assert!(loss(&blind, &numbers, 32) < 0.1);
    }

    #[test]
    fn what_is_refused_in_eight_bits_is_refused() {
        let message = |tensor: &RawTensor| {
            weights_w4(tensor, &vec![1.0; tensor.columns]).unwrap_err().to_string()
        };
        let mut numbers = [1.0; 64];
        numbers[33] = f32::NAN;
        let expected = "tensor t has an infinity or a nan at row 1, column 1";
        assert_eq!(message(&raw_f32(32, &numbers)), expected);
        let odd = "tensor t has rows of 48 elements, not a multiple of 32";
        assert_eq!(message(&raw_f32(48, &[0.0; 48])), odd);
        let short = RawTensor { bytes: vec![0; 127], ..raw_f32(32, &[0.0; 32]) };
        assert_eq!(message(&short), "tensor t has 127 bytes, expected 128");
    }

    proptest! {
        /// Less is lost than by the plain rule: the largest number becomes -8.
        #[test]
        fn the_search_beats_the_plain_rule(
            numbers in prop::collection::vec(-2.0f32..2.0, 64),
            power in -30i32..30,
        ) {
            let numbers: Vec<f32> = numbers.iter().map(|n| n * 2f32.powi(power)).collect();
            let found = loss(&converted(&raw_f32(32, &numbers)), &numbers, 32);
            let plain: f64 = numbers
                .chunks(32)
                .map(|group| {
                    let largest =
                        group.iter().fold(0.0f32, |a, b| if b.abs() > a.abs() { *b } else { a });
                    let scale = largest / -8.0;
                    let cut = |w: f32| (w / scale).round().clamp(-8.0, 7.0) * scale;
                    group.iter().map(|w| f64::from(w - cut(*w)).powi(2)).sum::<f64>()
                })
                .sum();
            // Rounding scales to 15 bits costs a little.
            prop_assert!(found <= plain * 1.001 + 1e-9 * 4f64.powi(power), "{found} {plain}");
        }

        #[test]
        fn any_bytes_give_a_matrix_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 256),
            code in prop::sample::select(vec![0u32, 2, 8, 12, 20]),
        ) {
            let kind = Kind::from_ggml(code).unwrap();
            let (columns, length) = kind.block();
            let columns = columns.max(32);
            let length = length * columns / kind.block().0;
            // Either is fine; what must not be is a panic.
            let _ = weights_w4(&raw(kind, columns, bytes[..length].to_vec()), &vec![1.0; columns]);
        }
    }
}
