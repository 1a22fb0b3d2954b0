//! Changing what governance may change: through the timelock, whose admin decides until votes do.

use std::fmt;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::SolCall;
use serde::Serialize;

use crate::bindings::{Parameters, Timelock};
use crate::chain::Chain;
use crate::client::Mined;
use crate::error::ChainError;
use crate::suite::{Contract, Plan, Value};
use crate::token::FirstCall;

/// A decision: what the timelock will do when its delay is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    target: Address,
    data: Bytes,
    salt: B256,
}

/// Who judges disputes, and what is to be done until this deployment's contract does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum Seating {
    /// The suite's disputes judge.
    Seated,
    /// The decision is announced, and can be carried out from `ready` on, unix seconds.
    Announced {
        /// When the timelock's delay is over.
        ready: u64,
    },
    /// Nobody judges, and `admin` can announce that the suite's disputes will.
    Awaits {
        /// The timelock's admin.
        admin: Address,
    },
    /// Governance decided otherwise, and that stays.
    Other {
        /// Whom it named; zero for nobody.
        arbiter: Address,
    },
}

impl fmt::Display for Seating {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seated => write!(f, "Disputes"),
            Self::Announced { ready } => {
                write!(f, "nobody; Disputes is announced, from unix time {ready} on")
            }
            Self::Awaits { admin } => write!(f, "nobody; {admin} has to announce Disputes"),
            Self::Other { arbiter } if arbiter.is_zero() => {
                write!(f, "nobody, as governance decided")
            }
            Self::Other { arbiter } => write!(f, "{arbiter}, as governance decided"),
        }
    }
}

/// What the timelock says instead of a time about a decision that was carried out.
const DONE: u64 = 1;

/// Marks the decision that names a deployment's first arbiter, so that whoever resumes finds it.
fn first_arbiter() -> B256 {
    keccak256("assay.first-arbiter")
}

impl Decision {
    fn schedule(&self, delay: U256) -> Timelock::scheduleCall {
        Timelock::scheduleCall {
            target: self.target,
            value: U256::ZERO,
            data: self.data.clone(),
            predecessor: B256::ZERO,
            salt: self.salt,
            delay,
        }
    }

    fn execute(&self) -> Timelock::executeCall {
        Timelock::executeCall {
            target: self.target,
            value: U256::ZERO,
            payload: self.data.clone(),
            predecessor: B256::ZERO,
            salt: self.salt,
        }
    }

    fn id(&self) -> Timelock::hashOperationCall {
        Timelock::hashOperationCall {
            target: self.target,
            value: U256::ZERO,
            data: self.data.clone(),
            predecessor: B256::ZERO,
            salt: self.salt,
        }
    }

    /// That `present` passes verdicts.
    fn arbiter(parameters: Address, present: Address, salt: B256) -> Self {
        let data = Parameters::setArbiterCall { present }.abi_encode().into();
        Self { target: parameters, data, salt }
    }
}

impl Plan {
    /// Calls by the admin that put the suite's disputes into office, where the timelock has no delay.
    pub fn first_offices(&self) -> Vec<FirstCall> {
        let to = self.at(Contract::Timelock);
        let (parameters, arbiter) = (self.at(Contract::Parameters), self.at(Contract::Disputes));
        let decision = Decision::arbiter(parameters, arbiter, first_arbiter());
        let calls = [decision.schedule(U256::ZERO).abi_encode(), decision.execute().abi_encode()];
        calls.map(|data| FirstCall { to, data: data.into() }).into()
    }
}

impl Chain {
    /// Who judges disputes.
    pub async fn seating(&self) -> Result<Seating, ChainError> {
        let (arbiter, ours) = (self.arbiter().await?, self.at(Contract::Disputes)?);
        if arbiter == ours {
            return Ok(Seating::Seated);
        }
        if arbiter != Address::ZERO {
            return Ok(Seating::Other { arbiter });
        }
        Ok(match self.ready(&self.first_arbiter()?).await? {
            Some(DONE) => Seating::Other { arbiter },
            Some(ready) => Seating::Announced { ready },
            None => Seating::Awaits { admin: self.book().settings.admin },
        })
    }

    /// Names the suite's disputes the arbiter where nobody is, as far as the connection's account and the
    /// timelock's delay let it; called again later it goes on.
    pub async fn seat_arbiter(&self) -> Result<Seating, ChainError> {
        let mut seating = self.seating().await?;
        if self.client().account() != Some(self.book().settings.admin) {
            return Ok(seating);
        }
        let decision = self.first_arbiter()?;
        if let Seating::Awaits { .. } = seating {
            self.schedule(&decision).await?;
            seating = self.seating().await?;
        }
        match seating {
            Seating::Announced { ready } if ready <= self.client().time().await? => {
                self.execute(&decision).await?;
                self.seating().await
            }
            other => Ok(other),
        }
    }

    /// The decision that a deployment's disputes judge.
    fn first_arbiter(&self) -> Result<Decision, ChainError> {
        self.set_arbiter(self.at(Contract::Disputes)?, first_arbiter())
    }

    /// From when on an announced decision can be carried out, unix seconds; none for one that nobody announced.
    async fn ready(&self, decision: &Decision) -> Result<Option<u64>, ChainError> {
        let timelock = self.at(Contract::Timelock)?;
        let id = self.client().view(timelock, &decision.id()).await?;
        let time = self.client().view(timelock, &Timelock::getTimestampCall { id }).await?;
        Ok((time != U256::ZERO).then(|| time.saturating_to()))
    }

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
        Ok(Decision::arbiter(self.at(Contract::Parameters)?, present, salt))
    }

    /// Announces a decision; it can be executed when the timelock's delay is over. Admin only.
    pub async fn schedule(&self, decision: &Decision) -> Result<Mined, ChainError> {
        let timelock = self.at(Contract::Timelock)?;
        let delay = self.client().view(timelock, &Timelock::getMinDelayCall {}).await?;
        self.client().send(timelock, &decision.schedule(delay)).await
    }

    /// Carries out a decision whose delay is over. Admin only.
    pub async fn execute(&self, decision: &Decision) -> Result<Mined, ChainError> {
        self.client().send(self.at(Contract::Timelock)?, &decision.execute()).await
    }
}
