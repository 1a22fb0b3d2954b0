//! Accounts: what they have, run and remember, and the proof of it.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, Bytes, U64, U256};
use alloy_rpc_types_eth::EIP1186AccountProofResponse;
use alloy_serde::JsonStorageKey;

use super::Rpc;
use super::message::{Answer, Error, answer};
use super::params::{Params, argument, slot};
use crate::state::State;

impl Rpc {
    /// `[address, block]`
    pub(super) fn eth_get_balance(&self, params: &Params<'_>) -> Answer {
        let address = params.address(0)?;
        let state = self.at(params.block(1)?)?.state.clone();
        answer(&state.account(&address).map_or(U256::ZERO, |account| account.balance))
    }

    /// `[address, block]`; of the pending block, the nonce after all that waits.
    pub(super) fn eth_get_transaction_count(&self, params: &Params<'_>) -> Answer {
        let address = params.address(0)?;
        let block = params.block(1)?;
        if block.is_pending() {
            return answer(&U64::from(self.mempool().next_nonce(&address)));
        }
        let state = self.at(block)?.state.clone();
        answer(&U64::from(state.account(&address).map_or(0, |account| account.nonce)))
    }

    /// `[address, block]`
    pub(super) fn eth_get_code(&self, params: &Params<'_>) -> Answer {
        let address = params.address(0)?;
        let state = self.at(params.block(1)?)?.state.clone();
        let code = state.account(&address).and_then(|account| state.code(&account.code_hash));
        answer(&code.map_or_else(Bytes::new, |code| code.original_bytes()))
    }

    /// `[address, slot, block]`
    pub(super) fn eth_get_storage_at(&self, params: &Params<'_>) -> Answer {
        let address = params.address(0)?;
        let (slot, _) = params.slot(1)?;
        let state = self.at(params.block(2)?)?.state.clone();
        answer(&value(&state, &address, slot))
    }

    /// `[{address: [slot]}, block]`
    pub(super) fn eth_get_storage_values(&self, params: &Params<'_>) -> Answer {
        let wanted: BTreeMap<Address, Vec<String>> = params.required(0)?;
        let count: usize = wanted.values().map(Vec::len).sum();
        if count == 0 {
            return Err(Error::Arguments("no slot is asked for".into()));
        }
        self.check_slots(count)?;
        let state = self.at(params.block(1)?)?.state.clone();
        let mut values = BTreeMap::new();
        for (address, slots) in &wanted {
            let read = slots.iter().map(|text| Ok(value(&state, address, slot(0, text)?.0)));
            values.insert(address, read.collect::<Result<Vec<B256>, Error>>()?);
        }
        answer(&values)
    }

    /// `[address, [slot], block]`
    pub(super) fn eth_get_proof(&self, params: &Params<'_>) -> Answer {
        let address = params.address(0)?;
        let wanted: Vec<String> = params.optional(1)?.unwrap_or_default();
        self.check_slots(wanted.len())?;
        let slots = wanted.iter().map(|text| slot(1, text));
        let slots = slots.collect::<Result<Vec<(U256, bool)>, Error>>()?;
        let keys: Vec<B256> = slots.iter().map(|(slot, _)| B256::from(*slot)).collect();
        let state = self.at(params.block(2)?)?.state.clone();
        let mut proof: EIP1186AccountProofResponse = state.proof(&address, &keys);
        // A key is repeated in the form in which it was asked for.
        for (told, (slot, full)) in proof.storage_proof.iter_mut().zip(slots) {
            told.key =
                if full { JsonStorageKey::Hash(slot.into()) } else { JsonStorageKey::Number(slot) };
        }
        answer(&proof)
    }

    fn check_slots(&self, count: usize) -> Result<(), Error> {
        let max = self.limits().slots_max;
        if count > max {
            return Err(argument(0, format!("{count} slots, at most {max} are read at once")));
        }
        Ok(())
    }
}

fn value(state: &State, address: &Address, slot: U256) -> B256 {
    state.slot(address, slot).into()
}
