//! Measures the gateway beside other people's, before the same static server, in one run.
//!
//! The server is nginx with one worker. What is asked, and by whom, is the same for all
//! (`roles/gateway/examples/load`); rounds go from one to the next, so that a busy moment hits all. Processor time is the
//! figure to trust: requests a second depend on what else the machine does.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::running::{Running, Start, binary, free_port, wait_for};
use super::{Row, keep_measured, load};
use crate::{cargo, line, root, step};

const COMMAND: &str = "cargo xtask bench gateway";

/// Rounds of which the median counts; of requests a second the best.
const ROUNDS: usize = 3;
/// LiteLLM takes a hundred times as long and is asked once.
const SLOW: &str = "LiteLLM 1.106.2";
/// Without one that looks strong it does not start. The routers do not look at it.
const LITELLM_KEY: &str = "sk-9f3b1c7d5e2a4860b1d7c3e5f9a2b4c6";
const SGLANG: &str = "sglang-router 0.3.2";
const VLLM: &str = "vllm-router 0.1.17";
const NGINX: &str = "nginx";
const OURS: &str = "assay";
const PAID: &str = "assay, paid";

/// Streams at once of a slow server.
const STREAMS: u32 = 10_000;

pub(crate) fn run() -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--workspace", "--bins", "--example", "load"]);
    step("benchmarks", &mut build)?;
    let folder = root().join("target/bench/gateway");
    fs::create_dir_all(&folder)?;
    let peers = Peers::installed(&folder)?;
    let busy = load();
    let upstream = Nginx::start(&folder)?;
    let ours = Assay::gateway(&folder, upstream.whole, upstream.events)?;
    let paid = Assay::network(&folder, upstream.whole, upstream.events)?;
    let others = peers.start(&folder, upstream.whole, upstream.events)?;

    let mut found = Found::default();
    for round in 0..ROUNDS {
        eprintln!("==> round {} of {ROUNDS}", round + 1);
        let (pid, key) = (upstream.running.0.id(), ("BEARER", ours.key.as_str()));
        found.add(
            NGINX,
            &Place::new(upstream.whole, pid),
            &Place::new(upstream.events, pid),
            &[],
        )?;
        let ours_of = |model| Place { url: ours.url.clone(), pid: ours.pid(), model };
        found.add(OURS, &ours_of(WHOLE), &ours_of(EVENTS), &[key])?;
        for Other { name, whole, events, .. } in &others {
            if round == 0 || *name != SLOW {
                found.add(name, whole, events, &[("BEARER", LITELLM_KEY)])?;
            }
        }
        let payer = paid.data.join("admin/key");
        let place = Place { url: paid.url.clone(), pid: paid.pid(), model: WHOLE };
        let pays = ask("pays", &place, 32, 6, &[("PAYER", path(&payer)?)])?;
        eprintln!("    {PAID}: {pays}");
        found.of(PAID, "c32").push(pays);
    }
    drop((paid, others, ours, upstream));
    let mut rows = found.rows()?;
    rows.extend(streams(&folder)?);
    keep_measured(rows, &busy, COMMAND)
}

/// What was measured: by gateway and by how it was asked.
#[derive(Default)]
struct Found(BTreeMap<(&'static str, &'static str), Vec<Value>>);

impl Found {
    fn of(&mut self, name: &'static str, how: &'static str) -> &mut Vec<Value> {
        self.0.entry((name, how)).or_default()
    }

    /// Asks one gateway in the three ways.
    fn add(
        &mut self,
        name: &'static str,
        whole: &Place,
        events: &Place,
        more: &[(&str, &str)],
    ) -> Result<()> {
        let stream = [more, &[("STREAM", "1")]].concat();
        let many = ask("asks", whole, 32, 5, more)?;
        let one = ask("asks", whole, 1, 3, more)?;
        let sse = ask("asks", events, 1, 3, &stream)?;
        eprintln!("    {name}: {many}");
        self.of(name, "c32").push(many);
        self.of(name, "c1").push(one);
        self.of(name, "sse").push(sse);
        Ok(())
    }

    fn median(&self, name: &'static str, how: &'static str, field: &str) -> Result<f64> {
        Ok(super::median(self.sorted(name, how, field)?))
    }

    fn best(&self, name: &'static str, how: &'static str, field: &str) -> Result<f64> {
        Ok(*self.sorted(name, how, field)?.last().context("nothing was measured")?)
    }

