//! What a proof opens: for every number of a trace, the leaves that its rule reads.
//!
//! The table of `docs/protocol/dispute.md`, row by row and in its order. Each row is read off the
//! judge in `contracts/src/judges` that takes the openings. Whoever holds a trace can prove with
//! it, right or wrong: only what was committed decides.

use assay_protocol::{Doubt, Focus, Opening, Round, leaf_hash};

use super::error::NoAnswer;
use super::subject::Subject;
use super::trace::Trace;
use crate::op::{
    Kind, Nodes, Parts, Place, Source, Step, Tree, WideLeaf, kind_at, tree_leaves, tree_levels,
    tree_word,
};

/// The openings that `prove` brings for a focus and its rounds, from a committed trace: the
/// disputed leaf first.
///
/// # Errors
/// If a leaf that the rule reads is not at hand, or nothing can stand at the focus.
pub fn exhibits(
    subject: &Subject<'_>,
    trace: &dyn Trace,
    focus: &Focus,
    rounds: &[Round],
) -> Result<Vec<Opening>, NoAnswer> {
    let Focus { position, op, leaf, .. } = *focus;
    let place = Place { position, op, leaf };
    let exists = kind_at(subject.claim, place)
        .is_some_and(|kind| usize::from(focus.element) < kind.elements());
    if !exists {
        return Err(NoAnswer::NoElement { place, element: focus.element });
    }
    let data = trace.open(Source::Trace(place)).ok_or(NoAnswer::Missing(Source::Trace(place)))?;
    let disputed = Opening { data: data.to_vec(), proof: Vec::new() };
    let mut bundle = Bundle { subject, trace, focus, place, openings: vec![disputed] };
    bundle.fill(rounds)?;
    Ok(bundle.openings)
}

/// Whether a proof for a focus has to bring the dispute's facts.
pub fn needs_facts(focus: &Focus) -> bool {
    let code = u32::from_be_bytes([0, 1, 2, 3].map(|at| focus.step.head[at]));
    let Some(kind) = Kind::ALL.get(code as usize) else { return true };
    match kind {
        Kind::NormStat1 | Kind::NormStat2 | Kind::NormStatFinal => {
            let tail = focus.step.tail;
            let terms = u32::from_be_bytes([tail[0], tail[1], tail[2], tail[3]]);
            focus.leaf == 2 * tree_leaves(terms.into()) && (1..3).contains(&focus.element)
        }
        Kind::Norm1 | Kind::Norm2 | Kind::NormFinal => false,
        Kind::Quantise1
        | Kind::QuantiseAttention
        | Kind::Quantise2
        | Kind::QuantiseHidden
        | Kind::QuantiseFinal => false,
        Kind::Residual1 | Kind::Residual2 | Kind::Activation => false,
        other => !is_product(*other),
    }
}

/// Whether a kind of step multiplies a matrix.
pub(crate) fn is_product(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Query
            | Kind::Key
            | Kind::Value
            | Kind::AttentionOutput
            | Kind::Gate
            | Kind::Up
            | Kind::Down
            | Kind::Logits
    )
}

/// Which thresholds a mass reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Floor {
    All,
    Threshold,
}

/// Openings that are being put together.
struct Bundle<'a> {
    subject: &'a Subject<'a>,
    trace: &'a dyn Trace,
    focus: &'a Focus,
    place: Place,
    openings: Vec<Opening>,
}

type Filled = Result<(), NoAnswer>;

