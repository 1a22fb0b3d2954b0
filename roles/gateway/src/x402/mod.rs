//! x402 at the HTTP door: an answer for whoever pays, without an account anywhere.
//!
//! x402 version 2 with its schemes `exact` and `batch-settlement`, spoken so that its own clients pay here
//! unmodified. In reading order: `wire` is what strangers send (`base64` under it), `terms` what is asked,
//! `fault` why a payment is not taken; `exact` and `batch` judge payments by value; `rail` is the chain and
//! `journal` the disk; `facilitator` joins them, `door` sells answers over it, `reply` repeats those that
//! were lost, `endpoints` serve others' clients, and `collect` brings the money home.

mod base64;
mod batch;
mod collect;
mod door;
mod endpoints;
mod exact;
mod facilitator;
mod fault;
mod journal;
#[cfg(test)]
mod paper;
mod rail;
mod reply;
#[cfg(test)]
mod sales;
mod terms;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn;
use tokio_util::sync::CancellationToken;

pub use collect::Collecting;
pub use door::{Counter, Door, Quote};
pub use journal::JournalError;
pub use rail::{ChainRail, Done, Rail, RailError};
pub use reply::Cost;
pub use terms::Terms;

use facilitator::Facilitator;
use journal::Journal;

/// How a gateway is paid by x402.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is accepted.
    pub terms: Terms,
    /// When claims are brought to the chain.
    pub collecting: Collecting,
    /// File that keeps channels' accounts and payments. Who loses it loses what is unclaimed.
    pub journal: PathBuf,
}

/// Opens the door; `rail` settles what comes in, `counter` prices it.
///
/// # Errors
/// If the journal cannot be opened.
pub async fn open(
    config: &Config,
    rail: Arc<dyn Rail>,
    counter: Arc<dyn Counter>,
) -> Result<Arc<Door>, JournalError> {
    let journal = Journal::open(config.journal.clone()).await?;
    let facilitator = Arc::new(Facilitator::new(config.terms.clone(), rail, journal));
    Ok(Arc::new(Door::new(facilitator, counter)))
}

/// Puts the door before `router`'s answers, and the facilitator's endpoints beside them.
pub fn guard<S: Clone + Send + Sync + 'static>(router: Router<S>, door: &Arc<Door>) -> Router<S> {
    let routes = endpoints::routes(Arc::clone(door.facilitator()));
    let door = Arc::clone(door);
    let enter = from_fn(move |request, next| Arc::clone(&door).enter(request, next));
    router.layer(enter).merge(routes)
}

/// Brings the money home until `shutdown`; run it as long as the door is open.
pub async fn collect(door: Arc<Door>, collecting: Collecting, shutdown: CancellationToken) {
    collect::collect(Arc::clone(door.facilitator()), collecting, shutdown).await;
}
