//! The trace of an answer, computed when somebody asks for it (`docs/protocol/trace.md`).
//!
//! Nothing of a trace exists while an answer is given: order, tokens and model determine it.
//! [`Trace::compute`] runs all positions forward, the output fed back as in a replay, writes each
//! position's leaves and hashes them into the roots of its ops. Kept are these roots and what is read
//! of many positions: keys and values, draws and states. All else is computed again when it is asked
//! for, one position at a time.
//!
//! Memory, for N steps and heads of d dimensions in L layers: a position keeps 64·N bytes of
//! hashes and about 4.3·L·heads_kv·d bytes of keys and values (cache and records). While the trace
//! is computed, up to 32 positions or 128 MiB of what the pass shows are held; afterwards the last
//! few positions that were asked for, whole. The leaves of one position of a model of 0.5B
//! parameters take 3 to 4 MB, and 1.6 kB more for each position that it attends to.

mod attention;
mod claimed;
mod error;
mod leaves;
mod past;
mod position;
mod radix;
mod sampling;
mod sight;

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use assay_evidence::dispute;
use assay_evidence::op::{Claim, Kind, Nodes, Openings, Place, RuleError, Source, Spine};
use assay_kernels::Cpu;
use assay_models::{Cache, ForwardError, Op, Role, Row as Input, Scratch, program};
use assay_protocol::{Answer, B256, ModelId, State, leaf_hash};
use rayon::prelude::*;

pub use error::TraceError;
pub use leaves::Leaves;

use self::claimed::Claimed;
use self::past::Past;
use self::position::{Drawn, Position};
use self::sight::{Row, Sight};
use crate::commit;
use crate::package::Loaded;

/// Positions computed together: enough to use a matrix well.
const POSITIONS_AT_ONCE: usize = 32;
/// Bytes that may be held of what a pass shows, but for one position at least.
const SHOWN_BYTES_MAX: usize = 128 << 20;
/// Positions whose leaves are kept after they were asked for.
const POSITIONS_KEPT: usize = 4;

/// The trace of one answer by one model. Asking for a part may compute a position again.
///
/// If the output holds a token that the model does not have, positions from there on have no
/// leaves here: the link that fails comes before them.
pub struct Trace {
    loaded: Arc<Loaded>,
    cpu: Arc<Cpu>,
    claimed: Claimed,
    /// The model's tensors in the order of its manifest.
    roles: Vec<Role>,
    /// The number of every step.
    steps: HashMap<Op, u32>,
    /// What goes in, for as many positions as were computed.
    inputs: Vec<u32>,
    past: Past,
    cache: Cache,
    /// The chained state at every position that answers, in order.
    states: Vec<B256>,
    /// The leaves of TOKEN there: whoever looks for a link that fails reads them all.
    draws: Vec<Leaves>,
    spine: Spine,
    /// The positions that were asked for last, the latest in front.
    recent: Mutex<VecDeque<(u32, Arc<Page>)>>,
}

/// All leaves of one position, by op.
type Page = Vec<Leaves>;

impl Trace {
    /// Computes the trace of `answer`, which need not be what the model gives: the trace then is
    /// that of the model's own computation on the answered tokens, and a link or the last state
    /// does not hold. Signatures are not looked at.
    ///
    /// `progress` is told the positions computed so far, and how many there are.
    ///
    /// # Errors
    /// If the answer is by another model, the model is not what its manifest says, the order is
    /// not about the answer's terms, or its tokens do not fit the model.
    pub fn compute(
        loaded: Arc<Loaded>,
        cpu: Arc<Cpu>,
        answer: &Answer,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, TraceError> {
        let model = loaded.id;
        Self::compute_as(loaded, cpu, answer, model, progress)
    }

    /// As [`Trace::compute`], with a model that passes itself off as `model`: the trace of what
    /// was really computed for an answer that was sold as another model's.
    ///
    /// # Errors
    /// As [`Trace::compute`].
    pub fn compute_as(
        loaded: Arc<Loaded>,
        cpu: Arc<Cpu>,
        answer: &Answer,
        model: ModelId,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, TraceError> {
        if !loaded.model.is_judged() {
            let (graph, offered) = (loaded.model.shape().graph(), loaded.assurance());
            return Err(match graph.judged {
                true => TraceError::UnjudgedWeights { offered },
                false => TraceError::Unjudged { family: loaded.model.shape().family, offered },
            });
        }
        let claimed = Claimed::new(&loaded, model, answer)?;
        let mut run = Run::new(&loaded, &claimed);
        run.forward(&cpu, progress)?;
        let Run { past, cache, states, draws, roots, steps, inputs, .. } = run;
        Ok(Self {
            roles: loaded.model.shape().roles(),
            spine: Spine::new(roots),
            recent: Mutex::default(),
            loaded,
            cpu,
            claimed,
            steps,
            inputs,
            past,
            cache,
            states,
            draws,
        })
    }

    /// What the trace is a function of.
    pub fn claim(&self) -> Claim<'_> {
        self.claimed.claim()
    }

    /// The chained state after each output token, as the model computes it.
    pub fn states(&self) -> &[B256] {
        &self.states
    }

    /// All leaves of a position, computed again unless somebody just asked for them; nothing at a
    /// position that was not computed.
    fn page(&self, position: u32) -> Option<Arc<Page>> {
        if position as usize >= self.inputs.len() {
            return None;
        }
        if let Some(page) = self.recent(position) {
            return Some(page);
        }
        let page = Arc::new(self.compute_page(position));
        // Whoever panicked with the lock held left whole entries behind.
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_front((position, Arc::clone(&page)));
        recent.truncate(POSITIONS_KEPT);
        Some(page)
    }

    fn recent(&self, position: u32) -> Option<Arc<Page>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let at = recent.iter().position(|(kept, _)| *kept == position)?;
        let entry = recent.remove(at)?;
        let page = Arc::clone(&entry.1);
        recent.push_front(entry);
        Some(page)
    }

