//! The moves of a dispute, as words that become calls (`docs/protocol/dispute.md`).

use alloy_primitives::{Address, B256, Bytes, FixedBytes, U256, keccak256};
use alloy_sol_types::SolCall;
use assay_protocol::{
    Accusation, Answer, Branch, Channel, Focus, OpenStep, Opening, Order, Posting, Receipt, Round,
    Sampler, Signature, StepLeaf, Tail, Tensor,
};

use crate::bindings::{Disputes, word};
use crate::channels::config;

/// What a dispute begins with: both signed words, and what they hold the hashes of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filing {
    /// The buyer's order.
    pub order: Order,
    /// The buyer's signature.
    pub order_signature: Signature,
    /// The provider's receipt.
    pub receipt: Receipt,
    /// The provider's signature.
    pub receipt_signature: Signature,
    /// What the order's `sampler` is the hash of.
    pub sampler: Sampler,
    /// Where the receipt was posted, if that is what keeps it in reach.
    pub posting: Option<Posting>,
}

impl Filing {
    /// What an answer is disputed with.
    pub fn of(answer: &Answer, posting: Option<Posting>) -> Self {
        Self {
            order: answer.order.clone(),
            order_signature: answer.order_signature,
            receipt: answer.receipt.clone(),
            receipt_signature: answer.receipt_signature,
            sampler: answer.terms.sampler.clone(),
            posting,
        }
    }
}

/// One move of a dispute, or of what follows from it.
///
/// Moves of the challenger are sent by the account that opened the dispute. Those that bind the provider are sent
/// by its owner or operator, or carry a signature of theirs ([`Chain::signed`](crate::Chain::signed)). All others
/// are anyone's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Move {
    /// Disputes a receipt; takes the bond. [`Chain::open_dispute`](crate::Chain::open_dispute) allows that first.
    Open(Box<Filing>),
    /// The provider commits to the root of its trace.
    Commit {
        /// Which dispute.
        dispute: u64,
        /// The root.
        trace: B256,
        /// The provider's, if another account sends this.
        signature: Option<Signature>,
    },
    /// The challenger goes down to a node and asks for what is below it.
    Pick {
        /// Which dispute.
        dispute: u64,
        /// The way down; no siblings to ask where the game stands.
        branch: Branch,
    },
    /// As [`Move::Pick`], into the leaves of an op.
    PickWithin {
        /// Which dispute.
        dispute: u64,
        /// The way down.
        branch: Branch,
        /// The op's step.
        step: OpenStep,
    },
    /// The nodes below the picked one.
    Reveal {
        /// Which dispute.
        dispute: u64,
        /// 2^levels of them, left to right.
        nodes: Vec<B256>,
    },
    /// The challenger asks for a leaf's data, and goes nowhere.
    Ask {
        /// Which dispute.
        dispute: u64,
        /// The way down to the leaf, the lowest bit the last turn; 1 is right.
        turns: u128,
        /// Its length.
        levels: u8,
        /// The op's step.
        step: OpenStep,
    },
    /// The leaf that was asked for.
    Show {
        /// Which dispute.
        dispute: u64,
        /// The leaf, with its siblings up to where the dispute stands.
        leaf: Opening,
    },
    /// The challenger names what is wrong in a leaf.
    Name {
        /// Which dispute.
        dispute: u64,
        /// The way down to the leaf.
        branch: Branch,
        /// What is wrong in it.
        accusation: Box<Accusation>,
    },
    /// The challenger shows a node that is not empty where a trace has nothing.
    Empty {
        /// Which dispute.
        dispute: u64,
        /// The way down to the node.
        branch: Branch,
        /// The op's step, for a node below an op.
        step: OpenStep,
    },
    /// The provider reveals the list that the named number follows from.
    List {
        /// Which dispute.
        dispute: u64,
        /// The entries one after another.
        values: Vec<u8>,
        /// The provider's, if another account sends this.
        signature: Option<Signature>,
    },
    /// The challenger names the entry that it doubts.
    Choose {
        /// Which dispute.
        dispute: u64,
        /// Counted from zero.
        entry: u32,
    },
    /// Has the named number judged.
    Prove(Box<Proof>),
    /// Ends a game whose side to move has let its clock run out.
    Timeout {
        /// Which dispute.
        dispute: u64,
    },
    /// Convicts a receipt that contradicts its order or itself.
    Contradict(Box<Filing>),
    /// Convicts a receipt whose answer ended otherwise than it says.
    Misfinish(Box<Filing>, Tail),
    /// Convicts two receipts of one provider for one order.
    Equivocate(Box<Equivocation>),
    /// Convicts a provider that published nothing when a drawn auditor asked for what it had posted.
    Withhold {
        /// Its owner.
        provider: Address,
        /// Which of its periods.
        period: u64,
        /// The receipt's place in it.
        index: u64,
    },
    /// Ends all games about a receipt that turned out a canary.
    Excuse {
        /// A dispute about it.
        dispute: u64,
    },
    /// Has the stake slashed for a receipt that was found false.
    Punish {
        /// The receipt's digest.
        receipt: B256,
    },
    /// Has the money that a false receipt moved given back.
    Refund {
        /// The receipt.
        receipt: Box<Receipt>,
        /// The channel that it names.
        channel: Box<Channel>,
    },
    /// Pays the bond of a dispute that is decided.
    Close {
        /// Which dispute.
        dispute: u64,
    },
}

