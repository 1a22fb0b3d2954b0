//! Encrypted connections to the other validators, and what flows in which channel.

use super::Settings;
use super::committees::{key, public};
use super::wire::Key;
use crate::consensus::{BLOCK_BYTES_MAX, Peer, SEATS_MAX, Seat};
use commonware_cryptography::{ChaCha20Poly1305, ed25519};
use commonware_p2p::authenticated::lookup;
use commonware_p2p::{Address, AddressableManager, AddressableTrackedPeers, Ingress};
use commonware_runtime::tokio::Context;
use commonware_runtime::{Handle, Quota, Supervisor as _};
use commonware_stream::cups::{self, Cups};
use commonware_stream::sake::{self, Sake};
use commonware_utils::ordered::Map;
use commonware_utils::{Hostname, NZU32, NZUsize};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

/// Most nodes that are not seated and may still connect, because an operator listed them.
pub const PEERS_MAX: usize = 28;

/// Longest message: a block with the votes for it.
const MESSAGE_BYTES_MAX: usize = BLOCK_BYTES_MAX + (64 << 10);

/// How far two clocks may be apart for their nodes to connect.
const CLOCKS_APART: Duration = Duration::from_secs(10);

/// How long a node that broke the rules is refused. Short, so that one that was repaired is soon
/// back; equivocation is punished by the contract, not by silence.
const BLOCKED_FOR: Duration = Duration::from_secs(60);

/// Messages between the engine's parts that may wait.
const MAILBOX: NonZeroUsize = NZUsize!(4096);

/// Where one of the two ends of a channel leads.
pub(super) type Sender = lookup::Sender<Key, Context>;
/// The other end.
pub(super) type Receiver = lookup::Receiver<Key>;
/// Both.
pub(super) type Channel = (Sender, Receiver);
/// Tells the network whom to connect to, and whom to refuse.
pub(super) type Oracle = lookup::Oracle<Key>;

type Upgrade = Cups<Sake<ed25519::PrivateKey>, ChaCha20Poly1305>;

/// All channels, in the order of their numbers, which are part of the wire format.
pub(super) struct Channels {
    pub(super) votes: Channel,
    pub(super) certificates: Channel,
    pub(super) missing_votes: Channel,
    pub(super) blocks: Channel,
    pub(super) missing_blocks: Channel,
    pub(super) heads: Channel,
    pub(super) transactions: Channel,
}

/// The network before it runs.
pub(super) struct Network {
    network: lookup::Network<Context, Upgrade>,
    pub(super) oracle: Oracle,
}

impl Network {
    /// Prepares to listen at `settings.listen` as `signer`. The namespace names the protocol, not
    /// the chain: two nodes of different chains connect, tell each other which they are on, and
    /// part with a clear word (see `heads`). Votes are bound to the chain by their signatures.
    pub(super) fn new(
        context: &Context,
        settings: &Settings,
        signer: &ed25519::PrivateKey,
    ) -> Self {
        let handshake = Cups::<_, ChaCha20Poly1305>::new(
            Sake {
                signer: signer.clone(),
                synchrony_bound: CLOCKS_APART,
                max_handshake_age: CLOCKS_APART,
                version: sake::Version::V1,
            },
            cups::Version::V1,
        );
        let nodes_max = NonZeroUsize::MIN.saturating_add(SEATS_MAX + PEERS_MAX);
        let mut config = lookup::Config::local(
            handshake,
            b"EVM_CLUSTER_1_P2P",
            settings.listen,
            nodes_max,
            u32::try_from(MESSAGE_BYTES_MAX).unwrap_or(u32::MAX),
            MAILBOX,
        );
        // Who connects is known by its key; addresses change behind routers and in containers.
        config.bypass_ip_check = true;
        config.block_duration = BLOCKED_FOR;
        config.tracked_peer_sets = NZUsize!(2);
        let (network, oracle) = lookup::Network::new(context.child("network"), config);
        Self { network, oracle }
    }

    /// Opens the channels. A peer that sends faster than a channel allows is slowed down.
    pub(super) fn open(&mut self) -> Channels {
        let mut next = 0;
        let mut channel = |per_second| {
            let channel = self.network.register(next, Quota::per_second(per_second));
            next += 1;
            channel
        };
        Channels {
            votes: channel(NZU32!(4096)),
            certificates: channel(NZU32!(4096)),
            missing_votes: channel(NZU32!(512)),
            blocks: channel(NZU32!(512)),
            missing_blocks: channel(NZU32!(1024)),
            heads: channel(NZU32!(16)),
            transactions: channel(NZU32!(256)),
        }
    }

    pub(super) fn start(self) -> Handle<()> {
        self.network.start()
    }
}

/// Connects to the seats of `epoch`, and lets in the nodes that the operator listed.
pub(super) fn track(
    oracle: &mut Oracle,
    epoch: u64,
    seats: &[Seat],
    settings: &Settings,
    me: &ed25519::PrivateKey,
) {
    let me = public(me);
    let seated = seats.iter().map(|seat| (&seat.key, seat.socket.as_str()));
    // A seat without a usable socket may still call us.
    let anywhere = || Address::Symmetric(SocketAddr::from(([0, 0, 0, 0], 0)));
    let mut primary: Vec<(Key, Address)> = seated
        .filter_map(|(bytes, socket)| Some((key(bytes)?, address(socket).unwrap_or_else(anywhere))))
        .collect();
    // An operator's word about where a validator listens goes before the contract's.
    let listed: Vec<(Key, Address)> = settings.peers.iter().filter_map(resolve).collect();
    for (seat, place) in &mut primary {
        if let Some((_, known)) = listed.iter().find(|(peer, _)| peer == seat) {
            *place = known.clone();
        }
        if *seat == me {
            *place = Address::Symmetric(settings.listen);
        }
    }
    let others =
        listed.into_iter().filter(|(peer, _)| !primary.iter().any(|(seat, _)| seat == peer));
    let secondary: Vec<_> = others.filter(|(peer, _)| *peer != me).take(PEERS_MAX).collect();
    oracle.track(
        epoch,
        AddressableTrackedPeers::new(
            Map::from_iter_dedup(primary),
            Map::from_iter_dedup(secondary),
        ),
    );
}

fn resolve(peer: &Peer) -> Option<(Key, Address)> {
    Some((key(&peer.key)?, address(&peer.socket)?))
}

/// `host:port` as the network wants it: numbers at once, names when it dials.
fn address(socket: &str) -> Option<Address> {
    if let Ok(address) = socket.parse::<SocketAddr>() {
        return Some(Address::Symmetric(address));
    }
    let (host, port) = socket.rsplit_once(':')?;
    let ingress = Ingress::Dns { host: Hostname::new(host).ok()?, port: port.parse().ok()? };
    let egress = SocketAddr::from(([0, 0, 0, 0], 0));
    Some(Address::Asymmetric { ingress, egress })
}
