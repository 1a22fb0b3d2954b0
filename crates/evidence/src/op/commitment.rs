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

    /// Takes the word of another tree of this size for a node. What is above and below it stays, so
    /// proofs lead to the other tree's root once all nodes beside their way are its.
    pub fn put(&mut self, height: u32, index: u64, node: B256) {
        let level = self.levels.get_mut(height as usize);
        let kept = level.and_then(|level| level.get_mut(usize::try_from(index).ok()?));
        kept.into_iter().for_each(|kept| *kept = node);
    }

    /// The siblings of a leaf and of the nodes above it, from the leaf up.
    pub fn proof(&self, index: u64) -> Vec<B256> {
        (0..self.depth()).map(|height| self.node(height, (index >> height) ^ 1)).collect()
    }

    /// The neighbours of a run of leaves, level by level from the leaves: the left one if the run
    /// begins with a right child, then the right one if it ends with a left child.
    ///
    /// `count` is at least 1. Of one leaf these are its siblings.
    pub fn range_proof(&self, first: u64, count: u64) -> Vec<B256> {
        let (mut first, mut end) = (first, first + count);
        let mut neighbours = Vec::new();
        for height in 0..self.depth() {
            if first & 1 == 1 {
                neighbours.push(self.node(height, first - 1));
            }
            if end & 1 == 1 {
                neighbours.push(self.node(height, end));
            }
            (first, end) = (first >> 1, end.div_ceil(2));
        }
        neighbours
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

    /// The same, with other nodes above positions, and above the ops of one of them.
    #[must_use]
    pub fn with(&self, positions: Nodes, (position, ops): (u32, Nodes)) -> Self {
        let mut spine = Self { positions, ops: self.ops.clone() };
        spine.ops.get_mut(position as usize).into_iter().for_each(|kept| *kept = ops.clone());
        spine
    }

    /// The trace's root.
    pub fn root(&self) -> B256 {
        self.positions.root()
    }

    /// The tree over positions.
    pub fn positions(&self) -> &Nodes {
        &self.positions
    }

    /// The tree over the ops of a position; nothing beyond the trace.
    pub fn ops(&self, position: u32) -> Option<&Nodes> {
        self.ops.get(position as usize)
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

    /// Joins a run with its neighbours, as the contracts do.
    fn climb(mut run: Vec<B256>, mut first: u64, depth: u32, proof: &[B256]) -> Option<B256> {
        let mut proof = proof.iter().copied();
        for _ in 0..depth {
            if first & 1 == 1 {
                run.insert(0, proof.next()?);
            }
            if run.len() % 2 == 1 {
                run.push(proof.next()?);
            }
            run = run.chunks(2).map(|pair| root([pair[0], pair[1]])).collect();
            first >>= 1;
        }
        (run.len() == 1 && proof.next().is_none()).then(|| run[0])
    }

    #[test]
    fn runs_lead_to_the_root_too() {
        for count in 1..20u64 {
            let leaves: Vec<B256> = (0..count).map(|i| leaf_hash(&i.to_be_bytes())).collect();
            let nodes = Nodes::new(leaves.clone());
            for first in 0..count {
                for end in first + 1..=count {
                    let run = leaves[first as usize..end as usize].to_vec();
                    let proof = nodes.range_proof(first, end - first);
                    assert_eq!(climb(run, first, nodes.depth(), &proof), Some(nodes.root()));
                }
                assert_eq!(nodes.range_proof(first, 1), nodes.proof(first));
            }
        }
    }
}
