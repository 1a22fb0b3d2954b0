//! A running `assay up`, and the commands against it.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest wait for a process to end by itself.
const END_MAX: Duration = Duration::from_secs(40);

pub(crate) fn assay() -> Command {
    let mut assay = Command::new(env!("CARGO_BIN_EXE_assay"));
    for variable in [
        "DATA_DIR",
        "PORT",
        "HOST",
        "MODEL",
        "PROVIDERS",
        "THREADS",
        "URL",
        "ISA",
        "LOG",
        "RPC",
        "RPC_PORT",
        "KEY_FILE",
        "API_KEY",
        "REQUIRE_KEYS",
        "X402",
        "WITH_CHEATER",
        "VALIDATORS",
        "CANARIES",
        "CANARY_PROMPTS",
    ] {
        assay.env_remove(format!("ASSAY_{variable}"));
    }
    assay.env("NO_COLOR", "1").stdin(Stdio::null());
    assay
}

/// `assay up` on a free port.
pub(crate) struct Up {
    child: Child,
    pub(crate) ready: Value,
    pub(crate) data: PathBuf,
}

impl Up {
    pub(crate) fn start(data: &Path) -> Self {
        Self::start_by(assay(), data)
    }

    /// A network that serves these models.
    pub(crate) fn start_serving(data: &Path, models: &[&str], options: &[&str]) -> Self {
        let mut command = assay();
        command.arg("up").args(models.iter().flat_map(|model| ["--model", model])).args(options);
        Self::started(command, data)
    }

    /// A network with one setting from the environment.
    pub(crate) fn start_with(data: &Path, name: &str, value: &str) -> Self {
        let mut command = assay();
        command.env(name, value);
        Self::start_by(command, data)
    }

    /// A network whose files can have at most so many bytes, as on a disk that is full.
    pub(crate) fn start_with_files_of(data: &Path, bytes: usize) -> Self {
        let mut shell = Command::new("sh");
        let blocks = bytes / 512;
        let limited = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        shell.args(["-c", &limited]).arg(assay().get_program());
        // Nobody reads what is said, and a full pipe would hold the network up.
        shell.env("ASSAY_LOG", "off").stdin(Stdio::null());
        Self::start_by(shell, data)
    }

    fn start_by(mut command: Command, data: &Path) -> Self {
        command.arg("up");
        Self::started(command, data)
    }

    /// A network by a command whose words end with options of `up`.
    fn started(mut command: Command, data: &Path) -> Self {
        let mut child = command
            .args(["--json", "--port", "0", "--rpc-port", "0", "--threads", "1", "--data-dir"])
            .arg(data)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            panic!("`assay up` did not become ready: {said}");
        }
        let ready = serde_json::from_str(&line).unwrap();
        Self { child, ready, data: data.to_owned() }
    }

    pub(crate) fn url(&self) -> &str {
        self.ready["gateway"].as_str().unwrap()
    }

    /// Asks the gateway; gives what `assay run --json` prints, and the receipt.
    pub(crate) fn ask(&self, prompt: &str, receipt: &Path) -> Value {
        let mut run = assay();
        run.args(["run", "--json", "--url", self.url(), prompt, "--receipt"]).arg(receipt);
        json(&done(run.output().unwrap()))
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Kills it as a power cut would, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Reads standard error until a line begins with `word`.
    pub(crate) fn hear(&mut self, word: &str) {
        let mut lines = BufReader::new(self.child.stderr.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().starts_with(word)), "{word} was never said");
    }

    /// Waits for the end; gives the status and what was said on standard error.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(began.elapsed() < END_MAX, "the process does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status, said)
    }

    /// Interrupts it, and expects a clean end.
    pub(crate) fn stop(self) {
        self.signal("-INT");
        let (status, said) = self.end();
        assert_eq!(status.code(), Some(0), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command printed, which must have succeeded.
pub(crate) fn done(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {said}", output.status.code());
    String::from_utf8(output.stdout).unwrap()
}

/// What a command prints as JSON, and its exit code.
pub(crate) fn said(data: &Path, words: &[&str]) -> (i32, Value) {
    let mut command = assay();
    let output = command.args(words).arg("--json").arg("--data-dir").arg(data).output().unwrap();
    let said = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    (output.status.code().unwrap(), said)
}

/// The exit code of a command that fails, and what it said.
pub(crate) fn refused(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), said)
}

pub(crate) fn json(text: &str) -> Value {
    assert_eq!(text.trim_end().lines().count(), 1, "one document on one line: {text}");
    serde_json::from_str(text).unwrap()
}
