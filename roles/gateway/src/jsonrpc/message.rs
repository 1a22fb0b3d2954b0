//! JSON-RPC 2.0's envelope. Source: jsonrpc.org/specification.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::openai::Problem;

/// A call as it came.
#[derive(Debug, Deserialize)]
pub(super) struct Call {
    jsonrpc: String,
    /// What the answer repeats. Absent for a notification, which gets none.
    #[serde(default, deserialize_with = "some")]
    pub(super) id: Option<Value>,
    pub(super) method: String,
    #[serde(default)]
    params: Option<Box<RawValue>>,
}

/// What one text holds. A batch's bad members do not spoil the others.
#[derive(Debug)]
pub(super) enum Calls {
    One(Call),
    Batch(Vec<Result<Call, Error>>),
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("parse error: {0}")]
    Parse(String),
    #[error("invalid request: {0}")]
    Request(String),
    #[error("the method {0:?} does not exist; rpc.discover lists those that do")]
    Method(String),
    #[error("invalid params: {0}")]
    Params(String),
    #[error("{}", .0.message)]
    Problem(Box<Problem>),
}

impl Error {
    fn code(&self) -> i32 {
        match self {
            Self::Parse(_) => -32700,
            Self::Request(_) => -32600,
            Self::Method(_) => -32601,
            Self::Params(_) => -32602,
            // What the client can mend is its parameters' fault, all else the server's.
            Self::Problem(problem) if problem.param.is_some() => -32602,
            Self::Problem(problem) if problem.status.as_u16() == 500 => -32603,
            Self::Problem(_) => -32000,
        }
    }

    pub(super) fn value(&self) -> Value {
        let mut error = json!({ "code": self.code(), "message": self.to_string() });
        if let Self::Problem(problem) = self {
            error["data"] = json!({
                "code": problem.code,
                "param": problem.param,
                "status": problem.status.as_u16(),
                "retryAfter": problem.retry_after_s,
            });
            if let Some(facts) = &problem.facts {
                error["data"]["facts"] = (**facts).clone();
            }
        }
        error
    }
}

/// `null` is an id, if a strange one; an absent one is none.
fn some<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

/// Reads a text; at most `batch_max` calls.
pub(super) fn read(text: &[u8], batch_max: usize) -> Result<Calls, Error> {
    let parse = |error: serde_json::Error| Error::Parse(error.to_string());
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'[') {
        let whole: &RawValue = serde_json::from_slice(text).map_err(parse)?;
        return one(whole).map(Calls::One);
    }
    let members: Vec<&RawValue> = serde_json::from_slice(text).map_err(parse)?;
    match members.len() {
        0 => Err(Error::Request("a batch holds at least one call".into())),
        found if found > batch_max => {
            Err(Error::Request(format!("a batch of {found} calls, at most {batch_max}")))
        }
        _ => Ok(Calls::Batch(members.into_iter().map(one).collect())),
    }
}

fn one(text: &RawValue) -> Result<Call, Error> {
    let call: Call =
        serde_json::from_str(text.get()).map_err(|error| Error::Request(error.to_string()))?;
    if call.jsonrpc != "2.0" {
        return Err(Error::Request(format!("jsonrpc is {:?}, expected \"2.0\"", call.jsonrpc)));
    }
    match &call.id {
        None | Some(Value::String(_) | Value::Number(_) | Value::Null) => Ok(call),
        Some(_) => Err(Error::Request("an id is a string, a number or null".into())),
    }
}

impl Call {
    /// The only parameter, given by position or as the whole of `params`.
    pub(super) fn param(&self) -> Result<&RawValue, Error> {
        let params = self.params.as_deref();
        let params = params.ok_or_else(|| Error::Params("one is needed".into()))?;
        if !params.get().starts_with('[') {
            return Ok(params);
        }
        let positions = self.positions()?;
        match positions.as_slice() {
            [only] => Ok(only),
            _ => Err(Error::Params(format!("{} are given, expected one", positions.len()))),
        }
    }

    /// The only two parameters, given by position.
    pub(super) fn pair(&self) -> Result<[&RawValue; 2], Error> {
        let positions = self.positions()?;
        let found = positions.len();
        positions
            .try_into()
            .map_err(|_| Error::Params(format!("{found} are given by position, expected two")))
    }

    /// All parameters, given by position.
    pub(super) fn positions(&self) -> Result<Vec<&RawValue>, Error> {
        let Some(params) = self.params.as_deref() else { return Ok(Vec::new()) };
        serde_json::from_str(params.get()).map_err(|error| Error::Params(error.to_string()))
    }
}

/// An answer's text.
pub(super) fn answer_line(id: Option<&Value>, outcome: Result<Box<RawValue>, Error>) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        jsonrpc: &'static str,
        id: Option<&'a Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        result: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<Value>,
    }
    let (result, error) = match &outcome {
        Ok(result) => (Some(&**result), None),
        Err(error) => (None, Some(error.value())),
    };
    let line = Line { jsonrpc: "2.0", id, result, error };
    serde_json::to_string(&line).expect("a line is plain values")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> i32 {
        match read(text.as_bytes(), 2) {
            Err(error) => error.code(),
            Ok(Calls::One(_)) => 0,
            Ok(Calls::Batch(calls)) => i32::try_from(calls.len()).unwrap(),
        }
    }

    #[test]
    fn what_is_no_call_is_refused_by_its_number() {
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#), 0);
        assert_eq!(code(r#" [{"jsonrpc":"2.0","method":"a"},7]"#), 2);
        for (text, expected) in [
            ("", -32700),
            ("{", -32700),
            (r#"{"jsonrpc":"2.0"}"#, -32600),
            (r#"{"jsonrpc":"1.0","id":1,"method":"a"}"#, -32600),
            (r#"{"jsonrpc":"2.0","id":{},"method":"a"}"#, -32600),
            ("[]", -32600),
            ("[1,2,3]", -32600),
            ("7", -32600),
        ] {
            assert_eq!(code(text), expected, "{text}");
        }
        assert_eq!(code(&"[".repeat(100_000)), -32700);
    }

    #[test]
    fn a_parameter_comes_either_way() {
        let param = |params: &str| {
            let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{params}}}"#);
            let Ok(Calls::One(call)) = read(text.as_bytes(), 1) else { panic!("{text}") };
            call.param().map(|param| param.get().to_owned()).map_err(|error| error.code())
        };
        assert_eq!(param(r#"{"x":1}"#), Ok(r#"{"x":1}"#.into()));
        assert_eq!(param(r#"["x"]"#), Ok(r#""x""#.into()));
        assert_eq!(param("[]"), Err(-32602));
        assert_eq!(param("[1,2]"), Err(-32602));
    }

    #[test]
    fn null_is_an_id() {
        let id = |text: &str| match read(text.as_bytes(), 1) {
            Ok(Calls::One(call)) => call.id,
            _ => panic!("{text}"),
        };
        assert_eq!(id(r#"{"jsonrpc":"2.0","id":null,"method":"a"}"#), Some(Value::Null));
        assert_eq!(id(r#"{"jsonrpc":"2.0","method":"a"}"#), None);
    }
}
