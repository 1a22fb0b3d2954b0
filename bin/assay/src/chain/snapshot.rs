//! `assay chain snapshot` and `prune`: a chain's state without its past.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::PathBuf;

use alloy_primitives::B256;
use assay_evm::Chain;
use assay_evm::state::{Store, StoreOptions};
use clap::{Args, Subcommand};
use serde_json::json;

use super::place::{Place, broken};
use crate::failure::{Failure, Outcome};
use crate::terminal::{Progress, bytes, grouped, say, say_json};

/// Save a chain's newest state, or start a chain from a saved one
#[derive(Args, Debug)]
pub(crate) struct Snapshot {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Save(Save),
    Load(Load),
}

/// Write the newest state to a file
#[derive(Args, Debug)]
struct Save {
    /// File to write
    file: PathBuf,
    #[command(flatten)]
    place: Place,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Make a chain's directory from a snapshot
#[derive(Args, Debug)]
struct Load {
    /// File to read
    file: PathBuf,
    #[command(flatten)]
    place: Place,
    /// Hash that the snapshot's block must have; without it, whoever wrote the file is believed
    #[arg(long, value_name = "HASH")]
    trusted: Option<B256>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Forget a chain's older blocks and states
#[derive(Args, Debug)]
pub(crate) struct Prune {
    #[command(flatten)]
    place: Place,
    /// Newest blocks that are kept
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    blocks: u64,
    /// Newest states that can still be rebuilt
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    states: u64,
}

impl Snapshot {
    pub(crate) fn run(self) -> Outcome {
        match self.command {
            Command::Save(save) => save.run(),
            Command::Load(load) => load.run(),
        }
    }
}

impl Save {
    fn run(self) -> Outcome {
        let store = open(&self.place)?;
        let failed = |error: std::io::Error| {
            Failure::file(format_args!("{} cannot be written", self.file.display()), &error)
        };
        let mut file = BufWriter::new(File::create(&self.file).map_err(failed)?);
        let mut shown = Shown::new();
        let head = store.export(&mut file, &mut |progress| shown.show(progress));
        let head = head.map_err(|error| broken("the snapshot is not written", &error))?;
        file.flush().map_err(failed)?;
        file.get_ref().sync_all().map_err(failed)?;
        shown.told(self.json, "assay.chain.snapshot.save/1", "saved", head.number, head.hash());
        Ok(())
    }
}

impl Load {
    fn run(self) -> Outcome {
        let folder = self.place.lasting()?;
        let failed = |error: std::io::Error| {
            Failure::file(format_args!("{} cannot be read", self.file.display()), &error)
        };
        let mut file = BufReader::new(File::open(&self.file).map_err(failed)?);
        let mut shown = Shown::new();
        let options = StoreOptions::default();
        let store = Chain::restore(&folder, &options, &mut file, self.trusted, &mut |progress| {
            shown.show(progress);
        });
        let store = store.map_err(|error| broken("the snapshot is not taken", &error))?;
        let (number, hash) = store.head().unwrap_or_default();
        shown.told(self.json, "assay.chain.snapshot.load/1", "loaded", number, hash);
        Ok(())
    }
}

impl Prune {
    pub(crate) fn run(self) -> Outcome {
        let store = open(&self.place)?;
        let pruned = store.prune(self.blocks, self.states);
        pruned.map_err(|error| broken("the chain is not pruned", &error))?;
        say(format_args!(
            "at most {} blocks and {} states are kept",
            grouped(self.blocks),
            grouped(self.states)
        ));
        Ok(())
    }
}

fn open(place: &Place) -> Outcome<Store> {
    let folder = place.existing()?;
    let options = StoreOptions { verify: false, ..StoreOptions::default() };
    Store::open(&folder, &options).map_err(|error| {
        broken(&format!("the chain in {} cannot be used", folder.display()), &error)
    })
}

/// What has been read or written.
struct Shown {
    bar: Option<Progress>,
    last: assay_evm::state::Progress,
}

impl Shown {
    fn new() -> Self {
        Self { bar: Some(Progress::new()), last: assay_evm::state::Progress::default() }
    }

    fn show(&mut self, progress: assay_evm::state::Progress) {
        self.last = progress;
        if let Some(bar) = &mut self.bar {
            // How much there will be is not known beforehand.
            bar.show("accounts", progress.accounts, 0);
        }
    }

    fn told(&mut self, json: bool, schema: &str, verb: &str, number: u64, hash: B256) {
        self.bar = None;
        let last = self.last;
        if json {
            say_json(&json!({
                "schema": schema,
                "block": { "number": number, "hash": hash },
                "accounts": last.accounts,
                "slots": last.slots,
                "bytes": last.bytes,
            }));
            return;
        }
        let (accounts, slots) = (grouped(last.accounts), grouped(last.slots));
        let size = bytes(last.bytes);
        say(format_args!(
            "{verb} block {number} {hash}: {accounts} accounts, {slots} slots, {size}"
        ));
    }
}
