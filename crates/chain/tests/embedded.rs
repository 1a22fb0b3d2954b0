//! The suite on our own chain: made by transactions, and added to a chain that began without it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod story;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use assay_chain::{
    AddressBook, Chain, Client, Contract, DEPLOYER, Deployed, Plan, Seating, deploy,
};
use assay_evm::clock::SystemClock;
use assay_evm::producer::{self, Production};
use assay_evm::rpc::{Development, Impersonated, Limits, Module, Pages, Rpc, serve};
use assay_evm::{Call, Genesis, Node, NodeConfig};
use assay_protocol::{Address, Amount, B256, Channel, U256, keccak256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A chain of one validator that answers JSON-RPC.
struct Running {
    node: Node,
    url: String,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl Running {
    async fn start(genesis: Genesis, directory: Option<&Path>) -> Self {
        let directory = directory.map(Path::to_path_buf);
        // The story lets time pass.
        let producer =
            producer::Config { drift_max: Duration::from_secs(3_600), ..Default::default() };
        let config = NodeConfig { genesis, directory, producer, ..NodeConfig::default() };
        let node = Node::start(config, Arc::new(SystemClock)).unwrap();
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
        let rpc = Rpc::new(chain, mempool, Arc::new(SystemClock), Limits::default(), modules);
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, rpc, Pages::All, shutdown.clone()));
        Self { node, url, shutdown, serving }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.serving.await.unwrap();
        self.node.stop().await;
    }
}

/// A chain on which the story's accounts have coins.
fn genesis() -> Genesis {
    let coins = U256::from(1_000) * U256::from(story::ASY);
    Genesis::development(7777, &[0, 1, 2].map(|n| (story::key(n).address(), coins)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_lives_on_the_embedded_chain() {
    let chain = Running::start(genesis(), None).await;
    story::told(&chain.url).await;
    chain.stop().await;
}

/// What an older release knew nothing of.
const NEWS: [Contract; 12] = [
    Contract::Models,
    Contract::Tills,
    Contract::Grants,
    Contract::Specs,
    Contract::Clerk,
    Contract::VectorJudge,
    Contract::AttentionJudge,
    Contract::SamplingJudge,
    Contract::Canaries,
    Contract::Auditors,
    Contract::Productions,
    Contract::Disputes,
];

/// What stands in the genesis of an older release.
fn older() -> (Genesis, AddressBook) {
    let admin = story::key(0).address();
    let settings = story::settings(admin);
    let plan = Plan::new(&settings, &BTreeMap::new());
    let steps = plan.steps().iter().filter(|step| !NEWS.contains(&step.contract));
    let mut calls: Vec<Call> = steps
        .map(|step| Call {
            from: admin,
            to: Some(DEPLOYER),
            value: U256::ZERO,
            data: step.data.clone(),
        })
        .collect();
    let money = plan.first_money(&[(story::key(2).address(), Amount(100 * story::ASY))]);
    calls.extend(money.into_iter().map(|call| Call {
        from: admin,
        to: Some(call.to),
        value: U256::ZERO,
        data: call.data,
    }));
    let (genesis, _) = genesis().enact(&calls).unwrap();
    let mut book = AddressBook::new(7777, genesis.block().0.hash_slow(), settings);
    for contract in Contract::ALL {
        let address = plan.at(contract);
        if let Some(code) = genesis.0.alloc.get(&address).and_then(|found| found.code.as_ref()) {
            book.contracts.insert(contract, Deployed { address, code_hash: keccak256(code) });
        }
    }
    assert_eq!(book.contracts.len(), Contract::ALL.len() - NEWS.len());
    (genesis, book)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_with_open_channels_gets_later_contracts_by_governance() {
    let folder = tempfile::tempdir().unwrap();
    let (genesis, mut book) = older();
    let (admin, buyer) = (story::key(0), story::key(2));

    // The older release: a channel is opened, and the process ends.
    let running = Running::start(genesis.clone(), Some(folder.path())).await;
    let buying = Chain::open(&running.url, book.clone(), Some(&buyer)).await.unwrap();
    let channel = Channel {
        payer: buyer.address(),
        payer_authorizer: buyer.address(),
        receiver: Address::repeat_byte(9),
        receiver_authorizer: story::key(1).address(),
        token: book.get(Contract::AssayToken).unwrap(),
        withdraw_delay: 900,
        salt: B256::ZERO,
    };
    buying.deposit(&channel, Amount(40 * story::ASY)).await.unwrap();
    let id = channel.id(&buying.channels().unwrap());
    let refused = buying.models(0, 1).await.unwrap_err().to_string();
    assert!(refused.contains("has no Models"), "{refused}");
    running.stop().await;

    // The newer one: what is missing is deployed, and governance puts the arbiter into office.
    let running = Running::start(genesis.clone(), Some(folder.path())).await;
    let client = Client::connect(&running.url, Some(&admin)).await.unwrap();
    let before = book.clone();
    let mut made = Vec::new();
    deploy(&client, &mut book, |contract, _, mined| made.extend(mined.map(|_| contract)))
        .await
        .unwrap();
    assert_eq!(made, NEWS);
    for (contract, deployed) in &before.contracts {
        assert_eq!(book.contracts[contract], *deployed, "{contract} stays where it was");
    }
    let chain = Chain::open(&running.url, book.clone(), Some(&admin)).await.unwrap();
    assert_eq!(chain.arbiter().await.unwrap(), Address::ZERO);
    assert_eq!(chain.seat_arbiter().await.unwrap(), Seating::Seated);
    let newcomer = book.get(Contract::Disputes).unwrap();
    running.stop().await;

    // Everything is there after one more start, and the channel is as it was.
    let running = Running::start(genesis, Some(folder.path())).await;
    let chain = Chain::open(&running.url, book, Some(&buyer)).await.unwrap();
    assert_eq!(chain.arbiter().await.unwrap(), newcomer);
    assert!(chain.models(0, 1).await.unwrap().is_empty());
    let grant = B256::repeat_byte(5);
    assert!(!chain.is_revoked(buyer.address(), grant).await.unwrap());
    chain.revoke(&[grant]).await.unwrap();
    assert!(chain.is_revoked(buyer.address(), grant).await.unwrap());
    assert!(!chain.is_revoked(admin.address(), grant).await.unwrap());
    assert_eq!(chain.channel(id).await.unwrap().balance, Amount(40 * story::ASY));
    chain.deposit(&channel, Amount(2 * story::ASY)).await.unwrap();
    assert_eq!(chain.channel(id).await.unwrap().balance, Amount(42 * story::ASY));
    chain.start_withdrawal(&channel, Amount(42 * story::ASY)).await.unwrap();
    assert!(chain.channel(id).await.unwrap().withdrawal.is_some());
    running.stop().await;
}
