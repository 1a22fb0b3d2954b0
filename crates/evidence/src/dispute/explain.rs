//! A dispute in words for people: which number, what it should be, what was said.

use std::fmt;

use assay_protocol::Doubt;

use super::subject::Subject;
use crate::op::{self, Kind, LeafKind, Place, Tree};

/// The number that a dispute is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Position in the sequence.
    pub position: u32,
    /// Layer of the model, if the op belongs to one.
    pub layer: Option<u32>,
    /// The op, by its name in `docs/protocol/trace.md`.
    pub op: &'static str,
    /// Leaf and element, and what they stand for.
    pub place: Place,
    /// Element of the leaf.
    pub element: u8,
    /// What is doubted.
    pub doubt: Doubt,
    /// Which of the op's numbers it is, in its own words: "row 511", "head 2, position 37".
    pub number: String,
    /// The entry of a list that it has come down to: "chunk 3: 128 products".
    pub entry: Option<String>,
    /// What the rule gives, if it is known; of a group of quantised numbers its scale and numbers.
    pub expected: Option<String>,
    /// What was committed, if it is known.
    pub found: Option<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "token {}", self.position)?;
        if let Some(layer) = self.layer {
            write!(f, ", layer {layer}")?;
        }
        write!(f, ", op {}", self.op)?;
        match self.doubt {
            Doubt::Element => write!(f, ", {}", self.number)?,
            Doubt::Link => write!(f, ": the token that is drawn is not the one that was answered")?,
            Doubt::Kth => write!(f, ": the threshold of top-k is not the k-th largest logit")?,
            Doubt::Nucleus => write!(f, ": the threshold of top-p does not leave just enough")?,
            Doubt::FinalState => write!(f, ": the last state is not the receipt's")?,
        }
        if let Some(entry) = &self.entry {
            write!(f, ", {entry}")?;
        }
        let values = [("contract says", &self.expected), ("provider said", &self.found)];
        let mut before = ": ";
        for (who, value) in values {
            if let Some(value) = value {
                write!(f, "{before}{who} {value}")?;
                before = ", ";
            }
        }
        Ok(())
    }
}

/// Says which number an element of a leaf is. `expected` and `found` are the leaf's data as they
/// should be and as they were committed, where they are known; `entry` is the one that was chosen
/// of a list.
///
/// A place that a trace of this claim does not have is said as it is.
pub fn explain(
    subject: &Subject<'_>,
    place: Place,
    (element, doubt): (u8, Doubt),
    entry: Option<u32>,
    (expected, found): (Option<&[u8]>, Option<&[u8]>),
) -> Explanation {
    let kind = subject.claim.program.get(place.op as usize).map(|step| step.kind);
    let leaf_kind = op::kind_at(subject.claim, place);
    let signed = is_signed(subject, place, kind);
    let value = |data: Option<&[u8]>| say(leaf_kind?, data?, element.into(), signed);
    Explanation {
        position: place.position,
        layer: subject.layer(place.op),
        op: kind.map_or("STATE", op_name),
        place,
        element,
        doubt,
        number: number(subject, place, element.into()),
        entry: entry.and_then(|entry| say_entry(kind?, entry)),
        expected: value(expected),
        found: value(found),
    }
}

/// The name of an op in `docs/protocol/trace.md`.
pub fn op_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Embed => "EMBED",
        Kind::NormStat1 => "NSTAT1",
        Kind::Norm1 => "NORM1",
        Kind::Quantise1 => "AQ1",
        Kind::Query => "Q",
        Kind::Key => "K",
        Kind::Value => "V",
        Kind::RopeQuery => "ROPEQ",
        Kind::QuantiseQuery => "AQq",
        Kind::RopeKey => "ROPEK",
        Kind::QuantiseKey => "AQk",
        Kind::QuantiseValue => "AQv",
        Kind::Score => "SCORE",
        Kind::ScoreMax => "SMAX",
        Kind::BlockShift => "PSB",
        Kind::Attend => "PVOUT",
        Kind::QuantiseAttention => "AQo",
        Kind::AttentionOutput => "WO",
        Kind::Residual1 => "RES1",
        Kind::NormStat2 => "NSTAT2",
        Kind::Norm2 => "NORM2",
        Kind::Quantise2 => "AQ2",
        Kind::Gate => "GATE",
        Kind::Up => "UP",
        Kind::Activation => "ACT",
        Kind::QuantiseHidden => "AQy",
        Kind::Down => "DOWN",
        Kind::Residual2 => "RES2",
        Kind::NormStatFinal => "NSTATF",
        Kind::NormFinal => "NORMF",
        Kind::QuantiseFinal => "AQf",
        Kind::Logits => "LOGITS",
        Kind::Sample => "SMPL",
        Kind::Token => "TOKEN",
    }
}

