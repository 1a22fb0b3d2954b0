//! Plays disputes on a chain, for either side.
//!
//! [`assay_evidence::dispute`] knows the game and no chain, [`assay_chain`] the chain and no trace;
//! here they meet. A [`Docket`] reads where a dispute stands, a [`Record`] holds what a side needs to
//! say something about it, [`on_chain`] makes a call of what it says. A [`Tracer`] computes answers
//! again, [`Fetched`] with a model that is read for it; [`NodeServer`] asks the other side for nodes that need not be on chain, in the words of
//! [`wire`].
//!
//! Computing a move may take seconds, and a [`NodeServer`] waits for its answers where it is asked:
//! play on a thread that may block (`tokio::task::spawn_blocking`).

mod docket;
mod fetched;
mod node_server;
mod plays;
mod record;
mod tracer;
pub mod wire;

pub use docket::{CourtError, Docket, Look};
pub use fetched::{Desk, Fetched};
pub use node_server::NodeServer;
pub use plays::on_chain;
pub use record::{Disputed, FactsError, Record, claimed, facts};
pub use tracer::{Model, Retraced, Retracer, Tracer};
