//! A whole network in one process: providers that share one engine, and the gateway that buys
//! from them. They meet over HTTP on loopback, exactly as they would across machines.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use assay_gateway::{Origin, Relayed};
use assay_kernels::Cpu;
use assay_protocol::{
    Address, Amount, Assurance, Audit, Key, LOCAL_CHAIN, ModelId, keccak256, price,
};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api_key;
use crate::canaries::{self, Canaries};
use crate::cheat::Cheat;
use crate::data::Data;
use crate::embedded::Embedded;
use crate::failure::{Exit, Failure, Outcome};
use crate::gateway::Gateway;
use crate::keys;
use crate::library::Library;
use crate::payment;
use crate::sold::{Graph, Sold};
use crate::x402;

/// What a local provider asks per million tokens: a tenth of an ASY for the prompt, four tenths for
/// the answer.
const PRICE_IN: Amount = Amount(100_000_000_000_000_000);
const PRICE_OUT: Amount = Amount(400_000_000_000_000_000);
/// Most that the gateway lets one answer cost: a full context at ten times the local price.
const PRICE_MAX_TIMES: u128 = 10;
/// Orders that one provider runs or queues at once.
const ORDERS_MAX: NonZeroU32 = NonZeroU32::new(2048).unwrap();
/// Requests that the gateway works on at once. The next one is told to come back.
pub(crate) const REQUESTS_MAX: usize = 4096;
/// Connections that the system holds until they are taken.
const BACKLOG: u32 = 4096;
/// How long an offer holds.
const OFFER_TTL: Duration = Duration::from_secs(60);
/// How long an order may wait to be started.
pub(crate) const ORDER_TTL: Duration = Duration::from_secs(120);
/// Time per token beyond which a provider counts as slow: about as fast as people read.
pub(crate) const TOKEN_TIME_TARGET: Duration = Duration::from_millis(200);
/// How often the gateway looks for offers.
pub(crate) const POLL_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for running answers at the end.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(20);
/// Longest wait until the first offers are seen.
pub(crate) const READY_MAX: Duration = Duration::from_secs(20);
/// Between two looks whether the gateway is ready.
pub(crate) const READY_EVERY: Duration = Duration::from_millis(20);

/// A running network.
pub(crate) struct Network {
    /// Where the gateway answers.
    pub(crate) gateway: SocketAddr,
    /// The providers.
    pub(crate) providers: Vec<Provider>,
    buying: JoinSet<Outcome>,
    selling: JoinSet<Outcome>,
    stop_buying: CancellationToken,
    stop_selling: CancellationToken,
}

/// Whom the gateway serves.
#[derive(Clone, Debug)]
pub(crate) struct Offered {
    /// Web pages that may ask.
    pub(crate) origins: Vec<Origin>,
    /// Whether clients need an API key.
    pub(crate) require_keys: bool,
    /// Whether clients without one may pay by x402.
    pub(crate) x402: bool,
    /// Models that servers of one's own answer for.
    pub(crate) relayed: Vec<Relayed>,
    /// Other names for the models, by the name that clients use.
    pub(crate) aliases: BTreeMap<String, String>,
}

/// Who sells on a local network.
#[derive(Clone, Debug)]
pub(crate) struct Sellers {
    /// Providers that answer as ordered.
    pub(crate) honest: NonZeroUsize,
    /// How one more cheats, if there is one.
    pub(crate) cheater: Option<Cheat>,
    /// What the honest ones plant among their receipts, if anything.
    pub(crate) canaries: Option<Canaries>,
    /// The ONNX models that the honest ones sell as well.
    pub(crate) graphs: Vec<Graph>,
}

impl Sellers {
    /// All of them.
    fn count(&self) -> usize {
        self.honest.get() + usize::from(self.cheater.is_some())
    }
}

