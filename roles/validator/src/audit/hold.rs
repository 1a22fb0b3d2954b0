//! Holds other auditors to account: has those fined that did not reveal, or called true what is false.
//!
//! Nobody is paid for it but the planter of a canary; it is done because a lazy auditor lets lies pass that an
//! honest one has to compute. What was fined is read from the chain, so nothing is charged twice, whoever charged
//! it. Each charge is put to the contract as a question before it is sent, and a few are sent in a round, after
//! some looks of chance: of many auditors that see the same, seldom two pay gas for it.

use assay_chain::{ChainError, Duty, Verdict, VowState};
use assay_protocol::Address;

use super::happening::Lapse;
use super::page::{Case, Found, Page};
use super::{AuditError, Desk, Happening, Now};

/// Questions to the chain in one round, for each kind of charge.
const LOOKS_MAX: usize = 16;
/// Charges of one transaction.
const CHARGES_MAX: usize = 16;
/// Looks that a charge may wait before it is sent.
const WAITS: u8 = 4;
/// Cases kept. Of more than that, those behind are nobody's here.
const CASES_MAX: usize = 1024;
/// How long a case is kept, seconds: what the contract gives a canary's planter to unveil it.
const CASE_LIFE: u64 = 60 * 86_400;

/// Whom to have fined, for what, and how.
struct Charge {
    auditor: Address,
    lapse: Lapse,
    duty: Duty,
}

impl Desk {
    /// Has others fined for what they did not do, or said wrongly.
    pub(super) async fn hold(&mut self, now: Now) -> Result<(), AuditError> {
        let mut charges = self.vows(now).await?;
        charges.extend(self.attendances(now).await?);
        self.open_cases(now).await?;
        charges.extend(self.cases(now).await?);
        self.charge(charges).await
    }

    /// Who did not reveal a secret. One epoch is looked at in a round.
    async fn vows(&mut self, now: Now) -> Result<Vec<Charge>, AuditError> {
        let due = |page: &&Page| page.epoch + 2 <= now.seen && !page.vows_kept;
        let Some(epoch) = self.book.pages.values().find(due).map(|page| page.epoch) else {
            return Ok(Vec::new());
        };
        let roll = self.chain.roll(epoch).await?;
        let broken = roll
            .iter()
            .enumerate()
            .filter(|(_, vow)| vow.part == VowState::Committed && vow.auditor != self.auditor);
        let charge = |(place, vow): (usize, &assay_chain::Vow)| Charge {
            auditor: vow.auditor,
            lapse: Lapse::Missed { epoch },
            duty: Duty::Miss { epoch, place: place as u64 },
        };
        let charges: Vec<Charge> = broken.take(CHARGES_MAX).map(charge).collect();
        if charges.is_empty() {
            self.book.change(epoch, |page| page.vows_kept = true)?;
        }
        Ok(charges)
    }

    /// Who was drawn for something and said nothing of anything. One epoch is looked at in a round.
    async fn attendances(&mut self, now: Now) -> Result<Vec<Charge>, AuditError> {
        let due = |page: &&Page| page.epoch + 4 <= now.seen && !page.others.is_empty();
        let Some(page) = self.book.pages.values().find(due) else { return Ok(Vec::new()) };
        let epoch = page.epoch;
        let looked: Vec<_> = page.others.iter().take(LOOKS_MAX).copied().collect();
        let (mut charges, mut settled) = (Vec::new(), Vec::new());
        for (auditor, place) in looked {
            let found = self.chain.attendance(auditor, epoch).await?;
            if found.revealed || found.fined {
                settled.push(auditor);
                continue;
            }
            let lapse = Lapse::Absent { epoch };
            charges.push(Charge { auditor, lapse, duty: Duty::Absent { auditor, place } });
        }
        if !settled.is_empty() {
            self.book.change(epoch, |page| {
                page.others.retain(|(auditor, _)| !settled.contains(auditor));
            })?;
        }
        Ok(charges)
    }

