//! Keeps on disk what must not be forgotten: channels' accounts, payments taken, answers that are paid for
//! and on their way, replies to repeat.
//!
//! A charge and what it bought are one change, so no crash leaves one without the other: a whole answer is
//! kept with its charge, and a stream, whose end is not known yet, leaves a pending row with it. The row goes
//! when the stream has ended. Those that are found when the file is opened were cut off by a crash, and what
//! they were charged is credited to their channels.
//!
//! A reply's body lies apart from what it is known by. Bodies are many bytes, and the oldest make room; that
//! an answer was paid is known until its time is over, so no retry pays for it again.
//!
//! Accounts that were used lately are kept in memory, too: only this process writes the file.

use std::collections::HashMap;
use std::ops::Bound::{self, Excluded, Unbounded};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use assay_protocol::{Address, Amount, B256, ChannelId};
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::batch::Account;
use super::fault::Fault;
use super::wire::ExactPayload;
use crate::disk::{Disk, StoreError, json, parsed};

pub(super) type Rows<'a> = TableDefinition<'a, [u8; 32], &'static [u8]>;

/// A name, and until when what it names is kept.
type Aged = (u64, [u8; 32]);

/// Channel id → [`Account`].
const ACCOUNTS: Rows<'_> = TableDefinition::new("accounts");
/// Token, payer and nonce, hashed → [`Payment`].
pub(super) const PAYMENTS: Rows<'_> = TableDefinition::new("payments");
/// A name of a payment → [`Reply`], without its body.
pub(super) const REPLIES: Rows<'_> = TableDefinition::new("replies");
/// Until when a reply is kept, and its name → its body. The oldest come first.
pub(super) const BODIES: TableDefinition<'_, (u64, [u8; 32]), &[u8]> =
    TableDefinition::new("bodies");
/// A name of a payment → [`Pending`].
pub(super) const PENDING: Rows<'_> = TableDefinition::new("pending");

/// Accounts kept in memory, of some 400 bytes each.
const CACHED_MAX: usize = 16_384;

/// Pending rows that are looked at in one change when the file is opened.
const RESTORED_ROWS: usize = 1_000;

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
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
    /// Under which key its answer is kept; none while there is no whole one.
    #[serde(default)]
    pub(crate) reply: Option<B256>,
    /// After this second nobody needs to remember it: the token refuses it by then.
    pub(crate) until: u64,
}

/// A reply that was paid for, to be repeated rather than sold twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// What paid for it; its key may be a channel's, which keeps the last one.
    #[serde(default)]
    pub(crate) payment: B256,
    /// The request that it answers.
    pub(crate) request: B256,
    /// Who paid.
    pub(crate) payer: Address,
    /// What the body is.
    pub(crate) content_type: String,
    /// What became of the payment: the header's value.
    pub(crate) settlement: String,
    /// What was said, unless it was too long, is no text, or had to make room.
    #[serde(default, skip_serializing)]
    pub(crate) body: Option<String>,
    /// Kept until this second.
    pub(crate) until: u64,
}

/// What was bought and has no whole answer yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pending {
    /// What was asked.
    pub(crate) request: B256,
    /// Who paid.
    pub(crate) payer: Address,
    /// How.
    pub(crate) paid: Paid,
    /// After this second it is forgotten, unless it is a stream's, which is settled first.
    pub(crate) until: u64,
}

/// How something pending was paid.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Paid {
    /// By this transfer, the first that came with the client's name for the payment. No other one is
    /// settled under that name as long as this one may be.
    Transfer(ExactPayload),
    /// Out of a channel, which was charged this much for a stream.
    Stream {
        /// Whose.
        channel: ChannelId,
        /// Base units, before credits came off.
        charged: Amount,
    },
}

/// The file.
#[derive(Clone)]
pub(crate) struct Journal {
    pub(super) disk: Disk,
    cached: Arc<Mutex<HashMap<ChannelId, Account>>>,
    /// How many of the next changes fail.
    #[cfg(test)]
    pub(super) fails: Arc<std::sync::atomic::AtomicU32>,
}

