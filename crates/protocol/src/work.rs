//! How much an answer takes to compute: a public measure to compare prices of unlike models by.
//!
//! A function of the manifest and two counts, so nobody has to be believed. The formula and its
//! reasons stand in `docs/protocol/price.md`.

use crate::{Manifest, TensorKind};

/// Multiply-accumulates of one compute unit.
pub const COMPUTE_UNIT: u128 = 1_000_000_000;

/// Tensors of a layer, and which kinds multiply.
const LAYER_TENSORS: usize = 9;
const MATRICES: [u8; 2] = [TensorKind::W8 as u8, TensorKind::W4 as u8];

impl Manifest {
    /// Multiply-accumulates of an answer of `output` tokens to `prompt` tokens, with nothing reused
    /// from other answers. Divided by [`COMPUTE_UNIT`] it is in compute units.
    ///
    /// Each position but the last output's goes through the layers and looks at all before it; each
    /// output token takes one product with the vocabulary. Zero without a prompt.
    pub fn work(&self, prompt: u32, output: u32) -> u128 {
        if prompt == 0 {
            return 0;
        }
        let layers = self.tensors.iter().skip(1).take(LAYER_TENSORS * self.shape.layers as usize);
        let matrices = layers.filter(|tensor| MATRICES.contains(&tensor.kind));
        let matrices: u128 = matrices
            .map(|tensor| u128::from(tensor.rows) * u128::from(tensor.columns))
            .fold(0, u128::saturating_add);
        let shape = &self.shape;
        let positions = u128::from(prompt) + u128::from(output.max(1)) - 1;
        // Scores and their sum of values: one product each per head, element and earlier position.
        let seen = positions * (positions + 1) / 2;
        let attention = [shape.layers, shape.heads, shape.headDim]
            .into_iter()
            .fold(2 * seen, |all, size| all.saturating_mul(size.into()));
        let vocabulary = u128::from(shape.vocab) * u128::from(shape.width) * u128::from(output);
        matrices.saturating_mul(positions).saturating_add(attention).saturating_add(vocabulary)
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::hex;

    use super::*;

    fn nano() -> Manifest {
        let bytes = hex::decode(include_str!("../../../tests/vectors/nano.manifest").trim());
        Manifest::decode(&bytes.unwrap()).unwrap()
    }

    #[test]
    fn one_token_is_every_weight_once() {
        let manifest = nano();
        let weights: u128 = manifest
            .tensors
            .iter()
            .filter(|tensor| tensor.kind == 1)
            .map(|tensor| u128::from(tensor.rows) * u128::from(tensor.columns))
            .sum();
        let shape = &manifest.shape;
        let attention = 2 * u128::from(shape.layers * shape.heads * shape.headDim);
        // Its output is its embedding, which the prompt only looks up.
        assert_eq!(manifest.work(1, 1), weights + attention);
    }

    #[test]
    fn four_bits_are_as_much_work_as_eight() {
        let mut manifest = nano();
        let work = manifest.work(10, 5);
        for tensor in manifest.tensors.iter_mut().filter(|tensor| tensor.kind == 1) {
            tensor.kind = TensorKind::W4 as u8;
        }
        assert_eq!(manifest.work(10, 5), work);
    }

    #[test]
    fn work_adds_up_by_position() {
        let manifest = nano();
        let shape = &manifest.shape;
        let vocabulary = u128::from(shape.vocab) * u128::from(shape.width);
        // The same tokens cost the same, wherever the prompt ends, but for the products that draw.
        assert_eq!(manifest.work(10, 5) - 5 * vocabulary, manifest.work(14, 1) - vocabulary);
        assert_eq!(manifest.work(7, 1) - manifest.work(7, 0), vocabulary);
        assert_eq!(manifest.work(0, 9), 0);
        assert!(manifest.work(u32::MAX, u32::MAX) > manifest.work(u32::MAX, 1));
    }
}
