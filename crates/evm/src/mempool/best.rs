//! The order in which waiting transactions go into a block.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use alloy_consensus::Transaction as _;
use alloy_primitives::Address;

use super::Mempool;
use super::pool::Pool;
use super::queue::{Pooled, Queue};
use crate::block::Transaction;

/// Waiting transactions, best first: the nonces of each sender in order, the tips of different
/// senders from high to low, and at the same tip who came first.
///
/// It holds no lock between two transactions. One that is replaced meanwhile is yielded as it then
/// is; a sender who first appears after the start is not yielded.
pub struct Best {
    mempool: Arc<Mempool>,
    /// Wei per gas that the block burns; who offers less is not yielded, nor what follows it.
    base_fee: u64,
    /// The next transaction of each sender who has one.
    heads: BinaryHeap<Head>,
}

/// A sender's next transaction; the greatest is served first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    tip: u128,
    arrival: Reverse<u64>,
    sender: Address,
    nonce: u64,
}

impl Head {
    /// The head of `queue` from `nonce` on, if it can be executed and pays `base_fee`.
    fn of(sender: Address, queue: &Queue, nonce: u64, base_fee: u64) -> Option<(Self, &Pooled)> {
        let pooled = queue.ready_from(nonce).next()?;
        let tip = pooled.transaction.effective_tip_per_gas(base_fee)?;
        let arrival = Reverse(pooled.arrival);
        (pooled.nonce() == nonce).then_some((Self { tip, arrival, sender, nonce }, pooled))
    }
}

/// Whether any sender has a transaction that can be executed and pays `base_fee`.
pub(super) fn any(pool: &Pool, base_fee: u64) -> bool {
    let (ready, _) = pool.counts();
    let mut queues = pool.queues();
    ready > 0
        && queues.any(|(sender, queue)| Head::of(*sender, queue, queue.next(), base_fee).is_some())
}

impl Best {
    pub(super) fn new(mempool: Arc<Mempool>, pool: &Pool, base_fee: u64) -> Self {
        let heads = pool.queues().filter_map(|(sender, queue)| {
            Some(Head::of(*sender, queue, queue.next(), base_fee)?.0)
        });
        Self { heads: heads.collect(), mempool, base_fee }
    }
}

impl Iterator for Best {
    type Item = Transaction;

    fn next(&mut self) -> Option<Transaction> {
        while let Some(Head { sender, nonce, .. }) = self.heads.pop() {
            let pool = self.mempool.lock();
            let Some(queue) = pool.queue(&sender) else { continue };
            let Some(head) = Head::of(sender, queue, nonce, self.base_fee) else { continue };
            let transaction = Transaction::clone(&head.1.transaction);
            let following = Head::of(sender, queue, nonce + 1, self.base_fee);
            self.heads.extend(following.map(|(head, _)| head));
            return Some(transaction);
        }
        None
    }
}
