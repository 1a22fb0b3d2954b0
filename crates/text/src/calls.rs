//! Reads the calls of tools out of what a model writes.
//!
//! Each family was taught its own way to write a call; its template shows which. Text passes on as it
//! comes, except what may begin a call, which is held until that is known. What turns out to be no
//! call is text.

use serde::Deserialize;
use serde_json::value::RawValue;

/// A function that a model may ask to have called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// What it is called.
    pub name: String,
    /// The JSON schema of its arguments; none: it takes none.
    pub parameters: Option<String>,
    /// The whole tool as JSON, as templates show it to the model.
    pub json: String,
}

/// A call that a model asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which tool.
    pub name: String,
    /// Its arguments, as JSON text.
    pub arguments: String,
}

/// How a model writes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFormat {
    /// `<tool_call>{"name": …, "arguments": …}</tool_call>`: Hermes, Qwen, and whoever was not taught.
    Tagged,
    /// The answer is `{"name": …, "parameters": …}`: Llama 3.
    Bare,
    /// `[TOOL_CALLS][{"name": …, "arguments": …}]`: Mistral.
    Listed,
}

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
const LIST: &str = "[TOOL_CALLS]";
const PYTHON: &str = "<|python_tag|>";

/// Longest call that is held back, in bytes; what is longer is text.
const CALL_BYTES_MAX: usize = 1 << 20;

impl CallFormat {
    /// The one that a chat template shows.
    pub fn of_template(source: &str) -> Self {
        if source.contains(OPEN) {
            Self::Tagged
        } else if source.contains(LIST) {
            Self::Listed
        } else if source.contains(PYTHON) || source.contains("\"parameters\": ") {
            Self::Bare
        } else {
            Self::Tagged
        }
    }

    /// What stands before the calls, between two, and after them.
    pub(crate) fn frame(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Tagged => ("<tool_call>\n", "\n</tool_call>\n<tool_call>\n", "\n</tool_call>"),
            Self::Bare => ("", "; ", ""),
            Self::Listed => ("[", ", ", "]"),
        }
    }

    pub(crate) fn arguments_key(self) -> &'static str {
        match self {
            Self::Bare => "parameters",
            Self::Tagged | Self::Listed => "arguments",
        }
    }

    /// What may begin a call, longest first.
    fn openings(self) -> &'static [&'static str] {
        match self {
            Self::Tagged => &[OPEN],
            Self::Bare => &[PYTHON, "{"],
            Self::Listed => &[LIST, "[{"],
        }
    }
}

/// A part of what a model wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Words.
    Text(String),
    /// A call.
    Call(Call),
}

/// Tells calls from text, while it comes.
#[derive(Debug)]
pub struct CallReader {
    format: CallFormat,
    /// What is held back.
    held: String,
    /// Whether what is held back began a call.
    within: bool,
    /// Whether anything but white space has passed.
    spoken: bool,
    /// Whether a call is what came last.
    called: bool,
}

impl CallReader {
    /// Before the first word.
    pub fn new(format: CallFormat) -> Self {
        Self { format, held: String::new(), within: false, spoken: false, called: false }
    }

    /// Takes more text; gives what can be told now.
    pub fn push(&mut self, text: &str) -> Vec<Said> {
        self.held += text;
        let mut said = Vec::new();
        while self.step(&mut said) {}
        said
    }

    /// The rest, after the last text.
    pub fn finish(mut self) -> Vec<Said> {
        let mut said = Vec::new();
        let held = std::mem::take(&mut self.held);
        if !self.within {
            // White space after a call is none of the text.
            let rest = if self.called { held.trim_start() } else { &held };
            self.speak(rest.to_owned(), &mut said);
            return said;
        }
        match calls(self.format, &held) {
            Some(calls) => said.extend(calls.into_iter().map(Said::Call)),
            None => self.speak(held, &mut said),
        }
        said
    }

    /// True if more can be told.
    fn step(&mut self, said: &mut Vec<Said>) -> bool {
        if self.within { self.close(said) } else { self.open(said) }
    }

