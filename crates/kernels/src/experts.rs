//! Layers whose rows choose among experts.
//!
//! The matrices of all experts stand one below the other in one, and a row meets those of the experts
//! that it chose. Rows that chose the same one meet it together; as sums are exact, the company
//! changes no bit.

use std::ops::Range;

use crate::cpu::{Cpu, PIECES_PER_THREAD, PRODUCTS_MIN, count, cut_rows, shifts_of};
use crate::quantised::{Quantised, Rows};
use crate::reference;
use crate::weights::{LANES, Weights};

/// An expert that a row chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which one.
    pub expert: usize,
    /// How much of what it finds counts, in Q15; those of a row add up to about one.
    pub share: i32,
}

/// Neighbouring rows that meet the same part of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Index of the part.
    pub part: usize,
    /// Number of rows.
    pub rows: usize,
}

/// Where something that a row's experts found stands, and how much of it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Met {
    /// Row of what all experts found.
    pub at: usize,
    /// Its share in Q15.
    pub share: i32,
}

impl Cpu {
    /// The experts that each row chooses: (rows, `chosen`), as [`reference::route`] says, from
    /// `logits`: (rows, `experts`) in `Fx<16>`.
    ///
    /// # Panics
    /// If `logits` are not whole rows, or `chosen` is not in `1..=experts`.
    pub fn route(&self, logits: &[i32], experts: usize, chosen: usize) -> Vec<Choice> {
        let rows = count(logits.len(), experts, "logits");
        assert!((1..=experts).contains(&chosen), "{chosen} of {experts} experts");
        let mut choices = vec![Choice { expert: 0, share: 0 }; rows * chosen];
        let step = self.rows_per_piece(rows, experts);
        let pieces = logits.chunks(step * experts).zip(choices.chunks_mut(step * chosen));
        self.share(pieces, |(logits, choices)| {
            for (logits, choices) in
                logits.chunks_exact(experts).zip(choices.chunks_exact_mut(chosen))
            {
                for (to, (expert, share)) in
                    choices.iter_mut().zip(reference::route(logits, chosen))
                {
                    *to = Choice { expert, share };
                }
            }
        });
        choices
    }

    /// Multiplies runs of rows of `x` with parts of the matrix, each of `part_rows` rows:
    /// `y`: (x.rows, `part_rows`) in `Fx<frac_out>` from rows in `Fx<frac_in>`.
    ///
    /// # Panics
    /// If the matrix is not whole parts, a part not whole panels of sixteen rows, or there is no such
    /// part; if the runs are not all rows, or `y` has another length; and as [`Cpu::matmul`].
    pub fn matmul_parts(
        &self,
        w: &Weights,
        part_rows: usize,
        runs: &[Run],
        x: &Quantised,
        [frac_in, frac_out]: [u8; 2],
        y: &mut [i32],
    ) {
        assert_eq!(x.columns(), w.columns(), "matrix and rows differ in columns");
        assert_eq!(y.len(), x.rows() * part_rows, "outputs of {} rows", x.rows());
        assert_eq!(runs.iter().map(|run| run.rows).sum::<usize>(), x.rows(), "rows of all runs");
        assert_eq!(part_rows % LANES, 0, "{part_rows} rows are not whole panels");
        let parts = count(w.rows(), part_rows, "rows");
        let shifts: Vec<Vec<i8>> = (runs.iter())
            .map(|run| {
                assert!(run.part < parts, "part {} of {parts}", run.part);
                let first = run.part * part_rows;
                shifts_of(w, first..first + part_rows, frac_in, frac_out)
            })
            .collect();
        let (panels, mut first, mut rest) = (part_rows / LANES, 0, y);
        let alone = self.threads().get() == 1 || x.rows() * part_rows * w.columns() < PRODUCTS_MIN;
        let work = (x.rows() * panels).div_ceil(PIECES_PER_THREAD * self.threads().get());
        let mut pieces = Vec::new();
        for (run, shifts) in runs.iter().zip(&shifts).filter(|(run, _)| run.rows > 0) {
            let (own, others) = rest.split_at_mut(run.rows * part_rows);
            let rows = x.view().part(first, run.rows);
            (rest, first) = (others, first + run.rows);
            let step = if alone { panels } else { work.div_ceil(run.rows).min(panels) };
            for (piece, y) in cut_rows(own, part_rows, step * LANES).into_iter().enumerate() {
                let within = piece * step..panels.min((piece + 1) * step);
                pieces.push(Piece { first: run.part * panels, within, shifts, rows, y });
            }
        }
        match alone {
            true => pieces.into_iter().for_each(|piece| self.matmul_part(w, piece)),
            false => self.share(pieces.into_iter(), |piece| self.matmul_part(w, piece)),
        }
    }

