//! Why a chain did not do what was asked.

use alloy_primitives::{Address, B256, Bytes, TxHash};
use alloy_provider::transport::{RpcError, TransportError};

use crate::book::NotInBook;
use crate::refusal::Refusal;
use crate::suite::Contract;

/// Why a chain did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The address is not one of an RPC server.
    #[error("{url:?} is not the address of an RPC server: {reason}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No answer, or none that could be understood.
    #[error("the chain's RPC server at {url} does not answer: {reason}")]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The node refused, for a reason that is not a contract's.
    #[error("the chain's node refused: {message} (code {code})")]
    Node {
        /// JSON-RPC error code.
        code: i64,
        /// In the node's words.
        message: String,
    },
    /// A contract refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A contract answered with bytes that its interface does not allow.
    #[error("{to} answered {} bytes that are not what its interface says: is it the contract of the address book?", answer.len())]
    Answer {
        /// Who answered.
        to: Address,
        /// What it said.
        answer: Bytes,
    },
    /// The transaction was in a block and failed.
    #[error("transaction {hash} failed in its block; nothing changed but the gas it cost")]
    Failed {
        /// Which one.
        hash: TxHash,
    },
    /// The transaction is not in a block yet.
    #[error(
        "transaction {hash} is in no block after {seconds} s; it may still come: ask for its receipt before sending another"
    )]
    Pending {
        /// Which one.
        hash: TxHash,
        /// How long was waited.
        seconds: u64,
    },
    /// Earlier transactions of the account are not in a block yet.
    #[error("{waiting} earlier transactions of {account} are in no block yet; nothing was sent")]
    Busy {
        /// Whose.
        account: Address,
        /// How many.
        waiting: u64,
    },
    /// Sending needs a key.
    #[error("this needs a key that signs transactions, and none was given")]
    NoKey,
    /// The book is of another chain.
    #[error(
        "the address book is of chain {expected_id} with genesis {expected}, the server's is chain {found_id} with genesis {found}"
    )]
    OtherChain {
        /// The server's chain id.
        found_id: u64,
        /// The server's first block.
        found: B256,
        /// The book's chain id.
        expected_id: u64,
        /// The book's first block.
        expected: B256,
    },
    /// Something else stands where a contract should.
    #[error("{contract} should stand at {address}, but the code there is another's")]
    ForeignCode {
        /// What should be there.
        contract: Contract,
        /// Where.
        address: Address,
    },
    /// The deterministic deployer is not on this chain and cannot be put there.
    #[error(
        "the deterministic deployer is not on this chain; send 0.01 of the chain's coin to {payer}, then run this again"
    )]
    NoDeployer {
        /// Whose presigned transaction makes it.
        payer: Address,
    },
    /// The book does not name it.
    #[error(transparent)]
    NotInBook(#[from] NotInBook),
}

impl ChainError {
    /// What a transport's error means.
    pub(crate) fn from_rpc(url: &str, error: TransportError) -> Self {
        match error {
            RpcError::ErrorResp(payload) => match payload.as_revert_data() {
                Some(data) => Refusal::from_data(data).into(),
                // A revert without data has an empty reason.
                None if payload.code == 3 => Refusal::from_data(Bytes::new()).into(),
                None => Self::Node { code: payload.code, message: payload.message.into_owned() },
            },
            other => Self::Unreachable { url: url.to_owned(), reason: other.to_string() },
        }
    }
}
