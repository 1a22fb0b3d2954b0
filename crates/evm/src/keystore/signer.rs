//! A private key that signs for an account.

use std::fmt;

use alloy_consensus::{SignableTransaction, Signed, TxEnvelope};
use alloy_primitives::{Address, B256, Signature, keccak256};
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, PublicKey, SecretKey};

/// Signs for one account. Its key is never printed.
#[derive(Clone)]
pub struct Signer {
    secret: SecretKey,
    address: Address,
}

impl Signer {
    /// The signer with this private key; `None` if it is zero or not below the curve's order.
    pub fn from_bytes(secret: [u8; 32]) -> Option<Self> {
        Some(Self::new(SecretKey::from_secret_bytes(secret).ok()?))
    }

    pub(super) fn new(secret: SecretKey) -> Self {
        let public = PublicKey::from_secret_key(&secret).serialize_uncompressed();
        // An address is the end of the hash of a public key without its leading format byte.
        let address = Address::from_slice(&keccak256(&public[1..])[12..]);
        Self { secret, address }
    }

    pub(super) fn secret(&self) -> [u8; 32] {
        self.secret.to_secret_bytes()
    }

    /// The account it signs for.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Signs a digest; the same one always gives the same signature (RFC 6979), with a low `s`.
    pub fn sign(&self, digest: &B256) -> Signature {
        let message = Message::from_digest(digest.0);
        let signed = RecoverableSignature::sign_ecdsa_recoverable(message, &self.secret);
        let (id, bytes) = signed.serialize_compact();
        Signature::from_bytes_and_parity(&bytes, id == RecoveryId::One)
    }

    /// Signs a transaction of any kind.
    pub fn sign_transaction<T>(&self, draft: T) -> TxEnvelope
    where
        T: SignableTransaction<Signature>,
        TxEnvelope: From<Signed<T>>,
    {
        let signature = self.sign(&draft.signature_hash());
        draft.into_signed(signature).into()
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("address", &self.address).finish_non_exhaustive()
    }
}
