//! `assay model`: what models this machine has, and what they are made of.

use std::path::{Path, PathBuf};

use assay_engine::import::{Options, Report};
use assay_engine::{OnnxOptions, OnnxPackage, Package, Summary};
use assay_kernels::Format;
use assay_models::Family;
use assay_protocol::{B256, Manifest, ModelId, Tensor, TensorKind};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::data::DataArgument;
use crate::failure::{Exit, Failure, Outcome};
use crate::fit::Fit;
use crate::hub::pull::Pull;
use crate::library::{self, Library};
use crate::machine::{ThreadsArgument, memory_available};
use crate::onnx;
use crate::probe::Probe;
use crate::registry::{Publish, Terms};
use crate::source::VerifySource;
use crate::terminal::{bytes, grouped, note, say, say_json};

/// List, fetch, import, show, verify and publish models
#[derive(Args, Debug)]
pub(crate) struct Model {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the models of this machine
    Ls(List),
    Pull(Pull),
    /// Convert a model into the form that has an id
    Import(Import),
    /// Convert a model into numbers of four bits: `import` with `--weights w4`
    Quantize(Import),
    /// Show what a model is made of
    Show(Named),
    /// Compute everything that a model's id commits to again
    Verify(Named),
    VerifySource(VerifySource),
    Publish(Publish),
    Terms(Terms),
    Probe(Probe),
}

