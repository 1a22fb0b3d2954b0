//! Which keys may vote in which epoch.
//!
//! A committee is drawn from the state at the end of the epoch before. That state may be pruned by
//! the time somebody asks again, so the last few committees are kept beside the journals.

use super::archive::certify_alone;
use super::wire::{Digest, Key, Scheme};
use crate::consensus::{Application, CommitteeError, Peer, Seat, SeatsError};
use alloy_primitives::B256;
use commonware_codec::{Copying, DecodeExt, Encode};
use commonware_consensus::simplex::types::Finalization;
use commonware_consensus::types::{Epoch, View};
use commonware_cryptography::certificate::{Provider, Scoped};
use commonware_cryptography::{Signer, ed25519};
use commonware_runtime::tokio::Context;
use commonware_storage::metadata::{self, Metadata};
use commonware_utils::TryCollect;
use commonware_utils::ordered::Set;
use commonware_utils::sequence::U64;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Epochs whose committees stay at hand; older votes are not checked again.
const EPOCHS_KEPT: usize = 8;

/// Longest record of one committee on disk.
const RECORD_BYTES_MAX: usize = 64 << 10;

/// The committees known so far. Cloning shares them.
#[derive(Clone)]
pub(super) struct Committees<A> {
    shared: Arc<Shared<A>>,
}

struct Shared<A> {
    application: A,
    signer: ed25519::PrivateKey,
    namespace: Vec<u8>,
    epoch_length: u64,
    drawn: Mutex<BTreeMap<u64, Drawn>>,
}

/// One epoch's committee.
#[derive(Clone)]
pub(super) struct Drawn {
    /// Its seats, those with a usable key.
    pub(super) seats: Vec<Seat>,
    /// Checks its votes, and signs ours if we sit.
    pub(super) scheme: Arc<Scheme>,
    /// Whether we sit.
    pub(super) seated: bool,
}

impl<A: Application> Committees<A> {
    pub(super) fn new(application: A, signer: ed25519::PrivateKey, epoch_length: u64) -> Self {
        let namespace = application.identity().namespace();
        let drawn = Mutex::default();
        Self { shared: Arc::new(Shared { application, signer, namespace, epoch_length, drawn }) }
    }

    /// The committee of `epoch`, drawn now if it was not before.
    pub(super) fn of(&self, epoch: u64) -> Result<Drawn, CommitteeError> {
        if let Some(drawn) = self.known(epoch) {
            return Ok(drawn);
        }
        let seats = self.shared.application.committee(epoch)?;
        self.admit(epoch, seats)
    }

    /// As [`Committees::of`], if it was drawn before.
    fn known(&self, epoch: u64) -> Option<Drawn> {
        let drawn = self.shared.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        drawn.get(&epoch).cloned()
    }

    /// Seats a committee in `epoch`.
    fn admit(&self, epoch: u64, seats: Vec<Seat>) -> Result<Drawn, CommitteeError> {
        let listed = seats.len();
        // Only points of the curve are keys. All validators drop the same ones.
        let seats: Vec<_> = seats.into_iter().filter(|seat| key(&seat.key).is_some()).collect();
        let empty = CommitteeError::Seats { reason: SeatsError::Empty { listed }, epoch };
        if seats.is_empty() {
            return Err(empty);
        }
        let keys = seats.iter().filter_map(|seat| key(&seat.key));
        let keys: Set<Key> = keys.try_collect().map_err(|_| empty)?;
        let Shared { namespace, signer, .. } = &*self.shared;
        let signing = Scheme::signer(namespace, keys.clone(), signer.clone());
        let seated = signing.is_some();
        let scheme = Arc::new(signing.unwrap_or_else(|| Scheme::verifier(namespace, keys)));
        let drawn = Drawn { seats, scheme, seated };
        let mut all = self.shared.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(epoch, drawn.clone());
        while all.len() > EPOCHS_KEPT {
            all.pop_first();
        }
        Ok(drawn)
    }

