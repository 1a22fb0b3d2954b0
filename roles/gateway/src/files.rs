//! Files that clients upload: kept as they are, and fetched or taken away again.
//!
//! A file is streamed to the disk, and is there once all of it is: what breaks off on its way leaves
//! nothing. Its length, and that of all files together, are bounded.

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::begin::random;
use crate::http::{Gateway, now_s};
use crate::openai::Problem;
use crate::query::Query;
use crate::shelf::{Kind, Owner, THINGS_MAX, Thing, UPLOAD, new_id};
use crate::stored::{listed, owner, unreadable};

/// Longest file, in bytes.
const FILE_BYTES_MAX: u64 = 200 << 20;

/// Bytes of all files together.
const FILES_BYTES_MAX: u64 = 8 << 30;

/// Longest text beside a file, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// Longest wait for the next piece of an upload.
const PIECE_WAIT_MAX: Duration = Duration::from_secs(30);

/// Bytes of a file that are sent at once.
const PIECE_BYTES: usize = 64 << 10;

/// What files are for. Only batches are read here; others are kept for whoever asks for them.
const PURPOSES: [&str; 6] = ["batch", "assistants", "fine-tune", "vision", "user_data", "evals"];

type Shared = State<Arc<Gateway>>;
type Id = Result<Path<String>, PathRejection>;

/// Routes of files.
pub(crate) fn routes() -> Router<Arc<Gateway>> {
    let uploads = get(list).post(upload).layer(DefaultBodyLimit::disable());
    Router::new()
        .route("/v1/files", uploads)
        .route("/v1/files/{id}", get(file).delete(forget))
        .route("/v1/files/{id}/content", get(content))
}

async fn upload(State(gateway): Shared, request: Request) -> Result<Response, Problem> {
    let owner = owner(&gateway, request.headers())?;
    let _permit = gateway.admit()?;
    if gateway.shelf.count(Kind::File) >= THINGS_MAX {
        return Err(full("there are as many files as are kept here; delete some"));
    }
    let form = Multipart::from_request(request, &()).await;
    let form = form.map_err(|error| {
        let message = format!("the body is no multipart form: {error}");
        Problem::new(StatusCode::BAD_REQUEST, "invalid_body", message)
    })?;
    let id = new_id("file-", random()?);
    let part = gateway.shelf.file(&format!("{UPLOAD}{id}"));
    let kept = keep(&gateway, form, &part, &id, owner).await;
    if kept.is_err() {
        // Nothing of it may be there.
        let _ = tokio::fs::remove_file(&part).await;
    }
    Ok(axum::Json(kept?).into_response())
}

/// Reads a form to its end, and keeps its file.
async fn keep(
    gateway: &Gateway,
    mut form: Multipart,
    part: &FilePath,
    id: &str,
    owner: Owner,
) -> Result<Value, Problem> {
    let (mut purpose, mut seconds, mut written) = (None, None, None);
    while let Some(field) = next(form.next_field()).await? {
        match field.name().unwrap_or_default() {
            "file" if written.is_none() => {
                let name = field.file_name().unwrap_or("upload").chars().take(255).collect();
                written = Some((name, write(gateway, field, part).await?));
            }
            "purpose" => purpose = Some(text(field).await?),
            "expires_after[seconds]" => seconds = Some(text(field).await?),
            _ => {}
        }
    }
    let (name, bytes): (String, u64) = written.ok_or_else(|| Problem::missing("file"))?;
    let purpose = purpose.ok_or_else(|| Problem::missing("purpose"))?;
    if !PURPOSES.contains(&purpose.as_str()) {
        let message = format!("purpose is {purpose:?}, expected {}", PURPOSES.join(", "));
        return Err(Problem::invalid_value("purpose", message));
    }
    let created = now_s();
    let expires = seconds.map(|seconds| {
        let lasts = seconds.parse::<u64>().ok().filter(|lasts| (3600..=2_592_000).contains(lasts));
        lasts.map(|lasts| created + lasts).ok_or_else(|| {
            let message = format!("expires_after is {seconds:?} seconds, expected 3600 to 2592000");
            Problem::invalid_value("expires_after", message)
        })
    });
    let expires = expires.transpose()?;
    tokio::fs::rename(part, gateway.shelf.file(id)).await.map_err(Problem::storage)?;
    let value = object(id, (&name, &purpose), bytes, created, expires);
    let thing = Thing { owner, created, value: value.clone() };
    gateway.shelf.put(Kind::File, id, thing).await.map_err(Problem::storage)?;
    Ok(value)
}

/// A file as clients see it.
pub(crate) fn object(
    id: &str,
    (name, purpose): (&str, &str),
    bytes: u64,
    created: u64,
    expires: Option<u64>,
) -> Value {
    json!({
        "id": id,
        "object": "file",
        "bytes": bytes,
        "created_at": created,
        "expires_at": expires,
        "filename": name,
        "purpose": purpose,
        "status": "processed",
    })
}

