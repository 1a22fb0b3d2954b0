//! Runs code on what a block left, and keeps nothing of it.
//!
//! Strangers choose the code, so two things end it: the gas it is given, and a clock that is looked
//! at every few hundred steps. Memory follows from the gas, but for what a tracer writes down of
//! every step, which is counted beside the clock.

use std::time::Instant;

use alloy_evm::eth::EthEvmContext;
use alloy_evm::overrides::{StateOverrideError, apply_block_overrides, apply_state_overrides};
use alloy_evm::precompiles::PrecompilesMap;
use alloy_evm::rpc::TryIntoTxEnv;
use alloy_evm::{Evm as _, EvmEnv};
use alloy_primitives::{Address, Bytes};
use alloy_rpc_types_eth::state::{EvmOverrides, StateOverride};
use alloy_rpc_types_eth::{BlockOverrides, TransactionRequest};
use revm::Inspector;
use revm::context::TxEnv;
use revm::context::result::{
    EVMError, ExecutionResult, HaltReason, InvalidTransaction, ResultAndState,
};
use revm::database::CacheDB;
use revm::interpreter::interpreter_types::{LoopControl, MemoryTr};
use revm::interpreter::{
    CallInputs, CallOutcome, CreateInputs, CreateOutcome, InstructionResult, Interpreter,
};

use super::message::Error;
use super::params::argument;
use crate::{Executor, View};

/// The state that code is tried on: what a block left, and what was changed for the trial.
pub(crate) type Ground = CacheDB<View>;

/// Steps between two looks at the clock.
const STEPS_PER_LOOK: u32 = 256;

/// What a tracer writes down of one step beside its stack and memory, in bytes.
const STEP_BYTES: usize = 256;

/// What a tracer writes down of one call beside its input, in bytes.
const CALL_BYTES: usize = 1024;

/// Ends a run that lasts too long, or whose trace grows too large.
#[derive(Debug)]
pub(crate) struct Watch {
    deadline: Instant,
    /// Steps to the next look at the clock.
    steps: u32,
    /// What a tracer may still write down, in bytes; `None` where no tracer runs.
    trace: Option<Trace>,
    over: Option<Over>,
}

#[derive(Debug)]
struct Trace {
    bytes_left: usize,
    /// Whether single steps are written down, not only calls.
    steps: bool,
    /// Whether each step comes with its memory.
    memory: bool,
}

/// Why a run was ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Over {
    Time,
    Trace,
}

impl Watch {
    /// Ends a run at `deadline`.
    pub(crate) fn until(deadline: Instant) -> Self {
        Self { deadline, steps: STEPS_PER_LOOK, trace: None, over: None }
    }

    /// As [`Watch::until`]; and when a tracer, which writes down `steps` and their `memory` or only
    /// calls, takes more than `bytes`.
    pub(crate) fn traced(deadline: Instant, bytes: usize, steps: bool, memory: bool) -> Self {
        let trace = Some(Trace { bytes_left: bytes, steps, memory });
        Self { trace, ..Self::until(deadline) }
    }

    /// Fails if the run was ended.
    pub(crate) fn judge(&self) -> Result<(), Error> {
        match self.over {
            None => Ok(()),
            Some(Over::Time) => Err(Error::Limit(
                "execution was stopped for it takes too long: give it less gas".into(),
            )),
            Some(Over::Trace) => Err(Error::Limit(
                "the trace grows too long: disable its stack and memory, or choose callTracer"
                    .into(),
            )),
        }
    }

    /// Counts what a tracer writes down.
    fn count(&mut self, bytes: usize) {
        let Some(trace) = &mut self.trace else { return };
        match trace.bytes_left.checked_sub(bytes) {
            Some(left) => trace.bytes_left = left,
            None => self.over = Some(Over::Trace),
        }
    }

    fn look(&mut self, interpreter: &Interpreter) {
        if let Some(trace) = self.trace.as_ref().filter(|trace| trace.steps) {
            let memory = if trace.memory { interpreter.memory.size() } else { 0 };
            self.count(STEP_BYTES + 32 * interpreter.stack.len() + memory);
        }
        self.steps -= 1;
        if self.steps == 0 {
            self.steps = STEPS_PER_LOOK;
            if Instant::now() >= self.deadline {
                self.over = Some(Over::Time);
            }
        }
    }
}

