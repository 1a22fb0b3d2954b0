//! Replies of the Responses API: whole, or as its events.

use serde_json::{Map, Value, json};

use super::calls::{AnswerReader, CallRules, Part};
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
    /// How calls are read out of the answer, if anything may be called.
    rules: Option<CallRules>,
    reader: AnswerReader,
    written: Items,
    events: Events,
}

impl ResponseReply {
    pub(crate) fn new(
        head: Head,
        wish: Wish,
        question: &Question,
        rules: Option<CallRules>,
    ) -> Self {
        let (metadata, store) = (question.metadata.clone(), question.store);
        let reader = AnswerReader::new(rules.as_ref(), &head.id, 0);
        let (written, events) = (Items::new(&head.id), Events::default());
        Self { head, wish, metadata, store, rules, reader, written, events }
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

    /// The items of an answer, all at once.
    fn output(&self, told: &Told) -> Vec<Value> {
        let mut reader = AnswerReader::new(self.rules.as_ref(), &self.head.id, 0);
        let mut parts = reader.push(&told.text);
        parts.extend(reader.finish());
        let (mut items, mut unheard) = (Items::new(&self.head.id), Events::default());
        for part in &parts {
            items.write(part, &mut unheard);
        }
        items.finish(told.finish, &mut unheard);
        items.done
    }

    fn complete(&self, told: &[Told]) -> Value {
        let mut response = self.begun("completed");
        let Some(first) = told.first() else { return response };
        if first.finish == Finish::Length {
            response["status"] = json!("incomplete");
            response["incomplete_details"] = json!({ "reason": "max_output_tokens" });
        }
        response["completed_at"] = json!(crate::http::now_s());
        response["output"] = json!(self.output(first));
        response["usage"] = usage(first.usage);
        if let Some(answer) = only(told) {
            response["assay"] = json!(answer);
        }
        response
    }
}

/// The items of an output, while they are written.
#[derive(Debug)]
struct Items {
    /// What the response is called.
    id: String,
    /// The complete ones.
    done: Vec<Value>,
    /// The one that is being written.
    open: Option<Value>,
}

impl Items {
    fn new(id: &str) -> Self {
        Self { id: id.to_owned(), done: Vec::new(), open: None }
    }

    /// Goes on by a part of the answer, and tells it.
    fn write(&mut self, part: &Part, events: &mut Events) -> String {
        let mut said = String::new();
        match part {
            Part::Text(text) => {
                if self.open.as_ref().is_none_or(|item| item["type"] != "message") {
                    said += &self.begin(message("in_progress"), "msg_", events);
                }
                said += &self.more(text, events);
            }
            Part::Call { id, name, .. } => {
                let item = json!({
                    "type": "function_call", "status": "in_progress", "call_id": id, "name": name,
                    "arguments": "",
                });
                said += &self.begin(item, "fc_", events);
            }
            Part::Arguments { json, .. } => said += &self.more(json, events),
        }
        said
    }

    /// Begins an item, after the one before is complete.
    fn begin(&mut self, mut item: Value, kind: &str, events: &mut Events) -> String {
        let mut said = self.close("completed", events);
        let place = self.done.len();
        let id = self.id.replacen("resp_", kind, 1);
        item["id"] = json!(if place == 0 { id } else { format!("{id}_{place}") });
        said += &events.begun(place, &item);
        self.open = Some(item);
        said
    }

    fn more(&mut self, text: &str, events: &mut Events) -> String {
        let Some(item) = &mut self.open else { return String::new() };
        let field = match item["type"] == "message" {
            true => {
                if item["content"][0].is_null() {
                    item["content"] = json!([part("")]);
                }
                &mut item["content"][0]["text"]
            }
            false => &mut item["arguments"],
        };
        if let Value::String(field) = field {
            *field += text;
        }
        if text.is_empty() { String::new() } else { events.more(self.done.len(), item, text) }
    }

    fn close(&mut self, status: &str, events: &mut Events) -> String {
        let Some(mut item) = self.open.take() else { return String::new() };
        item["status"] = json!(status);
        let said = events.done(self.done.len(), &item);
        self.done.push(item);
        said
    }

    /// The end of all items, of which there is one at least.
    fn finish(&mut self, finish: Finish, events: &mut Events) -> String {
        let mut said = String::new();
        if self.open.is_none() && self.done.is_empty() {
            said += &self.write(&Part::Text(String::new()), events);
        }
        let status = match finish {
            Finish::Length => "incomplete",
            Finish::Stop => "completed",
        };
        said + &self.close(status, events)
    }
}

/// A message without its content and name.
fn message(status: &str) -> Value {
    json!({ "type": "message", "role": "assistant", "status": status, "content": [] })
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
        self.events.opened(&begun)
    }

