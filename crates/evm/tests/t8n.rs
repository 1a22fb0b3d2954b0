//! Random blocks come out as Ethereum's executable specification says.
//!
//! The specification is a program of its own, `ethereum-spec-evm` of the Python package
//! `ethereum-execution` (2.20.0). `ETHEREUM_SPEC_EVM` says where it is, or it is in the path; where
//! it is not, this test says so, and does nothing. `ETHEREUM_SPEC_SEED` gives other blocks.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic and tell")]

use std::path::{Path, PathBuf};
use std::process::Command;

use alloy_consensus::transaction::Recovered;
use alloy_consensus::{
    SignableTransaction, TxEip1559, TxEip2930, TxEip7702, TxEnvelope, TxLegacy, TxReceipt,
};
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_eips::eip7702::Authorization;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, hex, keccak256};
use assay_evm::{Attributes, Built, Chain, Genesis, Options, Parent, Transaction};
use secp256k1::{Message, PublicKey, SecretKey};
use serde_json::{Value, json};

const BLOCKS: usize = 5;
const TRANSACTIONS: usize = 48;
const SENDERS: u8 = 6;

#[test]
fn random_blocks_come_out_as_the_specification_says() {
    let Some(tool) = tool() else {
        return eprintln!(
            "SKIPPED: ethereum-spec-evm is not here. pip install ethereum-execution==2.20.0, and \
             set ETHEREUM_SPEC_EVM or PATH to where it lies."
        );
    };
    let seed = std::env::var("ETHEREUM_SPEC_SEED").unwrap_or_else(|_| "1".into());
    let mut random = Random(keccak256(seed));
    let genesis = genesis();
    let chain = Chain::open(&genesis, None, [], Options::default()).unwrap();
    let mut alloc = serde_json::to_value(&genesis.0.alloc).unwrap();
    let (mut executed, mut reverted, mut gas) = (0, 0, 0);
    for _ in 0..BLOCKS {
        let parent = chain.head();
        let Built { executed: block, refused } = build(&chain, &parent, &mut random);
        assert_eq!(refused, [], "all candidates are valid");
        let directory = tempfile::tempdir().unwrap();
        let (result, after) = run(&tool, directory.path(), &alloc, &parent, &block);
        compare(&block, &result);
        executed += block.block.transactions.len();
        reverted += block.receipts.iter().filter(|receipt| !receipt.status()).count();
        gas += block.block.header.gas_used;
        chain.append(block).unwrap();
        alloc = after;
    }
    eprintln!("{executed} transactions, {reverted} of them reverted, {gas} gas: all roots equal");
    assert_eq!(executed, BLOCKS * TRANSACTIONS);
    assert!(reverted > 0);
}

