//! Turns a foreign file into a model in canonical form.
//!
//! Conversion is a function: the same file gives the same model id on every machine. Floats
//! become integers by exact comparison, the fraction bits are chosen by a run in exact-1 itself
//! ([`calibrate`]), and the manifest commits to all of it. What exact-1 costs in accuracy is
//! measured, not assumed ([`Accuracy`]).

mod accuracy;
mod calibrate;
mod importance;

use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use assay_kernels::{Cpu, Format, Weights};
use assay_models::convert::{self, ConvertError};
use assay_models::load::{self, LoadError, Source, SourceTokenizer};
use assay_models::rope::{self, RopeError};
use assay_models::{
    FloatError, FloatModel, ForwardError, LayerRole, Model, ModelError, Role, Shape, Tensors,
};
use assay_protocol::{B256, ModelId, token_root};
use assay_text::{
    Charsmap, Chat, ChatError, PreTokenizer, Spaces, TokenKind, Tokenizer, TokenizerError, Unigram,
    Vocabulary, merges_of_scores, word_pieces_of_gguf,
};
use sha2::{Digest, Sha256};

use crate::commit::{self, Particulars};
use crate::package::{Package, Summary};
use importance::Importance;

pub use accuracy::{Accuracy, Nearness};

/// The text that calibration runs over where nothing else is given.
const CALIBRATION: &str = include_str!("calibration.txt");
/// Most tokens that calibration runs over.
const CALIBRATION_MAX: usize = 512;
/// The text that accuracy is measured on: another one than calibration has seen.
const SAMPLE: &str = include_str!("sample.txt");
/// Most positions that the accuracy report compares.
const SAMPLE_MAX: usize = 256;

/// What an importer may choose.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What to call the model, if not what its source calls it, with `-w4` behind it in four bits.
    pub name: Option<String>,
    /// Most positions, if fewer than the source states: shorter RoPE tables, another model id.
    pub context: Option<usize>,
    /// Text to calibrate over, if not the built-in one: another model id.
    pub calibration: Option<String>,
    /// Which format the matrices of the layers get: another model id. In four bits the tables of
    /// tokens keep eight, where a quarter of the bytes would cost most of the accuracy, unless the
    /// source has four.
    pub weights: Format,
    /// Whether to measure how far the result is from the source, in f32. Slow for large models.
    pub accuracy: bool,
}

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub stage: &'static str,
    /// Units done.
    pub done: u64,
    /// Units there are.
    pub total: u64,
}

/// What an import found.
#[derive(Clone, Debug)]
pub struct Report {
    /// The model's id.
    pub id: ModelId,
    /// Its parameters.
    pub parameters: u64,
    /// SHA-256 of its source.
    pub source: B256,
    /// How far it is from its source, if that was asked for.
    pub accuracy: Option<Accuracy>,
    /// The same of a model that makes vectors.
    pub nearness: Option<Nearness>,
    /// How long the import took.
    pub took: Duration,
}

