//! A lane while one order has it to itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_protocol::wire::{Payment, TopUp};
use assay_protocol::{Amount, ChannelId};

use super::{AdoptError, Bill, DueError, Job, Lane, PositionError, Purse, Seller, Slot, Unsettled};
use crate::store::{Row, StoreError};

/// How long a lane rests on which its provider says another order runs.
const REST: Duration = Duration::from_millis(500);

/// A lane that one order has to itself. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Lease {
    purse: Arc<Purse>,
    /// Where its provider is.
    url: String,
    pub(crate) id: ChannelId,
    lane: Lane,
    /// The order after which it is unsure what was charged.
    unsettled: Option<Arc<Unsettled>>,
    /// Most that the order may cost, once it is handed in, until there is a receipt.
    risk: Option<Amount>,
    rests: bool,
    /// Whether the chain is to be asked what the lane holds.
    doubted: bool,
}

/// The place where a receipt has to take up a channel's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) channel: ChannelId,
    /// Least that may have been charged before.
    pub(crate) from: Amount,
    /// Most that may have been.
    pub(crate) to: Amount,
}

impl Lease {
    pub(super) fn new(purse: &Arc<Purse>, seller: &Seller, slot: &Slot) -> Self {
        Self {
            purse: Arc::clone(purse),
            url: seller.url.clone(),
            id: slot.id,
            lane: slot.lane.clone(),
            unsettled: slot.unsettled.clone(),
            risk: None,
            rests: false,
            doubted: false,
        }
    }

    /// Whether the provider's word on its position is needed before it is used.
    pub(crate) fn is_unsure(&self) -> bool {
        self.lane.is_unsure()
    }

    /// Asks the provider where the channel is, and goes on from there. What it charged for an order
    /// that ended without a receipt it has to show; only after a restart, when such orders are
    /// forgotten here, its word is enough, within the lane's slack.
    pub(crate) async fn ask(&mut self) -> Result<(), PositionError> {
        let purse = Arc::clone(&self.purse);
        let Some(position) = purse.position(&self.url, self.id).await? else {
            let (found, expected) = (Amount(0), self.lane.charged);
            if found != expected {
                return Err(AdoptError::Behind { found, expected }.into());
            }
            self.lane.settle(found);
            return Ok(());
        };
        let mut lane = self.lane.clone();
        lane.adopt(&purse.at, &position)?;
        let shown = match &self.unsettled {
            Some(order) if lane.charged > self.lane.charged => {
                Some((Arc::clone(order), order.answer(&purse.http, &self.url, self.line()).await?))
            }
            _ => None,
        };
        self.lane = lane;
        if let Some((order, answer)) = shown {
            let (hash, price) = (order.hash, answer.receipt.price);
            tracing::info!(order = %hash, %price, "an answer that broke off is settled");
            let mut rows = vec![self.settle(answer.receipt.channel_after)?];
            // If another provider has answered the order meanwhile, that is its answer; and who was freed
            // of it has none.
            if let Some(booked) = order.claim.book(price) {
                rows.extend(booked);
                rows.push(Row::answer(hash, &answer)?);
            }
            purse.store.keep(rows).await?;
        }
        Ok(())
    }

    /// Whether the whole of an answer can be paid with it.
    pub(crate) fn affords(&self, most: Amount) -> bool {
        self.lane.affords(most)
    }

    /// What pays for an order. From now on an end without a receipt leaves doubt.
    pub(crate) fn pay(&mut self, bill: Bill<'_>) -> Payment {
        let purse = &self.purse;
        let voucher = self.lane.first(&purse.at, &purse.key, bill, purse.terms.prepay_max);
        self.risk = Some(bill.most());
        Payment { channel: self.lane.channel.clone(), voucher }
    }

    /// Whether the voucher allows the highest price already.
    pub(crate) fn is_prepaid(&self, bill: Bill<'_>) -> bool {
        let left = self.lane.signed().0.saturating_sub(self.lane.charged.0);
        left >= bill.most().0 && !self.lane.is_unsure()
    }

