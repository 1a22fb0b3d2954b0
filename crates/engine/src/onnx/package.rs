//! An ONNX model as one file, with all that its id commits to, and how a foreign folder becomes one.
//!
//! ```text
//! "ASSAYO1\n"
//! facts · card · tokenizer · graph      each: u64 length (little-endian), bytes
//! ```
//! The card names tokenizer and graph by their hashes, so the id is known from the first bytes, and reading
//! compares the rest. The facts are what lists tell of a model; nothing depends on them. The graph is the
//! file of its publisher, byte for byte: floats that nobody has turned into integers.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use assay_protocol::{ModelId, keccak256};
use assay_text::Tokenizer;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::card::{Card, Classes};
use super::error::OnnxError;
use super::model::OnnxModel;
use super::survey::survey;
use super::vector::{Pooling, Scores};

const MAGIC: &[u8; 8] = b"ASSAYO1\n";
/// Longest card, or list of facts.
const TEXT_MAX: u64 = 1 << 20;
/// Longest tokenizer, or settings beside a graph.
const PART_MAX: u64 = 256 << 20;
/// Longest graph: what the format can hold in one file.
const GRAPH_MAX: u64 = 2 << 30;
/// Outputs that are known to be a vector, or one for each token; those named first are wanted more.
const OUTPUTS: [&str; 3] = ["sentence_embedding", "last_hidden_state", "token_embeddings"];

/// Most classes of a classifier.
const CLASSES_MAX: usize = 1 << 12;

/// What an importer may choose.
#[derive(Clone, Debug, Default)]
pub struct OnnxOptions {
    /// What to call the model, if not after the folder that it lies in.
    pub name: Option<String>,
    /// Most tokens, if fewer than its settings state: another model id.
    pub context: Option<u32>,
}

/// What is told of a model, beside its card.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Facts {
    name: String,
    /// Numbers of a vector.
    width: usize,
    /// Tokens of its tokenizer.
    vocabulary: usize,
    /// Numbers in its tensors.
    parameters: u64,
}

/// What a package says of itself before its graph: enough to list and to find models.
#[derive(Clone, Debug)]
pub struct OnnxSummary {
    facts: Facts,
    card: Card,
}

impl OnnxSummary {
    /// The model's name by content.
    pub fn id(&self) -> ModelId {
        self.card.id()
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// Numbers of a vector.
    pub fn width(&self) -> usize {
        self.facts.width
    }

    /// Tokens that its tokenizer has.
    pub fn vocabulary(&self) -> usize {
        self.facts.vocabulary
    }

    /// Numbers in its tensors.
    pub fn parameters(&self) -> u64 {
        self.facts.parameters
    }

    /// Most tokens of a text and its answer together.
    pub fn context(&self) -> u32 {
        self.card.context
    }

    /// How the vectors of a text's tokens become one.
    pub fn pooling(&self) -> Pooling {
        self.card.pooling
    }

    /// What it tells apart, if it is a classifier.
    pub fn classes(&self) -> Option<&Classes> {
        self.card.classes.as_ref()
    }

    /// The output of the graph that is read.
    pub fn output(&self) -> &str {
        &self.card.output
    }
}

/// An ONNX model with all that its id commits to.
pub struct OnnxPackage {
    summary: OnnxSummary,
    tokenizer: Vec<u8>,
    graph: Vec<u8>,
}

impl std::fmt::Debug for OnnxPackage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnnxPackage").field("summary", &self.summary).finish_non_exhaustive()
    }
}

/// Where the parts of a source lie.
struct Place {
    graph: PathBuf,
    /// The folder with the tokenizer and the settings.
    folder: PathBuf,
}

impl Place {
    /// The parts of a source: a file `*.onnx`, whose folder or the one around it has the rest; or a folder
    /// with `model.onnx`, or `onnx/model.onnx`, and without safetensors, which say the same more exactly.
    fn of(path: &Path) -> Option<Self> {
        if path.is_dir() {
            let inner = ["model.onnx", "onnx/model.onnx"].map(|file| path.join(file));
            let graph = inner.into_iter().find(|file| file.is_file())?;
            let mut others = path.read_dir().ok()?.filter_map(Result::ok);
            let is_exact =
                others.any(|it| it.path().extension().is_some_and(|end| end == "safetensors"));
            return (!is_exact).then(|| Self { graph, folder: path.to_owned() });
        }
        let is_graph = path.extension().is_some_and(|end| end == "onnx");
        let near = if is_graph { path.parent()? } else { return None };
        let around = near.join("..");
        let has_tokenizer = |folder: &Path| folder.join("tokenizer.json").is_file();
        let folder = if !has_tokenizer(near) && has_tokenizer(&around) { &around } else { near };
        Some(Self { graph: path.to_owned(), folder: folder.to_owned() })
    }

