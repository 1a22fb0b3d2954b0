//! The purse: lanes to providers, who may use them, and the money in them.
//!
//! One order at a time runs on a lane, so parallel orders take several. Who finds all of them taken
//! waits in line. Nobody waits for the chain but a background task: it opens lanes as orders grow
//! parallel, fills them as they run low, looks after them when a provider doubts what they hold, and
//! brings the money back from lanes that have ended.
//!
//! Salts follow from a lane's number, and providers keep positions. So a purse that was lost with its
//! store finds its channels on the chain and goes on from the last voucher it had signed. One key
//! must belong to one gateway.

mod bank;
mod fund;
mod lane;
mod lease;
mod unsettled;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use assay_protocol::wire::{Accepts, Position};
use assay_protocol::{Address, Amount, ChainId, ChannelId, Channels, Key, OrderHash};
use reqwest::StatusCode;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::Payments;
use crate::directory::STRUCK_S;
use crate::lines::short_body;
use crate::openai::Problem;
use crate::route::Candidate;
use crate::store::{Row, Store, StoreError};

pub use bank::Bank;
use lane::{AdoptError, Lane};
pub(crate) use lane::{Bill, DueError};
pub(crate) use lease::{Lease, Line};
pub(crate) use unsettled::{Claim, Unsettled};

/// Longest answer to a question for a channel's position, in bytes.
const POSITION_BYTES_MAX: usize = 4 << 10;

/// Longest wait for that answer.
const POSITION_WAIT_MAX: Duration = Duration::from_secs(5);

/// Why there is no lane for an order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PayError {
    /// All lanes were in use for all that time.
    #[error("no payment channel to provider {provider} was free within {waited_ms} ms")]
    Wait { waited_ms: u128, provider: Address },
    /// The chain did not do what was needed.
    #[error("no payment channel to provider {provider} could be funded: {reason}")]
    Bank { reason: String, provider: Address },
    /// The provider has lied meanwhile.
    #[error("nothing is bought from provider {provider} now")]
    Ended { provider: Address },
}

impl From<PayError> for Problem {
    fn from(error: PayError) -> Self {
        let (status, code) = (StatusCode::SERVICE_UNAVAILABLE, "payment_unavailable");
        Self { retry_after_s: Some(2), ..Self::new(status, code, error.to_string()) }
    }
}

/// Why a lane's position is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PositionError {
    /// The provider did not say.
    #[error("the provider did not say where the channel is: {0}")]
    Unknown(String),
    /// It said what cannot be.
    #[error("the provider's word on the channel's position is not so: {0}")]
    Lie(#[from] AdoptError),
    /// It says that an answer was charged, and cannot show it.
    #[error("the provider charged for order {order}, but {reason}")]
    Unproven { reason: String, order: OrderHash },
    /// The answer that it showed was not kept.
    #[error("what the provider showed cannot be kept: {0}")]
    Store(#[from] StoreError),
}

/// Who takes our orders, and how it is paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seller {
    pub(crate) provider: Address,
    pub(crate) url: String,
    pub(crate) accepts: Accepts,
}

impl Seller {
    /// Who makes an offer, if it is paid.
    pub(crate) fn of(candidate: &Candidate) -> Option<Self> {
        let accepts = candidate.accepts.clone()?;
        Some(Self { provider: candidate.offer.provider, url: candidate.url.clone(), accepts })
    }
}

/// What providers are paid with.
#[derive(Debug)]
pub(crate) struct Purse {
    key: Key,
    /// Where our channels are.
    pub(crate) at: Channels,
    pub(crate) terms: Payments,
    /// Most that one answer costs.
    price_max: Amount,
    http: reqwest::Client,
    store: Store,
    state: Mutex<BTreeMap<Address, Account>>,
    /// At most one job for each lane there is or may be, and one for each that has ended.
    jobs: mpsc::UnboundedSender<Job>,
}

