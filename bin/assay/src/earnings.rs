//! `assay earnings`: what providers of this machine have earned.

use assay_chain::Contract;
use assay_protocol::Address;
use clap::Args;
use serde_json::json;

use crate::failure::{Exit, Failure, Outcome};
use crate::ledger::{LedgerArgument, accounts, failed, units};
use crate::terminal::{say, say_json};

/// Show what providers have earned, and what still waits
///
/// Money that was claimed waits in the provider's till until receipts cover it and the dispute window
/// is over; then fees are taken off and the rest is paid.
#[derive(Args, Debug)]
pub(crate) struct Earnings {
    /// Providers to look at [default: those of this machine]
    providers: Vec<Address>,
    #[command(flatten)]
    ledger: LedgerArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Earnings {
    pub(crate) async fn run(self) -> Outcome {
        let providers = match self.providers.is_empty() {
            false => self.providers.clone(),
            true => {
                let all = accounts(&self.ledger.data()?)?;
                let sells = |(name, _): &(String, Address)| name.starts_with("provider");
                all.into_iter().filter(sells).map(|(_, account)| account).collect()
            }
        };
        if providers.is_empty() {
            return Err(Failure::new(Exit::NotFound, "there is no provider on this machine")
                .fix("name one by its address"));
        }
        let chain = self.ledger.open(None).await?;
        let token = chain.book().get(Contract::AssayToken);
        let token = token.map_err(|error| failed(error.into()))?;
        let mut rows = Vec::new();
        for owner in providers {
            let till = chain.till_of(owner).await.map_err(failed)?;
            rows.push((owner, till, chain.earnings(owner, token).await.map_err(failed)?));
        }
        if self.json {
            let rows = rows.iter().map(|(owner, till, found)| {
                json!({
                    "provider": owner,
                    "till": till,
                    "earned": found.earned(),
                    "waiting": found.waiting(),
                    "claimed": found.claimed,
                    "network_fee": found.network_fee,
                    "governance_share": found.governance_share,
                    "reclaimed": found.reclaimed,
                    "judged": found.judged,
                })
            });
            let rows: Vec<_> = rows.collect();
            say_json(&json!({ "schema": "assay.earnings/1", "token": token, "providers": rows }));
            return Ok(());
        }
        for (owner, till, found) in rows {
            let fees = found.network_fee.0 + found.governance_share.0;
            say(format_args!("provider {owner}  till {till}"));
            say(format_args!("  earned     {} ASY", units(found.earned())));
            say(format_args!("  waiting    {} ASY", units(found.waiting())));
            say(format_args!("  fees       {} ASY", units(assay_protocol::Amount(fees))));
            if found.reclaimed.0 + found.judged.0 > 0 {
                let lost = assay_protocol::Amount(found.reclaimed.0 + found.judged.0);
                say(format_args!("  given back {} ASY", units(lost)));
            }
        }
        Ok(())
    }
}
