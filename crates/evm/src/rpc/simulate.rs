//! `eth_simulateV1`: whole blocks of calls, each on what the one before left, none of them kept.
//!
//! The blocks are built as real ones are, so their hashes and roots are what they would be. Without
//! `validation`, calls need not pay the base fee, keep an order of nonces or come from an account
//! that could sign.

use std::time::Instant;

use alloy_consensus::transaction::{Recovered, TxHashRef};
use alloy_consensus::{
    EMPTY_OMMER_ROOT_HASH, Header, ReceiptEnvelope, Transaction as _, TxEnvelope, TxReceipt, proofs,
};
use alloy_eips::Typed2718;
use alloy_evm::block::SystemCaller;
use alloy_evm::overrides::apply_state_overrides;
use alloy_evm::precompiles::PrecompilesMap;
use alloy_evm::tx::ToTxEnv;
use alloy_evm::{Evm as _, EvmEnv};
use alloy_hardforks::EthereumHardfork;
use alloy_primitives::{Address, B256, Bloom, Bytes, Sealable, TxKind};
use alloy_rpc_types_eth as rpc;
use alloy_rpc_types_eth::simulate::{
    SimBlock, SimCallResult, SimulateError, SimulatePayload, SimulatedBlock,
};
use alloy_rpc_types_eth::state::StateOverride;
use alloy_rpc_types_eth::{BlockOverrides, TransactionRequest};
use revm::context::TxEnv;
use revm::context::result::{EVMError, ExecutionResult, InvalidTransaction};
use revm::context_interface::block::BlobExcessGasAndPrice;
use revm::{Database as _, DatabaseCommit};
use revm_inspectors::transfer::{TRANSFER_LOG_EMITTER, TransferInspector};

use super::Rpc;
use super::message::{Answer, Error, answer};
use super::params::{Params, argument};
use super::shape;
use super::trial::{Watch, halted, move_precompiles, moves, refused, reverted};
use crate::{Block, Overlay, Parent, Receipt, Transaction};

/// Blocks of one simulation, those between the given ones included.
const BLOCKS_MAX: u64 = 256;

/// Seconds between blocks whose time is not given.
const BLOCK_SECONDS: u64 = 12;

impl Rpc {
    /// `[{blocks of calls, options}, block]`
    pub(super) fn eth_simulate_v1(&self, params: &Params<'_>) -> Answer {
        let payload: SimulatePayload = params.required(0)?;
        let base = self.at(params.block(1)?)?;
        if payload.block_state_calls.is_empty() {
            return Err(Error::Arguments("no block is given".into()));
        }
        let full = payload.return_full_transactions;
        let mut simulation = Simulation {
            rpc: self,
            validation: payload.validation,
            transfers: payload.trace_transfers,
            gas_left: self.limits().call_gas_max,
            deadline: self.limits().deadline(),
        };
        let mut parent = Parent::clone(&base);
        let mut told = Vec::new();
        for block in line_up(&base.header, payload.block_state_calls)? {
            if Instant::now() >= simulation.deadline {
                return Err(Error::Limit("the simulation takes too long: ask for less".into()));
            }
            let (block, calls) = simulation.block(&mut parent, block)?;
            let inner = shape::block(&block, full);
            told.push(SimulatedBlock { inner, calls });
        }
        answer(&told)
    }
}

fn coded(code: i32, message: impl Into<String>) -> Error {
    Error::Other { code, message: message.into() }
}

/// A block with its number and time settled.
struct Planned {
    number: u64,
    time: u64,
    overrides: BlockOverrides,
    state: Option<StateOverride>,
    calls: Vec<TransactionRequest>,
}