/// The lanes to one provider.
#[derive(Debug, Default)]
struct Account {
    /// Nobody before it is chosen, and once it lied.
    seller: Option<Seller>,
    slots: Vec<Slot>,
    /// Bounded by the requests that the gateway works on at once.
    waiting: VecDeque<Waiting>,
    /// Most that the last order could cost: what a lane should be able to pay.
    most: Amount,
    /// A lane is wanted though nobody waits.
    foreseen: bool,
    /// Until when nothing is bought from a provider that lied.
    alone_until: Option<Instant>,
    /// Lanes being opened.
    opening: usize,
    /// Why the chain last failed, and until when it is left alone.
    failed: Option<(Instant, String)>,
}

/// A lane, and what goes on with it.
#[derive(Debug)]
struct Slot {
    id: ChannelId,
    lane: Lane,
    /// Counts its changes.
    change: u64,
    busy: bool,
    /// The order after which nobody here knows what was charged.
    unsettled: Option<Arc<Unsettled>>,
    /// The chain is being asked about it.
    asked: bool,
    rests_until: Option<Instant>,
    /// It has ended, and its money is back.
    returned: bool,
}

/// Where a lane, or why there is none, is told.
type Given = oneshot::Sender<Result<Lease, PayError>>;

/// An order that waits for a lane.
#[derive(Debug)]
struct Waiting {
    most: Amount,
    given: Given,
}

/// What the background does.
#[derive(Debug)]
pub(crate) enum Job {
    /// Opens another lane, for an order of at most this price.
    Open(Seller, Amount),
    /// Puts so much more into a lane.
    Fill(Address, ChannelId, Amount),
    /// Asks what a lane holds.
    Look(Address, ChannelId),
    /// Brings the money of an ended lane one step nearer.
    WindDown(Address, ChannelId),
}

/// Jobs for [`Purse::work`].
pub(crate) type Jobs = mpsc::UnboundedReceiver<Job>;

/// What one lane holds, in base units, cumulative since its channel was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LaneStatus {
    /// Who is paid with it.
    pub provider: Address,
    /// Its channel.
    pub channel: ChannelId,
    /// What the chain has confirmed.
    pub deposited: Amount,
    /// How much vouchers allow to be claimed.
    pub signed: Amount,
    /// What receipts have cost.
    pub charged: Amount,
    /// Most that orders without a receipt may have cost beyond that.
    pub unsure: Amount,
    /// Whether an order runs on it.
    pub busy: bool,
    /// Whether nothing is bought with it any more, and its money is on its way back.
    pub ended: bool,
}

/// What dispatching found out, to be told once nothing is locked.
#[derive(Debug, Default)]
struct Dispatched {
    served: Vec<(Given, Result<Lease, PayError>)>,
    jobs: Vec<Job>,
}

impl Slot {
    fn status(&self) -> LaneStatus {
        LaneStatus {
            provider: self.lane.provider,
            channel: self.id,
            deposited: self.lane.deposited,
            signed: self.lane.signed(),
            charged: self.lane.charged,
            unsure: self.lane.slack,
            busy: self.busy,
            ended: self.lane.ended,
        }
    }

    fn new(at: &Channels, lane: Lane, change: u64) -> Self {
        let id = lane.id(at);
        Self {
            id,
            lane,
            change,
            busy: false,
            unsettled: None,
            asked: false,
            rests_until: None,
            returned: false,
        }
    }

    fn is_free(&self, now: Instant) -> bool {
        !self.busy && self.rests_until.is_none_or(|until| until <= now)
    }

    fn usable(&self, accepts: &Accepts) -> bool {
        !self.lane.ended && self.lane.suits(accepts)
    }

    /// The row of its next state.
    fn row(&mut self) -> Result<Row, StoreError> {
        self.change += 1;
        Row::lane(self.id, self.change, &self.lane)
    }
}

impl Account {
    fn slot(&mut self, id: ChannelId) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.id == id)
    }

    /// The number of the next lane.
    fn next_number(&self) -> u32 {
        self.slots.iter().map(|slot| slot.lane.number.saturating_add(1)).max().unwrap_or(0)
    }

    /// Why the chain is left alone for now.
    fn failure(&self, now: Instant) -> Option<&str> {
        let failed = self.failed.as_ref().filter(|(until, _)| now < *until);
        failed.map(|(_, reason)| reason.as_str())
    }
}

