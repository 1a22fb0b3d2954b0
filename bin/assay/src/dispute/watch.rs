//! `assay dispute watch`: what happens in disputes, from the chain alone.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use assay_chain::{Chain, Event, Filing, Happened};
use assay_court::{Disputed, Record, Retracer};
use assay_protocol::{B256, Phase};
use clap::Args;
use serde_json::json;
use tokio::runtime::Runtime;

use super::story::{Story, name};
use crate::failure::{Exit, Failure, Outcome};
use crate::ledger::{ChainArgument, failed};
use crate::machine::ThreadsArgument;
use crate::terminal::{note, say, say_json};
use crate::verify::{ordered, read};

/// Between two looks while following.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Blocks asked about at once.
const BLOCKS_MAX: u64 = 1_000;

/// Tell every move of a dispute, and what it means
///
/// Needs nothing but the chain. With the receipt and its model it also says what the number should be.
#[derive(Args, Debug)]
pub(super) struct Watch {
    /// The dispute's number [default: the newest]
    id: Option<u64>,
    /// Go on until the dispute is paid out
    #[arg(long)]
    follow: bool,
    /// The receipt that is disputed: what the number should be is computed from it
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// The receipt's model [default: the one the order names, from the data directory]
    #[arg(long, value_name = "MODEL", requires = "receipt")]
    model: Option<String>,
    #[command(flatten)]
    chain: ChainArgument,
    #[command(flatten)]
    threads: ThreadsArgument,
    /// Print one JSON document per move
    #[arg(long)]
    json: bool,
}

/// A dispute that is being watched.
struct Sight {
    id: u64,
    receipt: B256,
    story: Story,
    /// An honest trace, if the answer is at hand.
    record: Option<Arc<Record>>,
    json: bool,
}

impl Watch {
    pub(super) fn run(self) -> Outcome<ExitCode> {
        let runtime = Runtime::new().map_err(|error| {
            Failure::new(Exit::Failed, "the system gives no threads").why(error)
        })?;
        runtime.block_on(self.watch()).map(|()| ExitCode::SUCCESS)
    }

    async fn watch(self) -> Outcome {
        let chain = self.chain.open(None).await?;
        let id = match self.id {
            Some(id) => id,
            None => chain.disputes().await.map_err(failed)?,
        };
        let dispute = chain.dispute(id).await.map_err(failed)?.ok_or_else(|| {
            let what = match self.id {
                Some(id) => format!("there is no dispute {id}"),
                None => "nothing was ever disputed here".to_owned(),
            };
            Failure::new(Exit::NotFound, what).fix("`assay dispute ls` lists those there are")
        })?;
        let record = self.record(&chain, dispute.receipt).await?;
        let (receipt, story) = (dispute.receipt, Story::of(&dispute));
        let mut sight = Sight { id, receipt, story, record, json: self.json };
        let mut next = opened(&chain, id).await?;
        loop {
            let height = chain.height().await.map_err(failed)?;
            while next <= height {
                let to = height.min(next + BLOCKS_MAX - 1);
                for happened in chain.events(next, to).await.map_err(failed)? {
                    sight.see(&chain, &happened).await?;
                }
                next = to + 1;
            }
            let dispute = chain.dispute(id).await.map_err(failed)?;
            let paid = dispute
                .is_none_or(|dispute| matches!(dispute.phase, Phase::Forfeited | Phase::Returned));
            // One more look: what a conviction moves may stand in a later block than the bond.
            if !self.follow || paid && chain.height().await.map_err(failed)? < next {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The honest trace of the receipt at hand, if it is the disputed one.
    async fn record(&self, chain: &Chain, receipt: B256) -> Outcome<Option<Arc<Record>>> {
        let Some(path) = &self.receipt else { return Ok(None) };
        let answer = read(path)?;
        let found = answer.receipt.digest(answer.chain_id);
        if found != receipt {
            return Err(Failure::new(Exit::Conflict, "another receipt is disputed")
                .why(format_args!("this one is {found}, the disputed one {receipt}"))
                .fix("`assay dispute ls` says which receipts are disputed"));
        }
        let cpu = Arc::new(self.threads.cpu()?);
        let loaded = ordered(&self.chain.data()?, self.model.as_deref(), &answer, &cpu)?;
        let facts = chain.facts_of(&Filing::of(&answer, None)).await.map_err(failed)?;
        let disputed = Disputed { answer, facts };
        let computed = tokio::task::spawn_blocking(move || {
            Record::compute(&Retracer::new(Arc::new(loaded), cpu), disputed)
        });
        let computed = computed
            .await
            .map_err(|panic| Failure::new(Exit::Failed, "the computation broke").why(panic))?;
        computed.map(|record| Some(Arc::new(record))).map_err(|error| {
            Failure::new(Exit::Malformed, "the answer cannot be computed").why(error)
        })
    }
}

impl Sight {
    /// Tells an event that belongs to the dispute.
    async fn see(&mut self, chain: &Chain, happened: &Happened) -> Outcome {
        let belongs = match &happened.event {
            Event::Slashed { reason, .. } => *reason == self.receipt,
            Event::Convicted { receipt, .. } => *receipt == self.receipt,
            event => event.dispute() == Some(self.id),
        };
        if !belongs {
            return Ok(());
        }
        if let Event::Decided { .. } = happened.event {
            self.judge(chain, happened).await?;
        }
        let Some(meaning) = self.story.say(&happened.event) else { return Ok(()) };
        if self.json {
            say_json(&json!({
                "schema": "assay.dispute.move/1",
                "dispute": self.id,
                "event": name(&happened.event),
                "meaning": meaning,
                "block": happened.block,
                "transaction": happened.transaction,
            }));
        } else {
            say(format_args!("block {:<6} {meaning}", happened.block));
        }
        Ok(())
    }

    /// Looks what number a decision was about, and computes what it should be.
    async fn judge(&mut self, chain: &Chain, decided: &Happened) -> Outcome {
        let Some(record) = &self.record else { return Ok(()) };
        let proofs = chain.proofs_in(decided.transaction).await.map_err(failed)?;
        let Some(proof) = proofs.into_iter().find(|proof| proof.dispute == self.id) else {
            return Ok(());
        };
        let record = Arc::clone(record);
        let said = tokio::task::spawn_blocking(move || assay_validator::judged(&record, &proof));
        match said.await {
            Ok(number) => self.story.number = Some(number),
            Err(panic) => note(format_args!("the number cannot be computed: {panic}")),
        }
        Ok(())
    }
}

/// The block that a dispute was opened in.
async fn opened(chain: &Chain, id: u64) -> Outcome<u64> {
    let docket = assay_court::Docket::find(chain, id).await;
    docket
        .map(|docket| docket.opened())
        .map_err(|error| Failure::new(Exit::Failed, "the dispute cannot be read").why(error))
}
