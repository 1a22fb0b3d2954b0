//! One node: its network, its marshal, and an engine for every epoch in which it is seated.

use super::archive::{Blocks, Certificates, certify_alone};
use super::committees::{Committees, Drawn, Records};
use super::heads::Heads;
use super::judge::Watch;
use super::ledger::{self, Delivery, Ledger};
use super::network::{Channel, Channels, Network, Oracle, Sender, track};
use super::wire::{Check, Digest, Scheme, Wire, digest};
use super::{ClusterError, Position, Settings, gossip};
use crate::consensus::Application;
use commonware_broadcast::buffered;
use commonware_codec::varint::UInt;
use commonware_consensus::Epochable;
use commonware_consensus::marshal::core::{Actor, Mailbox};
use commonware_consensus::marshal::resolver::p2p as resolver;
use commonware_consensus::marshal::standard::{Inline, Standard};
use commonware_consensus::marshal::{self, Identifier, Start};
use commonware_consensus::simplex::elector::RoundRobin;
use commonware_consensus::simplex::{self, Floor, ForwardPolicy, SkipBudget, SkipPolicy};
use commonware_consensus::types::{Epoch, FixedEpocher, Height, View, ViewDelta};
use commonware_cryptography::certificate::Verifier as _;
use commonware_cryptography::{Sha256, ed25519};
use commonware_p2p::utils::mux::{MuxHandle, Muxer};
use commonware_parallel::Sequential;
use commonware_runtime::buffer::paged::CacheRef;
use commonware_runtime::tokio::{Config as RuntimeConfig, Context, Runner as TokioRunner};
use commonware_runtime::{Handle, Runner as _, Spawner as _, Supervisor as _};
use commonware_storage::archive::prunable;
use commonware_storage::metadata::{self, Metadata};
use commonware_storage::translator::EightCap;
use commonware_utils::sequence::U64;
use commonware_utils::{NZU16, NZU64, NZUsize, NonZeroDuration};
use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Where marshal's own files lie. It keeps its progress in `<prefix>-application-metadata`.
const MARSHAL: &str = "marshal";

/// Where marshal writes down the last height that was acknowledged.
const PROCESSED: U64 = U64::new(0xFF);

/// Blocks that marshal keeps beside the chain's store.
const RECENT_BLOCKS: u64 = 512;

/// Blocks on their way from marshal to the chain.
const DELIVERIES_MAX: NonZeroUsize = NZUsize!(16);

/// Missing blocks that are asked for at the same time.
const REPAIRS_MAX: NonZeroUsize = NZUsize!(64);

/// Messages between the engine's parts that may wait.
const MAILBOX: NonZeroUsize = NZUsize!(1024);

/// Views that stay at hand behind the last finalised one.
const VIEWS_KEPT: ViewDelta = ViewDelta::new(128);

/// Blocks of one sender that are kept until they are asked for.
const BLOCKS_PER_SENDER: usize = 16;

/// Buffers of the journals.
const BUFFER: NonZeroUsize = NZUsize!(1 << 20);

/// Records per file of the archives.
const SECTION: NonZeroU64 = NZU64!(256);

/// How long stopping may take.
const STOPPING: Duration = Duration::from_secs(5);

type Votes<A> = Inline<Context, Scheme, Ledger<A>, Wire, FixedEpocher>;

/// All that a node is made of before it runs.
pub(super) struct Node<A> {
    pub(super) application: A,
    pub(super) settings: Settings,
    pub(super) signer: ed25519::PrivateKey,
    pub(super) position: watch::Sender<Position>,
    pub(super) present: watch::Sender<usize>,
    /// Whether it votes twice; only tests can ask for that.
    pub(super) twice: bool,
}

/// What an epoch's engine is started with.
struct Engines<A: Application> {
    application: A,
    settings: Settings,
    inline: Votes<A>,
    mailbox: Mailbox<Scheme, Standard<Wire>>,
    oracle: Oracle,
    cache: CacheRef,
    votes: MuxHandle<Sender>,
    certificates: MuxHandle<Sender>,
    missing: MuxHandle<Sender>,
    #[cfg_attr(not(any(test, feature = "byzantine")), expect(dead_code))]
    twice: bool,
}

