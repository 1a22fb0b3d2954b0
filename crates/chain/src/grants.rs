//! Grants: taking them back, and asking whether they hold.

use alloy_primitives::{Address, B256};

use crate::bindings::Grants;
use crate::chain::Chain;
use crate::client::Mined;
use crate::error::ChainError;
use crate::suite::Contract;

impl Chain {
    /// Takes grants of the connection's account back, for good; named by their digests.
    pub async fn revoke(&self, grants: &[B256]) -> Result<Mined, ChainError> {
        let call = Grants::revokeCall { grants: grants.to_vec() };
        self.client().send(self.at(Contract::Grants)?, &call).await
    }

    /// Whether `issuer` took a grant back.
    pub async fn is_revoked(&self, issuer: Address, grant: B256) -> Result<bool, ChainError> {
        let call = Grants::isRevokedCall { issuer, grant };
        self.client().view(self.at(Contract::Grants)?, &call).await
    }
}
