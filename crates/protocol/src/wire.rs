//! What a gateway and a provider say to each other, as JSON over HTTP.
//!
//! | Request | Answer |
//! |---|---|
//! | `GET /v1/offers` | [`Offers`] |
//! | `GET /v1/models/{id}/leaves/{index}` | a [`WeightLeaf`], 404 beyond the last one, 429 while too many ask |
//! | `POST /v1/orders` with a [`Submission`], then any number of [`TopUp`]s, one a line | 200 and one [`Frame`] a line, or a [`Refusal`] |
//! | `GET /v1/channels/{id}` | the [`Position`] of a channel, 404 for one never used here |
//! | `DELETE /v1/orders/{hash}` | 204; the order's stream ends with its receipt |
//! | `GET /v1/orders/{hash}` | the [`Sealed`] answer, 404 while there is none |
//! | `GET /v1/periods/{period}/{index}?time={seconds}` | a posted receipt as it is [`Shown`] to a drawn auditor, or [`NotShown`] |
//! | `GET /v1/periods/{period}/{index}` | the same for its buyer |
//!
//! `DELETE` and `GET` of an order carry `Authorization: Bearer` and the order's signature, and get 401 without it.
//! So does who asks for the receipt at a place of a posted period: its buyer with the order's signature, an
//! auditor with that of its [`Inquiry`](crate::Inquiry) of that time.

use alloy_primitives::{Address, B256, Bytes, keccak256};
use serde::{Deserialize, Serialize};

use crate::{
    Amount, Answer, ChainId, Channel, ChannelId, GrantError, Logprobs, Offer, Order, OrderError,
    OrderHash, Receipt, Signature, SignedGrant, Terms, depth, leaf_hash,
};

/// A provider's offers and how busy it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Offers {
    /// Who offers.
    pub provider: Address,
    /// Chain that the signatures are for.
    pub chain_id: ChainId,
    /// One per model.
    pub offers: Vec<SignedOffer>,
    /// Orders running now.
    pub running: u32,
    /// Orders that can run at once; the next one is refused as [`Refusal::Busy`].
    pub running_max: u32,
    /// How orders are paid; `None`: for free, since there is nothing to pay with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepts: Option<Accepts>,
}

/// Which channels a provider takes, and how far it trusts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepts {
    /// The contract that keeps channels.
    pub channels: Address,
    /// The deployment's Receipts contract: the market that orders must name.
    pub market: Address,
    /// The ERC-20 that an offer's zero asset stands for.
    pub token: Address,
    /// Whom channels must pay: the provider's till.
    pub receiver: Address,
    /// Who claims: what channels must name beside the receiver.
    pub receiver_authorizer: Address,
    /// Shortest delay of a payer's withdrawal, in seconds.
    pub withdraw_delay_min: u64,
    /// Most that is delivered beyond what vouchers allow, in base units.
    pub credit_max: Amount,
    /// The deployment's Grants contract, which grants must name; zero: orders under grants are refused.
    #[serde(default)]
    pub grants: Address,
}

/// An offer and its provider's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedOffer {
    /// The offer.
    pub offer: Offer,
    /// The provider's signature.
    pub signature: Signature,
}

/// One leaf of a model's weights, and what shows that it is the model's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightLeaf {
    /// The leaf's data, see `docs/protocol/commitments.md`.
    pub data: Bytes,
    /// Its siblings, from the leaf up.
    pub proof: Vec<B256>,
}

impl WeightLeaf {
    /// Whether this is leaf `index` of the `leaves` under the root `weights`.
    pub fn is_of(&self, weights: B256, leaves: u64, index: u64) -> bool {
        if index >= leaves || self.proof.len() != depth(leaves) as usize {
            return false;
        }
        let join = |(node, index): (B256, u64), beside: &B256| {
            let pair = if index % 2 == 0 { [node, *beside] } else { [*beside, node] };
            (keccak256(pair.concat()), index / 2)
        };
        self.proof.iter().fold((leaf_hash(&self.data), index), join).0 == weights
    }
}

/// An order as a buyer hands it in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Submission {
    /// Chain that the signature is for.
    pub chain_id: ChainId,
    /// The order.
    pub order: Order,
    /// The buyer's signature.
    pub signature: Signature,
    /// What the order's hashes stand for.
    pub terms: Terms,
    /// How many alternatives to give with each token, and logprobs of all, at most
    /// [`LOGPROBS_MAX`](crate::LOGPROBS_MAX); none: no logprobs. They change no token, so the order does
    /// not name them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<u8>,
    /// Whether others may go first: nobody waits for the answer. It changes no token either.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flex: bool,
    /// The grants that its buyer acts under, the payer's first; none where it acts for itself. The order
    /// names the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<SignedGrant>,
    /// How it is paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment: Option<Payment>,
}

/// What pays for an order: a channel and a voucher on it. The channel's `payer_authorizer` is the
/// order's buyer; under grants the channel's `payer` is who issued the first, and its
/// `payer_authorizer` the buyer or one of the issuers. One order at a time runs on a channel; whoever
/// buys more at once has more channels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Payment {
    /// The channel.
    pub channel: Channel,
    /// The voucher.
    pub voucher: TopUp,
}

