//! The forward pass against its plain twin, and against itself in other batches, on other
//! instruction sets, with other numbers of threads.

use assay_kernels::{GROUP, Isa, Pairing, Weights, reference};
use proptest::prelude::*;

use super::*;
use crate::batch::{ForwardError, Row};
use crate::bounds::ModelError;
use crate::program::program;
use crate::shape::{Experts, FRAC_GATE, Sites};
use crate::testing::{self, Noise};

/// What one row gives: the quantised final norm and the logits.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    hidden: (Vec<i8>, Vec<u16>),
    logits: Vec<i32>,
}

/// Quantised numbers and their scales.
type Record = (Vec<i8>, Vec<u16>);

/// The whole model in plain loops over one sequence, sharing nothing with the real pass but the
/// definitions of single operations.
struct Twin<'a> {
    model: &'a Model,
    /// (layers, positions, key/value heads).
    keys: Vec<Vec<Vec<Record>>>,
    values: Vec<Vec<Vec<Record>>>,
}

impl Twin<'_> {
    fn of(model: &Model) -> Twin<'_> {
        let empty = vec![Vec::new(); model.shape().layers];
        Twin { model, keys: empty.clone(), values: empty }
    }

    fn push(&mut self, token: u32) -> Answer {
        let (model, shape) = (self.model, self.model.shape());
        let position = self.keys[0].len();
        let frac = model.precision().residual;
        let row = token as usize;
        let mut x: Vec<i32> = (0..shape.width)
            .map(|column| {
                let e = model.weights(Role::Embedding).unwrap();
                reference::embed(e.q(row, column), e.scale(row, column / 32), e.exponent(row), frac)
            })
            .collect();
        for layer in 0..shape.layers {
            let delta = self.attention(layer, position, &x);
            x = x.iter().zip(&delta).map(|(x, d)| reference::add(*x, *d)).collect();
            let delta = self.feed_forward(layer, &x);
            x = x.iter().zip(&delta).map(|(x, d)| reference::add(*x, *d)).collect();
        }
        let frac_norm = model.precision().output_norm;
        let normed = self.norm(&x, Role::OutputNorm, frac_norm);
        let hidden = padded(&normed);
        let output = model.weights(Role::Output).or(model.weights(Role::Embedding)).unwrap();
        let logits = product(output, &hidden, frac_norm, 16);
        Answer { hidden, logits }
    }

    fn attention(&mut self, layer: usize, position: usize, x: &[i32]) -> Vec<i32> {
        let (model, shape) = (self.model, self.model.shape());
        let sites = model.precision().layers[layer];
        let of = |role| Role::Layer(layer, role);
        let matrix = |role| model.weights(of(role)).unwrap();
        let input = padded(&self.norm(x, of(LayerRole::AttentionNorm), sites.attention_norm));
        let frac_heads = model.fractions(of(LayerRole::Query)).1;
        let mut query = product(matrix(LayerRole::Query), &input, sites.attention_norm, frac_heads);
        let mut key = product(matrix(LayerRole::Key), &input, sites.attention_norm, frac_heads);
        let value = product(matrix(LayerRole::Value), &input, sites.attention_norm, sites.value);
        if shape.graph().head_norms {
            for (role, x) in [(LayerRole::QueryNorm, &mut query), (LayerRole::KeyNorm, &mut key)] {
                let heads = x.chunks(shape.head_dim);
                *x = heads.flat_map(|head| self.norm(head, of(role), sites.query)).collect();
            }
        }
        self.turn(position, &mut query);
        self.turn(position, &mut key);
        self.keys[layer].push(records(&key, shape.head_dim));
        self.values[layer].push(records(&value, shape.head_dim));
        let mut mean = Vec::new();
        for (head, query) in records(&query, shape.head_dim).iter().enumerate() {
            let shared = head / (shape.heads / shape.kv_heads);
            let keys: Vec<_> = self.keys[layer].iter().map(|heads| view(&heads[shared])).collect();
            let values: Vec<_> =
                self.values[layer].iter().map(|heads| view(&heads[shared])).collect();
            mean.extend(reference::attend(
                view(query),
                &keys,
                &values,
                att_q30(shape.head_dim),
                [sites.query, sites.value, sites.attention],
            ));
        }
        let frac = model.precision().residual;
        product(matrix(LayerRole::AttentionOutput), &padded(&mean), sites.attention, frac)
    }

    fn feed_forward(&self, layer: usize, x: &[i32]) -> Vec<i32> {
        let model = self.model;
        let sites = model.precision().layers[layer];
        let of = |role| Role::Layer(layer, role);
        let matrix = |role| model.weights(of(role)).unwrap();
        let input = padded(&self.norm(x, of(LayerRole::HiddenNorm), sites.hidden_norm));
        if let Some(experts) = model.shape().experts {
            return self.experts(layer, experts, &input);
        }
        let gate = product(matrix(LayerRole::Gate), &input, sites.hidden_norm, FRAC_GATE);
        let up = product(matrix(LayerRole::Up), &input, sites.hidden_norm, FRAC_GATE);
        let activation: Vec<i32> = gate
            .iter()
            .zip(&up)
            .map(|(gate, up)| reference::silu_mul(*gate, *up, sites.hidden))
            .collect();
        product(
            matrix(LayerRole::Down),
            &padded(&activation),
            sites.hidden,
            model.precision().residual,
        )
    }

    /// Every expert that the row chose, one after the other.
    fn experts(&self, layer: usize, experts: Experts, input: &Record) -> Vec<i32> {
        let Shape { width, hidden, .. } = *self.model.shape();
        let sites = self.model.precision().layers[layer];
        let matrix = |role| self.model.weights(Role::Layer(layer, role)).unwrap();
        let logits = product(matrix(LayerRole::Router), input, sites.hidden_norm, 16);
        let chosen = reference::route(&logits, experts.chosen);
        let found: Vec<Vec<i32>> = chosen
            .iter()
            .map(|(expert, _)| {
                let all = |role| product(matrix(role), input, sites.hidden_norm, FRAC_GATE);
                let own = expert * hidden..(expert + 1) * hidden;
                let gate = all(LayerRole::ExpertGates)[own.clone()].to_vec();
                let up = all(LayerRole::ExpertUps)[own].to_vec();
                let pairs = gate.into_iter().zip(up);
                let activation: Vec<i32> =
                    pairs.map(|(gate, up)| reference::silu_mul(gate, up, sites.hidden)).collect();
                let (activation, frac) = (padded(&activation), self.model.precision().residual);
                let down = product(matrix(LayerRole::ExpertDowns), &activation, sites.hidden, frac);
                down[expert * width..(expert + 1) * width].to_vec()
            })
            .collect();
        let shares = chosen.iter().map(|(_, share)| *share);
        let at = |column: usize| found.iter().map(move |found| found[column]);
        (0..width).map(|column| reference::mix(at(column).zip(shares.clone()))).collect()
    }

    fn norm(&self, x: &[i32], role: Role, frac_out: u8) -> Vec<i32> {
        let gain = self.model.vector(role).unwrap();
        // 1e-5 · 2^32, rounded; of heads 1e-5 · 2^24.
        assert_eq!(self.model.precision().residual, 16);
        let of_heads = matches!(role, Role::Layer(_, LayerRole::QueryNorm | LayerRole::KeyNorm));
        reference::rmsnorm(x, gain, if of_heads { 168 } else { 42_950 }, frac_out)
    }

    fn turn(&self, position: usize, x: &mut [i32]) {
        let Shape { head_dim, ref rope, .. } = *self.model.shape();
        let tables = self.model.rope();
        for head in x.chunks_mut(head_dim) {
            for pair in 0..head_dim / 2 {
                let (a, b) = match rope.pairing {
                    Pairing::Halves => (pair, pair + head_dim / 2),
                    Pairing::Adjacent => (2 * pair, 2 * pair + 1),
                };
                let angle = position * head_dim / 2 + pair;
                (head[a], head[b]) =
                    reference::rope(head[a], head[b], tables.cos[angle], tables.sin[angle]);
            }
        }
    }
}

