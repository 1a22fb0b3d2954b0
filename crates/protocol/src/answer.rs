//! One answer with everything a stranger needs to check it: the contents of a `receipt.json`.

use alloy_primitives::{Address, B256, keccak256};
use serde::{Deserialize, Serialize};

use crate::{
    ChainId, Ending, Order, OrderError, OrderHash, Receipt, ReceiptError, Signature, State, Terms,
};

/// One answer: order, receipt, their signatures, and what their hashes stand for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Answer {
    /// Always [`Answer::SCHEMA`].
    pub schema: String,
    /// Chain that both signatures are for.
    pub chain_id: ChainId,
    /// The buyer's order.
    pub order: Order,
    /// The buyer's signature.
    pub order_signature: Signature,
    /// What the order's hashes stand for.
    pub terms: Terms,
    /// The canonical request body that the order names, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Output token ids, the ending one included.
    pub output: Vec<u32>,
    /// The exact text.
    pub text: String,
    /// The provider's receipt.
    pub receipt: Receipt,
    /// The provider's signature.
    pub receipt_signature: Signature,
    /// The state after each output token, so that a verifier can name the first that differs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<B256>,
    /// What the answer is of a model that gives texts vectors: numbers in `Fx<30>`, which the receipt's
    /// state binds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector: Option<Vec<i32>>,
}

/// Whose word an inconsistent answer breaks. Only what the provider signed can blame it: a
/// changed byte in the file blames nobody but whoever changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The file was altered, or belongs to other signatures.
    File,
    /// The provider signed something that its own order contradicts.
    Provider,
}

/// Why an answer contradicts itself, before any replay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// Not this format, or a version of it that this code does not know.
    #[error("schema is {found:?}, expected {expected:?}", expected = Answer::SCHEMA)]
    Schema {
        /// The schema found.
        found: String,
    },
    /// The order is not its buyer's, or not about these terms.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// The receipt is not its provider's, or not about this answer.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The request body is not the one the order names.
    #[error("the request body does not match the order's commitment")]
    Request,
    /// The listed states are not one per token ending in the receipt's.
    #[error("the listed states do not lead to the receipt's")]
    States,
    /// The vector is not the one that the receipt's state binds.
    #[error("the vector is not the one that the receipt was signed for")]
    Vector,
}

impl AnswerError {
    /// Whose word is broken.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Receipt(
                ReceiptError::Contradiction { .. }
                | ReceiptError::Price { .. }
                | ReceiptError::Finish { .. }
                | ReceiptError::Overrun,
            ) => Blame::Provider,
            _ => Blame::File,
        }
    }
}

impl Answer {
    /// The format's name and version.
    pub const SCHEMA: &'static str = "assay.receipt/1";

    /// The order's name, which is also the receipt's.
    pub fn hash(&self) -> OrderHash {
        self.order.hash(self.chain_id)
    }

    /// Who answered.
    pub fn provider(&self) -> Address {
        self.receipt.provider
    }

    /// Checks everything that needs no model: signatures, commitments, finish, price, states.
    pub fn check(&self, ending: &Ending) -> Result<OrderHash, AnswerError> {
        if self.schema != Self::SCHEMA {
            return Err(AnswerError::Schema { found: self.schema.clone() });
        }
        let hash = self.order.check(self.chain_id, &self.order_signature, &self.terms)?;
        if self.request.as_ref().is_some_and(|body| keccak256(body) != self.order.request) {
            return Err(AnswerError::Request);
        }
        self.receipt.check(
            self.chain_id,
            &self.receipt_signature,
            &self.order,
            &self.output,
            &self.text,
            ending,
        )?;
        if !self.states.is_empty() && !self.states_lead_to_the_receipt() {
            return Err(AnswerError::States);
        }
        match &self.vector {
            Some(vector) if !self.receipt.binds(vector, &self.output) => Err(AnswerError::Vector),
            _ => Ok(hash),
        }
    }

    fn states_lead_to_the_receipt(&self) -> bool {
        self.states.len() == self.output.len() && self.states.last() == Some(&self.receipt.state)
    }

    /// The states that the given hidden hashes lead to, one per output token.
    pub fn states_of(hash: OrderHash, steps: impl IntoIterator<Item = (u32, B256)>) -> Vec<B256> {
        let mut state = State::start(hash);
        steps
            .into_iter()
            .map(|(token, hidden)| {
                state = state.next(token, hidden);
                state.0
            })
            .collect()
    }
}
