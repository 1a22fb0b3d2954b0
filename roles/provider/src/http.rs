//! Speaks [`assay_protocol::wire`] over HTTP, and drives what was decided.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use assay_protocol::wire::{Frame, Offers, Refusal, Sealed, SignedOffer, Submission};
use assay_protocol::{Address, Amount, ChainId, Finish, Key, ModelId, Offer, OrderHash, Signature};
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::admit::{admit, recognise};
use crate::serve::{Answering, frames_max, now_ms, serve};
use crate::slots::{Slots, Stopping};
use crate::store::{Kept, Store, StoreError};
use crate::{Config, Served};

/// Longest submission, in bytes, without its prompt: most of it are stop sequences and biases.
const SUBMISSION_BYTES_BASE: usize = 256 << 10;

/// Bytes of one prompt token: ten digits, a comma and a blank.
const TOKEN_BYTES_MAX: usize = 12;

/// Long submissions read at once; more wait their turn. What is read takes a few times the memory
/// of its bytes, whatever they say.
const READING_MAX: usize = 64;

/// Submissions up to so many bytes need no turn.
const SHORT_BYTES_MAX: usize = 64 << 10;

/// Longest wait for a turn.
const TURN_WAIT_MAX: Duration = Duration::from_secs(10);

/// Longest wait for a submission's bytes, that for a turn included.
const READ_WAIT_MAX: Duration = Duration::from_secs(30);

/// What a refused buyer is told to wait, in seconds, where waiting helps.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

