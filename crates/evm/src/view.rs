//! What a transaction sees: the state after one block, and the hashes of the blocks up to it.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use alloy_primitives::{Address, B256, U256};
use revm::bytecode::Bytecode;
use revm::state::AccountInfo;
use revm::{Database, DatabaseRef};

use crate::state::{Account, State};

/// How many blocks back `BLOCKHASH` answers.
pub(crate) const REACH: usize = 256;

/// The hashes of the newest 256 blocks of one branch. Cheap to clone; a child's copy is 8 KiB.
#[derive(Clone, Debug)]
pub struct Hashes {
    newest: u64,
    /// Newest first, at least one.
    hashes: Arc<[B256]>,
}

impl Hashes {
    /// Of a branch whose newest block is `newest`; `hashes` are newest first, and those past the
    /// 256th are dropped.
    pub fn new(newest: u64, hashes: impl IntoIterator<Item = B256>) -> Self {
        Self { newest, hashes: hashes.into_iter().take(REACH).collect() }
    }

    /// Of the branch that a block with this hash continues.
    #[must_use]
    pub fn child(&self, hash: B256) -> Self {
        let older = self.hashes.iter().copied();
        Self::new(self.newest.saturating_add(1), std::iter::once(hash).chain(older))
    }

    /// The hash of block `number`, if it is one of these.
    pub fn get(&self, number: u64) -> Option<B256> {
        let back = usize::try_from(self.newest.checked_sub(number)?).ok()?;
        self.hashes.get(back).copied()
    }
}

/// The state after a block, in the form that the EVM reads. Cheap to clone; never fails.
#[derive(Clone)]
pub struct View {
    state: State,
    hashes: Hashes,
}

impl View {
    /// Joins a state and the hashes of the branch it stands on.
    pub fn new(state: State, hashes: Hashes) -> Self {
        Self { state, hashes }
    }

    /// The state that is read.
    pub fn state(&self) -> &State {
        &self.state
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("newest", &self.hashes.newest).finish_non_exhaustive()
    }
}

impl DatabaseRef for View {
    type Error = Infallible;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, Infallible> {
        Ok(self.state.account(&address).map(info))
    }

    fn code_by_hash_ref(&self, code_hash: B256) -> Result<Bytecode, Infallible> {
        Ok(self.state.code(&code_hash).unwrap_or_default())
    }

    fn storage_ref(&self, address: Address, index: U256) -> Result<U256, Infallible> {
        Ok(self.state.slot(&address, index))
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, Infallible> {
        Ok(self.hashes.get(number).unwrap_or_default())
    }
}

impl Database for View {
    type Error = Infallible;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, Infallible> {
        self.basic_ref(address)
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, Infallible> {
        self.code_by_hash_ref(code_hash)
    }

    fn storage(&mut self, address: Address, index: U256) -> Result<U256, Infallible> {
        self.storage_ref(address, index)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, Infallible> {
        self.block_hash_ref(number)
    }
}

/// An account as the EVM wants it. Its code is fetched by hash when it is first run.
pub(crate) fn info(account: Account) -> AccountInfo {
    AccountInfo {
        balance: account.balance,
        nonce: account.nonce,
        code_hash: account.code_hash,
        code: None,
        ..AccountInfo::default()
    }
}
