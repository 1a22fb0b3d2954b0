//! A chat request as it arrives, in our words.

use std::collections::BTreeMap;

use assay_text::Message;
use serde_json::value::RawValue;

use super::Problem;
use super::fields::{Fields, entries, items, kind, number, string};

/// Messages of one conversation.
const MESSAGES_MAX: usize = 8192;

/// Text parts of one message.
const PARTS_MAX: usize = 1024;

/// Stop strings of one request.
const STOPS_MAX: usize = 4;

/// Bytes of one stop string. As tokens it is no longer, so providers take it.
const STOP_BYTES_MAX: usize = 256;

/// Logit biases of one request.
const BIASES_MAX: usize = 4096;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ChatRequest {
    pub(crate) model: String,
    pub(crate) messages: Vec<Message>,
    /// Most output tokens; what the context leaves if not given.
    pub(crate) max_tokens: Option<u32>,
    pub(crate) temperature: f64,
    pub(crate) top_p: f64,
    pub(crate) min_p: f64,
    /// Zero keeps all.
    pub(crate) top_k: u32,
    pub(crate) seed: Option<i64>,
    /// None is empty.
    pub(crate) stop: Vec<String>,
    pub(crate) frequency_penalty: f64,
    pub(crate) presence_penalty: f64,
    pub(crate) repetition_penalty: f64,
    pub(crate) logit_bias: BTreeMap<u32, f64>,
    pub(crate) stream: bool,
    /// Whether a stream ends with a chunk of usage.
    pub(crate) include_usage: bool,
}

/// Fields that have a meaning here.
const KNOWN: &[&str] = &[
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "min_p",
    "top_k",
    "seed",
    "stop",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "logit_bias",
    "stream",
    "stream_options",
    "n",
    "logprobs",
    "top_logprobs",
    "tools",
    "tool_choice",
    "functions",
    "function_call",
    "response_format",
    "modalities",
    "audio",
    "prediction",
    "web_search_options",
    "best_of",
    "ignore_eos",
    "min_tokens",
    "stop_token_ids",
    "use_beam_search",
    "structured_outputs",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "grammar",
    "json_schema",
    "chat_template",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
    "prompt_logprobs",
    "echo",
];

/// Fields that would change the answer and cannot, with the values that ask for nothing. White
/// space between tokens is left out.
const UNSUPPORTED: &[(&str, &[&str])] = &[
    ("top_logprobs", &["0"]),
    ("tools", &["[]"]),
    ("tool_choice", &["\"none\"", "\"auto\""]),
    ("functions", &["[]"]),
    ("function_call", &["\"none\"", "\"auto\""]),
    ("response_format", &["{\"type\":\"text\"}"]),
    ("modalities", &["[\"text\"]"]),
    ("audio", &[]),
    ("prediction", &[]),
    ("web_search_options", &[]),
    ("best_of", &["1"]),
    ("ignore_eos", &["false"]),
    ("min_tokens", &["0"]),
    ("stop_token_ids", &["[]"]),
    ("use_beam_search", &["false"]),
    ("structured_outputs", &[]),
    ("guided_json", &[]),
    ("guided_regex", &[]),
    ("guided_choice", &[]),
    ("guided_grammar", &[]),
    ("grammar", &["\"\""]),
    ("json_schema", &[]),
    ("chat_template", &[]),
    ("chat_template_kwargs", &["{}"]),
    ("add_generation_prompt", &["true"]),
    ("continue_final_message", &["false"]),
    ("prompt_logprobs", &[]),
    ("echo", &["false"]),
];

impl ChatRequest {
    /// Reads a request's body.
    ///
    /// # Errors
    /// What is not JSON, with its place; what is missing, of the wrong type, out of range, or
    /// not supported, by name.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Problem> {
        let fields = Fields::of_body(body, KNOWN)?;
        let model = fields.string("model")?.ok_or_else(|| Problem::missing("model"))?;
        let messages = fields.get("messages").ok_or_else(|| Problem::missing("messages"))?;
        refuse_unsupported(&fields)?;
        let stream = fields.boolean("stream")?.unwrap_or(false);
        Ok(Self {
            model,
            messages: conversation(messages)?,
            max_tokens: max_tokens(&fields)?,
            temperature: fields.number("temperature", 0.0..=2.0)?.unwrap_or(1.0),
            top_p: fields.number("top_p", 0.0..=1.0)?.unwrap_or(1.0),
            min_p: fields.number("min_p", 0.0..=1.0)?.unwrap_or(0.0),
            top_k: top_k(&fields)?,
            seed: fields.integer("seed", i64::MIN..=i64::MAX)?,
            stop: stop(&fields)?,
            frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0),
            presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0),
            repetition_penalty: fields.number("repetition_penalty", 0.0625..=16.0)?.unwrap_or(1.0),
            logit_bias: logit_bias(&fields)?,
            stream,
            include_usage: include_usage(&fields, stream)?,
        })
    }
}

