//! Replies of the chat API: whole, or in chunks.

use assay_protocol::Answer;
use assay_text::Call;
use serde::Serialize;

use super::calls::{AnswerReader, CallRules, Part, words_and_calls};
use super::reply::{Finish, Head, Reply, Told, Usage, event, json, only};
use crate::rated::{Piece, Rated, Spelled};

/// A reply of the chat API.
#[derive(Debug)]
pub(crate) struct ChatReply {
    head: Head,
    /// How calls are read out of the answers, if anything may be called.
    rules: Option<CallRules>,
    choices: Vec<Stand>,
}

/// One choice of a stream, as far as it was told.
#[derive(Debug)]
struct Stand {
    reader: AnswerReader,
    /// Tokens of what is held back.
    rated: Option<Vec<Rated>>,
}

/// What is told of one choice: what is new, how likely its tokens were, and its end.
type News<'a> = (usize, Delta<'a>, Option<&'a [Rated]>, Option<&'static str>);

impl ChatReply {
    /// A reply of so many choices.
    pub(crate) fn new(head: Head, choices: usize, rules: Option<CallRules>) -> Self {
        let stand = |choice| Stand {
            reader: AnswerReader::new(rules.as_ref(), &head.id, choice),
            rated: None,
        };
        let choices = (0..choices).map(stand).collect();
        Self { head, rules, choices }
    }

    fn as_function(&self) -> bool {
        self.rules.as_ref().is_some_and(|rules| rules.as_function)
    }

    /// Why an answer ended; one that calls ends so that its calls are answered.
    fn finish(&self, finish: Finish, has_called: bool) -> &'static str {
        match finish {
            Finish::Length => "length",
            Finish::Stop if has_called && self.as_function() => "function_call",
            Finish::Stop if has_called => "tool_calls",
            Finish::Stop => "stop",
        }
    }

    /// Tells parts of a choice; the tokens that were read stand beside the first.
    fn parts(&mut self, choice: usize, parts: &[Part]) -> String {
        let mut rated = match parts {
            [] => None,
            _ => self.choices.get_mut(choice).and_then(|stand| stand.rated.take()),
        };
        let as_function = self.as_function();
        let chunk = |part: &Part| {
            let rated = rated.take();
            let delta = Delta::of(part, as_function);
            self.chunk(Some((choice, delta, rated.as_deref(), None)), None, None)
        };
        parts.iter().map(chunk).collect()
    }

    fn chunk(
        &self,
        choice: Option<News<'_>>,
        usage: Option<Usage>,
        answer: Option<&Answer>,
    ) -> String {
        let choices = choice.map(|(index, delta, rated, finish_reason)| ChunkChoice {
            index,
            delta,
            logprobs: rated.map(Logprobs::of),
            finish_reason,
        });
        event(&json(&Chunk {
            id: &self.head.id,
            object: "chat.completion.chunk",
            created: self.head.created,
            model: &self.head.model,
            system_fingerprint: &self.head.fingerprint,
            choices: choices.as_slice(),
            usage: self.head.include_usage.then_some(usage),
            assay: answer,
        }))
    }
}

impl Reply for ChatReply {
    fn whole(&mut self, told: &[Told]) -> String {
        let several = told.len() > 1;
        let as_function = self.as_function();
        let choices = told.iter().enumerate().map(|(index, told)| {
            let (words, calls) =
                words_and_calls(self.rules.as_ref(), &self.head.id, index, &told.text);
            Choice {
                index,
                finish_reason: self.finish(told.finish, !calls.is_empty()),
                message: Turn::new(words, calls, as_function),
                logprobs: told.rated.as_deref().map(Logprobs::of),
                assay: told.answer.as_deref().filter(|_| several),
            }
        });
        json(&Completion {
            id: &self.head.id,
            object: "chat.completion",
            created: self.head.created,
            model: &self.head.model,
            system_fingerprint: &self.head.fingerprint,
            choices: choices.collect(),
            usage: Usage::sum(told.iter().map(|told| told.usage)),
            assay: only(told),
        })
    }

    fn opened(&mut self) -> String {
        let role = |index| {
            let delta = Delta { role: Some("assistant"), content: Some(""), ..Delta::default() };
            self.chunk(Some((index, delta, None, None)), None, None)
        };
        (0..self.choices.len()).map(role).collect()
    }

