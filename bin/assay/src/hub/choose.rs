//! Which files of a repository make the model that is wanted.

use super::HubFile;
use super::reference::Variant;

/// The quantisations that can be imported, the most welcome first.
///
/// Our weights are 8-bit integers in groups of 32: `Q8_0` becomes them without loss and is half as long as
/// what is finer; what is coarser loses before it arrives.
const KINDS: [&str; 22] = [
    "Q8_0", "BF16", "F16", "F32", "Q6_K", "Q6_K_L", "Q5_K_M", "Q5_K_S", "Q5_K", "Q5_1", "Q5_0",
    "Q4_K_M", "Q4_K_S", "Q4_K", "Q4_1", "IQ4_NL", "Q4_0", "MXFP4", "Q3_K_L", "Q3_K_M", "Q3_K_S",
    "Q2_K",
];
/// What names quantisations that cannot be imported.
const UNREAD: [&str; 7] = ["IQ1_", "IQ2_", "IQ3_", "IQ4_XS", "TQ1_", "TQ2_", "NVFP4"];
/// What else a directory of safetensors needs, if the repository has it.
const BESIDE: [&str; 6] = [
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

/// The files that make one model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Chosen {
    /// One GGUF file.
    Gguf(HubFile),
    /// A directory with config.json and safetensors.
    Directory(Vec<HubFile>),
}

/// Why a repository gives no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChooseError {
    #[error("it has neither a GGUF file that can be imported nor config.json with safetensors")]
    Nothing {
        /// Its GGUF files.
        found: Vec<String>,
    },
    #[error("it has no {wanted}")]
    Missing {
        /// What was asked for.
        wanted: String,
        /// Its GGUF files.
        found: Vec<String>,
    },
    #[error("{kind} is in {count} of its files")]
    Several { kind: String, count: usize, found: Vec<String> },
    #[error("{file} is split over several files, which are not read")]
    Split { file: String, found: Vec<String> },
}

impl ChooseError {
    /// The GGUF files that there are.
    pub(crate) fn found(&self) -> &[String] {
        match self {
            Self::Nothing { found }
            | Self::Missing { found, .. }
            | Self::Several { found, .. }
            | Self::Split { found, .. } => found,
        }
    }
}

/// Picks the files of `variant`. Of equals the first by name, so that equal repositories give equal models.
pub(crate) fn choose(files: &[HubFile], variant: &Variant) -> Result<Chosen, ChooseError> {
    let mut models: Vec<&HubFile> = files.iter().filter(|file| is_model(&file.name)).collect();
    models.sort_by(|one, other| one.name.cmp(&other.name));
    let found = || models.iter().map(|file| file.name.clone()).collect::<Vec<_>>();
    match variant {
        Variant::Safetensors => directory(files).ok_or_else(|| ChooseError::Missing {
            wanted: "config.json with safetensors".into(),
            found: found(),
        }),
        Variant::File(name) => {
            let file = models.iter().find(|file| file.name == *name);
            let file =
                file.ok_or_else(|| ChooseError::Missing { wanted: name.clone(), found: found() })?;
            if is_split(name) {
                return Err(ChooseError::Split { file: name.clone(), found: found() });
            }
            Ok(Chosen::Gguf((*file).clone()))
        }
        Variant::Kind(kind) => {
            let of_kind: Vec<&&HubFile> =
                models.iter().filter(|file| kind_of(&file.name) == Some(kind)).collect();
            match of_kind.as_slice() {
                [] => Err(ChooseError::Missing {
                    wanted: format!("GGUF file of {kind} that can be imported"),
                    found: found(),
                }),
                [file] if is_split(&file.name) => {
                    Err(ChooseError::Split { file: file.name.clone(), found: found() })
                }
                [file] => Ok(Chosen::Gguf((**file).clone())),
                [first, ..] if is_split(&first.name) => {
                    Err(ChooseError::Split { file: first.name.clone(), found: found() })
                }
                several => {
                    let count = several.len();
                    Err(ChooseError::Several { kind: kind.clone(), count, found: found() })
                }
            }
        }
        Variant::Best => {
            let whole: Vec<&&HubFile> =
                models.iter().filter(|file| !is_split(&file.name)).collect();
            let best = KINDS
                .iter()
                .find_map(|kind| whole.iter().find(|file| kind_of(&file.name) == Some(*kind)));
            // A file that names no quantisation says what it is once it is read.
            let nameless = whole.iter().find(|file| {
                let name = base(&file.name).to_uppercase();
                kind_of(&name).is_none() && !UNREAD.iter().any(|kind| name.contains(kind))
            });
            if let Some(file) = best {
                return Ok(Chosen::Gguf((**file).clone()));
            }
            directory(files)
                .or_else(|| nameless.map(|file| Chosen::Gguf((**file).clone())))
                .ok_or_else(|| ChooseError::Nothing { found: found() })
        }
    }
}

/// Whether a file is a model's weights: not those of an image encoder, and not statistics about them.
fn is_model(name: &str) -> bool {
    let base = base(name).to_lowercase();
    base.ends_with(".gguf") && !base.starts_with("mmproj") && !base.contains("imatrix")
}

