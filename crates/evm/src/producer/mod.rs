//! Makes blocks without asking anybody: the chain of a single validator, and of developers.
//!
//! One task owns the making. It waits in one place for the shutdown, a command, a transaction or
//! the time; what is due and when is [`pace`]'s to decide. A block is built and written on a thread
//! that may block, while commands wait and reads go on.
//!
//! When the disk refuses a block, production stands still: the block is held, the same write is
//! tried again until it succeeds, and everything that reads goes on as before.

mod pace;

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, B256, Bytes, Sealable, keccak256};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::block::Block;
use crate::chain::{Chain, ChainError};
use crate::clock::Clock;
use crate::execute::{Attributes, BuildError, Executed, Parent};
use crate::mempool::{Head, Mempool};
use crate::state::Changes;
use pace::{Pace, Warp};

/// When blocks are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Production {
    /// As soon as a transaction waits, with all that wait by then.
    OnDemand,
    /// At most one per interval.
    Every(Duration),
    /// Only when [`Producer::mine`] asks for it.
    OnCall,
}

/// How blocks are made.
#[derive(Clone, Debug)]
pub struct Config {
    /// When.
    pub production: Production,
    /// An empty block is made when the last one is this old; `None`: never, so that a chain at
    /// which nothing happens does not grow, and its time stands still.
    pub idle: Option<Duration>,
    /// Who gets the fees.
    pub beneficiary: Address,
    /// The gas limit that blocks move toward, by less than 1/1024 per block. Most that can happen
    /// in one.
    pub gas_limit: u64,
    /// How far the chain's time may run ahead of the clock when blocks follow one another within a
    /// second, since each is a second later than the one before. Past it, one block per second.
    pub drift_max: Duration,
    /// Longest that transactions are executed for one block. What is left goes into the next.
    pub build_max: Duration,
    /// First and longest wait before a block that the disk refused is written again.
    pub retry: (Duration, Duration),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            production: Production::OnDemand,
            idle: None,
            beneficiary: Address::ZERO,
            gas_limit: crate::genesis::GAS_LIMIT,
            drift_max: Duration::from_secs(30),
            build_max: Duration::from_secs(1),
            retry: (Duration::from_secs(1), Duration::from_secs(30)),
        }
    }
}

/// Why a block was not made when it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ProducerError {
    /// The node is stopping.
    #[error("the producer has stopped")]
    Stopped,
    /// The chain refused, most often because of its disk.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// No block can be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The time asked for is not after the last block's.
    #[error("timestamp {found} is not after that of the last block, {last}")]
    Timestamp {
        /// Seconds since 1970.
        found: u64,
        /// As above.
        last: u64,
    },
}

/// Commands the making of blocks. Cheap to clone. Its methods block until the producer answers: on
/// an asynchronous thread, call them where blocking is allowed.
#[derive(Clone, Debug)]
pub struct Producer {
    commands: mpsc::Sender<Command>,
}

/// How many commands may wait for the producer; more wait where they are given.
const COMMANDS_MAX: usize = 64;

type Reply<T> = oneshot::Sender<Result<T, ProducerError>>;

#[derive(Debug)]
enum Command {
    Mine { count: u64, spacing: u64, reply: Reply<()> },
    Edit { changes: Box<Changes>, reply: Reply<()> },
    Rewind { number: u64, reply: Reply<()> },
    Produce { production: Production, reply: Reply<()> },
    Advance { seconds: i64, reply: Reply<i64> },
    Next { timestamp: u64, reply: Reply<()> },
    Put { timestamp: u64, reply: Reply<()> },
}

impl Producer {
    /// A producer on `chain`, and the task that does the work until `shutdown`.
    pub(crate) fn new(
        chain: Arc<Chain>,
        mempool: Arc<Mempool>,
        clock: Arc<dyn Clock>,
        config: Config,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (commands, given) = mpsc::channel(COMMANDS_MAX);
        let line = Line { chain, mempool, clock, config: Arc::new(config) };
        (Self { commands }, work(line, given, shutdown))
    }

