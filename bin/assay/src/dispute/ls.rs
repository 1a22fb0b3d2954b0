//! `assay dispute ls`: the disputes of a chain.

use assay_chain::Side;
use clap::Args;
use serde_json::json;

use super::story::stands;
use crate::failure::Outcome;
use crate::ledger::{ChainArgument, failed};
use crate::terminal::{note, say, say_json};

/// List the disputes of the chain, newest first
#[derive(Args, Debug)]
pub(super) struct Ls {
    #[command(flatten)]
    chain: ChainArgument,
    /// Most disputes to list
    #[arg(long, value_name = "N", default_value_t = 20)]
    most: u64,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Ls {
    pub(super) async fn run(self) -> Outcome {
        let chain = self.chain.open(None).await?;
        let count = chain.disputes().await.map_err(failed)?;
        let mut rows = Vec::new();
        for id in (1..=count).rev().take(usize::try_from(self.most).unwrap_or(usize::MAX)) {
            let Some(dispute) = chain.dispute(id).await.map_err(failed)? else { continue };
            let case = chain.case(dispute.receipt).await.map_err(failed)?;
            rows.push((id, dispute, case.map(|case| (case.owner, case.guilty))));
        }
        if self.json {
            let rows = rows.iter().map(|(id, dispute, case)| {
                json!({
                    "dispute": id,
                    "phase": format!("{:?}", dispute.phase).to_lowercase(),
                    "turn": dispute.turn().map(|side| match side {
                        Side::Defender => "provider",
                        Side::Challenger => "challenger",
                    }),
                    "until": dispute.last_second(),
                    "receipt": dispute.receipt,
                    "challenger": dispute.challenger,
                    "owner": case.map(|(owner, _)| owner),
                    "guilty": case.is_some_and(|(_, guilty)| guilty),
                })
            });
            let rows: Vec<_> = rows.collect();
            say_json(&json!({ "schema": "assay.disputes/1", "count": count, "disputes": rows }));
            return Ok(());
        }
        if rows.is_empty() {
            note("nothing was ever disputed here; `assay dispute open RECEIPT` begins a dispute");
        }
        for (id, dispute, case) in rows {
            say(format_args!("{id:>4}  {}", stands(dispute.phase)));
            say(format_args!("      receipt     {}", dispute.receipt));
            say(format_args!("      challenger  {}", dispute.challenger));
            if let Some((owner, _)) = case {
                say(format_args!("      provider    {owner}"));
            }
        }
        Ok(())
    }
}