impl Account {
    fn choose(&mut self, seller: &Seller) {
        if self.alone_until.is_none_or(|until| until <= Instant::now()) {
            self.seller = Some(seller.clone());
        }
    }

    /// Whether an order that waits may get a lane yet.
    fn can_serve(&self, accepts: &Accepts, most: Amount) -> bool {
        let hope = |slot: &Slot| slot.usable(accepts) && (slot.asked || slot.lane.affords(most));
        self.opening > 0 || self.slots.iter().any(hope)
    }

    /// A job for each ended lane whose money is not back.
    fn wind_down(&mut self, now: Instant) -> Vec<Job> {
        let due = |slot: &&mut Slot| {
            slot.lane.ended && !slot.returned && !slot.asked && slot.is_free(now)
        };
        let due = self.slots.iter_mut().filter(due);
        due.map(|slot| {
            slot.asked = true;
            Job::WindDown(slot.lane.provider, slot.id)
        })
        .collect()
    }
}

impl Purse {
    /// Opens the purse with the lanes in `store`. Where each of them is, its provider is asked before
    /// it is used: orders may have been running when it was closed.
    pub(crate) async fn open(
        key: Key,
        chain: ChainId,
        terms: Payments,
        price_max: Amount,
        http: reqwest::Client,
        store: Store,
    ) -> Result<(Arc<Self>, Jobs), StoreError> {
        let at = Channels { chain, contract: terms.channels };
        let mut state = BTreeMap::<Address, Account>::new();
        let (jobs, waiting) = mpsc::unbounded_channel();
        for (change, mut lane) in store.lanes::<Lane>().await? {
            lane.doubt(price_max);
            let mut slot = Slot::new(&at, lane, change);
            slot.asked = true;
            let provider = slot.lane.provider;
            let job = if slot.lane.ended { Job::WindDown } else { Job::Look };
            // The receiver is at hand.
            let _ = jobs.send(job(provider, slot.id));
            state.entry(provider).or_default().slots.push(slot);
        }
        let state = Mutex::new(state);
        Ok((Arc::new(Self { key, at, terms, price_max, http, store, state, jobs }), waiting))
    }

    /// A lane to `seller` that pays for an answer of at most `most`. Orders are served in turn.
    ///
    /// # Errors
    /// If none is free in time, or the chain keeps them from being funded.
    pub(crate) async fn lane(
        self: &Arc<Self>,
        seller: &Seller,
        most: Amount,
    ) -> Result<Lease, PayError> {
        let (given, lease) = oneshot::channel();
        let provider = seller.provider;
        self.change(provider, |account| {
            account.choose(seller);
            account.most = most;
            account.waiting.push_back(Waiting { most, given });
        });
        let wait = PayError::Wait { waited_ms: self.terms.lane_wait_max.as_millis(), provider };
        let lease = timeout(self.terms.lane_wait_max, lease).await;
        lease.map_err(|_| wait.clone())?.map_err(|_| wait)?
    }

    /// Opens a first lane to `seller` ahead of need.
    pub(crate) fn foresee(self: &Arc<Self>, seller: &Seller) {
        self.change(seller.provider, |account| {
            account.choose(seller);
            account.foreseen = true;
        });
    }

    /// Ends the session with a provider that lied: nothing is bought on its lanes any more, and what
    /// is left in them comes back. Gives what has to be kept about that.
    pub(crate) fn end(self: &Arc<Self>, provider: Address) -> Vec<Row> {
        let mut rows = Vec::new();
        self.change(provider, |account| {
            account.seller = None;
            account.alone_until = Some(Instant::now() + Duration::from_secs(STRUCK_S));
            for slot in account.slots.iter_mut().filter(|slot| !slot.lane.ended) {
                (slot.lane.ended, slot.unsettled) = (true, None);
                match slot.row() {
                    Ok(row) => rows.push(row),
                    Err(error) => tracing::error!(channel = %slot.id, %error, "not kept"),
                }
            }
        });
        rows
    }

    /// What is in the lanes, by provider.
    pub(crate) fn status(&self) -> Vec<LaneStatus> {
        let state = self.lock();
        let slots = state.values().flat_map(|account| &account.slots);
        slots.map(Slot::status).collect()
    }