/// A provider at work: what every request shares.
pub(crate) struct Seller {
    key: Key,
    chain: ChainId,
    models: HashMap<ModelId, Served>,
    price_in: Amount,
    price_out: Amount,
    offer_ttl: Duration,
    /// The offers as last signed.
    offers: Mutex<Signed>,
    reading: Arc<Semaphore>,
    /// Longest submission: a prompt that fills the longest context served.
    submission_bytes_max: usize,
    store: Store,
    pub(crate) slots: Slots,
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
        Self {
            key: config.key,
            chain: config.chain,
            models: config.models.into_iter().map(|served| (served.id, served)).collect(),
            price_in: config.price_in,
            price_out: config.price_out,
            offer_ttl: config.offer_ttl,
            offers: Mutex::default(),
            reading: Arc::new(Semaphore::new(READING_MAX)),
            submission_bytes_max: SUBMISSION_BYTES_BASE + TOKEN_BYTES_MAX * context_max as usize,
            store,
            slots: Slots::new(config.orders_max),
        }
    }

    fn offer(&self, served: &Served, expires: u64) -> Offer {
        Offer {
            provider: self.key.address(),
            model: served.id,
            assurance: served.backend.assurance(),
            asset: Address::ZERO,
            price_in: self.price_in,
            price_out: self.price_out,
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
                let signature = offer.sign(self.chain, &self.key);
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

/// The routes of [`assay_protocol::wire`], and `GET /health`.
pub(crate) fn router(seller: Arc<Seller>) -> Router {
    Router::new()
        .route("/v1/offers", get(offers))
        .route("/v1/orders", post(submit))
        .route("/v1/orders/{hash}", get(sealed).delete(cancel))
        .route("/health", get(health))
        .with_state(seller)
}

async fn offers(State(seller): State<Arc<Seller>>) -> Json<Offers> {
    Json(Offers {
        provider: seller.key.address(),
        chain_id: seller.chain,
        offers: seller.offers(now_ms() / 1000),
        running: seller.slots.running(),
        running_max: seller.slots.max(),
        accepts: None,
    })
}

async fn health(State(seller): State<Arc<Seller>>) -> Response {
    if seller.slots.is_closing() {
        return (StatusCode::SERVICE_UNAVAILABLE, "closing\n").into_response();
    }
    "ok\n".into_response()
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
fn bearer(headers: &HeaderMap) -> Option<Signature> {
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
            refuse(&refusal)
        }
    }
}

/// Admits the order in `body` and starts it, or replays its sealed answer.
async fn accept(seller: &Arc<Seller>, body: Body) -> Result<mpsc::Receiver<Frame>, Refusal> {
    let (submission, hash) = read(seller, body).await?;
    let before = match stored(seller, hash).await? {
        Stored::Finished(sealed) => return Ok(replay(sealed)),
        Stored::Cancelled(sealed) => Some(sealed),
        Stored::Nothing => None,
    };
    match (start(seller, &submission, hash).await, before) {
        // What was sealed is owed to whoever asks again, even if no more can be had now.
        (Err(refusal), Some(sealed)) if !matches!(refusal, Refusal::Running { .. }) => {
            tracing::debug!(order = %hash, %refusal, "replaying what was sealed");
            Ok(replay(sealed))
        }
        (started, _) => started,
    }
}

/// Starts to answer an order.
async fn start(
    seller: &Arc<Seller>,
    submission: &Submission,
    hash: OrderHash,
) -> Result<mpsc::Receiver<Frame>, Refusal> {
    let model = submission.order.model;
    let served = seller.models.get(&model).ok_or(Refusal::UnknownModel { model })?;
    let now = now_ms() / 1000;
    let offer = seller.offer(served, now);
    let job = admit(submission, hash, served, &offer, now)?;
    let slot = seller.slots.take(hash, submission.signature)?;
    // Asked again, because the same order may have been sealed just before the slot was free.
    let before = match stored(seller, hash).await? {
        Stored::Finished(sealed) => return Ok(replay(sealed)),
        Stored::Cancelled(sealed) => Some(sealed),
        Stored::Nothing => None,
    };
    let answering = Answering {
        order: hash,
        prompt_tokens: submission.order.prompt_tokens,
        ending: job.ending.clone(),
        offer,
        chain: seller.chain,
        key: seller.key.clone(),
        tokenizer: served.tokenizer.clone(),
        signature: submission.signature,
        before,
    };
    let (sender, frames) = mpsc::channel(frames_max(job.ending.tokens_max));
    let deltas = served.backend.run(job).map_err(|busy| Refusal::Busy {
        running_max: u32::try_from(busy.queue_max).unwrap_or(u32::MAX),
    })?;
    seller.slots.tasks.spawn(serve(answering, deltas, slot, sender, seller.store.clone()));
    Ok(frames)
}

/// Reads a submission and recognises its order, within bounds of bytes, number and time.
async fn read(seller: &Arc<Seller>, body: Body) -> Result<(Submission, OrderHash), Refusal> {
    let invalid = |reason: String| Refusal::Invalid { reason };
    let (bytes, turn) = tokio::time::timeout(READ_WAIT_MAX, bytes(seller, body))
        .await
        .map_err(|_| invalid("the submission took too long to arrive".into()))??;
    let seller = Arc::clone(seller);
    // Hashing a long prompt takes milliseconds, which other orders' frames need not wait for.
    tokio::task::spawn_blocking(move || {
        // Held until the bytes are read, even if the buyer hangs up meanwhile.
        let _turn = turn;
        let submission: Submission = serde_json::from_slice(&bytes)
            .map_err(|error| invalid(format!("not a submission: {error}")))?;
        let served = seller.models.get(&submission.order.model);
        let hash = recognise(&submission, seller.chain, served)?;
        Ok((submission, hash))
    })
    .await
    .map_err(|error| Refusal::Internal { reason: error.to_string() })?
}

/// The bytes of a submission. Who sends many waits for a turn, which comes with them, before they
/// are read; who sends few does not, so that nobody who sends slowly is in the way of short orders.
async fn bytes(
    seller: &Arc<Seller>,
    body: Body,
) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), Refusal> {
    let max = seller.submission_bytes_max;
    let invalid = |reason: String| Refusal::Invalid { reason };
    let (mut bytes, mut turn) = (Vec::new(), None);
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|error| invalid(format!("the submission cannot be read: {error}")))?;
        let length = bytes.len() + chunk.len();
        if length > max {
            let reason = format!("the submission has more than {max} bytes");
            return Err(invalid(reason));
        }
        if length > SHORT_BYTES_MAX && turn.is_none() {
            let taken = Arc::clone(&seller.reading).acquire_owned();
            let taken = tokio::time::timeout(TURN_WAIT_MAX, taken)
                .await
                .map_err(|_| Refusal::Busy { running_max: seller.slots.max() })?;
            turn = Some(taken.expect("nobody closes the semaphore"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok((bytes, turn))
}

/// What is stored for an order.
enum Stored {
    /// An answer that stands.
    Finished(Sealed),
    /// The beginning of one, which may be continued.
    Cancelled(Sealed),
    Nothing,
}

async fn stored(seller: &Seller, hash: OrderHash) -> Result<Stored, Refusal> {
    let found = seller.store.find(hash).await.map_err(|error| storage(&error))?;
    Ok(match found {
        Some(Kept { sealed, .. }) if sealed.receipt.finish == Finish::Cancelled => {
            Stored::Cancelled(sealed)
        }
        Some(Kept { sealed, .. }) => Stored::Finished(sealed),
        None => Stored::Nothing,
    })
}

/// The frames of an answer that was sealed before.
fn replay(sealed: Sealed) -> mpsc::Receiver<Frame> {
    let (sender, frames) = mpsc::channel(2);
    let tokens = (!sealed.output.is_empty()).then(|| Frame::Tokens(sealed.output.clone()));
    for frame in tokens.into_iter().chain([Frame::Sealed(Box::new(sealed))]) {
        // The channel has room for both, and its receiver is right here.
        let _ = sender.try_send(frame);
    }
    frames
}

fn storage(error: &StoreError) -> Refusal {
    Refusal::Storage { reason: error.to_string() }
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
    if matches!(refusal, Refusal::Busy { .. } | Refusal::Closing) {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_S);
    }
    response
}
