//! The JSON of the outside world, and nothing of ours: requests become our words here, and our
//! words become replies.
//!
//! What a client asks for and cannot have is refused by name, so that nobody takes an answer for
//! something it is not. What no rule knows is ignored, as other servers do.

mod fields;
mod problem;
mod reply;
mod request;

pub(crate) use problem::Problem;
pub(crate) use reply::{Finish, ModelCard, Models, Reply, Usage};
pub(crate) use request::ChatRequest;
