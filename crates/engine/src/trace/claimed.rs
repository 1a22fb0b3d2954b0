//! What is claimed: an order, its answer and the model's sizes, checked and in the words of the rules.

use assay_evidence::op::{self, Choice, Claim, Penalties};
use assay_protocol::{Answer, B256, ModelId, Sampler, StepLeaf};

use super::error::TraceError;
use crate::commit;
use crate::package::Loaded;

/// The owned parts of an [`op::Claim`].
#[derive(Debug)]
pub(super) struct Claimed {
    model: op::Model,
    program: Vec<op::Step>,
    order: B256,
    draw_key: B256,
    choice: Choice,
    prompt: Vec<u32>,
    output: Vec<u32>,
}

impl Claimed {
    /// What `answer` claims of the model that its order names, which `loaded` stands for.
    pub(super) fn new(
        loaded: &Loaded,
        model: ModelId,
        answer: &Answer,
    ) -> Result<Self, TraceError> {
        let Answer { order, terms, output, .. } = answer;
        if order.model != model {
            return Err(TraceError::WrongModel { found: model, expected: order.model });
        }
        order.check_terms(terms)?;
        if terms.grammar.is_some() {
            return Err(TraceError::Grammar);
        }
        let program = program(loaded)?;
        check_tokens(loaded, &terms.prompt, output)?;
        let sampler = &terms.sampler;
        let without_seed = Sampler { seed: B256::ZERO, ..sampler.clone() };
        Ok(Self {
            model: sizes(loaded),
            program,
            order: answer.hash().0,
            draw_key: op::draw_key(sampler.seed, order.model.0, order.prompt, without_seed.hash()),
            choice: Choice {
                inv_t_q16: sampler.inv_t_q16,
                top_k: sampler.top_k,
                top_p_q16: sampler.top_p_q16,
                min_p_q16: sampler.min_p_q16,
                penalties: Penalties {
                    rep_q16: sampler.rep_q16,
                    freq_q16: sampler.freq_q16,
                    pres_q16: sampler.pres_q16,
                },
                bias: terms.bias.clone(),
            },
            prompt: terms.prompt.clone(),
            output: output.clone(),
        })
    }

    /// The claim.
    pub(super) fn claim(&self) -> Claim<'_> {
        Claim {
            model: self.model,
            program: &self.program,
            order: self.order,
            draw_key: self.draw_key,
            choice: &self.choice,
            prompt: &self.prompt,
            output: &self.output,
        }
    }

    /// The tokens that go in, position by position, up to the first that no model has: what it
    /// would give is not defined.
    pub(super) fn inputs(&self) -> Vec<u32> {
        let fed = self.output.len() - 1;
        let inputs = self.prompt.iter().chain(&self.output[..fed]).copied();
        inputs.take_while(|token| *token < self.model.vocab).collect()
    }
}

/// The model's program, if it and all that it rests on are those of the manifest. Heads, sizes and
/// fraction bits that rules refuse have been refused when the model was made.
fn program(loaded: &Loaded) -> Result<Vec<op::Step>, TraceError> {
    let Loaded { manifest, model, id, .. } = loaded;
    let parts = [
        ("shape", manifest.shape == commit::shape_words(model.shape())),
        ("arithmetic", manifest.arithmetic == commit::arithmetic(model)),
        ("tensor table", manifest.tensors == commit::table(model)),
        ("program", manifest.parts.program == commit::program_root(model)),
    ];
    if let Some((what, _)) = parts.into_iter().find(|(_, holds)| !holds) {
        return Err(TraceError::Manifest { what, id: *id });
    }
    let read = |step: &StepLeaf| op::Step::read(&step.data());
    Ok(commit::steps(model).iter().map(read).collect::<Result<_, _>>()?)
}

fn check_tokens(loaded: &Loaded, prompt: &[u32], output: &[u32]) -> Result<(), TraceError> {
    let (context, vocab) = (loaded.context(), loaded.manifest.shape.vocab);
    let found = prompt.len() + output.len();
    if output.is_empty() {
        return Err(TraceError::Empty);
    }
    if found > context as usize {
        return Err(TraceError::Context { found, context });
    }
    match prompt.iter().find(|token| **token >= vocab) {
        Some(&found) => Err(TraceError::Token { found, vocab }),
        None => Ok(()),
    }
}

/// The sizes that rules depend on.
fn sizes(loaded: &Loaded) -> op::Model {
    let assay_protocol::Shape { width, heads, kvHeads, headDim, vocab, .. } = loaded.manifest.shape;
    let arithmetic = &loaded.manifest.arithmetic;
    op::Model {
        width,
        heads,
        kv_heads: kvHeads,
        head_dim: headDim,
        vocab,
        attention_q30: arithmetic.attentionQ30,
        norm_eps: arithmetic.normEps,
        halves: arithmetic.ropePairing == 0,
    }
}
