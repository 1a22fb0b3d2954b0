//! Turns what was answered into the receipt that its provider can be held to.

use std::sync::Arc;
use std::time::Instant;

use assay_engine::Delta;
use assay_protocol::wire::{Frame, Sealed};
use assay_protocol::{
    Amount, B256, ChainId, ChannelId, Ending, Finish, Key, Logprobs, OrderHash, Receipt, State,
    keccak256, token_root, vector_hash,
};
use assay_text::Tokenizer;

use crate::store::{Begun, Kept, Left, Store, StoreError, forget, left, seal as keep};
use crate::{Served, now_ms};

/// Who signs receipts, and for which chain.
#[derive(Clone, Debug)]
pub(crate) struct Signer {
    pub(crate) key: Key,
    pub(crate) chain: ChainId,
}

/// Output so far, and the chained state after each of its tokens.
pub(crate) struct Progress {
    pub(crate) output: Vec<u32>,
    pub(crate) states: Vec<B256>,
    /// When the first token came and the newest.
    pub(crate) came: Option<(Instant, Instant)>,
    state: State,
    beside: Beside,
}

/// What goes with the tokens of an answer, as far as it is not in a frame yet.
pub(crate) enum Beside {
    Nothing,
    /// Logprobs, which the buyer asks for.
    Logprobs(Vec<Logprobs>),
    /// The vector, which is what the model makes.
    Vector(Option<Vec<i32>>),
}

/// Why an answer gets no receipt: the engine, in these words.
pub(crate) type Broken = &'static str;

impl Progress {
    /// Before the first token.
    pub(crate) fn new(order: OrderHash, beside: Beside) -> Self {
        let state = State::start(order);
        Self { output: Vec::new(), states: Vec::new(), came: None, state, beside }
    }

    /// Takes the next delta; true if it is the last. An engine that does not end where the order's
    /// rules say is not trusted with a receipt.
    pub(crate) fn take(&mut self, delta: Option<Delta>, ending: &Ending) -> Result<bool, Broken> {
        let due = ending.at(&self.output);
        match (delta, due) {
            (Some(Delta::Token { token, hidden, logprobs }), None) => {
                match (&mut self.beside, logprobs) {
                    (Beside::Nothing, _) => {}
                    (Beside::Logprobs(rated), Some(logprobs)) => rated.push(*logprobs),
                    (Beside::Logprobs(_), None) => return Err("the engine gave no logprobs"),
                    (Beside::Vector(Some(vector)), _) if vector_hash(vector) == hidden => {}
                    (Beside::Vector(Some(_)), _) => return Err("the engine hashed another vector"),
                    (Beside::Vector(None), _) => return Err("the engine gave no vector"),
                }
                let now = Instant::now();
                self.came = Some((self.came.map_or(now, |(first, _)| first), now));
                self.output.push(token);
                self.state = self.state.next(token, hidden);
                self.states.push(self.state.0);
                Ok(false)
            }
            (Some(Delta::Vector(vector)), None) => match &mut self.beside {
                Beside::Vector(none @ None) => {
                    *none = Some(vector);
                    Ok(false)
                }
                _ => Err("the engine gave a vector that nobody asked for"),
            },
            (Some(Delta::Done(finish)), Some(due)) if finish == due => Ok(true),
            (Some(Delta::Token { .. } | Delta::Vector(_)), Some(_)) => {
                Err("the engine did not stop")
            }
            (Some(Delta::Done(_)), _) => Err("the engine stopped for no reason"),
            (None, _) => Err("the engine closed the answer early"),
        }
    }

    /// The frames of the tokens from place `sent` on, which are in none yet, and of what goes with them.
    pub(crate) fn frames(&mut self, sent: usize) -> impl Iterator<Item = Frame> {
        let (vector, rated) = match &mut self.beside {
            Beside::Nothing => (None, None),
            Beside::Logprobs(rated) => (None, Some(std::mem::take(rated))),
            Beside::Vector(vector) => (vector.take(), None),
        };
        let tokens = || Frame::Tokens(self.output[sent..].to_vec());
        let tokens = rated.map_or_else(tokens, Frame::Logprobs);
        vector.map(Frame::Vector).into_iter().chain([tokens])
    }

