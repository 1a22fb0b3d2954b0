//! Ethereum's JSON-RPC: what wallets, libraries and explorers ask a node.
//!
//! [`server`] carries calls over HTTP, [`socket`] over WebSocket; [`message`] and [`params`] read
//! them; [`methods`] names them all. The answers stand in [`account`], [`block`], [`logs`], [`fee`],
//! [`call`], [`simulate`], [`debug`], [`pool`], [`config`], on chains for development in [`wallet`]
//! and [`dev`]; [`shape`] gives them the form that clients expect.
//! What strangers may ask for without end, [`limits`] ends.
//!
//! Most calls read memory and are answered where they come in. Those that may touch the disk, and
//! those that run code, go to threads that may block, a bounded number of each.

mod account;
mod block;
mod call;
mod config;
mod debug;
mod dev;
mod fee;
mod filters;
mod limits;
mod logs;
mod message;
mod methods;
mod notice;
mod params;
mod pool;
mod read;
mod server;
mod shape;
mod simulate;
mod socket;
mod trial;
mod wallet;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use alloy_primitives::{B256, Bytes};
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

pub use dev::Development;
pub use limits::Limits;
pub use message::{Answer, Error, answer};
pub use params::Params;
pub use server::{Pages, serve};
pub use wallet::{Impersonated, Wallet};

use crate::Chain;
use crate::clock::Clock;
use crate::mempool::Mempool;
use filters::Filters;
use message::{Asked, Call, write_answer};
use methods::{Method, Weight};
use socket::{Line, Subscriptions};

