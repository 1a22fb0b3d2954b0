//! When requests are due.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand_distr::{Distribution, Gamma};

/// Requests at random times: a renewal process whose intervals are gamma distributed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrivals {
    /// Requests a second, on average; above zero.
    pub(super) rate: f64,
    /// Shape of the intervals' distribution, above zero: 1 is a Poisson process.
    pub(super) burstiness: f64,
    /// The same seed gives the same times.
    pub(super) seed: u64,
}

impl Arrivals {
    /// When the first `count` requests are due, from the start.
    pub(super) fn times(&self, count: usize) -> Vec<Duration> {
        let scale = 1.0 / (self.rate * self.burstiness);
        // Both are above zero, if not so far that their product is lost.
        let Ok(interval) = Gamma::new(self.burstiness, scale) else {
            return vec![Duration::ZERO; count];
        };
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let mut due = Duration::ZERO;
        let mut next = || {
            let now = due;
            let wait = Duration::try_from_secs_f64(interval.sample(&mut random));
            due = due.saturating_add(wait.unwrap_or(Duration::MAX));
            now
        };
        (0..count).map(|_| next()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_arrive_at_the_rate_asked_for() {
        for burstiness in [0.25, 1.0, 8.0] {
            let arrivals = Arrivals { rate: 50.0, burstiness, seed: 7 };
            let times = arrivals.times(4001);
            let took = times[4000].as_secs_f64();
            assert!((took / 80.0 - 1.0).abs() < 0.1, "burstiness {burstiness}: {took} s");
            assert_eq!(times, arrivals.times(4001));
        }
    }
}
