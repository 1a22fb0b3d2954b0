//! Filters: what happened since a client last asked.
//!
//! A filter holds where its client stands, not what is waiting for it, so ten thousand forgotten
//! ones cost a few hundred bytes each until they expire. Only a filter of waiting transactions
//! holds a place in the mempool's stream, which is bounded itself: who asks too seldom misses some.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use alloy_primitives::{B256, U128};
use tokio::sync::broadcast;

use super::logs::LogFilter;
use super::message::Error;
use super::socket::random_id;

/// Names a filter. It is a random number, so that nobody reads another's.
pub(crate) type FilterId = U128;

/// What a filter lets through.
#[derive(Debug)]
pub(crate) enum Watch {
    /// Hashes of new blocks, from this number on.
    Blocks(u64),
    /// Logs of new blocks, from this number on.
    Logs(Arc<LogFilter>, u64),
    /// Hashes of transactions that began to wait.
    Pending(broadcast::Receiver<B256>),
}

#[derive(Debug)]
struct Filter {
    watch: Watch,
    asked: Instant,
}

/// All filters of the server.
#[derive(Debug)]
pub(crate) struct Filters {
    all: Mutex<HashMap<FilterId, Filter>>,
    count_max: usize,
    wait_max: Duration,
}

impl Filters {
    /// None yet; at most `count_max`, each forgotten when nobody asks for `wait_max`.
    pub(crate) fn new(count_max: usize, wait_max: Duration) -> Self {
        Self { all: Mutex::default(), count_max, wait_max }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<FilterId, Filter>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a filter; the silent ones go when there is no room.
    pub(crate) fn add(&self, watch: Watch, now: Instant) -> Result<FilterId, Error> {
        let mut all = self.lock();
        if all.len() >= self.count_max {
            all.retain(|_, filter| now.duration_since(filter.asked) < self.wait_max);
        }
        if all.len() >= self.count_max {
            return Err(Error::Limit(format!("the server has {} filters, the most", all.len())));
        }
        let id = U128::from_be_bytes(random_id());
        all.insert(id, Filter { watch, asked: now });
        Ok(id)
    }

    /// Removes a filter; whether there was such a one.
    pub(crate) fn remove(&self, id: FilterId) -> bool {
        self.lock().remove(&id).is_some()
    }

    /// Lets `look` at a filter, which may move it on.
    pub(crate) fn ask<T>(
        &self,
        id: FilterId,
        now: Instant,
        look: impl FnOnce(&mut Watch) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut all = self.lock();
        let gone =
            all.get(&id).is_none_or(|filter| now.duration_since(filter.asked) >= self.wait_max);
        if gone {
            all.remove(&id);
        }
        let filter = all.get_mut(&id).ok_or_else(|| Error::Failed("filter not found".into()))?;
        filter.asked = now;
        look(&mut filter.watch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(10);

    #[test]
    fn a_filter_nobody_asks_is_forgotten() {
        let (filters, start) = (Filters::new(2, WAIT), Instant::now());
        let id = filters.add(Watch::Blocks(0), start).unwrap();
        assert!(filters.ask(id, start + WAIT / 2, |_| Ok(())).is_ok());
        assert!(filters.ask(id, start + WAIT, |_| Ok(())).is_ok());
        assert!(filters.ask(id, start + 2 * WAIT, |_| Ok(())).is_err());
        assert!(!filters.remove(id));
    }

    #[test]
    fn forgotten_filters_make_room_and_live_ones_do_not() {
        let (filters, start) = (Filters::new(2, WAIT), Instant::now());
        filters.add(Watch::Blocks(0), start).unwrap();
        filters.add(Watch::Blocks(0), start + WAIT / 2).unwrap();
        assert_eq!(filters.add(Watch::Blocks(0), start).unwrap_err().code(), -32005);
        assert!(filters.add(Watch::Blocks(0), start + WAIT).is_ok());
    }
}
