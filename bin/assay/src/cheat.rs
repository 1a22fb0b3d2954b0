//! A provider that lies, for whoever wants to watch one lose its stake.
//!
//! Each way to cheat saves a real cheater work, or sells another answer than was ordered. All of them sign
//! receipts that look right: prices, ends and signatures hold, so only computing the answer again shows it.

use std::sync::Arc;

use assay_engine::{Backend, Busy, Delta, Deltas, Job, Loaded, Native, NativeConfig};
use assay_kernels::{Cpu, Weights, WeightsError};
use assay_models::{LayerRole, Model, Role, Tensors};
use assay_protocol::{Assurance, Draws, keccak256};
use clap::ValueEnum;

use crate::failure::{Exit, Failure, Outcome};

/// How a provider cheats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cheat {
    /// One of the model's weights is another, by one
    Weights,
    /// All weights have four bits instead of eight
    Quantised,
    /// The last layer is left out
    Layer,
    /// Tokens are drawn with another seed; shows with a temperature above zero
    Seed,
    /// The first half of the prompt is not read
    Context,
    /// The first token of the answer is replaced by another
    Text,
    /// As `text`, and a dispute is not answered at all
    Silent,
}

/// A weight of zero among quantised numbers, which are 1 ..= 255 where they are packed.
const ZERO: u8 = 128;
/// The exponent of a row of zeros.
const EXPONENT_OF_ZERO: i8 = 31;

/// A cheater's engine.
pub(crate) struct Liar {
    how: Cheat,
    engine: Native,
    /// What it computes with, under the id of what was ordered.
    pub(crate) computes: Arc<Loaded>,
}

impl Liar {
    /// Starts an engine that cheats in answers of `honest`.
    pub(crate) fn start(
        how: Cheat,
        honest: &Arc<Loaded>,
        cpu: Arc<Cpu>,
        config: NativeConfig,
    ) -> Outcome<Self> {
        if honest.vector_width().is_some() {
            return Err(Failure::new(Exit::Usage, "cheats are known of models that write only")
                .why(format_args!("{} makes vectors of texts", honest.name)));
        }
        let computes = how.model(honest).map_err(|error| {
            Failure::new(Exit::Malformed, "this model cannot be altered").why(error)
        })?;
        let engine = Native::start(Arc::clone(&computes), cpu, config);
        Ok(Self { how, engine, computes })
    }
}

impl Backend for Liar {
    fn assurance(&self) -> Assurance {
        self.engine.assurance()
    }

    fn run(&self, mut job: Job) -> Result<Deltas, Busy> {
        match self.how {
            Cheat::Weights | Cheat::Quantised | Cheat::Layer => self.engine.run(job),
            Cheat::Seed => {
                job.draws = Draws::with_key(keccak256("a seed that nobody ordered"));
                self.engine.run(job)
            }
            Cheat::Context => {
                job.prompt = job.prompt[job.prompt.len() / 2..].into();
                self.engine.run(job)
            }
            Cheat::Text | Cheat::Silent => {
                let (vocabulary, ending) = (self.computes.manifest.shape.vocab, job.ending.clone());
                let (sender, altered) = Deltas::channel(ending.tokens_max);
                let mut honest = self.engine.run(job)?;
                tokio::spawn(async move {
                    let mut first = true;
                    while let Some(mut delta) = honest.next().await {
                        if let (true, Delta::Token { token, logprobs, .. }) = (first, &mut delta) {
                            // A token that would end the answer stays, or its end would show the lie.
                            let ends = |token: u32| ending.at(&[token]).is_some();
                            let other = (*token + 1) % vocabulary;
                            if !ends(*token) && !ends(other) {
                                *token = other;
                                logprobs.iter_mut().for_each(|said| said.token = other);
                            }
                        }
                        first = false;
                        if !sender.send(delta) {
                            return;
                        }
                    }
                });
                Ok(altered)
            }
        }
    }
}

impl Cheat {
    /// Whether who cheats so says anything in disputes.
    pub(crate) fn defends(self) -> bool {
        self != Self::Silent
    }

    /// The model that it computes with.
    fn model(self, honest: &Arc<Loaded>) -> Result<Arc<Loaded>, String> {
        let layers = honest.model.shape().layers;
        match self {
            Self::Weights => altered(honest, |role, quants| {
                if role == Role::Layer(layers / 2, LayerRole::Gate) {
                    quants[0] = if quants[0] == 255 { 254 } else { quants[0] + 1 };
                }
            }),
            Self::Quantised => altered(honest, |_, quants| {
                for quant in quants {
                    let rounded = ((i32::from(*quant) - 128 + 8) >> 4 << 4).clamp(-127, 127);
                    *quant = (rounded + 128) as u8;
                }
            }),
            Self::Layer => altered(honest, |role, quants| {
                let writes = [LayerRole::AttentionOutput, LayerRole::Down];
                if writes.map(|write| Role::Layer(layers - 1, write)).contains(&role) {
                    quants.fill(ZERO);
                }
            }),
            Self::Seed | Self::Context | Self::Text | Self::Silent => Ok(Arc::clone(honest)),
        }
    }
}

/// A model under the id of another: its matrices as `alter` leaves them.
fn altered(honest: &Loaded, alter: impl Fn(Role, &mut [u8])) -> Result<Arc<Loaded>, String> {
    let model = &honest.model;
    let matrix = |role| {
        let weights = model.weights(role).expect("a model has what its shape lists");
        let mut quants = weights.quants().to_vec();
        alter(role, &mut quants);
        let (mut exponents, mut scales) = (weights.exponents().to_vec(), weights.scales().to_vec());
        if quants.iter().all(|quant| *quant == ZERO) {
            // A row of zeros has one form, whatever it was before.
            exponents[..weights.rows()].fill(EXPONENT_OF_ZERO);
            scales.fill(1);
        }
        let (format, rows, columns) = (weights.format(), weights.rows(), weights.columns());
        Weights::from_parts(format, rows, columns, &exponents, &quants, &scales)
    };
    let gain = |role| Ok(model.vector(role).expect("a model has what its shape lists").to_vec());
    let shape = model.shape();
    let tensors = Tensors::gather::<WeightsError>(shape, model.rope().clone(), matrix, gain);
    let tensors = tensors.map_err(|error| error.to_string())?;
    let model = Model::new(shape.clone(), model.precision().clone(), tensors)
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(Loaded {
        id: honest.id,
        name: honest.name.clone(),
        manifest: honest.manifest.clone(),
        model,
        tokenizer: honest.tokenizer.clone(),
        chat: honest.chat.clone(),
    }))
}
