//! A provider that says what a test wants it to say, lies included, over real sockets.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use assay_protocol::wire::{Frame, Offers, Refusal, Sealed, SignedOffer, Submission};
use assay_protocol::{
    Address, Amount, Assurance, B256, ChannelId, Ending, Finish, Key, Offer, OrderHash, Receipt,
    Signature, State, keccak256, token_root,
};
use assay_text::Tokenizer;
use axum::body::Body;
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::stage::{CHAIN, CONTEXT, EOS, MODEL};

/// What a provider signs that is not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// The signature is somebody else's.
    Signer,
    /// The whole receipt is somebody else's.
    Provider,
    /// The text is another.
    Text,
    /// The price is above the offer's.
    Price,
    /// The price is below the offer's, which is no lie.
    Cheaper,
    /// Frames of no tokens follow each other for ever.
    Nothing,
    /// A cancelled order goes on, token by token.
    Deaf,
    /// The sealed tokens are not those that were sent.
    Output,
    /// Tokens follow the end of the answer.
    Overrun,
    /// The listed states lead elsewhere.
    States,
    /// The receipt is for another order.
    Order,
}

/// How the next orders are answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Act {
    pub(crate) refuse: Option<Refusal>,
    /// Output tokens, frame by frame; an end token follows.
    pub(crate) pieces: Vec<Vec<u32>>,
    /// One permit per frame, if frames have to wait.
    pub(crate) pace: Option<Arc<Semaphore>>,
    pub(crate) lie: Option<Lie>,
    /// The stream breaks off after so many frames.
    pub(crate) breaks_after: Option<usize>,
    /// The only frame.
    pub(crate) fails: Option<Refusal>,
}

/// What has happened to a provider.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) orders: Vec<OrderHash>,
    pub(crate) deletes: Vec<OrderHash>,
}

pub(crate) struct Scripted {
    key: Key,
    price: u128,
    tokenizer: Arc<Tokenizer>,
    pub(crate) act: Mutex<Act>,
    pub(crate) seen: Mutex<Seen>,
    /// The order that runs, and how to stop it.
    running: Mutex<Option<(OrderHash, CancellationToken)>>,
    pub(crate) running_max: u32,
}

impl Scripted {
    /// Starts a provider that asks `price` for a million tokens; returns it with its URL.
    pub(crate) async fn start(
        name: u8,
        price: u128,
        running_max: u32,
        tokenizer: Arc<Tokenizer>,
    ) -> (Arc<Self>, String) {
        let provider = Arc::new(Self {
            key: Key::from_bytes([name; 32]).unwrap(),
            price,
            tokenizer,
            act: Mutex::default(),
            seen: Mutex::default(),
            running: Mutex::default(),
            running_max,
        });
        let router = Router::new()
            .route("/v1/offers", get(offers))
            .route("/v1/orders", post(submit))
            .route("/v1/orders/{hash}", axum::routing::delete(cancel))
            .with_state(Arc::clone(&provider));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (provider, url)
    }

