//! `assay validate`: audit what providers post, dispute what is false, and be paid for it.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use assay_chain::{AuditTerms, Chain};
use assay_engine::Loaded;
use assay_protocol::{Address, Amount, ModelId};
use assay_validator::{AuditError, Auditing, Auditor, Config, Happening, Shelf, Totals};
use clap::Args;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::data::{Data, create_private};
use crate::failure::{Exit, Failure, Outcome};
use crate::keys;
use crate::ledger::{ChainArgument, failed, parse_units, units};
use crate::library::{self, Library};
use crate::machine::ThreadsArgument;
use crate::signals::Signals;
use crate::terminal::{Colour, coloured, note, say, say_json, stdout_has_colour};

/// Looks at the chain in one epoch, and between which times.
const LOOKS: u32 = 10;
const LOOK_EVERY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// Longest wait for a provider's answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Between two looks at the chain while a disputed provider owes a move.
const DISPUTE_LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long the chain may be out of reach in a dispute.
const PATIENCE: Duration = Duration::from_secs(60);
/// Models held in memory.
const MODELS_MAX: usize = 2;

/// Audit posted receipts: check what chance draws, dispute what is false
///
/// Commits to a part of each epoch's beacon and reveals it. What the beacon draws for this auditor it has
/// shown by the provider, and computes again with the models of the data directory; whoever hides an answer
/// is asked on the chain, where silence costs the stake; false receipts are disputed to the end. Right
/// verdicts are paid; other auditors that are silent, or call false receipts true, are fined. What must not be forgotten is on disk: run it again after a crash, soon.
#[derive(Args, Debug)]
pub(crate) struct Validate {
    /// Put in so much ASY first; with the deployment's bond in, an auditor takes part
    #[arg(long, value_name = "ASY", value_parser = parse_units)]
    join: Option<Amount>,
    /// Take no part any more; when the time is over, the same command takes the stake out
    #[arg(long, conflicts_with_all = ["join", "once", "status"])]
    leave: bool,
    /// Take part in one beacon, see to all that it draws, and end
    #[arg(long)]
    once: bool,
    /// Show how this auditor stands, and end
    #[arg(long, conflicts_with_all = ["join", "once"])]
    status: bool,
    /// File with the auditor's key [default: that of the data directory's validator]
    #[arg(long, value_name = "FILE", env = "ASSAY_KEY_FILE")]
    key: Option<PathBuf>,
    #[command(flatten)]
    chain: ChainArgument,
    #[command(flatten)]
    threads: ThreadsArgument,
    /// Print JSON documents, one a line
    #[arg(long)]
    json: bool,
}

impl Validate {
    pub(crate) fn run(self) -> Outcome<ExitCode> {
        let data = self.chain.data()?;
        let key = match &self.key {
            Some(path) => keys::check(path)?,
            None => keys::check(&data.validator().join("key"))?,
        };
        let runtime = Runtime::new().map_err(|error| {
            Failure::new(Exit::Failed, "the system gives no threads").why(error)
        })?;
        let chain = runtime.block_on(self.chain.open(Some(&key)))?;
        let account = key.address();
        let folder = folder(&data, &chain, account);
        if self.leave {
            return runtime.block_on(leave(&chain, account)).map(|()| ExitCode::SUCCESS);
        }
        if let Some(amount) = self.join {
            runtime.block_on(chain.join_auditors(amount)).map_err(failed)?;
        }
        let status = runtime.block_on(Status::look(&chain, account, &folder))?;
        status.tell(self.json);
        if self.status {
            return Ok(ExitCode::SUCCESS);
        }
        status.require_bond()?;
        create_private(&folder)?;
        let _lock = lock(&folder)?;
        let cpu = Arc::new(self.threads.cpu()?);
        let shelf = Arc::new(Models::new(Library::of(&data)));
        let auditing = auditing(&status.terms, self.once);
        let auditor =
            Auditor { chain: chain.clone(), key, folder: folder.clone(), shelf, cpu, auditing };
        runtime.block_on(audit(auditor, self.json))?;
        runtime.block_on(Status::look(&chain, account, &folder))?.tell(self.json);
        Ok(ExitCode::SUCCESS)
    }
}

