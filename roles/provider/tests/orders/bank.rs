//! A chain for tests: a small real one, with the rules of the contracts that a provider meets, that
//! can be out of reach, lose deposits and let payers leave.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use assay_chain::{ChainError, ChannelState, Claim, Refusal, Span, Withdrawal};
use assay_protocol::{Address, Amount, B256, Channel, ChannelId, Channels, Voucher};
use assay_provider::{Asked, Bank, Reading};
use futures_util::FutureExt;

use crate::script::CHAIN;

pub(crate) const CONTRACT: Address = Address::repeat_byte(0xc1);

/// Clones are the same chain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger(Arc<Mutex<Books>>);

#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) channels: HashMap<ChannelId, ChannelState>,
    /// Height of the latest block.
    pub(crate) height: u64,
    /// Time of the latest block, Unix seconds.
    pub(crate) time: u64,
    pub(crate) unreachable: bool,
    /// Questions and transactions that still work; `None`: all.
    pub(crate) left: Option<u64>,
    /// Whether a transaction takes effect and its answer is lost.
    pub(crate) deaf: bool,
    pub(crate) questions: u64,
    withdrawals: Vec<(u64, ChannelId)>,
    /// Grants that their issuers took back.
    pub(crate) revoked: HashSet<(Address, B256)>,
    /// Times that somebody asked about a grant.
    pub(crate) grants_asked: u64,
    /// Channels whose claims this chain refuses with the whole batch.
    pub(crate) poisoned: Vec<ChannelId>,
    /// Tills refuse these, and with them whatever is released at once.
    pub(crate) stuck: Vec<ChannelId>,
    /// Whether posting works: it may be refused, or the node silent about it.
    pub(crate) posts_fail: Option<PostsFail>,
    pub(crate) claims: u64,
    /// Transactions that released something.
    pub(crate) release_calls: u64,
    pub(crate) releases: Vec<ChannelId>,
    pub(crate) periods: Vec<(B256, u64, Vec<Span>)>,
    pub(crate) covered: HashMap<ChannelId, Amount>,
    pub(crate) paid_out: HashMap<ChannelId, Amount>,
    /// What a till saw claimed and covered, and when.
    seen: HashMap<ChannelId, Vec<(u64, Amount)>>,
    pub(crate) till_open: bool,
}

/// How posting fails.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PostsFail {
    Refused,
    Silent,
}

pub(crate) const WINDOW: u64 = 100;

impl Ledger {
    pub(crate) fn books<T>(&self, body: impl FnOnce(&mut Books) -> T) -> T {
        body(&mut self.0.lock().unwrap())
    }

    pub(crate) fn deposit(&self, id: ChannelId, amount: u128) {
        self.books(|books| books.channels.entry(id).or_default().balance.0 += amount);
    }

    pub(crate) fn withdraw(&self, id: ChannelId, amount: u128) {
        self.books(|books| {
            books.height += 1;
            let withdrawal = Withdrawal { amount: Amount(amount), since: books.time };
            books.channels.entry(id).or_default().withdrawal = Some(withdrawal);
            books.withdrawals.push((books.height, id));
        });
    }

    /// Another branch of the chain, on which a channel holds `balance`.
    pub(crate) fn reorganise(&self, id: ChannelId, balance: u128) {
        self.books(|books| books.channels.entry(id).or_default().balance = Amount(balance));
    }

    fn ask<T: Send + 'static>(
        &self,
        answer: impl FnOnce(&mut Books) -> Result<T, ChainError>,
    ) -> Asked<'_, T> {
        let answer = self.books(|books| {
            books.works()?;
            answer(books)
        });
        async move { answer }.boxed()
    }

    /// As `ask`, but the answer may be lost.
    fn send(&self, act: impl FnOnce(&mut Books) -> Result<(), ChainError>) -> Asked<'_, ()> {
        self.ask(|books| {
            act(books)?;
            books.height += 1;
            if books.deaf { Err(silent()) } else { Ok(()) }
        })
    }
}

fn silent() -> ChainError {
    ChainError::Unreachable { url: "here".into(), reason: "nobody answers".into() }
}

fn refused(reason: &str) -> ChainError {
    ChainError::Refused(Refusal { reason: reason.into(), data: Vec::new().into() })
}

impl Books {
    fn works(&mut self) -> Result<(), ChainError> {
        self.questions += 1;
        if self.unreachable || self.left == Some(0) {
            return Err(silent());
        }
        self.left = self.left.map(|left| left - 1);
        Ok(())
    }

    fn claim(&mut self, claim: &Claim) -> Result<(), ChainError> {
        let here = Channels { chain: CHAIN, contract: CONTRACT };
        let id = claim.channel.id(&here);
        if self.poisoned.contains(&id) {
            return Err(refused("a poisoned row"));
        }
        let word = Voucher { channel: id, claimable: claim.claimable };
        let signer = word.signer(&here, &claim.signature).unwrap();
        assert_eq!(signer, claim.channel.payer_authorizer, "a claim without a voucher");
        let state = self.channels.entry(id).or_default();
        assert!(claim.claimed <= claim.claimable, "a claim above its voucher");
        if claim.claimed > state.balance {
            return Err(refused("ClaimExceedsBalance"));
        }
        state.claimed = state.claimed.max(claim.claimed);
        Ok(())
    }

