//! Whether a conviction still finds the money it takes.
//!
//! A deterrent counts only if it is there when the verdict comes: the stake not withdrawn, the price
//! not released. Both leave by clocks, and so does the game.

/// The times that decide, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// `DisputeWindow`: after posting, until when a dispute can be opened; then the till releases.
    pub dispute_window: u64,
    /// What each side of a dispute has for all its moves.
    pub clock: u64,
    /// `UnbondingDelay`: how long stake that asked to leave stays.
    pub unbonding_delay: u64,
    /// `CoverWindow`: how long a provider may still post after the payer has marked what is uncovered.
    pub cover_window: u64,
}

/// A verdict can come too late for what it should take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the verdict comes up to {verdict} s later, what it takes is gone after {gone} s")]
pub struct OutOfReach {
    /// The latest verdict.
    pub verdict: u64,
    /// When that which it takes has left.
    pub gone: u64,
}

impl Times {
    /// How long a dispute lasts at most: both clocks run out.
    fn game(&self) -> u64 {
        self.clock.saturating_mul(2)
    }

    /// How long after an answer its receipt may be posted so that a dispute opened in the last second
    /// still finds the stake, though the provider asked for it back as it answered.
    pub fn latest_posting(&self) -> Result<u64, OutOfReach> {
        before(self.dispute_window.saturating_add(self.game()), self.unbonding_delay)
    }

    /// How long after an answer its payer may wait to mark its channel, and be sure that the receipt is
    /// then posted before [`latest_posting`](Self::latest_posting), or the price comes back.
    pub fn latest_mark(&self) -> Result<u64, OutOfReach> {
        let taken = self.dispute_window.saturating_add(self.game());
        before(taken.saturating_add(self.cover_window), self.unbonding_delay)
    }

    /// How long after posting a dispute may be opened so that its verdict still finds the price in the
    /// till. What is opened later takes stake only, since a till does not wait for disputes.
    pub fn latest_opening_for_refund(&self) -> Result<u64, OutOfReach> {
        before(self.game(), self.dispute_window)
    }
}

/// What is left before `gone` if the verdict takes `verdict`; the second in which it leaves is too late.
fn before(verdict: u64, gone: u64) -> Result<u64, OutOfReach> {
    let spare = gone.checked_sub(verdict).and_then(|spare| spare.checked_sub(1));
    spare.ok_or(OutOfReach { verdict, gone })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600;
    const DAY: u64 = 24 * HOUR;

    fn times() -> Times {
        Times {
            dispute_window: DAY,
            clock: 6 * HOUR,
            unbonding_delay: 14 * DAY,
            cover_window: 7 * DAY,
        }
    }

    #[test]
    fn usual_times_reach() {
        assert_eq!(times().latest_posting(), Ok(12 * DAY + 12 * HOUR - 1));
        assert_eq!(times().latest_mark(), Ok(5 * DAY + 12 * HOUR - 1));
        assert_eq!(times().latest_opening_for_refund(), Ok(12 * HOUR - 1));
    }

    #[test]
    fn the_longest_clock_lets_the_stake_go() {
        let slow = Times { clock: 7 * DAY, ..times() };
        let verdict = 15 * DAY;
        assert_eq!(slow.latest_posting(), Err(OutOfReach { verdict, gone: 14 * DAY }));
        let refund = slow.latest_opening_for_refund();
        assert_eq!(refund, Err(OutOfReach { verdict: 14 * DAY, gone: DAY }));
    }

    #[test]
    fn nothing_overflows() {
        let most = Times {
            dispute_window: u64::MAX,
            clock: u64::MAX,
            unbonding_delay: 0,
            cover_window: u64::MAX,
        };
        assert!(most.latest_posting().is_err() && most.latest_mark().is_err());
        assert!(most.latest_opening_for_refund().is_err());
    }
}