    fn matmul_part(&self, w: &Weights, piece: Piece<'_>) {
        let Piece { first, within, shifts, rows, mut y } = piece;
        let shifts = &shifts[within.start * LANES..within.end * LANES];
        let panels = w.panel_range(first + within.start..first + within.end);
        self.path().matmul(panels, shifts, rows, &mut y);
    }

    /// Mixes what the experts found, as [`reference::mix`] says: `y`: (rows, columns) from `found`:
    /// (any number of rows, columns), of which each row takes those that `met`: (rows, `chosen`)
    /// names.
    ///
    /// # Panics
    /// If `found` or `y` are not whole rows, `met` does not fit `y`, or names no row of `found`.
    pub fn mix(&self, found: &[i32], columns: usize, met: &[Met], chosen: usize, y: &mut [i32]) {
        let (there, rows) =
            (count(found.len(), columns, "numbers"), count(y.len(), columns, "sums"));
        assert_eq!(met.len(), rows * chosen, "{chosen} experts of each of {rows} rows");
        assert!(met.iter().all(|met| met.at < there), "a row beyond {there}");
        let step = self.rows_per_piece(rows, chosen * columns);
        let pieces = met.chunks(step * chosen).zip(y.chunks_mut(step * columns));
        self.share(pieces, |(met, y)| {
            for (met, y) in met.chunks_exact(chosen).zip(y.chunks_exact_mut(columns)) {
                for (column, y) in y.iter_mut().enumerate() {
                    let number = |met: &Met| (found[met.at * columns + column], met.share);
                    *y = reference::mix(met.iter().map(number));
                }
            }
        });
    }
}

