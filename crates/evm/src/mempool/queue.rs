//! One sender's waiting transactions, in the order of their nonces.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_consensus::Transaction as _;
use alloy_primitives::U256;

use crate::block::Transaction;

/// A transaction that waits, with what is asked of it over and over.
#[derive(Debug)]
pub(super) struct Pooled {
    pub(super) transaction: Arc<Transaction>,
    /// The how-manieth that came: who comes first is served first at the same price.
    pub(super) arrival: u64,
    /// Encoded length, in bytes.
    pub(super) size: usize,
    /// Most it can take from its sender, in wei: gas limit × highest fee + value.
    pub(super) cost: U256,
}

impl Pooled {
    pub(super) fn nonce(&self) -> u64 {
        self.transaction.nonce()
    }
}

/// What one sender wants done, and what the account can bear.
///
/// **Invariants.** Nonces from `next` to `ready_end` are all here, `ready_end` is not; no nonce is
/// below `next`; `spent` is the sum of all costs and never above `balance`.
#[derive(Debug)]
pub(super) struct Queue {
    /// The account's nonce: the first that can be executed.
    next: u64,
    balance: U256,
    spent: U256,
    ready_end: u64,
    waiting: BTreeMap<u64, Arc<Pooled>>,
}

impl Queue {
    /// The queue of an account at which nothing waits.
    pub(super) fn new(next: u64, balance: U256) -> Self {
        Self { next, balance, spent: U256::ZERO, ready_end: next, waiting: BTreeMap::new() }
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn balance(&self) -> U256 {
        self.balance
    }

    /// Most that all waiting transactions can take together, in wei.
    pub(super) fn spent(&self) -> U256 {
        self.spent
    }

    /// The first nonce that is not here, counted from the account's.
    pub(super) fn ready_end(&self) -> u64 {
        self.ready_end
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many can be executed one after the other from the account's nonce on.
    pub(super) fn ready(&self) -> usize {
        // No more than `len`, which is a `usize`.
        (self.ready_end - self.next) as usize
    }

    /// How many wait behind a missing nonce.
    pub(super) fn gapped(&self) -> usize {
        self.len() - self.ready()
    }

    pub(super) fn get(&self, nonce: u64) -> Option<&Arc<Pooled>> {
        self.waiting.get(&nonce)
    }

    /// The transaction with the highest nonce.
    pub(super) fn tail(&self) -> Option<&Arc<Pooled>> {
        self.waiting.last_key_value().map(|(_, pooled)| pooled)
    }

    /// All that waits, in the order of nonces.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Pooled>> {
        self.waiting.values()
    }

    /// Those that can be executed, from `nonce` on.
    pub(super) fn ready_from(&self, nonce: u64) -> impl Iterator<Item = &Arc<Pooled>> {
        let end = self.ready_end.max(nonce);
        self.waiting.range(nonce..end).map(|(_, pooled)| pooled)
    }

    /// Puts `pooled` at its nonce; returns what stood there.
    ///
    /// The caller has checked that the nonce is not below `next` and that the balance suffices.
    pub(super) fn insert(&mut self, pooled: Arc<Pooled>) -> Option<Arc<Pooled>> {
        self.spent += pooled.cost;
        let replaced = self.waiting.insert(pooled.nonce(), pooled);
        if let Some(replaced) = &replaced {
            self.spent -= replaced.cost;
        }
        self.extend_ready();
        replaced
    }

    /// Takes out the one with the highest nonce.
    pub(super) fn pop_tail(&mut self) -> Option<Arc<Pooled>> {
        let (nonce, pooled) = self.waiting.pop_last()?;
        self.spent -= pooled.cost;
        self.ready_end = self.ready_end.min(nonce);
        Some(pooled)
    }

    /// Takes out `nonce` and all after it: they could not be executed without it.
    pub(super) fn cut(&mut self, nonce: u64) -> Vec<Arc<Pooled>> {
        let cut = self.waiting.split_off(&nonce);
        self.ready_end = self.ready_end.min(nonce.max(self.next));
        cut.into_values().inspect(|pooled| self.spent -= pooled.cost).collect()
    }

    /// Takes the account as it now is; returns what that makes impossible.
    ///
    /// What is done goes from the front; what can no longer be paid goes from the back, so that no
    /// hole appears in between.
    pub(super) fn refresh(&mut self, next: u64, balance: U256) -> Vec<Arc<Pooled>> {
        let rest = self.waiting.split_off(&next);
        let done = std::mem::replace(&mut self.waiting, rest);
        let mut removed: Vec<_> =
            done.into_values().inspect(|pooled| self.spent -= pooled.cost).collect();
        self.ready_end = if next < self.next { next } else { self.ready_end.max(next) };
        (self.next, self.balance) = (next, balance);
        self.extend_ready();
        while self.spent > self.balance {
            removed.extend(self.pop_tail());
        }
        removed
    }

    fn extend_ready(&mut self) {
        while self.waiting.contains_key(&self.ready_end) {
            self.ready_end += 1;
        }
    }
}
