//! Whole disputes between the players, decided by the contracts that ship.
//!
//! Every number of a trace is changed in turn, and the cheat is convicted at exactly that number,
//! or where trace.md says; an honest trace is never convicted.

#![allow(clippy::unwrap_used, reason = "a test may stop with a panic")]

mod court;
mod filed;
mod judges;
#[path = "../nano/known.rs"]
mod known;
mod mutations;
mod offences;
mod play;
mod stage;
mod strategies;
mod tiny;
#[path = "../nano/trace.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod trace;
mod words;
#[path = "../nano/world.rs"]
#[allow(dead_code, reason = "shared with another test")]
mod world;

use std::collections::HashMap;

use assay_evidence::dispute::{Challenger, Defender, Next, NoAnswer, NodeSource, Standing, Way};
use assay_evidence::op::{Kind, Nodes, Place, leaves};
use assay_protocol::{B256, Doubt, Phase};

use crate::filed::{FILED_AWKWARD, FILED_NANO, FILED_TINY};
use crate::judges::{Gas, both_judge, focus_on, judged, proof_of};
use crate::mutations::{advised, all_convicted, changes};
use crate::play::{End, Game, Manner, Server, nothing, play};
use crate::stage::{Full, Stage};
use crate::strategies::{Dice, wild};
use crate::world::{greedy, penalised, plain, sampled};

/// Some elements of every leaf: the first, the last and one between.
fn some(place: Place, element: u8) -> bool {
    let turn = (place.leaf + u64::from(place.op)) as u8 % 29 + 1;
    (element == 0 && place.op.is_multiple_of(2)) || element == turn
}

#[test]
fn judges_on_chain_say_what_the_rules_say() {
    for (filed, choices, prompt, output, positions) in [
        (&FILED_NANO, sampled(), 3, 3, vec![2, 4]),
        // More than a block of attended positions, and more than 32 inputs that are counted.
        (&FILED_NANO, penalised(), 66, 2, vec![66]),
        // Records of two leaves.
        (&FILED_AWKWARD, sampled(), 2, 2, vec![0, 2]),
        (&FILED_AWKWARD, greedy(), 65, 1, vec![64]),
    ] {
        let stage = Stage::honest(filed, &choices, prompt, output);
        let (count, _) = both_judge(&stage, &positions, some, false);
        assert!(count > 500, "{count} numbers");
    }
}

#[test]
fn every_number_of_a_tiny_trace_is_judged_alike() {
    for (choices, flip) in [(greedy(), true), (sampled(), false), (penalised(), false)] {
        let stage = Stage::honest(&FILED_TINY, &choices, 2, 2);
        let (count, _) = both_judge(&stage, &[0, 1, 2], |_, _| true, flip);
        assert!(count > 2_000, "{count} numbers");
    }
}

/// Every doubt about every leaf that may be doubted that way.
#[test]
fn no_doubt_about_a_tiny_trace_wins() {
    for choices in [greedy(), plain(), sampled(), penalised()] {
        let stage = Stage::honest(&FILED_TINY, &choices, 2, 2);
        let full = stage.full();
        let mut court = stage.court.clone();
        stage.about(|subject| {
            let claim = subject.claim;
            for position in 1..claim.positions() {
                for op in claim.program.len() as u32 - 2..claim.ops() {
                    let kind = claim.program.get(op as usize).map(|step| step.kind);
                    let doubts: &[Doubt] = match kind {
                        Some(Kind::Sample) => &[Doubt::Kth, Doubt::Nucleus],
                        Some(_) => &[Doubt::Link],
                        None if position + 1 == claim.positions() => &[Doubt::FinalState],
                        None => &[],
                    };
                    for leaf in 0..leaves(&claim.layout(position, op)) {
                        for doubt in doubts {
                            let place = Place { position, op, leaf };
                            let focus = focus_on(&subject, &full, place, 0, *doubt);
                            let proof = proof_of(&subject, &full, focus, 0, 0).unwrap();
                            let (said, _) = judged(&mut court, &full, &proof);
                            assert_eq!(said, Ok(true), "{place:?} {doubt:?}");
                        }
                    }
                }
            }
        });
    }
}

#[test]
fn a_changed_number_is_convicted_wherever_it_stands() {
    for (filed, choices, prompt, output, positions) in [
        (&FILED_NANO, sampled(), 3, 3, vec![0, 2, 3, 4]),
        (&FILED_NANO, penalised(), 34, 2, vec![33, 34]),
        (&FILED_AWKWARD, sampled(), 2, 2, vec![0, 2]),
        (&FILED_AWKWARD, greedy(), 64, 2, vec![64]),
    ] {
        let stage = Stage::honest(filed, &choices, prompt, output);
        let changes = changes(&stage, &positions, false);
        let (count, _) = all_convicted(&stage, &changes);
        assert!(count > 200, "{count} changes");
    }
}

