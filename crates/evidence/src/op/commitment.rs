//! The tree over a trace: its root, and the siblings that open a leaf.

use assay_protocol::{B256, depth, leaf_hash, root};

use super::claim::Place;

/// A Merkle tree that remembers its nodes. Zero leaves, which fill it up, are not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    /// From the leaves to the root; none for a tree without leaves.
    levels: Vec<Vec<B256>>,
}

impl Nodes {
    /// The tree over these leaf hashes, or roots of other trees.
    pub fn new(leaves: Vec<B256>) -> Self {
        let mut levels = vec![leaves];
        let mut zero = B256::ZERO;
        for _ in 0..depth(levels[0].len() as u64) {
            let below = &levels[levels.len() - 1];
            let join = |pair: &[B256]| root([pair[0], *pair.get(1).unwrap_or(&zero)]);
            let level = below.chunks(2).map(join).collect();
            levels.push(level);
            zero = root([zero, zero]);
        }
        Self { levels }
    }

    /// The tree over the leaves with these data.
    pub fn of_leaves<'a>(data: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self::new(data.into_iter().map(leaf_hash).collect())
    }

    /// Zero for a tree without leaves.
    pub fn root(&self) -> B256 {
        self.levels.last().and_then(|top| top.first()).copied().unwrap_or_default()
    }

    /// Levels below the root.
    pub fn depth(&self) -> u32 {
        self.levels.len() as u32 - 1
    }

    /// The node at a height above the leaves; what zero leaves give where there is nothing.
    pub fn node(&self, height: u32, index: u64) -> B256 {
        let kept = self.levels.get(height as usize).and_then(|level| level.get(index as usize));
        kept.copied().unwrap_or_else(|| (0..height).fold(B256::ZERO, |zero, _| root([zero, zero])))
    }

    /// The siblings of a leaf and of the nodes above it, from the leaf up.
    pub fn proof(&self, index: u64) -> Vec<B256> {
        (0..self.depth()).map(|height| self.node(height, (index >> height) ^ 1)).collect()
    }
}

/// The upper part of a trace: everything above the leaves of ops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spine {
    positions: Nodes,
    ops: Vec<Nodes>,
}

impl Spine {
    /// From the roots of every position's ops.
    pub fn new(op_roots: impl IntoIterator<Item = Vec<B256>>) -> Self {
        let ops: Vec<Nodes> = op_roots.into_iter().map(Nodes::new).collect();
        let positions = Nodes::new(ops.iter().map(Nodes::root).collect());
        Self { positions, ops }
    }

    /// The trace's root.
    pub fn root(&self) -> B256 {
        self.positions.root()
    }

    /// How a leaf hangs below the root: its index among all that a tree of that depth could hold,
    /// and the siblings from the leaf up. `leaves` is the tree of its op.
    ///
    /// # Panics
    /// If the trace has no such position.
    pub fn open(&self, place: Place, leaves: &Nodes) -> (u64, Vec<B256>) {
        let ops = &self.ops[place.position as usize];
        let upper = (u64::from(place.position) << ops.depth()) | u64::from(place.op);
        let index = (upper << leaves.depth()) | place.leaf;
        let mut proof = leaves.proof(place.leaf);
        proof.extend(ops.proof(place.op.into()));
        proof.extend(self.positions.proof(place.position.into()));
        (index, proof)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_lead_to_the_root_of_the_protocol() {
        for count in 1..40u64 {
            let leaves: Vec<B256> = (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect();
            let nodes = Nodes::new(leaves.clone());
            assert_eq!(nodes.root(), root(leaves.iter().copied()), "{count} leaves");
            assert_eq!(nodes.depth(), depth(count));
            for index in 0..1 << nodes.depth() {
                let mut node = nodes.node(0, index);
                for (height, sibling) in nodes.proof(index).into_iter().enumerate() {
                    let right = index >> height & 1 == 1;
                    node = if right { root([sibling, node]) } else { root([node, sibling]) };
                }
                assert_eq!(node, nodes.root(), "leaf {index} of {count}");
            }
        }
        assert_eq!(
            (Nodes::new(Vec::new()).root(), Nodes::new(Vec::new()).depth()),
            (B256::ZERO, 0)
        );
    }
}
