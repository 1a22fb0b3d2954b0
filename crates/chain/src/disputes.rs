//! Disputes about receipts: what one takes.

use assay_protocol::Amount;
use serde::{Deserialize, Serialize};

/// What a dispute takes, decided once by a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DisputeTerms {
    /// What a challenger puts in, and loses to an honest provider; base units of ASY, 1 … 100,000 ASY.
    /// At least what the longest game costs a defender: 0.9 M gas at the dearest that is expected.
    pub bond: Amount,
    /// What each side has for all its moves, seconds, 10 … 604,800. Longer than anyone can afford to keep a
    /// move off the chain, and than a provider takes to compute its trace again.
    pub clock: u64,
}

impl Default for DisputeTerms {
    /// For a public chain: 100 ASY, and four hours for each side, so that a whole game is far shorter than
    /// the time that stake takes to leave.
    fn default() -> Self {
        Self { bond: Amount(100_000_000_000_000_000_000), clock: 4 * 3_600 }
    }
}
