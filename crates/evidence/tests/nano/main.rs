//! The rules against the real engine: every number that the model that ships computes, judged.
//!
//! A plain trace is written leaf by leaf from the rules alone, and must hold the numbers that the
//! forward pass shows. Then single numbers of it are changed, everywhere.

#![allow(clippy::unwrap_used, reason = "a test may stop with a panic")]

#[path = "../judge/chain.rs"]
mod chain;
mod known;
mod trace;
mod world;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;

use alloy_sol_types::{SolCall, sol};
use assay_evidence::op::{
    Check, FixedLeaf, Kind, Openings, Place, RecomputeError, Revealed, Round, Ruling, Source,
    WideLeaf, check, judge, leaves, recompute,
};
use assay_models::OpKind;
use assay_protocol::{B256, Draws, State, U256, depth, hidden_hash, leaf_hash};

use crate::chain::Chain;
use crate::known::{AWKWARD, Known, NANO};
use crate::trace::Trace;
use crate::world::{Choices, World, greedy, penalised, plain, sampled};

/// Every check that holds or not beside a number.
const CHECKS: [(Kind, Check); 3] =
    [(Kind::Token, Check::Link), (Kind::Sample, Check::Kth), (Kind::Sample, Check::Nucleus)];

fn answer(choices: &Choices, prompt: usize, output: usize) -> World {
    World::answer(&NANO, choices, prompt, output)
}

/// Compares what the forward pass showed with the leaves that the rules wrote.
fn compare(world: &World, trace: &Trace) {
    let mut compared = 0;
    for ((position, op), shown) in &world.shown {
        let op = world.op(*op);
        let written: Vec<&[u8]> = trace.leaves(world, *position, op).collect();
        let expected: Vec<&[u8]> = shown.iter().map(Vec::as_slice).collect();
        assert_eq!(written, expected, "position {position}, op {op}");
        compared += shown.len();
    }
    assert!(compared > 1000, "{compared} leaves were compared");
}

/// The tokens, and the state that a receipt would bind.
fn ends_as_signed(world: &World, trace: &Trace) {
    let claim = world.claim();
    let token = claim.program.iter().position(|step| step.kind == Kind::Token).unwrap() as u32;
    let mut state = State(claim.order);
    for (index, (answered, hidden)) in world.output.iter().zip(&world.hidden).enumerate() {
        let position = (world.prompt.len() - 1 + index) as u32;
        for (kind, what) in CHECKS {
            let op = claim.program.iter().position(|step| step.kind == kind).unwrap() as u32;
            assert_eq!(check(&claim, trace, position, op, what), Ok(true), "{what:?}");
        }
        let leaf = trace.leaf(Place { position, op: token, leaf: 0 });
        assert!(WideLeaf::read(leaf).unwrap().0.contains(&u64::from(*answered)));
        state = state.next(*answered, hidden_hash(&hidden.0, &hidden.1));
        let leaf = trace.leaf(Place { position, op: token + 1, leaf: 0 });
        assert_eq!(leaf, state.0.as_slice(), "state after token {index}");
    }
}

#[test]
fn the_rules_give_what_the_engine_computes() {
    // 63, 64 and 65 attended positions lie at the edge of a block.
    for (choices, prompt, output) in
        [(greedy(), 60, 7), (sampled(), 30, 5), (penalised(), 33, 5), (plain(), 1, 3)]
    {
        agrees(&NANO, &choices, prompt, output);
    }
}

#[test]
fn the_rules_give_what_the_engine_computes_at_awkward_sizes() {
    for (choices, prompt, output) in [(greedy(), 64, 4), (sampled(), 5, 5), (penalised(), 9, 5)] {
        agrees(&AWKWARD, &choices, prompt, output);
    }
}

/// Answers, writes the trace from the rules, and compares.
fn agrees(known: &'static Known, choices: &Choices, prompt: usize, output: usize) {
    let world = World::answer(known, choices, prompt, output);
    let trace = Trace::write(&world);
    compare(&world, &trace);
    ends_as_signed(&world, &trace);
}

#[test]
fn the_codes_of_steps_are_those_of_the_program() {
    for (code, kind) in (0..).zip(Kind::ALL) {
        assert_eq!(kind as u32, code);
    }
    let last = OpKind::Token as u32;
    assert_eq!(Kind::ALL.len() as u32, last + 1);
    let world = answer(&plain(), 1, 1);
    for (step, read) in world.steps.iter().zip(&world.program) {
        assert_eq!(format!("{:?}", step.op.kind), format!("{:?}", read.kind));
    }
}

