//! A chain with the contracts, a provider with the shipped model, and who buys from it.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use assay_chain::{
    AddressBook, AuditTerms, Beneficiaries, Chain, Client, Contract, DisputeTerms, FirstSeat, Part,
    Seating, Settings, Value, deploy,
};
use assay_court::{Desk, Fetched, Tracer};
use assay_engine::import::{Options, import};
use assay_engine::{Backend, Loaded, Native, NativeConfig, Package};
use assay_evm::clock::{Clock, SystemClock};
use assay_evm::producer::{self, Production};
use assay_evm::rpc::{Development, Impersonated, Limits, Module, Pages, Rpc, serve};
use assay_evm::{Genesis, Node, NodeConfig};
use assay_kernels::{Cpu, Isa};
use assay_protocol::wire::{Accepts, Frame, Payment as Offered, Submission, TopUp};
use assay_protocol::{
    Address, Amount, Answer, Assurance, Audit, B256, ChainId, Channel, Key, Order, Phase, Sampler,
    Signature, Terms, U256, Voucher, token_root,
};
use assay_provider::{
    Collecting, Config, Defence, Open, Payment, Planting, RunError, Served, run_with_store,
};
use redb::{Database, StorageBackend};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) const CHAIN: ChainId = ChainId(7777);
const ASY: u128 = 1_000_000_000_000_000_000;
pub(crate) const BOND: u128 = ASY;
/// Long beside any test: where a clock has to run out, the chain's time is moved.
pub(crate) const CLOCK: u64 = 600;

/// The shipped model.
pub(crate) static NANO: LazyLock<Arc<Loaded>> =
    LazyLock::new(|| Arc::new(Package::read(&PACKAGE).unwrap().load().unwrap()));

/// Where its package lies.
static PACKAGE: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/nano/nano-q8_0.gguf");
    let package = import(&path, &Options::default(), &CPU, &mut |_| ()).unwrap().0;
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("disputed.assay");
    package.write(&kept).unwrap();
    kept
});

static CPU: LazyLock<Arc<Cpu>> =
    LazyLock::new(|| Arc::new(Cpu::new(Isa::detect(), NonZeroUsize::MIN).unwrap()));

/// Computes its answers again, with a model that is read for it.
pub(crate) static TRACER: LazyLock<Arc<dyn Tracer>> = LazyLock::new(|| {
    let desk = Arc::new(Desk::new(Arc::clone(&CPU)));
    Arc::new(Fetched::new(NANO.id, NANO.manifest.parts.weights, PACKAGE.clone(), desk))
});

fn key(byte: u8) -> Key {
    Key::from_bytes([byte; 32]).unwrap()
}

