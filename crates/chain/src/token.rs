//! ASY: what accounts hold, and moving it.

use alloy_primitives::{Address, Bytes, U256};
use alloy_sol_types::SolCall;
use assay_protocol::Amount;

use crate::bindings::{AssayToken, Distribution};
use crate::chain::Chain;
use crate::client::Mined;
use crate::error::ChainError;
use crate::suite::{Contract, Plan};

/// A part of the supply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in contracts/src/libraries/Allocation.sol")]
pub enum Part {
    Nodes,
    Community,
    Team,
    Investors,
    Airdrop,
    Liquidity,
}

impl Chain {
    /// Pays a part of the supply what its schedule has freed. Anyone may ask.
    pub async fn release_part(&self, part: Part) -> Result<Mined, ChainError> {
        let call = Distribution::releaseCall { part: part as u8 };
        self.client().send(self.at(Contract::Distribution)?, &call).await
    }

    /// What `account` holds, in base units of ASY.
    pub async fn asy_of(&self, account: Address) -> Result<Amount, ChainError> {
        let call = AssayToken::balanceOfCall { account };
        Ok(amount(self.client().view(self.at(Contract::AssayToken)?, &call).await?))
    }

    /// What exists, in base units of ASY: a billion, less what was burned.
    pub async fn asy_supply(&self) -> Result<Amount, ChainError> {
        let call = AssayToken::totalSupplyCall {};
        Ok(amount(self.client().view(self.at(Contract::AssayToken)?, &call).await?))
    }

    /// Sends `value` base units of ASY from the connection's account.
    pub async fn send_asy(&self, to: Address, value: Amount) -> Result<Mined, ChainError> {
        let call = AssayToken::transferCall { to, value: U256::from(value.0) };
        self.client().send(self.at(Contract::AssayToken)?, &call).await
    }

    /// Lets `spender` take `value` base units of `token` from the connection's account, unless it already may.
    pub(crate) async fn allow(
        &self,
        token: Address,
        spender: Address,
        value: Amount,
    ) -> Result<(), ChainError> {
        let (owner, value) = (self.account()?, U256::from(value.0));
        let call = AssayToken::allowanceCall { owner, spender };
        if self.client().view(token, &call).await? < value {
            self.client().send(token, &AssayToken::approveCall { spender, value }).await?;
        }
        Ok(())
    }
}

/// A call of the admin's that is part of a genesis, before there is anyone to send a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstCall {
    /// Whom.
    pub to: Address,
    /// What.
    pub data: Bytes,
}

impl Plan {
    /// Calls by the admin, who must be the beneficiary of both, that free the parts due at the start for
    /// airdrop and liquidity and hand `shares` of them out.
    pub fn first_money(&self, shares: &[(Address, Amount)]) -> Vec<FirstCall> {
        let release = |part| FirstCall {
            to: self.at(Contract::Distribution),
            data: Distribution::releaseCall { part: part as u8 }.abi_encode().into(),
        };
        let share = |(to, value): &(Address, Amount)| FirstCall {
            to: self.at(Contract::AssayToken),
            data: AssayToken::transferCall { to: *to, value: U256::from(value.0) }
                .abi_encode()
                .into(),
        };
        let parts = [Part::Airdrop, Part::Liquidity].map(release);
        parts.into_iter().chain(shares.iter().map(share)).collect()
    }
}

/// An amount of ASY. The supply fits 128 bits, so nothing is cut.
pub(crate) fn amount(units: U256) -> Amount {
    Amount(units.saturating_to())
}
