//! Canaries: receipts that are false on purpose, planted beforehand, to catch auditors who do not look.

use alloy_primitives::{Address, B256, Bytes, keccak256};
use alloy_sol_types::{SolCall, SolStruct, SolValue, eip712_domain, sol};
use assay_protocol::{Amount, Key, Order, OrderHash, Signature};
use serde::{Deserialize, Serialize};

use crate::bindings::Canaries;
use crate::chain::Chain;
use crate::client::Mined;
use crate::error::ChainError;
use crate::moves::Filing;
use crate::suite::Contract;

/// A canary that is not known yet: what its sponsor keeps until it unveils it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    /// The order that it answers.
    pub order: OrderHash,
    /// 32 bytes of chance.
    pub salt: B256,
    /// The buyer's, of that order.
    pub consent: Signature,
    /// What the receipt's state has to be: nothing that a model can give.
    pub mark: B256,
    /// What is planted.
    pub commitment: B256,
}

/// A canary as it was planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plant {
    /// Who planted it, and has half of what careless auditors lose by it.
    pub funder: Address,
    /// When, unix seconds.
    pub planted: u64,
    /// When its receipt was unveiled, unix seconds; none before.
    pub unveiled: Option<u64>,
    /// What is left of the prize, base units of ASY; zero once it was paid.
    pub prize: Amount,
}

impl Plant {
    /// Seconds after which a plant that is not unveiled can be taken out.
    pub const LIFE: u64 = 60 * 86_400;
}

/// What a buyer signs, under its name in the contract.
mod signed {
    super::sol! {
        struct Canary {
            address canaries;
            bytes32 order;
            bytes32 salt;
        }
    }
}

impl Chain {
    /// A canary in answer to `order`, whose buyer's key is `buyer`.
    pub fn canary(&self, order: &Order, salt: B256, buyer: &Key) -> Result<Canary, ChainError> {
        let canaries = self.at(Contract::Canaries)?;
        let chain_id = self.book().chain_id;
        let name = order.hash(assay_protocol::ChainId(chain_id));
        let word = signed::Canary { canaries, order: name.0, salt };
        let domain = eip712_domain! { name: "Assay", version: "1", chain_id: chain_id, };
        let consent = buyer.sign(word.eip712_signing_hash(&domain));
        let mark = keccak256((keccak256("Assay canary"), canaries, name.0, salt).abi_encode());
        let commitment = keccak256((name.0, salt, keccak256(consent.0)).abi_encode());
        Ok(Canary { order: name, salt, consent, mark, commitment })
    }

    /// Plants it with a prize of the connection's account's, allowing that first where needed.
    pub async fn plant(&self, canary: &Canary, prize: Amount) -> Result<Mined, ChainError> {
        let at = self.at(Contract::Canaries)?;
        self.allow(self.at(Contract::AssayToken)?, at, prize).await?;
        let call = Canaries::plantCall { commitment: canary.commitment, prize: prize.0 };
        self.client().send(at, &call).await
    }

    /// Says that the receipt of `filing` is this canary. Anyone who knows it may.
    pub async fn unveil(&self, canary: &Canary, filing: &Filing) -> Result<Mined, ChainError> {
        let encoded = filing.encoded();
        let words = (
            encoded.order,
            encoded.receipt,
            canary.salt,
            Bytes::copy_from_slice(&canary.consent.0),
        );
        let call = Canaries::unveilCall::abi_decode_raw(&words.abi_encode_params())
            .expect("both contracts read one Solidity text");
        self.client().send(self.at(Contract::Canaries)?, &call).await
    }

    /// Gives a prize back to its funder, once nobody can have it any more.
    pub async fn recover_prize(&self, canary: &Canary) -> Result<Mined, ChainError> {
        let call = Canaries::recoverCall { commitment: canary.commitment };
        self.client().send(self.at(Contract::Canaries)?, &call).await
    }

    /// What was planted under a commitment; none if nothing was.
    pub async fn plant_of(&self, commitment: B256) -> Result<Option<Plant>, ChainError> {
        let call = Canaries::plantOfCall { commitment };
        let found = self.client().view(self.at(Contract::Canaries)?, &call).await?;
        let (planted, unveiled): (u64, u64) = (found.planted.to(), found.unveiled.to());
        Ok((planted != 0).then_some(Plant {
            funder: found.funder,
            planted,
            unveiled: (unveiled != 0).then_some(unveiled),
            prize: Amount(found.prize),
        }))
    }

    /// Whether a receipt, by its digest, was unveiled as a canary.
    pub async fn is_canary(&self, receipt: B256) -> Result<bool, ChainError> {
        let call = Canaries::canaryOfCall { receipt };
        Ok(!self.client().view(self.at(Contract::Canaries)?, &call).await?.is_zero())
    }
}
