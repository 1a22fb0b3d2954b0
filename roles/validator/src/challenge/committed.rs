//! The trace that a provider committed to, as far as proving one of its numbers needs it.
//!
//! What a challenger names is the first number that differs from its own trace, so all that the number
//! follows from is in its own trace as well; only the siblings beside the way to the number are the
//! committed ones, and what hangs on disputed advice. Both were revealed on the way down, or are served by
//! the provider, and each is checked against the root. So whoever has them can have the number judged
//! without waiting for the provider.

use std::borrow::Cow;
use std::cell::RefCell;

use assay_evidence::dispute::{Depths, Known, NodeSource, Standing, Trace, Way};
use assay_evidence::op::{Claim, Kind, Nodes, Openings, Place, Source, Spine, leaves};
use assay_protocol::{B256, depth, leaf_hash};

/// A committed trace around one leaf. Where a node is not known it has that of its own trace, and a
/// contract refuses what is proved with it.
pub(crate) struct Committed<'a> {
    claim: &'a Claim<'a>,
    own: &'a dyn Trace,
    source: &'a dyn NodeSource,
    /// The leaf that is disputed.
    place: Place,
    spine: Spine,
    known: RefCell<Known>,
    /// Leaves that it showed on chain.
    shown: Vec<(Way, Vec<u8>)>,
}

impl<'a> Committed<'a> {
    /// The committed trace, of which everything that `place` follows from is in `own` but for advice.
    pub(crate) fn around(
        claim: &'a Claim<'a>,
        own: &'a dyn Trace,
        source: &'a dyn NodeSource,
        standing: &Standing,
        place: Place,
    ) -> Option<Self> {
        let mut known = Known::new(standing.trace);
        for fan in &standing.revealed {
            // One below a node that was reached by a jump is known once the jump is.
            let _ = known.add(fan.below, &fan.nodes);
        }
        let spine = own.spine();
        let mut committed = Self {
            claim,
            own,
            source,
            place,
            spine: spine.with(spine.positions().clone(), (place.position, own_ops(own, place)?)),
            known: RefCell::new(known),
            shown: standing.shown.clone(),
        };
        for op in committed.ops_of_advice() {
            committed.walk(Place { op, leaf: 0, ..place });
        }
        committed.walk(place);
        let (positions, ops) = (spine.positions().clone(), own_ops(own, place)?);
        let depths = Depths::of(claim);
        let above = Way::ROOT.down(depths.positions, place.position.into());
        let positions = committed.patched(positions, Way::ROOT);
        let ops = committed.patched(ops, above);
        committed.spine = spine.with(positions, (place.position, ops));
        Some(committed)
    }

    /// The root of the disputed position.
    pub(crate) fn here(&self) -> Option<B256> {
        let way = Way::ROOT.down(Depths::of(self.claim).positions, self.place.position.into());
        self.known.borrow().node(way)
    }

    /// Ops of the disputed position that may hang on advice.
    fn ops_of_advice(&self) -> std::ops::Range<u32> {
        let sample = self.claim.program.iter().position(|step| step.kind == Kind::Sample);
        let first = sample.map_or(self.claim.ops(), |op| op as u32);
        if self.place.op < first { 0..0 } else { first..self.claim.ops() }
    }

    /// Whether an op may have been committed to otherwise than its own trace has it.
    fn is_theirs(&self, position: u32, op: u32) -> bool {
        position == self.place.position
            && (op == self.place.op || self.ops_of_advice().contains(&op))
    }

    /// The way to a leaf; nothing where an op has none.
    fn way(&self, place: Place) -> Option<Way> {
        let leaves = leaves(&self.claim.layout(place.position, place.op));
        (place.leaf < leaves).then(|| Depths::of(self.claim).to_leaf(place, leaves))
    }

    /// Learns the nodes beside the way to a leaf, as far as they are to be had.
    fn walk(&self, place: Place) {
        let Some(to) = self.way(place) else { return };
        let (depths, known) = (Depths::of(self.claim), &mut *self.known.borrow_mut());
        let in_leaves = to.depth() - depths.to_ops();
        let mut way = Way::ROOT;
        while way.depth() < to.depth() {
            let levels = depths.levels_below(way, in_leaves);
            if known.node(way.down(levels, 0)).is_none() {
                let served = self.source.nodes(way, levels);
                if !served.is_some_and(|nodes| known.add(way, &nodes)) {
                    return;
                }
            }
            way = to.up(to.depth() - way.depth() - levels);
        }
    }

    /// A tree whose root is at `top`, with the nodes that are known of the committed one.
    fn patched(&self, mut tree: Nodes, top: Way) -> Nodes {
        let (known, levels) = (self.known.borrow(), tree.depth());
        for below in 0..=levels {
            for index in 0..1 << below {
                if let Some(node) = known.node(top.down(below, index)) {
                    tree.put(levels - below, index, node);
                }
            }
        }
        tree
    }

    /// A leaf of an op that may be theirs: its own, if that is what was committed to.
    fn theirs(&self, place: Place) -> Option<Vec<u8>> {
        self.walk(place);
        let own = self.own.open(Source::Trace(place)).map(Cow::into_owned);
        let way = self.way(place);
        if let Some((_, data)) = self.shown.iter().find(|(shown, _)| Some(*shown) == way) {
            return Some(data.clone());
        }
        let Some(node) = way.and_then(|way| self.known.borrow().node(way)) else { return own };
        if own.as_deref().is_some_and(|data| leaf_hash(data) == node) {
            return own;
        }
        self.source.leaf(place).filter(|data| leaf_hash(data) == node)
    }
}

impl Openings for Committed<'_> {
    fn open(&self, source: Source) -> Option<Cow<'_, [u8]>> {
        match source {
            Source::Trace(place) if self.is_theirs(place.position, place.op) => {
                self.theirs(place).map(Cow::Owned)
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
        let own = self.own.leaves(position, op);
        if !self.is_theirs(position, op) {
            return own;
        }
        let count = leaves(&self.claim.layout(position, op));
        let Some(way) = self.way(Place { position, op, leaf: 0 }) else { return own };
        self.patched(own, way.up(depth(count)))
    }
}

/// Its own tree over the ops of the disputed position.
fn own_ops(own: &dyn Trace, place: Place) -> Option<Nodes> {
    own.spine().ops(place.position).cloned()
}
