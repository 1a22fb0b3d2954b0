//! Challengers that are wrong: each believes that one number of a true trace is another.

use std::time::Duration;

use assay_chain::{Filing, Move as Call};
use assay_court::{Docket, Model, NodeServer, Record, Retraced, Tracer, facts, on_chain};
use assay_engine::TraceError;
use assay_evidence::dispute::{Depths, Next, NoSource, NodeSource, Trace, node};
use assay_evidence::op::{Claim, Nodes, Openings, Place, Source, Spine, leaves};
use assay_protocol::{Answer, B256, Branch, Doubt, Phase, leaf_hash};

use crate::world::{CHAIN, TRACER, World};

/// A number that a challenger is wrong about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mistake {
    pub(crate) place: Place,
    pub(crate) element: usize,
}

/// The first leaf of an op of some kind, at one of the positions that answer.
pub(crate) fn place_of(answer: &Answer, kind: &str, turn: u32) -> Place {
    let trace = TRACER.trace(answer).unwrap();
    let claim = trace.claim();
    let ops: Vec<u32> = (0..claim.program.len() as u32)
        .filter(|op| format!("{:?}", claim.program[*op as usize].kind) == kind)
        .collect();
    let op = match ops.len() {
        0 => claim.program.len() as u32,
        several => ops[turn as usize % several],
    };
    let first = claim.prompt.len() as u32 - 1;
    let position = first + turn % (claim.positions() - first);
    Place { position, op, leaf: 0 }
}

/// Computes a true trace, and then one with a mistake.
struct Mistaken(Option<Mistake>);

impl Tracer for Mistaken {
    fn trace(&self, answer: &Answer) -> Result<Box<dyn Retraced>, TraceError> {
        let honest = TRACER.trace(answer)?;
        Ok(match self.0 {
            Some(mistake) => Box::new(Altered::new(honest, mistake)),
            None => honest,
        })
    }

    fn model(&self) -> Result<Model, TraceError> {
        TRACER.model()
    }

    fn weights(&self) -> B256 {
        TRACER.weights()
    }
}

/// A trace in which one leaf is another.
struct Altered {
    honest: Box<dyn Retraced>,
    place: Place,
    data: Vec<u8>,
    spine: Spine,
}

impl Altered {
    fn new(honest: Box<dyn Retraced>, Mistake { place, element }: Mistake) -> Self {
        let mut data = honest.open(Source::Trace(place)).unwrap().to_vec();
        let at = match data.len() {
            // A quantised leaf begins with its scales; change a number.
            136 => 8 + 32 * element,
            128 => 4 * element + 3,
            256 => 8 * element + 7,
            _ => 0,
        };
        data[at] ^= 1;
        let (positions, ops) = (honest.claim().positions(), honest.claim().ops());
        let leaves = altered(&*honest, place, &data);
        let roots = (0..positions).map(|position| {
            let own = honest.spine().ops(position).unwrap();
            (0..ops)
                .map(|op| match (position, op) == (place.position, place.op) {
                    true => leaves.root(),
                    false => own.node(0, op.into()),
                })
                .collect()
        });
        let spine = Spine::new(roots.collect::<Vec<Vec<B256>>>());
        Self { honest, place, data, spine }
    }
}

/// The leaves of an op with one of them changed.
fn altered(honest: &dyn Retraced, place: Place, data: &[u8]) -> Nodes {
    let own = honest.leaves(place.position, place.op);
    let count = leaves(&honest.claim().layout(place.position, place.op));
    let hash = |leaf| if leaf == place.leaf { leaf_hash(data) } else { own.node(0, leaf) };
    Nodes::new((0..count).map(hash).collect())
}

impl Openings for Altered {
    fn open(&self, source: Source) -> Option<std::borrow::Cow<'_, [u8]>> {
        match source == Source::Trace(self.place) {
            true => Some((&*self.data).into()),
            false => self.honest.open(source),
        }
    }
}

impl Trace for Altered {
    fn spine(&self) -> &Spine {
        &self.spine
    }

