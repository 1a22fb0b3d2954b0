//! From what a graph gives to the vector of a text, in integers.
//!
//! The floats are the runtime's. From there on every step is one that IEEE 754 fixes to the bit (sums in
//! order, a root, a quotient, a product, all in binary64), so that equal floats give equal vectors everywhere.
//! Probabilities take an exponential as well, which is as exact as the system's library.

use serde::{Deserialize, Serialize};

use super::error::OnnxError;
use super::graph::Numbers;

/// The value of one, in `Fx<30>`.
const ONE: f64 = (1u64 << 30) as f64;

/// How the vectors of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first token's.
    First,
    /// The graph has done it.
    None,
}

/// How a classifier's outputs become probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scores {
    /// One class is the right one: all of them add up to one.
    Softmax,
    /// Each class is right or not.
    Sigmoid,
}

/// The probability of each class in `Fx<30>`, of the only text of a batch.
pub(super) fn probabilities(scores: Scores, numbers: &Numbers) -> Result<Vec<i32>, OnnxError> {
    finite(numbers)?;
    if !matches!(*numbers.shape, [1, classes] if classes > 0) {
        let (found, expected) = (numbers.shape.clone(), "a number for each class");
        return Err(OnnxError::Shape { found, expected });
    }
    let values = || numbers.values.iter().copied().map(f64::from);
    let shares: Vec<f64> = match scores {
        Scores::Softmax => {
            let most = values().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = values().map(|value| (value - most).exp()).collect();
            let sum: f64 = weights.iter().sum();
            weights.into_iter().map(|weight| weight / sum).collect()
        }
        Scores::Sigmoid => values().map(|value| 1.0 / (1.0 + (-value).exp())).collect(),
    };
    Ok(shares.into_iter().map(fixed).collect())
}

fn finite(numbers: &Numbers) -> Result<(), OnnxError> {
    match numbers.values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(OnnxError::NotFinite { index }),
        None => Ok(()),
    }
}

/// A number between minus one and one in `Fx<30>`, rounded half away from zero.
#[expect(clippy::cast_possible_truncation, reason = "no number is beyond one")]
fn fixed(number: f64) -> i32 {
    (number * ONE).round() as i32
}

/// The vector of the only text of a batch in `Fx<30>`: brought to length one, or all zeros.
pub(super) fn vector(pooling: Pooling, numbers: &Numbers) -> Result<Vec<i32>, OnnxError> {
    finite(numbers)?;
    let shape = |expected| OnnxError::Shape { found: numbers.shape.clone(), expected };
    let floats = |values: &[f32]| values.iter().copied().map(f64::from).collect::<Vec<f64>>();
    let pooled = match (pooling, numbers.shape.as_slice()) {
        (_, sizes) if sizes.contains(&0) => return Err(shape("at least one number")),
        (Pooling::None, &[1, _]) => floats(&numbers.values),
        (Pooling::None, _) => return Err(shape("one vector")),
        (Pooling::First, &[1, _, width]) => floats(&numbers.values[..width]),
        (Pooling::Mean, &[1, _, width]) => sums(&numbers.values, width),
        (Pooling::First | Pooling::Mean, _) => return Err(shape("a vector for each token")),
    };
    Ok(unit(&pooled))
}

/// The sum of each column: the mean but for a factor, which the length takes out.
fn sums(values: &[f32], width: usize) -> Vec<f64> {
    let mut sums = vec![0.0; width];
    for row in values.chunks_exact(width) {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    sums
}

/// Finite numbers brought to length one in `Fx<30>`, rounded half away from zero.
fn unit(numbers: &[f64]) -> Vec<i32> {
    // Sums of binary32: the squares of a whole vector are far from what binary64 holds.
    let length = numbers.iter().map(|number| number * number).sum::<f64>().sqrt();
    if length == 0.0 {
        return vec![0; numbers.len()];
    }
    numbers.iter().map(|number| fixed(number / length)).collect()
}

/// The cosine between two vectors; none if they differ in width, or one is all zeros.
pub(super) fn cosine(one: &[i32], other: &[i32]) -> Option<f64> {
    let product = |a: &[i32], b: &[i32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let lengths = (product(one, one) * product(other, other)).sqrt();
    (one.len() == other.len() && lengths > 0.0).then(|| product(one, other) / lengths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pooling: Pooling, shape: &[usize], values: &[f32], expected: Result<&[i32], &str>) {
        let numbers = Numbers { shape: shape.to_vec(), values: values.to_vec() };
        let found = vector(pooling, &numbers).map_err(|error| error.to_string());
        let (found, expected) = match (&found, expected) {
            (Err(found), Err(expected)) => return assert!(found.contains(expected), "{found}"),
            (found, expected) => (found.as_deref(), expected.map_err(str::to_owned)),
        };
        assert_eq!(found.map_err(Clone::clone), expected, "{pooling:?} of {shape:?}");
    }

    #[test]
    fn vectors_have_length_one() {
        let expected = [644_245_094, -858_993_459];
        check(Pooling::None, &[1, 2], &[3.0, -4.0], Ok(&expected));
        check(Pooling::Mean, &[1, 2, 2], &[1.0, 0.0, 2.0, -4.0], Ok(&expected));
        check(Pooling::First, &[1, 2, 2], &[3.0, -4.0, 9.0, 9.0], Ok(&expected));
        check(Pooling::None, &[1, 2], &[0.0, -0.0], Ok(&[0, 0]));
        check(Pooling::None, &[1, 1], &[-1e-45], Ok(&[-(1 << 30)]));
        check(Pooling::None, &[1, 1], &[f32::MAX], Ok(&[1 << 30]));
    }

    #[test]
    fn probabilities_add_up() {
        let check = |scores, values: &[f32], expected: &[f64]| {
            let numbers = Numbers { shape: vec![1, values.len()], values: values.to_vec() };
            let found = probabilities(scores, &numbers).unwrap();
            let near =
                |(found, expected): (&i32, &f64)| (f64::from(*found) / ONE - expected).abs() < 1e-8;
            assert!(found.iter().zip(expected).all(near), "{found:?}, expected {expected:?}");
        };
        let third = f32::ln(3.0);
        check(Scores::Softmax, &[0.0, third], &[0.25, 0.75]);
        check(Scores::Softmax, &[f32::MAX, f32::MIN], &[1.0, 0.0]);
        check(Scores::Sigmoid, &[0.0, third, f32::MIN], &[0.5, 0.75, 0.0]);
        let several = Numbers { shape: vec![2, 1], values: vec![0.0; 2] };
        assert!(probabilities(Scores::Softmax, &several).is_err());
    }

    #[test]
    fn what_is_no_vector_is_refused() {
        check(Pooling::None, &[1, 2, 1], &[1.0, 2.0], Err("[1, 2, 1], expected one vector"));
        check(Pooling::None, &[2, 1], &[1.0, 2.0], Err("expected one vector"));
        check(Pooling::Mean, &[1, 2], &[1.0, 2.0], Err("expected a vector for each token"));
        check(Pooling::First, &[1, 0, 2], &[], Err("expected at least one number"));
        check(Pooling::None, &[1, 2], &[1.0, f32::NAN], Err("number 1 of the output"));
        check(Pooling::Mean, &[1, 1, 1], &[f32::INFINITY], Err("not finite"));
    }

    #[test]
    fn cosines_are_told_where_there_are_any() {
        assert_eq!(cosine(&[3, 4], &[-3, -4]), Some(-1.0));
        assert_eq!(cosine(&[3, 4], &[3]), None);
        assert_eq!(cosine(&[0, 0], &[3, 4]), None);
    }
}
