//! Turns published weights into the integers of exact-1.
//!
//! Conversion is a function: the same file gives the same model id everywhere. Floats are taken
//! apart into integers first; scales and quants are then found by comparing and dividing exact
//! fractions, ties away from zero, and the row exponent by integer comparison, never by a
//! logarithm. Source: protocol of the project, "Conversion is a function"; verification, 3.2.

mod w4;

use assay_kernels::{GROUP, Weights, WeightsError};

use crate::binary::Binary;
use crate::blocks;
use crate::load::{Kind, RawTensor};
use crate::shape::{FRAC_BIAS, FRAC_GAIN, Role};

pub use w4::{keeps_w4, weights_w4};

/// Largest magnitude of a quant.
const QUANT_MAX: u64 = 127;
/// Largest group scale.
const SCALE_MAX: u64 = 65_535;
/// Largest row exponent that its byte can hold.
const EXPONENT_MAX: i32 = 127;

/// Exponent of a row of zeros: its products are zero whatever the shift, and with this one the
/// shift is in range for all fraction bits.
pub const ZERO_ROW_EXPONENT: i8 = 31;

/// Why a tensor cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The tensor has more or fewer bytes than its sizes demand.
    #[error("tensor {name} has {found} bytes, expected {expected}")]
    Length {
        /// The tensor.
        name: String,
        /// Bytes it has.
        found: usize,
        /// Bytes it should have.
        expected: usize,
    },
    /// Rows do not divide into groups that share a scale.
    #[error("tensor {name} has rows of {found} elements, not a multiple of {GROUP}")]
    Columns {
        /// The tensor.
        name: String,
        /// Elements per row.
        found: usize,
    },
    /// A weight or a scale is infinite or not a number.
    #[error("tensor {name} has an infinity or a nan at row {row}, column {column}")]
    NotFinite {
        /// The tensor.
        name: String,
        /// Its row.
        row: usize,
        /// Its column; the first of the block where a scale is meant.
        column: usize,
    },
    /// A quant of −128 has no opposite, which the exact products rely on.
    #[error("tensor {name} has the quant -128 at row {row}, column {column}, expected -127 to 127")]
    Quant {
        /// The tensor.
        name: String,
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
    },
    /// A norm's gain or a bias does not fit its fixed-point form.
    #[error("tensor {name} has the gain {found} at {index}, expected a magnitude below 2^{bits}")]
    Gain {
        /// The tensor.
        name: String,
        /// Which element.
        index: usize,
        /// Its value.
        found: f32,
        /// Bits before the point.
        bits: u8,
    },
    /// A norm's gains are stored as quantised blocks.
    #[error("tensor {name} holds gains as {found:?}, expected f32, f16 or bf16")]
    GainKind {
        /// The tensor.
        name: String,
        /// How they are stored.
        found: Kind,
    },
    /// The matrix as a whole is refused by the kernels.
    #[error("tensor {name} is not a usable matrix")]
    Weights {
        /// The tensor.
        name: String,
        /// Why.
        source: WeightsError,
    },
}

/// Converts a matrix to W8: `q · scale · 2^-exponent`, a scale per row and group of [`GROUP`]
/// columns, an exponent per row.
///
/// Per row, with `s` the groups' scales as exact fractions: `exponent` is the largest with
/// `max s · 2^exponent ≤ 65535`, at most 127; `scale = max(1, round(s · 2^exponent))`. Blocks of 32
/// with one scale (Q8_0, Q4_0, Q5_0, IQ4_NL, MXFP4) keep their quants, negated where the block's
/// scale is negative, and `s` is the magnitude of the block's scale. Floats, and the binary32
/// values of all other blocks, have `s = max|w| / 127` and
/// `q = clamp(round(w · 2^exponent / scale), ±127)`. A block of scale zero has quants of zero, and
/// a row of zeros has exponent [`ZERO_ROW_EXPONENT`] and scales of 1.
///
/// Whether an exponent suits the fraction bits around the matrix is for the caller to check.
///
/// # Errors
/// Fails on infinities, NaN and quants of −128, and on sizes the kernels refuse.
pub fn weights(raw: &RawTensor) -> Result<Weights, ConvertError> {
    check_length(raw)?;
    check_columns(raw)?;
    let groups = raw.columns / GROUP;
    let mut matrix = Matrix {
        quants: vec![0; raw.rows * raw.columns],
        scales: vec![1; raw.rows * groups],
        exponents: vec![ZERO_ROW_EXPONENT; raw.rows],
    };
    for row in 0..raw.rows {
        let out = Row {
            quants: &mut matrix.quants[row * raw.columns..][..raw.columns],
            scales: &mut matrix.scales[row * groups..][..groups],
            exponent: &mut matrix.exponents[row],
        };
        match blocks::keeps_quants(raw.kind) {
            true => keep_row(raw, row, out)?,
            false => quantise_row(raw, row, out)?,
        }
    }
    let Matrix { quants, scales, exponents } = matrix;
    Weights::from_rows(raw.rows, raw.columns, &quants, &scales, &exponents)
        .map_err(|source| ConvertError::Weights { name: raw.name.clone(), source })
}

