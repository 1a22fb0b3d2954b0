//! Buys vectors of texts, and tells them: as embeddings, or as what the texts are.
//!
//! Each input of a request is an order of its own, with its own receipt. A bounded number of them is
//! bought side by side; an order is signed when its turn comes, so that none waits past its deadline. If
//! one fails, the client is told so and the others are cancelled; what was bought by then is paid.

use std::sync::Arc;

use assay_protocol::U256;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use crate::begin::{random, start, unknown};
use crate::body::Read;
use crate::buy::{Buying, News};
use crate::catalogue::Model;
use crate::draft::{Draft, vector_draft};
use crate::http::{Gateway, now_s};
use crate::keys::Caller;
use crate::openai::{Embedding, Embeddings, Problem, Prompt, classes_reply};

/// Orders of one request that are bought side by side.
const AT_ONCE: usize = 16;

/// What a client makes of vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Points in a space.
    Embeddings,
    /// Probabilities of classes.
    Classes,
}

/// A request of which orders can be made.
struct Prepared {
    asked: Embeddings,
    model: Arc<Model>,
    /// One for each input, in their order.
    drafts: Vec<Draft>,
    permit: OwnedSemaphorePermit,
}

/// Answers a request for vectors.
pub(crate) async fn embed(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    wanted: Wanted,
    read: Read,
) -> Result<String, Problem> {
    let permit = gateway.admit()?;
    caller.count()?;
    let shop = Arc::clone(gateway);
    // Long texts take milliseconds to count, which other requests need not wait for.
    let prepared = move || prepare(&shop, wanted, &read.bytes, permit);
    let prepared = tokio::task::spawn_blocking(prepared).await;
    let Prepared { asked, model, drafts, permit } =
        prepared.map_err(|error| Problem::internal(error.to_string()))??;
    let permit = Arc::new(permit);
    let several = drafts.len() > 1;
    let bought = drafts.into_iter().enumerate().map(|(index, draft)| {
        let (permit, model) = (Arc::clone(&permit), Arc::clone(&model));
        async move {
            let bought = buy(gateway, caller, model, draft, permit).await;
            bought.map_err(|problem| if several { blamed(index, problem) } else { problem })
        }
    });
    let embeddings: Vec<Embedding> = stream::iter(bought).buffered(AT_ONCE).try_collect().await?;
    let listed = &model.listed;
    Ok(match &listed.labels {
        Some(labels) => classes_reply(&listed.name, labels, now_s(), &embeddings),
        None => asked.reply(&listed.name, &embeddings),
    })
}

/// Everything about a request that waits for nobody.
fn prepare(
    gateway: &Gateway,
    wanted: Wanted,
    body: &[u8],
    mut permit: OwnedSemaphorePermit,
) -> Result<Prepared, Problem> {
    let asked = match wanted {
        Wanted::Embeddings => Embeddings::parse(body)?,
        Wanted::Classes => Embeddings::parse_for_classes(body)?,
    };
    let model = gateway.catalogue.find(&asked.model).map(Arc::clone);
    let model = model.ok_or_else(|| unknown(&asked.model))?;
    let width = match (wanted, model.listed.vector_width, &model.listed.labels) {
        (Wanted::Embeddings, Some(width), None) | (Wanted::Classes, Some(width), Some(_)) => width,
        (Wanted::Embeddings, ..) => return Err(Problem::no_embeddings(&asked.model)),
        (Wanted::Classes, ..) => return Err(Problem::no_classes(&asked.model)),
    };
    if let Some(found) = asked.dimensions.filter(|&found| found > width) {
        let message = format!("dimensions is {found}, the model gives {width} at most");
        return Err(Problem::invalid_value("dimensions", message));
    }
    // Each order takes a place among those that are worked on at once.
    for _ in 1..asked.inputs.len().min(AT_ONCE) {
        permit.merge(gateway.permit()?);
    }
    let named = asked.inputs.iter().enumerate();
    let drafts = named.map(|(index, input)| draft(&model, input, &asked.name(index)));
    let drafts = drafts.collect::<Result<_, _>>()?;
    Ok(Prepared { asked, model, drafts, permit })
}

/// The canonical body of an input: JSON without white space.
#[derive(Serialize)]
struct Raw<T> {
    input: T,
}

/// Drafts the order for one input, which is called `name`.
fn draft(model: &Model, input: &Prompt, name: &str) -> Result<Draft, Problem> {
    let listed = &model.listed;
    // One place of the context is the answer's.
    let tokens_max = (listed.context as usize).saturating_sub(1);
    let (tokens, request) = match input {
        Prompt::Text(text) => {
            let tokens = listed.tokenizer.enclose(text, tokens_max);
            let tokens = tokens.ok_or_else(|| too_long(name, tokens_max))?;
            (tokens, serde_json::to_string(&Raw { input: text }))
        }
        Prompt::Tokens(tokens) => {
            let known = listed.tokenizer.len();
            if let Some(found) = tokens.iter().find(|&&token| token as usize >= known) {
                let message = format!("{name} has token {found}, the model has {known}");
                return Err(Problem::invalid_value(name, message));
            }
            if tokens.len() > tokens_max {
                return Err(too_long(name, tokens_max));
            }
            (tokens.clone(), serde_json::to_string(&Raw { input: tokens }))
        }
        Prompt::Messages { .. } => return Err(Problem::internal("an input is no conversation")),
    };
    if tokens.is_empty() {
        return Err(Problem::invalid_value(name, format!("{name} has no tokens")));
    }
    let request = request.map_err(|error| Problem::internal(error.to_string()))?;
    Ok(vector_draft(model, tokens, request))
}

fn too_long(name: &str, tokens_max: usize) -> Problem {
    let message = format!("{name} has more than the {tokens_max} tokens that this model takes");
    Problem::context(name, message)
}

/// Buys one vector. Dropping it cancels the purchase.
async fn buy(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    model: Arc<Model>,
    draft: Draft,
    permit: Arc<OwnedSemaphorePermit>,
) -> Result<Embedding, Problem> {
    let nonce = U256::from_be_bytes(random()?.0);
    let order = Buying::sign(gateway, caller, model, draft, now_s(), nonce)?;
    let mut news = start(gateway, order, permit)?;
    while let Some(heard) = news.recv().await {
        match heard {
            News::Accepted | News::Text(_) => {}
            News::Done(bought) => return Ok(Embedding { answer: Box::new(bought.answer) }),
            News::Failed(problem) => return Err(problem),
        }
    }
    Err(Problem::internal("the purchase ended without a word"))
}

fn blamed(index: usize, problem: Problem) -> Problem {
    let message = format!("input[{index}] failed: {}", problem.message);
    Problem { message, ..problem }
}
