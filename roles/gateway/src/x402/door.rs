//! The door: what is asked for an answer, and what is said to whoever does not pay it.
//!
//! Without a payment a request is told its price (402, both schemes). With one it is sold (`sell`), or told
//! why not: 402 for a payment that is not good, with what we hold of its channel where the payer seems to
//! have lost count; 503 where the same payment may be good later; 409 where it is being worked on.

use std::sync::Arc;

use assay_protocol::{Address, Amount, B256};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use tokio_util::task::TaskTracker;

use super::batch::{Account, Signed};
use super::collect::{Collecting, collect};
use super::facilitator::Facilitator;
use super::fault::Fault;
use super::reply::extensions;
use super::wire::{
    self, PAYMENT_REQUIRED, PAYMENT_RESPONSE, PAYMENT_SIGNATURE, PaymentRequired, Requirements,
    Resource, Scheme, SettlementResponse, VERSION, WireError,
};
use crate::openai::{Api, Problem};

/// A request that was read and priced.
#[derive(Debug)]
pub(crate) struct Quote {
    /// The most that its answer may cost, in base units of the door's token.
    pub(crate) price: Amount,
    /// keccak256 of its body.
    pub(crate) body: B256,
    /// The request, ready to be handed on; what was made of its body may ride in its extensions.
    pub(crate) request: Request,
}

/// Who knows what requests cost, and who needs no payment.
pub(crate) trait Counter: Send + Sync {
    /// Reads a request and prices it, or says why it gets no answer.
    fn quote(&self, request: Request) -> BoxFuture<'_, Result<Quote, Response>>;

    /// Whether whoever sends these headers pays in another way, such as by an API key.
    fn admits(&self, headers: &HeaderMap) -> bool;
}

/// A door that takes payments.
pub(crate) struct Door {
    pub(super) facilitator: Arc<Facilitator>,
    counter: Arc<dyn Counter>,
    /// One task per paid request and per stream.
    pub(super) tasks: TaskTracker,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("terms", &self.facilitator.terms).finish_non_exhaustive()
    }
}

/// A response that ends a request early.
pub(super) type Ended = Box<Response>;

impl Door {
    pub(crate) fn new(facilitator: Arc<Facilitator>, counter: Arc<dyn Counter>) -> Self {
        Self { facilitator, counter, tasks: TaskTracker::new() }
    }

    pub(crate) fn facilitator(&self) -> &Arc<Facilitator> {
        &self.facilitator
    }

    /// Brings the money home, for ever.
    pub(crate) async fn collect(&self, collecting: Collecting) {
        collect(&self.facilitator, collecting).await;
    }

    /// Returns once all payments under way are settled and all replies are kept.
    pub(crate) async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Takes a request, and lets it on if it pays.
    pub(crate) async fn enter(self: Arc<Self>, request: Request, next: Next) -> Response {
        let sold = Api::at(request.uri().path()).is_some()
            && matches!(*request.method(), Method::GET | Method::POST);
        if !sold {
            return next.run(request).await;
        }
        let Some(paid) = request.headers().get(PAYMENT_SIGNATURE) else {
            return self.unpaid(request, next).await;
        };
        let payment = match wire::payment(paid) {
            Ok(payment) => payment,
            Err(error) => return malformed(&error),
        };
        let done = match payment.accepted.scheme {
            Scheme::Exact => self.exact(payment, request, next).await,
            Scheme::Batch => self.batch(payment, request, next).await,
        };
        done.unwrap_or_else(|ended| *ended)
    }

    async fn unpaid(&self, request: Request, next: Next) -> Response {
        if self.counter.admits(request.headers()) {
            return next.run(request).await;
        }
        let url = url(&request);
        // Clients that want their money back ask with GET, and pay nothing.
        if request.method() == Method::GET {
            return self.required(url, Amount(1), None, Map::new());
        }
        match self.counter.quote(request).await {
            Ok(quote) => self.required(url, quote.price, None, Map::new()),
            Err(refused) => refused,
        }
    }

    pub(super) async fn quote(&self, request: Request) -> Result<Quote, Ended> {
        self.counter.quote(request).await.map_err(Box::new)
    }

    /// The price to be named in a refusal.
    pub(super) async fn price_of(&self, request: Request) -> Result<Amount, Ended> {
        if request.method() == Method::GET {
            return Ok(Amount(1));
        }
        Ok(self.quote(request).await?.price)
    }

