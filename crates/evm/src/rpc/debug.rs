//! What explorers and people who look for a fault ask: encodings, and transactions run again under
//! a tracer.

use std::time::Instant;

use alloy_consensus::transaction::TxHashRef;
use alloy_eips::{BlockId, Encodable2718};
use alloy_evm::block::SystemCaller;
use alloy_evm::tx::ToTxEnv;
use alloy_evm::{Evm as _, EvmEnv};
use alloy_primitives::{B256, Bytes};
use alloy_rpc_types_eth::TransactionRequest;
use alloy_rpc_types_eth::state::EvmOverrides;
use alloy_rpc_types_trace::geth::{
    GethDebugTracingCallOptions, GethDebugTracingOptions, GethTrace, StructLog,
};
use revm::context::TxEnv;
use revm::context::result::ResultAndState;
use revm::{DatabaseCommit, database::CacheDB};
use revm_inspectors::tracing::{DebugInspector, TransactionContext};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Rpc;
use super::message::{Answer, Error, answer};
use super::params::{Params, argument};
use super::read::{failed, unknown};
use super::trial::{Ground, Watch, refused};
use crate::Block;

/// One transaction's trace among those of its block.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Traced {
    tx_hash: B256,
    result: Box<RawValue>,
}

impl Rpc {
    /// `[block]`
    pub(super) fn debug_get_raw_header(&self, params: &Params<'_>) -> Answer {
        let id = params.required(0)?;
        let header = self.header(id)?.ok_or_else(|| unknown(id))?;
        answer(&Bytes::from(alloy_rlp::encode(header.inner())))
    }

    /// `[block]`
    pub(super) fn debug_get_raw_block(&self, params: &Params<'_>) -> Answer {
        let id = params.required(0)?;
        let block = self.block(id)?.ok_or_else(|| unknown(id))?;
        answer(&Bytes::from(block.encode()))
    }

    /// `[block]`
    pub(super) fn debug_get_raw_receipts(&self, params: &Params<'_>) -> Answer {
        let id = params.required(0)?;
        let number = self.number_of(id)?.ok_or_else(|| unknown(id))?;
        let receipts = self.receipts(number)?;
        let raw = receipts.iter().map(|receipt| Bytes::from(receipt.encoded_2718()));
        answer(&raw.collect::<Vec<_>>())
    }

    /// `[hash]`
    pub(super) fn debug_get_raw_transaction(&self, params: &Params<'_>) -> Answer {
        answer(&self.raw_transaction(&params.hash(0)?)?)
    }

    /// `[hash, options]`
    pub(super) fn debug_trace_transaction(&self, params: &Params<'_>) -> Answer {
        let hash = params.hash(0)?;
        let options = params.optional(1)?.unwrap_or_default();
        let (block, index) =
            self.place(&hash)?.ok_or_else(|| Error::Failed("transaction not found".into()))?;
        let mut replay = Replay::new(self, &block)?;
        replay.skip_to(index)?;
        let mut tracer = Tracer::new(self, options)?;
        replay.trace(&mut tracer, index)
    }

    /// `[block, options]`
    pub(super) fn debug_trace_block_by_number(&self, params: &Params<'_>) -> Answer {
        self.trace_block(params.height(0)?.into(), params)
    }

    /// `[hash, options]`
    pub(super) fn debug_trace_block_by_hash(&self, params: &Params<'_>) -> Answer {
        self.trace_block(params.hash(0)?.into(), params)
    }

    fn trace_block(&self, id: BlockId, params: &Params<'_>) -> Answer {
        let options = params.optional(1)?.unwrap_or_default();
        let block = self.block(id)?.ok_or_else(|| unknown(id))?;
        let mut replay = Replay::new(self, &block)?;
        let mut tracer = Tracer::new(self, options)?;
        let bytes_max = self.limits().answer_bytes_max;
        let (mut traces, mut bytes) = (Vec::new(), 0);
        for (index, transaction) in block.transactions.iter().enumerate() {
            let result = replay.trace(&mut tracer, index)?;
            bytes += result.get().len();
            if bytes > bytes_max {
                return Err(Error::Long { bytes_max });
            }
            traces.push(Traced { tx_hash: *transaction.tx_hash(), result });
        }
        answer(&traces)
    }

    /// `[call, block, options]`
    pub(super) fn debug_trace_call(&self, params: &Params<'_>) -> Answer {
        let request: TransactionRequest = params.required(0)?;
        let at = self.at(params.block(1)?)?;
        let options: GethDebugTracingCallOptions = params.optional(2)?.unwrap_or_default();
        if options.tx_index.is_some() {
            return Err(argument(2, "a call is traced at the end of a block only"));
        }
        let block = options.block_overrides.map(Box::new);
        let overrides = EvmOverrides::new(options.state_overrides, block);
        let mut trial = self.trial_at(&at, request, overrides)?;
        let Tracer { inspector, watch } = Tracer::new(self, options.tracing_options)?;
        let (result, mut inspector) = trial.run_with(inspector, watch)?;
        let (transaction, env) = (&trial.transaction, &trial.env);
        tell(&mut inspector, None, transaction, env, &result, &mut trial.ground)
    }
}

