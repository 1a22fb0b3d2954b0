//! Distinct identities as distinct types: a model is never an order by accident.

use alloy_primitives::B256;
use serde::{Deserialize, Serialize};

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub B256);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = <B256 as std::str::FromStr>::Err;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

identity! {
    /// Names a model by its content: keccak256 of the encoded [`Manifest`](crate::Manifest).
    ModelId
}
identity! {
    /// Names an order: its EIP-712 digest, which the buyer signs and the receipt repeats.
    OrderHash
}
identity! {
    /// Names a payment channel; zero where nothing is paid yet.
    ChannelId
}
