//! Orders that clients sign themselves.
//!
//! [`offer`] makes an order of a request, for a buyer whose key is elsewhere; [`submit`] takes it back
//! signed, and buys it. Nothing is remembered in between: the request is drafted again, and what was
//! signed is compared with it. The gateway's own channels pay, so the order is bought under a grant
//! that the gateway issued (`line`): one that its owner gave, which is a credential like an API key, or
//! one that is `mint`ed for this buyer and this order, where the caller may ask anyway.
//!
//! A buyer's nonce buys once (`desk`): the same order again gets the answer that is `kept`.

mod desk;
mod fault;
mod kept;
mod line;
mod mint;
mod typed;

use std::sync::Arc;

use assay_protocol::wire::Refusal;
use assay_protocol::{
    Address, Amount, ChainId, Order, OrderHash, Signature, SignedGrant, Terms, U256,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::begin::{Single, random, single, start};
use crate::buy::{Buying, News, SignedOrder, TRIES_MAX, unrouted};
use crate::catalogue::Model;
use crate::draft::{Conditions, Draft, draft};
use crate::http::{Gateway, now_s};
use crate::keys::{Caller, Denied};
use crate::openai::Problem;
use crate::route::{Wanted, allowed_price, choose};

pub(crate) use desk::{Desk, Place};
use fault::Fault;
use line::Line;

/// For whom an order is to be made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wish {
    /// Who will sign it.
    buyer: Address,
    /// The grants that the buyer acts under, the gateway's first; none: the gateway gives one.
    #[serde(default)]
    grants: Vec<SignedGrant>,
}

/// An order that lacks only its signature.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Offered {
    chain_id: ChainId,
    order: Order,
    terms: Terms,
    /// What a wallet signs, as it is: EIP-712 in JSON.
    typed_data: Value,
    /// The digest of that, which is the order's hash.
    digest: OrderHash,
    /// Most that the answer may cost, in base units.
    max_price: Amount,
    grants: Vec<SignedGrant>,
}

/// An order that its buyer signed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Submitted {
    /// Chain that the signature is for; none: this gateway's.
    #[serde(default)]
    chain_id: Option<ChainId>,
    order: Order,
    terms: Terms,
    signature: Signature,
    #[serde(default)]
    grants: Vec<SignedGrant>,
}

/// Makes the order for a request, at the offers there are now.
///
/// # Errors
/// If the caller may not ask, or nobody would sell the answer.
pub(crate) async fn offer(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    body: Vec<u8>,
    wish: Wish,
) -> Result<Offered, Problem> {
    let permit = gateway.admit()?;
    let (shop, caller) = (Arc::clone(gateway), caller.clone());
    let vetted = tokio::task::spawn_blocking(move || {
        // Held until the work is done, even if the client hangs up meanwhile.
        let vetted = vetted(&shop, &caller, &body, wish)?;
        Ok::<_, Problem>((vetted, permit))
    });
    let vetted = vetted.await.map_err(|error| Problem::internal(error.to_string()))?;
    let (vetted, permit) = vetted?;
    // The chain is asked about grants that are good in all else, so that nobody has it asked at will.
    gateway.desk.check_revoked(gateway, vetted.line.shown()).await?;
    let shop = Arc::clone(gateway);
    let drafted = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        offered(&shop, vetted)
    });
    drafted.await.map_err(|error| Problem::internal(error.to_string()))?
}

/// A wish that may be granted, unless a grant was taken back.
struct Vetted {
    asked: Single,
    buyer: Address,
    line: Line,
}

/// Refuses whoever may not have an order made for the request.
fn vetted(gateway: &Gateway, caller: &Caller, body: &[u8], wish: Wish) -> Result<Vetted, Problem> {
    let asked = single(gateway, body)?;
    let Wish { buyer, grants } = wish;
    let line = Line::of(gateway, grants)?;
    line.admits(gateway, caller, &asked.model)?;
    line.check(gateway, buyer, &asked.model, Amount(0), now_s())?;
    line.count_offer(gateway, caller)?;
    Ok(Vetted { asked, buyer, line })
}