/// A channel's next voucher. It never allows less than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopUp {
    /// How much of the channel may be claimed in all, in base units.
    pub claimable: Amount,
    /// The payer's authorizer's, over the voucher.
    pub signature: Signature,
}

/// Where a channel is, as its provider keeps it: what a buyer who forgot goes on from. It believes
/// the voucher only if the signature is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// What answers have cost since the channel was opened: `channelAfter` of its last receipt.
    pub charged: Amount,
    /// The highest voucher.
    pub voucher: TopUp,
}

/// One line of an answer's stream. The last line is always `Sealed` or `Failed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Frame {
    /// How many of the prompt's tokens did not have to be computed, since an earlier order of the same
    /// buyer began alike; at most once, before the first tokens. It changes neither answer nor price, and
    /// nobody can check it.
    Cached(u32),
    /// The next output tokens.
    Tokens(Vec<u32>),
    /// The next output tokens, instead of [`Self::Tokens`] where the submission asks for logprobs. The
    /// answer to an order that was sealed before comes without.
    Logprobs(Vec<Logprobs>),
    /// The answer of a model that gives texts vectors, before its one token: numbers in `Fx<30>`, which
    /// that token's state binds. The answer to an order that was sealed before comes without.
    Vector(Vec<i32>),
    /// The answer is paused until a voucher allows this much of the channel in all. A [`TopUp`] on the
    /// body of the same request lets it go on.
    Due(Amount),
    /// The end: what the provider can be held to.
    Sealed(Box<Sealed>),
    /// The end without a receipt: nothing is owed.
    Failed(Refusal),
}

/// A finished answer as its provider keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sealed {
    /// The receipt.
    pub receipt: Receipt,
    /// The provider's signature.
    pub signature: Signature,
    /// Output token ids.
    pub output: Vec<u32>,
    /// The state after each output token.
    pub states: Vec<B256>,
}

/// A posted receipt, and what stands behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// The receipt's siblings in its period's tree, from the leaf up.
    pub proof: Vec<B256>,
    /// As much as who asked may see.
    pub what: Exhibit,
}

/// As much of an answer as somebody may see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Exhibit {
    /// All of it.
    Answer(Box<Answer>),
    /// The signed words of an order whose `audit` lets no stranger see more.
    Words(Box<SignedWords>),
}

/// An order and its receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignedWords {
    /// The order.
    pub order: Order,
    /// Its buyer's signature.
    pub order_signature: Signature,
    /// The receipt.
    pub receipt: Receipt,
    /// Its provider's signature.
    pub receipt_signature: Signature,
}

/// Why a posted receipt is not shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "code")]
pub enum NotShown {
    /// It was not signed, or not by who may ask.
    #[error("a posted receipt is shown to its buyer and to auditors")]
    Unsigned,
    /// It was signed too long ago, or for a time that is to come.
    #[error("the inquiry is of {found}, it is {now}")]
    Stale {
        /// Its time, unix seconds.
        found: u64,
        /// The provider's, unix seconds.
        now: u64,
    },
    /// Nothing was posted there.
    #[error("there is no receipt {index} in period {period}")]
    NoReceipt {
        /// Which period.
        period: u64,
        /// Which leaf of it.
        index: u64,
    },
    /// An earlier release did not keep what was ordered.
    #[error("what order {order} asked for was not kept")]
    NotKept {
        /// The order.
        order: OrderHash,
    },
    /// Who asks was not drawn for it.
    #[error("{auditor} was not drawn for this receipt")]
    NotDrawn {
        /// Who asked.
        auditor: Address,
    },
    /// Too many ask at once.
    #[error("too many auditors ask at once")]
    Busy,
    /// The chain, which knows who was drawn, or the store does not answer, or no chain is known.
    #[error("{reason}")]
    Failed {
        /// What failed.
        reason: String,
    },
}