    /// Notes who called true what was found false here. Whether it is, a dispute shows, or a canary's planter.
    async fn open_cases(&mut self, now: Now) -> Result<(), AuditError> {
        let due = |page: &&Page| page.epoch + 4 <= now.seen;
        let pages: Vec<Page> = self.book.pages.values().filter(due).cloned().collect();
        let mut looks = 0;
        for page in &pages {
            let mut known = Vec::new();
            for task in page.drawn() {
                let Some(auditor) = task.other else { continue };
                match (&task.found, &task.posted) {
                    (Some(Found::False { .. }), Some(about)) if looks < LOOKS_MAX => {
                        looks += 1;
                        let opinion = self.chain.opinion(auditor, &task.at).await?;
                        if opinion.verdict == Some(Verdict::True) && !opinion.fined {
                            let until = now.time.saturating_add(CASE_LIFE);
                            let case = Case { auditor, about: about.clone(), until };
                            self.book.change_cases(|cases| {
                                cases.push(case);
                                cases.truncate(CASES_MAX);
                            })?;
                        }
                    }
                    (Some(Found::False { .. }), Some(_)) => continue,
                    // It may yet be published, and turn out false.
                    (Some(Found::Silent { .. }) | None, _) if !task.closed => continue,
                    _ => {}
                }
                known.push(task.at);
            }
            if !known.is_empty() {
                self.book.change(page.epoch, |page| {
                    for task in page.tasks.iter_mut().flatten() {
                        if known.contains(&task.at) {
                            task.other = None;
                        }
                    }
                })?;
            }
        }
        Ok(())
    }

    /// Who can be fined by now for a verdict; some cases in a round, all in turns.
    async fn cases(&mut self, now: Now) -> Result<Vec<Charge>, AuditError> {
        let count = self.book.cases.len();
        let (mut charges, mut over) = (Vec::new(), Vec::new());
        for step in 0..count.min(LOOKS_MAX / 2) {
            let case = self.book.cases[(self.next_case + step) % count].clone();
            let Case { auditor, about, until } = &case;
            if *until < now.time || self.chain.opinion(*auditor, &about.place).await?.fined {
                over.push(case);
                continue;
            }
            let (auditor, at) = (*auditor, about.place);
            let tries = [
                (Lapse::Careless { at }, Duty::Careless { auditor, about: about.clone() }),
                (Lapse::Mistaken { at }, Duty::Mistaken { auditor, about: about.clone() }),
            ];
            for (lapse, duty) in tries {
                if self.chain.may_attend(&duty).await? {
                    charges.push(Charge { auditor, lapse, duty });
                    break;
                }
            }
        }
        self.next_case = self.next_case.wrapping_add(LOOKS_MAX / 2);
        self.book.change_cases(|cases| cases.retain(|case| !over.contains(case)))?;
        Ok(charges)
    }

    /// Sends charges that the contract lets pass. What another was faster with shows in the next round.
    async fn charge(&mut self, charges: Vec<Charge>) -> Result<(), AuditError> {
        let mut passing = Vec::new();
        for charge in charges.into_iter().take(CHARGES_MAX) {
            if self.chain.may_attend(&charge.duty).await? {
                passing.push(charge);
            }
        }
        if passing.is_empty() {
            self.charging = None;
            return Ok(());
        }
        match self.charging {
            Some(0) => {}
            Some(looks) => {
                self.charging = Some(looks - 1);
                return Ok(());
            }
            None => {
                self.charging = Some(some_looks());
                return Ok(());
            }
        }
        let duties: Vec<Duty> = passing.iter().map(|charge| charge.duty.clone()).collect();
        self.charging = None;
        match self.chain.attend(&duties).await {
            Ok(_) => {}
            Err(ChainError::Refused(_) | ChainError::Failed { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let count = passing.len() as u64;
        self.book.count(|totals| totals.fined += count)?;
        for Charge { auditor, lapse, .. } in passing {
            self.tell(Happening::Fined { auditor, lapse });
        }
        Ok(())
    }
}

/// A few looks, by chance.
fn some_looks() -> u8 {
    let mut byte = [0];
    // Without chance it does not wait.
    let _ = getrandom::fill(&mut byte);
    byte[0] % WAITS
}