/// A tracer, and what ends it.
struct Tracer {
    inspector: DebugInspector,
    watch: Watch,
}

impl Tracer {
    fn new(rpc: &Rpc, options: GethDebugTracingOptions) -> Result<Self, Error> {
        let limits = rpc.limits();
        let memory = options.config.enable_memory.unwrap_or(false);
        let steps = options.tracer.as_ref().is_none_or(|tracer| tracer.as_str().is_empty());
        let watch =
            Watch::traced(limits.deadline(), limits.trace_bytes_max, steps || memory, memory);
        let inspector = DebugInspector::new(options).map_err(|error| argument(1, error))?;
        Ok(Self { inspector, watch })
    }
}

/// A block of the past, run again.
struct Replay<'a> {
    rpc: &'a Rpc,
    block: &'a Block,
    env: EvmEnv,
    ground: Ground,
    deadline: Instant,
}

impl<'a> Replay<'a> {
    /// Begins with the state before the first transaction.
    fn new(rpc: &'a Rpc, block: &'a Block) -> Result<Self, Error> {
        let Some(before) = block.number().checked_sub(1) else {
            return Err(Error::Failed("genesis is not traceable".into()));
        };
        let parent = rpc.chain().parent(before).map_err(failed)?;
        let executor = rpc.chain().executor();
        let env = executor.env(&block.header);
        let mut ground = CacheDB::new(parent.view());
        let mut evm = executor.evm(&mut ground, env.clone());
        SystemCaller::new(executor.spec().clone())
            .apply_pre_execution_changes(block.header.inner(), &mut evm)
            .map_err(|error| Error::Internal(error.to_string()))?;
        drop(evm);
        Ok(Self { rpc, block, env, ground, deadline: rpc.limits().deadline() })
    }

    /// Runs the transactions before `index`.
    fn skip_to(&mut self, index: usize) -> Result<(), Error> {
        let executor = self.rpc.chain().executor();
        let mut evm = executor.evm(&mut self.ground, self.env.clone());
        for transaction in self.block.transactions.iter().take(index) {
            if Instant::now() >= self.deadline {
                let reason = "the transactions before this one take too long to run again";
                return Err(Error::Limit(reason.into()));
            }
            let environment: TxEnv = transaction.to_tx_env();
            let ran = evm.transact_raw(environment).map_err(refused)?;
            evm.db_mut().commit(ran.state);
        }
        Ok(())
    }

    /// Runs the transaction at `index`, the next one, under `tracer`.
    fn trace(&mut self, tracer: &mut Tracer, index: usize) -> Result<Box<RawValue>, Error> {
        let transaction = self.block.transactions.get(index);
        let transaction =
            transaction.ok_or_else(|| Error::Failed("transaction not found".into()))?;
        tracer.inspector.fuse().map_err(|error| Error::Internal(error.to_string()))?;
        let environment: TxEnv = transaction.to_tx_env();
        let executor = self.rpc.chain().executor();
        let inspectors = (&mut tracer.inspector, &mut tracer.watch);
        let mut evm = executor.inspected(&mut self.ground, self.env.clone(), inspectors);
        let ran = evm.transact_raw(environment.clone());
        drop(evm);
        tracer.watch.judge()?;
        let ran = ran.map_err(refused)?;
        let context = TransactionContext {
            block_hash: Some(self.block.hash()),
            tx_index: Some(index),
            tx_hash: Some(*transaction.tx_hash()),
        };
        let inspector = &mut tracer.inspector;
        let told = tell(inspector, Some(context), &environment, &self.env, &ran, &mut self.ground)?;
        self.ground.commit(ran.state);
        Ok(told)
    }
}

/// The text of what a tracer saw.
fn tell(
    inspector: &mut DebugInspector,
    context: Option<TransactionContext>,
    transaction: &TxEnv,
    env: &EvmEnv,
    ran: &ResultAndState,
    ground: &mut Ground,
) -> Answer {
    let mut trace = inspector
        .get_result(context, transaction, &env.block_env, ran, ground)
        .map_err(|error| Error::Internal(error.to_string()))?;
    if let GethTrace::Default(frame) = &mut trace {
        frame.struct_logs.iter_mut().for_each(leave_out_nothing);
    }
    answer(&trace)
}

/// A step does not tell of what there is none.
fn leave_out_nothing(step: &mut StructLog) {
    step.memory.take_if(|memory| memory.is_empty());
    step.return_data.take_if(|data| data.is_empty());
    step.refund_counter.take_if(|refund| *refund == 0);
}
