//! An auditor's word that it asks for a posted receipt: what a provider is shown before it shows anything.
//!
//! No contract reads it. It names a time, so that whoever overhears one cannot use it for long.

use alloy_primitives::{Address, B256, U256};

use crate::eip712::{self, ChainId};
use crate::{Key, Signature, SignatureError};

mod words {
    #![allow(missing_docs, reason = "described at the word they are hashed as")]
    alloy_sol_types::sol! {
        struct Inquiry {
            address provider;
            uint256 period;
            uint256 index;
            uint64 time;
        }
    }
}

/// Asks a provider for what stands behind a posted receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inquiry {
    /// Owner of the provider that posted it.
    pub provider: Address,
    /// Which of its periods.
    pub period: u64,
    /// Which leaf of that.
    pub index: u64,
    /// When this was signed, unix seconds.
    pub time: u64,
}

impl Inquiry {
    /// Seconds for which it can be used, and by which clocks may differ.
    pub const FRESH_S: u64 = 60;

    /// EIP-712 digest on `chain`.
    pub fn digest(&self, chain: ChainId) -> B256 {
        let word = words::Inquiry {
            provider: self.provider,
            period: U256::from(self.period),
            index: U256::from(self.index),
            time: self.time,
        };
        eip712::digest(&word, chain)
    }

    /// Signs as the auditor.
    pub fn sign(&self, chain: ChainId, auditor: &Key) -> Signature {
        auditor.sign(self.digest(chain))
    }

    /// Who signed it.
    ///
    /// # Errors
    /// If nobody did.
    pub fn signer(&self, chain: ChainId, signature: &Signature) -> Result<Address, SignatureError> {
        signature.signer(self.digest(chain))
    }

    /// Whether it can be used at `now`, unix seconds.
    pub fn is_fresh(&self, now: u64) -> bool {
        self.time.abs_diff(now) <= Self::FRESH_S
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LOCAL_CHAIN;

    #[test]
    fn an_inquiry_is_for_one_place_and_a_short_time() {
        let key = Key::from_bytes([7; 32]).unwrap();
        let asked = Inquiry { provider: Address::repeat_byte(1), period: 2, index: 3, time: 1_000 };
        let signature = asked.sign(LOCAL_CHAIN, &key);
        assert_eq!(asked.signer(LOCAL_CHAIN, &signature).unwrap(), key.address());
        let others = [
            Inquiry { provider: Address::repeat_byte(2), ..asked },
            Inquiry { period: 3, ..asked },
            Inquiry { index: 4, ..asked },
            Inquiry { time: 1_001, ..asked },
        ];
        for other in others {
            assert_ne!(other.signer(LOCAL_CHAIN, &signature).ok(), Some(key.address()));
        }
        assert_ne!(asked.signer(ChainId(1), &signature).ok(), Some(key.address()));
        let fresh = [939, 940, 1_060, 1_061].map(|now| asked.is_fresh(now));
        assert_eq!(fresh, [false, true, true, false]);
    }
}
