//! What marshal keeps of finalised blocks and of the votes that finalised them.
//!
//! Blocks live in the chain's own store once they are executed, so marshal's archive holds only the
//! last few, and everything below the head is read from the chain. So a data directory that grew
//! without an engine, or came from a snapshot, serves its peers like any other.
//!
//! Votes are kept longer, and those of an epoch's last block for ever: a newcomer that trusts only
//! the genesis block walks from epoch to epoch by them. In an epoch whose only seat is ours nobody
//! voted; there our own signature is the quorum, given when it is asked for.

use super::committees::Committees;
use super::wire::{Digest, Scheme, Wire, digest, hash};
use crate::consensus::Application;
use commonware_consensus::Heightable;
use commonware_consensus::marshal::store;
use commonware_consensus::simplex::types::{Finalization, Finalize, Proposal};
use commonware_consensus::types::{Epoch, Epocher, FixedEpocher, Height, Round, View};
use commonware_parallel::Sequential;
use commonware_runtime::Handle;
use commonware_runtime::tokio::Context;
use commonware_storage::archive::{self, Identifier, prunable};
use commonware_storage::translator::EightCap;
use commonware_utils::non_empty;
use std::sync::Arc;

/// How far behind a pruned block its votes are kept, in blocks. Newcomers fetch blocks side by side
/// where there are votes, and one after another where there are none.
const VOTES_KEPT: u64 = 100_000;

/// Blocks on disk.
pub(super) type Recent = prunable::Archive<EightCap, Context, Digest, Arc<Wire>>;

/// Votes on disk.
pub(super) type Votes = prunable::Archive<EightCap, Context, Digest, Finalization<Scheme, Digest>>;

/// Finalised blocks: the chain's, and those not yet executed.
pub(super) struct Blocks<A> {
    application: A,
    recent: Recent,
}

impl<A: Application> Blocks<A> {
    pub(super) fn new(application: A, recent: Recent) -> Self {
        Self { application, recent }
    }

    fn head(&self) -> u64 {
        self.application.head().0
    }

    fn executed(&self, id: &Identifier<'_, Digest>) -> Option<Arc<Wire>> {
        let height = match id {
            Identifier::Index(height) => Some(*height),
            Identifier::Key(digest) => {
                let genesis = self.application.genesis();
                if genesis.hash() == hash(digest) {
                    return Some(Arc::new(Wire(genesis)));
                }
                self.application.height(&hash(digest))
            }
        }?;
        if height == 0 {
            return Some(Arc::new(Wire(self.application.genesis())));
        }
        self.application.block(height).map(Wire).map(Arc::new)
    }
}

impl<A: Application> store::Blocks for Blocks<A> {
    type Block = Arc<Wire>;
    type Error = archive::Error;

    async fn put(mut self, digest: Digest, block: &Arc<Wire>) -> Result<Self, archive::Error> {
        if block.height().get() > self.head() {
            self.recent = self.recent.put(digest, block).await?;
        }
        Ok(self)
    }

    async fn sync(mut self) -> Result<Self, archive::Error> {
        self.recent = self.recent.sync().await?;
        Ok(self)
    }

    async fn start_sync(mut self) -> Result<(Self, Handle<()>), archive::Error> {
        let handle;
        (self.recent, handle) = self.recent.start_sync().await?;
        Ok((self, handle))
    }

    async fn get(&self, id: Identifier<'_, Digest>) -> Result<Option<Arc<Wire>>, archive::Error> {
        match self.executed(&id) {
            Some(block) => Ok(Some(block)),
            None => self.recent.get(id).await,
        }
    }

    async fn prune(mut self, min: Height) -> Result<Self, archive::Error> {
        self.recent = store::Blocks::prune(self.recent, min).await?;
        Ok(self)
    }

    fn missing_items(&self, start: Height, max: usize) -> Vec<Height> {
        self.recent.missing_items(start.max(Height::new(self.head() + 1)), max)
    }

    fn next_gap(&self, value: Height) -> (Option<Height>, Option<Height>) {
        let head = Height::new(self.head());
        if value > head {
            return self.recent.next_gap(value);
        }
        let (end, next) = self.recent.next_gap(head.next());
        (end.or(Some(head)), next)
    }

