//! A model in canonical form, as one file: everything its id commits to, and nothing to trust.
//!
//! ```text
//! "ASSAYM1\n"
//! name · licence · manifest · recipe · tokenizer · template      each: u64 length, bytes
//! tensors in canonical order:
//!   vector    columns × i32
//!   matrix    exponents (i8) · quants (bytes) · scales (u16), in panels as the kernels read them
//! ```
//! All integers are little-endian. The recipe holds, as f32, the norm epsilon, the RoPE base, but
//! for llama size, step and RoPE base of windows (zeros for none), where layers have experts how many
//! there are and how many are chosen, and the RoPE factors that the manifest's integers were computed
//! from. Reading checks that the file
//! is exactly as long as its manifest demands before it takes memory, so a lying header costs
//! nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use assay_kernels::{COLUMNS_STEP, Format, GROUP, Pairing, Weights, WeightsError};
use assay_models::{
    Experts, Family, Model, ModelError, Precision, Role, Rope, Shape, Sites, Tensors, Window, rope,
};
use assay_protocol::{Assurance, Manifest, ManifestError, ModelId, TensorKind};
use assay_text::{Chat, ChatError, Tokenizer, TokenizerError};

use crate::commit::{self, Particulars, Stored};
use crate::outline::Outline;

const MAGIC: &[u8; 8] = b"ASSAYM1\n";
/// Rows are stored in whole panels of sixteen.
const PANEL_ROWS: usize = 16;
/// Longest name, licence or template.
const TEXT_MAX: u64 = 1 << 20;
/// Longest manifest, recipe or tokenizer.
const PART_MAX: u64 = 256 << 20;

/// A model in canonical form.
pub struct Package {
    pub(crate) summary: Summary,
    pub(crate) tokenizer: Option<Vec<u8>>,
    pub(crate) template: Option<String>,
    pub(crate) model: Model,
}

/// What a package says of itself before its tensors: enough to list and to find models.
#[derive(Clone, Debug)]
pub struct Summary {
    /// What people call the model.
    pub name: String,
    /// Its licence, as its publisher names it.
    pub licence: Option<String>,
    /// What its id commits to.
    pub manifest: Manifest,
}

impl Summary {
    /// The model's name by content.
    pub fn id(&self) -> ModelId {
        self.manifest.id()
    }

    /// Whether it makes vectors of texts.
    pub fn makes_vectors(&self) -> bool {
        makes_vectors(&self.manifest)
    }

    /// What can be checked about its answers.
    pub fn assurance(&self) -> Assurance {
        assurance(&self.manifest)
    }
}

pub(crate) fn makes_vectors(manifest: &Manifest) -> bool {
    Family::from_code(manifest.family).is_some_and(|family| !family.graph().causal)
}

pub(crate) fn assurance(manifest: &Manifest) -> Assurance {
    let family = Family::from_code(manifest.family);
    let is_judged = family.is_some_and(|family| family.graph().judged);
    let mut tensors = manifest.tensors.iter();
    match is_judged && tensors.all(|tensor| tensor.kind != TensorKind::W4 as u8) {
        true => Assurance::Replayable,
        false => Assurance::Scored,
    }
}

/// A model ready to answer.
pub struct Loaded {
    /// Its id.
    pub id: ModelId,
    /// What people call it; not part of the id.
    pub name: String,
    /// What the id commits to.
    pub manifest: Manifest,
    /// The model itself.
    pub model: Model,
    /// Its tokenizer, if its source brought one.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// Its chat template, if its source brought one.
    pub chat: Option<Arc<Chat>>,
}

impl Loaded {
    /// All of it but the weights.
    pub fn outline(&self) -> Outline {
        let Self { id, name, manifest, model: _, tokenizer, chat } = self;
        Outline {
            id: *id,
            name: name.clone(),
            manifest: manifest.clone(),
            tokenizer: tokenizer.clone(),
            chat: chat.clone(),
        }
    }

    /// What can be checked about its answers, as [`Outline::assurance`] says.
    pub fn assurance(&self) -> Assurance {
        if self.model.is_judged() { Assurance::Replayable } else { Assurance::Scored }
    }

    /// Most tokens of prompt and output together.
    pub fn context(&self) -> u32 {
        self.manifest.shape.context
    }

