//! A load generator for any node that speaks Ethereum's JSON-RPC over HTTP.
//!
//! Transactions are signed beforehand; as many threads as connections send them, one request or one
//! batch at a time, and what counts is what stands in blocks.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::{U256, hex};
use assay_evm::clock::SystemClock;
use assay_evm::keystore::{Signer, mnemonic};
use assay_evm::producer::{self, Production};
use assay_evm::rpc::{Limits, Pages, Rpc, serve as serve_rpc};
use assay_evm::{Genesis, Node, NodeConfig};
use rayon::prelude::*;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Outcome, say, size, wallet};

/// How long a node may go without including anything before the run is given up.
const STALL_MAX: Duration = Duration::from_secs(30);

/// One connection, kept open.
struct Connection {
    host: String,
    stream: BufReader<TcpStream>,
}

impl Connection {
    fn open(url: &str) -> Outcome<Self> {
        let host = url.strip_prefix("http://").ok_or("a URL begins with http://")?;
        let host = host.trim_end_matches('/').to_owned();
        let stream = TcpStream::connect(&host)?;
        stream.set_nodelay(true)?;
        Ok(Self { host, stream: BufReader::new(stream) })
    }

    /// Sends a body and reads the answer's.
    fn post(&mut self, body: &str) -> Outcome<Vec<u8>> {
        let (host, length) = (&self.host, body.len());
        let request = format!(
            "POST / HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut answer = vec![0; self.length()?];
        self.stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    /// Reads the head of an answer; the length of what follows.
    fn length(&mut self) -> Outcome<usize> {
        let mut length = None;
        let mut line = String::new();
        loop {
            line.clear();
            if self.stream.read_line(&mut line)? == 0 {
                return Err("the node closed the connection".into());
            }
            let text = line.trim_end().to_ascii_lowercase();
            if text.is_empty() {
                return length.ok_or_else(|| "the answer has no length".into());
            }
            if let Some(value) = text.strip_prefix("content-length:") {
                length = Some(value.trim().parse()?);
            }
        }
    }

    fn call(&mut self, method: &str, params: Value) -> Outcome<Value> {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let mut answer: Value = serde_json::from_slice(&self.post(&call.to_string())?)?;
        match answer.get("error") {
            Some(error) => Err(format!("{method}: {error}").into()),
            None => Ok(answer["result"].take()),
        }
    }

    fn number(&mut self, method: &str, params: Value) -> Outcome<u64> {
        let text = self.call(method, params)?;
        let digits = text.as_str().and_then(|text| text.strip_prefix("0x"));
        Ok(u64::from_str_radix(digits.ok_or("a number begins with 0x")?, 16)?)
    }
}

/// Answers at `address` until the process is ended.
pub(crate) fn serve(address: &str, directory: Option<&Path>) -> Outcome {
    let ether = U256::from(10).pow(U256::from(24));
    let accounts = mnemonic::accounts(mnemonic::DEVELOPMENT, 1_000);
    let funded: Vec<_> = accounts.iter().map(|account| (account.address(), ether)).collect();
    let production = match size("INTERVAL", 1_000) {
        0 => Production::OnDemand,
        milliseconds => Production::Every(Duration::from_millis(milliseconds as u64)),
    };
    let config = NodeConfig {
        genesis: Genesis::development(wallet::CHAIN, &funded),
        directory: directory.map(Path::to_owned),
        producer: producer::Config {
            production,
            drift_max: Duration::from_secs(1 << 20),
            ..Default::default()
        },
        ..Default::default()
    };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        let node = Node::start(config, Arc::new(SystemClock))?;
        let (chain, mempool) = (Arc::clone(node.chain()), Arc::clone(node.mempool()));
        let rpc = Rpc::new(chain, mempool, Arc::new(SystemClock), Limits::default(), Vec::new());
        serve_rpc(listener, rpc, Pages::None, CancellationToken::new()).await;
        Ok(())
    })
}

/// Runs the same load against each node, one after the other.
pub(crate) fn compare(urls: &[&str]) -> Outcome {
    for url in urls {
        run(url)?;
    }
    Ok(())
}

