//! Which rows run next: pure, so that every mix can be tested without a model.

/// How far one running sequence is: tokens known, and tokens the model has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Prompt and output tokens known so far.
    pub(crate) known: usize,
    /// How many of them are in the cache.
    pub(crate) fed: usize,
    /// What its tenant was served, beside others.
    pub(crate) served: u64,
}

impl Progress {
    fn pending(self) -> usize {
        self.known - self.fed
    }
}

/// How many rows each sequence gets in a batch of at most `rows_max`.
///
/// Sequences that only miss their newest token come first, one row each, so that running answers
/// flow; what is left goes to prompts. Among equals the tenant that was served least comes first, and
/// then the order given. Someone always gets a row.
pub(crate) fn plan(sequences: &[Progress], rows_max: usize) -> Vec<usize> {
    let mut left = rows_max.max(1);
    let mut rows = vec![0; sequences.len()];
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&index| (sequences[index].pending() > 1, sequences[index].served));
    for index in order {
        rows[index] = sequences[index].pending().min(left);
        left -= rows[index];
    }
    rows
}

/// How many tokens each sequence may guess, given the rows that it has: `guess_rows_max` is most rows
/// of a batch with guesses in it.
///
/// Only sequences that decode guess, and only where no prompt could use the row: a guess may be
/// wrong. They share what is left in equal parts, since rows of few sequences cost least.
pub(crate) fn guesses(sequences: &[Progress], rows: &[usize], guess_rows_max: usize) -> usize {
    let total: usize = rows.iter().sum();
    let decode = sequences.iter().all(|sequence| sequence.pending() == 1);
    if !decode || total < sequences.len() {
        return 0;
    }
    guess_rows_max.saturating_sub(total).checked_div(total).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sequences(sequences: &[(usize, usize, u64)]) -> Vec<Progress> {
        let progress = |&(known, fed, served): &_| Progress { known, fed, served };
        sequences.iter().map(progress).collect()
    }

    fn check(given: &[(usize, usize, u64)], rows_max: usize, expected: &[usize]) {
        assert_eq!(plan(&sequences(given), rows_max), expected);
    }

    #[test]
    fn decoding_comes_before_prompts() {
        check(&[(100, 0, 0), (11, 10, 0), (5, 4, 9)], 8, &[6, 1, 1]);
    }

    #[test]
    fn prompts_are_served_in_order() {
        check(&[(10, 0, 0), (10, 0, 0)], 12, &[10, 2]);
        check(&[(10, 9, 0), (10, 9, 0)], 1, &[1, 0]);
    }

    #[test]
    fn the_tenant_served_least_comes_first() {
        check(&[(10, 0, 7), (10, 0, 3)], 12, &[2, 10]);
        check(&[(10, 9, 7), (10, 9, 3)], 1, &[0, 1]);
    }

    #[test]
    fn a_batch_is_never_empty() {
        check(&[(4, 0, 0)], 0, &[1]);
    }

    #[test]
    fn guesses_fill_what_decoding_leaves() {
        let check = |given: &[(usize, usize, u64)], rows: &[usize], expected| {
            assert_eq!(guesses(&sequences(given), rows, 16), expected, "{given:?}");
        };
        check(&[(5, 4, 0)], &[1], 15);
        check(&[(5, 4, 0), (9, 8, 0), (9, 8, 0)], &[1, 1, 1], 4);
        check(&[(5, 4, 0), (9, 3, 0)], &[1, 6], 0);
        check(&[(5, 4, 0), (9, 8, 0)], &[1, 0], 0);
        check(&[(5, 4, 0); 20], &[1; 20], 0);
        check(&[], &[], 0);
    }

    proptest! {
        #[test]
        fn rows_are_within_bounds_and_none_is_wasted(
            given in prop::collection::vec((0usize..50, 1usize..50, 0u64..4), 1..20),
            rows_max in 1usize..100,
        ) {
            let sequences: Vec<Progress> = given
                .iter()
                .map(|&(fed, pending, served)| Progress { known: fed + pending, fed, served })
                .collect();
            let rows = plan(&sequences, rows_max);
            let pending: usize = sequences.iter().map(|sequence| sequence.pending()).sum();
            prop_assert_eq!(rows.iter().sum::<usize>(), pending.min(rows_max));
            for (rows, sequence) in rows.iter().zip(&sequences) {
                prop_assert!(*rows <= sequence.pending());
            }
        }
    }
}
