//! What an epoch drew for this auditor, and for others, by its own computation.

use std::collections::BTreeMap;

use assay_chain::{Chain, ChainError, Draw, PostedAt, Vow, VowState};
use assay_protocol::{Address, B256, U256};

/// Blocks asked about at once: nodes refuse more.
const BLOCKS_MAX: u64 = 1000;
/// Receipts of one epoch that are looked at. Who posts more than its share of them is looked at from a
/// place that it cannot know, so nothing is hidden behind a large number.
const LEAVES_MAX: u64 = 1 << 18;
/// Receipts of one epoch that are checked: what one transaction takes of verdicts.
pub(crate) const TASKS_MAX: usize = 256;
/// Other auditors that are looked after in one epoch.
const OTHERS_MAX: usize = 1024;

/// What an epoch drew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Drawn {
    /// For this auditor, each with the other one that has to check it.
    pub(crate) places: Vec<(PostedAt, Option<Address>)>,
    /// Who else was drawn for anything, and one place that each was drawn for.
    pub(crate) others: Vec<(Address, PostedAt)>,
    /// Receipts posted in the epoch.
    pub(crate) receipts: u64,
    /// How many revealed their secrets.
    pub(crate) revealed: usize,
}

/// A period that was posted in the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Period {
    provider: Address,
    number: u64,
    count: u64,
}

/// What epoch `epoch` drew for `auditor`. Final once the chain is two epochs further.
pub(crate) async fn draws(
    chain: &Chain,
    auditor: Address,
    epoch: u64,
    (length, rate): (u64, u16),
) -> Result<Drawn, ChainError> {
    let roll = chain.roll(epoch).await?;
    let revealed = roll.iter().filter(|vow| vow.part == VowState::Revealed).count();
    let mine = roll.iter().any(|vow| vow.auditor == auditor && vow.part == VowState::Revealed);
    let periods = posted(chain, epoch, length).await?;
    let receipts = periods.iter().fold(0, |sum: u64, one| sum.saturating_add(one.count));
    if !mine || periods.is_empty() {
        return Ok(Drawn { places: Vec::new(), others: Vec::new(), receipts, revealed });
    }
    let beacon = chain.beacon(epoch).await?;
    let chosen =
        tokio::task::spawn_blocking(move || choose(beacon, &roll, (auditor, rate), &periods));
    let Chosen { places, others } = chosen.await.unwrap_or_default();
    // The contract has the last word: what it sees otherwise would not be taken from this auditor.
    let mut agreed = Vec::with_capacity(places.len());
    for (place, other) in places {
        if chain.draw(&place).await?.names(auditor) {
            agreed.push((place, other));
        } else {
            tracing::error!(?place, "the contract drew otherwise than was computed here");
        }
    }
    let others = others.into_iter().take(OTHERS_MAX).collect();
    Ok(Drawn { places: agreed, others, receipts, revealed })
}

/// The periods that were posted in an epoch.
async fn posted(chain: &Chain, epoch: u64, length: u64) -> Result<Vec<Period>, ChainError> {
    let start = epoch.saturating_mul(length);
    let mut next = chain.block_since(start).await?;
    let behind = chain.block_since(start.saturating_add(length)).await?;
    let mut periods = Vec::new();
    while next < behind {
        let to = (behind - 1).min(next + BLOCKS_MAX - 1);
        let found = chain.posted(next, to).await?.into_iter();
        periods.extend(found.map(|(provider, number, count)| Period { provider, number, count }));
        next = to + 1;
    }
    Ok(periods)
}

/// See [`Drawn`].
#[derive(Debug, Default)]
struct Chosen {
    places: Vec<(PostedAt, Option<Address>)>,
    others: BTreeMap<Address, PostedAt>,
}

/// The places that fall on an auditor, those with the least seeds if there are too many; and for each other
/// auditor one that falls on that.
fn choose(
    beacon: B256,
    roll: &[Vow],
    (auditor, rate): (Address, u16),
    periods: &[Period],
) -> Chosen {
    let share = LEAVES_MAX / (periods.len() as u64).max(1);
    let (mut found, mut others) = (Vec::new(), BTreeMap::new());
    for Period { provider, number, count } in periods {
        let first = PostedAt { provider: *provider, period: *number, index: 0 };
        let from: u64 = match *count > share {
            true => (U256::from_be_bytes(Draw::seed(beacon, &first).0) % U256::from(*count)).to(),
            false => 0,
        };
        for step in 0..share.min(*count) {
            let index = ((u128::from(from) + u128::from(step)) % u128::from(*count)) as u64;
            let place = PostedAt { index, ..first };
            let draw = Draw::of(beacon, roll, rate, &place);
            let strangers = [draw.first, draw.second].into_iter().flatten();
            let mut other = None;
            for stranger in strangers.filter(|one| *one != auditor) {
                others.entry(stranger).or_insert(place);
                other = Some(stranger);
            }
            if draw.names(auditor) {
                found.push((Draw::seed(beacon, &place), place, other));
            }
        }
    }
    found.sort_unstable();
    found.truncate(TASKS_MAX);
    let places = found.into_iter().map(|(_, place, other)| (place, other)).collect();
    Chosen { places, others }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roll() -> Vec<Vow> {
        let vow = |byte| Vow {
            commitment: B256::ZERO,
            auditor: Address::repeat_byte(byte),
            part: VowState::Revealed,
        };
        vec![vow(1), vow(2), vow(3)]
    }

    fn check(counts: &[u64], rate: u16) -> Chosen {
        let period = |(number, count): (usize, &u64)| Period {
            provider: Address::repeat_byte(9),
            number: number as u64,
            count: *count,
        };
        let periods: Vec<Period> = counts.iter().enumerate().map(period).collect();
        let auditor = Address::repeat_byte(1);
        choose(B256::repeat_byte(5), &roll(), (auditor, rate), &periods)
    }

    #[test]
    fn two_of_three_receipts_fall_on_each_of_three() {
        let drawn = check(&[60, 60], 10_000);
        let places = drawn.places.len();
        assert!((60..100).contains(&places), "{places} of 120");
        let strangers: Vec<Address> = drawn.others.into_keys().collect();
        assert_eq!(strangers, [2, 3].map(Address::repeat_byte));
        assert!(
            drawn.places.iter().all(|(_, other)| other.is_some_and(|o| strangers.contains(&o)))
        );
        assert!(check(&[], 10_000).places.is_empty());
    }

    #[test]
    fn a_flood_takes_no_more_than_its_share() {
        let places = check(&[u64::MAX, 3], 10_000).places;
        assert_eq!(places.len(), TASKS_MAX);
        assert!(places.iter().any(|(place, _)| place.index > 3), "only the first are looked at");
    }
}
