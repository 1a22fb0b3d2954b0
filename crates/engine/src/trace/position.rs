//! One position of a trace, written op by op from what a forward pass showed of it.

use assay_evidence::op::{self, Claim, Kind, RuleError, Step};
use assay_protocol::B256;

use super::attention::Heads;
use super::leaves::Leaves;
use super::past::{Past, Records};
use super::radix::{RADIX, Radix, maximum, total};
use super::sampling::Sampling;
use super::sight::Row;

/// A position about to be written.
pub(super) struct Position<'a> {
    pub(super) claim: &'a Claim<'a>,
    pub(super) position: u32,
    pub(super) row: &'a Row,
    /// Keys and values up to this position at least.
    pub(super) past: &'a Past,
}

/// What a position that answers adds to the chained state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Drawn {
    /// The token that the sampler draws.
    pub(super) token: u32,
    /// Hash of the leaves of AQf.
    pub(super) hidden: B256,
    /// The leaves of TOKEN.
    pub(super) leaves: Leaves,
}

impl Position<'_> {
    /// Writes the leaves of every step of the program, in order, with the advice that satisfies
    /// the checks. The chained state follows from what is returned.
    pub(super) fn write(&self, sink: &mut dyn FnMut(Leaves)) -> Result<Option<Drawn>, RuleError> {
        let (mut heads, mut hidden, mut drawn) = (None, B256::ZERO, None);
        let answers = self.claim.answers(self.position);
        for (index, step) in (0..).zip(self.claim.program) {
            if step.kind.answers() && !answers {
                sink(Leaves::default());
                continue;
            }
            match step.kind {
                Kind::Score => sink(heads.insert(self.heads(step)).scores()),
                Kind::ScoreMax => sink(self.computed(&heads).softmax()),
                Kind::BlockShift => {
                    sink(self.computed(&heads).shifts(self.records(step.inputs[2])));
                }
                Kind::Sample => {
                    let sampling =
                        Sampling::new(self.claim, self.position, self.row.fixed(step.inputs[0]))?;
                    let (leaves, drawable) = sampling.write();
                    sink(leaves);
                    let (leaves, token) = sampling.token(drawable.as_ref())?;
                    drawn = Some(Drawn { token, hidden, leaves });
                }
                Kind::Token => {
                    sink(drawn.as_ref().map(|drawn| drawn.leaves.clone()).unwrap_or_default());
                }
                Kind::QuantiseFinal => {
                    let leaves = self.shown(index, step);
                    hidden = leaves.hidden();
                    sink(leaves);
                }
                Kind::NormStat1 | Kind::NormStat2 | Kind::NormStatFinal => {
                    sink(self.statistics(step)?);
                }
                _ => sink(self.shown(index, step)),
            }
        }
        Ok(drawn)
    }

    /// A step whose output the pass showed.
    fn shown(&self, index: u32, step: &Step) -> Leaves {
        let mut leaves = Leaves::default();
        match step.kind {
            Kind::QuantiseQuery | Kind::QuantiseKey | Kind::QuantiseValue => {
                let (q, scales) = self.row.quantised(index);
                let head_dim = self.claim.model.head_dim as usize;
                for (q, scales) in q.chunks(head_dim).zip(scales.chunks(head_dim / RADIX)) {
                    leaves.push_quantised(q, scales);
                }
            }
            Kind::Quantise1
            | Kind::QuantiseAttention
            | Kind::Quantise2
            | Kind::QuantiseHidden
            | Kind::QuantiseFinal => {
                let (q, scales) = self.row.quantised(index);
                leaves.push_quantised(q, scales);
            }
            _ => leaves.push_fixed(self.row.fixed(index)),
        }
        leaves
    }

    /// NSTAT.
    fn statistics(&self, step: &Step) -> Result<Leaves, RuleError> {
        let residual = self.row.fixed(step.inputs[0]);
        let magnitude = |x: &[i32]| x.iter().fold(0, |most, v| v.unsigned_abs().max(most)).into();
        let magnitudes = Radix::new(residual.chunks(RADIX).map(magnitude).collect(), maximum);
        let shift = op::norm_shift(magnitudes.top());
        // 24 bits are left of a number, and a row is no longer than 2^15: sums fit 64 bits.
        let square = |v: &i32| i64::from(v >> shift).pow(2).cast_unsigned();
        let squares = residual.chunks(RADIX).map(|x| x.iter().map(square).sum());
        let squares = Radix::new(squares.collect(), total);
        let eps = self.claim.model.norm_eps;
        let (factor, right) = op::inverse_root(squares.top(), step.terms, eps, shift)?;
        let mut leaves = Leaves::default();
        magnitudes.write(&mut leaves);
        squares.write(&mut leaves);
        leaves.push_wide(&[shift, factor, right]);
        Ok(leaves)
    }

    fn heads(&self, step: &Step) -> Heads {
        let [queries, keys, ..] = step.inputs;
        let query = self.row.quantised(queries);
        let attended = self.position as usize + 1;
        Heads::new(self.claim, step, query, self.records(keys), attended)
    }

    fn records(&self, step: u32) -> &Records {
        self.past.records(step).expect("scores and blocks read steps that give keys and values")
    }

    fn computed<'h>(&self, heads: &'h Option<Heads>) -> &'h Heads {
        heads.as_ref().expect("a layer's scores come before what is computed from them")
    }
}
