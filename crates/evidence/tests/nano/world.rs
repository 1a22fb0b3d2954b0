//! An answer that a model gave, and all that it computed on the way.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use assay_evidence::op::{self, Choice, Claim, Penalties, Source};
use assay_kernels::{Cpu, Isa, Pairing, tables};
use assay_models::{
    Cache, Op, OpKind, Row, Sampler, Scratch, Seen, Shape, Step, Tap, Values, program,
};
use assay_protocol::{
    Amount, Assurance, Audit, B256, ChainId, Draws, ModelId, Order, activation_leaf, bias_hash,
    fixed_leaf, token_root,
};

use crate::known::Known;

/// The chain that orders are signed for.
pub(crate) const CHAIN: ChainId = ChainId(1);

/// How tokens are chosen, in the words of an order.
pub(crate) type Choices = (assay_protocol::Sampler, Vec<(u32, i32)>);

pub(crate) fn greedy() -> Choices {
    (assay_protocol::Sampler::greedy(), Vec::new())
}

/// Temperature alone.
pub(crate) fn plain() -> Choices {
    let (mut sampler, bias) = greedy();
    sampler.inv_t_q16 = 94_548;
    sampler.seed = B256::repeat_byte(7);
    (sampler, bias)
}

/// Every filter.
pub(crate) fn sampled() -> Choices {
    let (mut sampler, bias) = plain();
    sampler.inv_t_q16 = 30_000;
    (sampler.top_k, sampler.top_p_q16, sampler.min_p_q16) = (40, 60_000, 300);
    (sampler, bias)
}

/// Every penalty, and biases.
pub(crate) fn penalised() -> Choices {
    let (mut sampler, _) = sampled();
    (sampler.rep_q16, sampler.freq_q16, sampler.pres_q16) = (80_000, 20_000, -30_000);
    sampler.top_k = 0;
    let bias = vec![(5, -400_000), (9, 131_072), (60, 65_536)];
    sampler.bias = bias_hash(&bias);
    (sampler, bias)
}

/// What a row computed, as leaves, by position and op.
type Shown = HashMap<(u32, Op), Vec<Vec<u8>>>;

/// Keeps what a forward pass shows.
struct Recorder<'a> {
    head_dim: usize,
    first: u32,
    shown: &'a mut Shown,
}

impl Tap for Recorder<'_> {
    fn saw(&mut self, op: Op, row: usize, output: Values<'_>) {
        let leaves = match output {
            Values::Fixed(values) => {
                values.chunks(32).map(|values| fixed_leaf(values).to_vec()).collect()
            }
            Values::Quant { q, scales } => {
                let heads = [OpKind::QuantiseQuery, OpKind::QuantiseKey, OpKind::QuantiseValue];
                let part = if heads.contains(&op.kind) { self.head_dim } else { q.len() };
                let parts = q.chunks(part).zip(scales.chunks(part / 32));
                parts.flat_map(|(q, scales)| padded(q, scales)).collect()
            }
            Values::Wide(_) => panic!("{op} shows wide words"),
        };
        let before = self.shown.insert((self.first + row as u32, op), leaves);
        assert_eq!(before, None, "{op} is shown twice");
    }
}

/// Activation leaves of a vector, filled up with zeros of scale 1.
fn padded(q: &[i8], scales: &[u16]) -> Vec<Vec<u8>> {
    let chunks = q.chunks(128).zip(scales.chunks(4));
    let leaf = |(q, scales): (&[i8], &[u16])| {
        let (mut quants, mut all) = ([0; 128], [1; 4]);
        quants[..q.len()].copy_from_slice(q);
        all[..scales.len()].copy_from_slice(scales);
        activation_leaf(&all, &quants).to_vec()
    };
    chunks.map(leaf).collect()
}

/// An answer, and everything that was computed for it.
pub(crate) struct World {
    known: &'static Known,
    pub(crate) steps: Vec<Step>,
    pub(crate) program: Vec<op::Step>,
    pub(crate) order: Order,
    pub(crate) sampler: assay_protocol::Sampler,
    pub(crate) prompt: Vec<u32>,
    pub(crate) output: Vec<u32>,
    /// Quantised last norms, one per output token.
    pub(crate) hidden: Vec<(Vec<i8>, Vec<u16>)>,
    pub(crate) shown: Shown,
    choice: Choice,
}

impl World {
    /// Answers a prompt of noise with so many tokens.
    pub(crate) fn answer(
        known: &'static Known,
        choices: &Choices,
        prompt: usize,
        output: usize,
    ) -> World {
        World::answer_of(known, ModelId(B256::repeat_byte(0x33)), choices, prompt, output)
    }

    /// The same, of a model with this id.
    pub(crate) fn answer_of(
        known: &'static Known,
        model: ModelId,
        (sampler, bias): &Choices,
        prompt: usize,
        output: usize,
    ) -> World {
        let shape = known.model.shape();
        let tokens = shape.vocab as u32 - 6;
        let token = |index: u32| 6 + index.wrapping_mul(2_654_435_761) / 7 % tokens;
        let prompt: Vec<u32> = (0..prompt as u32).map(token).collect();
        let order = order(model, &prompt, sampler);
        let steps = program(shape, known.model.precision());
        let penalties = Penalties {
            rep_q16: sampler.rep_q16,
            freq_q16: sampler.freq_q16,
            pres_q16: sampler.pres_q16,
        };
        let mut world = World {
            known,
            program: steps
                .iter()
                .map(|step| op::Step::read(&step_leaf(shape, step)).unwrap())
                .collect(),
            steps,
            order,
            sampler: sampler.clone(),
            prompt,
            output: Vec::new(),
            hidden: Vec::new(),
            shown: HashMap::new(),
            choice: Choice {
                inv_t_q16: sampler.inv_t_q16,
                top_k: sampler.top_k,
                top_p_q16: sampler.top_p_q16,
                min_p_q16: sampler.min_p_q16,
                penalties,
                bias: bias.clone(),
            },
        };
        world.generate(output);
        world
    }