/// Why a provider does not answer an order: its word, which a buyer need not believe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "code")]
pub enum Refusal {
    /// Not an order: malformed, unsigned, or not about its terms.
    #[error("{reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// Signed for another chain.
    #[error("the order is for chain {found}, this provider serves chain {expected}")]
    #[serde(rename_all = "camelCase")]
    WrongChain {
        /// Chain of the order.
        found: ChainId,
        /// Chain of the provider.
        expected: ChainId,
    },
    /// A model that this provider does not serve.
    #[error("model {model} is not served here")]
    UnknownModel {
        /// The model asked for.
        model: crate::ModelId,
    },
    /// An assurance, or an asset, that this provider does not sell.
    #[error("the order's {what} is not offered here")]
    NotOffered {
        /// Which term.
        what: String,
    },
    /// Its deadline has passed.
    #[error("the order's deadline {deadline} has passed, it is {now}")]
    Expired {
        /// Unix seconds.
        deadline: u64,
        /// Unix seconds.
        now: u64,
    },
    /// Prompt and answer do not fit the context.
    #[error("{prompt} prompt tokens leave no room for an answer in a context of {context}")]
    Context {
        /// Prompt tokens.
        prompt: u32,
        /// Tokens that fit.
        context: u32,
    },
    /// The order does not allow what the answer may cost.
    #[error("the answer may cost {asked}, the order allows {max}")]
    Price {
        /// Highest price the answer can reach.
        asked: Amount,
        /// What the order allows.
        max: Amount,
    },
    /// Its grants are not good, or not good for it.
    #[error("{reason}")]
    Grant {
        /// What is wrong.
        reason: String,
    },
    /// A grant was taken back.
    #[error("grant {grant} was taken back by its issuer")]
    GrantRevoked {
        /// Digest of the grant.
        grant: B256,
    },
    /// A grant allows less than the answer may cost, with all that was bought under it here.
    #[error("the answer may cost {asked}, {left} is left of grant {grant}")]
    GrantSpent {
        /// Digest of the grant.
        grant: B256,
        /// Most that the answer may cost.
        asked: Amount,
        /// What is left.
        left: Amount,
    },
    /// More orders came under a grant than it allows in a minute.
    #[error("grant {grant} allows {rate} orders a minute")]
    GrantRate {
        /// Digest of the grant.
        grant: B256,
        /// Orders a minute.
        rate: u32,
    },
    /// Nothing pays for it.
    #[error("orders are paid here: a channel and a voucher must come with it")]
    Unpaid,
    /// A channel that this provider does not take.
    #[error("the channel's {what} is {found}, expected {expected}")]
    Channel {
        /// Which term.
        what: String,
        /// The channel's.
        found: String,
        /// The provider's.
        expected: String,
    },
    /// The voucher allows too little, or less than an earlier one.
    #[error("the voucher allows {found} of the channel, expected at least {expected}")]
    Voucher {
        /// What it allows.
        found: Amount,
        /// What it must allow.
        expected: Amount,
    },
    /// The voucher is not signed by the channel's payer.
    #[error("the voucher is signed by {found}, the channel's vouchers by {expected}")]
    VoucherSigner {
        /// Who signed.
        found: Address,
        /// Who should have.
        expected: Address,
    },
    /// The channel holds too little, what its payer withdraws not counted.
    #[error("the channel holds {found}, the voucher allows {expected}")]
    Deposit {
        /// What it holds.
        found: Amount,
        /// What it must hold.
        expected: Amount,
    },
    /// Another order runs on the channel.
    #[error("channel {channel} pays for another order right now")]
    ChannelBusy {
        /// The channel.
        channel: ChannelId,
    },
    /// No voucher came while the answer was paused, or the channel's money is on its way out.
    #[error("the buyer stopped paying")]
    StoppedPaying,
    /// The provider cannot see the chain, so it does not know what the channel holds.
    #[error("the provider cannot see the chain: {reason}")]
    Chain {
        /// What went wrong.
        reason: String,
    },
    /// Every slot is taken.
    #[error("all {running_max} slots are taken")]
    #[serde(rename_all = "camelCase")]
    Busy {
        /// Slots there are.
        running_max: u32,
    },
    /// The same order is being answered right now.
    #[error("order {order} is being answered already")]
    Running {
        /// The order.
        order: OrderHash,
    },
    /// The provider is shutting down.
    #[error("the provider is shutting down")]
    Closing,
    /// The receipt could not be stored, so none was given.
    #[error("the provider could not store the receipt: {reason}")]
    Storage {
        /// What went wrong.
        reason: String,
    },
    /// The engine failed; the provider's fault.
    #[error("the provider failed: {reason}")]
    Internal {
        /// What went wrong.
        reason: String,
    },
}

impl From<GrantError> for Refusal {
    fn from(error: GrantError) -> Self {
        Self::Grant { reason: error.to_string() }
    }
}

impl From<OrderError> for Refusal {
    fn from(error: OrderError) -> Self {
        Self::Invalid { reason: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_leaf_is_only_the_one_that_was_asked_for() {
        // Three leaves; the fourth place is empty.
        let data: Vec<Bytes> = (0..3u8).map(|byte| vec![byte; 3].into()).collect();
        let hash = |n: usize| leaf_hash(&data[n]);
        let join = |left: B256, right: B256| keccak256([left, right].concat());
        let right = join(hash(2), B256::ZERO);
        let weights = join(join(hash(0), hash(1)), right);
        assert_eq!(weights, crate::root((0..3).map(hash)));
        let leaf =
            |n: usize, proof: [B256; 2]| WeightLeaf { data: data[n].clone(), proof: proof.into() };
        assert!(leaf(1, [hash(0), right]).is_of(weights, 3, 1));
        assert!(leaf(2, [B256::ZERO, join(hash(0), hash(1))]).is_of(weights, 3, 2));
        assert!(!leaf(1, [hash(0), right]).is_of(weights, 3, 0));
        assert!(!leaf(0, [hash(0), right]).is_of(weights, 3, 1));
        // Neither a node nor what is beyond the last leaf passes for one.
        let node = WeightLeaf { data: [hash(0), hash(1)].concat().into(), proof: vec![right] };
        assert!(!node.is_of(weights, 3, 0));
        assert!(!leaf(2, [B256::ZERO, join(hash(0), hash(1))]).is_of(weights, 3, 6));
    }
}