/// Why a file was not imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The source cannot be read as a model.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Hashing the source failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A tensor does not fit the canonical form.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// The RoPE parameters give no tables.
    #[error(transparent)]
    Rope(#[from] RopeError),
    /// The parts break a bound of the arithmetic.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Calibration or comparison failed.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// The float twin cannot be made.
    #[error(transparent)]
    Float(#[from] FloatError),
    /// The tokenizer is not one this version reads.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template does not parse.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The tokenizer and the embedding disagree.
    #[error("the tokenizer has {found} tokens, the embedding only {vocab} rows")]
    Vocabulary {
        /// Tokens of the tokenizer.
        found: usize,
        /// Rows of the embedding.
        vocab: usize,
    },
    /// There is nothing to calibrate over.
    #[error("the calibration text has no tokens")]
    NoCalibration,
    /// A longer context was asked for than the source has.
    #[error("a context of {asked} was asked for, the source has {found}")]
    Context {
        /// Positions asked for.
        asked: usize,
        /// Positions the source states.
        found: usize,
    },
}

/// Converts the model at `path`, a GGUF file or a directory with safetensors.
pub fn import(
    path: &Path,
    options: &Options,
    cpu: &Cpu,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Package, Report), ImportError> {
    let began = Instant::now();
    let hash = source_hash(path, progress)?;
    let mut source = load::open(path)?;
    shorten(&mut source, options)?;
    let shape = source.shape().clone();
    let tokenizer = source.vocabulary.as_ref().map(tokenizer).transpose()?;
    if let Some(found) = tokenizer.as_ref().map(Tokenizer::len)
        && found > shape.vocab
    {
        return Err(ImportError::Vocabulary { found, vocab: shape.vocab });
    }
    source.chat_template.as_deref().map(Chat::new).transpose()?;

    let tensors = tensors(&source, &shape, options.weights, progress)?;
    let text = options.calibration.as_deref().unwrap_or(CALIBRATION);
    let tokens = sample(text, tokenizer.as_ref(), &shape, CALIBRATION_MAX);
    if tokens.is_empty() {
        return Err(ImportError::NoCalibration);
    }
    let mut model = Model::new(shape.clone(), calibrate::wide(&shape), tensors)?;
    if options.weights == Format::W4 {
        model = in_four_bits(&source, model, &tokens, cpu, progress)?;
    }
    let precision = calibrate::calibrate(&model, &tokens, cpu, &mut |done| {
        progress(Progress { stage: "calibrating", done, total: tokens.len() as u64 });
    })?;
    let model = model.with_precision(precision)?;

    let tokenizer_bytes = tokenizer.as_ref().map(Tokenizer::canonical);
    let particulars = Particulars {
        eos: tokenizer.as_ref().map_or(&[], |tokenizer| tokenizer.eos()),
        tokenizer: tokenizer_bytes.as_deref(),
        template: source.chat_template.as_deref(),
        licence: source.licence.as_deref(),
        source: hash,
        calibration: token_root(&tokens),
    };
    let rows = matrix_rows(&shape);
    let manifest = commit::manifest(&model, &particulars, &mut |done| {
        progress(Progress { stage: "committing", done, total: rows });
    });
    let (mut accuracy, mut nearness) = (None, None);
    if options.accuracy {
        let tokens = sample(SAMPLE, tokenizer.as_ref(), &shape, SAMPLE_MAX);
        let total = tokens.len() as u64;
        let float = FloatModel::load(&source)?;
        let mut report = |done| progress(Progress { stage: "comparing", done, total });
        if shape.graph().causal {
            accuracy = Some(accuracy::compare(&float, &model, &tokens, cpu, &mut report)?);
        } else {
            nearness = Some(accuracy::compare_vectors(&float, &model, &tokens, cpu, &mut report)?);
        }
    }
    let report = Report {
        id: manifest.id(),
        parameters: shape.parameters(),
        source: hash,
        accuracy,
        nearness,
        took: began.elapsed(),
    };
    let summary = Summary {
        name: options.name.clone().unwrap_or_else(|| match options.weights {
            Format::W8 => source.name.clone(),
            Format::W4 => format!("{}-w4", source.name),
        }),
        licence: source.licence.clone(),
        manifest,
    };
    let package = Package {
        summary,
        tokenizer: tokenizer_bytes,
        template: source.chat_template.clone(),
        model,
    };
    Ok((package, report))
}

fn shorten(source: &mut Source, options: &Options) -> Result<(), ImportError> {
    let (asked, found) = (options.context.unwrap_or(usize::MAX), source.shape().context);
    if options.context.is_some() && asked > found {
        return Err(ImportError::Context { asked, found });
    }
    source.shorten(asked);
    Ok(())
}

/// Whether a file of a directory has a say in the model that is made of it. Others, such as what
/// a file manager leaves behind, must not change its id.
fn is_source(name: &str) -> bool {
    name.ends_with(".safetensors")
        || [
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "model.safetensors.index.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
        .contains(&name)
}

/// SHA-256 of a file; of a directory, SHA-256 over name, a zero byte and SHA-256 of each of its
/// files that [`is_source`], in order of name.
pub fn source_hash(path: &Path, progress: &mut dyn FnMut(Progress)) -> Result<B256, ImportError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ImportError::Io { path, source }
    };
    if !path.is_dir() {
        return file_hash(path, progress).map_err(failed(path));
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed(path))? {
        let name = entry.map_err(failed(path))?.file_name();
        names.extend(name.into_string().ok().filter(|name| is_source(name)));
    }
    names.sort();
    let mut hasher = Sha256::new();
    for name in names {
        let file = path.join(&name);
        hasher.update(name);
        hasher.update([0]);
        hasher.update(file_hash(&file, progress).map_err(failed(&file))?);
    }
    Ok(B256::from_slice(&hasher.finalize()))
}