    /// What became of a payment by this payer.
    pub(super) fn settled(
        &self,
        payer: Address,
        transaction: Option<B256>,
        extra: Map<String, Value>,
    ) -> SettlementResponse {
        SettlementResponse {
            success: true,
            payer: Some(payer),
            transaction: transaction.map(|hash| hash.to_string()).unwrap_or_default(),
            network: self.facilitator.terms.network().to_string(),
            extra,
            ..SettlementResponse::default()
        }
    }

    /// 402: what would be accepted for a request of this price.
    fn required(
        &self,
        url: String,
        price: Amount,
        fault: Option<&Fault>,
        corrective: Map<String, Value>,
    ) -> Response {
        let word = PaymentRequired {
            x402_version: VERSION,
            error: Some(
                fault.map_or("PAYMENT-SIGNATURE header is required", Fault::code).to_owned(),
            ),
            resource: Resource {
                url,
                description: "an answer of a language model, with a receipt".to_owned(),
                mime_type: "application/json".to_owned(),
            },
            accepts: self.asks(price, corrective),
            extensions: extensions(),
        };
        let message = match fault {
            Some(fault) => fault.to_string(),
            None => format!(
                "this request costs at most {price} base units of {}; pay with x402",
                self.facilitator.terms.token.address
            ),
        };
        let mut response =
            Problem::new(StatusCode::PAYMENT_REQUIRED, "payment_required", message).into_response();
        match wire::header(&word) {
            Ok(value) => drop(response.headers_mut().insert(PAYMENT_REQUIRED, value)),
            Err(error) => tracing::error!(%error, "a price could not be written"),
        }
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    fn asks(&self, price: Amount, corrective: Map<String, Value>) -> Vec<Requirements> {
        let (terms, authorizer) = (&self.facilitator.terms, self.facilitator.place.authorizer);
        let mut batch = terms.asks(Scheme::Batch, price, authorizer);
        batch.extra.extend(corrective);
        let exact = terms.asks(Scheme::Exact, price, authorizer);
        if price < terms.settle_min { vec![batch] } else { vec![exact, batch] }
    }

    /// What a payer hears whose payment is not taken; `tried` if its settlement was tried.
    pub(super) fn refused(
        &self,
        url: &str,
        price: Amount,
        fault: &Fault,
        tried: Option<Address>,
    ) -> Ended {
        if matches!(fault, Fault::Busy) {
            return Box::new(busy());
        }
        if let Fault::Journal(reason) = fault {
            return Box::new(Problem::storage(reason).into_response());
        }
        let mut response = self.required(url.to_owned(), price, Some(fault), Map::new());
        if let Some(seconds) = fault.retry_after_s() {
            // The same payment may go through later; a new one could be a second.
            *response.status_mut() = later(fault);
            response.headers_mut().remove(PAYMENT_REQUIRED);
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(payer) = tried {
            let failed = SettlementResponse {
                error_reason: Some(fault.code().to_owned()),
                success: false,
                ..self.settled(payer, None, Map::new())
            };
            insert(response.headers_mut(), &failed);
        }
        Box::new(response)
    }

    /// As [`Door::refused`], with what we hold of the channel where that is what its payer needs to know.
    pub(super) fn corrected(
        &self,
        url: &str,
        price: Amount,
        fault: &Fault,
        signed: &Signed,
        account: &Account,
    ) -> Ended {
        if !fault.is_corrective() {
            return self.refused(url, price, fault, None);
        }
        let mut extra = Map::new();
        extra.insert("channelState".to_owned(), account.state(signed.id));
        if let Some(voucher) = account.voucher_state() {
            extra.insert("voucherState".to_owned(), voucher);
        }
        Box::new(self.required(url.to_owned(), price, Some(fault), extra))
    }
}

/// Tells a client what became of its payment.
pub(super) fn insert(headers: &mut HeaderMap, settled: &SettlementResponse) {
    match wire::header(settled) {
        Ok(value) => drop(headers.insert(PAYMENT_RESPONSE, value)),
        Err(error) => tracing::error!(%error, "a settlement could not be written"),
    }
}

/// Where the client asked, as far as its request says.
pub(super) fn url(request: &Request) -> String {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    format!("http://{}{}", host.unwrap_or("localhost"), request.uri().path())
}

fn malformed(error: &WireError) -> Response {
    let status = match error {
        WireError::Long { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    Problem::new(status, "invalid_payment", error.to_string()).into_response()
}

/// The status of a fault that passes.
pub(super) fn later(fault: &Fault) -> StatusCode {
    match fault {
        Fault::Hasty { .. } => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The same payment is being worked on.
fn busy() -> Response {
    let message = format!("{}; ask again with the same one", Fault::Busy);
    let mut response =
        Problem::new(StatusCode::CONFLICT, Fault::Busy.code(), message).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, 1.into());
    response
}
