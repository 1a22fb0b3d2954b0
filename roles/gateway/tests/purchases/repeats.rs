//! Requests that are sent again under the same name.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Semaphore;

use crate::stage::{Said, Setup, Stage};

impl Stage {
    fn named(&self, key: &str, fields: serde_json::Value) -> reqwest::RequestBuilder {
        self.request(fields).header("idempotency-key", key)
    }
}

fn same(first: &Said, second: &Said) {
    assert_eq!((first.status, second.status), (200, 200), "{} {}", first.body, second.body);
    assert_eq!(first.body, second.body);
    assert_eq!(first.header("content-type"), second.header("content-type"));
    assert_eq!(
        (first.header("idempotent-replayed"), second.header("idempotent-replayed")),
        ("", "true")
    );
}

#[tokio::test]
async fn a_retry_gets_the_first_answer_and_buys_nothing() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("the answer is 2");
    for (key, fields) in [("one", json!({})), ("two", json!({"stream": true}))] {
        let first = stage.send(stage.named(key, fields.clone())).await;
        same(&first, &stage.send(stage.named(key, fields)).await);
    }
    assert_eq!(stage.providers[0].orders(), 2);
    let other = stage.send(stage.named("one", json!({"temperature": 0}))).await;
    assert_eq!(other.error(), (400, "idempotency_key_reused".into()));
    // What failed is tried again.
    for _ in 0..2 {
        let bad = stage.send(stage.named("three", json!({"temperature": 3}))).await;
        assert_eq!(bad.error(), (400, "invalid_value".into()));
    }
    let long = stage.send(stage.named(&"x".repeat(256), json!({}))).await;
    assert_eq!(long.error(), (400, "invalid_idempotency_key".into()));
    assert_eq!(stage.providers[0].orders(), 2);
}

#[tokio::test]
async fn who_hung_up_gets_the_answer_that_was_made_meanwhile() {
    let stage = Stage::new(Setup::default()).await;
    stage.providers[0].says("one");
    let pace = Arc::new(Semaphore::new(0));
    stage.providers[0].change(|act| act.pace = Some(Arc::clone(&pace)));
    let gone = stage.named("one", json!({})).timeout(Duration::from_millis(300)).send().await;
    assert!(gone.is_err());
    let busy = stage.send(stage.named("one", json!({}))).await;
    assert_eq!(busy.error(), (409, "idempotency_conflict".into()));
    assert_eq!(busy.header("retry-after"), "1");
    pace.add_permits(100);
    for _ in 0..500 {
        let said = stage.send(stage.named("one", json!({}))).await;
        if said.status == 200 {
            assert_eq!(said.json()["choices"][0]["message"]["content"], "one");
            assert_eq!((stage.providers[0].orders(), stage.providers[0].deletes()), (1, 0));
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no answer in time");
}
