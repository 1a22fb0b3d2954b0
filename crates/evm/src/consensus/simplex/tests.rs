//! Real nodes on the loopback interface, over a chain that is nothing but headers.

use super::{Cluster, ClusterError, Patience, Position, Settings};
use super::{public_key, start, start_equivocating, verify};
use crate::consensus::{
    Application, Carried, CommitteeError, Evidence, FinalizeError, Identity, NodeKey, Peer, Seat,
};
use alloy_consensus::{EMPTY_OMMER_ROOT_HASH, EMPTY_ROOT_HASH, Header};
use alloy_primitives::{B256, Bytes};
use futures_util::stream::{self, BoxStream, StreamExt};
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::broadcast;

/// A chain of empty blocks, kept in memory. Cloning shares it, so that it outlives its node as a
/// disk would.
#[derive(Clone)]
struct Headers(Arc<Shared>);

struct Shared {
    genesis: Carried,
    /// Who sits, by epoch; the last entry holds for all later ones.
    committees: Vec<Vec<Seat>>,
    state: Mutex<State>,
    arrivals: broadcast::Sender<B256>,
}

#[derive(Default)]
struct State {
    finalized: Vec<Carried>,
    executed: HashMap<B256, u64>,
    waiting: HashMap<B256, Bytes>,
    received: Vec<Bytes>,
    accused: Vec<Evidence>,
}

fn block(parent: Option<&Carried>, mark: u64) -> Carried {
    let header = Header {
        parent_hash: parent.map_or(B256::ZERO, Carried::hash),
        number: parent.map_or(0, |parent| parent.height() + 1),
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        transactions_root: EMPTY_ROOT_HASH,
        gas_used: mark,
        ..Header::default()
    };
    let body = alloy_consensus::BlockBody::<alloy_consensus::TxEnvelope>::default();
    let encoded = alloy_consensus::Block::rlp_encoded_from_parts(&header, &body);
    Carried::decode(encoded.into()).unwrap()
}

impl Headers {
    fn new(mark: u64, committees: Vec<Vec<Seat>>) -> Self {
        let genesis = block(None, mark);
        let state = State { finalized: vec![genesis.clone()], ..State::default() };
        let arrivals = broadcast::channel(1024).0;
        Self(Arc::new(Shared { genesis, committees, state: Mutex::new(state), arrivals }))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    fn hash(&self, height: u64) -> Option<B256> {
        self.block(height).map(|block| block.hash())
    }

    /// Grows the chain without an engine.
    fn grow(&self, blocks: u64) {
        let mut state = self.state();
        for _ in 0..blocks {
            let next = block(state.finalized.last(), 1);
            state.finalized.push(next);
        }
    }

    fn add(&self, transaction: Bytes) {
        let hash = alloy_primitives::keccak256(&transaction);
        self.state().waiting.insert(hash, transaction);
        self.0.arrivals.send(hash).unwrap();
    }
}

impl Application for Headers {
    fn identity(&self) -> Identity {
        Identity { chain_id: 7, genesis: self.0.genesis.hash() }
    }

    fn genesis(&self) -> Carried {
        self.0.genesis.clone()
    }

    fn head(&self) -> (u64, B256) {
        let head = self.state().finalized.last().cloned().unwrap();
        (head.height(), head.hash())
    }

    fn block(&self, height: u64) -> Option<Carried> {
        self.state().finalized.get(usize::try_from(height).unwrap()).cloned()
    }

    fn height(&self, hash: &B256) -> Option<u64> {
        let state = self.state();
        state.finalized.iter().rev().find(|block| block.hash() == *hash).map(Carried::height)
    }

    fn knows(&self, hash: &B256) -> bool {
        let state = self.state();
        state.executed.contains_key(hash)
            || state.finalized.last().is_some_and(|head| head.hash() == *hash)
    }

    fn committee(&self, epoch: u64) -> Result<Vec<Seat>, CommitteeError> {
        let all = &self.0.committees;
        Ok(all[usize::try_from(epoch).unwrap().min(all.len() - 1)].clone())
    }

    async fn propose(&self, parent: Carried) -> Option<Carried> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let next = block(Some(&parent), parent.header().gas_used);
        self.state().executed.insert(next.hash(), next.height());
        Some(next)
    }

    async fn verify(&self, block: Carried) -> bool {
        self.state().executed.insert(block.hash(), block.height());
        true
    }

    async fn finalize(&self, blocks: Vec<Carried>) -> Result<(), FinalizeError> {
        let mut state = self.state();
        for block in blocks {
            let head = state.finalized.last().unwrap();
            if block.height() <= head.height() {
                continue;
            }
            let (height, hash) = (block.height(), block.hash());
            if block.parent() != head.hash() {
                let reason = "another parent".into();
                return Err(FinalizeError::Invalid { height, reason, hash });
            }
            state.finalized.push(block);
            state.executed.retain(|_, executed| *executed > height);
        }
        Ok(())
    }

