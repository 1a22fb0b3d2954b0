//! Keccak Merkle trees of fixed depth with tagged leaves.
//!
//! leaf = keccak256(0x00 ‖ data), node = keccak256(left ‖ right); a tree of n leaves has depth
//! ceil(log2 n) and is padded with zero leaves. Depth is fixed by n and a leaf's data is never 63
//! bytes, so no node can pass for a leaf. The tag byte is not a length: a leaf of 63 bytes would
//! hash like a node, which is why [`leaf_hash`] refuses it.

use alloy_primitives::{B256, Keccak256, keccak256};

/// Hash of a leaf's data.
///
/// # Panics
/// If `data` has 63 bytes, the one length at which a leaf could pass for a node; every leaf format
/// of the protocol has another fixed length.
pub fn leaf_hash(data: &[u8]) -> B256 {
    assert_ne!(data.len(), 63, "a leaf of 63 bytes could pass for a node");
    let mut hasher = Keccak256::new();
    hasher.update([0]);
    hasher.update(data);
    hasher.finalize()
}

/// Depth of a tree of `leaves` leaves; a tree of one leaf, or of none, has depth zero.
pub fn depth(leaves: u64) -> u32 {
    leaves.max(1).next_power_of_two().trailing_zeros()
}

fn node(left: B256, right: B256) -> B256 {
    let mut data = [0; 64];
    data[..32].copy_from_slice(&left.0);
    data[32..].copy_from_slice(&right.0);
    keccak256(data)
}

/// Root over leaf hashes; zero for no leaf.
pub fn root(leaves: impl IntoIterator<Item = B256>) -> B256 {
    let mut tree = Tree::default();
    leaves.into_iter().for_each(|leaf| tree.push(leaf));
    tree.root()
}

/// A tree that is built leaf by leaf in memory of its depth.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Roots of the complete subtrees so far, one at each set bit of `leaves`, lowest last.
    complete: Vec<B256>,
    leaves: u64,
}

impl Tree {
    /// Appends a leaf hash.
    pub fn push(&mut self, leaf: B256) {
        let mut subtree = leaf;
        for _ in 0..self.leaves.trailing_ones() {
            let left = self.complete.pop().expect("one complete subtree per set bit");
            subtree = node(left, subtree);
        }
        self.complete.push(subtree);
        self.leaves += 1;
    }

    /// Number of leaves so far.
    pub fn leaves(&self) -> u64 {
        self.leaves
    }

    /// Root of what was pushed, padded with zero leaves; zero if nothing was.
    pub fn root(&self) -> B256 {
        let depth = depth(self.leaves);
        let mut zero = B256::ZERO;
        let mut right: Option<B256> = None;
        let mut complete = self.complete.iter().rev().copied();
        for level in 0..depth {
            let present = self.leaves >> level & 1 == 1;
            right = match (present, right) {
                (true, Some(right)) => complete.next().map(|left| node(left, right)),
                (true, None) => complete.next().map(|left| node(left, zero)),
                (false, Some(left)) => Some(node(left, zero)),
                (false, None) => None,
            };
            zero = node(zero, zero);
        }
        right.or_else(|| complete.next()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: pad to the depth, then hash level by level.
    fn plain(leaves: &[B256]) -> B256 {
        let mut level = leaves.to_vec();
        level.resize(1 << depth(leaves.len() as u64), B256::ZERO);
        while level.len() > 1 {
            level = level.chunks(2).map(|pair| node(pair[0], pair[1])).collect();
        }
        level[0]
    }

    #[test]
    fn streaming_equals_the_definition() {
        for count in 0..70u64 {
            let leaves: Vec<B256> = (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect();
            assert_eq!(root(leaves.iter().copied()), plain(&leaves), "{count} leaves");
        }
    }

    #[test]
    fn depth_is_the_ceiling_of_the_logarithm() {
        let depths: Vec<u32> = [0, 1, 2, 3, 4, 5, 8, 9].into_iter().map(depth).collect();
        assert_eq!(depths, [0, 0, 1, 2, 2, 3, 3, 4]);
    }
}
