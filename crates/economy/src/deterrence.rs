//! When one false answer does not pay.
//!
//! A false answer gains what it saves, and stakes what a conviction takes, with the chance that it
//! is convicted. Of what a conviction takes only the part counts that cannot come back: a friend
//! of the cheater can be the first to open the dispute, and has the challenger's reward then. So
//! the reward is never counted, though most cheaters have no such friend.
//!
//! There is one formula, [`expected_loss`]; thresholds are the least stake and the least rate for
//! which it is more than the gain, found by search. So they cannot contradict it.

use assay_protocol::Amount;

use crate::share::{Bps, Chance, least};

/// What a conviction takes from a stake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Penalty {
    /// Of all stake at risk, for each false receipt.
    pub slash: Bps,
    /// Of the slash, paid to the challenger who was first. The rest is burned.
    pub reward: Bps,
}

impl Penalty {
    /// The contracts' own: `SlashMost`, which `Disputes.punish` always takes, and `ChallengerReward`.
    pub const SHIPPED: Self = match (Bps::new(2_000), Bps::new(1_000)) {
        (Ok(slash), Ok(reward)) => Self { slash, reward },
        _ => panic!("a fifth and a tenth are shares"),
    };

    /// What is taken, rounded down as the contract rounds.
    pub fn slashed(&self, stake: Amount) -> Amount {
        self.slash.of_down(stake)
    }

    /// What of it the challenger is paid, rounded down.
    pub fn rewarded(&self, stake: Amount) -> Amount {
        self.reward.of_down(self.slashed(stake))
    }

    /// What of it nobody ever has again.
    pub fn burned(&self, stake: Amount) -> Amount {
        Amount(self.slashed(stake).0 - self.rewarded(stake).0)
    }
}

/// What the network keeps of a price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fees {
    /// The network's part.
    pub network: Bps,
    /// The treasury's part.
    pub governance: Bps,
}

impl Fees {
    /// The contracts' own: `NetworkFee` and `GovernanceShare`.
    pub const SHIPPED: Self = match (Bps::new(200), Bps::new(500)) {
        (Ok(network), Ok(governance)) => Self { network, governance },
        _ => panic!("two and five hundredths are shares"),
    };

    /// What a provider has of `price`: each fee rounded down, the rest is its own, as in `Till`.
    pub fn after(&self, price: Amount) -> Amount {
        let fees = self.network.of_down(price).0.saturating_add(self.governance.of_down(price).0);
        Amount(price.0.saturating_sub(fees))
    }
}

/// What one answer brings to its provider, and costs it. Amounts in base units of one asset, the
/// same in which stakes are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sale {
    /// What the buyer pays.
    pub price: Amount,
    /// What is kept of it.
    pub fees: Fees,
    /// What the true answer costs to compute.
    pub cost: Amount,
    /// What the false one costs: a smaller model, fewer bits, a cached or made-up text.
    pub false_cost: Amount,
}

/// What a cheater would do otherwise, against which its gain is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Motive {
    /// Serve honestly: it gains the cost that it saves.
    Saving,
    /// Serve nobody: it gains all that the answer brings. It comes only to cheat, so it is deterred
    /// only if cheating loses money, not merely earns less.
    Raiding,
}

impl Sale {
    /// What the provider has of the price, and loses if it is refunded.
    pub fn income(&self) -> Amount {
        self.fees.after(self.price)
    }

    /// What one false answer gains while nobody looks. Zero if it gains nothing.
    pub fn gain(&self, motive: Motive) -> Amount {
        let against = match motive {
            Motive::Saving => self.cost,
            Motive::Raiding => self.income(),
        };
        Amount(against.0.saturating_sub(self.false_cost.0))
    }
}

/// Who looks at the answers of one kind. A kind is all that a provider can tell apart before it
/// answers: the order's `audit`, the buyer, the model, the length. A cheater chooses the kind that
/// is looked at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audits {
    /// Chance that a posted receipt is drawn. Zero for orders with `audit = 0`.
    pub rate: Bps,
    /// Chance that an honest audit of a false answer finds it: a whole for replay, which is exact.
    pub detection: Bps,
    /// Auditors drawn for one receipt.
    pub auditors: u32,
    /// Share of the drawing weight whose owners would pass the lie: friends and lazy ones together.
    pub turned: Bps,
    /// Whether auditors commit before any of them reveals. If not, the later ones copy the first, and
    /// are worth nothing.
    pub sealed: bool,
    /// Chance that the buyer itself looks, which needs no draw, and disputes.
    pub buyer: Bps,
}

