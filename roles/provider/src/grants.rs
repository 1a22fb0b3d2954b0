//! The grants that orders come under now: whether they hold, what of them is left, and how often they
//! are used.
//!
//! The chain is asked when a grant is first used, and again when it was not for a while; between, what
//! it said is believed and asked again in the background, so an order seldom waits for the chain. One
//! under a grant that was made for it alone, as gateways make them for their own clients, always waits
//! once: nothing is known of such a grant before, and that it was not taken back is its issuer's word.
//!
//! What is spent stands in the store, what answers that run may cost included: a grant is never
//! overspent here, however many orders come at once and whenever the provider is killed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use assay_protocol::wire::Refusal;
use assay_protocol::{Address, Amount, B256};
use futures_util::future::try_join_all;
use futures_util::{StreamExt, stream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::admit::Under;
use crate::bank::Bank;
use crate::intake::storage;
use crate::pace::Pace;
use crate::store::{self, Store};

/// Grants remembered at once. Beyond it, one that no order is about to begin under is forgotten, and
/// asked about again at its next use.
const STANDINGS_MAX: usize = 65_536;

/// How long the chain's word that a grant holds is believed without asking again.
const FRESH: Duration = Duration::from_secs(10);

/// Age at which that word is not believed any more: the next order waits for a new one. A younger one
/// is believed once more, and asked for in the background. So whoever takes a grant back is heard
/// after at most so long, and where it is in use, soon after [`FRESH`].
const STALE: Duration = Duration::from_secs(60);

/// Longest wait for the chain, the turn to ask it included.
const ASK_WAIT_MAX: Duration = Duration::from_secs(10);

/// Orders that have the chain asked at once.
const ASKS_MAX: usize = 16;

/// Questions to the chain at once in the background.
const REFRESHES_AT_ONCE: usize = 8;

/// Shortest time between two rounds of them.
const REFRESHES_APART: Duration = Duration::from_millis(100);

/// Looks at what is spent before an order is refused: answers that end meanwhile change it.
const LOOKS_MAX: usize = 3;

/// What is known of grants.
#[derive(Clone, Debug)]
pub(crate) struct Grants {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bank: Arc<dyn Bank>,
    standings: Mutex<HashMap<B256, Standing>>,
    asks: Semaphore,
    wanted: Notify,
}

/// What is known of one grant.
#[derive(Debug)]
struct Standing {
    issuer: Address,
    /// When the chain last said that it holds.
    held_at: Option<Instant>,
    /// It was taken back: for good.
    revoked: bool,
    /// Whether the chain is to be asked in the background.
    wanted: bool,
    /// Orders that are admitted, and whose highest prices are not on disk yet.
    pending: usize,
    /// Those prices, base units.
    held: u128,
    /// How many of them are not pending any more.
    ended: u64,
    pace: Pace,
}

impl Standing {
    fn new(issuer: Address) -> Self {
        Self {
            issuer,
            held_at: None,
            revoked: false,
            wanted: false,
            pending: 0,
            held: 0,
            ended: 0,
            pace: Pace::default(),
        }
    }
}

/// The right of one order to cost so much of its grants. It is kept until the store says the same.
#[derive(Debug)]
pub(crate) struct Hold {
    grants: Grants,
    under: Vec<Under>,
    asked: Amount,
}

/// What a grant's standing was at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    held: u128,
    ended: u64,
}