fn refuse_unsupported(fields: &Fields<'_>) -> Result<(), Problem> {
    if let Some(n) = fields.integer("n", 1..=i64::MAX)?
        && n != 1
    {
        return Err(Problem::unsupported("n", format!("n is {n}, only 1 is supported")));
    }
    if fields.boolean("logprobs")? == Some(true) {
        return Err(Problem::unsupported("logprobs", "logprobs are not supported"));
    }
    for (name, allowed) in UNSUPPORTED {
        let Some(raw) = fields.get(name) else { continue };
        if !allowed.contains(&compact(raw).as_str()) {
            let message = match allowed {
                [] => format!("{name} is not supported"),
                _ => format!("{name} is not supported, except as {}", allowed.join(" or ")),
            };
            return Err(Problem::unsupported(name, message));
        }
    }
    Ok(())
}

/// The start of a value without white space; enough to tell the values that ask for nothing.
fn compact(raw: &RawValue) -> String {
    raw.get().chars().filter(|c| !c.is_ascii_whitespace()).take(64).collect()
}

fn conversation(raw: &RawValue) -> Result<Vec<Message>, Problem> {
    let turns = items(raw, "messages", MESSAGES_MAX)?;
    if turns.is_empty() {
        return Err(Problem::invalid_value("messages", "messages is empty"));
    }
    turns.into_iter().enumerate().map(|(index, turn)| message(turn, index)).collect()
}

fn message(raw: &RawValue, index: usize) -> Result<Message, Problem> {
    let known = &["role", "content", "tool_calls", "function_call", "audio"];
    let fields = Fields::of(raw, format!("messages[{index}]"), known)?;
    let name = fields.name("role");
    let role = match fields.string("role")?.ok_or_else(|| Problem::missing(&name))?.as_str() {
        // The newer word for the same thing; templates know the older one.
        "developer" | "system" => "system",
        "user" => "user",
        "assistant" => "assistant",
        "tool" | "function" => {
            return Err(Problem::unsupported(&name, "tools are not supported"));
        }
        other => {
            let expected = "expected system, developer, user or assistant";
            return Err(Problem::invalid_value(&name, format!("{name} is {other:?}, {expected}")));
        }
    };
    for field in ["tool_calls", "function_call", "audio"] {
        if fields.get(field).is_some_and(|raw| raw.get() != "[]") {
            let name = fields.name(field);
            return Err(Problem::unsupported(&name, format!("{name} is not supported")));
        }
    }
    let name = fields.name("content");
    let content = fields.get("content").ok_or_else(|| Problem::missing(&name))?;
    Ok(Message { role: role.into(), content: text(content, &name)? })
}

/// A message's text: a string, or text parts, which become lines.
fn text(raw: &RawValue, name: &str) -> Result<String, Problem> {
    match kind(raw) {
        "a string" => string(raw, name),
        "an array" => {
            let parts = items(raw, name, PARTS_MAX)?;
            let texts = parts.into_iter().enumerate().map(|(index, part)| {
                let fields = Fields::of(part, format!("{name}[{index}]"), &["type", "text"])?;
                let kind = fields.name("type");
                match fields.string("type")?.ok_or_else(|| Problem::missing(&kind))?.as_str() {
                    "text" => {
                        let name = fields.name("text");
                        fields.string("text")?.ok_or_else(|| Problem::missing(&name))
                    }
                    other => {
                        let message =
                            format!("content of type {other:?} is not supported, only text");
                        Err(Problem::unsupported(&kind, message))
                    }
                }
            });
            Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
        }
        found => Err(Problem::invalid_type(name, "a string or an array of parts", found)),
    }
}

fn max_tokens(fields: &Fields<'_>) -> Result<Option<u32>, Problem> {
    let range = || 1..=i64::from(u32::MAX);
    let old = fields.integer("max_tokens", range())?;
    let new = fields.integer("max_completion_tokens", range())?;
    if old.is_some() && new.is_some() {
        let message = "max_tokens and max_completion_tokens mean the same, give one";
        return Err(Problem::invalid_value("max_tokens", message));
    }
    Ok(new.or(old).and_then(|tokens| u32::try_from(tokens).ok()))
}

