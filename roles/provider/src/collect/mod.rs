//! Turns receipts and vouchers into money: posts receipts, claims vouchers, and has the till divide
//! what is due.
//!
//! The chain is the book of what was done; the store only says what there is to do. Every step
//! first looks at the chain and does what is missing there, so a step that was interrupted, at
//! whatever point, is done once: by the time it is repeated, the chain tells that it was done.
//!
//! A round first claims what payers owe that are leaving: their money goes away by itself, whatever becomes of
//! the rest. Then it is for the channels that are worth it. Of these it posts receipts before it claims,
//! because what is claimed and stays uncovered can go back to the payer; leavers' receipts follow in the same
//! round, or in one of the next: a payer has to wait a cover window for what no receipt covers.

mod claim;
mod post;

use std::time::Duration;

use assay_chain::ChainError;
use assay_protocol::{Amount, ChannelId, U256};
use redb::ReadTransaction;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::Payment;
use crate::account::Account;
use crate::store::{self, Accounts, Store, StoreError};

/// Channels of one round.
const CHANNELS_MAX: usize = 500;

/// First wait after a round that failed; each next one is twice as long.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// Longest wait after a round that failed: short beside any withdrawal's delay.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Gas of all that a channel costs its provider in one round, a hundredth of what a hundred cost together: its
/// span, its row of a claim that is not packed, and two releases. Measured with the contracts' tests
/// (`contracts/snapshots`; a test holds this beside them).
const GAS_PER_CHANNEL: u64 = 207_881;

/// When collecting is worth its gas.
#[derive(Clone, Copy, Debug)]
pub struct Collecting {
    /// Time between two rounds, short beside the shortest withdrawal delay. A payer that is leaving starts
    /// one at once, and what it still buys is claimed in the next ones.
    pub every: Duration,
    /// What a whole coin of the chain (10^18 wei) is worth, in base units of the channels' token; zero:
    /// gas costs nothing.
    pub coin_price: Amount,
    /// A channel waits until its gas costs at most one part in so many of what it brings.
    pub parts_min: u32,
}

impl Collecting {
    /// Whether collecting `amount` is worth its gas at `gas_price`, wei for a unit.
    fn is_worth(&self, amount: Amount, gas_price: u128) -> bool {
        let wei = U256::from(GAS_PER_CHANNEL) * U256::from(gas_price);
        // Saturates where gas costs more than any amount.
        let cost = wei.saturating_mul(U256::from(self.coin_price.0))
            / U256::from(1_000_000_000_000_000_000u64);
        amount.0 > 0 && cost.saturating_mul(U256::from(self.parts_min)) <= U256::from(amount.0)
    }
}

/// Why a round was broken off.
#[derive(Debug, thiserror::Error)]
enum CollectError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What every step of a round needs.
struct Collector<'a> {
    payment: &'a Payment,
    store: &'a Store,
}

/// What the chain said at the beginning of a round.
#[derive(Clone, Copy, Debug)]
struct Now {
    /// Wei for a unit of gas.
    gas_price: u128,
    /// Unix seconds.
    time: u64,
    /// Seconds.
    dispute_window: u64,
}

/// Collects until `stop`. A round begins when the time has come, or when `leaving` says that a payer is
/// going.
pub(crate) async fn collect(
    payment: &Payment,
    store: &Store,
    leaving: &Notify,
    stop: CancellationToken,
) {
    let collector = Collector { payment, store };
    let mut retry = None;
    loop {
        let wait = retry.unwrap_or(payment.collecting.every);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = leaving.notified() => {}
            () = sleep(wait) => {}
        }
        let done = tokio::select! {
            biased;
            // What was sent is found on the chain at the next start.
            () = stop.cancelled() => return,
            done = collector.round() => done,
        };
        retry = match done {
            Ok(()) => None,
            Err(error) => {
                let next = retry.map_or(RETRY_FIRST, |before: Duration| before * 2).min(RETRY_MAX);
                tracing::warn!(%error, retry_s = next.as_secs(), "collecting broke off");
                Some(next)
            }
        };
    }
}

