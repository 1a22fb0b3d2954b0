//! Where a chain's contracts are, and what was decided when they were put there.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256};
use serde::{Deserialize, Serialize};

use crate::suite::{Contract, Settings};

/// Addresses of the contracts on one chain. Kept for good: a later release adds to it what is new
/// and leaves what stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddressBook {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Hash of the chain's first block, so that a book is never used on a namesake.
    pub genesis: B256,
    /// What the deployment decided.
    pub settings: Settings,
    /// By contract; empty before the first one stands.
    #[serde(default)]
    pub contracts: BTreeMap<Contract, Deployed>,
}

/// A contract that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployed {
    /// Where.
    pub address: Address,
    /// keccak256 of its code.
    pub code_hash: B256,
}

/// A book names no such contract.
#[derive(Debug, thiserror::Error)]
#[error(
    "the address book of chain {chain_id} has no {contract}: run `assay contracts deploy` to add what is missing"
)]
pub struct NotInBook {
    /// What was looked for.
    pub contract: Contract,
    /// Whose book it is.
    pub chain_id: u64,
}

impl AddressBook {
    /// A book of a chain on which nothing stands yet.
    pub fn new(chain_id: u64, genesis: B256, settings: Settings) -> Self {
        Self { chain_id, genesis, settings, contracts: BTreeMap::new() }
    }

    /// Where `contract` is.
    pub fn get(&self, contract: Contract) -> Result<Address, NotInBook> {
        let found = self.contracts.get(&contract).map(|deployed| deployed.address);
        found.ok_or(NotInBook { contract, chain_id: self.chain_id })
    }
}
