//! A request for a batch as it arrives, in our words.

use serde_json::{Map, Value};

use super::fields::Fields;
use super::sampling::metadata;
use super::{Api, Problem};

/// What a client wants of a batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BatchRequest {
    /// The file that has its requests, one on each line.
    pub(crate) input_file: String,
    /// In which API all of them are.
    pub(crate) api: Api,
    pub(crate) metadata: Map<String, Value>,
}

impl BatchRequest {
    /// Reads a request's body.
    ///
    /// # Errors
    /// What is missing, of the wrong type or not supported, by name.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Problem> {
        let known = &["input_file_id", "endpoint", "completion_window", "metadata"];
        let fields = Fields::of_body(body, &[known])?;
        let needed = |name: &str| fields.string(name)?.ok_or_else(|| Problem::missing(name));
        let input_file = needed("input_file_id")?;
        let endpoint = needed("endpoint")?;
        let api = Api::at(&endpoint).ok_or_else(|| {
            let message = format!("batches of {endpoint:?} are not supported");
            Problem::unsupported("endpoint", message)
        })?;
        let window = needed("completion_window")?;
        if window != "24h" {
            let message = format!("completion_window is {window:?}, expected \"24h\"");
            return Err(Problem::invalid_value("completion_window", message));
        }
        Ok(Self { input_file, api, metadata: metadata(&fields)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_names_its_file_and_api() {
        let check = |fields: &str, expected: &str| {
            let said = match BatchRequest::parse(fields.as_bytes()) {
                Ok(asked) => format!("{} {}", asked.input_file, asked.api.path()),
                Err(problem) => problem.message,
            };
            assert_eq!(said, expected);
        };
        let all = r#"{"input_file_id":"f","endpoint":"/v1/responses","completion_window":"24h"}"#;
        check(all, "f /v1/responses");
        check(&all.replace("24h", "1h"), r#"completion_window is "1h", expected "24h""#);
        check(
            &all.replace("responses", "embeddings"),
            r#"batches of "/v1/embeddings" are not supported"#,
        );
        check("{}", "input_file_id is missing");
    }
}
