//! Commands about money, against the chain of a running network.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Up, assay, done, json, refused};

/// Runs a command about money on the network's chain.
fn money(up: &Up, arguments: &[&str]) -> std::process::Command {
    let mut command = assay();
    command.args(arguments).args(["--json", "--rpc", up.ready["chain"]["rpc"].as_str().unwrap()]);
    command.arg("--data-dir").arg(&up.data);
    command
}

fn said_of(up: &Up, arguments: &[&str]) -> Value {
    json(&done(money(up, arguments).output().unwrap()))
}

#[test]
fn a_channel_is_opened_filled_and_emptied() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder.path().join("data"));
    let wallet = said_of(&up, &["wallet"]);
    let accounts = wallet["accounts"].as_array().unwrap();
    let names: Vec<_> = accounts.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["gateway", "admin", "validator", "provider 0", "provider 1"]);
    let provider = accounts[3]["address"].as_str().unwrap().to_owned();

    // Another account than the gateway's, which opens channels of its own meanwhile.
    let key = up.data.join("admin/key").to_str().unwrap().to_owned();
    let said = |up: &Up, arguments: &[&str]| said_of(up, &[arguments, &["--key", &key]].concat());
    let money = |up: &Up, arguments: &[&str]| money(up, &[arguments, &["--key", &key]].concat());
    assert_eq!(said(&up, &["channel", "ls"])["channels"].as_array().unwrap().len(), 0);
    let opened = said(&up, &["channel", "open", &provider, "2.5"]);
    let channel = opened["channel"].as_str().unwrap();
    said(&up, &["channel", "top-up", channel, "1"]);
    let listed = said(&up, &["channel", "ls"]);
    let [row] = &listed["channels"].as_array().unwrap()[..] else { panic!("{listed}") };
    assert_eq!(row["channel"], channel);
    assert_eq!((&row["balance"], &row["claimed"]), (&"3500000000000000000".into(), &"0".into()));

    assert_eq!(said(&up, &["channel", "close", channel])["amount"], "3500000000000000000");
    let (code, words) = refused(&mut money(&up, &["channel", "close", channel]));
    assert!(code == 8 && words.contains("ends in"), "{code}: {words}");
    let unknown = format!("0x{}", "11".repeat(32));
    let (code, words) = refused(&mut money(&up, &["channel", "close", &unknown]));
    assert!(code == 4 && words.contains("channel ls"), "{code}: {words}");

    let earnings = said_of(&up, &["earnings"]);
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
    let listed = said_of(&up, &["channel", "ls"]);
    let mut channels = listed["channels"].as_array().unwrap().iter();
    let channel = channels.find(|row| row["channel"] == receipt["channel"]).unwrap();
    assert!(amount(&channel["balance"]) >= amount(&receipt["channelAfter"]), "{channel}");

    // Its provider posts the receipt and claims the voucher by itself.
    let begun = Instant::now();
    let claimed = || {
        let earnings = said_of(&up, &["earnings"]);
        let providers = earnings["providers"].as_array().unwrap();
        providers.iter().map(|one| amount(&one["claimed"])).sum::<u128>()
    };
    while claimed() < price {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing was claimed");
        std::thread::sleep(Duration::from_millis(500));
    }
    up.stop();
}

#[test]
fn a_key_buys_until_its_budget_is_spent_or_it_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start_with(&folder.path().join("data"), "ASSAY_REQUIRE_KEYS", "true");
    let keys = |arguments: &[&str]| {
        let mut command = assay();
        command.arg("api-key").args(arguments).args(["--json", "--url", up.url()]);
        command.arg("--data-dir").arg(&up.data);
        command
    };
    let ask = |key: &str| {
        let mut command = assay();
        command.args(["pay", "12+45=", "--max-tokens", "4", "--json", "--url", up.url()]);
        command.env("ASSAY_API_KEY", key);
        command
    };
    let (code, words) = refused(&mut ask("sk-assay-nobody"));
    assert!(code == 5 && words.contains("--api-key"), "{code}: {words}");

    let made = json(&done(keys(&["new", "ada", "--budget", "1"]).output().unwrap()));
    let key = made["made"]["key"].as_str().unwrap();
    assert_eq!(json(&done(ask(key).output().unwrap()))["text"], "57");
    let listed = json(&done(keys(&["ls"]).output().unwrap()));
    assert_ne!(listed["keys"][0]["spent"], "0");
    assert!(!listed.to_string().contains(key), "a key is shown once");

    let poor =
        json(&done(keys(&["new", "bob", "--budget", "0.000000000000000001"]).output().unwrap()));
    let (_, words) = refused(&mut ask(poor["made"]["key"].as_str().unwrap()));
    assert!(words.contains("budget") || words.contains("left of"), "{words}");

    done(keys(&["revoke", made["made"]["id"].as_str().unwrap()]).output().unwrap());
    assert_eq!(refused(&mut ask(key)).0, 5);
    up.stop();
}

