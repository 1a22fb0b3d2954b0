//! Serves nodes and leaves of traces that this provider committed to, so that a challenger need not
//! have them revealed on chain, which costs both sides gas.
//!
//! Anyone may ask, so it costs this machine little: only records that are at hand answer, a few
//! questions at once, and so many about one dispute. Who gets no answer has the chain.

use std::sync::Arc;
use std::time::Duration;

use assay_court::Record;
use assay_court::wire::{Below, Leaf, Nodes};
use assay_evidence::op::Place;
use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use tokio::time::timeout;

use super::Shared;
use crate::http::Seller;

/// Longest wait for a turn, shorter than a challenger waits for an answer: several may ask at once.
const TURN_WAIT_MAX: Duration = Duration::from_secs(2);

type Answered<T> = Result<Json<T>, StatusCode>;

/// `GET /v1/disputes/{id}/nodes`.
pub(crate) async fn nodes(
    State(seller): State<Arc<Seller>>,
    Path(id): Path<u64>,
    RawQuery(query): RawQuery,
) -> Answered<Nodes> {
    let below = query.as_deref().and_then(Below::read).ok_or(StatusCode::BAD_REQUEST)?;
    let nodes = ask(seller.court.as_ref(), id, move |record| record.nodes(below)).await?;
    Ok(Json(Nodes { nodes }))
}

/// `GET /v1/disputes/{id}/leaves/{position}/{op}/{leaf}`.
pub(crate) async fn leaf(
    State(seller): State<Arc<Seller>>,
    Path((id, position, op, leaf)): Path<(u64, u32, u32, u64)>,
) -> Answered<Leaf> {
    let place = Place { position, op, leaf };
    let data = ask(seller.court.as_ref(), id, move |record| record.leaf(place)).await?;
    Ok(Json(Leaf { data: data.into() }))
}

/// What a record that is committed to says, on a thread that may compute.
async fn ask<T: Send + 'static>(
    court: Option<&Arc<Shared>>,
    id: u64,
    say: impl FnOnce(&Record) -> Option<T> + Send + 'static,
) -> Result<T, StatusCode> {
    let court = court.ok_or(StatusCode::NOT_FOUND)?;
    let turn = timeout(TURN_WAIT_MAX, court.serving.acquire()).await;
    let Ok(Ok(_turn)) = turn else { return Err(StatusCode::TOO_MANY_REQUESTS) };
    let committed = court.asked(id)?;
    let record = court.bench.at_hand(committed.receipt).ok_or(StatusCode::NOT_FOUND)?;
    if record.root() != committed.trace {
        return Err(StatusCode::NOT_FOUND);
    }
    let said = tokio::task::spawn_blocking(move || say(&record)).await;
    said.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?.ok_or(StatusCode::NOT_FOUND)
}
