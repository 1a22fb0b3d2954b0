//! API keys: what a public gateway's clients may spend, how fast, on which models, until when.
//!
//! A key is shown once, when it is made; what is kept is its hash, which is also its name. What is
//! spent with it, and how often, is counted in the `budget`.

mod routes;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use assay_protocol::{Amount, B256, hex, keccak256};
use axum::http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::Listed;
use crate::budget::{Budgets, Limit, Over, Spending};
use crate::catalogue::Model;
use crate::http::now_s;
use crate::openai::Problem;
use crate::shelf::Owner;
use crate::store::{Row, Store, StoreError};

pub(crate) use routes::{admits, routes};

/// What every key begins with.
const PREFIX: &str = "sk-assay-";

/// Most keys there can be. Their limits are kept in memory.
const KEYS_MAX: usize = 100_000;

/// Longest name of a key, in bytes.
const NAME_BYTES_MAX: usize = 200;

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

impl Denied {
    /// What keeps an answer from being bought with a key of this budget.
    pub(crate) fn of(over: Over, budget: Amount) -> Self {
        match over {
            Over::Rate { per_minute, retry_after_s, .. } => {
                Self::Rate { per_minute, retry_after_s }
            }
            Over::Spent { asked, left, .. } => Self::Budget { asked, left, budget },
            Over::SetAside { asked, .. } => Self::SetAside { asked },
        }
    }
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

impl Kept {
    fn status(&self, id: B256, spent: Amount) -> KeyStatus {
        let Self { terms, created, revoked } = self.clone();
        KeyStatus { id, terms, created, spent, revoked }
    }
}

/// The keys of a gateway.
#[derive(Debug)]
pub(crate) struct Keys {
    rules: KeyRules,
    store: Store,
    budgets: Arc<Budgets>,
    kept: Mutex<HashMap<B256, Kept>>,
}

/// For whom an answer is bought.
#[derive(Clone, Debug)]
pub(crate) enum Caller {
    /// Whoever asks.
    Anyone,
    /// The holder of a key.
    Holder(Arc<Keys>, B256),
    /// Whoever has no key where one is demanded, and why it counts as none. Only grants open
    /// something to it.
    Stranger(Denied),
}

impl Keys {
    pub(crate) async fn open(
        rules: KeyRules,
        store: Store,
        budgets: Arc<Budgets>,
    ) -> Result<Arc<Self>, StoreError> {
        let mut keys = HashMap::new();
        for (id, kept, spent) in store.keys::<Kept>().await? {
            budgets.learn(id, spent, true);
            keys.insert(id, kept);
        }
        Ok(Arc::new(Self { rules, store, budgets, kept: Mutex::new(keys) }))
    }

    /// Whose request carries these headers.
    pub(crate) fn caller(self: &Arc<Self>, headers: &HeaderMap) -> Result<Caller, Denied> {
        if !self.rules.demanded {
            return Ok(Caller::Anyone);
        }
        let id = keccak256(bearer(headers).ok_or(Denied::Missing)?);
        live(&self.lock(), id)?;
        Ok(Caller::Holder(Arc::clone(self), id))
    }

    /// The same for requests that grants may open as well as keys.
    pub(crate) fn caller_or_stranger(self: &Arc<Self>, headers: &HeaderMap) -> Caller {
        self.caller(headers).unwrap_or_else(Caller::Stranger)
    }

    /// Whether a client needs a key.
    pub(crate) fn are_demanded(&self) -> bool {
        self.rules.demanded
    }

    /// The caller to whom `owner`'s things belong: whoever has work done while nobody is connected.
    pub(crate) fn of_owner(self: &Arc<Self>, owner: Owner) -> Caller {
        match owner {
            None => Caller::Anyone,
            Some(id) => Caller::Holder(Arc::clone(self), id),
        }
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
        let status = kept.status(id, Amount(0));
        self.budgets.learn(id, Amount(0), true);
        self.lock().insert(id, kept);
        Ok((key, status))
    }

    /// All keys, the newest first.
    pub(crate) fn list(&self) -> Vec<KeyStatus> {
        let kept = self.lock();
        let status = |(id, kept): (&B256, &Kept)| kept.status(*id, self.budgets.spent(*id));
        let mut keys: Vec<_> = kept.iter().map(status).collect();
        keys.sort_unstable_by_key(|key| (std::cmp::Reverse(key.created), key.id));
        keys
    }

