//! Sends the moves of all disputes, many in one transaction.
//!
//! An account's transactions come one after another, so a provider with many disputes at once would
//! answer each of them slower, and whoever opens enough of them would win by the clock. Moves that
//! come while a transaction is under way therefore wait and share the next one. If the chain refuses
//! a transaction, it is sent again in halves: a move that cannot be made holds up no other.

use std::sync::Arc;

use assay_chain::{Chain, ChainError, Mined, Move};
use tokio::sync::{mpsc, oneshot};

/// Moves of one transaction: what they take together stays far below a block's gas.
const MOVES_MAX: usize = 16;
/// Moves that wait; who comes later waits for room.
const WAITING_MAX: usize = 64;

/// A move that is in a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    pub(crate) mined: Mined,
    /// Its part of the transaction's gas.
    pub(crate) gas: u64,
}

type Outcome = Result<Made, Arc<ChainError>>;

struct Waiting {
    play: Move,
    done: oneshot::Sender<Outcome>,
}

/// Where moves are handed in.
#[derive(Clone, Debug)]
pub(crate) struct Sender(mpsc::Sender<Waiting>);

/// Moves that wait to be sent.
pub(crate) struct Queue(mpsc::Receiver<Waiting>);

impl Sender {
    pub(crate) fn new() -> (Self, Queue) {
        let (sender, queue) = mpsc::channel(WAITING_MAX);
        (Self(sender), Queue(queue))
    }

    /// Makes a move; returns once it is in a block. Nothing if the queue is gone, at shutdown.
    pub(crate) async fn make(&self, play: Move) -> Option<Outcome> {
        let (done, outcome) = oneshot::channel();
        self.0.send(Waiting { play, done }).await.ok()?;
        outcome.await.ok()
    }
}

impl Queue {
    /// Sends what comes in until nobody is left who could hand anything in.
    pub(crate) async fn send(mut self, chain: &Chain) {
        let mut batch = Vec::new();
        while self.0.recv_many(&mut batch, MOVES_MAX).await > 0 {
            deliver(chain, std::mem::take(&mut batch)).await;
        }
    }
}

/// Makes moves in as few transactions as the chain allows.
async fn deliver(chain: &Chain, all: Vec<Waiting>) {
    let mut batches = vec![all];
    while let Some(mut batch) = batches.pop() {
        let moves: Vec<Move> = batch.iter().map(|waiting| waiting.play.clone()).collect();
        let outcome = match chain.play(&moves).await {
            Ok(mined) => Ok(Made { mined, gas: mined.gas / moves.len() as u64 }),
            Err(error) if batch.len() > 1 && is_about_moves(&error) => {
                batches.push(batch.split_off(batch.len() / 2));
                batches.push(batch);
                continue;
            }
            Err(error) => Err(Arc::new(error)),
        };
        for waiting in batch {
            // A dispute's task that is gone needs no word.
            let _ = waiting.done.send(outcome.clone());
        }
    }
}

/// Whether fewer moves might do better.
fn is_about_moves(error: &ChainError) -> bool {
    matches!(error, ChainError::Refused(_) | ChainError::Failed { .. } | ChainError::Node { .. })
}
