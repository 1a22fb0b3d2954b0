//! Cheats: one number of a trace is another one, and the provider plays on from there.

use std::collections::HashMap;

use assay_evidence::dispute::{NodeSource, Subject, op_name};
use assay_evidence::op::{Kind, Place, RecomputeError, Ruling, Section, judge, leaves, recompute};
use assay_protocol::{Doubt, Phase};

use crate::judges::{Gas, elements, flipped};
use crate::play::{End, Manner, Server, play};
use crate::stage::{Full, Stage};

/// Where numbers are changed, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) place: Place,
    pub(crate) element: u8,
    bit: usize,
}

/// One change for the first and the last leaf of every section of every op, in the first and the
/// last layer and outside layers, at these positions; in some leaves of what fills them up.
pub(crate) fn changes(stage: &Stage, positions: &[u32], all: bool) -> Vec<Change> {
    let claim = stage.world.claim();
    let layers = stage.filed.manifest.shape.layers;
    let mut found = Vec::new();
    for &position in positions {
        for op in 0..claim.ops() {
            let layer = op.saturating_sub(1) / 27;
            if !all && layer > 0 && layer + 1 < layers {
                continue;
            }
            let mut first = 0;
            for section in claim.layout(position, op).sections() {
                let count = section.leaves();
                let mut within: Vec<u64> = (0..count).collect();
                if !all {
                    within.retain(|leaf| *leaf == 0 || *leaf + 1 == count);
                }
                for leaf in within {
                    let place = Place { position, op, leaf: first + leaf };
                    found.extend(change(stage, place, section, leaf, found.len()));
                }
                first += count;
            }
        }
    }
    found
}

/// Most often an element that the section has, sometimes one that fills up its leaf.
fn change(stage: &Stage, place: Place, section: Section, leaf: u64, turn: usize) -> Option<Change> {
    let bytes = stage.trace.leaf(place).len();
    let each = if bytes == 136 { 128 } else { 32 };
    let held = section.elements - (each * leaf).min(section.elements);
    let has = if bytes == 136 { held.div_ceil(32).min(4) } else { held.min(32) } as u8;
    let all = elements(bytes);
    let element = match turn % 7 {
        0 if has < all => has + turn as u8 % (all - has),
        1 => 0,
        2 => has - 1,
        _ => turn as u8 % has,
    };
    Some(Change { place, element, bit: turn * 5 })
}

impl Change {
    pub(crate) fn made<'a>(&self, stage: &Stage, honest: &Full<'a>) -> Full<'a> {
        let data = flipped(honest.data(self.place), self.element, self.bit);
        honest.with(stage, HashMap::from([(self.place, data)]))
    }
}

/// Has a change convicted; how it went.
pub(crate) fn convicted(
    stage: &Stage,
    subject: Subject<'_>,
    honest: &Full<'_>,
    change: Change,
    served: bool,
    manner: Manner,
) -> End {
    let tampered = change.made(stage, honest);
    let server =
        Server { claim: subject.claim, trace: &tampered, nodes: true, leaves: true, lies: false };
    let source: Option<&dyn NodeSource> = if served { Some(&server) } else { None };
    let end = play(stage, subject, &tampered, honest, source, manner);
    assert_eq!(end.phase, Phase::Won, "{change:?} {manner:?} {end:?}");
    let focus = end.focus.unwrap();
    let found = Place { position: focus.position, op: focus.op, leaf: focus.leaf };
    let place = change.place;
    let ruling = judge(subject.claim, &tampered, place, change.element.into());
    if ruling == Ok(Ruling::Advice) {
        assert_eq!((found.position, found.op), (place.position, place.op), "{change:?}");
        assert!(found.leaf > place.leaf, "{change:?} {end:?}");
    } else {
        assert_eq!((found, focus.element), (place, change.element), "{end:?}");
        assert_eq!(focus.doubt, Doubt::Element);
    }
    end
}

/// Has many changes convicted, each in a way of its own; the gas of the proofs.
pub(crate) fn all_convicted(stage: &Stage, changes: &[Change]) -> (u32, Gas) {
    let honest = stage.full();
    let (mut count, mut gas) = (0, Gas::new());
    stage.about(|subject| {
        for (turn, change) in changes.iter().enumerate() {
            let manner = match turn % 3 {
                1 => Manner::FalseLists,
                _ if turn % 19 == 0 => Manner::Silent,
                _ => Manner::Best,
            };
            // Without a server advice cannot be told.
            let step = subject.claim.program.get(change.place.op as usize);
            let sampler = step.is_some_and(|step| step.kind == Kind::Sample);
            let end = convicted(stage, subject, &honest, *change, sampler || turn % 4 > 0, manner);
            let name = step.map_or("STATE", |step| op_name(step.kind));
            let most = gas.entry((name, end.lists as usize)).or_default();
            *most = end.proof_gas.max(*most);
            count += 1;
        }
    });
    (count, gas)
}

/// A trace under advice that is not the honest one, with everything that follows from it in
/// order: only a check can tell. Nothing if a rule refuses to follow.
pub(crate) fn advised<'a>(
    stage: &Stage,
    honest: &Full<'a>,
    place: Place,
    word: u64,
) -> (Full<'a>, bool) {
    let claim = stage.world.claim();
    let mut trace = stage.trace.clone();
    let mut changed = HashMap::new();
    let data = assay_evidence::op::WideLeaf::write(&[word]).to_vec();
    trace.replace(place, data.clone());
    changed.insert(place, data);
    let later = (place.op..claim.ops()).flat_map(|op| {
        (0..leaves(&claim.layout(place.position, op))).map(move |leaf| Place { op, leaf, ..place })
    });
    let mut refused = false;
    for next in later.filter(|next| (next.op, next.leaf) > (place.op, place.leaf)) {
        match recompute(&claim, &trace, next) {
            Ok(Some(data)) => {
                trace.replace(next, data.clone());
                changed.insert(next, data);
            }
            Ok(None) => {}
            Err(RecomputeError::Refused(_)) => refused = true,
            Err(error) => panic!("{error}"),
        }
    }
    (honest.with(stage, changed), refused)
}
