//! What an auditor may not forget, on disk: one page an epoch.
//!
//! A secret is on disk before the chain hears of it, and a list of verdicts before it is committed to:
//! whoever cannot reveal what it committed to is fined. Pages are written whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use assay_chain::{Posted, PostedAt, Said, Verdict};
use assay_protocol::{Address, Amount, Answer, B256};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// What an auditor found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "is")]
pub enum Found {
    /// The answer is what the model gives.
    True,
    /// It is not.
    False {
        /// What is wrong.
        fault: String,
    },
    /// The provider did not show it.
    Silent {
        /// What it did instead.
        reason: String,
    },
    /// Nobody here can tell.
    Unable {
        /// Why.
        reason: String,
    },
    /// It was not checked in time; nothing is said of it.
    Late,
}

impl Found {
    /// As it is told to the chain.
    pub(crate) fn verdict(&self) -> Option<Verdict> {
        Some(match self {
            Self::True => Verdict::True,
            Self::False { .. } => Verdict::False,
            Self::Silent { .. } => Verdict::Silent,
            Self::Unable { .. } => Verdict::Unable,
            Self::Late => return None,
        })
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::True => f.write_str("true"),
            Self::False { fault } => write!(f, "false: {fault}"),
            Self::Silent { reason } => write!(f, "not shown: {reason}"),
            Self::Unable { reason } => write!(f, "cannot be checked here: {reason}"),
            Self::Late => f.write_str("not checked in time"),
        }
    }
}

/// A receipt that this auditor was drawn for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Task {
    pub(crate) at: PostedAt,
    /// The other auditor that has to check it; none once it is known what that said.
    #[serde(default)]
    pub(crate) other: Option<Address>,
    /// None before it was checked.
    pub(crate) found: Option<Found>,
    /// The receipt, once it was shown.
    pub(crate) posted: Option<Posted>,
    /// What follows from a false receipt was done: it was disputed to the end.
    pub(crate) disputed: bool,
    /// Nothing is left to do.
    pub(crate) closed: bool,
}

impl Task {
    pub(crate) fn new(at: PostedAt, other: Option<Address>) -> Self {
        Self { at, other, found: None, posted: None, disputed: false, closed: false }
    }
}

/// One epoch: the secret for its beacon, and what that drew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Page {
    pub(crate) epoch: u64,
    pub(crate) secret: B256,
    /// Of the list of verdicts.
    pub(crate) salt: B256,
    pub(crate) committed: bool,
    pub(crate) revealed: bool,
    /// None before the beacon stood.
    pub(crate) tasks: Option<Vec<Task>>,
    /// What is said of them; it stays as it is once it is here.
    pub(crate) list: Option<Vec<Said>>,
    pub(crate) list_committed: bool,
    pub(crate) list_revealed: bool,
    /// All others have revealed their secrets, or paid for not doing so.
    #[serde(default)]
    pub(crate) vows_kept: bool,
    /// Others that were drawn for something, and what; those that have not yet shown to have said anything.
    #[serde(default)]
    pub(crate) others: Vec<(Address, PostedAt)>,
}

/// An auditor that called true what this one found false.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Case {
    pub(crate) auditor: Address,
    pub(crate) about: Posted,
    /// When it is given up, unix seconds.
    pub(crate) until: u64,
}

impl Page {
    pub(crate) fn new(epoch: u64, secret: B256, salt: B256) -> Self {
        Self {
            epoch,
            secret,
            salt,
            committed: false,
            revealed: false,
            tasks: None,
            list: None,
            list_committed: false,
            list_revealed: false,
            vows_kept: false,
            others: Vec::new(),
        }
    }

    /// What was drawn; nothing before that is known.
    pub(crate) fn drawn(&self) -> &[Task] {
        self.tasks.as_deref().unwrap_or_default()
    }

    pub(crate) fn task(&mut self, at: &PostedAt) -> Option<&mut Task> {
        self.tasks.as_mut()?.iter_mut().find(|task| task.at == *at)
    }

    /// All that was found so far, as it is told to the chain.
    pub(crate) fn verdicts(&self) -> Vec<Said> {
        let said =
            |task: &Task| Some(Said { place: task.at, verdict: task.found.as_ref()?.verdict()? });
        self.drawn().iter().filter_map(said).collect()
    }

    /// What the list says of a place.
    pub(crate) fn said(&self, at: &PostedAt) -> Option<Verdict> {
        let list = self.list.as_deref().unwrap_or_default();
        list.iter().find(|said| said.place == *at).map(|said| said.verdict)
    }
}

/// What all audits came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Totals {
    /// Receipts that were drawn for this auditor.
    pub drawn: u64,
    /// Found true.
    pub truthful: u64,
    /// Found false.
    pub falsehoods: u64,
    /// Not shown.
    pub silences: u64,
    /// Not checked, for whatever reason.
    pub unchecked: u64,
    /// Providers convicted.
    pub convictions: u64,
    /// Fees paid, base units of ASY.
    pub fees: Amount,
    /// Rewards for convictions, base units of ASY.
    pub rewards: Amount,
    /// Times that another auditor was fined because this one said so.
    pub fined: u64,
}

