//! One leaf of a trace, from the leaves that it reads.
//!
//! This is trace.md as code: which leaves each op reads, and which rule makes an element of them.
//! Applied to every leaf in order it writes a whole trace, plainly and slowly; applied to one leaf
//! of a trace that a stranger committed to, it says what should stand there.

use std::borrow::Cow;

use assay_protocol::{B256, fixed_leaf};

use super::claim::{Claim, Place, Source, Tree};
use super::error::RuleError;
use super::leaf::{ActivationLeaf, FixedLeaf, WeightLeaf, WideLeaf};
use super::program::{Kind, Step};
use super::sample::Check;
use super::{attention, element, ending, norm, product, reduce, sample};

/// Finds the leaves that a rule reads.
pub trait Openings {
    /// The data of a leaf; nothing if it is not at hand.
    fn open(&self, source: Source) -> Option<Cow<'_, [u8]>>;
}

/// Why a leaf cannot be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecomputeError {
    /// A leaf that it depends on is not at hand.
    #[error("a leaf is missing: {0:?}")]
    Missing(Source),
    /// A rule refuses what it read.
    #[error(transparent)]
    Refused(#[from] RuleError),
    /// The program or the place makes no sense for this claim.
    #[error("nothing can stand at {0:?}")]
    Nowhere(Place),
}

/// What a rule gives, or why it does not.
pub(super) type Recomputed<T> = Result<T, RecomputeError>;

/// The data of the leaf at `place`; nothing for advice, which no rule of its own determines.
///
/// # Errors
/// If a leaf that it reads is missing or refused, or there is no such place.
pub fn recompute(
    claim: &Claim<'_>,
    openings: &dyn Openings,
    place: Place,
) -> Recomputed<Option<Vec<u8>>> {
    leaf(&At { claim, openings, place, only: None })
}

/// As [`recompute`], but only the given element of the leaf need be right: only what that element
/// is computed from is read.
pub(super) fn recompute_element(
    claim: &Claim<'_>,
    openings: &dyn Openings,
    place: Place,
    element: usize,
) -> Recomputed<Option<Vec<u8>>> {
    leaf(&At { claim, openings, place, only: Some(element) })
}

fn leaf(at: &At<'_>) -> Recomputed<Option<Vec<u8>>> {
    let At { claim, place, .. } = *at;
    let layout = claim.layout(place.position, place.op);
    if place.leaf >= super::leaves(&layout) {
        return Err(RecomputeError::Nowhere(place));
    }
    let Some(step) = claim.program.get(place.op as usize) else {
        return at.state().map(|state| Some(state.to_vec()));
    };
    Ok(Some(match step.kind {
        Kind::Embed => at.embed(step)?,
        Kind::NormStat1 | Kind::NormStat2 | Kind::NormStatFinal => at.statistics(step)?,
        Kind::Norm1 | Kind::Norm2 | Kind::NormFinal => at.norm(step)?,
        Kind::Quantise1
        | Kind::QuantiseAttention
        | Kind::Quantise2
        | Kind::QuantiseHidden
        | Kind::QuantiseFinal => at.quantise(step)?,
        Kind::QuantiseQuery | Kind::QuantiseKey | Kind::QuantiseValue => at.quantise_head(step)?,
        Kind::Query
        | Kind::Key
        | Kind::Value
        | Kind::AttentionOutput
        | Kind::Gate
        | Kind::Up
        | Kind::Down
        | Kind::Logits => at.product(step)?,
        Kind::RopeQuery | Kind::RopeKey => at.rope(step)?,
        Kind::Score => at.score(step)?,
        Kind::ScoreMax => at.softmax(step)?,
        Kind::BlockShift => at.block_shifts(step)?,
        Kind::Attend => at.attend(step)?,
        Kind::Residual1 | Kind::Residual2 => at.pairwise(step, |x, y| Ok(element::add(x, y)))?,
        Kind::Activation => {
            at.pairwise(step, |gate, up| element::activate(gate, up, step.frac_out))?
        }
        Kind::Sample => return sample::sample(at, step),
        Kind::Token => sample::token(at, step)?,
    }))
}

