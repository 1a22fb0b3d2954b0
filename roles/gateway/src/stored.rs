//! Replies that their clients have kept: chat completions and responses, to be fetched, listed, gone on
//! from and taken away.
//!
//! A response may be made while nobody waits for it. It is on the shelf from its beginning; who fetches it
//! sees how far it is, and it can be cancelled. One that a gateway left unfinished when it ended failed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use assay_text::Message;
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::begin::input_tokens;
use crate::body::read;
use crate::http::{Gateway, now_s};
use crate::keys::Caller;
use crate::openai::{
    Form, Problem, Prompt, Question, failure, input_items, kept, remembered, replayed, responses,
    sent_metadata, shown,
};
use crate::query::Query;
use crate::shelf::{Kind, Owner, Thing};
use crate::store::StoreError;
use crate::tell::event_stream;

type Shared = State<Arc<Gateway>>;
type Id = Result<Path<String>, PathRejection>;

/// The responses that are made while nobody waits, and how to stop them.
#[derive(Debug, Default)]
pub(crate) struct Unattended(Mutex<HashMap<String, CancellationToken>>);

impl Unattended {
    /// Takes note of one, until it is over.
    pub(crate) fn begin(&self, id: &str) -> CancellationToken {
        let stop = CancellationToken::new();
        self.lock().insert(id.to_owned(), stop.clone());
        stop
    }

    pub(crate) fn over(&self, id: &str) {
        self.lock().remove(id);
    }

    fn stop(&self, id: &str) -> bool {
        self.lock().get(id).is_some_and(|stop| {
            stop.cancel();
            true
        })
    }