/// What has a named number judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Which dispute.
    pub dispute: u64,
    /// The number.
    pub focus: Focus,
    /// ABI encoding of the dispute's facts; may be empty where the rule needs none.
    pub facts: Vec<u8>,
    /// The lists revealed so far.
    pub rounds: Vec<Round>,
    /// The disputed leaf, then what the rule reads.
    pub openings: Vec<Opening>,
}

/// Two receipts of one provider for one order that cannot both be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Equivocation {
    /// Both receipts.
    pub receipts: [Receipt; 2],
    /// The provider's signature of each.
    pub signatures: [Signature; 2],
    /// The first output token that differs; of no meaning for equal outputs.
    pub index: u32,
    /// That token in each output; empty for equal outputs.
    pub tokens: [Opening; 2],
}

impl Move {
    /// What the provider signs to have this move made by another; none for moves that do not bind it.
    pub fn content(&self) -> Option<B256> {
        match self {
            Self::Commit { trace, .. } => Some(*trace),
            Self::List { values, .. } => Some(keccak256(values)),
            _ => None,
        }
    }

    /// The dispute that the move is in; none for one that opens it, or needs none.
    pub fn dispute(&self) -> Option<u64> {
        match self {
            Self::Commit { dispute, .. }
            | Self::Pick { dispute, .. }
            | Self::PickWithin { dispute, .. }
            | Self::Reveal { dispute, .. }
            | Self::Ask { dispute, .. }
            | Self::Show { dispute, .. }
            | Self::Name { dispute, .. }
            | Self::Empty { dispute, .. }
            | Self::List { dispute, .. }
            | Self::Choose { dispute, .. }
            | Self::Timeout { dispute }
            | Self::Excuse { dispute }
            | Self::Close { dispute } => Some(*dispute),
            Self::Prove(proof) => Some(proof.dispute),
            Self::Open(_)
            | Self::Contradict(_)
            | Self::Misfinish(..)
            | Self::Equivocate(_)
            | Self::Withhold { .. }
            | Self::Punish { .. }
            | Self::Refund { .. } => None,
        }
    }

