//! What a forward pass shows of itself.

use std::collections::HashMap;

use assay_models::{Op, Tap, Values};

/// The output of a step for one row.
#[derive(Clone, Debug, Default)]
enum Shown {
    /// None: the step shows nothing, or has nothing to do at this row.
    #[default]
    Nothing,
    Fixed(Vec<i32>),
    Quantised(Vec<i8>, Vec<u16>),
}

/// All that was shown of one row, by step of the program.
#[derive(Clone, Debug)]
pub(super) struct Row {
    shown: Vec<Shown>,
}

/// Watches a batch and keeps what it is shown.
pub(super) struct Sight<'a> {
    steps: &'a HashMap<Op, u32>,
    pub(super) rows: Vec<Row>,
}

impl<'a> Sight<'a> {
    /// Watches a batch of so many rows; `steps` numbers the steps of the program.
    pub(super) fn new(steps: &'a HashMap<Op, u32>, rows: usize) -> Self {
        let row = Row { shown: vec![Shown::Nothing; steps.len()] };
        Self { steps, rows: vec![row; rows] }
    }
}

impl Tap for Sight<'_> {
    fn saw(&mut self, op: Op, row: usize, output: Values<'_>) {
        let step = self.steps[&op] as usize;
        self.rows[row].shown[step] = match output {
            Values::Fixed(values) => Shown::Fixed(values.to_vec()),
            Values::Quant { q, scales } => Shown::Quantised(q.to_vec(), scales.to_vec()),
            Values::Wide(_) => {
                unreachable!("{op} shows wide words, which no step of a program does")
            }
        };
    }
}

impl Row {
    /// The fixed-point output of a step.
    ///
    /// # Panics
    /// If it was not shown, which a model does of every step whose output is in memory.
    pub(super) fn fixed(&self, step: u32) -> &[i32] {
        match &self.shown[step as usize] {
            Shown::Fixed(values) => values,
            other => unreachable!("step {step} gives fixed-point numbers, not {other:?}"),
        }
    }

    /// The quantised output of a step: numbers, padding columns included, and scales.
    ///
    /// # Panics
    /// As [`Row::fixed`].
    pub(super) fn quantised(&self, step: u32) -> (&[i8], &[u16]) {
        match &self.shown[step as usize] {
            Shown::Quantised(q, scales) => (q, scales),
            other => unreachable!("step {step} gives quantised numbers, not {other:?}"),
        }
    }
}
