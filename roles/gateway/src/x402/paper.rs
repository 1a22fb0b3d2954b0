//! A chain on paper for tests: balances, channels and nonces in memory, and ways to break them.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use assay_chain::{
    Authorization, ChannelState, Claim, DepositAuthorization, SignedToken, Withdrawal,
};
use assay_protocol::{
    Address, Amount, B256, ChainId, Channel, ChannelId, Channels, Key, Signature, U256, Voucher,
};
use serde::Serialize;
use serde_json::json;
use serde_json::value::to_raw_value;

use super::batch::{Account, Place};
use super::facilitator::Facilitator;
use super::journal::Journal;
use super::rail::{Done, Rail, RailError};
use super::terms::Terms;
use super::wire::{
    BatchPayload, BatchVoucher, ChannelConfig, Deposit, Erc3009Authorization, PaymentPayload,
    Scheme, VERSION,
};
use std::time::Duration;

/// The time of tests that have one, Unix seconds.
pub(crate) const NOW: u64 = 1_900_000_000;

/// Who pays.
pub(crate) fn payer() -> Key {
    Key::from_bytes([7; 32]).unwrap()
}

pub(crate) fn terms() -> Terms {
    Terms {
        token: SignedToken {
            name: "Assay".to_owned(),
            version: "1".to_owned(),
            chain: ChainId(31337),
            address: Address::repeat_byte(0xaa),
        },
        pay_to: Address::repeat_byte(0xbb),
        timeout: Duration::from_secs(60),
        withdraw_delay: 900,
        deposit_requests: 10,
        settle_min: Amount(50),
    }
}

pub(crate) fn place() -> Place {
    Place {
        channels: Channels { chain: ChainId(31337), contract: Address::repeat_byte(0xcc) },
        collector: Address::repeat_byte(0xdd),
        authorizer: Address::repeat_byte(0xee),
    }
}

fn payment(terms: &Terms, scheme: Scheme, amount: u128, payload: impl Serialize) -> PaymentPayload {
    PaymentPayload {
        x402_version: VERSION,
        accepted: terms.asks(scheme, Amount(amount), place().authorizer),
        payload: to_raw_value(&payload).unwrap(),
        extensions: None,
    }
}

/// A payment by `exact`; `change` alters the authorization before it is signed.
pub(crate) fn exact(
    terms: &Terms,
    payer: &Key,
    amount: u128,
    nonce: u8,
    change: impl Fn(&mut Authorization),
) -> PaymentPayload {
    let mut authorization = Authorization {
        from: payer.address(),
        to: terms.pay_to,
        value: U256::from(amount),
        valid_after: U256::ZERO,
        valid_before: U256::from(NOW * 2),
        nonce: B256::repeat_byte(nonce),
    };
    change(&mut authorization);
    let signature = payer.sign(authorization.digest(&terms.token));
    let payload = json!({
        "signature": signature,
        "authorization": {
            "from": authorization.from,
            "to": authorization.to,
            "value": authorization.value.to_string(),
            "validAfter": authorization.valid_after.to_string(),
            "validBefore": authorization.valid_before.to_string(),
            "nonce": authorization.nonce,
        },
    });
    payment(terms, Scheme::Exact, amount, payload)
}

fn config(payer: &Key, salt: u8) -> ChannelConfig {
    let (terms, place) = (terms(), place());
    ChannelConfig {
        payer: payer.address(),
        payer_authorizer: payer.address(),
        receiver: terms.pay_to,
        receiver_authorizer: place.authorizer,
        token: terms.token.address,
        withdraw_delay: terms.withdraw_delay,
        salt: B256::repeat_byte(salt),
    }
}

/// A payer's channel.
pub(crate) fn channel(payer: &Key) -> Channel {
    config(payer, 0).into()
}

fn signed(channel: &Channel, key: &Key, claimable: u128) -> BatchVoucher {
    let id = channel.id(&place().channels);
    let word = Voucher { channel: id, claimable: Amount(claimable) };
    BatchVoucher {
        channel_id: id.0,
        max_claimable_amount: Amount(claimable),
        signature: word.sign(&place().channels, key),
    }
}

/// A voucher of a payer's channel.
pub(crate) fn voucher(payer: &Key, claimable: u128) -> BatchVoucher {
    signed(&channel(payer), payer, claimable)
}

