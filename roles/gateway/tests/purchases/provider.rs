//! A provider that says what a test wants it to say, lies included, over real sockets.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use assay_protocol::wire::{
    Accepts, Frame, Offers, Payment, Position, Refusal, Sealed, SignedOffer, Submission, TopUp,
};
use assay_protocol::{
    Address, Amount, Assurance, B256, ChannelId, Ending, Finish, Key, Logprobs, Offer, OrderHash,
    Receipt, Signature, State, Use, Voucher, check_grants, keccak256, token_root, vector_hash,
};
use assay_text::Tokenizer;
use axum::body::{Body, BodyDataStream};
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

use crate::bank::{CHANNELS, MARKET, TOKEN, Vault, till};
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
    /// The receipt takes up the channel where it never was.
    Position,
    /// The receipt names another channel.
    Channel,
    /// It asks for more than the order can cost.
    Greed,
    /// It takes the voucher and sends nothing.
    Silence,
    /// It charges for an answer that broke off, and has none to show.
    Unproven,
    /// It charges for an answer that broke off, and shows another.
    OtherAnswer,
    /// Logprobs are left out.
    Unrated,
    /// A token is likelier than certain.
    TooLikely,
    /// Logprobs come that nobody asked for.
    Unasked,
    /// Another vector comes than the receipt is signed for.
    Vector,
    /// No vector comes.
    NoVector,
    /// Vectors come that nobody asked for, without end.
    Vectors,
}

/// Tokens with the logprobs that their buyer asks for, or as the lie has it. Every token is as likely as
/// its id is low.
fn frame(submission: &Submission, lie: Option<Lie>, tokens: Vec<u32>) -> Frame {
    let asked = match lie {
        Some(Lie::Unrated) => None,
        Some(Lie::Unasked) => Some(0),
        _ => submission.logprobs,
    };
    let Some(top) = asked else { return Frame::Tokens(tokens) };
    let logprob = |token: u32| -i32::try_from(token).unwrap() << 16;
    let is_lie = lie == Some(Lie::TooLikely);
    let said = |token| Logprobs {
        token,
        logprob: if is_lie { 1 } else { logprob(token) },
        top: (0..u32::from(top)).map(|token| (token, logprob(token))).collect(),
    };
    Frame::Logprobs(tokens.into_iter().map(said).collect())
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
    /// What it gives before its end token.
    pub(crate) vector: Option<Vec<i32>>,
}

/// A channel, as the provider keeps it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(crate) charged: u128,
    pub(crate) voucher: TopUp,
    pub(crate) busy: bool,
}

/// How a provider is paid.
#[derive(Clone, Debug)]
pub(crate) struct Till {
    pub(crate) vault: Arc<Vault>,
    /// What it delivers beyond what vouchers allow.
    pub(crate) credit: u128,
    /// Where the grants can be taken back that it takes orders under.
    pub(crate) grants: Address,
}

/// A paid order that runs.
struct Tab {
    id: ChannelId,
    signer: Address,
    charged: u128,
    claimable: u128,
    /// Bytes of the next vouchers.
    lines: BodyDataStream,
    bytes: Vec<u8>,
}

/// What has happened to a provider.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) orders: Vec<OrderHash>,
    /// Whether others could have gone before each order.
    pub(crate) flex: Vec<bool>,
    pub(crate) deletes: Vec<OrderHash>,
    /// What was asked for while answers were paused, and what came.
    pub(crate) dues: Vec<(u128, u128)>,
    /// Questions for positions.
    pub(crate) positions: usize,
    /// Most orders that ran at once.
    pub(crate) at_once: usize,
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
    /// How it is paid, if it is.
    pub(crate) paid: Option<Till>,
    pub(crate) accounts: Mutex<HashMap<ChannelId, Account>>,
    /// Answers to orders of clients that were sealed, for who asks again.
    kept: Mutex<HashMap<OrderHash, Sealed>>,
}