#[test]
fn no_wild_challenger_beats_an_honest_trace() {
    for (choices, prompt, output) in [(sampled(), 3, 2), (penalised(), 2, 3), (greedy(), 1, 1)] {
        let stage = Stage::honest(&FILED_TINY, &choices, prompt, output);
        let full = stage.full();
        let mut proved = 0;
        stage.about(|subject| {
            for seed in 0..150 {
                let end = wild(&stage, subject, &full, &mut Dice(seed));
                assert_eq!(end.phase, Phase::Lost, "seed {seed}: {end:?}");
                proved += u32::from(end.proof_gas > 0);
            }
        });
        assert!(proved > 50, "{proved} games came to a proof");
    }
}

/// Has a challenger dispute a receipt, with or without the provider's server.
fn disputed(stage: &Stage, committed: &Full<'_>, server: Option<(bool, bool, bool)>) -> End {
    let honest = stage.full();
    stage.about(|subject| {
        let served = server.map(|(nodes, leaves, lies)| Server {
            claim: subject.claim,
            trace: committed,
            nodes,
            leaves,
            lies,
        });
        let source = served.as_ref().map(|server| server as &dyn NodeSource);
        play(stage, subject, committed, &honest, source, Manner::Best)
    })
}

const SERVES: Option<(bool, bool, bool)> = Some((true, true, false));

#[test]
fn an_honest_provider_wins_by_agreement() {
    let stage = Stage::honest(&FILED_TINY, &sampled(), 2, 2);
    let honest = stage.full();
    stage.about(|subject| {
        let challenger = Challenger::new(subject, &honest);
        assert_eq!(challenger.doubts(), Ok(None));
    });
    let end = disputed(&stage, &honest, SERVES);
    assert_eq!((end.phase, end.silent), (Phase::Lost, true), "the challenger has nothing to say");
}

#[test]
fn another_token_breaks_the_link() {
    for (choices, index) in [(greedy(), 0), (sampled(), 1), (penalised(), 2)] {
        let stage = Stage::honest(&FILED_TINY, &choices, 2, 3);
        let token = (stage.world.output[index] + 1) % 32;
        let stage = stage.with_output(index, token);
        let honest = stage.full();
        let doubts = stage.about(|subject| Challenger::new(subject, &honest).doubts());
        let (place, doubt) = doubts.unwrap().unwrap();
        assert_eq!((place.position, doubt), (1 + index as u32, Doubt::Link));
        let end = disputed(&stage, &honest, None);
        let focus = end.focus.unwrap();
        assert_eq!((end.phase, focus.doubt), (Phase::Won, Doubt::Link), "{end:?}");
        assert_eq!(focus.position, place.position);
        assert_eq!(end.reveals, 0, "the trace is its own, so no node has to be asked for");
    }
}

#[test]
fn another_state_is_not_the_last() {
    let state = B256::repeat_byte(0x77);
    let stage = Stage::honest(&FILED_TINY, &greedy(), 2, 2).with_state(state);
    let honest = stage.full();
    let end = disputed(&stage, &honest, None);
    assert_eq!((end.phase, end.focus.unwrap().doubt), (Phase::Won, Doubt::FinalState));
    // A trace that ends in it is wrong there.
    let claim = stage.world.claim();
    let place = Place { position: claim.positions() - 1, op: claim.ops() - 1, leaf: 0 };
    let tampered = honest.with(&stage, HashMap::from([(place, state.to_vec())]));
    let end = disputed(&stage, &tampered, SERVES);
    assert_eq!((end.phase, end.focus.unwrap().doubt), (Phase::Won, Doubt::Element));
}

