//! The chain that money is on, as the commands about money see it.

use std::path::PathBuf;

use assay_chain::{AddressBook, Chain, Client};
use assay_protocol::{Address, Amount, Key};
use clap::Args;

use crate::contracts::read_book;
/// A failure of the chain as a failure of a command.
pub(crate) use crate::contracts::refused as failed;
use crate::data::{Data, DataArgument};
use crate::failure::{Exit, Failure, Outcome};
use crate::keys;

/// 10^18: base units of one ASY, and wei of one coin.
pub(crate) const WHOLE: u128 = 1_000_000_000_000_000_000;

/// Which chain.
#[derive(Args, Clone, Debug)]
pub(crate) struct ChainArgument {
    /// The chain's JSON-RPC server
    #[arg(long, value_name = "URL", env = "ASSAY_RPC", default_value = "http://127.0.0.1:8701")]
    rpc: String,
    /// Address book of the contracts [default: contracts/<chain id>.json in the data directory]
    #[arg(long, value_name = "FILE")]
    book: Option<PathBuf>,
    #[command(flatten)]
    data: DataArgument,
}

/// Which chain, and whose key.
#[derive(Args, Clone, Debug)]
pub(crate) struct LedgerArgument {
    #[command(flatten)]
    chain: ChainArgument,
    /// File with the account's key [default: that of the data directory's gateway]
    #[arg(long, value_name = "FILE", env = "ASSAY_KEY_FILE")]
    key: Option<PathBuf>,
}

impl LedgerArgument {
    /// The data directory.
    pub(crate) fn data(&self) -> Outcome<Data> {
        self.chain.data()
    }

    /// Where the chain answers.
    pub(crate) fn rpc(&self) -> &str {
        &self.chain.rpc
    }

    /// The account's key.
    pub(crate) fn key(&self) -> Outcome<Key> {
        match &self.key {
            Some(path) => keys::check(path),
            None => keys::check(&self.data()?.gateway().join("key")),
        }
    }

    /// The chain, with the account's key if something is to be sent.
    pub(crate) async fn open(&self, key: Option<&Key>) -> Outcome<Chain> {
        self.chain.open(key).await
    }

    /// Which chain it is, and where its contracts are. With `--book`, the chain is not asked.
    pub(crate) async fn contracts(&self) -> Outcome<AddressBook> {
        self.chain.contracts().await
    }
}

impl ChainArgument {
    /// The data directory.
    pub(crate) fn data(&self) -> Outcome<Data> {
        self.data.resolve()
    }

    /// The chain, with an account's key if something is to be sent.
    pub(crate) async fn open(&self, key: Option<&Key>) -> Outcome<Chain> {
        let book = self.contracts().await?;
        Chain::open(&self.rpc, book, key).await.map_err(failed)
    }

    async fn contracts(&self) -> Outcome<AddressBook> {
        let (path, chain) = match &self.book {
            Some(path) => (path.clone(), "the chain".to_owned()),
            None => {
                let found = Client::connect(&self.rpc, None).await.map_err(failed)?.chain_id();
                (self.data()?.contracts(found), format!("chain {found}"))
            }
        };
        read_book(&path)?.ok_or_else(|| {
            Failure::new(Exit::NotFound, format_args!("no contracts of {chain} are known"))
                .why(format_args!("{} is not there", path.display()))
                .fix("pass the --data-dir of `assay up`, or --book FILE")
        })
    }
}

/// An account in one word: which part of the data directory it is of, if any.
pub(crate) fn accounts(data: &Data) -> Outcome<Vec<(String, Address)>> {
    let mut found = Vec::new();
    let mut look = |name: String, folder: PathBuf| -> Outcome {
        let path = folder.join("key");
        if path.exists() {
            found.push((name, keys::check(&path)?.address()));
        }
        Ok(())
    };
    look("gateway".into(), data.gateway())?;
    look("admin".into(), data.admin())?;
    look("validator".into(), data.validator())?;
    // Providers are numbered without gaps.
    for n in (0..).take_while(|n| data.provider(*n).exists()) {
        look(format!("provider {n}"), data.provider(n))?;
    }
    Ok(found)
}

/// Base units of an ERC-20 with 18 decimals, or wei, as people write them: exact.
pub(crate) fn units(amount: Amount) -> String {
    let (whole, part) = (amount.0 / WHOLE, amount.0 % WHOLE);
    if part == 0 {
        return whole.to_string();
    }
    format!("{whole}.{}", format!("{part:018}").trim_end_matches('0'))
}

/// What people write as base units; at most 18 places after the point.
pub(crate) fn parse_units(text: &str) -> Result<Amount, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.chars().all(|digit| digit.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 18 || whole.is_empty() && part.is_empty() {
        return Err("expected a decimal number with at most 18 places, such as 2.5".into());
    }
    let padded = format!("{whole}{part:0<18}");
    padded.parse().map(Amount).map_err(|_| "that is more than there can be".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_and_read_exactly() {
        for (base, text) in [
            (0, "0"),
            (1, "0.000000000000000001"),
            (2_500_000_000_000_000_000, "2.5"),
            (100_000_000_000_000_000_000_000, "100000"),
        ] {
            assert_eq!(units(Amount(base)), text);
            assert_eq!(parse_units(text), Ok(Amount(base)));
        }
        assert_eq!(parse_units(".5"), Ok(Amount(500_000_000_000_000_000)));
        for wrong in ["", ".", "1,5", "-1", "1e3", "0.0000000000000000001", &"9".repeat(30)] {
            assert!(parse_units(wrong).is_err(), "{wrong}");
        }
    }
}
