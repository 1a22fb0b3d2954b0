//! Tests of the door as clients meet it: over HTTP, before a stub that answers, on a chain on paper.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use assay_protocol::{Address, Amount, B256, keccak256};
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use reqwest::Client;
use serde_json::Value;

use super::door::{Counter, Door, Quote};
use super::exact::Transfer;
use super::facilitator::{Facilitator, Progress};
use super::fault::Fault;
use super::paper::{self, Paper};
use super::reply::{Cost, Names, REPLY_BYTES_MAX};
use super::wire::{
    self, PAYMENT_REQUIRED, PAYMENT_RESPONSE, PAYMENT_SIGNATURE, PaymentPayload, PaymentRequired,
    SettlementResponse,
};

/// What a request may cost here.
pub(super) const PRICE: u128 = 100;
/// What it does cost.
pub(super) const COST: u128 = 60;

/// Prices every request alike.
struct Flat;

impl Counter for Flat {
    fn quote(&self, request: Request) -> BoxFuture<'_, Result<Quote, Response>> {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let bytes = to_bytes(body, 1 << 20).await.unwrap();
            let body = keccak256(&bytes);
            let request = Request::from_parts(parts, Body::from(bytes));
            Ok(Quote { price: Amount(PRICE), body, request })
        })
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        headers.contains_key("authorization")
    }
}

/// A shop: the door, and what is behind it.
pub(super) struct Shop {
    pub(super) url: String,
    pub(super) http: Client,
    pub(super) paper: Arc<Paper>,
    pub(super) facilitator: Arc<Facilitator>,
    pub(super) door: Arc<Door>,
    /// How often the stub answered.
    pub(super) answers: Arc<AtomicU64>,
    /// Whether it fails.
    pub(super) fails: Arc<AtomicBool>,
    /// Where the journal is.
    pub(super) folder: tempfile::TempDir,
}