#[test]
fn false_advice_fails_its_check_or_nothing_can_follow_from_it() {
    let stage = Stage::honest(&FILED_NANO, &sampled(), 2, 2);
    let honest = stage.full();
    let claim = stage.world.claim();
    let op = claim.program.iter().position(|step| step.kind == Kind::Sample).unwrap() as u32;
    let count = leaves(&claim.layout(1, op));
    let mut met = Vec::new();
    for leaf in 0..count {
        let place = Place { position: 1, op, leaf };
        let ruling = stage.about(|s| assay_evidence::op::judge(s.claim, &honest, place, 0));
        if ruling != Ok(assay_evidence::op::Ruling::Advice) {
            continue;
        }
        let words = assay_evidence::op::WideLeaf::read(honest.data(place)).unwrap().0;
        let far = [u64::MAX / 2, 1 << 40, (i64::MIN / 2).cast_unsigned(), 0];
        let near = [1, 5000, -1, -5000].map(|by| words[0].wrapping_add_signed(by));
        for word in near.into_iter().chain(far) {
            let (tampered, _) = advised(&stage, &honest, place, word);
            let end = disputed(&stage, &tampered, SERVES);
            assert_eq!(end.phase, Phase::Won, "{place:?} {word} {end:?}");
            let focus = end.focus.unwrap();
            assert_eq!((focus.position, focus.op), (1, op));
            assert!(end.silent == (focus.doubt == Doubt::Element), "{end:?}");
            met.push(focus.doubt);
        }
    }
    for doubt in [Doubt::Kth, Doubt::Nucleus, Doubt::Element] {
        assert!(met.contains(&doubt), "{met:?}");
    }
}

#[test]
fn a_node_where_nothing_can_be_convicts() {
    let stage = Stage::honest(&FILED_TINY, &sampled(), 2, 2);
    let honest = stage.full();
    let claim = stage.world.claim();
    let node = Nodes::new(vec![B256::repeat_byte(9)]);
    let scores = claim.program.iter().position(|step| step.kind == Kind::NormStat1).unwrap() as u32;
    let mut hashes: Vec<B256> =
        (0..3).map(|leaf| stage.trace.nodes(&stage.world, 0, scores).node(0, leaf)).collect();
    hashes.push(B256::repeat_byte(8));
    for (at, tree) in [
        // Beyond the positions, beyond the ops, an op that has no leaves there, beyond its leaves.
        ((3, 0), node.clone()),
        ((1, claim.ops() + 3), node.clone()),
        ((0, claim.ops() - 1), node),
        ((0, scores), Nodes::new(hashes)),
    ] {
        let tampered = honest.with_tree(at, tree);
        for server in [SERVES, None] {
            let end = disputed(&stage, &tampered, server);
            assert_eq!((end.phase, end.focus), (Phase::Won, None), "{at:?} {end:?}");
        }
    }
}

#[test]
fn what_cannot_be_opened_is_silence() {
    let stage = Stage::honest(&FILED_TINY, &greedy(), 2, 2);
    let honest = stage.full();
    let claim = stage.world.claim();
    // No tree below an op's root, and leaves that are none.
    let gate = claim.program.iter().position(|step| step.kind == Kind::Gate).unwrap() as u32;
    let tree = honest.with_tree((1, gate), Nodes::new(vec![B256::repeat_byte(3)]));
    let end = disputed(&stage, &tree, None);
    assert_eq!((end.phase, end.silent), (Phase::Won, true), "{end:?}");
    for length in [0, 63, 64, 127, 129] {
        let place = Place { position: 1, op: gate, leaf: 0 };
        let short = HashMap::from([(place, vec![7; length])]);
        if length == 63 {
            continue;
        }
        let end = disputed(&stage, &honest.with(&stage, short), SERVES);
        assert_eq!((end.phase, end.silent), (Phase::Won, true), "{length}: {end:?}");
    }
}

/// A server that lies, or withholds, costs rounds on chain and nothing else.
#[test]
fn servers_need_not_be_honest() {
    let stage = Stage::honest(&FILED_NANO, &greedy(), 3, 3);
    let honest = stage.full();
    let claim = stage.world.claim();
    let down = claim.program.iter().rposition(|step| step.kind == Kind::Down).unwrap() as u32;
    let place = Place { position: 3, op: down, leaf: 1 };
    let mut data = honest.data(place).to_vec();
    data[39] ^= 4;
    let tampered = honest.with(&stage, HashMap::from([(place, data)]));
    let mut reveals = Vec::new();
    for server in [
        None,
        SERVES,
        Some((true, true, true)),
        Some((true, false, false)),
        Some((false, true, false)),
    ] {
        let end = disputed(&stage, &tampered, server);
        let focus = end.focus.unwrap();
        assert_eq!(end.phase, Phase::Won, "{server:?}");
        assert_eq!((focus.position, focus.op, focus.leaf, focus.element), (3, down, 1, 9));
        reveals.push(end.reveals);
    }
    let [alone, served, lied, nodes, leaves] = reveals[..] else { panic!() };
    assert!(alone > 3 && served == 0 && lied == alone && nodes == 0 && leaves == alone);
}