    fn compute_page(&self, position: u32) -> Page {
        const AGAIN: &str = "a position that was computed once can be computed again";
        let claim = self.claim();
        let mut cache = self.cache.prefix(position as usize);
        let input = Input {
            token: self.inputs[position as usize],
            sequence: 0,
            wanted: claim.answers(position),
        };
        let mut sight = Sight::new(&self.steps, 1);
        let (caches, mut scratch) = (&mut [&mut cache], Scratch::default());
        let model = &self.loaded.model;
        model.forward(&self.cpu, &[input], caches, &mut scratch, &mut sight).expect(AGAIN);
        let mut page = Page::with_capacity(claim.program.len() + 1);
        let position = Position { claim: &claim, position, row: &sight.rows[0], past: &self.past };
        position.write(&mut |leaves| page.push(leaves)).expect(AGAIN);
        page.push(self.state_leaves(position.position));
        page
    }

    /// STATE.
    fn state_leaves(&self, position: u32) -> Leaves {
        let index = self.claim().index(position);
        let state = index.and_then(|index| self.states.get(index as usize));
        let mut leaves = Leaves::default();
        state.into_iter().for_each(|state| leaves.push_state(*state));
        leaves
    }

    /// A leaf of the trace. What is read of many positions is at hand: keys and values, draws and
    /// states.
    fn leaf(&self, Place { position, op, leaf }: Place) -> Option<Vec<u8>> {
        if position as usize >= self.inputs.len() {
            return None;
        }
        if let Some(records) = self.past.records(op) {
            return records.leaf(position as usize, leaf);
        }
        let claim = self.claim();
        let Some(step) = claim.program.get(op as usize) else {
            let state = op as usize == claim.program.len();
            return self.state_leaves(position).leaf(leaf).filter(|_| state).map(<[u8]>::to_vec);
        };
        if step.kind == Kind::Token {
            let draw = self.draws.get(claim.index(position)? as usize)?;
            return draw.leaf(leaf).map(<[u8]>::to_vec);
        }
        self.page(position)?.get(op as usize)?.leaf(leaf).map(<[u8]>::to_vec)
    }
}

impl Openings for Trace {
    fn open(&self, source: Source) -> Option<Cow<'_, [u8]>> {
        let model = &self.loaded.model;
        let data = match source {
            Source::Trace(place) => self.leaf(place),
            Source::Weights { tensor, leaf } => {
                let role = self.roles.get(usize::try_from(tensor).ok()?)?;
                commit::tensor_leaf(model, *role, leaf)
            }
            Source::Rope { leaf } => commit::rope_leaf(model, leaf),
        };
        data.map(Cow::from)
    }
}

impl dispute::Trace for Trace {
    fn spine(&self) -> &Spine {
        &self.spine
    }

    fn leaves(&self, position: u32, op: u32) -> Nodes {
        let page = self.page(position);
        let leaves = page.as_ref().and_then(|page| page.get(op as usize));
        leaves.map_or_else(|| Nodes::new(Vec::new()), Leaves::nodes)
    }
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trace")
            .field("model", &self.loaded.id)
            .field("positions", &self.inputs.len())
            .field("root", &self.spine.root())
            .finish_non_exhaustive()
    }
}

