//! A node's RPC on a port of its own, and the plainest of clients.

#![allow(dead_code, reason = "not every test file needs all of it")]
#![allow(unreachable_pub, missing_docs, reason = "a module of tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use alloy_consensus::TxEip1559;
use alloy_eips::Encodable2718;
use alloy_primitives::{Bytes, TxKind, U256};
use assay_evm::clock::SystemClock;
use assay_evm::keystore::{Signer, mnemonic};
use assay_evm::mempool::{self, Head, Mempool};
use assay_evm::rpc::{self, Limits, Pages, Rpc};
use assay_evm::{Chain, Genesis, Node, NodeConfig, Options};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Where the cases, the chain and its genesis are.
pub fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/execution-apis")
}

/// The number of the working chain.
pub const CHAIN: u64 = 31_337;

/// In wei.
pub const ETHER: u128 = 1_000_000_000_000_000_000;

/// Who has money on the working chain.
pub fn signers() -> Vec<Signer> {
    mnemonic::accounts(mnemonic::DEVELOPMENT, 3)
}

/// A signed transaction, as text.
pub fn signed(signer: &Signer, nonce: u64, to: TxKind, input: &[u8]) -> String {
    let draft = TxEip1559 {
        chain_id: CHAIN,
        nonce,
        gas_limit: 200_000,
        max_fee_per_gas: 10_000_000_000,
        max_priority_fee_per_gas: 1,
        to,
        input: input.to_vec().into(),
        ..Default::default()
    };
    Bytes::from(signer.sign_transaction(draft).encoded_2718()).to_string()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The chain of the cases: 54 blocks that another client made.
pub fn foreign_chain() -> Arc<Chain> {
    let genesis = std::fs::read(vectors().join("genesis.json")).unwrap();
    let genesis = Genesis::from_json(&genesis).unwrap();
    let chain = Chain::open(&genesis, None, [], Options::default()).unwrap();
    let blocks = std::fs::read(vectors().join("chain.rlp")).unwrap();
    chain.import(blocks.as_slice(), |_| ControlFlow::Continue(())).unwrap();
    chain
}

/// An RPC at work. Dropping it ends its runtime, and with it whatever runs.
pub struct Served {
    pub address: SocketAddr,
    pub chain: Arc<Chain>,
    pub mempool: Arc<Mempool>,
    pub shutdown: CancellationToken,
    node: Option<Node>,
    runtime: tokio::runtime::Runtime,
}

impl Served {
    /// Serves a chain to which nothing is added.
    pub fn still(chain: Arc<Chain>, limits: Limits) -> Self {
        let head = chain.head();
        let head = Head::after(&head, chain.executor(), head.header.gas_limit);
        let mempool = Mempool::new(chain.chain_id(), mempool::Limits::default(), head);
        Self::new(runtime(), None, chain, mempool, limits, Pages::All)
    }

    /// Serves a new chain that makes a block as soon as there is a transaction.
    pub fn working(limits: Limits, pages: Pages) -> Self {
        let runtime = runtime();
        let funded: Vec<_> =
            signers().iter().map(|signer| (signer.address(), U256::from(100 * ETHER))).collect();
        let config =
            NodeConfig { genesis: Genesis::development(CHAIN, &funded), ..NodeConfig::default() };
        let entered = runtime.enter();
        let node = Node::start(config, Arc::new(SystemClock)).unwrap();
        drop(entered);
        let (chain, mempool) = (Arc::clone(node.chain()), Arc::clone(node.mempool()));
        Self::new(runtime, Some(node), chain, mempool, limits, pages)
    }

    fn new(
        runtime: tokio::runtime::Runtime,
        node: Option<Node>,
        chain: Arc<Chain>,
        mempool: Arc<Mempool>,
        limits: Limits,
        pages: Pages,
    ) -> Self {
        let clock = Arc::new(SystemClock);
        let rpc = Rpc::new(Arc::clone(&chain), Arc::clone(&mempool), clock, limits, Vec::new());
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        runtime.spawn(rpc::serve(listener, rpc, pages, shutdown.clone()));
        Self { address, chain, mempool, shutdown, node, runtime }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends a whole request and gives all that comes back.
    pub fn talk(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // Who is refused early may be cut off while it still sends.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    /// Posts a body; gives the status and the body that comes back.
    pub fn post(&self, body: &[u8]) -> (u16, String) {
        let mut request = format!(
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        split(&self.talk(&request))
    }

    /// Posts a body and reads the JSON that comes back.
    pub fn ask(&self, body: &str) -> Value {
        let (status, text) = self.post(body.as_bytes());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status} {text}: {error}"))
    }

    /// Calls a method; gives its answer with result or error.
    pub fn call(&self, method: &str, params: &str) -> Value {
        self.ask(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#))
    }

    /// Calls a method that succeeds.
    pub fn result(&self, method: &str, params: &str) -> Value {
        let answer = self.call(method, params);
        answer.get("result").unwrap_or_else(|| panic!("{method} {params}: {answer}")).clone()
    }

    /// Calls a method that fails; gives the code.
    pub fn code(&self, method: &str, params: &str) -> i64 {
        let answer = self.call(method, params);
        answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("{method} {params}: {answer}"))
    }
}

/// Status and body of an HTTP answer; nothing came: 0.
pub fn split(answer: &[u8]) -> (u16, String) {
    let text = String::from_utf8_lossy(answer);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}

/// Posts a body to `address`; gives the status and the body that comes back.
pub fn post(address: SocketAddr, body: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let length = body.len();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    split(&answer)
}
