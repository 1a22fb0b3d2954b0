//! The answer to an order that was bought before: the same again, for nothing.

use std::sync::Arc;

use assay_protocol::{Answer, Ending, Finish as Ended, OrderHash, keccak256};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::fault::Fault;
use crate::begin::{Single, single};
use crate::buy::{Bought, News};
use crate::http::Gateway;
use crate::openai::{Finish, Problem, Usage};
use crate::text::retold;

/// The news of an order's purchase as they were, all at once.
///
/// # Errors
/// If the order was for another request, or was given up before it was complete.
pub(super) async fn again(
    gateway: &Arc<Gateway>,
    body: Vec<u8>,
    hash: OrderHash,
    permit: OwnedSemaphorePermit,
) -> Result<mpsc::Receiver<News>, Problem> {
    let kept = gateway.store.find(hash).await;
    let kept = kept.map_err(|error| Problem::internal(error.to_string()))?;
    let kept = kept.ok_or_else(|| Problem::internal("an answer was booked and is not kept"))?;
    let gateway = Arc::clone(gateway);
    // An answer with its states has megabytes, which other streams need not wait for.
    let told = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        told(&gateway, &body, &kept, hash)
    });
    told.await.map_err(|error| Problem::internal(error.to_string()))?
}

/// The news of the `kept` answer.
fn told(
    gateway: &Gateway,
    body: &[u8],
    kept: &[u8],
    hash: OrderHash,
) -> Result<mpsc::Receiver<News>, Problem> {
    let Single { prompt, sampling, model } = single(gateway, body)?;
    let answer: Answer =
        serde_json::from_slice(kept).map_err(|error| Problem::internal(error.to_string()))?;
    let (found, expected) = (answer.order.request, keccak256(prompt.canonical()));
    if found != expected {
        let (found, expected) = (found.to_string(), expected.to_string());
        return Err(Fault::Mismatch { what: "request", found, expected }.into());
    }
    let ending = Ending {
        eos: model.listed.eos.clone(),
        stops: answer.terms.stops.clone(),
        tokens_max: answer.order.max_tokens,
    };
    let ended = answer.receipt.finish;
    let tokenizer = Arc::clone(&model.listed.tokenizer);
    let (shown, cut) = retold(tokenizer, ending, sampling.stop, &answer.output, ended);
    let finish = match ended {
        _ if cut => Finish::Stop,
        Ended::Eos | Ended::Stop => Finish::Stop,
        Ended::Length => Finish::Length,
        Ended::Cancelled => {
            let tokens = answer.receipt.output_tokens;
            return Err(Fault::Cancelled { order: hash, tokens }.into());
        }
    };
    let usage = Usage::new(answer.order.prompt_tokens, answer.receipt.output_tokens);
    let answer = Answer { states: Vec::new(), ..answer };
    let (sender, news) = mpsc::channel(3);
    let told = [
        News::Accepted,
        News::Text(shown.into()),
        News::Done(Box::new(Bought { answer, finish, usage })),
    ];
    for said in told {
        // There is room for all three.
        let _ = sender.try_send(said);
    }
    Ok(news)
}