/// Answers with the number of the answer; as a stream, whose cost is known with its end, if asked to.
async fn answer(body: Bytes, answers: &AtomicU64, fails: &AtomicBool) -> Response {
    if body.starts_with(b"hang") {
        std::future::pending::<()>().await;
    }
    if body.starts_with(b"slow") {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    if fails.load(Ordering::SeqCst) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let number = answers.fetch_add(1, Ordering::SeqCst) + 1;
    let text = format!("answer {number}");
    if !body.starts_with(b"stream") {
        let mut response = text.into_response();
        response.extensions_mut().insert(Cost::known(Amount(COST)));
        return response;
    }
    let cost = Cost::default();
    let told = cost.clone();
    let long = body.starts_with(b"stream that is long");
    let end = if long { "x".repeat(REPLY_BYTES_MAX) } else { " and its end".to_owned() };
    let pieces = [text, end];
    let last = pieces.len() - 1;
    let breaks = body.starts_with(b"stream that breaks");
    let hangs = body.starts_with(b"stream that hangs");
    let waits = body.starts_with(b"stream that waits");
    let pieces = pieces.into_iter().enumerate().map(move |(place, piece)| {
        if place == last && !breaks {
            told.is(Amount(COST));
        }
        Ok::<_, std::convert::Infallible>(piece)
    });
    let pieces = futures_util::stream::iter(pieces).then(move |piece| async move {
        if hangs {
            std::future::pending::<()>().await;
        }
        if waits {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        piece
    });
    let mut response = Body::from_stream(pieces).into_response();
    response.extensions_mut().insert(cost);
    response
}

async fn shop() -> Shop {
    shop_in(tempfile::tempdir().unwrap(), Arc::default()).await
}

/// A shop with what a folder's journal says.
async fn shop_in(folder: tempfile::TempDir, paper: Arc<Paper>) -> Shop {
    let facilitator = paper::facilitator_on(&paper, &folder.path().join("journal")).await;
    let door = Arc::new(Door::new(Arc::clone(&facilitator), Arc::new(Flat)));
    let (answers, fails) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let (counted, failing) = (Arc::clone(&answers), Arc::clone(&fails));
    let stub = move |body: Bytes| {
        let (counted, failing) = (Arc::clone(&counted), Arc::clone(&failing));
        async move { answer(body, &counted, &failing).await }
    };
    let router = Router::new().route("/v1/chat/completions", post(stub));
    let router = super::guard(router, &door);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let http = Client::builder().no_proxy().build().unwrap();
    Shop { url, http, paper, facilitator, door, answers, fails, folder }
}

/// What a client got.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) body: String,
    pub(super) settled: Option<SettlementResponse>,
    pub(super) required: Option<PaymentRequired>,
}

impl Got {
    pub(super) fn charged(&self) -> &str {
        self.settled.as_ref().unwrap().extra["chargedAmount"].as_str().unwrap()
    }

    fn error(&self) -> &str {
        self.required.as_ref().unwrap().error.as_deref().unwrap()
    }
}

impl Shop {
    pub(super) async fn ask(&self, body: &str, payment: Option<&PaymentPayload>) -> Got {
        let mut asked = self.http.post(format!("{}/v1/chat/completions", self.url));
        asked = asked.body(body.to_owned());
        if let Some(payment) = payment {
            asked = asked.header(PAYMENT_SIGNATURE, wire::header(payment).unwrap());
        }
        Self::got(asked.send().await.unwrap()).await
    }

    pub(super) async fn got(response: reqwest::Response) -> Got {
        let headers = response.headers().clone();
        Got {
            status: response.status().as_u16(),
            settled: headers.get(PAYMENT_RESPONSE).map(|value| wire::read(value).unwrap()),
            required: headers.get(PAYMENT_REQUIRED).map(|value| wire::read(value).unwrap()),
            body: response.text().await.unwrap(),
        }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let asked = self.http.post(format!("{}{path}", self.url));
        let text = asked.body(body.to_string()).send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::SeqCst)
    }

    /// The shop as another one finds it that starts after a crash at this moment.
    pub(super) async fn crashed(&self) -> Shop {
        let folder = tempfile::tempdir().unwrap();
        let journal = |folder: &tempfile::TempDir| folder.path().join("journal");
        std::fs::copy(journal(&self.folder), journal(&folder)).unwrap();
        shop_in(folder, Arc::clone(&self.paper)).await
    }

    /// Begins a request, and gives its response as soon as there is a header.
    pub(super) async fn begin(
        &self,
        body: &'static str,
        payment: &PaymentPayload,
    ) -> reqwest::Response {
        let asked = self.http.post(format!("{}/v1/chat/completions", self.url)).body(body);
        let header = wire::header(payment).unwrap();
        asked.header(PAYMENT_SIGNATURE, header).send().await.unwrap()
    }

    /// Waits until copies are kept and credits are given.
    pub(super) async fn settled_down(&self) {
        self.door.drained().await;
    }
}

pub(super) fn exact(nonce: u8) -> PaymentPayload {
    paper::exact(&paper::terms(), &paper::payer(), PRICE, nonce, |_| {})
}

pub(super) async fn funded() -> Shop {
    let shop = shop().await;
    shop.paper.fund(paper::payer().address(), 10_000);
    shop
}

#[tokio::test]
async fn a_request_without_payment_is_told_both_schemes() {
    let shop = shop().await;
    let got = shop.ask("hi", None).await;
    assert_eq!(got.status, 402);
    let required = got.required.unwrap();
    let schemes: Vec<_> = required.accepts.iter().map(|a| (a.scheme, a.amount)).collect();
    assert_eq!(
        schemes,
        [(wire::Scheme::Exact, Amount(PRICE)), (wire::Scheme::Batch, Amount(PRICE))]
    );
    assert_eq!(required.accepts[1].extra["withdrawDelay"], 900);
    assert!(required.extensions.contains_key("payment-identifier"));
    assert_eq!(shop.answers(), 0);
    let asked = shop.http.post(format!("{}/v1/chat/completions", shop.url));
    let known = asked.header("authorization", "Bearer key").body("hi").send().await.unwrap();
    assert_eq!(known.status(), 200);
}

