//! Transactions that wait for a block.
//!
//! [`Mempool`] is the face that many threads share: it decodes and recovers signers outside its
//! lock, in parallel where there are many. [`pool`] decides (pure), on the [`queue`] of each sender;
//! [`admit`] checks what needs no account; [`best`] is the order of service.
//!
//! What keeps a flood harmless: every waiting transaction can be paid for by its sender together
//! with all others of that sender; who waits behind a missing nonce is counted apart and goes
//! first; a replacement pays a tenth more; the whole is bounded in number and in bytes.

mod admit;
mod best;
mod head;
mod journal;
mod pool;
mod queue;
mod refused;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alloy_consensus::{TxEnvelope, transaction::SignerRecoverable};
use alloy_eips::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, U256};
use rayon::prelude::*;
use revm::primitives::hardfork::SpecId;
use tokio::sync::{Notify, broadcast};

use crate::block::Transaction;
use admit::Rules;
pub use best::Best;
use journal::{Found, Journal};
use pool::Pool;
pub use refused::Refused;

type Envelope = TxEnvelope;

/// How much may wait, and how far ahead.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Transactions in all. When full, who pays least goes, or is refused.
    pub count: usize,
    /// Encoded length of all, in bytes. As above.
    pub bytes: usize,
    /// Transactions of one sender. The next is refused.
    pub sender_count: usize,
    /// Transactions that wait behind a missing nonce, of all senders together; part of `count`.
    pub gapped_count: usize,
    /// How far a nonce may be ahead of its account's.
    pub nonce_gap: u64,
    /// Encoded length of one transaction, in bytes.
    pub transaction_bytes: usize,
    /// Hashes that a subscriber of [`Mempool::subscribe`] may lag behind before it misses some.
    pub subscriber_lag: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            count: 131_072,
            bytes: 256 << 20,
            sender_count: 16_384,
            gapped_count: 32_768,
            nonce_gap: 16_384,
            transaction_bytes: 128 << 10,
            subscriber_lag: 16_384,
        }
    }
}

/// What the pool must know of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The nonce of its next transaction.
    pub nonce: u64,
    /// What it has, in wei.
    pub balance: U256,
    /// Whether it may sign at all: a contract may not, a delegated account (EIP-7702) may.
    pub signs: bool,
}

/// The accounts at the head of the chain. One that does not exist has nonce 0 and no balance.
pub trait Accounts: Send + Sync {
    /// How `address` stands.
    fn standing(&self, address: &Address) -> Standing;
}

/// What the next block starts from.
#[derive(Clone)]
pub struct Head {
    /// The accounts after the last block.
    pub accounts: Arc<dyn Accounts>,
    /// Wei per gas that the next block burns.
    pub base_fee: u64,
    /// Gas that the next block has.
    pub gas_limit: u64,
    /// The rules of the next block.
    pub spec: SpecId,
}

/// How many transactions wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Those that can be executed.
    pub pending: usize,
    /// Those behind a missing nonce.
    pub queued: usize,
    /// Encoded length of all, in bytes.
    pub bytes: usize,
}

/// One sender's waiting transactions, each in the order of nonces.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// Those that can be executed.
    pub pending: Vec<Arc<Transaction>>,
    /// Those behind a missing nonce.
    pub queued: Vec<Arc<Transaction>>,
}

/// The transactions that wait for a block, shared by all who add and take them.
pub struct Mempool {
    chain_id: u64,
    limits: Limits,
    pool: Mutex<Pool>,
    /// Hashes alone: what a slow listener has not heard yet holds no transaction in memory.
    news: broadcast::Sender<B256>,
    arrival: Notify,
    /// Locked after `pool` or without it, never before.
    journal: Option<Mutex<Journal>>,
}

impl Mempool {
    /// An empty pool above `head`.
    pub fn new(chain_id: u64, limits: Limits, head: Head) -> Arc<Self> {
        Arc::new(Self::with(chain_id, limits, head, None))
    }

    /// A pool that keeps what waits in the file at `path` as well, and begins with what waits there
    /// and is still possible. A transaction survives the end of the process from when its hash is
    /// returned; a machine that loses power may lose the newest. While the disk takes none, every
    /// transaction is refused.
    pub fn open(
        chain_id: u64,
        limits: Limits,
        head: Head,
        path: &Path,
    ) -> std::io::Result<Arc<Self>> {
        let (mut journal, Found { records: kept, unreadable }) = Journal::open(path)?;
        if unreadable > 0 {
            let (path, read) = (path.display(), kept.len());
            tracing::warn!(
                %path, read, unreadable,
                "the end of the file of waiting transactions cannot be read and is dropped"
            );
        }
        let mut mempool = Self::with(chain_id, limits, head, None);
        let waiting = mempool.add_many(&kept).iter().filter(|added| added.is_ok()).count();
        if !kept.is_empty() {
            tracing::info!(waiting, gone = kept.len() - waiting, "transactions waited on disk");
        }
        journal.rewrite(&mempool.lock().encoded());
        mempool.journal = Some(Mutex::new(journal));
        Ok(Arc::new(mempool))
    }

