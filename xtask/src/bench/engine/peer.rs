//! llama.cpp as it is built from the source package of its Python bindings, which pins a version
//! that a package index keeps.
//!
//! Two builds: for this machine, and for one that has AVX2 and nothing newer. Everything lies in
//! `target/bench/peers` and is made once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Speed, Task, number};
use crate::bench::gateway::environment;
use crate::{line, root, step};

/// What rows call it.
pub(in crate::bench) const NAME: &str = "llama.cpp of llama-cpp-python 0.3.36";
/// The source package.
const PACKAGE: &str = "llama-cpp-python==0.3.36";
const NAME_THERE: &str = "llama-cpp-python";
const ARCHIVE: &str = "llama_cpp_python-0.3.36";
const TOOLS: &[&str] = &["cmake==4.4.4", "ninja==1.13.2"];
/// What neither build needs.
const WITHOUT: [&str; 7] = [
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_CURL=OFF",
    "-DBUILD_SHARED_LIBS=OFF",
];
/// Longest that one run may take.
const RUN_MAX: Duration = Duration::from_secs(600);
/// Ticks of `/proc` a second.
const TICKS: f64 = 100.0;

/// Which instructions a build uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench) enum Build {
    /// All that this machine has.
    Native,
    /// AVX2, FMA and F16C.
    Avx2,
}

impl Build {
    pub(super) fn name(self) -> &'static str {
        match self {
            Build::Native => "native",
            Build::Avx2 => "avx2",
        }
    }

    /// What a row's name ends with.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Build::Native => "",
            Build::Avx2 => ".avx2",
        }
    }

    /// The path of ours that stands beside it; the fastest if none is named.
    pub(super) fn isa(self) -> Option<&'static str> {
        match self {
            Build::Native => None,
            Build::Avx2 => Some("avx2"),
        }
    }

    fn options(self) -> &'static [&'static str] {
        match self {
            Build::Native => &["-DCMAKE_C_FLAGS=-march=native", "-DCMAKE_CXX_FLAGS=-march=native"],
            Build::Avx2 => &[
                "-DGGML_NATIVE=OFF",
                "-DGGML_SSE42=ON",
                "-DGGML_AVX=ON",
                "-DGGML_AVX2=ON",
                "-DGGML_BMI2=ON",
                "-DGGML_FMA=ON",
                "-DGGML_F16C=ON",
                "-DGGML_AVX512=OFF",
                "-DGGML_AVX_VNNI=OFF",
            ],
        }
    }
}

/// One build of llama.cpp.
pub(in crate::bench) struct Peer {
    build: Build,
    program: PathBuf,
}

impl Peer {
    /// Fetches the source and builds one of its programs, unless that was done.
    pub(in crate::bench) fn built(build: Build, name: &str) -> Result<Peer> {
        let folder = root().join("target/bench/peers");
        let venv = folder.join("llama-tools");
        environment(&venv, &[TOOLS])?;
        let source = source(&folder, &venv)?;
        let made = folder.join(format!("llama-{}", build.name()));
        let program = made.join("bin").join(name);
        if !program.exists() {
            let cmake = || tool(&venv, "cmake");
            let mut configure = cmake();
            configure.args(["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"]).args(WITHOUT);
            configure.args(build.options()).arg("-S").arg(&source).arg("-B").arg(&made);
            let ninja = venv.join("bin/ninja");
            configure.arg(format!("-DCMAKE_MAKE_PROGRAM={}", ninja.display()));
            step("llama.cpp, configured", &mut configure)?;
            let mut compile = cmake();
            compile.arg("--build").arg(&made).args(["--target", name]);
            step("llama.cpp", &mut compile)?;
        }
        Ok(Peer { build, program })
    }

    /// The program that was built.
    pub(in crate::bench) fn program(&self) -> &Path {
        &self.program
    }

    pub(super) fn build(&self) -> Build {
        self.build
    }

    /// One run, warm-up before it.
    pub(super) fn run(&self, model: &Path, task: Task, threads: usize) -> Result<Speed> {
        let (prompt, output) = match task {
            Task::Decode => (0, task.tokens()),
            Task::Prefill => (task.tokens(), 0),
        };
        let mut command = Command::new(&self.program);
        command.arg("-m").arg(model).args(["-r", "1", "-o", "jsonl", "-t", &threads.to_string()]);
        command.args(["-p", &prompt.to_string(), "-n", &output.to_string()]);
        let (text, cpu_seconds) = finished(&mut command)?;
        let row: Value = serde_json::from_str(text.trim()).context("llama-bench says JSON")?;
        // It warms up with the prompt, or with one token.
        let computed = if prompt > 0 { 2 * prompt } else { output + 1 };
        Ok(Speed {
            tokens_s: number(&row, "avg_ts")?,
            cpu_ms: 1000.0 * cpu_seconds / computed as f64,
        })
    }
}

/// llama.cpp's source, fetched and unpacked once.
pub(crate) fn llama_source() -> Result<PathBuf> {
    let folder = root().join("target/bench/peers");
    let venv = folder.join("llama-tools");
    environment(&venv, &[TOOLS])?;
    source(&folder, &venv)
}

/// llama.cpp's source, unpacked once.
fn source(folder: &Path, venv: &Path) -> Result<PathBuf> {
    let source = folder.join(ARCHIVE).join("vendor/llama.cpp");
    if source.join("CMakeLists.txt").exists() {
        return Ok(source);
    }
    let mut fetch = tool(venv, "python");
    // The package alone as its source: what it is built with comes built.
    fetch.args(["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", NAME_THERE]);
    step("llama.cpp's source", fetch.arg("--dest").arg(folder).arg(PACKAGE))?;
    let mut unpack = Command::new("tar");
    unpack.arg("-xzf").arg(folder.join(format!("{ARCHIVE}.tar.gz"))).arg("-C").arg(folder);
    step("llama.cpp's source, unpacked", &mut unpack)?;
    Ok(source)
}

fn tool(venv: &Path, name: &str) -> Command {
    Command::new(venv.join("bin").join(name))
}

/// What a program printed, and the processor time that it took, in seconds.
fn finished(command: &mut Command) -> Result<(String, f64)> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("{} cannot run", line(command)))?;
    let ended = ended(&mut child);
    if ended.is_err() {
        // It may be running still.
        let _ = child.kill();
    }
    let output = child.wait_with_output()?;
    let cpu_seconds = ended?;
    if !output.status.success() {
        bail!("{} ({})", line(command), output.status);
    }
    Ok((String::from_utf8(output.stdout)?, cpu_seconds))
}

/// Waits until a program has ended; the processor time it took, which the system tells until
/// somebody collects the process.
fn ended(child: &mut Child) -> Result<f64> {
    let stat = PathBuf::from(format!("/proc/{}/stat", child.id()));
    let begun = Instant::now();
    while begun.elapsed() < RUN_MAX {
        let text = fs::read_to_string(&stat).context("processor time is known on Linux only")?;
        // What follows the program's name, which may hold anything.
        let fields: Vec<&str> =
            text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        if fields.first() == Some(&"Z") {
            let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
            let (user, system) = ticks(11).zip(ticks(12)).context("a process has its times")?;
            return Ok((user + system) / TICKS);
        }
        sleep(Duration::from_millis(20));
    }
    bail!("llama-bench ran longer than {RUN_MAX:?}")
}