    /// Passes text on up to where a call may begin.
    fn open(&mut self, said: &mut Vec<Said>) -> bool {
        // A call without a mark of its own can only be the whole answer.
        let unmarked = |opening: &str| opening.starts_with(['{', '[']) && opening != LIST;
        let openings = self.format.openings().iter().filter(|o| !self.spoken || !unmarked(o));
        let found = openings
            .clone()
            .filter_map(|opening| {
                let at = self.held.find(opening)?;
                let first = self.held[..at].trim().is_empty();
                (first || !unmarked(opening)).then_some(at)
            })
            .min();
        if let Some(at) = found {
            let rest = self.held.split_off(at);
            let before = std::mem::replace(&mut self.held, rest);
            let before = if self.called { before.trim() } else { before.trim_end() };
            self.speak(before.to_owned(), said);
            self.within = true;
            return true;
        }
        let settled =
            openings.map(|opening| settled(&self.held, opening)).min().unwrap_or(self.held.len());
        // White space waits, because before a call it is none of the text.
        let settled = self.held[..settled].trim_end().len();
        let rest = self.held.split_off(settled);
        let before = std::mem::replace(&mut self.held, rest);
        let before = if self.called { before.trim_start() } else { &before };
        self.speak(before.to_owned(), said);
        false
    }

    /// Takes a call that is complete.
    fn close(&mut self, said: &mut Vec<Said>) -> bool {
        if self.held.len() > CALL_BYTES_MAX {
            self.within = false;
            self.spoken = true;
            let held = std::mem::take(&mut self.held);
            self.speak(held, said);
            return false;
        }
        if self.format != CallFormat::Tagged {
            return false;
        }
        let Some(end) = self.held.find(CLOSE) else { return false };
        let rest = self.held.split_off(end + CLOSE.len());
        let call = std::mem::replace(&mut self.held, rest);
        self.within = false;
        match calls(self.format, &call) {
            Some(calls) => {
                said.extend(calls.into_iter().map(Said::Call));
                self.called = true;
            }
            None => self.speak(call, said),
        }
        true
    }

    fn speak(&mut self, text: String, said: &mut Vec<Said>) {
        if text.is_empty() {
            return;
        }
        self.spoken |= !text.trim().is_empty();
        self.called = false;
        said.push(Said::Text(text));
    }
}

/// How much of `text` cannot be part of an `opening` that is still to be completed.
fn settled(text: &str, opening: &str) -> usize {
    let longest = (1..opening.len()).rev().find(|&n| text.ends_with(&opening[..n]));
    text.len() - longest.unwrap_or(0)
}

/// The calls that `text` writes, if it writes nothing else.
fn calls(format: CallFormat, text: &str) -> Option<Vec<Call>> {
    let text = text.trim();
    match format {
        CallFormat::Tagged => {
            let inner = text.strip_prefix(OPEN)?;
            Some(vec![call(inner.strip_suffix(CLOSE).unwrap_or(inner))?])
        }
        CallFormat::Bare => {
            let inner = text.strip_prefix(PYTHON).unwrap_or(text);
            let mut values = serde_json::Deserializer::from_str(inner).into_iter::<&RawValue>();
            let mut calls = Vec::new();
            let mut rest = inner;
            // Objects stand one after the other, with or without a semicolon between them.
            loop {
                calls.push(call(values.next()?.ok()?.get())?);
                rest = rest.get(values.byte_offset()..)?.trim_start();
                rest = rest.strip_prefix(';').unwrap_or(rest).trim();
                if rest.is_empty() {
                    return Some(calls);
                }
                values = serde_json::Deserializer::from_str(rest).into_iter();
            }
        }
        CallFormat::Listed => {
            let inner = text.strip_prefix(LIST).unwrap_or(text);
            let calls: Vec<&RawValue> = serde_json::from_str(inner).ok()?;
            calls.into_iter().map(|raw| call(raw.get())).collect()
        }
    }
}

