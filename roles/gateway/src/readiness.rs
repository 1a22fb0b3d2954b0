//! Whether a gateway can answer, and if not, why and since when.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::catalogue::Model;
use crate::http::{Gateway, now_s};
use crate::openai::Problem;

/// How often it is looked: what is not ready is said to be so from the first look that found it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is not ready: its name, and since when, Unix seconds.
#[derive(Debug, Default)]
pub(crate) struct Readiness(Mutex<BTreeMap<String, u64>>);

impl Readiness {
    /// Takes note of what is not ready at `now`; gives since when each is not.
    fn note(&self, lacking: impl Iterator<Item = String>, now: u64) -> BTreeMap<String, u64> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = |name: String| {
            let since = known.get(&name).copied().unwrap_or(now);
            (name, since)
        };
        let found: BTreeMap<String, u64> = lacking.map(since).collect();
        known.clone_from(&found);
        found
    }
}

/// Looks at what is ready, for ever.
pub(crate) async fn watch(gateway: &Gateway) {
    loop {
        look(gateway);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The models that nobody offers now, with since when.
fn look(gateway: &Gateway) -> BTreeMap<String, u64> {
    let now = now_s();
    let models = gateway.catalogue.models.iter();
    let offered = |model: &&Arc<Model>| {
        let ready = gateway.directory.offers(model.listed.id, now);
        gateway.figures.stands(&model.listed.name, ready);
        ready
    };
    let lacking = models.filter(|model| !offered(model)).map(|model| model.listed.name.clone());
    gateway.readiness.note(lacking, now)
}

/// What `GET /readyz` says: 200, or 503 with what is not ready, why, and since when.
pub(crate) fn response(gateway: &Gateway) -> Response {
    let lacking = look(gateway);
    let mut reasons: Vec<Value> = lacking
        .into_iter()
        .map(|(model, since)| {
            let reason = "no provider offers it; GET /v1/providers tells why";
            json!({ "what": "model", "name": model, "reason": reason, "since": since })
        })
        .collect();
    let problem = match gateway.closing.is_cancelled() {
        true => {
            let reason = "the gateway is shutting down and takes no new requests";
            reasons.insert(0, json!({ "what": "gateway", "reason": reason }));
            Problem::closing()
        }
        false if reasons.is_empty() => {
            return axum::Json(json!({ "status": "ready" })).into_response();
        }
        false => Problem::no_provider(),
    };
    let error: Value = serde_json::from_str(&problem.body()).unwrap_or_default();
    let said = json!({ "status": "not ready", "reasons": reasons, "error": error["error"] });
    (StatusCode::SERVICE_UNAVAILABLE, axum::Json(said)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ready_is_so_since_it_was_first_seen() {
        let readiness = Readiness::default();
        let note = |lacking: &[&str], now| {
            readiness.note(lacking.iter().map(ToString::to_string), now).into_iter().collect()
        };
        let of = |expected: &[(&str, u64)]| -> Vec<(String, u64)> {
            expected.iter().map(|(name, since)| ((*name).to_owned(), *since)).collect()
        };
        let check = |found: Vec<(String, u64)>, expected: &[(&str, u64)]| {
            assert_eq!(found, of(expected));
        };
        check(note(&["a"], 5), &[("a", 5)]);
        check(note(&["a", "b"], 7), &[("a", 5), ("b", 7)]);
        check(note(&["b"], 8), &[("b", 7)]);
        check(note(&["a"], 9), &[("a", 9)]);
    }
}