    fn sorted(&self, name: &'static str, how: &'static str, field: &str) -> Result<Vec<f64>> {
        let rows = self.0.get(&(name, how)).with_context(|| format!("{name} was not measured"))?;
        let mut values: Vec<f64> = rows.iter().filter_map(|row| row[field].as_f64()).collect();
        values.sort_unstable_by(f64::total_cmp);
        if values.is_empty() {
            bail!("{name} has no {field}");
        }
        Ok(values)
    }

    /// A figure of ours beside each peer's: the first peer's row has the plain name.
    fn beside(
        &self,
        name: &str,
        unit: &str,
        figure: impl Fn(&'static str) -> Result<f64>,
    ) -> Result<Vec<Row>> {
        let value = json!(figure(OURS)?);
        let peers = [(SGLANG, ""), (VLLM, ".vllm_router"), (SLOW, ".litellm")];
        let rows = peers.into_iter().map(|(peer, suffix)| {
            let row = Row::new(&format!("{name}{suffix}"), &value, unit);
            Ok(row.beside(peer, &json!(figure(peer)?)))
        });
        rows.collect()
    }

    fn rows(&self) -> Result<Vec<Row>> {
        let direct = self.median(NGINX, "c1", "p50_ms")?;
        let mut rows =
            self.beside("gateway.plain.cpu_us", "µs", |name| self.median(name, "c32", "cpu_us"))?;
        rows.extend(
            self.beside("gateway.plain.rps_c32", "requests/s", |name| {
                self.best(name, "c32", "rps")
            })?,
        );
        rows.extend(self.beside("gateway.plain.added_p50_ms", "ms", |name| {
            Ok(self.median(name, "c1", "p50_ms")? - direct)
        })?);
        rows.extend(
            self.beside("gateway.sse.full_ms", "ms", |name| self.median(name, "sse", "p50_ms"))?,
        );
        rows.extend(
            self.beside("gateway.rss_mib", "MiB", |name| self.best(name, "sse", "rss_mib"))?,
        );
        let paid = json!(self.median(PAID, "c32", "cpu_us")?);
        let unpaid = json!(self.median(SGLANG, "c32", "cpu_us")?);
        let sglang = "sglang-router 0.3.2, which takes no payment";
        rows.push(Row::new("gateway.paid.cpu_us", &paid, "µs").beside(sglang, &unpaid));
        let rps = json!(self.best(PAID, "c32", "rps")?);
        rows.push(Row::new("gateway.paid.rps_c32", &rps, "requests/s"));
        Ok(rows)
    }
}

/// Many slow streams at once through a gateway of ours.
fn streams(folder: &Path) -> Result<Vec<Row>> {
    let port = free_port()?;
    let mut slow = Command::new(example());
    let _slow = slow.args(["slow", &format!("127.0.0.1:{port}")]).running()?;
    wait_for(port)?;
    let ours = Assay::gateway(folder, port, port)?;
    let place = Place { url: ours.url.clone(), pid: ours.pid(), model: EVENTS };
    let found = ask("streams", &place, STREAMS, 20, &[("BEARER", &ours.key)])?;
    eprintln!("    streams: {found}");
    let row = |name: &str, field: &str, unit: &str| {
        Row::new(&format!("gateway.streams.{name}"), &found[field], unit)
    };
    Ok(vec![
        row("at_once", "streams", "streams"),
        row("late_p50_ms", "late_p50_ms", "ms"),
        row("late_p99_ms", "late_p99_ms", "ms"),
        row("rss_mib", "rss_mib", "MiB"),
    ])
}

fn example() -> PathBuf {
    root().join("target/release/examples/load")
}

/// Runs the load generator once.
fn ask(
    what: &str,
    Place { url, pid, model }: &Place,
    count: u32,
    seconds: u32,
    variables: &[(&str, &str)],
) -> Result<Value> {
    let mut command = Command::new(example());
    command.args([what, url, &pid.to_string(), &count.to_string(), &seconds.to_string()]);
    command.env("MODEL", model).envs(variables.iter().copied());
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("{} failed ({})", line(&command), output.status);
    }
    serde_json::from_slice(&output.stdout).context("a figure is JSON")
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("the folder's name is not text")
}

/// The models that a gateway passes to the port that answers whole, and to the one that answers by events.
const WHOLE: &str = "bench";
const EVENTS: &str = "bench-events";

/// Somebody who is asked, as which process, for which model.
struct Place {
    url: String,
    pid: u32,
    model: &'static str,
}

impl Place {
    fn new(port: u16, pid: u32) -> Self {
        Self { url: format!("http://127.0.0.1:{port}"), pid, model: WHOLE }
    }
}

