//! Which transactions wait, in what order they are served, and which go first when room is short.
//!
//! Pure: nothing here waits, locks, or asks what time it is.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use alloy_consensus::Transaction as _;
use alloy_eips::Encodable2718;
use alloy_primitives::{Address, B256};

use super::admit::{Rules, cost_max, tip_max};
use super::queue::{Pooled, Queue};
use super::{Accounts, Limits, Refused};
use crate::block::Transaction;

/// Everything that waits.
///
/// **Invariants.** Each transaction stands in `known` and in the queue of its sender; `tails` has
/// one entry for each sender with a queue, no queue is empty; no count is above its limit.
pub(super) struct Pool {
    limits: Limits,
    pub(super) rules: Rules,
    /// Wei per gas that the next block burns.
    pub(super) base_fee: u64,
    accounts: Arc<dyn Accounts>,
    known: HashMap<B256, Arc<Pooled>>,
    senders: HashMap<Address, Queue>,
    tails: BTreeSet<Tail>,
    /// Encoded length of all.
    bytes: usize,
    /// How many wait behind a missing nonce.
    gapped: usize,
    arrivals: u64,
}

/// The last transaction of a sender: the only one that can go without leaving a hole. The smallest
/// goes first: what cannot be executed yet, then what pays least, then what came last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Tail {
    ready: bool,
    fee: u128,
    tip: u128,
    arrival: Reverse<u64>,
    sender: Address,
}

impl Pool {
    pub(super) fn new(
        limits: Limits,
        rules: Rules,
        base_fee: u64,
        accounts: Arc<dyn Accounts>,
    ) -> Self {
        Self {
            limits,
            rules,
            base_fee,
            accounts,
            known: HashMap::new(),
            senders: HashMap::new(),
            tails: BTreeSet::new(),
            bytes: 0,
            gapped: 0,
            arrivals: 0,
        }
    }

    pub(super) fn get(&self, hash: &B256) -> Option<&Arc<Transaction>> {
        self.known.get(hash).map(|pooled| &pooled.transaction)
    }

    pub(super) fn queue(&self, sender: &Address) -> Option<&Queue> {
        self.senders.get(sender)
    }

    pub(super) fn queues(&self) -> impl Iterator<Item = (&Address, &Queue)> {
        self.senders.iter()
    }

    /// How many can be executed, and how many wait behind a missing nonce.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.known.len() - self.gapped, self.gapped)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The nonce that the next transaction of `sender` should have.
    pub(super) fn next_nonce(&self, sender: &Address) -> u64 {
        match self.senders.get(sender) {
            Some(queue) => queue.ready_end(),
            None => self.accounts.standing(sender).nonce,
        }
    }

    /// Takes `transaction`, which has passed [`super::admit::check`] and whose signer is known.
    ///
    /// Returns those that can now be executed and could not before, in the order of nonces.
    ///
    /// O(log n) but for what it evicts. A refusal for want of room may have evicted some that were
    /// worse than `transaction`; any other changes nothing.
    pub(super) fn add(
        &mut self,
        transaction: Transaction,
    ) -> Result<Vec<Arc<Transaction>>, Refused> {
        let hash = *transaction.tx_hash();
        if self.known.contains_key(&hash) {
            return Err(Refused::Known { hash });
        }
        let sender = transaction.signer();
        let pooled = Arc::new(Pooled {
            arrival: self.arrivals,
            size: transaction.encode_2718_len(),
            cost: cost_max(&transaction),
            transaction: Arc::new(transaction),
        });
        let fresh = match self.senders.get(&sender) {
            Some(_) => None,
            None => Some(self.open(&sender)?),
        };
        let queue = fresh.as_ref().or_else(|| self.senders.get(&sender));
        let queue = queue.expect("it was opened above if it was not there");
        let room = self.check(queue, &pooled)?;
        self.make_room(&sender, &room)?;
        self.arrivals += 1;
        Ok(self.insert(sender, fresh, pooled))
    }

    /// The empty queue of an account that may send.
    fn open(&self, sender: &Address) -> Result<Queue, Refused> {
        let standing = self.accounts.standing(sender);
        if !standing.signs {
            return Err(Refused::SenderHasCode { sender: *sender });
        }
        Ok(Queue::new(standing.nonce, standing.balance))
    }

