//! Passes an answer on as it comes, pays for it step by step, and closes with a checked receipt.
//!
//! A client that leaves cancels the order, and the receipt for what was delivered is still read and
//! kept.
//!
//! An order that its client signed may have been answered before, by a gateway that ended or could not
//! keep the answer. Its provider then shows the same answer again, charged where its channel was: that
//! is kept as the answer, and moves nothing.

use std::sync::Arc;
use std::time::Duration;

use assay_protocol::wire::{Frame, Sealed};
use assay_protocol::{Amount, Answer, Finish as Ended, Receipt};
use axum::body::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::buy::{Bought, Buying, Client, News, TopUps, Turn, end_session, leave};
use crate::close::{CloseError, Lie, Ordered, check_vector, close};
use crate::figures::Answered;
use crate::http::{Gateway, now_s};
use crate::lines::{Lines, LinesError};
use crate::openai::{Finish, Problem, Usage};
use crate::pay::{DueError, Lease};
use crate::rated::Rates;
use crate::route::Candidate;
use crate::signed;
use crate::store::{Row, StoreError};
use crate::text::{NotTokens, Text};

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
#[derive(Debug)]
pub(crate) struct Delivery<'a> {
    gateway: &'a Gateway,
    buying: &'a Buying,
    candidate: &'a Candidate,
    client: &'a Client,
    /// What it is paid with, if it is.
    lease: Option<Lease>,
    top_ups: TopUps,
    text: Text,
    /// Tokens of the prompt that the provider says it did not have to compute.
    cached: u32,
    rates: Rates,
    /// The vector, where one was ordered.
    vector: Option<Vec<i32>>,
    stop: Option<Stop>,
    /// When the provider accepted it.
    begun: Instant,
    /// From the request to its first text.
    first: Option<Duration>,
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
    pub(crate) fn new(
        gateway: &'a Gateway,
        buying: &'a Buying,
        candidate: &'a Candidate,
        client: &'a Client,
        lease: Option<Lease>,
        top_ups: TopUps,
    ) -> Self {
        let tokenizer = Arc::clone(&buying.model.listed.tokenizer);
        let rates = Rates::new(buying.draft.logprobs, Arc::clone(&tokenizer));
        let text = Text::new(tokenizer, buying.draft.ending.clone(), buying.draft.stops.clone());
        let begun = Instant::now();
        let deadline = begun + gateway.patience.answer_wait_max(buying.tokens_max());
        Self {
            gateway,
            buying,
            candidate,
            client,
            lease,
            top_ups,
            text,
            cached: 0,
            rates,
            vector: None,
            stop: None,
            begun,
            first: None,
            deadline,
        }
    }

    pub(crate) async fn run(mut self, lines: Lines) -> Turn {
        let turn = self.follow(lines).await;
        let sent = self.text.output();
        leave(self.gateway, self.buying, self.candidate, self.lease.as_mut(), sent);
        turn
    }

    async fn follow(&mut self, mut lines: Lines) -> Turn {
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
                Event::Frame(Ok(frame @ (Frame::Tokens(_) | Frame::Logprobs(_)))) => {
                    if let Err(lie) = self.pass_on(&frame) {
                        return self.lied(&lie, None).await;
                    }
                    if self.text.is_cut() && self.stop.is_none() {
                        self.cancel(Stop::Cut).await;
                    }
                }
                Event::Frame(Ok(Frame::Cached(tokens))) => self.cached = tokens,
                Event::Frame(Ok(Frame::Vector(vector))) => {
                    if let Err(lie) = self.take_vector(vector) {
                        return self.lied(&lie, None).await;
                    }
                }
                Event::Frame(Ok(Frame::Sealed(sealed))) => return self.conclude(*sealed).await,
                // An order that is cancelled ends with what is paid.
                Event::Frame(Ok(Frame::Due(_))) if self.stop.is_some() => {}
                Event::Frame(Ok(Frame::Due(amount))) => {
                    if let Some(turn) = self.pay(amount).await {
                        return turn;
                    }
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

    /// Sends the voucher for an answer that waits for one. The purchase ends where none is due.
    async fn pay(&mut self, amount: Amount) -> Option<Turn> {
        let bill = self.buying.bill(self.candidate);
        let delivered = u32::try_from(self.text.output().len()).unwrap_or(u32::MAX);
        let Some(lease) = &mut self.lease else {
            let message = "the provider asks for money that was not agreed on";
            return Some(self.failed(Problem::upstream(message)));
        };
        let top_up = match lease.top_up(bill, delivered, amount) {
            Ok(top_up) => top_up,
            Err(error @ DueError::Ahead { .. }) => {
                return Some(self.failed(Problem::upstream(format!("the provider: {error}"))));
            }
            Err(lie) => return Some(self.lied(&lie, None).await),
        };
        tracing::debug!(order = %self.buying.hash, claimable = %top_up.claimable, "voucher raised");
        let sent = serde_json::to_vec(&top_up).map(|mut line| {
            line.push(b'\n');
            let top_ups = self.top_ups.as_ref();
            top_ups.is_some_and(|top_ups| top_ups.try_send(Bytes::from(line)).is_ok())
        });
        match sent {
            Ok(true) => None,
            Ok(false) => {
                Some(self.failed(Problem::upstream("the provider takes no more vouchers")))
            }
            Err(error) => Some(Turn::Failed(Problem::internal(error.to_string()))),
        }
    }

    /// Shows what can be shown of the next tokens.
    fn pass_on(&mut self, frame: &Frame) -> Result<(), NotTokens> {
        let shown = match frame {
            Frame::Logprobs(_) if !self.rates.are_asked() => return Err(NotTokens::Unasked),
            Frame::Logprobs(said) => {
                let tokens: Vec<u32> = said.iter().map(|said| said.token).collect();
                let shown = self.text.take(&tokens)?;
                self.rates.take(said)?;
                shown
            }
            // What was sealed before comes without, and what is cancelled is not shown.
            Frame::Tokens(_) if self.rates.are_asked() && !self.may_be_unrated() => {
                return Err(NotTokens::Unrated);
            }
            Frame::Tokens(tokens) => self.text.take(tokens)?,
            _ => return Ok(()),
        };
        self.show(shown);
        Ok(())
    }

    fn take_vector(&mut self, vector: Vec<i32>) -> Result<(), NotTokens> {
        let width = self.buying.model.listed.vector_width.map(|width| width as usize);
        if width != Some(vector.len()) || self.vector.is_some() {
            return Err(NotTokens::Vector { found: vector.len(), expected: width.unwrap_or(0) });
        }
        self.vector = Some(vector);
        Ok(())
    }

    fn may_be_unrated(&self) -> bool {
        self.stop.is_some() || self.buying.spending.is_clients_own()
    }

    fn show(&mut self, text: String) {
        let piece = self.rates.piece(text, self.text.settled());
        if !piece.is_empty() {
            self.first.get_or_insert_with(|| self.client.since.elapsed());
            self.client.tell(News::Text(piece));
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

    async fn lied(&self, reason: &(dyn std::error::Error + Sync), lie: Option<Row>) -> Turn {
        let said = format!("order {}: {reason}", self.buying.hash);
        end_session(self.gateway, self.candidate, said, lie).await;
        Turn::Failed(Problem::receipt(reason))
    }

    /// What shows that the receipt in `sealed` is not so.
    fn lie(&self, error: &CloseError, sealed: &Sealed) -> Option<Row> {
        let lie = Lie {
            reason: error.to_string(),
            time: now_s(),
            chain_id: self.gateway.chain,
            url: &self.candidate.url,
            offer: &self.candidate.offer,
            order: &self.buying.order,
            order_signature: self.buying.signature,
            terms: &self.buying.draft.terms,
            request: &self.buying.draft.request,
            sent: self.text.output(),
            vector: self.vector.as_deref(),
            sealed,
        };
        Row::lie(self.buying.hash, &lie).ok()
    }

    /// Checks and keeps the receipt, and tells the client how it ended.
    async fn conclude(&mut self, sealed: Sealed) -> Turn {
        let Buying { model, draft, order, signature, .. } = self.buying;
        let paid_before = self.was_paid_before(&sealed.receipt);
        let ordered = Ordered {
            chain: self.gateway.chain,
            order,
            signature: *signature,
            terms: &draft.terms,
            request: &draft.request,
            ending: &draft.ending,
            offer: &self.candidate.offer,
            line: self.lease.as_ref().map(Lease::line),
            paid_before,
        };
        let closed = close(ordered, &model.listed.tokenizer, self.text.output(), &sealed);
        let closed = closed.and_then(|text| match model.listed.vector_width {
            Some(_) => check_vector(&sealed, self.vector.as_deref()).map(|()| text),
            None => Ok(text),
        });
        let answer = match closed {
            Ok(text) => Answer { vector: self.vector.take(), ..ordered.answer(text, sealed) },
            Err(error) => return self.lied(&error, self.lie(&error, &sealed)).await,
        };
        if let Err(error) = self.keep(&answer, paid_before).await {
            tracing::error!(order = %self.buying.hash, %error, "an answer was not kept");
            // Who is given a receipt is promised that it can be fetched again.
            return Turn::Failed(Problem::storage(error));
        }
        let ended = answer.receipt.finish;
        tracing::debug!(
            model = model.listed.name,
            prompt = order.prompt_tokens,
            output = answer.receipt.output_tokens,
            finish = %ended,
            ms = self.client.since.elapsed().as_millis(),
            provider = %answer.receipt.provider,
            order = %self.buying.hash,
            paid_before,
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
            (_, Ended::Cancelled) if paid_before => {
                let tokens = answer.receipt.output_tokens;
                return Turn::Failed(signed::cancelled(self.buying.hash, tokens));
            }
            (_, Ended::Cancelled) => {
                return self.failed(Problem::upstream("the provider ended the answer early"));
            }
        };
        if !paid_before {
            let took = self.begun.elapsed();
            let tokens = answer.receipt.output_tokens;
            self.gateway.directory.answered(self.candidate.place, took, tokens);
        }
        self.gateway.figures.answered(&Answered {
            model: &model.listed.name,
            finish: match finish {
                Finish::Stop => "stop",
                Finish::Length => "length",
            },
            prompt_tokens: order.prompt_tokens,
            cached_tokens: self.cached,
            output_tokens: answer.receipt.output_tokens,
            first: self.first,
            whole: self.client.since.elapsed(),
        });
        let usage = Usage::new(order.prompt_tokens, answer.receipt.output_tokens);
        let usage = usage.with_cached(self.cached);
        let answer = Answer { states: Vec::new(), ..answer };
        self.client.tell(News::Done(Box::new(Bought { answer, finish, usage })));
        Turn::Over
    }

    /// Whether a receipt is for the same order, answered before.
    fn was_paid_before(&self, receipt: &Receipt) -> bool {
        let Some(lease) = &self.lease else { return false };
        let is_charged = || lease.has_charged(receipt.channel, receipt.channel_after);
        self.buying.spending.is_clients_own() && is_charged()
    }

    /// Keeps an answer together with what it moved.
    async fn keep(&mut self, answer: &Answer, paid_before: bool) -> Result<(), StoreError> {
        let price = answer.receipt.price;
        let booked = self.buying.spending.book(price);
        let is_booked = booked.is_some();
        let kept = async {
            let mut rows = booked.unwrap_or_default();
            match &mut self.lease {
                Some(lease) if paid_before => lease.refused(),
                Some(lease) => rows.push(lease.settle(answer.receipt.channel_after)?),
                None => {}
            }
            rows.push(Row::answer(self.buying.hash, answer)?);
            self.gateway.store.keep(rows).await
        };
        let kept = kept.await;
        if kept.is_err() && is_booked {
            // Nobody got it. Who hands its own order in again gets it then, and pays for it then.
            self.buying.spending.unbook(price);
        }
        kept
    }
}