/// Gives each block its number and time, and fills what is left out between them with empty ones.
fn line_up(base: &Header, blocks: Vec<SimBlock>) -> Result<Vec<Planned>, Error> {
    let mut planned = Vec::new();
    let (mut number, mut time) = (base.number, base.timestamp);
    for SimBlock { block_overrides, state_overrides: state, calls } in blocks {
        let overrides = block_overrides.unwrap_or_default();
        let wanted = overrides.number.map_or(number.saturating_add(1), |n| n.saturating_to());
        if wanted <= number {
            let message = format!("block numbers must be in order: {wanted} <= {number}");
            return Err(coded(-38020, message));
        }
        if wanted - base.number > BLOCKS_MAX {
            return Err(coded(-38026, "too many blocks"));
        }
        for between in number + 1..wanted {
            time = time.saturating_add(BLOCK_SECONDS);
            planned.push(Planned {
                number: between,
                time,
                overrides: BlockOverrides::default(),
                state: None,
                calls: Vec::new(),
            });
        }
        let next = overrides.time.unwrap_or(time.saturating_add(BLOCK_SECONDS));
        if next <= time {
            let message = format!("block timestamps must be in order: {next} <= {time}");
            return Err(coded(-38021, message));
        }
        (number, time) = (wanted, next);
        planned.push(Planned { number, time, overrides, state, calls });
    }
    Ok(planned)
}

struct Simulation<'a> {
    rpc: &'a Rpc,
    validation: bool,
    /// Whether what is sent in plain coins is told as logs.
    transfers: bool,
    /// Gas that all calls together may still burn.
    gas_left: u64,
    deadline: Instant,
}

/// What the calls of a block have come to so far.
#[derive(Default)]
struct Progress {
    transactions: Vec<Transaction>,
    receipts: Vec<Receipt>,
    calls: Vec<SimCallResult>,
    gas_used: u64,
    blob_gas_used: u64,
}

