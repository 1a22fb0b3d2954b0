//! The ONNX models of this machine: found by file, id or name, imported, shown, and compared with answers.
//!
//! They lie among the other models, as packages of their own kind. Nothing that needs tensors of ours
//! (publishing, disputes, probes) knows them.

use std::fs;
use std::path::{Path, PathBuf};

use assay_engine::{Comparison, OnnxError, OnnxModel, OnnxOptions, OnnxPackage, OnnxSummary};
use assay_protocol::{Answer, ModelId};
use serde_json::{Value, json};

use crate::data::create_private;
use crate::failure::{Exit, Failure, Outcome};
use crate::library::Library;
use crate::machine::memory_available;
use crate::terminal::{bytes, grouped, say};

/// The ONNX model called `what`: a file `*.onnx` or a folder with `model.onnx`, a package, an id (or how
/// one begins), or a name. None where `what` is something else.
pub(crate) fn find(library: &Library, what: &str) -> Outcome<Option<OnnxPackage>> {
    let path = Path::new(what);
    if OnnxPackage::is_source(path) {
        return import(path, &OnnxOptions::default()).map(Some);
    }
    if path.exists() {
        return read(path);
    }
    match library.by_id(what)? {
        Some(kept) => read(&kept),
        None => by_name(library, what),
    }
}

/// The ONNX model that `answer` was ordered from, if it is one: `what`, or the one kept under the order's id.
pub(crate) fn ordered(
    library: &Library,
    what: Option<&str>,
    id: ModelId,
) -> Outcome<Option<OnnxPackage>> {
    match what {
        Some(what) => find(library, what),
        None => read(&library.path(id)),
    }
}

/// The package at `path`, if there is one of an ONNX model.
fn read(path: &Path) -> Outcome<Option<OnnxPackage>> {
    if !OnnxPackage::is_package(path) {
        return Ok(None);
    }
    fits(path)?;
    OnnxPackage::read(path).map(Some).map_err(|error| unusable(path, &error))
}

fn by_name(library: &Library, name: &str) -> Outcome<Option<OnnxPackage>> {
    let named = summaries(library).filter(|(_, model)| model.name() == name);
    let named: Vec<PathBuf> = named.map(|(path, _)| path).collect();
    let others = if named.is_empty() { 0 } else { library.count_named(name) };
    match (named.as_slice(), others) {
        ([], _) => Ok(None),
        ([path], 0) => read(path),
        (several, others) => {
            let count = several.len() + others;
            Err(Failure::new(Exit::Usage, format_args!("{count} models are called {name}"))
                .fix("give an id instead; `assay model ls` lists them"))
        }
    }
}

/// Whether an ONNX model is called `name`.
pub(crate) fn is_named(library: &Library, name: &str) -> bool {
    summaries(library).any(|(_, model)| model.name() == name)
}

/// What the readable ONNX models say of themselves.
pub(crate) fn summaries(library: &Library) -> impl Iterator<Item = (PathBuf, OnnxSummary)> {
    let peek = |path: PathBuf| OnnxPackage::peek(&path).ok().map(|summary| (path, summary));
    library.files().into_iter().filter_map(peek)
}

/// Reads a foreign file or folder, and tries it.
pub(crate) fn import(path: &Path, options: &OnnxOptions) -> Outcome<OnnxPackage> {
    OnnxPackage::import(path, options).map_err(|error| match error {
        OnnxError::Io { source, .. } => {
            Failure::file(format_args!("{} cannot be read", path.display()), &source)
        }
        error => Failure::new(
            Exit::Malformed,
            format_args!("{} cannot be imported", path.display()),
        )
        .why(error)
        .fix(
            "encoders of texts are read: model.onnx with all its numbers in it, tokenizer.json and \
             config.json in one folder",
        ),
    })
}

