//! Disputes as people play them: a network with a provider that lies, a receipt, and the binary.
#![expect(
    clippy::print_stderr,
    reason = "how long and how dear a dispute is, for whoever reads the run"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use assay_chain::{AddressBook, Chain};
use assay_protocol::{Key, Phase, U256};
use serde_json::Value;

use crate::support::{Up, assay, done, json, refused};

/// Base units of one ASY.
const ASY: u128 = 1_000_000_000_000_000_000;
/// What a local provider has at stake, a fifth of which is slashed; a tenth of that is the reward.
const STAKE: u128 = 10_000 * ASY;
const BOND: u128 = 100 * ASY;

/// A network with a provider that lies, and a receipt of it.
struct Lie {
    up: Up,
    receipt: PathBuf,
    _folder: tempfile::TempDir,
}

impl Lie {
    fn of(how: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let up = match how {
            "" => Up::start(&data),
            how => Up::start_with(&data, "ASSAY_WITH_CHEATER", how),
        };
        let receipt = folder.path().join("receipt.json");
        let lie = Self { up, receipt, _folder: folder };
        lie.buy(&lie.receipt, how);
        lie
    }

    /// Buys an answer, of the cheater's where there is one: it is the cheapest.
    fn buy(&self, receipt: &Path, how: &str) -> Value {
        let mut run = assay();
        run.args(["run", "12+45=", "--json", "--url", self.up.url(), "--receipt"]).arg(receipt);
        if how == "seed" {
            // A seed matters where something is drawn.
            run.args(["--temperature", "2", "--seed", "7", "--max-tokens", "12"]);
        }
        done(run.output().unwrap());
        let bought: Value =
            serde_json::from_str(&std::fs::read_to_string(receipt).unwrap()).unwrap();
        let sellers = self.up.ready["providers"].as_array().unwrap();
        if !how.is_empty() {
            assert_eq!(bought["receipt"]["provider"], sellers.last().unwrap()["address"]);
        }
        bought
    }

    /// Soon after its conviction the cheater is not bought from, though it is the cheapest.
    fn sells_nothing_in_jail(&self) {
        let cheater = &self.up.ready["providers"].as_array().unwrap().last().unwrap()["address"];
        let bought = |_| self.buy(&self.receipt.with_file_name("third.json"), "");
        let sellers = (0..20).map(bought).map(|answer| answer["receipt"]["provider"].clone());
        let mut sellers = sellers.inspect(|_| std::thread::sleep(Duration::from_millis(200)));
        assert!(sellers.any(|seller| seller != *cheater), "a provider in jail sells on");
    }

    /// `assay dispute …` on this network.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = assay();
        command.arg("dispute").args(arguments);
        command.args(["--rpc", self.rpc(), "--data-dir"]).arg(&self.up.data);
        command
    }

    fn open(&self, receipt: &Path, flags: &[&str]) -> Command {
        let mut command = self.command(&["open", "--json", "--threads", "1"]);
        command.arg(receipt).args(flags);
        command
    }

    fn rpc(&self) -> &str {
        self.up.ready["chain"]["rpc"].as_str().unwrap()
    }

    /// What an account of the data directory has, in base units of ASY.
    fn has(&self, name: &str) -> u128 {
        let mut wallet = assay();
        wallet.args(["wallet", "--json", "--rpc", self.rpc(), "--data-dir"]).arg(&self.up.data);
        let said = json(&done(wallet.output().unwrap()));
        let accounts = said["accounts"].as_array().unwrap();
        amount(&accounts.iter().find(|one| one["name"] == name).unwrap()["asy"])
    }

    /// Disputes a receipt and expects a conviction.
    fn convicts(&self, receipt: &Path, flags: &[&str]) -> Value {
        let said = json(&done(self.open(receipt, flags).output().unwrap()));
        assert_eq!(said["ending"], "convicted", "{said}");
        said
    }

    /// Makes blocks until dispute 1 is over, from when the provider owes what `phase` says. Blocks made in
    /// a hurry run ahead of the clock, a second each: so a minute passes in less.
    fn hurry(&self, phase: Phase) {
        let key = std::fs::read_to_string(self.up.data.join("admin/key")).unwrap();
        let bytes: [u8; 32] = assay_protocol::hex::decode(key.trim()).unwrap().try_into().unwrap();
        let key = Key::from_bytes(bytes).unwrap();
        let book = std::fs::read_to_string(self.up.data.join("contracts/7777.json")).unwrap();
        let book: AddressBook = serde_json::from_str(&book).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let chain = Chain::open(self.rpc(), book, Some(&key)).await.unwrap();
            let stands = async || chain.dispute(1).await.unwrap().map(|dispute| dispute.phase);
            while stands().await != Some(phase) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            while stands().await == Some(phase) {
                chain.client().send_coins(key.address(), U256::from(1)).await.unwrap();
            }
        });
    }

    fn finish(self) {
        self.up.stop();
    }
}

