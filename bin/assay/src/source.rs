//! `assay model verify-source`: whether a model is what its source gives.
//!
//! Conversion is deterministic, so it is simply done again; where the result differs, the first difference is named.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use assay_engine::import::Options;
use assay_engine::{Package, Trees};
use assay_evidence::dispute::ModelTrees;
use assay_protocol::Manifest;
use clap::Args;
use serde_json::json;

use crate::data::DataArgument;
use crate::failure::{Exit, Failure, Outcome};
use crate::library::{self, Library};
use crate::machine::ThreadsArgument;
use crate::terminal::{say, say_json};

/// Convert a model's source again, and compare
///
/// Prints `true`, or names the first thing that differs and exits with 10.
#[derive(Args, Debug)]
pub(crate) struct VerifySource {
    /// The model: a file, an id or a name
    model: String,
    /// What it is said to be made of: a GGUF file, or a directory with config.json and safetensors
    source: PathBuf,
    /// Text that it was calibrated over, if not the built-in one
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgument,
    #[command(flatten)]
    threads: ThreadsArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// The first thing in which two models differ.
#[derive(Debug, PartialEq, Eq)]
enum Difference {
    /// A part of the manifest.
    Part(&'static str),
    /// A tensor, and the first of its rows that differs.
    Tensor { tensor: String, row: u64 },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Part(part) => write!(f, "its {part} is another"),
            Self::Tensor { tensor, row } => {
                write!(f, "the first tensor that differs is {tensor}, in row {row}")
            }
        }
    }
}

impl VerifySource {
    pub(crate) fn run(self) -> Outcome {
        let cpu = self.threads.cpu()?;
        let package = Library::of(&self.data.resolve()?).find(&self.model, &cpu)?;
        let calibration = self.calibration.as_ref().map(|path| {
            std::fs::read_to_string(path).map_err(|error| {
                Failure::file(format_args!("{} cannot be read", path.display()), &error)
            })
        });
        if !self.source.exists() {
            let what = format!("there is no {}", self.source.display());
            return Err(Failure::new(Exit::NotFound, what).fix("check the path"));
        }
        let options = Options {
            name: Some(package.name().to_owned()),
            context: usize::try_from(package.manifest().shape.context).ok(),
            calibration: calibration.transpose()?,
            weights: package.model().format(),
            accuracy: false,
        };
        let (again, _) = library::import(&self.source, &options, &cpu)?;
        let (id, found) = (package.id(), again.id());
        let difference = if id == found { None } else { Some(first_difference(package, again)?) };
        if self.json {
            say_json(&json!({
                "schema": "assay.model-verify-source/1",
                "id": id,
                "found": found,
                "verdict": difference.is_none(),
                "difference": difference.as_ref().map(ToString::to_string),
            }));
        }
        if let Some(difference) = difference {
            let what = format!("{} does not give model {id}", self.source.display());
            let failure =
                Failure::new(Exit::False, what).why(format_args!("it gives {found}: {difference}"));
            return Err(match difference {
                Difference::Part("calibration") => {
                    failure.fix("pass the text that it was calibrated over: --calibration FILE")
                }
                _ => failure,
            });
        }
        if !self.json {
            say("true");
            say(format_args!("  {} gives {id}, bit for bit", self.source.display()));
        }
        Ok(())
    }
}

/// Where two models of different ids part.
fn first_difference(expected: Package, found: Package) -> Outcome<Difference> {
    if let Some(part) = first_part(expected.manifest(), found.manifest()) {
        return Ok(Difference::Part(part));
    }
    let roles = expected.model().shape().roles();
    let (expected, found) = (trees(expected)?, trees(found)?);
    let Some(leaf) = first_leaf(&expected, &found) else {
        return Ok(Difference::Part("weights' root"));
    };
    let tensors = expected.tensors();
    let index = tensors.partition_point(|tensor| tensor.leaf <= leaf).saturating_sub(1);
    let next = tensors.get(index + 1).map_or(expected.weight_leaves(), |tensor| tensor.leaf);
    let tensor = &tensors[index];
    let row_leaves = ((next - tensor.leaf) / u64::from(tensor.rows).max(1)).max(1);
    let name = roles.get(index).map_or_else(|| format!("number {index}"), ToString::to_string);
    Ok(Difference::Tensor { tensor: name, row: (leaf - tensor.leaf) / row_leaves })
}

/// The first part of the manifests that differs, but for the weights.
fn first_part(expected: &Manifest, found: &Manifest) -> Option<&'static str> {
    let (one, other) = (&expected.parts, &found.parts);
    let parts = [
        ("source", one.source == other.source),
        ("family", expected.family == found.family),
        ("shape", expected.shape == found.shape && expected.tensors == found.tensors),
        ("calibration", one.calibration == other.calibration),
        ("tokenizer", one.tokenizer == other.tokenizer),
        ("template", one.template == other.template),
        ("program", one.program == other.program),
        ("RoPE table", one.rope == other.rope),
        ("list of end tokens", expected.eos == found.eos),
    ];
    let weights = one.weights != other.weights;
    let first = parts.into_iter().find(|(_, same)| !same).map(|(part, _)| part);
    match first {
        // Another source with the very same numbers is worth naming; else the weights say more.
        Some("source") if weights && expected.tensors == found.tensors => None,
        Some(part) => Some(part),
        None if weights => None,
        None => Some("arithmetic"),
    }
}

fn trees(package: Package) -> Outcome<Trees> {
    let name = package.name().to_owned();
    let loaded = package.load().map_err(|error| {
        Failure::new(Exit::Malformed, format_args!("model {name} cannot be used")).why(error)
    })?;
    Ok(Trees::new(Arc::new(loaded)))
}

/// The leftmost leaf of the weights in which two trees of one form differ: down from the root, a level at a time.
fn first_leaf(expected: &Trees, found: &Trees) -> Option<u64> {
    let leaves = expected.weight_leaves();
    let mut first = 0;
    for level in (0..assay_protocol::depth(leaves)).rev() {
        // A node's hash stands in the proof of what is below its sibling.
        let beside = first + (1 << level);
        if beside >= leaves {
            continue;
        }
        let left = |trees: &Trees| trees.weights(beside, 1).get(level as usize).copied();
        if left(expected) == left(found) {
            first = beside;
        }
    }
    let differs = expected.weight(first)?.data != found.weight(first)?.data;
    differs.then_some(first)
}
