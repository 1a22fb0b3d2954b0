//! Which rules hold at which block: Ethereum's forks, read from a genesis file's `config`.
//!
//! A chain of our own has every fork through Osaka from its first block ([`Spec::latest`]); the
//! older ones are kept so that other clients' chains and test fixtures run to the same roots.

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_eips::BlobScheduleBlobParams;
use alloy_eips::eip1559::BaseFeeParams;
use alloy_eips::eip7840::BlobParams;
use alloy_evm::eth::spec::EthExecutorSpec;
use alloy_genesis::ChainConfig;
use alloy_hardforks::{EthereumHardfork, EthereumHardforks, ForkCondition};
use alloy_primitives::{Address, U256};

/// The rules of one chain. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Spec(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    config: ChainConfig,
    blobs: BlobScheduleBlobParams,
}

impl Spec {
    /// Reads the rules from the `config` of a genesis file.
    pub fn new(config: ChainConfig) -> Self {
        let blobs = config.blob_schedule_blob_params();
        Self(Arc::new(Rules { config, blobs }))
    }

    /// The rules of a new chain: every fork through Osaka from block 0.
    pub fn latest(chain_id: u64) -> Self {
        Self::new(latest_config(chain_id))
    }

    /// The number that signatures name, so that a transaction of one chain is void on another.
    pub fn chain_id(&self) -> u64 {
        self.0.config.chain_id
    }

    /// The `config` these rules were read from.
    pub fn config(&self) -> &ChainConfig {
        &self.0.config
    }

    /// What blobs cost and how many a block may carry at `timestamp` (seconds); `None` before
    /// Cancun.
    pub fn blob_params(&self, timestamp: u64) -> Option<BlobParams> {
        let blobs = &self.0.blobs;
        if let Some(scheduled) = blobs.active_scheduled_params_at_timestamp(timestamp) {
            return Some(*scheduled);
        }
        [
            (EthereumHardfork::Osaka, blobs.osaka),
            (EthereumHardfork::Prague, blobs.prague),
            (EthereumHardfork::Cancun, blobs.cancun),
        ]
        .into_iter()
        .find(|(fork, _)| self.ethereum_fork_activation(*fork).active_at_timestamp(timestamp))
        .map(|(_, params)| params)
    }

    /// Whether `fork` is active at a block of this number and timestamp (seconds).
    pub fn active(&self, fork: EthereumHardfork, number: u64, timestamp: u64) -> bool {
        self.ethereum_fork_activation(fork).active_at_timestamp_or_number(timestamp, number)
    }

    /// Whether `fork` is active at the block with this header.
    pub(crate) fn active_at(&self, fork: EthereumHardfork, header: &Header) -> bool {
        self.active(fork, header.number, header.timestamp)
    }

    /// The base fee, in wei per gas, of the block of this number that follows `parent`; `None`
    /// before London.
    pub fn base_fee_after(&self, parent: &Header, timestamp: u64) -> Option<u64> {
        let number = parent.number.saturating_add(1);
        if !self.active(EthereumHardfork::London, number, timestamp) {
            return None;
        }
        parent
            .next_block_base_fee(BaseFeeParams::ethereum())
            .or(Some(alloy_eips::eip1559::INITIAL_BASE_FEE))
    }
}

/// A genesis file's `config` with every fork through Osaka from block 0.
pub(crate) fn latest_config(chain_id: u64) -> ChainConfig {
    ChainConfig {
        chain_id,
        homestead_block: Some(0),
        eip150_block: Some(0),
        eip155_block: Some(0),
        eip158_block: Some(0),
        byzantium_block: Some(0),
        constantinople_block: Some(0),
        petersburg_block: Some(0),
        istanbul_block: Some(0),
        muir_glacier_block: Some(0),
        berlin_block: Some(0),
        london_block: Some(0),
        arrow_glacier_block: Some(0),
        gray_glacier_block: Some(0),
        merge_netsplit_block: Some(0),
        shanghai_time: Some(0),
        cancun_time: Some(0),
        prague_time: Some(0),
        osaka_time: Some(0),
        terminal_total_difficulty: Some(U256::ZERO),
        terminal_total_difficulty_passed: true,
        ..ChainConfig::default()
    }
}

