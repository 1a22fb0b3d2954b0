//! When looking pays.
//!
//! Where cheating is deterred nearly every receipt is true, so an auditor that says "true" without
//! looking is nearly always right. What makes it look are canaries: receipts that are false on purpose,
//! committed to beforehand, that nobody can tell from others without looking. Rewards for convicting real
//! cheaters are not counted: there are hardly any, and a cheater's friend takes them.

use assay_protocol::Amount;

use crate::share::{Bps, least};

/// What one drawn audit means to its auditor, where all the others look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duty {
    /// What looking costs: one replay, and the calls.
    pub cost: Amount,
    /// Share of drawn receipts that are canaries.
    pub canaries: Bps,
    /// What a verdict is paid that turns out right: "true" of what nobody found false, "false" of a canary.
    pub fee: Amount,
    /// What is paid to the auditor that disputes a canary. Zero to be sure: whoever disputes first has it,
    /// which can be a friend of the planter.
    pub prize: Amount,
    /// What is taken from the auditor that calls a canary true.
    pub forfeit: Amount,
    /// What disputing a true receipt costs: the bond that is lost.
    pub alarm: Amount,
}

/// What an auditor may do with all that it draws. Any mixture of these lies between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Looks, says what it saw, and disputes what is false.
    Looks,
    /// Says "true" unseen.
    Trusts,
    /// Says "false" unseen, and disputes.
    Accuses,
    /// Says "false" unseen, and disputes nothing.
    Doubts,
    /// Says nothing.
    Abstains,
}

impl Habit {
    /// Those that do not look.
    pub const BLIND: [Self; 4] = [Self::Trusts, Self::Accuses, Self::Doubts, Self::Abstains];
}

/// No value that may be chosen makes looking pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("looking brings {looking} less its cost of {cost}, and {habit:?} {blind}")]
pub struct Unwatched {
    /// A habit that is as good.
    pub habit: Habit,
    /// What looking costs.
    pub cost: Amount,
    /// What looking brings at best, before its cost, and before what the habit loses.
    pub looking: Amount,
    /// What the habit brings then.
    pub blind: Amount,
}

impl Duty {
    /// What `habit` wins and loses on average in one audit, each rounded down.
    ///
    /// ```text
    /// looks     fee + k·prize                     cost
    /// trusts    (1 − k)·fee                       k·forfeit
    /// accuses   k·(fee + prize)                   (1 − k)·alarm
    /// doubts    k·fee
    /// abstains                                                         k: canaries
    /// ```
    pub fn outcome(&self, habit: Habit) -> (Amount, Amount) {
        let (canary, other) = (self.canaries, self.canaries.rest());
        let nothing = Amount(0);
        match habit {
            Habit::Looks => (sum(self.fee, canary.of_down(self.prize)), self.cost),
            Habit::Trusts => (other.of_down(self.fee), canary.of_down(self.forfeit)),
            Habit::Accuses => {
                (canary.of_down(sum(self.fee, self.prize)), other.of_down(self.alarm))
            }
            Habit::Doubts => (canary.of_down(self.fee), nothing),
            Habit::Abstains => (nothing, nothing),
        }
    }

    /// Whether looking is worth more than `habit`.
    pub fn beats(&self, habit: Habit) -> bool {
        let ((won, cost), (blind, lost)) = (self.outcome(Habit::Looks), self.outcome(habit));
        sum(won, lost) > sum(blind, cost)
    }

    /// Whether looking is worth more than every habit of not looking.
    pub fn looking_pays(&self) -> bool {
        Habit::BLIND.into_iter().all(|habit| self.beats(habit))
    }

    /// The least share of canaries with which looking beats saying "true" unseen:
    /// above cost / (fee + prize + forfeit).
    pub fn least_canaries(&self) -> Result<Bps, Unwatched> {
        let with = |canaries| Self { canaries, ..*self };
        Bps::least(|canaries| with(canaries).beats(Habit::Trusts))
            .ok_or_else(|| with(Bps::WHOLE).unwatched(Habit::Trusts))
    }

