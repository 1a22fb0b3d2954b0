//! Commands about money, against the chain of a running network.

use serde_json::Value;

use crate::support::{Up, assay, done, json, refused};

/// Runs a command about money on the network's chain.
fn money(up: &Up, arguments: &[&str]) -> std::process::Command {
    let mut command = assay();
    command.args(arguments).args(["--json", "--rpc", up.ready["chain"]["rpc"].as_str().unwrap()]);
    command.arg("--data-dir").arg(&up.data);
    command
}

fn said(up: &Up, arguments: &[&str]) -> Value {
    json(&done(money(up, arguments).output().unwrap()))
}

#[test]
fn a_channel_is_opened_filled_and_emptied() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder.path().join("data"));
    let wallet = said(&up, &["wallet"]);
    let accounts = wallet["accounts"].as_array().unwrap();
    let names: Vec<_> = accounts.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["gateway", "admin", "provider 0", "provider 1"]);
    let provider = accounts[2]["address"].as_str().unwrap().to_owned();

    let before = said(&up, &["channel", "ls"])["channels"].as_array().unwrap().len();
    let opened = said(&up, &["channel", "open", &provider, "2.5"]);
    let channel = opened["channel"].as_str().unwrap();
    said(&up, &["channel", "top-up", channel, "1"]);
    let listed = said(&up, &["channel", "ls"]);
    let rows = listed["channels"].as_array().unwrap();
    assert_eq!(rows.len(), before + 1);
    let row = rows.iter().find(|row| row["channel"] == channel).unwrap();
    assert_eq!((&row["balance"], &row["claimed"]), (&"3500000000000000000".into(), &"0".into()));

    assert_eq!(said(&up, &["channel", "close", channel])["amount"], "3500000000000000000");
    let (code, words) = refused(&mut money(&up, &["channel", "close", channel]));
    assert!(code == 8 && words.contains("ends in"), "{code}: {words}");
    let unknown = format!("0x{}", "11".repeat(32));
    let (code, words) = refused(&mut money(&up, &["channel", "close", &unknown]));
    assert!(code == 4 && words.contains("channel ls"), "{code}: {words}");

    let earnings = said(&up, &["earnings"]);
    assert_eq!(earnings["providers"].as_array().unwrap().len(), 2);
    assert_eq!(earnings["providers"][0]["provider"], provider);
    up.stop();
}

#[test]
fn a_price_is_known_before_it_is_paid() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder.path().join("data"));
    let pay = |arguments: &[&str]| {
        let mut command = assay();
        command.args(["pay", "12+45=", "--json", "--url", up.url()]).args(arguments);
        json(&done(command.output().unwrap()))
    };
    let amount = |value: &Value| value.as_str().unwrap().parse::<u128>().unwrap();
    let quote = pay(&["--dry-run"])["quote"].clone();
    let paid = pay(&[]);
    assert_eq!(paid["text"], "57");
    let price = amount(&paid["receipt"]["price"]);
    assert!(amount(&quote["minPrice"]) < price && price <= amount(&quote["maxPrice"]), "{quote}");
    let receipt = &paid["receipt"];
    assert_eq!(amount(&receipt["channelAfter"]), amount(&receipt["channelBefore"]) + price);
    let listed = said(&up, &["channel", "ls"]);
    let mut channels = listed["channels"].as_array().unwrap().iter();
    let channel = channels.find(|row| row["channel"] == receipt["channel"]).unwrap();
    assert!(amount(&channel["balance"]) >= amount(&receipt["channelAfter"]), "{channel}");
    up.stop();
}
