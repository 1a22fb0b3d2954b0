//! The judges on chain beside the rules in Rust: every kind of number of whole traces.

use std::collections::{BTreeMap, HashMap};

use assay_evidence::dispute::{
    Defender, Move, Proof, Standing, Subject, Trace as _, op_name, point_of,
};
use assay_evidence::op::{self, Kind, Place, Ruling, leaves};
use assay_protocol::{Doubt, Focus, Phase, Round, leaf_hash};

use crate::stage::{Full, Stage};
use crate::words::{self, IJudge};

/// Most gas that a judgement took, by op and number of rounds.
pub(crate) type Gas = BTreeMap<(&'static str, usize), u64>;

/// Elements of a leaf with so many bytes.
pub(crate) fn elements(bytes: usize) -> u8 {
    match bytes {
        136 => 4,
        32 => 1,
        _ => 32,
    }
}

/// The focus on an element of a trace.
pub(crate) fn focus_on(
    subject: &Subject<'_>,
    trace: &Full<'_>,
    place: Place,
    element: u8,
    doubt: Doubt,
) -> Focus {
    let node = leaf_hash(trace.data(place));
    let here = trace.spine().ops(place.position).unwrap().root();
    subject.focus(place, (node, here), element, doubt).unwrap()
}

/// What the defender brings for a focus if the challenger chooses these entries.
pub(crate) fn proof_of(
    subject: &Subject<'_>,
    trace: &Full<'_>,
    focus: Focus,
    whole_rows: u64,
    entry: u32,
) -> Result<Proof, assay_evidence::dispute::NoAnswer> {
    let defender = Defender::new(*subject, trace).with_whole_rows(whole_rows);
    let mut standing = Standing { phase: Phase::Prove, focus: Some(focus), ..Default::default() };
    loop {
        standing.point = point_of(&focus, &standing.rounds, standing.rounds.len());
        match defender.answer(&standing)?.unwrap() {
            Move::List(list) => {
                // Entries as far as the list has some.
                standing.rounds.push(Round { list, entry });
            }
            Move::Prove(proof) => return Ok(*proof),
            other => panic!("{other:?}"),
        }
    }
}

/// What the judge on chain says of an element of a trace.
pub(crate) fn judged(
    stage: &mut crate::court::Court,
    trace: &Full<'_>,
    proof: &Proof,
) -> (Result<bool, Vec<u8>>, u64) {
    stage.judge(&IJudge::judgeCall {
        trace: trace.spine().root(),
        focus: words::focus(&proof.focus),
        facts: proof.facts.clone().into(),
        rounds: proof.rounds.iter().map(words::round).collect(),
        openings: proof.openings.iter().map(words::opening).collect(),
    })
}

/// A leaf with one bit of an element flipped.
pub(crate) fn flipped(data: &[u8], element: u8, bit: usize) -> Vec<u8> {
    let mut data = data.to_vec();
    let (first, size) = match data.len() {
        136 => (8 + 32 * usize::from(element), 32),
        32 => (0, 32),
        bytes => (bytes / 32 * usize::from(element), bytes / 32),
    };
    // A number −128 would be refused, not judged.
    let mask = 1 << (bit % 8);
    let at = first + bit / 8 % size;
    data[at] ^= mask;
    if data.len() == 136 && data[at] == 0 {
        data[at] ^= mask | (mask ^ 0xff);
    }
    data
}

/// Has every element that `wanted` names judged, honest and flipped, by both.
pub(crate) fn both_judge(
    stage: &Stage,
    positions: &[u32],
    wanted: impl Fn(Place, u8) -> bool,
    flip: bool,
) -> (u32, Gas) {
    let full = stage.full();
    let mut court = stage.court.clone();
    let (mut count, mut gas) = (0, Gas::new());
    stage.about(|subject| {
        let claim = subject.claim;
        for &position in positions {
            for op in 0..claim.ops() {
                let kind = claim.program.get(op as usize).map(|step| step.kind);
                for leaf in 0..leaves(&claim.layout(position, op)) {
                    let place = Place { position, op, leaf };
                    for element in 0..elements(full.data(place).len()) {
                        if !wanted(place, element) {
                            continue;
                        }
                        count += 1;
                        for whole_rows in [0, u64::MAX] {
                            if whole_rows > 0 && !kind.is_some_and(is_product) {
                                continue;
                            }
                            let focus = focus_on(&subject, &full, place, element, Doubt::Element);
                            let entry = count % 3;
                            let proof =
                                proof_of(&subject, &full, focus, whole_rows, entry).unwrap();
                            let (said, used) = judged(&mut court, &full, &proof);
                            assert_eq!(said, Ok(true), "{place:?} {element}: {:?}", kind);
                            let name = kind.map_or("STATE", op_name);
                            let most = gas.entry((name, proof.rounds.len())).or_default();
                            *most = used.max(*most);
                        }
                        if flip {
                            judge_flipped(stage, &subject, &full, place, element, count as usize);
                        }
                    }
                }
            }
        }
    });
    (count, gas)
}

/// A flipped element is wrong to both, if it is not advice.
fn judge_flipped(
    stage: &Stage,
    subject: &Subject<'_>,
    full: &Full<'_>,
    place: Place,
    element: u8,
    bit: usize,
) {
    let data = flipped(full.data(place), element, bit);
    let other = full.with(stage, HashMap::from([(place, data)]));
    let focus = focus_on(subject, &other, place, element, Doubt::Element);
    let ruling = op::judge(subject.claim, &other, place, element.into());
    let mut court = stage.court.clone();
    match ruling {
        Ok(ruling) => {
            let proof = proof_of(subject, &other, focus, 0, 0).unwrap();
            let right = !matches!(ruling, Ruling::Wrong { .. });
            let (said, _) = judged(&mut court, &other, &proof);
            assert_eq!(said, Ok(right), "{place:?} {element} flipped: {ruling:?}");
        }
        Err(error) => panic!("{place:?} {element}: {error}"),
    }
}

pub(crate) fn is_product(kind: Kind) -> bool {
    use Kind::{AttentionOutput, Down, Gate, Key, Logits, Query, Up, Value};
    [Query, Key, Value, AttentionOutput, Gate, Up, Down, Logits].contains(&kind)
}
