//! What signed words alone show to be false: no trace, no game.
//!
//! The same conditions as `contracts/src/libraries/dispute/Claims.sol`, on words that were found
//! to be signed by whom they name.

use assay_protocol::{Finish, Opening, Order, Receipt, State, Tail};

use super::exhibits::token_run;
use crate::op::{RuleError, finish};

/// Most output tokens that an order's answer can have in a model with this context.
fn tokens_max(order: &Order, context: u32) -> u32 {
    order.max_tokens.min(context.saturating_sub(order.prompt_tokens))
}

/// Whether a receipt contradicts its order or itself (`contradict`).
pub fn contradicts(order: &Order, receipt: &Receipt, context: u32) -> bool {
    let most = tokens_max(order, context);
    let length = receipt.output_tokens;
    let moved = if receipt.channel == Default::default() { 0 } else { receipt.price.0 };
    receipt.assurance != order.assurance
        || receipt.asset != order.asset
        || receipt.price > order.max_price
        || receipt.started / 1000 > order.deadline
        || receipt.started > receipt.finished
        || length == 0 && receipt.state != State::start(receipt.order).0
        || length > most
        || receipt.finish == Finish::Length && length < most
        || receipt.channel_before.0.checked_add(moved) != Some(receipt.channel_after.0)
}

/// Where an output ends, or goes on, otherwise than its receipt says (`misfinish`): the first such
/// token. `eos` are the model's end tokens, `stops` the order's stop sequences.
///
/// # Errors
/// If a rule refuses, which it does for stop sequences that are none.
pub fn misfinish(
    order: &Order,
    receipt: &Receipt,
    output: &[u32],
    eos: &[u32],
    stops: &[Vec<u32>],
    context: u32,
) -> Result<Option<Tail>, RuleError> {
    let encoded = encode(stops);
    let longest = stops.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let most = tokens_max(order, context);
    for length in 1..=output.len() {
        let first = length.saturating_sub(longest);
        let tokens = &output[first..length];
        let tail: Vec<u8> = tokens.iter().flat_map(|token| token.to_be_bytes()).collect();
        let said = (length == output.len() && receipt.finish != Finish::Cancelled)
            .then_some(receipt.finish);
        if finish(&tail, length as u32, eos, &encoded, most)? != said {
            let run = token_run(output, first as u64, tokens.len() as u64);
            return Ok(Some(Tail {
                length: length as u32,
                tokens: tokens.to_vec(),
                proof: run.proof,
                eos: eos.to_vec(),
                stops: encoded,
            }));
        }
    }
    Ok(None)
}

/// Stop sequences as the sampler's `stops` hashes them: their number, then each one's length and
/// ids; nothing for none.
fn encode(stops: &[Vec<u32>]) -> Vec<u8> {
    if stops.is_empty() {
        return Vec::new();
    }
    let words = stops.iter().flat_map(|stop| [vec![stop.len() as u32], stop.clone()].concat());
    std::iter::once(stops.len() as u32).chain(words).flat_map(u32::to_be_bytes).collect()
}

/// What shows that two receipts of one provider for one order cannot both be true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Equivocation {
    /// The first token at which the outputs differ; of no meaning for equal outputs.
    pub index: u32,
    /// That token of each, with its siblings in its output.
    pub tokens: [Opening; 2],
}

/// Whether two receipts cannot both be true (`equivocate`). Each comes with its output.
pub fn equivocate(pair: [(&Receipt, &[u32]); 2]) -> Option<Equivocation> {
    let [(a, first), (b, second)] = pair;
    if a == b || a.order != b.order {
        return None;
    }
    if first == second {
        return (a.state != b.state).then(Equivocation::default);
    }
    let index = first.iter().zip(second).position(|(a, b)| a != b)? as u64;
    let tokens = [first, second].map(|output| token_run(output, index, 1));
    Some(Equivocation { index: index as u32, tokens })
}