/// Waits for more of a form, and not for ever.
async fn next<T>(piece: impl Future<Output = Result<T, MultipartError>>) -> Result<T, Problem> {
    match timeout(PIECE_WAIT_MAX, piece).await {
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(error)) => {
            let message = format!("the upload broke off: {error}");
            Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_body", message))
        }
        Err(_) => {
            let message = "the upload took too long to go on";
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", message))
        }
    }
}

/// Writes a file as it comes; gives its length.
async fn write(gateway: &Gateway, mut field: Field<'_>, part: &FilePath) -> Result<u64, Problem> {
    let room = FILES_BYTES_MAX.saturating_sub(gateway.shelf.files_bytes().await);
    let mut file = File::create(part).await.map_err(Problem::storage)?;
    let mut bytes = 0;
    while let Some(chunk) = next(field.chunk()).await? {
        bytes += chunk.len() as u64;
        if bytes > FILE_BYTES_MAX {
            let message = format!("the file has more than {FILE_BYTES_MAX} bytes");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message));
        }
        if bytes > room {
            return Err(full("the files here take all the room there is for them; delete some"));
        }
        file.write_all(&chunk).await.map_err(Problem::storage)?;
    }
    file.sync_all().await.map_err(Problem::storage)?;
    Ok(bytes)
}

fn full(message: &str) -> Problem {
    Problem::new(StatusCode::INSUFFICIENT_STORAGE, "storage_full", message)
}

/// A short text of a form.
async fn text(mut field: Field<'_>) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = next(field.chunk()).await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > TEXT_BYTES_MAX {
            let message = format!("a field of the form has more than {TEXT_BYTES_MAX} bytes");
            return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_body", message));
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The file of an id, unless its time is over.
pub(crate) async fn find(
    gateway: &Gateway,
    id: &str,
    owner: Owner,
) -> Result<Option<Thing>, Problem> {
    let found = gateway.shelf.get(Kind::File, id, owner).await.map_err(unreadable)?;
    let Some(thing) = found else { return Ok(None) };
    if !is_over(&thing.value) {
        return Ok(Some(thing));
    }
    remove(gateway, id, owner).await?;
    Ok(None)
}

fn is_over(file: &Value) -> bool {
    file["expires_at"].as_u64().is_some_and(|expires| expires <= now_s())
}

async fn remove(gateway: &Gateway, id: &str, owner: Owner) -> Result<(), Problem> {
    gateway.shelf.remove(Kind::File, id, owner).await.map_err(Problem::storage)?;
    // Without its row nobody finds it; the next sweep takes what could not be removed.
    let _ = tokio::fs::remove_file(gateway.shelf.file(id)).await;
    Ok(())
}

async fn named(gateway: &Gateway, headers: &HeaderMap, id: Id) -> Result<(String, Thing), Problem> {
    let owner = owner(gateway, headers)?;
    let id = id.map(|Path(id)| id).unwrap_or_default();
    match find(gateway, &id, owner).await? {
        Some(thing) => Ok((id, thing)),
        None => Err(Problem::no_such("file", &id)),
    }
}

async fn file(State(gateway): Shared, headers: HeaderMap, id: Id) -> Result<Response, Problem> {
    let (_, thing) = named(&gateway, &headers, id).await?;
    Ok(axum::Json(thing.value).into_response())
}

async fn list(State(gateway): Shared, headers: HeaderMap, uri: Uri) -> Result<Response, Problem> {
    let owner = owner(&gateway, &headers)?;
    let query = Query::of(&uri);
    let wanted = |file: &Value| {
        !is_over(file) && query.get("purpose").is_none_or(|purpose| file["purpose"] == purpose)
    };
    let found = gateway.shelf.list(Kind::File, owner, &query.page(true)?, wanted).await;
    let (things, more) = found.map_err(unreadable)?;
    let data: Vec<Value> = things.into_iter().map(|(_, thing)| thing.value).collect();
    Ok(listed(&data, more))
}

async fn forget(State(gateway): Shared, headers: HeaderMap, id: Id) -> Result<Response, Problem> {
    let (id, thing) = named(&gateway, &headers, id).await?;
    remove(&gateway, &id, thing.owner).await?;
    Ok(axum::Json(json!({ "id": id, "object": "file", "deleted": true })).into_response())
}

/// A file's bytes as they were sent.
async fn content(State(gateway): Shared, headers: HeaderMap, id: Id) -> Result<Response, Problem> {
    let (id, thing) = named(&gateway, &headers, id).await?;
    let file = File::open(gateway.shelf.file(&id)).await;
    let file =
        file.map_err(|error| Problem::internal(format!("the file cannot be read: {error}")))?;
    let pieces = stream::try_unfold(file, async |mut file| {
        let mut piece = vec![0; PIECE_BYTES];
        let read = file.read(&mut piece).await?;
        piece.truncate(read);
        Ok::<_, std::io::Error>((read > 0).then(|| (Bytes::from(piece), file)))
    });
    let kind = HeaderValue::from_static("application/octet-stream");
    let mut response = Body::from_stream(pieces).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    if let Some(bytes) = thing.value["bytes"].as_u64() {
        response.headers_mut().insert(header::CONTENT_LENGTH, bytes.into());
    }
    Ok(response)
}
