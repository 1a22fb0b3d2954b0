//! Tables of rotary position embeddings, by integers only.
//!
//! A model's tables are committed with its weights, so every machine must derive the same bits;
//! a C library's `cos` does not promise that. Here an angle is a `u64` fraction of a full turn
//! (Q64): pair `i` turns by `base^(−2i/head_dim) / 2π / factor[i]` of a circle per position, the
//! angle at position `p` is `p` times that, wrapping, and only the wrapped angle meets a series.
//!
//! Error, in units of the last place of the Q30 result: the turn is within 2^-64 of the true one,
//! so at position 2^17 the angle is off by less than 2π·2^-47 radians, 2^-14 units; the series add
//! less than 2^-26 units, and rounding to Q30 half a unit. The tests hold the result against
//! values computed with 300 bits.

use assay_kernels::{HEAD_DIM_MAX, Pairing};

use crate::binary::Binary;
use crate::shape::{Rope, Shape};

/// Cosines and sines of every angle a model uses, Q30, each laid out (positions, head_dim / 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RopeTables {
    /// Cosines.
    pub cos: Vec<i32>,
    /// Sines.
    pub sin: Vec<i32>,
}

impl RopeTables {
    /// Cosines and sines of one position, for heads of `head_dim` elements: `head_dim / 2` each.
    ///
    /// # Panics
    /// If the position is beyond the table.
    pub fn row(&self, position: usize, head_dim: usize) -> (&[i32], &[i32]) {
        let pairs = head_dim / 2;
        let row = position * pairs..(position + 1) * pairs;
        (&self.cos[row.clone()], &self.sin[row])
    }
}

/// Why no table can be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RopeError {
    /// Heads come in whole pairs and have a bounded size.
    #[error("heads have {found} elements, expected an even number from 2 to {HEAD_DIM_MAX}")]
    HeadDim {
        /// Elements per head asked for.
        found: usize,
    },
    /// A base below one would turn later pairs faster than the first.
    #[error("rope base is {found}, expected a finite number of at least 1")]
    Base {
        /// The base asked for.
        found: f32,
    },
    /// There is one factor per pair, or none at all.
    #[error("{found} rope factors, expected {expected} or none")]
    FactorCount {
        /// Factors given.
        found: usize,
        /// Pairs in a head.
        expected: usize,
    },
    /// A factor outside the range in which the fixed-point turn stays exact enough.
    #[error("rope factor {index} is {found}, expected a number from 2^-10 to 2^40")]
    Factor {
        /// Which pair.
        index: usize,
        /// Its factor.
        found: f32,
    },
}

/// The tables of a model of this shape: for every position of its context, or none at all where
/// positions are learned.
///
/// # Errors
/// As [`tables`].
pub fn tables_of(shape: &Shape) -> Result<RopeTables, RopeError> {
    let positions = if shape.graph().pairing.is_some() { shape.context } else { 0 };
    tables(&shape.rope, shape.head_dim, positions)
}

/// Computes the tables for positions `0..positions`.
///
/// # Errors
/// Fails when `rope` is outside the ranges that [`RopeError`] names.
pub fn tables(rope: &Rope, head_dim: usize, positions: usize) -> Result<RopeTables, RopeError> {
    let turns = turns(rope, head_dim)?;
    let (cos, sin) = (0..positions as u64)
        .flat_map(|position| turns.iter().map(move |turn| circle(turn.wrapping_mul(position))))
        .unzip();
    Ok(RopeTables { cos, sin })
}

/// Fraction of a full turn, Q64, that each pair advances per position.
///
/// # Errors
/// As [`tables`].
pub fn turns(rope: &Rope, head_dim: usize) -> Result<Vec<u64>, RopeError> {
    if !(2..=HEAD_DIM_MAX).contains(&head_dim) || head_dim % 2 != 0 {
        return Err(RopeError::HeadDim { found: head_dim });
    }
    let pairs = head_dim / 2;
    if !rope.factors.is_empty() && rope.factors.len() != pairs {
        return Err(RopeError::FactorCount { found: rope.factors.len(), expected: pairs });
    }
    let base = Binary::from_f32(rope.base.to_bits())
        .filter(|_| rope.base >= 1.0)
        .ok_or(RopeError::Base { found: rope.base })?;
    let step = ln(base) / head_dim as u128;
    (0..pairs)
        .map(|pair| {
            let frequency = exp_minus(step * 2 * pair as u128);
            let turn = product(frequency, PER_TURN);
            let turn = match rope.factors.get(pair) {
                Some(&factor) => divide(turn, factor, pair)?,
                None => turn,
            };
            // Whole turns fall off the top; half a unit of Q64 rounds.
            Ok(((turn + (1 << 55)) >> 56) as u64)
        })
        .collect()
}

