//! The lists by which a provider lets a judge see an element that follows from many leaves.
//!
//! A product, a shift of a block, a mean of values and an adjusted logit read more than a
//! transaction should bring. Their provider reveals a list that gives the element; whoever doubts
//! one entry names it, and that entry follows from a few leaves, or from a next list.

use super::claim::{Claim, Place, Source};
use super::leaf::{ActivationLeaf, WeightLeaf, partials};
use super::program::{Kind, Step};
use super::recompute::{At, Openings, RecomputeError, Recomputed};
use super::sampling::{Hits, adjust};
use super::{attention, product};

/// What is revealed of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// Of a product: the sum of every 128 columns, 64 bits each.
    Partials,
    /// Of a shift of a block: the scales of the block's values, 16 bits each.
    Scales,
    /// Of a mean: the sum of every block, 64 bits each. One of them follows from [`Round::Values`].
    Sums,
    /// Of the sum of a block: scale (16 bits) and number (8 bits, `q ^ 0x80`) of its values.
    Values {
        /// Which block.
        block: u32,
    },
    /// Of an adjusted logit: how many of every 32 inputs are its token, in the prompt and in the
    /// output, 8 bits each.
    Hits,
}

impl Round {
    /// The list that is revealed first for an element of the leaf at `place`; none where its
    /// rule reads few leaves.
    pub fn first(claim: &Claim<'_>, place: Place) -> Option<Self> {
        match claim.program.get(place.op as usize)?.kind {
            Kind::Query | Kind::Key | Kind::Value | Kind::AttentionOutput => Some(Self::Partials),
            Kind::Gate | Kind::Up | Kind::Down | Kind::Logits => Some(Self::Partials),
            Kind::BlockShift => Some(Self::Scales),
            Kind::Attend => Some(Self::Sums),
            Kind::Sample => {
                let adjusted = u64::from(claim.model.vocab).div_ceil(32);
                (claim.sampling().adjusted && place.leaf < adjusted).then_some(Self::Hits)
            }
            _ => None,
        }
    }

    /// Bytes of an entry.
    pub fn entry_bytes(self) -> usize {
        match self {
            Self::Partials | Self::Sums => 8,
            Self::Scales | Self::Hits => 2,
            Self::Values { .. } => 3,
        }
    }
}

/// An element whose list is looked at.
pub struct Revealed<'a> {
    at: At<'a>,
    step: &'a Step,
    /// Which number of the op's output it is, heads and series not padded.
    element: u64,
    round: Round,
}

impl<'a> Revealed<'a> {
    /// Element `element` of the leaf at `place`, in a round that [`Round::first`] or the round
    /// before it names.
    ///
    /// # Errors
    /// If there is no such element, or it has no such round.
    pub fn new(
        claim: &'a Claim<'a>,
        openings: &'a dyn Openings,
        place: Place,
        element: usize,
        round: Round,
    ) -> Result<Self, RecomputeError> {
        let nowhere = RecomputeError::Nowhere(place);
        let first = Round::first(claim, place).ok_or(nowhere)?;
        let begins = match round {
            Round::Values { .. } => Round::Sums,
            round => round,
        };
        let step = claim.program.get(place.op as usize).ok_or(nowhere)?;
        let at = At { claim, openings, place, only: None };
        let number = 32 * place.leaf + element as u64;
        let (series, blocks) = at.series();
        let exists = match round {
            Round::Scales => 32 * (place.leaf % series) + (element as u64) < blocks,
            Round::Hits => number < u64::from(claim.model.vocab),
            Round::Values { block } => {
                number < u64::from(step.outputs) && u64::from(block) < blocks
            }
            Round::Partials | Round::Sums => number < u64::from(step.outputs),
        };
        let leaf = place.leaf < super::leaves(&claim.layout(place.position, place.op));
        if begins != first || element >= 32 || !exists || !leaf {
            return Err(nowhere);
        }
        Ok(Self { at, step, element: number, round })
    }

    /// Entries of the list.
    pub fn entries(&self) -> u64 {
        let attended = self.at.attended();
        match self.round {
            Round::Partials => u64::from(self.step.terms).div_ceil(128),
            Round::Sums => attended.div_ceil(64),
            Round::Hits => attended.div_ceil(32),
            Round::Scales | Round::Values { .. } => (attended - 64 * self.block()).min(64),
        }
    }

    /// What an entry has to be.
    ///
    /// # Errors
    /// If a leaf that it reads is missing or malformed, or there is no such entry.
    pub fn entry(&self, index: u64) -> Result<Vec<u8>, RecomputeError> {
        if index >= self.entries() {
            return Err(self.at.nowhere());
        }
        Ok(match self.round {
            Round::Partials => self.partial(index)?.to_be_bytes().to_vec(),
            Round::Scales => {
                let (scale, _) = self.value(64 * self.block() + index)?;
                scale.to_be_bytes().to_vec()
            }
            Round::Sums => {
                let round = Round::Values { block: index as u32 };
                let next = Self { at: At { ..self.at }, round, ..*self };
                next.gives(&next.list()?)?.to_be_bytes().to_vec()
            }
            Round::Values { .. } => {
                let (scale, quant) = self.value(64 * self.block() + index)?;
                let [high, low] = scale.to_be_bytes();
                vec![high, low, quant.cast_unsigned() ^ 0x80]
            }
            Round::Hits => {
                let hits = self.hits(32 * index);
                vec![hits.prompt as u8, hits.output as u8]
            }
        })
    }

