//! Works on one batch until all its lines are answered, it is stopped, or its time is over.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::Progress;
use super::line::{Place, answered, line_of};
use super::paper::{Journal, LINE_BYTES_MAX, Paper};
use crate::files;
use crate::http::{Gateway, now_s};
use crate::openai::Api;
use crate::shelf::{Kind, Thing};
use crate::store::StoreError;

/// Lines of one batch.
const LINES_MAX: u64 = 50_000;

/// Lines of one batch that are answered at once.
const AT_ONCE: usize = 16;

/// Why a batch comes to nothing.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("the input file cannot be read: {0}")]
    Input(io::Error),
    #[error("the input file has no lines")]
    Empty,
    #[error("the input file has {found} lines, at most {LINES_MAX}")]
    Long { found: u64 },
    #[error("what is written of the batch cannot be kept: {0}")]
    Paper(#[from] io::Error),
    #[error("the batch cannot be kept: {0}")]
    Store(#[from] StoreError),
    #[error("the batch is for an API that there is not")]
    Api,
}

impl Failed {
    fn code(&self) -> &'static str {
        match self {
            Self::Input(_) => "input_file_unreadable",
            Self::Empty => "empty_file",
            Self::Long { .. } => "too_many_lines",
            Self::Paper(_) | Self::Store(_) => "storage_error",
            Self::Api => "invalid_endpoint",
        }
    }
}

/// How the lines of a batch came to an end.
enum End {
    /// Each has its answer, or what went wrong with it.
    Complete,
    Cancelled,
    Expired,
    /// The gateway ends, and the next one goes on.
    Left,
}

/// What a batch is made of on disk.
struct Files {
    input: PathBuf,
    journal: PathBuf,
    output: PathBuf,
    errors: PathBuf,
}

/// Runs a batch to its end.
pub(super) async fn run(gateway: &Arc<Gateway>, id: &str, mut thing: Thing, progress: &Progress) {
    if let Err(error) = follow(gateway, id, &mut thing, progress).await {
        tracing::warn!(id, %error, "a batch failed");
        let said = json!({ "code": error.code(), "message": error.to_string(), "line": null });
        thing.value["errors"] = json!({ "object": "list", "data": [said] });
        if let Err(error) = enter(gateway, id, &mut thing, "failed").await {
            tracing::error!(id, %error, "a batch cannot be kept");
        }
    }
}

async fn follow(
    gateway: &Arc<Gateway>,
    id: &str,
    thing: &mut Thing,
    progress: &Progress,
) -> Result<(), Failed> {
    let input = thing.value["input_file_id"].as_str().unwrap_or_default();
    let paper = |what: &str| gateway.shelf.file(&format!("{id}.{what}"));
    let files = Files {
        input: gateway.shelf.file(input),
        journal: paper("journal"),
        output: paper("output"),
        errors: paper("errors"),
    };
    let end = match thing.value["status"].as_str() {
        // All was there, and only had to be put in its place.
        Some("finalizing") => End::Complete,
        _ => work(gateway, id, thing, progress, &files).await?,
    };
    let last = match end {
        End::Left => return Ok(()),
        End::Complete => "completed",
        End::Cancelled => "cancelled",
        End::Expired => "expired",
    };
    if let End::Complete = end {
        enter(gateway, id, thing, "finalizing").await?;
    }
    for (field, path, mark) in
        [("output_file_id", &files.output, "o"), ("error_file_id", &files.errors, "e")]
    {
        thing.value[field] = json!(publish(gateway, id, thing, path, mark).await?);
    }
    enter(gateway, id, thing, last).await?;
    // Everything is where clients find it.
    let _ = tokio::fs::remove_file(&files.journal).await;
    Ok(())
}

/// Writes down what a batch has come to.
async fn enter(
    gateway: &Gateway,
    id: &str,
    thing: &mut Thing,
    status: &str,
) -> Result<(), StoreError> {
    thing.value["status"] = json!(status);
    let since = format!("{status}_at");
    if thing.value[&since].is_null() {
        thing.value[&since] = json!(now_s());
    }
    if let Some(progress) = gateway.batches.of(id) {
        let count = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
        thing.value["request_counts"]["completed"] = json!(count(&progress.completed));
        thing.value["request_counts"]["failed"] = json!(count(&progress.failed));
    }
    gateway.shelf.put(Kind::Batch, id, thing.clone()).await
}

