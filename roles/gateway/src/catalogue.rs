//! The models clients may name, with what is computed about each once.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_text::{CallFormat, Chat};

use crate::Listed;

/// A listed model.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) listed: Listed,
    /// Bytes of prompt text that its longest token stands for, at least one.
    pub(crate) token_bytes_max: usize,
    /// How it writes calls of tools, as its template shows.
    pub(crate) calls: CallFormat,
}

/// The listed models, in the order of the configuration.
#[derive(Debug)]
pub(crate) struct Catalogue {
    pub(crate) models: Vec<Arc<Model>>,
    /// Other name → name of a model.
    aliases: BTreeMap<String, String>,
}

/// The alias that stands for every name that is no model's, and for none.
const ANY: &str = "*";

impl Catalogue {
    pub(crate) fn new(listed: Vec<Listed>, aliases: BTreeMap<String, String>) -> Self {
        let models = listed.into_iter().map(|listed| Arc::new(Model::new(listed))).collect();
        Self { models, aliases }
    }

    /// The model that a client names: by its name, its id or an alias.
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<Model>> {
        let alias = || self.aliases.get(name).or_else(|| self.aliases.get(ANY));
        self.named(name).or_else(|| self.named(alias()?))
    }

    fn named(&self, name: &str) -> Option<&Arc<Model>> {
        let id = name.parse().ok();
        self.models.iter().find(|model| model.listed.name == name || Some(model.listed.id) == id)
    }
}

impl Model {
    fn new(listed: Listed) -> Self {
        let tokenizer = &listed.tokenizer;
        let ids = 0..u32::try_from(tokenizer.len()).unwrap_or(u32::MAX);
        // A control token adds no text, but a prompt spells it.
        let bytes = |id| tokenizer.bytes(id).len().max(tokenizer.spelling(id).map_or(0, str::len));
        let token_bytes_max = ids.map(bytes).max().unwrap_or(0).max(1);
        let calls = CallFormat::of_template(listed.chat.as_deref().map_or("", Chat::source));
        Self { listed, token_bytes_max, calls }
    }

    /// How the model spells its first token; empty if it has none.
    pub(crate) fn bos(&self) -> &str {
        let tokenizer = &self.listed.tokenizer;
        tokenizer.bos().and_then(|id| tokenizer.spelling(id)).unwrap_or("")
    }

    /// How the model spells the end of an answer; empty if it has none.
    pub(crate) fn eos(&self) -> &str {
        let eos = self.listed.eos.first();
        eos.and_then(|&id| self.listed.tokenizer.spelling(id)).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draft::tests::nano;

    #[test]
    fn an_alias_stands_for_a_model_and_never_for_another_models_name() {
        let listed = nano().listed.clone();
        let other = Listed { name: "org/other".into(), id: Default::default(), ..listed.clone() };
        let find = |aliases: &[(&str, &str)], name: &str| {
            let aliases = aliases.iter().map(|(from, to)| ((*from).into(), (*to).into())).collect();
            let catalogue = Catalogue::new(vec![listed.clone(), other.clone()], aliases);
            catalogue.find(name).map(|model| model.listed.name.clone())
        };
        let nano = Some("org/nano".to_owned());
        assert_eq!(find(&[], "gpt"), None);
        assert_eq!(find(&[("gpt", "org/nano")], "gpt"), nano);
        assert_eq!(find(&[("gpt", "org/nano")], "gpt-2"), None);
        assert_eq!(find(&[("*", "org/nano")], ""), nano);
        assert_eq!(find(&[("*", "org/nano")], "org/other"), Some("org/other".into()));
        assert_eq!(find(&[("gpt", "nobody")], "gpt"), None);
    }
}
