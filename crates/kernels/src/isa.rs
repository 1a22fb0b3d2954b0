//! Which instructions the fast paths may use.
//!
//! Every path computes the same bits, so the choice is one of speed alone. It is made once, at
//! run time, and can be forced to compare or to time paths.

use std::env;
use std::fmt;
use std::str::FromStr;

/// The environment variable that forces a path.
const VARIABLE: &str = "ASSAY_ISA";

/// A set of instructions that a path of this crate is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust, for any machine.
    Scalar,
    /// x86-64 with AVX2.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ, VL and VNNI.
    Avx512,
}

impl Isa {
    /// Every path, slowest first.
    pub const ALL: [Isa; 3] = [Isa::Scalar, Isa::Avx2, Isa::Avx512];

    /// The fastest path that this machine can run.
    pub fn detect() -> Isa {
        *Isa::ALL.iter().rev().find(|isa| isa.is_supported()).unwrap_or(&Isa::Scalar)
    }

    /// The path named by the environment variable `ASSAY_ISA`, else the fastest.
    ///
    /// # Errors
    /// If the variable names no path, or one that this machine cannot run.
    pub fn from_env() -> Result<Isa, IsaError> {
        let Some(found) = env::var_os(VARIABLE) else { return Ok(Isa::detect()) };
        found.to_string_lossy().parse::<Isa>()?.supported()
    }

    /// Whether this machine can run the path.
    pub fn is_supported(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => crate::x86::Avx2::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => crate::x86::Avx512::detect().is_some(),
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => false,
        }
    }

    /// The path itself, or the reason why this machine cannot run it.
    pub(crate) fn supported(self) -> Result<Isa, IsaError> {
        if self.is_supported() { Ok(self) } else { Err(IsaError::Unsupported { isa: self }) }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        })
    }
}

impl FromStr for Isa {
    type Err = IsaError;

    fn from_str(name: &str) -> Result<Isa, IsaError> {
        Isa::ALL
            .into_iter()
            .find(|isa| isa.to_string() == name)
            .ok_or_else(|| IsaError::Unknown { found: name.to_owned() })
    }
}

/// Why a path cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    /// No path has this name.
    #[error("no instruction set is called {found:?}; there are scalar, avx2 and avx512")]
    Unknown {
        /// The name given.
        found: String,
    },
    /// The machine lacks the instructions.
    #[error("this processor cannot run the {isa} kernels")]
    Unsupported {
        /// The path asked for.
        isa: Isa,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse(), Ok(isa));
        }
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let error = "sse9".parse::<Isa>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "no instruction set is called \"sse9\"; there are scalar, avx2 and avx512"
        );
    }

    #[test]
    fn the_detected_path_can_run() {
        assert!(Isa::detect().is_supported());
        assert!(Isa::Scalar.is_supported());
    }
}
