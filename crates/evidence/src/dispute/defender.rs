//! The defender: shows what follows from the root that it committed to.

use std::borrow::Cow;

use assay_protocol::{Doubt, Focus, Opening, Phase, Round, leaf_hash};

use super::error::NoAnswer;
use super::exhibits::{exhibits, is_product, needs_facts};
use super::known::branch;
use super::path::{End, Way, end_of, fan, node};
use super::standing::{Move, Proof, Standing};
use super::subject::Subject;
use super::trace::Trace;
use crate::op::{self, Place, Revealed, Source};

/// The side whose receipt is disputed, with the trace that it commits to.
///
/// Played from an honest trace it never loses; played from another one it is as hard to convict as
/// that trace allows.
#[derive(Clone, Copy)]
pub struct Defender<'a> {
    subject: Subject<'a>,
    trace: &'a dyn Trace,
    whole_rows_max: u64,
}

impl<'a> Defender<'a> {
    /// Leaves of a row up to which a product is proved at once. Beyond, a list and one leaf of each
    /// side cost less gas than the whole row.
    pub const WHOLE_ROWS_MAX: u64 = 8;

    /// A defender of this trace.
    pub fn new(subject: Subject<'a>, trace: &'a dyn Trace) -> Self {
        Self { subject, trace, whole_rows_max: Self::WHOLE_ROWS_MAX }
    }

    /// The same, proving at once products of rows of at most so many leaves.
    #[must_use]
    pub fn with_whole_rows(self, whole_rows_max: u64) -> Self {
        Self { whole_rows_max, ..self }
    }

    /// What the defender owes now; nothing if it is not its turn.
    ///
    /// # Errors
    /// If what stands on chain does not fit this claim or this trace. An honest defender that was
    /// told truly never sees one.
    pub fn answer(&self, standing: &Standing) -> Result<Option<Move>, NoAnswer> {
        Ok(match standing.phase {
            Phase::Commit => Some(Move::Commit(self.trace.spine().root())),
            Phase::Reveal => Some(match standing.asked {
                Some(way) => Move::Show(self.leaf(standing.way, way)?),
                None => Move::Reveal(fan(self.subject.claim, self.trace, standing.way)?),
            }),
            Phase::Prove => Some(self.prove(standing)?),
            _ => None,
        })
    }

    /// The leaf at `way` that was asked for, with its siblings up to `from`.
    fn leaf(&self, from: Way, way: Way) -> Result<Opening, NoAnswer> {
        let claim = self.subject.claim;
        let End::Leaf(place) = end_of(claim, way) else { return Err(NoAnswer::Nowhere(way)) };
        let source = Source::Trace(place);
        let data = self.trace.open(source).ok_or(NoAnswer::Missing(source))?.into_owned();
        let siblings = branch(from, way, |way| node(claim, self.trace, way));
        let proof = siblings.ok_or(NoAnswer::Nowhere(way))?.proof;
        Ok(Opening { data, proof })
    }

    fn prove(&self, standing: &Standing) -> Result<Move, NoAnswer> {
        let focus = *standing.checked_focus()?;
        self.check(&focus)?;
        if let Some(list) = self.list(&focus, &standing.rounds)? {
            return Ok(Move::List(list));
        }
        let rounds = standing.rounds.clone();
        let openings = exhibits(&self.subject, self.trace, &focus, &rounds)?;
        let facts = if needs_facts(&focus) { self.subject.facts.to_vec() } else { Vec::new() };
        Ok(Move::Prove(Box::new(Proof { focus, facts, rounds, openings })))
    }

    /// Refuses a focus that is not one of this trace.
    fn check(&self, focus: &Focus) -> Result<(), NoAnswer> {
        let place = place_of(focus);
        let kind = op::kind_at(self.subject.claim, place);
        if kind.is_none_or(|kind| usize::from(focus.element) >= kind.elements()) {
            return Err(NoAnswer::NoElement { place, element: focus.element });
        }
        let source = Source::Trace(place);
        let data = self.trace.open(source).ok_or(NoAnswer::Missing(source))?;
        let (found, expected) = (focus.node, leaf_hash(&data));
        if found == expected { Ok(()) } else { Err(NoAnswer::OtherTrace { found, expected }) }
    }

    /// The list that is owed next, if one is.
    fn list(&self, focus: &Focus, rounds: &[Round]) -> Result<Option<Vec<u8>>, NoAnswer> {
        let claim = self.subject.claim;
        let Some(round) = next_round(&self.subject, focus, rounds) else { return Ok(None) };
        let step = claim.program.get(focus.op as usize);
        let product = step.filter(|step| is_product(step.kind));
        let leaves = product.map(|step| u64::from(step.terms).div_ceil(128));
        if leaves.is_some_and(|leaves| leaves <= self.whole_rows_max) {
            return Ok(None);
        }
        match reveal(&self.subject, self.trace, focus, round) {
            Ok(revealed) => Ok(Some(revealed.list()?)),
            // A block that does not exist was chosen: any list will do, the challenger has lost.
            Err(_) if !rounds.is_empty() => Ok(Some(Vec::new())),
            Err(error) => Err(error),
        }
    }
}

/// The leaf that a focus is about.
pub(crate) fn place_of(focus: &Focus) -> Place {
    Place { position: focus.position, op: focus.op, leaf: focus.leaf }
}

/// The round that a named number has next; nothing once all were, or if its rule reads few leaves.
pub(crate) fn next_round(
    subject: &Subject<'_>,
    focus: &Focus,
    rounds: &[Round],
) -> Option<op::Round> {
    let (claim, place) = (subject.claim, place_of(focus));
    let first = op::Round::first(claim, place)?;
    // Adjusted logits are judged as such, whatever is doubted about them.
    let judged = focus.doubt == Doubt::Element || first == op::Round::Hits;
    let nothing = &Nothing;
    let exists = Revealed::new(claim, nothing, place, focus.element.into(), first).is_ok();
    if !judged || !exists {
        return None;
    }
    match rounds {
        [] => Some(first),
        [sums] if first == op::Round::Sums => Some(op::Round::Values { block: sums.entry }),
        _ => None,
    }
}

/// The list of a named number in a round, from a trace.
pub(crate) fn reveal<'a>(
    subject: &Subject<'a>,
    trace: &'a dyn Trace,
    focus: &Focus,
    round: op::Round,
) -> Result<Revealed<'a>, NoAnswer> {
    let openings: &'a dyn op::Openings = trace;
    Ok(Revealed::new(subject.claim, openings, place_of(focus), focus.element.into(), round)?)
}

/// Openings of nothing, to ask which elements exist.
struct Nothing;

impl op::Openings for Nothing {
    fn open(&self, _source: Source) -> Option<Cow<'_, [u8]>> {
        None
    }
}