    /// Answers the next orders with `text`, one frame per word and its space.
    pub(crate) fn says(&self, text: &str) {
        let words = text.split_inclusive(' ');
        let pieces = words.map(|word| self.tokenizer.encode_plain(word)).collect();
        *self.act.lock().unwrap() = Act { pieces, ..Act::default() };
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Act)) {
        change(&mut self.act.lock().unwrap());
    }

    pub(crate) fn orders(&self) -> usize {
        self.seen.lock().unwrap().orders.len()
    }

    pub(crate) fn deletes(&self) -> usize {
        self.seen.lock().unwrap().deletes.len()
    }

    fn offer(&self) -> Offer {
        Offer {
            provider: self.key.address(),
            model: MODEL,
            assurance: Assurance::Replayable,
            asset: Address::ZERO,
            price_in: Amount(self.price * 1_000_000),
            price_out: Amount(self.price * 1_000_000),
            context: CONTEXT,
            expires: u64::MAX,
        }
    }

    /// Plays `act` for an order.
    async fn play(
        &self,
        submission: &Submission,
        act: Act,
        stopped: CancellationToken,
        frames: mpsc::Sender<Frame>,
    ) {
        let ending = Ending {
            eos: vec![EOS],
            stops: submission.terms.stops.clone(),
            tokens_max: submission.order.max_tokens,
        };
        if let Some(refusal) = act.fails {
            frames.send(Frame::Failed(refusal)).await.unwrap();
            return;
        }
        while act.lie == Some(Lie::Nothing) {
            if frames.send(Frame::Tokens(vec![])).await.is_err() {
                return;
            }
        }
        if act.lie == Some(Lie::Deaf) {
            while frames.send(Frame::Tokens(vec![10])).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            return;
        }
        let mut output = Vec::new();
        let pieces = act.pieces.iter().cloned().chain([vec![EOS]]);
        for (index, piece) in pieces.enumerate() {
            if act.breaks_after == Some(index) {
                return;
            }
            if let Some(pace) = &act.pace {
                tokio::select! {
                    biased;
                    () = stopped.cancelled() => break,
                    () = frames.closed() => break,
                    permit = pace.acquire() => permit.unwrap().forget(),
                }
            }
            if stopped.is_cancelled() || ending.at(&output).is_some() {
                break;
            }
            let mut sent = Vec::new();
            for token in piece {
                if ending.at(&output).is_none() {
                    output.push(token);
                    sent.push(token);
                }
            }
            if frames.send(Frame::Tokens(sent)).await.is_err() {
                break;
            }
        }
        if act.lie == Some(Lie::Overrun) {
            output.push(5);
            frames.send(Frame::Tokens(vec![5])).await.unwrap();
        }
        let last = Frame::Sealed(Box::new(self.seal(submission, &ending, output, act.lie)));
        // The buyer may have hung up.
        let _ = frames.send(last).await;
    }

    fn seal(
        &self,
        submission: &Submission,
        ending: &Ending,
        mut output: Vec<u32>,
        lie: Option<Lie>,
    ) -> Sealed {
        let order = submission.order.hash(CHAIN);
        let finish = ending.at(&output).unwrap_or(Finish::Cancelled);
        let mut text = self.tokenizer.decode(&output[..ending.text_len(&output, finish)]);
        let tokens = u32::try_from(output.len()).unwrap();
        let mut state = State::start(order);
        let mut states = Vec::new();
        for &token in &output {
            state = state.next(token, B256::ZERO);
            states.push(state.0);
        }
        let mut price = self.offer().price(submission.order.prompt_tokens, tokens);
        let mut receipt_order = order;
        match lie {
            Some(Lie::Text) => text.push('!'),
            Some(Lie::Price) => price.0 += 1,
            Some(Lie::Cheaper) => price.0 -= 1,
            Some(Lie::Output) => output[0] ^= 1,
            Some(Lie::States) => *states.last_mut().unwrap() = B256::ZERO,
            Some(Lie::Order) => receipt_order = OrderHash(B256::ZERO),
            _ => {}
        }
        let stranger = Key::from_bytes([77; 32]).unwrap();
        let (names, signs) = match lie {
            Some(Lie::Signer) => (&self.key, &stranger),
            Some(Lie::Provider) => (&stranger, &stranger),
            _ => (&self.key, &self.key),
        };
        let receipt = Receipt {
            order: receipt_order,
            provider: names.address(),
            output: token_root(&output),
            output_tokens: tokens,
            text: keccak256(text),
            finish,
            state: state.0,
            assurance: Assurance::Replayable,
            asset: Address::ZERO,
            price,
            channel: ChannelId::default(),
            channel_before: Amount(0),
            channel_after: Amount(0),
            started: 1,
            finished: 2,
        };
        let signature = receipt.sign(CHAIN, signs);
        Sealed { receipt, signature, output, states }
    }
}

async fn offers(Shared(provider): Shared<Arc<Scripted>>) -> Json<Offers> {
    let offer = provider.offer();
    let signature = offer.sign(CHAIN, &provider.key);
    Json(Offers {
        provider: offer.provider,
        chain_id: CHAIN,
        offers: vec![SignedOffer { offer, signature }],
        running: 0,
        running_max: provider.running_max,
        accepts: None,
    })
}

async fn submit(
    Shared(provider): Shared<Arc<Scripted>>,
    Json(submission): Json<Submission>,
) -> Response {
    let Submission { order, signature, terms, .. } = &submission;
    let hash = order.check(CHAIN, signature, terms).unwrap();
    provider.seen.lock().unwrap().orders.push(hash);
    let act = provider.act.lock().unwrap().clone();
    if let Some(refusal) = act.refuse {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(refusal)).into_response();
    }
    let stopped = CancellationToken::new();
    *provider.running.lock().unwrap() = Some((hash, stopped.clone()));
    let (sender, frames) = mpsc::channel(1);
    tokio::spawn(async move { provider.play(&submission, act, stopped, sender).await });
    let lines = ReceiverStream::new(frames)
        .map(|frame| serde_json::to_string(&frame).map(|line| line + "\n"));
    Body::from_stream(lines).into_response()
}

async fn cancel(
    Shared(provider): Shared<Arc<Scripted>>,
    Path(hash): Path<String>,
    headers: HeaderMap,
) -> StatusCode {
    let hash: OrderHash = hash.parse().unwrap();
    let signature = headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
    let signature: Signature = serde_json::from_value(signature.into()).unwrap();
    assert!(signature.signer(hash.0).is_ok());
    provider.seen.lock().unwrap().deletes.push(hash);
    match &*provider.running.lock().unwrap() {
        Some((running, stopped)) if *running == hash => stopped.cancel(),
        _ => return StatusCode::NOT_FOUND,
    }
    StatusCode::NO_CONTENT
}
