//! The chain of a local network: one validator in this process, with the contracts in its genesis.
//!
//! ```text
//! <data-dir>/admin/key            who governs it, and holds the first coins and ASY
//! <data-dir>/chain/genesis.json   what it starts from; made once
//! <data-dir>/chain/validator.key  who votes on it
//! <data-dir>/chain/               its blocks and state
//! <data-dir>/contracts/7777.json  where its contracts are
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use assay_chain::{
    AddressBook, AuditTerms, Beneficiaries, Chain, Client, Contract, DEPLOYER, Deployed,
    DisputeTerms, FirstSeat, Plan, Seating, Settings, Value, deploy,
};
use assay_evm::clock::SystemClock;
use assay_evm::consensus::simplex::verifier;
use assay_evm::producer::{self, Production};
use assay_evm::rpc::{Limits, Pages, Rpc, serve};
use assay_evm::{Call, Genesis, Node, NodeConfig};
use assay_protocol::{Address, Amount, Key, LOCAL_CHAIN, U256, keccak256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::chain::{cluster::load_or_create, place};
use crate::contracts::{read_book, save_book};
use crate::data::{Data, create_private, write_whole};
use crate::failure::{Exit, Failure, Outcome};
use crate::keys;
use crate::ledger::WHOLE;
use crate::terminal::note;
use crate::x402;

/// Coins, for gas, that the admin begins with; each participant begins with a thousandth.
const COINS: u128 = 1_000_000;
/// An empty block is made after so long without another: windows end by the time of blocks.
const IDLE: Duration = Duration::from_secs(15);
/// ASY that each participant begins with.
const ASY: Amount = Amount(100_000 * WHOLE);
/// Waits that take days where strangers' money is at stake take moments here, in seconds.
const MOMENTS: [(Value, u64); 4] = [
    // Longer than a dispute in which one side uses up its clock: what it is about is not paid out meanwhile.
    (Value::DisputeWindow, 150),
    (Value::CoverWindow, 300),
    // Longer than a dispute that was opened in the last moment.
    (Value::UnbondingDelay, 300),
    (Value::JailTime, 30),
];
/// Each move of a dispute takes a block, and blocks made in a hurry run ahead of the clock, a second each:
/// a slow but honest provider gets through its dozen moves in a minute.
const DISPUTES: DisputeTerms = DisputeTerms { bond: Amount(100 * WHOLE), clock: 60 };
/// Every posted receipt is drawn here. Five epochs are below the dispute window of [`MOMENTS`].
const AUDITS: AuditTerms = AuditTerms {
    bond: Amount(1_000 * WHOLE),
    epoch: 10,
    rate: 10_000,
    fee: Amount(WHOLE / 1_000),
    fees_most: 1_000,
    production_bond: Amount(WHOLE),
    production_clock: 20,
};

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
            precompiles: vec![verifier(&genesis)],
            genesis,
            directory: Some(folder.clone()),
            producer: producer::Config {
                production: Production::OnDemand,
                idle: Some(IDLE),
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
        let mut embedded = Self { rpc, book, node, serving, shutdown };
        embedded.complete(data).await?;
        embedded.equip(data, participants).await?;
        Ok(embedded)
    }

    /// Deploys the contracts that this release has and the one which made the chain had not, and has
    /// disputes judged.
    async fn complete(&mut self, data: &Data) -> Outcome {
        let admin = keys::load_or_create(&data.admin())?;
        let failed = |error| {
            Failure::new(Exit::Failed, "the contracts of this release cannot be added").why(error)
        };
        if !Contract::ALL.iter().all(|contract| self.book.contracts.contains_key(contract)) {
            self.add(&admin, data).await?;
        }
        match self.open(&admin).await?.seat_arbiter().await.map_err(failed)? {
            Seating::Seated => {}
            other => note(format_args!("disputes are judged by {other}")),
        }
        Ok(())
    }

    /// Deploys what is missing.
    async fn add(&mut self, admin: &Key, data: &Data) -> Outcome {
        let failed = |error| {
            Failure::new(Exit::Failed, "the contracts of this release cannot be added").why(error)
        };
        if !self.book.contracts.contains_key(&Contract::Disputes) {
            // The book of a release without disputes says nothing of them.
            (self.book.settings.disputes, self.book.settings.audits) = (DISPUTES, AUDITS);
        }
        let client = Client::connect(&self.url(), Some(admin)).await.map_err(failed)?;
        let added = |contract: Contract, _, mined: Option<_>| {
            if mined.is_some() {
                note(format_args!("{contract} is new in this release, and stands now"));
            }
        };
        deploy(&client, &mut self.book, added).await.map_err(failed)?;
        save_book(&data.contracts(LOCAL_CHAIN.0), &self.book)
    }

    /// Gives participants who came after the genesis what the others began with.
    async fn equip(&self, data: &Data, participants: &[Address]) -> Outcome {
        let head = self.node.chain().head();
        // Who has spent all it had has a history.
        let late: Vec<_> =
            participants.iter().filter(|one| head.state.account(one).is_none()).collect();
        if late.is_empty() {
            return Ok(());
        }
        let failed =
            |error| Failure::new(Exit::Failed, "a new participant gets no coins").why(error);
        let chain = self.open(&keys::load_or_create(&data.admin())?).await?;
        for account in late {
            chain.send_asy(*account, ASY).await.map_err(failed)?;
            chain.client().send_coins(*account, coins(1_000)).await.map_err(failed)?;
        }
        Ok(())
    }

    /// A way to the contracts for the account of `key`.
    pub(crate) async fn open(&self, key: &Key) -> Outcome<Chain> {
        let chain = Chain::open(&self.url(), self.book.clone(), Some(key)).await;
        chain.map_err(|error| Failure::new(Exit::Failed, "the chain cannot be used").why(error))
    }

    /// Where it answers, as clients write it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.rpc)
    }

    /// Waits for the server to end, which it does not by itself.
    pub(crate) async fn failed(&mut self) -> Failure {
        let why = match (&mut self.serving).await {
            Ok(()) => "its server ended although nobody asked it to".to_owned(),
            Err(panic) => panic.to_string(),
        };
        Failure::new(Exit::Failed, "the chain broke").why(why)
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
    match (read_genesis(&file)?, read_book(&book_file)?) {
        (Some(genesis), Some(book)) => {
            let found = genesis.block().0.hash_slow();
            if book.genesis == found {
                return Ok((genesis, book));
            }
            let what =
                format!("{} is of another chain than {}", book_file.display(), file.display());
            Err(Failure::new(Exit::Conflict, what)
                .why(format_args!("its genesis is {}, expected {found}", book.genesis))
                .fix("move the book away, or restore the one that belongs to this data directory"))
        }
        // An interrupted first start, or a lost book: the genesis says where everything stands.
        (Some(genesis), None) => {
            let book = book_of(&genesis, settings(data, genesis.0.timestamp)?)?;
            save_book(&book_file, &book)?;
            Ok((genesis, book))
        }
        (None, None) if !data.chain().join("chain.redb").exists() => {
            let genesis = first(data, participants)?;
            let text = serde_json::to_vec_pretty(&genesis.0).expect("a genesis is plain values");
            write_whole(&file, &text)?;
            begin(data, participants)
        }
        (None, _) => {
            let what = format!("{} is missing, and a chain was made of it", file.display());
            Err(Failure::new(Exit::NotFound, what).fix(format_args!(
                "restore it from a backup; to begin a new chain, move {} and {} away",
                data.chain().display(),
                book_file.display(),
            )))
        }
    }
}

