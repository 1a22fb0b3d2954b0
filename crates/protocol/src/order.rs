//! A buyer's signed request, and the plain contents that its hashes commit to.

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolValue;
use serde::{Deserialize, Serialize};

use crate::eip712::{self, sol};
use crate::{
    Amount, Assurance, ChainId, Key, ModelId, OrderHash, Sampler, SamplerError, Signature,
    SignatureError, bias_hash, grammar_hash, leaf_hash, root, stops_hash,
};

/// Who may check an answer besides its buyer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Audit {
    /// Nobody: the order is never shown to strangers.
    None = 0,
    /// Validators drawn by a beacon.
    Drawn = 1,
    /// Anyone.
    Public = 2,
}

/// A buyer's signed request for one piece of work. It leaves the provider no choice: prompt,
/// sampler and seed are fixed, so the answer is a function of the order and the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    /// Who pays, and who signed.
    pub buyer: Address,
    /// The deployment's Receipts contract; zero before there is one.
    pub market: Address,
    /// Which model answers.
    pub model: ModelId,
    /// keccak256 of the canonical request body; zero if there is none.
    pub request: B256,
    /// [`token_root`] of the prompt.
    pub prompt: B256,
    /// Number of prompt tokens, at least one.
    pub prompt_tokens: u32,
    /// Most output tokens, at least one.
    pub max_tokens: u32,
    /// [`Sampler::hash`].
    pub sampler: B256,
    /// What must be checkable about the answer.
    pub assurance: Assurance,
    /// Who may check it.
    pub audit: Audit,
    /// Token that prices are in; zero for the deployment's own.
    pub asset: Address,
    /// Highest acceptable price of the whole answer.
    pub max_price: Amount,
    /// Unix seconds after which the order must not be started.
    pub deadline: u64,
    /// Makes otherwise equal orders differ.
    pub nonce: U256,
    /// Hash of the grant the buyer's key acts under; zero for none.
    pub grant: B256,
}

/// Most stop sequences of an order. Each is compared with the output after every token.
pub const STOPS_MAX: usize = 16;
/// Most tokens of one stop sequence.
pub const STOP_TOKENS_MAX: usize = 256;

/// Longest grammar of an order, in bytes.
pub const GRAMMAR_BYTES_MAX: usize = 64 << 10;

/// What an order's hashes stand for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Terms {
    /// Token ids of the prompt.
    pub prompt: Vec<u32>,
    /// How tokens are drawn.
    pub sampler: Sampler,
    /// Token sequences that end the answer.
    #[serde(default)]
    pub stops: Vec<Vec<u32>>,
    /// Logit biases (`Fx<16>`) by token id, ascending.
    #[serde(default)]
    pub bias: Vec<(u32, i32)>,
    /// What the answer's text has to be a sentence of; see `docs/protocol/grammar.md`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grammar: Option<String>,
}

/// Why an order is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum OrderError {
    /// The signature is not the buyer's.
    #[error("order is signed by {found}, but its buyer is {buyer}")]
    WrongSigner {
        /// Who signed.
        found: Address,
        /// Who should have.
        buyer: Address,
    },
    /// The signature is nobody's.
    #[error("order: {0}")]
    Signature(String),
    /// A plain content does not hash to what the order commits to.
    #[error("the order's {what} does not match its commitment")]
    Mismatch {
        /// Which content.
        what: String,
    },
    /// No prompt, or no room for an answer.
    #[error("an order needs at least one prompt token and one output token")]
    Empty,
    /// A stop sequence of no token would end every answer.
    #[error("stop sequence {index} is empty")]
    EmptyStop {
        /// Which one.
        index: usize,
    },
    /// Too many stop sequences.
    #[error("{found} stop sequences, at most {STOPS_MAX}")]
    Stops {
        /// How many there are.
        found: usize,
    },
    /// A stop sequence is too long.
    #[error("a stop sequence of {found} tokens, at most {STOP_TOKENS_MAX}")]
    StopLength {
        /// Its tokens.
        found: usize,
    },
    /// Biases are not in strictly ascending order of token id.
    #[error("logit biases are not in ascending order of token id")]
    BiasOrder,
    /// The grammar is too long.
    #[error("a grammar of {found} bytes, at most {GRAMMAR_BYTES_MAX}")]
    GrammarLength {
        /// Its bytes.
        found: usize,
    },
    /// A grammar is named under an assurance that no rule of judgement gives it.
    #[error("an order with a grammar is {expected}, this one is {found}", expected = Assurance::Scored)]
    GrammarAssurance {
        /// The order's assurance.
        found: Assurance,
    },
    /// The sampler breaks a bound.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
}

