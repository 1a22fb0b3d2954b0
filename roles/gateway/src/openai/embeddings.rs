//! Requests for embeddings, and their replies.
//!
//! Vectors come as integers, `Fx<30>` of length one, which is what receipts bind. Clients want floats:
//! each number is divided by 2^30 and rounded to the nearest binary32. A vector that is to be shorter
//! keeps its first numbers and is brought to length one again, in binary64.

use assay_protocol::Answer;
use serde::Serialize;
use serde_json::value::RawValue;

use super::completions::{PROMPT_TOKENS_MAX, ids};
use super::fields::{Fields, items, kind, string};
use super::reply::json;
use super::{Problem, Prompt};

/// Texts of one request.
const INPUTS_MAX: usize = 2048;

/// Fields that have a meaning here.
const KNOWN: &[&str] = &["model", "input", "encoding_format", "dimensions"];

/// The value of one, in the numbers of a vector.
pub(super) const ONE: f64 = (1u64 << 30) as f64;

/// A request for embeddings.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Embeddings {
    pub(crate) model: String,
    /// Texts, or their tokens; at least one, and none is empty.
    pub(crate) inputs: Vec<Prompt>,
    /// Whether numbers are told as bytes.
    base64: bool,
    /// Numbers of each vector, if fewer than the model gives.
    pub(crate) dimensions: Option<u32>,
}

/// The embedding of one input: its order, its tokens and its numbers.
#[derive(Clone, Debug)]
pub(crate) struct Embedding {
    pub(crate) answer: Box<Answer>,
}

#[derive(Serialize)]
struct Reply<'a> {
    object: &'static str,
    data: Vec<Item>,
    model: &'a str,
    usage: Usage,
    /// The receipt of an only embedding.
    #[serde(skip_serializing_if = "Option::is_none")]
    assay: Option<&'a Answer>,
}