impl Collector<'_> {
    /// Does all that is due now.
    async fn round(&self) -> Result<(), CollectError> {
        self.claim_leavers().await?;
        let bank = &self.payment.bank;
        let now = Now {
            gas_price: bank.gas_price().await?,
            time: bank.time().await?,
            dispute_window: bank.dispute_window().await?,
        };
        self.settle_pending().await?;
        let mut after = None;
        loop {
            let accounts = self.due(after, now).await?;
            self.collect_some(&accounts.found, now).await?;
            after = accounts.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn collect_some(
        &self,
        due: &[(ChannelId, Account)],
        now: Now,
    ) -> Result<(), CollectError> {
        if due.is_empty() {
            return Ok(());
        }
        self.post(due).await?;
        let staying: Vec<_> = due.iter().filter(|(_, account)| !account.leaving).cloned().collect();
        self.claim(&staying).await?;
        self.release(due, now).await
    }

    /// Claims what payers owe that are leaving, on all their channels.
    async fn claim_leavers(&self) -> Result<(), CollectError> {
        let wanted = |account: &Account| account.leaving && account.unclaimed().0 > 0;
        let mut after = None;
        loop {
            let read =
                move |read: &ReadTransaction| store::accounts(read, after, CHANNELS_MAX, wanted);
            let Accounts { found, next } = self.store.read(read).await?;
            self.claim(&found).await?;
            after = next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// The next channels for which there is something to do.
    async fn due(&self, after: Option<ChannelId>, now: Now) -> Result<Accounts, StoreError> {
        let collecting = self.payment.collecting;
        let wanted = move |account: &Account| is_due(account, &collecting, now);
        self.store.read(move |read| store::accounts(read, after, CHANNELS_MAX, wanted)).await
    }
}

/// Whether there is something to do for a channel.
fn is_due(account: &Account, collecting: &Collecting, now: Now) -> bool {
    let unclaimed = account.unclaimed();
    let claims =
        unclaimed.0 > 0 && (account.leaving || collecting.is_worth(unclaimed, now.gas_price));
    claims || account.unseen || is_releasable(account, now)
}

/// Whether the dispute window of what a till last saw is over, and something of it is not paid.
fn is_releasable(account: &Account, now: Now) -> bool {
    account.paid_out < account.claimed
        && account.seen_at.saturating_add(now.dispute_window) <= now.time
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now { gas_price: 10, time: 1000, dispute_window: 100 };

    fn check(amount: u128, coin_price: u128, gas_price: u128, expected: bool) {
        let collecting =
            Collecting { every: Duration::ZERO, coin_price: Amount(coin_price), parts_min: 50 };
        assert_eq!(collecting.is_worth(Amount(amount), gas_price), expected);
    }

    #[test]
    fn the_gas_of_a_channel_is_what_the_contracts_tests_measured() {
        let figure = |snapshot: &str, name: &str| -> u64 {
            let figures: serde_json::Value = serde_json::from_str(snapshot).unwrap();
            figures[name].as_str().unwrap().parse().unwrap()
        };
        let settlement = include_str!("../../../../contracts/snapshots/Settlement.json");
        let channels = include_str!("../../../../contracts/snapshots/Channels.json");
        let packed = figure(settlement, "a channel, the provider's part");
        let unpacked = figure(channels, "claim 100") - figure(channels, "claimPacked 100");
        assert_eq!(GAS_PER_CHANNEL, packed + unpacked / 100);
    }

    #[test]
    fn what_costs_more_gas_than_it_brings_waits() {
        let coin = 1_000_000_000_000_000_000;
        check(0, 0, 0, false);
        check(1, 0, 7, true);
        check(1, coin, 0, true);
        check(50 * 207_881 * 7, coin, 7, true);
        check(50 * 207_881 * 7 - 1, coin, 7, false);
        check(u128::MAX, u128::MAX, u128::MAX, false);
    }

    #[test]
    fn a_channel_is_due_when_its_money_can_move() {
        let collecting = Collecting {
            every: Duration::ZERO,
            coin_price: Amount(1_000_000_000_000_000_000),
            parts_min: 50,
        };
        let account = |charged, claimed, change: fn(&mut Account)| {
            let mut account = crate::account::tests::account(charged, 1 << 40);
            account.claimed = Amount(claimed);
            change(&mut account);
            is_due(&account, &collecting, NOW)
        };
        assert!(!account(10, 0, |_| ()));
        assert!(account(10, 0, |account| account.leaving = true));
        assert!(!account(10, 10, |account| (account.leaving, account.seen_at) = (true, 901)));
        assert!(account(1 << 30, 0, |_| ()));
        assert!(account(10, 10, |account| account.seen_at = 900));
        assert!(account(10, 10, |account| (account.seen_at, account.unseen) = (1000, true)));
        assert!(!account(10, 10, |account| account.paid_out = Amount(10)));
    }
}
