//! Buys answers for clients that speak OpenAI or JSON-RPC.
//!
//! A gateway turns a chat request into a signed order, has the cheapest provider answer it, and
//! checks the receipt before it tells the client that the answer is complete. It needs no tensor:
//! it renders, counts and decodes with the model's own template and tokenizer, so no provider can
//! choose another text than the one its tokens spell.
//!
//! The way of a request, in reading order: `http` takes it, unless it comes from a web page that
//! `origin` does not trust, `body` reads it, and `openai` makes our words of it, `begin` has `draft`
//! turn it into an order for a model of the `catalogue` (`prompt` makes tokens of its messages),
//! `route` chooses among the offers in the `directory` (`latency` weighs slow ones, `standing` knows who is in
//! jail), `buy` hands the
//! order in and `delivery` passes text on (`text` decides how much of it, `lines` reads the provider's
//! words), `close` checks the receipt, `store` keeps the answer (`disk` under it shares commits), and
//! `tell` tells it; vectors of texts, and what texts are, are bought and told by `embed`;
//! what shows that a provider lied is read in `lies`. `jsonrpc` and `x402` are other doors to the same.
//!
//! A model that the operator's own servers answer for takes another way: `relay` passes its requests on
//! as they are. A client that holds its own key has an order made for it, and signs it: `signed` decides
//! whether that is bought, and under whose grants.
//!
//! What clients have kept lies on the `shelf`: `stored` are their replies, `files`
//! what they upload, `batches` what is answered from files while nobody waits; a `query` asks for lists.
//! What is sent again under one name is answered once: `repeat`.
//!
//! Where clients need a key, `keys` knows what each may do, and `budget` counts what was spent with it.
//! Where providers are paid, `pay` holds the money: an order takes a lane, a channel to its provider,
//! for itself, and a voucher goes with it. What its answer costs is kept together with the answer.