/// Some panels of a part, times the rows that meet it.
struct Piece<'a> {
    /// The part's first panel.
    first: usize,
    /// Panels, counted within the part.
    within: Range<usize>,
    /// One per row of the part.
    shifts: &'a [i8],
    rows: Rows<'a>,
    y: Vec<&'a mut [i32]>,
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::{GROUP, Isa};

    #[test]
    fn equal_logits_go_to_the_lower_index_and_share_alike() {
        assert_eq!(reference::route(&[5, 9, 9, 5, 9], 2), [(1, 1 << 14), (2, 1 << 14)]);
        assert_eq!(reference::route(&[-7; 4], 1), [(0, 1 << 15)]);
        let all: Vec<usize> = reference::route(&[3, 3, 4, 3], 4).iter().map(|(e, _)| *e).collect();
        assert_eq!(all, [2, 0, 1, 3]);
    }

    #[test]
    fn shares_are_the_softmax_of_the_chosen() {
        // Logits 1.0, 0.5 and -2.0 in Fx<16>; the last is not chosen.
        let logits = [1 << 16, -(2 << 16), 1 << 15];
        let found = reference::route(&logits, 2);
        let first = 1.0 / (1.0 + (-0.5f64).exp());
        for ((_, share), exact) in found.iter().zip([first, 1.0 - first]) {
            assert!((f64::from(*share) - exact * 32768.0).abs() <= 0.51, "{share} {exact}");
        }
    }

    #[test]
    fn the_furthest_logits_there_can_be_leave_nothing_for_the_lower() {
        assert_eq!(reference::route(&[i32::MIN, i32::MAX], 2), [(1, 1 << 15), (0, 0)]);
    }

    #[test]
    fn a_mix_is_rounded_once_and_saturates() {
        // Halves of one and one: each alone would round to one.
        assert_eq!(reference::mix([(1, 1 << 14), (1, 1 << 14)].into_iter()), 1);
        assert_eq!(reference::mix([(1, 1 << 14)].into_iter()), 1);
        assert_eq!(reference::mix([(-1, 1 << 14)].into_iter()), 0);
        let most = [(i32::MAX, 1 << 15), (i32::MAX, 1 << 15)];
        assert_eq!(reference::mix(most.into_iter()), i32::MAX);
    }

    /// Numbers without a pattern.
    fn noise(count: usize, seed: u32) -> impl Iterator<Item = i32> {
        let mut state = seed;
        (0..count).map(move |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as i32 % 20_000 - 10_000
        })
    }

    /// Four parts of so many rows.
    fn stacked(part_rows: usize, columns: usize) -> Weights {
        let rows = 4 * part_rows;
        let q: Vec<i8> = noise(rows * columns, 1).map(|n| (n % 128) as i8).collect();
        let scales: Vec<u16> =
            noise(rows * columns / GROUP, 2).map(|n| n.unsigned_abs() as u16 + 1).collect();
        let exponents: Vec<i8> = noise(rows, 3).map(|n| 20 + (n % 5) as i8).collect();
        Weights::from_rows(rows, columns, &q, &scales, &exponents).unwrap()
    }

    #[test]
    fn every_path_and_number_of_threads_multiplies_parts_as_the_whole() {
        let (part_rows, columns) = (48, 160);
        let w = stacked(part_rows, columns);
        for runs in [
            vec![(2, 1)],
            vec![(0, 1), (1, 1), (3, 1)],
            vec![(3, 40), (1, 0), (0, 2)],
            vec![(1, 17), (2, 90), (3, 1)],
        ] {
            let runs: Vec<Run> = runs.into_iter().map(|(part, rows)| Run { part, rows }).collect();
            let rows: usize = runs.iter().map(|run| run.rows).sum();
            let x: Vec<i32> = noise(rows * columns, 4).collect();
            let mut expected = Vec::new();
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
                for threads in 1..4 {
                    let cpu = Cpu::new(isa, NonZeroUsize::new(threads).unwrap()).unwrap();
                    let mut q = Quantised::new();
                    cpu.quantise(&x, columns, w.columns(), &mut q);
                    let (mut whole, mut y) = (vec![0; rows * w.rows()], vec![7; rows * part_rows]);
                    cpu.matmul(&w, &q, 12, 16, &mut whole);
                    cpu.matmul_parts(&w, part_rows, &runs, &q, [12, 16], &mut y);
                    let parts = runs.iter().flat_map(|run| vec![run.part; run.rows]);
                    let picked = whole.chunks(w.rows()).zip(parts);
                    let picked: Vec<i32> = picked
                        .flat_map(|(row, part)| &row[part * part_rows..][..part_rows])
                        .copied()
                        .collect();
                    assert_eq!(y, picked, "{isa}, {threads} threads");
                    if expected.is_empty() {
                        expected.clone_from(&y);
                    }
                    assert_eq!(y, expected, "{isa}, {threads} threads");
                }
            }
        }
    }

    #[test]
    fn threads_route_and_mix_as_one_row_after_the_other() {
        let (experts, chosen, columns, rows) = (9, 3, 64, 700);
        let logits: Vec<i32> = noise(rows * experts, 5).map(|n| (n % 40) << 12).collect();
        let found: Vec<i32> = noise(rows * chosen * columns, 6).collect();
        for threads in 1..4 {
            let cpu = Cpu::new(Isa::detect(), NonZeroUsize::new(threads).unwrap()).unwrap();
            let choices = cpu.route(&logits, experts, chosen);
            let met: Vec<Met> = choices
                .iter()
                .enumerate()
                .map(|(at, choice)| Met { at: rows * chosen - 1 - at, share: choice.share })
                .collect();
            let mut y = vec![0; rows * columns];
            cpu.mix(&found, columns, &met, chosen, &mut y);
            for row in 0..rows {
                let expected = reference::route(&logits[row * experts..][..experts], chosen);
                let own = &choices[row * chosen..][..chosen];
                assert!(own.iter().map(|it| (it.expert, it.share)).eq(expected));
                for column in 0..columns {
                    let own = met[row * chosen..][..chosen].iter();
                    let numbers = own.map(|met| (found[met.at * columns + column], met.share));
                    assert_eq!(y[row * columns + column], reference::mix(numbers));
                }
            }
        }
    }
}