    /// What `pooled` needs if it is to stand in `queue`, or why it cannot stand there.
    fn check(&self, queue: &Queue, pooled: &Pooled) -> Result<Room, Refused> {
        let (nonce, next) = (pooled.nonce(), queue.next());
        if nonce < next {
            return Err(Refused::NonceTooLow { found: nonce, expected: next });
        }
        let most = next.saturating_add(self.limits.nonce_gap);
        if nonce > most {
            return Err(Refused::NonceTooHigh { found: nonce, expected: next, most });
        }
        let replaced = queue.get(nonce);
        let mut waiting = queue.spent();
        if let Some(replaced) = replaced {
            check_replacement(&replaced.transaction, &pooled.transaction)?;
            waiting -= replaced.cost;
        } else if queue.len() >= self.limits.sender_count {
            let (sender, most) = (pooled.transaction.signer(), self.limits.sender_count);
            return Err(Refused::SenderFull { sender, most });
        }
        if waiting.checked_add(pooled.cost).is_none_or(|sum| sum > queue.balance()) {
            let (balance, cost) = (queue.balance(), pooled.cost);
            return Err(Refused::Funds { balance, cost, waiting });
        }
        let gapped = nonce > queue.ready_end();
        Ok(Room {
            count: usize::from(replaced.is_none()),
            bytes: pooled.size.saturating_sub(replaced.map_or(0, |replaced| replaced.size)),
            gapped: usize::from(gapped && replaced.is_none()),
            worth: Tail::new(pooled, !gapped),
        })
    }

    /// Evicts what is worse than the newcomer until there is room for it.
    fn make_room(&mut self, newcomer: &Address, room: &Room) -> Result<(), Refused> {
        while self.gapped + room.gapped > self.limits.gapped_count {
            // Senders whose last transaction waits behind a hole stand first in `tails`.
            if !self.evict_below(newcomer, &room.worth) {
                return Err(Refused::GapsFull { most: self.limits.gapped_count });
            }
        }
        while self.known.len() + room.count > self.limits.count
            || self.bytes + room.bytes > self.limits.bytes
        {
            if !self.evict_below(newcomer, &room.worth) {
                return Err(Refused::Full { count: self.known.len(), bytes: self.bytes });
            }
        }
        Ok(())
    }

    /// Drops the worst transaction if it is worse than `worth` and not the newcomer's own.
    fn evict_below(&mut self, newcomer: &Address, worth: &Tail) -> bool {
        match self.tails.first() {
            Some(worst) if worst < worth && worst.sender != *newcomer => {
                let sender = worst.sender;
                self.evict(&sender);
                true
            }
            _ => false,
        }
    }

    /// Drops the last transaction of `sender`.
    fn evict(&mut self, sender: &Address) {
        self.change(sender, |queue| queue.pop_tail().into_iter().collect());
    }

    fn insert(
        &mut self,
        sender: Address,
        fresh: Option<Queue>,
        pooled: Arc<Pooled>,
    ) -> Vec<Arc<Transaction>> {
        if let Some(fresh) = fresh {
            self.senders.insert(sender, fresh);
        }
        let queue = self.senders.get_mut(&sender).expect("it is there, or was put there just now");
        let (ready_before, gapped_before) = (queue.ready_end(), queue.gapped());
        if let Some(tail) = Tail::of(queue) {
            self.tails.remove(&tail);
        }
        let replaced = queue.insert(Arc::clone(&pooled));
        self.tails.extend(Tail::of(queue));
        self.gapped = self.gapped - gapped_before + queue.gapped();
        self.bytes += pooled.size;
        let nonce = pooled.nonce();
        let mut ready = Vec::new();
        if nonce < ready_before {
            ready.push(Arc::clone(&pooled.transaction));
        }
        let newly = queue.ready_from(ready_before);
        ready.extend(newly.map(|pooled| Arc::clone(&pooled.transaction)));
        self.known.insert(*pooled.transaction.tx_hash(), pooled);
        if let Some(replaced) = replaced {
            self.forget(&replaced);
        }
        ready
    }

    /// Every waiting transaction as it came, each sender's in the order of nonces.
    pub(super) fn encoded(&self) -> Vec<Vec<u8>> {
        let waiting = self.senders.values().flat_map(Queue::iter);
        waiting.map(|pooled| pooled.transaction.encoded_2718()).collect()
    }

    /// Drops a transaction that can never be executed, and its sender's later ones with it.
    pub(super) fn drop_from(&mut self, hash: &B256) {
        let Some(pooled) = self.known.get(hash) else { return };
        let (sender, nonce) = (pooled.transaction.signer(), pooled.nonce());
        self.change(&sender, |queue| queue.cut(nonce));
    }

    /// Takes a new head: what it did is no longer waiting, what became impossible neither.
    ///
    /// `touched` are the accounts that differ from the old head; `None` means any may.
    pub(super) fn advance(
        &mut self,
        rules: Rules,
        base_fee: u64,
        accounts: Arc<dyn Accounts>,
        touched: Option<&mut dyn Iterator<Item = Address>>,
    ) {
        let narrower = rules.block_gas < self.rules.block_gas || rules.spec != self.rules.spec;
        (self.rules, self.base_fee, self.accounts) = (rules, base_fee, accounts);
        match touched {
            Some(touched) => touched.for_each(|sender| self.refresh(&sender)),
            None => {
                let all: Vec<_> = self.senders.keys().copied().collect();
                all.iter().for_each(|sender| self.refresh(sender));
            }
        }
        if narrower {
            self.recheck();
        }
        while self.gapped > self.limits.gapped_count {
            let Some(worst) = self.tails.first() else { break };
            let sender = worst.sender;
            self.evict(&sender);
        }
    }

