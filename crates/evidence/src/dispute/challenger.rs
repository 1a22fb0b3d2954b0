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

    /// The data of a leaf that a proof opened on chain, in an earlier dispute about the same root. It is
    /// believed.
    fn opened(&self, _place: Place) -> Option<Vec<u8>> {
        None
    }
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
    /// The leaf differs, but its data are withheld, so which of its elements is wrong cannot be
    /// said. To name one that is right loses the bond, but not the case: the defender opens the leaf to
    /// prove it, and a receipt has one trace, so a next dispute that knows the leaf convicts. For
    /// leaves that follow from withheld advice it may take two.
    Withheld {
        /// The leaf.
        place: Place,
        /// Naming its likeliest element: a guess.
        guess: Move,
    },
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
    /// Its data are not known.
    Withheld,
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
        if let Some((place, data)) = self.opened_advice(&found, source) {
            return self.under_advice(place, data, standing, &mut known, source);
        }
        let Found::Leaf(way, place) = found else {
            return self.toward(found, standing, &known);
        };
        let node = known.node(way).ok_or(NoAnswer::Nowhere(way))?;
        match self.wrong(place, node, source)? {
            Wrong::Element(element, doubt) => {
                self.name(standing, &known, (way, place), element, doubt).map(Next::Move)
            }
            Wrong::Advice(data) => self.under_advice(place, data, standing, &mut known, source),
            Wrong::Withheld => {
                let guess = self.name(standing, &known, (way, place), 0, Doubt::Element)?;
                Ok(Next::Withheld { place, guess })
            }
        }
    }

    /// The first advice that an earlier proof opened, if it is not its own, of the sampler that the way
    /// leads into. To know it before the way narrows is to know where to go.
    fn opened_advice(&self, found: &Found, source: &dyn NodeSource) -> Option<(Place, Vec<u8>)> {
        let (Found::Unknown(way) | Found::Leaf(way, _)) = found else { return None };
        let claim = self.subject.claim;
        let place = Depths::of(claim).within_op(*way)?;
        let differs = |place: &Place, data: &Vec<u8>| {
            self.trace.open(Source::Trace(*place)).is_some_and(|own| *own != **data)
        };
        Advised::places(claim, place)
            .filter_map(|place| source.opened(place).map(|data| (place, data)))
            .find(|(place, data)| differs(place, data))
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
        let own = advised.data(place)?;
        match differing(self.subject.claim, place, &own, node, source) {
            Some(element) => {
                self.name(standing, known, (way, place), element, Doubt::Element).map(Next::Move)
            }
            None => {
                let guess = self.name(standing, known, (way, place), 0, Doubt::Element)?;
                Ok(Next::Withheld { place, guess })
            }
        }
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
        let leaves = leaves(&claim.layout(place.position, place.op));
        let to = Depths::of(claim).to_leaf(place, leaves);
        let branch = branch(standing.way, to, |way| node(claim, self.trace, way));
        let branch = branch.ok_or(NoAnswer::Nowhere(to))?;
        let accusation = self.subject.accuse(place.op, 0, doubt)?;
        Ok(Next::Move(Move::Name(branch, Box::new(accusation))))
    }

    /// What is wrong in a leaf that differs from its own.
    fn wrong(&self, place: Place, node: B256, source: &dyn NodeSource) -> Result<Wrong, NoAnswer> {
        let claim = self.subject.claim;
        let own = self.trace.open(Source::Trace(place));
        let own = own.ok_or(NoAnswer::Missing(Source::Trace(place)))?;
        if !Advised::is_advice(claim, place) {
            let element = differing(claim, place, &own, node, source);
            return Ok(element.map_or(Wrong::Withheld, |e| Wrong::Element(e, Doubt::Element)));
        }
        let served = held(source, place, node);
        let Some(data) = served.or_else(|| Advised::likely(claim, self.trace, place, node)) else {
            return Ok(Wrong::Withheld);
        };
        // What fills up a leaf of advice has a rule like any other.
        let filled = differing_from(claim, place, &own, &data, 1);
        Ok(match filled {
            Some(element) => Wrong::Element(element, Doubt::Element),
            None => Wrong::Advice(data),
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

/// The data of the leaf with a hash, if the source has them.
fn held(source: &dyn NodeSource, place: Place, node: B256) -> Option<Vec<u8>> {
    let fits = |data: &Vec<u8>| is_leaf(data, node);
    source.opened(place).filter(fits).or_else(|| source.leaf(place).filter(fits))
}

/// Whether data are those of the leaf with a hash. A leaf of 63 bytes could be a node, and none is.
fn is_leaf(data: &[u8], node: B256) -> bool {
    data.len() != 63 && leaf_hash(data) == node
}

/// The first element of a leaf that is another than its own, if the leaf's data can be had: from
/// the source, or as one of those that its own leaf becomes by a small change.
fn differing(
    claim: &op::Claim<'_>,
    place: Place,
    own: &[u8],
    node: B256,
    source: &dyn NodeSource,
) -> Option<u8> {
    let data = held(source, place, node).or_else(|| slightly_changed(own, node))?;
    // A leaf of another length can be opened by nobody, whichever element is named.
    Some(differing_from(claim, place, own, &data, 0).unwrap_or(0))
}

/// The first element from number `from` on at which two leaves differ; 0 for a malformed one.
fn differing_from(
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

/// The leaf with a hash, if it is its own with one bit flipped.
fn slightly_changed(own: &[u8], node: B256) -> Option<Vec<u8>> {
    let mut data = own.to_vec();
    for bit in 0..8 * own.len() {
        data[bit / 8] ^= 1 << (bit % 8);
        if is_leaf(&data, node) {
            return Some(data);
        }
        data[bit / 8] ^= 1 << (bit % 8);
    }
    None
}

/// The token that a trace draws at a position that answers, to tell what is wrong with an answer.
pub fn drawn_token(claim: &op::Claim<'_>, trace: &dyn Trace, position: u32) -> Option<u64> {
    let op = claim.program.iter().position(|step| step.kind == Kind::Token)? as u32;
    let data = trace.open(Source::Trace(Place { position, op, leaf: 0 }))?;
    Some(op::WideLeaf::read(&data).ok()?.0[token_word(claim)])
}
