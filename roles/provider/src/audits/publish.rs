//! Publishes posted answers on the chain where a drawn auditor asks for them there: whoever is silent
//! loses its stake.
//!
//! What is owed is read from the chain alone, so a provider that was killed goes on where a production
//! stands. The auditor's bond pays for it.

use std::collections::BTreeSet;

use assay_chain::{ChainError, Contract, Filing, PostedAt, Run, Stage};
use assay_evidence::op::Nodes;
use assay_protocol::wire::NotShown;
use assay_protocol::{Answer, Audit, leaf_hash};
use tokio_util::sync::CancellationToken;

use super::Audits;
use super::find::{Found, find};
use crate::http::Seller;

/// Blocks asked about at once: nodes refuse more.
const BLOCKS_MAX: u64 = 1000;
/// Tokens of one call, and calls of one transaction: together they stay below a quarter of a block's gas.
const RUN_TOKENS: usize = 2048;
const RUNS_MAX: usize = 4;

/// Answers productions until `stop`.
pub(crate) async fn publish(seller: &Seller, audits: &Audits, stop: CancellationToken) {
    if audits.chain.book().get(Contract::Productions).is_err() {
        tracing::info!("this chain has no auditors who could ask");
        return;
    }
    let mut owed = Owed { next: None, places: BTreeSet::new() };
    loop {
        let round = async {
            if let Err(error) = owed.round(seller, audits).await {
                tracing::warn!(%error, "what auditors ask for on the chain cannot be seen");
            }
            tokio::time::sleep(audits.watch_every).await;
        };
        tokio::select! {
            biased;
            // What was sent is found on the chain at the next start.
            () = stop.cancelled() => return,
            () = round => {}
        }
    }
}

/// What auditors asked for and may not have got.
struct Owed {
    /// The first block that was not looked at; none before the first round.
    next: Option<u64>,
    places: BTreeSet<PostedAt>,
}

impl Owed {
    async fn round(&mut self, seller: &Seller, audits: &Audits) -> Result<(), ChainError> {
        let chain = &audits.chain;
        let mut next = match self.next {
            // Blocks that are not final yet are looked at again.
            Some(next) => next.saturating_sub(audits.confirmations),
            None => {
                // What was asked for earlier is answered, or lost.
                let clock = chain.audit_terms().await?.production_clock;
                let time = chain.client().time().await?;
                chain.block_since(time.saturating_sub(clock)).await?
            }
        };
        let height = chain.height().await?;
        while next <= height {
            let to = height.min(next + BLOCKS_MAX - 1);
            self.places.extend(chain.asked_of(audits.owner, next, to).await?);
            next = to + 1;
            self.next = Some(next);
        }
        for place in self.places.clone() {
            match answer(seller, audits, &place).await {
                Ok(true) => {}
                Ok(false) => {
                    self.places.remove(&place);
                }
                // One that is refused holds up no other.
                Err(error) => {
                    tracing::warn!(period = place.period, index = place.index, %error, "what an auditor asked for on the chain was not published");
                }
            }
        }
        Ok(())
    }
}

/// Publishes what is owed next of a place; whether more is.
async fn answer(seller: &Seller, audits: &Audits, place: &PostedAt) -> Result<bool, ChainError> {
    let (period, index) = (place.period, place.index);
    let Some(production) = audits.chain.production(place).await? else { return Ok(false) };
    if matches!(production.stage, Stage::Answered | Stage::Forfeited) {
        return Ok(false);
    }
    let Found { answer, proof } = match find(seller, (period, index)).await {
        Ok(found) => found,
        Err(NotShown::Failed { reason }) => {
            tracing::warn!(period, index, reason, "what an auditor asked for cannot be read");
            return Ok(true);
        }
        Err(error) => {
            tracing::error!(period, index, %error, "an auditor asks on the chain for what is not in the store: the stake will be lost");
            return Ok(false);
        }
    };
    let supplied = usize::try_from(production.supplied).unwrap_or(usize::MAX);
    let runs = runs(&answer, supplied);
    let mined = match production.stage {
        Stage::Asked => {
            let filing = Filing::of(&answer, None);
            audits.chain.show(place, &filing, &proof, &runs).await?
        }
        _ => audits.chain.supply(place, (&answer.order, &answer.receipt), &runs).await?,
    };
    let tokens = runs.iter().map(|run| run.tokens.len()).sum::<usize>();
    tracing::info!(
        period,
        index,
        tokens,
        gas = mined.gas,
        "published on the chain, as an auditor asked"
    );
    Ok(true)
}

/// The runs of one transaction, from token `first` on; none where strangers may not see any.
fn runs(answer: &Answer, mut first: usize) -> Vec<Run> {
    if answer.order.audit == Audit::None {
        return Vec::new();
    }
    let (prompt, output) = (&answer.terms.prompt, &answer.output);
    let mut runs = Vec::new();
    while runs.len() < RUNS_MAX && first < prompt.len() + output.len() {
        let run = match first.checked_sub(prompt.len()) {
            None => run(prompt, first),
            Some(first) => run(output, first),
        };
        first += run.tokens.len();
        runs.push(run);
    }
    runs
}

/// Tokens from `first` on, and what they hang by in the tree of all.
fn run(all: &[u32], first: usize) -> Run {
    let tokens = &all[first..all.len().min(first + RUN_TOKENS)];
    let leaf = |(position, token): (usize, &u32)| {
        let mut data = [0; 8];
        data[..4].copy_from_slice(&(position as u32).to_be_bytes());
        data[4..].copy_from_slice(&token.to_be_bytes());
        leaf_hash(&data)
    };
    let tree = Nodes::new(all.iter().enumerate().map(leaf).collect());
    let proof = tree.range_proof(first as u64, tokens.len() as u64);
    Run { tokens: tokens.to_vec(), proof }
}
