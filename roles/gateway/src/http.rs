//! Serves clients: routes, errors in one shape, request ids, CORS.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use assay_protocol::{Address, Amount, Audit, ChainId, Key, OrderHash, hex};
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::batches::{self, Batches};
use crate::begin::{Taken, taken};
use crate::body::{BODIES_BYTES_MAX, read};
use crate::budget::Budgets;
use crate::catalogue::{Catalogue, Model};
use crate::directory::{Directory, Market};
use crate::embed::{Wanted, embed};
use crate::figures::{CONTENT_TYPE, Figures, Route};
use crate::files;
use crate::jsonrpc;
use crate::keys::{self, Keys};
use crate::lies;
use crate::media;
use crate::note::{Arrival, Code, Note};
use crate::openai::{Api, ModelCard, Models, Problem};
use crate::origin::Origin;
use crate::pay::{Jobs, Purse};
use crate::readiness::{self, Readiness};
use crate::relay::{Relay, pass};
use crate::repeat::{self, Repeats};
use crate::shelf::Shelf;
use crate::signed::Desk;
use crate::store::Store;
use crate::stored::{self, Unattended};
use crate::tell::tell;
use crate::x402::{self, Door};
use crate::{Config, Patience, RunError};

/// Longest wait for a connection to a provider.
pub(crate) const CONNECT_WAIT_MAX: Duration = Duration::from_secs(2);

/// Connections to one provider that are kept open for the next orders.
pub(crate) const IDLE_CONNECTIONS_MAX: usize = 64;

/// How long they are kept: less than a provider keeps its end open.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(15);

const REQUEST_ID: &str = "x-request-id";

/// A gateway at work: what every request shares.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) key: Key,
    pub(crate) chain: ChainId,
    pub(crate) audit: Audit,
    pub(crate) order_ttl: Duration,
    pub(crate) price_max: Amount,
    pub(crate) patience: Patience,
    origins: Vec<Origin>,
    pub(crate) directory: Directory,
    pub(crate) store: Store,
    /// What providers are paid with, if they are.
    pub(crate) purse: Option<Arc<Purse>>,
    /// The keys of its clients.
    pub(crate) keys: Arc<Keys>,
    /// What was spent with them, and under grants.
    pub(crate) budgets: Arc<Budgets>,
    /// What is known of orders that clients sign themselves.
    pub(crate) desk: Desk,
    pub(crate) http: reqwest::Client,
    pub(crate) catalogue: Catalogue,
    /// What its clients have kept.
    pub(crate) shelf: Arc<Shelf>,
    /// Responses that are made while nobody waits.
    pub(crate) unattended: Unattended,
    /// Batches under way.
    pub(crate) batches: Batches,
    /// Requests that may be sent again.
    pub(crate) repeats: Repeats,
    /// The models that the operator's own servers answer for.
    pub(crate) relay: Relay,
    requests: Arc<Semaphore>,
    requests_max: usize,
    /// What it did so far.
    pub(crate) figures: Figures,
    /// What is not ready, and since when.
    pub(crate) readiness: Readiness,
    /// Room for long bodies, in bytes.
    pub(crate) room: Arc<Semaphore>,
    /// One task per purchase.
    pub(crate) purchases: TaskTracker,
    /// Cancelled once no new request is taken.
    pub(crate) closing: CancellationToken,
    /// Cancelled once running purchases have to end.
    pub(crate) stopping: CancellationToken,
}

