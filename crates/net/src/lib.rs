//! Carries messages between participants.
//!
//! A line belongs here if it is about connections, whatever is said over them. The other side of
//! every connection is a stranger, so their number, their silence and their slowness have bounds.

mod http;

pub use http::{Limits, serve};