    fn leaves(&self, position: u32, op: u32) -> Nodes {
        match (position, op) == (self.place.position, self.place.op) {
            true => altered(&*self.honest, self.place, &self.data),
            false => self.honest.leaves(position, op),
        }
    }
}

impl Retraced for Altered {
    fn claim(&self) -> Claim<'_> {
        self.honest.claim()
    }
}

/// One who disputes an honest answer.
#[derive(Debug)]
pub(crate) struct Doubter {
    pub(crate) id: u64,
    docket: Docket,
    record: std::sync::Arc<Record>,
    source: Option<std::sync::Arc<NodeServer>>,
}

impl Doubter {
    /// Opens a dispute with a mistake in mind.
    pub(crate) async fn open(world: &World, answer: &Answer, mistake: Mistake) -> Self {
        Self::with(world, answer, Some(mistake)).await
    }

    /// Opens one for nothing.
    pub(crate) async fn right(world: &World, answer: &Answer) -> Self {
        Self::with(world, answer, None).await
    }

    async fn with(world: &World, answer: &Answer, mistake: Option<Mistake>) -> Self {
        let chain = &world.challenger;
        let (id, mined) = chain.open_dispute(&Filing::of(answer, None)).await.unwrap();
        let receipt = answer.receipt.digest(CHAIN);
        let disputed = facts(chain, answer.clone(), receipt).await.unwrap();
        let record = tokio::task::spawn_blocking(move || {
            Record::compute(&Mistaken(mistake), disputed).unwrap()
        });
        let record = std::sync::Arc::new(record.await.unwrap());
        let found = Docket::find(chain, id).await.unwrap();
        assert_eq!(found.opened(), mined.block);
        Self { id, docket: Docket::new(id, mined.block), record, source: None }
    }

    /// Asks the provider's server for nodes.
    pub(crate) fn asks(&mut self, url: &str) {
        let server = NodeServer::new(url, self.id, Duration::from_secs(60)).unwrap();
        self.source = Some(std::sync::Arc::new(server));
    }

    /// What it has to say now, if it is its turn, and where the dispute stands.
    pub(crate) async fn says(&mut self, world: &World) -> (Phase, Option<Call>) {
        let look = self.docket.look(&world.challenger).await.unwrap();
        let (record, source, standing) =
            (self.record.clone(), self.source.clone(), look.standing.clone());
        let next = tokio::task::spawn_blocking(move || {
            let source: &dyn NodeSource = match &source {
                Some(server) => &**server,
                None => &NoSource,
            };
            record.challenge(&standing, source).unwrap()
        });
        if let Some(server) = &self.source {
            assert!(!server.is_given_up(), "the provider serves what it has");
        }
        let play = match next.await.unwrap() {
            Next::Wait => None,
            Next::Move(play) => Some(play),
            Next::Agrees => panic!("{self:?} finds nothing wrong at {:?}", look.standing),
        };
        (look.dispute.phase, play.map(|play| on_chain(self.id, play)))
    }

    /// Names an element of a true trace, in one jump from where the dispute stands.
    pub(crate) async fn name(&mut self, world: &World, place: Place, element: u8, doubt: Doubt) {
        let look = self.docket.look(&world.challenger).await.unwrap();
        let from = look.standing.way;
        let play = self.record.about(|subject, trace| {
            let claim = subject.claim;
            let count = leaves(&claim.layout(place.position, place.op));
            let to = Depths::of(claim).to_leaf(place, count);
            let levels = to.depth() - from.depth();
            let sibling = |up| node(claim, trace, to.up(up).beside()).unwrap();
            let branch = Branch {
                turns: to.turns() & ((1 << levels) - 1),
                node: node(claim, trace, to).unwrap(),
                proof: (0..levels).map(sibling).collect(),
            };
            let accusation = Box::new(subject.accuse(place.op, element, doubt).unwrap());
            Call::Name { dispute: self.id, branch, accusation }
        });
        world.challenger.play(&[play]).await.unwrap();
    }
}
