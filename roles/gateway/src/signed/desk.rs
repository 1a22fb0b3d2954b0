//! What is known of signed orders from one request to the next: which are under way, and which grants
//! hold.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use assay_protocol::{Address, B256, Key, OrderHash, SignedGrant, U256, keccak256};
use futures_util::future::try_join_all;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::fault::Fault;
use super::mint::Mint;
use crate::http::Gateway;
use crate::store::Row;

/// How long it is believed that a grant holds. One that was taken back stays so.
const HOLDS: Duration = Duration::from_secs(10);

/// Questions to the chain about grants under way at once, for all clients together.
const ASKING_MAX: usize = 8;

/// Longest wait for the chain's word on a line of grants, its turn to be asked included.
const ASK_WAIT_MAX: Duration = Duration::from_secs(5);

/// Grants up to which nothing that is known is forgotten.
const KNOWN_MAX: usize = 10_000;

/// Names of buyers with their nonces → the orders under way, and since when.
type Running = Arc<Mutex<HashMap<B256, (OrderHash, Instant)>>>;

/// Longest time after which a client is told to ask again for an order under way, in seconds.
const RETRY_MAX_S: u64 = 60;

/// What is known of signed orders across requests.
#[derive(Debug)]
pub(crate) struct Desk {
    running: Running,
    /// Issuer and digest of a grant → when the chain said that it holds; none: it was taken back.
    known: Mutex<HashMap<(Address, B256), Option<Instant>>>,
    /// Turns to ask the chain.
    asking: Semaphore,
    pub(super) mint: Mint,
}

/// Seconds after which it is worth asking again for an order that has been under way for so long: the
/// longer it was, the longer it may be.
fn retry_after_s(under_way: Duration) -> u32 {
    u32::try_from((under_way.as_secs() / 4).clamp(1, RETRY_MAX_S)).unwrap_or(u32::MAX)
}

/// The name of a buyer with a nonce.
pub(super) fn name(buyer: Address, nonce: U256) -> B256 {
    let mut bytes = [0; 52];
    bytes[..20].copy_from_slice(buyer.as_slice());
    bytes[20..].copy_from_slice(&nonce.to_be_bytes::<32>());
    keccak256(bytes)
}

impl Desk {
    pub(crate) fn new(key: &Key) -> Self {
        Self {
            running: Arc::default(),
            known: Mutex::default(),
            asking: Semaphore::new(ASKING_MAX),
            mint: Mint::new(key),
        }
    }

    /// Takes an order in hand, unless its buyer's nonce is in use.
    pub(super) fn take(&self, name: B256, order: OrderHash) -> Result<Place, Fault> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&(under_way, since)) = running.get(&name) {
            return Err(match under_way == order {
                true => Fault::Running { order, retry_after_s: retry_after_s(since.elapsed()) },
                false => Fault::Nonce { order: under_way },
            });
        }
        running.insert(name, (order, Instant::now()));
        Ok(Place { running: Arc::clone(&self.running), name, order })
    }

    /// Refuses grants of which one was taken back. That they are good in all else has been checked, so
    /// there are few.
    pub(super) async fn check_revoked(
        &self,
        gateway: &Gateway,
        line: &[SignedGrant],
    ) -> Result<(), Fault> {
        let Some(purse) = &gateway.purse else { return Ok(()) };
        let named = line.iter().map(|SignedGrant { grant, .. }| {
            let minted = self.mint.made(grant);
            (grant.issuer, grant.digest(gateway.chain), minted)
        });
        // What was minted here for one order nobody takes back; its provider asks all the same.
        let asked: Vec<_> = named.filter(|(.., minted)| !minted).collect();
        let asked = try_join_all(asked.into_iter().map(async |(issuer, digest, _)| {
            let known = self.known(issuer, digest);
            let revoked = match known {
                Some(revoked) => revoked,
                None => {
                    let turn = self.asking.acquire().await;
                    let _turn = turn.map_err(|error| Fault::Unseen(error.to_string()))?;
                    let asked = purse.terms.bank.is_revoked(issuer, digest).await;
                    let revoked = asked.map_err(|error| Fault::Unseen(error.to_string()))?;
                    self.learn(issuer, digest, revoked);
                    revoked
                }
            };
            if revoked { Err(Fault::Revoked { grant: digest }) } else { Ok(()) }
        }));
        let late = || Fault::Unseen(format!("no answer within {} s", ASK_WAIT_MAX.as_secs()));
        timeout(ASK_WAIT_MAX, asked).await.map_err(|_| late())?.map(drop)
    }

    /// Whether a grant was taken back, as far as that is known.
    fn known(&self, issuer: Address, digest: B256) -> Option<bool> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&(issuer, digest))? {
            None => Some(true),
            Some(seen) => (seen.elapsed() < HOLDS).then_some(false),
        }
    }

    fn learn(&self, issuer: Address, digest: B256, revoked: bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            // The chain is asked again about what is forgotten.
            known.retain(|_, seen| seen.is_some_and(|seen| seen.elapsed() < HOLDS));
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
        }
        known.insert((issuer, digest), (!revoked).then(Instant::now));
    }
}

/// A signed order's place among those under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    running: Running,
    name: B256,
    order: OrderHash,
}

impl Place {
    /// What is kept with its answer, so that its nonce buys no other.
    pub(crate) fn row(&self) -> Row {
        Row::Nonce { name: self.name, order: self.order }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_one_orders_at_a_time() {
        let desk = Desk::new(&Key::from_bytes([1; 32]).unwrap());
        let ada = Address::repeat_byte(1);
        let (first, second) = (name(ada, U256::from(1)), name(ada, U256::from(2)));
        let order = |byte| OrderHash(B256::repeat_byte(byte));
        let taken = desk.take(first, order(1)).unwrap();
        assert!(matches!(desk.take(first, order(1)), Err(Fault::Running { .. })));
        assert!(matches!(desk.take(first, order(2)), Err(Fault::Nonce { .. })));
        assert!(desk.take(second, order(2)).is_ok());
        drop(taken);
        assert!(desk.take(first, order(2)).is_ok());
    }

    #[test]
    fn who_asks_too_early_is_told_to_wait_longer_each_time() {
        let after = [0, 7, 40, 1000].map(|s| retry_after_s(Duration::from_secs(s)));
        assert_eq!(after, [1, 1, 10, 60]);
    }

    #[test]
    fn what_was_taken_back_stays_so() {
        let desk = Desk::new(&Key::from_bytes([1; 32]).unwrap());
        let (ada, digest) = (Address::repeat_byte(1), B256::repeat_byte(2));
        assert_eq!(desk.known(ada, digest), None);
        desk.learn(ada, digest, false);
        assert_eq!(desk.known(ada, digest), Some(false));
        desk.learn(ada, digest, true);
        assert_eq!(desk.known(ada, digest), Some(true));
        for number in 0..KNOWN_MAX {
            desk.learn(ada, B256::from(U256::from(number)), true);
        }
        assert!(desk.known.lock().unwrap().len() <= KNOWN_MAX);
    }
}