/// One call, as JSON.
fn call(json: &str) -> Option<Call> {
    #[derive(Deserialize)]
    struct Written<'a> {
        name: String,
        #[serde(borrow, alias = "parameters")]
        arguments: Option<&'a RawValue>,
    }
    let written: Written<'_> = serde_json::from_str(json).ok()?;
    let arguments = match written.arguments.map(RawValue::get) {
        None | Some("null") => "{}".to_owned(),
        // Some models write the arguments as a string that holds JSON.
        Some(raw) if raw.starts_with('"') => serde_json::from_str(raw).ok()?,
        Some(raw) => raw.to_owned(),
    };
    Some(Call { name: written.name, arguments })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is said, text as it is and calls in brackets, whatever pieces it comes in.
    fn check(format: CallFormat, text: &str, expected: &str) {
        for size in [1, 2, 3, 7, text.len().max(1)] {
            let mut reader = CallReader::new(format);
            let chars: Vec<char> = text.chars().collect();
            let mut said: Vec<Said> = Vec::new();
            for piece in chars.chunks(size) {
                said.extend(reader.push(&piece.iter().collect::<String>()));
            }
            said.extend(reader.finish());
            let told: String = said
                .into_iter()
                .map(|part| match part {
                    Said::Text(text) => text,
                    Said::Call(call) => format!("[{} {}]", call.name, call.arguments),
                })
                .collect();
            assert_eq!(told, expected, "{text} in pieces of {size}");
        }
    }

    #[test]
    fn tagged_calls() {
        let check = |text, expected| check(CallFormat::Tagged, text, expected);
        check("1 < 2 <tool", "1 < 2 <tool");
        check(
            "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"b\":1, \"a\":2}}\n</tool_call>",
            "[f {\"b\":1, \"a\":2}]",
        );
        check(
            "Let me see. \n<tool_call>{\"name\":\"f\"}</tool_call>\n<tool_call>{\"name\":\"g\",\"arguments\":\"{}\"}</tool_call>\n",
            "Let me see.[f {}][g {}]",
        );
        check("<tool_call>{\"name\":\"f\"}", "[f {}]");
        check("<tool_call>oops</tool_call> ok", "<tool_call>oops</tool_call> ok");
        check("<tool_call>{\"name\":", "<tool_call>{\"name\":");
        check("  hi  ", "  hi  ");
    }

    #[test]
    fn bare_calls_are_whole_answers() {
        let check = |text, expected| check(CallFormat::Bare, text, expected);
        check("{\"name\": \"f\", \"parameters\": {\"x\": \"}\"}}", "[f {\"x\": \"}\"}]");
        check("<|python_tag|>{\"name\": \"f\", \"parameters\": {}}", "[f {}]");
        check("{\"name\":\"f\"}; {\"name\":\"g\"}", "[f {}][g {}]");
        check("{\"answer\": 42}", "{\"answer\": 42}");
        check("so {\"name\":\"f\"}", "so {\"name\":\"f\"}");
        check("{\"name\":\"f\"} and more", "{\"name\":\"f\"} and more");
    }

    #[test]
    fn listed_calls() {
        let check = |text, expected| check(CallFormat::Listed, text, expected);
        check("[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"x\": 1}}]", "[f {\"x\": 1}]");
        check("[{\"name\":\"f\"}, {\"name\":\"g\"}]", "[f {}][g {}]");
        check("[1, 2]", "[1, 2]");
        check("well [TOOL_CALLS][{\"name\":\"f\"}]", "well[f {}]");
    }

    #[test]
    fn templates_show_how() {
        let check = |source, expected| assert_eq!(CallFormat::of_template(source), expected);
        check("… <tool_call> …", CallFormat::Tagged);
        check("… [TOOL_CALLS] …", CallFormat::Listed);
        check("… <|python_tag|> …", CallFormat::Bare);
        check("plain", CallFormat::Tagged);
    }

    proptest! {
        #[test]
        fn no_text_is_lost(pieces in proptest::collection::vec("[a-z{}<>\\[\\]\": ]{0,9}|<tool_call>|</tool_call>", 0..9)) {
            for format in [CallFormat::Tagged, CallFormat::Bare, CallFormat::Listed] {
                let mut reader = CallReader::new(format);
                let mut said: Vec<Said> = pieces.iter().flat_map(|piece| reader.push(piece)).collect();
                said.extend(reader.finish());
                if said.iter().any(|part| matches!(part, Said::Call(_))) {
                    continue;
                }
                let told: String = said.iter().map(|part| match part {
                    Said::Text(text) => text.as_str(),
                    Said::Call(_) => "",
                }).collect();
                let bare = |text: &str| text.split_whitespace().collect::<String>();
                prop_assert_eq!(bare(&told), bare(&pieces.concat()));
            }
        }
    }
}
