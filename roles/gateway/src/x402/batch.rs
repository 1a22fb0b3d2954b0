//! The scheme `batch-settlement`: a channel per payer, a voucher per answer, no transaction for either.
//!
//! An account is what we hold of one channel: what was charged, the voucher that covers it, and what the
//! chain last said. The rules here take values and give values. A voucher must allow exactly what was
//! charged plus what was accepted, so both sides count alike or find out at once; what is charged is at
//! most that, and only what is surely in the channel counts: confirmed deposits, less what the payer is
//! withdrawing.
//!
//! A streamed answer's header leaves before its cost is known, so the highest price is charged there, and
//! what it was too much becomes a credit that lowers the next charges of the channel.

use assay_chain::{ChannelState, Claim, DepositAuthorization};
use assay_protocol::{Address, Amount, Channel, ChannelId, Channels, Signature, Voucher};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::exact::in_time;
use super::fault::Fault;
use super::terms::Terms;
use super::wire::{BatchPayload, BatchVoucher, ChannelConfig, Deposit};

/// What we hold of one channel. Amounts are in base units of its token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Account {
    /// Its terms.
    pub(crate) channel: Channel,
    /// What answers have cost, cumulative.
    pub(crate) charged: Amount,
    /// The last voucher's ceiling; at least what was charged.
    pub(crate) claimable: Amount,
    /// The voucher's signature; none before the first one.
    pub(crate) signature: Option<Signature>,
    /// What was charged too much, and comes off the next charges.
    pub(crate) credit: Amount,
    /// What streams were charged that have not ended yet, and may have cost less.
    #[serde(default)]
    pub(crate) open: Amount,
    /// Deposited and not given back, as the chain said.
    pub(crate) balance: Amount,
    /// Claimed, as the chain said.
    pub(crate) claimed: Amount,
    /// What the payer is withdrawing, and since when (Unix seconds), as the chain said.
    pub(crate) withdrawal: Option<(Amount, u64)>,
    /// How often it was refunded.
    pub(crate) refunds: u64,
    /// When the chain said so, Unix seconds.
    pub(crate) synced: u64,
    /// Since when something is unclaimed, Unix seconds; what is charged while nothing is sets it.
    pub(crate) owed_since: Option<u64>,
}

impl Account {
    /// An account of a channel that we know nothing of: what the chain says was claimed was charged.
    pub(crate) fn new(channel: Channel, state: &ChannelState, refunds: u64, now: u64) -> Self {
        let mut account = Self {
            channel,
            charged: state.claimed,
            claimable: state.claimed,
            signature: None,
            credit: Amount(0),
            open: Amount(0),
            balance: Amount(0),
            claimed: Amount(0),
            withdrawal: None,
            refunds: 0,
            synced: 0,
            owed_since: None,
        };
        account.sync(state, refunds, now);
        account
    }

    /// Takes over what the chain says.
    pub(crate) fn sync(&mut self, state: &ChannelState, refunds: u64, now: u64) {
        self.balance = state.balance;
        self.claimed = state.claimed;
        self.withdrawal = state.withdrawal.map(|w| (w.amount, w.since));
        self.refunds = refunds;
        self.synced = now;
        if self.owed() == Amount(0) {
            self.owed_since = None;
        }
    }

    /// What the channel surely has, claimed and unclaimed: a withdrawal takes at most what is unclaimed.
    pub(crate) fn available(&self) -> Amount {
        let taken = self.withdrawal.map_or(0, |(amount, _)| amount.0);
        Amount(self.balance.0.saturating_sub(taken).max(self.claimed.0))
    }

    /// What answers did cost as far as is known. What is left of the charges may have to be given back, so
    /// it stays in the channel, unless the payer empties that.
    fn earned(&self) -> Amount {
        let open = if self.withdrawal.is_some() { 0 } else { self.open.0 };
        Amount(self.charged.0.saturating_sub(self.credit.0).saturating_sub(open))
    }

    /// What was earned and not claimed.
    pub(crate) fn owed(&self) -> Amount {
        Amount(self.earned().0.saturating_sub(self.claimed.0))
    }

    /// What may be given back.
    pub(crate) fn left(&self) -> Amount {
        Amount(self.balance.0.saturating_sub(self.charged.0))
    }

    /// Undoes charges by what is to be credited, for a payer who wants its money rather than later
    /// answers. What was claimed is out of reach, and stays a credit.
    pub(crate) fn uncharge(&mut self) {
        let unclaimed = self.charged.0.saturating_sub(self.claimed.0);
        let back = self.credit.0.min(unclaimed);
        self.charged.0 -= back;
        self.credit.0 -= back;
    }

