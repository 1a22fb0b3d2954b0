//! The request and response cases of ethereum/execution-apis, asked through the port on the chain
//! they were made on.
//!
//! A case holds if the answer is the one in the file, but for the words of an error. Where the file
//! says `speconly`, clients may differ in values; then the answer has to have the same shape: the
//! same fields, the same kinds of values, lists of the same kind of entries.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic and report")]

mod wire;

use std::collections::BTreeMap;
use std::path::Path;

use assay_evm::rpc::Limits;
use serde_json::Value;

use wire::{Served, foreign_chain, vectors};

/// Methods that are not offered, with the reason.
const NOT_OFFERED: &[(&str, &str)] = &[(
    "testing_buildBlockV1",
    "belongs to test rigs of other clients: blocks are built by producers",
)];

/// Single cases that cannot hold, with the reason.
const EXCLUDED: &[(&str, &str)] = &[
    (
        "eth_sendRawTransaction/send-blob-tx",
        "this chain has no consensus layer that would carry blobs, so the mempool refuses them",
    ),
    (
        "eth_simulateV1/ethSimulate-empty-with-block-num-set-firstblock",
        "a simulated block of before the merge rewards nobody, so its state differs",
    ),
    (
        "eth_simulateV1/ethSimulate-overflow-nonce",
        "the EVM refuses the last nonce, which no transaction may have, in simulations too",
    ),
    (
        "eth_simulateV1/ethSimulate-override-ecrecover",
        "a precompile that code replaces is warm here and cold there: 2,500 gas",
    ),
    (
        "eth_simulateV1/ethSimulate-self-destructive-contract-produces-logs",
        "coins that a self-destruction moves are not told as a log",
    ),
    (
        "eth_simulateV1/ethSimulate-use-as-many-features-as-possible",
        "logs are numbered without those of calls that reverted",
    ),
];

#[derive(Default)]
struct Count {
    same: usize,
    shape: usize,
    failed: usize,
}

#[test]
fn the_cases_of_execution_apis_hold() {
    let served = Served::still(foreign_chain(), Limits::default());
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    let mut failures = Vec::new();
    let mut excluded = Vec::new();
    let mut methods: Vec<_> = std::fs::read_dir(vectors())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    methods.sort();
    for folder in methods {
        let method = folder.file_name().unwrap().to_string_lossy().into_owned();
        if NOT_OFFERED.iter().any(|(name, _)| *name == method) {
            continue;
        }
        let mut files: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in files {
            let name = format!("{method}/{}", file.file_stem().unwrap().to_string_lossy());
            let outcome = run(&served, &file);
            if EXCLUDED.iter().any(|(excluded, _)| *excluded == name) {
                assert!(outcome.is_err(), "{name} holds by now and need not be excluded");
                excluded.push(name);
                continue;
            }
            let count = counts.entry(method.clone()).or_default();
            match outcome {
                Ok(true) => count.same += 1,
                Ok(false) => count.shape += 1,
                Err(difference) => {
                    count.failed += 1;
                    failures.push(format!("{name}: {difference}"));
                }
            }
        }
    }
    for (method, count) in &counts {
        let Count { same, shape, failed } = count;
        println!("{method:45} same {same:3}  shape {shape:3}  failed {failed:3}");
    }
    for (name, reason) in NOT_OFFERED.iter().chain(EXCLUDED) {
        println!("left out: {name}: {reason}");
    }
    let sum = |of: fn(&Count) -> usize| counts.values().map(of).sum::<usize>();
    let passed = sum(|count| count.same) + sum(|count| count.shape);
    println!(
        "passed {passed} ({} equal, {} of equal shape), failed {}, excluded {}",
        sum(|count| count.same),
        sum(|count| count.shape),
        failures.len(),
        excluded.len()
    );
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(excluded.len(), EXCLUDED.len());
    assert!(passed >= 222, "{passed} cases hold");
}

/// Whether every answer of a case is equal, or some only of equal shape; or the first difference.
fn run(served: &Served, file: &Path) -> Result<bool, String> {
    let text = std::fs::read_to_string(file).unwrap();
    let shape_only = text.lines().any(|line| line.starts_with("//") && line.contains("speconly"));
    let mut got = Value::Null;
    let mut equal = true;
    for line in text.lines() {
        if let Some(request) = line.strip_prefix(">> ") {
            got = served.ask(request);
        } else if let Some(wanted) = line.strip_prefix("<< ") {
            let mut wanted: Value = serde_json::from_str(wanted).unwrap();
            forget_words(&mut wanted);
            forget_words(&mut got);
            if got == wanted {
                continue;
            }
            if !shape_only || got.get("error").is_some() {
                return Err(difference("", &got, &wanted).unwrap_or_default());
            }
            check_shape("", &got, &wanted)?;
            equal = false;
        }
    }
    Ok(equal)
}

