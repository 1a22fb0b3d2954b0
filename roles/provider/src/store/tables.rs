//! The tables, and the changes that are made to them. Each change is part of one transaction, so
//! after a crash it is there whole or not at all.
//!
//! | Table | Key | Value |
//! |---|---|---|
//! | `kept` | order | [`Kept`], JSON |
//! | `channels` | channel | [`Account`], JSON |
//! | `lanes` | channel | the order that runs on it |
//! | `begun` | order | [`Begun`], JSON |
//! | `pieces` | order, place of the first token (4 bytes, big-endian) | tokens and states, 36 bytes each |
//! | `spent` | grant | base units: what receipts under it cost, and what answers that run may cost |
//! | `line` | channel, position after (16 bytes, big-endian) | [`Line`], JSON: the receipts that moved it |
//! | `periods` | number on the chain | [`Period`](super::Period), JSON |
//! | `canaries` | order | a canary, see `canaries/sown`, JSON |
//! | `meta` | name | a number |

use assay_protocol::wire::{Sealed, TopUp};
use assay_protocol::{
    Amount, B256, Channel, ChannelId, Ending, ModelId, Offer, Order, OrderHash, Signature, Terms,
};
use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, TableError, WriteTransaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::posted::{Line, append};
use crate::account::Account;

type Words = TableDefinition<'static, [u8; 32], &'static [u8]>;

const KEPT: Words = TableDefinition::new("kept");
pub(super) const CHANNELS: Words = TableDefinition::new("channels");
const LANES: TableDefinition<'_, [u8; 32], [u8; 32]> = TableDefinition::new("lanes");
const BEGUN: Words = TableDefinition::new("begun");
const PIECES: TableDefinition<'_, [u8; 36], &[u8]> = TableDefinition::new("pieces");
const SPENT: TableDefinition<'_, [u8; 32], u128> = TableDefinition::new("spent");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Bytes of one token and the state after it in a piece.
const STEP_BYTES: usize = 36;

/// A sealed answer, and who may have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Kept {
    /// The order's signature as it was handed in: who knows it may read the answer.
    pub(crate) order_signature: Signature,
    pub(crate) sealed: Sealed,
    /// What it is the answer to, without which no dispute about it can be answered; none of what an
    /// earlier release kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ordered: Option<Ordered>,
}

/// What was ordered: all that an answer is a function of, but for the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Ordered {
    pub(crate) order: Order,
    pub(crate) terms: Terms,
}

/// What a receipt will say of an order whose answer has begun, beside the answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Begun {
    pub(crate) order: OrderHash,
    /// The order's signature as it was handed in.
    pub(crate) signature: Signature,
    pub(crate) model: ModelId,
    pub(crate) prompt_tokens: u32,
    /// Tokens by which the model ends an answer.
    pub(crate) eos: Vec<u32>,
    /// Token sequences by which the order ends it.
    pub(crate) stops: Vec<Vec<u32>>,
    /// Most output tokens.
    pub(crate) tokens_max: u32,
    pub(crate) offer: Offer,
    /// The channel that pays, and what it was charged before; zero for none.
    pub(crate) channel: ChannelId,
    pub(crate) charged: Amount,
    /// Digests of the grants that it comes under.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) grants: Vec<B256>,
    /// What was ordered; none of what an earlier release began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ordered: Option<Ordered>,
    /// What its receipt has as its last state if it is a canary of this provider's own: see `canaries`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mark: Option<B256>,
    /// Unix milliseconds.
    pub(crate) started: u64,
}

impl Begun {
    /// Most that the answer can cost.
    pub(crate) fn highest(&self) -> Amount {
        self.offer.price(self.prompt_tokens, self.tokens_max)
    }

    /// What ends the answer.
    pub(crate) fn ending(&self) -> Ending {
        Ending { eos: self.eos.clone(), stops: self.stops.clone(), tokens_max: self.tokens_max }
    }
}

/// What is on disk of an answer that was not sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) begun: Begun,
    pub(crate) output: Vec<u32>,
    pub(crate) states: Vec<B256>,
}

/// The answer to `order`, if there is one.
pub(crate) fn kept(read: &ReadTransaction, order: OrderHash) -> Result<Option<Kept>, StoreError> {
    word(read, KEPT, order.0.0, "answer")
}

/// What a channel is to this provider, if it was ever used here.
pub(crate) fn account(
    read: &ReadTransaction,
    channel: ChannelId,
) -> Result<Option<Account>, StoreError> {
    word(read, CHANNELS, channel.0.0, "channel")
}

