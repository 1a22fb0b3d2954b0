//! Why an ONNX model is refused, or gives no vector.

use std::io;
use std::path::PathBuf;

use assay_protocol::ModelId;
use assay_text::TokenizerError;

/// Why an ONNX model is refused, or gives no vector.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A source lacks a file.
    #[error("there is no {what} with {path}")]
    Missing {
        /// The file, or what stands in one.
        what: &'static str,
        /// The source.
        path: PathBuf,
    },
    /// A part is longer than what is read.
    #[error("the {part} is {found} bytes long, at most {max} are read")]
    TooLong {
        /// Which part.
        part: &'static str,
        /// Its length.
        found: u64,
        /// The longest that is read.
        max: u64,
    },
    /// A file beside the graph, or the card of a package, does not parse.
    #[error("{part}: {reason}")]
    Json {
        /// Which part.
        part: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting has a value that is not supported.
    #[error("{what} is {found}, expected {expected}")]
    Value {
        /// Which setting.
        what: &'static str,
        /// Its value.
        found: String,
        /// What is supported.
        expected: &'static str,
    },
    /// The tokenizer is not one that this version reads.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Not a package of an ONNX model.
    #[error("not an ONNX model package: it does not begin with \"ASSAYO1\"")]
    Magic,
    /// A package ends early, or goes on.
    #[error("the file has {found} bytes, its parts take {expected}")]
    Length {
        /// Bytes in the file.
        found: u64,
        /// Bytes that its parts take.
        expected: u64,
    },
    /// A part does not hash to what the card says.
    #[error("the {what} does not match the card of model {id}: the file was altered")]
    Altered {
        /// Which part.
        what: &'static str,
        /// The model it claims to be.
        id: ModelId,
    },
    /// The graph's file breaks the rules of its encoding.
    #[error("not an ONNX file: byte {at}: {reason}")]
    Encoding {
        /// Where, in bytes from its start.
        at: usize,
        /// What is wrong there.
        reason: &'static str,
    },
    /// The graph has a part that is not run.
    #[error("the file has {what}, which are not supported")]
    Unsupported {
        /// Which part.
        what: &'static str,
    },
    /// A tensor's numbers are not in the file, so no id would commit to them.
    #[error("the numbers of tensor {tensor:?} lie in another file; save the model as one file")]
    External {
        /// Its name.
        tensor: String,
    },
    /// The graph wants what no text gives, or does not take tokens.
    #[error(
        "the graph's inputs are {found:?}, expected input_ids, with attention_mask and token_type_ids or without"
    )]
    Inputs {
        /// The names of its inputs.
        found: Vec<String>,
    },
    /// None of the graph's outputs is known to be a vector.
    #[error(
        "the graph's outputs are {found:?}, expected sentence_embedding, last_hidden_state or token_embeddings, of a classifier logits, or only one"
    )]
    Outputs {
        /// The names of its outputs.
        found: Vec<String>,
    },
    /// The runtime does not take the graph.
    #[error("rten does not run this graph: {reason}")]
    Graph {
        /// What it says.
        reason: String,
    },
    /// The runtime failed on a text.
    #[error("rten failed: {reason}")]
    Run {
        /// What it says.
        reason: String,
    },
    /// The runtime broke, which is a mistake of its own.
    #[error("rten broke down")]
    Broke,
    /// An output is not the vector, or the vectors, that are expected.
    #[error("the output has the shape {found:?}, expected {expected}")]
    Shape {
        /// Its shape.
        found: Vec<usize>,
        /// What was expected.
        expected: &'static str,
    },
    /// An output has another width than the model said of itself.
    #[error("the vector has {found} numbers, expected {expected}")]
    Width {
        /// Numbers that came.
        found: usize,
        /// Numbers expected.
        expected: usize,
    },
    /// An output is infinite, or no number.
    #[error("number {index} of the output is not finite")]
    NotFinite {
        /// Its place in the output.
        index: usize,
    },
    /// A longer context was asked for than the model has.
    #[error("a context of {asked} was asked for, the model has {found}")]
    Context {
        /// Positions asked for.
        asked: u32,
        /// Positions the model states.
        found: u32,
    },
    /// An answer was ordered from another model.
    #[error("the answer is by model {expected}, the model given is {found}")]
    WrongModel {
        /// Model at hand.
        found: ModelId,
        /// Model that the order names.
        expected: ModelId,
    },
}