#[tokio::test]
async fn a_transfer_is_settled_before_the_answer_and_sent_once() {
    let shop = funded().await;
    let payment = exact(1);
    let got = shop.ask("hi", Some(&payment)).await;
    assert_eq!((got.status, got.body.as_str()), (200, "answer 1"));
    let settled = got.settled.unwrap();
    assert!(settled.success && settled.transaction.starts_with("0x"), "{settled:?}");
    assert_eq!(shop.paper.balance_of(paper::terms().pay_to), PRICE);
    shop.settled_down().await;
    let again = shop.ask("hi", Some(&payment)).await;
    assert_eq!((again.status, again.body.as_str()), (200, "answer 1"));
    let other = shop.ask("something else", Some(&payment)).await;
    assert_eq!((other.status, other.error()), (402, "invalid_exact_evm_nonce_already_used"));
    assert_eq!((shop.answers(), shop.paper.sent()), (1, 1));
}

#[tokio::test]
async fn one_payment_at_the_same_time_twice_buys_one_answer() {
    let shop = funded().await;
    let payment = exact(1);
    let (one, two) =
        tokio::join!(shop.ask("slow", Some(&payment)), shop.ask("slow", Some(&payment)));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    assert_eq!((shop.answers(), shop.paper.sent()), (1, 1));
}

#[tokio::test]
async fn who_cannot_pay_gets_nothing() {
    let shop = shop().await;
    let got = shop.ask("hi", Some(&exact(1))).await;
    assert_eq!((got.status, got.error()), (402, "insufficient_funds"));
    shop.paper.fund(paper::payer().address(), 10_000);
    shop.paper.cancel(paper::payer().address(), B256::repeat_byte(2));
    let got = shop.ask("hi", Some(&exact(2))).await;
    assert_eq!((got.status, got.error()), (402, "invalid_exact_evm_nonce_already_used"));
    assert_eq!((shop.answers(), shop.paper.sent()), (0, 0));
}

#[tokio::test]
async fn a_payment_whose_answer_failed_asks_again_for_nothing() {
    let shop = funded().await;
    shop.fails.store(true, Ordering::SeqCst);
    let payment = exact(1);
    let failed = shop.ask("hi", Some(&payment)).await;
    assert_eq!((failed.status, failed.settled.is_some()), (502, true));
    shop.fails.store(false, Ordering::SeqCst);
    assert_eq!(shop.ask("hi", Some(&payment)).await.status, 200);
    assert_eq!(shop.paper.balance_of(paper::terms().pay_to), PRICE);
    assert_eq!(shop.paper.sent(), 1);
}

/// A payer may sign the nonce of its payment once more, for another transfer, and bring that first.
#[tokio::test]
async fn another_transfer_with_the_same_nonce_is_no_payment() {
    let shop = funded().await;
    let payment = exact(1);
    let terms = paper::terms();
    let transfer = Transfer::check(&payment, &terms, Amount(PRICE), paper::NOW).unwrap();
    shop.facilitator.verify(&transfer).await.unwrap();
    shop.paper.divert(paper::payer().address(), transfer.authorization.nonce);
    let key = transfer.key(terms.token.address);
    let names = Names { payment: key, chosen: false, kept: key, request: B256::ZERO };
    let settled = shop.facilitator.settle(&transfer, names, None).await;
    assert!(matches!(settled, Err(Fault::Transfer(_))), "{settled:?}");
    assert_eq!(shop.facilitator.progress(&transfer, B256::ZERO).await, Ok(Progress::New));
    assert_eq!(shop.ask("hi", Some(&payment)).await.status, 402);
    assert_eq!(shop.answers(), 0);
}