/// Methods that someone else answers: accounts, development.
pub trait Module: Send + Sync {
    /// The names of its methods. They go before those of the same name here.
    fn methods(&self) -> &[&'static str];

    /// Answers one of its methods. Called on a thread that may block.
    fn call(&self, method: &str, params: &Params<'_>) -> Answer;
}

/// A node as its clients see it. Cheap to clone.
#[derive(Clone)]
pub struct Rpc(Arc<Inner>);

struct Inner {
    chain: Arc<Chain>,
    mempool: Arc<Mempool>,
    clock: Arc<dyn Clock>,
    modules: Vec<Arc<dyn Module>>,
    limits: Limits,
    filters: Filters,
    subscriptions: Arc<AtomicUsize>,
    reads: Semaphore,
    runs: Semaphore,
}

impl Rpc {
    /// Answers for `chain` and what waits in `mempool`, and lets `modules` answer their methods. What
    /// the next block would do is tried at the time of `clock`.
    pub fn new(
        chain: Arc<Chain>,
        mempool: Arc<Mempool>,
        clock: Arc<dyn Clock>,
        limits: Limits,
        modules: Vec<Arc<dyn Module>>,
    ) -> Self {
        let filters = Filters::new(limits.filters_max, limits.filter_wait_max);
        let places = |count: usize| Semaphore::new(count.clamp(1, Semaphore::MAX_PERMITS));
        let (reads, runs) = (places(limits.reads_max), places(limits.runs_max));
        let subscriptions = Arc::default();
        let inner =
            Inner { chain, mempool, clock, modules, limits, filters, subscriptions, reads, runs };
        Self(Arc::new(inner))
    }

    /// The chain that is answered for.
    pub fn chain(&self) -> &Arc<Chain> {
        &self.0.chain
    }

    /// What waits for a block.
    pub fn mempool(&self) -> &Arc<Mempool> {
        &self.0.mempool
    }

    /// What is borne.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// The number that signatures name.
    pub fn chain_id(&self) -> u64 {
        self.chain().spec().chain_id()
    }

    fn head(&self) -> (u64, B256) {
        let head = self.chain().head();
        (head.header.number, head.header.hash())
    }

    fn filters(&self) -> &Filters {
        &self.0.filters
    }

    /// The subscriptions of a new WebSocket.
    fn subscriptions(&self) -> Subscriptions {
        let limits = self.limits();
        let all = Arc::clone(&self.0.subscriptions);
        Subscriptions::new(limits.socket_subscriptions_max, all, limits.subscriptions_max)
    }

    /// Answers what came in one body or message; nothing, where nobody wants an answer.
    ///
    /// `line` is the socket it came over, for those that subscribe.
    async fn answer(&self, body: &[u8], line: Option<&mut Line<'_>>) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match Asked::read(body, self.limits().batch_max) {
            Err(error) => write_answer(&mut out, None, &Err(error)),
            Ok(Asked::One(text)) => {
                let answered = self.answer_one(text, line, &mut out).await;
                return answered.then_some(out);
            }
            Ok(Asked::Batch(calls)) => return self.answer_batch(&calls, line).await,
        }
        Some(out)
    }

    /// Appends the answer to one call to `out`; whether there is one.
    async fn answer_one(&self, text: &str, line: Option<&mut Line<'_>>, out: &mut Vec<u8>) -> bool {
        let call = match Call::read(text) {
            Ok(call) => call,
            Err(error) => {
                write_answer(out, None, &Err(error));
                return true;
            }
        };
        let bytes_max = self.limits().answer_bytes_max;
        let answer = match self.call(&call, line).await {
            Ok(text) if text.get().len() > bytes_max => Err(Error::Long { bytes_max }),
            answer => answer,
        };
        if call.id.is_none() {
            return false;
        }
        write_answer(out, call.id, &answer);
        true
    }

    async fn answer_batch(
        &self,
        calls: &[&RawValue],
        mut line: Option<&mut Line<'_>>,
    ) -> Option<Vec<u8>> {
        let bytes_max = self.limits().answer_bytes_max;
        let mut out = vec![b'['];
        let mut rest = calls;
        while let Some((first, others)) = rest.split_first() {
            let sent = self.answer_sent(rest, &mut out).await;
            if sent > 0 {
                rest = &rest[sent..];
                continue;
            }
            rest = others;
            if out.len() > bytes_max {
                let id = Call::read(first.get()).ok().and_then(|call| call.id);
                separate(&mut out);
                write_answer(&mut out, id, &Err(Error::Long { bytes_max }));
                continue;
            }
            let before = out.len();
            separate(&mut out);
            if !self.answer_one(first.get(), line.as_deref_mut(), &mut out).await {
                out.truncate(before);
            }
        }
        out.push(b']');
        (out.len() > 2).then_some(out)
    }

    /// Answers the calls at the front of a batch that all send a transaction, when they are more
    /// than one: their signers are then recovered on all cores. Gives how many they are.
    async fn answer_sent(&self, calls: &[&RawValue], out: &mut Vec<u8>) -> usize {
        let mut sent: Vec<(Call<'_>, Bytes)> = Vec::new();
        for text in calls {
            let Ok(call) = Call::read(text.get()) else { break };
            if call.method != methods::SEND || self.module(&call.method).is_some() {
                break;
            }
            let Ok(raw) = Params::read(call.params).and_then(|params| params.bytes(0)) else {
                break;
            };
            sent.push((call, raw));
        }
        if sent.len() < 2 {
            return 0;
        }
        let (calls, raw): (Vec<_>, Vec<_>) = sent.into_iter().unzip();
        let mempool = Arc::clone(self.mempool());
        let added = tokio::task::spawn_blocking(move || mempool.add_many(&raw)).await;
        let Ok(added) = added else { return 0 };
        for (call, added) in calls.iter().zip(added) {
            if call.id.is_some() {
                separate(out);
                let told = added.map_err(block::refused).and_then(|hash| answer(&hash));
                write_answer(out, call.id, &told);
            }
        }
        calls.len()
    }

    fn module(&self, method: &str) -> Option<&Arc<dyn Module>> {
        self.0.modules.iter().find(|module| module.methods().contains(&method))
    }

    async fn call(&self, call: &Call<'_>, line: Option<&mut Line<'_>>) -> Answer {
        if let Some(module) = self.module(&call.method) {
            let (module, method) = (Arc::clone(module), call.method.clone().into_owned());
            let run = move |_: &Self, params: &Params<'_>| module.call(&method, params);
            return self.blocking(&self.0.reads, call.params, run).await;
        }
        let Some(method) = methods::find(&call.method) else {
            return Err(Error::Method(shortened(&call.method)));
        };
        match method {
            Method::Plain(weight, run) => self.weigh(*weight, call, *run).await,
            Method::SendSync => {
                self.eth_send_raw_transaction_sync(Params::read(call.params)?).await
            }
            Method::Subscribe => self.eth_subscribe(&Params::read(call.params)?, line),
            Method::Unsubscribe => self.eth_unsubscribe(&Params::read(call.params)?, line),
        }
    }

    /// Runs a method where its weight says.
    async fn weigh(&self, weight: Weight, call: &Call<'_>, run: methods::Run) -> Answer {
        match weight {
            Weight::Light => run(self, &Params::read(call.params)?),
            Weight::State(index) => {
                let params = Params::read(call.params)?;
                // The newest state is always in memory.
                if params.block(index)?.is_latest() {
                    return run(self, &params);
                }
                self.blocking(&self.0.reads, call.params, run).await
            }
            Weight::Read => self.blocking(&self.0.reads, call.params, run).await,
            Weight::Code => self.blocking(&self.0.runs, call.params, run).await,
        }
    }

    /// Runs a method on a thread that may block, once it is its turn.
    async fn blocking(
        &self,
        turns: &Semaphore,
        params: Option<&RawValue>,
        run: impl FnOnce(&Self, &Params<'_>) -> Answer + Send + 'static,
    ) -> Answer {
        let _turn = self.turn(turns).await?;
        let (rpc, params) = (self.clone(), params.map(ToOwned::to_owned));
        let ran = tokio::task::spawn_blocking(move || run(&rpc, &Params::read(params.as_deref())?));
        ran.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a method ended without an answer");
            Err(Error::Internal("the method failed".into()))
        })
    }

    async fn turn<'a>(&self, turns: &'a Semaphore) -> Result<SemaphorePermit<'a>, Error> {
        match timeout(self.limits().turn_wait_max, turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Error::Limit("the server is busy: try again".into())),
        }
    }
}

impl std::fmt::Debug for Rpc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rpc").field("chain_id", &self.chain_id()).finish_non_exhaustive()
    }
}

/// Separates one answer of a batch from the one before.
fn separate(out: &mut Vec<u8>) {
    if out.len() > 1 {
        out.push(b',');
    }
}

/// Longest name that is repeated in an error, in bytes.
const NAME_BYTES_MAX: usize = 64;

fn shortened(name: &str) -> String {
    name.chars().take(NAME_BYTES_MAX).collect()
}
