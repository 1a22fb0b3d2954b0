//! Payment channels and the vouchers that draw on them.
//!
//! The words are those of the public x402 `batch-settlement` deployment, so that its clients pay us
//! and its contracts could be ours: EIP-712 with the domain {"x402 Batch Settlement", "1", chain,
//! contract}. `tests/vectors/channels.json` pins the digests for this crate and for Solidity; they
//! were made with x402's own package.

use alloy_primitives::{Address, B256, aliases::U40};
use alloy_sol_types::{Eip712Domain, SolStruct, eip712_domain, sol};
use serde::{Deserialize, Serialize};

use crate::{Amount, ChainId, ChannelId, Key, Signature, SignatureError};

/// Where channels are kept: a contract on a chain. Part of every digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Channels {
    /// The chain.
    pub chain: ChainId,
    /// The contract.
    pub contract: Address,
}

/// What a channel is for its whole life.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Channel {
    /// Whose money it is.
    pub payer: Address,
    /// Whose key signs vouchers; zero for the payer itself. A receiver must insist on one that is not
    /// zero: a payer with a key alone can delegate (EIP-7702) to code whose `isValidSignature`
    /// refuses, and so void vouchers that it signed.
    pub payer_authorizer: Address,
    /// Who is paid.
    pub receiver: Address,
    /// Who may, beside the receiver, claim and refund. Not zero.
    pub receiver_authorizer: Address,
    /// The ERC-20 that it is in.
    pub token: Address,
    /// Seconds between the payer's wish to withdraw and the withdrawal: 900 to 2,592,000. Above 2^40 - 1 it is read as that.
    pub withdraw_delay: u64,
    /// Makes otherwise equal channels differ.
    pub salt: B256,
}

/// A payer's word: of this channel, this much may be claimed in all. Cumulative; a later one
/// replaces the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Voucher {
    /// Which channel.
    pub channel: ChannelId,
    /// Base units of the channel's token, since it was opened.
    pub claimable: Amount,
}

/// Solidity's form (`contracts/src/interfaces/IChannels.sol`).
mod words {
    use super::sol;

    sol! {
        struct ChannelConfig {
            address payer;
            address payerAuthorizer;
            address receiver;
            address receiverAuthorizer;
            address token;
            uint40 withdrawDelay;
            bytes32 salt;
        }

        struct Voucher {
            bytes32 channelId;
            uint128 maxClaimableAmount;
        }
    }
}

impl Channels {
    fn domain(&self) -> Eip712Domain {
        eip712_domain! {
            name: "x402 Batch Settlement",
            version: "1",
            chain_id: self.chain.0,
            verifying_contract: self.contract,
        }
    }
}

impl Channel {
    /// The channel's name there: the EIP-712 digest of its terms.
    pub fn id(&self, channels: &Channels) -> ChannelId {
        let word = words::ChannelConfig {
            payer: self.payer,
            payerAuthorizer: self.payer_authorizer,
            receiver: self.receiver,
            receiverAuthorizer: self.receiver_authorizer,
            token: self.token,
            withdrawDelay: U40::saturating_from(self.withdraw_delay),
            salt: self.salt,
        };
        ChannelId(word.eip712_signing_hash(&channels.domain()))
    }

    /// Whose key signs vouchers.
    pub fn signer(&self) -> Address {
        if self.payer_authorizer == Address::ZERO { self.payer } else { self.payer_authorizer }
    }
}

impl Voucher {
    /// What is signed.
    pub fn digest(&self, channels: &Channels) -> B256 {
        let word =
            words::Voucher { channelId: self.channel.0, maxClaimableAmount: self.claimable.0 };
        word.eip712_signing_hash(&channels.domain())
    }

    /// Signs as the payer, or as its authorizer.
    pub fn sign(&self, channels: &Channels, key: &Key) -> Signature {
        key.sign(self.digest(channels))
    }

    /// Who signed.
    pub fn signer(
        &self,
        channels: &Channels,
        signature: &Signature,
    ) -> Result<Address, SignatureError> {
        signature.signer(self.digest(channels))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Vectors {
        key: B256,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Case {
        chain_id: u64,
        contract: Address,
        config: Config,
        channel_id: B256,
        max_claimable_amount: String,
        voucher: B256,
        signature: alloy_primitives::Bytes,
    }

    /// x402 writes the delay as text.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Config {
        payer: Address,
        payer_authorizer: Address,
        receiver: Address,
        receiver_authorizer: Address,
        token: Address,
        withdraw_delay: String,
        salt: B256,
    }

    #[test]
    fn digests_are_those_of_the_public_deployment() {
        let text = include_str!("../../../tests/vectors/channels.json");
        let vectors: Vectors = serde_json::from_str(text).unwrap();
        let key = Key::from_bytes(vectors.key.0).unwrap();
        assert!(!vectors.cases.is_empty());
        for case in vectors.cases {
            let channels = Channels { chain: ChainId(case.chain_id), contract: case.contract };
            let channel = Channel {
                payer: case.config.payer,
                payer_authorizer: case.config.payer_authorizer,
                receiver: case.config.receiver,
                receiver_authorizer: case.config.receiver_authorizer,
                token: case.config.token,
                withdraw_delay: case.config.withdraw_delay.parse().unwrap(),
                salt: case.config.salt,
            };
            let id = channel.id(&channels);
            assert_eq!(id.0, case.channel_id);
            let claimable = Amount(case.max_claimable_amount.parse().unwrap());
            let voucher = Voucher { channel: id, claimable };
            assert_eq!(voucher.digest(&channels), case.voucher);
            let signed = voucher.sign(&channels, &key);
            assert_eq!(signed.0, case.signature.as_ref());
            assert_eq!(voucher.signer(&channels, &signed), Ok(key.address()));
        }
    }
}
