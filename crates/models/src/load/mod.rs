//! Reads a model as others published it: one GGUF file, or a directory as Hugging Face lays it out.
//!
//! Opening reads the headers, checks every tensor against the sizes that the hyperparameters
//! demand, and refuses whatever it would otherwise have to ignore. Tensor bytes are read one
//! tensor at a time, on demand, so that a caller never holds a second copy of a model.
//!
//! All of it is foreign: bounds are checked before memory is taken, and no input panics.

mod directory;
mod error;
mod gguf;
mod routing;
mod safetensors;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use assay_kernels::{GROUP, HEAD_DIM_MAX, NORM_COLUMNS_MAX};

pub use error::LoadError;

use crate::shape::{LayerRole, Role, Shape};

/// Most layers a model may have.
const LAYERS_MAX: u64 = 1 << 10;
/// Most query heads a layer may have.
const HEADS_MAX: u64 = 1 << 10;
/// Longest row of a matrix: the integer sums of exact-1 are proved up to here.
const COLUMNS_MAX: u64 = assay_kernels::COLUMNS_MAX as u64;
/// Most experts a layer may have; the largest published models have some five hundred.
const EXPERTS_MAX: u64 = 1 << 10;
/// Most token ids a model may have.
const VOCAB_MAX: u64 = 1 << 20;
/// Most positions: the integer sums of attention are proved up to here.
const CONTEXT_MAX: u64 = 1 << 17;

/// A published model, opened and checked, with its tensors still on disk.
pub struct Source {
    /// What the tokenizer is made of; `None` when the source brings none.
    pub vocabulary: Option<SourceTokenizer>,
    /// Jinja template that turns a conversation into a prompt.
    pub chat_template: Option<String>,
    /// Name by which its publisher calls the model.
    pub name: String,
    /// Licence, as the publisher names it.
    pub licence: Option<String>,
    /// Where the model was opened; empty when it was read from memory.
    pub path: PathBuf,
    shape: Shape,
    files: Vec<Mutex<Box<dyn Bytes>>>,
    /// Where the parts of each tensor lie, one below the other; in most cases there is one.
    places: BTreeMap<Role, Vec<Place>>,
}

/// Raw parts of a tokenizer, in the words of the file that brought it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceTokenizer {
    /// The `tokenizer.ggml.*` keys of a GGUF file.
    Gguf {
        /// Algorithm: `gpt2` is byte-level BPE, `llama` SentencePiece, `bert` WordPiece, `t5` Unigram.
        model: String,
        /// Name of the rule that splits text into words.
        pre: Option<String>,
        /// Spelling of each token.
        tokens: Vec<String>,
        /// Kind of each token: 1 normal, 2 unknown, 3 control, 4 user, 5 unused, 6 byte.
        kinds: Vec<i32>,
        /// Merges, each "left right", best first.
        merges: Vec<String>,
        /// Scores of SentencePiece, as the bits of binary32; empty where there are none.
        score_bits: Vec<u32>,
        /// Whether SentencePiece puts a space before a text; `None` when the file does not say.
        space_first: Option<bool>,
        /// Whether spaces in a row become one; `None` when the file does not say.
        spaces_joined: Option<bool>,
        /// SentencePiece's map of characters as it stands in the file; empty where there is none.
        charsmap: Vec<u8>,
        /// Token that begins a text.
        bos: Option<u32>,
        /// Tokens that end an answer: end of text, of turn, of message; of `bert` and `t5` the one that
        /// ends a text, if one does.
        eos: Vec<u32>,
        /// Token that stands for what the vocabulary cannot spell.
        unknown: Option<u32>,
        /// Whether every text begins with `bos`; `None` when the file does not say.
        add_bos: Option<bool>,
    },
    /// The files of a Hugging Face directory.
    HuggingFace {
        /// Content of `tokenizer.json`.
        json: Vec<u8>,
        /// Token that begins a text.
        bos: Option<u32>,
        /// Tokens that end an answer.
        eos: Vec<u32>,
        /// Whether every text begins with `bos`; `None` when the directory does not say.
        add_bos: Option<bool>,
    },
}

