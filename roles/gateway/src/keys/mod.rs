//! API keys: what a public gateway's clients may spend, how fast, on which models, until when.
//!
//! A key is shown once, when it is made; what is kept is its hash, which is also its name. An answer
//! sets its highest price aside before it is bought, so answers that come at once never spend more
//! than there is, and its price is booked in the transaction that keeps the answer.

mod routes;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use assay_protocol::{Amount, B256, hex, keccak256};
use axum::http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::Listed;
use crate::catalogue::Model;
use crate::http::now_s;
use crate::openai::Problem;
use crate::store::{Row, Store, StoreError};

pub(crate) use routes::{admits, routes};

/// What every key begins with.
const PREFIX: &str = "sk-assay-";

/// Most keys there can be. Their limits are kept in memory.
const KEYS_MAX: usize = 100_000;

/// Longest name of a key, in bytes.
const NAME_BYTES_MAX: usize = 200;

const MINUTE: Duration = Duration::from_secs(60);

/// Who may ask a gateway for answers, and who makes its keys.
#[derive(Clone, Debug, Default)]
pub struct KeyRules {
    /// Whether a client needs a key. If not, one that is sent is not looked at.
    pub demanded: bool,
    /// keccak256 of the token with which keys are made and revoked over HTTP; none: nobody can, and
    /// [`KeyBook`] remains, for a gateway that is not running.
    pub admin: Option<B256>,
}

/// What a key allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyTerms {
    /// Whose it is, for people.
    pub name: String,
    /// What its answers may cost in all, in base units.
    pub budget: Amount,
    /// Requests a minute; so many may come at once.
    pub requests_per_minute: u32,
    /// Names or ids of the models it may ask; empty: all.
    #[serde(default)]
    pub models: Vec<String>,
    /// Unix seconds after which it is void; none: never.
    #[serde(default)]
    pub expires: Option<u64>,
}

/// A key as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyStatus {
    /// keccak256 of the key.
    pub id: B256,
    /// What it allows.
    #[serde(flatten)]
    pub terms: KeyTerms,
    /// When it was made, Unix seconds.
    pub created: u64,
    /// What its answers have cost, in base units.
    pub spent: Amount,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// Why a key is not made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The store failed, or a running gateway has it open.
    #[error("keys cannot be kept: {0}")]
    Store(#[from] StoreError),
    /// The name is too long.
    #[error("the key's name has {found} bytes, at most {NAME_BYTES_MAX}")]
    Name {
        /// Its length.
        found: usize,
    },
    /// There are too many.
    #[error("there are {KEYS_MAX} keys already")]
    Full,
    /// There is no such key.
    #[error("there is no key {id}")]
    Unknown {
        /// Which.
        id: B256,
    },
    /// The system gives no randomness.
    #[error("the system gives no randomness: {0}")]
    Randomness(String),
}

/// Why a client with a key, or without one, gets no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    #[error("no API key was sent; send it as Authorization: Bearer {PREFIX}…")]
    Missing,
    #[error("the API key is not one of this gateway's, or was revoked")]
    Unknown,
    #[error("the API key expired at {expired}, it is {now}")]
    Expired { expired: u64, now: u64 },
    #[error("the API key may not ask the model {model:?}")]
    Model { model: String },
    #[error("the API key may make {per_minute} requests a minute")]
    Rate { per_minute: u32, retry_after_s: u32 },
    #[error("the answer may cost {asked} base units, {left} are left of the API key's {budget}")]
    Budget { asked: Amount, left: Amount, budget: Amount },
    #[error("the answer may cost {asked} base units, and answers under way have them set aside")]
    SetAside { asked: Amount },
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let (status, code, retry_after_s) = match denied {
            Denied::Missing | Denied::Unknown | Denied::Expired { .. } => {
                (StatusCode::UNAUTHORIZED, "invalid_api_key", None)
            }
            Denied::Model { .. } => (StatusCode::FORBIDDEN, "model_not_allowed", None),
            Denied::Rate { retry_after_s, .. } => {
                (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", Some(retry_after_s))
            }
            Denied::Budget { .. } => (StatusCode::TOO_MANY_REQUESTS, "insufficient_quota", None),
            Denied::SetAside { .. } => {
                (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", Some(1))
            }
        };
        Self { retry_after_s, ..Self::new(status, code, denied.to_string()) }
    }
}

/// A key's row.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    terms: KeyTerms,
    created: u64,
    revoked: bool,
}

/// A key at work.
#[derive(Debug)]
struct Account {
    kept: Kept,
    spent: Amount,
    /// What answers under way may cost.
    aside: Amount,
    /// When requests at the allowed pace would have reached the number that came.
    paced: Instant,
}