impl Audits {
    /// Chance that a false answer is convicted, rounded down.
    ///
    /// One honest auditor among those drawn is enough: a dispute is decided by arithmetic, not by
    /// votes. Auditors are taken to be drawn anew each time; drawn without repetition they are a
    /// little better.
    pub fn conviction(&self) -> Chance {
        let independent = if self.sealed { self.auditors } else { self.auditors.min(1) };
        let all_turned = Chance::from(self.turned).power_up(u64::from(independent));
        let drawn = Chance::from(self.rate).and_down(self.detection.into());
        let audited = drawn.and_down(all_turned.not());
        let missed = Chance::from(self.buyer).not().and_up(audited.not());
        missed.not()
    }

    /// The same where auditors look at no more than `verdicts` in a time in which `posted` receipts are posted, and
    /// choose blindly: whoever posts many of its own thins out what is looked at.
    pub fn crowded(self, posted: u64, verdicts: u64) -> Self {
        let needed = u128::from(posted) * u128::from(self.auditors.max(1));
        let most = u128::from(verdicts) * u128::from(Bps::WHOLE.get());
        let rate = most.checked_div(needed).unwrap_or(most);
        let rate = Bps::new(u64::try_from(rate).unwrap_or(u64::MAX)).unwrap_or(Bps::WHOLE);
        Self { rate: self.rate.min(rate), ..self }
    }
}

/// What a false answer puts at risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtRisk {
    /// Bonded stake and stake on its way out.
    pub stake: Amount,
    /// What the provider has of the price, if the verdict comes before the till releases it; else zero.
    pub refund: Amount,
    /// What a conviction takes.
    pub penalty: Penalty,
}

impl AtRisk {
    /// What a conviction costs a cheater whose friend is the challenger: what is burned, and the refund.
    pub fn counted(&self) -> Amount {
        Amount(self.penalty.burned(self.stake).0.saturating_add(self.refund.0))
    }
}

/// No stake and no rate of audits that may be chosen is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a false answer gains {gain}, and loses {loss} at most on average")]
pub struct Undeterred {
    /// What a false answer gains.
    pub gain: Amount,
    /// The largest loss that can be had.
    pub loss: Amount,
}

/// What one false answer loses on average, rounded down.
///
/// It does not pay if this is more than its [gain](Sale::gain).
pub fn expected_loss(conviction: Chance, risk: &AtRisk) -> Amount {
    conviction.of_down(risk.counted())
}

/// The least stake with which one false answer that gains `gain` does not pay.
///
/// About (gain / conviction − refund) / (slash · (1 − reward)). Fails if nobody is ever convicted.
pub fn least_stake(
    gain: Amount,
    refund: Amount,
    conviction: Chance,
    penalty: Penalty,
) -> Result<Amount, Undeterred> {
    let loss = |stake| expected_loss(conviction, &AtRisk { stake: Amount(stake), refund, penalty });
    let found = least(u128::MAX, |stake| loss(stake) > gain);
    found.map(Amount).ok_or_else(|| Undeterred { gain, loss: loss(u128::MAX) })
}

