//! Shows posted receipts, with what stands behind them, to who may check them.
//!
//! Who is drawn for a receipt asks over HTTP (`mod`), and gets as much as the order's `audit` allows; so
//! does its buyer. Strangers get nothing, whatever they sign. Who was not answered asks on the chain, and is
//! answered there (`publish`), for silence there costs the stake. What is shown is found in the store
//! (`find`): nothing is kept twice.

mod find;
mod publish;

use std::sync::Arc;
use std::time::Duration;

use assay_chain::{Chain, PostedAt};
use assay_protocol::wire::{Exhibit, NotShown, Shown, SignedWords};
use assay_protocol::{Address, Audit, Inquiry, Signature};
use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use self::find::{Found, find};
use crate::defend::Defence;
use crate::http::{Seller, bearer};
use crate::now_ms;

pub(crate) use self::find::place;
pub(crate) use self::publish::publish;

/// Auditors answered at once: for each the chain is asked who was drawn, and a period's tree is built.
const ASKING_MAX: usize = 8;

/// What a provider's answers to auditors share.
#[derive(Debug)]
pub(crate) struct Audits {
    owner: Address,
    chain: Chain,
    watch_every: Duration,
    confirmations: u64,
    asking: Semaphore,
}

impl Audits {
    /// Answers for the owner whose receipts `defence` defends, with its connection.
    pub(crate) fn new(defence: &Defence) -> Self {
        Self {
            owner: defence.owner,
            chain: defence.chain.clone(),
            watch_every: defence.watch_every,
            confirmations: defence.confirmations,
            asking: Semaphore::new(ASKING_MAX),
        }
    }
}

/// `GET /v1/periods/{period}/{index}`.
pub(crate) async fn show(
    State(seller): State<Arc<Seller>>,
    Path((period, index)): Path<(u64, u64)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    // An auditor says when it signed its inquiry; a buyer signs none.
    let time = query.as_deref().map(|query| query.strip_prefix("time=")?.parse().ok());
    let shown = match (bearer(&headers), time) {
        (None, _) | (_, Some(None)) => Err(NotShown::Unsigned),
        (Some(signature), None) => to_buyer(&seller, (period, index), signature).await,
        (Some(signature), Some(Some(time))) => {
            to_auditor(&seller, (period, index), time, signature).await
        }
    };
    match shown {
        Ok(shown) => Json(shown).into_response(),
        Err(refusal) => {
            tracing::info!(period, index, %refusal, "a posted receipt is not shown");
            (status(&refusal), Json(refusal)).into_response()
        }
    }
}

fn status(refusal: &NotShown) -> StatusCode {
    match refusal {
        NotShown::Unsigned | NotShown::Stale { .. } => StatusCode::UNAUTHORIZED,
        NotShown::NoReceipt { .. } => StatusCode::NOT_FOUND,
        NotShown::NotKept { .. } => StatusCode::GONE,
        NotShown::NotDrawn { .. } => StatusCode::FORBIDDEN,
        NotShown::Busy => StatusCode::TOO_MANY_REQUESTS,
        NotShown::Failed { .. } => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Shows a buyer all of its own answer. Who does not know the order's signature does not learn whether there is
/// a receipt.
async fn to_buyer(
    seller: &Seller,
    place: (u64, u64),
    signature: Signature,
) -> Result<Shown, NotShown> {
    let _turn = turn(seller)?;
    match find(seller, place).await {
        Ok(found) if found.answer.order_signature == signature => Ok(whole(found)),
        Ok(_) | Err(NotShown::NoReceipt { .. } | NotShown::NotKept { .. }) => {
            Err(NotShown::Unsigned)
        }
        Err(error) => Err(error),
    }
}

/// Shows an auditor that was drawn for a receipt as much of it as the order allows.
async fn to_auditor(
    seller: &Seller,
    (period, index): (u64, u64),
    time: u64,
    signature: Signature,
) -> Result<Shown, NotShown> {
    let Some(audits) = &seller.audits else {
        return Err(NotShown::Failed { reason: "this provider knows no chain".into() });
    };
    let now = now_ms() / 1000;
    let inquiry = Inquiry { provider: audits.owner, period, index, time };
    if !inquiry.is_fresh(now) {
        return Err(NotShown::Stale { found: time, now });
    }
    let auditor =
        inquiry.signer(seller.signer.chain, &signature).map_err(|_| NotShown::Unsigned)?;
    let _turn = turn(seller)?;
    let at = PostedAt { provider: audits.owner, period, index };
    let drawn = audits.chain.draw(&at).await.is_ok_and(|draw| draw.names(auditor));
    if !drawn {
        return Err(NotShown::NotDrawn { auditor });
    }
    let found = find(seller, (period, index)).await?;
    tracing::info!(period, index, %auditor, "a posted receipt is shown to an auditor");
    Ok(match found.answer.order.audit {
        Audit::None => words(found),
        Audit::Drawn | Audit::Public => whole(found),
    })
}

fn turn(seller: &Seller) -> Result<tokio::sync::SemaphorePermit<'_>, NotShown> {
    seller.asking().try_acquire().map_err(|_| NotShown::Busy)
}

impl Seller {
    /// How many may ask for posted receipts at once.
    fn asking(&self) -> &Semaphore {
        static BUYERS: Semaphore = Semaphore::const_new(ASKING_MAX);
        self.audits.as_ref().map_or(&BUYERS, |audits| &audits.asking)
    }
}

fn whole(found: Found) -> Shown {
    Shown { proof: found.proof, what: Exhibit::Answer(Box::new(found.answer)) }
}

fn words(found: Found) -> Shown {
    let Found { proof, answer } = found;
    let words = SignedWords {
        order: answer.order,
        order_signature: answer.order_signature,
        receipt: answer.receipt,
        receipt_signature: answer.receipt_signature,
    };
    Shown { proof, what: Exhibit::Words(Box::new(words)) }
}
