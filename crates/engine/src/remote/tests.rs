//! A server that plays llama.cpp's, and what a hostile one may do.

use std::sync::LazyLock;
use std::time::Duration;

use assay_kernels::{Cpu, Isa};
use assay_protocol::{B256, Ending, Finish};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::import::{self, Options};
use crate::package::Loaded;
use crate::testing::greedy;

/// The model that ships, with its tokenizer.
static NANO: LazyLock<Loaded> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets/nano/nano-q8_0.gguf");
    let cpu = Cpu::new(Isa::detect(), std::num::NonZeroUsize::MIN).unwrap();
    import::import(path.as_ref(), &Options::default(), &cpu, &mut |_| ()).unwrap().0.load().unwrap()
});

/// How the server answers jobs.
#[derive(Clone, Debug)]
enum Play {
    /// These lines, each after a pause.
    Lines(Vec<String>, Duration),
    /// As before, and nothing after it, with the connection left open.
    Hang(Vec<String>),
    /// A comment again and again.
    Pings,
    /// One line without end.
    Endless,
    /// A status.
    Status(u16),
    /// Tokens by the request: a stream that leaves out every second one, or a piece.
    Gaps(Vec<u32>),
    /// Counts tokens that it never tells.
    Hoards,
}

/// What the server says of itself.
#[derive(Clone, Debug)]
struct Is {
    props: Value,
    models: Value,
    version: Value,
    /// Whether it cuts texts as the model does.
    cuts: bool,
}

impl Is {
    fn llama() -> Self {
        let props = json!({ "default_generation_settings": { "n_ctx": 4096 } });
        Self { props, models: Value::Null, version: Value::Null, cuts: true }
    }
}

async fn serve(is: Is, play: Play) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (is, play) = (is.clone(), play.clone());
            tokio::spawn(async move { hear(stream, is, play).await });
        }
    });
    url
}

async fn hear(mut stream: TcpStream, is: Is, play: Play) -> Option<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).await.ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let answer = match head.split(' ').nth(1)? {
        "/health" => json!({ "status": "ok" }),
        "/props" => is.props,
        "/v1/models" => is.models,
        "/api/version" => is.version,
        "/tokenize" => {
            let text = asked["content"].as_str()?;
            let mut tokens = NANO.tokenizer.as_ref()?.encode_plain(text);
            if !is.cuts {
                tokens.reverse();
            }
            json!({ "tokens": tokens })
        }
        _ => return answer(stream, play, &asked).await,
    };
    let (status, text) =
        if answer.is_null() { (404, String::new()) } else { (200, answer.to_string()) };
    reply(&mut stream, status, &text).await
}

async fn reply(stream: &mut TcpStream, status: u16, text: &str) -> Option<()> {
    let length = text.len();
    let head =
        format!("HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{text}").as_bytes()).await.ok()
}

async fn answer(mut stream: TcpStream, play: Play, asked: &Value) -> Option<()> {
    let (lines, pause, hangs) = match play {
        Play::Status(status) => return reply(&mut stream, status, "{}").await,
        Play::Hoards => {
            let event =
                json!({ "tokens": [], "stop": true, "stop_type": "limit", "tokens_predicted": 5 });
            let text = if asked["stream"] == false {
                event.to_string()
            } else {
                format!("data: {event}\n\n")
            };
            return reply(&mut stream, 200, &text).await;
        }
        Play::Gaps(tokens) if asked["stream"] == false => {
            let had = asked["prompt"].as_array()?.len() - 4;
            let count = tokens.len().min(had + asked["n_predict"].as_u64()? as usize);
            let (piece, over) = (&tokens[had..count], count == tokens.len());
            let why = if over { "eos" } else { "limit" };
            let body = json!({
                "tokens": piece, "stop": true, "stop_type": why, "tokens_predicted": piece.len(),
            });
            return reply(&mut stream, 200, &body.to_string()).await;
        }
        Play::Gaps(tokens) => {
            let told = |n: usize| {
                let event =
                    json!({ "tokens": [tokens[n]], "stop": false, "tokens_predicted": n + 1 });
                format!("data: {event}\n\n")
            };
            ((0..tokens.len()).filter(|n| *n != 1).map(told).collect(), Duration::ZERO, false)
        }
        Play::Lines(lines, pause) => (lines, pause, false),
        Play::Hang(lines) => (lines, Duration::ZERO, true),
        Play::Pings => (vec![": still here\n\n".into(); 10_000], Duration::from_millis(5), false),
        Play::Endless => (
            vec!["data: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx".repeat(2000); 300],
            Duration::ZERO,
            false,
        ),
    };
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n";
    stream.write_all(head.as_bytes()).await.ok()?;
    for line in lines {
        sleep(pause).await;
        stream.write_all(line.as_bytes()).await.ok()?;
    }
    if hangs {
        sleep(Duration::from_secs(60)).await;
    }
    Some(())
}

