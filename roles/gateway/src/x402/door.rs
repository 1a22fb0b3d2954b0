//! The door: an answer for whoever pays for it, at the time and in the way that x402 says.
//!
//! Without a payment a request is told its price (402, both schemes). With one, the payment is verified,
//! the answer is bought, the payment is settled, and only then does the first byte leave:
//!
//! - `exact`: the transfer is in a block.
//! - `batch-settlement`: voucher and charge are on disk. A deposit is in a block before anything is bought,
//!   because until then the channel has nothing.
//!
//! A paid request is worked on by a task of its own, so a client that hangs up leaves no payment half done.

use std::sync::Arc;
use std::time::Duration;

use assay_protocol::{Address, Amount, B256, ChannelId};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};
use tokio_util::task::TaskTracker;

use super::batch::{Account, Signed, SignedKind};
use super::collect::{Collecting, collect};
use super::exact::Transfer;
use super::facilitator::{Facilitator, Turn};
use super::fault::Fault;
use super::journal::{Journal, credited};
use super::reply::{Copy, Cost, Names, NotIdentifier, copied, extensions};
use super::wire::{
    self, PAYMENT_REQUIRED, PAYMENT_RESPONSE, PAYMENT_SIGNATURE, PaymentPayload, PaymentRequired,
    Requirements, Resource, Scheme, SettlementResponse, VERSION, WireError,
};
use crate::http::now_s;
use crate::openai::Problem;

/// What is sold here.
const PATH: &str = "/v1/chat/completions";

/// How long replies are kept for those who lost theirs.
const REPEAT: Duration = Duration::from_secs(3600);

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
    facilitator: Arc<Facilitator>,
    counter: Arc<dyn Counter>,
    /// One task per paid request and per reply.
    tasks: TaskTracker,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("terms", &self.facilitator.terms).finish_non_exhaustive()
    }
}

