//! What follows from what was found: false receipts are disputed, hidden ones asked for on the chain, where
//! silence costs the stake, and right verdicts paid. Each step looks at the chain first, so none is done twice.

use std::sync::Arc;

use assay_chain::{
    ChainError, Duty, Event as OnChain, Mined, Move, Posted, PostedAt, Production, Stage, Verdict,
};
use assay_protocol::{Amount, B256, U256, keccak256};

use super::page::{Found, Page, Task};
use super::{AuditError, Desk, Done, Happening, Now, PATIENCE};
use crate::challenge::{Challenge, ChallengeError, Ending};

/// Disputes played at once; each holds a trace.
const DISPUTES_MAX: usize = 2;
/// Refusals after which a dispute is left alone until the next epoch.
const REFUSALS_MAX: u32 = 3;
/// Verdicts paid in one transaction.
const PAYS_MAX: usize = 32;
/// Blocks asked about at once: nodes refuse more.
const BLOCKS_MAX: u64 = 1000;

/// What is to be done about a receipt.
enum Due {
    /// Nothing any more.
    Close,
    /// Something, later.
    Wait,
    Dispute(Posted),
    /// Have it published, or its provider convicted.
    Produce,
    Pay(Posted),
}

impl Desk {
    /// Does what follows from what was found.
    pub(super) async fn follow(&mut self, now: Now) -> Result<(), AuditError> {
        let mut pays = Vec::new();
        let pages: Vec<Page> = self.book.pages.values().cloned().collect();
        for page in &pages {
            for task in page.drawn() {
                if self.busy.contains(&task.at) {
                    continue;
                }
                match due(page, task, now.seen) {
                    Due::Wait => {}
                    Due::Close => self.close(page.epoch, &task.at)?,
                    Due::Dispute(posted) => self.dispute(page.epoch, posted, now)?,
                    Due::Produce => self.produce(page.epoch, task.at, now).await?,
                    Due::Pay(posted) => pays.push((page.epoch, posted)),
                }
            }
        }
        pays.truncate(PAYS_MAX);
        self.pay(&pays).await
    }

    fn close(&mut self, epoch: u64, at: &PostedAt) -> Result<(), AuditError> {
        let task = self.book.pages.get_mut(&epoch).and_then(|page| page.task(at));
        if task.is_some_and(|task| !task.closed) {
            let at = *at;
            self.book.change(epoch, |page| {
                page.task(&at).into_iter().for_each(|task| task.closed = true);
            })?;
        }
        Ok(())
    }

    /// Forgets the pages on which nothing is left.
    pub(super) fn turn_over(&mut self, now: Now) -> Result<(), AuditError> {
        let over = |page: &&Page| {
            let told = page.list_revealed || page.drawn().is_empty() || page.epoch + 4 <= now.seen;
            let idle = match &page.tasks {
                Some(tasks) => {
                    let held = page.vows_kept && page.others.is_empty();
                    told && held && tasks.iter().all(|task| task.closed && task.other.is_none())
                }
                None => false,
            };
            let unused = !page.committed && page.epoch + 1 < now.seen;
            idle || unused || page.epoch + PATIENCE < now.seen
        };
        let over: Vec<Page> = self.book.pages.values().filter(over).cloned().collect();
        for page in over {
            for posted in page.drawn().iter().filter_map(|task| task.posted.as_ref()) {
                self.book.drop_answer(posted.receipt)?;
            }
            self.book.close(page.epoch)?;
        }
        Ok(())
    }

    /// Disputes a false receipt, in a task of its own; once an epoch if that fails.
    fn dispute(&mut self, epoch: u64, posted: Posted, now: Now) -> Result<(), AuditError> {
        let at = posted.place;
        let tried = self.tried.get(&at) == Some(&now.epoch);
        if tried || self.disputing.len() >= DISPUTES_MAX {
            return Ok(());
        }
        let Some(answer) = self.book.answer_of(posted.receipt)? else {
            return Ok(self.book.change(epoch, |page| {
                page.task(&at).into_iter().for_each(|task| task.disputed = true);
            })?);
        };
        self.tried.insert(at, now.epoch);
        self.busy.insert(at);
        self.disputing.insert(at);
        self.tell(Happening::Disputes { at });
        let (chain, bench, config) =
            (self.chain.clone(), Arc::clone(&self.bench), self.auditing.disputes);
        self.work.spawn(async move {
            let (shelf, model) = (Arc::clone(&bench.shelf), answer.order.model);
            let loaded = tokio::task::spawn_blocking(move || shelf.model(model)).await;
            let ending = match loaded {
                Ok(Some(loaded)) => {
                    let cpu = Arc::clone(&bench.cpu);
                    play(&Challenge { chain, loaded, cpu, answer, other: None, config }).await
                }
                _ => Err(ChallengeError::Broken(format!("model {model} is not here any more"))),
            };
            Done::Disputed { epoch, at, ending: Box::new(ending) }
        });
        Ok(())
    }

