//! An operator key's word that it serves an owner: how a receipt leads to a stake.

use alloy_primitives::{Address, B256};

use crate::eip712::{self, ChainId};
use crate::{Key, Signature};

/// Says that the key that signs it serves `owner`, for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serve {
    /// The registry the word is for: the deployment's `Providers` contract.
    pub registry: Address,
    /// Who answers with stake for what the operator signs.
    pub owner: Address,
}

impl Serve {
    /// EIP-712 digest on `chain`.
    pub fn digest(&self, chain: ChainId) -> B256 {
        let word = eip712::sol::serve::Serve { registry: self.registry, owner: self.owner };
        eip712::digest(&word, chain)
    }

    /// Signs as the operator.
    pub fn sign(&self, chain: ChainId, operator: &Key) -> Signature {
        operator.sign(self.digest(chain))
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::Bytes;
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Vectors {
        key: B256,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Case {
        chain_id: u64,
        message: Message,
        digest: B256,
        signature: Bytes,
    }

    #[derive(Deserialize)]
    struct Message {
        registry: Address,
        owner: Address,
    }

    #[test]
    fn digests_are_those_of_a_wallet() {
        let text = include_str!("../../../tests/vectors/serve.json");
        let vectors: Vectors = serde_json::from_str(text).unwrap();
        let operator = Key::from_bytes(vectors.key.0).unwrap();
        assert!(!vectors.cases.is_empty());
        for Case { chain_id, message, digest, signature } in vectors.cases {
            let serve = Serve { registry: message.registry, owner: message.owner };
            assert_eq!(serve.digest(ChainId(chain_id)), digest);
            assert_eq!(serve.sign(ChainId(chain_id), &operator).0, signature.as_ref());
        }
    }
}
