//! Batches: many requests in one file, answered while nobody waits.
//!
//! A batch is taken on by a task of its own (`work`), line by line (`line`), a bounded number at once. What
//! a line bought is written down before it is bought and its answer when it is there (`paper`), so a
//! gateway that ends at any moment goes on from there when it starts again, and buys no answer twice. A bad
//! line is told in the file of errors, and stops no other.

mod line;
mod paper;
mod work;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::begin::random;
use crate::body::read;
use crate::files;
use crate::http::{Gateway, now_s};
use crate::openai::{BatchRequest, Problem};
use crate::query::Query;
use crate::shelf::{Kind, Owner, THINGS_MAX, Thing, new_id};
use crate::stored::{listed, owner, unreadable};

type Shared = State<Arc<Gateway>>;
type Id = Result<Path<String>, PathRejection>;

/// How long a batch may take, in seconds.
const WINDOW_S: u64 = 24 * 3600;

/// The batches under way.
#[derive(Debug, Default)]
pub(crate) struct Batches(Mutex<HashMap<String, Arc<Progress>>>);

/// How far a batch is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    completed: AtomicU64,
    failed: AtomicU64,
    stop: CancellationToken,
}

impl Batches {
    fn begin(&self, id: &str) -> Arc<Progress> {
        Arc::clone(self.lock().entry(id.to_owned()).or_default())
    }

    fn over(&self, id: &str) {
        self.lock().remove(id);
    }

    fn of(&self, id: &str) -> Option<Arc<Progress>> {
        self.lock().get(id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Progress>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Routes of batches.
pub(crate) fn routes() -> Router<Arc<Gateway>> {
    Router::new()
        .route("/v1/batches", get(list).post(create))
        .route("/v1/batches/{id}", get(batch))
        .route("/v1/batches/{id}/cancel", post(cancel))
}

/// Takes on what an earlier gateway left unfinished.
pub(crate) async fn resume(gateway: &Arc<Gateway>) {
    for (id, owner) in gateway.shelf.all(Kind::Batch) {
        match gateway.shelf.get(Kind::Batch, &id, owner).await {
            Ok(Some(thing)) if is_open(&thing.value) => begin(gateway, id, thing),
            Ok(_) => {}
            Err(error) => tracing::error!(id, %error, "a batch cannot be read"),
        }
    }
}

fn is_open(batch: &Value) -> bool {
    let status = batch["status"].as_str().unwrap_or_default();
    matches!(status, "validating" | "in_progress" | "finalizing" | "cancelling")
}

fn begin(gateway: &Arc<Gateway>, id: String, thing: Thing) {
    let progress = gateway.batches.begin(&id);
    if thing.value["status"] == "cancelling" {
        progress.stop.cancel();
    }
    let shop = Arc::clone(gateway);
    gateway.purchases.spawn(async move {
        work::run(&shop, &id, thing, &progress).await;
        shop.batches.over(&id);
    });
}

async fn create(State(gateway): Shared, request: Request) -> Result<Response, Problem> {
    let owner = owner(&gateway, request.headers())?;
    let asked = BatchRequest::parse(&read(request, &gateway).await?.bytes)?;
    let file = files::find(&gateway, &asked.input_file, owner).await?;
    let file = file.ok_or_else(|| Problem {
        param: Some("input_file_id".into()),
        ..Problem::no_such("file", &asked.input_file)
    })?;
    if file.value["purpose"] != "batch" {
        let message = format!("the file {:?} was not uploaded for a batch", asked.input_file);
        return Err(Problem::invalid_value("input_file_id", message));
    }
    if gateway.shelf.count(Kind::Batch) >= THINGS_MAX || gateway.closing.is_cancelled() {
        return Err(Problem::overloaded());
    }
    let (id, created) = (new_id("batch_", random()?), now_s());
    let value = json!({
        "id": id,
        "object": "batch",
        "endpoint": asked.api.path(),
        "errors": null,
        "input_file_id": asked.input_file,
        "completion_window": "24h",
        "status": "validating",
        "output_file_id": null,
        "error_file_id": null,
        "created_at": created,
        "in_progress_at": null,
        "expires_at": created + WINDOW_S,
        "finalizing_at": null,
        "completed_at": null,
        "failed_at": null,
        "expired_at": null,
        "cancelling_at": null,
        "cancelled_at": null,
        "request_counts": { "total": 0, "completed": 0, "failed": 0 },
        "metadata": asked.metadata,
    });
    let thing = Thing { owner, created, value: value.clone() };
    let kept = gateway.shelf.put(Kind::Batch, &id, thing.clone()).await;
    kept.map_err(Problem::storage)?;
    begin(&gateway, id, thing);
    Ok(axum::Json(value).into_response())
}

/// A batch as it is now.
fn current(gateway: &Gateway, id: &str, mut value: Value) -> Value {
    if let Some(progress) = gateway.batches.of(id) {
        value["request_counts"]["completed"] = progress.completed.load(Ordering::Relaxed).into();
        value["request_counts"]["failed"] = progress.failed.load(Ordering::Relaxed).into();
    }
    value
}

async fn named(gateway: &Gateway, owner: Owner, id: Id) -> Result<(String, Thing), Problem> {
    let id = id.map(|Path(id)| id).unwrap_or_default();
    match gateway.shelf.get(Kind::Batch, &id, owner).await.map_err(unreadable)? {
        Some(thing) => Ok((id, thing)),
        None => Err(Problem::no_such("batch", &id)),
    }
}

async fn batch(State(gateway): Shared, headers: HeaderMap, id: Id) -> Result<Response, Problem> {
    let (id, thing) = named(&gateway, owner(&gateway, &headers)?, id).await?;
    Ok(axum::Json(current(&gateway, &id, thing.value)).into_response())
}

async fn list(State(gateway): Shared, headers: HeaderMap, uri: Uri) -> Result<Response, Problem> {
    let owner = owner(&gateway, &headers)?;
    let page = Query::of(&uri).page(true)?;
    let found = gateway.shelf.list(Kind::Batch, owner, &page, |_| true).await;
    let (things, more) = found.map_err(unreadable)?;
    let things = things.into_iter();
    let data: Vec<Value> = things.map(|(id, thing)| current(&gateway, &id, thing.value)).collect();
    Ok(listed(&data, more))
}

/// Stops a batch. What runs is finished, and what is there is in its files.
async fn cancel(State(gateway): Shared, headers: HeaderMap, id: Id) -> Result<Response, Problem> {
    let (id, mut thing) = named(&gateway, owner(&gateway, &headers)?, id).await?;
    if let Some(progress) = gateway.batches.of(&id).filter(|_| is_open(&thing.value)) {
        progress.stop.cancel();
        // The task that works on it writes this down, too: it alone changes a batch under way.
        thing.value["status"] = json!("cancelling");
        thing.value["cancelling_at"] = json!(now_s());
    }
    Ok(axum::Json(current(&gateway, &id, thing.value)).into_response())
}