impl Gateway {
    /// A gateway with its lanes as they are in `store`, and what its purse has to do in the background.
    pub(crate) async fn open(
        config: Config,
        store: Store,
    ) -> Result<(Self, Option<Jobs>), RunError> {
        // Providers are named by the operator, so neither a proxy nor a redirect may stand in.
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_WAIT_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .tcp_nodelay(true)
            .pool_idle_timeout(IDLE_MAX)
            .build()?;
        let market = config.payments.as_ref().map(|payments| Market {
            channels: payments.channels,
            receipts: payments.market,
            token: payments.token,
            withdraw_delay_max: payments.withdraw_delay_max,
        });
        let (mut purse, mut jobs) = (None, None);
        if let Some(terms) = config.payments {
            let (key, price_max) = (config.key.clone(), config.price_max);
            let opened =
                Purse::open(key, config.chain, terms, price_max, http.clone(), store.clone());
            let path = || config.store.clone();
            let opened = opened.await;
            let opened = opened.map_err(|source| RunError::Store { path: path(), source })?;
            (purse, jobs) = (Some(opened.0), Some(opened.1));
        }
        let shelf = Shelf::open(&config.store).await;
        let shelf = shelf.map_err(|source| RunError::Store {
            path: config.store.with_file_name("shelf"),
            source,
        })?;
        let budgets = Arc::new(Budgets::default());
        let keys = Keys::open(config.keys, store.clone(), Arc::clone(&budgets)).await;
        let keys = keys.map_err(|source| RunError::Store { path: config.store, source })?;
        let gateway = Self {
            desk: Desk::new(&config.key),
            key: config.key,
            chain: config.chain,
            audit: config.audit,
            order_ttl: config.order_ttl,
            price_max: config.price_max,
            patience: config.patience,
            origins: config.origins,
            directory: Directory::new(
                http.clone(),
                config.chain,
                market,
                config.token_time_target,
                config.providers,
            ),
            store,
            purse,
            keys,
            budgets,
            http,
            catalogue: Catalogue::new(config.models, config.aliases),
            shelf,
            unattended: Unattended::default(),
            batches: Batches::default(),
            repeats: Repeats::default(),
            relay: Relay::new(config.relayed)?,
            requests: Arc::new(Semaphore::new(config.requests_max.min(Semaphore::MAX_PERMITS))),
            requests_max: config.requests_max.min(Semaphore::MAX_PERMITS),
            figures: Figures::default(),
            readiness: Readiness::default(),
            room: Arc::new(Semaphore::new(BODIES_BYTES_MAX)),
            purchases: TaskTracker::new(),
            closing: CancellationToken::new(),
            stopping: CancellationToken::new(),
        };
        Ok((gateway, jobs))
    }

    /// What orders name as their market; zero where nothing is paid.
    pub(crate) fn market(&self) -> Address {
        self.purse.as_ref().map_or(Address::ZERO, |purse| purse.terms.market)
    }

    /// Whether pages of `origin` may ask.
    fn trusts(&self, origin: &HeaderValue) -> bool {
        let origin = origin.to_str().unwrap_or("");
        self.origins.iter().any(|trusted| trusted.covers(origin))
    }

    /// A place among the requests that are worked on at once.
    pub(crate) fn permit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.requests).try_acquire_owned().map_err(|_| Problem::overloaded())
    }

    /// The same, unless the gateway closes.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, Problem> {
        if self.closing.is_cancelled() { Err(Problem::closing()) } else { self.permit() }
    }

    /// Leave to begin a purchase, for which a drain waits.
    pub(crate) fn begin(&self) -> Result<TaskTrackerToken, Problem> {
        // Counted before the question is asked, so that no drain sees nothing and ends between.
        let begun = self.purchases.token();
        if self.closing.is_cancelled() { Err(Problem::closing()) } else { Ok(begun) }
    }
}

type Shared = State<Arc<Gateway>>;

/// All routes; answers are behind `door`, if there is one.
pub(crate) fn router(gateway: Arc<Gateway>, door: Option<&Arc<Door>>) -> Router {
    let routes = Router::new()
        .merge(answers(&gateway))
        .merge(stored::routes())
        .merge(files::routes())
        .merge(media::routes())
        .route("/v1/embeddings", post(embeddings))
        .route("/classify", post(classify))
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model).delete(keep_model))
        .route("/v1/receipts/{id}", get(receipt))
        .route("/v1/providers", get(providers))
        .route("/v1/lanes", get(lanes))
        .route("/rpc", post(jsonrpc::post).get(jsonrpc::open))
        .merge(keys::routes())
        .merge(lies::routes())
        .route("/livez", get(health))
        .route("/health", get(health))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/version", get(version))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method);
    let routes = match door {
        Some(door) => x402::guard(routes, door),
        None => routes,
    };
    routes.layer(from_fn_with_state(Arc::clone(&gateway), dress)).with_state(gateway)
}

/// The routes at which answers are bought.
fn answers(gateway: &Arc<Gateway>) -> Router<Arc<Gateway>> {
    Router::new()
        .route(Api::Chat.path(), post(chat).get(stored::completions))
        .route(Api::Completions.path(), post(completions))
        .route(Api::Responses.path(), post(responses))
        .merge(batches::routes())
        .route_layer(from_fn_with_state(Arc::clone(gateway), repeat::once))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = json(self.body());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(Code(self.code));
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.is_final() {
            response.headers_mut().insert("x-should-retry", HeaderValue::from_static("false"));
        }
        response
    }
}

