//! Calls that change nothing: `eth_call`, what gas a transaction needs, and what it touches.

use alloy_eips::BlockId;
use alloy_primitives::{TxKind, U64, U256};
use alloy_rpc_types_eth::state::{EvmOverrides, StateOverride};
use alloy_rpc_types_eth::{AccessListResult, BlockOverrides, TransactionRequest};
use revm::context::result::{ExecutionResult, HaltReason, ResultAndState, ResultGas};
use revm_inspectors::access_list::AccessListInspector;

use super::Rpc;
use super::message::{Answer, Error, answer};
use super::params::Params;
use super::trial::{Bounds, Trial, Watch, halted, output, reverted};
use crate::Parent;

/// What any transaction takes.
const GAS_TRANSFER: u64 = 21_000;

/// What a call that carries value leaves to the called on top of what is passed on.
const GAS_STIPEND: u64 = 2_300;

/// An estimate may be this much too high, in thousandths: it saves half of the runs.
const ESTIMATE_EXCESS: u64 = 15;

/// Most rounds in which a transaction may touch more for what it touched before.
const ACCESS_ROUNDS_MAX: usize = 8;

impl Rpc {
    /// `[call, block, state overrides, block overrides]`
    pub(super) fn eth_call(&self, params: &Params<'_>) -> Answer {
        let result = self.trial(params, BlockId::latest())?.run()?;
        answer(&output(result.result)?)
    }

    /// `[call, block, state overrides, block overrides]`
    pub(super) fn eth_estimate_gas(&self, params: &Params<'_>) -> Answer {
        let mut trial = self.trial(params, BlockId::pending())?;
        answer(&U64::from(estimate(&mut trial, self.limits().call_gas_max)?))
    }

    /// `[call, block, state overrides]`
    pub(super) fn eth_create_access_list(&self, params: &Params<'_>) -> Answer {
        let mut trial = self.trial(params, BlockId::pending())?;
        answer(&access_list(&mut trial, self.limits().deadline())?)
    }

    /// A call as the parameters state it, at the block they name or else at `usual`.
    ///
    /// What is asked for at the pending block is tried at the time and fee of the next one: a
    /// chain at which nothing happened for a while is in the past, and code that waits for a time
    /// would go another way there, with other gas, than in the block that is made.
    fn trial(&self, params: &Params<'_>, usual: BlockId) -> Result<Trial, Error> {
        let request: TransactionRequest = params.required(0)?;
        let id = params.optional(1)?.unwrap_or(usual);
        let at = self.at(id)?;
        let state: Option<StateOverride> = params.optional(2)?;
        let mut block: BlockOverrides = params.optional(3)?.unwrap_or_default();
        if id.is_pending() {
            let last = &at.header;
            let time = self.0.clock.now().as_secs().max(last.timestamp.saturating_add(1));
            block.time.get_or_insert(time);
            block.number.get_or_insert(U256::from(last.number.saturating_add(1)));
            if let Some(fee) = self.chain().spec().base_fee_after(last, time) {
                block.base_fee.get_or_insert(U256::from(fee));
            }
        }
        self.trial_at(&at, request, EvmOverrides::new(state, Some(Box::new(block))))
    }

    /// Prepares a call on what a block left.
    pub(super) fn trial_at(
        &self,
        at: &Parent,
        request: TransactionRequest,
        overrides: EvmOverrides,
    ) -> Result<Trial, Error> {
        let bounds =
            Bounds { gas_max: self.limits().call_gas_max, deadline: self.limits().deadline() };
        let executor = self.chain().executor();
        let env = executor.env(&at.header);
        Trial::new(executor, at.view(), env, request, overrides, bounds)
    }
}

