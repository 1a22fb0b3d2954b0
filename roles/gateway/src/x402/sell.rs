//! Sells answers: a payment is verified, its answer bought, and what it cost kept, before the first byte
//! leaves.
//!
//! - `exact`: the transfer is in a block before anything is bought. A payer that has moved its money by the
//!   end of an answer would leave us with the bill. If there is no answer, the same payment asks again.
//! - `batch-settlement`: voucher, charge and whole answer are one change on disk. A stream leaves with its
//!   highest price charged and a pending row beside it, which its end settles. A deposit is in a block
//!   before anything is bought, because until then the channel has nothing.
//!
//! A paid request is worked on by a task of its own, so a client that hangs up leaves no payment half done.
//! A crash leaves none either: what has no answer is credited, or asks again for nothing.

use std::sync::Arc;
use std::time::Duration;

use assay_protocol::{Address, Amount, B256, ChannelId, keccak256};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, json};

use super::batch::{Account, Signed, SignedKind};
use super::door::{Door, Ended, Quote, insert, url};
use super::exact::Transfer;
use super::facilitator::{Progress, Turn};
use super::fault::Fault;
use super::journal::{Change, Paid, Pending, Reply};
use super::reply::{self, Answer, Copy, Cost, Names, NotIdentifier, copied};
use super::wire::{self, PAYMENT_RESPONSE, PaymentPayload, SettlementResponse};
use crate::disk::StoreError;
use crate::http::now_s;
use crate::openai::Problem;

/// How long replies are kept for those who lost theirs.
const REPEAT: Duration = Duration::from_secs(3600);

/// How long the end of a stream that could not be kept waits for the next try, twice as long each time, …
const END_WAIT: Duration = Duration::from_millis(100);
/// … and at most.
const END_WAIT_MAX: Duration = Duration::from_secs(30);

/// Leave to work on a payment's name, and on the payment itself or its channel.
type Turns = (Turn, Option<Turn>);

/// A voucher for an answer.
struct Sold {
    signed: Signed,
    /// The most that may be charged.
    amount: Amount,
    names: Names,
    url: String,
}

impl Door {
    /// Sells an answer for a transfer.
    pub(super) async fn exact(
        self: &Arc<Self>,
        payment: PaymentPayload,
        request: Request,
        next: Next,
    ) -> Result<Response, Ended> {
        let url = url(&request);
        let quote = self.quote(request).await?;
        let refuse = |fault: Fault| self.refused(&url, quote.price, &fault, None);
        let terms = &self.facilitator.terms;
        let transfer = Transfer::check(&payment, terms, quote.price, now_s()).map_err(refuse)?;
        let payer = transfer.payer();
        let key = transfer.key(terms.token.address);
        let names = names(&payment, key, key, &quote)?;
        let named = self.facilitator.turn(names.payment).map_err(refuse)?;
        let (transfer, turn) = match names.chosen {
            false => (transfer, None),
            true => {
                if let Some(reply) = self.repeated(names, payer, &url, quote.price).await? {
                    return Ok(reply);
                }
                let first = self.begun(names, payer).await.map_err(refuse)?;
                let transfer = match first {
                    Begun::No => transfer,
                    Begun::By(first) => {
                        let first = self.facilitator.first(*first, transfer, names);
                        first.await.map_err(refuse)?
                    }
                    Begun::Otherwise => return Err(Box::new(conflict())),
                };
                let turn = self.facilitator.turn(transfer.key(terms.token.address));
                (transfer, Some(turn.map_err(refuse)?))
            }
        };
        let known = self.facilitator.progress(&transfer, names.request).await.map_err(refuse)?;
        let known = match known {
            Progress::New => None,
            Progress::Settled(transaction) => Some(transaction),
            Progress::Answered(key) => {
                let kept = self.facilitator.journal.reply(key).await;
                let kept = kept.map_err(|error| refuse(error.into()))?;
                let fits = kept.filter(|r| (r.payer, r.request) == (payer, names.request));
                return fits.map(|reply| reply.repeat()).ok_or_else(|| refuse(Fault::Used));
            }
        };
        if known.is_none() {
            self.facilitator.verify(&transfer).await.map_err(refuse)?;
        }
        let door = Arc::clone(self);
        self.run(async move {
            door.transferred(transfer, names, known, quote, next, url, (named, turn)).await
        })
        .await
    }

