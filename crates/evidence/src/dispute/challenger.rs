//! The challenger: goes to the first number that is wrong, and says so.
//!
//! It holds its own honest trace of the same claim. Where the committed trace first differs from
//! it, everything that the number follows from is equal, so its rule gives the challenger's number
//! and convicts the other one. Nodes come from what was revealed on chain, and from a source that
//! may be the provider's own server: what it says is checked against what is known, and a source
//! that lies or keeps silent costs only rounds on chain.

use assay_protocol::{B256, Doubt, Phase, leaf_hash};

use super::advice::Advised;
use super::defender::{next_round, reveal};
use super::error::NoAnswer;
use super::known::{Known, branch};
use super::path::{Depths, End, Way, end_of, fan, node};
use super::standing::{Move, Standing};
use super::subject::Subject;
use super::trace::Trace;
use crate::op::{self, Check, Kind, Place, Source, leaves, token_word};

/// Where nodes and leaves of the committed trace may be had beside the chain.
pub trait NodeSource {
    /// The nodes so many levels below one of the committed trace, all of that level.
    fn nodes(&self, below: Way, levels: u32) -> Option<Vec<B256>>;

    /// The data of a leaf of the committed trace.
    fn leaf(&self, place: Place) -> Option<Vec<u8>>;
}

/// No source: all nodes come from the chain.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSource;

impl NodeSource for NoSource {
    fn nodes(&self, _below: Way, _levels: u32) -> Option<Vec<B256>> {
        None
    }

    fn leaf(&self, _place: Place) -> Option<Vec<u8>> {
        None
    }
}

/// What a challenger does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is not its turn.
    Wait,
    /// This move. It leads to a conviction, whatever the other side does.
    Move(Move),
    /// The committed trace is its own, and every check holds: there is nothing to dispute.
    Agrees,
}

/// The side that doubts a receipt, with its own honest trace of what the receipt claims.
#[derive(Clone, Copy)]
pub struct Challenger<'a> {
    subject: Subject<'a>,
    trace: &'a dyn Trace,
}

/// Where the committed trace is wrong, or where more has to be known.
enum Found {
    /// Nodes below are needed.
    Unknown(Way),
    /// A node where nothing can be.
    Empty(Way),
    /// A leaf that differs.
    Leaf(Way, Place),
    /// No difference.
    Equal,
}

/// What is wrong in a leaf.
enum Wrong {
    Element(u8, Doubt),
    /// Advice that differs: what follows from it tells.
    Advice(Vec<u8>),
}

/// What is known of advice that a trace was committed with.
enum Advice {
    /// Nothing that matters, or that it is the challenger's own.
    Own,
    /// This leaf of it, which is another.
    Other(Place, Vec<u8>),
    /// That this leaf of it is not known.
    Unknown(Place),
}

impl<'a> Challenger<'a> {
    /// A challenger with this trace.
    pub fn new(subject: Subject<'a>, trace: &'a dyn Trace) -> Self {
        Self { subject, trace }
    }

    /// What shows, before anything is committed, that the receipt is false: the leaf of its own
    /// trace that does not fit the receipt, and the check that fails there.
    ///
    /// # Errors
    /// If its own trace is not at hand there.
    pub fn doubts(&self) -> Result<Option<(Place, Doubt)>, NoAnswer> {
        let claim = self.subject.claim;
        let token = claim.program.iter().position(|step| step.kind == Kind::Token);
        let state = claim.program.len() as u32;
        for position in 0..claim.positions() {
            let Some(op) = token.filter(|_| claim.answers(position)) else { continue };
            let op = op as u32;
            if !op::check(claim, self.trace, position, op, Check::Link)? {
                return Ok(Some((Place { position, op, leaf: 0 }, Doubt::Link)));
            }
        }
        let last = claim.positions().saturating_sub(1);
        let place = Place { position: last, op: state, leaf: 0 };
        let source = Source::Trace(place);
        let data = self.trace.open(source).ok_or(NoAnswer::Missing(source))?;
        Ok((*data != *self.subject.state.as_slice()).then_some((place, Doubt::FinalState)))
    }

