//! How often a name was used of late, in bounded memory for any rate.
//!
//! A grant's rate is so many orders in any minute, and each provider counts for itself; its memory is
//! coarse, so it remembers an order for up to five seconds more than its minute. This one remembers for
//! a little longer still: whoever keeps within it is not refused there, unless its orders were late on
//! their way.

use std::time::{Duration, Instant};

/// Length of one cell, in seconds.
const CELL: u64 = 5;

/// Cells that cover the last 65 seconds wherever in a cell they begin.
const CELLS: u64 = 14;

/// How often a name was used of late.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// Orders by cell, the newest at `at % CELLS`.
    orders: [u32; CELLS as usize],
    /// The newest cell, counted from `since`.
    at: u64,
    since: Instant,
}

impl Window {
    /// One in which nothing came.
    pub(crate) fn new(now: Instant) -> Self {
        Self { orders: [0; CELLS as usize], at: 0, since: now }
    }

    /// How long another order has to wait, where `per_minute` may come; none: it may come `now`.
    pub(crate) fn wait(&mut self, now: Instant, per_minute: u32) -> Option<Duration> {
        self.turn(now);
        let mut left = self.of_late();
        if left < per_minute {
            return None;
        }
        let passed = now.saturating_duration_since(self.since);
        for cell in self.at.saturating_sub(CELLS - 1)..=self.at {
            left -= self.orders[place(cell)];
            if left < per_minute {
                // What came in that cell is forgotten then.
                return Some(Duration::from_secs((cell + CELLS) * CELL).saturating_sub(passed));
            }
        }
        Some(Duration::from_secs(CELLS * CELL))
    }

    /// Counts an order.
    pub(crate) fn count(&mut self, now: Instant) {
        self.turn(now);
        let newest = &mut self.orders[place(self.at)];
        *newest = newest.saturating_add(1);
    }

    /// Whether all that came is so long ago that it is forgotten.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        let at = now.saturating_duration_since(self.since).as_secs() / CELL;
        at.saturating_sub(self.at) >= CELLS || self.of_late() == 0
    }

    /// Forgets what is too old.
    fn turn(&mut self, now: Instant) {
        let at = now.saturating_duration_since(self.since).as_secs() / CELL;
        for cell in 1..=at.saturating_sub(self.at).min(CELLS) {
            self.orders[place(self.at + cell)] = 0;
        }
        self.at = self.at.max(at);
    }

    fn of_late(&self) -> u32 {
        self.orders.iter().fold(0, |sum, orders| sum.saturating_add(*orders))
    }
}

fn place(cell: u64) -> usize {
    usize::try_from(cell % CELLS).expect("a remainder below fourteen")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_minute_and_five_seconds_have_more_orders_than_are_allowed() {
        let start = Instant::now();
        let (mut window, mut came) = (Window::new(start), Vec::<u64>::new());
        // Orders at uneven seconds, against a rate of seven.
        for second in (0..600).filter(|second| second % 3 == 0 || second % 7 == 1) {
            let now = start + Duration::from_secs(second);
            match window.wait(now, 7) {
                None => {
                    window.count(now);
                    came.push(second);
                }
                // Who waits as long as it is told may come then, and not a moment before.
                Some(wait) => {
                    assert!(window.clone().wait(now + wait, 7).is_none());
                    let early = now + wait - Duration::from_millis(1);
                    assert!(window.clone().wait(early, 7).is_some());
                }
            }
        }
        for &end in &came {
            let late = came.iter().filter(|&&at| at <= end && at + 65 > end).count();
            assert!(late <= 7, "{late} in the 65 seconds before {end}");
        }
        assert!(came.len() > 56, "only {} in ten minutes", came.len());
    }

    #[test]
    fn a_long_rest_is_forgotten() {
        let start = Instant::now();
        let mut window = Window::new(start);
        assert!(window.is_over(start));
        window.count(start);
        assert!(!window.is_over(start + Duration::from_secs(64)));
        assert!(window.is_over(start + Duration::from_secs(70)));
        assert_eq!(window.wait(start + Duration::from_secs(1 << 30), 1), None);
    }
}
