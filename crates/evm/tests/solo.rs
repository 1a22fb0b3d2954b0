//! A node with one validator: blocks on demand and at intervals, waiting transactions that survive,
//! clocks that jump, and what developers ask for.
#![allow(clippy::unwrap_used, reason = "a failed test says where")]

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use alloy_consensus::{Transaction as _, TxEip1559};
use alloy_eips::Encodable2718;
use alloy_primitives::{Address, B256, TxKind, U256};
use assay_evm::clock::{StillClock, SystemClock};
use assay_evm::keystore::{Signer, mnemonic};
use assay_evm::producer::{self, Producer, ProducerError, Production};
use assay_evm::state::{Account, AccountChange, Changes};
use assay_evm::{Chain, Genesis, Node, NodeConfig};

const CHAIN: u64 = 31_337;
const ETHER: u128 = 1_000_000_000_000_000_000;
const NOW: u64 = 1_800_000_000;

fn signers() -> &'static [Signer] {
    static SIGNERS: LazyLock<Vec<Signer>> =
        LazyLock::new(|| mnemonic::accounts(mnemonic::DEVELOPMENT, 3));
    &SIGNERS
}

fn config(directory: Option<&Path>, production: Production) -> NodeConfig {
    let funded: Vec<_> =
        signers().iter().map(|signer| (signer.address(), U256::from(100 * ETHER))).collect();
    NodeConfig {
        genesis: Genesis::development(CHAIN, &funded),
        directory: directory.map(Path::to_owned),
        producer: producer::Config { production, ..Default::default() },
        ..Default::default()
    }
}

fn start(production: Production) -> (Node, Arc<StillClock>) {
    let clock = Arc::new(StillClock::at(NOW));
    (Node::start(config(None, production), clock.clone()).unwrap(), clock)
}

fn transfer(signer: &Signer, nonce: u64, to: Address) -> Vec<u8> {
    let draft = TxEip1559 {
        chain_id: CHAIN,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 10_000_000_000,
        max_priority_fee_per_gas: 1,
        to: TxKind::Call(to),
        value: U256::from(5),
        ..Default::default()
    };
    signer.sign_transaction(draft).encoded_2718()
}