    /// What it does next.
    ///
    /// # Errors
    /// If what stands on chain does not hang together, or its own trace is incomplete.
    pub fn next(&self, standing: &Standing, source: &dyn NodeSource) -> Result<Next, NoAnswer> {
        match standing.phase {
            Phase::Pick => self.go_down(standing, source),
            Phase::Choose => self.choose(standing).map(Next::Move),
            _ => Ok(Next::Wait),
        }
    }

    fn go_down(&self, standing: &Standing, source: &dyn NodeSource) -> Result<Next, NoAnswer> {
        let mut known = standing.known()?;
        if known.node(Way::ROOT) == Some(self.trace.spine().root()) {
            return self.check_fails(standing);
        }
        let found = self.seek(self.trace, standing, &mut known, source)?;
        match self.advice(&found, standing) {
            Advice::Own => {}
            Advice::Unknown(place) => return self.ask(standing, place),
            Advice::Other(place, data) => {
                return self.under_advice(place, data, standing, &mut known, source);
            }
        }
        let Found::Leaf(way, place) = found else {
            return self.toward(found, standing, &known);
        };
        let node = known.node(way).ok_or(NoAnswer::Nowhere(way))?;
        let Some(data) = self.data(standing, place, node, source) else {
            return self.ask(standing, place);
        };
        match self.wrong(place, data)? {
            Wrong::Element(element, doubt) => {
                self.name(standing, &known, (way, place), element, doubt).map(Next::Move)
            }
            Wrong::Advice(data) => self.under_advice(place, data, standing, &mut known, source),
        }
    }

    /// What is known of the committed advice of the sampler that the way leads into. It has to be known
    /// before the way narrows: what follows from it, and is wrong, may lie anywhere after it.
    fn advice(&self, found: &Found, standing: &Standing) -> Advice {
        let (Found::Unknown(way) | Found::Leaf(way, _)) = found else { return Advice::Own };
        let claim = self.subject.claim;
        let Some(place) = Depths::of(claim).within_op(*way) else { return Advice::Own };
        for place in Advised::places(claim, place) {
            let own = self.trace.open(Source::Trace(place));
            match (self.shown(standing, place), found) {
                (Some(data), _) if own.is_some_and(|own| *own != *data) => {
                    return Advice::Other(place, data.to_vec());
                }
                (None, Found::Unknown(_)) => return Advice::Unknown(place),
                _ => {}
            }
        }
        Advice::Own
    }

    /// Asks to see a leaf.
    fn ask(&self, standing: &Standing, place: Place) -> Result<Next, NoAnswer> {
        let to = self.way_to(place);
        let levels = to.depth.saturating_sub(standing.way.depth);
        if to.up(levels) != standing.way {
            return Err(NoAnswer::Nowhere(to));
        }
        let step = self.subject.open_step(place.op)?;
        let turns = to.turns & ((1 << levels) - 1);
        Ok(Next::Move(Move::Ask { turns, levels: levels as u8, step }))
    }

