//! Why a payment is not taken, in x402's words and in ours.

use assay_protocol::{Address, Amount, ChannelId, U256};

use super::rail::RailError;
use super::wire::{Network, WireError};

/// Why a payment is not taken. [`Fault::code`] is x402's word for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// It cannot be read.
    #[error("the payment cannot be read: {0}")]
    Payload(#[from] WireError),
    /// Another chain.
    #[error("the payment is for {found}, expected {expected}")]
    Network { found: Network, expected: Network },
    /// Another token.
    #[error("the payment is in {found}, expected {expected}")]
    Asset { found: Address, expected: Address },
    /// To somebody else.
    #[error("the payment goes to {found}, expected {expected}")]
    Recipient { found: Address, expected: Address },
    /// Less than this request may cost.
    #[error("the payment accepts a price of {found}, this request may cost {expected}")]
    Short { found: Amount, expected: Amount },
    /// Signed for another amount than accepted.
    #[error("the payment is of {found}, expected {expected}")]
    Value { found: U256, expected: Amount },
    /// Not good yet.
    #[error("the payment is good after {found}, it is {now} now")]
    Early { found: U256, now: u64 },
    /// Not good long enough.
    #[error("the payment is good until {found}, it is {now} now")]
    Late { found: U256, now: u64 },
    /// Not the payer's signature.
    #[error("the payment is not signed by its payer {payer}")]
    Signature { payer: Address },
    /// The payer has less.
    #[error("the payer holds {found}, expected {expected}")]
    Balance { found: Amount, expected: Amount },
    /// Its nonce was used, or cancelled, before.
    #[error("the payment was used before")]
    Used,
    /// The same payment, or another of the same channel, is being worked on.
    #[error("an earlier request with this payment is not done yet")]
    Busy,
    /// Too many transactions are under way.
    #[error("{max} settlements are waiting for the chain already")]
    Crowded { max: usize },
    /// Too many of this payer's transactions lately.
    #[error("the payer had {max} settlements within a minute; the next is taken in {seconds} s")]
    Hasty { max: u32, seconds: u64 },
    /// Not worth its gas.
    #[error("{found} is less than a transaction is sent for, expected at least {expected}")]
    Small { found: Amount, expected: Amount },
    /// A deposit that is not worth its gas.
    #[error("the deposit is of {found}, expected at least {expected}")]
    SmallDeposit { found: Amount, expected: Amount },
    /// A refund that is not worth its gas; its payer can withdraw without us.
    #[error("a refund of {found} is less than a transaction is sent for, expected {expected}")]
    SmallRefund { found: Amount, expected: Amount },
    /// The chain refused the transfer.
    #[error("the transfer was refused: {0}")]
    Transfer(String),
    /// The chain does not answer.
    #[error("the chain does not answer: {0}")]
    Chain(String),
    /// What was kept cannot be read or written.
    #[error("the gateway's records cannot be used: {0}")]
    Journal(String),
    /// The channel is paid to somebody else.
    #[error("the channel pays {found}, expected {expected}")]
    Receiver { found: Address, expected: Address },
    /// The channel's claims need somebody else.
    #[error("the channel's receiver authorizer is {found}, expected {expected}")]
    ReceiverAuthorizer { found: Address, expected: Address },
    /// The channel is in another token.
    #[error("the channel is in {found}, expected {expected}")]
    Token { found: Address, expected: Address },
    /// The channel gives its payer back too soon, or too late.
    #[error("the channel's withdraw delay is {found} s, expected {expected} s")]
    WithdrawDelay { found: u64, expected: u64 },
    /// Vouchers of a payer without an authorizer can be voided by the payer.
    #[error("the channel names no payer authorizer")]
    PayerAuthorizer,
    /// The voucher is of another channel than the terms.
    #[error("the voucher is of channel {found}, the terms are of {expected}")]
    ChannelId { found: ChannelId, expected: ChannelId },
    /// Not the authorizer's signature.
    #[error("the voucher is not signed by {expected}")]
    Voucher { expected: Address },
    /// The voucher does not continue what was charged.
    #[error("the voucher allows {found} in all, expected {expected}")]
    Cumulative { found: Amount, expected: Amount },
    /// The voucher allows more than the channel surely has.
    #[error("the voucher allows {found} in all, the channel has {available}")]
    Exceeds { found: Amount, available: Amount },
    /// The voucher allows no more than was claimed.
    #[error("the voucher allows {found} in all, {claimed} are claimed")]
    Claimed { found: Amount, claimed: Amount },
    /// There is no such channel.
    #[error("the channel has no money")]
    NoChannel,
    /// The deposit is not by ERC-3009.
    #[error("a deposit needs an erc-3009 authorization")]
    DepositMethod,
    /// The deposit is not good yet, or not long enough.
    #[error("the deposit is good between {after} and {before}, it is {now} now")]
    DepositTime { after: U256, before: U256, now: u64 },
    /// Not the payer's signature.
    #[error("the deposit is not signed by its payer {payer}")]
    DepositSignature { payer: Address },
    /// The chain refused the deposit.
    #[error("the deposit was refused: {0}")]
    Deposit(String),
    /// Nothing to give back.
    #[error("the channel has nothing left to give back")]
    NoBalance,
    /// A refund of nothing.
    #[error("a refund must be of more than zero")]
    RefundAmount,
    /// The chain refused the refund.
    #[error("the refund was refused: {0}")]
    Refund(String),
    /// Something that only the channel's owner may ask.
    #[error("this facilitator does not do that for strangers")]
    Action,
}

