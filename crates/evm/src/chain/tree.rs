//! What of the chain is in memory: the newest finalised blocks, and every unfinalised one.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use alloy_consensus::Header;
use alloy_primitives::{B256, Sealable};

use super::{At, ChainError, Options};
use crate::block::Block;
use crate::execute::{Executed, Parent};
use crate::state::{Changes, State};
use crate::view::Hashes;

/// Finalised blocks oldest first, and the tree above the newest.
#[derive(Debug)]
pub(super) struct Tree {
    finalised: VecDeque<Node>,
    by_hash: HashMap<B256, u64>,
    transactions: HashMap<B256, (u64, usize)>,
    pending: HashMap<B256, Node>,
}

#[derive(Clone, Debug)]
struct Node {
    parent: Arc<Parent>,
    executed: Arc<Executed>,
}

impl Tree {
    pub(super) fn new(header: Header, state: State, changes: Changes) -> Self {
        let header = header.seal_slow();
        let withdrawals = header.withdrawals_root.map(|_| Default::default());
        let hashes = Hashes::new(header.number, [header.hash()]);
        let parent = Parent { header: header.clone(), state: state.clone(), hashes };
        let block = Block { header, transactions: vec![], ommers: vec![], withdrawals };
        let executed =
            Executed { block: Arc::new(block), receipts: Arc::default(), changes, state };
        let by_hash = HashMap::from([(parent.header.hash(), parent.header.number)]);
        let node = Node { parent: Arc::new(parent), executed: Arc::new(executed) };
        Self {
            finalised: VecDeque::from([node]),
            by_hash,
            transactions: HashMap::new(),
            pending: HashMap::new(),
        }
    }

    pub(super) fn head(&self) -> &Arc<Parent> {
        &self.finalised[self.finalised.len() - 1].parent
    }

    fn node(&self, at: At) -> Option<&Node> {
        let number = match at {
            At::Number(number) => number,
            At::Hash(hash) => match self.by_hash.get(&hash) {
                Some(number) => *number,
                None => return self.pending.get(&hash),
            },
        };
        let oldest = self.finalised.front()?.parent.header.number;
        let place = usize::try_from(number.checked_sub(oldest)?).ok()?;
        self.finalised.get(place)
    }

    pub(super) fn parent(&self, at: At) -> Option<Arc<Parent>> {
        self.node(at).map(|node| node.parent.clone())
    }

    pub(super) fn executed(&self, at: At) -> Option<&Arc<Executed>> {
        self.node(at).map(|node| &node.executed)
    }

    pub(super) fn transaction(&self, hash: &B256) -> Option<(Arc<Block>, usize)> {
        let (number, index) = *self.transactions.get(hash)?;
        let executed = self.executed(At::Number(number))?;
        Some((executed.block.clone(), index))
    }

    pub(super) fn insert(
        &mut self,
        executed: Arc<Executed>,
        most: usize,
    ) -> Result<(), ChainError> {
        let header = &executed.block.header;
        let hash = header.hash();
        if self.node(At::Hash(hash)).is_some() {
            return Ok(());
        }
        if self.pending.len() >= most {
            return Err(ChainError::Full { most });
        }
        let at = At::Hash(header.parent_hash);
        let parent = self.parent(at).ok_or(ChainError::Unknown(at))?;
        let parent = Arc::new(parent.child(&executed));
        self.pending.insert(hash, Node { parent, executed });
        Ok(())
    }

    /// The blocks to finalise, those that are final already left out.
    pub(super) fn line(&self, hashes: &[B256]) -> Result<Vec<Arc<Executed>>, ChainError> {
        let mut head = self.head().header.hash();
        let mut line = Vec::new();
        for hash in hashes.iter().filter(|hash| !self.by_hash.contains_key(*hash)) {
            let node = self.pending.get(hash).ok_or(ChainError::Unknown(At::Hash(*hash)))?;
            let parent = node.parent.header.parent_hash;
            if parent != head {
                return Err(ChainError::Fork { parent, head, hash: *hash });
            }
            head = *hash;
            line.push(node.executed.clone());
        }
        Ok(line)
    }

    /// Moves the head along `line`, and drops every pending block that does not descend from it.
    pub(super) fn advance(&mut self, line: &[Arc<Executed>], _options: &Options) {
        for executed in line {
            let Some(node) = self.pending.remove(&executed.block.hash()) else { continue };
            let number = executed.block.number();
            self.by_hash.insert(executed.block.hash(), number);
            for (index, transaction) in executed.block.transactions.iter().enumerate() {
                self.transactions.insert(*transaction.inner().tx_hash(), (number, index));
            }
            self.finalised.push_back(node);
        }
        self.drop_losers();
    }

    fn drop_losers(&mut self) {
        let mut kept = HashSet::from([self.head().header.hash()]);
        let mut headers: Vec<_> =
            self.pending.values().map(|node| node.parent.header.clone()).collect();
        headers.sort_by_key(|header| header.number);
        for header in headers {
            if kept.contains(&header.parent_hash) {
                kept.insert(header.hash());
            } else {
                self.pending.remove(&header.hash());
            }
        }
    }

    pub(super) fn rewind(&mut self, target: &Arc<Parent>) {
        while self.head().header.number > target.header.number {
            let Some(node) = self.finalised.pop_back() else { break };
            self.by_hash.remove(&node.parent.header.hash());
            for transaction in &node.executed.block.transactions {
                self.transactions.remove(transaction.inner().tx_hash());
            }
        }
        self.pending.clear();
    }
}
