//! `assay contracts`: puts the contracts on a chain, and says where they are.

use std::path::PathBuf;

use assay_chain::{
    AddressBook, AuditTerms, Beneficiaries, Chain, ChainError, Client, Contract, DisputeTerms,
    FirstSeat, Mined, Seating, Settings, Survey, deploy, survey,
};
use assay_protocol::{Address, Key};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::data::{DataArgument, create_private, write_whole};
use crate::failure::{Exit, Failure, Outcome};
use crate::keys;
use crate::terminal::{grouped, note, say, say_json, write};

/// Longest file of settings or addresses that is read.
const FILE_MAX: u64 = 1 << 20;

/// Put the contracts on a chain, or show where they are
#[derive(Args, Debug)]
pub(crate) struct Contracts {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Deploy(Deploy),
    Status(Status),
    Settings(Template),
}

/// Which chain, and where its address book is.
#[derive(Args, Debug)]
struct On {
    /// The chain's JSON-RPC server
    #[arg(long, value_name = "URL", env = "ASSAY_RPC")]
    rpc: String,
    /// Address book to read and write [default: contracts/<chain id>.json in the data directory]
    #[arg(long, value_name = "FILE")]
    book: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Deploy what is missing, and check what stands
///
/// Addresses depend on code and settings alone. An interrupted deployment goes on where it stopped;
/// on a chain with the contracts of an older release, only new ones are added.
#[derive(Args, Debug)]
struct Deploy {
    #[command(flatten)]
    on: On,
    /// File with the key that pays: 64 hex digits, readable by its owner alone
    #[arg(long, value_name = "FILE", env = "ASSAY_KEY_FILE")]
    key: Option<PathBuf>,
    /// What the deployment decides, as `assay contracts settings` prints it; needed once per chain
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Show what would be done and what it would cost; send nothing
    #[arg(long)]
    dry_run: bool,
}

/// Show where the contracts are, and whether they stand
#[derive(Args, Debug)]
struct Status {
    #[command(flatten)]
    on: On,
}

/// Print settings to start from, with one account in every office
#[derive(Args, Debug)]
struct Template {
    /// The account
    admin: Address,
    /// Seconds between a decision of the admin and its execution
    #[arg(long, default_value_t = 172_800)]
    delay: u64,
}

impl Contracts {
    pub(crate) async fn run(self) -> Outcome {
        match self.what {
            What::Deploy(deploy) => deploy.run().await,
            What::Status(status) => status.run().await,
            What::Settings(template) => {
                template.run();
                Ok(())
            }
        }
    }
}

impl Deploy {
    async fn run(self) -> Outcome {
        let key = self.key.as_deref().map(keys::check).transpose()?;
        let client = Client::connect(&self.on.rpc, key.as_ref()).await.map_err(refused)?;
        let path = self.on.path(client.chain_id())?;
        let mut book = match read_book(&path)? {
            Some(book) => self.same_settings(book)?,
            None => AddressBook::new(client.chain_id(), client.genesis(), self.first_settings()?),
        };
        let found = survey(&client, &book).await.map_err(refused)?;
        if self.dry_run {
            return self.on.show(&client, &book, &found).await;
        }
        let key = key.ok_or_else(|| {
            Failure::new(Exit::Usage, "deploying needs a key that pays")
                .fix("pass --key FILE, or --dry-run to see what would be done")
        })?;
        afford(&client, &key, &found).await?;
        // The decision is kept before anything is sent, so that whoever resumes decides the same.
        save_book(&path, &book)?;
        let json = self.on.json;
        let done = deploy(&client, &mut book, |contract, address, mined| {
            if !json {
                say_placed(contract, address, mined);
            }
        });
        let done = done.await;
        save_book(&path, &book)?;
        done.map_err(refused)?;
        let chain = Chain::open(&self.on.rpc, book.clone(), Some(&key)).await.map_err(refused)?;
        let seating = chain.seat_arbiter().await.map_err(refused)?;
        if json {
            say_json(&json!({
                "schema": "assay.contracts/1",
                "book": path,
                "contracts": book,
                "arbiter": seating,
            }));
        } else {
            say(format_args!(
                "\nAll {} contracts stand on chain {}.",
                Contract::ALL.len(),
                book.chain_id
            ));
            say(format_args!("arbiter       {seating}"));
            say(format_args!("address book  {}", path.display()));
            if let Seating::Announced { .. } | Seating::Awaits { .. } = seating {
                note("run this again with the admin's key then: disputes need an arbiter");
            }
        }
        Ok(())
    }

