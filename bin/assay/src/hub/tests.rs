//! A hub that cuts, lies, forgets ranges, never ends, changes its mind.

use std::fs;
use std::time::{Duration, Instant};

use super::fake::{FakeHub, Mood};
use super::fetch::{Fetched, Meter};
use super::{Hub, HubError, HubFile, Manner, Reference, Remote};

const PIECE: usize = 10_000;
const NAME: &str = "m-Q8_0.gguf";

fn content(salt: u8) -> Vec<u8> {
    (0..95_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 ^ salt).collect()
}

struct Test {
    fake: FakeHub,
    folder: tempfile::TempDir,
}

impl Test {
    fn new() -> Self {
        let fake = FakeHub::new(&[(NAME, &content(0)), ("config.json", b"{}")]);
        Self { fake, folder: tempfile::tempdir().unwrap() }
    }

    fn hub(&self, token: Option<&str>) -> Hub {
        let manner = Manner {
            attempts_max: 4,
            wait: Duration::from_millis(2),
            wait_max: Duration::from_millis(20),
            silence_max: Duration::from_millis(300),
            connections: 3,
            piece_bytes: PIECE as u64,
        };
        Hub::new(&self.fake.endpoint, token, manner).unwrap()
    }

    async fn remote(&self, hub: &Hub, name: &str) -> Result<Remote, HubError> {
        let reference = reference();
        let repository = hub.repository(&reference, "main").await?;
        let file = repository.files.into_iter().find(|file| file.name == name);
        let file = file.unwrap_or(HubFile { name: name.into(), size: None, digest: None });
        hub.remote(&reference, &repository.commit, &file).await
    }

    /// Fetches the large file; what stands there in the end, and what the meter said last.
    async fn fetch(&self) -> (Result<Fetched, HubError>, Option<Vec<u8>>, u64) {
        let hub = self.hub(None);
        let remote = match self.remote(&hub, NAME).await {
            Ok(remote) => remote,
            Err(error) => return (Err(error), None, 0),
        };
        let to = self.folder.path().join(NAME);
        let held = std::cell::Cell::new(0);
        let show = |bytes| held.set(bytes);
        let fetched = hub.fetch(&remote, &to, &Meter::new(&show)).await;
        (fetched, fs::read(&to).ok(), held.get())
    }

    async fn check(&self, mood: Mood) {
        self.fake.set(mood);
        let (fetched, file, held) = self.fetch().await;
        let fetched = fetched.unwrap_or_else(|error| panic!("{mood:?}: {error}"));
        assert_eq!(file, Some(content(0)), "{mood:?}");
        assert_eq!((fetched.found + fetched.fetched, held), (95_000, 95_000), "{mood:?}");
    }

    /// A fetch that fails leaves nothing under the file's name.
    async fn check_refused(&self, mood: Mood, word: &str) {
        self.fake.set(mood);
        let began = Instant::now();
        let (fetched, file, _) = self.fetch().await;
        let said = fetched.unwrap_err().to_string();
        assert!(said.contains(word), "{mood:?}: {said}");
        assert_eq!(file, None, "{mood:?}");
        assert!(began.elapsed() < Duration::from_secs(5), "{mood:?}");
    }
}

fn reference() -> Reference {
    Reference::parse("org/name").unwrap()
}

#[tokio::test]
async fn a_file_comes_in_pieces_from_where_the_hub_sends_us() {
    let test = Test::new();
    test.check(Mood::Honest).await;
    let mut ranges: Vec<_> =
        test.fake.heard("large").into_iter().map(|it| it.range.unwrap()).collect();
    ranges.sort_unstable();
    assert_eq!(ranges.len(), 10);
    assert_eq!((ranges[0], ranges[9]), ((0, PIECE - 1), (90_000, 94_999)));
    // Nothing but the file is left, and it is not fetched again.
    assert_eq!(fs::read_dir(test.folder.path()).unwrap().count(), 1);
    assert_eq!(test.fetch().await.0.unwrap(), Fetched { found: 95_000, fetched: 0 });
}

#[tokio::test]
async fn what_is_cut_goes_on() {
    for mood in [Mood::Cut(4_000), Mood::Refuses(503, 3), Mood::Refuses(429, 3)] {
        Test::new().check(mood).await;
    }
    let test = Test::new();
    test.check(Mood::Cut(4_000)).await;
    let firsts = test.fake.heard("large").into_iter().map(|it| it.range.unwrap().0);
    assert!(firsts.into_iter().any(|first| first == 4_000), "a cut piece goes on where it was cut");
}

#[tokio::test]
async fn a_server_without_ranges_will_do() {
    let test = Test::new();
    test.check(Mood::NoRanges).await;
    let whole = test.fake.heard("large").into_iter().filter(|it| it.range.is_none()).count();
    assert_eq!(whole, 1);
    // Where it also cuts, the file never comes, and that is said.
    Test::new().check_refused(Mood::NoRangesAndCut(90_000), "broke off").await;
}

#[tokio::test]
async fn what_is_no_file_is_refused() {
    for (mood, word) in [
        (Mood::Lies, "does not hash to what the hub says"),
        (Mood::Endless, "sends more than was asked for"),
        (Mood::OtherRange, "were asked for"),
        (Mood::Longer, "has changed at the hub: 95001 bytes, 95000 were expected"),
        (Mood::Redirects, "again and again"),
        (Mood::Silent, "broke off"),
        (Mood::Refuses(503, 99), "503"),
        (Mood::Refuses(404, 99), "404"),
    ] {
        Test::new().check_refused(mood, word).await;
    }
}

