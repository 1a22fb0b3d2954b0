//! The chained state that a receipt binds: one hash per token, no trace.
//!
//! state_0 is the order's hash; state_i = keccak256(state_{i−1} ‖ token_i ‖ hidden_i), where
//! hidden_i hashes the quantised output of the last norm that produced token i. A single low bit
//! that differs anywhere in that vector gives another state from that token on.
//!
//! The answer of a model that gives texts vectors is one token, and hidden_1 hashes the vector itself.

use alloy_primitives::{B256, Keccak256};

use crate::OrderHash;
use crate::leaf::{LEAF_COLUMNS, LEAF_VALUES, activation_leaf, fixed_leaf};

/// The state after some number of output tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State(pub B256);

impl State {
    /// The state before the first token.
    pub fn start(order: OrderHash) -> Self {
        Self(order.0)
    }

    /// The state after `token`, which the vector behind `hidden` produced.
    #[must_use]
    pub fn next(self, token: u32, hidden: B256) -> Self {
        let mut hasher = Keccak256::new();
        hasher.update(self.0);
        hasher.update(token.to_be_bytes());
        hasher.update(hidden);
        Self(hasher.finalize())
    }
}

/// Hash of a quantised vector: keccak256 over its activation leaves in order.
///
/// `quants` is padded with zeros to a multiple of 128 columns, `scales` has one entry per 32.
///
/// # Panics
/// If the lengths are not those of whole leaves.
pub fn hidden_hash(quants: &[i8], scales: &[u16]) -> B256 {
    let (chunks, rest) = quants.as_chunks::<LEAF_COLUMNS>();
    let (scales, rest_scales) = scales.as_chunks::<4>();
    assert!(rest.is_empty() && rest_scales.is_empty() && chunks.len() == scales.len());
    let mut hasher = Keccak256::new();
    for (quants, scales) in chunks.iter().zip(scales) {
        hasher.update(activation_leaf(scales, quants));
    }
    hasher.finalize()
}

/// Hash of the vector of a text: keccak256 over its fixed-point leaves in order.
pub fn vector_hash(vector: &[i32]) -> B256 {
    let mut hasher = Keccak256::new();
    vector.chunks(LEAF_VALUES).for_each(|values| hasher.update(fixed_leaf(values)));
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vectors_hash_is_that_of_its_bytes() {
        let vector: Vec<i32> = (-40..24).collect();
        let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_be_bytes()).collect();
        assert_eq!(vector_hash(&vector), alloy_primitives::keccak256(bytes));
        let mut other = vector.clone();
        other[63] ^= 1;
        assert_ne!(vector_hash(&vector), vector_hash(&other));
    }

    #[test]
    fn one_low_bit_changes_every_state_after_it() {
        let mut quants = [5i8; 256];
        let scales = [9u16; 8];
        let honest = hidden_hash(&quants, &scales);
        quants[200] ^= 1;
        let flipped = hidden_hash(&quants, &scales);
        let start = State::start(OrderHash(B256::repeat_byte(3)));
        assert_ne!(start.next(4, honest), start.next(4, flipped));
        assert_ne!(start.next(4, honest).next(5, honest), start.next(4, flipped).next(5, honest));
    }
}
