//! Runs blocks: builds new ones from candidates, and judges those that others built.
//!
//! Both ways end in [`Executed`], and both go through the same steps (the system calls before, the
//! transactions in order, the system calls after), so what one node builds another finds valid.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use alloy_consensus::{
    EMPTY_OMMER_ROOT_HASH, Eip658Value, Header, Transaction as _, TxReceipt, proofs,
    transaction::TxHashRef,
};
use alloy_eips::eip4895::Withdrawals;
use alloy_eips::eip7685::Requests;
use alloy_evm::block::{BlockExecutionError, BlockExecutor, BlockValidationError};
use alloy_evm::eth::receipt_builder::AlloyReceiptBuilder;
use alloy_evm::eth::{
    EthBlockExecutionCtx, EthBlockExecutor, EthEvm, EthEvmBuilder, EthEvmContext,
};
use alloy_evm::precompiles::{DynPrecompile, PrecompileInput, PrecompilesMap};
use alloy_evm::{Evm as _, EvmEnv};
use alloy_hardforks::EthereumHardfork;
use alloy_primitives::map::AddressSet;
use alloy_primitives::{Address, B256, Bloom, Bytes, Sealable, Sealed};
use alloy_rlp::Encodable;
use revm::Inspector;
use revm::context::result::InvalidTransaction;
use revm::inspector::NoOpInspector;
use revm::precompile::{PrecompileId, PrecompileResult, PrecompileSpecId, Precompiles};

use crate::block::{Block, Receipt, Transaction};
use crate::overlay::Overlay;
use crate::rules::{self, BLOCK_BYTES_MAX, BlockError, Commitment};
use crate::spec::Spec;
use crate::state::{Changes, State};
use crate::view::{Hashes, View};

/// What [`Executor::evm`] gives: Ethereum's machine over the database and inspector of your choice.
pub type Evm<DB, I = NoOpInspector> = EthEvm<DB, I, PrecompilesMap>;

/// How much gas the cheapest transaction takes.
const GAS_TRANSACTION_MIN: u64 = 21_000;

/// How many candidates in a row may find no room before a block counts as full.
const MISSES_MAX: usize = 64;

/// What the header, the list of no withdrawals and the lists' prefixes take in an encoded block.
const BLOCK_OVERHEAD_BYTES: usize = 2 << 10;

/// A block that others can be built on.
#[derive(Clone)]
pub struct Parent {
    /// Its header and hash.
    pub header: Sealed<Header>,
    /// The state after it.
    pub state: State,
    /// The hashes of it and of those before it.
    pub hashes: Hashes,
}

impl Parent {
    /// What a transaction on top of this block reads.
    pub fn view(&self) -> View {
        View::new(self.state.clone(), self.hashes.clone())
    }

    /// The block that `executed`, a child of this one, becomes.
    #[must_use]
    pub fn child(&self, executed: &Executed) -> Self {
        Self {
            header: executed.block.header.clone(),
            state: executed.state.clone(),
            hashes: self.hashes.child(executed.block.hash()),
        }
    }
}

impl fmt::Debug for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parent").field("header", &self.header).finish_non_exhaustive()
    }
}

/// What a proposer decides about the block it builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Seconds since 1970; not before the parent's.
    pub timestamp: u64,
    /// Who gets the fees.
    pub beneficiary: Address,
    /// The gas limit to move toward. A block may differ from its parent by less than 1/1024, so
    /// this is reached over many blocks if it is far away.
    pub gas_limit: u64,
    /// What `PREVRANDAO` gives.
    pub prev_randao: B256,
    /// What the contract of EIP-4788 remembers for this time.
    pub parent_beacon_root: B256,
    /// At most 32 bytes of the proposer's choice.
    pub extra_data: Bytes,
}

/// A block together with everything that running it gave.
#[derive(Clone)]
pub struct Executed {
    /// The block.
    pub block: Arc<Block>,
    /// One per transaction.
    pub receipts: Arc<Vec<Receipt>>,
    /// What it wrote, net.
    pub changes: Changes,
    /// The state after it.
    pub state: State,
}

impl fmt::Debug for Executed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executed")
            .field("header", &self.block.header)
            .field("transactions", &self.block.transactions.len())
            .finish_non_exhaustive()
    }
}

