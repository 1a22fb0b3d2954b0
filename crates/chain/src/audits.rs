//! Audits of posted receipts: what they take.

use alloy_primitives::U256;
use assay_protocol::Amount;
use serde::{Deserialize, Serialize};

use crate::bindings::Auditors;

/// What audits take, decided once by a deployment (`docs/protocol/incentives.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditTerms {
    /// What an auditor stands to lose, base units of ASY, 1 … 1,000,000 ASY. It follows the dearest answers
    /// that draws are to protect.
    pub bond: Amount,
    /// Length of an epoch, seconds, 4 … 86,400: what a transaction of every auditor needs; five of them are
    /// below the dispute window.
    pub epoch: u64,
    /// Share of posted receipts that is drawn, basis points, at least 1.
    pub rate: u16,
    /// What a right verdict is paid out of the pool, base units of ASY, at most 1,000 ASY.
    pub fee: Amount,
    /// How many verdicts of one epoch an auditor is paid for.
    pub fees_most: u64,
    /// What an auditor puts in to have a provider publish an answer, base units of ASY, 0.001 … 100,000 ASY:
    /// what publishing a long one costs.
    pub production_bond: Amount,
    /// What the provider has for that, seconds, 5 … 604,800.
    pub production_clock: u64,
}

impl Default for AuditTerms {
    /// For a public chain: one receipt in fifty is drawn, in epochs of four hours; fee and bond as
    /// `docs/protocol/incentives.md` derives them for answers of up to half an ASY.
    fn default() -> Self {
        const ASY: u128 = 1_000_000_000_000_000_000;
        Self {
            bond: Amount(1_000 * ASY),
            epoch: 4 * 3_600,
            rate: 200,
            fee: Amount(ASY / 1_000),
            fees_most: 1_000,
            production_bond: Amount(10 * ASY),
            production_clock: 4 * 3_600,
        }
    }
}

impl AuditTerms {
    /// As the contract of auditors takes them.
    pub(crate) fn encoded(&self) -> Auditors::Terms {
        Auditors::Terms {
            bond: U256::from(self.bond.0),
            epochLength: U256::from(self.epoch),
            rate: U256::from(self.rate),
            fee: U256::from(self.fee.0),
            feesMost: U256::from(self.fees_most),
        }
    }
}
