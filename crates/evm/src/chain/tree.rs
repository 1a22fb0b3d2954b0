//! What of the chain is in memory: the newest finalised blocks, and every unfinalised one.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use alloy_primitives::B256;

use super::{At, ChainError, Options};
use crate::execute::{Executed, Parent};

/// Finalised blocks oldest first, and the tree above the newest.
#[derive(Debug)]
pub(super) struct Tree {
    head: Arc<Parent>,
    /// The newest finalised blocks, the head last.
    recent: VecDeque<Node>,
    recent_by_hash: HashMap<B256, u64>,
    /// Transactions in `recent`.
    transactions: usize,
    pending: HashMap<B256, Node>,
}

/// A block with the state after it, and with all of it unless that has gone to make room.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) parent: Arc<Parent>,
    pub(super) executed: Option<Arc<Executed>>,
}

impl Node {
    fn transactions(&self) -> usize {
        self.executed.as_ref().map_or(0, |executed| executed.block.transactions.len())
    }
}

impl Tree {
    /// A tree of the head alone, whose body is on the disk.
    pub(super) fn new(head: Arc<Parent>) -> Self {
        let node = Node { parent: head.clone(), executed: None };
        Self {
            recent_by_hash: HashMap::from([(head.header.hash(), head.header.number)]),
            recent: VecDeque::from([node]),
            head,
            transactions: 0,
            pending: HashMap::new(),
        }
    }

    pub(super) fn head(&self) -> &Arc<Parent> {
        &self.head
    }

    /// The oldest finalised block that is in memory.
    pub(super) fn oldest(&self) -> &Arc<Parent> {
        self.recent.front().map_or(&self.head, |node| &node.parent)
    }

    pub(super) fn node(&self, at: At) -> Option<&Node> {
        let number = match at {
            At::Number(number) => number,
            At::Hash(hash) => match self.recent_by_hash.get(&hash) {
                Some(number) => *number,
                None => return self.pending.get(&hash),
            },
        };
        let back = usize::try_from(number.checked_sub(self.oldest().header.number)?).ok()?;
        self.recent.get(back)
    }

    /// Adds an unfinalised block. One that is known already is no error.
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
        let parent = &self.node(at).ok_or(ChainError::Unknown(at))?.parent;
        if parent.header.number < self.head.header.number {
            let (parent, head) = (header.parent_hash, self.head.header.hash());
            return Err(ChainError::Fork { parent, head, hash });
        }
        let parent = Arc::new(parent.child(&executed));
        self.pending.insert(hash, Node { parent, executed: Some(executed) });
        Ok(())
    }

    /// The blocks to finalise; `done` says which are final already.
    pub(super) fn line(
        &self,
        hashes: &[B256],
        done: impl Fn(&B256) -> Result<bool, ChainError>,
    ) -> Result<Vec<Arc<Executed>>, ChainError> {
        let mut head = self.head.header.hash();
        let mut line = Vec::new();
        for hash in hashes {
            let executed = self.pending.get(hash).and_then(|node| node.executed.clone());
            let Some(executed) = executed else {
                if done(hash)? {
                    continue;
                }
                return Err(ChainError::Unknown(At::Hash(*hash)));
            };
            let parent = executed.block.header.parent_hash;
            if parent != head {
                return Err(ChainError::Fork { parent, head, hash: *hash });
            }
            head = *hash;
            line.push(executed);
        }
        Ok(line)
    }

    /// Moves the head along `line`, and gives back what is no longer held: pending blocks that do
    /// not descend from the head, old states, and old bodies. Freeing those takes a while, so it is
    /// left to the caller, who holds no lock then.
    pub(super) fn advance(&mut self, line: &[Arc<Executed>], options: &Options) -> Vec<Node> {
        for executed in line {
            let hash = executed.block.hash();
            let Some(node) = self.pending.remove(&hash) else { continue };
            self.recent_by_hash.insert(hash, executed.block.number());
            self.transactions += node.transactions();
            self.head = node.parent.clone();
            self.recent.push_back(node);
        }
        let mut dropped = self.drop_losers();
        while self.recent.len() > options.states.max(1)
            && let Some(node) = self.recent.pop_front()
        {
            self.recent_by_hash.remove(&node.parent.header.hash());
            self.transactions -= node.transactions();
            dropped.push(node);
        }
        // The newest keeps its body whatever its size, since everybody asks for it.
        let older = self.recent.len().saturating_sub(1);
        for node in self.recent.iter_mut().take(older) {
            if self.transactions <= options.transactions {
                break;
            }
            self.transactions -= node.transactions();
            let executed = node.executed.take();
            dropped.push(Node { parent: node.parent.clone(), executed });
        }
        dropped
    }

    fn drop_losers(&mut self) -> Vec<Node> {
        let mut kept = HashSet::from([self.head.header.hash()]);
        let headers = self.pending.values().map(|node| &node.parent.header);
        let mut order: Vec<_> =
            headers.map(|header| (header.number, header.hash(), header.parent_hash)).collect();
        order.sort_unstable_by_key(|(number, ..)| *number);
        let mut dropped = Vec::new();
        for (_, hash, parent) in order {
            if kept.contains(&parent) {
                kept.insert(hash);
            } else {
                dropped.extend(self.pending.remove(&hash));
            }
        }
        dropped
    }

    /// Makes `target`, a finalised block, the head again, and drops all pending ones.
    pub(super) fn rewind(&mut self, target: Arc<Parent>) {
        let number = target.header.number;
        while self.recent.back().is_some_and(|node| node.parent.header.number > number)
            && let Some(node) = self.recent.pop_back()
        {
            self.recent_by_hash.remove(&node.parent.header.hash());
            self.transactions -= node.transactions();
        }
        self.pending.clear();
        if self.recent.is_empty() {
            *self = Self::new(target);
        } else {
            self.head = target;
        }
    }
}