fn view((q, scales): &Record) -> (&[i8], &[u16]) {
    (q, scales)
}

fn padded(x: &[i32]) -> Record {
    reference::quantise(x, x.len().next_multiple_of(128))
}

fn records(x: &[i32], head_dim: usize) -> Vec<Record> {
    x.chunks(head_dim).map(|head| reference::quantise(head, head_dim)).collect()
}

fn product(weights: &Weights, x: &Record, frac_in: u8, frac_out: u8) -> Vec<i32> {
    let output = |row| {
        let mut q = vec![0; weights.columns()];
        weights.row_q(row, &mut q);
        let scales: Vec<i32> =
            (0..weights.columns() / 32).map(|group| weights.scale(row, group)).collect();
        let shift = i32::from(weights.exponent(row)) + i32::from(frac_in) - i32::from(frac_out);
        reference::matmul((&q, &scales), view(x), shift)
    };
    (0..weights.rows()).map(output).collect()
}

/// Some tokens of the small vocabulary.
fn tokens(count: usize, seed: u64) -> Vec<u32> {
    let mut noise = Noise(seed);
    (0..count).map(|_| noise.within(0, 49) as u32).collect()
}

/// What the twin answers after every token.
fn expected(model: &Model, tokens: &[u32]) -> Vec<Answer> {
    let mut twin = Twin::of(model);
    tokens.iter().map(|token| twin.push(*token)).collect()
}

