//! `assay chain export` and `import`: blocks one after the other in a file, as other clients have
//! them.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::place::{Place, refused};
use crate::failure::{Exit, Failure, Outcome};
use crate::terminal::{Progress, say, say_json};

/// Write the chain's blocks to a file
#[derive(Args, Debug)]
pub(crate) struct Export {
    /// File to write
    file: PathBuf,
    #[command(flatten)]
    place: Place,
    /// First block
    #[arg(long, value_name = "N", default_value_t = 1)]
    first: u64,
    /// Last block [default: the head]
    #[arg(long, value_name = "N")]
    last: Option<u64>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Export {
    pub(crate) fn run(self) -> Outcome {
        let folder = self.place.existing()?;
        let chain = self.place.open()?;
        let last = self.last.unwrap_or(u64::MAX).min(chain.head().header.number);
        let failed = |error: std::io::Error| {
            Failure::file(format_args!("{} cannot be written", self.file.display()), &error)
        };
        let mut file = BufWriter::new(File::create(&self.file).map_err(failed)?);
        let mut progress = Progress::new();
        for number in self.first..=last {
            let block = chain.block(number).map_err(|error| refused(&folder, &error))?;
            let block = block.ok_or_else(|| {
                Failure::new(Exit::NotFound, format_args!("block {number} is no longer kept"))
                    .fix("begin with a later one: --first N")
            })?;
            file.write_all(&block.encode()).map_err(failed)?;
            progress.show("blocks", number - self.first + 1, last - self.first + 1);
        }
        let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
        file.sync_all().map_err(failed)?;
        drop(progress);
        let count = (last + 1).saturating_sub(self.first);
        if self.json {
            say_json(&json!({
                "schema": "assay.chain.export/1",
                "file": self.file,
                "blocks": count,
                "last": last,
            }));
        } else {
            say(format_args!("{count} blocks written to {}", self.file.display()));
        }
        Ok(())
    }
}

/// Take in blocks from a file, after judging each
#[derive(Args, Debug)]
pub(crate) struct Import {
    /// File to read
    file: PathBuf,
    #[command(flatten)]
    place: Place,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Import {
    pub(crate) fn run(self) -> Outcome {
        let chain = self.place.open()?;
        let failed = |error: std::io::Error| {
            Failure::file(format_args!("{} cannot be read", self.file.display()), &error)
        };
        let file = File::open(&self.file).map_err(failed)?;
        let before = chain.head().header.number;
        let mut progress = Progress::new();
        let total = file.metadata().map_err(failed)?.len();
        let mut file = BufReader::new(Counted { file, read: 0, total, progress: &mut progress });
        let added = chain.import(&mut file, |_| ControlFlow::Continue(()));
        drop(file);
        drop(progress);
        let head = chain.head();
        let added = added.map_err(|error| {
            let kept = head.header.number - before;
            Failure::new(Exit::Malformed, format_args!("{} is not taken", self.file.display()))
                .why(error)
                .fix(format_args!("the {kept} blocks before that one are kept"))
        })?;
        if self.json {
            say_json(&json!({
                "schema": "assay.chain.import/1",
                "blocks": added,
                "head": { "number": head.header.number, "hash": head.header.hash() },
            }));
        } else {
            let (number, hash) = (head.header.number, head.header.hash());
            say(format_args!("{added} blocks taken in; the head is {number}, {hash}"));
        }
        Ok(())
    }
}

/// A file that shows how far it is read.
struct Counted<'a> {
    file: File,
    read: u64,
    total: u64,
    progress: &'a mut Progress,
}

impl std::io::Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.read += count as u64;
        self.progress.show("blocks", self.read, self.total);
        Ok(count)
    }
}
