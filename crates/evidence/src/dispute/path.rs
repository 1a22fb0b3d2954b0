//! Ways down a trace: three trees that hang in one another, walked as one.
//!
//! Over positions, over the ops of a position, over the leaves of an op. A node is named by how
//! deep it lies and by the turns that lead to it, so a way reads `(position ‖ op ‖ leaf)`.

use std::borrow::Cow;
use std::cmp::Ordering;

use assay_protocol::{B256, depth, root};

use super::error::NoAnswer;
use super::trace::Trace;
use crate::op::{Claim, Nodes, Place, leaves};

/// Levels that one reveal shows at most.
pub const LEVELS: u32 = 4;
/// The longest way, in levels; the contracts take none that is longer.
const LONGEST: u32 = 127;

/// A node of a trace: how deep it lies, and all turns from the root to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Way {
    pub(crate) depth: u32,
    pub(crate) turns: u128,
}

impl Way {
    /// The trace's root.
    pub const ROOT: Self = Self { depth: 0, turns: 0 };

    /// Levels below the trace's root, at most 127.
    pub fn depth(self) -> u32 {
        self.depth
    }

    /// The turns, the lowest bit the last one; 1 is right. Below `2^depth`.
    pub fn turns(self) -> u128 {
        self.turns
    }

    /// A way of a stranger's, if it is one.
    pub fn new(depth: u32, turns: u128) -> Option<Self> {
        (depth <= LONGEST && turns >> depth == 0).then_some(Self { depth, turns })
    }

    /// The node number `index` of those so many levels below this one.
    ///
    /// # Panics
    /// If that is deeper than any trace.
    #[must_use]
    pub fn down(self, levels: u32, index: u64) -> Self {
        assert!(self.depth + levels <= LONGEST, "{levels} levels below {}", self.depth);
        Self { depth: self.depth + levels, turns: self.turns << levels | u128::from(index) }
    }

    /// The node so many levels above, or the root.
    #[must_use]
    pub fn up(self, levels: u32) -> Self {
        let levels = levels.min(self.depth);
        Self { depth: self.depth - levels, turns: self.turns >> levels }
    }

    /// The node beside this one, below the same one.
    #[must_use]
    pub fn beside(self) -> Self {
        Self { turns: self.turns ^ 1, ..self }
    }

    /// The last `levels` turns.
    pub fn last(self, levels: u32) -> u64 {
        (self.turns & ((1 << levels.min(LONGEST)) - 1)) as u64
    }
}

/// How deep the upper two trees of a trace are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depths {
    /// Of the tree over positions.
    pub positions: u32,
    /// Of the tree over the ops of a position.
    pub ops: u32,
}

impl Depths {
    /// Those of the trace of a claim.
    pub fn of(claim: &Claim<'_>) -> Self {
        Self { positions: depth(claim.positions().into()), ops: depth(claim.ops().into()) }
    }

    /// How deep the roots of ops lie.
    pub fn to_ops(self) -> u32 {
        self.positions + self.ops
    }

    /// The way to a leaf of an op that has so many.
    pub fn to_leaf(self, place: Place, leaves: u64) -> Way {
        let position = Way::ROOT.down(self.positions, place.position.into());
        position.down(self.ops, place.op.into()).down(depth(leaves), place.leaf)
    }

    /// Position, op and leaf, or what is above leaves, that a way leads to. None of them need
    /// exist.
    fn place(self, way: Way) -> Place {
        let below_position = way.depth.saturating_sub(self.positions);
        let below_op = way.depth.saturating_sub(self.to_ops());
        let op = way.up(below_op).last(below_position - below_op);
        Place {
            position: (way.turns >> below_position) as u32,
            op: op as u32,
            leaf: way.last(below_op),
        }
    }

    /// The place that a way leads to within an op, at its root or below.
    pub(crate) fn within_op(self, way: Way) -> Option<Place> {
        (way.depth >= self.to_ops()).then(|| self.place(way))
    }

    /// How many levels the next reveal below a node shows; none below a leaf. `leaf_depth` is that
    /// of the tree of leaves that the node lies in.
    pub fn levels_below(self, way: Way, leaf_depth: u32) -> u32 {
        let end = match way.depth {
            above if above < self.positions => self.positions,
            above if above < self.to_ops() => self.to_ops(),
            _ => self.to_ops() + leaf_depth,
        };
        end.saturating_sub(way.depth).min(LEVELS)
    }
}

