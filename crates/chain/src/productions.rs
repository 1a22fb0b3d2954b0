//! Productions: a drawn auditor has a provider publish what stands behind a posted receipt.

use alloy_primitives::{Address, B256, U256};
use alloy_provider::Provider as _;
use alloy_rpc_types_eth::Filter;
use alloy_sol_types::{SolCall, SolEvent, SolValue};
use assay_protocol::{
    Amount, Assurance, Audit, ChannelId, Finish, ModelId, Order, OrderHash, Receipt, Sampler,
    Signature,
};

use crate::auditors::PostedAt;
use crate::bindings::{Productions, word};
use crate::chain::Chain;
use crate::client::Mined;
use crate::error::ChainError;
use crate::moves::Filing;
use crate::suite::Contract;

/// How far a provider is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It owes order, receipt and sampler.
    Asked,
    /// It owes tokens as well.
    Supplying,
    /// All was published.
    Answered,
    /// It was silent.
    Forfeited,
}

/// What was asked for, and how much of it was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Production {
    /// How far it is.
    pub stage: Stage,
    /// Who asked.
    pub auditor: Address,
    /// When, unix seconds.
    pub asked: u64,
    /// Tokens published so far, the prompt's first.
    pub supplied: u64,
}

/// Tokens that follow those which were published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Of the prompt, or of the output; never of both.
    pub tokens: Vec<u32>,
    /// Their neighbours in the tree, level by level from the leaves.
    pub proof: Vec<B256>,
}

/// What a provider published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Order, receipt and sampler with their signatures, and the receipt's siblings among its period's; none
    /// before they were shown.
    pub shown: Option<(Box<Filing>, Vec<B256>)>,
    /// Tokens, the prompt's first.
    pub tokens: Vec<u32>,
}

/// Which texts are owed: the commitments that order and receipt name.
fn texts(order: &Order, receipt: &Receipt) -> Productions::Texts {
    Productions::Texts {
        prompt: order.prompt,
        promptTokens: order.prompt_tokens,
        output: receipt.output,
        outputTokens: receipt.output_tokens,
    }
}

impl Chain {
    /// Has the provider of a place publish it, with the connection's account's bond, allowing that first where
    /// needed. Only for an auditor that was drawn for the place.
    pub async fn produce(&self, place: &PostedAt) -> Result<Mined, ChainError> {
        let at = self.at(Contract::Productions)?;
        let bond = self.audit_terms().await?.production_bond;
        self.allow(self.at(Contract::AssayToken)?, at, bond).await?;
        let PostedAt { provider, period, index } = *place;
        let (period, index) = (U256::from(period), U256::from(index));
        self.client().send(at, &Productions::produceCall { provider, period, index }).await
    }

    /// How far a provider is; none if nobody asked.
    pub async fn production(&self, place: &PostedAt) -> Result<Option<Production>, ChainError> {
        let at = self.at(Contract::Productions)?;
        let PostedAt { provider, period, index } = *place;
        let (period, index) = (U256::from(period), U256::from(index));
        let call = Productions::productionOfCall { provider, period, index };
        let found = self.client().view(at, &call).await?;
        let stages = [Stage::Asked, Stage::Supplying, Stage::Answered, Stage::Forfeited];
        let stage = usize::from(found.stage).checked_sub(1).and_then(|at| stages.get(at));
        Ok(stage.map(|stage| Production {
            stage: *stage,
            auditor: found.auditor,
            asked: found.asked.to(),
            supplied: found.supplied.to(),
        }))
    }

    /// Publishes order, receipt and sampler of a place, its receipt's siblings among the period's, and `runs`
    /// of tokens, in one transaction. Anyone may.
    pub async fn show(
        &self,
        place: &PostedAt,
        filing: &Filing,
        proof: &[B256],
        runs: &[Run],
    ) -> Result<Mined, ChainError> {
        let encoded = filing.encoded();
        let words = (
            encoded.order,
            encoded.orderSignature,
            encoded.receipt,
            encoded.receiptSignature,
            encoded.sampler,
            proof.to_vec(),
        );
        let showing = word(&words.abi_encode());
        let PostedAt { provider, period, index } = *place;
        let (period, index) = (U256::from(period), U256::from(index));
        let show = Productions::showCall { provider, period, index, showing };
        let texts = texts(&filing.order, &filing.receipt);
        let supply = runs.iter().map(|run| supply(place, &texts, run));
        self.published(std::iter::once(show.abi_encode()).chain(supply)).await
    }

    /// Publishes the next tokens of a place that was shown. Anyone may.
    pub async fn supply(
        &self,
        place: &PostedAt,
        (order, receipt): (&Order, &Receipt),
        runs: &[Run],
    ) -> Result<Mined, ChainError> {
        let texts = texts(order, receipt);
        self.published(runs.iter().map(|run| supply(place, &texts, run))).await
    }

    async fn published(&self, calls: impl Iterator<Item = Vec<u8>>) -> Result<Mined, ChainError> {
        let data = calls.map(Into::into).collect();
        self.client()
            .send(self.at(Contract::Productions)?, &Productions::multicallCall { data })
            .await
    }

    /// Ends a production whose clock ran out. Anyone may.
    pub async fn time_out_production(&self, place: &PostedAt) -> Result<Mined, ChainError> {
        let PostedAt { provider, period, index } = *place;
        let (period, index) = (U256::from(period), U256::from(index));
        let call = Productions::timeoutCall { provider, period, index };
        self.client().send(self.at(Contract::Productions)?, &call).await
    }

