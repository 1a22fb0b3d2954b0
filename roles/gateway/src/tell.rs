//! Tells a client its answers: all at once, or as server-sent events while they come.
//!
//! Several answers to one request are bought side by side, each with its own order and receipt. A stream
//! has their pieces in the order in which they come. If one of them fails, the client is told so, and the
//! others are cancelled.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use assay_protocol::{Amount, OrderHash};
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, BoxStream, SelectAll, StreamExt};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use crate::begin::{Choices, Prepared, random, start};
use crate::buy::{Bought, News};
use crate::catalogue::Model;
use crate::http::{Gateway, json, now_s};
use crate::openai::{
    ChatReply, CompletionReply, Finish, Form, Head, Problem, Prompt, Question, Reply, Told, Usage,
};
use crate::x402::Cost;

/// How often a stream with nothing to say shows that it lives.
const PING_EVERY: Duration = Duration::from_secs(10);

/// Begins to buy the answers that were prepared, and tells them.
pub(crate) async fn tell(gateway: &Arc<Gateway>, prepared: Prepared) -> Result<Response, Problem> {
    let Prepared { question, model, choices, permit } = prepared;
    let reply = reply(&question, &model, &choices)?;
    let news = match choices {
        Choices::Counted(prompts) => return Ok(counted(reply, question.stream, &prompts)),
        Choices::Bought(orders) => {
            let permit = Arc::new(permit);
            let begun = orders.into_iter().map(|order| start(gateway, order, Arc::clone(&permit)));
            side_by_side(begun.collect::<Result<_, _>>()?)
        }
    };
    let mut telling = Telling::new(reply, news, question.choices());
    telling.accepted().await?;
    if question.stream { Ok(telling.stream()) } else { telling.whole().await }
}

/// How the answers to a question are told.
fn reply(
    question: &Question,
    model: &Model,
    choices: &Choices,
) -> Result<Box<dyn Reply + Sync>, Problem> {
    let first = match choices {
        Choices::Bought(orders) => orders.first().map(|order| order.hash),
        Choices::Counted(_) => None,
    };
    // What has no order has no receipt, and needs a name all the same.
    let order = first.map_or_else(|| random().map(OrderHash), Ok)?;
    let listed = &model.listed;
    let head = |prefix| {
        let model = (listed.id, listed.name.clone());
        Head::new(prefix, order, model, now_s(), question.include_usage)
    };
    Ok(match question.form {
        Form::Chat => Box::new(ChatReply::new(head("chatcmpl-"), question.choices())),
        Form::Completion { echo } => {
            let echo = |prompt: &Prompt| match prompt {
                Prompt::Text(text) if echo => text.clone(),
                Prompt::Tokens(tokens) if echo => listed.tokenizer.decode(tokens),
                _ => String::new(),
            };
            let prompts = question.prompts.iter();
            let echoes = prompts.flat_map(|prompt| vec![echo(prompt); question.n as usize]);
            Box::new(CompletionReply::new(head("cmpl-"), echoes.collect()))
        }
    })
}

/// Tells what is known of answers of no tokens.
fn counted(mut reply: Box<dyn Reply + Sync>, stream: bool, prompts: &[u32]) -> Response {
    let told = |prompt: &u32| Told {
        text: String::new(),
        finish: Finish::Length,
        usage: Usage::new(*prompt, 0),
        answer: None,
    };
    let told: Vec<Told> = prompts.iter().map(told).collect();
    let mut response = if stream {
        let mut events = reply.opened();
        told.iter().enumerate().for_each(|(choice, told)| events += &reply.ended(choice, told));
        events += &reply.closed(&told);
        event_stream(Body::from(events))
    } else {
        json(reply.whole(&told))
    };
    response.extensions_mut().insert(Cost::known(Amount(0)));
    response
}

/// News of one choice, or none where its purchase ended without a word.
type Heard = (usize, Option<News>);

/// The news of all choices as they come.
fn side_by_side(news: Vec<mpsc::Receiver<News>>) -> SelectAll<BoxStream<'static, Heard>> {
    let each = news.into_iter().enumerate().map(|(choice, news)| {
        let end = stream::once(async { None });
        ReceiverStream::new(news).map(Some).chain(end).map(move |news| (choice, news)).boxed()
    });
    stream::select_all(each)
}

