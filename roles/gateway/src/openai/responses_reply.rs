//! Replies of the Responses API: whole, or as its events.

use serde_json::{Map, Value, json};

use super::reply::{Finish, Head, Reply, Told, Usage, only};
use super::responses::Wish;
use super::{Problem, Question};
use crate::rated::Piece;

/// A reply of the Responses API. It has one choice.
#[derive(Debug)]
pub(crate) struct ResponseReply {
    head: Head,
    wish: Wish,
    metadata: Map<String, Value>,
    store: bool,
    events: Events,
}

impl ResponseReply {
    pub(crate) fn new(head: Head, wish: Wish, question: &Question) -> Self {
        let (metadata, store) = (question.metadata.clone(), question.store);
        Self { head, wish, metadata, store, events: Events::default() }
    }

    /// The response while nothing of it is there.
    pub(crate) fn begun(&self, status: &str) -> Value {
        let mut response = json!({
            "id": self.head.id,
            "object": "response",
            "created_at": self.head.created,
            "completed_at": null,
            "status": status,
            "background": self.wish.background,
            "error": null,
            "incomplete_details": null,
            "instructions": self.wish.instructions,
            "metadata": self.metadata,
            "model": self.head.model,
            "output": [],
            "previous_response_id": self.wish.previous,
            "store": self.store,
            "usage": null,
        });
        if let Some(fields) = response.as_object_mut() {
            fields.extend(self.wish.shown.clone());
        }
        response
    }

    fn complete(&self, told: &[Told]) -> Value {
        let mut response = self.begun("completed");
        let Some(first) = told.first() else { return response };
        if first.finish == Finish::Length {
            response["status"] = json!("incomplete");
            response["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        response["completed_at"] = json!(crate::http::now_s());
        response["output"] = json!([message(&self.head.id, Some(first))]);
        response["usage"] = usage(first.usage);
        if let Some(answer) = only(told) {
            response["assay"] = json!(answer);
        }
        response
    }
}

/// The message of a response; while it is not complete, without its content.
fn message(id: &str, told: Option<&Told>) -> Value {
    let status = match told.map(|told| told.finish) {
        None => "in_progress",
        Some(Finish::Length) => "incomplete",
        Some(Finish::Stop) => "completed",
    };
    let content = told.map(|told| part(&told.text)).into_iter().collect::<Vec<_>>();
    let id = id.replacen("resp_", "msg_", 1);
    json!({
        "id": id, "type": "message", "role": "assistant", "status": status, "content": content,
    })
}

fn part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
}

fn usage(usage: Usage) -> Value {
    let (input, output) = usage.tokens();
    json!({
        "input_tokens": input,
        "input_tokens_details": { "cached_tokens": 0, "cache_write_tokens": 0 },
        "output_tokens": output,
        "output_tokens_details": { "reasoning_tokens": 0 },
        "total_tokens": input.saturating_add(output),
    })
}

impl Reply for ResponseReply {
    fn whole(&mut self, told: &[Told]) -> String {
        self.complete(told).to_string()
    }

    fn opened(&mut self) -> String {
        let begun = self.begun("in_progress");
        let item = message(&self.head.id, None);
        self.events.opened(&begun, &item)
    }

    fn piece(&mut self, _: usize, piece: &Piece) -> String {
        let item = message(&self.head.id, None);
        self.events.piece(&item, &piece.text)
    }

    fn ended(&mut self, _: usize, told: &Told) -> String {
        self.events.ended(&message(&self.head.id, Some(told)))
    }

    fn closed(&mut self, told: &[Told]) -> String {
        let response = self.complete(told);
        self.events.closed(&response)
    }

    fn broken(&mut self, problem: &Problem) -> String {
        let mut response = self.begun("failed");
        response["error"] = failure(problem);
        self.events.closed(&response)
    }
}

/// What a response says that failed.
pub(crate) fn failure(problem: &Problem) -> Value {
    // Its clients know few words for what can go wrong.
    let code = match problem.code {
        "rate_limit_exceeded" => "rate_limit_exceeded",
        _ => "server_error",
    };
    json!({ "code": code, "message": problem.message })
}

/// The events of a stored response: those of a stream that says all at once.
pub(crate) fn replayed(response: &Value, after: Option<u64>) -> String {
    let mut events = Events { number: 0, after };
    let mut begun = response.clone();
    for (field, value) in [
        ("status", json!("in_progress")),
        ("output", json!([])),
        ("usage", Value::Null),
        ("completed_at", Value::Null),
        ("error", Value::Null),
        ("incomplete_details", Value::Null),
    ] {
        begun[field] = value;
    }
    let Some(item) = response["output"].get(0) else {
        let created = events.event("response.created", json!({ "response": begun }));
        return created + &events.closed(response);
    };
    let mut empty = item.clone();
    empty["content"] = json!([]);
    empty["status"] = json!("in_progress");
    let text = item["content"][0]["text"].as_str().unwrap_or_default();
    let mut said = events.opened(&begun, &empty);
    if !text.is_empty() {
        said += &events.piece(item, text);
    }
    said += &events.ended(item);
    said + &events.closed(response)
}

/// The events of one stream, which are counted.
#[derive(Debug, Default)]
struct Events {
    number: u64,
    /// The last event that its client has seen already.
    after: Option<u64>,
}

impl Events {
    fn event(&mut self, kind: &str, body: Value) -> String {
        let number = self.number;
        self.number += 1;
        if self.after.is_some_and(|after| number <= after) {
            return String::new();
        }
        let mut body = body;
        body["type"] = json!(kind);
        body["sequence_number"] = json!(number);
        format!("event: {kind}\ndata: {body}\n\n")
    }

