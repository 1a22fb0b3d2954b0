//! A provider's signed statement of what it did for an order.

use alloy_primitives::{Address, B256, keccak256};
use alloy_sol_types::SolValue;
use serde::{Deserialize, Serialize};

use crate::eip712::{self, sol};
use crate::{
    Amount, Assurance, ChainId, ChannelId, Ending, Finish, Key, Order, OrderHash, Signature,
    SignatureError, State, token_root, vector_hash,
};

/// A provider's signed statement of what it did for an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Receipt {
    /// Which order was answered.
    pub order: OrderHash,
    /// Who answered, and who signed.
    pub provider: Address,
    /// [`token_root`] of the output.
    pub output: B256,
    /// Number of output tokens, the ending one included.
    pub output_tokens: u32,
    /// keccak256 of the exact text, UTF-8.
    pub text: B256,
    /// Why it ended.
    pub finish: Finish,
    /// Last of the chained states.
    pub state: B256,
    /// What can be checked about the answer.
    pub assurance: Assurance,
    /// Token that prices are in.
    pub asset: Address,
    /// Price of the answer.
    pub price: Amount,
    /// Channel that pays; zero for none.
    pub channel: ChannelId,
    /// What the channel had paid before this answer.
    pub channel_before: Amount,
    /// What it has paid with this answer.
    pub channel_after: Amount,
    /// Unix milliseconds at which work began.
    pub started: u64,
    /// Unix milliseconds at which it ended.
    pub finished: u64,
}

/// Why a receipt does not speak for the answer it came with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The signature is nobody's.
    #[error("receipt: {0}")]
    Signature(#[from] SignatureError),
    /// Someone else signed.
    #[error("receipt is signed by {found}, but names provider {provider}")]
    WrongSigner {
        /// Who signed.
        found: Address,
        /// Whom the receipt names.
        provider: Address,
    },
    /// It is about another order.
    #[error("receipt answers order {found}, not {expected}")]
    WrongOrder {
        /// The order it names.
        found: OrderHash,
        /// The order at hand.
        expected: OrderHash,
    },
    /// The receipt was signed for other contents than those it came with.
    #[error("the receipt was signed for another {what}")]
    Content {
        /// Which content.
        what: &'static str,
    },
    /// Signed fields contradict the order, or each other.
    #[error("the receipt's {what} contradicts its order or itself")]
    Contradiction {
        /// Which field.
        what: &'static str,
    },
    /// The price is above what the order allows.
    #[error("receipt asks {found}, the order allows {max}")]
    Price {
        /// Price asked.
        found: Amount,
        /// Highest price of the order.
        max: Amount,
    },
    /// The output ends too early, or goes on after its end.
    #[error("receipt says the answer finished by {found}, its tokens say {expected}")]
    Finish {
        /// What the receipt says.
        found: Finish,
        /// What the tokens say.
        expected: Finish,
    },
    /// A token follows the end of the answer.
    #[error("the answer goes on after its end")]
    Overrun,
}

impl Receipt {
    /// What the provider signs.
    pub fn digest(&self, chain: ChainId) -> B256 {
        eip712::digest(&self.word(), chain)
    }

    /// ABI encoding of the signed word, as contracts take it.
    pub fn encode(&self) -> Vec<u8> {
        self.word().abi_encode()
    }

    fn word(&self) -> sol::receipt::Receipt {
        sol::receipt::Receipt {
            order: self.order.0,
            provider: self.provider,
            output: self.output,
            outputTokens: self.output_tokens,
            text: self.text,
            finish: self.finish.code(),
            state: self.state,
            assurance: self.assurance.code(),
            asset: self.asset,
            price: self.price.0,
            channel: self.channel.0,
            channelBefore: self.channel_before.0,
            channelAfter: self.channel_after.0,
            started: self.started,
            finished: self.finished,
        }
    }

    /// Signs the receipt as its provider.
    pub fn sign(&self, chain: ChainId, key: &Key) -> Signature {
        key.sign(self.digest(chain))
    }

    /// Refuses a receipt that its provider did not sign, or that does not fit `order`, the
    /// delivered `output` and `text`, or the rules of `ending`. Whether the model really gives
    /// this output only a replay can tell; everything else is settled here.
    pub fn check(
        &self,
        chain: ChainId,
        signature: &Signature,
        order: &Order,
        output: &[u32],
        text: &str,
        ending: &Ending,
    ) -> Result<(), ReceiptError> {
        let found = signature.signer(self.digest(chain))?;
        if found != self.provider {
            return Err(ReceiptError::WrongSigner { found, provider: self.provider });
        }
        let expected = order.hash(chain);
        if self.order != expected {
            return Err(ReceiptError::WrongOrder { found: self.order, expected });
        }
        let contents =
            [("output", self.output == token_root(output)), ("text", self.text == keccak256(text))];
        if let Some((what, _)) = contents.into_iter().find(|(_, holds)| !holds) {
            return Err(ReceiptError::Content { what });
        }
        // What follows only the provider's signature can have caused.
        let empty = output.is_empty();
        let fields = [
            ("number of output tokens", self.output_tokens as usize == output.len()),
            ("state", !empty || self.state == State::start(expected).0),
            ("assurance", self.assurance == order.assurance),
            ("asset", self.asset == order.asset),
            ("channel position", self.moves_its_price()),
            ("start", self.started / 1000 <= order.deadline),
            ("end", self.started <= self.finished),
        ];
        if let Some((what, _)) = fields.into_iter().find(|(_, holds)| !holds) {
            return Err(ReceiptError::Contradiction { what });
        }
        if self.price > order.max_price {
            return Err(ReceiptError::Price { found: self.price, max: order.max_price });
        }
        let expected = ending.of(output).ok_or(ReceiptError::Overrun)?;
        if self.finish != expected {
            return Err(ReceiptError::Finish { found: self.finish, expected });
        }
        Ok(())
    }

    /// Whether this is the receipt for `vector`, the answer of a model that gives texts vectors.
    pub fn binds(&self, vector: &[i32], output: &[u32]) -> bool {
        let state = |token: u32| State::start(self.order).next(token, vector_hash(vector));
        matches!(*output, [token] if state(token).0 == self.state)
    }

    /// Whether the channel advanced by the price; without a channel nothing advances.
    fn moves_its_price(&self) -> bool {
        let moved = self.channel_after.0.checked_sub(self.channel_before.0);
        let due = if self.channel == ChannelId::default() { 0 } else { self.price.0 };
        moved == Some(due)
    }
}
