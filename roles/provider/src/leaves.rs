//! Shows leaves of the weights that are served, so that strangers can tell who has them.

use std::sync::Arc;

use assay_protocol::ModelId;
use assay_protocol::wire::WeightLeaf;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::http::Seller;

/// Leaves that are looked up at once; more are refused as busy. The first of a large model takes seconds, since
/// its tree is hashed then; each later one takes a millisecond.
pub(crate) const LOOKING_MAX: usize = 2;

/// `GET /v1/models/{id}/leaves/{index}`.
pub(crate) async fn leaf(
    State(seller): State<Arc<Seller>>,
    Path((id, index)): Path<(String, u64)>,
) -> Response {
    let served = id.parse::<ModelId>().ok().and_then(|id| seller.models.get(&id));
    let Some(holder) = served.and_then(|served| served.holder.clone()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Ok(turn) = Arc::clone(&seller.looking).try_acquire_owned() else {
        return StatusCode::TOO_MANY_REQUESTS.into_response();
    };
    // The turn is held until the work ends, even if who asked is gone.
    let found = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        holder.show(index)
    });
    match found.await {
        Ok(Ok(Some(found))) => {
            Json(WeightLeaf { data: found.data.into(), proof: found.proof }).into_response()
        }
        Ok(Ok(None)) => StatusCode::NOT_FOUND.into_response(),
        Ok(Err(error)) => {
            tracing::error!(model = id, %error, "a model cannot be shown");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