    /// Keeps how a dispute ended.
    pub(super) fn disputed(
        &mut self,
        epoch: u64,
        at: PostedAt,
        ending: Result<Ending, ChallengeError>,
    ) -> Result<(), AuditError> {
        self.disputing.remove(&at);
        match ending {
            Ok(Ending::Convicted { spoils, .. }) => {
                let mine = spoils.rewarded == self.auditor;
                let reward = if mine { spoils.reward } else { Amount(0) };
                self.book.count(|totals| {
                    totals.convictions += 1;
                    totals.rewards = Amount(totals.rewards.0.saturating_add(reward.0));
                })?;
                self.tell(Happening::Convicted { at, slashed: spoils.slashed, reward });
            }
            Ok(Ending::Lost { bond, .. }) => {
                let reason = format!("the dispute was lost, and its bond of {bond} base units");
                self.tell(Happening::NotConvicted { at, reason });
            }
            Ok(Ending::Canary) => {
                let reason = "it is a canary, whose prize has who disputed it first".to_owned();
                self.tell(Happening::NotConvicted { at, reason });
            }
            Ok(Ending::True) => {
                let reason = "it is not disputable any more".to_owned();
                self.tell(Happening::NotConvicted { at, reason });
            }
            Err(error) => {
                let reason = error.to_string();
                self.tell(Happening::Failed { what: "a dispute", reason });
                return Ok(());
            }
        }
        Ok(self.book.change(epoch, |page| {
            page.task(&at).into_iter().for_each(|task| task.disputed = true);
        })?)
    }

    /// Has a hidden receipt published, or its provider convicted, by one step.
    async fn produce(&mut self, epoch: u64, at: PostedAt, now: Now) -> Result<(), AuditError> {
        match self.chain.production(&at).await? {
            None if now.epoch <= epoch + 3 => {
                if self.tried.insert(at, now.epoch) == Some(now.epoch) {
                    return Ok(());
                }
                let bond = self.terms.production_bond;
                match self.chain.produce(&at).await {
                    Ok(_) => self.tell(Happening::Asked { at, bond }),
                    // The other auditor was faster, or there is too little ASY here.
                    Err(ChainError::Refused(refusal)) => {
                        let what = "a question on the chain";
                        self.tell(Happening::Failed { what, reason: refusal.reason });
                    }
                    Err(error) => return Err(error.into()),
                }
                Ok(())
            }
            None => self.close(epoch, &at),
            Some(Production { stage: Stage::Asked | Stage::Supplying, asked, .. }) => {
                if now.time > asked.saturating_add(self.terms.production_clock) {
                    unless_done(self.chain.time_out_production(&at).await)?;
                }
                Ok(())
            }
            Some(Production { stage: Stage::Forfeited, asked, auditor, .. }) => {
                let since = (auditor == self.auditor).then_some(asked);
                self.convict(epoch, at, since).await
            }
            Some(Production { stage: Stage::Answered, asked, .. }) => {
                let from = self.chain.block_since(asked).await?;
                let published = self.chain.published_of(&at, from).await?;
                let Some((filing, proof)) = published.shown else {
                    return self.close(epoch, &at);
                };
                self.tell(Happening::Published { at });
                self.busy.insert(at);
                let bench = Arc::clone(&self.bench);
                self.work.spawn(async move {
                    let shown = (*filing, proof);
                    let judged = bench.judge_published(&at, shown, &published.tokens).await;
                    Done::Judged { epoch, at, judged: Ok(judged) }
                });
                Ok(())
            }
        }
    }

    /// Convicts a provider that was silent, and has its stake slashed. The reward is whose question it did not
    /// answer: this auditor's, if it asked at `since`.
    async fn convict(
        &mut self,
        epoch: u64,
        at: PostedAt,
        since: Option<u64>,
    ) -> Result<(), AuditError> {
        let key = key(&at);
        let case = self.chain.case(key).await?;
        let PostedAt { provider, period, index } = at;
        if !case.is_some_and(|case| case.punished) {
            let mut moves = Vec::new();
            if !case.is_some_and(|case| case.guilty) {
                self.tell(Happening::Silent { at });
                moves.push(Move::Withhold { provider, period, index });
            }
            moves.push(Move::Punish { receipt: key });
            // The other auditor may be faster; the next round sees what came of it.
            unless_done(self.chain.play(&moves).await)?;
            return Ok(());
        }
        let slashed = match since {
            Some(since) => self.slashed(key, since).await?,
            None => None,
        };
        if let Some((slashed, reward)) = slashed {
            self.book.count(|totals| {
                totals.convictions += 1;
                totals.rewards = Amount(totals.rewards.0.saturating_add(reward.0));
            })?;
            self.tell(Happening::Convicted { at, slashed, reward });
        }
        self.close(epoch, &at)
    }

