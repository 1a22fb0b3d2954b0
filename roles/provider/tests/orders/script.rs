//! An engine, a disk and a buyer for tests: real ones, small, that do what a test says.

use std::io;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use assay_engine::{Backend, Busy, Delta, Deltas, Job};
use assay_protocol::wire::{Frame, Offers, Refusal, Sealed, Submission, TopUp};
use assay_protocol::{
    Address, Amount, Assurance, Audit, B256, ChainId, Ending, Key, Logprobs, ModelId, Order,
    OrderHash, Sampler, Terms, U256, keccak256, token_root, vector_hash,
};
use assay_provider::{Config, Open, Payment, RunError, Served, run_with_store};
use futures_util::StreamExt;
use redb::{Database, StorageBackend};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

pub(crate) const CHAIN: ChainId = ChainId(7777);
pub(crate) const EOS: u32 = 2;
pub(crate) const MODEL: ModelId = ModelId(B256::repeat_byte(0xaa));

/// Answers every job with 10, 11, 12, … and the end after `length` tokens, one token per permit.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) length: u32,
    pub(crate) pace: Arc<Semaphore>,
    /// Jobs started so far.
    pub(crate) jobs: AtomicU32,
    /// Whether the bits of the last norm differ, as on a broken machine.
    pub(crate) other_bits: AtomicBool,
    /// Whether the stream closes after the first token.
    pub(crate) breaks: AtomicBool,
    /// What it makes of every prompt instead, if it makes vectors.
    pub(crate) vector: Option<Vec<i32>>,
}

impl Script {
    pub(crate) fn new(length: u32, permits: usize) -> Arc<Self> {
        Arc::new(Self::of(length, permits))
    }

    /// Gives every prompt this vector.
    pub(crate) fn vectors(vector: Vec<i32>) -> Arc<Self> {
        Arc::new(Self { vector: Some(vector), ..Self::of(1, 100) })
    }

    fn of(length: u32, permits: usize) -> Self {
        Self {
            length,
            pace: Arc::new(Semaphore::new(permits)),
            jobs: AtomicU32::new(0),
            other_bits: AtomicBool::new(false),
            breaks: AtomicBool::new(false),
            vector: None,
        }
    }
}

impl Backend for Script {
    fn assurance(&self) -> Assurance {
        Assurance::Replayable
    }

    fn run(&self, job: Job) -> Result<Deltas, Busy> {
        self.jobs.fetch_add(1, Ordering::SeqCst);
        let (sender, deltas) = Deltas::channel(job.ending.tokens_max);
        let (length, pace) = (self.length, Arc::clone(&self.pace));
        let other_bits = self.other_bits.load(Ordering::SeqCst);
        let breaks = self.breaks.load(Ordering::SeqCst);
        let vector = self.vector.clone();
        tokio::spawn(async move {
            let mut output = Vec::new();
            let bound = vector.as_ref().map(|vector| vector_hash(vector));
            if let Some(vector) = vector.filter(|_| !breaks) {
                sender.send(Delta::Vector(vector));
            }
            for index in 0.. {
                let Ok(permit) = pace.acquire().await else { return };
                if sender.is_cancelled() {
                    return;
                }
                permit.forget();
                let token = if index + 1 == length { EOS } else { 10 + index };
                let hidden = keccak256([u8::from(other_bits), u8::try_from(index % 256).unwrap()]);
                let hidden = bound.filter(|_| !other_bits).unwrap_or(hidden);
                output.push(token);
                let top = |n: u8| (0..n).map(|below| (token + u32::from(below), -i32::from(below)));
                let said = |n| Logprobs { token, logprob: 0, top: top(n).collect() };
                let logprobs = job.logprobs.map(|n| Box::new(said(n)));
                if !sender.send(Delta::Token { token, hidden, logprobs }) || breaks {
                    return;
                }
                if let Some(finish) = job.ending.at(&output) {
                    sender.send(Delta::Done(finish));
                    return;
                }
            }
        });
        Ok(deltas)
    }
}

/// A disk in memory that can be full, from some write on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    pub(crate) full: Arc<AtomicBool>,
    /// Writes and syncs so far.
    pub(crate) writes: Arc<AtomicU64>,
    /// After how many of them it is full; zero: never.
    pub(crate) full_after: Arc<AtomicU64>,
}

impl Disk {
    pub(crate) fn open(&self) -> Open {
        let disk = self.clone();
        Open::with(move || Database::builder().create_with_backend(disk.clone()))
    }

    /// The disk as another process finds it, with room again.
    pub(crate) fn left(&self) -> Self {
        let bytes = self.bytes.lock().unwrap().clone();
        Self { bytes: Arc::new(Mutex::new(bytes)), ..Self::default() }
    }

