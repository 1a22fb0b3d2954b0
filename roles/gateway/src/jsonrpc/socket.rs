//! One WebSocket: calls and their answers, and answers that come piece by piece.
//!
//! `assay_subscribe` with `"infer"` and a request, or with `"submit"`, a request and its signed order,
//! begins a purchase and gives its id; each piece is
//! an `assay_subscription` notice. `assay_unsubscribe`, or leaving, cancels the order, and what was
//! delivered is paid for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use assay_protocol::hex;
use axum::body::Body;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, interval_at, timeout};

use super::message::{self, Call, Calls, Error, answer_line};
use super::methods::{Inferred, submitted, written};
use super::{BATCH_MAX, answer, stranger};
use crate::begin::begin;
use crate::buy::News;
use crate::http::Gateway;
use crate::keys::Caller;
use crate::openai::Problem;

/// Longest message, in bytes. Longer requests are posted.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Calls and subscriptions that one socket has under way.
const RUNNING_MAX: usize = 64;
/// Lines that wait for a client to read them. One that is slower is left.
const LINES_MAX: usize = 256;
/// Longest that a client may take to read one line.
const READ_MAX: Duration = Duration::from_secs(30);
/// How often a silent client is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Pings without any answer before it is left.
const SILENT_MAX: u32 = 3;

pub(super) fn open(
    gateway: Arc<Gateway>,
    caller: Caller,
    upgrade: WebSocketUpgrade,
) -> Response<Body> {
    let bytes_max = match caller {
        Caller::Stranger(_) => stranger::BYTES_MAX,
        Caller::Anyone | Caller::Holder(..) => MESSAGE_BYTES_MAX,
    };
    let upgrade = upgrade.max_message_size(bytes_max).max_frame_size(bytes_max);
    upgrade.on_upgrade(move |socket| async move {
        let closing = gateway.closing.clone();
        let _ = closing.run_until_cancelled(talk(gateway, caller, socket)).await;
    })
}

/// What one socket has under way.
struct Talk {
    gateway: Arc<Gateway>,
    caller: Caller,
    lines: mpsc::Sender<String>,
    running: JoinSet<()>,
    subscriptions: HashMap<String, AbortHandle>,
}

