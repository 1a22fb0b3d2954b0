//! Chooses the fraction bits of every fixed-point intermediate.
//!
//! The model runs in exact-1 itself, with the widest headroom, over a fixed text; the largest
//! absolute value seen at each site decides. All of it is integer arithmetic, so every machine
//! chooses the same bits, and the model id with them.

use assay_kernels::Cpu;
use assay_models::{
    Biases, Cache, ForwardError, Graph, Model, Norms, Op, OpKind, Precision, Row, Scratch, Shape,
    Sites, Tap, Values,
};

/// Fraction bits of activations while calibrating: room for values up to 16,000.
const WIDE: u8 = 8;
/// Fraction bits of the residual stream while calibrating: room for values up to 500,000.
const WIDE_RESIDUAL: u8 = 12;
/// Most fraction bits that a site may get.
const FRACTION_MAX: u8 = 16;
/// How many times larger than anything seen a value may become before it saturates.
const HEADROOM: u128 = 8;
/// Largest magnitude that int8 activations hold: quant times scale.
const QUANTISED_MAX: u128 = 127 * 32767;
/// Largest magnitude of the residual stream.
const FIXED_MAX: u128 = 1 << 31;
/// Rows of one batch while calibrating.
const CHUNK: usize = 128;

/// The precision to calibrate with.
pub(super) fn wide(shape: &Shape) -> Precision {
    let sites = Sites {
        attention_norm: WIDE,
        query: WIDE,
        value: WIDE,
        attention: WIDE,
        hidden_norm: WIDE,
        hidden: WIDE,
    };
    Precision { residual: WIDE_RESIDUAL, layers: vec![sites; shape.layers], output_norm: WIDE }
}

/// The precision for a model, from a run of `model`, which has the precision [`wide`], over
/// `tokens`.
pub(super) fn calibrate(
    model: &Model,
    tokens: &[u32],
    cpu: &Cpu,
    progress: &mut dyn FnMut(u64),
) -> Result<Precision, ForwardError> {
    let mut peaks = Peaks::new(model.shape());
    run(model, tokens, cpu, &mut peaks, progress)?;
    Ok(peaks.precision())
}

/// Runs `model` over `tokens` while `tap` looks on.
pub(super) fn run<T: Tap>(
    model: &Model,
    tokens: &[u32],
    cpu: &Cpu,
    tap: &mut T,
    progress: &mut dyn FnMut(u64),
) -> Result<(), ForwardError> {
    if !model.shape().graph().causal {
        model.embed(cpu, tokens, &mut Scratch::default(), tap)?;
        progress(tokens.len() as u64);
        return Ok(());
    }
    let mut cache = Cache::new(model.shape());
    let mut scratch = Scratch::default();
    for chunk in tokens.chunks(CHUNK) {
        let rows: Vec<Row> =
            chunk.iter().map(|&token| Row { token, sequence: 0, wanted: true }).collect();
        model.forward(cpu, &rows, &mut [&mut cache], &mut scratch, tap)?;
        progress(cache.len() as u64);
    }
    Ok(())
}

/// Largest absolute value seen at each site, as fixed point of the wide precision.
struct Peaks {
    graph: &'static Graph,
    residual: u32,
    layers: Vec<LayerPeaks>,
    output_norm: u32,
}

#[derive(Clone, Copy, Default)]
struct LayerPeaks {
    attention_norm: u32,
    query: u32,
    value: u32,
    attention: u32,
    hidden_norm: u32,
    hidden: u32,
}

impl Peaks {
    fn new(shape: &Shape) -> Self {
        let layers = vec![LayerPeaks::default(); shape.layers];
        Self { graph: shape.graph(), residual: 0, layers, output_norm: 0 }
    }

