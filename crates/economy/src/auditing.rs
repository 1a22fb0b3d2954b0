//! When looking pays.
//!
//! Where cheating is deterred nearly every receipt is true, so an auditor that says "true" without
//! looking is nearly always right. What makes it look are canaries: receipts that are false on purpose,
//! committed to beforehand, that nobody can tell from others without looking. Rewards for convicting real
//! cheaters are not counted: there are hardly any, and a cheater's friend takes them.

use assay_protocol::Amount;

use crate::share::{Bps, least};

/// What one drawn audit means to its auditor. Pay that comes whatever it says, is not here: it decides
/// whether to be an auditor, not whether to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duty {
    /// What looking costs: one replay, and the calls.
    pub cost: Amount,
    /// Share of drawn receipts that are canaries.
    pub canaries: Bps,
    /// What is paid to the auditor that finds one. If the two that are drawn share it, its own part.
    pub prize: Amount,
    /// What is taken from the bond of the auditor that passes one, and cannot come back to it.
    pub forfeit: Amount,
    /// What calling a true receipt false costs: the bond of the dispute that it loses.
    pub alarm: Amount,
}

/// What an auditor may do with all that it draws. Any mixture of these lies between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Looks, and says what it saw.
    Looks,
    /// Says "true" unseen.
    Trusts,
    /// Says "false" unseen.
    Accuses,
}

/// No number of canaries, or no prize, makes looking pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("looking costs {cost}, and saves or wins {worth} at most")]
pub struct Unwatched {
    /// What looking costs.
    pub cost: Amount,
    /// The most it can be worth.
    pub worth: Amount,
}

impl Duty {
    /// What `habit` wins and loses on average in one audit; the win rounded down, the loss too.
    pub fn outcome(&self, habit: Habit) -> (Amount, Amount) {
        let found = self.canaries.of_down(self.prize);
        match habit {
            Habit::Looks => (found, self.cost),
            Habit::Trusts => (Amount(0), self.canaries.of_down(self.forfeit)),
            Habit::Accuses => (found, self.others().of_down(self.alarm)),
        }
    }

    /// Whether looking is worth more than each habit of not looking:
    /// canaries · (prize + forfeit) > cost, and (1 − canaries) · alarm > cost.
    pub fn looking_pays(&self) -> bool {
        self.worth_against_trust() > self.cost && self.worth_against_accusing() > self.cost
    }

    /// The least share of canaries with which looking beats saying "true" unseen.
    pub fn least_canaries(&self) -> Result<Bps, Unwatched> {
        let worth = |canaries| Self { canaries, ..*self }.worth_against_trust();
        let found = Bps::least(|canaries| worth(canaries) > self.cost);
        found.ok_or_else(|| Unwatched { cost: self.cost, worth: worth(Bps::WHOLE) })
    }

    /// The least prize with which looking beats saying "true" unseen.
    pub fn least_prize(&self) -> Result<Amount, Unwatched> {
        let worth = |prize| Self { prize: Amount(prize), ..*self }.worth_against_trust();
        let found = least(u128::MAX, |prize| worth(prize) > self.cost);
        found.map(Amount).ok_or_else(|| Unwatched { cost: self.cost, worth: worth(u128::MAX) })
    }

    /// The least bond of a dispute with which looking beats saying "false" unseen.
    pub fn least_alarm(&self) -> Result<Amount, Unwatched> {
        let worth = |alarm| Self { alarm: Amount(alarm), ..*self }.worth_against_accusing();
        let found = least(u128::MAX, |alarm| worth(alarm) > self.cost);
        found.map(Amount).ok_or_else(|| Unwatched { cost: self.cost, worth: worth(u128::MAX) })
    }

    /// The least pay for an audit, whatever comes of it, with which an auditor that looks loses nothing.
    pub fn least_pay(&self) -> Amount {
        let (won, lost) = self.outcome(Habit::Looks);
        Amount(lost.0.saturating_sub(won.0))
    }

    fn worth_against_trust(&self) -> Amount {
        self.canaries.of_down(Amount(self.prize.0.saturating_add(self.forfeit.0)))
    }

    fn worth_against_accusing(&self) -> Amount {
        self.others().of_down(self.alarm)
    }

    /// The share of what is no canary.
    fn others(&self) -> Bps {
        self.canaries.rest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn duty(cost: u128, canaries: u64, prize: u128, forfeit: u128) -> Duty {
        Duty {
            cost: Amount(cost),
            canaries: Bps::new(canaries).unwrap(),
            prize: Amount(prize),
            forfeit: Amount(forfeit),
            alarm: Amount(1_000_000),
        }
    }

    #[test]
    fn one_in_two_hundred_with_two_hundred_times_the_cost_is_just_enough() {
        assert!(!duty(100, 50, 10_000, 10_000).looking_pays());
        assert!(duty(100, 50, 10_000, 10_200).looking_pays());
        assert_eq!(duty(100, 0, 10_000, 10_200).least_canaries(), Ok(Bps::new(50).unwrap()));
        assert_eq!(duty(100, 50, 0, 10_000).least_prize(), Ok(Amount(10_200)));
    }

    #[test]
    fn without_canaries_nobody_looks() {
        let found = duty(100, 0, u128::MAX, 0).least_prize();
        assert_eq!(found, Err(Unwatched { cost: Amount(100), worth: Amount(0) }));
        assert!(duty(100, 0, 40, 50).least_canaries().is_err());
    }

    #[test]
    fn accusing_unseen_costs_the_bond_of_a_dispute() {
        let cheap = Duty { alarm: Amount(100), ..duty(100, 50, 100_000, 0) };
        assert!(!cheap.looking_pays());
        assert_eq!(cheap.least_alarm(), Ok(Amount(102)));
        assert!(Duty { alarm: Amount(102), ..cheap }.looking_pays());
    }

    #[test]
    fn pay_makes_up_for_what_prizes_do_not() {
        assert_eq!(duty(100, 50, 10_000, 0).least_pay(), Amount(50));
        assert_eq!(duty(100, 50, 30_000, 0).least_pay(), Amount(0));
    }

    proptest! {
        #[test]
        fn thresholds_are_where_the_sign_changes(cost in 1..1_u128 << 90, canaries in 1..10_000_u64, forfeit in 0..1_u128 << 90) {
            let duty = duty(cost, canaries, 0, forfeit);
            let prize = duty.least_prize().unwrap();
            let worth = |prize| Duty { prize, ..duty }.worth_against_trust();
            prop_assert!(worth(prize) > duty.cost);
            if prize.0 > 0 {
                prop_assert!(worth(Amount(prize.0 - 1)) <= duty.cost);
            }
            let found = Duty { prize, ..duty }.least_canaries().unwrap();
            prop_assert!(found <= duty.canaries);
        }

        #[test]
        fn nothing_overflows(cost: u128, canaries in 0..=10_000_u64, prize: u128, forfeit: u128, alarm: u128) {
            let duty = Duty { alarm: Amount(alarm), ..duty(cost, canaries, prize, forfeit) };
            for habit in [Habit::Looks, Habit::Trusts, Habit::Accuses] {
                let _ = duty.outcome(habit);
            }
            let _ = (duty.looking_pays(), duty.least_canaries(), duty.least_alarm(), duty.least_pay());
        }
    }
}
