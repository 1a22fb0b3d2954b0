//! What a canary orders: what others order, but for the words. Pure.

use assay_protocol::{
    Address, Amount, Assurance, Audit, B256, Key, ModelId, Offer, Order, Sampler, Terms, U256,
    bias_hash, stops_hash, token_root,
};

use crate::store::Ordered;

/// Longest time from an answer's beginning to its order's deadline that canaries follow, seconds: until it and a
/// dispute window are over, the prize is bound.
const TTL_MAX: u64 = 3_600;

/// How real orders look, by the last one: what an auditor could tell canaries by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fashion {
    pub(crate) model: ModelId,
    sampler: Sampler,
    audit: Audit,
    /// None where it asked for all that the context leaves.
    max_tokens: Option<u32>,
    /// From its start to its deadline, seconds.
    ttl: u64,
}

/// What decides about a draft beside the order that it follows.
pub(crate) struct Chance {
    pub(crate) prompt: u64,
    pub(crate) request: B256,
    pub(crate) nonce: B256,
    pub(crate) seed: B256,
}

/// Where it is ordered, by whom, and when.
pub(crate) struct Placing<'a> {
    pub(crate) buyer: &'a Key,
    pub(crate) market: Address,
    pub(crate) offer: &'a Offer,
    /// Unix seconds.
    pub(crate) serve_at: u64,
}

impl Fashion {
    /// How `ordered`, whose answer begins at `now`, Unix seconds, looks; nothing if auditors do not see such orders,
    /// or if it holds words of its buyer's beside the prompt.
    pub(crate) fn of(order: &Order, terms: &Terms, context: u32, now: u64) -> Option<Self> {
        let seen = order.audit != Audit::None && order.assurance == Assurance::Replayable;
        let plain = terms.stops.is_empty() && terms.bias.is_empty();
        if !seen || !plain || !terms.sampler.grammar.is_zero() || order.grant != B256::ZERO {
            return None;
        }
        let ttl =
            Some(order.deadline.saturating_sub(now)).filter(|ttl| (1..=TTL_MAX).contains(ttl))?;
        let all = context.saturating_sub(order.prompt_tokens) <= order.max_tokens;
        Some(Self {
            model: order.model,
            sampler: terms.sampler.clone(),
            audit: order.audit,
            max_tokens: (!all).then_some(order.max_tokens),
            ttl,
        })
    }

    /// How long after its start such an order may be started, seconds.
    pub(crate) fn ttl(&self) -> u64 {
        self.ttl
    }

    /// An order like that about one of `prompts`; nothing if there are none that leave room for an answer.
    pub(crate) fn draft(
        &self,
        prompts: &[Vec<u32>],
        chance: &Chance,
        place: &Placing<'_>,
    ) -> Option<Ordered> {
        let count = u64::try_from(prompts.len()).ok().filter(|count| *count > 0)?;
        let prompt = prompts.get(usize::try_from(chance.prompt % count).ok()?)?.clone();
        let prompt_tokens = u32::try_from(prompt.len()).ok()?;
        let room = place.offer.context.checked_sub(prompt_tokens).filter(|room| *room > 0)?;
        let max_tokens = self.max_tokens.map_or(room, |most| most.clamp(1, room));
        let sampler = Sampler {
            stops: stops_hash(&[]),
            bias: bias_hash(&[]),
            seed: chance.seed,
            ..self.sampler.clone()
        };
        let terms = Terms { prompt, sampler, stops: Vec::new(), bias: Vec::new(), grammar: None };
        let max_price: Amount = place.offer.price(prompt_tokens, max_tokens);
        let order = Order {
            buyer: place.buyer.address(),
            market: place.market,
            model: self.model,
            request: chance.request,
            prompt: token_root(&terms.prompt),
            prompt_tokens,
            max_tokens,
            sampler: terms.sampler.hash(),
            assurance: Assurance::Replayable,
            audit: self.audit,
            asset: place.offer.asset,
            max_price,
            deadline: place.serve_at.saturating_add(self.ttl),
            nonce: U256::from_be_bytes(chance.nonce.0),
            grant: B256::ZERO,
        };
        Some(Ordered { order, terms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000;

    fn real(change: fn(&mut Order, &mut Terms)) -> Option<Fashion> {
        let sampler = Sampler { top_k: 40, ..Sampler::greedy() };
        let mut terms =
            Terms { prompt: vec![1, 2], sampler, stops: vec![], bias: vec![], grammar: None };
        let mut order = Order {
            buyer: Address::repeat_byte(1),
            market: Address::repeat_byte(2),
            model: ModelId(B256::repeat_byte(3)),
            request: B256::ZERO,
            prompt: B256::ZERO,
            prompt_tokens: 2,
            max_tokens: 8,
            sampler: B256::ZERO,
            assurance: Assurance::Replayable,
            audit: Audit::Drawn,
            asset: Address::ZERO,
            max_price: Amount(9),
            deadline: NOW + 120,
            nonce: U256::from(1),
            grant: B256::ZERO,
        };
        change(&mut order, &mut terms);
        Fashion::of(&order, &terms, 16, NOW)
    }

    #[test]
    fn a_canary_is_ordered_as_others_are() {
        let offer = Offer {
            provider: Address::repeat_byte(4),
            model: ModelId(B256::repeat_byte(3)),
            assurance: Assurance::Replayable,
            asset: Address::ZERO,
            price_in: Amount(1_000_000),
            price_out: Amount(2_000_000),
            context: 16,
            expires: 0,
        };
        let buyer = Key::from_bytes([7; 32]).unwrap();
        let market = Address::repeat_byte(2);
        let place = Placing { buyer: &buyer, market, offer: &offer, serve_at: 5_000 };
        let byte = B256::repeat_byte;
        let chance = Chance { prompt: 3, request: byte(5), nonce: byte(6), seed: byte(7) };
        let prompts = [vec![4, 5, 6], vec![7, 8, 9, 10]];
        let draft = |fashion: Fashion| fashion.draft(&prompts, &chance, &place).unwrap();

        let Ordered { order, terms } = draft(real(|_, _| ()).unwrap());
        assert_eq!((terms.prompt.len(), order.prompt_tokens, order.max_tokens), (4, 4, 8));
        assert_eq!((terms.sampler.top_k, terms.sampler.seed), (40, B256::repeat_byte(7)));
        assert_eq!((order.buyer, order.audit), (buyer.address(), Audit::Drawn));
        assert_eq!((order.deadline, order.max_price), (5_120, Amount(4 + 16)));
        // Who asks for all that there is room for is followed in that.
        let open = real(|order, _| order.max_tokens = 14).unwrap();
        assert_eq!(draft(open).order.max_tokens, 12);
        assert!(real(|_, _| ()).unwrap().draft(&[vec![0; 16]], &chance, &place).is_none());
        assert!(real(|_, _| ()).unwrap().draft(&[], &chance, &place).is_none());
    }

    #[test]
    fn orders_that_auditors_do_not_see_set_no_fashion() {
        assert!(real(|order, _| order.audit = Audit::None).is_none());
        assert!(real(|order, _| order.assurance = Assurance::Scored).is_none());
        assert!(real(|_, terms| terms.stops = vec![vec![1]]).is_none());
        assert!(real(|order, _| order.grant = B256::repeat_byte(1)).is_none());
        assert!(real(|order, _| order.deadline = u64::from(u32::MAX)).is_none());
    }
}
