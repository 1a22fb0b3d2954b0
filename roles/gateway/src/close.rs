//! Checks what a provider signed against what it sent, and makes an [`Answer`] of both. Pure.

use assay_protocol::wire::Sealed;
use assay_protocol::{
    Address, Amount, Answer, ChainId, ChannelId, Ending, Offer, Order, ReceiptError, Signature,
    Terms,
};
use assay_text::Tokenizer;

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
    #[error("it names a payment channel, but nothing is paid by one")]
    Channel,
    #[error("the states do not lead to the receipt's")]
    States,
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
}

/// The answer to an order, if `sealed` speaks for the `output` that was sent.
pub(crate) fn close(
    ordered: Ordered<'_>,
    tokenizer: &Tokenizer,
    output: &[u32],
    sealed: Sealed,
) -> Result<Answer, CloseError> {
    let Ordered { chain, order, signature, terms, request, ending, offer } = ordered;
    let Sealed { receipt, signature: receipt_signature, output: sealed_output, states } = sealed;
    if sealed_output != output {
        return Err(CloseError::Output);
    }
    // What the finish leaves out is not decoded; a finish that is wrong is found out below.
    let text = tokenizer.decode(&output[..ending.text_len(output, receipt.finish)]);
    receipt.check(chain, &receipt_signature, order, output, &text, ending)?;
    if receipt.provider != offer.provider {
        return Err(CloseError::Provider { found: receipt.provider, expected: offer.provider });
    }
    let max = offer.price(order.prompt_tokens, receipt.output_tokens);
    // Less is no lie: the provider may have a cheaper offer out than the one known here.
    if receipt.price > max {
        return Err(CloseError::Price { found: receipt.price, max });
    }
    if receipt.channel != ChannelId::default() {
        return Err(CloseError::Channel);
    }
    let leads = states.last().is_none_or(|last| *last == receipt.state);
    if states.len() != output.len() || !leads {
        return Err(CloseError::States);
    }
    Ok(Answer {
        schema: Answer::SCHEMA.into(),
        chain_id: chain,
        order: order.clone(),
        order_signature: signature,
        terms: terms.clone(),
        request: Some(request.to_owned()),
        output: sealed_output,
        text,
        receipt,
        receipt_signature,
        states,
    })
}