/// Makes the order. It waits for nobody.
fn offered(gateway: &Gateway, vetted: Vetted) -> Result<Offered, Problem> {
    let Vetted { asked: Single { prompt, sampling, model }, buyer, line } = vetted;
    let now = now_s();
    let draft = draft(&model, &prompt, &sampling, random()?, now)?;
    let most = gateway.price_max.min(line.spend().unwrap_or(gateway.price_max));
    let mut wanted = draft.wanted(&model, most);
    wanted.registry = gateway.registry().unwrap_or_default();
    let candidates = gateway.directory.candidates(wanted.model, now);
    choose(&wanted, &candidates, &[], now).map_err(|none| unrouted(none, most))?;
    let max_price = allowed_price(&wanted, &candidates, TRIES_MAX, now);
    let deadline = now + gateway.order_ttl.as_secs().max(1);
    let line = line.or_minted(gateway, buyer, &model, max_price, deadline)?;
    let order = draft.order(
        &model,
        Conditions {
            buyer,
            market: gateway.market(),
            assurance: wanted.assurance,
            audit: gateway.audit,
            max_price,
            deadline,
            nonce: U256::from_be_bytes(random()?.0),
            grant: line.name(gateway.chain),
        },
    );
    Ok(Offered {
        chain_id: gateway.chain,
        typed_data: typed::data(&order, gateway.chain),
        digest: order.hash(gateway.chain),
        terms: draft.terms,
        order,
        max_price,
        grants: line.into_grants(),
    })
}

/// Begins to buy a signed order, or gives its answer if it was bought. Dropping the news cancels it.
///
/// # Errors
/// If it is not an order for this request and this gateway, or the caller may not have it bought.
pub(crate) async fn submit(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    body: Vec<u8>,
    submitted: Submitted,
) -> Result<mpsc::Receiver<News>, Problem> {
    let permit = gateway.admit()?;
    let hash = signed(gateway.chain, &submitted)?;
    let name = desk::name(submitted.order.buyer, submitted.order.nonce);
    // Place before the store is asked: whoever ends in between has kept its answer by then.
    let place = gateway.desk.take(name, hash);
    let used = gateway.store.nonce(name).await;
    match used.map_err(|error| Problem::internal(error.to_string()))? {
        Some(order) if order != hash => return Err(Fault::Nonce { order }.into()),
        Some(_) => return kept::again(gateway, body, hash, permit).await,
        None => {}
    }
    let place = place?;
    let Submitted { order, terms, signature, grants, .. } = submitted;
    let line = Line::of(gateway, grants)?;
    let (shop, asking) = (Arc::clone(gateway), caller.clone());
    let checked = tokio::task::spawn_blocking(move || {
        let checked = checked(&shop, &asking, &body, &line, &order, &terms)?;
        Ok::<_, Problem>((checked, line, order))
    });
    let checked = checked.await.map_err(|error| Problem::internal(error.to_string()))?;
    let (Checked { model, draft, wanted }, line, order) = checked?;
    gateway.desk.check_revoked(gateway, line.shown()).await?;
    let spending = line.set_aside(gateway, caller, &model, order.max_price).await?.in_place(place);
    let signed = SignedOrder { order, signature, grants: line.into_grants() };
    let buying = Buying::new(gateway, model, draft, signed, wanted, spending)?;
    start(gateway, buying, Arc::new(permit))
}

/// The hash of an order, if it is for this chain, its buyer signed it, and it is about its terms.
fn signed(chain: ChainId, submitted: &Submitted) -> Result<OrderHash, Fault> {
    let found = submitted.chain_id.unwrap_or(chain);
    if found != chain {
        return Err(Fault::Chain { found, expected: chain });
    }
    Ok(submitted.order.check(chain, &submitted.signature, &submitted.terms)?)
}

/// What became of a request whose order was signed.
struct Checked {
    model: Arc<Model>,
    draft: Draft,
    wanted: Wanted,
}

