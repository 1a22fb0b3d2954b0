//! `assay chain status`: what a node says of its chain.

use clap::Args;
use serde_json::{Value, json};

use super::faucet::NodeArgument;
use crate::failure::Outcome;
use crate::terminal::{say, say_json};

/// Show a node's chain, its head and what waits
#[derive(Args, Debug)]
pub(crate) struct Status {
    #[command(flatten)]
    node: NodeArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Status {
    pub(crate) async fn run(self) -> Outcome {
        let ask = |method, params| self.node.ask(method, params);
        let client = ask("web3_clientVersion", json!([])).await?;
        let chain = number(&ask("eth_chainId", json!([])).await?);
        let height = number(&ask("eth_blockNumber", json!([])).await?);
        // A chain that was started from a snapshot, or pruned, need not have these blocks.
        let kept = async |which: &str| {
            ask("eth_getBlockByNumber", json!([which, false])).await.unwrap_or_default()
        };
        let (head, genesis) = (kept("latest").await, kept("0x0").await);
        let waiting = ask("txpool_status", json!([])).await?;
        let price = number(&ask("eth_gasPrice", json!([])).await?);
        let (pending, queued) = (number(&waiting["pending"]), number(&waiting["queued"]));
        let count = head["transactions"].as_array().map_or(0, Vec::len);
        let time = number(&head["timestamp"]);
        if self.json {
            say_json(&json!({
                "schema": "assay.chain.status/1",
                "rpc": self.node.url(),
                "client": client,
                "chain_id": chain,
                "genesis": genesis["hash"],
                "head": { "number": height, "hash": head["hash"], "timestamp": time, "transactions": count },
                "gas_price": price,
                "waiting": { "pending": pending, "queued": queued },
            }));
            return Ok(());
        }
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        say(format_args!("node       {}  {}", self.node.url(), text(&client)));
        say(format_args!("chain id   {chain}"));
        say(format_args!("genesis    {}", text(&genesis["hash"])));
        say(format_args!("head       {height}  {}  {count} transactions", text(&head["hash"])));
        say(format_args!("gas price  {price} wei"));
        say(format_args!("waiting    {pending}, and {queued} behind a missing nonce"));
        Ok(())
    }
}

/// A number as JSON-RPC writes it; 0 for anything else.
fn number(value: &Value) -> u64 {
    let digits = value.as_str().and_then(|text| text.strip_prefix("0x"));
    digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default()
}
