//! Shares and chances, as integers.
//!
//! Contracts count shares in basis points; what is multiplied out of several of them needs more
//! digits, and has 18. Where a result is rounded is in the name of the function, so that what
//! deters is never rounded up.

use assay_protocol::{Amount, U256};

/// Basis points in a whole.
const WHOLE: u16 = 10_000;

/// Units of a [`Chance`] in certainty.
const CERTAIN: u64 = 1_000_000_000_000_000_000;

/// A share in basis points, at most a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bps(u16);

/// More than a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found} basis points are more than a whole, {WHOLE}")]
pub struct NotAShare {
    /// What was given.
    pub found: u64,
}

impl Bps {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// All of it.
    pub const WHOLE: Self = Self(WHOLE);

    /// `bps` ten-thousandths; fails above a whole.
    pub const fn new(bps: u64) -> Result<Self, NotAShare> {
        if bps > WHOLE as u64 {
            return Err(NotAShare { found: bps });
        }
        Ok(Self(bps as u16))
    }

    /// In ten-thousandths.
    pub const fn get(self) -> u64 {
        self.0 as u64
    }

    /// This share of `amount`, rounded down, as the contracts take it.
    pub fn of_down(self, amount: Amount) -> Amount {
        scale(amount, u64::from(self.0), u64::from(WHOLE))
    }

    /// What is left of a whole.
    pub const fn rest(self) -> Self {
        Self(WHOLE - self.0)
    }

    /// The least share for which `holds` is true, if it stays true above: `None` if it is not even
    /// for the whole.
    pub(crate) fn least(holds: impl Fn(Self) -> bool) -> Option<Self> {
        let found = least(u128::from(WHOLE), |bps| holds(Self(bps as u16)))?;
        Some(Self(found as u16))
    }
}

/// A chance, in parts of 10^18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chance(u64);

impl Chance {
    /// What never happens.
    pub const NEVER: Self = Self(0);
    /// What always happens.
    pub const ALWAYS: Self = Self(CERTAIN);

    /// In parts of 10^18.
    pub const fn parts(self) -> u64 {
        self.0
    }

    /// In basis points, rounded down.
    pub const fn bps_down(self) -> u64 {
        self.0 / (CERTAIN / WHOLE as u64)
    }

    /// That it does not happen. Exact.
    pub const fn not(self) -> Self {
        Self(CERTAIN - self.0)
    }

    /// That both happen, if neither tells of the other; rounded down.
    pub fn and_down(self, other: Self) -> Self {
        Self((self.product(other) / u128::from(CERTAIN)) as u64)
    }

    /// That both happen, if neither tells of the other; rounded up.
    pub fn and_up(self, other: Self) -> Self {
        Self(self.product(other).div_ceil(u128::from(CERTAIN)) as u64)
    }

    /// That it happens `times` times out of as many; rounded up at each of the few steps.
    pub fn power_up(self, mut times: u64) -> Self {
        let (mut square, mut power) = (self, Self::ALWAYS);
        while times != 0 {
            if times & 1 == 1 {
                power = power.and_up(square);
            }
            square = square.and_up(square);
            times >>= 1;
        }
        power
    }

    /// What `amount` is worth if it comes with this chance; rounded down.
    pub fn of_down(self, amount: Amount) -> Amount {
        scale(amount, self.0, CERTAIN)
    }

    /// Below 10^36, so it fits.
    fn product(self, other: Self) -> u128 {
        u128::from(self.0) * u128::from(other.0)
    }
}

impl From<Bps> for Chance {
    fn from(share: Bps) -> Self {
        Self(share.get() * (CERTAIN / u64::from(WHOLE)))
    }
}

/// `amount · part / whole`, rounded down; `part` is at most `whole`, so it is no more than `amount`.
fn scale(amount: Amount, part: u64, whole: u64) -> Amount {
    let scaled = U256::from(amount.0) * U256::from(part) / U256::from(whole);
    Amount(scaled.saturating_to())
}

/// The least number up to `most` for which `holds` is true, if it stays true above; `None` if there is none.
pub(crate) fn least(most: u128, holds: impl Fn(u128) -> bool) -> Option<u128> {
    if !holds(most) {
        return None;
    }
    // `holds(high)` is true, and false below `low`.
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Some(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bps(value: u64) -> Bps {
        Bps::new(value).unwrap()
    }

    #[test]
    fn a_share_is_at_most_a_whole() {
        assert_eq!(Bps::new(10_001), Err(NotAShare { found: 10_001 }));
        assert_eq!(bps(10_000).of_down(Amount(u128::MAX)), Amount(u128::MAX));
        assert_eq!(bps(2_000).of_down(Amount(9)), Amount(1));
    }

    #[test]
    fn chances_multiply_and_say_where_they_round() {
        let third = Chance(CERTAIN / 3);
        assert_eq!(third.and_down(third).parts() + 1, third.and_up(third).parts());
        assert_eq!(Chance::from(bps(2_000)).power_up(2), Chance::from(bps(400)));
        assert_eq!(third.power_up(0), Chance::ALWAYS);
        assert_eq!(Chance::ALWAYS.power_up(u64::MAX), Chance::ALWAYS);
        assert_eq!(Chance::from(bps(1)).of_down(Amount(9_999)), Amount(0));
        assert_eq!(Chance::from(bps(192)).bps_down(), 192);
    }

    #[test]
    fn long_powers_stay_close() {
        // 0.9999^10,000 = 0.36786104643292992411..., computed with fifty digits elsewhere.
        let found = Chance::from(bps(9_999)).power_up(10_000).parts();
        assert!(found.abs_diff(367_861_046_432_929_924) < 20_000, "{found}");
    }

    #[test]
    fn the_least_is_found() {
        assert_eq!(least(100, |n| n >= 37), Some(37));
        assert_eq!(least(100, |_| true), Some(0));
        assert_eq!(least(100, |n| n > 100), None);
        assert_eq!(least(u128::MAX, |n| n == u128::MAX), Some(u128::MAX));
    }
}