    fn check(&self) -> io::Result<()> {
        let writes = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        let most = self.full_after.load(Ordering::SeqCst);
        if self.full.load(Ordering::SeqCst) || (most > 0 && writes > most) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "no space left"));
        }
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let found = bytes.get(start..start + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.bytes.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        let start = usize::try_from(offset).unwrap();
        let mut bytes = self.bytes.lock().unwrap();
        bytes.get_mut(start..start + data.len()).unwrap().copy_from_slice(data);
        Ok(())
    }
}

/// A running provider and a buyer in front of it.
pub(crate) struct Stage {
    pub(crate) script: Arc<Script>,
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
    pub(crate) shutdown: CancellationToken,
    pub(crate) running: JoinHandle<Result<(), RunError>>,
}

impl Stage {
    pub(crate) async fn new(script: Arc<Script>) -> Self {
        Self::with(script, Disk::default().open(), 4, Duration::from_secs(10)).await
    }

    pub(crate) async fn with(
        script: Arc<Script>,
        open: Open,
        orders_max: u32,
        drain_max: Duration,
    ) -> Self {
        Self::start(script, open, orders_max, drain_max, None).await
    }

    /// A provider that is paid as `payment` says.
    pub(crate) async fn paid(script: Arc<Script>, open: Open, payment: Option<Payment>) -> Self {
        Self::start(script, open, 4, Duration::from_secs(10), payment).await
    }

