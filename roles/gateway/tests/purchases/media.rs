//! Images and sound: only the operator's own servers make them, behind the same door.

use std::sync::{Arc, Mutex};

use assay_gateway::{KeyRules, Relayed};
use assay_protocol::{Amount, keccak256};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::json;
use tokio::net::TcpListener;

use crate::stage::{NAME, Said, Setup, Stage};

const OWN: &str = "own/media";
const FORM: &str = "multipart/form-data; boundary=cut";

/// What a server was asked: path, content type, body.
type Asked = Arc<Mutex<Vec<(String, String, Bytes)>>>;

async fn media(State(asked): State<Asked>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let kind = headers["content-type"].to_str().unwrap().to_owned();
    let path = uri.path().to_owned();
    asked.lock().unwrap().push((path.clone(), kind, body));
    match path.as_str() {
        "/v1/audio/speech" => ([("content-type", "audio/wav")], &b"RIFF\0\xff"[..]).into_response(),
        _ => ([("content-type", "application/json")], r#"{"text":"hello"}"#).into_response(),
    }
}

async fn stage(keys: KeyRules) -> (Asked, Stage) {
    let asked = Asked::default();
    let router = Router::new().route("/{*path}", post(media)).with_state(Arc::clone(&asked));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async {
        axum::serve(listener, router.layer(axum::extract::DefaultBodyLimit::disable())).await
    });
    let relayed = vec![Relayed {
        model: OWN.into(),
        servers: vec![url.parse().unwrap()],
        authorization: None,
        price: Amount(3),
    }];
    (asked, Stage::new(Setup { relayed, keys, ..Setup::default() }).await)
}

fn form(model: &str, audio: &[u8]) -> Vec<u8> {
    let head = "--cut\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\
                content-type: audio/wav\r\n\r\n";
    let model = format!(
        "\r\n--cut\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--cut--\r\n"
    );
    [head.as_bytes(), audio, model.as_bytes()].concat()
}

async fn post_form(stage: &Stage, path: &str, kind: &str, body: Vec<u8>) -> Said {
    let url = format!("{}{path}", stage.url);
    stage.send(stage.http.post(url).header("content-type", kind).body(body)).await
}

#[tokio::test]
async fn sound_and_images_pass_as_they_are() {
    let (asked, stage) = stage(KeyRules::default()).await;
    let body = json!({"model": OWN, "input": "hi", "voice": "v"}).to_string();
    let said = stage.post_to("/v1/audio/speech", body.clone()).await;
    assert_eq!((said.status, said.header("content-type")), (200, "audio/wav"));
    assert_eq!(said.header("x-assay-assurance"), "none");
    let image = json!({"model": OWN, "prompt": "a cat"}).to_string();
    assert_eq!(stage.post_to("/v1/images/generations", image.clone()).await.status, 200);
    // Longer than any JSON body may be.
    let recording = form(OWN, &vec![0xfe; 20 << 20]);
    for path in ["/v1/audio/transcriptions", "/v1/audio/translations"] {
        let said = post_form(&stage, path, FORM, recording.clone()).await;
        assert_eq!((said.status, said.json()), (200, json!({"text": "hello"})), "{path}");
    }
    let asked = asked.lock().unwrap();
    let json = "application/json";
    let expected = [
        ("/v1/audio/speech", json, body.as_bytes()),
        ("/v1/images/generations", json, image.as_bytes()),
        ("/v1/audio/transcriptions", FORM, &recording),
        ("/v1/audio/translations", FORM, &recording),
    ];
    for (asked, expected) in asked.iter().zip(expected) {
        assert!((asked.0.as_str(), asked.1.as_str(), &asked.2[..]) == expected, "{}", asked.0);
    }
    assert_eq!(asked.len(), 4);
}

#[tokio::test]
async fn where_nobody_makes_them_that_is_said() {
    let (asked, stage) = stage(KeyRules::default()).await;
    for (path, what) in [("/v1/images/generations", "images"), ("/v1/audio/speech", "speech")] {
        let said = stage.post_to(path, json!({"model": NAME}).to_string()).await;
        assert_eq!(said.error(), (400, "model_not_supported".into()), "{path}");
        assert!(said.body.contains(&format!("makes no {what}")), "{}", said.body);
        let said = stage.post_to(path, json!({"model": "no"}).to_string()).await;
        assert_eq!(said.error(), (404, "model_not_found".into()));
        let said = stage.post_to(path, "{}".into()).await;
        assert_eq!(said.error(), (400, "missing_required_parameter".into()));
    }
    let path = "/v1/audio/transcriptions";
    for (kind, body, code) in [
        (FORM, form(NAME, b"x"), "model_not_supported"),
        (FORM, form("no", b"x"), "model_not_found"),
        (FORM, b"--cut\r\n\r\nx\r\n--cut--".to_vec(), "missing_required_parameter"),
        (FORM, b"RIFF".to_vec(), "invalid_body"),
        ("application/json", b"{}".to_vec(), "unsupported_media_type"),
        (FORM, form(OWN, &vec![0; 33 << 20]), "request_too_large"),
    ] {
        let said = post_form(&stage, path, kind, body).await;
        assert_eq!(said.error().1, code, "{kind}");
    }
    assert_eq!(asked.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn keys_pay_for_them_as_for_answers() {
    let keys = KeyRules { demanded: true, admin: Some(keccak256("admin")) };
    let (asked, stage) = stage(keys).await;
    let body = json!({"model": OWN, "input": "hi"}).to_string();
    let said = stage.post_to("/v1/audio/speech", body.clone()).await;
    assert_eq!(said.error(), (401, "invalid_api_key".into()));
    let terms = json!({"name": "ada", "budget": "5", "requests_per_minute": 1000});
    let make = stage.http.post(format!("{}/v1/keys", stage.url)).bearer_auth("admin");
    let made = stage.send(make.json(&terms)).await.json();
    let key = made["key"].as_str().unwrap();
    let ask = || {
        let post = stage.http.post(format!("{}/v1/audio/speech", stage.url)).bearer_auth(key);
        stage.send(post.header("content-type", "application/json").body(body.clone()))
    };
    assert_eq!(ask().await.status, 200);
    assert_eq!(ask().await.error(), (429, "insufficient_quota".into()));
    assert_eq!(asked.lock().unwrap().len(), 1);
}