/// Audits until it is over, or a signal ends it.
async fn audit(auditor: Auditor, json: bool) -> Outcome<Totals> {
    let mut signals = Signals::listen()?;
    let stop = CancellationToken::new();
    let told = move |happening: Happening| match json {
        // That an epoch went as all do is a detail.
        _ if matches!(happening, Happening::Committed { .. } | Happening::Revealed { .. }) => {
            tracing::debug!("{happening}");
        }
        true => say_json(&json!({ "schema": "assay.audit/1", "happened": happening.to_string() })),
        false => say(happening),
    };
    let running = auditor.run(told, stop.clone());
    tokio::pin!(running);
    let ended = tokio::select! {
        ended = &mut running => ended,
        signal = signals.next() => {
            note(format_args!("{signal}: what is under way is left, and goes on at the next start"));
            stop.cancel();
            running.await
        }
    };
    ended.map_err(|error| match error {
        AuditError::Chain(error) => failed(error),
        error => Failure::new(Exit::Failed, "this auditor cannot work").why(error),
    })
}

/// Takes no part any more, or takes out what is free.
async fn leave(chain: &Chain, account: Address) -> Outcome {
    let found = chain.auditor(account).await.map_err(failed)?;
    match found.release {
        None => {
            chain.leave_auditors().await.map_err(failed)?;
            let release = chain.auditor(account).await.map_err(failed)?.release;
            say(format_args!(
                "left; {} ASY can be taken out from {} (unix time) on, with the same command",
                units(found.stake),
                release.unwrap_or_default()
            ));
        }
        Some(_) => {
            chain.withdraw_auditor().await.map_err(failed)?;
            say(format_args!("{} ASY were taken out", units(found.stake)));
        }
    }
    Ok(())
}

/// How an auditor stands.
struct Status {
    account: Address,
    terms: AuditTerms,
    found: assay_chain::Auditor,
    /// The epoch of the latest block.
    epoch: u64,
    /// How many revealed for the last beacon that stands.
    revealed: u64,
    pool: Amount,
    totals: Totals,
}

impl Status {
    async fn look(chain: &Chain, account: Address, folder: &Path) -> Outcome<Self> {
        let terms = chain.audit_terms().await.map_err(failed)?;
        let epoch = chain.client().time().await.map_err(failed)? / terms.epoch.max(1);
        let totals = Auditor::totals(folder).map_err(|error| {
            Failure::new(Exit::Malformed, "what audits came to cannot be read").why(error)
        })?;
        Ok(Self {
            account,
            terms,
            found: chain.auditor(account).await.map_err(failed)?,
            epoch,
            revealed: chain.revealed(epoch.saturating_sub(2)).await.map_err(failed)?,
            pool: chain.audit_pool().await.map_err(failed)?,
            totals,
        })
    }

    fn require_bond(&self) -> Outcome {
        let (found, bond) = (self.found.stake, self.terms.bond);
        if self.found.release.is_some() {
            return Err(Failure::new(Exit::Conflict, "this auditor has left")
                .fix("take the stake out with --leave, or pass another --key"));
        }
        if found < bond {
            return Err(Failure::new(
                Exit::Failed,
                format_args!("an auditor's bond is {} ASY", units(bond)),
            )
            .why(format_args!("{} has {} in", self.account, units(found)))
            .fix(format_args!("put it in with --join {}", units(Amount(bond.0 - found.0)))));
        }
        Ok(())
    }

    fn tell(&self, json: bool) {
        let Self { account, terms, found, epoch, revealed, pool, totals } = self;
        let sound = *revealed > 1;
        if json {
            say_json(&json!({
                "schema": "assay.validate/1",
                "account": account,
                "stake": found.stake,
                "bond": terms.bond,
                "release": found.release,
                "epoch": epoch,
                "epoch_seconds": terms.epoch,
                "rate_bps": terms.rate,
                "revealed": revealed,
                "sound": sound,
                "fee": terms.fee,
                "pool": pool,
                "totals": totals,
            }));
            return;
        }
        let leaving = found.release.map(|until| format!(", leaving until {until} (unix time)"));
        say(format_args!("auditor    {account}"));
        say(format_args!(
            "bond       {} of {} ASY{}",
            units(found.stake),
            units(terms.bond),
            leaving.unwrap_or_default()
        ));
        say(format_args!(
            "epochs     {} s each, now {epoch}; one receipt in {:.1} is drawn",
            terms.epoch,
            10_000.0 / f64::from(terms.rate.max(1))
        ));
        say(format_args!("beacon     {}", soundness(*revealed)));
        say(format_args!("fees       {} ASY each, {} in the pool", units(terms.fee), units(*pool)));
        say(format_args!(
            "audits     {} drawn: {} true, {} false, {} not shown, {} not checked",
            totals.drawn, totals.truthful, totals.falsehoods, totals.silences, totals.unchecked
        ));
        say(format_args!(
            "earned     {} ASY in fees, {} in rewards of {} convictions",
            units(totals.fees),
            units(totals.rewards),
            totals.convictions
        ));
        say(format_args!("fined      {} times another auditor, by this one", totals.fined));
    }
}

