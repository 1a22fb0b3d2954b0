//! Random numbers that a verifier can draw again.
//!
//! key = keccak256("EXACT1/rng" ‖ seed ‖ model ‖ prompt ‖ sampler without seed);
//! U(i, d) = top 64 bits of keccak256(key ‖ i ‖ d), i and d as 32-bit big-endian integers.
//! The same seed and request give the same text, whoever answers.

use alloy_primitives::{B256, Keccak256};

use crate::{Order, Sampler};

/// The random numbers of one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws {
    key: B256,
}

impl Draws {
    /// The numbers that `order`, with `sampler`, is answered with.
    pub fn new(order: &Order, sampler: &Sampler) -> Self {
        let mut hasher = Keccak256::new();
        hasher.update(b"EXACT1/rng");
        hasher.update(sampler.seed);
        hasher.update(order.model.0);
        hasher.update(order.prompt);
        hasher.update(sampler.without_seed().hash());
        Self { key: hasher.finalize() }
    }

    /// The numbers of a key.
    pub fn with_key(key: B256) -> Self {
        Self { key }
    }

    /// Uniform 64-bit number number `draw` for the output token at `index`.
    pub fn uniform(&self, index: u32, draw: u32) -> u64 {
        let mut hasher = Keccak256::new();
        hasher.update(self.key);
        hasher.update(index.to_be_bytes());
        hasher.update(draw.to_be_bytes());
        let hash = hasher.finalize();
        let (top, _) = hash.split_first_chunk::<8>().expect("a hash has 32 bytes");
        u64::from_be_bytes(*top)
    }
}