    fn last_index(&self) -> Option<Height> {
        Some(self.recent.last_index().unwrap_or(Height::zero()).max(Height::new(self.head())))
    }
}

/// The votes that finalised blocks.
pub(super) struct Certificates<A> {
    application: A,
    committees: Committees<A>,
    epocher: FixedEpocher,
    recent: Votes,
    /// Those of every epoch's last block.
    boundaries: Votes,
}

impl<A: Application> Certificates<A> {
    pub(super) fn new(
        application: A,
        committees: Committees<A>,
        epocher: FixedEpocher,
        recent: Votes,
        boundaries: Votes,
    ) -> Self {
        Self { application, committees, epocher, recent, boundaries }
    }

    fn is_boundary(&self, height: Height) -> bool {
        let bounds = self.epocher.containing(height);
        bounds.is_some_and(|bounds| bounds.last() == height)
    }

    /// Our own vote for an epoch's last block, if ours alone is the quorum.
    fn own(&self, id: &Identifier<'_, Digest>) -> Option<Finalization<Scheme, Digest>> {
        let Identifier::Index(height) = id else { return None };
        let height = Height::new(*height);
        if !self.is_boundary(height) || height.get() > self.application.head().0 {
            return None;
        }
        let epoch = self.epocher.containing(height)?.epoch();
        let block = self.application.block(height.get())?;
        self.committees.sole(epoch, height.get(), digest(block.hash()))
    }
}

/// A quorum of one: the only seat of `epoch` finalises the block with this digest, in a view that
/// counts the epoch's blocks.
pub(super) fn certify_alone(
    scheme: &Scheme,
    epoch: Epoch,
    view: View,
    payload: Digest,
) -> Option<Finalization<Scheme, Digest>> {
    let parent = view.previous()?;
    let proposal = Proposal::new(Round::new(epoch, view), parent, payload);
    let vote = Finalize::sign(scheme, proposal)?;
    Finalization::from_finalizes(scheme, non_empty![&vote], &Sequential).ok()
}

impl<A: Application> store::Certificates for Certificates<A> {
    type BlockDigest = Digest;
    type Commitment = Digest;
    type Scheme = Scheme;
    type Error = archive::Error;

    async fn put(
        mut self,
        height: Height,
        digest: Digest,
        votes: &Finalization<Scheme, Digest>,
    ) -> Result<Self, archive::Error> {
        if self.is_boundary(height) {
            self.boundaries = self.boundaries.put(height, digest, votes).await?;
        }
        self.recent = self.recent.put(height, digest, votes).await?;
        Ok(self)
    }

    async fn sync(mut self) -> Result<Self, archive::Error> {
        self.boundaries = self.boundaries.sync().await?;
        self.recent = self.recent.sync().await?;
        Ok(self)
    }

    async fn start_sync(mut self) -> Result<(Self, Handle<()>), archive::Error> {
        // Boundaries are rare and are synced at once, so that one handle is enough.
        self.boundaries = self.boundaries.sync().await?;
        let handle;
        (self.recent, handle) = self.recent.start_sync().await?;
        Ok((self, handle))
    }

    async fn get(
        &self,
        id: Identifier<'_, Digest>,
    ) -> Result<Option<Finalization<Scheme, Digest>>, archive::Error> {
        let again = match &id {
            Identifier::Index(height) => Identifier::Index(*height),
            Identifier::Key(digest) => Identifier::Key(*digest),
        };
        let own = self.own(&id);
        if let Some(votes) = self.recent.get(id).await? {
            return Ok(Some(votes));
        }
        Ok(self.boundaries.get(again).await?.or(own))
    }

    async fn has(&self, height: Height) -> Result<bool, archive::Error> {
        Ok(self.recent.has(height).await? || self.boundaries.has(height).await?)
    }

    async fn prune(mut self, min: Height) -> Result<Self, archive::Error> {
        let kept = Height::new(min.get().saturating_sub(VOTES_KEPT));
        self.recent = store::Certificates::prune(self.recent, kept).await?;
        Ok(self)
    }

    fn last_index(&self) -> Option<Height> {
        self.recent.last_index()
    }

    fn ranges_from(&self, from: Height) -> impl Iterator<Item = (Height, Height)> {
        self.recent.ranges_from(from)
    }
}
