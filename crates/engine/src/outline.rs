//! What a model says of itself without its weights: enough to list it, to offer it and to prepare prompts.

use std::sync::Arc;

use assay_protocol::{Assurance, Manifest, ModelId, part_hash};
use assay_text::{Chat, Tokenizer};

use crate::package::{self, PackageError, Summary};

/// A model without its weights.
#[derive(Clone)]
pub struct Outline {
    /// Its id.
    pub id: ModelId,
    /// What people call it; not part of the id.
    pub name: String,
    /// What the id commits to.
    pub manifest: Manifest,
    /// Its tokenizer, if its source brought one.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// Its chat template, if its source brought one.
    pub chat: Option<Arc<Chat>>,
}

impl Outline {
    /// Checks tokenizer and template against the manifest, and makes them ready.
    pub(crate) fn new(
        summary: Summary,
        tokenizer: Option<&[u8]>,
        template: Option<&str>,
    ) -> Result<Self, PackageError> {
        let id = summary.id();
        let Summary { name, manifest, .. } = summary;
        if part_hash(tokenizer) != manifest.parts.tokenizer {
            return Err(PackageError::Altered { what: "tokenizer", id });
        }
        if part_hash(template.map(str::as_bytes)) != manifest.parts.template {
            return Err(PackageError::Altered { what: "chat template", id });
        }
        let tokenizer = tokenizer.map(Tokenizer::from_canonical).transpose()?.map(Arc::new);
        let chat = template.map(Chat::new).transpose()?.map(Arc::new);
        Ok(Self { id, name, manifest, tokenizer, chat })
    }

    /// What can be checked about its answers: every bit where a judge knows its family and its
    /// weights, else their quality, as long as there are no rules by which a wrong bit could be proved.
    pub fn assurance(&self) -> Assurance {
        package::assurance(&self.manifest)
    }

    /// Most tokens of prompt and output together.
    pub fn context(&self) -> u32 {
        self.manifest.shape.context
    }

    /// How many numbers the vector of a text has, if this model makes vectors of texts; none where it
    /// goes on with them.
    pub fn vector_width(&self) -> Option<u32> {
        package::makes_vectors(&self.manifest).then_some(self.manifest.shape.width)
    }
}

impl std::fmt::Debug for Outline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outline")
            .field("name", &self.name)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
