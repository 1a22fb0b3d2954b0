//! What this node is and can: its forks (EIP-7910) and how far back it answers.

use std::collections::BTreeMap;

use alloy_consensus::Header;
use alloy_eips::eip7840::BlobParams;
use alloy_eips::{eip2935, eip4788, eip7002, eip7251};
use alloy_evm::Evm as _;
use alloy_evm::eth::spec::EthExecutorSpec;
use alloy_evm::precompiles::Precompile as _;
use alloy_hardforks::{EthereumHardfork, EthereumHardforks, ForkCondition};
use alloy_primitives::{Address, B256, U64};
use revm::database::EmptyDB;
use serde::Serialize;

use super::Rpc;
use super::message::{Answer, answer};
use super::params::Params;
use super::read::failed;
use crate::{Executor, Spec};

/// The forks of Ethereum that begin at a time, in their order.
const TIMED: [EthereumHardfork; 10] = [
    EthereumHardfork::Shanghai,
    EthereumHardfork::Cancun,
    EthereumHardfork::Prague,
    EthereumHardfork::Osaka,
    EthereumHardfork::Bpo1,
    EthereumHardfork::Bpo2,
    EthereumHardfork::Bpo3,
    EthereumHardfork::Bpo4,
    EthereumHardfork::Bpo5,
    EthereumHardfork::Amsterdam,
];

/// The forks that begin at a block, in their order.
const NUMBERED: [EthereumHardfork; 14] = [
    EthereumHardfork::Homestead,
    EthereumHardfork::Dao,
    EthereumHardfork::Tangerine,
    EthereumHardfork::SpuriousDragon,
    EthereumHardfork::Byzantium,
    EthereumHardfork::Constantinople,
    EthereumHardfork::Petersburg,
    EthereumHardfork::Istanbul,
    EthereumHardfork::MuirGlacier,
    EthereumHardfork::Berlin,
    EthereumHardfork::London,
    EthereumHardfork::ArrowGlacier,
    EthereumHardfork::GrayGlacier,
    EthereumHardfork::Paris,
];

#[derive(Serialize)]
struct Config {
    current: Fork,
    next: Option<Fork>,
    last: Option<Fork>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Fork {
    activation_time: u64,
    blob_schedule: Option<BlobSchedule>,
    chain_id: U64,
    fork_id: String,
    precompiles: BTreeMap<String, Address>,
    system_contracts: BTreeMap<&'static str, Address>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BlobSchedule {
    target: u64,
    max: u64,
    base_fee_update_fraction: u64,
}

impl From<BlobParams> for BlobSchedule {
    fn from(params: BlobParams) -> Self {
        Self {
            target: params.target_blob_count,
            max: params.max_blob_count,
            base_fee_update_fraction: params.update_fraction.try_into().unwrap_or(u64::MAX),
        }
    }
}

impl Rpc {
    /// `[]`: the rules now, those that come next, and those that come last.
    pub(super) fn eth_config(&self, _: &Params<'_>) -> Answer {
        let now = self.chain().head().header.timestamp;
        let genesis = self.chain().genesis_hash();
        let first = self.chain().header(0).map_err(failed)?;
        let genesis_time = first.map_or(0, |header| header.timestamp);
        let spec = self.chain().spec();
        let times = times(spec, genesis_time);
        let current = times.iter().copied().rfind(|time| *time <= now).unwrap_or(0);
        let next = times.iter().copied().find(|time| *time > now);
        let last = next.and(times.last().copied());
        let fork = |time: u64| self.fork(time, genesis, genesis_time);
        answer(&Config { current: fork(current), next: next.map(fork), last: last.map(fork) })
    }

    fn fork(&self, time: u64, genesis: B256, genesis_time: u64) -> Fork {
        let executor = self.chain().executor();
        let spec = executor.spec();
        Fork {
            activation_time: time,
            blob_schedule: spec.blob_params(time).map(BlobSchedule::from),
            chain_id: U64::from(spec.chain_id()),
            fork_id: format!("0x{:08x}", fork_hash(spec, genesis, genesis_time, time)),
            precompiles: precompiles(executor, time),
            system_contracts: system_contracts(spec, time),
        }
    }

