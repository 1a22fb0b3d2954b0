//! Disputed answers computed again, each once, and kept while they are asked for.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use assay_chain::{Chain, Dispute};
use assay_court::{Disputed, FactsError, Record, Tracer, claimed, facts};
use assay_engine::{PackageError, TraceError};
use assay_protocol::{Answer, B256, ChainId, ModelId, OrderHash};
use tokio::sync::{OnceCell, Semaphore};

use crate::store::{Kept, Ordered, Store, StoreError};

/// Answers computed again at once. One uses all that the engine has; the next one waits.
const COMPUTED_AT_ONCE: usize = 1;

/// Why an answer of this provider cannot be shown to be true.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Undefendable {
    #[error("no answer to order {0} is in the store")]
    Forgotten(OrderHash),
    #[error("the answer to order {0} was kept by a release that did not keep what it was about")]
    Bare(OrderHash),
    #[error("the receipt is about {found} output tokens, the answer that was kept has {kept}")]
    Longer { found: u64, kept: usize },
    #[error("model {0} is not served any more, or cannot be traced")]
    NoTracer(ModelId),
    #[error(transparent)]
    Trace(Arc<TraceError>),
    #[error(transparent)]
    Facts(Arc<FactsError>),
}

/// Why there is no record of an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// For good.
    #[error(transparent)]
    Undefendable(#[from] Undefendable),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Chain(#[from] assay_chain::ChainError),
    #[error(transparent)]
    Model(#[from] PackageError),
    #[error("the record of the answer could not be made")]
    Broken,
}

impl From<FactsError> for BenchError {
    fn from(error: FactsError) -> Self {
        match error {
            FactsError::Chain(error) if !matches!(error, assay_chain::ChainError::Refused(_)) => {
                Self::Chain(error)
            }
            // It was a moment ago: the chain was reorganised, or read in between.
            FactsError::NotDisputed { .. } => Self::Broken,
            other => Undefendable::Facts(Arc::new(other)).into(),
        }
    }
}

type Shelf = VecDeque<(B256, Arc<OnceCell<Arc<Record>>>)>;

/// The answers of one provider that are disputed.
pub(crate) struct Bench {
    store: Store,
    chain: ChainId,
    tracers: HashMap<ModelId, Arc<dyn Tracer>>,
    /// Those used last, the latest in front.
    records: Mutex<Shelf>,
    records_max: NonZeroUsize,
    computing: Semaphore,
}

impl Bench {
    pub(crate) fn new(
        store: Store,
        chain: ChainId,
        tracers: HashMap<ModelId, Arc<dyn Tracer>>,
        records_max: NonZeroUsize,
    ) -> Self {
        Self {
            store,
            chain,
            tracers,
            records: Mutex::default(),
            records_max,
            computing: Semaphore::new(COMPUTED_AT_ONCE),
        }
    }

    /// The record of a disputed receipt of `order`, computed by whoever asks for it first.
    pub(crate) async fn record(
        &self,
        chain: &Chain,
        dispute: &Dispute,
        order: OrderHash,
    ) -> Result<Arc<Record>, BenchError> {
        let cell = self.place(dispute.receipt);
        let record = cell.get_or_try_init(|| self.compute(chain, dispute, order));
        record.await.cloned()
    }

    /// The record of a receipt, if it is at hand.
    pub(crate) fn at_hand(&self, receipt: B256) -> Option<Arc<Record>> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, cell) = records.iter().find(|(found, _)| *found == receipt)?;
        cell.get().cloned()
    }

    /// Where a receipt's record is, or will be; the one that was not used for longest makes room.
    fn place(&self, receipt: B256) -> Arc<OnceCell<Arc<Record>>> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let at = records.iter().position(|(found, _)| *found == receipt);
        let entry =
            at.and_then(|at| records.remove(at)).unwrap_or_else(|| (receipt, Arc::default()));
        let cell = Arc::clone(&entry.1);
        records.push_front(entry);
        records.truncate(self.records_max.get());
        cell
    }

    async fn compute(
        &self,
        chain: &Chain,
        dispute: &Dispute,
        order: OrderHash,
    ) -> Result<Arc<Record>, BenchError> {
        let answer = self.answer(dispute, order).await?;
        let model = answer.order.model;
        let tracer = self.tracers.get(&model).ok_or(Undefendable::NoTracer(model))?;
        let disputed: Disputed = facts(chain, answer, dispute.receipt).await?;
        let _turn = self.computing.acquire().await.map_err(|_| BenchError::Broken)?;
        let tracer = Arc::clone(tracer);
        let computed =
            tokio::task::spawn_blocking(move || Record::compute(&*tracer, disputed)).await;
        match computed.map_err(|_| BenchError::Broken)? {
            Ok(record) => Ok(Arc::new(record)),
            Err(TraceError::Package(error)) => Err(error.into()),
            Err(error) => Err(Undefendable::Trace(Arc::new(error)).into()),
        }
    }

    /// The answer that a receipt of `order` is about.
    async fn answer(&self, dispute: &Dispute, order: OrderHash) -> Result<Answer, BenchError> {
        let kept = self.store.find(order).await?.ok_or(Undefendable::Forgotten(order))?;
        let answer = answer_of(kept, self.chain).ok_or(Undefendable::Bare(order))?;
        // The trace has a position for every token but the last one.
        let found =
            (u64::from(dispute.positions) + 1).saturating_sub(answer.terms.prompt.len() as u64);
        let kept = answer.output.len();
        let claimed = usize::try_from(found).ok().and_then(|found| claimed(&answer, found));
        Ok(claimed.ok_or(Undefendable::Longer { found, kept })?)
    }
}

/// An answer as it was kept; nothing if what it was about was not. Its text is not kept, and no trace
/// reads it.
fn answer_of(kept: Kept, chain_id: ChainId) -> Option<Answer> {
    let Kept { order_signature, sealed, ordered } = kept;
    let Ordered { order, terms } = ordered?;
    Some(Answer {
        schema: Answer::SCHEMA.into(),
        chain_id,
        order,
        order_signature,
        terms,
        request: None,
        output: sealed.output,
        text: String::new(),
        receipt: sealed.receipt,
        receipt_signature: sealed.signature,
        states: sealed.states,
        vector: None,
    })
}
