//! What texts are, as vLLM tells it at `/classify`.
//!
//! A receipt binds the probabilities as integers, `Fx<30>`; clients get each divided by 2^30. The label is the
//! likeliest one, of equals the first.

use assay_protocol::Answer;
use serde::Serialize;

use super::embeddings::{Embedding, ONE};
use super::reply::json;

#[derive(Serialize)]
struct Reply<'a> {
    id: String,
    object: &'static str,
    created: u64,
    model: &'a str,
    data: Vec<Item<'a>>,
    usage: Usage,
    /// The receipt of an only text.
    #[serde(skip_serializing_if = "Option::is_none")]
    assay: Option<&'a Answer>,
}

#[derive(Serialize)]
struct Item<'a> {
    index: usize,
    label: &'a str,
    probs: Vec<f64>,
    num_classes: usize,
    /// What its receipt is found by.
    receipt: String,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
    completion_tokens: u64,
}

/// The reply with what these texts are, by a model of that name that knows `labels`.
pub(crate) fn classes_reply(
    model: &str,
    labels: &[String],
    created: u64,
    texts: &[Embedding],
) -> String {
    let order = |text: &Embedding| text.answer.receipt.order.to_string();
    let item = |(index, text): (usize, &Embedding)| Item {
        index,
        label: likeliest(labels, text.vector()),
        probs: text.vector().iter().map(|value| f64::from(*value) / ONE).collect(),
        num_classes: labels.len(),
        receipt: order(text),
    };
    let tokens = texts.iter().map(|text| u64::from(text.answer.order.prompt_tokens)).sum();
    json(&Reply {
        id: format!("classify-{}", texts.first().map(order).unwrap_or_default()),
        object: "list",
        created,
        model,
        data: texts.iter().enumerate().map(item).collect(),
        usage: Usage { prompt_tokens: tokens, total_tokens: tokens, completion_tokens: 0 },
        assay: match texts {
            [only] => Some(&only.answer),
            _ => None,
        },
    })
}

/// The label of the largest number, of equals the first.
fn likeliest<'a>(labels: &'a [String], numbers: &[i32]) -> &'a str {
    let most = numbers.iter().max();
    let place = numbers.iter().position(|number| Some(number) == most);
    place.and_then(|place| labels.get(place)).map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_label_is_told() {
        let labels = ["a", "b", "c"].map(str::to_owned);
        let check = |numbers: &[i32], expected| assert_eq!(likeliest(&labels, numbers), expected);
        check(&[1, 3, 2], "b");
        check(&[3, 1, 3], "a");
        check(&[0, 0, 1], "c");
        check(&[], "");
    }
}