    /// Makes a key void. Answers under way are finished.
    pub(crate) async fn revoke(&self, id: B256) -> Result<KeyStatus, KeyError> {
        let (row, status) = {
            let mut keys = self.lock();
            let kept = keys.get_mut(&id).ok_or(KeyError::Unknown { id })?;
            kept.revoked = true;
            (Row::key(id, kept)?, kept.status(id, self.budgets.spent(id)))
        };
        self.store.keep(vec![row]).await?;
        Ok(status)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<B256, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A key that is neither unknown nor void.
fn live(keys: &HashMap<B256, Kept>, id: B256) -> Result<&KeyTerms, Denied> {
    let kept = keys.get(&id).filter(|kept| !kept.revoked).ok_or(Denied::Unknown)?;
    let now = now_s();
    match kept.terms.expires.filter(|expires| *expires <= now) {
        Some(expired) => Err(Denied::Expired { expired, now }),
        None => Ok(&kept.terms),
    }
}

/// The key that a request carries.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

impl Caller {
    /// To whom belongs what the caller has kept; none: it has nothing kept, as nobody knows it again.
    pub(crate) fn owner(&self, keys: &Keys) -> Option<Owner> {
        match self {
            Self::Anyone => (!keys.are_demanded()).then_some(None),
            Self::Holder(_, id) => Some(Some(*id)),
            Self::Stranger(_) => None,
        }
    }

    /// Counts a request for an answer.
    pub(crate) fn count(&self) -> Result<(), Denied> {
        match self {
            Self::Anyone => Ok(()),
            Self::Stranger(denied) => Err(denied.clone()),
            Self::Holder(keys, id) => {
                let per_minute = live(&keys.lock(), *id)?.requests_per_minute;
                let counted = keys.budgets.count(*id, per_minute);
                counted.map_err(|over| Denied::of(over, Amount(0)))
            }
        }
    }

    /// What the caller's key allows an answer of `model`; none: nobody bounds it.
    pub(crate) fn limit(&self, model: &Model) -> Result<Option<Limit>, Denied> {
        let Listed { name, id, .. } = &model.listed;
        self.limit_for(name, |allowed| allowed == name || allowed.parse() == Ok(*id))
    }

    fn limit_for(
        &self,
        name: &str,
        is_named: impl Fn(&String) -> bool,
    ) -> Result<Option<Limit>, Denied> {
        let (keys, id) = match self {
            Self::Anyone => return Ok(None),
            Self::Stranger(denied) => return Err(denied.clone()),
            Self::Holder(keys, id) => (keys, *id),
        };
        let kept = keys.lock();
        // A connection may have outlived its key.
        let terms = live(&kept, id)?;
        if !terms.models.is_empty() && !terms.models.iter().any(is_named) {
            return Err(Denied::Model { model: name.to_owned() });
        }
        Ok(Some(Limit { name: id, spend: terms.budget, per_minute: None }))
    }

    /// Sets aside what an answer of `model` may cost.
    pub(crate) fn set_aside(&self, model: &Model, most: Amount) -> Result<Spending, Denied> {
        self.set_aside_under(self.limit(model)?, most)
    }

    /// The same for a model of that `name`, which a key's list of models names as `is_named` says.
    pub(crate) fn set_aside_for(
        &self,
        name: &str,
        is_named: impl Fn(&String) -> bool,
        most: Amount,
    ) -> Result<Spending, Denied> {
        self.set_aside_under(self.limit_for(name, is_named)?, most)
    }

    fn set_aside_under(&self, limit: Option<Limit>, most: Amount) -> Result<Spending, Denied> {
        let (Self::Holder(keys, _), Some(limit)) = (self, limit) else {
            return Ok(Spending::free());
        };
        let set_aside = keys.budgets.set_aside(&[limit], most);
        set_aside.map_err(|over| Denied::of(over, limit.spend))
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
        Ok(Self(Keys::open(KeyRules::default(), store, Arc::default()).await?))
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
        let rules = KeyRules { demanded: true, admin: None };
        Keys::open(rules, store, Arc::default()).await.unwrap()
    }

    fn headers(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, text.parse().unwrap());
        headers
    }

    #[tokio::test]
    async fn a_key_is_kept_as_its_hash_and_survives_with_what_it_spent() {
        let folder = tempfile::tempdir().unwrap();
        let (key, made) = {
            let keys = keys(folder.path()).await;
            let (key, made) = keys.create(terms(100)).await.unwrap();
            let caller = keys.caller(&headers(&format!("Bearer {key}"))).unwrap();
            let spending = caller.set_aside(&nano(), Amount(60)).unwrap();
            let rows = spending.book(Amount(40)).unwrap();
            assert!(spending.book(Amount(40)).is_none());
            keys.store.keep(rows).await.unwrap();
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
