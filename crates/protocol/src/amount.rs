//! Money, in base units of an asset.

use alloy_primitives::ruint::aliases::U256;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount of an asset in its base units. In JSON a decimal string, since a client's numbers
/// may be doubles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(pub u128);

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::str::FromStr for Amount {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The price of an answer at prices per million tokens, rounded down: the buyer's favour, once
/// per answer. Saturates at the largest amount, which no order's highest price admits.
pub fn price(price_in: Amount, prompt: u32, price_out: Amount, output: u32) -> Amount {
    let per_million =
        U256::from(price_in.0) * U256::from(prompt) + U256::from(price_out.0) * U256::from(output);
    let total = per_million / U256::from(1_000_000u32);
    Amount(u128::try_from(total).unwrap_or(u128::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_round_down_once() {
        let of = |i, p, o, n| price(Amount(i), p, Amount(o), n).0;
        assert_eq!(of(1_000_000, 3, 2_000_000, 5), 13);
        assert_eq!(of(999_999, 1, 0, 0), 0);
        assert_eq!(of(500_000, 1, 500_000, 1), 1);
        assert_eq!(of(u128::MAX, u32::MAX, u128::MAX, u32::MAX), u128::MAX);
    }

    #[test]
    fn json_is_a_decimal_string() {
        let json = serde_json::to_string(&Amount(u128::MAX)).unwrap();
        assert_eq!(json, "\"340282366920938463463374607431768211455\"");
        assert_eq!(serde_json::from_str::<Amount>(&json).unwrap(), Amount(u128::MAX));
        assert!(serde_json::from_str::<Amount>("\"-1\"").is_err());
    }
}