    /// Makes `count` blocks at once, the first with what waits; each but the first is `spacing`
    /// seconds later than the one before.
    pub fn mine(&self, count: u64, spacing: u64) -> Result<(), ProducerError> {
        self.ask(|reply| Command::Mine { count, spacing, reply })
    }

    /// Makes a block without transactions after which the state differs by `changes`.
    ///
    /// Its state root is true, but no execution leads there: such a chain is for development alone,
    /// and no other node would accept it.
    pub fn edit(&self, changes: Changes) -> Result<(), ProducerError> {
        self.ask(|reply| Command::Edit { changes: Box::new(changes), reply })
    }

    /// Takes back every block above `number`. For development alone.
    pub fn rewind(&self, number: u64) -> Result<(), ProducerError> {
        self.ask(|reply| Command::Rewind { number, reply })
    }

    /// Changes when blocks are made.
    pub fn produce(&self, production: Production) -> Result<(), ProducerError> {
        self.ask(|reply| Command::Produce { production, reply })
    }

    /// Moves the chain's time by `seconds`; returns how far it is now ahead of the clock.
    pub fn advance(&self, seconds: i64) -> Result<i64, ProducerError> {
        self.ask(|reply| Command::Advance { seconds, reply })
    }

    /// Gives the next block the time `timestamp`, in seconds since 1970.
    pub fn set_next_timestamp(&self, timestamp: u64) -> Result<(), ProducerError> {
        self.ask(|reply| Command::Next { timestamp, reply })
    }

    /// Makes the chain's time `timestamp` from now on, in seconds since 1970.
    pub fn set_time(&self, timestamp: u64) -> Result<(), ProducerError> {
        self.ask(|reply| Command::Put { timestamp, reply })
    }

    fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, ProducerError> {
        let (reply, answer) = oneshot::channel();
        self.commands.blocking_send(command(reply)).map_err(|_| ProducerError::Stopped)?;
        answer.blocking_recv().map_err(|_| ProducerError::Stopped)?
    }
}

/// What the making of blocks works on. Cheap to clone.
#[derive(Clone)]
struct Line {
    chain: Arc<Chain>,
    mempool: Arc<Mempool>,
    clock: Arc<dyn Clock>,
    config: Arc<Config>,
}

enum Event {
    Command(Command),
    Arrived,
    Due,
}

/// A block that the disk refused.
struct Held {
    executed: Executed,
    /// Wait before the next try but one.
    wait: Duration,
    /// When it was refused first.
    since: Option<Instant>,
    /// When it is tried again.
    retry: Instant,
}

async fn work(line: Line, mut commands: mpsc::Receiver<Command>, shutdown: CancellationToken) {
    let origin = Instant::now();
    let (production, idle) = (line.config.production, line.config.idle);
    let mut task = Task {
        pace: Pace::new(production, idle, line.config.drift_max, Duration::ZERO),
        warp: Warp::default(),
        origin,
        held: None,
        line,
        shutdown: shutdown.clone(),
    };
    loop {
        let due = task.due();
        let event = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            command = commands.recv() => match command {
                Some(command) => Event::Command(command),
                None => break,
            },
            () = task.line.mempool.arrived() => Event::Arrived,
            () = tokio::time::sleep_until(due.unwrap_or(origin)), if due.is_some() => Event::Due,
        };
        match event {
            Event::Command(command) => task.obey(command).await,
            // Whether that makes a block due is looked at anew.
            Event::Arrived => {}
            Event::Due => task.produce().await,
        }
    }
}

/// The state of the one task that makes blocks.
struct Task {
    line: Line,
    pace: Pace,
    warp: Warp,
    /// When the task began; the pace counts from here.
    origin: Instant,
    held: Option<Held>,
    shutdown: CancellationToken,
}

impl Task {
    fn due(&self) -> Option<Instant> {
        if let Some(held) = &self.held {
            return Some(held.retry);
        }
        let ready = self.line.mempool.has_ready(self.line.mempool.base_fee());
        self.pace.due(ready).map(|due| self.origin + due)
    }

