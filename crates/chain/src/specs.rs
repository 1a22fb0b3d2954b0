//! Which models can be judged: their manifests, filed with the judges.

use alloy_primitives::B256;
use assay_protocol::{Manifest, ModelId};

use crate::bindings::{Specs, word};
use crate::chain::Chain;
use crate::client::Mined;
use crate::error::ChainError;
use crate::suite::Contract;

/// What the weights of a filed model hash to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FiledWeights {
    /// Root of the tree over all tensors.
    pub root: B256,
    /// Its leaves.
    pub leaves: u64,
}

impl Chain {
    /// Files a model's manifest, so that answers of it can be disputed. Anyone may; what is filed follows from
    /// the manifest alone, and a second time changes nothing.
    pub async fn file_spec(&self, manifest: &Manifest) -> Result<Mined, ChainError> {
        let manifest = word(&manifest.encode());
        self.client().send(self.at(Contract::Specs)?, &Specs::fileCall { manifest }).await
    }

    /// Whether answers of a model can be disputed.
    pub async fn is_filed(&self, model: ModelId) -> Result<bool, ChainError> {
        Ok(self.weights_of(model).await?.is_some())
    }

    /// What the weights of a filed model hash to; none for a model that nobody filed.
    pub async fn weights_of(&self, model: ModelId) -> Result<Option<FiledWeights>, ChainError> {
        let call = Specs::specOfCall { model: model.0 };
        match self.client().view(self.at(Contract::Specs)?, &call).await {
            Ok(spec) => Ok(Some(FiledWeights { root: spec.weights, leaves: spec.weightLeaves })),
            Err(ChainError::Refused(refusal)) if refusal.is::<Specs::NotFiled>() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
