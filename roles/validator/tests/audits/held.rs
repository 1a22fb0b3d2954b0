//! Auditors that do not do what they are paid for, and one that has them fined.

use assay_chain::{Chain, Duty, Filing, Move, Posted, Said, Verdict, VowState};
use assay_protocol::{Address, Amount, Audit, B256};
use assay_validator::{Found, Happening, Lapse};

use crate::support;
use crate::world::{ASY, BOND, Manner, World, key, posted};

/// An auditor whose every step a test takes.
struct Idler {
    chain: Chain,
    account: Address,
    secret: B256,
}

impl Idler {
    async fn join(world: &World, byte: u8) -> Self {
        let chain = world.open(byte).await;
        let account = key(byte).address();
        world.admin.send_asy(account, Amount(2 * BOND)).await.unwrap();
        chain.join_auditors(Amount(BOND)).await.unwrap();
        Self { chain, account, secret: B256::repeat_byte(byte) }
    }

    async fn commit(&self, epoch: u64) {
        self.chain.attend(&[Duty::Commit { epoch, secret: self.secret }]).await.unwrap();
    }

    async fn reveal(&self, epoch: u64) {
        let roll = self.chain.roll(epoch).await.unwrap();
        let place = roll.iter().position(|vow| vow.auditor == self.account).unwrap() as u64;
        let secret = self.secret;
        self.chain.attend(&[Duty::Reveal { epoch, place, secret }]).await.unwrap();
    }

    async fn stake(&self) -> u128 {
        self.chain.auditor(self.account).await.unwrap().stake.0
    }
}

fn fined(auditor: Address, lapse: Lapse) -> Happening {
    Happening::Fined { auditor, lapse }
}

/// One auditor commits to a secret and does not reveal it, one is drawn and says nothing. A third, which was
/// begun again before the last of it was due, has both fined, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_auditors_lose_a_part_of_their_bonds() {
    let world = World::start().await;
    let provider = world.provider(41, Manner::Shows).await;
    let (mute, absent) = (Idler::join(&world, 51).await, Idler::join(&world, 52).await);
    let mut honest = world.auditor(31).await;

    let epoch = world.pass().await;
    mute.commit(epoch).await;
    absent.commit(epoch).await;
    honest.until(|h| *h == Happening::Committed { epoch }).await;
    let answer = world.answer(&provider, Audit::Drawn, false, 1);
    let at = world.post(&provider, vec![answer]).await;
    world.pass().await;
    absent.reveal(epoch).await;
    honest.until(|h| *h == Happening::Revealed { epoch }).await;

    world.pass().await;
    let missed = fined(mute.account, Lapse::Missed { epoch });
    honest.until(|h| *h == missed).await;
    assert_eq!(mute.stake().await, BOND - BOND / 10);
    let roll = mute.chain.roll(epoch).await.unwrap();
    let broken = roll.iter().filter(|vow| vow.part == VowState::Missed).map(|vow| vow.auditor);
    assert_eq!(broken.collect::<Vec<_>>(), [mute.account]);
    honest.until(|h| *h == Happening::VerdictsCommitted { epoch, verdicts: 1 }).await;
    world.pass().await;
    honest.until(|h| *h == Happening::VerdictsRevealed { epoch, verdicts: 1 }).await;
    assert_eq!(absent.stake().await, BOND, "it was fined before its time was over");
    honest.stop().await;

    world.pass().await;
    honest = world.auditor(31).await;
    honest.until(|h| *h == fined(absent.account, Lapse::Absent { epoch })).await;
    assert_eq!(absent.stake().await, BOND - BOND / 50);
    assert!(absent.chain.attendance(absent.account, epoch).await.unwrap().fined);
    honest.until(|h| matches!(h, Happening::Paid { at: paid, .. } if *paid == at)).await;
    // Begun once more, it charges nobody again.
    honest.stop().await;
    honest = world.auditor(31).await;
    let next = world.pass().await;
    honest.until(|h| *h == Happening::Committed { epoch: next }).await;
    let told = honest.stop().await;
    assert!(!told.iter().any(|h| matches!(h, Happening::Fined { .. })), "{told:?}");
    assert_eq!((mute.stake().await, absent.stake().await), (BOND - BOND / 10, BOND - BOND / 50));
    assert_eq!(world.admin.auditor(key(31).address()).await.unwrap().stake.0, BOND);
}