    fn release(&mut self, channel: &Channel) {
        let id = channel.id(&Channels { chain: CHAIN, contract: CONTRACT });
        let claimed = self.channels.entry(id).or_default().claimed;
        let covered = self.covered.get(&id).copied().unwrap_or_default();
        let both = claimed.min(covered);
        let seen = self.seen.entry(id).or_default();
        if seen.last().is_none_or(|(_, amount)| *amount < both) {
            seen.push((self.time, both));
        }
        let due = seen.iter().rev().find(|(at, _)| at + WINDOW <= self.time);
        if let Some((_, amount)) = due {
            let paid = self.paid_out.entry(id).or_default();
            *paid = (*paid).max(*amount);
        }
        self.releases.push(id);
    }
}

impl Bank for Ledger {
    fn height(&self) -> Asked<'_, u64> {
        self.ask(|books| Ok(books.height))
    }

    fn time(&self) -> Asked<'_, u64> {
        self.ask(|books| Ok(books.time))
    }

    fn gas_price(&self) -> Asked<'_, u128> {
        self.ask(|_| Ok(1))
    }

    fn channel(&self, id: ChannelId) -> Asked<'_, Reading> {
        self.ask(|books| {
            let state = books.channels.get(&id).copied().unwrap_or_default();
            Ok(Reading { state, height: books.height })
        })
    }

    fn withdrawals(&self, from: u64, to: u64) -> Asked<'_, Vec<ChannelId>> {
        self.ask(|books| {
            let found = books.withdrawals.iter().filter(|(at, _)| (from..=to).contains(at));
            Ok(found.map(|(_, id)| *id).collect())
        })
    }

    fn is_revoked(&self, issuer: Address, grant: B256) -> Asked<'_, bool> {
        self.ask(|books| {
            books.grants_asked += 1;
            Ok(books.revoked.contains(&(issuer, grant)))
        })
    }

    fn open_till(&self, _: Address) -> Asked<'_, ()> {
        self.send(|books| {
            books.till_open = true;
            Ok(())
        })
    }

    fn claim<'a>(&'a self, claims: &'a [Claim]) -> Asked<'a, ()> {
        self.send(|books| {
            books.claims += 1;
            // Bad rows are skipped, poisoned ones revert it all, as a foreign contract might.
            if claims.iter().any(|claim| {
                let id = claim.channel.id(&Channels { chain: CHAIN, contract: CONTRACT });
                books.poisoned.contains(&id)
            }) {
                return Err(refused("a poisoned row"));
            }
            let good = claims.iter().filter(|claim| books.claim(claim).is_ok()).count();
            if good == 0 { Err(refused("no row is good")) } else { Ok(()) }
        })
    }

    fn release<'a>(&'a self, till: Address, channels: &'a [Channel]) -> Asked<'a, ()> {
        self.send(|books| {
            assert!(books.till_open, "a release without a till");
            books.release_calls += 1;
            let here = Channels { chain: CHAIN, contract: CONTRACT };
            if channels.iter().any(|channel| books.stuck.contains(&channel.id(&here))) {
                return Err(refused("a channel is stuck"));
            }
            for channel in channels {
                assert_eq!(channel.receiver, till, "a channel of another till");
                books.release(channel);
            }
            Ok(())
        })
    }

    fn paid_out(&self, _: Address, channel: ChannelId) -> Asked<'_, Amount> {
        self.ask(|books| Ok(books.paid_out.get(&channel).copied().unwrap_or_default()))
    }

    fn dispute_window(&self) -> Asked<'_, u64> {
        self.ask(|_| Ok(WINDOW))
    }

    fn post<'a>(&'a self, _: Address, root: B256, count: u64, spans: &'a [Span]) -> Asked<'a, ()> {
        self.send(|books| {
            match books.posts_fail {
                Some(PostsFail::Refused) => return Err(refused("no posts today")),
                Some(PostsFail::Silent) => return Err(silent()),
                None => {}
            }
            for span in spans {
                let covered = books.covered.get(&span.channel).copied().unwrap_or_default();
                if covered != span.before || span.after <= span.before {
                    return Err(refused("Broken"));
                }
            }
            books.covered.extend(spans.iter().map(|span| (span.channel, span.after)));
            books.periods.push((root, count, spans.to_vec()));
            Ok(())
        })
    }

    fn periods(&self, _: Address) -> Asked<'_, u64> {
        self.ask(|books| Ok(books.periods.len() as u64))
    }

    fn period(&self, _: Address, number: u64) -> Asked<'_, B256> {
        self.ask(|books| Ok(books.periods[usize::try_from(number).unwrap()].0))
    }

    fn covered(&self, _: Address, channel: ChannelId) -> Asked<'_, Amount> {
        self.ask(|books| Ok(books.covered.get(&channel).copied().unwrap_or_default()))
    }
}