    /// The least forfeit with which looking beats saying "true" unseen: above cost / canaries − fee − prize.
    pub fn least_forfeit(&self) -> Result<Amount, Unwatched> {
        self.least_amount(Habit::Trusts, |duty, forfeit| Self { forfeit, ..duty })
    }

    /// The least prize with which looking beats saying "true" unseen: above cost / canaries − fee − forfeit.
    pub fn least_prize(&self) -> Result<Amount, Unwatched> {
        self.least_amount(Habit::Trusts, |duty, prize| Self { prize, ..duty })
    }

    /// The least bond of a dispute with which looking beats accusing unseen: above cost / (1 − canaries) − fee.
    pub fn least_alarm(&self) -> Result<Amount, Unwatched> {
        self.least_amount(Habit::Accuses, |duty, alarm| Self { alarm, ..duty })
    }

    /// The least fee with which looking beats saying "false" idly, and so saying nothing:
    /// above (cost − canaries · prize) / (1 − canaries).
    pub fn least_fee(&self) -> Result<Amount, Unwatched> {
        self.least_amount(Habit::Doubts, |duty, fee| Self { fee, ..duty })
    }

    /// The least amount at which looking beats `habit`; more of it never helps the habit.
    fn least_amount(
        &self,
        habit: Habit,
        with: impl Fn(Self, Amount) -> Self,
    ) -> Result<Amount, Unwatched> {
        let most = u128::MAX >> 2; // so that sums of several stay apart
        let found = least(most, |amount| with(*self, Amount(amount)).beats(habit));
        found.map(Amount).ok_or_else(|| with(*self, Amount(most)).unwatched(habit))
    }

    fn unwatched(&self, habit: Habit) -> Unwatched {
        let ((won, cost), (blind, lost)) = (self.outcome(Habit::Looks), self.outcome(habit));
        Unwatched { habit, cost, looking: sum(won, lost), blind }
    }
}

/// What planting a canary means to who plants it, without any love of honest auditors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canary {
    /// What it costs: the fees on its price, the false answer, the calls.
    pub cost: Amount,
    /// Chance that it is drawn; nobody is caught otherwise.
    pub rate: Bps,
    /// What goes to who disputes it.
    pub prize: Amount,
    /// What its planter is given for each auditor that calls it true.
    pub share: Amount,
}

impl Canary {
    /// The least share of lazy ones among auditors from which planting pays for itself, with two drawn and the
    /// prize always lost: above (cost / rate + prize) / (2 · share). `None` if it never does.
    ///
    /// If anyone may plant, laziness does not stay above it for long.
    pub fn least_laziness(&self) -> Option<Bps> {
        let cost = sum(self.cost, self.rate.of_down(self.prize));
        Bps::least(|lazy| {
            let caught = lazy.of_down(Amount(self.share.0.saturating_mul(2)));
            self.rate.of_down(caught) > cost
        })
    }
}