#[tokio::test]
async fn a_settlement_without_a_word_is_found_again_and_not_paid_twice() {
    let shop = funded().await;
    shop.paper.lose();
    let payment = exact(1);
    let got = shop.ask("hi", Some(&payment)).await;
    assert_eq!((got.status, got.required.is_none()), (503, true));
    let got = shop.ask("hi", Some(&payment)).await;
    assert_eq!(got.status, 200);
    assert_eq!(shop.paper.balance_of(paper::terms().pay_to), PRICE);
    assert_eq!(shop.paper.sent(), 1);
}

#[tokio::test]
async fn a_silent_chain_passes() {
    let shop = funded().await;
    shop.paper.silence(true);
    assert_eq!(shop.ask("hi", Some(&exact(1))).await.status, 503);
    shop.paper.silence(false);
    assert_eq!(shop.ask("hi", Some(&exact(1))).await.status, 200);
}

/// Nor does another identifier buy another answer with the same payment.
#[tokio::test]
async fn a_payment_buys_one_answer_under_all_its_names() {
    let shop = funded().await;
    let names = ["pay_0123456789abcdef", "pay_1123456789abcdef", "pay_2123456789abcdef"];
    shop.fails.store(true, Ordering::SeqCst);
    assert_eq!(shop.ask("hi", Some(&paper::named(exact(1), names[0]))).await.status, 502);
    shop.fails.store(false, Ordering::SeqCst);
    for name in names {
        let got = shop.ask("hi", Some(&paper::named(exact(1), name))).await;
        assert_eq!((got.status, got.body.as_str()), (200, "answer 1"), "{name}");
    }
    assert_eq!(shop.ask("hi", Some(&exact(1))).await.body, "answer 1");
    assert_eq!((shop.answers(), shop.paper.sent()), (1, 1));
}

#[tokio::test]
async fn what_is_not_earned_yet_is_not_claimed() {
    let shop = funded().await;
    let payer = paper::payer();
    let payment = paper::batch_payment(&payer, 0, PRICE, Some(500));
    let begun = shop.begin("stream that hangs", &payment).await;
    let rows = collected(&shop, &at_once(), 0).await;
    assert_eq!((rows, shop.paper.swept()), (Ok(0), Amount(0)));
    drop(begun);
}

#[tokio::test]
async fn what_was_charged_too_much_goes_back_with_the_rest() {
    let shop = funded().await;
    let payer = paper::payer();
    let payment = paper::batch_payment(&payer, 0, PRICE, Some(500));
    assert_eq!(shop.ask("stream", Some(&payment)).await.charged(), "100");
    shop.settled_down().await;
    let asked = shop.http.get(format!("{}/v1/chat/completions", shop.url));
    let header = wire::header(&paper::refund(&payer, PRICE)).unwrap();
    let got = Shop::got(asked.header(PAYMENT_SIGNATURE, header).send().await.unwrap()).await;
    assert_eq!((got.status, got.settled.unwrap().amount.as_deref()), (200, Some("440")));
    assert_eq!(shop.paper.balance_of(payer.address()), 10_000 - COST);
    assert_eq!(shop.paper.channel_of(&payer).claimed, Amount(COST));
}

#[tokio::test]
async fn a_header_that_is_too_long_is_refused() {
    let shop = shop().await;
    for (length, status) in [(wire::HEADER_BYTES_MAX, 400), (wire::HEADER_BYTES_MAX + 4, 431)] {
        let asked = shop.http.post(format!("{}/v1/chat/completions", shop.url));
        let got = asked.header(PAYMENT_SIGNATURE, "A".repeat(length)).send().await.unwrap();
        assert_eq!(got.status().as_u16(), status);
    }
}

