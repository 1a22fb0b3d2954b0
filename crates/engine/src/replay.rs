//! Computes an answer again, to judge it.
//!
//! The claimed output is fed back as if it were a prompt (teacher forcing): one prefill instead
//! of one pass per token, a fraction of the cost of generating, and the same bits, because a
//! row's arithmetic does not depend on its batch.
//!
//! An answer that is a vector is made again from the prompt alone.

use assay_evidence::{Fault, Step, Verdict, check, check_without_model};
use assay_kernels::Cpu;
use assay_models::{Cache, ForwardError, Output, Row, Scratch};
use assay_protocol::{Answer, Ending, Finish, Logprobs, ModelId, hidden_hash, vector_hash};
use assay_text::{Grammar, Grammars};

use crate::draw::{Drawing, Drawn, Stuck};
use crate::job::Job;
use crate::package::Loaded;

/// Rows of one batch of a replay: few enough that the memory of their logits is reused.
const CHUNK: usize = 96;

/// Why an answer cannot be judged with the model at hand.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It was ordered from another model.
    #[error("the answer is by model {expected}, the model given is {found}")]
    WrongModel {
        /// Model at hand.
        found: ModelId,
        /// Model that the order names.
        expected: ModelId,
    },
    /// The model could not be run.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// The answer cannot be drawn again.
    #[error("the answer cannot be drawn again: {reason}")]
    Stuck {
        /// Why.
        reason: String,
    },
}

impl From<Stuck> for ReplayError {
    fn from(stuck: Stuck) -> Self {
        Self::Stuck { reason: stuck.to_string() }
    }
}

