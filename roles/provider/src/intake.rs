//! Takes orders in: reads them, has them decided on, and starts their answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use assay_protocol::wire::{Frame, Payment as Offered, Refusal, Sealed, Submission, TopUp};
use assay_protocol::{Amount, Channel, ChannelId, Finish, Offer, OrderHash};
use axum::body::Body;
use redb::ReadTransaction;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::account::{Account, Tab, accept_channel, accept_voucher};
use crate::admit::{Under, admit, delegated, recognise};
use crate::body::Lines;
use crate::grants::Hold;
use crate::http::Seller;
use crate::lanes::{Lane, Lanes};
use crate::now_ms;
use crate::seal::{Beside, settle_left};
use crate::serve::{Answering, frames_max, serve};
use crate::store::{self, Begun, Kept, Ordered, StoreError};
use crate::tab::Paid;

/// Longest submission, in bytes, without its prompt: most of it are stop sequences and biases.
const SUBMISSION_BYTES_BASE: usize = 256 << 10;

/// Bytes of one prompt token: ten digits, a comma and a blank.
const TOKEN_BYTES_MAX: usize = 12;

/// Long submissions read at once; more wait their turn. What is read takes a few times the memory
/// of its bytes, whatever they say.
const READING_MAX: usize = 64;

/// Submissions up to so many bytes need no turn.
const SHORT_BYTES_MAX: usize = 64 << 10;

/// Longest wait for a turn.
const TURN_WAIT_MAX: Duration = Duration::from_secs(10);

/// Longest wait for a submission's bytes, that for a turn included.
const READ_WAIT_MAX: Duration = Duration::from_secs(30);

/// How much is read at once.
pub(crate) struct Intake {
    reading: Arc<Semaphore>,
    /// Longest submission: a prompt that fills the longest context served.
    bytes_max: usize,
}

impl Intake {
    pub(crate) fn new(context_max: u32) -> Self {
        Self {
            reading: Arc::new(Semaphore::new(READING_MAX)),
            bytes_max: SUBMISSION_BYTES_BASE + TOKEN_BYTES_MAX * context_max as usize,
        }
    }
}

/// Admits the order in `body` and starts it, or replays its sealed answer.
pub(crate) async fn accept(
    seller: &Arc<Seller>,
    body: Body,
) -> Result<mpsc::Receiver<Frame>, Refusal> {
    let mut lines = Lines::new(body);
    let (submission, hash) = read(seller, &mut lines).await?;
    let before = match stored(seller, hash).await? {
        Stored::Finished(sealed) => return Ok(replay(sealed)),
        Stored::Cancelled(sealed) => Some(sealed),
        Stored::Nothing => None,
    };
    match (start(seller, &submission, hash, lines).await, before) {
        // What was sealed is owed to whoever asks again, even if no more can be had now.
        (Err(refusal), Some(sealed)) if !matches!(refusal, Refusal::Running { .. }) => {
            tracing::debug!(order = %hash, %refusal, "replaying what was sealed");
            Ok(replay(sealed))
        }
        (started, _) => started,
    }
}