fn sum(one: Amount, other: Amount) -> Amount {
    Amount(one.0.saturating_add(other.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn duty(cost: u128, canaries: u64, prize: u128, forfeit: u128) -> Duty {
        Duty {
            cost: Amount(cost),
            canaries: Bps::new(canaries).unwrap(),
            fee: Amount(0),
            prize: Amount(prize),
            forfeit: Amount(forfeit),
            alarm: Amount(1_000_000),
        }
    }

    #[test]
    fn one_in_two_hundred_with_two_hundred_times_the_cost_is_just_enough() {
        assert!(!duty(100, 50, 10_000, 10_000).beats(Habit::Trusts));
        assert!(duty(100, 50, 10_000, 10_200).beats(Habit::Trusts));
        assert_eq!(duty(100, 0, 10_000, 10_200).least_canaries(), Ok(Bps::new(50).unwrap()));
        assert_eq!(duty(100, 50, 0, 10_000).least_prize(), Ok(Amount(10_200)));
        assert_eq!(duty(100, 50, 10_000, 0).least_forfeit(), Ok(Amount(10_200)));
    }

    #[test]
    fn without_canaries_nobody_looks() {
        let found = duty(100, 0, 0, 0).least_forfeit().unwrap_err();
        assert_eq!(
            (found.habit, found.cost, found.looking),
            (Habit::Trusts, Amount(100), Amount(0))
        );
        assert!(duty(100, 0, 40, 50).least_canaries().is_err());
        // A fee for "true" is had unseen as well.
        assert!(!Duty { fee: Amount(1_000), ..duty(100, 0, 0, 1_000) }.beats(Habit::Trusts));
    }

    #[test]
    fn accusing_unseen_costs_the_bond_of_a_dispute() {
        let cheap = Duty { alarm: Amount(100), ..duty(100, 50, 100_000, 0) };
        assert!(!cheap.beats(Habit::Accuses));
        assert_eq!(cheap.least_alarm(), Ok(Amount(102)));
        assert!(Duty { alarm: Amount(102), ..cheap }.beats(Habit::Accuses));
    }

    #[test]
    fn idle_words_cost_nothing_so_that_looking_needs_a_fee() {
        let unpaid = duty(100, 50, 0, 1_000_000);
        assert!(unpaid.beats(Habit::Trusts) && unpaid.beats(Habit::Accuses));
        assert!(!unpaid.beats(Habit::Doubts) && !unpaid.beats(Habit::Abstains));
        let fee = unpaid.least_fee().unwrap();
        assert_eq!(fee, Amount(101)); // above 100 / 0.995
        assert!(Duty { fee, ..unpaid }.looking_pays());
    }

    #[test]
    fn planting_pays_where_many_are_lazy() {
        let canary = Canary {
            cost: Amount(1),
            rate: Bps::new(200).unwrap(),
            prize: Amount(1_000),
            share: Amount(25_000),
        };
        // (1 / 0.02 + 1,000) / 50,000 = 2.1 %
        let least = canary.least_laziness().unwrap();
        assert!((200..=220).contains(&least.get()), "{least:?}");
        assert_eq!(Canary { share: Amount(500), ..canary }.least_laziness(), None);
    }

    proptest! {
        #[test]
        fn thresholds_are_where_the_sign_changes(
            cost in 1..1_u128 << 90, canaries in 1..10_000_u64, forfeit in 0..1_u128 << 90, fee in 0..1_u128 << 90,
        ) {
            let duty = Duty { fee: Amount(fee), ..duty(cost, canaries, 0, forfeit) };
            let prize = duty.least_prize().unwrap();
            let trusts = |prize| Duty { prize, ..duty }.beats(Habit::Trusts);
            prop_assert!(trusts(prize));
            prop_assert!(prize.0 == 0 || !trusts(Amount(prize.0 - 1)));
            let canaries = Duty { prize, ..duty }.least_canaries().unwrap();
            prop_assert!(canaries <= duty.canaries);

            let fee = duty.least_fee().unwrap();
            let doubts = |fee| Duty { fee, ..duty }.beats(Habit::Doubts);
            prop_assert!(doubts(fee) && !doubts(Amount(fee.0 - 1)));
        }

        #[test]
        fn nothing_overflows(cost: u128, canaries in 0..=10_000_u64, prize: u128, forfeit: u128, alarm: u128, fee: u128) {
            let duty = Duty { alarm: Amount(alarm), fee: Amount(fee), ..duty(cost, canaries, prize, forfeit) };
            let _ = (duty.looking_pays(), duty.least_canaries(), duty.least_alarm(), duty.least_fee());
            let canary = Canary { cost: Amount(cost), rate: duty.canaries, prize: Amount(prize), share: Amount(fee) };
            let _ = canary.least_laziness();
        }
    }
}
