//! All that a side needs to have its say about one disputed answer.

use assay_chain::{Chain, ChainError, Filing};
use assay_engine::TraceError;
use assay_evidence::dispute::{
    Challenger, Defender, Move, Next, NoAnswer, NodeSource, Standing, Subject, fan,
};
use assay_evidence::op::{Openings, Place, Source};
use assay_protocol::{Answer, B256, keccak256, token_root};

use crate::tracer::{Model, Retraced, Tracer};
use crate::wire::Below;

/// Why nothing can be judged by what a side holds.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// The chain does not answer, or refuses.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The dispute is about another answer than the one at hand.
    #[error("the disputed receipt is about facts {expected}, the answer at hand has {found}")]
    OtherFacts {
        /// Hash of those of the answer at hand.
        found: B256,
        /// The dispute's.
        expected: B256,
    },
    /// The receipt was never disputed.
    #[error("receipt {receipt} is not disputed")]
    NotDisputed {
        /// Its digest.
        receipt: B256,
    },
}

/// What is disputed: the answer that a side holds, the facts that movers bring along, and the
/// receipt's last state.
#[derive(Clone, Debug)]
pub struct Disputed {
    /// The answer, as far as the disputed receipt has it.
    pub answer: Answer,
    /// ABI encoding of what order, sampler, receipt and model say.
    pub facts: Vec<u8>,
}

/// The answer as a receipt of its first `tokens` output tokens has it. A provider that was left and
/// asked again has signed both; all that a dispute goes by follows from the longer one.
///
/// Nothing if the answer is not as long.
pub fn claimed(answer: &Answer, tokens: usize) -> Option<Answer> {
    let mut claimed = answer.clone();
    if tokens != answer.output.len() {
        let state = tokens.checked_sub(1).and_then(|last| answer.states.get(last))?;
        claimed.output = answer.output.get(..tokens)?.to_vec();
        claimed.states = answer.states.get(..tokens)?.to_vec();
        claimed.receipt.output = token_root(&claimed.output);
        claimed.receipt.output_tokens = tokens as u32;
        claimed.receipt.state = *state;
    }
    Some(claimed)
}

/// The facts of a disputed receipt, if `answer` is what it is about.
///
/// # Errors
/// If it is about another one, is not disputed, or the chain fails.
pub async fn facts(chain: &Chain, answer: Answer, receipt: B256) -> Result<Disputed, FactsError> {
    let case = chain.case(receipt).await?.ok_or(FactsError::NotDisputed { receipt })?;
    let facts = chain.facts_of(&Filing::of(&answer, None)).await?;
    let (found, expected) = (keccak256(&facts), case.facts);
    if found != expected {
        return Err(FactsError::OtherFacts { found, expected });
    }
    Ok(Disputed { answer, facts })
}

/// A disputed answer computed again, with everything that moves about it are made of.
pub struct Record {
    trace: Box<dyn Retraced>,
    model: Model,
    weights: B256,
    facts: Vec<u8>,
    state: B256,
}

impl Record {
    /// Computes a disputed answer again, which may take seconds.
    ///
    /// # Errors
    /// If it is not one of this model, or the model cannot be read.
    pub fn compute(tracer: &dyn Tracer, disputed: Disputed) -> Result<Self, TraceError> {
        let Disputed { answer, facts } = disputed;
        let trace = tracer.trace(&answer)?;
        let (model, weights, state) = (tracer.model()?, tracer.weights(), answer.receipt.state);
        Ok(Self { trace, model, weights, facts, state })
    }

    /// Root of its trace.
    pub fn root(&self) -> B256 {
        self.trace.spine().root()
    }

