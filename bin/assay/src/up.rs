//! `assay up`: a whole network on this machine, until told to stop.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use assay_engine::Outline;
use assay_gateway::Origin;
use assay_protocol::ModelId;
use clap::Args;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::auditors::{self, Auditors};
use crate::backend::BackendArgument;
use crate::canaries::CanaryArgument;
use crate::cheat::Cheat;
use crate::data::{Data, DataArgument};
use crate::embedded::Embedded;
use crate::failure::{Exit, Failure, Outcome};
use crate::library::Library;
use crate::machine::{ThreadsArgument, raise_open_files};
use crate::network::{self, Network, Offered, Provider, Sellers};
use crate::relay::RelayArgument;
use crate::signals::Signals;
use crate::sold::{MemoryArgument, Stock};
use crate::terminal::{note, say, say_json};

/// Open files below which a busy gateway may have to refuse connections.
const OPEN_FILES_MIN: u64 = 4096;

/// Start a gateway, providers and a chain on this machine
///
/// Brings its own model, keys, and a chain with the contracts in its genesis; the first start imports
/// the model, which takes seconds. Clients that speak OpenAI use the gateway's address, wallets the
/// chain's. Ctrl-C lets running answers finish; a second one quits at once.
#[derive(Args, Debug)]
pub(crate) struct Up {
    /// Port of the gateway; 0 takes a free one
    #[arg(long, env = "ASSAY_PORT", default_value_t = 8700)]
    port: u16,
    /// Address that the gateway and the chain listen on
    #[arg(long, env = "ASSAY_HOST", value_name = "IP", default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port of the chain's JSON-RPC, which web pages of any origin may use; 0 takes a free one
    #[arg(long, env = "ASSAY_RPC_PORT", value_name = "PORT", default_value_t = 8701)]
    rpc_port: u16,
    #[command(flatten)]
    data: DataArgument,
    /// Model to serve: a GGUF or ONNX file, a directory, an .assay file, an id, a name, or ORG/NAME as pulled;
    /// may be given several times [default: the one that ships]
    #[arg(long = "model", env = "ASSAY_MODEL", value_name = "MODEL")]
    models: Vec<String>,
    /// Number of providers
    #[arg(long, env = "ASSAY_PROVIDERS", default_value = "2")]
    providers: NonZeroUsize,
    /// Add a cheaper provider that cheats in this way, to watch it lose its stake
    #[arg(long, env = "ASSAY_WITH_CHEATER", value_name = "HOW", value_enum)]
    with_cheater: Option<Cheat>,
    /// Number of auditors, which check all that the providers post; two make a beacon that neither has alone
    #[arg(long, env = "ASSAY_VALIDATORS", value_name = "N", default_value_t = 0)]
    validators: usize,
    #[command(flatten)]
    canaries: CanaryArgument,
    #[command(flatten)]
    threads: ThreadsArgument,
    #[command(flatten)]
    memory: MemoryArgument,
    /// Origin of web pages that may ask, such as http://localhost:3000 or http://localhost:*; may be
    /// given several times
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
    /// Let clients without a key pay for single answers by x402; all others need a key
    #[arg(long, env = "ASSAY_X402")]
    x402: bool,
    /// Another name for MODEL, for clients that know only their own; `*` stands for every name that is no
    /// model's, and for none; may be given several times
    #[arg(
        long = "model-alias",
        env = "ASSAY_MODEL_ALIAS",
        value_name = "NAME=MODEL",
        value_delimiter = ',',
        value_parser = parse_alias
    )]
    model_aliases: Vec<(String, String)>,
    #[command(flatten)]
    relay: RelayArgument,
    #[command(flatten)]
    backend: BackendArgument,
    /// Print one JSON line once ready
    #[arg(long)]
    json: bool,
}

/// Reads `NAME=MODEL`.
fn parse_alias(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, model)) if !name.is_empty() && !model.is_empty() => {
            Ok((name.to_owned(), model.to_owned()))
        }
        _ => Err(format!("{text:?} is not NAME=MODEL")),
    }
}

