//! Payments by one signature and no transaction of the payer (ERC-3009), as x402's clients send them.
//!
//! A token that speaks ERC-3009 moves a payer's money for whoever brings the payer's signature. So does
//! the collector that brings a channel its deposit. What is signed is written here once, so that a seller
//! judges a signature before any gas is spent; what the token makes of it is the chain's word.

use alloy_primitives::{Address, B256, TxHash, U256, keccak256};
use alloy_provider::Provider as _;
use alloy_rpc_types_eth::Filter;
use alloy_sol_types::{Eip712Domain, SolEvent, SolStruct, SolValue};
use assay_protocol::{Amount, ChainId, Channel, ChannelId, Signature};

use crate::bindings::{AssayToken, Channels};
use crate::chain::Chain;
use crate::channels::config;
use crate::client::Mined;
use crate::error::ChainError;
use crate::suite::Contract;
use crate::token::amount;

/// Solidity's form of what is signed, and of what a token is asked.
mod words {
    #![allow(
        missing_docs,
        unreachable_pub,
        clippy::too_many_arguments,
        reason = "generated from the declarations"
    )]

    alloy_sol_types::sol! {
        struct TransferWithAuthorization {
            address from;
            address to;
            uint256 value;
            uint256 validAfter;
            uint256 validBefore;
            bytes32 nonce;
        }

        struct ReceiveWithAuthorization {
            address from;
            address to;
            uint256 value;
            uint256 validAfter;
            uint256 validBefore;
            bytes32 nonce;
        }

        function transferWithAuthorization(
            address from,
            address to,
            uint256 value,
            uint256 validAfter,
            uint256 validBefore,
            bytes32 nonce,
            bytes signature
        ) external;

        event AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce);

        function authorizationState(address authorizer, bytes32 nonce) external view returns (bool);
    }
}

/// A token that takes signatures for transfers: part of every digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedToken {
    /// Its EIP-712 name, such as `Assay`.
    pub name: String,
    /// Its EIP-712 version, such as `1`.
    pub version: String,
    /// The chain it is on.
    pub chain: ChainId,
    /// Where it is.
    pub address: Address,
}

/// A payer's leave to move its money once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// Whose money.
    pub from: Address,
    /// Who receives it.
    pub to: Address,
    /// Base units of the token.
    pub value: U256,
    /// Good after this second of Unix time, …
    pub valid_after: U256,
    /// … and before this one; both excluded.
    pub valid_before: U256,
    /// Makes it good once: a token takes each (payer, nonce) once.
    pub nonce: B256,
}

/// A payer's leave to put money into a channel; whose and which channel the channel's terms say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepositAuthorization {
    /// Base units of the token.
    pub value: Amount,
    /// Good after this second of Unix time, …
    pub valid_after: U256,
    /// … and before this one; both excluded.
    pub valid_before: U256,
    /// Makes it good once.
    pub salt: B256,
    /// The payer's, over [`DepositAuthorization::digest`].
    pub signature: Signature,
}

impl SignedToken {
    fn domain(&self) -> Eip712Domain {
        Eip712Domain::new(
            Some(self.name.clone().into()),
            Some(self.version.clone().into()),
            Some(U256::from(self.chain.0)),
            Some(self.address),
            None,
        )
    }
}

impl Authorization {
    /// What the payer signs for `transferWithAuthorization`.
    pub fn digest(&self, token: &SignedToken) -> B256 {
        let word = words::TransferWithAuthorization {
            from: self.from,
            to: self.to,
            value: self.value,
            validAfter: self.valid_after,
            validBefore: self.valid_before,
            nonce: self.nonce,
        };
        word.eip712_signing_hash(&token.domain())
    }
}

impl DepositAuthorization {
    /// What the payer signs: `receiveWithAuthorization` to `collector`, with a nonce that names the channel.
    pub fn digest(
        &self,
        token: &SignedToken,
        payer: Address,
        channel: ChannelId,
        collector: Address,
    ) -> B256 {
        let word = words::ReceiveWithAuthorization {
            from: payer,
            to: collector,
            value: U256::from(self.value.0),
            validAfter: self.valid_after,
            validBefore: self.valid_before,
            nonce: self.nonce(channel),
        };
        word.eip712_signing_hash(&token.domain())
    }

    /// The token's nonce: `keccak256(abi.encode(channelId, salt))`.
    pub fn nonce(&self, channel: ChannelId) -> B256 {
        keccak256((channel.0, self.salt).abi_encode())
    }
}

impl Chain {
    /// What `account` holds of `token`, in base units; the largest amount where it is more.
    pub async fn token_of(&self, token: Address, account: Address) -> Result<Amount, ChainError> {
        let call = AssayToken::balanceOfCall { account };
        Ok(amount(self.client().view(token, &call).await?))
    }

    /// Whether `token` took, or `payer` cancelled, the authorization with this nonce.
    pub async fn is_authorization_used(
        &self,
        token: Address,
        payer: Address,
        nonce: B256,
    ) -> Result<bool, ChainError> {
        let call = words::authorizationStateCall { authorizer: payer, nonce };
        self.client().view(token, &call).await
    }

