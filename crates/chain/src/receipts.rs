//! Receipts in public: what a provider posts, and what that covers.

use alloy_primitives::{Address, B256};
use assay_protocol::{Amount, ChannelId};

use crate::bindings::Receipts;
use crate::chain::Chain;
use crate::client::Mined;
use crate::error::ChainError;
use crate::suite::Contract;

/// From where to where a period's receipts move one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which channel.
    pub channel: ChannelId,
    /// Position before the period's first receipt in it.
    pub before: Amount,
    /// Position after its last.
    pub after: Amount,
}

/// One posted tree of receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// Merkle root over the receipts' digests.
    pub root: B256,
    /// Number of receipts.
    pub count: u64,
    /// When it was posted, unix seconds.
    pub posted: u64,
}

impl Chain {
    /// Lets `poster`, usually the operator's key, post for the connection's account.
    pub async fn appoint(&self, poster: Address) -> Result<Mined, ChainError> {
        self.client().send(self.at(Contract::Receipts)?, &Receipts::appointCall { poster }).await
    }

    /// Posts `provider`'s next period: the tree's root over its receipts' digests, and what they cover.
    pub async fn post(
        &self,
        provider: Address,
        root: B256,
        count: u64,
        spans: &[Span],
    ) -> Result<Mined, ChainError> {
        let spans = spans.iter().map(|span| Receipts::Span {
            channel: span.channel.0,
            channelBefore: span.before.0,
            channelAfter: span.after.0,
        });
        let call = Receipts::postCall { provider, root, count, spans: spans.collect() };
        self.client().send(self.at(Contract::Receipts)?, &call).await
    }

    /// Up to which position of a channel `provider`'s receipts are posted.
    pub async fn covered(
        &self,
        provider: Address,
        channel: ChannelId,
    ) -> Result<Amount, ChainError> {
        let call = Receipts::covered_0Call { provider, channel: channel.0 };
        Ok(Amount(self.client().view(self.at(Contract::Receipts)?, &call).await?))
    }

    /// How many periods `provider` has posted.
    pub async fn periods(&self, provider: Address) -> Result<u64, ChainError> {
        let call = Receipts::periodsCall { provider };
        Ok(self.client().view(self.at(Contract::Receipts)?, &call).await?.saturating_to())
    }

    /// A posted period.
    pub async fn period(&self, provider: Address, period: u64) -> Result<Period, ChainError> {
        let call =
            Receipts::periodOfCall { provider, period: period.try_into().unwrap_or_default() };
        let found = self.client().view(self.at(Contract::Receipts)?, &call).await?;
        Ok(Period { root: found.root, count: found.count, posted: found.posted.to() })
    }
}
