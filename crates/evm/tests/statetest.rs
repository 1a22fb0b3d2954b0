//! State tests come out as Ethereum's executable specification says, under fourteen forks.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use assay_evm::{Difference, Report, left_out, run_state_tests};

fn vector() -> Vec<u8> {
    let path = "../../tests/vectors/statetests/random.json";
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn run(json: &[u8]) -> Report {
    run_state_tests(json).unwrap()
}

#[test]
fn random_programs_come_out_as_the_specification_says() {
    let report = run(&vector());
    let failed: Vec<_> = report
        .failed
        .iter()
        .map(|f| format!("{} {} {:?}: {}", f.test, f.fork, f.indexes, f.difference))
        .collect();
    assert!(failed.is_empty(), "{} of {}: {failed:#?}", failed.len(), failed.len() + report.passed);
    assert!(report.skipped.is_empty());
    assert_eq!(report.passed, 614);
}

/// Changes every outcome in the file, one kind at a time: each change is noticed.
#[test]
fn a_wrong_outcome_is_a_failure() {
    let file: serde_json::Value = serde_json::from_slice(&vector()).unwrap();
    let all = run(&vector()).passed;
    let changed = |key: &str, value: Option<&str>| {
        let mut file = file.clone();
        let posts = file.as_object_mut().unwrap().values_mut();
        let cases = posts.flat_map(|test| test["post"].as_object_mut().unwrap().values_mut());
        for case in cases.flat_map(|cases| cases.as_array_mut().unwrap()) {
            let case = case.as_object_mut().unwrap();
            match value {
                Some(value) => case.insert(key.into(), value.into()),
                None => case.remove(key),
            };
        }
        run(&serde_json::to_vec(&file).unwrap())
    };
    let zero = &format!("0x{}", "0".repeat(64));
    let by_state = changed("hash", Some(zero));
    let by_logs = changed("logs", Some(zero));
    let by_refusal = changed("expectException", Some("it must be refused"));
    let by_success = changed("expectException", None);
    let refused = by_success.failed.len();
    assert!(refused > 0);
    let refusals = |report: &Report| {
        report.failed.iter().all(|f| matches!(f.difference, Difference::Refusal { .. }))
    };
    assert!(refusals(&by_refusal) && refusals(&by_success));
    assert_eq!(by_refusal.failed.len(), all - refused);
    assert_eq!(by_state.failed.len(), all - refused);
    assert!(by_state.failed.iter().all(|f| matches!(f.difference, Difference::State { .. })));
    assert_eq!(by_logs.failed.len(), all - refused);
}

/// A test of which the transaction can be no transaction: it must be refused, and is.
#[test]
fn values_that_no_transaction_can_have_are_refused_not_misread() {
    let file: serde_json::Value = serde_json::from_slice(&vector()).unwrap();
    let (name, test) = file.as_object().unwrap().iter().next().unwrap();
    for (key, value) in [
        ("value", serde_json::json!(["0x:bigint 0x10000000000000000"])),
        ("gasLimit", serde_json::json!([format!("0x1{}", "0".repeat(64))])),
        ("data", serde_json::json!([])),
        ("nonce", serde_json::json!("0x10000000000000000")),
        ("maxPriorityFeePerGas", serde_json::json!(format!("0x1{}", "0".repeat(32)))),
        ("secretKey", serde_json::Value::Null),
        ("to", serde_json::json!("0x12")),
        ("type", serde_json::json!("0x100")),
    ] {
        let mut test = test.clone();
        test["transaction"][key] = value;
        let hash = format!("0x{}", "0".repeat(64));
        let case = serde_json::json!({
            "expectException": "TR_IntegerOverflow", "hash": hash, "logs": hash,
            "indexes": { "data": 0, "gas": 0, "value": 0 },
        });
        test["post"] = serde_json::json!({ "Osaka": [case] });
        let report = run(&serde_json::to_vec(&serde_json::json!({ name: test })).unwrap());
        assert_eq!((report.passed, report.failed.len()), (1, 0), "{key}: {:?}", report.failed);
    }
}

#[test]
fn what_is_not_run_is_counted() {
    let mut file: serde_json::Value = serde_json::from_slice(&vector()).unwrap();
    let mut cases = 0;
    for test in file.as_object_mut().unwrap().values_mut() {
        let post = test["post"].as_object_mut().unwrap();
        let renamed: Vec<_> = post.values().cloned().collect();
        cases += renamed.iter().map(|cases| cases.as_array().unwrap().len()).sum::<usize>();
        *post = renamed
            .into_iter()
            .enumerate()
            .map(|(index, cases)| (format!("Fork{index}"), cases))
            .collect();
    }
    let report = run(&serde_json::to_vec(&file).unwrap());
    assert_eq!(report.passed + report.failed.len(), 0);
    assert_eq!(report.skipped.values().sum::<usize>(), cases);
}

#[test]
fn what_is_no_state_test_is_an_error() {
    for json in ["", "[]", "{\"a\":7}", "{\"a\":{\"env\":{}}}", "\u{0}"] {
        assert!(run_state_tests(json.as_bytes()).is_err(), "{json:?}");
    }
    assert_eq!(run(b"{}"), Report::default());
}

#[test]
fn the_slow_and_the_unreachable_are_left_out_by_name() {
    assert!(left_out(Path::new("a/loopMul.json"), false).is_some());
    assert!(left_out(Path::new("a/loopMul.json"), true).is_none());
    assert!(left_out(Path::new("a/InitCollision.json"), true).is_some());
    assert!(left_out(Path::new("a/add.json"), false).is_none());
}