mod apart;
mod batches;
mod begin;
mod body;
mod budget;
mod buy;
mod catalogue;
mod close;
mod delivery;
mod directory;
mod disk;
mod draft;
mod embed;
mod figures;
mod files;
mod http;
mod jsonrpc;
mod keys;
mod latency;
mod lies;
mod lines;
mod media;
mod note;
mod openai;
mod origin;
mod pay;
mod prompt;
mod query;
mod rated;
mod readiness;
mod relay;
mod repeat;
mod route;
mod shelf;
mod signed;
mod standing;
mod store;
mod stored;
mod tell;
mod text;
mod window;
pub mod x402;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use assay_net::Limits;
use assay_protocol::{Address, Amount, Assurance, Audit, ChainId, Key, ModelId};
use assay_text::{Chat, Tokenizer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use http::Gateway;
pub use keys::{KeyBook, KeyError, KeyRules, KeyStatus, KeyTerms};
pub use origin::{Origin, OriginError};
pub use pay::{Bank, LaneStatus};
pub use relay::{RelayError, Relayed};
pub use standing::Standing;
pub use store::StoreError;

/// How often it is looked who would be bought from next, to have a channel open for it.
const FORESEE_EVERY: Duration = Duration::from_millis(200);

/// What a gateway buys, for whom, and how much of it at once.
#[derive(Clone, Debug)]
pub struct Config {
    /// Signs orders.
    pub key: Key,
    /// Chain that signatures are for.
    pub chain: ChainId,
    /// The models clients may name.
    pub models: Vec<Listed>,
    /// Other names for models, by the name that clients may put into `model`. A model's own name comes
    /// first; `*` stands for every other name, and for none.
    pub aliases: BTreeMap<String, String>,
    /// Models that servers of the operator's own answer for, without receipts. They come before models of
    /// the same name.
    pub relayed: Vec<Relayed>,
    /// Base URLs of the providers to buy from, such as `http://127.0.0.1:8701`.
    pub providers: Vec<String>,
    /// File that keeps the answers with their receipts. Beside it lies `shelf`, with what clients store.
    pub store: PathBuf,
    /// Who may check the answers besides us.
    pub audit: Audit,
    /// Requests worked on at once. The next one is refused as overloaded, not queued.
    pub requests_max: usize,
    /// Most that one answer may cost, in base units. An offer at which it may cost more is not
    /// considered, so no provider can make an order promise more than this.
    pub price_max: Amount,
    /// Whether clients need an API key, and who makes them.
    pub keys: KeyRules,
    /// How whoever has no key may pay for single answers; none: not at all. Where they may, all others
    /// need a key.
    pub x402: Option<x402::Config>,
    /// How providers are paid; none: only providers that sell for free are bought from.
    pub payments: Option<Payments>,
    /// How long providers may take.
    pub patience: Patience,
    /// Time per token, the wait for the first included, beyond which a provider counts as slow: it sells
    /// only if it asks for less than fast ones do.
    pub token_time_target: Duration,
    /// Web pages that may ask, named by their origins. Requests of other pages are refused;
    /// programs name no origin, and are none of its concern.
    pub origins: Vec<Origin>,
    /// How long after it is signed an order may be started.
    pub order_ttl: Duration,
    /// How often providers are asked for their offers.
    pub poll_every: Duration,
    /// Longest wait for running requests at shutdown; after it they are cancelled.
    pub drain_max: Duration,
}

/// How providers are paid: through channels of one deployment, a few to each provider.
#[derive(Clone, Debug)]
pub struct Payments {
    /// The way to the chain, for the account that signs orders.
    pub bank: Arc<dyn Bank>,
    /// The contract that keeps channels.
    pub channels: Address,
    /// The deployment's Receipts contract, which orders name as their market.
    pub market: Address,
    /// The deployment's Grants contract, which orders that clients sign themselves are bought under;
    /// zero: there is none, and no such orders.
    pub grants: Address,
    /// The ERC-20 that channels are in, and that an offer's zero asset stands for.
    pub token: Address,
    /// What is put into a channel when it is opened or has run low, in base units; more where one
    /// answer may cost more.
    pub deposit: Amount,
    /// Channels to one provider, and so orders that it runs for us at once. At least one.
    pub lanes_max: usize,
    /// Most that is signed ahead of delivery, in base units. An answer that costs no more is paid at
    /// once; for a longer one this much can be lost to a provider that delivers no more, not all.
    pub prepay_max: Amount,
    /// Longest wait of an order for a channel, be it in use or not open yet.
    pub lane_wait_max: Duration,
    /// Longest delay, in seconds, that a provider may put between our wish to withdraw and the
    /// withdrawal.
    pub withdraw_delay_max: u64,
    /// How often it is looked who is in jail, or has too little at stake: nothing is bought there. So long may be
    /// bought from who was convicted.
    pub standing_every: Duration,
}

/// How long a provider may take before the gateway turns to another, or gives the answer up.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Longest wait for it to accept or refuse an order.
    pub accept_wait_max: Duration,
    /// Longest wait for the first token, and for each thing after it.
    pub frame_wait_max: Duration,
    /// Longest wait for a whole answer: this, …
    pub answer_wait_base: Duration,
    /// … and this for each token that the order asks for at most.
    pub token_wait_max: Duration,
    /// Longest wait for the receipt of an order that was cancelled.
    pub seal_wait_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            accept_wait_max: Duration::from_secs(30),
            frame_wait_max: Duration::from_secs(120),
            answer_wait_base: Duration::from_secs(120),
            token_wait_max: Duration::from_secs(2),
            seal_wait_max: Duration::from_secs(10),
        }
    }
}

impl Patience {
    pub(crate) fn answer_wait_max(&self, tokens_max: u32) -> Duration {
        self.answer_wait_base + self.token_wait_max.saturating_mul(tokens_max)
    }
}

/// A model clients may name.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Which model.
    pub id: ModelId,
    /// What clients put into `model`; its id works too.
    pub name: String,
    /// Turns prompts into tokens, and tokens into text.
    pub tokenizer: Arc<Tokenizer>,
    /// Turns messages into a prompt; none of a model that does not chat.
    pub chat: Option<Arc<Chat>>,
    /// How many numbers its vectors have, if it makes vectors of texts and does not go on with them.
    pub vector_width: Option<u32>,
    /// What the numbers of its vectors are the probabilities of, if it tells texts apart.
    pub labels: Option<Arc<[String]>>,
    /// Tokens that end an answer.
    pub eos: Vec<u32>,
    /// Most tokens of prompt and answer together.
    pub context: u32,
    /// What can be checked about its answers: what is asked of offers.
    pub assurance: Assurance,
    /// When it was listed, Unix seconds.
    pub created: u64,
}

/// Why a gateway could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The file of answers cannot be used.
    #[error("cannot open the store {path}: {source}", path = path.display())]
    Store {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        source: StoreError,
    },
    /// The file of x402 payments cannot be used.
    #[error("cannot open the journal {path}: {source}", path = path.display())]
    Journal {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        source: StoreError,
    },
    /// A relayed model cannot be served.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// No client for HTTP could be made.
    #[error("cannot set up the http client: {0}")]
    Client(#[from] reqwest::Error),
}

