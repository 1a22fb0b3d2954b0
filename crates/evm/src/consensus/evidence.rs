//! Proof that a validator signed two things of which it may sign one.
//!
//! Two signed votes of one key, one epoch and one view that exclude each other prove it to anyone
//! who knows the chain's identity: no state, no committee and no clock are needed. So a precompile
//! can judge them, and a contract can punish. The encoding is ours and of fixed length, so that the
//! verdict does not change when an engine's wire format does.

use alloy_primitives::{Address, B256, address};

/// Where the chain's verifier of evidence answers calls: it returns `abi.encode(key, epoch)` for
/// evidence that holds and nothing for any other bytes.
pub const VERIFIER: Address = address!("000000000000000000000000000000000000A551");

/// Bytes of a [`Vote`]: kind, view of the parent, payload, signature.
const VOTE_BYTES: usize = 1 + 8 + 32 + 64;

/// Bytes of encoded evidence: version, key, epoch, view, two votes.
const EVIDENCE_BYTES: usize = 1 + 32 + 8 + 8 + 2 * VOTE_BYTES;

const VERSION: u8 = 1;

/// Two votes that exclude each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The ed25519 key that signed both.
    pub key: B256,
    /// The epoch of both.
    pub epoch: u64,
    /// The view of both, counted from the epoch's start.
    pub view: u64,
    /// The votes, the lesser first, so that one offence has one encoding.
    pub votes: [Vote; 2],
}

/// What was signed, and the signature.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vote {
    /// What kind of vote.
    pub kind: Kind,
    /// View of the block that the proposal stands on; zero for [`Kind::Nullify`].
    pub parent: u64,
    /// Hash of the proposed block; zero for [`Kind::Nullify`].
    pub payload: B256,
    /// The signature over it.
    pub signature: Signature,
}

/// An ed25519 signature.
pub(super) type Signature = alloy_primitives::FixedBytes<64>;

/// The votes of simplex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// For a proposal.
    Notarize = 0,
    /// For skipping the view.
    Nullify = 1,
    /// For the end of the view with a proposal.
    Finalize = 2,
}

/// Why bytes are no evidence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// Another length or version than ours.
    #[error("{found} bytes are no evidence of version 1, which has {expected}")]
    Form {
        /// Bytes given.
        found: usize,
        /// Bytes expected.
        expected: usize,
    },
    /// A vote of no known kind, or a nullify vote that names a block.
    #[error("one of the votes is not well formed")]
    Vote,
    /// The two votes may stand side by side, or stand in the wrong order.
    #[error("the two votes do not exclude each other")]
    Harmless,
    /// A signature is not the key's.
    #[error("a signature is not that of {key}")]
    Signature {
        /// The key accused.
        key: B256,
    },
}

impl Evidence {
    /// Puts two votes in order. Fails unless they exclude each other; signatures are not checked.
    pub fn new(
        key: B256,
        epoch: u64,
        view: u64,
        mut votes: [Vote; 2],
    ) -> Result<Self, EvidenceError> {
        votes.sort();
        if votes.iter().any(|vote| !vote.well_formed()) {
            return Err(EvidenceError::Vote);
        }
        if !exclude(&votes[0], &votes[1]) {
            return Err(EvidenceError::Harmless);
        }
        Ok(Self { key, epoch, view, votes })
    }

    /// The encoding that contracts pass to [`VERIFIER`].
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(EVIDENCE_BYTES);
        out.push(VERSION);
        out.extend_from_slice(self.key.as_slice());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.view.to_be_bytes());
        for vote in &self.votes {
            out.push(vote.kind as u8);
            out.extend_from_slice(&vote.parent.to_be_bytes());
            out.extend_from_slice(vote.payload.as_slice());
            out.extend_from_slice(vote.signature.as_slice());
        }
        out
    }

    /// Reads evidence; signatures are not checked. Fails on every encoding but the one
    /// [`Evidence::encode`] gives.
    pub fn decode(bytes: &[u8]) -> Result<Self, EvidenceError> {
        if bytes.len() != EVIDENCE_BYTES || bytes[0] != VERSION {
            return Err(EvidenceError::Form { found: bytes.len(), expected: EVIDENCE_BYTES });
        }
        let (first, second) = bytes[49..].split_at(VOTE_BYTES);
        let votes = [Vote::read(first)?, Vote::read(second)?];
        let evidence = Self::new(
            B256::from_slice(&bytes[1..33]),
            number(&bytes[33..41]),
            number(&bytes[41..49]),
            votes.clone(),
        )?;
        if evidence.votes == votes { Ok(evidence) } else { Err(EvidenceError::Harmless) }
    }
}

