//! A request of the older completions API: prompts as they are, without a conversation.

use serde_json::Map;
use serde_json::value::RawValue;

use super::fields::{Fields, items, kind, string};
use super::sampling::{self, CHOICES_MAX, Sampling, choices, tokens};
use super::{Form, Problem, Prompt, Question, shape};

/// Output tokens where a request names no number.
const TOKENS_DEFAULT: u32 = 16;

/// Most alternatives to a token in this API.
const LOGPROBS_MAX: i64 = 5;

/// Tokens of one prompt that is given as tokens; no context is longer.
pub(super) const PROMPT_TOKENS_MAX: usize = 1 << 20;

/// Fields that have a meaning here, beside those of the sampling and the shape.
const KNOWN: &[&str] = &[
    "model",
    "prompt",
    "max_tokens",
    "n",
    "echo",
    "best_of",
    "suffix",
    "logprobs",
    "min_tokens",
    "stop_token_ids",
    "use_beam_search",
    "grammar",
    "prompt_logprobs",
    "add_special_tokens",
];

/// Fields that would change the answer and cannot, with the values that ask for nothing.
const UNSUPPORTED: &[(&str, &[&str])] = &[
    // A model that goes on from a prompt does not know what is to come after its answer.
    ("suffix", &["\"\""]),
    ("min_tokens", &["0"]),
    ("stop_token_ids", &["[]"]),
    ("use_beam_search", &["false"]),
    ("grammar", &["\"\""]),
    ("prompt_logprobs", &[]),
    ("add_special_tokens", &["true"]),
];

/// Reads a request's body.
///
/// # Errors
/// What is not JSON, with its place; what is missing, of the wrong type, out of range, or
/// not supported, by name.
pub(crate) fn parse(body: &[u8]) -> Result<Question, Problem> {
    let fields = Fields::of_body(body, &[KNOWN, sampling::FIELDS, shape::FIELDS])?;
    // Where none is named, the gateway may have a model for that.
    let model = fields.string("model")?.unwrap_or_default();
    let max_tokens = tokens(&fields, "max_tokens")?.unwrap_or(TOKENS_DEFAULT);
    // Of no tokens, nothing is told that could be taken for what it is not.
    if max_tokens != 0 {
        sampling::refuse(&fields, UNSUPPORTED)?;
    }
    let n = choices(&fields)?;
    let best_of = fields.integer("best_of", 0..=20)?.unwrap_or(0);
    if best_of > 1 && best_of != i64::from(n) {
        let message = format!("best_of is {best_of}, only n, which is {n}, is supported");
        return Err(Problem::unsupported("best_of", message));
    }
    let prompts = prompts(fields.get("prompt"))?;
    let wanted = prompts.len() * n as usize;
    if wanted > CHOICES_MAX as usize {
        let message = format!("{wanted} answers are asked for, at most {CHOICES_MAX}");
        return Err(Problem::invalid_value("prompt", message));
    }
    let (stream, include_usage) = sampling::stream(&fields)?;
    let echo = fields.boolean("echo")?.unwrap_or(false);
    let logprobs = fields.integer("logprobs", 0..=LOGPROBS_MAX)?;
    let logprobs = logprobs.and_then(|top| u8::try_from(top).ok()).filter(|_| max_tokens != 0);
    if echo && logprobs.is_some() {
        let message = "logprobs of the prompt are not supported, so echo is not with logprobs";
        return Err(Problem::unsupported("logprobs", message));
    }
    Ok(Question {
        model,
        prompts,
        n,
        calling: None,
        sampling: Sampling { logprobs, ..Sampling::read(&fields, Some(max_tokens))? },
        stream,
        include_usage,
        store: false,
        metadata: Map::new(),
        form: Form::Completion { echo },
    })
}

