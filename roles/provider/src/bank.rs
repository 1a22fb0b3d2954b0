//! What a provider needs of a chain: what channels hold, and the ways to be paid from them.
//!
//! A seam, so that everything that decides about money can be tested against a bank that fails,
//! forgets deposits and lets payers leave at the worst time.

use assay_chain::{Chain, ChainError, ChannelState, Claim, Event, Span, Value};
use assay_protocol::{Address, Amount, B256, Channel, ChannelId};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// What a bank answers, in its own time.
pub type Asked<'a, T> = BoxFuture<'a, Result<T, ChainError>>;

/// A channel as the chain had it at some height or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What the channel holds.
    pub state: ChannelState,
    /// Height of the chain just before it was asked.
    pub height: u64,
}

/// The chain as a provider sees it: every question is one about its own money.
///
/// Nothing that is asked twice is done twice: claims are cumulative, releases move what is due,
/// and a period that does not follow the one before is refused by the contract.
pub trait Bank: std::fmt::Debug + Send + Sync {
    /// Height of the latest block.
    fn height(&self) -> Asked<'_, u64>;

    /// Time of the latest block, Unix seconds.
    fn time(&self) -> Asked<'_, u64>;

    /// Wei for a unit of gas.
    fn gas_price(&self) -> Asked<'_, u128>;

    /// What a channel holds; nothing for one that was never opened.
    fn channel(&self, id: ChannelId) -> Asked<'_, Reading>;

    /// Channels whose payers asked for money back in blocks `from` to `to`, both included.
    fn withdrawals(&self, from: u64, to: u64) -> Asked<'_, Vec<ChannelId>>;

    /// Whether `issuer` took the grant with this digest back.
    fn is_revoked(&self, issuer: Address, grant: B256) -> Asked<'_, bool>;

    /// Makes the till of `owner`, unless it exists.
    fn open_till(&self, owner: Address) -> Asked<'_, ()>;

    /// Records claims, in one transaction. Bad rows are skipped; fails only if none is good. Those that all
    /// have the same [`Claim::pack`] cost half the gas.
    fn claim<'a>(&'a self, claims: &'a [Claim]) -> Asked<'a, ()>;

    /// Divides what is due of channels that all pay `till`, and has the till see what is claimed: of all of
    /// them, or of none.
    fn release<'a>(&'a self, till: Address, channels: &'a [Channel]) -> Asked<'a, ()>;

    /// Up to which position of a channel `till` has paid everything to someone.
    fn paid_out(&self, till: Address, channel: ChannelId) -> Asked<'_, Amount>;

    /// Seconds between a position being covered and claimed, and its release.
    fn dispute_window(&self) -> Asked<'_, u64>;

    /// Posts `owner`'s next period.
    fn post<'a>(
        &'a self,
        owner: Address,
        root: B256,
        count: u64,
        spans: &'a [Span],
    ) -> Asked<'a, ()>;

    /// How many periods `owner` has posted.
    fn periods(&self, owner: Address) -> Asked<'_, u64>;

    /// Root of a posted period.
    fn period(&self, owner: Address, number: u64) -> Asked<'_, B256>;

    /// Up to which position of a channel `owner`'s receipts are posted.
    fn covered(&self, owner: Address, channel: ChannelId) -> Asked<'_, Amount>;
}

impl Bank for Chain {
    fn height(&self) -> Asked<'_, u64> {
        self.height().boxed()
    }

    fn time(&self) -> Asked<'_, u64> {
        self.client().time().boxed()
    }

    fn gas_price(&self) -> Asked<'_, u128> {
        self.client().gas_price().boxed()
    }

    fn channel(&self, id: ChannelId) -> Asked<'_, Reading> {
        async move {
            let height = self.height().await?;
            Ok(Reading { state: self.channel(id).await?, height })
        }
        .boxed()
    }

    fn withdrawals(&self, from: u64, to: u64) -> Asked<'_, Vec<ChannelId>> {
        async move {
            let happened = self.events(from, to).await?.into_iter();
            let started = happened.filter_map(|happened| match happened.event {
                Event::WithdrawalStarted { channel, .. } => Some(channel),
                _ => None,
            });
            Ok(started.collect())
        }
        .boxed()
    }

    fn is_revoked(&self, issuer: Address, grant: B256) -> Asked<'_, bool> {
        self.is_revoked(issuer, grant).boxed()
    }

    fn open_till(&self, owner: Address) -> Asked<'_, ()> {
        async move { self.open_till(owner).await.map(drop) }.boxed()
    }

    fn claim<'a>(&'a self, claims: &'a [Claim]) -> Asked<'a, ()> {
        let pack = claims.first().and_then(Claim::pack);
        let pack = pack.filter(|&pack| claims.iter().all(|claim| claim.pack() == Some(pack)));
        async move {
            let mined = match pack {
                Some(pack) => self.claim_packed(pack, claims).await,
                None => self.claim(claims).await,
            };
            mined.map(drop)
        }
        .boxed()
    }

    fn release<'a>(&'a self, till: Address, channels: &'a [Channel]) -> Asked<'a, ()> {
        async move { self.release_all(till, channels).await.map(drop) }.boxed()
    }

    fn paid_out(&self, till: Address, channel: ChannelId) -> Asked<'_, Amount> {
        self.paid_out(till, channel).boxed()
    }

    fn dispute_window(&self) -> Asked<'_, u64> {
        async move { Ok(self.value(Value::DisputeWindow).await?.saturating_to()) }.boxed()
    }

    fn post<'a>(
        &'a self,
        owner: Address,
        root: B256,
        count: u64,
        spans: &'a [Span],
    ) -> Asked<'a, ()> {
        async move { self.post(owner, root, count, spans).await.map(drop) }.boxed()
    }

    fn periods(&self, owner: Address) -> Asked<'_, u64> {
        self.periods(owner).boxed()
    }

    fn period(&self, owner: Address, number: u64) -> Asked<'_, B256> {
        async move { Ok(self.period(owner, number).await?.root) }.boxed()
    }

    fn covered(&self, owner: Address, channel: ChannelId) -> Asked<'_, Amount> {
        self.covered(owner, channel).boxed()
    }
}
