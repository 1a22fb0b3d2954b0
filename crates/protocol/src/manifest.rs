//! The file that a model id commits to.

use alloy_primitives::{B256, keccak256};
use alloy_sol_types::SolValue;

use crate::ModelId;
use crate::eip712::sol;

pub use sol::manifest::{Arithmetic, Manifest, Parts, Shape, Tensor};

/// Bytes that are no manifest of a version this code knows.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not the ABI encoding of a manifest.
    #[error("not an encoded manifest: {0}")]
    Encoding(String),
    /// Encoded, but not the way everybody encodes it.
    #[error("manifest is not canonically encoded")]
    NotCanonical,
    /// Of a version this code does not know.
    #[error("manifest has version {found}, expected 1")]
    Version {
        /// The version found.
        found: u16,
    },
}

impl Manifest {
    /// The manifest's arithmetic profile: exact-1.
    pub const VERSION: u16 = 1;

    /// The canonical bytes: `abi.encode(manifest)`.
    pub fn encode(&self) -> Vec<u8> {
        self.abi_encode()
    }

    /// Reads canonical bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest = Self::abi_decode_validate(bytes)
            .map_err(|error| ManifestError::Encoding(error.to_string()))?;
        if manifest.version != Self::VERSION {
            return Err(ManifestError::Version { found: manifest.version });
        }
        if manifest.encode() != bytes {
            return Err(ManifestError::NotCanonical);
        }
        Ok(manifest)
    }

    /// The model's name: keccak256 of the canonical bytes.
    pub fn id(&self) -> ModelId {
        ModelId(keccak256(self.encode()))
    }
}

/// keccak256 of some bytes, zero for none: how optional parts stand in a manifest.
pub fn part_hash(bytes: Option<&[u8]>) -> B256 {
    bytes.map(keccak256).unwrap_or_default()
}