/// Converts a vector: the gains of a norm to `Fx<12>`, a bias to `Fx<16>`.
///
/// # Errors
/// Fails on infinities and NaN, on magnitudes of 2^19 (of a bias, 2^15) and above, and on
/// quantised blocks.
pub fn vector(raw: &RawTensor, role: Role) -> Result<Vec<i32>, ConvertError> {
    let fraction = if role.is_bias() { FRAC_BIAS } else { FRAC_GAIN };
    fixed_vector(raw, fraction)
}

/// Converts the gains of a norm to `Fx<12>`, ties away from zero.
///
/// # Errors
/// As [`vector`].
pub fn gain(raw: &RawTensor) -> Result<Vec<i32>, ConvertError> {
    fixed_vector(raw, FRAC_GAIN)
}

fn fixed_vector(raw: &RawTensor, fraction: u8) -> Result<Vec<i32>, ConvertError> {
    check_length(raw)?;
    let elements = raw.rows * raw.columns;
    (0..elements)
        .map(|index| {
            let number = float(raw, index)?;
            fixed(number, fraction).ok_or_else(|| ConvertError::Gain {
                name: raw.name.clone(),
                index,
                found: number.to_f32(),
                bits: 31 - fraction,
            })
        })
        .collect()
}

/// The tensor's values as f32, (rows, columns). Exact, but for the one rounding that is part of the
/// definition of blocks with offsets: a product of a binary16 scale and an 8-bit quant has at most
/// 18 significant bits.
///
/// # Errors
/// Fails on infinities and NaN.
pub fn floats(raw: &RawTensor) -> Result<Vec<f32>, ConvertError> {
    check_length(raw)?;
    let mut values = Vec::with_capacity(raw.rows * raw.columns);
    for row in 0..raw.rows {
        values.extend(numbers(raw, row)?.into_iter().map(Binary::to_f32));
    }
    Ok(values)
}

/// A matrix under construction, row by row.
struct Matrix {
    quants: Vec<i8>,
    scales: Vec<u16>,
    exponents: Vec<i8>,
}

/// One of its rows, which starts out as a row of zeros.
struct Row<'a> {
    quants: &'a mut [i8],
    scales: &'a mut [u16],
    exponent: &'a mut i8,
}

fn check_length(raw: &RawTensor) -> Result<(), ConvertError> {
    let (block, bytes) = raw.kind.block();
    let expected = raw.rows * (raw.columns / block) * bytes;
    let found = raw.bytes.len();
    if found != expected || raw.columns % block != 0 {
        return Err(ConvertError::Length { name: raw.name.clone(), found, expected });
    }
    Ok(())
}

fn check_columns(raw: &RawTensor) -> Result<(), ConvertError> {
    match raw.columns % GROUP {
        0 => Ok(()),
        _ => Err(ConvertError::Columns { name: raw.name.clone(), found: raw.columns }),
    }
}