fn event(tokens: &[u32], counted: usize, stop: Option<&str>) -> String {
    let event = json!({
        "content": "x", "tokens": tokens, "stop": stop.is_some(), "stop_type": stop,
        "tokens_predicted": counted,
    });
    format!("data: {event}\n\n")
}

fn job() -> Job {
    let terms = greedy(&NANO, 4);
    Job {
        order: Default::default(),
        prompt: terms.prompt.as_slice().into(),
        ending: Ending { eos: vec![2], stops: vec![vec![7, 8]], tokens_max: 40 },
        sampler: assay_models::Sampler {
            inv_t_q16: 0,
            top_k: 0,
            top_p_q16: 1 << 16,
            min_p_q16: 0,
            rep_q16: 1 << 16,
            freq_q16: 0,
            pres_q16: 0,
            bias: vec![],
        },
        draws: assay_protocol::Draws::with_key(B256::ZERO),
        logprobs: None,
        grammar: None,
        tenant: Default::default(),
        priority: Default::default(),
    }
}

async fn remote(is: Is, play: Play) -> Result<Remote, RemoteError> {
    let url = serve(is, play).await;
    let waits = Duration::from_millis(300);
    let config =
        RemoteConfig { token_wait_max: waits, probe_every: waits, ..RemoteConfig::new(url) };
    Remote::start(&NANO.outline(), config).await
}

/// What comes of a job, and why it failed if it did.
async fn run(play: Play) -> (Vec<u32>, Result<Option<Finish>, RemoteError>) {
    let remote = remote(Is::llama(), play).await.unwrap();
    let job = job();
    let (sender, mut deltas) = Deltas::channel(job.ending.tokens_max);
    let began = Instant::now();
    let ended = remote.server.answer(&job, &sender).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{ended:?}");
    drop(sender);
    let mut tokens = Vec::new();
    while let Some(delta) = deltas.next().await {
        let Delta::Token { token, hidden, .. } = delta else { panic!("an end before its time") };
        assert_eq!(hidden, B256::ZERO);
        tokens.push(token);
    }
    (tokens, ended)
}

async fn check(lines: &[String], tokens: &[u32], finish: Finish) {
    let (found, ended) = run(Play::Lines(lines.to_vec(), Duration::ZERO)).await;
    assert_eq!((found.as_slice(), ended), (tokens, Ok(Some(finish))));
}

#[tokio::test]
async fn an_answer_ends_by_the_orders_rules() {
    let lines = [event(&[5], 1, None), event(&[6], 2, None), event(&[2], 3, None)];
    check(&lines, &[5, 6, 2], Finish::Eos).await;
    // A stop sequence is ours to see, and what follows is not wanted.
    let lines = [event(&[7], 1, None), event(&[8], 2, None), event(&[9], 3, None)];
    check(&lines, &[7, 8], Finish::Stop).await;
    let lines: Vec<String> = (1..60).map(|n| event(&[9], n, None)).collect();
    check(&lines, &[9; 40], Finish::Length).await;
    // The end is told, the token is not.
    let lines = [event(&[5], 1, None), event(&[], 1, Some("eos"))];
    check(&lines, &[5, 2], Finish::Eos).await;
}

#[tokio::test]
async fn tokens_that_a_stream_leaves_out_are_asked_for() {
    let tokens: Vec<u32> = (10..38).chain([2]).collect();
    let (found, ended) = run(Play::Gaps(tokens.clone())).await;
    assert_eq!((found, ended), (tokens, Ok(Some(Finish::Eos))));
}