/// What an answer that is begun and not sealed said of itself.
pub(crate) fn begun(read: &ReadTransaction, order: OrderHash) -> Result<Option<Begun>, StoreError> {
    word(read, BEGUN, order.0.0, "beginning of an answer")
}

/// What is spent of each of these grants: by receipts, and at most by answers that run.
pub(crate) fn spent(read: &ReadTransaction, grants: &[B256]) -> Result<Vec<Amount>, StoreError> {
    let Some(table) = existing(read.open_table(SPENT))? else {
        return Ok(vec![Amount(0); grants.len()]);
    };
    let rows =
        grants.iter().map(|grant| Ok(Amount(table.get(grant.0)?.map_or(0, |spent| spent.value()))));
    rows.collect()
}

/// Moves what is spent of grants by `more`, and back by `less`.
fn spend(
    write: &WriteTransaction,
    grants: &[B256],
    more: Amount,
    less: Amount,
) -> Result<(), StoreError> {
    if grants.is_empty() {
        return Ok(());
    }
    let mut table = write.open_table(SPENT)?;
    for grant in grants {
        let spent = table.get(grant.0)?.map_or(0, |spent| spent.value());
        table.insert(grant.0, spent.saturating_add(more.0).saturating_sub(less.0))?;
    }
    Ok(())
}

/// Begins a paid answer: its voucher, its lane, what its receipt will say and what it may cost of its
/// grants are one change.
pub(crate) fn begin(
    write: &WriteTransaction,
    begun: &Begun,
    channel: &Channel,
    voucher: TopUp,
) -> Result<(), StoreError> {
    let id = begun.channel.0.0;
    let mut channels = write.open_table(CHANNELS)?;
    let known: Option<Account> =
        channels.get(id)?.map(|bytes| parse(bytes.value(), "channel")).transpose()?;
    let mut account = known.unwrap_or_else(|| Account {
        channel: channel.clone(),
        charged: begun.charged,
        voucher,
        claimed: begun.charged,
        unseen: false,
        seen_at: 0,
        paid_out: begun.charged,
        leaving: false,
    });
    account.raise(voucher);
    put(&mut channels, id, &account)?;
    write.open_table(LANES)?.insert(id, begun.order.0.0)?;
    spend(write, &begun.grants, begun.highest(), Amount(0))?;
    put(&mut write.open_table(BEGUN)?, begun.order.0.0, begun)
}

/// Changes what is known of a channel; one that was never used is left alone.
pub(crate) fn update(
    write: &WriteTransaction,
    channel: ChannelId,
    change: impl FnOnce(&mut Account),
) -> Result<(), StoreError> {
    let mut channels = write.open_table(CHANNELS)?;
    let known: Option<Account> =
        channels.get(channel.0.0)?.map(|bytes| parse(bytes.value(), "channel")).transpose()?;
    let Some(mut account) = known else { return Ok(()) };
    change(&mut account);
    put(&mut channels, channel.0.0, &account)
}

/// Notes that a channel's payer wants money back.
pub(crate) fn mark(write: &WriteTransaction, channel: ChannelId) -> Result<(), StoreError> {
    update(write, channel, |account| account.leaving = true)
}

/// Adds to what is on disk of a running answer: the tokens from `place` on, and their states.
pub(crate) fn checkpoint(
    write: &WriteTransaction,
    order: OrderHash,
    place: u32,
    tokens: &[u32],
    states: &[B256],
) -> Result<(), StoreError> {
    let mut bytes = Vec::with_capacity(tokens.len() * STEP_BYTES);
    for (token, state) in tokens.iter().zip(states) {
        bytes.extend(token.to_be_bytes());
        bytes.extend(state);
    }
    write.open_table(PIECES)?.insert(piece(order, place), bytes.as_slice())?;
    Ok(())
}

/// Keeps a sealed answer. If a channel pays for it, the channel is charged, its price is spent of its
/// grants, its lane is free and the receipt has its place in the line, all in one change.
pub(crate) fn seal(
    write: &WriteTransaction,
    order: OrderHash,
    answer: &Kept,
    digest: B256,
) -> Result<(), StoreError> {
    put(&mut write.open_table(KEPT)?, order.0.0, answer)?;
    let receipt = &answer.sealed.receipt;
    if receipt.channel == ChannelId::default() {
        return Ok(());
    }
    let (channel, before, after) = (receipt.channel, receipt.channel_before, receipt.channel_after);
    update(write, channel, |account| account.charged = account.charged.max(after))?;
    if before < after {
        append(write, channel, &Line { order, digest, before, after })?;
    }
    end(write, order, channel, receipt.price)
}

