//! What shows that providers lied, over HTTP: `GET /v1/lies` lists the orders about which they did,
//! `GET /v1/lies/{order}` has all that shows it.

use std::sync::Arc;

use assay_protocol::{Address, OrderHash};
use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::{Deserialize, Serialize};

use crate::http::{Gateway, json};
use crate::keys::admits;
use crate::openai::Problem;

/// Most that are listed.
const LISTED_MAX: usize = 1000;

type Shared = State<Arc<Gateway>>;

pub(crate) fn routes() -> Router<Arc<Gateway>> {
    Router::new().route("/v1/lies", get(list)).route("/v1/lies/{order}", get(lie))
}

/// What the list reads of a [`Lie`](crate::close::Lie).
#[derive(Deserialize)]
struct Kept {
    reason: String,
    /// Unix seconds; none in what was kept before there was a time.
    time: Option<u64>,
    offer: Offer,
}

#[derive(Deserialize)]
struct Offer {
    provider: Address,
}

#[derive(Serialize)]
struct Entry {
    order: OrderHash,
    provider: Address,
    reason: String,
    time: Option<u64>,
}

async fn list(State(gateway): Shared, headers: HeaderMap) -> Result<Response, Problem> {
    admits(&gateway, &headers)?;
    let lies = gateway.store.lies::<Kept>(LISTED_MAX).await;
    let lies = lies.map_err(|error| Problem::internal(error.to_string()))?;
    let entry = |(order, kept): (OrderHash, Kept)| {
        let Kept { reason, time, offer } = kept;
        Entry { order, provider: offer.provider, reason, time }
    };
    let data: Vec<Entry> = lies.into_iter().map(entry).collect();
    Ok(axum::Json(serde_json::json!({ "object": "list", "data": data })).into_response())
}

async fn lie(
    State(gateway): Shared,
    order: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    admits(&gateway, &headers)?;
    let order = order.map(|Path(order)| order).unwrap_or_default();
    let found = match order.parse() {
        Ok(hash) => gateway.store.lie(hash).await,
        Err(_) => Ok(None),
    };
    let found = found.map_err(|error| Problem::internal(error.to_string()))?;
    found.map(json).ok_or_else(|| {
        let message = format!("no lie is kept about {order:?}");
        Problem::new(StatusCode::NOT_FOUND, "lie_not_found", message)
    })
}
