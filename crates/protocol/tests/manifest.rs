//! The manifest of the model that ships, byte for byte: the same file that the contract of models
//! hashes in its own tests.

#![allow(clippy::unwrap_used, reason = "test code")]

use alloy_primitives::hex;
use assay_protocol::Manifest;

/// `abi.encode(manifest)` of nano, in hexadecimal.
const NANO: &str = include_str!("../../../tests/vectors/nano.manifest");
/// Its id, which conversion reaches on every machine.
const NANO_ID: &str = include_str!("../../../tests/vectors/nano.id");

#[test]
fn the_shipped_manifest_reads_back_and_hashes_to_its_id() {
    let bytes = hex::decode(NANO.trim()).unwrap();
    let manifest = Manifest::decode(&bytes).unwrap();
    assert_eq!(manifest.encode(), bytes);
    assert_eq!(manifest.id().to_string(), NANO_ID.trim());
}

#[test]
fn a_manifest_that_is_cut_or_padded_is_refused() {
    let bytes = hex::decode(NANO.trim()).unwrap();
    for length in [0, 1, 31, 32, bytes.len() - 32, bytes.len() - 1] {
        assert!(Manifest::decode(&bytes[..length]).is_err(), "{length} bytes were taken");
    }
    let mut longer = bytes;
    longer.extend([0; 32]);
    assert!(Manifest::decode(&longer).is_err());
}
