//! Accounts, and transactions they sign.

use alloy_consensus::TxEip1559;
use alloy_eips::Encodable2718;
use alloy_primitives::{Address, Bytes, TxKind, U256, keccak256};
use assay_evm::keystore::Signer;
use rayon::prelude::*;

pub(crate) const CHAIN: u64 = 31_337;

/// As many accounts as asked for, the same in every run.
pub(crate) fn wallets(count: usize) -> Vec<Signer> {
    let secret = |at: usize| keccak256(format!("throughput {at}")).0;
    (0..count).into_par_iter().filter_map(|at| Signer::from_bytes(secret(at))).collect()
}

/// An address that nobody has the key of.
pub(crate) fn sink(at: usize) -> Address {
    Address::from_word(keccak256((at as u64).to_be_bytes()))
}

pub(crate) fn transfer(from: &Signer, chain: u64, nonce: u64, to: Address) -> Vec<u8> {
    sign(from, chain, nonce, to, 21_000, U256::from(1), Bytes::new())
}

pub(crate) fn call(from: &Signer, chain: u64, nonce: u64, to: Address, data: Bytes) -> Vec<u8> {
    sign(from, chain, nonce, to, 100_000, U256::ZERO, data)
}

fn sign(
    from: &Signer,
    chain_id: u64,
    nonce: u64,
    to: Address,
    gas_limit: u64,
    value: U256,
    input: Bytes,
) -> Vec<u8> {
    let draft = TxEip1559 {
        chain_id,
        nonce,
        gas_limit,
        // Enough for as many full blocks as any run has.
        max_fee_per_gas: 10_000_000_000_000,
        max_priority_fee_per_gas: 1,
        to: TxKind::Call(to),
        value,
        input,
        ..Default::default()
    };
    from.sign_transaction(draft).encoded_2718()
}
