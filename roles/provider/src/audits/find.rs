//! Finds what was posted at a place: the answer, and how its receipt hangs below the period's root.

use assay_chain::{Posted, PostedAt};
use assay_evidence::op::Nodes;
use assay_protocol::wire::NotShown;
use assay_protocol::{Address, Amount, Answer, B256, ChannelId, Ending, leaf_hash};
use redb::ReadTransaction;

use crate::http::Seller;
use crate::store::{self, Kept, Line, Ordered, Period, StoreError};

/// A posted answer.
pub(crate) struct Found {
    pub(crate) answer: Answer,
    /// The receipt's siblings in its period's tree, from the leaf up.
    pub(crate) proof: Vec<B256>,
}

/// The answer whose receipt is leaf `index` of a posted period.
pub(super) async fn find(seller: &Seller, (period, index): (u64, u64)) -> Result<Found, NotShown> {
    let look = move |read: &ReadTransaction| leaf(read, period, index);
    let failed = |error: StoreError| NotShown::Failed { reason: error.to_string() };
    let found = seller.store.read(look).await.map_err(failed)?;
    let (kept, proof) = found.ok_or(NotShown::NoReceipt { period, index })?;
    let order = kept.sealed.receipt.order;
    let answer = answer(seller, kept).ok_or(NotShown::NotKept { order })?;
    Ok(Found { answer, proof })
}

/// What was kept of the answer behind a leaf, and the leaf's siblings; nothing if there is no such leaf.
fn leaf(
    read: &ReadTransaction,
    period: u64,
    index: u64,
) -> Result<Option<(Kept, Vec<B256>)>, StoreError> {
    let Some(period) = store::period(read, period)? else { return Ok(None) };
    let (lines, tree) = tree(read, &period)?;
    let line = usize::try_from(index).ok().and_then(|index| lines.get(index));
    let Some(line) = line.filter(|_| tree.root() == period.root) else { return Ok(None) };
    let kept = store::kept(read, line.order)?;
    Ok(kept.map(|kept| (kept, tree.proof(index))))
}

/// Where a receipt was posted, from period `from` on; nothing before it was. It has this digest, and moved this
/// channel to this position.
pub(crate) fn place(
    read: &ReadTransaction,
    provider: Address,
    (receipt, (channel, after)): (B256, (ChannelId, Amount)),
    from: u64,
) -> Result<Option<Posted>, StoreError> {
    let mut number = from;
    while let Some(found) = store::period(read, number)?.filter(|period| period.posted) {
        let spans = found.spans.iter();
        let covers = |span: &&(ChannelId, Amount, Amount)| {
            span.0 == channel && span.1 < after && after <= span.2
        };
        if spans.filter(covers).count() > 0 {
            let (lines, tree) = tree(read, &found)?;
            if let Some(index) = lines.iter().position(|line| line.digest == receipt) {
                let place = PostedAt { provider, period: number, index: index as u64 };
                return Ok(Some(Posted { place, receipt, proof: tree.proof(index as u64) }));
            }
        }
        number += 1;
    }
    Ok(None)
}

/// A period's receipts in their order, and the tree over them.
fn tree(read: &ReadTransaction, period: &Period) -> Result<(Vec<Line>, Nodes), StoreError> {
    let mut lines = Vec::new();
    for (channel, before, after) in &period.spans {
        // A period holds no more receipts than it counts.
        let room = usize::try_from(period.count).unwrap_or(usize::MAX) - lines.len();
        let span = store::receipts(read, *channel, *before, room)?;
        lines.extend(span.into_iter().take_while(|line| line.after <= *after));
    }
    let tree = Nodes::new(lines.iter().map(|line| leaf_hash(line.digest.as_slice())).collect());
    Ok((lines, tree))
}

/// An answer as it was given; nothing if what it was about was not kept. Without the model its text is
/// unknown, and left out.
fn answer(seller: &Seller, kept: Kept) -> Option<Answer> {
    let Kept { order_signature, sealed, ordered } = kept;
    let Ordered { order, terms } = ordered?;
    let served = seller.models.get(&order.model);
    let spell = served.and_then(|served| Some((served, served.tokenizer.as_ref()?)));
    let text = spell.map(|(served, tokenizer)| {
        let room = served.context.saturating_sub(order.prompt_tokens);
        let tokens_max = order.max_tokens.min(room);
        let ending = Ending { eos: served.eos.clone(), stops: terms.stops.clone(), tokens_max };
        let length = ending.text_len(&sealed.output, sealed.receipt.finish);
        tokenizer.decode(&sealed.output[..length])
    });
    Some(Answer {
        schema: Answer::SCHEMA.into(),
        chain_id: seller.signer.chain,
        order,
        order_signature,
        terms,
        request: None,
        output: sealed.output,
        text: text.unwrap_or_default(),
        receipt: sealed.receipt,
        receipt_signature: sealed.signature,
        states: sealed.states,
        vector: None,
    })
}