impl Fault {
    /// The specification's word for it, or the reference client's where the specification has none.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Payload(WireError::Version { .. }) => "invalid_x402_version",
            Self::Payload(_) => "invalid_payload",
            Self::Network { .. } => "invalid_network",
            Self::Asset { .. } | Self::Short { .. } | Self::Small { .. } => {
                "invalid_payment_requirements"
            }
            Self::Recipient { .. } => "invalid_exact_evm_payload_recipient_mismatch",
            Self::Value { .. } => "invalid_exact_evm_payload_authorization_value_mismatch",
            Self::Early { .. } => "invalid_exact_evm_payload_authorization_valid_after",
            Self::Late { .. } => "invalid_exact_evm_payload_authorization_valid_before",
            Self::Signature { .. } => "invalid_exact_evm_payload_signature",
            Self::Balance { .. } => "insufficient_funds",
            Self::Used => "invalid_exact_evm_nonce_already_used",
            Self::Busy => "invalid_batch_settlement_evm_channel_busy",
            Self::Transfer(_) => "invalid_transaction_state",
            Self::Chain(_) | Self::Journal(_) | Self::Crowded { .. } | Self::Hasty { .. } => {
                "unexpected_settle_error"
            }
            Self::SmallDeposit { .. } => "invalid_batch_settlement_evm_deposit_below_min_deposit",
            Self::Receiver { .. } => "invalid_batch_settlement_evm_receiver_mismatch",
            Self::ReceiverAuthorizer { .. } => {
                "invalid_batch_settlement_evm_receiver_authorizer_mismatch"
            }
            Self::Token { .. } => "invalid_batch_settlement_evm_token_mismatch",
            Self::WithdrawDelay { .. } => "invalid_batch_settlement_evm_withdraw_delay_mismatch",
            Self::PayerAuthorizer => "invalid_batch_settlement_evm_authorizer_address_mismatch",
            Self::ChannelId { .. } => "invalid_batch_settlement_evm_channel_id_mismatch",
            Self::Voucher { .. } => "invalid_batch_settlement_evm_voucher_signature",
            Self::Cumulative { .. } => CUMULATIVE_MISMATCH,
            Self::Exceeds { .. } => "invalid_batch_settlement_evm_cumulative_exceeds_balance",
            Self::Claimed { .. } => CUMULATIVE_BELOW_CLAIMED,
            Self::NoChannel => "invalid_batch_settlement_evm_channel_not_found",
            Self::DepositMethod => "invalid_batch_settlement_evm_erc3009_authorization_required",
            Self::DepositTime { after, now, .. } if *after >= U256::from(*now) => {
                "invalid_batch_settlement_evm_payload_authorization_valid_after"
            }
            Self::DepositTime { .. } => {
                "invalid_batch_settlement_evm_payload_authorization_valid_before"
            }
            Self::DepositSignature { .. } => {
                "invalid_batch_settlement_evm_receive_authorization_signature"
            }
            Self::Deposit(_) => "invalid_batch_settlement_evm_deposit_transaction_failed",
            Self::NoBalance => "invalid_batch_settlement_evm_refund_no_balance",
            Self::RefundAmount | Self::SmallRefund { .. } => {
                "invalid_batch_settlement_evm_refund_amount_invalid"
            }
            Self::Refund(_) => "invalid_batch_settlement_evm_refund_transaction_failed",
            Self::Action => "invalid_batch_settlement_evm_unknown_settle_action",
        }
    }

    /// Whether the payer is told what we hold of its channel, so that it can go on from there.
    pub(crate) fn is_corrective(&self) -> bool {
        matches!(self, Self::Cumulative { .. } | Self::Claimed { .. })
    }

    /// Whether the same payment may be taken later.
    pub(crate) fn is_passing(&self) -> bool {
        self.retry_after_s().is_some()
    }

    /// In how many seconds the same payment may be taken, if ever.
    pub(crate) fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::Busy => Some(1),
            Self::Chain(_) | Self::Journal(_) => Some(2),
            Self::Crowded { .. } => Some(5),
            Self::Hasty { seconds, .. } => Some(*seconds),
            _ => None,
        }
    }
}

const CUMULATIVE_MISMATCH: &str = "invalid_batch_settlement_evm_cumulative_amount_mismatch";
const CUMULATIVE_BELOW_CLAIMED: &str = "invalid_batch_settlement_evm_cumulative_below_claimed";

/// A question that the chain did not answer.
pub(crate) fn unanswered(error: RailError) -> Fault {
    Fault::Chain(error.to_string())
}