impl Up {
    pub(crate) fn run(self) -> Outcome<ExitCode> {
        let began = Instant::now();
        let files = raise_open_files();
        let data = self.data.resolve()?;
        let lock = data.lock()?;
        let runtime = Runtime::new()
            .map_err(|error| Failure::new(Exit::Failed, "no threads to serve with").why(error))?;
        let (listener, rpc) = {
            let _inside = runtime.enter();
            let claim = |port, flag| network::claim(SocketAddr::new(self.host, port), flag);
            (claim(self.port, "--port")?, claim(self.rpc_port, "--rpc-port")?)
        };
        if files < OPEN_FILES_MIN {
            note(format_args!(
                "only {files} files and sockets may be open; raise it: ulimit -n 65536"
            ));
        }
        let code = runtime.block_on(self.serve(&data, listener, rpc, began));
        // What still runs has been drained, or is to be left behind.
        runtime.shutdown_background();
        drop(lock);
        code
    }

    async fn serve(
        self,
        data: &Data,
        listener: TcpListener,
        rpc: TcpListener,
        began: Instant,
    ) -> Outcome<ExitCode> {
        let mut signals = Signals::listen()?;
        let relayed = self.relay.relayed(self.x402)?;
        let canaries = self.canaries.read()?;
        let cpu = self.threads.cpu()?;
        let threads = (cpu.isa(), cpu.threads());
        let (library, names, memory) = (Library::of(data), self.models.clone(), self.memory);
        let found = tokio::task::spawn_blocking(move || {
            library.sweep();
            Ok((Stock::find(&library, &names, memory, &cpu)?, Arc::new(cpu)))
        });
        let (stock, cpu) = tokio::select! {
            found = found => found
                .map_err(|panic| Failure::new(Exit::Failed, "loading broke").why(panic))??,
            // What is half-written is swept at the next start.
            signal = signals.next() => return Ok(ExitCode::from(signal.code())),
        };
        let outlines: Vec<&Outline> = stock.outlines().collect();
        let backends = tokio::select! {
            backends = self.backend.start(&outlines) => backends?,
            signal = signals.next() => return Ok(ExitCode::from(signal.code())),
        };
        let mut computing = format!("{} threads, {}", threads.1, threads.0);
        for (model, backend) in outlines.iter().filter_map(|it| Some((it, backends.get(&it.id)?))) {
            computing.push_str(&format!("; {} by {}, scored", model.name, backend.kind()));
        }
        let graphs = stock.graphs();
        for graph in &graphs {
            computing.push_str(&format!("; {} by rten, scored", graph.model.name));
        }
        let models = stock.open(&backends, &cpu)?;
        let (honest, cheater) = (self.providers, self.with_cheater);
        if models.is_empty() && (cheater.is_some() || canaries.is_some()) {
            let what = "there is no model to cheat or to plant canaries with";
            return Err(Failure::new(Exit::Usage, what)
                .why("answers of ONNX models cannot be disputed")
                .fix("serve one that can be replayed as well: --model nano"));
        }
        let named = models.iter().map(|sold| (sold.model.id, sold.model.name.clone()));
        let named = named.chain(graphs.iter().map(|it| (it.model.id, it.model.name.clone())));
        let named: Vec<(ModelId, String)> = named.collect();
        let makes_vectors = models.first().is_none_or(|sold| sold.model.vector_width().is_some());
        let sellers = Sellers { honest, cheater, canaries, graphs };
        let mut participants = network::participants(data, &sellers)?;
        participants.extend(auditors::accounts(data, self.validators)?);
        let mut chain = tokio::select! {
            chain = Embedded::start(data, &participants, rpc) => chain?,
            signal = signals.next() => return Ok(ExitCode::from(signal.code())),
        };
        let (origins, require_keys) = (self.cors_origins, self.require_keys);
        let aliases = self.model_aliases.into_iter().collect();
        let offered = Offered { origins, require_keys, x402: self.x402, relayed, aliases };
        let started = Network::start(data, &chain, &models, cpu, sellers, offered, listener);
        let started = started.await;
        let mut network = match started {
            Ok(network) => network,
            Err(failure) => {
                chain.stop().await;
                return Err(failure);
            }
        };
        let auditors = match Auditors::start(data, &chain, self.validators).await {
            Ok(auditors) => auditors,
            Err(failure) => {
                chain.stop().await;
                return Err(failure);
            }
        };
        let url = network.url();
        if self.json {
            let providers: Vec<_> = network
                .providers
                .iter()
                .map(|Provider { address, owner, url }| {
                    json!({ "address": address, "owner": owner, "url": url })
                })
                .collect();
            let models = named.iter().map(|(id, name)| json!({ "id": id, "name": name }));
            let models: Vec<_> = models.collect();
            say_json(&json!({
                "schema": "assay.up/1",
                "gateway": url,
                "providers": providers,
                "model": models.first(),
                "models": models,
                "chain": {
                    "rpc": chain.url(),
                    "id": chain.book.chain_id,
                    "genesis": chain.book.genesis,
                },
                "contracts": chain.book.contracts,
                "data_dir": data.folder(),
                "pid": std::process::id(),
            }));
        } else {
            say(format_args!("Assay is up after {:.1} s.\n", began.elapsed().as_secs_f64()));
            say(format_args!("  gateway    {url}/v1"));
            for provider in &network.providers {
                say(format_args!("  provider   {}  {}", provider.url, provider.address));
            }
            for (id, name) in &named {
                say(format_args!("  model      {name}  {id}"));
            }
            say(format_args!(
                "  chain      {}  id {}, {} contracts",
                chain.url(),
                chain.book.chain_id,
                chain.book.contracts.len(),
            ));
            say(format_args!("  computing  {computing}"));
            say(format_args!("  data       {}\n", data.folder().display()));
            match cheater {
                None => {
                    let name = named.first().map_or("", |(_, name)| name);
                    let example = match makes_vectors {
                        false => example(&url, name),
                        true => example_of_vectors(&url, name),
                    };
                    say(format_args!("Ask it something:\n\n{example}\n"));
                }
                Some(how) => {
                    let steps = steps(how, &url, &chain.url(), data.folder());
                    say(format_args!("One provider cheats. Watch it lose its stake:\n\n{steps}\n"));
                }
            }
            say("Ctrl-C stops it.");
        }
        let first = tokio::select! {
            failure = network.failed() => {
                chain.stop().await;
                return Err(failure);
            }
            failure = chain.failed() => return Err(failure),
            signal = signals.next() => signal,
        };
        note(format_args!("{first}: finishing what runs; again to quit at once"));
        let ending = async {
            auditors.stop().await;
            let drained = network.drain().await;
            chain.stop().await;
            drained
        };
        tokio::select! {
            drained = ending => drained.map(|()| ExitCode::SUCCESS),
            signal = signals.next() => Ok(ExitCode::from(signal.code())),
        }
    }
}