/// A tensor's bytes as they are stored, with what is needed to read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawTensor {
    /// Name as GGUF files have it, whichever file it came from.
    pub name: String,
    /// How elements are stored.
    pub kind: Kind,
    /// Rows; one for a vector.
    pub rows: usize,
    /// Elements per row.
    pub columns: usize,
    /// (rows, columns), row by row, little endian.
    pub bytes: Vec<u8>,
}

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
    /// 32 elements in 34 bytes: binary16 scale, then 32 signed bytes.
    Q8_0,
    /// 32 elements in 18 bytes: binary16 scale, then 16 bytes whose low halves are elements 0–15
    /// and high halves 16–31, each 8 more than its value.
    Q4_0,
    /// As [`Kind::Q4_0`], with an offset beside the scale.
    Q4_1,
    /// As [`Kind::Q4_0`], with a fifth bit of each number apart.
    Q5_0,
    /// As [`Kind::Q5_0`], with an offset beside the scale.
    Q5_1,
    /// 256 elements of two bits, scale and offset per sixteen.
    Q2K,
    /// 256 elements of three bits, a scale per sixteen.
    Q3K,
    /// 256 elements of four bits, scale and offset per 32.
    Q4K,
    /// 256 elements of five bits, scale and offset per 32.
    Q5K,
    /// 256 elements of six bits, a scale per sixteen.
    Q6K,
    /// As [`Kind::Q4_0`], the numbers being steps of uneven size.
    Iq4Nl,
    /// 32 elements in 17 bytes: an exponent, then quarter-precision numbers of four bits.
    Mxfp4,
}

/// Every kind in the order of [`Kind`], the code that GGUF has for it, elements and bytes of a block.
const KINDS: [(Kind, u32, usize, usize); 15] = [
    (Kind::F32, 0, 1, 4),
    (Kind::F16, 1, 1, 2),
    (Kind::Bf16, 30, 1, 2),
    (Kind::Q8_0, 8, 32, 34),
    (Kind::Q4_0, 2, 32, 18),
    (Kind::Q4_1, 3, 32, 20),
    (Kind::Q5_0, 6, 32, 22),
    (Kind::Q5_1, 7, 32, 24),
    (Kind::Q2K, 10, 256, 84),
    (Kind::Q3K, 11, 256, 110),
    (Kind::Q4K, 12, 256, 144),
    (Kind::Q5K, 13, 256, 176),
    (Kind::Q6K, 14, 256, 210),
    (Kind::Iq4Nl, 20, 32, 18),
    (Kind::Mxfp4, 39, 32, 17),
];

impl Kind {
    /// The kind that GGUF files call by this code.
    pub(crate) fn from_ggml(code: u32) -> Option<Kind> {
        KINDS.iter().find(|(_, known, ..)| *known == code).map(|(kind, ..)| *kind)
    }

    /// Elements and bytes of the smallest unit.
    pub fn block(self) -> (usize, usize) {
        let (_, _, elements, bytes) = KINDS[self as usize];
        (elements, bytes)
    }

    /// Bytes of that many elements, `None` when they are too many to count.
    ///
    /// `elements` is taken to be a multiple of the block's.
    fn bytes(self, elements: u64) -> Option<u64> {
        let (block, bytes) = self.block();
        (elements / block as u64).checked_mul(bytes as u64)
    }
}

/// Where a tensor lies.
#[derive(Clone, Debug)]
struct Place {
    /// Index into [`Source::files`].
    file: usize,
    /// First byte, from the start of the file. `offset + bytes` is within the file.
    offset: u64,
    bytes: u64,
    kind: Kind,
    /// Outermost first.
    sizes: Vec<u64>,
}

/// A file, or bytes in memory that stand for one.
trait Bytes: Read + Seek + Send {}
impl<T: Read + Seek + Send> Bytes for T {}

