//! What waits for a block.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, U64, U256};
use serde::Serialize;

use super::Rpc;
use super::message::{Answer, answer};
use super::params::Params;
use super::shape;
use crate::Transaction;
use crate::mempool::Content;

/// By sender, then by nonce.
type Waiting<T> = BTreeMap<String, BTreeMap<String, T>>;

/// Most transactions that are told at once; the others wait unseen.
const TOLD_MAX: usize = 20_000;

#[derive(Serialize)]
struct Pool<T> {
    pending: T,
    queued: T,
}

impl Rpc {
    /// `[]`
    pub(super) fn txpool_status(&self, _: &Params<'_>) -> Answer {
        let status = self.mempool().status();
        let (pending, queued) = (U64::from(status.pending), U64::from(status.queued));
        answer(&Pool { pending, queued })
    }

    /// `[]`
    pub(super) fn txpool_content(&self, _: &Params<'_>) -> Answer {
        answer(&self.told(shape::waiting))
    }

    /// `[]`
    pub(super) fn txpool_inspect(&self, _: &Params<'_>) -> Answer {
        answer(&self.told(summary))
    }

    fn told<T>(&self, tell: impl Fn(&Transaction) -> T + Copy) -> Pool<Waiting<T>> {
        let (mut pending, mut queued) = (Waiting::new(), Waiting::new());
        let mut told = 0;
        for (sender, content) in self.mempool().content() {
            told += content.pending.len() + content.queued.len();
            if told > TOLD_MAX {
                break;
            }
            add(&mut pending, &sender, by_nonce(&content.pending, tell));
            add(&mut queued, &sender, by_nonce(&content.queued, tell));
        }
        Pool { pending, queued }
    }

    /// `[sender]`
    pub(super) fn txpool_content_from(&self, params: &Params<'_>) -> Answer {
        let Content { pending, queued } = self.mempool().content_of(&params.address(0)?);
        let pending = by_nonce(&pending, shape::waiting);
        let queued = by_nonce(&queued, shape::waiting);
        answer(&Pool { pending, queued })
    }
}

fn add<T>(waiting: &mut Waiting<T>, sender: &Address, of_sender: BTreeMap<String, T>) {
    if !of_sender.is_empty() {
        waiting.insert(sender.to_checksum(None), of_sender);
    }
}

fn by_nonce<T>(
    transactions: &[Arc<Transaction>],
    tell: impl Fn(&Transaction) -> T,
) -> BTreeMap<String, T> {
    let told = transactions.iter().map(|one| (one.nonce().to_string(), tell(one)));
    told.collect()
}

/// One line for people.
fn summary(transaction: &Transaction) -> String {
    let to = match transaction.to() {
        Some(to) => to.to_checksum(None),
        None => "contract creation".into(),
    };
    let price = U256::from(transaction.max_fee_per_gas());
    let (value, gas) = (transaction.value(), transaction.gas_limit());
    format!("{to}: {value} wei + {gas} gas × {price} wei")
}
