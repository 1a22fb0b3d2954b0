//! Checks answers, and disputes the false ones.
//!
//! [`Challenge`] plays one dispute from a receipt to the money: it replays the answer, opens, goes down
//! to the first number that is wrong, has it judged, and collects. What it does is told as [`Event`]s.
//! [`Auditor`] looks for such receipts among those that are posted: it checks what chance draws for it.

mod audit;
mod challenge;

pub use audit::{AuditError, Auditing, Auditor, BookError, Found, Happening, Lapse, Shelf, Totals};
pub use challenge::{
    Challenge, ChallengeError, Config, Ending, Event, Finding, Grounds, Reason, Spoils, judged,
};
