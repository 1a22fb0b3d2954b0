//! What happens in a dispute, in words for people.
//!
//! From the chain alone: how many positions and ops a trace has is in the dispute, so every way down
//! says what it leads to. What a number should be takes the model ([`Story::number`]).

use assay_chain::{Dispute, Event};
use assay_engine::Loaded;
use assay_evidence::dispute::{Explanation, op_name};
use assay_evidence::op::Kind;
use assay_protocol::{Answer, Doubt, Focus, Phase, depth};

use crate::ledger::units;
use crate::terminal::grouped;

/// Steps of a layer in a program of family 0; one comes before all layers.
const STEPS_OF_LAYER: u32 = 27;
/// Steps of such a program that belong to no layer.
const STEPS_APART: u32 = 7;

/// A dispute that is told of.
pub(super) struct Story {
    positions: u32,
    steps: u32,
    /// The number that it came down to, if it is known better than the chain tells.
    pub(super) number: Option<Box<Explanation>>,
}

impl Story {
    /// The story of a dispute.
    pub(super) fn of(dispute: &Dispute) -> Self {
        Self { positions: dispute.positions, steps: dispute.steps, number: None }
    }

    /// The story of a dispute that an answer of this model would have.
    pub(super) fn expected(loaded: &Loaded, answer: &Answer) -> Self {
        let positions = answer.terms.prompt.len() + answer.output.len().saturating_sub(1);
        let steps = STEPS_OF_LAYER * loaded.model.shape().layers as u32 + STEPS_APART;
        Self { positions: positions as u32, steps, number: None }
    }

    /// One event in words; none for one that is not part of the story.
    pub(super) fn say(&self, event: &Event) -> Option<String> {
        Some(match event {
            Event::Disputed { owner, challenger, .. } => {
                format!("{challenger} doubts a receipt of {owner}, and puts in the bond")
            }
            Event::Committed { trace, .. } => {
                let (ops, positions) = (self.steps + 1, self.positions);
                format!(
                    "the provider commits to its computation, {positions} tokens of {ops} ops: {trace}"
                )
            }
            Event::Picked { depth, path, .. } => {
                format!("the challenger doubts {}", self.region((*depth).into(), *path))
            }
            Event::Revealed { nodes, .. } => {
                format!("the provider shows the {} hashes below", nodes.len())
            }
            Event::Asked { .. } => "the challenger asks to see a leaf".to_owned(),
            Event::Shown { leaf, .. } => format!("the provider shows it, {} bytes", leaf.len()),
            Event::Named { focus, .. } => {
                let number = match &self.number {
                    Some(number) => number.to_string(),
                    None => self.named(focus),
                };
                format!("the challenger names {number}")
            }
            Event::Listed { values, .. } => {
                format!("the provider reveals the list it follows from, {} bytes", values.len())
            }
            Event::Chosen { entry, .. } => format!("the challenger doubts entry {entry} of it"),
            Event::Decided { phase: Phase::Won, .. } => match &self.number {
                Some(number) => format!("judged: {number}"),
                None => "decided: the provider has lost".to_owned(),
            },
            Event::Decided { .. } => match &self.number {
                Some(number) => format!("judged, and it is right: {number}"),
                None => "decided: the challenger has lost".to_owned(),
            },
            Event::Convicted { .. } => "the receipt is false".to_owned(),
            Event::Excused { .. } => {
                "the receipt was false on purpose: bonds go back, and nobody is slashed".to_owned()
            }
            Event::Closed { to, bond, .. } => {
                format!("the bond of {} ASY goes to {to}", units(*bond))
            }
            Event::Slashed { owner, challenger, amount, reward, .. } => format!(
                "{} ASY of the stake of {owner} are taken: {} go to {challenger}, the rest is burned",
                units(*amount),
                units(*reward)
            ),
            Event::Jailed { owner, until } => {
                format!("{owner} may not serve until {until} (unix time)")
            }
            _ => return None,
        })
    }

    /// A named number, as far as the chain tells.
    fn named(&self, focus: &Focus) -> String {
        let what = match focus.doubt {
            Doubt::Element => format!("element {} of leaf {}", focus.element, grouped(focus.leaf)),
            Doubt::Link => "the token that was answered".to_owned(),
            Doubt::Kth => "the threshold of top-k".to_owned(),
            Doubt::Nucleus => "the threshold of top-p".to_owned(),
            Doubt::FinalState => "the receipt's last state".to_owned(),
        };
        format!("token {}, {}: {what}", focus.position, self.op(focus.op))
    }