    /// The whole list: what an honest provider reveals.
    ///
    /// # Errors
    /// As [`Revealed::entry`].
    pub fn list(&self) -> Result<Vec<u8>, RecomputeError> {
        let entries = (0..self.entries()).map(|index| self.entry(index));
        Ok(entries.collect::<Recomputed<Vec<_>>>()?.concat())
    }

    /// The element, or the block's sum, that a list gives.
    ///
    /// # Errors
    /// If a leaf is missing or malformed, or the list is not one of this round.
    pub fn gives(&self, list: &[u8]) -> Result<i64, RecomputeError> {
        let expected = self.entries() as usize * self.round.entry_bytes();
        if list.len() != expected {
            return Err(super::RuleError::Length { found: list.len(), expected }.into());
        }
        let step = self.step;
        Ok(match self.round {
            Round::Partials => {
                let exponent = i32::from(self.weights(0)?.exponent);
                let shift = exponent + i32::from(step.frac_in) - i32::from(step.frac_out);
                product(&partials(list)?, shift)?.into()
            }
            Round::Scales => {
                let [scores, softmax, ..] = step.inputs;
                let block = self.at.block(scores, softmax, self.head(), self.block())?;
                attention::block_shift(&block, list)?.cast_signed()
            }
            Round::Sums => {
                let [_, _, softmax, _] = step.inputs;
                let [_, weights] = self.at.softmax_trees(self.head());
                let weights = self.at.top(softmax, &weights)?;
                attention::attend(&partials(list)?, weights, step.frac_in, step.frac_out)?.into()
            }
            Round::Values { .. } => {
                let [_, scores, softmax, shifts] = step.inputs;
                let (series, _) = self.at.series();
                let leaf = self.at.place.leaf * series + self.block() / 32;
                let shift = self.at.fixed(shifts, leaf)?.0[self.block() as usize % 32];
                let block = self.at.block(scores, softmax, self.head(), self.block())?;
                attention::block_sum(&block, i64::from(shift).cast_unsigned(), list)?
            }
            Round::Hits => {
                let mut hits = Hits::default();
                for [prompt, output] in list.as_chunks().0 {
                    hits.prompt += u32::from(*prompt);
                    hits.output += u32::from(*output);
                }
                let logit = self.at.fixed(step.inputs[0], self.at.place.leaf)?;
                let choice = self.at.claim.choice;
                let bias = choice.bias.iter().find(|(token, _)| u64::from(*token) == self.element);
                let bias = bias.map_or(0, |(_, bias)| *bias);
                let logit = logit.0[self.element as usize % 32];
                adjust(logit, &choice.penalties, hits, bias)?.into()
            }
        })
    }

    /// The block that a shift is of, or whose values are looked at.
    fn block(&self) -> u64 {
        match self.round {
            Round::Values { block } => block.into(),
            _ => self.element % (32 * self.at.series().0),
        }
    }

    /// The head, and the first dimension of the group or the dimension that is looked at.
    fn dimension(&self) -> (u64, u64) {
        let head_dim = u64::from(self.at.claim.model.head_dim);
        let number = match self.round {
            Round::Scales => 32 * (self.at.place.leaf / self.at.series().0),
            _ => self.element,
        };
        (number / head_dim, number % head_dim)
    }

    fn head(&self) -> u64 {
        self.dimension().0
    }

    /// Scale and number of a value at a position.
    fn value(&self, position: u64) -> Recomputed<(u16, i8)> {
        let values = match self.round {
            Round::Scales => self.step.inputs[2],
            _ => self.step.inputs[0],
        };
        let (head, dim) = self.dimension();
        let per_head = u64::from(self.at.claim.model.head_dim).div_ceil(128);
        let leaf = self.at.shared(head) * per_head + dim / 128;
        let place = Place { position: position as u32, op: values, leaf };
        let record = ActivationLeaf::read(&self.at.open(Source::Trace(place))?)?;
        let dim = dim as usize % 128;
        Ok((record.scales[dim / 32], record.quants[dim]))
    }

    fn weights(&self, chunk: u64) -> Recomputed<WeightLeaf> {
        let leaf = self.element * u64::from(self.step.terms).div_ceil(128) + chunk;
        let source = Source::Weights { tensor: self.step.tensor, leaf };
        Ok(WeightLeaf::read(&self.at.open(source)?)?)
    }

    fn partial(&self, chunk: u64) -> Recomputed<i64> {
        let x = ActivationLeaf::read(&self.at.here(self.step.inputs[0], chunk)?)?;
        Ok(product::chunk(&self.weights(chunk)?, &x))
    }

    /// Hits among the 32 inputs from `first` on, up to this position.
    fn hits(&self, first: u64) -> Hits {
        let claim = self.at.claim;
        let mut hits = Hits::default();
        for position in first..self.at.attended().min(first + 32) {
            if claim.input(position as u32).map(u64::from) != Some(self.element) {
                continue;
            }
            let prompt = position < claim.prompt.len() as u64;
            *(if prompt { &mut hits.prompt } else { &mut hits.output }) += 1;
        }
        hits
    }
}

impl At<'_> {
    /// Leaves of a series of shifts of blocks, and blocks of the attended positions.
    fn series(&self) -> (u64, u64) {
        let blocks = self.attended().div_ceil(64);
        (blocks.div_ceil(32), blocks)
    }
}
