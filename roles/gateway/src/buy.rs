//! Buys one answer: hands the order in with its payment, at one provider after the other.
//!
//! A purchase is driven to its end by its own task. A provider that refuses, or fails before its
//! first token, is replaced by the next, and asked last for a while; one that lies is struck, and
//! its session ends. The gateway checked the order, so no refusal is believed to be the order's fault,
//! but for one: each provider counts by itself what is spent under a client's grants, and how often.
//! Who refuses the grants is replaced as well, and stays as good for all others as it was.
//!
//! The order is signed once, by the gateway or by its client, and the same for all; what pays for it
//! is each provider's own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use assay_protocol::wire::{Payment, Refusal};
use assay_protocol::{
    Amount, Answer, B256, ChainId, Order, OrderHash, Signature, SignedGrant, Terms, U256,
};
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use futures_util::stream::{self, StreamExt};
use reqwest::{Body, Response};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::budget::Spending;
use crate::catalogue::Model;
use crate::delivery::Delivery;
use crate::draft::{Conditions, Draft};
use crate::http::{Gateway, now_s};
use crate::keys::Caller;
use crate::lines::{Lines, short_body};
use crate::openai::{Finish, Problem, Usage};
use crate::pay::{Bill, Claim, Lease, PositionError, Seller, Unsettled};
use crate::rated::Piece;
use crate::route::{Candidate, NoRoute, Wanted, allowed_price, choose};
use crate::signed;
use crate::store::Row;

/// Providers one order is handed to at most, not counting those that refuse it.
pub(crate) const TRIES_MAX: usize = 3;

/// Longest refusal, in bytes.
const REFUSAL_BYTES_MAX: usize = 1 << 16;

/// Lanes that an order tries at one provider at most; each rests for a while after it was refused.
const LANES_TRIED_MAX: usize = 64;

/// Vouchers on their way to a provider. It asks for one at a time.
const TOP_UPS_MAX: usize = 4;

/// An order that is ready to be handed in.
#[derive(Debug)]
pub(crate) struct Buying {
    pub(crate) model: Arc<Model>,
    pub(crate) hash: OrderHash,
    pub(crate) draft: Draft,
    pub(crate) order: Order,
    pub(crate) signature: Signature,
    /// What it may cost its client.
    pub(crate) spending: Arc<Spending>,
    wanted: Wanted,
    /// The submission without its payment: the same bytes for every provider.
    submission: Bytes,
}

/// A [`Submission`](assay_protocol::wire::Submission) without its payment.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Unpaid<'a> {
    chain_id: ChainId,
    order: &'a Order,
    signature: &'a Signature,
    terms: &'a Terms,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<u8>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    flex: bool,
    #[serde(skip_serializing_if = "<[SignedGrant]>::is_empty")]
    grants: &'a [SignedGrant],
}

/// An order with the buyer's signature, and the grants that the buyer acts under.
#[derive(Clone, Debug)]
pub(crate) struct SignedOrder {
    pub(crate) order: Order,
    pub(crate) signature: Signature,
    pub(crate) grants: Vec<SignedGrant>,
}

/// What a client hears of its purchase, in this order.
#[derive(Debug)]
pub(crate) enum News {
    /// A provider has taken the order. Said once.
    Accepted,
    /// More text.
    Text(Piece),
    /// The answer is complete, checked and kept. Nothing follows.
    Done(Box<Bought>),
    /// There will be no complete answer. Nothing follows.
    Failed(Problem),
}

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Bought {
    /// The answer without its states, which only a verifier needs.
    pub(crate) answer: Answer,
    pub(crate) finish: Finish,
    pub(crate) usage: Usage,
}

/// News that a purchase of `tokens_max` tokens can have at most: so many never wait for a slow
/// client.
pub(crate) fn news_max(tokens_max: u32) -> usize {
    tokens_max as usize + 4
}