fn file_hash(path: &Path, progress: &mut dyn FnMut(Progress)) -> io::Result<B256> {
    let mut file = std::fs::File::open(path)?;
    let total = file.metadata()?.len();
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(B256::from_slice(&hasher.finalize()));
        }
        hasher.update(&buffer[..read]);
        done += read as u64;
        progress(Progress { stage: "hashing", done, total });
    }
}

/// The tokenizer that `parts` describe.
///
/// # Errors
/// [`ImportError::Tokenizer`] for a vocabulary that is damaged, or that cuts text in a way that is not
/// supported; [`ImportError::Load`] for an algorithm that is not.
pub fn tokenizer(parts: &SourceTokenizer) -> Result<Tokenizer, ImportError> {
    match parts {
        SourceTokenizer::Gguf {
            model,
            pre,
            tokens,
            kinds,
            merges,
            score_bits,
            space_first,
            spaces_joined,
            charsmap,
            bos,
            eos,
            add_bos,
            unknown,
        } => {
            let kinds = kinds.iter().map(|&code| TokenKind::try_from(code));
            let kinds = kinds.collect::<Result<Vec<TokenKind>, _>>()?;
            let (pre, merges, bos_default) = match model.as_str() {
                "gpt2" => {
                    let pre = PreTokenizer::try_from(pre.as_deref().unwrap_or("gpt-2"))?;
                    (pre, merges.clone(), false)
                }
                "gemma4" => (PreTokenizer::Gemma4, merges.clone(), true),
                "llama" => {
                    let scores: Vec<f32> =
                        score_bits.iter().map(|bits| f32::from_bits(*bits)).collect();
                    let pre = match space_first {
                        Some(false) => PreTokenizer::SentencePieceBare,
                        _ => PreTokenizer::SentencePiece,
                    };
                    (pre, merges_of_scores(tokens, &kinds, &scores)?, true)
                }
                "bert" => return word_piece(tokens, kinds, *bos, eos, *unknown),
                "t5" => {
                    let unigram = Unigram {
                        // Zero has no sign, so that it has one encoding.
                        scores: score_bits
                            .iter()
                            .map(|bits| f64::from(f32::from_bits(*bits)) + 0.0)
                            .collect(),
                        charsmap: Charsmap::read(charsmap)?,
                        spaces: spaces(*spaces_joined, *space_first),
                    };
                    return scored(tokens, named(kinds, *unknown), (*bos, eos, *add_bos), unigram);
                }
                other => {
                    return Err(LoadError::Value {
                        what: "tokenizer.ggml.model".into(),
                        found: other.to_owned(),
                        expected: "gpt2 (byte-level BPE), llama (SentencePiece), gemma4, bert \
                                   (WordPiece) or t5 (Unigram)"
                            .into(),
                    }
                    .into());
                }
            };
            // SentencePiece begins a text where it is not told otherwise, if it can.
            let add_bos = add_bos.unwrap_or(bos_default && bos.is_some());
            let (tokens, bos, eos) = (tokens.clone(), *bos, eos.clone());
            Ok(Tokenizer::new(Vocabulary { tokens, kinds, merges, pre, bos, eos, add_bos })?)
        }
        SourceTokenizer::HuggingFace { json, bos, eos, add_bos } => {
            let tokenizer = Tokenizer::from_json(json)?;
            // What stands around a text for an encoder, the file itself says.
            let pre = tokenizer.pre();
            if pre.is_word_piece() || pre.is_unigram() && !tokenizer.eos().is_empty() {
                return Ok(tokenizer);
            }
            Ok(tokenizer.with_eos(eos.clone())?.with_bos(*bos, add_bos.unwrap_or(false))?)
        }
    }
}