#[tokio::test]
async fn a_channel_pays_for_answers_with_one_transaction() {
    let shop = funded().await;
    let payer = paper::payer();
    let first = shop.ask("hi", Some(&paper::batch_payment(&payer, 0, PRICE, Some(500)))).await;
    assert_eq!((first.status, first.charged()), (200, "60"));
    assert_eq!(first.settled.as_ref().unwrap().amount.as_deref(), Some("500"));
    let second = shop.ask("yo", Some(&paper::batch_payment(&payer, COST, PRICE, None))).await;
    assert_eq!((second.status, second.charged()), (200, "60"));
    assert_eq!(second.settled.unwrap().transaction, "");
    assert_eq!((shop.paper.sent(), shop.paper.channel_of(&payer).balance), (1, Amount(500)));
    let rows = collected(&shop, &at_once(), 0).await;
    assert_eq!((rows, shop.paper.swept()), (Ok(1), Amount(2 * COST)));
}

/// A round of collecting, so many seconds from now.
async fn collected(
    shop: &Shop,
    collecting: &super::Collecting,
    later: u64,
) -> Result<usize, Fault> {
    let mut collector = super::collect::Collector::default();
    collector.round(&shop.facilitator, collecting, crate::http::now_s() + later).await
}

fn at_once() -> super::Collecting {
    super::Collecting { owed_min: Amount(1), ..super::Collecting::default() }
}

#[tokio::test]
async fn a_voucher_is_taken_once_and_in_line() {
    let shop = funded().await;
    let payer = paper::payer();
    let deposit = paper::batch_payment(&payer, 0, PRICE, Some(500));
    assert_eq!(shop.ask("hi", Some(&deposit)).await.status, 200);
    // Equal, lower and higher vouchers than the next in line.
    for charged in [0, COST - 1, COST + 1] {
        let got =
            shop.ask("again", Some(&paper::batch_payment(&payer, charged, PRICE, None))).await;
        let expected = "invalid_batch_settlement_evm_cumulative_amount_mismatch";
        assert_eq!((got.status, got.error()), (402, expected));
        let extra = &got.required.as_ref().unwrap().accepts[1].extra;
        assert_eq!(extra["channelState"]["chargedCumulativeAmount"], COST.to_string());
        assert_eq!(extra["voucherState"]["signedMaxClaimable"], PRICE.to_string());
    }
    let next = paper::batch_payment(&payer, COST, PRICE, None);
    assert_eq!(shop.ask("again", Some(&next)).await.status, 200);
    assert_eq!(shop.answers(), 2);
}

#[tokio::test]
async fn a_stream_is_charged_at_its_highest_price_and_credited_after() {
    let shop = funded().await;
    let payer = paper::payer();
    let payment = paper::batch_payment(&payer, 0, PRICE, Some(500));
    let first = shop.ask("stream", Some(&payment)).await;
    assert_eq!((first.body.as_str(), first.charged()), ("answer 1 and its end", "100"));
    shop.settled_down().await;
    let second = shop.ask("hi", Some(&paper::batch_payment(&payer, PRICE, PRICE, None))).await;
    assert_eq!((second.status, second.charged()), (200, "20"));
}

#[tokio::test]
async fn hanging_up_on_a_stream_saves_nothing() {
    let shop = funded().await;
    let payer = paper::payer();
    let payment = paper::batch_payment(&payer, 0, PRICE, Some(500));
    let asked = shop.http.post(format!("{}/v1/chat/completions", shop.url)).body("stream");
    let asked = asked.header(PAYMENT_SIGNATURE, wire::header(&payment).unwrap());
    drop(asked.send().await.unwrap());
    shop.settled_down().await;
    let second = shop.ask("hi", Some(&paper::batch_payment(&payer, PRICE, PRICE, None))).await;
    assert_eq!((second.status, second.charged()), (200, "20"), "only the difference is credited");
}

