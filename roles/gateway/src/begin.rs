//! Makes orders of a request, and begins to buy them.

use std::sync::{Arc, Mutex, PoisonError};

use assay_protocol::{Amount, Answer, B256, OrderHash, U256};
use assay_text::Message;
use axum::extract::Request;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::body::Read;
use crate::buy::{Buying, News, buy, news_max, unrouted};
use crate::catalogue::Model;
use crate::draft::draft;
use crate::http::{Gateway, now_s};
use crate::jsonrpc;
use crate::keys::Caller;
use crate::openai::{Api, Form, Problem, Prompt, Question, Sampling};
use crate::prompt::tokens;
use crate::relay::{Passing, passing};
use crate::route::choose;
use crate::shelf::Owner;
use crate::stored;
use crate::tell::retell;

/// A request that was read and has leave to run.
pub(crate) enum Taken {
    /// It is bought on the network.
    Bought(Box<Prepared>),
    /// It is passed on to a server of the operator's own.
    Relayed(Box<Passing>),
}

impl Taken {
    /// The most that its answers may cost, in base units.
    pub(crate) fn price_max(&self) -> Amount {
        match self {
            Self::Bought(prepared) => prepared.price_max(),
            Self::Relayed(passing) => passing.price_max(),
        }
    }

    /// Puts it into a request's extensions, for whoever handles the request. It can be taken once.
    pub(crate) fn ride(self, request: &mut Request) {
        request.extensions_mut().insert(Rider(Arc::new(Mutex::new(Some(self)))));
    }

    /// Whether one rides in a request.
    pub(crate) fn rides(request: &Request) -> bool {
        request.extensions().get::<Rider>().is_some()
    }

