//! What a dispute asks of its provider now. Pure: the same state gets the same word.

use assay_chain::{Case, Dispute, Side};
use assay_protocol::{Address, Phase};

/// What is to be done about a dispute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// To make the move that is owed.
    Answer,
    /// Nothing: the other side owes a move and has time.
    Wait,
    /// To end it: the other side's clock ran out.
    Timeout,
    /// To fetch the bond: it is won.
    Close,
    /// Nothing any more.
    Over(End),
}

/// How a dispute ended for its provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The challenger lost, and its bond was paid.
    Won,
    /// The receipt was found false.
    Lost,
    /// The receipt is decided elsewhere: found false in another dispute, or a canary.
    Elsewhere,
    /// The provider's own clock ran out; whoever says so ends it.
    Late,
    /// It is about another provider's receipt.
    Foreign,
}

/// What `owner` has to do about a dispute. `time` is that of the chain's latest block, `now` that of
/// this machine, Unix seconds: where blocks are rare, the clock of the next one is nearer to the latter.
pub(crate) fn duty(dispute: &Dispute, case: &Case, owner: Address, time: u64, now: u64) -> Duty {
    if case.owner != owner {
        return Duty::Over(End::Foreign);
    }
    match dispute.phase {
        Phase::Lost => return Duty::Close,
        Phase::Forfeited => return Duty::Over(End::Won),
        Phase::Won | Phase::Returned if !case.canary => return Duty::Over(End::Lost),
        _ if case.guilty || case.canary => return Duty::Over(End::Elsewhere),
        _ => {}
    }
    let after = |time: u64| dispute.last_second().is_some_and(|last| time > last);
    match dispute.turn() {
        Some(Side::Defender) if after(time) => Duty::Over(End::Late),
        Some(Side::Defender) => Duty::Answer,
        Some(Side::Challenger) if after(time.max(now)) => Duty::Timeout,
        _ => Duty::Wait,
    }
}

#[cfg(test)]
mod tests {
    use assay_protocol::B256;

    use super::*;

    const OWNER: Address = Address::repeat_byte(1);

    fn check(phase: Phase, time: u64, now: u64, change: fn(&mut Case), expected: Duty) {
        let dispute = Dispute {
            phase,
            depth: 0,
            path: 0,
            leaf_depth: None,
            reach: 0,
            rounds: 0,
            moved_at: 100,
            defender_left: 20,
            challenger_left: 30,
            challenger: Address::ZERO,
            positions: 1,
            steps: 34,
            opened: 100,
            receipt: B256::ZERO,
            trace: B256::ZERO,
            point: B256::ZERO,
            here: B256::ZERO,
            asked: false,
            asks: 0,
        };
        let mut case = Case {
            owner: OWNER,
            guilty: false,
            punished: false,
            canary: false,
            first: 1,
            facts: B256::ZERO,
        };
        change(&mut case);
        assert_eq!(duty(&dispute, &case, OWNER, time, now), expected, "{phase:?} at {time}");
    }

    #[test]
    fn what_is_owed_is_answered_to_the_last_second() {
        for phase in [Phase::Commit, Phase::Reveal, Phase::Prove] {
            check(phase, 100, 100, |_| (), Duty::Answer);
            check(phase, 120, 120, |_| (), Duty::Answer);
            // Blocks stood still; the next one may be late, or not.
            check(phase, 120, 500, |_| (), Duty::Answer);
            check(phase, 121, 121, |_| (), Duty::Over(End::Late));
        }
    }

    #[test]
    fn a_silent_challenger_is_timed_out() {
        for phase in [Phase::Pick, Phase::Choose] {
            check(phase, 130, 130, |_| (), Duty::Wait);
            check(phase, 131, 0, |_| (), Duty::Timeout);
            check(phase, 100, 131, |_| (), Duty::Timeout);
        }
    }

    #[test]
    fn ends_are_told_apart() {
        check(Phase::Lost, 0, 0, |_| (), Duty::Close);
        check(Phase::Lost, 0, 0, |case| case.guilty = true, Duty::Close);
        check(Phase::Forfeited, 0, 0, |_| (), Duty::Over(End::Won));
        check(Phase::Won, 0, 0, |case| case.guilty = true, Duty::Over(End::Lost));
        check(Phase::Returned, 0, 0, |case| case.guilty = true, Duty::Over(End::Lost));
        check(Phase::Returned, 0, 0, |case| case.canary = true, Duty::Over(End::Elsewhere));
        check(Phase::Reveal, 0, 0, |case| case.guilty = true, Duty::Over(End::Elsewhere));
        check(Phase::Commit, 0, 0, |case| case.canary = true, Duty::Over(End::Elsewhere));
        check(Phase::Commit, 0, 0, |case| case.owner = Address::ZERO, Duty::Over(End::Foreign));
    }
}
