//! Answers one admitted order: the engine's deltas become frames, and at the end a receipt.
//!
//! What was sealed once only ever grows: the answer to a repeated order either extends the sealed
//! one or is the sealed one. An engine whose bits changed since is found out here, before the
//! provider signs two receipts that contradict each other. A paid answer does not grow: what was
//! sealed is charged.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_engine::{Delta, Deltas};
use assay_protocol::Ending;
use assay_protocol::wire::{Frame, Refusal, Sealed};
use assay_text::Tokenizer;
use futures_util::FutureExt;
use tokio::sync::mpsc;

use crate::figures::{Answered, Figures, Times};
use crate::now_ms;
use crate::seal::{Beside, Broken, Progress, Signer, seal};
use crate::slots::Slot;
use crate::store::{self, Begun, Kept, Store, StoreError};
use crate::tab::{Event, Moved, Next, Paid};

/// Frames an answer of `tokens_max` tokens can have: one per token, one before each that had to be
/// paid for first, what was cached, those that were sealed before, a vector, and the last one.
pub(crate) fn frames_max(tokens_max: u32) -> usize {
    2 * tokens_max as usize + 5
}

/// An order that is being answered.
pub(crate) struct Answering {
    /// When its order was read.
    pub(crate) since: Instant,
    pub(crate) begun: Begun,
    /// What goes with its tokens.
    pub(crate) beside: Beside,
    pub(crate) figures: Arc<Figures>,
    pub(crate) ending: Ending,
    pub(crate) signer: Signer,
    pub(crate) tokenizer: Option<Arc<Tokenizer>>,
    /// What was sealed when the order was here before and its buyer left.
    pub(crate) before: Option<Sealed>,
    /// What pays for it.
    pub(crate) paid: Option<Paid>,
    /// Longest wait for a top-up.
    pub(crate) wait_max: Duration,
    /// Unix time in seconds from which on an answer that the engine has not started is not wanted.
    pub(crate) deadline: u64,
    pub(crate) store: Store,
}

/// How the deltas ended.
enum End {
    /// As the order's rules say.
    Finished,
    /// The buyer left or stopped paying, or the provider is closing.
    Left,
    /// The order's deadline passed before the engine had a place for it.
    Late,
    /// The engine failed, in these words.
    Broken(Broken),
    /// The disk failed.
    Unstored(StoreError),
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        Self::Unstored(error)
    }
}

/// Drives the order to its end. The last frame is sent after its receipt is on disk and its slot
/// and its channel are free, so whoever reads it may ask again and gets the same answer.
pub(crate) async fn serve(
    mut answering: Answering,
    mut deltas: Deltas,
    slot: Slot,
    frames: mpsc::Sender<Frame>,
) {
    let (since, figures) = (answering.since, Arc::clone(&answering.figures));
    let (order, model) = (answering.begun.order, answering.begun.model);
    let beside = std::mem::replace(&mut answering.beside, Beside::Nothing);
    let mut progress = Progress::new(order, beside);
    let end = deliver(&mut answering, &mut progress, &mut deltas, &slot, &frames).await;
    let started = deltas.started_at();
    // The engine computes for others while the disk is waited for.
    drop(deltas);
    let last = match end {
        End::Broken(reason) => {
            Err(abandon(&answering, Refusal::Internal { reason: reason.into() }).await)
        }
        End::Late if answering.before.is_none() => {
            let (deadline, now) = (answering.deadline, now_ms() / 1000);
            Err(abandon(&answering, Refusal::Expired { deadline, now }).await)
        }
        End::Unstored(error) => Err(Refusal::Storage { reason: error.to_string() }),
        End::Finished | End::Left | End::Late => conclude(&answering, &progress, &frames).await,
    };
    drop((slot, answering));
    let tokens = progress.output.len();
    let frame = match last {
        Ok(sealed) => {
            let (finish, price) = (sealed.receipt.finish, sealed.receipt.price);
            let came = progress.came.map(|(first, last)| (first, last, progress.tokens()));
            let (output_tokens, end) = (sealed.receipt.output_tokens, Instant::now());
            let times = Times { since, started, tokens: came, end };
            figures.sealed(&Answered { model, finish, output_tokens, times });
            let ms = (end - since).as_millis();
            tracing::info!(%order, %model, tokens, %finish, %price, ms, "answered");
            Frame::Sealed(Box::new(sealed))
        }
        Err(refusal) => {
            figures.refused(&refusal);
            tracing::error!(%order, %model, tokens, %refusal, "not answered");
            Frame::Failed(refusal)
        }
    };
    hand(&frames, frame);
}

