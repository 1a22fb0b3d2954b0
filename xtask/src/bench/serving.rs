//! Whole servers beside llama.cpp's: the same file, the same threads, the same requests in turns.
//!
//! `assay bench` asks both, round after round, so that whatever else the machine does meets both alike.
//! Ours is a whole network: a gateway that orders and checks, a provider that signs, a chain, and
//! payment for every answer.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::engine::peer::{Build, NAME, Peer};
use super::running::{Running, Start, binary, free_port, said};
use super::{Row, keep_measured, load, median, random_model};
use crate::{cargo, line, root, step};

const COMMAND: &str = "cargo xtask bench serving";
/// Streams at once, each a figure.
const STREAMS: [usize; 2] = [8, 32];
const ROUNDS: usize = 5;
/// Words of a prompt: decoding is what counts.
const INPUT: usize = 4;
/// Tokens of an answer.
const OUTPUT: usize = 64;
/// Positions that a stream may take.
const CONTEXT: usize = 512;
const THREADS: usize = 2;
/// Longest that a server may take to its first answer.
const START_MAX: Duration = Duration::from_secs(120);
/// Between two tries whether it answers.
const TRY_EVERY: Duration = Duration::from_millis(2);
const MODEL: &str = "random-q05";

pub(crate) fn run() -> Result<()> {
    let mut build = cargo();
    step("our binary", build.args(["build", "--release", "--locked", "--package", "assay"]))?;
    let file = random_model("q05", "q8_0")?;
    let servers =
        [Server::ours(&file)?, Server::theirs(&file, &Peer::built(Build::Native, "llama-server")?)];
    let load = load();
    let mut rows = vec![starts(&servers)?];
    rows.extend(streams(&servers)?);
    keep_measured(rows, &load, COMMAND)
}

/// How a server is started; the port follows.
struct Server {
    program: PathBuf,
    arguments: Vec<String>,
}

impl Server {
    /// `assay up` with the model imported: that happens once, so no start pays for it.
    fn ours(file: &Path) -> Result<Self> {
        let program = binary();
        let data = root().join("target/bench/serving");
        let _ = fs::remove_dir_all(&data);
        let mut import = Command::new(&program);
        import.args(["model", "import", "--name", MODEL, "--no-accuracy", "--data-dir"]);
        step("the model, imported", import.arg(&data).arg(file))?;
        let mut up = vec!["up", "--model", MODEL, "--providers", "1", "--rpc-port", "0"];
        let (threads, data) = (THREADS.to_string(), data.display().to_string());
        up.extend(["--threads", &threads, "--data-dir", &data, "--port"]);
        let server = Self { program, arguments: up.into_iter().map(str::to_owned).collect() };
        // Keys, chain and channel are made at the first start.
        drop(server.start()?);
        Ok(server)
    }

    fn theirs(file: &Path, peer: &Peer) -> Self {
        let streams = STREAMS.into_iter().max().unwrap_or_default();
        let (slots, context) = (streams.to_string(), (streams * CONTEXT).to_string());
        let (threads, file) = (THREADS.to_string(), file.display().to_string());
        let arguments = [
            ["--model", &file],
            ["--parallel", &slots],
            ["--ctx-size", &context],
            ["--threads", &threads],
            ["--threads-batch", &threads],
            ["--alias", MODEL],
        ];
        let arguments = arguments.into_iter().flatten().chain(["--port"]).map(str::to_owned);
        Self { program: peer.program().to_path_buf(), arguments: arguments.collect() }
    }

    /// Starts it, and waits for the first token that it gives.
    fn start(&self) -> Result<Started> {
        let port = free_port()?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).arg(port.to_string());
        command.env("ASSAY_LOG", "error").stderr(Stdio::null());
        let begun = Instant::now();
        let mut running = command.running()?;
        while !answers(port) {
            if running.0.try_wait()?.is_some() {
                bail!("{} ended before it answered", line(&command));
            }
            if begun.elapsed() > START_MAX {
                bail!("{} answered nothing within {START_MAX:?}", line(&command));
            }
            sleep(TRY_EVERY);
        }
        Ok(Started { running, port, took: begun.elapsed() })
    }
}

/// A server that has answered.
struct Started {
    running: Running,
    port: u16,
    /// From its start to its first token.
    took: Duration,
}

