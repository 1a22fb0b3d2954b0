//! The trees that a contract checks receipts against are the ones that are built here.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test reads its vectors")]

use assay_protocol::{B256, leaf_hash, root};
use serde_json::Value;

fn hashes(list: &Value) -> Vec<B256> {
    let list = list.as_array().unwrap();
    list.iter().map(|hash| hash.as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn roots_over_receipts_are_those_of_the_vectors() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/vectors/receipts.json");
    let text = std::fs::read_to_string(path).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let cases = document["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 5);
    for case in cases {
        let leaves = hashes(&case["digests"]).into_iter().map(|digest| leaf_hash(&digest.0));
        let expected: B256 = case["root"].as_str().unwrap().parse().unwrap();
        assert_eq!(root(leaves), expected, "{} receipts", case["count"]);
    }
}
