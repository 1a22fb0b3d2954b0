//! What is accepted: the price of one request as x402's requirements, and whether a payment meets them.

use std::time::Duration;

use assay_chain::SignedToken;
use assay_protocol::{Address, Amount};
use serde_json::{Map, Value, json};

use super::fault::Fault;
use super::wire::{Network, Requirements, Scheme};

/// What is accepted, and for whom.
#[derive(Clone, Debug)]
pub struct Terms {
    /// What payments are in: its chain, address and EIP-712 name and version. Prices are in its base
    /// units, so it must be the asset of the gateway's orders, or worth the same.
    pub token: SignedToken,
    /// Who is paid.
    pub pay_to: Address,
    /// How long a payment may take, from the signature to the settlement. Clients sign for that long.
    pub timeout: Duration,
    /// Seconds between a payer's wish to withdraw from a channel and the withdrawal; 900 to 2,592,000.
    /// Claims must reach the chain within it, so a short one needs a chain that always answers.
    pub withdraw_delay: u64,
    /// Requests that a first deposit should pay for; a hint to clients, not a condition.
    pub deposit_requests: u32,
    /// The least that we send a transaction for, base units: a transfer, a deposit, a refund. Gas is ours,
    /// so it should be worth some times that. Cheaper requests are sold by `batch-settlement` only, and who
    /// wants less back withdraws it without us.
    pub settle_min: Amount,
}

impl Terms {
    pub(crate) fn network(&self) -> Network {
        Network(self.token.chain)
    }

    /// What a request of this price is asked for; `authorizer` may claim from channels.
    pub(crate) fn asks(&self, scheme: Scheme, price: Amount, authorizer: Address) -> Requirements {
        let mut extra = Map::new();
        extra.insert("name".to_owned(), self.token.name.clone().into());
        extra.insert("version".to_owned(), self.token.version.clone().into());
        extra.insert("assetTransferMethod".to_owned(), "eip3009".into());
        if scheme == Scheme::Batch {
            extra.extend(self.channel_extra(price, authorizer));
        }
        Requirements {
            scheme,
            network: self.network(),
            amount: price,
            asset: self.token.address,
            pay_to: self.pay_to,
            max_timeout_seconds: self.timeout.as_secs(),
            extra,
        }
    }

    fn channel_extra(&self, price: Amount, authorizer: Address) -> Map<String, Value> {
        let deposit = price.0.saturating_mul(u128::from(self.deposit_requests.max(1)));
        let deposit = deposit.max(self.settle_min.0);
        let mut extra = Map::new();
        extra.insert("receiverAuthorizer".to_owned(), json!(authorizer.to_string()));
        extra.insert("withdrawDelay".to_owned(), json!(self.withdraw_delay));
        extra.insert("minDeposit".to_owned(), json!(deposit.to_string()));
        extra
    }

    /// Whether what a payer accepted is what we ask for a request of this price. More is not refused:
    /// prices may have fallen since it was asked.
    pub(crate) fn met(&self, accepted: &Requirements, price: Amount) -> Result<(), Fault> {
        if accepted.network != self.network() {
            return Err(Fault::Network { found: accepted.network, expected: self.network() });
        }
        if accepted.asset != self.token.address {
            return Err(Fault::Asset { found: accepted.asset, expected: self.token.address });
        }
        if accepted.pay_to != self.pay_to {
            return Err(Fault::Recipient { found: accepted.pay_to, expected: self.pay_to });
        }
        if accepted.amount < price {
            return Err(Fault::Short { found: accepted.amount, expected: price });
        }
        Ok(())
    }
}
