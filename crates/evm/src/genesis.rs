//! The start of a chain: its rules and the state of block 0, in the form of geth's `genesis.json`.
//!
//! Contracts can stand in it as if they had been deployed: [`Genesis::enact`] runs their deployment
//! on the genesis state and keeps what it leaves, at the addresses it would have had.

use std::borrow::Cow;
use std::collections::BTreeMap;

use alloy_consensus::{EMPTY_OMMER_ROOT_HASH, Header};
use alloy_eips::eip1559::INITIAL_BASE_FEE;
use alloy_eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy_evm::Evm as _;
use alloy_genesis::GenesisAccount;
use alloy_hardforks::EthereumHardfork;
use alloy_primitives::{Address, B64, B256, Bytes, KECCAK256_EMPTY, TxKind, U256, keccak256};
use alloy_trie::EMPTY_ROOT_HASH;
use revm::DatabaseCommit;
use revm::context::TxEnv;
use revm::context::result::ExecutionResult;
use serde_json::value::RawValue;

use crate::execute::Executor;
use crate::overlay::Overlay;
use crate::predeploys;
use crate::spec::{Spec, latest_config};
use crate::state::{Account, AccountChange, Changes, State};
use crate::view::{Hashes, View};

/// The gas limit of block 0 of a new chain: room for 10,000 token transfers and more.
pub const GAS_LIMIT: u64 = 600_000_000;

/// What a JSON object says, by name, unread.
type Fields<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// What a chain starts from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Genesis(pub alloy_genesis::Genesis);

/// A call that [`Genesis::enact`] makes: nothing is paid for gas, and no signature is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Who calls; its nonce counts up as with any transaction.
    pub from: Address,
    /// Whom; `None` deploys `data`.
    pub to: Option<Address>,
    /// In wei; `from` must have it.
    pub value: U256,
    /// Call data, or the code that deploys.
    pub data: Bytes,
}

/// What came of a [`Call`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The contract it deployed.
    pub created: Option<Address>,
    /// What it returned.
    pub output: Bytes,
}

/// Why a genesis cannot be used or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// Not in the form of geth's `genesis.json`.
    #[error("not a genesis file: {0}")]
    Json(String),
    /// No chain id stands in it: none is taken for granted, least of all Ethereum's.
    #[error("the genesis file says no config.chainId")]
    ChainId,
    /// No transaction fits into a block.
    #[error("the genesis file says no gasLimit, or 0")]
    GasLimit,
    /// A call of [`Genesis::enact`] reverted or ran out of gas.
    #[error("call {index} on the genesis state fails: {reason}")]
    Call {
        /// Its position in the list.
        index: usize,
        /// What it said, as text where it can be read as such.
        reason: String,
    },
}

impl Genesis {
    /// A new chain with every fork through Osaka, these accounts' balances (in wei) and the
    /// contracts that chains are expected to have ([`crate::predeploys`]); more can be added to
    /// `alloc`. Its time is 0, so the same arguments give the same chain on every machine.
    pub fn development(chain_id: u64, funded: &[(Address, U256)]) -> Self {
        let mut alloc = predeploys::accounts();
        for (address, balance) in funded {
            alloc.entry(*address).or_default().balance = *balance;
        }
        Self(alloy_genesis::Genesis {
            config: latest_config(chain_id),
            gas_limit: GAS_LIMIT,
            alloc,
            ..alloy_genesis::Genesis::default()
        })
    }

    /// Reads geth's `genesis.json`.
    ///
    /// # Errors
    /// [`GenesisError::Json`], which says where; [`GenesisError::ChainId`] and
    /// [`GenesisError::GasLimit`] where the file leaves them out.
    pub fn from_json(json: &[u8]) -> Result<Self, GenesisError> {
        let read = |error: serde_json::Error| GenesisError::Json(error.to_string());
        let file: alloy_genesis::Genesis = serde_json::from_slice(json).map_err(read)?;
        // Above, what is left out has Ethereum's value.
        let said: Fields<'_> = serde_json::from_slice(json).map_err(read)?;
        let config = said.get("config").ok_or(GenesisError::ChainId)?;
        let config: Fields<'_> = serde_json::from_str(config.get()).map_err(read)?;
        if config.get("chainId").is_none_or(|id| id.get() == "null") {
            return Err(GenesisError::ChainId);
        }
        match file.gas_limit {
            0 => Err(GenesisError::GasLimit),
            _ => Ok(Self(file)),
        }
    }

    /// The chain's rules.
    pub fn spec(&self) -> Spec {
        Spec::new(self.0.config.clone())
    }

