//! Which orders are being answered now: each at most once, and no more than a fixed number.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard};

use assay_protocol::wire::Refusal;
use assay_protocol::{OrderHash, Signature};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The orders being answered.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    /// Counts slots, and the tasks that answer.
    pub(crate) tasks: TaskTracker,
    state: Arc<Mutex<State>>,
    max: u32,
}

#[derive(Debug, Default)]
struct State {
    running: HashMap<OrderHash, Running>,
    /// Since when, Unix seconds, if it closes.
    closing: Option<u64>,
}

#[derive(Debug)]
struct Running {
    stopped: CancellationToken,
    /// The order's signature as it was handed in: who knows it may stop the answer.
    signature: Signature,
}

/// The right to answer one order. Dropping it makes room for the next.
#[derive(Debug)]
pub(crate) struct Slot {
    order: OrderHash,
    /// Cancelled once the buyer, or the end of the drain, wants the answer to stop.
    pub(crate) stopped: CancellationToken,
    slots: Slots,
    /// Makes a drain wait, even while there is no task yet.
    _drains: TaskTrackerToken,
}

/// What came of a wish to stop an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopping {
    /// It stops.
    Stopped,
    /// The order is not running.
    Unknown,
    /// The order has another signature.
    Forbidden,
}

impl Slots {
    pub(crate) fn new(max: NonZeroU32) -> Self {
        Self { tasks: TaskTracker::new(), state: Arc::default(), max: max.get() }
    }

    /// Takes a slot for `order`, or says why there is none: closing, running already, or busy.
    pub(crate) fn take(&self, order: OrderHash, signature: Signature) -> Result<Slot, Refusal> {
        let mut state = self.lock();
        if state.closing.is_some() {
            return Err(Refusal::Closing);
        }
        if state.running.contains_key(&order) {
            return Err(Refusal::Running { order });
        }
        if state.running.len() >= self.max as usize {
            return Err(Refusal::Busy { running_max: self.max });
        }
        let stopped = CancellationToken::new();
        state.running.insert(order, Running { stopped: stopped.clone(), signature });
        Ok(Slot { order, stopped, slots: self.clone(), _drains: self.tasks.token() })
    }

    /// Stops the answer to `order`, for someone who knows its signature.
    pub(crate) fn cancel(&self, order: &OrderHash, signature: &Signature) -> Stopping {
        match self.lock().running.get(order) {
            None => Stopping::Unknown,
            Some(running) if running.signature != *signature => Stopping::Forbidden,
            Some(running) => {
                running.stopped.cancel();
                Stopping::Stopped
            }
        }
    }

    /// Refuses every order from now on. `tasks` is empty once all slots are free and all answers
    /// delivered, and stays so.
    pub(crate) fn close(&self) {
        self.lock().closing.get_or_insert(crate::now_ms() / 1000);
        self.tasks.close();
    }

    /// Stops every answer.
    pub(crate) fn cancel_all(&self) {
        self.lock().running.values().for_each(|running| running.stopped.cancel());
    }

    /// Orders running now.
    pub(crate) fn running(&self) -> u32 {
        u32::try_from(self.lock().running.len()).unwrap_or(u32::MAX)
    }

    /// Orders that can run at once.
    pub(crate) fn max(&self) -> u32 {
        self.max
    }

    /// Since when orders are refused as closing, Unix seconds.
    pub(crate) fn closing_since(&self) -> Option<u64> {
        self.lock().closing
    }

    /// Whether orders are refused as closing.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing_since().is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().running.remove(&self.order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use assay_protocol::B256;
    use futures_util::FutureExt;

    fn order(byte: u8) -> OrderHash {
        OrderHash(B256::repeat_byte(byte))
    }

    const SIGNATURE: Signature = Signature([1; 65]);

    fn take(slots: &Slots, byte: u8) -> Result<Slot, Refusal> {
        slots.take(order(byte), SIGNATURE)
    }

    fn said(taken: Result<Slot, Refusal>) -> String {
        taken.map_or_else(|refusal| refusal.to_string(), |_| "taken".into())
    }

    #[test]
    fn each_order_runs_once_and_no_more_than_max() {
        let slots = Slots::new(NonZeroU32::new(2).unwrap());
        let first = take(&slots, 1).unwrap();
        assert!(said(take(&slots, 1)).ends_with("is being answered already"));
        let _second = take(&slots, 2).unwrap();
        assert_eq!(said(take(&slots, 3)), "all 2 slots are taken");
        drop(first);
        assert_eq!(said(take(&slots, 3)), "taken");
        slots.close();
        assert_eq!(said(take(&slots, 4)), "the provider is shutting down");
    }

    #[test]
    fn a_cancelled_order_hears_of_it() {
        let slots = Slots::new(NonZeroU32::new(2).unwrap());
        let slot = take(&slots, 1).unwrap();
        assert_eq!(slots.cancel(&order(2), &SIGNATURE), Stopping::Unknown);
        assert_eq!(slots.cancel(&order(1), &Signature([2; 65])), Stopping::Forbidden);
        assert!(!slot.stopped.is_cancelled());
        assert_eq!(slots.cancel(&order(1), &SIGNATURE), Stopping::Stopped);
        assert!(slot.stopped.is_cancelled());
    }

    #[tokio::test]
    async fn a_drain_waits_for_a_slot_that_has_no_task_yet() {
        let slots = Slots::new(NonZeroU32::new(2).unwrap());
        let slot = take(&slots, 1).unwrap();
        slots.close();
        assert!(slots.tasks.wait().now_or_never().is_none());
        drop(slot);
        assert!(slots.tasks.wait().now_or_never().is_some());
        assert_eq!(take(&slots, 2).err(), Some(Refusal::Closing));
    }
}
