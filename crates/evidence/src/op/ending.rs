//! Rules that tie a trace to what was signed: the token link and the chained state.

use assay_protocol::{B256, LEAF_COLUMNS, State, keccak256};

use super::error::RuleError;

/// Bytes of one activation leaf.
const LEAF: usize = 8 + LEAF_COLUMNS;

/// TOKEN, check: whether the drawn token is the one that was answered.
pub fn link(drawn: u64, answered: u32) -> bool {
    drawn == u64::from(answered)
}

/// STATE: `keccak256(before ‖ token ‖ keccak256(leaves))`; `hidden` holds the leaves of AQf in
/// order.
///
/// # Errors
/// If `hidden` is not one whole leaf or more.
pub fn state(before: B256, token: u32, hidden: &[u8]) -> Result<B256, RuleError> {
    let leaves = hidden.len().div_ceil(LEAF).max(1);
    if hidden.len() != leaves * LEAF {
        return Err(RuleError::Length { found: hidden.len(), expected: leaves * LEAF });
    }
    Ok(State(before).next(token, keccak256(hidden)).0)
}

/// The key of an order's random numbers: `keccak256("EXACT1/rng" ‖ seed ‖ model ‖ prompt ‖
/// sampler)`, `sampler` being the hash of its sampler with seed 0.
pub fn draw_key(seed: B256, model: B256, prompt: B256, sampler: B256) -> B256 {
    keccak256([b"EXACT1/rng", &seed[..], &model[..], &prompt[..], &sampler[..]].concat())
}

/// The number that the output token at `index` is drawn with: the top 64 bits of
/// `keccak256(key ‖ index ‖ 0)`.
pub fn uniform(key: B256, index: u32) -> u64 {
    let hash = keccak256([&key[..], &index.to_be_bytes(), &[0; 4]].concat());
    let (top, _) = hash.split_first_chunk::<8>().expect("a hash has 32 bytes");
    u64::from_be_bytes(*top)
}
