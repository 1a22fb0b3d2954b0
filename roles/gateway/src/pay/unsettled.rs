//! An order that ended here without its receipt, and how its provider can still show one.
//!
//! What an answer cost is believed of a receipt only. A provider that says it charged for an answer
//! which broke off has to bring the answer: it may be longer than what arrived, but begins with it.

use std::sync::Arc;

use assay_protocol::wire::Sealed;
use assay_protocol::{Answer, ChainId, Offer, Order, OrderHash, Signature};
use reqwest::StatusCode;

use super::{Line, POSITION_WAIT_MAX, PositionError};
use crate::budget::Spending;
use crate::catalogue::Model;
use crate::close::{Ordered, close};
use crate::draft::Draft;
use crate::lines::{line_bytes_max, short_body};

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
    /// What it may cost its client, set aside until it is known what it did cost.
    pub(crate) spending: Arc<Spending>,
}

impl Unsettled {
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
