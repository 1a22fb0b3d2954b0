//! Measures the state: building it, changing it block by block, keeping it on disk, and starting
//! from there. Prints a JSON line per figure; `cpu` counts all threads, so it holds on a busy machine.
//!
//! `cargo run --release -p assay-evm --example state [ACCOUNTS [UPDATES [BLOCKS]]]`
#![expect(clippy::print_stdout, reason = "figures go to stdout")]
#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on should stop")]

use std::collections::VecDeque;
use std::fs;
use std::time::{Duration, Instant};

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, U256, keccak256};
use assay_evm::state::{Account, AccountChange, Changes, Commit, FILE, State, Store, StoreOptions};
use serde_json::{Value, json};

/// States that a chain keeps.
const KEPT: usize = 128;

/// Accounts written at a time while the state is built.
const STEP: u64 = 50_000;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse().unwrap());
    let accounts: u64 = arguments.next().unwrap_or(1_000_000);
    let updates: u64 = arguments.next().unwrap_or(2_000);
    let blocks: u64 = arguments.next().unwrap_or(64);

    let before = resident();
    let start = Instant::now();
    let (mut state, mut spent) = (State::default(), Duration::ZERO);
    let mut cpu = 0.0;
    for first in (0..accounts).step_by(STEP as usize) {
        let changes = pay(first..(first + STEP).min(accounts), first);
        let (start, busy) = (Instant::now(), cpu_s());
        state = state.apply(&changes);
        spent += start.elapsed();
        cpu += cpu_s() - busy;
    }
    say(
        "build",
        accounts,
        json!({
            "s": spent.as_secs_f64(),
        "cpu_s": cpu,
            "s_with_making_the_changes": start.elapsed().as_secs_f64(),
            "resident_bytes_per_account": (resident() - before) / accounts,
        }),
    );

    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path(), &StoreOptions::default()).unwrap();
    let whole = all(accounts);
    let mut header = Header { state_root: state.root(), ..Header::default() };
    let (start, busy) = (Instant::now(), cpu_s());
    store.commit(&[commit(&header, &whole)]).unwrap();
    say(
        "commit_genesis",
        accounts,
        json!({
            "s": start.elapsed().as_secs_f64(),
            "cpu_s": cpu_s() - busy,
        }),
    );
    drop(whole);

    let before = resident();
    let mut recent = VecDeque::from([state.clone()]);
    let (mut applying, mut committing) = (Vec::new(), Vec::new());
    let (mut apply_cpu, mut commit_cpu) = (0.0, 0.0);
    for block in 1..=blocks {
        let touched = (0..updates).map(|n| (block * 7919 + n * 104_729) % accounts);
        let changes = pay(touched, block);
        let (start, busy) = (Instant::now(), cpu_s());
        state = state.apply(&changes);
        applying.push(start.elapsed());
        apply_cpu += cpu_s() - busy;
        let parent_hash = header.hash_slow();
        let state_root = state.root();
        header = Header { number: block, parent_hash, state_root, ..Header::default() };
        let (start, busy) = (Instant::now(), cpu_s());
        store.commit(&[commit(&header, &changes)]).unwrap();
        committing.push(start.elapsed());
        commit_cpu += cpu_s() - busy;
        recent.push_back(state.clone());
        recent.truncate(KEPT);
    }
    say(
        "apply_block",
        accounts,
        json!({
            "updates": updates,
            "ms_median": median(applying),
        "cpu_ms_mean": apply_cpu * 1e3 / blocks as f64,
            "resident_bytes_per_kept_state": (resident() - before.min(resident())) / blocks,
        }),
    );
    say(
        "commit_block",
        accounts,
        json!({
            "updates": updates,
            "ms_median": median(committing),
            "cpu_ms_mean": commit_cpu * 1e3 / blocks as f64,
        }),
    );

    // A copy of the open file is what a killed process leaves.
    let killed = tempfile::tempdir().unwrap();
    fs::copy(directory.path().join(FILE), killed.path().join(FILE)).unwrap();
    let bytes = fs::metadata(killed.path().join(FILE)).unwrap().len();
    drop(store);
    for (what, directory) in [("start", directory.path()), ("start_after_kill", killed.path())] {
        for verify in [true, false] {
            let options = StoreOptions { verify, ..StoreOptions::default() };
            let (start, busy) = (Instant::now(), cpu_s());
            let store = Store::open(directory, &options).unwrap();
            let opened = start.elapsed();
            let start = Instant::now();
            assert_eq!(store.load().unwrap().root(), state.root());
            say(
                what,
                accounts,
                json!({
                    "verify": verify,
                    "open_s": opened.as_secs_f64(),
                    "load_s": start.elapsed().as_secs_f64(),
                "cpu_s": cpu_s() - busy,
                    "file_bytes": bytes,
                }),
            );
        }
    }
}

fn say(what: &str, accounts: u64, figures: Value) {
    println!("{}", json!({ "what": what, "accounts": accounts, "figures": figures }));
}

/// A block that sets the balances of these accounts.
fn pay(accounts: impl Iterator<Item = u64>, block: u64) -> Changes {
    let pay = |account: u64| {
        let address = Address::from_slice(&keccak256(account.to_be_bytes())[12..]);
        let balance = U256::from(10_u64.pow(18) + block + account);
        let account = Some(Account { nonce: block, balance, ..Account::default() });
        (address, AccountChange { account, ..AccountChange::default() })
    };
    Changes { accounts: accounts.map(pay).collect(), ..Changes::default() }
}

/// The changes that make the whole state at once.
fn all(accounts: u64) -> Changes {
    let steps = (0..accounts).step_by(STEP as usize);
    let accounts = steps.flat_map(|first| pay(first..(first + STEP).min(accounts), first).accounts);
    Changes { accounts: accounts.collect(), ..Changes::default() }
}

fn commit<'a>(header: &'a Header, changes: &'a Changes) -> Commit<'a> {
    let hash: B256 = header.hash_slow();
    Commit { header, hash, body: &[], receipts: &[], transactions: &[], changes }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// Seconds of processor time that this process has used, where the system says so.
fn cpu_s() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // User and system time, in ticks of 10 ms.
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Bytes of memory this process holds, where the system says so.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}
