//! What developers ask of a chain of their own: other times, other balances, blocks at will.
//!
//! The names are those that Ganache, Hardhat and Foundry have given these methods. They are there
//! only where the node's owner says so, and no chain that others rely on has them.
//!
//! A changed account stands in a block of its own, without transactions, whose state root is true:
//! what these methods write is proved, saved, reverted and exported like anything else.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alloy_primitives::{Address, Bytes, U256, keccak256};
use serde::Deserialize;

use super::Module;
use super::message::{Answer, Error, answer};
use super::params::{Params, argument};
use super::wallet::Impersonated;
use crate::chain::Chain;
use crate::mempool::Mempool;
use crate::producer::{Producer, ProducerError, Production};
use crate::state::{Account, AccountChange, Changes};

/// Most blocks that one call makes.
const BLOCKS_MAX: u64 = 100_000;

/// Most snapshots that are remembered; the oldest go first.
const SNAPSHOTS_MAX: usize = 4096;

/// The methods for developers.
#[derive(Debug)]
pub struct Development {
    chain: Arc<Chain>,
    mempool: Arc<Mempool>,
    producer: Producer,
    impersonated: Impersonated,
    desk: Mutex<Desk>,
}

#[derive(Debug)]
struct Desk {
    /// Heights to go back to, by the number that was given out for each.
    snapshots: BTreeMap<u64, u64>,
    next_snapshot: u64,
    production: Production,
}

type Method = fn(&Development, &Params<'_>) -> Answer;

/// A number as these tools send it: in hexadecimal, in decimal, or as JSON's own.
#[derive(Clone, Copy, Debug)]
struct Number(U256);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(from)?;
        let text = match &value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        text.parse().map(Self).map_err(|_| serde::de::Error::custom(format!("{text} is no number")))
    }
}

impl Number {
    fn small(self, index: usize) -> Result<u64, Error> {
        self.0.try_into().map_err(|_| argument(index, "more than 64 bits"))
    }
}

/// What `evm_mine` takes: nothing, a time, or both a time and a count.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Mine {
    Options { timestamp: Option<Number>, blocks: Option<Number> },
    Timestamp(Number),
}

const METHODS: &[(&str, Method)] = &[
    ("evm_snapshot", Development::snapshot),
    ("anvil_snapshot", Development::snapshot),
    ("evm_revert", Development::revert),
    ("anvil_revert", Development::revert),
    ("evm_increaseTime", Development::increase_time),
    ("anvil_increaseTime", Development::increase_time),
    ("evm_setNextBlockTimestamp", Development::set_next_timestamp),
    ("anvil_setNextBlockTimestamp", Development::set_next_timestamp),
    ("evm_setTime", Development::set_time),
    ("anvil_setTime", Development::set_time),
    ("evm_mine", Development::mine_one),
    ("anvil_mine", Development::mine),
    ("hardhat_mine", Development::mine),
    ("evm_setAutomine", Development::set_automine),
    ("anvil_setAutomine", Development::set_automine),
    ("anvil_getAutomine", Development::automine),
    ("hardhat_getAutomine", Development::automine),
    ("evm_setIntervalMining", Development::set_interval_ms),
    ("anvil_setIntervalMining", Development::set_interval_seconds),
    ("anvil_setBalance", Development::set_balance),
    ("hardhat_setBalance", Development::set_balance),
    ("anvil_setCode", Development::set_code),
    ("hardhat_setCode", Development::set_code),
    ("anvil_setNonce", Development::set_nonce),
    ("hardhat_setNonce", Development::set_nonce),
    ("anvil_setStorageAt", Development::set_storage),
    ("hardhat_setStorageAt", Development::set_storage),
    ("anvil_impersonateAccount", Development::impersonate),
    ("hardhat_impersonateAccount", Development::impersonate),
    ("anvil_stopImpersonatingAccount", Development::stop_impersonating),
    ("hardhat_stopImpersonatingAccount", Development::stop_impersonating),
    ("anvil_autoImpersonateAccount", Development::impersonate_all),
    ("anvil_dropTransaction", Development::drop_transaction),
    ("hardhat_dropTransaction", Development::drop_transaction),
    ("anvil_reset", Development::reset),
    ("hardhat_reset", Development::reset),
];