    fn precision(&self) -> Precision {
        let layers = self.layers.iter().map(|peaks| Sites {
            attention_norm: fraction(peaks.attention_norm, WIDE, QUANTISED_MAX),
            query: fraction(peaks.query, WIDE, QUANTISED_MAX),
            value: fraction(peaks.value, WIDE, QUANTISED_MAX),
            attention: fraction(peaks.attention, WIDE, QUANTISED_MAX),
            hidden_norm: fraction(peaks.hidden_norm, WIDE, QUANTISED_MAX),
            hidden: fraction(peaks.hidden, WIDE, QUANTISED_MAX),
        });
        // Where no norm stands before a matrix, the residual stream itself is quantised.
        let quantised = self.graph.norms == Norms::After;
        let residual_max = if quantised { QUANTISED_MAX } else { FIXED_MAX };
        Precision {
            residual: fraction(self.residual, WIDE_RESIDUAL, residual_max),
            layers: layers.collect(),
            output_norm: fraction(self.output_norm, WIDE, QUANTISED_MAX),
        }
    }

    fn site(&mut self, op: Op) -> Option<&mut u32> {
        let Some(layer) = op.layer else {
            return match op.kind {
                OpKind::Embed | OpKind::AddPosition | OpKind::AddTokenType | OpKind::EmbedNorm => {
                    Some(&mut self.residual)
                }
                OpKind::NormFinal => Some(&mut self.output_norm),
                _ => None,
            };
        };
        let peaks = &mut self.layers[usize::from(layer)];
        match op.kind {
            OpKind::Residual1
            | OpKind::Residual2
            | OpKind::AttentionOutput
            | OpKind::AttentionOutputBias
            | OpKind::Down
            | OpKind::DownBias
            | OpKind::PostNorm1
            | OpKind::PostNorm2
                if self.graph.norms != Norms::Before || self.graph.biases == Biases::All =>
            {
                Some(&mut self.residual)
            }
            OpKind::Residual1 | OpKind::Residual2 => Some(&mut self.residual),
            // What one expert finds may be larger than what several make of it together.
            OpKind::Down if self.graph.routed => Some(&mut self.residual),
            OpKind::Norm1 => Some(&mut peaks.attention_norm),
            // Before a norm of their own, queries and keys have fraction bits of their own.
            OpKind::Query | OpKind::Key if self.graph.head_norms => None,
            OpKind::Query
            | OpKind::QueryBias
            | OpKind::QueryNorm
            | OpKind::RopeQuery
            | OpKind::Key
            | OpKind::KeyBias
            | OpKind::KeyNorm
            | OpKind::RopeKey => Some(&mut peaks.query),
            OpKind::Value | OpKind::ValueBias => Some(&mut peaks.value),
            OpKind::Attend => Some(&mut peaks.attention),
            OpKind::Norm2 => Some(&mut peaks.hidden_norm),
            OpKind::Activation => Some(&mut peaks.hidden),
            _ => None,
        }
    }
}

impl Tap for Peaks {
    fn saw(&mut self, op: Op, _row: usize, output: Values<'_>) {
        let Values::Fixed(values) = output else { return };
        let Some(peak) = self.site(op) else { return };
        let seen = values.iter().map(|value| value.unsigned_abs()).max().unwrap_or(0);
        *peak = seen.max(*peak);
    }
}

/// Most fraction bits f ≤ 16 at which `max` · 2^−f is [`HEADROOM`] times the peak, itself given
/// with `wide` fraction bits.
fn fraction(peak: u32, wide: u8, max: u128) -> u8 {
    let fits = |f: u8| (max << wide) >= (HEADROOM * u128::from(peak)) << f;
    (0..=FRACTION_MAX).rev().find(|&f| fits(f)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_leave_the_stated_headroom() {
        let of = |value: u32| fraction(value << WIDE, WIDE, QUANTISED_MAX);
        assert_eq!(of(0), 16);
        assert_eq!(of(1), 16);
        assert_eq!(of(7), 16);
        assert_eq!(of(8), 15);
        assert_eq!(of(100), 12);
        assert_eq!(of(500_000), 0);
        assert_eq!(fraction(4095 << WIDE_RESIDUAL, WIDE_RESIDUAL, FIXED_MAX), 16);
        assert_eq!(fraction(4097 << WIDE_RESIDUAL, WIDE_RESIDUAL, FIXED_MAX), 15);
    }
}