/// A prompt as text or as tokens, or a list of either.
fn prompts(raw: Option<&RawValue>) -> Result<Vec<Prompt>, Problem> {
    // Without a prompt the model begins a new text.
    let Some(raw) = raw else { return Ok(vec![Prompt::Text(String::new())]) };
    match kind(raw) {
        "a string" => return Ok(vec![Prompt::Text(string(raw, "prompt")?)]),
        "an array" => {}
        found => return Err(Problem::invalid_type("prompt", "a string or an array", found)),
    }
    let listed = items(raw, "prompt", PROMPT_TOKENS_MAX)?;
    match listed.first().map(|first| kind(first)) {
        None => Err(Problem::invalid_value("prompt", "prompt is empty")),
        Some("a number") => Ok(vec![Prompt::Tokens(ids(&listed, "prompt")?)]),
        Some(_) if listed.len() > CHOICES_MAX as usize => {
            let message = format!("prompt has {} prompts, at most {CHOICES_MAX}", listed.len());
            Err(Problem::invalid_value("prompt", message))
        }
        Some(_) => listed
            .iter()
            .enumerate()
            .map(|(place, raw)| one(raw, &format!("prompt[{place}]")))
            .collect(),
    }
}

/// One prompt of a list.
fn one(raw: &RawValue, name: &str) -> Result<Prompt, Problem> {
    match kind(raw) {
        "a string" => Ok(Prompt::Text(string(raw, name)?)),
        "an array" => {
            let listed = items(raw, name, PROMPT_TOKENS_MAX)?;
            if listed.is_empty() {
                return Err(Problem::invalid_value(name, format!("{name} is empty")));
            }
            Ok(Prompt::Tokens(ids(&listed, name)?))
        }
        found => Err(Problem::invalid_type(name, "a string or an array of tokens", found)),
    }
}

pub(super) fn ids(listed: &[&RawValue], name: &str) -> Result<Vec<u32>, Problem> {
    let ids = listed.iter().enumerate().map(|(place, raw)| {
        raw.get().parse::<u32>().map_err(|_| {
            let name = format!("{name}[{place}]");
            Problem::invalid_type(&name, "a token id", kind(raw))
        })
    });
    ids.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is made of a request with these fields beside a model: its prompts, or what is wrong.
    fn check(fields: &str, expected: &str) {
        let said = match parse(format!(r#"{{"model":"m"{fields}}}"#).as_bytes()) {
            Ok(question) => question.prompts.iter().map(Prompt::canonical).collect(),
            Err(problem) => format!("{}: {}", problem.code, problem.message),
        };
        assert_eq!(said, expected, "{fields}");
    }

    #[test]
    fn a_prompt_is_text_or_tokens_or_a_list_of_either() {
        check("", r#"{"prompt":""}"#);
        check(r#","prompt":"a b""#, r#"{"prompt":"a b"}"#);
        check(r#","prompt":["a","b"]"#, r#"{"prompt":"a"}{"prompt":"b"}"#);
        check(r#","prompt":[1,2]"#, r#"{"prompt":[1,2]}"#);
        check(r#","prompt":[[1],[2,3]]"#, r#"{"prompt":[1]}{"prompt":[2,3]}"#);
        check(r#","prompt":[]"#, "invalid_value: prompt is empty");
        check(r#","prompt":[[]]"#, "invalid_value: prompt[0] is empty");
        check(r#","prompt":[1,"a"]"#, "invalid_type: prompt[1] must be a token id, not a string");
        check(r#","prompt":[-1]"#, "invalid_type: prompt[0] must be a token id, not a number");
        check(
            r#","prompt":{}"#,
            "invalid_type: prompt must be a string or an array, not an object",
        );
    }

    #[test]
    fn what_the_older_api_asks_beyond_is_refused_by_name() {
        check(
            r#","suffix":"x""#,
            r#"unsupported_parameter: suffix is not supported, except as """#,
        );
        check(
            r#","best_of":3"#,
            "unsupported_parameter: best_of is 3, only n, which is 1, is supported",
        );
        check(r#","best_of":2,"n":2,"suffix":"""#, r#"{"prompt":""}"#);
        check(
            r#","prompt":["a","b"],"n":100"#,
            "invalid_value: 200 answers are asked for, at most 128",
        );
    }

    #[test]
    fn an_answer_is_short_unless_more_is_asked_for() {
        let most = |fields: &str| {
            let body = format!(r#"{{"model":"m","prompt":"a"{fields}}}"#);
            parse(body.as_bytes()).unwrap().sampling.max_tokens
        };
        assert_eq!((most(""), most(r#","max_tokens":99"#)), (Some(16), Some(99)));
    }

    proptest::proptest! {
        #[test]
        fn no_json_panics(body in "[\\[\\]{}:,\"a-z0-9. \\\\u-]{0,60}") {
            let _ = parse(format!("{{\"model\":\"m\",\"prompt\":{body}}}").as_bytes());
        }
    }
}
