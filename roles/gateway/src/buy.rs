//! Buys one answer: hands the order in, passes text on, and closes with a checked receipt.
//!
//! A purchase is driven to its end by its own task. A client that leaves cancels the order, and
//! the receipt for what was delivered is still read and kept. A provider that refuses, or fails
//! before its first token, is replaced by the next, and asked last for a while; one that lies is
//! struck. The gateway made the order, so no refusal is believed to be the order's fault.

use std::sync::Arc;
use std::time::Duration;

use assay_protocol::wire::{Frame, Refusal, Sealed, Submission};
use assay_protocol::{Amount, Answer, Finish as Ended, Order, OrderHash, Signature, U256};
use axum::body::Bytes;
use axum::http::{StatusCode, header};
use reqwest::Response;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use crate::catalogue::Model;
use crate::close::{Ordered, close};
use crate::draft::{Conditions, Draft};
use crate::http::{Gateway, now_s};
use crate::lines::{Lines, LinesError, short_body};
use crate::openai::{Finish, Problem, Usage};
use crate::route::{Candidate, NoRoute, Wanted, allowed_price, choose};
use crate::text::{NotTokens, Text};

/// Providers one order is handed to at most, not counting those that refuse it.
const TRIES_MAX: usize = 3;

/// Longest refusal, in bytes.
const REFUSAL_BYTES_MAX: usize = 1 << 16;

/// An order that is ready to be handed in.
#[derive(Debug)]
pub(crate) struct Buying {
    pub(crate) model: Arc<Model>,
    pub(crate) hash: OrderHash,
    draft: Draft,
    order: Order,
    signature: Signature,
    wanted: Wanted,
    /// The submission's bytes, the same for every provider.
    submission: Bytes,
}

/// What a client hears of its purchase, in this order.
#[derive(Debug)]
pub(crate) enum News {
    /// A provider has taken the order. Said once.
    Accepted,
    /// More text.
    Text(String),
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
    /// If there is no offer, every provider is busy, or all cost too much.
    pub(crate) fn sign(
        gateway: &Gateway,
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
        let conditions = Conditions {
            buyer: gateway.key.address(),
            assurance: wanted.assurance,
            audit: gateway.audit,
            max_price: wanted.max_price,
            deadline: now + gateway.order_ttl.as_secs().max(1),
            nonce,
        };
        let order = draft.order(&model, conditions);
        let hash = order.hash(gateway.chain);
        let signature = gateway.key.sign(hash.0);
        let submission = Submission {
            chain_id: gateway.chain,
            order: order.clone(),
            signature,
            terms: draft.terms.clone(),
            payment: None,
        };
        let submission = serde_json::to_vec(&submission)
            .map_err(|error| Problem::internal(error.to_string()))?
            .into();
        Ok(Self { model, hash, draft, order, signature, wanted, submission })
    }

    /// Most tokens of the answer.
    pub(crate) fn tokens_max(&self) -> u32 {
        self.draft.max_tokens
    }
}

/// What a client is told where no offer can be taken for at most `max_price`.
pub(crate) fn unrouted(none: NoRoute, max_price: Amount) -> Problem {
    match none {
        NoRoute::NoOffer => Problem::no_provider(),
        NoRoute::Busy => Problem::all_busy(),
        NoRoute::Price => Problem::price(max_price),
    }
}

/// How one provider's turn ended.
enum Turn {
    /// The client knows everything, or has left.
    Over,
    /// It did not take the order.
    Refused(Problem),
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
            Turn::Failed(why) => {
                problem = Some(why);
                break;
            }
        }
    }
    let problem = problem.unwrap_or_else(Problem::no_provider);
    tracing::warn!(order = %buying.hash, problem = problem.message, "not answered");
    client.tell(News::Failed(problem));
}

/// The client's end of a purchase.
struct Client {
    news: mpsc::Sender<News>,
    accepted: bool,
    /// When its purchase began.
    since: Instant,
}

