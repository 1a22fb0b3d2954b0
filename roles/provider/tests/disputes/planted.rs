//! Canaries from their planting to their end: no buyer is sold one, an auditor that calls them true is fined, who
//! disputes one has its prize, and nobody is slashed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use assay_chain::{Chain, Duty, Filing, PostedAt, Said, Verdict};
use assay_protocol::wire::{Exhibit, Shown};
use assay_protocol::{Address, Amount, Answer, Audit, B256, Inquiry, keccak256};

use crate::world::{CHAIN, Disk, Provider, World};

const ASY: u128 = 1_000_000_000_000_000_000;
const WINDOW: u64 = 1_000;
const NEVER: Duration = Duration::from_secs(1_000);
/// How far the chain is behind: more than blocks made in a hurry run ahead.
const BEHIND: Duration = Duration::from_secs(400);

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A length of epochs, one of which begins soon after a world is made, seconds.
fn epoch_length() -> u64 {
    let then = now() + 8;
    (20..40).min_by_key(|length| length - then % length).unwrap()
}

/// All that a provider has posted.
async fn posted(world: &World, chain: &Chain) -> Vec<PostedAt> {
    let (provider, mut places) = (world.owner(), Vec::new());
    for period in 0..chain.periods(provider).await.unwrap() {
        let count = chain.period(provider, period).await.unwrap().count;
        places.extend((0..count).map(|index| PostedAt { provider, period, index }));
    }
    places
}

async fn epoch(chain: &Chain, length: u64) -> u64 {
    chain.client().time().await.unwrap() / length
}

/// Lets the chain's next epoch begin, soon after its beginning.
async fn pass(world: &World, chain: &Chain, length: u64) {
    world.pass(length - chain.client().time().await.unwrap() % length).await;
}

async fn has(chain: &Chain, account: Address) -> u128 {
    chain.asy_of(account).await.unwrap().0
}

