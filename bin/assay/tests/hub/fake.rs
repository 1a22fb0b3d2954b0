//! A small hub that behaves as Hugging Face's does, and badly where a test wants that: one address for the
//! lists and the names of files, another for the bytes of large ones.
#![allow(dead_code, reason = "some tests need the one half of it, some the other")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// From this length on, a file lies at the other address.
const LARGE: usize = 1 << 10;

/// How the address of large files behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Honest,
    /// Closes each connection after so many bytes of a body.
    Cut(usize),
    /// Sends whole files, whatever range is asked for.
    NoRanges,
    /// As both.
    NoRangesAndCut(usize),
    /// Sends other bytes.
    Lies,
    /// Tells no length, and sends without end.
    Endless,
    /// Sends other parts than those asked for.
    OtherRange,
    /// Says that the file is longer by now.
    Longer,
    /// Sends so many bytes a second on each connection.
    Slow(usize),
    /// Answers with this status, so often.
    Refuses(u16, usize),
    /// Sends on to itself.
    Redirects,
    /// Takes a request and says nothing.
    Silent,
}

/// A repository's files, and what the hub says of them.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Names in the list that are no files.
    pub(crate) listed: Vec<String>,
    /// Who has no token is told that terms must be accepted.
    pub(crate) gated: bool,
    pub(crate) mood: Mood,
    /// Every request: which address, method, path, range, token.
    pub(crate) heard: Vec<Heard>,
}

#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) place: &'static str,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) range: Option<(usize, usize)>,
    pub(crate) token: Option<String>,
}

/// A running hub; it ends with the process.
#[derive(Clone)]
pub(crate) struct FakeHub {
    /// Where it is asked.
    pub(crate) endpoint: String,
    pub(crate) stage: Arc<Mutex<Stage>>,
}

impl FakeHub {
    /// The hub of one repository, `org/name`, with a token `hf_good`.
    pub(crate) fn new(files: &[(&str, &[u8])]) -> Self {
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()));
        let stage = Stage {
            files: files.collect(),
            listed: Vec::new(),
            gated: false,
            mood: Mood::Honest,
            heard: Vec::new(),
        };
        let stage = Arc::new(Mutex::new(stage));
        let large = serve(&stage, "large", bytes);
        let endpoint =
            serve(&stage, "hub", move |stream, heard, stage| hub(stream, heard, stage, &large));
        Self { endpoint, stage }
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.stage.lock().unwrap().mood = mood;
    }

    pub(crate) fn heard(&self, place: &str) -> Vec<Heard> {
        let stage = self.stage.lock().unwrap();
        stage.heard.iter().filter(|heard| heard.place == place).cloned().collect()
    }
}

/// Serves an address, a thread a connection and a request each; gives its URL.
fn serve(
    stage: &Arc<Mutex<Stage>>,
    place: &'static str,
    answer: impl Fn(&mut TcpStream, &Heard, &Arc<Mutex<Stage>>) -> std::io::Result<()>
    + Send
    + Sync
    + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stage, answer) = (Arc::clone(stage), Arc::new(answer));
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (stage, answer) = (Arc::clone(&stage), Arc::clone(&answer));
            thread::spawn(move || {
                let mut stream = stream;
                let Some(heard) = hear(&stream, place) else { return };
                stage.lock().unwrap().heard.push(heard.clone());
                // Who asked may have left.
                let _ = answer(&mut stream, &heard, &stage);
            });
        }
    });
    url
}

fn hear(stream: &TcpStream, place: &'static str) -> Option<Heard> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next()?;
    let mut words = first.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut heard = Heard { place, method, path, range: None, token: None };
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        match name.to_lowercase().as_str() {
            "range" => {
                let (first, last) = value.trim().strip_prefix("bytes=")?.split_once('-')?;
                let last = last.parse().unwrap_or(usize::MAX - 1);
                heard.range = Some((first.parse().ok()?, last));
            }
            "authorization" => {
                heard.token = value.trim().strip_prefix("Bearer ").map(str::to_owned);
            }
            _ => {}
        }
    }
    Some(heard)
}

fn head(stream: &mut TcpStream, status: u16, headers: &[(&str, String)]) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} Word\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    stream.write_all(text.as_bytes())
}