#[derive(Serialize)]
struct Item {
    object: &'static str,
    index: usize,
    embedding: Numbers,
    /// What its receipt is found by.
    receipt: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Numbers {
    Floats(Vec<f32>),
    /// Binary32, little endian, in base64.
    Bytes(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

impl Embeddings {
    /// Reads the body of a request to tell texts apart, which has an input and a model alone.
    ///
    /// # Errors
    /// As [`Embeddings::parse`].
    pub(crate) fn parse_for_classes(body: &[u8]) -> Result<Self, Problem> {
        Self::read(&Fields::of_body(body, &[KNOWN])?)
    }

    /// What every request for vectors says.
    fn read(fields: &Fields<'_>) -> Result<Self, Problem> {
        // Where none is named, the gateway may have a model for that.
        let model = fields.string("model")?.unwrap_or_default();
        let inputs = inputs(fields.get("input").ok_or_else(|| Problem::missing("input"))?)?;
        Ok(Self { model, inputs, base64: false, dimensions: None })
    }

    /// Reads a request's body.
    ///
    /// # Errors
    /// What is not JSON, with its place; what is missing, of the wrong type, or out of range, by name.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Problem> {
        let fields = Fields::of_body(body, &[KNOWN])?;
        let asked = Self::read(&fields)?;
        let dimensions = fields.integer("dimensions", 1..=i64::from(u32::MAX))?;
        let base64 = match fields.string("encoding_format")?.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(other) => {
                let message = format!("encoding_format is {other:?}, expected float or base64");
                return Err(Problem::invalid_value("encoding_format", message));
            }
        };
        let dimensions = dimensions.and_then(|found| u32::try_from(found).ok());
        Ok(Self { base64, dimensions, ..asked })
    }

    /// The name of an input, for what is wrong with it.
    pub(crate) fn name(&self, index: usize) -> String {
        if self.inputs.len() == 1 { "input".into() } else { format!("input[{index}]") }
    }

    /// The reply with these embeddings, one for each input in their order, by a model of that name.
    pub(crate) fn reply(&self, model: &str, embeddings: &[Embedding]) -> String {
        let item = |(index, embedding): (usize, &Embedding)| Item {
            object: "embedding",
            index,
            embedding: self.numbers(embedding.vector()),
            receipt: embedding.answer.receipt.order.to_string(),
        };
        let tokens = embeddings.iter().map(|one| u64::from(one.answer.order.prompt_tokens)).sum();
        json(&Reply {
            object: "list",
            data: embeddings.iter().enumerate().map(item).collect(),
            model,
            usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
            assay: match embeddings {
                [only] => Some(&only.answer),
                _ => None,
            },
        })
    }

    fn numbers(&self, vector: &[i32]) -> Numbers {
        let floats = floats(vector, self.dimensions);
        if !self.base64 {
            return Numbers::Floats(floats);
        }
        let bytes: Vec<u8> = floats.into_iter().flat_map(f32::to_le_bytes).collect();
        Numbers::Bytes(base64(&bytes))
    }
}

impl Embedding {
    /// Its numbers, in `Fx<30>`.
    pub(super) fn vector(&self) -> &[i32] {
        self.answer.vector.as_deref().unwrap_or_default()
    }
}

/// The numbers of a vector, or the first of them brought to length one.
#[expect(clippy::cast_possible_truncation, reason = "rounded to what clients take")]
fn floats(vector: &[i32], dimensions: Option<u32>) -> Vec<f32> {
    let count = dimensions.map_or(vector.len(), |count| count as usize);
    if count >= vector.len() {
        return vector.iter().map(|value| (f64::from(*value) / ONE) as f32).collect();
    }
    let first = || vector[..count].iter().map(|value| f64::from(*value));
    let length = first().map(|value| value * value).sum::<f64>().sqrt();
    let unit = if length == 0.0 { 1.0 } else { length };
    first().map(|value| (value / unit) as f32).collect()
}

/// Bytes in base64, with padding.
fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A text or its tokens, or a list of either.
fn inputs(raw: &RawValue) -> Result<Vec<Prompt>, Problem> {
    let listed = match kind(raw) {
        "a string" => return Ok(vec![one(raw, "input")?]),
        "an array" => items(raw, "input", PROMPT_TOKENS_MAX)?,
        found => return Err(Problem::invalid_type("input", "a string or an array", found)),
    };
    match listed.first().map(|first| kind(first)) {
        None => Err(empty("input")),
        Some("a number") => Ok(vec![Prompt::Tokens(ids(&listed, "input")?)]),
        Some(_) if listed.len() > INPUTS_MAX => {
            let message = format!("input has {} texts, at most {INPUTS_MAX}", listed.len());
            Err(Problem::invalid_value("input", message))
        }
        Some(_) => {
            let named = listed.iter().enumerate();
            named.map(|(place, raw)| one(raw, &format!("input[{place}]"))).collect()
        }
    }
}

/// One text of a list, or its tokens.
fn one(raw: &RawValue, name: &str) -> Result<Prompt, Problem> {
    match kind(raw) {
        "a string" => match string(raw, name)? {
            text if text.is_empty() => Err(empty(name)),
            text => Ok(Prompt::Text(text)),
        },
        "an array" => match items(raw, name, PROMPT_TOKENS_MAX)? {
            listed if listed.is_empty() => Err(empty(name)),
            listed => Ok(Prompt::Tokens(ids(&listed, name)?)),
        },
        found => Err(Problem::invalid_type(name, "a string or an array of tokens", found)),
    }
}

fn empty(name: &str) -> Problem {
    Problem::invalid_value(name, format!("{name} is empty"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fields: &str, expected: Result<&[&str], &str>) {
        let found = Embeddings::parse(format!(r#"{{"model":"m"{fields}}}"#).as_bytes());
        let found = found
            .map(|asked| asked.inputs.iter().map(|input| format!("{input:?}")).collect::<Vec<_>>());
        let found = found.map_err(|problem| problem.message);
        let expected = expected.map(|list| list.iter().map(|&text| text.to_owned()).collect());
        assert_eq!(found, expected.map_err(str::to_owned), "{fields}");
    }

    #[test]
    fn inputs_have_four_forms() {
        check(r#","input":"a""#, Ok(&[r#"Text("a")"#]));
        check(r#","input":["a"," "]"#, Ok(&[r#"Text("a")"#, r#"Text(" ")"#]));
        check(r#","input":[5,6]"#, Ok(&["Tokens([5, 6])"]));
        check(
            r#","input":[[5],[6,7]],"encoding_format":"base64""#,
            Ok(&["Tokens([5])", "Tokens([6, 7])"]),
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        check("", Err("input is missing"));
        assert_eq!(Embeddings::parse(br#"{"input":"a"}"#).unwrap().model, "");
        check(r#","input":"""#, Err("input is empty"));
        check(r#","input":[]"#, Err("input is empty"));
        check(r#","input":["a",""]"#, Err("input[1] is empty"));
        check(r#","input":[[1],[]]"#, Err("input[1] is empty"));
        check(r#","input":1"#, Err("input must be a string or an array, not a number"));
        check(
            r#","input":["a",1]"#,
            Err("input[1] must be a string or an array of tokens, not a number"),
        );
        check(
            r#","input":"a","encoding_format":"x""#,
            Err(r#"encoding_format is "x", expected float or base64"#),
        );
        let many = format!(r#","input":[{}]"#, vec![r#""a""#; INPUTS_MAX + 1].join(","));
        check(&many, Err("input has 2049 texts, at most 2048"));
    }

    #[test]
    fn numbers_are_told_as_floats() {
        let vector = [1 << 29, -(1 << 30), 0, 3];
        assert_eq!(floats(&vector, None), [0.5, -1.0, 0.0, 2.793_967_7e-9]);
        assert_eq!(floats(&[3, -4, 9], Some(2)), [0.6, -0.8]);
        assert_eq!(floats(&[0, 0, 9], Some(2)), [0.0, 0.0]);
        assert_eq!(floats(&[3, -4], Some(2)).len(), 2);
        let bytes: Vec<u8> = [0.5f32, -1.0].into_iter().flat_map(f32::to_le_bytes).collect();
        assert_eq!(base64(&bytes), "AAAAPwAAgL8=");
    }
}