impl<A: Application> Node<A> {
    /// Runs until `stopped`, or until going on is impossible.
    pub(super) fn run(self, stopped: oneshot::Receiver<()>) -> Result<(), ClusterError> {
        let config = RuntimeConfig::new()
            .with_storage_directory(&self.settings.directory)
            .with_worker_threads(self.settings.threads.max(1))
            .with_tcp_nodelay(Some(true));
        TokioRunner::new(config).start(|context| async move {
            let ended = self.live(&context, stopped).await;
            // Those who do not stop in time are dropped with the runtime.
            let _ = context.stop(0, Some(STOPPING)).await;
            ended
        })
    }

    async fn live(
        self,
        context: &Context,
        mut stopped: oneshot::Receiver<()>,
    ) -> Result<(), ClusterError> {
        let Self { application, settings, signer, position, present, twice } = self;
        let journal = |error: &dyn std::fmt::Display| ClusterError::Journal {
            reason: error.to_string(),
            directory: settings.directory.clone(),
        };
        let epocher = FixedEpocher::new(settings.epoch_length);
        let length = settings.epoch_length.get();
        let committees = Committees::new(application.clone(), signer.clone(), length);
        let mut records = Records::open(context.child("committees"), &committees)
            .await
            .map_err(|error| journal(&error))?;
        let mut epoch = epoch_after(application.head().0, length);
        let mut drawn = committees.of(epoch)?;
        resume(context, application.head().0).await.map_err(|error| journal(&error))?;

        let mut network = Network::new(context, &settings, &signer);
        let mut oracle = network.oracle.clone();
        track(&mut oracle, epoch, &drawn.seats, &settings, &signer);
        let Channels {
            votes,
            certificates,
            missing_votes,
            blocks,
            missing_blocks,
            heads,
            transactions,
        } = network.open();
        let votes = multiplex(context.child("votes"), votes);
        let certificates = multiplex(context.child("certificates"), certificates);
        let missing = multiplex(context.child("missing_votes"), missing_votes);

        let cache = CacheRef::new(NZU16!(16_384), NZUsize!(1_024));
        let archives = Archives { context, cache: &cache };
        let recent = archives.open("blocks", Check::Kept).await.map_err(|error| journal(&error))?;
        let bound = Scheme::certificate_codec_config_unbounded();
        let kept = archives.open("votes", bound).await.map_err(|error| journal(&error))?;
        let ends = archives.open("boundaries", bound).await.map_err(|error| journal(&error))?;
        let certificates_kept =
            Certificates::new(application.clone(), committees.clone(), epocher.clone(), kept, ends);
        let (marshal, mailbox, _) = Actor::<_, Standard<Wire>, _, _, _, _, _>::init(
            context.child("marshal"),
            certificates_kept,
            Blocks::new(application.clone(), recent),
            marshal::Config {
                provider: committees.clone(),
                epocher: epocher.clone(),
                start: Start::Genesis(Wire::digested(application.genesis())),
                partition_prefix: MARSHAL.into(),
                mailbox_size: MAILBOX,
                view_retention: VIEWS_KEPT,
                prunable_items_per_section: SECTION,
                page_cache: cache.clone(),
                replay_buffer: BUFFER,
                key_write_buffer: BUFFER,
                value_write_buffer: BUFFER,
                block_codec_config: Check::Foreign,
                max_repair: REPAIRS_MAX,
                max_pending_acks: DELIVERIES_MAX,
                strategy: Sequential,
            },
        )
        .await;

        let me = super::committees::public(&signer);
        let (broadcast, buffer) = buffered::Engine::new(
            context.child("buffer"),
            buffered::Config {
                public_key: me.clone(),
                mailbox_size: MAILBOX,
                deque_size: BLOCKS_PER_SENDER,
                priority: true,
                codec_config: Check::Foreign,
                peer_provider: oracle.clone(),
                strategy: Sequential,
            },
        );
        broadcast.start(blocks);
        let fetch = settings.patience.fetch;
        let resolver = resolver::init(
            context.child("backfill"),
            resolver::Config {
                public_key: me,
                peer_provider: oracle.clone(),
                blocker: oracle.clone(),
                mailbox_size: MAILBOX,
                fetch_timeout: patient(fetch),
                fetch_retry_delay: fetch / 10,
                priority_requests: false,
                priority_responses: false,
            },
            missing_blocks,
        );
        let (delivery, delivered): (Delivery, _) = ledger::delivery();
        let tip = delivered.tip.clone();
        let mut marshalling = marshal.start(delivery, buffer, resolver);
        let (applied, mut heights) = watch::channel(application.head().0);
        let mut delivering = Box::pin(ledger::deliver(application.clone(), delivered, applied));

        let inline = Inline::new(
            context.child("ledger"),
            Ledger::new(application.clone()),
            mailbox.clone(),
            epocher.clone(),
        );
        let listener = Heads {
            identity: application.identity(),
            committees: committees.clone(),
            epocher,
            mailbox: mailbox.clone(),
            oracle: oracle.clone(),
            rng: context.child("heads"),
            tip,
            position: position.subscribe(),
            present,
        };
        context.child("heads").spawn(move |_| listener.run(heads));
        let chain = application.clone();
        context.child("gossip").spawn(move |_| gossip::run(chain, transactions));
        network.start();

        let mut engines = Engines {
            application: application.clone(),
            settings: settings.clone(),
            inline,
            mailbox: mailbox.clone(),
            oracle: oracle.clone(),
            cache,
            votes,
            certificates,
            missing,
            twice,
        };
        let mut engine = engines.start(context, epoch, &drawn).await?;
        let mut pruned = 0;
        loop {
            records = records.keep(epoch, &drawn).await.map_err(|error| journal(&error))?;
            loop {
                let height = application.head().0;
                let (seats, seated) = (drawn.seats.len(), drawn.seated);
                position.send_replace(Position { height, epoch, seats, seated });
                if epoch_after(height, length) > epoch {
                    break;
                }
                if height >= pruned + RECENT_BLOCKS {
                    pruned = height;
                    mailbox.prune(Height::new(height.saturating_sub(RECENT_BLOCKS)));
                }
                tokio::select! {
                    biased;
                    _ = &mut stopped => return Ok(()),
                    ended = &mut delivering => {
                        ended?;
                        return Err(ClusterError::Ended);
                    }
                    _ = &mut marshalling => return Err(ClusterError::Ended),
                    () = ended(&mut engine) => return Err(ClusterError::Ended),
                    changed = heights.changed() => {
                        if changed.is_err() {
                            return Err(ClusterError::Ended);
                        }
                    }
                }
            }
            epoch = epoch_after(application.head().0, length);
            drawn = committees.of(epoch)?;
            if let Some(engine) = engine.take() {
                engine.abort();
            }
            track(&mut oracle, epoch, &drawn.seats, &settings, &signer);
            engine = engines.start(context, epoch, &drawn).await?;
        }
    }
}

