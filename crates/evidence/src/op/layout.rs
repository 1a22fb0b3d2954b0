//! Where the numbers of an op lie among its leaves.

use assay_protocol::LEAF_VALUES;

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

impl Layout {
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
