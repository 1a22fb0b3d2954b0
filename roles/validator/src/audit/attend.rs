//! The four duties of an epoch: a secret and its reveal, verdicts and theirs. Those that are due go in one
//! transaction; a duty that the contract refuses holds up no other.

use assay_chain::{ChainError, Duty, VowState, list_hash, secret_hash};
use assay_protocol::B256;

use super::page::Page;
use super::{AuditError, Desk, Happening, Now};

/// Seconds of an epoch that a transaction needs.
const MARGIN: u64 = 1;

impl Desk {
    /// Does the duties that are due.
    pub(super) async fn attend(&mut self, now: Now) -> Result<(), AuditError> {
        let mut duties = Vec::new();
        if now.left > MARGIN {
            duties.extend(self.secret(now).await?);
            duties.extend(self.reveal(now).await?);
            duties.extend(self.reveal_verdicts(now).await?);
            duties.extend(self.commit_verdicts(now).await?);
        }
        if !duties.is_empty() {
            self.send(&duties).await?;
        }
        self.expire(now)
    }

    /// A secret for the present epoch's beacon, on disk before it is sent.
    async fn secret(&mut self, now: Now) -> Result<Option<Duty>, AuditError> {
        if self.book.pages.get(&now.epoch).is_some_and(|page| page.committed) {
            return Ok(None);
        }
        if self.auditing.once && self.last.is_some_and(|last| last != now.epoch) {
            return Ok(None);
        }
        let found = self.chain.auditor(self.auditor).await?;
        if found.release.is_some() || found.stake < self.terms.bond {
            self.no_bond(now, found.stake);
            return Ok(None);
        }
        if found.committed == now.epoch {
            self.book.change(now.epoch, |page| page.committed = true)?;
            return Ok(None);
        }
        if !self.book.pages.contains_key(&now.epoch) {
            self.book.keep(Page::new(now.epoch, chance(), chance()))?;
        }
        let secret = self.book.pages.get(&now.epoch).map(|page| page.secret);
        Ok(secret.map(|secret| Duty::Commit { epoch: now.epoch, secret }))
    }

    /// Says once an epoch that there is no bond.
    fn no_bond(&mut self, now: Now, stake: assay_protocol::Amount) {
        if self.poor != Some(now.epoch) {
            self.poor = Some(now.epoch);
            self.tell(Happening::NoBond { stake, bond: self.terms.bond });
        }
    }

    /// The secret of the epoch before.
    async fn reveal(&mut self, now: Now) -> Result<Option<Duty>, AuditError> {
        let Some(epoch) = now.epoch.checked_sub(1) else { return Ok(None) };
        let Some(page) = self.book.pages.get(&epoch).filter(|page| !page.revealed) else {
            return Ok(None);
        };
        let secret = page.secret;
        let commitment = secret_hash(secret, self.auditor, epoch);
        let roll = self.chain.roll(epoch).await?;
        let place = roll.iter().position(|vow| vow.commitment == commitment);
        let Some((place, vow)) = place.and_then(|place| Some((place, roll.get(place)?))) else {
            return Ok(None);
        };
        let revealed = vow.part == VowState::Revealed;
        self.book.change(epoch, |page| (page.committed, page.revealed) = (true, revealed))?;
        Ok((!revealed).then_some(Duty::Reveal { epoch, place: place as u64, secret }))
    }

    /// The list of what was drawn two epochs ago, on disk before it is sent; once all of it is judged, or late.
    async fn commit_verdicts(&mut self, now: Now) -> Result<Option<Duty>, AuditError> {
        let Some(epoch) = now.epoch.checked_sub(2) else { return Ok(None) };
        let Some(page) = self.book.pages.get(&epoch) else { return Ok(None) };
        if page.drawn().is_empty() || page.list_committed {
            return Ok(None);
        }
        let judged = page.drawn().iter().all(|task| task.found.is_some());
        let late = now.left <= (self.terms.epoch / 3).max(MARGIN + 1);
        if page.list.is_none() && !judged && !late {
            return Ok(None);
        }
        let list = page.list.clone().unwrap_or_else(|| page.verdicts());
        let salt = page.salt;
        let attendance = self.chain.attendance(self.auditor, epoch).await?;
        let there = attendance.commitment == list_hash(&list, salt, self.auditor, epoch);
        let kept = list.clone();
        self.book.change(epoch, |page| (page.list, page.list_committed) = (Some(kept), there))?;
        Ok((!there).then_some(Duty::CommitVerdicts { epoch, list, salt }))
    }

