//! When many false answers pay although one does not.
//!
//! Each conviction takes a share of what is left, so the loss of many false answers is bounded by
//! the stake while their gain is not: after enough of them a cheater that is already ruined has
//! nothing more to fear. A stake deters only so many answers, and what a provider can sell before the
//! first conviction must be fewer.

use assay_protocol::Amount;

use crate::deterrence::{AtRisk, Undeterred};
use crate::share::{Chance, least};

/// False answers of one provider, all of them given before any is convicted, none audited more
/// often for another's sake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spree {
    /// What each gains.
    pub gain: Amount,
    /// Chance that each is convicted.
    pub conviction: Chance,
    /// The stake before the first conviction, what each refund is worth, and what each conviction takes.
    pub risk: AtRisk,
}

impl Spree {
    /// What is burned of the stake by `convictions`, one after another, each of what the one before left.
    pub fn burned(&self, convictions: u32) -> Amount {
        let (mut left, mut burned) = (self.risk.stake, 0_u128);
        for _ in 0..convictions {
            let taken = self.risk.penalty.slashed(left);
            if taken.0 == 0 {
                break;
            }
            burned += self.risk.penalty.burned(left).0;
            left = Amount(left.0 - taken.0);
        }
        Amount(burned)
    }

    /// What `answers` false ones lose on average: (1 − reward) · stake · (1 − (1 − slash · p)^n) + n · p · refund.
    ///
    /// Of the stake (1 − slash)^k is left after k convictions, and k of n are convicted with chance p each, so
    /// (1 − slash · p)^n is left on average. Within a few base units per conviction of what the contract rounds.
    pub fn loss(&self, answers: u64) -> Amount {
        let penalty = &self.risk.penalty;
        let hit = Chance::from(penalty.slash).and_down(self.conviction);
        let gone = hit.not().power_up(answers).not();
        let burned = Chance::from(penalty.reward).not().of_down(gone.of_down(self.risk.stake));
        let refunded = self.conviction.of_down(self.risk.refund).0.saturating_mul(answers.into());
        Amount(burned.0.saturating_add(refunded))
    }

    /// What `answers` false ones gain.
    pub fn gained(&self, answers: u64) -> Amount {
        Amount(self.gain.0.saturating_mul(answers.into()))
    }

    /// From how many answers on a spree pays: its gain reaches its loss. `None` if it never does, because
    /// refunds alone outweigh the gain.
    ///
    /// One, if not even a single false answer is deterred. The loss rises ever more slowly and the gain does not,
    /// so there is one crossing and more answers pay, too.
    pub fn answers_that_pay(&self) -> Option<u64> {
        if self.conviction.of_down(self.risk.refund) >= self.gain && self.loss(1) > self.gain {
            return None;
        }
        let pays = |answers: u128| {
            let answers = (answers as u64).saturating_add(1);
            self.gained(answers) >= self.loss(answers)
        };
        let found = least(u128::from(u64::MAX) - 1, pays)?;
        Some(found as u64 + 1)
    }

    /// The least stake with which a spree of `answers` does not pay. Fails if no stake is enough.
    pub fn least_stake(&self, answers: u64) -> Result<Amount, Undeterred> {
        let gain = self.gained(answers);
        let loss = |stake| {
            let risk = AtRisk { stake: Amount(stake), ..self.risk };
            Self { risk, ..*self }.loss(answers)
        };
        let found = least(u128::MAX, |stake| loss(stake) > gain);
        found.map(Amount).ok_or_else(|| Undeterred { gain, loss: loss(u128::MAX) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deterrence::Penalty;
    use crate::share::Bps;
    use proptest::prelude::*;

    fn spree(gain: u128, rate: u64, stake: u128, refund: u128) -> Spree {
        let risk =
            AtRisk { stake: Amount(stake), refund: Amount(refund), penalty: Penalty::SHIPPED };
        Spree { gain: Amount(gain), conviction: Bps::new(rate).unwrap().into(), risk }
    }

    #[test]
    fn convictions_take_of_what_is_left() {
        let spree = spree(1, 1, 1_000_000, 0);
        let burned = |convictions| spree.burned(convictions).0;
        assert_eq!([burned(0), burned(1), burned(2), burned(3)], [0, 180_000, 324_000, 439_200]);
        // A reward of less than one unit is burned with the rest.
        assert!(burned(u32::MAX).abs_diff(900_000) < 100);
    }

    #[test]
    fn certain_convictions_lose_what_is_burned() {
        let spree = spree(1, 10_000, 1_000_000_000_000, 0);
        for answers in 0..20 {
            let (loss, burned) = (spree.loss(answers).0, spree.burned(answers as u32).0);
            assert!(loss.abs_diff(burned) < 100, "{answers}: {loss} and {burned}");
        }
    }

    #[test]
    fn one_answer_is_deterred_and_many_are_not() {
        // p · burned = 0.02 · 180,000 = 3,600 > 1,000; all that can burn is 900,000.
        let spree = spree(1_000, 200, 1_000_000, 0);
        let pays = spree.answers_that_pay().unwrap();
        assert!(spree.gained(pays) >= spree.loss(pays));
        assert!(spree.gained(pays - 1) < spree.loss(pays - 1));
        assert!((800..900).contains(&pays), "{pays}");
    }

    #[test]
    fn what_is_not_deterred_once_pays_at_once() {
        assert_eq!(spree(4_000, 200, 1_000_000, 0).answers_that_pay(), Some(1));
        assert_eq!(spree(4_000, 0, u128::MAX, 0).answers_that_pay(), Some(1));
    }

    #[test]
    fn refunds_alone_can_outweigh_any_number() {
        assert_eq!(spree(10, 5_000, 1_000, 30).answers_that_pay(), None);
    }

    proptest! {
        #[test]
        fn the_least_stake_is_where_the_sign_changes(gain in 1..u64::MAX, rate in 1..=10_000_u64, answers in 1..1_000_000_u64) {
            let spree = spree(gain.into(), rate, 0, 0);
            let least = spree.least_stake(answers).unwrap();
            let with = |stake| Spree { risk: AtRisk { stake, ..spree.risk }, ..spree };
            prop_assert!(with(least).loss(answers) > spree.gained(answers));
            prop_assert!(with(Amount(least.0 - 1)).loss(answers) <= spree.gained(answers));
        }

        #[test]
        fn nothing_overflows(gain: u128, rate in 0..=10_000_u64, stake: u128, refund: u128, answers: u64) {
            let spree = spree(gain, rate, stake, refund);
            let _ = (spree.loss(answers), spree.gained(answers), spree.answers_that_pay());
            let _ = spree.least_stake(answers);
        }
    }
}
