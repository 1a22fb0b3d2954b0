//! Claims vouchers, and has the till divide what came of earlier claims.

use std::collections::{BTreeMap, VecDeque};

use assay_chain::{ChainError, Claim, Pack};
use assay_protocol::{Amount, Channel, ChannelId};
use redb::WriteTransaction;

use super::{CollectError, Collector, Now, is_releasable};
use crate::account::Account;
use crate::store::{self, StoreError};

/// Rows of one claim: what a block's gas leaves room for.
const CLAIMS_MAX: usize = 100;

/// Channels of one release: what a block's gas leaves room for, at up to 220,000 for each.
const RELEASES_MAX: usize = 50;

/// The name under which the store keeps whether the till was made.
const TILL: &str = "till opened";

/// A claim, and of which channel.
#[derive(Clone, Debug)]
struct Row {
    id: ChannelId,
    claim: Claim,
}

/// The rows by transaction. Those that can be packed together are; one that is alone goes with the
/// others, since a transaction costs more than packing one row saves.
fn batches(rows: Vec<Row>) -> VecDeque<Vec<Row>> {
    let mut packs: BTreeMap<Option<Pack>, Vec<Row>> = BTreeMap::new();
    for row in rows {
        packs.entry(row.claim.pack()).or_default().push(row);
    }
    let mut others = packs.remove(&None).unwrap_or_default();
    let (alone, together): (Vec<_>, Vec<_>) = packs.into_values().partition(|rows| rows.len() == 1);
    others.extend(alone.into_iter().flatten());
    let groups = together.iter().chain([&others]);
    groups.flat_map(|rows| rows.chunks(CLAIMS_MAX)).map(<[Row]>::to_vec).collect()
}

