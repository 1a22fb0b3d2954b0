//! Grants: signed, bounded delegations, so that no cold key has to sit on a machine.
//!
//! Whose money it is grants to a key; that key may grant less to another, three deep at most. Each
//! grant stays within the one it stands on. An order names the last one, the buyer shows them all,
//! and whether one was taken back stands on the chain (`contracts/src/interfaces/IGrants.sol`).

use alloy_primitives::{Address, B256, U256};
use serde::{Deserialize, Serialize};

use crate::eip712::{self, sol};
use crate::{Amount, ChainId, Key, ModelId, Signature, SignatureError};

/// Most grants that stand on each other.
pub const GRANTS_MAX: usize = 3;
/// Most models that one grant names.
pub const GRANT_MODELS_MAX: usize = 64;

/// A bounded delegation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Grant {
    /// Where it can be taken back: the deployment's `Grants` contract.
    pub registry: Address,
    /// Who grants, and who signs.
    pub issuer: Address,
    /// Whose key may act.
    pub holder: Address,
    /// Models that may be asked, ascending; none for all.
    pub models: Vec<ModelId>,
    /// Token that `spend` is in; zero for the deployment's own.
    pub asset: Address,
    /// Most that orders under it may cost in all, in base units.
    pub spend: Amount,
    /// Most orders a minute; zero for no bound.
    pub rate: u32,
    /// Unix seconds from which on it holds.
    pub from: u64,
    /// Unix seconds until which it holds.
    pub until: u64,
    /// Digest of the grant that the issuer acts under; zero where the money is its own.
    pub parent: B256,
    /// Makes otherwise equal grants differ.
    pub nonce: U256,
}

/// A grant and its issuer's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedGrant {
    /// The grant.
    pub grant: Grant,
    /// The issuer's signature.
    pub signature: Signature,
}

/// What an order is held against. All that a line of grants must fit.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// Chain that signatures are for.
    pub chain: ChainId,
    /// The deployment's `Grants` contract.
    pub registry: Address,
    /// Whose money it is.
    pub payer: Address,
    /// Who signed the order.
    pub buyer: Address,
    /// Which model it asks.
    pub model: ModelId,
    /// Token that its price is in.
    pub asset: Address,
    /// What it may cost.
    pub max_price: Amount,
    /// Now, in Unix seconds.
    pub now: u64,
}

/// Why grants do not allow an order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// None, or more than may stand on each other.
    #[error("{found} grants are shown, expected 1 to {GRANTS_MAX}")]
    Depth {
        /// How many.
        found: usize,
    },
    /// The signature is nobody's.
    #[error("grant {index}: {source}")]
    Signature {
        /// Which, from the payer's on.
        index: usize,
        /// What is wrong.
        source: SignatureError,
    },
    /// A term is not what it must be.
    #[error("grant {index}: its {what} is {found}, expected {expected}")]
    Term {
        /// Which, from the payer's on.
        index: usize,
        /// Which term.
        what: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        expected: String,
    },
    /// It allows more than the grant it stands on.
    #[error("grant {index}: its {what} goes beyond the grant it stands on")]
    Wider {
        /// Which, from the payer's on.
        index: usize,
        /// Which bound.
        what: &'static str,
    },
    /// The order is outside its bounds.
    #[error("grant {index} does not allow the order's {what}")]
    Outside {
        /// Which, from the payer's on.
        index: usize,
        /// Which bound.
        what: &'static str,
    },
}

impl Grant {
    /// EIP-712 digest on `chain`: the grant's name.
    pub fn digest(&self, chain: ChainId) -> B256 {
        let word = sol::grant::Grant {
            registry: self.registry,
            issuer: self.issuer,
            holder: self.holder,
            models: self.models.iter().map(|model| model.0).collect(),
            asset: self.asset,
            spend: self.spend.0,
            rate: self.rate,
            from: self.from,
            until: self.until,
            parent: self.parent,
            nonce: self.nonce,
        };
        eip712::digest(&word, chain)
    }

    /// Signs as the issuer.
    pub fn sign(self, chain: ChainId, issuer: &Key) -> SignedGrant {
        let signature = issuer.sign(self.digest(chain));
        SignedGrant { grant: self, signature }
    }