    fn arrivals(&self) -> BoxStream<'static, B256> {
        let arrivals = self.0.arrivals.subscribe();
        stream::unfold(arrivals, |mut arrivals| async move {
            Some((arrivals.recv().await.ok()?, arrivals))
        })
        .boxed()
    }

    fn waiting(&self, hash: &B256) -> Option<Bytes> {
        self.state().waiting.get(hash).cloned()
    }

    fn receive(&self, transactions: Vec<Bytes>) {
        self.state().received.extend(transactions);
    }

    fn accuse(&self, evidence: Evidence) {
        self.state().accused.push(evidence);
    }
}

/// Keys and addresses of nodes to be.
struct Nodes {
    keys: Vec<NodeKey>,
    peers: Vec<Peer>,
    folder: tempfile::TempDir,
}

impl Nodes {
    fn new(count: u8) -> Self {
        // RUST_LOG shows what the nodes do.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let keys: Vec<_> =
            (1..=count).map(|node| NodeKey::from_secret(B256::repeat_byte(node))).collect();
        // Held together, so that no two get the same port.
        let listeners: Vec<_> =
            keys.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let peers = keys.iter().zip(&listeners).map(|(key, listener)| Peer {
            key: public_key(key).unwrap(),
            socket: listener.local_addr().unwrap().to_string(),
        });
        Self { peers: peers.collect(), keys, folder: tempfile::tempdir().unwrap() }
    }

    fn seats(&self, nodes: impl IntoIterator<Item = usize>) -> Vec<Seat> {
        nodes.into_iter().map(|node| Seat::from(self.peers[node].clone())).collect()
    }

    fn settings(&self, node: usize, epoch_length: u64) -> Settings {
        let listen: SocketAddr = self.peers[node].socket.parse().unwrap();
        Settings {
            directory: self.folder.path().join(node.to_string()),
            key: self.keys[node].clone(),
            listen,
            peers: self.peers.clone(),
            epoch_length: NonZeroU64::new(epoch_length).unwrap(),
            // A busy machine is slow, not dead.
            patience: Patience {
                leader: Duration::from_millis(1_500),
                votes: Duration::from_millis(2_500),
                repeat: Duration::from_millis(2_500),
                silence: Duration::from_secs(3),
                fetch: Duration::from_secs(1),
            },
            threads: 1,
        }
    }

    fn start(&self, node: usize, chain: &Headers, epoch_length: u64) -> Cluster {
        start(chain.clone(), self.settings(node, epoch_length)).unwrap()
    }
}

/// Waits until `chain` has `height` final blocks, and says how long that took.
#[track_caller]
fn reach(chain: &Headers, height: u64) -> Duration {
    until(&format!("height {height}"), || chain.head().0 >= height)
}

#[track_caller]
fn until(what: &str, holds: impl Fn() -> bool) -> Duration {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(180), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    started.elapsed()
}

const LONG: u64 = 1_000_000;

#[test]
fn a_validator_alone_is_a_quorum() {
    let nodes = Nodes::new(1);
    let chain = Headers::new(0, vec![nodes.seats([0])]);
    let node = nodes.start(0, &chain, 10);
    reach(&chain, 35);
    let position = *node.position().borrow();
    assert!(position.epoch >= 3 && position.seated && position.seats == 1, "{position:?}");
    node.stop().unwrap();
    let stopped_at = chain.head().0;
    let node = nodes.start(0, &chain, 10);
    reach(&chain, stopped_at + 15);
    node.stop().unwrap();
}

#[test]
fn four_agree_lose_one_and_get_it_back() {
    let nodes = Nodes::new(4);
    let seats = vec![nodes.seats(0..4)];
    let chains: Vec<_> = (0..4).map(|_| Headers::new(0, seats.clone())).collect();
    let mut running: Vec<_> =
        (0..4).map(|node| Some(nodes.start(node, &chains[node], LONG))).collect();
    chains.iter().for_each(|chain| _ = reach(chain, 20));
    running[3].take().unwrap().stop().unwrap();
    let left_at = chains[3].head().0;

    // Once its silence is noticed, a dead validator's turns cost nothing.
    let height = chains[0].head().0;
    let mut waits: Vec<_> = (1..=20).map(|more| reach(&chains[0], height + more)).collect();
    waits.sort();
    assert!(
        waits[10] < Duration::from_secs(1),
        "half of the blocks took longer than {:?}",
        waits[10]
    );

    let node = nodes.start(3, &chains[3], LONG);
    let target = chains[0].head().0 + 10;
    reach(&chains[3], target);
    assert!(chains[3].head().0 > left_at);
    for height in 0..=target {
        let expected = chains[0].hash(height);
        assert!(
            chains.iter().all(|chain| chain.hash(height).is_none_or(|hash| Some(hash) == expected))
        );
    }
    until("peers", || node.peers() == 3);
}