/// The least rate of drawn audits with which one false answer that gains `gain` does not pay, all
/// else as in `audits`.
pub fn least_rate(gain: Amount, risk: &AtRisk, audits: &Audits) -> Result<Bps, Undeterred> {
    let loss = |rate| expected_loss(Audits { rate, ..*audits }.conviction(), risk);
    Bps::least(|rate| loss(rate) > gain).ok_or_else(|| Undeterred { gain, loss: loss(Bps::WHOLE) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One ASY.
    const ASY: u128 = 1_000_000_000_000_000_000;

    fn bps(value: u64) -> Bps {
        Bps::new(value).unwrap()
    }

    fn audits() -> Audits {
        Audits {
            rate: bps(200),
            detection: Bps::WHOLE,
            auditors: 2,
            turned: bps(2_000),
            sealed: true,
            buyer: Bps::NONE,
        }
    }

    /// The usual value that `Bounds.sol` gives to a key.
    fn usual(key: &str) -> u64 {
        let source = include_str!("../../../contracts/src/libraries/Bounds.sol");
        let line = source.split(&format!("Value.{key}) return Bound(")).nth(1).unwrap();
        line.split(", ").nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn what_ships_is_what_the_contracts_say() {
        let Penalty { slash, reward } = Penalty::SHIPPED;
        assert_eq!([slash.get(), reward.get()], [usual("SlashMost"), usual("ChallengerReward")]);
        let Fees { network, governance } = Fees::SHIPPED;
        assert_eq!(
            [network.get(), governance.get()],
            [usual("NetworkFee"), usual("GovernanceShare")]
        );
    }

    #[test]
    fn of_a_thousand_at_stake_180_burn_and_20_are_the_challengers() {
        let stake = Amount(1_000 * ASY);
        assert_eq!(Penalty::SHIPPED.slashed(stake), Amount(200 * ASY));
        assert_eq!(Penalty::SHIPPED.rewarded(stake), Amount(20 * ASY));
        assert_eq!(Penalty::SHIPPED.burned(stake), Amount(180 * ASY));
    }

    #[test]
    fn a_raider_gains_what_one_who_saves_would_earn_anyway() {
        let sale = Sale {
            price: Amount(1_000),
            fees: Fees::SHIPPED,
            cost: Amount(800),
            false_cost: Amount(200),
        };
        assert_eq!(sale.income(), Amount(930));
        assert_eq!(sale.gain(Motive::Saving), Amount(600));
        assert_eq!(sale.gain(Motive::Raiding), Amount(730));
        let dear = Sale { false_cost: Amount(900), ..sale };
        assert_eq!(dear.gain(Motive::Saving), Amount(0));
    }

    #[test]
    fn two_sealed_auditors_square_the_share_of_friends() {
        assert_eq!(audits().conviction().bps_down(), 192); // 2 % of (1 − 0.2²)
        let open = Audits { sealed: false, ..audits() };
        assert_eq!(open.conviction().bps_down(), 160); // 2 % of (1 − 0.2)
        assert_eq!(Audits { auditors: 0, ..audits() }.conviction(), Chance::NEVER);
        assert_eq!(Audits { turned: Bps::WHOLE, ..audits() }.conviction(), Chance::NEVER);
    }

    #[test]
    fn a_private_order_is_watched_by_its_buyer_alone() {
        let private = Audits { rate: Bps::NONE, buyer: bps(500), ..audits() };
        assert_eq!(private.conviction(), Chance::from(bps(500)));
        let both = Audits { buyer: bps(500), ..audits() };
        assert_eq!(both.conviction().parts(), 68_240_000_000_000_000); // 1 − 0.95 · 0.9808
    }

    #[test]
    fn a_flood_of_own_receipts_thins_the_audits_out() {
        let rate = |posted, verdicts| audits().crowded(posted, verdicts).rate.get();
        assert_eq!(rate(10_000, 400), 200); // all that is drawn is looked at
        assert_eq!(rate(100_000, 400), 20);
        assert_eq!(rate(0, 0), 0);
        assert_eq!([rate(0, 1), rate(1, u64::MAX), rate(u64::MAX, 1)], [200, 200, 0]);
    }

    #[test]
    fn what_nobody_looks_at_no_stake_deters() {
        let found = least_stake(Amount(7), Amount(100), Chance::NEVER, Penalty::SHIPPED);
        assert_eq!(found, Err(Undeterred { gain: Amount(7), loss: Amount(0) }));
        let poor = AtRisk { stake: Amount(10), refund: Amount(0), penalty: Penalty::SHIPPED };
        assert!(least_rate(Amount(7), &poor, &audits()).is_err());
    }

    #[test]
    fn a_refund_can_be_enough() {
        let half = Chance::from(bps(5_000));
        let found = least_stake(Amount(40), Amount(93), half, Penalty::SHIPPED);
        assert_eq!(found, Ok(Amount(0)));
    }

    proptest! {
        #[test]
        fn thresholds_are_where_the_sign_changes(
            gain in 1..1_000_000 * ASY, refund in 0..ASY, rate in 1..=10_000_u64, turned in 0..10_000_u64,
        ) {
            let audits = Audits { rate: bps(rate), turned: bps(turned), ..audits() };
            let (gain, refund, penalty) = (Amount(gain), Amount(refund), Penalty::SHIPPED);
            let conviction = audits.conviction();
            let loss = |stake| expected_loss(conviction, &AtRisk { stake, refund, penalty });
            let least = least_stake(gain, refund, conviction, penalty).unwrap();
            prop_assert!(loss(least) > gain);
            prop_assert!(least.0 == 0 || loss(Amount(least.0 - 1)) <= gain);

            let risk = AtRisk { stake: least, refund, penalty };
            let found = least_rate(gain, &risk, &audits).unwrap();
            prop_assert!(found <= audits.rate);
        }

        /// The search finds what the page says: (gain / p − refund) / 0.18.
        #[test]
        fn the_search_agrees_with_the_closed_form(gain in ASY..1_000 * ASY, refund in 0..ASY, rate in 1..=10_000_u64) {
            let conviction = Chance::from(bps(rate));
            let least = least_stake(Amount(gain), Amount(refund), conviction, Penalty::SHIPPED).unwrap();
            let closed = (gain * 10_000 / u128::from(rate)).saturating_sub(refund) * 10_000 / 1_800;
            prop_assert!(least.0.abs_diff(closed) <= 100_000, "{} {closed}", least.0);
        }

        #[test]
        fn nothing_overflows(stake: u128, refund: u128, gain: u128, rate in 0..=10_000_u64) {
            let risk = AtRisk { stake: Amount(stake), refund: Amount(refund), penalty: Penalty::SHIPPED };
            let audits = Audits { rate: bps(rate), ..audits() };
            prop_assert!(expected_loss(audits.conviction(), &risk) <= risk.counted());
            let _ = least_rate(Amount(gain), &risk, &audits);
            let _ = least_stake(Amount(gain), Amount(refund), audits.conviction(), Penalty::SHIPPED);
        }
    }
}
