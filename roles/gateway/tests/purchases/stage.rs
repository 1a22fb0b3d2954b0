//! A gateway between scripted providers and a client.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use assay_gateway::{Config, KeyRules, Listed, Origin, Patience, Payments, Relayed, RunError, run};
use assay_protocol::{
    Address, Amount, Answer, Assurance, Audit, B256, ChainId, Ending, Key, ModelId,
};
use assay_text::{Chat, Tokenizer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bank::{CHANNELS, GRANTS, MARKET, TOKEN, Vault};
use crate::provider::{Scripted, Till};

pub(crate) const CHAIN: ChainId = ChainId(7777);
pub(crate) const MODEL: ModelId = ModelId(B256::repeat_byte(0xaa));
pub(crate) const EOS: u32 = 2;
pub(crate) const CONTEXT: u32 = 256;
/// What one answer may cost: ten base units for each token of a full context.
pub(crate) const PRICE_MAX: u128 = 2560;
pub(crate) const NAME: &str = "org/nano";

const TEMPLATE: &str = "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<eos>' \
    if m['role']=='assistant' else '<|' + m['role'] + '|>' + m['content'] }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

/// How a gateway is set up.
pub(crate) struct Setup {
    /// The price of each provider.
    pub(crate) prices: Vec<u128>,
    /// Orders each provider runs at once.
    pub(crate) running_max: u32,
    /// A provider that nobody answers for, listed first.
    pub(crate) dead: bool,
    /// Connections to each provider that close when an order has come over them, before any reply.
    pub(crate) hang_ups: usize,
    pub(crate) requests_max: usize,
    pub(crate) drain_max: Duration,
    pub(crate) patience: Patience,
    /// How the gateway pays; its providers then take money.
    pub(crate) pay: Option<Pay>,
    pub(crate) keys: KeyRules,
    /// Models of the operator's own servers.
    pub(crate) relayed: Vec<Relayed>,
    /// Numbers of the model's vectors, if it makes those.
    pub(crate) vector_width: Option<u32>,
    pub(crate) labels: Option<Arc<[String]>>,
}

/// How a gateway pays.
pub(crate) struct Pay {
    pub(crate) deposit: u128,
    pub(crate) lanes_max: usize,
    pub(crate) prepay_max: u128,
    /// What its providers deliver beyond what vouchers allow.
    pub(crate) credit: u128,
    pub(crate) lane_wait_max: Duration,
    /// Where grants can be taken back, as the gateway knows it.
    pub(crate) grants: Address,
    /// The same, as its providers do.
    pub(crate) taken: Address,
}

impl Default for Pay {
    fn default() -> Self {
        Self {
            deposit: 10_000,
            lanes_max: 4,
            prepay_max: u128::MAX,
            credit: 0,
            lane_wait_max: Duration::from_secs(10),
            grants: GRANTS,
            taken: GRANTS,
        }
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            prices: vec![1],
            running_max: 16,
            dead: false,
            hang_ups: 0,
            requests_max: 16,
            drain_max: Duration::from_secs(10),
            patience: Patience::default(),
            pay: None,
            keys: KeyRules::default(),
            relayed: vec![],
            vector_width: None,
            labels: None,
        }
    }
}

pub(crate) struct Stage {
    pub(crate) vault: Arc<Vault>,
    config: Config,
    pub(crate) providers: Vec<Arc<Scripted>>,
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
    pub(crate) shutdown: CancellationToken,
    pub(crate) running: JoinHandle<Result<(), RunError>>,
    pub(crate) tokenizer: Arc<Tokenizer>,
    _folder: TempDir,
}

/// A reply: its status, one of its headers, its body.
pub(crate) struct Said {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: String,
}

impl Said {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The status and code of an error, after checking its shape.
    pub(crate) fn error(&self) -> (u16, String) {
        let body = self.json();
        let error = body["error"].as_object().unwrap();
        let keys: Vec<&str> = error.keys().map(String::as_str).collect();
        assert_eq!(keys.len(), 4, "{keys:?}");
        assert!(error["message"].is_string() && error["type"].is_string());
        (self.status, error["code"].as_str().unwrap().to_owned())
    }

    /// The data of each event.
    pub(crate) fn events(&self) -> Vec<&str> {
        self.body.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect()
    }
}

/// The gateway's own key, as its owner has it.
pub(crate) fn gateway_key() -> Key {
    Key::from_bytes([42; 32]).unwrap()
}

