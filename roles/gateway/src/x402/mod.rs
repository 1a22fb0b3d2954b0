//! x402 at the HTTP door: an answer for whoever pays, without an account anywhere.
//!
//! x402 version 2 with its schemes `exact` and `batch-settlement`, spoken so that its own clients pay here
//! unmodified. In reading order: `wire` is what strangers send, `terms` what is asked,
//! `fault` why a payment is not taken; `exact` and `batch` judge payments by value; `rail` is the chain
//! (`line` the way to it) and `journal` the disk, from which `forget` takes what is old; `facilitator` joins
//! them, `door` says what is asked and `sell` sells answers over it, `counter` prices them, `reply` repeats
//! those that were lost, `endpoints` serve others' clients, and `collect` brings the money home.

mod batch;
mod collect;
mod counter;
mod door;
mod endpoints;
mod exact;
mod facilitator;
mod fault;
mod forget;
mod journal;
mod line;
#[cfg(test)]
mod lost;
#[cfg(test)]
mod paper;
mod rail;
mod reply;
#[cfg(test)]
mod sales;
mod sell;
mod terms;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn;

pub use collect::Collecting;
pub(crate) use door::{Counter, Door};
pub use rail::{ChainRail, Done, Rail, RailError};
pub(crate) use reply::Cost;
pub use terms::Terms;

use crate::disk::StoreError;
use crate::http::now_s;
use facilitator::Facilitator;
use journal::Journal;

/// How a gateway is paid by x402.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is accepted.
    pub terms: Terms,
    /// The way to the chain.
    pub rail: Arc<dyn Rail>,
    /// When claims are brought to the chain.
    pub collecting: Collecting,
    /// File that keeps channels' accounts and payments. Who loses it loses what is unclaimed.
    pub journal: PathBuf,
}

/// Opens the door of what `counter` sells.
///
/// # Errors
/// If the journal cannot be opened.
pub(crate) async fn open(
    config: &Config,
    counter: Arc<dyn Counter>,
) -> Result<Arc<Door>, StoreError> {
    let journal = Journal::open(config.journal.clone(), now_s()).await?;
    let rail = Arc::clone(&config.rail);
    let facilitator = Arc::new(Facilitator::new(config.terms.clone(), rail, journal));
    Ok(Arc::new(Door::new(facilitator, counter)))
}

/// Puts the door before `router`'s answers, and the facilitator's endpoints beside them.
pub(crate) fn guard<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    door: &Arc<Door>,
) -> Router<S> {
    let routes = endpoints::routes(Arc::clone(door.facilitator()));
    let door = Arc::clone(door);
    let enter = from_fn(move |request, next| Arc::clone(&door).enter(request, next));
    router.layer(enter).merge(routes)
}
