//! A chat request as it arrives, in our words.

use assay_protocol::LOGPROBS_MAX;
use serde_json::value::RawValue;

use super::fields::{Fields, kind};
use super::messages::conversation;
use super::sampling::{self, Sampling, choices, metadata, tokens};
use super::tools::{self, Calling};
use super::{Form, Problem, Prompt, Question, shape};

/// Fields that have a meaning here, beside those of the sampling and the shape.
const KNOWN: &[&str] = &[
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "logprobs",
    "top_logprobs",
    "modalities",
    "audio",
    "prediction",
    "web_search_options",
    "best_of",
    "min_tokens",
    "stop_token_ids",
    "use_beam_search",
    "grammar",
    "chat_template",
    "chat_template_kwargs",
    "add_generation_prompt",
    "continue_final_message",
    "prompt_logprobs",
    "echo",
    "store",
    "metadata",
];

/// Fields that would change the answer and cannot, with the values that ask for nothing. White
/// space between tokens is left out.
const UNSUPPORTED: &[(&str, &[&str])] = &[
    ("modalities", &["[\"text\"]"]),
    ("web_search_options", &[]),
    ("best_of", &["1"]),
    ("min_tokens", &["0"]),
    ("stop_token_ids", &["[]"]),
    ("use_beam_search", &["false"]),
    ("grammar", &["\"\""]),
    ("chat_template", &[]),
    ("chat_template_kwargs", &["{}"]),
    ("add_generation_prompt", &["true"]),
    ("continue_final_message", &["false"]),
    ("prompt_logprobs", &[]),
    ("echo", &["false"]),
];

/// Reads a request's body.
///
/// # Errors
/// What is not JSON, with its place; what is missing, of the wrong type, out of range, or
/// not supported, by name.
pub(crate) fn parse(body: &[u8]) -> Result<Question, Problem> {
    let fields = Fields::of_body(body, &[KNOWN, sampling::FIELDS, shape::FIELDS, tools::FIELDS])?;
    // Where none is named, the gateway may have a model for that.
    let model = fields.string("model")?.unwrap_or_default();
    let messages = fields.get("messages").ok_or_else(|| Problem::missing("messages"))?;
    let max_tokens = max_tokens(&fields)?;
    // Of no tokens, nothing is told that could be taken for what it is not.
    if max_tokens != Some(0) {
        refuse_unsupported(&fields)?;
    }
    let (stream, include_usage) = sampling::stream(&fields)?;
    let calling = Calling::of_chat(&fields)?;
    Ok(Question {
        model,
        prompts: vec![Prompt::conversation(conversation(messages)?, calling.as_ref())],
        calling,
        n: choices(&fields)?,
        sampling: Sampling { logprobs: logprobs(&fields)?, ..Sampling::read(&fields, max_tokens)? },
        stream,
        include_usage,
        store: fields.boolean("store")?.unwrap_or(false),
        metadata: metadata(&fields)?,
        form: Form::Chat,
    })
}

fn refuse_unsupported(fields: &Fields<'_>) -> Result<(), Problem> {
    // Neither changes a text: one says how to speak, which `modalities` does not ask for, the other
    // what the answer might be, so that it comes faster.
    for hint in ["audio", "prediction"] {
        is_object(fields.get(hint), hint)?;
    }
    sampling::refuse(fields, UNSUPPORTED)
}

/// How many alternatives to tell with each token, if logprobs are wanted.
fn logprobs(fields: &Fields<'_>) -> Result<Option<u8>, Problem> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.integer("top_logprobs", 0..=i64::from(LOGPROBS_MAX))?;
    if top.is_some_and(|top| top > 0) && !wanted {
        let message = "top_logprobs is only for requests with logprobs set to true";
        return Err(Problem::invalid_value("top_logprobs", message));
    }
    Ok(wanted.then(|| top.and_then(|top| u8::try_from(top).ok()).unwrap_or(0)))
}

fn is_object(raw: Option<&RawValue>, name: &str) -> Result<(), Problem> {
    match raw.map(kind) {
        None | Some("an object") => Ok(()),
        Some(found) => Err(Problem::invalid_type(name, "an object", found)),
    }
}

