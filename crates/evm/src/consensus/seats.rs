//! Who may vote: the seats that a contract lists, or that the operator wrote down.
//!
//! The contract is any that answers `seats()`; what it answers is a stranger's data, so it is read
//! within bounds, and what cannot vote (a zero key, a weight of zero, a key seated twice) is passed
//! over. Every validator reads the same answer and passes over the same seats.

use super::Evidence;
use alloy_primitives::{Address, B256, Bytes};
use alloy_sol_types::{SolCall, sol};
use std::collections::BTreeSet;

/// Most seats of one epoch. Each further seat costs every validator one message per vote.
pub const SEATS_MAX: usize = 100;

/// Longest `host:port` of a seat, in bytes.
const SOCKET_BYTES_MAX: usize = 256;

sol! {
    /// What the contract lists.
    struct ListedSeat { bytes32 key; address owner; uint96 weight; string socket; }

    /// What is asked of the contract.
    function seats() external view returns (ListedSeat[] memory);

    /// Where it hears of those who voted twice.
    function reportEquivocation(bytes calldata evidence) external;
}

/// One vote in the consensus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Ed25519 public key that signs the votes.
    pub key: B256,
    /// Whose stake answers for the key; zero when nobody's does.
    pub owner: Address,
    /// What the contract would give it in votes. The engine counts one vote per seat, whatever
    /// stands here; weighting by proven compute draws seats, not votes.
    pub weight: u128,
    /// Where the validator listens, as `host:port`.
    pub socket: String,
}

/// A node by its key and where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Ed25519 public key.
    pub key: B256,
    /// `host:port`.
    pub socket: String,
}

/// Why a list of seats or peers is unusable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeatsError {
    /// The contract's answer is not a list of seats.
    #[error("the contract's answer is not a list of seats: {0}")]
    Answer(String),
    /// The call itself failed.
    #[error("the contract does not answer: {0}")]
    Call(String),
    /// Nobody on the list may vote.
    #[error("none of the {listed} seats listed can vote")]
    Empty {
        /// Seats listed.
        listed: usize,
    },
    /// A line that is not `key@host:port`.
    #[error("line {line} is not key@host:port (64 hexadecimal digits before the @)")]
    Line {
        /// Which, from 1.
        line: usize,
    },
}

impl From<Peer> for Seat {
    /// A seat that nobody's stake answers for.
    fn from(peer: Peer) -> Self {
        Self { key: peer.key, owner: Address::ZERO, weight: 1, socket: peer.socket }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}@{}", self.key, self.socket)
    }
}

/// The call data that asks a contract for its seats.
pub fn seats_call() -> Bytes {
    seatsCall {}.abi_encode().into()
}

/// The call data that tells a contract of an offence.
pub(super) fn report_call(evidence: &Evidence) -> Bytes {
    reportEquivocationCall { evidence: evidence.encode().into() }.abi_encode().into()
}

/// Reads a contract's answer to [`seats_call`] and keeps the seats that can vote, as [`admit`].
pub fn read_seats(answer: &[u8]) -> Result<Vec<Seat>, SeatsError> {
    let listed = seatsCall::abi_decode_returns_validate(answer)
        .map_err(|error| SeatsError::Answer(error.to_string()))?;
    admit(listed.into_iter().map(|seat| Seat {
        key: seat.key,
        owner: seat.owner,
        weight: seat.weight.to(),
        socket: seat.socket,
    }))
}

/// The first [`SEATS_MAX`] of `listed` that can vote: a key that is not zero and not seated before,
/// a weight, and a socket of bearable length. Fails when nobody is left.
pub fn admit(listed: impl IntoIterator<Item = Seat>) -> Result<Vec<Seat>, SeatsError> {
    let mut count = 0;
    let mut keys = BTreeSet::new();
    let seats: Vec<_> = listed
        .into_iter()
        .inspect(|_| count += 1)
        .filter(|seat| !seat.key.is_zero() && seat.weight > 0)
        .filter(|seat| seat.socket.len() <= SOCKET_BYTES_MAX)
        .filter(|seat| keys.insert(seat.key))
        .take(SEATS_MAX)
        .collect();
    if seats.is_empty() { Err(SeatsError::Empty { listed: count }) } else { Ok(seats) }
}

/// Reads `key@host:port`, one per line; blank lines and those that begin with `#` are passed over.
pub fn read_peers(text: &str) -> Result<Vec<Peer>, SeatsError> {
    let lines = text.lines().map(str::trim).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, line)| read_peer(line).ok_or(SeatsError::Line { line: index + 1 }))
        .collect()
}

fn read_peer(line: &str) -> Option<Peer> {
    let (key, socket) = line.split_once('@')?;
    let (host, port) = socket.rsplit_once(':')?;
    let _: u16 = port.parse().ok()?;
    let fits = !host.is_empty() && socket.len() <= SOCKET_BYTES_MAX;
    fits.then_some(())?;
    Some(Peer { key: key.parse().ok()?, socket: socket.to_owned() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use alloy_sol_types::SolValue;

    fn listed(key: u8, weight: u64) -> ListedSeat {
        ListedSeat {
            key: B256::repeat_byte(key),
            owner: Address::repeat_byte(key),
            weight: alloy_primitives::aliases::U96::from(weight),
            socket: format!("10.0.0.{key}:9000"),
        }
    }

    #[test]
    fn seats_that_cannot_vote_are_passed_over() {
        let answer = vec![listed(1, 1), listed(0, 1), listed(2, 0), listed(1, 5), listed(3, 7)];
        let seats = read_seats(&answer.abi_encode()).unwrap();
        let keys: Vec<_> = seats.iter().map(|seat| seat.key[0]).collect();
        assert_eq!(keys, [1, 3]);
        assert_eq!((seats[1].weight, seats[1].socket.as_str()), (7, "10.0.0.3:9000"));
    }

    #[test]
    fn a_committee_of_nobody_is_an_error() {
        let nobody: Vec<ListedSeat> = vec![listed(0, 1)];
        assert_eq!(read_seats(&nobody.abi_encode()), Err(SeatsError::Empty { listed: 1 }));
        assert!(matches!(read_seats(b"junk"), Err(SeatsError::Answer(_))));
        assert!(matches!(read_seats(&[0xff; 4096]), Err(SeatsError::Answer(_))));
    }

    #[test]
    fn no_more_than_the_bound_sit() {
        let many = (1..=u16::MAX).take(1000).map(|index| {
            let key = B256::left_padding_from(&index.to_be_bytes());
            Seat::from(Peer { key, socket: "h:1".into() })
        });
        assert_eq!(admit(many).unwrap().len(), SEATS_MAX);
    }

    #[test]
    fn peers_are_read_line_by_line() {
        let key = "11".repeat(32);
        let text = format!("# ours\n\n{key}@node.example:9000\n");
        let peers = read_peers(&text).unwrap();
        assert_eq!(
            peers,
            [Peer { key: B256::repeat_byte(0x11), socket: "node.example:9000".into() }]
        );
        assert_eq!(read_peers(&peers[0].to_string()).unwrap(), peers);
        for bad in ["nonsense", "11@a:1", &format!("{key}@a"), &format!("{key}@a:99999")] {
            assert_eq!(read_peers(bad), Err(SeatsError::Line { line: 1 }));
        }
    }
}
