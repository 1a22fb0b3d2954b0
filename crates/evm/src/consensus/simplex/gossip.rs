//! Transactions on their way to whoever builds the next block.
//!
//! All nodes are connected to all validators, so a transaction travels once: from the node that a
//! client gave it to, to everybody. What came from a peer is not passed on. A transaction that still
//! waits after a while is sent again, in case nobody was connected the first time.

use super::network::{Channel, Sender};
use crate::consensus::Application;
use alloy_primitives::bytes::Bytes;
use alloy_primitives::{B256, keccak256};
use commonware_codec::{Decode, Encode, RangeCfg};
use commonware_p2p::{Receiver as _, Recipients, Sender as _};
use futures_util::StreamExt;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Longest message, in bytes of transactions.
const BATCH_BYTES_MAX: usize = 256 << 10;

/// Most transactions of one message.
const BATCH_MAX: usize = 2048;

/// Longest transaction: as long as clients may send.
const TRANSACTION_BYTES_MAX: usize = 128 << 10;

/// How long a transaction waits for others to travel with.
const GATHER: Duration = Duration::from_millis(4);

/// After this long a transaction that still waits is sent again.
const AGAIN: Duration = Duration::from_secs(3);

/// Transactions watched for sending again.
const WATCHED_MAX: usize = 16_384;

/// Hashes remembered as come from peers. Beyond, the oldest would be passed on once more.
const HEARD_MAX: usize = 131_072;

/// Messages of peers that the mempool checks at the same time; the next waits in the channel.
const CHECKS_MAX: usize = 4;

/// Runs until the network or the mempool ends.
pub(super) async fn run<A: Application>(application: A, (mut sender, mut receiver): Channel) {
    let mut arrivals = application.arrivals();
    let mut heard = Heard::default();
    let mut outgoing: Vec<B256> = Vec::new();
    let mut watched: VecDeque<(Instant, B256)> = VecDeque::new();
    let mut flush = tokio::time::interval(GATHER);
    flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut again = tokio::time::interval(AGAIN);
    let checks = Arc::new(Semaphore::new(CHECKS_MAX));
    loop {
        tokio::select! {
            arrival = arrivals.next() => match arrival {
                Some(hash) if heard.contains(&hash) => {}
                Some(hash) => outgoing.push(hash),
                None => return,
            },
            message = receiver.recv() => {
                let Ok((peer, bytes)) = message else { return };
                let Some(batch) = decode(bytes) else {
                    tracing::debug!(?peer, "a batch of transactions that is none");
                    continue;
                };
                batch.iter().for_each(|raw| heard.insert(keccak256(raw)));
                let Ok(permit) = checks.clone().acquire_owned().await else { return };
                let application = application.clone();
                // Dropping the handle is safe: the permit bounds how many run, and each is short.
                drop(tokio::task::spawn_blocking(move || {
                    application.receive(batch);
                    drop(permit);
                }));
            }
            _ = flush.tick(), if !outgoing.is_empty() => {
                let now = Instant::now();
                watched.extend(outgoing.iter().map(|hash| (now, *hash)));
                while watched.len() > WATCHED_MAX {
                    watched.pop_front();
                }
                send(&application, &mut sender, outgoing.drain(..));
            }
            _ = again.tick() => {
                let due = watched.partition_point(|(sent, _)| sent.elapsed() >= AGAIN);
                let due: Vec<_> = watched.drain(..due).map(|(_, hash)| hash).collect();
                let waiting = due.into_iter().filter(|hash| application.waiting(hash).is_some());
                outgoing.extend(waiting);
            }
        }
    }
}

/// Sends what of `hashes` still waits, in as few messages as the bounds allow.
fn send<A: Application>(application: &A, sender: &mut Sender, hashes: impl Iterator<Item = B256>) {
    let mut batch: Vec<Bytes> = Vec::new();
    let mut bytes = 0;
    for raw in hashes.filter_map(|hash| application.waiting(&hash)) {
        if batch.len() == BATCH_MAX || bytes + raw.len() > BATCH_BYTES_MAX {
            sender.send(Recipients::All, std::mem::take(&mut batch).encode(), false);
            bytes = 0;
        }
        bytes += raw.len();
        batch.push(raw.0);
    }
    if !batch.is_empty() {
        sender.send(Recipients::All, batch.encode(), false);
    }
}

fn decode(bytes: impl commonware_codec::Input) -> Option<Vec<alloy_primitives::Bytes>> {
    let bounds = (RangeCfg::from(0..=BATCH_MAX), RangeCfg::from(0..=TRANSACTION_BYTES_MAX));
    let batch = Vec::<Bytes>::decode_cfg(bytes, &bounds).ok()?;
    Some(batch.into_iter().map(alloy_primitives::Bytes).collect())
}

/// A bounded memory of hashes.
#[derive(Default)]
struct Heard {
    hashes: HashSet<B256>,
    order: VecDeque<B256>,
}

impl Heard {
    fn contains(&self, hash: &B256) -> bool {
        self.hashes.contains(hash)
    }

    fn insert(&mut self, hash: B256) {
        if !self.hashes.insert(hash) {
            return;
        }
        self.order.push_back(hash);
        if self.order.len() > HEARD_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.hashes.remove(&oldest);
        }
    }
}