#[test]
fn the_key_of_draws_is_the_orders() {
    let world = answer(&sampled(), 3, 3);
    let draws = Draws::new(&world.order, &world.sampler);
    for index in [0, 1, 77, u32::MAX] {
        let found = assay_evidence::op::uniform(world.claim().draw_key, index);
        assert_eq!(found, draws.uniform(index, 0));
    }
}

/// Flips a bit of one element in every leaf of some positions, one at a time: the rule of that
/// leaf must give another leaf than the flipped one, from a trace that is honest before it.
fn every_flip_is_seen(world: World, positions: &[u32]) {
    let claim = world.claim();
    let mut trace = Trace::write(&world);
    let mut flips = 0u32;
    for &position in positions {
        for op in 0..claim.ops() {
            for leaf in 0..leaves(&claim.layout(position, op)) {
                let place = Place { position, op, leaf };
                let honest = trace.leaf(place).to_vec();
                let mut flipped = honest.clone();
                // Another byte each time, so that every place of a leaf has its turn.
                let byte = flips as usize * 37 % honest.len();
                flipped[byte] ^= 1 << (flips % 8);
                flips += 1;
                trace.replace(place, flipped.clone());
                let rulings = wrong_elements(&world, &trace, place);
                match recompute(&claim, &trace, place) {
                    Ok(Some(said)) => {
                        assert_eq!(said, honest, "the rule of {place:?} reads what it judges");
                        assert_ne!(said, flipped);
                        let step = claim.program.get(op as usize);
                        let draw = step.is_some_and(|step| step.kind == Kind::Token);
                        assert!(rulings == 1 || draw && rulings > 1, "{rulings} wrong, {place:?}");
                    }
                    // Advice has no rule of its own; what follows from it betrays it.
                    Ok(None) => assert!(betrayed(&world, &trace, place), "advice at {place:?}"),
                    Err(error) => panic!("{place:?}: {error}"),
                }
                trace.replace(place, honest);
            }
        }
    }
    assert!(flips > 500, "{flips} flips");
}

/// How many elements of a leaf a judge finds wrong. The words of a draw follow from each other, so
/// there it may be several, or a rule may refuse what follows from a flipped one.
fn wrong_elements(world: &World, trace: &Trace, place: Place) -> usize {
    let claim = world.claim();
    let elements = match trace.leaf(place).len() {
        136 => 4,
        32 => 1,
        _ => 32,
    };
    let wrong = |element: &usize| match judge(&claim, trace, place, *element) {
        Ok(Ruling::Wrong { expected, found }) => expected != found,
        Ok(Ruling::Right | Ruling::Advice) => false,
        Err(_) => false,
    };
    (0..elements).filter(wrong).count()
}

/// Whether the leaves after a piece of advice, written anew under it, fail a check, or a rule
/// refuses them.
fn betrayed(world: &World, trace: &Trace, advice: Place) -> bool {
    let claim = world.claim();
    let mut trace = trace.clone();
    for leaf in advice.leaf + 1..leaves(&claim.layout(advice.position, advice.op)) {
        let place = Place { leaf, ..advice };
        match recompute(&claim, &trace, place) {
            Ok(Some(said)) => trace.replace(place, said),
            Ok(None) => {}
            Err(RecomputeError::Refused(_)) => return true,
            Err(error) => panic!("{place:?}: {error}"),
        }
    }
    [Check::Kth, Check::Nucleus]
        .into_iter()
        .any(|what| check(&claim, &trace, advice.position, advice.op, what) == Ok(false))
        // Words of the leaf beyond the advice itself are zero by rule.
        || WideLeaf::read(trace.leaf(advice)).unwrap().0[1..] != [0; 31]
}

#[test]
fn every_flipped_number_is_seen() {
    every_flip_is_seen(answer(&sampled(), 6, 3), &[0, 1, 2, 3, 4, 5, 6, 7]);
    every_flip_is_seen(answer(&penalised(), 40, 2), &[31, 32, 39, 40]);
    every_flip_is_seen(answer(&greedy(), 64, 2), &[63, 64]);
    every_flip_is_seen(World::answer(&AWKWARD, &penalised(), 3, 2), &[0, 2, 3]);
}

#[test]
fn another_answer_breaks_the_link() {
    let mut world = answer(&greedy(), 5, 3);
    let trace = Trace::write(&world);
    world.output[2] ^= 1;
    let claim = world.claim();
    let op = claim.program.iter().position(|step| step.kind == Kind::Token).unwrap() as u32;
    assert_eq!(check(&claim, &trace, 4, op, Check::Link), Ok(true));
    assert_eq!(check(&claim, &trace, 6, op, Check::Link), Ok(false));
}