fn amount(value: &Value) -> u128 {
    value.as_str().unwrap().parse().unwrap()
}

/// Every cheat ends with its provider's loss, and each unit of money where it belongs.
fn check(how: &str, number: &str) {
    let lie = Lie::of(how);
    let before = lie.has("validator");
    let said = lie.convicts(&lie.receipt, &[]);
    assert_eq!(said["reason"], "number", "{said}");
    let named = said["number"].as_str().unwrap();
    assert!(named.contains(number), "{how}: {named}");
    assert_eq!(amount(&said["slashed"]), STAKE / 5);
    assert_eq!(amount(&said["reward"]), STAKE / 50);
    assert_eq!(amount(&said["burned"]), STAKE / 5 - STAKE / 50);
    assert_eq!(amount(&said["bond"]), BOND);
    assert!(said["jailed_until"].as_u64().unwrap() > 0, "{said}");
    assert_eq!(lie.has("validator"), before + STAKE / 50);

    // The buyer paid through the provider's till, which gives it back.
    let text = std::fs::read_to_string(&lie.receipt).unwrap();
    let bought: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(said["refund"], bought["receipt"]["price"], "{said}");
    assert_eq!(said["payer"], bought["order"]["buyer"]);
    eprintln!("{how}: {} s, {} gas, {named}", said["seconds"], said["gas"]);
    lie.finish();
}

#[test]
fn a_provider_with_one_wrong_weight_is_convicted() {
    check("weights", "op GATE");
}

#[test]
fn a_provider_with_smaller_weights_is_convicted() {
    check("quantised", "op EMBED");
}

#[test]
fn a_provider_that_leaves_out_a_layer_is_convicted() {
    check("layer", "op WO");
}

#[test]
fn a_provider_that_draws_with_another_seed_is_convicted() {
    check("seed", "op TOKEN");
}

#[test]
fn a_provider_that_skips_the_prompt_is_convicted() {
    check("context", "");
}

#[test]
fn a_provider_that_changes_the_text_is_convicted() {
    check("text", "op TOKEN");
}

#[test]
fn a_silent_provider_is_convicted_by_its_clock() {
    let lie = Lie::of("silent");
    let mut open = lie.open(&lie.receipt, &[]);
    let open = open.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    lie.hurry(Phase::Commit);
    let said = json(&done(open.wait_with_output().unwrap()));
    assert_eq!((&said["ending"], &said["reason"]), (&"convicted".into(), &"silence".into()));
    assert_eq!(amount(&said["reward"]), STAKE / 50);
    lie.finish();
}

