//! What providers, buyers and registries of strangers send is read or refused, and read once means
//! written back the same.

use std::fmt::Debug;

use assay_protocol::wire::{Frame, Offers, Sealed, Shown, Submission, TopUp};
use assay_protocol::{Answer, Manifest};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Reads JSON; what was read, written and read again is the same.
fn settles<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) -> bool {
    let Ok(read) = serde_json::from_slice::<T>(bytes) else { return false };
    let written = serde_json::to_vec(&read).expect("what was read can be written");
    let again: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(again, read);
    true
}

fn any_of(bytes: &[u8]) -> bool {
    let read = [
        settles::<Frame>(bytes),
        settles::<Submission>(bytes),
        settles::<Offers>(bytes),
        settles::<Answer>(bytes),
        settles::<Shown>(bytes),
        settles::<Sealed>(bytes),
        settles::<TopUp>(bytes),
    ];
    read.contains(&true)
}

#[test]
fn fuzz_wire() {
    let words = [
        "{\"tokens\":[",
        "{\"sealed\":",
        "{\"failed\":{\"code\":\"",
        "null",
        "0x",
        "-1",
        "1e9",
        "\"0\"",
        "\\ud800",
    ];
    assay_fuzz::hold("wire", &words, any_of);
}

#[test]
fn fuzz_manifest() {
    assay_fuzz::hold("manifest", &["\u{0}\u{0}\u{0}\u{1}"], |bytes| {
        let Ok(manifest) = Manifest::decode(bytes) else { return false };
        assert_eq!(manifest.encode(), bytes);
        true
    });
}