fn row(token: u32, sequence: usize) -> Row {
    Row { token, sequence, wanted: true }
}

/// Runs one batch and takes its output apart.
fn run(model: &Model, cpu: &Cpu, rows: &[Row], caches: &mut [Cache]) -> Vec<Answer> {
    let mut caches: Vec<&mut Cache> = caches.iter_mut().collect();
    let mut scratch = Scratch::default();
    let output = model.forward(cpu, rows, &mut caches, &mut scratch, &mut ()).unwrap();
    let answer = |(index, logits): (usize, &[i32])| {
        let (q, scales) = output.hidden.row(index);
        Answer { hidden: (q.to_vec(), scales.to_vec()), logits: logits.to_vec() }
    };
    output.logits.chunks(model.shape().vocab).enumerate().map(answer).collect()
}

fn prefill(model: &Model, cpu: &Cpu, tokens: &[u32]) -> Vec<Answer> {
    let rows: Vec<Row> = tokens.iter().map(|token| row(*token, 0)).collect();
    run(model, cpu, &rows, &mut [Cache::new(model.shape())])
}

#[test]
fn every_instruction_set_and_thread_count_agrees_with_the_twin() {
    let four_bits = testing::model(1).map::<ModelError>(|role, weights| match role {
        // The table of tokens keeps eight: a model may have both.
        Role::Embedding => Ok(weights),
        _ => Ok(halved(&weights)),
    });
    let tokens = tokens(96, 2);
    let experts = testing::model_with_experts(1);
    let experts_in_four_bits = experts.clone().map::<ModelError>(|role, weights| match role {
        Role::Embedding | Role::Layer(_, LayerRole::Router) => Ok(weights),
        _ => Ok(halved(&weights)),
    });
    let four_bits = [four_bits.unwrap(), experts_in_four_bits.unwrap()];
    for model in four_bits.into_iter().chain([testing::model(1), experts]) {
        let expected = expected(&model, &tokens);
        for isa in [Isa::Scalar, Isa::Avx2, Isa::Avx512] {
            for threads in [1, 2] {
                let Some(cpu) = testing::cpu(isa, threads) else { continue };
                assert_eq!(prefill(&model, &cpu, &tokens), expected, "{isa}, {threads} threads");
            }
        }
    }
}

/// A matrix of about the same numbers in four bits, with scales of both signs.
fn halved(weights: &Weights) -> Weights {
    let (rows, columns) = (weights.rows(), weights.columns());
    let places = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
    let sign = |row: usize, group: usize| if (row + group) % 3 == 0 { -1 } else { 1 };
    let q: Vec<i8> = places
        .map(|(row, column)| sign(row, column / GROUP) as i8 * (weights.q(row, column) / 17))
        .collect();
    let groups = (0..rows).flat_map(|row| (0..columns / GROUP).map(move |group| (row, group)));
    let scales: Vec<i16> = groups
        .map(|(row, group)| match weights.scale(row, group) {
            // As padding has it.
            1 => 1,
            scale => sign(row, group) as i16 * (scale / 2) as i16,
        })
        .collect();
    let exponents: Vec<i8> =
        weights.exponents()[..rows].iter().map(|e| if *e == 31 { 31 } else { e - 5 }).collect();
    Weights::from_rows_w4(rows, columns, &q, &scales, &exponents).unwrap()
}

#[test]
fn other_members_of_the_family_agree_with_the_twin() {
    let mut shape = testing::shape();
    (shape.tied, shape.rope.pairing) = (false, Pairing::Adjacent);
    (shape.kv_heads, shape.head_dim, shape.width, shape.hidden) = (2, 64, 160, 33);
    let mut precision = testing::precision();
    precision.layers[1] = Sites {
        attention_norm: 11,
        query: 10,
        value: 13,
        attention: 9,
        hidden_norm: 14,
        hidden: 8,
    };
    precision.output_norm = 13;
    let tensors = testing::tensors(&shape, 3);
    let model = Model::new(shape, precision, tensors).unwrap();
    let tokens = tokens(70, 4);
    assert_eq!(prefill(&model, &testing::any_cpu(), &tokens), expected(&model, &tokens));
}