impl Vote {
    /// Reads [`VOTE_BYTES`] bytes.
    fn read(bytes: &[u8]) -> Result<Self, EvidenceError> {
        let kind = match bytes[0] {
            0 => Kind::Notarize,
            1 => Kind::Nullify,
            2 => Kind::Finalize,
            _ => return Err(EvidenceError::Vote),
        };
        Ok(Self {
            kind,
            parent: number(&bytes[1..9]),
            payload: B256::from_slice(&bytes[9..41]),
            signature: Signature::from_slice(&bytes[41..]),
        })
    }

    fn well_formed(&self) -> bool {
        self.kind != Kind::Nullify || (self.parent == 0 && self.payload.is_zero())
    }

    fn proposal(&self) -> (u64, B256) {
        (self.parent, self.payload)
    }
}

/// Whether an honest validator signs at most one of the two in one view. It may notarize one
/// proposal, finalise one, and not both finalise and nullify.
fn exclude(first: &Vote, second: &Vote) -> bool {
    match (first.kind, second.kind) {
        (Kind::Notarize, Kind::Notarize) | (Kind::Finalize, Kind::Finalize) => {
            first.proposal() != second.proposal()
        }
        (Kind::Nullify, Kind::Finalize) => true,
        _ => false,
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vote(kind: Kind, payload: u8) -> Vote {
        let payload = B256::repeat_byte(payload);
        Vote { kind, parent: 0, payload, signature: Signature::repeat_byte(9) }
    }

    fn check(first: Vote, second: Vote) -> Result<(), EvidenceError> {
        let evidence = Evidence::new(B256::repeat_byte(7), 3, 4, [first, second])?;
        assert_eq!(Evidence::decode(&evidence.encode()).as_ref(), Ok(&evidence));
        Ok(())
    }

    #[test]
    fn votes_that_exclude_each_other_are_evidence() {
        assert_eq!(check(vote(Kind::Notarize, 2), vote(Kind::Notarize, 1)), Ok(()));
        assert_eq!(check(vote(Kind::Finalize, 1), vote(Kind::Finalize, 2)), Ok(()));
        assert_eq!(check(vote(Kind::Finalize, 1), vote(Kind::Nullify, 0)), Ok(()));
    }

    #[test]
    fn votes_that_an_honest_validator_casts_are_not() {
        let harmless = Err(EvidenceError::Harmless);
        assert_eq!(check(vote(Kind::Notarize, 1), vote(Kind::Notarize, 1)), harmless);
        assert_eq!(check(vote(Kind::Notarize, 1), vote(Kind::Nullify, 0)), harmless);
        assert_eq!(check(vote(Kind::Notarize, 1), vote(Kind::Finalize, 2)), harmless);
        assert_eq!(
            check(vote(Kind::Nullify, 1), vote(Kind::Finalize, 2)),
            Err(EvidenceError::Vote)
        );
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_themselves_or_to_an_error(
            mut bytes in proptest::collection::vec(any::<u8>(), EVIDENCE_BYTES),
        ) {
            (bytes[0], bytes[49], bytes[49 + VOTE_BYTES]) = (VERSION, bytes[49] % 4, bytes[49] % 3);
            if let Ok(evidence) = Evidence::decode(&bytes) {
                prop_assert_eq!(evidence.encode(), bytes);
            }
        }
    }
}
