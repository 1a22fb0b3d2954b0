//! The JSON of the outside world, and nothing of ours: requests become our words here, and our
//! words become replies.
//!
//! What a client asks for and cannot have is refused by name, so that nobody takes an answer for
//! something it is not. What no rule knows is ignored, as other servers do.
//!
//! `fields` reads objects, `messages`, `tools` and `sampling` what requests of all APIs share, `items` how
//! the Responses API writes conversations; `chat`, `completions` and `responses` make a `question` of a
//! request, and their replies tell its answers, `calls` what is called in them, by what `reply` says of all
//! replies. `batches` reads requests for many answers, `embeddings` reads requests for vectors and tells
//! those, `classes` tells what texts are, `models` lists models, `problem` says what went wrong.

mod batches;
mod calls;
mod chat;
mod chat_reply;
mod classes;
mod completions;
mod completions_reply;
mod embeddings;
mod fields;
#[cfg(test)]
mod fuzz;
mod items;
mod messages;
mod models;
mod problem;
mod question;
mod reply;
pub(crate) mod responses;
mod responses_reply;
mod sampling;
mod shape;
mod tools;

pub(crate) use batches::BatchRequest;
pub(crate) use calls::CallRules;
pub(crate) use chat_reply::ChatReply;
pub(crate) use classes::classes_reply;
pub(crate) use completions_reply::CompletionReply;
pub(crate) use embeddings::{Embedding, Embeddings};
pub(crate) use items::{input_items, remembered};
pub(crate) use messages::{kept, shown};
pub(crate) use models::{ModelCard, Models};
pub(crate) use problem::Problem;
pub(crate) use question::{Api, Form, Prompt, Question};
pub(crate) use reply::{Finish, Head, Reply, Told, Usage};
pub(crate) use responses_reply::{ResponseReply, failure, replayed};
pub(crate) use sampling::{Sampling, sent_metadata};
