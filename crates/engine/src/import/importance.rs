//! Says how much the columns of a matrix tell: how large their inputs usually are.
//!
//! An error of a weight reaches an output multiplied with its input, so that where inputs are large
//! it costs more. The model runs in exact-1 over the calibration text, and the squares of its
//! quantised inputs are added up, which is integer arithmetic: the same sums on every machine.

use std::collections::BTreeMap;

use assay_kernels::{COLUMNS_STEP, Cpu, GROUP};
use assay_models::{ForwardError, LayerRole, Model, Op, OpKind, Role, Shape, Tap, Values};

use super::calibrate::run;

/// What every column counts at least, as a share of the mean: calibration has not seen everything.
const SHARE_MIN: f64 = 1.0 / 16.0;

/// Sums of squares of the inputs of the layers' matrices.
pub(super) struct Importance {
    sums: BTreeMap<Op, Vec<u128>>,
}

impl Importance {
    /// Looks at the inputs that the matrices of `model` have over `tokens`.
    pub(super) fn of(
        model: &Model,
        tokens: &[u32],
        cpu: &Cpu,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Importance, ForwardError> {
        let mut importance = Importance { sums: BTreeMap::new() };
        run(model, tokens, cpu, &mut importance, progress)?;
        Ok(importance)
    }

    /// What each column of a matrix counts, in no particular unit: (columns).
    pub(super) fn columns(&self, shape: &Shape, role: Role) -> Vec<f64> {
        let columns = shape.extent(role).1;
        let seen = input_of(role).and_then(|op| self.sums.get(&op));
        let Some(seen) = seen else { return vec![1.0; columns] };
        // Where a position has an input for each expert it chose, they stand side by side.
        let inputs = seen.chunks(columns.next_multiple_of(COLUMNS_STEP));
        let all = |column: usize| inputs.clone().map(|input| input[column]).sum::<u128>();
        let sums: Vec<f64> = (0..columns).map(|column| all(column) as f64).collect();
        let least = sums.iter().sum::<f64>() / columns as f64 * SHARE_MIN;
        if least > 0.0 { sums.iter().map(|sum| sum + least).collect() } else { vec![1.0; columns] }
    }
}

impl Tap for Importance {
    fn saw(&mut self, op: Op, _row: usize, output: Values<'_>) {
        let Values::Quant { q, scales } = output else { return };
        let inputs = [
            OpKind::Quantise1,
            OpKind::QuantiseAttention,
            OpKind::Quantise2,
            OpKind::QuantiseHidden,
        ];
        if !inputs.contains(&op.kind) {
            return;
        }
        let sums = self.sums.entry(op).or_insert_with(|| vec![0; q.len()]);
        for (column, (sum, q)) in sums.iter_mut().zip(q).enumerate() {
            // Below 2^22, so its square fits 44 bits.
            let value = i64::from(*q) * i64::from(scales[column / GROUP]);
            *sum += u128::from(value.unsigned_abs().pow(2));
        }
    }
}

/// The op that gives a matrix of a layer its input; nothing for other tensors.
fn input_of(role: Role) -> Option<Op> {
    let Role::Layer(layer, role) = role else { return None };
    let kind = match role {
        LayerRole::Query | LayerRole::Key | LayerRole::Value => OpKind::Quantise1,
        LayerRole::AttentionOutput => OpKind::QuantiseAttention,
        LayerRole::Gate | LayerRole::Up | LayerRole::ExpertGates | LayerRole::ExpertUps => {
            OpKind::Quantise2
        }
        LayerRole::Down | LayerRole::ExpertDowns => OpKind::QuantiseHidden,
        _ => return None,
    };
    Some(Op { layer: Some(layer as u16), kind })
}