/// The factors of the scaling named "llama3": low frequencies are slowed by `factor`, high ones
/// kept, those between blended.
///
/// Only additions, multiplications and divisions of binary64 are used, each of which IEEE 754
/// defines to the last bit. Source: Hugging Face transformers, `modeling_rope_utils.py`, which
/// states the rule in wavelengths; here wavelength = 2π / frequency = 1 / turn.
///
/// # Errors
/// As [`tables`].
pub(crate) fn llama3_factors(
    base: f32,
    head_dim: usize,
    scaling: &Llama3Scaling,
) -> Result<Vec<f32>, RopeError> {
    let plain = Rope { pairing: Pairing::Halves, base, factors: Vec::new() };
    let Llama3Scaling { factor, low, high, context } = *scaling;
    let blend = |turn: u64| {
        // How often this pair turns round in the context the model was first trained on.
        let rounds = context * (turn as f64 / 18_446_744_073_709_551_616.0);
        if rounds > high {
            1.0
        } else if rounds < low {
            factor
        } else {
            let kept = (rounds - low) / (high - low);
            1.0 / ((1.0 - kept) / factor + kept)
        }
    };
    Ok(turns(&plain, head_dim)?.into_iter().map(|turn| blend(turn) as f32).collect())
}

/// Parameters of the scaling named "llama3".
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Llama3Scaling {
    /// By how much low frequencies slow down.
    pub(crate) factor: f64,
    /// Fewer turns than this within `context` count as low.
    pub(crate) low: f64,
    /// More turns than this within `context` count as high.
    pub(crate) high: f64,
    /// Positions the model was first trained on.
    pub(crate) context: f64,
}

/// Divides a Q120 turn by a factor, exactly but for the floor.
fn divide(turn: u128, factor: f32, index: usize) -> Result<u128, RopeError> {
    let range = 1.0 / 1024.0..=1_099_511_627_776.0;
    let error = RopeError::Factor { index, found: factor };
    let Some(divisor) = Binary::from_f32(factor.to_bits()).filter(|_| range.contains(&factor))
    else {
        return Err(error);
    };
    // The factor is normal, so its mantissa has 24 bits and turn / mantissa < 2^95; the smallest
    // factor, 2^-10, has exponent -33, so the shift stays inside 128 bits.
    let quotient = turn / u128::from(divisor.mantissa);
    let exponent = divisor.exponent;
    Ok(if exponent <= 0 { quotient << -exponent } else { quotient >> exponent })
}

/// 1 / 2π, Q120.
const PER_TURN: u128 = 0x0028_BE60_DB93_9105_4A7F_09D5_F47D_4D37;
/// ln 2, Q120.
const LN_2: u128 = 0x00B1_7217_F7D1_CF79_ABC9_E3B3_9803_F2F7;
/// 1, Q120. Eight bits remain above the point: every logarithm of an f32 is below 89.
const ONE: u128 = 1 << 120;

/// Floor of the product of two Q120 numbers, itself Q120.
///
/// The product must be below 2^8.
fn product(a: u128, b: u128) -> u128 {
    let (a1, a0) = (a >> 64, a & u128::from(u64::MAX));
    let (b1, b0) = (b >> 64, b & u128::from(u64::MAX));
    let low = a0 * b0;
    // Neither sum can overflow: (2^64 − 1)^2 + 2 (2^64 − 1) < 2^128.
    let middle = a1 * b0 + (low >> 64);
    let middle_too = a0 * b1 + (middle & u128::from(u64::MAX));
    let high = a1 * b1 + (middle >> 64) + (middle_too >> 64);
    // The 256-bit product is high·2^128 + (low half of middle_too)·2^64 + …; drop 120 bits.
    (high << 8) | ((middle_too & u128::from(u64::MAX)) >> 56)
}

