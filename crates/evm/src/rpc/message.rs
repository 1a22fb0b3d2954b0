//! JSON-RPC 2.0 as it stands on the wire: what was asked, and what is answered.
//!
//! A request is looked at once and its parameters stay text until the method that knows their types
//! reads them. An answer is text too, made where its value is, so that nothing is built twice.

use std::borrow::Cow;
use std::fmt;

use alloy_primitives::{B256, Bytes};
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// What a method gives: the text of its result, or why there is none.
pub type Answer = Result<Box<RawValue>, Error>;

/// The text of `value`.
pub fn answer<T: Serialize>(value: &T) -> Answer {
    serde_json::value::to_raw_value(value)
        .map_err(|error| Error::Internal(format!("an answer has no text: {error}")))
}

/// Why a call has no result. The codes are those of JSON-RPC 2.0, EIP-1474 and geth.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request is no JSON.
    #[error("parse error: {0}")]
    Parse(String),
    /// The request is JSON, but no call.
    #[error("invalid request: {0}")]
    Request(String),
    /// Nobody here answers this method.
    #[error("the method {0} does not exist or is not available")]
    Method(String),
    /// A parameter is missing or is not what the method takes.
    #[error("invalid argument {index}: {reason}")]
    Argument {
        /// Which, from 0.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The parameters are each well formed, but make no sense together.
    #[error("{0}")]
    Arguments(String),
    /// The server failed, not who asked.
    #[error("{0}")]
    Internal(String),
    /// What was asked cannot be done.
    #[error("{0}")]
    Failed(String),
    /// Code stopped with `REVERT`.
    #[error("execution reverted{}{reason}", if reason.is_empty() { "" } else { ": " })]
    Reverted {
        /// The reason in words, when the data follows Solidity's convention.
        reason: String,
        /// What the code returned.
        data: Bytes,
    },
    /// More was asked than is given; the message says how to ask for less.
    #[error("{0}")]
    Limit(String),
    /// The answer is longer than may be sent.
    #[error("the answer is longer than {bytes_max} bytes")]
    Long {
        /// Longest answer.
        bytes_max: usize,
    },
    /// What was asked for is no longer kept.
    #[error("{0}")]
    Pruned(String),
    /// The transaction was taken, but stands in no block yet.
    #[error("the transaction is in no block after {wait_ms} ms")]
    Pending {
        /// How long was waited.
        wait_ms: u64,
        /// The transaction.
        hash: B256,
    },
    /// An error with a code of its own, as some methods define.
    #[error("{message}")]
    Other {
        /// The code.
        code: i32,
        /// What happened.
        message: String,
    },
}

impl Error {
    /// The number by which programs tell errors apart.
    pub fn code(&self) -> i32 {
        match self {
            Self::Parse(_) => -32700,
            Self::Request(_) => -32600,
            Self::Method(_) => -32601,
            Self::Argument { .. } | Self::Arguments(_) => -32602,
            Self::Internal(_) => -32603,
            Self::Failed(_) => -32000,
            Self::Long { .. } => -32003,
            Self::Limit(_) => -32005,
            Self::Reverted { .. } => 3,
            Self::Pending { .. } => 4,
            Self::Pruned(_) => 4444,
            Self::Other { code, .. } => *code,
        }
    }

    fn data(&self) -> Option<String> {
        match self {
            Self::Reverted { data, .. } => Some(data.to_string()),
            Self::Pending { hash, .. } => Some(hash.to_string()),
            _ => None,
        }
    }
}

#[derive(Serialize)]
struct ErrorBody {
    code: i32,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
}

/// One call, its parts still in the text that was sent.
#[derive(Debug, Deserialize)]
pub(crate) struct Call<'a> {
    /// What the answer will be marked with; a call without it wants no answer.
    #[serde(borrow, default, deserialize_with = "present")]
    pub(crate) id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) method: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) params: Option<&'a RawValue>,
}

/// An `id` of `null` is an id, other than none.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// Longest id that is repeated in an answer, in bytes.
const ID_BYTES_MAX: usize = 256;

impl<'a> Call<'a> {
    /// Reads one call.
    pub(crate) fn read(text: &'a str) -> Result<Self, Error> {
        let call: Self =
            serde_json::from_str(text).map_err(|error| Error::Request(error.to_string()))?;
        match call.id.map(RawValue::get) {
            Some(id) if id.len() > ID_BYTES_MAX => {
                Err(Error::Request(format!("an id has at most {ID_BYTES_MAX} bytes")))
            }
            Some(id) if id.starts_with(['{', '[', 't', 'f']) => {
                Err(Error::Request("an id is a number, a text or null".into()))
            }
            _ => Ok(call),
        }
    }
}

