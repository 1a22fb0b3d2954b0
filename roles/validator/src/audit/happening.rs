//! What an auditor does and sees, in words.

use std::fmt;

use assay_chain::PostedAt;
use assay_protocol::{Address, Amount};

use super::page::Found;

/// What an auditor does and sees. Each is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the lines that they make say what they are")]
pub enum Happening {
    /// It cannot take part.
    NoBond { stake: Amount, bond: Amount },
    /// It committed to a secret for a beacon.
    Committed { epoch: u64 },
    /// It revealed that.
    Revealed { epoch: u64 },
    /// It did not in time, and may be fined.
    Missed { epoch: u64 },
    /// A beacon stands.
    Drew { epoch: u64, receipts: u64, revealed: usize, mine: usize },
    /// A receipt was checked.
    Judged { epoch: u64, at: PostedAt, found: Found },
    /// It committed to its verdicts.
    VerdictsCommitted { epoch: u64, verdicts: usize },
    /// It revealed them.
    VerdictsRevealed { epoch: u64, verdicts: usize },
    /// It asks for a receipt on the chain.
    Asked { at: PostedAt, bond: Amount },
    /// The provider published it.
    Published { at: PostedAt },
    /// It did not.
    Silent { at: PostedAt },
    /// A dispute begins, or goes on.
    Disputes { at: PostedAt },
    /// A provider was convicted; the reward is this auditor's, if it was the first.
    Convicted { at: PostedAt, slashed: Amount, reward: Amount },
    /// A dispute ended otherwise.
    NotConvicted { at: PostedAt, reason: String },
    /// A verdict was paid.
    Paid { at: PostedAt, fee: Amount },
    /// A verdict was not.
    Unpaid { at: PostedAt, reason: String },
    /// Another auditor was fined.
    Fined { auditor: Address, lapse: Lapse },
    /// It stops, and has not revealed all that it committed to.
    Owes { epochs: Vec<u64> },
    /// Something failed and is tried again.
    Failed { what: &'static str, reason: String },
}

/// What an auditor is fined for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lapse {
    /// It did not reveal its secret of this epoch.
    Missed {
        /// Which one.
        epoch: u64,
    },
    /// It was drawn in this epoch, and said nothing of anything.
    Absent {
        /// Which one.
        epoch: u64,
    },
    /// It called a canary true.
    Careless {
        /// Where that was posted.
        at: PostedAt,
    },
    /// It called true what was found false.
    Mistaken {
        /// Where that was posted.
        at: PostedAt,
    },
}

impl fmt::Display for Lapse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missed { epoch } => write!(f, "the secret of epoch {epoch} was not revealed"),
            Self::Absent { epoch } => write!(f, "nothing was said of what epoch {epoch} drew"),
            Self::Careless { at } => write!(f, "{} is a canary, and was called true", At(at)),
            Self::Mistaken { at } => write!(f, "{} is false, and was called true", At(at)),
        }
    }
}

/// A place, in a few characters.
struct At<'a>(&'a PostedAt);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PostedAt { provider, period, index } = self.0;
        write!(f, "receipt {index} of period {period} of {provider}")
    }
}

/// An amount of ASY.
struct Asy(Amount);

impl fmt::Display for Asy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WHOLE: u128 = 1_000_000_000_000_000_000;
        let (whole, part) = (self.0.0 / WHOLE, self.0.0 % WHOLE);
        let part = format!("{part:018}");
        match part.trim_end_matches('0') {
            "" => write!(f, "{whole} ASY"),
            digits => write!(f, "{whole}.{digits} ASY"),
        }
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBond { stake, bond } => {
                write!(f, "no part in beacons: {} of a bond of {}", Asy(*stake), Asy(*bond))
            }
            Self::Committed { epoch } => write!(f, "epoch {epoch}: committed to a secret"),
            Self::Revealed { epoch } => write!(f, "epoch {epoch}: revealed the secret"),
            Self::Missed { epoch } => {
                write!(
                    f,
                    "epoch {epoch}: the secret was not revealed in time; a tenth of the bond may be burned"
                )
            }
            Self::Drew { epoch, receipts, revealed, mine } => {
                write!(f, "epoch {epoch}: of {receipts} receipts, {mine} to be checked here")?;
                match revealed {
                    0 => write!(f, "; nobody revealed, nothing is drawn"),
                    1 => write!(f, "; only one party revealed: draws are not trustless"),
                    many => write!(f, "; {many} revealed"),
                }
            }
            Self::Judged { epoch, at, found } => write!(f, "epoch {epoch}: {}: {found}", At(at)),
            Self::VerdictsCommitted { epoch, verdicts } => {
                write!(f, "epoch {epoch}: committed to {verdicts} verdicts")
            }
            Self::VerdictsRevealed { epoch, verdicts } => {
                write!(f, "epoch {epoch}: revealed {verdicts} verdicts")
            }
            Self::Asked { at, bond } => {
                write!(f, "asked on chain for {}, with a bond of {}", At(at), Asy(*bond))
            }
            Self::Published { at } => write!(f, "{} was published on chain", At(at)),
            Self::Silent { at } => write!(f, "{} was not published in time", At(at)),
            Self::Disputes { at } => write!(f, "disputes {}", At(at)),
            Self::Convicted { at, slashed, reward } => write!(
                f,
                "convicted over {}: {} slashed, {} of it the reward",
                At(at),
                Asy(*slashed),
                Asy(*reward)
            ),
            Self::NotConvicted { at, reason } => {
                write!(f, "not convicted over {}: {reason}", At(at))
            }
            Self::Paid { at, fee } => write!(f, "earned {} for {}", Asy(*fee), At(at)),
            Self::Unpaid { at, reason } => write!(f, "not paid for {}: {reason}", At(at)),
            Self::Fined { auditor, lapse } => write!(f, "had auditor {auditor} fined: {lapse}"),
            Self::Owes { epochs } => {
                write!(
                    f,
                    "stops before all was revealed of epochs {epochs:?}: run it again within an epoch, or lose a part of the bond"
                )
            }
            Self::Failed { what, reason } => {
                write!(f, "{what} failed, and is tried again: {reason}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beacon_of_one_party_is_named() {
        let drew = |revealed| Happening::Drew { epoch: 3, receipts: 2, revealed, mine: 1 };
        assert!(drew(1).to_string().contains("draws are not trustless"));
        assert!(!drew(2).to_string().contains("trustless"));
    }

    #[test]
    fn amounts_are_whole_tokens() {
        assert_eq!(Asy(Amount(1_500_000_000_000_000_000)).to_string(), "1.5 ASY");
        assert_eq!(Asy(Amount(2_000_000_000_000_000_000)).to_string(), "2 ASY");
        assert_eq!(Asy(Amount(1)).to_string(), "0.000000000000000001 ASY");
    }
}
