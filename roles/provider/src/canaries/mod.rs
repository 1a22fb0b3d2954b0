//! Plants canaries among this provider's receipts: answers that are false on purpose, so that auditors who do not
//! look are found out (`docs/protocol/audits.md`).
//!
//! A canary is ordered by a buyer of the provider's own, under a key that nobody else has, so no client is ever
//! sold one: the mark that makes it false is put into the receipt of that one order and of no other. It looks like
//! what real buyers order (`draft`), is answered by the same engine, paid through a channel, and posted with the
//! others. Its life is on disk (`sown`) before each step, and one task takes the steps (`tend`):
//!
//! drafted → planted, with a prize → ordered, in a later epoch → posted → unveiled, once it cannot be disputed any
//! more → who called it true is fined → the prize comes back → forgotten.
//!
//! If it is disputed before, `defend` shows what it is: nobody is slashed, and the prize is the challenger's.

mod draft;
mod sown;
mod tend;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use assay_chain::{Canary, Chain, ChainError, Filing};
use assay_protocol::{Address, Amount, B256, ChainId, Key, Order, OrderHash, Terms};

use self::draft::Fashion;
use crate::store::{Store, StoreError};

pub(crate) use self::tend::tend;

/// How a provider plants canaries.
#[derive(Clone, Debug)]
pub struct Planting {
    /// How many answers get a canary beside them, of 10,000.
    pub share_bps: u16,
    /// Plants, unveils, and has careless auditors fined. Everybody sees who plants: an account that has nothing to
    /// do with the provider or the buyer tells nobody whose receipts to look at.
    pub planter: Chain,
    /// Orders canaries. A key for this alone: whoever else bought with it would be sold false answers.
    pub buyer: Key,
    /// The buyer's connection, with which it fills its channel.
    pub purse: Chain,
    /// What is asked, in tokens: as like to what real buyers ask as can be had. Without any nothing is planted.
    pub prompts: Vec<Vec<u32>>,
    /// What who disputes a canary has, base units of ASY; at least one ASY.
    pub prize: Amount,
    /// What is put into the channel at once, base units.
    pub deposit: Amount,
    /// Canaries at once; each binds a prize until a dispute window after it is unveiled.
    pub sown_max: usize,
    /// Longest wait beyond the beginning of the next epoch until a canary is ordered; how long is chance.
    pub spread: Duration,
    /// Time between two looks at what there is to do; short beside an epoch.
    pub look_every: Duration,
}

/// The canaries of a provider at work.
#[derive(Debug)]
pub(crate) struct Canaries {
    planting: Planting,
    chain_id: ChainId,
    /// Marks of those that are about to be answered.
    marks: Mutex<HashMap<OrderHash, B256>>,
    fashion: Mutex<Option<Fashion>>,
    /// How many to plant.
    wanted: AtomicU32,
}

/// Why a step of a canary came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CanaryError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the order was refused: {0}")]
    Refused(#[from] assay_protocol::wire::Refusal),
    #[error("the answer broke off")]
    Broken,
}

impl Canaries {
    pub(crate) fn new(planting: Planting, chain_id: ChainId) -> Self {
        Self {
            planting,
            chain_id,
            marks: Mutex::default(),
            fashion: Mutex::default(),
            wanted: AtomicU32::new(0),
        }
    }

    /// What the receipt of an order has as its last state, if that is a canary: only one that this provider has
    /// planted, by its own buyer.
    pub(crate) fn mark_of(&self, hash: OrderHash, buyer: Address) -> Option<B256> {
        let ours = buyer == self.planting.buyer.address();
        ours.then(|| lock(&self.marks).get(&hash).copied()).flatten()
    }

    /// Sees that another's order is answered from `now` on, Unix seconds: chance says whether a canary follows, which
    /// then looks like it.
    pub(crate) fn notice(&self, order: &Order, terms: &Terms, context: u32, now: u64) {
        const ALL: u64 = 10_000;
        if order.buyer == self.planting.buyer.address() {
            return;
        }
        let Some(fashion) = Fashion::of(order, terms, context, now) else { return };
        *lock(&self.fashion) = Some(fashion);
        let most = u32::try_from(self.planting.sown_max).unwrap_or(u32::MAX);
        if chance() % ALL < u64::from(self.planting.share_bps) {
            let more = |wanted: u32| (wanted < most).then_some(wanted + 1);
            // One more than can be planted is one that is not.
            let _ = self.wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        }
    }

    /// The canary that a disputed receipt is, and what shows it; nothing if it is none.
    pub(crate) async fn disputed(
        &self,
        store: &Store,
        order: OrderHash,
        receipt: B256,
    ) -> Result<Option<(Canary, Filing)>, CanaryError> {
        let sown = store.read(move |read| sown::of(read, order.0)).await?;
        let (Some(sown), Some(kept)) = (sown, store.find(order).await?) else { return Ok(None) };
        let ours = kept.sealed.receipt.digest(self.chain_id) == receipt;
        Ok(ours.then(|| {
            let filing = sown.filing(&kept, self.chain_id);
            (sown.canary, filing)
        }))
    }

    /// Shows that a receipt is a canary, unless that is known; `chain` pays.
    pub(crate) async fn unveil(
        &self,
        chain: &Chain,
        (canary, filing): &(Canary, Filing),
    ) -> Result<(), CanaryError> {
        if !chain.is_canary(filing.receipt.digest(self.chain_id)).await? {
            chain.unveil(canary, filing).await?;
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// 32 bytes of chance.
fn word() -> B256 {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    bytes.into()
}

/// A number of chance.
fn chance() -> u64 {
    word()[..8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}
