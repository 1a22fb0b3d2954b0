//! Says what lying, checking and staking are worth, in whole base units.
//!
//! The rules of `docs/protocol/incentives.md`: how large a stake or how frequent an audit must be
//! so that a false answer does not pay, and what an auditor must be paid so that looking pays.
//! No clock, disk, socket or randomness, and no floats: whoever computes gets the same figure.

mod auditing;
mod beacon;
mod deterrence;
mod reach;
mod share;
mod spree;

pub use auditing::{Canary, Duty, Habit, Unwatched};
pub use beacon::Chooser;
pub use deterrence::{
    AtRisk, Audits, Fees, Motive, Penalty, Sale, Undeterred, expected_loss, least_rate, least_stake,
};
pub use reach::{OutOfReach, Times};
pub use share::{Bps, Chance, NotAShare};
pub use spree::Spree;