impl Simulation<'_> {
    /// Runs one block on `parent`, which becomes that block.
    fn block(
        &mut self,
        parent: &mut Parent,
        planned: Planned,
    ) -> Result<(Block, Vec<SimCallResult>), Error> {
        let executor = self.rpc.chain().executor();
        let mut header = self.header(parent, &planned);
        let env = self.env(&header, &planned.overrides);
        let mut overlay = Overlay::new(parent.view());
        let moved = planned.state.as_ref().map(moves).unwrap_or_default();
        if let Some(state) = planned.state {
            apply_state_overrides(state, &mut overlay).map_err(|error| argument(0, error))?;
        }
        let system = |error| Error::Internal(format!("a system call fails: {error}"));
        let mut caller = SystemCaller::new(executor.spec().clone());
        let mut evm = executor.evm(&mut overlay, env.clone());
        check_moves(evm.precompiles(), &moved)?;
        caller.apply_pre_execution_changes(&header, &mut evm).map_err(system)?;
        drop(evm);

        let mut progress = Progress::default();
        for request in planned.calls {
            self.call(&mut overlay, &env, &moved, request, &mut progress)?;
        }
        if header.requests_hash.is_some() {
            let mut evm = executor.evm(&mut overlay, env);
            let requests = caller.apply_post_execution_changes(&mut evm).map_err(system)?;
            header.requests_hash = Some(requests.requests_hash());
        }
        let state = parent.state.apply(&overlay.changes());
        let Progress { transactions, receipts, mut calls, gas_used, blob_gas_used, .. } = progress;
        header.state_root = state.root();
        header.transactions_root = proofs::calculate_transaction_root(&transactions);
        header.receipts_root = proofs::calculate_receipt_root(&receipts);
        header.logs_bloom =
            receipts.iter().fold(Bloom::ZERO, |bloom, receipt| bloom | receipt.bloom());
        header.gas_used = gas_used;
        header.blob_gas_used = header.blob_gas_used.map(|_| blob_gas_used);
        let withdrawals = header.withdrawals_root.map(|_| Default::default());
        let header = header.seal_slow();
        for log in calls.iter_mut().flat_map(|call| &mut call.logs) {
            log.block_hash = Some(header.hash());
            log.block_number = Some(header.number);
            log.block_timestamp = Some(header.timestamp);
        }
        let hashes = parent.hashes.child(header.hash());
        *parent = Parent { header: header.clone(), state, hashes };
        Ok((Block { header, transactions, ommers: Vec::new(), withdrawals }, calls))
    }

    fn header(&self, parent: &Parent, planned: &Planned) -> Header {
        let spec = self.rpc.chain().spec();
        let Planned { number, time, overrides, .. } = planned;
        let since = |fork| spec.active(fork, *number, *time);
        let base_fee = || {
            if self.validation {
                spec.base_fee_after(&parent.header, *time).unwrap_or(0)
            } else {
                0
            }
        };
        let blobs = spec.blob_params(*time);
        let excess = blobs.map(|params| parent.header.next_block_excess_blob_gas(params));
        Header {
            parent_hash: parent.header.hash(),
            ommers_hash: EMPTY_OMMER_ROOT_HASH,
            beneficiary: overrides.coinbase.unwrap_or(parent.header.beneficiary),
            difficulty: overrides.difficulty.unwrap_or(parent.header.difficulty),
            number: *number,
            gas_limit: overrides.gas_limit.unwrap_or(parent.header.gas_limit),
            timestamp: *time,
            mix_hash: overrides.random.unwrap_or_default(),
            base_fee_per_gas: since(EthereumHardfork::London)
                .then(|| overrides.base_fee.map_or_else(base_fee, |fee| fee.saturating_to())),
            withdrawals_root: since(EthereumHardfork::Shanghai)
                .then(|| proofs::calculate_withdrawals_root(&[])),
            blob_gas_used: blobs.map(|_| 0),
            excess_blob_gas: excess.map(Option::unwrap_or_default),
            parent_beacon_block_root: since(EthereumHardfork::Cancun)
                .then(|| overrides.beacon_root.unwrap_or_default()),
            requests_hash: since(EthereumHardfork::Prague).then(B256::default),
            ..Header::default()
        }
    }

    fn env(&self, header: &Header, overrides: &BlockOverrides) -> EvmEnv {
        let mut env = self.rpc.chain().executor().env(header);
        env.cfg_env.tx_gas_limit_cap = Some(u64::MAX);
        env.cfg_env.disable_nonce_check = !self.validation;
        env.cfg_env.disable_eip3607 = !self.validation;
        if let Some(fee) = overrides.blob_base_fee {
            env.block_env.blob_excess_gas_and_price = Some(BlobExcessGasAndPrice {
                excess_blob_gas: header.excess_blob_gas.unwrap_or(0),
                blob_gasprice: fee.saturating_to(),
            });
        }
        env
    }

    /// Runs one call and adds what came of it.
    fn call(
        &mut self,
        overlay: &mut Overlay,
        env: &EvmEnv,
        moved: &[(Address, Address)],
        request: TransactionRequest,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        let room = env.block_env.gas_limit.saturating_sub(progress.gas_used);
        let transaction = self.fill(overlay, env, request, room)?;
        let mut env = env.clone();
        let free = transaction.max_fee_per_gas() == 0;
        env.cfg_env.disable_base_fee = !self.validation && free;
        let executor = self.rpc.chain().executor();
        let transfers = TransferInspector::new(false).with_logs(self.transfers);
        let mut inspectors = (transfers, Watch::until(self.deadline));
        let environment: TxEnv = transaction.to_tx_env();
        let ran = if self.transfers {
            let mut evm = executor.inspected(&mut *overlay, env, &mut inspectors);
            move_precompiles(evm.precompiles_mut(), moved)?;
            evm.transact_raw(environment)
        } else {
            let mut evm = executor.inspected(&mut *overlay, env, &mut inspectors.1);
            move_precompiles(evm.precompiles_mut(), moved)?;
            evm.transact_raw(environment)
        };
        inspectors.1.judge()?;
        let ran = ran.map_err(invalid)?;
        overlay.commit(ran.state);
        self.gas_left = self.gas_left.saturating_sub(ran.result.tx_gas_used());
        progress.add(transaction, ran.result);
        Ok(())
    }

    /// Makes a transaction of a call, with what it leaves out filled in and signed by nobody.
    fn fill(
        &self,
        overlay: &mut Overlay,
        env: &EvmEnv,
        mut request: TransactionRequest,
        room: u64,
    ) -> Result<Transaction, Error> {
        let sender = request.from.unwrap_or_default();
        let account = match overlay.basic(sender) {
            Ok(account) => account.unwrap_or_default(),
            Err(never) => match never {},
        };
        let nonce = *request.nonce.get_or_insert(account.nonce);
        if self.validation && nonce == u64::MAX {
            return Err(Error::Internal(format!("nonce has max value: {nonce}")));
        }
        let gas = *request.gas.get_or_insert(room);
        if gas > room {
            let message = format!("block gas limit reached: {gas} > {room}");
            return Err(coded(-38015, message));
        }
        request.gas = Some(gas.min(self.gas_left));
        request.chain_id.get_or_insert(env.cfg_env.chain_id);
        request.to.get_or_insert(TxKind::Create);
        if request.gas_price.is_none() {
            request.max_fee_per_gas.get_or_insert(0);
            request.max_priority_fee_per_gas.get_or_insert(0);
        }
        let unsigned = request
            .build_typed_simulate_transaction()
            .map_err(|error| argument(0, error.to_string()))?;
        Ok(Recovered::new_unchecked(TxEnvelope::from(unsigned), sender))
    }
}