impl Buying {
    /// Signs the order for `draft`, at the offers there are at `now` (Unix seconds).
    ///
    /// # Errors
    /// If there is no offer, every provider is busy, all cost too much, or more than `caller` may
    /// spend.
    pub(crate) fn sign(
        gateway: &Gateway,
        caller: &Caller,
        model: Arc<Model>,
        draft: Draft,
        now: u64,
        nonce: U256,
    ) -> Result<Self, Problem> {
        let mut wanted = draft.wanted(&model, gateway.price_max);
        let candidates = gateway.directory.candidates(wanted.model, now);
        if let Err(none) = choose(&wanted, &candidates, &[], now) {
            return Err(unrouted(none, wanted.max_price));
        }
        wanted.max_price = allowed_price(&wanted, &candidates, TRIES_MAX, now);
        let spending = caller.set_aside(&model, wanted.max_price)?;
        let conditions = Conditions {
            buyer: gateway.key.address(),
            market: gateway.market(),
            assurance: wanted.assurance,
            audit: gateway.audit,
            max_price: wanted.max_price,
            deadline: now + gateway.order_ttl.as_secs().max(1),
            nonce,
            grant: B256::ZERO,
        };
        let order = draft.order(&model, conditions);
        let signature = order.sign(gateway.chain, &gateway.key);
        let signed = SignedOrder { order, signature, grants: Vec::new() };
        Self::new(gateway, model, draft, signed, wanted, spending)
    }

    /// The order `signed`, which is about `draft` of `model`.
    pub(crate) fn new(
        gateway: &Gateway,
        model: Arc<Model>,
        draft: Draft,
        signed: SignedOrder,
        wanted: Wanted,
        spending: Spending,
    ) -> Result<Self, Problem> {
        let SignedOrder { order, signature, grants } = signed;
        let hash = order.hash(gateway.chain);
        let unpaid = Unpaid {
            chain_id: gateway.chain,
            order: &order,
            signature: &signature,
            terms: &draft.terms,
            logprobs: draft.logprobs,
            flex: draft.flex,
            grants: &grants,
        };
        let submission = serde_json::to_vec(&unpaid)
            .map_err(|error| Problem::internal(error.to_string()))?
            .into();
        let spending = Arc::new(spending);
        Ok(Self { model, hash, draft, order, signature, spending, wanted, submission })
    }

    /// The most that the answer may cost, in base units.
    pub(crate) fn price_max(&self) -> Amount {
        self.wanted.max_price
    }

    /// Most tokens of the answer.
    pub(crate) fn tokens_max(&self) -> u32 {
        self.draft.max_tokens
    }

    /// What it costs under `candidate`'s offer.
    pub(crate) fn bill<'a>(&self, candidate: &'a Candidate) -> Bill<'a> {
        let (prompt_tokens, max_tokens) = (self.draft.prompt_tokens, self.draft.max_tokens);
        Bill { offer: &candidate.offer, prompt_tokens, max_tokens }
    }

    /// Why a provider does not take its client's grants, if that is what it refuses.
    fn ungranted(&self, refusal: &Refusal) -> Option<Problem> {
        if self.order.grant.is_zero() { None } else { signed::ungranted(refusal) }
    }

    /// The submission with its payment, without the end of its line.
    fn paid_by(&self, payment: &Payment) -> Result<Vec<u8>, Problem> {
        let Some((_, open)) = self.submission.split_last() else {
            return Err(Problem::internal("an order has no bytes"));
        };
        let mut bytes = Vec::with_capacity(open.len() + 1024);
        bytes.extend_from_slice(open);
        bytes.extend_from_slice(b",\"payment\":");
        serde_json::to_writer(&mut bytes, payment)
            .map_err(|error| Problem::internal(error.to_string()))?;
        bytes.push(b'}');
        Ok(bytes)
    }
}

/// What a client is told where no offer can be taken for at most `max_price`.
pub(crate) fn unrouted(none: NoRoute, max_price: Amount) -> Problem {
    match none {
        NoRoute::NoOffer => Problem::no_provider(),
        NoRoute::Busy => Problem::all_busy(),
        NoRoute::Price => Problem::price(max_price),
        NoRoute::Grants => Problem::no_taker(),
    }
}

/// How one provider's turn ended.
#[derive(Debug)]
pub(crate) enum Turn {
    /// The client knows everything, or has left.
    Over,
    /// It did not take the order.
    Refused(Problem),
    /// It did not take the order under its grants, which says nothing of the provider.
    Ungranted(Problem),
    /// It failed before the answer began, so another may have a try.
    Next(Problem),
    /// It failed in a way that another try does not mend.
    Failed(Problem),
}

