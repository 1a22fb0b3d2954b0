//! Why a signed order is not bought.

use assay_protocol::wire::Refusal;
use assay_protocol::{Address, Amount, B256, ChainId, GrantError, OrderError, OrderHash};
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::openai::Problem;

/// Why a signed order is not bought, or one is not made for a wallet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// It is signed for another chain.
    #[error("the order is for chain {found}, this gateway buys on chain {expected}")]
    Chain { found: ChainId, expected: ChainId },
    /// It is for another deployment, and so for another gateway.
    #[error("the order's market is {found}, this gateway's is {expected}")]
    Market { found: Address, expected: Address },
    /// It is not its buyer's, or not about its terms.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// It is not the order for this request.
    #[error("the order's {what} is {found}, expected {expected} for this request here")]
    Mismatch { what: &'static str, found: String, expected: String },
    /// It came too late.
    #[error("the order's deadline {deadline} has passed, it is {now}")]
    Expired { deadline: u64, now: u64 },
    /// It allows a price that is not paid here.
    #[error("the order allows a price of {found}, one answer may cost {max} here")]
    Price { found: Amount, max: Amount },
    /// It is being answered, or its provider has yet to say what an answer that broke off did cost.
    #[error("order {order} is under way; ask for it again later, and it is not bought twice")]
    Running { order: OrderHash, retry_after_s: u32 },
    /// Another order of the buyer has the same nonce.
    #[error("the order's nonce is that of the buyer's order {order}; prepare another order")]
    Nonce { order: OrderHash },
    /// It was bought, and given up before it was complete.
    #[error(
        "order {order} was cancelled after {tokens} tokens; assay_receipt has what was delivered"
    )]
    Cancelled { order: OrderHash, tokens: u32 },
    /// Grants are shown where nobody is paid.
    #[error("this gateway pays nobody, so its orders are bought under no grant")]
    Unpaid,
    /// There is no contract in which grants could be taken back.
    #[error(
        "orders of clients are bought under grants, and this deployment has no Grants contract; ask \
         with assay_infer, and the gateway signs the order"
    )]
    NoRegistry,
    /// The grants are not good, or do not allow the order.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// A provider, who checks them by itself, says that they are not.
    #[error("the provider does not take the grants: {reason}")]
    Ungranted { reason: String },
    /// One of them was taken back.
    #[error("grant {grant} was taken back by its issuer")]
    Revoked { grant: B256 },
    /// It is not known whether one of them was.
    #[error("the chain cannot be asked whether the grants hold: {0}")]
    Unseen(String),
    /// Too little is left of one of them.
    #[error("the answer may cost {asked} base units, {left} are left of grant {grant}")]
    Spent { grant: B256, asked: Amount, left: Amount },
    /// What is left of one of them is set aside.
    #[error(
        "the answer may cost {asked} base units, and answers under way have grant {grant} set aside"
    )]
    SetAside { grant: B256, asked: Amount },
    /// Too many orders came under one of them.
    #[error("grant {grant} allows {per_minute} orders a minute")]
    Rate { grant: B256, per_minute: u32, retry_after_s: u32 },
}

/// Seconds after which the same order may be taken by a provider whose pace for a grant was too low:
/// it counts over a minute, and does not say when that is over.
const PROVIDERS_PACE_S: u32 = 60;

impl Fault {
    /// What a provider says that counts what is bought there under a grant; none: something else.
    pub(super) fn of_grants(refusal: &Refusal) -> Option<Self> {
        Some(match refusal {
            Refusal::Grant { reason } => Self::Ungranted { reason: reason.clone() },
            Refusal::GrantRevoked { grant } => Self::Revoked { grant: *grant },
            &Refusal::GrantSpent { grant, asked, left } => Self::Spent { grant, asked, left },
            &Refusal::GrantRate { grant, rate } => {
                Self::Rate { grant, per_minute: rate, retry_after_s: PROVIDERS_PACE_S }
            }
            _ => return None,
        })
    }