/// Natural logarithm of a number that is at least one, Q120, within 2^-112.
fn ln(number: Binary) -> u128 {
    // number = m · 2^k with m in [1, 2); ln m = 2 atanh z with z = (m − 1) / (m + 1) < 1/3.
    let bits = 31 - number.mantissa.leading_zeros() as i32;
    let whole = u128::from(number.mantissa);
    let one = 1u128 << bits;
    // (m − 1) / (m + 1) in Q120: the numerator has at most 23 bits, so shift in two steps.
    let (above, below) = (whole - one, whole + one);
    let first = (above << 96) / below;
    let rest = (above << 96) % below;
    let z = (first << 24) + (rest << 24) / below;
    let powers_of_two = (number.exponent + bits) as u128;
    2 * atanh(z) + powers_of_two * LN_2
}

/// Inverse hyperbolic tangent of a Q120 number below 1/2: z + z³/3 + z⁵/5 + …
fn atanh(z: u128) -> u128 {
    let square = product(z, z);
    let (mut power, mut sum, mut divisor) = (z, 0, 1);
    while power > 0 {
        sum += power / divisor;
        power = product(power, square);
        divisor += 2;
    }
    sum
}

/// e^−y of a Q120 number, Q120, within 2^-112.
fn exp_minus(y: u128) -> u128 {
    // y = halvings · ln 2 + rest, so e^−y = e^−rest / 2^halvings.
    let (halvings, rest) = (y / LN_2, y % LN_2);
    let (mut plus, mut minus) = (0, 0);
    let (mut term, mut index) = (ONE, 0);
    while term > 0 {
        if index % 2 == 0 {
            plus += term
        } else {
            minus += term
        }
        index += 1;
        term = product(term, rest) / index;
    }
    // y < 89, so fewer than 129 halvings; 128 would shift every bit out.
    (plus - minus).checked_shr(halvings as u32).unwrap_or(0)
}

/// Cosine and sine, Q30, of an angle given as a Q64 fraction of a full turn.
fn circle(angle: u64) -> (i32, i32) {
    // Eighths of a turn; odd ones are measured back from their end, so the series see 0..=π/4.
    let eighth = angle >> 61;
    let along = angle & ((1 << 61) - 1);
    let along = if eighth % 2 == 0 { along } else { (1 << 61) - along };
    let (c, s) = series(along);
    match eighth {
        0 => (c, s),
        1 => (s, c),
        2 => (-s, c),
        3 => (-c, s),
        4 => (-c, -s),
        5 => (-s, -c),
        6 => (s, -c),
        _ => (c, -s),
    }
}