/// What came in one body or one WebSocket message.
#[derive(Debug)]
pub(crate) enum Asked<'a> {
    One(&'a str),
    /// In their order; answered in one array.
    Batch(Vec<&'a RawValue>),
}

impl<'a> Asked<'a> {
    /// Tells a call from a batch of at most `batch_max`, each of which is still to be read.
    pub(crate) fn read(body: &'a [u8], batch_max: usize) -> Result<Self, Error> {
        let text = std::str::from_utf8(body).map_err(|error| Error::Parse(error.to_string()))?;
        if !text.trim_start().starts_with('[') {
            // Whether it is JSON at all decides between two codes.
            let whole: &RawValue =
                serde_json::from_str(text).map_err(|error| Error::Parse(error.to_string()))?;
            return Ok(Self::One(whole.get()));
        }
        let (calls, all) =
            first_of(text, batch_max).map_err(|error| Error::Parse(error.to_string()))?;
        match all {
            false => Err(Error::Limit(format!("a batch has at most {batch_max} calls"))),
            true if calls.is_empty() => Err(Error::Request("an empty batch".into())),
            true => Ok(Self::Batch(calls)),
        }
    }
}

/// The first `max` entries of an array, and whether they are all. The others are read past, so a
/// long array takes no more memory than a short one.
pub(crate) fn first_of(
    text: &str,
    max: usize,
) -> Result<(Vec<&RawValue>, bool), serde_json::Error> {
    let mut from = serde_json::Deserializer::from_str(text);
    let read = from.deserialize_seq(First { max })?;
    from.end().map(|()| read)
}

struct First {
    max: usize,
}

impl<'de> Visitor<'de> for First {
    type Value = (Vec<&'de RawValue>, bool);

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut first = Vec::new();
        while first.len() < self.max {
            match array.next_element()? {
                Some(entry) => first.push(entry),
                None => return Ok((first, true)),
            }
        }
        let mut all = true;
        while array.next_element::<de::IgnoredAny>()?.is_some() {
            all = false;
        }
        Ok((first, all))
    }
}

/// Appends the answer to the call `id` to `out`.
pub(crate) fn write_answer(out: &mut Vec<u8>, id: Option<&RawValue>, answer: &Answer) {
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id.map_or("null", RawValue::get).as_bytes());
    match answer {
        Ok(result) => {
            out.extend_from_slice(br#","result":"#);
            out.extend_from_slice(result.get().as_bytes());
        }
        Err(error) => {
            out.extend_from_slice(br#","error":"#);
            write_error(out, error);
        }
    }
    out.push(b'}');
}

fn write_error(out: &mut Vec<u8>, error: &Error) {
    let body = ErrorBody { code: error.code(), message: error.to_string(), data: error.data() };
    let start = out.len();
    if serde_json::to_writer(&mut *out, &body).is_err() {
        // Strings and numbers always have a text; this keeps the answer well formed all the same.
        out.truncate(start);
        out.extend_from_slice(br#"{"code":-32603,"message":"internal error"}"#);
    }
}

/// The text of a notification about `subscription`.
pub(crate) fn notification(subscription: &str, result: &RawValue) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"eth_subscription","params":{{"subscription":"{subscription}","result":{result}}}}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(body: &str) -> i32 {
        match Asked::read(body.as_bytes(), 2) {
            Err(error) => error.code(),
            Ok(Asked::One(text)) => Call::read(text).map_or_else(|error| error.code(), |_| 0),
            Ok(Asked::Batch(_)) => 1,
        }
    }

    #[test]
    fn what_is_no_call_has_the_code_that_says_so() {
        for (body, expected) in [
            ("", -32700),
            ("{", -32700),
            ("nonsense", -32700),
            ("[1,", -32700),
            ("[{}]x", -32700),
            ("{}", -32600),
            ("1", -32600),
            ("null", -32600),
            (r#"{"method":1}"#, -32600),
            (r#"{"method":"a","id":{}}"#, -32600),
            (r#"{"method":"a","id":[1]}"#, -32600),
            ("[]", -32600),
            ("[1,2,3]", -32005),
            ("[1,2]", 1),
            (r#"{"method":"a","id":null}"#, 0),
            (r#" {"jsonrpc":"2.0","method":"a","params":{"x":[1]},"id":"x","more":1} "#, 0),
        ] {
            assert_eq!(code(body), expected, "{body}");
        }
        assert_eq!(Asked::read(&[0xff, 0xfe], 2).unwrap_err().code(), -32700);
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert!(
            matches!(Asked::read(deep.as_bytes(), 2), Ok(Asked::Batch(calls)) if calls.len() == 1)
        );
        let call = format!(r#"{{"method":"a","params":{deep}}}"#);
        assert_eq!(code(&call), 0);
    }

    #[test]
    fn no_id_is_not_the_id_null() {
        assert!(Call::read(r#"{"method":"a"}"#).unwrap().id.is_none());
        assert!(Call::read(r#"{"method":"a","id":null}"#).unwrap().id.is_some());
    }

    #[test]
    fn an_answer_repeats_the_id_as_it_was() {
        let call = Call::read(r#"{"method":"a","id":"x\n"}"#).unwrap();
        let mut out = Vec::new();
        write_answer(&mut out, call.id, &answer(&7));
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"jsonrpc":"2.0","id":"x\n","result":7}"#);
        let reverted = Error::Reverted { reason: String::new(), data: Bytes::from_static(&[1]) };
        let mut out = Vec::new();
        write_answer(&mut out, None, &Err(reverted));
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":3,"message":"execution reverted","data":"0x01"}}"#
        );
    }
}