    fn runs(&self, id: &str) -> bool {
        self.lock().contains_key(id)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reply that is to be kept.
#[derive(Clone, Debug)]
pub(crate) struct Keeping {
    kind: Kind,
    id: String,
    owner: Owner,
    question: Arc<Question>,
}

impl Keeping {
    /// Of the reply `id` to a question; none if it is not to be kept.
    pub(crate) fn new(question: &Question, id: &str, owner: Option<Owner>) -> Option<Self> {
        let kind = match question.form {
            Form::Chat => Kind::Completion,
            Form::Response(_) => Kind::Response,
            Form::Completion { .. } => return None,
        };
        let owner = owner.filter(|_| question.store)?;
        Some(Self { kind, id: id.to_owned(), owner, question: Arc::new(question.clone()) })
    }

    /// Keeps a reply. Its client has paid for it, and gets it even if it cannot be kept.
    pub(crate) async fn keep(&self, gateway: &Gateway, mut reply: Value) {
        let question = &self.question;
        reply["metadata"] = json!(question.metadata);
        let said: Vec<Value> = match question.prompts.first() {
            Some(Prompt::Messages { messages, .. }) => messages.iter().map(shown).collect(),
            _ => Vec::new(),
        };
        let input: Vec<Value> = match &question.form {
            Form::Response(wish) => wish.input.iter().map(shown).collect(),
            _ => Vec::new(),
        };
        let value = json!({ "reply": reply, "said": said, "input": input });
        let thing = Thing { owner: self.owner, created: now_s(), value };
        if let Err(error) = gateway.shelf.put(self.kind, &self.id, thing).await {
            tracing::error!(id = self.id, %error, "a reply was not kept for its client");
        }
    }
}

/// Routes of what is stored.
pub(crate) fn routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/v1/chat/completions/{id}", get(completion).post(update).delete(forget))
        .route("/v1/chat/completions/{id}/messages", get(messages))
        .route("/v1/responses/input_tokens", post(count))
        .route("/v1/responses/{id}", get(response).delete(forget_response))
        .route("/v1/responses/{id}/input_items", get(list_input))
        .route("/v1/responses/{id}/cancel", post(cancel))
}

/// Whose things a request asks for.
pub(crate) fn owner(gateway: &Gateway, headers: &HeaderMap) -> Result<Owner, Problem> {
    let caller = gateway.keys.caller(headers)?;
    caller.owner(&gateway.keys).ok_or_else(|| Problem::no_such("owner", "-"))
}

pub(crate) fn unreadable(error: StoreError) -> Problem {
    Problem::internal(format!("what is stored cannot be read: {error}"))
}

/// A list as OpenAI's clients turn its pages.
pub(crate) fn listed(data: &[Value], more: bool) -> Response {
    let (first, last) =
        (data.first().map(|first| &first["id"]), data.last().map(|last| &last["id"]));
    let list = json!({
        "object": "list", "data": data, "first_id": first, "last_id": last, "has_more": more,
    });
    axum::Json(list).into_response()
}

async fn found(
    gateway: &Gateway,
    headers: &HeaderMap,
    (kind, what): (Kind, &str),
    id: Id,
) -> Result<(String, Thing), Problem> {
    let owner = owner(gateway, headers)?;
    let id = id.map(|Path(id)| id).unwrap_or_default();
    match gateway.shelf.get(kind, &id, owner).await.map_err(unreadable)? {
        Some(thing) => Ok((id, thing)),
        None => Err(Problem::no_such(what, &id)),
    }
}

const COMPLETION: (Kind, &str) = (Kind::Completion, "stored completion");
const RESPONSE: (Kind, &str) = (Kind::Response, "stored response");

async fn completion(
    State(gateway): Shared,
    headers: HeaderMap,
    id: Id,
) -> Result<Response, Problem> {
    let (_, thing) = found(&gateway, &headers, COMPLETION, id).await?;
    Ok(axum::Json(&thing.value["reply"]).into_response())
}

/// Changes what is noted on a completion.
async fn update(State(gateway): Shared, id: Id, request: Request) -> Result<Response, Problem> {
    let headers = request.headers().clone();
    let (id, mut thing) = found(&gateway, &headers, COMPLETION, id).await?;
    let notes = sent_metadata(&read(request, &gateway).await?.bytes)?;
    thing.value["reply"]["metadata"] = json!(notes);
    let reply = thing.value["reply"].clone();
    gateway.shelf.put(Kind::Completion, &id, thing).await.map_err(Problem::storage)?;
    Ok(axum::Json(reply).into_response())
}

async fn forget(State(gateway): Shared, headers: HeaderMap, id: Id) -> Result<Response, Problem> {
    let (id, thing) = found(&gateway, &headers, COMPLETION, id).await?;
    gateway.shelf.remove(Kind::Completion, &id, thing.owner).await.map_err(Problem::storage)?;
    let gone = json!({ "id": id, "object": "chat.completion.deleted", "deleted": true });
    Ok(axum::Json(gone).into_response())
}

/// Lists stored completions, of one model and with these notes if they are named.
pub(crate) async fn completions(
    State(gateway): Shared,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let owner = owner(&gateway, &headers)?;
    let query = Query::of(&uri);
    let wanted = |value: &Value| {
        let reply = &value["reply"];
        query.get("model").is_none_or(|model| reply["model"] == model)
            && query.within("metadata").all(|(name, note)| reply["metadata"][name] == note)
    };
    let page = query.page(false)?;
    let found = gateway.shelf.list(Kind::Completion, owner, &page, wanted).await;
    let (things, more) = found.map_err(unreadable)?;
    let data: Vec<Value> =
        things.into_iter().map(|(_, mut thing)| thing.value["reply"].take()).collect();
    Ok(listed(&data, more))
}

/// A part of a list that is in memory; things are known by their `id`.
fn part(all: Vec<Value>, uri: &Uri, newest_first: bool) -> Result<Response, Problem> {
    let page = Query::of(uri).page(newest_first)?;
    let mut all = all;
    if page.newest_first {
        all.reverse();
    }
    if let Some(after) = &page.after {
        let place = all.iter().position(|item| item["id"] == *after);
        all.drain(..place.map_or(all.len(), |place| place + 1));
    }
    let more = all.len() > page.limit;
    all.truncate(page.limit);
    Ok(listed(&all, more))
}

async fn messages(
    State(gateway): Shared,
    headers: HeaderMap,
    uri: Uri,
    id: Id,
) -> Result<Response, Problem> {
    let (id, thing) = found(&gateway, &headers, COMPLETION, id).await?;
    let said = thing.value["said"].as_array().into_iter().flatten().enumerate();
    let named = said.map(|(place, message)| {
        let mut message = message.clone();
        message["id"] = json!(format!("{id}-{place}"));
        message["refusal"] = Value::Null;
        message
    });
    part(named.collect(), &uri, false)
}

async fn response(
    State(gateway): Shared,
    headers: HeaderMap,
    uri: Uri,
    id: Id,
) -> Result<Response, Problem> {
    let (id, thing) = found(&gateway, &headers, RESPONSE, id).await?;
    let reply = current(&gateway, &id, thing);
    let query = Query::of(&uri);
    if query.get("stream") == Some("true") {
        let after = query.get("starting_after").and_then(|after| after.parse().ok());
        return Ok(event_stream(Body::from(replayed(&reply, after))));
    }
    Ok(axum::Json(reply).into_response())
}

/// A response as it is now: what nobody works on any more is not under way.
fn current(gateway: &Gateway, id: &str, thing: Thing) -> Value {
    let mut reply = thing.value["reply"].clone();
    if reply["status"] == "in_progress" && !gateway.unattended.runs(id) {
        reply["status"] = json!("failed");
        reply["error"] = failure(&Problem::internal("the gateway ended before the response did"));
    }
    reply
}

async fn forget_response(
    State(gateway): Shared,
    headers: HeaderMap,
    id: Id,
) -> Result<Response, Problem> {
    let (id, thing) = found(&gateway, &headers, RESPONSE, id).await?;
    gateway.unattended.stop(&id);
    gateway.shelf.remove(Kind::Response, &id, thing.owner).await.map_err(Problem::storage)?;
    Ok(axum::Json(json!({ "id": id, "object": "response", "deleted": true })).into_response())
}

async fn list_input(
    State(gateway): Shared,
    headers: HeaderMap,
    uri: Uri,
    id: Id,
) -> Result<Response, Problem> {
    let (id, thing) = found(&gateway, &headers, RESPONSE, id).await?;
    let input: Vec<Message> =
        thing.value["input"].as_array().into_iter().flatten().map(kept).collect();
    part(input_items(&input, &id), &uri, true)
}

async fn cancel(State(gateway): Shared, headers: HeaderMap, id: Id) -> Result<Response, Problem> {
    let (id, mut thing) = found(&gateway, &headers, RESPONSE, id).await?;
    if thing.value["reply"]["background"] != true {
        let message = "only a response that was created with background set to true is cancelled";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_value", message));
    }
    if gateway.unattended.stop(&id) {
        thing.value["reply"]["status"] = json!("cancelled");
        let put = gateway.shelf.put(Kind::Response, &id, thing.clone()).await;
        put.map_err(Problem::storage)?;
    }
    Ok(axum::Json(current(&gateway, &id, thing)).into_response())
}

/// Counts the tokens that a request would be asked with.
async fn count(State(gateway): Shared, request: Request) -> Result<Response, Problem> {
    let caller = gateway.keys.caller(request.headers())?;
    let read = read(request, &gateway).await?;
    let history = history(&gateway, &caller, &read.bytes).await?;
    let permit = gateway.admit()?;
    let shop = Arc::clone(&gateway);
    let counted = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        input_tokens(&shop, &history, &read.bytes)
    });
    let tokens = counted.await.map_err(|error| Problem::internal(error.to_string()))??;
    let said = json!({ "object": "response.input_tokens", "input_tokens": tokens });
    Ok(axum::Json(said).into_response())
}

/// The conversation of the response that a request goes on from, without its instructions.
///
/// # Errors
/// If there is no such response, or it is not complete.
pub(crate) async fn history(
    gateway: &Gateway,
    caller: &Caller,
    body: &[u8],
) -> Result<Vec<Message>, Problem> {
    let Some(id) = responses::previous(body)? else { return Ok(Vec::new()) };
    let missing = || Problem {
        param: Some("previous_response_id".into()),
        ..Problem::no_such("stored response", &id)
    };
    let owner = caller.owner(&gateway.keys).ok_or_else(missing)?;
    let thing = gateway.shelf.get(Kind::Response, &id, owner).await.map_err(unreadable)?;
    let thing = thing.ok_or_else(missing)?;
    let reply = &thing.value["reply"];
    let answer = remembered(&reply["output"]).ok_or_else(|| {
        let message = format!("the response {id:?} has no answer to go on from");
        Problem::invalid_value("previous_response_id", message)
    })?;
    let mut said: Vec<Message> =
        thing.value["said"].as_array().into_iter().flatten().map(kept).collect();
    // Instructions are those of one request.
    if reply["instructions"].is_string() && !said.is_empty() {
        said.remove(0);
    }
    said.push(answer);
    Ok(said)
}
