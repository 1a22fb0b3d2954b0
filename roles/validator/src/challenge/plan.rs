//! What a challenger sends next, given where a dispute stands.
//!
//! Computing and asking the provider's server both block: this runs on a thread that may.

use assay_chain::{Move as Call, Proof as Called};
use assay_court::{Record, Retraced, on_chain};
use assay_evidence::dispute::{
    Challenger, Depths, Explanation, Known, Move, Next, NoAnswer, NodeSource, Standing, Subject,
    Trace, Way, exhibits, explain, fan, needs_facts,
};
use assay_evidence::op::{Kind, Place, Round as Rule, Source};
use assay_protocol::{B256, Doubt, Focus, Phase, Round};

use super::committed::Committed;

/// What to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// In one transaction: the move, and, where every opening is at hand, its judgement and what
    /// follows from a conviction. Refused as a whole unless it convicts.
    pub(crate) convicting: Option<Vec<Call>>,
    /// The move alone; none where only somebody's proof is awaited.
    pub(crate) alone: Option<Call>,
    /// The number that is named.
    pub(crate) doubts: Option<Box<Explanation>>,
}

/// What a plan is made from.
pub(crate) struct Sight<'a> {
    pub(crate) record: &'a Record,
    pub(crate) dispute: u64,
    /// Digest of the receipt.
    pub(crate) receipt: B256,
    pub(crate) source: &'a dyn NodeSource,
    /// Go on even though nothing is wrong, and let the provider prove that.
    pub(crate) anyway: bool,
}

impl Sight<'_> {
    /// What to send now; nothing while the provider owes a move that nobody else can make, or if there
    /// is nothing to say.
    pub(crate) fn plan(&self, standing: &Standing) -> Result<Option<Plan>, NoAnswer> {
        self.record.about(|subject, trace| match standing.phase {
            Phase::Pick | Phase::Choose => {
                match Challenger::new(subject, trace).next(standing, self.source)? {
                    Next::Move(play) => self.with_move(&subject, trace, standing, play).map(Some),
                    Next::Agrees if self.anyway => {
                        self.pretend(&subject, trace, standing).map(Some)
                    }
                    Next::Agrees | Next::Wait => Ok(None),
                }
            }
            Phase::Prove => Ok(standing.focus.and_then(|focus| {
                let proof = self.proof(&subject, trace, standing, focus, &standing.rounds)?;
                Some(Plan {
                    convicting: Some(self.convicting(None, proof)),
                    alone: None,
                    doubts: None,
                })
            })),
            _ => Ok(None),
        })
    }

    fn with_move(
        &self,
        subject: &Subject<'_>,
        trace: &dyn Retraced,
        standing: &Standing,
        play: Move,
    ) -> Result<Plan, NoAnswer> {
        let named = match &play {
            Move::Name(branch, accusation) => {
                let way = way_of(standing.way, branch.turns, branch.proof.len());
                let (element, doubt) = (accusation.element, accusation.doubt);
                way.map(|way| (way, branch.node, element, doubt))
            }
            _ => None,
        };
        let judged = match (&play, named) {
            (_, Some(named)) => self.named(subject, trace, standing, named)?,
            (Move::Choose(entry), _) => self.chosen(subject, trace, standing, *entry),
            _ => None,
        };
        let doubts = named.map(|(way, node, element, doubt)| {
            Box::new(self.explained(subject, trace, way, (node, element, doubt)))
        });
        let call = on_chain(self.dispute, play);
        let convicting = judged.map(|proof| self.convicting(Some(call.clone()), proof));
        Ok(Plan { convicting, alone: Some(call), doubts })
    }

    /// The proof of a number as it is named.
    fn named(
        &self,
        subject: &Subject<'_>,
        trace: &dyn Retraced,
        standing: &Standing,
        (way, node, element, doubt): (Way, B256, u8, Doubt),
    ) -> Result<Option<Called>, NoAnswer> {
        let place = place_of(subject, way);
        let needs_list = doubt == Doubt::Element && !is_provable_at_once(subject, place);
        if self.anyway || needs_list {
            return Ok(None);
        }
        let committed = self.around(subject, trace, standing, place);
        let Some(committed) = committed else { return Ok(None) };
        let Some(here) = committed.here(place) else { return Ok(None) };
        let focus = subject.focus(place, (node, here), element, doubt)?;
        Ok(self.opened(subject, &committed, focus, &[]))
    }

    /// The proof of a number once an entry of its last list is chosen.
    fn chosen(
        &self,
        subject: &Subject<'_>,
        trace: &dyn Retraced,
        standing: &Standing,
        entry: u32,
    ) -> Option<Called> {
        let (focus, mut rounds) = (standing.focus?, standing.rounds.clone());
        rounds.last_mut()?.entry = entry;
        self.proof(subject, trace, standing, focus, &rounds)
    }

    /// The proof of a named number, if every list that it needs was revealed and all openings are at
    /// hand.
    fn proof(
        &self,
        subject: &Subject<'_>,
        trace: &dyn Retraced,
        standing: &Standing,
        focus: Focus,
        rounds: &[Round],
    ) -> Option<Called> {
        let place = Place { position: focus.position, op: focus.op, leaf: focus.leaf };
        let complete = match (Rule::first(subject.claim, place), rounds.len()) {
            (Some(Rule::Sums), lists) => lists == 2,
            (Some(_), 0) => is_provable_at_once(subject, place),
            _ => true,
        };
        if self.anyway || focus.doubt == Doubt::Element && !complete {
            return None;
        }
        let committed = self.around(subject, trace, standing, place)?;
        self.opened(subject, &committed, focus, rounds)
    }

    fn opened(
        &self,
        subject: &Subject<'_>,
        committed: &Around<'_>,
        focus: Focus,
        rounds: &[Round],
    ) -> Option<Called> {
        // What is not at hand leaves the proof to the provider.
        let openings = exhibits(subject, committed.trace(), &focus, rounds).ok()?;
        let facts = if needs_facts(&focus) { subject.facts.to_vec() } else { Vec::new() };
        let (dispute, rounds) = (self.dispute, rounds.to_vec());
        Some(Called { dispute, focus, facts, rounds, openings })
    }

    /// The committed trace around a leaf: one's own, if that is what was committed to.
    fn around<'b>(
        &'b self,
        subject: &Subject<'b>,
        trace: &'b dyn Retraced,
        standing: &Standing,
        place: Place,
    ) -> Option<Around<'b>> {
        let own: &dyn Trace = trace;
        if own.spine().root() == standing.trace {
            return Some(Around::Own(own));
        }
        let committed = Committed::around(subject.claim, own, self.source, standing, place);
        committed.map(|committed| Around::Theirs(Box::new(committed)))
    }

    /// A transaction that convicts or is refused: nobody can be punished for a receipt that was not
    /// found false.
    fn convicting(&self, first: Option<Call>, proof: Called) -> Vec<Call> {
        let (dispute, receipt) = (self.dispute, self.receipt);
        let ends =
            [Call::Prove(Box::new(proof)), Call::Punish { receipt }, Call::Close { dispute }];
        first.into_iter().chain(ends).collect()
    }

    /// Names a number that is right: one of the last position's last layer, so that a person sees a
    /// provider prove it.
    fn pretend(
        &self,
        subject: &Subject<'_>,
        trace: &dyn Retraced,
        standing: &Standing,
    ) -> Result<Plan, NoAnswer> {
        let claim = subject.claim;
        let op = claim.program.iter().rposition(|step| step.kind == Kind::Gate).unwrap_or(0) as u32;
        let place = Place { position: claim.positions().saturating_sub(1), op, leaf: 0 };
        let leaves = assay_evidence::op::leaves(&claim.layout(place.position, op));
        let to = Depths::of(claim).to_leaf(place, leaves);
        let mut known = Known::new(standing.trace);
        let mut way = Way::ROOT;
        while way.depth() < to.depth() {
            let nodes = fan(claim, trace, way)?;
            known.add(way, &nodes);
            let left = to.depth() - way.depth() - nodes.len().ilog2();
            way = to.up(left);
        }
        let branch = known.branch(standing.way, to).ok_or(NoAnswer::Nowhere(to))?;
        let accusation = Box::new(subject.accuse(op, 0, Doubt::Element)?);
        self.with_move(subject, trace, standing, Move::Name(branch, accusation))
    }

    /// The named number in words, with both values where they are known.
    fn explained(
        &self,
        subject: &Subject<'_>,
        trace: &dyn Retraced,
        way: Way,
        (node, element, doubt): (B256, u8, Doubt),
    ) -> Explanation {
        let place = place_of(subject, way);
        let own = trace.open(Source::Trace(place));
        let found = self.source.leaf(place);
        let found = found.filter(|data| assay_protocol::leaf_hash(data) == node);
        let values = match doubt {
            Doubt::Element => (own.as_deref(), found.as_deref()),
            _ => (None, None),
        };
        explain(subject, place, (element, doubt), None, values)
    }
}

