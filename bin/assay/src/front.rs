//! `assay gateway`: a gateway alone, in front of servers of one's own.

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use assay_gateway::{KeyRules, Origin, Patience, RunError};
use assay_protocol::{Amount, Audit, LOCAL_CHAIN, keccak256};
use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use crate::api_key;
use crate::data::Data;
use crate::failure::{Exit, Failure, Outcome};
use crate::gateway::Gateway;
use crate::keys;
use crate::ledger::LedgerArgument;
use crate::machine::raise_open_files;
use crate::network::{
    self, DRAIN_MAX, ORDER_TTL, POLL_EVERY, READY_EVERY, READY_MAX, TOKEN_TIME_TARGET,
};
use crate::relay::RelayArgument;
use crate::signals::Signals;
use crate::terminal::{note, say, say_json};
use crate::x402::{self, WorthArgument};

/// Requests that are passed on at once. The next one is told to come back.
const REQUESTS_MAX: usize = 16_384;

/// Start a gateway alone, in front of servers of your own
///
/// Servers that speak OpenAI, such as vLLM or llama.cpp, get API keys with budgets, and payment by single
/// answers. Their answers carry no receipt: nobody signs for them. For answers with receipts, `assay up`.
#[derive(Args, Debug)]
pub(crate) struct Front {
    /// Port of the gateway; 0 takes a free one
    #[arg(long, env = "ASSAY_PORT", default_value_t = 8700)]
    port: u16,
    /// Address that it listens on
    #[arg(long, env = "ASSAY_HOST", value_name = "IP", default_value = "127.0.0.1")]
    host: IpAddr,
    #[command(flatten)]
    relay: RelayArgument,
    /// Origin of web pages that may ask; may be given several times
    #[arg(
        long = "cors-origin",
        env = "ASSAY_CORS_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ',',
        default_value = "http://localhost:*,http://127.0.0.1:*"
    )]
    cors_origins: Vec<Origin>,
    /// Answer only clients with a key, as `assay api-key new` makes them
    #[arg(long, env = "ASSAY_REQUIRE_KEYS")]
    require_keys: bool,
    /// Let clients without a key pay for single answers by x402, on the chain of --rpc
    #[arg(long, env = "ASSAY_X402")]
    x402: bool,
    #[command(flatten)]
    worth: WorthArgument,
    #[command(flatten)]
    ledger: LedgerArgument,
    /// Print one JSON line once ready
    #[arg(long)]
    json: bool,
}

impl Front {
    pub(crate) fn run(self) -> Outcome<ExitCode> {
        raise_open_files();
        let data = self.ledger.data()?;
        let lock = data.lock()?;
        let runtime = Runtime::new()
            .map_err(|error| Failure::new(Exit::Failed, "no threads to serve with").why(error))?;
        let listener = {
            let _inside = runtime.enter();
            network::claim(SocketAddr::new(self.host, self.port), "--port")?
        };
        let code = runtime.block_on(self.serve(&data, listener));
        runtime.shutdown_background();
        drop(lock);
        code
    }

    async fn serve(self, data: &Data, listener: TcpListener) -> Outcome<ExitCode> {
        let mut signals = Signals::listen()?;
        let relayed = self.relay.relayed(self.x402)?;
        if relayed.is_empty() {
            return Err(Failure::new(Exit::Usage, "there is nothing to stand in front of")
                .fix("name a model and its server: --relay MODEL=http://127.0.0.1:8000"));
        }
        let models: Vec<String> = relayed.iter().map(|model| model.model.clone()).collect();
        let folder = data.gateway();
        let key = keys::load_or_create(&folder)?;
        let address = listener
            .local_addr()
            .map_err(|error| Failure::file("the gateway's address cannot be read", &error))?;
        let x402 = match self.x402 {
            true => {
                let chain = self.ledger.open(None).await?;
                let (rpc, book) = (self.ledger.rpc(), chain.book().clone());
                let worth = self.worth.on(book.chain_id)?;
                Some(x402::door(data, rpc, book, key.address(), worth).await?)
            }
            false => None,
        };
        let config = assay_gateway::Config {
            key,
            chain: LOCAL_CHAIN,
            models: vec![],
            aliases: std::collections::BTreeMap::new(),
            relayed,
            providers: vec![],
            store: folder.join("answers"),
            audit: Audit::None,
            requests_max: REQUESTS_MAX,
            price_max: Amount(0),
            payments: None,
            x402,
            keys: KeyRules {
                demanded: self.require_keys,
                admin: Some(keccak256(api_key::admin_token(data)?)),
            },
            patience: Patience::default(),
            token_time_target: TOKEN_TIME_TARGET,
            origins: self.cors_origins,
            order_ttl: ORDER_TTL,
            poll_every: POLL_EVERY,
            drain_max: DRAIN_MAX,
        };
        let url = network::reachable(address);
        let gateway = Gateway::new(&url)?;
        let stop = CancellationToken::new();
        let mut serving = tokio::spawn(assay_gateway::run(config, listener, stop.clone()));
        tokio::select! {
            ended = &mut serving => return Err(ended_early(ended)),
            ready = alive(&gateway) => ready?,
            // Nothing runs yet that has to be finished.
            signal = signals.next() => return Ok(ExitCode::from(signal.code())),
        }
        if self.json {
            let pid = std::process::id();
            let data_dir = data.folder();
            say_json(&json!({
                "schema": "assay.gateway/1",
                "gateway": url, "models": models, "data_dir": data_dir, "pid": pid,
            }));
        } else {
            say(format_args!("The gateway is up.\n\n  gateway    {url}/v1"));
            say(format_args!("  models     {}", models.join(", ")));
            say(format_args!("  data       {}\n\nCtrl-C stops it.", data.folder().display()));
        }
        let signal = tokio::select! {
            ended = &mut serving => return Err(ended_early(ended)),
            signal = signals.next() => signal,
        };
        note(format_args!("{signal}: finishing what runs; again to quit at once"));
        stop.cancel();
        tokio::select! {
            ended = &mut serving => outcome(ended).map(|()| ExitCode::SUCCESS),
            signal = signals.next() => Ok(ExitCode::from(signal.code())),
        }
    }
}

/// Waits until the gateway answers.
async fn alive(gateway: &Gateway) -> Outcome {
    let alive = async {
        while !gateway.is_alive().await {
            tokio::time::sleep(READY_EVERY).await;
        }
    };
    tokio::time::timeout(READY_MAX, alive).await.map_err(|_| {
        Failure::new(Exit::Timeout, "the gateway does not answer")
            .why(format_args!("nothing was heard for {} s", READY_MAX.as_secs()))
            .fix("set ASSAY_LOG=debug and look at what it says")
    })
}

/// What came of serving.
fn outcome(ended: Result<Result<(), RunError>, JoinError>) -> Outcome {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::new(Exit::Failed, "the gateway failed").why(error)),
        Err(panic) => Err(Failure::new(Exit::Failed, "the gateway broke").why(panic)),
    }
}

/// Why serving ended although nobody asked it to.
fn ended_early(ended: Result<Result<(), RunError>, JoinError>) -> Failure {
    let by_itself = || Failure::new(Exit::Failed, "the gateway ended by itself");
    outcome(ended).err().unwrap_or_else(by_itself)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_gateway_that_breaks_while_it_stops_is_no_success() {
        let broke = tokio::spawn(async { panic!("a broken invariant") }).await;
        let failure = outcome(broke).unwrap_err();
        assert!(failure.is(Exit::Failed) && failure.to_string().contains("broke"), "{failure}");
        assert!(outcome(Ok(Ok(()))).is_ok());
    }
}
