//! The chain of a local network: one validator in this process, with the contracts in its genesis.
//!
//! ```text
//! <data-dir>/admin/key            who governs it, and holds the first coins and ASY
//! <data-dir>/chain/genesis.json   what it starts from; made once
//! <data-dir>/chain/               its blocks and state
//! <data-dir>/contracts/7777.json  where its contracts are
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use assay_chain::{
    AddressBook, Beneficiaries, Contract, DEPLOYER, Deployed, FirstSeat, Plan, Settings, Value,
};
use assay_evm::clock::SystemClock;
use assay_evm::producer::{self, Production};
use assay_evm::rpc::{Limits, Pages, Rpc, serve};
use assay_evm::{Call, Genesis, Node, NodeConfig};
use assay_protocol::{Address, Amount, B256, Key, LOCAL_CHAIN, U256, keccak256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::chain::place;
use crate::contracts::{read_book, save_book};
use crate::data::{Data, create_private, write_whole};
use crate::failure::{Exit, Failure, Outcome};
use crate::keys;

/// 10^18: base units of ASY, and wei of the chain's coin.
const WHOLE: u128 = 1_000_000_000_000_000_000;
/// Coins, for gas, that the admin begins with; each participant begins with a thousandth.
const COINS: u128 = 1_000_000;
/// ASY that each participant begins with.
const ASY: Amount = Amount(100_000 * WHOLE);
/// Waits that take days where strangers' money is at stake take moments here, in seconds.
const MOMENTS: [(Value, u64); 4] = [
    (Value::DisputeWindow, 30),
    (Value::CoverWindow, 120),
    (Value::UnbondingDelay, 60),
    (Value::JailTime, 30),
];

/// A running chain.
pub(crate) struct Embedded {
    /// Where it answers JSON-RPC.
    pub(crate) rpc: SocketAddr,
    /// Where its contracts are.
    pub(crate) book: AddressBook,
    node: Node,
    serving: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Embedded {
    /// Starts the chain of a data directory, and makes it first if there is none yet; `participants`
    /// begin with coins and ASY then.
    pub(crate) async fn start(
        data: &Data,
        participants: &[Address],
        listener: TcpListener,
    ) -> Outcome<Self> {
        let rpc = listener
            .local_addr()
            .map_err(|error| Failure::new(Exit::Failed, "the chain's address").why(error))?;
        let folder = data.chain();
        create_private(&folder)?;
        let (genesis, book) = begin(data, participants)?;
        let config = NodeConfig {
            genesis,
            directory: Some(folder.clone()),
            producer: producer::Config {
                production: Production::OnDemand,
                ..producer::Config::default()
            },
            ..NodeConfig::default()
        };
        let runtime = tokio::runtime::Handle::current();
        let node = tokio::task::spawn_blocking(move || {
            let _inside = runtime.enter();
            Node::start(config, Arc::new(SystemClock))
        });
        let node = node
            .await
            .map_err(|panic| Failure::new(Exit::Failed, "the chain's start broke").why(panic))?
            .map_err(|error| place::unstarted(Some(&folder), &error))?;
        let (chain, mempool) = (Arc::clone(node.chain()), Arc::clone(node.mempool()));
        let answers =
            Rpc::new(chain, mempool, Arc::new(SystemClock), Limits::default(), Vec::new());
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, answers, Pages::All, shutdown.clone()));
        Ok(Self { rpc, book, node, serving, shutdown })
    }

    /// Where it answers, as clients write it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.rpc)
    }

    /// Stops answering, then stops making blocks. What was acknowledged is on disk.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        // That it failed has been logged.
        let _ = self.serving.await;
        self.node.stop().await;
    }
}