/// What a provider sells.
#[derive(Clone, Copy)]
struct Selling<'a> {
    models: &'a [Sold],
    graphs: &'a [Graph],
    /// It asks one part in so many of the usual price: who is cheaper is bought from.
    parts: u128,
    /// Whether it answers who disputes it, or keeps silent.
    defends: bool,
    canaries: Option<&'a Canaries>,
}

/// A provider of a running network.
#[derive(Clone, Debug)]
pub(crate) struct Provider {
    /// Who it signs as.
    pub(crate) address: Address,
    /// Whose stake answers for that.
    pub(crate) owner: Address,
    /// Where it answers.
    pub(crate) url: String,
}

/// Who takes part in the network of a data directory: the gateway, who disputes, the providers, the
/// account that settles x402's payments, and who plants and orders canaries.
pub(crate) fn participants(data: &Data, sellers: &Sellers) -> Outcome<Vec<Address>> {
    let folders = (0..sellers.count()).map(|n| data.provider(n));
    let keys = [data.gateway(), data.validator()].into_iter().chain(folders);
    let accounts = keys.map(|folder| keys::load_or_create(&folder).map(|key| key.address()));
    let accounts = accounts.chain(std::iter::once_with(|| x402::account(data)));
    let mut accounts: Vec<Address> = accounts.collect::<Outcome<_>>()?;
    if sellers.canaries.is_some() {
        for n in 0..sellers.honest.get() {
            accounts.extend(canaries::accounts(data, n)?);
        }
    }
    Ok(accounts)
}