/// A trace on its way.
struct Run<'a> {
    loaded: &'a Loaded,
    claim: Claim<'a>,
    steps: HashMap<Op, u32>,
    inputs: Vec<u32>,
    past: Past,
    cache: Cache,
    states: Vec<B256>,
    draws: Vec<Leaves>,
    /// The roots of every position's ops.
    roots: Vec<Vec<B256>>,
}

/// What is kept of a position at first.
struct Outcome {
    /// The roots of its steps.
    roots: Vec<B256>,
    drawn: Option<Drawn>,
}

impl<'a> Run<'a> {
    fn new(loaded: &'a Loaded, claimed: &'a Claimed) -> Self {
        let (claim, model) = (claimed.claim(), &loaded.model);
        let steps = program(model.shape(), model.precision());
        Self {
            loaded,
            steps: (0..).zip(steps).map(|(index, step)| (step.op, index)).collect(),
            inputs: claimed.inputs(),
            past: Past::new(&claim),
            cache: Cache::new(model.shape()),
            states: Vec::new(),
            draws: Vec::new(),
            roots: Vec::new(),
            claim,
        }
    }

    /// Computes every position.
    fn forward(&mut self, cpu: &Cpu, progress: &mut dyn FnMut(u64, u64)) -> Result<(), TraceError> {
        let (inputs, mut scratch) = (self.inputs.clone(), Scratch::default());
        for tokens in inputs.chunks(self.positions_at_once()) {
            let first = self.cache.len() as u32;
            let rows = self.chunk(cpu, tokens, &mut scratch)?;
            rows.iter().for_each(|row| self.past.push(row));
            let outcomes: Result<Vec<Outcome>, RuleError> = (first..first + rows.len() as u32)
                .into_par_iter()
                .zip(&rows)
                .map(|(position, row)| self.outcome(position, row))
                .collect();
            outcomes?.into_iter().for_each(|outcome| self.keep(outcome));
            progress(self.cache.len() as u64, inputs.len() as u64);
        }
        let unknown = self.claim.positions() as usize - inputs.len();
        let nothing = vec![B256::ZERO; self.claim.ops() as usize];
        self.roots.extend(std::iter::repeat_n(nothing, unknown));
        Ok(())
    }

    /// Runs the next positions and watches them.
    fn chunk(
        &mut self,
        cpu: &Cpu,
        tokens: &[u32],
        scratch: &mut Scratch,
    ) -> Result<Vec<Row>, ForwardError> {
        let input = |(position, token): (u32, &u32)| Input {
            token: *token,
            sequence: 0,
            wanted: self.claim.answers(position),
        };
        let rows: Vec<Input> = (self.cache.len() as u32..).zip(tokens).map(input).collect();
        let mut sight = Sight::new(&self.steps, rows.len());
        let (model, caches) = (&self.loaded.model, &mut [&mut self.cache]);
        let output = model.forward(cpu, &rows, caches, scratch, &mut sight)?;
        scratch.recycle(output);
        Ok(sight.rows)
    }

    fn outcome(&self, position: u32, row: &Row) -> Result<Outcome, RuleError> {
        let mut roots = Vec::with_capacity(self.claim.program.len() + 1);
        let position = Position { claim: &self.claim, position, row, past: &self.past };
        let drawn = position.write(&mut |leaves| roots.push(leaves.root()))?;
        Ok(Outcome { roots, drawn })
    }

    /// Adds the chained state to a position's roots.
    fn keep(&mut self, Outcome { mut roots, drawn }: Outcome) {
        let mut state = B256::ZERO;
        if let Some(Drawn { token, hidden, leaves }) = drawn {
            let before = self.states.last().copied().unwrap_or(self.claim.order);
            let after = State(before).next(token, hidden).0;
            // A tree of one leaf is that leaf.
            state = leaf_hash(&after.0);
            self.states.push(after);
            self.draws.push(leaves);
        }
        roots.push(state);
        self.roots.push(roots);
    }

    /// Positions of a chunk, so that what they show stays within its bound.
    fn positions_at_once(&self) -> usize {
        let numbers: usize = self.claim.program.iter().map(|step| step.outputs as usize).sum();
        (SHOWN_BYTES_MAX / (4 * numbers)).clamp(1, POSITIONS_AT_ONCE)
    }
}

#[cfg(test)]
mod tests;