/// The words of an error are each client's own.
fn forget_words(answer: &mut Value) {
    match answer {
        Value::Object(fields) => {
            if let Some(Value::Object(error)) = fields.get_mut("error") {
                error.remove("message");
            }
            fields.values_mut().for_each(forget_words);
        }
        Value::Array(entries) => entries.iter_mut().for_each(forget_words),
        _ => {}
    }
}

/// The first place where two answers differ.
fn difference(at: &str, got: &Value, wanted: &Value) -> Option<String> {
    match (got, wanted) {
        (Value::Object(got), Value::Object(wanted)) => {
            let keys = got.keys().chain(wanted.keys());
            keys.filter_map(|key| {
                let found = |object: &serde_json::Map<_, _>| {
                    object.get(key).cloned().unwrap_or(Value::String("nothing".into()))
                };
                difference(&format!("{at}.{key}"), &found(got), &found(wanted))
            })
            .next()
        }
        (Value::Array(got), Value::Array(wanted)) if got.len() == wanted.len() => {
            let pairs = got.iter().zip(wanted).enumerate();
            pairs
                .filter_map(|(index, (got, wanted))| {
                    difference(&format!("{at}[{index}]"), got, wanted)
                })
                .next()
        }
        _ if got == wanted => None,
        _ => {
            let short = |value: &Value| value.to_string().chars().take(300).collect::<String>();
            Some(format!("{at}: got {}, expected {}", short(got), short(wanted)))
        }
    }
}

/// What kind of value a text is.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// A number without leading zeros.
    Quantity,
    /// Whole bytes.
    Bytes,
    Words,
}

fn kinds(text: &str) -> Vec<Kind> {
    let Some(digits) = text.strip_prefix("0x") else { return vec![Kind::Words] };
    if digits.is_empty() {
        return vec![Kind::Bytes];
    }
    let mut kinds = Vec::new();
    if !digits.starts_with('0') || digits == "0" {
        kinds.push(Kind::Quantity);
    }
    if digits.len() % 2 == 0 {
        kinds.push(Kind::Bytes);
    }
    kinds
}

fn check_shape(at: &str, got: &Value, wanted: &Value) -> Result<(), String> {
    let fail = |what: &str| {
        let short = |value: &Value| value.to_string().chars().take(300).collect::<String>();
        Err(format!("{at}: {what}: got {}, expected {}", short(got), short(wanted)))
    };
    match (got, wanted) {
        (Value::Object(got_fields), Value::Object(wanted_fields)) => {
            // Waiting transactions are keyed by whoever waits, storage by what was written.
            let map =
                wanted_fields.keys().all(|key| key.starts_with("0x") || key.parse::<u64>().is_ok());
            if map {
                let example = wanted_fields.values().next();
                return got_fields.iter().try_for_each(|(key, got)| {
                    let wanted = wanted_fields.get(key).or(example);
                    wanted.map_or(Ok(()), |wanted| check_shape(&format!("{at}.{key}"), got, wanted))
                });
            }
            for (key, wanted) in wanted_fields {
                match got_fields.get(key) {
                    Some(got) => check_shape(&format!("{at}.{key}"), got, wanted)?,
                    None if OPTIONAL.contains(&key.as_str()) => {}
                    None => return fail(&format!("no field {key}")),
                }
            }
            let known =
                |key: &String| wanted_fields.contains_key(key) || OPTIONAL.contains(&key.as_str());
            match got_fields.keys().find(|key| !known(key)) {
                Some(key) => fail(&format!("field {key}")),
                None => Ok(()),
            }
        }
        (Value::Array(got_entries), Value::Array(wanted_entries)) => {
            if got_entries.is_empty() != wanted_entries.is_empty() {
                return fail("one list is empty");
            }
            // Beyond the shorter list's end, each entry is like the last.
            let last = wanted_entries.last();
            got_entries.iter().enumerate().try_for_each(|(index, got)| {
                let wanted = wanted_entries.get(index).or(last).unwrap();
                check_shape(&format!("{at}[{index}]"), got, wanted)
            })
        }
        (Value::String(got_text), Value::String(wanted_text)) => {
            let wanted_kinds = kinds(wanted_text);
            if kinds(got_text).iter().any(|kind| wanted_kinds.contains(kind)) {
                Ok(())
            } else {
                fail("another kind of text")
            }
        }
        (Value::Number(_), Value::Number(_))
        | (Value::Bool(_), Value::Bool(_))
        | (Value::Null, Value::Null) => Ok(()),
        _ => fail("another kind of value"),
    }
}

/// Fields that the specification lets a client leave out.
const OPTIONAL: &[&str] = &["deleteStrategy", "blockTimestamp", "refund", "error"];
