//! Sells answers.
//!
//! A provider signs offers, admits orders, has its engine answer them, and signs a receipt for
//! each answer. The receipt is on disk before the last line of the answer leaves, so a retried
//! order gets the same answer, and no two receipts of one provider can contradict each other.
//!
//! The way of an order, in reading order: `http` hears it, `intake` reads it from its `body`, `admit`
//! decides, `slots` makes sure that each order runs once and not too many run at once, `serve` turns
//! the engine's deltas into frames (`grammar` compiles what these must keep to), `seal` makes the receipt, `store` keeps that.
//!
//! The way of the money: `account` holds the rules, `lanes` says which channel pays for which order, and
//! `grants` what a buyer that acts for another may still spend (at which `pace`); `tab` is one order's payment
//! while it runs. Behind that, `watch` looks at the chain through a `bank`, and `collect` gets the money: no
//! answer waits for the chain, except the first on a channel or under a grant.
//!
//! And `defend` answers who disputes a receipt, with the same answer computed again; `audits` shows posted
//! receipts to who was drawn to check them, and `canaries` finds out who of those does not look.

mod account;
mod admit;
mod audits;
mod bank;
mod body;
mod canaries;
mod collect;
mod defend;
mod figures;
mod grammar;
mod grants;
mod http;
mod intake;
mod lanes;
mod leaves;
mod pace;
mod seal;
mod serve;
mod slots;
mod store;
mod tab;
mod watch;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use assay_court::Tracer;
use assay_engine::{Backend, Holder};
use assay_net::Limits;
use assay_protocol::wire::Accepts;
use assay_protocol::{Address, Amount, ChainId, Key, ModelId};
use assay_text::Tokenizer;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use bank::{Asked, Bank, Reading};
pub use canaries::Planting;
pub use collect::Collecting;
pub use defend::Defence;
use http::Seller;
pub use store::{Open, StoreError};

/// What a provider sells, and how much of it at once.
#[derive(Clone, Debug)]
pub struct Config {
    /// Signs offers and receipts.
    pub key: Key,
    /// Chain that signatures are for; orders for others are refused.
    pub chain: ChainId,
    /// The models on sale, each once.
    pub models: Vec<Served>,
    /// Base units per million prompt tokens.
    pub price_in: Amount,
    /// Base units per million output tokens.
    pub price_out: Amount,
    /// Orders running at once. The next one is refused as busy, not queued.
    pub orders_max: NonZeroU32,
    /// How long an offer holds. It is renewed when half of this is over.
    pub offer_ttl: Duration,
    /// File that keeps the sealed answers.
    pub store: PathBuf,
    /// Longest wait for running orders at shutdown; after it they are sealed as cancelled.
    pub drain_max: Duration,
    /// How answers are paid; `None`: they are free.
    pub payment: Option<Payment>,
    /// How disputed receipts are defended; `None`: whoever disputes one wins by the clock.
    pub defence: Option<Defence>,
    /// How canaries are planted among its receipts; `None`: none are. They need a payment, and a defence, or whoever
    /// disputes one wins.
    pub canaries: Option<Planting>,
}

/// How answers are paid.
#[derive(Clone, Debug)]
pub struct Payment {
    /// Whose till is paid, and who posts receipts: the provider's owner.
    pub owner: Address,
    /// Which channels are taken, and how far buyers are trusted. `credit_max` is also the most that a
    /// crash can cost: what is worth more is on disk before it is delivered.
    pub accepts: Accepts,
    /// The chain that keeps the channels. Its account is the receiver authorizer of `accepts`, and the
    /// owner has appointed it to post.
    pub bank: Arc<dyn Bank>,
    /// Blocks after which a deposit counts; zero where blocks are final.
    pub confirmations: u64,
    /// Longest that a paused answer waits for a voucher; after it, it is sealed as cancelled.
    pub voucher_wait_max: Duration,
    /// Time between two looks at the chain. A payer's withdrawal is noticed that late, so it must be
    /// short beside the shortest withdrawal delay.
    pub watch_every: Duration,
    /// When receipts are posted and vouchers claimed.
    pub collecting: Collecting,
}