/// Serves a client until it leaves, falls silent or reads too slowly, or has no key and asks nothing.
async fn talk(gateway: Arc<Gateway>, caller: Caller, mut socket: WebSocket) {
    let (lines, mut waiting) = mpsc::channel(LINES_MAX);
    let mut talk =
        Talk { gateway, caller, lines, running: JoinSet::new(), subscriptions: HashMap::new() };
    let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
    let (mut silent, mut asked) = (0, Instant::now());
    loop {
        let room = talk.running.len() < RUNNING_MAX;
        tokio::select! {
            biased;
            Some(line) = waiting.recv() => {
                let sent = timeout(READ_MAX, socket.send(Message::Text(line.into()))).await;
                if !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
            Some(_) = talk.running.join_next() => {
                talk.subscriptions.retain(|_, running| !running.is_finished());
            }
            said = socket.recv(), if room => {
                silent = 0;
                match said {
                    Some(Ok(Message::Text(text))) => {
                        asked = Instant::now();
                        talk.hear(text.as_bytes());
                    }
                    Some(Ok(Message::Binary(bytes))) => {
                        asked = Instant::now();
                        talk.hear(&bytes);
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                }
            }
            _ = pings.tick() => {
                if stranger::outstays(&talk.caller, talk.running.len(), asked.elapsed()) {
                    return;
                }
                silent += 1;
                if silent > SILENT_MAX || socket.send(Message::Ping(Default::default())).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl Talk {
    fn hear(&mut self, text: &[u8]) {
        match message::read(text, BATCH_MAX) {
            Ok(Calls::One(call)) if call.method == "assay_subscribe" => self.subscribe(&call),
            Ok(Calls::One(call)) if call.method == "assay_unsubscribe" => self.unsubscribe(&call),
            calls => {
                let (gateway, lines) = (Arc::clone(&self.gateway), self.lines.clone());
                let caller = self.caller.clone();
                self.running.spawn(async move {
                    if let Some(line) = answer(&gateway, &caller, calls).await {
                        let _ = lines.send(line).await;
                    }
                });
            }
        }
    }

    fn subscribe(&mut self, call: &Call) {
        let request = match wanted(call) {
            Ok(request) => request,
            Err(error) => return self.say(call, Err(error)),
        };
        let id = subscription_id();
        let (gateway, lines) = (Arc::clone(&self.gateway), self.lines.clone());
        self.say(call, Ok(json!(id)));
        let (name, caller) = (id.clone(), self.caller.clone());
        let running = self
            .running
            .spawn(async move { tell(&gateway, &caller, request, &name, &lines).await });
        self.subscriptions.insert(id, running);
    }

    fn unsubscribe(&mut self, call: &Call) {
        let id = call.param().and_then(|param| {
            serde_json::from_str::<String>(param.get())
                .map_err(|error| Error::Params(error.to_string()))
        });
        let ended = id.map(|id| {
            // Dropping what listens to the purchase cancels the order.
            self.subscriptions.remove(&id).map(|running| running.abort()).is_some()
        });
        self.say(call, ended.map(Value::Bool));
    }

    fn say(&self, call: &Call, outcome: Result<Value, Error>) {
        let Some(id) = &call.id else { return };
        let outcome = outcome.and_then(|value| written(&value));
        // A client that leaves hundreds of lines unread has lost this one.
        let _ = self.lines.try_send(answer_line(Some(id), outcome));
    }
}

/// What a subscription is about.
enum Wanted {
    /// `["infer", {request}]`.
    Infer(Vec<u8>),
    /// `["submit", {request}, {order, terms, signature, grants}]`.
    Submit(Box<RawValue>, Box<RawValue>),
}

fn wanted(call: &Call) -> Result<Wanted, Error> {
    let params = call.positions()?;
    let Some((topic, params)) = params.split_first() else {
        return Err(Error::Params("expected a topic, \"infer\" or \"submit\"".into()));
    };
    match (serde_json::from_str::<&str>(topic.get()), params) {
        (Ok("infer"), [request]) => Ok(Wanted::Infer(request.get().as_bytes().to_vec())),
        (Ok("submit"), &[request, order]) => {
            Ok(Wanted::Submit(request.to_owned(), order.to_owned()))
        }
        (Ok("infer"), _) => Err(Error::Params("expected \"infer\" and a request".into())),
        (Ok("submit"), _) => {
            Err(Error::Params("expected \"submit\", a request and its signed order".into()))
        }
        _ => Err(Error::Params(format!("the topic is {topic}, expected \"infer\" or \"submit\""))),
    }
}

async fn begun(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    wanted: Wanted,
) -> Result<mpsc::Receiver<News>, Error> {
    match wanted {
        Wanted::Infer(request) => Ok(begin(gateway, caller, request.into()).await?),
        Wanted::Submit(request, order) => submitted(gateway, caller, &request, &order).await,
    }
}

/// Tells the client of a purchase until that is over.
async fn tell(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    wanted: Wanted,
    id: &str,
    lines: &mpsc::Sender<String>,
) {
    let notice = |result: Value| {
        let params = json!({ "subscription": id, "result": result });
        json!({ "jsonrpc": "2.0", "method": "assay_subscription", "params": params }).to_string()
    };
    let failed = |error: Error| notice(json!({ "type": "failed", "error": error.value() }));
    let mut news = match begun(gateway, caller, wanted).await {
        Ok(news) => news,
        Err(error) => {
            let _ = lines.send(failed(error)).await;
            return;
        }
    };
    while let Some(heard) = news.recv().await {
        let line = match heard {
            News::Accepted => continue,
            News::Text(piece) => notice(json!({ "type": "text", "text": piece.text })),
            News::Done(bought) => match serde_json::to_value(Inferred::of(&bought)) {
                Ok(mut done) => {
                    done["type"] = json!("done");
                    notice(done)
                }
                Err(error) => failed(Problem::internal(error.to_string()).into()),
            },
            News::Failed(problem) => failed(problem.into()),
        };
        if lines.send(line).await.is_err() {
            return;
        }
    }
}

/// A name that no other client can guess.
fn subscription_id() -> String {
    let mut bytes = [0; 16];
    // It names one of this socket's own subscriptions; without randomness it could still be only that.
    let _ = getrandom::fill(&mut bytes);
    hex::encode_prefixed(bytes)
}
