//! What can be asked by JSON-RPC.

use std::sync::Arc;

use assay_protocol::{Address, Amount, Answer, AnswerError, Blame, Ending, ModelId, OrderHash};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::mpsc;

use super::message::{Call, Error, answer_line};
use crate::begin::{begin, quote};
use crate::buy::{Bought, News};
use crate::http::{Gateway, now_s};
use crate::keys::Caller;
use crate::openai::{Finish, Problem, Usage};
use crate::signed;

/// What `rpc.discover` answers: the OpenRPC document.
pub(crate) const DOCUMENT: &str = include_str!("openrpc.json");

/// Answers one call; `None` for a notification.
pub(super) async fn answer(gateway: &Arc<Gateway>, caller: &Caller, call: Call) -> Option<String> {
    let outcome = run(gateway, caller, &call).await;
    call.id.as_ref().map(|id| answer_line(Some(id), outcome))
}

async fn run(gateway: &Arc<Gateway>, caller: &Caller, call: &Call) -> Result<Box<RawValue>, Error> {
    if !signed::opens(&call.method) {
        signed::needs_key(caller).map_err(Problem::from)?;
    }
    match call.method.as_str() {
        "assay_models" => written(&models(gateway)),
        "assay_quote" => written(&quoted(gateway, call)?),
        "assay_infer" => {
            let body = call.param()?.get().as_bytes().to_vec();
            inferred(begin(gateway, caller, body.into()).await?).await
        }
        "assay_prepare" => {
            let [request, wish] = call.pair()?;
            let body = request.get().as_bytes().to_vec();
            written(&signed::offer(gateway, caller, body, read(wish)?).await?)
        }
        "assay_submit" => {
            let [request, order] = call.pair()?;
            inferred(submitted(gateway, caller, request, order).await?).await
        }
        "assay_receipt" => receipt(gateway, call).await,
        "assay_verify" => written(&verify(gateway, call)?),
        "assay_subscribe" | "assay_unsubscribe" => Err(Error::Request(
            "subscriptions need a WebSocket: connect to this path by one".into(),
        )),
        "rpc.discover" => RawValue::from_string(DOCUMENT.into()).map_err(|error| internal(&error)),
        other => Err(Error::Method(other.chars().take(100).collect())),
    }
}

pub(super) fn written(value: &impl Serialize) -> Result<Box<RawValue>, Error> {
    to_raw_value(value).map_err(|error| internal(&error))
}

fn internal(error: &serde_json::Error) -> Error {
    Problem::internal(error.to_string()).into()
}

/// A model and who sells it now.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sold<'a> {
    id: ModelId,
    name: &'a str,
    context: u32,
    offers: Vec<Price>,
}

/// What a provider asks, in base units per million tokens.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Price {
    provider: Address,
    price_in: Amount,
    price_out: Amount,
    /// Unix seconds.
    expires: u64,
}

fn models(gateway: &Gateway) -> Vec<Sold<'_>> {
    let now = now_s();
    let sold = gateway.catalogue.models.iter().map(|model| {
        let candidates = gateway.directory.candidates(model.listed.id, now);
        let offers = candidates.iter().map(|candidate| Price {
            provider: candidate.offer.provider,
            price_in: candidate.offer.price_in,
            price_out: candidate.offer.price_out,
            expires: candidate.offer.expires,
        });
        let listed = &model.listed;
        let (name, context) = (listed.name.as_str(), listed.context);
        Sold { id: listed.id, name, context, offers: offers.collect() }
    });
    sold.collect()
}

/// What an answer would cost, before it is bought.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Quote {
    pub(crate) model: ModelId,
    pub(crate) prompt_tokens: u32,
    /// Most tokens of the answer.
    pub(crate) max_tokens: u32,
    /// Most that it costs at the cheapest offer, in base units.
    pub(crate) max_price: Amount,
    /// Of the cheapest offer, for the prompt alone.
    pub(crate) min_price: Amount,
    pub(crate) provider: Address,
}

fn quoted(gateway: &Gateway, call: &Call) -> Result<Quote, Error> {
    Ok(quote(gateway, call.param()?.get().as_bytes())?)
}

