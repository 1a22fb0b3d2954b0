//! Speaks [`assay_protocol::wire`] over HTTP.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use assay_protocol::wire::{Frame, Offers, Refusal, SignedOffer};
use assay_protocol::{Address, Amount, ChannelId, ModelId, Offer, OrderHash, Signature};
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt;
use tokio::sync::Semaphore;
use tokio_stream::wrappers::ReceiverStream;

use crate::audits::{self, Audits};
use crate::canaries::Canaries;
use crate::defend::{self, Shared};
use crate::figures::{CONTENT_TYPE, Figures};
use crate::grammar::Compilers;
use crate::grants::Grants;
use crate::intake::{Intake, accept, storage};
use crate::lanes::Lanes;
use crate::leaves::{self, LOOKING_MAX};
use crate::seal::Signer;
use crate::slots::{Slots, Stopping};
use crate::store::{self, Store};
use crate::{Config, Served, now_ms};

/// What a refused buyer is told to wait, in seconds, where waiting helps.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

/// A provider at work: what every request shares.
pub(crate) struct Seller {
    pub(crate) signer: Signer,
    /// Turns to look up a leaf of weights.
    pub(crate) looking: Arc<Semaphore>,
    pub(crate) models: HashMap<ModelId, Served>,
    price_in: Amount,
    price_out: Amount,
    offer_ttl: Duration,
    /// The offers as last signed.
    offers: Mutex<Signed>,
    pub(crate) compilers: Arc<Compilers>,
    pub(crate) intake: Intake,
    /// The channels that pay; `None`: answers are free.
    pub(crate) lanes: Option<Lanes>,
    /// The grants that orders come under; `None`: answers are free.
    pub(crate) grants: Option<Grants>,
    pub(crate) store: Store,
    pub(crate) slots: Slots,
    /// What it did so far.
    pub(crate) figures: Arc<Figures>,
    /// What defends its receipts; `None`: nothing does.
    pub(crate) court: Option<Arc<Shared>>,
    /// What answers auditors; `None`: nothing does.
    pub(crate) audits: Option<Audits>,
    /// What plants canaries; `None`: nothing does.
    pub(crate) canaries: Option<Arc<Canaries>>,
}

/// Offers, and the Unix second from which new ones are signed.
#[derive(Default)]
struct Signed {
    offers: Vec<SignedOffer>,
    renew_at: u64,
}

impl Seller {
    pub(crate) fn new(config: Config, store: Store) -> Self {
        let context_max = config.models.iter().map(|served| served.context).max().unwrap_or(0);
        let tracers = config
            .models
            .iter()
            .filter_map(|served| Some((served.id, Arc::clone(served.tracer.as_ref()?))));
        let tracers = tracers.collect();
        let audits = config.defence.as_ref().map(Audits::new);
        let canaries = config.canaries.map(|planting| Canaries::new(planting, config.chain));
        let canaries = canaries.map(Arc::new);
        let court = config.defence.map(|defence| {
            let (store, canaries) = (store.clone(), canaries.clone());
            Arc::new(Shared::new(defence, store, config.chain, tracers, canaries))
        });
        let bank = config.payment.as_ref().map(|payment| Arc::clone(&payment.bank));
        Self {
            grants: bank.map(Grants::new),
            lanes: config.payment.map(|payment| Lanes::new(payment, config.chain)),
            signer: Signer { key: config.key, chain: config.chain },
            looking: Arc::new(Semaphore::new(LOOKING_MAX)),
            models: config.models.into_iter().map(|served| (served.id, served)).collect(),
            price_in: config.price_in,
            price_out: config.price_out,
            offer_ttl: config.offer_ttl,
            offers: Mutex::default(),
            compilers: Arc::default(),
            intake: Intake::new(context_max),
            store,
            slots: Slots::new(config.orders_max),
            figures: Arc::default(),
            court,
            audits,
            canaries,
        }
    }

    /// What this provider sells the model for, until `expires`, Unix seconds.
    pub(crate) fn offer(&self, served: &Served, expires: u64) -> Offer {
        Offer {
            provider: self.signer.key.address(),
            model: served.id,
            assurance: served.backend.assurance(),
            asset: Address::ZERO,
            price_in: self.price_in,
            // Of a vector, the prompt is all the work.
            price_out: if served.makes_vectors { Amount(0) } else { self.price_out },
            context: served.context,
            expires,
        }
    }

    /// The signed offers at `now`, Unix seconds. They are renewed when half their time is over.
    fn offers(&self, now: u64) -> Vec<SignedOffer> {
        let mut signed = self.offers.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= signed.renew_at {
            let ttl = self.offer_ttl.as_secs().max(1);
            let mut models: Vec<&Served> = self.models.values().collect();
            models.sort_by_key(|served| served.id);
            let sign = |served| {
                let offer = self.offer(served, now + ttl);
                let signature = offer.sign(self.signer.chain, &self.signer.key);
                SignedOffer { offer, signature }
            };
            *signed = Signed {
                offers: models.into_iter().map(sign).collect(),
                renew_at: now + ttl.div_ceil(2),
            };
        }
        signed.offers.clone()
    }
}

