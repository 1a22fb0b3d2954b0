//! Forgets what nobody can come back for.
//!
//! A payment may be waiting for the disk meanwhile. So rows are looked at beside all changes, and go in small
//! ones.

use std::ops::Bound::Unbounded;

use assay_protocol::B256;
use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};
use serde::Deserialize;

use super::journal::{BODIES, Journal, PAYMENTS, PENDING, Paid, REPLIES, Rows, start};
use crate::disk::{StoreError, parsed};

/// Rows that are looked at, and bodies that are dropped, in one go. No payment waits longer
/// than for one of these changes.
const PRUNED_ROWS: usize = 256;

impl Journal {
    /// Drops payments, replies and names that nobody can come back for, and the oldest bodies beyond
    /// `bodies_max`; in small changes, between which others are made.
    pub(crate) async fn prune(&self, now: u64, bodies_max: u64) -> Result<(), StoreError> {
        for table in [PAYMENTS, REPLIES, PENDING] {
            let mut after = None;
            loop {
                let (old, last) = self.old(table, after, now).await?;
                if !old.is_empty() {
                    self.disk
                        .write(move |transaction| forget(transaction, table, &old, now))
                        .await?;
                }
                let Some(last) = last else { break };
                after = Some(last);
            }
        }
        while self.disk.write(move |bodies| drop_bodies(bodies, bodies_max, now)).await? {}
        Ok(())
    }

    /// The rows among the next ones after `after` that nobody needs, and the last row looked at if there
    /// may be more.
    async fn old(
        &self,
        table: Rows<'static>,
        after: Option<B256>,
        now: u64,
    ) -> Result<(Vec<B256>, Option<B256>), StoreError> {
        let read = self.disk.read(move |transaction| {
            let table = transaction.open_table(table)?;
            let rows = table.range::<[u8; 32]>((start(after), Unbounded))?;
            let (mut old, mut last, mut seen) = (Vec::new(), None, 0);
            for row in rows.take(PRUNED_ROWS) {
                let (key, row) = row?;
                let key = B256::from(key.value());
                (last, seen) = (Some(key), seen + 1);
                if is_old(row.value(), now) {
                    old.push(key);
                }
            }
            Ok((old, last.filter(|_| seen == PRUNED_ROWS)))
        });
        read.await
    }
}

/// Whether nobody needs a row any more. A stream's money is settled first; what cannot be read is no use.
fn is_old(row: &[u8], now: u64) -> bool {
    /// What is looked at.
    #[derive(Deserialize)]
    struct Aged {
        until: u64,
        paid: Option<Paid>,
    }
    parsed::<Aged>(row)
        .map_or(true, |row| row.until < now && !matches!(row.paid, Some(Paid::Stream { .. })))
}

/// Removes rows that are still old: they may have been written anew since they were looked at.
fn forget(
    transaction: &WriteTransaction,
    table: Rows<'static>,
    old: &[B256],
    now: u64,
) -> Result<(), StoreError> {
    let mut table = transaction.open_table(table)?;
    for key in old {
        let still = table.get(key.0)?.is_some_and(|row| is_old(row.value(), now));
        if still {
            table.remove(key.0)?;
        }
    }
    Ok(())
}

/// Drops some of the bodies that are old or too many, and says whether there may be more.
fn drop_bodies(
    transaction: &WriteTransaction,
    bodies_max: u64,
    now: u64,
) -> Result<bool, StoreError> {
    let mut bodies = transaction.open_table(BODIES)?;
    for _ in 0..PRUNED_ROWS {
        let first = bodies.first()?.map(|(key, _)| key.value());
        match first {
            Some(key) if key.0 < now || bodies.len()? > bodies_max => drop(bodies.remove(key)?),
            _ => return Ok(false),
        }
    }
    Ok(true)
}

#[cfg(test)]
pub(super) mod tests {
    use assay_protocol::{Address, Amount, ChannelId, keccak256};

    use super::super::journal::{Pending, Reply};
    use super::super::paper::NOW;
    use super::*;

    /// A reply that is kept until then.
    pub(crate) fn reply(until: u64) -> Reply {
        let text = String::new;
        let (payment, request, payer) = (B256::ZERO, B256::ZERO, Address::ZERO);
        Reply {
            payment,
            request,
            payer,
            content_type: text(),
            settlement: text(),
            body: Some(text()),
            until,
        }
    }

    fn stream(channel: ChannelId, charged: u128) -> Pending {
        let paid = Paid::Stream { channel, charged: Amount(charged) };
        Pending { request: B256::ZERO, payer: Address::ZERO, paid, until: NOW }
    }

    #[tokio::test]
    async fn what_nobody_can_come_back_for_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path().join("journal"), NOW).await.unwrap();
        let id = ChannelId(B256::repeat_byte(1));
        for byte in 1..=5 {
            let key = B256::repeat_byte(byte);
            let kept = reply(NOW - 3 + u64::from(byte));
            journal.write(move |rows| rows.keep_reply(key, kept)).await.unwrap();
        }
        let mut old = stream(id, 1);
        old.until = NOW - 1;
        journal.write(move |rows| rows.keep_pending(id.0, &old)).await.unwrap();
        journal.prune(NOW, 2).await.unwrap();
        let mut left = Vec::new();
        for byte in 1..=5 {
            if let Some(reply) = journal.reply(B256::repeat_byte(byte)).await.unwrap() {
                left.push((byte, reply.body.is_some()));
            }
        }
        assert_eq!(left, [(3, false), (4, true), (5, true)], "an answer that was paid stays known");
        assert!(
            journal.pending(id.0).await.unwrap().is_some(),
            "a stream's money is not forgotten"
        );
    }

    #[tokio::test]
    async fn more_than_one_change_forgets_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path().join("journal"), NOW).await.unwrap();
        let count = 2 * PRUNED_ROWS + 3;
        let filled = journal.write(move |rows| {
            (0..count).try_for_each(|number| {
                let until = NOW - 1 + 2 * (number as u64 % 2);
                rows.keep_reply(keccak256(number.to_be_bytes()), reply(until))
            })
        });
        filled.await.unwrap();
        journal.prune(NOW, 9).await.unwrap();
        let left = journal
            .disk
            .read(|rows| Ok((rows.open_table(REPLIES)?.len()?, rows.open_table(BODIES)?.len()?)));
        assert_eq!(left.await.unwrap(), (count as u64 / 2, 9));
    }
}