    fn now(&self) -> u64 {
        self.line.clock.now().as_secs()
    }

    /// Makes the block that is due, or writes the one that is held.
    async fn produce(&mut self) {
        let outcome = match self.held.take() {
            Some(held) => self.write(held).await,
            None => self.make(None).await,
        };
        match outcome {
            Ok(()) => {}
            // It is held, and `write` has said so.
            Err(_) if self.held.is_some() => {}
            Err(error) => {
                tracing::error!(%error, "no block can be made");
                // Whatever it is, trying again at once would only be loud.
                self.pace.made(self.origin.elapsed() + self.line.config.retry.0);
            }
        }
    }

    /// Makes one block; with `edit`, one without transactions that changes the state so.
    async fn make(&mut self, edit: Option<Box<Changes>>) -> Result<(), ProducerError> {
        if let Some(held) = self.held.take() {
            self.write(held).await?;
        }
        let now = self.now();
        let head = self.line.chain.head();
        let last = head.header.timestamp;
        let edits = edit.is_some();
        let timestamp = match edits {
            // An edit takes no time, and leaves a time that was asked for to the next block.
            true => last.saturating_add(1),
            false => self.warp.timestamp(now, last),
        };
        let line = self.line.clone();
        let built = blocking(move || match edit {
            Some(changes) => line.edit(&head, timestamp, &changes),
            None => line.build(&head, timestamp),
        });
        let executed = built.await??;
        if !edits {
            self.warp.made(timestamp, now);
        }
        let wait = self.line.config.retry.0;
        self.write(Held { executed, wait, since: None, retry: Instant::now() }).await
    }

    /// Writes a block; one that the disk refuses is held.
    async fn write(&mut self, mut held: Held) -> Result<(), ProducerError> {
        let (line, executed) = (self.line.clone(), held.executed.clone());
        let number = executed.block.number();
        let written = blocking(move || line.keep(executed)).await?;
        let Err(error) = written else {
            if let Some(since) = held.since {
                let seconds = since.elapsed().as_secs();
                tracing::info!(block = number, seconds, "production goes on");
            }
            self.pace.made(self.origin.elapsed());
            return Ok(());
        };
        let seconds = held.wait.as_secs();
        tracing::error!(block = number, %error, seconds, "production pauses; it is tried again");
        held.since.get_or_insert_with(Instant::now);
        held.retry = Instant::now() + held.wait;
        held.wait = (held.wait * 2).min(self.line.config.retry.1);
        self.held = Some(held);
        Err(error.into())
    }

    async fn obey(&mut self, command: Command) {
        // Whoever asked may have gone; then nobody wants the answer.
        match command {
            Command::Mine { count, spacing, reply } => {
                let _ = reply.send(self.mine(count, spacing).await);
            }
            Command::Edit { changes, reply } => {
                let _ = reply.send(self.make(Some(changes)).await);
            }
            Command::Rewind { number, reply } => {
                let _ = reply.send(self.rewind(number).await);
            }
            Command::Produce { production, reply } => {
                self.pace.production = production;
                let _ = reply.send(Ok(()));
            }
            Command::Advance { seconds, reply } => {
                self.warp.offset = self.warp.offset.saturating_add(seconds);
                let _ = reply.send(Ok(self.warp.offset));
            }
            Command::Next { timestamp, reply } => {
                let _ = reply.send(self.set_next(timestamp));
            }
            Command::Put { timestamp, reply } => {
                self.warp.put(timestamp, self.now());
                let _ = reply.send(Ok(()));
            }
        }
    }

    async fn mine(&mut self, count: u64, spacing: u64) -> Result<(), ProducerError> {
        for made in 0..count {
            if self.shutdown.is_cancelled() {
                return Err(ProducerError::Stopped);
            }
            if made > 0 && spacing > 0 {
                let last = self.line.chain.head().header.timestamp;
                self.warp.next = Some(last.saturating_add(spacing));
            }
            self.make(None).await?;
        }
        Ok(())
    }

