//! States what every participant must agree on, byte for byte.
//!
//! A second implementation of Assay needs this crate's rules and nothing else of ours: identities,
//! the signed words (offer, order, receipt) with their EIP-712 digests, the commitments inside
//! them, and the rules that need no model to be judged. No clock, disk, socket or randomness:
//! what a rule needs arrives as an argument.

mod amount;
mod answer;
mod assurance;
mod dispute;
mod eip712;
mod finish;
mod grant;
mod id;
mod inquiry;
mod key;
mod leaf;
mod logprobs;
mod manifest;
mod merkle;
mod offer;
mod order;
mod receipt;
mod rng;
mod sampler;
mod serve;
mod state;
mod voucher;
pub mod wire;
mod work;

pub use alloy_primitives::{Address, B256, U256, hex, keccak256};
pub use amount::{Amount, price};
pub use answer::{Answer, AnswerError, Blame};
pub use assurance::Assurance;
pub use dispute::{
    Accusation, Branch, Doubt, Focus, OpenStep, Opening, Phase, Posting, Round, StepLeaf, Tail,
};
pub use eip712::{ChainId, LOCAL_CHAIN};
pub use finish::{Ending, Finish};
pub use grant::{GRANT_MODELS_MAX, GRANTS_MAX, Grant, GrantError, SignedGrant, Use, check_grants};
pub use id::{ChannelId, ModelId, OrderHash};
pub use inquiry::Inquiry;
pub use key::{Key, KeyError, Signature, SignatureError};
pub use leaf::{
    LEAF_COLUMNS, LEAF_VALUES, TensorKind, activation_leaf, fixed_leaf, weight_leaf, weight_leaf_w4,
};
pub use logprobs::{LOGPROBS_MAX, Logprobs, LogprobsError};
pub use manifest::{Arithmetic, Manifest, ManifestError, Parts, Shape, Tensor, part_hash};
pub use merkle::{Tree, depth, leaf_hash, root};
pub use offer::Offer;
pub use order::{
    Audit, GRAMMAR_BYTES_MAX, Order, OrderError, STOP_TOKENS_MAX, STOPS_MAX, Terms, token_root,
};
pub use receipt::{Receipt, ReceiptError};
pub use rng::Draws;
pub use sampler::{NEUTRAL_Q16, Sampler, SamplerError, bias_hash, grammar_hash, stops_hash};
pub use serve::Serve;
pub use state::{State, hidden_hash, vector_hash};
pub use voucher::{Channel, Channels, Voucher};
pub use work::COMPUTE_UNIT;