#[test]
fn what_is_missing_or_malformed_is_named() {
    let world = answer(&greedy(), 4, 2);
    let claim = world.claim();
    let mut trace = Trace::write(&world);
    let beyond = Place { position: 5, op: 0, leaf: 0 };
    assert_eq!(recompute(&claim, &trace, beyond), Err(RecomputeError::Nowhere(beyond)));
    let silent = Place { position: 0, op: claim.ops() - 1, leaf: 0 };
    assert_eq!(recompute(&claim, &trace, silent), Err(RecomputeError::Nowhere(silent)));
    let read = Place { position: 2, op: 3, leaf: 0 };
    let reader = Place { position: 2, op: 4, leaf: 0 };
    assert_eq!(claim.program[4].inputs[0], 3);
    trace.replace(read, vec![0; 136]);
    let refused = recompute(&claim, &trace, reader).unwrap_err();
    assert_eq!(refused.to_string(), "group 0 has scale 0");
    trace.remove(read);
    let missing = recompute(&claim, &trace, reader).unwrap_err();
    assert_eq!(missing, RecomputeError::Missing(Source::Trace(read)));
}

/// Notes which leaves are read.
struct Noting<'a> {
    trace: &'a Trace,
    read: RefCell<HashSet<Source>>,
}

impl Openings for Noting<'_> {
    fn open(&self, source: Source) -> Option<Cow<'_, [u8]>> {
        self.read.borrow_mut().insert(source);
        self.trace.open(source)
    }
}

/// Most leaves that one element is computed from, its own included; what a round of revealed
/// numbers replaces is not counted.
#[test]
fn an_element_reads_few_leaves() {
    let world = answer(&sampled(), 40, 2);
    let claim = world.claim();
    let trace = Trace::write(&world);
    let position = 40;
    for op in 0..claim.ops() {
        let most = match claim.program.get(op as usize).map(|step| step.kind) {
            // Partial sums are revealed; one of them reads one leaf of each.
            Some(kind) if is_product(kind) => continue,
            // Scales and sums are revealed.
            Some(Kind::BlockShift | Kind::Attend) => continue,
            // Itself, two of the input, two of the angles.
            Some(Kind::RopeQuery | Kind::RopeKey) => 5,
            // Itself, the leaf that is reduced, and up to three thresholds.
            Some(Kind::Sample) => 5,
            // Itself, the levels of the tree, the logits, and thresholds.
            Some(Kind::Token) => 7,
            // Itself, the state before, the token, the vector.
            None => 3 + claim.model.width.div_ceil(128) as usize,
            Some(_) => 4,
        };
        for leaf in 0..leaves(&claim.layout(position, op)) {
            let place = Place { position, op, leaf };
            let elements = if trace.leaf(place).len() == 136 { 4 } else { 1 };
            for element in 0..elements {
                let noting = Noting { trace: &trace, read: RefCell::default() };
                assert!(matches!(
                    judge(&claim, &noting, place, element),
                    Ok(Ruling::Right | Ruling::Advice)
                ));
                let read = noting.read.into_inner();
                assert!(read.len() <= most, "{place:?} reads {read:?}");
            }
        }
    }
}

fn is_product(kind: Kind) -> bool {
    use Kind::{AttentionOutput, Down, Gate, Key, Logits, Query, Up, Value};
    [Query, Key, Value, AttentionOutput, Gate, Up, Down, Logits].contains(&kind)
}

/// Whatever a stranger commits to, a rule gives a number or refuses; it never breaks.
#[test]
fn no_leaf_breaks_a_rule() {
    for (choices, position) in [(sampled(), 7), (penalised(), 20), (greedy(), 3)] {
        let world = answer(&choices, position as usize + 1, 1);
        let claim = world.claim();
        let mut trace = Trace::write(&world);
        let fills = [0x00, 0x7f, 0x80, 0xff, 0x01];
        let (mut given, mut refused) = (0, 0);
        for op in 0..claim.ops() {
            for leaf in 0..leaves(&claim.layout(position, op)).min(3) {
                let place = Place { position, op, leaf };
                let honest = trace.leaf(place).to_vec();
                for (round, fill) in (leaf as usize..).zip(fills) {
                    let mut wild = vec![fill; honest.len()];
                    if round % 2 == 1 {
                        // Half of it is as it was.
                        let half = honest.len() / 2;
                        wild[..half].copy_from_slice(&honest[..half]);
                    }
                    trace.replace(place, wild);
                    let reads = |reader: &u32| {
                        let step = claim.program.get(*reader as usize);
                        *reader == op || step.is_none_or(|step| step.inputs.contains(&op))
                    };
                    for op in (op..claim.ops()).filter(reads) {
                        for leaf in 0..leaves(&claim.layout(position, op)).min(8) {
                            match recompute(&claim, &trace, Place { position, op, leaf }) {
                                Ok(_) => given += 1,
                                Err(RecomputeError::Missing(source)) => panic!("{source:?}"),
                                Err(_) => refused += 1,
                            }
                        }
                    }
                }
                trace.replace(place, honest);
            }
        }
        assert!(given > 1000 && refused > 100, "{given} given, {refused} refused");
    }
}

