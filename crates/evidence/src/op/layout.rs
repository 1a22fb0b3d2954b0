//! Where the numbers of an op lie among its leaves.

use assay_protocol::LEAF_VALUES;

use super::program::{Kind, Step};

/// What the leaves of a section hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafKind {
    /// Quantised numbers, 128 a leaf.
    Quantised,
    /// Fixed-point numbers, 32 a leaf.
    Fixed,
    /// Words of 64 bits, 32 a leaf.
    Wide,
    /// One hash.
    State,
}

/// A run of leaves of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// What they hold.
    pub kind: LeafKind,
    /// How many numbers there are, those that fill up the last leaf excluded.
    pub elements: u64,
}

impl Section {
    /// Leaves of the section.
    pub fn leaves(&self) -> u64 {
        self.elements.div_ceil(match self.kind {
            LeafKind::Quantised => 128,
            LeafKind::Fixed | LeafKind::Wide => LEAF_VALUES as u64,
            LeafKind::State => 1,
        })
    }
}

/// Words in each level of a radix tree over `elements` numbers, from the leaves' level to the top.
pub fn tree_levels(elements: u64) -> Vec<u64> {
    let radix = LEAF_VALUES as u64;
    let mut levels = vec![elements.div_ceil(radix)];
    while let Some(&words) = levels.last().filter(|words| **words > 1) {
        levels.push(words.div_ceil(radix));
    }
    levels
}

/// How the leaves of an op lie, with the sizes that decide it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of docs/protocol/trace.md")]
pub enum Layout {
    /// Fixed-point numbers.
    Vector { elements: u64 },
    /// Statistics of a norm over a row.
    Statistics { width: u64 },
    /// A quantised vector.
    Quantised { elements: u64 },
    /// Quantised heads, each padded for itself.
    Heads { heads: u64, head_dim: u64 },
    /// Scores of every head.
    Scores { heads: u64, attended: u64 },
    /// Largest score and sum of weights of every head.
    Softmax { heads: u64, attended: u64 },
    /// Shifts of every head, group of dimensions, and block.
    Shifts { heads: u64, head_dim: u64, attended: u64 },
    /// What the sampler derives from the logits.
    Sampling { vocab: u64, sampling: Sampling },
    /// The draw.
    Token { vocab: u64, greedy: bool },
    /// The chained state.
    State,
    /// Nothing, at a position that does not answer.
    Nothing,
}

/// Which parts of the sampler an order uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sampling {
    /// Penalties or biases change the logits.
    pub adjusted: bool,
    /// The likeliest token is taken.
    pub greedy: bool,
    /// Only so many tokens are kept.
    pub top_k: bool,
    /// Only so much mass is kept.
    pub top_p: bool,
}

/// The sizes, of model, order and position, that decide how leaves lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the manifest")]
pub struct Extent {
    pub heads: u32,
    pub kv_heads: u32,
    pub head_dim: u32,
    pub vocab: u32,
    /// Positions up to and with this one.
    pub attended: u32,
    /// Whether the position produces a token.
    pub answers: bool,
    pub sampling: Sampling,
}

impl Layout {
    /// How the leaves of a step lie; of the chained state, where there is no step.
    pub fn of(step: Option<&Step>, extent: &Extent) -> Self {
        let Extent { heads, kv_heads, head_dim, vocab, attended, answers, sampling } = *extent;
        let [heads, kv_heads, head_dim] = [heads, kv_heads, head_dim].map(u64::from);
        let [vocab, attended] = [vocab, attended].map(u64::from);
        if step.is_none_or(|step| step.kind.answers()) && !answers {
            return Self::Nothing;
        }
        let Some(step) = step else { return Self::State };
        let elements = u64::from(step.outputs);
        match step.kind {
            Kind::NormStat1 | Kind::NormStat2 | Kind::NormStatFinal => {
                Self::Statistics { width: u64::from(step.terms) }
            }
            Kind::Quantise1 | Kind::Quantise2 | Kind::QuantiseFinal => Self::Quantised { elements },
            Kind::QuantiseAttention | Kind::QuantiseHidden => Self::Quantised { elements },
            Kind::QuantiseQuery => Self::Heads { heads, head_dim },
            Kind::QuantiseKey | Kind::QuantiseValue => Self::Heads { heads: kv_heads, head_dim },
            Kind::Score => Self::Scores { heads, attended },
            Kind::ScoreMax => Self::Softmax { heads, attended },
            Kind::BlockShift => Self::Shifts { heads, head_dim, attended },
            Kind::Sample => Self::Sampling { vocab, sampling },
            Kind::Token => Self::Token { vocab, greedy: sampling.greedy },
            _ => Self::Vector { elements },
        }
    }