    fn generate(&mut self, tokens: usize) {
        let cpu = Cpu::new(Isa::detect(), NonZeroUsize::MIN).unwrap();
        let (mut cache, mut scratch) = (Cache::new(self.known.model.shape()), Scratch::default());
        let draws = Draws::new(&self.order, &self.sampler);
        let mut next = self.prompt.clone();
        for index in 0..tokens {
            let first = cache.len() as u32;
            let wanted = next.len() - 1;
            let row = |(row, token): (usize, &u32)| Row {
                token: *token,
                sequence: 0,
                wanted: row == wanted,
            };
            let rows: Vec<Row> = next.iter().enumerate().map(row).collect();
            let head_dim = self.known.model.shape().head_dim;
            let mut recorder = Recorder { head_dim, first, shown: &mut self.shown };
            let result = self
                .known
                .model
                .forward(&cpu, &rows, &mut [&mut cache], &mut scratch, &mut recorder)
                .unwrap();
            let (q, scales) = result.hidden.row(0);
            self.hidden.push((q.to_vec(), scales.to_vec()));
            let mut logits = result.logits;
            let uniform = draws.uniform(index as u32, 0);
            let token = self.native().choose(&mut logits, &self.seen(index), uniform);
            self.output.push(token);
            next = vec![token];
        }
    }

    /// The sampler as models know it.
    fn native(&self) -> Sampler {
        Sampler {
            inv_t_q16: self.choice.inv_t_q16,
            top_k: self.choice.top_k,
            top_p_q16: self.choice.top_p_q16,
            min_p_q16: self.choice.min_p_q16,
            rep_q16: self.choice.penalties.rep_q16,
            freq_q16: self.choice.penalties.freq_q16,
            pres_q16: self.choice.penalties.pres_q16,
            bias: self.choice.bias.clone(),
        }
    }

    /// What was seen before output token `index`.
    fn seen(&self, index: usize) -> Seen {
        let mut seen = Seen::new(&self.prompt);
        self.output[..index].iter().for_each(|token| seen.push(*token));
        seen
    }

    /// Logits as the model's own sampler leaves them.
    pub(crate) fn adjusted(&self, logits: &[i32], index: usize) -> Vec<i32> {
        let mut logits = logits.to_vec();
        self.native().choose(&mut logits, &self.seen(index), 0);
        logits
    }

    /// The leaves of the model.
    pub(crate) fn leaves(&self) -> Arc<HashMap<Source, Vec<u8>>> {
        Arc::clone(&self.known.leaves)
    }

    /// The index of an op in the program.
    pub(crate) fn op(&self, op: Op) -> u32 {
        self.steps.iter().position(|step| step.op == op).unwrap() as u32
    }

    pub(crate) fn claim(&self) -> Claim<'_> {
        let Shape { width, heads, kv_heads, head_dim, vocab, ref rope, .. } =
            *self.known.model.shape();
        let [width, heads, kv_heads, head_dim, vocab] =
            [width, heads, kv_heads, head_dim, vocab].map(|size| size as u32);
        let sampler = assay_protocol::Sampler { seed: B256::ZERO, ..self.sampler.clone() };
        let Order { model, prompt, .. } = &self.order;
        Claim {
            model: op::Model {
                width,
                heads,
                kv_heads,
                head_dim,
                vocab,
                attention_q30: tables::att_q30(head_dim as usize).unsigned_abs(),
                norm_eps: self.known.model.eps_q(),
                halves: rope.pairing == Pairing::Halves,
            },
            program: &self.program,
            order: self.order.hash(CHAIN).0,
            draw_key: op::draw_key(self.sampler.seed, model.0, *prompt, sampler.hash()),
            choice: &self.choice,
            prompt: &self.prompt,
            output: &self.output,
        }
    }
}

fn order(model: ModelId, prompt: &[u32], sampler: &assay_protocol::Sampler) -> Order {
    Order {
        buyer: Default::default(),
        market: Default::default(),
        model,
        request: B256::ZERO,
        prompt: token_root(prompt),
        prompt_tokens: prompt.len() as u32,
        max_tokens: 100,
        sampler: sampler.hash(),
        assurance: Assurance::Replayable,
        audit: Audit::None,
        asset: Default::default(),
        max_price: Amount(0),
        deadline: 0,
        nonce: Default::default(),
        grant: B256::ZERO,
    }
}

/// A step as the manifest's program tree holds it (docs/protocol/commitments.md).
pub(crate) fn step_leaf(shape: &Shape, step: &Step) -> Vec<u8> {
    let input = |index: usize| step.inputs.get(index).map_or(u32::MAX, |input| *input as u32);
    let roles = shape.roles();
    let tensor = step.tensor.map(|role| roles.iter().position(|other| *other == role).unwrap());
    let words = [
        step.op.kind as u32,
        step.op.layer.map_or(u32::MAX, u32::from),
        input(0),
        input(1),
        input(2),
        input(3),
        tensor.map_or(u32::MAX, |tensor| tensor as u32),
        step.outputs as u32,
        step.terms as u32,
    ];
    let mut leaf: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    leaf.extend([step.frac_in, step.frac_out]);
    leaf
}
