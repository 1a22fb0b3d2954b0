//! Looks through an ONNX file before the runtime reads it.
//!
//! The runtime takes the length that a field states at its word and sets so much memory aside, and it goes as
//! deep as types and graphs are nested. So every length is held against what there is, and what would nest
//! without end is refused: then reading takes no more memory than a few times the file. What the graph
//! computes is not looked at; a small file may ask for a large tensor, and that only a limit on the process
//! bounds.

use std::collections::BTreeSet;

use super::error::OnnxError;

/// What a graph says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Names of what has to be given to it.
    pub(super) inputs: Vec<String>,
    /// Names of what it gives.
    pub(super) outputs: Vec<String>,
    /// Numbers in its tensors.
    pub(super) parameters: u64,
}

/// A message of the format: `onnx.proto3` of the onnx project.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Value,
    Type,
    TensorType,
    Shape,
    Dimension,
    /// A few words, such as a key and its value.
    Words,
}

/// What stands in a field of bytes.
enum Part {
    In(Message),
    Refused(&'static str),
    Bytes,
}

impl Message {
    /// What field `number` of it holds.
    fn part(self, number: u64) -> Part {
        match (self, number) {
            (Self::Model, 7) => Part::In(Self::Graph),
            (Self::Model, 8 | 14) => Part::In(Self::Words),
            (Self::Model, 20) => Part::Refused("instructions for training"),
            (Self::Model, 25) => Part::Refused("functions of its own"),
            (Self::Graph, 1) => Part::In(Self::Node),
            (Self::Graph, 5) => Part::In(Self::Tensor),
            (Self::Graph, 11..=13) => Part::In(Self::Value),
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Part::Refused("sparse tensors"),
            (Self::Node, 5) => Part::In(Self::Attribute),
            (Self::Attribute, 5 | 10) => Part::In(Self::Tensor),
            // What loops may never end.
            (Self::Attribute, 6 | 11) => Part::Refused("graphs within graphs, as If and Loop have"),
            (Self::Attribute, 14 | 15) | (Self::Value, 2) => Part::In(Self::Type),
            (Self::Graph | Self::Tensor, 16)
            | (Self::Tensor, 13)
            | (Self::Node, 9)
            | (Self::Value, 4) => Part::In(Self::Words),
            (Self::Type, 1) => Part::In(Self::TensorType),
            (Self::Type, 4 | 5 | 8 | 9) => Part::Refused("values that are no tensors"),
            (Self::TensorType, 2) => Part::In(Self::Shape),
            (Self::Shape, 1) => Part::In(Self::Dimension),
            _ => Part::Bytes,
        }
    }
}

/// Looks through a whole file.
pub(super) fn survey(bytes: &[u8]) -> Result<Survey, OnnxError> {
    let (given, found) = (BTreeSet::new(), Survey::default());
    let mut walk = Walk { bytes, graphs: 0, says_operators: false, given, found };
    walk.message(Message::Model, 0, bytes.len())?;
    if walk.graphs != 1 {
        return Err(OnnxError::Encoding { at: 0, reason: "it does not hold one graph" });
    }
    if !walk.says_operators {
        return Err(OnnxError::Encoding {
            at: 0,
            reason: "it does not say which operators it means",
        });
    }
    let Walk { given, mut found, .. } = walk;
    // Older files list tensors that they have among what has to be given.
    found.inputs.retain(|name| !given.contains(name));
    Ok(found)
}

struct Walk<'a> {
    bytes: &'a [u8],
    graphs: usize,
    /// Whether it names a version of the operators.
    says_operators: bool,
    /// Names of tensors in the file.
    given: BTreeSet<String>,
    found: Survey,
}

/// A field of a message.
enum Field {
    /// A number.
    Number(u64),
    /// From one byte of the file to another.
    Bytes(usize, usize),
    /// Four or eight bytes.
    Fixed,
}