    /// The data of a leaf that was asked for.
    fn shown<'s>(&self, standing: &'s Standing, place: Place) -> Option<&'s [u8]> {
        let to = self.way_to(place);
        standing.shown.iter().find(|(way, _)| *way == to).map(|(_, data)| data.as_slice())
    }

    /// The data of the leaf with a hash, if they were shown or the source has them.
    fn data(
        &self,
        standing: &Standing,
        place: Place,
        node: B256,
        source: &dyn NodeSource,
    ) -> Option<Vec<u8>> {
        let shown = self.shown(standing, place).map(<[u8]>::to_vec);
        shown.or_else(|| source.leaf(place).filter(|data| is_leaf(data, node)))
    }

    /// The way to a leaf.
    fn way_to(&self, place: Place) -> Way {
        let claim = self.subject.claim;
        Depths::of(claim).to_leaf(place, leaves(&claim.layout(place.position, place.op)))
    }

    /// Goes on with the committed advice: what follows from it is wrong somewhere, or its check
    /// fails.
    fn under_advice(
        &self,
        place: Place,
        data: Vec<u8>,
        standing: &Standing,
        known: &mut Known,
        source: &dyn NodeSource,
    ) -> Result<Next, NoAnswer> {
        let advised = Advised::new(self.subject.claim, self.trace, place, data)?;
        let found = self.seek(&advised, standing, known, source)?;
        let Found::Leaf(way, place) = found else {
            return self.toward(found, standing, known);
        };
        let node = known.node(way).ok_or(NoAnswer::Nowhere(way))?;
        if place == advised.end() && (advised.refuses() || node == advised.end_hash()) {
            let doubt = if advised.refuses() { Doubt::Element } else { advised.doubt() };
            return self.name(standing, known, (way, place), 0, doubt).map(Next::Move);
        }
        let Some(data) = self.data(standing, place, node, source) else {
            return self.ask(standing, place);
        };
        let element = differing(self.subject.claim, place, &advised.data(place)?, &data, 0);
        let element = element.unwrap_or(0);
        self.name(standing, known, (way, place), element, Doubt::Element).map(Next::Move)
    }

    /// Goes to the leftmost difference from a trace, as far as nodes are known.
    fn seek(
        &self,
        own: &dyn Trace,
        standing: &Standing,
        known: &mut Known,
        source: &dyn NodeSource,
    ) -> Result<Found, NoAnswer> {
        let claim = self.subject.claim;
        let mut way = standing.way;
        loop {
            match end_of(claim, way) {
                End::Leaf(place) => return Ok(Found::Leaf(way, place)),
                End::Nothing(_) => return Ok(Found::Empty(way)),
                End::Above => {}
            }
            let own = fan(claim, own, way)?;
            let levels = own.len().ilog2();
            if known.node(way.down(levels, 0)).is_none() {
                let served = source.nodes(way, levels).filter(|nodes| nodes.len() == own.len());
                if !served.is_some_and(|nodes| known.add(way, &nodes)) {
                    return Ok(Found::Unknown(way));
                }
            }
            let children = (0..).zip(own).map(|(index, node)| (way.down(levels, index), node));
            let mut differing = children.filter(|(child, own)| known.node(*child) != Some(*own));
            match differing.next() {
                Some((child, _)) => way = child,
                None => return Ok(Found::Equal),
            }
        }
    }

    /// The move that leads to what was found, unless that is a leaf.
    fn toward(&self, found: Found, standing: &Standing, known: &Known) -> Result<Next, NoAnswer> {
        let to = |way| known.branch(standing.way, way).ok_or(NoAnswer::Nowhere(way));
        let depths = Depths::of(self.subject.claim);
        Ok(match found {
            Found::Unknown(way) if way.depth < depths.to_ops() || standing.leaf_depth.is_some() => {
                Next::Move(Move::Pick(to(way)?))
            }
            Found::Unknown(way) => Next::Move(Move::PickWithin(to(way)?, self.step_at(way)?)),
            Found::Empty(way) => Next::Move(Move::Empty(to(way)?, self.step_at(way)?)),
            // Below the picked node everything is equal after all.
            Found::Leaf(..) | Found::Equal => Next::Agrees,
        })
    }

    /// The step of the op that a way leads into; any where no op is.
    fn step_at(&self, way: Way) -> Result<assay_protocol::OpenStep, NoAnswer> {
        let (claim, depths) = (self.subject.claim, Depths::of(self.subject.claim));
        let op = way.up(way.depth.saturating_sub(depths.to_ops())).last(depths.ops) as u32;
        self.subject.open_step(if op < claim.ops() { op } else { 0 })
    }

    /// Names what is wrong in a leaf.
    fn name(
        &self,
        standing: &Standing,
        known: &Known,
        (way, place): (Way, Place),
        element: u8,
        doubt: Doubt,
    ) -> Result<Move, NoAnswer> {
        let branch = known.branch(standing.way, way).ok_or(NoAnswer::Nowhere(way))?;
        let accusation = self.subject.accuse(place.op, element, doubt)?;
        Ok(Move::Name(branch, Box::new(accusation)))
    }

    /// Every number is right, so the receipt is false only if it does not fit the trace.
    fn check_fails(&self, standing: &Standing) -> Result<Next, NoAnswer> {
        let claim = self.subject.claim;
        let Some((place, doubt)) = self.doubts()? else { return Ok(Next::Agrees) };
        let to = self.way_to(place);
        let branch = branch(standing.way, to, |way| node(claim, self.trace, way));
        let branch = branch.ok_or(NoAnswer::Nowhere(to))?;
        let accusation = self.subject.accuse(place.op, 0, doubt)?;
        Ok(Next::Move(Move::Name(branch, Box::new(accusation))))
    }

    /// What is wrong in a leaf that differs from its own.
    fn wrong(&self, place: Place, data: Vec<u8>) -> Result<Wrong, NoAnswer> {
        let claim = self.subject.claim;
        let own = self.trace.open(Source::Trace(place));
        let own = own.ok_or(NoAnswer::Missing(Source::Trace(place)))?;
        // Advice itself has no rule, but what fills up its leaf has one like any other.
        let from = usize::from(Advised::is_advice(claim, place));
        Ok(match differing(claim, place, &own, &data, from) {
            Some(element) => Wrong::Element(element, Doubt::Element),
            None if from == 1 => Wrong::Advice(data),
            // A leaf of another length can be opened by nobody, whichever element is named.
            None => Wrong::Element(0, Doubt::Element),
        })
    }

    /// The first entry of the last list that is false. If all are true, the list does not give the
    /// element, and any entry will do.
    fn choose(&self, standing: &Standing) -> Result<Move, NoAnswer> {
        let focus = standing.checked_focus()?;
        let (last, before) = standing.rounds.split_last().ok_or(NoAnswer::NoRound(0))?;
        let round = next_round(&self.subject, focus, before);
        let round = round.ok_or(NoAnswer::NoRound(before.len()))?;
        // Lists are of logits and of what comes before them, so no advice matters here.
        let own = reveal(&self.subject, self.trace, focus, round)?.list()?;
        let bytes = round.entry_bytes();
        let differs = |(own, listed): (&[u8], &[u8])| own != listed;
        let wrong = own.chunks(bytes).zip(last.list.chunks(bytes)).position(differs);
        Ok(Move::Choose(wrong.unwrap_or(0) as u32))
    }
}