/// A block of one's own, and the candidates that can never enter it.
#[derive(Clone, Debug)]
pub struct Built {
    /// The block.
    pub executed: Executed,
    /// Candidates that are void on this parent, by hash. Those that merely found no room, or follow
    /// one of their sender that did, are not among them.
    pub refused: Vec<(B256, Refusal)>,
}

/// Why a transaction may not stand in a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The EVM's rules forbid it: nonce, balance, fees, gas, or a kind this fork does not know.
    #[error("{0}")]
    Invalid(InvalidTransaction),
    /// Its gas limit exceeds what the block has left.
    #[error("gas limit {gas_limit} exceeds the {left} left in the block")]
    Room {
        /// The transaction's gas limit.
        gas_limit: u64,
        /// What the block has left.
        left: u64,
    },
    /// Its blobs exceed what the block has left.
    #[error("blob gas {blob_gas} exceeds the {left} left in the block")]
    Blobs {
        /// The transaction's blob gas.
        blob_gas: u64,
        /// What the block has left.
        left: u64,
    },
    /// A precompile of this chain gave up.
    #[error("the machine failed: {0}")]
    Machine(String),
}

/// Why no block could be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The attributes do not fit the parent.
    #[error(transparent)]
    Attributes(BlockError),
    /// A system contract failed.
    #[error("the block's system calls fail: {0}")]
    System(String),
}

/// Runs blocks by one chain's rules. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Executor {
    spec: Spec,
    precompiles: Arc<[Precompile]>,
}

/// A contract that this chain has built in beside Ethereum's. Cheap to clone.
#[derive(Clone)]
pub struct Precompile {
    address: Address,
    id: PrecompileId,
    run: Arc<Run>,
}

