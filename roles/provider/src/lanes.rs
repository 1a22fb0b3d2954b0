//! Which channels pay for orders now: each for at most one, and what of its money is believed.
//!
//! The chain is asked when a channel is first used, or seems to hold too little; otherwise `watch`
//! keeps what is known of the channels fresh, so that an order seldom waits for the chain.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use assay_protocol::wire::Refusal;
use assay_protocol::{Amount, ChainId, ChannelId, Channels};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::Payment;
use crate::account::Backing;
use crate::bank::Reading;

/// Channels remembered at once. Beyond it, one that pays for nothing is forgotten and asked for again
/// at its next use.
const SEATS_MAX: usize = 65_536;

/// Questions to the chain at once that strangers' orders cause.
const LOOKS_MAX: usize = 16;

/// Longest wait for the chain, the turn to ask it included.
const LOOK_WAIT_MAX: Duration = Duration::from_secs(10);

/// Shortest time between two looks at one channel, so that vouchers without money do not become
/// questions to the chain.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The channels that pay, or paid lately.
#[derive(Clone, Debug)]
pub(crate) struct Lanes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    payment: Payment,
    channels: Channels,
    seats: Mutex<HashMap<ChannelId, Seat>>,
    looks: Semaphore,
    wanted: Notify,
}

/// What is known of one channel.
#[derive(Debug)]
struct Seat {
    backing: watch::Sender<Backing>,
    /// When the chain was last asked.
    read: Option<Instant>,
    running: bool,
    /// Whether `watch` should look before its next round.
    wanted: bool,
}

/// The right to have a channel pay for one order. Dropping it lets the next order use the channel.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) id: ChannelId,
    /// What of the channel's money is believed, as it changes.
    pub(crate) backing: watch::Receiver<Backing>,
    lanes: Lanes,
}

impl Lanes {
    pub(crate) fn new(payment: Payment, chain: ChainId) -> Self {
        let channels = Channels { chain, contract: payment.accepts.channels };
        let inner = Inner {
            payment,
            channels,
            seats: Mutex::default(),
            looks: Semaphore::new(LOOKS_MAX),
            wanted: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn payment(&self) -> &Payment {
        &self.inner.payment
    }

    /// Where channels are kept: part of every voucher.
    pub(crate) fn channels(&self) -> &Channels {
        &self.inner.channels
    }

    /// Takes a channel for one order, unless another order runs on it.
    pub(crate) fn take(&self, id: ChannelId) -> Result<Lane, Refusal> {
        let mut seats = self.lock();
        if seats.len() >= SEATS_MAX && !seats.contains_key(&id) {
            let idle = seats.iter().find(|(_, seat)| !seat.running).map(|(&id, _)| id);
            idle.and_then(|id| seats.remove(&id));
        }
        let seat = seats.entry(id).or_insert_with(|| Seat {
            backing: watch::Sender::new(Backing::default()),
            read: None,
            running: false,
            wanted: false,
        });
        if seat.running {
            return Err(Refusal::ChannelBusy { channel: id });
        }
        seat.running = true;
        let backing = seat.backing.subscribe();
        Ok(Lane { id, backing, lanes: self.clone() })
    }

    /// Takes a reading of the chain.
    pub(crate) fn observe(&self, id: ChannelId, reading: &Reading) {
        let confirmations = self.inner.payment.confirmations;
        if let Some(seat) = self.lock().get_mut(&id) {
            (seat.read, seat.wanted) = (Some(Instant::now()), false);
            seat.backing.send_if_modified(|backing| {
                let before = *backing;
                backing.observe(&reading.state, reading.height, confirmations);
                *backing != before
            });
        }
    }

    /// Believes only what can leave no more of channels that nobody looked at for too long.
    pub(crate) fn doubt(&self) {
        let blind_max = self.blind_max();
        for seat in self.lock().values_mut() {
            if seat.read.is_some_and(|read| read.elapsed() > blind_max) {
                seat.backing.send_if_modified(|backing| {
                    let before = *backing;
                    backing.doubt();
                    *backing != before
                });
            }
        }
    }

    /// Up to `most` channels that should be looked at: wanted ones, those that pay now, and those
    /// whose reading is old.
    pub(crate) fn due(&self, most: usize) -> Vec<ChannelId> {
        let old = self.old();
        let seats = self.lock();
        let mut due: Vec<(bool, bool, ChannelId)> = seats
            .iter()
            .filter(|(_, seat)| {
                seat.wanted || seat.running || seat.read.is_none_or(|read| read.elapsed() > old)
            })
            .map(|(&id, seat)| (!seat.wanted, !seat.running, id))
            .collect();
        due.sort_unstable();
        due.into_iter().take(most).map(|(_, _, id)| id).collect()
    }

    /// Has `watch` look at a channel soon.
    pub(crate) fn want(&self, id: ChannelId) {
        if let Some(seat) = self.lock().get_mut(&id) {
            seat.wanted = true;
            self.inner.wanted.notify_one();
        }
    }

    /// Waits until somebody wants a look.
    pub(crate) async fn wanted(&self) {
        self.inner.wanted.notified().await;
    }

    /// Age at which a reading is taken again in the background.
    fn old(&self) -> Duration {
        self.inner.payment.watch_every * 3
    }

    /// Age above which a reading says nothing any more. A withdrawal that began right after it must
    /// not be over before the claim that answers it: a third of its delay leaves two for that.
    fn blind_max(&self) -> Duration {
        Duration::from_secs(self.inner.payment.accepts.withdraw_delay_min / 3)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ChannelId, Seat>> {
        self.inner.seats.lock().expect("no holder of this lock panics")
    }
}

impl Lane {
    /// What of the channel's money is believed; asks the chain if that is not known, or less than
    /// `needed`.
    pub(crate) async fn look(&mut self, needed: Amount) -> Result<Backing, Refusal> {
        let age = self.age();
        let known = *self.backing.borrow_and_update();
        if known.confirmed >= needed && age.is_some_and(|age| age < self.lanes.blind_max()) {
            return Ok(known);
        }
        let bank = &self.lanes.inner.payment.bank;
        let reading = timeout(LOOK_WAIT_MAX, async {
            sleep(age.map_or(Duration::ZERO, |age| LOOK_AGAIN.saturating_sub(age))).await;
            let _turn = self.lanes.inner.looks.acquire().await;
            bank.channel(self.id).await
        });
        match reading.await {
            Ok(Ok(reading)) => {
                self.lanes.observe(self.id, &reading);
                Ok(*self.backing.borrow_and_update())
            }
            failed => {
                let reason = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => format!("no answer in {} s", LOOK_WAIT_MAX.as_secs()),
                };
                Err(Refusal::Chain { reason })
            }
        }
    }

    fn age(&self) -> Option<Duration> {
        self.lanes.lock().get(&self.id).and_then(|seat| seat.read).map(|read| read.elapsed())
    }

    /// Has the channel looked at soon: something about its money is not as expected.
    pub(crate) fn want(&self) {
        self.lanes.want(self.id);
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut seats = self.lanes.lock();
        let Some(seat) = seats.get_mut(&self.id) else { return };
        seat.running = false;
        // Channels without money are not worth remembering: anyone can name as many as it likes.
        let empty = *seat.backing.borrow() == Backing::default();
        if empty {
            seats.remove(&self.id);
        }
    }
}
