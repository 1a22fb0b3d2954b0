//! Decides whose offer is taken. Pure: equal offers give equal choices.

use assay_protocol::wire::Accepts;
use assay_protocol::{Address, Amount, Assurance, ModelId, Offer};

use crate::latency::Slowness;

/// What an order needs.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) model: ModelId,
    pub(crate) assurance: Assurance,
    pub(crate) prompt_tokens: u32,
    pub(crate) max_tokens: u32,
    /// Most that the answer may cost; an offer above it is not considered.
    pub(crate) max_price: Amount,
    /// Where the grants can be taken back that it is bought under; zero: it is bought under none.
    pub(crate) registry: Address,
}

/// An offer, and how its provider does.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// The provider's place in the directory.
    pub(crate) place: usize,
    pub(crate) url: String,
    pub(crate) offer: Offer,
    /// How it is paid; none: for free.
    pub(crate) accepts: Option<Accepts>,
    /// Orders it runs.
    pub(crate) running: u32,
    /// Orders it runs at once.
    pub(crate) running_max: u32,
    /// How slow it is.
    pub(crate) slowness: Slowness,
    /// Whether it was caught lying.
    pub(crate) struck: bool,
    /// Whether the chain says that it may not serve: it is in jail, or has too little at stake.
    pub(crate) barred: bool,
    /// Whether it failed lately: all others come first.
    pub(crate) aside: bool,
}

impl Candidate {
    /// What the order costs at most.
    pub(crate) fn worst_price(&self, wanted: &Wanted) -> Amount {
        self.offer.price(wanted.prompt_tokens, wanted.max_tokens)
    }

    /// Whether it could answer, whatever that costs.
    fn answers(&self, wanted: &Wanted, now: u64) -> bool {
        let tokens = u64::from(wanted.prompt_tokens) + u64::from(wanted.max_tokens);
        self.offer.model == wanted.model
            && self.offer.assurance.covers(wanted.assurance)
            && self.offer.asset.is_zero()
            && u64::from(self.offer.context) >= tokens
            && now < self.offer.expires
            && !self.struck
            && !self.barred
    }

    /// The order in which offers are taken: who did not fail lately, then the price in the worst
    /// case, weighed up for who is slow, then who runs the fewest orders, then the lower address.
    fn rank(&self, wanted: &Wanted) -> (bool, Amount, u32, Address, usize) {
        let price = self.slowness.weighed(self.worst_price(wanted));
        (self.aside, price, self.running, self.offer.provider, self.place)
    }
}

/// Why no offer can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// There is none.
    NoOffer,
    /// There are some, and all their providers are busy.
    Busy,
    /// There are some, and all of them cost more than the order may.
    Price,
    /// There are some, and all their providers refuse orders under such grants.
    Grants,
}

/// Picks the offer at which the order costs least in the worst case, slow providers' prices weighed up, among
/// providers that did not
/// fail lately if there are any. Ties go to the provider that runs the fewest orders, then to the
/// lower address. Places in `tried` are out.
///
/// `now` is in Unix seconds.
pub(crate) fn choose<'a>(
    wanted: &Wanted,
    candidates: &'a [Candidate],
    tried: &[usize],
    now: u64,
) -> Result<&'a Candidate, NoRoute> {
    let mut none = NoRoute::NoOffer;
    candidates
        .iter()
        .filter(|candidate| candidate.answers(wanted, now) && !tried.contains(&candidate.place))
        .filter(|candidate| match obstacle(candidate, wanted) {
            Some(found) => {
                none = if told_first(none, found) { none } else { found };
                false
            }
            None => true,
        })
        .min_by_key(|candidate| candidate.rank(wanted))
        .ok_or(())
        .map_err(|()| none)
}

/// Whether a client hears of `one` obstacle rather than of `other`: of what passes, then of what a
/// smaller request mends.
fn told_first(one: NoRoute, other: NoRoute) -> bool {
    let rank = |none| match none {
        NoRoute::NoOffer => 0,
        NoRoute::Grants => 1,
        NoRoute::Price => 2,
        NoRoute::Busy => 3,
    };
    rank(one) > rank(other)
}