    fn with(chain_id: u64, limits: Limits, head: Head, journal: Option<Mutex<Journal>>) -> Self {
        let rules = Rules::new(chain_id, head.spec, head.gas_limit);
        let (news, _) = broadcast::channel(limits.subscriber_lag.max(1));
        let pool = Pool::new(limits.clone(), rules, head.base_fee, head.accounts);
        let (pool, arrival) = (Mutex::new(pool), Notify::new());
        Self { chain_id, limits, pool, news, arrival, journal }
    }

    /// Takes a transaction whose signer is known. Returns its hash. One that its sender has not
    /// signed, as development allows, is not kept on disk.
    pub fn add(&self, transaction: Transaction) -> Result<B256, Refused> {
        self.settle()?;
        admit::check(&transaction, &self.rules(), &self.limits)?;
        let signed = self.journal.is_some()
            && transaction.recover_signer().is_ok_and(|signer| signer == transaction.signer());
        let raw = signed.then(|| transaction.encoded_2718());
        self.add_checked(transaction, raw.as_deref())
    }

    /// Takes an encoded transaction, as `eth_sendRawTransaction` brings it. Returns its hash.
    pub fn add_raw(&self, raw: &[u8]) -> Result<B256, Refused> {
        self.settle()?;
        let rules = self.rules();
        let transaction = self.decode(raw, &rules).and_then(admit::recover)?;
        self.add_checked(transaction, Some(raw))
    }

    /// Takes many encoded transactions; signers are recovered on all cores.
    ///
    /// One answer each, in the same order.
    pub fn add_many(&self, raw: &[Bytes]) -> Vec<Result<B256, Refused>> {
        if let Err(unkept) = self.settle() {
            return vec![Err(unkept); raw.len()];
        }
        let rules = self.rules();
        let read = |raw: &Bytes| self.decode(raw, &rules).and_then(admit::recover);
        // A few are done sooner than the other threads would wake up.
        let recovered: Vec<_> = match raw.len() {
            0..8 => raw.iter().map(read).collect(),
            _ => raw.par_iter().map(read).collect(),
        };
        let mut ready = Vec::new();
        let mut pool = self.lock();
        let added = recovered
            .into_iter()
            .map(|read| read.and_then(|transaction| insert(&mut pool, transaction, &mut ready)));
        let mut added: Vec<_> = added.collect();
        drop(pool);
        let taken = added.iter().zip(raw).filter(|(added, _)| added.is_ok());
        let kept = self.keep(&taken.map(|(_, raw)| raw).collect::<Vec<_>>());
        self.announce(ready);
        if let Err(unkept) = kept {
            added.iter_mut().filter(|added| added.is_ok()).for_each(|added| {
                *added = Err(unkept.clone());
            });
        }
        added
    }

    /// The transaction, if it waits here.
    pub fn get(&self, hash: &B256) -> Option<Arc<Transaction>> {
        self.lock().get(hash).cloned()
    }

    /// Whether the transaction waits here.
    pub fn contains(&self, hash: &B256) -> bool {
        self.lock().get(hash).is_some()
    }

    /// The nonce that the next transaction of `sender` should have, counting those that wait.
    pub fn next_nonce(&self, sender: &Address) -> u64 {
        self.lock().next_nonce(sender)
    }

    /// How many transactions wait.
    pub fn status(&self) -> Status {
        let pool = self.lock();
        let (pending, queued) = pool.counts();
        Status { pending, queued, bytes: pool.bytes() }
    }

    /// Everything that waits, by sender. Large: for people who look, not for machines that poll.
    pub fn content(&self) -> BTreeMap<Address, Content> {
        let pool = self.lock();
        pool.queues().map(|(sender, queue)| (*sender, content(queue))).collect()
    }

    /// What waits of one sender.
    pub fn content_of(&self, sender: &Address) -> Content {
        self.lock().queue(sender).map(content).unwrap_or_default()
    }

    /// Wei per gas that the next block burns, as far as this pool knows.
    pub fn base_fee(&self) -> u64 {
        self.lock().base_fee
    }

    /// What can be executed, in the order of service, for a block that burns `base_fee` per gas.
    pub fn best(self: &Arc<Self>, base_fee: u64) -> Best {
        Best::new(Arc::clone(self), &self.lock(), base_fee)
    }

    /// Whether some transaction can go into a block that burns `base_fee` per gas.
    pub fn has_ready(&self, base_fee: u64) -> bool {
        best::any(&self.lock(), base_fee)
    }

    /// Waits until a transaction that can be executed has come since the last time this returned.
    ///
    /// For one waiter: the producer.
    pub async fn arrived(&self) {
        self.arrival.notified().await;
    }