    pub(crate) fn take(request: &mut Request) -> Option<Self> {
        let rider = request.extensions_mut().remove::<Rider>()?;
        rider.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What rides in a request's extensions, which want to be cloned.
#[derive(Clone)]
struct Rider(Arc<Mutex<Option<Taken>>>);

/// Takes a request by its body: for the network, or for the operator's own servers, which speak chat.
pub(crate) async fn taken(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    api: Api,
    read: Read,
) -> Result<Taken, Problem> {
    match gateway.relay.target(&read.bytes).filter(|_| api == Api::Chat) {
        Some(target) => Ok(Taken::Relayed(Box::new(passing(gateway, caller, target, read)?))),
        None => Ok(Taken::Bought(Box::new(prepared(gateway, caller, (api, false), read).await?))),
    }
}

/// A request of which orders were made, with leave to run them.
pub(crate) struct Prepared {
    pub(crate) question: Question,
    pub(crate) model: Arc<Model>,
    pub(crate) choices: Choices,
    /// To whom a stored reply belongs; none: it cannot be stored.
    pub(crate) owner: Option<Owner>,
    pub(crate) permit: OwnedSemaphorePermit,
}

/// The answers that a request wants, in their order.
pub(crate) enum Choices {
    /// One order each; at least one.
    Bought(Vec<Buying>),
    /// No token of an answer is wanted: each is known, and what is left to tell is how many tokens its
    /// prompt has.
    Counted(Vec<u32>),
}

impl Choices {
    /// The first order, which the reply is called by.
    pub(crate) fn first(&self) -> Option<OrderHash> {
        match self {
            Self::Bought(orders) => orders.first().map(|order| order.hash),
            Self::Counted(_) => None,
        }
    }
}

impl Prepared {
    /// The orders that are about to be bought.
    pub(crate) fn orders(&self) -> Vec<OrderHash> {
        match &self.choices {
            Choices::Bought(orders) => orders.iter().map(|order| order.hash).collect(),
            Choices::Counted(_) => Vec::new(),
        }
    }

    /// The most that its answers may cost, in base units.
    pub(crate) fn price_max(&self) -> Amount {
        match &self.choices {
            Choices::Bought(orders) => {
                Amount(orders.iter().fold(0, |sum, order| order.price_max().0.saturating_add(sum)))
            }
            Choices::Counted(_) => Amount(0),
        }
    }
}

/// Makes orders of a request's body; `flex`: others may go first, whatever it says of that.
async fn prepared(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    (api, flex): (Api, bool),
    read: Read,
) -> Result<Prepared, Problem> {
    let permit = gateway.admit()?;
    caller.count()?;
    let history = match api {
        Api::Responses => stored::history(gateway, caller, &read.bytes).await?,
        Api::Chat | Api::Completions => Vec::new(),
    };
    let (shop, caller) = (Arc::clone(gateway), caller.clone());
    // Rendering and counting a long prompt takes milliseconds, which other streams need not wait
    // for.
    let prepared = tokio::task::spawn_blocking(move || {
        // Its room is held until the body is an order, even if the client hangs up meanwhile.
        prepare(&shop, &caller, (api, &history, flex), &read.bytes, permit)
    })
    .await;
    prepared.map_err(|error| Problem::internal(error.to_string()))?
}

/// Everything about a request that waits for nobody.
fn prepare(
    gateway: &Gateway,
    caller: &Caller,
    (api, history, flex): (Api, &[Message], bool),
    body: &[u8],
    mut permit: OwnedSemaphorePermit,
) -> Result<Prepared, Problem> {
    let (mut question, model) = asked(gateway, api, history, body)?;
    question.sampling.flex |= flex;
    let owner = caller.owner(&gateway.keys);
    if question.sampling.max_tokens == Some(0) {
        let choices = Choices::Counted(counted(&model, &question)?);
        return Ok(Prepared { question, model, choices, owner, permit });
    }
    // Each answer takes a place among those that are worked on at once.
    for _ in 1..question.choices() {
        permit.merge(gateway.permit()?);
    }
    let mut orders = Vec::with_capacity(question.choices());
    let now = now_s();
    for prompt in &question.prompts {
        let draft = draft(&model, prompt, &question.sampling, random()?, now)?;
        for choice in 0..question.n {
            let draft = draft.clone().choice(choice);
            let nonce = U256::from_be_bytes(random()?.0);
            orders.push(Buying::sign(gateway, caller, Arc::clone(&model), draft, now, nonce)?);
        }
    }
    Ok(Prepared { question, model, choices: Choices::Bought(orders), owner, permit })
}

/// The tokens of each choice's prompt.
fn counted(model: &Model, question: &Question) -> Result<Vec<u32>, Problem> {
    let mut counts = Vec::with_capacity(question.choices());
    for prompt in &question.prompts {
        let count = u32::try_from(tokens(model, prompt, now_s())?.len()).unwrap_or(u32::MAX);
        counts.extend((0..question.n).map(|_| count));
    }
    Ok(counts)
}

/// Begins to buy one answer; `permit` is held until that is over. Dropping the news cancels it.
pub(crate) fn start(
    gateway: &Arc<Gateway>,
    buying: Buying,
    permit: Arc<OwnedSemaphorePermit>,
) -> Result<mpsc::Receiver<News>, Problem> {
    let (sender, news) = mpsc::channel(news_max(buying.tokens_max()));
    let purchase = buy(Arc::clone(gateway), buying, sender);
    let begun = gateway.begin()?;
    gateway.purchases.spawn(async move {
        purchase.await;
        drop(permit);
    });
    drop(begun);
    Ok(news)
}

/// Makes an order of a chat request for one answer, and begins to buy it. Dropping the news cancels it.
pub(crate) async fn begin(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    read: Read,
) -> Result<mpsc::Receiver<News>, Problem> {
    let Prepared { question, choices, permit, .. } =
        prepared(gateway, caller, (Api::Chat, false), read).await?;
    check_single(&question)?;
    match choices {
        Choices::Bought(orders) => {
            let order = orders.into_iter().next();
            let order = order.ok_or_else(|| Problem::internal("a request has no order"))?;
            start(gateway, order, Arc::new(permit))
        }
        Choices::Counted(_) => Err(Problem::internal("an answer has no order")),
    }
}

/// The request in a body, and the model of the network that it names. A model of the operator's own
/// servers alone has no receipts, and what is asked for here is never without.
fn asked(
    gateway: &Gateway,
    api: Api,
    history: &[Message],
    body: &[u8],
) -> Result<(Question, Arc<Model>), Problem> {
    let found = api.parse(body, history).and_then(|question| {
        let model = gateway.catalogue.find(&question.model).map(Arc::clone);
        let model = model.ok_or_else(|| unknown(&question.model))?;
        if model.listed.vector_width.is_some() {
            return Err(Problem::only_embeddings(&question.model));
        }
        let mut question = question;
        question.hold(model.calls)?;
        Ok((question, model))
    });
    // Looked at only where it decides what is told: the body is scanned once more for it.
    found.map_err(|problem| match gateway.relay.target(body) {
        Some((target, _)) if gateway.catalogue.find(&target.model).is_none() => {
            Problem::no_receipt(&target.model)
        }
        _ => problem,
    })
}

/// What a client is told that names a model which there is not, or none.
pub(crate) fn unknown(name: &str) -> Problem {
    if name.is_empty() { Problem::missing("model") } else { Problem::model(name) }
}

/// The tokens of the prompt that a request of the Responses API makes, and nothing bought.
pub(crate) fn input_tokens(
    gateway: &Gateway,
    history: &[Message],
    body: &[u8],
) -> Result<u32, Problem> {
    let (question, model) = asked(gateway, Api::Responses, history, body)?;
    Ok(counted(&model, &question)?.into_iter().sum())
}

/// Makes orders of a request for whoever is not there to hear the answer as it comes.
pub(crate) async fn for_batch(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    api: Api,
    body: Vec<u8>,
) -> Result<Prepared, Problem> {
    let prepared = prepared(gateway, caller, (api, true), body.into()).await?;
    let question = &prepared.question;
    let param = match &question.form {
        _ if question.stream => "stream",
        Form::Response(wish) if wish.background => "background",
        _ => return Ok(prepared),
    };
    let message = format!("{param} is not for a line of a batch");
    Err(Problem::invalid_value(param, message))
}

/// The reply to a request whose orders were bought before, if all their answers are kept.
pub(crate) async fn again(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    api: Api,
    body: &[u8],
    orders: &[OrderHash],
) -> Result<Option<Value>, Problem> {
    let mut answers: Vec<Answer> = Vec::with_capacity(orders.len());
    for order in orders {
        let kept = gateway.store.find(*order).await;
        let kept = kept.map_err(|error| Problem::internal(error.to_string()))?;
        let Some(kept) = kept else { return Ok(None) };
        let read = serde_json::from_slice(&kept);
        answers.push(read.map_err(|error| Problem::internal(error.to_string()))?);
    }
    let history = match api {
        Api::Responses => stored::history(gateway, caller, body).await?,
        Api::Chat | Api::Completions => Vec::new(),
    };
    let (question, model) = asked(gateway, api, &history, body)?;
    if answers.is_empty() || answers.len() != question.choices() {
        return Ok(None);
    }
    retell(&question, &model, answers)
}

/// What one answer is asked for: its prompt, how its tokens are chosen, by which model.
pub(crate) struct Single {
    pub(crate) prompt: Prompt,
    pub(crate) sampling: Sampling,
    pub(crate) model: Arc<Model>,
}

/// The chat request in a body, if it is for one answer of at least one token.
pub(crate) fn single(gateway: &Gateway, body: &[u8]) -> Result<Single, Problem> {
    let (question, model) = asked(gateway, Api::Chat, &[], body)?;
    check_single(&question)?;
    let Question { mut prompts, sampling, .. } = question;
    let prompt = prompts.pop().ok_or_else(|| Problem::missing("messages"))?;
    Ok(Single { prompt, sampling, model })
}

/// Refuses a question that is not for one answer with a receipt.
fn check_single(question: &Question) -> Result<(), Problem> {
    if question.only().is_none() {
        let n = question.n;
        return Err(Problem::unsupported("n", format!("n is {n}, only 1 is supported here")));
    }
    if question.sampling.max_tokens == Some(0) {
        let message = "max_tokens is 0, expected at least 1 here";
        return Err(Problem::invalid_value("max_tokens", message));
    }
    Ok(())
}

/// What the answer to a request would cost now.
pub(crate) fn quote(gateway: &Gateway, body: &[u8]) -> Result<jsonrpc::Quote, Problem> {
    let Single { prompt, sampling, model } = single(gateway, body)?;
    let now = now_s();
    let draft = draft(&model, &prompt, &sampling, random()?, now)?;
    let wanted = draft.wanted(&model, gateway.price_max);
    let candidates = gateway.directory.candidates(wanted.model, now);
    let chosen =
        choose(&wanted, &candidates, &[], now).map_err(|none| unrouted(none, wanted.max_price))?;
    Ok(jsonrpc::Quote {
        model: wanted.model,
        prompt_tokens: wanted.prompt_tokens,
        max_tokens: wanted.max_tokens,
        max_price: chosen.worst_price(&wanted),
        min_price: chosen.offer.price(wanted.prompt_tokens, 0),
        provider: chosen.offer.provider,
    })
}

pub(crate) fn random() -> Result<B256, Problem> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)
        .map_err(|error| Problem::internal(format!("the system gives no randomness: {error}")))?;
    Ok(B256::from(bytes))
}
