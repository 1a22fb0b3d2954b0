//! An ONNX model that is ready to answer: a graph with its tokenizer.

use std::sync::Arc;

use assay_protocol::ModelId;
use assay_text::Tokenizer;

use super::card::Classes;
use super::error::OnnxError;
use super::graph::Graph;
use super::package::OnnxSummary;
use super::vector::{Pooling, probabilities, vector};

/// An ONNX model that is ready to answer.
pub struct OnnxModel {
    /// Its id.
    pub id: ModelId,
    /// What people call it; not part of the id.
    pub name: String,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Token ids that end an answer, ascending.
    pub eos: Vec<u32>,
    /// Most tokens of a text and its answer together.
    pub context: u32,
    /// What it tells apart, if it is a classifier: its vectors are probabilities then.
    pub classes: Option<Classes>,
    graph: Graph,
    pooling: Pooling,
    width: usize,
}

impl std::fmt::Debug for OnnxModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnnxModel")
            .field("name", &self.name)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl OnnxModel {
    /// Loads the graph and tries it on the first and the last token of the vocabulary, which shows whether
    /// the two fit together, and how wide the vectors are.
    pub(super) fn new(
        summary: &OnnxSummary,
        tokenizer: Arc<Tokenizer>,
        graph: Vec<u8>,
        threads: usize,
    ) -> Result<Self, OnnxError> {
        let graph = Graph::load(graph, summary.output(), threads)?;
        let mut eos = tokenizer.eos().to_vec();
        eos.sort_unstable();
        eos.dedup();
        let last = u32::try_from(tokenizer.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let (id, name, context) = (summary.id(), summary.name().to_owned(), summary.context());
        let (pooling, classes) = (summary.pooling(), summary.classes().cloned());
        let mut model =
            Self { id, name, tokenizer, eos, context, graph, pooling, classes, width: 0 };
        model.width = model.read(&[0, last])?.len();
        match model.classes.as_ref().map(|classes| classes.labels.len()) {
            Some(expected) if expected != model.width => {
                Err(OnnxError::Width { found: model.width, expected })
            }
            _ => Ok(model),
        }
    }

    /// Runs the graph, and reads what it gives.
    fn read(&self, tokens: &[u32]) -> Result<Vec<i32>, OnnxError> {
        let numbers = self.graph.run(tokens, 1)?;
        match &self.classes {
            Some(classes) => probabilities(classes.scores, &numbers),
            None => vector(self.pooling, &numbers),
        }
    }

    /// How many numbers the vector of a text has.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Token ids that it knows are below this.
    pub fn vocabulary(&self) -> u32 {
        u32::try_from(self.tokenizer.len()).unwrap_or(u32::MAX)
    }

    /// The one output token of an answer: the lowest that ends an answer, zero where there is none.
    pub fn vector_token(&self) -> u32 {
        self.eos.first().copied().unwrap_or(0)
    }

    /// The vector of a text in `Fx<30>`: (width), of length one, or all zeros; of a classifier, the
    /// probability of each class.
    ///
    /// The same tokens give the same bits on one machine. Another processor may round otherwise: nothing is
    /// promised across instruction sets.
    ///
    /// # Errors
    /// If the runtime fails, or gives another shape than at first, or numbers that are not finite.
    pub fn embed(&self, tokens: &[u32]) -> Result<Vec<i32>, OnnxError> {
        let vector = self.read(tokens)?;
        if vector.len() != self.width {
            return Err(OnnxError::Width { found: vector.len(), expected: self.width });
        }
        Ok(vector)
    }

    /// What the graph gives for several texts of one length together: for tests of what that changes.
    #[cfg(test)]
    pub(super) fn graph(&self) -> &Graph {
        &self.graph
    }
}
