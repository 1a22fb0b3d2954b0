//! What the door needs of a chain: a few questions, and a few transactions.
//!
//! The seam is a trait because two implementations exist: the contracts on a chain, and one in memory
//! that tests break on purpose. Transactions go out one after the other, since two of one account sent
//! at once would carry the same number.

use assay_chain::{Authorization, Chain, ChainError, ChannelState, Claim, DepositAuthorization};
use assay_protocol::{Address, Amount, B256, Channel, ChannelId, Channels, Signature};
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

/// Blocks in which a transfer of unknown fate is looked for. Authorizations live for minutes.
const LOOK_BACK_BLOCKS: u64 = 5_000;

/// Why a chain did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RailError {
    /// A contract refused, and will again: nothing was spent.
    #[error("{0}")]
    Refused(String),
    /// Nobody knows what became of it: no answer, or a transaction that is in no block yet.
    #[error("{0}")]
    Unknown(String),
}

impl From<ChainError> for RailError {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Refused(_)
            | ChainError::Failed { .. }
            | ChainError::Node { .. }
            | ChainError::NotInBook(_)
            | ChainError::NoKey => Self::Refused(error.to_string()),
            _ => Self::Unknown(error.to_string()),
        }
    }
}

/// What comes back of a question or a transaction.
pub type Done<'a, T> = BoxFuture<'a, Result<T, RailError>>;

/// A chain on which x402 settles.
pub trait Rail: std::fmt::Debug + Send + Sync {
    /// Where channels are kept: part of every voucher's digest.
    fn channels(&self) -> Channels;
    /// Who collects deposits by ERC-3009.
    fn collector(&self) -> Address;
    /// Who pays for transactions; claims need it to be the receiver, or its authorizer.
    fn account(&self) -> Address;
    /// What `account` holds of `token`.
    fn balance(&self, token: Address, account: Address) -> Done<'_, Amount>;
    /// Whether an authorization's nonce is used up.
    fn is_used(&self, token: Address, payer: Address, nonce: B256) -> Done<'_, bool>;
    /// The transaction that used its nonce up by moving just this money, whoever sent it.
    fn find<'a>(
        &'a self,
        token: Address,
        authorization: &'a Authorization,
    ) -> Done<'a, Option<B256>>;
    /// Moves money that its payer signed away; returns once it is in a block.
    fn transfer<'a>(
        &'a self,
        token: Address,
        authorization: &'a Authorization,
        signature: &'a Signature,
    ) -> Done<'a, B256>;
    /// What a channel holds in the latest block.
    fn channel(&self, id: ChannelId) -> Done<'_, ChannelState>;
    /// How often a channel was refunded.
    fn refunds(&self, id: ChannelId) -> Done<'_, u64>;
    /// Puts money into a channel that its payer signed away; returns once it is in a block.
    fn deposit<'a>(
        &'a self,
        channel: &'a Channel,
        authorization: &'a DepositAuthorization,
    ) -> Done<'a, B256>;
    /// Claims from channels whose receiver, or receiver's authorizer, is [`Rail::account`].
    fn claim<'a>(&'a self, claims: &'a [Claim]) -> Done<'a, B256>;
    /// Sends `receiver` what was claimed for it.
    fn sweep(&self, receiver: Address, token: Address) -> Done<'_, B256>;
    /// Gives unclaimed money back to its payer.
    fn refund<'a>(&'a self, channel: &'a Channel, amount: Amount) -> Done<'a, B256>;
}

/// Our contracts, or the public deployment's where the address book names those.
#[derive(Debug)]
pub struct ChainRail {
    chain: Chain,
    channels: Channels,
    collector: Address,
    account: Address,
    /// Held while a transaction is under way.
    sending: Mutex<()>,
}

impl ChainRail {
    /// Settles on `chain`, whose connection must have a key.
    ///
    /// # Errors
    /// If the address book lacks the channels or the collector, or there is no key.
    pub fn new(chain: Chain) -> Result<Self, ChainError> {
        let channels = chain.channels()?;
        let collector = chain.authorized_collector()?;
        let account = chain.client().account().ok_or(ChainError::NoKey)?;
        Ok(Self { chain, channels, collector, account, sending: Mutex::default() })
    }
}

impl Rail for ChainRail {
    fn channels(&self) -> Channels {
        self.channels
    }

    fn collector(&self) -> Address {
        self.collector
    }

    fn account(&self) -> Address {
        self.account
    }

    fn balance(&self, token: Address, account: Address) -> Done<'_, Amount> {
        Box::pin(async move { Ok(self.chain.token_of(token, account).await?) })
    }

    fn is_used(&self, token: Address, payer: Address, nonce: B256) -> Done<'_, bool> {
        Box::pin(async move { Ok(self.chain.is_authorization_used(token, payer, nonce).await?) })
    }

    fn find<'a>(
        &'a self,
        token: Address,
        authorization: &'a Authorization,
    ) -> Done<'a, Option<B256>> {
        Box::pin(async move {
            Ok(self.chain.authorized_transfer(token, authorization, LOOK_BACK_BLOCKS).await?)
        })
    }

    fn transfer<'a>(
        &'a self,
        token: Address,
        authorization: &'a Authorization,
        signature: &'a Signature,
    ) -> Done<'a, B256> {
        Box::pin(async move {
            let _sending = self.sending.lock().await;
            Ok(self.chain.transfer_authorized(token, authorization, signature).await?.hash)
        })
    }

    fn channel(&self, id: ChannelId) -> Done<'_, ChannelState> {
        Box::pin(async move { Ok(self.chain.channel(id).await?) })
    }

    fn refunds(&self, id: ChannelId) -> Done<'_, u64> {
        Box::pin(async move { Ok(self.chain.refund_nonce(id).await?) })
    }

    fn deposit<'a>(
        &'a self,
        channel: &'a Channel,
        authorization: &'a DepositAuthorization,
    ) -> Done<'a, B256> {
        Box::pin(async move {
            let _sending = self.sending.lock().await;
            Ok(self.chain.deposit_authorized(channel, authorization).await?.hash)
        })
    }

    fn claim<'a>(&'a self, claims: &'a [Claim]) -> Done<'a, B256> {
        Box::pin(async move {
            let _sending = self.sending.lock().await;
            Ok(self.chain.claim(claims).await?.hash)
        })
    }

    fn sweep(&self, receiver: Address, token: Address) -> Done<'_, B256> {
        Box::pin(async move {
            let _sending = self.sending.lock().await;
            Ok(self.chain.sweep(receiver, token).await?.hash)
        })
    }

    fn refund<'a>(&'a self, channel: &'a Channel, amount: Amount) -> Done<'a, B256> {
        Box::pin(async move {
            let _sending = self.sending.lock().await;
            Ok(self.chain.refund(channel, amount).await?.hash)
        })
    }
}
