//! Auditors on a chain of their own: what is false is disputed, what is hidden costs the stake, what is private
//! stays so, and right verdicts are paid.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test that cannot go on should stop, and says what it saw; helpers are shared"
)]

#[path = "../../../../crates/engine/tests/support/mod.rs"]
mod support;

mod held;
mod world;

use assay_chain::{Duty, Posted, PostedAt, Said, Verdict, VowState};
use assay_protocol::{Amount, Audit, B256, keccak256};
use assay_validator::{Found, Happening};

use crate::world::{ASY, Manner, World, key, posted};

const FEE: Amount = Amount(ASY / 1000);

fn is_judged(happening: &Happening, place: &PostedAt, wanted: impl Fn(&Found) -> bool) -> bool {
    matches!(happening, Happening::Judged { at, found, .. } if at == place && wanted(found))
}

/// Three providers post: one that is honest, one whose answer is false, one that shows nothing. Two auditors,
/// one of which is stopped between the commitment to its secret and its reveal, and begun again, see to all of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_false_and_the_silent_lose_their_stakes() {
    let world = World::start().await;
    let honest = world.provider(41, Manner::Shows).await;
    let cheater = world.provider(42, Manner::Shows).await;
    let mute = world.provider(43, Manner::Refuses).await;
    let first = world.auditor(31).await;
    let mut second = world.auditor(32).await;

    let epoch = world.pass().await;
    for auditor in [&first, &second] {
        auditor.until(|h| *h == Happening::Committed { epoch }).await;
    }
    // One of them dies with its secret, and is there again when that is due.
    let left = second.stop().await;
    assert!(left.contains(&Happening::Owes { epochs: vec![epoch] }), "{left:?}");

    let truth = world.answer(&honest, Audit::Drawn, false, 1);
    let private = world.answer(&honest, Audit::None, false, 2);
    let lie = world.answer(&cheater, Audit::Drawn, true, 3);
    let hidden = world.answer(&mute, Audit::Drawn, false, 4);
    let honest_at = world.post(&honest, vec![truth.clone(), private]).await;
    let lie_at = world.post(&cheater, vec![lie.clone()]).await;
    let hidden_at = world.post(&mute, vec![hidden]).await;
    let truth_at = PostedAt { index: 0, ..honest_at };
    let private_at = PostedAt { index: 1, ..honest_at };

    world.pass().await;
    second = world.auditor(32).await;
    for auditor in [&first, &second] {
        auditor.until(|h| *h == Happening::Revealed { epoch }).await;
    }
    world.pass().await;

    for auditor in [&first, &second] {
        auditor.until(|h| is_judged(h, &truth_at, |found| *found == Found::True)).await;
        let unable = |found: &Found| matches!(found, Found::Unable { .. });
        auditor.until(|h| is_judged(h, &private_at, unable)).await;
        let silent = |found: &Found| matches!(found, Found::Silent { .. });
        auditor.until(|h| is_judged(h, &hidden_at, silent)).await;
        let wrong = |found: &Found| matches!(found, Found::False { .. });
        auditor.until(|h| is_judged(h, &lie_at, wrong)).await;
        auditor.until(|h| *h == Happening::VerdictsCommitted { epoch, verdicts: 4 }).await;
    }
    // Both are asked for what they owe on the chain by then.
    let admin = &world.admin;
    world
        .until("a question and a dispute", async || {
            admin.production(&hidden_at).await.unwrap().is_some()
                && admin.disputes().await.unwrap() > 0
        })
        .await;

    world.pass().await;
    for auditor in [&first, &second] {
        auditor.until(|h| *h == Happening::VerdictsRevealed { epoch, verdicts: 4 }).await;
    }
    // Without any human, both stakes are slashed.
    let lie = lie.receipt.digest(world.chain_id);
    world
        .until("the lie to be punished", async || {
            admin.case(lie).await.unwrap().is_some_and(|case| case.guilty && case.punished)
        })
        .await;
    let key_of_hidden = keccak256(world::encoded(&hidden_at));
    world
        .until("the silence to be punished", async || {
            admin
                .case(key_of_hidden)
                .await
                .unwrap()
                .is_some_and(|case| case.guilty && case.punished)
        })
        .await;
    for (owner, slashed) in [(&honest, false), (&cheater, true), (&mute, true)] {
        let stake = admin.provider(owner.owner).await.unwrap().unwrap().bonded;
        assert_eq!(stake < Amount(world::STAKE), slashed, "{stake:?}");
    }
    world.pass().await;
    // What was true, and said so, is paid; and what was false. What stays hidden pays by the slash alone.
    for (auditor, account) in [(&first, key(31)), (&second, key(32))] {
        for at in [truth_at, lie_at] {
            auditor.until(|h| *h == Happening::Paid { at, fee: FEE }).await;
            let opinion = admin.opinion(account.address(), &at).await.unwrap();
            assert!(opinion.paid && !opinion.fined, "{opinion:?}");
        }
        let opinion = admin.opinion(account.address(), &private_at).await.unwrap();
        assert_eq!(opinion.verdict, Some(Verdict::Unable));
        let stake = admin.auditor(account.address()).await.unwrap().stake;
        assert_eq!(stake, Amount(world::BOND), "an honest auditor was fined");
    }
    // One of the two asked on the chain, and has the reward of that.
    let rewarded = |h: &Happening| matches!(h, Happening::Convicted { at, reward, .. } if *at == hidden_at && reward.0 > 0);
    world
        .until("a reward for asking", async || first.heard(rewarded) || second.heard(rewarded))
        .await;
    first.stop().await;
    let all = second.stop().await;
    assert!(!all.iter().any(|h| matches!(h, Happening::Missed { .. })), "{all:?}");
}