    /// Whether `voucher` pays for a request of at most `amount`.
    pub(crate) fn admit(&self, claimable: Amount, amount: Amount) -> Result<(), Fault> {
        let expected = Amount(self.charged.0.saturating_add(amount.0));
        if claimable != expected {
            return Err(Fault::Cumulative { found: claimable, expected });
        }
        if self.balance == Amount(0) {
            return Err(Fault::NoChannel);
        }
        let available = self.available();
        if claimable > available {
            return Err(Fault::Exceeds { found: claimable, available });
        }
        if amount.0 > 0 && claimable <= self.claimed {
            return Err(Fault::Claimed { found: claimable, claimed: self.claimed });
        }
        Ok(())
    }

    /// Charges `cost` to a voucher that was admitted for at least as much, less what is to be credited.
    /// Returns what was charged.
    pub(crate) fn charge(&mut self, voucher: &BatchVoucher, cost: Amount, now: u64) -> Amount {
        let room = voucher.max_claimable_amount.0.saturating_sub(self.charged.0);
        let cost = cost.0.min(room);
        let credited = cost.min(self.credit.0);
        let charge = Amount(cost - credited);
        self.credit.0 -= credited;
        self.charged.0 += charge.0;
        self.claimable = voucher.max_claimable_amount;
        self.signature = Some(voucher.signature);
        if self.owed().0 > 0 {
            self.owed_since.get_or_insert(now);
        }
        charge
    }

    /// Charges a stream, of which only the highest price is known; [`Account::end`] says the rest.
    pub(crate) fn begin(&mut self, voucher: &BatchVoucher, price: Amount, now: u64) -> Amount {
        let charged = self.charge(voucher, price, now);
        self.open.0 = self.open.0.saturating_add(price.0);
        charged
    }

    /// Ends a stream that was charged `price` and did cost `cost`; the difference is credited.
    pub(crate) fn end(&mut self, price: Amount, cost: Amount, now: u64) {
        self.open.0 = self.open.0.saturating_sub(price.0);
        self.credit.0 = self.credit.0.saturating_add(price.0.saturating_sub(cost.0));
        if self.owed().0 > 0 {
            self.owed_since.get_or_insert(now);
        }
    }

    /// What to claim; none where nothing is owed or no voucher covers it.
    pub(crate) fn claim(&self) -> Option<Claim> {
        let signature = self.signature.filter(|_| self.owed().0 > 0)?;
        Some(Claim {
            channel: self.channel.clone(),
            claimable: self.claimable,
            signature,
            claimed: self.earned(),
        })
    }

    /// What the payer is told of the channel.
    pub(crate) fn state(&self, id: ChannelId) -> Value {
        json!({
            "channelId": id.to_string(),
            "balance": self.balance,
            "totalClaimed": self.claimed,
            "withdrawRequestedAt": self.withdrawal.map_or(0, |(_, since)| since),
            "refundNonce": self.refunds.to_string(),
            "chargedCumulativeAmount": self.charged,
        })
    }

    /// The voucher that we hold, so that a payer who lost its count can go on; it must know its signature.
    pub(crate) fn voucher_state(&self) -> Option<Value> {
        let signature = self.signature?;
        Some(json!({ "signedMaxClaimable": self.claimable, "signature": signature }))
    }

    /// `extra` of a settlement that charged `charge`.
    pub(crate) fn extra(&self, id: ChannelId, charge: Amount) -> Map<String, Value> {
        let mut extra = Map::new();
        extra.insert("chargedAmount".to_owned(), json!(charge));
        extra.insert("channelState".to_owned(), self.state(id));
        extra
    }
}

/// A payment whose terms are ours and whose voucher is signed.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    pub(crate) id: ChannelId,
    pub(crate) channel: Channel,
    pub(crate) voucher: BatchVoucher,
    pub(crate) kind: SignedKind,
}

/// What a signed payment is for.
#[derive(Clone, Debug)]
pub(crate) enum SignedKind {
    /// An answer, from what the channel has.
    Voucher,
    /// An answer, from what the channel is about to have.
    Deposit(DepositAuthorization),
    /// Money back: this much, or all that is left.
    Refund(Option<Amount>),
}

/// Who may claim and who collects: what of the chain is part of signatures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) channels: Channels,
    pub(crate) collector: Address,
    pub(crate) authorizer: Address,
}

