//! Fetches one file: in pieces, over several connections, going on where something was cut.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use futures_util::future::try_join_all;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Method, Response, StatusCode};

use super::part::{Part, failed};
use super::{Digest, Hub, HubError, Remote, unheard};

/// Fewer bytes than this between two cuts are no progress.
const PROGRESS_MIN: u64 = 64 << 10;

/// Counts bytes, and shows how many there are.
pub(crate) struct Meter<'a> {
    held: Cell<u64>,
    show: &'a dyn Fn(u64),
}

impl<'a> Meter<'a> {
    /// Of files of which nothing is there.
    pub(crate) fn new(show: &'a dyn Fn(u64)) -> Self {
        Self { held: Cell::new(0), show }
    }

    fn set(&self, held: u64) {
        self.held.set(held);
        (self.show)(held);
    }

    fn add(&self, bytes: u64) {
        self.set(self.held.get() + bytes);
    }

    fn take(&self, bytes: u64) {
        self.set(self.held.get().saturating_sub(bytes));
    }
}

/// Where a file came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// Bytes that an earlier process had left here.
    pub(crate) found: u64,
    /// Bytes that came from the hub.
    pub(crate) fetched: u64,
}

/// Why an attempt ended.
enum Stopped {
    /// The server sends whole files only.
    NoRanges,
    Hub(HubError),
}

impl From<HubError> for Stopped {
    fn from(error: HubError) -> Self {
        Self::Hub(error)
    }
}

impl Hub {
    /// Brings a file to `to`, where it is whole and hashes to what the hub says, or is not at all.
    ///
    /// What an earlier process left is used. Where it does not hash to what it should, because a machine
    /// lost its power, say, everything is fetched once more.
    pub(crate) async fn fetch(
        &self,
        remote: &Remote,
        to: &Path,
        meter: &Meter<'_>,
    ) -> Result<Fetched, HubError> {
        if to.is_file() && digest_of(to, remote)? == remote.digest {
            meter.add(remote.size);
            return Ok(Fetched { found: remote.size, fetched: 0 });
        }
        let part = RefCell::new(Part::open(to, remote, self.manner.piece_bytes)?);
        let mut found = part.borrow().bytes();
        meter.add(found);
        self.fill(remote, &part, meter).await?;
        let mut digest = digest_of(part.borrow().path(), remote)?;
        let mut fetched = remote.size - found;
        if digest != remote.digest && found > 0 {
            tracing::warn!(
                file = remote.name,
                "what was left here is damaged, it is fetched again"
            );
            part.borrow_mut().forget()?;
            meter.take(remote.size);
            found = 0;
            self.fill(remote, &part, meter).await?;
            fetched += remote.size;
            digest = digest_of(part.borrow().path(), remote)?;
        }
        if digest != remote.digest {
            // Nothing of it can be relied on.
            part.borrow_mut().forget()?;
            let file = remote.name.clone();
            return Err(HubError::Hash { file, found: digest, expected: remote.digest });
        }
        part.into_inner().complete(to)?;
        Ok(Fetched { found, fetched })
    }

    /// Fetches all that is missing.
    async fn fill(
        &self,
        remote: &Remote,
        part: &RefCell<Part>,
        meter: &Meter<'_>,
    ) -> Result<(), HubError> {
        let (missing, held) = (part.borrow().missing(), part.borrow().bytes());
        let others = meter.held.get().saturating_sub(held);
        // A piece that is all of the file needs no range.
        let stopped = if missing.len() == 1 && missing[0] == (0, 0, remote.size) {
            Err(Stopped::NoRanges)
        } else {
            self.pieces(remote, part, missing, meter).await
        };
        match stopped {
            Ok(()) => Ok(()),
            Err(Stopped::Hub(error)) => Err(error),
            Err(Stopped::NoRanges) => {
                part.borrow_mut().forget()?;
                meter.set(others);
                self.whole(remote, part, meter).await
            }
        }
    }

    /// Fetches pieces, several at once.
    async fn pieces(
        &self,
        remote: &Remote,
        part: &RefCell<Part>,
        missing: Vec<(u64, u64, u64)>,
        meter: &Meter<'_>,
    ) -> Result<(), Stopped> {
        let missing = RefCell::new(VecDeque::from(missing));
        let next = || missing.borrow_mut().pop_front();
        let one_after_the_other = || async {
            while let Some((number, first, end)) = next() {
                self.piece(remote, part, (first, end), meter).await?;
                part.borrow_mut().finish(number)?;
            }
            Ok::<(), Stopped>(())
        };
        try_join_all((0..self.manner.connections.max(1)).map(|_| one_after_the_other()))
            .await
            .map(drop)
    }

