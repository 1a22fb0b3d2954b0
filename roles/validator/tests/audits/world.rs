//! A chain with all contracts, whose time passes when a test says so, and people on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use assay_chain::{
    AddressBook, AuditTerms, Beneficiaries, Chain, Client, Contract, DisputeTerms, FirstSeat, Part,
    Posted, PostedAt, Seating, Settings, Value, deploy,
};
use assay_engine::{Loaded, Native, NativeConfig};
use assay_evidence::op::Nodes;
use assay_evm::clock::{Clock, StillClock, SystemClock};
use assay_evm::producer;
use assay_evm::rpc::{Limits, Pages, Rpc, serve};
use assay_evm::{Genesis, Node, NodeConfig};
use assay_kernels::{Cpu, Isa};
use assay_protocol::wire::{Exhibit, NotShown, Shown, SignedWords};
use assay_protocol::{
    Address, Amount, Answer, Audit, B256, ChainId, Finish, Key, LOCAL_CHAIN, ModelId, U256,
    leaf_hash,
};
use assay_validator::{Auditor, Config, Happening, Shelf, Totals};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::{NANO, greedy, order, prompt, run, sign};

pub const ASY: u128 = 1_000_000_000_000_000_000;
pub const BOND: u128 = 10 * ASY;
pub const STAKE: u128 = 1_000 * ASY;
/// Seconds of an epoch: more than there are blocks in one, each of which takes a second.
pub const EPOCH: u64 = 2_000;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn key(byte: u8) -> Key {
    Key::from_bytes([byte; 32]).unwrap()
}

/// How a provider answers auditors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    Shows,
    /// Not at all, there or on the chain.
    Refuses,
}

/// A provider, as auditors see it.
pub struct Provider {
    pub owner: Address,
    operator: Key,
    chain: Chain,
    posted: Arc<Mutex<HashMap<u64, Vec<Answer>>>>,
}

pub struct World {
    pub admin: Chain,
    pub chain_id: ChainId,
    url: String,
    book: AddressBook,
    clock: Arc<StillClock>,
    tokens: Vec<(u32, B256)>,
    finish: Finish,
    folder: tempfile::TempDir,
    _node: Node,
    _stop: DropGuard,
}