impl Signed {
    /// Judges what the payload says by itself; `now` in Unix seconds.
    pub(crate) fn check(
        payload: BatchPayload,
        terms: &Terms,
        place: &Place,
        now: u64,
    ) -> Result<Self, Fault> {
        let (config, voucher, rest) = match payload {
            BatchPayload::Voucher { channel_config, voucher } => {
                (channel_config, voucher, Rest::Voucher)
            }
            BatchPayload::Deposit { channel_config, voucher, deposit } => {
                (channel_config, voucher, Rest::Deposit(deposit))
            }
            BatchPayload::Refund { channel_config, voucher, amount } => {
                (channel_config, voucher, Rest::Refund(amount))
            }
        };
        let channel = ours(config, terms, place)?;
        let id = channel.id(&place.channels);
        let named = ChannelId(voucher.channel_id);
        if named != id {
            return Err(Fault::ChannelId { found: named, expected: id });
        }
        let word = Voucher { channel: id, claimable: voucher.max_claimable_amount };
        let expected = channel.payer_authorizer;
        if word.signer(&place.channels, &voucher.signature) != Ok(expected) {
            return Err(Fault::Voucher { expected });
        }
        let kind = match rest {
            Rest::Voucher => SignedKind::Voucher,
            Rest::Deposit(given) => {
                SignedKind::Deposit(deposit(given, &channel, id, terms, place, now)?)
            }
            Rest::Refund(Some(Amount(0))) => return Err(Fault::RefundAmount),
            Rest::Refund(amount) => SignedKind::Refund(amount),
        };
        Ok(Self { id, channel, voucher, kind })
    }
}

/// What a payload has beside channel and voucher.
enum Rest {
    Voucher,
    Deposit(Deposit),
    Refund(Option<Amount>),
}

/// The channel, if it pays us and we can claim from it in time.
fn ours(config: ChannelConfig, terms: &Terms, place: &Place) -> Result<Channel, Fault> {
    let channel = Channel::from(config);
    let (found, expected) = (channel.receiver, terms.pay_to);
    if found != expected {
        return Err(Fault::Receiver { found, expected });
    }
    let (found, expected) = (channel.receiver_authorizer, place.authorizer);
    if found != expected {
        return Err(Fault::ReceiverAuthorizer { found, expected });
    }
    let (found, expected) = (channel.token, terms.token.address);
    if found != expected {
        return Err(Fault::Token { found, expected });
    }
    let (found, expected) = (channel.withdraw_delay, terms.withdraw_delay);
    if found != expected {
        return Err(Fault::WithdrawDelay { found, expected });
    }
    if channel.payer_authorizer == Address::ZERO {
        return Err(Fault::PayerAuthorizer);
    }
    Ok(channel)
}

/// The deposit, if its payer signed it for this channel.
fn deposit(
    given: Deposit,
    channel: &Channel,
    id: ChannelId,
    terms: &Terms,
    place: &Place,
    now: u64,
) -> Result<DepositAuthorization, Fault> {
    let given_by = given.authorization.erc3009_authorization.ok_or(Fault::DepositMethod)?;
    let deposit = DepositAuthorization {
        value: given.amount,
        valid_after: given_by.valid_after,
        valid_before: given_by.valid_before,
        salt: given_by.salt,
        signature: given_by.signature,
    };
    let (after, before) = (deposit.valid_after, deposit.valid_before);
    in_time(after, before, now).map_err(|_| Fault::DepositTime { after, before, now })?;
    let payer = channel.payer;
    let digest = deposit.digest(&terms.token, payer, id, place.collector);
    if deposit.signature.signer(digest) != Ok(payer) {
        return Err(Fault::DepositSignature { payer });
    }
    Ok(deposit)
}

#[cfg(test)]
mod tests {
    use super::super::paper::{self, NOW};
    use super::*;
    use assay_chain::Withdrawal;
    use assay_protocol::Key;

    /// An account with 1,000 in its channel, of which 100 are charged and 40 claimed.
    fn account() -> Account {
        let state = ChannelState { balance: Amount(1000), claimed: Amount(40), withdrawal: None };
        let mut account = Account::new(paper::channel(&paper::payer()), &state, 0, NOW);
        account.charged = Amount(100);
        account.claimable = Amount(100);
        account
    }

    fn voucher(claimable: u128) -> BatchVoucher {
        paper::voucher(&paper::payer(), claimable)
    }

    #[test]
    fn a_voucher_continues_what_was_charged() {
        let account = account();
        assert_eq!(account.admit(Amount(150), Amount(50)), Ok(()));
        for found in [100, 149, 151] {
            let found = Amount(found);
            let expected = Amount(150);
            assert_eq!(
                account.admit(found, Amount(50)),
                Err(Fault::Cumulative { found, expected })
            );
        }
    }

    #[test]
    fn a_voucher_allows_no_more_than_is_surely_there() {
        let mut account = account();
        assert_eq!(account.admit(Amount(1000), Amount(900)), Ok(()));
        let exceeds = |found, available| {
            Err(Fault::Exceeds { found: Amount(found), available: Amount(available) })
        };
        assert_eq!(account.admit(Amount(1001), Amount(901)), exceeds(1001, 1000));
        account.withdrawal = Some((Amount(600), NOW));
        assert_eq!(account.admit(Amount(401), Amount(301)), exceeds(401, 400));
        assert_eq!(account.admit(Amount(400), Amount(300)), Ok(()));
        account.withdrawal = Some((Amount(u128::MAX), NOW));
        assert_eq!(account.admit(Amount(101), Amount(1)), exceeds(101, 40));
    }