fn tool() -> Option<PathBuf> {
    if let Some(tool) = std::env::var_os("ETHEREUM_SPEC_EVM") {
        return Some(tool.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|at| at.join("ethereum-spec-evm")).find(|tool| tool.is_file())
}

/// Every commitment of the header, as the specification computes it.
fn compare(block: &assay_evm::Executed, result: &Value) {
    let header = &block.block.header;
    let hash = |key: &str| result[key].as_str().unwrap().parse::<B256>().unwrap();
    assert_eq!(result["rejected"], json!([]));
    assert_eq!(hex_u64(&result["gasUsed"]), header.gas_used);
    assert_eq!(hash("txRoot"), header.transactions_root);
    assert_eq!(hash("receiptsRoot"), header.receipts_root);
    assert_eq!(hash("stateRoot"), header.state_root);
    assert_eq!(Some(hash("requestsHash")), header.requests_hash);
    assert_eq!(Some(hash("withdrawalsRoot")), header.withdrawals_root);
    let bloom: Bytes = result["logsBloom"].as_str().unwrap().parse().unwrap();
    assert_eq!(bloom[..], header.logs_bloom[..]);
    // The base fee is not given to it, but follows from the parent there too.
    assert_eq!(Some(hex_u64(&result["currentBaseFee"])), header.base_fee_per_gas);
}

fn hex_u64(value: &Value) -> u64 {
    let digits = value.as_str().unwrap().trim_start_matches("0x");
    u64::from_str_radix(digits, 16).unwrap()
}

/// Gives the specification what the block was built from; returns its result and its state.
fn run(
    tool: &Path,
    directory: &Path,
    alloc: &Value,
    parent: &Parent,
    block: &assay_evm::Executed,
) -> (Value, Value) {
    let header = &block.block.header;
    let hashes: serde_json::Map<_, _> = (0..header.number)
        .filter_map(|number| Some((number.to_string(), json!(parent.hashes.get(number)?))))
        .collect();
    let env = json!({
        "currentCoinbase": header.beneficiary,
        "currentGasLimit": format!("{:#x}", header.gas_limit),
        "currentNumber": format!("{:#x}", header.number),
        "currentTimestamp": format!("{:#x}", header.timestamp),
        "currentRandom": header.mix_hash,
        "parentBeaconBlockRoot": header.parent_beacon_block_root,
        "parentGasUsed": format!("{:#x}", parent.header.gas_used),
        "parentGasLimit": format!("{:#x}", parent.header.gas_limit),
        "parentBaseFee": format!("{:#x}", parent.header.base_fee_per_gas.unwrap()),
        "parentExcessBlobGas": "0x0",
        "parentBlobGasUsed": "0x0",
        "currentExcessBlobGas": "0x0",
        "blockHashes": hashes,
        "withdrawals": [],
        "ommers": [],
    });
    let transactions: Vec<_> =
        block.block.transactions.iter().map(|transaction| transaction.inner().clone()).collect();
    let transactions = json!(hex::encode_prefixed(alloy_rlp::encode(transactions)));
    for (name, document) in [("alloc", alloc), ("env", &env), ("txs", &transactions)] {
        let name = directory.join(name).with_extension("json");
        std::fs::write(name, serde_json::to_vec(document).unwrap()).unwrap();
    }
    let output = Command::new(tool)
        .current_dir(directory)
        .args(["t8n", "--state.fork", "Osaka", "--state.chainid", "1"])
        .args(["--output.alloc", "after.json", "--output.result", "result.json"])
        .output()
        .unwrap();
    let read = |name: &str| {
        let document = std::fs::read(directory.join(name)).unwrap_or_else(|_| {
            panic!("{}", String::from_utf8_lossy(&output.stderr));
        });
        serde_json::from_slice(&document).unwrap()
    };
    (read("result.json"), read("after.json"))
}

/// A hash that hashes itself on.
struct Random(B256);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = keccak256(self.0);
        u64::from_be_bytes(self.0[..8].try_into().unwrap()) % end
    }

    fn one_of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }
}

fn secret(who: u8) -> SecretKey {
    SecretKey::from_secret_bytes([who; 32]).unwrap()
}

fn address(who: u8) -> Address {
    let public = PublicKey::from_secret_key(&secret(who)).serialize_uncompressed();
    Address::from_raw_public_key(&public[1..])
}

fn signature(who: u8, hash: B256) -> Signature {
    let message = Message::from_digest(hash.0);
    let signed =
        secp256k1::ecdsa::RecoverableSignature::sign_ecdsa_recoverable(message, &secret(who));
    let (parity, bytes) = signed.serialize_compact();
    Signature::from_bytes_and_parity(&bytes, parity.to_u8() == 1)
}

fn sign(
    who: u8,
    transaction: impl SignableTransaction<Signature> + Into<alloy_consensus::TypedTransaction>,
) -> Transaction {
    let signed = signature(who, transaction.signature_hash());
    let envelope: TxEnvelope = transaction.into().into_envelope(signed);
    Recovered::new_unchecked(envelope, address(who))
}

/// Contracts by what they do with a call's first words.
const CONTRACTS: [(u16, &str); 6] = [
    // Stores word 1 at slot word 0.
    (0x1000, "6020355f3555"),
    // Adds word 0 to slot 0, logs it with two topics, returns it.
    (0x1001, "5f3560005401806000555f5260075f3560205fa260205ff3"),
    // Reverts with the first word.
    (0x1002, "5f355f5260205ffd"),
    // Creates a contract of one STOP, by CREATE2 with word 0 as salt; stores its address.
    (0x1003, "5f356760005f5360015ff35f52600860185ff55f55"),
    // Calls the precompile whose address is word 0 with the rest, stores hash and size of its answer.
    (0x1004, "6020360360205f3760405f602036035f5f5f355af15f553d5f5f3e3d5f206001553d600255"),
    // Creates a contract that destroys itself at once; stores its address, a block's hash, the base fee.
    (0x1005, "6133ff5f526002601e5ff0600355600143034060045548600555"),
];

fn genesis() -> Genesis {
    let funded: Vec<_> =
        (1..=SENDERS).map(|who| (address(who), U256::from(10).pow(U256::from(21)))).collect();
    let mut genesis = Genesis::development(1, &funded);
    for (at, code) in CONTRACTS {
        let code = hex::decode(code).unwrap();
        let contract = alloy_genesis::GenesisAccount {
            nonce: Some(1),
            code: Some(code.into()),
            ..Default::default()
        };
        genesis.0.alloc.insert(Address::left_padding_from(&at.to_be_bytes()), contract);
    }
    genesis
}