impl Stage {
    pub(crate) async fn new(setup: Setup) -> Self {
        let json = include_bytes!("../../../../assets/nano/tokenizer.json");
        let tokenizer = Arc::new(Tokenizer::from_json(json).unwrap());
        let (mut providers, mut urls) = (Vec::new(), Vec::new());
        let vault = Arc::new(Vault::new(Duration::from_millis(20)));
        if setup.dead {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            urls.push(format!("http://{}", listener.local_addr().unwrap()));
        }
        for (name, price) in (1..).zip(&setup.prices) {
            let words = Arc::clone(&tokenizer);
            let paid = setup.pay.as_ref().map(|pay| Till {
                vault: Arc::clone(&vault),
                credit: pay.credit,
                grants: pay.taken,
            });
            let (provider, url) =
                Scripted::start(name, *price, setup.running_max, words, paid).await;
            providers.push(provider);
            let hangs_up = setup.hang_ups > 0;
            urls.push(if hangs_up { hanging_up(url, setup.hang_ups).await } else { url });
        }
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            key: gateway_key(),
            chain: CHAIN,
            models: vec![Listed {
                id: MODEL,
                name: NAME.into(),
                tokenizer: Arc::clone(&tokenizer),
                chat: Some(Arc::new(Chat::new(TEMPLATE).unwrap())),
                vector_width: setup.vector_width,
                labels: setup.labels,
                eos: vec![EOS],
                context: CONTEXT,
                assurance: Assurance::Replayable,
                created: 5,
            }],
            aliases: [("gpt".to_owned(), NAME.to_owned())].into(),
            providers: urls,
            store: folder.path().join("answers.redb"),
            audit: Audit::Public,
            requests_max: setup.requests_max,
            price_max: Amount(PRICE_MAX),
            keys: setup.keys,
            x402: None,
            payments: setup.pay.map(|pay| Payments {
                bank: Arc::clone(&vault) as _,
                channels: CHANNELS.contract,
                market: MARKET,
                grants: pay.grants,
                token: TOKEN,
                deposit: Amount(pay.deposit),
                lanes_max: pay.lanes_max,
                prepay_max: Amount(pay.prepay_max),
                lane_wait_max: pay.lane_wait_max,
                withdraw_delay_max: 3600,
                standing_every: Duration::from_millis(50),
            }),
            patience: setup.patience,
            token_time_target: Duration::from_secs(1),
            origins: Origin::local(),
            relayed: setup.relayed,
            order_ttl: Duration::from_secs(60),
            poll_every: Duration::from_millis(50),
            drain_max: setup.drain_max,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(run(config.clone(), listener, shutdown.clone()));
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let stage = Self {
            vault,
            config,
            providers,
            url,
            http,
            shutdown,
            running,
            tokenizer,
            _folder: folder,
        };
        if !stage.providers.is_empty() {
            stage.until("/readyz", |said| said.status == 200).await;
        }
        stage
    }

    /// Copies the file of answers, as it is now.
    pub(crate) fn copy_store(&self, name: &str) {
        std::fs::copy(&self.config.store, self.config.store.with_file_name(name)).unwrap();
    }

    /// Stops the gateway and starts another in its place, with the file `store`.
    pub(crate) async fn restart(&mut self, store: &str) {
        self.stop().await;
        self.start(store).await;
    }

    /// Stops the gateway.
    pub(crate) async fn stop(&mut self) {
        self.shutdown.cancel();
        (&mut self.running).await.unwrap().unwrap();
    }