/// A chain of one validator with the contracts on it. Dropping it ends its service.
pub(crate) struct World {
    url: String,
    book: AddressBook,
    /// Who buys, and doubts.
    pub(crate) challenger: Chain,
    owner: Chain,
    /// What the owner had after it staked.
    beginning: u128,
    http: reqwest::Client,
    _node: Node,
    _stop: tokio_util::sync::DropGuard,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(AuditTerms::default().epoch, Duration::ZERO).await
    }

    /// A chain with epochs of so many seconds, whose clock is so far behind. Blocks made in a hurry run ahead of
    /// it, a second each.
    pub(crate) async fn with(epoch: u64, behind: Duration) -> Self {
        let (admin, owner, operator, buyer) = (key(7), key(9), key(5), key(1));
        let (auditor, sponsors) = (key(3), [key(20), key(21)]);
        let coins = U256::from(1000) * U256::from(ASY);
        let funded = [&admin, &owner, &operator, &buyer, &auditor, &sponsors[0], &sponsors[1]]
            .map(|key| (key.address(), coins));
        let mut genesis = Genesis::development(CHAIN.0, &funded);
        let clock = Arc::new(Behind(behind));
        genesis.0.timestamp = clock.now().as_secs();
        let drift_max = Duration::from_secs(3_600);
        let producer = producer::Config { drift_max, ..Default::default() };
        let config = NodeConfig { genesis, producer, ..NodeConfig::default() };
        let node = Node::start(config, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (chain, mempool) = (Arc::clone(node.chain()), Arc::clone(node.mempool()));
        let development = Development::new(
            Arc::clone(&chain),
            Arc::clone(&mempool),
            node.producer().clone(),
            Production::OnDemand,
            Impersonated::default(),
        );
        let modules: Vec<Arc<dyn Module>> = vec![Arc::new(development)];
        let rpc = Rpc::new(chain, mempool, clock, Limits::default(), modules);
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, rpc, Pages::All, stop.clone()));

        let client = Client::connect(&url, Some(&admin)).await.unwrap();
        let settings = settings(admin.address(), epoch);
        let mut book = AddressBook::new(client.chain_id(), client.genesis(), settings);
        deploy(&client, &mut book, |_, _, _| ()).await.unwrap();
        let open = async |key: &Key| Chain::open(&url, book.clone(), Some(key)).await.unwrap();
        let admin = open(&admin).await;
        admin.release_part(Part::Liquidity).await.unwrap();
        admin.send_asy(owner.address(), Amount(10_000 * ASY)).await.unwrap();
        admin.send_asy(buyer.address(), Amount(1_000 * ASY)).await.unwrap();
        for key in [&auditor, &sponsors[0], &sponsors[1]] {
            admin.send_asy(key.address(), Amount(100 * ASY)).await.unwrap();
        }
        admin.file_spec(&NANO.manifest).await.unwrap();
        let selling = open(&owner).await;
        selling.register(&operator, "http://127.0.0.1:1").await.unwrap();
        selling.stake(Amount(10_000 * ASY)).await.unwrap();
        let beginning = selling.asy_of(owner.address()).await.unwrap().0;
        let challenger = open(&buyer).await;
        Self {
            challenger,
            owner: selling,
            beginning,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            url,
            book,
            _node: node,
            _stop: stop.drop_guard(),
        }
    }

    /// Lets the disputes' contract take stakes, and pay prizes.
    pub(crate) async fn seat_arbiter(&self) {
        let admin = Chain::open(&self.url, self.book.clone(), Some(&key(7))).await.unwrap();
        assert_eq!(admin.seat_arbiter().await.unwrap(), Seating::Seated);
    }

    /// A connection of an auditor's.
    pub(crate) async fn auditor(&self) -> (Key, Chain) {
        let key = key(3);
        let chain = Chain::open(&self.url, self.book.clone(), Some(&key)).await.unwrap();
        (key, chain)
    }

    /// The provider's owner.
    pub(crate) fn owner(&self) -> Address {
        key(9).address()
    }

    /// What a page says, asked with a signature.
    pub(crate) async fn shown(&self, url: &str, signature: &Signature) -> (u16, String) {
        let reply = self.http.get(url).bearer_auth(signature).send().await.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    }

    pub(crate) async fn phase(&self, dispute: u64) -> Phase {
        self.owner.dispute(dispute).await.unwrap().unwrap().phase
    }

    /// What the provider's owner has got since it staked.
    pub(crate) async fn earned(&self) -> u128 {
        self.owner.asy_of(key(9).address()).await.unwrap().0 - self.beginning
    }

    /// Waits until something is so; fails if it does not come.
    pub(crate) async fn until(&self, holds: impl AsyncFn() -> bool) {
        for _ in 0..600 {
            if holds().await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it did not come to that within a minute");
    }

    /// The status of a page.
    pub(crate) async fn get(&self, url: &str) -> u16 {
        self.http.get(url).send().await.unwrap().status().as_u16()
    }

    /// Lets the chain's time pass.
    pub(crate) async fn pass(&self, seconds: u64) {
        let then = self.owner.client().time().await.unwrap() + seconds;
        for (method, params) in [("evm_setNextBlockTimestamp", vec![then]), ("evm_mine", vec![])] {
            let call = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
            let said = self.http.post(&self.url).json(&call).send().await.unwrap();
            let said = said.text().await.unwrap();
            assert!(!said.contains("error"), "{method}: {said}");
        }
    }

    /// A provider with its answers on `disk`.
    pub(crate) async fn provider(&self, disk: &Disk) -> Provider {
        self.provider_that_posts(disk, Duration::from_secs(1_000)).await
    }

    /// As [`Self::provider`], that posts its receipts so often.
    pub(crate) async fn provider_that_posts(&self, disk: &Disk, every: Duration) -> Provider {
        self.provider_with(disk, every, None).await
    }

    /// Who plants canaries, and the buyer of them.
    pub(crate) async fn planting(&self) -> Planting {
        let open = async |key: &Key| Chain::open(&self.url, self.book.clone(), Some(key)).await;
        Planting {
            share_bps: 10_000,
            planter: open(&key(20)).await.unwrap(),
            buyer: key(21),
            purse: open(&key(21)).await.unwrap(),
            prompts: vec![(20..30).collect(), (30..41).collect()],
            prize: Amount(ASY),
            deposit: Amount(10_000),
            sown_max: 2,
            spread: Duration::from_secs(1),
            look_every: Duration::from_millis(100),
        }
    }

    /// As [`Self::provider_that_posts`], that may plant canaries.
    pub(crate) async fn provider_with(
        &self,
        disk: &Disk,
        every: Duration,
        canaries: Option<Planting>,
    ) -> Provider {
        let at = |contract| self.book.get(contract).unwrap();
        let open = async |key: &Key| Chain::open(&self.url, self.book.clone(), Some(key)).await;
        let owner = key(9).address();
        let accepts = Accepts {
            channels: at(Contract::Channels),
            market: at(Contract::Receipts),
            token: at(Contract::AssayToken),
            receiver: self.owner.till_of(owner).await.unwrap(),
            receiver_authorizer: owner,
            withdraw_delay_min: 900,
            credit_max: Amount(4),
            grants: at(Contract::Grants),
        };
        let payment = Payment {
            owner,
            accepts: accepts.clone(),
            bank: Arc::new(open(&key(9)).await.unwrap()),
            confirmations: 0,
            voucher_wait_max: Duration::from_secs(20),
            watch_every: Duration::from_secs(10),
            collecting: Collecting { every, coin_price: Amount(0), parts_min: 1 },
        };
        let defence = Defence {
            owner,
            chain: open(&key(5)).await.unwrap(),
            watch_every: Duration::from_millis(100),
            confirmations: 0,
            traces_max: NonZeroUsize::new(2).unwrap(),
        };
        let native = Native::start(Arc::clone(&NANO), Arc::clone(&CPU), NativeConfig::default());
        let config = Config {
            key: key(5),
            chain: CHAIN,
            models: vec![Served {
                id: NANO.id,
                holder: None,
                context: NANO.context(),
                vocabulary: NANO.manifest.shape.vocab,
                eos: NANO.manifest.eos.clone(),
                makes_vectors: false,
                tokenizer: None,
                backend: Arc::new(native) as Arc<dyn Backend>,
                tracer: Some(Arc::clone(&TRACER)),
            }],
            price_in: Amount(1_000_000),
            price_out: Amount(2_000_000),
            orders_max: NonZeroU32::new(4).unwrap(),
            offer_ttl: Duration::from_secs(60),
            store: "".into(),
            drain_max: Duration::from_secs(5),
            payment: Some(payment),
            defence: Some(defence),
            canaries,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let life = disk.live();
        let running = tokio::spawn(run_with_store(config, life.open(), listener, shutdown.clone()));
        Provider { url, accepts, life, shutdown, running }
    }
}

/// A clock that is behind the system's.
#[derive(Debug)]
struct Behind(Duration);

impl Clock for Behind {
    fn now(&self) -> Duration {
        SystemClock.now().saturating_sub(self.0)
    }
}

fn settings(admin: Address, epoch: u64) -> Settings {
    Settings {
        admin,
        delay: 0,
        treasury: Address::repeat_byte(0xa1),
        fee_recipient: Address::repeat_byte(0xa2),
        values: BTreeMap::from([(Value::DisputeWindow, U256::from(1_000))]),
        start: 0,
        beneficiaries: Beneficiaries::all(admin),
        seats: vec![FirstSeat {
            key: B256::repeat_byte(1),
            owner: admin,
            socket: "127.0.0.1:1".into(),
        }],
        disputes: DisputeTerms { bond: Amount(BOND), clock: CLOCK },
        audits: AuditTerms {
            bond: Amount(ASY),
            rate: 10_000,
            epoch,
            production_bond: Amount(ASY),
            ..AuditTerms::default()
        },
    }
}

/// A running provider.
pub(crate) struct Provider {
    pub(crate) url: String,
    accepts: Accepts,
    life: Disk,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), RunError>>,
}

