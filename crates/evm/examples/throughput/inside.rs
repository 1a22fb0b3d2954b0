//! Token transfers through a node in the same process: nothing but its RPC is left out.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_genesis::GenesisAccount;
use alloy_primitives::{Address, B256, Bytes, U256, hex, keccak256};
use assay_evm::clock::SystemClock;
use assay_evm::keystore::Signer;
use assay_evm::producer::{self, Production};
use assay_evm::{Genesis, Node, NodeConfig};
use rayon::prelude::*;
use serde_json::json;

use super::{Outcome, per_second, say, size, wallet};

const TOKEN: Address = Address::repeat_byte(0x70);

/// OpenZeppelin's ERC-20 (5.7.0, solc 0.8.37, 10,000 optimizer runs), without its metadata.
const ERC20: &str = include_str!("erc20.hex");

/// A chain on which everybody in `holders` has ether and tokens.
pub(crate) fn genesis(holders: &[Signer]) -> Outcome<Genesis> {
    let ether = U256::from(10).pow(U256::from(24));
    let funded: Vec<_> = holders.iter().map(|holder| (holder.address(), ether)).collect();
    let mut genesis = Genesis::development(wallet::CHAIN, &funded);
    let mut storage = BTreeMap::new();
    let tokens = B256::from(U256::from(1_000_000_000_000_u64));
    for holder in holders {
        // `_balances` is the mapping at slot 0.
        let key = [holder.address().into_word(), B256::ZERO].concat();
        storage.insert(keccak256(key), tokens);
    }
    let token = GenesisAccount {
        code: Some(hex::decode(ERC20.trim())?.into()),
        storage: Some(storage),
        ..Default::default()
    };
    genesis.0.alloc.insert(TOKEN, token);
    Ok(genesis)
}

/// Measures `COUNT` transfers from `SENDERS` to ten times as many holders, in batches of `BATCH`.
pub(crate) fn erc20(directory: Option<&Path>) -> Outcome {
    let (count, senders) = (size("COUNT", 200_000), size("SENDERS", 1_000));
    let batch = size("BATCH", 1_000);
    let wallets = wallet::wallets(10 * senders);
    let transfers: Vec<Bytes> = (0..count)
        .into_par_iter()
        .map(|at| {
            let (from, nonce) = (&wallets[at % senders], (at / senders) as u64);
            let to = wallets[(at * 7919 + 13) % wallets.len()].address();
            // transfer(address,uint256)
            let word = B256::from(U256::from(1));
            let data = [&hex!("a9059cbb")[..], to.into_word().as_slice(), word.as_slice()].concat();
            wallet::call(from, wallet::CHAIN, nonce, TOKEN, data.into()).into()
        })
        .collect();
    let config = NodeConfig {
        genesis: genesis(&wallets)?,
        directory: directory.map(Path::to_owned),
        producer: producer::Config {
            production: Production::OnDemand,
            drift_max: Duration::from_secs(1 << 20),
            ..Default::default()
        },
        ..Default::default()
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let _inside = runtime.enter();
    let node = Node::start(config, Arc::new(SystemClock))?;
    let begun = Instant::now();
    for raw in transfers.chunks(batch) {
        for added in node.mempool().add_many(raw) {
            added?;
        }
        // More than a few blocks ahead is of no use to anybody.
        while node.mempool().status().pending > 30_000 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    while node.mempool().status().pending > 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let rate = per_second(count, begun);
    let blocks = node.chain().head().header.number;
    let mut included = 0;
    for number in 1..=blocks {
        let receipts = node.chain().receipts(number)?.ok_or("a block is missing")?;
        included += receipts.iter().filter(|receipt| receipt.status()).count();
    }
    if included != count {
        return Err(format!("{included} of {count} transfers succeeded").into());
    }
    let durable = directory.is_some();
    say(
        "inproc_erc20_tps",
        json!({ "tps": rate, "count": count, "blocks": blocks, "durable": durable }),
    );
    runtime.block_on(node.stop());
    Ok(())
}
