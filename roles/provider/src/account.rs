//! What a channel is to its provider, and what may be delivered against it. Pure: all that is
//! known comes as an argument, so the rules can be tested on every order of events.
//!
//! At every moment: charged + delivered ≤ min(claimable + credit, backing). The voucher bounds what
//! can be claimed, the backing what is there to be claimed, and credit is given only to a buyer whose
//! deposit could pay it: a channel that holds nothing buys nothing.

use assay_chain::ChannelState;
use assay_protocol::wire::{Accepts, Position, Refusal, TopUp};
use assay_protocol::{Address, Amount, Channel, ChannelId, Channels, Voucher};
use serde::{Deserialize, Serialize};

/// Longest delay of a withdrawal that the contract takes, in seconds (`IChannels.sol`).
const WITHDRAW_DELAY_MAX: u64 = 2_592_000;

/// A channel as its provider keeps it on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Account {
    /// What the channel is.
    pub(crate) channel: Channel,
    /// What receipts have cost in all, base units. Never falls.
    pub(crate) charged: Amount,
    /// The highest voucher. Never falls.
    pub(crate) voucher: TopUp,
    /// What of it is known to be claimed on the chain, base units.
    #[serde(default)]
    pub(crate) claimed: Amount,
    /// Whether that changed since its till was last told to look: the dispute window of what is claimed
    /// begins when it does.
    #[serde(default)]
    pub(crate) unseen: bool,
    /// When its till last looked, by the chain's clock, Unix seconds.
    #[serde(default)]
    pub(crate) seen_at: u64,
    /// Up to where its till is known to have paid out, base units.
    #[serde(default)]
    pub(crate) paid_out: Amount,
    /// Whether its payer was seen to want money back since the last claim.
    #[serde(default)]
    pub(crate) leaving: bool,
}

impl Account {
    /// Where the channel is, for its buyer.
    pub(crate) fn position(&self) -> Position {
        Position { charged: self.charged, voucher: self.voucher }
    }

    /// What may be claimed in all: what was delivered and is paid.
    pub(crate) fn earned(&self) -> Amount {
        self.charged.min(self.voucher.claimable)
    }

    /// What of it is not claimed yet.
    pub(crate) fn unclaimed(&self) -> Amount {
        Amount(self.earned().0.saturating_sub(self.claimed.0))
    }

    /// Takes a voucher, unless it is lower than the one before.
    pub(crate) fn raise(&mut self, voucher: TopUp) {
        if voucher.claimable > self.voucher.claimable {
            self.voucher = voucher;
        }
    }
}

/// Makes sure that a channel pays this provider for orders of `buyer`, and cannot be emptied
/// faster than it is watched. Its vouchers are signed by the buyer, or by one of the `issuers` of the
/// grants that the buyer acts under.
pub(crate) fn accept_channel(
    channel: &Channel,
    buyer: Address,
    mut issuers: impl Iterator<Item = Address>,
    accepts: &Accepts,
) -> Result<(), Refusal> {
    let found = channel.payer_authorizer;
    let signer = issuers.find(|issuer| *issuer == found).unwrap_or(buyer);
    let addresses = [
        ("payer authorizer", found, signer),
        ("receiver", channel.receiver, accepts.receiver),
        ("receiver authorizer", channel.receiver_authorizer, accepts.receiver_authorizer),
        ("token", channel.token, accepts.token),
    ];
    if let Some((what, found, expected)) =
        addresses.into_iter().find(|(_, found, expected)| found != expected)
    {
        return Err(other_channel(what, found.to_string(), expected.to_string()));
    }
    let delay = channel.withdraw_delay;
    if delay < accepts.withdraw_delay_min || delay > WITHDRAW_DELAY_MAX {
        let expected = format!("{} to {WITHDRAW_DELAY_MAX} s", accepts.withdraw_delay_min);
        return Err(other_channel("withdraw delay", format!("{delay} s"), expected));
    }
    Ok(())
}

fn other_channel(what: &str, found: String, expected: String) -> Refusal {
    Refusal::Channel { what: what.into(), found, expected }
}

/// Makes sure that a voucher on `channel` is `signer`'s word.
pub(crate) fn accept_voucher(
    channels: &Channels,
    channel: ChannelId,
    voucher: &TopUp,
    signer: Address,
) -> Result<(), Refusal> {
    let word = Voucher { channel, claimable: voucher.claimable };
    let found = word
        .signer(channels, &voucher.signature)
        .map_err(|error| Refusal::Invalid { reason: format!("voucher: {error}") })?;
    if found != signer {
        return Err(Refusal::VoucherSigner { found, expected: signer });
    }
    Ok(())
}

