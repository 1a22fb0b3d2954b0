//! How slow a provider is, and what that costs it.
//!
//! `L = 0.3 · clamp((p95 − target) / target, 0, 1)`, where p95 is over the provider's last answers, in time per
//! token. Nobody pays more for waiting: the buyer pays the offer's price, whoever answers. But offers are compared as if
//! they asked `1 / (1 − L)` times as much, so a provider that is slow sells only if it asks for at most `1 − L` of what
//! fast ones do.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use assay_protocol::Amount;

/// Answers that count.
const ANSWERS_MAX: usize = 64;
/// Answers below which nothing is said: the first may have waited for a model to load.
const ANSWERS_MIN: usize = 8;
/// Answers older than this say nothing any more, so that who was slow is asked again.
const AGE_MAX: Duration = Duration::from_secs(600);
/// Largest coefficient, in millionths.
const MOST: u32 = 300_000;
/// One, in millionths.
const ONE: u32 = 1_000_000;

/// The last answers of a provider.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latency {
    /// When each came and its time per token, the oldest first.
    answers: VecDeque<(Instant, Duration)>,
}

impl Latency {
    /// Counts an answer of `tokens` that took so long in all and came `now`.
    pub(crate) fn count(&mut self, took: Duration, tokens: u32, now: Instant) {
        if self.answers.len() == ANSWERS_MAX {
            self.answers.pop_front();
        }
        self.answers.push_back((now, took / tokens.max(1)));
    }

    /// The coefficient `now`, where `target` per token is fast enough.
    pub(crate) fn coefficient(&self, target: Duration, now: Instant) -> Slowness {
        let fresh = self.answers.iter().filter(|(came, _)| now.duration_since(*came) < AGE_MAX);
        let mut sorted: Vec<Duration> = fresh.map(|(_, pace)| *pace).collect();
        if sorted.len() < ANSWERS_MIN {
            return Slowness::default();
        }
        sorted.sort_unstable();
        let p95 = sorted[(sorted.len() * 95).div_ceil(100) - 1];
        let over = p95.saturating_sub(target).as_nanos();
        let target = target.as_nanos().max(1);
        let share = over.min(target) * u128::from(MOST) / target;
        Slowness(u32::try_from(share).unwrap_or(MOST))
    }
}

/// A latency coefficient, in millionths: at most three tenths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Slowness(pub(crate) u32);

impl Slowness {
    /// What `price` counts as when offers are compared.
    pub(crate) fn weighed(self, price: Amount) -> Amount {
        let rest = u128::from(ONE - self.0.min(MOST));
        let whole = (price.0 / rest).saturating_mul(u128::from(ONE));
        let part = (price.0 % rest * u128::from(ONE)).div_ceil(rest);
        Amount(whole.saturating_add(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(100);

    fn of(ms: &[u64]) -> Slowness {
        let (mut latency, now) = (Latency::default(), Instant::now());
        for ms in ms {
            latency.count(Duration::from_millis(*ms), 1, now);
        }
        assert_eq!(latency.coefficient(TARGET, now + AGE_MAX), Slowness(0), "all is forgotten");
        latency.coefficient(TARGET, now)
    }

    #[test]
    fn slowness_grows_from_the_target_to_its_double() {
        assert_eq!(of(&[100; 20]), Slowness(0));
        assert_eq!(of(&[150; 20]), Slowness(150_000));
        assert_eq!(of(&[200; 20]), Slowness(300_000));
        assert_eq!(of(&[90_000; 20]), Slowness(300_000));
        assert_eq!(of(&[200; 7]), Slowness(0), "too few to say");
    }

    #[test]
    fn one_slow_answer_in_twenty_is_forgiven_and_old_ones_are_forgotten() {
        let mut answers = vec![50; 19];
        answers.insert(3, 900);
        assert_eq!(of(&[answers.clone(), answers].concat()), Slowness(0));
        let mut answers = vec![900; 64];
        answers.extend([50; 64]);
        assert_eq!(of(&answers), Slowness(0));
    }

    #[test]
    fn tokens_share_the_time() {
        let (mut latency, now) = (Latency::default(), Instant::now());
        (0..10).for_each(|_| latency.count(Duration::from_secs(3), 20, now));
        assert_eq!(latency.coefficient(TARGET, now), Slowness(150_000));
    }

    #[test]
    fn a_price_is_weighed_up_and_never_down() {
        assert_eq!(Slowness(0).weighed(Amount(7)), Amount(7));
        assert_eq!(Slowness(300_000).weighed(Amount(7)), Amount(10));
        assert_eq!(Slowness(300_000).weighed(Amount(8)), Amount(12));
        assert_eq!(Slowness(300_000).weighed(Amount(u128::MAX)), Amount(u128::MAX));
    }
}