impl From<SignatureError> for OrderError {
    fn from(error: SignatureError) -> Self {
        Self::Signature(error.to_string())
    }
}

/// Merkle root over token ids: leaf i holds i and the token, both 32-bit big-endian.
pub fn token_root(tokens: &[u32]) -> B256 {
    root(tokens.iter().enumerate().map(|(position, token)| {
        let position = u32::try_from(position).expect("positions fit 32 bits");
        let mut data = [0; 8];
        data[..4].copy_from_slice(&position.to_be_bytes());
        data[4..].copy_from_slice(&token.to_be_bytes());
        leaf_hash(&data)
    }))
}

impl Order {
    /// The order's name, and what its buyer signs.
    pub fn hash(&self, chain: ChainId) -> OrderHash {
        OrderHash(eip712::digest(&self.word(), chain))
    }

    /// ABI encoding of the signed word, as contracts take it.
    pub fn encode(&self) -> Vec<u8> {
        self.word().abi_encode()
    }

    fn word(&self) -> sol::order::Order {
        sol::order::Order {
            buyer: self.buyer,
            market: self.market,
            model: self.model.0,
            request: self.request,
            prompt: self.prompt,
            promptTokens: self.prompt_tokens,
            maxTokens: self.max_tokens,
            sampler: self.sampler,
            assurance: self.assurance.code(),
            audit: self.audit as u8,
            asset: self.asset,
            maxPrice: self.max_price.0,
            deadline: self.deadline,
            nonce: self.nonce,
            grant: self.grant,
        }
    }

    /// Signs the order as its buyer.
    pub fn sign(&self, chain: ChainId, key: &Key) -> Signature {
        key.sign(self.hash(chain).0)
    }

    /// Refuses an order that its buyer did not sign, or that is not about `terms`.
    pub fn check(
        &self,
        chain: ChainId,
        signature: &Signature,
        terms: &Terms,
    ) -> Result<OrderHash, OrderError> {
        let hash = self.hash(chain);
        let found = signature.signer(hash.0)?;
        if found != self.buyer {
            return Err(OrderError::WrongSigner { found, buyer: self.buyer });
        }
        self.check_terms(terms)?;
        Ok(hash)
    }

    /// Refuses an order that is not about `terms`, whoever signed it.
    pub fn check_terms(&self, terms: &Terms) -> Result<(), OrderError> {
        if terms.prompt.is_empty() || self.max_tokens == 0 {
            return Err(OrderError::Empty);
        }
        if terms.stops.len() > STOPS_MAX {
            return Err(OrderError::Stops { found: terms.stops.len() });
        }
        if let Some(index) = terms.stops.iter().position(Vec::is_empty) {
            return Err(OrderError::EmptyStop { index });
        }
        let longest = terms.stops.iter().map(Vec::len).max().unwrap_or(0);
        if longest > STOP_TOKENS_MAX {
            return Err(OrderError::StopLength { found: longest });
        }
        if !terms.bias.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            return Err(OrderError::BiasOrder);
        }
        terms.sampler.check()?;
        let grammar = terms.grammar.as_deref();
        if let Some(found) = grammar.map(str::len).filter(|&bytes| bytes > GRAMMAR_BYTES_MAX) {
            return Err(OrderError::GrammarLength { found });
        }
        if terms.sampler.grammar != B256::ZERO && self.assurance != Assurance::Scored {
            return Err(OrderError::GrammarAssurance { found: self.assurance });
        }
        let matches = [
            ("prompt length", self.prompt_tokens as usize == terms.prompt.len()),
            ("prompt", self.prompt == token_root(&terms.prompt)),
            ("sampler", self.sampler == terms.sampler.hash()),
            ("stop sequences", terms.sampler.stops == stops_hash(&terms.stops)),
            ("logit biases", terms.sampler.bias == bias_hash(&terms.bias)),
            ("grammar", terms.sampler.grammar == grammar_hash(grammar)),
        ];
        match matches.into_iter().find(|(_, holds)| !holds) {
            Some((what, _)) => Err(OrderError::Mismatch { what: what.into() }),
            None => Ok(()),
        }
    }
}