    fn piece(&mut self, _: usize, piece: &Piece) -> String {
        let parts = self.reader.push(&piece.text);
        let write = |part| self.written.write(part, &mut self.events);
        parts.iter().map(write).collect()
    }

    fn ended(&mut self, _: usize, told: &Told) -> String {
        let parts = self.reader.finish();
        let write = |part| self.written.write(part, &mut self.events);
        let rest: String = parts.iter().map(write).collect();
        rest + &self.written.finish(told.finish, &mut self.events)
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
    let mut said = events.opened(&begun);
    for (place, item) in response["output"].as_array().into_iter().flatten().enumerate() {
        let is_message = item["type"] == "message";
        let mut empty = item.clone();
        empty["status"] = json!("in_progress");
        empty[if is_message { "content" } else { "arguments" }] =
            if is_message { json!([]) } else { json!("") };
        let text = if is_message { &item["content"][0]["text"] } else { &item["arguments"] };
        said += &events.begun(place, &empty);
        if let Some(text) = text.as_str().filter(|text| !text.is_empty()) {
            said += &events.more(place, item, text);
        }
        said += &events.done(place, item);
    }
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

    fn opened(&mut self, begun: &Value) -> String {
        self.event("response.created", json!({ "response": begun }))
            + &self.event("response.in_progress", json!({ "response": begun }))
    }

    /// The beginning of an item; what there is of it is empty.
    fn begun(&mut self, place: usize, item: &Value) -> String {
        let added = json!({ "output_index": place, "item": item });
        let mut said = self.event("response.output_item.added", added);
        if item["type"] == "message" {
            let added = json!({
                "item_id": item["id"], "output_index": place, "content_index": 0, "part": part(""),
            });
            said += &self.event("response.content_part.added", added);
        }
        said
    }

    /// More of an item.
    fn more(&mut self, place: usize, item: &Value, text: &str) -> String {
        let mut body = json!({ "item_id": item["id"], "output_index": place, "delta": text });
        if item["type"] != "message" {
            return self.event("response.function_call_arguments.delta", body);
        }
        body["content_index"] = json!(0);
        body["logprobs"] = json!([]);
        self.event("response.output_text.delta", body)
    }

    /// The end of an item.
    fn done(&mut self, place: usize, item: &Value) -> String {
        let at = json!({ "item_id": item["id"], "output_index": place });
        let mut said = String::new();
        if item["type"] == "message" {
            let content = &item["content"][0];
            let (mut text, mut part) = (at.clone(), at);
            for event in [&mut text, &mut part] {
                event["content_index"] = json!(0);
            }
            text["text"] = content["text"].clone();
            text["logprobs"] = json!([]);
            part["part"] = content.clone();
            said += &self.event("response.output_text.done", text);
            said += &self.event("response.content_part.done", part);
        } else {
            let mut called = at;
            called["name"] = item["name"].clone();
            called["arguments"] = item["arguments"].clone();
            said += &self.event("response.function_call_arguments.done", called);
        }
        let done = json!({ "output_index": place, "item": item });
        said + &self.event("response.output_item.done", done)
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
        of(r#"{"input":"hi"}"#)
    }

    fn of(body: &str) -> ResponseReply {
        let question = responses::parse(body.as_bytes(), &[]).unwrap();
        let Form::Response(wish) = question.form.clone() else { panic!("a response") };
        let rules = question.rules(assay_text::CallFormat::Tagged);
        ResponseReply::new(head("resp_", true), *wish, &question, rules)
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

    #[test]
    fn calls_are_items_beside_the_message() {
        let body = r#"{"input":"hi","tools":[{"type":"function","name":"f"}]}"#;
        let text = "Hm. <tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>";
        let mut reply = of(body);
        let told = told(text);
        let mut stream = reply.opened();
        for piece in text.as_bytes().chunks(9) {
            stream += &reply.piece(0, &String::from_utf8(piece.to_vec()).unwrap().into());
        }
        stream += &reply.ended(0, &told);
        stream += &reply.closed(std::slice::from_ref(&told));
        let mut said = kinds(&stream);
        said.dedup();
        let expected = [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ];
        assert_eq!(said, expected);
        let whole: Value = serde_json::from_str(&reply.whole(&[told])).unwrap();
        let [message, call] = &whole["output"].as_array().unwrap()[..] else { panic!("{whole}") };
        assert_eq!(message["content"][0]["text"], "Hm.");
        assert_eq!((&call["name"], &call["arguments"]), (&json!("f"), &json!("{\"a\": 1}")));
        assert!(call["call_id"].as_str().unwrap().starts_with("call_"));
        assert_ne!(call["id"], message["id"]);
        // What is streamed is what is stored.
        assert!(stream.contains(&format!("\"item\":{call}")), "{stream}");
        assert_eq!(kinds(&replayed(&whole, None)), expected);
    }
}
