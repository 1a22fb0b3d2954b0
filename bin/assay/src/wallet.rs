//! `assay wallet`: who we are on the chain, and what we have.

use assay_chain::Contract;
use assay_protocol::Amount;
use clap::Args;
use serde_json::json;

use crate::failure::Outcome;
use crate::ledger::{LedgerArgument, accounts, failed, units};
use crate::terminal::{say, say_json};

/// Show the accounts of this machine, and what they have
#[derive(Args, Debug)]
pub(crate) struct Wallet {
    #[command(flatten)]
    ledger: LedgerArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Wallet {
    pub(crate) async fn run(self) -> Outcome {
        let accounts = accounts(&self.ledger.data()?)?;
        let chain = self.ledger.open(None).await?;
        let mut rows = Vec::new();
        for (name, account) in accounts {
            let coins = chain.client().balance(account).await.map_err(failed)?;
            let asy = chain.asy_of(account).await.map_err(failed)?;
            rows.push((name, account, Amount(coins.saturating_to()), asy));
        }
        if self.json {
            let rows = rows.iter().map(|(name, account, coins, asy)| {
                json!({ "name": name, "address": account, "coins": coins, "asy": asy })
            });
            say_json(&json!({
                "schema": "assay.wallet/1",
                "chain_id": chain.client().chain_id(),
                "token": chain.book().get(Contract::AssayToken).ok(),
                "accounts": rows.collect::<Vec<_>>(),
            }));
            return Ok(());
        }
        for (name, account, coins, asy) in rows {
            let (coins, asy) = (units(coins), units(asy));
            say(format_args!("{name:<12} {account}  {asy} ASY  {coins} coins for gas"));
        }
        Ok(())
    }
}