impl Collector<'_> {
    /// Claims what is earned on the channels of `due`.
    pub(super) async fn claim(&self, due: &[(ChannelId, Account)]) -> Result<(), CollectError> {
        let mut rows = Vec::new();
        for (id, account) in due.iter().filter(|(_, account)| account.unclaimed().0 > 0) {
            // A row that the channel cannot pay would only cost gas.
            let held = self.payment.bank.channel(*id).await?.state;
            let claimed = account.earned().min(held.balance);
            let stays = account.leaving && held.withdrawal.is_none();
            self.note(*id, held.claimed, stays).await?;
            if claimed > held.claimed {
                let claimable = account.voucher.claimable;
                let signature = account.voucher.signature;
                let channel = account.channel.clone();
                rows.push(Row { id: *id, claim: Claim { channel, claimable, signature, claimed } });
            }
        }
        let mut batches = batches(rows);
        while let Some(mut batch) = batches.pop_front() {
            let claims: Vec<Claim> = batch.iter().map(|row| row.claim.clone()).collect();
            match self.payment.bank.claim(&claims).await {
                Ok(()) => self.look_again(&batch).await?,
                // One bad row must not keep the others' money back.
                Err(ChainError::Refused(_) | ChainError::Failed { .. }) if batch.len() > 1 => {
                    let second = batch.split_off(batch.len() / 2);
                    batches.extend([batch, second]);
                }
                Err(error @ (ChainError::Refused(_) | ChainError::Failed { .. })) => {
                    let channel = batch.first().map(|row| row.id).unwrap_or_default();
                    tracing::error!(%channel, %error, "a claim is refused");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Notes what came of a claim: rows that were no good were passed over in silence.
    async fn look_again(&self, batch: &[Row]) -> Result<(), CollectError> {
        for Row { id, claim } in batch {
            let held = self.payment.bank.channel(*id).await?.state;
            if held.claimed < claim.claimed {
                tracing::error!(channel = %id, found = %held.claimed, expected = %claim.claimed, "a claim was passed over");
            }
            self.note(*id, held.claimed, false).await?;
        }
        Ok(())
    }

    /// Notes what a channel was seen to have claimed, and that its payer, who was leaving, stays.
    async fn note(&self, id: ChannelId, claimed: Amount, stays: bool) -> Result<(), StoreError> {
        let change = move |account: &mut Account| {
            account.unseen |= account.claimed < claimed;
            account.claimed = claimed;
            // Only a mark that was there before the chain was asked: `watch` may set one meanwhile.
            account.leaving &= !stays;
        };
        self.store.write(move |write| store::update(write, id, change)).await
    }

    /// Has the till see what was claimed just now, and divide what was seen a dispute window ago.
    pub(super) async fn release(
        &self,
        due: &[(ChannelId, Account)],
        now: Now,
    ) -> Result<(), CollectError> {
        let mut ready: Vec<(ChannelId, Channel)> = Vec::new();
        for (id, _) in due {
            let id = *id;
            let account = self.store.read(move |read| store::account(read, id)).await?;
            let account = account.filter(|one| one.unseen || is_releasable(one, now));
            ready.extend(account.map(|account| (id, account.channel)));
        }
        if ready.is_empty() {
            return Ok(());
        }
        self.open_till().await?;
        ready.sort_by_key(|(_, channel)| channel.receiver);
        for of_one_till in ready.chunk_by(|a, b| a.1.receiver == b.1.receiver) {
            for batch in of_one_till.chunks(RELEASES_MAX) {
                self.release_all(batch).await?;
            }
        }
        Ok(())
    }

    /// Has a till look at channels that pay it. One that refuses must not keep the others waiting.
    async fn release_all(&self, channels: &[(ChannelId, Channel)]) -> Result<(), CollectError> {
        let bank = &self.payment.bank;
        let mut batches = VecDeque::from([channels]);
        while let Some(batch) = batches.pop_front() {
            let Some((id, Channel { receiver: till, .. })) = batch.first() else { continue };
            let seen_at = bank.time().await?;
            let terms: Vec<Channel> = batch.iter().map(|(_, channel)| channel.clone()).collect();
            match bank.release(*till, &terms).await {
                Ok(()) => {}
                Err(ChainError::Refused(_) | ChainError::Failed { .. }) if batch.len() > 1 => {
                    let (first, second) = batch.split_at(batch.len() / 2);
                    batches.extend([first, second]);
                    continue;
                }
                // It is tried again a dispute window later.
                Err(error @ (ChainError::Refused(_) | ChainError::Failed { .. })) => {
                    tracing::error!(channel = %id, %error, "a release is refused");
                }
                Err(error) => return Err(error.into()),
            }
            self.note_released(batch, seen_at).await?;
        }
        Ok(())
    }

    /// Notes when a till looked at channels, and up to where it has paid out.
    async fn note_released(
        &self,
        batch: &[(ChannelId, Channel)],
        seen_at: u64,
    ) -> Result<(), CollectError> {
        let mut paid = Vec::new();
        for (id, channel) in batch {
            paid.push((*id, self.payment.bank.paid_out(channel.receiver, *id).await?));
        }
        let change = move |write: &WriteTransaction| {
            paid.iter().try_for_each(|&(id, paid_out)| {
                store::update(write, id, |account| {
                    account.unseen = false;
                    account.seen_at = seen_at;
                    account.paid_out = paid_out;
                })
            })
        };
        Ok(self.store.write(change).await?)
    }

    /// Makes the till, once.
    async fn open_till(&self) -> Result<(), CollectError> {
        if self.store.read(|read| store::meta(read, TILL)).await?.is_some() {
            return Ok(());
        }
        self.payment.bank.open_till(self.payment.owner).await?;
        Ok(self.store.write(|write| store::set_meta(write, TILL, 1)).await?)
    }
}

#[cfg(test)]
mod tests {
    use assay_protocol::{Address, B256, Signature};

    use super::*;

    /// A claim of all that a voucher allows, or of one base unit less.
    fn row(payer: u8, salt: u8, full: bool) -> Row {
        let account = crate::account::tests::account(10, 10);
        let channel = Channel {
            payer: Address::repeat_byte(payer),
            salt: B256::repeat_byte(salt),
            ..account.channel
        };
        let signature = Signature([27; 65]);
        let claimed = Amount(if full { 10 } else { 9 });
        let id = ChannelId(B256::repeat_byte(payer));
        Row { id, claim: Claim { channel, claimable: Amount(10), signature, claimed } }
    }

    #[test]
    fn rows_are_packed_where_that_is_cheaper() {
        let said = |rows: Vec<Row>| -> Vec<Vec<u8>> {
            let batches = batches(rows).into_iter();
            batches.map(|batch| batch.iter().map(|row| row.id.0[0]).collect()).collect()
        };
        assert!(said(vec![]).is_empty());
        assert_eq!(said(vec![row(1, 1, true)]), [[1]]);
        let rows = vec![
            row(1, 1, true),
            row(2, 2, true),
            row(3, 1, true),
            row(4, 1, false),
            row(5, 3, true),
            row(6, 3, true),
        ];
        assert_eq!(said(rows), [vec![1, 3], vec![5, 6], vec![4, 2]]);
        let many = (0..=200).map(|payer| row(payer, 1, true)).collect();
        assert_eq!(said(many).iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 1]);
    }
}
