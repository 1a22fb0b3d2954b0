//! Where a dispute stands, and what a side says next: the chain in plain words.

use assay_protocol::{Accusation, B256, Branch, Focus, OpenStep, Opening, Phase, Round};

use super::error::NoAnswer;
use super::known::Known;
use super::path::{Way, fold};
use super::subject::point_of;

/// Nodes that a defender revealed, and where they hang.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fan {
    /// The node that they fold to.
    pub below: Way,
    /// A whole level of what is below it.
    pub nodes: Vec<B256>,
}

/// Where a dispute stands: what the contract keeps, and what its events have told so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whose turn it is.
    pub phase: Phase,
    /// The node that was picked last.
    pub way: Way,
    /// Levels of the tree of leaves, once an op's step was opened.
    pub leaf_depth: Option<u8>,
    /// The least depth that the next pick has to reach.
    pub reach: u32,
    /// The committed root; zero before.
    pub trace: B256,
    /// Hash of the node that was picked; once a number is named, of focus and rounds.
    pub point: B256,
    /// What was revealed, in order.
    pub revealed: Vec<Fan>,
    /// The leaf that the challenger asked to see, while it waits for it.
    pub asked: Option<Way>,
    /// Data of leaves that it was shown.
    pub shown: Vec<(Way, Vec<u8>)>,
    /// The number that was named.
    pub focus: Option<Focus>,
    /// Lists and chosen entries; of the last one none while [`Phase::Choose`] lasts.
    pub rounds: Vec<Round>,
}

impl Standing {
    /// All nodes of the committed trace that are known from the chain.
    ///
    /// A node that was picked through siblings from elsewhere hangs from the root by the chain's word,
    /// which saw them.
    ///
    /// # Errors
    /// If some do not hang from the root: then the chain was not told truly.
    pub(crate) fn known(&self) -> Result<Known, NoAnswer> {
        let mut known = Known::new(self.trace);
        for fan in &self.revealed {
            known.hear(fan.below, fold(&fan.nodes));
            if !known.add(fan.below, &fan.nodes) {
                return Err(NoAnswer::Unhung(fan.below));
            }
        }
        Ok(known)
    }

    /// The focus, checked against what the dispute keeps.
    ///
    /// # Errors
    /// If there is none, or it or a list is not the dispute's.
    pub(crate) fn checked_focus(&self) -> Result<&Focus, NoAnswer> {
        let focus = self.focus.as_ref().ok_or(NoAnswer::NoFocus)?;
        let pending = usize::from(self.phase == Phase::Choose);
        let chosen = self.rounds.len().saturating_sub(pending);
        let found = point_of(focus, &self.rounds, chosen);
        let expected = self.point;
        if found == expected { Ok(focus) } else { Err(NoAnswer::WrongPoint { found, expected }) }
    }
}

/// What `prove` brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The number.
    pub focus: Focus,
    /// ABI encoding of the dispute's facts; empty where the rule needs none.
    pub facts: Vec<u8>,
    /// Lists and chosen entries.
    pub rounds: Vec<Round>,
    /// The disputed leaf, then what the rule reads.
    pub openings: Vec<Opening>,
}

/// What a side says next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// The defender commits to the root of its trace.
    Commit(B256),
    /// The defender shows the nodes below the picked one.
    Reveal(Vec<B256>),
    /// The defender shows the list that the named number follows from.
    List(Vec<u8>),
    /// The named number is proved; whoever is right wins.
    Prove(Box<Proof>),
    /// The challenger goes down.
    Pick(Branch),
    /// The challenger goes down into the leaves of an op.
    PickWithin(Branch, OpenStep),
    /// The challenger asks for the data of a leaf, and stays where it is.
    Ask {
        /// The way to it from there; the lowest bit is the last turn.
        turns: u128,
        /// How many levels.
        levels: u8,
        /// The op's step.
        step: OpenStep,
    },
    /// The defender shows the leaf, with its siblings up to where the dispute stands.
    Show(Opening),
    /// The challenger goes down to a leaf and names what is wrong in it.
    Name(Branch, Box<Accusation>),
    /// The challenger shows a node where nothing can be.
    Empty(Branch, OpenStep),
    /// The challenger names the entry of the list that it doubts.
    Choose(u32),
}
