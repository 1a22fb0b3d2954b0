//! The steps of a model as data.
//!
//! A manifest commits to this list, and a judge who doubts one number reads from it what the
//! number had to be computed from. The forward pass does the same steps in the same order; a test
//! holds both together.

use assay_kernels::GROUP;
use assay_kernels::reference::SHARE_FRAC;

use crate::family::{Graph, Norms};
use crate::shape::{
    Experts, FRAC_GATE, FRAC_LOGITS, FRAC_ROUTER, LayerRole, Precision, Role, Shape,
};
use crate::tap::{Op, OpKind};

/// Fraction bits of scores, in powers of two.
const FRAC_SCORE: u8 = 16;
/// Fraction bits of attention weights.
const FRAC_WEIGHT: u8 = 22;
/// Positions in a block of attention.
const BLOCK: usize = 64;

/// One step at one position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is computed, and in which layer.
    pub op: Op,
    /// Earlier steps whose outputs are read, as indices into the program. The scores and what
    /// follows them read the quantised keys and values of every position up to this one.
    pub inputs: Vec<usize>,
    /// The tensor that is read, if any. Turning queries and keys reads the rope tables, which are
    /// no tensor of the source.
    pub tensor: Option<Role>,
    /// Numbers in the output, without padding; of [`OpKind::Score`] per attended position, of
    /// [`OpKind::BlockShift`] per block of 64 positions.
    pub outputs: usize,
    /// Numbers that each output is computed along: columns of a product, elements of a
    /// statistic, of a group or of a pair, 1 where elements meet one to one. 0 stands for the
    /// attended positions, of which there are at most so many in layers with a window.
    pub terms: usize,
    /// Fraction bits of the first input.
    pub frac_in: u8,
    /// Fraction bits of the output; 0 for counts, shifts and token ids.
    pub frac_out: u8,
}

/// The steps of one position, in order of execution.
///
/// # Panics
/// If `precision` does not have one entry per layer of `shape`.
pub fn program(shape: &Shape, precision: &Precision) -> Vec<Step> {
    assert_eq!(precision.layers.len(), shape.layers, "precision and shape differ in layers");
    let graph = shape.graph();
    let mut writer = Writer { shape, graph, precision, layer: None, steps: Vec::new() };
    let mut residual = writer.embed();
    for layer in 0..shape.layers {
        writer.layer = Some(layer);
        residual = writer.attention(residual, layer);
        residual = writer.feed_forward(residual, layer);
    }
    writer.layer = None;
    if graph.causal {
        writer.choice(residual);
    }
    writer.steps
}

/// A program being written.
struct Writer<'a> {
    shape: &'a Shape,
    graph: &'static Graph,
    precision: &'a Precision,
    /// The layer that is written.
    layer: Option<usize>,
    steps: Vec<Step>,
}

