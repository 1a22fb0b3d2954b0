//! The trace as it follows from advice that another one committed to.
//!
//! Two numbers of the sampler, the thresholds of top-k and top-p, have no rule of their own: one
//! check each determines them. If one was committed that is not the honest one, then what follows
//! from it is wrong somewhere, or its check fails. So whoever meets such a number computes what
//! follows from it, up to the check, and goes on comparing.

use std::borrow::Cow;
use std::collections::HashMap;

use assay_protocol::{B256, Doubt, leaf_hash};

use super::error::NoAnswer;
use super::trace::Trace;
use crate::op::{
    self, Claim, Kind, Nodes, Openings, Parts, Place, RecomputeError, Source, Spine, recompute,
};

/// No hash of any leaf: stands where a difference is wanted.
const NO_LEAF: B256 = B256::repeat_byte(0xff);

/// Another trace's advice in the place of one's own, and what follows from it up to its check.
///
/// The leaf that the check stands at never agrees, so that whoever looks for the first difference
/// finds one there at the latest.
pub(crate) struct Advised<'a> {
    base: &'a dyn Trace,
    /// The leaf of advice.
    advice: Place,
    /// It, and what follows.
    leaves: HashMap<u64, Vec<u8>>,
    tree: Nodes,
    /// Where the check stands, or the first leaf that a rule refuses.
    end: u64,
    refuses: bool,
    doubt: Doubt,
}

impl<'a> Advised<'a> {
    /// With the committed data of a leaf of advice.
    ///
    /// # Errors
    /// If the leaf is no advice, or the trace is incomplete.
    pub(crate) fn new(
        claim: &Claim<'_>,
        base: &'a dyn Trace,
        advice: Place,
        data: Vec<u8>,
    ) -> Result<Self, NoAnswer> {
        let nothing = NoAnswer::NoElement { place: advice, element: 0 };
        let (end, doubt) = check_of(claim, advice).ok_or(nothing)?;
        let tree = base.leaves(advice.position, advice.op);
        let leaves = HashMap::from([(advice.leaf, data)]);
        let mut advised = Self { base, advice, leaves, tree, end, refuses: false, doubt };
        for leaf in advice.leaf + 1..=end {
            match recompute(claim, &advised, Place { leaf, ..advice }) {
                Ok(Some(data)) => drop(advised.leaves.insert(leaf, data)),
                Ok(None) => {}
                Err(RecomputeError::Refused(_)) => {
                    (advised.end, advised.refuses) = (leaf, true);
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        let count = op::leaves(&claim.layout(advice.position, advice.op));
        let hash = |leaf| match advised.leaves.get(&leaf) {
            _ if leaf == advised.end => NO_LEAF,
            Some(data) => leaf_hash(data),
            None => advised.tree.node(0, leaf),
        };
        advised.tree = Nodes::new((0..count).map(hash).collect());
        Ok(advised)
    }

    /// Whether a leaf is advice.
    pub(crate) fn is_advice(claim: &Claim<'_>, place: Place) -> bool {
        check_of(claim, place).is_some()
    }

    /// The leaves of advice of the op at a place, in order.
    pub(crate) fn places(claim: &Claim<'_>, place: Place) -> impl Iterator<Item = Place> {
        let parts = Parts::of(claim);
        let leaves = [parts.ranks.map(|(leaf, _)| leaf), parts.masses.map(|(leaf, _)| leaf)];
        let places = leaves.into_iter().flatten().map(move |leaf| Place { leaf, ..place });
        places.filter(|place| Self::is_advice(claim, *place))
    }

    /// Where the difference is at the latest.
    pub(crate) fn end(&self) -> Place {
        Place { leaf: self.end, ..self.advice }
    }

    /// Whether a rule refuses what it reads there, so that nobody can prove what stands there.
    pub(crate) fn refuses(&self) -> bool {
        self.refuses
    }

    /// What the leaf there hashes to, as it follows from the advice.
    pub(crate) fn end_hash(&self) -> B256 {
        self.leaves.get(&self.end).map_or(NO_LEAF, |data| leaf_hash(data))
    }

    /// The check that fails if that leaf agrees.
    pub(crate) fn doubt(&self) -> Doubt {
        self.doubt
    }

    /// The data of a leaf.
    ///
    /// # Errors
    /// If it is not at hand.
    pub(crate) fn data(&self, place: Place) -> Result<Vec<u8>, NoAnswer> {
        let source = Source::Trace(place);
        self.open(source).map(Cow::into_owned).ok_or(NoAnswer::Missing(source))
    }
}

impl Openings for Advised<'_> {
    fn open(&self, source: Source) -> Option<Cow<'_, [u8]>> {
        if let Source::Trace(place) = source
            && (place.position, place.op) == (self.advice.position, self.advice.op)
            && let Some(data) = self.leaves.get(&place.leaf)
        {
            return Some(Cow::Borrowed(data));
        }
        self.base.open(source)
    }
}

impl Trace for Advised<'_> {
    fn spine(&self) -> &Spine {
        self.base.spine()
    }

    fn leaves(&self, position: u32, op: u32) -> Nodes {
        if (position, op) == (self.advice.position, self.advice.op) {
            return self.tree.clone();
        }
        self.base.leaves(position, op)
    }
}

/// Where the check of a leaf of advice stands, and its name; nothing for other leaves.
fn check_of(claim: &Claim<'_>, place: Place) -> Option<(u64, Doubt)> {
    let step = claim.program.get(place.op as usize)?;
    if step.kind != Kind::Sample || !claim.answers(place.position) {
        return None;
    }
    let parts = Parts::of(claim);
    match (&parts.ranks, &parts.masses) {
        (Some((advice, ranks)), _) if *advice == place.leaf => Some((ranks.top(), Doubt::Kth)),
        (_, Some((advice, [_, _, all]))) if *advice == place.leaf => {
            Some((all.top(), Doubt::Nucleus))
        }
        _ => None,
    }
}