/// A voucher payment of `payer`, signed by `key` after `change`.
pub(crate) fn batch(
    payer: &Key,
    key: &Key,
    claimable: u128,
    change: impl Fn(&mut ChannelConfig),
) -> BatchPayload {
    let mut channel_config = config(payer, 0);
    change(&mut channel_config);
    let voucher = signed(&channel_config.clone().into(), key, claimable);
    BatchPayload::Voucher { channel_config, voucher }
}

/// A payment of `amount` from a channel of which `charged` was charged; with a deposit if one is named.
pub(crate) fn batch_payment(
    payer: &Key,
    charged: u128,
    amount: u128,
    deposit: Option<u128>,
) -> PaymentPayload {
    let (terms, place) = (terms(), place());
    let channel_config = config(payer, 0);
    let channel = Channel::from(channel_config.clone());
    let voucher = signed(&channel, payer, charged + amount);
    let payload = match deposit {
        None => BatchPayload::Voucher { channel_config, voucher },
        Some(value) => {
            let id = channel.id(&place.channels);
            let mut authorization = DepositAuthorization {
                value: Amount(value),
                valid_after: U256::ZERO,
                valid_before: U256::from(NOW * 2),
                salt: B256::repeat_byte(u8::try_from(value % 251).unwrap()),
                signature: Signature([0; 65]),
            };
            let digest = authorization.digest(&terms.token, payer.address(), id, place.collector);
            authorization.signature = payer.sign(digest);
            let erc3009 = Erc3009Authorization {
                valid_after: authorization.valid_after,
                valid_before: authorization.valid_before,
                salt: authorization.salt,
                signature: authorization.signature,
            };
            let authorization =
                super::wire::DepositAuthorization { erc3009_authorization: Some(erc3009) };
            let deposit = Deposit { amount: Amount(value), authorization };
            BatchPayload::Deposit { channel_config, voucher, deposit }
        }
    };
    payment(&terms, Scheme::Batch, amount, payload)
}

/// A refund of all that is left where `charged` was charged.
pub(crate) fn refund(payer: &Key, charged: u128) -> PaymentPayload {
    let channel_config = config(payer, 0);
    let voucher = signed(&channel_config.clone().into(), payer, charged);
    let payload = BatchPayload::Refund { channel_config, voucher, amount: None };
    payment(&terms(), Scheme::Batch, 1, payload)
}

/// The chain.
#[derive(Debug, Default)]
pub(crate) struct Paper {
    state: Mutex<State>,
}

/// Whom a transfer paid, how much, and where.
type Moved = (Address, u128, B256);

#[derive(Debug, Default)]
struct State {
    balances: HashMap<Address, u128>,
    /// By payer and nonce; none for one that was cancelled.
    used: HashMap<(Address, B256), Option<Moved>>,
    channels: HashMap<ChannelId, ChannelState>,
    refunds: HashMap<ChannelId, u64>,
    poisoned: HashSet<ChannelId>,
    silent: bool,
    /// Sweeps fail.
    unswept: bool,
    /// The next transaction happens, and nobody hears of it.
    lost: bool,
    sent: u64,
    swept: u128,
    claimed: u128,
}

/// A facilitator on a new chain, with a new journal.
pub(crate) async fn facilitator() -> (Arc<Facilitator>, Arc<Paper>) {
    let paper = Arc::new(Paper::default());
    let folder = tempfile::tempdir().unwrap();
    // The file lives as long as it is open; its name may go.
    let facilitator = facilitator_on(&paper, &folder.path().join("journal")).await;
    (facilitator, paper)
}

/// A facilitator with a journal of this name.
pub(crate) async fn facilitator_on(paper: &Arc<Paper>, journal: &Path) -> Arc<Facilitator> {
    let journal = Journal::open(journal.to_owned(), NOW).await.unwrap();
    let rail: Arc<dyn Rail> = Arc::<Paper>::clone(paper);
    Arc::new(Facilitator::new(terms(), rail, journal))
}

impl Paper {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Gives money.
    pub(crate) fn fund(&self, account: Address, amount: u128) {
        *self.state().balances.entry(account).or_default() += amount;
    }

    pub(crate) fn balance_of(&self, account: Address) -> u128 {
        self.state().balances.get(&account).copied().unwrap_or_default()
    }

    /// Makes the chain answer nobody, or everybody again.
    pub(crate) fn silence(&self, silent: bool) {
        self.state().silent = silent;
    }

    /// Makes sweeps fail, or go through again.
    pub(crate) fn refuse_sweeps(&self, refuse: bool) {
        self.state().unswept = refuse;
    }

    /// Lets the next transaction happen without a word.
    pub(crate) fn lose(&self) {
        self.state().lost = true;
    }

