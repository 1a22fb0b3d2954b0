//! Throws changed bytes at a reader of foreign bytes.
//!
//! A line belongs here if it makes such bytes, or judges how a reader took them. Every reader of what
//! strangers send has a test that calls [`hold`]: the bytes of a small corpus, and what a seed makes of
//! them, may be refused, but never end the process, nor take more time or memory than is said here.
//!
//! An ordinary run takes moments and is the same every time. `cargo xtask fuzz` lets one run for long;
//! what breaks a reader is left in `target/fuzz`, and belongs in the corpus once it is mended.

mod change;
mod cost;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, panic};

use change::Changer;

/// How long a run goes on, in seconds; without it, [`INPUTS`] inputs are thrown.
const SECONDS: &str = "ASSAY_FUZZ_SECONDS";
/// Where a run begins, so that the next one throws something else.
const SEED: &str = "ASSAY_FUZZ_SEED";
/// Inputs of an ordinary run, after the corpus.
const INPUTS: u64 = 100;
/// Longest input that is made, in bytes.
const INPUT_BYTES_MAX: usize = 1 << 16;
/// Longest that one input may take, on a busy machine and without optimisation.
const TIME_MAX: Duration = Duration::from_secs(30);
/// Most memory that one input may add to what the process has, in bytes.
const MEMORY_MAX: u64 = 512 << 20;

/// Throws the corpus `name` at `read`, and what comes of it by changes; `words` are what such bytes are
/// made of, so that changes hit something. `read` says whether it took what it was given for sound.
///
/// # Panics
/// If `read` panics, or takes too much time or memory: the input then lies in `target/fuzz`. And if it
/// takes nothing of the corpus for sound, since then no change would reach what lies behind.
pub fn hold(name: &str, words: &[&str], read: impl Fn(&[u8]) -> bool) {
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "the corpus {name} is empty");
    cost::bound_address_space();
    let sound = corpus.iter().filter(|bytes| throw(name, bytes, &read)).count();
    assert!(sound > 0, "nothing in the corpus {name} is taken for sound");
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let until = number(SECONDS).map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let seed = number(SEED).unwrap_or(1);
    let mut changer = Changer::new(seed, words);
    let mut thrown = 0u64;
    while until.map_or(thrown < INPUTS, |until| Instant::now() < until) {
        let mut bytes = changer.changed(&corpus);
        bytes.truncate(INPUT_BYTES_MAX);
        throw(name, &bytes, &read);
        thrown += 1;
    }
    if until.is_some() {
        report(&format!("{name}: {thrown} inputs from seed {seed} were borne"));
    }
}

/// The files of one corpus, in the order of their names.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries =
        fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let read = |path: &PathBuf| {
        fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    files.iter().map(read).collect()
}

fn throw(name: &str, bytes: &[u8], read: impl Fn(&[u8]) -> bool) -> bool {
    let kept = keep(name, bytes);
    let (begun, before) = (Instant::now(), cost::memory_peak());
    let outcome = panic::catch_unwind(panic::AssertUnwindSafe(|| read(bytes)));
    let (took, more) = (begun.elapsed(), cost::memory_peak().saturating_sub(before));
    let sound = outcome.unwrap_or_else(|cause| {
        report(&format!("{name} panics on {}", kept.display()));
        panic::resume_unwind(cause)
    });
    assert!(took <= TIME_MAX, "{name} takes {took:?} for {}", kept.display());
    assert!(more <= MEMORY_MAX, "{name} takes {more} bytes for {}", kept.display());
    // If it stays, nobody is misled for longer than until the next run.
    let _ = fs::remove_file(&kept);
    sound
}

/// Leaves an input where it is found if the process ends.
fn keep(name: &str, bytes: &[u8]) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/fuzz");
    let path = folder.join(format!("{name}-{}", std::process::id()));
    let _ = fs::create_dir_all(&folder);
    // Without a disk to write on, the test still tests.
    let _ = fs::write(&path, bytes);
    path
}

#[expect(clippy::print_stderr, reason = "whoever waits for a long run is told how it went")]
fn report(said: &str) {
    eprintln!("{said}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_panics_is_found() {
        let broken = |bytes: &[u8]| {
            assert!(!bytes.contains(&b'@'), "found it");
            true
        };
        let found = panic::catch_unwind(|| hold("template", &["@"], broken));
        assert!(found.is_err());
    }

    #[test]
    #[should_panic(expected = "nothing in the corpus template is taken for sound")]
    fn a_reader_that_refuses_everything_is_not_tested() {
        hold("template", &[], |_| false);
    }

    #[test]
    fn every_corpus_has_something() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        for entry in fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(!corpus(&name).is_empty(), "{name}");
        }
    }
}