/// A static server: the same answer to each request, whole on one port and as events on another.
struct Nginx {
    whole: u16,
    events: u16,
    running: Running,
}

impl Nginx {
    fn start(folder: &Path) -> Result<Self> {
        let folder = folder.join("nginx");
        fs::create_dir_all(&folder)?;
        let (whole, events) = (free_port()?, free_port()?);
        fs::write(folder.join("nginx.conf"), configuration(whole, events))?;
        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(&folder).args(["-e", "error.log", "-c", "nginx.conf"]);
        let running = nginx
            .running()
            .context("nginx is missing, and these figures need it: apt install nginx-light")?;
        wait_for(whole)?;
        Ok(Self { whole, events, running })
    }
}

fn configuration(whole: u16, events: u16) -> String {
    let answer = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "bench",
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": { "role": "assistant", "content": "Paris." },
        }],
        "usage": { "prompt_tokens": 25, "completion_tokens": 2, "total_tokens": 27 },
    });
    let chunk = json!({
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "bench",
        "choices": [{ "index": 0, "delta": { "content": "token " }, "finish_reason": null }],
    });
    let pieces = format!("data: {chunk}\\n\\n").repeat(20) + "data: [DONE]\\n\\n";
    // What routers want to know before they send anything.
    let models = json!({ "object": "list", "data": [{ "id": "bench", "object": "model" }] });
    format!(
        r#"daemon off; master_process off; pid nginx.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; tcp_nodelay on;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi; default_type application/json;
  server {{
    listen 127.0.0.1:{whole} backlog=4096;
    location = /v1/chat/completions {{ return 200 '{answer}'; }}
    location = /v1/models {{ return 200 '{models}'; }}
    location / {{ return 200 '{{"status":"ok"}}'; }}
  }}
  server {{
    listen 127.0.0.1:{events} backlog=4096;
    location = /v1/chat/completions {{ default_type text/event-stream; return 200 '{pieces}'; }}
    location = /v1/models {{ return 200 '{models}'; }}
    location / {{ return 200 '{{"status":"ok"}}'; }}
  }}
}}
"#
    )
}

/// A gateway of ours.
struct Assay {
    running: Running,
    url: String,
    data: PathBuf,
    key: String,
}

impl Assay {
    /// Alone, and only for those who have a key.
    fn gateway(folder: &Path, whole: u16, events: u16) -> Result<Self> {
        let relay = relay(whole, events);
        let mut ours =
            Self::start(&folder.join("plain"), &["gateway", "--require-keys", "--relay", &relay])?;
        let mut new = Command::new(binary());
        new.args(["api-key", "new", "bench", "--budget", "1", "--json", "--url", &ours.url]);
        new.args(["--rate", "1000000000"]).arg("--data-dir").arg(&ours.data);
        let output = new.stderr(Stdio::inherit()).output()?;
        let made: Value = serde_json::from_slice(&output.stdout).context("a key is JSON")?;
        ours.key = made["made"]["key"].as_str().context("a key was made")?.to_owned();
        Ok(ours)
    }

    /// With a chain on which its clients pay, in one process.
    fn network(folder: &Path, whole: u16, events: u16) -> Result<Self> {
        let relay = relay(whole, events);
        let paid = ["--relay-price", "0.000001", "--relay", &relay, "--rpc-port", "0"];
        Self::start(&folder.join("paid"), &[&["up", "--x402"][..], &paid].concat())
    }

    fn start(data: &Path, arguments: &[&str]) -> Result<Self> {
        let _ = fs::remove_dir_all(data);
        let mut command = Command::new(binary());
        command.args(arguments).args(["--port", "0", "--json", "--data-dir"]).arg(data);
        command.env("ASSAY_LOG", "warn").stdout(Stdio::piped());
        let mut running = Running(command.spawn().context("the binary does not start")?);
        let stdout = running.0.stdout.take().context("the binary's output is piped")?;
        let mut ready = String::new();
        BufReader::new(stdout).read_line(&mut ready)?;
        let ready: Value = serde_json::from_str(&ready)
            .with_context(|| format!("{} ended before it was ready", line(&command)))?;
        let url = ready["gateway"].as_str().context("it says where it is")?.to_owned();
        Ok(Self { running, url, data: data.to_path_buf(), key: String::new() })
    }

    fn pid(&self) -> u32 {
        self.running.0.id()
    }
}

fn relay(whole: u16, events: u16) -> String {
    let server = |port| format!("http://127.0.0.1:{port}");
    format!("{WHOLE}={},{EVENTS}={}", server(whole), server(events))
}

