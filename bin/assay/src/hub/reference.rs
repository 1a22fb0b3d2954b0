//! How a model on a hub is named: `org/name`, and which of its files.

use std::fmt;

/// Longest part of a name; the hub's own bound.
const PART_MAX: usize = 96;
/// What people paste in front of a name.
const PREFIXES: [&str; 4] =
    ["https://huggingface.co/", "https://hf.co/", "huggingface.co/", "hf.co/"];

/// A repository of a hub, and which of its files are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) org: String,
    pub(crate) name: String,
    pub(crate) variant: Variant,
}

/// Which of a repository's models is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Whatever suits us best.
    #[default]
    Best,
    /// The GGUF file of this quantisation, such as `Q8_0`.
    Kind(String),
    /// This GGUF file.
    File(String),
    /// The directory with config.json and safetensors.
    Safetensors,
}

impl Reference {
    /// Reads `org/name`, `org/name:Q8_0`, `org/name:FILE.gguf` or `org/name:safetensors`.
    ///
    /// The parts of the name become parts of URLs and paths, so they hold nothing that means anything
    /// there.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)).unwrap_or(text);
        let (place, variant) = match text.split_once(':') {
            Some((place, variant)) => (place, Variant::parse(variant)?),
            None => (text, Variant::Best),
        };
        let (org, name) = place.trim_end_matches('/').split_once('/')?;
        let is_part = |part: &str| {
            !part.is_empty()
                && part.len() <= PART_MAX
                && !part.starts_with(['.', '-'])
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        (is_part(org) && is_part(name)).then(|| Self {
            org: org.to_owned(),
            name: name.to_owned(),
            variant,
        })
    }

    /// `org/name`.
    pub(crate) fn repository(&self) -> String {
        format!("{}/{}", self.org, self.name)
    }
}

impl Variant {
    /// Reads what follows the colon; `None` for what can be no file of a repository.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("safetensors") {
            return Some(Self::Safetensors);
        }
        if !is_plain(text) {
            return None;
        }
        let is_file = text.to_lowercase().ends_with(".gguf");
        Some(if is_file { Self::File(text.to_owned()) } else { Self::Kind(text.to_uppercase()) })
    }
}

/// Whether a file's name leads nowhere but into its repository.
pub(crate) fn is_plain(name: &str) -> bool {
    name.len() <= 1024
        && !name.contains(['\\', ':'])
        && !name.contains(char::is_control)
        && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.org, self.name)?;
        match &self.variant {
            Variant::Best => Ok(()),
            Variant::Kind(kind) => write!(f, ":{kind}"),
            Variant::File(file) => write!(f, ":{file}"),
            Variant::Safetensors => f.write_str(":safetensors"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(Reference::parse(text).map(|it| it.to_string()).as_deref(), expected, "{text}");
    }

    #[test]
    fn names_as_people_write_them() {
        check("Qwen/Qwen2.5-0.5B", Some("Qwen/Qwen2.5-0.5B"));
        check("https://huggingface.co/a/b/", Some("a/b"));
        check("hf.co/a/b:q8_0", Some("a/b:Q8_0"));
        check("a/b:dir/m-Q4_K_M.gguf", Some("a/b:dir/m-Q4_K_M.gguf"));
        check("a/b:Safetensors", Some("a/b:safetensors"));
    }

    #[test]
    fn nothing_else_is_a_name() {
        let long = format!("a/{}", "b".repeat(97));
        for text in [
            "",
            "a",
            "a/",
            "/b",
            "a/b/c",
            "../b",
            "a/..",
            "a/.b",
            "a b/c",
            "a/b?c",
            "a/b:",
            "a/b:../x",
            "a/b:x/../y.gguf",
            "a/b:/etc",
            "a/b:x\ny",
            "a/b%2e",
            "-a/b",
            &long,
        ] {
            check(text, None);
        }
    }
}