/// The least gas, or little more, with which the trial succeeds.
fn estimate(trial: &mut Trial, gas_max: u64) -> Result<u64, Error> {
    let most = affordable(trial)?.min(trial.transaction.gas_limit).min(gas_max);
    if is_transfer(trial) && succeeds_at(trial, GAS_TRANSFER)? {
        return Ok(GAS_TRANSFER);
    }
    let ResultAndState { result, .. } = trial.run_at(most)?;
    let gas = *result.gas();
    match result {
        ExecutionResult::Success { .. } => {}
        ExecutionResult::Revert { output, .. } => return Err(reverted(output)),
        ExecutionResult::Halt { reason: HaltReason::OutOfGas(_), .. } => {
            return Err(Error::Failed(format!("gas required exceeds allowance ({most})")));
        }
        ExecutionResult::Halt { reason, .. } => return Err(Error::Failed(halted(&reason))),
    }
    search(trial, gas, most)
}

/// Narrows down between the gas that was used and `enough`.
fn search(trial: &mut Trial, gas: ResultGas, enough: u64) -> Result<u64, Error> {
    let (mut low, mut high) = (gas.tx_gas_used().saturating_sub(1), enough);
    // Most code needs no more than it used before refunds, and what calls hold back.
    let likely = gas.total_gas_spent().saturating_add(GAS_STIPEND).saturating_mul(64) / 63;
    if likely < high {
        if succeeds_at(trial, likely)? { high = likely } else { low = likely }
    }
    while low + 1 < high {
        if (high - low).saturating_mul(1000) < high.saturating_mul(ESTIMATE_EXCESS) {
            break;
        }
        // Most estimates are near the low end, so the first steps are short.
        let middle = low.midpoint(high).min(low.saturating_mul(2).max(low + 1));
        if succeeds_at(trial, middle)? { high = middle } else { low = middle }
    }
    Ok(high)
}

/// Whether this gas is enough. What ends every trial alike, such as the clock, is an error.
fn succeeds_at(trial: &mut Trial, gas: u64) -> Result<bool, Error> {
    match trial.run_at(gas) {
        Ok(tried) => Ok(tried.result.is_success()),
        Err(error @ Error::Limit(_)) => Err(error),
        // Too little gas to begin with.
        Err(_) => Ok(false),
    }
}

/// The gas that the caller can pay for at the price the call names; any, if it names none.
fn affordable(trial: &mut Trial) -> Result<u64, Error> {
    let (price, value) = (trial.transaction.gas_price, trial.transaction.value);
    if price == 0 {
        return Ok(u64::MAX);
    }
    let balance = match revm::Database::basic(&mut trial.ground, trial.transaction.caller) {
        Ok(account) => account.map_or(U256::ZERO, |account| account.balance),
        Err(never) => match never {},
    };
    let left = balance
        .checked_sub(value)
        .ok_or_else(|| Error::Failed("insufficient funds for transfer".into()))?;
    Ok((left / U256::from(price)).saturating_to())
}

/// Whether no code can run.
fn is_transfer(trial: &mut Trial) -> bool {
    let transaction = &trial.transaction;
    let TxKind::Call(to) = transaction.kind else { return false };
    if !transaction.data.is_empty() || !transaction.authorization_list.is_empty() {
        return false;
    }
    match revm::Database::basic(&mut trial.ground, to) {
        Ok(account) => account.is_none_or(|account| account.is_empty_code_hash()),
        Err(never) => match never {},
    }
}

/// What the trial touches beside sender, receiver and precompiles, and the gas it takes once all of
/// that is announced.
fn access_list(trial: &mut Trial, deadline: std::time::Instant) -> Result<AccessListResult, Error> {
    let mut rounds = 0;
    loop {
        let before = trial.transaction.access_list.clone();
        let inspector = AccessListInspector::new(before.clone());
        let (result, inspector) = trial.run_with(inspector, Watch::until(deadline))?;
        let access_list = inspector.into_access_list();
        rounds += 1;
        if access_list == before || rounds == ACCESS_ROUNDS_MAX {
            let gas_used = U256::from(result.result.tx_gas_used());
            let error = output(result.result).err().map(|error| match error {
                Error::Reverted { .. } => "execution reverted".to_owned(),
                error => error.to_string(),
            });
            return Ok(AccessListResult { access_list, gas_used, error });
        }
        trial.transaction.access_list = access_list;
        // A list makes the oldest kind of transaction one of the next.
        trial.transaction.tx_type = trial.transaction.tx_type.max(1);
    }
}
