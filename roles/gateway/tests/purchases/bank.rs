//! A chain in memory, as far as a purse needs one.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use assay_chain::{ChainError, ChannelState, Withdrawal};
use assay_gateway::{Bank, Standing};
use assay_protocol::{Address, Amount, B256, Channel, ChannelId, Channels};
use futures_util::future::BoxFuture;

use crate::stage::CHAIN;

pub(crate) const CHANNELS: Channels =
    Channels { chain: CHAIN, contract: Address::repeat_byte(0xc1) };
pub(crate) const MARKET: Address = Address::repeat_byte(0xc2);
pub(crate) const TOKEN: Address = Address::repeat_byte(0xc3);
pub(crate) const GRANTS: Address = Address::repeat_byte(0xc4);

/// Where a provider is paid.
pub(crate) fn till(provider: Address) -> Address {
    Address::from_slice(&assay_protocol::keccak256(provider)[..20])
}

#[derive(Debug, Default)]
pub(crate) struct Vault {
    states: Mutex<HashMap<ChannelId, ChannelState>>,
    /// How long a block takes.
    block: Duration,
    /// Nobody answers.
    pub(crate) down: AtomicBool,
    /// Providers that do not stand well.
    pub(crate) standings: Mutex<HashMap<Address, Standing>>,
    /// Grants that were taken back.
    pub(crate) revoked: Mutex<HashSet<(Address, B256)>>,
    /// Questions whether one was.
    pub(crate) asked: AtomicUsize,
}

impl Vault {
    /// An empty one, with a block every so often.
    pub(crate) fn new(block: Duration) -> Self {
        Self { block, ..Self::default() }
    }

    pub(crate) fn channel(&self, id: ChannelId) -> ChannelState {
        self.states.lock().unwrap().get(&id).copied().unwrap_or_default()
    }

    /// What all channels hold.
    pub(crate) fn held(&self) -> u128 {
        self.states.lock().unwrap().values().map(|state| state.balance.0).sum()
    }

    pub(crate) fn channels(&self) -> usize {
        self.states.lock().unwrap().len()
    }

    pub(crate) fn withdrawals(&self) -> usize {
        let states = self.states.lock().unwrap();
        states.values().filter(|state| state.withdrawal.is_some()).count()
    }

    /// A reorganisation takes a deposit with it.
    pub(crate) fn lose(&self, id: ChannelId) {
        self.states.lock().unwrap().remove(&id);
    }

    async fn change(
        &self,
        id: ChannelId,
        change: impl FnOnce(&mut ChannelState),
    ) -> Result<(), ChainError> {
        tokio::time::sleep(self.block).await;
        if self.down.load(Ordering::Relaxed) {
            return Err(unreachable());
        }
        change(self.states.lock().unwrap().entry(id).or_default());
        Ok(())
    }
}

fn unreachable() -> ChainError {
    ChainError::Unreachable { url: "memory".into(), reason: "it is down".into() }
}

impl Bank for Vault {
    fn till(&self, provider: Address) -> BoxFuture<'_, Result<Address, ChainError>> {
        Box::pin(async move { Ok(till(provider)) })
    }

    fn deposit<'a>(
        &'a self,
        channel: &'a Channel,
        amount: Amount,
    ) -> BoxFuture<'a, Result<(), ChainError>> {
        Box::pin(self.change(channel.id(&CHANNELS), move |state| state.balance.0 += amount.0))
    }

    fn state(&self, channel: ChannelId) -> BoxFuture<'_, Result<ChannelState, ChainError>> {
        Box::pin(async move {
            if self.down.load(Ordering::Relaxed) {
                return Err(unreachable());
            }
            Ok(self.channel(channel))
        })
    }

    fn start_withdrawal<'a>(
        &'a self,
        channel: &'a Channel,
        amount: Amount,
    ) -> BoxFuture<'a, Result<(), ChainError>> {
        Box::pin(self.change(channel.id(&CHANNELS), move |state| {
            state.withdrawal = Some(Withdrawal { amount, since: 0 });
        }))
    }

    fn finish_withdrawal<'a>(
        &'a self,
        channel: &'a Channel,
    ) -> BoxFuture<'a, Result<(), ChainError>> {
        Box::pin(self.change(channel.id(&CHANNELS), |state| {
            let amount = state.withdrawal.take().map_or(0, |withdrawal| withdrawal.amount.0);
            state.balance.0 -= amount.min(state.balance.0 - state.claimed.0);
        }))
    }

    fn standing(&self, provider: Address) -> BoxFuture<'_, Result<Standing, ChainError>> {
        Box::pin(async move {
            if self.down.load(Ordering::Relaxed) {
                return Err(unreachable());
            }
            Ok(self.standings.lock().unwrap().get(&provider).copied().unwrap_or(Standing::Good))
        })
    }

    fn is_revoked(&self, issuer: Address, grant: B256) -> BoxFuture<'_, Result<bool, ChainError>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::Relaxed);
            if self.down.load(Ordering::Relaxed) {
                return Err(unreachable());
            }
            Ok(self.revoked.lock().unwrap().contains(&(issuer, grant)))
        })
    }
}