    /// Settings of a chain that has no contracts yet.
    fn first_settings(&self) -> Outcome<Settings> {
        let path = self.settings.as_ref().ok_or_else(|| {
            Failure::new(Exit::Usage, "this chain has no contracts yet, so their settings must be given")
                .fix("write `assay contracts settings ADDRESS` to a file, look at it, and pass --settings FILE")
        })?;
        let text = read_text(path)?.ok_or_else(|| {
            Failure::new(Exit::NotFound, format_args!("{} is not there", path.display()))
        })?;
        serde_json::from_str(&text).map_err(|error| {
            Failure::new(Exit::Malformed, format_args!("{} holds no settings", path.display()))
                .why(error)
                .fix("start from what `assay contracts settings ADDRESS` prints")
        })
    }

    /// A chain's settings were decided once; others now would be ignored, so they are refused.
    fn same_settings(&self, book: AddressBook) -> Outcome<AddressBook> {
        if self.settings.is_some() && self.first_settings()? != book.settings {
            let what = format!("chain {} was deployed with other settings", book.chain_id);
            return Err(Failure::new(Exit::Conflict, what)
                .why("they decide addresses, and cannot be changed by deploying again")
                .fix(
                    "leave --settings out to go on, or pass another --book for a second deployment",
                ));
        }
        Ok(book)
    }
}

impl Status {
    async fn run(self) -> Outcome {
        let client = Client::connect(&self.on.rpc, None).await.map_err(refused)?;
        let path = self.on.path(client.chain_id())?;
        let book = read_book(&path)?.ok_or_else(|| {
            let what = format!("no address book of chain {}", client.chain_id());
            Failure::new(Exit::NotFound, what)
                .why(format_args!("{} is not there", path.display()))
                .fix("run `assay contracts deploy`, or pass --book FILE")
        })?;
        let found = survey(&client, &book).await.map_err(refused)?;
        self.on.show(&client, &book, &found).await
    }
}

impl Template {
    fn run(self) {
        let settings = Settings {
            admin: self.admin,
            delay: self.delay,
            treasury: self.admin,
            fee_recipient: self.admin,
            values: Default::default(),
            start: 0,
            beneficiaries: Beneficiaries::all(self.admin),
            // Read only by a chain of ours that several validators run; one must be named anywhere.
            seats: vec![FirstSeat {
                key: self.admin.into_word(),
                owner: self.admin,
                socket: "localhost:1".to_owned(),
            }],
            disputes: DisputeTerms::default(),
            audits: AuditTerms::default(),
        };
        let text = serde_json::to_string_pretty(&settings).expect("settings are plain values");
        write(&format!("{text}\n"));
    }
}

impl On {
    fn path(&self, chain_id: u64) -> Outcome<PathBuf> {
        match &self.book {
            Some(path) => Ok(path.clone()),
            None => Ok(self.data.resolve()?.contracts(chain_id)),
        }
    }

    /// Who judges disputes; none before there are such contracts.
    async fn seating(&self, book: &AddressBook, found: &Survey) -> Outcome<Option<Seating>> {
        let stands = |contract| {
            let place = found.contracts.iter().find(|place| place.contract == contract);
            book.contracts.contains_key(&contract) && place.is_some_and(|p| p.missing.is_none())
        };
        if ![Contract::Parameters, Contract::Timelock, Contract::Disputes].into_iter().all(stands) {
            return Ok(None);
        }
        let chain = Chain::open(&self.rpc, book.clone(), None).await.map_err(refused)?;
        chain.seating().await.map(Some).map_err(refused)
    }

