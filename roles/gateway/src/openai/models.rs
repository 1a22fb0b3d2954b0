//! The models as OpenAI's clients list them.

use assay_protocol::ModelId;
use serde::Serialize;

/// The list of models.
#[derive(Serialize)]
pub(crate) struct Models {
    object: &'static str,
    data: Vec<ModelCard>,
}

impl Models {
    pub(crate) fn new(data: Vec<ModelCard>) -> Self {
        Self { object: "list", data }
    }
}

/// One model.
#[derive(Serialize)]
pub(crate) struct ModelCard {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_model_len: Option<u32>,
}

impl ModelCard {
    /// A model of which only the name is known.
    pub(crate) fn relayed(name: &str) -> Self {
        Self {
            id: name.to_owned(),
            object: "model",
            created: 0,
            owned_by: "operator",
            root: None,
            max_model_len: None,
        }
    }

    pub(crate) fn new(name: String, id: ModelId, created: u64, context: u32) -> Self {
        Self {
            id: name,
            object: "model",
            created,
            owned_by: "assay",
            root: Some(id.to_string()),
            max_model_len: Some(context),
        }
    }
}