impl Bundle<'_> {
    fn fill(&mut self, rounds: &[Round]) -> Filled {
        let claim = self.subject.claim;
        let Some(step) = claim.program.get(self.place.op as usize) else { return self.state() };
        let index = 32 * self.place.leaf + self.element();
        let within = index < u64::from(step.outputs);
        match step.kind {
            Kind::NormStat1 | Kind::NormStat2 | Kind::NormStatFinal => self.statistics(step),
            Kind::Quantise1
            | Kind::QuantiseAttention
            | Kind::Quantise2
            | Kind::QuantiseHidden
            | Kind::QuantiseFinal => self.group(step),
            Kind::QuantiseQuery | Kind::QuantiseKey | Kind::QuantiseValue => {
                self.group_of_head(step)
            }
            Kind::Score => self.score(step),
            Kind::ScoreMax => self.softmax(step),
            Kind::BlockShift => self.block_shift(step, rounds),
            Kind::Sample => self.sample(step, rounds),
            Kind::Token => self.token(step),
            // What fills up a vector reads nothing.
            _ if !within => Ok(()),
            Kind::Embed => self.embed(step, index),
            Kind::Norm1 | Kind::Norm2 | Kind::NormFinal => self.norm(step),
            Kind::RopeQuery | Kind::RopeKey => self.rope(step, index),
            Kind::Attend => self.attend(step, index, rounds),
            Kind::Residual1 | Kind::Residual2 | Kind::Activation => {
                self.here(step.inputs[0], self.place.leaf)?;
                self.here(step.inputs[1], self.place.leaf)
            }
            kind => {
                debug_assert!(is_product(kind), "{kind:?} has a row of its own");
                self.product(step, index, rounds)
            }
        }
    }

    fn element(&self) -> u64 {
        self.focus.element.into()
    }

    /// The data of a leaf that has to be opened.
    fn data(&self, source: Source) -> Result<Vec<u8>, NoAnswer> {
        let data = self.trace.open(source).ok_or(NoAnswer::Missing(source))?;
        Ok(data.into_owned())
    }

    fn leaf(&mut self, place: Place, to_trace: bool) -> Filled {
        let source = Source::Trace(place);
        let data = self.data(source)?;
        let ops = self.trace.spine().ops(place.position).ok_or(NoAnswer::Missing(source))?;
        let mut proof = self.trace.leaves(place.position, place.op).proof(place.leaf);
        proof.extend(ops.proof(place.op.into()));
        if to_trace {
            proof.extend(self.trace.spine().positions().proof(place.position.into()));
        }
        self.openings.push(Opening { data, proof });
        Ok(())
    }

    /// A leaf of the same position.
    fn here(&mut self, op: u32, leaf: u64) -> Filled {
        self.leaf(Place { op, leaf, ..self.place }, false)
    }

    /// A leaf of another position.
    fn there(&mut self, position: u32, op: u32, leaf: u64) -> Filled {
        self.leaf(Place { position, op, leaf }, true)
    }

    /// All leaves of another op of the same position.
    fn whole(&mut self, op: u32, leaves: u64) -> Filled {
        let position = self.place.position;
        let mut run = Vec::new();
        for leaf in 0..leaves {
            run.extend(self.data(Source::Trace(Place { position, op, leaf }))?);
        }
        let missing = NoAnswer::Missing(Source::Trace(Place { position, op, leaf: 0 }));
        let ops = self.trace.spine().ops(position).ok_or(missing)?;
        let mut proof = self.trace.leaves(position, op).range_proof(0, leaves);
        proof.extend(ops.proof(op.into()));
        self.openings.push(Opening { data: run, proof });
        Ok(())
    }

    /// Leaves of the step's tensor.
    fn weights(&mut self, step: &Step, first: u64, count: u64) -> Filled {
        let mut run = Vec::new();
        for leaf in first..first + count {
            run.extend(self.data(Source::Weights { tensor: step.tensor, leaf })?);
        }
        let proof = self.subject.model.weights(self.focus.tensor_leaf + first, count);
        self.openings.push(Opening { data: run, proof });
        Ok(())
    }

    /// A leaf of the RoPE table.
    fn angle(&mut self, leaf: u64) -> Filled {
        let data = self.data(Source::Rope { leaf })?;
        let proof = self.subject.model.rope(leaf, 1);
        self.openings.push(Opening { data, proof });
        Ok(())
    }

    /// Tokens of the prompt or the output.
    fn tokens(&mut self, tokens: &[u32], first: u64, count: u64) {
        self.openings.push(token_run(tokens, first, count));
    }

    fn embed(&mut self, step: &Step, column: u64) -> Filled {
        let (claim, position) = (self.subject.claim, u64::from(self.place.position));
        let prompt = claim.prompt.len() as u64;
        if position < prompt {
            self.tokens(claim.prompt, position, 1);
        } else {
            self.tokens(claim.output, position - prompt, 1);
        }
        let token = claim.input(self.place.position).ok_or(self.nothing())?;
        let chunks = u64::from(step.outputs).div_ceil(128);
        self.weights(step, u64::from(token) * chunks + column / 128, 1)
    }

    fn statistics(&mut self, step: &Step) -> Filled {
        let (op, leaf) = (self.place.op, self.place.leaf);
        let [residual, ..] = step.inputs;
        let tree = tree_leaves(step.terms.into());
        if leaf >= 2 * tree {
            return match self.element() {
                0 => self.here(op, tree - 1),
                1 | 2 => {
                    self.here(op, tree - 1)?;
                    self.here(op, 2 * tree - 1)
                }
                _ => Ok(()),
            };
        }
        let first = if leaf >= tree { tree } else { 0 };
        let word = tree_word(step.terms.into(), leaf - first, self.element());
        match word.ok_or(self.nothing())? {
            (_, _, 0) => Ok(()),
            (0, read, _) => {
                if first > 0 {
                    self.here(op, tree - 1)?;
                }
                self.here(residual, read)
            }
            (_, read, _) => self.here(op, first + read),
        }
    }

    fn norm(&mut self, step: &Step) -> Filled {
        let [residual, statistics, ..] = step.inputs;
        self.here(residual, self.place.leaf)?;
        self.here(statistics, 2 * tree_leaves(step.outputs.into()))?;
        self.weights(step, self.place.leaf, 1)
    }

    fn group(&mut self, step: &Step) -> Filled {
        let group = 4 * self.place.leaf + self.element();
        if group >= u64::from(step.outputs).div_ceil(32) {
            return Ok(());
        }
        self.here(step.inputs[0], group)
    }

    fn group_of_head(&mut self, step: &Step) -> Filled {
        let (records, dim) = (self.records(), u64::from(self.subject.claim.model.head_dim));
        let (head, part) = (self.place.leaf / records, self.place.leaf % records);
        let group = 4 * part + self.element();
        if group >= dim / 32 {
            return Ok(());
        }
        self.here(step.inputs[0], head * (dim / 32) + group)
    }

    fn product(&mut self, step: &Step, row: u64, rounds: &[Round]) -> Filled {
        let chunks = u64::from(step.terms).div_ceil(128);
        let Some(round) = rounds.first() else {
            self.whole(step.inputs[0], chunks)?;
            return self.weights(step, row * chunks, chunks);
        };
        let entry = u64::from(round.entry);
        if entry >= chunks {
            return Ok(());
        }
        self.weights(step, row * chunks + entry, 1)?;
        self.here(step.inputs[0], entry)
    }

    fn rope(&mut self, step: &Step, index: u64) -> Filled {
        let model = &self.subject.claim.model;
        let dim = u64::from(model.head_dim);
        let (head, within) = (index / dim * dim, index % dim);
        let (pair, [a, b]) = if model.halves {
            let pair = within % (dim / 2);
            (pair, [pair, pair + dim / 2])
        } else {
            (within / 2, [within / 2 * 2, within / 2 * 2 + 1])
        };
        self.here(step.inputs[0], (head + a) / 32)?;
        self.here(step.inputs[0], (head + b) / 32)?;
        let each = (dim / 2).div_ceil(32);
        let at = 2 * each * u64::from(self.place.position) + pair / 32;
        self.angle(at)?;
        self.angle(at + each)
    }

    // Attention.

    /// Leaves of a record.
    fn records(&self) -> u64 {
        u64::from(self.subject.claim.model.head_dim).div_ceil(128)
    }

    fn attended(&self) -> u64 {
        u64::from(self.place.position) + 1
    }

    /// A part of the key's or the value's record that serves a head.
    fn record(&mut self, position: u64, op: u32, head: u64, part: u64) -> Filled {
        let model = &self.subject.claim.model;
        let shared = head * u64::from(model.kv_heads) / u64::from(model.heads);
        self.there(position as u32, op, shared * self.records() + part)
    }

    fn score(&mut self, step: &Step) -> Filled {
        let scores = self.attended().div_ceil(32);
        let head = self.place.leaf / scores;
        let position = 32 * (self.place.leaf % scores) + self.element();
        if position >= self.attended() {
            return Ok(());
        }
        for part in 0..self.records() {
            self.here(step.inputs[0], head * self.records() + part)?;
            self.record(position, step.inputs[1], head, part)?;
        }
        Ok(())
    }

    fn softmax(&mut self, step: &Step) -> Filled {
        let (op, leaf, tree) = (self.place.op, self.place.leaf, tree_leaves(self.attended()));
        let head = leaf / (2 * tree);
        let first = leaf / tree * tree;
        let second = first != 2 * head * tree;
        let word = tree_word(self.attended(), leaf - first, self.element());
        match word.ok_or(self.nothing())? {
            (_, _, 0) => Ok(()),
            (0, read, _) => {
                if second {
                    self.top(op, 2 * head)?;
                }
                self.here(step.inputs[0], head * self.attended().div_ceil(32) + read)
            }
            (_, read, _) => self.here(op, first + read),
        }
    }

    /// The top of a tree of the op of largest scores and sums of weights.
    fn top(&mut self, op: u32, number: u64) -> Filled {
        self.here(op, (number + 1) * tree_leaves(self.attended()) - 1)
    }

    /// The scores of a block of positions and the largest of all; how many positions it has.
    fn block(&mut self, scores: u32, softmax: u32, head: u64, block: u64) -> Result<u64, NoAnswer> {
        let count = (self.attended() - 64 * block).min(64);
        self.top(softmax, 2 * head)?;
        let lower = head * self.attended().div_ceil(32) + 2 * block;
        self.here(scores, lower)?;
        if count > 32 {
            self.here(scores, lower + 1)?;
        }
        Ok(count)
    }

    /// Leaves of the shifts of one group of one head.
    fn shifts(&self) -> u64 {
        self.attended().div_ceil(64).div_ceil(32)
    }

    fn block_shift(&mut self, step: &Step, rounds: &[Round]) -> Filled {
        let groups = u64::from(self.subject.claim.model.head_dim / 32);
        let (series, within) = (self.place.leaf / self.shifts(), self.place.leaf % self.shifts());
        let (head, group) = (series / groups, series % groups);
        let block = 32 * within + self.element();
        if block >= self.attended().div_ceil(64) {
            return Ok(());
        }
        let entry = entry_of(rounds, 0)?;
        let [scores, softmax, values, _] = step.inputs;
        let count = self.block(scores, softmax, head, block)?;
        if entry >= count {
            return Ok(());
        }
        self.record(64 * block + entry, values, head, group / 4)
    }

    fn attend(&mut self, step: &Step, index: u64, rounds: &[Round]) -> Filled {
        let dim = u64::from(self.subject.claim.model.head_dim);
        let (head, group) = (index / dim, index % dim / 32);
        let [values, scores, softmax, shifts] = step.inputs;
        let block = entry_of(rounds, 0)?;
        if block >= self.attended().div_ceil(64) {
            return Ok(());
        }
        self.top(softmax, 2 * head + 1)?;
        let count = self.block(scores, softmax, head, block)?;
        let entry = entry_of(rounds, 1)?;
        if entry >= count {
            return Ok(());
        }
        self.here(shifts, self.place.leaf * self.shifts() + block / 32)?;
        self.record(64 * block + entry, values, head, group / 4)
    }

    // The sampler.

    fn sample(&mut self, step: &Step, rounds: &[Round]) -> Filled {
        let parts = Parts::of(self.subject.claim);
        let leaf = self.place.leaf;
        if leaf < parts.adjusted {
            return self.adjusted(step, rounds);
        }
        match self.focus.doubt {
            Doubt::Kth => return Ok(()),
            Doubt::Nucleus => return self.nucleus(&parts),
            _ => {}
        }
        let logits = Logits { sample: self.place.op, logits: step.inputs[0] };
        if leaf <= parts.keys.top() {
            return self.word(&parts.keys, |bundle, read| bundle.logits(&parts, logits, read));
        }
        if let Some((advice, tree)) = &parts.ranks {
            if leaf == *advice {
                return Ok(());
            }
            if leaf <= tree.top() {
                return self.word(tree, |bundle, read| {
                    bundle.here(logits.sample, *advice)?;
                    bundle.logits(&parts, logits, read)
                });
            }
        }
        self.mass(&parts, logits)
    }

    fn mass(&mut self, parts: &Parts, logits: Logits) -> Filled {
        let leaf = self.place.leaf;
        if let Some((advice, [above, from, all])) = &parts.masses {
            if leaf == *advice {
                return Ok(());
            }
            let trees = [(above, Floor::Threshold), (from, Floor::Threshold), (all, Floor::All)];
            if let Some((tree, floor)) = trees.into_iter().find(|(tree, _)| leaf <= tree.top()) {
                return self.word(tree, |bundle, read| {
                    bundle.filters(parts, logits, floor)?;
                    bundle.logits(parts, logits, read)
                });
            }
        }
        let kept = parts.kept.as_ref().ok_or(self.nothing())?;
        self.word(kept, |bundle, read| {
            bundle.filters(parts, logits, Floor::Threshold)?;
            bundle.logits(parts, logits, read)
        })
    }

    /// A word of one of the op's own trees; `lowest` reads for its lowest level.
    fn word(&mut self, tree: &Tree, lowest: impl FnOnce(&mut Self, u64) -> Filled) -> Filled {
        let word = tree_word(tree.elements, self.place.leaf - tree.first, self.element());
        match word.ok_or(self.nothing())? {
            (_, _, 0) => Ok(()),
            (0, read, _) => lowest(self, read),
            (_, read, _) => self.here(self.place.op, tree.first + read),
        }
    }

    /// A leaf of the logits that are sampled.
    fn logits(&mut self, parts: &Parts, ops: Logits, leaf: u64) -> Filled {
        self.here(if parts.adjusted > 0 { ops.sample } else { ops.logits }, leaf)
    }

    /// The top key, and the thresholds that a mass reads.
    fn filters(&mut self, parts: &Parts, ops: Logits, floor: Floor) -> Filled {
        self.here(ops.sample, parts.keys.top())?;
        if let Some((advice, _)) = &parts.ranks {
            self.here(ops.sample, *advice)?;
        }
        match &parts.masses {
            Some((advice, _)) if floor != Floor::All => self.here(ops.sample, *advice),
            _ => Ok(()),
        }
    }

    fn nucleus(&mut self, parts: &Parts) -> Filled {
        match &parts.masses {
            Some((_, [above, from, all])) if self.place.leaf == all.top() => {
                self.here(self.place.op, above.top())?;
                self.here(self.place.op, from.top())
            }
            _ => Ok(()),
        }
    }

    fn adjusted(&mut self, step: &Step, rounds: &[Round]) -> Filled {
        let claim = self.subject.claim;
        let token = 32 * self.place.leaf + self.element();
        if token >= u64::from(claim.model.vocab) {
            return Ok(());
        }
        let inputs = self.attended();
        let from = 32 * entry_of(rounds, 0)?;
        if from >= inputs {
            return Ok(());
        }
        self.here(step.inputs[0], self.place.leaf)?;
        if !claim.choice.bias.is_empty() {
            let words = claim.choice.bias.iter();
            let words = words.flat_map(|(token, bias)| [token.to_be_bytes(), bias.to_be_bytes()]);
            let data = words.flatten().collect();
            self.openings.push(Opening { data, proof: Vec::new() });
        }
        let (prompt, until) = (claim.prompt.len() as u64, inputs.min(from + 32));
        let split = prompt.clamp(from, until);
        if split > from {
            self.tokens(claim.prompt, from, split - from);
        }
        if until > split {
            self.tokens(claim.output, split - prompt, until - split);
        }
        Ok(())
    }

    fn token(&mut self, step: &Step) -> Filled {
        let claim = self.subject.claim;
        if self.focus.doubt == Doubt::Link {
            let index = claim.index(self.place.position).ok_or(self.nothing())?;
            self.tokens(claim.output, index.into(), 1);
            return Ok(());
        }
        let parts = Parts::of(claim);
        let [logits, sample, ..] = step.inputs;
        let Some(kept) = &parts.kept else {
            return match self.element() {
                0 => self.here(sample, parts.keys.top()),
                _ => Ok(()),
            };
        };
        let levels = tree_levels(claim.model.vocab.into()).len();
        let element = self.element() as usize;
        if element >= 2 * levels {
            return Ok(());
        }
        if element == 0 {
            return self.here(sample, kept.top());
        }
        // Where the walk stands is what the committed words before say.
        let down = (element - 1) / 2;
        let words = WideLeaf::read(&self.openings[0].data);
        let words = words.map_err(crate::op::RecomputeError::from)?.0;
        let node = if down == 0 { 0 } else { words[2 * down - 1] };
        if down + 1 < levels {
            let level = kept.level(levels - 2 - down);
            return self.here(sample, level.checked_add(node).ok_or(self.nothing())?);
        }
        let logits = Logits { sample, logits };
        self.filters(&parts, logits, Floor::Threshold)?;
        self.logits(&parts, logits, node)
    }

    fn state(&mut self) -> Filled {
        let claim = self.subject.claim;
        if self.focus.doubt == Doubt::FinalState {
            return Ok(());
        }
        let Place { position, op, .. } = self.place;
        if position as usize + 1 != claim.prompt.len() {
            self.there(position.checked_sub(1).ok_or(self.nothing())?, op, 0)?;
        }
        // The last ops: the last norm quantised, logits, sample, token.
        self.here(op.checked_sub(1).ok_or(self.nothing())?, 0)?;
        let hidden = op.checked_sub(4).ok_or(self.nothing())?;
        self.whole(hidden, u64::from(claim.model.width).div_ceil(128))
    }

    fn nothing(&self) -> NoAnswer {
        NoAnswer::NoElement { place: self.place, element: self.focus.element }
    }
}

/// The ops of the sampler and of the logits.
#[derive(Clone, Copy)]
struct Logits {
    sample: u32,
    logits: u32,
}

/// The entry that was chosen in a round.
fn entry_of(rounds: &[Round], round: usize) -> Result<u64, NoAnswer> {
    rounds.get(round).map(|round| round.entry.into()).ok_or(NoAnswer::NoRound(rounds.len()))
}

/// A run of the tokens of a prompt or an output, with its neighbours.
pub(crate) fn token_run(tokens: &[u32], first: u64, count: u64) -> Opening {
    let leaf = |(index, token): (u32, &u32)| {
        leaf_hash(&[index.to_be_bytes(), token.to_be_bytes()].concat())
    };
    let tree = Nodes::new((0..).zip(tokens).map(leaf).collect());
    let run = tokens.iter().skip(first as usize).take(count as usize);
    let data = run.flat_map(|token| token.to_be_bytes()).collect();
    Opening { data, proof: tree.range_proof(first, count) }
}
