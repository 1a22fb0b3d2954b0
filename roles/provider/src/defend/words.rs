//! A provider's moves in words, one line each.

use assay_court::Record;
use assay_evidence::dispute::{Move, Standing, explain};
use assay_evidence::op::Place;
use assay_protocol::Focus;

/// What a move says, made where the dispute stands.
pub(crate) fn say(record: &Record, standing: &Standing, play: &Move) -> String {
    match play {
        Move::Commit(root) => format!("committed to the trace {root}"),
        Move::Reveal(nodes) => {
            format!("showed {} nodes below level {}", nodes.len(), standing.way.depth())
        }
        Move::List(values) => {
            let number = number(record, standing.focus.as_ref(), standing);
            format!("listed, in {} bytes, what gives {number}", values.len())
        }
        Move::Prove(proof) => {
            format!("proved {}", number(record, Some(&proof.focus), standing))
        }
        other => format!("said {other:?}"),
    }
}

/// Which number a dispute is about.
fn number(record: &Record, focus: Option<&Focus>, standing: &Standing) -> String {
    let Some(focus) = focus else { return "a number".to_owned() };
    let place = Place { position: focus.position, op: focus.op, leaf: focus.leaf };
    let (doubted, entry) = ((focus.element, focus.doubt), standing.rounds.last().map(|r| r.entry));
    let own = record.leaf(place);
    record.about(|subject, _| {
        explain(&subject, place, doubted, entry, (None, own.as_deref())).to_string()
    })
}