impl<CTX> Inspector<CTX> for Watch {
    fn step(&mut self, interpreter: &mut Interpreter, _context: &mut CTX) {
        if self.over.is_none() {
            self.look(interpreter);
        }
        // The frames above halt as well, each at its next step.
        if self.over.is_some() && interpreter.bytecode.is_not_end() {
            interpreter.halt(InstructionResult::OutOfGas);
        }
    }

    fn call(&mut self, _context: &mut CTX, inputs: &mut CallInputs) -> Option<CallOutcome> {
        self.count(CALL_BYTES + inputs.input.len());
        None
    }

    fn call_end(&mut self, _context: &mut CTX, _: &CallInputs, outcome: &mut CallOutcome) {
        self.count(outcome.output().len());
    }

    fn create(&mut self, _context: &mut CTX, inputs: &mut CreateInputs) -> Option<CreateOutcome> {
        self.count(CALL_BYTES + inputs.init_code().len());
        None
    }
}

/// One transaction that is tried, as often as needed, on the same ground.
#[derive(Debug)]
pub(crate) struct Trial {
    executor: Executor,
    pub(crate) env: EvmEnv,
    pub(crate) ground: Ground,
    /// Precompiles that were moved for this trial: from where, to where.
    moved: Vec<(Address, Address)>,
    pub(crate) transaction: TxEnv,
    deadline: Instant,
}

/// What a trial is given beside the call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Most gas.
    pub(crate) gas_max: u64,
    /// When it ends.
    pub(crate) deadline: Instant,
}

impl Trial {
    /// Prepares `request` on `view`, in a block with the environment `env`.
    ///
    /// Nothing is paid for gas unless the request names a price; then the base fee counts as well.
    pub(crate) fn new(
        executor: &Executor,
        view: View,
        mut env: EvmEnv,
        mut request: TransactionRequest,
        overrides: EvmOverrides,
        bounds: Bounds,
    ) -> Result<Self, Error> {
        let mut ground = CacheDB::new(view);
        relax(&mut env);
        let moved = override_ground(&mut ground, &mut env, overrides)?;
        let chain_id = env.cfg_env.chain_id;
        if let Some(found) = request.chain_id.filter(|found| *found != chain_id) {
            let reason = format!("chain id {found}, expected {chain_id}");
            return Err(argument(0, reason));
        }
        let gas = request.gas.map_or(bounds.gas_max, |gas| gas.min(bounds.gas_max));
        request.gas = Some(gas);
        let nonce = request.nonce;
        let mut transaction: TxEnv =
            request.try_into_tx_env(&env).map_err(|error| argument(0, error))?;
        if transaction.gas_price == 0 {
            env.block_env.basefee = 0;
        }
        if nonce.is_none() {
            transaction.nonce = nonce_of(&mut ground, transaction.caller);
        }
        let executor = executor.clone();
        Ok(Self { executor, env, ground, moved, transaction, deadline: bounds.deadline })
    }

    /// Runs it, seen by nobody.
    pub(crate) fn run(&mut self) -> Result<ResultAndState, Error> {
        let watch = Watch::until(self.deadline);
        Ok(self.run_with(revm::inspector::NoOpInspector, watch)?.0)
    }

    /// Runs it with another limit of gas.
    pub(crate) fn run_at(&mut self, gas: u64) -> Result<ResultAndState, Error> {
        self.transaction.gas_limit = gas;
        self.run()
    }

    /// Runs it, seen by `inspector`.
    pub(crate) fn run_with<I>(
        &mut self,
        inspector: I,
        watch: Watch,
    ) -> Result<(ResultAndState, I), Error>
    where
        I: for<'a> Inspector<EthEvmContext<&'a mut Ground>>,
    {
        let mut inspectors = (inspector, watch);
        let mut evm = self.executor.inspected(&mut self.ground, self.env.clone(), &mut inspectors);
        move_precompiles(evm.precompiles_mut(), &self.moved)?;
        let result = evm.transact_raw(self.transaction.clone());
        drop(evm);
        let (inspector, watch) = inspectors;
        watch.judge()?;
        Ok((result.map_err(refused)?, inspector))
    }
}

/// Lets a call do what no transaction may: be sent by a contract, and use any gas.
fn relax(env: &mut EvmEnv) {
    let cfg = &mut env.cfg_env;
    cfg.disable_nonce_check = true;
    cfg.disable_eip3607 = true;
    cfg.disable_block_gas_limit = true;
    cfg.tx_gas_limit_cap = Some(u64::MAX);
    cfg.tx_chain_id_check = false;
}