/// Passes tokens on until the answer ends, nobody wants it, or nobody pays for more.
async fn deliver(
    answering: &mut Answering,
    progress: &mut Progress,
    deltas: &mut Deltas,
    slot: &Slot,
    frames: &mpsc::Sender<Frame>,
) -> End {
    let Answering { begun, ending, paid, store, wait_max, deadline, .. } = answering;
    let left = Duration::from_millis(deadline.saturating_mul(1000).saturating_sub(now_ms()));
    let mut late = pin!(tokio::time::sleep(left));
    let mut waits = true;
    if let Some(paid) = paid
        && let Err(error) = paid.begin(begun, store).await
    {
        return error.into();
    }
    loop {
        let ready = match next(paid, begun, ending, progress, *wait_max) {
            Next::Deliver => true,
            Next::Wait => false,
            Next::Ask(due) => {
                hand(frames, Frame::Due(due));
                continue;
            }
            Next::Stop => return End::Left,
        };
        let first = tokio::select! {
            biased;
            () = slot.stopped.cancelled() => return End::Left,
            () = frames.closed() => return End::Left,
            () = &mut late, if waits => {
                if progress.output.is_empty() && deltas.cached_tokens().is_none() {
                    return End::Late;
                }
                waits = false;
                continue;
            }
            event = moved(paid) => {
                let Some(paid) = paid else { continue };
                match paid.act(event, begun, store).await {
                    Ok(Moved::Changed) => continue,
                    Ok(Moved::Over) => return End::Left,
                    Err(error) => return error.into(),
                }
            }
            delta = deltas.next(), if ready => delta,
        };
        let sent = progress.output.len();
        let ended = match pull(first, deltas, progress, ending, paid.as_ref(), begun) {
            Ok(ended) => ended,
            Err(reason) => return End::Broken(reason),
        };
        if progress.output.len() > sent {
            if let Some(paid) = paid
                && let Err(error) = paid.checkpoint(begun, progress, store).await
            {
                return error.into();
            }
            if let (0, Some(cached @ 1..)) = (sent, deltas.cached_tokens()) {
                hand(frames, Frame::Cached(cached));
            }
            progress.frames(sent).for_each(|frame| hand(frames, frame));
        }
        if ended {
            return End::Finished;
        }
    }
}

/// What to do about the next delta.
fn next(
    paid: &mut Option<Paid>,
    begun: &Begun,
    ending: &Ending,
    progress: &Progress,
    wait_max: Duration,
) -> Next {
    match paid {
        // After the last token comes the end, which costs nothing.
        Some(paid) if ending.at(&progress.output).is_none() => {
            paid.next(begun, progress.tokens(), wait_max)
        }
        _ => Next::Deliver,
    }
}

/// What happens about the money; nothing ever, of an answer that costs none.
async fn moved(paid: &mut Option<Paid>) -> Event {
    match paid {
        Some(paid) => paid.moved().await,
        None => std::future::pending().await,
    }
}

/// Takes `delta` and those that are ready: tokens that are ready together travel together, as far
/// as they may be delivered. True if the answer is complete.
fn pull(
    delta: Option<Delta>,
    deltas: &mut Deltas,
    progress: &mut Progress,
    ending: &Ending,
    paid: Option<&Paid>,
    begun: &Begun,
) -> Result<bool, Broken> {
    let mut ended = progress.take(delta, ending)?;
    while !ended {
        let tokens = progress.tokens();
        let last = ending.at(&progress.output).is_some();
        if !last && paid.is_some_and(|paid| paid.allows(begun, tokens).is_err()) {
            break;
        }
        let Some(delta) = deltas.next().now_or_never() else { break };
        ended = progress.take(delta, ending)?;
    }
    Ok(ended)
}

/// Lets an answer go that the engine broke off or did not begin: nothing is charged for it.
async fn abandon(answering: &Answering, refusal: Refusal) -> Refusal {
    let Begun { order, channel, .. } = answering.begun;
    if answering.paid.is_some() {
        let forgotten =
            answering.store.write(move |write| store::forget(write, order, channel)).await;
        if let Err(error) = forgotten {
            return Refusal::Storage { reason: error.to_string() };
        }
    }
    refusal
}

/// Seals what was delivered and stores it, or finds that the earlier sealed answer is longer, and
/// delivers the rest of that.
async fn conclude(
    answering: &Answering,
    progress: &Progress,
    frames: &mpsc::Sender<Frame>,
) -> Result<Sealed, Refusal> {
    if let Some(before) = &answering.before {
        let shared = before.output.len().min(progress.output.len());
        let same = before.output[..shared] == progress.output[..shared]
            && before.states[..shared] == progress.states[..shared];
        if !same {
            let reason = "the engine's answer differs from the one sealed before".into();
            return Err(Refusal::Internal { reason });
        }
        if shared == progress.output.len() {
            if before.output.len() > shared {
                hand(frames, Frame::Tokens(before.output[shared..].to_vec()));
            }
            return Ok(before.clone());
        }
    }
    let Answering { begun, tokenizer, signer, store, .. } = answering;
    let Progress { output, states, .. } = progress;
    let answer = seal(begun, output, states, now_ms(), tokenizer.as_ref(), signer);
    keep(store, begun, answer, signer)
        .await
        .map_err(|error| Refusal::Storage { reason: error.to_string() })
}

async fn keep(
    store: &Store,
    begun: &Begun,
    answer: Kept,
    signer: &Signer,
) -> Result<Sealed, StoreError> {
    let order = begun.order;
    let digest = answer.sealed.receipt.digest(signer.chain);
    let answer = Arc::new(answer);
    let kept = Arc::clone(&answer);
    store.write(move |write| store::seal(write, order, &kept, digest)).await?;
    Ok(Arc::unwrap_or_clone(answer).sealed)
}

/// Puts a frame where the buyer reads it.
fn hand(frames: &mpsc::Sender<Frame>, frame: Frame) {
    // There is room for every frame, so this fails only if the buyer has left, who needs none.
    let _ = frames.try_send(frame);
}