#[test]
fn whoever_is_silent_loses() {
    let stage = Stage::honest(&FILED_TINY, &greedy(), 2, 2);
    let honest = stage.full();
    let place = Place { position: 1, op: 4, leaf: 0 };
    let mut data = honest.data(place).to_vec();
    data[0] ^= 1;
    let tampered = honest.with(&stage, HashMap::from([(place, data)]));
    stage.about(|subject| {
        let defender = Defender::new(subject, &tampered).with_whole_rows(0);
        let challenger = Challenger::new(subject, &honest);
        // Each stops before its n-th move.
        for (stops, challenging) in (0..12).flat_map(|stop| [(stop, true), (stop, false)]) {
            let mut game = Game::open(&stage);
            let mut made = [0, 0];
            while !game.is_over() {
                let turn = matches!(game.standing.phase, Phase::Pick | Phase::Choose);
                if turn == challenging && made[usize::from(turn)] == stops {
                    game.run_out();
                    let expected = if challenging { Phase::Lost } else { Phase::Won };
                    assert_eq!(game.end.phase, expected, "{stops} {challenging}");
                    break;
                }
                made[usize::from(turn)] += 1;
                let next = if turn {
                    match challenger.next(&game.standing, &nothing()).unwrap() {
                        Next::Move(next) => next,
                        other => panic!("{other:?}"),
                    }
                } else {
                    defender.answer(&game.standing).unwrap().unwrap()
                };
                game.make(&next).unwrap();
            }
        }
    });
}

/// Whatever a stranger says stands on chain, a side gives a move or says why it has none.
#[test]
fn hostile_words_are_refused_not_obeyed() {
    let stage = Stage::honest(&FILED_TINY, &sampled(), 2, 2);
    let full = stage.full();
    let mut dice = Dice(1);
    stage.about(|subject| {
        let defender = Defender::new(subject, &full);
        let challenger = Challenger::new(subject, &full);
        let mut refused = 0;
        for _ in 0..4000 {
            let depth = dice.below(128) as u32;
            let turns = (u128::from(dice.below(u64::MAX)) << 64 | u128::from(dice.below(u64::MAX)))
                & ((1u128 << depth) - 1);
            let way = Way::new(depth, turns).unwrap();
            let reveal = Standing { phase: Phase::Reveal, way, ..Default::default() };
            refused += u32::from(defender.answer(&reveal).is_err());
            let pick = Standing { phase: Phase::Pick, way, ..Default::default() };
            refused += u32::from(challenger.next(&pick, &nothing()).is_err());
            let place = Place { position: 1, op: dice.below(40) as u32, leaf: 0 };
            if place.op < subject.claim.ops() {
                let mut focus = focus_on(&subject, &full, place, 0, Doubt::Element);
                focus.leaf = [0, 1, 40, dice.below(u64::MAX)][dice.below(4) as usize];
                focus.position = [0, 1, 2, 1 << 31, u32::MAX][dice.below(5) as usize];
                focus.element = dice.below(40) as u8;
                let point = assay_evidence::dispute::point_of(&focus, &[], 0);
                let focus = Some(focus);
                let prove = Standing { phase: Phase::Prove, focus, point, ..Default::default() };
                refused += u32::from(defender.answer(&prove).is_err());
                let forged = Standing { point: B256::ZERO, ..prove };
                let forged = defender.answer(&forged);
                assert!(matches!(forged, Err(NoAnswer::WrongPoint { .. })), "{forged:?}");
            }
        }
        assert!(refused > 4000, "{refused} were refused");
        assert_eq!(Way::new(128, 0), None);
        assert_eq!(Way::new(3, 8), None);
    });
}

/// Plays against a cheat that shows nothing but what it has to; how many leaves it was asked for.
fn asked_before_won(stage: &Stage, committed: &Full<'_>) -> u32 {
    let honest = stage.full();
    stage.about(|subject| {
        let end = play(stage, subject, committed, &honest, None, Manner::Best);
        assert_eq!(end.phase, Phase::Won, "{end:?}");
        end.asks
    })
}

/// Of a leaf that is not shown the challenger knows the hash alone. To guess which of its elements is
/// wrong would cost it the bond, so it asks.
#[test]
fn a_withheld_leaf_is_asked_for() {
    let stage = Stage::honest(&FILED_TINY, &sampled(), 2, 2);
    let honest = stage.full();
    let place = Place { position: 1, op: 4, leaf: 0 };
    let mut data = honest.data(place).to_vec();
    data[4 * 9..4 * 10].copy_from_slice(&0x0123_4567u32.to_be_bytes());
    let tampered = honest.with(&stage, HashMap::from([(place, data)]));
    assert_eq!(asked_before_won(&stage, &tampered), 1);
    // Nor do nodes without leaves help a cheat.
    stage.about(|subject| {
        let (nodes, leaves, lies) = (true, false, false);
        let server = Server { claim: subject.claim, trace: &tampered, nodes, leaves, lies };
        let end = play(&stage, subject, &tampered, &honest, Some(&server), Manner::Best);
        assert_eq!((end.phase, end.asks), (Phase::Won, 1), "{end:?}");
    });
}