    /// Begins a withdrawal.
    pub(crate) fn withdraw(&self, id: ChannelId, amount: u128) {
        let withdrawal = Some(Withdrawal { amount: Amount(amount), since: NOW });
        self.state().channels.entry(id).or_default().withdrawal = withdrawal;
    }

    /// Uses a nonce up by a transfer of nothing to the payer itself.
    pub(crate) fn divert(&self, payer: Address, nonce: B256) {
        let hash = B256::repeat_byte(0x77);
        self.state().used.insert((payer, nonce), Some((payer, 0, hash)));
    }

    /// Uses a nonce up without moving money.
    pub(crate) fn cancel(&self, payer: Address, nonce: B256) {
        self.state().used.insert((payer, nonce), None);
    }

    /// How many transactions there were.
    pub(crate) fn sent(&self) -> u64 {
        self.state().sent
    }

    /// What was swept in all.
    pub(crate) fn swept(&self) -> Amount {
        Amount(self.state().swept)
    }

    /// What a channel holds.
    pub(crate) fn channel_of(&self, payer: &Key) -> ChannelState {
        let id = channel(payer).id(&place().channels);
        self.state().channels.get(&id).copied().unwrap_or_default()
    }

    /// Makes every claim with this channel fail.
    pub(crate) fn poison(&self, salt: u8) {
        let id = Channel::from(config(&payer(), salt)).id(&place().channels);
        self.state().poisoned.insert(id);
    }

    /// The `number`th channel of many, with some money in it and a voucher for one unit.
    pub(crate) fn channel_number(&self, number: usize) -> (ChannelId, Channel, Signature) {
        let mut channel = channel(&payer());
        channel.salt = B256::from(U256::from(number));
        let id = channel.id(&place().channels);
        let state = ChannelState { balance: Amount(1000), ..ChannelState::default() };
        self.state().channels.insert(id, state);
        let signature = signed(&channel, &payer(), 1).signature;
        (id, channel, signature)
    }

    /// Has a channel that owes `amount`, of which a voucher is kept.
    pub(crate) async fn owe(&self, facilitator: &Facilitator, salt: u8, amount: u128) {
        let channel = Channel::from(config(&payer(), salt));
        let id = channel.id(&place().channels);
        let state = ChannelState { balance: Amount(1000), ..ChannelState::default() };
        self.state().channels.insert(id, state);
        let voucher = signed(&channel, &payer(), amount);
        let mut account = Account::new(channel, &state, 0, NOW);
        account.charge(&voucher, Amount(amount), NOW);
        facilitator.journal.change(id, move |_| (Some(account), ())).await.unwrap();
    }

    /// Runs a transaction.
    fn transact(
        &self,
        act: impl FnOnce(&mut State) -> Result<(), RailError>,
    ) -> Result<B256, RailError> {
        let mut state = self.state();
        if state.silent {
            return Err(RailError::Unknown("no answer".to_owned()));
        }
        act(&mut state)?;
        state.sent += 1;
        let hash = B256::from(U256::from(state.sent));
        if std::mem::take(&mut state.lost) {
            return Err(RailError::Unknown("the reply was lost".to_owned()));
        }
        Ok(hash)
    }

    fn look<T: Send + 'static>(&self, look: impl FnOnce(&State) -> T) -> Done<'_, T> {
        let state = self.state();
        let silent = state.silent;
        let seen = look(&state);
        let answer =
            if silent { Err(RailError::Unknown("no answer".to_owned())) } else { Ok(seen) };
        Box::pin(async move { answer })
    }
}

fn refuse(reason: &str) -> RailError {
    RailError::Refused(reason.to_owned())
}

impl State {
    /// What moves: from `payer`, to whom, how much.
    fn take(
        &mut self,
        payer: Address,
        to: Address,
        amount: u128,
        nonce: B256,
    ) -> Result<(), RailError> {
        if self.used.contains_key(&(payer, nonce)) {
            return Err(refuse("the authorization is used"));
        }
        let held = self.balances.entry(payer).or_default();
        *held = held.checked_sub(amount).ok_or_else(|| refuse("too little money"))?;
        let hash = B256::from(U256::from(self.sent + 1));
        self.used.insert((payer, nonce), Some((to, amount, hash)));
        Ok(())
    }
}

impl Rail for Paper {
    fn channels(&self) -> Channels {
        place().channels
    }

    fn collector(&self) -> Address {
        place().collector
    }

