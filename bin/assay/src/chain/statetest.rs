//! `assay chain statetest`: runs Ethereum's state tests on this chain's machine, state and trie.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use assay_evm::{Report, left_out, run_state_tests};
use clap::Args;
use serde_json::{Value, json};

use crate::failure::{Exit, Failure, Outcome};
use crate::machine::processors;
use crate::terminal::{Colour, coloured, say, say_json, stdout_has_colour};

/// Run state tests in the JSON form of ethereum/tests and execution-spec-tests
///
/// Every case of every test runs under each fork that its file names; state root, hash of the logs,
/// output and refusal must be as the file says.
#[derive(Args, Debug)]
pub(crate) struct Statetest {
    /// Files, or directories in which every .json file is taken
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Run also those files of directories that may take minutes; files that are named are run anyway
    #[arg(long)]
    slow: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What came of one file.
#[derive(Debug)]
enum Ran {
    Cases(Report),
    /// No case of it was run, for this reason.
    LeftOut(&'static str),
    /// It could not be read.
    Unreadable(String),
}

/// What came of all files.
#[derive(Debug, Default)]
struct Totals {
    passed: usize,
    failed: usize,
    skipped: usize,
    skipped_files: usize,
    failures: Vec<Value>,
}

impl Statetest {
    pub(crate) fn run(self) -> Outcome<ExitCode> {
        let mut files = Vec::new();
        for path in &self.paths {
            gather(path, &mut files)?;
        }
        if files.is_empty() {
            let failure =
                Failure::new(Exit::NotFound, "there is no .json file in these directories");
            return Err(failure.fix("name files, or directories that hold some"));
        }
        let slow = self.slow || self.paths.iter().all(|path| path.is_file());
        let mut totals = Totals::default();
        for (path, ran) in files.iter().zip(run_all(&files, slow)) {
            totals.add(path, ran, !self.json);
        }
        totals.tell(files.len(), self.json);
        Ok(if totals.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(Exit::Failed as u8) })
    }
}

/// Adds the file at `path`, or those below it in the order of their names.
fn gather(path: &Path, files: &mut Vec<PathBuf>) -> Outcome {
    let failed = |error: std::io::Error| Failure::file(path.display(), &error);
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut entries: Vec<_> =
        fs::read_dir(path).and_then(|entries| entries.collect()).map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let kind = entry.file_type().map_err(failed)?;
        let path = entry.path();
        if kind.is_dir() && !hidden {
            gather(&path, files)?;
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    Ok(())
}

/// Runs every file, several at a time; the answers are in the order of the files.
fn run_all(files: &[PathBuf], slow: bool) -> Vec<Ran> {
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::with_capacity(files.len()));
    std::thread::scope(|scope| {
        for _ in 0..processors().get().min(files.len()) {
            scope.spawn(|| {
                while let Some((index, path)) = take(files, &next) {
                    let ran = run_file(path, slow);
                    answers
                        .lock()
                        .unwrap_or_else(|poisoned| poisoned.into_inner())
                        .push((index, ran));
                }
            });
        }
    });
    let mut answers = answers.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    answers.sort_by_key(|(index, _)| *index);
    answers.into_iter().map(|(_, ran)| ran).collect()
}

fn take<'a>(files: &'a [PathBuf], next: &AtomicUsize) -> Option<(usize, &'a Path)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    Some((index, files.get(index)?))
}

fn run_file(path: &Path, slow: bool) -> Ran {
    if let Some(reason) = left_out(path, slow) {
        return Ran::LeftOut(reason);
    }
    match fs::read(path) {
        Ok(json) => match run_state_tests(&json) {
            Ok(report) => Ran::Cases(report),
            Err(error) => Ran::Unreadable(error.to_string()),
        },
        Err(error) => Ran::Unreadable(error.to_string()),
    }
}

impl Totals {
    /// Counts a file, and tells of each failure in it if asked to.
    fn add(&mut self, path: &Path, ran: Ran, tell: bool) {
        let path = path.display();
        match ran {
            Ran::Cases(report) => {
                self.passed += report.passed;
                self.skipped += report.skipped.values().sum::<usize>();
                for failure in report.failed {
                    let [data, gas, value] = failure.indexes;
                    let case =
                        format!("{} [{} d{data} g{gas} v{value}]", failure.test, failure.fork);
                    self.fail(&path, &case, &failure.difference, tell);
                }
                if tell {
                    for (reason, cases) in report.skipped {
                        say(format_args!("SKIP  {path}: {cases} cases: {reason}"));
                    }
                }
            }
            Ran::LeftOut(reason) => {
                self.skipped_files += 1;
                if tell {
                    say(format_args!("SKIP  {path}: {reason}"));
                }
            }
            Ran::Unreadable(reason) => self.fail(&path, "the file", &reason, tell),
        }
    }

    fn fail(
        &mut self,
        path: &dyn std::fmt::Display,
        case: &str,
        difference: &dyn std::fmt::Display,
        tell: bool,
    ) {
        self.failed += 1;
        if tell {
            let word = coloured("FAIL", Colour::Red, stdout_has_colour());
            say(format_args!("{word}  {path}: {case}: {difference}"));
        }
        self.failures.push(json!({
            "file": path.to_string(), "case": case, "difference": difference.to_string(),
        }));
    }

    fn tell(&self, files: usize, as_json: bool) {
        let Self { passed, failed, skipped, skipped_files, failures } = self;
        if as_json {
            return say_json(&json!({
                "schema": "assay.statetest/1",
                "files": files, "passed": passed, "failed": failed, "skipped": skipped,
                "files_skipped": skipped_files, "failures": failures,
            }));
        }
        say(format_args!(
            "{passed} passed, {failed} failed, {skipped} skipped; {files} files, {skipped_files} of \
             them skipped"
        ));
    }
}