    /// What a way leads to.
    fn region(&self, at: u32, path: u128) -> String {
        let (of_positions, of_ops) =
            (depth(self.positions.into()), depth(u64::from(self.steps) + 1));
        let last = |count: u32, index: u128| u128::from(count.saturating_sub(1)).min(index);
        if at < of_positions {
            let below = of_positions - at;
            let first = path << below;
            return between("token", first, last(self.positions, first + (1 << below) - 1));
        }
        let position = path >> (at - of_positions);
        let Some(in_leaves) = at.checked_sub(of_positions + of_ops) else {
            let below = of_positions + of_ops - at;
            let first = (path & ((1 << (at - of_positions)) - 1)) << below;
            let end = last(self.steps + 1, first + (1 << below) - 1);
            let (first, end) = (self.op(first as u32), self.op(end as u32));
            return format!("token {position}, {first} to {end}");
        };
        let op = (path >> in_leaves) & ((1 << of_ops) - 1);
        let op = self.op(op as u32);
        match in_leaves {
            0 => format!("token {position}, {op}"),
            _ => {
                let part = (path & ((1 << in_leaves) - 1)) + 1;
                format!("token {position}, {op}: part {part} of {}", 1u128 << in_leaves)
            }
        }
    }

    /// An op by its index.
    fn op(&self, index: u32) -> String {
        if index >= self.steps {
            return "op STATE".to_owned();
        }
        let in_layers = self.steps.saturating_sub(STEPS_APART);
        let (layer, code) = match index.checked_sub(1) {
            None => (None, 0),
            Some(after) if after < in_layers => {
                (Some(after / STEPS_OF_LAYER), 1 + after % STEPS_OF_LAYER)
            }
            Some(after) => (None, 1 + STEPS_OF_LAYER + (after - in_layers)),
        };
        let name = Kind::ALL.get(code as usize).map_or("?", |kind| op_name(*kind));
        match layer {
            Some(layer) => format!("layer {layer}, op {name}"),
            None => format!("op {name}"),
        }
    }
}

fn between(what: &str, first: u128, last: u128) -> String {
    if first == last { format!("{what} {first}") } else { format!("{what}s {first} to {last}") }
}

/// What an event is called in JSON.
pub(super) fn name(event: &Event) -> &'static str {
    match event {
        Event::Disputed { .. } => "opened",
        Event::Committed { .. } => "committed",
        Event::Picked { .. } => "picked",
        Event::Revealed { .. } => "revealed",
        Event::Asked { .. } => "asked",
        Event::Shown { .. } => "shown",
        Event::Named { .. } => "named",
        Event::Listed { .. } => "listed",
        Event::Chosen { .. } => "chosen",
        Event::Decided { .. } => "decided",
        Event::Convicted { .. } => "convicted",
        Event::Excused { .. } => "excused",
        Event::Closed { .. } => "closed",
        Event::Slashed { .. } => "slashed",
        Event::Jailed { .. } => "jailed",
        _ => "other",
    }
}

/// Where a dispute stands, in a few words.
pub(super) fn stands(phase: Phase) -> &'static str {
    match phase {
        Phase::None => "none",
        Phase::Commit => "the provider owes its root",
        Phase::Pick => "the challenger owes a pick",
        Phase::Reveal => "the provider owes nodes",
        Phase::Prove => "the provider owes a proof",
        Phase::Choose => "the challenger owes a choice",
        Phase::Lost | Phase::Forfeited => "the challenger lost",
        Phase::Won | Phase::Returned => "the provider lost",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 40 positions of a model of three layers: depths 6 and 7.
    fn check(depth: u32, path: u128, expected: &str) {
        let story = Story { positions: 40, steps: 3 * STEPS_OF_LAYER + STEPS_APART, number: None };
        assert_eq!(story.region(depth, path), expected);
    }

    #[test]
    fn a_way_down_is_said_by_what_it_leads_to() {
        check(4, 9, "tokens 36 to 39");
        check(2, 2, "tokens 32 to 39");
        check(6, 37, "token 37, op EMBED to op STATE");
        check(10, 37 << 4 | 9, "token 37, layer 2, op RES1 to layer 2, op AQy");
        check(10, 37 << 4 | 10, "token 37, layer 2, op DOWN to op TOKEN");
        check(13, 37 << 7 | 76, "token 37, layer 2, op GATE");
        check(17, 37 << 11 | 76 << 4 | 15, "token 37, layer 2, op GATE: part 16 of 16");
        check(13, 37 << 7 | 88, "token 37, op STATE");
        check(13, 37 << 7 | 87, "token 37, op TOKEN");
    }
}
