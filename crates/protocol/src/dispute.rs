//! The words of a dispute, as its moves carry them (`docs/protocol/dispute.md`).
//!
//! The contracts read the same fields from `contracts/src/interfaces/IDisputes.sol` and
//! `contracts/src/libraries/dispute/Exhibits.sol`.

use alloy_primitives::B256;

use crate::Tensor;

/// One leaf, or a run of leaves, with what leads from there to a root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// Data of the leaf, or of neighbouring leaves one after another.
    pub data: Vec<u8>,
    /// The siblings from there up; of a run its neighbours, level by level, the left one first.
    pub proof: Vec<B256>,
}

/// A way down a tree of hashes from where a dispute stands, by as many levels as there are siblings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Branch {
    /// The turns, the lowest bit the last one; 1 is right.
    pub turns: u128,
    /// Where they lead.
    pub node: B256,
    /// The siblings from there up.
    pub proof: Vec<B256>,
}

/// One step as a leaf of a model's program holds it (`docs/protocol/commitments.md`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepLeaf {
    /// Kind, layer, four inputs, tensor, outputs: 32 bits each.
    pub head: B256,
    /// Terms (32 bits), fraction bits in and out (8 bits each).
    pub tail: [u8; 6],
}

impl StepLeaf {
    /// Length of the leaf's data.
    pub const BYTES: usize = 38;

    /// The step whose leaf has these data.
    pub fn read(data: &[u8; Self::BYTES]) -> Self {
        let mut leaf = Self::default();
        leaf.head.copy_from_slice(&data[..32]);
        leaf.tail.copy_from_slice(&data[32..]);
        leaf
    }

    /// The leaf's data.
    pub fn data(&self) -> [u8; Self::BYTES] {
        let mut data = [0; Self::BYTES];
        data[..32].copy_from_slice(self.head.as_slice());
        data[32..].copy_from_slice(&self.tail);
        data
    }
}

/// The step that an op carries out, opened in the model's program; of no meaning for the chained
/// state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenStep {
    /// The step.
    pub leaf: StepLeaf,
    /// Its siblings in the program.
    pub proof: Vec<B256>,
    /// ABI encoding of the dispute's facts.
    pub facts: Vec<u8>,
}

/// What is doubted about a leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Doubt {
    /// One of its elements.
    #[default]
    Element,
    /// TOKEN: that the drawn token is the one that was answered.
    Link,
    /// SMPL: that the threshold of top-k is the k-th largest logit.
    Kth,
    /// SMPL: that the threshold of top-p leaves just enough mass.
    Nucleus,
    /// STATE of the last position: that it is the receipt's.
    FinalState,
}

/// What a challenger names as wrong in the leaf that a branch leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accusation {
    /// What the leaf's op carries out.
    pub step: OpenStep,
    /// The tensor that the step reads, if it reads one, with its siblings in the model's table.
    pub tensor: Option<(Tensor, Vec<B256>)>,
    /// Of a quantised leaf one of 4 groups, of others one of 32 numbers.
    pub element: u8,
    /// What about it.
    pub doubt: Doubt,
}

/// The one number of a trace that a dispute has come down to, and all of the model that judging it
/// needs. A dispute keeps its hash; whoever moves brings it along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Focus {
    /// Position in the sequence.
    pub position: u32,
    /// Step of the program; their number stands for the chained state.
    pub op: u32,
    /// Leaf of the op.
    pub leaf: u64,
    /// Element of the leaf.
    pub element: u8,
    /// What is doubted.
    pub doubt: Doubt,
    /// Levels of the tree over positions.
    pub position_depth: u8,
    /// Levels of the tree over ops.
    pub op_depth: u8,
    /// The leaf's hash in the committed trace.
    pub node: B256,
    /// The root of the leaf's position.
    pub here: B256,
    /// The step that the op carries out.
    pub step: StepLeaf,
    /// Root of the weight tree; zero without a tensor.
    pub weights: B256,
    /// Levels of the weight tree.
    pub weight_depth: u8,
    /// Leaf at which the step's tensor begins.
    pub tensor_leaf: u64,
}

/// A list that the defender revealed, and the entry that the challenger doubts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// The entries one after another.
    pub list: Vec<u8>,
    /// Which one; meaningless in a round that no entry was chosen from.
    pub entry: u32,
}

/// Where a dispute stands: whose turn it is, or how it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// There is no such dispute.
    #[default]
    None,
    /// The defender owes the root of its trace.
    Commit,
    /// The challenger owes a way down, or the name of a number.
    Pick,
    /// The defender owes the nodes below the one that was picked.
    Reveal,
    /// The defender owes a proof of the number, or a list.
    Prove,
    /// The challenger owes the entry of the list that it doubts.
    Choose,
    /// The challenger has lost; its bond is the provider's.
    Lost,
    /// The same, and the bond was paid.
    Forfeited,
    /// The provider has lost; the bond goes back.
    Won,
    /// The same, and the bond has gone.
    Returned,
}

impl Phase {
    /// All of them, by their codes.
    pub const ALL: [Self; 10] = [
        Self::None,
        Self::Commit,
        Self::Pick,
        Self::Reveal,
        Self::Prove,
        Self::Choose,
        Self::Lost,
        Self::Forfeited,
        Self::Won,
        Self::Returned,
    ];
}

/// When and where a receipt was posted, to show that it can still be disputed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Posting {
    /// The provider's period.
    pub period: u64,
    /// The receipt's place in it.
    pub index: u64,
    /// Its siblings up to the period's root.
    pub proof: Vec<B256>,
}

/// Why an answer ends, or goes on, at one of its tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// The output token, counted from one, at which that shows.
    pub length: u32,
    /// The last tokens up to it, as many as the longest stop sequence has, or all.
    pub tokens: Vec<u32>,
    /// Their neighbours in the output's tree.
    pub proof: Vec<B256>,
    /// The model's end tokens.
    pub eos: Vec<u32>,
    /// What the sampler's `stops` is the hash of; empty for none.
    pub stops: Vec<u8>,
}
