//! Who is how far, told by everyone to everyone.
//!
//! Validators hear of finality by voting. Everybody else hears of it here: a node that is not
//! seated, one that was away, and one that joins late. A head is told with the votes that made it
//! final, so it is believed for its votes and not for its teller. It also names the chain, so that
//! two nodes of different chains notice at once.

use super::committees::{Committees, key_bytes};
use super::network::{Channel, Oracle};
use super::wire::{Digest, Key, Scheme, Wire};
use super::{Position, Rng};
use crate::consensus::{Application, Identity, SEATS_MAX};
use alloy_primitives::B256;
use alloy_primitives::bytes::BufMut;
use commonware_codec::{Buf, Decode, Encode, EncodeSize, Error, Read, ReadExt, Write};
use commonware_consensus::Epochable;
use commonware_consensus::Reporter as _;
use commonware_consensus::marshal::core::Mailbox;
use commonware_consensus::marshal::standard::Standard;
use commonware_consensus::simplex::types::{Activity, Finalization};
use commonware_consensus::types::{Epoch, Epocher, FixedEpocher, Height};
use commonware_cryptography::certificate::Provider;
use commonware_p2p::{Blocker as _, Receiver as _, Recipients, Sender as _};
use commonware_parallel::Sequential;
use commonware_utils::vec::NonEmptyVec;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Longest silence about our head, so that those who connect late hear of it.
const REPEAT: Duration = Duration::from_secs(1);

/// Shortest time between two announcements. Finality may come faster; followers lose nothing but
/// this much time.
const PAUSE: Duration = Duration::from_millis(100);

/// A peer counts as present this long after its last announcement.
const PRESENT: Duration = Duration::from_secs(5);

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Head {
    chain_id: u64,
    genesis: [u8; 32],
    epoch: u64,
    height: u64,
    /// What made the block at `height` final; the genesis block needs none.
    votes: Option<Finalization<Scheme, Digest>>,
}

impl Write for Head {
    fn write(&self, out: &mut impl BufMut) {
        self.chain_id.write(out);
        self.genesis.write(out);
        self.epoch.write(out);
        self.height.write(out);
        self.votes.write(out);
    }
}

impl EncodeSize for Head {
    fn encode_size(&self) -> usize {
        8 + 32 + 8 + 8 + self.votes.encode_size()
    }
}

impl Read for Head {
    type Cfg = ();

    fn read_cfg(input: &mut impl Buf, (): &()) -> Result<Self, Error> {
        Ok(Self {
            chain_id: u64::read(input)?,
            genesis: <[u8; 32]>::read(input)?,
            epoch: u64::read(input)?,
            height: u64::read(input)?,
            votes: Option::read_cfg(input, &SEATS_MAX)?,
        })
    }
}

/// Tells and hears heads.
pub(super) struct Heads<A> {
    pub(super) identity: Identity,
    pub(super) committees: Committees<A>,
    pub(super) epocher: FixedEpocher,
    pub(super) mailbox: Mailbox<Scheme, Standard<Wire>>,
    pub(super) oracle: Oracle,
    pub(super) rng: Rng,
    /// The highest height that marshal knows to be final.
    pub(super) tip: watch::Receiver<u64>,
    /// Where the chain stands.
    pub(super) position: watch::Receiver<Position>,
    /// How many peers are present.
    pub(super) present: watch::Sender<usize>,
}

impl<A: Application> Heads<A> {
    /// Runs until the network ends.
    pub(super) async fn run(mut self, (mut sender, mut receiver): Channel) {
        let mut peers: HashMap<Key, (Instant, u64)> = HashMap::new();
        let mut tick = tokio::time::interval(REPEAT);
        let mut told = Instant::now();
        loop {
            tokio::select! {
                heard = receiver.recv() => {
                    let Ok((peer, bytes)) = heard else { return };
                    let Ok(head) = Head::decode_cfg(bytes, &()) else {
                        tracing::debug!(?peer, "an announcement that is none");
                        continue;
                    };
                    if self.another_chain(&peer, &head) {
                        continue;
                    }
                    peers.insert(peer.clone(), (Instant::now(), head.epoch));
                    self.hear(peer, head);
                }
                Ok(()) = self.tip.changed() => {
                    let wait = PAUSE.saturating_sub(told.elapsed());
                    if wait.is_zero() {
                        self.tell(&mut sender).await;
                        told = Instant::now();
                    } else {
                        tick.reset_after(wait);
                    }
                }
                Ok(()) = self.position.changed() => {
                    let epoch = self.position.borrow_and_update().epoch;
                    for (peer, (_, theirs)) in &peers {
                        if *theirs > epoch {
                            self.ask_for_boundary(epoch, peer.clone());
                        }
                    }
                }
                _ = tick.tick() => {
                    self.tell(&mut sender).await;
                    told = Instant::now();
                    peers.retain(|_, (heard, _)| heard.elapsed() < PRESENT);
                    self.present.send_replace(peers.len());
                }
            }
        }
    }

    /// Says how far we are.
    async fn tell(&mut self, sender: &mut super::network::Sender) {
        let height = *self.tip.borrow_and_update();
        let epoch = self.position.borrow().epoch;
        let votes = self.mailbox.get_finalization(Height::new(height)).await;
        let Identity { chain_id, genesis } = self.identity;
        let head = Head { chain_id, genesis: genesis.0, epoch, height, votes };
        sender.send(Recipients::All, head.encode(), false);
    }

    /// Parts from a peer that is on another chain.
    fn another_chain(&mut self, peer: &Key, head: &Head) -> bool {
        let genesis = B256::new(head.genesis);
        let theirs = Identity { chain_id: head.chain_id, genesis };
        if theirs == self.identity {
            return false;
        }
        tracing::warn!(peer = %key_bytes(peer), ours = %self.identity, %theirs,
            "refused a peer that is on another chain");
        let _ = self.oracle.block(peer.clone());
        true
    }

    /// Follows a head that is further than ours.
    fn hear(&mut self, peer: Key, head: Head) {
        let epoch = self.position.borrow().epoch;
        if head.epoch > epoch {
            self.ask_for_boundary(epoch, peer);
            return;
        }
        let Some(votes) = head.votes else { return };
        if head.height <= *self.tip.borrow() {
            return;
        }
        let Some(scoped) = self.committees.scoped(votes.epoch()) else { return };
        if !votes.verify(&mut self.rng, &scoped, &Sequential) {
            tracing::warn!(peer = %key_bytes(&peer), "refused a peer that made votes up");
            let _ = self.oracle.block(peer);
            return;
        }
        let _ = self.mailbox.report(Activity::Finalization(votes));
    }

    /// Asks for the end of our epoch, without which nobody can say who votes in the next.
    fn ask_for_boundary(&self, epoch: u64, peer: Key) {
        if let Some(last) = self.epocher.last(Epoch::new(epoch)) {
            self.mailbox.hint_finalized(last, NonEmptyVec::new(peer));
        }
    }
}
