//! Every chat template of llama.cpp's source package, rendered by ours and by Python.
//!
//! Python renders as the library does that models are published with: `tests/vectors/templates.py`. A
//! rendering must be equal in every byte, and what one refuses the other must refuse in the same words.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::printed;
use crate::{cargo, root};

/// Letters that are shown on each side of where two texts part.
const SHOWN: usize = 60;

/// Templates without a word for tools. Python leaves tools out, and ours tells of them in words.
const IN_WORDS: [&str; 7] = [
    "HuggingFaceTB-SmolLM3-3B",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
    "deepseek-ai-DeepSeek-V3.1",
    "google-gemma-2-2b-it",
    "llama-cpp-rwkv-world",
    "microsoft-Phi-3.5-mini-instruct",
];

/// Templates that say something else by ours where there are tools, and why.
const OTHERWISE: [(&str, &str); 2] = [
    (
        "CohereForAI-c4ai-command-r-plus-tool_use",
        "of a map, `.items` is its method in Python, and the schema's field here",
    ),
    (
        "meetkai-functionary-medium-v3.1",
        "Python escapes as HTML what is joined to words that are marked safe",
    ),
];

/// Templates of which Python cannot render some case, and why.
const UNANSWERED: [(&str, &str); 2] = [
    ("fireworks-ai-llama-3-firefunction-v2", "it wants `functions`, which nobody else has"),
    ("llama-cpp-deepseek-r1", "a generator is no JSON in Python; ours writes a list"),
];

/// What became of one case.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Equal,
    /// Python's template library fails on it, for another reason than that the template refuses.
    Unanswered,
    /// How the two differ.
    Different(String),
}

/// Renders every template in a folder by both.
pub(super) fn compare(folder: &Path, python: &Path) -> Result<()> {
    let mut tell = Command::new(python);
    tell.arg(root().join("tests/vectors/templates.py")).arg(folder);
    let cases = printed(&mut tell)?;
    let said = rendered(&cases)?;
    if said.len() != cases.len() || cases.is_empty() {
        bail!("{} cases of templates have {} renderings", cases.len(), said.len());
    }
    let mut tally = Tally::default();
    for (case, said) in cases.iter().zip(&said) {
        tally.count(&serde_json::from_str(case)?, &serde_json::from_str(said)?)?;
    }
    tally.end()
}

/// What became of all cases.
#[derive(Default)]
struct Tally {
    equal: usize,
    /// Templates that differ, or that Python fails on, as the tables say: one for each such case.
    listed: Vec<String>,
    /// Cases that no table allows.
    wrong: Vec<String>,
}

impl Tally {
    fn count(&mut self, case: &Value, said: &Value) -> Result<()> {
        let name = case["name"].as_str().context("a case has a name")?;
        let with_tools = !case["tools"].is_null();
        let may_differ = with_tools && (IN_WORDS.contains(&name) || is_in(&OTHERWISE, name));
        let wrong = match outcome(case, said) {
            Outcome::Equal => {
                self.equal += 1;
                return Ok(());
            }
            Outcome::Different(_) if may_differ => None,
            Outcome::Unanswered if is_in(&UNANSWERED, name) => None,
            Outcome::Different(how) => Some(how),
            Outcome::Unanswered => Some(format!("Python fails: {}", case["fails"])),
        };
        match wrong {
            None => self.listed.push(name.to_owned()),
            Some(how) => self.wrong.push(format!("{name}, {}: {how}", case["what"])),
        }
        Ok(())
    }

    fn end(mut self) -> Result<()> {
        eprintln!(
            "    templates: {} renderings are equal, {} differ as listed, {} otherwise",
            self.equal,
            self.listed.len(),
            self.wrong.len()
        );
        let tables = [&OTHERWISE[..], &UNANSWERED].concat();
        for name in IN_WORDS.into_iter().chain(tables.into_iter().map(|(name, _)| name)) {
            if !self.listed.iter().any(|listed| listed == name) {
                self.wrong.push(format!("{name}: listed, and never different"));
            }
        }
        if !self.wrong.is_empty() {
            bail!("templates that differ:\n{}", self.wrong.join("\n"));
        }
        Ok(())
    }
}

