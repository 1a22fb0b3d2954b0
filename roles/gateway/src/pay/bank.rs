//! The chain as a purse sees it: where deposits go, and where they come back from.
//!
//! No request waits for it. Whoever deposits does so ahead of need, in the background.

use assay_chain::{Chain, ChainError, ChannelState};
use assay_protocol::{Address, Amount, B256, Channel, ChannelId};
use futures_util::future::BoxFuture;

use crate::standing::Standing;

/// Where the money of channels is: a chain, or a test's memory.
pub trait Bank: std::fmt::Debug + Send + Sync {
    /// Where the till of who answers for `provider`'s signatures is or will be: whom channels must pay
    /// so that money moves by receipts only.
    fn till(&self, provider: Address) -> BoxFuture<'_, Result<Address, ChainError>>;

    /// Puts `amount` base units into a channel of ours, creating it if need be. Done once it is in
    /// a block.
    fn deposit<'a>(
        &'a self,
        channel: &'a Channel,
        amount: Amount,
    ) -> BoxFuture<'a, Result<(), ChainError>>;

    /// What a channel holds; nothing for one that was never opened.
    fn state(&self, channel: ChannelId) -> BoxFuture<'_, Result<ChannelState, ChainError>>;

    /// Asks for `amount` back. It stays where it is for the channel's delay, in which its receiver
    /// can still claim.
    fn start_withdrawal<'a>(
        &'a self,
        channel: &'a Channel,
        amount: Amount,
    ) -> BoxFuture<'a, Result<(), ChainError>>;

    /// Takes back what was asked for and is unclaimed, once the delay is over.
    fn finish_withdrawal<'a>(
        &'a self,
        channel: &'a Channel,
    ) -> BoxFuture<'a, Result<(), ChainError>>;

    /// How who signs as `provider` stands: whether it may be bought from.
    fn standing(&self, provider: Address) -> BoxFuture<'_, Result<Standing, ChainError>>;

    /// Whether `issuer` took back the grant with this digest.
    fn is_revoked(&self, issuer: Address, grant: B256) -> BoxFuture<'_, Result<bool, ChainError>>;
}

impl Bank for Chain {
    fn till(&self, provider: Address) -> BoxFuture<'_, Result<Address, ChainError>> {
        Box::pin(async move {
            // Who is registered signs offers and receipts with an operator's key, and is paid as owner.
            let owner = self.owner_of(provider).await?;
            self.till_of(owner.unwrap_or(provider)).await
        })
    }

    fn standing(&self, provider: Address) -> BoxFuture<'_, Result<Standing, ChainError>> {
        Box::pin(async move {
            let Some(owner) = self.owner_of(provider).await? else { return Ok(Standing::Stranger) };
            let found = self.provider(owner).await?;
            Ok(found.as_ref().map_or(Standing::Stranger, Standing::from))
        })
    }

    fn deposit<'a>(
        &'a self,
        channel: &'a Channel,
        amount: Amount,
    ) -> BoxFuture<'a, Result<(), ChainError>> {
        Box::pin(async move { self.deposit(channel, amount).await.map(drop) })
    }

    fn state(&self, channel: ChannelId) -> BoxFuture<'_, Result<ChannelState, ChainError>> {
        Box::pin(self.channel(channel))
    }

    fn start_withdrawal<'a>(
        &'a self,
        channel: &'a Channel,
        amount: Amount,
    ) -> BoxFuture<'a, Result<(), ChainError>> {
        Box::pin(async move { self.start_withdrawal(channel, amount).await.map(drop) })
    }

    fn finish_withdrawal<'a>(
        &'a self,
        channel: &'a Channel,
    ) -> BoxFuture<'a, Result<(), ChainError>> {
        Box::pin(async move { self.finish_withdrawal(channel).await.map(drop) })
    }

    fn is_revoked(&self, issuer: Address, grant: B256) -> BoxFuture<'_, Result<bool, ChainError>> {
        Box::pin(self.is_revoked(issuer, grant))
    }
}
