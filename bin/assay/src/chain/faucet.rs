//! `assay chain faucet`, and how any node is asked.

use alloy_primitives::{Address, U256};
use clap::Args;
use serde_json::{Value, json};

use crate::failure::{Exit, Failure, Outcome};
use crate::terminal::{say, say_json};

/// Ask a development chain for money
#[derive(Args, Debug)]
pub(crate) struct Faucet {
    /// Who gets it
    address: Address,
    /// How much, in ether [default: 10]
    #[arg(long, value_name = "ETHER")]
    amount: Option<u32>,
    #[command(flatten)]
    node: NodeArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Which node is asked.
#[derive(Args, Clone, Debug)]
pub(crate) struct NodeArgument {
    /// URL of the node's JSON-RPC
    #[arg(long, value_name = "URL", env = "ASSAY_RPC", default_value = "http://127.0.0.1:8545")]
    rpc: String,
}

impl Faucet {
    pub(crate) async fn run(self) -> Outcome {
        let ether = U256::from(1_000_000_000_000_000_000_u64);
        let mut params = vec![json!(self.address)];
        params.extend(self.amount.map(|amount| json!(U256::from(amount) * ether)));
        let hash = self.node.ask("faucet_drip", params.into()).await?;
        if self.json {
            say_json(&json!({ "schema": "assay.chain.faucet/1", "transaction": hash }));
        } else {
            say(format_args!("transaction {}", hash.as_str().unwrap_or_default()));
        }
        Ok(())
    }
}

impl NodeArgument {
    /// The node's URL.
    pub(crate) fn url(&self) -> &str {
        &self.rpc
    }

    /// Calls a method of the node.
    pub(crate) async fn ask(&self, method: &str, params: Value) -> Outcome<Value> {
        let unreachable = |error: reqwest::Error| {
            Failure::new(Exit::Unreachable, format_args!("nobody answers at {}", self.rpc))
                .why(error)
                .fix("start a chain with: assay chain run --dev")
        };
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let sent = reqwest::Client::new().post(&self.rpc).json(&call).send().await;
        let mut answer: Value = sent.map_err(unreachable)?.json().await.map_err(unreachable)?;
        match answer["error"]["message"].as_str() {
            Some(reason) => {
                Err(Failure::new(Exit::Failed, format_args!("{method} is refused")).why(reason))
            }
            None => Ok(answer["result"].take()),
        }
    }
}