    fn piece(&mut self, choice: usize, piece: &Piece) -> String {
        let Some(stand) = self.choices.get_mut(choice) else { return String::new() };
        if let Some(rated) = &piece.rated {
            stand.rated.get_or_insert_default().extend(rated.iter().cloned());
        }
        let parts = stand.reader.push(&piece.text);
        self.parts(choice, &parts)
    }

    fn ended(&mut self, choice: usize, told: &Told) -> String {
        let Some(stand) = self.choices.get_mut(choice) else { return String::new() };
        let parts = stand.reader.finish();
        let has_called = stand.reader.has_called();
        let mut rest = self.parts(choice, &parts);
        // Tokens that nothing followed, such as the end of a call.
        let rated = self.choices.get_mut(choice).and_then(|stand| stand.rated.take());
        let rated = rated.filter(|rated| !rated.is_empty());
        let answer = self.head.receipt(self.choices.len(), told);
        let finish = self.finish(told.finish, has_called);
        let last = (choice, Delta::default(), rated.as_deref(), Some(finish));
        rest += &self.chunk(Some(last), None, answer);
        rest
    }

    fn closed(&mut self, told: &[Told]) -> String {
        self.head.closed(told, |usage, answer| self.chunk(None, Some(usage), answer))
    }
}

#[derive(Serialize)]
struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: Vec<Choice<'a>>,
    usage: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    assay: Option<&'a Answer>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    message: Turn,
    logprobs: Option<Logprobs<'a>>,
    finish_reason: &'static str,
    /// Its receipt, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    assay: Option<&'a Answer>,
}

#[derive(Serialize)]
struct Turn {
    role: &'static str,
    /// None where there are calls alone.
    content: Option<String>,
    refusal: Option<()>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Called>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_call: Option<Function>,
}

#[derive(Serialize)]
struct Called {
    id: String,
    r#type: &'static str,
    function: Function,
}

#[derive(Serialize)]
struct Function {
    name: String,
    arguments: String,
}

impl Turn {
    fn new(words: String, calls: Vec<Call>, as_function: bool) -> Self {
        let content = Some(words).filter(|words| !words.is_empty() || calls.is_empty());
        let mut called: Vec<Called> = calls.into_iter().map(Called::from).collect();
        let function_call = match as_function {
            true => called.pop().map(|called| called.function),
            false => None,
        };
        Self { role: "assistant", content, refusal: None, tool_calls: called, function_call }
    }
}

impl From<Call> for Called {
    fn from(call: Call) -> Self {
        let function = Function { name: call.name, arguments: call.arguments };
        Self { id: call.id, r#type: "function", function }
    }
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: &'a [ChunkChoice<'a>],
    /// Absent unless asked for; `null` in every chunk but the last then.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<Usage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    assay: Option<&'a Answer>,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: usize,
    delta: Delta<'a>,
    logprobs: Option<Logprobs<'a>>,
    /// `null` in every chunk but one of each choice.
    finish_reason: Option<&'static str>,
}

/// How likely the tokens of a text were.
#[derive(Serialize)]
struct Logprobs<'a> {
    content: Vec<TokenLogprob<'a>>,
    refusal: Option<()>,
}

#[derive(Serialize)]
struct TokenLogprob<'a> {
    #[serde(flatten)]
    token: Logprob<'a>,
    top_logprobs: Vec<Logprob<'a>>,
}

#[derive(Serialize)]
struct Logprob<'a> {
    token: &'a str,
    logprob: f64,
    bytes: &'a [u8],
}

impl<'a> Logprobs<'a> {
    fn of(rated: &'a [Rated]) -> Self {
        let logprob = |token: &'a Spelled| Logprob {
            token: &token.text,
            logprob: token.logprob,
            bytes: &token.bytes,
        };
        let content = rated.iter().map(|rated| TokenLogprob {
            token: logprob(&rated.token),
            top_logprobs: rated.top.iter().map(logprob).collect(),
        });
        Self { content: content.collect(), refusal: None }
    }
}

#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_calls: Option<[CallDelta<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_call: Option<FunctionDelta<'a>>,
}