/// Drives a purchase to its end.
pub(crate) async fn buy(gateway: Arc<Gateway>, buying: Buying, news: mpsc::Sender<News>) {
    let mut client = Client { news, accepted: false, since: Instant::now() };
    let mut tried = Vec::new();
    let mut problem = None;
    let mut failed = 0;
    while failed < TRIES_MAX {
        let now = now_s();
        let candidates = gateway.directory.candidates(buying.wanted.model, now);
        let candidate = match choose(&buying.wanted, &candidates, &tried, now) {
            Ok(candidate) => candidate,
            Err(none) => {
                problem.get_or_insert_with(|| unrouted(none, buying.wanted.max_price));
                break;
            }
        };
        tried.push(candidate.place);
        let _using = gateway.directory.using(candidate.place);
        let turn = hand_in(&gateway, &buying, candidate, &mut client).await;
        failed += usize::from(matches!(turn, Turn::Next(_)));
        match turn {
            Turn::Over => return,
            Turn::Refused(why) | Turn::Next(why) => {
                tracing::warn!(order = %buying.hash, url = candidate.url, problem = why.message, "next provider");
                gateway.directory.put_aside(candidate.place, &why.message);
                problem = Some(why);
            }
            Turn::Ungranted(why) => {
                tracing::info!(order = %buying.hash, url = candidate.url, problem = why.message, "next provider");
                problem = Some(why);
            }
            Turn::Failed(why) => {
                problem = Some(why);
                break;
            }
        }
    }
    let problem = problem.unwrap_or_else(Problem::no_provider);
    tracing::warn!(order = %buying.hash, problem = problem.message, "not answered");
    gateway.figures.failed(&buying.model.listed.name, problem.code);
    client.tell(News::Failed(problem));
}

/// The client's end of a purchase.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) news: mpsc::Sender<News>,
    accepted: bool,
    /// When its purchase began.
    pub(crate) since: Instant,
}

impl Client {
    pub(crate) fn tell(&self, news: News) {
        // There is room for all news, so this fails only if the client has left.
        let _ = self.news.try_send(news);
    }

    fn accept(&mut self) {
        if !std::mem::replace(&mut self.accepted, true) {
            self.tell(News::Accepted);
        }
    }
}

/// Hands the order to one provider, and reads what comes of it.
async fn hand_in(
    gateway: &Gateway,
    buying: &Buying,
    candidate: &Candidate,
    client: &mut Client,
) -> Turn {
    let mut refused = Problem::upstream("the provider refuses our payment channels");
    let wait_max = gateway.purse.as_ref().map(|purse| purse.terms.lane_wait_max);
    let deadline = Instant::now() + wait_max.unwrap_or_default();
    let mut asked = false;
    let mut lease = match lane(gateway, buying, candidate, client).await {
        Ok(lease) => lease,
        Err(turn) => return turn,
    };
    for _ in 0..LANES_TRIED_MAX {
        let (reply, top_ups) =
            match submit(gateway, buying, candidate, client, lease.as_mut()).await {
                Ok(submitted) => submitted,
                Err(turn) => {
                    leave(gateway, buying, candidate, lease.as_mut(), &[]);
                    return turn;
                }
            };
        if reply.status() == StatusCode::OK {
            client.accept();
            let vector_width = buying.model.listed.vector_width;
            let lines = Lines::new(reply, buying.tokens_max(), buying.draft.logprobs, vector_width);
            return Delivery::new(gateway, buying, candidate, client, lease, top_ups)
                .run(lines)
                .await;
        }
        drop(top_ups);
        let refusal = match refusal(reply, gateway.patience.accept_wait_max).await {
            Ok(refusal) => refusal,
            Err(problem) => {
                leave(gateway, buying, candidate, lease.as_mut(), &[]);
                return Turn::Refused(problem);
            }
        };
        if let Some(why) = buying.ungranted(&refusal) {
            lease.iter_mut().for_each(Lease::refused);
            return Turn::Ungranted(why);
        }
        refused = Problem::from(refusal.clone());
        let Some(paying) = lease.take() else { return Turn::Refused(refused) };
        if Instant::now() >= deadline {
            return Turn::Refused(refused);
        }
        let mended = mend(gateway, buying, candidate, paying, &refusal, asked).await;
        asked |= matches!(mended, Mended::Lane(_));
        lease = match mended {
            Mended::No => return Turn::Refused(refused),
            Mended::Lied(turn) => return turn,
            Mended::Lane(lease) if lease.affords(buying.bill(candidate).most()) => Some(*lease),
            Mended::Lane(_) | Mended::OtherLane => {
                match lane(gateway, buying, candidate, client).await {
                    Ok(lease) => lease,
                    Err(turn) => return turn,
                }
            }
        };
    }
    Turn::Refused(refused)
}

