//! Files and batches: many requests in one file, answered while nobody waits.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::keys::{made, public, terms};
use crate::stage::{NAME, Said, Setup, Stage};

const BOUND: &str = "a-line-between-parts";

impl Stage {
    /// Uploads a file, as clients do.
    async fn upload(&self, text: &str, purpose: &str) -> Said {
        self.send(self.uploading(text, purpose)).await
    }

    fn uploading(&self, text: &str, purpose: &str) -> reqwest::RequestBuilder {
        let body = format!(
            "--{BOUND}\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n\
             --{BOUND}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"in.jsonl\"\r\n\r\n\
             {text}\r\n--{BOUND}--\r\n"
        );
        let kind = format!("multipart/form-data; boundary={BOUND}");
        self.http.post(format!("{}/v1/files", self.url)).header("content-type", kind).body(body)
    }

    /// Begins a batch of these lines; gives its path.
    async fn batch(&self, lines: &[String]) -> String {
        let file = self.upload(&lines.join("\n"), "batch").await.json();
        let said = self.begin(&file["id"]).await;
        assert_eq!(said.status, 200, "{}", said.body);
        format!("/v1/batches/{}", said.json()["id"].as_str().unwrap())
    }

    async fn begin(&self, file: &Value) -> Said {
        let body = json!({
            "input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h",
            "metadata": {"a": "b"},
        });
        self.post_to("/v1/batches", body.to_string()).await
    }

    /// The lines of a file.
    async fn lines(&self, file: &Value) -> Vec<Value> {
        let path = format!("/v1/files/{}/content", file.as_str().unwrap());
        let text = self.get(&path).await.body;
        let mut lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines.sort_by_key(|line| line["custom_id"].to_string());
        lines
    }
}

fn line(id: &str, fields: Value) -> String {
    let mut body = json!({ "model": NAME, "messages": [{"role": "user", "content": id}] });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    let url = "/v1/chat/completions";
    json!({ "custom_id": id, "method": "POST", "url": url, "body": body }).to_string()
}

#[tokio::test]
async fn a_file_is_kept_listed_and_taken_away() {
    let stage = Stage::new(Setup::default()).await;
    let file = stage.upload("some text", "user_data").await.json();
    assert_eq!((&file["object"], &file["bytes"]), (&json!("file"), &json!(9)));
    assert_eq!((&file["filename"], &file["status"]), (&json!("in.jsonl"), &json!("processed")));
    let path = format!("/v1/files/{}", file["id"].as_str().unwrap());
    assert_eq!(stage.get(&path).await.json(), file);
    assert_eq!(stage.get(&format!("{path}/content")).await.body, "some text");
    stage.upload("x", "batch").await;
    let data = |said: Said| said.json()["data"].as_array().unwrap().len();
    assert_eq!(data(stage.get("/v1/files").await), 2);
    assert_eq!(data(stage.get("/v1/files?purpose=batch").await), 1);
    assert_eq!(data(stage.get("/v1/files?limit=0").await), 0);
    assert_eq!(stage.delete(&path).await.json()["deleted"], true);
    for gone in [path.clone(), format!("{path}/content")] {
        assert_eq!(stage.get(&gone).await.error(), (404, "not_found".into()));
    }
    let bad = stage.upload("x", "fun").await;
    assert_eq!(bad.error(), (400, "invalid_value".into()));
    let folder = stage.folder().join("shelf");
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
}

#[tokio::test]
async fn what_nobody_waits_for_lets_others_go_first() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("the answer");
    assert_eq!(stage.chat(json!({"service_tier": "default"})).await.status, 200);
    assert_eq!(stage.chat(json!({"service_tier": "flex"})).await.status, 200);
    let path = stage.batch(&[line("a", json!({}))]).await;
    stage.until(&path, |said| said.json()["status"] == "completed").await;
    assert_eq!(stage.providers[0].seen.lock().unwrap().flex, [false, true, true]);
    let refused = stage.chat(json!({"service_tier": "soon"})).await;
    assert_eq!(refused.error(), (400, "invalid_value".into()));
}

#[tokio::test]
async fn a_bad_line_stops_no_other() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("the answer");
    let lines = [
        line("a", json!({})),
        "{ no json".into(),
        line("b", json!({"temperature": 3})),
        String::new(),
        line("c", json!({"n": 2})),
        line("d", json!({"stream": true})),
        line("e", json!({})).replace("/v1/chat/completions", "/v1/embeddings"),
        line("f", json!({"model": "nobody"})),
    ];
    let path = stage.batch(&lines).await;
    let done = stage.until(&path, |said| said.json()["status"] == "completed").await.json();
    assert_eq!(done["request_counts"], json!({"total": 7, "completed": 2, "failed": 5}));
    assert_eq!((&done["object"], &done["metadata"]), (&json!("batch"), &json!({"a": "b"})));
    let good = stage.lines(&done["output_file_id"]).await;
    assert_eq!(good.len(), 2);
    assert_eq!(
        (&good[0]["custom_id"], &good[0]["response"]["status_code"]),
        (&json!("a"), &json!(200))
    );
    let body = &good[0]["response"]["body"];
    assert_eq!(body["choices"][0]["message"]["content"], "the answer");
    stage.receipt(body["id"].as_str().unwrap()).await;
    assert_eq!(good[1]["response"]["body"]["choices"].as_array().unwrap().len(), 2);
    let bad = stage.lines(&done["error_file_id"]).await;
    let codes: Vec<Value> = bad
        .iter()
        .map(|line| match &line["error"] {
            Value::Null => line["response"]["body"]["error"]["code"].clone(),
            error => error["code"].clone(),
        })
        .collect();
    let expected = [
        "invalid_value",
        "invalid_value",
        "invalid_request",
        "model_not_found",
        "invalid_json_line",
    ];
    assert_eq!(codes, expected);
    assert_eq!(bad[4]["error"]["line"], 2);
    let list = stage.get("/v1/batches").await.json();
    assert_eq!(list["data"][0]["id"], done["id"]);
}