    /// Everything that block 0 writes. Empty accounts stay, as they do in other clients.
    pub fn changes(&self) -> Changes {
        let mut codes = BTreeMap::new();
        let mut accounts = BTreeMap::new();
        for (address, account) in &self.0.alloc {
            let code = account.non_empty_code();
            let code_hash = code.map_or(KECCAK256_EMPTY, keccak256);
            if let Some(code) = code {
                codes.insert(code_hash, code.clone());
            }
            let slots = account.storage_slots().map(|(slot, value)| (slot.into(), value)).collect();
            let nonce = account.nonce.unwrap_or_default();
            let account = Account { nonce, balance: account.balance, code_hash };
            let change = AccountChange { account: Some(account), wiped: false, slots };
            accounts.insert(*address, change);
        }
        Changes { accounts, codes, keep_empty: true }
    }

    /// Block 0, the state after it, and what made that state.
    pub fn block(&self) -> (Header, State, Changes) {
        let changes = self.changes();
        let state = State::default().apply(&changes);
        (self.header(state.root()), state, changes)
    }

    fn header(&self, state_root: B256) -> Header {
        let file = &self.0;
        let spec = self.spec();
        let number = file.number.unwrap_or_default();
        let since = |fork| spec.active(fork, number, file.timestamp);
        let base_fee = file.base_fee_per_gas.and_then(|fee| u64::try_from(fee).ok());
        let cancun = since(EthereumHardfork::Cancun);
        Header {
            parent_hash: file.parent_hash.unwrap_or_default(),
            ommers_hash: EMPTY_OMMER_ROOT_HASH,
            beneficiary: file.coinbase,
            state_root,
            transactions_root: EMPTY_ROOT_HASH,
            receipts_root: EMPTY_ROOT_HASH,
            difficulty: file.difficulty,
            number,
            gas_limit: file.gas_limit,
            timestamp: file.timestamp,
            extra_data: file.extra_data.clone(),
            mix_hash: file.mix_hash,
            nonce: B64::from(file.nonce),
            base_fee_per_gas: since(EthereumHardfork::London)
                .then(|| base_fee.unwrap_or(INITIAL_BASE_FEE)),
            withdrawals_root: since(EthereumHardfork::Shanghai).then_some(EMPTY_ROOT_HASH),
            blob_gas_used: cancun.then(|| file.blob_gas_used.unwrap_or_default()),
            excess_blob_gas: cancun.then(|| file.excess_blob_gas.unwrap_or_default()),
            parent_beacon_block_root: cancun.then_some(B256::ZERO),
            requests_hash: since(EthereumHardfork::Prague).then_some(EMPTY_REQUESTS_HASH),
            ..Header::default()
        }
    }

    /// Runs `calls` on the genesis state, in order, and keeps what they leave.
    ///
    /// Gas is free and without a limit; the block they see is block 0.
    ///
    /// # Errors
    /// [`GenesisError::Call`] at the first that does not succeed.
    pub fn enact(&self, calls: &[Call]) -> Result<(Self, Vec<Outcome>), GenesisError> {
        let (header, state, _) = self.block();
        let executor = Executor::new(self.spec());
        let mut env = executor.env(&header);
        env.block_env.basefee = 0;
        env.block_env.gas_limit = u64::MAX;
        env.cfg_env.tx_gas_limit_cap = Some(u64::MAX);
        let hashes = Hashes::new(header.number, [header.hash_slow()]);
        let mut evm = executor.evm(Overlay::new(View::new(state, hashes)), env);

        let mut outcomes = Vec::with_capacity(calls.len());
        for (index, call) in calls.iter().enumerate() {
            let failed = |reason| GenesisError::Call { index, reason };
            let nonce = match revm::Database::basic(evm.db_mut(), call.from) {
                Ok(account) => account.map_or(0, |account| account.nonce),
                Err(never) => match never {},
            };
            let outcome = evm
                .transact_raw(call.transaction(nonce, self.0.config.chain_id))
                .map_err(|error| failed(error.to_string()))?;
            outcomes.push(succeeded(outcome.result).map_err(failed)?);
            evm.db_mut().commit(outcome.state);
        }
        let changes = evm.into_db().changes();
        let mut genesis = self.clone();
        fold(&mut genesis.0.alloc, &changes);
        Ok((genesis, outcomes))
    }
}

impl Call {
    fn transaction(&self, nonce: u64, chain_id: u64) -> TxEnv {
        TxEnv {
            caller: self.from,
            kind: self.to.map_or(TxKind::Create, TxKind::Call),
            value: self.value,
            data: self.data.clone(),
            nonce,
            gas_limit: u64::MAX,
            gas_price: 0,
            chain_id: Some(chain_id),
            ..TxEnv::default()
        }
    }
}

fn succeeded(result: ExecutionResult) -> Result<Outcome, String> {
    match result {
        ExecutionResult::Success { output, .. } => {
            Ok(Outcome { created: output.address().copied(), output: output.into_data() })
        }
        ExecutionResult::Revert { output, .. } => Err(match revert_text(&output) {
            Some(text) => format!("reverted: {text}"),
            None => format!("reverted: {output}"),
        }),
        ExecutionResult::Halt { reason, .. } => Err(format!("halted: {reason:?}")),
    }
}

