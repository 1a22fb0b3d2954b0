//! Why a model could not be read.

use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::rope::RopeError;

/// Why a model could not be read. Files are foreign bytes, so every way in which they can be
/// wrong has a place here; `what` and `name` are the words of the file itself.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The disk failed, or the file is not there.
    #[error("reading {what} failed")]
    Io {
        /// File, or part of it.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The path holds nothing that is known here.
    #[error("{} is neither a gguf file nor a directory with a config.json", path.display())]
    NotAModel {
        /// The path that was opened.
        path: PathBuf,
    },
    /// The file is of another version of its format.
    #[error("gguf version {found}, expected {} or {}", expected.start(), expected.end())]
    Version {
        /// Version in the file.
        found: u32,
        /// Versions that can be read: the first and the last.
        expected: RangeInclusive<u32>,
    },
    /// The file ends, or a stated length says it should, before its content does.
    #[error("{what} needs {needed} bytes, {left} are left")]
    Truncated {
        /// What was being read.
        what: String,
        /// Bytes it takes.
        needed: u64,
        /// Bytes there are.
        left: u64,
    },
    /// A count or a length is beyond what any sound model needs.
    #[error("{what} is {found}, more than the {max} allowed")]
    TooMuch {
        /// The count or length.
        what: String,
        /// Its value; the largest `u64` where it does not fit one.
        found: u64,
        /// Its bound.
        max: u64,
    },
    /// A name that must be unique is not.
    #[error("{what} occurs twice")]
    Twice {
        /// The key or the tensor.
        what: String,
    },
    /// Text is not UTF-8.
    #[error("{what} is not utf-8")]
    NotText {
        /// Which text.
        what: String,
    },
    /// A JSON document does not parse or lacks a field.
    #[error("{what} is not the json expected")]
    Json {
        /// Which document.
        what: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A value is of another type than its key promises.
    #[error("{what} has type {found}, expected {expected}")]
    Type {
        /// The key.
        what: String,
        /// Type in the file.
        found: String,
        /// Type expected.
        expected: &'static str,
    },
    /// A value is of the right type but unusable or not supported.
    #[error("{what} is {found}, expected {expected}")]
    Value {
        /// The key.
        what: String,
        /// Value in the file.
        found: String,
        /// What would have been accepted.
        expected: String,
    },
    /// A key, a tensor or a file that every such model has is absent.
    #[error("{what} is missing")]
    Missing {
        /// Its name.
        what: String,
    },
    /// The model is of a family that has no graph here.
    #[error("model family {found:?} is not supported, expected one of {expected}")]
    Family {
        /// Family named by the file.
        found: String,
        /// Families there are.
        expected: String,
    },
    /// A tensor is stored in a format that is not read here.
    #[error(
        "tensor {name} has type {found}, expected f32, f16, bf16, q4_0, q4_1, \
             q5_0, q5_1, q8_0, q2_k to q6_k, iq4_nl or mxfp4"
    )]
    Kind {
        /// The tensor.
        name: String,
        /// Its type as the file states it.
        found: String,
    },
    /// A tensor's sizes are not those that the model's hyperparameters demand.
    #[error("tensor {name} has sizes {found:?}, expected {expected:?}")]
    Extent {
        /// The tensor.
        name: String,
        /// Sizes in the file, outermost first.
        found: Vec<u64>,
        /// Sizes expected, outermost first.
        expected: Vec<u64>,
    },
    /// Rows of a tensor do not divide into the blocks of its format.
    #[error("tensor {name} has rows of {found} elements, not a multiple of {block}")]
    Block {
        /// The tensor.
        name: String,
        /// Elements per row.
        found: u64,
        /// Elements per block.
        block: u64,
    },
    /// A tensor does not lie where the format allows one to lie: not aligned, over another
    /// tensor, or leaving a gap where none may be.
    #[error("tensor {name} lies at {found}, expected {expected}")]
    Place {
        /// The tensor.
        name: String,
        /// Its offset in bytes.
        found: u64,
        /// Where it might have been.
        expected: String,
    },
    /// A tensor that the family's graph has no use for. Ignoring it would compute another model
    /// than the one that was published.
    #[error("tensor {name} has no place in a {family} model")]
    UnknownTensor {
        /// The tensor.
        name: String,
        /// The family.
        family: &'static str,
    },
    /// A hyperparameter that the family's graph has no use for; see [`LoadError::UnknownTensor`].
    #[error("hyperparameter {key} with value {found} is not supported")]
    UnknownKey {
        /// The key.
        key: String,
        /// Its value.
        found: String,
    },
    /// The rope parameters are outside the range of the tables.
    #[error("rope parameters are not usable")]
    Rope(#[from] RopeError),
}