/// Whether data are those of the leaf with a hash. A leaf of 63 bytes could be a node, and none is.
fn is_leaf(data: &[u8], node: B256) -> bool {
    data.len() != 63 && leaf_hash(data) == node
}

/// The first element from number `from` on at which two leaves differ; 0 for a malformed one.
fn differing(
    claim: &op::Claim<'_>,
    place: Place,
    own: &[u8],
    data: &[u8],
    from: usize,
) -> Option<u8> {
    let kind = op::kind_at(claim, place)?;
    if data.len() != kind.bytes() || own.len() != kind.bytes() {
        return Some(0);
    }
    let differs = |element: &usize| {
        kind.ranges(*element).into_iter().any(|range| data[range.clone()] != own[range])
    };
    (from..kind.elements()).find(differs).map(|element| element as u8)
}

/// The token that a trace draws at a position that answers, to tell what is wrong with an answer.
pub fn drawn_token(claim: &op::Claim<'_>, trace: &dyn Trace, position: u32) -> Option<u64> {
    let op = claim.program.iter().position(|step| step.kind == Kind::Token)? as u32;
    let data = trace.open(Source::Trace(Place { position, op, leaf: 0 }))?;
    Some(op::WideLeaf::read(&data).ok()?.0[token_word(claim)])
}
