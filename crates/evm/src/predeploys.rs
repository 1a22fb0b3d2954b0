//! Contracts that every chain of our own has from its first block.
//!
//! Those that the forks through Osaka call at each block (without them a block is invalid), and two
//! that wallets, libraries and deployment scripts expect at the same address on every chain.

use std::collections::BTreeMap;

use alloy_eips::{eip2935, eip4788, eip7002, eip7251};
use alloy_genesis::GenesisAccount;
use alloy_primitives::{Address, Bytes, U256, address, bytes, hex};

/// Multicall3 (MIT): many reads in one call. At this address on several hundred chains.
pub const MULTICALL3: Address = address!("0xcA11bde05977b3631167028862bE2a173976CA11");

/// The deterministic deployment proxy (MIT): deploys what follows a 32-byte salt by CREATE2, so that
/// a contract has the same address on every chain.
pub const CREATE2_DEPLOYER: Address = address!("0x4e59b44847b379578588920cA78FbF26c0B4956C");

static CREATE2_DEPLOYER_CODE: Bytes = bytes!(
    "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe0"
    "3601600081602082378035828234f58015156039578182fd5b8082525050506014600cf3"
);

/// The code as it stands on Ethereum; keccak256
/// `d5c15df687b16f2ff992fc8d767b4216323184a2bbc6ee2f9c398c318e770891`.
const MULTICALL3_CODE: &str = include_str!("predeploys/multicall3.hex");

/// The accounts of these contracts.
pub(crate) fn accounts() -> BTreeMap<Address, GenesisAccount> {
    let multicall3 = hex::decode(MULTICALL3_CODE.trim_end()).unwrap_or_default();
    [
        (eip4788::BEACON_ROOTS_ADDRESS, eip4788::BEACON_ROOTS_CODE.clone()),
        (eip2935::HISTORY_STORAGE_ADDRESS, eip2935::HISTORY_STORAGE_CODE.clone()),
        (
            eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS,
            eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_CODE.clone(),
        ),
        (
            eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS,
            eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_CODE.clone(),
        ),
        (MULTICALL3, multicall3.into()),
        (CREATE2_DEPLOYER, CREATE2_DEPLOYER_CODE.clone()),
    ]
    .into_iter()
    .map(|(address, code)| (address, contract(code)))
    .collect()
}

fn contract(code: Bytes) -> GenesisAccount {
    GenesisAccount {
        nonce: Some(1),
        balance: U256::ZERO,
        code: Some(code),
        ..GenesisAccount::default()
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{b256, keccak256};

    use super::*;

    #[test]
    fn multicall3_is_the_one_of_ethereum() {
        let code = accounts()[&MULTICALL3].code.clone().unwrap_or_default();
        let expected = b256!("0xd5c15df687b16f2ff992fc8d767b4216323184a2bbc6ee2f9c398c318e770891");
        assert_eq!(keccak256(code), expected);
    }
}