    /// Settles a transfer, and buys its answer.
    #[expect(clippy::too_many_arguments, reason = "a request's whole state moves into its task")]
    async fn transferred(
        self: Arc<Self>,
        transfer: Transfer,
        names: Names,
        known: Option<B256>,
        quote: Quote,
        next: Next,
        url: String,
        turns: Turns,
    ) -> Response {
        let payer = transfer.payer();
        let transaction = match self.facilitator.settle(&transfer, names, known).await {
            Ok(transaction) => transaction,
            Err(fault) => return *self.refused(&url, quote.price, &fault, Some(payer)),
        };
        let settled = SettlementResponse {
            amount: Some(transfer.amount().to_string()),
            ..self.settled(payer, Some(transaction), Map::new())
        };
        let settlement = match wire::header(&settled) {
            Ok(settlement) => settlement,
            Err(error) => return Problem::internal(error.to_string()).into_response(),
        };
        let mut response = next.run(quote.request).await;
        if !response.status().is_success() {
            response.headers_mut().insert(PAYMENT_RESPONSE, settlement);
            return response;
        }
        let cost = cost_of(&mut response, quote.price);
        let copy = Copy::of(response.headers(), names, payer, kept_until());
        let key = transfer.key(self.facilitator.terms.token.address);
        match reply::read(response, &cost).await {
            Err(error) => {
                let mut response = broken_off(&error);
                response.headers_mut().insert(PAYMENT_RESPONSE, settlement);
                response
            }
            Ok(Answer::Whole(mut parts, body)) => {
                let said = String::from_utf8(body.to_vec()).ok();
                self.answered(key, copy, &settlement, said).await;
                parts.headers.insert(PAYMENT_RESPONSE, settlement);
                Response::from_parts(parts, Body::from(body))
            }
            Ok(Answer::Stream(mut response)) => {
                response.headers_mut().insert(PAYMENT_RESPONSE, settlement.clone());
                let (response, work) = copied(response, cost.clone());
                let door = Arc::clone(&self);
                self.tasks.spawn(async move {
                    // Who asks again meanwhile is told to wait, and finds the copy then.
                    let _turns = turns;
                    let mut ended = work.await;
                    // One that broke off is not what a retry should get: it asks again.
                    if ended.whole && cost.get().is_some() {
                        door.answered(key, copy, &settlement, ended.body.take()).await;
                    }
                    ended.release().await;
                });
                response
            }
        }
    }

    /// Keeps that a transfer has its answer.
    async fn answered(
        &self,
        key: B256,
        copy: Copy,
        settlement: &HeaderValue,
        body: Option<String>,
    ) {
        let names = copy.names;
        let reply = copy.reply(settlement, body);
        let kept = self.facilitator.journal.write(move |rows| {
            if let Some(mut payment) = rows.payment(key)? {
                payment.reply = Some(names.kept);
                rows.keep_payment(key, &payment)?;
            }
            rows.keep_reply(names.kept, reply)?;
            if names.chosen {
                rows.forget_pending(names.payment);
            }
            Ok(())
        });
        // Its client has paid, and gets it all the same.
        if let Err(error) = kept.await {
            tracing::warn!(%error, "a paid reply could not be kept for a retry");
        }
    }