#[tokio::test]
async fn a_hostile_server_fails_a_job_and_nothing_else() {
    let line = |line: String| Play::Lines(vec![event(&[5], 1, None), line], Duration::ZERO);
    let vocabulary = NANO.manifest.shape.vocab;
    for (play, word) in [
        (line(event(&[vocabulary], 2, None)), "the model has"),
        (line(event(&[5, 5], 2, None)), "counts 2 tokens and gave 3"),
        (line(event(&[], 1, Some("limit"))), "ended the answer after 1"),
        (line(event(&[], 1, Some("word"))), "ended the answer after 1"),
        (line(String::new()), "ended the answer after 1"),
        (line("data: {\"tokens\":".into()), "ended the answer after 1"),
        (line("data: {\"tokens\":\n\n".into()), "makes no sense"),
        (line("data: {\"error\":{\"message\":\"out of memory\"}}\n\n".into()), "out of memory"),
        (Play::Hang(vec![event(&[5], 1, None)]), "gave no token within"),
        (Play::Hang(vec![]), "gave no token within"),
        (Play::Pings, "gave no token within"),
        (Play::Endless, "is longer than"),
        (Play::Hoards, "counts 5 tokens and gave 0"),
        (Play::Status(500), "with 500"),
        (Play::Status(302), "with 302"),
    ] {
        let (tokens, ended) = run(play.clone()).await;
        let said = ended.unwrap_err().to_string();
        assert!(said.contains(word), "{play:?}: {said}");
        assert!(tokens.iter().all(|token| *token < vocabulary), "{play:?}");
    }
}

#[tokio::test]
async fn a_reader_that_leaves_ends_the_job() {
    let lines = (1..30).map(|n| event(&[5], n, None)).collect();
    let remote = remote(Is::llama(), Play::Lines(lines, Duration::from_millis(20))).await.unwrap();
    let mut deltas = remote.run(job()).unwrap();
    assert!(matches!(deltas.next().await, Some(Delta::Token { token: 5, .. })));
    drop(deltas);
    let free = async {
        while remote.places.available_permits() < remote.server.config.jobs_max {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), free).await.unwrap();
}

#[tokio::test]
async fn what_the_server_cannot_do_is_refused_by_name() {
    let remote = remote(Is::llama(), Play::Status(500)).await.unwrap();
    assert_eq!(remote.unable(&job()), None);
    assert_eq!(remote.unable(&Job { logprobs: Some(1), ..job() }), Some("logprobs"));
    assert_eq!((remote.assurance(), remote.kind()), (Assurance::Scored, "llama.cpp"));
}

#[tokio::test]
async fn a_server_that_is_gone_gets_no_jobs() {
    let url = serve(Is::llama(), Play::Status(500)).await;
    let config = RemoteConfig { jobs_max: 1, ..RemoteConfig::new(url) };
    let remote = Remote::start(&NANO.outline(), config).await.unwrap();
    remote.server.fits.store(false, Ordering::Relaxed);
    assert_eq!(remote.run(job()).unwrap_err(), Busy { queue_max: 1 });
}

#[tokio::test]
async fn another_model_is_not_sold_as_this_one() {
    let check = async |is: Is, word: &str| {
        let Err(error) = remote(is, Play::Status(500)).await else { panic!("{word} is expected") };
        assert!(error.to_string().contains(word), "{error}");
    };
    check(Is { cuts: false, ..Is::llama() }, "the server cuts \"Hello").await;
    let short = json!({ "default_generation_settings": { "n_ctx": 8 } });
    check(Is { props: short, ..Is::llama() }, "a context of 8").await;
    let nothing = Is { props: Value::Null, ..Is::llama() };
    check(nothing.clone(), "neither llama.cpp's nor vLLM").await;
    let ollama = Is { version: json!({ "version": "0.9" }), ..nothing.clone() };
    check(ollama, "Ollama tells no token ids").await;
    let models = json!({ "data": [{ "id": "m", "owned_by": "sglang", "max_model_len": 9000 }] });
    check(Is { models, ..nothing }, "SGLang's OpenAI API tells no token ids").await;
    let config = RemoteConfig::new("http://127.0.0.1:1");
    assert!(matches!(
        Remote::start(&NANO.outline(), config).await,
        Err(RemoteError::Unreachable { .. })
    ));
}