    /// Hashes of transactions as they become executable. A subscriber that lags loses the oldest.
    pub fn subscribe(&self) -> broadcast::Receiver<B256> {
        self.news.subscribe()
    }

    /// Drops transactions that were found impossible, and those of the same senders after them.
    pub fn drop_all<'a>(&self, hashes: impl IntoIterator<Item = &'a B256>) {
        let mut pool = self.lock();
        hashes.into_iter().for_each(|hash| pool.drop_from(hash));
    }

    /// Takes a new head whose block changed only the accounts in `touched`.
    pub fn advance(&self, head: Head, touched: impl IntoIterator<Item = Address>) {
        self.replace(head, Some(&mut touched.into_iter()));
    }

    /// Takes a head that need not follow the one before it: looks at every sender.
    pub fn reset(&self, head: Head) {
        self.replace(head, None);
    }

    fn replace(&self, head: Head, touched: Option<&mut dyn Iterator<Item = Address>>) {
        let rules = Rules::new(self.chain_id, head.spec, head.gas_limit);
        self.lock().advance(rules, head.base_fee, head.accounts, touched);
        self.tidy();
        // What a higher base fee held back may now go: whoever produces looks again.
        self.arrival.notify_one();
    }

    fn add_checked(&self, transaction: Transaction, raw: Option<&[u8]>) -> Result<B256, Refused> {
        let mut ready = Vec::new();
        let hash = insert(&mut self.lock(), transaction, &mut ready)?;
        let kept = self.keep(raw.as_slice());
        self.announce(ready);
        kept.map(|()| hash)
    }

    /// Appends encoded transactions to the journal, if there is one.
    fn keep(&self, raw: &[impl AsRef<[u8]>]) -> Result<(), Refused> {
        self.in_journal(|journal| journal.append(raw))
    }

    /// Writes what the disk refused before, if anything. Until that is done nothing is taken: what
    /// could not be kept would be forgotten when the process ends, and its sender told otherwise.
    fn settle(&self) -> Result<(), Refused> {
        self.in_journal(Journal::settle)
    }

    /// Waits until the disk has everything that is to be kept.
    ///
    /// # Errors
    /// [`Refused::Unkept`]; what nobody was told is kept may then be lost.
    pub fn sync(&self) -> Result<(), Refused> {
        self.in_journal(Journal::sync)
    }

    fn in_journal(
        &self,
        act: impl FnOnce(&mut Journal) -> std::io::Result<()>,
    ) -> Result<(), Refused> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let acted = act(&mut journal.lock().unwrap_or_else(PoisonError::into_inner));
        acted.map_err(|error| Refused::Unkept {
            reason: match journal::is_full(&error) {
                true => "the disk is full".into(),
                false => error.to_string(),
            },
        })
    }

    /// Drops from the journal what no longer waits, once that is most of it, and pays what it owes.
    fn tidy(&self) {
        let Some(journal) = &self.journal else { return };
        let pool = self.lock();
        let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
        if journal.is_stale(pool.bytes() as u64) {
            let waiting = pool.encoded();
            // What is added from here on waits for the journal, and so comes after the rewriting.
            drop(pool);
            journal.rewrite(&waiting);
        }
        // The journal has told of a failure; here nobody waits for the outcome.
        drop(journal.settle());
    }

    /// Decodes and checks; what is already known is refused here, before it costs a recovery.
    fn decode(&self, raw: &[u8], rules: &Rules) -> Result<Envelope, Refused> {
        let envelope = admit::decode(raw, &self.limits)?;
        let hash = *envelope.tx_hash();
        if self.contains(&hash) {
            return Err(Refused::Known { hash });
        }
        admit::check(&envelope, rules, &self.limits)?;
        Ok(envelope)
    }

    fn announce(&self, ready: Vec<Arc<Transaction>>) {
        if ready.is_empty() {
            return;
        }
        if self.news.receiver_count() > 0 {
            for transaction in ready {
                // Fails only when the last subscriber has just left.
                let _ = self.news.send(*transaction.tx_hash());
            }
        }
        self.arrival.notify_one();
    }

    fn rules(&self) -> Rules {
        self.lock().rules.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        // A panic inside would be our own mistake; the books are then no worse than before it.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Mempool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mempool").field("status", &self.status()).finish_non_exhaustive()
    }
}

fn insert(
    pool: &mut Pool,
    transaction: Transaction,
    ready: &mut Vec<Arc<Transaction>>,
) -> Result<B256, Refused> {
    let hash = *transaction.tx_hash();
    ready.extend(pool.add(transaction)?);
    Ok(hash)
}

fn content(queue: &queue::Queue) -> Content {
    let mut all = queue.iter().map(|pooled| Arc::clone(&pooled.transaction));
    Content { pending: all.by_ref().take(queue.ready()).collect(), queued: all.collect() }
}