/// Waits, with a bound, until the chain has done what `done` looks for.
async fn until(chain: &Chain, done: impl Fn(&Chain) -> bool) {
    let begun = Instant::now();
    while !done(chain) {
        assert!(begun.elapsed() < Duration::from_secs(20), "it never came to be");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn number(chain: &Chain) -> u64 {
    chain.head().header.number
}

fn balance(chain: &Chain, address: Address) -> U256 {
    chain.head().state.account(&address).unwrap_or_default().balance
}

/// Asks the producer from a thread that may block.
async fn ask<T: Send + 'static>(
    node: &Node,
    ask: impl FnOnce(&Producer) -> Result<T, ProducerError> + Send + 'static,
) -> Result<T, ProducerError> {
    let producer = node.producer().clone();
    tokio::task::spawn_blocking(move || ask(&producer)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_gets_a_block_at_once_and_silence_gets_none() {
    let (node, _) = start(Production::OnDemand);
    let to = Address::repeat_byte(9);
    let hash = node.mempool().add_raw(&transfer(&signers()[0], 0, to)).unwrap();
    until(node.chain(), |chain| number(chain) == 1).await;
    assert_eq!(balance(node.chain(), to), U256::from(5));
    let (block, index) = node.chain().transaction(&hash).unwrap().unwrap();
    assert_eq!((block.number(), index, block.header.timestamp), (1, 0, NOW));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(number(node.chain()), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_goes_into_one_block() {
    let (node, _) = start(Production::OnCall);
    let signers = signers();
    for signer in signers {
        for nonce in 0..50 {
            node.mempool().add_raw(&transfer(signer, nonce, Address::ZERO)).unwrap();
        }
    }
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert_eq!(number(node.chain()), 0, "nobody has called yet");
    ask(&node, |producer| producer.mine(1, 0)).await.unwrap();
    let block = node.chain().block(1).unwrap().unwrap();
    assert_eq!(block.transactions.len(), 150);
    assert_eq!(node.mempool().status().pending, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interval_is_kept_and_idle_blocks_come_when_asked_for() {
    let interval = Duration::from_millis(200);
    let mut config = config(None, Production::Every(interval));
    config.producer.idle = Some(Duration::from_secs(2));
    let node = Node::start(config, Arc::new(SystemClock)).unwrap();
    let begun = Instant::now();
    for nonce in 0..2 {
        node.mempool().add_raw(&transfer(&signers()[0], nonce, Address::ZERO)).unwrap();
        until(node.chain(), |chain| number(chain) == nonce + 1).await;
    }
    assert!(begun.elapsed() >= 2 * interval, "{:?}", begun.elapsed());
    let begun = Instant::now();
    until(node.chain(), |chain| number(chain) == 3).await;
    assert!(begun.elapsed() >= Duration::from_millis(1900), "{:?}", begun.elapsed());
    let block = node.chain().block(3).unwrap().unwrap();
    assert_eq!(block.transactions.len(), 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_never_turns_the_chain_back() {
    let (node, clock) = start(Production::OnCall);
    let mut times = Vec::new();
    for now in [NOW, NOW + 5, NOW - 100_000, 0, NOW - 7, NOW + 1_000_000, NOW + 8] {
        clock.set(now);
        ask(&node, |producer| producer.mine(1, 0)).await.unwrap();
        times.push(node.chain().head().header.timestamp);
    }
    let later = NOW + 1_000_000;
    assert_eq!(times, [NOW, NOW + 5, NOW + 6, NOW + 7, NOW + 8, later, later + 1]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn time_is_what_developers_say() {
    let (node, clock) = start(Production::OnCall);
    let mine = || ask(&node, |producer| producer.mine(1, 0));
    assert_eq!(ask(&node, |producer| producer.advance(3600)).await.unwrap(), 3600);
    mine().await.unwrap();
    assert_eq!(node.chain().head().header.timestamp, NOW + 3600);
    ask(&node, |producer| producer.set_next_timestamp(NOW + 10_000)).await.unwrap();
    mine().await.unwrap();
    clock.set(NOW + 3);
    mine().await.unwrap();
    assert_eq!(node.chain().head().header.timestamp, NOW + 10_003);
    let refused = ask(&node, |producer| producer.set_next_timestamp(NOW)).await.unwrap_err();
    assert!(matches!(refused, ProducerError::Timestamp { .. }), "{refused}");
    ask(&node, |producer| producer.mine(3, 60)).await.unwrap();
    assert_eq!(node.chain().head().header.timestamp, NOW + 10_004 + 120);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_state_has_its_true_root_and_can_be_taken_back() {
    let (node, _) = start(Production::OnDemand);
    let rich = Address::repeat_byte(7);
    let account = Some(Account { balance: U256::from(ETHER), ..Account::default() });
    let slots = [(U256::from(1), U256::from(2))].into();
    let change = AccountChange { account, wiped: false, slots };
    let changes = Changes { accounts: [(rich, change)].into(), ..Changes::default() };
    ask(&node, move |producer| producer.edit(changes)).await.unwrap();
    let head = node.chain().head();
    assert_eq!((head.header.number, head.header.state_root), (1, head.state.root()));
    assert_eq!(balance(node.chain(), rich), U256::from(ETHER));
    assert_eq!(head.state.slot(&rich, U256::from(1)), U256::from(2));
    node.mempool().add_raw(&transfer(&signers()[0], 0, rich)).unwrap();
    until(node.chain(), |chain| number(chain) == 2).await;
    assert_eq!(balance(node.chain(), rich), U256::from(ETHER + 5));
    ask(&node, |producer| producer.rewind(0)).await.unwrap();
    assert_eq!((number(node.chain()), balance(node.chain(), rich)), (0, U256::ZERO));
    // The nonce is free again.
    node.mempool().add_raw(&transfer(&signers()[0], 0, rich)).unwrap();
    until(node.chain(), |chain| number(chain) == 1).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_far_larger_than_a_block_is_worked_off_in_order() {
    let mut config = config(None, Production::OnDemand);
    config.genesis.0.gas_limit = 1_000_000;
    config.producer.gas_limit = 1_000_000;
    let node = Node::start(config, Arc::new(SystemClock)).unwrap();
    let raw: Vec<_> = (0..200).map(|nonce| transfer(&signers()[0], nonce, Address::ZERO)).collect();
    for raw in raw.iter().rev() {
        node.mempool().add_raw(raw).unwrap();
    }
    until(node.chain(), |chain| {
        chain.head().state.account(&signers()[0].address()).unwrap().nonce == 200
    })
    .await;
    let mut nonces = Vec::new();
    for number in 1..=number(node.chain()) {
        let block = node.chain().block(number).unwrap().unwrap();
        assert!(block.transactions.len() <= 47, "a block has room for 47");
        nonces.extend(block.transactions.iter().map(|transaction| transaction.nonce()));
    }
    assert_eq!(nonces, (0..200).collect::<Vec<_>>());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_survives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let config = config(Some(folder.path()), Production::OnCall);
        Node::start(config, Arc::new(SystemClock)).unwrap()
    };
    let node = start();
    let hash: B256 = node.mempool().add_raw(&transfer(&signers()[0], 0, Address::ZERO)).unwrap();
    let later = node.mempool().add_raw(&transfer(&signers()[0], 2, Address::ZERO)).unwrap();
    node.stop().await;
    let node = start();
    assert!(node.mempool().contains(&hash) && node.mempool().contains(&later));
    node.stop().await;
}