impl Development {
    /// The methods on `chain`, whose blocks `producer` makes as `production` says.
    pub fn new(
        chain: Arc<Chain>,
        mempool: Arc<Mempool>,
        producer: Producer,
        production: Production,
        impersonated: Impersonated,
    ) -> Self {
        let desk = Desk { snapshots: BTreeMap::new(), next_snapshot: 1, production };
        Self { chain, mempool, producer, impersonated, desk: Mutex::new(desk) }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self, _: &Params<'_>) -> Answer {
        let mut desk = self.desk();
        let number = desk.next_snapshot;
        desk.next_snapshot += 1;
        desk.snapshots.insert(number, self.chain.head().header.number);
        if desk.snapshots.len() > SNAPSHOTS_MAX {
            desk.snapshots.pop_first();
        }
        answer(&U256::from(number))
    }

    /// `[snapshot]`; it and all later ones are then gone. Whether it was there.
    fn revert(&self, params: &Params<'_>) -> Answer {
        let number = params.required::<Number>(0)?.small(0)?;
        let mut desk = self.desk();
        let later = desk.snapshots.split_off(&number);
        let Some(height) = later.get(&number) else {
            desk.snapshots.extend(later);
            return answer(&false);
        };
        self.producer.rewind(*height).map_err(failed)?;
        answer(&true)
    }

    /// `[seconds]`; how many seconds the chain is then ahead of the clock.
    fn increase_time(&self, params: &Params<'_>) -> Answer {
        let seconds = params.required::<Number>(0)?.small(0)?;
        let seconds = i64::try_from(seconds).map_err(|_| argument(0, "too many seconds"))?;
        answer(&self.producer.advance(seconds).map_err(failed)?)
    }

    /// `[seconds since 1970]`
    fn set_next_timestamp(&self, params: &Params<'_>) -> Answer {
        let timestamp = params.required::<Number>(0)?.small(0)?;
        done(self.producer.set_next_timestamp(timestamp))
    }

    /// `[seconds since 1970]`
    fn set_time(&self, params: &Params<'_>) -> Answer {
        done(self.producer.set_time(params.required::<Number>(0)?.small(0)?))
    }

    /// `[time, or time and count]`
    fn mine_one(&self, params: &Params<'_>) -> Answer {
        let (timestamp, blocks) = match params.optional::<Mine>(0)? {
            None => (None, None),
            Some(Mine::Timestamp(timestamp)) => (Some(timestamp), None),
            Some(Mine::Options { timestamp, blocks }) => (timestamp, blocks),
        };
        if let Some(timestamp) = timestamp {
            self.producer.set_next_timestamp(timestamp.small(0)?).map_err(failed)?;
        }
        self.mine_many(blocks.map_or(Ok(1), |blocks| blocks.small(0))?, 0)?;
        answer(&"0x0")
    }

    /// `[count, seconds between them]`
    fn mine(&self, params: &Params<'_>) -> Answer {
        let count = params.optional::<Number>(0)?.map_or(Ok(1), |count| count.small(0))?;
        let spacing = params.optional::<Number>(1)?.map_or(Ok(0), |spacing| spacing.small(1))?;
        self.mine_many(count, spacing)?;
        answer(&true)
    }

    fn mine_many(&self, count: u64, spacing: u64) -> Result<(), Error> {
        if count > BLOCKS_MAX {
            return Err(argument(0, format!("{count} blocks, at most {BLOCKS_MAX}")));
        }
        self.producer.mine(count, spacing).map_err(failed)
    }

    /// `[whether a transaction gets a block at once]`
    fn set_automine(&self, params: &Params<'_>) -> Answer {
        let on: bool = params.required(0)?;
        self.produce(if on { Production::OnDemand } else { Production::OnCall })
    }

    fn automine(&self, _: &Params<'_>) -> Answer {
        answer(&(self.desk().production == Production::OnDemand))
    }

    /// `[milliseconds between blocks, 0 for none]`, as Hardhat has it
    fn set_interval_ms(&self, params: &Params<'_>) -> Answer {
        let milliseconds = params.required::<Number>(0)?.small(0)?;
        self.set_interval(Duration::from_millis(milliseconds))
    }

