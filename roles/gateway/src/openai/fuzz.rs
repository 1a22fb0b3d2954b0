//! Bodies of requests end in a question or in what is wrong with them.

use super::{Api, BatchRequest};

#[test]
fn fuzz_request() {
    let words = [
        "\"model\":\"m\"",
        "\"messages\":[",
        "\"role\":\"user\"",
        "\"content\":",
        "\"tools\":[",
        "\"stop\":",
        "null",
        "\"n\":4294967296",
        "1e999",
        "-0.0",
        "\"prompt\":[[",
        "\"input\":",
        "\\ud800",
        "\"type\":\"json_schema\"",
        "\"logit_bias\":{",
        "{}",
        "[]",
        "true",
    ];
    assay_fuzz::hold("request", &words, |bytes| {
        let apis = [Api::Chat, Api::Completions, Api::Responses];
        let questions = apis.map(|api| api.parse(bytes, &[]).ok());
        let asked = questions.iter().flatten().inspect(|question| assert!(question.choices() > 0));
        asked.count() > 0 || BatchRequest::parse(bytes).is_ok()
    });
}