/// A genesis in which the contracts stand where a deployment with the same settings would put them.
fn first(data: &Data, participants: &[Address]) -> Outcome<Genesis> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let settings = settings(data, now)?;
    let admin = settings.admin;
    let mut funded = vec![(admin, coins(1))];
    funded.extend(participants.iter().map(|account| (*account, coins(1_000))));
    let mut genesis = Genesis::development(LOCAL_CHAIN.0, &funded);
    genesis.0.timestamp = now;

    let plan = Plan::new(&settings, &BTreeMap::new());
    let shares: Vec<_> = participants.iter().map(|account| (*account, ASY)).collect();
    let deployed = plan.steps().iter().map(|step| (DEPLOYER, step.data.clone()));
    let money = plan.first_money(&shares).into_iter().map(|call| (call.to, call.data));
    let offices = plan.first_offices().into_iter().map(|call| (call.to, call.data));
    let calls: Vec<Call> = deployed
        .chain(money)
        .chain(offices)
        .map(|(to, data)| Call { from: admin, to: Some(to), value: U256::ZERO, data })
        .collect();
    let (mut genesis, _) = genesis.enact(&calls).map_err(|error| {
        Failure::new(Exit::Failed, "the contracts do not stand in a genesis").why(error)
    })?;
    let (channels, collector) = (Contract::Channels, Contract::Erc3009DepositCollector);
    x402::place(&mut genesis, plan.at(channels), plan.at(collector));
    Ok(genesis)
}

/// A share of the admin's first coins, in wei.
fn coins(share: u128) -> U256 {
    U256::from(COINS / share) * U256::from(WHOLE)
}

