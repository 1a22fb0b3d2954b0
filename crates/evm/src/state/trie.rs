//! Ethereum's Merkle Patricia trie, kept in memory, always hashed, and never changed in place.
//!
//! An edit makes a new trie that shares every untouched node with the old one, so keeping the
//! tries of the last hundred blocks costs little more than keeping one. Edits come in sorted
//! batches: each node on the way is rebuilt and hashed once per batch, and the subtries of a
//! large batch are rebuilt by several threads.
//!
//! Keys are 32 bytes (hashes, outside of tests). A leaf holds its whole key and a branch only the
//! place of the nibble that it decides. What an extension node would spell out is read from any
//! key below, so extensions exist only where they are hashed or proved.

use std::sync::Arc;

use alloy_primitives::{B256, Bytes};
use alloy_trie::EMPTY_ROOT_HASH;
use rayon::prelude::*;

use super::node::{NIBBLES, Reference, branch_rlp, extension_rlp, leaf_rlp, nibble, shared};

/// Edits from which threads share the work. Fewer cost less than the hand-over.
pub(crate) const PARALLEL_MIN: usize = 64;

/// What a leaf holds.
pub(crate) trait Value: Clone + Send + Sync {
    /// Writes the value as the trie stores it: RLP.
    fn write(&self, out: &mut Vec<u8>);
}

/// One write to a trie: the key and its new value, or none to remove it.
pub(crate) type Edit<V> = (B256, Option<V>);

/// A map from 32-byte keys to values, with a root hash. Cloning it costs nothing.
#[derive(Clone)]
pub(crate) struct Trie<V>(Option<Node<V>>);

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Self(None)
    }
}

enum Node<V> {
    Leaf(Arc<Leaf<V>>),
    Branch(Arc<Branch<V>>),
}

impl<V> Clone for Node<V> {
    fn clone(&self) -> Self {
        match self {
            Self::Leaf(leaf) => Self::Leaf(Arc::clone(leaf)),
            Self::Branch(branch) => Self::Branch(Arc::clone(branch)),
        }
    }
}

struct Leaf<V> {
    key: B256,
    reference: Reference,
    value: V,
}

/// Two to sixteen subtries, with the extension in front of it if there is one.
struct Branch<V> {
    /// Of the extension where there is one, else of the branch.
    reference: Reference,
    /// Place of the nibble that tells the children apart.
    at: u8,
    /// Which nibbles have a child; bit 0 is nibble 0.
    present: u16,
    children: Box<[Node<V>]>,
}

impl<V: Value> Trie<V> {
    /// Its root hash.
    pub(crate) fn root(&self) -> B256 {
        self.0.as_ref().map_or(EMPTY_ROOT_HASH, |node| node.reference().root())
    }

    /// The value at `key`.
    pub(crate) fn get(&self, key: &B256) -> Option<&V> {
        let mut node = self.0.as_ref()?;
        loop {
            match node {
                Node::Leaf(leaf) => return (leaf.key == *key).then_some(&leaf.value),
                Node::Branch(branch) => node = branch.child(nibble(key, branch.at.into()))?,
            }
        }
    }

    /// The trie after `edits`, which are in ascending order of their keys, each key once.
    pub(crate) fn edit(&self, edits: &[Edit<V>]) -> Self {
        debug_assert!(edits.is_sorted_by(|a, b| a.0 < b.0), "edits out of order");
        match edits {
            [] => self.clone(),
            edits => Self(edit(self.0.as_ref(), 0, edits)),
        }
    }

    /// The RLP of each hashed node on the way to `key`, from the root: proof of what is there, or
    /// of the fact that nothing is. Empty for an empty trie.
    pub(crate) fn proof(&self, key: &B256) -> Vec<Bytes> {
        let mut proof = Vec::new();
        let mut next = self.0.as_ref();
        let mut from = 0;
        while let Some(node) = next {
            next = node.prove(key, from, &mut proof);
            from = node.end() + 1;
        }
        proof
    }
}