    /// The call, ABI-encoded.
    pub(crate) fn encode(&self) -> Bytes {
        let id = self.dispute().map(U256::from).unwrap_or_default();
        let data = match self {
            Self::Open(filing) => Disputes::openCall(filing.encoded()).abi_encode(),
            Self::Commit { trace, signature, .. } => {
                let signature = signed(signature.as_ref());
                Disputes::commitCall { id, trace: *trace, signature }.abi_encode()
            }
            Self::Pick { branch: way, .. } => {
                Disputes::pickCall { id, branch: branch(way) }.abi_encode()
            }
            Self::PickWithin { branch: way, step: opened, .. } => {
                Disputes::pickWithinCall { id, branch: branch(way), step: step(opened) }
                    .abi_encode()
            }
            Self::Reveal { nodes, .. } => {
                Disputes::revealCall { id, nodes: nodes.clone() }.abi_encode()
            }
            Self::Ask { turns, levels, step: opened, .. } => {
                let (turns, levels) = (*turns, *levels);
                Disputes::askCall { id, turns, levels, step: step(opened) }.abi_encode()
            }
            Self::Show { leaf: Opening { data, proof }, .. } => {
                let (leaf, proof) = (data.clone().into(), proof.clone());
                Disputes::showCall { id, leaf, proof }.abi_encode()
            }
            Self::Name { branch: way, accusation: named, .. } => {
                let (branch, accusation) = (branch(way), accusation(named));
                Disputes::nameCall { id, branch, accusation }.abi_encode()
            }
            Self::Empty { branch: way, step: opened, .. } => {
                Disputes::emptyCall { id, branch: branch(way), step: step(opened) }.abi_encode()
            }
            Self::List { values, signature, .. } => {
                let (values, signature) = (values.clone().into(), signed(signature.as_ref()));
                Disputes::listCall { id, values, signature }.abi_encode()
            }
            Self::Choose { entry, .. } => Disputes::chooseCall { id, entry: *entry }.abi_encode(),
            Self::Prove(proof) => proof.encoded().abi_encode(),
            Self::Timeout { .. } => Disputes::timeoutCall { id }.abi_encode(),
            Self::Contradict(filing) => Disputes::contradictCall(filing.encoded()).abi_encode(),
            Self::Misfinish(filing, tail) => {
                Disputes::misfinishCall { _0: filing.encoded(), _1: encoded_tail(tail) }
                    .abi_encode()
            }
            Self::Equivocate(pair) => pair.encoded().abi_encode(),
            Self::Withhold { provider, period, index } => {
                let (period, index) = (U256::from(*period), U256::from(*index));
                Disputes::withholdCall { provider: *provider, period, index }.abi_encode()
            }
            Self::Excuse { .. } => Disputes::excuseCall { id }.abi_encode(),
            Self::Punish { receipt } => Disputes::punishCall { receipt: *receipt }.abi_encode(),
            Self::Refund { receipt: told, channel } => {
                let config = config!(Disputes, channel);
                Disputes::refundCall { receipt: word(&told.encode()), config }.abi_encode()
            }
            Self::Close { .. } => Disputes::closeCall { id }.abi_encode(),
        };
        data.into()
    }
}

impl Filing {
    pub(crate) fn encoded(&self) -> Disputes::Filing {
        let posting = self.posting.as_ref();
        Disputes::Filing {
            order: word(&self.order.encode()),
            orderSignature: signed(Some(&self.order_signature)),
            receipt: word(&self.receipt.encode()),
            receiptSignature: signed(Some(&self.receipt_signature)),
            sampler: word(&self.sampler.encode()),
            posting: Disputes::Posting {
                given: posting.is_some(),
                period: posting.map(|posting| U256::from(posting.period)).unwrap_or_default(),
                index: posting.map(|posting| U256::from(posting.index)).unwrap_or_default(),
                proof: posting.map(|posting| posting.proof.clone()).unwrap_or_default(),
            },
        }
    }
}

impl Proof {
    fn encoded(&self) -> Disputes::proveCall {
        let rounds = self
            .rounds
            .iter()
            .map(|round| Disputes::Round { list: round.list.clone().into(), entry: round.entry });
        Disputes::proveCall {
            id: U256::from(self.dispute),
            focus: focus(&self.focus),
            facts: self.facts.clone().into(),
            rounds: rounds.collect(),
            _4: self.openings.iter().map(opening).collect(),
        }
    }

    /// The proof that a call holds; none for one that no contract of ours would have taken.
    pub(crate) fn read(call: Disputes::proveCall) -> Option<Self> {
        let round = |round: Disputes::Round| Round { list: round.list.into(), entry: round.entry };
        let opening =
            |found: Disputes::Opening| Opening { data: found.data.into(), proof: found.proof };
        Some(Self {
            dispute: call.id.try_into().ok()?,
            focus: read_focus(&call.focus)?,
            facts: call.facts.into(),
            rounds: call.rounds.into_iter().map(round).collect(),
            openings: call._4.into_iter().map(opening).collect(),
        })
    }
}

