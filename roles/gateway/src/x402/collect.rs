//! Brings home what vouchers allow: claims in batches, then the sweep to whoever is paid.
//!
//! Nothing waits for this but money. A claim is due when it is worth its gas, when it has waited long, or
//! at once when a payer begins to withdraw: what is not claimed when a withdrawal ends is lost. A withdrawal
//! is seen only by looking, so the chain is asked for each channel that owes anything a few times within the
//! withdraw delay; an outage of the chain's RPC costs nothing by itself.
//!
//! However many channels owe, they are read page by page and only the most urgent are held in memory:
//! those whose payers leave, then the largest, then the oldest. What is left over follows at once.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use assay_chain::Claim;
use assay_protocol::{Amount, ChannelId};

use super::batch::Account;
use super::facilitator::Facilitator;
use super::fault::Fault;
use super::rail::RailError;
use crate::http::now_s;

/// Accounts read at once.
const PAGE_ROWS: usize = 1_000;

/// Channels that one pass over all accounts claims from.
const PASS_ROWS: usize = 1_000;

/// Channels in a row that cannot be looked at before a pass gives up: the chain is silent.
const UNSEEN_MAX: usize = 8;

/// How often within the withdraw delay a channel that owes anything is looked at.
const LOOKS: u64 = 4;

/// Seconds for which a channel whose claim was refused is left alone.
const REFUSED_S: u64 = 600;

/// Refused channels that are remembered.
const REFUSED_MAX: usize = 10_000;

/// Bodies of replies kept for retries. That they were paid is known as long as they would have been.
const BODIES_MAX: u64 = 4_096;

/// Seconds between two looks for what can be forgotten.
const PRUNE_S: u64 = 60;

/// When claims are worth their gas.
#[derive(Clone, Copy, Debug)]
pub struct Collecting {
    /// Between two rounds. Must be far below the withdraw delay.
    pub every: Duration,
    /// A channel that owes this much is claimed from in the next round; base units.
    pub owed_min: Amount,
    /// A channel that owes anything for this long is, too.
    pub owed_wait_max: Duration,
    /// Channels in one transaction. A row takes about 25,000 gas.
    pub rows_max: usize,
}

impl Default for Collecting {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(60),
            owed_min: Amount(1_000_000_000_000_000_000),
            owed_wait_max: Duration::from_secs(24 * 3600),
            rows_max: 100,
        }
    }
}

/// Whether to claim from a channel at `now` (Unix seconds).
fn is_due(account: &Account, collecting: &Collecting, now: u64) -> bool {
    let owed = account.owed();
    let waited = account.owed_since.map_or(0, |since| now.saturating_sub(since));
    owed > Amount(0)
        && (account.withdrawal.is_some()
            || owed >= collecting.owed_min
            || waited >= collecting.owed_wait_max.as_secs())
}

/// Collects for ever. It may be dropped at any time: what is under way is found by the next round.
pub(crate) async fn collect(facilitator: &Facilitator, collecting: Collecting) {
    let mut collector = Collector::default();
    loop {
        tokio::time::sleep(collecting.every).await;
        match collector.round(facilitator, &collecting, now_s()).await {
            Ok(0) => {}
            Ok(claimed) => tracing::info!(claimed, "channels were claimed from"),
            Err(error) => {
                tracing::warn!(%error, "not all could be claimed; the next round tries again");
            }
        }
    }
}

/// What one round leaves to the next.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    /// Channels whose claims were refused, until when they are left alone (Unix seconds). One that is
    /// refused for ever would otherwise stand before all others.
    refused: HashMap<ChannelId, u64>,
    /// When it was last looked for what can be forgotten, Unix seconds.
    pruned: u64,
    /// Whether all that was claimed was swept. Not known at first: the claims may have been the last thing
    /// that was done before a stop.
    swept: bool,
}

/// How urgent a claim is; the last is the most.
type Urgency = (bool, Amount, Reverse<u64>, ChannelId);

/// The most urgent claims of a pass.
#[derive(Default)]
struct Due {
    claims: BTreeMap<Urgency, Claim>,
    /// Whether there were more.
    more: bool,
    /// Why some could not be looked at.
    unseen: Option<Fault>,
}

impl Due {
    fn add(&mut self, id: ChannelId, account: &Account) {
        let Some(claim) = account.claim() else { return };
        let since = account.owed_since.unwrap_or_default();
        let urgency = (account.withdrawal.is_some(), account.owed(), Reverse(since), id);
        self.claims.insert(urgency, claim);
        if self.claims.len() > PASS_ROWS {
            self.claims.pop_first();
            self.more = true;
        }
    }
}

