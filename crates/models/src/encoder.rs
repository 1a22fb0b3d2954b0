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
        Ok(self.embed_all(cpu, &[tokens], scratch, tap)?.pop().unwrap_or_default())
    }

    /// The vectors of several texts, computed together: each the same bits as alone.
    ///
    /// # Errors
    /// As [`Model::embed`], of any of the texts.
    pub fn embed_all<T: Tap>(
        &self,
        cpu: &Cpu,
        texts: &[&[u32]],
        scratch: &mut Scratch,
        tap: &mut T,
    ) -> Result<Vec<Vec<i32>>, ForwardError> {
        if texts.iter().any(|text| text.is_empty()) {
            return Err(ForwardError::Empty);
        }
        let row = |sequence| move |&token: &u32| Row { token, sequence, wanted: false };
        let rows = texts.iter().enumerate().flat_map(|(index, text)| text.iter().map(row(index)));
        let rows: Vec<Row> = rows.collect();
        let mut caches: Vec<Cache> = texts.iter().map(|_| Cache::new(self.shape())).collect();
        let mut caches: Vec<&mut Cache> = caches.iter_mut().collect();
        self.forward(cpu, &rows, &mut caches, scratch, tap)?;
        let width = self.shape().width;
        let mut states = scratch.states();
        let vector = |text: &&[u32]| {
            let (own, others) = states.split_at(text.len() * width);
            states = others;
            unit(&sums(own, width))
        };
        Ok(texts.iter().map(vector).collect())
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