    fn opened(&mut self, begun: &Value, item: &Value) -> String {
        let place = json!({ "item_id": item["id"], "output_index": 0, "content_index": 0 });
        let mut added = place.clone();
        added["part"] = part("");
        [
            self.event("response.created", json!({ "response": begun })),
            self.event("response.in_progress", json!({ "response": begun })),
            self.event("response.output_item.added", json!({ "output_index": 0, "item": item })),
            self.event("response.content_part.added", added),
        ]
        .concat()
    }

    fn piece(&mut self, item: &Value, text: &str) -> String {
        let body = json!({
            "item_id": item["id"], "output_index": 0, "content_index": 0, "delta": text,
            "logprobs": [],
        });
        self.event("response.output_text.delta", body)
    }

    fn ended(&mut self, item: &Value) -> String {
        let content = &item["content"][0];
        let place = json!({ "item_id": item["id"], "output_index": 0, "content_index": 0 });
        let (mut text, mut part) = (place.clone(), place);
        text["text"] = content["text"].clone();
        text["logprobs"] = json!([]);
        part["part"] = content.clone();
        [
            self.event("response.output_text.done", text),
            self.event("response.content_part.done", part),
            self.event("response.output_item.done", json!({ "output_index": 0, "item": item })),
        ]
        .concat()
    }

    /// The last event, by the response's status.
    fn closed(&mut self, response: &Value) -> String {
        let kind = match response["status"].as_str() {
            Some("incomplete") => "response.incomplete",
            Some("failed" | "cancelled") => "response.failed",
            Some("in_progress" | "queued") => return String::new(),
            _ => "response.completed",
        };
        self.event(kind, json!({ "response": response }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::reply::tests::{head, told};
    use crate::openai::{Form, responses};

    fn reply() -> ResponseReply {
        let question = responses::parse(br#"{"input":"hi"}"#, &[]).unwrap();
        let Form::Response(wish) = question.form.clone() else { panic!("a response") };
        ResponseReply::new(head("resp_", true), *wish, &question)
    }

    fn kinds(events: &str) -> Vec<&str> {
        events
            .split("\n\n")
            .filter_map(|event| event.strip_prefix("event: response.")?.lines().next())
            .collect()
    }

    #[test]
    fn a_stream_has_its_events_in_order_and_a_stored_one_the_same() {
        let mut reply = reply();
        let told = told("ab");
        let stream = [
            reply.opened(),
            reply.piece(0, &"a".to_owned().into()),
            reply.piece(0, &"b".to_owned().into()),
            reply.ended(0, &told),
            reply.closed(std::slice::from_ref(&told)),
        ]
        .concat();
        let expected = [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ];
        assert_eq!(kinds(&stream), expected);
        let numbers = stream.matches("\"sequence_number\":").count();
        assert_eq!(numbers, expected.len());
        let whole: Value = serde_json::from_str(&reply.whole(&[told])).unwrap();
        let mut once = expected.to_vec();
        once.remove(4);
        assert_eq!(kinds(&replayed(&whole, None)), once);
        assert_eq!(kinds(&replayed(&whole, Some(6))), once[7..]);
        assert_eq!(whole["usage"]["total_tokens"], 7);
        assert_eq!(whole["output"][0]["content"][0]["text"], "ab");
    }

    #[test]
    fn what_ran_out_of_tokens_is_incomplete_and_what_failed_says_why() {
        let mut reply = reply();
        let told = Told { finish: Finish::Length, ..told("a") };
        assert_eq!(kinds(&reply.closed(&[told])), ["incomplete"]);
        let broken = reply.broken(&Problem::upstream("gone"));
        assert_eq!(kinds(&broken), ["failed"]);
        assert!(broken.contains(r#""message":"gone""#), "{broken}");
    }
}