#[derive(Args, Debug)]
struct List {
    #[command(flatten)]
    data: DataArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Named {
    /// The model: a file, an id (or its first digits, with 0x) or a name
    model: String,
    #[command(flatten)]
    data: DataArgument,
    #[command(flatten)]
    threads: ThreadsArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Import {
    /// A GGUF file, or a directory with config.json and safetensors; or an ONNX model that makes vectors of
    /// texts, a file or its directory, which is kept as it is
    source: PathBuf,
    #[command(flatten)]
    import: ImportArgument,
    /// Where to write it [default: the data directory]
    #[arg(long, short, value_name = "FILE.assay")]
    output: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgument,
    #[command(flatten)]
    threads: ThreadsArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// How a source becomes a model.
#[derive(Args, Debug)]
pub(crate) struct ImportArgument {
    /// What to call it [default: what its source says]
    #[arg(long)]
    name: Option<String>,
    /// Most positions, if fewer than the source has; another id
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Text to calibrate over instead of the built-in one; another id
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// How many bits the weights of the layers get; another id [default: w8, of `quantize` w4]
    #[arg(long, value_enum)]
    weights: Option<Bits>,
    /// Skip measuring how far the result is from its source
    #[arg(long)]
    no_accuracy: bool,
}

impl ImportArgument {
    /// As the importer takes them.
    pub(crate) fn options(&self) -> Outcome<Options> {
        let calibration = self.calibration.as_ref().map(|path| {
            std::fs::read_to_string(path).map_err(|error| {
                Failure::file(format_args!("{} cannot be read", path.display()), &error)
            })
        });
        Ok(Options {
            name: self.name.clone(),
            context: self.context,
            calibration: calibration.transpose()?,
            weights: match self.weights {
                Some(Bits::W4) => Format::W4,
                Some(Bits::W8) | None => Format::W8,
            },
            accuracy: !self.no_accuracy,
        })
    }

    /// The same for a model that is not converted.
    fn onnx_options(&self) -> Outcome<OnnxOptions> {
        if self.calibration.is_some() || self.weights.is_some() {
            let what = "an ONNX model is kept as it is";
            return Err(Failure::new(Exit::Usage, what)
                .why("--calibration and --weights are for models that are converted")
                .fix("leave them out"));
        }
        let context = self.context.map(|context| u32::try_from(context).unwrap_or(u32::MAX));
        Ok(OnnxOptions { name: self.name.clone(), context })
    }

    /// Whether the source alone decides the model's id.
    pub(crate) fn is_default(&self) -> bool {
        let is_w4 = matches!(self.weights, Some(Bits::W4));
        self.context.is_none() && self.calibration.is_none() && !is_w4
    }
}

/// Bits of a weight.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Bits {
    /// Eight: answers can be replayed, those of llama models also disputed
    W8,
    /// Four: about half the memory, more tokens a second, less accurate; answers can be replayed, but
    /// no judge knows them, so they are offered as scored
    W4,
}

impl Model {
    pub(crate) fn run(self) -> Outcome {
        match self.verb {
            Verb::Ls(list) => list.run(),
            Verb::Pull(pull) => pull.run(),
            Verb::Import(import) => import.run(),
            Verb::Quantize(mut import) => {
                import.import.weights.get_or_insert(Bits::W4);
                import.run()
            }
            Verb::Show(named) => named.show(),
            Verb::Verify(named) => named.verify(),
            Verb::VerifySource(verify) => verify.run(),
            Verb::Publish(publish) => crate::wait(publish.run()),
            Verb::Terms(terms) => crate::wait(terms.run()),
            Verb::Probe(probe) => crate::wait(probe.run()),
        }
    }
}

impl List {
    fn run(self) -> Outcome {
        let library = Library::of(&self.data.resolve()?);
        let mut models = Vec::new();
        let graphs: Vec<_> = onnx::summaries(&library).collect();
        for path in library.files() {
            match Package::peek(&path) {
                Err(_) if OnnxPackage::is_package(&path) => {}
                Ok(summary) => models.push((path, summary)),
                Err(error) => note(format_args!("{} is left out: {error}", path.display())),
            }
        }
        if self.json {
            let graphs = graphs.iter().map(|(_, model)| onnx::describe(model));
            let models = models.iter().map(|(_, model)| describe(model));
            let models: Vec<Value> = models.chain(graphs).collect();
            say_json(&json!({ "schema": "assay.models/1", "models": models }));
            return Ok(());
        }
        if models.is_empty() && graphs.is_empty() {
            note(
                "no models yet; `assay up` brings one, `assay model pull ORG/NAME` and `assay model import FILE` add others",
            );
            return Ok(());
        }
        say(format_args!(
            "{:<24} {:<12} {:>14} {:>8}  {:<7}  FILE",
            "NAME", "ID", "PARAMETERS", "CONTEXT", "MAKES"
        ));
        let row = |name: &str, id: ModelId, parameters, context, makes, path: &Path| {
            say(format_args!(
                "{name:<24} {:<12} {:>14} {context:>8}  {makes:<7}  {}",
                &id.to_string()[..12],
                grouped(parameters),
                path.display(),
            ));
        };
        for (path, model) in &models {
            let context = model.manifest.shape.context;
            row(&model.name, model.id(), parameters(&model.manifest), context, makes(model), path);
        }
        for (path, model) in &graphs {
            let (id, context) = (model.id(), model.context());
            row(model.name(), id, model.parameters(), context, onnx::makes(model), path);
        }
        Ok(())
    }
}

impl Import {
    fn run(self) -> Outcome {
        if !self.source.exists() {
            let what = format!("there is no {}", self.source.display());
            return Err(Failure::new(Exit::NotFound, what).fix("check the path"));
        }
        if OnnxPackage::is_source(&self.source) {
            return self.run_onnx();
        }
        let options = self.import.options()?;
        let (package, report) = library::import(&self.source, &options, &self.threads.cpu()?)?;
        let file = match self.output {
            Some(file) => {
                package.write(&file).map_err(|error| unwritten(&file, &error))?;
                file
            }
            None => {
                let library = Library::of(&self.data.resolve()?);
                let file = library.keep(&package)?;
                if self.source.is_file() && self.import.is_default() {
                    library.remember(&package)?;
                }
                file
            }
        };
        if self.json {
            let mut document = describe_import(&package, Some(&report), &file);
            document["schema"] = "assay.import/1".into();
            say_json(&document);
        } else {
            tell_import(&package, Some(&report), &file);
        }
        Ok(())
    }

    /// Keeps an ONNX model as one file.
    fn run_onnx(self) -> Outcome {
        let package = onnx::import(&self.source, &self.import.onnx_options()?)?;
        let file = match self.output {
            Some(file) => {
                package.write(&file).map_err(|error| unwritten(&file, &error))?;
                file
            }
            None => onnx::keep(&Library::of(&self.data.resolve()?), &package)?,
        };
        if self.json {
            let mut document = onnx::describe(package.summary());
            document["file"] = json!(file);
            document["schema"] = "assay.import/1".into();
            say_json(&document);
        } else {
            onnx::tell(package.summary(), Some(&file));
        }
        Ok(())
    }
}

fn unwritten(file: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, format_args!("{} cannot be written", file.display())).why(error)
}

/// An imported model as JSON, but for the schema; without a report if it was there before.
pub(crate) fn describe_import(package: &Package, report: Option<&Report>, file: &Path) -> Value {
    let mut document = describe(package.summary());
    document["file"] = json!(file);
    document["seconds"] = report.map(|report| report.took.as_secs_f64()).into();
    let accuracy = report.and_then(|report| report.accuracy.as_ref());
    document["accuracy"] = accuracy.map_or(Value::Null, |accuracy| {
        json!({
            "kl": accuracy.kl,
            "greedy_agreement": accuracy.greedy_agreement,
            "positions": accuracy.positions,
        })
    });
    let nearness = report.and_then(|report| report.nearness);
    document["nearness"] = nearness.map_or(
        Value::Null,
        |nearness| json!({ "cosine_min": nearness.cosine_min, "texts": nearness.texts }),
    );
    document
}

/// An imported model as lines for people.
pub(crate) fn tell_import(package: &Package, report: Option<&Report>, file: &Path) {
    say(package.id());
    say(format_args!("  name        {}", package.name()));
    say(format_args!("  parameters  {}", grouped(parameters(package.manifest()))));
    if let Some(accuracy) = report.and_then(|report| report.accuracy.as_ref()) {
        say(format_args!(
            "  accuracy    KL {:.1e} from its source in f32, same best token at {:.1} % of {} positions",
            accuracy.kl,
            100.0 * accuracy.greedy_agreement,
            accuracy.positions,
        ));
    }
    if let Some(nearness) = report.and_then(|report| report.nearness) {
        say(format_args!(
            "  accuracy    cosine of at least {:.6} with its source's vectors in f32, over {} texts",
            nearness.cosine_min, nearness.texts,
        ));
    }
    match report.map(|report| report.took.as_secs_f64()) {
        Some(seconds) => {
            say(format_args!("  file        {}, written in {seconds:.1} s", file.display()));
        }
        None => say(format_args!("  file        {}", file.display())),
    }
}

impl Named {
    fn find(&self) -> Outcome<Package> {
        Library::of(&self.data.resolve()?).find(&self.model, &self.threads.cpu()?)
    }