fn is_in(table: &[(&str, &str)], name: &str) -> bool {
    table.iter().any(|(listed, _)| *listed == name)
}

/// What ours makes of the cases, a line for each.
fn rendered(cases: &[String]) -> Result<Vec<String>> {
    let path = root().join("target/text/templates.jsonl");
    fs::write(&path, cases.join("\n"))?;
    let mut render = cargo();
    render.args(["run", "--quiet", "--locked", "-p", "assay-text", "--example", "render"]);
    printed(render.stdin(File::open(&path)?))
}

fn outcome(case: &Value, said: &Value) -> Outcome {
    let ours = said["text"].as_str().or(said["error"].as_str()).unwrap_or_default();
    match (case["expected"].as_str(), said["text"].as_str()) {
        (Some(expected), Some(found)) => match parting(expected, found) {
            None => Outcome::Equal,
            Some(how) => Outcome::Different(how),
        },
        (Some(_), None) => Outcome::Different(format!("ours fails: {ours}")),
        (None, _) if case["refused"] == true => {
            let reason = case["fails"].as_str().unwrap_or_default();
            match said["refused"] == true && ours.ends_with(reason) {
                true => Outcome::Equal,
                false => Outcome::Different(format!("Python refuses: {reason}; ours: {ours}")),
            }
        }
        (None, _) => Outcome::Unanswered,
    }
}

/// Where two texts part, with a little of both; nothing where they are equal.
fn parting(expected: &str, found: &str) -> Option<String> {
    if expected == found {
        return None;
    }
    let same = expected.chars().zip(found.chars()).take_while(|(a, b)| a == b).count();
    let around = |text: &str| -> String {
        text.chars().skip(same.saturating_sub(SHOWN)).take(2 * SHOWN).collect()
    };
    let (expected, found) = (around(expected), around(found));
    Some(format!("letter {same}: Python says {expected:?}, ours {found:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(case: Value, said: Value, expected: &str) {
        let found = match outcome(&case, &said) {
            Outcome::Equal => "equal".to_owned(),
            Outcome::Unanswered => "unanswered".to_owned(),
            Outcome::Different(how) => how,
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn what_no_table_allows_is_wrong() {
        let case =
            |name: &str, tools: Value| json!({ "name": name, "expected": "a", "tools": tools });
        let wrong = |case: Value, text: &str| {
            let mut tally = Tally::default();
            tally.count(&case, &json!({ "text": text })).unwrap();
            tally.wrong.len()
        };
        assert_eq!(wrong(case(IN_WORDS[0], json!([])), "b"), 0);
        assert_eq!(wrong(case(IN_WORDS[0], Value::Null), "b"), 1);
        assert_eq!(wrong(case("other", json!([])), "b"), 1);
        assert_eq!(wrong(case("other", json!([])), "a"), 0);
        assert!(Tally::default().end().is_err());
    }

    #[test]
    fn outcomes_are_told_apart() {
        check(json!({ "expected": "é" }), json!({ "text": "é" }), "equal");
        check(
            json!({ "expected": "éa" }),
            json!({ "text": "éb" }),
            "letter 1: Python says \"éa\", ours \"éb\"",
        );
        check(json!({ "expected": "" }), json!({ "error": "e" }), "ours fails: e");
        let refused = json!({ "fails": "no", "refused": true });
        check(refused.clone(), json!({ "error": "refuses: no", "refused": true }), "equal");
        check(refused.clone(), json!({ "error": "no" }), "Python refuses: no; ours: no");
        check(refused, json!({ "text": "a" }), "Python refuses: no; ours: a");
        check(json!({ "fails": "no" }), json!({ "text": "a" }), "unanswered");
    }
}