impl Equivocation {
    fn encoded(&self) -> Disputes::equivocateCall {
        Disputes::equivocateCall {
            _0: self.receipts.each_ref().map(|receipt| word(&receipt.encode())),
            _1: self.signatures.each_ref().map(|signature| signed(Some(signature))),
            _2: self.index,
            _3: self.tokens.each_ref().map(opening),
        }
    }
}

fn signed(signature: Option<&Signature>) -> Bytes {
    signature.map(|signature| Bytes::copy_from_slice(&signature.0)).unwrap_or_default()
}

fn opening(opening: &Opening) -> Disputes::Opening {
    Disputes::Opening { data: opening.data.clone().into(), proof: opening.proof.clone() }
}

fn branch(branch: &Branch) -> Disputes::Branch {
    Disputes::Branch { turns: branch.turns, node: branch.node, proof: branch.proof.clone() }
}

fn step_leaf(leaf: &StepLeaf) -> Disputes::StepLeaf {
    Disputes::StepLeaf { head: leaf.head, tail: FixedBytes(leaf.tail) }
}

fn step(step: &OpenStep) -> Disputes::OpenStep {
    Disputes::OpenStep {
        leaf: step_leaf(&step.leaf),
        proof: step.proof.clone(),
        facts: step.facts.clone().into(),
    }
}

fn accusation(accusation: &Accusation) -> Disputes::Accusation {
    let (tensor, tensor_proof) = match &accusation.tensor {
        Some((found, proof)) => (tensor(found), proof.clone()),
        None => (Disputes::Tensor { kind: 0, rows: 0, columns: 0, leaf: 0 }, Vec::new()),
    };
    Disputes::Accusation {
        step: step(&accusation.step),
        tensor,
        tensorProof: tensor_proof,
        element: accusation.element,
        doubt: accusation.doubt as u8,
    }
}

fn tensor(tensor: &Tensor) -> Disputes::Tensor {
    Disputes::Tensor {
        kind: tensor.kind,
        rows: tensor.rows,
        columns: tensor.columns,
        leaf: tensor.leaf,
    }
}

fn encoded_tail(tail: &Tail) -> Disputes::Tail {
    let tokens: Vec<u8> = tail.tokens.iter().flat_map(|token| token.to_be_bytes()).collect();
    Disputes::Tail {
        length: tail.length,
        tokens: tokens.into(),
        proof: tail.proof.clone(),
        eos: tail.eos.clone(),
        stops: tail.stops.clone().into(),
    }
}

fn focus(focus: &Focus) -> Disputes::Focus {
    Disputes::Focus {
        position: focus.position,
        op: focus.op,
        leaf: focus.leaf,
        element: focus.element,
        doubt: focus.doubt as u8,
        positionDepth: focus.position_depth,
        opDepth: focus.op_depth,
        node: focus.node,
        here: focus.here,
        step: step_leaf(&focus.step),
        weights: focus.weights,
        weightDepth: focus.weight_depth,
        tensorLeaf: focus.tensor_leaf,
    }
}

/// A focus of the contract's; none if it has a doubt that nobody knows.
pub(crate) fn read_focus(found: &Disputes::Focus) -> Option<Focus> {
    use assay_protocol::Doubt;
    let doubts = [Doubt::Element, Doubt::Link, Doubt::Kth, Doubt::Nucleus, Doubt::FinalState];
    Some(Focus {
        position: found.position,
        op: found.op,
        leaf: found.leaf,
        element: found.element,
        doubt: doubts.into_iter().find(|doubt| *doubt as u8 == found.doubt)?,
        position_depth: found.positionDepth,
        op_depth: found.opDepth,
        node: found.node,
        here: found.here,
        step: StepLeaf { head: found.step.head, tail: found.step.tail.0 },
        weights: found.weights,
        weight_depth: found.weightDepth,
        tensor_leaf: found.tensorLeaf,
    })
}