/// Forgets an answer that began: its lane is free, and nothing is charged for it.
pub(crate) fn forget(
    write: &WriteTransaction,
    order: OrderHash,
    channel: ChannelId,
) -> Result<(), StoreError> {
    end(write, order, channel, Amount(0))
}

/// Ends an answer that began: its lane is free, and of its grants `price` is spent, not its highest.
fn end(
    write: &WriteTransaction,
    order: OrderHash,
    channel: ChannelId,
    price: Amount,
) -> Result<(), StoreError> {
    let mut lanes = write.open_table(LANES)?;
    let runs = lanes.get(channel.0.0)?.map(|found| found.value());
    if runs == Some(order.0.0) {
        lanes.remove(channel.0.0)?;
    }
    let mut beginnings = write.open_table(BEGUN)?;
    if let Some(row) = beginnings.remove(order.0.0)? {
        let begun: Begun = parse(row.value(), "beginning of an answer")?;
        spend(write, &begun.grants, price, begun.highest())?;
    }
    let mut pieces = write.open_table(PIECES)?;
    pieces.retain_in(piece(order, 0)..=piece(order, u32::MAX), |_, _| false)?;
    Ok(())
}

/// What is left of answers that were not sealed: the one of `channel`, or all.
pub(crate) fn left(
    read: &ReadTransaction,
    channel: Option<ChannelId>,
) -> Result<Vec<Left>, StoreError> {
    let Some(lanes) = existing(read.open_table(LANES))? else { return Ok(Vec::new()) };
    let orders: Vec<[u8; 32]> = match channel {
        Some(channel) => lanes.get(channel.0.0)?.map(|order| order.value()).into_iter().collect(),
        None => {
            let rows = lanes.iter()?;
            rows.map(|row| Ok(row?.1.value())).collect::<Result<_, StoreError>>()?
        }
    };
    orders.into_iter().filter_map(|order| left_of(read, order).transpose()).collect()
}

fn left_of(read: &ReadTransaction, order: [u8; 32]) -> Result<Option<Left>, StoreError> {
    let Some(begun) = word::<Begun>(read, BEGUN, order, "beginning of an answer")? else {
        return Ok(None);
    };
    let mut left = Left { begun, output: Vec::new(), states: Vec::new() };
    let Some(pieces) = existing(read.open_table(PIECES))? else { return Ok(Some(left)) };
    let name = OrderHash(order.into());
    for row in pieces.range(piece(name, 0)..=piece(name, u32::MAX))? {
        let (_, bytes) = row?;
        for step in bytes.value().chunks_exact(STEP_BYTES) {
            let (token, state) = step.split_at(4);
            left.output.push(u32::from_be_bytes(token.try_into().expect("four bytes")));
            left.states.push(B256::from_slice(state));
        }
    }
    Ok(Some(left))
}

/// A number by its name.
pub(crate) fn meta(read: &ReadTransaction, name: &str) -> Result<Option<u64>, StoreError> {
    let Some(table) = existing(read.open_table(META))? else { return Ok(None) };
    Ok(table.get(name)?.map(|value| value.value()))
}

/// Keeps a number under its name.
pub(crate) fn set_meta(write: &WriteTransaction, name: &str, value: u64) -> Result<(), StoreError> {
    write.open_table(META)?.insert(name, value)?;
    Ok(())
}

fn piece(order: OrderHash, place: u32) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(&order.0.0);
    key[32..].copy_from_slice(&place.to_be_bytes());
    key
}

/// A table that may not be there yet.
pub(crate) fn existing<T>(opened: Result<T, TableError>) -> Result<Option<T>, StoreError> {
    match opened {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn word<T: DeserializeOwned>(
    read: &ReadTransaction,
    table: Words,
    key: [u8; 32],
    what: &'static str,
) -> Result<Option<T>, StoreError> {
    let Some(table) = existing(read.open_table(table))? else { return Ok(None) };
    table.get(key)?.map(|bytes| parse(bytes.value(), what)).transpose()
}

pub(crate) fn parse<T: DeserializeOwned>(
    bytes: &[u8],
    what: &'static str,
) -> Result<T, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError::Format { what, reason: error.to_string() })
}

pub(crate) fn put<'k, K: redb::Key + 'static>(
    table: &mut Table<'_, K, &'static [u8]>,
    key: impl std::borrow::Borrow<K::SelfType<'k>>,
    value: &impl Serialize,
) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| StoreError::Format { what: "value", reason: error.to_string() })?;
    table.insert(key, bytes.as_slice())?;
    Ok(())
}
