//! The trace that a provider committed to, as far as proving one of its numbers needs it.
//!
//! What a challenger names is the first number that differs from its own trace, so all that the number
//! follows from is in its own trace as well; only the siblings on the way to the committed root, and
//! what hangs on disputed advice, have to come from the provider's server. Each node is checked against
//! the root before it is believed. So whoever has these openings can have the number judged without
//! waiting for the provider.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use assay_evidence::dispute::{Depths, Known, NodeSource, Trace, Way};
use assay_evidence::op::{Claim, Nodes, Openings, Place, Source, Spine, leaves};
use assay_protocol::{B256, leaf_hash};

/// A committed trace around one position.
pub(crate) struct Committed<'a> {
    claim: &'a Claim<'a>,
    own: &'a dyn Trace,
    source: &'a dyn NodeSource,
    /// The position that a number is disputed of.
    position: u32,
    spine: Spine,
    known: RefCell<Known>,
    /// Trees over the leaves of ops of that position that are not its own.
    trees: RefCell<HashMap<u32, Nodes>>,
    /// Something that was asked for was not to be had.
    lacks: Cell<bool>,
}

impl<'a> Committed<'a> {
    /// The committed trace with this root, of which every position before `position` is that of `own`;
    /// nothing if its nodes are not to be had.
    pub(crate) fn around(
        claim: &'a Claim<'a>,
        own: &'a dyn Trace,
        source: &'a dyn NodeSource,
        root: B256,
        position: u32,
    ) -> Option<Self> {
        let (depths, mut known) = (Depths::of(claim), Known::new(root));
        let positions = level(claim, &mut known, source, (Way::ROOT, depths.positions), 0)?;
        let way = Way::ROOT.down(depths.positions, position.into());
        let ops = level(claim, &mut known, source, (way, depths.ops), 0)?;
        let own_roots = |position| {
            let ops = own.spine().ops(position)?;
            Some((0..claim.ops()).map(|op| ops.node(0, op.into())).collect())
        };
        let roots = (0..claim.positions()).map(|each| match each.cmp(&position) {
            std::cmp::Ordering::Less => own_roots(each),
            std::cmp::Ordering::Equal => Some(ops.get(..claim.ops() as usize)?.to_vec()),
            // Its root is all that is needed of it, and a tree of one leaf is that leaf.
            std::cmp::Ordering::Greater => Some(vec![*positions.get(each as usize)?]),
        });
        let spine = Spine::new(roots.collect::<Option<Vec<_>>>()?);
        (spine.root() == root).then(|| Self {
            claim,
            own,
            source,
            position,
            spine,
            known: RefCell::new(known),
            trees: RefCell::default(),
            lacks: Cell::new(false),
        })
    }

    /// Whether everything that was asked for was there.
    pub(crate) fn sufficed(&self) -> bool {
        !self.lacks.get()
    }

    /// Whether an op was committed to as its own trace has it.
    fn is_own(&self, position: u32, op: u32) -> bool {
        let root = |spine: &Spine| Some(spine.ops(position)?.node(0, op.into()));
        position != self.position || root(&self.spine) == root(self.own.spine())
    }

    /// The tree over the leaves of an op of the disputed position.
    fn tree(&self, op: u32) -> Option<Nodes> {
        if let Some(tree) = self.trees.borrow().get(&op) {
            return Some(tree.clone());
        }
        let (claim, depths) = (self.claim, Depths::of(self.claim));
        let count = leaves(&claim.layout(self.position, op));
        let place = Place { position: self.position, op, leaf: 0 };
        let levels = assay_protocol::depth(count);
        let way = depths.to_leaf(place, count).up(levels);
        let hashes =
            level(claim, &mut self.known.borrow_mut(), self.source, (way, levels), levels)?;
        let tree = Nodes::new(hashes.get(..usize::try_from(count).ok()?)?.to_vec());
        self.trees.borrow_mut().insert(op, tree.clone());
        Some(tree)
    }

    fn served(&self, place: Place) -> Option<Vec<u8>> {
        let expected = self.tree(place.op)?.node(0, place.leaf);
        self.source.leaf(place).filter(|data| leaf_hash(data) == expected)
    }

    fn noted<T>(&self, found: Option<T>) -> Option<T> {
        self.lacks.set(self.lacks.get() || found.is_none());
        found
    }
}

impl Openings for Committed<'_> {
    fn open(&self, source: Source) -> Option<Cow<'_, [u8]>> {
        match source {
            Source::Trace(place) if !self.is_own(place.position, place.op) => {
                self.noted(self.served(place)).map(Cow::Owned)
            }
            _ => self.own.open(source),
        }
    }
}

impl Trace for Committed<'_> {
    fn spine(&self) -> &Spine {
        &self.spine
    }

    fn leaves(&self, position: u32, op: u32) -> Nodes {
        if self.is_own(position, op) {
            return self.own.leaves(position, op);
        }
        self.noted(self.tree(op)).unwrap_or_else(|| Nodes::new(Vec::new()))
    }
}

/// All nodes so many levels below a known one, as many levels at a time as a reveal shows.
fn level(
    claim: &Claim<'_>,
    known: &mut Known,
    source: &dyn NodeSource,
    (top, levels): (Way, u32),
    leaf_depth: u32,
) -> Option<Vec<B256>> {
    let (depths, end) = (Depths::of(claim), top.depth() + levels);
    let mut ways = vec![top];
    while let Some(way) = ways.first().filter(|way| way.depth() < end) {
        let step = depths.levels_below(*way, leaf_depth).min(end - way.depth());
        let mut below = Vec::with_capacity(ways.len() << step);
        for way in ways {
            if known.node(way.down(step, 0)).is_none() {
                let nodes = source.nodes(way, step).filter(|nodes| nodes.len() == 1 << step)?;
                if !known.add(way, &nodes) {
                    return None;
                }
            }
            below.extend((0..1 << step).map(|index| way.down(step, index)));
        }
        ways = below;
    }
    ways.into_iter().map(|way| known.node(way)).collect()
}
