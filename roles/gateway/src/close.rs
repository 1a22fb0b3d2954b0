//! Checks what a provider signed against what it sent, and makes an [`Answer`] of both. Pure.

use assay_protocol::wire::Sealed;
use assay_protocol::{
    Address, Amount, Answer, ChainId, ChannelId, Ending, Offer, Order, Receipt, ReceiptError,
    Signature, Terms,
};
use assay_text::Tokenizer;
use serde::Serialize;

use crate::pay::Line;

/// An order as it was handed in, with the offer it was handed in under.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ordered<'a> {
    pub(crate) chain: ChainId,
    pub(crate) order: &'a Order,
    pub(crate) signature: Signature,
    pub(crate) terms: &'a Terms,
    pub(crate) request: &'a str,
    pub(crate) ending: &'a Ending,
    pub(crate) offer: &'a Offer,
    /// Where the channel was that pays; none: nothing is paid.
    pub(crate) line: Option<Line>,
    /// Whether the receipt is for the same order, answered and charged before: it then takes up its
    /// channel where that was, at the price that was offered then.
    pub(crate) paid_before: bool,
}

/// What a provider signed that is not so, with all that shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Lie<'a> {
    /// What is not so.
    pub(crate) reason: String,
    /// When it was found out, Unix seconds.
    pub(crate) time: u64,
    pub(crate) chain_id: ChainId,
    pub(crate) url: &'a str,
    pub(crate) offer: &'a Offer,
    pub(crate) order: &'a Order,
    pub(crate) order_signature: Signature,
    pub(crate) terms: &'a Terms,
    pub(crate) request: &'a str,
    /// The tokens that came.
    pub(crate) sent: &'a [u32],
    /// The vector that came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vector: Option<&'a [i32]>,
    pub(crate) sealed: &'a Sealed,
}

/// Why a receipt does not speak for its answer. Whoever signed it is not bought from again soon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CloseError {
    #[error("the sealed tokens are not those that were sent")]
    Output,
    #[error("it is signed by {found}, the offer by {expected}")]
    Provider { found: Address, expected: Address },
    #[error("it asks {found}, the offer's price is {max}")]
    Price { found: Amount, max: Amount },
    #[error("it names payment channel {found}, its order is paid by {expected}")]
    Channel { found: ChannelId, expected: ChannelId },
    #[error("it takes up the payment channel at {found}, which stands at {from} to {to}")]
    Position { found: Amount, from: Amount, to: Amount },
    #[error("the states do not lead to the receipt's")]
    States,
    #[error("no vector came with it")]
    NoVector,
    #[error("the vector that came is not the one that the receipt was signed for")]
    Vector,
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
}

/// The text of an answer, if `sealed` speaks for the `output` that was sent.
pub(crate) fn close(
    ordered: Ordered<'_>,
    tokenizer: &Tokenizer,
    output: &[u32],
    sealed: &Sealed,
) -> Result<String, CloseError> {
    let Ordered { chain, order, ending, offer, line, paid_before, .. } = ordered;
    let receipt = &sealed.receipt;
    if sealed.output != output {
        return Err(CloseError::Output);
    }
    // What the finish leaves out is not decoded; a finish that is wrong is found out below.
    let text = tokenizer.decode(&output[..ending.text_len(output, receipt.finish)]);
    receipt.check(chain, &sealed.signature, order, output, &text, ending)?;
    if receipt.provider != offer.provider {
        return Err(CloseError::Provider { found: receipt.provider, expected: offer.provider });
    }
    // What was charged before is bounded by the order, as the receipt's own check has seen.
    if !paid_before {
        let max = offer.price(order.prompt_tokens, receipt.output_tokens);
        // Less is no lie: the provider may have a cheaper offer out than the one known here.
        if receipt.price > max {
            return Err(CloseError::Price { found: receipt.price, max });
        }
        goes_on(line, receipt)?;
    }
    let leads = sealed.states.last().is_none_or(|last| *last == receipt.state);
    if sealed.states.len() != output.len() || !leads {
        return Err(CloseError::States);
    }
    Ok(text)
}

/// Whether `sealed` speaks for the `vector` that was sent, which is what was ordered. Of an order that
/// was cancelled before it was answered there is none.
pub(crate) fn check_vector(sealed: &Sealed, vector: Option<&[i32]>) -> Result<(), CloseError> {
    match vector {
        _ if sealed.output.is_empty() => Ok(()),
        None => Err(CloseError::NoVector),
        Some(vector) if sealed.receipt.binds(vector, &sealed.output) => Ok(()),
        Some(_) => Err(CloseError::Vector),
    }
}

/// Whether a receipt takes up its channel where it was. That the channel advances by the price, the
/// receipt's own check has seen.
fn goes_on(line: Option<Line>, receipt: &Receipt) -> Result<(), CloseError> {
    let expected = line.map_or(ChannelId::default(), |line| line.channel);
    if receipt.channel != expected {
        return Err(CloseError::Channel { found: receipt.channel, expected });
    }
    let found = receipt.channel_before;
    match line {
        Some(Line { from, to, .. }) if found < from || found > to => {
            Err(CloseError::Position { found, from, to })
        }
        _ => Ok(()),
    }
}

impl Ordered<'_> {
    /// The answer that was checked.
    pub(crate) fn answer(&self, text: String, sealed: Sealed) -> Answer {
        Answer {
            schema: Answer::SCHEMA.into(),
            chain_id: self.chain,
            order: self.order.clone(),
            order_signature: self.signature,
            terms: self.terms.clone(),
            request: Some(self.request.to_owned()),
            output: sealed.output,
            text,
            receipt: sealed.receipt,
            receipt_signature: sealed.signature,
            states: sealed.states,
            vector: None,
        }
    }
}