    /// The first bound that is wider than `parent`'s.
    fn wider_than(&self, parent: &Self) -> Option<&'static str> {
        let rate = |rate: u32| if rate == 0 { u32::MAX } else { rate };
        let named = |model| parent.models.binary_search(model).is_ok();
        let models =
            parent.models.is_empty() || !self.models.is_empty() && self.models.iter().all(named);
        let bounds = [
            ("models", models),
            ("asset", self.asset == parent.asset),
            ("spend", self.spend <= parent.spend),
            ("rate", rate(self.rate) <= rate(parent.rate)),
            ("time", self.from >= parent.from && self.until <= parent.until),
        ];
        bounds.into_iter().find(|(_, within)| !within).map(|(what, _)| what)
    }

    /// The first bound that an order breaks by itself. What all orders come to is for whoever counts.
    fn forbids(&self, order: &Use) -> Option<&'static str> {
        let bounds = [
            ("model", self.models.is_empty() || self.models.binary_search(&order.model).is_ok()),
            ("asset", self.asset == order.asset),
            ("price", order.max_price <= self.spend),
            ("time", (self.from..self.until).contains(&order.now)),
        ];
        bounds.into_iter().find(|(_, within)| !within).map(|(what, _)| what)
    }
}

/// Checks a line of grants, the payer's first, for one order; gives their digests in that order.
/// The order must name the last. Whether one was taken back, how much was spent and how often is not
/// known here.
///
/// # Errors
/// The first thing wrong.
pub fn check_grants(line: &[SignedGrant], order: &Use) -> Result<Vec<B256>, GrantError> {
    if line.is_empty() || line.len() > GRANTS_MAX {
        return Err(GrantError::Depth { found: line.len() });
    }
    let mut digests = Vec::new();
    let (mut issuer, mut parent) = (order.payer, B256::ZERO);
    for (index, SignedGrant { grant, signature }) in line.iter().enumerate() {
        let digest = grant.digest(order.chain);
        let signer = signature.signer(digest);
        let signer = signer.map_err(|source| GrantError::Signature { index, source })?;
        let ascending = grant.models.windows(2).all(|pair| pair[0] < pair[1]);
        let term = |what, found: String, expected: String| {
            if found == expected {
                return Ok(());
            }
            Err(GrantError::Term { index, what, found, expected })
        };
        term("issuer", grant.issuer.to_string(), issuer.to_string())?;
        term("signer", signer.to_string(), grant.issuer.to_string())?;
        term("parent", grant.parent.to_string(), parent.to_string())?;
        term("registry", grant.registry.to_string(), order.registry.to_string())?;
        term("list of models", ascending_word(ascending), ascending_word(true))?;
        if grant.models.len() > GRANT_MODELS_MAX {
            return Err(GrantError::Outside { index, what: "number of models" });
        }
        let above = index.checked_sub(1).and_then(|above| line.get(above));
        if let Some(what) = above.and_then(|above| grant.wider_than(&above.grant)) {
            return Err(GrantError::Wider { index, what });
        }
        if let Some(what) = grant.forbids(order) {
            return Err(GrantError::Outside { index, what });
        }
        digests.push(digest);
        (issuer, parent) = (grant.holder, digest);
    }
    if issuer != order.buyer {
        let (found, expected) = (issuer.to_string(), order.buyer.to_string());
        return Err(GrantError::Term { index: line.len() - 1, what: "holder", found, expected });
    }
    Ok(digests)
}

