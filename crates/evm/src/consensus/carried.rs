//! A block on its way between validators.
//!
//! The hash of a block is the hash of its header, and a header commits to its body; so whoever
//! keeps bytes under that hash must know that header and body belong together, or a stranger could
//! swap the body. Decoding checks exactly that and nothing that needs the state. Senders are
//! recovered later, once, by whoever executes the block.

use alloy_consensus::{EMPTY_OMMER_ROOT_HASH, EMPTY_ROOT_HASH, Header};
use alloy_primitives::{B256, Bytes, keccak256};
use alloy_rlp::Decodable;
use std::sync::Arc;

/// Longest encoding of a block that validators pass on: as long as EIP-7934 lets one be.
pub const BLOCK_BYTES_MAX: usize = 8 << 20;

/// An encoded block, its header and its hash; the three agree.
#[derive(Clone, PartialEq, Eq)]
pub struct Carried(Arc<Parts>);

#[derive(PartialEq, Eq)]
struct Parts {
    hash: B256,
    header: Header,
    encoded: Bytes,
}

/// Why bytes are no block that validators would pass on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CarriedError {
    /// Longer than [`BLOCK_BYTES_MAX`].
    #[error("the block has {found} bytes, {most} are allowed")]
    Long {
        /// Bytes given.
        found: usize,
        /// Most bytes allowed.
        most: usize,
    },
    /// Not the encoding of a block.
    #[error("not an encoded block: {0}")]
    Rlp(#[from] alloy_rlp::Error),
    /// A body part that is not the one the header commits to.
    #[error("the block's {part} are not what its header commits to: {hash}")]
    Body {
        /// Which part.
        part: &'static str,
        /// The header's hash.
        hash: B256,
    },
    /// Bytes that a second encoding of the same block would not have.
    #[error("the block is not in its one canonical encoding")]
    Encoding,
}

impl Carried {
    /// Takes an encoding as Ethereum writes it, and no other bytes.
    ///
    /// Fails with a [`CarriedError`] unless header and body belong together. Memory: the bytes and
    /// the header.
    pub fn decode(encoded: Bytes) -> Result<Self, CarriedError> {
        let carried = Self::trusted(encoded)?;
        carried.check_body()?;
        Ok(carried)
    }

    /// As [`Carried::decode`], without looking at the body: for bytes from our own disk that were
    /// checked before.
    pub fn trusted(encoded: Bytes) -> Result<Self, CarriedError> {
        if encoded.len() > BLOCK_BYTES_MAX {
            return Err(CarriedError::Long { found: encoded.len(), most: BLOCK_BYTES_MAX });
        }
        let mut rest = list(&mut &encoded[..], true)?;
        let before = rest;
        let header = Header::decode(&mut rest)?;
        let raw = &before[..before.len() - rest.len()];
        if alloy_rlp::encode(&header) != raw {
            return Err(CarriedError::Encoding);
        }
        let hash = keccak256(raw);
        Ok(Self(Arc::new(Parts { hash, header, encoded })))
    }

    /// The block's hash: keccak256 of its header.
    pub fn hash(&self) -> B256 {
        self.0.hash
    }

    /// The hash of the block before it.
    pub fn parent(&self) -> B256 {
        self.0.header.parent_hash
    }

    /// Its height.
    pub fn height(&self) -> u64 {
        self.0.header.number
    }

    /// Its header.
    pub fn header(&self) -> &Header {
        &self.0.header
    }

    /// The block as Ethereum encodes it.
    pub fn encoded(&self) -> &Bytes {
        &self.0.encoded
    }

    fn check_body(&self) -> Result<(), CarriedError> {
        let header = self.header();
        let wrong = |part| CarriedError::Body { part, hash: self.hash() };
        let mut rest = list(&mut &self.0.encoded[..], true)?;
        Header::decode(&mut rest)?;
        let transactions = items(list(&mut rest, false)?)?;
        if transactions_root(&transactions) != header.transactions_root {
            return Err(wrong("transactions"));
        }
        // Only proof of work had stale siblings, and only Ethereum has withdrawals.
        if !list(&mut rest, false)?.is_empty() || header.ommers_hash != EMPTY_OMMER_ROOT_HASH {
            return Err(wrong("ommers"));
        }
        let withdrawals = match header.withdrawals_root {
            None => true,
            Some(root) => root == EMPTY_ROOT_HASH && list(&mut rest, false)?.is_empty(),
        };
        if !withdrawals {
            return Err(wrong("withdrawals"));
        }
        if rest.is_empty() { Ok(()) } else { Err(CarriedError::Encoding) }
    }
}

impl std::fmt::Debug for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "block {} {}", self.height(), self.hash())
    }
}

/// The payload of the list at the front of `bytes`; with `all`, nothing may follow it.
fn list<'a>(bytes: &mut &'a [u8], all: bool) -> Result<&'a [u8], CarriedError> {
    let payload = alloy_rlp::Header::decode_bytes(bytes, true)?;
    if all && !bytes.is_empty() {
        return Err(CarriedError::Encoding);
    }
    Ok(payload)
}

/// The transactions of a body as EIP-2718 envelopes: the content of a string, or a whole list.
fn items(mut payload: &[u8]) -> Result<Vec<&[u8]>, CarriedError> {
    let mut items = Vec::new();
    while !payload.is_empty() {
        let start = payload;
        let head = alloy_rlp::Header::decode(&mut payload)?;
        if payload.len() < head.payload_length {
            return Err(alloy_rlp::Error::InputTooShort.into());
        }
        let (content, rest) = payload.split_at(head.payload_length);
        let whole = start.len() - rest.len();
        // A list in a string would be a second encoding of the same transaction.
        if !head.list && content.first().is_none_or(|kind| *kind >= 0x80) {
            return Err(CarriedError::Encoding);
        }
        items.push(if head.list { &start[..whole] } else { content });
        payload = rest;
    }
    Ok(items)
}

fn transactions_root(transactions: &[&[u8]]) -> B256 {
    alloy_trie::root::ordered_trie_root_with_encoder(transactions, |item, out| {
        out.extend_from_slice(item)
    })
}
