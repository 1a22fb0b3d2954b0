//! `assay chain account`: keys under a password.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;

use assay_evm::keystore::{Keystore, KeystoreError};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::data::DataArgument;
use crate::failure::{Exit, Failure, Outcome};
use crate::terminal::{say, say_json};

/// Longest password that is read, in bytes.
const PASSWORD_MAX: u64 = 4096;

/// Keep keys under a password
#[derive(Args, Debug)]
pub(crate) struct Account {
    /// Directory of the key files [default: `keystore` in the data directory]
    #[arg(long, value_name = "DIR")]
    keystore: Option<PathBuf>,
    #[command(flatten)]
    data_dir: DataArgument,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key; the password is read from standard input, or from ASSAY_PASSWORD
    New,
    /// List the accounts that have a key
    List,
}

impl Account {
    pub(crate) fn run(self) -> Outcome {
        let folder = match &self.keystore {
            Some(folder) => folder.clone(),
            None => self.data_dir.resolve()?.folder().join("keystore"),
        };
        let keystore = Keystore::open(&folder).map_err(|error| failed(&error))?;
        let (schema, accounts) = match self.command {
            Command::New => {
                let signer = keystore.create(&password()?).map_err(|error| failed(&error))?;
                ("assay.chain.account.new/1", vec![signer.address()])
            }
            Command::List => {
                let accounts = keystore.accounts().map_err(|error| failed(&error))?;
                ("assay.chain.account.list/1", accounts)
            }
        };
        if self.json {
            say_json(&json!({ "schema": schema, "accounts": accounts, "keystore": folder }));
            return Ok(());
        }
        accounts.iter().for_each(say);
        Ok(())
    }
}

/// The password from the environment or from standard input, where it is not shown if possible.
fn password() -> Outcome<String> {
    if let Ok(password) = std::env::var("ASSAY_PASSWORD") {
        return Ok(password);
    }
    let input = std::io::stdin();
    if input.is_terminal() {
        let mut said = std::io::stderr().lock();
        // Where standard error is closed, nobody is left to be asked.
        let _ = write!(said, "Password (it is shown as you type): ").and_then(|()| said.flush());
        let mut line = String::new();
        let read = input.read_line(&mut line);
        return finish(read.map(|_| line));
    }
    let mut text = String::new();
    let read = input.lock().take(PASSWORD_MAX).read_to_string(&mut text);
    finish(read.map(|_| text))
}

fn finish(read: std::io::Result<String>) -> Outcome<String> {
    let text = read.map_err(|error| {
        Failure::new(Exit::Usage, "the password on standard input cannot be read").why(error)
    })?;
    let password = text.lines().next().unwrap_or_default().to_owned();
    if password.is_empty() {
        return Err(Failure::new(Exit::Usage, "the password is empty")
            .fix("pipe one in, or set ASSAY_PASSWORD"));
    }
    Ok(password)
}

fn failed(error: &KeystoreError) -> Failure {
    match error {
        KeystoreError::File { path, source } => {
            Failure::file(format_args!("{} cannot be used", path.display()), source)
        }
        other => Failure::new(Exit::Failed, "the keystore cannot be used").why(other),
    }
}
