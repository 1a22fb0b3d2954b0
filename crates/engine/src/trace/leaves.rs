//! The leaves of one op at one position.

use assay_evidence::op::{Nodes, WideLeaf};
use assay_protocol::{
    B256, LEAF_COLUMNS, LEAF_VALUES, activation_leaf, depth, fixed_leaf, keccak256,
};

use crate::hashing;

/// Columns that share a scale.
const GROUP: usize = 32;
/// Groups of a leaf of quantised numbers.
const GROUPS: usize = LEAF_COLUMNS / GROUP;

/// The leaves of one op at one position, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaves {
    /// Their data, one after another.
    data: Vec<u8>,
    /// How many leaves of how many bytes stand next to each other. An op has two such runs at most:
    /// only adjusted logits come before leaves of another size.
    runs: Vec<(u64, usize)>,
}

impl Leaves {
    /// Number of leaves.
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|(count, _)| count).sum()
    }

    /// Whether the op has no leaves.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The data of a leaf; nothing beyond the last.
    pub fn leaf(&self, index: u64) -> Option<&[u8]> {
        let (mut start, mut index) = (0, index);
        for &(count, bytes) in &self.runs {
            if index < count {
                return self.data.get(start + index as usize * bytes..)?.get(..bytes);
            }
            start += count as usize * bytes;
            index -= count;
        }
        None
    }

    /// The data of every leaf.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).filter_map(|index| self.leaf(index))
    }

    /// The tree over the leaves.
    pub fn nodes(&self) -> Nodes {
        Nodes::new(self.hashes().into_iter().map(B256::new).collect())
    }

    /// The root of that tree; zero without leaves.
    pub fn root(&self) -> B256 {
        hashing::root(self.hashes(), depth(self.len()))
    }

    /// The hashes of the leaves.
    pub(crate) fn hashes(&self) -> Vec<[u8; 32]> {
        let (mut start, mut hashes) = (0, Vec::new());
        for &(count, bytes) in &self.runs {
            let end = start + count as usize * bytes;
            hashes.extend(hashing::leaf_hashes(&self.data[start..end], bytes));
            start = end;
        }
        hashes
    }

    /// The hash of all data, one leaf after another: of AQf, what the chained state takes in.
    pub(super) fn hidden(&self) -> B256 {
        keccak256(&self.data)
    }

    /// Appends a leaf.
    pub(crate) fn push(&mut self, leaf: &[u8]) {
        self.data.extend_from_slice(leaf);
        match self.runs.last_mut() {
            Some((count, bytes)) if *bytes == leaf.len() => *count += 1,
            _ => self.runs.push((1, leaf.len())),
        }
    }

    /// Appends the section of these fixed-point numbers.
    pub(super) fn push_fixed(&mut self, values: &[i32]) {
        values.chunks(LEAF_VALUES).for_each(|values| self.push(&fixed_leaf(values)));
    }

    /// Appends the section of these words.
    pub(super) fn push_wide(&mut self, words: &[u64]) {
        words.chunks(LEAF_VALUES).for_each(|words| self.push(&WideLeaf::write(words)));
    }

    /// Appends the section of a quantised vector, filled up with zeros of scale 1.
    pub(super) fn push_quantised(&mut self, q: &[i8], scales: &[u16]) {
        for (q, scales) in q.chunks(LEAF_COLUMNS).zip(scales.chunks(GROUPS)) {
            self.push(&quantised_leaf(q, scales));
        }
    }

    /// Appends a hash.
    pub(super) fn push_state(&mut self, state: B256) {
        self.push(&state.0);
    }
}

/// The leaf of at most 128 quantised numbers, filled up with zeros of scale 1.
pub(super) fn quantised_leaf(q: &[i8], scales: &[u16]) -> [u8; 2 * GROUPS + LEAF_COLUMNS] {
    let (mut quants, mut all) = ([0; LEAF_COLUMNS], [1; GROUPS]);
    quants[..q.len()].copy_from_slice(q);
    all[..scales.len()].copy_from_slice(scales);
    activation_leaf(&all, &quants)
}