    /// Our signature for a finalised block of `epoch`, if ours is the only seat.
    pub(super) fn sole(
        &self,
        epoch: Epoch,
        height: u64,
        payload: Digest,
    ) -> Option<Finalization<Scheme, Digest>> {
        let drawn = match self.known(epoch.get()) {
            Some(drawn) => drawn,
            None => self.draw_apart(epoch.get())?,
        };
        if !drawn.seated || drawn.seats.len() != 1 {
            return None;
        }
        let first = epoch.get() * self.shared.epoch_length;
        certify_alone(&drawn.scheme, epoch, View::new(height + 1 - first), payload)
    }

    /// A committee of long ago, without keeping it.
    fn draw_apart(&self, epoch: u64) -> Option<Drawn> {
        let seats = self.shared.application.committee(epoch).ok()?;
        let [seat] = &seats[..] else { return None };
        let keys: Set<Key> = std::iter::once(key(&seat.key)?).try_collect().ok()?;
        let Shared { namespace, signer, .. } = &*self.shared;
        let scheme = Arc::new(Scheme::signer(namespace, keys, signer.clone())?);
        Some(Drawn { seats, scheme, seated: true })
    }
}

impl<A: Application> Provider for Committees<A> {
    type Scope = Epoch;
    type Scheme = Scheme;

    fn scoped(&self, epoch: Epoch) -> Option<Scoped<Scheme>> {
        let drawn = self.of(epoch.get()).ok()?;
        Some(if drawn.seated {
            Scoped::scheme(drawn.scheme)
        } else {
            Scoped::verifier(drawn.scheme)
        })
    }
}

/// The committees on disk.
pub(super) struct Records(Metadata<Context, U64, Vec<u8>>);

impl Records {
    /// Reads the committees kept by an earlier run into `committees`.
    pub(super) async fn open<A: Application>(
        context: Context,
        committees: &Committees<A>,
    ) -> Result<Self, metadata::Error> {
        let config = metadata::Config {
            partition: "committees".into(),
            codec_config: ((0..=RECORD_BYTES_MAX).into(), ()),
        };
        let records: Metadata<_, U64, Vec<u8>> = Metadata::init(context, config).await?;
        let epochs: Vec<U64> = records.keys().cloned().collect();
        for epoch in epochs {
            let seats = records.get(&epoch).and_then(|record| read_record(record));
            if let Some(seats) = seats {
                // What was drawn before can be drawn again.
                let _ = committees.admit(u64::from(&epoch), seats);
            }
        }
        Ok(Self(records))
    }

    /// Keeps the committee of `epoch`, and forgets those long past.
    pub(super) async fn keep(mut self, epoch: u64, drawn: &Drawn) -> Result<Self, metadata::Error> {
        let kept = EPOCHS_KEPT as u64;
        self.0.retain(|old, _| u64::from(old) + kept > epoch);
        self.0.put(U64::new(epoch), write_record(&drawn.seats));
        self.0 = self.0.sync().await?;
        Ok(self)
    }
}

/// A committee as lines of `key@socket`; owners and weights do not matter once it sits.
fn write_record(seats: &[Seat]) -> Vec<u8> {
    let lines = seats.iter().map(|seat| {
        let peer = Peer { key: seat.key, socket: seat.socket.clone() };
        format!("{peer}\n")
    });
    lines.collect::<String>().into_bytes()
}

fn read_record(record: &[u8]) -> Option<Vec<Seat>> {
    let text = std::str::from_utf8(record).ok()?;
    let seats: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_once('@'))
        .filter_map(|(key, socket)| {
            Some(Seat::from(Peer { key: key.parse().ok()?, socket: socket.to_owned() }))
        })
        .collect();
    (!seats.is_empty()).then_some(seats)
}

/// The point behind 32 bytes, if there is one.
pub(super) fn key(bytes: &B256) -> Option<Key> {
    Key::decode(Copying(bytes.as_slice())).ok()
}

/// The 32 bytes of a key.
pub(super) fn key_bytes(key: &Key) -> B256 {
    B256::from_slice(&key.encode())
}

/// The engine's form of a secret.
pub(super) fn signer(secret: &B256) -> Option<ed25519::PrivateKey> {
    ed25519::PrivateKey::decode(Copying(secret.as_slice())).ok()
}

/// The public half of a secret.
pub(super) fn public(secret: &ed25519::PrivateKey) -> Key {
    secret.public_key()
}
