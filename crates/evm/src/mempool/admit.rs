//! What can be said of a transaction without looking at any account.

use alloy_consensus::{Transaction as _, Typed2718, transaction::SignerRecoverable};
use alloy_eips::{Encodable2718, eip2718::Decodable2718};
use alloy_primitives::U256;
use revm::context_interface::cfg::gas_params::GasParams;
use revm::primitives::{eip3860::MAX_INITCODE_SIZE, eip7825::TX_GAS_LIMIT_CAP, hardfork::SpecId};

use super::{Envelope, Limits, Refused};
use crate::block::Transaction;

/// The rules of the next block, as far as they bind single transactions.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) chain_id: u64,
    pub(super) spec: SpecId,
    /// Most gas that all transactions of the next block may use together.
    pub(super) block_gas: u64,
    gas: GasParams,
}

impl Rules {
    pub(super) fn new(chain_id: u64, spec: SpecId, block_gas: u64) -> Self {
        Self { chain_id, spec, block_gas, gas: GasParams::new_spec(spec) }
    }
}

/// A transaction from the bytes that `eth_sendRawTransaction` takes.
pub(super) fn decode(raw: &[u8], limits: &Limits) -> Result<Envelope, Refused> {
    if raw.len() > limits.transaction_bytes {
        return Err(Refused::Size { found: raw.len(), most: limits.transaction_bytes });
    }
    let mut rest = raw;
    let malformed = |reason: String| Refused::Malformed { reason };
    let envelope =
        Envelope::decode_2718(&mut rest).map_err(|error| malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(malformed(format!("{} bytes after the transaction", rest.len())));
    }
    Ok(envelope)
}

/// Finds the signer. By far the dearest step of all (26 µs), so the last before any account is read.
pub(super) fn recover(envelope: Envelope) -> Result<Transaction, Refused> {
    match envelope.recover_signer() {
        Ok(signer) => Ok(Transaction::new_unchecked(envelope, signer)),
        Err(_) => Err(Refused::Signature { hash: *envelope.tx_hash() }),
    }
}

/// Refuses what no state of any account could make valid in the next block.
pub(super) fn check(envelope: &Envelope, rules: &Rules, limits: &Limits) -> Result<(), Refused> {
    check_form(envelope, rules, limits)?;
    check_gas(envelope, rules)
}

fn check_form(envelope: &Envelope, rules: &Rules, limits: &Limits) -> Result<(), Refused> {
    let known = match envelope.ty() {
        0 => true,
        1 => rules.spec.is_enabled_in(SpecId::BERLIN),
        2 => rules.spec.is_enabled_in(SpecId::LONDON),
        4 => rules.spec.is_enabled_in(SpecId::PRAGUE),
        _ => false,
    };
    if !known {
        return Err(Refused::Type { found: envelope.ty() });
    }
    let size = envelope.encode_2718_len();
    if size > limits.transaction_bytes {
        return Err(Refused::Size { found: size, most: limits.transaction_bytes });
    }
    // A transaction from before EIP-155 names no chain; deployers of well-known contracts are such.
    if let Some(found) = envelope.chain_id().filter(|found| *found != rules.chain_id) {
        return Err(Refused::Chain { found, expected: rules.chain_id });
    }
    if envelope.nonce() == u64::MAX {
        return Err(Refused::NonceMax { found: u64::MAX });
    }
    let delegations = envelope.authorization_list();
    if delegations.is_some_and(|list| list.is_empty() || envelope.is_create()) {
        return Err(Refused::Delegation);
    }
    let (fee, tip) = (envelope.max_fee_per_gas(), tip_max(envelope));
    if tip > fee {
        return Err(Refused::TipAboveFee { tip, fee });
    }
    Ok(())
}

fn check_gas(envelope: &Envelope, rules: &Rules) -> Result<(), Refused> {
    let found = envelope.gas_limit();
    if rules.spec.is_enabled_in(SpecId::OSAKA) && found > TX_GAS_LIMIT_CAP {
        return Err(Refused::GasCap { found, most: TX_GAS_LIMIT_CAP });
    }
    if found > rules.block_gas {
        return Err(Refused::BlockGas { found, most: rules.block_gas });
    }
    if rules.spec.is_enabled_in(SpecId::SHANGHAI) && envelope.is_create() {
        let found = envelope.input().len();
        if found > MAX_INITCODE_SIZE {
            return Err(Refused::InitCode { found, most: MAX_INITCODE_SIZE });
        }
    }
    let needed = intrinsic_gas(envelope, rules);
    if found < needed {
        return Err(Refused::IntrinsicGas { found, needed });
    }
    Ok(())
}

/// What is due before anything runs: for being there, for its bytes, and for what it announces.
fn intrinsic_gas(envelope: &Envelope, rules: &Rules) -> u64 {
    let (mut accounts, mut slots) = (0, 0);
    if let Some(list) = envelope.access_list() {
        accounts = list.len() as u64;
        slots = list.iter().map(|item| item.storage_keys.len() as u64).sum();
    }
    let delegations = envelope.authorization_list().map_or(0, |list| list.len() as u64);
    let (input, creates) = (envelope.input(), envelope.is_create());
    let due = rules.gas.initial_tx_gas(input, creates, accounts, slots, delegations, None);
    (due.initial_regular_gas + due.initial_state_gas).max(due.floor_gas)
}

/// The tip a transaction offers at most; one from before EIP-1559 offers all it has.
pub(super) fn tip_max(envelope: &Envelope) -> u128 {
    envelope.max_priority_fee_per_gas().unwrap_or_else(|| envelope.max_fee_per_gas())
}

/// Most that `envelope` can take from its sender, in wei; `U256::MAX` if that is no number.
pub(super) fn cost_max(envelope: &Envelope) -> U256 {
    let gas = U256::from(envelope.gas_limit()) * U256::from(envelope.max_fee_per_gas());
    gas.saturating_add(envelope.value())
}