/// What of a channel's money cannot leave it otherwise than to its receiver, base units.
pub(crate) fn backing(state: &ChannelState) -> Amount {
    let leaving = state.withdrawal.map_or(0, |withdrawal| withdrawal.amount.0);
    // What is claimed does not leave: a withdrawal ends at what is unclaimed then.
    Amount(state.balance.0.saturating_sub(leaving).max(state.claimed.0.min(state.balance.0)))
}

/// What one order may still cost, while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tab {
    /// What the channel's receipts have cost before this order.
    pub(crate) charged: Amount,
    /// What the highest voucher allows.
    pub(crate) claimable: Amount,
    /// What of the channel's money cannot leave.
    pub(crate) backing: Amount,
    /// Most that is delivered beyond the voucher.
    pub(crate) credit: Amount,
}

/// What keeps the next token back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// A higher voucher would let it go.
    Voucher,
    /// No voucher would: the channel does not hold enough.
    Backing,
}

impl Tab {
    /// Opens a tab for an order that costs at least `least`, paid by `voucher` on a channel whose
    /// highest voucher so far is `highest`.
    pub(crate) fn open(
        charged: Amount,
        highest: Option<Amount>,
        voucher: Amount,
        backing: Amount,
        credit: Amount,
        least: Amount,
    ) -> Result<Self, Refusal> {
        if let Some(expected) = highest.filter(|&highest| voucher < highest) {
            return Err(Refusal::Voucher { found: voucher, expected });
        }
        let due = Amount(charged.0.saturating_add(least.0));
        let needed = Amount(due.0.saturating_sub(credit.0));
        if voucher < needed {
            return Err(Refusal::Voucher { found: voucher, expected: needed });
        }
        let expected = voucher.max(due);
        if backing < expected {
            return Err(Refusal::Deposit { found: backing, expected });
        }
        Ok(Self { charged, claimable: voucher, backing, credit })
    }

    /// Whether an answer may have cost `cost`; otherwise what is lacking.
    pub(crate) fn allows(&self, cost: Amount) -> Result<(), Lack> {
        let due = self.charged.0.saturating_add(cost.0);
        if due > self.backing.0 {
            return Err(Lack::Backing);
        }
        if due > self.claimable.0.saturating_add(self.credit.0) {
            return Err(Lack::Voucher);
        }
        Ok(())
    }

    /// What a voucher must allow so that an answer may cost `cost` without credit.
    pub(crate) fn due(&self, cost: Amount) -> Amount {
        Amount(self.charged.0.saturating_add(cost.0))
    }
}

/// What is believed of a channel's money: a deposit counts once it was seen twice, some blocks
/// apart; that money is gone is believed at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backing {
    /// What counts, base units.
    pub(crate) confirmed: Amount,
    /// What was claimed on the chain when it was last seen.
    pub(crate) claimed: Amount,
    /// More that was seen, and the height from which it has been there.
    more: Option<(Amount, u64)>,
}

impl Backing {
    /// Takes a reading of the chain. `confirmations` is the number of blocks between a deposit's
    /// first sight and its belief; zero where blocks are final.
    pub(crate) fn observe(&mut self, state: &ChannelState, height: u64, confirmations: u64) {
        let seen = backing(state);
        self.claimed = state.claimed;
        self.confirmed = self.confirmed.min(seen);
        self.more = match self.more {
            // A height that fell means another branch: what was seen on the old one is not known.
            Some((amount, since)) if height >= since && seen > self.confirmed => {
                Some((amount.min(seen), since))
            }
            _ if seen > self.confirmed => Some((seen, height)),
            _ => None,
        };
        if let Some((amount, since)) = self.more
            && (confirmations == 0 || height > since.saturating_add(confirmations))
        {
            self.confirmed = if confirmations == 0 { seen } else { amount };
            self.more = (seen > self.confirmed).then_some((seen, height));
        }
    }

