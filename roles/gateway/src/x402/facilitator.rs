//! Verifies payments against the chain, and settles them there.
//!
//! The door and the facilitator's endpoints share this code, so what one of them calls good the other
//! settles. A transfer is on disk before it is sent: whatever breaks after that, a later look finds out
//! whether it happened, and no payment is taken twice.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use assay_chain::{Authorization, DepositAuthorization};
use assay_protocol::{Amount, B256, Channel, ChannelId, U256};

use super::batch::{Account, Place, Signed};
use super::exact::{Transfer, in_time};
use super::fault::{Fault, unanswered};
use super::journal::{Journal, Paid, Payment, Pending};
use super::line::Line;
use super::rail::{Rail, RailError};
use super::reply::Names;
use super::terms::Terms;
use crate::http::now_s;

/// How long what the chain said of a channel is believed. A payer cannot take money out within its
/// withdraw delay, which is at least fifteen times as long.
const FRESH: Duration = Duration::from_secs(60);

/// Answers that one payment buys when its first ones are lost: a crash may take the answer after the
/// payment, and must not cost the buyer; a buyer who pretends so gets no more than this.
const ANSWERS_MAX: u32 = 3;

/// Seconds for which a payment is remembered beyond the time it is good for.
const REMEMBER_S: u64 = 3600;

/// Verifies and settles.
pub(crate) struct Facilitator {
    pub(crate) terms: Terms,
    pub(crate) place: Place,
    pub(crate) rail: Arc<dyn Rail>,
    pub(crate) journal: Journal,
    line: Line,
    /// Payments and channels that a request is working on.
    running: Arc<Mutex<HashSet<B256>>>,
}