impl<A: Application> Engines<A> {
    /// Starts to vote in `epoch`, if we are seated.
    async fn start(
        &mut self,
        context: &Context,
        epoch: u64,
        drawn: &Drawn,
    ) -> Result<Option<Handle<()>>, ClusterError> {
        tracing::info!(epoch, seats = drawn.seats.len(), seated = drawn.seated, "an epoch begins");
        if !drawn.seated {
            return Ok(None);
        }
        let Some(floor) = self.floor(epoch, drawn).await else {
            tracing::warn!(epoch, "the journal of this epoch is lost; voting begins with the next");
            return Ok(None);
        };
        let patience = self.settings.patience;
        let engine = simplex::Engine::new(
            context.child("engine").with_attribute("epoch", epoch),
            simplex::Config {
                scheme: (*drawn.scheme).clone(),
                elector: RoundRobin::<Sha256>::default(),
                blocker: self.oracle.clone(),
                automaton: self.inline.clone(),
                relay: self.inline.clone(),
                reporter: Watch {
                    application: self.application.clone(),
                    scheme: drawn.scheme.clone(),
                    next: self.inline.clone(),
                },
                track_historical_votes: false,
                strategy: Sequential,
                partition: format!("simplex-{epoch}"),
                mailbox_size: MAILBOX,
                epoch: Epoch::new(epoch),
                floor,
                replay_buffer: BUFFER,
                write_buffer: BUFFER,
                page_cache: self.cache.clone(),
                leader_timeout: patience.leader,
                certification_timeout: patience.votes,
                timeout_retry: patience.repeat,
                view_retention: VIEWS_KEPT,
                skip: SkipPolicy::Enabled {
                    timeout: patience.silence,
                    budget: SkipBudget::Participants,
                },
                fetch_timeout: patient(patience.fetch),
                fetch_retry_delay: patience.fetch / 10,
                forward: ForwardPolicy::SilentLeader,
            },
        );
        // Registering fails only when the network has ended, and then so does everything.
        let ended = |_| ClusterError::Ended;
        let votes = self.votes.register(epoch).await.map_err(ended)?;
        let certificates = self.certificates.register(epoch).await.map_err(ended)?;
        let missing = self.missing.register(epoch).await.map_err(ended)?;
        #[cfg(any(test, feature = "byzantine"))]
        if self.twice {
            let scheme = drawn.scheme.clone();
            let twice = super::equivocate::Twice::new(votes.0, scheme);
            return Ok(Some(engine.start((twice, votes.1), certificates, missing)));
        }
        Ok(Some(engine.start(votes, certificates, missing)))
    }