    /// What the model is called after: its folder, or its file.
    fn name(&self) -> String {
        let folder = self.folder.canonicalize().ok();
        let folder = folder.as_deref().and_then(Path::file_name);
        let name = folder.or(self.graph.file_stem()).unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// A file of settings, if there is one.
    fn settings(&self, file: &'static str) -> Result<Option<Value>, OnnxError> {
        let path = self.folder.join(file);
        if !path.is_file() {
            return Ok(None);
        }
        let bytes = read(&path, file, PART_MAX)?;
        let value = serde_json::from_slice(&bytes);
        value.map(Some).map_err(|error| OnnxError::Json { part: file, reason: error.to_string() })
    }

    /// Most tokens, as the model's settings have it. Some families count positions from behind the number of
    /// the token that pads, and have so many fewer.
    fn context(&self) -> Result<u32, OnnxError> {
        let what = "max_position_embeddings in a config.json";
        let missing = || OnnxError::Missing { what, path: self.graph.clone() };
        let config = self.settings("config.json")?.ok_or_else(missing)?;
        let found = &config["max_position_embeddings"];
        let kind = config["model_type"].as_str().unwrap_or_default();
        let first = match kind {
            "camembert" | "mpnet" | "roberta" | "xlm-roberta" => {
                config["pad_token_id"].as_u64().unwrap_or(1).saturating_add(1)
            }
            _ => 0,
        };
        let context =
            found.as_u64().and_then(|found| u32::try_from(found.checked_sub(first)?).ok());
        match context {
            Some(context @ 2..) => Ok(context),
            _ if found.is_null() => Err(missing()),
            _ => Err(OnnxError::Value {
                what: "max_position_embeddings",
                found: found.to_string(),
                expected: "a number of tokens",
            }),
        }
    }

    /// What a classifier tells apart, as its settings have it; none of what is no classifier of texts.
    fn classes(&self) -> Result<Option<Classes>, OnnxError> {
        let Some(config) = self.settings("config.json")? else { return Ok(None) };
        let kind = config["architectures"][0].as_str().unwrap_or_default();
        if !kind.ends_with("ForSequenceClassification") {
            return Ok(None);
        }
        let names = config["id2label"].as_object();
        let wrong = || OnnxError::Value {
            what: "id2label",
            found: config["id2label"].to_string(),
            expected: "a name for each class, numbered from 0",
        };
        let names = names.filter(|names| (1..=CLASSES_MAX).contains(&names.len()));
        let names = names.ok_or_else(wrong)?;
        let label = |id: usize| names.get(&id.to_string())?.as_str().map(str::to_owned);
        let labels = (0..names.len()).map(label).collect::<Option<Vec<String>>>();
        let labels = labels.ok_or_else(wrong)?;
        // A single class is one that a text has or has not.
        let apart = config["problem_type"] == "multi_label_classification" || labels.len() == 1;
        let scores = if apart { Scores::Sigmoid } else { Scores::Softmax };
        Ok(Some(Classes { labels, scores }))
    }

    /// How the vectors of tokens become one, as the settings of sentence-transformers have it; their mean
    /// where nothing is said.
    fn pooling(&self) -> Result<Pooling, OnnxError> {
        let Some(settings) = self.settings("1_Pooling/config.json")? else {
            return Ok(Pooling::Mean);
        };
        let modes = settings.as_object().into_iter().flatten();
        let chosen = modes.filter(|(mode, is_on)| {
            mode.starts_with("pooling_mode_") && is_on.as_bool() == Some(true)
        });
        let chosen: Vec<&str> = chosen.map(|(mode, _)| mode.as_str()).collect();
        match chosen.as_slice() {
            ["pooling_mode_mean_tokens"] => Ok(Pooling::Mean),
            ["pooling_mode_cls_token"] => Ok(Pooling::First),
            other => Err(OnnxError::Value {
                what: "the pooling",
                found: format!("{other:?}"),
                expected: "pooling_mode_mean_tokens or pooling_mode_cls_token",
            }),
        }
    }
}

impl OnnxPackage {
    /// Whether a file or folder is one that [`OnnxPackage::import`] reads. A folder that has safetensors as
    /// well is not: those are converted, and their answers are the same on every machine.
    pub fn is_source(path: &Path) -> bool {
        Place::of(path).is_some()
    }