    #[test]
    fn no_more_is_charged_than_allowed_or_spent() {
        let mut account = account();
        assert_eq!(account.charge(&voucher(150), Amount(20), NOW), Amount(20));
        assert_eq!((account.charged, account.claimable), (Amount(120), Amount(150)));
        assert_eq!(account.charge(&voucher(170), Amount(u128::MAX), NOW), Amount(50));
        assert_eq!(account.charged, Amount(170));
        assert_eq!(
            account.claim().map(|c| (c.claimed, c.claimable)),
            Some((Amount(170), Amount(170)))
        );
    }

    #[test]
    fn a_credit_lowers_the_next_charges() {
        let mut account = account();
        account.credit = Amount(30);
        assert_eq!(account.charge(&voucher(150), Amount(20), NOW), Amount(0));
        assert_eq!(account.charge(&voucher(150), Amount(20), NOW), Amount(10));
        assert_eq!((account.charged, account.credit), (Amount(110), Amount(0)));
    }

    #[test]
    fn a_channel_without_records_was_charged_what_was_claimed() {
        let withdrawal = Some(Withdrawal { amount: Amount(1), since: 5 });
        let state = ChannelState { balance: Amount(9), claimed: Amount(4), withdrawal };
        let account = Account::new(paper::channel(&paper::payer()), &state, 2, NOW);
        assert_eq!(
            (account.charged, account.owed(), account.left()),
            (Amount(4), Amount(0), Amount(5))
        );
        assert!(account.claim().is_none());
        assert!(account.voucher_state().is_none());
    }

    fn check(change: impl Fn(&mut ChannelConfig), key: &Key, expected: Result<(), Fault>) {
        let payload = paper::batch(&paper::payer(), key, 100, change);
        let found = Signed::check(payload, &paper::terms(), &paper::place(), NOW);
        assert_eq!(found.map(|_| ()), expected);
    }

    #[test]
    fn only_channels_that_pay_us_in_time_count() {
        let (payer, stranger) = (paper::payer(), Address::repeat_byte(0x66));
        check(|_| {}, &payer, Ok(()));
        let expected = paper::terms().pay_to;
        check(
            |c| c.receiver = stranger,
            &payer,
            Err(Fault::Receiver { found: stranger, expected }),
        );
        let expected = paper::place().authorizer;
        let fault = Fault::ReceiverAuthorizer { found: stranger, expected };
        check(|c| c.receiver_authorizer = stranger, &payer, Err(fault));
        let expected = paper::terms().token.address;
        check(|c| c.token = stranger, &payer, Err(Fault::Token { found: stranger, expected }));
        let fault = Fault::WithdrawDelay { found: 899, expected: 900 };
        check(|c| c.withdraw_delay = 899, &payer, Err(fault));
        check(|c| c.payer_authorizer = Address::ZERO, &payer, Err(Fault::PayerAuthorizer));
    }

    #[test]
    fn a_forged_voucher_is_refused() {
        let expected = paper::payer().address();
        let thief = Key::from_bytes([9; 32]).unwrap();
        check(|_| {}, &thief, Err(Fault::Voucher { expected }));
        let mut payload = paper::batch(&paper::payer(), &paper::payer(), 100, |_| {});
        if let BatchPayload::Voucher { voucher, .. } = &mut payload {
            voucher.max_claimable_amount = Amount(101);
        }
        let found = Signed::check(payload, &paper::terms(), &paper::place(), NOW);
        assert_eq!(found.map(|_| ()), Err(Fault::Voucher { expected }));
    }

    #[test]
    fn a_voucher_of_another_channel_or_chain_is_refused() {
        let mut payload = paper::batch(&paper::payer(), &paper::payer(), 100, |_| {});
        if let BatchPayload::Voucher { channel_config, .. } = &mut payload {
            channel_config.salt = assay_protocol::B256::repeat_byte(1);
        }
        let found = Signed::check(payload, &paper::terms(), &paper::place(), NOW);
        assert!(matches!(found, Err(Fault::ChannelId { .. })), "{found:?}");
        let payload = paper::batch(&paper::payer(), &paper::payer(), 100, |_| {});
        let mut place = paper::place();
        place.channels.chain.0 += 1;
        let found = Signed::check(payload, &paper::terms(), &place, NOW);
        assert!(matches!(found, Err(Fault::ChannelId { .. })), "{found:?}");
    }
}
