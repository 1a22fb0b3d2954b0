//! Which models are published, whose they are, and on what terms.

use alloy_primitives::{Address, B256, U256};
use assay_protocol::{Amount, Manifest, ModelId};

use crate::bindings::{Models, word};
use crate::chain::Chain;
use crate::client::Mined;
use crate::error::ChainError;
use crate::suite::Contract;

/// What an owner asks of those who use its model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelTerms {
    /// keccak256 of the licence's text; zero if it grants nothing.
    pub licence: B256,
    /// Least price per million prompt tokens, base units of ASY.
    pub floor_in: Amount,
    /// Least price per million output tokens, base units of ASY.
    pub floor_out: Amount,
    /// Who is paid royalties; zero for none.
    pub royalty_to: Address,
    /// Royalty's share of each payment, in basis points.
    pub royalty_bps: u16,
    /// Where licence, card and weights are described.
    pub uri: String,
}

/// A published model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedModel {
    /// Whose it is.
    pub owner: Address,
    /// When it was published, unix seconds.
    pub published: u64,
    /// How often its terms were stated, the first time included.
    pub revisions: u64,
}

impl Chain {
    /// Publishes a model as the connection's account's. First come, first served.
    pub async fn publish(
        &self,
        manifest: &Manifest,
        terms: &ModelTerms,
    ) -> Result<Mined, ChainError> {
        let call = Models::publishCall { manifest: word(&manifest.encode()), terms: terms.into() };
        self.client().send(self.at(Contract::Models)?, &call).await
    }

    /// States new terms of a model of the connection's account; what was agreed before keeps the old ones.
    pub async fn revise(&self, model: ModelId, terms: &ModelTerms) -> Result<Mined, ChainError> {
        let call = Models::reviseCall { id: model.0, terms: terms.into() };
        self.client().send(self.at(Contract::Models)?, &call).await
    }

    /// The published model; none if nobody published it.
    pub async fn model(&self, model: ModelId) -> Result<Option<PublishedModel>, ChainError> {
        let call = Models::modelCall { id: model.0 };
        match self.client().view(self.at(Contract::Models)?, &call).await {
            Ok(found) => Ok(Some(PublishedModel {
                owner: found.owner,
                published: found.published,
                revisions: found.revisions.saturating_to(),
            })),
            Err(ChainError::Refused(refusal)) if refusal.is::<Models::NotPublished>() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The terms that hold now.
    pub async fn terms_of(&self, model: ModelId) -> Result<ModelTerms, ChainError> {
        let call = Models::termsOfCall { id: model.0 };
        Ok(self.client().view(self.at(Contract::Models)?, &call).await?.into())
    }

    /// Published models in the order of publication, at most `most` of them from the `from`th on.
    pub async fn models(&self, from: u64, most: u64) -> Result<Vec<ModelId>, ChainError> {
        let call = Models::idsCall { from: U256::from(from), most: U256::from(most) };
        let ids = self.client().view(self.at(Contract::Models)?, &call).await?;
        Ok(ids.into_iter().map(ModelId).collect())
    }
}

impl From<&ModelTerms> for Models::Terms {
    fn from(terms: &ModelTerms) -> Self {
        Self {
            licence: terms.licence,
            floorIn: terms.floor_in.0,
            floorOut: terms.floor_out.0,
            royaltyTo: terms.royalty_to,
            royaltyBps: terms.royalty_bps,
            uri: terms.uri.clone(),
        }
    }
}

impl From<Models::Terms> for ModelTerms {
    fn from(terms: Models::Terms) -> Self {
        Self {
            licence: terms.licence,
            floor_in: Amount(terms.floorIn),
            floor_out: Amount(terms.floorOut),
            royalty_to: terms.royaltyTo,
            royalty_bps: terms.royaltyBps,
            uri: terms.uri,
        }
    }
}
