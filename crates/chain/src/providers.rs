//! Who sells answers, and what they stand to lose.

use alloy_primitives::{Address, Bytes, U256};
use assay_protocol::{Amount, ChainId, Key, Serve};

use crate::bindings::Providers;
use crate::chain::Chain;
use crate::client::Mined;
use crate::error::ChainError;
use crate::suite::Contract;

/// How much a provider has at stake, by the thresholds of the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "four names of one idea")]
pub enum Tier {
    None,
    Bronze,
    Silver,
    Gold,
}

/// A provider as the chain knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Key that signs receipts and heartbeats now.
    pub operator: Address,
    /// Where its offers are found.
    pub endpoint: String,
    /// Stake that counts.
    pub bonded: Amount,
    /// Stake on its way out; can still be slashed.
    pub unbonding: Amount,
    /// By what is bonded.
    pub tier: Tier,
    /// Last time it was heard of, unix seconds.
    pub heartbeat: u64,
    /// When it may leave jail, unix seconds; none if it is not in jail.
    pub jailed_until: Option<u64>,
}

impl Chain {
    /// Registers the connection's account as an owner whose machine signs with `operator` and serves at `endpoint`.
    pub async fn register(&self, operator: &Key, endpoint: &str) -> Result<Mined, ChainError> {
        let call = Providers::registerCall {
            operator: operator.address(),
            endpoint: endpoint.to_owned(),
            signature: self.consent(operator)?,
        };
        self.client().send(self.at(Contract::Providers)?, &call).await
    }

    /// Names another operator of the connection's account.
    pub async fn rotate(&self, operator: &Key) -> Result<Mined, ChainError> {
        let signature = self.consent(operator)?;
        let call = Providers::rotateCall { operator: operator.address(), signature };
        self.client().send(self.at(Contract::Providers)?, &call).await
    }

    /// Adds to the stake of the connection's account, approving first where needed.
    pub async fn stake(&self, amount: Amount) -> Result<Mined, ChainError> {
        let providers = self.at(Contract::Providers)?;
        self.allow(self.at(Contract::AssayToken)?, providers, amount).await?;
        self.client().send(providers, &Providers::stakeCall { amount: amount.0 }).await
    }

    /// Starts taking stake out; it can be withdrawn, and until then slashed, after the unbonding delay.
    pub async fn unbond(&self, amount: Amount) -> Result<Mined, ChainError> {
        let call = Providers::unbondCall { amount: amount.0 };
        self.client().send(self.at(Contract::Providers)?, &call).await
    }

    /// Pays out all stake that is due.
    pub async fn withdraw_stake(&self) -> Result<Mined, ChainError> {
        self.client().send(self.at(Contract::Providers)?, &Providers::withdrawCall {}).await
    }

    /// Says that the provider is there. Sent with the operator's key.
    pub async fn heartbeat(&self) -> Result<Mined, ChainError> {
        self.client().send(self.at(Contract::Providers)?, &Providers::heartbeatCall {}).await
    }

    /// The provider of `owner`; none if it never registered.
    pub async fn provider(&self, owner: Address) -> Result<Option<Provider>, ChainError> {
        let call = Providers::providerCall { owner };
        match self.client().view(self.at(Contract::Providers)?, &call).await {
            Ok(found) => Ok(Some(found.into())),
            Err(ChainError::Refused(refusal)) if refusal.is::<Providers::NotRegistered>() => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whose stake answers for what `operator` signed; none for a stranger.
    pub async fn owner_of(&self, operator: Address) -> Result<Option<Address>, ChainError> {
        let call = Providers::providerOfCall { operator };
        let owner = self.client().view(self.at(Contract::Providers)?, &call).await?;
        Ok((owner != Address::ZERO).then_some(owner))
    }

    /// Whether `owner` can be bought from: staked, heard of, not in jail.
    pub async fn is_active(&self, owner: Address) -> Result<bool, ChainError> {
        let call = Providers::activeCall { owner };
        self.client().view(self.at(Contract::Providers)?, &call).await
    }

    /// Owners in the order of registration, at most `most` of them from the `from`th on.
    pub async fn owners(&self, from: u64, most: u64) -> Result<Vec<Address>, ChainError> {
        let call = Providers::ownersCall { from: U256::from(from), most: U256::from(most) };
        self.client().view(self.at(Contract::Providers)?, &call).await
    }
}

impl Chain {
    /// The operator's signed word that it serves the connection's account.
    fn consent(&self, operator: &Key) -> Result<Bytes, ChainError> {
        let serve = Serve { registry: self.at(Contract::Providers)?, owner: self.account()? };
        let signed = serve.sign(ChainId(self.client().chain_id()), operator);
        Ok(Bytes::copy_from_slice(&signed.0))
    }
}

impl From<Providers::Provider> for Provider {
    fn from(found: Providers::Provider) -> Self {
        Self {
            operator: found.operator,
            endpoint: found.endpoint,
            bonded: Amount(found.bonded),
            unbonding: Amount(found.unbonding),
            tier: match found.tier {
                1 => Tier::Bronze,
                2 => Tier::Silver,
                3 => Tier::Gold,
                _ => Tier::None,
            },
            heartbeat: found.heartbeat,
            jailed_until: (found.jailedUntil != 0).then_some(found.jailedUntil),
        }
    }
}