/// Converts a row of blocks, keeping its quants.
fn keep_row(raw: &RawTensor, row: usize, out: Row<'_>) -> Result<(), ConvertError> {
    let (block, bytes) = raw.kind.block();
    let stride = out.scales.len() * bytes;
    let stored = &raw.bytes[row * stride..][..stride];
    let mut scales = Vec::with_capacity(out.scales.len());
    for (group, stored) in stored.chunks_exact(bytes).enumerate() {
        let column = group * block;
        let scale = block_scale(raw, stored, row * raw.columns + column)?;
        scales.push(scale);
        let quants = blocks::quants(raw.kind, stored);
        for (offset, (out, q)) in out.quants[column..].iter_mut().zip(quants).enumerate() {
            let Some(opposite) = q.checked_neg() else {
                let column = column + offset;
                return Err(ConvertError::Quant { name: raw.name.clone(), row, column });
            };
            *out = match scale.mantissa {
                0 => 0,
                _ if scale.negative => opposite,
                _ => q,
            };
        }
    }
    if out.quants.iter().any(|&q| q != 0) {
        *out.exponent = row_scales(&scales, 1, SCALE_MAX, out.scales);
    }
    Ok(())
}

/// Converts a row of floats.
fn quantise_row(raw: &RawTensor, row: usize, out: Row<'_>) -> Result<(), ConvertError> {
    let numbers = numbers(raw, row)?;
    let largest: Vec<Binary> = numbers.chunks_exact(GROUP).map(largest).collect();
    if largest.iter().all(|number| number.mantissa == 0) {
        return Ok(());
    }
    let exponent = row_scales(&largest, QUANT_MAX, SCALE_MAX, out.scales);
    *out.exponent = exponent;
    let groups = numbers.chunks_exact(GROUP).zip(out.quants.chunks_exact_mut(GROUP));
    for ((numbers, quants), &scale) in groups.zip(out.scales.iter()) {
        for (number, out) in numbers.iter().zip(quants) {
            *out = quant(*number, exponent.into(), scale);
        }
    }
    if out.quants.iter().all(|&q| q == 0) {
        // Too small for the lowest scale: a row of zeros has one form.
        *out.exponent = ZERO_ROW_EXPONENT;
        out.scales.fill(1);
    }
    Ok(())
}

/// The number of largest magnitude.
fn largest(numbers: &[Binary]) -> Binary {
    let zero = Binary { negative: false, mantissa: 0, exponent: 0 };
    // Numbers of one format compare by exponent, then mantissa: only the lowest exponent, which
    // zero and the subnormals have as well, comes with mantissas below the normal range.
    // Exponents are -149 at least, so the sum is positive.
    let key =
        |number: &Binary| (number.exponent + 256) as u64 * (1 << 32) + u64::from(number.mantissa);
    numbers.iter().copied().max_by_key(key).unwrap_or(zero)
}

/// Writes the magnitudes, at most `most`, of the scales of a row whose groups have the scales
/// `numerator / divisor`, and returns its exponent.
fn row_scales(numerators: &[Binary], divisor: u64, most: u64, scales: &mut [u16]) -> i8 {
    let exponent = numerators
        .iter()
        .filter(|numerator| numerator.mantissa > 0)
        .map(|numerator| largest_exponent(*numerator, divisor, most))
        .fold(EXPONENT_MAX, i32::min);
    for (scale, numerator) in scales.iter_mut().zip(numerators) {
        *scale = whole_scale(*numerator, divisor, exponent);
    }
    // At most 127 by the fold, at least −106: the largest binary32 over 127.
    exponent as i8
}

/// The largest exponent with `numerator / divisor · 2^exponent ≤ most`, by integer comparison.
fn largest_exponent(numerator: Binary, divisor: u64, most: u64) -> i32 {
    let (mut left, mut right) = (u64::from(numerator.mantissa), most * divisor);
    let mut shift = 0;
    while left * 2 <= right {
        left *= 2;
        shift += 1;
    }
    while left > right {
        right *= 2;
        shift -= 1;
    }
    shift - numerator.exponent
}

/// `max(1, round(numerator / divisor · 2^exponent))`, which the row's exponent keeps in 16 bits.
fn whole_scale(numerator: Binary, divisor: u64, exponent: i32) -> u16 {
    round(numerator, exponent, divisor).max(1) as u16
}

/// `clamp(round(number · 2^exponent / scale), ±127)`.
fn quant(number: Binary, exponent: i32, scale: u16) -> i8 {
    let magnitude = round(number, exponent, scale.into()).min(QUANT_MAX) as i8;
    if number.negative { -magnitude } else { magnitude }
}

