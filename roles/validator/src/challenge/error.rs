//! Why a dispute was not begun, or not brought to its end.

use assay_chain::ChainError;
use assay_court::CourtError;
use assay_engine::{ReplayError, TraceError};
use assay_evidence::Fault;
use assay_evidence::dispute::NoAnswer;
use assay_protocol::{Address, Amount, B256};

/// Why a dispute was not begun, or not brought to its end.
#[derive(Debug, thiserror::Error)]
pub enum ChallengeError {
    /// The answer cannot be replayed with the model at hand.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The answer has no trace.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The chain does not answer, or refuses.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// What happened in the dispute could not be read.
    #[error(transparent)]
    Court(#[from] CourtError),
    /// What stands on chain does not fit the answer.
    #[error(transparent)]
    Game(#[from] NoAnswer),
    /// The answer is wrong in a way that no contract can judge.
    #[error("no contract can judge this: {fault}")]
    Undisputable {
        /// What is wrong.
        fault: Fault,
    },
    /// Nobody's stake answers for the receipt.
    #[error("{operator}, who signed the receipt, is no provider on this chain")]
    NoProvider {
        /// Who signed.
        operator: Address,
    },
    /// Both signatures are for another chain.
    #[error("the receipt is for chain {found}, this is chain {expected}")]
    OtherChain {
        /// The receipt's.
        found: u64,
        /// The connection's.
        expected: u64,
    },
    /// The bond is more than the account has.
    #[error("{account} has {found} base units of ASY, and the bond is {bond}")]
    Poor {
        /// Who would open.
        account: Address,
        /// What it has.
        found: Amount,
        /// What a dispute takes.
        bond: Amount,
    },
    /// Transactions cost coins, and the account has none.
    #[error("{account} has no coins to pay for transactions")]
    NoCoins {
        /// Who would send.
        account: Address,
    },
    /// The provider committed to the honest trace, and all checks hold: there is nothing to name.
    #[error("the provider's trace of dispute {dispute} is the one computed here")]
    Agrees {
        /// The dispute.
        dispute: u64,
    },
    /// The contracts refused a move again and again.
    #[error("a move of dispute {dispute} was refused {times} times: {last}")]
    Refused {
        /// The dispute.
        dispute: u64,
        /// How often.
        times: u32,
        /// The last refusal.
        last: ChainError,
    },
    /// A receipt was found false, but what it takes to punish or refund was not done.
    #[error("receipt {receipt} was found false, but not everything could be collected: {last}")]
    Uncollected {
        /// Its digest.
        receipt: B256,
        /// Why.
        last: ChainError,
    },
    /// A computation broke.
    #[error("a computation broke: {0}")]
    Broken(String),
}
