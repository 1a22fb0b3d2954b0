//! Judges a receipt that was drawn: asks for it, and computes it again.

use std::sync::Arc;

use assay_chain::{ChainError, Filing, Posted, PostedAt};
use assay_engine::{Job, Loaded};
use assay_kernels::Cpu;
use assay_protocol::{Answer, Assurance, Blame, ModelId, Sampler, Terms};
use tokio::sync::Semaphore;

use super::ask::{Asker, Seen};
use super::page::Found;
use crate::challenge::{Finding, Grounds, find};

/// Providers asked at once.
const ASKED_AT_ONCE: usize = 8;
/// Answers computed at once. One uses all that the machine has; the next one waits.
const COMPUTED_AT_ONCE: usize = 1;

/// The models of this machine.
pub trait Shelf: Send + Sync {
    /// A model, its weights checked against its id; none if it is not here, or cannot be used. May take as
    /// long as it takes to read, and is called where that is allowed.
    fn model(&self, id: ModelId) -> Option<Arc<Loaded>>;
}

/// What came of one receipt.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    pub(crate) found: Found,
    /// What was shown, if it was what was posted.
    pub(crate) posted: Option<Posted>,
    /// The answer, if it can be disputed.
    pub(crate) answer: Option<Box<Answer>>,
}

/// Where receipts are judged, a few at once.
pub(crate) struct Bench {
    pub(crate) asker: Asker,
    pub(crate) shelf: Arc<dyn Shelf>,
    pub(crate) cpu: Arc<Cpu>,
    asking: Semaphore,
    computing: Semaphore,
}

impl Bench {
    pub(crate) fn new(asker: Asker, shelf: Arc<dyn Shelf>, cpu: Arc<Cpu>) -> Self {
        let asking = Semaphore::new(ASKED_AT_ONCE);
        Self { asker, shelf, cpu, asking, computing: Semaphore::new(COMPUTED_AT_ONCE) }
    }

    /// Asks the provider for a receipt, and judges what it shows.
    pub(crate) async fn judge(self: &Arc<Self>, at: &PostedAt) -> Result<Judged, ChainError> {
        let asked = {
            let _turn = self.asking.acquire().await;
            self.asker.ask(at).await?
        };
        Ok(match asked {
            Err(reason) => Judged { found: Found::Silent { reason }, posted: None, answer: None },
            Ok((Seen::Private, posted)) => {
                let reason = "its order lets no stranger check it".to_owned();
                let found = Found::Unable { reason };
                Judged { found, posted: Some(posted), answer: None }
            }
            Ok((Seen::Answer(answer), posted)) => {
                let (found, disputable) = self.compute((*answer).clone()).await;
                let answer = disputable.then_some(answer);
                Judged { found, posted: Some(posted), answer }
            }
        })
    }

    /// Judges what a provider published on the chain: no text, and of the terms no more than what an order
    /// without stop sequences and biases has.
    pub(crate) async fn judge_published(
        self: &Arc<Self>,
        at: &PostedAt,
        (filing, proof): (Filing, Vec<assay_protocol::B256>),
        tokens: &[u32],
    ) -> Judged {
        let chain_id = assay_protocol::ChainId(self.asker.chain.book().chain_id);
        let receipt = filing.receipt.digest(chain_id);
        let posted = Some(Posted { place: *at, receipt, proof });
        let unable = |reason: &str| Found::Unable { reason: reason.to_owned() };
        let prompt_tokens = filing.order.prompt_tokens as usize;
        let Some((prompt, output)) = tokens.split_at_checked(prompt_tokens) else {
            let found = unable("its order lets no stranger check it");
            return Judged { found, posted, answer: None };
        };
        let neutral = Sampler::greedy();
        if (filing.sampler.stops, filing.sampler.bias) != (neutral.stops, neutral.bias) {
            let found = unable("its stop sequences or biases were not published");
            return Judged { found, posted, answer: None };
        }
        let mut answer = Box::new(Answer {
            schema: Answer::SCHEMA.into(),
            chain_id,
            terms: Terms {
                prompt: prompt.to_vec(),
                sampler: filing.sampler,
                stops: Vec::new(),
                bias: Vec::new(),
                grammar: None,
            },
            order: filing.order,
            order_signature: filing.order_signature,
            request: None,
            output: output.to_vec(),
            text: String::new(),
            receipt: filing.receipt,
            receipt_signature: filing.receipt_signature,
            states: Vec::new(),
            vector: None,
        });
        let shelf = Arc::clone(&self.shelf);
        let model = answer.order.model;
        let loaded = tokio::task::spawn_blocking(move || shelf.model(model)).await;
        if let Ok(Some(loaded)) = loaded {
            answer.text = spell(&loaded, &answer);
        }
        let (found, disputable) = self.compute((*answer).clone()).await;
        Judged { found, posted, answer: disputable.then_some(answer) }
    }

    /// Computes an answer again; whether it can be disputed.
    async fn compute(self: &Arc<Self>, answer: Answer) -> (Found, bool) {
        let assurance = (answer.order.assurance, answer.receipt.assurance);
        if assurance != (Assurance::Replayable, Assurance::Replayable) {
            return (Found::Unable { reason: "nobody can compute it again".to_owned() }, false);
        }
        let _turn = self.computing.acquire().await;
        let bench = Arc::clone(self);
        let computed = tokio::task::spawn_blocking(move || bench.replay(&answer)).await;
        computed.unwrap_or_else(|broken| {
            (Found::Unable { reason: format!("the computation broke: {broken}") }, false)
        })
    }

    /// Takes as long as a prefill of prompt and output.
    fn replay(&self, answer: &Answer) -> (Found, bool) {
        if let Err(error) =
            answer.order.check(answer.chain_id, &answer.order_signature, &answer.terms)
        {
            return (Found::Silent { reason: error.to_string() }, false);
        }
        let model = answer.order.model;
        let Some(loaded) = self.shelf.model(model) else {
            return (Found::Unable { reason: format!("model {model} is not here") }, false);
        };
        match find(answer, None, &loaded, &self.cpu, &mut |_, _| {}) {
            Ok(Finding::True) => (Found::True, false),
            Ok(Finding::Disputable { fault, grounds }) => {
                let fault = fault.map_or_else(|| says(&grounds).to_owned(), |f| f.to_string());
                (Found::False { fault }, true)
            }
            Ok(Finding::Undisputable { fault }) => match fault.blame() {
                // What it showed is not what it signed.
                Blame::File => (Found::Silent { reason: fault.to_string() }, false),
                Blame::Provider => (Found::False { fault: fault.to_string() }, false),
            },
            Err(error) => (Found::Unable { reason: error.to_string() }, false),
        }
    }
}

/// What an answer's text tokens spell; nothing without a tokenizer.
fn spell(loaded: &Loaded, answer: &Answer) -> String {
    let Some(tokenizer) = &loaded.tokenizer else { return String::new() };
    let (eos, context) = (&loaded.manifest.eos, loaded.context());
    let job = Job::new(answer.hash(), &answer.order, &answer.terms, eos, context);
    let length = job.ending.text_len(&answer.output, answer.receipt.finish);
    tokenizer.decode(&answer.output[..length])
}

fn says(grounds: &Grounds) -> &'static str {
    match grounds {
        Grounds::Contradiction => "its order and receipt contradict each other",
        Grounds::Ending(_) => "it ended otherwise than its receipt says",
        Grounds::SecondAnswer(_) => "its provider signed another answer to the same order",
        Grounds::Computation => "a number of its computation is wrong",
    }
}