fn top_k(fields: &Fields<'_>) -> Result<u32, Problem> {
    // Some clients say -1 for all.
    let top_k = fields.integer("top_k", -1..=i64::from(u32::MAX))?.unwrap_or(0);
    Ok(u32::try_from(top_k).unwrap_or(0))
}

fn stop(fields: &Fields<'_>) -> Result<Vec<String>, Problem> {
    let Some(raw) = fields.get("stop") else { return Ok(Vec::new()) };
    let stops = match kind(raw) {
        "a string" => vec![string(raw, "stop")?],
        "an array" => {
            let named = items(raw, "stop", STOPS_MAX)?.into_iter().enumerate();
            named
                .map(|(index, raw)| string(raw, &format!("stop[{index}]")))
                .collect::<Result<_, _>>()?
        }
        found => return Err(Problem::invalid_type("stop", "a string or an array", found)),
    };
    if stops.iter().any(String::is_empty) {
        return Err(Problem::invalid_value("stop", "a stop string is empty"));
    }
    if let Some(long) = stops.iter().find(|stop| stop.len() > STOP_BYTES_MAX) {
        let message = format!("a stop string has {} bytes, at most {STOP_BYTES_MAX}", long.len());
        return Err(Problem::too_long("stop", message));
    }
    Ok(stops)
}

fn logit_bias(fields: &Fields<'_>) -> Result<BTreeMap<u32, f64>, Problem> {
    let Some(raw) = fields.get("logit_bias") else { return Ok(BTreeMap::new()) };
    let biases = entries(raw, "logit_bias", BIASES_MAX)?.into_iter().map(|(token, raw)| {
        let id = token.parse::<u32>().map_err(|_| {
            let message = format!("logit_bias names {token:?}, which is not a token id");
            Problem::invalid_value("logit_bias", message)
        })?;
        Ok((id, number(raw, &format!("logit_bias[{token}]"), &(-100.0..=100.0))?))
    });
    biases.collect()
}