#[test]
fn the_answers_are_not_trivial() {
    let (model, tokens) = (testing::model(1), tokens(96, 2));
    let answers = expected(&model, &tokens);
    let choices: std::collections::BTreeSet<usize> =
        answers.iter().map(|answer| reference::argmax(&answer.logits)).collect();
    assert!(choices.len() > 12, "{choices:?}");
    let saturated = |logit: &i32| logit.unsigned_abs() > 1 << 30;
    assert!(!answers.iter().any(|answer| answer.logits.iter().any(saturated)));
    // The past matters: the same token after another prefix gives other logits.
    assert_ne!(prefill(&model, &testing::any_cpu(), &tokens[1..])[94], answers[95]);
}

#[test]
fn a_truncated_cache_goes_on_as_if_nothing_had_followed() {
    let (model, cpu, tokens) = (testing::model(5), testing::any_cpu(), tokens(90, 6));
    let expected = expected(&model, &tokens);
    let mut caches = [Cache::new(model.shape())];
    let rows: Vec<Row> = tokens.iter().map(|token| row(*token, 0)).collect();
    assert_eq!(run(&model, &cpu, &rows, &mut caches), expected);
    let full = caches[0].bytes();
    for kept in [89, 65, 64, 63, 17, 0] {
        caches[0].truncate(kept);
        assert_eq!(caches[0].len(), kept);
        // Something else in between must leave no trace.
        run(&model, &cpu, &[row(7, 0), row(8, 0)], &mut caches);
        caches[0].truncate(kept);
        assert_eq!(run(&model, &cpu, &rows[kept..], &mut caches), expected[kept..]);
    }
    assert_eq!(caches[0].bytes(), full);
}

#[test]
fn only_wanted_rows_are_answered() {
    let (model, cpu, tokens) = (testing::model(7), testing::any_cpu(), tokens(9, 8));
    let expected = expected(&model, &tokens);
    for wanted in [vec![], vec![8], vec![0], vec![0, 4, 5], vec![1, 2, 3, 4, 5, 6, 7, 8]] {
        let rows: Vec<Row> = (0..9)
            .map(|index| Row { wanted: wanted.contains(&index), ..row(tokens[index], 0) })
            .collect();
        let answers = run(&model, &cpu, &rows, &mut [Cache::new(model.shape())]);
        let expected: Vec<Answer> = wanted.iter().map(|index| expected[*index].clone()).collect();
        assert_eq!(answers, expected);
    }
}

#[test]
fn no_rows_give_no_answers() {
    let model = testing::model(7);
    assert_eq!(prefill(&model, &testing::any_cpu(), &[]), []);
}

#[test]
fn a_batch_that_cannot_be_computed_changes_nothing() {
    let (model, cpu, tokens) = (testing::model(9), testing::any_cpu(), tokens(95, 10));
    let mut caches = [Cache::new(model.shape()), Cache::new(model.shape())];
    let rows: Vec<Row> = tokens.iter().map(|token| row(*token, 1)).collect();
    run(&model, &cpu, &rows, &mut caches);
    for (rows, message) in [
        (vec![row(1, 0), row(50, 0)], "token 50, but the vocabulary has 50 (row 1)"),
        (vec![row(1, 0), row(1, 2)], "sequence 2, but the call has 2 caches (row 1)"),
        (
            vec![row(1, 0), row(1, 1), row(2, 1)],
            "no position left in a context of 96 (row 2, sequence 1)",
        ),
    ] {
        let mut borrowed: Vec<&mut Cache> = caches.iter_mut().collect();
        let result: Result<Output, ForwardError> =
            model.forward(&cpu, &rows, &mut borrowed, &mut Scratch::default(), &mut ());
        assert_eq!(result.unwrap_err().to_string(), message);
        assert_eq!((caches[0].len(), caches[1].len()), (0, 95));
    }
    let last = run(&model, &cpu, &[row(3, 1)], &mut caches);
    let mut twin = Twin::of(&model);
    tokens.iter().for_each(|token| drop(twin.push(*token)));
    assert_eq!(last, [twin.push(3)]);
}

