//! One WebSocket: calls come and are answered, and what was subscribed to is told as it happens.
//!
//! One task owns the socket and waits in one place. Notices are written one after another, each
//! when the one before is taken, so a reader who is too slow falls behind the chain and is dropped;
//! nothing is kept for it meanwhile.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alloy_primitives::B256;
use axum::extract::ws::{Message, WebSocket};
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Rpc;
use super::logs::LogFilter;
use super::message::{Error, notification};
use super::notice;
use super::server::Share;
use crate::Executed;

/// What a subscription is about.
#[derive(Clone, Debug)]
pub(crate) enum Topic {
    /// The header of every new block.
    Heads,
    /// The logs of every new block that a filter lets through.
    Logs(Arc<LogFilter>),
    /// Every transaction that begins to wait: its hash, or all of it.
    Pending {
        /// Whether all of it is told.
        full: bool,
    },
    /// Whether the node catches up; it always says what it knows, so nothing is ever told.
    Syncing,
}

/// A place among all subscriptions of the server; given back when dropped.
#[derive(Debug)]
struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn take(taken: &Arc<AtomicUsize>, max: usize) -> Result<Self, Error> {
        let room = |count: usize| (count < max).then_some(count + 1);
        match taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room) {
            Ok(_) => Ok(Self(Arc::clone(taken))),
            Err(_) => Err(Error::Limit(format!("the server has {max} subscriptions, the most"))),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Subscription {
    topic: Topic,
    /// Told only once the answer with its id was sent; before that the client knows no such id.
    told: bool,
    _seat: Seat,
}

/// The subscriptions of one WebSocket.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    own: Mutex<HashMap<String, Subscription>>,
    own_max: usize,
    all: Arc<AtomicUsize>,
    all_max: usize,
}

impl Subscriptions {
    /// None yet. `all` counts those of every socket.
    pub(crate) fn new(own_max: usize, all: Arc<AtomicUsize>, all_max: usize) -> Self {
        Self { own: Mutex::default(), own_max, all, all_max }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Subscription>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one and gives its id. It is told nothing before [`Subscriptions::settle`].
    pub(crate) fn open(&self, topic: Topic) -> Result<String, Error> {
        let mut own = self.lock();
        if own.len() >= self.own_max {
            let max = self.own_max;
            return Err(Error::Limit(format!("a connection has {max} subscriptions at most")));
        }
        let seat = Seat::take(&self.all, self.all_max)?;
        let id = format!("0x{:032x}", u128::from_be_bytes(random_id()));
        own.insert(id.clone(), Subscription { topic, told: false, _seat: seat });
        Ok(id)
    }

    /// Ends one; whether there was such a one.
    pub(crate) fn close(&self, id: &str) -> bool {
        self.lock().remove(id).is_some()
    }

    /// The answer that named these has been sent.
    fn settle(&self, opened: &[String]) {
        let mut own = self.lock();
        for id in opened {
            if let Some(subscription) = own.get_mut(id) {
                subscription.told = true;
            }
        }
    }

    fn wanted(&self, of: impl Fn(&Topic) -> bool) -> Vec<(String, Topic)> {
        let own = self.lock();
        let told = own.iter().filter(|(_, one)| one.told && of(&one.topic));
        told.map(|(id, one)| (id.clone(), one.topic.clone())).collect()
    }
}

/// An id that no other client can guess.
pub(crate) fn random_id() -> [u8; 16] {
    let random = B256::random();
    let mut id = [0; 16];
    id.copy_from_slice(&random[..16]);
    id
}

/// The socket of the call that is answered, for those that subscribe.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    /// All of the socket's.
    pub(crate) subscriptions: &'a Subscriptions,
    /// The ids of those that these calls opened.
    pub(crate) opened: Vec<String>,
}

/// What one message came to.
struct Done {
    text: Option<Vec<u8>>,
    opened: Vec<String>,
    /// The memory that the answer was given, or that there was none.
    room: Result<Option<OwnedSemaphorePermit>, ()>,
}