#[tokio::test]
async fn a_stream_that_breaks_off_costs_nothing_in_the_end() {
    let shop = funded().await;
    let payer = paper::payer();
    let payment = paper::batch_payment(&payer, 0, PRICE, Some(500));
    assert_eq!(shop.ask("stream that breaks", Some(&payment)).await.charged(), "100");
    shop.settled_down().await;
    // What broke off is not what a retry gets.
    assert_eq!(shop.ask("stream that breaks", Some(&payment)).await.status, 402);
    let second = shop.ask("hi", Some(&paper::batch_payment(&payer, PRICE, PRICE, None))).await;
    assert_eq!((second.status, second.charged()), (200, "0"));
}

#[tokio::test]
async fn a_channel_runs_one_request_at_a_time() {
    let shop = funded().await;
    let payer = paper::payer();
    let deposit = paper::batch_payment(&payer, 0, PRICE, Some(500));
    assert_eq!(shop.ask("hi", Some(&deposit)).await.status, 200);
    let next = paper::batch_payment(&payer, COST, PRICE, None);
    let (one, two) = tokio::join!(shop.ask("slow 1", Some(&next)), shop.ask("slow 2", Some(&next)));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
    assert_eq!(shop.answers(), 2);
}

#[tokio::test]
async fn money_that_is_leaving_pays_for_nothing() {
    let shop = funded().await;
    let payer = paper::payer();
    let deposit = paper::batch_payment(&payer, 0, PRICE, Some(500));
    assert_eq!(shop.ask("hi", Some(&deposit)).await.status, 200);
    let id = paper::channel(&payer).id(&paper::place().channels);
    shop.paper.withdraw(id, 450);
    // It is seen by looking, some time later.
    let rows = collected(&shop, &super::Collecting::default(), 300).await;
    assert_eq!((rows, shop.paper.swept()), (Ok(1), Amount(COST)));
    let got = shop.ask("hi!", Some(&paper::batch_payment(&payer, COST, PRICE, None))).await;
    let expected = "invalid_batch_settlement_evm_cumulative_exceeds_balance";
    assert_eq!((got.status, got.error()), (402, expected));
}

#[tokio::test]
async fn a_deposit_that_never_arrives_pays_for_nothing() {
    let shop = shop().await;
    let payer = paper::payer();
    let got = shop.ask("hi", Some(&paper::batch_payment(&payer, 0, PRICE, Some(500)))).await;
    assert_eq!((got.status, got.error()), (402, "insufficient_funds"));
    let got = shop.ask("hi", Some(&paper::batch_payment(&payer, 0, PRICE, None))).await;
    assert_eq!((got.status, got.error()), (402, "invalid_batch_settlement_evm_channel_not_found"));
    assert_eq!(shop.answers(), 0);
}

#[tokio::test]
async fn a_deposit_without_an_answer_is_told_and_not_charged() {
    let shop = funded().await;
    let payer = paper::payer();
    shop.fails.store(true, Ordering::SeqCst);
    let got = shop.ask("hi", Some(&paper::batch_payment(&payer, 0, PRICE, Some(500)))).await;
    assert_eq!((got.status, got.charged()), (502, "0"));
    shop.fails.store(false, Ordering::SeqCst);
    let got = shop.ask("hi", Some(&paper::batch_payment(&payer, 0, PRICE, None))).await;
    assert_eq!((got.status, got.charged()), (200, "60"));
}

#[tokio::test]
async fn what_is_left_goes_back() {
    let shop = funded().await;
    let payer = paper::payer();
    let deposit = paper::batch_payment(&payer, 0, PRICE, Some(500));
    assert_eq!(shop.ask("hi", Some(&deposit)).await.status, 200);
    let url = format!("{}/v1/chat/completions", shop.url);
    let asked = |payment: &PaymentPayload| {
        shop.http.get(&url).header(PAYMENT_SIGNATURE, wire::header(payment).unwrap()).send()
    };
    let probe = Shop::got(shop.http.get(&url).send().await.unwrap()).await;
    assert_eq!(probe.status, 402);
    let wrong = Shop::got(asked(&paper::refund(&payer, PRICE)).await.unwrap()).await;
    assert_eq!(wrong.error(), "invalid_batch_settlement_evm_cumulative_amount_mismatch");
    let got = Shop::got(asked(&paper::refund(&payer, COST)).await.unwrap()).await;
    assert_eq!((got.status, got.settled.unwrap().amount.as_deref()), (200, Some("440")));
    assert_eq!(shop.paper.balance_of(payer.address()), 10_000 - COST);
    assert_eq!(shop.paper.channel_of(&payer).claimed, Amount(COST));
    let got = Shop::got(asked(&paper::refund(&payer, COST)).await.unwrap()).await;
    assert_eq!(got.error(), "invalid_batch_settlement_evm_refund_no_balance");
}