/// What can be done about a refusal.
enum Mended {
    /// Nothing.
    No,
    /// The same lane may do now.
    Lane(Box<Lease>),
    /// Another lane may do.
    OtherLane,
    /// The provider lied about it.
    Lied(Turn),
}

/// Does what can be done about a provider that refused what `lease` pays. Its word on the lane's
/// position is asked for once: `asked` says whether it was.
async fn mend(
    gateway: &Gateway,
    buying: &Buying,
    candidate: &Candidate,
    mut lease: Lease,
    refusal: &Refusal,
    asked: bool,
) -> Mended {
    if matches!(refusal, Refusal::Running { .. }) {
        leave(gateway, buying, candidate, Some(&mut lease), &[]);
        return Mended::No;
    }
    lease.refused();
    match refusal {
        Refusal::Voucher { .. } if !asked => match ask(gateway, candidate, &mut lease).await {
            Ok(()) => Mended::Lane(Box::new(lease)),
            Err(turn) => Mended::Lied(turn),
        },
        Refusal::ChannelBusy { .. } => {
            lease.rest();
            Mended::OtherLane
        }
        Refusal::Deposit { .. } => {
            lease.doubt_deposit();
            Mended::OtherLane
        }
        _ => Mended::No,
    }
}

/// Asks the provider where a lane is. One that lies about it is left alone.
async fn ask(gateway: &Gateway, candidate: &Candidate, lease: &mut Lease) -> Result<(), Turn> {
    let Err(error) = lease.ask().await else { return Ok(()) };
    Err(match error {
        PositionError::Lie(_) | PositionError::Unproven { .. } => {
            end_session(gateway, candidate, error.to_string(), None).await;
            Turn::Next(Problem::receipt(error))
        }
        PositionError::Store(error) => Turn::Failed(Problem::storage(error)),
        PositionError::Unknown(_) => Turn::Next(Problem::upstream(error.to_string())),
    })
}

/// Remembers an order that was handed in and ends without a receipt, so that its provider can be
/// asked for it.
pub(crate) fn leave(
    gateway: &Gateway,
    buying: &Buying,
    candidate: &Candidate,
    lease: Option<&mut Lease>,
    sent: &[u32],
) {
    let Some(lease) = lease.filter(|lease| lease.is_at_risk()) else { return };
    lease.leave(Unsettled {
        chain: gateway.chain,
        hash: buying.hash,
        order: buying.order.clone(),
        signature: buying.signature,
        model: Arc::clone(&buying.model),
        draft: buying.draft.clone(),
        offer: candidate.offer.clone(),
        sent: sent.to_vec(),
        claim: Claim::new(&buying.spending),
    });
}

/// A lane that pays `candidate` for the whole answer, if it is paid at all.
async fn lane(
    gateway: &Gateway,
    buying: &Buying,
    candidate: &Candidate,
    client: &Client,
) -> Result<Option<Lease>, Turn> {
    let (Some(purse), Some(seller)) = (&gateway.purse, Seller::of(candidate)) else {
        return Ok(None);
    };
    let most = buying.bill(candidate).most();
    for _ in 0..LANES_TRIED_MAX {
        let lease = tokio::select! {
            biased;
            () = client.news.closed() => return Err(Turn::Over),
            () = gateway.stopping.cancelled() => return Err(Turn::Failed(Problem::closing())),
            lease = purse.lane(&seller, most) => lease,
        };
        let mut lease = lease.map_err(|error| Turn::Next(error.into()))?;
        if lease.is_unsure() {
            ask(gateway, candidate, &mut lease).await?;
        }
        if lease.affords(most) {
            return Ok(Some(lease));
        }
    }
    Err(Turn::Next(Problem::upstream("the provider's payment channels are used up")))
}