    /// The voucher for an answer that waits for one after `delivered` tokens.
    pub(crate) fn top_up(
        &mut self,
        bill: Bill<'_>,
        delivered: u32,
        amount: Amount,
    ) -> Result<TopUp, DueError> {
        let purse = &self.purse;
        let prepay = purse.terms.prepay_max;
        self.lane.due(&purse.at, &purse.key, bill, delivered, prepay, amount)
    }

    /// The provider did not take the order, or had answered it before, so nothing is charged for it
    /// now.
    pub(crate) fn refused(&mut self) {
        self.risk = None;
    }

    /// The order ended without a receipt.
    pub(crate) fn leave(&mut self, order: Unsettled) {
        let order = Arc::new(order);
        order.end_in_time();
        self.unsettled = Some(order);
    }

    /// The provider says that another order runs on the channel.
    pub(crate) fn rest(mut self) {
        self.rests = true;
    }

    /// Whether an end now leaves doubt.
    pub(crate) fn is_at_risk(&self) -> bool {
        self.risk.is_some()
    }

    /// The provider says that the channel holds less than is known here: the deposit is gone, or so
    /// new that it does not count there yet.
    pub(crate) fn doubt_deposit(mut self) {
        (self.doubted, self.rests) = (true, true);
    }

    /// Where a receipt has to go on.
    pub(crate) fn line(&self) -> Line {
        let to = Amount(self.lane.charged.0.saturating_add(self.lane.slack.0));
        Line { channel: self.id, from: self.lane.charged, to }
    }

    /// Whether `after`, on this or another channel of ours with the same provider, is charged already
    /// as far as is known here.
    pub(crate) fn has_charged(&self, channel: ChannelId, after: Amount) -> bool {
        if channel == self.id {
            return after <= self.lane.charged;
        }
        let mut accounts = self.purse.lock();
        let slot = accounts.get_mut(&self.lane.provider).and_then(|account| account.slot(channel));
        // Where an unsure one is, its provider says when it is used next; so far it can have come.
        slot.is_some_and(|slot| after.0 <= slot.lane.charged.0.saturating_add(slot.lane.slack.0))
    }

    /// Goes on from a receipt that was checked; gives what has to be kept with its answer.
    pub(crate) fn settle(&mut self, after: Amount) -> Result<Row, StoreError> {
        self.lane.settle(after);
        (self.risk, self.unsettled) = (None, None);
        let mut accounts = self.purse.lock();
        let slot = accounts.get_mut(&self.lane.provider).and_then(|account| account.slot(self.id));
        let slot = slot.ok_or(StoreError::Stopped)?;
        put(slot, &self.lane);
        slot.row()
    }
}

/// Writes into `slot` what an order changes of its lane. What the chain changes is its own.
fn put(slot: &mut Slot, lane: &Lane) {
    slot.lane.voucher = lane.voucher;
    (slot.lane.charged, slot.lane.slack, slot.lane.last) = (lane.charged, lane.slack, lane.last);
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(most) = self.risk.take() {
            self.lane.doubt(most);
        }
        let mut job = None;
        self.purse.change(self.lane.provider, |account| {
            let Some(slot) = account.slot(self.id) else { return };
            put(slot, &self.lane);
            // Of a provider that lied no answer is taken any more.
            slot.unsettled = self.unsettled.take().filter(|_| !slot.lane.ended);
            slot.busy = false;
            slot.rests_until = self.rests.then(|| Instant::now() + REST);
            if self.doubted && !std::mem::replace(&mut slot.asked, true) {
                // Until the chain has said more, nothing is bought with it.
                slot.lane.deposited = Amount(0);
                job = Some(Job::Look(self.lane.provider, self.id));
            }
        });
        if let Some(job) = job {
            // Nobody works at jobs only while the gateway ends.
            let _ = self.purse.jobs.send(job);
        }
    }
}
