//! The number that a dispute was decided by, in words.

use assay_chain::Proof;
use assay_court::Record;
use assay_evidence::dispute::{Explanation, explain};
use assay_evidence::op::{Place, Source};
use assay_protocol::Doubt;

/// The number that a proof had judged: what was committed as the proof opened it, and what it is in an
/// honest trace, which may be computed again for it. Call it where blocking is allowed.
pub fn judged(record: &Record, proof: &Proof) -> Box<Explanation> {
    let focus = proof.focus;
    let place = Place { position: focus.position, op: focus.op, leaf: focus.leaf };
    let entry = proof.rounds.last().map(|round| round.entry);
    record.about(|subject, trace| {
        let own = trace.open(Source::Trace(place));
        let found = proof.openings.first().map(|opening| &*opening.data);
        let values = match focus.doubt {
            Doubt::Element => (own.as_deref(), found),
            // What a check reads is not one number.
            _ => (None, None),
        };
        Box::new(explain(&subject, place, (focus.element, focus.doubt), entry, values))
    })
}
