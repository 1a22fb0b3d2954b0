//! Why a transaction is not taken.

use alloy_primitives::{Address, B256, U256};

/// Why a transaction does not enter the mempool.
///
/// The first words of the messages are those that wallets and libraries look for when they explain
/// a refusal to people; found and expected follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The bytes are no transaction.
    #[error("rlp: {reason}")]
    Malformed {
        /// What the decoder says.
        reason: String,
    },
    /// The signature belongs to nobody.
    #[error("invalid sender: the signature of {hash} recovers no address")]
    Signature {
        /// The transaction.
        hash: B256,
    },
    /// It waits here already.
    #[error("already known: {hash}")]
    Known {
        /// The transaction.
        hash: B256,
    },
    /// Blobs have no place on this chain.
    #[error("transaction type not supported: found {found}")]
    Type {
        /// The type's number.
        found: u8,
    },
    /// Signed for another chain.
    #[error("invalid chain id for signer: found {found}, expected {expected}")]
    Chain {
        /// The chain it was signed for.
        found: u64,
        /// This chain.
        expected: u64,
    },
    /// Larger than this node passes on.
    #[error("oversized data: {found} bytes, at most {most}")]
    Size {
        /// Its encoded length.
        found: usize,
        /// The bound.
        most: usize,
    },
    /// More creation code than a block may hold in one transaction (EIP-3860).
    #[error("max initcode size exceeded: {found} bytes, at most {most}")]
    InitCode {
        /// Length of its creation code.
        found: usize,
        /// The bound.
        most: usize,
    },
    /// An EIP-7702 transaction that delegates nothing, or that creates.
    #[error("set code transaction must name an address and at least one authorization")]
    Delegation,
    /// It offers the producer more than it offers in all.
    #[error(
        "max priority fee per gas higher than max fee per gas: tip {tip} wei, maximum {fee} wei"
    )]
    TipAboveFee {
        /// Most it offers the producer, per gas.
        tip: u128,
        /// Most it offers in all, per gas.
        fee: u128,
    },
    /// Asks for more gas than any transaction may have (EIP-7825).
    #[error("transaction gas limit too high: found {found}, at most {most}")]
    GasCap {
        /// Its gas limit.
        found: u64,
        /// The bound.
        most: u64,
    },
    /// Asks for more gas than a block has.
    #[error("exceeds block gas limit: found {found}, at most {most}")]
    BlockGas {
        /// Its gas limit.
        found: u64,
        /// The next block's.
        most: u64,
    },
    /// Too little gas for what is due before anything runs.
    #[error("intrinsic gas too low: found {found}, needs {needed}")]
    IntrinsicGas {
        /// Its gas limit.
        found: u64,
        /// What its bytes alone cost.
        needed: u64,
    },
    /// A number that can never be used (EIP-2681).
    #[error("nonce has max value: {found}")]
    NonceMax {
        /// Its nonce.
        found: u64,
    },
    /// The account is past this nonce.
    #[error("nonce too low: next nonce {expected}, tx nonce {found}")]
    NonceTooLow {
        /// Its nonce.
        found: u64,
        /// The account's next.
        expected: u64,
    },
    /// Too far ahead of what the account has done.
    #[error("nonce too high: next nonce {expected}, tx nonce {found}, at most {most}")]
    NonceTooHigh {
        /// Its nonce.
        found: u64,
        /// The account's next.
        expected: u64,
        /// The highest that is kept.
        most: u64,
    },
    /// Contracts sign nothing (EIP-3607).
    #[error("sender not an eoa: {sender} has code")]
    SenderHasCode {
        /// The account.
        sender: Address,
    },
    /// The account cannot pay for this and for what already waits.
    #[error(
        "insufficient funds for gas * price + value: balance {balance} wei, this costs {cost} wei, \
         others waiting cost {waiting} wei"
    )]
    Funds {
        /// What the account has.
        balance: U256,
        /// Most that this one can cost.
        cost: U256,
        /// Most that the account's other waiting transactions can cost.
        waiting: U256,
    },
    /// Replaces another without paying a tenth more.
    #[error(
        "replacement transaction underpriced: fee {fee} wei and tip {tip} wei per gas, \
         needs {fee_needed} and {tip_needed}"
    )]
    Underpriced {
        /// Most it offers in all, per gas.
        fee: u128,
        /// Most it offers the producer, per gas.
        tip: u128,
        /// What both must at least be.
        fee_needed: u128,
        /// As above, for the tip.
        tip_needed: u128,
    },
    /// This sender already has as many waiting as one may.
    #[error("account limit exceeded: {most} transactions of {sender} are waiting")]
    SenderFull {
        /// The account.
        sender: Address,
        /// The bound.
        most: usize,
    },
    /// Too many transactions wait for one that is missing before them.
    #[error(
        "future transaction tries to replace pending: {most} others wait behind a missing nonce"
    )]
    GapsFull {
        /// The bound.
        most: usize,
    },
    /// The pool is full of transactions that pay more.
    #[error("txpool is full: {count} transactions, {bytes} bytes, none that pays less")]
    Full {
        /// How many wait.
        count: usize,
        /// Their encoded length.
        bytes: usize,
    },
    /// It cannot be kept on disk, so nobody is told that it waits. If the disk failed just now, it
    /// is in memory nevertheless and may enter a block; it can be sent again.
    #[error("transaction not kept: {reason}; send it again later")]
    Unkept {
        /// What is wrong with the disk.
        reason: String,
    },
}
