//! Blocks and states that are on the disk only.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use alloy_consensus::Header;
use alloy_primitives::{B256, Sealed};

use super::{At, ChainError};
use crate::execute::Parent;
use crate::state::{State, Store, StoreError};
use crate::view::{Hashes, REACH};

/// States of old blocks that were asked for lately; who asks once often asks again.
const REBUILT_MAX: usize = 16;

/// Longest that one question may take to rebuild a state. How far it came is remembered.
const REBUILD_MAX: Duration = Duration::from_secs(5);

/// Rebuilds the states of old blocks, and remembers a few.
#[derive(Debug, Default)]
pub(super) struct Past {
    rebuilt: Mutex<VecDeque<Arc<Parent>>>,
}

impl Past {
    /// The finalised block `number` with the state after it, found by taking back, one by one, the
    /// blocks that came after it; `newer` is where to begin if nothing nearer is remembered.
    pub(super) fn parent(
        &self,
        store: &Store,
        newer: &Arc<Parent>,
        number: u64,
    ) -> Result<Arc<Parent>, ChainError> {
        let Some(header) = store.header(number)? else {
            return Err(ChainError::Unknown(At::Number(number)));
        };
        let from = self.nearest(number).unwrap_or_else(|| newer.clone());
        if from.header.number == number {
            return Ok(from);
        }
        let begun = Instant::now();
        let mut state = from.state.clone();
        let mut reached = from.header.number;
        while reached > number && begun.elapsed() < REBUILD_MAX {
            state = state.apply(&store.undo(reached)?);
            reached -= 1;
        }
        if reached > number {
            let Some(header) = store.header(reached)? else {
                return Err(ChainError::Unknown(At::Number(reached)));
            };
            self.keep(store, header, state)?;
            return Err(ChainError::Far { number, reached });
        }
        self.keep(store, header, state)
    }

    /// Remembers the state after a block, if it is that.
    fn keep(
        &self,
        store: &Store,
        header: Sealed<Header>,
        state: State,
    ) -> Result<Arc<Parent>, ChainError> {
        let (number, found, expected) = (header.number, state.root(), header.state_root);
        if found != expected {
            return Err(StoreError::Root { number, found, expected }.into());
        }
        let hashes = hashes(store, number, header.hash())?;
        let parent = Arc::new(Parent { header, state, hashes });
        self.remember(parent.clone());
        Ok(parent)
    }

    /// Forgets every state above `number`, since the blocks there are no more.
    pub(super) fn rewind(&self, number: u64) {
        self.lock().retain(|parent| parent.header.number <= number);
    }

    fn nearest(&self, number: u64) -> Option<Arc<Parent>> {
        let rebuilt = self.lock();
        let above = rebuilt.iter().filter(|parent| parent.header.number >= number);
        above.min_by_key(|parent| parent.header.number).cloned()
    }

    fn remember(&self, parent: Arc<Parent>) {
        let mut rebuilt = self.lock();
        if rebuilt.len() == REBUILT_MAX {
            rebuilt.pop_front();
        }
        rebuilt.push_back(parent);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<Parent>>> {
        self.rebuilt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hashes that a child of block `number` can ask for, as far back as the store has headers.
pub(super) fn hashes(store: &Store, number: u64, hash: B256) -> Result<Hashes, ChainError> {
    let mut hashes = vec![hash];
    let oldest = number.saturating_sub(REACH as u64 - 1);
    for older in (oldest..number).rev() {
        match store.header(older)? {
            Some(header) => hashes.push(Sealed::hash(&header)),
            None => break,
        }
    }
    Ok(Hashes::new(number, hashes))
}
