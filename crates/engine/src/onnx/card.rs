//! What an ONNX model's id commits to: a short text that names every byte that decides its vectors.
//!
//! A manifest (`assay_protocol::Manifest`) describes exact-1, and this is none: an id of a card never is one of
//! a manifest. `docs/protocol/onnx.md` has the rules.

use assay_protocol::{B256, ModelId, keccak256};
use serde::{Deserialize, Serialize};

use super::error::OnnxError;
use super::vector::{Pooling, Scores};

/// The format's name and version.
const SCHEMA: &str = "assay.onnx/1";

/// What the id of a model commits to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Card {
    schema: String,
    /// keccak256 of the graph's file.
    pub(super) graph: B256,
    /// keccak256 of the tokenizer in canonical form.
    pub(super) tokenizer: B256,
    /// The output of the graph that is read.
    pub(super) output: String,
    pub(super) pooling: Pooling,
    /// Most tokens of a text and its answer together.
    pub(super) context: u32,
    /// What the numbers stand for, of a classifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) classes: Option<Classes>,
}

/// What a classifier tells apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Classes {
    /// Their names, in the order of its outputs.
    pub labels: Vec<String>,
    /// How its outputs become probabilities.
    pub scores: Scores,
}

impl Card {
    pub(super) fn new(
        graph: &[u8],
        tokenizer: &[u8],
        output: String,
        pooling: Pooling,
        context: u32,
    ) -> Self {
        let (graph, tokenizer) = (keccak256(graph), keccak256(tokenizer));
        Self {
            schema: SCHEMA.to_owned(),
            graph,
            tokenizer,
            output,
            pooling,
            context,
            classes: None,
        }
    }

    /// The canonical text: JSON without white space, in the order above.
    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a card holds what JSON can say")
    }

    /// Reads the canonical text.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, OnnxError> {
        let wrong = |reason: String| OnnxError::Json { part: "the card", reason };
        let card: Self = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        if card.schema != SCHEMA {
            return Err(wrong(format!("schema is {:?}, expected {SCHEMA:?}", card.schema)));
        }
        if card.context < 2 {
            return Err(wrong(format!("a context of {} holds no text", card.context)));
        }
        if card.encode() != bytes {
            return Err(wrong("it is not written canonically".to_owned()));
        }
        Ok(card)
    }

    /// The model's name by content.
    pub(super) fn id(&self) -> ModelId {
        ModelId(keccak256(self.encode()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_the_same_text_everywhere() {
        let card = Card::new(b"graph", b"tokenizer", "out".to_owned(), Pooling::Mean, 128);
        let (graph, tokenizer) = (keccak256(b"graph"), keccak256(b"tokenizer"));
        let text = format!(
            "{{\"schema\":\"assay.onnx/1\",\"graph\":\"{graph}\",\"tokenizer\":\"{tokenizer}\",\
             \"output\":\"out\",\"pooling\":\"mean\",\"context\":128}}"
        );
        assert_eq!(String::from_utf8(card.encode()).unwrap(), text);
        assert_eq!(card.id(), ModelId(keccak256(text)));
        assert_eq!(Card::decode(&card.encode()).unwrap(), card);
    }

    #[test]
    fn another_text_is_no_card() {
        let card = Card::new(b"graph", b"tokenizer", "out".to_owned(), Pooling::First, 128);
        let text = String::from_utf8(card.encode()).unwrap();
        let check = |text: String, expected: &str| {
            let said = Card::decode(text.as_bytes()).unwrap_err().to_string();
            assert!(said.contains(expected), "{said}");
        };
        check(text.replace("\"first\"", "\"last\""), "unknown variant");
        check(text.replace("onnx/1", "onnx/2"), "expected \"assay.onnx/1\"");
        check(text.replace(':', ": "), "canonically");
        check(text.replace(":128", ":1"), "holds no text");
        check(text.replace("}", ",\"more\":1}"), "unknown field");
        check(text.replace(",\"context\":128", ""), "missing field");
    }
}