impl Client {
    fn tell(&self, news: News) {
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
    let patience = &gateway.patience;
    let request = gateway
        .http
        .post(format!("{}/v1/orders", candidate.url))
        .header(header::CONTENT_TYPE, "application/json")
        .body(buying.submission.clone());
    let reply = tokio::select! {
        biased;
        // Hanging up cancels the order, in case it has arrived.
        () = client.news.closed() => return Turn::Over,
        () = gateway.stopping.cancelled() => return Turn::Failed(Problem::closing()),
        reply = timeout(patience.accept_wait_max, request.send()) => reply,
    };
    match reply {
        Err(_) => Turn::Next(Problem::timeout("the provider did not accept the order in time")),
        Ok(Err(error)) => {
            Turn::Next(Problem::upstream(format!("the provider cannot be reached: {error}")))
        }
        Ok(Ok(reply)) if reply.status() == StatusCode::OK => {
            client.accept();
            let lines = Lines::new(reply, buying.tokens_max());
            Delivery::new(gateway, buying, candidate, client).run(lines).await
        }
        Ok(Ok(reply)) => Turn::Refused(refusal(reply, patience.accept_wait_max).await),
    }
}

/// What a provider says instead of taking the order.
async fn refusal(mut reply: Response, wait_max: Duration) -> Problem {
    let status = reply.status();
    let read = timeout(wait_max, short_body(&mut reply, REFUSAL_BYTES_MAX)).await;
    let bytes = read.ok().and_then(Result::ok).flatten();
    let refusal: Option<Refusal> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    refusal.map_or_else(
        || Problem::upstream(format!("the provider answered with status {status}")),
        Problem::from,
    )
}

/// Why an order was cancelled by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The client left.
    Left,
    /// The gateway is shutting down.
    Closing,
    /// A stop string appeared that the token rule did not see.
    Cut,
}

/// An answer on its way from a provider to a client.
struct Delivery<'a> {
    gateway: &'a Gateway,
    buying: &'a Buying,
    candidate: &'a Candidate,
    client: &'a Client,
    text: Text,
    stop: Option<Stop>,
    /// When the receipt has to be here.
    deadline: Instant,
}

/// What a delivery waits for.
enum Event {
    Stop(Stop),
    Frame(Result<Frame, LinesError>),
    Late,
}

impl<'a> Delivery<'a> {
    fn new(
        gateway: &'a Gateway,
        buying: &'a Buying,
        candidate: &'a Candidate,
        client: &'a Client,
    ) -> Self {
        let tokenizer = Arc::clone(&buying.model.listed.tokenizer);
        let text = Text::new(tokenizer, buying.draft.ending.clone(), buying.draft.stops.clone());
        let deadline = Instant::now() + gateway.patience.answer_wait_max(buying.tokens_max());
        Self { gateway, buying, candidate, client, text, stop: None, deadline }
    }

    async fn run(mut self, mut lines: Lines) -> Turn {
        loop {
            let running = self.stop.is_none();
            let next_due = Instant::now() + self.gateway.patience.frame_wait_max;
            let event = tokio::select! {
                biased;
                () = self.client.news.closed(), if running => Event::Stop(Stop::Left),
                () = self.gateway.stopping.cancelled(), if running => Event::Stop(Stop::Closing),
                frame = timeout_at(next_due.min(self.deadline), lines.next()) => {
                    frame.map_or(Event::Late, Event::Frame)
                }
            };
            match event {
                Event::Stop(stop) => self.cancel(stop).await,
                Event::Frame(Ok(Frame::Tokens(tokens))) => {
                    if let Err(lie) = self.pass_on(&tokens) {
                        return self.lied(&lie);
                    }
                    if self.text.is_cut() && self.stop.is_none() {
                        self.cancel(Stop::Cut).await;
                    }
                }
                Event::Frame(Ok(Frame::Sealed(sealed))) => return self.conclude(*sealed).await,
                Event::Frame(Ok(Frame::Due(_))) => {
                    return self.failed(Problem::upstream(
                        "the provider asks for money that was not agreed on",
                    ));
                }
                Event::Frame(Ok(Frame::Failed(refusal))) => {
                    return self.failed(refusal.into());
                }
                Event::Frame(Err(error)) => {
                    let message = format!("the provider broke off: {error}");
                    return self.failed(Problem::upstream(message));
                }
                Event::Late if Instant::now() >= self.deadline => {
                    return self.failed(Problem::timeout("the provider's receipt is overdue"));
                }
                Event::Late => {
                    return self.failed(Problem::timeout("the provider fell silent"));
                }
            }
        }
    }