/// A vocabulary of WordPiece. Such files do not say whether case is kept; readers of them take it off.
fn word_piece(
    tokens: &[String],
    kinds: Vec<TokenKind>,
    bos: Option<u32>,
    eos: &[u32],
    unknown: Option<u32>,
) -> Result<Tokenizer, ImportError> {
    let kinds = named(kinds, unknown);
    for (name, is_there) in [("cls", bos.is_some()), ("seperator", !eos.is_empty())] {
        if !is_there {
            let what = format!("tokenizer.ggml.{name}_token_id");
            return Err(LoadError::Missing { what }.into());
        }
    }
    let (tokens, add_bos) = (word_pieces_of_gguf(tokens, &kinds), true);
    let (merges, pre, eos) = (Vec::new(), PreTokenizer::WordPiece, eos.to_vec());
    Ok(Tokenizer::new(Vocabulary { tokens, kinds, merges, pre, bos, eos, add_bos })?)
}

/// A vocabulary of Unigram. A text ends by a token where the file does not say otherwise, and begins by
/// one where it says so.
fn scored(
    tokens: &[String],
    kinds: Vec<TokenKind>,
    (bos, eos, add_bos): (Option<u32>, &[u32], Option<bool>),
    unigram: Unigram,
) -> Result<Tokenizer, ImportError> {
    let (tokens, eos, add_bos) = (tokens.to_vec(), eos.to_vec(), add_bos.unwrap_or(false));
    let (merges, pre) = (Vec::new(), PreTokenizer::Unigram);
    let vocabulary = Vocabulary { tokens, kinds, merges, pre, bos, eos, add_bos };
    Ok(Tokenizer::with_scores(vocabulary, unigram)?)
}

/// How spaces are spelled. What a file does not say, it does not do.
fn spaces(joined: Option<bool>, first: Option<bool>) -> Spaces {
    match (joined.unwrap_or(false), first.unwrap_or(false)) {
        (true, true) => Spaces::Joined,
        (true, false) => Spaces::JoinedBare,
        (false, true) => Spaces::Kept,
        (false, false) => Spaces::KeptBare,
    }
}

/// The kinds with the unknown token's, which files name apart.
fn named(mut kinds: Vec<TokenKind>, unknown: Option<u32>) -> Vec<TokenKind> {
    if let Some(kind) = unknown.and_then(|id| kinds.get_mut(id as usize)) {
        *kind = TokenKind::Unknown;
    }
    kinds
}

/// Token ids of `text`; without a tokenizer, ids spread evenly over the vocabulary.
fn sample(text: &str, tokenizer: Option<&Tokenizer>, shape: &Shape, max: usize) -> Vec<u32> {
    let max = max.min(shape.context);
    match tokenizer {
        // A text stands between its ends, also where it is cut short.
        Some(tokenizer) if !shape.graph().causal => {
            let mut tokens = tokenizer.enclose(text, usize::MAX).unwrap_or_default();
            let end = tokens.pop();
            tokens.truncate(max - 1);
            tokens.extend(end);
            tokens
        }
        Some(tokenizer) => {
            let mut tokens = tokenizer.encode_plain(text);
            tokens.truncate(max);
            tokens
        }
        None => {
            let stride = 2_654_435_761u64;
            let vocab = shape.vocab as u64;
            (0..max as u64).map(|i| (i.wrapping_mul(stride) % vocab) as u32).collect()
        }
    }
}

fn matrix_rows(shape: &Shape) -> u64 {
    let matrices = shape.roles().into_iter().filter(|&role| !role.is_vector());
    matrices.map(|role| shape.extent(role).0 as u64).sum()
}

