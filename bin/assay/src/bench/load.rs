//! Requests to one server, and what came back when.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::arrivals::Arrivals;
use super::process;
use crate::failure::{Exit, Failure, Outcome};
use crate::gateway::Gateway;

/// What is put on a server in one round.
pub(super) struct Load {
    pub(super) prompts: Vec<String>,
    /// Most requests under way at once.
    pub(super) concurrency: NonZeroUsize,
    /// When they are due; one after the other if not given.
    pub(super) arrivals: Option<Arrivals>,
}

/// One answer, as its client saw it.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    /// From when the request was due to the first text.
    pub(super) ttft: Duration,
    /// From when the request was due to the end of the stream.
    pub(super) e2e: Duration,
    /// Between pieces of text.
    pub(super) gaps: Vec<Duration>,
    /// As the server counts them.
    pub(super) prompt_tokens: u64,
    /// As the server counts them; of one that does not, pieces of text.
    pub(super) output_tokens: u64,
}

/// One round on one server.
pub(super) struct Measured {
    pub(super) replies: Vec<Reply>,
    /// Why requests failed, one entry each.
    pub(super) failures: Vec<String>,
    /// From the first request to the end of the last answer.
    pub(super) took: Duration,
    /// Processor time of the server's process, if it is known.
    pub(super) cpu: Option<Duration>,
}

impl Measured {
    pub(super) async fn of(
        load: &Load,
        gateway: &Gateway,
        request: &Value,
        pid: Option<u32>,
    ) -> Self {
        let before = pid.and_then(process::cpu);
        let began = Instant::now();
        let results = load.put_on(gateway, request).await;
        let took = began.elapsed();
        let after = pid.and_then(process::cpu);
        let (mut replies, mut failures) = (Vec::new(), Vec::new());
        for result in results {
            match result {
                Ok(reply) => replies.push(reply),
                Err(failure) => failures.push(failure.what()),
            }
        }
        let cpu = before.zip(after).map(|(before, after)| after.saturating_sub(before));
        Self { replies, failures, took, cpu }
    }
}

impl Load {
    /// Sends all requests and waits for all answers.
    pub(super) async fn put_on(&self, gateway: &Gateway, request: &Value) -> Vec<Outcome<Reply>> {
        let began = Instant::now();
        let count = self.prompts.len();
        let due: Vec<Option<Duration>> = match &self.arrivals {
            Some(arrivals) => arrivals.times(count).into_iter().map(Some).collect(),
            None => vec![None; count],
        };
        let asks = self.prompts.iter().zip(due).map(|(prompt, due)| async move {
            let due = due.map(|due| began + due);
            if let Some(due) = due {
                tokio::time::sleep_until(due.into()).await;
            }
            ask(gateway, request, prompt, due.unwrap_or_else(Instant::now)).await
        });
        stream::iter(asks).buffer_unordered(self.concurrency.get()).collect().await
    }
}

/// One request that was due at a time.
async fn ask(gateway: &Gateway, request: &Value, prompt: &str, due: Instant) -> Outcome<Reply> {
    let mut request = request.clone();
    request["messages"] = json!([{ "role": "user", "content": prompt }]);
    let (mut reply, mut last) = (Reply::default(), None);
    let mut pieces = 0;
    let on_event = |event: &Value| {
        if event["usage"].is_object() {
            reply.prompt_tokens = event["usage"]["prompt_tokens"].as_u64().unwrap_or_default();
            reply.output_tokens = event["usage"]["completion_tokens"].as_u64().unwrap_or_default();
        }
        let delta = &event["choices"][0]["delta"];
        let text = [&delta["content"], &delta["reasoning_content"]];
        if text.iter().all(|text| text.as_str().is_none_or(str::is_empty)) {
            return;
        }
        let now = Instant::now();
        match last.replace(now) {
            None => reply.ttft = now - due,
            Some(last) => reply.gaps.push(now - last),
        }
        pieces += 1;
    };
    gateway.stream("/v1/chat/completions", &request, on_event).await?;
    reply.e2e = due.elapsed();
    if last.is_none() {
        return Err(Failure::new(Exit::Failed, "an answer without text"));
    }
    if reply.output_tokens == 0 {
        reply.output_tokens = pieces;
    }
    Ok(reply)
}