    /// What the votes of `epoch` stand on: the last block known to be final in it, or the end of the
    /// epoch before. `None` if blocks of the epoch are final and the votes for them are lost, so
    /// that nobody can say what our key has signed.
    async fn floor(&self, epoch: u64, drawn: &Drawn) -> Option<Floor<Scheme, Digest>> {
        if let Some((height, _)) = self.mailbox.get_info(Identifier::Latest).await
            && let Some(votes) = self.mailbox.get_finalization(height).await
            && votes.epoch().get() == epoch
        {
            return Some(Floor::Finalized(votes));
        }
        let first = epoch * self.settings.epoch_length.get();
        let boundary = first.saturating_sub(1);
        let (height, head) = self.application.head();
        if height > boundary {
            let alone = drawn.seats.len() == 1;
            let view = View::new(height + 1 - first);
            let votes = certify_alone(&drawn.scheme, Epoch::new(epoch), view, digest(head));
            return votes.filter(|_| alone).map(Floor::Finalized);
        }
        Some(Floor::Genesis(digest(head)))
    }
}

/// The epoch of the block that follows `height`.
fn epoch_after(height: u64, length: u64) -> u64 {
    (height + 1) / length
}

/// Tells marshal how far the chain is. The chain's own store is the truth: it may have grown
/// without an engine, or come from a snapshot.
async fn resume(context: &Context, head: u64) -> Result<(), metadata::Error> {
    let config =
        metadata::Config { partition: format!("{MARSHAL}-application-metadata"), codec_config: () };
    let mut progress: Metadata<Context, U64, UInt<u64>> =
        Metadata::init(context.child("progress"), config).await?;
    if head > 0 && progress.get(&PROCESSED).map(|height| height.0) != Some(head) {
        progress.put(PROCESSED, UInt(head));
        progress.sync().await?;
    }
    Ok(())
}

/// Splits a channel into one per epoch.
fn multiplex(context: Context, (sender, receiver): Channel) -> MuxHandle<Sender> {
    let (muxer, handle) = Muxer::new(context, sender, receiver);
    muxer.start();
    handle
}

/// Ends when the engine does; never without one.
async fn ended(engine: &mut Option<Handle<()>>) {
    match engine {
        Some(engine) => {
            let _ = engine.await;
        }
        None => std::future::pending().await,
    }
}

fn patient(wait: Duration) -> NonZeroDuration {
    NonZeroDuration::new_panic(wait.max(Duration::from_millis(1)))
}

/// Opens marshal's archives.
struct Archives<'a> {
    context: &'a Context,
    cache: &'a CacheRef,
}

impl Archives<'_> {
    async fn open<V: commonware_codec::CodecShared>(
        &self,
        name: &'static str,
        codec_config: V::Cfg,
    ) -> Result<prunable::Archive<EightCap, Context, Digest, V>, commonware_storage::archive::Error>
    {
        let config = prunable::Config {
            translator: EightCap,
            metadata_partition: format!("{name}-metadata"),
            key_partition: format!("{name}-keys"),
            key_page_cache: self.cache.clone(),
            value_partition: format!("{name}-values"),
            compression: None,
            codec_config,
            items_per_section: SECTION,
            key_write_buffer: BUFFER,
            value_write_buffer: BUFFER,
            replay_buffer: BUFFER,
        };
        prunable::Archive::init(self.context.child(name), config).await
    }
}