/// Whether a file is one of several that make a model, as `…-00001-of-00003.gguf`.
fn is_split(name: &str) -> bool {
    let stem = base(name).strip_suffix(".gguf").unwrap_or_default();
    let parts =
        stem.rsplit_once("-of-").and_then(|(head, last)| Some((head.rsplit_once('-')?.1, last)));
    parts.is_some_and(|(first, last)| {
        [first, last].iter().all(|part| part.len() == 5 && part.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// The quantisation that a file's name tells, as we write it.
pub(crate) fn kind_of(name: &str) -> Option<&'static str> {
    let base = base(name).to_uppercase().replace("FP16", "F16").replace("FP32", "F32");
    let is_word = |place: usize, kind: &str| {
        let edge = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_');
        let after = base[place + kind.len()..].chars().next();
        edge(base[..place].chars().next_back()) && edge(after)
    };
    KINDS.into_iter().find(|kind| base.match_indices(kind).any(|(place, _)| is_word(place, kind)))
}

/// How many bytes our package of a model has, about, for each that its file has.
pub(crate) fn growth(kind: Option<&str>) -> f64 {
    // Bits of a weight; ours have 8.5.
    let bits = match kind {
        Some("F32") => 32.0,
        Some("BF16" | "F16") | None => 16.0,
        Some("Q8_0") => 8.5,
        Some(kind) if kind.starts_with("Q6") => 6.6,
        Some(kind) if kind.starts_with("Q5") => 5.5,
        Some(kind) if kind.starts_with("Q3") => 3.4,
        Some(kind) if kind.starts_with("Q2") => 2.6,
        Some(_) => 4.5,
    };
    8.5 / bits
}

fn base(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// The directory with config.json and safetensors at the top of the repository, if there is one: the files
/// called `model….safetensors`, as other copies of the weights lie beside them in many.
fn directory(files: &[HubFile]) -> Option<Chosen> {
    let is_weights = |name: &str| {
        name.starts_with("model") && name.ends_with(".safetensors") && !name.contains('/')
    };
    let mut chosen: Vec<HubFile> = files
        .iter()
        .filter(|file| is_weights(&file.name) || BESIDE.contains(&file.name.as_str()))
        .cloned()
        .collect();
    chosen.sort_by(|one, other| one.name.cmp(&other.name));
    let has = |test: &dyn Fn(&str) -> bool| chosen.iter().any(|file| test(&file.name));
    (has(&|name| name == "config.json") && has(&is_weights)).then_some(Chosen::Directory(chosen))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], variant: &str, expected: Result<&str, &str>) {
        let files: Vec<HubFile> = names
            .iter()
            .map(|name| HubFile { name: (*name).into(), size: None, digest: None })
            .collect();
        let variant =
            if variant.is_empty() { Variant::Best } else { Variant::parse(variant).unwrap() };
        let chosen = choose(&files, &variant).map(|chosen| match chosen {
            Chosen::Gguf(file) => file.name,
            Chosen::Directory(files) => {
                files.into_iter().map(|file| file.name).collect::<Vec<_>>().join(" ")
            }
        });
        match expected {
            Ok(name) => assert_eq!(chosen.as_deref(), Ok(name), "{names:?}"),
            Err(word) => {
                let error = chosen.unwrap_err().to_string();
                assert!(error.contains(word), "{error}");
            }
        }
    }

    #[test]
    fn what_loses_nothing_and_is_short_comes_first() {
        let names =
            ["m-F16.gguf", "m-Q4_K_M.gguf", "m-q8_0.gguf", "config.json", "model.safetensors"];
        check(&names, "", Ok("m-q8_0.gguf"));
        check(&["m.Q4_K_M.gguf", "m.fp16.gguf"], "", Ok("m.fp16.gguf"));
        check(&["m-Q3_K_S.gguf", "m-Q4_K_S.gguf"], "", Ok("m-Q4_K_S.gguf"));
        check(&["b/m-Q8_0.gguf", "a/m-Q8_0.gguf"], "", Ok("a/m-Q8_0.gguf"));
        check(&["model.gguf"], "", Ok("model.gguf"));
        check(&["mmproj-Q8_0.gguf", "m-Q4_0.gguf", "m.imatrix.gguf"], "", Ok("m-Q4_0.gguf"));
    }

    #[test]
    fn a_directory_is_taken_without_what_is_no_part_of_it() {
        let names = [
            "README.md",
            "config.json",
            "consolidated.safetensors",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "onnx/model.safetensors",
            "tokenizer.json",
        ];
        let expected = "config.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors tokenizer.json";
        check(&names, "", Ok(expected));
        check(&["config.json", "m-Q8_0.gguf"], "safetensors", Err("config.json with safetensors"));
        check(
            &["m-Q8_0.gguf", "config.json", "model.safetensors"],
            "safetensors",
            Ok("config.json model.safetensors"),
        );
    }

    #[test]
    fn what_is_asked_for_is_what_comes() {
        let names = ["m-Q8_0.gguf", "m-Q4_K_M.gguf", "x/n-Q4_K_M.gguf", "m-Q4_0.gguf"];
        check(&names, "q4_0", Ok("m-Q4_0.gguf"));
        check(&names, "x/n-Q4_K_M.gguf", Ok("x/n-Q4_K_M.gguf"));
        check(&names, "q4_k_m", Err("in 2 of its files"));
        check(&names, "q6_k", Err("no GGUF file of Q6_K"));
        check(&names, "none.gguf", Err("no none.gguf"));
        // `Q4_K` is not the beginning of `Q4_K_M`.
        check(&names, "q4_k", Err("no GGUF file of Q4_K"));
    }

    #[test]
    fn what_cannot_be_read_is_not_fetched() {
        check(&["m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"], "", Err("neither"));
        check(&["m-Q8_0-00001-of-00002.gguf"], "q8_0", Err("split"));
        check(&["m-Q8_0-00001-of-00002.gguf"], "m-Q8_0-00001-of-00002.gguf", Err("split"));
        check(&["m-IQ2_XS.gguf"], "", Err("neither"));
        check(&[], "", Err("neither"));
    }
}