#[test]
fn who_joins_late_or_only_follows_gets_every_block() {
    let nodes = Nodes::new(5);
    let seats = vec![nodes.seats(0..4)];
    let chains: Vec<_> = (0..5).map(|_| Headers::new(0, seats.clone())).collect();
    // Epochs end while the two are not there.
    let _running: Vec<_> = (0..3).map(|node| nodes.start(node, &chains[node], 8)).collect();
    reach(&chains[0], 20);
    let late = nodes.start(3, &chains[3], 8);
    let follower = nodes.start(4, &chains[4], 8);
    [0, 3, 4].iter().for_each(|node| _ = reach(&chains[*node], 30));
    assert!(late.position().borrow().seated);
    assert!(!follower.position().borrow().seated);
    assert_eq!(chains[4].hash(30), chains[0].hash(30));
}

#[test]
fn what_one_grew_becomes_the_first_epochs_of_four() {
    let nodes = Nodes::new(4);
    let alone = nodes.seats([0]);
    let seats = vec![alone.clone(), alone.clone(), alone, nodes.seats(0..4)];
    let chains: Vec<_> = (0..4).map(|_| Headers::new(0, seats.clone())).collect();
    // 25 blocks without any engine: the third epoch has begun.
    chains[0].grow(25);
    let running: Vec<_> = (0..4).map(|node| nodes.start(node, &chains[node], 10)).collect();
    chains.iter().for_each(|chain| _ = reach(chain, 50));
    for (chain, node) in chains.iter().zip(&running) {
        assert_eq!(chain.hash(24), chains[0].hash(24));
        assert_eq!(chain.hash(45), chains[0].hash(45));
        let Position { epoch, seats, seated, .. } = *node.position().borrow();
        assert!(epoch >= 4 && seats == 4 && seated);
    }
}

#[test]
fn a_snapshot_at_the_end_of_an_epoch_is_a_start() {
    let nodes = Nodes::new(4);
    let seats = vec![nodes.seats(0..4)];
    let chains: Vec<_> = (0..3).map(|_| Headers::new(0, seats.clone())).collect();
    let _running: Vec<_> = (0..3).map(|node| nodes.start(node, &chains[node], 10)).collect();
    reach(&chains[0], 30);
    // What a snapshot is to this chain: the blocks up to the end of the third epoch.
    let joined = Headers::new(0, seats);
    let blocks = (1..30).map(|height| chains[0].block(height).unwrap()).collect();
    futures_util::FutureExt::now_or_never(joined.finalize(blocks)).unwrap().unwrap();
    let _node = nodes.start(3, &joined, 10);
    reach(&joined, 45);
    reach(&chains[0], 45);
    assert_eq!(joined.hash(45), chains[0].hash(45));
}

#[test]
fn who_votes_twice_is_accused() {
    let nodes = Nodes::new(4);
    let seats = vec![nodes.seats(0..4)];
    let chains: Vec<_> = (0..4).map(|_| Headers::new(0, seats.clone())).collect();
    let _honest: Vec<_> = (0..3).map(|node| nodes.start(node, &chains[node], LONG)).collect();
    let _twice = start_equivocating(chains[3].clone(), nodes.settings(3, LONG)).unwrap();
    until("an accusation", || chains[..3].iter().any(|chain| !chain.state().accused.is_empty()));
    let accused = chains.iter().flat_map(|chain| chain.state().accused.clone()).next().unwrap();
    assert_eq!(accused.key, nodes.peers[3].key);
    assert_eq!(verify(chains[0].identity(), &accused), Ok(()));
    let height = chains[0].head().0;
    reach(&chains[0], height + 20);
}

#[test]
fn another_chain_is_refused() {
    let nodes = Nodes::new(4);
    let seats = vec![nodes.seats(0..4)];
    let chains: Vec<_> =
        (0..4).map(|node| Headers::new(u64::from(node == 3), seats.clone())).collect();
    let _running: Vec<_> = (0..4).map(|node| nodes.start(node, &chains[node], LONG)).collect();
    reach(&chains[0], 30);
    assert_eq!(chains[3].head().0, 0);
}

#[test]
fn transactions_reach_everyone_once() {
    let nodes = Nodes::new(4);
    let seats = vec![nodes.seats(0..4)];
    let chains: Vec<_> = (0..4).map(|_| Headers::new(0, seats.clone())).collect();
    let running: Vec<_> = (0..4).map(|node| nodes.start(node, &chains[node], LONG)).collect();
    until("peers", || running.iter().all(|node| node.peers() == 3));
    let sent: Vec<Bytes> = (0..500_u32).map(|index| index.to_be_bytes().to_vec().into()).collect();
    sent.iter().for_each(|transaction| chains[1].add(transaction.clone()));
    for other in [0, 2, 3] {
        until("transactions", || chains[other].state().received.len() >= sent.len());
        let mut received = chains[other].state().received.clone();
        received.sort();
        assert_eq!(received, sent);
    }
    assert!(chains[1].state().received.is_empty());
}

#[test]
fn a_taken_port_is_an_error() {
    let nodes = Nodes::new(1);
    let chain = Headers::new(0, vec![nodes.seats([0])]);
    let _taken = TcpListener::bind(&nodes.peers[0].socket).unwrap();
    let error = start(chain, nodes.settings(0, 10)).unwrap_err();
    assert!(matches!(error, ClusterError::Listen { .. }), "{error}");
    assert!(!Path::new(&nodes.folder.path().join("0")).exists());
}