impl Journal {
    /// Opens the file at `path`, or creates it, and credits what a crash cut off; `now` in Unix
    /// seconds.
    pub(crate) async fn open(path: PathBuf, now: u64) -> Result<Self, StoreError> {
        let disk = Disk::open(path, |transaction| {
            for table in [ACCOUNTS, PAYMENTS, REPLIES, PENDING] {
                transaction.open_table(table)?;
            }
            transaction.open_table(BODIES)?;
            Ok(())
        });
        let journal = Self {
            disk: disk.await?,
            cached: Arc::default(),
            #[cfg(test)]
            fails: Arc::default(),
        };
        let mut after = None;
        loop {
            let (restored, last) = journal.write(move |rows| restore(rows, after, now)).await?;
            if restored > 0 {
                tracing::warn!(restored, "answers were cut off; what they cost is credited");
            }
            let Some(last) = last else { return Ok(journal) };
            after = Some(last);
        }
    }

    /// The account of a channel.
    pub(crate) async fn account(&self, id: ChannelId) -> Result<Option<Account>, StoreError> {
        let cached = lock(&self.cached).get(&id).cloned();
        match cached {
            Some(account) => Ok(Some(account)),
            None => self.find(ACCOUNTS, id.0).await,
        }
    }

    /// The account of a channel if it is in memory.
    #[cfg(test)]
    fn cached(&self, id: ChannelId) -> Option<Account> {
        lock(&self.cached).get(&id).cloned()
    }

    /// Accounts in the order of their channels' ids, at most `max`, from the one after `after` on.
    pub(crate) async fn accounts(
        &self,
        after: Option<ChannelId>,
        max: usize,
    ) -> Result<Vec<(ChannelId, Account)>, StoreError> {
        let read = self.disk.read(move |transaction| {
            let table = transaction.open_table(ACCOUNTS)?;
            let rows = table.range::<[u8; 32]>((start(after.map(|id| id.0)), Unbounded))?;
            let mut found = Vec::new();
            for row in rows.take(max) {
                let (id, account) = row?;
                found.push((ChannelId(B256::from(id.value())), parsed(account.value())?));
            }
            Ok(found)
        });
        read.await
    }

    /// What is known of a payment.
    pub(crate) async fn payment(&self, key: B256) -> Result<Option<Payment>, StoreError> {
        self.find(PAYMENTS, key).await
    }

    /// A reply given before.
    pub(crate) async fn reply(&self, key: B256) -> Result<Option<Reply>, StoreError> {
        let found = self.disk.read(move |transaction| {
            let table = transaction.open_table(REPLIES)?;
            let Some(row) = table.get(key.0)? else { return Ok(None) };
            let mut reply: Reply = parsed(row.value())?;
            if let Some(body) = transaction.open_table(BODIES)?.get((reply.until, key.0))? {
                let body = String::from_utf8(body.value().to_vec());
                reply.body = Some(body.map_err(|error| StoreError::Format(error.to_string()))?);
            }
            Ok(Some(reply))
        });
        found.await
    }

    /// What was bought under a name and has no answer yet.
    pub(crate) async fn pending(&self, name: B256) -> Result<Option<Pending>, StoreError> {
        self.find(PENDING, name).await
    }

    /// Whether the next change is to fail.
    #[cfg(test)]
    fn fail(&self) -> bool {
        use std::sync::atomic::Ordering::SeqCst;
        self.fails.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
    }