/// What keeps an order from someone who could answer it.
fn obstacle(candidate: &Candidate, wanted: &Wanted) -> Option<NoRoute> {
    let takes = candidate.accepts.as_ref().map_or(Address::ZERO, |accepts| accepts.grants);
    if !wanted.registry.is_zero() && takes != wanted.registry {
        return Some(NoRoute::Grants);
    }
    if candidate.worst_price(wanted) > wanted.max_price {
        return Some(NoRoute::Price);
    }
    (candidate.running >= candidate.running_max).then_some(NoRoute::Busy)
}

/// The price that an order allows: the highest among the `tries` offers that would be taken first,
/// so that it can be handed on unchanged, and no other offer can raise it.
pub(crate) fn allowed_price(
    wanted: &Wanted,
    candidates: &[Candidate],
    tries: usize,
    now: u64,
) -> Amount {
    let able = candidates.iter().filter(|candidate| {
        candidate.answers(wanted, now) && obstacle(candidate, wanted).is_none()
    });
    let mut able: Vec<_> = able.collect();
    able.sort_unstable_by_key(|candidate| candidate.rank(wanted));
    let first = able.iter().take(tries);
    first.map(|candidate| candidate.worst_price(wanted)).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use assay_protocol::{Address, B256};

    const NOW: u64 = 100;

    /// Reads `ada 3 1/4`: name, price of a token, orders running of those that can; then words
    /// that change the offer.
    fn candidate(place: usize, text: &str) -> Candidate {
        let mut words = text.split(' ');
        let name = words.next().unwrap().as_bytes()[0];
        let price: u128 = words.next().unwrap().parse().unwrap();
        let (running, running_max) = words.next().unwrap().split_once('/').unwrap();
        let mut candidate = Candidate {
            place,
            url: String::new(),
            offer: Offer {
                provider: Address::repeat_byte(name),
                model: ModelId::default(),
                assurance: Assurance::Replayable,
                asset: Address::ZERO,
                price_in: Amount(price * 1_000_000),
                price_out: Amount(price * 1_000_000),
                context: 10,
                expires: NOW + 1,
            },
            accepts: None,
            running: running.parse().unwrap(),
            running_max: running_max.parse().unwrap(),
            slowness: Slowness::default(),
            struck: false,
            barred: false,
            aside: false,
        };
        for word in words {
            match word {
                "slow" => candidate.slowness = Slowness(300_000),
                "struck" => candidate.struck = true,
                "barred" => candidate.barred = true,
                "aside" => candidate.aside = true,
                "expired" => candidate.offer.expires = NOW,
                "scored" => candidate.offer.assurance = Assurance::Scored,
                "short" => candidate.offer.context = 9,
                "other" => candidate.offer.model = ModelId(B256::repeat_byte(1)),
                _ => panic!("unknown word {word}"),
            }
        }
        candidate
    }

    fn candidates(offers: &str) -> Vec<Candidate> {
        offers.split(", ").enumerate().map(|(place, text)| candidate(place, text)).collect()
    }

    /// An order for ten tokens that may cost 50.
    fn wanted() -> Wanted {
        Wanted {
            model: ModelId::default(),
            assurance: Assurance::Replayable,
            prompt_tokens: 4,
            max_tokens: 6,
            max_price: Amount(50),
            registry: Address::ZERO,
        }
    }

    fn check(offers: &str, tried: &[usize], expected: &str) {
        let candidates = candidates(offers);
        let chosen = match choose(&wanted(), &candidates, tried, NOW) {
            Ok(candidate) => char::from(candidate.offer.provider[0]).to_string(),
            Err(none) => format!("{none:?}"),
        };
        assert_eq!(chosen, expected, "{offers}");
    }

    #[test]
    fn the_cheapest_wins_then_the_idlest_then_the_lowest() {
        check("ada 5 0/4", &[], "a");
        check("ada 3 0/4, bob 2 3/4", &[], "b");
        check("ada 2 3/4, bob 2 1/4", &[], "b");
        check("bob 2 1/4, ada 2 1/4", &[], "a");
    }

    #[test]
    fn who_is_slow_has_to_ask_for_less() {
        check("ada 3 0/4 slow, bob 4 0/4", &[], "b");
        check("ada 2 0/4 slow, bob 3 0/4", &[], "a");
        // It may answer, and be paid what it asks for, never more.
        check("ada 5 0/4 slow", &[], "a");
        let both = candidates("ada 3 0/4 slow, bob 4 0/4");
        assert_eq!(allowed_price(&wanted(), &both, 1, NOW), Amount(40));
        assert_eq!(allowed_price(&wanted(), &both, 2, NOW), Amount(40));
    }

    #[test]
    fn who_failed_lately_comes_last_but_comes() {
        check("ada 1 0/4 aside, bob 5 0/4", &[], "b");
        check("ada 1 0/4 aside, bob 5 0/4", &[1], "a");
        check("ada 1 0/4 aside, bob 6 0/4", &[], "a");
    }

    #[test]
    fn who_cannot_answer_is_passed_over() {
        for why in ["struck", "barred", "expired", "scored", "short", "other"] {
            check(&format!("ada 1 0/4 {why}, bob 2 0/4"), &[], "b");
            check(&format!("ada 1 0/4 {why}"), &[], "NoOffer");
        }
        check("ada 1 0/4, bob 2 0/4", &[0], "b");
    }

    #[test]
    fn a_full_house_is_not_an_empty_one() {
        check("ada 1 4/4, bob 2 0/4", &[], "b");
        check("ada 1 4/4", &[], "Busy");
        check("ada 1 4/4, bob 1 4/4", &[0, 1], "NoOffer");
    }

    #[test]
    fn an_offer_above_the_limit_is_none_and_says_so() {
        check("ada 6 0/4", &[], "Price");
        check("ada 6 0/4, bob 5 0/4", &[], "b");
        check("ada 6 0/4, bob 5 4/4", &[], "Busy");
        check("bob 5 4/4, ada 6 0/4", &[], "Busy");
    }

    #[test]
    fn an_order_under_grants_goes_to_who_takes_them() {
        let registry = Address::repeat_byte(9);
        let accepts = |grants| Accepts {
            channels: Address::ZERO,
            market: Address::ZERO,
            token: Address::ZERO,
            receiver: Address::ZERO,
            receiver_authorizer: Address::ZERO,
            withdraw_delay_min: 0,
            credit_max: Amount(0),
            grants,
        };
        let mut candidates = candidates("ada 1 0/4, bob 2 0/4, eve 3 0/4");
        candidates[0].accepts = Some(accepts(Address::ZERO));
        candidates[1].accepts = Some(accepts(registry));
        let wanted = Wanted { registry, ..wanted() };
        let chosen = |tried| choose(&wanted, &candidates, tried, NOW).map(|one| one.place);
        assert_eq!(chosen(&[]), Ok(1));
        assert_eq!(chosen(&[1]), Err(NoRoute::Grants));
        assert_eq!(allowed_price(&wanted, &candidates, 2, NOW).0, 20);
    }

    #[test]
    fn an_order_allows_what_its_tries_may_cost_and_no_more() {
        let allowed = |offers: &str| allowed_price(&wanted(), &candidates(offers), 2, NOW).0;
        assert_eq!(allowed("ada 1 0/4, bob 3 0/4"), 30);
        assert_eq!(allowed("ada 1 0/4, bob 3 0/4, eve 5 0/4"), 30);
        assert_eq!(allowed("ada 1 4/4, bob 3 0/4, eve 5 0/4"), 50);
        assert_eq!(allowed("ada 1 0/4, eve 34028236692093846346337460743 0/4"), 10);
        assert_eq!(allowed("ada 1 0/4 struck, bob 2 0/4 expired"), 0);
    }
}