#[tokio::test]
async fn what_is_not_worth_its_gas_is_not_sent() {
    let shop = funded().await;
    let payer = paper::payer();
    let small = shop.ask("hi", Some(&paper::batch_payment(&payer, 0, PRICE, Some(49)))).await;
    assert_eq!(small.status, 402);
    let deposit = paper::batch_payment(&payer, 0, PRICE, Some(100));
    assert_eq!(shop.ask("hi", Some(&deposit)).await.status, 200);
    let asked = shop.http.get(format!("{}/v1/chat/completions", shop.url));
    let header = wire::header(&paper::refund(&payer, COST)).unwrap();
    let got = Shop::got(asked.header(PAYMENT_SIGNATURE, header).send().await.unwrap()).await;
    assert_eq!(got.error(), "invalid_batch_settlement_evm_refund_amount_invalid");
    let payment = paper::exact(&paper::terms(), &payer, 49, 1, |_| {});
    let asked = serde_json::json!({
        "x402Version": 2, "paymentPayload": payment, "paymentRequirements": payment.accepted,
    });
    let settled = shop.post("/x402/settle", asked).await;
    assert_eq!(settled["errorReason"], "invalid_payment_requirements");
    assert_eq!(shop.paper.sent(), 1);
}

#[tokio::test]
async fn the_facilitator_judges_and_settles_payments_to_us() {
    let shop = funded().await;
    let kinds = shop.http.get(format!("{}/x402/supported", shop.url)).send().await.unwrap();
    let kinds: Value = serde_json::from_str(&kinds.text().await.unwrap()).unwrap();
    assert_eq!(kinds["kinds"][1]["scheme"], "batch-settlement");
    let asked = |payment: &PaymentPayload| {
        serde_json::json!({
            "x402Version": 2, "paymentPayload": payment, "paymentRequirements": payment.accepted,
        })
    };
    let payment = exact(1);
    assert_eq!(shop.post("/x402/verify", asked(&payment)).await["isValid"], true);
    let settled = shop.post("/x402/settle", asked(&payment)).await;
    assert_eq!((&settled["success"], &settled["amount"]), (&true.into(), &"100".into()));
    let spent = shop.post("/x402/verify", asked(&payment)).await;
    assert_eq!(spent["invalidReason"], "invalid_exact_evm_nonce_already_used");
    // A payment that was settled elsewhere buys nothing at the door.
    let got = shop.ask("hi", Some(&payment)).await;
    assert_eq!(got.error(), "invalid_exact_evm_nonce_already_used");
    let mut stranger = exact(2);
    stranger.accepted.pay_to = Address::repeat_byte(0x66);
    let refused = shop.post("/x402/settle", asked(&stranger)).await;
    assert_eq!(refused["errorReason"], "invalid_exact_evm_payload_recipient_mismatch");
    let deposit = paper::batch_payment(&paper::payer(), 0, PRICE, Some(500));
    let held = shop.post("/x402/verify", asked(&deposit)).await;
    assert_eq!((&held["isValid"], &held["extra"]["balance"]), (&true.into(), &"0".into()));
    let settled = shop.post("/x402/settle", asked(&deposit)).await;
    assert_eq!(settled["extra"]["channelState"]["balance"], "500");
    assert_eq!((shop.answers(), shop.paper.sent()), (0, 2));
}
