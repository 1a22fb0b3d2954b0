//! The trees that a model's id commits to, so that single leaves of it can be shown.
//!
//! The tree over the weights of a model of 0.5B parameters has four million leaves. Only its upper
//! part is kept: the roots of blocks of 1,024 leaves. What lies below is hashed again when a proof
//! passes through it, which takes a millisecond.

use std::collections::HashMap;
use std::iter;
use std::sync::{Arc, OnceLock};

use assay_evidence::dispute::ModelTrees;
use assay_evidence::op::Nodes;
use assay_models::Role;
use assay_protocol::{B256, StepLeaf, Tensor, depth};
use rayon::prelude::*;

use crate::commit;
use crate::hashing;
use crate::package::{Loaded, PackageError};
use crate::trace::Leaves;

/// Levels of the tree that are not kept.
const BLOCK_LEVELS: u32 = 10;
/// Blocks hashed between two reports of progress.
const BLOCKS_AT_ONCE: u64 = 64;

/// The trees of one model. Those of weights and of angles are built when they are first needed.
pub struct Trees {
    loaded: Arc<Loaded>,
    roles: Vec<Role>,
    steps: Vec<StepLeaf>,
    weights: OnceLock<Upper>,
    rope: OnceLock<Upper>,
}

/// One leaf of the weights, and what shows that it is the model's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightProof {
    /// The leaf's data (`docs/protocol/commitments.md`).
    pub data: Vec<u8>,
    /// Its siblings, from the leaf up.
    pub proof: Vec<B256>,
}

impl Trees {
    /// The trees of a model; nothing is hashed yet.
    pub fn new(loaded: Arc<Loaded>) -> Self {
        let steps = commit::steps(&loaded.model);
        let roles = loaded.model.shape().roles();
        Self { loaded, roles, steps, weights: OnceLock::new(), rope: OnceLock::new() }
    }

    /// Builds the tree of the weights, which takes some seconds for large models, and compares its
    /// root with the manifest's. `progress` is told the leaves hashed so far, and how many there
    /// are.
    ///
    /// # Errors
    /// If the weights are not those that the manifest commits to.
    pub fn build(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), PackageError> {
        let found = self.weight_tree(progress).top.root();
        if found == self.loaded.manifest.parts.weights {
            return Ok(());
        }
        Err(PackageError::Altered { what: "weights", id: self.loaded.id })
    }

    /// Leaves of the weight tree, over all tensors.
    pub fn weight_leaves(&self) -> u64 {
        let tensors = &self.loaded.manifest.tensors;
        let last = tensors.last().zip(self.roles.last());
        last.map_or(0, |(tensor, role)| {
            tensor.leaf + commit::leaves(*role, tensor.rows as usize, tensor.columns as usize)
        })
    }

    /// The data of a leaf of the weight tree, counted over all tensors, and its proof: what answers
    /// who asks whether somebody has a model. Nothing beyond the last leaf.
    pub fn weight(&self, index: u64) -> Option<WeightProof> {
        let data = self.weight_data(index)?;
        Some(WeightProof { data, proof: self.weights(index, 1) })
    }

    fn weight_data(&self, index: u64) -> Option<Vec<u8>> {
        let tensors = &self.loaded.manifest.tensors;
        let tensor = tensors.partition_point(|tensor| tensor.leaf <= index).checked_sub(1)?;
        commit::tensor_leaf(&self.loaded.model, self.roles[tensor], index - tensors[tensor].leaf)
    }

    fn angles(&self, index: u64) -> Option<Vec<u8>> {
        commit::rope_leaf(&self.loaded.model, index)
    }

    fn weight_tree(&self, progress: &mut dyn FnMut(u64, u64)) -> &Upper {
        let data = |index| self.weight_data(index);
        self.weights.get_or_init(|| Upper::new(self.weight_leaves(), &data, progress))
    }

    fn rope_tree(&self) -> &Upper {
        let leaves = commit::rope_leaves(self.loaded.model.shape());
        let data = |index| self.angles(index);
        self.rope.get_or_init(|| Upper::new(leaves, &data, &mut |_, _| ()))
    }
}

/// Who has a model, in memory or not, and can show it.
pub trait Holder: Send + Sync {
    /// What [`Trees::weight`] gives. The first of a large model takes seconds.
    ///
    /// # Errors
    /// If the model cannot be read.
    fn show(&self, index: u64) -> Result<Option<WeightProof>, PackageError>;
}