    async fn show(&self, client: &Client, book: &AddressBook, found: &Survey) -> Outcome {
        let seating = self.seating(book, found).await?;
        if self.json {
            let contracts = found.contracts.iter().map(|place| {
                let entry = json!({ "address": place.address, "gas": place.missing, "stands": place.missing.is_none() });
                (place.contract.to_string(), entry)
            });
            say_json(&json!({
                "schema": "assay.contracts.survey/1",
                "chain_id": client.chain_id(),
                "genesis": client.genesis(),
                "settings": book.settings,
                "contracts": contracts.collect::<serde_json::Map<_, _>>(),
                "arbiter": seating,
                "gas": found.gas(),
                "cost_wei": found.cost().to_string(),
            }));
            return Ok(());
        }
        say(format_args!("chain {}  {}\n", client.chain_id(), client.genesis()));
        for place in &found.contracts {
            let state = match place.missing {
                None => "stands".to_owned(),
                Some(0) => "missing, comes with Distribution".to_owned(),
                Some(gas) => format!("missing, at most {} gas", grouped(gas)),
            };
            say(format_args!("{:<24} {}  {state}", place.contract, place.address));
        }
        match seating {
            Some(seating) => say(format_args!("\narbiter of disputes: {seating}")),
            None => say("\narbiter of disputes: none yet"),
        }
        if found.gas() > 0 {
            let coins = coins(found.cost());
            say(format_args!(
                "\nto deploy: at most {} gas, {coins} coins at the present price",
                grouped(found.gas())
            ));
        }
        Ok(())
    }
}

/// Refuses before the first transaction what would stop half-way for lack of money.
async fn afford(client: &Client, key: &Key, found: &Survey) -> Outcome {
    let held = client.balance(key.address()).await.map_err(refused)?;
    if held < found.cost() {
        let what = format!("{} cannot pay for the deployment", key.address());
        return Err(Failure::new(Exit::Failed, what)
            .why(format_args!("it holds {} coins, expected {}", coins(held), coins(found.cost())))
            .fix("send it some of the chain's coin; what stands already is not deployed again"));
    }
    Ok(())
}

fn say_placed(contract: Contract, address: Address, mined: Option<Mined>) {
    match mined {
        Some(mined) => {
            note(format_args!(
                "{contract:<24} {address}  {} gas, block {}",
                grouped(mined.gas),
                mined.block
            ));
        }
        None => note(format_args!("{contract:<24} {address}  stands")),
    }
}

/// Writes a book, with the folder it lies in.
pub(crate) fn save_book(path: &std::path::Path, book: &AddressBook) -> Outcome {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        create_private(folder)?;
    }
    let text = serde_json::to_string_pretty(book).expect("a book is plain values");
    write_whole(path, format!("{text}\n").as_bytes())
}

/// The book in a file; none if there is no such file.
pub(crate) fn read_book(path: &std::path::Path) -> Outcome<Option<AddressBook>> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        Failure::new(Exit::Malformed, format_args!("{} is not an address book", path.display()))
            .why(error)
            .fix("restore it, or move it away and deploy with the same settings: what stands is found again")
    })
}

fn read_text(path: &std::path::Path) -> Outcome<Option<String>> {
    use std::io::Read;
    let failed = |error| Failure::file(format_args!("{} cannot be read", path.display()), &error);
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    file.take(FILE_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(Some(text))
}

/// Wei as coins, to six places.
fn coins(wei: impl Into<assay_protocol::U256>) -> String {
    let micro: u128 = (wei.into() / assay_protocol::U256::from(10u64.pow(12))).saturating_to();
    format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000)
}

pub(crate) fn refused(error: ChainError) -> Failure {
    let (exit, fix) = match &error {
        ChainError::Url { .. } => (Exit::Usage, "pass --rpc http://HOST:PORT"),
        ChainError::Unreachable { .. } => {
            (Exit::Unreachable, "is the node running, and --rpc right?")
        }
        ChainError::Pending { .. } | ChainError::Busy { .. } => {
            (Exit::Timeout, "run the same command again later; it goes on where it stopped")
        }
        ChainError::OtherChain { .. } => (
            Exit::Conflict,
            "pass the --book of this chain; a development chain that began anew needs a new one",
        ),
        ChainError::NotInBook(_) => (Exit::NotFound, "run `assay contracts deploy`"),
        _ => (Exit::Failed, ""),
    };
    let failure = Failure::new(exit, error);
    if fix.is_empty() { failure } else { failure.fix(fix) }
}