    fn account(&self) -> Address {
        place().authorizer
    }

    fn balance(&self, _token: Address, account: Address) -> Done<'_, Amount> {
        self.look(|state| Amount(state.balances.get(&account).copied().unwrap_or_default()))
    }

    fn is_used(&self, _token: Address, payer: Address, nonce: B256) -> Done<'_, bool> {
        self.look(|state| state.used.contains_key(&(payer, nonce)))
    }

    fn find<'a>(
        &'a self,
        _token: Address,
        authorization: &'a Authorization,
    ) -> Done<'a, Option<B256>> {
        let Authorization { from, to, value, nonce, .. } = authorization;
        self.look(|state| {
            let (receiver, amount, hash) = state.used.get(&(*from, *nonce)).copied().flatten()?;
            (receiver == *to && U256::from(amount) == *value).then_some(hash)
        })
    }

    fn transfer<'a>(
        &'a self,
        _token: Address,
        authorization: &'a Authorization,
        _signature: &'a Signature,
    ) -> Done<'a, B256> {
        let done = self.transact(|state| {
            let amount: u128 = authorization.value.to();
            state.take(authorization.from, authorization.to, amount, authorization.nonce)?;
            *state.balances.entry(authorization.to).or_default() += amount;
            Ok(())
        });
        Box::pin(async move { done })
    }

    fn channel(&self, id: ChannelId) -> Done<'_, ChannelState> {
        self.look(|state| state.channels.get(&id).copied().unwrap_or_default())
    }

    fn refunds(&self, id: ChannelId) -> Done<'_, u64> {
        self.look(|state| state.refunds.get(&id).copied().unwrap_or_default())
    }

    fn deposit<'a>(
        &'a self,
        channel: &'a Channel,
        authorization: &'a DepositAuthorization,
    ) -> Done<'a, B256> {
        let id = channel.id(&place().channels);
        let done = self.transact(|state| {
            let (to, value) = (place().collector, authorization.value.0);
            state.take(channel.payer, to, value, authorization.nonce(id))?;
            state.channels.entry(id).or_default().balance.0 += authorization.value.0;
            Ok(())
        });
        Box::pin(async move { done })
    }

    fn claim<'a>(&'a self, claims: &'a [Claim]) -> Done<'a, B256> {
        let done = self.transact(|state| {
            let ids: Vec<_> = claims.iter().map(|c| c.channel.id(&place().channels)).collect();
            if ids.iter().any(|id| state.poisoned.contains(id)) {
                return Err(refuse("a bad row"));
            }
            for (id, claim) in ids.into_iter().zip(claims) {
                let word = Voucher { channel: id, claimable: claim.claimable };
                let signer = word.signer(&place().channels, &claim.signature);
                let held = state.channels.entry(id).or_default();
                let good = signer == Ok(claim.channel.payer_authorizer)
                    && claim.claimed <= claim.claimable
                    && claim.claimed <= held.balance;
                if good && claim.claimed > held.claimed {
                    let more = claim.claimed.0 - held.claimed.0;
                    held.claimed = claim.claimed;
                    state.claimed += more;
                }
            }
            Ok(())
        });
        Box::pin(async move { done })
    }

    fn sweep(&self, receiver: Address, _token: Address) -> Done<'_, B256> {
        let done = self.transact(|state| {
            if state.unswept {
                return Err(RailError::Unknown("no answer".to_owned()));
            }
            let amount = std::mem::take(&mut state.claimed);
            state.swept += amount;
            *state.balances.entry(receiver).or_default() += amount;
            Ok(())
        });
        Box::pin(async move { done })
    }

    fn refund<'a>(&'a self, channel: &'a Channel, amount: Amount) -> Done<'a, B256> {
        let id = channel.id(&place().channels);
        let done = self.transact(|state| {
            let held = state.channels.entry(id).or_default();
            let left = held.balance.0 - held.claimed.0;
            let amount = amount.0.min(left);
            held.balance.0 -= amount;
            *state.refunds.entry(id).or_default() += 1;
            *state.balances.entry(channel.payer).or_default() += amount;
            Ok(())
        });
        Box::pin(async move { done })
    }
}

/// A payment with an identifier that its client chose.
pub(crate) fn named(mut payment: PaymentPayload, id: &str) -> PaymentPayload {
    let info = json!({ "info": { "required": false, "id": id } });
    let extensions = json!({ super::reply::IDENTIFIER: info });
    payment.extensions = Some(to_raw_value(&extensions).unwrap());
    payment
}
