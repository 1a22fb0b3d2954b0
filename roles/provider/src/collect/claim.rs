//! Claims vouchers, and has the till divide what came of earlier claims.

use std::collections::VecDeque;

use assay_chain::{ChainError, Claim};
use assay_protocol::{Amount, Channel, ChannelId};

use super::{CollectError, Collector, Now, is_releasable};
use crate::account::Account;
use crate::store::{self, StoreError};

/// Rows of one claim: what a block's gas leaves room for.
const CLAIMS_MAX: usize = 100;

/// The name under which the store keeps whether the till was made.
const TILL: &str = "till opened";

impl Collector<'_> {
    /// Claims what is earned on the channels of `due`.
    pub(super) async fn claim(&self, due: &[(ChannelId, Account)]) -> Result<(), CollectError> {
        let mut rows = Vec::new();
        for (id, account) in due.iter().filter(|(_, account)| account.unclaimed().0 > 0) {
            // A row that the channel cannot pay would only cost gas.
            let held = self.payment.bank.channel(*id).await?.state;
            let claimed = account.earned().min(held.balance);
            let stays = account.leaving && held.withdrawal.is_none();
            self.note(*id, held.claimed, stays).await?;
            if claimed > held.claimed {
                let claimable = account.voucher.claimable;
                let signature = account.voucher.signature;
                let channel = account.channel.clone();
                rows.push((*id, Claim { channel, claimable, signature, claimed }));
            }
        }
        let mut batches: VecDeque<_> = rows.chunks(CLAIMS_MAX).collect();
        while let Some(batch) = batches.pop_front() {
            let claims: Vec<Claim> = batch.iter().map(|(_, claim)| claim.clone()).collect();
            match self.payment.bank.claim(&claims).await {
                Ok(()) => self.look_again(batch).await?,
                // One bad row must not keep the others' money back.
                Err(ChainError::Refused(_) | ChainError::Failed { .. }) if batch.len() > 1 => {
                    let (first, second) = batch.split_at(batch.len() / 2);
                    batches.extend([first, second]);
                }
                Err(error @ (ChainError::Refused(_) | ChainError::Failed { .. })) => {
                    let channel = batch.first().map(|(id, _)| *id).unwrap_or_default();
                    tracing::error!(%channel, %error, "a claim is refused");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Notes what came of a claim: rows that were no good were passed over in silence.
    async fn look_again(&self, batch: &[(ChannelId, Claim)]) -> Result<(), CollectError> {
        for (id, claim) in batch {
            let held = self.payment.bank.channel(*id).await?.state;
            if held.claimed < claim.claimed {
                tracing::error!(channel = %id, found = %held.claimed, expected = %claim.claimed, "a claim was passed over");
            }
            self.note(*id, held.claimed, false).await?;
        }
        Ok(())
    }

    /// Notes what a channel was seen to have claimed, and that its payer, who was leaving, stays.
    async fn note(&self, id: ChannelId, claimed: Amount, stays: bool) -> Result<(), StoreError> {
        let change = move |account: &mut Account| {
            account.unseen |= account.claimed < claimed;
            account.claimed = claimed;
            // Only a mark that was there before the chain was asked: `watch` may set one meanwhile.
            account.leaving &= !stays;
        };
        self.store.write(move |write| store::update(write, id, change)).await
    }

    /// Has the till see what was claimed just now, and divide what was seen a dispute window ago.
    pub(super) async fn release(
        &self,
        due: &[(ChannelId, Account)],
        now: Now,
    ) -> Result<(), CollectError> {
        for (id, _) in due {
            let id = *id;
            let account = self.store.read(move |read| store::account(read, id)).await?;
            let Some(account) = account else { continue };
            if account.unseen || is_releasable(&account, now) {
                self.release_one(id, &account).await?;
            }
        }
        Ok(())
    }

    async fn release_one(&self, id: ChannelId, account: &Account) -> Result<(), CollectError> {
        let bank = &self.payment.bank;
        self.open_till().await?;
        let seen_at = bank.time().await?;
        self.release_at(id, &account.channel).await?;
        let paid_out = bank.paid_out(account.channel.receiver, id).await?;
        let change = move |account: &mut Account| {
            account.unseen = false;
            account.seen_at = seen_at;
            account.paid_out = paid_out;
        };
        Ok(self.store.write(move |write| store::update(write, id, change)).await?)
    }

    /// Has the till look at one channel. One that refuses must not keep the others waiting.
    async fn release_at(&self, id: ChannelId, channel: &Channel) -> Result<(), CollectError> {
        match self.payment.bank.release(channel).await {
            Err(error @ (ChainError::Refused(_) | ChainError::Failed { .. })) => {
                tracing::error!(channel = %id, %error, "a release is refused");
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Makes the till, once.
    async fn open_till(&self) -> Result<(), CollectError> {
        if self.store.read(|read| store::meta(read, TILL)).await?.is_some() {
            return Ok(());
        }
        self.payment.bank.open_till(self.payment.owner).await?;
        Ok(self.store.write(|write| store::set_meta(write, TILL, 1)).await?)
    }
}
