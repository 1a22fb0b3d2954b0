//! What a challenger knows of a trace that somebody else committed to.

use std::collections::HashMap;

use assay_protocol::{B256, Branch, root};

use super::path::{LEVELS, Way};

/// Nodes of a committed trace that are known to hang from its root.
#[derive(Clone, Debug)]
pub struct Known {
    nodes: HashMap<Way, B256>,
}

impl Known {
    /// Nothing but the root.
    pub fn new(root: B256) -> Self {
        Self { nodes: HashMap::from([(Way::ROOT, root)]) }
    }

    /// Takes a whole level of nodes below a known one, if they fold to it. At most the nodes of one
    /// reveal are taken at a time.
    pub fn add(&mut self, below: Way, nodes: &[B256]) -> bool {
        let levels = nodes.len().checked_ilog2().unwrap_or(u32::MAX);
        if levels > LEVELS || 1 << levels != nodes.len() || below.depth + levels > 127 {
            return false;
        }
        let mut found = Vec::new();
        let mut level = nodes.to_vec();
        for up in (0..=levels).rev() {
            found.extend((0..).zip(&level).map(|(index, node)| (below.down(up, index), *node)));
            if up > 0 {
                level = level.chunks(2).map(|pair| root([pair[0], pair[1]])).collect();
            }
        }
        if self.node(below) != Some(level[0]) {
            return false;
        }
        self.nodes.extend(found);
        true
    }

    /// Takes a chain's word for a node that is not known yet.
    pub(crate) fn hear(&mut self, way: Way, node: Option<B256>) {
        if let Some(node) = node {
            self.nodes.entry(way).or_insert(node);
        }
    }

    /// A node.
    pub fn node(&self, way: Way) -> Option<B256> {
        self.nodes.get(&way).copied()
    }

    /// The way down from one node to another below it; nothing if it is not, or if not all siblings
    /// are known.
    pub fn branch(&self, from: Way, to: Way) -> Option<Branch> {
        branch(from, to, |way| self.node(way))
    }
}

/// The way down from one node to another below it, through the nodes that `node` knows.
pub(crate) fn branch(from: Way, to: Way, node: impl Fn(Way) -> Option<B256>) -> Option<Branch> {
    let levels = to.depth.checked_sub(from.depth)?;
    if to.up(levels) != from {
        return None;
    }
    let proof = (0..levels).map(|up| node(to.up(up).beside())).collect::<Option<_>>()?;
    Some(Branch { turns: to.turns & ((1 << levels) - 1), node: node(to)?, proof })
}
