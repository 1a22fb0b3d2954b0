//! A whole trace, written leaf by leaf from the rules.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use assay_evidence::op::{
    FixedLeaf, Kind, Nodes, Openings, Place, Source, Spine, WideLeaf, advice, leaves, recompute,
};

use crate::world::World;

/// The leaves of a trace, and of the model that it is of.
#[derive(Clone)]
pub(crate) struct Trace {
    leaves: HashMap<Place, Vec<u8>>,
    model: Arc<HashMap<Source, Vec<u8>>>,
}

impl Openings for Trace {
    fn open(&self, source: Source) -> Option<Cow<'_, [u8]>> {
        let data = match source {
            Source::Trace(place) => self.leaves.get(&place),
            other => self.model.get(&other),
        };
        data.map(Cow::from)
    }
}

impl Trace {
    pub(crate) fn write(world: &World) -> Trace {
        let claim = world.claim();
        let mut trace = Trace { leaves: HashMap::new(), model: world.leaves() };
        for position in 0..claim.positions() {
            for op in 0..claim.ops() {
                let mut advised = Vec::new().into_iter();
                if claim.program.get(op as usize).is_some_and(|step| step.kind == Kind::Sample)
                    && claim.answers(position)
                {
                    advised = advice(claim.choice, &trace.logits(world, position)).into_iter();
                }
                for leaf in 0..leaves(&claim.layout(position, op)) {
                    let place = Place { position, op, leaf };
                    let data = recompute(&claim, &trace, place).unwrap();
                    let data = data
                        .unwrap_or_else(|| WideLeaf::write(&[advised.next().unwrap()]).to_vec());
                    trace.leaves.insert(place, data);
                }
                assert_eq!(advised.next(), None, "every advice has its leaf");
            }
        }
        trace
    }

    /// The adjusted logits, as the model's own sampler leaves them.
    fn logits(&self, world: &World, position: u32) -> Vec<i32> {
        let claim = world.claim();
        let op = claim.program.iter().position(|step| step.kind == Kind::Logits).unwrap() as u32;
        let values = self.leaves(world, position, op);
        let logits: Vec<i32> = values.flat_map(|leaf| FixedLeaf::read(leaf).unwrap().0).collect();
        let index = claim.index(position).unwrap() as usize;
        world.adjusted(&logits[..claim.model.vocab as usize], index)
    }

    pub(crate) fn leaf(&self, place: Place) -> &[u8] {
        &self.leaves[&place]
    }

    pub(crate) fn replace(&mut self, place: Place, data: Vec<u8>) {
        self.leaves.insert(place, data);
    }

    pub(crate) fn remove(&mut self, place: Place) {
        self.leaves.remove(&place);
    }

    /// The tree over an op's leaves.
    pub(crate) fn nodes(&self, world: &World, position: u32, op: u32) -> Nodes {
        Nodes::of_leaves(self.leaves(world, position, op))
    }

    /// The tree above the ops.
    pub(crate) fn spine(&self, world: &World) -> Spine {
        let claim = world.claim();
        let roots =
            |position| (0..claim.ops()).map(|op| self.nodes(world, position, op).root()).collect();
        Spine::new((0..claim.positions()).map(roots))
    }

    /// The leaves of an op, in order.
    pub(crate) fn leaves(
        &self,
        world: &World,
        position: u32,
        op: u32,
    ) -> impl Iterator<Item = &[u8]> {
        let count = leaves(&world.claim().layout(position, op));
        (0..count).map(move |leaf| self.leaf(Place { position, op, leaf }))
    }
}
