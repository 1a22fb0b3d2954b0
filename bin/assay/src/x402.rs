//! x402 on a local network: the channels where its clients look for them, and the gateway's door.
//!
//! x402's clients know one address for channels and one for deposits by signature, the same on every
//! chain, and take no other. A local chain's genesis has our contracts there, too, so that unmodified
//! clients pay on it. On other chains gas costs money, and whoever stands there says what is worth it.

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Bytes, address};
use assay_chain::{AddressBook, Chain, Client, Contract, Deployed, SignedToken};
use assay_evm::Genesis;
use assay_gateway::x402::{ChainRail, Collecting, Config, Terms};
use assay_protocol::{Address, Amount, ChainId, LOCAL_CHAIN, keccak256};
use clap::Args;

use crate::data::Data;
use crate::failure::{Exit, Failure, Outcome};
use crate::grant::parse_seconds;
use crate::keys;
use crate::ledger::{WHOLE, failed, parse_units};

/// Where x402's clients expect channels, on every chain.
const CHANNELS: Address = address!("4020074e9dF2ce1deE5A9C1b5c3f541D02a10003");
/// Where they expect the collector of deposits by ERC-3009.
const COLLECTOR: Address = address!("4020806089470a89826cB9fB1f4059150b550004");

/// How long a payment may take from its signature to its settlement.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Seconds between a payer's wish to withdraw and the withdrawal, the least that channels know.
const WITHDRAW_DELAY: u64 = 900;
/// Requests that a first deposit should pay for.
const DEPOSIT_REQUESTS: u32 = 10;

/// What is worth a transaction's gas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Worth {
    /// A transfer, deposit or refund of at least this much; base units.
    settle_min: Amount,
    /// Claims from a channel that owes this much; base units.
    owed_min: Amount,
    /// Claims from a channel that owes anything for this long.
    owed_wait_max: Duration,
    /// How often what channels owe is looked at.
    every: Duration,
}

impl Worth {
    /// On the local chain, whose blocks cost nothing: everything, and what is owed at once.
    pub(crate) const LOCAL: Self = Self {
        settle_min: Amount(1),
        owed_min: Amount(WHOLE / 1_000),
        owed_wait_max: Duration::from_secs(5),
        every: Duration::from_secs(2),
    };
}

/// What is worth a transaction's gas, as flags say it.
#[derive(Args, Clone, Debug)]
pub(crate) struct WorthArgument {
    /// What a transfer, deposit or refund by x402 must be worth to be sent [default on the local chain:
    /// anything; elsewhere there is none, because gas costs money]
    #[arg(long, value_name = "ASY", env = "ASSAY_X402_SETTLE_MIN", value_parser = parse_units)]
    x402_settle_min: Option<Amount>,
    /// What a channel must owe to be claimed from [default on the local chain: 0.001]
    #[arg(long, value_name = "ASY", env = "ASSAY_X402_OWED_MIN", value_parser = parse_units)]
    x402_owed_min: Option<Amount>,
    /// How long a channel may owe less than that, such as 12h [default on the local chain: 5s]
    #[arg(long, value_name = "DURATION", env = "ASSAY_X402_OWED_WAIT", value_parser = parse_seconds)]
    x402_owed_wait: Option<u64>,
}

impl WorthArgument {
    /// What is worth its gas on `chain`.
    pub(crate) fn on(&self, chain: u64) -> Outcome<Worth> {
        let local = Worth::LOCAL;
        let wait = self.x402_owed_wait.map(Duration::from_secs);
        if chain == LOCAL_CHAIN.0 {
            return Ok(Worth {
                settle_min: self.x402_settle_min.unwrap_or(local.settle_min),
                owed_min: self.x402_owed_min.unwrap_or(local.owed_min),
                owed_wait_max: wait.unwrap_or(local.owed_wait_max),
                ..local
            });
        }
        let (Some(settle_min), Some(owed_min), Some(owed_wait_max)) =
            (self.x402_settle_min, self.x402_owed_min, wait)
        else {
            let what = format_args!("what is worth gas on chain {chain} was not said");
            return Err(Failure::new(Exit::Usage, what)
                .why("each payment brought to it costs this gateway's account money")
                .fix("pass --x402-settle-min ASY, --x402-owed-min ASY and --x402-owed-wait 12h"));
        };
        let every = Collecting::default().every;
        Ok(Worth { settle_min, owed_min, owed_wait_max, every })
    }
}

/// Puts channels and collector where x402's clients look for them; `channels` and `collector` are where
/// they stand in the genesis already.
pub(crate) fn place(genesis: &mut Genesis, channels: Address, collector: Address) {
    let alloc = &mut genesis.0.alloc;
    let (Some(kept), Some(collecting)) =
        (alloc.get(&channels).cloned(), alloc.get(&collector).cloned())
    else {
        return;
    };
    alloc.insert(CHANNELS, kept);
    let mut collecting = collecting;
    // The collector knows by an immutable value, which is part of its code, whom it collects for.
    collecting.code = collecting.code.map(|code| renamed(&code, channels, CHANNELS));
    alloc.insert(COLLECTOR, collecting);
}

