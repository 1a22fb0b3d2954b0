//! When the next block is due, and what time it carries. Pure: the time comes in as an argument.

use std::time::Duration;

use super::Production;

/// Decides when a block is due. Times are from a clock that never goes back, on any origin.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    pub(super) production: Production,
    /// An empty block is due this long after the one before; `None`: never.
    pub(super) idle: Option<Duration>,
    /// How many seconds the chain's time may run ahead of the clock.
    drift_max: u64,
    /// When the last block was made.
    last: Duration,
    /// Blocks that may follow one another within a second, and when they were counted.
    burst: (f64, Duration),
}

impl Pace {
    pub(super) fn new(
        production: Production,
        idle: Option<Duration>,
        drift_max: Duration,
        now: Duration,
    ) -> Self {
        let drift_max = drift_max.as_secs();
        Self { production, idle, drift_max, last: now, burst: (Self::most(drift_max), now) }
    }

    /// When the next block is due; `ready`: a transaction waits. `None`: not before one comes.
    pub(super) fn due(&self, ready: bool) -> Option<Duration> {
        let after = |wait: Duration| self.last.saturating_add(wait);
        let wanted = match self.production {
            Production::OnDemand if ready => self.last,
            Production::Every(interval) if ready => after(interval),
            Production::Every(interval) => after(self.idle?.max(interval)),
            Production::OnDemand => after(self.idle?),
            Production::OnCall => return None,
        };
        Some(wanted.max(self.earliest()))
    }

    /// Notes that a block was made at `now`.
    pub(super) fn made(&mut self, now: Duration) {
        self.burst = (self.left(now) - 1.0, now);
        self.last = now;
    }

    /// Each block's time is at least a second past the one before, so that many blocks within a
    /// second push the chain's time ahead of the clock. This is when one more may do so: as many at
    /// once as seconds ahead are allowed, then one per second, whatever the clock says by then.
    fn earliest(&self) -> Duration {
        let (left, counted) = self.burst;
        counted + Duration::from_secs_f64((1.0 - left).max(0.0))
    }

    fn left(&self, now: Duration) -> f64 {
        let (left, counted) = self.burst;
        (left + now.saturating_sub(counted).as_secs_f64()).min(Self::most(self.drift_max))
    }

    fn most(drift_max: u64) -> f64 {
        // A year's worth of blocks is as good as any number, and exact as a float.
        1.0 + drift_max.min(31_536_000) as f64
    }
}

/// How the time of blocks differs from the clock's. Development only; without it, not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Warp {
    /// Seconds that the chain is ahead of the clock (or behind).
    pub(super) offset: i64,
    /// The time that the next block is to have.
    pub(super) next: Option<u64>,
}

impl Warp {
    /// The chain's time when the clock shows `now`, both in seconds since 1970.
    pub(super) fn time(&self, now: u64) -> u64 {
        now.saturating_add_signed(self.offset)
    }

    /// The time of the block after one of time `parent`: the chain's time, but always later.
    pub(super) fn timestamp(&self, now: u64, parent: u64) -> u64 {
        self.next.unwrap_or_else(|| self.time(now)).max(parent.saturating_add(1))
    }

    /// Notes that a block of time `timestamp` was made; one that was asked for moves the chain's
    /// time with it.
    pub(super) fn made(&mut self, timestamp: u64, now: u64) {
        if self.next.take().is_some() {
            self.put(timestamp, now);
        }
    }

    /// Makes the chain's time `timestamp` from now on.
    pub(super) fn put(&mut self, timestamp: u64, now: u64) {
        let difference = i128::from(timestamp) - i128::from(now);
        self.offset = i64::try_from(difference).unwrap_or(i64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn pace(production: Production, idle: Option<u64>) -> Pace {
        Pace::new(production, idle.map(seconds), seconds(2), seconds(100))
    }

    #[test]
    fn a_transaction_is_served_at_once_on_demand() {
        let pace = pace(Production::OnDemand, None);
        assert_eq!(pace.due(true), Some(seconds(100)));
        assert_eq!(pace.due(false), None);
    }

    #[test]
    fn an_interval_is_kept_and_empty_blocks_are_rarer() {
        let pace = pace(Production::Every(seconds(3)), Some(10));
        assert_eq!(pace.due(true), Some(seconds(103)));
        assert_eq!(pace.due(false), Some(seconds(110)));
        let never_idle = Pace { idle: None, ..pace };
        assert_eq!(never_idle.due(false), None);
    }

    #[test]
    fn nothing_is_due_when_blocks_are_made_on_call() {
        assert_eq!(pace(Production::OnCall, Some(1)).due(true), None);
    }

    #[test]
    fn the_chain_runs_ahead_of_the_clock_by_a_bounded_number_of_blocks() {
        let mut pace = pace(Production::OnDemand, None);
        let mut now = seconds(100);
        let mut waits = Vec::new();
        for _ in 0..6 {
            let due = pace.due(true).unwrap().max(now);
            waits.push((due - now).as_secs());
            now = due;
            pace.made(now);
        }
        assert_eq!(waits, [0, 0, 0, 1, 1, 1]);
        // Two idle seconds give two more at once.
        now += seconds(2);
        pace.made(now);
        assert_eq!(pace.due(true).unwrap().saturating_sub(now), seconds(0));
    }

    #[test]
    fn time_never_stands_still_nor_goes_back() {
        let warp = Warp::default();
        assert_eq!(warp.timestamp(1000, 900), 1000);
        assert_eq!(warp.timestamp(1000, 1000), 1001);
        assert_eq!(warp.timestamp(10, 5000), 5001);
    }

    #[test]
    fn a_time_that_was_asked_for_carries_on() {
        let mut warp = Warp { offset: 0, next: Some(9000) };
        assert_eq!(warp.timestamp(1000, 900), 9000);
        warp.made(9000, 1000);
        assert_eq!(warp.timestamp(1005, 9000), 9005);
    }
}
