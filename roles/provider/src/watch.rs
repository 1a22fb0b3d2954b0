//! Keeps what is known of channels fresh, and notices payers that want their money back.
//!
//! One task asks the chain; answers only read what it found. Where it looked last is on disk, so a
//! withdrawal that began while the provider was down is found when it is up again.

use std::time::Duration;

use assay_chain::ChainError;
use assay_protocol::ChannelId;
use futures_util::{StreamExt, stream};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::lanes::Lanes;
use crate::store::{self, Store, StoreError};

/// Channels looked at in one round.
const LOOKS_MAX: usize = 1024;

/// Questions to the chain at once.
const LOOKS_AT_ONCE: usize = 8;

/// Shortest time between two rounds, however many looks are wanted.
const LOOKS_APART: Duration = Duration::from_millis(100);

/// Blocks asked about at once: nodes refuse more.
const BLOCKS_MAX: u64 = 1000;

/// The name under which the store keeps the first block that was not looked at.
const CURSOR: &str = "watched block";

/// Why a round came to nothing.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Watches until `stop`; `leaving` is told when a payer was seen to leave.
pub(crate) async fn watch(lanes: Lanes, store: Store, leaving: &Notify, stop: CancellationToken) {
    let every = lanes.payment().watch_every;
    loop {
        let began = Instant::now();
        let round = async {
            if let Err(error) = round(&lanes, &store, leaving).await {
                tracing::warn!(%error, "the chain cannot be watched");
                lanes.doubt();
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = round => {}
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = lanes.wanted() => sleep(LOOKS_APART).await,
            () = sleep_until(began + every) => {}
        }
    }
}

async fn round(lanes: &Lanes, store: &Store, leaving: &Notify) -> Result<(), WatchError> {
    let found = withdrawals(lanes, store).await?;
    if !found.is_empty() {
        tracing::warn!(channels = found.len(), "payers want their money back");
        leaving.notify_one();
    }
    let mut due = lanes.due(LOOKS_MAX);
    due.extend(found);
    let bank = &lanes.payment().bank;
    let mut readings = stream::iter(due)
        .map(|id| async move { (id, bank.channel(id).await) })
        .buffer_unordered(LOOKS_AT_ONCE);
    while let Some((id, reading)) = readings.next().await {
        lanes.observe(id, &reading?);
    }
    Ok(())
}

/// Channels whose payers began to withdraw since the last look; marked on disk before they are
/// looked past.
async fn withdrawals(lanes: &Lanes, store: &Store) -> Result<Vec<ChannelId>, WatchError> {
    let payment = lanes.payment();
    let height = payment.bank.height().await?;
    let kept = store.read(|read| store::meta(read, CURSOR)).await?;
    // Blocks that are not final yet are looked at again: another branch may have other events.
    let next = height.saturating_sub(payment.confirmations) + 1;
    let Some(mut from) = kept else {
        store.write(move |write| store::set_meta(write, CURSOR, next)).await?;
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    while from <= height {
        let to = height.min(from + BLOCKS_MAX - 1);
        let found = payment.bank.withdrawals(from, to).await?;
        let after = (to + 1).min(next).max(kept.unwrap_or(0));
        if !found.is_empty() || Some(after) != kept {
            let marked = found.clone();
            store
                .write(move |write| {
                    marked.iter().try_for_each(|&id| store::mark(write, id))?;
                    store::set_meta(write, CURSOR, after)
                })
                .await?;
        }
        all.extend(found);
        from = to + 1;
    }
    Ok(all)
}
