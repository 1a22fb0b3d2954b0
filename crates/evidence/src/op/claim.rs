//! What a trace is a function of, and where its leaves are found.

use assay_protocol::B256;

use super::layout::{Extent, Layout, Sampling, tree_levels};
use super::program::Step;
use super::sampling::{Hits, Penalties};

/// Where a leaf lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// In the trace that is judged.
    Trace(Place),
    /// In the model's weights.
    Weights {
        /// Index into the manifest's tensors.
        tensor: u32,
        /// Leaf of the tensor.
        leaf: u64,
    },
    /// In the model's RoPE table.
    Rope {
        /// Leaf of the table.
        leaf: u64,
    },
}

/// A leaf of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Position in the sequence.
    pub position: u32,
    /// Step of the program; their number stands for the chained state.
    pub op: u32,
    /// Leaf of the op.
    pub leaf: u64,
}

/// The sizes of a model that rules depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the manifest")]
pub struct Model {
    pub width: u32,
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub vocab: u32,
    pub attention_q30: u32,
    pub norm_eps: u32,
    /// Whether elements i and i + d/2 of a head turn together, rather than 2i and 2i + 1.
    pub halves: bool,
}

/// The choices of an order's sampler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// 0 is greedy.
    pub inv_t_q16: u32,
    /// 0 keeps all.
    pub top_k: u32,
    /// 2^16 keeps all.
    pub top_p_q16: u32,
    /// 0 keeps all.
    pub min_p_q16: u32,
    /// What is taken from seen tokens.
    pub penalties: Penalties,
    /// Token id and bias, ascending.
    pub bias: Vec<(u32, i32)>,
}

/// Everything that determines a trace but the weights.
///
/// The model is one within the bounds that a registrar checks: heads of whole groups, shared out
/// evenly, a program that reads earlier steps only. Nothing is assumed of a trace.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// The model's sizes.
    pub model: Model,
    /// Its program.
    pub program: &'a [Step],
    /// The order's hash, from which states start.
    pub order: B256,
    /// Key of the order's random numbers.
    pub draw_key: B256,
    /// How tokens are chosen.
    pub choice: &'a Choice,
    /// Token ids of the prompt, at least one.
    pub prompt: &'a [u32],
    /// Token ids of the answer, at least one.
    pub output: &'a [u32],
}

impl Claim<'_> {
    /// Positions of the trace.
    pub fn positions(&self) -> u32 {
        (self.prompt.len() + self.output.len()).saturating_sub(1) as u32
    }

    /// Ops of a position: the program's steps and the chained state.
    pub fn ops(&self) -> u32 {
        self.program.len() as u32 + 1
    }

    /// Whether a position produces a token.
    pub fn answers(&self, position: u32) -> bool {
        position as usize + 1 >= self.prompt.len()
    }

    /// The token that goes in at a position.
    pub fn input(&self, position: u32) -> Option<u32> {
        self.prompt.iter().chain(self.output).nth(position as usize).copied()
    }

    /// The index in the output of the token that a position produces.
    pub fn index(&self, position: u32) -> Option<u32> {
        (position + 1).checked_sub(self.prompt.len() as u32)
    }

    /// Where a token occurs among the inputs up to a position.
    pub fn hits(&self, position: u32, token: u32) -> Hits {
        let inputs = self.prompt.iter().chain(self.output).take(position as usize + 1);
        let mut hits = Hits::default();
        for (at, _) in inputs.enumerate().filter(|(_, input)| **input == token) {
            if at < self.prompt.len() { hits.prompt += 1 } else { hits.output += 1 }
        }
        hits
    }

    /// Which parts of the sampler are in use.
    pub fn sampling(&self) -> Sampling {
        let Choice { inv_t_q16, top_k, top_p_q16, penalties, bias, .. } = self.choice;
        let neutral = Penalties { rep_q16: 1 << 16, freq_q16: 0, pres_q16: 0 };
        Sampling {
            adjusted: *penalties != neutral || !bias.is_empty(),
            greedy: *inv_t_q16 == 0,
            top_k: (1..self.model.vocab).contains(top_k),
            top_p: *top_p_q16 < 1 << 16,
        }
    }

    /// How the leaves of an op at a position lie.
    pub fn layout(&self, position: u32, op: u32) -> Layout {
        if position >= self.positions() || op >= self.ops() {
            return Layout::Nothing;
        }
        let Model { heads, kv_heads, head_dim, vocab, .. } = self.model;
        let extent = Extent {
            heads,
            kv_heads,
            head_dim,
            vocab,
            attended: position + 1,
            answers: self.answers(position),
            sampling: self.sampling(),
        };
        Layout::of(self.program.get(op as usize), &extent)
    }
}

/// A radix tree among the leaves of an op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The op's leaf at which the tree's first level begins.
    pub first: u64,
    /// Elements that the tree reduces.
    pub elements: u64,
    /// Words of each level, from the leaves' level to the top.
    pub levels: Vec<u64>,
}

impl Tree {
    /// The tree over so many elements that begins at leaf `first`.
    pub fn new(first: u64, elements: u64) -> Self {
        Self { first, elements, levels: tree_levels(elements) }
    }

    /// Leaf at which a level begins.
    pub fn level(&self, level: usize) -> u64 {
        self.first + self.levels[..level].iter().map(|words| words.div_ceil(32)).sum::<u64>()
    }

    /// The leaf that holds the top, and the first one after the tree.
    pub fn top(&self) -> u64 {
        self.level(self.levels.len() - 1)
    }

    /// The level of a leaf of the op and the first word that it holds, if it is in the tree.
    pub fn find(&self, leaf: u64) -> Option<(usize, u64)> {
        let level = (0..self.levels.len()).rev().find(|level| self.level(*level) <= leaf)?;
        let first = 32 * (leaf - self.level(level));
        (first < self.levels[level]).then_some((level, first))
    }

    /// How many elements, or words of the level below, a word joins.
    pub fn joined(&self, level: usize, word: u64) -> usize {
        let below = if level == 0 { self.elements } else { self.levels[level - 1] };
        below.saturating_sub(word.saturating_mul(32)).min(32) as usize
    }
}
