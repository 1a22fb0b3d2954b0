//! What whoever computed a trace can show of it, and of the model that it is of.

use assay_protocol::{B256, StepLeaf, Tensor};

use crate::op::{Nodes, Openings, Spine};

/// A trace of which every part can be shown. It may compute a part again when it is asked for.
pub trait Trace: Openings {
    /// Everything above the leaves of ops.
    fn spine(&self) -> &Spine;

    /// The tree over the leaves of an op at a position; one without leaves where it has none.
    fn leaves(&self, position: u32, op: u32) -> Nodes;
}

/// The trees that a manifest's roots commit to.
pub trait ModelTrees {
    /// The program, step by step.
    fn steps(&self) -> &[StepLeaf];

    /// The tensor table.
    fn tensors(&self) -> &[Tensor];

    /// The neighbours of a run of leaves of the weight tree, level by level from the leaves, the left
    /// one first; of one leaf: its siblings. `first` counts over all tensors.
    fn weights(&self, first: u64, count: u64) -> Vec<B256>;

    /// As [`ModelTrees::weights`], of the RoPE table.
    fn rope(&self, first: u64, count: u64) -> Vec<B256>;
}