type Run = dyn Fn(PrecompileInput<'_>) -> PrecompileResult + Send + Sync;

impl Precompile {
    /// A precompile at `address`. `run` must give the same output for the same input on every
    /// node, and say in its output how much gas it took.
    pub fn new(
        address: Address,
        name: &'static str,
        run: impl Fn(PrecompileInput<'_>) -> PrecompileResult + Send + Sync + 'static,
    ) -> Self {
        Self { address, id: PrecompileId::custom(name), run: Arc::new(run) }
    }
}

impl fmt::Debug for Precompile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Precompile").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Executor {
    /// An executor of Ethereum's rules alone.
    pub fn new(spec: Spec) -> Self {
        Self::with_precompiles(spec, [])
    }

    /// An executor that also knows these precompiles; every node of the chain must have the same.
    pub fn with_precompiles(spec: Spec, precompiles: impl IntoIterator<Item = Precompile>) -> Self {
        Self { spec, precompiles: precompiles.into_iter().collect() }
    }

    /// The chain's rules.
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// The precompiles this chain has beside Ethereum's.
    pub fn precompiles(&self) -> impl Iterator<Item = &Address> {
        self.precompiles.iter().map(|precompile| &precompile.address)
    }

    /// What code sees of the block with this header, and the rules in force there.
    pub fn env(&self, header: &Header) -> EvmEnv {
        let blobs = self.spec.blob_params(header.timestamp);
        EvmEnv::for_eth_block(header, &self.spec, self.spec.chain_id(), blobs)
    }

    /// A machine for calls: nothing is paid for or kept but what the caller asks for through `env`
    /// and `db`.
    pub fn evm<DB: alloy_evm::Database>(&self, db: DB, env: EvmEnv) -> Evm<DB> {
        let precompiles = self.precompile_map(&env);
        EthEvmBuilder::new(db, env).precompiles(precompiles).build()
    }

    /// As [`Executor::evm`], watched by `inspector`.
    pub fn inspected<DB, I>(&self, db: DB, env: EvmEnv, inspector: I) -> Evm<DB, I>
    where
        DB: alloy_evm::Database,
        I: Inspector<EthEvmContext<DB>>,
    {
        let precompiles = self.precompile_map(&env);
        EthEvmBuilder::new(db, env).activate_inspector(inspector).precompiles(precompiles).build()
    }

    fn precompile_map(&self, env: &EvmEnv) -> PrecompilesMap {
        let ethereum = Precompiles::new(PrecompileSpecId::from_spec_id(env.cfg_env.spec));
        let mut map = PrecompilesMap::from_static(ethereum);
        if !self.precompiles.is_empty() {
            map.extend_precompiles(self.precompiles.iter().map(|precompile| {
                let run = precompile.run.clone();
                let dynamic = DynPrecompile::new(precompile.id.clone(), move |input| run(input));
                (precompile.address, dynamic)
            }));
        }
        map
    }

    /// The header of the next block as far as it is known before its transactions are: what a call
    /// on the pending block sees.
    pub fn next_header(
        &self,
        parent: &Header,
        parent_hash: B256,
        attributes: &Attributes,
    ) -> Header {
        let timestamp = attributes.timestamp;
        let number = parent.number.saturating_add(1);
        let since = |fork| self.spec.active(fork, number, timestamp);
        let blobs = self.spec.blob_params(timestamp);
        let excess_blob_gas =
            blobs.map(|params| parent.next_block_excess_blob_gas(params).unwrap_or(0));
        Header {
            parent_hash,
            ommers_hash: EMPTY_OMMER_ROOT_HASH,
            beneficiary: attributes.beneficiary,
            number,
            gas_limit: rules::gas_limit_toward(&self.spec, parent, timestamp, attributes.gas_limit),
            timestamp,
            extra_data: attributes.extra_data.clone(),
            mix_hash: attributes.prev_randao,
            base_fee_per_gas: self.spec.base_fee_after(parent, timestamp),
            withdrawals_root: since(EthereumHardfork::Shanghai)
                .then(|| proofs::calculate_withdrawals_root(&[])),
            blob_gas_used: blobs.map(|_| 0),
            excess_blob_gas,
            parent_beacon_block_root: since(EthereumHardfork::Cancun)
                .then_some(attributes.parent_beacon_root),
            requests_hash: since(EthereumHardfork::Prague)
                .then(|| Requests::default().requests_hash()),
            ..Header::default()
        }
    }

    /// Builds a block on `parent` from `candidates`, in their order, until it is full, they end, or
    /// `stop` says so (it is asked before each one).
    ///
    /// Candidates that fit no longer are passed over, and with them all later ones of their sender.
    ///
    /// # Errors
    /// [`BuildError::Attributes`] if the attributes cannot follow `parent`;
    /// [`BuildError::System`] if a system contract fails, as happens when genesis lacks one.
    pub fn build(
        &self,
        parent: &Parent,
        attributes: &Attributes,
        candidates: impl IntoIterator<Item = Transaction>,
        stop: impl Fn() -> bool,
    ) -> Result<Built, BuildError> {
        let mut header = self.next_header(&parent.header, parent.header.hash(), attributes);
        rules::check(&self.spec, &parent.header, &header).map_err(BuildError::Attributes)?;
        let withdrawals = header.withdrawals_root.map(|_| Withdrawals::default());
        let mut run = Running::start(self, parent, &header, &[], withdrawals.as_ref())
            .map_err(|failed| BuildError::System(failed.to_string()))?;
        let picked = pick(&mut run, candidates, stop);
        let Finished { receipts, overlay, gas_used, blob_gas_used, requests } =
            run.finish().map_err(|failed| BuildError::System(failed.to_string()))?;

        let changes = overlay.changes();
        let state = parent.state.apply(&changes);
        let roots = Roots::of(&state, &picked.transactions, &receipts);
        header.state_root = roots.state;
        header.transactions_root = roots.transactions;
        header.receipts_root = roots.receipts;
        header.logs_bloom = roots.bloom;
        header.gas_used = gas_used;
        header.blob_gas_used = header.blob_gas_used.map(|_| blob_gas_used);
        header.requests_hash = header.requests_hash.map(|_| requests.requests_hash());
        let block = Block {
            header: header.seal_slow(),
            transactions: picked.transactions,
            ommers: Vec::new(),
            withdrawals,
        };
        let executed =
            Executed { block: Arc::new(block), receipts: Arc::new(receipts), changes, state };
        Ok(Built { executed, refused: picked.refused })
    }

    /// Judges `block` as a child of `parent`: every rule of the header and every root.
    ///
    /// # Errors
    /// The first rule that it breaks, with what was found and what was expected.
    pub fn validate(&self, parent: &Parent, block: Block) -> Result<Executed, BlockError> {
        let header = &block.header;
        rules::check(&self.spec, &parent.header, header)?;
        self.check_body(&block)?;
        let mut run =
            Running::start(self, parent, header, &block.ommers, block.withdrawals.as_ref())
                .map_err(|failed| BlockError::System(failed.to_string()))?;
        // Until Byzantium a receipt named the state after its transaction, not its success.
        let names_state = !self.spec.active_at(EthereumHardfork::Byzantium, header);
        for (index, transaction) in block.transactions.iter().enumerate() {
            run.execute(transaction).map_err(|refusal| BlockError::Transaction {
                index,
                refusal,
                hash: *transaction.tx_hash(),
            })?;
            if names_state {
                run.name_state(&parent.state);
            }
        }
        let Finished { receipts, overlay, gas_used, blob_gas_used, requests } =
            run.finish().map_err(|failed| BlockError::System(failed.to_string()))?;

        if header.gas_used != gas_used {
            return Err(BlockError::GasUsed { found: header.gas_used, expected: gas_used });
        }
        let expected = header.blob_gas_used.map(|_| blob_gas_used);
        if header.blob_gas_used != expected {
            return Err(BlockError::BlobGas { found: header.blob_gas_used, expected });
        }
        if let Some(found) = header.requests_hash {
            same(Commitment::Requests, found, requests.requests_hash())?;
        }
        let changes = overlay.changes();
        let state = parent.state.apply(&changes);
        let roots = Roots::of(&state, &block.transactions, &receipts);
        same(Commitment::Transactions, header.transactions_root, roots.transactions)?;
        same(Commitment::Receipts, header.receipts_root, roots.receipts)?;
        same(Commitment::State, header.state_root, roots.state)?;
        if header.logs_bloom != roots.bloom {
            return Err(BlockError::Bloom);
        }
        Ok(Executed { block: Arc::new(block), receipts: Arc::new(receipts), changes, state })
    }

    fn check_body(&self, block: &Block) -> Result<(), BlockError> {
        let header = &block.header;
        let found = block.encoded_len();
        if self.spec.active_at(EthereumHardfork::Osaka, header) && found > BLOCK_BYTES_MAX {
            return Err(BlockError::Size { found });
        }
        rules::check_ommers(header.number, &block.ommers)?;
        let ommers = proofs::calculate_ommers_root(&block.ommers);
        same(Commitment::Ommers, header.ommers_hash, ommers)?;
        match (&block.withdrawals, header.withdrawals_root) {
            (None, None) => Ok(()),
            (Some(withdrawals), Some(found)) => {
                let expected = proofs::calculate_withdrawals_root(withdrawals);
                same(Commitment::Withdrawals, found, expected)
            }
            (_, root) => Err(BlockError::Field { field: "withdrawals", expected: root.is_some() }),
        }
    }
}

fn same(what: Commitment, found: B256, expected: B256) -> Result<(), BlockError> {
    if found == expected { Ok(()) } else { Err(BlockError::Root { what, found, expected }) }
}

/// What a header commits to, computed on all cores.
struct Roots {
    state: B256,
    transactions: B256,
    receipts: B256,
    bloom: Bloom,
}

impl Roots {
    fn of(state: &State, transactions: &[Transaction], receipts: &[Receipt]) -> Self {
        let (state, (transactions, (receipts, bloom))) = rayon::join(
            || state.root(),
            || {
                rayon::join(
                    || proofs::calculate_transaction_root(transactions),
                    || (proofs::calculate_receipt_root(receipts), bloom(receipts)),
                )
            },
        );
        Self { state, transactions, receipts, bloom }
    }
}

fn bloom(receipts: &[Receipt]) -> Bloom {
    receipts.iter().fold(Bloom::ZERO, |bloom, receipt| bloom | receipt.bloom())
}

struct Picked {
    transactions: Vec<Transaction>,
    refused: Vec<(B256, Refusal)>,
}

/// Executes what fits of `candidates`.
fn pick(
    run: &mut Running<'_>,
    candidates: impl IntoIterator<Item = Transaction>,
    stop: impl Fn() -> bool,
) -> Picked {
    let mut picked = Picked { transactions: Vec::new(), refused: Vec::new() };
    // Senders one of whose transactions was left out: those after it would leave a gap in nonces.
    let mut waiting = AddressSet::default();
    let mut bytes = BLOCK_OVERHEAD_BYTES;
    let mut misses = 0;
    for candidate in candidates {
        if misses == MISSES_MAX || run.gas_left() < GAS_TRANSACTION_MIN || stop() {
            break;
        }
        if waiting.contains(&candidate.signer()) {
            continue;
        }
        let length = candidate.inner().length();
        let outcome = if bytes + length > BLOCK_BYTES_MAX {
            Err(None)
        } else {
            run.execute(&candidate).map_err(Some)
        };
        match outcome {
            Ok(()) => {
                bytes += length;
                misses = 0;
                picked.transactions.push(candidate);
            }
            Err(None | Some(Refusal::Room { .. } | Refusal::Blobs { .. })) => {
                misses += 1;
                waiting.insert(candidate.signer());
            }
            Err(Some(refusal)) => {
                waiting.insert(candidate.signer());
                picked.refused.push((*candidate.tx_hash(), refusal));
            }
        }
    }
    picked
}

/// A block in the middle of its execution.
struct Running<'a> {
    executor: EthBlockExecutor<'a, Evm<Overlay>, &'a Spec, AlloyReceiptBuilder>,
    gas_limit: u64,
    blob_gas_max: u64,
}