fn refuse(stream: &mut TcpStream, status: u16, code: &str, message: &str) -> std::io::Result<()> {
    let body = json!({ "error": message }).to_string();
    let headers = [
        ("x-error-code", code.to_owned()),
        ("x-error-message", message.to_owned()),
        ("content-length", body.len().to_string()),
    ];
    head(stream, status, &headers)?;
    stream.write_all(body.as_bytes())
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn git(bytes: &[u8]) -> String {
    let mut hasher = <Sha1 as sha1::Digest>::new();
    sha1::Digest::update(&mut hasher, format!("blob {}\0", bytes.len()));
    sha1::Digest::update(&mut hasher, bytes);
    hex(&sha1::Digest::finalize(hasher))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The commit of a state: another one when a file is.
fn commit(files: &BTreeMap<String, Vec<u8>>) -> String {
    git(files
        .iter()
        .flat_map(|(name, bytes)| [name.as_bytes(), bytes].concat())
        .collect::<Vec<u8>>()
        .as_slice())
}

/// Lists, and names of files.
fn hub(
    stream: &mut TcpStream,
    heard: &Heard,
    stage: &Arc<Mutex<Stage>>,
    large: &str,
) -> std::io::Result<()> {
    let stage = stage.lock().unwrap().clone();
    let path = heard.path.split('?').next().unwrap_or_default().to_owned();
    // A repository that was called otherwise once.
    if path.contains("/old/name") {
        let location = heard.path.replace("/old/name", "/org/name");
        return head(stream, 307, &[("location", location), ("content-length", "0".into())]);
    }
    if heard.token.as_deref().is_some_and(|token| token != "hf_good") {
        return refuse(stream, 401, "", "Invalid username or password.");
    }
    if !path.contains("/org/name") {
        return refuse(stream, 401, "RepoNotFound", "Repository not found");
    }
    let commit = commit(&stage.files);
    if let Some(rest) = path.strip_prefix("/api/models/org/name") {
        if rest.starts_with("/tree/") {
            let body = tree(&stage).to_string();
            let length = ("content-length", body.len().to_string());
            head(stream, 200, &[("content-type", "application/json".into()), length])?;
            return stream.write_all(body.as_bytes());
        }
        if !["", "/revision/main", &format!("/revision/{commit}")].contains(&rest) {
            return refuse(stream, 404, "RevisionNotFound", "Invalid rev id");
        }
        let body = list(&stage, &commit).to_string();
        let length = ("content-length", body.len().to_string());
        head(stream, 200, &[("content-type", "application/json".into()), length])?;
        return if heard.method == "HEAD" { Ok(()) } else { stream.write_all(body.as_bytes()) };
    }
    if stage.gated && heard.token.is_none() {
        let message = "Access to model org/name is restricted. You must have access to it and be authenticated.";
        return refuse(stream, 401, "GatedRepo", message);
    }
    let file = path.strip_prefix("/org/name/resolve/").and_then(|rest| rest.split_once('/'));
    let Some((_, name)) = file.filter(|(rev, _)| *rev == "main" || *rev == commit) else {
        return refuse(stream, 404, "RevisionNotFound", "Invalid rev id");
    };
    let Some(bytes) = stage.files.get(name) else {
        return refuse(stream, 404, "EntryNotFound", "Entry not found");
    };
    let rev = ("x-repo-commit", commit);
    if bytes.len() < LARGE {
        let tag = ("etag", format!("\"{}\"", git(bytes)));
        head(stream, 200, &[rev, tag, ("content-length", bytes.len().to_string())])?;
        return if heard.method == "HEAD" { Ok(()) } else { stream.write_all(bytes) };
    }
    let hash = sha256(bytes);
    let headers = [
        rev,
        ("location", format!("{large}/{hash}")),
        ("x-linked-etag", format!("\"{hash}\"")),
        ("x-linked-size", bytes.len().to_string()),
        ("content-length", "0".into()),
    ];
    head(stream, 302, &headers)
}

fn list(stage: &Stage, commit: &str) -> Value {
    let file = |(name, bytes): (&String, &Vec<u8>)| {
        let mut file = json!({ "rfilename": name, "size": bytes.len(), "blobId": git(bytes) });
        if bytes.len() >= LARGE {
            let hash = sha256(bytes);
            file["lfs"] = json!({ "sha256": hash, "size": bytes.len(), "pointerSize": 134 });
        }
        file
    };
    let mut siblings: Vec<Value> = stage.files.iter().map(file).collect();
    siblings.extend(stage.listed.iter().map(|name| json!({ "rfilename": name })));
    json!({
        "_id": "1", "id": "org/name", "modelId": "org/name", "sha": commit, "private": false,
        "gated": if stage.gated { json!("auto") } else { json!(false) }, "downloads": 1, "likes": 0,
        "tags": ["gguf", "license:apache-2.0"], "cardData": { "license": "apache-2.0" },
        "createdAt": "2026-01-01T00:00:00.000Z", "siblings": siblings,
    })
}

/// The list as other clients ask for it.
fn tree(stage: &Stage) -> Value {
    let files = stage.files.iter().map(|(name, bytes)| {
        let mut file =
            json!({ "type": "file", "path": name, "size": bytes.len(), "oid": git(bytes) });
        if bytes.len() >= LARGE {
            file["lfs"] = json!({ "oid": sha256(bytes), "size": bytes.len(), "pointerSize": 134 });
        }
        file
    });
    files.collect()
}

/// Bytes of large files.
fn bytes(stream: &mut TcpStream, heard: &Heard, stage: &Arc<Mutex<Stage>>) -> std::io::Result<()> {
    let (mood, file) = {
        let mut stage = stage.lock().unwrap();
        let mood = stage.mood;
        if let Mood::Refuses(status, times) = mood {
            stage.mood = if times > 1 { Mood::Refuses(status, times - 1) } else { Mood::Honest };
        }
        let wanted = heard.path.trim_start_matches('/');
        let file = stage.files.values().find(|bytes| sha256(bytes) == wanted).cloned();
        (mood, file)
    };
    let Some(mut file) = file else { return refuse(stream, 404, "", "no such file") };
    let total = file.len();
    let range = heard.range.filter(|_| !matches!(mood, Mood::NoRanges | Mood::NoRangesAndCut(_)));
    let (first, last) = range.unwrap_or((0, total - 1));
    let last = last.min(total - 1);
    if mood == Mood::Lies {
        file.iter_mut().for_each(|byte| *byte ^= 1);
    }
    match mood {
        Mood::Refuses(status, _) => {
            return head(
                stream,
                status,
                &[("retry-after", "0".into()), ("content-length", "0".into())],
            );
        }
        Mood::Redirects => {
            return head(
                stream,
                302,
                &[("location", heard.path.clone()), ("content-length", "0".into())],
            );
        }
        Mood::Silent => {
            thread::sleep(Duration::from_secs(3));
            return Ok(());
        }
        Mood::Endless => {
            let told = (first, total - 1 + (1 << 20), total);
            let range_header = ("content-range", format!("bytes {}-{}/{}", told.0, told.1, told.2));
            head(stream, if range.is_some() { 206 } else { 200 }, &[range_header])?;
            loop {
                stream.write_all(&[b'x'; 1 << 16])?;
            }
        }
        _ => {}
    }
    let (from, told_total) = match mood {
        Mood::OtherRange => (first + 1, total),
        Mood::Longer => (first, total + 1),
        _ => (first, total),
    };
    let length = ("content-length", (last + 1 - first).to_string());
    let told = ("content-range", format!("bytes {from}-{last}/{told_total}"));
    match range {
        Some(_) => head(stream, 206, &[length, told])?,
        None => head(stream, 200, &[length])?,
    }
    if heard.method == "HEAD" {
        return Ok(());
    }
    let body = &file[first..=last];
    match mood {
        Mood::Cut(count) | Mood::NoRangesAndCut(count) if body.len() > count => {
            stream.write_all(&body[..count])
        }
        Mood::Slow(a_second) => body.chunks(a_second.div_ceil(50)).try_for_each(|piece| {
            thread::sleep(Duration::from_millis(20));
            stream.write_all(piece)
        }),
        _ => stream.write_all(body),
    }
}
