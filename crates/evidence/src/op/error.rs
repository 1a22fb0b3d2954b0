//! Why a rule refuses what it was given.

/// A number that a rule reads and that no honest trace holds outside its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Quantity {
    /// Fraction bits, 0..=16; of queries 8..=16.
    Fraction = 0,
    /// Elements read of a leaf, 1..=32; of a block of attention 1..=64.
    Count = 1,
    /// Column of a leaf, 0..=127.
    Column = 2,
    /// Right shift of a product, 1..=62.
    Shift = 3,
    /// Right shift before squaring, 0..=8.
    NormShift = 4,
    /// Mean square, below 2^50.
    Mean = 5,
    /// Reciprocal root, 2^30..=2^31.
    Factor = 6,
    /// Right shift after the reciprocal root, 11..=35.
    FactorShift = 7,
    /// Cosine or sine in Q30, at most one.
    Angle = 8,
    /// Factor of scores in Q30, below 2^29.
    ScoreFactor = 9,
    /// A score, at most the largest of its head.
    Score = 10,
    /// Shift of a block of attention, 0..=22.
    BlockShift = 11,
    /// Sum of attention weights, more than nothing.
    Weights = 12,
    /// Repetition penalty, 2^12..=2^20.
    Repetition = 13,
    /// A logit, at most the largest.
    Logit = 14,
    /// Least weight of a token, at most 2^30.
    LeastWeight = 15,
    /// Where a draw falls, below the sum that it is drawn from.
    Mark = 16,
    /// Length of a row, 1..=2^15.
    Width = 17,
    /// A token id, below 2^31.
    Token = 18,
    /// Code of a step, 0..=33, or 34 for the chained state.
    Kind = 19,
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fraction => "number of fraction bits",
            Self::Count => "number of elements",
            Self::Column => "column",
            Self::Shift => "shift of a product",
            Self::NormShift => "shift before squaring",
            Self::Mean => "mean square",
            Self::Factor => "reciprocal root",
            Self::FactorShift => "shift after the reciprocal root",
            Self::Angle => "cosine or sine",
            Self::ScoreFactor => "factor of scores",
            Self::Score => "score",
            Self::BlockShift => "shift of a block",
            Self::Weights => "sum of weights",
            Self::Repetition => "repetition penalty",
            Self::Logit => "logit",
            Self::LeastWeight => "least weight",
            Self::Mark => "mark of a draw",
            Self::Width => "length of a row",
            Self::Token => "token id",
            Self::Kind => "code of a step",
        })
    }
}

/// Why a rule says nothing about an opening: its bytes are no leaf, or hold what no rule produces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// Not as many bytes as the format has.
    #[error("{found} bytes, expected {expected}")]
    Length {
        /// Bytes given.
        found: usize,
        /// Bytes of the format.
        expected: usize,
    },
    /// Not a leaf of weights.
    #[error("a leaf of kind {found}, expected weights (1)")]
    Kind {
        /// The kind found.
        found: u8,
    },
    /// A scale that no quantisation gives.
    #[error("group {group} has scale {found}")]
    Scale {
        /// Which of the leaf's groups.
        group: usize,
        /// The scale.
        found: u16,
    },
    /// A number −128.
    #[error("group {group} holds -128")]
    Quant {
        /// Which of the leaf's groups.
        group: usize,
    },
    /// A number outside the bounds within which the rule is defined.
    #[error("{what} is {found}, out of bounds")]
    OutOfBounds {
        /// What it stands for.
        what: Quantity,
        /// The number.
        found: i128,
    },
}

/// `found` if it lies within `least..=most`.
pub(super) fn within<T: Copy + Into<i128>>(
    what: Quantity,
    found: T,
    least: i128,
    most: i128,
) -> Result<T, RuleError> {
    let number = found.into();
    if (least..=most).contains(&number) {
        return Ok(found);
    }
    Err(RuleError::OutOfBounds { what, found: number })
}

/// A number of fraction bits that the arithmetic takes.
pub(super) fn fraction(found: u8) -> Result<i32, RuleError> {
    within(Quantity::Fraction, found, 0, 16).map(i32::from)
}
