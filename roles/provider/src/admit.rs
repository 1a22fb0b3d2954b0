//! Decides which orders are answered. Pure: the same order at the same time gets the same word.
//!
//! Cheap questions come first, so that a stranger cannot make us hash a prompt that could never
//! be answered.

use assay_engine::{Job, Priority};
use assay_protocol::wire::{Accepts, Refusal, Submission};
use assay_protocol::{
    Address, Amount, B256, ChainId, LOGPROBS_MAX, Offer, OrderHash, SignedGrant, Use, check_grants,
};

use crate::Served;

/// Makes sure that the submission is its buyer's order, for this chain and a model served here,
/// and names it. Time plays no part: an order that was answered once keeps its name.
pub(crate) fn recognise(
    submission: &Submission,
    chain: ChainId,
    served: Option<&Served>,
) -> Result<OrderHash, Refusal> {
    let (order, terms) = (&submission.order, &submission.terms);
    if submission.chain_id != chain {
        return Err(Refusal::WrongChain { found: submission.chain_id, expected: chain });
    }
    let served = served.ok_or(Refusal::UnknownModel { model: order.model })?;
    let prompt = u32::try_from(terms.prompt.len()).unwrap_or(u32::MAX).max(order.prompt_tokens);
    if prompt >= served.context {
        return Err(Refusal::Context { prompt, context: served.context });
    }
    within_bounds(submission, served)?;
    Ok(order.check(chain, &submission.signature, terms)?)
}

/// Refuses what would harm other orders in the same batch.
fn within_bounds(submission: &Submission, served: &Served) -> Result<(), Refusal> {
    let terms = &submission.terms;
    if let Some(found) = submission.logprobs.filter(|&top| top > LOGPROBS_MAX) {
        let reason =
            format!("{found} alternatives are asked for with each token, at most {LOGPROBS_MAX}");
        return Err(Refusal::Invalid { reason });
    }
    let invalid = |reason: String| Err(Refusal::Invalid { reason });
    let most = submission.order.max_tokens;
    if served.makes_vectors && (most != 1 || submission.logprobs.is_some()) {
        return invalid(format!(
            "this model gives a text one vector: expected an order for one token without logprobs, \
             not for {most}"
        ));
    }
    let biased = terms.bias.iter().map(|(token, _)| token);
    if let Some(token) = terms.prompt.iter().chain(biased).find(|&&id| id >= served.vocabulary) {
        return invalid(format!(
            "token {token} is not below the vocabulary's {}",
            served.vocabulary
        ));
    }
    Ok(())
}

/// Turns a recognised order into a job, or says which of its terms are not met.
///
/// `offer` is what this provider sells the model for, `accepts` how it is paid, if it is; `now` is in
/// Unix seconds.
pub(crate) fn admit(
    submission: &Submission,
    hash: OrderHash,
    served: &Served,
    offer: &Offer,
    accepts: Option<&Accepts>,
    now: u64,
) -> Result<Job, Refusal> {
    let order = &submission.order;
    let market = accepts.map_or(Address::ZERO, |accepts| accepts.market);
    let delegated = order.grant != B256::ZERO || !submission.grants.is_empty();
    let offered = [
        ("assurance", offer.assurance.covers(order.assurance)),
        ("asset", order.asset == offer.asset),
        ("market", order.market == market),
        ("payment", submission.payment.is_none() || accepts.is_some()),
        ("grant", !delegated || accepts.is_some_and(|accepts| accepts.grants != Address::ZERO)),
    ];
    if let Some((what, _)) = offered.into_iter().find(|(_, holds)| !holds) {
        return Err(Refusal::NotOffered { what: what.into() });
    }
    if order.deadline <= now {
        return Err(Refusal::Expired { deadline: order.deadline, now });
    }
    let mut job = Job::new(hash, order, &submission.terms, &served.eos, served.context);
    job.logprobs = submission.logprobs;
    job.priority = if submission.flex { Priority::Low } else { Priority::Normal };
    let asked: Amount = offer.price(order.prompt_tokens, job.ending.tokens_max);
    if asked > order.max_price {
        return Err(Refusal::Price { asked, max: order.max_price });
    }
    Ok(job)
}

/// A grant that an order comes under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Under {
    /// Its name.
    pub(crate) digest: B256,
    /// Who can take it back.
    pub(crate) issuer: Address,
    /// Most that orders under it may cost in all, base units.
    pub(crate) spend: Amount,
    /// Most orders a minute; zero for no bound.
    pub(crate) rate: u32,
}

