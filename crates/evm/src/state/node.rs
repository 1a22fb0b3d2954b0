//! Nodes of the trie as Ethereum writes them: paths, references and RLP.
//!
//! A node is named in its parent by its RLP if that is shorter than a hash, and by the hash of its
//! RLP otherwise. (Source: Ethereum's yellow paper, appendix D.)

use alloy_primitives::{B256, keccak256};
use alloy_rlp::{Encodable, Header};

/// Nibbles in a key.
pub(crate) const NIBBLES: usize = 64;

/// Bytes of the longest node: a branch of sixteen hashes, an empty value and its header.
const NODE_BYTES_MAX: usize = 16 * 33 + 1 + 3;

/// How a parent names a node: the node's own RLP if that is under 32 bytes, else its hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reference {
    bytes: B256,
    /// Bytes in use; 32 means a hash, since no shorter RLP is hashed and no longer one is not.
    len: u8,
}

impl Reference {
    /// The reference of a node whose RLP is `rlp`.
    pub(crate) fn of(rlp: &[u8]) -> Self {
        if rlp.len() >= 32 {
            return Self { bytes: keccak256(rlp), len: 32 };
        }
        let mut bytes = B256::ZERO;
        bytes[..rlp.len()].copy_from_slice(rlp);
        Self { bytes, len: rlp.len() as u8 }
    }

    /// The root hash of a trie whose top node has this reference.
    pub(crate) fn root(&self) -> B256 {
        if self.is_hash() { self.bytes } else { keccak256(self.used()) }
    }

    pub(crate) fn is_hash(&self) -> bool {
        self.len == 32
    }

    fn used(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn write(&self, out: &mut Vec<u8>) {
        if self.is_hash() {
            out.push(0x80 + 32);
        }
        out.extend_from_slice(self.used());
    }
}

/// The nibble of `key` at place `at`, counted from its most significant one.
pub(crate) fn nibble(key: &B256, at: usize) -> usize {
    let byte = key[at / 2];
    usize::from(if at.is_multiple_of(2) { byte >> 4 } else { byte & 15 })
}

/// How many nibbles `a` and `b` share before they differ.
pub(crate) fn shared(a: &B256, b: &B256) -> usize {
    match a.iter().zip(b.iter()).position(|(a, b)| a != b) {
        None => NIBBLES,
        Some(byte) => 2 * byte + usize::from((a[byte] ^ b[byte]) < 16),
    }
}

/// RLP of a leaf that holds `value` (RLP itself) at the end of `key`, whose path starts at `from`.
pub(crate) fn leaf_rlp(key: &B256, from: usize, value: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(value.len() + 40);
    write_path(key, from, NIBBLES, true, &mut body);
    value.encode(&mut body);
    list(&body)
}

/// RLP of a branch with these children, by nibble.
pub(crate) fn branch_rlp<'a>(children: impl Iterator<Item = Option<&'a Reference>>) -> Vec<u8> {
    let mut body = Vec::with_capacity(NODE_BYTES_MAX);
    for child in children {
        match child {
            Some(reference) => reference.write(&mut body),
            None => body.push(0x80),
        }
    }
    body.push(0x80);
    list(&body)
}

/// RLP of an extension over the nibbles `from..to` of `key`, in front of `child`.
pub(crate) fn extension_rlp(key: &B256, from: usize, to: usize, child: &Reference) -> Vec<u8> {
    let mut body = Vec::with_capacity(72);
    write_path(key, from, to, false, &mut body);
    child.write(&mut body);
    list(&body)
}

/// Writes the nibbles `from..to` of `key` in hex-prefix form, as an RLP string.
fn write_path(key: &B256, from: usize, to: usize, leaf: bool, out: &mut Vec<u8>) {
    let flag = if leaf { 0x20 } else { 0 };
    let odd = (to - from) % 2;
    let mut path = [0; NIBBLES / 2 + 1];
    path[0] = if odd == 1 { flag | 0x10 | nibble(key, from) as u8 } else { flag };
    let mut len = 1;
    for at in (from + odd..to).step_by(2) {
        path[len] = (nibble(key, at) << 4 | nibble(key, at + 1)) as u8;
        len += 1;
    }
    path[..len].encode(out);
}

fn list(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 3);
    Header { list: true, payload_length: body.len() }.encode(&mut out);
    out.extend_from_slice(body);
    out
}
