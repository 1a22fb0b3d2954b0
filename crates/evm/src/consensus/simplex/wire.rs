//! The engine's types, and a block in its clothes.

use crate::consensus::{BLOCK_BYTES_MAX, Carried};
use alloy_primitives::B256;
use alloy_primitives::bytes::{BufMut, Bytes};
use commonware_codec::{Buf, EncodeSize, Error, RangeCfg, Read, Write};
use commonware_consensus::simplex::scheme::ed25519;
use commonware_consensus::types::Height;
use commonware_consensus::{Block, Heightable};
use commonware_cryptography::{Digested, Digestible, sha256};

/// How votes are signed: ed25519, one vote per seat.
pub(super) type Scheme = ed25519::Scheme;

/// A validator's key.
pub(super) type Key = commonware_cryptography::ed25519::PublicKey;

/// A block's hash. The type is only a container of 32 bytes: the value is keccak256 of the header.
pub(super) type Digest = sha256::Digest;

/// The engine's view of a hash.
pub(super) fn digest(hash: B256) -> Digest {
    sha256::Digest(hash.0)
}

/// The hash that the engine carried.
pub(super) fn hash(digest: &Digest) -> B256 {
    B256::new(digest.0)
}

/// How much of a block is checked when it is read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Check {
    /// Header and body must belong together: bytes of a peer.
    Foreign,
    /// Only the header is read: bytes that were checked before they were kept.
    Kept,
}

/// A block as the engine passes it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wire(pub(super) Carried);

impl Wire {
    /// The block with its digest, which is at hand.
    pub(super) fn digested(block: Carried) -> Digested<Self> {
        let digest = digest(block.hash());
        Digested::precomputed(Self(block), digest)
    }
}

impl Write for Wire {
    fn write(&self, out: &mut impl BufMut) {
        self.0.encoded().0.write(out);
    }
}

impl EncodeSize for Wire {
    fn encode_size(&self) -> usize {
        self.0.encoded().0.encode_size()
    }
}

impl Read for Wire {
    type Cfg = Check;

    fn read_cfg(input: &mut impl Buf, check: &Check) -> Result<Self, Error> {
        let bytes = Bytes::read_cfg(input, &RangeCfg::from(0..=BLOCK_BYTES_MAX))?;
        let block = match check {
            Check::Foreign => Carried::decode(bytes.into()),
            Check::Kept => Carried::trusted(bytes.into()),
        };
        block.map(Self).map_err(|_| Error::Invalid("Wire", "not a block"))
    }
}

impl Digestible for Wire {
    type Digest = Digest;

    fn digest(&self) -> Digest {
        digest(self.0.hash())
    }
}

impl Heightable for Wire {
    fn height(&self) -> Height {
        Height::new(self.0.height())
    }
}

impl Block for Wire {
    fn parent(&self) -> Digest {
        digest(self.0.parent())
    }
}