    /// Where the gateway's files are.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.config.store.parent().unwrap()
    }

    /// Starts a gateway in the place of one that was stopped.
    pub(crate) async fn start(&mut self, store: &str) {
        self.config.store.set_file_name(store);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.url = format!("http://{}", listener.local_addr().unwrap());
        self.shutdown = CancellationToken::new();
        self.running = tokio::spawn(run(self.config.clone(), listener, self.shutdown.clone()));
        self.until("/readyz", |said| said.status == 200).await;
    }

    /// Asks until the reply is as wanted.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&Said) -> bool) -> Said {
        for _ in 0..500 {
            let said = self.get(path).await;
            if wanted(&said) {
                return said;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{path} is not as wanted in time");
    }

    pub(crate) async fn get(&self, path: &str) -> Said {
        self.send(self.http.get(format!("{}{path}", self.url))).await
    }

    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> Said {
        let reply = request.send().await.unwrap();
        let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
        Said { status, headers, body: reply.text().await.unwrap() }
    }

    /// A chat request with these fields beside model and message.
    pub(crate) fn request(&self, fields: Value) -> reqwest::RequestBuilder {
        self.post(self.body(fields))
    }

    pub(crate) fn body(&self, fields: Value) -> String {
        let mut body = json!({ "model": NAME, "messages": [{"role": "user", "content": "1+1="}] });
        let more = fields.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(more);
        body.to_string()
    }

    pub(crate) fn post(&self, body: String) -> reqwest::RequestBuilder {
        self.posted("/v1/chat/completions", body)
    }

    fn posted(&self, path: &str, body: String) -> reqwest::RequestBuilder {
        self.http
            .post(format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .body(body)
    }

    pub(crate) async fn post_to(&self, path: &str, body: String) -> Said {
        self.send(self.posted(path, body)).await
    }

    /// Asks until there is an answer: what a request before it holds is let go a moment later.
    pub(crate) async fn until_ok(&self, fields: Value) {
        for _ in 0..200 {
            if self.chat(fields.clone()).await.status == 200 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no answer in time");
    }

    pub(crate) async fn chat(&self, fields: Value) -> Said {
        self.send(self.request(fields)).await
    }

    /// The kept answer with this id, after everything that can be checked about it.
    pub(crate) async fn receipt(&self, id: &str) -> Answer {
        let said = self.until(&format!("/v1/receipts/{id}"), |said| said.status == 200).await;
        let answer: Answer = serde_json::from_str(&said.body).unwrap();
        let ending = Ending {
            eos: vec![EOS],
            stops: answer.terms.stops.clone(),
            tokens_max: answer.order.max_tokens,
        };
        answer.check(&ending).unwrap();
        assert_eq!(answer.states.len(), answer.output.len());
        answer
    }
}

/// The text, the finish reason and the id of a stream, after checking its rules.
pub(crate) fn streamed(said: &Said, usage: bool) -> (String, String, String) {
    assert_eq!(said.header("content-type"), "text/event-stream; charset=utf-8");
    let mut events = said.events();
    assert_eq!(events.pop(), Some("[DONE]"));
    let chunks: Vec<Value> =
        events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let first = &chunks[0]["choices"][0]["delta"];
    assert_eq!(first, &json!({"role": "assistant", "content": ""}));
    let last = chunks.last().unwrap();
    assert!(last["assay"]["receipt"].is_object());
    if usage {
        assert_eq!(last["choices"], json!([]));
        assert!(last["usage"]["total_tokens"].is_number());
    }
    let (mut text, mut finishes) = (String::new(), Vec::new());
    for chunk in &chunks {
        assert_eq!(chunk["id"], chunks[0]["id"]);
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk.get("usage").is_some(), usage);
        if let Some(choice) = chunk["choices"].get(0) {
            text += choice["delta"]["content"].as_str().unwrap_or("");
            assert!(choice.get("finish_reason").is_some());
            finishes.extend(choice["finish_reason"].as_str().map(str::to_owned));
        }
    }
    assert_eq!(finishes.len(), 1);
    (text, finishes.remove(0), chunks[0]["id"].as_str().unwrap().to_owned())
}

/// The way to the server at `url`: so many times it closes a connection once an order has come over it.
async fn hanging_up(url: String, times: usize) -> String {
    let left = Arc::new(AtomicUsize::new(times));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
            tokio::spawn(pass(near, far, Arc::clone(&left)));
        }
    });
    format!("http://{address}")
}

async fn pass(near: TcpStream, far: TcpStream, left: Arc<AtomicUsize>) {
    let (mut asked, mut told) = near.into_split();
    let (mut replies, mut requests) = far.into_split();
    let back = tokio::spawn(async move { tokio::io::copy(&mut replies, &mut told).await });
    let mut bytes = vec![0; 1 << 16];
    while let Ok(length @ 1..) = asked.read(&mut bytes).await {
        let is_order = bytes.starts_with(b"POST /v1/orders");
        let one_less = |left: usize| left.checked_sub(1);
        if is_order && left.fetch_update(Relaxed, Relaxed, one_less).is_ok() {
            back.abort();
            return;
        }
        if requests.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}