#[test]
fn a_grant_is_given_handed_on_and_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&folder.path().join("data"));
    let accounts = said_of(&up, &["wallet"])["accounts"].clone();
    let address = |n: usize| accounts[n]["address"].as_str().unwrap().to_owned();
    let (payer, agent, helper) = (address(0), address(1), address(2));
    let agents_key = up.data.join("admin/key").to_str().unwrap().to_owned();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (line, second) = (file("line.json"), file("second.json"));

    // Providers here take orders under grants.
    let url = format!("{}/v1/offers", up.ready["providers"][0]["url"].as_str().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let offers: Value =
        runtime.block_on(async { reqwest::get(url).await.unwrap().json().await.unwrap() });
    assert_ne!(offers["accepts"]["grants"], format!("0x{}", "0".repeat(40)), "{offers}");

    let new =
        ["grant", "new", "--holder", &agent, "--spend", "2", "--for", "12h", "--model", "nano"];
    let given = said_of(&up, &[&new[..], &["--out", &line]].concat());
    let (code, words) = refused(&mut money(&up, &[&new[..], &["--out", &line]].concat()));
    assert!(code == 8 && words.contains("another --out"), "{code}: {words}");
    let grant = &given["grants"][0]["grant"];
    assert_eq!(
        (&grant["issuer"], &grant["spend"]),
        (&payer.as_str().into(), &"2000000000000000000".into())
    );
    assert_eq!(grant["registry"], offers["accepts"]["grants"]);
    let (model, rate) = (&offers["offers"][0]["offer"]["model"], &grant["rate"]);
    assert_eq!((&grant["models"][0], rate.as_u64()), (model, Some(60)));

    // The agent hands half of it on, by the file; more it cannot, and nobody else can at all.
    let under = ["grant", "new", "--holder", &helper, "--under", &line];
    let hands_on = [&under[..], &["--key", &agents_key]].concat();
    let handed = said_of(&up, &[&hands_on[..], &["--spend", "1", "--out", &second]].concat());
    assert_eq!(handed["grants"][0], given["grants"][0]);
    assert_eq!(handed["grants"][1]["grant"]["parent"], given["digest"]);
    for (option, value, bound) in
        [("--spend", "2.1", "spend"), ("--rate", "0", "rate"), ("--for", "13h", "time")]
    {
        let (code, words) = refused(&mut money(&up, &[&hands_on[..], &[option, value]].concat()));
        assert!(
            code == 2 && words.contains(&format!("its {bound} goes beyond")),
            "{code}: {words}"
        );
    }
    let (code, words) = refused(&mut money(&up, &under));
    assert!(code == 5 && words.contains("the holder's key"), "{code}: {words}");

    let states = |file: &str| {
        let shown = said_of(&up, &["grant", "show", file]);
        assert_eq!(shown["fault"], Value::Null);
        let grants = shown["grants"].as_array().unwrap().iter();
        grants.map(|one| one["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(states(&second), ["holds", "holds"]);
    let (code, words) = refused(&mut money(&up, &["grant", "revoke", &line, "--key", &agents_key]));
    assert!(code == 5 && words.contains("gave none"), "{code}: {words}");
    let taken = said_of(&up, &["grant", "revoke", &line]);
    assert_eq!(taken["revoked"][0], given["digest"]);
    assert_eq!(states(&second), ["revoked", "holds"]);
    let digest = handed["digest"].as_str().unwrap();
    // Of a digest nobody knows who gave the grant: asked by another account, it stays.
    let asked = said_of(&up, &["grant", "revoke", digest]);
    assert_eq!((&asked["asked"][0], &asked["revoked"]), (&handed["digest"], &Value::Array(vec![])));
    assert_eq!(states(&second), ["revoked", "holds"]);
    said_of(&up, &["grant", "revoke", digest, "--key", &agents_key]);
    assert_eq!(states(&second), ["revoked", "revoked"]);

    // Without a network: the book says all that is needed to sign and to look.
    let book = up.data.join("contracts/7777.json").to_str().unwrap().to_owned();
    let data = up.data.clone();
    up.stop();
    let cold = |arguments: &[&str]| {
        let mut command = assay();
        command.args(arguments).args(["--rpc", "http://127.0.0.1:1", "--data-dir"]).arg(&data);
        command
    };
    let new = ["grant", "new", "--holder", &agent];
    let line = done(cold(&[&new[..], &["--book", &book]].concat()).output().unwrap());
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (line.as_array().unwrap().len(), &line[0]["grant"]["models"]),
        (1, &serde_json::json!([]))
    );
    let shown = done(cold(&["grant", "show", &second, "--book", &book]).output().unwrap());
    assert!(shown.contains("unknown") && shown.contains("spend   1 ASY"), "{shown}");
    let (code, words) = refused(&mut cold(&new));
    assert!(code == 6 && words.contains("--book"), "{code}: {words}");
    std::fs::write(file("not.json"), "[]").unwrap();
    let (code, words) = refused(&mut cold(&["grant", "show", &file("not.json"), "--book", &book]));
    assert!(code == 3 && words.contains("grant new --out"), "{code}: {words}");
}