    async fn start(
        script: Arc<Script>,
        open: Open,
        orders_max: u32,
        drain_max: Duration,
        payment: Option<Payment>,
    ) -> Self {
        let config = Config {
            key: provider_key(),
            chain: CHAIN,
            models: vec![Served {
                id: MODEL,
                holder: None,
                context: 100,
                vocabulary: 1000,
                eos: vec![EOS],
                tokenizer: None,
                makes_vectors: script.vector.is_some(),
                backend: Arc::clone(&script) as Arc<dyn Backend>,
                tracer: None,
            }],
            price_in: Amount(1_000_000),
            price_out: Amount(2_000_000),
            orders_max: NonZeroU32::new(orders_max).unwrap(),
            offer_ttl: Duration::from_secs(60),
            store: PathBuf::new(),
            drain_max,
            payment,
            defence: None,
            canaries: None,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(run_with_store(config, open, listener, shutdown.clone()));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { script, url, http, shutdown, running }
    }

    pub(crate) async fn offers(&self) -> Offers {
        let reply = self.http.get(format!("{}/v1/offers", self.url)).send().await.unwrap();
        reply.json().await.unwrap()
    }

    /// Hands an order in: its lines as they come, or the refusal with its status.
    pub(crate) async fn submit(&self, submission: &Submission) -> Result<Lines, (u16, Refusal)> {
        let request = self.http.post(format!("{}/v1/orders", self.url)).json(submission);
        let reply = request.send().await.unwrap();
        match reply.status().as_u16() {
            200 => Ok(Lines { reply, bytes: Vec::new() }),
            status => Err((status, reply.json().await.unwrap())),
        }
    }

    /// Hands an order in and stays on the line: its lines, and where top-ups go.
    pub(crate) async fn talk(&self, submission: &Submission) -> (Lines, TopUps) {
        self.try_talk(submission).await.expect("the order is taken")
    }

    /// As `talk`, of a provider that may refuse or not be there.
    pub(crate) async fn try_talk(&self, submission: &Submission) -> Option<(Lines, TopUps)> {
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Vec<u8>, io::Error>>(8);
        let mut line = serde_json::to_vec(submission).unwrap();
        line.push(b'\n');
        sender.send(Ok(line)).await.unwrap();
        let body = reqwest::Body::wrap_stream(ReceiverStream::new(receiver));
        let request = self.http.post(format!("{}/v1/orders", self.url)).body(body);
        let reply = request.send().await.ok()?;
        let lines = Lines { reply, bytes: Vec::new() };
        (lines.reply.status().as_u16() == 200).then_some((lines, TopUps(sender)))
    }

    /// Hands an order in and reads to its end.
    pub(crate) async fn answer(&self, submission: &Submission) -> (Vec<u32>, Frame) {
        self.submit(submission).await.unwrap().rest().await
    }

    pub(crate) async fn delete(&self, submission: &Submission) -> u16 {
        let url = format!("{}/v1/orders/{}", self.url, hash(submission));
        let request = self.http.delete(url).bearer_auth(submission.signature);
        request.send().await.unwrap().status().as_u16()
    }

    /// The sealed answer, if there is one.
    pub(crate) async fn try_sealed(&self, submission: &Submission) -> Option<Sealed> {
        let url = format!("{}/v1/orders/{}", self.url, hash(submission));
        let request = self.http.get(url).bearer_auth(submission.signature);
        let reply = request.send().await.unwrap();
        reply.status().is_success().then_some(())?;
        Some(reply.json().await.unwrap())
    }

    /// The sealed answer, once there is one.
    pub(crate) async fn sealed(&self, submission: &Submission) -> Sealed {
        for _ in 0..500 {
            if let Some(sealed) = self.try_sealed(submission).await {
                return sealed;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("order {} is not sealed in time", hash(submission));
    }
}

/// The buyer's end of a body that stays open.
pub(crate) struct TopUps(tokio::sync::mpsc::Sender<Result<Vec<u8>, io::Error>>);

impl TopUps {
    pub(crate) async fn send(&self, top_up: TopUp) {
        let mut line = serde_json::to_vec(&top_up).unwrap();
        line.push(b'\n');
        self.0.send(Ok(line)).await.unwrap();
    }
}

/// The lines of an answer.
pub(crate) struct Lines {
    reply: reqwest::Response,
    bytes: Vec<u8>,
}

impl Lines {
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(end) = self.bytes.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            self.bytes.extend(self.reply.chunk().await.unwrap()?);
        }
    }

    /// Exactly `count` tokens.
    pub(crate) async fn tokens(&mut self, count: usize) -> Vec<u32> {
        let mut tokens = Vec::new();
        while tokens.len() < count {
            match self.next().await {
                Some(Frame::Tokens(more)) => tokens.extend(more),
                other => panic!("expected tokens, found {other:?}"),
            }
        }
        assert_eq!(tokens.len(), count);
        tokens
    }

    /// All further tokens, and the last frame.
    pub(crate) async fn rest(mut self) -> (Vec<u32>, Frame) {
        let mut tokens = Vec::new();
        loop {
            match self.next().await.expect("an answer has a last frame") {
                Frame::Tokens(more) => tokens.extend(more),
                last => {
                    assert!(self.next().await.is_none(), "a frame after the last");
                    return (tokens, last);
                }
            }
        }
    }
}

pub(crate) fn provider_key() -> Key {
    Key::from_bytes([9; 32]).unwrap()
}

/// A signed order, told apart by its nonce.
pub(crate) fn order(nonce: u64) -> Submission {
    let key = Key::from_bytes([1; 32]).unwrap();
    let sampler = Sampler::greedy();
    let terms =
        Terms { prompt: vec![5, 6, 7], sampler, stops: vec![], bias: vec![], grammar: None };
    let order = Order {
        buyer: key.address(),
        market: Address::ZERO,
        model: MODEL,
        request: B256::ZERO,
        prompt: token_root(&terms.prompt),
        prompt_tokens: 3,
        max_tokens: 50,
        sampler: terms.sampler.hash(),
        assurance: Assurance::Replayable,
        audit: Audit::Public,
        asset: Address::ZERO,
        max_price: Amount(1000),
        deadline: u64::MAX,
        nonce: U256::from(nonce),
        grant: B256::ZERO,
    };
    Submission {
        chain_id: CHAIN,
        signature: order.sign(CHAIN, &key),
        order,
        terms,
        logprobs: None,
        flex: false,
        grants: vec![],
        payment: None,
    }
}

pub(crate) fn hash(submission: &Submission) -> OrderHash {
    submission.order.hash(CHAIN)
}

/// The sealed answer in a last frame, after everything a buyer checks about it.
pub(crate) fn checked(submission: &Submission, frame: Frame) -> Sealed {
    let Frame::Sealed(sealed) = frame else { panic!("expected a receipt, found {frame:?}") };
    let ending = Ending { eos: vec![EOS], stops: vec![], tokens_max: 50 };
    let Sealed { receipt, signature, output, states } = &*sealed;
    receipt.check(CHAIN, signature, &submission.order, output, "", &ending).unwrap();
    assert_eq!(receipt.provider, provider_key().address());
    assert_eq!(receipt.price, Amount(3 + 2 * output.len() as u128));
    assert_eq!(states.len(), output.len());
    assert_eq!(*states.last().unwrap_or(&hash(submission).0), receipt.state);
    *sealed
}

/// Waits until the buyer's side of a closed connection has been noticed and the stream drained.
pub(crate) async fn drop_connection(lines: Lines) {
    let mut stream = lines.reply.bytes_stream();
    let _ = futures_util::poll!(stream.next());
}
