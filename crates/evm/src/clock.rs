//! What time it is, by whoever is asked.
//!
//! Nothing in this crate reads the system's clock on its own: who starts a node hands one in, and a
//! test hands in its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// Time since 1970, UTC. May jump in either direction, as clocks do.
    fn now(&self) -> Duration;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        // A clock before 1970 is wrong, and 1970 as good an answer as any.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

/// A clock that stands where it was put.
#[derive(Debug, Default)]
pub struct StillClock(AtomicU64);

impl StillClock {
    /// A clock that shows `seconds` since 1970.
    pub fn at(seconds: u64) -> Self {
        Self(AtomicU64::new(seconds))
    }

    /// Puts it to `seconds` since 1970.
    pub fn set(&self, seconds: u64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
}

impl Clock for StillClock {
    fn now(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}
