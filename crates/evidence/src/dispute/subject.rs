//! What a dispute is about: one claim of one model, and how parts of that model are opened.

use assay_protocol::{
    Accusation, B256, Doubt, Focus, OpenStep, Round, StepLeaf, Tensor, TensorKind, depth,
    keccak256, leaf_hash,
};

use super::error::NoAnswer;
use super::path::Depths;
use super::trace::ModelTrees;
use crate::op::{Claim, Nodes, Place};

/// Nothing, where a step could name a tensor.
const NONE: u32 = u32::MAX;
/// Code of the chained state, which is no step of the program.
const STATE: u32 = 34;

/// What both sides of a dispute know before it begins.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// Everything that determines the trace but the weights.
    pub claim: &'a Claim<'a>,
    /// The model, as it was filed.
    pub model: &'a dyn ModelTrees,
    /// Root of the weight tree: `parts.weights` of the manifest.
    pub weights: B256,
    /// ABI encoding of the dispute's facts, as the chain gives it (`Clerk.factsOf`).
    pub facts: &'a [u8],
    /// The receipt's last state.
    pub state: B256,
}

impl Subject<'_> {
    /// The step of an op, opened in the model's program; empty but for the facts for the chained
    /// state.
    ///
    /// # Errors
    /// If the model has no such step.
    pub fn open_step(&self, op: u32) -> Result<OpenStep, NoAnswer> {
        let steps = self.model.steps();
        let facts = self.facts.to_vec();
        if op as usize == steps.len() {
            return Ok(OpenStep { facts, ..OpenStep::default() });
        }
        let leaf = *steps.get(op as usize).ok_or(NoAnswer::NotInModel { op })?;
        let hashes = steps.iter().map(|step| leaf_hash(&step.data())).collect();
        Ok(OpenStep { leaf, proof: Nodes::new(hashes).proof(op.into()), facts })
    }

    /// An accusation of an element, or of what `doubt` says, at an op.
    ///
    /// # Errors
    /// If the model has no such step or tensor.
    pub fn accuse(&self, op: u32, element: u8, doubt: Doubt) -> Result<Accusation, NoAnswer> {
        let step = self.open_step(op)?;
        let tensor = match self.tensor_of(op) {
            None => None,
            Some(index) => {
                let tensors = self.model.tensors();
                let tensor = tensors.get(index as usize).ok_or(NoAnswer::NotInModel { op })?;
                let hashes = tensors.iter().map(|tensor| leaf_hash(&tensor_data(tensor))).collect();
                Some((tensor.clone(), Nodes::new(hashes).proof(index.into())))
            }
        };
        Ok(Accusation { step, tensor, element, doubt })
    }

    /// The focus that follows from naming the leaf with hash `node` at `place`, below the position
    /// with root `here`.
    ///
    /// # Errors
    /// If the model has no such step or tensor.
    pub fn focus(
        &self,
        place: Place,
        (node, here): (B256, B256),
        element: u8,
        doubt: Doubt,
    ) -> Result<Focus, NoAnswer> {
        let depths = Depths::of(self.claim);
        let mut focus = Focus {
            position: place.position,
            op: place.op,
            leaf: place.leaf,
            element,
            doubt,
            position_depth: depths.positions as u8,
            op_depth: depths.ops as u8,
            node,
            here,
            step: self.step(place.op)?,
            ..Focus::default()
        };
        if let Some(index) = self.tensor_of(place.op) {
            let tensors = self.model.tensors();
            let missing = NoAnswer::NotInModel { op: place.op };
            focus.tensor_leaf = tensors.get(index as usize).ok_or(missing)?.leaf;
            focus.weights = self.weights;
            focus.weight_depth = depth(tensors.last().map_or(0, end)) as u8;
        }
        Ok(focus)
    }

    /// The layer of an op; nothing for those that belong to none.
    pub(crate) fn layer(&self, op: u32) -> Option<u32> {
        let step = self.model.steps().get(op as usize)?;
        Some(word(step, 1)).filter(|layer| *layer != NONE)
    }

    /// The step as a focus carries it.
    fn step(&self, op: u32) -> Result<StepLeaf, NoAnswer> {
        let steps = self.model.steps();
        if op as usize == steps.len() {
            let mut state = StepLeaf::default();
            state.head[..4].copy_from_slice(&STATE.to_be_bytes());
            return Ok(state);
        }
        steps.get(op as usize).copied().ok_or(NoAnswer::NotInModel { op })
    }

    /// Which tensor an op reads.
    fn tensor_of(&self, op: u32) -> Option<u32> {
        let step = self.model.steps().get(op as usize)?;
        Some(word(step, 6)).filter(|tensor| *tensor != NONE)
    }
}

/// A word of a step's leaf.
fn word(step: &StepLeaf, index: usize) -> u32 {
    step.head[4 * index..][..4].iter().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

/// The leaf after a tensor's last one.
fn end(tensor: &Tensor) -> u64 {
    let each = if tensor.kind == TensorKind::W8 as u8 { 128 } else { 32 };
    tensor.leaf + u64::from(tensor.rows) * u64::from(tensor.columns.div_ceil(each))
}

/// A tensor's leaf in the table: its ABI encoding.
fn tensor_data(tensor: &Tensor) -> Vec<u8> {
    let words = [tensor.kind.into(), tensor.rows.into(), tensor.columns.into(), tensor.leaf];
    words.into_iter().flat_map(number).collect()
}

/// A number as a word of 32 bytes.
fn number(value: u64) -> [u8; 32] {
    let mut word = [0; 32];
    word[24..].copy_from_slice(&value.to_be_bytes());
    word
}

/// What a dispute's point is once a number is named: the hash of the focus, and of each list that
/// was revealed and each entry that was chosen since.
///
/// `chosen` says how many of the rounds have their entry; the last list may still wait for it.
pub fn point_of(focus: &Focus, rounds: &[Round], chosen: usize) -> B256 {
    let mut point = keccak256(focus_words(focus).concat());
    for (index, round) in rounds.iter().enumerate() {
        point = keccak256([point, keccak256(&round.list)].concat());
        if index < chosen {
            point = keccak256([point.0, number(round.entry.into())].concat());
        }
    }
    point
}

fn focus_words(focus: &Focus) -> [[u8; 32]; 14] {
    let mut tail = [0; 32];
    tail[..6].copy_from_slice(&focus.step.tail);
    [
        number(focus.position.into()),
        number(focus.op.into()),
        number(focus.leaf),
        number(focus.element.into()),
        number(focus.doubt as u64),
        number(focus.position_depth.into()),
        number(focus.op_depth.into()),
        focus.node.0,
        focus.here.0,
        focus.step.head.0,
        tail,
        focus.weights.0,
        number(focus.weight_depth.into()),
        number(focus.tensor_leaf),
    ]
}