fn include_usage(fields: &Fields<'_>, stream: bool) -> Result<bool, Problem> {
    let Some(raw) = fields.get("stream_options") else { return Ok(false) };
    if !stream {
        let message = "stream_options is only for requests with stream set to true";
        return Err(Problem::invalid_value("stream_options", message));
    }
    let options = Fields::of(raw, "stream_options".into(), &["include_usage"])?;
    Ok(options.boolean("include_usage")?.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is made of a request with these fields beside a model and a message.
    fn check(fields: &str, expected: &str) {
        let body =
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{fields}}}"#);
        body_is(&body, expected);
    }

    fn body_is(body: &str, expected: &str) {
        let said = match ChatRequest::parse(body.as_bytes()) {
            Ok(_) => "ok".into(),
            Err(problem) => format!(
                "{} {}: {}",
                problem.code,
                problem.param.as_deref().unwrap_or("-"),
                problem.message
            ),
        };
        assert_eq!(said, expected, "{body}");
    }

    #[test]
    fn good_requests_are_read() {
        let body = br#"{"model":"m","messages":[{"role":"developer","content":"be brief"},
            {"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}],
            "max_completion_tokens":7,"temperature":0,"top_k":-1,"seed":-3,"stop":"x",
            "logit_bias":{"5":-100,"4":1.5},"stream":true,"stream_options":{"include_usage":true},
            "user":"u","metadata":{"a":"b"},"store":true,"service_tier":"auto","unheard":[{}]}"#;
        let request = ChatRequest::parse(body).unwrap();
        assert_eq!(request.messages[0].role, "system");
        assert_eq!(request.messages[1].content, "a\nb");
        assert_eq!((request.max_tokens, request.top_k, request.seed), (Some(7), 0, Some(-3)));
        assert_eq!(request.logit_bias.into_iter().collect::<Vec<_>>(), [(4, 1.5), (5, -100.0)]);
        assert!(request.stream && request.include_usage);
        assert_eq!(request.stop, ["x"]);
    }

    #[test]
    fn what_asks_for_nothing_is_accepted() {
        check(r#","n":1,"logprobs":false,"tools":[],"tool_choice":"auto""#, "ok");
        check(r#","response_format":{ "type" : "text" },"modalities":["text"]"#, "ok");
        check(r#","temperature":null,"stop":null,"stream_options":null,"tools":null"#, "ok");
        check(r#","max_tokens":5,"temperature":2,"top_p":0"#, "ok");
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        check(r#","n":2"#, "unsupported_parameter n: n is 2, only 1 is supported");
        check(r#","logprobs":true"#, "unsupported_parameter logprobs: logprobs are not supported");
        check(
            r#","tools":[{"type":"function"}]"#,
            "unsupported_parameter tools: tools is not supported, except as []",
        );
        check(
            r#","response_format":{"type":"json_object"}"#,
            r#"unsupported_parameter response_format: response_format is not supported, except as {"type":"text"}"#,
        );
        check(r#","audio":{}"#, "unsupported_parameter audio: audio is not supported");
    }

    #[test]
    fn wrong_types_and_ranges_are_told_apart() {
        check(
            r#","temperature":"hot""#,
            "invalid_type temperature: temperature must be a number, not a string",
        );
        check(
            r#","temperature":2.1"#,
            "invalid_value temperature: temperature is 2.1, expected 0 to 2",
        );
        check(
            r#","temperature":-1e400"#,
            "invalid_value temperature: temperature is -1e400, expected 0 to 2",
        );
        check(
            r#","max_tokens":1.5"#,
            "invalid_type max_tokens: max_tokens must be an integer, not a fraction",
        );
        check(
            r#","max_tokens":0"#,
            "invalid_value max_tokens: max_tokens is 0, expected 1 to 4294967295",
        );
        check(
            r#","seed":9223372036854775808"#,
            "invalid_value seed: seed is 9223372036854775808, expected -9223372036854775808 to 9223372036854775807",
        );
        check(r#","stream":1"#, "invalid_type stream: stream must be a boolean, not a number");
        check(r#","stop":["a",1]"#, "invalid_type stop[1]: stop[1] must be a string, not a number");
        check(r#","stop":["a","b","c","d","e"]"#, "invalid_value stop: stop has more than 4 items");
        check(r#","stop":"""#, "invalid_value stop: a stop string is empty");
        check(
            r#","logit_bias":{"x":1}"#,
            r#"invalid_value logit_bias: logit_bias names "x", which is not a token id"#,
        );
        check(
            r#","logit_bias":{"1":101}"#,
            "invalid_value logit_bias[1]: logit_bias[1] is 101, expected -100 to 100",
        );
        check(
            r#","max_tokens":1,"max_completion_tokens":1"#,
            "invalid_value max_tokens: max_tokens and max_completion_tokens mean the same, give one",
        );
        check(
            r#","stream_options":{"include_usage":true}"#,
            "invalid_value stream_options: stream_options is only for requests with stream set to true",
        );
    }

    #[test]
    fn bodies_that_are_no_request_say_where() {
        body_is(
            "{",
            "invalid_json -: the body is not a JSON object: EOF while parsing an object at line 1 column 1",
        );
        body_is(
            "[]",
            "invalid_json -: the body is not a JSON object: invalid type: sequence, expected an object at line 1 column 0",
        );
        body_is(
            "{} x",
            "invalid_json -: the body is not a JSON object: trailing characters at line 1 column 4",
        );
        body_is("{}", "missing_required_parameter model: model is missing");
        body_is(r#"{"model":"m"}"#, "missing_required_parameter messages: messages is missing");
        body_is(
            r#"{"model":1,"messages":[]}"#,
            "invalid_type model: model must be a string, not a number",
        );
        body_is(r#"{"model":"m","messages":[]}"#, "invalid_value messages: messages is empty");
        body_is(
            r#"{"model":"m","messages":{}}"#,
            "invalid_type messages: messages must be an array, not an object",
        );
    }

    #[test]
    fn messages_are_named_by_their_place() {
        let check = |message: &str, expected: &str| {
            body_is(&format!(r#"{{"model":"m","messages":[{message}]}}"#), expected);
        };
        check("1", "invalid_type messages[0]: messages[0] must be an object, not a number");
        check(
            r#"{"role":"user"}"#,
            "missing_required_parameter messages[0].content: messages[0].content is missing",
        );
        check(
            r#"{"role":"owl","content":""}"#,
            r#"invalid_value messages[0].role: messages[0].role is "owl", expected system, developer, user or assistant"#,
        );
        check(
            r#"{"role":"user","content":[{"type":"image_url"}]}"#,
            r#"unsupported_parameter messages[0].content[0].type: content of type "image_url" is not supported, only text"#,
        );
        check(
            r#"{"role":"user","content":"\ud800"}"#,
            "invalid_value messages[0].content: messages[0].content: unexpected end of hex escape at line 1 column 8",
        );
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(body in proptest::collection::vec(0u8.., 0..200)) {
            let _ = ChatRequest::parse(&body);
        }

        #[test]
        fn no_json_panics(body in "[\\[\\]{}:,\"a-z0-9. \\\\u-]{0,60}") {
            let _ = ChatRequest::parse(format!("{{\"model\":{body},\"messages\":{body}}}").as_bytes());
        }
    }
}
