//! What a cluster of validators does per second, and how long a transaction waits to be final.
//!
//! ```text
//! cluster bench [VALIDATORS] [SECONDS] [TRANSFERS_PER_SECOND]     all in this process
//! cluster keys FOLDER ADDRESS…          writes keys and a committee file, one validator per address
//! cluster node INDEX FOLDER SECONDS TRANSFERS_PER_SECOND [twice]  one validator of such a committee
//! ```
//!
//! Everything is printed as JSON lines. `twice` (feature `byzantine`) is a validator that votes
//! twice. Each validator offers its share of the transfers, each from accounts of its own.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring tool may fail loudly")]

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use alloy_consensus::TxEip1559;
use alloy_consensus::transaction::TxHashRef;
use alloy_eips::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, hex, keccak256};
use assay_evm::clock::SystemClock;
use assay_evm::consensus::simplex::{Cluster, Patience, Settings, public_key, start, verifier};
use assay_evm::consensus::{Member, MemberConfig, NodeKey, Peer, Seat, read_peers};
use assay_evm::keystore::Signer;
use assay_evm::mempool::{Head, Limits, Mempool};
use assay_evm::{Chain, Genesis, Options};

const CHAIN: u64 = 31_337;

/// Accounts that each validator's transfers come from.
const SENDERS: usize = 64;

/// Longest that a validator of its own process waits for the others.
const JOIN_MAX: Duration = Duration::from_secs(5);

fn main() {
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match &words[..] {
        ["bench", rest @ ..] => bench(
            rest.first().map_or(4, |count| count.parse().unwrap()),
            rest.get(1).map_or(15, |seconds| seconds.parse().unwrap()),
            rest.get(2).map_or(4_000, |rate| rate.parse().unwrap()),
        ),
        ["keys", folder, addresses @ ..] => keys(Path::new(folder), addresses),
        ["node", index, folder, seconds, rate, rest @ ..] => node(
            index.parse().unwrap(),
            Path::new(folder),
            seconds.parse().unwrap(),
            rate.parse().unwrap(),
            rest.contains(&"twice"),
        ),
        _ => panic!("usage: cluster bench|keys|node …"),
    }
}

fn sender(validator: usize, index: usize) -> Signer {
    let seed = keccak256(format!("sender {index} of validator {validator}"));
    Signer::from_bytes(seed.0).unwrap()
}

fn genesis(validators: usize) -> Genesis {
    let funded: Vec<_> = (0..validators)
        .flat_map(|validator| (0..SENDERS).map(move |index| sender(validator, index)))
        .map(|signer| (signer.address(), U256::MAX >> 32))
        .collect();
    Genesis::development(CHAIN, &funded)
}

/// One validator and what it saw.
struct Validator {
    member: Member,
    mempool: Arc<Mempool>,
    cluster: Cluster,
    accused: Arc<AtomicU64>,
}

fn run(peers: &[Peer], index: usize, key: NodeKey, folder: &Path, twice: bool) -> Validator {
    let genesis = genesis(peers.len());
    let seats: Vec<Seat> = peers.iter().cloned().map(Seat::from).collect();
    let data = folder.join("chain");
    std::fs::create_dir_all(&data).unwrap();
    let chain =
        Chain::open(&genesis, Some(&data), [verifier(&genesis)], Options::default()).unwrap();
    let accused = Arc::new(AtomicU64::new(0));
    let count = accused.clone();
    let epoch_length = NonZeroU64::new(100_000).unwrap();
    let config = MemberConfig {
        epoch_length,
        accuse: Some(Arc::new(move |evidence| {
            count.fetch_add(1, Ordering::Relaxed);
            println!(
                r#"{{"accused":"{}","epoch":{},"view":{},"evidence":"{}"}}"#,
                evidence.key,
                evidence.epoch,
                evidence.view,
                hex::encode(evidence.encode())
            );
        })),
        ..MemberConfig::of(seats)
    };
    let head = Head::after(&chain.head(), chain.executor(), config.gas_limit);
    let mempool = Mempool::new(CHAIN, Limits::default(), head);
    let clock = Arc::new(SystemClock);
    let member = Member::new(chain, mempool.clone(), clock, &genesis, config).unwrap();
    let listen: SocketAddr = peers[index].socket.parse().unwrap();
    let settings = Settings {
        directory: folder.join("consensus"),
        key,
        listen,
        peers: Vec::new(),
        epoch_length,
        patience: Patience::default(),
        threads: 2,
    };
    let cluster = launch(member.clone(), settings, twice);
    Validator { member, mempool, cluster, accused }
}

