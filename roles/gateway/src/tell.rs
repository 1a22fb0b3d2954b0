//! Tells a client its answers: all at once, or as server-sent events while they come.
//!
//! Several answers to one request are bought side by side, each with its own order and receipt. A stream
//! has their pieces in the order in which they come. If one of them fails, the client is told so, and the
//! others are cancelled.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use assay_protocol::{Amount, Answer, Ending, Finish as Ended, OrderHash};
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, BoxStream, SelectAll, StreamExt};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use crate::begin::{Choices, Prepared, random, start};
use crate::buy::{Bought, Buying, News};
use crate::catalogue::Model;
use crate::http::{Gateway, json, now_s};
use crate::note::Note;
use crate::openai::{
    ChatReply, CompletionReply, Finish, Form, Head, Problem, Prompt, Question, Reply,
    ResponseReply, Told, Usage, failure,
};
use crate::rated::Piece;
use crate::stored::Keeping;
use crate::text::retold;
use crate::x402::Cost;

/// How often a stream with nothing to say shows that it lives.
const PING_EVERY: Duration = Duration::from_secs(10);

/// A reply in the words of some API.
type Words = Box<dyn Reply + Sync>;

/// Begins to buy the answers that were prepared, and tells them.
pub(crate) async fn tell(gateway: &Arc<Gateway>, prepared: Prepared) -> Result<Response, Problem> {
    let Prepared { question, model, choices, owner, permit } = prepared;
    let head = head(&question, &model, choices.first())?;
    let keeping = Keeping::new(&question, &head.id, owner);
    let unattended = unattended(&question, &head, keeping.as_ref())?;
    let reply = reply(&question, &model, head);
    let name = model.listed.name.clone();
    let news = match choices {
        Choices::Counted(prompts) => {
            let mut said = counted(gateway, reply, question.stream, keeping, &prompts).await;
            let note = Note::default();
            note.is(&name, (prompts.iter().sum(), 0));
            said.extensions_mut().insert(note);
            return Ok(said);
        }
        Choices::Bought(orders) => begun(gateway, orders, permit)?,
    };
    let gateway = Arc::clone(gateway);
    let mut telling = Telling::new(gateway, (reply, name), news, question.choices(), keeping);
    match unattended {
        Some(begun) => begun.leave(telling).await,
        None => {
            telling.accepted().await?;
            if question.stream { Ok(telling.stream()) } else { telling.whole().await }
        }
    }
}

/// Begins to buy answers side by side; gives what is heard of them.
fn begun(
    gateway: &Arc<Gateway>,
    orders: Vec<Buying>,
    permit: OwnedSemaphorePermit,
) -> Result<SelectAll<BoxStream<'static, Heard>>, Problem> {
    let permit = Arc::new(permit);
    let begun = orders.into_iter().map(|order| start(gateway, order, Arc::clone(&permit)));
    Ok(side_by_side(begun.collect::<Result<_, _>>()?))
}

/// Buys the answers that were prepared, and gives the whole reply.
pub(crate) async fn whole(gateway: &Arc<Gateway>, prepared: Prepared) -> Result<Value, Problem> {
    let Prepared { question, model, choices, owner, permit } = prepared;
    let head = head(&question, &model, choices.first())?;
    let keeping = Keeping::new(&question, &head.id, owner);
    let mut reply = reply(&question, &model, head);
    let said = match choices {
        Choices::Counted(prompts) => {
            let told = of_none(&prompts);
            keep(gateway, keeping.as_ref(), reply.as_mut(), &told).await;
            reply.whole(&told)
        }
        Choices::Bought(orders) => {
            let news = begun(gateway, orders, permit)?;
            let shop = Arc::clone(gateway);
            let reply = (reply, model.listed.name.clone());
            let mut telling = Telling::new(shop, reply, news, question.choices(), keeping);
            let told = telling.finish().await?;
            telling.reply.whole(&told)
        }
    };
    serde_json::from_str(&said).map_err(|error| Problem::internal(error.to_string()))
}