    /// The transaction that moved just this money by this authorization's nonce, be it anyone's; none where
    /// there is none in the last `blocks` blocks, as when its payer cancelled it, or used the nonce for
    /// another transfer.
    pub async fn authorized_transfer(
        &self,
        token: Address,
        authorization: &Authorization,
        blocks: u64,
    ) -> Result<Option<TxHash>, ChainError> {
        let Authorization { from, to, value, nonce, .. } = authorization;
        let provider = self.client().provider();
        let filter = Filter::new()
            .address(token)
            .event_signature(words::AuthorizationUsed::SIGNATURE_HASH)
            .topic1(*from)
            .topic2(*nonce)
            .from_block(self.height().await?.saturating_sub(blocks));
        let used = provider.get_logs(&filter).await.map_err(|error| self.client().failed(error))?;
        let used = used.first().and_then(|log| Some((log.transaction_hash?, log.log_index?)));
        let Some((transaction, place)) = used else { return Ok(None) };
        let receipt = provider.get_transaction_receipt(transaction).await;
        let receipt = receipt.map_err(|error| self.client().failed(error))?;
        // The event names neither receiver nor amount. The transfer that it stands for follows at once.
        let mut logs = receipt.iter().flat_map(|receipt| receipt.logs());
        let next = logs.find(|log| log.log_index == Some(place + 1) && log.address() == token);
        let moved = next.and_then(|log| AssayToken::Transfer::decode_log(&log.inner).ok());
        let is_this = |moved: &AssayToken::Transfer| {
            (moved.from, moved.to, moved.value) == (*from, *to, *value)
        };
        Ok(moved.filter(|moved| is_this(&moved.data)).map(|_| transaction))
    }

    /// Moves money that its payer signed away. The gas is the connection's account's.
    pub async fn transfer_authorized(
        &self,
        token: Address,
        authorization: &Authorization,
        signature: &Signature,
    ) -> Result<Mined, ChainError> {
        let call = words::transferWithAuthorizationCall {
            from: authorization.from,
            to: authorization.to,
            value: authorization.value,
            validAfter: authorization.valid_after,
            validBefore: authorization.valid_before,
            nonce: authorization.nonce,
            signature: signature.0.to_vec().into(),
        };
        self.client().send(token, &call).await
    }

    /// Who collects deposits by ERC-3009: the recipient of what [`DepositAuthorization`] signs.
    pub fn authorized_collector(&self) -> Result<Address, ChainError> {
        self.at(Contract::Erc3009DepositCollector)
    }

    /// Puts money into a channel that its payer signed away for it, creating the channel if need be.
    pub async fn deposit_authorized(
        &self,
        channel: &Channel,
        authorization: &DepositAuthorization,
    ) -> Result<Mined, ChainError> {
        let data = (
            authorization.valid_after,
            authorization.valid_before,
            U256::from_be_bytes(authorization.salt.0),
            authorization.signature.0.to_vec(),
        );
        let call = Channels::depositCall {
            config: config!(Channels, channel),
            amount: authorization.value.0,
            collector: self.authorized_collector()?,
            collectorData: encoded(data),
        };
        self.client().send(self.at(Contract::Channels)?, &call).await
    }

    /// Sends `receiver` what was claimed for it in `token`. Anyone may; without money it does nothing.
    pub async fn sweep(&self, receiver: Address, token: Address) -> Result<Mined, ChainError> {
        let call = Channels::settleCall { receiver, token };
        self.client().send(self.at(Contract::Channels)?, &call).await
    }

    /// Gives a payer back at most `value` of what is unclaimed. Only the channel's receiver, or its authorizer.
    pub async fn refund(&self, channel: &Channel, value: Amount) -> Result<Mined, ChainError> {
        let call = Channels::refundCall { config: config!(Channels, channel), amount: value.0 };
        self.client().send(self.at(Contract::Channels)?, &call).await
    }

    /// The nonce that the next signed refund of a channel must name: how often it was refunded.
    pub async fn refund_nonce(&self, channel: ChannelId) -> Result<u64, ChainError> {
        let call = Channels::refundNonceCall { channelId: channel.0 };
        let nonce: U256 = self.client().view(self.at(Contract::Channels)?, &call).await?;
        Ok(nonce.saturating_to())
    }
}

/// `abi.encode(uint256, uint256, uint256, bytes)`.
fn encoded(data: (U256, U256, U256, Vec<u8>)) -> alloy_primitives::Bytes {
    let (after, before, salt, signature) = data;
    let signature = alloy_primitives::Bytes::from(signature);
    (after, before, salt, signature).abi_encode_params().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::{address, b256};

    /// The digests that eth-account makes of the same values.
    #[test]
    fn digests_are_those_of_other_tools() {
        let token = SignedToken {
            name: "Assay".to_owned(),
            version: "1".to_owned(),
            chain: ChainId(31337),
            address: address!("00000000000000000000000000000000000000aa"),
        };
        let authorization = Authorization {
            from: address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
            to: address!("00000000000000000000000000000000000000bb"),
            value: U256::from(1_000_000u64),
            valid_after: U256::ZERO,
            valid_before: U256::from(2_000_000_000u64),
            nonce: B256::repeat_byte(7),
        };
        assert_eq!(authorization.digest(&token), TRANSFER);
        let deposit = DepositAuthorization {
            value: Amount(1_000_000),
            valid_after: U256::ZERO,
            valid_before: U256::from(2_000_000_000u64),
            salt: B256::repeat_byte(9),
            signature: Signature([0; 65]),
        };
        let channel = ChannelId(B256::repeat_byte(7));
        assert_eq!(deposit.nonce(channel), NONCE);
        let found = deposit.digest(&token, authorization.from, channel, authorization.to);
        assert_eq!(found, RECEIVE);
    }

    const TRANSFER: B256 =
        b256!("c35cf9df7c88ed2af85ed762007eadd46c95aafab90ae6d674ca66dc48f70667");
    const NONCE: B256 = b256!("5b895df7997b5b29a0afa4eb421fd7ede9fc81cffd625a842196cc43708d41e3");
    const RECEIVE: B256 = b256!("39d0c813fa3fc9d0178fae3f7651c3750faa8534f4fb1f5b1fe78e725d32c76a");
}
