//! What can be checked about an answer: the one enum that joins serving, routing, verification
//! and price.

use serde::{Deserialize, Serialize};

/// What can be checked about an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Assurance {
    /// Every bit: anyone with the model replays it.
    Replayable = 0,
    /// That measured code in an enclave produced it.
    Attested = 1,
    /// A zero-knowledge proof of the computation.
    Proven = 2,
    /// Its quality only.
    Scored = 3,
}

impl Assurance {
    /// Reads the code used in signed words; `None` for a code that is not assigned.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Replayable, Self::Attested, Self::Proven, Self::Scored]
            .get(usize::from(code))
            .copied()
    }

    /// Whether who offers this may be asked for `asked`: what can be replayed can be scored as well.
    pub fn covers(self, asked: Self) -> bool {
        asked == self || (self == Self::Replayable && asked == Self::Scored)
    }

    /// The code used in signed words.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl std::fmt::Display for Assurance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Replayable => "replayable",
            Self::Attested => "attested",
            Self::Proven => "proven",
            Self::Scored => "scored",
        })
    }
}
