//! What must hold between a block's header and its parent's, whoever made it.
//!
//! Proof of work and seals are not looked at: who may make a block is the business of consensus.

use alloy_consensus::{EMPTY_OMMER_ROOT_HASH, Header};
use alloy_eips::eip1559::{DEFAULT_ELASTICITY_MULTIPLIER, calculate_block_gas_limit};
use alloy_hardforks::EthereumHardfork;
use alloy_primitives::{B64, B256, Sealed, U256};

use crate::execute::Refusal;
use crate::spec::Spec;

/// The gas limit a block may not go below.
const GAS_LIMIT_MIN: u64 = 5_000;

/// A child's gas limit differs from its parent's by less than one part in this many.
const GAS_LIMIT_DRIFT: u64 = 1_024;

/// The bytes that a proposer may write into a header.
const EXTRA_DATA_MAX: usize = 32;

/// How many stale siblings a block may name, and how far below it.
const OMMERS_MAX: usize = 2;
const OMMER_AGE_MAX: u64 = 6;

/// The bytes of an encoded block since Osaka (EIP-7934): 10 MiB less 2 MiB for what wraps it.
pub(crate) const BLOCK_BYTES_MAX: usize = 8 << 20;

/// Why a block is not a valid child of its parent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Built on another block.
    #[error("block {number} is built on {found}, not on {expected}")]
    Parent {
        /// Its height.
        number: u64,
        /// The parent it names.
        found: B256,
        /// The parent it was judged on.
        expected: B256,
    },
    /// Not one above its parent.
    #[error("block has number {found}, its place is {expected}")]
    Number {
        /// The number it gives.
        found: u64,
        /// One above its parent's.
        expected: u64,
    },
    /// Before its parent.
    #[error("block's time {found} s is before its parent's {parent} s")]
    Timestamp {
        /// The time it gives, in seconds.
        found: u64,
        /// Its parent's, in seconds.
        parent: u64,
    },
    /// The gas limit moved too far, or below 5,000.
    #[error("block's gas limit {found} is not within {least} to {most}")]
    GasLimit {
        /// The limit it gives.
        found: u64,
        /// The least its parent permits.
        least: u64,
        /// The most its parent permits.
        most: u64,
    },
    /// More gas used than the block's own limit.
    #[error("block claims {found} gas used, its limit is {limit}")]
    GasOverLimit {
        /// The gas it says it used.
        found: u64,
        /// The limit it gives.
        limit: u64,
    },
    /// The base fee does not follow from the parent.
    #[error("block's base fee is {found:?} wei, not {expected:?}")]
    BaseFee {
        /// The fee it gives, in wei per gas.
        found: Option<u64>,
        /// What EIP-1559 asks for; `None` before London.
        expected: Option<u64>,
    },
    /// The excess of blob gas does not follow from the parent.
    #[error("block's excess blob gas is {found:?}, not {expected:?}")]
    ExcessBlobGas {
        /// The excess it gives.
        found: Option<u64>,
        /// What EIP-4844 asks for; `None` before Cancun.
        expected: Option<u64>,
    },
    /// More blobs than a block may carry, or not those of its transactions.
    #[error("block's blob gas is {found:?}, not {expected:?}")]
    BlobGas {
        /// The blob gas it gives.
        found: Option<u64>,
        /// What its transactions carry, or the most they may.
        expected: Option<u64>,
    },
    /// More than 32 bytes of extra data.
    #[error("block carries {found} bytes of extra data, {EXTRA_DATA_MAX} are allowed")]
    ExtraData {
        /// How many it carries.
        found: usize,
    },
    /// A field that this fork lacks, or lacks a field that this fork has.
    #[error("block's field {field} must be {}", if *expected { "present" } else { "absent" })]
    Field {
        /// The field's name.
        field: &'static str,
        /// Whether it must be there.
        expected: bool,
    },
    /// A trace of proof of work after its end.
    #[error("block's {field} is of proof of work, which has ended")]
    ProofOfWork {
        /// The field's name.
        field: &'static str,
    },
    /// More ommers than two, or one that is no stale sibling of the last six ancestors.
    #[error("block {number} names {count} ommers, of which one has number {found:?}")]
    Ommers {
        /// The block's height.
        number: u64,
        /// How many it names.
        count: usize,
        /// The height of one that is too old or too new.
        found: Option<u64>,
    },
    /// Larger than EIP-7934 allows.
    #[error("block has {found} bytes, {BLOCK_BYTES_MAX} are allowed")]
    Size {
        /// Its encoded length.
        found: usize,
    },
    /// A transaction that may not stand where it stands.
    #[error("transaction {index} of the block ({hash}) is refused: {refusal}")]
    Transaction {
        /// Its position in the block.
        index: usize,
        /// Why it is refused.
        refusal: Refusal,
        /// Its hash.
        hash: B256,
    },
    /// Other gas used than the header says.
    #[error("block claims {found} gas used, running it takes {expected}")]
    GasUsed {
        /// What the header says.
        found: u64,
        /// What running the block took.
        expected: u64,
    },
    /// Another root or hash than the header says.
    #[error("block claims {what} {found}, it is {expected}")]
    Root {
        /// Which of them.
        what: Commitment,
        /// What the header says.
        found: B256,
        /// What running the block gave.
        expected: B256,
    },
    /// Another bloom filter than the header says.
    #[error("block's bloom filter is not that of its logs")]
    Bloom,
    /// A system contract failed (those of EIP-4788, 2935, 7002, 7251, or deposits).
    #[error("block's system calls fail: {0}")]
    System(String),
}