/// Serves until `shutdown`, and then drains: new requests are refused as closing, running ones
/// finish within `drain_max` or are cancelled, and their receipts are kept on return.
///
/// `GET /readyz` answers 200 once every model has an offer, and else what lacks one and since when.
///
/// # Errors
/// If the store cannot be opened, or there can be no client for HTTP.
pub async fn run(
    mut config: Config,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let path = config.store.clone();
    let failed = |source| RunError::Store { path: path.clone(), source };
    let store = store::Store::open(path.clone()).await.map_err(failed)?;
    let (poll_every, drain_max) = (config.poll_every, config.drain_max);
    let requests_max = config.requests_max.min(Semaphore::MAX_PERMITS / 2);
    let paid = config.x402.take();
    config.keys.demanded |= paid.is_some();
    let (gateway, jobs) = Gateway::open(config, store).await?;
    let gateway = Arc::new(gateway);
    let door = match &paid {
        Some(config) => Some(opened(config, &gateway).await?),
        None => None,
    };
    batches::resume(&gateway).await;
    let router = http::router(Arc::clone(&gateway), door.as_ref());
    let stop = CancellationToken::new();
    // Each request has a connection, and as many more may wait for their next one.
    let limits = Limits { connections_max: 2 * requests_max, ..Limits::default() };
    let served = assay_net::serve(listener, router, limits, stop.clone());
    let drained = async {
        shutdown.cancelled().await;
        drain(&gateway, drain_max).await;
        if let Some(door) = &door {
            // Answers are over by now; what is left is to keep what they were paid with.
            let _ = tokio::time::timeout(drain_max, door.drained()).await;
        }
        stop.cancel();
    };
    tokio::select! {
        _ = async { tokio::join!(served, drained) } => {}
        () = gateway.directory.watch(poll_every) => {}
        () = readiness::watch(&gateway) => {}
        () = look_up(&gateway) => {}
        () = fund(&gateway, jobs) => {}
        () = collect(door.as_ref(), paid.as_ref()) => {}
    }
    Ok(())
}

/// Opens the door for those who pay by x402.
async fn opened(
    config: &x402::Config,
    gateway: &Arc<Gateway>,
) -> Result<Arc<x402::Door>, RunError> {
    let path = config.journal.clone();
    let door = x402::open(config, Arc::new(Arc::clone(gateway))).await;
    door.map_err(|source| RunError::Journal { path, source })
}

/// Claims what those who paid by x402 owe, for ever.
async fn collect(door: Option<&Arc<x402::Door>>, config: Option<&x402::Config>) {
    match (door, config) {
        (Some(door), Some(config)) => door.collect(config.collecting).await,
        _ => std::future::pending().await,
    }
}

/// Asks the chain how providers stand, for ever.
async fn look_up(gateway: &Gateway) {
    match &gateway.purse {
        Some(purse) => {
            let terms = &purse.terms;
            standing::watch(&gateway.directory, &*terms.bank, terms.standing_every).await;
        }
        None => std::future::pending().await,
    }
}

/// Keeps money where orders will need it, for ever.
async fn fund(gateway: &Gateway, jobs: Option<pay::Jobs>) {
    let (Some(purse), Some(jobs)) = (&gateway.purse, jobs) else {
        return std::future::pending().await;
    };
    let foresee = async {
        loop {
            for model in &gateway.catalogue.models {
                let wanted = route::Wanted {
                    model: model.listed.id,
                    assurance: model.listed.assurance,
                    prompt_tokens: 1,
                    max_tokens: 1,
                    max_price: gateway.price_max,
                    registry: Address::ZERO,
                };
                let now = http::now_s();
                let candidates = gateway.directory.candidates(wanted.model, now);
                let next = route::choose(&wanted, &candidates, &[], now);
                if let Some(seller) = next.ok().and_then(pay::Seller::of) {
                    purse.foresee(&seller);
                }
            }
            tokio::time::sleep(FORESEE_EVERY).await;
        }
    };
    tokio::join!(purse.work(jobs), foresee);
}

/// Takes no more requests, and returns once those that run are over.
async fn drain(gateway: &Gateway, drain_max: Duration) {
    gateway.closing.cancel();
    gateway.purchases.close();
    if tokio::time::timeout(drain_max, gateway.purchases.wait()).await.is_ok() {
        return;
    }
    tracing::warn!(requests = gateway.purchases.len(), "cancelling what is unfinished");
    gateway.stopping.cancel();
    // Purchases give up by themselves just before.
    let wait_max = gateway.patience.seal_wait_max + Duration::from_secs(1);
    if tokio::time::timeout(wait_max, gateway.purchases.wait()).await.is_err() {
        tracing::error!(requests = gateway.purchases.len(), "providers sent no receipts in time");
    }
}