/// Only precompiles can be moved, and only elsewhere.
fn check_moves(precompiles: &PrecompilesMap, moved: &[(Address, Address)]) -> Result<(), Error> {
    for (from, to) in moved {
        if precompiles.get(from).is_none() {
            return Err(Error::Failed(format!("account {from} is not a precompile")));
        }
        if from == to {
            return Err(coded(-38022, format!("precompile {from} is moved to itself")));
        }
    }
    Ok(())
}

impl Progress {
    fn add(&mut self, transaction: Transaction, result: ExecutionResult) {
        let gas = *result.gas();
        self.gas_used += gas.tx_gas_used();
        self.blob_gas_used += transaction.blob_gas_used().unwrap_or(0);
        let status = result.is_success();
        let (return_data, logs, error) = match result {
            ExecutionResult::Success { output, logs, .. } => (output.into_data(), logs, None),
            ExecutionResult::Revert { output, .. } => {
                let message = reverted(output.clone()).to_string();
                let data = Some(output);
                (Bytes::new(), Vec::new(), Some(SimulateError { code: 3, message, data }))
            }
            ExecutionResult::Halt { reason, .. } => {
                let code = SimulateError::VM_EXECUTION_ERROR_CODE;
                let error = SimulateError { code, message: halted(&reason), data: None };
                (Bytes::new(), Vec::new(), Some(error))
            }
        };
        // What plain coins moved is told, but stands in no receipt.
        let kept: Vec<_> =
            logs.iter().filter(|log| log.address != TRANSFER_LOG_EMITTER).cloned().collect();
        let receipt = alloy_consensus::Receipt {
            status: status.into(),
            cumulative_gas_used: self.gas_used,
            logs: kept,
        };
        let kind = transaction.ty().try_into().unwrap_or(alloy_consensus::TxType::Legacy);
        let receipt = ReceiptEnvelope::from_typed(kind, receipt);
        self.calls.push(SimCallResult {
            return_data,
            logs: self.place(&transaction, logs),
            gas_used: gas.tx_gas_used(),
            max_used_gas: Some(gas.total_gas_spent().max(gas.floor_gas())),
            status,
            error,
        });
        self.receipts.push(receipt);
        self.transactions.push(transaction);
    }

    fn place(&self, transaction: &Transaction, logs: Vec<alloy_primitives::Log>) -> Vec<rpc::Log> {
        let before: usize = self.calls.iter().map(|call| call.logs.len()).sum();
        let placed = logs.into_iter().zip(before as u64..).map(|(inner, index)| rpc::Log {
            inner,
            transaction_hash: Some(*transaction.tx_hash()),
            transaction_index: Some(self.transactions.len() as u64),
            log_index: Some(index),
            ..Default::default()
        });
        placed.collect()
    }
}

/// A call that cannot even begin, with the code that the method defines for it.
fn invalid(error: EVMError<std::convert::Infallible, InvalidTransaction>) -> Error {
    use InvalidTransaction as Invalid;
    let code = match &error {
        EVMError::Transaction(Invalid::NonceTooLow { .. }) => -38010,
        EVMError::Transaction(Invalid::NonceTooHigh { .. }) => -38011,
        EVMError::Transaction(Invalid::GasPriceLessThanBasefee) => -38012,
        EVMError::Transaction(
            Invalid::CallGasCostMoreThanGasLimit { .. } | Invalid::GasFloorMoreThanGasLimit { .. },
        ) => -38013,
        EVMError::Transaction(
            Invalid::LackOfFundForMaxFee { .. } | Invalid::OverflowPaymentInTransaction,
        ) => -38014,
        EVMError::Transaction(Invalid::RejectCallerWithCode) => -38024,
        EVMError::Transaction(Invalid::CreateInitCodeSizeLimit) => -38025,
        _ => -32603,
    };
    coded(code, refused(error).to_string())
}
