//! Hashes of many leaves and nodes at once: the trees of `docs/protocol/commitments.md`, as
//! [`assay_protocol::root`] defines them, some eight hashes at a time.

use std::sync::LazyLock;

use assay_kernels::keccak256_each;
use assay_protocol::B256;

/// What a leaf's data are hashed behind.
const LEAF: [u8; 1] = [0];
/// The deepest tree there is: leaves are numbered with 64 bits.
const DEPTH_MAX: usize = 64;

/// Roots of trees without leaves, by depth.
static EMPTY: LazyLock<Vec<[u8; 32]>> = LazyLock::new(|| {
    let mut empty = vec![[0; 32]];
    while let Some(below) = empty.last().filter(|_| empty.len() <= DEPTH_MAX) {
        empty.push(assay_protocol::root([B256::new(*below); 2]).0);
    }
    empty
});

/// The hashes of leaves of `length` bytes that stand one after another.
pub(crate) fn leaf_hashes(data: &[u8], length: usize) -> Vec<[u8; 32]> {
    keccak256_each(&LEAF, data, length)
}

/// The root of a tree of this depth over leaf hashes, filled up with zeros.
pub(crate) fn root(leaves: Vec<[u8; 32]>, depth: u32) -> B256 {
    let mut level = leaves;
    for empty in EMPTY.iter().take(depth as usize) {
        if level.len() % 2 == 1 {
            level.push(*empty);
        }
        level = keccak256_each(&[], level.as_flattened(), 64);
    }
    B256::new(level.first().copied().unwrap_or(EMPTY[depth as usize]))
}

#[cfg(test)]
mod tests {
    use assay_protocol::{depth, leaf_hash};

    use super::*;

    #[test]
    fn roots_are_those_of_the_protocol() {
        for count in (0..70u64).chain([1000]) {
            let data: Vec<u8> = (0..136 * count).map(|byte| (byte % 251) as u8).collect();
            let leaves = leaf_hashes(&data, 136);
            let plain: Vec<B256> = data.chunks(136).map(leaf_hash).collect();
            assert_eq!(leaves.iter().map(|leaf| B256::new(*leaf)).collect::<Vec<_>>(), plain);
            assert_eq!(root(leaves, depth(count)), assay_protocol::root(plain), "{count} leaves");
        }
    }

    #[test]
    fn a_deeper_tree_is_filled_up() {
        let leaf = [7; 32];
        let padded = [leaf, [0; 32], [0; 32], [0; 32]].map(B256::new);
        assert_eq!(root(vec![leaf], 2), assay_protocol::root(padded));
        assert_eq!(root(Vec::new(), 2), assay_protocol::root([B256::ZERO; 4]));
    }
}