/// `round(|number| · 2^exponent / divisor)`, ties away from zero.
///
/// `divisor` is below 2^16, and `|number| · 2^exponent` at most 65535 · 127, as the row's exponent
/// keeps it.
fn round(number: Binary, exponent: i32, divisor: u64) -> u64 {
    let shift = number.exponent + exponent;
    let mantissa = u64::from(number.mantissa);
    match shift {
        // A mantissa is below 2^24, so this is below 2^-8: it rounds to zero.
        ..-32 => 0,
        -32..0 => rounded_quotient(mantissa, divisor << -shift),
        0.. if mantissa == 0 => 0,
        0.. => rounded_quotient(mantissa << shift, divisor),
    }
}

/// `round(numerator / denominator)`, ties up.
fn rounded_quotient(numerator: u64, denominator: u64) -> u64 {
    (2 * numerator + denominator) / (2 * denominator)
}

/// The number as `Fx<fraction>`, ties away from zero; `None` where it does not fit.
fn fixed(number: Binary, fraction: u8) -> Option<i32> {
    let shift = number.exponent + i32::from(fraction);
    let mantissa = u64::from(number.mantissa);
    let magnitude = match shift {
        _ if mantissa == 0 => 0,
        ..-32 => 0,
        -32..0 => rounded_quotient(mantissa, 1 << -shift),
        0..32 => mantissa << shift,
        32.. => return None,
    };
    let magnitude = i32::try_from(magnitude).ok()?;
    Some(if number.negative { -magnitude } else { magnitude })
}

/// The numbers of a row, whatever they are stored as.
fn numbers(raw: &RawTensor, row: usize) -> Result<Vec<Binary>, ConvertError> {
    let first = row * raw.columns;
    if matches!(raw.kind, Kind::F32 | Kind::F16 | Kind::Bf16) {
        return (first..first + raw.columns).map(|index| float(raw, index)).collect();
    }
    let (block, bytes) = raw.kind.block();
    let stored = &raw.bytes[first / block * bytes..][..raw.columns / block * bytes];
    let mut values = Vec::with_capacity(raw.columns);
    for stored in stored.chunks_exact(bytes) {
        blocks::values(raw.kind, stored, &mut values);
    }
    let number = |(column, value): (usize, &f32)| {
        Binary::from_f32(value.to_bits()).ok_or_else(|| not_finite(raw, first + column))
    };
    values.iter().enumerate().map(number).collect()
}

/// Element `index` of a tensor of floats, in row order.
fn float(raw: &RawTensor, index: usize) -> Result<Binary, ConvertError> {
    let half = || [raw.bytes[2 * index], raw.bytes[2 * index + 1]];
    let number = match raw.kind {
        Kind::F32 => {
            let bytes = &raw.bytes[4 * index..][..4];
            let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            Binary::from_f32(bits)
        }
        Kind::F16 => Binary::from_f16(u16::from_le_bytes(half())),
        Kind::Bf16 => Binary::from_bf16(u16::from_le_bytes(half())),
        _ => {
            return Err(ConvertError::GainKind { name: raw.name.clone(), found: raw.kind });
        }
    };
    number.ok_or_else(|| not_finite(raw, index))
}

fn not_finite(raw: &RawTensor, index: usize) -> ConvertError {
    let (row, column) = (index / raw.columns, index % raw.columns);
    ConvertError::NotFinite { name: raw.name.clone(), row, column }
}