    /// Places that auditors asked `provider` for in blocks `from` to `to`, both included. A node may refuse
    /// too many blocks at once.
    pub async fn asked_of(
        &self,
        provider: Address,
        from: u64,
        to: u64,
    ) -> Result<Vec<PostedAt>, ChainError> {
        let filter = Filter::new()
            .address(self.at(Contract::Productions)?)
            .event_signature(Productions::Asked::SIGNATURE_HASH)
            .topic1(provider.into_word())
            .from_block(from)
            .to_block(to);
        let logs = self.client().provider().get_logs(&filter).await;
        let logs = logs.map_err(|error| self.client().failed(error))?;
        let events = logs.iter().filter_map(|log| Productions::Asked::decode_log(&log.inner).ok());
        let place = |event: &Productions::Asked| PostedAt {
            provider: event.provider,
            period: event.period.saturating_to(),
            index: event.index.saturating_to(),
        };
        Ok(events.map(|event| place(&event.data)).collect())
    }

    /// What was published of a place from block `from` on.
    pub async fn published_of(&self, place: &PostedAt, from: u64) -> Result<Published, ChainError> {
        let filter = Filter::new()
            .address(self.at(Contract::Productions)?)
            .topic1(place.provider.into_word())
            .topic2(B256::from(U256::from(place.period)))
            .topic3(B256::from(U256::from(place.index)))
            .from_block(from)
            .to_block(self.height().await?);
        let logs = self.client().provider().get_logs(&filter).await;
        let logs = logs.map_err(|error| self.client().failed(error))?;
        let mut published = Published::default();
        for log in logs {
            if let Ok(shown) = Productions::Shown::decode_log(&log.inner) {
                let proof = shown.data.showing.proof.clone();
                published.shown = read(shown.data.showing).map(|read| (Box::new(read), proof));
            }
            if let Ok(run) = Productions::Supplied::decode_log(&log.inner) {
                let tokens = run.data.tokens.chunks_exact(4);
                let token = |bytes: &[u8]| bytes.iter().fold(0, |sum, b| sum << 8 | u32::from(*b));
                published.tokens.extend(tokens.map(token));
            }
        }
        Ok(published)
    }
}

/// What the contract let pass; none if it is not in our words.
fn read(shown: Productions::Showing) -> Option<Filing> {
    Some(Filing {
        order: read_order(&shown.order)?,
        order_signature: read_signature(&shown.orderSignature)?,
        receipt: read_receipt(&shown.receipt)?,
        receipt_signature: read_signature(&shown.receiptSignature)?,
        sampler: read_sampler(&shown.sampler),
        posting: None,
    })
}

fn read_signature(bytes: &[u8]) -> Option<Signature> {
    bytes.try_into().ok().map(Signature)
}

fn read_order(found: &Productions::Order) -> Option<Order> {
    let audits = [Audit::None, Audit::Drawn, Audit::Public];
    Some(Order {
        buyer: found.buyer,
        market: found.market,
        model: ModelId(found.model),
        request: found.request,
        prompt: found.prompt,
        prompt_tokens: found.promptTokens,
        max_tokens: found.maxTokens,
        sampler: found.sampler,
        assurance: Assurance::from_code(found.assurance)?,
        audit: audits.into_iter().find(|audit| *audit as u8 == found.audit)?,
        asset: found.asset,
        max_price: Amount(found.maxPrice),
        deadline: found.deadline,
        nonce: found.nonce,
        grant: found.grant,
    })
}

fn read_receipt(found: &Productions::Receipt) -> Option<Receipt> {
    let ends = [Finish::Eos, Finish::Stop, Finish::Length, Finish::Cancelled];
    Some(Receipt {
        order: OrderHash(found.order),
        provider: found.provider,
        output: found.output,
        output_tokens: found.outputTokens,
        text: found.text,
        finish: ends.into_iter().find(|finish| finish.code() == found.finish)?,
        state: found.state,
        assurance: Assurance::from_code(found.assurance)?,
        asset: found.asset,
        price: Amount(found.price),
        channel: ChannelId(found.channel),
        channel_before: Amount(found.channelBefore),
        channel_after: Amount(found.channelAfter),
        started: found.started,
        finished: found.finished,
    })
}

fn read_sampler(found: &Productions::Sampler) -> Sampler {
    Sampler {
        inv_t_q16: found.invT_q16,
        top_k: found.topK,
        top_p_q16: found.topP_q16,
        min_p_q16: found.minP_q16,
        rep_q16: found.rep_q16,
        freq_q16: found.freq_q16,
        pres_q16: found.pres_q16,
        stops: found.stops,
        bias: found.bias,
        grammar: found.grammar,
        seed: found.seed,
        choice: found.choice,
    }
}

fn supply(place: &PostedAt, texts: &Productions::Texts, run: &Run) -> Vec<u8> {
    let tokens: Vec<u8> = run.tokens.iter().flat_map(|token| token.to_be_bytes()).collect();
    Productions::supplyCall {
        provider: place.provider,
        period: U256::from(place.period),
        index: U256::from(place.index),
        texts: texts.clone(),
        tokens: tokens.into(),
        proof: run.proof.clone(),
    }
    .abi_encode()
}