    /// Fetches one piece, going on behind what came before a cut.
    async fn piece(
        &self,
        remote: &Remote,
        part: &RefCell<Part>,
        (first, end): (u64, u64),
        meter: &Meter<'_>,
    ) -> Result<(), Stopped> {
        let (mut at, mut failed) = (first, 0);
        loop {
            let before = at;
            match self.rest(remote, part, &mut at, end, meter).await {
                Ok(()) => return Ok(()),
                Err(Stopped::NoRanges) => return Err(Stopped::NoRanges),
                Err(Stopped::Hub(error)) => {
                    failed = if at - before >= PROGRESS_MIN { 1 } else { failed + 1 };
                    self.bear(error, failed).await?;
                }
            }
        }
    }

    /// Fetches the bytes from `at` to `end`, as far as they come.
    async fn rest(
        &self,
        remote: &Remote,
        part: &RefCell<Part>,
        at: &mut u64,
        end: u64,
        meter: &Meter<'_>,
    ) -> Result<(), Stopped> {
        let response = self.ask(Method::GET, remote.url.clone(), Some((*at, end - 1))).await?;
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(Stopped::NoRanges);
        }
        check_range(&response, remote, *at)?;
        Ok(pour(response, remote, part, at, end, meter).await?)
    }

    /// Fetches the file from its beginning, and from there again after a cut.
    async fn whole(
        &self,
        remote: &Remote,
        part: &RefCell<Part>,
        meter: &Meter<'_>,
    ) -> Result<(), HubError> {
        let mut failed = 0;
        loop {
            let mut at = 0;
            let poured = async {
                let response = self.ask(Method::GET, remote.url.clone(), None).await?;
                if let Some(found) = response.content_length().filter(|it| *it != remote.size) {
                    let file = remote.name.clone();
                    return Err(HubError::Changed { file, found, expected: remote.size });
                }
                pour(response, remote, part, &mut at, remote.size, meter).await
            };
            let Err(error) = poured.await else { break };
            meter.take(at);
            failed += 1;
            self.bear(error, failed).await?;
        }
        let missing = part.borrow().missing();
        missing.into_iter().try_for_each(|(number, ..)| part.borrow_mut().finish(number))
    }
}

/// Writes a body from `at` on, which ends at `end`.
async fn pour(
    mut response: Response,
    remote: &Remote,
    part: &RefCell<Part>,
    at: &mut u64,
    end: u64,
    meter: &Meter<'_>,
) -> Result<(), HubError> {
    while let Some(bytes) = response.chunk().await.map_err(unheard)? {
        let count = bytes.len() as u64;
        if count > end - *at {
            return Err(HubError::TooLong { file: remote.name.clone() });
        }
        part.borrow().write(*at, &bytes)?;
        *at += count;
        meter.add(count);
    }
    if *at < end {
        return Err(HubError::Cut(format!("{} bytes of {} are missing", end - *at, remote.name)));
    }
    Ok(())
}

/// Whether a partial answer is of the file that is expected, and begins where it should.
fn check_range(response: &Response, remote: &Remote, at: u64) -> Result<(), HubError> {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let malformed = || HubError::Malformed {
        what: remote.name.clone(),
        why: format!("bytes from {at} on were asked for, {:?} came", range.unwrap_or_default()),
    };
    let (bytes, total) =
        range.and_then(|it| it.strip_prefix("bytes ")?.split_once('/')).ok_or_else(malformed)?;
    let first = bytes.split_once('-').and_then(|(first, _)| first.parse::<u64>().ok());
    if first != Some(at) {
        return Err(malformed());
    }
    match total.parse::<u64>() {
        Ok(found) if found != remote.size => {
            Err(HubError::Changed { file: remote.name.clone(), found, expected: remote.size })
        }
        _ => Ok(()),
    }
}

/// The hash of a file here, taken in the way in which the hub tells its own.
fn digest_of(path: &Path, remote: &Remote) -> Result<Digest, HubError> {
    let failed = failed(path);
    let mut file = File::open(path).map_err(&failed)?;
    let mut hasher = remote.digest.hasher(remote.size);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(&failed)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
    }
}