/// What an auditor is shown of a place.
async fn shown(world: &World, provider: &Provider, at: &PostedAt) -> Answer {
    let (key, _) = world.auditor().await;
    let (PostedAt { provider: owner, period, index }, time) = (*at, now());
    let inquiry = Inquiry { provider: owner, period, index, time };
    let url = format!("{}/v1/periods/{period}/{index}?time={time}", provider.url);
    let (status, text) = world.shown(&url, &inquiry.sign(CHAIN, &key)).await;
    assert_eq!(status, 200, "{text}");
    let shown: Shown = serde_json::from_str(&text).unwrap();
    let Exhibit::Answer(answer) = shown.what else { panic!("{text}") };
    *answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canaries_catch_who_does_not_look_and_reach_no_buyer() {
    let length = epoch_length();
    let world = World::with(length, BEHIND).await;
    world.seat_arbiter().await;
    let (_, chain) = world.auditor().await;
    let planting = world.planting().await;
    let planter = planting.planter.client().account().unwrap();
    let sponsor = planting.buyer.address();
    let before = has(&chain, planter).await;

    // What the buyer would have of a provider that plants nothing.
    let plain = world.provider(&Disk::default()).await;
    let deadline = now() + 120;
    let expected = plain.buy_until(&world, (1, Audit::Drawn), deadline).await;
    plain.stop().await;

    let disk = Disk::default();
    let provider = world.provider_with(&disk, NEVER, Some(planting.clone())).await;
    let real = provider.buy_until(&world, (1, Audit::Drawn), deadline).await;
    assert_eq!((&real.output, &real.states), (&expected.output, &expected.states));
    assert_eq!(real.receipt.state, expected.receipt.state);
    provider.buy_until(&world, (2, Audit::Drawn), deadline).await;
    world.until(async || has(&chain, planter).await == before - 2 * ASY).await;
    // They are ordered in the epoch after, by a buyer of their own; killed before, the provider goes on.
    provider.kill().await;
    pass(&world, &chain, length).await;
    let provider = world.provider_with(&disk, NEVER, Some(planting.clone())).await;
    let channels = chain.channels().unwrap();
    let lane = keccak256([b"assay lane ".as_slice(), &[0; 4]].concat());
    let id = provider.channel(sponsor, lane).id(&channels);
    let url = format!("{}/v1/channels/{id}", provider.url);
    world.until(async || world.get(&url).await == 200).await;
    let charged = async || {
        let (_, text) = world.shown(&url, &real.order_signature).await;
        let position: serde_json::Value = serde_json::from_str(&text).unwrap();
        position["charged"].as_str().unwrap().parse::<u128>().unwrap()
    };
    // One answer costs at most 19, to eleven tokens and of four.
    world.until(async || charged().await >= 20).await;
    provider.stop().await;

    // An auditor that never looks takes part in the epoch of the posting.
    pass(&world, &chain, length).await;
    chain.join_auditors(Amount(ASY)).await.unwrap();
    let drawn = epoch(&chain, length).await;
    let secret = B256::repeat_byte(8);
    chain.attend(&[Duty::Commit { epoch: drawn, secret }]).await.unwrap();
    let often = Duration::from_millis(200);
    let provider = world.provider_with(&disk, often, Some(planting.clone())).await;
    world.until(async || posted(&world, &chain).await.len() == 4).await;
    assert_eq!(epoch(&chain, length).await, drawn, "this machine is too slow for the test");
    let places = posted(&world, &chain).await;
    pass(&world, &chain, length).await;
    chain.attend(&[Duty::Reveal { epoch: drawn, place: 0, secret }]).await.unwrap();
    pass(&world, &chain, length).await;

    // What it is shown looks like any other answer, and the state at its end is the last of its states.
    let mut canaries = Vec::new();
    for at in &places {
        let answer = shown(&world, &provider, at).await;
        assert_eq!(answer.states.last(), Some(&answer.receipt.state));
        assert_eq!((answer.order.audit, answer.terms.sampler.top_k), (Audit::Drawn, 40));
        assert_eq!(answer.output.len(), answer.states.len());
        if answer.order.buyer == sponsor {
            assert!(!chain.is_canary(answer.receipt.digest(CHAIN)).await.unwrap());
            canaries.push((*at, answer));
        }
    }
    assert_eq!(canaries.len(), 2);
    let said = |place: &PostedAt| Said { place: *place, verdict: Verdict::True };
    let (list, salt): (Vec<Said>, _) = (places.iter().map(said).collect(), B256::repeat_byte(9));
    let commit = Duty::CommitVerdicts { epoch: drawn, list: list.clone(), salt };
    chain.attend(&[commit]).await.unwrap();
    pass(&world, &chain, length).await;
    chain.attend(&[Duty::RevealVerdicts { epoch: drawn, list, salt }]).await.unwrap();

    // Somebody else looks, and disputes one: it has the prize and its bond back, and the stake stays.
    let challenger = &world.challenger;
    let account = challenger.client().account().unwrap();
    let rich = has(&chain, account).await;
    let (_, answer) = &canaries[0];
    let (dispute, _) = challenger.open_dispute(&Filing::of(answer, None)).await.unwrap();
    let receipt = answer.receipt.digest(CHAIN);
    world.until(async || chain.case(receipt).await.unwrap().is_some_and(|case| case.canary)).await;
    challenger.play(&[assay_chain::Move::Close { dispute }]).await.unwrap();
    assert_eq!(has(&chain, account).await, rich + ASY);
    let stake = chain.provider(world.owner()).await.unwrap().unwrap();
    assert_eq!((stake.bonded.0, stake.jailed_until), (10_000 * ASY, None));

    // It is fined for that one at once, and for the other when it can be disputed no more.
    pass(&world, &chain, length).await;
    let auditor = chain.client().account().unwrap();
    let left = async || chain.auditor(auditor).await.unwrap().stake.0;
    world.until(async || left().await == ASY / 2).await;
    assert!(!chain.is_canary(canaries[1].1.receipt.digest(CHAIN)).await.unwrap());
    world.pass(WINDOW + BEHIND.as_secs() + 200).await;
    world.until(async || left().await == 0).await;
    world.pass(WINDOW + 1).await;
    // Half of what the auditor lost, and the prize that nobody won.
    world.until(async || has(&chain, planter).await == before - ASY + ASY / 2).await;
    for at in &places {
        let canary = canaries.iter().any(|(place, _)| place == at);
        assert_eq!(chain.opinion(auditor, at).await.unwrap().fined, canary);
    }
    provider.stop().await;
}