/// Stores a model under its id.
pub(crate) fn keep(library: &Library, package: &OnnxPackage) -> Outcome<PathBuf> {
    let path = library.path(package.id());
    if !path.exists() {
        path.parent().map_or(Ok(()), create_private)?;
        package.write(&path).map_err(|error| unusable(&path, &error))?;
    }
    Ok(path)
}

/// Makes a model ready to answer.
pub(crate) fn load(package: OnnxPackage, threads: usize) -> Outcome<OnnxModel> {
    let name = package.summary().name().to_owned();
    package.load(threads).map_err(|error| {
        Failure::new(Exit::Malformed, format_args!("model {name} cannot be used")).why(error)
    })
}

/// How an answer compares with what this machine computes.
pub(crate) fn compare(
    package: OnnxPackage,
    threads: usize,
    answer: &Answer,
) -> Outcome<Comparison> {
    load(package, threads)?.compare(answer).map_err(|error| match error {
        OnnxError::WrongModel { .. } => {
            Failure::new(Exit::NotFound, "this is not the model that was ordered")
                .why(error)
                .fix("pass the ordered model with --model; `assay model ls` lists ids")
        }
        error => Failure::new(Exit::Malformed, "the answer cannot be computed").why(error),
    })
}

/// Refuses a package that memory has no room for: its graph lies there twice while it is read.
fn fits(path: &Path) -> Outcome {
    let needed = 2 * fs::metadata(path).map_or(0, |file| file.len());
    match memory_available() {
        Some(free) if free < needed => {
            let what = format!("{} does not fit into memory", path.display());
            Err(Failure::new(Exit::Memory, what).why(format_args!(
                "it needs {}, {} free",
                bytes(needed),
                bytes(free)
            )))
        }
        _ => Ok(()),
    }
}

fn unusable(path: &Path, error: &OnnxError) -> Failure {
    if let OnnxError::Io { source, .. } = error {
        return Failure::file(format_args!("{} cannot be used", path.display()), source);
    }
    Failure::new(Exit::Malformed, format_args!("{} is not an ONNX model package", path.display()))
        .why(error)
        .fix("import the model again from its source: assay model import FOLDER")
}

/// What is said where a model is an ONNX model, and none is wanted.
pub(crate) fn unwanted(what: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, format_args!("{what} is an ONNX model"))
        .why("its graph is a foreign one: there are no tensors of exact-1 to work with")
        .fix("`assay up --model` serves it, `assay verify` compares its answers")
}

/// A model as JSON, but for the schema.
pub(crate) fn describe(model: &OnnxSummary) -> Value {
    json!({
        "id": model.id(),
        "name": model.name(),
        "family": "onnx",
        "makes": makes(model),
        "parameters": model.parameters(),
        "width": model.width(),
        "vocabulary": model.vocabulary(),
        "context": model.context(),
        "output": model.output(),
        "pooling": model.pooling(),
        "classes": model.classes(),
    })
}

/// What a model answers with.
pub(crate) fn makes(model: &OnnxSummary) -> &'static str {
    if model.classes().is_some() { "classes" } else { "vectors" }
}

/// A model as lines for people.
pub(crate) fn tell(model: &OnnxSummary, file: Option<&Path>) {
    say(model.id());
    let line = |name: &str, value: String| say(format_args!("  {name:<12}{value}"));
    line("name", model.name().to_owned());
    line("family", "onnx: a foreign graph, run by rten; its answers are scored".to_owned());
    line(
        "makes",
        match model.classes() {
            None => format!("vectors of {} numbers", model.width()),
            Some(classes) => format!("probabilities of {}", classes.labels.join(", ")),
        },
    );
    let pooling = serde_json::to_value(model.pooling()).unwrap_or_default();
    let pooling = pooling.as_str().unwrap_or_default();
    line("output", format!("{}, pooling: {pooling}", model.output()));
    line("parameters", grouped(model.parameters()));
    line("vocabulary", grouped(model.vocabulary() as u64));
    line("context", model.context().to_string());
    if let Some(file) = file {
        line("file", file.display().to_string());
    }
}