/// What a way leads to in the trace of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A node that has others below it.
    Above,
    /// A leaf.
    Leaf(Place),
    /// Where a trace of this claim has nothing.
    Nothing(Place),
}

/// What a way leads to that begins at the root and stops at every place where nothing is below.
pub(crate) fn end_of(claim: &Claim<'_>, way: Way) -> End {
    let depths = Depths::of(claim);
    let place = depths.place(way);
    if way.depth < depths.positions {
        return End::Above;
    }
    if place.position >= claim.positions() {
        return End::Nothing(place);
    }
    if way.depth < depths.to_ops() {
        return End::Above;
    }
    let leaves = leaves(&claim.layout(place.position, place.op));
    if place.op >= claim.ops() || leaves == 0 {
        return End::Nothing(place);
    }
    match way.depth.cmp(&(depths.to_ops() + depth(leaves))) {
        Ordering::Less => End::Above,
        Ordering::Equal if place.leaf < leaves => End::Leaf(place),
        _ => End::Nothing(place),
    }
}

/// Depth of the tree of leaves that a way enters; 0 above it.
pub(crate) fn leaf_depth(claim: &Claim<'_>, way: Way) -> u32 {
    let depths = Depths::of(claim);
    if way.depth < depths.to_ops() {
        return 0;
    }
    let place = depths.place(way);
    depth(leaves(&claim.layout(place.position, place.op)))
}

/// The nodes that a reveal below `way` shows, from a trace of the claim.
///
/// # Errors
/// If the trace has nothing there, or no levels below it.
pub fn fan(claim: &Claim<'_>, trace: &dyn Trace, way: Way) -> Result<Vec<B256>, NoAnswer> {
    let nowhere = NoAnswer::Nowhere(way);
    if end_of(claim, way) != End::Above {
        return Err(nowhere);
    }
    let levels = Depths::of(claim).levels_below(way, leaf_depth(claim, way));
    let Found { tree, height, index } = below(claim, trace, way).ok_or(nowhere.clone())?;
    let height = height.checked_sub(levels).ok_or(nowhere)?;
    Ok((0..1 << levels).map(|child| tree.node(height, (index << levels) + child)).collect())
}

/// The node at `way` in a trace of the claim; nothing where no node can be.
pub fn node(claim: &Claim<'_>, trace: &dyn Trace, way: Way) -> Option<B256> {
    let Found { tree, height, index } = match way.depth {
        0 => return Some(trace.spine().root()),
        _ => below(claim, trace, way.up(1))?.down(way),
    }?;
    Some(tree.node(height, index))
}

/// A node of one of the trees.
struct Found<'a> {
    tree: Cow<'a, Nodes>,
    /// Above the tree's leaves.
    height: u32,
    index: u64,
}

impl Found<'_> {
    /// The child that a way ends at.
    fn down(self, way: Way) -> Option<Self> {
        let height = self.height.checked_sub(1)?;
        Some(Self { height, index: self.index << 1 | way.last(1), ..self })
    }
}

/// A node as part of the tree that goes on below it.
fn below<'a>(claim: &Claim<'_>, trace: &'a dyn Trace, way: Way) -> Option<Found<'a>> {
    let depths = Depths::of(claim);
    let place = depths.place(way);
    if way.depth < depths.positions {
        let tree = Cow::Borrowed(trace.spine().positions());
        return Some(Found { tree, height: depths.positions - way.depth, index: way.turns as u64 });
    }
    let ops = trace.spine().ops(place.position)?;
    if way.depth < depths.to_ops() {
        let levels = way.depth - depths.positions;
        let (height, index) = (depths.ops - levels, way.last(levels));
        return Some(Found { tree: Cow::Borrowed(ops), height, index });
    }
    if place.position >= claim.positions() || place.op >= claim.ops() {
        return None;
    }
    let tree = trace.leaves(place.position, place.op);
    let levels = way.depth - depths.to_ops();
    let height = tree.depth().checked_sub(levels)?;
    Some(Found { tree: Cow::Owned(tree), height, index: way.last(levels) })
}

/// The node that all nodes of a level fold to, if there are as many as a level has.
pub fn fold(nodes: &[B256]) -> Option<B256> {
    nodes.len().is_power_of_two().then(|| root(nodes.iter().copied()))
}
