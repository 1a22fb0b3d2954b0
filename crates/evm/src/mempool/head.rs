//! The head of the chain as the pool sees it.

use std::sync::Arc;

use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY};

use super::{Accounts, Head, Standing};
use crate::execute::{Attributes, Executor, Parent};
use crate::state::State;

impl Accounts for State {
    fn standing(&self, address: &Address) -> Standing {
        let account = self.account(address).unwrap_or_default();
        let signs = account.code_hash == KECCAK256_EMPTY
            || self.code(&account.code_hash).is_none_or(|code| code.is_eip7702());
        Standing { nonce: account.nonce, balance: account.balance, signs }
    }
}

impl Head {
    /// The head after `parent`, for a next block that moves toward `gas_limit`.
    pub fn after(parent: &Parent, executor: &Executor, gas_limit: u64) -> Self {
        let attributes = Attributes {
            // The next block's time is not known yet; the earliest tells its rules as far as can be.
            timestamp: parent.header.timestamp.saturating_add(1),
            beneficiary: Address::ZERO,
            gas_limit,
            prev_randao: B256::ZERO,
            parent_beacon_root: B256::ZERO,
            extra_data: Bytes::new(),
        };
        let next = executor.next_header(&parent.header, parent.header.hash(), &attributes);
        Self {
            accounts: Arc::new(parent.state.clone()),
            base_fee: next.base_fee_per_gas.unwrap_or_default(),
            gas_limit: next.gas_limit,
            spec: executor.env(&next).cfg_env.spec,
        }
    }
}
