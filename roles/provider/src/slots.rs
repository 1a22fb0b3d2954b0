//! Which orders are being answered now: each at most once, and no more than a fixed number.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard};

use assay_protocol::OrderHash;
use assay_protocol::wire::Refusal;
use tokio_util::sync::CancellationToken;

/// The orders being answered.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    state: Arc<Mutex<State>>,
    max: u32,
}

#[derive(Debug, Default)]
struct State {
    running: HashMap<OrderHash, CancellationToken>,
    closing: bool,
}

/// The right to answer one order. Dropping it makes room for the next.
#[derive(Debug)]
pub(crate) struct Slot {
    order: OrderHash,
    /// Cancelled once the buyer, or the end of the drain, wants the answer to stop.
    pub(crate) stopped: CancellationToken,
    slots: Slots,
}

impl Slots {
    pub(crate) fn new(max: NonZeroU32) -> Self {
        Self { state: Arc::default(), max: max.get() }
    }

    /// Takes a slot for `order`, or says why there is none: closing, running already, or busy.
    pub(crate) fn take(&self, order: OrderHash) -> Result<Slot, Refusal> {
        let mut state = self.lock();
        if state.closing {
            return Err(Refusal::Closing);
        }
        if state.running.contains_key(&order) {
            return Err(Refusal::Running { order });
        }
        if state.running.len() >= self.max as usize {
            return Err(Refusal::Busy { running_max: self.max });
        }
        let stopped = CancellationToken::new();
        state.running.insert(order, stopped.clone());
        Ok(Slot { order, stopped, slots: self.clone() })
    }

    /// Stops the answer to `order`; `false` if it is not running.
    pub(crate) fn cancel(&self, order: &OrderHash) -> bool {
        let found = self.lock().running.get(order).cloned();
        found.inspect(CancellationToken::cancel).is_some()
    }

    /// Refuses every order from now on.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
    }

    /// Stops every answer.
    pub(crate) fn cancel_all(&self) {
        self.lock().running.values().for_each(CancellationToken::cancel);
    }

    /// Orders running now.
    pub(crate) fn running(&self) -> u32 {
        u32::try_from(self.lock().running.len()).unwrap_or(u32::MAX)
    }

    /// Orders that can run at once.
    pub(crate) fn max(&self) -> u32 {
        self.max
    }

    /// Whether orders are refused as closing.
    pub(crate) fn is_closing(&self) -> bool {
        self.lock().closing
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

    fn order(byte: u8) -> OrderHash {
        OrderHash(B256::repeat_byte(byte))
    }

    fn said(taken: Result<Slot, Refusal>) -> String {
        taken.map_or_else(|refusal| refusal.to_string(), |_| "taken".into())
    }

    #[test]
    fn each_order_runs_once_and_no_more_than_max() {
        let slots = Slots::new(NonZeroU32::new(2).unwrap());
        let first = slots.take(order(1)).unwrap();
        assert!(said(slots.take(order(1))).ends_with("is being answered already"));
        let _second = slots.take(order(2)).unwrap();
        assert_eq!(said(slots.take(order(3))), "all 2 slots are taken");
        drop(first);
        assert_eq!(said(slots.take(order(3))), "taken");
        slots.close();
        assert_eq!(said(slots.take(order(4))), "the provider is shutting down");
    }

    #[test]
    fn a_cancelled_order_hears_of_it() {
        let slots = Slots::new(NonZeroU32::new(2).unwrap());
        let slot = slots.take(order(1)).unwrap();
        assert!(!slots.cancel(&order(2)));
        assert!(!slot.stopped.is_cancelled());
        assert!(slots.cancel(&order(1)));
        assert!(slot.stopped.is_cancelled());
    }
}