/// The genesis and the address book; both are made once and kept, the book last.
fn begin(data: &Data, participants: &[Address]) -> Outcome<(Genesis, AddressBook)> {
    let (file, book_file) = (data.chain().join("genesis.json"), data.contracts(LOCAL_CHAIN.0));
    if let (Some(genesis), Some(book)) = (read_genesis(&file)?, read_book(&book_file)?) {
        let found = genesis.block().0.hash_slow();
        if book.genesis != found {
            let what =
                format!("{} is of another chain than {}", book_file.display(), file.display());
            return Err(Failure::new(Exit::Conflict, what)
                .why(format_args!("its genesis is {}, expected {found}", book.genesis))
                .fix(
                    "move the book away, or restore the one that belongs to this data directory",
                ));
        }
        return Ok((genesis, book));
    }
    let admin = keys::load_or_create(&data.admin())?;
    // Whatever an interrupted first start left is made anew, unless blocks stand on it.
    let genesis = match read_genesis(&file)? {
        Some(genesis) => genesis,
        None => {
            let genesis = first(&admin, participants)?;
            let text = serde_json::to_vec_pretty(&genesis.0).expect("a genesis is plain values");
            write_whole(&file, &text)?;
            genesis
        }
    };
    let book = book_of(&genesis, settings(admin.address(), genesis.0.timestamp));
    save_book(&book_file, &book)?;
    Ok((genesis, book))
}

/// A genesis in which the contracts stand where a deployment with the same settings would put them.
fn first(admin: &Key, participants: &[Address]) -> Outcome<Genesis> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let coins = |share: u128| U256::from(COINS / share) * U256::from(WHOLE);
    let mut funded = vec![(admin.address(), coins(1))];
    funded.extend(participants.iter().map(|account| (*account, coins(1_000))));
    let mut genesis = Genesis::development(LOCAL_CHAIN.0, &funded);
    genesis.0.timestamp = now;

    let plan = Plan::new(&settings(admin.address(), now), &BTreeMap::new());
    let shares: Vec<_> = participants.iter().map(|account| (*account, ASY)).collect();
    let deployed = plan.steps().iter().map(|step| (DEPLOYER, step.data.clone()));
    let money = plan.first_money(&shares).into_iter().map(|call| (call.to, call.data));
    let calls: Vec<Call> = deployed
        .chain(money)
        .map(|(to, data)| Call { from: admin.address(), to: Some(to), value: U256::ZERO, data })
        .collect();
    let (genesis, _) = genesis.enact(&calls).map_err(|error| {
        Failure::new(Exit::Failed, "the contracts do not stand in a genesis").why(error)
    })?;
    Ok(genesis)
}

fn settings(admin: Address, start: u64) -> Settings {
    Settings {
        admin,
        delay: 0,
        treasury: admin,
        fee_recipient: admin,
        values: MOMENTS.map(|(value, seconds)| (value, U256::from(seconds))).into(),
        start,
        beneficiaries: Beneficiaries::all(admin),
        // The chain has one validator that nobody has to agree with.
        seats: vec![FirstSeat {
            key: admin.into_word(),
            owner: admin,
            socket: "localhost:1".to_owned(),
        }],
    }
}

/// What stands in a genesis that [`first`] made.
fn book_of(genesis: &Genesis, settings: Settings) -> AddressBook {
    let plan = Plan::new(&settings, &BTreeMap::new());
    let code =
        |address: &Address| genesis.0.alloc.get(address).and_then(|account| account.code.clone());
    let standing = Contract::ALL.into_iter().filter_map(|contract| {
        let address = plan.at(contract);
        let code_hash: B256 = keccak256(code(&address)?);
        Some((contract, Deployed { address, code_hash }))
    });
    let mut book = AddressBook::new(LOCAL_CHAIN.0, genesis.block().0.hash_slow(), settings);
    book.contracts = standing.collect();
    book
}

fn read_genesis(path: &Path) -> Outcome<Option<Genesis>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Failure::file(format_args!("{} cannot be read", path.display()), &error));
        }
    };
    Genesis::from_json(&text).map(Some).map_err(|error| {
        Failure::new(Exit::Malformed, format_args!("{} is no genesis", path.display()))
            .why(error)
            .fix("restore it from a backup, or move the folder `chain` away to begin a new chain")
    })
}