impl Writer<'_> {
    /// Appends a step and returns its index.
    fn step(
        &mut self,
        kind: OpKind,
        inputs: &[usize],
        [outputs, terms]: [usize; 2],
        [frac_in, frac_out]: [u8; 2],
    ) -> usize {
        self.steps.push(Step {
            op: Op { layer: self.layer.map(|layer| layer as u16), kind },
            inputs: inputs.to_vec(),
            tensor: None,
            outputs,
            terms,
            frac_in,
            frac_out,
        });
        self.steps.len() - 1
    }

    /// A step that reads a tensor: its extent and fraction bits are the tensor's.
    fn tensor_step(&mut self, kind: OpKind, inputs: &[usize], role: Role) -> usize {
        let (rows, columns) = self.shape.extent(role);
        let (frac_in, frac_out) = self.shape.fractions(self.precision, role);
        let size = if role.is_vector() { [columns, 1] } else { [rows, columns] };
        let step = self.step(kind, inputs, size, [frac_in, frac_out]);
        self.steps[step].tensor = Some(role);
        step
    }

    /// Quantises the output of a step.
    fn quantise(&mut self, kind: OpKind, input: usize) -> usize {
        let Step { outputs, frac_out, .. } = self.steps[input];
        self.step(kind, &[input], [outputs, GROUP], [frac_out, frac_out])
    }

    /// A product, and the step that adds its bias if it has one.
    fn product(&mut self, kind: OpKind, input: usize, role: LayerRole) -> usize {
        let layer = self.layer.unwrap_or_default();
        let product = self.tensor_step(kind, &[input], Role::Layer(layer, role));
        match role.bias().filter(|bias| self.graph.has(*bias)) {
            Some(bias) => self.tensor_step(kind.biased(), &[product], Role::Layer(layer, bias)),
            None => product,
        }
    }

    /// Statistics and norm of rows of so many numbers.
    fn norm(&mut self, kinds: [OpKind; 2], input: usize, gain: Role) -> usize {
        let [stat, norm] = kinds;
        let Step { outputs, frac_out, .. } = self.steps[input];
        let terms = self.shape.extent(gain).1;
        // Largest magnitude, sum of squares, reciprocal root; of a LayerNorm about the mean.
        let stat = self.step(stat, &[input], [3 * (outputs / terms), terms], [frac_out, 0]);
        let step = self.tensor_step(norm, &[input, stat], gain);
        self.steps[step].outputs = outputs;
        // The bias of a LayerNorm is a second step of its kind.
        match gain.bias().filter(|_| self.graph.centred) {
            Some(bias) => self.tensor_step(norm, &[step], bias),
            None => step,
        }
    }

    /// Norm and its quantised form, or the quantised residual stream where no norm stands before.
    fn input(&mut self, kinds: [OpKind; 3], residual: usize, gain: Role) -> usize {
        let [stat, norm, quantised] = kinds;
        if self.graph.norms == Norms::After {
            return self.quantise(quantised, residual);
        }
        let normed = self.norm([stat, norm], residual, gain);
        self.quantise(quantised, normed)
    }

    fn embed(&mut self) -> usize {
        let frac = self.precision.residual;
        let mut step = self.look_up(OpKind::Embed, &[], Role::Embedding);
        if self.graph.pairing.is_none() {
            step = self.look_up(OpKind::AddPosition, &[step], Role::Positions);
        }
        if !self.graph.causal {
            step = self.look_up(OpKind::AddTokenType, &[step], Role::TokenType);
            step = self.norm([OpKind::EmbedNormStat, OpKind::EmbedNorm], step, Role::EmbeddingNorm);
        }
        debug_assert_eq!(self.steps[step].frac_out, frac);
        step
    }

    /// A row of a table, added to what was there.
    fn look_up(&mut self, kind: OpKind, inputs: &[usize], role: Role) -> usize {
        let frac = self.precision.residual;
        let frac_in = if inputs.is_empty() { 0 } else { frac };
        let step = self.step(kind, inputs, [self.shape.width, 1], [frac_in, frac]);
        self.steps[step].tensor = Some(role);
        step
    }

    /// What a half layer adds to the residual stream, and the norm that stands behind it.
    fn add(&mut self, kinds: [OpKind; 3], inputs: [usize; 2], gain: Role) -> usize {
        let [sum, stat, norm] = kinds;
        let [residual, found] = inputs;
        match self.graph.norms {
            Norms::Before => self.residual(sum, inputs),
            Norms::Around => {
                let normed = self.norm([stat, norm], found, gain);
                self.residual(sum, [residual, normed])
            }
            Norms::After => {
                let added = self.residual(sum, inputs);
                self.norm([stat, norm], added, gain)
            }
        }
    }

    fn residual(&mut self, kind: OpKind, inputs: [usize; 2]) -> usize {
        let frac = self.precision.residual;
        self.step(kind, &inputs, [self.shape.width, 1], [frac, frac])
    }

    fn attention(&mut self, residual: usize, layer: usize) -> usize {
        let of = |role| Role::Layer(layer, role);
        let norm_kinds = [OpKind::NormStat1, OpKind::Norm1, OpKind::Quantise1];
        let normed = self.input(norm_kinds, residual, of(LayerRole::AttentionNorm));
        let mut query = self.product(OpKind::Query, normed, LayerRole::Query);
        let mut key = self.product(OpKind::Key, normed, LayerRole::Key);
        let value = self.product(OpKind::Value, normed, LayerRole::Value);
        if self.graph.head_norms {
            let kinds = [OpKind::QueryNormStat, OpKind::QueryNorm];
            query = self.norm(kinds, query, of(LayerRole::QueryNorm));
            let kinds = [OpKind::KeyNormStat, OpKind::KeyNorm];
            key = self.norm(kinds, key, of(LayerRole::KeyNorm));
        }
        let query = self.turn(OpKind::RopeQuery, query);
        let query = self.quantise(OpKind::QuantiseQuery, query);
        let key = self.turn(OpKind::RopeKey, key);
        let key = self.quantise(OpKind::QuantiseKey, key);
        let value = self.quantise(OpKind::QuantiseValue, value);
        let mean = self.mean(query, key, value, layer);
        let mean = self.quantise(OpKind::QuantiseAttention, mean);
        let projected = self.product(OpKind::AttentionOutput, mean, LayerRole::AttentionOutput);
        let kinds = [OpKind::Residual1, OpKind::PostNormStat1, OpKind::PostNorm1];
        self.add(kinds, [residual, projected], of(LayerRole::PostAttentionNorm))
    }

    fn turn(&mut self, kind: OpKind, input: usize) -> usize {
        if self.graph.pairing.is_none() {
            return input;
        }
        let Step { outputs, frac_out, .. } = self.steps[input];
        self.step(kind, &[input], [outputs, 2], [frac_out, frac_out])
    }

    /// The weighted mean of the values, from scores by softmax.
    fn mean(&mut self, query: usize, key: usize, value: usize, layer: usize) -> usize {
        let Shape { heads, head_dim, .. } = *self.shape;
        let sites = self.precision.layers[layer];
        let scores = [sites.query, FRAC_SCORE];
        let score = self.step(OpKind::Score, &[query, key], [heads, head_dim], scores);
        // Largest score and sum of weights.
        let sums = [FRAC_SCORE, FRAC_WEIGHT];
        let covering = self.shape.window.filter(|window| window.covers(layer));
        let seen = covering.map_or(0, |window| window.size);
        let max = self.step(OpKind::ScoreMax, &[score], [2 * heads, seen], sums);
        let groups = heads * (head_dim / GROUP);
        let shifts = [FRAC_WEIGHT, 0];
        let shift = self.step(OpKind::BlockShift, &[score, max, value], [groups, BLOCK], shifts);
        let means = [sites.value, sites.attention];
        self.step(OpKind::Attend, &[value, score, max, shift], [heads * head_dim, seen], means)
    }

    fn feed_forward(&mut self, residual: usize, layer: usize) -> usize {
        let of = |role| Role::Layer(layer, role);
        let norm_kinds = [OpKind::NormStat2, OpKind::Norm2, OpKind::Quantise2];
        let normed = self.input(norm_kinds, residual, of(LayerRole::HiddenNorm));
        let found = match self.shape.experts {
            Some(experts) => self.experts(normed, layer, experts),
            None => self.hidden(normed, layer),
        };
        let kinds = [OpKind::Residual2, OpKind::PostNormStat2, OpKind::PostNorm2];
        self.add(kinds, [residual, found], of(LayerRole::PostHiddenNorm))
    }

    fn hidden(&mut self, normed: usize, layer: usize) -> usize {
        let mut factors = Vec::new();
        if self.graph.gated {
            factors.push(self.product(OpKind::Gate, normed, LayerRole::Gate));
        }
        factors.push(self.product(OpKind::Up, normed, LayerRole::Up));
        let product = [FRAC_GATE, self.precision.layers[layer].hidden];
        let hidden = [self.shape.hidden, 1];
        let activation = self.step(OpKind::Activation, &factors, hidden, product);
        let quantised = self.quantise(OpKind::QuantiseHidden, activation);
        self.product(OpKind::Down, quantised, LayerRole::Down)
    }

    /// The steps of [`Self::hidden`] for all chosen experts at once, and their mix.
    fn experts(&mut self, normed: usize, layer: usize, experts: Experts) -> usize {
        let Experts { count, chosen } = experts;
        let Shape { width, hidden, .. } = *self.shape;
        let logits = self.product(OpKind::Route, normed, LayerRole::Router);
        let shares = [FRAC_ROUTER, SHARE_FRAC];
        let choice = self.step(OpKind::Choose, &[logits], [2 * chosen, count], shares);
        let gate =
            self.met(OpKind::Gate, [normed, choice], LayerRole::ExpertGates, chosen * hidden);
        let up = self.met(OpKind::Up, [normed, choice], LayerRole::ExpertUps, chosen * hidden);
        let product = [FRAC_GATE, self.precision.layers[layer].hidden];
        let all = [chosen * hidden, 1];
        let activation = self.step(OpKind::Activation, &[gate, up], all, product);
        let quantised = self.quantise(OpKind::QuantiseHidden, activation);
        let inputs = [quantised, choice];
        let down = self.met(OpKind::Down, inputs, LayerRole::ExpertDowns, chosen * width);
        let frac = self.precision.residual;
        self.step(OpKind::Mix, &[down, choice], [width, chosen], [frac, frac])
    }

    /// A product with the matrices of the chosen experts, one after the other.
    fn met(&mut self, kind: OpKind, inputs: [usize; 2], role: LayerRole, outputs: usize) -> usize {
        let layer = self.layer.unwrap_or_default();
        let step = self.tensor_step(kind, &inputs, Role::Layer(layer, role));
        self.steps[step].outputs = outputs;
        step
    }

    fn choice(&mut self, residual: usize) {
        let norm_kinds = [OpKind::NormStatFinal, OpKind::NormFinal, OpKind::QuantiseFinal];
        let normed = self.input(norm_kinds, residual, Role::OutputNorm);
        let output = if self.shape.tied { Role::Embedding } else { Role::Output };
        let logits = self.tensor_step(OpKind::Logits, &[normed], output);
        let vocab = self.shape.vocab;
        // Largest heat, count and sum of weights of what the filters leave.
        let sums = [FRAC_LOGITS, 0];
        let sample = self.step(OpKind::Sample, &[logits], [3, vocab], sums);
        self.step(OpKind::Token, &[logits, sample], [1, vocab], [FRAC_LOGITS, 0]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    /// Kind, inputs, tensor, outputs × terms, fractions in → out.
    fn text(index: usize, step: &Step) -> String {
        let inputs: Vec<String> = step.inputs.iter().map(usize::to_string).collect();
        let tensor = step.tensor.map_or_else(|| "-".to_owned(), |role| role.to_string());
        let Step { op, outputs, terms, frac_in, frac_out, .. } = step;
        let inputs = inputs.join(",");
        format!("{index} {op} [{inputs}] {tensor} {outputs}x{terms} {frac_in}>{frac_out}")
    }

    #[test]
    fn a_small_model_is_these_steps() {
        let (shape, mut precision) = (testing::shape(), testing::precision());
        precision.layers[0].query = 11;
        let steps = program(&shape, &precision);
        let lines: Vec<String> =
            steps.iter().enumerate().map(|(index, step)| text(index, step)).collect();
        assert_eq!(steps.len(), 1 + 27 * shape.layers + 6);
        // Layer 1 differs from layer 0 in the numbers of its steps only.
        assert_eq!(
            lines[..28].join("\n"),
            "\
0 EMBED [] token_embd.weight 64x1 0>16
1 NSTAT1.0 [0] - 3x64 16>0
2 NORM1.0 [0,1] blk.0.attn_norm.weight 64x1 16>12
3 AQ1.0 [2] - 64x32 12>12
4 Q.0 [3] blk.0.attn_q.weight 64x64 12>11
5 K.0 [3] blk.0.attn_k.weight 32x64 12>11
6 V.0 [3] blk.0.attn_v.weight 32x64 12>12
7 ROPEQ.0 [4] - 64x2 11>11
8 AQq.0 [7] - 64x32 11>11
9 ROPEK.0 [5] - 32x2 11>11
10 AQk.0 [9] - 32x32 11>11
11 AQv.0 [6] - 32x32 12>12
12 SCORE.0 [8,10] - 2x32 11>16
13 SMAX.0 [12] - 4x0 16>22
14 PSB.0 [12,13,11] - 2x64 22>0
15 PVOUT.0 [11,12,13,14] - 64x0 12>12
16 AQo.0 [15] - 64x32 12>12
17 WO.0 [16] blk.0.attn_output.weight 64x64 12>16
18 RES1.0 [0,17] - 64x1 16>16
19 NSTAT2.0 [18] - 3x64 16>0
20 NORM2.0 [18,19] blk.0.ffn_norm.weight 64x1 16>12
21 AQ2.0 [20] - 64x32 12>12
22 GATE.0 [21] blk.0.ffn_gate.weight 96x64 12>16
23 UP.0 [21] blk.0.ffn_up.weight 96x64 12>16
24 ACT.0 [22,23] - 96x1 16>12
25 AQy.0 [24] - 96x32 12>12
26 DOWN.0 [25] blk.0.ffn_down.weight 64x96 12>16
27 RES2.0 [18,26] - 64x1 16>16"
        );
        assert_eq!(
            lines[55..].join("\n"),
            "\
55 NSTATF [54] - 3x64 16>0
56 NORMF [54,55] output_norm.weight 64x1 16>12
57 AQf [56] - 64x32 12>12
58 LOGITS [57] token_embd.weight 50x64 12>16
59 SMPL [58] - 3x50 16>0
60 TOKEN [58,59] - 1x50 16>0"
        );
    }

    #[test]
    fn a_layer_with_experts_is_these_steps() {
        let shape = testing::shape_with_experts();
        let steps = program(&shape, &testing::precision());
        let lines: Vec<String> =
            steps.iter().enumerate().map(|(index, step)| text(index, step)).collect();
        assert_eq!(
            lines[23..37].join("\n"),
            "\
23 NSTAT2.0 [22] - 3x64 16>0
24 NORM2.0 [22,23] blk.0.ffn_norm.weight 64x1 16>12
25 AQ2.0 [24] - 64x32 12>12
26 ROUTE.0 [25] blk.0.ffn_gate_inp.weight 5x64 12>16
27 CHOOSE.0 [26] - 4x5 16>15
28 GATE.0 [25,27] blk.0.ffn_gate_exps.weight 64x64 12>16
29 UP.0 [25,27] blk.0.ffn_up_exps.weight 64x64 12>16
30 ACT.0 [28,29] - 64x1 16>12
31 AQy.0 [30] - 64x32 12>12
32 DOWN.0 [31,27] blk.0.ffn_down_exps.weight 128x32 12>16
33 MIX.0 [32,27] - 64x2 16>16
34 RES2.0 [22,33] - 64x1 16>16
35 NSTAT1.1 [34] - 3x64 16>0
36 NORM1.1 [34,35] blk.1.attn_norm.weight 64x1 16>12"
        );
    }

    #[test]
    fn steps_read_earlier_steps_and_stand_in_order() {
        let steps = program(&testing::shape(), &testing::precision());
        for (index, step) in steps.iter().enumerate() {
            assert!(step.inputs.iter().all(|input| *input < index), "{}", step.op);
        }
        let order = |step: &Step| match (step.op.layer, step.op.kind) {
            (None, OpKind::Embed) => (0, step.op.kind),
            (Some(layer), kind) => (1 + layer, kind),
            (None, kind) => (u16::MAX, kind),
        };
        assert!(steps.windows(2).all(|pair| order(&pair[0]) < order(&pair[1])));
    }

    #[test]
    fn every_tensor_is_read() {
        let shape = testing::shape();
        let steps = program(&shape, &testing::precision());
        for role in shape.roles() {
            assert!(steps.iter().any(|step| step.tensor == Some(role)), "{role}");
        }
    }
}
