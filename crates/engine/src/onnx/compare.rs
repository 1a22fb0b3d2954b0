//! Computes an answer of an ONNX model again, to compare it.
//!
//! Equal bits say that whoever signed the answer has, or knows, what this machine computes. Other bits say
//! little: floats of another processor may be rounded otherwise, and no rule says how. So they convict
//! nobody, and how near the vectors are is all that can be told.

use assay_evidence::{Fault, check_without_model};
use assay_protocol::{Answer, vector_hash};

use super::error::OnnxError;
use super::model::OnnxModel;
use super::vector::cosine;
use crate::job::Job;

/// How an answer compares with what this machine computes.
#[derive(Clone, Debug, PartialEq)]
pub enum Comparison {
    /// Every number is the same.
    Same,
    /// Some number is not.
    Other {
        /// The cosine between the two vectors, where the answer's file has its vector.
        cosine: Option<f64>,
    },
    /// The answer is wrong whoever computed it.
    False(Fault),
}

impl OnnxModel {
    /// Computes `answer` again and compares.
    ///
    /// # Errors
    /// If it is by another model, or the model cannot be run.
    pub fn compare(&self, answer: &Answer) -> Result<Comparison, OnnxError> {
        let expected = answer.order.model;
        if self.id != expected {
            return Err(OnnxError::WrongModel { found: self.id, expected });
        }
        let job = Job::new(answer.hash(), &answer.order, &answer.terms, &self.eos, self.context);
        let text = &answer.output[..job.ending.text_len(&answer.output, answer.receipt.finish)];
        let spelled = self.tokenizer.decode(text);
        if let Err(fault) = check_without_model(answer, &job.ending, Some(&spelled)) {
            return Ok(Comparison::False(fault));
        }
        if let Err(reason) = answerable(self, &job) {
            return Ok(Comparison::False(Fault::Unanswerable { reason }));
        }
        // Cancelled before there was a vector: the empty answer's state was looked at.
        let Some(&claimed) = answer.output.first() else { return Ok(Comparison::Same) };
        let token = self.vector_token();
        if claimed != token {
            return Ok(Comparison::False(Fault::Token { index: 0, claimed, recomputed: token }));
        }
        let vector = self.embed(&job.prompt)?;
        let states = Answer::states_of(answer.hash(), [(token, vector_hash(&vector))]);
        if states.last() == Some(&answer.receipt.state) {
            return Ok(Comparison::Same);
        }
        let cosine = answer.vector.as_ref().and_then(|claimed| cosine(claimed, &vector));
        Ok(Comparison::Other { cosine })
    }
}

/// What makes the order, or an answer of this length to it, one that no provider may sign.
fn answerable(model: &OnnxModel, job: &Job) -> Result<(), String> {
    let vocabulary = model.vocabulary();
    job.sampler.check(vocabulary as usize).map_err(|error| error.to_string())?;
    if job.ending.tokens_max != 1 {
        let asked = job.ending.tokens_max;
        return Err(format!("{asked} tokens are asked for of a model that gives one vector"));
    }
    match job.prompt.iter().find(|&&token| token >= vocabulary) {
        Some(token) => Err(format!("prompt token {token} is not in a vocabulary of {vocabulary}")),
        None => Ok(()),
    }
}
