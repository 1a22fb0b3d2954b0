//! Rules that join 32 words of one level of a radix tree into one word of the next.

use super::error::RuleError;
use super::leaf::WideLeaf;

/// The largest of the first `count` words, unsigned.
///
/// # Errors
/// If `count` is not in 1..=32.
pub fn maximum(words: &WideLeaf, count: usize) -> Result<u64, RuleError> {
    Ok(words.first(count)?.iter().copied().fold(0, u64::max))
}

/// The largest of the first `count` words, signed.
///
/// # Errors
/// If `count` is not in 1..=32.
pub fn maximum_signed(words: &WideLeaf, count: usize) -> Result<i64, RuleError> {
    Ok(words.first(count)?.iter().fold(i64::MIN, |most, word| most.max(word.cast_signed())))
}

/// The sum of the first `count` words, unsigned. It may exceed 64 bits, which no word then equals.
///
/// # Errors
/// If `count` is not in 1..=32.
pub fn total(words: &WideLeaf, count: usize) -> Result<u128, RuleError> {
    Ok(words.first(count)?.iter().map(|word| u128::from(*word)).sum())
}