    /// Sells an answer for a voucher, or gives money back.
    pub(super) async fn batch(
        self: &Arc<Self>,
        payment: PaymentPayload,
        request: Request,
        next: Next,
    ) -> Result<Response, Ended> {
        let url = url(&request);
        let facilitator = &self.facilitator;
        let checked = wire::part(&payment.payload).map_err(Fault::from).and_then(|payload| {
            facilitator.terms.met(&payment.accepted, Amount(0))?;
            Signed::check(payload, &facilitator.terms, &facilitator.place, now_s())
        });
        let signed = match checked {
            Ok(signed) => signed,
            Err(fault) => {
                let price = self.price_of(request).await?;
                return Err(self.refused(&url, price, &fault, None));
            }
        };
        if let SignedKind::Refund(wanted) = signed.kind {
            return self.refund(signed, wanted, url).await;
        }
        let quote = self.quote(request).await?;
        let refuse = |fault: Fault| self.refused(&url, quote.price, &fault, None);
        facilitator.terms.met(&payment.accepted, quote.price).map_err(refuse)?;
        let names = names(&payment, voucher_name(&signed), signed.id.0, &quote)?;
        let named = facilitator.turn(names.payment).map_err(refuse)?;
        let payer = signed.channel.payer;
        if names.chosen {
            if let Some(reply) = self.repeated(names, payer, &url, quote.price).await? {
                return Ok(reply);
            }
            if !matches!(self.begun(names, payer).await.map_err(refuse)?, Begun::No) {
                return Err(Box::new(conflict()));
            }
        }
        let turn = facilitator.turn(signed.id.0).map_err(refuse)?;
        let (door, amount) = (Arc::clone(self), payment.accepted.amount);
        self.run(async move {
            let sold = Sold { signed, amount, names, url };
            match door.sell(sold, quote, next, (named, Some(turn))).await {
                Ok(response) => response,
                Err(ended) => *ended,
            }
        })
        .await
    }

    /// Admits a voucher, buys the answer, and charges what it cost.
    async fn sell(
        self: Arc<Self>,
        sold: Sold,
        quote: Quote,
        next: Next,
        turns: Turns,
    ) -> Result<Response, Ended> {
        let (signed, names) = (&sold.signed, sold.names);
        let (price, payer) = (quote.price, signed.channel.payer);
        let refuse = |fault: Fault| self.refused(&sold.url, price, &fault, None);
        if let Some(reply) = self.lost(signed, names).await.map_err(refuse)? {
            return Ok(reply);
        }
        let (account, transaction) = self.admitted(&sold, price).await?;
        let mut response = next.run(quote.request).await;
        if !response.status().is_success() {
            if transaction.is_some() {
                let settlement = self.charged(signed, transaction, &account, Amount(0));
                insert(response.headers_mut(), &settlement);
            }
            return Ok(response);
        }
        let cost = cost_of(&mut response, price);
        let copy = Copy::of(response.headers(), names, payer, kept_until());
        match reply::read(response, &cost).await {
            Err(error) => Ok(broken_off(&error)),
            Ok(Answer::Whole(mut parts, body)) => {
                let cost = cost.get().unwrap_or(price);
                let said = String::from_utf8(body.to_vec()).ok();
                let settlement = self.charge(sold, transaction, cost, copy, said).await?;
                parts.headers.insert(PAYMENT_RESPONSE, settlement);
                Ok(Response::from_parts(parts, Body::from(body)))
            }
            Ok(Answer::Stream(mut response)) => {
                // What a stream costs is known when its header is gone.
                let charged = cost.get().unwrap_or(price);
                let id = signed.id;
                let settlement = self.begin(sold, transaction, charged).await?;
                response.headers_mut().insert(PAYMENT_RESPONSE, settlement.clone());
                let (response, work) = copied(response, cost.clone());
                // The stream is charged, so the channel's next payment may come. Who asks for this one
                // again is told to wait, and finds the copy then.
                let (named, channel) = turns;
                drop(channel);
                let door = Arc::clone(&self);
                self.tasks.spawn(async move {
                    let _named = named;
                    let mut ended = work.await;
                    // A stream that broke off tells no cost, and is not its payer's to bear.
                    let cost = cost.get().filter(|_| ended.whole);
                    let reply = cost.map(|_| copy.reply(&settlement, ended.body.take()));
                    let cost = cost.unwrap_or_default();
                    let end = End { names, id, charged, cost, reply };
                    let kept = door.end(end.clone()).await;
                    ended.release().await;
                    if kept.is_err() {
                        door.end_at_last(end).await;
                    }
                });
                Ok(response)
            }
        }
    }

