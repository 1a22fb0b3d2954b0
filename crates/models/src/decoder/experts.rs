//! The feed-forward of a layer with experts.
//!
//! The router's logits say which experts a row goes through and how much of what each finds counts.
//! The rows of a batch that chose the same expert meet its matrices together, so these are read once;
//! products are exact, so the company changes no bit.

use assay_kernels::{Choice, Met, Quantised, Run};

use super::{Pass, Scratch};
use crate::shape::{Experts, LayerRole, Role, Shape};
use crate::tap::{OpKind, Tap};

/// Memory of a layer with experts.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// What the router says: (rows, experts).
    logits: Vec<i32>,
    /// The input of every row for each expert it chose, expert by expert.
    inputs: Quantised,
    /// What the experts found, likewise: (rows · chosen, width).
    found: Vec<i32>,
}

/// Who meets which expert. A meeting is one row and one expert that it chose.
struct Meetings {
    /// Expert by expert, how many meet it.
    runs: Vec<Run>,
    /// Meetings in the order of the experts, by their index among the choices.
    order: Vec<usize>,
    /// Where in that order each choice stands, with its share.
    met: Vec<Met>,
}

impl Meetings {
    /// Arranges what the rows chose.
    fn arrange(choices: &[Choice]) -> Meetings {
        let mut order: Vec<usize> = (0..choices.len()).collect();
        order.sort_by_key(|at| choices[*at].expert);
        let mut met: Vec<Met> =
            choices.iter().map(|choice| Met { at: 0, share: choice.share }).collect();
        let mut runs: Vec<Run> = Vec::new();
        for (place, &at) in order.iter().enumerate() {
            met[at].at = place;
            let part = choices[at].expert;
            match runs.last_mut().filter(|run| run.part == part) {
                Some(run) => run.rows += 1,
                None => runs.push(Run { part, rows: 1 }),
            }
        }
        Meetings { runs, order, met }
    }
}

impl<T: Tap> Pass<'_, T> {
    /// What the experts of a layer make of its input, each row's weighed by their shares.
    pub(super) fn ask_experts(&mut self, layer: usize, experts: Experts, s: &mut Scratch) {
        let Shape { width, hidden, .. } = *self.model.shape();
        let (rows, chosen) = (s.input.rows(), experts.chosen);
        let of = |role| Role::Layer(layer, role);
        let room = &mut s.experts;

        room.logits.resize(rows * experts.count, 0);
        self.multiply(of(LayerRole::Router), OpKind::Route, &s.input, &mut room.logits);
        let choices = self.cpu.route(&room.logits, experts.count, chosen);
        self.saw_choices(&choices);
        let meetings = Meetings::arrange(&choices);
        room.inputs.gather(&s.input, meetings.order.iter().map(|at| at / chosen));

        for (role, kind, y) in [
            (LayerRole::ExpertGates, OpKind::Gate, &mut s.gate),
            (LayerRole::ExpertUps, OpKind::Up, &mut s.up),
        ] {
            self.multiply_met(of(role), &meetings, &room.inputs, hidden, y);
            self.saw_met(kind, &meetings, y, hidden);
        }
        let frac = self.model.precision().layers[layer].hidden;
        let activation = self.model.shape().graph().activation;
        self.cpu.activate(activation, &s.gate, Some(&s.up), frac, &mut s.activation);
        self.saw_met(OpKind::Activation, &meetings, &s.activation, hidden);
        self.quantise(&s.activation, hidden, &mut room.inputs);
        self.saw_quantised_met(OpKind::QuantiseHidden, &meetings, &room.inputs);

        room.found.resize(rows * chosen * width, 0);
        let down = of(LayerRole::ExpertDowns);
        self.multiply_met(down, &meetings, &room.inputs, width, &mut room.found);
        self.saw_met(OpKind::Down, &meetings, &room.found, width);
        self.cpu.mix(&room.found, width, &meetings.met, chosen, &mut s.delta);
        self.saw(OpKind::Mix, &s.delta);
    }

    /// Multiplies the input of each meeting with its expert's part of a matrix.
    fn multiply_met(
        &self,
        role: Role,
        meetings: &Meetings,
        x: &Quantised,
        part_rows: usize,
        y: &mut [i32],
    ) {
        let (frac_in, frac_out) = self.model.fractions(role);
        let weights = self.model.weights(role).expect("a product has a matrix");
        self.cpu.matmul_parts(weights, part_rows, &meetings.runs, x, [frac_in, frac_out], y);
    }

    /// Shows which experts each row chose, and their shares.
    fn saw_choices(&mut self, choices: &[Choice]) {
        if !self.tap.looks() {
            return;
        }
        // There are at most 2^10 experts.
        let numbers = choices.iter().flat_map(|choice| [choice.expert as i32, choice.share]);
        let numbers: Vec<i32> = numbers.collect();
        self.saw(OpKind::Choose, &numbers);
    }

    /// Shows what the meetings gave, in the order in which the rows chose.
    fn saw_met(&mut self, kind: OpKind, meetings: &Meetings, x: &[i32], columns: usize) {
        if !self.tap.looks() {
            return;
        }
        let rows = meetings.met.iter().flat_map(|met| &x[met.at * columns..][..columns]);
        let rows: Vec<i32> = rows.copied().collect();
        self.saw(kind, &rows);
    }

    /// The same of quantised rows.
    fn saw_quantised_met(&mut self, kind: OpKind, meetings: &Meetings, x: &Quantised) {
        if !self.tap.looks() {
            return;
        }
        let mut rows = Quantised::new();
        rows.gather(x, meetings.met.iter().map(|met| met.at));
        self.saw_quantised(kind, &rows);
    }
}