    /// Makes a change, all or nothing; on disk on return.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Change<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        #[cfg(test)]
        if self.fail() {
            return Err(StoreError::Format("a test wants it so".to_owned()));
        }
        let cached = Arc::clone(&self.cached);
        let made = self.disk.write_then(
            move |transaction| {
                let mut rows = Change {
                    transaction,
                    rows: Vec::new(),
                    bodies: Vec::new(),
                    accounts: Vec::new(),
                };
                let said = change(&mut rows)?;
                Ok((said, rows.keep()?))
            },
            move |made| {
                if let Some((_, accounts)) = made {
                    remember(&mut lock(&cached), accounts);
                }
            },
        );
        made.await.map(|(said, _)| said)
    }

    /// Changes a channel's account, on disk on return. The function gets what is kept and says what to
    /// keep; none leaves it as it is.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        id: ChannelId,
        change: impl FnOnce(Option<Account>) -> (Option<Account>, T) + Send + 'static,
    ) -> Result<T, StoreError> {
        self.write(move |rows| {
            let (next, said) = change(rows.account(id)?);
            if let Some(account) = next {
                rows.keep_account(id, account)?;
            }
            Ok(said)
        })
        .await
    }

    async fn find<T: DeserializeOwned + Send + 'static>(
        &self,
        table: Rows<'static>,
        key: B256,
    ) -> Result<Option<T>, StoreError> {
        let found = self.disk.read(move |transaction| {
            let table = transaction.open_table(table)?;
            table.get(key.0)?.map(|row| parsed(row.value())).transpose()
        });
        found.await
    }
}

/// A change in the making. It reads what is on disk, and what it keeps is written when it is decided, so a
/// change that fails has written nothing.
pub(crate) struct Change<'a> {
    transaction: &'a WriteTransaction,
    /// What to write; none removes.
    rows: Vec<(Rows<'static>, B256, Option<Vec<u8>>)>,
    /// Bodies to write, by their times and names; none removes.
    bodies: Vec<(Aged, Option<String>)>,
    accounts: Vec<(ChannelId, Account)>,
}