fn build(chain: &Chain, parent: &Parent, random: &mut Random) -> Built {
    let attributes = Attributes {
        timestamp: parent.header.timestamp + 1 + random.below(20),
        beneficiary: Address::repeat_byte(0xfe),
        gas_limit: parent.header.gas_limit,
        prev_randao: keccak256(random.0),
        parent_beacon_root: keccak256(parent.header.hash()),
        extra_data: Bytes::new(),
    };
    let nonce = |who: u8| parent.state.account(&address(who)).map_or(0, |account| account.nonce);
    let mut nonces: Vec<_> =
        (0..=SENDERS).map(|who| if who == 0 { 0 } else { nonce(who) }).collect();
    let transactions: Vec<_> =
        (0..TRANSACTIONS).map(|_| transaction(random, &mut nonces)).collect();
    chain.executor().build(parent, &attributes, transactions, || false).unwrap()
}

/// A valid transaction of a random kind by a random sender.
fn transaction(random: &mut Random, nonces: &mut [u64]) -> Transaction {
    // The last sender only signs authorizations, so that its nonce is its own.
    let who = 1 + random.below(u64::from(SENDERS) - 1) as u8;
    let nonce = nonces[usize::from(who)];
    nonces[usize::from(who)] += 1;
    let (to, input) = target(random);
    let gas_limit = random.one_of(&[100_000, 300_000, 1_000_000]);
    let value = if random.below(3) == 0 { U256::from(random.below(1000)) } else { U256::ZERO };
    let max_fee = 3_000_000_000 + u128::from(random.below(1000));
    let tip = u128::from(random.below(1_000_000_000));
    let keys = (0..random.below(3)).map(|slot| B256::from(U256::from(slot))).collect();
    let contract = Address::left_padding_from(&random.one_of(&CONTRACTS).0.to_be_bytes());
    let access_list = AccessList(vec![AccessListItem { address: contract, storage_keys: keys }]);
    let chain_id = 1;
    match random.below(5) {
        0 => sign(
            who,
            TxLegacy { chain_id: Some(1), nonce, gas_price: max_fee, gas_limit, to, value, input },
        ),
        1 => sign(
            who,
            TxEip2930 {
                chain_id,
                nonce,
                gas_price: max_fee,
                gas_limit,
                to,
                value,
                access_list,
                input,
            },
        ),
        2 if !to.is_create() => {
            let authority = SENDERS;
            let authorization = Authorization {
                chain_id: U256::from(random.below(2)),
                address: contract,
                // Sometimes not its nonce: then the authorization is passed over.
                nonce: nonces[usize::from(authority)] + random.below(4) / 3,
            };
            let valid = authorization.nonce == nonces[usize::from(authority)];
            nonces[usize::from(authority)] += u64::from(valid);
            let signed = signature(authority, authorization.signature_hash());
            let authorization_list = vec![authorization.into_signed(signed)];
            let to = if random.below(2) == 0 { address(authority) } else { *to.to().unwrap() };
            sign(
                who,
                TxEip7702 {
                    chain_id,
                    nonce,
                    gas_limit: 300_000,
                    max_fee_per_gas: max_fee,
                    max_priority_fee_per_gas: tip,
                    to,
                    value,
                    access_list,
                    authorization_list,
                    input,
                },
            )
        }
        _ => sign(
            who,
            TxEip1559 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas: max_fee,
                max_priority_fee_per_gas: tip,
                to,
                value,
                access_list,
                input,
            },
        ),
    }
}

fn target(random: &mut Random) -> (TxKind, Bytes) {
    let word = |value: u64| B256::from(U256::from(value)).to_vec();
    let call = |at: u16, words: Vec<Vec<u8>>| {
        (TxKind::Call(Address::left_padding_from(&at.to_be_bytes())), words.concat().into())
    };
    match random.below(10) {
        0 => (TxKind::Call(address(1 + random.below(6) as u8)), Bytes::new()),
        1 => (TxKind::Call(Address::from_word(keccak256(random.0))), Bytes::new()),
        2 => (TxKind::Create, hex!("6007600155600160005360016000f3").into()),
        3 | 4 => call(0x1000, vec![word(random.below(4)), word(random.below(3))]),
        5 => call(0x1001, vec![word(random.below(9))]),
        6 => call(0x1002, vec![word(random.below(9))]),
        7 => call(0x1003, vec![word(random.below(3))]),
        8 => {
            let precompile = random.one_of(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0x100]);
            call(
                0x1004,
                vec![word(precompile), keccak256(random.0).to_vec(), word(random.below(9))],
            )
        }
        _ => call(0x1005, vec![]),
    }
}