/// Drafts the request again, and compares. Nothing of it waits for anybody.
fn checked(
    gateway: &Gateway,
    caller: &Caller,
    body: &[u8],
    line: &Line,
    order: &Order,
    terms: &Terms,
) -> Result<Checked, Problem> {
    let Single { prompt, sampling, model } = single(gateway, body)?;
    let now = now_s();
    line.admits(gateway, caller, &model)?;
    if line.is_callers(gateway) {
        caller.count()?;
    }
    on_offer(gateway, order, line, now)?;
    line.check(gateway, order.buyer, &model, order.max_price, now)?;
    // When it was made, on whose day its prompt may depend.
    let made = order.deadline.saturating_sub(gateway.order_ttl.as_secs().max(1)).min(now);
    let draft = draft(&model, &prompt, &sampling, terms.sampler.seed, made)?;
    let conditions = Conditions {
        buyer: order.buyer,
        market: order.market,
        assurance: draft.assurance(&model),
        audit: order.audit,
        max_price: order.max_price,
        deadline: order.deadline,
        nonce: order.nonce,
        grant: order.grant,
    };
    same(&draft.order(&model, conditions), order)?;
    let mut wanted = draft.wanted(&model, order.max_price);
    wanted.registry = gateway.registry().unwrap_or_default();
    Ok(Checked { model, draft, wanted })
}

/// Refuses an order on conditions that this gateway does not buy on.
fn on_offer(gateway: &Gateway, order: &Order, line: &Line, now: u64) -> Result<(), Fault> {
    let mismatch = |what, found: String, expected: String| {
        if found == expected { Ok(()) } else { Err(Fault::Mismatch { what, found, expected }) }
    };
    let (market, grant) = (gateway.market(), line.name(gateway.chain));
    if order.market != market {
        return Err(Fault::Market { found: order.market, expected: market });
    }
    if now > order.deadline {
        return Err(Fault::Expired { deadline: order.deadline, now });
    }
    if order.max_price > gateway.price_max {
        return Err(Fault::Price { found: order.max_price, max: gateway.price_max });
    }
    mismatch("asset", order.asset.to_string(), Address::ZERO.to_string())?;
    mismatch("grant", order.grant.to_string(), grant.to_string())
}

/// Refuses an order that is not the one that was drafted.
fn same(drafted: &Order, order: &Order) -> Result<(), Fault> {
    let fields = |order: &Order| {
        [
            ("model", order.model.to_string()),
            ("request", order.request.to_string()),
            ("prompt", order.prompt.to_string()),
            ("promptTokens", order.prompt_tokens.to_string()),
            ("maxTokens", order.max_tokens.to_string()),
            ("sampler", order.sampler.to_string()),
            ("assurance", order.assurance.to_string()),
        ]
    };
    let pairs = fields(drafted).into_iter().zip(fields(order));
    let differs = pairs.into_iter().find(|((_, drafted), (_, order))| drafted != order);
    match differs {
        Some(((what, expected), (_, found))) => Err(Fault::Mismatch { what, found, expected }),
        None => Ok(()),
    }
}

/// What a client is told of its order that was given up before it was complete.
pub(crate) fn cancelled(order: OrderHash, tokens: u32) -> Problem {
    Fault::Cancelled { order, tokens }.into()
}

/// What a client is told of a provider that refuses its grants; none: it refuses something else.
pub(crate) fn ungranted(refusal: &Refusal) -> Option<Problem> {
    Fault::of_grants(refusal).map(Problem::from)
}

/// Why a caller is heard without a key: its order may be bought under grants.
pub(crate) fn opens(method: &str) -> bool {
    matches!(method, "assay_prepare" | "assay_submit" | "assay_subscribe" | "assay_unsubscribe")
}

/// Refuses whoever has no key where one is demanded.
pub(crate) fn needs_key(caller: &Caller) -> Result<(), Denied> {
    match caller {
        Caller::Stranger(denied) => Err(denied.clone()),
        Caller::Anyone | Caller::Holder(..) => Ok(()),
    }
}

impl Gateway {
    /// Where grants can be taken back; none where nothing is paid, or the deployment knows no grants.
    fn registry(&self) -> Option<Address> {
        let purse = self.purse.as_ref()?;
        Some(purse.terms.grants).filter(|registry| !registry.is_zero())
    }
}