/// A block after its execution.
struct Finished {
    receipts: Vec<Receipt>,
    overlay: Overlay,
    gas_used: u64,
    blob_gas_used: u64,
    requests: Requests,
}

impl<'a> Running<'a> {
    /// Makes the system calls that come before the transactions.
    fn start(
        executor: &'a Executor,
        parent: &Parent,
        header: &Header,
        ommers: &'a [Header],
        withdrawals: Option<&'a Withdrawals>,
    ) -> Result<Self, BlockExecutionError> {
        let evm = executor.evm(Overlay::new(parent.view()), executor.env(header));
        let context = EthBlockExecutionCtx {
            parent_hash: header.parent_hash,
            parent_beacon_block_root: header.parent_beacon_block_root,
            ommers,
            withdrawals: withdrawals.map(|list| Cow::Borrowed(list.as_slice())),
            extra_data: header.extra_data.clone(),
            tx_count_hint: None,
            slot_number: header.slot_number,
        };
        let receipts = AlloyReceiptBuilder::default();
        let mut run = Self {
            executor: EthBlockExecutor::new(evm, context, &executor.spec, receipts),
            gas_limit: header.gas_limit,
            blob_gas_max: executor
                .spec
                .blob_params(header.timestamp)
                .map_or(0, |params| params.max_blob_gas_per_block()),
        };
        run.executor.apply_pre_execution_changes()?;
        Ok(run)
    }

