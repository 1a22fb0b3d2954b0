//! How a client wants tokens chosen and its answer ended: the fields that all APIs share.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::fields::{Fields, entries, items, kind, number, string};
use super::{Problem, shape};

/// Stop strings of one request.
const STOPS_MAX: usize = 4;

/// Bytes of one stop string. As tokens it is no longer, so providers take it.
const STOP_BYTES_MAX: usize = 256;

/// Logit biases of one request.
const BIASES_MAX: usize = 4096;

/// Notes on one stored reply, …
const NOTES_MAX: usize = 16;
/// … bytes of the name of one, …
const NOTE_NAME_BYTES_MAX: usize = 64;
/// … and of one itself.
const NOTE_BYTES_MAX: usize = 512;

/// Answers to one request.
pub(crate) const CHOICES_MAX: u32 = 128;

/// Fields that [`Sampling::read`] and [`stream`] read.
pub(crate) const FIELDS: &[&str] = &[
    "temperature",
    "top_p",
    "min_p",
    "top_k",
    "seed",
    "stop",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "logit_bias",
    "ignore_eos",
    "service_tier",
    "stream",
    "stream_options",
];

/// How tokens are chosen, and when they end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sampling {
    /// Most output tokens; what the context leaves if not given. Of none nothing is bought.
    pub(crate) max_tokens: Option<u32>,
    pub(crate) temperature: f64,
    pub(crate) top_p: f64,
    pub(crate) min_p: f64,
    /// Zero keeps all.
    pub(crate) top_k: u32,
    pub(crate) seed: Option<i64>,
    /// None is empty.
    pub(crate) stop: Vec<String>,
    pub(crate) frequency_penalty: f64,
    pub(crate) presence_penalty: f64,
    pub(crate) repetition_penalty: f64,
    pub(crate) logit_bias: BTreeMap<u32, f64>,
    /// Whether the answer goes on to its last token, as who measures wants it.
    pub(crate) ignore_eos: bool,
    /// Alternatives to tell with each token, and logprobs of all; none: no logprobs.
    pub(crate) logprobs: Option<u8>,
    /// Whether others may go first, because nobody waits for the answer.
    pub(crate) flex: bool,
    /// What the answer has to be a sentence of.
    pub(crate) grammar: Option<String>,
}

impl Sampling {
    /// Reads the fields; `max_tokens` and logprobs are called differently from API to API.
    ///
    /// # Errors
    /// What is of the wrong type or out of range, by name.
    pub(crate) fn read(fields: &Fields<'_>, max_tokens: Option<u32>) -> Result<Self, Problem> {
        Ok(Self {
            max_tokens,
            temperature: fields.number("temperature", 0.0..=2.0)?.unwrap_or(1.0),
            top_p: fields.number("top_p", 0.0..=1.0)?.unwrap_or(1.0),
            min_p: fields.number("min_p", 0.0..=1.0)?.unwrap_or(0.0),
            top_k: top_k(fields)?,
            seed: fields.integer("seed", i64::MIN..=i64::MAX)?,
            stop: stop(fields)?,
            frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0),
            presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0),
            repetition_penalty: fields.number("repetition_penalty", 0.0625..=16.0)?.unwrap_or(1.0),
            logit_bias: logit_bias(fields)?,
            ignore_eos: fields.boolean("ignore_eos")?.unwrap_or(false),
            logprobs: None,
            flex: is_flex(fields)?,
            // Of no tokens, nothing can be held to anything, but what is asked for must make sense.
            grammar: shape::grammar(fields)?.filter(|_| max_tokens != Some(0)),
        })
    }
}

/// Whether a request is for the tier that waits. All others are served alike.
fn is_flex(fields: &Fields<'_>) -> Result<bool, Problem> {
    match fields.string("service_tier")?.as_deref() {
        None | Some("auto" | "default" | "scale" | "priority") => Ok(false),
        Some("flex") => Ok(true),
        Some(other) => {
            let message = format!("{other:?} is no service tier: auto, default, flex or priority");
            Err(Problem::invalid_value("service_tier", message))
        }
    }
}

/// How many answers are wanted.
pub(crate) fn choices(fields: &Fields<'_>) -> Result<u32, Problem> {
    let n = fields.integer("n", 1..=i64::from(CHOICES_MAX))?;
    Ok(n.and_then(|n| u32::try_from(n).ok()).unwrap_or(1))
}

/// A number of tokens under this name.
pub(crate) fn tokens(fields: &Fields<'_>, name: &str) -> Result<Option<u32>, Problem> {
    let tokens = fields.integer(name, 0..=i64::from(u32::MAX))?;
    Ok(tokens.and_then(|tokens| u32::try_from(tokens).ok()))
}