/// The scale of a block whose first element is `index`.
fn block_scale(raw: &RawTensor, block: &[u8], index: usize) -> Result<Binary, ConvertError> {
    blocks::scale(raw.kind, block).ok_or_else(|| not_finite(raw, index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Vectors {
        cases: Vec<Case>,
        gains: Vec<Gain>,
    }

    #[derive(Deserialize)]
    struct Case {
        name: String,
        kind: String,
        rows: usize,
        columns: usize,
        bytes: String,
        exponents: Vec<i8>,
        scales: Vec<u16>,
        quants: String,
    }

    #[derive(Deserialize)]
    struct Gain {
        bits: u32,
        fixed: i32,
    }

    fn vectors() -> Vectors {
        serde_json::from_str(include_str!("../../../tests/vectors/convert.json")).unwrap()
    }

    fn unhex(text: &str) -> Vec<u8> {
        let digits = text.as_bytes().chunks_exact(2);
        digits.map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
    }

    fn raw(kind: Kind, rows: usize, columns: usize, bytes: Vec<u8>) -> RawTensor {
        RawTensor { name: "t".into(), kind, rows, columns, bytes }
    }

    fn raw_f32(columns: usize, numbers: &[f32]) -> RawTensor {
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        raw(Kind::F32, numbers.len() / columns, columns, bytes)
    }

    #[test]
    fn the_golden_vectors_come_out_to_the_bit() {
        for case in vectors().cases {
            let kind = match case.kind.as_str() {
                "f32" => Kind::F32,
                "f16" => Kind::F16,
                "bf16" => Kind::Bf16,
                "q8_0" => Kind::Q8_0,
                _ => Kind::Q4_0,
            };
            let tensor = raw(kind, case.rows, case.columns, unhex(&case.bytes));
            let weights = weights(&tensor).unwrap();
            let quants: Vec<i8> = unhex(&case.quants).into_iter().map(|byte| byte as i8).collect();
            let groups = case.columns / GROUP;
            for row in 0..case.rows {
                let name = format!("{}, row {row}", case.name);
                assert_eq!(weights.exponent(row), case.exponents[row], "{name}");
                let scales: Vec<i32> = (0..groups).map(|group| weights.scale(row, group)).collect();
                let expected = &case.scales[row * groups..][..groups];
                assert!(
                    scales.iter().copied().eq(expected.iter().copied().map(i32::from)),
                    "{name}"
                );
                let mut found = vec![0; case.columns];
                weights.row_q(row, &mut found);
                assert_eq!(found, quants[row * case.columns..][..case.columns], "{name}");
            }
        }
    }

    #[test]
    fn gains_are_rounded_away_from_zero() {
        for Gain { bits, fixed } in vectors().gains {
            let tensor = raw_f32(1, &[f32::from_bits(bits)]);
            assert_eq!(gain(&tensor).unwrap(), [fixed], "{}", f32::from_bits(bits));
        }
    }

    #[test]
    fn gains_beyond_their_range_are_refused_by_place() {
        for number in [524_288.0, -524_288.0, f32::MAX, 1e20] {
            let error = gain(&raw_f32(3, &[1.0, 0.0, number])).unwrap_err().to_string();
            let expected =
                format!("tensor t has the gain {number} at 2, expected a magnitude below 2^19");
            assert_eq!(error, expected);
        }
        let error = gain(&raw_f32(2, &[1.0, f32::NAN])).unwrap_err().to_string();
        assert_eq!(error, "tensor t has an infinity or a nan at row 0, column 1");
        let error = gain(&raw(Kind::Q8_0, 1, 32, vec![0; 34])).unwrap_err().to_string();
        assert_eq!(error, "tensor t holds gains as Q8_0, expected f32, f16 or bf16");
    }

    #[test]
    fn what_is_not_finite_is_refused_by_place() {
        let mut numbers = vec![1.0; 128];
        numbers[64 + 33] = f32::NEG_INFINITY;
        let expected = "tensor t has an infinity or a nan at row 1, column 33";
        assert_eq!(weights(&raw_f32(64, &numbers)).unwrap_err().to_string(), expected);
        assert_eq!(floats(&raw_f32(64, &numbers)).unwrap_err().to_string(), expected);
        let mut bytes = vec![0; 36];
        bytes[19] = 0x7c;
        let error = weights(&raw(Kind::Q4_0, 1, 64, bytes)).unwrap_err().to_string();
        assert_eq!(error, "tensor t has an infinity or a nan at row 0, column 32");
    }

    #[test]
    fn sizes_and_bytes_must_agree() {
        let error = |tensor| weights(&tensor).unwrap_err().to_string();
        let short = raw(Kind::F16, 2, 32, vec![0; 127]);
        assert_eq!(error(short), "tensor t has 127 bytes, expected 128");
        let odd = raw_f32(48, &[0.0; 48]);
        assert_eq!(error(odd), "tensor t has rows of 48 elements, not a multiple of 32");
        let none = raw(Kind::F32, 0, 32, Vec::new());
        assert_eq!(error(none), "tensor t is not a usable matrix");
    }

    #[test]
    fn four_bit_blocks_read_low_halves_first() {
        // Scale 2, bytes 0x0f, 0x1f … 0xff: low halves are 15, high halves 0 to 15.
        let mut bytes = vec![0x00, 0x40];
        bytes.extend((0..16).map(|high| high << 4 | 15));
        let values = floats(&raw(Kind::Q4_0, 1, 32, bytes)).unwrap();
        assert!(values[..16].iter().all(|&value| value == 14.0));
        let high: Vec<f32> = (0..16).map(|nibble| 2.0 * (nibble as f32 - 8.0)).collect();
        assert_eq!(values[16..], high);
    }

    proptest! {
        /// Checks the definition itself, in binary64, where all the products below are exact.
        #[test]
        fn a_row_of_floats_meets_its_definition(
            numbers in prop::collection::vec(-2.0f32..2.0, 64),
            power in -30i32..30,
        ) {
            let numbers: Vec<f32> = numbers.iter().map(|n| n * 2f32.powi(power)).collect();
            let weights = weights(&raw_f32(64, &numbers)).unwrap();
            let unit = 2f64.powi(weights.exponent(0).into());
            let peak = numbers.iter().fold(0.0, |peak: f32, number| peak.max(number.abs()));
            prop_assume!(peak > 0.0);
            let peak = f64::from(peak) * unit;
            prop_assert!(peak <= 65535.0 * 127.0 && 2.0 * peak > 65535.0 * 127.0);
            for (group, numbers) in numbers.chunks(32).enumerate() {
                let scale = f64::from(weights.scale(0, group));
                for (offset, number) in numbers.iter().enumerate() {
                    let q = f64::from(weights.q(0, group * 32 + offset));
                    let error = (f64::from(*number) * unit - q * scale).abs();
                    prop_assert!(error <= scale / 2.0 || q.abs() == 127.0);
                }
            }
        }

        /// Every format, with scales of about one: what is kept is kept to a unit of the row's
        /// grid, what is not to half a quant.
        #[test]
        fn every_block_is_near_its_values(
            bytes in prop::collection::vec(any::<u8>(), 210),
            code in prop::sample::select(vec![2u32, 3, 6, 7, 8, 10, 11, 12, 13, 14, 20, 39]),
        ) {
            let kind = Kind::from_ggml(code).unwrap();
            let (columns, length) = kind.block();
            let tensor = raw(kind, 1, columns, bytes[..length].to_vec());
            let (Ok(weights), Ok(values)) = (weights(&tensor), floats(&tensor)) else { return Ok(()) };
            let unit = 2f64.powi(weights.exponent(0).into());
            for (column, value) in values.into_iter().enumerate() {
                let scale = f64::from(weights.scale(0, column / 32));
                let q = f64::from(weights.q(0, column));
                let found = q * scale;
                // The largest of a group may be cut off by as much as its scale was rounded.
                let cut = if q.abs() == 127.0 { 127.0 } else { 0.0 };
                let half = if blocks::keeps_quants(kind) { 127.0 } else { scale / 2.0 };
                let allowed = half + cut;
                let error = (found - f64::from(value) * unit).abs();
                prop_assert!(error <= allowed, "{kind:?} {column}: {error} {scale} {q} {value} {unit}");
            }
        }

        #[test]
        fn blocks_keep_their_values(bytes in prop::collection::vec(any::<u8>(), 68)) {
            let tensor = raw(Kind::Q8_0, 1, 64, bytes);
            if let (Ok(weights), Ok(values)) = (weights(&tensor), floats(&tensor)) {
                let unit = 2f64.powi(weights.exponent(0).into());
                for (column, value) in values.into_iter().enumerate() {
                    let scale = f64::from(weights.scale(0, column / 32));
                    let found = f64::from(weights.q(0, column)) * scale;
                    // Rounding the scale moves a value by half a quant, a scale below a half,
                    // which becomes one, by less than a whole one.
                    prop_assert!((found - f64::from(value) * unit).abs() <= 127.0);
                }
            }
        }
    }
}