/// The most tokens of the answer, by its newer name or its older one.
fn max_tokens(fields: &Fields<'_>) -> Result<Option<u32>, Problem> {
    let (old, new) = (tokens(fields, "max_tokens")?, tokens(fields, "max_completion_tokens")?);
    if old.is_some() && new.is_some() && old != new {
        let message = "max_tokens and max_completion_tokens mean the same, and differ";
        return Err(Problem::invalid_value("max_tokens", message));
    }
    Ok(new.or(old))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::Prompt;

    /// What is made of a request with these fields beside a model and a message.
    fn check(fields: &str, expected: &str) {
        let body =
            format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}]{fields}}}"#);
        body_is(&body, expected);
    }

    fn body_is(body: &str, expected: &str) {
        let said = match parse(body.as_bytes()) {
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
        let request = parse(body).unwrap();
        let [Prompt::Messages { messages, .. }] = &request.prompts[..] else {
            panic!("one conversation")
        };
        assert_eq!(messages[0].role, "system");
        assert_eq!(messages[1].content, "a\nb");
        let sampling = request.sampling;
        assert_eq!((sampling.max_tokens, sampling.top_k, sampling.seed), (Some(7), 0, Some(-3)));
        assert_eq!(sampling.logit_bias.into_iter().collect::<Vec<_>>(), [(4, 1.5), (5, -100.0)]);
        assert!(request.stream && request.include_usage);
        assert_eq!(sampling.stop, ["x"]);
    }

    #[test]
    fn what_asks_for_nothing_is_accepted() {
        check(r#","n":1,"logprobs":false,"tools":[],"tool_choice":"auto""#, "ok");
        check(r#","response_format":{ "type" : "text" },"modalities":["text"]"#, "ok");
        check(r#","temperature":null,"stop":null,"stream_options":null,"tools":null"#, "ok");
        check(r#","max_tokens":5,"temperature":2,"top_p":0"#, "ok");
        check(r#","tools":[{"type":"function"}],"tool_choice":"none""#, "ok");
        check(r#","audio":{"voice":"v"},"prediction":{},"logit_bias":{"foo":0}"#, "ok");
        check(r#","stream_options":{"include_usage":true}"#, "ok");
        check(r#","max_tokens":5,"max_completion_tokens":5,"n":128"#, "ok");
    }

    #[test]
    fn of_no_tokens_nothing_is_refused_that_could_only_change_them() {
        check(r#","max_tokens":0,"web_search_options":{},"logprobs":true"#, "ok");
        check(
            r#","max_tokens":1,"web_search_options":{}"#,
            "unsupported_parameter web_search_options: web_search_options is not supported",
        );
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        check(
            r#","top_logprobs":2"#,
            "invalid_value top_logprobs: top_logprobs is only for requests with logprobs set to true",
        );
        check(
            r#","logprobs":true,"top_logprobs":21"#,
            "invalid_value top_logprobs: top_logprobs is 21, expected 0 to 20",
        );
        check(r#","logprobs":true,"top_logprobs":20"#, "ok");
        check(
            r#","tools":[{"type":"custom","custom":{"name":"x"}}]"#,
            r#"unsupported_parameter tools[0].type: tools[0].type "custom" is not supported, only function"#,
        );
        check(
            r#","grammar":"root ::= x""#,
            r#"unsupported_parameter grammar: grammar is not supported, except as """#,
        );
        check(r#","response_format":{"type":"json_object"}"#, "ok");
        check(
            r#","modalities":["text","audio"],"audio":{}"#,
            r#"unsupported_parameter modalities: modalities is not supported, except as ["text"]"#,
        );
        check(r#","audio":1"#, "invalid_type audio: audio must be an object, not a number");
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
            r#","max_tokens":-1"#,
            "invalid_value max_tokens: max_tokens is -1, expected 0 to 4294967295",
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
            r#","max_tokens":1,"max_completion_tokens":2"#,
            "invalid_value max_tokens: max_tokens and max_completion_tokens mean the same, and differ",
        );
        check(r#","n":0"#, "invalid_value n: n is 0, expected 1 to 128");
        check(
            r#","stream_options":{"include_usage":1}"#,
            "invalid_type stream_options.include_usage: stream_options.include_usage must be a boolean, not a number",
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
        body_is("{}", "missing_required_parameter messages: messages is missing");
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
            r#"invalid_value messages[0].role: messages[0].role is "owl", expected system, developer, user, assistant or tool"#,
        );
        check(
            r#"{"role":"user","content":[{"type":"image_url"}]}"#,
            r#"unsupported_parameter messages[0].content[0].type: content of type "image_url" is not supported, only text"#,
        );
        check(
            r#"{"role":"tool","content":"x"}"#,
            "missing_required_parameter messages[0].tool_call_id: messages[0].tool_call_id is missing",
        );
        check(
            r#"{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f"}}]}"#,
            "missing_required_parameter messages[0].tool_calls[0].function.arguments: messages[0].tool_calls[0].function.arguments is missing",
        );
        check(
            r#"{"role":"user","content":"x","tool_calls":[{"id":"c","function":{"name":"f","arguments":""}}]}"#,
            "invalid_value messages[0].tool_calls: messages[0].tool_calls is for the assistant's messages",
        );
        check(
            r#"{"role":"user","content":"\ud800"}"#,
            "invalid_value messages[0].content: messages[0].content: unexpected end of hex escape at line 1 column 8",
        );
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(body in proptest::collection::vec(0u8.., 0..200)) {
            let _ = parse(&body);
        }

        #[test]
        fn no_json_panics(body in "[\\[\\]{}:,\"a-z0-9. \\\\u-]{0,60}") {
            let _ = parse(format!("{{\"model\":{body},\"messages\":{body}}}").as_bytes());
        }
    }
}