    fn refresh(&mut self, sender: &Address) {
        if !self.senders.contains_key(sender) {
            return;
        }
        let standing = self.accounts.standing(sender);
        self.change(sender, |queue| {
            if standing.signs {
                queue.refresh(standing.nonce, standing.balance)
            } else {
                queue.cut(0)
            }
        });
    }

    /// Drops what the new rules forbid.
    fn recheck(&mut self) {
        let checked = self.known.iter().filter(|(_, pooled)| {
            super::admit::check(&pooled.transaction, &self.rules, &self.limits).is_err()
        });
        let forbidden: Vec<_> = checked.map(|(hash, _)| *hash).collect();
        forbidden.iter().for_each(|hash| self.drop_from(hash));
    }

    /// Lets `act` take transactions out of a queue, and keeps all books.
    fn change(&mut self, sender: &Address, act: impl FnOnce(&mut Queue) -> Vec<Arc<Pooled>>) {
        let Some(queue) = self.senders.get_mut(sender) else { return };
        if let Some(tail) = Tail::of(queue) {
            self.tails.remove(&tail);
        }
        self.gapped -= queue.gapped();
        let removed = act(queue);
        self.gapped += queue.gapped();
        self.tails.extend(Tail::of(queue));
        if queue.is_empty() {
            self.senders.remove(sender);
        }
        removed.iter().for_each(|pooled| self.forget(pooled));
    }

    fn forget(&mut self, pooled: &Pooled) {
        self.known.remove(pooled.transaction.tx_hash());
        self.bytes -= pooled.size;
    }

    /// Panics unless every invariant holds.
    #[cfg(test)]
    pub(super) fn audit(&self) {
        let waiting: Vec<_> = self.senders.values().flat_map(Queue::iter).collect();
        assert_eq!(waiting.len(), self.known.len());
        assert!(waiting.iter().all(|pooled| self.known.contains_key(pooled.transaction.tx_hash())));
        assert_eq!(waiting.iter().map(|pooled| pooled.size).sum::<usize>(), self.bytes);
        assert_eq!(self.senders.values().map(Queue::gapped).sum::<usize>(), self.gapped);
        assert_eq!(self.tails.len(), self.senders.len());
        for queue in self.senders.values() {
            assert!(!queue.is_empty() && queue.len() <= self.limits.sender_count);
            assert!(self.tails.contains(&Tail::of(queue).unwrap()));
            assert!(queue.spent() <= queue.balance());
            assert_eq!(
                queue.iter().map(|pooled| pooled.cost).sum::<alloy_primitives::U256>(),
                queue.spent()
            );
            let nonces: Vec<_> = queue.iter().map(|pooled| pooled.nonce()).collect();
            assert!(nonces.iter().all(|nonce| *nonce >= queue.next()));
            let ready: Vec<_> = (queue.next()..queue.ready_end()).collect();
            assert_eq!(nonces[..ready.len()], ready);
            assert!(!nonces.contains(&queue.ready_end()));
        }
        assert!(self.known.len() <= self.limits.count && self.bytes <= self.limits.bytes);
        assert!(self.gapped <= self.limits.gapped_count);
    }
}

/// What a newcomer takes, and how it compares with those that are there.
struct Room {
    count: usize,
    bytes: usize,
    gapped: usize,
    worth: Tail,
}

impl Tail {
    fn new(pooled: &Pooled, ready: bool) -> Self {
        let transaction = &pooled.transaction;
        Self {
            ready,
            fee: transaction.max_fee_per_gas(),
            tip: tip_max(transaction),
            arrival: Reverse(pooled.arrival),
            sender: transaction.signer(),
        }
    }

    fn of(queue: &Queue) -> Option<Self> {
        let tail = queue.tail()?;
        Some(Self::new(tail, queue.gapped() == 0))
    }
}

/// Refuses a replacement that does not raise both the fee and the tip by a tenth: else one could
/// have the whole network pass on the same transaction again and again, for nothing.
fn check_replacement(old: &Transaction, new: &Transaction) -> Result<(), Refused> {
    let raised = |price: u128| price.saturating_add(price.div_ceil(10).max(1));
    let (fee, tip) = (new.max_fee_per_gas(), tip_max(new));
    let (fee_needed, tip_needed) = (raised(old.max_fee_per_gas()), raised(tip_max(old)));
    if fee < fee_needed || tip < tip_needed {
        return Err(Refused::Underpriced { fee, tip, fee_needed, tip_needed });
    }
    Ok(())
}