    async fn rewind(&mut self, number: u64) -> Result<(), ProducerError> {
        // What is held would follow a block that is being taken back.
        self.held = None;
        let line = self.line.clone();
        blocking(move || line.rewind(number)).await??;
        // The chain's time goes on from the block that is now the last.
        self.warp = Warp::default();
        self.warp.put(self.line.chain.head().header.timestamp, self.now());
        Ok(())
    }

    fn set_next(&mut self, timestamp: u64) -> Result<(), ProducerError> {
        let last = self.line.chain.head().header.timestamp;
        if timestamp <= last {
            return Err(ProducerError::Timestamp { found: timestamp, last });
        }
        self.warp.next = Some(timestamp);
        Ok(())
    }
}

impl Line {
    fn attributes(&self, parent: &Parent, timestamp: u64) -> Attributes {
        Attributes {
            timestamp,
            beneficiary: self.config.beneficiary,
            gas_limit: self.config.gas_limit,
            // A single producer can choose any number; this one it cannot be accused of choosing.
            prev_randao: keccak256(parent.header.hash()),
            parent_beacon_root: B256::ZERO,
            extra_data: Bytes::new(),
        }
    }

    /// Builds a block of what waits.
    fn build(&self, parent: &Parent, timestamp: u64) -> Result<Executed, ProducerError> {
        let attributes = self.attributes(parent, timestamp);
        let base_fee = self.chain.spec().base_fee_after(&parent.header, timestamp);
        let begun = std::time::Instant::now();
        let stop = || begun.elapsed() > self.config.build_max;
        let waiting = self.mempool.best(base_fee.unwrap_or_default());
        let built = self.chain.executor().build(parent, &attributes, waiting, stop)?;
        for (hash, reason) in &built.refused {
            tracing::debug!(%hash, %reason, "a waiting transaction became impossible");
        }
        self.mempool.drop_all(built.refused.iter().map(|(hash, _)| hash));
        Ok(built.executed)
    }

    /// Builds a block without transactions whose state differs by `changes` as well.
    fn edit(
        &self,
        parent: &Parent,
        timestamp: u64,
        changes: &Changes,
    ) -> Result<Executed, ProducerError> {
        let attributes = self.attributes(parent, timestamp);
        let built = self.chain.executor().build(parent, &attributes, [], || false)?;
        let mut executed = built.executed;
        merge(&mut executed.changes, changes);
        executed.state = parent.state.apply(&executed.changes);
        let mut block = Block::clone(&executed.block);
        let mut header = block.header.inner().clone();
        header.state_root = executed.state.root();
        block.header = header.seal_slow();
        executed.block = Arc::new(block);
        Ok(executed)
    }

    /// Makes `executed` the head, on the disk and for whoever waits.
    fn keep(&self, executed: Executed) -> Result<(), ChainError> {
        let touched: Vec<_> = executed.changes.accounts.keys().copied().collect();
        let (block, count) = (executed.block.clone(), executed.block.transactions.len());
        self.chain.append(executed)?;
        self.mempool.advance(self.head(), touched);
        tracing::debug!(
            number = block.number(),
            hash = %block.hash(),
            transactions = count,
            gas = block.header.gas_used,
            "block"
        );
        Ok(())
    }

    fn rewind(&self, number: u64) -> Result<(), ChainError> {
        self.chain.rewind(number)?;
        self.mempool.reset(self.head());
        Ok(())
    }

    fn head(&self) -> Head {
        Head::after(&self.chain.head(), self.chain.executor(), self.config.gas_limit)
    }
}

/// Writes `more` over `changes`.
fn merge(changes: &mut Changes, more: &Changes) {
    for (address, more) in &more.accounts {
        let change = changes.accounts.entry(*address).or_default();
        change.account = more.account;
        if more.wiped {
            change.wiped = true;
            change.slots.clear();
        }
        change.slots.extend(&more.slots);
    }
    changes.codes.extend(more.codes.iter().map(|(hash, code)| (*hash, code.clone())));
    changes.keep_empty |= more.keep_empty;
}

/// Runs `work` on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ProducerError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "the making of a block ended without an outcome");
        ProducerError::Stopped
    })
}