impl EthereumHardforks for Spec {
    fn ethereum_fork_activation(&self, fork: EthereumHardfork) -> ForkCondition {
        use EthereumHardfork as F;
        let config = &self.0.config;
        match fork {
            F::Frontier => ForkCondition::Block(0),
            F::Homestead => block(config.homestead_block),
            F::Dao if !config.dao_fork_support => ForkCondition::Never,
            F::Dao => block(config.dao_fork_block),
            F::Tangerine => block(config.eip150_block),
            F::SpuriousDragon => block(config.eip158_block),
            F::Byzantium => block(config.byzantium_block),
            F::Constantinople => block(config.constantinople_block),
            F::Petersburg => block(config.petersburg_block),
            F::Istanbul => block(config.istanbul_block),
            F::MuirGlacier => block(config.muir_glacier_block),
            F::Berlin => block(config.berlin_block),
            F::London => block(config.london_block),
            F::ArrowGlacier => block(config.arrow_glacier_block),
            F::GrayGlacier => block(config.gray_glacier_block),
            F::Paris => paris(config),
            F::Shanghai => time(config.shanghai_time),
            F::Cancun => time(config.cancun_time),
            F::Prague => time(config.prague_time),
            F::Osaka => time(config.osaka_time),
            F::Bpo1 => time(config.bpo1_time),
            F::Bpo2 => time(config.bpo2_time),
            F::Bpo3 => time(config.bpo3_time),
            F::Bpo4 => time(config.bpo4_time),
            F::Bpo5 => time(config.bpo5_time),
            F::Amsterdam => time(config.amsterdam_time),
            F::Bogota => time(config.bogota_time),
            _ => ForkCondition::Never,
        }
    }
}

impl EthExecutorSpec for Spec {
    fn deposit_contract_address(&self) -> Option<Address> {
        self.0.config.deposit_contract_address
    }
}

fn block(number: Option<u64>) -> ForkCondition {
    number.map_or(ForkCondition::Never, ForkCondition::Block)
}

fn time(timestamp: Option<u64>) -> ForkCondition {
    timestamp.map_or(ForkCondition::Never, ForkCondition::Timestamp)
}

/// When proof of work ends. Nobody mines here, so a total difficulty that is to be reached on the
/// way counts only where the file also names the block (`mergeNetsplitBlock`); a difficulty of
/// zero, one that has passed, and a fork after the merge at time zero each say "from the start".
fn paris(config: &ChainConfig) -> ForkCondition {
    let total_difficulty = config.terminal_total_difficulty.unwrap_or_default();
    let from_the_start = config.terminal_total_difficulty == Some(U256::ZERO)
        || config.terminal_total_difficulty_passed
        || config.shanghai_time == Some(0);
    match config.merge_netsplit_block.or(from_the_start.then_some(0)) {
        Some(number) => ForkCondition::TTD {
            activation_block_number: number,
            fork_block: Some(number),
            total_difficulty,
        },
        None => ForkCondition::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_chain_has_every_fork_through_osaka_at_block_zero() {
        let spec = Spec::latest(7);
        assert_eq!(spec.chain_id(), 7);
        for fork in [EthereumHardfork::Homestead, EthereumHardfork::Paris, EthereumHardfork::Osaka]
        {
            assert!(spec.active(fork, 0, 0), "{fork:?}");
        }
        assert!(!spec.active(EthereumHardfork::Amsterdam, u64::MAX, u64::MAX));
        assert!(!spec.active(EthereumHardfork::Dao, u64::MAX, u64::MAX));
        assert_eq!(spec.blob_params(0).map(|blobs| blobs.max_blobs_per_tx), Some(6));
    }

    #[test]
    fn a_file_without_forks_runs_frontier_rules() {
        let spec = Spec::new(ChainConfig::default());
        assert!(spec.active(EthereumHardfork::Frontier, 0, 0));
        assert!(!spec.active(EthereumHardfork::Homestead, u64::MAX, u64::MAX));
        assert!(!spec.active(EthereumHardfork::Paris, u64::MAX, u64::MAX));
        assert_eq!(spec.blob_params(u64::MAX), None);
    }
}