    /// `[seconds between blocks, 0 for none]`, as Foundry has it
    fn set_interval_seconds(&self, params: &Params<'_>) -> Answer {
        let seconds = params.required::<Number>(0)?.small(0)?;
        self.set_interval(Duration::from_secs(seconds))
    }

    fn set_interval(&self, interval: Duration) -> Answer {
        self.produce(match interval.is_zero() {
            true => Production::OnCall,
            false => Production::Every(interval),
        })
    }

    fn produce(&self, production: Production) -> Answer {
        self.desk().production = production;
        done(self.producer.produce(production))
    }

    /// `[address, wei]`
    fn set_balance(&self, params: &Params<'_>) -> Answer {
        let balance = params.required::<Number>(1)?.0;
        self.edit(params.address(0)?, |account, _, _| account.balance = balance)
    }

    /// `[address, nonce]`
    fn set_nonce(&self, params: &Params<'_>) -> Answer {
        let nonce = params.required::<Number>(1)?.small(1)?;
        self.edit(params.address(0)?, |account, _, _| account.nonce = nonce)
    }

    /// `[address, code]`
    fn set_code(&self, params: &Params<'_>) -> Answer {
        let code = params.bytes(1)?;
        self.edit(params.address(0)?, |account, _, written| {
            account.code_hash = keccak256(&code);
            *written = Some(code);
        })
    }

    /// `[address, slot, value]`
    fn set_storage(&self, params: &Params<'_>) -> Answer {
        let (slot, _) = params.slot(1)?;
        let (value, _) = params.slot(2)?;
        self.edit(params.address(0)?, |_, slots, _| {
            slots.insert(slot, value);
        })
    }

    /// Changes one account, in a block of its own.
    fn edit(
        &self,
        address: Address,
        act: impl FnOnce(&mut Account, &mut BTreeMap<U256, U256>, &mut Option<Bytes>),
    ) -> Answer {
        let mut account = self.chain.head().state.account(&address).unwrap_or_default();
        let (mut slots, mut code) = (BTreeMap::new(), None);
        act(&mut account, &mut slots, &mut code);
        let codes = code.filter(|code| !code.is_empty()).map(|code| (account.code_hash, code));
        let change = AccountChange { account: Some(account), wiped: false, slots };
        let changes = Changes {
            accounts: [(address, change)].into(),
            codes: codes.into_iter().collect(),
            ..Changes::default()
        };
        self.producer.edit(changes).map_err(failed)?;
        answer(&true)
    }

    /// `[address]`
    fn impersonate(&self, params: &Params<'_>) -> Answer {
        self.impersonated.begin(params.address(0)?);
        answer(&true)
    }

    /// `[address]`
    fn stop_impersonating(&self, params: &Params<'_>) -> Answer {
        self.impersonated.end(&params.address(0)?);
        answer(&true)
    }

    /// `[whether anybody may send for everybody]`
    fn impersonate_all(&self, params: &Params<'_>) -> Answer {
        self.impersonated.all(params.required(0)?);
        answer(&())
    }

    /// `[hash]`
    fn drop_transaction(&self, params: &Params<'_>) -> Answer {
        let hash = params.hash(0)?;
        let there = self.mempool.contains(&hash);
        self.mempool.drop_all([&hash]);
        answer(&there.then_some(hash))
    }

    fn reset(&self, _: &Params<'_>) -> Answer {
        self.producer.rewind(0).map_err(failed)?;
        self.desk().snapshots.clear();
        answer(&true)
    }
}

impl Module for Development {
    fn methods(&self) -> &[&'static str] {
        static NAMES: LazyLock<Vec<&str>> =
            LazyLock::new(|| METHODS.iter().map(|(name, _)| *name).collect());
        &NAMES
    }

    fn call(&self, method: &str, params: &Params<'_>) -> Answer {
        match METHODS.iter().find(|(name, _)| *name == method) {
            Some((_, run)) => run(self, params),
            None => Err(Error::Method(method.to_owned())),
        }
    }
}

fn done(outcome: Result<(), ProducerError>) -> Answer {
    outcome.map_err(failed)?;
    answer(&())
}

fn failed(error: ProducerError) -> Error {
    Error::Failed(error.to_string())
}
