//! Tells equivocation from honesty, in the engine's terms and in the precompile's.
//!
//! A signature covers the chain's identity, the kind of vote and the vote, in the engine's own
//! encoding; this is the one place where our [`Evidence`] and that encoding meet.

use super::committees::{key, key_bytes};
use super::wire::{Digest, Scheme, digest, hash};
use crate::consensus::evidence::{Kind, Signature as SignatureBytes};
use crate::consensus::{Application, Evidence, EvidenceError, Identity, VERIFIER, Vote};
use crate::{Genesis, Precompile};
use alloy_primitives::{B256, Bytes};
use alloy_sol_types::SolValue;
use commonware_actor::Feedback;
use commonware_codec::{Copying, DecodeExt, Encode, ReadExt};
use commonware_consensus::Reporter;
use commonware_consensus::simplex::scheme::Namespace;
use commonware_consensus::simplex::types::{
    Activity, Attributable, Finalize, Notarize, Nullify, Proposal,
};
use commonware_consensus::types::{Epoch, Participant, Round, View};
use commonware_consensus::{Epochable, Viewable};
use commonware_cryptography::certificate::{Attestation, Scheme as _};
use commonware_cryptography::{Verifier as _, ed25519};
use revm::precompile::{PrecompileHalt, PrecompileOutput};
use std::sync::Arc;

/// What judging evidence costs: two signatures at about 50 µs each.
pub const VERIFIER_GAS: u64 = 12_000;

/// Checks both signatures of `evidence` under the chain's identity.
pub fn verify(identity: Identity, evidence: &Evidence) -> Result<(), EvidenceError> {
    let wrong = EvidenceError::Signature { key: evidence.key };
    let Some(key) = key(&evidence.key) else { return Err(wrong) };
    let namespace = Namespace::new(&identity.namespace());
    let round = Round::new(Epoch::new(evidence.epoch), View::new(evidence.view));
    for vote in &evidence.votes {
        let proposal = Proposal::new(round, View::new(vote.parent), digest(vote.payload));
        let (space, message) = match vote.kind {
            Kind::Notarize => (&namespace.notarize, proposal.encode()),
            Kind::Nullify => (&namespace.nullify, round.encode()),
            Kind::Finalize => (&namespace.finalize, proposal.encode()),
        };
        let signature = ed25519::Signature::decode(Copying(vote.signature.as_slice()));
        if !signature.is_ok_and(|signature| key.verify(space, &message, &signature)) {
            return Err(wrong);
        }
    }
    Ok(())
}

/// What the precompile at [`VERIFIER`] returns for `input`:
/// `abi.encode(bytes32 key, uint64 epoch)` if it is evidence that holds, and nothing otherwise.
pub fn judge(identity: Identity, input: &[u8]) -> Bytes {
    let verdict = Evidence::decode(input).and_then(|evidence| {
        verify(identity, &evidence)?;
        Ok((evidence.key, evidence.epoch).abi_encode_params())
    });
    verdict.unwrap_or_default().into()
}

/// The precompile at [`VERIFIER`] for the chain that `genesis` starts: whatever the input, it takes
/// [`VERIFIER_GAS`] and gives what [`judge`] does. Every node of the chain must have it.
pub fn verifier(genesis: &Genesis) -> Precompile {
    let (header, _, _) = genesis.block();
    let identity = Identity { chain_id: genesis.spec().chain_id(), genesis: header.hash_slow() };
    Precompile::new(VERIFIER, "equivocation", move |call| {
        if call.gas < VERIFIER_GAS {
            return Ok(PrecompileOutput::halt(PrecompileHalt::OutOfGas, call.reservoir));
        }
        Ok(PrecompileOutput::new(VERIFIER_GAS, judge(identity, call.data), call.reservoir))
    })
}

/// Sees what the engine reports, accuses those who equivocate, and passes everything on.
#[derive(Clone)]
pub(super) struct Watch<A, R> {
    pub(super) application: A,
    pub(super) scheme: Arc<Scheme>,
    pub(super) next: R,
}

impl<A, R> Reporter for Watch<A, R>
where
    A: Application,
    R: Reporter<Activity = Activity<Scheme, Digest>>,
{
    type Activity = Activity<Scheme, Digest>;

    fn report(&mut self, activity: Self::Activity) -> Feedback {
        if let Some(evidence) = evidence(&self.scheme, &activity) {
            // The engine reports before it checks; a framed validator must not be accused.
            match verify(self.application.identity(), &evidence) {
                Ok(()) => {
                    tracing::warn!(key = %evidence.key, epoch = evidence.epoch, view = evidence.view,
                        "a validator signed twice");
                    self.application.accuse(evidence);
                }
                Err(error) => tracing::debug!(%error, "an accusation does not hold"),
            }
        }
        self.next.report(activity)
    }
}

