//! Changing what governance may change: through the timelock, whose admin decides until votes do.

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::SolCall;

use crate::bindings::{Parameters, Timelock};
use crate::chain::Chain;
use crate::client::Mined;
use crate::error::ChainError;
use crate::suite::{Contract, Value};

/// A decision: what the timelock will do when its delay is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    target: Address,
    data: Bytes,
    salt: B256,
}

impl Chain {
    /// The present value of a parameter, in its own unit.
    pub async fn value(&self, value: Value) -> Result<U256, ChainError> {
        let call = Parameters::valueCall { key: value as u8 };
        self.client().view(self.at(Contract::Parameters)?, &call).await
    }

    /// Who may pass verdicts and slash; zero while nobody may.
    pub async fn arbiter(&self) -> Result<Address, ChainError> {
        self.client().view(self.at(Contract::Parameters)?, &Parameters::arbiterCall {}).await
    }

    /// The decision to set a parameter.
    pub fn set_value(
        &self,
        value: Value,
        present: U256,
        salt: B256,
    ) -> Result<Decision, ChainError> {
        let data = Parameters::setCall { key: value as u8, present }.abi_encode().into();
        Ok(Decision { target: self.at(Contract::Parameters)?, data, salt })
    }

    /// The decision to name who may pass verdicts. This is how a later contract joins a running chain.
    pub fn set_arbiter(&self, present: Address, salt: B256) -> Result<Decision, ChainError> {
        let data = Parameters::setArbiterCall { present }.abi_encode().into();
        Ok(Decision { target: self.at(Contract::Parameters)?, data, salt })
    }

    /// Announces a decision; it can be executed when the timelock's delay is over. Admin only.
    pub async fn schedule(&self, decision: &Decision) -> Result<Mined, ChainError> {
        let timelock = self.at(Contract::Timelock)?;
        let delay = self.client().view(timelock, &Timelock::getMinDelayCall {}).await?;
        let call = Timelock::scheduleCall {
            target: decision.target,
            value: U256::ZERO,
            data: decision.data.clone(),
            predecessor: B256::ZERO,
            salt: decision.salt,
            delay,
        };
        self.client().send(timelock, &call).await
    }

    /// Carries out a decision whose delay is over. Admin only.
    pub async fn execute(&self, decision: &Decision) -> Result<Mined, ChainError> {
        let call = Timelock::executeCall {
            target: decision.target,
            value: U256::ZERO,
            payload: decision.data.clone(),
            predecessor: B256::ZERO,
            salt: decision.salt,
        };
        self.client().send(self.at(Contract::Timelock)?, &call).await
    }
}