/// Whether a check holds: beside TOKEN for the link, beside SMPL for the thresholds. `op` names
/// that step.
///
/// # Errors
/// If a leaf that it reads is missing or malformed.
pub fn check(
    claim: &Claim<'_>,
    openings: &dyn Openings,
    position: u32,
    op: u32,
    check: Check,
) -> Result<bool, RecomputeError> {
    let place = Place { position, op, leaf: 0 };
    if super::leaves(&claim.layout(position, op)) == 0 {
        return Err(RecomputeError::Nowhere(place));
    }
    sample::holds(&At { claim, openings, place, only: None }, check)
}

/// A leaf that is being computed.
pub(super) struct At<'a> {
    pub(super) claim: &'a Claim<'a>,
    pub(super) openings: &'a dyn Openings,
    pub(super) place: Place,
    /// The one element that is wanted, if not all are.
    pub(super) only: Option<usize>,
}

impl At<'_> {
    /// Whether an element of the leaf is wanted.
    fn wants(&self, element: u64) -> bool {
        self.only.is_none_or(|only| only as u64 == element)
    }

    pub(super) fn open(&self, source: Source) -> Recomputed<Cow<'_, [u8]>> {
        self.openings.open(source).ok_or(RecomputeError::Missing(source))
    }

    /// Leaf `leaf` of another op at this position.
    pub(super) fn here(&self, op: u32, leaf: u64) -> Recomputed<Cow<'_, [u8]>> {
        self.open(Source::Trace(Place { op, leaf, ..self.place }))
    }

    pub(super) fn fixed(&self, op: u32, leaf: u64) -> Recomputed<FixedLeaf> {
        Ok(FixedLeaf::read(&self.here(op, leaf)?)?)
    }

    pub(super) fn wide(&self, op: u32, leaf: u64) -> Recomputed<WideLeaf> {
        Ok(WideLeaf::read(&self.here(op, leaf)?)?)
    }

    /// Positions that are attended to.
    pub(super) fn attended(&self) -> u64 {
        u64::from(self.place.position) + 1
    }

    /// Elements of this leaf, of a section that has so many and begins at leaf `first`.
    pub(super) fn elements(&self, first: u64, elements: u64) -> std::ops::Range<u64> {
        let from = 32 * (self.place.leaf - first);
        from..elements.min(from + 32)
    }

    /// A leaf of fixed-point numbers, element by element.
    pub(super) fn write_fixed(
        &self,
        range: std::ops::Range<u64>,
        mut rule: impl FnMut(u64) -> Recomputed<i32>,
    ) -> Recomputed<Vec<u8>> {
        let mut value = |element| if self.wants(element % 32) { rule(element) } else { Ok(0) };
        let values: Vec<i32> = range.map(&mut value).collect::<Recomputed<_>>()?;
        Ok(fixed_leaf(&values).to_vec())
    }

    /// A leaf of a tree: words by `lowest` at the leaves' level, by `join` above it. `lowest` is
    /// told which leaf of the reduced section it reads, and how many of its elements count.
    pub(super) fn write_tree(
        &self,
        tree: &Tree,
        mut lowest: impl FnMut(u64, usize) -> Recomputed<u64>,
        join: impl Fn(&WideLeaf, usize) -> Result<u64, RuleError>,
    ) -> Recomputed<Vec<u8>> {
        let (level, first) = tree.find(self.place.leaf).ok_or(self.nowhere())?;
        let mut words = Vec::new();
        for word in first..tree.levels[level].min(first + 32) {
            let joined = tree.joined(level, word);
            words.push(match level {
                _ if !self.wants(word % 32) => 0,
                0 => lowest(word, joined)?,
                _ => join(&self.wide(self.place.op, tree.level(level - 1) + word)?, joined)?,
            });
        }
        Ok(WideLeaf::write(&words).to_vec())
    }

    /// The top of a tree of another op, or of this one.
    pub(super) fn top(&self, op: u32, tree: &Tree) -> Recomputed<u64> {
        Ok(self.wide(op, tree.top())?.0[0])
    }

    pub(super) fn nowhere(&self) -> RecomputeError {
        RecomputeError::Nowhere(self.place)
    }

    fn embed(&self, step: &Step) -> Recomputed<Vec<u8>> {
        let token = self.claim.input(self.place.position).ok_or(self.nowhere())?;
        let chunks = u64::from(self.claim.model.width.div_ceil(128));
        let leaf = u64::from(token) * chunks + self.place.leaf / 4;
        let weights = WeightLeaf::read(&self.open(Source::Weights { tensor: step.tensor, leaf })?)?;
        self.write_fixed(self.elements(0, step.outputs.into()), |element| {
            Ok(element::embed(&weights, element as usize % 128, step.frac_out)?)
        })
    }

    fn statistics(&self, step: &Step) -> Recomputed<Vec<u8>> {
        let [residual, ..] = step.inputs;
        let width = u64::from(step.terms);
        let magnitudes = Tree::new(0, width);
        let squares = Tree::new(magnitudes.top() + 1, width);
        let leaf = self.place.leaf;
        if leaf <= magnitudes.top() {
            let lowest =
                |leaf, count| Ok(norm::largest_magnitude(&self.fixed(residual, leaf)?, count)?);
            return self.write_tree(&magnitudes, lowest, reduce::maximum);
        }
        let shift = norm::norm_shift(self.top(self.place.op, &magnitudes)?);
        if leaf <= squares.top() {
            let lowest = |leaf, count| {
                word(norm::sum_of_squares(&self.fixed(residual, leaf)?, count, shift)?, self)
            };
            return self.write_tree(&squares, lowest, total);
        }
        let sum = self.top(self.place.op, &squares)?;
        let eps = self.claim.model.norm_eps;
        let (factor, right) = norm::inverse_root(sum, step.terms, eps, shift)?;
        Ok(WideLeaf::write(&[shift, factor, right]).to_vec())
    }

    fn norm(&self, step: &Step) -> Recomputed<Vec<u8>> {
        let [residual, statistics, ..] = step.inputs;
        let tree = Tree::new(0, step.outputs.into());
        let [shift, factor, right, ..] = self.wide(statistics, 2 * (tree.top() + 1))?.0;
        let x = self.fixed(residual, self.place.leaf)?;
        let source = Source::Weights { tensor: step.tensor, leaf: self.place.leaf };
        let gain = FixedLeaf::read(&self.open(source)?)?;
        self.write_fixed(self.elements(0, step.outputs.into()), |element| {
            let at = element as usize % 32;
            Ok(norm(x.0[at], gain.0[at], shift, factor, right, step.frac_out)?)
        })
    }

    /// Four groups, of which some may lie beyond the vector.
    fn write_groups(
        &self,
        leaf_of: impl Fn(u64) -> Option<u64>,
        input: u32,
    ) -> Recomputed<Vec<u8>> {
        let (mut scales, mut quants) = ([1; 4], [0; 128]);
        for group in (0..4).filter(|group| self.wants(*group)) {
            let Some(leaf) = leaf_of(group) else { continue };
            let quantised = element::quantise(&self.fixed(input, leaf)?);
            scales[group as usize] = quantised.scale;
            quants[32 * group as usize..][..32].copy_from_slice(&quantised.quants);
        }
        Ok(assay_protocol::activation_leaf(&scales, &quants).to_vec())
    }

    fn quantise(&self, step: &Step) -> Recomputed<Vec<u8>> {
        let groups = u64::from(step.outputs).div_ceil(32);
        let leaf_of = |group| Some(4 * self.place.leaf + group).filter(|leaf| *leaf < groups);
        self.write_groups(leaf_of, step.inputs[0])
    }

    fn quantise_head(&self, step: &Step) -> Recomputed<Vec<u8>> {
        let head_dim = u64::from(self.claim.model.head_dim);
        let (per_head, groups) = (head_dim.div_ceil(128), head_dim / 32);
        let (head, part) = (self.place.leaf / per_head, self.place.leaf % per_head);
        let leaf_of = |group| {
            Some(4 * part + group).filter(|group| *group < groups).map(|g| head * groups + g)
        };
        self.write_groups(leaf_of, step.inputs[0])
    }

    fn product(&self, step: &Step) -> Recomputed<Vec<u8>> {
        let chunks = u64::from(step.terms).div_ceil(128);
        let input: Vec<ActivationLeaf> = (0..chunks)
            .map(|chunk| Ok(ActivationLeaf::read(&self.here(step.inputs[0], chunk)?)?))
            .collect::<Recomputed<_>>()?;
        self.write_fixed(self.elements(0, step.outputs.into()), |row| {
            let (mut partials, mut exponent) = (Vec::new(), 0);
            for (chunk, x) in (0..).zip(&input) {
                let source = Source::Weights { tensor: step.tensor, leaf: row * chunks + chunk };
                let weights = WeightLeaf::read(&self.open(source)?)?;
                partials.push(product::chunk(&weights, x));
                exponent = i32::from(weights.exponent);
            }
            let shift = exponent + i32::from(step.frac_in) - i32::from(step.frac_out);
            Ok(product(&partials, shift)?)
        })
    }

    fn rope(&self, step: &Step) -> Recomputed<Vec<u8>> {
        let (dim, halves) = (u64::from(self.claim.model.head_dim), self.claim.model.halves);
        let per_row = (dim / 2).div_ceil(32);
        let number = |source: Source, index: u64| -> Recomputed<i32> {
            Ok(FixedLeaf::read(&self.open(source)?)?.0[index as usize % 32])
        };
        self.write_fixed(self.elements(0, step.outputs.into()), |element| {
            let (head, within) = (element / dim * dim, element % dim);
            let pair = if halves { within % (dim / 2) } else { within / 2 };
            let [a, b] = if halves { [pair, pair + dim / 2] } else { [2 * pair, 2 * pair + 1] };
            let input = |index: u64| {
                let place = Place { op: step.inputs[0], leaf: (head + index) / 32, ..self.place };
                number(Source::Trace(place), head + index)
            };
            let cosines = u64::from(self.place.position) * 2 * per_row + pair / 32;
            let cos = number(Source::Rope { leaf: cosines }, pair)?;
            let sin = number(Source::Rope { leaf: cosines + per_row }, pair)?;
            let (first, second) = element::rope(input(a)?, input(b)?, cos, sin)?;
            Ok(if within == a { first } else { second })
        })
    }

    /// Which key and value head serves a head.
    pub(super) fn shared(&self, head: u64) -> u64 {
        head * u64::from(self.claim.model.kv_heads) / u64::from(self.claim.model.heads)
    }

    fn score(&self, step: &Step) -> Recomputed<Vec<u8>> {
        let [queries, keys, ..] = step.inputs;
        let leaves = self.attended().div_ceil(32);
        let head = self.place.leaf / leaves;
        let per_head = u64::from(self.claim.model.head_dim).div_ceil(128);
        let record = |position: u32, op: u32, head: u64, part: u64| -> Recomputed<ActivationLeaf> {
            let place = Place { position, op, leaf: head * per_head + part };
            Ok(ActivationLeaf::read(&self.open(Source::Trace(place))?)?)
        };
        self.write_fixed(self.elements(head * leaves, self.attended()), |position| {
            let mut partials = Vec::new();
            for part in 0..per_head {
                let query = record(self.place.position, queries, head, part)?;
                let key = record(position as u32, keys, self.shared(head), part)?;
                partials.push(attention::chunk_of_records(&query, &key));
            }
            let factor = self.claim.model.attention_q30;
            Ok(attention::score(&partials, step.frac_in, factor)?)
        })
    }

    /// The two trees of a head in the op that holds largest scores and sums of weights.
    pub(super) fn softmax_trees(&self, head: u64) -> [Tree; 2] {
        let size = Tree::new(0, self.attended()).top() + 1;
        [0, 1].map(|tree| Tree::new((2 * head + tree) * size, self.attended()))
    }

    fn softmax(&self, step: &Step) -> Recomputed<Vec<u8>> {
        let size = Tree::new(0, self.attended()).top() + 1;
        let head = self.place.leaf / (2 * size);
        let scores = head * self.attended().div_ceil(32);
        let [largest, weights] = self.softmax_trees(head);
        if self.place.leaf <= largest.top() {
            let lowest = |leaf, count| {
                let scores = self.fixed(step.inputs[0], scores + leaf)?;
                Ok(attention::largest_score(&scores, count)?.cast_unsigned())
            };
            return self.write_tree(&largest, lowest, maximum_signed);
        }
        let top = self.top(self.place.op, &largest)?.cast_signed();
        let lowest = |leaf, count| {
            let scores = self.fixed(step.inputs[0], scores + leaf)?;
            Ok(attention::weight_sum(&scores, count, top)?)
        };
        self.write_tree(&weights, lowest, total)
    }

    /// The weights of one block of positions.
    pub(super) fn block(
        &self,
        scores: u32,
        softmax: u32,
        head: u64,
        block: u64,
    ) -> Recomputed<attention::Block> {
        let count = (self.attended() - 64 * block).min(64) as usize;
        let [largest, _] = self.softmax_trees(head);
        let top = self.top(softmax, &largest)?.cast_signed();
        let lower = head * self.attended().div_ceil(32) + 2 * block;
        let upper = if count > 32 { self.here(scores, lower + 1)? } else { Cow::default() };
        Ok(attention::Block::read(&self.here(scores, lower)?, &upper, count, top)?)
    }

    /// The records of a head's values that hold a dimension, at every attended position.
    fn values(&self, op: u32, head: u64, dim: u64) -> Recomputed<Vec<ActivationLeaf>> {
        let per_head = u64::from(self.claim.model.head_dim).div_ceil(128);
        let leaf = self.shared(head) * per_head + dim / 128;
        let record = |position| {
            let place = Place { position, op, leaf };
            Ok(ActivationLeaf::read(&self.open(Source::Trace(place))?)?)
        };
        (0..=self.place.position).map(record).collect()
    }

    fn block_shifts(&self, step: &Step) -> Recomputed<Vec<u8>> {
        let [scores, softmax, values, _] = step.inputs;
        let blocks = self.attended().div_ceil(64);
        let leaves = blocks.div_ceil(32);
        let series = self.place.leaf / leaves;
        let groups = u64::from(self.claim.model.head_dim / 32);
        let (head, group) = (series / groups, series % groups);
        let values = self.values(values, head, 32 * group)?;
        self.write_fixed(self.elements(series * leaves, blocks), |block| {
            let values = values.iter().skip(64 * block as usize).take(64);
            let scales: Vec<u8> =
                values.flat_map(|record| record.scales[group as usize % 4].to_be_bytes()).collect();
            let block = self.block(scores, softmax, head, block)?;
            Ok(attention::block_shift(&block, &scales)? as i32)
        })
    }

    fn attend(&self, step: &Step) -> Recomputed<Vec<u8>> {
        let [values, scores, softmax, shifts] = step.inputs;
        let head_dim = u64::from(self.claim.model.head_dim);
        let blocks = self.attended().div_ceil(64);
        // The 32 elements of a leaf are one group of one head.
        let (head, first) = (32 * self.place.leaf / head_dim, 32 * self.place.leaf % head_dim);
        let values = self.values(values, head, first)?;
        let weights: Vec<attention::Block> = (0..blocks)
            .map(|block| self.block(scores, softmax, head, block))
            .collect::<Recomputed<_>>()?;
        let series = self.place.leaf * blocks.div_ceil(32);
        let [_, tree] = self.softmax_trees(head);
        let total = self.top(softmax, &tree)?;
        self.write_fixed(self.elements(0, step.outputs.into()), |element| {
            let dim = (element % head_dim) as usize % 128;
            let mut sums = Vec::new();
            for (block, (weights, values)) in weights.iter().zip(values.chunks(64)).enumerate() {
                let pair = |record: &ActivationLeaf| {
                    let [high, low] = record.scales[dim / 32].to_be_bytes();
                    [high, low, record.quants[dim].cast_unsigned() ^ 0x80]
                };
                let pairs: Vec<u8> = values.iter().flat_map(pair).collect();
                let shift = self.fixed(shifts, series + block as u64 / 32)?.0[block % 32];
                // A negative word is far out of bounds either way.
                let shift = i64::from(shift).cast_unsigned();
                sums.push(attention::block_sum(weights, shift, &pairs)?);
            }
            Ok(attention::attend(&sums, total, step.frac_in, step.frac_out)?)
        })
    }

    fn pairwise(
        &self,
        step: &Step,
        rule: impl Fn(i32, i32) -> Result<i32, RuleError>,
    ) -> Recomputed<Vec<u8>> {
        let [x, y, ..] = step.inputs;
        let [x, y] = [self.fixed(x, self.place.leaf)?, self.fixed(y, self.place.leaf)?];
        self.write_fixed(self.elements(0, step.outputs.into()), |element| {
            let at = element as usize % 32;
            Ok(rule(x.0[at], y.0[at])?)
        })
    }

    fn state(&self) -> Recomputed<B256> {
        let Place { position, op, .. } = self.place;
        let before = match self.claim.index(position) {
            Some(0) => self.claim.order,
            _ => {
                let place = Place { position: position - 1, op, leaf: 0 };
                let bytes = self.open(Source::Trace(place))?;
                let wrong = RuleError::Length { found: bytes.len(), expected: 32 };
                B256::try_from(&*bytes).map_err(|_| wrong)?
            }
        };
        let step = |kind| self.claim.program.iter().position(|step| step.kind == kind);
        let [hidden, token] =
            [Kind::QuantiseFinal, Kind::Token].map(|kind| step(kind).ok_or(self.nowhere()));
        let mut leaves = Vec::new();
        for leaf in 0..u64::from(self.claim.model.width).div_ceil(128) {
            leaves.extend_from_slice(&self.here(hidden? as u32, leaf)?);
        }
        let words = self.wide(token? as u32, 0)?;
        let token = words.0[sample::token_word(self.claim)];
        Ok(ending::state(before, token as u32, &leaves)?)
    }
}

/// A sum as a word; one that exceeds it stands for no honest trace.
fn word(sum: u128, at: &At<'_>) -> Recomputed<u64> {
    u64::try_from(sum).map_err(|_| at.nowhere())
}

/// As [`reduce::total`], for words that an honest trace holds.
pub(super) fn total(words: &WideLeaf, count: usize) -> Result<u64, RuleError> {
    let sum = reduce::total(words, count)?;
    let what = super::Quantity::Weights;
    u64::try_from(sum).map_err(|_| RuleError::OutOfBounds { what, found: sum as i128 })
}

/// As [`reduce::maximum_signed`], as a word.
pub(super) fn maximum_signed(words: &WideLeaf, count: usize) -> Result<u64, RuleError> {
    reduce::maximum_signed(words, count).map(i64::cast_unsigned)
}