/// What a header commits to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commitment {
    /// The state after the block.
    State,
    /// Its transactions.
    Transactions,
    /// Their receipts.
    Receipts,
    /// Its ommers.
    Ommers,
    /// Its withdrawals.
    Withdrawals,
    /// Its requests to the consensus layer (EIP-7685).
    Requests,
}

impl std::fmt::Display for Commitment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::State => "state root",
            Self::Transactions => "transactions root",
            Self::Receipts => "receipts root",
            Self::Ommers => "ommers hash",
            Self::Withdrawals => "withdrawals root",
            Self::Requests => "requests hash",
        })
    }
}

/// Judges what a header says by itself and beside its parent's; what it commits to is judged by
/// running the block.
pub(crate) fn check(
    spec: &Spec,
    parent: &Sealed<Header>,
    header: &Header,
) -> Result<(), BlockError> {
    let number = parent.number.saturating_add(1);
    if header.number != number {
        return Err(BlockError::Number { found: header.number, expected: number });
    }
    if header.parent_hash != parent.hash() {
        let expected = parent.hash();
        return Err(BlockError::Parent { number, found: header.parent_hash, expected });
    }
    // Ethereum asks for a later second; here several blocks share one.
    if header.timestamp < parent.timestamp {
        let found = header.timestamp;
        return Err(BlockError::Timestamp { found, parent: parent.timestamp });
    }
    if header.extra_data.len() > EXTRA_DATA_MAX {
        return Err(BlockError::ExtraData { found: header.extra_data.len() });
    }
    check_gas(spec, parent, header)?;
    check_blobs(spec, parent, header)?;
    check_proof_of_work(spec, header)?;
    check_fields(spec, header)
}

fn check_gas(spec: &Spec, parent: &Header, header: &Header) -> Result<(), BlockError> {
    let base = drift_base(spec, parent, header.timestamp);
    let drift = base / GAS_LIMIT_DRIFT;
    let least = base.saturating_sub(drift).saturating_add(1).max(GAS_LIMIT_MIN);
    let most = base.saturating_add(drift).saturating_sub(1).max(least);
    // A drift of zero or one leaves no room but the parent's own limit.
    let (least, most) = if drift < 2 { (base, base) } else { (least, most) };
    let found = header.gas_limit;
    if !(least..=most).contains(&found) {
        return Err(BlockError::GasLimit { found, least, most });
    }
    if header.gas_used > header.gas_limit {
        return Err(BlockError::GasOverLimit { found: header.gas_used, limit: header.gas_limit });
    }
    let expected = spec.base_fee_after(parent, header.timestamp);
    let found = header.base_fee_per_gas;
    if found != expected {
        return Err(BlockError::BaseFee { found, expected });
    }
    Ok(())
}

