//! What auditors are shown of what was posted: what chance drew for them, as far as the order lets them, there
//! and on the chain; and strangers nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use assay_chain::{Chain, Duty, PostedAt, Stage};
use assay_protocol::wire::{Exhibit, NotShown, Shown};
use assay_protocol::{Amount, Answer, Audit, B256, Inquiry, Key, Signature};

use crate::world::{CHAIN, Disk, Provider, World};

const ASY: u128 = 1_000_000_000_000_000_000;
/// Seconds of an epoch, as deployed here.
const EPOCH: u64 = 4 * 3_600;

/// An auditor that was drawn for all that one epoch posted.
struct Drawn {
    key: Key,
    chain: Chain,
    places: Vec<PostedAt>,
}

/// Lets a provider post two answers in an epoch for whose beacon an auditor committed, and passes two.
async fn drawn(world: &World, provider: &Provider) -> (Drawn, [Answer; 2]) {
    let (key, chain) = world.auditor().await;
    let left = EPOCH - chain.client().time().await.unwrap() % EPOCH;
    world.pass(left + 1).await;
    chain.join_auditors(Amount(ASY)).await.unwrap();
    let epoch = chain.client().time().await.unwrap() / EPOCH;
    let secret = B256::repeat_byte(8);
    chain.attend(&[Duty::Commit { epoch, secret }]).await.unwrap();
    let answers = [
        provider.buy_for(world, 1, Audit::Drawn).await,
        provider.buy_for(world, 2, Audit::None).await,
    ];
    let provider = world.owner();
    let posted = async || {
        let mut places = Vec::new();
        for period in 0..chain.periods(provider).await.unwrap() {
            let count = chain.period(provider, period).await.unwrap().count;
            places.extend((0..count).map(|index| PostedAt { provider, period, index }));
        }
        places
    };
    world.until(async || posted().await.len() == 2).await;
    let places = posted().await;
    world.pass(EPOCH).await;
    chain.attend(&[Duty::Reveal { epoch, place: 0, secret }]).await.unwrap();
    world.pass(EPOCH).await;
    (Drawn { key, chain, places }, answers)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

async fn asked(
    world: &World,
    provider: &Provider,
    at: &PostedAt,
    time: u64,
    signature: &Signature,
) -> Result<Shown, (u16, NotShown)> {
    let url = format!("{}/v1/periods/{}/{}?time={time}", provider.url, at.period, at.index);
    let (status, text) = world.shown(&url, signature).await;
    match status {
        200 => Ok(serde_json::from_str(&text).unwrap()),
        status => Err((status, serde_json::from_str(&text).unwrap())),
    }
}

fn inquiry(key: &Key, at: &PostedAt, time: u64) -> Signature {
    let PostedAt { provider, period, index } = *at;
    Inquiry { provider, period, index, time }.sign(CHAIN, key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drawn_auditor_is_shown_what_the_order_allows_and_strangers_nothing() {
    let world = World::new().await;
    let disk = Disk::default();
    let provider = world.provider_that_posts(&disk, Duration::from_millis(200)).await;
    let (Drawn { key, chain, places }, answers) = drawn(&world, &provider).await;

    let time = now();
    for (at, answer) in places.iter().zip(&answers) {
        let signature = inquiry(&key, at, time);
        let shown = asked(&world, &provider, at, time, &signature).await.unwrap();
        match &shown.what {
            Exhibit::Answer(found) => {
                assert_eq!(answer.order.audit, Audit::Drawn);
                assert_eq!((&found.order, &found.receipt), (&answer.order, &answer.receipt));
                assert_eq!((&found.terms, &found.output), (&answer.terms, &answer.output));
            }
            Exhibit::Words(found) => {
                assert_eq!(answer.order.audit, Audit::None);
                assert_eq!((&found.order, &found.receipt), (&answer.order, &answer.receipt));
            }
        }
        // The buyer sees its own, whatever others may.
        let url = format!("{}/v1/periods/{}/{}", provider.url, at.period, at.index);
        let (status, text) = world.shown(&url, &answer.order_signature).await;
        assert_eq!(status, 200, "{text}");
        let own: Shown = serde_json::from_str(&text).unwrap();
        assert!(matches!(own.what, Exhibit::Answer(_)));
        assert_eq!(world.get(&url).await, 401);
    }

    let at = &places[0];
    let stranger = Key::from_bytes([77; 32]).unwrap();
    let refused = async |at: &PostedAt, time: u64, signature: Signature| {
        asked(&world, &provider, at, time, &signature).await.unwrap_err()
    };
    let not_drawn = NotShown::NotDrawn { auditor: stranger.address() };
    assert_eq!(refused(at, time, inquiry(&stranger, at, time)).await, (403, not_drawn));
    let old = time - 1_000;
    let (status, said) = refused(at, old, inquiry(&key, at, old)).await;
    assert!(status == 401 && matches!(said, NotShown::Stale { .. }), "{said}");
    // A signature for one place is none for another.
    let (status, said) = refused(&places[1], time, inquiry(&key, at, time)).await;
    assert!(status == 403 && matches!(said, NotShown::NotDrawn { .. }), "{said}");
    let nowhere = PostedAt { period: 99, ..*at };
    let (status, _) = refused(&nowhere, time, inquiry(&key, &nowhere, time)).await;
    assert_eq!(status, 403);

    // Asked on the chain, it publishes there, and has the bond.
    let before = world.earned().await;
    for (at, answer) in places.iter().zip(&answers) {
        chain.produce(at).await.unwrap();
        let stage = async || chain.production(at).await.unwrap().unwrap().stage;
        world.until(async || stage().await == Stage::Answered).await;
        let published = chain.published_of(at, 0).await.unwrap();
        let (filing, _) = published.shown.unwrap();
        assert_eq!((filing.order, filing.receipt), (answer.order.clone(), answer.receipt.clone()));
        let tokens = match answer.order.audit {
            Audit::None => Vec::new(),
            _ => [answer.terms.prompt.as_slice(), &answer.output].concat(),
        };
        assert_eq!(published.tokens, tokens);
    }
    // Beside what its answers cost, a few units each.
    assert_eq!((world.earned().await - before) / ASY, 2);
    provider.stop().await;
}
