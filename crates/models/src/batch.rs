//! Which tokens of which sequences are computed together.
//!
//! A batch mixes prefill chunks and single decoded tokens freely: a row's result depends on its
//! token and on what its sequence remembers, never on the other rows.

use assay_kernels::Quantised;

use crate::cache::Cache;
use crate::shape::Shape;

/// One token of one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The token at this position.
    pub token: u32,
    /// Index of its sequence's cache among the caches of the call.
    pub sequence: usize,
    /// Whether the logits of the token after this one are wanted.
    pub wanted: bool,
}

/// What a forward pass gives for the wanted rows, in their order.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// Quantised final-norm vectors: (wanted rows, padded width).
    pub hidden: Quantised,
    /// Logits in `Fx<16>`: (wanted rows, vocab).
    pub logits: Vec<i32>,
}

/// Why a batch cannot be computed. No cache was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// A text of no tokens has no vector.
    #[error("no tokens")]
    Empty,
    /// A token id outside the vocabulary.
    #[error("token {found}, but the vocabulary has {vocab} (row {row})")]
    Token {
        /// The token id.
        found: u32,
        /// Number of token ids.
        vocab: usize,
        /// The row that holds it.
        row: usize,
    },
    /// A sequence has no position left.
    #[error("no position left in a context of {context} (row {row}, sequence {sequence})")]
    ContextFull {
        /// Most positions a sequence may have.
        context: usize,
        /// The first row that has no place.
        row: usize,
        /// Its sequence.
        sequence: usize,
    },
    /// A row names a sequence that has no cache.
    #[error("sequence {found}, but the call has {sequences} caches (row {row})")]
    Sequence {
        /// The index.
        found: usize,
        /// Caches given.
        sequences: usize,
        /// The row.
        row: usize,
    },
}

/// A batch that was found computable.
pub(crate) struct Batch<'a> {
    pub(crate) rows: &'a [Row],
    /// The position of each row in its sequence.
    pub(crate) positions: Vec<usize>,
    /// Indices of the wanted rows.
    pub(crate) wanted: Vec<usize>,
}

impl<'a> Batch<'a> {
    /// Gives each row its position: the rows of a sequence follow what its cache holds, in order.
    pub(crate) fn plan(
        shape: &Shape,
        rows: &'a [Row],
        caches: &[&mut Cache],
    ) -> Result<Batch<'a>, ForwardError> {
        let mut next: Vec<usize> = caches.iter().map(|cache| cache.len()).collect();
        let mut positions = Vec::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            positions.push(place(shape, &mut next, index, row)?);
        }
        let wanted = (0..rows.len()).filter(|&row| rows[row].wanted).collect();
        Ok(Batch { rows, positions, wanted })
    }
}

/// Takes the next position of the row's sequence.
fn place(
    shape: &Shape,
    next: &mut [usize],
    row: usize,
    given: &Row,
) -> Result<usize, ForwardError> {
    let Shape { vocab, context, .. } = *shape;
    let Row { token, sequence, .. } = *given;
    if token as usize >= vocab {
        return Err(ForwardError::Token { found: token, vocab, row });
    }
    let sequences = next.len();
    let Some(next) = next.get_mut(sequence) else {
        return Err(ForwardError::Sequence { found: sequence, sequences, row });
    };
    if *next >= context {
        return Err(ForwardError::ContextFull { context, row, sequence });
    }
    *next += 1;
    Ok(*next - 1)
}