/// The whole reply of answers that were bought before; none if one of them was given up.
pub(crate) fn retell(
    question: &Question,
    model: &Model,
    answers: Vec<Answer>,
) -> Result<Option<Value>, Problem> {
    let listed = &model.listed;
    let mut told = Vec::with_capacity(answers.len());
    let first = answers.first().map(|answer| answer.receipt.order);
    for answer in answers {
        let ended = answer.receipt.finish;
        let ending = Ending {
            eos: listed.eos.clone(),
            stops: answer.terms.stops.clone(),
            tokens_max: answer.order.max_tokens,
        };
        let (tokenizer, stops) = (Arc::clone(&listed.tokenizer), question.sampling.stop.clone());
        let (text, cut) = retold(tokenizer, ending, stops, &answer.output, ended);
        let finish = match ended {
            _ if cut => Finish::Stop,
            Ended::Eos | Ended::Stop => Finish::Stop,
            Ended::Length => Finish::Length,
            Ended::Cancelled => return Ok(None),
        };
        let usage = Usage::new(answer.order.prompt_tokens, answer.receipt.output_tokens);
        let answer = Some(Box::new(Answer { states: Vec::new(), ..answer }));
        told.push(Told { text, rated: None, finish, usage, answer });
    }
    let said = reply(question, model, head(question, model, first)?).whole(&told);
    serde_json::from_str(&said).map_err(|error| Problem::internal(error.to_string()))
}

/// What all parts of the reply to a question repeat.
fn head(question: &Question, model: &Model, first: Option<OrderHash>) -> Result<Head, Problem> {
    // What has no order has no receipt, and needs a name all the same.
    let order = first.map_or_else(|| random().map(OrderHash), Ok)?;
    let listed = &model.listed;
    let prefix = match question.form {
        Form::Chat => "chatcmpl-",
        Form::Completion { .. } => "cmpl-",
        Form::Response(_) => "resp_",
    };
    let model = (listed.id, listed.name.clone());
    Ok(Head::new(prefix, order, model, now_s(), question.include_usage))
}

/// How the answers to a question are told.
fn reply(question: &Question, model: &Model, head: Head) -> Words {
    let rules = question.rules(model.calls);
    match &question.form {
        Form::Chat => Box::new(ChatReply::new(head, question.choices(), rules)),
        Form::Response(wish) => {
            Box::new(ResponseReply::new(head, (**wish).clone(), question, rules))
        }
        &Form::Completion { echo } => {
            let echo = |prompt: &Prompt| match prompt {
                Prompt::Text(text) if echo => text.clone(),
                Prompt::Tokens(tokens) if echo => model.listed.tokenizer.decode(tokens),
                _ => String::new(),
            };
            let prompts = question.prompts.iter();
            let echoes = prompts.flat_map(|prompt| vec![echo(prompt); question.n as usize]);
            Box::new(CompletionReply::new(head, echoes.collect()))
        }
    }
}

/// A response that nobody waits for, if that is what is asked.
fn unattended(
    question: &Question,
    head: &Head,
    keeping: Option<&Keeping>,
) -> Result<Option<Begun>, Problem> {
    let Form::Response(wish) = &question.form else { return Ok(None) };
    if !wish.background || question.stream || question.sampling.max_tokens == Some(0) {
        return Ok(None);
    }
    let Some(keeping) = keeping.cloned() else {
        let message = "a response in the background can be fetched with an API key only";
        return Err(Problem::unsupported("background", message));
    };
    let reply = ResponseReply::new(head.clone(), (**wish).clone(), question, None);
    Ok(Some(Begun { id: head.id.clone(), reply: reply.begun("in_progress"), keeping }))
}

/// A response that is made while nobody waits.
struct Begun {
    id: String,
    /// The response while nothing of it is there.
    reply: Value,
    keeping: Keeping,
}

impl Begun {
    /// Leaves the answer to be told to the shelf, and says what there is now.
    async fn leave(self, mut telling: Telling) -> Result<Response, Problem> {
        let Self { id, reply, keeping } = self;
        let gateway = Arc::clone(&telling.gateway);
        let running = gateway.begin()?;
        let stop = gateway.unattended.begin(&id);
        keeping.keep(&gateway, reply.clone()).await;
        let mut response = json(reply.to_string());
        // What it costs is known later; whoever pays by the answer cannot ask for one so.
        response.extensions_mut().insert(Cost::default());
        let shop = Arc::clone(&gateway);
        gateway.purchases.spawn(async move {
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => None,
                ended = telling.finish() => Some(ended),
            };
            // Who cancels it, or takes it away, has said on the shelf what becomes of it.
            if let Some(Err(problem)) = ended {
                let mut reply = reply;
                reply["status"] = "failed".into();
                reply["error"] = failure(&problem);
                keeping.keep(&shop, reply).await;
            }
            shop.unattended.over(&id);
            drop(running);
        });
        Ok(response)
    }
}

