//! Which models are in memory. Pure: bytes and turns, no model.

/// What is known of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tenancy {
    /// Bytes that it takes while it is in memory.
    pub(super) bytes: u64,
    /// Whether it is, or is being loaded.
    pub(super) is_in: bool,
    /// Jobs that it answers, and one more while it is being loaded.
    pub(super) jobs: usize,
    /// When it was asked last; larger is later.
    pub(super) asked: u64,
}

/// What has to happen before a model can be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// These models go, none of which answers a job; then it fits.
    Free(Vec<usize>),
    /// These models get no more jobs, so that they can go; it has to wait for them.
    Drain(Vec<usize>),
}

/// How to make room for `wanted`, which is not in memory and no larger than `bytes_max`.
///
/// Models that were asked longest ago go first, and those that answer nobody before those that do:
/// no model that is in use is ever dropped, but one may have to finish.
pub(super) fn make_room(models: &[Tenancy], wanted: usize, bytes_max: u64) -> Way {
    let mut used: u64 = models.iter().filter(|model| model.is_in).map(|model| model.bytes).sum();
    let mut order: Vec<usize> = (0..models.len()).filter(|&index| models[index].is_in).collect();
    order.sort_by_key(|&index| (models[index].jobs > 0, models[index].asked));
    let mut leaving = Vec::new();
    for index in order {
        if used + models[wanted].bytes <= bytes_max {
            break;
        }
        used -= models[index].bytes;
        leaving.push(index);
    }
    match leaving.iter().all(|&index| models[index].jobs == 0) {
        true => Way::Free(leaving),
        false => Way::Drain(leaving),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Models of (bytes, jobs, asked); those of negative `asked` are not in memory.
    fn check(models: &[(u64, usize, i64)], wanted: usize, bytes_max: u64, expected: Way) {
        assert_eq!(make_room(&tenancies(models), wanted, bytes_max), expected);
    }

    fn tenancies(models: &[(u64, usize, i64)]) -> Vec<Tenancy> {
        let tenancy = |&(bytes, jobs, asked): &(u64, usize, i64)| Tenancy {
            bytes,
            is_in: asked >= 0,
            jobs: if asked >= 0 { jobs } else { 0 },
            asked: asked.max(0) as u64,
        };
        models.iter().map(tenancy).collect()
    }

    #[test]
    fn what_fits_needs_nobody_to_go() {
        check(&[(5, 1, 1), (5, 0, -1)], 1, 10, Way::Free(vec![]));
    }

    #[test]
    fn who_was_asked_longest_ago_goes_first() {
        check(&[(5, 0, 2), (5, 0, 1), (5, 0, -1)], 2, 10, Way::Free(vec![1]));
        check(&[(5, 0, 2), (5, 0, 1), (9, 0, -1)], 2, 10, Way::Free(vec![1, 0]));
    }

    #[test]
    fn who_answers_nobody_goes_before_who_does() {
        check(&[(5, 1, 1), (5, 0, 2), (5, 0, -1)], 2, 10, Way::Free(vec![1]));
        check(&[(5, 1, 1), (5, 1, 2), (5, 0, -1)], 2, 10, Way::Drain(vec![0]));
    }

    proptest! {
        #[test]
        fn room_is_enough_and_nobody_goes_in_vain(
            models in prop::collection::vec((1u64..50, 0usize..3, -1i64..9), 1..8),
            bytes in 1u64..50,
        ) {
            let mut models = tenancies(&models);
            models.push(Tenancy { bytes, is_in: false, jobs: 0, asked: 0 });
            let wanted = models.len() - 1;
            let (Way::Free(leaving) | Way::Drain(leaving)) = make_room(&models, wanted, 60);
            let stays = |index: &usize| models[*index].is_in && !leaving.contains(index);
            let left = (0..models.len()).filter(stays).map(|index| models[index].bytes);
            let left: u64 = left.sum();
            prop_assert!(left + bytes <= 60);
            if let Some(last) = leaving.last() {
                prop_assert!(left + models[*last].bytes + bytes > 60);
            }
        }
    }
}