/// A response that ends a request early.
type Ended = Box<Response>;

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
        let sold =
            request.uri().path() == PATH && matches!(*request.method(), Method::GET | Method::POST);
        if !sold {
            return next.run(request).await;
        }
        let Some(paid) = request.headers().get(PAYMENT_SIGNATURE).cloned() else {
            return self.unpaid(request, next).await;
        };
        let payment = match wire::payment(&paid) {
            Ok(payment) => payment,
            Err(error) => return malformed(&error),
        };
        let done = match payment.accepted.scheme {
            Scheme::Exact => self.exact(paid, payment, request, next).await,
            Scheme::Batch => self.batch(paid, payment, request, next).await,
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

    async fn exact(
        self: &Arc<Self>,
        paid: HeaderValue,
        payment: PaymentPayload,
        request: Request,
        next: Next,
    ) -> Result<Response, Ended> {
        let url = url(&request);
        let quote = self.quote(request).await?;
        let refuse = |fault: Fault| self.refused(&url, quote.price, &fault, None);
        let terms = &self.facilitator.terms;
        let transfer = Transfer::check(&payment, terms, quote.price, now_s()).map_err(refuse)?;
        let names = names(&payment, &paid, quote.body)?;
        let payer = transfer.payer();
        if let Some(reply) = self.repeated(names, payer, &url, quote.price).await? {
            return Ok(reply);
        }
        let turn = self.facilitator.turn(transfer.key(terms.token.address));
        let turns = (turn.map_err(refuse)?, self.named_turn(names).map_err(refuse)?);
        let known = self.facilitator.settled(&transfer, names.request).await.map_err(refuse)?;
        if known.is_none() {
            self.facilitator.verify(&transfer).await.map_err(refuse)?;
        }
        let door = Arc::clone(self);
        let price = quote.price;
        self.run(async move {
            // Before anything is bought: a payer that has moved its money by the end of an answer would
            // leave us with the bill. If there is no answer, the same payment may ask again.
            let settled = door.facilitator.settle(&transfer, names.request, known).await;
            let transaction = match settled {
                Ok(transaction) => transaction,
                Err(fault) => return *door.refused(&url, price, &fault, Some(payer)),
            };
            let settled = SettlementResponse {
                amount: Some(transfer.amount().to_string()),
                ..door.settled(payer, Some(transaction), Map::new())
            };
            let mut response = next.run(quote.request).await;
            if !response.status().is_success() {
                insert(response.headers_mut(), &settled);
                return response;
            }
            let told = response.extensions_mut().remove::<Cost>();
            door.release(response, settled, names, turns, told, None)
        })
        .await
    }

    async fn batch(
        self: &Arc<Self>,
        paid: HeaderValue,
        payment: PaymentPayload,
        request: Request,
        next: Next,
    ) -> Result<Response, Ended> {
        let url = url(&request);
        let now = now_s();
        let facilitator = &self.facilitator;
        let checked = wire::part(&payment.payload).map_err(Fault::from).and_then(|payload| {
            facilitator.terms.met(&payment.accepted, Amount(0))?;
            Signed::check(payload, &facilitator.terms, &facilitator.place, now)
        });
        let signed = match checked {
            Ok(signed) => signed,
            Err(fault) => {
                let price = self.price_of(request).await?;
                return Err(self.refused(&url, price, &fault, None));
            }
        };
        if let SignedKind::Refund(wanted) = signed.kind {
            return self.refund(signed, wanted, &url).await;
        }
        let quote = self.quote(request).await?;
        let met = facilitator.terms.met(&payment.accepted, quote.price);
        met.map_err(|fault| self.refused(&url, quote.price, &fault, None))?;
        let names = names(&payment, &paid, quote.body)?;
        if let Some(reply) = self.repeated(names, signed.channel.payer, &url, quote.price).await? {
            return Ok(reply);
        }
        let refuse = |fault: Fault| self.refused(&url, quote.price, &fault, None);
        let turn = facilitator.turn(signed.id.0).map_err(refuse)?;
        let turns = (turn, self.named_turn(names).map_err(refuse)?);
        let door = Arc::clone(self);
        let amount = payment.accepted.amount;
        self.run(async move {
            let sold = Sold { signed, amount, names, url };
            match door.sell(sold, quote, next, turns).await {
                Ok(response) => response,
                Err(ended) => *ended,
            }
        })
        .await
    }

    /// Admits a voucher, buys the answer, and charges what it cost.
    async fn sell(
        &self,
        sold: Sold,
        quote: Quote,
        next: Next,
        turns: Turns,
    ) -> Result<Response, Ended> {
        let Sold { signed, amount, names, url } = sold;
        let price = quote.price;
        let claimable = signed.voucher.max_claimable_amount;
        let now = now_s();
        let mut transaction = None;
        let account = self.facilitator.account(&signed, now).await;
        let mut account = account.map_err(|fault| self.refused(&url, price, &fault, None))?;
        if let SignedKind::Deposit(deposit) = &signed.kind {
            let expected = Amount(account.charged.0.saturating_add(amount.0));
            if claimable != expected {
                let fault = Fault::Cumulative { found: claimable, expected };
                return Err(self.corrected(&url, price, &fault, &signed, &account));
            }
            let available = Amount(account.available().0.saturating_add(deposit.value.0));
            if claimable > available {
                let fault = Fault::Exceeds { found: claimable, available };
                return Err(self.refused(&url, price, &fault, None));
            }
            let brought = self.facilitator.deposit(&signed, deposit, now).await;
            let (sent, synced) = brought
                .map_err(|fault| self.refused(&url, price, &fault, Some(signed.channel.payer)))?;
            (transaction, account) = (Some(sent), synced);
        }
        if let Err(fault) = account.admit(claimable, amount) {
            return Err(self.corrected(&url, price, &fault, &signed, &account));
        }
        let mut response = next.run(quote.request).await;
        let success = response.status().is_success();
        if !success && transaction.is_none() {
            return Ok(response);
        }
        let told = response.extensions_mut().remove::<Cost>().unwrap_or_default();
        let known = told.get();
        // A stream's cost is known when its header is gone; what is too much comes off later charges.
        let cost = if success { known.unwrap_or(price) } else { Amount(0) };
        let charged = self.charged(&signed, cost, account, success).await;
        let (account, charge) = charged.map_err(|fault| self.refused(&url, price, &fault, None))?;
        let mut settled =
            self.settled(signed.channel.payer, transaction, account.extra(signed.id, charge));
        settled.amount = Some(match &signed.kind {
            SignedKind::Deposit(deposit) => deposit.value.to_string(),
            _ => String::new(),
        });
        if !success {
            insert(response.headers_mut(), &settled);
            return Ok(response);
        }
        let credit = known.is_none().then_some((signed.id, price));
        Ok(self.release(response, settled, names, turns, Some(told), credit))
    }

    async fn charged(
        &self,
        signed: &Signed,
        cost: Amount,
        account: Account,
        success: bool,
    ) -> Result<(Account, Amount), Fault> {
        if !success {
            return Ok((account, Amount(0)));
        }
        self.facilitator.charge(signed.id, signed.voucher.clone(), cost, now_s()).await
    }

    async fn refund(
        self: &Arc<Self>,
        signed: Signed,
        wanted: Option<Amount>,
        url: &str,
    ) -> Result<Response, Ended> {
        let refuse = |fault: Fault| self.refused(url, Amount(1), &fault, None);
        let turn = self.facilitator.turn(signed.id.0).map_err(refuse)?;
        let (door, url) = (Arc::clone(self), url.to_owned());
        self.run(async move {
            let _turn = turn;
            let payer = signed.channel.payer;
            match door.facilitator.refund(&signed, wanted, now_s()).await {
                Ok((sent, amount, account)) => {
                    let mut extra = account.extra(signed.id, Amount(0));
                    extra.remove("chargedAmount");
                    let mut settled = door.settled(payer, Some(sent), extra);
                    settled.amount = Some(amount.to_string());
                    let said = json!({ "message": "refunded", "channelId": signed.id.to_string() });
                    let mut response = axum::Json(said).into_response();
                    insert(response.headers_mut(), &settled);
                    response
                }
                Err(fault) if fault.is_corrective() => {
                    match door.facilitator.account(&signed, now_s()).await {
                        Ok(account) => *door.corrected(&url, Amount(1), &fault, &signed, &account),
                        Err(fault) => *door.refused(&url, Amount(1), &fault, Some(payer)),
                    }
                }
                Err(fault) => *door.refused(&url, Amount(1), &fault, Some(payer)),
            }
        })
        .await
    }

    /// Runs `work` to its end, even if the client hangs up.
    async fn run(
        &self,
        work: impl Future<Output = Response> + Send + 'static,
    ) -> Result<Response, Ended> {
        let done = self.tasks.spawn(work).await;
        done.map_err(|error| Box::new(Problem::internal(error.to_string()).into_response()))
    }

    async fn quote(&self, request: Request) -> Result<Quote, Ended> {
        self.counter.quote(request).await.map_err(Box::new)
    }

    /// The price to be named in a refusal.
    async fn price_of(&self, request: Request) -> Result<Amount, Ended> {
        if request.method() == Method::GET {
            return Ok(Amount(1));
        }
        Ok(self.quote(request).await?.price)
    }

    /// The reply that was given before, if this payment's was.
    async fn repeated(
        &self,
        names: Names,
        payer: Address,
        url: &str,
        price: Amount,
    ) -> Result<Option<Response>, Ended> {
        let kept = self.facilitator.journal.reply(names.payment).await;
        let kept = kept.map_err(|error| self.refused(url, price, &error.into(), None))?;
        let Some(reply) = kept.filter(|reply| reply.until > now_s()) else { return Ok(None) };
        if (reply.payer, reply.request) == (payer, names.request) {
            return Ok(Some(reply.repeat()));
        }
        if names.chosen { Err(Box::new(conflict())) } else { Ok(None) }
    }

    fn named_turn(&self, names: Names) -> Result<Turn, Fault> {
        self.facilitator.turn(names.payment)
    }

    fn settled(
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

    /// Lets a paid response go, and keeps a copy of it. The turns end with the copy, so that whoever asks
    /// again meanwhile is told to wait, and finds it then. `told` is what the answer cost, if it says so;
    /// `credit` names a channel that was charged more beforehand.
    fn release(
        &self,
        mut response: Response,
        settled: SettlementResponse,
        names: Names,
        turns: Turns,
        told: Option<Cost>,
        credit: Option<(ChannelId, Amount)>,
    ) -> Response {
        insert(response.headers_mut(), &settled);
        let copy = Copy {
            request: names.request,
            payer: settled.payer.unwrap_or_default(),
            until: now_s().saturating_add(REPEAT.as_secs()),
        };
        let (response, work) = copied(response, copy);
        let journal = self.facilitator.journal.clone();
        let (channel, named) = turns;
        // The payment is settled, so the channel's next one may come.
        drop(channel);
        self.tasks.spawn(async move {
            let _named = named;
            // Ends with the answer, whether or not its client has read it.
            let reply = work.await;
            let cost = told.as_ref().map(Cost::get);
            if let Some((id, charged)) = credit {
                // An answer that broke off tells no cost, and is not its payer's to bear.
                let cost = cost.flatten().unwrap_or_default();
                credit_back(&journal, id, Amount(charged.0.saturating_sub(cost.0))).await;
            }
            // Nor is one that broke off what a retry should get.
            let whole = cost.is_none_or(|cost| cost.is_some());
            if let Some(reply) = reply.filter(|_| whole)
                && let Err(error) = journal.keep_reply(names.payment, reply).await
            {
                tracing::warn!(%error, "a paid reply could not be kept for a retry");
            }
        });
        response
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
        vec![terms.asks(Scheme::Exact, price, authorizer), batch]
    }

    /// What a payer hears whose payment is not taken; `tried` if its settlement was tried.
    fn refused(&self, url: &str, price: Amount, fault: &Fault, tried: Option<Address>) -> Ended {
        if matches!(fault, Fault::Busy) {
            return Box::new(busy());
        }
        if let Fault::Journal(reason) = fault {
            return Box::new(Problem::storage(reason).into_response());
        }
        let mut response = self.required(url.to_owned(), price, Some(fault), Map::new());
        if fault.is_passing() {
            // The same payment may go through later; a new one could be a second.
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().remove(PAYMENT_REQUIRED);
            response.headers_mut().insert(header::RETRY_AFTER, 2.into());
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
    fn corrected(
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

/// A voucher for an answer.
struct Sold {
    signed: Signed,
    /// The most that may be charged.
    amount: Amount,
    names: Names,
    url: String,
}

/// Leave to work on the payment or its channel, and on the payment's name.
type Turns = (Turn, Turn);

/// Gives a channel back what it was charged too much: it comes off the next charges.
async fn credit_back(journal: &Journal, id: ChannelId, credit: Amount) {
    if credit == Amount(0) {
        return;
    }
    let change = move |account| (credited(account, credit), ());
    if let Err(error) = journal.change(id, change).await {
        tracing::error!(channel = %id, %credit, %error, "a credit could not be kept");
    }
}

fn names(payment: &PaymentPayload, paid: &HeaderValue, body: B256) -> Result<Names, Ended> {
    Names::of(payment, paid, PATH, body).map_err(|error: NotIdentifier| {
        let problem =
            Problem::new(StatusCode::BAD_REQUEST, "invalid_payment_identifier", error.to_string());
        Box::new(problem.into_response())
    })
}

fn insert(headers: &mut HeaderMap, settled: &SettlementResponse) {
    match wire::header(settled) {
        Ok(value) => drop(headers.insert(PAYMENT_RESPONSE, value)),
        Err(error) => tracing::error!(%error, "a settlement could not be written"),
    }
}

/// Where the client asked, as far as its request says.
fn url(request: &Request) -> String {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    format!("http://{}{PATH}", host.unwrap_or("localhost"))
}

fn malformed(error: &WireError) -> Response {
    let status = match error {
        WireError::Long { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    Problem::new(status, "invalid_payment", error.to_string()).into_response()
}

/// One payment for two requests.
fn conflict() -> Response {
    let message = "this payment identifier was used for another request";
    Problem::new(StatusCode::CONFLICT, "payment_identifier_conflict", message).into_response()
}

/// The same payment is being worked on.
fn busy() -> Response {
    let message = format!("{}; ask again with the same one", Fault::Busy);
    let mut response =
        Problem::new(StatusCode::CONFLICT, Fault::Busy.code(), message).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, 1.into());
    response
}