impl Scripted {
    /// Starts a provider that asks `price` for a million tokens; returns it with its URL.
    pub(crate) async fn start(
        name: u8,
        price: u128,
        running_max: u32,
        tokenizer: Arc<Tokenizer>,
        paid: Option<Till>,
    ) -> (Arc<Self>, String) {
        let provider = Arc::new(Self {
            key: Key::from_bytes([name; 32]).unwrap(),
            price,
            tokenizer,
            act: Mutex::default(),
            seen: Mutex::default(),
            running: Mutex::default(),
            running_max,
            paid,
            accounts: Mutex::default(),
            kept: Mutex::default(),
        });
        let router = Router::new()
            .route("/v1/offers", get(offers))
            .route("/v1/orders", post(submit))
            .route("/v1/orders/{hash}", axum::routing::delete(cancel).get(sealed))
            .route("/v1/channels/{id}", get(position))
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
        mut tab: Option<Tab>,
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
        if act.lie == Some(Lie::Silence) {
            frames.closed().await;
            return;
        }
        let mut output = Vec::new();
        while act.lie == Some(Lie::Vectors) {
            if frames.send(Frame::Vector(vec![1, 2])).await.is_err() {
                return;
            }
        }
        if let Some(mut vector) = act.vector.clone().filter(|_| act.lie != Some(Lie::NoVector)) {
            if act.lie == Some(Lie::Vector) {
                vector[0] ^= 1;
            }
            // The buyer may have hung up.
            let _ = frames.send(Frame::Vector(vector)).await;
        }
        let pieces = act.pieces.iter().cloned().chain([vec![EOS]]);
        for (index, piece) in pieces.enumerate() {
            if act.breaks_after == Some(index) {
                if tab.is_some() {
                    let hash = submission.order.hash(CHAIN);
                    if act.lie == Some(Lie::OtherAnswer) {
                        output[0] ^= 1;
                    }
                    let sealed = self.seal(submission, &ending, output, None, tab);
                    if act.lie != Some(Lie::Unproven) {
                        self.kept.lock().unwrap().insert(hash, sealed);
                    }
                }
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
            if let Some(tab) = &mut tab {
                let price = |tokens: usize| {
                    let tokens = u32::try_from(tokens).unwrap().min(submission.order.max_tokens);
                    self.offer().price(submission.order.prompt_tokens, tokens).0
                };
                let next = tab.charged + price(output.len() + piece.len());
                let mut most = tab.charged + price(usize::from(u16::MAX));
                most += u128::from(act.lie == Some(Lie::Greed));
                if !self.is_covered(tab, next, most, &frames, &stopped).await {
                    break;
                }
            }
            let mut sent = Vec::new();
            for token in piece {
                if ending.at(&output).is_none() {
                    output.push(token);
                    sent.push(token);
                }
            }
            if frames.send(frame(submission, act.lie, sent)).await.is_err() {
                break;
            }
        }
        if act.lie == Some(Lie::Overrun) {
            output.push(5);
            frames.send(Frame::Tokens(vec![5])).await.unwrap();
        }
        let sealed = self.seal(submission, &ending, output, act.lie, tab);
        if act.lie.is_none() {
            self.kept.lock().unwrap().insert(submission.order.hash(CHAIN), sealed.clone());
        }
        let last = Frame::Sealed(Box::new(sealed));
        // The buyer may have hung up.
        let _ = frames.send(last).await;
    }

    fn accepts(&self) -> Option<Accepts> {
        let Till { credit, grants, .. } = self.paid.as_ref()?;
        Some(Accepts {
            channels: CHANNELS.contract,
            market: MARKET,
            token: TOKEN,
            receiver: till(self.key.address()),
            receiver_authorizer: self.key.address(),
            withdraw_delay_min: 900,
            credit_max: Amount(*credit),
            grants: *grants,
        })
    }

    pub(crate) fn account(&self, id: ChannelId) -> Account {
        self.accounts.lock().unwrap()[&id]
    }

    /// Takes an order's payment, by the rules of a real provider.
    fn admit(
        &self,
        submission: &Submission,
        lines: BodyDataStream,
        bytes: Vec<u8>,
    ) -> Result<Option<Tab>, Refusal> {
        let Some(Till { vault, credit, grants }) = &self.paid else {
            assert!(submission.payment.is_none() && submission.grants.is_empty());
            assert!(submission.order.market.is_zero() && submission.order.grant.is_zero());
            return Ok(None);
        };
        let order = &submission.order;
        assert_eq!(order.market, MARKET);
        let Payment { channel, voucher } = submission.payment.as_ref().ok_or(Refusal::Unpaid)?;
        if submission.grants.is_empty() {
            assert_eq!(channel.payer_authorizer, order.buyer);
            assert!(order.grant.is_zero());
        } else {
            let wanted = Use {
                chain: CHAIN,
                registry: *grants,
                payer: channel.payer,
                buyer: order.buyer,
                model: order.model,
                asset: order.asset,
                max_price: order.max_price,
                now: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs(),
            };
            let digests = check_grants(&submission.grants, &wanted).unwrap();
            assert_eq!(digests.last(), Some(&order.grant));
            let issuers = submission.grants.iter().map(|signed| signed.grant.issuer);
            assert!(issuers.chain([order.buyer]).any(|key| key == channel.payer_authorizer));
        }
        assert_eq!(channel.receiver, till(self.key.address()));
        assert_eq!(channel.receiver_authorizer, self.key.address());
        assert_eq!((channel.token, channel.withdraw_delay), (TOKEN, 900));
        let (id, found) = (channel.id(&CHANNELS), voucher.claimable);
        let signed = Voucher { channel: id, claimable: found };
        assert_eq!(signed.signer(&CHANNELS, &voucher.signature), Ok(channel.payer_authorizer));
        let mut accounts = self.accounts.lock().unwrap();
        let account =
            accounts.entry(id).or_insert(Account { charged: 0, voucher: *voucher, busy: false });
        if account.busy {
            return Err(Refusal::ChannelBusy { channel: id });
        }
        let prompt = self.offer().price(order.prompt_tokens, 0).0;
        let least =
            account.voucher.claimable.0.max((account.charged + prompt).saturating_sub(*credit));
        if found.0 < least {
            return Err(Refusal::Voucher { found, expected: Amount(least) });
        }
        let held = vault.channel(id).balance;
        if held < found {
            return Err(Refusal::Deposit { found: held, expected: found });
        }
        (account.voucher, account.busy) = (*voucher, true);
        let (signer, charged, claimable) = (channel.payer_authorizer, account.charged, found.0);
        let busy = accounts.values().filter(|account| account.busy).count();
        let mut seen = self.seen.lock().unwrap();
        seen.at_once = seen.at_once.max(busy);
        Ok(Some(Tab { id, signer, charged, claimable, lines, bytes }))
    }

    /// Whether `next` of the channel is covered, after a pause if need be.
    async fn is_covered(
        &self,
        tab: &mut Tab,
        next: u128,
        most: u128,
        frames: &mpsc::Sender<Frame>,
        stopped: &CancellationToken,
    ) -> bool {
        let Till { vault, credit, .. } = self.paid.as_ref().unwrap();
        while next > tab.claimable + credit {
            if frames.send(Frame::Due(Amount(most))).await.is_err() {
                return false;
            }
            let line = tokio::select! {
                () = stopped.cancelled() => None,
                () = frames.closed() => None,
                line = line(&mut tab.lines, &mut tab.bytes) => line,
            };
            let Some(line) = line else { return false };
            let top_up: TopUp = serde_json::from_slice(&line).unwrap();
            let voucher = Voucher { channel: tab.id, claimable: top_up.claimable };
            assert_eq!(voucher.signer(&CHANNELS, &top_up.signature), Ok(tab.signer));
            assert!(top_up.claimable.0 > tab.claimable && top_up.claimable.0 <= most);
            assert!(top_up.claimable <= vault.channel(tab.id).balance);
            tab.claimable = top_up.claimable.0;
            self.accounts.lock().unwrap().get_mut(&tab.id).unwrap().voucher = top_up;
            self.seen.lock().unwrap().dues.push((most, tab.claimable));
        }
        true
    }

    fn seal(
        &self,
        submission: &Submission,
        ending: &Ending,
        mut output: Vec<u32>,
        lie: Option<Lie>,
        tab: Option<Tab>,
    ) -> Sealed {
        let order = submission.order.hash(CHAIN);
        let finish = ending.at(&output).unwrap_or(Finish::Cancelled);
        let mut text = self.tokenizer.decode(&output[..ending.text_len(&output, finish)]);
        let tokens = u32::try_from(output.len()).unwrap();
        let mut state = State::start(order);
        let mut states = Vec::new();
        let vector = self.act.lock().unwrap().vector.clone();
        let hidden = vector.map_or(B256::ZERO, |vector| vector_hash(&vector));
        for &token in &output {
            state = state.next(token, hidden);
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
        let (mut channel, mut before, mut after) = (ChannelId::default(), 0, 0);
        if let Some(tab) = tab {
            (channel, before, after) = (tab.id, tab.charged, tab.charged + price.0);
            let mut accounts = self.accounts.lock().unwrap();
            let account = accounts.get_mut(&tab.id).unwrap();
            (account.charged, account.busy) = (after, false);
            match lie {
                Some(Lie::Position) => (before, after) = (before + 1, after + 1),
                Some(Lie::Channel) => channel = ChannelId(B256::repeat_byte(9)),
                _ => {}
            }
        }
        let receipt = Receipt {
            order: receipt_order,
            provider: names.address(),
            output: token_root(&output),
            output_tokens: tokens,
            text: keccak256(text),
            finish,
            state: state.0,
            assurance: submission.order.assurance,
            asset: Address::ZERO,
            price,
            channel,
            channel_before: Amount(before),
            channel_after: Amount(after),
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
        accepts: provider.accepts(),
    })
}

async fn sealed(
    Shared(provider): Shared<Arc<Scripted>>,
    Path(hash): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Sealed>, StatusCode> {
    assert!(headers["authorization"].to_str().unwrap().starts_with("Bearer 0x"));
    let kept = provider.kept.lock().unwrap();
    kept.get(&hash.parse().unwrap()).cloned().map(Json).ok_or(StatusCode::NOT_FOUND)
}

async fn position(
    Shared(provider): Shared<Arc<Scripted>>,
    Path(id): Path<String>,
) -> Result<Json<Position>, StatusCode> {
    provider.seen.lock().unwrap().positions += 1;
    let accounts = provider.accounts.lock().unwrap();
    let account = accounts.get(&id.parse().unwrap()).ok_or(StatusCode::NOT_FOUND)?;
    Ok(Json(Position { charged: Amount(account.charged), voucher: account.voucher }))
}

/// The next line of a body; none once it has ended.
async fn line(lines: &mut BodyDataStream, bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    loop {
        if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            return Some(bytes.drain(..=end).collect());
        }
        match lines.next().await {
            Some(Ok(chunk)) => bytes.extend_from_slice(&chunk),
            _ if bytes.is_empty() => return None,
            _ => return Some(std::mem::take(bytes)),
        }
    }
}

async fn submit(Shared(provider): Shared<Arc<Scripted>>, body: Body) -> Response {
    let (mut lines, mut bytes) = (body.into_data_stream(), Vec::new());
    let first = line(&mut lines, &mut bytes).await.unwrap();
    let submission: Submission = serde_json::from_slice(&first).unwrap();
    let Submission { order, signature, terms, .. } = &submission;
    let hash = order.check(CHAIN, signature, terms).unwrap();
    {
        let mut seen = provider.seen.lock().unwrap();
        seen.orders.push(hash);
        seen.flex.push(submission.flex);
    }
    let act = provider.act.lock().unwrap().clone();
    if let Some(refusal) = act.refuse {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(refusal)).into_response();
    }
    let before = provider.kept.lock().unwrap().get(&hash).cloned();
    if let Some(sealed) = before {
        return frames([Frame::Tokens(sealed.output.clone()), Frame::Sealed(Box::new(sealed))]);
    }
    let tab = match provider.admit(&submission, lines, bytes) {
        Ok(tab) => tab,
        Err(refusal) => return (StatusCode::PAYMENT_REQUIRED, Json(refusal)).into_response(),
    };
    let stopped = CancellationToken::new();
    *provider.running.lock().unwrap() = Some((hash, stopped.clone()));
    let (sender, frames) = mpsc::channel(1);
    tokio::spawn(async move { provider.play(&submission, act, stopped, tab, sender).await });
    let lines = ReceiverStream::new(frames)
        .map(|frame| serde_json::to_string(&frame).map(|line| line + "\n"));
    Body::from_stream(lines).into_response()
}

/// A reply of these frames.
fn frames(frames: [Frame; 2]) -> Response {
    let lines = frames.map(|frame| serde_json::to_string(&frame).unwrap() + "\n");
    lines.concat().into_response()
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
