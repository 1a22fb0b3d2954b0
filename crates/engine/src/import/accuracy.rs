//! How far exact-1 is from the float model it was converted from.

use assay_kernels::Cpu;
use assay_models::{Cache, FRAC_LOGITS, FloatModel, ForwardError, Model, Row, Scratch};

/// How far the converted model is from its source, over a sample of positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accuracy {
    /// Mean Kullback–Leibler divergence of the next-token distribution, source to converted, in
    /// nats.
    pub kl: f64,
    /// Share of positions at which both name the same best token.
    pub greedy_agreement: f64,
    /// Positions compared.
    pub positions: usize,
}

/// Compares the converted model with its source at every position of `tokens`.
pub(super) fn compare(
    float: &FloatModel,
    model: &Model,
    tokens: &[u32],
    cpu: &Cpu,
    progress: &mut dyn FnMut(u64),
) -> Result<Accuracy, ForwardError> {
    let vocab = model.shape().vocab;
    let expected = float.logits(tokens);
    let mut cache = Cache::new(model.shape());
    let mut scratch = Scratch::default();
    let (mut kl, mut agree) = (0.0, 0usize);
    for (position, (&token, expected)) in tokens.iter().zip(expected.chunks(vocab)).enumerate() {
        let row = Row { token, sequence: 0, wanted: true };
        let found = model.forward(cpu, &[row], &mut [&mut cache], &mut scratch, &mut ())?.logits;
        kl += divergence(expected, &found);
        agree += usize::from(best(expected) == best(&found));
        progress(position as u64 + 1);
    }
    let positions = tokens.len();
    let share = |sum: f64| if positions == 0 { 0.0 } else { sum / positions as f64 };
    Ok(Accuracy { kl: share(kl), greedy_agreement: share(agree as f64), positions })
}

/// How near the vectors of the converted model are to its source's, over a sample of texts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nearness {
    /// Cosine of the angle between the two vectors of the text where it is widest.
    pub cosine_min: f64,
    /// Texts compared.
    pub texts: usize,
}

/// Tokens of a text whose vectors are compared.
const TEXT_TOKENS: usize = 32;

/// Compares the vectors of the converted model with its source's, of texts cut out of `tokens`.
pub(super) fn compare_vectors(
    float: &FloatModel,
    model: &Model,
    tokens: &[u32],
    cpu: &Cpu,
    progress: &mut dyn FnMut(u64),
) -> Result<Nearness, ForwardError> {
    let (mut cosine_min, mut texts) = (1.0f64, 0);
    let mut scratch = Scratch::default();
    for text in tokens.chunks(TEXT_TOKENS) {
        let found = model.embed(cpu, text, &mut scratch, &mut ())?;
        let found: Vec<f64> = found.into_iter().map(f64::from).collect();
        let expected: Vec<f64> = float.embedding(text).into_iter().map(f64::from).collect();
        let cosine =
            dot(&found, &expected) / (dot(&found, &found) * dot(&expected, &expected)).sqrt();
        cosine_min = cosine_min.min(cosine);
        texts += 1;
        progress((texts * TEXT_TOKENS).min(tokens.len()) as u64);
    }
    Ok(Nearness { cosine_min, texts })
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn divergence(expected: &[f32], found: &[i32]) -> f64 {
    let expected = log_softmax(expected.iter().map(|&logit| f64::from(logit)));
    let unit = f64::from(1u32 << FRAC_LOGITS);
    let found = log_softmax(found.iter().map(|&logit| f64::from(logit) / unit));
    expected.iter().zip(&found).map(|(p, q)| p.exp() * (p - q)).sum()
}

fn log_softmax(logits: impl Iterator<Item = f64> + Clone) -> Vec<f64> {
    let max = logits.clone().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.clone().map(|logit| (logit - max).exp()).sum();
    let log_sum = max + sum.ln();
    logits.map(|logit| logit - log_sum).collect()
}

/// Index of the largest value, the first of equals.
fn best<T: PartialOrd + Copy>(values: &[T]) -> usize {
    (1..values.len()).fold(0, |best, index| if values[index] > values[best] { index } else { best })
}
