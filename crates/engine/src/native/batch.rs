//! Which rows run next: pure, so that every mix can be tested without a model.

/// How far one running sequence is: tokens known, and tokens the model has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Prompt and output tokens known so far.
    pub(crate) known: usize,
    /// How many of them are in the cache.
    pub(crate) fed: usize,
}

impl Progress {
    fn pending(self) -> usize {
        self.known - self.fed
    }
}

/// How many rows each sequence gets in a batch of at most `rows_max`, in the given order.
///
/// Sequences that only miss their newest token come first, one row each, so that running answers
/// flow; what is left goes to prompts, first come first served. Someone always gets a row.
pub(crate) fn plan(sequences: &[Progress], rows_max: usize) -> Vec<usize> {
    let mut left = rows_max.max(1);
    let mut rows = vec![0; sequences.len()];
    for (rows, sequence) in rows.iter_mut().zip(sequences) {
        if sequence.pending() == 1 && left > 0 {
            *rows = 1;
            left -= 1;
        }
    }
    for (rows, sequence) in rows.iter_mut().zip(sequences) {
        if sequence.pending() > 1 {
            *rows = sequence.pending().min(left);
            left -= *rows;
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sequences: &[(usize, usize)], rows_max: usize, expected: &[usize]) {
        let sequences: Vec<Progress> =
            sequences.iter().map(|&(known, fed)| Progress { known, fed }).collect();
        assert_eq!(plan(&sequences, rows_max), expected);
    }

    #[test]
    fn decoding_comes_before_prompts() {
        check(&[(100, 0), (11, 10), (5, 4)], 8, &[6, 1, 1]);
    }

    #[test]
    fn prompts_are_served_in_order() {
        check(&[(10, 0), (10, 0)], 12, &[10, 2]);
        check(&[(10, 9), (10, 9)], 1, &[1, 0]);
    }

    #[test]
    fn a_batch_is_never_empty() {
        check(&[(4, 0)], 0, &[1]);
    }
}