/// The routes of [`assay_protocol::wire`] and [`assay_court::wire`], and those of its operator.
pub(crate) fn router(seller: Arc<Seller>) -> Router {
    Router::new()
        .route("/v1/offers", get(offers))
        .route("/v1/models/{id}/leaves/{index}", get(leaves::leaf))
        .route("/v1/orders", post(submit))
        .route("/v1/orders/{hash}", get(sealed).delete(cancel))
        .route("/v1/channels/{id}", get(position))
        .route("/v1/periods/{period}/{index}", get(audits::show))
        .route(assay_court::wire::NODES, get(defend::nodes))
        .route(assay_court::wire::LEAVES, get(defend::leaf))
        .route("/health", get(health))
        .route("/livez", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(seller)
}

async fn offers(State(seller): State<Arc<Seller>>) -> Json<Offers> {
    Json(Offers {
        provider: seller.signer.key.address(),
        chain_id: seller.signer.chain,
        offers: seller.offers(now_ms() / 1000),
        running: seller.slots.running(),
        running_max: seller.slots.max(),
        accepts: seller.lanes.as_ref().map(|lanes| lanes.payment().accepts.clone()),
    })
}

async fn health(State(seller): State<Arc<Seller>>) -> Response {
    if seller.slots.is_closing() {
        return (StatusCode::SERVICE_UNAVAILABLE, "closing\n").into_response();
    }
    "ok\n".into_response()
}

async fn alive() -> Response {
    Json(serde_json::json!({ "status": "ok" })).into_response()
}

/// Whether orders are taken, and if not, why and since when.
async fn ready(State(seller): State<Arc<Seller>>) -> Response {
    let Some(since) = seller.slots.closing_since() else {
        return Json(serde_json::json!({ "status": "ready" })).into_response();
    };
    let reason = "the provider is shutting down and takes no new orders";
    let reasons = [serde_json::json!({ "what": "provider", "reason": reason, "since": since })];
    let said = serde_json::json!({ "status": "not ready", "reasons": reasons });
    (StatusCode::SERVICE_UNAVAILABLE, Json(said)).into_response()
}

async fn metrics(State(seller): State<Arc<Seller>>) -> Response {
    for served in seller.models.values() {
        if let Some(computed) = served.backend.so_far() {
            seller.figures.computed(served.id, computed);
        }
    }
    let page = seller.figures.page(seller.slots.running(), seller.slots.max());
    ([(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))], page).into_response()
}

async fn sealed(
    State(seller): State<Arc<Seller>>,
    Path(hash): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(signature) = bearer(&headers) else { return unauthorized() };
    let Ok(hash) = hash.parse::<OrderHash>() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    match seller.store.find(hash).await {
        Ok(Some(kept)) if kept.order_signature != signature => unauthorized(),
        Ok(Some(kept)) => Json(kept.sealed).into_response(),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => refuse(&storage(&error)),
    }
}

async fn position(State(seller): State<Arc<Seller>>, Path(id): Path<String>) -> Response {
    let Ok(id) = id.parse::<ChannelId>() else { return StatusCode::NOT_FOUND.into_response() };
    match seller.store.read(move |read| store::account(read, id)).await {
        Ok(Some(account)) => Json(account.position()).into_response(),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => refuse(&storage(&error)),
    }
}

async fn cancel(
    State(seller): State<Arc<Seller>>,
    Path(hash): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(signature) = bearer(&headers) else { return unauthorized() };
    let stopping = hash.parse().map(|hash: OrderHash| seller.slots.cancel(&hash, &signature));
    match stopping {
        Ok(Stopping::Stopped) => StatusCode::NO_CONTENT.into_response(),
        Ok(Stopping::Forbidden) => unauthorized(),
        Ok(Stopping::Unknown) | Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The signature that a request shows to prove that its sender handed the order in, or was given
/// its answer.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<Signature> {
    let token = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
    serde_json::from_value(token.into()).ok()
}

fn unauthorized() -> Response {
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")]).into_response()
}

async fn submit(State(seller): State<Arc<Seller>>, body: Body) -> Response {
    match accept(&seller, body).await {
        Ok(frames) => {
            let lines = ReceiverStream::new(frames).map(|frame| line(&frame));
            let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
            (kind, Body::from_stream(lines)).into_response()
        }
        Err(refusal) => {
            tracing::info!(%refusal, "order refused");
            seller.figures.refused(&refusal);
            refuse(&refusal)
        }
    }
}

/// One frame as a line of JSON.
fn line(frame: &Frame) -> Result<Bytes, serde_json::Error> {
    let mut line = serde_json::to_vec(frame)?;
    line.push(b'\n');
    Ok(line.into())
}

fn refuse(refusal: &Refusal) -> Response {
    let status = match refusal {
        Refusal::Invalid { .. }
        | Refusal::WrongChain { .. }
        | Refusal::Context { .. }
        | Refusal::Expired { .. }
        | Refusal::Price { .. }
        | Refusal::NotOffered { .. } => StatusCode::BAD_REQUEST,
        Refusal::UnknownModel { .. } => StatusCode::NOT_FOUND,
        Refusal::Running { .. } => StatusCode::CONFLICT,
        Refusal::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Closing => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Storage { .. } => StatusCode::INSUFFICIENT_STORAGE,
        Refusal::Grant { .. } | Refusal::GrantRevoked { .. } | Refusal::GrantSpent { .. } => {
            StatusCode::FORBIDDEN
        }
        Refusal::GrantRate { .. } => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Unpaid
        | Refusal::Channel { .. }
        | Refusal::Voucher { .. }
        | Refusal::VoucherSigner { .. }
        | Refusal::Deposit { .. }
        | Refusal::StoppedPaying => StatusCode::PAYMENT_REQUIRED,
        Refusal::ChannelBusy { .. } => StatusCode::CONFLICT,
        Refusal::Chain { .. } => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = (status, Json(refusal)).into_response();
    let waiting_helps = matches!(
        refusal,
        Refusal::Busy { .. }
            | Refusal::GrantRate { .. }
            | Refusal::ChannelBusy { .. }
            | Refusal::Closing
    );
    if waiting_helps {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_S);
    }
    response
}