/// A model on sale.
#[derive(Clone)]
pub struct Served {
    /// Which model.
    pub id: ModelId,
    /// Shows leaves of its weights to whoever asks; without it nobody can tell that the model is here.
    pub holder: Option<Arc<dyn Holder>>,
    /// Most tokens of prompt and output together.
    pub context: u32,
    /// Token ids that the model knows are below this. Orders that name others are refused, since
    /// an engine may run many orders in one batch and none may spoil it.
    pub vocabulary: u32,
    /// Tokens that end an answer.
    pub eos: Vec<u32>,
    /// Turns output into the receipt's text; without one the text is empty.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// Whether its answers are vectors of prompts: one output token each, which costs nothing.
    pub makes_vectors: bool,
    /// Answers the orders.
    pub backend: Arc<dyn Backend>,
    /// Computes answers again that are disputed; without one disputes about them are lost.
    pub tracer: Option<Arc<dyn Tracer>>,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served")
            .field("id", &self.id)
            .field("context", &self.context)
            .field("vocabulary", &self.vocabulary)
            .field("eos", &self.eos)
            .finish_non_exhaustive()
    }
}

/// Why a provider could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The file of sealed answers cannot be used.
    #[error("cannot open the store {path}: {source}", path = path.display())]
    Store {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        source: StoreError,
    },
}

/// Serves until `shutdown`, and then drains: new orders are refused as closing, running ones
/// finish within `drain_max` or are sealed as cancelled, and all receipts are on disk on return.
///
/// # Errors
/// If the store cannot be opened.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let open = Open::file(config.store.clone());
    run_with_store(config, open, listener, shutdown).await
}

/// [`run`], with the sealed answers kept where `open` says instead of in `config.store`.
///
/// # Errors
/// As [`run`].
pub async fn run_with_store(
    config: Config,
    open: Open,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let store = store::Store::open(open)
        .await
        .map_err(|source| RunError::Store { path: config.store.clone(), source })?;
    let (drain_max, path) = (config.drain_max, config.store.clone());
    let seller = Arc::new(Seller::new(config, store));
    seal::settle_left(
        &seller.store,
        None,
        |begun| seller.models.get(&begun.model).cloned(),
        &seller.signer,
    )
    .await
    .map_err(|source| RunError::Store { path, source })?;
    let router = http::router(Arc::clone(&seller));
    let stop = CancellationToken::new();
    let served = assay_net::serve(listener, router, Limits::default(), stop.clone());
    let drained = async {
        shutdown.cancelled().await;
        drain(&seller, drain_max).await;
        stop.cancel();
    };
    let leaving = Notify::new();
    let watched = async {
        if let Some(lanes) = &seller.lanes {
            watch::watch(lanes.clone(), seller.store.clone(), &leaving, stop.clone()).await;
        }
    };
    let asked = async {
        if let Some(grants) = &seller.grants {
            grants::refresh(grants, stop.clone()).await;
        }
    };
    let collected = async {
        if let Some(lanes) = &seller.lanes {
            collect::collect(lanes.payment(), &seller.store, &leaving, stop.clone()).await;
        }
    };
    let defended = async {
        if let Some(court) = &seller.court {
            defend::defend(court, &seller.store, stop.clone()).await;
        }
    };
    let shown = async {
        if let Some(audits) = &seller.audits {
            audits::publish(&seller, audits, stop.clone()).await;
        }
    };
    let planted = async {
        if let Some(canaries) = &seller.canaries {
            canaries::tend(&seller, canaries, stop.clone()).await;
        }
    };
    tokio::join!(served, drained, watched, asked, collected, defended, shown, planted);
    Ok(())
}

/// Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Takes no more orders, and returns once those that run are sealed and stored.
async fn drain(seller: &Seller, drain_max: Duration) {
    seller.slots.close();
    let tasks = &seller.slots.tasks;
    if tokio::time::timeout(drain_max, tasks.wait()).await.is_err() {
        tracing::warn!(orders = seller.slots.running(), "sealing what is unfinished as cancelled");
        seller.slots.cancel_all();
        tasks.wait().await;
    }
}