pub(crate) fn json(body: impl Into<Body>) -> Response {
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (kind, body.into()).into_response()
}

/// Gives every response what all have: a request id, and leave for web pages to read it. Pages
/// that have no leave get no further than here.
async fn dress(State(gateway): Shared, request: Request, next: Next) -> Response {
    let id = request_id();
    let method = request.method().clone();
    let arrival = Arrival {
        method: method.clone(),
        path: request.uri().path().to_owned(),
        route: Route::of(&request),
        begun: Instant::now(),
        id: id.to_str().unwrap_or("-").to_owned(),
        _flying: gateway.figures.arrived(),
        gateway: Arc::clone(&gateway),
    };
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let origin = request.headers().get(header::ORIGIN).cloned();
    let response = match &origin {
        Some(origin) if !gateway.trusts(origin) => Problem::origin(origin).into_response(),
        _ if method == Method::OPTIONS => StatusCode::NO_CONTENT.into_response(),
        _ => next.run(request).await,
    };
    let mut response = arrival.watched(response);
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    let Some(origin) = origin.filter(|origin| gateway.trusts(origin)) else { return response };
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    let exposed = HeaderValue::from_static(
        "x-request-id, x-should-retry, retry-after, payment-required, payment-response, idempotent-replayed",
    );
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    if method == Method::OPTIONS {
        let methods = HeaderValue::from_static("GET, HEAD, POST, DELETE, OPTIONS");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        let asked = asked.unwrap_or(HeaderValue::from_static("authorization, content-type"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
    response
}

/// A name for a request in logs and support mails.
fn request_id() -> HeaderValue {
    let mut bytes = [0; 12];
    // Without randomness the id is not unique, which only makes logs harder to read.
    let _ = getrandom::fill(&mut bytes);
    let id = format!("req_{}", hex::encode(bytes));
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("req_"))
}

async fn no_route(method: Method, uri: Uri) -> Problem {
    let message = format!("there is no {method} {}", uri.path());
    Problem::new(StatusCode::NOT_FOUND, "not_found", message)
}

async fn no_method(method: Method, uri: Uri) -> Problem {
    let message = format!("{} does not take {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

async fn health() -> Response {
    json(r#"{"status":"ok"}"#)
}

async fn version() -> Response {
    json(concat!(r#"{"version":""#, env!("CARGO_PKG_VERSION"), r#""}"#))
}

async fn ready(State(gateway): Shared) -> Response {
    readiness::response(&gateway)
}

async fn metrics(State(gateway): Shared) -> Response {
    let running = gateway.requests_max.saturating_sub(gateway.requests.available_permits());
    let page = gateway.figures.page(running, gateway.requests_max);
    ([(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))], page).into_response()
}

async fn providers(State(gateway): Shared) -> Response {
    json(gateway.directory.listing(now_s()))
}

/// What is in the channels to providers.
async fn lanes(State(gateway): Shared, headers: HeaderMap) -> Result<Response, Problem> {
    keys::admits(&gateway, &headers)?;
    let data = gateway.purse.as_ref().map(|purse| purse.status()).unwrap_or_default();
    Ok(axum::Json(serde_json::json!({ "object": "list", "data": data })).into_response())
}

fn card(model: &Arc<Model>) -> ModelCard {
    ModelCard::new(&model.listed)
}

async fn models(State(gateway): Shared) -> Response {
    let relayed = gateway.relay.models.iter().map(|target| ModelCard::relayed(&target.model));
    let cards = gateway.catalogue.models.iter().map(card).chain(relayed);
    axum::Json(Models::new(cards.collect())).into_response()
}

async fn model(State(gateway): Shared, id: Result<Path<String>, PathRejection>) -> Response {
    let id = id.map(|Path(id)| id).unwrap_or_default();
    match gateway.catalogue.find(&id) {
        Some(model) => axum::Json(card(model)).into_response(),
        None if gateway.relay.models.iter().any(|target| target.model == id) => {
            axum::Json(ModelCard::relayed(&id)).into_response()
        }
        None => Problem::model(&id).into_response(),
    }
}

/// Models belong to the network; an operator lists others where the gateway is started.
async fn keep_model(State(gateway): Shared, id: Result<Path<String>, PathRejection>) -> Problem {
    let id = id.map(|Path(id)| id).unwrap_or_default();
    if gateway.catalogue.find(&id).is_none() {
        return Problem::model(&id);
    }
    let message = format!("the model {id:?} is the network's, and cannot be deleted here");
    Problem::new(StatusCode::FORBIDDEN, "model_not_deletable", message)
}

async fn receipt(State(gateway): Shared, id: Result<Path<String>, PathRejection>) -> Response {
    let id = id.map(|Path(id)| id).unwrap_or_default();
    // A reply is called by the order of its first answer.
    let named = ["chatcmpl-", "cmpl-", "resp_"].iter().find_map(|prefix| id.strip_prefix(prefix));
    let hash = named.unwrap_or(&id).parse::<OrderHash>();
    let found = match hash {
        Ok(hash) => gateway.store.find(hash).await,
        Err(_) => Ok(None),
    };
    match found {
        Ok(Some(answer)) => json(answer),
        Ok(None) => {
            let message = format!("no receipt is kept for {id:?}");
            Problem::new(StatusCode::NOT_FOUND, "receipt_not_found", message).into_response()
        }
        Err(error) => {
            Problem::internal(format!("the receipt cannot be read: {error}")).into_response()
        }
    }
}

async fn chat(State(gateway): Shared, request: Request) -> Result<Response, Problem> {
    answer(&gateway, Api::Chat, request).await
}

async fn completions(State(gateway): Shared, request: Request) -> Result<Response, Problem> {
    answer(&gateway, Api::Completions, request).await
}

async fn responses(State(gateway): Shared, request: Request) -> Result<Response, Problem> {
    answer(&gateway, Api::Responses, request).await
}

async fn embeddings(State(gateway): Shared, request: Request) -> Result<Response, Problem> {
    vectors(&gateway, Wanted::Embeddings, request).await
}

async fn classify(State(gateway): Shared, request: Request) -> Result<Response, Problem> {
    vectors(&gateway, Wanted::Classes, request).await
}

async fn vectors(
    gateway: &Arc<Gateway>,
    wanted: Wanted,
    request: Request,
) -> Result<Response, Problem> {
    let caller = gateway.keys.caller(request.headers())?;
    let read = read(request, gateway).await?;
    Ok(json(embed(gateway, &caller, wanted, read).await?))
}

/// Answers a request in the words of its API.
async fn answer(
    gateway: &Arc<Gateway>,
    api: Api,
    mut request: Request,
) -> Result<Response, Problem> {
    let taken = match Taken::take(&mut request) {
        Some(taken) => taken,
        None => {
            let caller = gateway.keys.caller(request.headers())?;
            let read = read(request, gateway).await?;
            taken(gateway, &caller, api, read).await?
        }
    };
    match taken {
        Taken::Bought(prepared) => tell(gateway, *prepared).await,
        Taken::Relayed(passing) => {
            let note = Note::of_model(passing.model());
            let mut response = pass(gateway, *passing).await?;
            response.extensions_mut().insert(note);
            Ok(response)
        }
    }
}

/// Unix seconds.
pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    async fn gateway(folder: &std::path::Path) -> Gateway {
        let config = Config {
            key: Key::from_bytes([1; 32]).unwrap(),
            chain: ChainId(7),
            models: vec![],
            aliases: Default::default(),
            relayed: vec![],
            providers: vec![],
            store: folder.join("answers"),
            audit: Audit::None,
            requests_max: 1,
            price_max: Amount(1),
            payments: None,
            x402: None,
            keys: crate::KeyRules::default(),
            origins: vec![],
            patience: Patience::default(),
            token_time_target: Duration::from_secs(1),
            order_ttl: Duration::from_secs(1),
            poll_every: Duration::from_secs(1),
            drain_max: Duration::from_secs(1),
        };
        let store = Store::open(config.store.clone()).await.unwrap();
        Gateway::open(config, store).await.unwrap().0
    }

    #[tokio::test]
    async fn a_drain_waits_for_a_purchase_that_has_no_task_yet() {
        let folder = tempfile::tempdir().unwrap();
        let gateway = gateway(folder.path()).await;
        let begun = gateway.begin().unwrap();
        gateway.closing.cancel();
        gateway.purchases.close();
        assert!(gateway.purchases.wait().now_or_never().is_none());
        drop(begun);
        assert!(gateway.purchases.wait().now_or_never().is_some());
        assert_eq!(gateway.begin().unwrap_err(), Problem::closing());
    }
}
