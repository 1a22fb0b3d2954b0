//! One line of a batch: read, answered, and told.

use std::sync::Arc;
use std::time::Duration;

use assay_protocol::OrderHash;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::paper::Journal;
use crate::begin::{again, for_batch};
use crate::http::{Gateway, now_s};
use crate::keys::Caller;
use crate::openai::{Api, Problem};
use crate::tell::whole;

/// How often a line is tried whose answer failed on its way.
const TRIES_MAX: u32 = 4;

/// A line that is worked on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) batch: &'a str,
    /// From zero.
    pub(super) line: usize,
    /// Unix seconds after which it is not tried again.
    pub(super) expires: u64,
}

/// What became of a line.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) good: bool,
    /// What is told of it, as one line.
    pub(super) said: String,
}

/// A line as it is sent.
#[derive(Deserialize)]
struct Line<'a> {
    custom_id: String,
    method: String,
    url: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

impl Outcome {
    fn replied(place: Place<'_>, id: &str, status: u16, body: &Value) -> Self {
        let request = request_id(place);
        let said = json!({
            "id": request,
            "custom_id": id,
            "response": { "status_code": status, "request_id": request, "body": body },
            "error": null,
        });
        Self { good: status == 200, said: said.to_string() }
    }

    /// Of a line that is no request.
    fn bad(place: Place<'_>, id: Option<&str>, code: &str, message: &str) -> Self {
        let said = json!({
            "id": request_id(place),
            "custom_id": id,
            "response": null,
            "error": { "code": code, "message": message, "line": place.line + 1 },
        });
        Self { good: false, said: said.to_string() }
    }
}

/// What the answer to a line is called. The number in it tells which lines are done.
fn request_id(place: Place<'_>) -> String {
    format!("batch_req_{}_{}", place.batch.trim_start_matches("batch_"), place.line)
}

/// The line that an answer is of.
pub(super) fn line_of(said: &str) -> Option<usize> {
    #[derive(Deserialize)]
    struct Said<'a> {
        #[serde(borrow)]
        id: &'a str,
    }
    let said: Said = serde_json::from_str(said).ok()?;
    said.id.rsplit_once('_')?.1.parse().ok()
}

/// Answers one line. What it buys is in the journal first; `bought` is what an earlier gateway bought for
/// it. None if it is left for the next gateway.
pub(super) async fn answered(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    api: Api,
    place: Place<'_>,
    (journal, bought): (&Journal, &[Vec<OrderHash>]),
    text: &[u8],
) -> Option<Outcome> {
    let line: Line = match serde_json::from_slice(text) {
        Ok(line) => line,
        Err(error) => {
            let message = format!("the line is no request: {error}");
            return Some(Outcome::bad(place, None, "invalid_json_line", &message));
        }
    };
    let id = &line.custom_id;
    if line.method != "POST" || line.url != api.path() {
        let message = format!(
            "the line asks for {} {}, its batch is for POST {}",
            line.method,
            line.url,
            api.path()
        );
        return Some(Outcome::bad(place, Some(id), "invalid_request", &message));
    }
    let body = line.body.get().as_bytes();
    for orders in bought {
        match again(gateway, caller, api, body, orders).await {
            Ok(Some(reply)) => return Some(Outcome::replied(place, id, 200, &reply)),
            Ok(None) => {}
            Err(problem) => return Some(failed(place, id, &problem)),
        }
    }
    let mut tries = 0;
    loop {
        let problem = match once(gateway, caller, api, place, journal, body).await {
            Ok(reply) => return Some(Outcome::replied(place, id, 200, &reply)),
            Err(problem) => problem,
        };
        if gateway.closing.is_cancelled() {
            return None;
        }
        // A full house or a missing provider is waited for; what broke is tried a few times.
        tries += u32::from(problem.retry_after_s.is_none());
        if problem.is_final() || tries >= TRIES_MAX || now_s() >= place.expires {
            return Some(failed(place, id, &problem));
        }
        let wait = Duration::from_secs(problem.retry_after_s.unwrap_or(1).clamp(1, 60).into());
        tokio::select! {
            () = gateway.closing.cancelled() => return None,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

async fn once(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    api: Api,
    place: Place<'_>,
    journal: &Journal,
    body: &[u8],
) -> Result<Value, Problem> {
    let prepared = for_batch(gateway, caller, api, body.to_vec()).await?;
    journal.note(place.line, &prepared.orders()).await.map_err(Problem::storage)?;
    whole(gateway, prepared).await
}

fn failed(place: Place<'_>, id: &str, problem: &Problem) -> Outcome {
    let body = serde_json::from_str(&problem.body()).unwrap_or_default();
    Outcome::replied(place, id, problem.status.as_u16(), &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_which_line_it_is_of() {
        let place = Place { batch: "batch_ab", line: 17, expires: 0 };
        let bad = Outcome::bad(place, None, "c", "m");
        assert_eq!((line_of(&bad.said), bad.good), (Some(17), false));
        let good = Outcome::replied(place, "x", 200, &json!({}));
        assert_eq!((line_of(&good.said), good.good), (Some(17), true));
        assert_eq!(line_of("{}"), None);
        assert_eq!(line_of("{\"id\":\"batch"), None);
    }
}
