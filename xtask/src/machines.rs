//! The engine on processors that this machine is not: aarch64 under QEMU, and WebAssembly in Node.
//!
//! One program imports the small model, answers and replays (`crates/engine/examples/bits.rs`); every
//! machine and every path of this one must print the same hashes. What is missing is fetched: Rust's
//! library by rustup, a C compiler for other machines (Zig's, from PyPI), QEMU from Debian. Where that
//! fails, the machine is left out and the run says so, as not everyone has these tools.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::sdk::{python, works};
use crate::{cargo, line, root, step};

const MODEL: &str = "assets/nano/nano-q8_0.gguf";

/// A processor that this machine is not.
struct Machine {
    name: &'static str,
    /// Rust's name for it.
    target: &'static str,
    /// Zig's name for it.
    zig: &'static str,
    linker: Option<&'static str>,
    /// Makes sure that its programs can run here; the command that runs them.
    runner: fn() -> Result<String>,
}

const MACHINES: [Machine; 2] = [
    Machine {
        name: "aarch64",
        target: "aarch64-unknown-linux-musl",
        zig: "aarch64-linux-musl",
        linker: Some("rust-lld"),
        runner: qemu,
    },
    Machine {
        name: "WebAssembly",
        target: "wasm32-wasip1",
        zig: "wasm32-wasi",
        linker: None,
        runner: node,
    },
];

pub(crate) fn run() -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--locked", "--package", "assay-engine", "--example", "bits"]);
    step("what this machine computes", &mut build)?;
    compare()
}

/// As [`run`], with the program that the workspace's tests have built.
pub(crate) fn compare() -> Result<()> {
    let built = std::env::current_exe()?.with_file_name("examples").join("bits");
    let expected = answers("this machine", Command::new(&built).current_dir(root()))?;
    let mut scalar = Command::new(&built);
    let scalar = answers("scalar", scalar.current_dir(root()).env("ASSAY_ISA", "scalar"))?;
    same("scalar", &scalar, &expected)?;
    for machine in &MACHINES {
        match machine.prepare() {
            Ok(mut bits) => {
                let found = answers(machine.name, &mut bits)?;
                same(machine.name, &found, &expected)?;
            }
            Err(reason) => {
                let name = machine.name;
                eprintln!("!!! SKIPPED: {name} was not compared with this machine: {reason:#}");
            }
        }
    }
    Ok(())
}

impl Machine {
    /// Fetches what is missing; the command that builds and runs the program there.
    fn prepare(&self) -> Result<Command> {
        let Self { target, zig, .. } = self;
        step("Rust's library", Command::new("rustup").args(["target", "add", target]))?;
        let runner = (self.runner)()?;
        let python = python()?;
        let [compiler, archiver] =
            [format!("cc -fno-sanitize=undefined -target {zig}"), "ar".into()]
                .map(|tool| script(&python, target, &tool));

        let mut bits = cargo();
        bits.args(["run", "--locked", "--package", "assay-engine", "--example", "bits"]);
        bits.args(["--target", target, "--"]);
        let [lower, upper] = [target.replace('-', "_"), target.replace('-', "_").to_uppercase()];
        bits.env(format!("CARGO_TARGET_{upper}_RUNNER"), runner);
        if let Some(linker) = self.linker {
            bits.env(format!("CARGO_TARGET_{upper}_LINKER"), linker);
        }
        bits.env(format!("CC_{lower}"), compiler?).env(format!("AR_{lower}"), archiver?);
        // Zig knows the machine by another name than the flags would say.
        bits.env("CRATE_CC_NO_DEFAULTS", "1");
        Ok(bits)
    }
}

/// What the program prints.
fn answers(what: &str, bits: &mut Command) -> Result<String> {
    bits.arg(MODEL);
    eprintln!("==> {what}: {}", line(bits));
    let ran = bits.stderr(Stdio::inherit()).output()?;
    ensure!(ran.status.success(), "{what}: the program failed ({})", ran.status);
    let printed = String::from_utf8(ran.stdout).context("hashes are text")?;
    ensure!(printed.starts_with("model "), "{what}: the program printed no hashes");
    Ok(printed)
}

fn same(what: &str, found: &str, expected: &str) -> Result<()> {
    let differs = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    if let Some((found, expected)) = differs {
        bail!("{what} computes other bits:\n  {found}\nthis machine:\n  {expected}");
    }
    ensure!(found == expected, "{what} answers another number of orders");
    Ok(())
}

/// A program that passes its arguments to one of Zig's tools, as Rust's build scripts want one word.
fn script(python: &Path, target: &str, tool: &str) -> Result<PathBuf> {
    let name = tool.split(' ').next().unwrap_or(tool);
    let path = folder()?.join(format!("{target}-{name}"));
    fs::write(&path, format!("#!/bin/sh\nexec '{}' -m ziglang {tool} \"$@\"\n", python.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// QEMU's program for aarch64, of the system or from Debian's package, unpacked without being root.
fn qemu() -> Result<String> {
    const NAME: &str = "qemu-aarch64-static";
    if let Some(own) = [NAME, "qemu-aarch64"].into_iter().find(|name| works(name)) {
        return Ok(own.into());
    }
    let folder = folder()?;
    let unpacked = folder.join("usr/bin").join(NAME);
    if !unpacked.exists() {
        let mut download = Command::new("apt-get");
        download.current_dir(&folder).args(["download", "--quiet", "qemu-user-static"]);
        step("QEMU; on Debian: apt install qemu-user-static", &mut download)?;
        let packages = fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path()));
        let package =
            packages.filter(|path| path.extension().is_some_and(|end| end == "deb")).max();
        let package = package.context("apt-get left no package")?;
        step("QEMU's package", Command::new("dpkg-deb").arg("-x").arg(package).arg(&folder))?;
    }
    let path = unpacked.to_str().context("the folder's name is not text")?;
    ensure!(works(path), "{path} does not run");
    Ok(path.into())
}

fn node() -> Result<String> {
    ensure!(works("node"), "node is missing: install Node.js 20 or later");
    Ok("node --no-warnings tests/machines/wasi.mjs".into())
}

/// Where fetched tools stay.
fn folder() -> Result<PathBuf> {
    let folder = root().join("target/machines");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
