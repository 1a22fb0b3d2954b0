//! `assay model`: what models this machine has, and what they are made of.

use std::path::PathBuf;

use assay_engine::import::Options;
use assay_engine::{Package, Summary};
use assay_models::Family;
use assay_protocol::{B256, Manifest};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::data::DataArgument;
use crate::failure::{Exit, Failure, Outcome};
use crate::library::{self, Library};
use crate::machine::ThreadsArgument;
use crate::probe::Probe;
use crate::registry::{Publish, Terms};
use crate::source::VerifySource;
use crate::terminal::{bytes, grouped, note, say, say_json};

/// List, import, show, verify and publish models
#[derive(Args, Debug)]
pub(crate) struct Model {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the models of this machine
    Ls(List),
    /// Convert a model into the form that has an id
    Import(Import),
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
    /// A GGUF file, or a directory with config.json and safetensors
    source: PathBuf,
    /// What to call it [default: what its source says]
    #[arg(long)]
    name: Option<String>,
    /// Most positions, if fewer than the source has; another id
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Text to calibrate over instead of the built-in one; another id
    #[arg(long, value_name = "FILE")]
    calibration: Option<PathBuf>,
    /// Skip measuring how far the result is from its source
    #[arg(long)]
    no_accuracy: bool,
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

impl Model {
    pub(crate) fn run(self) -> Outcome {
        match self.verb {
            Verb::Ls(list) => list.run(),
            Verb::Import(import) => import.run(),
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
        for path in library.files() {
            match Package::peek(&path) {
                Ok(summary) => models.push((path, summary)),
                Err(error) => note(format_args!("{} is left out: {error}", path.display())),
            }
        }
        if self.json {
            let models: Vec<Value> = models.iter().map(|(_, model)| describe(model)).collect();
            say_json(&json!({ "schema": "assay.models/1", "models": models }));
            return Ok(());
        }
        if models.is_empty() {
            note("no models yet; `assay up` brings one, `assay model import FILE` adds others");
            return Ok(());
        }
        say(format_args!(
            "{:<24} {:<12} {:>14} {:>8}  FILE",
            "NAME", "ID", "PARAMETERS", "CONTEXT"
        ));
        for (path, model) in &models {
            let (id, manifest) = (model.id().to_string(), &model.manifest);
            say(format_args!(
                "{:<24} {:<12} {:>14} {:>8}  {}",
                model.name,
                &id[..12],
                grouped(parameters(manifest)),
                manifest.shape.context,
                path.display(),
            ));
        }
        Ok(())
    }
}

impl Import {
    fn run(self) -> Outcome {
        let calibration = self.calibration.as_ref().map(|path| {
            std::fs::read_to_string(path).map_err(|error| {
                Failure::file(format_args!("{} cannot be read", path.display()), &error)
            })
        });
        let options = Options {
            name: self.name.clone(),
            context: self.context,
            calibration: calibration.transpose()?,
            accuracy: !self.no_accuracy,
        };
        if !self.source.exists() {
            let what = format!("there is no {}", self.source.display());
            return Err(Failure::new(Exit::NotFound, what).fix("check the path"));
        }
        let (package, report) = library::import(&self.source, &options, &self.threads.cpu()?)?;
        let file = match self.output {
            Some(file) => {
                package.write(&file).map_err(|error| {
                    Failure::new(Exit::Failed, format_args!("{} cannot be written", file.display()))
                        .why(error)
                })?;
                file
            }
            None => {
                let library = Library::of(&self.data.resolve()?);
                let file = library.keep(&package)?;
                if self.source.is_file() && self.context.is_none() && self.calibration.is_none() {
                    library.remember(&package)?;
                }
                file
            }
        };
        let seconds = report.took.as_secs_f64();
        if self.json {
            let mut document = describe(package.summary());
            document["schema"] = "assay.import/1".into();
            document["file"] = json!(file);
            document["seconds"] = seconds.into();
            document["accuracy"] = report.accuracy.as_ref().map_or(Value::Null, |accuracy| {
                json!({
                    "kl": accuracy.kl,
                    "greedy_agreement": accuracy.greedy_agreement,
                    "positions": accuracy.positions,
                })
            });
            say_json(&document);
            return Ok(());
        }
        say(report.id);
        say(format_args!("  name        {}", package.name()));
        say(format_args!("  parameters  {}", grouped(report.parameters)));
        if let Some(accuracy) = &report.accuracy {
            say(format_args!(
                "  accuracy    KL {:.1e} from its source in f32, same best token at {:.1} % of {} positions",
                accuracy.kl,
                100.0 * accuracy.greedy_agreement,
                accuracy.positions,
            ));
        }
        say(format_args!("  file        {}, written in {seconds:.1} s", file.display()));
        Ok(())
    }
}

impl Named {
    fn find(&self) -> Outcome<Package> {
        Library::of(&self.data.resolve()?).find(&self.model, &self.threads.cpu()?)
    }

    fn show(self) -> Outcome {
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
                "{} for weights, {} a sequence at most",
                bytes(weights(manifest)),
                bytes(kv(&package))
            ),
        );
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
        "parameters": parameters(manifest),
        "layers": shape.layers,
        "width": shape.width,
        "vocabulary": shape.vocab,
        "context": shape.context,
        "weight_bytes": weights(manifest),
        "source": manifest.parts.source,
    })
}

fn family(code: u8) -> String {
    Family::from_code(code).map_or_else(|| format!("family {code}"), |family| family.to_string())
}

/// Numbers in all tensors; padding is not in a manifest's counts.
fn parameters(manifest: &Manifest) -> u64 {
    let tensors = manifest.tensors.iter();
    tensors.map(|tensor| u64::from(tensor.rows) * u64::from(tensor.columns)).sum()
}

/// Bytes of the weights in memory: a byte each, and two per group of 32.
fn weights(manifest: &Manifest) -> u64 {
    parameters(manifest) / 32 * 34
}

/// Bytes of keys and values of one sequence that fills the context.
fn kv(package: &Package) -> u64 {
    let shape = package.model().shape();
    shape.kv_bytes_per_position() as u64 * shape.context as u64
}