fn run(url: &str) -> Outcome {
    let (count, batch) = (size("COUNT", 50_000), size("BATCH", 1));
    let connections = size("CONNECTIONS", 10);
    let senders = mnemonic::accounts(mnemonic::DEVELOPMENT, size("SENDERS", 10) as u32);
    let mut main = Connection::open(url)?;
    let client = main.call("web3_clientVersion", json!([]))?;
    let bodies = bodies(&mut main, &senders, count, connections, batch)?;
    let first = main.number("eth_blockNumber", json!([]))? + 1;
    let begun = Instant::now();
    let senders: Vec<_> = bodies
        .into_iter()
        .map(|bodies| {
            let url = url.to_owned();
            std::thread::spawn(move || send(&url, &bodies))
        })
        .collect();
    let mut accepted = 0;
    for sender in senders {
        accepted += sender.join().map_err(|_| "a sender panicked")??;
    }
    let sent = begun.elapsed();
    let (included, took) = included(&mut main, first, accepted, begun)?;
    say(
        "rpc_native_tps",
        json!({
            "url": url,
            "client": client,
            "tps": (included as f64 / took.as_secs_f64()).round(),
            "accepted_per_s": (accepted as f64 / sent.as_secs_f64()).round(),
            "accepted": accepted,
            "included": included,
            "connections": connections,
            "batch": batch,
        }),
    );
    Ok(())
}

/// The bodies that each connection sends: transfers of its share of the senders, in order.
fn bodies(
    main: &mut Connection,
    senders: &[Signer],
    count: usize,
    connections: usize,
    batch: usize,
) -> Outcome<Vec<Vec<String>>> {
    let chain = main.number("eth_chainId", json!([]))?;
    let mut nonces = Vec::new();
    for sender in senders {
        let params = json!([sender.address(), "pending"]);
        nonces.push(main.number("eth_getTransactionCount", params)?);
    }
    let each = count / senders.len();
    let signed: Vec<Vec<String>> = senders
        .par_iter()
        .zip(nonces)
        .map(|(sender, nonce)| {
            let raw = (0..each).map(|at| {
                let raw =
                    wallet::transfer(sender, chain, nonce + at as u64, wallet::sink(at % 1000));
                json!({
                    "jsonrpc": "2.0",
                    "id": at,
                    "method": "eth_sendRawTransaction",
                    "params": [hex::encode_prefixed(raw)],
                })
                .to_string()
            });
            raw.collect()
        })
        .collect();
    let mut bodies = vec![Vec::new(); connections];
    for (at, calls) in signed.into_iter().enumerate() {
        let bodies = &mut bodies[at % connections];
        for calls in calls.chunks(batch) {
            bodies.push(match calls {
                [call] => call.clone(),
                _ => format!("[{}]", calls.join(",")),
            });
        }
    }
    Ok(bodies)
}

/// Sends everything; how many were taken.
fn send(url: &str, bodies: &[String]) -> Outcome<usize> {
    let mut connection = Connection::open(url)?;
    let mut taken = 0;
    let mut refused = String::new();
    for body in bodies {
        let answer: Value = serde_json::from_slice(&connection.post(body)?)?;
        let answers = match &answer {
            Value::Array(answers) => answers.as_slice(),
            one => std::slice::from_ref(one),
        };
        for answer in answers {
            if answer["result"].is_string() {
                taken += 1;
            } else if refused.is_empty() {
                write!(refused, "refused: {answer}")?;
            }
        }
    }
    if refused.is_empty() { Ok(taken) } else { Err(refused.into()) }
}

/// Counts what stands in blocks from `first` on until all that was accepted does; the time from
/// `begun` to then.
fn included(
    main: &mut Connection,
    first: u64,
    accepted: usize,
    begun: Instant,
) -> Outcome<(usize, Duration)> {
    let (mut next, mut included, mut moved) = (first, 0, Instant::now());
    while included < accepted {
        let newest = main.number("eth_blockNumber", json!([]))?;
        while next <= newest {
            let params = json!([format!("{next:#x}")]);
            let count = main.number("eth_getBlockTransactionCountByNumber", params)?;
            included += usize::try_from(count)?;
            next += 1;
            if count > 0 {
                moved = Instant::now();
            }
        }
        if moved.elapsed() > STALL_MAX {
            return Err(format!("{included} of {accepted} included, then nothing").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok((included, moved.duration_since(begun)))
}