/// What shows a newcomer a dispute: buy an answer of the cheater's, which is the cheapest; dispute it; see
/// what happened on the chain.
fn steps(how: Cheat, gateway: &str, rpc: &str, data: &Path) -> String {
    let drawn = if how == Cheat::Seed { " --temperature 1" } else { "" };
    let data = quoted(&data.display().to_string());
    format!(
        "  assay run '12+45='{drawn} --url {gateway} --receipt receipt.json\n  \
         assay dispute open receipt.json --rpc {rpc} --data-dir {data}\n  \
         assay dispute watch --receipt receipt.json --rpc {rpc} --data-dir {data}"
    )
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A request that can be pasted into a shell.
fn example(url: &str, model: &str) -> String {
    let body = json!({
        "model": model,
        "temperature": 0,
        "messages": [{ "role": "user", "content": "12+45=" }],
    });
    let body = quoted(&body.to_string());
    format!(
        "  curl {url}/v1/chat/completions -H 'content-type: application/json' \\\n    -d {body}"
    )
}

/// The same for a model that makes vectors.
fn example_of_vectors(url: &str, model: &str) -> String {
    let body = quoted(&json!({ "model": model, "input": "The weather is lovely." }).to_string());
    format!("  curl {url}/v1/embeddings -H 'content-type: application/json' \\\n    -d {body}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_survives_a_shell() {
        let text = steps(Cheat::Seed, "G", "R", Path::new("/a b/c"));
        assert!(text.contains("--temperature 1"), "{text}");
        assert!(text.ends_with("--rpc R --data-dir '/a b/c'"), "{text}");
        assert_eq!(quoted("/a/x-1.y"), "/a/x-1.y");
    }

    #[test]
    fn the_example_survives_a_shell() {
        let text = example("http://127.0.0.1:8700", "it's");
        assert!(text.contains(r#""model":"it'\''s""#), "{text}");
        assert!(text.contains(r#""content":"12+45=""#), "{text}");
    }
}
