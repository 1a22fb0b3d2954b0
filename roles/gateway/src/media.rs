//! Images and sound: no provider of the network makes them, so their requests pass to the operator's own
//! servers, and to nobody else.
//!
//! A form is passed on as it came: its boundary is the client's, and only its `model` is looked for.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;
use serde::Deserialize;

use crate::body::{Shape, read_as};
use crate::http::Gateway;
use crate::openai::Problem;
use crate::relay::{Manner, Service, pass, passing};

/// Longest name of a model that a form may give, in bytes.
const MODEL_BYTES_MAX: usize = 256;

/// The routes.
pub(crate) fn routes() -> Router<Arc<Gateway>> {
    let route = |service: Service| {
        post(move |State(gateway): State<Arc<Gateway>>, request: Request| async move {
            answer(&gateway, service, request).await
        })
    };
    [Service::Images, Service::Speech, Service::Transcriptions, Service::Translations]
        .into_iter()
        .fold(Router::new(), |routes, service| routes.route(service.path(), route(service)))
}

async fn answer(
    gateway: &Arc<Gateway>,
    service: Service,
    request: Request,
) -> Result<Response, Problem> {
    let caller = gateway.keys.caller(request.headers())?;
    let shape = match service {
        Service::Transcriptions | Service::Translations => Shape::Form,
        _ => Shape::Json,
    };
    let kind = request.headers().get(CONTENT_TYPE).cloned();
    let boundary = (shape == Shape::Form).then(|| boundary(request.headers())).transpose()?;
    let read = read_as(shape, request, gateway).await?;
    let name = match &boundary {
        Some(boundary) => named_in_form(&read.bytes, boundary)?,
        None => named_in_json(&read.bytes)?,
    };
    let Some(target) = gateway.relay.named(&name) else {
        return Err(match gateway.catalogue.find(&name) {
            Some(_) => Problem::not_made(&name, service.what()),
            None => Problem::model(&name),
        });
    };
    let passing = passing(gateway, &caller, (target, Manner::Other), read)?;
    let passing = passing.to(service, kind.filter(|_| boundary.is_some()));
    pass(gateway, passing).await
}

fn named_in_json(body: &[u8]) -> Result<String, Problem> {
    #[derive(Deserialize)]
    struct Asked {
        model: Option<String>,
    }
    let asked: Asked = serde_json::from_slice(body).map_err(Problem::json)?;
    asked.model.ok_or_else(|| Problem::missing("model"))
}

/// What separates the parts of a form, as its head says.
fn boundary(headers: &HeaderMap) -> Result<Vec<u8>, Problem> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let mut words = kind.split(';').map(str::trim);
    let is_form = words.next().is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/form-data"));
    let boundary = words.find_map(|word| {
        let (name, value) = word.split_once('=')?;
        name.eq_ignore_ascii_case("boundary").then(|| value.trim_matches('"'))
    });
    match boundary.filter(|boundary| is_form && !boundary.is_empty()) {
        Some(boundary) => Ok(format!("--{boundary}").into_bytes()),
        None => {
            let message = format!(
                "the content type is {kind:?}, expected multipart/form-data with a boundary"
            );
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message))
        }
    }
}

/// The value of a form's part `model`.
fn named_in_form(form: &[u8], boundary: &[u8]) -> Result<String, Problem> {
    /// Where a line of a form stands.
    enum Place {
        /// In a part that is of no interest.
        Body,
        /// Among the headers of a part: whether it is the model's.
        Head(bool),
        /// At the beginning of the model's name.
        Model,
    }
    let invalid = |message: &str| Problem::new(StatusCode::BAD_REQUEST, "invalid_body", message);
    let mut place = Place::Body;
    for line in form.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        place = match place {
            _ if line == boundary => Place::Head(false),
            Place::Body => Place::Body,
            Place::Head(true) if line.is_empty() => Place::Model,
            Place::Head(false) if line.is_empty() => Place::Body,
            Place::Head(known) => Place::Head(known || is_model(line)),
            Place::Model => {
                let name = str::from_utf8(line).ok().filter(|name| name.len() <= MODEL_BYTES_MAX);
                return name
                    .map(str::to_owned)
                    .ok_or_else(|| invalid("the model's name is no name"));
            }
        };
    }
    match form.split(|byte| *byte == b'\n').any(|line| line.starts_with(boundary)) {
        true => Err(Problem::missing("model")),
        false => Err(invalid("the body is no multipart form")),
    }
}

/// Whether a header of a part names the field `model`.
fn is_model(header: &[u8]) -> bool {
    let Ok(header) = str::from_utf8(header) else { return false };
    let Some((name, value)) = header.split_once(':') else { return false };
    name.trim().eq_ignore_ascii_case("content-disposition")
        && value.split(';').any(|word| {
            let word = word.trim().split_once('=');
            word.is_some_and(|(name, value)| name == "name" && value.trim_matches('"') == "model")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(form: &str, expected: Result<&str, &str>) {
        let name = named_in_form(form.as_bytes(), b"--b");
        match expected {
            Ok(expected) => assert_eq!(name.as_deref(), Ok(expected), "{form}"),
            Err(code) => assert_eq!(name.unwrap_err().code, code, "{form}"),
        }
    }

    #[test]
    fn a_forms_model_is_found() {
        let file = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"model\"\r\n\
                    content-type: audio/wav\r\n\r\nRIFF\r\n\r\nname=\"model\"\r\n\r\nno\r\n";
        let model = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n";
        check(&format!("{file}{model}--b--\r\n"), Ok("whisper"));
        check(&format!("{model}{file}--b--\r\n"), Ok("whisper"));
        check("--b\ncontent-disposition: form-data; name=model\n\nw\n--b--\n", Ok("w"));
        check(&format!("{file}--b--\r\n"), Err("missing_required_parameter"));
        check(
            "--b\r\ncontent-disposition: form-data; name=\"model",
            Err("missing_required_parameter"),
        );
        check("RIFF", Err("invalid_body"));
        check("", Err("invalid_body"));
        let long = "x".repeat(300);
        check(
            &format!("--b\r\ncontent-disposition: a; name=model\r\n\r\n{long}\r\n"),
            Err("invalid_body"),
        );
    }

    #[test]
    fn a_form_says_how_it_is_cut() {
        let said = |kind: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
            boundary(&headers).map_err(|problem| problem.status.as_u16())
        };
        assert_eq!(said("multipart/form-data; boundary=b"), Ok(b"--b".to_vec()));
        assert_eq!(said("Multipart/Form-Data; charset=x; Boundary=\"b c\""), Ok(b"--b c".to_vec()));
        for kind in ["application/json", "multipart/form-data", "multipart/form-data; boundary="] {
            assert_eq!(said(kind), Err(415), "{kind}");
        }
    }
}