impl Collector {
    /// Claims what is due, sweeps it, and forgets what nobody needs. Says from how many channels was claimed.
    pub(crate) async fn round(
        &mut self,
        facilitator: &Facilitator,
        collecting: &Collecting,
        now: u64,
    ) -> Result<usize, Fault> {
        if now.saturating_sub(self.pruned) >= PRUNE_S {
            self.pruned = now;
            // What could not be forgotten is no reason to leave money where it is.
            if let Err(error) = facilitator.journal.prune(now, BODIES_MAX).await {
                tracing::warn!(%error, "old replies and payments could not be forgotten");
            }
        }
        self.refused.retain(|_, until| *until > now);
        let (mut all, mut ended) = (0, Ok(()));
        loop {
            let due = self.due(facilitator, collecting, now).await?;
            let rows: Vec<_> = due.claims.into_iter().rev().map(|((.., id), c)| (id, c)).collect();
            let mut claimed = 0;
            for batch in rows.chunks(collecting.rows_max.max(1)) {
                match self.claim(facilitator, batch, now).await {
                    Ok(more) => claimed += more,
                    Err(fault) => {
                        ended = Err(fault);
                        break;
                    }
                }
            }
            all += claimed;
            if ended.is_ok() {
                ended = due.unseen.map_or(Ok(()), Err);
            }
            if !due.more || claimed == 0 || ended.is_err() {
                break;
            }
        }
        if !self.swept {
            let terms = &facilitator.terms;
            let swept = facilitator.rail.sweep(terms.pay_to, terms.token.address).await;
            swept.map_err(|error| Fault::Chain(error.to_string()))?;
            self.swept = true;
        }
        ended.map(|()| all)
    }

    /// The most urgent claims among all accounts.
    async fn due(
        &self,
        facilitator: &Facilitator,
        collecting: &Collecting,
        now: u64,
    ) -> Result<Due, Fault> {
        let look_s = facilitator.terms.withdraw_delay / LOOKS;
        let (mut due, mut after, mut blind) = (Due::default(), None, 0);
        loop {
            let page = facilitator.journal.accounts(after, PAGE_ROWS).await?;
            let last = page.last().map(|(id, _)| *id).filter(|_| page.len() == PAGE_ROWS);
            for (id, mut account) in page {
                if account.owed() == Amount(0) || self.refused.contains_key(&id) {
                    continue;
                }
                let old = now.saturating_sub(account.synced) >= look_s;
                if !old && !is_due(&account, collecting, now) {
                    continue;
                }
                match facilitator.sync(id, &account.channel, now).await {
                    Ok(synced) => (account, blind) = (synced, 0),
                    // One that cannot be seen does not keep the others waiting.
                    Err(error) => {
                        blind += 1;
                        due.unseen.get_or_insert(error);
                        if blind >= UNSEEN_MAX {
                            return Ok(due);
                        }
                        continue;
                    }
                }
                if is_due(&account, collecting, now) {
                    due.add(id, &account);
                }
            }
            let Some(last) = last else { return Ok(due) };
            after = Some(last);
        }
    }

    /// Claims one batch, in halves where the whole is refused.
    async fn claim(
        &mut self,
        facilitator: &Facilitator,
        rows: &[(ChannelId, Claim)],
        now: u64,
    ) -> Result<usize, Fault> {
        let mut todo = vec![rows];
        let mut claimed = 0;
        while let Some(rows) = todo.pop() {
            let claims: Vec<Claim> = rows.iter().map(|(_, claim)| claim.clone()).collect();
            match facilitator.rail.claim(&claims).await {
                Ok(_) => {
                    self.swept = false;
                    for (id, claim) in rows {
                        let account = facilitator.sync(*id, &claim.channel, now).await?;
                        claimed += usize::from(account.claimed >= claim.claimed);
                    }
                }
                Err(RailError::Refused(reason)) => match rows {
                    [] => {}
                    [(id, _)] => self.refuse(*id, &reason, now),
                    _ => {
                        let (left, right) = rows.split_at(rows.len() / 2);
                        todo.extend([right, left]);
                    }
                },
                Err(RailError::Unknown(reason)) => {
                    // It may have gone through.
                    self.swept = false;
                    return Err(Fault::Chain(reason));
                }
            }
        }
        Ok(claimed)
    }