impl Change<'_> {
    pub(crate) fn account(&self, id: ChannelId) -> Result<Option<Account>, StoreError> {
        self.find(ACCOUNTS, id.0)
    }

    pub(crate) fn keep_account(
        &mut self,
        id: ChannelId,
        account: Account,
    ) -> Result<(), StoreError> {
        self.put(ACCOUNTS, id.0, &account)?;
        self.accounts.push((id, account));
        Ok(())
    }

    pub(crate) fn payment(&self, key: B256) -> Result<Option<Payment>, StoreError> {
        self.find(PAYMENTS, key)
    }

    pub(crate) fn keep_payment(&mut self, key: B256, payment: &Payment) -> Result<(), StoreError> {
        self.put(PAYMENTS, key, payment)
    }

    /// Forgets a payment that certainly did not happen.
    pub(crate) fn forget_payment(&mut self, key: B256) {
        self.rows.push((PAYMENTS, key, None));
    }

    /// Keeps a reply in the place of the one before.
    pub(crate) fn keep_reply(&mut self, key: B256, reply: Reply) -> Result<(), StoreError> {
        if let Some(before) = self.find::<Reply>(REPLIES, key)? {
            self.bodies.push(((before.until, key.0), None));
        }
        self.put(REPLIES, key, &reply)?;
        if reply.body.is_some() {
            self.bodies.push(((reply.until, key.0), reply.body));
        }
        Ok(())
    }

    pub(crate) fn pending(&self, name: B256) -> Result<Option<Pending>, StoreError> {
        self.find(PENDING, name)
    }

    pub(crate) fn keep_pending(&mut self, name: B256, row: &Pending) -> Result<(), StoreError> {
        self.put(PENDING, name, row)
    }

    /// Credits the stream that is pending under `name`, if one is: its end could not be kept, and what comes
    /// next takes its row. `held` is an account that the caller is about to keep.
    pub(crate) fn credit_stream(
        &mut self,
        name: B256,
        held: Option<(ChannelId, &mut Account)>,
        now: u64,
    ) -> Result<(), StoreError> {
        let row = self.pending(name)?;
        let Some(Paid::Stream { channel, charged }) = row.map(|row| row.paid) else {
            return Ok(());
        };
        self.forget_pending(name);
        match held {
            Some((id, account)) if id == channel => account.end(charged, Amount(0), now),
            _ => {
                if let Some(mut account) = self.account(channel)? {
                    account.end(charged, Amount(0), now);
                    self.keep_account(channel, account)?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn forget_pending(&mut self, name: B256) {
        self.rows.push((PENDING, name, None));
    }

    fn find<T: DeserializeOwned>(
        &self,
        table: Rows<'static>,
        key: B256,
    ) -> Result<Option<T>, StoreError> {
        let table = self.transaction.open_table(table)?;
        table.get(key.0)?.map(|row| parsed(row.value())).transpose()
    }

    fn put(
        &mut self,
        table: Rows<'static>,
        key: B256,
        row: &impl Serialize,
    ) -> Result<(), StoreError> {
        self.rows.push((table, key, Some(json(row)?)));
        Ok(())
    }

    /// Writes it, and gives the accounts that it changed.
    fn keep(self) -> Result<Vec<(ChannelId, Account)>, StoreError> {
        for (table, key, row) in self.rows {
            let mut table = self.transaction.open_table(table)?;
            match row {
                Some(row) => drop(table.insert(key.0, row.as_slice())?),
                None => drop(table.remove(key.0)?),
            }
        }
        if !self.bodies.is_empty() {
            let mut bodies = self.transaction.open_table(BODIES)?;
            for (key, body) in self.bodies {
                match body {
                    Some(body) => drop(bodies.insert(key, body.as_bytes())?),
                    None => drop(bodies.remove(key)?),
                }
            }
        }
        Ok(self.accounts)
    }
}

/// Credits the streams among the pending rows after `after`, which a crash cut off. Gives how many they
/// are, and the last row looked at if there may be more.
fn restore(
    rows: &mut Change<'_>,
    after: Option<B256>,
    now: u64,
) -> Result<(usize, Option<B256>), StoreError> {
    let mut found = Vec::new();
    {
        let table = rows.transaction.open_table(PENDING)?;
        let range = table.range::<[u8; 32]>((start(after), Unbounded))?;
        for row in range.take(RESTORED_ROWS) {
            let (name, row) = row?;
            found.push((B256::from(name.value()), parsed::<Pending>(row.value())?));
        }
    }
    let last = found.last().filter(|_| found.len() == RESTORED_ROWS).map(|(name, _)| *name);
    let mut credited: HashMap<ChannelId, Account> = HashMap::new();
    let mut count = 0;
    for (name, pending) in found {
        let Paid::Stream { channel, charged } = pending.paid else { continue };
        let account = match credited.remove(&channel) {
            Some(account) => Some(account),
            None => rows.account(channel)?,
        };
        if let Some(mut account) = account {
            account.end(charged, Amount(0), now);
            credited.insert(channel, account);
        }
        rows.forget_pending(name);
        count += 1;
    }
    for (channel, account) in credited {
        rows.keep_account(channel, account)?;
    }
    Ok((count, last))
}

/// The keys after `after`.
pub(super) fn start(after: Option<B256>) -> Bound<[u8; 32]> {
    after.map_or(Unbounded, |key| Excluded(key.0))
}

/// Keeps accounts in memory, in the place of any others if there are too many.
fn remember(cached: &mut HashMap<ChannelId, Account>, accounts: &[(ChannelId, Account)]) {
    for (id, account) in accounts {
        if cached.len() >= CACHED_MAX
            && !cached.contains_key(id)
            && let Some(any) = cached.keys().next().copied()
        {
            cached.remove(&any);
        }
        cached.insert(*id, account.clone());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use assay_chain::ChannelState;
    use redb::ReadableTableMetadata;

    use super::super::forget::tests::reply;
    use super::super::paper::{self, NOW};
    use super::*;

    fn account() -> Account {
        let state = ChannelState { balance: Amount(900), ..ChannelState::default() };
        Account::new(paper::channel(&paper::payer()), &state, 0, NOW)
    }

    fn stream(channel: ChannelId, charged: u128) -> Pending {
        let paid = Paid::Stream { channel, charged: Amount(charged) };
        Pending { request: B256::ZERO, payer: Address::ZERO, paid, until: NOW }
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let id = ChannelId(B256::repeat_byte(1));
        let payment =
            Payment { request: B256::ZERO, transaction: None, answers: 1, reply: None, until: NOW };
        {
            let journal = Journal::open(path.clone(), NOW).await.unwrap();
            let kept = payment.clone();
            let change = journal.write(move |rows| {
                rows.keep_account(id, account())?;
                rows.keep_payment(id.0, &kept)
            });
            change.await.unwrap();
        }
        let journal = Journal::open(path, NOW).await.unwrap();
        assert_eq!(journal.account(id).await.unwrap(), Some(account()));
        assert_eq!(journal.payment(id.0).await.unwrap(), Some(payment));
    }

    #[tokio::test]
    async fn what_a_crash_cut_off_is_credited_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let id = ChannelId(B256::repeat_byte(1));
        let names = |byte| B256::repeat_byte(byte);
        {
            let journal = Journal::open(path.clone(), NOW).await.unwrap();
            let change = journal.write(move |rows| {
                let mut account = account();
                account.begin(&paper::voucher(&paper::payer(), 100), Amount(100), NOW);
                account.begin(&paper::voucher(&paper::payer(), 150), Amount(50), NOW);
                rows.keep_account(id, account)?;
                rows.keep_pending(names(1), &stream(id, 100))?;
                rows.keep_pending(names(2), &stream(id, 50))
            });
            change.await.unwrap();
        }
        for _ in 0..2 {
            let journal = Journal::open(path.clone(), NOW).await.unwrap();
            let account = journal.account(id).await.unwrap().unwrap();
            assert_eq!((account.charged, account.credit), (Amount(150), Amount(150)));
            assert_eq!((account.open, account.owed()), (Amount(0), Amount(0)));
            assert!(journal.pending(names(1)).await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn memory_never_differs_from_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path().join("journal"), NOW).await.unwrap();
        let id = ChannelId(B256::repeat_byte(1));
        journal.change(id, |_| (Some(account()), ())).await.unwrap();
        assert_eq!(journal.cached(id), Some(account()));
        let fails = journal.write(move |rows| {
            let mut account = account();
            account.charged = Amount(7);
            rows.keep_account(id, account)?;
            Err::<(), _>(StoreError::Format("no row".to_owned()))
        });
        assert!(fails.await.is_err());
        assert_eq!(journal.cached(id), Some(account()));
        assert_eq!(journal.accounts(None, 9).await.unwrap(), [(id, account())]);
        assert_eq!(journal.accounts(Some(id), 9).await.unwrap(), []);
    }

    #[tokio::test]
    async fn changes_at_the_same_time_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path().join("journal"), NOW).await.unwrap();
        let id = ChannelId(B256::repeat_byte(1));
        journal.change(id, |_| (Some(account()), ())).await.unwrap();
        let change = |_| {
            journal.change(id, |kept| {
                let mut account = kept.unwrap();
                account.credit.0 += 1;
                (Some(account), ())
            })
        };
        futures_util::future::try_join_all((0..100).map(change)).await.unwrap();
        assert_eq!(journal.account(id).await.unwrap().map(|a| a.credit), Some(Amount(100)));
    }

    #[tokio::test]
    async fn a_body_goes_with_the_reply_that_it_was_of() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path().join("journal"), NOW).await.unwrap();
        let key = B256::repeat_byte(1);
        for (until, body) in [(NOW + 1, Some("one")), (NOW + 2, Some("two")), (NOW + 3, None)] {
            let kept = Reply { body: body.map(str::to_owned), ..reply(until) };
            journal.write(move |rows| rows.keep_reply(key, kept)).await.unwrap();
            let found = journal.reply(key).await.unwrap().unwrap();
            assert_eq!((found.until, found.body.as_deref()), (until, body));
            let bodies = journal.disk.read(|rows| Ok(rows.open_table(BODIES)?.len()?));
            assert_eq!(bodies.await.unwrap(), u64::from(body.is_some()));
        }
    }
}