/// Other people's gateways, in Python environments of their own.
struct Peers {
    routers: PathBuf,
    litellm: PathBuf,
}

impl Peers {
    fn installed(folder: &Path) -> Result<Self> {
        let routers = folder.join("routers");
        // Their wheels name servers of gigabytes as dependencies, which routing does not need.
        let wheels = ["--no-deps", "sglang-router==0.3.2", "vllm-router==0.1.17"];
        let needs = ["setproctitle", "aiohttp", "orjson", "uvicorn", "fastapi", "requests"];
        environment(&routers, &[&wheels, &needs])?;
        let litellm = folder.join("litellm");
        environment(&litellm, &[&["litellm[proxy]==1.106.2"]])?;
        Ok(Self { routers, litellm })
    }

    fn start(&self, folder: &Path, whole: u16, events: u16) -> Result<Vec<Other>> {
        let router = |name: &str, more: &[&str], upstream: u16| -> Result<(Place, Running)> {
            let (port, metrics) = (free_port()?, free_port()?);
            let mut command = Command::new(self.routers.join("bin").join(name));
            command.args(more).args(["--host", "127.0.0.1", "--port", &port.to_string()]);
            command.args(["--policy", "round_robin", "--worker-urls"]);
            command.arg(format!("http://127.0.0.1:{upstream}"));
            command.args(["--prometheus-host", "127.0.0.1", "--prometheus-port"]);
            let running = command.arg(metrics.to_string()).stderr(Stdio::null()).running()?;
            eprintln!("==> waiting for {name}");
            wait_for(port)?;
            Ok((Place::new(port, running.0.id()), running))
        };
        // A router sends to all its servers what it is asked, so it is there twice.
        let twice = |name: &'static str, program: &str, more: &[&str]| -> Result<Other> {
            let (whole, first) = router(program, more, whole)?;
            let (events, second) = router(program, more, events)?;
            Ok(Other { name, whole, events, _running: vec![first, second] })
        };
        let sglang = twice(SGLANG, "sglang-router", &["launch", "--log-level", "warn"])?;
        let vllm = twice(VLLM, "vllm-router", &["--log-level", "warning"])?;
        let port = free_port()?;
        let config = folder.join("litellm.yaml");
        let model = |name: &str, port: u16| {
            let server = format!("http://127.0.0.1:{port}/v1");
            let params = json!({ "model": "openai/bench", "api_base": server, "api_key": "none" });
            json!({ "model_name": name, "litellm_params": params })
        };
        let models = json!({ "model_list": [model(WHOLE, whole), model(EVENTS, events)] });
        fs::write(&config, models.to_string())?;
        let mut litellm = Command::new(self.litellm.join("bin/litellm"));
        litellm.arg("--config").arg(&config).args(["--host", "127.0.0.1", "--num_workers", "2"]);
        litellm.args(["--port", &port.to_string()]).stderr(Stdio::null());
        // A map of prices that it would fetch, and logs that it would write for each request.
        litellm.envs([
            ("LITELLM_LOCAL_MODEL_COST_MAP", "True"),
            ("LITELLM_LOG", "ERROR"),
            ("LITELLM_MODE", "PRODUCTION"),
            ("LITELLM_MASTER_KEY", LITELLM_KEY),
        ]);
        let litellm = litellm.running()?;
        eprintln!("==> waiting for {SLOW}");
        wait_for(port)?;
        let (whole, pid) = (Place::new(port, litellm.0.id()), litellm.0.id());
        let events = Place { model: EVENTS, ..Place::new(port, pid) };
        let litellm = Other { name: SLOW, whole, events, _running: vec![litellm] };
        Ok(vec![sglang, vllm, litellm])
    }
}

/// A gateway of other people's.
struct Other {
    name: &'static str,
    whole: Place,
    events: Place,
    _running: Vec<Running>,
}

/// Makes a Python environment with packages, unless it is there.
pub(super) fn environment(folder: &Path, packages: &[&[&str]]) -> Result<()> {
    if folder.join("installed").exists() {
        return Ok(());
    }
    let mut make = Command::new("python3");
    step("Python environment", make.args(["-m", "venv", "--clear"]).arg(folder))?;
    for packages in packages {
        let mut install = Command::new(folder.join("bin/python"));
        install.args(["-m", "pip", "install", "--quiet"]).args(*packages);
        step("Python packages", &mut install)?;
    }
    fs::write(folder.join("installed"), "")?;
    Ok(())
}
