//! What the gateway asks for an answer: what its order may cost it at most.
//!
//! The order that was priced rides with the request and is the one that is bought, so no offer that rises
//! in between costs the gateway more than it was paid.

use std::sync::Arc;

use assay_protocol::keccak256;
use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;

use super::door::{Counter, Quote};
use crate::begin::taken;
use crate::body::read;
use crate::http::Gateway;
use crate::keys::Caller;
use crate::openai::{Api, Problem};

impl Counter for Arc<Gateway> {
    fn quote(&self, request: Request) -> BoxFuture<'_, Result<Quote, Response>> {
        Box::pin(async move { priced(self, request).await.map_err(Problem::into_response) })
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        matches!(self.keys.caller(headers), Ok(Caller::Holder(..)))
    }
}

async fn priced(gateway: &Arc<Gateway>, request: Request) -> Result<Quote, Problem> {
    let (mut parts, body) = request.into_parts();
    // The parts are put together again below; reading needs the headers, too.
    let mut asked = Request::new(body);
    *asked.headers_mut() = std::mem::take(&mut parts.headers);
    let headers = asked.headers().clone();
    let api = Api::at(parts.uri.path()).unwrap_or(Api::Chat);
    let read = read(asked, gateway).await?;
    let body = keccak256(&read.bytes);
    let taken = taken(gateway, &Caller::Anyone, api, read).await?;
    let price = taken.price_max();
    parts.headers = headers;
    let mut request = Request::from_parts(parts, Body::empty());
    taken.ride(&mut request);
    Ok(Quote { price, body, request })
}