/// Tells what is known of answers of no tokens.
async fn counted(
    gateway: &Gateway,
    mut reply: Words,
    stream: bool,
    keeping: Option<Keeping>,
    prompts: &[u32],
) -> Response {
    let told = of_none(prompts);
    keep(gateway, keeping.as_ref(), reply.as_mut(), &told).await;
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

/// Answers of no tokens to prompts of so many.
fn of_none(prompts: &[u32]) -> Vec<Told> {
    let told = |prompt: &u32| Told {
        text: String::new(),
        rated: None,
        finish: Finish::Length,
        usage: Usage::new(*prompt, 0),
        answer: None,
    };
    prompts.iter().map(told).collect()
}

/// Keeps a complete reply, if it is to be kept.
async fn keep(
    gateway: &Gateway,
    keeping: Option<&Keeping>,
    reply: &mut (dyn Reply + Sync),
    told: &[Told],
) {
    let Some(keeping) = keeping else { return };
    match serde_json::from_str(&reply.whole(told)) {
        Ok(whole) => keeping.keep(gateway, whole).await,
        Err(error) => tracing::error!(%error, "a reply is no JSON"),
    }
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
    gateway: Arc<Gateway>,
    reply: Words,
    /// How the reply is kept, if it is.
    keeping: Option<Keeping>,
    /// Which model answers.
    model: String,
    news: SelectAll<BoxStream<'static, Heard>>,
    /// What was told of each choice so far.
    texts: Vec<Piece>,
    /// Choices that are complete.
    told: Vec<Option<Told>>,
    cost: Cost,
    note: Note,
}

/// What is next in a reply.
enum Next {
    Accepted,
    Piece(usize, Piece),
    Ended(usize),
}

impl Telling {
    fn new(
        gateway: Arc<Gateway>,
        (reply, model): (Words, String),
        news: SelectAll<BoxStream<'static, Heard>>,
        choices: usize,
        keeping: Option<Keeping>,
    ) -> Self {
        let (cost, note) = (Cost::default(), Note::default());
        let texts = vec![Piece::default(); choices];
        let told = vec![None; choices];
        Self { gateway, reply, keeping, model, news, texts, told, cost, note }
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
            Some(News::Text(piece)) => {
                let whole = &mut self.texts[choice];
                whole.text += &piece.text;
                if let Some(rated) = &piece.rated {
                    whole.rated.get_or_insert_default().extend(rated.iter().cloned());
                }
                Ok(Next::Piece(choice, piece))
            }
            Some(News::Done(bought)) => {
                let Bought { answer, finish, usage } = *bought;
                let Piece { text, rated } = std::mem::take(&mut self.texts[choice]);
                let answer = Some(Box::new(answer));
                self.told[choice] = Some(Told { text, rated, finish, usage, answer });
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

    /// All choices, once they are complete; their reply is kept then.
    async fn complete(&mut self) -> Option<Vec<Told>> {
        if self.told.iter().any(Option::is_none) {
            return None;
        }
        let told: Vec<Told> = std::mem::take(&mut self.told).into_iter().flatten().collect();
        let prices = told.iter().filter_map(|told| Some(told.answer.as_ref()?.receipt.price.0));
        self.cost.is(Amount(prices.fold(0, u128::saturating_add)));
        let usage = Usage::sum(told.iter().map(|told| told.usage));
        self.note.is(&self.model, usage.tokens());
        keep(&self.gateway, self.keeping.as_ref(), self.reply.as_mut(), &told).await;
        Some(told)
    }

    /// All answers, once they are complete.
    async fn finish(&mut self) -> Result<Vec<Told>, Problem> {
        loop {
            if let Next::Ended(_) = self.next().await?
                && let Some(told) = self.complete().await
            {
                return Ok(told);
            }
        }
    }

    /// All answers in one piece, once they are complete.
    async fn whole(mut self) -> Result<Response, Problem> {
        let told = self.finish().await?;
        let mut response = json(self.reply.whole(&told));
        response.extensions_mut().insert(self.cost);
        response.extensions_mut().insert(self.note);
        Ok(response)
    }

    /// The answers as server-sent events, as they come.
    fn stream(mut self) -> Response {
        let first = self.reply.opened();
        let (cost, note) = (self.cost.clone(), self.note.clone());
        let rest = stream::unfold(Some(self), async |telling| {
            let mut telling = telling?;
            let Ok(next) = timeout(PING_EVERY, telling.next()).await else {
                return Some((": ping\n\n".to_owned(), Some(telling)));
            };
            match next {
                Ok(Next::Accepted) => Some((String::new(), Some(telling))),
                Ok(Next::Piece(choice, piece)) => {
                    Some((telling.reply.piece(choice, &piece), Some(telling)))
                }
                Ok(Next::Ended(choice)) => {
                    let told = telling.told[choice].as_ref();
                    let end = told.map(|told| telling.reply.ended(choice, told));
                    let end = end.unwrap_or_default();
                    match telling.complete().await {
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
        response.extensions_mut().insert(note);
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
