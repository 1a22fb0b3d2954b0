//! Radix trees: how a trace reduces many numbers to one word.

use super::leaves::Leaves;

/// Words that are joined into one of the next level.
pub(super) const RADIX: usize = 32;

/// Every level of a radix tree, the lowest first; the last one has one word.
#[derive(Clone, Debug)]
pub(super) struct Radix {
    pub(super) levels: Vec<Vec<u64>>,
}

impl Radix {
    /// The tree whose lowest level has these words, at least one.
    pub(super) fn new(lowest: Vec<u64>, join: fn(&[u64]) -> u64) -> Self {
        let mut levels = vec![lowest];
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            levels.push(level.chunks(RADIX).map(join).collect());
        }
        Self { levels }
    }

    /// The word that all others were reduced to.
    pub(super) fn top(&self) -> u64 {
        self.levels[self.levels.len() - 1][0]
    }

    /// Appends its sections.
    pub(super) fn write(&self, leaves: &mut Leaves) {
        self.levels.iter().for_each(|level| leaves.push_wide(level));
    }
}

/// The largest of unsigned words.
pub(super) fn maximum(words: &[u64]) -> u64 {
    words.iter().copied().fold(0, u64::max)
}

/// The largest of signed words.
pub(super) fn maximum_signed(words: &[u64]) -> u64 {
    words.iter().map(|word| word.cast_signed()).fold(i64::MIN, i64::max).cast_unsigned()
}

/// The sum of words.
pub(super) fn total(words: &[u64]) -> u64 {
    words.iter().sum()
}
