//! The models as OpenAI's clients list them.

use serde::Serialize;

use crate::Listed;

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
    /// What it can be asked for.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    capabilities: &'static [&'static str],
    /// Numbers of an embedding.
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
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
            capabilities: &[],
            dimensions: None,
        }
    }

    pub(crate) fn new(listed: &Listed) -> Self {
        let embeds = listed.vector_width.filter(|_| listed.labels.is_none());
        let capabilities: &[&str] = match (&listed.labels, embeds, &listed.chat) {
            (Some(_), ..) => &["classify"],
            (None, Some(_), _) => &["embeddings"],
            (None, None, Some(_)) => &["chat", "completions"],
            (None, None, None) => &["completions"],
        };
        Self {
            id: listed.name.clone(),
            object: "model",
            created: listed.created,
            owned_by: "assay",
            root: Some(listed.id.to_string()),
            max_model_len: Some(listed.context),
            capabilities,
            dimensions: embeds,
        }
    }
}