/// Replays `answer` and judges it. `progress` is told the positions computed so far, and how many
/// there are.
pub fn replay(
    loaded: &Loaded,
    cpu: &Cpu,
    answer: &Answer,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Verdict, ReplayError> {
    let mut job = job(loaded, answer)?;
    let spelled = spell(loaded, &job.ending, &answer.output, answer.receipt.finish);
    if let Err(fault) = check_without_model(answer, &job.ending, spelled.as_deref()) {
        return Ok(Verdict::False(fault));
    }
    match answerable(loaded, &job).and_then(|()| grammar(loaded, answer)) {
        Ok(grammar) => job.grammar = grammar,
        Err(reason) => return Ok(Verdict::False(Fault::Unanswerable { reason })),
    }
    let steps: Vec<Step> = steps(loaded, cpu, &job, &answer.output, progress)?
        .into_iter()
        .map(|again| again.step)
        .collect();
    Ok(check(answer, &steps))
}

/// The logprobs that belong to `answer`, with `top` alternatives to each token: what its provider
/// says when asked for them with the order. They end at the first token that is not the model's.
///
/// # Errors
/// As [`replay`].
pub fn logprobs_of(
    loaded: &Loaded,
    cpu: &Cpu,
    answer: &Answer,
    top: u8,
) -> Result<Vec<Logprobs>, ReplayError> {
    let mut job = job(loaded, answer)?;
    if loaded.vector_width().is_some() {
        return Ok(Vec::new());
    }
    match answerable(loaded, &job).and_then(|()| grammar(loaded, answer)) {
        Ok(grammar) => job.grammar = grammar,
        Err(_) => return Ok(Vec::new()),
    }
    job.logprobs = Some(top);
    let steps = steps(loaded, cpu, &job, &answer.output, &mut |_, _| ())?;
    let claimed = steps.into_iter().zip(&answer.output);
    let true_ones = claimed.take_while(|(again, token)| again.step.token == **token);
    Ok(true_ones.filter_map(|(again, _)| again.logprobs).map(|logprobs| *logprobs).collect())
}

/// The job that `answer` was made by.
fn job(loaded: &Loaded, answer: &Answer) -> Result<Job, ReplayError> {
    let expected = answer.order.model;
    if loaded.id != expected {
        return Err(ReplayError::WrongModel { found: loaded.id, expected });
    }
    let (eos, context) = (&loaded.manifest.eos, loaded.context());
    Ok(Job::new(answer.hash(), &answer.order, &answer.terms, eos, context))
}

/// What makes the order one that no provider may sign an answer to, if anything does.
fn answerable(loaded: &Loaded, job: &Job) -> Result<(), String> {
    let vocab = loaded.model.shape().vocab;
    job.sampler.check(vocab).map_err(|error| error.to_string())?;
    if job.ending.tokens_max == 0 {
        let (prompt, context) = (job.prompt.len(), loaded.context());
        return Err(format!("{prompt} prompt tokens leave no room in a context of {context}"));
    }
    if loaded.vector_width().is_some() && job.ending.tokens_max > 1 {
        let asked = job.ending.tokens_max;
        return Err(format!("{asked} tokens are asked for of a model that gives one vector"));
    }
    match job.prompt.iter().find(|&&token| token as usize >= vocab) {
        Some(token) => Err(format!("prompt token {token} is not in a vocabulary of {vocab}")),
        None => Ok(()),
    }
}

/// The grammar of an answer's order, if it has one, for the model's vocabulary.
fn grammar(loaded: &Loaded, answer: &Answer) -> Result<Option<Box<Grammar>>, String> {
    let Some(text) = &answer.terms.grammar else { return Ok(None) };
    let tokenizer = loaded.tokenizer.as_ref().ok_or("the model has no tokenizer")?;
    let compiled = Grammars::new(tokenizer, &loaded.manifest.eos)
        .and_then(|grammars| grammars.compile(text))
        .map_err(|error| error.to_string())?;
    Ok(Some(Box::new(compiled)))
}

/// What the output's text tokens spell; `None` without a tokenizer.
fn spell(loaded: &Loaded, ending: &Ending, output: &[u32], finish: Finish) -> Option<String> {
    let tokenizer = loaded.tokenizer.as_ref()?;
    let text = &output[..ending.text_len(output, finish)];
    Some(tokenizer.decode(text))
}

/// An output token, computed again.
struct Again {
    step: Step,
    logprobs: Option<Box<Logprobs>>,
}

/// One per output token, ending after the first that differs.
fn steps(
    loaded: &Loaded,
    cpu: &Cpu,
    job: &Job,
    output: &[u32],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<Again>, ReplayError> {
    let Some(last) = output.len().checked_sub(1) else { return Ok(Vec::new()) };
    if loaded.vector_width().is_some() {
        let vector = loaded.model.embed(cpu, &job.prompt, &mut Scratch::default(), &mut ())?;
        let step = Step { token: loaded.vector_token(), hidden: vector_hash(&vector) };
        return Ok(vec![Again { step, logprobs: None }]);
    }
    // No model gives a token that it does not have, so what follows one need not be computed.
    let vocab = loaded.model.shape().vocab;
    let fed = output.iter().position(|&token| token as usize >= vocab).unwrap_or(last);
    let first = job.prompt.len() - 1;
    let tokens: Vec<u32> = job.prompt.iter().chain(&output[..fed]).copied().collect();
    let mut cache = Cache::new(loaded.model.shape());
    let mut scratch = Scratch::default();
    let mut drawing = Drawing::new(job);
    let mut steps = Vec::with_capacity(output.len());
    for chunk in tokens.chunks(CHUNK) {
        let start = cache.len();
        let rows: Vec<Row> = chunk
            .iter()
            .enumerate()
            .map(|(i, &token)| Row { token, sequence: 0, wanted: start + i >= first })
            .collect();
        let result = loaded.model.forward(cpu, &rows, &mut [&mut cache], &mut scratch, &mut ())?;
        progress(cache.len() as u64, tokens.len() as u64);
        let Output { hidden, mut logits } = result;
        for (row, logits) in logits.chunks_exact_mut(vocab).enumerate() {
            let claimed = output.get(steps.len());
            let Drawn { token, logprobs } = drawing.next(logits)?;
            let (quants, scales) = hidden.row(row);
            let step = Step { token, hidden: hidden_hash(quants, scales) };
            steps.push(Again { step, logprobs });
            if claimed != Some(&token) {
                return Ok(steps);
            }
        }
        scratch.recycle(Output { hidden, logits });
    }
    Ok(steps)
}