#[test]
fn a_dispute_is_watched_listed_and_opened_once() {
    let lie = Lie::of("weights");
    let second = lie.receipt.with_file_name("second.json");
    lie.buy(&second, "weights");
    let nothing = done(lie.command(&["ls", "--json"]).output().unwrap());
    assert_eq!(json(&nothing)["count"], 0);
    let (code, words) = refused(&mut lie.command(&["watch"]));
    assert!(code == 4 && words.contains("dispute ls"), "{code}: {words}");

    // Without the provider's server, every level of the way down is on the chain, and so is the leaf.
    let slow = lie.convicts(&lie.receipt, &["--no-server"]);
    assert_eq!(slow["reason"], "number", "{slow}");
    let listed = json(&done(lie.command(&["ls", "--json"]).output().unwrap()));
    assert_eq!(listed["disputes"][0]["phase"], "returned", "{listed}");
    let watch = |flags: &[&str]| {
        let said = done(lie.command(&[&["watch", "--json"], flags].concat()).output().unwrap());
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let events = |moves: &[Value]| {
        moves.iter().map(|one| one["event"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let told = watch(&["1"]);
    let names = events(&told);
    let has = |event: &str| names.iter().any(|name| name == event);
    for event in [
        "opened",
        "committed",
        "picked",
        "revealed",
        "asked",
        "shown",
        "named",
        "decided",
        "convicted",
    ] {
        assert!(has(event), "{event} in {names:?}");
    }
    assert!(has("slashed") && has("closed"), "{names:?}");
    let named = told.iter().find(|one| one["event"] == "named").unwrap();
    assert!(named["meaning"].as_str().unwrap().contains("op GATE"), "{named}");
    // Once convicted, a receipt costs its provider nothing more.
    let again = lie.convicts(&lie.receipt, &[]);
    assert_eq!((&again["reason"], &again["dispute"]), (&"before".into(), &Value::Null));
    let rest = (STAKE - STAKE / 5) / 5;
    let fast = lie.convicts(&second, &[]);
    assert_eq!(amount(&fast["slashed"]), rest);

    // With the receipt at hand the numbers are said, too.
    let second = second.to_str().unwrap();
    let told = watch(&["2", "--receipt", second]);
    let decided = told.iter().find(|one| one["event"] == "decided").unwrap();
    let meaning = decided["meaning"].as_str().unwrap();
    assert!(meaning.contains("contract says") && meaning.contains("provider said"), "{meaning}");
    assert!(meaning.contains(fast["number"].as_str().unwrap()), "{meaning}");
    let (code, words) = refused(&mut lie.command(&["watch", "1", "--receipt", second]));
    assert!(code == 8 && words.contains("another receipt"), "{code}: {words}");
    let (with, without) = (fast["gas"].as_u64().unwrap(), slow["gas"].as_u64().unwrap());
    assert!(with < without, "{with} gas with a server, {without} without");
    eprintln!("challenger's gas: {with} with a server, {without} without");
    lie.sells_nothing_in_jail();
    lie.finish();
}

#[test]
fn a_challenger_that_was_killed_goes_on() {
    let lie = Lie::of("text");
    let mut open = lie.command(&["open", "--threads", "1"]);
    let mut open = open.arg(&lie.receipt).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(open.stdout.take().unwrap()).lines();
    let begun = lines.map(|line| line.unwrap()).find(|line| line.starts_with("dispute 1 is open"));
    assert!(begun.is_some(), "it was never opened");
    open.kill().unwrap();
    open.wait().unwrap();
    let said = lie.convicts(&lie.receipt, &[]);
    assert_eq!(said["dispute"], 1, "{said}");
    assert_eq!(json(&done(lie.command(&["ls", "--json"]).output().unwrap()))["count"], 1);
    lie.finish();
}

#[test]
fn an_honest_provider_wins_and_what_is_no_receipt_is_refused() {
    let lie = Lie::of("");
    let before = lie.has("validator");
    let open = |flags: &[&str]| {
        let output = lie.open(&lie.receipt, flags).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        (output.status.code().unwrap(), json(&said))
    };
    let (code, said) = open(&[]);
    assert_eq!((code, &said["ending"]), (11, &"true".into()));
    assert_eq!(lie.has("validator"), before);
    let (code, said) = open(&["--anyway"]);
    assert_eq!((code, &said["ending"]), (11, &"lost".into()), "{said}");
    assert_eq!(lie.has("validator"), before - BOND);
    assert_eq!(amount(&said["bond"]), BOND);

    let file = lie.receipt.with_file_name("altered.json");
    let text = std::fs::read_to_string(&lie.receipt).unwrap();
    let mut altered: Value = serde_json::from_str(&text).unwrap();
    let token = altered["output"][0].as_u64().unwrap();
    altered["output"][0] = (token + 1).into();
    std::fs::write(&file, altered.to_string()).unwrap();
    let (code, words) = refused(&mut lie.open(&file, &[]));
    assert!(code == 3 && words.contains("altered"), "{code}: {words}");
    let mut altered: Value = serde_json::from_str(&text).unwrap();
    altered["receipt"]["price"] = "1".into();
    std::fs::write(&file, altered.to_string()).unwrap();
    let (code, words) = refused(&mut lie.open(&file, &[]));
    assert!(code == 3 && words.contains("altered"), "{code}: {words}");
    std::fs::write(&file, "{\"assay\":").unwrap();
    let (code, words) = refused(&mut lie.open(&file, &[]));
    assert!(code == 3 && words.contains("no receipt"), "{code}: {words}");

    // The keys of others, and no chain at all.
    let poor = lie.receipt.with_file_name("key");
    std::fs::write(&poor, "11".repeat(32)).unwrap();
    std::fs::set_permissions(&poor, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let (code, words) =
        refused(&mut lie.open(&lie.receipt, &["--anyway", "--key", poor.to_str().unwrap()]));
    assert!(code == 1 && words.contains("coins"), "{code}: {words}");
    let mut gone = assay();
    gone.args(["dispute", "open", "--rpc", "http://127.0.0.1:1", "--data-dir"]);
    let (code, words) = refused(gone.arg(&lie.up.data).arg(&lie.receipt));
    assert!(code == 6 && words.contains("--rpc"), "{code}: {words}");
    lie.finish();
}