/// A reply on its way. Dropping it cancels what is not complete.
struct Telling {
    reply: Box<dyn Reply + Sync>,
    news: SelectAll<BoxStream<'static, Heard>>,
    texts: Vec<String>,
    /// Choices that are complete.
    told: Vec<Option<Told>>,
    cost: Cost,
}

/// What is next in a reply.
enum Next {
    Accepted,
    Piece(usize, String),
    Ended(usize),
}

impl Telling {
    fn new(
        reply: Box<dyn Reply + Sync>,
        news: SelectAll<BoxStream<'static, Heard>>,
        choices: usize,
    ) -> Self {
        let texts = vec![String::new(); choices];
        Self { reply, news, texts, told: vec![None; choices], cost: Cost::default() }
    }

    /// Waits until a provider has taken the first order.
    async fn accepted(&mut self) -> Result<(), Problem> {
        match self.next().await? {
            Next::Accepted => Ok(()),
            _ => Err(Problem::internal("an answer came before its order was taken")),
        }
    }

    async fn next(&mut self) -> Result<Next, Problem> {
        let (choice, news) = self.news.next().await.ok_or_else(silent)?;
        match news {
            Some(News::Accepted) => Ok(Next::Accepted),
            Some(News::Text(text)) => {
                self.texts[choice] += &text;
                Ok(Next::Piece(choice, text))
            }
            Some(News::Done(bought)) => {
                let Bought { answer, finish, usage } = *bought;
                let text = std::mem::take(&mut self.texts[choice]);
                self.told[choice] =
                    Some(Told { text, finish, usage, answer: Some(Box::new(answer)) });
                Ok(Next::Ended(choice))
            }
            Some(News::Failed(problem)) => Err(self.blamed(choice, problem)),
            // Each complete choice ends so, too.
            None if self.told[choice].is_some() => Box::pin(self.next()).await,
            None => Err(silent()),
        }
    }

    /// A problem of one choice, which is named where there are several.
    fn blamed(&self, choice: usize, problem: Problem) -> Problem {
        if self.told.len() == 1 {
            return problem;
        }
        let message = format!("choice {choice} failed: {}", problem.message);
        Problem { message, ..problem }
    }

    /// All choices, once they are complete.
    fn complete(&mut self) -> Option<Vec<Told>> {
        if self.told.iter().any(Option::is_none) {
            return None;
        }
        let told: Vec<Told> = std::mem::take(&mut self.told).into_iter().flatten().collect();
        let prices = told.iter().filter_map(|told| Some(told.answer.as_ref()?.receipt.price.0));
        self.cost.is(Amount(prices.fold(0, u128::saturating_add)));
        Some(told)
    }

    /// All answers in one piece, once they are complete.
    async fn whole(mut self) -> Result<Response, Problem> {
        loop {
            if let Next::Ended(_) = self.next().await?
                && let Some(told) = self.complete()
            {
                let mut response = json(self.reply.whole(&told));
                response.extensions_mut().insert(self.cost);
                return Ok(response);
            }
        }
    }

    /// The answers as server-sent events, as they come.
    fn stream(mut self) -> Response {
        let first = self.reply.opened();
        let cost = self.cost.clone();
        let rest = stream::unfold(Some(self), async |telling| {
            let mut telling = telling?;
            let Ok(next) = timeout(PING_EVERY, telling.next()).await else {
                return Some((": ping\n\n".to_owned(), Some(telling)));
            };
            match next {
                Ok(Next::Accepted) => Some((String::new(), Some(telling))),
                Ok(Next::Piece(choice, text)) => {
                    Some((telling.reply.piece(choice, &text), Some(telling)))
                }
                Ok(Next::Ended(choice)) => {
                    let told = telling.told[choice].as_ref();
                    let end = told.map(|told| telling.reply.ended(choice, told));
                    let end = end.unwrap_or_default();
                    match telling.complete() {
                        Some(told) => Some((end + &telling.reply.closed(&told), None)),
                        None => Some((end, Some(telling))),
                    }
                }
                Err(problem) => Some((telling.reply.broken(&problem), None)),
            }
        });
        let events = stream::once(async { first }).chain(rest).map(Ok::<_, Infallible>);
        let mut response = event_stream(Body::from_stream(events));
        response.extensions_mut().insert(cost);
        response
    }
}

fn silent() -> Problem {
    Problem::internal("the purchase ended without a word")
}

/// A response of server-sent events.
pub(crate) fn event_stream(body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}