    /// The account of a voucher that pays for an answer, after its deposit if it brings one.
    async fn admitted(&self, sold: &Sold, price: Amount) -> Result<(Account, Option<B256>), Ended> {
        let Sold { signed, amount, url, .. } = sold;
        let claimable = signed.voucher.max_claimable_amount;
        let now = now_s();
        let mut transaction = None;
        let account = self.facilitator.account(signed, now).await;
        let mut account = account.map_err(|fault| self.refused(url, price, &fault, None))?;
        if let SignedKind::Deposit(deposit) = &signed.kind {
            let expected = Amount(account.charged.0.saturating_add(amount.0));
            if claimable != expected {
                let fault = Fault::Cumulative { found: claimable, expected };
                return Err(self.corrected(url, price, &fault, signed, &account));
            }
            let available = Amount(account.available().0.saturating_add(deposit.value.0));
            if claimable > available {
                let fault = Fault::Exceeds { found: claimable, available };
                return Err(self.refused(url, price, &fault, None));
            }
            let brought = self.facilitator.deposit(signed, deposit, now).await;
            let (sent, synced) = brought
                .map_err(|fault| self.refused(url, price, &fault, Some(signed.channel.payer)))?;
            (transaction, account) = (Some(sent), synced);
        }
        match account.admit(claimable, *amount) {
            Ok(()) => Ok((account, transaction)),
            Err(fault) => Err(self.corrected(url, price, &fault, signed, &account)),
        }
    }

    /// Charges a voucher for a whole answer, and keeps that for a retry.
    async fn charge(
        &self,
        sold: Sold,
        transaction: Option<B256>,
        cost: Amount,
        copy: Copy,
        body: Option<String>,
    ) -> Result<HeaderValue, Ended> {
        let now = now_s();
        self.change(sold, transaction, move |rows, account, signed, settle| {
            rows.credit_stream(copy.names.payment, Some((signed.id, &mut *account)), now)?;
            let charge = account.charge(&signed.voucher, cost, now);
            let settlement = settle(account, charge)?;
            rows.keep_reply(copy.names.kept, copy.reply(&settlement, body))?;
            Ok(settlement)
        })
        .await
    }

    /// Charges a voucher for a stream, whose end says what it did cost.
    async fn begin(
        &self,
        sold: Sold,
        transaction: Option<B256>,
        charged: Amount,
    ) -> Result<HeaderValue, Ended> {
        let (now, names) = (now_s(), sold.names);
        self.change(sold, transaction, move |rows, account, signed, settle| {
            rows.credit_stream(names.payment, Some((signed.id, &mut *account)), now)?;
            let charge = account.begin(&signed.voucher, charged, now);
            let row = Pending {
                request: names.request,
                payer: signed.channel.payer,
                paid: Paid::Stream { channel: signed.id, charged },
                until: now.saturating_add(REPEAT.as_secs()),
            };
            rows.keep_pending(names.payment, &row)?;
            settle(account, charge)
        })
        .await
    }

    /// Keeps the end of a stream.
    async fn end(&self, end: End) -> Result<(), StoreError> {
        let id = end.id;
        let kept = self.facilitator.journal.write(move |rows| end.keep(rows)).await;
        if let Err(error) = &kept {
            tracing::error!(channel = %id, %error, "the end of a stream could not be kept");
        }
        kept
    }

    /// Keeps the end of a stream as soon as the disk lets it: until then its channel is not refunded, and
    /// nobody asks under its name. If the gateway stops before, its next start credits all of it.
    async fn end_at_last(&self, mut end: End) {
        // Many may wait here, so they hold little.
        if let Some(reply) = &mut end.reply {
            reply.body = None;
        }
        let mut wait = END_WAIT;
        loop {
            tokio::time::sleep(wait).await;
            if self.end(end.clone()).await.is_ok() {
                return;
            }
            wait = (2 * wait).min(END_WAIT_MAX);
        }
    }

