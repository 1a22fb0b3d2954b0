//! A provider whose answers are disputed, on our own chain with the real contracts and the shipped
//! model: it defends itself, and nobody helps it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it saw"
)]

mod audited;
mod doubter;
mod planted;
mod world;

use std::time::Duration;

use assay_chain::Move as Call;
use assay_court::NodeServer;
use assay_evidence::dispute::{NodeSource, Way};
use assay_evidence::op::Place;
use assay_protocol::{Doubt, Phase};
use doubter::{Doubter, Mistake, place_of};
use world::{Disk, World};

/// Both sides' time in all disputes here.
const CLOCK: u64 = world::CLOCK;

/// A challenger that is wrong about numbers of every kind loses each time, several disputes running at
/// once about two receipts, with and without a node server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_provider_wins_whatever_is_doubted() {
    let world = World::new().await;
    let provider = world.provider(&Disk::default()).await;
    let answers = [provider.buy(&world, 1).await, provider.buy(&world, 2).await];
    let kinds = [
        "Embed",
        "NormStat1",
        "Norm1",
        "Query",
        "RopeKey",
        "QuantiseValue",
        "Score",
        "ScoreMax",
        "BlockShift",
        "Attend",
        "Residual1",
        "Down",
        "Logits",
        "Sample",
        "Token",
        "State",
    ];
    let mut doubters = Vec::new();
    for (index, kind) in kinds.into_iter().enumerate() {
        let answer = &answers[index % 2];
        let place = place_of(answer, kind, index as u32);
        let mut doubter = Doubter::open(&world, answer, Mistake { place, element: 0 }).await;
        if index % 3 == 0 {
            doubter.asks(&provider.url);
        }
        doubters.push(doubter);
    }
    while !doubters.is_empty() {
        let (mut left, mut calls) = (Vec::new(), Vec::new());
        for mut doubter in doubters {
            let (phase, call) = doubter.says(&world).await;
            assert!(!matches!(phase, Phase::Won | Phase::Returned), "{doubter:?} won");
            calls.extend(call);
            if !matches!(phase, Phase::Lost | Phase::Forfeited) {
                left.push(doubter);
            }
        }
        if !calls.is_empty() {
            world.challenger.play(&calls).await.unwrap();
        }
        doubters = left;
    }
    // All bonds are the provider's, without anybody asking for them.
    let expected = world::BOND * kinds.len() as u128;
    world.until(async || world.earned().await == expected).await;
    provider.stop().await;
}

/// A provider that is killed, in the middle of a game and before it began, goes on where it stood.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_provider_goes_on() {
    let world = World::new().await;
    let disk = Disk::default();
    let provider = world.provider(&disk).await;
    let answer = provider.buy(&world, 1).await;
    provider.kill().await;

    let place = place_of(&answer, "Score", 0);
    let mut doubter = Doubter::open(&world, &answer, Mistake { place, element: 0 }).await;
    let mut kills = 0;
    loop {
        let before = world.phase(doubter.id).await;
        assert!(matches!(before, Phase::Commit | Phase::Reveal | Phase::Prove), "{before:?}");
        let provider = world.provider(&disk).await;
        world.until(async || world.phase(doubter.id).await != before).await;
        provider.kill().await;
        kills += 1;
        let (phase, call) = doubter.says(&world).await;
        if phase == Phase::Lost || phase == Phase::Forfeited {
            break;
        }
        world.challenger.play(call.as_slice()).await.unwrap();
    }
    eprintln!("killed {kills} times");
    assert!(kills > 3);
    // The last life fetches the bond.
    let provider = world.provider(&disk).await;
    world.until(async || world.earned().await == world::BOND).await;
    provider.stop().await;
}

/// What a challenger says that means nothing neither stops a provider nor wins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_answered() {
    let world = World::new().await;
    let provider = world.provider(&Disk::default()).await;
    let answer = provider.buy(&world, 1).await;
    // An element that its section does not have, in the last leaf of all; a choice that its list does
    // not have, in both rounds of attention; a check that holds; and silence.
    let mut beyond = Doubter::right(&world, &answer).await;
    let mut chooser = Doubter::right(&world, &answer).await;
    let mut checker = Doubter::right(&world, &answer).await;
    let silent = Doubter::right(&world, &answer).await;
    let ids = [beyond.id, chooser.id, checker.id, silent.id];
    for id in ids {
        world.until(async || world.phase(id).await == Phase::Pick).await;
    }
    let tops = place_of(&answer, "NormStat1", 0);
    beyond.name(&world, tops, 31, Doubt::Element).await;
    let attend = place_of(&answer, "Attend", 0);
    chooser.name(&world, attend, 0, Doubt::Element).await;
    for _ in 0..2 {
        let id = chooser.id;
        world.until(async || world.phase(id).await != Phase::Prove).await;
        if world.phase(id).await == Phase::Choose {
            let play = Call::Choose { dispute: id, entry: u32::MAX };
            world.challenger.play(&[play]).await.unwrap();
        }
    }
    let link = place_of(&answer, "Token", 0);
    checker.name(&world, link, 0, Doubt::Link).await;
    for id in &ids[..3] {
        world.until(async || world.phase(*id).await == Phase::Forfeited).await;
    }

    // Its server answers what it has, and no nonsense.
    let (url, id) = (provider.url.clone(), silent.id);
    let asked = tokio::task::spawn_blocking(move || {
        let patience = Duration::from_secs(10);
        let ask = |id| NodeServer::new(&url, id, patience).unwrap();
        let place = Place { position: u32::MAX, op: u32::MAX, leaf: u64::MAX };
        let deep = Way::new(120, 1 << 119).unwrap();
        let unknown = (ask(id + 1).nodes(Way::ROOT, 4), ask(0).leaf(place));
        assert_eq!(unknown, (None, None));
        assert_eq!((ask(id).leaf(place), ask(id).nodes(deep, 4)), (None, None));
        ask(id).nodes(Way::ROOT, 4)
    });
    assert_eq!(asked.await.unwrap().map(|nodes| nodes.len()), Some(16));
    let status = world.get(&format!("{}/v1/disputes/{id}/nodes?depth=9", provider.url)).await;
    assert_eq!(status, 400);

    world.pass(CLOCK + 2).await;
    world.until(async || world.phase(id).await == Phase::Forfeited).await;
    assert_eq!(world.earned().await, 4 * world::BOND);
    provider.stop().await;
}

/// A provider that lost its store says so, and goes on selling; its silence convicts it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_in_the_store_cannot_be_defended() {
    let world = World::new().await;
    let provider = world.provider(&Disk::default()).await;
    let answer = provider.buy(&world, 1).await;
    provider.kill().await;
    let provider = world.provider(&Disk::default()).await;
    let doubter = Doubter::right(&world, &answer).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(world.phase(doubter.id).await, Phase::Commit);
    assert_eq!(world.get(&format!("{}/health", provider.url)).await, 200);
    world.pass(CLOCK + 2).await;
    world.challenger.play(&[Call::Timeout { dispute: doubter.id }]).await.unwrap();
    assert_eq!(world.phase(doubter.id).await, Phase::Won);
    provider.stop().await;
}
