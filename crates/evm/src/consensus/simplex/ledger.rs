//! The chain, as the engine asks it: build, check, and take what is final.

use super::wire::Wire;
use super::wire::{Digest, Key, Scheme};
use crate::consensus::{Application as Chain, Carried, FinalizeError};
use commonware_actor::Feedback;
use commonware_consensus::marshal::{Update, ancestry::Ancestry};
use commonware_consensus::simplex::types::Context;
use commonware_consensus::{Application, Reporter};
use commonware_cryptography::Digested;
use commonware_utils::Acknowledgement as _;
use commonware_utils::acknowledgement::Exact;
use futures_util::StreamExt;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Deepest row of blocks that is executed to check one: after a restart, those that were voted for
/// and not finalised. Marshal keeps no more of them either.
const ANCESTORS_MAX: usize = 256;

/// Wait before a block that the disk refused is written again.
const RETRY: Duration = Duration::from_secs(1);

/// Most blocks written to disk in one go.
const BATCH_MAX: usize = 16;

/// Answers the engine's questions by asking the chain.
#[derive(Clone)]
pub(super) struct Ledger<A> {
    chain: A,
}

impl<A: Chain> Ledger<A> {
    pub(super) fn new(chain: A) -> Self {
        Self { chain }
    }

    /// Executes `block` and as many of its ancestors as nobody executed yet. `None` if one of them
    /// is not to be had; `Some(false)` if one is invalid or off the finalised chain.
    async fn execute(&self, block: Carried, mut ancestry: impl Ancestry<Wire>) -> Option<bool> {
        // A vote that comes late may be about a block that is final by now.
        if self.chain.height(&block.hash()).is_some() {
            return Some(true);
        }
        let mut row = vec![block];
        while let Some(oldest) = row.last()
            && !self.chain.knows(&oldest.parent())
        {
            if oldest.height() <= self.chain.head().0 + 1 {
                return Some(false);
            }
            if row.len() > ANCESTORS_MAX {
                return None;
            }
            row.push(ancestry.next().await?.inner().0.clone());
        }
        while let Some(block) = row.pop() {
            if !self.chain.knows(&block.hash()) && !self.chain.verify(block).await {
                return Some(false);
            }
        }
        Some(true)
    }
}

impl<E: Send + 'static, A: Chain> Application<E> for Ledger<A> {
    type SigningScheme = Scheme;
    type Context = Context<Digest, Key>;
    type Block = Wire;
    type Input = ();

    async fn propose(
        &mut self,
        _: (E, Self::Context),
        mut ancestry: impl Ancestry<Wire>,
        (): (),
    ) -> Option<Digested<Wire>> {
        let parent = ancestry.next().await?.inner().0.clone();
        if !self.chain.knows(&parent.hash()) && !self.execute(parent.clone(), ancestry).await? {
            return None;
        }
        self.chain.propose(parent).await.map(Wire::digested)
    }

    async fn verify(&mut self, _: (E, Self::Context), mut ancestry: impl Ancestry<Wire>) -> bool {
        let Some(block) = ancestry.next().await else { return false };
        match self.execute(block.inner().0.clone(), ancestry).await {
            Some(verdict) => verdict,
            // An abstention: the engine drops the question when the view is over.
            None => std::future::pending().await,
        }
    }
}

/// Hands marshal's finalised blocks to [`deliver`].
#[derive(Clone)]
pub(super) struct Delivery {
    /// Never long: marshal has a bounded number of blocks on their way.
    blocks: mpsc::UnboundedSender<(Carried, Exact)>,
    tip: watch::Sender<u64>,
}

/// The other end of a [`Delivery`].
pub(super) struct Delivered {
    blocks: mpsc::UnboundedReceiver<(Carried, Exact)>,
    /// The highest height known to be final, executed or not.
    pub(super) tip: watch::Receiver<u64>,
}

/// A row from marshal to the chain.
pub(super) fn delivery() -> (Delivery, Delivered) {
    let (blocks, incoming) = mpsc::unbounded_channel();
    let (tip, tips) = watch::channel(0);
    (Delivery { blocks, tip }, Delivered { blocks: incoming, tip: tips })
}

impl Reporter for Delivery {
    type Activity = Update<Wire>;

    fn report(&mut self, update: Update<Wire>) -> Feedback {
        match update {
            Update::Tip(_, height, _) => {
                self.tip.send_replace(height.get());
            }
            Update::Block(block, ack) => {
                if self.blocks.send((block.inner().0.clone(), ack)).is_err() {
                    return Feedback::Closed;
                }
            }
        }
        Feedback::Ok
    }
}

/// Makes finalised blocks the end of the chain, each on disk before it is acknowledged, so that a
/// crash at any moment only repeats a delivery. Returns when marshal ends, or with the error that
/// makes going on impossible. `applied` hears every new head.
pub(super) async fn deliver<A: Chain>(
    chain: A,
    mut delivered: Delivered,
    applied: watch::Sender<u64>,
) -> Result<(), FinalizeError> {
    let mut batch = Vec::new();
    while delivered.blocks.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let (blocks, acks): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        loop {
            match chain.finalize(blocks.clone()).await {
                Ok(()) => break,
                Err(error @ FinalizeError::Invalid { .. }) => return Err(error),
                Err(error) => {
                    tracing::error!(%error, "finalised blocks wait for the disk");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
        for ack in acks {
            ack.acknowledge();
        }
        applied.send_replace(chain.head().0);
    }
    Ok(())
}
