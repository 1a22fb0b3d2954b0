//! Reads the calls of tools out of what a model writes.
//!
//! Each family was taught its own way to write a call; its template shows which. Text passes on as it
//! comes, except what may begin a call, which is held until that is known: once a tool that was offered is
//! named, its arguments pass on as they come. What turns out to be no call is text.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A function that a model may ask to have called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// What it is called.
    pub name: String,
    /// The JSON schema of its arguments; none: it takes none.
    pub parameters: Option<String>,
    /// Whether its calls are held to that schema, come what may.
    pub strict: bool,
    /// The whole tool as JSON, as templates show it to the model.
    pub json: String,
}

/// A call that a model asked for, as its client tells it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// What its result is told by.
    pub id: String,
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

pub(crate) const OPEN: &str = "<tool_call>";
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
    /// The beginning of a call of the tool with this name.
    Call(String),
    /// More of the arguments of the last call, which are JSON.
    Arguments(String),
}

/// Tells calls from text, while it comes.
#[derive(Debug)]
pub struct CallReader {
    format: CallFormat,
    /// Tools that may be called.
    offered: Vec<String>,
    place: Place,
    /// What is held back.
    held: String,
    /// Whether anything but white space has passed.
    spoken: bool,
    /// Whether a call is what came last.
    called: bool,
}

/// Where in an answer a reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Between calls.
    Text,
    /// What is held began a call, and has not named a tool that was offered.
    Head,
    /// What is held goes on a call's arguments.
    Arguments(Scan),
    /// The arguments are over, the call is not; whether its own bracket is closed.
    Tail(bool),
}

/// How far a JSON object is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Scan {
    depth: usize,
    quoted: bool,
    escaped: bool,
}