impl Walk<'_> {
    /// Everything from `at` to `end`. Parts that could hold themselves are refused, so this goes no deeper
    /// than there are kinds of messages.
    fn message(&mut self, message: Message, mut at: usize, end: usize) -> Result<(), OnnxError> {
        while at < end {
            let begun = at;
            let (number, field) = self.field(&mut at, end)?;
            let Field::Bytes(from, to) = field else { continue };
            match message.part(number) {
                Part::In(inner) => {
                    self.note(message, number, from, to)?;
                    self.message(inner, from, to)?;
                }
                Part::Refused(what) => return Err(OnnxError::Unsupported { what }),
                Part::Bytes => {}
            }
            debug_assert!(at > begun, "every field takes bytes");
        }
        Ok(())
    }

    /// What is worth knowing of a part.
    fn note(
        &mut self,
        message: Message,
        number: u64,
        from: usize,
        to: usize,
    ) -> Result<(), OnnxError> {
        match (message, number) {
            (Message::Model, 7) => self.graphs += 1,
            (Message::Model, 8) => self.says_operators = true,
            (Message::Graph, 11) => {
                let name = self.text(1, from, to)?;
                self.found.inputs.push(name);
            }
            (Message::Graph, 12) => {
                let name = self.text(1, from, to)?;
                self.found.outputs.push(name);
            }
            (Message::Graph, 5) | (Message::Attribute, 5 | 10) => {
                let tensor = self.tensor(from, to)?;
                if tensor.elsewhere {
                    return Err(OnnxError::External { tensor: tensor.name });
                }
                if message == Message::Graph {
                    self.found.parameters = self.found.parameters.saturating_add(tensor.numbers);
                    self.given.insert(tensor.name);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The text in field `wanted` of a message; empty if there is none. The last one counts.
    fn text(&self, wanted: u64, mut at: usize, end: usize) -> Result<String, OnnxError> {
        let mut text = String::new();
        while at < end {
            if let (number, Field::Bytes(from, to)) = self.field(&mut at, end)?
                && number == wanted
            {
                text = String::from_utf8_lossy(&self.bytes[from..to]).into_owned();
            }
        }
        Ok(text)
    }

    fn tensor(&self, mut at: usize, end: usize) -> Result<Tensor, OnnxError> {
        let mut tensor = Tensor { name: self.text(8, at, end)?, numbers: 1, elsewhere: false };
        while at < end {
            match self.field(&mut at, end)? {
                (1, Field::Number(size)) => tensor.numbers = tensor.numbers.saturating_mul(size),
                // Sizes may stand together.
                (1, Field::Bytes(mut from, to)) => {
                    while from < to {
                        let size = self.varint(&mut from, to)?;
                        tensor.numbers = tensor.numbers.saturating_mul(size);
                    }
                }
                (13, Field::Bytes(..)) => tensor.elsewhere = true,
                (14, Field::Number(place)) => tensor.elsewhere |= place != 0,
                _ => {}
            }
        }
        Ok(tensor)
    }

    /// The field at `at`, which is moved behind it.
    fn field(&self, at: &mut usize, end: usize) -> Result<(u64, Field), OnnxError> {
        let begun = *at;
        let wrong = |reason| OnnxError::Encoding { at: begun, reason };
        let tag = self.varint(at, end)?;
        let skip = match tag & 7 {
            0 => return Ok((tag >> 3, Field::Number(self.varint(at, end)?))),
            1 => 8,
            2 => self.varint(at, end)?,
            5 => 4,
            _ => return Err(wrong("a field of a kind that there is not")),
        };
        let skip = usize::try_from(skip).ok().filter(|&skip| skip <= end - *at);
        let from = *at;
        *at += skip.ok_or_else(|| wrong("a field goes on behind its end"))?;
        Ok((tag >> 3, if tag & 7 == 2 { Field::Bytes(from, *at) } else { Field::Fixed }))
    }

    /// A number in groups of seven bits, the lowest first.
    fn varint(&self, at: &mut usize, end: usize) -> Result<u64, OnnxError> {
        let begun = *at;
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            if *at >= end {
                let reason = "a number goes on behind its end";
                return Err(OnnxError::Encoding { at: begun, reason });
            }
            let byte = self.bytes[*at];
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(OnnxError::Encoding { at: begun, reason: "a number has more than ten bytes" })
    }
}

/// What is worth knowing of a tensor.
struct Tensor {
    name: String,
    /// How many numbers it states to have.
    numbers: u64,
    /// Whether they lie in another file.
    elsewhere: bool,
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Proto, tiny};
    use super::*;

    fn check(bytes: &[u8], expected: &str) {
        let said = survey(bytes).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}: expected {expected}");
    }

    #[test]
    fn a_graph_is_what_it_says() {
        let found = survey(&tiny()).unwrap();
        assert_eq!(found.inputs, ["input_ids", "attention_mask"]);
        assert_eq!(found.outputs, ["last_hidden_state"]);
        assert!(found.parameters > 0);
    }

    #[test]
    fn every_beginning_of_a_file_is_refused() {
        let whole = tiny();
        for end in 0..whole.len() {
            survey(&whole[..end]).unwrap_err();
        }
    }

    #[test]
    fn a_length_is_held_against_what_there_is() {
        // A graph, and in it a tensor whose numbers would take four tebibytes.
        let numbers = [0x4a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
        let tensor = Proto::new().raw(&numbers);
        let file = Proto::new().bytes(7, &Proto::new().bytes(5, &tensor.done()).done());
        check(&file.done(), "behind its end");
        check(
            &[0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            "behind its end",
        );
        check(&[0xff; 11], "more than ten bytes");
        check(&[0x3b], "of a kind that there is not");
    }

    #[test]
    fn what_is_not_run_is_named() {
        let graph = |graph: Proto| Proto::new().bytes(7, &graph.done()).done();
        let node = |attribute: Proto| {
            graph(Proto::new().bytes(1, &Proto::new().bytes(5, &attribute.done()).done()))
        };
        check(&node(Proto::new().bytes(6, &[])), "graphs within graphs");
        check(&graph(Proto::new().bytes(15, &[])), "sparse tensors");
        check(&Proto::new().bytes(25, &[]).done(), "functions");
        let tensor = Proto::new().text(8, "weights").number(14, 1);
        check(&graph(Proto::new().bytes(5, &tensor.done())), "tensor \"weights\" lie in another");
        // A type in a type in a type, as deep as the file is long.
        let nested = (0..1000).fold(Proto::new(), |inner, _| Proto::new().bytes(4, &inner.done()));
        let value = Proto::new().bytes(2, &nested.done());
        check(&graph(Proto::new().bytes(11, &value.done())), "no tensors");
        let twice = Proto::new().bytes(7, &[]).bytes(7, &[]).done();
        check(&twice, "one graph");
    }
}
