//! What it costs to choose one's own draws.
//!
//! The beacon that draws follows from secrets of auditors. Who is the last to reveal sees the draw with its
//! secret and the one without, and may keep the secret for a fine. With many addresses it sees a draw for each that
//! it could keep, and needs only one draw that misses all its false answers. So the fine, too, must be
//! more than what it hides.

use assay_protocol::Amount;

use crate::share::{Bps, Chance, least};

/// Auditors of a cheater, who reveal last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chooser {
    /// How many addresses are its own.
    pub addresses: u64,
    /// Chance of each false answer to be convicted by a draw that nobody chose.
    pub conviction: Chance,
}

impl Chooser {
    /// How many false answers of one epoch it can hide for one fine: with n addresses it chooses from n + 1 draws, one
    /// of which misses all while (1 − p)^answers · (n + 1) is above one, that is up to ln(n + 1) / p answers. A
    /// few more than it can be sure of. `None` if nothing is ever convicted.
    ///
    /// A second fine adds fewer answers than the first.
    pub fn hidden(&self) -> Option<u64> {
        let draws = self.addresses.saturating_add(1);
        let certain = u128::from(Chance::ALWAYS.parts());
        let seen = |answers: u128| {
            let missed = self.conviction.not().power_up(answers as u64);
            u128::from(missed.parts()).saturating_mul(draws.into()) <= certain
        };
        let found = least(u128::from(u64::MAX), seen)?;
        Some(found as u64)
    }

    /// The least bond of an auditor of which `missed` is taken from who does not reveal, so that hiding false
    /// answers which gain `gain` each does not pay. `None` if no bond is enough.
    pub fn least_bond(&self, gain: Amount, missed: Bps) -> Option<Amount> {
        let hidden = Amount(gain.0.saturating_mul(self.hidden()?.into()));
        least(u128::MAX, |bond| missed.of_down(Amount(bond)) > hidden).map(Amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chooser(addresses: u64, bps: u64) -> Chooser {
        Chooser { addresses, conviction: Bps::new(bps).unwrap().into() }
    }

    #[test]
    fn who_has_no_auditor_hides_nothing() {
        assert_eq!(chooser(0, 192).hidden(), Some(0));
        assert_eq!(chooser(0, 192).least_bond(Amount(9), Bps::WHOLE), Some(Amount(1)));
    }

    #[test]
    fn more_addresses_hide_a_little_more() {
        // ln 2 / −ln(1 − 0.0192) = 35.75, ln 11 is 123.7 of them, ln 101 238.06.
        assert_eq!(
            [1, 10, 100].map(|n| chooser(n, 192).hidden()),
            [Some(36), Some(124), Some(239)]
        );
    }

    #[test]
    fn the_bond_follows() {
        let tenth = Bps::new(1_000).unwrap();
        // 36 answers of 1,000 each against a tenth of the bond.
        assert_eq!(chooser(1, 192).least_bond(Amount(1_000), tenth), Some(Amount(360_010)));
        assert_eq!(chooser(1, 0).least_bond(Amount(1_000), tenth), None);
        assert_eq!(chooser(1, 192).least_bond(Amount(u128::MAX), tenth), None);
        assert_eq!(chooser(u64::MAX, 10_000).hidden(), Some(1));
    }
}