/// Writes down what it sees.
#[derive(Default)]
struct Notes(Vec<(usize, Op, Vec<i64>)>);

impl Tap for Notes {
    fn saw(&mut self, op: Op, row: usize, output: Values<'_>) {
        let numbers = match output {
            Values::Quant { q, scales } => {
                assert_eq!(q.len(), 32 * scales.len());
                let scale = |index: usize| i64::from(scales[index / 32]);
                q.iter().enumerate().map(|(index, q)| i64::from(*q) * scale(index)).collect()
            }
            Values::Fixed(numbers) => numbers.iter().map(|number| i64::from(*number)).collect(),
            Values::Wide(numbers) => numbers.to_vec(),
        };
        self.0.push((row, op, numbers));
    }
}

#[test]
fn a_tap_sees_every_row_in_the_order_of_the_program() {
    for model in [testing::model(11), testing::model_with_experts(11)] {
        check_order(&model);
    }
}

fn check_order(model: &Model) {
    let (cpu, tokens) = (testing::any_cpu(), tokens(5, 12));
    let rows: Vec<Row> =
        (0..5).map(|index| Row { wanted: index % 2 == 1, ..row(tokens[index], 0) }).collect();
    let mut notes = Notes::default();
    let mut cache = Cache::new(model.shape());
    let mut scratch = Scratch::default();
    let output = model.forward(&cpu, &rows, &mut [&mut cache], &mut scratch, &mut notes).unwrap();

    let steps = program(model.shape(), model.precision());
    let inside = [
        OpKind::NormStat1,
        OpKind::QueryNormStat,
        OpKind::KeyNormStat,
        OpKind::NormStat2,
        OpKind::NormStatFinal,
        OpKind::Score,
        OpKind::ScoreMax,
        OpKind::BlockShift,
        OpKind::Sample,
        OpKind::Token,
    ];
    let last = [OpKind::NormFinal, OpKind::QuantiseFinal, OpKind::Logits];
    for row in 0..5 {
        let shown =
            |kind: OpKind| !inside.contains(&kind) && (row % 2 == 1 || !last.contains(&kind));
        let expected: Vec<_> = steps.iter().filter(|step| shown(step.op.kind)).collect();
        let seen: Vec<_> = notes.0.iter().filter(|(seen, ..)| *seen == row).collect();
        let ops = |ops: Vec<Op>| ops.iter().map(Op::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(
            ops(seen.iter().map(|(_, op, _)| *op).collect()),
            ops(expected.iter().map(|step| step.op).collect())
        );
        for ((_, op, numbers), step) in seen.iter().zip(expected) {
            // Quantised inputs of matrices are padded, those of experts each.
            let inputs = match (op.kind, model.shape().experts) {
                (OpKind::QuantiseHidden, Some(experts)) => experts.chosen,
                _ => 1,
            };
            let padded = inputs * (step.outputs / inputs).next_multiple_of(128);
            assert!([step.outputs, padded].contains(&numbers.len()), "{op}: {}", numbers.len());
        }
    }
    // Looking changes nothing, and what is shown is what is answered.
    assert_eq!(answers(&output), prefill_wanted(model, &cpu, &rows));
    let logits: Vec<i64> = notes
        .0
        .iter()
        .filter(|(_, op, _)| op.kind == OpKind::Logits)
        .flat_map(|(_, _, numbers)| numbers.clone())
        .collect();
    assert_eq!(logits, output.logits.iter().map(|logit| i64::from(*logit)).collect::<Vec<_>>());
}

#[test]
fn a_tap_sees_the_relations_between_steps() {
    let (model, cpu) = (testing::model(13), testing::any_cpu());
    let mut notes = Notes::default();
    let rows = [row(1, 0), row(2, 0), row(3, 0)];
    let mut cache = Cache::new(model.shape());
    let mut scratch = Scratch::default();
    model.forward(&cpu, &rows, &mut [&mut cache], &mut scratch, &mut notes).unwrap();
    let find = |row: usize, layer: Option<u16>, kind: OpKind| {
        let op = Op { layer, kind };
        &notes.0.iter().find(|(seen, at, _)| *seen == row && *at == op).unwrap().2
    };
    for row in 0..3 {
        let before = find(row, None, OpKind::Embed);
        let delta = find(row, Some(0), OpKind::AttentionOutput);
        let after = find(row, Some(0), OpKind::Residual1);
        let sum: Vec<i64> = before.iter().zip(delta).map(|(x, d)| x + d).collect();
        assert_eq!(*after, sum);
        // At position 0 nothing turns, and the only value is its own mean but for rounding.
        let turned = find(row, Some(0), OpKind::RopeKey) != find(row, Some(0), OpKind::Key);
        assert_eq!(turned, row > 0);
        let key = cache.layers[0].key(0, row);
        let numbers: Vec<i64> =
            (0..32).map(|i| i64::from(key.0[i]) * i64::from(key.1[0])).collect();
        assert_eq!(*find(row, Some(0), OpKind::QuantiseKey), numbers);
    }
    let (value, mean) = (find(0, Some(0), OpKind::QuantiseValue), find(0, Some(0), OpKind::Attend));
    for (index, mean) in mean.iter().enumerate() {
        let exact = value[index % 32];
        assert!((mean - exact).abs() <= exact.abs() / 10_000 + 1, "{mean} {exact}");
    }
}

fn answers(output: &Output) -> Vec<Answer> {
    let count = output.hidden.rows();
    let vocab = output.logits.len() / count;
    (0..count)
        .map(|index| {
            let (q, scales) = output.hidden.row(index);
            let logits = output.logits[index * vocab..][..vocab].to_vec();
            Answer { hidden: (q.to_vec(), scales.to_vec()), logits }
        })
        .collect()
}

fn prefill_wanted(model: &Model, cpu: &Cpu, rows: &[Row]) -> Vec<Answer> {
    run(model, cpu, rows, &mut [Cache::new(model.shape())])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Sequences advance by random amounts in random order, their rows interleaved at random.
    #[test]
    fn batches_change_nothing(
        seed in any::<u64>(),
        sequences in 1..5usize,
        threads in 1..3usize,
        experts in any::<bool>(),
    ) {
        let model = if experts { testing::model_with_experts(15) } else { testing::model(15) };
        let cpu = testing::cpu(Isa::detect(), threads).unwrap();
        let mut noise = Noise(seed);
        let texts: Vec<Vec<u32>> =
            (0..sequences).map(|_| tokens(1 + noise.next() as usize % 70, noise.next())).collect();
        let expected: Vec<Vec<Answer>> = texts.iter().map(|text| expected(&model, text)).collect();
        let mut caches: Vec<Cache> = texts.iter().map(|_| Cache::new(model.shape())).collect();
        let mut next = vec![0; sequences];
        while (0..sequences).any(|sequence| next[sequence] < texts[sequence].len()) {
            let (mut rows, mut wanted) = (Vec::new(), Vec::new());
            for _ in 0..=noise.next() % 60 {
                let sequence = noise.next() as usize % sequences;
                if let Some(token) = texts[sequence].get(next[sequence]) {
                    rows.push(row(*token, sequence));
                    wanted.push(expected[sequence][next[sequence]].clone());
                    next[sequence] += 1;
                }
            }
            prop_assert_eq!(run(&model, &cpu, &rows, &mut caches), wanted);
        }
    }
}

#[test]
fn a_batch_goes_through_every_expert_and_rows_through_different_ones() {
    let (model, cpu, tokens) = (testing::model_with_experts(1), testing::any_cpu(), tokens(96, 2));
    let mut notes = Notes::default();
    let rows: Vec<Row> = tokens.iter().map(|token| row(*token, 0)).collect();
    let mut cache = Cache::new(model.shape());
    let mut scratch = Scratch::default();
    model.forward(&cpu, &rows, &mut [&mut cache], &mut scratch, &mut notes).unwrap();
    let mut chosen = [0; 5];
    for (.., numbers) in notes.0.iter().filter(|(_, op, _)| op.kind == OpKind::Choose) {
        let [first, share, second, rest] = numbers[..] else { panic!("two of two numbers") };
        assert!(first != second && share >= rest && rest >= 0, "{numbers:?}");
        assert!((share + rest - (1 << 15)).abs() <= 1, "{numbers:?}");
        chosen[first as usize] += 1;
        chosen[second as usize] += 1;
    }
    assert!(chosen.iter().all(|times| *times > 10), "{chosen:?}");
}

#[test]
fn one_token_at_a_time_is_one_prefill() {
    let (model, cpu, tokens) = (testing::model(17), testing::any_cpu(), tokens(80, 18));
    let mut caches = [Cache::new(model.shape())];
    let single: Vec<Answer> =
        tokens.iter().flat_map(|token| run(&model, &cpu, &[row(*token, 0)], &mut caches)).collect();
    assert_eq!(single, prefill(&model, &cpu, &tokens));
}