impl<V: Value> Node<V> {
    fn leaf(key: B256, from: usize, value: V) -> Self {
        let reference = Reference::of(&leaf_node(&key, from, &value));
        Self::Leaf(Arc::new(Leaf { key, reference, value }))
    }

    /// The node over `children`, told apart by nibble `at`, whose path starts at `from`: a branch,
    /// or what a branch with less than two children comes down to.
    fn join(children: Vec<Option<Self>>, at: usize, from: usize) -> Option<Self> {
        let mut present = 0;
        for (nibble, child) in children.iter().enumerate() {
            present |= u16::from(child.is_some()) << nibble;
        }
        let children: Box<[Self]> = children.into_iter().flatten().collect();
        match &*children {
            [] => None,
            [child] => Some(child.moved(from)),
            _ => Some(Self::branch(children, present, at, from)),
        }
    }

    fn branch(children: Box<[Self]>, present: u16, at: usize, from: usize) -> Self {
        let mut branch = Branch { reference: Reference::of(&[]), at: at as u8, present, children };
        branch.reference = branch.reference_from(from);
        Self::Branch(Arc::new(branch))
    }

    /// This node where its path starts at another nibble than before.
    fn moved(&self, from: usize) -> Self {
        match self {
            Self::Leaf(leaf) => Self::leaf(leaf.key, from, leaf.value.clone()),
            Self::Branch(branch) => {
                let at = branch.at.into();
                Self::branch(branch.children.clone(), branch.present, at, from)
            }
        }
    }

    fn reference(&self) -> &Reference {
        match self {
            Self::Leaf(leaf) => &leaf.reference,
            Self::Branch(branch) => &branch.reference,
        }
    }

    /// Where its path ends: the place of the nibble that it decides.
    fn end(&self) -> usize {
        match self {
            Self::Leaf(_) => NIBBLES,
            Self::Branch(branch) => branch.at.into(),
        }
    }

    /// Some key below, which spells out the path to this node.
    fn any_key(&self) -> &B256 {
        let mut node = self;
        loop {
            match node {
                Self::Leaf(leaf) => return &leaf.key,
                Self::Branch(branch) => node = &branch.children[0],
            }
        }
    }

    /// Adds this node, whose path starts at `from`, to the proof of `key`; returns the next one.
    fn prove(&self, key: &B256, from: usize, proof: &mut Vec<Bytes>) -> Option<&Self> {
        match self {
            Self::Leaf(leaf) => {
                push(proof, leaf_node(&leaf.key, from, &leaf.value));
                None
            }
            Self::Branch(branch) => {
                let at = usize::from(branch.at);
                let rlp = branch.rlp();
                if from < at {
                    let path = self.any_key();
                    push(proof, extension_rlp(path, from, at, &Reference::of(&rlp)));
                    if shared(path, key) < at {
                        return None;
                    }
                }
                push(proof, rlp);
                branch.child(nibble(key, at))
            }
        }
    }
}

impl<V: Value> Branch<V> {
    fn child(&self, nibble: usize) -> Option<&Node<V>> {
        let bit = 1_u16 << nibble;
        let place = (self.present & (bit - 1)).count_ones() as usize;
        (self.present & bit != 0).then(|| &self.children[place])
    }

    fn rlp(&self) -> Vec<u8> {
        branch_rlp((0..16).map(|nibble| self.child(nibble).map(Node::reference)))
    }

    /// Its reference where its path starts at `from`.
    fn reference_from(&self, from: usize) -> Reference {
        let branch = Reference::of(&self.rlp());
        let at = usize::from(self.at);
        if from == at {
            return branch;
        }
        Reference::of(&extension_rlp(self.children[0].any_key(), from, at, &branch))
    }
}

/// A node shorter than a hash stands inside its parent, so a proof lists it only as the root.
fn push(proof: &mut Vec<Bytes>, rlp: Vec<u8>) {
    if proof.is_empty() || rlp.len() >= 32 {
        proof.push(rlp.into());
    }
}

