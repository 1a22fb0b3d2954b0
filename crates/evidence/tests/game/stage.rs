//! A receipt that can be disputed, and what both sides hold.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use assay_evidence::dispute::{Subject, Trace as Shown};
use assay_evidence::op::{Nodes, Openings, Place, Source, Spine};
use assay_protocol::{Address, Amount, Assurance, Audit, B256, Finish, Receipt, token_root};

use crate::court::{BUYER, Court, NOW, OPERATOR};
use crate::filed::Filed;
use crate::trace::Trace;
use crate::words::{self, Filing, Posting};
use crate::world::{CHAIN, Choices, World};

/// A trace with all its trees, some leaves of which may be other ones.
#[derive(Clone)]
pub(crate) struct Full<'a> {
    leaves: &'a Trace,
    changed: HashMap<Place, Vec<u8>>,
    /// Of the leaves as they are, and of ops with others.
    trees: Arc<HashMap<(u32, u32), Nodes>>,
    other_trees: HashMap<(u32, u32), Nodes>,
    spine: Spine,
}

impl<'a> Full<'a> {
    fn new(world: &World, leaves: &'a Trace) -> Full<'a> {
        let claim = world.claim();
        let all = |position| (0..claim.ops()).map(move |op| (position, op));
        let trees: HashMap<(u32, u32), Nodes> = (0..claim.positions())
            .flat_map(all)
            .map(|(position, op)| ((position, op), leaves.nodes(world, position, op)))
            .collect();
        let spine = spine(&trees, &HashMap::new());
        let (changed, other_trees) = (HashMap::new(), HashMap::new());
        Full { leaves, changed, trees: Arc::new(trees), other_trees, spine }
    }

    /// The same, with other leaves.
    pub(crate) fn with(&self, stage: &Stage, other: HashMap<Place, Vec<u8>>) -> Full<'a> {
        let claim = stage.world.claim();
        let mut full = self.clone();
        full.changed.extend(other);
        let ops: std::collections::HashSet<(u32, u32)> =
            full.changed.keys().map(|place| (place.position, place.op)).collect();
        for (position, op) in ops {
            let count = assay_evidence::op::leaves(&claim.layout(position, op));
            let data: Vec<Vec<u8>> =
                (0..count).map(|leaf| full.data(Place { position, op, leaf }).to_vec()).collect();
            let tree = Nodes::of_leaves(data.iter().map(Vec::as_slice));
            full.other_trees.insert((position, op), tree);
        }
        full.spine = spine(&full.trees, &full.other_trees);
        full
    }

    /// With another tree in the place of that of an op, which need not be one that a trace has.
    pub(crate) fn with_tree(&self, at: (u32, u32), tree: Nodes) -> Full<'a> {
        let mut full = self.clone();
        full.other_trees.insert(at, tree);
        full.spine = spine(&full.trees, &full.other_trees);
        full
    }

    pub(crate) fn data(&self, place: Place) -> &[u8] {
        match self.changed.get(&place) {
            Some(data) => data,
            None => self.leaves.leaf(place),
        }
    }
}

fn spine(trees: &HashMap<(u32, u32), Nodes>, other: &HashMap<(u32, u32), Nodes>) -> Spine {
    let places = || trees.keys().chain(other.keys());
    let positions = places().map(|(position, _)| position + 1).max().unwrap_or(0);
    let ops = places().map(|(_, op)| op + 1).max().unwrap_or(0);
    let tree = |at: (u32, u32)| other.get(&at).or_else(|| trees.get(&at));
    let root = |at: (u32, u32)| tree(at).map_or(B256::ZERO, Nodes::root);
    Spine::new((0..positions).map(|position| (0..ops).map(|op| root((position, op))).collect()))
}

impl Openings for Full<'_> {
    fn open(&self, source: Source) -> Option<Cow<'_, [u8]>> {
        match source {
            Source::Trace(place) if self.changed.contains_key(&place) => {
                Some(Cow::Borrowed(&self.changed[&place]))
            }
            source => self.leaves.open(source),
        }
    }
}