/// `code` with every mention of `old` made one of `new`.
fn renamed(code: &[u8], old: Address, new: Address) -> Bytes {
    let mut code = code.to_vec();
    let mut at = 0;
    while let Some(found) =
        code[at..].windows(old.len()).position(|window| window == old.as_slice())
    {
        at += found;
        code[at..at + new.len()].copy_from_slice(new.as_slice());
        at += new.len();
    }
    code.into()
}

/// The account that settles what comes in at the gateway's door: its own, since two that send from one
/// account at once get in each other's way.
pub(crate) fn account(data: &Data) -> Outcome<Address> {
    Ok(keys::load_or_create(&folder(data))?.address())
}

fn folder(data: &Data) -> std::path::PathBuf {
    data.gateway().join("x402")
}

/// The door of the gateway, which `pay_to` is paid for, on the chain that answers at `rpc` and has the
/// contracts of `book`.
pub(crate) async fn door(
    data: &Data,
    rpc: &str,
    mut book: AddressBook,
    pay_to: Address,
    worth: Worth,
) -> Outcome<Config> {
    let client = Client::connect(rpc, None).await.map_err(failed)?;
    let token = book.get(Contract::AssayToken).map_err(|error| failed(error.into()))?;
    for (contract, address) in
        [(Contract::Channels, CHANNELS), (Contract::Erc3009DepositCollector, COLLECTOR)]
    {
        let code = client.code(address).await.map_err(failed)?;
        if code.is_empty() {
            let without = "this network's chain has no channels for x402's clients";
            return Err(Failure::new(Exit::Conflict, without)
                .why("it was made by an earlier release")
                .fix("start a new network with another --data-dir"));
        }
        book.contracts.insert(contract, Deployed { address, code_hash: keccak256(code) });
    }
    let id = ChainId(book.chain_id);
    let key = keys::load_or_create(&folder(data))?;
    let chain = Chain::open(rpc, book, Some(&key)).await.map_err(failed)?;
    Ok(Config {
        terms: Terms {
            token: SignedToken {
                name: "Assay".to_owned(),
                version: "1".to_owned(),
                chain: id,
                address: token,
            },
            pay_to,
            timeout: TIMEOUT,
            withdraw_delay: WITHDRAW_DELAY,
            deposit_requests: DEPOSIT_REQUESTS,
            settle_min: worth.settle_min,
        },
        rail: Arc::new(ChainRail::new(chain).map_err(failed)?),
        collecting: Collecting {
            every: worth.every,
            owed_min: worth.owed_min,
            owed_wait_max: worth.owed_wait_max,
            ..Collecting::default()
        },
        journal: folder(data).join("payments"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gas_that_costs_money_is_spent_as_its_owner_says() {
        let (some, none) = (Some(Amount(7)), None);
        let worth = |settle, owed, wait| WorthArgument {
            x402_settle_min: settle,
            x402_owed_min: owed,
            x402_owed_wait: wait,
        };
        assert_eq!(worth(none, none, None).on(LOCAL_CHAIN.0).unwrap(), Worth::LOCAL);
        let given = worth(some, none, None).on(LOCAL_CHAIN.0).unwrap();
        assert_eq!(given, Worth { settle_min: Amount(7), ..Worth::LOCAL });
        for left_out in [
            worth(none, none, None),
            worth(none, some, Some(60)),
            worth(some, none, Some(60)),
            worth(some, some, None),
        ] {
            let failure = left_out.on(8_453).unwrap_err();
            assert!(failure.is(Exit::Usage), "{failure}");
            assert!(failure.to_string().contains("--x402-owed-wait"), "{failure}");
        }
        let given = worth(some, Some(Amount(9)), Some(60)).on(8_453).unwrap();
        assert_eq!((given.settle_min, given.owed_min), (Amount(7), Amount(9)));
        assert_eq!(given.owed_wait_max, Duration::from_secs(60));
        assert_eq!(given.every, Collecting::default().every);
    }

    #[test]
    fn every_mention_of_an_address_is_renamed() {
        let (old, new) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let code = [&[7][..], old.as_slice(), &[1, 1], old.as_slice()].concat();
        let expected = [&[7][..], new.as_slice(), &[1, 1], new.as_slice()].concat();
        // Bytes that begin like an address are left alone.
        let found = renamed(&code, old, new);
        assert_eq!(found.len(), expected.len());
        assert_eq!(&found[..21], &expected[..21]);
        assert!(!found.windows(20).any(|window| window == old.as_slice()));
    }
}
