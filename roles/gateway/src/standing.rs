//! Who may be bought from as the chain says: nobody in jail, and nobody with less at stake than the least tier.
//!
//! The chain is asked in the background, now and then, about each provider that has offers. What it said last holds
//! until it says otherwise, also while it does not answer; of whom it has said nothing yet, nothing is bought. So no
//! request waits for it, and a conviction is known here one round later.

use std::fmt;
use std::time::Duration;

use assay_chain::{Provider, Tier};
use assay_protocol::Amount;

use crate::directory::{Directory, FIRST_POLLS_EVERY};
use crate::pay::Bank;

/// What the chain says about who signs as a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has a stake, and may serve.
    Good,
    /// Nobody's stake answers for it.
    Stranger,
    /// It is in jail.
    Jailed {
        /// When it may ask to be let out, Unix seconds.
        until: u64,
    },
    /// It has less at stake than the least tier.
    Short {
        /// What it has, base units of ASY.
        bonded: Amount,
    },
}

impl From<&Provider> for Standing {
    fn from(found: &Provider) -> Self {
        match (found.jailed_until, found.tier) {
            (Some(until), _) => Self::Jailed { until },
            (None, Tier::None) => Self::Short { bonded: found.bonded },
            (None, _) => Self::Good,
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Good => f.write_str("it may serve"),
            Self::Stranger => f.write_str("nobody's stake answers for it"),
            Self::Jailed { until } => write!(f, "it is in jail, at least until {until}"),
            Self::Short { bonded } => {
                write!(f, "it has {bonded} base units at stake, less than the least tier")
            }
        }
    }
}

/// Asks how providers stand, for ever: at once about those of whom nothing is known, about all every `every`.
pub(crate) async fn watch(directory: &Directory, bank: &dyn Bank, every: Duration) {
    let mut asked = None;
    loop {
        let all = asked.is_none_or(|at: tokio::time::Instant| at.elapsed() >= every);
        if all {
            asked = Some(tokio::time::Instant::now());
        }
        for (place, provider) in directory.to_look_up(all) {
            match bank.standing(provider).await {
                Ok(standing) => directory.stands(place, provider, standing),
                Err(error) => {
                    tracing::warn!(%provider, %error, "it is not known how a provider stands");
                    // Whoever does not answer is not asked again at once.
                    tokio::time::sleep(every).await;
                    break;
                }
            }
        }
        tokio::time::sleep(FIRST_POLLS_EVERY.min(every)).await;
    }
}

#[cfg(test)]
mod tests {
    use assay_protocol::Address;

    use super::*;

    fn check(tier: Tier, jailed_until: Option<u64>, expected: Standing) {
        let found = Provider {
            operator: Address::ZERO,
            endpoint: String::new(),
            bonded: Amount(7),
            unbonding: Amount(0),
            tier,
            heartbeat: 0,
            jailed_until,
        };
        assert_eq!(Standing::from(&found), expected);
    }

    #[test]
    fn a_stake_counts_out_of_jail() {
        check(Tier::Bronze, None, Standing::Good);
        check(Tier::Gold, Some(5), Standing::Jailed { until: 5 });
        check(Tier::None, None, Standing::Short { bonded: Amount(7) });
        check(Tier::None, Some(5), Standing::Jailed { until: 5 });
    }
}