/// Opens the model at `path`: a GGUF file, or a directory with `config.json` and safetensors.
///
/// # Errors
/// Fails when the model cannot be read, is damaged, or needs anything not supported here; the
/// error names the key or tensor.
pub fn open(path: &Path) -> Result<Source, LoadError> {
    if path.join("config.json").is_file() {
        return directory::open(path);
    }
    if !path.is_file() {
        return Err(LoadError::NotAModel { path: path.to_owned() });
    }
    let mut file = open_file(path)?;
    if !gguf::is_gguf(&mut file)? {
        return Err(LoadError::NotAModel { path: path.to_owned() });
    }
    let mut source = words::read(Box::new(file))?;
    if source.name.is_empty() {
        source.name = stem(path);
    }
    source.path = path.to_owned();
    Ok(source)
}

/// Reads the tokenizer of the GGUF file at `path`, and leaves the model in it alone: such files may
/// hold no tensor, or a model of a family that is not supported. `None` when it brings none.
///
/// # Errors
/// As [`open`].
pub fn open_vocabulary(path: &Path) -> Result<Option<SourceTokenizer>, LoadError> {
    words::read_vocabulary(Box::new(open_file(path)?))
}

/// Reads a GGUF model from bytes that need not be a file, such as a download in a browser.
///
/// # Errors
/// As [`open`].
pub fn read_gguf(bytes: impl Read + Seek + Send + 'static) -> Result<Source, LoadError> {
    words::read(Box::new(bytes))
}

impl Source {
    /// Sizes of the model.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Leaves away the positions from `context` on, which must not be more than there are.
    pub fn shorten(&mut self, context: usize) {
        self.shape.context = self.shape.context.min(context);
    }

    /// How a tensor's elements are stored; none for a tensor that the model does not have.
    pub fn kind(&self, role: Role) -> Option<Kind> {
        self.places.get(&role)?.first().map(|place| place.kind)
    }