impl Started {
    /// The most memory that it ever had, in MiB, as Linux tells it.
    fn memory_max(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.running.0.id()))?;
        let row = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = row.and_then(|row| row.trim().strip_suffix(" kB")).context("memory is known")?;
        Ok(kib.trim().parse::<f64>()? / 1024.0)
    }
}

/// Whether a server gives a token now.
fn answers(port: u16) -> bool {
    let body = json!({
        "model": MODEL,
        "messages": [{ "role": "user", "content": "a" }],
        "max_tokens": 1,
        "temperature": 0,
    });
    ask(port, "POST /v1/chat/completions", &body.to_string()).is_some()
}

/// The body of what a server says to a request, if it is a success.
fn ask(port: u16, what: &str, body: &str) -> Option<String> {
    let length = body.len();
    let request = format!(
        "{what} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    let (head, body) = reply.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

/// MiB of keys and values that our provider has, those kept for prompts that begin alike included.
fn kv_mib(port: u16) -> Option<f64> {
    let providers: Value = serde_json::from_str(&ask(port, "GET /v1/providers", "")?).ok()?;
    let provider = providers["data"][0]["url"].as_str()?.rsplit(':').next()?;
    let page = ask(provider.trim_end_matches('/').parse().ok()?, "GET /metrics", "")?;
    let bytes = page.lines().find(|line| line.starts_with("assay_kv_cache_bytes{"))?;
    Some(bytes.rsplit(' ').next()?.parse::<f64>().ok()? / f64::from(1 << 20))
}

/// Time to the first token after the start.
fn starts(servers: &[Server; 2]) -> Result<Row> {
    let mut found: [Vec<f64>; 2] = Default::default();
    for round in 1..=ROUNDS {
        for (server, found) in servers.iter().zip(&mut found) {
            found.push(1e3 * server.start()?.took.as_secs_f64());
        }
        let last = found.each_ref().map(|found| found.last().copied().unwrap_or_default());
        eprintln!("    start, round {round}: {:.0} beside {:.0} ms", last[0], last[1]);
    }
    let [ours, theirs] = found.map(median);
    Ok(Row::new("engine.start_ms", &json!(ours), "ms").beside(NAME, &json!(theirs)))
}

/// Tokens a second of all streams together, and the most memory that this took.
fn streams(servers: &[Server; 2]) -> Result<Vec<Row>> {
    let started = [servers[0].start()?, servers[1].start()?];
    let mut rows = Vec::new();
    for streams in STREAMS {
        let mut bench = Command::new(binary());
        bench.args(["bench", "--json", "--model", MODEL]);
        for server in &started {
            bench.args(["--url", &format!("http://127.0.0.1:{}", server.port)]);
            bench.args(["--pid", &server.running.0.id().to_string()]);
        }
        for (name, value) in [
            ("--concurrency", streams),
            ("--requests", 2 * streams),
            ("--rounds", ROUNDS),
            ("--input", INPUT),
            ("--output", OUTPUT),
        ] {
            bench.args([name, &value.to_string()]);
        }
        // Its rounds are told as they end.
        let found = said(bench.stderr(Stdio::inherit()))?;
        let of = |server: usize, figure: &str| {
            let value = &found["servers"][server]["figures"][figure]["median"];
            value
                .as_f64()
                .map(|value| json!(value))
                .with_context(|| format!("no {figure} in {found}"))
        };
        for (name, figure, unit) in [
            ("tok_s", "output_tokens_s", "tokens/s"),
            ("ttft_p50_ms", "ttft_ms.p50", "ms"),
            ("cpu", "cpu_ms_a_request", "ms/request"),
        ] {
            let row = Row::new(&format!("engine.streams{streams}.{name}"), &of(0, figure)?, unit);
            rows.push(row.beside(NAME, &of(1, figure)?));
        }
    }
    let [ours, theirs] = started.each_ref().map(Started::memory_max);
    let memory = Row::new("engine.memory_max_mib", &json!(ours?), "MiB");
    rows.push(memory.beside(NAME, &json!(theirs?)));
    let kv = kv_mib(started[0].port).context("the provider tells what it keeps")?;
    rows.push(Row::new("engine.kv_mib", &json!(kv), "MiB"));
    Ok(rows)
}
