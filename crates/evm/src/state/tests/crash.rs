//! Full disks, power cuts and killed processes: nothing that was acknowledged is lost, and what is
//! found afterwards is one block's state.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::super::{Store, StoreError, StoreOptions};
use super::{Dice, Disk, chain, commits};

fn store(disk: &Disk) -> Result<Store, StoreError> {
    let disk = disk.clone();
    Store::on(move || disk.clone())
}

#[test]
fn a_full_disk_refuses_the_block_and_answers_on() {
    let blocks: Vec<_> = chain(7).take(90).collect();
    let disk = Disk::default();
    let store = store(&disk).unwrap();
    let mut next = 0;
    let mut refused = 0;
    // More and more of a commit works before the disk is full.
    for left in (0..24).cycle().take(120) {
        let head = store.head();
        disk.fail_after(Some(left));
        let done = store.commit(&commits(&blocks[next..=next]));
        disk.fail_after(None);
        match done {
            Ok(()) => next += 1,
            Err(StoreError::Full) => {
                refused += 1;
                assert_eq!(store.head(), head);
                assert_eq!(store.header(next as u64).unwrap(), None);
                assert_eq!(store.number(&blocks[next].hash).unwrap(), None);
                if next > 0 {
                    assert_eq!(store.load().unwrap().root(), blocks[next - 1].state.root());
                    assert_eq!(store.body(0).unwrap().unwrap(), blocks[0].body[..]);
                }
            }
            Err(error) => panic!("{error}"),
        }
        if next == blocks.len() {
            break;
        }
    }
    assert!(refused > 20, "{refused} refused");
    assert!(next > 1 && next < blocks.len(), "{next} made");
    store.commit(&commits(&blocks[next..])).unwrap();
    assert_eq!(store.load().unwrap().root(), blocks.last().unwrap().state.root());
}

#[test]
fn reads_go_on_while_the_disk_is_full() {
    let blocks: Vec<_> = chain(8).take(5).collect();
    let disk = Disk::default();
    let store = store(&disk).unwrap();
    store.commit(&commits(&blocks[..3])).unwrap();
    disk.fail_after(Some(2));
    assert!(matches!(store.commit(&commits(&blocks[3..])), Err(StoreError::Full)));
    // Opening a file after a failed write repairs it, which is a write too: until there is room
    // again, an answer from the disk may be a typed error, and none is a wrong one.
    assert_eq!(store.head().unwrap().0, 2);
    match store.load() {
        Ok(state) => assert_eq!(state.root(), blocks[2].state.root()),
        Err(error) => assert!(error.is_disk(), "{error}"),
    }
    disk.fail_after(None);
    assert_eq!(store.head().unwrap().0, 2);
    store.commit(&commits(&blocks[3..])).unwrap();
}

#[test]
fn a_power_cut_leaves_the_last_block_or_the_one_after() {
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let blocks: Vec<_> = chain(seed).take(12).collect();
        let disk = Disk::default();
        let store = store(&disk).unwrap();
        let sure = 1 + dice.below(9) as usize;
        for block in &blocks[..sure] {
            store.commit(&[block.commit()]).unwrap();
        }
        disk.fail_after(Some(dice.below(60)));
        let done = store.commit(&commits(&blocks[sure..sure + 2]));
        let after = disk.cut(&mut dice);
        let store = self::store(&after).unwrap();
        let head = store.head().unwrap().0 as usize;
        let expected = if done.is_ok() { vec![sure + 1] } else { vec![sure - 1, sure + 1] };
        assert!(expected.contains(&head), "seed {seed}: {head}, expected {expected:?}");
        assert_eq!(store.load().unwrap().root(), blocks[head].state.root(), "seed {seed}");
        store.commit(&commits(&blocks[head + 1..])).unwrap();
        assert_eq!(store.load().unwrap().root(), blocks[11].state.root(), "seed {seed}");
    }
}

/// Names the directory in which the test below, run as a child, commits blocks until it is killed.
const DIRECTORY: &str = "ASSAY_EVM_CRASH_DIRECTORY";

#[test]
fn a_killed_process_loses_nothing_it_acknowledged() {
    if let Ok(directory) = std::env::var(DIRECTORY) {
        return commit_until_killed(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let mut roots = BTreeMap::new();
    let mut blocks = chain(99);
    let mut dice = Dice(99);
    for _ in 0..6 {
        let test = std::thread::current().name().unwrap().to_owned();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([&test, "--exact", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = |line: &str| line.strip_prefix("made ").and_then(|n| n.parse::<u64>().ok());
        let mut made = None;
        while made.is_none() {
            made = said(&lines.next().unwrap().unwrap());
        }
        std::thread::sleep(Duration::from_millis(dice.below(120)));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in lines.map_while(Result::ok) {
            made = said(&line).or(made);
        }
        let store = Store::open(directory.path(), &StoreOptions::default()).unwrap();
        let (head, hash) = store.head().unwrap();
        assert!(made.unwrap() <= head, "acknowledged {made:?}, found {head}");
        while roots.len() as u64 <= head {
            let block = blocks.next().unwrap();
            roots.insert(block.header.number, (block.hash, block.state.root()));
        }
        assert_eq!((hash, store.load().unwrap().root()), roots[&head]);
    }
}

fn commit_until_killed(directory: &Path) {
    let store = Store::open(directory, &StoreOptions::default()).unwrap();
    let next = store.head().map_or(0, |(head, _)| head + 1);
    for block in chain(99).skip(next as usize) {
        store.commit(&[block.commit()]).unwrap();
        println!("\nmade {}", block.header.number);
        std::io::stdout().flush().unwrap();
    }
}

/// As [`DIRECTORY`], for a store that is made once.
const NEW: &str = "ASSAY_EVM_NEW_DIRECTORY";

#[test]
fn a_process_killed_in_its_first_moments_leaves_what_can_be_opened() {
    if let Ok(directory) = std::env::var(NEW) {
        Store::open(Path::new(&directory), &StoreOptions::default()).unwrap();
        return;
    }
    let test = std::thread::current().name().unwrap().to_owned();
    for _ in 0..8 {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([&test, "--exact"])
            .env(NEW, directory.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The moment there is a file, of which not much can be written yet.
        while std::fs::read_dir(directory.path()).unwrap().next().is_none() {}
        child.kill().unwrap();
        child.wait().unwrap();
        let store = Store::open(directory.path(), &StoreOptions::default()).unwrap();
        assert_eq!(store.head(), None);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