/// What the deployment decides: this machine's admin holds every office, its validator the only seat.
fn settings(data: &Data, start: u64) -> Outcome<Settings> {
    let admin = keys::load_or_create(&data.admin())?.address();
    let key = load_or_create(&data.chain().join("validator.key"))?;
    Ok(Settings {
        admin,
        delay: 0,
        treasury: admin,
        fee_recipient: admin,
        values: MOMENTS.map(|(value, seconds)| (value, U256::from(seconds))).into(),
        start,
        beneficiaries: Beneficiaries::all(admin),
        seats: vec![FirstSeat { key, owner: admin, socket: "localhost:1".to_owned() }],
        disputes: DISPUTES,
        audits: AUDITS,
    })
}

/// What stands in a genesis that [`first`] made.
fn book_of(genesis: &Genesis, settings: Settings) -> Outcome<AddressBook> {
    let plan = Plan::new(&settings, &BTreeMap::new());
    let mut book = AddressBook::new(LOCAL_CHAIN.0, genesis.block().0.hash_slow(), settings);
    for contract in Contract::ALL {
        let address = plan.at(contract);
        let account = genesis.0.alloc.get(&address);
        let Some(code) = account.and_then(|account| account.code.as_ref()) else {
            // New in this release, if others stand.
            continue;
        };
        book.contracts.insert(contract, Deployed { address, code_hash: keccak256(code) });
    }
    if book.contracts.is_empty() {
        return Err(Failure::new(
            Exit::Conflict,
            "the address book of the local chain cannot be made anew",
        )
        .why("no contract stands where this key and release would put it")
        .fix("restore the book, or the key that made this chain"));
    }
    Ok(book)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DataArgument;

    /// A chain as the release before grants and disputes would have made it: its book knows no terms of
    /// disputes, and nobody is the arbiter.
    fn older(data: &Data) {
        create_private(&data.chain()).unwrap();
        let genesis = first(data, &[]).unwrap();
        let settings = settings(data, genesis.0.timestamp).unwrap();
        let settings = Settings { disputes: DisputeTerms::default(), ..settings };
        let mut book = book_of(&genesis, settings).unwrap();
        let known = |contract: Contract| contract < Contract::Grants;
        book.contracts.retain(|contract, _| known(*contract));
        let plan = Plan::new(&book.settings, &BTreeMap::new());
        let steps = plan.steps().iter().filter(|step| known(step.contract));
        let calls: Vec<Call> = steps
            .map(|step| (DEPLOYER, step.data.clone()))
            .chain(plan.first_money(&[]).into_iter().map(|call| (call.to, call.data)))
            .map(|(to, data)| Call {
                from: book.settings.admin,
                to: Some(to),
                value: U256::ZERO,
                data,
            })
            .collect();
        let mut bare = Genesis::development(LOCAL_CHAIN.0, &[(book.settings.admin, coins(1))]);
        bare.0.timestamp = genesis.0.timestamp;
        let (genesis, _) = bare.enact(&calls).unwrap();
        book.genesis = genesis.block().0.hash_slow();
        let text = serde_json::to_vec(&genesis.0).unwrap();
        write_whole(&data.chain().join("genesis.json"), &text).unwrap();
        save_book(&data.contracts(LOCAL_CHAIN.0), &book).unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_chain_of_an_older_release_gets_what_is_new() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataArgument::at(folder.path()).resolve().unwrap();
        older(&data);
        for _ in 0..2 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let embedded = Embedded::start(&data, &[], listener).await.unwrap();
            assert_eq!(embedded.book.contracts.len(), Contract::ALL.len());
            let chain = Chain::open(&embedded.url(), embedded.book.clone(), None).await.unwrap();
            let nobody = Address::ZERO;
            assert!(!chain.is_revoked(nobody, Default::default()).await.unwrap());
            assert_eq!(chain.seating().await.unwrap(), Seating::Seated);
            embedded.stop().await;
        }
        let kept = read_book(&data.contracts(LOCAL_CHAIN.0)).unwrap().unwrap();
        assert!(kept.contracts.contains_key(&Contract::Grants));
        assert_eq!(kept.settings.disputes, DISPUTES);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_new_chain_begins_with_an_arbiter() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataArgument::at(folder.path()).resolve().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let embedded = Embedded::start(&data, &[], listener).await.unwrap();
        let chain = Chain::open(&embedded.url(), embedded.book.clone(), None).await.unwrap();
        assert_eq!(chain.height().await.unwrap(), 0);
        assert_eq!(chain.seating().await.unwrap(), Seating::Seated);
        embedded.stop().await;
    }
}