    /// How many numbers the vector of a text has, if this model makes vectors of texts; none where it
    /// goes on with them.
    pub fn vector_width(&self) -> Option<usize> {
        let shape = self.model.shape();
        (!shape.graph().causal).then_some(shape.width)
    }

    /// The one output token of an answer that is a vector: the lowest that ends an answer, zero where
    /// the model names none.
    pub fn vector_token(&self) -> u32 {
        self.manifest.eos.first().copied().unwrap_or(0)
    }
}

/// Why a file is not a package, or not the model it says it is.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// Reading or writing failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Not a package at all.
    #[error("not a model package: it does not begin with \"ASSAYM1\"")]
    Magic,
    /// A part is longer than any honest one.
    #[error("the {part} is {found} bytes long, at most {max} are allowed")]
    TooLong {
        /// Which part.
        part: &'static str,
        /// Its stated length.
        found: u64,
        /// The longest allowed.
        max: u64,
    },
    /// The file is shorter or longer than its manifest demands.
    #[error("the file has {found} bytes, its manifest demands {expected}")]
    Length {
        /// Bytes in the file.
        found: u64,
        /// Bytes demanded.
        expected: u64,
    },
    /// A part that should be text is not UTF-8.
    #[error("the {part} is not UTF-8")]
    NotText {
        /// Which part.
        part: &'static str,
    },
    /// The manifest does not parse.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manifest asks for something this version does not compute.
    #[error("the manifest's {what} is {found}, which is not supported")]
    Unsupported {
        /// Which field.
        what: &'static str,
        /// Its value.
        found: u64,
    },
    /// A tensor's numbers are out of range.
    #[error("tensor {tensor}: {source}")]
    Weights {
        /// Its name.
        tensor: String,
        /// What is wrong.
        source: WeightsError,
    },
    /// The parts do not make a model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The recipe does not give RoPE tables.
    #[error(transparent)]
    Rope(#[from] rope::RopeError),
    /// The content does not hash to what the manifest commits to.
    #[error("the {what} does not match the manifest of model {id}: the file was altered")]
    Altered {
        /// Which part.
        what: &'static str,
        /// The model it claims to be.
        id: ModelId,
    },
    /// The tokenizer is damaged.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template is damaged.
    #[error(transparent)]
    Chat(#[from] ChatError),
}

impl Package {
    /// Name, licence and manifest.
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// The model's name by content.
    pub fn id(&self) -> ModelId {
        self.summary.id()
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.summary.name
    }

    /// What its id commits to.
    pub fn manifest(&self) -> &Manifest {
        &self.summary.manifest
    }

    /// The model itself.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Computes every commitment again and compares. `progress` is told the rows hashed so far.
    pub fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<(), PackageError> {
        let particulars = Particulars {
            eos: &self.manifest().eos,
            tokenizer: self.tokenizer.as_deref(),
            template: self.template.as_deref(),
            licence: self.summary.licence.as_deref(),
            source: self.manifest().parts.source,
            calibration: self.manifest().parts.calibration,
        };
        let found = commit::manifest(&self.model, &particulars, progress);
        let expected = self.manifest();
        let parts = [
            ("weights", found.parts.weights == expected.parts.weights),
            ("program", found.parts.program == expected.parts.program),
            ("RoPE table", found.parts.rope == expected.parts.rope),
            ("tokenizer", found.parts.tokenizer == expected.parts.tokenizer),
            ("chat template", found.parts.template == expected.parts.template),
            ("licence", found.parts.licence == expected.parts.licence),
            ("arithmetic", found.encode() == expected.encode()),
        ];
        match parts.into_iter().find(|(_, holds)| !holds) {
            Some((what, _)) => Err(PackageError::Altered { what, id: self.id() }),
            None => Ok(()),
        }
    }

    /// All of it but the weights, ready for use. Checks tokenizer and template against the manifest.
    ///
    /// # Errors
    /// If either was altered or is damaged.
    pub fn outline(&self) -> Result<Outline, PackageError> {
        let summary = self.summary.clone();
        Outline::new(summary, self.tokenizer.as_deref(), self.template.as_deref())
    }

    /// Makes the model ready to answer. The weights only [`Package::verify`] checks.
    ///
    /// # Errors
    /// As [`Package::outline`].
    pub fn load(self) -> Result<Loaded, PackageError> {
        let Outline { id, name, manifest, tokenizer, chat } = self.outline()?;
        Ok(Loaded { id, name, manifest, model: self.model, tokenizer, chat })
    }

    /// Writes the package whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), PackageError> {
        let partial = path.with_extension(format!("{}.partial", std::process::id()));
        let failed = |source| PackageError::Io { path: path.to_owned(), source };
        let result = self.write_to(&partial).and_then(|()| std::fs::rename(&partial, path));
        if result.is_err() {
            // The write has failed already; a leftover that cannot be removed adds nothing.
            let _ = std::fs::remove_file(&partial);
        }
        result.map_err(failed)
    }

    fn write_to(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
        file.write_all(MAGIC)?;
        let recipe: Vec<u8> = recipe(self.model.shape()).flat_map(f32::to_le_bytes).collect();
        for part in [
            self.name().as_bytes(),
            self.summary.licence.as_deref().unwrap_or_default().as_bytes(),
            &self.manifest().encode(),
            &recipe,
            self.tokenizer.as_deref().unwrap_or_default(),
            self.template.as_deref().unwrap_or_default().as_bytes(),
        ] {
            file.write_all(&(part.len() as u64).to_le_bytes())?;
            file.write_all(part)?;
        }
        for role in self.model.shape().roles() {
            match commit::stored(&self.model, role) {
                Stored::Vector(vector) => {
                    write_words(&mut file, vector.iter().map(|v| v.to_le_bytes()))?
                }
                Stored::Matrix(weights) => {
                    write_words(&mut file, weights.exponents().iter().map(|e| e.to_le_bytes()))?;
                    file.write_all(weights.quants())?;
                    write_words(&mut file, weights.scales().iter().map(|s| s.to_le_bytes()))?;
                }
            }
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }

    /// Reads a package. Sizes are checked before memory is taken, numbers as they are read;
    /// whether they are the ones that the model id commits to, [`Package::verify`] tells.
    pub fn read(path: &Path) -> Result<Self, PackageError> {
        Reader::open(path)?.package()
    }

    /// Reads what stands before the tensors.
    pub fn peek(path: &Path) -> Result<Summary, PackageError> {
        Reader::open(path)?.summary()
    }
}

impl std::fmt::Debug for Package {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Package")
            .field("name", &self.name())
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("name", &self.name)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

fn recipe(shape: &Shape) -> impl Iterator<Item = f32> + '_ {
    let window = shape
        .window
        .map_or([0.0; 3], |window| [window.size as f32, window.every as f32, window.base]);
    let window = window.into_iter().filter(|_| shape.family != Family::Llama);
    let head = [shape.norm_eps, shape.rope.base].into_iter().chain(window);
    let experts = shape.experts.map(|experts| [experts.count as f32, experts.chosen as f32]);
    head.chain(experts.into_iter().flatten()).chain(shape.rope.factors.iter().copied())
}

fn write_words<const N: usize>(
    file: &mut impl Write,
    words: impl Iterator<Item = [u8; N]>,
) -> io::Result<()> {
    words.into_iter().try_for_each(|word| file.write_all(&word))
}

struct Reader<'a> {
    path: &'a Path,
    length: u64,
    read: u64,
    file: BufReader<File>,
}

