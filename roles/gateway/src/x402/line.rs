//! The line of those whose payments wait for a transaction of ours.
//!
//! Transactions go out one after the other and cost us gas, while whoever asks for them may be anybody. So
//! the line has an end, and nobody stands in it too often: who comes when it is full is told to come again,
//! which costs nothing, as nothing was spent yet. Claims do not stand in line: they bring our own money.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use assay_protocol::Address;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::fault::Fault;

/// Settlements at once: one on its way to the chain, and those that wait for it. At one block a second the
/// last waits as long as clients wait for an answer.
const PLACES: usize = 32;

/// Settlements of one payer within [`WINDOW`].
const TURNS: u32 = 60;

/// How long turns are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// Payers that are remembered. More than that within a window find the line full.
const PAYERS_MAX: usize = 4_096;

/// Places in line.
#[derive(Debug)]
pub(crate) struct Line {
    places: Arc<Semaphore>,
    /// Since when, and how often, payers stood in line.
    payers: Mutex<HashMap<Address, (Instant, u32)>>,
}

impl Default for Line {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(PLACES)), payers: Mutex::default() }
    }
}

impl Line {
    /// A place for `payer`, kept until it is dropped.
    ///
    /// # Errors
    /// If there is none, or the payer had too many lately.
    pub(crate) fn stand(
        &self,
        payer: Address,
        now: Instant,
    ) -> Result<OwnedSemaphorePermit, Fault> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| Fault::Crowded { max: PLACES })?;
        let mut payers = self.payers.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |since: &Instant| now.saturating_duration_since(*since) >= WINDOW;
        if payers.len() >= PAYERS_MAX && !payers.contains_key(&payer) {
            payers.retain(|_, (since, _)| !over(since));
            if payers.len() >= PAYERS_MAX {
                return Err(Fault::Crowded { max: PLACES });
            }
        }
        let (since, turns) = payers.entry(payer).or_insert((now, 0));
        if over(since) {
            (*since, *turns) = (now, 0);
        }
        if *turns >= TURNS {
            let left = WINDOW.saturating_sub(now.saturating_duration_since(*since));
            return Err(Fault::Hasty { max: TURNS, seconds: left.as_secs() + 1 });
        }
        *turns += 1;
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_an_end() {
        let (line, now) = (Line::default(), Instant::now());
        let payer = |n: usize| Address::repeat_byte(n as u8);
        let mut places: Vec<_> = (0..PLACES).map(|n| line.stand(payer(n), now).unwrap()).collect();
        assert_eq!(line.stand(payer(99), now).unwrap_err(), Fault::Crowded { max: PLACES });
        places.pop();
        assert!(line.stand(payer(99), now).is_ok());
    }

    #[test]
    fn nobody_stands_in_it_too_often() {
        let (line, now) = (Line::default(), Instant::now());
        let (hasty, other) = (Address::repeat_byte(1), Address::repeat_byte(2));
        for _ in 0..TURNS {
            drop(line.stand(hasty, now).unwrap());
        }
        let error = Fault::Hasty { max: TURNS, seconds: 61 };
        assert_eq!(line.stand(hasty, now).unwrap_err(), error);
        assert!(line.stand(other, now).is_ok());
        assert!(line.stand(hasty, now + WINDOW).is_ok());
    }
}
