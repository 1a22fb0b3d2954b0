//! Whether one element of a committed trace is right.

use std::ops::Range;

use super::claim::{Claim, Place, Source};
use super::error::{Quantity, RuleError, within};
use super::layout::LeafKind;
use super::recompute::{Openings, RecomputeError, recompute_element};

/// What a judge says of one element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It is what its rule gives.
    Right,
    /// It is not; both as they stand in the leaf.
    Wrong {
        /// What the rule gives.
        expected: Vec<u8>,
        /// What was committed.
        found: Vec<u8>,
    },
    /// It is advice, which only a check can refute.
    Advice,
}

/// Judges one element of the leaf at `place`: of a quantised leaf one of 4 groups, of others one
/// of 32 numbers, of a state the only one. Reads the leaf itself and what the element is computed
/// from.
///
/// # Errors
/// If a leaf is missing or malformed, or there is no such place or element.
pub fn judge(
    claim: &Claim<'_>,
    openings: &dyn Openings,
    place: Place,
    element: usize,
) -> Result<Ruling, RecomputeError> {
    let kind = kind_at(claim, place).ok_or(RecomputeError::Nowhere(place))?;
    within(Quantity::Count, element as u64, 0, kind.elements() as i128 - 1)?;
    let source = Source::Trace(place);
    let committed = openings.open(source).ok_or(RecomputeError::Missing(source))?;
    if committed.len() != kind.bytes() {
        let (found, expected) = (committed.len(), kind.bytes());
        return Err(RuleError::Length { found, expected }.into());
    }
    let Some(computed) = recompute_element(claim, openings, place, element)? else {
        return Ok(if element == 0 { Ruling::Advice } else { zeros(kind, &committed, element) });
    };
    Ok(compare(kind, &computed, &committed, element))
}

/// The kind of the leaf at a place.
pub(crate) fn kind_at(claim: &Claim<'_>, place: Place) -> Option<LeafKind> {
    let mut before = 0;
    let sections = claim.layout(place.position, place.op).sections();
    let section = sections.iter().find(|section| {
        before += section.leaves();
        place.leaf < before
    });
    section.map(|section| section.kind)
}

/// The element that fills up a leaf of advice.
fn zeros(kind: LeafKind, committed: &[u8], element: usize) -> Ruling {
    compare(kind, &vec![0; committed.len()], committed, element)
}

fn compare(kind: LeafKind, computed: &[u8], committed: &[u8], element: usize) -> Ruling {
    let of = |leaf: &[u8]| -> Vec<u8> {
        kind.ranges(element).into_iter().flat_map(|range| leaf[range].to_vec()).collect()
    };
    let (expected, found) = (of(computed), of(committed));
    if expected == found { Ruling::Right } else { Ruling::Wrong { expected, found } }
}

impl LeafKind {
    /// Elements of a leaf.
    pub fn elements(self) -> usize {
        match self {
            Self::Quantised => 4,
            Self::Fixed | Self::Wide => 32,
            Self::State => 1,
        }
    }

    /// Bytes of a leaf.
    pub fn bytes(self) -> usize {
        match self {
            Self::Quantised => 136,
            Self::Fixed => 128,
            Self::Wide => 256,
            Self::State => 32,
        }
    }

    /// Where an element stands in its leaf.
    pub(crate) fn ranges(self, element: usize) -> Vec<Range<usize>> {
        let run = |size: usize| size * element..size * (element + 1);
        match self {
            Self::Quantised => vec![run(2), 8 + 32 * element..8 + 32 * (element + 1)],
            Self::Fixed => vec![run(4)],
            Self::Wide => vec![run(8)],
            Self::State => vec![run(32)],
        }
    }
}
