//! How often a grant was used of late, in bounded memory for any rate. An order is remembered for its minute, and
//! up to five seconds more.

use tokio::time::Instant;

/// Seconds of one cell of a pace.
const CELL: u64 = 5;

/// Cells that cover the last minute wherever in a cell it is.
const CELLS: usize = 13;

/// How often a grant was used of late.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    /// Orders by cell, the newest at `at % CELLS`.
    orders: [u32; CELLS],
    /// The newest cell, counted from `since`.
    at: u64,
    since: Option<Instant>,
}

impl Pace {
    /// Orders of the last minute.
    pub(crate) fn of_late(&mut self, now: Instant) -> u32 {
        let since = *self.since.get_or_insert(now);
        let at = now.saturating_duration_since(since).as_secs() / CELL;
        let passed = at.saturating_sub(self.at).min(CELLS as u64);
        for cell in 1..=passed {
            self.orders[cell_of(self.at + cell)] = 0;
        }
        self.at = self.at.max(at);
        self.orders.iter().fold(0, |sum, orders| sum.saturating_add(*orders))
    }

    /// Counts one more.
    pub(crate) fn count(&mut self, now: Instant) {
        self.of_late(now);
        let newest = &mut self.orders[cell_of(self.at)];
        *newest = newest.saturating_add(1);
    }
}

fn cell_of(at: u64) -> usize {
    usize::try_from(at % CELLS as u64).expect("a remainder below thirteen")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_minute_has_more_orders_than_were_counted_in_it() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        let mut came: Vec<u64> = Vec::new();
        // Orders at uneven seconds, against a rate of seven.
        for second in (0..600).filter(|second| second % 3 == 0 || second % 7 == 1) {
            let now = start + Duration::from_secs(second);
            if pace.of_late(now) < 7 {
                pace.count(now);
                came.push(second);
            }
        }
        for &end in &came {
            let minute = came.iter().filter(|&&at| at <= end && at + 60 > end).count();
            assert!(minute <= 7, "{minute} in the minute before {end}");
        }
        assert!(came.len() > 60, "only {} in ten minutes", came.len());
    }

    #[test]
    fn a_long_rest_is_forgotten() {
        let (start, mut pace) = (Instant::now(), Pace::default());
        pace.count(start);
        assert_eq!(pace.of_late(start + Duration::from_secs(59)), 1);
        assert_eq!(pace.of_late(start + Duration::from_secs(66)), 0);
        assert_eq!(pace.of_late(start + Duration::from_secs(1 << 40)), 0);
    }
}