    /// Has `say` look at what the dispute is about, and at this trace of it.
    pub fn about<T>(&self, say: impl FnOnce(Subject<'_>, &dyn Retraced) -> T) -> T {
        let claim = self.trace.claim();
        let subject = Subject {
            claim: &claim,
            model: &*self.model,
            weights: self.weights,
            facts: &self.facts,
            state: self.state,
        };
        say(subject, &*self.trace)
    }

    /// What the provider owes now; nothing if it is not its turn.
    ///
    /// # Errors
    /// As [`Defender::answer`].
    pub fn defend(&self, standing: &Standing) -> Result<Option<Move>, NoAnswer> {
        self.about(|subject, trace| Defender::new(subject, trace).answer(standing))
    }

    /// What a challenger says next, which has this honest trace.
    ///
    /// # Errors
    /// As [`Challenger::next`].
    pub fn challenge(
        &self,
        standing: &Standing,
        source: &dyn NodeSource,
    ) -> Result<Next, NoAnswer> {
        self.about(|subject, trace| Challenger::new(subject, trace).next(standing, source))
    }

    /// Nodes of this trace, as they are asked for; nothing where it has none, or where one reveal
    /// shows fewer or more levels.
    pub fn nodes(&self, Below { way, levels }: Below) -> Option<Vec<B256>> {
        let found = self.about(|subject, trace| fan(subject.claim, trace, way)).ok()?;
        (found.len() == 1 << levels).then_some(found)
    }

    /// Data of a leaf of this trace.
    pub fn leaf(&self, place: Place) -> Option<Vec<u8>> {
        let openings: &dyn Openings = &*self.trace;
        openings.open(Source::Trace(place)).map(Into::into)
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record").field("root", &self.root()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use assay_protocol::{
        Address, Amount, Assurance, Audit, ChainId, ChannelId, Finish, ModelId, Order, OrderHash,
        Receipt, Sampler, Signature, Terms, U256,
    };

    use super::*;

    fn answer() -> Answer {
        let (zero, sampler) = (B256::ZERO, Sampler::greedy());
        let (output, states) = (vec![5, 6, 7], [1, 2, 3].map(B256::repeat_byte).to_vec());
        let order = Order {
            buyer: Address::ZERO,
            market: Address::ZERO,
            model: ModelId(zero),
            request: zero,
            prompt: token_root(&[1]),
            prompt_tokens: 1,
            max_tokens: 3,
            sampler: sampler.hash(),
            assurance: Assurance::Replayable,
            audit: Audit::Public,
            asset: Address::ZERO,
            max_price: Amount(0),
            deadline: 0,
            nonce: U256::ZERO,
            grant: zero,
        };
        let receipt = Receipt {
            order: OrderHash(zero),
            provider: Address::ZERO,
            output: token_root(&output),
            output_tokens: 3,
            text: zero,
            finish: Finish::Length,
            state: states[2],
            assurance: Assurance::Replayable,
            asset: Address::ZERO,
            price: Amount(0),
            channel: ChannelId(zero),
            channel_before: Amount(0),
            channel_after: Amount(0),
            started: 0,
            finished: 0,
        };
        Answer {
            schema: Answer::SCHEMA.into(),
            chain_id: ChainId(7777),
            order,
            order_signature: Signature([0; 65]),
            terms: Terms { prompt: vec![1], sampler, stops: vec![], bias: vec![], grammar: None },
            request: None,
            output,
            text: String::new(),
            receipt,
            receipt_signature: Signature([0; 65]),
            states,
            vector: None,
        }
    }

    #[test]
    fn an_earlier_receipt_is_about_the_beginning() {
        let whole = answer();
        assert_eq!(claimed(&whole, 3), Some(whole.clone()));
        let earlier = claimed(&whole, 2).unwrap();
        assert_eq!((&*earlier.output, earlier.states.len()), ([5, 6].as_slice(), 2));
        let Receipt { output, output_tokens, state, .. } = earlier.receipt;
        assert_eq!((output, output_tokens), (token_root(&[5, 6]), 2));
        assert_eq!(state, B256::repeat_byte(2));
    }

    #[test]
    fn a_receipt_of_more_or_of_nothing_is_about_another_answer() {
        assert_eq!(claimed(&answer(), 4), None);
        assert_eq!(claimed(&answer(), 0), None);
        let stateless = Answer { states: Vec::new(), ..answer() };
        assert_eq!(claimed(&stateless, 2), None);
    }
}