fn leaf_node<V: Value>(key: &B256, from: usize, value: &V) -> Vec<u8> {
    let mut rlp = Vec::with_capacity(112);
    value.write(&mut rlp);
    leaf_rlp(key, from, &rlp)
}

/// The subtrie after `edits` (at least one), where its path starts at nibble `from`.
fn edit<V: Value>(node: Option<&Node<V>>, from: usize, edits: &[Edit<V>]) -> Option<Node<V>> {
    match node {
        None => grow(from, edits),
        Some(Node::Leaf(leaf)) => edit_leaf(leaf, from, edits),
        Some(node @ Node::Branch(branch)) => edit_branch(node, branch, from, edits),
    }
}

/// The subtrie of the values that `edits` write.
fn grow<V: Value>(from: usize, edits: &[Edit<V>]) -> Option<Node<V>> {
    if edits.iter().any(|(_, value)| value.is_none()) {
        let writes: Vec<_> = edits.iter().filter(|(_, value)| value.is_some()).cloned().collect();
        return grow(from, &writes);
    }
    match edits {
        [] => None,
        [(key, value)] => value.clone().map(|value| Node::leaf(*key, from, value)),
        [(first, _), .., (last, _)] => {
            let at = shared(first, last);
            spread(|_| None, at, from, edits)
        }
    }
}

fn edit_leaf<V: Value>(leaf: &Leaf<V>, from: usize, edits: &[Edit<V>]) -> Option<Node<V>> {
    match edits.binary_search_by_key(&&leaf.key, |(key, _)| key) {
        Ok(_) => grow(from, edits),
        Err(place) => {
            let mut edits = edits.to_vec();
            edits.insert(place, (leaf.key, Some(leaf.value.clone())));
            grow(from, &edits)
        }
    }
}

fn edit_branch<V: Value>(
    node: &Node<V>,
    branch: &Branch<V>,
    from: usize,
    edits: &[Edit<V>],
) -> Option<Node<V>> {
    let path = *node.any_key();
    let at = usize::from(branch.at);
    // The edits are sorted: what the first and the last share with the path, all do.
    let ends = [&edits[0], &edits[edits.len() - 1]];
    if from == at || ends.iter().all(|(key, _)| shared(key, &path) >= at) {
        return spread(|nibble| branch.child(nibble), at, from, edits);
    }
    // Some edits leave the path before this branch. Of those, removals find nothing to remove.
    let kept = |(key, value): &&Edit<V>| value.is_some() || shared(key, &path) >= at;
    let edits: Vec<_> = edits.iter().filter(kept).cloned().collect();
    let fork = edits.iter().map(|(key, _)| shared(key, &path)).min();
    match fork {
        None => Some(node.moved(from)),
        Some(fork) if fork >= at => spread(|nibble| branch.child(nibble), at, from, &edits),
        Some(fork) => {
            let moved = node.moved(fork + 1);
            let turn = nibble(&path, fork);
            spread(|nibble| (nibble == turn).then_some(&moved), fork, from, &edits)
        }
    }
}

/// Edits the children of a branch, told apart by nibble `at`, and joins them again.
fn spread<'a, V: Value + 'a>(
    child: impl Fn(usize) -> Option<&'a Node<V>> + Sync,
    at: usize,
    from: usize,
    edits: &[Edit<V>],
) -> Option<Node<V>> {
    let bounds: [usize; 17] =
        std::array::from_fn(|nibble_| edits.partition_point(|(key, _)| nibble(key, at) < nibble_));
    let one = |nibble: usize| match &edits[bounds[nibble]..bounds[nibble + 1]] {
        [] => child(nibble).cloned(),
        edits => edit(child(nibble), at + 1, edits),
    };
    let children = if edits.len() < PARALLEL_MIN {
        (0..16).map(one).collect()
    } else {
        (0..16).into_par_iter().map(one).collect()
    };
    Node::join(children, at, from)
}