/// The book could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be used: {reason}", path = path.display())]
pub struct BookError {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// The pages of a folder.
#[derive(Debug)]
pub(crate) struct Book {
    folder: PathBuf,
    pub(crate) pages: BTreeMap<u64, Page>,
    pub(crate) cases: Vec<Case>,
    pub(crate) totals: Totals,
}

impl Book {
    /// Opens the book in `folder`, made if there is none.
    pub(crate) fn open(folder: &Path) -> Result<Self, BookError> {
        let failed = |error: std::io::Error| BookError {
            path: folder.to_owned(),
            reason: error.to_string(),
        };
        fs::create_dir_all(folder).map_err(failed)?;
        let mut pages = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_string_lossy();
            if !name.starts_with("epoch-") || !name.ends_with(".json") {
                continue;
            }
            let found: Option<Page> = read(&folder.join(&*name))?;
            pages.extend(found.map(|page| (page.epoch, page)));
        }
        let cases = read(&folder.join("cases.json"))?.unwrap_or_default();
        let totals = Self::totals(folder)?;
        Ok(Self { folder: folder.to_owned(), pages, cases, totals })
    }

    /// What the audits of a folder came to.
    pub(crate) fn totals(folder: &Path) -> Result<Totals, BookError> {
        Ok(read(&folder.join("totals.json"))?.unwrap_or_default())
    }

    /// Keeps a page; on return it is on disk.
    pub(crate) fn keep(&mut self, page: Page) -> Result<(), BookError> {
        write(&self.page(page.epoch), &page)?;
        self.pages.insert(page.epoch, page);
        Ok(())
    }

    /// Changes a page, if it is there, and keeps it.
    pub(crate) fn change(
        &mut self,
        epoch: u64,
        change: impl FnOnce(&mut Page),
    ) -> Result<(), BookError> {
        let Some(mut page) = self.pages.get(&epoch).cloned() else { return Ok(()) };
        change(&mut page);
        self.keep(page)
    }

    /// Forgets a page.
    pub(crate) fn close(&mut self, epoch: u64) -> Result<(), BookError> {
        self.pages.remove(&epoch);
        remove(&self.page(epoch))
    }

    /// Changes which cases there are, and keeps them.
    pub(crate) fn change_cases(
        &mut self,
        change: impl FnOnce(&mut Vec<Case>),
    ) -> Result<(), BookError> {
        let mut cases = self.cases.clone();
        change(&mut cases);
        if cases != self.cases {
            write(&self.folder.join("cases.json"), &cases)?;
            self.cases = cases;
        }
        Ok(())
    }

    /// Changes what all audits came to.
    pub(crate) fn count(&mut self, change: impl FnOnce(&mut Totals)) -> Result<(), BookError> {
        change(&mut self.totals);
        write(&self.folder.join("totals.json"), &self.totals)
    }

    /// Keeps an answer that is to be disputed, under its receipt's digest.
    pub(crate) fn keep_answer(&self, receipt: B256, answer: &Answer) -> Result<(), BookError> {
        write(&self.answer(receipt), answer)
    }

    /// An answer that was kept.
    pub(crate) fn answer_of(&self, receipt: B256) -> Result<Option<Answer>, BookError> {
        read(&self.answer(receipt))
    }

    /// Forgets an answer.
    pub(crate) fn drop_answer(&self, receipt: B256) -> Result<(), BookError> {
        remove(&self.answer(receipt))
    }

    fn page(&self, epoch: u64) -> PathBuf {
        self.folder.join(format!("epoch-{epoch}.json"))
    }

    fn answer(&self, receipt: B256) -> PathBuf {
        self.folder.join(format!("answer-{receipt}.json"))
    }
}

fn failed(path: &Path, reason: impl std::fmt::Display) -> BookError {
    BookError { path: path.to_owned(), reason: reason.to_string() }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, BookError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(path, error)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path, error)),
    }
}

/// Writes a file so that it has the old contents or the new, whatever happens.
fn write(path: &Path, contents: &impl Serialize) -> Result<(), BookError> {
    let part = path.with_extension("part");
    let bytes = serde_json::to_vec(contents).map_err(|error| failed(path, error))?;
    let written = File::create(&part).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        // The name has to outlive a power cut as well.
        path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    });
    written.map_err(|error| failed(path, error))
}

fn remove(path: &Path) -> Result<(), BookError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(path, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        let at = |index| PostedAt { provider: Address::repeat_byte(1), period: 2, index };
        let mut page = Page::new(7, B256::repeat_byte(3), B256::repeat_byte(4));
        let mut tasks: Vec<Task> = [0, 1, 2].map(|index| Task::new(at(index), None)).into();
        tasks[0].found = Some(Found::False { fault: "token 3".into() });
        tasks[2].found = Some(Found::Late);
        page.tasks = Some(tasks);
        page
    }

    #[test]
    fn a_book_is_found_as_it_was_left() {
        let folder = tempfile::tempdir().unwrap();
        let mut book = Book::open(folder.path()).unwrap();
        book.keep(page()).unwrap();
        book.change(7, |page| page.committed = true).unwrap();
        book.count(|totals| totals.drawn += 3).unwrap();
        // What a power cut left of a write that did not end is nothing.
        fs::write(folder.path().join("epoch-7.part"), b"{").unwrap();
        let again = Book::open(folder.path()).unwrap();
        assert_eq!(again.pages, BTreeMap::from([(7, Page { committed: true, ..page() })]));
        assert_eq!(again.totals.drawn, 3);
        book.close(7).unwrap();
        assert!(Book::open(folder.path()).unwrap().pages.is_empty());
    }

    #[test]
    fn a_spoilt_page_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("epoch-3.json"), b"{").unwrap();
        let said = Book::open(folder.path()).unwrap_err().to_string();
        assert!(said.contains("epoch-3.json"), "{said}");
    }

    #[test]
    fn only_what_was_checked_is_said() {
        let said = page().verdicts();
        assert_eq!(said.len(), 1);
        assert_eq!(said[0].verdict, Verdict::False);
        assert_eq!(page().said(&said[0].place), None);
        let told = Page { list: Some(said.clone()), ..page() };
        assert_eq!(told.said(&said[0].place), Some(Verdict::False));
    }
}
