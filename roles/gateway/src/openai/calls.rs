//! Tells the calls of tools in an answer from its words.

use assay_protocol::{hex, keccak256};
use assay_text::{Call, CallFormat, CallReader, Said};

use super::tools::Calling;

/// How the calls in the answers to one question are read.
#[derive(Clone, Debug)]
pub(crate) struct CallRules {
    format: CallFormat,
    offered: Vec<String>,
    parallel: bool,
    /// Whether they are told by the names that tools had first.
    pub(crate) as_function: bool,
}

impl CallRules {
    /// Of a model that writes calls in this format.
    pub(crate) fn new(calling: &Calling, format: CallFormat) -> Self {
        let offered = calling.offered.iter().map(|tool| tool.name.clone()).collect();
        let &Calling { parallel, as_function, .. } = calling;
        Self { format, offered, parallel, as_function }
    }
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Words.
    Text(String),
    /// The beginning of a call; calls are counted from zero.
    Call { index: usize, id: String, name: String },
    /// More of the arguments of the call that began last, which are JSON.
    Arguments { index: usize, json: String },
}

/// Reads one answer, while it comes.
#[derive(Debug)]
pub(crate) struct AnswerReader {
    /// None: nothing may be called, and all is text.
    reader: Option<CallReader>,
    format: CallFormat,
    parallel: bool,
    /// What the answer is called: its calls' ids follow from that.
    name: String,
    /// Calls so far.
    calls: usize,
}

impl AnswerReader {
    /// Of the answer that is one choice of the reply `id`.
    pub(crate) fn new(rules: Option<&CallRules>, id: &str, choice: usize) -> Self {
        let reader = rules.map(|rules| CallReader::new(rules.format, rules.offered.clone()));
        Self {
            reader,
            format: rules.map_or(CallFormat::Tagged, |rules| rules.format),
            parallel: rules.is_none_or(|rules| rules.parallel),
            name: format!("{id}/{choice}"),
            calls: 0,
        }
    }

    /// Whether there was a call.
    pub(crate) fn has_called(&self) -> bool {
        self.calls > 0
    }

    /// Takes more text; gives what can be told of it now.
    pub(crate) fn push(&mut self, text: &str) -> Vec<Part> {
        match &mut self.reader {
            None => vec![Part::Text(text.to_owned())],
            Some(reader) => {
                let said = reader.push(text);
                self.parts(said)
            }
        }
    }

    /// The rest, after the last text.
    pub(crate) fn finish(&mut self) -> Vec<Part> {
        match &mut self.reader {
            None => Vec::new(),
            Some(reader) => {
                let said = reader.finish();
                self.parts(said)
            }
        }
    }

    fn parts(&mut self, said: Vec<Said>) -> Vec<Part> {
        let mut parts = Vec::with_capacity(said.len());
        for said in said {
            match said {
                // Who asked for one call at most gets the first.
                _ if self.calls > 1 && !self.parallel => {}
                Said::Text(text) => parts.push(Part::Text(text)),
                Said::Call(name) => {
                    self.calls += 1;
                    if self.calls == 1 || self.parallel {
                        let index = self.calls - 1;
                        parts.push(Part::Call { index, id: self.id(index), name });
                    }
                }
                Said::Arguments(json) => {
                    let index = self.calls.saturating_sub(1);
                    parts.push(Part::Arguments { index, json });
                }
            }
        }
        parts
    }

    /// The same for the same call, however often it is told.
    fn id(&self, index: usize) -> String {
        let digest = hex::encode(keccak256(format!("{}/{index}", self.name)).0);
        match self.format {
            // The templates of these models take ids of nine letters and digits only.
            CallFormat::Listed => digest[..9].to_owned(),
            CallFormat::Tagged | CallFormat::Bare => format!("call_{}", &digest[..24]),
        }
    }
}

/// The words and the calls of a complete answer.
pub(crate) fn words_and_calls(
    rules: Option<&CallRules>,
    id: &str,
    choice: usize,
    text: &str,
) -> (String, Vec<Call>) {
    let mut reader = AnswerReader::new(rules, id, choice);
    let mut parts = reader.push(text);
    parts.extend(reader.finish());
    let (mut words, mut calls) = (String::new(), Vec::<Call>::new());
    for part in parts {
        match part {
            Part::Text(text) => words += &text,
            Part::Call { id, name, .. } => calls.push(Call { id, name, arguments: String::new() }),
            Part::Arguments { json, .. } => {
                if let Some(call) = calls.last_mut() {
                    call.arguments += &json;
                }
            }
        }
    }
    (words, calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(format: CallFormat, parallel: bool) -> CallRules {
        CallRules { format, offered: vec!["f".into(), "g".into()], parallel, as_function: false }
    }

    const TWO: &str = "Hm.<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>\
        <tool_call>{\"name\": \"g\", \"arguments\": {}}</tool_call>";

    #[test]
    fn calls_are_told_from_words_and_named() {
        let of = |parallel, text| {
            let rules = rules(CallFormat::Tagged, parallel);
            words_and_calls(Some(&rules), "chatcmpl-1", 0, text)
        };
        let (words, calls) = of(true, TWO);
        assert_eq!(words, "Hm.");
        let told: Vec<_> = calls.iter().map(|c| (c.name.as_str(), c.arguments.as_str())).collect();
        assert_eq!(told, [("f", "{\"a\": 1}"), ("g", "{}")]);
        assert_ne!(calls[0].id, calls[1].id);
        assert_eq!(calls, of(true, TWO).1);
        assert_eq!(of(false, TWO).1, calls[..1]);
        assert_eq!(words_and_calls(None, "x", 0, TWO), (TWO.to_owned(), vec![]));
    }

    #[test]
    fn ids_are_such_as_templates_take() {
        let text = "[{\"name\": \"f\", \"arguments\": {}}]";
        let rules = rules(CallFormat::Listed, true);
        let (_, calls) = words_and_calls(Some(&rules), "chatcmpl-1", 0, text);
        assert!(calls[0].id.len() == 9 && calls[0].id.bytes().all(|b| b.is_ascii_alphanumeric()));
    }
}
