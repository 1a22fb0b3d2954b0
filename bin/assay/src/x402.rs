//! x402 on a local network: the channels where its clients look for them, and the gateway's door.
//!
//! x402's clients know one address for channels and one for deposits by signature, the same on every
//! chain, and take no other. A local chain's genesis has our contracts there, too, so that unmodified
//! clients pay on it.

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Bytes, address};
use assay_chain::{AddressBook, Chain, Client, Contract, Deployed, SignedToken};
use assay_evm::Genesis;
use assay_gateway::x402::{ChainRail, Collecting, Config, Terms};
use assay_protocol::{Address, Amount, ChainId, keccak256};

use crate::data::Data;
use crate::failure::{Exit, Failure, Outcome};
use crate::keys;
use crate::ledger::{WHOLE, failed};

/// Where x402's clients expect channels, on every chain.
const CHANNELS: Address = address!("4020074e9dF2ce1deE5A9C1b5c3f541D02a10003");
/// Where they expect the collector of deposits by ERC-3009.
const COLLECTOR: Address = address!("4020806089470a89826cB9fB1f4059150b550004");

/// What a channel owes before it is claimed from, unless it waited: a thousandth of an ASY.
const OWED_MIN: Amount = Amount(WHOLE / 1_000);
/// How long a channel may owe anything. Blocks of the local chain cost nothing.
const OWED_WAIT_MAX: Duration = Duration::from_secs(5);
/// How often what channels owe is looked at.
const COLLECT_EVERY: Duration = Duration::from_secs(2);
/// How long a payment may take from its signature to its settlement.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Seconds between a payer's wish to withdraw and the withdrawal, the least that channels know.
const WITHDRAW_DELAY: u64 = 900;
/// What a transaction must be worth. Gas costs nothing on the local chain, so anything is.
const SETTLE_MIN: Amount = Amount(1);
/// Requests that a first deposit should pay for.
const DEPOSIT_REQUESTS: u32 = 10;

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
            settle_min: SETTLE_MIN,
        },
        rail: Arc::new(ChainRail::new(chain).map_err(failed)?),
        collecting: Collecting {
            every: COLLECT_EVERY,
            owed_min: OWED_MIN,
            owed_wait_max: OWED_WAIT_MAX,
            ..Collecting::default()
        },
        journal: folder(data).join("payments"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
