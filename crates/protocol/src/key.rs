//! Keys that sign, and the addresses they answer to (secp256k1, Ethereum's address rule).

use alloy_primitives::{Address, B256, keccak256};
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, PublicKey, SecretKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A participant's signing key. Its bytes never appear in `Debug` output.
#[derive(Clone)]
pub struct Key {
    secret: SecretKey,
    address: Address,
}

/// Why bytes are not a key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the 32 bytes are not a secp256k1 secret key: zero or above the group order")]
pub struct KeyError;

impl Key {
    /// Takes a secret of 32 random bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, KeyError> {
        let secret = SecretKey::from_secret_bytes(bytes).map_err(|_| KeyError)?;
        let address = address_of(&PublicKey::from_secret_key(&secret));
        Ok(Self { secret, address })
    }

    /// The secret, to be kept where only its owner reads.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.secret.to_secret_bytes()
    }

    /// Who this key signs as.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Signs an EIP-712 digest. Deterministic (RFC 6979), so signing twice says the same twice.
    pub fn sign(&self, digest: B256) -> Signature {
        let message = Message::from_digest(digest.0);
        let signed = RecoverableSignature::sign_ecdsa_recoverable(message, &self.secret);
        let (recovery, compact) = signed.serialize_compact();
        let mut bytes = [0; 65];
        bytes[..64].copy_from_slice(&compact);
        bytes[64] = 27 + recovery.to_u8();
        Signature(bytes)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Last twenty bytes of keccak256 of the uncompressed point without its tag.
fn address_of(key: &PublicKey) -> Address {
    let point = key.serialize_uncompressed();
    Address::from_slice(&keccak256(&point[1..])[12..])
}

/// A recoverable signature, `r ‖ s ‖ v` with v 27 or 28 and low s; in JSON 0x-prefixed hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature(pub [u8; 65]);

/// Why a signature speaks for nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The last byte is neither 27 nor 28.
    #[error("signature ends in {found}, expected 27 or 28")]
    Recovery {
        /// The byte found.
        found: u8,
    },
    /// `s` is in the upper half of the group order: someone altered a valid signature.
    #[error("signature has a high s value")]
    HighS,
    /// No public key fits.
    #[error("signature belongs to no key")]
    Unrecoverable,
}

/// Half of the order of secp256k1's group, the highest `s` that is accepted (EIP-2).
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0x5d, 0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

impl Signature {
    /// Who signed `digest`.
    pub fn signer(&self, digest: B256) -> Result<Address, SignatureError> {
        let found = self.0[64];
        let recovery = match found {
            27 => RecoveryId::Zero,
            28 => RecoveryId::One,
            _ => return Err(SignatureError::Recovery { found }),
        };
        if self.0[32..64] > HALF_ORDER[..] {
            return Err(SignatureError::HighS);
        }
        RecoverableSignature::from_compact(&self.0[..64], recovery)
            .and_then(|signature| signature.recover_ecdsa(Message::from_digest(digest.0)))
            .map(|key| address_of(&key))
            .map_err(|_| SignatureError::Unrecoverable)
    }
}

impl std::fmt::Display for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&alloy_primitives::hex::encode_prefixed(self.0))
    }
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 65];
        alloy_primitives::hex::decode_to_slice(&text, &mut bytes)
            .map_err(|error| serde::de::Error::custom(format!("signature: {error}")))?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_the_first_test_account_is_known() {
        // The first account of the mnemonic "test test … junk", known to every EVM toolchain.
        let secret = alloy_primitives::hex!(
            "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
        );
        let key = Key::from_bytes(secret).unwrap();
        assert_eq!(key.address().to_string(), "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
    }

    #[test]
    fn a_signature_names_its_signer_and_no_other_digest() {
        let key = Key::from_bytes([7; 32]).unwrap();
        let signature = key.sign(B256::repeat_byte(1));
        assert_eq!(signature.signer(B256::repeat_byte(1)), Ok(key.address()));
        assert_ne!(signature.signer(B256::repeat_byte(2)), Ok(key.address()));
    }

    #[test]
    fn an_altered_signature_is_refused() {
        let key = Key::from_bytes([7; 32]).unwrap();
        let mut signature = key.sign(B256::ZERO);
        signature.0[64] = 0;
        assert_eq!(signature.signer(B256::ZERO), Err(SignatureError::Recovery { found: 0 }));
        signature.0[64] = 27;
        signature.0[32] = 0xff;
        assert_eq!(signature.signer(B256::ZERO), Err(SignatureError::HighS));
    }

    #[test]
    fn zero_is_no_key() {
        assert_eq!(Key::from_bytes([0; 32]).unwrap_err(), KeyError);
    }
}
