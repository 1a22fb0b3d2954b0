//! An order that ended here without its receipt, and how its provider can still show one.
//!
//! What an answer cost is believed of a receipt only. A provider that says it charged for an answer
//! which broke off has to bring the answer: it may be longer than what arrived, but begins with it.
//!
//! What the answer may cost its client is set aside until then, but not for ever: after a while the
//! client is free of it, and what is shown later is the gateway's own loss.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use assay_protocol::wire::Sealed;
use assay_protocol::{Amount, Answer, ChainId, Offer, Order, OrderHash, Signature};
use reqwest::StatusCode;
use tokio::time::sleep;

use super::{Line, POSITION_WAIT_MAX, PositionError};
use crate::budget::Spending;
use crate::catalogue::Model;
use crate::close::{Ordered, close};
use crate::draft::Draft;
use crate::lines::{line_bytes_max, short_body};
use crate::store::Row;

/// How long a client waits until it is known what an answer that broke off did cost.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(600);

/// An order that was handed in and ended without a receipt.
#[derive(Debug)]
pub(crate) struct Unsettled {
    pub(crate) chain: ChainId,
    pub(crate) hash: OrderHash,
    pub(crate) order: Order,
    pub(crate) signature: Signature,
    pub(crate) model: Arc<Model>,
    pub(crate) draft: Draft,
    pub(crate) offer: Offer,
    /// The tokens that came.
    pub(crate) sent: Vec<u32>,
    pub(crate) claim: Claim,
}

/// What an unsettled order may cost its client, set aside until it is known what it did cost, or nobody
/// has said for too long.
#[derive(Debug)]
pub(crate) struct Claim(Mutex<Option<Arc<Spending>>>);

impl Claim {
    pub(crate) fn new(spending: &Arc<Spending>) -> Self {
        Self(Mutex::new(Some(Arc::clone(spending))))
    }

    /// Books the price of the answer; gives what has to be kept with it. None if the order was answered
    /// by somebody else, or is given up.
    pub(super) fn book(&self, price: Amount) -> Option<Vec<Row>> {
        self.lock().as_ref()?.book(price)
    }

    fn give_up(&self) -> bool {
        self.lock().take().is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Spending>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unsettled {
    /// Frees the client of it after [`SETTLE_WAIT_MAX`], unless it is settled by then.
    pub(super) fn end_in_time(self: &Arc<Self>) {
        let order = Arc::downgrade(self);
        tokio::spawn(async move {
            sleep(SETTLE_WAIT_MAX).await;
            if let Some(order) = order.upgrade().filter(|order| order.claim.give_up()) {
                tracing::warn!(order = %order.hash, "an answer that broke off was not settled");
            }
        });
    }

    /// The answer that the provider at `url` keeps, if it goes on from `line`.
    pub(super) async fn answer(
        &self,
        http: &reqwest::Client,
        url: &str,
        line: Line,
    ) -> Result<Answer, PositionError> {
        let unknown = |error: reqwest::Error| PositionError::Unknown(error.to_string());
        let unproven = |reason: String| PositionError::Unproven { order: self.hash, reason };
        let ask = http.get(format!("{url}/v1/orders/{}", self.hash)).bearer_auth(self.signature);
        let mut reply = ask.timeout(POSITION_WAIT_MAX).send().await.map_err(unknown)?;
        match reply.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(unproven("it has no answer".into())),
            status => return Err(PositionError::Unknown(format!("status {status}"))),
        }
        let bytes_max = line_bytes_max(self.draft.max_tokens);
        let body = short_body(&mut reply, bytes_max).await.map_err(unknown)?;
        let body = body.ok_or_else(|| unproven(format!("more than {bytes_max} bytes")))?;
        let sealed: Sealed =
            serde_json::from_slice(&body).map_err(|error| unproven(error.to_string()))?;
        if !sealed.output.starts_with(&self.sent) {
            return Err(unproven("its answer does not begin with what it sent".into()));
        }
        let ordered = Ordered {
            chain: self.chain,
            order: &self.order,
            signature: self.signature,
            terms: &self.draft.terms,
            request: &self.draft.request,
            ending: &self.draft.ending,
            offer: &self.offer,
            line: Some(line),
            paid_before: false,
        };
        let text = close(ordered, &self.model.listed.tokenizer, &sealed.output, &sealed)
            .map_err(|error| unproven(error.to_string()))?;
        Ok(ordered.answer(text, sealed))
    }
}