/// A complete answer.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Inferred<'a> {
    /// The order's hash: the receipt is found under it.
    order: OrderHash,
    text: &'a str,
    finish_reason: Finish,
    usage: Usage,
    receipt: &'a Answer,
}

impl<'a> Inferred<'a> {
    pub(super) fn of(bought: &'a Bought) -> Self {
        let Bought { answer, finish, usage } = bought;
        Self {
            order: answer.receipt.order,
            text: &answer.text,
            finish_reason: *finish,
            usage: *usage,
            receipt: answer,
        }
    }
}

/// Begins to buy what a client signed.
pub(super) async fn submitted(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    request: &RawValue,
    order: &RawValue,
) -> Result<mpsc::Receiver<News>, Error> {
    let body = request.get().as_bytes().to_vec();
    Ok(signed::submit(gateway, caller, body, read(order)?).await?)
}

/// Waits for all of an answer.
async fn inferred(mut news: mpsc::Receiver<News>) -> Result<Box<RawValue>, Error> {
    loop {
        match news.recv().await {
            Some(News::Accepted | News::Text(_)) => {}
            Some(News::Done(bought)) => return written(&Inferred::of(&bought)),
            Some(News::Failed(problem)) => return Err(problem.into()),
            None => return Err(Problem::internal("the purchase ended without a word").into()),
        }
    }
}

/// A parameter as its type.
fn read<'a, T: Deserialize<'a>>(param: &'a RawValue) -> Result<T, Error> {
    serde_json::from_str(param.get()).map_err(|error| Error::Params(error.to_string()))
}

/// The saved answer to an order, or null, as Ethereum does for a transaction without one.
async fn receipt(gateway: &Gateway, call: &Call) -> Result<Box<RawValue>, Error> {
    let order: OrderHash = read(call.param()?)?;
    let found = gateway.store.find(order).await;
    let found = found.map_err(|error| Problem::internal(error.to_string()))?;
    match found {
        Some(answer) => {
            let text = String::from_utf8(answer);
            let text = text.map_err(|error| Problem::internal(error.to_string()))?;
            RawValue::from_string(text).map_err(|error| internal(&error))
        }
        None => written(&()),
    }
}

/// What a receipt proves without the model. Its weights are not here: who has them replays it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    /// Whether signatures, commitments, counts, price and text fit each other.
    consistent: bool,
    /// Whether the answer was computed again; never by a gateway.
    replayed: bool,
    order: Option<OrderHash>,
    reason: Option<String>,
    /// Who broke its word, if somebody did.
    fault: Option<&'static str>,
    /// How it can be computed again.
    advice: &'static str,
}

/// What a verdict without the model's weights leaves open, and who closes it.
const ADVICE: &str = "nothing was computed again; `assay verify FILE`, with the receipt as the file and \
                      the model's weights at hand, replays the answer token by token";

fn verify(gateway: &Gateway, call: &Call) -> Result<Verdict, Error> {
    let answer: Answer = read(call.param()?)?;
    let name = answer.order.model.to_string();
    let model = gateway.catalogue.find(&name).ok_or_else(|| Problem::model(&name))?;
    let listed = &model.listed;
    let room = listed.context.saturating_sub(answer.order.prompt_tokens);
    let ending = Ending {
        eos: listed.eos.clone(),
        stops: answer.terms.stops.clone(),
        tokens_max: answer.order.max_tokens.min(room),
    };
    let spelled = || {
        let output = &answer.output;
        listed.tokenizer.decode(&output[..ending.text_len(output, answer.receipt.finish)])
    };
    let verdict = Verdict {
        consistent: true,
        replayed: false,
        order: None,
        reason: None,
        fault: None,
        advice: ADVICE,
    };
    Ok(match answer.check(&ending) {
        Ok(order) if spelled() == answer.text => Verdict { order: Some(order), ..verdict },
        Ok(order) => Verdict {
            consistent: false,
            order: Some(order),
            reason: Some("the text is not what the tokens spell".into()),
            fault: Some("provider"),
            ..verdict
        },
        Err(error) => Verdict {
            consistent: false,
            fault: fault(&error),
            reason: Some(error.to_string()),
            ..verdict
        },
    })
}

fn fault(error: &AnswerError) -> Option<&'static str> {
    match error.blame() {
        Blame::Provider => Some("provider"),
        Blame::File => None,
    }
}