    /// Changes the account of a voucher that was admitted; on disk on return.
    async fn change(
        &self,
        sold: Sold,
        transaction: Option<B256>,
        change: impl FnOnce(
            &mut Change<'_>,
            &mut Account,
            &Signed,
            &dyn Fn(&Account, Amount) -> Result<HeaderValue, StoreError>,
        ) -> Result<HeaderValue, StoreError>
        + Send
        + 'static,
    ) -> Result<HeaderValue, Ended> {
        let (url, price, signed) = (sold.url, sold.amount, sold.signed);
        let network = self.facilitator.terms.network().to_string();
        let changed = self.facilitator.journal.write(move |rows| {
            let Some(mut account) = rows.account(signed.id)? else { return Ok(None) };
            let settle = |account: &Account, charge| {
                let settled = settlement(&network, &signed, transaction, account, charge);
                wire::header(&settled).map_err(|error| StoreError::Format(error.to_string()))
            };
            let settlement = change(rows, &mut account, &signed, &settle)?;
            rows.keep_account(signed.id, account)?;
            Ok(Some(settlement))
        });
        let changed = changed.await.map_err(Fault::from);
        changed
            .and_then(|settlement| settlement.ok_or(Fault::NoChannel))
            .map_err(|fault| self.refused(&url, price, &fault, None))
    }

    /// What a payer is told who was charged `charge`.
    fn charged(
        &self,
        signed: &Signed,
        transaction: Option<B256>,
        account: &Account,
        charge: Amount,
    ) -> SettlementResponse {
        let network = self.facilitator.terms.network().to_string();
        settlement(&network, signed, transaction, account, charge)
    }

    async fn refund(
        self: &Arc<Self>,
        signed: Signed,
        wanted: Option<Amount>,
        url: String,
    ) -> Result<Response, Ended> {
        let refuse = |fault: Fault| self.refused(&url, Amount(1), &fault, None);
        let turn = self.facilitator.turn(signed.id.0).map_err(refuse)?;
        let door = Arc::clone(self);
        let work = async move {
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
        };
        self.run(work).await
    }

    /// Runs `work` to its end, even if the client hangs up.
    async fn run(
        &self,
        work: impl Future<Output = Response> + Send + 'static,
    ) -> Result<Response, Ended> {
        let done = self.tasks.spawn(work).await;
        done.map_err(|error| Box::new(Problem::internal(error.to_string()).into_response()))
    }

    /// The reply that was given before under the name that its client chose.
    async fn repeated(
        &self,
        names: Names,
        payer: Address,
        url: &str,
        price: Amount,
    ) -> Result<Option<Response>, Ended> {
        let kept = self.facilitator.journal.reply(names.kept).await;
        let kept = kept.map_err(|error| self.refused(url, price, &error.into(), None))?;
        match kept.filter(|reply| reply.until > now_s()) {
            None => Ok(None),
            Some(reply) if names.fit(&reply, payer) => Ok(Some(reply.repeat())),
            Some(_) => Err(Box::new(conflict())),
        }
    }

    /// The reply that was given before for a channel's last voucher, if this is that one.
    async fn lost(&self, signed: &Signed, names: Names) -> Result<Option<Response>, Fault> {
        let journal = &self.facilitator.journal;
        let held = journal.account(signed.id).await?;
        // A voucher for more than the last one is a new one.
        let claimable = signed.voucher.max_claimable_amount;
        if names.chosen || held.is_none_or(|held| claimable > held.claimable) {
            return Ok(None);
        }
        let kept = journal.reply(names.kept).await?;
        // Where the answer is not kept, its payer is told where its channel stands, as for any other voucher.
        let kept = kept.filter(|reply| reply.until > now_s() && reply.body.is_some());
        let payer = signed.channel.payer;
        Ok(kept.filter(|reply| names.fit(reply, payer)).map(|reply| reply.repeat()))
    }