/// Makes sure that an admitted order is within the grants that it comes under, which are good as far as
/// their bytes tell; names them, the payer's first. None for a buyer that acts for itself.
pub(crate) fn delegated(
    submission: &Submission,
    accepts: &Accepts,
    now: u64,
) -> Result<Vec<Under>, Refusal> {
    let (order, grants) = (&submission.order, &submission.grants);
    if order.grant == B256::ZERO && grants.is_empty() {
        return Ok(Vec::new());
    }
    let payment = submission.payment.as_ref().ok_or(Refusal::Unpaid)?;
    let wanted = Use {
        chain: submission.chain_id,
        registry: accepts.grants,
        payer: payment.channel.payer,
        buyer: order.buyer,
        model: order.model,
        asset: order.asset,
        max_price: order.max_price,
        now,
    };
    let digests = check_grants(grants, &wanted)?;
    let last = digests.last().copied().unwrap_or_default();
    if last != order.grant {
        let reason = format!("the order names grant {}, the last one shown is {last}", order.grant);
        return Err(Refusal::Grant { reason });
    }
    let under = |(digest, SignedGrant { grant, .. }): (B256, &SignedGrant)| Under {
        digest,
        issuer: grant.issuer,
        spend: grant.spend,
        rate: grant.rate,
    };
    Ok(digests.into_iter().zip(grants).map(under).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use assay_engine::{Backend, Busy, Deltas};
    use assay_protocol::{
        Assurance, Audit, Key, ModelId, Order, Sampler, Terms, U256, stops_hash, token_root,
    };

    struct Idle;

    impl Backend for Idle {
        fn assurance(&self) -> Assurance {
            Assurance::Replayable
        }

        fn run(&self, _: Job) -> Result<Deltas, Busy> {
            Err(Busy { queue_max: 0 })
        }
    }

    const CHAIN: ChainId = ChainId(7);
    const NOW: u64 = 1000;

    fn served() -> Served {
        Served {
            id: ModelId(B256::repeat_byte(1)),
            holder: None,
            context: 10,
            vocabulary: 50,
            eos: vec![2],
            tokenizer: None,
            makes_vectors: false,
            backend: Arc::new(Idle),
            tracer: None,
        }
    }

    /// What is said of an order of three prompt tokens for four, changed before it is signed, and
    /// after.
    fn check(
        before: impl Fn(&mut Order, &mut Terms),
        after: impl Fn(&mut Submission),
        expected: &str,
    ) {
        let key = Key::from_bytes([1; 32]).unwrap();
        let served = served();
        let mut terms = Terms {
            prompt: vec![5, 6, 7],
            sampler: Sampler::greedy(),
            stops: vec![],
            bias: vec![],
            grammar: None,
        };
        let mut order = Order {
            buyer: key.address(),
            market: Address::ZERO,
            model: served.id,
            request: B256::ZERO,
            prompt: token_root(&terms.prompt),
            prompt_tokens: 3,
            max_tokens: 4,
            sampler: B256::ZERO,
            assurance: Assurance::Replayable,
            audit: Audit::None,
            asset: Address::ZERO,
            max_price: Amount(11),
            deadline: NOW + 1,
            nonce: U256::from(1),
            grant: B256::ZERO,
        };
        before(&mut order, &mut terms);
        order.prompt = token_root(&terms.prompt);
        terms.sampler.stops = stops_hash(&terms.stops);
        order.sampler = terms.sampler.hash();
        let signature = order.sign(CHAIN, &key);
        let mut submission = Submission {
            chain_id: CHAIN,
            order,
            signature,
            terms,
            logprobs: None,
            flex: false,
            grants: vec![],
            payment: None,
        };
        after(&mut submission);
        let offer = Offer {
            provider: Address::ZERO,
            model: served.id,
            assurance: Assurance::Replayable,
            asset: Address::ZERO,
            price_in: Amount(1_000_000),
            price_out: Amount(2_000_000),
            context: served.context,
            expires: NOW + 60,
        };
        let known = (submission.order.model == served.id).then_some(&served);
        let said = recognise(&submission, CHAIN, known)
            .and_then(|hash| admit(&submission, hash, &served, &offer, None, NOW))
            .map_or_else(
                |refusal| refusal.to_string(),
                |job| format!("{} tokens", job.ending.tokens_max),
            );
        assert_eq!(said, expected);
    }

    fn signed(change: impl Fn(&mut Order, &mut Terms), expected: &str) {
        check(change, |_| (), expected);
    }

    #[test]
    fn a_good_order_becomes_a_job() {
        signed(|_, _| (), "4 tokens");
        signed(|order, _| (order.max_tokens, order.max_price) = (100, Amount(17)), "7 tokens");
    }

    #[test]
    fn a_changed_order_is_nobodys() {
        check(
            |_, _| (),
            |submission| submission.terms.prompt[0] = 9,
            "the order's prompt does not match its commitment",
        );
        check(
            |_, _| (),
            |submission| submission.chain_id = ChainId(8),
            "the order is for chain 8, this provider serves chain 7",
        );
    }

    #[test]
    fn what_is_not_sold_is_refused() {
        let not = |what: &str| format!("the order's {what} is not offered here");
        signed(|order, _| order.assurance = Assurance::Proven, &not("assurance"));
        signed(|order, _| order.asset = Address::repeat_byte(1), &not("asset"));
        signed(|order, _| order.market = Address::repeat_byte(1), &not("market"));
        signed(|order, _| order.grant = B256::repeat_byte(1), &not("grant"));
        let other = ModelId(B256::repeat_byte(9));
        signed(|order, _| order.model = other, &format!("model {other} is not served here"));
    }

    #[test]
    fn limits_are_named() {
        signed(|order, _| order.deadline = NOW, "the order's deadline 1000 has passed, it is 1000");
        signed(
            |order, terms| {
                terms.prompt = vec![1; 10];
                order.prompt_tokens = 10;
            },
            "10 prompt tokens leave no room for an answer in a context of 10",
        );
        signed(
            |order, _| order.max_price = Amount(10),
            "the answer may cost 11, the order allows 10",
        );
    }

    #[test]
    fn what_would_spoil_a_batch_is_refused() {
        signed(|_, terms| terms.prompt[1] = 50, "token 50 is not below the vocabulary's 50");
        signed(|_, terms| terms.bias = vec![(51, 1)], "token 51 is not below the vocabulary's 50");
        signed(|_, terms| terms.stops = vec![vec![1]; 17], "17 stop sequences, at most 16");
        signed(
            |_, terms| terms.stops = vec![vec![1; 257]],
            "a stop sequence of 257 tokens, at most 256",
        );
    }
}