impl Account {
    fn left(&self) -> Amount {
        Amount(self.kept.terms.budget.0.saturating_sub(self.spent.0))
    }

    fn status(&self, id: B256) -> KeyStatus {
        let Kept { terms, created, revoked } = self.kept.clone();
        KeyStatus { id, terms, created, spent: self.spent, revoked }
    }
}

/// When requests at the allowed pace reach one more, if it may come `now`; else how long it has to
/// wait.
fn pace(paced: Instant, now: Instant, per_minute: u32) -> Result<Instant, Duration> {
    if per_minute == 0 {
        return Err(MINUTE);
    }
    let next = paced.max(now) + MINUTE / per_minute;
    let ahead = next.duration_since(now);
    if ahead > MINUTE { Err(ahead - MINUTE) } else { Ok(next) }
}

/// The keys of a gateway.
#[derive(Debug)]
pub(crate) struct Keys {
    rules: KeyRules,
    store: Store,
    accounts: Mutex<HashMap<B256, Account>>,
}

/// For whom an answer is bought.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Whoever asks.
    Anyone,
    /// The holder of a key.
    Holder(Arc<Keys>, B256),
}

impl Keys {
    pub(crate) async fn open(rules: KeyRules, store: Store) -> Result<Arc<Self>, StoreError> {
        let now = Instant::now();
        let rows = store.keys::<Kept>().await?.into_iter();
        let accounts = rows
            .map(|(id, kept, spent)| (id, Account { kept, spent, aside: Amount(0), paced: now }));
        let accounts = Mutex::new(accounts.collect());
        Ok(Arc::new(Self { rules, store, accounts }))
    }

    /// Whose request carries these headers.
    pub(crate) fn caller(self: &Arc<Self>, headers: &HeaderMap) -> Result<Caller, Denied> {
        if !self.rules.demanded {
            return Ok(Caller::Anyone);
        }
        let id = keccak256(bearer(headers).ok_or(Denied::Missing)?);
        live(&mut self.lock(), id)?;
        Ok(Caller::Holder(Arc::clone(self), id))
    }

    /// Makes a key. It is given out here, and nowhere else.
    pub(crate) async fn create(&self, terms: KeyTerms) -> Result<(String, KeyStatus), KeyError> {
        if terms.name.len() > NAME_BYTES_MAX {
            return Err(KeyError::Name { found: terms.name.len() });
        }
        if self.lock().len() >= KEYS_MAX {
            return Err(KeyError::Full);
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| KeyError::Randomness(error.to_string()))?;
        let key = format!("{PREFIX}{}", hex::encode(secret));
        let id = keccak256(&key);
        let kept = Kept { terms, created: now_s(), revoked: false };
        self.store.keep(vec![Row::key(id, &kept)?]).await?;
        let paced = Instant::now();
        let account = Account { kept, spent: Amount(0), aside: Amount(0), paced };
        let status = account.status(id);
        self.lock().insert(id, account);
        Ok((key, status))
    }

    /// All keys, the newest first.
    pub(crate) fn list(&self) -> Vec<KeyStatus> {
        let accounts = self.lock();
        let mut keys: Vec<_> = accounts.iter().map(|(id, account)| account.status(*id)).collect();
        keys.sort_unstable_by_key(|key| (std::cmp::Reverse(key.created), key.id));
        keys
    }