/// Answers the lines that have no answer yet.
async fn work(
    gateway: &Arc<Gateway>,
    id: &str,
    thing: &mut Thing,
    progress: &Progress,
    files: &Files,
) -> Result<End, Failed> {
    let api = thing.value["endpoint"].as_str().and_then(Api::at).ok_or(Failed::Api)?;
    let expires = thing.value["expires_at"].as_u64().unwrap_or_default();
    let total = count(&files.input).await?;
    let (output, good) = opened(&files.output).await?;
    let (errors, bad) = opened(&files.errors).await?;
    let (journal, bought) = Journal::open(&files.journal).await?;
    // What an earlier gateway came to is counted again.
    progress.completed.store(good.len() as u64, Ordering::Relaxed);
    progress.failed.store(bad.len() as u64, Ordering::Relaxed);
    let done: HashSet<usize> = good.into_iter().chain(bad).collect();
    thing.value["request_counts"]["total"] = json!(total);
    enter(gateway, id, thing, "in_progress").await?;

    let caller = gateway.keys.of_owner(thing.owner);
    let left = Duration::from_secs(expires.saturating_sub(now_s()));
    let over = async {
        tokio::select! {
            () = progress.stop.cancelled() => End::Cancelled,
            () = gateway.closing.cancelled() => End::Left,
            () = tokio::time::sleep(left) => End::Expired,
        }
    };
    let mut end = End::Complete;
    let none = Vec::new();
    let mut lines = lines(files.input.clone());
    let mut ended = false;
    tokio::pin!(over);
    let pending = futures_util::stream::poll_fn(|context| lines.poll_next_unpin(context))
        .filter(|(line, text)| {
            let wanted = !done.contains(line) && !text.is_empty();
            std::future::ready(wanted)
        })
        .take_until(async { end = over.await })
        .map(|(line, text)| {
            let (caller, journal) = (&caller, &journal);
            let bought = bought.get(&line).unwrap_or(&none);
            async move {
                let place = Place { batch: id, line, expires };
                answered(gateway, caller, api, place, (journal, bought), &text).await
            }
        })
        .buffer_unordered(AT_ONCE);
    {
        let mut pending = std::pin::pin!(pending);
        while let Some(outcome) = pending.next().await {
            let Some(outcome) = outcome else {
                ended = true;
                continue;
            };
            let (paper, number) = match outcome.good {
                true => (&output, &progress.completed),
                false => (&errors, &progress.failed),
            };
            paper.add(outcome.said).await?;
            number.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(if ended { End::Left } else { end })
}

/// Opens a file of answers; gives the lines that have theirs in it.
async fn opened(path: &Path) -> io::Result<(Paper, Vec<usize>)> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let lines = Arc::clone(&seen);
    let paper = Paper::open(path, move |said| {
        lines.lock().unwrap_or_else(PoisonError::into_inner).extend(line_of(said));
    });
    let paper = paper.await?;
    let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((paper, seen))
}

/// How many lines a file has that are not empty.
async fn count(path: &Path) -> Result<u64, Failed> {
    let path = path.to_owned();
    let counted = tokio::task::spawn_blocking(move || {
        let mut found = 0;
        each_line(&path, |_, text| {
            found += u64::from(!text.is_empty());
            true
        })?;
        Ok(found)
    });
    let counted = counted.await.map_err(|error| Failed::Input(io::Error::other(error)))?;
    match counted.map_err(Failed::Input)? {
        0 => Err(Failed::Empty),
        found if found > LINES_MAX => Err(Failed::Long { found }),
        found => Ok(found),
    }
}

/// The lines of a file, read as they are wanted.
fn lines(path: PathBuf) -> ReceiverStream<(usize, Vec<u8>)> {
    let (sender, lines) = mpsc::channel(AT_ONCE);
    tokio::task::spawn_blocking(move || {
        let read = each_line(&path, |line, text| sender.blocking_send((line, text)).is_ok());
        if let Err(error) = read {
            tracing::error!(path = %path.display(), %error, "a batch's input cannot be read on");
        }
    });
    ReceiverStream::new(lines)
}

/// Shows the lines of a file, without their ends, until `see` has enough. One that is too long is cut,
/// and is no request then.
fn each_line(path: &Path, mut see: impl FnMut(usize, Vec<u8>) -> bool) -> io::Result<()> {
    let mut reader = BufReader::new(std::fs::File::open(path)?);
    for line in 0.. {
        let mut text = Vec::new();
        let most = LINE_BYTES_MAX as u64;
        if (&mut reader).take(most).read_until(b'\n', &mut text)? == 0 {
            return Ok(());
        }
        if text.len() >= LINE_BYTES_MAX && text.last() != Some(&b'\n') {
            reader.skip_until(b'\n')?;
        }
        if !see(line, text.trim_ascii().to_vec()) {
            return Ok(());
        }
    }
    Ok(())
}

/// Makes a file of what was written, and gives its id; none if nothing was. Done twice it is the same.
async fn publish(
    gateway: &Gateway,
    batch: &str,
    thing: &Thing,
    path: &Path,
    mark: &str,
) -> Result<Option<String>, Failed> {
    let name = batch.trim_start_matches("batch_");
    let id = format!("file-{name}{mark}");
    let to = gateway.shelf.file(&id);
    match tokio::fs::metadata(path).await {
        Ok(found) if found.len() == 0 => {
            tokio::fs::remove_file(path).await?;
            return Ok(None);
        }
        Ok(_) => tokio::fs::rename(path, &to).await?,
        // An earlier gateway has put it in its place already.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let bytes = match tokio::fs::metadata(&to).await {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let what = if mark == "o" { "output" } else { "errors" };
    let (filename, created) = (format!("{batch}_{what}.jsonl"), now_s());
    let value: Value = files::object(&id, (&filename, "batch_output"), bytes, created, None);
    let file = Thing { owner: thing.owner, created, value };
    gateway.shelf.put(Kind::File, &id, file).await?;
    Ok(Some(id))
}