impl Provider {
    /// Buys an answer of a few tokens.
    pub(crate) async fn buy(&self, world: &World, nonce: u64) -> Answer {
        self.buy_for(world, nonce, Audit::Public).await
    }

    /// As [`Self::buy`], an answer that these may check.
    pub(crate) async fn buy_for(&self, world: &World, nonce: u64, audit: Audit) -> Answer {
        self.buy_until(world, (nonce, audit), u64::from(u32::MAX)).await
    }

    /// The channel of a buyer, by its salt.
    pub(crate) fn channel(&self, buyer: Address, salt: B256) -> Channel {
        Channel {
            payer: buyer,
            payer_authorizer: buyer,
            receiver: self.accepts.receiver,
            receiver_authorizer: self.accepts.receiver_authorizer,
            token: self.accepts.token,
            withdraw_delay: 900,
            salt,
        }
    }

    /// As [`Self::buy_for`], to be started before a deadline, Unix seconds.
    pub(crate) async fn buy_until(
        &self,
        world: &World,
        (nonce, audit): (u64, Audit),
        deadline: u64,
    ) -> Answer {
        let buyer = key(1);
        let channel = self.channel(buyer.address(), B256::ZERO);
        let channels = world.challenger.channels().unwrap();
        let word = Voucher {
            channel: channel.id(&channels),
            claimable: Amount(1_000 * u128::from(nonce)),
        };
        world.challenger.deposit(&channel, Amount(1_000)).await.unwrap();
        let voucher = TopUp { claimable: word.claimable, signature: word.sign(&channels, &buyer) };
        let sampler = Sampler {
            inv_t_q16: 94_548,
            top_k: 40,
            top_p_q16: 60_000,
            seed: B256::repeat_byte(nonce as u8),
            ..Sampler::greedy()
        };
        let prompt = (0..6).map(|index| 10 + index * 7 + nonce as u32).collect();
        let terms = Terms { prompt, sampler, stops: vec![], bias: vec![], grammar: None };
        let order = Order {
            buyer: buyer.address(),
            market: self.accepts.market,
            model: NANO.id,
            request: B256::ZERO,
            prompt: token_root(&terms.prompt),
            prompt_tokens: 6,
            max_tokens: 4,
            sampler: terms.sampler.hash(),
            assurance: Assurance::Replayable,
            audit,
            asset: Address::ZERO,
            max_price: Amount(1_000),
            deadline,
            nonce: U256::from(nonce),
            grant: B256::ZERO,
        };
        let submission = Submission {
            chain_id: CHAIN,
            signature: order.sign(CHAIN, &buyer),
            order,
            terms,
            logprobs: None,
            flex: false,
            grants: vec![],
            payment: Some(Offered { channel, voucher }),
        };
        let request = world.http.post(format!("{}/v1/orders", self.url)).json(&submission);
        let text = request.send().await.unwrap().text().await.unwrap();
        let last = text.lines().last().unwrap();
        let Ok(Frame::Sealed(sealed)) = serde_json::from_str(last) else { panic!("{text}") };
        Answer {
            schema: Answer::SCHEMA.into(),
            chain_id: CHAIN,
            order: submission.order,
            order_signature: submission.signature,
            terms: submission.terms,
            request: None,
            output: sealed.output,
            text: String::new(),
            receipt: sealed.receipt,
            receipt_signature: sealed.signature,
            states: sealed.states,
            vector: None,
        }
    }