/// What the socket's task wakes up for.
enum Event {
    Shutdown,
    Done(Option<Done>),
    Block(Arc<Executed>),
    Pending(B256),
    /// More happened than the client read.
    Behind,
    Said(Option<Message>),
    Silent,
}

/// Serves one WebSocket until its client leaves, is too slow or silent, or until `shutdown`.
/// `answers` is the memory that long answers of all clients share.
pub(super) async fn talk(rpc: Rpc, socket: WebSocket, answers: Share, shutdown: CancellationToken) {
    let subscriptions = Arc::new(rpc.subscriptions());
    let blocks = rpc.chain().subscribe();
    let running = JoinSet::new();
    let mut talk = Talk {
        heard: Instant::now(),
        rpc,
        socket,
        answers,
        subscriptions,
        blocks,
        pending: None,
        running,
        silent: false,
    };
    loop {
        let event = talk.wait(&shutdown).await;
        if talk.handle(event).await.is_err() {
            break;
        }
    }
    // Dropping the set ends what still runs for this client.
    let close = timeout(talk.rpc.limits().flush_max, talk.socket.send(Message::Close(None)));
    let _ = close.await;
}

/// The conversation is over.
struct Over;

impl From<axum::Error> for Over {
    fn from(error: axum::Error) -> Self {
        tracing::debug!(%error, "a websocket ended");
        Self
    }
}

struct Talk {
    rpc: Rpc,
    socket: WebSocket,
    answers: Share,
    subscriptions: Arc<Subscriptions>,
    blocks: broadcast::Receiver<Arc<Executed>>,
    /// Once someone here wants it: the mempool does less when nobody listens.
    pending: Option<broadcast::Receiver<B256>>,
    running: JoinSet<Done>,
    /// When the client last said something, or was asked whether it lives.
    heard: Instant,
    /// It was asked, and has said nothing since.
    silent: bool,
}