impl Scan {
    /// Bytes of `text` up to the end of the object, if it ends there.
    fn push(&mut self, text: &str) -> Option<usize> {
        for (place, byte) in text.bytes().enumerate() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.quoted => self.escaped = true,
                b'"' => self.quoted = !self.quoted,
                _ if self.quoted => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(place + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

impl CallReader {
    /// Before the first word; a call of anything but what is `offered` is text.
    pub fn new(format: CallFormat, offered: Vec<String>) -> Self {
        let (place, held) = (Place::Text, String::new());
        Self { format, offered, place, held, spoken: false, called: false }
    }

    /// Takes more text; gives what can be told now.
    pub fn push(&mut self, text: &str) -> Vec<Said> {
        self.held += text;
        let mut said = Vec::new();
        while self.step(&mut said) {}
        said
    }

    /// The rest, after the last text.
    pub fn finish(&mut self) -> Vec<Said> {
        let mut said = Vec::new();
        let held = std::mem::take(&mut self.held);
        match self.place {
            Place::Text => {
                // White space after a call is none of the text.
                let rest = if self.called { held.trim_start() } else { &held };
                self.speak(rest.to_owned(), &mut said);
            }
            Place::Head => match calls(self.format, &held) {
                Some(calls) if self.offers(&calls) => tell(calls, &mut said),
                _ => self.speak(held, &mut said),
            },
            // An answer that breaks off leaves its call as it is.
            Place::Arguments(_) | Place::Tail(_) => {}
        }
        said
    }

    /// True if more can be told.
    fn step(&mut self, said: &mut Vec<Said>) -> bool {
        match self.place {
            Place::Text => self.open(said),
            Place::Head => self.head(said),
            Place::Arguments(scan) => self.arguments(scan, said),
            Place::Tail(closed) => self.tail(closed),
        }
    }

    fn offers(&self, calls: &[(String, String)]) -> bool {
        calls.iter().all(|(name, _)| self.offered.contains(name))
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
            self.place = Place::Head;
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

    /// Waits for the name of a tool; a call that does not begin by it is read once it is complete.
    fn head(&mut self, said: &mut Vec<Said>) -> bool {
        if let Some((name, at)) = head(self.format, &self.held)
            && self.offered.contains(&name)
        {
            self.held.drain(..at);
            said.push(Said::Call(name));
            self.place = Place::Arguments(Scan::default());
            self.called = true;
            return true;
        }
        if self.held.len() > CALL_BYTES_MAX {
            let held = std::mem::take(&mut self.held);
            self.place = Place::Text;
            self.spoken = true;
            self.speak(held, said);
            return false;
        }
        if self.format != CallFormat::Tagged {
            return false;
        }
        let Some(end) = self.held.find(CLOSE) else { return false };
        let rest = self.held.split_off(end + CLOSE.len());
        let call = std::mem::replace(&mut self.held, rest);
        self.place = Place::Text;
        match calls(self.format, &call) {
            Some(calls) if self.offers(&calls) => {
                tell(calls, said);
                self.called = true;
            }
            _ => self.speak(call, said),
        }
        true
    }

    /// Passes arguments on up to their end.
    fn arguments(&mut self, scan: Scan, said: &mut Vec<Said>) -> bool {
        let mut scan = scan;
        let end = scan.push(&self.held);
        let rest = end.map_or_else(String::new, |end| self.held.split_off(end));
        let more = std::mem::replace(&mut self.held, rest);
        if !more.is_empty() {
            said.push(Said::Arguments(more));
        }
        self.place = match end {
            Some(_) => Place::Tail(false),
            None => Place::Arguments(scan),
        };
        end.is_some()
    }

    /// Waits for the end of a call, or for the next one.
    fn tail(&mut self, closed: bool) -> bool {
        if self.format == CallFormat::Tagged {
            let Some(end) = self.held.find(CLOSE) else {
                // Nothing belongs here, so nothing is lost; what may begin the end is kept.
                let settled = settled(&self.held, CLOSE);
                self.held.drain(..settled);
                return false;
            };
            self.held.drain(..end + CLOSE.len());
            self.place = Place::Text;
            return true;
        }
        let blank = self.held.len() - self.held.trim_start().len();
        self.held.drain(..blank);
        let Some(sign) = self.held.chars().next() else { return false };
        self.place = match (closed, sign) {
            (false, '}') => Place::Tail(true),
            (true, ';') if self.format == CallFormat::Bare => Place::Tail(true),
            (true, ',') if self.format == CallFormat::Listed => Place::Tail(true),
            (true, ']') if self.format == CallFormat::Listed => Place::Text,
            (true, '{') => {
                self.place = Place::Head;
                return true;
            }
            _ => {
                self.place = Place::Text;
                // What follows is no call without a mark, whatever it looks like.
                self.spoken = true;
                return true;
            }
        };
        self.held.drain(..sign.len_utf8());
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

fn tell(calls: Vec<(String, String)>, said: &mut Vec<Said>) {
    for (name, arguments) in calls {
        said.extend([Said::Call(name), Said::Arguments(arguments)]);
    }
}

/// How much of `text` cannot be part of an `opening` that is still to be completed.
fn settled(text: &str, opening: &str) -> usize {
    let longest = (1..opening.len()).rev().find(|&n| text.ends_with(&opening[..n]));
    text.len() - longest.unwrap_or(0)
}

/// The tool that a call names, and where its arguments begin, if it says both in this order.
fn head(format: CallFormat, text: &str) -> Option<(String, usize)> {
    let mut rest = text.trim_start();
    let mark = match format {
        CallFormat::Tagged => OPEN,
        CallFormat::Bare => PYTHON,
        CallFormat::Listed => LIST,
    };
    rest = rest.strip_prefix(mark).unwrap_or(rest).trim_start();
    if format == CallFormat::Listed {
        rest = rest.strip_prefix('[').unwrap_or(rest);
    }
    for sign in ["{", "\"name\"", ":"] {
        rest = rest.trim_start().strip_prefix(sign)?;
    }
    rest = rest.trim_start();
    let mut names = serde_json::Deserializer::from_str(rest).into_iter::<String>();
    let name = names.next()?.ok()?;
    rest = rest.get(names.byte_offset()..)?.trim_start().strip_prefix(',')?.trim_start();
    let key = ["\"arguments\"", "\"parameters\""].iter().find_map(|key| rest.strip_prefix(key))?;
    rest = key.trim_start().strip_prefix(':')?.trim_start();
    rest.starts_with('{').then_some((name, text.len() - rest.len()))
}

/// The calls that `text` writes, if it writes nothing else: names and arguments.
fn calls(format: CallFormat, text: &str) -> Option<Vec<(String, String)>> {
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
fn call(json: &str) -> Option<(String, String)> {
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
    Some((written.name, arguments))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is said, text as it is and calls in brackets, whatever pieces it comes in.
    fn check(format: CallFormat, text: &str, expected: &str) {
        for size in [1, 2, 3, 7, text.len().max(1)] {
            let mut reader = CallReader::new(format, vec!["f".into(), "g".into()]);
            let chars: Vec<char> = text.chars().collect();
            let mut said: Vec<Said> = Vec::new();
            for piece in chars.chunks(size) {
                said.extend(reader.push(&piece.iter().collect::<String>()));
            }
            said.extend(reader.finish());
            let told: String = said
                .into_iter()
                .map(|part| match part {
                    Said::Text(text) | Said::Arguments(text) => text,
                    Said::Call(name) => format!("|{name} "),
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
            "|f {\"b\":1, \"a\":2}",
        );
        check(
            "Let me see. \n<tool_call>{\"name\":\"f\"}</tool_call>\n<tool_call>{\"name\":\"g\",\"arguments\":\"{}\"}</tool_call>\n",
            "Let me see.|f {}|g {}",
        );
        check("<tool_call>{\"name\":\"f\"}", "|f {}");
        check("<tool_call>oops</tool_call> ok", "<tool_call>oops</tool_call> ok");
        check("<tool_call>{\"name\":", "<tool_call>{\"name\":");
        check("  hi  ", "  hi  ");
    }

    #[test]
    fn bare_calls_are_whole_answers() {
        let check = |text, expected| check(CallFormat::Bare, text, expected);
        check("{\"name\": \"f\", \"parameters\": {\"x\": \"}\"}}", "|f {\"x\": \"}\"}");
        check("<|python_tag|>{\"name\": \"f\", \"parameters\": {}}", "|f {}");
        check("{\"name\":\"f\"}; {\"name\":\"g\"}", "|f {}|g {}");
        check("{\"answer\": 42}", "{\"answer\": 42}");
        check("so {\"name\":\"f\"}", "so {\"name\":\"f\"}");
        check("{\"name\":\"f\"} and more", "{\"name\":\"f\"} and more");
    }

    #[test]
    fn listed_calls() {
        let check = |text, expected| check(CallFormat::Listed, text, expected);
        check("[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"x\": 1}}]", "|f {\"x\": 1}");
        check("[{\"name\":\"f\"}, {\"name\":\"g\"}]", "|f {}|g {}");
        check("[1, 2]", "[1, 2]");
        check("well [TOOL_CALLS][{\"name\":\"f\"}]", "well|f {}");
    }

    #[test]
    fn calls_of_what_was_not_offered_are_text() {
        let text = "<tool_call>{\"name\": \"h\", \"arguments\": {}}</tool_call>";
        check(CallFormat::Tagged, text, text);
        check(CallFormat::Bare, "{\"name\": \"Bob\"}", "{\"name\": \"Bob\"}");
        let list = "[{\"name\": \"Bob\", \"arguments\": {}}]";
        check(CallFormat::Listed, list, list);
    }

    #[test]
    fn arguments_pass_on_as_they_come() {
        let mut reader = CallReader::new(CallFormat::Tagged, vec!["f".into()]);
        assert_eq!(reader.push("<tool_call>\n{\"name\": \"f\", \"argu"), []);
        let begun = [Said::Call("f".into()), Said::Arguments("{\"a\": \"}".into())];
        assert_eq!(reader.push("ments\": {\"a\": \"}"), begun);
        assert_eq!(reader.push("\\\""), [Said::Arguments("\\\"".into())]);
        assert_eq!(reader.push("\"}}\n</tool"), [Said::Arguments("\"}".into())]);
        assert_eq!(reader.push("_call>\n"), []);
        assert_eq!(reader.finish(), []);
        let mut cut = CallReader::new(CallFormat::Bare, vec!["f".into()]);
        let said = cut.push("{\"name\": \"f\", \"parameters\": {\"a\": [1");
        assert_eq!(said, [Said::Call("f".into()), Said::Arguments("{\"a\": [1".into())]);
        assert_eq!(cut.finish(), []);
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
                let mut reader = CallReader::new(format, vec!["a".into()]);
                let mut said: Vec<Said> = pieces.iter().flat_map(|piece| reader.push(piece)).collect();
                said.extend(reader.finish());
                if said.iter().any(|part| matches!(part, Said::Call(_))) {
                    continue;
                }
                let told: String = said.iter().map(|part| match part {
                    Said::Text(text) => text.as_str(),
                    _ => "",
                }).collect();
                let bare = |text: &str| text.split_whitespace().collect::<String>();
                prop_assert_eq!(bare(&told), bare(&pieces.concat()));
            }
        }
    }
}
