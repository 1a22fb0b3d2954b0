//! Keys over HTTP, for whoever has the admin's token: `POST /v1/keys`, `GET /v1/keys`,
//! `DELETE /v1/keys/{id}`.

use std::sync::Arc;

use assay_protocol::keccak256;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use serde::Serialize;

use super::{KeyError, KeyStatus, KeyTerms, bearer};
use crate::body::read;
use crate::http::Gateway;
use crate::openai::Problem;

type Shared = State<Arc<Gateway>>;

pub(crate) fn routes() -> Router<Arc<Gateway>> {
    Router::new().route("/v1/keys", get(list).post(create)).route("/v1/keys/{id}", delete(revoke))
}

/// A key that was just made.
#[derive(Serialize)]
struct Made {
    /// Shown here and never again.
    key: String,
    #[serde(flatten)]
    status: KeyStatus,
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        let (status, code) = match error {
            KeyError::Unknown { .. } => (StatusCode::NOT_FOUND, "key_not_found"),
            KeyError::Name { .. } => (StatusCode::BAD_REQUEST, "invalid_value"),
            KeyError::Full => (StatusCode::CONFLICT, "too_many_keys"),
            KeyError::Store(_) => (StatusCode::INSUFFICIENT_STORAGE, "storage_error"),
            KeyError::Randomness(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"),
        };
        Self::new(status, code, error.to_string())
    }
}

/// Refuses who does not have the admin's token.
fn is_admin(gateway: &Gateway, headers: &HeaderMap) -> Result<(), Problem> {
    let given = bearer(headers).map(keccak256);
    if given.is_some() && given == gateway.keys.rules.admin {
        return Ok(());
    }
    let message = "this needs the token of the gateway's admin, as Authorization: Bearer";
    Err(Problem::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message))
}

/// Refuses who may not see the gateway's own affairs: where keys are demanded, only its admin may.
pub(crate) fn admits(gateway: &Gateway, headers: &HeaderMap) -> Result<(), Problem> {
    if gateway.keys.rules.demanded { is_admin(gateway, headers) } else { Ok(()) }
}

async fn create(State(gateway): Shared, request: Request) -> Result<Response, Problem> {
    is_admin(&gateway, request.headers())?;
    let body = read(request, &gateway).await?;
    let terms: KeyTerms = serde_json::from_slice(&body.bytes).map_err(Problem::json)?;
    let (key, status) = gateway.keys.create(terms).await?;
    Ok((StatusCode::CREATED, axum::Json(Made { key, status })).into_response())
}

async fn list(State(gateway): Shared, headers: HeaderMap) -> Result<Response, Problem> {
    is_admin(&gateway, &headers)?;
    let data = gateway.keys.list();
    Ok(axum::Json(serde_json::json!({ "object": "list", "data": data })).into_response())
}

async fn revoke(
    State(gateway): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    is_admin(&gateway, &headers)?;
    let found = id.parse().ok();
    let id = found.ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "key_not_found", format!("there is no key {id:?}"))
    })?;
    Ok(axum::Json(gateway.keys.revoke(id).await?).into_response())
}