impl<'a> Reader<'a> {
    fn open(path: &'a Path) -> Result<Self, PackageError> {
        let failed = |source| PackageError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        Ok(Self { path, length, read: 0, file: BufReader::with_capacity(1 << 20, file) })
    }

    fn summary(&mut self) -> Result<Summary, PackageError> {
        if self.length < MAGIC.len() as u64 || self.bytes(MAGIC.len())? != MAGIC {
            return Err(PackageError::Magic);
        }
        let name = self.text("name")?;
        let licence = some(self.text("licence")?);
        let manifest = Manifest::decode(&self.part("manifest", PART_MAX)?)?;
        Ok(Summary { name, licence, manifest })
    }

    fn package(mut self) -> Result<Package, PackageError> {
        let summary = self.summary()?;
        let manifest = &summary.manifest;
        let recipe = self.part("recipe", PART_MAX)?;
        let tokenizer = self.part("tokenizer", PART_MAX)?;
        let template = self.text("chat template")?;
        let shape = shape(manifest, &recipe)?;
        let precision = precision(manifest)?;
        let formats = formats(manifest, &shape)?;
        self.check_length(&shape, &formats)?;
        let tensors = self.tensors(&shape, &formats)?;
        let model = Model::new(shape, precision, tensors)?;
        if model.eps_q() != manifest.arithmetic.normEps {
            return Err(PackageError::Altered { what: "norm epsilon", id: manifest.id() });
        }
        Ok(Package {
            summary,
            tokenizer: (!tokenizer.is_empty()).then_some(tokenizer),
            template: some(template),
            model,
        })
    }