/// Starts to answer an order; `lines` may bring more vouchers.
async fn start(
    seller: &Arc<Seller>,
    submission: &Submission,
    hash: OrderHash,
    lines: Lines,
) -> Result<mpsc::Receiver<Frame>, Refusal> {
    let (since, order) = (Instant::now(), &submission.order);
    let model = order.model;
    let served = seller.models.get(&model).ok_or(Refusal::UnknownModel { model })?;
    let now = now_ms();
    let offer = seller.offer(served, now / 1000);
    let accepts = seller.lanes.as_ref().map(|lanes| &lanes.payment().accepts);
    let mut job = admit(submission, hash, served, &offer, accepts, now / 1000)?;
    // An order may ask for less than is offered, at the same price; its receipt says what it asked for.
    let offer = Offer { assurance: order.assurance, ..offer };
    let under = accepts.map_or(Ok(Vec::new()), |a| delegated(submission, a, now / 1000))?;
    let pays = seller.lanes.as_ref().map(|lanes| pays(lanes, submission)).transpose()?;
    let slot = seller.slots.take(hash, submission.signature)?;
    let mut begun = Begun {
        order: hash,
        signature: submission.signature,
        model,
        prompt_tokens: order.prompt_tokens,
        eos: job.ending.eos.clone(),
        stops: job.ending.stops.clone(),
        tokens_max: job.ending.tokens_max,
        offer,
        channel: ChannelId::default(),
        charged: Amount(0),
        grants: under.iter().map(|under| under.digest).collect(),
        ordered: Some(Ordered { order: order.clone(), terms: submission.terms.clone() }),
        mark: seller.canaries.as_ref().and_then(|canaries| canaries.mark_of(hash, order.buyer)),
        started: now,
    };
    let paid = match pays {
        Some(pays) => Some(open(seller, pays, &begun, under, lines).await?),
        None => None,
    };
    // Asked again, because the same order may have been sealed just before the slot was free, or
    // was left unfinished by a crash and is sealed now.
    let before = match stored(seller, hash).await? {
        Stored::Finished(sealed) => return Ok(replay(sealed)),
        Stored::Cancelled(sealed) => Some(sealed),
        Stored::Nothing => None,
    };
    if let Some(paid) = &paid {
        not_elsewhere(seller, hash, paid.lane.id).await?;
        (begun.channel, begun.charged) = (paid.lane.id, paid.tab.charged);
    }
    let wait_max = seller.lanes.as_ref().map_or(Duration::ZERO, |l| l.payment().voucher_wait_max);
    let (sender, frames) = mpsc::channel(frames_max(job.ending.tokens_max));
    let answering = Answering {
        since,
        begun,
        beside: match job.logprobs {
            Some(_) => Beside::Logprobs(Vec::new()),
            None if served.makes_vectors => Beside::Vector(None),
            None => Beside::Nothing,
        },
        figures: Arc::clone(&seller.figures),
        ending: job.ending.clone(),
        signer: seller.signer.clone(),
        tokenizer: served.tokenizer.clone(),
        before,
        paid,
        wait_max,
        deadline: order.deadline,
        store: seller.store.clone(),
    };
    // Late, because it costs most: whoever has it done has a slot, and pays where answers are paid.
    if let Some(text) = &submission.terms.grammar {
        job.grammar = Some(Box::new(seller.compilers.compile(served, text).await?));
    }
    if let Some(what) = served.backend.unable(&job) {
        return Err(Refusal::NotOffered { what: what.into() });
    }
    let deltas = served.backend.run(job).map_err(|busy| Refusal::Busy {
        running_max: u32::try_from(busy.queue_max).unwrap_or(u32::MAX),
    })?;
    seller.slots.tasks.spawn(serve(answering, deltas, slot, sender));
    if let Some(canaries) = &seller.canaries {
        canaries.notice(order, &submission.terms, served.context, now / 1000);
    }
    Ok(frames)
}

/// A channel that this provider takes, and a voucher that its payer signed.
struct Pays {
    lanes: Lanes,
    id: ChannelId,
    channel: Channel,
    voucher: TopUp,
}

/// What pays for an order, as far as it can be judged from its bytes.
fn pays(lanes: &Lanes, submission: &Submission) -> Result<Pays, Refusal> {
    let Some(Offered { channel, voucher }) = &submission.payment else {
        return Err(Refusal::Unpaid);
    };
    let issuers = submission.grants.iter().map(|signed| signed.grant.issuer);
    accept_channel(channel, submission.order.buyer, issuers, &lanes.payment().accepts)?;
    let id = channel.id(lanes.channels());
    accept_voucher(lanes.channels(), id, voucher, channel.payer_authorizer)?;
    Ok(Pays { lanes: lanes.clone(), id, channel: channel.clone(), voucher: *voucher })
}

/// Opens the tab of an order that comes under these grants. They are asked about last: by then there is
/// money behind the order, so no stranger can have the chain asked about grants of its own making.
async fn open(
    seller: &Arc<Seller>,
    pays: Pays,
    begun: &Begun,
    under: Vec<Under>,
    lines: Lines,
) -> Result<Paid, Refusal> {
    let Pays { lanes, id, channel, voucher } = pays;
    let least = begun.offer.price(begun.prompt_tokens, 0);
    let mut lane = lanes.take(id)?;
    let account = account(seller, &lane).await?;
    let due = account.as_ref().map_or(0, |account| account.charged.0).saturating_add(least.0);
    let backing = lane.look(voucher.claimable.max(Amount(due))).await?;
    // Of a channel that is new here, what was claimed before was for answers that are forgotten.
    let charged = account.as_ref().map_or(backing.claimed, |account| account.charged);
    let highest = account.map(|account| account.voucher.claimable);
    let credit = lanes.payment().accepts.credit_max;
    let tab = Tab::open(charged, highest, voucher.claimable, backing.confirmed, credit, least)?;
    let hold: Option<Hold> = match &seller.grants {
        Some(grants) if !under.is_empty() => {
            Some(grants.hold(under, begun.highest(), &seller.store).await?)
        }
        _ => None,
    };
    Ok(Paid {
        signer: channel.payer_authorizer,
        lanes,
        lane,
        channel,
        voucher,
        tab,
        lines,
        hold,
        held: None,
        paused: None,
        durable: 0,
    })
}

/// Refuses an order that a failed disk left unfinished on another channel than `id`: two channels would
/// make two receipts of it. It is sealed by that channel's next order, or at the next start.
async fn not_elsewhere(seller: &Seller, order: OrderHash, id: ChannelId) -> Result<(), Refusal> {
    let left = seller.store.read(move |read| store::begun(read, order)).await;
    match left.map_err(|error| storage(&error))? {
        Some(left) if left.channel != id => Err(Refusal::ChannelBusy { channel: left.channel }),
        _ => Ok(()),
    }
}

