//! Keeps on disk what must not be forgotten: channels' accounts, payments taken, replies to repeat.
//!
//! A change is a function of what is kept, run inside the write that keeps its result, so two changes of
//! one account cannot lose one another. Changes that come while a commit runs share the next one.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use assay_protocol::{Address, Amount, B256, ChannelId};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::batch::Account;
use super::fault::Fault;

type Rows<'a> = TableDefinition<'a, [u8; 32], &'static [u8]>;

const ACCOUNTS: Rows<'_> = TableDefinition::new("accounts");
const PAYMENTS: Rows<'_> = TableDefinition::new("payments");
const REPLIES: Rows<'_> = TableDefinition::new("replies");

/// Bytes of the file kept in memory.
const CACHE_BYTES: usize = 16 << 20;

/// Why something could not be kept or found.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// The database failed: a full disk, a file in use by another process, a broken file.
    #[error("{0}")]
    Database(Arc<redb::Error>),
    /// A row is not what this version writes.
    #[error("a row cannot be read or written: {0}")]
    Row(String),
    /// The journal is shutting down.
    #[error("the journal has stopped")]
    Stopped,
}

impl<E: Into<redb::Error>> From<E> for JournalError {
    fn from(error: E) -> Self {
        Self::Database(Arc::new(error.into()))
    }
}

impl From<JournalError> for Fault {
    fn from(error: JournalError) -> Self {
        Self::Journal(error.to_string())
    }
}

/// A payment by `exact` that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Payment {
    /// The request that it pays for: a hash of what was asked.
    pub(crate) request: B256,
    /// The transaction; none while nobody knows whether there is one.
    pub(crate) transaction: Option<B256>,
    /// How often its answer was begun.
    pub(crate) answers: u32,
    /// After this second nobody needs to remember it: the token refuses it by then.
    pub(crate) until: u64,
}

/// A reply that was paid for, to be repeated rather than sold twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// The request that it answers.
    pub(crate) request: B256,
    /// Who paid.
    pub(crate) payer: Address,
    /// What the body is.
    pub(crate) content_type: String,
    /// What became of the payment: the header's value.
    pub(crate) settlement: String,
    /// What was said.
    pub(crate) body: String,
    /// Kept until this second.
    pub(crate) until: u64,
}

type Change = Box<dyn FnOnce(Result<&WriteTransaction, &JournalError>) -> Told + Send>;

/// Tells whoever asked for a change what came of it, once that is on disk.
type Told = Box<dyn FnOnce(Result<(), JournalError>) + Send>;

/// The file.
#[derive(Clone)]
pub(crate) struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    /// Changes that wait for the next commit.
    waiting: Mutex<Vec<Change>>,
}

impl Journal {
    /// Opens the file at `path`, or creates it.
    pub(crate) async fn open(path: PathBuf) -> Result<Self, JournalError> {
        let open = move || -> Result<Self, JournalError> {
            let database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
            let transaction = database.begin_write()?;
            for table in [ACCOUNTS, PAYMENTS, REPLIES] {
                transaction.open_table(table)?;
            }
            transaction.commit()?;
            Ok(Self { inner: Arc::new(Inner { database, waiting: Mutex::default() }) })
        };
        tokio::task::spawn_blocking(open).await.map_err(|_| JournalError::Stopped)?
    }

    /// The account of a channel.
    pub(crate) async fn account(&self, id: ChannelId) -> Result<Option<Account>, JournalError> {
        self.find(ACCOUNTS, id.0).await
    }