/// Takes the address that `flag` gives, so that nothing is computed if it is in use.
pub(crate) fn claim(address: SocketAddr, flag: &str) -> Outcome<TcpListener> {
    listen(address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            Failure::new(Exit::Conflict, format_args!("port {} is in use", address.port()))
                .why(format_args!("another program listens on {address}"))
                .fix(format_args!("stop it, or pass another {flag}; port 0 takes a free one"))
        }
        _ => Failure::file(format_args!("{address} cannot be listened on"), &error)
            .fix("pass another --host or --port"),
    })
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A port whose last connections are still closing may be taken again.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Network {
    /// Starts providers that sell these models, and a gateway on `listener`; returns once it is ready to
    /// answer. Who cheats or plants canaries does so with the first model.
    pub(crate) async fn start(
        data: &Data,
        chain: &Embedded,
        models: &[Sold],
        cpu: Arc<Cpu>,
        sellers: Sellers,
        offered: Offered,
        listener: TcpListener,
    ) -> Outcome<Self> {
        let gateway =
            listener.local_addr().map_err(|error| broken("the gateway's address", &error))?;
        let listed = models.iter().map(|sold| listed(sold, created(data, sold.model.id)));
        let graphs = sellers.graphs.iter().map(|graph| Ok(listed_graph(data, graph)));
        let listed = listed.chain(graphs).collect::<Outcome<Vec<_>>>()?;
        let mut network = Self {
            gateway,
            providers: Vec::new(),
            buying: JoinSet::new(),
            selling: JoinSet::new(),
            stop_buying: CancellationToken::new(),
            stop_selling: CancellationToken::new(),
        };
        let canaries = sellers.canaries.as_ref();
        let graphs = sellers.graphs.as_slice();
        let honest = Selling { models, graphs, parts: 1, defends: true, canaries };
        for n in 0..sellers.honest.get() {
            network.add_provider(data, chain, n, honest).await?;
        }
        if let (Some(how), Some(honest)) = (sellers.cheater, models.first()) {
            let lies = [honest.as_told_by(how, cpu)?];
            let defends = how.defends();
            let cheap = Selling { models: &lies, graphs: &[], parts: 2, defends, canaries: None };
            network.add_provider(data, chain, sellers.honest.get(), cheap).await?;
        }
        network.add_gateway(data, chain, listed, offered, listener).await?;
        network.await_ready().await?;
        Ok(network)
    }

    async fn add_provider(
        &mut self,
        data: &Data,
        chain: &Embedded,
        n: usize,
        Selling { models, graphs, parts, defends, canaries }: Selling<'_>,
    ) -> Outcome {
        let folder = data.provider(n);
        let owner = keys::load_or_create(&folder)?;
        let key = keys::load_or_create(&data.operator(n))?;
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0)))
            .map_err(|error| broken("a provider's port", &error))?;
        let address =
            listener.local_addr().map_err(|error| broken("a provider's address", &error))?;
        let url = format!("http://{address}");
        payment::answers_for(chain, &owner, &key, &url).await?;
        self.providers.push(Provider { address: key.address(), owner: owner.address(), url });
        let payment = payment::sells(chain, &owner).await?;
        let defence = payment::defends(chain, &owner, &key).await?;
        let canaries = match canaries.zip(models.first()) {
            Some((canaries, sold)) => {
                Some(canaries::plants(data, chain, n, canaries, &sold.model).await?)
            }
            None => None,
        };
        let config = assay_provider::Config {
            key,
            chain: LOCAL_CHAIN,
            models: models
                .iter()
                .map(|model| model.served(defends))
                .chain(graphs.iter().map(Graph::served))
                .collect(),
            price_in: Amount(PRICE_IN.0 / parts),
            price_out: Amount(PRICE_OUT.0 / parts),
            orders_max: ORDERS_MAX,
            offer_ttl: OFFER_TTL,
            store: folder.join("sealed"),
            drain_max: DRAIN_MAX,
            payment: Some(payment),
            defence: Some(defence),
            canaries,
        };
        let stop = self.stop_selling.clone();
        self.selling.spawn(async move {
            let run = assay_provider::run(config, listener, stop).await;
            run.map_err(|error| broken(&format!("provider {n}"), &error))
        });
        Ok(())
    }

    async fn add_gateway(
        &mut self,
        data: &Data,
        chain: &Embedded,
        models: Vec<assay_gateway::Listed>,
        offered: Offered,
        listener: TcpListener,
    ) -> Outcome {
        let folder = data.gateway();
        let key: Key = keys::load_or_create(&folder)?;
        let dear = |price: Amount| Amount(price.0 * PRICE_MAX_TIMES);
        let context = models.iter().map(|model| model.context).max().unwrap_or_default();
        let price_max = price(dear(PRICE_IN), context, dear(PRICE_OUT), context);
        let payments = payment::buys(chain, &key).await?;
        let x402 = match offered.x402 {
            true => {
                let book = chain.book.clone();
                Some(x402::door(data, &chain.url(), book, key.address(), x402::Worth::LOCAL).await?)
            }
            false => None,
        };
        let config = assay_gateway::Config {
            key,
            chain: LOCAL_CHAIN,
            models,
            aliases: offered.aliases,
            providers: self.providers.iter().map(|provider| provider.url.clone()).collect(),
            store: folder.join("answers"),
            // Everything of a local network stays on this machine.
            audit: Audit::Drawn,
            requests_max: REQUESTS_MAX,
            price_max,
            payments: Some(payments),
            x402,
            keys: assay_gateway::KeyRules {
                demanded: offered.require_keys,
                admin: Some(keccak256(api_key::admin_token(data)?)),
            },
            patience: assay_gateway::Patience::default(),
            token_time_target: TOKEN_TIME_TARGET,
            origins: offered.origins,
            relayed: offered.relayed,
            order_ttl: ORDER_TTL,
            poll_every: POLL_EVERY,
            drain_max: DRAIN_MAX,
        };
        let stop = self.stop_buying.clone();
        self.buying.spawn(async move {
            let run = assay_gateway::run(config, listener, stop).await;
            run.map_err(|error| broken("the gateway", &error))
        });
        Ok(())
    }

    /// Waits until the gateway has seen offers; fails as soon as a role does.
    async fn await_ready(&mut self) -> Outcome {
        let gateway = Gateway::new(&self.url())?;
        let ready = async {
            while !gateway.is_ready().await {
                tokio::time::sleep(READY_EVERY).await;
            }
        };
        tokio::select! {
            failure = self.failed() => Err(failure),
            ready = tokio::time::timeout(READY_MAX, ready) => ready.map_err(|_| {
                Failure::new(Exit::Timeout, "the network did not become ready")
                    .why(format_args!("no offers within {} s", READY_MAX.as_secs()))
                    .fix("set ASSAY_LOG=debug and look at what the providers say")
            }),
        }
    }

    /// Where clients on this machine reach the gateway.
    pub(crate) fn url(&self) -> String {
        reachable(self.gateway)
    }

    /// Waits for a role to end, which none does by itself unless it fails.
    pub(crate) async fn failed(&mut self) -> Failure {
        let ended = tokio::select! {
            Some(ended) = self.buying.join_next() => ended,
            Some(ended) = self.selling.join_next() => ended,
            else => return Failure::new(Exit::Failed, "nothing is running"),
        };
        match ended {
            Ok(Err(failure)) => failure,
            Ok(Ok(())) => Failure::new(Exit::Failed, "a role ended although nobody asked it to"),
            Err(panic) => Failure::new(Exit::Failed, "a role broke").why(panic),
        }
    }

    /// Lets what runs finish: first the gateway's requests, then the providers' orders.
    pub(crate) async fn drain(mut self) -> Outcome {
        self.stop_buying.cancel();
        let buying = joined(&mut self.buying).await;
        self.stop_selling.cancel();
        let selling = joined(&mut self.selling).await;
        buying.and(selling)
    }
}

