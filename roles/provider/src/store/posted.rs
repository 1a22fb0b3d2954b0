//! The tables behind collecting: the line of receipts of each channel, and the periods in which they
//! were posted.

use assay_chain::Span;
use assay_protocol::{Amount, B256, ChannelId, OrderHash};
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::tables::{CHANNELS, existing, parse, put};
use crate::account::Account;

const LINE: TableDefinition<'_, [u8; 48], &[u8]> = TableDefinition::new("line");
const PERIODS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("periods");

/// A receipt that moved a channel. Its key is the channel and the position after it, so a
/// channel's receipts lie in the order of its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Line {
    pub(crate) order: OrderHash,
    /// What was signed.
    pub(crate) digest: B256,
    pub(crate) before: Amount,
    pub(crate) after: Amount,
}

/// A tree of receipts that is posted, or is about to be. Its leaves are the receipts of its spans, span by
/// span.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Period {
    pub(crate) root: B256,
    /// Number of receipts.
    pub(crate) count: u64,
    /// Channel, position before, position after.
    pub(crate) spans: Vec<(ChannelId, Amount, Amount)>,
    /// Whether the chain was seen to have it.
    pub(crate) posted: bool,
}

impl Period {
    /// What it covers, in the chain's words.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let spans = self.spans.iter();
        spans.map(|&(channel, before, after)| Span { channel, before, after }).collect()
    }
}

/// Some channels, and where to look for more.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    pub(crate) found: Vec<(ChannelId, Account)>,
    /// Behind which channel to go on; `None`: that was all.
    pub(crate) next: Option<ChannelId>,
}

/// Up to `most` channels for which `wanted` holds, behind `after`.
pub(crate) fn accounts(
    read: &ReadTransaction,
    after: Option<ChannelId>,
    most: usize,
    wanted: impl Fn(&Account) -> bool,
) -> Result<Accounts, StoreError> {
    use std::ops::Bound::{Excluded, Unbounded};

    let mut accounts = Accounts::default();
    let Some(table) = existing(read.open_table(CHANNELS))? else { return Ok(accounts) };
    let from = after.map_or(Unbounded, |id| Excluded(id.0.0));
    for row in table.range::<[u8; 32]>((from, Unbounded))? {
        let (key, value) = row?;
        let id = ChannelId(key.value().into());
        let account: Account = parse(value.value(), "channel")?;
        if wanted(&account) {
            accounts.found.push((id, account));
        }
        if accounts.found.len() >= most {
            accounts.next = Some(id);
            break;
        }
    }
    Ok(accounts)
}

/// Gives a receipt its place in its channel's line.
pub(super) fn append(
    write: &WriteTransaction,
    channel: ChannelId,
    line: &Line,
) -> Result<(), StoreError> {
    put(&mut write.open_table(LINE)?, place(channel, line.after), line)
}

/// Up to `most` receipts of a channel behind position `from`, in the order of its line.
pub(crate) fn receipts(
    read: &ReadTransaction,
    channel: ChannelId,
    from: Amount,
    most: usize,
) -> Result<Vec<Line>, StoreError> {
    use std::ops::Bound::{Excluded, Included};

    let Some(line) = existing(read.open_table(LINE))? else { return Ok(Vec::new()) };
    let bounds = (Excluded(place(channel, from)), Included(place(channel, Amount(u128::MAX))));
    let rows = line.range::<[u8; 48]>(bounds)?.take(most);
    rows.map(|row| parse(row?.1.value(), "receipt's place")).collect()
}

/// The last period and its number.
pub(crate) fn last_period(read: &ReadTransaction) -> Result<Option<(u64, Period)>, StoreError> {
    let Some(periods) = existing(read.open_table(PERIODS))? else { return Ok(None) };
    let row = periods.last()?;
    row.map(|(number, bytes)| Ok((number.value(), parse(bytes.value(), "period")?))).transpose()
}

/// A period by its number on the chain.
pub(crate) fn period(read: &ReadTransaction, number: u64) -> Result<Option<Period>, StoreError> {
    let Some(periods) = existing(read.open_table(PERIODS))? else { return Ok(None) };
    periods.get(number)?.map(|bytes| parse(bytes.value(), "period")).transpose()
}

/// Keeps a period under its number on the chain. What was there from that number on is forgotten: the
/// chain does not have it.
pub(crate) fn set_period(
    write: &WriteTransaction,
    number: u64,
    period: &Period,
) -> Result<(), StoreError> {
    let mut periods = write.open_table(PERIODS)?;
    periods.retain_in(number.., |_, _| false)?;
    put(&mut periods, number, period)
}

/// Forgets a period that will not be posted.
pub(crate) fn drop_period(write: &WriteTransaction, number: u64) -> Result<(), StoreError> {
    write.open_table(PERIODS)?.remove(number)?;
    Ok(())
}

fn place(channel: ChannelId, after: Amount) -> [u8; 48] {
    let mut key = [0; 48];
    key[..32].copy_from_slice(&channel.0.0);
    key[32..].copy_from_slice(&after.0.to_be_bytes());
    key
}