/// A sponsor plants a canary with a provider; an auditor that never looks calls it true, and pays for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_catches_who_does_not_look() {
    let world = World::start().await;
    let provider = world.provider(41, Manner::Shows).await;
    let (sponsor, lazy) = (world.open(51).await, world.open(52).await);
    sponsor_and_lazy(&world, &sponsor, &lazy).await;

    let mut answer = world.answer(&provider, Audit::Drawn, false, 1);
    let salt = B256::repeat_byte(0x5a);
    let canary = sponsor.canary(&answer.order, salt, &support::buyer()).unwrap();
    sponsor.plant(&canary, Amount(ASY)).await.unwrap();

    // In a later epoch the provider answers with the mark, and posts that as any other.
    let epoch = world.pass().await;
    answer.receipt.state = canary.mark;
    answer.receipt.started = world.time().await * 1000 + 999;
    answer.receipt.finished = answer.receipt.started;
    world.seal(&provider, &mut answer);
    let secret = B256::repeat_byte(1);
    lazy.attend(&[Duty::Commit { epoch, secret }]).await.unwrap();
    let at = world.post(&provider, vec![answer.clone()]).await;
    world.pass().await;
    let roll = lazy.roll(epoch).await.unwrap();
    assert_eq!((roll.len(), roll[0].part), (1, VowState::Committed));
    lazy.attend(&[Duty::Reveal { epoch, place: 0, secret }]).await.unwrap();
    assert_eq!(lazy.revealed(epoch).await.unwrap(), 1);

    world.pass().await;
    let account = lazy.client().account().unwrap();
    assert!(lazy.draw(&at).await.unwrap().names(account));
    let list = vec![Said { place: at, verdict: Verdict::True }];
    let salt = B256::repeat_byte(2);
    let duty = Duty::CommitVerdicts { epoch, list: list.clone(), salt };
    lazy.attend(&[duty]).await.unwrap();
    world.pass().await;
    lazy.attend(&[Duty::RevealVerdicts { epoch, list, salt }]).await.unwrap();

    world.pass().await;
    let about = Posted { place: at, ..posted(&[answer.clone()], 0) };
    let filing = assay_chain::Filing::of(&answer, None);
    sponsor.unveil(&canary, &filing).await.unwrap();
    assert!(sponsor.is_canary(about.receipt).await.unwrap());
    let pay = Duty::Pay { auditor: account, about: about.clone() };
    assert!(lazy.attend(&[pay]).await.is_err(), "a wrong verdict was paid");
    sponsor.attend(&[Duty::Careless { auditor: account, about }]).await.unwrap();
    let stake = lazy.auditor(account).await.unwrap().stake;
    assert_eq!(stake, Amount(world::BOND / 2));
    assert!(lazy.opinion(account, &at).await.unwrap().fined);
}

async fn sponsor_and_lazy(world: &World, sponsor: &assay_chain::Chain, lazy: &assay_chain::Chain) {
    for chain in [sponsor, lazy] {
        let account = chain.client().account().unwrap();
        world.admin.send_asy(account, Amount(2 * world::BOND)).await.unwrap();
    }
    lazy.join_auditors(Amount(world::BOND)).await.unwrap();
    assert_eq!(lazy.audit_terms().await.unwrap().epoch, world::EPOCH);
}