    /// Whether a file begins as a package does.
    pub fn is_package(path: &Path) -> bool {
        let mut begin = [0; MAGIC.len()];
        let read = File::open(path).and_then(|mut file| file.read_exact(&mut begin));
        read.is_ok() && begin == *MAGIC
    }

    /// Reads a graph with its tokenizer and its settings, and tries it on two tokens.
    ///
    /// # Errors
    /// What is missing or is not supported, and whatever the runtime does not run.
    pub fn import(path: &Path, options: &OnnxOptions) -> Result<Self, OnnxError> {
        let missing = || OnnxError::Missing { what: "model.onnx", path: path.to_owned() };
        let place = Place::of(path).ok_or_else(missing)?;
        let found = place.context()?;
        let context = options.context.unwrap_or(found);
        if !(2..=found).contains(&context) {
            return Err(OnnxError::Context { asked: context, found });
        }
        let json = place.folder.join("tokenizer.json");
        if !json.is_file() {
            return Err(OnnxError::Missing { what: "tokenizer.json", path: path.to_owned() });
        }
        let tokenizer = Tokenizer::from_json(&read(&json, "tokenizer.json", PART_MAX)?)?;
        let graph = read(&place.graph, "graph", GRAPH_MAX)?;
        let survey = survey(&graph)?;
        let classes = place.classes()?;
        let wanted = if classes.is_some() { &["logits"][..] } else { &OUTPUTS[..] };
        let output = wanted.iter().find(|name| survey.outputs.iter().any(|found| found == *name));
        let output = match (output, survey.outputs.as_slice()) {
            (Some(name), _) => (*name).to_owned(),
            (None, [only]) => only.clone(),
            (None, _) => return Err(OnnxError::Outputs { found: survey.outputs }),
        };
        let pooling = if classes.is_some() { Pooling::None } else { place.pooling()? };
        let name = options.name.clone().unwrap_or_else(|| place.name());
        let vocabulary = tokenizer.len();
        let facts = Facts { name, width: 0, vocabulary, parameters: survey.parameters };
        let tokenizer = tokenizer.canonical();
        let mut card = Card::new(&graph, &tokenizer, output, pooling, context);
        card.classes = classes;
        Self { summary: OnnxSummary { facts, card }, tokenizer, graph }.tried()
    }

    /// The same, with what running the graph shows: how wide its vectors are, and whether it has made one of
    /// its tokens' vectors already.
    fn tried(mut self) -> Result<Self, OnnxError> {
        let tried = OnnxModel::new(&self.summary, self.tokenizer_of()?, self.graph.clone(), 1);
        let model = match tried {
            Err(OnnxError::Shape { found, .. }) if found.len() == 2 => {
                self.summary.card.pooling = Pooling::None;
                OnnxModel::new(&self.summary, self.tokenizer_of()?, self.graph.clone(), 1)?
            }
            tried => tried?,
        };
        self.summary.facts.width = model.width();
        Ok(self)
    }

    fn tokenizer_of(&self) -> Result<Arc<Tokenizer>, OnnxError> {
        Ok(Arc::new(Tokenizer::from_canonical(&self.tokenizer)?))
    }

    /// What it says of itself.
    pub fn summary(&self) -> &OnnxSummary {
        &self.summary
    }

    /// The model's name by content.
    pub fn id(&self) -> ModelId {
        self.summary.id()
    }

    /// Makes the model ready to answer, on so many threads.
    ///
    /// # Errors
    /// If its tokenizer or its graph is not one that this version runs.
    pub fn load(self, threads: usize) -> Result<OnnxModel, OnnxError> {
        let tokenizer = self.tokenizer_of()?;
        OnnxModel::new(&self.summary, tokenizer, self.graph, threads)
    }