    /// Ends it as a kill would: nothing is said or written any more.
    pub(crate) async fn kill(self) {
        self.life.cut();
        self.running.abort();
        let _ = self.running.await;
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }
}

/// A disk in memory, which outlives those who write on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    cut: Arc<std::sync::atomic::AtomicBool>,
}

impl Disk {
    /// The same disk for another life.
    fn live(&self) -> Self {
        Self { bytes: Arc::clone(&self.bytes), cut: Arc::default() }
    }

    /// Nothing of this life is written any more.
    fn cut(&self) {
        self.cut.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    fn open(&self) -> Open {
        let disk = self.clone();
        Open::with(move || Database::builder().create_with_backend(disk.clone()))
    }

    fn check(&self) -> std::io::Result<()> {
        match self.cut.load(std::sync::atomic::Ordering::SeqCst) {
            true => Err(std::io::Error::other("killed")),
            false => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let bytes = self.bytes.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let found = bytes.get(start..start + out.len());
        out.copy_from_slice(found.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.check()?;
        self.bytes.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.check()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.check()?;
        let start = usize::try_from(offset).unwrap();
        let mut bytes = self.bytes.lock().unwrap();
        bytes.get_mut(start..start + data.len()).unwrap().copy_from_slice(data);
        Ok(())
    }
}