    /// The next bytes; `count` was checked against the file's length.
    fn bytes(&mut self, count: usize) -> Result<Vec<u8>, PackageError> {
        let mut bytes = vec![0; count];
        self.file
            .read_exact(&mut bytes)
            .map_err(|source| PackageError::Io { path: self.path.to_owned(), source })?;
        self.read += count as u64;
        Ok(bytes)
    }

    fn part(&mut self, part: &'static str, max: u64) -> Result<Vec<u8>, PackageError> {
        self.need(8)?;
        let length = u64::from_le_bytes(
            self.bytes(8)?.try_into().expect("eight bytes were asked for and came"),
        );
        if length > max {
            return Err(PackageError::TooLong { part, found: length, max });
        }
        self.need(length)?;
        // Bounded by the file's length.
        self.bytes(length as usize)
    }

    fn need(&self, count: u64) -> Result<(), PackageError> {
        let expected = self.read + count;
        if expected > self.length {
            return Err(PackageError::Length { found: self.length, expected });
        }
        Ok(())
    }

    fn text(&mut self, part: &'static str) -> Result<String, PackageError> {
        let bytes = self.part(part, TEXT_MAX)?;
        String::from_utf8(bytes).map_err(|_| PackageError::NotText { part })
    }

    fn check_length(&self, shape: &Shape, formats: &Formats) -> Result<(), PackageError> {
        let bytes: u128 =
            formats.iter().map(|(&role, &format)| stored_bytes(shape, role, format)).sum();
        let expected = u64::try_from(u128::from(self.read) + bytes).unwrap_or(u64::MAX);
        if expected != self.length {
            return Err(PackageError::Length { found: self.length, expected });
        }
        Ok(())
    }

    fn tensors(&mut self, shape: &Shape, formats: &Formats) -> Result<Tensors, PackageError> {
        let rope = rope::tables_of(shape)?;
        let reader = RefCell::new(self);
        Tensors::gather(
            shape,
            rope,
            |role| reader.borrow_mut().matrix(shape, role, formats[&role]),
            |role| reader.borrow_mut().vector(shape, role),
        )
    }

    fn vector(&mut self, shape: &Shape, role: Role) -> Result<Vec<i32>, PackageError> {
        let bytes = self.bytes(4 * shape.extent(role).1)?;
        Ok(bytes.as_chunks().0.iter().map(|word| i32::from_le_bytes(*word)).collect())
    }