    /// Makes a key void. Answers under way are finished.
    pub(crate) async fn revoke(&self, id: B256) -> Result<KeyStatus, KeyError> {
        let (row, status) = {
            let mut accounts = self.lock();
            let account = accounts.get_mut(&id).ok_or(KeyError::Unknown { id })?;
            account.kept.revoked = true;
            (Row::key(id, &account.kept)?, account.status(id))
        };
        self.store.keep(vec![row]).await?;
        Ok(status)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<B256, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key that is neither unknown nor void.
fn live(accounts: &mut HashMap<B256, Account>, id: B256) -> Result<&mut Account, Denied> {
    let account = accounts.get_mut(&id).filter(|account| !account.kept.revoked);
    let account = account.ok_or(Denied::Unknown)?;
    let now = now_s();
    match account.kept.terms.expires.filter(|expires| *expires <= now) {
        Some(expired) => Err(Denied::Expired { expired, now }),
        None => Ok(account),
    }
}

/// The key that a request carries.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

impl Caller {
    /// Counts a request for an answer.
    pub(crate) fn count(&self) -> Result<(), Denied> {
        let Self::Holder(keys, id) = self else { return Ok(()) };
        let mut accounts = keys.lock();
        // A connection may have outlived its key.
        let account = live(&mut accounts, *id)?;
        let per_minute = account.kept.terms.requests_per_minute;
        account.paced = pace(account.paced, Instant::now(), per_minute).map_err(|wait| {
            let retry_after_s = u32::try_from(wait.as_secs() + 1).unwrap_or(u32::MAX);
            Denied::Rate { per_minute, retry_after_s }
        })?;
        Ok(())
    }

    /// Sets aside what an answer of `model` may cost.
    pub(crate) fn set_aside(&self, model: &Model, most: Amount) -> Result<Spending, Denied> {
        let Listed { name, id, .. } = &model.listed;
        self.set_aside_for(name, |allowed| allowed == name || allowed.parse() == Ok(*id), most)
    }

    /// The same for a model of that `name`, which a key's list of models names as `is_named` says.
    pub(crate) fn set_aside_for(
        &self,
        name: &str,
        is_named: impl Fn(&String) -> bool,
        most: Amount,
    ) -> Result<Spending, Denied> {
        let Self::Holder(keys, id) = self else {
            return Ok(Spending { holder: None, most, open: AtomicBool::new(false) });
        };
        let mut accounts = keys.lock();
        let account = accounts.get_mut(id).ok_or(Denied::Unknown)?;
        let names = &account.kept.terms.models;
        if !names.is_empty() && !names.iter().any(is_named) {
            return Err(Denied::Model { model: name.to_owned() });
        }
        let (asked, left, budget) = (most, account.left(), account.kept.terms.budget);
        if asked > left {
            return Err(Denied::Budget { asked, left, budget });
        }
        if asked.0 > left.0.saturating_sub(account.aside.0) {
            return Err(Denied::SetAside { asked });
        }
        // Both are at most the budget, so nothing overflows.
        account.aside.0 += most.0;
        let holder = Some((Arc::clone(keys), *id));
        Ok(Spending { holder, most, open: AtomicBool::new(true) })
    }
}

/// What an answer under way may cost its client. Dropping it frees what was not booked.
#[derive(Debug)]
pub(crate) struct Spending {
    holder: Option<(Arc<Keys>, B256)>,
    most: Amount,
    /// Whether `most` is set aside.
    open: AtomicBool,
}

impl Spending {
    /// Books the answer's price; gives what has to be kept with it.
    pub(crate) fn book(&self, price: Amount) -> Option<Row> {
        let (_, id) = self.holder.as_ref()?;
        self.close(price).then_some(Row::Spend { key: *id, amount: price })
    }

    /// Ends it once; whether it was open.
    fn close(&self, price: Amount) -> bool {
        let Some((keys, id)) = &self.holder else { return false };
        if !self.open.swap(false, Ordering::Relaxed) {
            return false;
        }
        if let Some(account) = keys.lock().get_mut(id) {
            account.aside.0 = account.aside.0.saturating_sub(self.most.0);
            account.spent.0 = account.spent.0.saturating_add(price.0);
        }
        true
    }
}

impl Drop for Spending {
    fn drop(&mut self) {
        self.close(Amount(0));
    }
}

/// The keys in the file of a gateway that is not running.
#[derive(Debug)]
pub struct KeyBook(Arc<Keys>);

impl KeyBook {
    /// Opens the file that is [`Config::store`](crate::Config::store).
    ///
    /// # Errors
    /// If it cannot be read, or a running gateway has it open: that one is asked over HTTP.
    pub async fn open(store: PathBuf) -> Result<Self, KeyError> {
        let store = Store::open(store).await?;
        Ok(Self(Keys::open(KeyRules::default(), store).await?))
    }

    /// Makes a key. It cannot be seen again.
    ///
    /// # Errors
    /// If it cannot be kept.
    pub async fn create(&self, terms: KeyTerms) -> Result<(String, KeyStatus), KeyError> {
        self.0.create(terms).await
    }

    /// All keys, the newest first.
    pub fn list(&self) -> Vec<KeyStatus> {
        self.0.list()
    }

    /// Makes a key void.
    ///
    /// # Errors
    /// If there is none, or that cannot be kept.
    pub async fn revoke(&self, id: B256) -> Result<KeyStatus, KeyError> {
        self.0.revoke(id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draft::tests::nano;

    fn terms(budget: u128) -> KeyTerms {
        let (name, models) = ("ada".into(), vec![]);
        KeyTerms { name, budget: Amount(budget), requests_per_minute: 60, models, expires: None }
    }

    async fn keys(folder: &std::path::Path) -> Arc<Keys> {
        let store = Store::open(folder.join("answers")).await.unwrap();
        Keys::open(KeyRules { demanded: true, admin: None }, store).await.unwrap()
    }

    fn headers(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, text.parse().unwrap());
        headers
    }

    #[test]
    fn so_many_may_come_at_once_and_then_at_the_pace() {
        let start = Instant::now();
        let mut paced = start;
        for _ in 0..6 {
            paced = pace(paced, start, 6).unwrap();
        }
        assert_eq!(pace(paced, start, 6), Err(Duration::from_secs(10)));
        let later = start + Duration::from_secs(10);
        paced = pace(paced, later, 6).unwrap();
        assert_eq!(pace(paced, later, 6), Err(Duration::from_secs(10)));
        assert!(pace(paced, later + Duration::from_secs(3600), 6).is_ok());
        assert_eq!(pace(start, start, 0), Err(MINUTE));
    }

    #[tokio::test]
    async fn a_key_is_kept_as_its_hash_and_survives_with_what_it_spent() {
        let folder = tempfile::tempdir().unwrap();
        let (key, made) = {
            let keys = keys(folder.path()).await;
            let (key, made) = keys.create(terms(100)).await.unwrap();
            let caller = keys.caller(&headers(&format!("Bearer {key}"))).unwrap();
            let spending = caller.set_aside(&nano(), Amount(60)).unwrap();
            let row = spending.book(Amount(40)).unwrap();
            assert!(spending.book(Amount(40)).is_none());
            keys.store.keep(vec![row]).await.unwrap();
            (key, made)
        };
        let file = std::fs::read(folder.path().join("answers")).unwrap();
        let secret = key.strip_prefix(PREFIX).unwrap().as_bytes();
        assert!(!file.windows(secret.len()).any(|window| window == secret));
        let book = KeyBook::open(folder.path().join("answers")).await.unwrap();
        assert_eq!(book.list(), [KeyStatus { spent: Amount(40), ..made.clone() }]);
        assert!(book.revoke(made.id).await.unwrap().revoked);
        assert!(matches!(book.revoke(B256::ZERO).await, Err(KeyError::Unknown { .. })));
        drop(book);
        let keys = keys(folder.path()).await;
        let denied = keys.caller(&headers(&format!("bearer {key}"))).unwrap_err();
        assert_eq!(denied, Denied::Unknown);
    }

    #[tokio::test]
    async fn what_is_set_aside_comes_back_unless_it_is_booked() {
        let folder = tempfile::tempdir().unwrap();
        let keys = keys(folder.path()).await;
        let (key, _) = keys.create(terms(100)).await.unwrap();
        let caller = keys.caller(&headers(&format!("Bearer {key}"))).unwrap();
        let set = |most| caller.set_aside(&nano(), Amount(most));
        let first = set(60).unwrap();
        assert_eq!(set(60).unwrap_err(), Denied::SetAside { asked: Amount(60) });
        drop(first);
        set(100).unwrap().book(Amount(50)).unwrap();
        let (asked, left, budget) = (Amount(60), Amount(50), Amount(100));
        assert_eq!(set(60).unwrap_err(), Denied::Budget { asked, left, budget });
        assert!(set(50).is_ok());
    }

    #[tokio::test]
    async fn a_key_opens_what_its_terms_say() {
        let folder = tempfile::tempdir().unwrap();
        let keys = keys(folder.path()).await;
        let denied = |headers: &HeaderMap| keys.caller(headers).unwrap_err();
        assert_eq!(denied(&HeaderMap::new()), Denied::Missing);
        assert_eq!(denied(&headers("Basic eDp5")), Denied::Missing);
        assert_eq!(denied(&headers("Bearer sk-assay-0")), Denied::Unknown);
        let old = KeyTerms { expires: Some(5), ..terms(100) };
        let (old, _) = keys.create(old).await.unwrap();
        assert!(matches!(denied(&headers(&format!("Bearer {old}"))), Denied::Expired { .. }));
        let other = KeyTerms { models: vec!["org/other".into()], ..terms(100) };
        let (other, _) = keys.create(other).await.unwrap();
        let caller = keys.caller(&headers(&format!("Bearer {other}"))).unwrap();
        let denied = caller.set_aside(&nano(), Amount(1)).unwrap_err();
        assert_eq!(denied, Denied::Model { model: "org/nano".into() });
        let long = KeyTerms { name: "x".repeat(201), ..terms(1) };
        assert!(matches!(keys.create(long).await, Err(KeyError::Name { found: 201 })));
    }
}
