//! The signed words as Solidity writes them, and their EIP-712 digests.
//!
//! The structs are written once, in `contracts/src/types`; this module reads the same text, so a
//! contract and this crate cannot disagree about a field. Our own words ([`Order`](crate::Order),
//! [`Receipt`](crate::Receipt), …) convert into them only to be hashed.

use alloy_primitives::B256;
use alloy_sol_types::{Eip712Domain, SolStruct, eip712_domain};
use serde::{Deserialize, Serialize};

/// An EVM chain's id, part of every digest, so that a word signed for one chain is void on others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainId(pub u64);

/// The chain of a local network.
pub const LOCAL_CHAIN: ChainId = ChainId(7777);

impl std::fmt::Display for ChainId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Solidity's form of the signed words.
#[allow(missing_docs, clippy::pub_underscore_fields, reason = "generated from contracts/src/types")]
pub(crate) mod sol {
    pub(crate) mod order {
        alloy_sol_types::sol!("../../contracts/src/types/Order.sol");
    }
    pub(crate) mod sampler {
        alloy_sol_types::sol!("../../contracts/src/types/Sampler.sol");
    }
    pub(crate) mod receipt {
        alloy_sol_types::sol!("../../contracts/src/types/Receipt.sol");
    }
    pub(crate) mod offer {
        alloy_sol_types::sol!("../../contracts/src/types/Offer.sol");
    }
    pub(crate) mod serve {
        alloy_sol_types::sol!("../../contracts/src/types/Serve.sol");
    }
    pub(crate) mod grant {
        alloy_sol_types::sol!("../../contracts/src/types/Grant.sol");
    }
    pub(crate) mod manifest {
        alloy_sol_types::sol!(#![sol(all_derives)] "../../contracts/src/types/Manifest.sol");
    }
}

fn domain(chain: ChainId) -> Eip712Domain {
    eip712_domain! { name: "Assay", version: "1", chain_id: chain.0, }
}

/// What a key signs for `word` on `chain`.
pub(crate) fn digest(word: &impl SolStruct, chain: ChainId) -> B256 {
    word.eip712_signing_hash(&domain(chain))
}
