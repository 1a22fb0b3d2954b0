//! Turns messages into tokens, and tokens into text.
//!
//! A line belongs here if it is about tokenizers, chat templates or grammars of text. The crate touches
//! nothing: no disk, no clock, no network. Vocabularies and templates come from model
//! files that strangers wrote, so both are read with bounds and refused with typed errors.
//!
//! The way of a request, in reading order:
//!
//! 1. [`Chat`] renders a [`Conversation`], with the [`Tool`]s of it, into the text its model was trained on;
//! 2. [`Tokenizer::encode`] cuts that text into token ids;
//! 3. [`Stream`] turns the ids that come back into text, one complete character at a time;
//! 4. [`CallReader`] tells calls of tools from that text.
//!
//! On the way, a [`Grammar`] says which ids may come back at all.

mod vocabulary;

mod error;
mod tokenizer;

mod alphabet;
mod bpe;
mod canonical;
mod json;
mod json_bert;
mod pieces;
mod pretokenize;
mod spelled;
mod steps;

mod wordpiece;

mod charsmap;
mod json_unigram;
mod prefixes;
mod unigram;

mod stream;

mod chat;
mod date;
mod mutation;
mod pyjson;
mod tags;

mod calls;
mod grammar;
mod tools;

pub use calls::{Call, CallFormat, CallReader, Said, Tool};
pub use charsmap::Charsmap;
pub use chat::{Chat, ChatError, Conversation, Message};
pub use error::TokenizerError;
pub use grammar::{
    Grammar, GrammarError, Grammars, Otherwise, any_json_object_grammar, check_grammar,
    choice_grammar, json_schema_grammar, regex_grammar, tool_calls_grammar,
};
pub use pieces::merges_of_scores;
pub use pretokenize::PreTokenizer;
pub use stream::Stream;
pub use tokenizer::Tokenizer;
pub use unigram::{Spaces, Unigram};
pub use vocabulary::{TokenKind, Vocabulary};
pub use wordpiece::word_pieces_of_gguf;