/// What a client notes on a reply that is stored: up to sixteen short texts by short names.
pub(crate) fn metadata(fields: &Fields<'_>) -> Result<Map<String, Value>, Problem> {
    let Some(raw) = fields.get("metadata") else { return Ok(Map::new()) };
    let mut notes = Map::new();
    for (name, raw) in entries(raw, "metadata", NOTES_MAX)? {
        let note = string(raw, &format!("metadata[{name}]"))?;
        if name.len() > NOTE_NAME_BYTES_MAX || note.len() > NOTE_BYTES_MAX {
            let message = format!(
                "metadata has names of at most {NOTE_NAME_BYTES_MAX} bytes and texts of at most \
                 {NOTE_BYTES_MAX}"
            );
            return Err(Problem::too_long("metadata", message));
        }
        notes.insert(name, note.into());
    }
    Ok(notes)
}

/// The notes in a body that has nothing else.
pub(crate) fn sent_metadata(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    let fields = Fields::of_body(body, &[&["metadata"]])?;
    if fields.get("metadata").is_none() {
        return Err(Problem::missing("metadata"));
    }
    metadata(&fields)
}

/// Whether a stream is wanted, and whether it ends with a chunk of usage.
pub(crate) fn stream(fields: &Fields<'_>) -> Result<(bool, bool), Problem> {
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let Some(raw) = fields.get("stream_options") else { return Ok((stream, false)) };
    let known = &["include_usage", "include_obfuscation"];
    let options = Fields::of(raw, "stream_options".into(), known)?;
    // Padding that hides the length of pieces is not offered; who asks for it loses no word.
    options.boolean("include_obfuscation")?;
    let usage = options.boolean("include_usage")?.unwrap_or(false);
    Ok((stream, usage))
}

/// Refuses fields that would change the answer and cannot, unless they have a value that asks for
/// nothing.
pub(crate) fn refuse(fields: &Fields<'_>, unsupported: &[(&str, &[&str])]) -> Result<(), Problem> {
    for (name, allowed) in unsupported {
        let Some(raw) = fields.get(name) else { continue };
        if !allowed.contains(&compact(raw).as_str()) {
            let message = match allowed {
                [] => format!("{name} is not supported"),
                _ => format!("{name} is not supported, except as {}", allowed.join(" or ")),
            };
            return Err(Problem::unsupported(name, message));
        }
    }
    Ok(())
}

/// The start of a value without white space; enough to tell the values that ask for nothing.
pub(crate) fn compact(raw: &RawValue) -> String {
    raw.get().chars().filter(|c| !c.is_ascii_whitespace()).take(64).collect()
}

fn top_k(fields: &Fields<'_>) -> Result<u32, Problem> {
    // Some clients say -1 for all.
    let top_k = fields.integer("top_k", -1..=i64::from(u32::MAX))?.unwrap_or(0);
    Ok(u32::try_from(top_k).unwrap_or(0))
}

fn stop(fields: &Fields<'_>) -> Result<Vec<String>, Problem> {
    let Some(raw) = fields.get("stop") else { return Ok(Vec::new()) };
    let stops = match kind(raw) {
        "a string" => vec![string(raw, "stop")?],
        "an array" => {
            let named = items(raw, "stop", STOPS_MAX)?.into_iter().enumerate();
            named
                .map(|(index, raw)| string(raw, &format!("stop[{index}]")))
                .collect::<Result<_, _>>()?
        }
        found => return Err(Problem::invalid_type("stop", "a string or an array", found)),
    };
    if stops.iter().any(String::is_empty) {
        return Err(Problem::invalid_value("stop", "a stop string is empty"));
    }
    if let Some(long) = stops.iter().find(|stop| stop.len() > STOP_BYTES_MAX) {
        let message = format!("a stop string has {} bytes, at most {STOP_BYTES_MAX}", long.len());
        return Err(Problem::too_long("stop", message));
    }
    Ok(stops)
}

fn logit_bias(fields: &Fields<'_>) -> Result<BTreeMap<u32, f64>, Problem> {
    let Some(raw) = fields.get("logit_bias") else { return Ok(BTreeMap::new()) };
    let mut biases = BTreeMap::new();
    for (token, raw) in entries(raw, "logit_bias", BIASES_MAX)? {
        let bias = number(raw, &format!("logit_bias[{token}]"), &(-100.0..=100.0))?;
        match token.parse::<u32>() {
            Ok(id) => drop(biases.insert(id, bias)),
            // A bias of zero asks for nothing, whatever it is for.
            Err(_) if bias == 0.0 => {}
            Err(_) => {
                let message = format!("logit_bias names {token:?}, which is not a token id");
                return Err(Problem::invalid_value("logit_bias", message));
            }
        }
    }
    Ok(biases)
}