/// Leaves a provider that lied alone, takes back what is in its lanes, and keeps what shows the lie.
pub(crate) async fn end_session(
    gateway: &Gateway,
    candidate: &Candidate,
    said: String,
    lie: Option<Row>,
) {
    gateway.directory.strike(candidate.place, said);
    let ended = gateway.purse.iter().flat_map(|purse| purse.end(candidate.offer.provider));
    let rows: Vec<Row> = ended.chain(lie).collect();
    if let Err(error) = gateway.store.keep(rows).await {
        tracing::error!(url = candidate.url, %error, "what shows a lie was not kept");
    }
}

/// Where vouchers go while an answer comes; none if nothing more will have to be paid.
pub(crate) type TopUps = Option<mpsc::Sender<Bytes>>;

/// Sends the order with what `lease` pays, and waits for the head of the reply.
///
/// A kept connection may close just as it is used again, which says nothing of the provider: the order is
/// sent once more. A provider that has it already answers the same.
async fn submit(
    gateway: &Gateway,
    buying: &Buying,
    candidate: &Candidate,
    client: &Client,
    lease: Option<&mut Lease>,
) -> Result<(Response, TopUps), Turn> {
    let is_paid = lease.is_some();
    let (submission, is_prepaid) = match lease {
        None => (buying.submission.clone(), true),
        Some(lease) => {
            let bill = buying.bill(candidate);
            let mut submission = buying.paid_by(&lease.pay(bill)).map_err(Turn::Failed)?;
            submission.push(b'\n');
            (Bytes::from(submission), lease.is_prepaid(bill))
        }
    };
    let send = async {
        match send(gateway, candidate, &submission, is_prepaid).await {
            Err(error) if is_hung_up(&error) => {
                tracing::debug!(order = %buying.hash, %error, "sent once more");
                send(gateway, candidate, &submission, is_prepaid).await
            }
            sent => sent,
        }
    };
    let sent = tokio::select! {
        biased;
        // Hanging up cancels the order, in case it has arrived. One that is paid is cancelled in
        // words, once it is taken, so that there is a receipt for what it cost.
        () = client.news.closed(), if !is_paid => return Err(Turn::Over),
        () = gateway.stopping.cancelled() => return Err(Turn::Failed(Problem::closing())),
        sent = timeout(gateway.patience.accept_wait_max, send) => sent,
    };
    match sent {
        Ok(Ok(submitted)) => Ok(submitted),
        Ok(Err(error)) => {
            let message = format!("the provider cannot be reached: {}", root_cause(&error));
            Err(Turn::Next(Problem::upstream(message)))
        }
        Err(_) => {
            Err(Turn::Next(Problem::timeout("the provider did not accept the order in time")))
        }
    }
}

/// Sends a submission over whichever connection there is, and leaves the body open for vouchers if it is
/// not prepaid.
async fn send(
    gateway: &Gateway,
    candidate: &Candidate,
    submission: &Bytes,
    is_prepaid: bool,
) -> reqwest::Result<(Response, TopUps)> {
    let (body, top_ups) = if is_prepaid {
        (Body::from(submission.clone()), None)
    } else {
        let (body, top_ups) = open_body(submission.clone());
        (body, Some(top_ups))
    };
    let request = gateway
        .http
        .post(format!("{}/v1/orders", candidate.url))
        .header(header::CONTENT_TYPE, "application/json")
        .body(body);
    Ok((request.send().await?, top_ups))
}

/// Whether a connection that stood was closed before any reply.
fn is_hung_up(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_connect() && !error.is_timeout()
}

/// What lies behind a failed request: the outermost error alone says little.
fn root_cause(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}

/// A body that stays open after the submission's line, for vouchers.
fn open_body(submission: Bytes) -> (Body, mpsc::Sender<Bytes>) {
    let (top_ups, lines) = mpsc::channel(TOP_UPS_MAX);
    let rest = stream::unfold(lines, async |mut lines: mpsc::Receiver<Bytes>| {
        lines.recv().await.map(|line| (line, lines))
    });
    let lines = stream::once(async move { submission }).chain(rest);
    (Body::wrap_stream(lines.map(Ok::<_, Infallible>)), top_ups)
}

/// What a provider says instead of taking the order.
async fn refusal(mut reply: Response, wait_max: Duration) -> Result<Refusal, Problem> {
    let status = reply.status();
    let read = timeout(wait_max, short_body(&mut reply, REFUSAL_BYTES_MAX)).await;
    let bytes = read.ok().and_then(Result::ok).flatten();
    bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| Problem::upstream(format!("the provider answered with status {status}")))
}
