//! A validator that votes twice, to show what becomes of those who do. Never part of a product
//! binary: it exists in this crate's tests and behind the feature `byzantine`.

use super::wire::{Digest, Key, Scheme, digest};
use alloy_primitives::B256;
use commonware_actor::{Feedback, Unreliable};
use commonware_codec::{Copying, Decode, Encode};
use commonware_consensus::simplex::types::{Notarize, Proposal, Vote};
use commonware_p2p::{CheckedSender, LimitedSender, Recipients};
use commonware_runtime::IoBufs;
use std::sync::Arc;
use std::time::SystemTime;

/// Sends every vote for a block, and another for a block that does not exist.
#[derive(Clone, Debug)]
pub(super) struct Twice<S> {
    next: S,
    scheme: Arc<Scheme>,
}

impl<S> Twice<S> {
    pub(super) fn new(next: S, scheme: Arc<Scheme>) -> Self {
        Self { next, scheme }
    }
}

impl<S: LimitedSender<PublicKey = Key>> LimitedSender for Twice<S> {
    type PublicKey = Key;
    type Checked<'a> = CheckedTwice<S>;

    fn check(&mut self, recipients: Recipients<Key>) -> Result<CheckedTwice<S>, SystemTime> {
        let kept = self.next.check(recipients)?.recipients();
        Ok(CheckedTwice { next: self.next.clone(), scheme: self.scheme.clone(), recipients: kept })
    }
}

/// One message of [`Twice`].
#[derive(Debug)]
pub(super) struct CheckedTwice<S> {
    next: S,
    scheme: Arc<Scheme>,
    recipients: Vec<Key>,
}

impl<S: LimitedSender<PublicKey = Key>> CheckedTwice<S> {
    fn pass(&mut self, message: impl Into<IoBufs> + Send, priority: bool) -> Unreliable<Feedback> {
        match self.next.check(Recipients::Some(self.recipients.clone())) {
            Ok(checked) => checked.send(message, priority),
            Err(_) => Unreliable::Outcome(Feedback::Ok),
        }
    }

    fn contradiction(&self, message: &[u8]) -> Option<Vec<u8>> {
        let Ok(Vote::<Scheme, Digest>::Notarize(vote)) = Vote::decode_cfg(Copying(message), &())
        else {
            return None;
        };
        let Proposal { round, parent, payload } = vote.proposal;
        let other = B256::new(payload.0.map(|byte| !byte));
        let proposal = Proposal::new(round, parent, digest(other));
        let vote = Notarize::sign(&*self.scheme, proposal)?;
        Some(Vote::<Scheme, Digest>::Notarize(vote).encode().to_vec())
    }
}

impl<S: LimitedSender<PublicKey = Key>> CheckedSender for CheckedTwice<S> {
    type PublicKey = Key;

    fn recipients(&self) -> Vec<Key> {
        self.recipients.clone()
    }

    fn send(mut self, message: impl Into<IoBufs> + Send, priority: bool) -> Unreliable<Feedback> {
        let message = message.into().coalesce();
        let second = self.contradiction(message.as_ref());
        let feedback = self.pass(message, priority);
        if let Some(second) = second {
            let _ = self.pass(second, priority);
        }
        feedback
    }
}