/// Cosine and sine, Q30, of at most an eighth of a turn (Q64), by their power series in Q62.
fn series(along: u64) -> (i32, i32) {
    /// 2π, Q60.
    const TURN: u128 = 0x6487_ED51_10B4_611A;
    // Q64 · Q60 = Q124; the angle in radians is at most π/4.
    let x = ((u128::from(along) * TURN) >> 62) as u64;
    let multiply = |a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 62) as u64;
    let square = multiply(x, x);
    // Terms alternate in sign: cosine takes the even powers of x, sine the odd ones.
    let (mut cos, mut sin) = (0i64, 0i64);
    let (mut even, mut odd, mut index) = (1u64 << 62, x, 0);
    while odd > 0 || even > 0 {
        let sign = if index % 4 == 0 { 1 } else { -1 };
        cos += sign * even as i64;
        sin += sign * odd as i64;
        even = multiply(even, square) / ((index + 1) * (index + 2));
        odd = multiply(odd, square) / ((index + 2) * (index + 3));
        index += 2;
    }
    let round = |value: i64| ((value + (1 << 31)) >> 32) as i32;
    (round(cos), round(sin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Vectors {
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        name: String,
        base: f32,
        head_dim: usize,
        factors: Vec<f32>,
        turns: Vec<String>,
        rows: Vec<Angles>,
    }

    #[derive(Deserialize)]
    struct Angles {
        position: usize,
        cos: Vec<i32>,
        sin: Vec<i32>,
    }

    fn vectors() -> Vec<Case> {
        let text = include_str!("../../../tests/vectors/rope.json");
        serde_json::from_str::<Vectors>(text).unwrap().cases
    }

    fn rope(base: f32, factors: &[f32]) -> Rope {
        Rope { pairing: Pairing::Adjacent, base, factors: factors.to_vec() }
    }

    #[test]
    fn the_golden_vectors_come_out_to_the_bit() {
        for case in vectors() {
            let turns = turns(&rope(case.base, &case.factors), case.head_dim).unwrap();
            let text: Vec<String> = turns.iter().map(u64::to_string).collect();
            assert_eq!(text, case.turns, "turns of {}", case.name);
            for row in case.rows {
                let at = |turn: &u64| circle(turn.wrapping_mul(row.position as u64));
                let (cos, sin): (Vec<i32>, Vec<i32>) = turns.iter().map(at).unzip();
                assert_eq!(cos, row.cos, "cosines of {} at {}", case.name, row.position);
                assert_eq!(sin, row.sin, "sines of {} at {}", case.name, row.position);
            }
        }
    }

    #[test]
    fn a_table_is_its_rows_one_after_another() {
        let rope = rope(10_000.0, &[]);
        let tables = tables(&rope, 64, 100).unwrap();
        assert_eq!((tables.cos.len(), tables.sin.len()), (3200, 3200));
        assert_eq!(tables.row(0, 64), (&[1 << 30; 32][..], &[0; 32][..]));
        let turn = turns(&rope, 64).unwrap()[7];
        let (cos, sin) = tables.row(99, 64);
        assert_eq!((cos[7], sin[7]), circle(turn.wrapping_mul(99)));
    }

    #[test]
    fn llama3_scaling_gives_the_factors_of_the_vectors() {
        // Parameters of Llama 3.2 1B.
        let scaling = Llama3Scaling { factor: 32.0, low: 1.0, high: 4.0, context: 8192.0 };
        let expected = vectors().remove(2).factors;
        assert_eq!(llama3_factors(500_000.0, 64, &scaling).unwrap(), expected);
    }

    #[test]
    fn eighths_of_a_turn_are_exact() {
        let one = 1 << 30;
        // 2^30 / √2, rounded.
        let half = 759_250_125;
        let expected = [
            (one, 0),
            (half, half),
            (0, one),
            (-half, half),
            (-one, 0),
            (-half, -half),
            (0, -one),
            (half, -half),
        ];
        for (eighth, expected) in expected.into_iter().enumerate() {
            assert_eq!(circle((eighth as u64) << 61), expected, "eighth {eighth}");
        }
    }

    #[test]
    fn what_cannot_be_computed_is_refused() {
        let error = |base, factors: &[f32], head_dim| {
            tables(&rope(base, factors), head_dim, 1).unwrap_err().to_string()
        };
        assert_eq!(
            error(10_000.0, &[], 33),
            "heads have 33 elements, expected an even number from 2 to 256"
        );
        for base in [0.5, f32::NAN, f32::INFINITY, -2.0] {
            assert!(error(base, &[], 32).starts_with("rope base is"), "{base}");
        }
        assert_eq!(error(10.0, &[1.0; 3], 32), "3 rope factors, expected 16 or none");
        for factor in [0.0, -1.0, f32::NAN, 1e-4, 2e12] {
            assert!(error(10.0, &[factor], 2).starts_with("rope factor 0 is"), "{factor}");
        }
    }

    #[test]
    fn extreme_parameters_stay_within_their_words() {
        for base in [1.0, 1.5, f32::MAX] {
            for factor in [1.0 / 1024.0, 1.0 / 3.0, 1.0, 1_099_511_627_776.0] {
                turns(&rope(base, &[factor; 128]), 256).unwrap();
            }
        }
    }

    proptest! {
        #[test]
        fn angles_agree_with_the_float_functions(angle: u64) {
            let radians = angle as f64 * (std::f64::consts::TAU / 2f64.powi(64));
            let (cos, sin) = circle(angle);
            let unit = 2f64.powi(30);
            prop_assert!((f64::from(cos) - radians.cos() * unit).abs() < 0.500_01);
            prop_assert!((f64::from(sin) - radians.sin() * unit).abs() < 0.500_01);
        }

        #[test]
        fn turns_agree_with_the_float_functions(
            base in 1.0f32..1e8, pair in 0usize..64, factor in 0.01f32..1e3,
        ) {
            let turn = turns(&rope(base, &[factor; 64]), 128).unwrap()[pair];
            let exponent = -2.0 * pair as f64 / 128.0;
            let turns = f64::from(base).powf(exponent) / std::f64::consts::TAU / f64::from(factor);
            let found = turn as f64 / 2f64.powi(64);
            prop_assert!((found - turns.fract()).abs() < 1e-12, "{found} {turns}");
        }
    }
}