    /// Writes the package whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), OnnxError> {
        let partial = path.with_extension(format!("{}.partial", std::process::id()));
        let written = self.write_to(&partial).and_then(|()| std::fs::rename(&partial, path));
        written.map_err(|source| {
            // The write has failed already; a leftover that cannot be removed adds nothing.
            let _ = std::fs::remove_file(&partial);
            OnnxError::Io { path: path.to_owned(), source }
        })
    }

    fn write_to(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.write_all(MAGIC)?;
        let facts = serde_json::to_vec(&self.summary.facts)?;
        for part in [&facts, &self.summary.card.encode(), &self.tokenizer, &self.graph] {
            file.write_all(&(part.len() as u64).to_le_bytes())?;
            file.write_all(part)?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }

    /// Reads a package, and compares all of it with its id.
    pub fn read(path: &Path) -> Result<Self, OnnxError> {
        let mut reader = Reader::open(path)?;
        let summary = reader.summary()?;
        let tokenizer = reader.part("tokenizer", PART_MAX)?;
        let graph = reader.part("graph", GRAPH_MAX)?;
        reader.end()?;
        let card = &summary.card;
        for (what, part, hash) in
            [("tokenizer", &tokenizer, card.tokenizer), ("graph", &graph, card.graph)]
        {
            if keccak256(part) != hash {
                return Err(OnnxError::Altered { what, id: card.id() });
            }
        }
        Ok(Self { summary, tokenizer, graph })
    }

    /// Reads what stands before the tokenizer.
    pub fn peek(path: &Path) -> Result<OnnxSummary, OnnxError> {
        Reader::open(path)?.summary()
    }
}

/// A whole file of a source, if it is not too long.
fn read(path: &Path, part: &'static str, max: u64) -> Result<Vec<u8>, OnnxError> {
    let failed = |source| OnnxError::Io { path: path.to_owned(), source };
    let found = std::fs::metadata(path).map_err(failed)?.len();
    if found > max {
        return Err(OnnxError::TooLong { part, found, max });
    }
    std::fs::read(path).map_err(failed)
}

struct Reader<'a> {
    path: &'a Path,
    length: u64,
    read: u64,
    file: BufReader<File>,
}

impl<'a> Reader<'a> {
    fn open(path: &'a Path) -> Result<Self, OnnxError> {
        let failed = |source| OnnxError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        Ok(Self { path, length, read: 0, file: BufReader::with_capacity(1 << 20, file) })
    }

    fn summary(&mut self) -> Result<OnnxSummary, OnnxError> {
        if self.length < MAGIC.len() as u64 || self.bytes(MAGIC.len() as u64)? != MAGIC {
            return Err(OnnxError::Magic);
        }
        let facts = serde_json::from_slice(&self.part("list of facts", TEXT_MAX)?);
        let facts = facts.map_err(|error| OnnxError::Json {
            part: "the list of facts",
            reason: error.to_string(),
        })?;
        Ok(OnnxSummary { facts, card: Card::decode(&self.part("card", TEXT_MAX)?)? })
    }

    fn part(&mut self, part: &'static str, max: u64) -> Result<Vec<u8>, OnnxError> {
        let length = self.bytes(8)?.try_into().expect("eight bytes were asked for and came");
        let found = u64::from_le_bytes(length);
        if found > max {
            return Err(OnnxError::TooLong { part, found, max });
        }
        self.bytes(found)
    }

    /// The next bytes, if the file has as many.
    fn bytes(&mut self, count: u64) -> Result<Vec<u8>, OnnxError> {
        let expected = self.read + count;
        if expected > self.length {
            return Err(OnnxError::Length { found: self.length, expected });
        }
        // Bounded by the file's length.
        let mut bytes = vec![0; count as usize];
        let read = self.file.read_exact(&mut bytes);
        read.map_err(|source| OnnxError::Io { path: self.path.to_owned(), source })?;
        self.read = expected;
        Ok(bytes)
    }

    fn end(&self) -> Result<(), OnnxError> {
        let (found, expected) = (self.length, self.read);
        if found == expected { Ok(()) } else { Err(OnnxError::Length { found, expected }) }
    }
}