    /// Shows what can be shown of the next tokens.
    fn pass_on(&mut self, tokens: &[u32]) -> Result<(), NotTokens> {
        let shown = self.text.take(tokens)?;
        self.show(shown);
        Ok(())
    }

    fn show(&self, text: String) {
        if !text.is_empty() {
            self.client.tell(News::Text(text));
        }
    }

    /// Asks the provider to stop. Its receipt comes on the order's own stream.
    async fn cancel(&mut self, stop: Stop) {
        tracing::debug!(order = %self.buying.hash, ?stop, "cancelling");
        self.stop = Some(stop);
        let patience = &self.gateway.patience;
        self.deadline = self.deadline.min(Instant::now() + patience.seal_wait_max);
        let url = format!("{}/v1/orders/{}", self.candidate.url, self.buying.hash);
        let request = self
            .gateway
            .http
            .delete(url)
            .bearer_auth(self.buying.signature)
            .timeout(patience.seal_wait_max / 2);
        // A provider that does not hear it delivers more than is wanted, and no harm is done.
        if let Err(error) = request.send().await {
            tracing::warn!(order = %self.buying.hash, %error, "the order could not be cancelled");
        }
    }

    /// Another provider may have a try only if the client has seen and asked for nothing.
    fn failed(&self, problem: Problem) -> Turn {
        if self.stop.is_none() && self.text.output().is_empty() {
            return Turn::Next(problem);
        }
        self.gateway.directory.put_aside(self.candidate.place, &problem.message);
        Turn::Failed(problem)
    }

    fn lied(&self, reason: &dyn std::error::Error) -> Turn {
        let said = format!("order {}: {reason}", self.buying.hash);
        self.gateway.directory.strike(self.candidate.place, said);
        Turn::Failed(Problem::receipt(reason))
    }

    /// Checks and keeps the receipt, and tells the client how it ended.
    async fn conclude(&mut self, sealed: Sealed) -> Turn {
        let Buying { model, draft, order, signature, .. } = self.buying;
        let ordered = Ordered {
            chain: self.gateway.chain,
            order,
            signature: *signature,
            terms: &draft.terms,
            request: &draft.request,
            ending: &draft.ending,
            offer: &self.candidate.offer,
        };
        let closed = close(ordered, &model.listed.tokenizer, self.text.output(), sealed);
        let answer = match closed {
            Ok(answer) => answer,
            Err(error) => return self.lied(&error),
        };
        if let Err(error) = self.gateway.store.keep(self.buying.hash, &answer).await {
            tracing::error!(order = %self.buying.hash, %error, "an answer was not kept");
            // Who is given a receipt is promised that it can be fetched again.
            return Turn::Failed(Problem::storage(error));
        }
        let ended = answer.receipt.finish;
        tracing::info!(
            model = model.listed.name,
            prompt = order.prompt_tokens,
            output = answer.receipt.output_tokens,
            finish = %ended,
            ms = self.client.since.elapsed().as_millis(),
            provider = %answer.receipt.provider,
            order = %self.buying.hash,
            "answered"
        );
        let rest = self.text.finish(ended);
        self.show(rest);
        let finish = match (self.stop, ended) {
            (Some(Stop::Left), _) => return Turn::Over,
            _ if self.text.is_cut() => Finish::Stop,
            (_, Ended::Eos | Ended::Stop) => Finish::Stop,
            (_, Ended::Length) => Finish::Length,
            (Some(Stop::Closing), Ended::Cancelled) => return Turn::Failed(Problem::closing()),
            (_, Ended::Cancelled) => {
                return self.failed(Problem::upstream("the provider ended the answer early"));
            }
        };
        self.gateway.directory.answered(self.candidate.place);
        let usage = Usage::new(order.prompt_tokens, answer.receipt.output_tokens);
        let answer = Answer { states: Vec::new(), ..answer };
        self.client.tell(News::Done(Box::new(Bought { answer, finish, usage })));
        Turn::Over
    }
}