    /// `[]`: how far back this node answers what.
    pub(super) fn eth_capabilities(&self, _: &Params<'_>) -> Answer {
        let chain = self.chain();
        let head = chain.head();
        let blocks = since(self.oldest()?);
        let states = chain.store().oldest_state();
        let states = since(states.map_err(|error| failed(error.into()))?);
        answer(&serde_json::json!({
            "head": { "number": U64::from(head.header.number), "hash": head.header.hash() },
            "state": states,
            "tx": blocks,
            "logs": blocks,
            "receipts": blocks,
            "blocks": blocks,
            "stateproofs": states,
        }))
    }
}

fn since(oldest: u64) -> serde_json::Value {
    serde_json::json!({ "disabled": false, "oldestBlock": U64::from(oldest) })
}

/// The times at which rules change, from genesis on.
fn times(spec: &Spec, genesis_time: u64) -> Vec<u64> {
    let times = TIMED.iter().filter_map(|fork| match spec.ethereum_fork_activation(*fork) {
        ForkCondition::Timestamp(time) => Some(time),
        _ => None,
    });
    let mut times: Vec<u64> =
        times.map(|time| if time <= genesis_time { 0 } else { time }).collect();
    times.sort_unstable();
    times.dedup();
    times
}

/// Ethereum's and this chain's own, by the names that EIP-7910 gives them.
fn precompiles(executor: &Executor, time: u64) -> BTreeMap<String, Address> {
    // Only its place in time counts.
    let header = Header { number: u64::MAX, timestamp: time, ..Header::default() };
    let machine = executor.evm(EmptyDB::default(), executor.env(&header));
    let all = machine.precompiles();
    let named = all.addresses().filter_map(|address| {
        Some((all.get(address)?.precompile_id().name().to_owned(), *address))
    });
    named.collect()
}

fn system_contracts(spec: &Spec, time: u64) -> BTreeMap<&'static str, Address> {
    let mut contracts = BTreeMap::new();
    if spec.is_cancun_active_at_timestamp(time) {
        contracts.insert("BEACON_ROOTS_ADDRESS", eip4788::BEACON_ROOTS_ADDRESS);
    }
    if spec.is_prague_active_at_timestamp(time) {
        let consolidations = eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS;
        let withdrawals = eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS;
        contracts.insert("CONSOLIDATION_REQUEST_PREDEPLOY_ADDRESS", consolidations);
        contracts.insert("HISTORY_STORAGE_ADDRESS", eip2935::HISTORY_STORAGE_ADDRESS);
        contracts.insert("WITHDRAWAL_REQUEST_PREDEPLOY_ADDRESS", withdrawals);
        if let Some(deposits) = spec.deposit_contract_address() {
            contracts.insert("DEPOSIT_CONTRACT_ADDRESS", deposits);
        }
    }
    contracts
}

/// The hash of all forks up to `time` (EIP-2124, EIP-6122).
fn fork_hash(spec: &Spec, genesis: B256, genesis_time: u64, time: u64) -> u32 {
    let mut numbers: Vec<u64> = NUMBERED
        .iter()
        .filter_map(|fork| match spec.ethereum_fork_activation(*fork) {
            ForkCondition::Block(number) => Some(number),
            ForkCondition::TTD { fork_block, .. } => fork_block,
            _ => None,
        })
        .filter(|number| *number > 0)
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    let passed = times(spec, genesis_time).into_iter().filter(|one| (1..=time).contains(one));
    let mut crc = Crc::default();
    crc.add(genesis.as_slice());
    numbers.into_iter().chain(passed).for_each(|fork| crc.add(&fork.to_be_bytes()));
    crc.sum()
}

/// CRC-32 as in IEEE 802.3, bit by bit: it sees a few dozen bytes.
struct Crc(u32);

impl Default for Crc {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

impl Crc {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 ^= u32::from(*byte);
            for _ in 0..8 {
                let carry = (self.0 & 1).wrapping_neg();
                self.0 = (self.0 >> 1) ^ (0xedb8_8320 & carry);
            }
        }
    }

    fn sum(&self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crc_is_the_common_one() {
        let mut crc = Crc::default();
        crc.add(b"1234");
        crc.add(b"56789");
        assert_eq!(crc.sum(), 0xcbf4_3926);
    }
}