/// What the lane's channel is to this provider. What a crash or a failed disk left of an answer that it
/// paid for is sealed, and charged, first.
async fn account(seller: &Seller, lane: &Lane) -> Result<Option<Account>, Refusal> {
    let (id, store) = (lane.id, &seller.store);
    let look = move |read: &ReadTransaction| {
        Ok((store::account(read, id)?, store::left(read, Some(id))?.is_empty()))
    };
    let (account, settled) = store.read(look).await.map_err(|error| storage(&error))?;
    if settled {
        return Ok(account);
    }
    let served = |begun: &Begun| seller.models.get(&begun.model).cloned();
    let stuck = settle_left(store, Some(id), served, &seller.signer)
        .await
        .map_err(|error| storage(&error))?;
    if stuck > 0 {
        return Err(Refusal::ChannelBusy { channel: id });
    }
    let account = store.read(move |read| store::account(read, id)).await;
    account.map_err(|error| storage(&error))
}

/// Reads a submission and recognises its order, within bounds of bytes, number and time.
async fn read(seller: &Arc<Seller>, lines: &mut Lines) -> Result<(Submission, OrderHash), Refusal> {
    let invalid = |reason: String| Refusal::Invalid { reason };
    let (bytes, turn) = tokio::time::timeout(READ_WAIT_MAX, bytes(seller, lines))
        .await
        .map_err(|_| invalid("the submission took too long to arrive".into()))??;
    let seller = Arc::clone(seller);
    // Hashing a long prompt takes milliseconds, which other orders' frames need not wait for.
    tokio::task::spawn_blocking(move || {
        // Held until the bytes are read, even if the buyer hangs up meanwhile.
        let _turn = turn;
        let submission: Submission = serde_json::from_slice(&bytes)
            .map_err(|error| invalid(format!("not a submission: {error}")))?;
        let served = seller.models.get(&submission.order.model);
        let hash = recognise(&submission, seller.signer.chain, served)?;
        Ok((submission, hash))
    })
    .await
    .map_err(|error| Refusal::Internal { reason: error.to_string() })?
}

/// The bytes of a submission. Who sends many waits for a turn, which comes with them, before they
/// are read; who sends few does not, so that nobody who sends slowly is in the way of short orders.
async fn bytes(
    seller: &Arc<Seller>,
    lines: &mut Lines,
) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), Refusal> {
    let max = seller.intake.bytes_max;
    let invalid = |reason: String| Refusal::Invalid { reason };
    let (mut bytes, mut turn) = (Vec::new(), None);
    while let Some(chunk) = lines.first().await? {
        let length = bytes.len() + chunk.len();
        if length > max {
            let reason = format!("the submission has more than {max} bytes");
            return Err(invalid(reason));
        }
        if length > SHORT_BYTES_MAX && turn.is_none() {
            let taken = Arc::clone(&seller.intake.reading).acquire_owned();
            let taken = tokio::time::timeout(TURN_WAIT_MAX, taken)
                .await
                .map_err(|_| Refusal::Busy { running_max: seller.slots.max() })?;
            turn = Some(taken.expect("nobody closes the semaphore"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok((bytes, turn))
}

/// What is stored for an order.
enum Stored {
    /// An answer that stands.
    Finished(Sealed),
    /// The beginning of one, which may be continued.
    Cancelled(Sealed),
    Nothing,
}

async fn stored(seller: &Seller, hash: OrderHash) -> Result<Stored, Refusal> {
    let found = seller.store.find(hash).await.map_err(|error| storage(&error))?;
    Ok(match found {
        // What was paid for stands: to grow it would charge its beginning twice.
        Some(Kept { sealed, .. })
            if sealed.receipt.finish == Finish::Cancelled
                && sealed.receipt.channel == ChannelId::default() =>
        {
            Stored::Cancelled(sealed)
        }
        Some(Kept { sealed, .. }) => Stored::Finished(sealed),
        None => Stored::Nothing,
    })
}

/// The frames of an answer that was sealed before.
fn replay(sealed: Sealed) -> mpsc::Receiver<Frame> {
    let (sender, frames) = mpsc::channel(2);
    let tokens = (!sealed.output.is_empty()).then(|| Frame::Tokens(sealed.output.clone()));
    for frame in tokens.into_iter().chain([Frame::Sealed(Box::new(sealed))]) {
        // The channel has room for both, and its receiver is right here.
        let _ = sender.try_send(frame);
    }
    frames
}

pub(crate) fn storage(error: &StoreError) -> Refusal {
    Refusal::Storage { reason: error.to_string() }
}