    /// Reads one tensor.
    ///
    /// # Errors
    /// Fails when the model has no such tensor (the output of a tied model) or when reading fails,
    /// because the file has shrunk since it was opened, for example.
    pub fn tensor(&self, role: Role) -> Result<RawTensor, LoadError> {
        let name = role.to_string();
        let (Some(kind), Some(places)) = (self.kind(role), self.places.get(&role)) else {
            return Err(LoadError::Missing { what: format!("tensor {name}") });
        };
        let (rows, columns) = self.shape.extent(role);
        let mut left = kind.bytes((rows * columns) as u64).unwrap_or(u64::MAX);
        let mut bytes = Vec::new();
        for place in places {
            let mut file = self.files[place.file].lock().unwrap_or_else(PoisonError::into_inner);
            // Of a table, the first rows.
            let place = Place { bytes: place.bytes.min(left), ..place.clone() };
            left -= place.bytes;
            let part = read_at(file.as_mut(), &name, &place)?;
            if bytes.is_empty() {
                bytes = part;
            } else {
                bytes.extend(part);
            }
        }
        Ok(RawTensor { name, kind, rows, columns, bytes })
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("name", &self.name)
            .field("path", &self.path)
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

/// Reads the bytes of a place that is known to lie within its file.
fn read_at(file: &mut dyn Bytes, name: &str, place: &Place) -> Result<Vec<u8>, LoadError> {
    let failed = |source| LoadError::Io { what: format!("tensor {name}"), source };
    file.seek(SeekFrom::Start(place.offset)).map_err(failed)?;
    let needed = place.bytes;
    // `take` grows the vector with what is really there, not with what a header promised.
    let mut bytes = Vec::with_capacity(usize::try_from(needed).unwrap_or(0));
    file.take(needed).read_to_end(&mut bytes).map_err(failed)?;
    let left = bytes.len() as u64;
    if left < needed {
        return Err(LoadError::Truncated { what: format!("tensor {name}"), needed, left });
    }
    Ok(bytes)
}

/// Where a file keeps a tensor, or some of its rows.
struct Kept {
    /// The file's name for it, or for the larger one that it is part of.
    name: String,
    /// Its first row there, of a vector its first element.
    first: usize,
    /// Rows there, of a vector elements.
    rows: usize,
    /// Rows that are the tensor's, of a vector elements.
    units: usize,
    /// How many matrices of as many rows it is there, where the file counts them.
    stack: Option<usize>,
}

impl Kept {
    /// A tensor that the file keeps as one, or as part of `fused` where the family does so: the
    /// name without its ending.
    fn new(
        shape: &Shape,
        role: Role,
        name: String,
        fused: impl Fn(usize, Fused) -> String,
    ) -> Kept {
        use LayerRole as R;
        let graph = shape.graph();
        let (rows, columns) = shape.extent(role);
        let units = if role.is_vector() { columns } else { rows };
        let queries = shape.heads * shape.head_dim;
        let keys = shape.kv_heads * shape.head_dim;
        let part = |layer, which, first, rows| Kept {
            name: fused(layer, which),
            first,
            rows,
            units,
            stack: None,
        };
        let whole = Kept { name, first: 0, rows: units, units, stack: None };
        let Role::Layer(layer, part_of) = role else { return whole };
        let which = if role.is_bias() { Fused::AttentionBias } else { Fused::Attention };
        match part_of {
            R::Query | R::QueryBias if graph.fused_attention => {
                part(layer, which, 0, queries + 2 * keys)
            }
            R::Key | R::KeyBias if graph.fused_attention => {
                part(layer, which, queries, queries + 2 * keys)
            }
            R::Value | R::ValueBias if graph.fused_attention => {
                part(layer, which, queries + keys, queries + 2 * keys)
            }
            R::Gate if graph.fused_gate => part(layer, Fused::Gate, 0, 2 * shape.hidden),
            R::Up if graph.fused_gate => part(layer, Fused::Gate, shape.hidden, 2 * shape.hidden),
            _ => whole,
        }
    }
}

/// How many experts' matrices a tensor consists of, one below the other; none of other tensors.
fn stack(shape: &Shape, role: Role) -> Option<usize> {
    use LayerRole as R;
    match role {
        Role::Layer(_, R::ExpertGates | R::ExpertUps | R::ExpertDowns) => {
            shape.experts.map(|experts| experts.count)
        }
        _ => None,
    }
}

/// A tensor of a file that holds several of ours.
#[derive(Clone, Copy)]
enum Fused {
    /// Queries, keys and values.
    Attention,
    /// Their biases.
    AttentionBias,
    /// Gate and up.
    Gate,
}

/// Gives every role of the shape its tensor, from where `kept` says its parts lie in the file, one
/// below the other.
///
/// # Errors
/// Fails when a tensor is missing, has other sizes than the shape demands or parts of several types,
/// or is left over.
fn assign(
    shape: &Shape,
    tensors: BTreeMap<String, Place>,
    kept: impl Fn(Role) -> Vec<Kept>,
) -> Result<BTreeMap<Role, Vec<Place>>, LoadError> {
    let mut places: BTreeMap<Role, Vec<Place>> = BTreeMap::new();
    let mut used = BTreeSet::new();
    for role in shape.roles() {
        let own = places.entry(role).or_default();
        for kept in kept(role) {
            let Some(place) = tensors.get(&kept.name) else {
                return Err(LoadError::Missing { what: format!("tensor {}", kept.name) });
            };
            let place = part(shape, role, &kept, place)?;
            if let Some(first) = own.first().filter(|first| first.kind != place.kind) {
                return Err(LoadError::Value {
                    what: format!("the type of tensor {}", kept.name),
                    found: format!("{:?}", place.kind),
                    expected: format!("{:?}, that of the first expert", first.kind),
                });
            }
            own.push(place);
            used.insert(kept.name);
        }
    }
    match tensors.into_keys().find(|name| !used.contains(name)) {
        Some(name) => Err(LoadError::UnknownTensor { name, family: shape.graph().name }),
        None => Ok(places),
    }
}

/// The place of a tensor within that of the one it is part of.
fn part(shape: &Shape, role: Role, kept: &Kept, place: &Place) -> Result<Place, LoadError> {
    let (_, columns) = shape.extent(role);
    let (columns, units) = (if role.is_vector() { 1 } else { columns }, kept.units);
    let matrix = |rows: usize| vec![rows as u64, columns as u64];
    let expected = match kept.stack {
        _ if role.is_vector() => vec![kept.rows as u64],
        // A single matrix may stand without its count.
        Some(1) if place.sizes.len() == 2 => matrix(kept.rows),
        Some(count) => [vec![count as u64], matrix(kept.rows / count)].concat(),
        None => matrix(kept.rows),
    };
    // A text has one type, whose row stands first.
    let longer = role == Role::TokenType
        && matches!(*place.sizes, [rows, found] if rows > 0 && found == columns as u64);
    if place.sizes != expected && !longer {
        let (name, found) = (kept.name.clone(), place.sizes.clone());
        return Err(LoadError::Extent { name, found, expected });
    }
    let block = place.kind.block().0;
    if (kept.first * columns) % block != 0 || (units * columns) % block != 0 {
        let (name, found) = (kept.name.clone(), columns as u64);
        return Err(LoadError::Block { name, found, block: block as u64 });
    }
    let size = |units: usize| place.kind.bytes((units * columns) as u64).unwrap_or(0);
    let (offset, bytes) = (place.offset + size(kept.first), size(units));
    Ok(Place { file: place.file, offset, bytes, kind: place.kind, sizes: place.sizes.clone() })
}

/// Checks what the sizes of a model must satisfy together.
fn check(shape: &Shape) -> Result<(), LoadError> {
    let refuse = |what: &str, found: usize, expected: String| {
        Err(LoadError::Value { what: what.to_owned(), found: found.to_string(), expected })
    };
    for (what, found) in [
        ("width", shape.width),
        ("feed-forward width", shape.hidden),
        ("head size", shape.head_dim),
    ] {
        if found == 0 || found % GROUP != 0 {
            return refuse(what, found, format!("a multiple of {GROUP}"));
        }
    }
    if shape.width > NORM_COLUMNS_MAX {
        return refuse("width", shape.width, format!("at most {NORM_COLUMNS_MAX}"));
    }
    if shape.head_dim > HEAD_DIM_MAX {
        return refuse("head size", shape.head_dim, format!("at most {HEAD_DIM_MAX}"));
    }
    if shape.kv_heads == 0 || shape.heads % shape.kv_heads != 0 {
        let expected = format!("a divisor of the {} query heads", shape.heads);
        return refuse("number of key-value heads", shape.kv_heads, expected);
    }
    if (shape.heads * shape.head_dim) as u64 > COLUMNS_MAX {
        return refuse(
            "width of all heads",
            shape.heads * shape.head_dim,
            format!("at most {COLUMNS_MAX}"),
        );
    }
    if !(shape.norm_eps.is_finite() && shape.norm_eps > 0.0) {
        return Err(LoadError::Value {
            what: "epsilon of the norms".to_owned(),
            found: shape.norm_eps.to_string(),
            expected: "a positive number".to_owned(),
        });
    }
    // Refuses a base or factors outside the range of the tables.
    crate::rope::turns(&shape.rope, shape.head_dim)?;
    Ok(())
}

fn open_file(path: &Path) -> Result<File, LoadError> {
    File::open(path).map_err(|source| LoadError::Io { what: path.display().to_string(), source })
}

/// Length of a file, leaving its cursor at the start.
fn length(file: &mut dyn Bytes) -> Result<u64, LoadError> {
    let failed = |source| LoadError::Io { what: "the length of the file".to_owned(), source };
    let length = file.seek(SeekFrom::End(0)).map_err(failed)?;
    file.rewind().map_err(failed)?;
    Ok(length)
}

fn stem(path: &Path) -> String {
    path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default()
}