impl Grants {
    pub(crate) fn new(bank: Arc<dyn Bank>) -> Self {
        let inner = Inner {
            bank,
            standings: Mutex::default(),
            asks: Semaphore::new(ASKS_MAX),
            wanted: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Makes sure that grants hold, and that an order that may cost `asked` is within what is left of
    /// each, in money and in orders a minute.
    pub(crate) async fn hold(
        &self,
        under: Vec<Under>,
        asked: Amount,
        store: &Store,
    ) -> Result<Hold, Refusal> {
        self.in_force(&under).await?;
        let (hold, looks) = self.reserve(under, asked);
        hold.within(looks, store).await?;
        self.pace(&hold.under)?;
        Ok(hold)
    }

    /// Makes sure that none was taken back, as far as the chain said lately or says now.
    async fn in_force(&self, under: &[Under]) -> Result<(), Refusal> {
        let unknown = self.unknown(under)?;
        if unknown.is_empty() {
            return Ok(());
        }
        let bank = &self.inner.bank;
        let answers = timeout(ASK_WAIT_MAX, async {
            let _turn = self.inner.asks.acquire().await;
            try_join_all(unknown.iter().map(|one| bank.is_revoked(one.issuer, one.digest))).await
        });
        let reason = match answers.await {
            Ok(Ok(answers)) => {
                for (one, revoked) in unknown.iter().zip(answers) {
                    self.learn(one.digest, one.issuer, revoked);
                }
                return self.unknown(under).map(drop);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer in {} s", ASK_WAIT_MAX.as_secs()),
        };
        Err(Refusal::Chain { reason })
    }

    /// Those about which the chain must be asked first. Those that are merely not fresh are asked about
    /// in the background; one that is known to be taken back is a refusal.
    fn unknown(&self, under: &[Under]) -> Result<Vec<Under>, Refusal> {
        let mut standings = self.lock();
        let mut unknown = Vec::new();
        for one in under {
            let standing = standing(&mut standings, one.digest, one.issuer);
            if standing.revoked {
                return Err(Refusal::GrantRevoked { grant: one.digest });
            }
            match standing.held_at.map(|at| at.elapsed()) {
                Some(age) if age < FRESH => {}
                Some(age) if age < STALE => {
                    standing.wanted = true;
                    self.inner.wanted.notify_one();
                }
                _ => unknown.push(*one),
            }
        }
        Ok(unknown)
    }

    /// Takes the chain's word.
    fn learn(&self, grant: B256, issuer: Address, revoked: bool) {
        let mut standings = self.lock();
        let standing = standing(&mut standings, grant, issuer);
        standing.revoked |= revoked;
        standing.held_at = Some(Instant::now());
    }

    /// Sets aside what an order may cost; what was set aside of each grant then, this included.
    fn reserve(&self, under: Vec<Under>, asked: Amount) -> (Hold, Vec<Look>) {
        let mut standings = self.lock();
        let looks = under.iter().map(|one| {
            let standing = standing(&mut standings, one.digest, one.issuer);
            standing.pending += 1;
            standing.held = standing.held.saturating_add(asked.0);
            Look { held: standing.held, ended: standing.ended }
        });
        let looks = looks.collect();
        (Hold { grants: self.clone(), under, asked }, looks)
    }

    /// Counts an order, unless there were too many of late.
    fn pace(&self, under: &[Under]) -> Result<(), Refusal> {
        let mut standings = self.lock();
        let now = Instant::now();
        for &Under { digest, issuer, rate, .. } in under.iter().filter(|one| one.rate > 0) {
            if standing(&mut standings, digest, issuer).pace.of_late(now) >= rate {
                return Err(Refusal::GrantRate { grant: digest, rate });
            }
        }
        for one in under {
            standing(&mut standings, one.digest, one.issuer).pace.count(now);
        }
        Ok(())
    }

    /// What is set aside of these grants now.
    fn look(&self, under: &[Under]) -> Vec<Look> {
        let mut standings = self.lock();
        let looks = under.iter().map(|one| {
            let standing = standing(&mut standings, one.digest, one.issuer);
            Look { held: standing.held, ended: standing.ended }
        });
        looks.collect()
    }

    /// Asks about those that orders used and that were not fresh.
    async fn ask_wanted(&self) {
        let wanted: Vec<(B256, Address)> = {
            let mut standings = self.lock();
            let wanted = standings.iter_mut().filter(|(_, standing)| standing.wanted);
            let taken = wanted.map(|(&grant, standing)| {
                standing.wanted = false;
                (grant, standing.issuer)
            });
            taken.collect()
        };
        let bank = &self.inner.bank;
        let mut answers = stream::iter(wanted)
            .map(|(grant, issuer)| async move {
                (grant, issuer, timeout(ASK_WAIT_MAX, bank.is_revoked(issuer, grant)).await)
            })
            .buffer_unordered(REFRESHES_AT_ONCE);
        while let Some((grant, issuer, answer)) = answers.next().await {
            match answer {
                Ok(Ok(revoked)) => self.learn(grant, issuer, revoked),
                // What is known grows old, and then orders wait for an answer themselves.
                Ok(Err(error)) => tracing::debug!(%grant, %error, "a grant cannot be asked about"),
                Err(_) => tracing::debug!(%grant, "the chain does not say whether a grant holds"),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<B256, Standing>> {
        self.inner.standings.lock().expect("no holder of this lock panics")
    }
}

impl Hold {
    /// Makes sure that with what is spent, no grant is overspent. `looks` were taken when this was set
    /// aside: who sets aside later gives way, so of two orders that exceed it together one is taken.
    async fn within(&self, mut looks: Vec<Look>, store: &Store) -> Result<(), Refusal> {
        let digests: Vec<B256> = self.under.iter().map(|one| one.digest).collect();
        let mut refusal = None;
        for _ in 0..LOOKS_MAX {
            // Read after the look: what left it since is on disk, and counted twice at worst.
            let digests = digests.clone();
            let spent = store.read(move |read| store::spent(read, &digests)).await;
            let spent = spent.map_err(|error| storage(&error))?;
            refusal = self.overspent(&looks, &spent);
            let before = std::mem::replace(&mut looks, self.grants.look(&self.under));
            let moved = before.iter().zip(&looks).any(|(before, now)| before.ended != now.ended);
            if refusal.is_none() || !moved {
                break;
            }
        }
        refusal.map_or(Ok(()), Err)
    }

    /// The first grant of which less is left than is asked.
    fn overspent(&self, looks: &[Look], spent: &[Amount]) -> Option<Refusal> {
        let asked = self.asked;
        self.under.iter().zip(looks).zip(spent).find_map(|((one, look), spent)| {
            let others = look.held.saturating_sub(asked.0);
            let left = one.spend.0.saturating_sub(spent.0).saturating_sub(others);
            let refusal = Refusal::GrantSpent { grant: one.digest, asked, left: Amount(left) };
            (asked.0 > left).then_some(refusal)
        })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut standings = self.grants.lock();
        for one in &self.under {
            // A standing that something is set aside of is never forgotten.
            let Some(standing) = standings.get_mut(&one.digest) else { continue };
            standing.pending = standing.pending.saturating_sub(1);
            standing.held = standing.held.saturating_sub(self.asked.0);
            standing.ended = standing.ended.wrapping_add(1);
        }
    }
}

/// What is known of a grant; room is made for one that is new.
fn standing(
    standings: &mut HashMap<B256, Standing>,
    grant: B256,
    issuer: Address,
) -> &mut Standing {
    if standings.len() >= STANDINGS_MAX && !standings.contains_key(&grant) {
        let idle = standings.iter().find(|(_, standing)| standing.pending == 0);
        idle.map(|(&grant, _)| grant).and_then(|grant| standings.remove(&grant));
    }
    standings.entry(grant).or_insert_with(|| Standing::new(issuer))
}

/// Asks about grants in the background until `stop`.
pub(crate) async fn refresh(grants: &Grants, stop: CancellationToken) {
    let rounds = async {
        loop {
            grants.inner.wanted.notified().await;
            grants.ask_wanted().await;
            sleep(REFRESHES_APART).await;
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = rounds => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use assay_chain::{ChainError, Claim, Span};
    use assay_protocol::{Channel, ChannelId};
    use futures_util::FutureExt;

    use super::*;
    use crate::bank::{Asked, Reading};

    /// A chain that knows grants and nothing else.
    #[derive(Debug, Default)]
    struct Registry {
        revoked: Mutex<HashSet<B256>>,
        silent: Mutex<bool>,
        asked: Mutex<u32>,
    }

    fn silent<T: Send + 'static>() -> Asked<'static, T> {
        async { Err(ChainError::NoKey) }.boxed()
    }

    impl Bank for Registry {
        fn is_revoked(&self, _: Address, grant: B256) -> Asked<'_, bool> {
            *self.asked.lock().unwrap() += 1;
            let revoked = self.revoked.lock().unwrap().contains(&grant);
            if *self.silent.lock().unwrap() { silent() } else { async move { Ok(revoked) }.boxed() }
        }

        fn height(&self) -> Asked<'_, u64> {
            silent()
        }
        fn time(&self) -> Asked<'_, u64> {
            silent()
        }
        fn gas_price(&self) -> Asked<'_, u128> {
            silent()
        }
        fn channel(&self, _: ChannelId) -> Asked<'_, Reading> {
            silent()
        }
        fn withdrawals(&self, _: u64, _: u64) -> Asked<'_, Vec<ChannelId>> {
            silent()
        }
        fn open_till(&self, _: Address) -> Asked<'_, ()> {
            silent()
        }
        fn claim<'a>(&'a self, _: &'a [Claim]) -> Asked<'a, ()> {
            silent()
        }
        fn release<'a>(&'a self, _: Address, _: &'a [Channel]) -> Asked<'a, ()> {
            silent()
        }
        fn paid_out(&self, _: Address, _: ChannelId) -> Asked<'_, Amount> {
            silent()
        }
        fn dispute_window(&self) -> Asked<'_, u64> {
            silent()
        }
        fn post<'a>(&'a self, _: Address, _: B256, _: u64, _: &'a [Span]) -> Asked<'a, ()> {
            silent()
        }
        fn periods(&self, _: Address) -> Asked<'_, u64> {
            silent()
        }
        fn period(&self, _: Address, _: u64) -> Asked<'_, B256> {
            silent()
        }
        fn covered(&self, _: Address, _: ChannelId) -> Asked<'_, Amount> {
            silent()
        }
    }

    fn under(byte: u8) -> Under {
        let (digest, issuer) = (B256::repeat_byte(byte), Address::repeat_byte(byte));
        Under { digest, issuer, spend: Amount(100), rate: 0 }
    }

    /// What is said of grant 1 after so many seconds more, and how often the chain was asked by then.
    async fn after(seconds: u64, grants: &Grants, registry: &Registry) -> (Option<Refusal>, u32) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        let said = grants.in_force(&[under(1)]).await.err();
        // Gives the background its turn.
        sleep(2 * REFRESHES_APART).await;
        (said, *registry.asked.lock().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_grant_is_asked_about_first_then_in_the_background_and_never_after_it_is_gone() {
        let registry = Arc::new(Registry::default());
        let grants = Grants::new(Arc::clone(&registry) as Arc<dyn Bank>);
        let stop = CancellationToken::new();
        let background = {
            let (grants, stop) = (grants.clone(), stop.clone());
            tokio::spawn(async move { refresh(&grants, stop).await })
        };
        let revoked = Some(Refusal::GrantRevoked { grant: under(1).digest });
        assert_eq!(after(0, &grants, &registry).await, (None, 1));
        assert_eq!(after(5, &grants, &registry).await, (None, 1));
        assert_eq!(after(6, &grants, &registry).await, (None, 2));
        // A silent chain is no reason to refuse at once, but it is after a minute.
        *registry.silent.lock().unwrap() = true;
        assert_eq!(after(20, &grants, &registry).await, (None, 3));
        let (refusal, asked) = after(45, &grants, &registry).await;
        assert!(asked == 4 && matches!(refusal, Some(Refusal::Chain { .. })), "{refusal:?}");
        *registry.silent.lock().unwrap() = false;
        assert_eq!(after(0, &grants, &registry).await, (None, 5));
        // Taken back: believed once more at most, and then never again.
        registry.revoked.lock().unwrap().insert(under(1).digest);
        assert_eq!(after(15, &grants, &registry).await, (None, 6));
        registry.revoked.lock().unwrap().clear();
        assert_eq!(after(0, &grants, &registry).await, (revoked.clone(), 6));
        assert_eq!(after(1_000_000, &grants, &registry).await, (revoked, 6));
        stop.cancel();
        background.await.unwrap();
    }

    #[test]
    fn no_more_grants_are_remembered_than_there_is_room_for() {
        let grants = Grants::new(Arc::new(Registry::default()));
        let digest = |number: usize| B256::from(assay_protocol::U256::from(number));
        let (hold, _) = grants.reserve(vec![under(255)], Amount(7));
        for number in 0..STANDINGS_MAX + 10 {
            grants.learn(digest(number), Address::ZERO, false);
        }
        assert_eq!(grants.lock().len(), STANDINGS_MAX);
        // What something is set aside of stays.
        assert_eq!(grants.look(&[under(255)])[0].held, 7);
        drop(hold);
        assert_eq!(grants.look(&[under(255)])[0].held, 0);
    }
}