    /// The list that was committed to in the epoch before.
    async fn reveal_verdicts(&mut self, now: Now) -> Result<Option<Duty>, AuditError> {
        let Some(epoch) = now.epoch.checked_sub(3) else { return Ok(None) };
        let Some(page) = self.book.pages.get(&epoch).filter(|page| !page.list_revealed) else {
            return Ok(None);
        };
        let (Some(list), salt) = (page.list.clone(), page.salt) else { return Ok(None) };
        let attendance = self.chain.attendance(self.auditor, epoch).await?;
        let ours = attendance.commitment == list_hash(&list, salt, self.auditor, epoch);
        let revealed = attendance.revealed;
        self.book
            .change(epoch, |page| (page.list_committed, page.list_revealed) = (ours, revealed))?;
        Ok((ours && !revealed).then_some(Duty::RevealVerdicts { epoch, list, salt }))
    }

    /// Sends duties together, or each by itself if the contract refuses one of them.
    async fn send(&mut self, duties: &[Duty]) -> Result<(), AuditError> {
        match self.chain.attend(duties).await {
            Ok(_) => return duties.iter().try_for_each(|duty| self.done(duty)),
            Err(ChainError::Refused(refusal)) if duties.len() == 1 => {
                return self.refused(&refusal.reason);
            }
            Err(ChainError::Refused(_) | ChainError::Failed { .. }) if duties.len() > 1 => {}
            Err(error) => return Err(error.into()),
        }
        for duty in duties {
            match self.chain.attend(std::slice::from_ref(duty)).await {
                Ok(_) => self.done(duty)?,
                Err(ChainError::Refused(refusal)) => self.refused(&refusal.reason)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// A duty was refused: the next round looks again at what is due.
    fn refused(&self, reason: &str) -> Result<(), AuditError> {
        self.tell(Happening::Failed { what: "a duty", reason: reason.to_owned() });
        Ok(())
    }

    /// Notes that a duty was done.
    fn done(&mut self, duty: &Duty) -> Result<(), AuditError> {
        match duty {
            Duty::Commit { epoch, .. } => {
                self.last = Some(*epoch);
                self.book.change(*epoch, |page| page.committed = true)?;
                self.tell(Happening::Committed { epoch: *epoch });
            }
            Duty::Reveal { epoch, .. } => {
                self.book.change(*epoch, |page| page.revealed = true)?;
                self.tell(Happening::Revealed { epoch: *epoch });
            }
            Duty::CommitVerdicts { epoch, list, .. } => {
                self.book.change(*epoch, |page| page.list_committed = true)?;
                self.tell(Happening::VerdictsCommitted { epoch: *epoch, verdicts: list.len() });
            }
            Duty::RevealVerdicts { epoch, list, .. } => {
                self.book.change(*epoch, |page| page.list_revealed = true)?;
                self.tell(Happening::VerdictsRevealed { epoch: *epoch, verdicts: list.len() });
            }
            _ => {}
        }
        Ok(())
    }

    /// Says what cannot be made good any more.
    fn expire(&mut self, now: Now) -> Result<(), AuditError> {
        let late = |page: &&Page| page.epoch + 1 < now.seen && page.committed && !page.revealed;
        let late: Vec<u64> = self.book.pages.values().filter(late).map(|page| page.epoch).collect();
        for epoch in late {
            if self.missed.insert(epoch) {
                self.tell(Happening::Missed { epoch });
            }
        }
        Ok(())
    }
}

/// 32 bytes of chance.
fn chance() -> B256 {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system has random numbers");
    bytes.into()
}