    /// Believes only what can leave no more: nobody has seen the chain for too long.
    pub(crate) fn doubt(&mut self) {
        self.confirmed = self.confirmed.min(self.claimed);
        self.more = None;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use assay_chain::Withdrawal;
    use assay_protocol::{B256, ChainId, Key, Signature};
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> Key {
        Key::from_bytes([byte; 32]).unwrap()
    }

    fn accepts() -> Accepts {
        Accepts {
            channels: Address::repeat_byte(1),
            market: Address::repeat_byte(2),
            token: Address::repeat_byte(3),
            receiver: Address::repeat_byte(4),
            receiver_authorizer: Address::repeat_byte(5),
            withdraw_delay_min: 900,
            credit_max: Amount(4),
            grants: Address::ZERO,
        }
    }

    fn channel() -> Channel {
        Channel {
            payer: Address::repeat_byte(9),
            payer_authorizer: key(1).address(),
            receiver: Address::repeat_byte(4),
            receiver_authorizer: Address::repeat_byte(5),
            token: Address::repeat_byte(3),
            withdraw_delay: 900,
            salt: B256::ZERO,
        }
    }

    /// A channel that was charged so much, with a voucher for `claimable`.
    pub(crate) fn account(charged: u128, claimable: u128) -> Account {
        let voucher = TopUp { claimable: Amount(claimable), signature: Signature([0; 65]) };
        Account {
            channel: channel(),
            charged: Amount(charged),
            voucher,
            claimed: Amount(0),
            unseen: false,
            seen_at: 0,
            paid_out: Amount(0),
            leaving: false,
        }
    }

    fn state(balance: u128, claimed: u128, leaving: u128) -> ChannelState {
        let withdrawal = Withdrawal { amount: Amount(leaving), since: 1 };
        ChannelState {
            balance: Amount(balance),
            claimed: Amount(claimed),
            withdrawal: (leaving > 0).then_some(withdrawal),
        }
    }

    /// What is said of a channel that was changed.
    fn check_channel(change: impl Fn(&mut Channel), expected: &str) {
        let mut channel = channel();
        change(&mut channel);
        let said = accept_channel(&channel, key(1).address(), std::iter::empty(), &accepts());
        let said = said.map_or_else(|refusal| refusal.to_string(), |()| "taken".into());
        assert!(said.starts_with(expected), "{said}");
    }

    #[test]
    fn only_channels_that_pay_this_provider_are_taken() {
        check_channel(|_| (), "taken");
        check_channel(|channel| channel.payer = Address::ZERO, "taken");
        let zero = Address::ZERO;
        check_channel(|channel| channel.payer_authorizer = zero, "the channel's payer authorizer");
        check_channel(|channel| channel.receiver = zero, "the channel's receiver is");
        check_channel(|channel| channel.receiver_authorizer = zero, "the channel's receiver auth");
        check_channel(|channel| channel.token = zero, "the channel's token is");
        check_channel(
            |channel| channel.withdraw_delay = 899,
            "the channel's withdraw delay is 899 s, expected 900 to 2592000 s",
        );
        check_channel(|channel| channel.withdraw_delay = u64::MAX, "the channel's withdraw delay");
    }

    #[test]
    fn under_grants_a_channel_may_be_its_issuers() {
        let issuers = [key(2).address(), key(3).address()];
        let taken = |signer: u8| {
            let channel = Channel { payer_authorizer: key(signer).address(), ..channel() };
            accept_channel(&channel, key(1).address(), issuers.into_iter(), &accepts()).is_ok()
        };
        assert_eq!([1, 2, 3, 4].map(taken), [true, true, true, false]);
    }

    #[test]
    fn a_voucher_is_its_buyers_for_this_channel_on_this_chain() {
        let here = Channels { chain: ChainId(7), contract: Address::repeat_byte(1) };
        let id = channel().id(&here);
        let check = |signed: Signature, expected: &str| {
            let voucher = TopUp { claimable: Amount(10), signature: signed };
            let said = accept_voucher(&here, id, &voucher, key(1).address());
            let said = said.map_or_else(|refusal| refusal.to_string(), |()| "taken".into());
            assert!(said.starts_with(expected), "{said}");
        };
        let word = |channel, claimable| Voucher { channel, claimable: Amount(claimable) };
        check(word(id, 10).sign(&here, &key(1)), "taken");
        check(word(id, 10).sign(&here, &key(2)), "the voucher is signed by");
        check(word(id, 11).sign(&here, &key(1)), "the voucher is signed by");
        check(word(ChannelId::default(), 10).sign(&here, &key(1)), "the voucher is signed by");
        let elsewhere = Channels { chain: ChainId(8), ..here };
        check(word(id, 10).sign(&elsewhere, &key(1)), "the voucher is signed by");
        check(Signature([0; 65]), "voucher: signature ends in 0");
    }

    #[test]
    fn what_may_leave_backs_nothing() {
        for (held, expected) in [
            (state(100, 0, 0), 100),
            (state(100, 30, 0), 100),
            (state(100, 30, 20), 80),
            (state(100, 30, 100), 30),
            (state(100, 0, 500), 0),
            (state(0, 0, 0), 0),
        ] {
            assert_eq!(backing(&held), Amount(expected), "{held:?}");
        }
    }

    /// What is said of a voucher on a channel that was charged 10 and holds 100; the order costs 3.
    fn check_open(highest: Option<u128>, voucher: u128, backing: u128, expected: &str) {
        let said = Tab::open(
            Amount(10),
            highest.map(Amount),
            Amount(voucher),
            Amount(backing),
            Amount(4),
            Amount(3),
        );
        let said = said.map_or_else(|refusal| refusal.to_string(), |_| "opened".into());
        assert_eq!(said, expected);
    }

    #[test]
    fn a_tab_opens_when_the_prompt_is_paid() {
        check_open(Some(13), 13, 100, "opened");
        check_open(Some(9), 9, 100, "opened");
        check_open(None, 100, 100, "opened");
        check_open(Some(8), 8, 100, "the voucher allows 8 of the channel, expected at least 9");
        check_open(Some(14), 13, 100, "the voucher allows 13 of the channel, expected at least 14");
        check_open(Some(13), 101, 100, "the channel holds 100, the voucher allows 101");
        check_open(Some(9), 9, 12, "the channel holds 12, the voucher allows 13");
    }

    #[test]
    fn a_channel_that_holds_nothing_buys_nothing() {
        let said = Tab::open(Amount(0), None, Amount(0), Amount(0), Amount(4), Amount(3));
        assert_eq!(said, Err(Refusal::Deposit { found: Amount(0), expected: Amount(3) }));
    }

    #[test]
    fn a_deposit_counts_when_it_was_seen_twice_some_blocks_apart() {
        let mut backing = Backing::default();
        let mut see = |balance, height, expected| {
            backing.observe(&state(balance, 0, 0), height, 2);
            assert_eq!(backing.confirmed, Amount(expected), "height {height}");
        };
        see(100, 5, 0);
        see(100, 7, 0);
        see(100, 8, 100);
        see(150, 9, 100);
        // Another branch never had the second deposit, and later has it again.
        see(100, 8, 100);
        see(150, 10, 100);
        see(150, 13, 150);
        see(60, 14, 60);
    }

    proptest! {
        #[test]
        fn no_order_of_events_delivers_more_than_the_rule_allows(
            credit in 0u128..20,
            backing in 0u128..200,
            steps in proptest::collection::vec((0u8..4, 0u128..60), 1..60),
        ) {
            let mut backing = Amount(backing);
            let (mut charged, mut highest) = (0, None);
            for (kind, amount) in steps {
                if kind == 0 {
                    backing = Amount(amount * 4);
                    continue;
                }
                let voucher = Amount(highest.unwrap_or(0) + amount - amount.min(5));
                let known = highest.map(Amount);
                let tab = Tab::open(
                    Amount(charged), known, voucher, backing, Amount(credit), Amount(3),
                );
                let Ok(tab) = tab else { continue };
                prop_assert!(highest.is_none_or(|highest| voucher.0 >= highest));
                prop_assert!(voucher <= backing);
                highest = Some(voucher.0);
                let mut cost = 3;
                while tab.allows(Amount(cost + 2)).is_ok() && cost < amount * 3 {
                    cost += 2;
                }
                prop_assert!(charged + cost <= voucher.0 + credit);
                prop_assert!(charged + cost <= backing.0);
                charged += cost;
            }
        }

        #[test]
        fn belief_never_exceeds_what_is_there(
            confirmations in 0u64..4,
            seen in proptest::collection::vec((0u128..100, 0u128..100, 0u64..3), 1..40),
        ) {
            let (mut backed, mut height) = (Backing::default(), 10);
            for (balance, leaving, blocks) in seen {
                height += blocks;
                let held = state(balance, 0, leaving);
                backed.observe(&held, height, confirmations);
                prop_assert!(backed.confirmed <= backing(&held));
            }
        }
    }
}