/// What so many reveals make of a beacon.
fn soundness(revealed: u64) -> String {
    let colour = stdout_has_colour();
    match revealed {
        0 => coloured("nobody revealed: nothing is drawn", Colour::Yellow, colour),
        1 => coloured("only one party revealed: draws are not trustless", Colour::Yellow, colour),
        many => format!("{many} revealed; sound unless all of them are one party"),
    }
}

/// Where an auditor keeps what it must not forget. What was committed to on one chain is of no use on another,
/// be it of the same id.
pub(crate) fn folder(data: &Data, chain: &Chain, account: Address) -> PathBuf {
    let genesis = format!("{:x}", chain.book().genesis);
    data.validator().join("audits").join(format!("{account}-{}", &genesis[..8]))
}

/// How an auditor works where audits take this.
pub(crate) fn auditing(terms: &AuditTerms, once: bool) -> Auditing {
    Auditing {
        look_every: look_every(terms.epoch),
        answer_max: ANSWER_MAX,
        once,
        disputes: Config {
            anyway: false,
            asks_server: true,
            look_every: DISPUTE_LOOK_EVERY,
            patience: PATIENCE,
        },
    }
}

/// Between two looks, for epochs of so many seconds.
fn look_every(epoch: u64) -> Duration {
    let (least, most) = LOOK_EVERY;
    (Duration::from_secs(epoch) / LOOKS).clamp(least, most)
}

/// The right to use an auditor's folder, until dropped: two that use one would reveal each other's secrets late.
fn lock(folder: &Path) -> Outcome<File> {
    let path = folder.join("lock");
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = opened.map_err(|error| {
        Failure::file(format_args!("{} cannot be used", path.display()), &error)
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::new(Exit::Conflict, "this auditor is at work in another process"))
        }
        Err(TryLockError::Error(error)) => {
            Err(Failure::file(format_args!("{} cannot be locked", path.display()), &error))
        }
    }
}

/// The models of a data directory; those used last stay in memory.
pub(crate) struct Models {
    library: Library,
    held: Mutex<VecDeque<(ModelId, Arc<Loaded>)>>,
}

impl Models {
    pub(crate) fn new(library: Library) -> Self {
        Self { library, held: Mutex::default() }
    }

    fn read(&self, id: ModelId) -> Outcome<Loaded> {
        let package = self.library.of_id(id)?;
        library::verify(&package)?;
        package.load().map_err(|error| {
            Failure::new(Exit::Malformed, format_args!("model {id} cannot be used")).why(error)
        })
    }
}

impl Shelf for Models {
    fn model(&self, id: ModelId) -> Option<Arc<Loaded>> {
        // Held while one is read: two that ask for the same one read it once.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, loaded)) = held.iter().find(|(found, _)| *found == id) {
            return Some(Arc::clone(loaded));
        }
        let loaded = self.read(id).map(Arc::new);
        let loaded = loaded.inspect_err(|failure| tracing::debug!(%failure, "no model")).ok()?;
        held.push_front((id, Arc::clone(&loaded)));
        held.truncate(MODELS_MAX);
        Some(loaded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_party_is_no_beacon() {
        assert!(soundness(1).contains("draws are not trustless"));
        assert!(!soundness(2).contains("trustless"));
    }

    #[test]
    fn looks_are_short_beside_an_epoch() {
        assert_eq!(look_every(5), Duration::from_millis(500));
        assert_eq!(look_every(14_400), Duration::from_secs(15));
    }

    #[test]
    fn a_folder_is_used_by_one_auditor_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        assert!(lock(folder.path()).is_err());
        drop(held);
        lock(folder.path()).unwrap();
    }
}
