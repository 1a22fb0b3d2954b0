//! Payment channels: opening, claiming, and the ways back.

use alloy_primitives::{Address, Bytes};
use assay_protocol::{self as protocol, Amount, ChainId, Channel, ChannelId, Signature};

use crate::bindings::{ApprovalDepositCollector, Channels};
use crate::chain::Chain;
use crate::client::Mined;
use crate::error::ChainError;
use crate::suite::Contract;

/// A channel's terms as `$contract` reads them: one Solidity struct, which every binding has its own copy of.
macro_rules! config {
    ($contract:ident, $channel:expr) => {
        $contract::ChannelConfig {
            payer: $channel.payer,
            payerAuthorizer: $channel.payer_authorizer,
            receiver: $channel.receiver,
            receiverAuthorizer: $channel.receiver_authorizer,
            token: $channel.token,
            withdrawDelay: alloy_primitives::aliases::U40::saturating_from($channel.withdraw_delay),
            salt: $channel.salt,
        }
    };
}
pub(crate) use config;

/// What a channel holds, in base units of its token, cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelState {
    /// Deposited and not given back.
    pub balance: Amount,
    /// What of it was claimed.
    pub claimed: Amount,
    /// The payer's withdrawal under way.
    pub withdrawal: Option<Withdrawal>,
}

/// A payer's wish to have its money back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    /// At most this much.
    pub amount: Amount,
    /// Since when, unix seconds.
    pub since: u64,
}

/// One row of a claim.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Whose money.
    pub channel: Channel,
    /// How much the voucher allows in all.
    pub claimable: Amount,
    /// The payer's, or its authorizer's, over the voucher.
    pub signature: Signature,
    /// How much the receiver takes in all; at most what the voucher allows.
    pub claimed: Amount,
}

impl Chain {
    /// Where channels are kept: part of every voucher's digest.
    pub fn channels(&self) -> Result<protocol::Channels, ChainError> {
        let contract = self.at(Contract::Channels)?;
        Ok(protocol::Channels { chain: ChainId(self.client().chain_id()), contract })
    }

    /// Puts `amount` into a channel of the connection's account, creating it if need be; approves first
    /// where needed.
    pub async fn deposit(&self, channel: &Channel, amount: Amount) -> Result<Mined, ChainError> {
        let collector = self.at(Contract::ApprovalDepositCollector)?;
        self.allow(channel.token, collector, amount).await?;
        let call = ApprovalDepositCollector::depositCall {
            config: config!(ApprovalDepositCollector, channel),
            amount: amount.0,
        };
        self.client().send(collector, &call).await
    }

    /// What a channel holds; nothing for one that was never opened.
    pub async fn channel(&self, id: ChannelId) -> Result<ChannelState, ChainError> {
        let channels = self.at(Contract::Channels)?;
        let held =
            self.client().view(channels, &Channels::channelsCall { channelId: id.0 }).await?;
        let call = Channels::pendingWithdrawalsCall { channelId: id.0 };
        let pending = self.client().view(channels, &call).await?;
        let since: u64 = pending.initiatedAt.to();
        Ok(ChannelState {
            balance: Amount(held.balance),
            claimed: Amount(held.totalClaimed),
            withdrawal: (since != 0)
                .then_some(Withdrawal { amount: Amount(pending.amount), since }),
        })
    }

    /// The channels that `payer` has opened, oldest first.
    pub async fn channels_of(&self, payer: Address) -> Result<Vec<Channel>, ChainError> {
        let found = self.logs::<Channels::ChannelCreated>(self.at(Contract::Channels)?).await?;
        let mut opened: Vec<Channel> = Vec::new();
        for config in found.into_iter().map(|event| event.config) {
            let channel = Channel {
                payer: config.payer,
                payer_authorizer: config.payerAuthorizer,
                receiver: config.receiver,
                receiver_authorizer: config.receiverAuthorizer,
                token: config.token,
                withdraw_delay: config.withdrawDelay.to(),
                salt: config.salt,
            };
            // One that was emptied and filled anew is told of twice.
            if channel.payer == payer && !opened.contains(&channel) {
                opened.push(channel);
            }
        }
        Ok(opened)
    }

    /// Records claims of channels whose receiver, or receiver's authorizer, is the connection's account.
    /// A bad row is skipped and leaves the others alone; fails only if none is good.
    pub async fn claim(&self, claims: &[Claim]) -> Result<Mined, ChainError> {
        let rows = claims.iter().map(|claim| Channels::VoucherClaim {
            voucher: Channels::Voucher {
                channel: config!(Channels, claim.channel),
                maxClaimableAmount: claim.claimable.0,
            },
            signature: Bytes::copy_from_slice(&claim.signature.0),
            totalClaimed: claim.claimed.0,
        });
        let call = Channels::claimCall { voucherClaims: rows.collect() };
        self.client().send(self.at(Contract::Channels)?, &call).await
    }

    /// Starts the payer's way out of a channel.
    pub async fn start_withdrawal(
        &self,
        channel: &Channel,
        amount: Amount,
    ) -> Result<Mined, ChainError> {
        let call =
            Channels::initiateWithdrawCall { config: config!(Channels, channel), amount: amount.0 };
        self.client().send(self.at(Contract::Channels)?, &call).await
    }

    /// Ends it, once the channel's delay is over: pays the payer what is unclaimed.
    pub async fn finish_withdrawal(&self, channel: &Channel) -> Result<Mined, ChainError> {
        let call = Channels::finalizeWithdrawCall { config: config!(Channels, channel) };
        self.client().send(self.at(Contract::Channels)?, &call).await
    }
}