/// Which of the op's numbers an element is.
fn number(subject: &Subject<'_>, place: Place, element: u64) -> String {
    let claim = subject.claim;
    let Some(step) = claim.program.get(place.op as usize) else { return "its hash".to_owned() };
    let (leaf, head_dim) = (place.leaf, u64::from(claim.model.head_dim).max(32));
    let attended = u64::from(place.position) + 1;
    match step.kind {
        Kind::Score => {
            let leaves = attended.div_ceil(32);
            format!("head {}, position {}", leaf / leaves, 32 * (leaf % leaves) + element)
        }
        Kind::ScoreMax => {
            let size = Tree::new(0, attended).top() + 1;
            let what =
                if (leaf / size).is_multiple_of(2) { "largest score" } else { "sum of weights" };
            format!("head {}, {what}, leaf {leaf}, word {element}", leaf / (2 * size))
        }
        Kind::BlockShift => {
            let leaves = attended.div_ceil(64).div_ceil(32);
            let (series, groups) = (leaf / leaves, head_dim / 32);
            let block = 32 * (leaf % leaves) + element;
            format!("head {}, group {}, block {block}", series / groups, series % groups)
        }
        Kind::QuantiseQuery | Kind::QuantiseKey | Kind::QuantiseValue => {
            let records = head_dim.div_ceil(128);
            format!("head {}, group {}", leaf / records, 4 * (leaf % records) + element)
        }
        Kind::Quantise1
        | Kind::QuantiseAttention
        | Kind::Quantise2
        | Kind::QuantiseHidden
        | Kind::QuantiseFinal => format!("group {}", 4 * leaf + element),
        Kind::NormStat1 | Kind::NormStat2 | Kind::NormStatFinal | Kind::Sample | Kind::Token => {
            format!("leaf {leaf}, word {element}")
        }
        Kind::Attend => {
            let index = 32 * leaf + element;
            format!("head {}, dimension {}", index / head_dim, index % head_dim)
        }
        _ => format!("row {}", 32 * leaf + element),
    }
}

/// An entry of a list of an op.
fn say_entry(kind: Kind, entry: u32) -> Option<String> {
    Some(match kind {
        Kind::BlockShift => format!("value {entry}"),
        Kind::Attend => format!("entry {entry}"),
        Kind::Sample => format!("inputs from {} on", 32 * u64::from(entry)),
        kind if super::exhibits::is_product(kind) => format!("chunk {entry}: 128 products"),
        _ => return None,
    })
}

/// Whether the words of a leaf are signed.
fn is_signed(subject: &Subject<'_>, place: Place, kind: Option<Kind>) -> bool {
    match kind {
        Some(Kind::ScoreMax) => {
            let size = Tree::new(0, u64::from(place.position) + 1).top() + 1;
            (place.leaf / size).is_multiple_of(2)
        }
        Some(Kind::Sample) => {
            let parts = op::Parts::of(subject.claim);
            let advice = |advice: Option<u64>| advice == Some(place.leaf);
            place.leaf <= parts.keys.top()
                || advice(parts.ranks.map(|(leaf, _)| leaf))
                || advice(parts.masses.map(|(leaf, _)| leaf))
        }
        _ => false,
    }
}

/// An element of a leaf in words; nothing if the leaf is malformed.
fn say(kind: LeafKind, data: &[u8], element: usize, signed: bool) -> Option<String> {
    let bytes = |size: usize| data.get(size * element..size * (element + 1));
    if data.len() != kind.bytes() {
        return None;
    }
    Some(match kind {
        LeafKind::Fixed => grouped(i32::from_be_bytes(bytes(4)?.try_into().ok()?).into()),
        LeafKind::Wide => {
            let word = u64::from_be_bytes(bytes(8)?.try_into().ok()?);
            grouped(if signed { i128::from(word.cast_signed()) } else { word.into() })
        }
        LeafKind::State => assay_protocol::hex::encode_prefixed(bytes(32)?),
        LeafKind::Quantised => {
            let scale = u16::from_be_bytes(bytes(2)?.try_into().ok()?);
            let quants = data.get(8 + 32 * element..8 + 32 * (element + 1))?;
            let quants: Vec<String> =
                quants.iter().map(|byte| (byte ^ 0x80).cast_signed().to_string()).collect();
            format!("scale {scale} of {}", quants.join(" "))
        }
    })
}

/// A number with its digits in groups of three.
fn grouped(number: i128) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut said = if number < 0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            said.push(',');
        }
        said.push(digit);
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_stand_in_threes() {
        for (number, said) in
            [(0, "0"), (-7, "-7"), (999, "999"), (1204, "1,204"), (-1_234_567, "-1,234,567")]
        {
            assert_eq!(grouped(number), said);
        }
    }

    #[test]
    fn a_number_is_said_in_one_line() {
        let said = Explanation {
            position: 37,
            layer: Some(2),
            op: "GATE",
            place: Place { position: 37, op: 22, leaf: 15 },
            element: 31,
            doubt: Doubt::Element,
            number: "row 511".to_owned(),
            entry: Some("chunk 3: 128 products".to_owned()),
            expected: Some(grouped(1204)),
            found: Some(grouped(1203)),
        };
        assert_eq!(
            said.to_string(),
            "token 37, layer 2, op GATE, row 511, chunk 3: 128 products: contract says 1,204, provider said 1,203"
        );
    }
}
