//! Posts receipts. A period is on disk before it is sent, so there is never one on the chain that the
//! provider could not account for.

use assay_chain::ChainError;
use assay_protocol::{ChannelId, Tree, leaf_hash};

use super::{CollectError, Collector};
use crate::account::Account;
use crate::store::{self, Period};

/// Receipts of one period.
const RECEIPTS_MAX: usize = 8192;

/// Channels of one period: what a block's gas leaves room for.
const SPANS_MAX: usize = 200;

impl Collector<'_> {
    /// Finds out what became of a period that was about to be posted, and posts it if nothing did.
    pub(super) async fn settle_pending(&self) -> Result<(), CollectError> {
        let pending = self.store.read(store::last_period).await?;
        let Some((number, period)) = pending.filter(|(_, period)| !period.posted) else {
            return Ok(());
        };
        let (bank, owner) = (&self.payment.bank, self.payment.owner);
        let there = bank.periods(owner).await?;
        if number < there && bank.period(owner, number).await? == period.root {
            return self.posted(number, period).await;
        }
        if number == there {
            return self.send(number, period).await;
        }
        // The chain has another period there, or not those before it: what is covered says what to post.
        tracing::warn!(number, "the chain has another period in its place; it is made anew");
        self.store.write(move |write| store::drop_period(write, number)).await?;
        Ok(())
    }

    /// Posts the receipts of those channels of `due` that are claimed, or about to be.
    pub(super) async fn post(&self, due: &[(ChannelId, Account)]) -> Result<(), CollectError> {
        for some in due.chunks(SPANS_MAX) {
            while let Some(period) = self.prepare(some).await? {
                let number = self.payment.bank.periods(self.payment.owner).await?;
                let kept = period.clone();
                self.store.write(move |write| store::set_period(write, number, &kept)).await?;
                self.send(number, period).await?;
            }
        }
        Ok(())
    }

    /// The next period: the receipts that the chain does not cover yet.
    async fn prepare(&self, due: &[(ChannelId, Account)]) -> Result<Option<Period>, CollectError> {
        let mut tree = Tree::default();
        let mut spans = Vec::new();
        for (id, account) in due {
            let (id, room) = (*id, RECEIPTS_MAX - tree.leaves() as usize);
            if account.unclaimed().0 == 0 && !account.unseen && account.paid_out >= account.claimed
            {
                continue;
            }
            let covered = self.payment.bank.covered(self.payment.owner, id).await?;
            if covered >= account.earned() || room == 0 {
                continue;
            }
            let lines =
                self.store.read(move |read| store::receipts(read, id, covered, room)).await?;
            let Some((first, last)) = lines.first().zip(lines.last()) else { continue };
            if first.before != covered {
                let expected = covered;
                tracing::error!(channel = %id, found = %first.before, %expected, "the chain covers another position than any receipt here begins at");
                continue;
            }
            spans.push((id, covered, last.after));
            lines.iter().for_each(|line| tree.push(leaf_hash(line.digest.as_slice())));
        }
        let (root, count) = (tree.root(), tree.leaves());
        Ok((count > 0).then_some(Period { root, count, spans, posted: false }))
    }

    async fn send(&self, number: u64, period: Period) -> Result<(), CollectError> {
        let (bank, owner) = (&self.payment.bank, self.payment.owner);
        match bank.post(owner, period.root, period.count, &period.spans()).await {
            Ok(()) => self.posted(number, period).await,
            Err(error @ (ChainError::Refused(_) | ChainError::Failed { .. })) => {
                // It will never be there as it is; the next round looks at what is covered.
                self.store.write(move |write| store::drop_period(write, number)).await?;
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn posted(&self, number: u64, mut period: Period) -> Result<(), CollectError> {
        period.posted = true;
        let channels = period.spans.len();
        tracing::info!(number, receipts = period.count, channels, "receipts posted");
        self.store.write(move |write| store::set_period(write, number, &period)).await?;
        Ok(())
    }
}