#[tokio::test]
async fn a_batch_of_nothing_fails_and_of_another_file_is_refused() {
    let stage = Stage::new(Setup::default()).await;
    let path = stage.batch(&["\n".into()]).await;
    let failed = stage.until(&path, |said| said.json()["status"] == "failed").await.json();
    assert_eq!(failed["errors"]["data"][0]["code"], "empty_file");
    assert_eq!(stage.begin(&json!("file-none")).await.error(), (404, "not_found".into()));
    let other = stage.upload("x", "user_data").await.json();
    assert_eq!(stage.begin(&other["id"]).await.error(), (400, "invalid_value".into()));
}

#[tokio::test]
async fn a_batch_goes_on_after_a_restart_and_buys_nothing_twice() {
    let drain_max = Duration::from_millis(50);
    let mut stage = Stage::new(Setup { drain_max, ..Setup::default() }).await;
    stage.providers[0].says("one");
    // Who waits for a permit gets one in turn: six let two of four answers of two frames end.
    let pace = Arc::new(Semaphore::new(0));
    stage.providers[0].change(|act| act.pace = Some(Arc::clone(&pace)));
    let lines: Vec<String> = (0..4).map(|id| line(&id.to_string(), json!({}))).collect();
    let path = stage.batch(&lines).await;
    while stage.providers[0].orders() < 4 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    pace.add_permits(6);
    stage.until(&path, |said| said.json()["request_counts"]["completed"] == 2).await;
    stage.stop().await;
    // As if it had died after it kept two answers, and before it wrote them down.
    let output =
        stage.folder().join("shelf").join(path.rsplit('/').next().unwrap().to_owned() + ".output");
    assert_eq!(std::fs::read_to_string(&output).unwrap().lines().count(), 2);
    std::fs::write(&output, "{\"id\":\"batch_req_half").unwrap();
    pace.add_permits(1000);
    stage.start("answers.redb").await;
    let done = stage.until(&path, |said| said.json()["status"] == "completed").await.json();
    assert_eq!(done["request_counts"], json!({"total": 4, "completed": 4, "failed": 0}));
    let answers = stage.lines(&done["output_file_id"]).await;
    let ids: Vec<&Value> = answers.iter().map(|line| &line["custom_id"]).collect();
    assert_eq!(ids, ["0", "1", "2", "3"]);
    for answer in &answers {
        assert_eq!(answer["response"]["body"]["choices"][0]["message"]["content"], "one");
    }
    // Two were cancelled unfinished, and are bought again; the other two are not.
    assert_eq!(stage.providers[0].orders(), 6);
}

#[tokio::test]
async fn a_cancelled_batch_tells_what_is_there() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("one");
    let pace = Arc::new(Semaphore::new(0));
    stage.providers[0].change(|act| act.pace = Some(Arc::clone(&pace)));
    let lines: Vec<String> = (0..40).map(|id| line(&format!("{id:02}"), json!({}))).collect();
    let path = stage.batch(&lines).await;
    while stage.providers[0].orders() < 8 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let said = stage.post_to(&format!("{path}/cancel"), "{}".into()).await.json();
    assert_eq!(said["status"], "cancelling", "{said}");
    pace.add_permits(1000);
    let done = stage.until(&path, |said| said.json()["status"] == "cancelled").await.json();
    let answered = stage.lines(&done["output_file_id"]).await.len();
    assert!((8..40).contains(&answered), "{answered}");
    assert_eq!(done["request_counts"]["completed"], answered);
}

#[tokio::test]
async fn files_and_batches_are_their_keys() {
    let stage = public(Setup::default()).await;
    let (ada, _) = made(&stage, terms(10_000)).await;
    let (bob, _) = made(&stage, terms(10_000)).await;
    let upload = stage.uploading(&line("a", json!({})), "batch").bearer_auth(&ada);
    let file = stage.send(upload).await.json();
    let begin = async |key: &str| {
        let body = json!({
            "input_file_id": file["id"], "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        });
        let post = stage.http.post(format!("{}/v1/batches", stage.url)).json(&body);
        stage.send(post.bearer_auth(key)).await
    };
    assert_eq!(begin(&bob).await.error(), (404, "not_found".into()));
    let batch = begin(&ada).await.json();
    let path = format!("/v1/batches/{}", batch["id"].as_str().unwrap());
    for _ in 0..500 {
        let get = stage.http.get(format!("{}{path}", stage.url)).bearer_auth(&ada);
        let said = stage.send(get).await.json();
        if said["status"] == "completed" {
            assert_eq!(said["request_counts"]["completed"], 1, "{said}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the batch is not completed in time");
}
