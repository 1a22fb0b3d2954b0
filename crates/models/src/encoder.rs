//! Texts as vectors: what an encoder makes of a whole text.
//!
//! The mean of the last layer over all positions, brought to length one, in integers like all the
//! rest: the same text has the same vector to the bit on every machine.

use assay_kernels::Cpu;

use crate::batch::{ForwardError, Row};
use crate::cache::Cache;
use crate::decoder::Scratch;
use crate::model::Model;
use crate::tap::Tap;

/// Fraction bits of a text's vector.
pub const FRAC_EMBEDDING: u8 = 30;

impl Model {
    /// The vector of a text in `Fx<30>`: (width), of length one; all zeros where the mean is zero.
    ///
    /// Of a model that is no encoder it is made of the residual stream behind the last layer, of
    /// which nothing is promised but that it is the same everywhere.
    ///
    /// # Errors
    /// As [`Model::forward`]: an unknown token, or more than the context holds. A text of no
    /// tokens is refused too.
    pub fn embed<T: Tap>(
        &self,
        cpu: &Cpu,
        tokens: &[u32],
        scratch: &mut Scratch,
        tap: &mut T,
    ) -> Result<Vec<i32>, ForwardError> {
        if tokens.is_empty() {
            return Err(ForwardError::Empty);
        }
        let rows: Vec<Row> =
            tokens.iter().map(|&token| Row { token, sequence: 0, wanted: false }).collect();
        let mut cache = Cache::new(self.shape());
        self.forward(cpu, &rows, &mut [&mut cache], scratch, tap)?;
        let width = self.shape().width;
        let states = &scratch.states()[..rows.len() * width];
        Ok(unit(&sums(states, width)))
    }
}

/// The sum of each column; the mean but for a factor, which the length takes out.
fn sums(states: &[i32], width: usize) -> Vec<i64> {
    let mut sums = vec![0; width];
    for row in states.chunks_exact(width) {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += i64::from(*value));
    }
    sums
}

/// A vector brought to length one in `Fx<30>`, rounded half away from zero.
///
/// At most 2^15 sums below 2^48: their squares' sum fits 128 bits.
fn unit(sums: &[i64]) -> Vec<i32> {
    let squares: u128 = sums.iter().map(|sum| u128::from(sum.unsigned_abs()).pow(2)).sum();
    // The root with eight fraction bits more keeps short sums exact enough.
    let length = (squares << 16).isqrt();
    if length == 0 {
        return vec![0; sums.len()];
    }
    let shift = u32::from(FRAC_EMBEDDING) + 8;
    let number = |sum: &i64| {
        let magnitude = u128::from(sum.unsigned_abs()) << shift;
        // No component is longer than the whole, but for the root's rounding.
        let magnitude = ((2 * magnitude + length) / (2 * length)).min(1 << FRAC_EMBEDDING) as i32;
        if *sum < 0 { -magnitude } else { magnitude }
    };
    sums.iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_have_length_one() {
        assert_eq!(unit(&[3, -4]), [644_245_094, -858_993_459]);
        assert_eq!(unit(&[0, 0]), [0, 0]);
        assert_eq!(unit(&[-5]), [-(1 << 30)]);
        assert_eq!(unit(&[1 << 47, 1 << 47]), [759_250_125, 759_250_125]);
    }
}