    /// The op's sections, in order.
    pub fn sections(&self) -> Vec<Section> {
        let fixed = |elements| Section { kind: LeafKind::Fixed, elements };
        let quantised = |elements| Section { kind: LeafKind::Quantised, elements };
        match *self {
            Self::Vector { elements } => vec![fixed(elements)],
            Self::Statistics { width } => [tree(width), tree(width), vec![wide(3)]].concat(),
            Self::Quantised { elements } => vec![quantised(elements)],
            Self::Heads { heads, head_dim } => vec![quantised(head_dim); heads as usize],
            Self::Scores { heads, attended } => vec![fixed(attended); heads as usize],
            Self::Softmax { heads, attended } => {
                [tree(attended), tree(attended)].concat().repeat(heads as usize)
            }
            Self::Shifts { heads, head_dim, attended } => {
                vec![fixed(attended.div_ceil(64)); (heads * (head_dim / 32)) as usize]
            }
            Self::Sampling { vocab, sampling } => sampling.sections(vocab),
            Self::Token { greedy: true, .. } => vec![wide(1)],
            Self::Token { vocab, .. } => vec![wide(2 * tree_levels(vocab).len() as u64)],
            Self::State => vec![Section { kind: LeafKind::State, elements: 1 }],
            Self::Nothing => Vec::new(),
        }
    }
}

impl Sampling {
    fn sections(self, vocab: u64) -> Vec<Section> {
        let mut sections = Vec::new();
        if self.adjusted {
            sections.push(Section { kind: LeafKind::Fixed, elements: vocab });
        }
        sections.extend(tree(vocab));
        if self.greedy {
            return sections;
        }
        if self.top_k {
            sections.push(wide(1));
            sections.extend(tree(vocab));
        }
        if self.top_p {
            sections.push(wide(1));
            sections.extend(tree(vocab).repeat(3));
        }
        sections.extend(tree(vocab));
        sections
    }
}

/// Leaves of an op: what its depth follows from.
pub fn leaves(layout: &Layout) -> u64 {
    layout.sections().iter().map(Section::leaves).sum()
}

/// Leaves of a radix tree over so many elements; the last one holds its top.
pub fn tree_leaves(elements: u64) -> u64 {
    tree(elements).iter().map(Section::leaves).sum()
}

/// What a word of a radix tree joins: its level, the leaf that it reads (on level 0 of the section
/// that is reduced, above it of the tree), and how many elements of that leaf. A word that only
/// fills up its leaf joins none.
pub fn tree_word(elements: u64, leaf: u64, word: u64) -> Option<(u8, u64, u8)> {
    let levels = tree_levels(elements);
    let (mut start, mut before, mut below) = (0, 0, elements);
    for (level, words) in (0..).zip(levels) {
        let leaves = words.div_ceil(32);
        if leaf < start + leaves {
            let word = 32 * (leaf - start) + word;
            let joined = below.saturating_sub(32 * word).min(32) as u8;
            return Some((level, before + word, joined));
        }
        before = start;
        start += leaves;
        below = words;
    }
    None
}

fn wide(elements: u64) -> Section {
    Section { kind: LeafKind::Wide, elements }
}

fn tree(elements: u64) -> Vec<Section> {
    tree_levels(elements).into_iter().map(wide).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_ends_in_one_word() {
        for (elements, levels) in [
            (1, vec![1]),
            (32, vec![1]),
            (33, vec![2, 1]),
            (1024, vec![32, 1]),
            (1025, vec![33, 2, 1]),
            (151_936, vec![4748, 149, 5, 1]),
        ] {
            assert_eq!(tree_levels(elements), levels, "{elements}");
        }
    }

    #[test]
    fn leaves_are_those_of_the_sections() {
        for (layout, expected) in [
            (Layout::Vector { elements: 33 }, 2),
            (Layout::Statistics { width: 896 }, 2 * 2 + 1),
            (Layout::Quantised { elements: 129 }, 2),
            (Layout::Heads { heads: 4, head_dim: 32 }, 4),
            (Layout::Heads { heads: 2, head_dim: 256 }, 4),
            (Layout::Scores { heads: 2, attended: 33 }, 4),
            (Layout::Softmax { heads: 2, attended: 33 }, 8),
            (Layout::Shifts { heads: 2, head_dim: 64, attended: 65 }, 4),
            (Layout::Token { vocab: 1024, greedy: false }, 1),
            (Layout::State, 1),
            (Layout::Nothing, 0),
        ] {
            assert_eq!(leaves(&layout), expected, "{layout:?}");
        }
    }

    #[test]
    fn a_sampler_adds_what_it_uses() {
        let of = |sampling| leaves(&Layout::Sampling { vocab: 1024, sampling });
        let greedy = Sampling { greedy: true, ..Sampling::default() };
        assert_eq!(of(greedy), 2);
        assert_eq!(of(Sampling { adjusted: true, ..greedy }), 32 + 2);
        let all = Sampling { adjusted: true, greedy: false, top_k: true, top_p: true };
        assert_eq!(of(all), 32 + 2 + (1 + 2) + (1 + 6) + 2);
    }
}