    /// What is on its way under the name that a client chose.
    async fn begun(&self, names: Names, payer: Address) -> Result<Begun, Fault> {
        let pending = self.facilitator.journal.pending(names.payment).await?;
        Ok(match pending {
            None => Begun::No,
            Some(row) if (row.payer, row.request) != (payer, names.request) => Begun::Otherwise,
            Some(Pending { paid: Paid::Transfer(first), .. }) => Begun::By(Box::new(first.into())),
            // Its end could not be kept; what comes next under its name credits it.
            Some(Pending { paid: Paid::Stream { .. }, .. }) => Begun::No,
        })
    }
}

/// What is on its way under a name.
enum Begun {
    /// Nothing.
    No,
    /// An answer for this transfer.
    By(Box<Transfer>),
    /// Something else.
    Otherwise,
}

/// How a stream ended.
#[derive(Clone)]
struct End {
    names: Names,
    id: ChannelId,
    /// What it was charged at first, and what it did cost.
    charged: Amount,
    cost: Amount,
    /// What a retry gets; none if it broke off.
    reply: Option<Reply>,
}

impl End {
    /// Its pending row goes, its channel is credited what it was charged too much, and its reply is kept.
    fn keep(self, rows: &mut Change<'_>) -> Result<(), StoreError> {
        let Self { names, id, charged, cost, reply } = self;
        if rows.pending(names.payment)?.is_some() {
            rows.forget_pending(names.payment);
            if let Some(mut account) = rows.account(id)? {
                account.end(charged, cost, now_s());
                rows.keep_account(id, account)?;
            }
        }
        reply.map_or(Ok(()), |reply| rows.keep_reply(names.kept, reply))
    }
}

/// What a payer is told who was charged `charge`.
fn settlement(
    network: &str,
    signed: &Signed,
    transaction: Option<B256>,
    account: &Account,
    charge: Amount,
) -> SettlementResponse {
    SettlementResponse {
        success: true,
        error_reason: None,
        payer: Some(signed.channel.payer),
        transaction: transaction.map(|hash| hash.to_string()).unwrap_or_default(),
        network: network.to_owned(),
        amount: Some(match &signed.kind {
            SignedKind::Deposit(deposit) => deposit.value.to_string(),
            _ => String::new(),
        }),
        extra: account.extra(signed.id, charge),
    }
}

fn names(payment: &PaymentPayload, own: B256, kept: B256, quote: &Quote) -> Result<Names, Ended> {
    let path = quote.request.uri().path();
    Names::of(payment, own, kept, path, quote.body).map_err(|error: NotIdentifier| {
        let problem =
            Problem::new(StatusCode::BAD_REQUEST, "invalid_payment_identifier", error.to_string());
        Box::new(problem.into_response())
    })
}

/// Names a payment by its voucher.
fn voucher_name(signed: &Signed) -> B256 {
    let claimable = signed.voucher.max_claimable_amount.0.to_be_bytes();
    keccak256([signed.id.0.as_slice(), &claimable].concat())
}

/// What an answer says that it costs: all that it may, if it says nothing.
fn cost_of(response: &mut Response, price: Amount) -> Cost {
    response.extensions_mut().remove().unwrap_or_else(|| Cost::known(price))
}

fn kept_until() -> u64 {
    now_s().saturating_add(REPEAT.as_secs())
}

/// An answer that ended in its middle.
fn broken_off(error: &axum::Error) -> Response {
    let message = format!("the answer broke off: {error}");
    Problem::new(StatusCode::BAD_GATEWAY, "broken_off", message).into_response()
}

/// One payment for two requests.
fn conflict() -> Response {
    let message = "this payment identifier was used for another request, or for another payment";
    Problem::new(StatusCode::CONFLICT, "payment_identifier_conflict", message).into_response()
}