/// More of a call. Its first one names it, all others only say which they go on.
#[derive(Serialize)]
struct CallDelta<'a> {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
    function: FunctionDelta<'a>,
}

#[derive(Serialize)]
struct FunctionDelta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    arguments: &'a str,
}

impl<'a> Delta<'a> {
    fn of(part: &'a Part, as_function: bool) -> Self {
        let (index, id, name, arguments) = match part {
            Part::Text(text) => return Self { content: Some(text), ..Self::default() },
            Part::Call { index, id, name } => (*index, Some(&**id), Some(&**name), ""),
            Part::Arguments { index, json } => (*index, None, None, &**json),
        };
        let function = FunctionDelta { name, arguments };
        if as_function {
            return Self { function_call: Some(function), ..Self::default() };
        }
        let call = CallDelta { index, id, r#type: id.map(|_| "function"), function };
        Self { tool_calls: Some([call]), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::reply::tests::{head, told};

    fn reply(include_usage: bool) -> ChatReply {
        ChatReply::new(head("chatcmpl-", include_usage), 1, None)
    }

    fn check(events: &str, expected: &str) {
        let zeros = "0".repeat(64);
        let head = format!(
            r#"data: {{"id":"chatcmpl-{zeros}","object":"chat.completion.chunk","created":7,"model":"nano","system_fingerprint":"fp_abababababab","#
        );
        assert_eq!(events.replace(&head, ""), expected);
    }

    #[test]
    fn chunks_are_as_clients_expect() {
        let mut plain = reply(false);
        check(
            &plain.opened(),
            "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
        );
        check(
            &plain.piece(0, &"a\n".to_owned().into()),
            "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\\n\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
        );
        let mut usage = reply(true);
        check(
            &usage.piece(0, &"a".to_owned().into()),
            "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n",
        );
        check(
            &usage.closed(&[told("a")]),
            "\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4,\"total_tokens\":7,\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0,\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}}\n\ndata: [DONE]\n\n",
        );
    }

    #[test]
    fn logprobs_stand_beside_their_text() {
        let spelled = |text: &str, logprob| Spelled {
            text: text.into(),
            bytes: text.as_bytes().to_vec(),
            logprob,
        };
        let rated = Rated { token: spelled("a", -0.5), top: vec![spelled("b", -0.25)] };
        let piece = Piece { text: "a".into(), rated: Some(vec![rated]) };
        check(
            &reply(false).piece(0, &piece),
            "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"logprobs\":{\"content\":[{\"token\":\"a\",\"logprob\":-0.5,\"bytes\":[97],\"top_logprobs\":[{\"token\":\"b\",\"logprob\":-0.25,\"bytes\":[98]}]}],\"refusal\":null},\"finish_reason\":null}]}\n\n",
        );
    }

    #[test]
    fn each_of_several_choices_begins_and_ends_once() {
        let mut reply = ChatReply::new(head("chatcmpl-", false), 2, None);
        let stream = reply.opened() + &reply.ended(1, &told("b")) + &reply.ended(0, &told("a"));
        assert_eq!(stream.matches(r#""role":"assistant""#).count(), 2);
        assert_eq!(stream.matches(r#""finish_reason":"stop""#).count(), 2);
        let whole: serde_json::Value =
            serde_json::from_str(&reply.whole(&[told("a"), told("b")])).unwrap();
        assert_eq!(whole["choices"][1]["message"]["content"], "b");
        assert_eq!(whole["choices"][1]["index"], 1);
        assert_eq!(whole["usage"]["total_tokens"], 14);
    }

    const CALLS: &str = "Hm. <tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>\
        <tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>";

    /// A reply to a question with the tool `f`, under its newer or older name.
    fn calling(list: &str) -> ChatReply {
        let tool = match list {
            "tools" => r#"{"type":"function","function":{"name":"f"}}"#,
            _ => r#"{"name":"f"}"#,
        };
        let body = format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":""}}],"{list}":[{tool}]}}"#
        );
        let question = crate::openai::chat::parse(body.as_bytes()).unwrap();
        ChatReply::new(head("chatcmpl-", false), 1, question.rules(assay_text::CallFormat::Tagged))
    }

    /// A choice's deltas in a stream that says `text` in pieces of so many bytes, and its end.
    fn deltas(reply: &mut ChatReply, text: &str, size: usize) -> Vec<serde_json::Value> {
        let mut stream = String::new();
        for piece in text.as_bytes().chunks(size) {
            let piece = String::from_utf8(piece.to_vec()).unwrap();
            stream += &reply.piece(0, &piece.into());
        }
        stream += &reply.ended(0, &told(text));
        let events = stream.split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        let choices = events.map(|event| serde_json::from_str::<serde_json::Value>(event).unwrap());
        choices.map(|mut chunk| chunk["choices"][0].take()).collect()
    }

    #[test]
    fn calls_are_told_as_clients_put_them_together() {
        for size in [1, 5, 1000] {
            let deltas = deltas(&mut calling("tools"), CALLS, size);
            let (last, deltas) = deltas.split_last().unwrap();
            assert_eq!(last["finish_reason"], "tool_calls");
            assert!(deltas.iter().all(|choice| choice["finish_reason"].is_null()));
            let text: String =
                deltas.iter().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
            assert_eq!(text, "Hm.");
            let mut calls: Vec<(String, String)> = Vec::new();
            for call in deltas.iter().filter_map(|choice| choice["delta"]["tool_calls"].get(0)) {
                let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
                if call["id"].is_string() {
                    assert_eq!((index, &call["type"]), (calls.len(), &"function".into()));
                    assert_eq!(
                        (&call["function"]["arguments"], &call["function"]["name"]),
                        (&"".into(), &"f".into())
                    );
                    calls.push((call["id"].as_str().unwrap().into(), String::new()));
                } else {
                    let keys: Vec<&String> = call.as_object().unwrap().keys().collect();
                    assert_eq!(keys, ["index", "function"]);
                    assert!(call["function"].get("name").is_none());
                    calls[index].1 += call["function"]["arguments"].as_str().unwrap();
                }
            }
            let whole: serde_json::Value =
                serde_json::from_str(&calling("tools").whole(&[told(CALLS)])).unwrap();
            let choice = &whole["choices"][0];
            assert_eq!(
                (&choice["message"]["content"], &choice["finish_reason"]),
                (&"Hm.".into(), &"tool_calls".into())
            );
            let told: Vec<(String, String)> = choice["message"]["tool_calls"]
                .as_array()
                .unwrap()
                .iter()
                .map(|call| {
                    let said = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
                    (said(&call["id"]), said(&call["function"]["arguments"]))
                })
                .collect();
            assert_eq!(told, calls);
            assert_eq!((told[0].1.as_str(), told[1].1.as_str()), ("{\"a\": 1}", "{}"));
        }
    }

    #[test]
    fn who_asks_by_the_older_name_is_told_by_it() {
        let only = &CALLS[4..CALLS.find("</tool_call>").unwrap() + 12];
        let deltas = deltas(&mut calling("functions"), only, 1000);
        assert_eq!(deltas[0]["delta"]["function_call"]["name"], "f");
        assert_eq!(deltas[1]["delta"]["function_call"]["arguments"], "{\"a\": 1}");
        assert_eq!(deltas[2]["finish_reason"], "function_call");
        let whole: serde_json::Value =
            serde_json::from_str(&calling("functions").whole(&[told(only)])).unwrap();
        let message = &whole["choices"][0]["message"];
        assert_eq!(
            (&message["content"], &message["function_call"]["name"]),
            (&serde_json::Value::Null, &"f".into())
        );
        assert!(message.get("tool_calls").is_none());
    }

    #[test]
    fn tokens_of_a_call_are_told_with_its_parts() {
        let mut reply = calling("tools");
        let rated = |text: &str| Rated {
            token: Spelled { text: text.into(), bytes: text.into(), logprob: -1.0 },
            top: vec![],
        };
        let mut stream = String::new();
        for piece in ["<tool_call>{\"name\": \"f\",", " \"arguments\": {", "}}", "</tool_call>"] {
            stream +=
                &reply.piece(0, &Piece { text: piece.into(), rated: Some(vec![rated(piece)]) });
        }
        stream += &reply.ended(0, &told("x"));
        assert_eq!(stream.matches("\"token\":").count(), 4);
    }
}