sol! {
    function root(bytes data, uint256 index, bytes32[] proof) external returns (bytes32);
}

/// What the contract says that an opening leads to.
fn root_on_chain(chain: &mut Chain, data: &[u8], index: u64, proof: Vec<B256>) -> B256 {
    let data = data.to_vec().into();
    let call = rootCall { data, index: U256::from(index), proof }.abi_encode();
    rootCall::abi_decode_returns(&chain.call(&call).0.unwrap()).unwrap()
}

#[test]
fn every_leaf_opens_on_chain() {
    let world = answer(&sampled(), 4, 3);
    let claim = world.claim();
    let trace = Trace::write(&world);
    let spine = trace.spine(&world);
    let mut chain = Chain::new();
    let mut opened = 0;
    for position in 0..claim.positions() {
        for op in 0..claim.ops() {
            let nodes = trace.nodes(&world, position, op);
            let count = leaves(&claim.layout(position, op));
            assert_eq!(nodes.depth(), depth(count));
            for leaf in (0..count).step_by(7) {
                let place = Place { position, op, leaf };
                let (index, proof) = spine.open(place, &nodes);
                let found = root_on_chain(&mut chain, trace.leaf(place), index, proof.clone());
                assert_eq!(found, spine.root(), "{place:?}");
                // Another place leads elsewhere, unless equal data stand there; other data do.
                let other = root_on_chain(&mut chain, trace.leaf(place), index ^ 1, proof.clone());
                let equal = proof[0] == leaf_hash(trace.leaf(place));
                assert_eq!(other == spine.root(), equal, "{place:?}");
                let mut data = trace.leaf(place).to_vec();
                data[0] ^= 1;
                assert_ne!(root_on_chain(&mut chain, &data, index, proof), spine.root());
                opened += 1;
            }
        }
    }
    assert!(opened > 500, "{opened} leaves were opened");
}

/// The element that a leaf holds at a place of its own.
fn element_of(trace: &Trace, place: Place, element: usize) -> i64 {
    FixedLeaf::read(trace.leaf(place)).unwrap().0[element].into()
}

/// What is revealed gives the element, entry by entry from few leaves; a false entry that gives
/// another element is seen at that entry.
fn lists_give_elements(world: &World, position: u32) {
    let claim = world.claim();
    let trace = Trace::write(world);
    let mut lists = 0;
    for op in 0..claim.ops() {
        for leaf in 0..leaves(&claim.layout(position, op)) {
            let place = Place { position, op, leaf };
            let Some(round) = Round::first(&claim, place) else { continue };
            for element in [0, 7, 31] {
                let noting = Noting { trace: &trace, read: RefCell::default() };
                // Beyond what the section has there is nothing to reveal.
                let Ok(revealed) = Revealed::new(&claim, &noting, place, element, round) else {
                    assert_eq!(element_of(&trace, place, element), 0, "{place:?} {element}");
                    continue;
                };
                let list = revealed.list().unwrap();
                let expected = element_of(&trace, place, element);
                assert_eq!(revealed.gives(&list), Ok(expected), "{place:?} {element}");
                if round == Round::Sums {
                    let round = Round::Values { block: revealed.entries() as u32 - 1 };
                    let next = Revealed::new(&claim, &trace, place, element, round).unwrap();
                    let sum = next.gives(&next.list().unwrap()).unwrap();
                    assert_eq!(sum.to_be_bytes(), list[list.len() - 8..]);
                    assert!(
                        Revealed::new(
                            &claim,
                            &trace,
                            place,
                            element,
                            Round::Values { block: revealed.entries() as u32 }
                        )
                        .is_err()
                    );
                } else {
                    let before = noting.read.take();
                    revealed.entry(revealed.entries() - 1).unwrap();
                    assert!(noting.read.take().len() <= 2, "{place:?}");
                    assert!(!before.is_empty());
                }
                assert!(revealed.entry(revealed.entries()).is_err());
                assert!(revealed.gives(&list[1..]).is_err());
                lists += 1;
            }
        }
    }
    assert!(lists > 100, "{lists} lists");
}

#[test]
fn revealed_lists_give_what_was_committed() {
    lists_give_elements(&answer(&penalised(), 70, 2), 70);
    lists_give_elements(&World::answer(&AWKWARD, &penalised(), 66, 2), 65);
}