    fn gas_left(&self) -> u64 {
        self.gas_limit.saturating_sub(self.executor.cumulative_tx_gas_used)
    }

    /// Executes one transaction; a refused one leaves no trace.
    fn execute(&mut self, transaction: &Transaction) -> Result<(), Refusal> {
        if let Some(blob_gas) = transaction.blob_gas_used() {
            let left = self.blob_gas_max.saturating_sub(self.executor.blob_gas_used);
            if blob_gas > left {
                return Err(Refusal::Blobs { blob_gas, left });
            }
        }
        match self.executor.execute_transaction(transaction) {
            Ok(_) => Ok(()),
            Err(error) => Err(refusal(error)),
        }
    }

    /// Writes into the newest receipt the state root after its transaction.
    fn name_state(&mut self, before: &State) {
        let root = before.apply(&self.executor.evm.db().changes()).root();
        if let Some(Receipt::Legacy(receipt)) = self.executor.receipts.last_mut() {
            receipt.receipt.status = Eip658Value::PostState(root);
        }
    }

    /// Makes the system calls that come after the transactions.
    fn finish(self) -> Result<Finished, BlockExecutionError> {
        let (evm, result) = self.executor.finish()?;
        Ok(Finished {
            receipts: result.receipts,
            overlay: evm.into_db(),
            gas_used: result.gas_used,
            blob_gas_used: result.blob_gas_used,
            requests: result.requests,
        })
    }
}

fn refusal(error: BlockExecutionError) -> Refusal {
    match error {
        BlockExecutionError::Validation(BlockValidationError::InvalidTx { error, .. }) => {
            match error.as_invalid_tx_err() {
                Some(invalid) => Refusal::Invalid(invalid.clone()),
                None => Refusal::Machine(error.to_string()),
            }
        }
        BlockExecutionError::Validation(
            BlockValidationError::TransactionGasLimitMoreThanAvailableBlockGas {
                transaction_gas_limit: gas_limit,
                block_available_gas: left,
            },
        ) => Refusal::Room { gas_limit, left },
        other => Refusal::Machine(other.to_string()),
    }
}