    /// Number of output tokens.
    pub(crate) fn tokens(&self) -> u32 {
        u32::try_from(self.output.len()).expect("outputs are shorter than a context")
    }
}

/// What an answer of `tokens` tokens costs.
pub(crate) fn cost(begun: &Begun, tokens: u32) -> Amount {
    begun.offer.price(begun.prompt_tokens, tokens)
}

/// The answer with its signed receipt. `finished` is in Unix milliseconds.
pub(crate) fn seal(
    begun: &Begun,
    output: &[u32],
    states: &[B256],
    finished: u64,
    tokenizer: Option<&Arc<Tokenizer>>,
    signer: &Signer,
) -> Kept {
    let ending = begun.ending();
    let finish = ending.at(output).unwrap_or(Finish::Cancelled);
    let text = match tokenizer {
        Some(tokenizer) => tokenizer.decode(&output[..ending.text_len(output, finish)]),
        None => String::new(),
    };
    let output_tokens = u32::try_from(output.len()).expect("outputs are shorter than a context");
    let price = cost(begun, output_tokens);
    let paid = begun.channel != ChannelId::default();
    let before = begun.charged;
    let after = if paid { Amount(before.0.saturating_add(price.0)) } else { before };
    let mut states = states.to_vec();
    // Nobody but who computes the answer sees which state is false. Without a token there is none to be.
    if let (Some(mark), Some(last)) = (begun.mark, states.last_mut()) {
        *last = mark;
    }
    let receipt = Receipt {
        order: begun.order,
        provider: signer.key.address(),
        output: token_root(output),
        output_tokens,
        text: keccak256(text),
        finish,
        state: states.last().copied().unwrap_or_else(|| State::start(begun.order).0),
        assurance: begun.offer.assurance,
        asset: begun.offer.asset,
        price,
        channel: begun.channel,
        channel_before: before,
        channel_after: after,
        started: begun.started,
        // A clock that was set back meanwhile does not make the receipt invalid.
        finished: finished.max(begun.started),
    };
    let signature = receipt.sign(signer.chain, &signer.key);
    let sealed = Sealed { receipt, signature, output: output.to_vec(), states };
    Kept { order_signature: begun.signature, sealed, ordered: begun.ordered.clone() }
}

/// Seals what a crash, or a disk that failed, left of answers: those on `channel`, or all. What was
/// delivered and is not on disk is lost to the provider; it is worth no more than its credit. Nothing is
/// charged for an answer of which nothing is there.
///
/// Returns how many could not be sealed, because their models are not served any more: without the
/// tokenizer nobody can say their text.
pub(crate) async fn settle_left(
    store: &Store,
    channel: Option<ChannelId>,
    served: impl Fn(&Begun) -> Option<Served>,
    signer: &Signer,
) -> Result<usize, StoreError> {
    let mut stuck = 0;
    for Left { begun, output, states } in store.read(move |read| left(read, channel)).await? {
        if output.is_empty() {
            store.write(move |write| forget(write, begun.order, begun.channel)).await?;
            continue;
        }
        let Some(served) = served(&begun) else {
            tracing::warn!(order = %begun.order, model = %begun.model, "an unfinished answer waits until its model is served again");
            stuck += 1;
            continue;
        };
        let answer = seal(&begun, &output, &states, now_ms(), served.tokenizer.as_ref(), signer);
        let digest = answer.sealed.receipt.digest(signer.chain);
        tracing::info!(order = %begun.order, tokens = output.len(), "sealed what was left of an answer");
        store.write(move |write| keep(write, begun.order, &answer, digest)).await?;
    }
    Ok(stuck)
}
