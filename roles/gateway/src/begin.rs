//! Makes an order of a request, and begins to buy it.

use std::sync::{Arc, Mutex, PoisonError};

use assay_protocol::{Amount, B256, U256};
use axum::extract::Request;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::body::Read;
use crate::buy::{Buying, News, buy, news_max, unrouted};
use crate::catalogue::Model;
use crate::draft::draft;
use crate::http::{Gateway, now_s};
use crate::jsonrpc;
use crate::keys::Caller;
use crate::openai::{ChatRequest, Problem, Reply};
use crate::relay::{Passing, passing};
use crate::route::choose;

/// A purchase under way.
pub(crate) struct Begun {
    /// Whether the request asks for the answer in pieces.
    pub(crate) stream: bool,
    pub(crate) reply: Reply,
    pub(crate) news: mpsc::Receiver<News>,
}

/// Makes an order of a request's body and begins to buy it. Dropping the news cancels it.
pub(crate) async fn begin(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    read: Read,
) -> Result<Begun, Problem> {
    let prepared = prepared(gateway, caller, read).await?;
    start(gateway, prepared)
}

/// A request that was read and has leave to run.
pub(crate) enum Taken {
    /// It is bought on the network.
    Bought(Box<Prepared>),
    /// It is passed on to a server of the operator's own.
    Relayed(Box<Passing>),
}

impl Taken {
    /// The most that the answer may cost, in base units.
    pub(crate) fn price_max(&self) -> Amount {
        match self {
            Self::Bought(prepared) => prepared.buying.price_max(),
            Self::Relayed(passing) => passing.price_max(),
        }
    }

    /// Puts it into a request's extensions, for whoever handles the request. It can be taken once.
    pub(crate) fn ride(self, request: &mut Request) {
        request.extensions_mut().insert(Rider(Arc::new(Mutex::new(Some(self)))));
    }

    pub(crate) fn take(request: &mut Request) -> Option<Self> {
        let rider = request.extensions_mut().remove::<Rider>()?;
        rider.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What rides in a request's extensions, which want to be cloned.
#[derive(Clone)]
struct Rider(Arc<Mutex<Option<Taken>>>);

/// Takes a request by its body: for the network, or for the operator's own servers.
pub(crate) async fn taken(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    read: Read,
) -> Result<Taken, Problem> {
    match gateway.relay.target(&read.bytes) {
        Some(target) => Ok(Taken::Relayed(Box::new(passing(gateway, caller, target, read)?))),
        None => Ok(Taken::Bought(Box::new(prepared(gateway, caller, read).await?))),
    }
}

/// A request of which an order was made, with leave to run it.
pub(crate) struct Prepared {
    pub(crate) request: ChatRequest,
    pub(crate) buying: Buying,
    pub(crate) permit: OwnedSemaphorePermit,
}

/// Makes an order of a request's body.
async fn prepared(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    read: Read,
) -> Result<Prepared, Problem> {
    let permit = gateway.admit()?;
    caller.count()?;
    let (shop, caller) = (Arc::clone(gateway), caller.clone());
    // Rendering and counting a long prompt takes milliseconds, which other streams need not wait
    // for.
    let prepared = tokio::task::spawn_blocking(move || {
        // Its room is held until the body is an order, even if the client hangs up meanwhile.
        prepare(&shop, &caller, &read.bytes)
    })
    .await;
    let (request, buying) = prepared.map_err(|error| Problem::internal(error.to_string()))??;
    Ok(Prepared { request, buying, permit })
}

/// Begins to buy. Dropping the news cancels it.
pub(crate) fn start(gateway: &Arc<Gateway>, prepared: Prepared) -> Result<Begun, Problem> {
    let Prepared { request, buying, permit } = prepared;
    let model = &buying.model.listed;
    let reply =
        Reply::new(buying.hash, model.id, model.name.clone(), now_s(), request.include_usage);
    let (sender, news) = mpsc::channel(news_max(buying.tokens_max()));
    let purchase = buy(Arc::clone(gateway), buying, sender);
    let begun = gateway.begin()?;
    gateway.purchases.spawn(async move {
        purchase.await;
        drop(permit);
    });
    drop(begun);
    Ok(Begun { stream: request.stream, reply, news })
}

/// Everything about a request that waits for nobody.
fn prepare(
    gateway: &Gateway,
    caller: &Caller,
    body: &[u8],
) -> Result<(ChatRequest, Buying), Problem> {
    let (request, model) = asked(gateway, body)?;
    let draft = draft(&model, &request, random()?)?;
    let nonce = U256::from_be_bytes(random()?.0);
    let buying = Buying::sign(gateway, caller, model, draft, now_s(), nonce)?;
    Ok((request, buying))
}

/// The request in a body, and the model of the network that it names. A model of the operator's own
/// servers alone has no receipts, and what is asked for here is never without.
pub(crate) fn asked(gateway: &Gateway, body: &[u8]) -> Result<(ChatRequest, Arc<Model>), Problem> {
    let found = ChatRequest::parse(body).and_then(|request| {
        let model = gateway.catalogue.find(&request.model).map(Arc::clone);
        let model = model.ok_or_else(|| Problem::model(&request.model))?;
        Ok((request, model))
    });
    // Looked at only where it decides what is told: the body is scanned once more for it.
    found.map_err(|problem| match gateway.relay.target(body) {
        Some((target, _)) if gateway.catalogue.find(&target.model).is_none() => {
            Problem::no_receipt(&target.model)
        }
        _ => problem,
    })
}

/// What the answer to a request would cost now.
pub(crate) fn quote(gateway: &Gateway, body: &[u8]) -> Result<jsonrpc::Quote, Problem> {
    let (request, model) = asked(gateway, body)?;
    let draft = draft(&model, &request, random()?)?;
    let now = now_s();
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