    /// The word that a client program chooses by, and what is at fault.
    fn code(&self) -> (StatusCode, &'static str, Option<&'static str>) {
        let (bad, conflict) = (StatusCode::BAD_REQUEST, StatusCode::CONFLICT);
        match self {
            Self::Chain { .. } => (bad, "wrong_chain", Some("chainId")),
            Self::Market { .. } => (bad, "wrong_market", Some("order.market")),
            Self::Order(OrderError::WrongSigner { .. } | OrderError::Signature(_)) => {
                (bad, "wrong_signature", Some("signature"))
            }
            Self::Order(_) => (bad, "invalid_order", Some("order")),
            Self::Mismatch { .. } => (bad, "order_mismatch", Some("order")),
            Self::Expired { .. } => (bad, "order_expired", Some("order.deadline")),
            Self::Price { .. } => (bad, "price_above_limit", Some("order.maxPrice")),
            Self::Running { .. } => (conflict, "order_running", None),
            Self::Nonce { .. } => (conflict, "nonce_used", Some("order.nonce")),
            Self::Cancelled { .. } => (conflict, "order_cancelled", None),
            Self::Unpaid | Self::NoRegistry => (bad, "grants_unsupported", Some("grants")),
            Self::Grant(_) | Self::Ungranted { .. } => (bad, "invalid_grant", Some("grants")),
            Self::Revoked { .. } => (StatusCode::FORBIDDEN, "grant_revoked", Some("grants")),
            Self::Unseen(_) => (StatusCode::SERVICE_UNAVAILABLE, "chain_unreachable", None),
            Self::Spent { .. } => (StatusCode::TOO_MANY_REQUESTS, "grant_spent", Some("grants")),
            Self::SetAside { .. } | Self::Rate { .. } => {
                (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", None)
            }
        }
    }

    /// Seconds after which the same order may be taken.
    fn retry_after_s(&self) -> Option<u32> {
        match self {
            Self::SetAside { .. } => Some(1),
            Self::Unseen(_) => Some(2),
            Self::Running { retry_after_s, .. } | Self::Rate { retry_after_s, .. } => {
                Some(*retry_after_s)
            }
            _ => None,
        }
    }

    /// What was found and expected, for a program.
    fn facts(&self) -> Option<Value> {
        Some(match self {
            Self::Chain { found, expected } => json!({ "found": found, "expected": expected }),
            Self::Market { found, expected } => json!({ "found": found, "expected": expected }),
            Self::Order(OrderError::WrongSigner { found, buyer }) => {
                json!({ "found": found, "expected": buyer })
            }
            Self::Mismatch { what, found, expected } => {
                json!({ "what": what, "found": found, "expected": expected })
            }
            Self::Expired { deadline, now } => json!({ "deadline": deadline, "now": now }),
            Self::Price { found, max } => json!({ "found": found, "max": max }),
            Self::Running { order, .. } | Self::Nonce { order } => json!({ "order": order }),
            Self::Cancelled { order, tokens } => json!({ "order": order, "tokens": tokens }),
            Self::Revoked { grant } => json!({ "grant": grant }),
            Self::Spent { grant, asked, left } => {
                json!({ "grant": grant, "asked": asked, "left": left })
            }
            Self::SetAside { grant, asked } => json!({ "grant": grant, "asked": asked }),
            Self::Rate { grant, per_minute, .. } => {
                json!({ "grant": grant, "perMinute": per_minute })
            }
            Self::Grant(error) => grant_facts(error)?,
            Self::Ungranted { reason } => json!({ "reason": reason }),
            Self::Order(_) | Self::Unpaid | Self::NoRegistry | Self::Unseen(_) => return None,
        })
    }
}

/// Which grant of the line is at fault, and for what.
fn grant_facts(error: &GrantError) -> Option<Value> {
    match error {
        GrantError::Term { index, what, found, expected } => {
            Some(json!({ "index": index, "what": what, "found": found, "expected": expected }))
        }
        GrantError::Wider { index, what } | GrantError::Outside { index, what } => {
            Some(json!({ "index": index, "what": what }))
        }
        GrantError::Signature { index, .. } => Some(json!({ "index": index, "what": "signature" })),
        GrantError::Depth { found } => Some(json!({ "found": found })),
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        let (status, code, param) = fault.code();
        Self {
            param: param.map(str::to_owned),
            retry_after_s: fault.retry_after_s(),
            facts: fault.facts().map(Box::new),
            ..Self::new(status, code, fault.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::DOCUMENT;

    #[test]
    fn the_document_has_every_fault() {
        let (order, grant) = (OrderHash::default(), B256::ZERO);
        let (amount, who) = (Amount(1), Address::ZERO);
        let (one, other) = (ChainId(1), ChainId(2));
        let faults = [
            Fault::Chain { found: one, expected: other },
            Fault::Market { found: who, expected: who },
            Fault::Order(OrderError::WrongSigner { found: who, buyer: who }),
            Fault::Order(OrderError::Empty),
            Fault::Mismatch { what: "model", found: String::new(), expected: String::new() },
            Fault::Expired { deadline: 1, now: 2 },
            Fault::Price { found: amount, max: amount },
            Fault::Running { order, retry_after_s: 1 },
            Fault::Nonce { order },
            Fault::Cancelled { order, tokens: 1 },
            Fault::Unpaid,
            Fault::NoRegistry,
            Fault::Grant(GrantError::Wider { index: 1, what: "spend" }),
            Fault::Ungranted { reason: String::new() },
            Fault::Revoked { grant },
            Fault::Unseen(String::new()),
            Fault::Spent { grant, asked: amount, left: amount },
            Fault::SetAside { grant, asked: amount },
            Fault::Rate { grant, per_minute: 1, retry_after_s: 1 },
        ];
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let errors = document["components"]["errors"].as_object().unwrap();
        for fault in faults {
            let problem = Problem::from(fault.clone());
            let code = if problem.param.is_some() { -32602 } else { -32000 };
            let known = errors
                .values()
                .find(|error| error["data"]["code"] == problem.code && error["code"] == code);
            let known = known.unwrap_or_else(|| panic!("{fault:?} is not in the document"));
            let facts = problem.facts.as_ref().and_then(|facts| facts.as_object());
            let said = facts.into_iter().flat_map(|facts| facts.keys());
            // An amount that is set aside has no place of its own.
            for fact in said.filter(|fact| *fact != "asked" || problem.code == "grant_spent") {
                assert!(!known["data"]["facts"][fact].is_null(), "{fault:?}: {fact}");
            }
        }
    }
}
