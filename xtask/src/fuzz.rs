//! Throws changed bytes at the readers of foreign bytes, for long: see `crates/fuzz`.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::{cargo, step};

/// The corpora, and the package whose test reads each.
const TARGETS: [(&str, &str); 11] = [
    ("charsmap", "assay-text"),
    ("gguf", "assay-models"),
    ("grammar", "assay-text"),
    ("manifest", "assay-protocol"),
    ("onnx", "assay-engine"),
    ("request", "assay-gateway"),
    ("safetensors", "assay-models"),
    ("schema", "assay-text"),
    ("template", "assay-text"),
    ("tokenizer", "assay-text"),
    ("wire", "assay-protocol"),
];
/// How long one target is run where nothing else is said.
const SECONDS: u64 = 60;

/// Runs the target that is named, or one after another; each begins anew with every run.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let (name, seconds) = read(arguments)?;
    let known = TARGETS.iter().filter(|(target, _)| name.is_none_or(|name| name == *target));
    let targets: Vec<_> = known.collect();
    if targets.is_empty() {
        let names = TARGETS.map(|(target, _)| target).join(", ");
        bail!("there is no such target; there are {names}");
    }
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    for (target, package) in targets {
        let mut test = cargo();
        // Some readers are behind a feature.
        test.args(["test", "--quiet", "--locked", "--all-features", "--package", package]);
        test.args([&format!("fuzz_{target}"), "--", "--nocapture"]);
        test.env("ASSAY_FUZZ_SECONDS", seconds.to_string());
        step(target, test.env("ASSAY_FUZZ_SEED", seed.to_string()))?;
    }
    Ok(())
}

/// `[TARGET] [--seconds N]`
fn read<'a>(arguments: &[&'a str]) -> Result<(Option<&'a str>, u64)> {
    let (name, rest) = match arguments {
        [name, rest @ ..] if !name.starts_with("--") => (Some(*name), rest),
        rest => (None, rest),
    };
    match rest {
        [] => Ok((name, SECONDS)),
        ["--seconds", seconds] => Ok((name, seconds.parse().context("--seconds takes a number")?)),
        _ => bail!("usage: cargo xtask fuzz [TARGET] [--seconds N]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root;

    #[test]
    fn arguments_are_a_target_and_a_time() {
        assert_eq!(read(&[]).unwrap(), (None, SECONDS));
        assert_eq!(read(&["wire", "--seconds", "5"]).unwrap(), (Some("wire"), 5));
        assert_eq!(read(&["--seconds", "5"]).unwrap(), (None, 5));
        assert!(read(&["wire", "5"]).is_err() && read(&["--seconds", "x"]).is_err());
    }

    #[test]
    fn every_corpus_is_a_target() {
        let entries = std::fs::read_dir(root().join("crates/fuzz/corpus")).unwrap();
        let mut corpora: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        corpora.sort();
        assert_eq!(corpora, TARGETS.map(|(target, _)| target));
    }
}