impl Shown for Full<'_> {
    fn spine(&self) -> &Spine {
        &self.spine
    }

    fn leaves(&self, position: u32, op: u32) -> Nodes {
        let tree =
            self.other_trees.get(&(position, op)).or_else(|| self.trees.get(&(position, op)));
        tree.cloned().unwrap_or_else(|| Nodes::new(Vec::new()))
    }
}

/// An answer, its receipt, and a chain on which it can be disputed.
pub(crate) struct Stage {
    pub(crate) filed: &'static Filed,
    pub(crate) world: World,
    pub(crate) trace: Trace,
    pub(crate) court: Court,
    pub(crate) receipt: Receipt,
    pub(crate) filing: Filing,
    pub(crate) facts: Vec<u8>,
}

impl Stage {
    /// An honest answer to a prompt of noise.
    pub(crate) fn honest(
        filed: &'static Filed,
        choices: &Choices,
        prompt: usize,
        output: usize,
    ) -> Stage {
        let id = filed.manifest.id();
        let mut world = World::answer_of(filed.known, id, choices, prompt, output);
        let mut court = Court::new();
        court.file(&filed.manifest);
        world.order.buyer = BUYER.address();
        world.order.market = court.receipts;
        world.order.audit = Audit::Public;
        world.order.deadline = NOW;
        world.order.max_tokens = output as u32;
        Stage::of(filed, world, court, None)
    }

    /// The same, with an output token that the model does not give, and the state that belongs to
    /// it.
    pub(crate) fn with_output(self, index: usize, token: u32) -> Stage {
        let Stage { filed, mut world, court, .. } = self;
        world.output[index] = token;
        Stage::of(filed, world, court, None)
    }

    /// The same, with another last state.
    pub(crate) fn with_state(self, state: B256) -> Stage {
        let Stage { filed, world, court, .. } = self;
        Stage::of(filed, world, court, Some(state))
    }

    fn of(filed: &'static Filed, world: World, mut court: Court, state: Option<B256>) -> Stage {
        let trace = Trace::write(&world);
        let claim = world.claim();
        let last = Place { position: claim.positions() - 1, op: claim.ops() - 1, leaf: 0 };
        let state = state.unwrap_or_else(|| B256::from_slice(trace.leaf(last)));
        let receipt = Receipt {
            order: world.order.hash(CHAIN),
            provider: OPERATOR.address(),
            output: token_root(&world.output),
            output_tokens: world.output.len() as u32,
            text: B256::ZERO,
            finish: Finish::Length,
            state,
            assurance: Assurance::Replayable,
            asset: Address::ZERO,
            price: Amount(0),
            channel: Default::default(),
            channel_before: Amount(0),
            channel_after: Amount(0),
            started: NOW * 1000,
            finished: NOW * 1000,
        };
        let filing = Filing {
            order: words::order(&world.order),
            orderSignature: world.order.sign(CHAIN, &BUYER).0.to_vec().into(),
            receipt: words::receipt(&receipt),
            receiptSignature: receipt.sign(CHAIN, &OPERATOR).0.to_vec().into(),
            sampler: words::sampler(&world.sampler),
            posting: Posting {
                given: false,
                period: Default::default(),
                index: Default::default(),
                proof: Vec::new(),
            },
        };
        let facts = court.facts(&filing);
        Stage { filed, world, trace, court, receipt, filing, facts }
    }

    /// The honest trace with its trees.
    pub(crate) fn full(&self) -> Full<'_> {
        Full::new(&self.world, &self.trace)
    }

    /// Runs `play` on what both sides know.
    pub(crate) fn about<T>(&self, play: impl FnOnce(Subject<'_>) -> T) -> T {
        let claim = self.world.claim();
        play(Subject {
            claim: &claim,
            model: self.filed,
            weights: self.filed.manifest.parts.weights,
            facts: &self.facts,
            state: self.receipt.state,
        })
    }
}