#[test]
fn withheld_advice_is_asked_for_before_the_way_narrows() {
    let stage = Stage::honest(&FILED_NANO, &sampled(), 2, 2);
    let honest = stage.full();
    let claim = stage.world.claim();
    let op = claim.program.iter().position(|step| step.kind == Kind::Sample).unwrap() as u32;
    let mut asked = Vec::new();
    for leaf in 0..leaves(&claim.layout(1, op)) {
        let place = Place { position: 1, op, leaf };
        let ruling = stage.about(|s| assay_evidence::op::judge(s.claim, &honest, place, 0));
        if ruling != Ok(assay_evidence::op::Ruling::Advice) {
            continue;
        }
        for word in [12_345, 1 << 40] {
            let (tampered, _) = advised(&stage, &honest, place, word);
            asked.push(asked_before_won(&stage, &tampered));
            // What follows from it is not even what follows from it.
            let after = Place { leaf: leaf + 1, ..place };
            let mut data = tampered.data(after).to_vec();
            data[128..132].copy_from_slice(&[1, 2, 3, 4]);
            let worse = tampered.with(&stage, HashMap::from([(after, data)]));
            asked.push(asked_before_won(&stage, &worse));
        }
    }
    assert!(asked.len() >= 8 && asked.iter().all(|asked| (1..=3).contains(asked)), "{asked:?}");
}

/// A server that answers so many questions, and then no more.
struct Tiring<'a>(Server<'a>, std::cell::Cell<u32>);

impl NodeSource for Tiring<'_> {
    fn nodes(&self, below: Way, levels: u32) -> Option<Vec<B256>> {
        let left = self.1.get().checked_sub(1)?;
        self.1.set(left);
        self.0.nodes(below, levels)
    }

    fn leaf(&self, place: Place) -> Option<Vec<u8>> {
        self.0.leaf(place)
    }
}

#[test]
fn a_server_may_fall_silent_halfway() {
    let stage = Stage::honest(&FILED_NANO, &greedy(), 3, 3);
    let honest = stage.full();
    let place = Place { position: 3, op: 26, leaf: 1 };
    let mut data = honest.data(place).to_vec();
    data[39] ^= 4;
    let tampered = honest.with(&stage, HashMap::from([(place, data)]));
    for patience in 0..6 {
        stage.about(|subject| {
            let (nodes, leaves, lies) = (true, true, false);
            let server = Server { claim: subject.claim, trace: &tampered, nodes, leaves, lies };
            let tiring = Tiring(server, std::cell::Cell::new(patience));
            let end = play(&stage, subject, &tampered, &honest, Some(&tiring), Manner::Best);
            assert_eq!(end.phase, Phase::Won, "{patience}: {end:?}");
            assert_eq!(end.focus.unwrap().op, 26);
        });
    }
}

/// Every leaf of every op, at every kind of position, in both models; the gas of the proofs.
///
/// `cargo test -p assay-evidence --test game -- --ignored --nocapture`
#[test]
#[ignore = "two minutes of work"]
#[allow(clippy::print_stderr, reason = "says what it measured")]
fn every_leaf_that_is_changed_convicts() {
    let mut most = Gas::new();
    for (filed, choices, prompt, output, positions) in [
        (&FILED_NANO, sampled(), 3, 3, vec![0, 2, 3, 4]),
        (&FILED_NANO, penalised(), 66, 3, vec![0, 65, 66, 67]),
        (&FILED_NANO, plain(), 2, 2, vec![1, 2]),
        (&FILED_AWKWARD, sampled(), 2, 3, vec![0, 1, 2, 3]),
        (&FILED_AWKWARD, greedy(), 65, 1, vec![64]),
    ] {
        let stage = Stage::honest(filed, &choices, prompt, output);
        let (count, gas) = all_convicted(&stage, &changes(&stage, &positions, true));
        eprintln!("{count} changes convicted");
        for (what, gas) in gas {
            let known = most.entry(what).or_default();
            *known = gas.max(*known);
        }
    }
    for ((op, lists), gas) in most {
        eprintln!("{op}, {lists} lists: {gas}");
    }
}