    /// What was slashed since a time for what has this name, and of it the reward.
    async fn slashed(
        &self,
        name: B256,
        since: u64,
    ) -> Result<Option<(Amount, Amount)>, ChainError> {
        let (mut next, height) = (self.chain.block_since(since).await?, self.chain.height().await?);
        while next <= height {
            let to = height.min(next + BLOCKS_MAX - 1);
            for happened in self.chain.events(next, to).await? {
                match happened.event {
                    OnChain::Slashed { amount, reward, reason, .. } if reason == name => {
                        return Ok(Some((amount, reward)));
                    }
                    _ => {}
                }
            }
            next = to + 1;
        }
        Ok(None)
    }

    /// Has verdicts paid, together, or one by one if one of them is not.
    async fn pay(&mut self, pays: &[(u64, Posted)]) -> Result<(), AuditError> {
        let auditor = self.auditor;
        let duty = |posted: &Posted| Duty::Pay { auditor, about: posted.clone() };
        let all: Vec<Duty> = pays.iter().map(|(_, posted)| duty(posted)).collect();
        if all.is_empty() {
            return Ok(());
        }
        let together = unless_done(self.chain.attend(&all).await)?.is_some();
        for (epoch, posted) in pays {
            let at = posted.place;
            let paid = match together {
                true => Ok(()),
                false => match self.chain.attend(&[duty(posted)]).await {
                    Ok(_) => Ok(()),
                    Err(ChainError::Refused(refusal)) => Err(refusal.reason),
                    Err(error) => return Err(error.into()),
                },
            };
            match paid {
                Ok(()) => {
                    let fee = self.terms.fee;
                    self.book.count(|totals| {
                        totals.fees = Amount(totals.fees.0.saturating_add(fee.0));
                    })?;
                    self.tell(Happening::Paid { at, fee });
                }
                Err(reason) => self.tell(Happening::Unpaid { at, reason }),
            }
            self.close(*epoch, &at)?;
        }
        Ok(())
    }
}

/// What is to be done about a task; `seen` is the epoch of the latest block.
fn due(page: &Page, task: &Task, seen: u64) -> Due {
    if task.closed {
        return Due::Wait;
    }
    let ended = page.epoch + 4 <= seen;
    let paid = |verdict| match &task.posted {
        Some(posted) if page.said(&task.at) == Some(verdict) => match ended && page.list_revealed {
            true => Due::Pay(posted.clone()),
            false if ended => Due::Close,
            false => Due::Wait,
        },
        // Nothing was said before the list was fixed, or it will be.
        _ if page.list.is_none() && !ended => Due::Wait,
        _ => Due::Close,
    };
    match (&task.found, &task.posted) {
        (None, _) => Due::Wait,
        (Some(Found::True), _) => paid(Verdict::True),
        (Some(Found::False { .. }), Some(posted)) if !task.disputed => Due::Dispute(posted.clone()),
        (Some(Found::False { .. }), _) => paid(Verdict::False),
        (Some(Found::Silent { .. }), _) => Due::Produce,
        (Some(Found::Unable { .. } | Found::Late), _) => Due::Close,
    }
}

/// Plays a dispute. A refusal may be about what another one of this account's took or somebody else decided in
/// the same moment: it is looked at again, a few times.
async fn play(challenge: &Challenge) -> Result<Ending, ChallengeError> {
    let mut refusals = 0;
    loop {
        match challenge.clone().run(|_| ()).await {
            Err(ChallengeError::Chain(ChainError::Refused(_))) if refusals < REFUSALS_MAX => {
                refusals += 1;
            }
            ended => return ended,
        }
    }
}

/// Under what a provider is convicted that was silent about a place.
fn key(at: &PostedAt) -> B256 {
    let mut words = [0; 96];
    words[12..32].copy_from_slice(at.provider.as_slice());
    words[32..64].copy_from_slice(&U256::from(at.period).to_be_bytes::<32>());
    words[64..].copy_from_slice(&U256::from(at.index).to_be_bytes::<32>());
    keccak256(words)
}

/// A transaction that somebody else may have made first; none if it is refused.
fn unless_done(sent: Result<Mined, ChainError>) -> Result<Option<Mined>, ChainError> {
    match sent {
        Ok(mined) => Ok(Some(mined)),
        Err(ChainError::Refused(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