/// What a child's gas limit drifts from: its parent's, doubled once where London begins, because
/// since then a block aims at half of its limit.
fn drift_base(spec: &Spec, parent: &Header, timestamp: u64) -> u64 {
    let number = parent.number.saturating_add(1);
    let london = EthereumHardfork::London;
    let begins = spec.active(london, number, timestamp) && !spec.active_at(london, parent);
    let factor = if begins { DEFAULT_ELASTICITY_MULTIPLIER } else { 1 };
    parent.gas_limit.saturating_mul(factor)
}

/// The gas limit nearest to `wanted` that a child of `parent` may have.
pub(crate) fn gas_limit_toward(spec: &Spec, parent: &Header, timestamp: u64, wanted: u64) -> u64 {
    let base = drift_base(spec, parent, timestamp);
    if base / GAS_LIMIT_DRIFT < 2 {
        return base;
    }
    calculate_block_gas_limit(base, wanted.max(GAS_LIMIT_MIN))
}

fn check_blobs(spec: &Spec, parent: &Header, header: &Header) -> Result<(), BlockError> {
    let Some(params) = spec.blob_params(header.timestamp) else { return Ok(()) };
    let expected = Some(parent.next_block_excess_blob_gas(params).unwrap_or(0));
    if header.excess_blob_gas != expected {
        return Err(BlockError::ExcessBlobGas { found: header.excess_blob_gas, expected });
    }
    let most = params.max_blob_gas_per_block();
    if header.blob_gas_used.is_none_or(|used| used > most) {
        return Err(BlockError::BlobGas { found: header.blob_gas_used, expected: Some(most) });
    }
    Ok(())
}

fn check_proof_of_work(spec: &Spec, header: &Header) -> Result<(), BlockError> {
    if !spec.active_at(EthereumHardfork::Paris, header) {
        return Ok(());
    }
    let traces = [
        ("difficulty", header.difficulty != U256::ZERO),
        ("nonce", header.nonce != B64::ZERO),
        ("ommers", header.ommers_hash != EMPTY_OMMER_ROOT_HASH),
    ];
    match traces.into_iter().find(|(_, there)| *there) {
        Some((field, _)) => Err(BlockError::ProofOfWork { field }),
        None => Ok(()),
    }
}

/// Judges the ommers' number and heights, on which their rewards depend.
pub(crate) fn check_ommers(number: u64, ommers: &[Header]) -> Result<(), BlockError> {
    let reach = number.saturating_sub(OMMER_AGE_MAX)..number;
    let found = ommers.iter().map(|ommer| ommer.number).find(|ommer| !reach.contains(ommer));
    if ommers.len() > OMMERS_MAX || found.is_some() {
        return Err(BlockError::Ommers { number, count: ommers.len(), found });
    }
    Ok(())
}

fn check_fields(spec: &Spec, header: &Header) -> Result<(), BlockError> {
    use EthereumHardfork::{Amsterdam, Cancun, London, Prague, Shanghai};
    let fields = [
        ("baseFeePerGas", header.base_fee_per_gas.is_some(), London),
        ("withdrawalsRoot", header.withdrawals_root.is_some(), Shanghai),
        ("blobGasUsed", header.blob_gas_used.is_some(), Cancun),
        ("excessBlobGas", header.excess_blob_gas.is_some(), Cancun),
        ("parentBeaconBlockRoot", header.parent_beacon_block_root.is_some(), Cancun),
        ("requestsHash", header.requests_hash.is_some(), Prague),
        ("blockAccessListHash", header.block_access_list_hash.is_some(), Amsterdam),
        ("slotNumber", header.slot_number.is_some(), Amsterdam),
    ];
    for (field, found, since) in fields {
        let expected = spec.active_at(since, header);
        if found != expected {
            return Err(BlockError::Field { field, expected });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(number: u64, ommers: &[u64]) -> bool {
        let header = |number: &u64| Header { number: *number, ..Header::default() };
        check_ommers(number, &ommers.iter().map(header).collect::<Vec<_>>()).is_ok()
    }

    #[test]
    fn ommers_are_few_and_near() {
        assert!(judge(10, &[]) && judge(10, &[4]) && judge(10, &[9, 9]) && judge(1, &[0]));
        assert!(!judge(10, &[3]) && !judge(10, &[10]) && !judge(10, &[u64::MAX]));
        assert!(!judge(10, &[9, 9, 9]) && !judge(0, &[0]));
    }
}
