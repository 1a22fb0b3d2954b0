//! A provider's signed price and limits for one model.

use alloy_primitives::Address;
use serde::{Deserialize, Serialize};

use crate::eip712::{self, sol};
use crate::{Amount, Assurance, ChainId, Key, ModelId, Signature, SignatureError, price};

/// A provider's price and limits for one model, until it expires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Offer {
    /// Who offers, and who signed.
    pub provider: Address,
    /// For which model.
    pub model: ModelId,
    /// What can be checked about the answers.
    pub assurance: Assurance,
    /// Token that prices are in.
    pub asset: Address,
    /// Base units per million prompt tokens.
    pub price_in: Amount,
    /// Base units per million output tokens.
    pub price_out: Amount,
    /// Most tokens of prompt and output together.
    pub context: u32,
    /// Unix seconds after which the offer is void.
    pub expires: u64,
}

impl Offer {
    /// Signs the offer as its provider.
    pub fn sign(&self, chain: ChainId, key: &Key) -> Signature {
        key.sign(self.digest(chain))
    }

    /// Whether `signature` is the provider's.
    pub fn is_signed(&self, chain: ChainId, signature: &Signature) -> Result<bool, SignatureError> {
        signature.signer(self.digest(chain)).map(|signer| signer == self.provider)
    }

    /// Price of an answer under this offer, rounded down.
    pub fn price(&self, prompt: u32, output: u32) -> Amount {
        price(self.price_in, prompt, self.price_out, output)
    }

    fn digest(&self, chain: ChainId) -> alloy_primitives::B256 {
        let word = sol::offer::Offer {
            provider: self.provider,
            model: self.model.0,
            assurance: self.assurance.code(),
            asset: self.asset,
            priceIn: self.price_in.0,
            priceOut: self.price_out.0,
            context: self.context,
            expires: self.expires,
        };
        eip712::digest(&word, chain)
    }
}