    /// Changes a channel's account, on disk on return. The function gets what is kept and says what to
    /// keep; none leaves it as it is.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        id: ChannelId,
        change: impl FnOnce(Option<Account>) -> (Option<Account>, T) + Send + 'static,
    ) -> Result<T, JournalError> {
        self.write(move |transaction| {
            let mut table = transaction.open_table(ACCOUNTS)?;
            let kept = table.get(id.0.0)?.map(|row| parse(row.value())).transpose()?;
            let (next, said) = change(kept);
            if let Some(account) = next {
                table.insert(id.0.0, text(&account)?.as_slice())?;
            }
            Ok(said)
        })
        .await
    }

    /// All accounts that `wanted` picks, at most `max`.
    pub(crate) async fn accounts(
        &self,
        max: usize,
        wanted: impl Fn(&Account) -> bool + Send + 'static,
    ) -> Result<Vec<(ChannelId, Account)>, JournalError> {
        self.read(move |inner| {
            let table = inner.begin_read()?.open_table(ACCOUNTS)?;
            let mut found = Vec::new();
            for row in table.iter()? {
                let (id, account) = row?;
                let account: Account = parse(account.value())?;
                if wanted(&account) {
                    found.push((ChannelId(B256::from(id.value())), account));
                }
                if found.len() >= max {
                    break;
                }
            }
            Ok(found)
        })
        .await
    }

    /// What is known of a payment.
    pub(crate) async fn payment(&self, key: B256) -> Result<Option<Payment>, JournalError> {
        self.find(PAYMENTS, key).await
    }

    /// Remembers a payment; on disk on return.
    pub(crate) async fn keep_payment(
        &self,
        key: B256,
        payment: Payment,
    ) -> Result<(), JournalError> {
        self.keep(PAYMENTS, key, payment).await
    }

    /// Forgets a payment that certainly did not happen.
    pub(crate) async fn forget_payment(&self, key: B256) -> Result<(), JournalError> {
        self.write(move |transaction| {
            transaction.open_table(PAYMENTS)?.remove(key.0)?;
            Ok(())
        })
        .await
    }

    /// A reply given before.
    pub(crate) async fn reply(&self, key: B256) -> Result<Option<Reply>, JournalError> {
        self.find(REPLIES, key).await
    }

    /// Keeps a reply; on disk on return.
    pub(crate) async fn keep_reply(&self, key: B256, reply: Reply) -> Result<(), JournalError> {
        self.keep(REPLIES, key, reply).await
    }

    /// Drops payments and replies that nobody can come back for, and the oldest replies beyond `max`.
    pub(crate) async fn prune(&self, now: u64, max: usize) -> Result<(), JournalError> {
        self.write(move |transaction| {
            let mut payments = transaction.open_table(PAYMENTS)?;
            payments
                .retain(|_, row| parse::<Payment>(row).is_ok_and(|payment| payment.until >= now))?;
            let mut replies = transaction.open_table(REPLIES)?;
            let mut kept = Vec::new();
            for row in replies.iter()? {
                let (key, reply) = row?;
                kept.push((parse::<Reply>(reply.value()).map_or(0, |r| r.until), key.value()));
            }
            kept.sort_unstable();
            let over = kept.len().saturating_sub(max);
            for (place, (until, key)) in kept.into_iter().enumerate() {
                if place < over || until < now {
                    replies.remove(key)?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn find<T: DeserializeOwned + Send + 'static>(
        &self,
        table: Rows<'static>,
        key: B256,
    ) -> Result<Option<T>, JournalError> {
        self.read(move |database| {
            let table = database.begin_read()?.open_table(table)?;
            table.get(key.0)?.map(|row| parse(row.value())).transpose()
        })
        .await
    }

    async fn keep<T: Serialize + Send + 'static>(
        &self,
        table: Rows<'static>,
        key: B256,
        row: T,
    ) -> Result<(), JournalError> {
        self.write(move |transaction| {
            transaction.open_table(table)?.insert(key.0, text(&row)?.as_slice())?;
            Ok(())
        })
        .await
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let inner = Arc::clone(&self.inner);
        let read = tokio::task::spawn_blocking(move || work(&inner.database));
        read.await.map_err(|_| JournalError::Stopped)?
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (tell, told) = oneshot::channel();
        let change: Change = Box::new(move |transaction| {
            let said = transaction.map_err(JournalError::clone).and_then(work);
            // Whoever asked may be gone; the change stands all the same.
            Box::new(move |kept| drop(tell.send(kept.and(said))))
        });
        lock(&self.inner.waiting).push(change);
        let inner = Arc::clone(&self.inner);
        let commit = tokio::task::spawn_blocking(move || inner.commit());
        commit.await.map_err(|_| JournalError::Stopped)?;
        told.await.map_err(|_| JournalError::Stopped)?
    }
}

impl Inner {
    /// Makes all changes that wait, and tells those who wait.
    fn commit(&self) {
        let begun = self.database.begin_write().map_err(JournalError::from);
        // Taken only now: whoever came while another commit ran is in this one.
        let changes = std::mem::take(&mut *lock(&self.waiting));
        if changes.is_empty() {
            return;
        }
        let told: Vec<Told> = changes.into_iter().map(|change| change(begun.as_ref())).collect();
        let kept = begun.and_then(|transaction| Ok(transaction.commit()?));
        for tell in told {
            tell(kept.clone());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parse<T: DeserializeOwned>(row: &[u8]) -> Result<T, JournalError> {
    serde_json::from_slice(row).map_err(|error| JournalError::Row(error.to_string()))
}

fn text(row: &impl Serialize) -> Result<Vec<u8>, JournalError> {
    serde_json::to_vec(row).map_err(|error| JournalError::Row(error.to_string()))
}

/// An account with `change` made to its credit.
pub(crate) fn credited(account: Option<Account>, credit: Amount) -> Option<Account> {
    let mut account = account?;
    account.credit.0 = account.credit.0.saturating_add(credit.0);
    Some(account)
}

#[cfg(test)]
mod tests {
    use assay_chain::ChannelState;

    use super::super::paper::{self, NOW};
    use super::*;

    fn reply(until: u64) -> Reply {
        let text = String::new;
        let (request, payer) = (B256::ZERO, Address::ZERO);
        Reply { request, payer, content_type: text(), settlement: text(), body: text(), until }
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let id = ChannelId(B256::repeat_byte(1));
        let state = ChannelState { balance: Amount(9), ..ChannelState::default() };
        let account = Account::new(paper::channel(&paper::payer()), &state, 0, NOW);
        let payment = Payment { request: B256::ZERO, transaction: None, answers: 1, until: NOW };
        {
            let journal = Journal::open(path.clone()).await.unwrap();
            let kept = account.clone();
            journal.change(id, move |_| (Some(kept), ())).await.unwrap();
            journal.keep_payment(id.0, payment.clone()).await.unwrap();
        }
        let journal = Journal::open(path).await.unwrap();
        assert_eq!(journal.account(id).await.unwrap(), Some(account));
        assert_eq!(journal.payment(id.0).await.unwrap(), Some(payment));
    }

    #[tokio::test]
    async fn changes_at_the_same_time_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path().join("journal")).await.unwrap();
        let id = ChannelId(B256::repeat_byte(1));
        let account =
            Account::new(paper::channel(&paper::payer()), &ChannelState::default(), 0, NOW);
        journal.change(id, move |_| (Some(account), ())).await.unwrap();
        let change = |_| journal.change(id, |account| (credited(account, Amount(1)), ()));
        futures_util::future::try_join_all((0..100).map(change)).await.unwrap();
        assert_eq!(journal.account(id).await.unwrap().map(|a| a.credit), Some(Amount(100)));
    }

    #[tokio::test]
    async fn what_nobody_can_come_back_for_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path().join("journal")).await.unwrap();
        for byte in 1..=5 {
            let until = NOW - 3 + u64::from(byte);
            journal.keep_reply(B256::repeat_byte(byte), reply(until)).await.unwrap();
        }
        journal.prune(NOW, 2).await.unwrap();
        let mut left = Vec::new();
        for byte in 1..=5 {
            if journal.reply(B256::repeat_byte(byte)).await.unwrap().is_some() {
                left.push(byte);
            }
        }
        assert_eq!(left, [4, 5]);
    }
}
