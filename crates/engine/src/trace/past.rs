//! The quantised keys and values of every position, which rules read across positions.
//!
//! A cache holds them too, laid out for kernels; here they stand record by record. They take
//! `layers · kv_heads · head_dim · 2` bytes a position, and a sixteenth of that for scales.

use assay_evidence::op::{Claim, Kind};

use super::leaves::quantised_leaf;
use super::sight::Row;

/// Columns that share a scale.
const GROUP: usize = 32;
/// Columns of a leaf.
const COLUMNS: usize = 128;

/// Keys and values of the positions so far.
#[derive(Debug)]
pub(super) struct Past {
    /// By step of the program; none for steps that give neither.
    records: Vec<Option<Records>>,
}

/// The records of one step: of every position, of every head.
#[derive(Debug)]
pub(super) struct Records {
    heads: usize,
    head_dim: usize,
    /// (positions, heads, head_dim).
    q: Vec<i8>,
    /// (positions, heads, head_dim / 32).
    scales: Vec<u16>,
}

impl Past {
    /// No positions yet.
    pub(super) fn new(claim: &Claim<'_>) -> Self {
        let [heads, head_dim] =
            [claim.model.kv_heads, claim.model.head_dim].map(|size| size as usize);
        let records = claim.program.iter().map(|step| {
            matches!(step.kind, Kind::QuantiseKey | Kind::QuantiseValue).then(|| Records {
                heads,
                head_dim,
                q: Vec::new(),
                scales: Vec::new(),
            })
        });
        Self { records: records.collect() }
    }

    /// Adds the next position.
    pub(super) fn push(&mut self, row: &Row) {
        for (step, records) in (0..).zip(&mut self.records) {
            let Some(records) = records else { continue };
            let (q, scales) = row.quantised(step);
            records.q.extend_from_slice(q);
            records.scales.extend_from_slice(scales);
        }
    }

    /// The records of a step that gives keys or values.
    pub(super) fn records(&self, step: u32) -> Option<&Records> {
        self.records.get(step as usize)?.as_ref()
    }
}

impl Records {
    /// Numbers and scales of a head at a position.
    pub(super) fn head(&self, position: usize, head: usize) -> (&[i8], &[u16]) {
        let (record, groups) = (position * self.heads + head, self.head_dim / GROUP);
        let q = &self.q[record * self.head_dim..][..self.head_dim];
        (q, &self.scales[record * groups..][..groups])
    }

    /// Leaf `leaf` of the step at a position; nothing beyond the last.
    pub(super) fn leaf(&self, position: usize, leaf: u64) -> Option<Vec<u8>> {
        let per_head = self.head_dim.div_ceil(COLUMNS);
        let leaf = usize::try_from(leaf).ok()?;
        let (head, part) = (leaf / per_head, leaf % per_head);
        if head >= self.heads || (position + 1) * self.heads * self.head_dim > self.q.len() {
            return None;
        }
        let (q, scales) = self.head(position, head);
        let q = q.chunks(COLUMNS).nth(part)?;
        let scales = scales.chunks(COLUMNS / GROUP).nth(part)?;
        Some(quantised_leaf(q, scales).to_vec())
    }
}