#[cfg(feature = "byzantine")]
fn launch(member: Member, settings: Settings, twice: bool) -> Cluster {
    use assay_evm::consensus::simplex::start_equivocating;
    if twice {
        start_equivocating(member, settings).unwrap()
    } else {
        start(member, settings).unwrap()
    }
}

#[cfg(not(feature = "byzantine"))]
fn launch(member: Member, settings: Settings, twice: bool) -> Cluster {
    assert!(!twice, "build with --features byzantine");
    start(member, settings).unwrap()
}

/// Offers `rate` transfers per second until `stop`, and notes when each was offered.
fn offer(
    mempool: &Mempool,
    validator: usize,
    rate: u64,
    offered: &Mutex<HashMap<B256, Instant>>,
    stop: &AtomicBool,
) {
    let signers: Vec<_> = (0..SENDERS).map(|index| sender(validator, index)).collect();
    let mut nonces: Vec<_> =
        signers.iter().map(|signer| mempool.next_nonce(&signer.address())).collect();
    let begun = Instant::now();
    let mut sent = 0_u64;
    while !stop.load(Ordering::Relaxed) && rate > 0 {
        let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
        let batch: Vec<Bytes> = (sent..due.min(sent + 256))
            .map(|number| {
                let who = number as usize % SENDERS;
                let draft = TxEip1559 {
                    chain_id: CHAIN,
                    nonce: nonces[who],
                    gas_limit: 21_000,
                    max_fee_per_gas: 100_000_000_000,
                    max_priority_fee_per_gas: 1,
                    to: TxKind::Call(Address::from_word(keccak256(number.to_be_bytes()))),
                    value: U256::from(1),
                    ..Default::default()
                };
                nonces[who] += 1;
                signers[who].sign_transaction(draft).encoded_2718().into()
            })
            .collect();
        sent += batch.len() as u64;
        let now = Instant::now();
        {
            let mut offered = offered.lock().unwrap();
            offered.extend(batch.iter().map(|raw| (keccak256(raw), now)));
        }
        if let Some(error) = mempool.add_many(&batch).into_iter().find_map(Result::err) {
            // What is refused leaves a gap behind it: too much was offered, and that is the end.
            println!(r#"{{"refused":"{error}","offered":{sent}}}"#);
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What one validator's blocks held, and how long its own transfers waited.
#[derive(Default)]
struct Seen {
    transactions: u64,
    blocks: u64,
    waits: Vec<Duration>,
    /// Longest time between two blocks that held anything.
    gap: Duration,
}

/// Watches blocks become final until `stop`.
fn watch(member: &Member, offered: &Mutex<HashMap<B256, Instant>>, stop: &AtomicBool) -> Seen {
    let mut blocks = member.chain().subscribe();
    let mut seen = Seen::default();
    let mut last: Option<Instant> = None;
    while !stop.load(Ordering::Relaxed) {
        let Ok(executed) = blocks.try_recv() else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let now = Instant::now();
        seen.blocks += 1;
        seen.transactions += executed.block.transactions.len() as u64;
        if !executed.block.transactions.is_empty() {
            seen.gap = seen.gap.max(last.map_or(Duration::ZERO, |last| now - last));
            last = Some(now);
        }
        let mut offered = offered.lock().unwrap();
        for transaction in &executed.block.transactions {
            if let Some(since) = offered.remove(transaction.tx_hash()) {
                seen.waits.push(now - since);
            }
        }
    }
    seen
}

fn report(name: usize, seen: &mut Seen, seconds: f64, validator: &Validator) {
    seen.waits.sort();
    let wait = |share: f64| {
        let index = (seen.waits.len() as f64 * share) as usize;
        seen.waits.get(index).map_or(0.0, |wait| wait.as_secs_f64() * 1e3)
    };
    let head = validator.member.chain().head();
    println!(
        r#"{{"node":"{name}","tps":{:.0},"blocks_per_second":{:.1},"finality_ms":{{"p50":{:.0},"p90":{:.0},"p99":{:.0}}},"gap_ms":{:.0},"measured":{},"height":{},"head":"{}","accusations":{}}}"#,
        seen.transactions as f64 / seconds,
        seen.blocks as f64 / seconds,
        wait(0.5),
        wait(0.9),
        wait(0.99),
        seen.gap.as_secs_f64() * 1e3,
        seen.waits.len(),
        head.header.number,
        head.header.hash(),
        validator.accused.load(Ordering::Relaxed),
    );
}

/// Runs the load on these validators and reports on each.
fn measure(validators: &[(usize, Validator)], seconds: u64, rate: u64) {
    let stop = AtomicBool::new(false);
    let offered: Vec<_> = validators.iter().map(|_| Mutex::new(HashMap::new())).collect();
    std::thread::scope(|scope| {
        let begun = Instant::now();
        let mut watching = Vec::new();
        for ((index, validator), offered) in validators.iter().zip(&offered) {
            let stop = &stop;
            scope.spawn(move || offer(&validator.mempool, *index, rate, offered, stop));
            watching.push(scope.spawn(move || watch(&validator.member, offered, stop)));
        }
        std::thread::sleep(Duration::from_secs(seconds));
        stop.store(true, Ordering::Relaxed);
        let took = begun.elapsed().as_secs_f64();
        for (watching, (index, validator)) in watching.into_iter().zip(validators) {
            report(*index, &mut watching.join().unwrap(), took, validator);
        }
    });
}

fn bench(count: usize, seconds: u64, rate: u64) {
    let folder = tempfile::tempdir().unwrap();
    let keys: Vec<_> = (0..count).map(|_| NodeKey::generate()).collect();
    // Held together, so that no two get the same port.
    let listeners: Vec<_> =
        keys.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let peers: Vec<_> = keys
        .iter()
        .zip(&listeners)
        .map(|(key, listener)| Peer {
            key: public_key(key).unwrap(),
            socket: listener.local_addr().unwrap().to_string(),
        })
        .collect();
    drop(listeners);
    let validators: Vec<_> = keys
        .into_iter()
        .enumerate()
        .map(|(index, key)| {
            let folder: PathBuf = folder.path().join(index.to_string());
            (index, run(&peers, index, key, &folder, false))
        })
        .collect();
    while validators.iter().any(|(_, validator)| validator.cluster.peers() + 1 < count) {
        std::thread::sleep(Duration::from_millis(50));
    }
    measure(&validators, seconds, rate / count as u64);
}

fn keys(folder: &Path, addresses: &[&str]) {
    std::fs::create_dir_all(folder).unwrap();
    let mut committee = String::new();
    for (index, socket) in addresses.iter().enumerate() {
        let key = NodeKey::generate();
        key.save(&folder.join(format!("{index}.key"))).unwrap();
        let peer = Peer { key: public_key(&key).unwrap(), socket: (*socket).into() };
        committee.push_str(&format!("{peer}\n"));
    }
    std::fs::write(folder.join("committee"), committee).unwrap();
}

fn node(index: usize, folder: &Path, seconds: u64, rate: u64, twice: bool) {
    let committee = std::fs::read_to_string(folder.join("committee")).unwrap();
    let peers = read_peers(&committee).unwrap();
    let key = NodeKey::load(&folder.join(format!("{index}.key"))).unwrap();
    let validator = run(&peers, index, key, &folder.join(index.to_string()), twice);
    let head = validator.member.chain().head().header.number;
    println!(r#"{{"node":"{index}","started_at":{head}}}"#);
    // What is measured is a cluster at work, though not all of it has to be there.
    let begun = Instant::now();
    while validator.cluster.peers() + 1 < peers.len() && begun.elapsed() < JOIN_MAX {
        std::thread::sleep(Duration::from_millis(50));
    }
    measure(&[(index, validator)], seconds, rate / peers.len() as u64);
}