/// Leave to work on one payment or channel; ends when dropped.
pub(crate) struct Turn {
    key: B256,
    running: Arc<Mutex<HashSet<B256>>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl Facilitator {
    pub(crate) fn new(terms: Terms, rail: Arc<dyn Rail>, journal: Journal) -> Self {
        let place = Place {
            channels: rail.channels(),
            collector: rail.collector(),
            authorizer: rail.account(),
        };
        let line = Line::default();
        Self { terms, place, rail, journal, line, running: Arc::default() }
    }

    /// Leave to work on `key`, if nobody does.
    pub(crate) fn turn(&self, key: B256) -> Result<Turn, Fault> {
        let running = Arc::clone(&self.running);
        let free = running.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        if free { Ok(Turn { key, running }) } else { Err(Fault::Busy) }
    }

    /// Whether a transfer would go through now: the payer has the money, and the nonce is unused.
    pub(crate) async fn verify(&self, transfer: &Transfer) -> Result<(), Fault> {
        let token = self.terms.token.address;
        let (payer, nonce) = (transfer.payer(), transfer.authorization.nonce);
        let used = self.rail.is_used(token, payer, nonce);
        let held = self.rail.balance(token, payer);
        let (used, found) = futures_util::future::try_join(used, held).await.map_err(unanswered)?;
        if used {
            return Err(Fault::Used);
        }
        // Gas is ours, so a transfer of next to nothing is not brought to the chain for anybody.
        let (amount, least) = (transfer.amount(), self.terms.settle_min.max(Amount(1)));
        if amount < least {
            return Err(Fault::Small { found: amount, expected: least });
        }
        let expected = amount;
        if found < expected { Err(Fault::Balance { found, expected }) } else { Ok(()) }
    }

    /// What is known of a payment for `request`.
    ///
    /// # Errors
    /// If it paid for something else, or its answer was begun often enough.
    pub(crate) async fn progress(
        &self,
        transfer: &Transfer,
        request: B256,
    ) -> Result<Progress, Fault> {
        let token = self.terms.token.address;
        let Some(payment) = self.journal.payment(transfer.key(token)).await? else {
            return Ok(Progress::New);
        };
        if payment.request != request {
            return Err(Fault::Used);
        }
        if let Some(reply) = payment.reply {
            return Ok(Progress::Answered(reply));
        }
        if payment.answers >= ANSWERS_MAX {
            return Err(Fault::Used);
        }
        let transaction = match payment.transaction {
            Some(transaction) => Some(transaction),
            // It was sent, and nobody heard what became of it.
            None => self.rail.find(token, &transfer.authorization).await.map_err(unanswered)?,
        };
        Ok(transaction.map_or(Progress::New, Progress::Settled))
    }

    /// The transfer that a named payment is made by: the first one that came under its name if that was
    /// or can still be settled, or else `transfer`. So whoever signs anew because a crash took the reply
    /// does not pay anew.
    pub(crate) async fn first(
        &self,
        first: Transfer,
        transfer: Transfer,
        names: Names,
    ) -> Result<Transfer, Fault> {
        if first == transfer || self.progress(&first, names.request).await? != Progress::New {
            return Ok(first);
        }
        let good = in_time(U256::ZERO, first.authorization.valid_before, now_s());
        let good = match good {
            Ok(()) => self.verify(&first).await,
            Err(fault) => Err(fault),
        };
        match good {
            Ok(()) => Ok(first),
            Err(fault) if fault.is_passing() => Err(fault),
            // It was not settled, and never will be.
            Err(_) => {
                self.forget(&first, names).await?;
                Ok(transfer)
            }
        }
    }

    /// Moves the money for `names`' request, unless `known` says that it was. On return the payment is on
    /// disk, and so is its client's name for it.
    pub(crate) async fn settle(
        &self,
        transfer: &Transfer,
        names: Names,
        known: Option<B256>,
    ) -> Result<B256, Fault> {
        let key = transfer.key(self.terms.token.address);
        let answers = self.journal.payment(key).await?.map_or(0, |payment| payment.answers);
        // After that its nonce, which is used on the chain, speaks for itself.
        let soon = now_s().saturating_add(self.terms.timeout.as_secs());
        let until = transfer.authorization.valid_before.saturating_to::<u64>().min(soon);
        let until = until.saturating_add(REMEMBER_S);
        let request = names.request;
        let mut payment = Payment { request, transaction: known, answers, reply: None, until };
        let pending = names.chosen.then(|| Pending {
            request,
            payer: transfer.payer(),
            paid: Paid::Transfer(transfer.into()),
            until,
        });
        let name = names.payment;
        if known.is_none() {
            let _leave = self.line.stand(transfer.payer(), Instant::now())?;
            self.keep(key, payment.clone(), name, pending.clone()).await?;
            payment.transaction = Some(self.transfer(transfer, names).await?);
        }
        payment.answers += 1;
        let transaction = payment.transaction.unwrap_or_default();
        self.keep(key, payment, name, pending).await?;
        Ok(transaction)
    }

    /// Keeps a payment, with its client's name for it if there is one.
    async fn keep(
        &self,
        key: B256,
        payment: Payment,
        name: B256,
        pending: Option<Pending>,
    ) -> Result<(), Fault> {
        let kept = self.journal.write(move |rows| {
            rows.keep_payment(key, &payment)?;
            if let Some(pending) = &pending {
                rows.credit_stream(name, None, now_s())?;
                rows.keep_pending(name, pending)?;
            }
            Ok(())
        });
        Ok(kept.await?)
    }

    async fn transfer(&self, transfer: &Transfer, names: Names) -> Result<B256, Fault> {
        let token = self.terms.token.address;
        let Transfer { authorization, signature } = transfer;
        let refused = match self.rail.transfer(token, authorization, signature).await {
            Ok(transaction) => return Ok(transaction),
            Err(RailError::Unknown(reason)) => return Err(Fault::Chain(reason)),
            Err(RailError::Refused(reason)) => reason,
        };
        // Anyone who saw the signature may have brought it: the money is here all the same, unless its
        // payer used the nonce for something else.
        match self.rail.find(token, authorization).await.map_err(unanswered)? {
            Some(transaction) => Ok(transaction),
            None => {
                self.forget(transfer, names).await?;
                Err(Fault::Transfer(refused))
            }
        }
    }

    /// Forgets a transfer that certainly did not happen.
    async fn forget(&self, transfer: &Transfer, names: Names) -> Result<(), Fault> {
        let key = transfer.key(self.terms.token.address);
        let forgotten = self.journal.write(move |rows| {
            rows.forget_payment(key);
            if names.chosen {
                rows.forget_pending(names.payment);
            }
            Ok(())
        });
        Ok(forgotten.await?)
    }

    /// The account of a channel, as the chain said lately; `now` in Unix seconds.
    pub(crate) async fn account(&self, signed: &Signed, now: u64) -> Result<Account, Fault> {
        let kept = self.journal.account(signed.id).await?;
        if let Some(account) = kept
            && now.saturating_sub(account.synced) < FRESH.as_secs()
        {
            return Ok(account);
        }
        self.sync(signed.id, &signed.channel, now).await
    }

    /// The account of a channel, as the chain says now. Kept if there is money in it.
    pub(crate) async fn sync(
        &self,
        id: ChannelId,
        channel: &Channel,
        now: u64,
    ) -> Result<Account, Fault> {
        let state = self.rail.channel(id);
        let (state, refunds) = futures_util::future::try_join(state, self.rail.refunds(id))
            .await
            .map_err(unanswered)?;
        let channel = channel.clone();
        let synced = self.journal.change(id, move |kept| {
            let known = kept.is_some();
            let mut account = kept.unwrap_or_else(|| Account::new(channel, &state, refunds, now));
            account.sync(&state, refunds, now);
            let worth = known || account.balance > Amount(0);
            (worth.then(|| account.clone()), account)
        });
        Ok(synced.await?)
    }

    /// Brings a deposit, and returns its transaction and the account it is in.
    pub(crate) async fn deposit(
        &self,
        signed: &Signed,
        deposit: &DepositAuthorization,
        now: u64,
    ) -> Result<(B256, Account), Fault> {
        let (token, payer) = (self.terms.token.address, signed.channel.payer);
        let nonce = deposit.nonce(signed.id);
        let used = self.rail.is_used(token, payer, nonce);
        let held = self.rail.balance(token, payer);
        let (used, found) = futures_util::future::try_join(used, held).await.map_err(unanswered)?;
        if used {
            // A retry of a deposit whose reply was lost: it is in the channel, and counts there.
            let authorization = Authorization {
                from: payer,
                to: self.place.collector,
                value: U256::from(deposit.value.0),
                valid_after: U256::ZERO,
                valid_before: U256::MAX,
                nonce,
            };
            let found = self.rail.find(token, &authorization).await.map_err(unanswered)?;
            let transaction = found.ok_or(Fault::Used)?;
            return Ok((transaction, self.sync(signed.id, &signed.channel, now).await?));
        }
        if found < deposit.value {
            return Err(Fault::Balance { found, expected: deposit.value });
        }
        let (found, expected) = (deposit.value, self.terms.settle_min);
        if found < expected {
            return Err(Fault::SmallDeposit { found, expected });
        }
        let _leave = self.line.stand(payer, Instant::now())?;
        let transaction = match self.rail.deposit(&signed.channel, deposit).await {
            Ok(transaction) => transaction,
            Err(RailError::Refused(reason)) => return Err(Fault::Deposit(reason)),
            Err(RailError::Unknown(reason)) => return Err(Fault::Chain(reason)),
        };
        Ok((transaction, self.sync(signed.id, &signed.channel, now).await?))
    }

    /// Gives back what is left in a channel, or `wanted` of it, after claiming what is owed. Gives the
    /// transaction, what went back, and the account.
    pub(crate) async fn refund(
        &self,
        signed: &Signed,
        wanted: Option<Amount>,
        now: u64,
    ) -> Result<(B256, Amount, Account), Fault> {
        let mut account = self.sync(signed.id, &signed.channel, now).await?;
        account.admit(signed.voucher.max_claimable_amount, Amount(0))?;
        // What a stream did cost is known with its end.
        if account.open > Amount(0) {
            return Err(Fault::Busy);
        }
        if account.credit > Amount(0) && wanted.is_none_or(|wanted| wanted > account.left()) {
            account = self.uncharge(signed.id).await?;
        }
        let left = account.left();
        let amount = wanted.unwrap_or(left);
        if left == Amount(0) || amount > left {
            return Err(Fault::NoBalance);
        }
        let expected = self.terms.settle_min;
        if amount < expected {
            return Err(Fault::SmallRefund { found: amount, expected });
        }
        let _leave = self.line.stand(signed.channel.payer, Instant::now())?;
        if let Some(claim) = account.claim() {
            self.rail.claim(&[claim]).await.map_err(refund_failed)?;
        }
        let sent = self.rail.refund(&signed.channel, amount).await.map_err(refund_failed)?;
        Ok((sent, amount, self.sync(signed.id, &signed.channel, now).await?))
    }

    /// Undoes charges by what the channel has to be credited.
    async fn uncharge(&self, id: ChannelId) -> Result<Account, Fault> {
        let change = self.journal.change(id, |kept| {
            let account = kept.map(|mut account| {
                account.uncharge();
                account
            });
            (account.clone(), account)
        });
        change.await?.ok_or(Fault::NoChannel)
    }
}

/// What is known of a payment by `exact`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It was not settled.
    New,
    /// It was settled by this transaction, and has no whole answer yet.
    Settled(B256),
    /// It was answered; the reply is kept under this key, unless it was too long.
    Answered(B256),
}

fn refund_failed(error: RailError) -> Fault {
    match error {
        RailError::Refused(reason) => Fault::Refund(reason),
        RailError::Unknown(reason) => Fault::Chain(reason),
    }
}