/// The tensors of a source, matrices in eight bits; where four are wanted, those in four that the
/// source itself has so.
fn tensors(
    source: &Source,
    shape: &Shape,
    wanted: Format,
    progress: &mut dyn FnMut(Progress),
) -> Result<Tensors, ImportError> {
    let total = shape.roles().len() as u64;
    let done = Cell::new(0);
    let progress = RefCell::new(progress);
    let read = |role| {
        done.set(done.get() + 1);
        progress.borrow_mut()(Progress { stage: "converting", done: done.get(), total });
        source.tensor(role)
    };
    Tensors::gather(
        shape,
        rope::tables_of(shape)?,
        |role| {
            let raw = read(role)?;
            Ok(match wanted == Format::W4 && convert::keeps_w4(raw.kind) {
                true => convert::weights_w4(&raw, &vec![1.0; raw.columns])?,
                false => convert::weights(&raw)?,
            })
        },
        |role| Ok(convert::vector(&read(role)?, role)?),
    )
}

/// The model with the matrices of its layers in four bits. Which of their columns tell how much is
/// seen by running it as it is.
fn in_four_bits(
    source: &Source,
    model: Model,
    tokens: &[u32],
    cpu: &Cpu,
    progress: &mut dyn FnMut(Progress),
) -> Result<Model, ImportError> {
    let shape = model.shape().clone();
    let to_do = |role: Role, weights: &Weights| {
        // A router is small, and a wrong choice costs more than a coarse weight.
        matches!(role, Role::Layer(_, part) if part != LayerRole::Router)
            && weights.format() != Format::W4
    };
    let matrices =
        || shape.roles().into_iter().filter_map(|role| Some((role, model.weights(role)?)));
    let total = matrices().filter(|(role, weights)| to_do(*role, weights)).count() as u64;
    if total == 0 {
        return Ok(model);
    }
    let importance = Importance::of(&model, tokens, cpu, &mut |done| {
        progress(Progress { stage: "weighing", done, total: tokens.len() as u64 });
    })?;
    let mut done = 0;
    model.map(|role, weights| {
        if !to_do(role, &weights) {
            return Ok(weights);
        }
        drop(weights);
        done += 1;
        progress(Progress { stage: "halving", done, total });
        let raw = source.tensor(role)?;
        Ok(convert::weights_w4(&raw, &importance.columns(&shape, role))?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A vocabulary of scores as a GGUF file has it.
    fn scored(change: impl FnOnce(&mut Vec<u32>, &mut Option<u32>)) -> Result<Tokenizer, String> {
        let mut score_bits = [0.0f32, 0.0, -1.0, -1.5, -1.5].map(f32::to_bits).to_vec();
        let mut unknown = Some(1);
        change(&mut score_bits, &mut unknown);
        let parts = SourceTokenizer::Gguf {
            model: "t5".into(),
            pre: Some("default".into()),
            tokens: ["</s>", "<unk>", "▁", "▁a", "b"].map(String::from).into(),
            kinds: vec![3, 1, 1, 1, 1],
            merges: Vec::new(),
            score_bits,
            space_first: Some(true),
            spaces_joined: Some(true),
            charsmap: Vec::new(),
            bos: None,
            eos: vec![0],
            unknown,
            add_bos: None,
        };
        tokenizer(&parts).map_err(|error| error.to_string())
    }

    #[test]
    fn a_vocabulary_of_scores_cuts_text() {
        let tokenizer = scored(|_, _| ()).unwrap();
        assert_eq!(tokenizer.encode_plain(" ab  bxx "), [3, 4, 2, 4, 1]);
        assert_eq!(tokenizer.enclose("a", 9), Some(vec![3, 0]));
        let refused = |change: fn(&mut Vec<u32>, &mut Option<u32>), expected: &str| {
            assert_eq!(scored(change).unwrap_err(), expected);
        };
        refused(|scores, _| scores.truncate(2), "vocabulary has 2 scores for 5 tokens");
        refused(
            |scores, _| scores[4] = f32::NAN.to_bits(),
            "the score NaN is no finite number: token 4",
        );
        refused(|_, unknown| *unknown = None, "a Unigram vocabulary names no unknown token");
    }
}
