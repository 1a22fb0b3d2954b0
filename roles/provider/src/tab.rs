//! One order's payment while its answer runs: what may be delivered, what must be on disk first,
//! and what the buyer is told when it is to pay more.

use std::time::Duration;

use assay_protocol::wire::TopUp;
use assay_protocol::{Address, Amount, Channel};
use tokio::time::{Instant, sleep_until};

use crate::account::{Lack, Tab, accept_voucher};
use crate::body::{Heard, Lines};
use crate::grants::Hold;
use crate::lanes::{Lane, Lanes};
use crate::seal::{Progress, cost};
use crate::store::{self, Begun, Store, StoreError};

/// What pays for an order.
pub(crate) struct Paid {
    pub(crate) lanes: Lanes,
    pub(crate) lane: Lane,
    pub(crate) channel: Channel,
    pub(crate) voucher: TopUp,
    pub(crate) tab: Tab,
    /// Who signs vouchers: the channel's payer authorizer.
    pub(crate) signer: Address,
    /// Where top-ups come from.
    pub(crate) lines: Lines,
    /// What the order may cost of the grants that it comes under, until that is on disk.
    pub(crate) hold: Option<Hold>,
    /// A voucher for more than the channel is known to hold.
    pub(crate) held: Option<TopUp>,
    /// Until when a top-up is waited for, and the number of tokens at which it was asked for.
    pub(crate) paused: Option<(Instant, u32)>,
    /// Tokens on disk.
    pub(crate) durable: u32,
}

/// What happened about the money.
pub(crate) enum Moved {
    /// Look again at what may be delivered.
    Changed,
    /// The buyer hung up, or its time to pay is over, or its money is going away.
    Over,
}

/// What comes next.
pub(crate) enum Next {
    /// The next token may go out.
    Deliver,
    /// It waits for a voucher.
    Wait,
    /// It waits, and the buyer is to be told how much a voucher must allow.
    Ask(Amount),
    /// It will never go out.
    Stop,
}

impl Paid {
    /// Puts the voucher on disk, that its order began, and what it may cost of its grants: before this,
    /// nothing is delivered.
    pub(crate) async fn begin(&mut self, begun: &Begun, store: &Store) -> Result<(), StoreError> {
        let (begun, channel, voucher) = (begun.clone(), self.channel.clone(), self.voucher);
        store.write(move |write| store::begin(write, &begun, &channel, voucher)).await?;
        self.hold = None;
        Ok(())
    }

    /// Whether the token after `tokens` may be delivered.
    pub(crate) fn allows(&self, begun: &Begun, tokens: u32) -> Result<(), Lack> {
        self.tab.allows(cost(begun, tokens.saturating_add(1)))
    }

    /// What to do about the token after `tokens`. Asks once for each token that has to wait.
    pub(crate) fn next(&mut self, begun: &Begun, tokens: u32, wait_max: Duration) -> Next {
        let Err(lack) = self.allows(begun, tokens) else {
            self.paused = None;
            return Next::Deliver;
        };
        if lack == Lack::Backing && self.tab.backing < self.tab.claimable {
            // Money that was there when the voucher was taken is going away.
            return Next::Stop;
        }
        if self.paused.is_some_and(|(_, asked)| asked == tokens) {
            return if self.lines.ended() && self.held.is_none() { Next::Stop } else { Next::Wait };
        }
        self.paused = Some((Instant::now() + wait_max, tokens));
        Next::Ask(self.tab.due(cost(begun, begun.tokens_max)))
    }

    /// Makes what was answered durable if more than the credit would be lost with it.
    pub(crate) async fn checkpoint(
        &mut self,
        begun: &Begun,
        progress: &Progress,
        store: &Store,
    ) -> Result<(), StoreError> {
        let (tokens, durable) = (progress.tokens(), self.durable);
        // Of what has no token on disk, nothing is charged after a crash, the prompt included.
        let safe = if durable == 0 { 0 } else { cost(begun, durable).0 };
        let at_risk = cost(begun, tokens).0.saturating_sub(safe);
        if at_risk <= self.tab.credit.0 {
            return Ok(());
        }
        let (order, from) = (begun.order, durable as usize);
        let (output, states) = (progress.output[from..].to_vec(), progress.states[from..].to_vec());
        store
            .write(move |write| store::checkpoint(write, order, durable, &output, &states))
            .await?;
        self.durable = tokens;
        Ok(())
    }

    /// Waits until something happens about the money. May be dropped at any time.
    pub(crate) async fn moved(&mut self) -> Event {
        let late = async {
            match self.paused {
                Some((until, _)) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            changed = self.lane.backing.changed() => match changed {
                Ok(()) => Event::Backing(self.lane.backing.borrow_and_update().confirmed),
                Err(_) => Event::Late,
            },
            heard = self.lines.next() => Event::Heard(heard),
            () = late => Event::Late,
        }
    }

    /// Acts on what happened. A voucher is on disk before it counts.
    pub(crate) async fn act(
        &mut self,
        event: Event,
        begun: &Begun,
        store: &Store,
    ) -> Result<Moved, StoreError> {
        match event {
            Event::Late | Event::Heard(Heard::Broken) => return Ok(Moved::Over),
            Event::Heard(Heard::Ended) => {}
            Event::Heard(Heard::TopUp(voucher)) => self.hear(voucher, begun, store).await?,
            Event::Backing(backing) => {
                self.tab.backing = backing;
                if let Some(voucher) = self.held.take() {
                    self.hear(voucher, begun, store).await?;
                }
            }
        }
        Ok(Moved::Changed)
    }

    /// Takes a higher voucher, if the channel holds what it allows. One that is not needed costs no
    /// work; a forged one ends the talk.
    async fn hear(
        &mut self,
        voucher: TopUp,
        begun: &Begun,
        store: &Store,
    ) -> Result<(), StoreError> {
        let highest = cost(begun, begun.tokens_max);
        let enough = self.tab.due(highest) <= self.tab.claimable;
        if enough || voucher.claimable <= self.tab.claimable {
            return Ok(());
        }
        if voucher.claimable > self.tab.backing {
            // The deposit behind it may be on its way.
            self.held = Some(voucher);
            self.lane.want();
            return Ok(());
        }
        let channels = self.lanes.channels();
        if let Err(refusal) = accept_voucher(channels, self.lane.id, &voucher, self.signer) {
            tracing::info!(order = %begun.order, %refusal, "a top-up is refused");
            self.lines.close();
            return Ok(());
        }
        let id = self.lane.id;
        store
            .write(move |write| store::update(write, id, |account| account.raise(voucher)))
            .await?;
        self.voucher = voucher;
        self.tab.claimable = voucher.claimable;
        Ok(())
    }
}

/// What can happen about the money.
pub(crate) enum Event {
    /// The buyer said something.
    Heard(Heard),
    /// This much of the channel's money is believed now.
    Backing(Amount),
    /// The wait for a top-up is over.
    Late,
}