/// One auditor says true of a canary and of a lie, unseen. The other finds both false and disputes them: the
/// canary's provider shows what it is, the liar is convicted, and each of the two verdicts costs half a bond.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auditor_that_does_not_look_loses_its_bond() {
    let world = World::start().await;
    let (planter, liar) =
        (world.provider(41, Manner::Shows).await, world.provider(42, Manner::Shows).await);
    let sponsor = world.open(53).await;
    world.admin.send_asy(key(53).address(), Amount(2 * ASY)).await.unwrap();
    let lazy = Idler::join(&world, 52).await;
    let honest = world.auditor(31).await;
    let mut canary_answer = world.answer(&planter, Audit::Drawn, false, 1);
    let salt = B256::repeat_byte(0x5a);
    let canary = sponsor.canary(&canary_answer.order, salt, &support::buyer()).unwrap();
    sponsor.plant(&canary, Amount(ASY)).await.unwrap();

    let epoch = world.pass().await;
    lazy.commit(epoch).await;
    honest.until(|h| *h == Happening::Committed { epoch }).await;
    canary_answer.receipt.state = canary.mark;
    canary_answer.receipt.started = world.time().await * 1000 + 999;
    canary_answer.receipt.finished = canary_answer.receipt.started;
    world.seal(&planter, &mut canary_answer);
    let lie = world.answer(&liar, Audit::Drawn, true, 2);
    let canary_at = world.post(&planter, vec![canary_answer.clone()]).await;
    let lie_at = world.post(&liar, vec![lie]).await;
    world.pass().await;
    lazy.reveal(epoch).await;
    honest.until(|h| *h == Happening::Revealed { epoch }).await;

    world.pass().await;
    let places = [canary_at, lie_at];
    let list = places.map(|place| Said { place, verdict: Verdict::True }).to_vec();
    let duty = Duty::CommitVerdicts { epoch, list: list.clone(), salt: B256::repeat_byte(2) };
    lazy.chain.attend(&[duty]).await.unwrap();
    for place in places {
        let wrong = |h: &Happening| matches!(h, Happening::Judged { at, found: Found::False { .. }, .. } if *at == place);
        honest.until(wrong).await;
    }
    honest.until(|h| *h == Happening::VerdictsCommitted { epoch, verdicts: 2 }).await;
    // The provider that planted shows it before its clock has run out.
    let receipt = posted(&[canary_answer.clone()], 0).receipt;
    world.until("both disputes", async || world.admin.disputes().await.unwrap() == 2).await;
    let mut excused = None;
    for id in 1..=2 {
        let dispute = sponsor.dispute(id).await.unwrap().unwrap();
        excused = (dispute.receipt == receipt).then_some(id).or(excused);
    }
    sponsor.unveil(&canary, &Filing::of(&canary_answer, None)).await.unwrap();
    sponsor.play(&[Move::Excuse { dispute: excused.unwrap() }]).await.unwrap();
    let is_canary =
        |h: &Happening| matches!(h, Happening::NotConvicted { at, .. } if *at == canary_at);
    honest.until(is_canary).await;

    world.pass().await;
    let (list, salt) = (list, B256::repeat_byte(2));
    lazy.chain.attend(&[Duty::RevealVerdicts { epoch, list, salt }]).await.unwrap();
    let convicted = |h: &Happening| matches!(h, Happening::Convicted { at, .. } if *at == lie_at);
    honest.until(convicted).await;
    assert_eq!(lazy.stake().await, BOND, "it was fined before the time for that");
    let planted_with = sponsor.asy_of(key(53).address()).await.unwrap().0;

    world.pass().await;
    let careless = fined(lazy.account, Lapse::Careless { at: canary_at });
    let mistaken = fined(lazy.account, Lapse::Mistaken { at: lie_at });
    honest.until(|h| *h == careless).await;
    honest.until(|h| *h == mistaken).await;
    assert_eq!(lazy.stake().await, 0);
    // Half of what the canary took is its planter's.
    let planter_has = sponsor.asy_of(key(53).address()).await.unwrap().0;
    assert_eq!(planter_has - planted_with, BOND / 4);
    for at in places {
        assert!(lazy.chain.opinion(lazy.account, &at).await.unwrap().fined);
        honest.until(|h| matches!(h, Happening::Paid { at: paid, .. } if *paid == at)).await;
    }
    let about = Posted { place: canary_at, ..posted(&[canary_answer], 0) };
    let again = Duty::Careless { auditor: lazy.account, about };
    assert!(!sponsor.may_attend(&again).await.unwrap(), "a verdict was fined twice");
    honest.stop().await;
    assert_eq!(world.admin.auditor(key(31).address()).await.unwrap().stake.0, BOND);
}
