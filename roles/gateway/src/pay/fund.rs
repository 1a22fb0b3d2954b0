//! Does what a purse needs of the chain, one thing after the other: an account has one nonce.

use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_chain::ChainError;
use assay_protocol::{Address, Amount, ChannelId};
use tokio::time::{MissedTickBehavior, interval};

use super::{Account, Job, Jobs, Lane, PositionError, Purse, Seller, Slot};
use crate::http::now_s;
use crate::store::StoreError;

/// How often it is looked whether someone waits for what a failure or a rest held up.
const TICK: Duration = Duration::from_millis(200);

/// How long nothing is asked of the chain for a provider after it failed.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// How often money on its way back is looked after.
const WIND_DOWN_EVERY: Duration = Duration::from_secs(30);

/// Numbers of lanes that are tried in one go: some may have ended in a lost store.
const NUMBERS_MAX: u32 = 64;

/// Shortest delay of a withdrawal that the contract takes, in seconds.
const WITHDRAW_DELAY_MIN_S: u64 = 900;

/// Seconds by which the chain's clock may be behind ours.
const CLOCK_SKEW_S: u64 = 15;

/// Why a lane could not be opened.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("{0}")]
    Chain(#[from] ChainError),
    #[error("{0}")]
    Position(#[from] PositionError),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{NUMBERS_MAX} of its channels have ended")]
    Numbers,
    #[error("it wants to be paid at {found}, its till is {expected}")]
    Till { found: Address, expected: Address },
}

impl Purse {
    /// Works at jobs for ever.
    pub(crate) async fn work(self: &Arc<Self>, jobs: Jobs) {
        tokio::join!(self.do_jobs(jobs), self.look_around());
    }

    async fn look_around(self: &Arc<Self>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let providers: Vec<Address> = self.lock().keys().copied().collect();
            for provider in providers {
                self.change(provider, |_| {});
            }
        }
    }

    async fn do_jobs(self: &Arc<Self>, mut jobs: Jobs) {
        while let Some(job) = jobs.recv().await {
            match job {
                Job::Open(seller, most) => {
                    let opened = if self.is_missed(&seller) {
                        self.open_lane(&seller, most).await
                    } else {
                        Ok(())
                    };
                    self.change(seller.provider, |account| {
                        account.opening -= 1;
                        account.note(opened);
                    });
                }
                Job::Fill(provider, id, amount) => {
                    let filled = self.fill(provider, id, amount).await;
                    self.done(provider, id, filled);
                }
                Job::Look(provider, id) => {
                    let seen = self.look(provider, id).await;
                    self.done(provider, id, seen);
                }
                Job::WindDown(provider, id) => {
                    let returned = self.wind_down(provider, id).await;
                    if let Err(error) = &returned {
                        tracing::warn!(channel = %id, %error, "money is not back yet");
                    }
                    self.change(provider, |account| {
                        if let Some(slot) = account.slot(id) {
                            slot.asked = false;
                            slot.returned = matches!(returned, Ok(true));
                            slot.rests_until = Some(Instant::now() + WIND_DOWN_EVERY);
                        }
                    });
                }
            }
        }
    }

    fn done(self: &Arc<Self>, provider: Address, id: ChannelId, result: Result<(), OpenError>) {
        self.change(provider, |account| {
            if let Some(slot) = account.slot(id) {
                slot.asked = false;
            }
            account.note(result);
        });
    }

    /// Whether another lane to `seller` is still wanted: those who waited when it was asked for may
    /// have been served meanwhile.
    fn is_missed(&self, seller: &Seller) -> bool {
        let mut accounts = self.lock();
        let account = accounts.entry(seller.provider).or_default();
        account.waiting.iter().any(|waiting| !waiting.given.is_closed())
            || !account.slots.iter().any(|slot| slot.usable(&seller.accepts))
    }

    /// Opens the next lane to `seller`, or finds one that was opened before its store was lost.
    async fn open_lane(self: &Arc<Self>, seller: &Seller, most: Amount) -> Result<(), OpenError> {
        let (provider, bank) = (seller.provider, &self.terms.bank);
        let (found, expected) = (seller.accepts.receiver, bank.till(provider).await?);
        if found != expected {
            return Err(OpenError::Till { found, expected });
        }
        let delay = seller.accepts.withdraw_delay_min.max(WITHDRAW_DELAY_MIN_S);
        for _ in 0..NUMBERS_MAX {
            let number = self.lock().entry(provider).or_default().next_number();
            let buyer = self.key.address();
            let mut lane = Lane::new(provider, buyer, &seller.accepts, delay, number);
            self.recover(seller, &mut lane).await?;
            let mut slot = Slot::new(&self.at, lane, 0);
            // Kept before there is money in it, so that money is never without a lane.
            self.store.keep(vec![slot.row()?]).await?;
            if slot.lane.ended {
                self.change(provider, |account| account.slots.push(slot));
                continue;
            }
            if !slot.lane.affords(most.max(Amount(1))) {
                let amount = self.terms.deposit.max(most);
                bank.deposit(&slot.lane.channel, amount).await?;
                slot.lane.deposited = bank.state(slot.id).await?.balance;
                tracing::info!(channel = %slot.id, %provider, %amount, "payment channel opened");
            }
            self.change(provider, |account| account.slots.push(slot));
            return Ok(());
        }
        Err(OpenError::Numbers)
    }

    /// What chain and provider know of a lane that is not known here. One that cannot be gone on with
    /// has ended.
    async fn recover(&self, seller: &Seller, lane: &mut Lane) -> Result<(), OpenError> {
        let id = lane.id(&self.at);
        let state = self.terms.bank.state(id).await?;
        lane.deposited = state.balance;
        match self.position(&seller.url, id).await? {
            None => lane.ended = state.claimed > Amount(0),
            Some(position) => {
                let credit = seller.accepts.credit_max.min(self.price_max);
                match lane.recover(&self.at, &position, credit) {
                    Ok(()) => lane.doubt(self.price_max),
                    Err(error) => {
                        tracing::error!(channel = %id, url = seller.url, %error, "channel given up");
                        lane.ended = true;
                    }
                }
            }
        }
        lane.ended |= state.withdrawal.is_some();
        Ok(())
    }

    async fn fill(
        &self,
        provider: Address,
        id: ChannelId,
        amount: Amount,
    ) -> Result<(), OpenError> {
        let channel = self
            .lock()
            .get_mut(&provider)
            .and_then(|account| account.slot(id))
            .map(|slot| slot.lane.channel.clone());
        let Some(channel) = channel else { return Ok(()) };
        self.terms.bank.deposit(&channel, amount).await?;
        tracing::info!(channel = %id, %provider, %amount, "payment channel topped up");
        self.look(provider, id).await
    }

    /// Sees what a lane holds.
    async fn look(&self, provider: Address, id: ChannelId) -> Result<(), OpenError> {
        let state = self.terms.bank.state(id).await?;
        let row = {
            let mut accounts = self.lock();
            let slot = accounts.get_mut(&provider).and_then(|account| account.slot(id));
            let Some(slot) = slot else { return Ok(()) };
            slot.lane.deposited = state.balance;
            slot.lane.ended |= state.withdrawal.is_some();
            slot.row()?
        };
        Ok(self.store.keep(vec![row]).await?)
    }

    /// Brings the money of an ended lane one step nearer; whether it is back.
    async fn wind_down(&self, provider: Address, id: ChannelId) -> Result<bool, OpenError> {
        let lane = {
            let mut accounts = self.lock();
            let slot = accounts.get_mut(&provider).and_then(|account| account.slot(id));
            slot.map(|slot| slot.lane.clone())
        };
        let Some(lane) = lane else { return Ok(true) };
        let bank = &self.terms.bank;
        let state = bank.state(id).await?;
        let left = Amount(state.balance.0.saturating_sub(state.claimed.0));
        match state.withdrawal {
            _ if left == Amount(0) => return Ok(true),
            None => bank.start_withdrawal(&lane.channel, left).await?,
            Some(withdrawal) => {
                let over = withdrawal.since.saturating_add(lane.channel.withdraw_delay);
                if now_s() < over.saturating_add(CLOCK_SKEW_S) {
                    return Ok(false);
                }
                bank.finish_withdrawal(&lane.channel).await?;
                tracing::info!(channel = %id, %provider, "what was left of a payment channel is back");
            }
        }
        Ok(false)
    }
}

impl Account {
    /// Remembers whether the chain did what was asked.
    fn note(&mut self, result: Result<(), OpenError>) {
        match result {
            Ok(()) => self.failed = None,
            Err(error) => {
                tracing::warn!(%error, "a payment channel could not be funded");
                self.failed = Some((Instant::now() + RETRY_AFTER, error.to_string()));
            }
        }
    }
}
