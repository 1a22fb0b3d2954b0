//! Compiles the grammars of orders, each for its model's vocabulary.
//!
//! What a compilation may cost is bounded, and as many run at once as orders do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use assay_protocol::ModelId;
use assay_protocol::wire::Refusal;
use assay_text::{Grammar, GrammarError, Grammars};

use crate::Served;

/// The vocabularies that grammars were asked for.
#[derive(Default)]
pub(crate) struct Compilers {
    made: Mutex<HashMap<ModelId, Arc<Grammars>>>,
}

impl Compilers {
    /// Compiles `text` for the model `served`. It takes up to a second, on a thread for such.
    pub(crate) async fn compile(
        self: &Arc<Self>,
        served: &Served,
        text: &str,
    ) -> Result<Grammar, Refusal> {
        if served.tokenizer.is_none() {
            return Err(Refusal::NotOffered { what: "grammar".into() });
        }
        let (compilers, served, text) = (Arc::clone(self), served.clone(), text.to_owned());
        let compiled = tokio::task::spawn_blocking(move || {
            compilers.of(&served).and_then(|grammars| grammars.compile(&text))
        });
        let compiled = compiled.await;
        let compiled = compiled.map_err(|error| Refusal::Internal { reason: error.to_string() })?;
        compiled.map_err(|error| Refusal::Invalid { reason: error.to_string() })
    }

    /// The compiler of a model, made when first asked for.
    fn of(&self, served: &Served) -> Result<Arc<Grammars>, GrammarError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(grammars) = made.get(&served.id) {
            return Ok(Arc::clone(grammars));
        }
        let tokenizer = served.tokenizer.as_ref().ok_or(GrammarError::NoEnd)?;
        let grammars = Arc::new(Grammars::new(tokenizer, &served.eos)?);
        made.insert(served.id, Arc::clone(&grammars));
        Ok(grammars)
    }
}