/// The evidence in a report, if it is one of equivocation. Signatures are not checked.
fn evidence(scheme: &Scheme, activity: &Activity<Scheme, Digest>) -> Option<Evidence> {
    // The two votes are private to the engine's types, but not their encoding.
    let (signer, votes) = match activity {
        Activity::ConflictingNotarize(conflict) => {
            let mut bytes = conflict.encode();
            let first = Notarize::<Scheme, Digest>::read(&mut bytes).ok()?;
            let second = Notarize::<Scheme, Digest>::read(&mut bytes).ok()?;
            let first = vote(Kind::Notarize, &first.proposal, &first.attestation)?;
            let second = vote(Kind::Notarize, &second.proposal, &second.attestation)?;
            (conflict.signer(), [first, second])
        }
        Activity::ConflictingFinalize(conflict) => {
            let mut bytes = conflict.encode();
            let first = Finalize::<Scheme, Digest>::read(&mut bytes).ok()?;
            let second = Finalize::<Scheme, Digest>::read(&mut bytes).ok()?;
            let first = vote(Kind::Finalize, &first.proposal, &first.attestation)?;
            let second = vote(Kind::Finalize, &second.proposal, &second.attestation)?;
            (conflict.signer(), [first, second])
        }
        Activity::NullifyFinalize(conflict) => {
            let mut bytes = conflict.encode();
            let nullify = Nullify::<Scheme>::read(&mut bytes).ok()?;
            let finalize = Finalize::<Scheme, Digest>::read(&mut bytes).ok()?;
            let signature = signature(&nullify.attestation)?;
            let skipped = Vote { kind: Kind::Nullify, parent: 0, payload: B256::ZERO, signature };
            let ended = vote(Kind::Finalize, &finalize.proposal, &finalize.attestation)?;
            (conflict.signer(), [skipped, ended])
        }
        _ => return None,
    };
    let key = accused(scheme, signer)?;
    Evidence::new(key, activity.epoch().get(), activity.view().get(), votes).ok()
}

fn accused(scheme: &Scheme, signer: Participant) -> Option<B256> {
    let seats = scheme.participants();
    seats.iter().nth(usize::try_from(signer.get()).ok()?).map(key_bytes)
}

fn vote(
    kind: Kind,
    proposal: &Proposal<Digest>,
    attestation: &Attestation<Scheme>,
) -> Option<Vote> {
    let signature = signature(attestation)?;
    let (parent, payload) = (proposal.parent.get(), hash(&proposal.payload));
    Some(Vote { kind, parent, payload, signature })
}

fn signature(attestation: &Attestation<Scheme>) -> Option<SignatureBytes> {
    let signature = attestation.signature.get()?;
    Some(SignatureBytes::from_slice(&signature.encode()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use commonware_consensus::simplex::types::{ConflictingNotarize, NullifyFinalize};
    use commonware_utils::TryCollect;

    const CHAIN: Identity = Identity { chain_id: 7, genesis: B256::repeat_byte(1) };

    fn scheme() -> Scheme {
        let signer = super::super::committees::signer(&B256::repeat_byte(5)).unwrap();
        let keys =
            [signer.clone(), super::super::committees::signer(&B256::repeat_byte(6)).unwrap()];
        let keys = keys.iter().map(super::super::committees::public).try_collect().unwrap();
        Scheme::signer(&CHAIN.namespace(), keys, signer).unwrap()
    }

    fn proposal(payload: u8) -> Proposal<Digest> {
        let round = Round::new(Epoch::new(3), View::new(40));
        Proposal::new(round, View::new(39), digest(B256::repeat_byte(payload)))
    }

    fn twice() -> Evidence {
        let scheme = scheme();
        let votes = [1, 2].map(|payload| Notarize::sign(&scheme, proposal(payload)).unwrap());
        let [first, second] = votes;
        let report = Activity::ConflictingNotarize(ConflictingNotarize::new(first, second));
        evidence(&scheme, &report).unwrap()
    }

    #[test]
    fn two_votes_in_one_view_are_judged() {
        let evidence = twice();
        let signer = super::super::committees::signer(&B256::repeat_byte(5)).unwrap();
        assert_eq!(evidence.key, key_bytes(&super::super::committees::public(&signer)));
        assert_eq!((evidence.epoch, evidence.view), (3, 40));
        let answer = judge(CHAIN, &evidence.encode());
        assert_eq!(answer[..32], evidence.key[..]);
        assert_eq!(answer[32..], alloy_primitives::U256::from(3).to_be_bytes::<32>());
    }

    #[test]
    fn skipping_and_ending_a_view_is_judged() {
        let scheme = scheme();
        let nullify = Nullify::sign::<Digest>(&scheme, proposal(1).round).unwrap();
        let finalize = Finalize::sign(&scheme, proposal(1)).unwrap();
        let report = Activity::NullifyFinalize(NullifyFinalize::new(nullify, finalize));
        let evidence = evidence(&scheme, &report).unwrap();
        assert_eq!(judge(CHAIN, &evidence.encode()).len(), 64);
    }

    #[test]
    fn every_forged_bit_is_refused() {
        let bytes = twice().encode();
        for index in 0..bytes.len() {
            let mut forged = bytes.clone();
            forged[index] ^= 1;
            assert!(judge(CHAIN, &forged).is_empty(), "byte {index} may be changed");
        }
    }

    #[test]
    fn another_chain_refuses_the_same_evidence() {
        let bytes = twice().encode();
        for other in
            [Identity { chain_id: 8, ..CHAIN }, Identity { genesis: B256::repeat_byte(2), ..CHAIN }]
        {
            assert!(judge(other, &bytes).is_empty());
        }
        assert!(judge(CHAIN, &[]).is_empty());
        assert!(judge(CHAIN, &bytes[1..]).is_empty());
    }

    #[test]
    fn an_honest_vote_is_no_evidence() {
        let scheme = scheme();
        let vote = Notarize::sign(&scheme, proposal(1)).unwrap();
        assert_eq!(evidence(&scheme, &Activity::Notarize(vote)), None);
    }
}