#[tokio::test]
async fn a_lie_is_not_gone_on_with() {
    let test = Test::new();
    test.check_refused(Mood::Lies, "does not hash").await;
    test.check(Mood::Honest).await;
}

#[tokio::test]
async fn what_an_earlier_process_left_is_used() {
    let test = Test::new();
    test.check_refused(Mood::Refuses(404, 1), "404").await;
    let note = test.folder.path().join(format!("{NAME}.part.json"));
    let note: serde_json::Value = serde_json::from_slice(&fs::read(note).unwrap()).unwrap();
    let left = note["done"].as_array().unwrap().len() as u64 * PIECE as u64;
    test.fake.set(Mood::Honest);
    let (fetched, file, _) = test.fetch().await;
    assert_eq!(fetched.unwrap(), Fetched { found: left, fetched: 95_000 - left });
    assert_eq!(file, Some(content(0)));
}

#[tokio::test]
async fn what_was_left_damaged_is_fetched_again() {
    let test = Test::new();
    test.check_refused(Mood::Refuses(404, 1), "404").await;
    let hub = test.hub(None);
    let remote = test.remote(&hub, NAME).await.unwrap();
    let to = test.folder.path().join(NAME);
    // Noted, but never written: a disk that lost its power, and what it had promised.
    let mut part = super::part::Part::open(&to, &remote, PIECE as u64).unwrap();
    for (number, ..) in part.missing().into_iter().rev().take(3) {
        part.finish(number).unwrap();
    }
    drop(part);
    let (fetched, file, held) = test.fetch().await;
    assert_eq!(file, Some(content(0)));
    assert_eq!((fetched.unwrap().found, held), (0, 95_000));
}

#[tokio::test]
async fn a_file_that_changes_between_two_attempts_begins_anew() {
    let test = Test::new();
    test.check_refused(Mood::Refuses(404, 1), "404").await;
    test.fake.stage.lock().unwrap().files.insert(NAME.into(), content(9));
    test.fake.set(Mood::Honest);
    let (fetched, file, _) = test.fetch().await;
    assert_eq!(fetched.unwrap(), Fetched { found: 0, fetched: 95_000 });
    assert_eq!(file, Some(content(9)));
    // And one that was whole is replaced.
    test.fake.stage.lock().unwrap().files.insert(NAME.into(), content(7));
    assert_eq!(test.fetch().await.1, Some(content(7)));
}

#[tokio::test]
async fn small_files_are_hashed_as_git_does() {
    let test = Test::new();
    let hub = test.hub(None);
    let remote = test.remote(&hub, "config.json").await.unwrap();
    let to = test.folder.path().join("config.json");
    hub.fetch(&remote, &to, &Meter::new(&|_| ())).await.unwrap();
    assert_eq!(fs::read(&to).unwrap(), b"{}");
    let lied = Remote { digest: super::Digest::GitBlob([1; 20]), ..remote };
    let error = hub.fetch(&lied, &test.folder.path().join("x"), &Meter::new(&|_| ())).await;
    assert!(matches!(error, Err(HubError::Hash { .. })));
}

#[tokio::test]
async fn the_token_stays_at_the_hub() {
    let test = Test::new();
    test.fake.stage.lock().unwrap().gated = true;
    let said = test.remote(&test.hub(None), NAME).await.unwrap_err();
    assert!(matches!(&said, HubError::Refused { said, .. } if said.code == "GatedRepo"), "{said}");
    let hub = test.hub(Some("hf_good"));
    let remote = test.remote(&hub, NAME).await.unwrap();
    let to = test.folder.path().join(NAME);
    hub.fetch(&remote, &to, &Meter::new(&|_| ())).await.unwrap();
    assert!(test.fake.heard("hub").iter().any(|heard| heard.token.is_some()));
    let large = test.fake.heard("large");
    assert!(!large.is_empty() && large.iter().all(|heard| heard.token.is_none()));
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_no_files() {
    let test = Test::new();
    let names =
        ["../../evil.gguf", "/etc/evil.gguf", "a/../evil.gguf", "a\\evil.gguf", "good/x.gguf"];
    test.fake.stage.lock().unwrap().listed = names.map(String::from).into();
    let repository = test.hub(None).repository(&reference(), "main").await.unwrap();
    let names: Vec<&str> = repository.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["config.json", NAME, "good/x.gguf"]);
    assert_eq!(repository.licence.as_deref(), Some("apache-2.0"));
}

#[tokio::test]
async fn a_repository_that_was_renamed_is_found() {
    let test = Test::new();
    let hub = test.hub(None);
    let reference = Reference::parse("old/name").unwrap();
    let repository = hub.repository(&reference, "main").await.unwrap();
    let file = repository.files.iter().find(|file| file.name == NAME).unwrap();
    assert_eq!(hub.remote(&reference, &repository.commit, file).await.unwrap().size, 95_000);
}

#[tokio::test]
async fn nobody_is_not_waited_for() {
    let test = Test::new();
    let manner = Manner { wait: Duration::from_secs(100), ..Manner::default() };
    let hub = Hub::new("http://127.0.0.1:1", None, manner).unwrap();
    let error = test.remote(&hub, NAME).await.unwrap_err();
    assert!(matches!(error, HubError::Unreachable(_)), "{error}");
    let failure = error.failure(&hub, &reference()).to_string();
    assert!(failure.contains("HF_ENDPOINT"), "{failure}");
    assert!(Hub::new("file:///etc", None, manner).is_err());
    assert!(Hub::new("huggingface.co", None, manner).is_err());
}
