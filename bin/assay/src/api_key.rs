//! `assay api-key`: what a gateway's clients may spend.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use assay_protocol::{Amount, B256, hex};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::data::{Data, DataArgument};
use crate::failure::Outcome;
use crate::gateway::{Gateway, GatewayArgument};
use crate::keys;
use crate::ledger::{parse_units, units};
use crate::terminal::{note, say, say_json};

/// Make, list and revoke the API keys of a gateway's clients
///
/// Asks the running gateway of the data directory, whose admin's token lies there. Keys are demanded
/// by `assay up --require-keys`.
#[derive(Args, Debug)]
pub(crate) struct ApiKeys {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    New(New),
    Ls(Ls),
    Revoke(Revoke),
}

/// Make a key; it is shown this once
#[derive(Args, Debug)]
struct New {
    /// Whose it is
    name: String,
    /// ASY that its answers may cost in all, such as 2.5
    #[arg(long, value_name = "ASY", value_parser = parse_units)]
    budget: Amount,
    /// Requests a minute
    #[arg(long, value_name = "N", default_value_t = 60)]
    rate: u32,
    /// Model that it may ask; may be given several times [default: all]
    #[arg(long = "model", value_name = "NAME")]
    models: Vec<String>,
    /// Days until it is void [default: never]
    #[arg(long, value_name = "DAYS")]
    days: Option<u32>,
    #[command(flatten)]
    on: On,
}

/// List keys, and what they have spent
#[derive(Args, Debug)]
struct Ls {
    #[command(flatten)]
    on: On,
}

/// Make a key void
#[derive(Args, Debug)]
struct Revoke {
    /// The key's id, as `ls` shows it
    id: B256,
    #[command(flatten)]
    on: On,
}

#[derive(Args, Debug)]
struct On {
    #[command(flatten)]
    gateway: GatewayArgument,
    #[command(flatten)]
    data: DataArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl ApiKeys {
    pub(crate) async fn run(self) -> Outcome {
        match self.what {
            What::New(new) => new.run().await,
            What::Ls(ls) => ls.run().await,
            What::Revoke(revoke) => revoke.run().await,
        }
    }
}

/// The admin's token of a data directory's gateway, made if there is none yet.
pub(crate) fn admin_token(data: &Data) -> Outcome<String> {
    Ok(hex::encode(keys::load_or_create(&admin(data))?.to_bytes()))
}

/// Where it lies.
fn admin(data: &Data) -> PathBuf {
    data.gateway().join("admin")
}

impl On {
    fn open(&self) -> Outcome<Gateway> {
        let path = admin(&self.data.resolve()?).join("key");
        let key = keys::check(&path)
            .map_err(|failure| failure.fix("pass the --data-dir of the running `assay up`"))?;
        self.gateway.open_as(&hex::encode(key.to_bytes()))
    }
}

impl New {
    async fn run(self) -> Outcome {
        let expires = self.days.map(|days| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            (now + Duration::from_secs(86_400) * days).as_secs()
        });
        let terms = json!({
            "name": self.name,
            "budget": self.budget,
            "requests_per_minute": self.rate,
            "models": self.models,
            "expires": expires,
        });
        let made = self.on.open()?.post("/v1/keys", &terms).await?;
        if self.on.json {
            say_json(&json!({ "schema": "assay.api-key/1", "made": made }));
            return Ok(());
        }
        say(made["key"].as_str().unwrap_or_default());
        note("keep it: it is not shown again");
        Ok(())
    }
}

impl Ls {
    async fn run(self) -> Outcome {
        let listed = self.on.open()?.get("/v1/keys").await?;
        if self.on.json {
            say_json(&json!({ "schema": "assay.api-keys/1", "keys": listed["data"] }));
            return Ok(());
        }
        for key in listed["data"].as_array().into_iter().flatten() {
            let (spent, budget) = (asy(&key["spent"]), asy(&key["budget"]));
            let (id, name) = (&key["id"], key["name"].as_str().unwrap_or_default());
            let state = if key["revoked"] == true { "  revoked" } else { "" };
            say(format_args!("{}  {name}", id.as_str().unwrap_or_default()));
            say(format_args!("  {spent} of {budget} ASY spent{state}"));
        }
        Ok(())
    }
}

impl Revoke {
    async fn run(self) -> Outcome {
        let revoked = self.on.open()?.delete(&format!("/v1/keys/{}", self.id)).await?;
        if self.on.json {
            say_json(&json!({ "schema": "assay.api-key/1", "revoked": revoked }));
        } else {
            say(format_args!("{} is void", revoked["name"].as_str().unwrap_or_default()));
        }
        Ok(())
    }
}

fn asy(amount: &Value) -> String {
    amount.as_str().unwrap_or_default().parse().map_or_else(|_| "?".into(), units)
}