    fn matrix(
        &mut self,
        shape: &Shape,
        role: Role,
        format: Format,
    ) -> Result<Weights, PackageError> {
        let rows = shape.extent(role).0;
        let (padded, columns) = padded(shape, role);
        let exponents: Vec<i8> =
            self.bytes(padded)?.into_iter().map(|byte| i8::from_le_bytes([byte])).collect();
        let quants = self.bytes(padded * format.bytes(columns))?;
        let scales = self.bytes(2 * padded * columns / GROUP)?;
        let scales: Vec<u16> =
            scales.as_chunks().0.iter().map(|word| u16::from_le_bytes(*word)).collect();
        Weights::from_parts(format, rows, columns, &exponents, &quants, &scales)
            .map_err(|source| PackageError::Weights { tensor: role.to_string(), source })
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// Rows and columns of a matrix as stored.
fn padded(shape: &Shape, role: Role) -> (usize, usize) {
    let (rows, columns) = shape.extent(role);
    (rows.next_multiple_of(PANEL_ROWS), columns.next_multiple_of(COLUMNS_STEP))
}

fn stored_bytes(shape: &Shape, role: Role, format: Format) -> u128 {
    if role.is_vector() {
        return 4 * shape.extent(role).1 as u128;
    }
    let (rows, columns) = padded(shape, role);
    let groups = columns / GROUP;
    rows as u128 * (1 + format.bytes(columns) as u128 + 2 * groups as u128)
}

/// How the numbers of every tensor are stored; of a vector it says nothing.
type Formats = BTreeMap<Role, Format>;

/// The formats that a manifest names for the tensors of a shape.
fn formats(manifest: &Manifest, shape: &Shape) -> Result<Formats, PackageError> {
    let format = |kind| if kind == TensorKind::W4 as u8 { Format::W4 } else { Format::W8 };
    let kinds = manifest.tensors.iter().map(|tensor| format(tensor.kind));
    let formats: Formats = shape.roles().into_iter().zip(kinds).collect();
    // Whatever else a table says comes out different.
    let same = formats.len() == manifest.tensors.len()
        && commit::tensors(shape, |role| formats[&role]) == manifest.tensors;
    same.then_some(formats)
        .ok_or_else(|| PackageError::Altered { what: "tensor table", id: manifest.id() })
}

/// The shape a manifest and its recipe describe.
fn shape(manifest: &Manifest, recipe: &[u8]) -> Result<Shape, PackageError> {
    let sizes = &manifest.shape;
    let unsupported = |what, found: u64| Err(PackageError::Unsupported { what, found });
    let Some(family) = Family::from_code(manifest.family) else {
        return unsupported("family", manifest.family.into());
    };
    let pairing = match manifest.arithmetic.ropePairing {
        0 => Pairing::Halves,
        1 => Pairing::Adjacent,
        code => return unsupported("RoPE pairing", code.into()),
    };
    if manifest.arithmetic.activation != commit::activation_code(family.graph().activation) {
        return unsupported("activation", manifest.arithmetic.activation.into());
    }
    let (words, rest) = recipe.as_chunks::<4>();
    let mut recipe = words.iter().map(|word| f32::from_le_bytes(*word));
    let (Some(norm_eps), Some(base), true) = (recipe.next(), recipe.next(), rest.is_empty()) else {
        return Err(PackageError::Altered { what: "recipe", id: manifest.id() });
    };
    let window = match family {
        Family::Llama => None,
        _ => match (recipe.next(), recipe.next(), recipe.next()) {
            (Some(size), Some(every), Some(base)) if size >= 1.0 && every >= 1.0 => {
                Some(Window { size: size as usize, every: every as usize, base })
            }
            (Some(_), Some(_), Some(_)) => None,
            _ => return Err(PackageError::Altered { what: "recipe", id: manifest.id() }),
        },
    };
    let experts = match family.graph().routed {
        true => match (recipe.next(), recipe.next()) {
            // What is no count becomes one that the shape's check refuses, or no program agrees with.
            (Some(count), Some(chosen)) => {
                Some(Experts { count: count as usize, chosen: chosen as usize })
            }
            _ => return Err(PackageError::Altered { what: "recipe", id: manifest.id() }),
        },
        false => None,
    };
    let mut shape = Shape {
        family,
        width: sizes.width as usize,
        layers: sizes.layers as usize,
        heads: sizes.heads as usize,
        kv_heads: sizes.kvHeads as usize,
        head_dim: sizes.headDim as usize,
        hidden: sizes.hidden as usize,
        experts,
        vocab: sizes.vocab as usize,
        context: sizes.context as usize,
        norm_eps,
        rope: Rope { pairing, base, factors: recipe.collect() },
        window,
        tied: true,
    };
    shape.check()?;
    shape.tied = shape.roles().len() == manifest.tensors.len();
    Ok(shape)
}

fn precision(manifest: &Manifest) -> Result<Precision, PackageError> {
    let arithmetic = &manifest.arithmetic;
    let (layers, rest) = arithmetic.sites.as_chunks::<6>();
    if !rest.is_empty() {
        return Err(PackageError::Altered { what: "list of fraction bits", id: manifest.id() });
    }
    let sites = |&[attention_norm, query, value, attention, hidden_norm, hidden]: &[u8; 6]| Sites {
        attention_norm,
        query,
        value,
        attention,
        hidden_norm,
        hidden,
    };
    Ok(Precision {
        residual: arithmetic.residual,
        layers: layers.iter().map(sites).collect(),
        output_norm: arithmetic.outputNorm,
    })
}