    fn refuse(&mut self, id: ChannelId, reason: &str, now: u64) {
        tracing::error!(channel = %id, reason, "a claim was refused");
        if self.refused.len() < REFUSED_MAX {
            self.refused.insert(id, now.saturating_add(REFUSED_S));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::paper::{self, NOW};
    use super::*;
    use assay_chain::ChannelState;

    /// An account that owes `owed` since `since`.
    fn account(owed: u128, since: u64) -> Account {
        let state = ChannelState { balance: Amount(1000), ..ChannelState::default() };
        let mut account = Account::new(paper::channel(&paper::payer()), &state, 0, NOW);
        account.charged = Amount(owed);
        account.owed_since = Some(since);
        account
    }

    fn check(account: &Account, expected: bool) {
        let collecting = Collecting {
            owed_min: Amount(100),
            owed_wait_max: Duration::from_secs(50),
            ..Collecting::default()
        };
        assert_eq!(is_due(account, &collecting, NOW), expected);
    }

    #[test]
    fn a_claim_waits_until_it_is_worth_it() {
        check(&account(99, NOW), false);
        check(&account(100, NOW), true);
        check(&account(1, NOW - 49), false);
        check(&account(1, NOW - 50), true);
    }

    #[test]
    fn a_withdrawal_is_answered_at_once() {
        let mut account = account(1, NOW);
        account.withdrawal = Some((Amount(1), NOW));
        check(&account, true);
        account.charged = Amount(0);
        check(&account, false);
    }

    #[tokio::test]
    async fn a_row_that_breaks_its_batch_costs_the_others_nothing() {
        let (facilitator, paper) = paper::facilitator().await;
        for byte in 1..=5 {
            paper.owe(&facilitator, byte, 200).await;
        }
        paper.poison(3);
        let collecting = Collecting { owed_min: Amount(100), ..Collecting::default() };
        assert_eq!(Collector::default().round(&facilitator, &collecting, NOW).await, Ok(4));
        assert_eq!(paper.swept(), Amount(4 * 200));
        // The next round has only the bad row left.
        assert_eq!(Collector::default().round(&facilitator, &collecting, NOW).await, Ok(0));
    }

    #[tokio::test]
    async fn all_channels_are_seen_however_many_owe() {
        let (facilitator, paper) = paper::facilitator().await;
        let count = PAGE_ROWS + PASS_ROWS + 7;
        let account = account(1, NOW);
        let rows: Vec<_> = (0..count).map(|salt| paper.channel_number(salt)).collect();
        let filled = facilitator.journal.write(move |kept| {
            for (id, channel, signature) in rows {
                let mut account = account.clone();
                (account.channel, account.signature) = (channel, Some(signature));
                account.claimable = Amount(1);
                kept.keep_account(id, account)?;
            }
            Ok(())
        });
        filled.await.unwrap();
        let collecting = Collecting { owed_min: Amount(1), rows_max: 500, ..Collecting::default() };
        let claimed = Collector::default().round(&facilitator, &collecting, NOW).await;
        assert_eq!((claimed, paper.swept()), (Ok(count), Amount(count as u128)));
    }

    #[test]
    fn who_leaves_is_first_and_then_the_largest_and_oldest() {
        let mut due = Due::default();
        let mut add = |byte, account: &Account| {
            let mut account = account.clone();
            account.signature = Some(assay_protocol::Signature([0; 65]));
            due.add(ChannelId(assay_protocol::B256::repeat_byte(byte)), &account);
        };
        let mut leaving = account(1, NOW);
        leaving.withdrawal = Some((Amount(1), NOW));
        add(4, &account(5, NOW));
        add(1, &leaving);
        add(3, &account(5, NOW - 9));
        add(2, &account(9, NOW));
        let order: Vec<_> = due.claims.keys().rev().map(|(.., id)| id.0.0[0]).collect();
        assert_eq!(order, [1, 2, 3, 4]);
    }

    #[tokio::test]
    async fn an_outage_delays_and_loses_nothing() {
        let (facilitator, paper) = paper::facilitator().await;
        paper.owe(&facilitator, 1, 200).await;
        let collecting = Collecting { owed_min: Amount(100), ..Collecting::default() };
        paper.silence(true);
        assert!(matches!(
            Collector::default().round(&facilitator, &collecting, NOW).await,
            Err(Fault::Chain(_))
        ));
        paper.silence(false);
        assert_eq!(Collector::default().round(&facilitator, &collecting, NOW).await, Ok(1));
        assert_eq!(paper.swept(), Amount(200));
    }

    #[tokio::test]
    async fn a_sweep_that_failed_is_repeated() {
        let (facilitator, paper) = paper::facilitator().await;
        paper.owe(&facilitator, 1, 200).await;
        let collecting = Collecting { owed_min: Amount(100), ..Collecting::default() };
        let mut collector = Collector::default();
        paper.refuse_sweeps(true);
        let failed = collector.round(&facilitator, &collecting, NOW).await;
        assert!(matches!(failed, Err(Fault::Chain(_))), "{failed:?}");
        paper.refuse_sweeps(false);
        assert_eq!(collector.round(&facilitator, &collecting, NOW).await, Ok(0));
        assert_eq!(paper.swept(), Amount(200));
        // Once is enough.
        let sent = paper.sent();
        assert_eq!(collector.round(&facilitator, &collecting, NOW).await, Ok(0));
        assert_eq!(paper.sent(), sent);
    }

    #[tokio::test]
    async fn what_was_claimed_before_a_stop_is_swept_after_it() {
        let (facilitator, paper) = paper::facilitator().await;
        paper.owe(&facilitator, 1, 200).await;
        let collecting = Collecting { owed_min: Amount(100), ..Collecting::default() };
        paper.refuse_sweeps(true);
        assert!(Collector::default().round(&facilitator, &collecting, NOW).await.is_err());
        paper.refuse_sweeps(false);
        assert_eq!(Collector::default().round(&facilitator, &collecting, NOW).await, Ok(0));
        assert_eq!(paper.swept(), Amount(200));
    }
}