/// Where clients on this machine reach what listens on `address`.
pub(crate) fn reachable(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        // Listening everywhere includes loopback, and clients need one address.
        address.set_ip(match address.ip() {
            std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{address}")
}

async fn joined(roles: &mut JoinSet<Outcome>) -> Outcome {
    let mut outcome = Ok(());
    while let Some(ended) = roles.join_next().await {
        let ended = ended
            .unwrap_or_else(|panic| Err(Failure::new(Exit::Failed, "a role broke").why(panic)));
        outcome = outcome.and(ended);
    }
    outcome
}

/// A model as clients see it. A gateway needs its tokenizer, and its template unless it makes vectors.
fn listed(sold: &Sold, created: u64) -> Outcome<assay_gateway::Listed> {
    let model = &sold.model;
    let without = |what| {
        Failure::new(Exit::Malformed, format_args!("model {} cannot chat", model.name))
            .why(format_args!("its source brought no {what}"))
            .fix("import it from a file that has one")
    };
    Ok(assay_gateway::Listed {
        id: model.id,
        name: model.name.clone(),
        tokenizer: model.tokenizer.clone().ok_or_else(|| without("tokenizer"))?,
        chat: match (&model.chat, model.vector_width()) {
            (Some(chat), _) => Some(Arc::clone(chat)),
            (None, Some(_)) => None,
            (None, None) => return Err(without("chat template")),
        },
        vector_width: model.vector_width(),
        labels: None,
        eos: model.manifest.eos.clone(),
        context: model.context(),
        assurance: sold.assurance(),
        created,
    })
}

/// An ONNX model as clients see it.
fn listed_graph(data: &Data, Graph { model, .. }: &Graph) -> assay_gateway::Listed {
    assay_gateway::Listed {
        id: model.id,
        name: model.name.clone(),
        tokenizer: Arc::clone(&model.tokenizer),
        chat: None,
        vector_width: u32::try_from(model.width()).ok(),
        labels: model.classes.as_ref().map(|classes| classes.labels.as_slice().into()),
        eos: model.eos.clone(),
        context: model.context,
        assurance: Assurance::Scored,
        created: created(data, model.id),
    }
}

/// When a model came to this machine, in Unix seconds; zero where the system does not say.
fn created(data: &Data, model: ModelId) -> u64 {
    let path = Library::of(data).path(model);
    let modified = std::fs::metadata(path).and_then(|file| file.modified()).ok();
    let since = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_secs())
}

fn broken(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, format_args!("{what} failed")).why(error)
}
