//! Payment channels: opening, claiming, and the ways back.

use alloy_primitives::aliases::U40;
use alloy_primitives::{Address, B256, Bytes};
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

/// What claims must have in common to be packed: equal terms of their channels but for the payer and its
/// signer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pack {
    receiver: Address,
    receiver_authorizer: Address,
    token: Address,
    withdraw_delay: u64,
    salt: B256,
}

impl Claim {
    /// With which others it can be packed. None for a claim that takes less than its voucher allows, or
    /// whose voucher the payer signs by other means than a key's signature.
    pub fn pack(&self) -> Option<Pack> {
        let Channel { receiver, receiver_authorizer, token, withdraw_delay, salt, .. } =
            self.channel;
        let by_key = self.channel.payer_authorizer != Address::ZERO
            && matches!(self.signature.0[64], 27 | 28);
        (by_key && self.claimed == self.claimable).then_some(Pack {
            receiver,
            receiver_authorizer,
            token,
            withdraw_delay,
            salt,
        })
    }

    /// Its row: payer ‖ payer authorizer ‖ claimable ‖ r ‖ s, with v in the topmost bit of s (ERC-2098).
    fn row(&self) -> [u8; 120] {
        let mut row = [0; 120];
        row[..20].copy_from_slice(self.channel.payer.as_slice());
        row[20..40].copy_from_slice(self.channel.payer_authorizer.as_slice());
        row[40..56].copy_from_slice(&self.claimable.0.to_be_bytes());
        row[56..].copy_from_slice(&self.signature.0[..64]);
        // A low s leaves the bit free.
        row[88] |= (self.signature.0[64] & 1 ^ 1) << 7;
        row
    }
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

    /// The terms of a channel; none if nobody opened it.
    pub async fn channel_terms(&self, id: ChannelId) -> Result<Option<Channel>, ChainError> {
        let found = self.logs::<Channels::ChannelCreated>(self.at(Contract::Channels)?).await?;
        let mut found = found.into_iter().filter(|event| event.channelId == id.0);
        Ok(found.next().map(|event| terms(&event.config)))
    }

    /// The channels that `payer` has opened, oldest first.
    pub async fn channels_of(&self, payer: Address) -> Result<Vec<Channel>, ChainError> {
        let found = self.logs::<Channels::ChannelCreated>(self.at(Contract::Channels)?).await?;
        let mut opened: Vec<Channel> = Vec::new();
        for channel in found.iter().map(|event| terms(&event.config)) {
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

    /// As [`Chain::claim`], for claims of one [`Pack`], at about half the gas for each. Those of another are
    /// skipped as bad rows.
    pub async fn claim_packed(&self, pack: Pack, claims: &[Claim]) -> Result<Mined, ChainError> {
        let terms = Channels::Terms {
            receiver: pack.receiver,
            receiverAuthorizer: pack.receiver_authorizer,
            token: pack.token,
            withdrawDelay: U40::saturating_from(pack.withdraw_delay),
            salt: pack.salt,
        };
        let rows: Vec<u8> = claims.iter().flat_map(Claim::row).collect();
        let call = Channels::claimPackedCall { terms, rows: rows.into() };
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

/// A channel's terms, as its first deposit tells them.
fn terms(config: &Channels::ChannelConfig) -> Channel {
    Channel {
        payer: config.payer,
        payer_authorizer: config.payerAuthorizer,
        receiver: config.receiver,
        receiver_authorizer: config.receiverAuthorizer,
        token: config.token,
        withdraw_delay: config.withdrawDelay.to(),
        salt: config.salt,
    }
}

#[cfg(test)]
mod tests {
    use assay_protocol::{Key, Voucher};

    use super::*;

    fn claim(key: &Key, claimable: u128, claimed: u128) -> Claim {
        let channel = Channel {
            payer: Address::repeat_byte(1),
            payer_authorizer: key.address(),
            receiver: Address::repeat_byte(2),
            receiver_authorizer: Address::repeat_byte(3),
            token: Address::repeat_byte(4),
            withdraw_delay: 900,
            salt: B256::ZERO,
        };
        let here = protocol::Channels { chain: ChainId(7), contract: Address::repeat_byte(5) };
        let word = Voucher { channel: channel.id(&here), claimable: Amount(claimable) };
        let signature = word.sign(&here, key);
        Claim { channel, claimable: word.claimable, signature, claimed: Amount(claimed) }
    }

    #[test]
    fn only_full_vouchers_of_keys_and_equal_terms_are_packed_together() {
        let key = Key::from_bytes([1; 32]).unwrap();
        let full = claim(&key, 10, 10);
        assert!(full.pack().is_some());
        assert_eq!(full.pack(), claim(&key, 9, 9).pack());
        assert_eq!(claim(&key, 10, 9).pack(), None);
        let mut other = full.clone();
        other.channel.salt = B256::repeat_byte(1);
        assert_ne!(full.pack(), other.pack());
        other.channel.payer_authorizer = Address::ZERO;
        assert_eq!(other.pack(), None);
    }

    #[test]
    fn a_row_holds_the_compact_signature() {
        // Both parities of the signature's point.
        let mut parities = [false; 2];
        for byte in 1..20 {
            let claim = claim(&Key::from_bytes([byte; 32]).unwrap(), 10, 10);
            let row = claim.row();
            assert_eq!(row[40..56], 10u128.to_be_bytes());
            let odd = claim.signature.0[64] == 28;
            parities[usize::from(odd)] = true;
            assert_eq!(row[88] >> 7 == 1, odd);
            let mut signature = [0; 65];
            signature[..64].copy_from_slice(&row[56..]);
            signature[32] &= 0x7f;
            signature[64] = 27 + (row[88] >> 7);
            assert_eq!(Signature(signature), claim.signature);
        }
        assert_eq!(parities, [true; 2]);
    }
}
