//! Brings home what vouchers allow: claims in batches, then the sweep to whoever is paid.
//!
//! Nothing waits for this but money. A claim is due when it is worth its gas, when it has waited long, or
//! at once when a payer begins to withdraw: what is not claimed when a withdrawal ends is lost. Rounds come
//! many times within the shortest withdraw delay, so an outage of the chain's RPC costs nothing by itself.

use std::time::Duration;

use assay_chain::Claim;
use assay_protocol::{Amount, Channel, ChannelId};

use super::batch::Account;
use super::facilitator::Facilitator;
use super::fault::Fault;
use super::rail::RailError;
use crate::http::now_s;

/// Accounts looked at in one round.
const ACCOUNTS_MAX: usize = 10_000;

/// Replies kept for retries.
const REPLIES_MAX: usize = 4_096;

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
    loop {
        tokio::time::sleep(collecting.every).await;
        match round(facilitator, &collecting, now_s()).await {
            Ok(0) => {}
            Ok(claimed) => tracing::info!(claimed, "channels were claimed from"),
            Err(error) => {
                tracing::warn!(%error, "not all could be claimed; the next round tries again");
            }
        }
    }
}

/// Claims what is due, sweeps it, and forgets what nobody needs. Says from how many channels was claimed.
pub(crate) async fn round(
    facilitator: &Facilitator,
    collecting: &Collecting,
    now: u64,
) -> Result<usize, Fault> {
    // What could not be forgotten is no reason to leave money where it is.
    if let Err(error) = facilitator.journal.prune(now, REPLIES_MAX).await {
        tracing::warn!(%error, "old replies and payments could not be forgotten");
    }
    let owing = facilitator.journal.accounts(None, ACCOUNTS_MAX);
    let (mut due, mut unseen) = (Vec::new(), None);
    for (id, account) in owing.await? {
        // A withdrawal is seen only by looking.
        let account = match facilitator.sync(id, &account.channel, now).await {
            Ok(account) => account,
            // One that cannot be seen does not keep the others waiting.
            Err(error) => {
                unseen.get_or_insert(error);
                continue;
            }
        };
        if is_due(&account, collecting, now) {
            due.push((id, account));
        }
    }
    // The largest first: should the chain fail midway, the most is home.
    due.sort_by_key(|(_, account)| std::cmp::Reverse(account.owed()));
    let rows: Vec<_> = due.iter().filter_map(|(id, a)| Some((*id, a.claim()?))).collect();
    let mut claimed = 0;
    for batch in rows.chunks(collecting.rows_max.max(1)) {
        claimed += claim(facilitator, batch, now).await?;
    }
    if claimed > 0 {
        let terms = &facilitator.terms;
        let swept = facilitator.rail.sweep(terms.pay_to, terms.token.address).await;
        swept.map_err(|error| Fault::Chain(error.to_string()))?;
    }
    unseen.map_or(Ok(claimed), Err)
}

/// Claims one batch, in halves where the whole is refused.
async fn claim(
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
                for (id, claim) in rows {
                    let channel: &Channel = &claim.channel;
                    let account = facilitator.sync(*id, channel, now).await?;
                    claimed += usize::from(account.claimed >= claim.claimed);
                }
            }
            Err(RailError::Refused(reason)) => match rows {
                [] => {}
                [(id, _)] => tracing::error!(channel = %id, reason, "a claim was refused"),
                _ => {
                    let (left, right) = rows.split_at(rows.len() / 2);
                    todo.extend([right, left]);
                }
            },
            Err(RailError::Unknown(reason)) => return Err(Fault::Chain(reason)),
        }
    }
    Ok(claimed)
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
        assert_eq!(round(&facilitator, &collecting, NOW).await, Ok(4));
        assert_eq!(paper.swept(), Amount(4 * 200));
        // The next round has only the bad row left.
        assert_eq!(round(&facilitator, &collecting, NOW).await, Ok(0));
    }

    #[tokio::test]
    async fn an_outage_delays_and_loses_nothing() {
        let (facilitator, paper) = paper::facilitator().await;
        paper.owe(&facilitator, 1, 200).await;
        let collecting = Collecting { owed_min: Amount(100), ..Collecting::default() };
        paper.silence(true);
        assert!(matches!(round(&facilitator, &collecting, NOW).await, Err(Fault::Chain(_))));
        paper.silence(false);
        assert_eq!(round(&facilitator, &collecting, NOW).await, Ok(1));
        assert_eq!(paper.swept(), Amount(200));
    }
}
