//! Answers one admitted order: the engine's deltas become frames, and at the end a receipt.
//!
//! What was sealed once only ever grows: the answer to a repeated order either extends the sealed
//! one or is the sealed one. An engine whose bits changed since is found out here, before the
//! provider signs two receipts that contradict each other.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use assay_engine::{Delta, Deltas};
use assay_protocol::wire::{Frame, Refusal, Sealed};
use assay_protocol::{
    Amount, B256, ChainId, ChannelId, Ending, Finish, Key, Offer, OrderHash, Receipt, Signature,
    State, keccak256, token_root,
};
use assay_text::Tokenizer;
use futures_util::FutureExt;
use tokio::sync::mpsc;

use crate::slots::Slot;
use crate::store::{Kept, Store};

/// Frames an answer of `tokens_max` tokens can have: one per token, those that were sealed before,
/// and the last one.
pub(crate) fn frames_max(tokens_max: u32) -> usize {
    tokens_max as usize + 2
}

/// An order that is being answered, with what its receipt will say.
pub(crate) struct Answering {
    pub(crate) order: OrderHash,
    pub(crate) prompt_tokens: u32,
    pub(crate) ending: Ending,
    pub(crate) offer: Offer,
    pub(crate) chain: ChainId,
    pub(crate) key: Key,
    pub(crate) tokenizer: Option<Arc<Tokenizer>>,
    /// The order's signature as it was handed in.
    pub(crate) signature: Signature,
    /// What was sealed when the order was here before and its buyer left.
    pub(crate) before: Option<Sealed>,
}

/// How the deltas ended.
enum End {
    /// As the order's rules say.
    Finished,
    /// The buyer left, or the provider is closing.
    Left,
    /// The engine failed, in these words.
    Broken(&'static str),
}

/// Drives the order to its end. The last frame is sent after its receipt is on disk and its slot
/// is free, so whoever reads it may ask again and gets the same answer.
pub(crate) async fn serve(
    answering: Answering,
    mut deltas: Deltas,
    slot: Slot,
    frames: mpsc::Sender<Frame>,
    store: Store,
) {
    let started = now_ms();
    let mut progress = Progress::new(answering.order);
    let end = deliver(&answering, &mut progress, &mut deltas, &slot, &frames).await;
    // The engine computes for others while the disk is waited for.
    drop(deltas);
    let last = match end {
        End::Broken(reason) => Err(Refusal::Internal { reason: reason.into() }),
        End::Finished | End::Left => {
            conclude(&answering, &progress, started, &frames, &store).await
        }
    };
    drop(slot);
    let tokens = progress.output.len();
    let frame = match last {
        Ok(sealed) => {
            let (finish, price) = (sealed.receipt.finish, sealed.receipt.price);
            tracing::info!(order = %answering.order, tokens, %finish, %price, "answered");
            Frame::Sealed(Box::new(sealed))
        }
        Err(refusal) => {
            tracing::error!(order = %answering.order, tokens, %refusal, "not answered");
            Frame::Failed(refusal)
        }
    };
    hand(&frames, frame);
}

/// Passes tokens on until the answer ends or nobody wants it.
async fn deliver(
    answering: &Answering,
    progress: &mut Progress,
    deltas: &mut Deltas,
    slot: &Slot,
    frames: &mpsc::Sender<Frame>,
) -> End {
    loop {
        let first = tokio::select! {
            biased;
            () = slot.stopped.cancelled() => return End::Left,
            () = frames.closed() => return End::Left,
            delta = deltas.next() => delta,
        };
        let sent = progress.output.len();
        let mut next = Some(first);
        let mut end = None;
        while let (Some(delta), None) = (next.take(), &end) {
            end = progress.take(delta, &answering.ending);
            if end.is_none() {
                // Tokens that are ready together travel together.
                next = deltas.next().now_or_never();
            }
        }
        if progress.output.len() > sent {
            hand(frames, Frame::Tokens(progress.output[sent..].to_vec()));
        }
        if let Some(end) = end {
            return end;
        }
    }
}

/// Seals what was delivered and stores it, or finds that the earlier sealed answer is longer, and
/// delivers the rest of that.
async fn conclude(
    answering: &Answering,
    progress: &Progress,
    started: u64,
    frames: &mpsc::Sender<Frame>,
    store: &Store,
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
    let sealed = seal(answering, progress, started, now_ms());
    let kept = Kept { order_signature: answering.signature, sealed };
    store
        .keep(answering.order, &kept)
        .await
        .map_err(|error| Refusal::Storage { reason: error.to_string() })?;
    Ok(kept.sealed)
}

/// Output so far, and the chained state after each of its tokens.
struct Progress {
    output: Vec<u32>,
    states: Vec<B256>,
    state: State,
}

impl Progress {
    fn new(order: OrderHash) -> Self {
        Self { output: Vec::new(), states: Vec::new(), state: State::start(order) }
    }

    /// Takes the next delta; some end if it is the last. An engine that does not end where the
    /// order's rules say is not trusted with a receipt.
    fn take(&mut self, delta: Option<Delta>, ending: &Ending) -> Option<End> {
        let due = ending.at(&self.output);
        match (delta, due) {
            (Some(Delta::Token { token, hidden }), None) => {
                self.output.push(token);
                self.state = self.state.next(token, hidden);
                self.states.push(self.state.0);
                None
            }
            (Some(Delta::Done(finish)), Some(due)) if finish == due => Some(End::Finished),
            (Some(Delta::Token { .. }), Some(_)) => Some(End::Broken("the engine did not stop")),
            (Some(Delta::Done(_)), _) => Some(End::Broken("the engine stopped for no reason")),
            (None, _) => Some(End::Broken("the engine closed the answer early")),
        }
    }
}

/// The signed receipt for `progress`, with what its hashes stand for. Times in Unix milliseconds.
fn seal(answering: &Answering, progress: &Progress, started: u64, finished: u64) -> Sealed {
    let Answering { order, ending, offer, chain, key, tokenizer, .. } = answering;
    let output = &progress.output;
    let finish = ending.at(output).unwrap_or(Finish::Cancelled);
    let text = match tokenizer {
        Some(tokenizer) => tokenizer.decode(&output[..ending.text_len(output, finish)]),
        None => String::new(),
    };
    let output_tokens = u32::try_from(output.len()).expect("outputs are shorter than a context");
    let receipt = Receipt {
        order: *order,
        provider: key.address(),
        output: token_root(output),
        output_tokens,
        text: keccak256(text),
        finish,
        state: progress.state.0,
        assurance: offer.assurance,
        asset: offer.asset,
        price: offer.price(answering.prompt_tokens, output_tokens),
        channel: ChannelId::default(),
        channel_before: Amount(0),
        channel_after: Amount(0),
        started,
        // A clock that was set back meanwhile does not make the receipt invalid.
        finished: finished.max(started),
    };
    let signature = receipt.sign(*chain, key);
    Sealed { receipt, signature, output: output.clone(), states: progress.states.clone() }
}

/// Puts a frame where the buyer reads it.
fn hand(frames: &mpsc::Sender<Frame>, frame: Frame) {
    // There is room for every frame, so this fails only if the buyer has left, who needs none.
    let _ = frames.try_send(frame);
}

/// Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