impl Holder for Trees {
    fn show(&self, index: u64) -> Result<Option<WeightProof>, PackageError> {
        Ok(self.weight(index))
    }
}

impl ModelTrees for Trees {
    fn steps(&self) -> &[StepLeaf] {
        &self.steps
    }

    fn tensors(&self) -> &[Tensor] {
        &self.loaded.manifest.tensors
    }

    fn weights(&self, first: u64, count: u64) -> Vec<B256> {
        let tree = self.weight_tree(&mut |_, _| ());
        tree.neighbours(first, count, &|index| self.weight_data(index))
    }

    fn rope(&self, first: u64, count: u64) -> Vec<B256> {
        self.rope_tree().neighbours(first, count, &|index| self.angles(index))
    }
}

impl std::fmt::Debug for Trees {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trees").field("model", &self.loaded.id).finish_non_exhaustive()
    }
}

/// The data of a leaf; nothing beyond the last one.
type LeafData<'a> = &'a (dyn Fn(u64) -> Option<Vec<u8>> + Sync);

/// The upper part of a tree, from the roots of its blocks on.
struct Upper {
    leaves: u64,
    /// Levels below the kept ones.
    low: u32,
    /// Over the roots of all blocks, those without leaves too.
    top: Nodes,
}

impl Upper {
    fn new(leaves: u64, data: LeafData<'_>, progress: &mut dyn FnMut(u64, u64)) -> Self {
        let low = depth(leaves).min(BLOCK_LEVELS);
        let filled = leaves.div_ceil(1 << low);
        let mut roots = Vec::new();
        for first in (0..filled).step_by(BLOCKS_AT_ONCE as usize) {
            let blocks = first..filled.min(first + BLOCKS_AT_ONCE);
            let end = blocks.end;
            let root = |index| hashing::root(block(index, low, data), low);
            roots.par_extend(blocks.into_par_iter().map(root));
            progress(leaves.min(end << low), leaves);
        }
        let empty = hashing::root(Vec::new(), low);
        roots.resize(1 << (depth(leaves) - low), empty);
        Self { leaves, low, top: Nodes::new(roots) }
    }

    /// The neighbours of a run of leaves, level by level, the left one first; none for a run that is
    /// empty or goes beyond the last leaf.
    fn neighbours(&self, first: u64, count: u64, data: LeafData<'_>) -> Vec<B256> {
        let end = first.checked_add(count).filter(|end| count > 0 && *end <= self.leaves);
        let Some(end) = end else { return Vec::new() };
        let mut low = Low { upper: self, data, blocks: HashMap::new() };
        let (mut first, mut last, mut neighbours) = (first, end - 1, Vec::new());
        for height in 0..depth(self.leaves) {
            if first % 2 == 1 {
                neighbours.push(low.node(height, first - 1));
            }
            if last % 2 == 0 {
                neighbours.push(low.node(height, last + 1));
            }
            (first, last) = (first / 2, last / 2);
        }
        neighbours
    }
}

/// All of a tree, while one proof is read from it.
struct Low<'a> {
    upper: &'a Upper,
    data: LeafData<'a>,
    /// Blocks hashed again so far: a run has neighbours in two at most.
    blocks: HashMap<u64, Nodes>,
}

impl Low<'_> {
    fn node(&mut self, height: u32, index: u64) -> B256 {
        let Upper { low, ref top, .. } = *self.upper;
        match height.checked_sub(low) {
            Some(height) => top.node(height, index),
            None => {
                let (above, data) = (low - height, self.data);
                let number = index >> above;
                let nodes = self.blocks.entry(number).or_insert_with(|| {
                    let leaves = block(number, low, data);
                    let padded = leaves.into_iter().map(B256::new).chain(iter::repeat(B256::ZERO));
                    Nodes::new(padded.take(1 << low).collect())
                });
                nodes.node(height, index & ((1 << above) - 1))
            }
        }
    }
}

/// The leaf hashes of a block of 2^`low` leaves, as far as there are leaves.
fn block(index: u64, low: u32, data: LeafData<'_>) -> Vec<[u8; 32]> {
    let mut leaves = Leaves::default();
    (index << low..(index + 1) << low).map_while(data).for_each(|leaf| leaves.push(&leaf));
    leaves.hashes()
}

#[cfg(test)]
mod tests;