/// The text of `require(…, "text")`: a selector, an offset, a length and the bytes.
fn revert_text(output: &[u8]) -> Option<&str> {
    const SELECTOR: [u8; 4] = [0x08, 0xc3, 0x79, 0xa0];
    let body = output.strip_prefix(&SELECTOR)?;
    let length = usize::try_from(U256::from_be_slice(body.get(32..64)?)).ok()?;
    str::from_utf8(body.get(64..)?.get(..length)?).ok()
}

/// Writes `changes` into a genesis file's accounts.
fn fold(alloc: &mut BTreeMap<Address, GenesisAccount>, changes: &Changes) {
    for (address, change) in &changes.accounts {
        let Some(account) = change.account else {
            alloc.remove(address);
            continue;
        };
        let entry = alloc.entry(*address).or_default();
        entry.nonce = Some(account.nonce);
        entry.balance = account.balance;
        if let Some(code) = changes.codes.get(&account.code_hash) {
            entry.code = Some(code.clone());
        }
        let storage = entry.storage.get_or_insert_default();
        if change.wiped {
            storage.clear();
        }
        for (slot, value) in &change.slots {
            let slot = B256::from(*slot);
            if value.is_zero() {
                storage.remove(&slot);
            } else {
                storage.insert(slot, B256::from(*value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{address, bytes};

    use super::*;

    const DEPLOYER: Address = address!("0x00000000000000000000000000000000000000de");

    /// Writes 7 to slot 1, then leaves one byte of code.
    const INIT: Bytes = bytes!("6007600155600160005360016000f3");

    fn deploy() -> Call {
        Call { from: DEPLOYER, data: INIT, ..Call::default() }
    }

    #[test]
    fn the_same_arguments_give_the_same_chain() {
        let funded = [(DEPLOYER, U256::from(10))];
        let (header, state, _) = Genesis::development(7, &funded).block();
        let (again, _, _) = Genesis::development(7, &funded).block();
        assert_eq!(header.hash_slow(), again.hash_slow());
        assert_eq!(state.account(&DEPLOYER).map(|account| account.balance), Some(U256::from(10)));
        assert!(state.account(&predeploys::MULTICALL3).is_some());
    }

    #[test]
    fn an_enacted_deployment_stands_where_a_transaction_would_have_put_it() {
        let genesis = Genesis::development(7, &[]);
        let (enacted, outcomes) = genesis.enact(&[deploy(), deploy()]).expect("calls succeed");
        let created: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.created).collect();
        assert_eq!(created, [DEPLOYER.create(0), DEPLOYER.create(1)]);
        let (_, state, _) = enacted.block();
        for contract in created {
            assert_eq!(state.slot(&contract, U256::from(1)), U256::from(7));
            let code_hash = state.account(&contract).expect("it is there").code_hash;
            assert_eq!(code_hash, keccak256([1]));
        }
        assert_eq!(state.account(&DEPLOYER).map(|account| account.nonce), Some(2));
    }

    #[test]
    fn a_call_that_reverts_is_named() {
        let revert = Call { data: bytes!("60006000fd"), ..deploy() };
        let failed = Genesis::development(7, &[]).enact(&[deploy(), revert]);
        let expected = GenesisError::Call { index: 1, reason: "reverted: 0x".into() };
        assert_eq!(failed, Err(expected));
    }

    #[test]
    fn what_is_no_genesis_is_refused() {
        assert!(matches!(Genesis::from_json(b"{\"alloc\":7}"), Err(GenesisError::Json(_))));
        assert!(matches!(Genesis::from_json(b""), Err(GenesisError::Json(_))));
        assert!(matches!(Genesis::from_json(b"[]"), Err(GenesisError::Json(_))));
    }

    #[test]
    fn what_a_genesis_leaves_out_is_not_guessed() {
        for nothing in ["{}", r#"{"config":{}}"#, r#"{"config":{"homesteadBlock":0}}"#] {
            let file = nothing.replacen('{', r#"{"gasLimit":"0x1c9c380","alloc":{},"#, 1);
            let file = file.replace(",}", "}");
            let read = Genesis::from_json(file.as_bytes());
            assert!(matches!(read, Err(GenesisError::ChainId | GenesisError::Json(_))), "{read:?}");
        }
        let file = |limit| {
            let mut file = Genesis::development(7, &[]).0;
            file.gas_limit = limit;
            serde_json::to_vec(&file).expect("a genesis can be written")
        };
        assert_eq!(Genesis::from_json(&file(0)), Err(GenesisError::GasLimit));
        let read = Genesis::from_json(&file(1)).expect("a file that says all");
        assert_eq!(read.0.config.chain_id, 7);
    }
}
