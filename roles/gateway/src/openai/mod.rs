//! The JSON of the outside world, and nothing of ours: requests become our words here, and our
//! words become replies.
//!
//! What a client asks for and cannot have is refused by name, so that nobody takes an answer for
//! something it is not. What no rule knows is ignored, as other servers do.
//!
//! `fields` reads objects, `messages` and `sampling` what requests of all APIs share; `chat`,
//! `completions` and `responses` make a `question` of a request, and their replies tell its answers, by
//! what `reply` says of all replies. `batches` reads requests for many answers, `embeddings` looks at requests for vectors, `models` lists models, `problem` says what went wrong.

mod batches;
mod chat;
mod chat_reply;
mod completions;
mod completions_reply;
mod embeddings;
mod fields;
mod messages;
mod models;
mod problem;
mod question;
mod reply;
pub(crate) mod responses;
mod responses_reply;
mod sampling;
mod shape;

pub(crate) use batches::BatchRequest;
pub(crate) use chat_reply::ChatReply;
pub(crate) use completions_reply::CompletionReply;
pub(crate) use embeddings::embedded;
pub(crate) use models::{ModelCard, Models};
pub(crate) use problem::Problem;
pub(crate) use question::{Api, Form, Prompt, Question};
pub(crate) use reply::{Finish, Head, Reply, Told, Usage};
pub(crate) use responses_reply::{ResponseReply, failure, replayed};
pub(crate) use sampling::{Sampling, sent_metadata};