fn override_ground(
    ground: &mut Ground,
    env: &mut EvmEnv,
    overrides: EvmOverrides,
) -> Result<Vec<(Address, Address)>, Error> {
    let EvmOverrides { state, block } = overrides;
    if let Some(block) = block {
        apply_block(*block, ground, env);
    }
    let Some(state) = state else { return Ok(Vec::new()) };
    let moved = moves(&state);
    apply_state_overrides(state, ground).map_err(|error| match error {
        StateOverrideError::Database(never) => match never {},
        error => argument(2, error),
    })?;
    Ok(moved)
}

fn apply_block(block: BlockOverrides, ground: &mut Ground, env: &mut EvmEnv) {
    apply_block_overrides(block, ground, &mut env.block_env);
}

/// The precompiles that overrides move: from where, to where.
pub(crate) fn moves(state: &StateOverride) -> Vec<(Address, Address)> {
    let moves = state.iter();
    moves.filter_map(|(from, account)| Some((*from, account.move_precompile_to?))).collect()
}

/// Moves precompiles for one run.
pub(crate) fn move_precompiles(
    precompiles: &mut PrecompilesMap,
    moved: &[(Address, Address)],
) -> Result<(), Error> {
    if moved.is_empty() {
        return Ok(());
    }
    precompiles.move_precompiles(moved.iter().copied()).map_err(|error| argument(2, error))
}

fn nonce_of(ground: &mut Ground, caller: Address) -> u64 {
    match revm::Database::basic(ground, caller) {
        Ok(account) => account.map_or(0, |account| account.nonce),
        Err(never) => match never {},
    }
}

/// A transaction that could not even begin.
pub(crate) fn refused(error: EVMError<std::convert::Infallible, InvalidTransaction>) -> Error {
    use InvalidTransaction as Invalid;
    // Libraries tell these apart by geth's words.
    Error::Failed(match error {
        EVMError::Transaction(Invalid::LackOfFundForMaxFee { fee, balance }) => {
            format!("insufficient funds for gas * price + value: have {balance} want {fee}")
        }
        EVMError::Transaction(Invalid::GasPriceLessThanBasefee) => {
            "max fee per gas less than block base fee".into()
        }
        EVMError::Transaction(
            Invalid::CallGasCostMoreThanGasLimit { initial_gas: need, gas_limit: have }
            | Invalid::GasFloorMoreThanGasLimit { gas_floor: need, gas_limit: have },
        ) => format!("intrinsic gas too low: have {have}, want {need}"),
        EVMError::Transaction(invalid) => invalid.to_string(),
        other => other.to_string(),
    })
}

/// What the code returned, or why it returned nothing.
pub(crate) fn output(result: ExecutionResult) -> Result<Bytes, Error> {
    match result {
        ExecutionResult::Success { output, .. } => Ok(output.into_data()),
        ExecutionResult::Revert { output, .. } => Err(reverted(output)),
        ExecutionResult::Halt { reason, .. } => Err(Error::Failed(halted(&reason))),
    }
}

/// The error of code that reverted with `data`.
pub(crate) fn reverted(data: Bytes) -> Error {
    let reason = alloy_sol_types::decode_revert_reason(&data)
        .map(|reason| reason.trim_start_matches("revert: ").to_owned())
        .filter(|_| data.len() >= 4 + 32);
    Error::Reverted { reason: reason.unwrap_or_default(), data }
}

/// Why code was ended, in words that clients know.
pub(crate) fn halted(reason: &HaltReason) -> String {
    match reason {
        HaltReason::OutOfGas(_) => "out of gas".into(),
        HaltReason::OpcodeNotFound => "invalid opcode".into(),
        HaltReason::InvalidFEOpcode => "invalid opcode: INVALID".into(),
        HaltReason::InvalidJump => "invalid jump destination".into(),
        HaltReason::StackOverflow => "stack limit reached 1024".into(),
        HaltReason::StackUnderflow => "stack underflow".into(),
        HaltReason::CallTooDeep => "max call depth exceeded".into(),
        HaltReason::OutOfFunds => "insufficient balance for transfer".into(),
        HaltReason::CreateCollision => "contract address collision".into(),
        HaltReason::CreateContractSizeLimit => "max code size exceeded".into(),
        HaltReason::StateChangeDuringStaticCall | HaltReason::CallNotAllowedInsideStatic => {
            "write protection".into()
        }
        other => format!("execution halted: {other:?}"),
    }
}