fn ascending_word(ascending: bool) -> String {
    if ascending { "ascending" } else { "out of order" }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: ChainId = ChainId(7777);

    fn key(byte: u8) -> Key {
        Key::from_bytes([byte; 32]).unwrap()
    }

    fn model(byte: u8) -> ModelId {
        ModelId(B256::repeat_byte(byte))
    }

    fn order() -> Use {
        Use {
            chain: CHAIN,
            registry: Address::repeat_byte(4),
            payer: key(1).address(),
            buyer: key(3).address(),
            model: model(2),
            asset: Address::ZERO,
            max_price: Amount(10),
            now: 500,
        }
    }

    fn grant(issuer: u8, holder: u8, parent: B256) -> Grant {
        Grant {
            registry: Address::repeat_byte(4),
            issuer: key(issuer).address(),
            holder: key(holder).address(),
            models: vec![model(1), model(2), model(3)],
            asset: Address::ZERO,
            spend: Amount(100),
            rate: 60,
            from: 100,
            until: 1_000,
            parent,
            nonce: U256::from(1),
        }
    }

    /// What is said of a line of two, after a change to the second before it is signed.
    fn second(change: impl FnOnce(&mut Grant)) -> Result<usize, String> {
        let first = grant(1, 2, B256::ZERO).sign(CHAIN, &key(1));
        let mut child = grant(2, 3, first.grant.digest(CHAIN));
        change(&mut child);
        let line = [first, child.sign(CHAIN, &key(2))];
        check_grants(&line, &order())
            .map(|digests| digests.len())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_child_may_do_less_and_no_more() {
        assert_eq!(second(|_| ()), Ok(2));
        assert_eq!(second(|child| child.models = vec![model(2)]), Ok(2));
        assert_eq!(second(|child| (child.spend, child.rate) = (Amount(10), 1)), Ok(2));
        for (what, change) in [
            ("models", (|child| child.models = vec![]) as fn(&mut Grant)),
            ("models", |child| child.models = vec![model(2), model(4)]),
            ("asset", |child| child.asset = Address::repeat_byte(1)),
            ("spend", |child| child.spend = Amount(101)),
            ("rate", |child| child.rate = 0),
            ("time", |child| child.until = 1_001),
            ("time", |child| child.from = 99),
        ] {
            let expected = format!("grant 1: its {what} goes beyond the grant it stands on");
            assert_eq!(second(change), Err(expected));
        }
    }

    #[test]
    fn an_order_stays_within_every_grant() {
        for (what, change) in [
            ("model", (|child| child.models = vec![model(1)]) as fn(&mut Grant)),
            ("price", |child| child.spend = Amount(9)),
            ("time", |child| child.until = 500),
            ("time", |child| child.from = 501),
        ] {
            assert_eq!(second(change), Err(format!("grant 1 does not allow the order's {what}")));
        }
    }

    #[test]
    fn a_line_is_unbroken_from_the_payer_to_the_buyer() {
        let wrong = |what: &str, said: Result<usize, String>| {
            let said = said.unwrap_err();
            assert!(said.starts_with(&format!("grant 1: its {what} is ")), "{said}");
        };
        wrong("issuer", second(|child| child.issuer = key(9).address()));
        wrong("parent", second(|child| child.parent = B256::ZERO));
        wrong("registry", second(|child| child.registry = Address::ZERO));
        wrong("holder", second(|child| child.holder = key(9).address()));
        wrong("list of models", second(|child| child.models.reverse()));

        let first = grant(1, 3, B256::ZERO);
        let forged =
            SignedGrant { signature: first.clone().sign(CHAIN, &key(9)).signature, grant: first };
        assert!(matches!(
            check_grants(&[forged], &order()),
            Err(GrantError::Term { index: 0, what: "signer", .. })
        ));
        assert_eq!(check_grants(&[], &order()), Err(GrantError::Depth { found: 0 }));
        let one = grant(1, 1, B256::ZERO).sign(CHAIN, &key(1));
        let four = vec![one; 4];
        assert_eq!(check_grants(&four, &order()), Err(GrantError::Depth { found: 4 }));
    }

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
        signature: Signature,
    }

    /// Numbers as text, as eth-account's vectors have them.
    #[derive(Deserialize)]
    struct Message {
        registry: Address,
        issuer: Address,
        holder: Address,
        models: Vec<ModelId>,
        asset: Address,
        spend: Amount,
        rate: String,
        from: String,
        until: String,
        parent: B256,
        nonce: String,
    }

    #[test]
    fn digests_are_those_of_a_wallet() {
        let text = include_str!("../../../tests/vectors/grant.json");
        let vectors: Vectors = serde_json::from_str(text).unwrap();
        let issuer = Key::from_bytes(vectors.key.0).unwrap();
        assert_eq!(vectors.cases.len(), 2);
        for Case { chain_id, message, digest, signature } in vectors.cases {
            let grant = Grant {
                registry: message.registry,
                issuer: message.issuer,
                holder: message.holder,
                models: message.models,
                asset: message.asset,
                spend: message.spend,
                rate: message.rate.parse().unwrap(),
                from: message.from.parse().unwrap(),
                until: message.until.parse().unwrap(),
                parent: message.parent,
                nonce: message.nonce.parse().unwrap(),
            };
            assert_eq!(grant.digest(ChainId(chain_id)), digest);
            assert_eq!(grant.sign(ChainId(chain_id), &issuer).signature, signature);
        }
    }
}
