//! How fast blocks of token transfers are built and judged, with state root, on this machine.
//!
//! `cargo run --release -p assay-evm --example execute [BLOCKS] [TRANSFERS]` prints one JSON line per
//! block: times in milliseconds.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement may stop and tell")]

use std::time::Instant;

use alloy_consensus::transaction::Recovered;
use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_genesis::GenesisAccount;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, address, hex, keccak256};
use assay_evm::{Attributes, Block, Chain, Genesis, Options, Transaction};

const TOKEN: Address = address!("0x0000000000000000000000000000000000007070");

/// `transfer(to, amount)` of a minimal token: a holder's balance lies at the slot of its address's
/// hash; both balances are checked, and a `Transfer` is logged.
const CODE: [u8; 86] = hex!(
    "602435335f5260205f20805482811060525782900390556004355f5260205f208054820190555f5260043533"
    "7fddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef60205fa3005b5f5ffd"
);

/// Who pays the transfers; each holds the token, and pays another of them.
const HOLDERS: u64 = 10_000;

fn main() {
    let mut numbers = std::env::args().skip(1).map(|number| number.parse::<u64>().unwrap());
    let blocks = numbers.next().unwrap_or(5);
    let transfers = numbers.next().unwrap_or(10_000);
    let directory = tempfile::tempdir().unwrap();
    let chain = Chain::open(&genesis(), Some(directory.path()), [], Options::default()).unwrap();
    let mut nonces = vec![0; HOLDERS as usize];
    for number in 1..=blocks {
        let parent = chain.head();
        let candidates: Vec<_> = (0..transfers)
            .map(|index| transfer((number * 7 + index) % HOLDERS, &mut nonces))
            .collect();
        let attributes = Attributes {
            timestamp: parent.header.timestamp + 1,
            beneficiary: Address::repeat_byte(0xfe),
            gas_limit: parent.header.gas_limit,
            prev_randao: B256::ZERO,
            parent_beacon_root: B256::ZERO,
            extra_data: Bytes::new(),
        };
        let mut clock = Instant::now();
        let mut lap = || {
            let elapsed = clock.elapsed().as_secs_f64() * 1e3;
            clock = Instant::now();
            (elapsed * 10.0).round() / 10.0
        };
        let built = chain.executor().build(&parent, &attributes, candidates, || false).unwrap();
        let build_ms = lap();
        assert!(built.executed.receipts.iter().all(alloy_consensus::TxReceipt::status));
        let block = (*built.executed.block).clone();
        let bytes = block.encode();
        lap();
        let known: std::collections::HashMap<_, _> =
            block.transactions.iter().map(|tx| (*tx.inner().tx_hash(), tx.signer())).collect();
        lap();
        let block = Block::decode_with(&bytes, |hash| known.get(hash).copied()).unwrap();
        let decode_ms = lap();
        chain.executor().validate(&parent, block).unwrap();
        let validate_ms = lap();
        chain.append(built.executed).unwrap();
        let append_ms = lap();
        let gas = chain.head().header.gas_used;
        println!(
            "{}",
            serde_json::json!({
                "block": number, "transfers": transfers, "gas": gas, "build_ms": build_ms,
                "decode_ms": decode_ms, "validate_ms": validate_ms, "append_ms": append_ms,
            })
        );
    }
}

fn holder(index: u64) -> Address {
    Address::from_word(keccak256(index.to_be_bytes()))
}

fn genesis() -> Genesis {
    let ether = U256::from(10).pow(U256::from(18));
    let funded: Vec<_> = (0..HOLDERS).map(|index| (holder(index), ether)).collect();
    let mut genesis = Genesis::development(1, &funded);
    let storage = (0..HOLDERS)
        .map(|index| (keccak256(holder(index).into_word()), B256::from(U256::from(1_000_000))));
    let token = GenesisAccount {
        nonce: Some(1),
        code: Some(CODE.into()),
        storage: Some(storage.collect()),
        ..GenesisAccount::default()
    };
    genesis.0.alloc.insert(TOKEN, token);
    genesis
}

/// Its signature is not looked at, since senders come recovered.
fn transfer(from: u64, nonces: &mut [u64]) -> Transaction {
    let to = holder((from * 31 + 17) % HOLDERS);
    let nonce = &mut nonces[from as usize];
    let mut input = hex!("a9059cbb").to_vec();
    input.extend_from_slice(to.into_word().as_slice());
    input.extend_from_slice(B256::from(U256::from(1)).as_slice());
    let transaction = TxEip1559 {
        chain_id: 1,
        nonce: *nonce,
        gas_limit: 60_000,
        max_fee_per_gas: 10_000_000_000,
        max_priority_fee_per_gas: 1,
        to: TxKind::Call(TOKEN),
        input: input.into(),
        ..TxEip1559::default()
    };
    *nonce += 1;
    let signed = transaction.into_signed(Signature::test_signature());
    let envelope = TxEnvelope::Eip1559(signed);
    let _ = envelope.tx_hash();
    Recovered::new_unchecked(envelope, holder(from))
}