    fn find_onnx(&self) -> Outcome<Option<OnnxPackage>> {
        onnx::find(&Library::of(&self.data.resolve()?), &self.model)
    }

    fn show(self) -> Outcome {
        if let Some(package) = self.find_onnx()? {
            if self.json {
                let mut document = onnx::describe(package.summary());
                document["schema"] = "assay.model/1".into();
                say_json(&document);
            } else {
                onnx::tell(package.summary(), None);
            }
            return Ok(());
        }
        let package = self.find()?;
        if self.json {
            let mut document = describe(package.summary());
            document["schema"] = "assay.model/1".into();
            say_json(&document);
            return Ok(());
        }
        let (manifest, shape) = (package.manifest(), &package.manifest().shape);
        say(package.id());
        let line = |name: &str, value: String| say(format_args!("  {name:<12}{value}"));
        line("name", package.name().to_owned());
        line("licence", package.summary().licence.as_deref().unwrap_or("not stated").to_owned());
        line("family", family(manifest.family));
        line("makes", makes(package.summary()).to_owned());
        line("parameters", grouped(parameters(manifest)));
        line(
            "layers",
            format!("{} of width {}, hidden {}", shape.layers, shape.width, shape.hidden),
        );
        line(
            "heads",
            format!("{} of {}, {} for keys and values", shape.heads, shape.headDim, shape.kvHeads),
        );
        line("vocabulary", grouped(shape.vocab.into()));
        line("context", shape.context.to_string());
        line(
            "memory",
            format!(
                "{} for weights ({}), {} a sequence at most",
                bytes(weights(manifest)),
                weight_format(manifest),
                bytes(kv(&package))
            ),
        );
        if let Some(free) = memory_available() {
            line("fit", fit(package.summary()).told(free));
        }
        let parts = &manifest.parts;
        for (name, hash) in [
            ("weights", parts.weights),
            ("program", parts.program),
            ("rope", parts.rope),
            ("tokenizer", parts.tokenizer),
            ("template", parts.template),
            ("source", parts.source),
            ("calibration", parts.calibration),
        ] {
            let none = hash == B256::ZERO;
            line(name, if none { "none".into() } else { hash.to_string() });
        }
        Ok(())
    }

