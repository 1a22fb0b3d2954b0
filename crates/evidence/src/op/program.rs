//! The steps of a model's program, as its manifest commits to them.

use super::error::RuleError;

/// What a step computes. The codes are those of the program's leaves, in order of execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
#[expect(missing_docs, reason = "docs/protocol/trace.md says what each computes")]
pub enum Kind {
    Embed,
    NormStat1,
    Norm1,
    Quantise1,
    Query,
    Key,
    Value,
    RopeQuery,
    QuantiseQuery,
    RopeKey,
    QuantiseKey,
    QuantiseValue,
    Score,
    ScoreMax,
    BlockShift,
    Attend,
    QuantiseAttention,
    AttentionOutput,
    Residual1,
    NormStat2,
    Norm2,
    Quantise2,
    Gate,
    Up,
    Activation,
    QuantiseHidden,
    Down,
    Residual2,
    NormStatFinal,
    NormFinal,
    QuantiseFinal,
    Logits,
    Sample,
    Token,
}

impl Kind {
    /// Every kind, by its code.
    pub const ALL: [Self; 34] = [
        Self::Embed,
        Self::NormStat1,
        Self::Norm1,
        Self::Quantise1,
        Self::Query,
        Self::Key,
        Self::Value,
        Self::RopeQuery,
        Self::QuantiseQuery,
        Self::RopeKey,
        Self::QuantiseKey,
        Self::QuantiseValue,
        Self::Score,
        Self::ScoreMax,
        Self::BlockShift,
        Self::Attend,
        Self::QuantiseAttention,
        Self::AttentionOutput,
        Self::Residual1,
        Self::NormStat2,
        Self::Norm2,
        Self::Quantise2,
        Self::Gate,
        Self::Up,
        Self::Activation,
        Self::QuantiseHidden,
        Self::Down,
        Self::Residual2,
        Self::NormStatFinal,
        Self::NormFinal,
        Self::QuantiseFinal,
        Self::Logits,
        Self::Sample,
        Self::Token,
    ];

    /// Whether only positions that answer have leaves of this kind.
    pub fn answers(self) -> bool {
        self >= Self::NormStatFinal
    }
}

/// One step: a leaf of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is computed.
    pub kind: Kind,
    /// Earlier steps whose outputs are read; `u32::MAX` for none.
    pub inputs: [u32; 4],
    /// The tensor that is read, as an index into the manifest's; `u32::MAX` for none.
    pub tensor: u32,
    /// Numbers in the output.
    pub outputs: u32,
    /// Numbers that each output is computed along.
    pub terms: u32,
    /// Fraction bits of the first input.
    pub frac_in: u8,
    /// Fraction bits of the output.
    pub frac_out: u8,
}

impl Step {
    /// Reads `kind ‖ layer ‖ 4 inputs ‖ tensor ‖ outputs ‖ terms` (u32 each) `‖ fraction bits in ‖
    /// out`.
    ///
    /// # Errors
    /// If the length differs, or no step has this kind.
    pub fn read(leaf: &[u8]) -> Result<Self, RuleError> {
        const LEN: usize = 9 * 4 + 2;
        let wrong = RuleError::Length { found: leaf.len(), expected: LEN };
        let (words, &[frac_in, frac_out]) = leaf.as_chunks::<4>() else { return Err(wrong) };
        let words: &[[u8; 4]; 9] = words.try_into().map_err(|_| wrong)?;
        let word = |index: usize| u32::from_be_bytes(words[index]);
        let kind = Kind::ALL.get(word(0) as usize).copied();
        Ok(Self {
            kind: kind.ok_or(RuleError::Kind { found: words[0][3] })?,
            inputs: std::array::from_fn(|input| word(2 + input)),
            tensor: word(6),
            outputs: word(7),
            terms: word(8),
            frac_in,
            frac_out,
        })
    }
}
