//! A whole network in one process: providers that share one engine, and the gateway that buys
//! from them. They meet over HTTP on loopback, exactly as they would across machines.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use assay_court::{Retracer, Tracer};
use assay_engine::{Backend, Loaded, Native, NativeConfig};
use assay_gateway::{Origin, Relayed};
use assay_kernels::Cpu;
use assay_protocol::{Address, Amount, Audit, Key, LOCAL_CHAIN, keccak256, price};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api_key;
use crate::canaries::{self, Canaries};
use crate::cheat::{Cheat, Liar};
use crate::data::Data;
use crate::embedded::Embedded;
use crate::failure::{Exit, Failure, Outcome};
use crate::gateway::Gateway;
use crate::keys;
use crate::payment;
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
/// Jobs that wait for the engine.
const QUEUE_MAX: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
/// Jobs that the engine works on in turns. More wait, and a short answer must not wait for many
/// long ones.
const RUNNING_MAX: NonZeroUsize = NonZeroUsize::new(256).unwrap();
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
    /// Other names for the model, by the name that clients use.
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
}

impl Sellers {
    /// All of them.
    fn count(&self) -> usize {
        self.honest.get() + usize::from(self.cheater.is_some())
    }
}

/// What a provider sells with.
#[derive(Clone, Copy)]
struct Selling<'a> {
    /// The model that it computes with.
    loaded: &'a Arc<Loaded>,
    engine: &'a Arc<dyn Backend>,
    /// It asks one part in so many of the usual price: who is cheaper is bought from.
    parts: u128,
    /// Computes its answers again.
    tracer: &'a Arc<Retracer>,
    /// Whether it does so for who disputes them, or keeps silent.
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
    /// Starts `providers` providers of one model, and a gateway on `listener`; returns once it is
    /// ready to answer.
    pub(crate) async fn start(
        data: &Data,
        chain: &Embedded,
        loaded: Loaded,
        cpu: Cpu,
        sellers: Sellers,
        offered: Offered,
        listener: TcpListener,
    ) -> Outcome<Self> {
        let gateway =
            listener.local_addr().map_err(|error| broken("the gateway's address", &error))?;
        let loaded = Arc::new(loaded);
        let model = listed(&loaded, created(data, &loaded))?;
        let config = NativeConfig {
            running_max: RUNNING_MAX,
            queue_max: QUEUE_MAX,
            ..NativeConfig::default()
        };
        let cpu = Arc::new(cpu);
        let engine: Arc<dyn Backend> =
            Arc::new(Native::start(Arc::clone(&loaded), Arc::clone(&cpu), config.clone()));
        let mut network = Self {
            gateway,
            providers: Vec::new(),
            buying: JoinSet::new(),
            selling: JoinSet::new(),
            stop_buying: CancellationToken::new(),
            stop_selling: CancellationToken::new(),
        };
        let tracer = Arc::new(Retracer::new(Arc::clone(&loaded), Arc::clone(&cpu)));
        let tracer = &tracer;
        let canaries = sellers.canaries.as_ref();
        let honest =
            Selling { loaded: &loaded, engine: &engine, parts: 1, tracer, defends: true, canaries };
        for n in 0..sellers.honest.get() {
            network.add_provider(data, chain, n, honest).await?;
        }
        if let Some(how) = sellers.cheater {
            let liar = Liar::start(how, &loaded, Arc::clone(&cpu), config)?;
            let (computes, defends) = (Arc::clone(&liar.computes), liar.defends());
            // What it really computes: it can show the trace of nothing else.
            let tracer = &Arc::new(Retracer::new(Arc::clone(&computes), cpu));
            let engine: Arc<dyn Backend> = Arc::new(liar);
            let cheap = Selling {
                loaded: &computes,
                engine: &engine,
                parts: 2,
                tracer,
                defends,
                canaries: None,
            };
            network.add_provider(data, chain, sellers.honest.get(), cheap).await?;
        }
        network.add_gateway(data, chain, model, offered, listener).await?;
        network.await_ready().await?;
        Ok(network)
    }

    async fn add_provider(
        &mut self,
        data: &Data,
        chain: &Embedded,
        n: usize,
        Selling { loaded, engine, parts, tracer, defends, canaries }: Selling<'_>,
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
        let canaries = match canaries {
            Some(canaries) => Some(canaries::plants(data, chain, n, canaries, loaded).await?),
            None => None,
        };
        let config = assay_provider::Config {
            key,
            chain: LOCAL_CHAIN,
            models: vec![assay_provider::Served {
                id: loaded.id,
                trees: Some(Arc::clone(tracer.trees())),
                context: loaded.context(),
                vocabulary: loaded.manifest.shape.vocab,
                eos: loaded.manifest.eos.clone(),
                tokenizer: loaded.tokenizer.clone(),
                backend: Arc::clone(engine),
                tracer: defends.then(|| Arc::clone(tracer) as Arc<dyn Tracer>),
            }],
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
        model: assay_gateway::Listed,
        offered: Offered,
        listener: TcpListener,
    ) -> Outcome {
        let folder = data.gateway();
        let key: Key = keys::load_or_create(&folder)?;
        let dear = |price: Amount| Amount(price.0 * PRICE_MAX_TIMES);
        let price_max = price(dear(PRICE_IN), model.context, dear(PRICE_OUT), model.context);
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
            models: vec![model],
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

/// A model as clients see it. A gateway needs its tokenizer and its template.
fn listed(loaded: &Loaded, created: u64) -> Outcome<assay_gateway::Listed> {
    let without = |what| {
        Failure::new(Exit::Malformed, format_args!("model {} cannot chat", loaded.name))
            .why(format_args!("its source brought no {what}"))
            .fix("import it from a file that has one")
    };
    Ok(assay_gateway::Listed {
        id: loaded.id,
        name: loaded.name.clone(),
        tokenizer: loaded.tokenizer.clone().ok_or_else(|| without("tokenizer"))?,
        chat: loaded.chat.clone().ok_or_else(|| without("chat template"))?,
        eos: loaded.manifest.eos.clone(),
        context: loaded.context(),
        assurance: loaded.assurance(),
        created,
    })
}

/// When a model came to this machine, in Unix seconds; zero where the system does not say.
fn created(data: &Data, loaded: &Loaded) -> u64 {
    let path = crate::library::Library::of(data).path(loaded.id);
    let modified = std::fs::metadata(path).and_then(|file| file.modified()).ok();
    let since = modified.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |since| since.as_secs())
}

fn broken(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, format_args!("{what} failed")).why(error)
}