    fn verify(self) -> Outcome {
        // Reading such a package compares every part of it with its id.
        if let Some(package) = self.find_onnx()? {
            let summary = package.summary();
            if self.json {
                let mut document = onnx::describe(summary);
                document["schema"] = "assay.model-verify/1".into();
                document["verdict"] = true.into();
                say_json(&document);
            } else {
                say("true");
                let (name, id) = (summary.name(), summary.id());
                say(format_args!("  graph and tokenizer of {name} hash to {id}"));
            }
            return Ok(());
        }
        let package = self.find()?;
        library::verify(&package)?;
        if self.json {
            let mut document = describe(package.summary());
            document["schema"] = "assay.model-verify/1".into();
            document["verdict"] = true.into();
            say_json(&document);
        } else {
            say("true");
            say(format_args!("  every tensor of {} hashes to {}", package.name(), package.id()));
        }
        Ok(())
    }
}

fn describe(model: &Summary) -> Value {
    let (manifest, shape) = (&model.manifest, &model.manifest.shape);
    json!({
        "id": model.id(),
        "name": model.name,
        "licence": model.licence,
        "family": family(manifest.family),
        "makes": makes(model),
        "parameters": parameters(manifest),
        "layers": shape.layers,
        "width": shape.width,
        "vocabulary": shape.vocab,
        "context": shape.context,
        "weights": weight_format(manifest).to_string(),
        "weight_bytes": weights(manifest),
        "memory": fit(model).json(memory_available()),
        "source": manifest.parts.source,
    })
}

/// What a model answers with.
fn makes(model: &Summary) -> &'static str {
    if model.makes_vectors() { "vectors" } else { "text" }
}

fn family(code: u8) -> String {
    Family::from_code(code).map_or_else(|| format!("family {code}"), |family| family.to_string())
}

/// Numbers in all tensors; padding is not in a manifest's counts.
fn parameters(manifest: &Manifest) -> u64 {
    let tensors = manifest.tensors.iter();
    tensors.map(|tensor| u64::from(tensor.rows) * u64::from(tensor.columns)).sum()
}

/// Bytes of the weights in memory: one each, or a half, and two per group of 32.
fn weights(manifest: &Manifest) -> u64 {
    let bytes = |tensor: &Tensor| {
        let numbers = u64::from(tensor.rows) * u64::from(tensor.columns);
        numbers / 32 * if is_four_bits(tensor) { 18 } else { 34 }
    };
    manifest.tensors.iter().map(bytes).sum()
}

/// The format of most of the weights.
fn weight_format(manifest: &Manifest) -> Format {
    // Tables of tokens may have another; all layers have the same.
    if manifest.tensors.iter().any(is_four_bits) { Format::W4 } else { Format::W8 }
}

fn is_four_bits(tensor: &Tensor) -> bool {
    tensor.kind == TensorKind::W4 as u8
}

/// What the model takes in memory, as far as a manifest tells: weights, without the vocabulary.
fn fit(model: &Summary) -> Fit {
    Fit::of(model, weights(&model.manifest))
}

/// Bytes of keys and values of one sequence that fills the context.
fn kv(package: &Package) -> u64 {
    let shape = package.model().shape();
    shape.kv_bytes_per_position() as u64 * shape.context as u64
}