/// The committed trace around a position: one's own, if that is what was committed to.
enum Around<'a> {
    Own(&'a dyn Trace),
    Theirs(Box<Committed<'a>>),
}

impl Around<'_> {
    fn trace(&self) -> &dyn Trace {
        match self {
            Self::Own(trace) => *trace,
            Self::Theirs(committed) => &**committed,
        }
    }

    /// The root of a leaf's position.
    fn here(&self, place: Place) -> Option<B256> {
        match self {
            Self::Own(trace) => Some(trace.spine().ops(place.position)?.root()),
            Self::Theirs(committed) => committed.here(),
        }
    }
}

/// Whether a number can be judged without a list of the provider's. Products can: their rows are read
/// whole instead.
fn is_provable_at_once(subject: &Subject<'_>, place: Place) -> bool {
    matches!(Rule::first(subject.claim, place), None | Some(Rule::Partials))
}

/// Where a branch leads to.
fn way_of(from: Way, turns: u128, levels: usize) -> Option<Way> {
    let levels = u32::try_from(levels).ok()?;
    let depth = from.depth().checked_add(levels).filter(|depth| *depth <= 127)?;
    Way::new(depth, from.turns() << levels | turns)
}

/// The leaf that a way leads to.
pub(crate) fn place_of(subject: &Subject<'_>, way: Way) -> Place {
    let depths = Depths::of(subject.claim);
    let below_op = way.depth().saturating_sub(depths.to_ops());
    let below_position = way.depth().saturating_sub(depths.positions);
    Place {
        position: way.up(below_position).turns() as u32,
        op: way.up(below_op).last(depths.ops) as u32,
        leaf: way.last(below_op),
    }
}
