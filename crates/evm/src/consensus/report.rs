//! Evidence on its way to the contract that punishes.

use super::Evidence;
use super::seats::report_call;
use crate::chain::Chain;
use crate::keystore::Signer;
use crate::mempool::Mempool;
use alloy_consensus::TxEip1559;
use alloy_consensus::transaction::Recovered;
use alloy_primitives::{Address, B256, TxKind};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Gas of a report: the verifier's, and what a contract needs to take a stake.
const REPORT_GAS: u64 = 1_000_000;

/// Offences remembered, so that none is reported twice; the oldest epochs are forgotten first.
const REPORTED_MAX: usize = 1024;

/// Reports offences by ordinary transactions.
#[derive(Debug)]
pub(super) struct Reports {
    signer: Signer,
    contract: Address,
    reported: Mutex<BTreeSet<(u64, B256)>>,
}

impl Reports {
    pub(super) fn new(signer: Signer, contract: Address) -> Self {
        Self { signer, contract, reported: Mutex::default() }
    }

    /// Puts a report into the mempool, one per key and epoch. What becomes of it is in the log.
    pub(super) fn report(&self, chain: &Chain, mempool: &Mempool, evidence: &Evidence) {
        if !self.note((evidence.epoch, evidence.key)) {
            return;
        }
        let base_fee = u128::from(mempool.base_fee());
        let draft = TxEip1559 {
            chain_id: chain.chain_id(),
            nonce: mempool.next_nonce(&self.signer.address()),
            gas_limit: REPORT_GAS,
            // Pays for itself even when blocks have been full for a while.
            max_fee_per_gas: base_fee.saturating_mul(4).saturating_add(1_000_000_000),
            max_priority_fee_per_gas: 1_000_000_000,
            to: TxKind::Call(self.contract),
            input: report_call(evidence),
            ..Default::default()
        };
        let transaction = self.signer.sign_transaction(draft);
        let (key, epoch) = (evidence.key, evidence.epoch);
        match mempool.add(Recovered::new_unchecked(transaction, self.signer.address())) {
            Ok(hash) => tracing::info!(%key, epoch, transaction = %hash, "an offence is reported"),
            Err(error) => {
                tracing::error!(%key, epoch, %error, "an offence cannot be reported");
                self.forget((epoch, key));
            }
        }
    }

    /// Whether this offence is new.
    fn note(&self, offence: (u64, B256)) -> bool {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let new = reported.insert(offence);
        if reported.len() > REPORTED_MAX {
            reported.pop_first();
        }
        new
    }

    fn forget(&self, offence: (u64, B256)) {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner).remove(&offence);
    }
}