    /// Where the provider at `url` says channel `id` is; nothing for one it never saw.
    async fn position(&self, url: &str, id: ChannelId) -> Result<Option<Position>, PositionError> {
        let unknown = |reason: String| PositionError::Unknown(reason);
        let ask = self.http.get(format!("{url}/v1/channels/{id}")).timeout(POSITION_WAIT_MAX);
        let mut reply = ask.send().await.map_err(|error| unknown(error.to_string()))?;
        match reply.status() {
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::OK => {}
            status => return Err(unknown(format!("status {status}"))),
        }
        let body = short_body(&mut reply, POSITION_BYTES_MAX).await;
        let body = body.map_err(|error| unknown(error.to_string()))?;
        let body = body.ok_or_else(|| unknown(format!("more than {POSITION_BYTES_MAX} bytes")))?;
        serde_json::from_slice(&body).map(Some).map_err(|error| unknown(error.to_string()))
    }

    /// Changes one account, and serves who waits there.
    fn change(self: &Arc<Self>, provider: Address, change: impl FnOnce(&mut Account)) {
        let dispatched = {
            let mut state = self.lock();
            let account = state.entry(provider).or_default();
            change(account);
            self.dispatch(provider, account)
        };
        for job in dispatched.jobs {
            // Nobody works at jobs only while the gateway ends.
            let _ = self.jobs.send(job);
        }
        for (given, lease) in dispatched.served {
            // Who stopped waiting in this moment drops the lease, which gives it back.
            let _ = given.send(lease);
        }
    }

    /// Gives free lanes to who waits, first come first served, and has the chain asked for what is
    /// missing.
    fn dispatch(self: &Arc<Self>, provider: Address, account: &mut Account) -> Dispatched {
        let now = Instant::now();
        let mut done = Dispatched { jobs: account.wind_down(now), ..Dispatched::default() };
        account.waiting.retain(|waiting| !waiting.given.is_closed());
        let Some(seller) = account.seller.clone() else {
            for waiting in account.waiting.drain(..) {
                done.served.push((waiting.given, Err(PayError::Ended { provider })));
            }
            return done;
        };
        for waiting in std::mem::take(&mut account.waiting) {
            let fits = |slot: &&mut Slot| {
                slot.is_free(now) && slot.usable(&seller.accepts) && slot.lane.affords(waiting.most)
            };
            match account.slots.iter_mut().find(fits) {
                Some(slot) => {
                    slot.busy = true;
                    let lease = Lease::new(self, &seller, slot);
                    done.served.push((waiting.given, Ok(lease)));
                }
                None => account.waiting.push_back(waiting),
            }
        }
        if account.failure(now).is_none() {
            self.provide(&seller, account, &mut done.jobs);
        }
        let reason = account.failure(now).unwrap_or("no lanes are allowed").to_owned();
        for waiting in std::mem::take(&mut account.waiting) {
            if account.can_serve(&seller.accepts, waiting.most) {
                account.waiting.push_back(waiting);
            } else {
                let error = PayError::Bank { reason: reason.clone(), provider };
                done.served.push((waiting.given, Err(error)));
            }
        }
        done
    }

    /// What the chain has to do so that those who still wait are served, and those after them.
    fn provide(&self, seller: &Seller, account: &mut Account, jobs: &mut Vec<Job>) {
        let waiting = account.waiting.iter().map(|waiting| waiting.most);
        let most = waiting.max().unwrap_or_default().max(account.most);
        let (mut lanes, mut busy) = (account.opening, 0);
        for slot in account.slots.iter_mut().filter(|slot| slot.usable(&seller.accepts)) {
            lanes += 1;
            busy += usize::from(slot.busy);
            if !slot.asked && !slot.lane.affords(most) {
                slot.asked = true;
                let amount = self.terms.deposit.max(most);
                jobs.push(Job::Fill(seller.provider, slot.id, amount));
            }
        }
        let wanted = (busy + account.waiting.len()).max(usize::from(account.foreseen));
        for _ in lanes..wanted.min(self.terms.lanes_max) {
            account.opening += 1;
            jobs.push(Job::Open(seller.clone(), most));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Address, Account>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