impl World {
    pub async fn start() -> Self {
        let people = [7, 31, 32, 41, 42, 43, 51, 52, 53].map(key);
        let coins = U256::from(1000) * U256::from(ASY);
        let funded: Vec<_> = people.iter().map(|key| (key.address(), coins)).collect();
        // Ahead of the system's clock, so that nobody goes by that.
        let epoch = SystemClock.now().as_secs() / EPOCH + 10;
        let clock = Arc::new(StillClock::at(epoch * EPOCH));
        let drift_max = Duration::from_secs(EPOCH);
        let producer = producer::Config { drift_max, ..producer::Config::default() };
        let mut genesis = Genesis::development(LOCAL_CHAIN.0, &funded);
        genesis.0.timestamp = epoch * EPOCH;
        let config = NodeConfig { genesis, producer, ..NodeConfig::default() };
        let node = Node::start(config, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (chain, mempool) = (Arc::clone(node.chain()), Arc::clone(node.mempool()));
        let told = Arc::clone(&clock) as Arc<dyn Clock>;
        let rpc = Rpc::new(chain, mempool, told, Limits::default(), Vec::new());
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, rpc, Pages::All, stop.clone()));
        let client = Client::connect(&url, Some(&people[0])).await.unwrap();
        let settings = settings(people[0].address());
        let mut book = AddressBook::new(client.chain_id(), client.genesis(), settings);
        deploy(&client, &mut book, |_, _, _| ()).await.unwrap();
        let admin = Chain::open(&url, book.clone(), Some(&people[0])).await.unwrap();
        assert_eq!(admin.seat_arbiter().await.unwrap(), Seating::Seated);
        admin.release_part(Part::Liquidity).await.unwrap();
        admin.fund_audits(Amount(ASY)).await.unwrap();
        let (tokens, finish) = tokio::task::spawn_blocking(answered).await.unwrap();
        Self {
            admin,
            chain_id: LOCAL_CHAIN,
            url,
            book,
            clock,
            tokens,
            finish,
            folder: tempfile::tempdir().unwrap(),
            _node: node,
            _stop: stop.drop_guard(),
        }
    }

    pub async fn open(&self, byte: u8) -> Chain {
        Chain::open(&self.url, self.book.clone(), Some(&key(byte))).await.unwrap()
    }

    /// A registered provider with stake, and its server.
    pub async fn provider(&self, byte: u8, manner: Manner) -> Provider {
        let chain = self.open(byte).await;
        let (owner, operator) = (key(byte).address(), key(byte + 100));
        let posted: Arc<Mutex<HashMap<u64, Vec<Answer>>>> = Arc::default();
        let router = Router::new()
            .route("/v1/periods/{period}/{index}", get(show))
            .with_state((manner, Arc::clone(&posted)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        self.admin.send_asy(owner, Amount(STAKE)).await.unwrap();
        chain.register(&operator, &url).await.unwrap();
        chain.stake(Amount(STAKE)).await.unwrap();
        Provider { owner, operator, chain, posted }
    }

    /// A provider's answer to the `nonce`th order.
    pub fn answer(&self, provider: &Provider, audit: Audit, lie: bool, nonce: u64) -> Answer {
        let terms = greedy(prompt(&NANO, "12+45="));
        let mut order = order(&NANO, &terms, self.tokens.len() as u32);
        order.market = self.book.get(Contract::Receipts).unwrap();
        (order.audit, order.nonce) = (audit, U256::from(nonce));
        let mut tokens = self.tokens.clone();
        if lie {
            tokens[1].1 = B256::repeat_byte(9);
        }
        let mut answer = sign(&NANO, order, terms, &tokens, self.finish);
        answer.receipt.provider = provider.operator.address();
        self.seal(provider, &mut answer);
        answer
    }

    /// Signs a receipt as its provider.
    pub fn seal(&self, provider: &Provider, answer: &mut Answer) {
        answer.states = match answer.states.last() == Some(&answer.receipt.state) {
            true => std::mem::take(&mut answer.states),
            false => Vec::new(),
        };
        answer.receipt_signature = answer.receipt.sign(self.chain_id, &provider.operator);
    }

    /// Posts answers as a provider's next period; the place of the first.
    pub async fn post(&self, provider: &Provider, answers: Vec<Answer>) -> PostedAt {
        let period = self.admin.periods(provider.owner).await.unwrap();
        let tree = tree(&answers);
        let count = answers.len() as u64;
        provider.posted.lock().unwrap().insert(period, answers);
        provider.chain.post(provider.owner, tree.root(), count, &[]).await.unwrap();
        PostedAt { provider: provider.owner, period, index: 0 }
    }

    /// An auditor with its bond in, at work; begun again, it goes on.
    pub async fn auditor(&self, byte: u8) -> Auditing {
        let chain = self.open(byte).await;
        let account = key(byte).address();
        if chain.auditor(account).await.unwrap().stake == Amount(0) {
            self.admin.send_asy(account, Amount(10 * BOND)).await.unwrap();
            chain.join_auditors(Amount(BOND)).await.unwrap();
        }
        let auditor = Auditor {
            chain,
            key: key(byte),
            folder: self.folder.path().join(byte.to_string()),
            shelf: Arc::new(OneModel),
            cpu: Arc::new(cpu()),
            auditing: assay_validator::Auditing {
                look_every: Auditing::LOOK_EVERY,
                answer_max: Duration::from_secs(5),
                once: false,
                disputes: Config {
                    anyway: false,
                    asks_server: true,
                    look_every: Duration::from_millis(100),
                    patience: Duration::from_secs(30),
                },
            },
        };
        let (stop, heard) = (CancellationToken::new(), Arc::new(Mutex::new(Vec::new())));
        let (stopped, told) = (stop.clone(), Arc::clone(&heard));
        let tell = move |happening: Happening| {
            eprintln!("{byte}: {happening}");
            told.lock().unwrap().push(happening);
        };
        let running = tokio::spawn(async move { auditor.run(tell, stopped).await.unwrap() });
        Auditing { stop, heard, running }
    }

    /// Time of the latest block.
    pub async fn time(&self) -> u64 {
        self.admin.client().time().await.unwrap()
    }

    /// The latest block's epoch.
    pub async fn epoch(&self) -> u64 {
        self.time().await / EPOCH
    }

    /// Lets the next epoch begin.
    pub async fn pass(&self) -> u64 {
        let next = self.epoch().await + 1;
        self.clock.set(next * EPOCH);
        self.admin.send_asy(Address::repeat_byte(1), Amount(1)).await.unwrap();
        assert_eq!(self.epoch().await, next);
        next
    }

    /// Waits until something holds.
    pub async fn until(&self, what: &str, holds: impl AsyncFn() -> bool) {
        let began = Instant::now();
        while !holds().await {
            assert!(began.elapsed() < PATIENCE, "waited too long for {what}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// An auditor at work.
pub struct Auditing {
    stop: CancellationToken,
    heard: Arc<Mutex<Vec<Happening>>>,
    running: JoinHandle<Totals>,
}

impl Auditing {
    const LOOK_EVERY: Duration = Duration::from_millis(50);

    /// Waits until it does or sees something; the first that it does or saw.
    pub async fn until(&self, wanted: impl Fn(&Happening) -> bool) -> Happening {
        let began = Instant::now();
        loop {
            if let Some(found) = self.heard.lock().unwrap().iter().find(|h| wanted(h)) {
                return found.clone();
            }
            assert!(began.elapsed() < PATIENCE, "{:#?}", self.heard.lock().unwrap());
            assert!(!self.running.is_finished(), "the auditor has ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether it did or saw something.
    pub fn heard(&self, wanted: impl Fn(&Happening) -> bool) -> bool {
        self.heard.lock().unwrap().iter().any(wanted)
    }

    /// Stops it; all that it did and saw.
    pub async fn stop(self) -> Vec<Happening> {
        self.stop.cancel();
        self.running.await.unwrap();
        std::mem::take(&mut *self.heard.lock().unwrap())
    }
}

/// The only model of this machine.
struct OneModel;

impl Shelf for OneModel {
    fn model(&self, id: ModelId) -> Option<Arc<Loaded>> {
        (id == NANO.id).then(|| Arc::clone(&NANO))
    }
}

fn cpu() -> Cpu {
    crate::support::cpu(Isa::detect(), 1)
}

/// What the model gives.
fn answered() -> (Vec<(u32, B256)>, Finish) {
    let terms = greedy(prompt(&NANO, "12+45="));
    let backend = Native::start(Arc::clone(&NANO), Arc::new(cpu()), NativeConfig::default());
    run(&backend, crate::support::job(&NANO, &terms, 4))
}

fn settings(admin: Address) -> Settings {
    let values = [(Value::DisputeWindow, 10 * EPOCH), (Value::UnbondingDelay, 20 * EPOCH)];
    Settings {
        admin,
        delay: 0,
        treasury: Address::repeat_byte(0xa1),
        fee_recipient: Address::repeat_byte(0xa2),
        values: BTreeMap::from(values.map(|(value, seconds)| (value, U256::from(seconds)))),
        start: 0,
        beneficiaries: Beneficiaries::all(admin),
        seats: vec![FirstSeat {
            key: B256::repeat_byte(1),
            owner: admin,
            socket: "127.0.0.1:1".into(),
        }],
        disputes: DisputeTerms { bond: Amount(ASY), clock: EPOCH / 4 },
        audits: AuditTerms {
            bond: Amount(BOND),
            epoch: EPOCH,
            rate: 10_000,
            fee: Amount(ASY / 1000),
            fees_most: 100,
            production_bond: Amount(ASY),
            production_clock: EPOCH / 4,
        },
    }
}

fn tree(answers: &[Answer]) -> Nodes {
    let leaf = |answer: &Answer| leaf_hash(answer.receipt.digest(LOCAL_CHAIN).as_slice());
    Nodes::new(answers.iter().map(leaf).collect())
}

/// The receipt of one of the answers of a period, and how it hangs there; its place is anyone's.
pub fn posted(answers: &[Answer], index: u64) -> Posted {
    let place = PostedAt { provider: Address::ZERO, period: 0, index };
    let receipt = answers[index as usize].receipt.digest(LOCAL_CHAIN);
    Posted { place, receipt, proof: tree(answers).proof(index) }
}

/// A place, as the contracts hash it.
pub fn encoded(at: &PostedAt) -> Vec<u8> {
    let number = |value: u64| U256::from(value).to_be_bytes::<32>();
    [at.provider.into_word().0, number(at.period), number(at.index)].concat()
}

type Served = (Manner, Arc<Mutex<HashMap<u64, Vec<Answer>>>>);

/// What a provider says to auditors.
async fn show(
    State((manner, posted)): State<Served>,
    Path((period, index)): Path<(u64, u64)>,
) -> Response {
    if manner == Manner::Refuses {
        return (StatusCode::TOO_MANY_REQUESTS, Json(NotShown::Busy)).into_response();
    }
    let answers = posted.lock().unwrap().get(&period).cloned().unwrap_or_default();
    let Some(answer) = answers.get(index as usize).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let proof = tree(&answers).proof(index);
    let what = match answer.order.audit {
        Audit::None => Exhibit::Words(Box::new(SignedWords {
            order: answer.order,
            order_signature: answer.order_signature,
            receipt: answer.receipt,
            receipt_signature: answer.receipt_signature,
        })),
        _ => Exhibit::Answer(Box::new(answer)),
    };
    Json(Shown { proof, what }).into_response()
}