impl Talk {
    async fn wait(&mut self, shutdown: &CancellationToken) -> Event {
        let limits = self.rpc.limits();
        let room = self.running.len() < limits.socket_calls_max;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => Event::Shutdown,
            Some(done) = self.running.join_next() => Event::Done(done.ok()),
            block = self.blocks.recv() => match block {
                Ok(block) => Event::Block(block),
                Err(broadcast::error::RecvError::Lagged(_)) => Event::Behind,
                Err(broadcast::error::RecvError::Closed) => Event::Shutdown,
            },
            hash = arrival(&mut self.pending) => match hash {
                Ok(hash) => Event::Pending(hash),
                Err(broadcast::error::RecvError::Lagged(_)) => Event::Behind,
                Err(broadcast::error::RecvError::Closed) => Event::Shutdown,
            },
            said = self.socket.recv(), if room => {
                Event::Said(said.and_then(Result::ok))
            }
            () = sleep_until(self.heard + limits.socket_silence_max), if room => Event::Silent,
        }
    }

    async fn handle(&mut self, event: Event) -> Result<(), Over> {
        match event {
            Event::Shutdown => Err(Over),
            Event::Done(None) => Ok(()),
            Event::Done(Some(done)) => self.reply(done).await,
            Event::Block(block) => self.tell_block(&block).await,
            Event::Pending(hash) => self.tell_pending(hash).await,
            Event::Behind => self.judge_behind(),
            Event::Said(said) => self.hear(said),
            Event::Silent if self.silent => Err(Over),
            Event::Silent => {
                (self.silent, self.heard) = (true, Instant::now());
                Ok(self.socket.send(Message::Ping(Default::default())).await?)
            }
        }
    }

    fn hear(&mut self, said: Option<Message>) -> Result<(), Over> {
        (self.silent, self.heard) = (false, Instant::now());
        let body: Vec<u8> = match said {
            None | Some(Message::Close(_)) => return Err(Over),
            Some(Message::Ping(_) | Message::Pong(_)) => return Ok(()),
            Some(Message::Text(text)) => text.as_bytes().to_vec(),
            Some(Message::Binary(bytes)) => bytes.to_vec(),
        };
        let (rpc, subscriptions) = (self.rpc.clone(), Arc::clone(&self.subscriptions));
        let answers = self.answers.clone();
        self.running.spawn(async move {
            let mut line = Line { subscriptions: &subscriptions, opened: Vec::new() };
            let text = rpc.answer(&body, Some(&mut line)).await;
            let room = answers.take(text.as_ref().map_or(0, Vec::len)).await;
            Done { text, opened: line.opened, room }
        });
        Ok(())
    }

    async fn reply(&mut self, done: Done) -> Result<(), Over> {
        let Ok(_room) = done.room else {
            tracing::debug!("a websocket is dropped, for there is no memory for its answers");
            return Err(Over);
        };
        if let Some(text) = done.text.and_then(|text| String::from_utf8(text).ok()) {
            self.socket.send(Message::Text(text.into())).await?;
        }
        self.subscriptions.settle(&done.opened);
        if self.pending.is_none() {
            let wanted = self.subscriptions.wanted(|topic| matches!(topic, Topic::Pending { .. }));
            self.pending = (!wanted.is_empty()).then(|| self.rpc.mempool().subscribe());
        }
        Ok(())
    }

    /// Who is told nothing of what was missed is not behind.
    fn judge_behind(&self) -> Result<(), Over> {
        let missed = self.subscriptions.wanted(|topic| !matches!(topic, Topic::Syncing));
        if missed.is_empty() {
            return Ok(());
        }
        tracing::debug!("a websocket is dropped, for it reads too slowly");
        Err(Over)
    }

    async fn tell(&mut self, id: &str, result: &RawValue) -> Result<(), Over> {
        Ok(self.socket.send(Message::Text(notification(id, result).into())).await?)
    }

    async fn tell_block(&mut self, block: &Arc<Executed>) -> Result<(), Over> {
        let heads = self.subscriptions.wanted(|topic| matches!(topic, Topic::Heads));
        if let Some(head) = (!heads.is_empty()).then(|| notice::head(block)).flatten() {
            for (id, _) in heads {
                self.tell(&id, &head).await?;
            }
        }
        for (id, topic) in self.subscriptions.wanted(|topic| matches!(topic, Topic::Logs(_))) {
            let Topic::Logs(filter) = topic else { continue };
            for log in notice::logs(block, &filter) {
                self.tell(&id, &log).await?;
            }
        }
        Ok(())
    }

    async fn tell_pending(&mut self, hash: B256) -> Result<(), Over> {
        let wanted = self.subscriptions.wanted(|topic| matches!(topic, Topic::Pending { .. }));
        let is_full = |(_, topic): &(_, Topic)| matches!(topic, Topic::Pending { full: true });
        let whole = match wanted.iter().any(is_full) {
            true => whole(self.rpc.clone(), hash).await,
            false => None,
        };
        for (id, topic) in wanted {
            let notice = match topic {
                Topic::Pending { full: false } => notice::pending(&hash),
                // One that was replaced or dropped meanwhile is told no more.
                _ => whole.clone(),
            };
            if let Some(notice) = notice {
                self.tell(&id, &notice).await?;
            }
        }
        Ok(())
    }
}

/// A transaction that began to wait, even if it stands in a block by now.
async fn whole(rpc: Rpc, hash: B256) -> Option<Box<RawValue>> {
    if let Some(transaction) = rpc.mempool().get(&hash) {
        return notice::pending_full(&transaction);
    }
    let mined = move || {
        let (block, index) = rpc.place(&hash).ok()??;
        notice::pending_full(block.transactions.get(index)?)
    };
    tokio::task::spawn_blocking(mined).await.ok().flatten()
}

/// The hash of the next transaction that begins to wait; never, while nobody wants to know.
async fn arrival(
    pending: &mut Option<broadcast::Receiver<B256>>,
) -> Result<B256, broadcast::error::RecvError> {
    match pending {
        Some(pending) => pending.recv().await,
        None => std::future::pending().await,
    }
}
