//! What may be spent under a name, and how fast. A name is an API key's hash, or a grant's digest.
//!
//! An answer sets its highest price aside before it is bought, under every name that it is bought
//! under, so answers that come at once never spend more than there is. Its price is booked in the
//! transaction that keeps the answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use assay_protocol::{Amount, B256};

use crate::signed::Place;
use crate::store::Row;
use crate::window::Window;

const MINUTE: Duration = Duration::from_secs(60);

/// How long a name that is not kept for good is remembered without use. What was spent under it is
/// in the store.
const IDLE_MAX: Duration = Duration::from_secs(600);

/// Names up to which nothing is swept out.
const SWEEP_MIN: usize = 1024;

/// What a name allows an order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    pub(crate) name: B256,
    /// Most that all answers under it may cost.
    pub(crate) spend: Amount,
    /// Orders in any minute; none: no bound.
    pub(crate) per_minute: Option<u32>,
}

/// Why an order may not be bought under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// Too many orders came.
    Rate { name: B256, per_minute: u32, retry_after_s: u32 },
    /// Less is left than the answer may cost.
    Spent { name: B256, asked: Amount, left: Amount },
    /// Enough is left, and answers under way may need it.
    SetAside { name: B256, asked: Amount },
}

impl Over {
    pub(crate) fn name(&self) -> B256 {
        match self {
            Self::Rate { name, .. } | Self::Spent { name, .. } | Self::SetAside { name, .. } => {
                *name
            }
        }
    }
}

/// What goes on under one name.
#[derive(Debug)]
struct Account {
    spent: Amount,
    /// What answers under way may cost.
    aside: Amount,
    /// When orders at the allowed pace would have reached the number that came.
    paced: Instant,
    /// What came of late, where so many may come in any minute.
    window: Option<Box<Window>>,
    /// When it was last used.
    used: Instant,
    /// Whether it is remembered for good.
    stays: bool,
}

impl Account {
    fn new(spent: Amount, stays: bool, now: Instant) -> Self {
        Self { spent, aside: Amount(0), paced: now, window: None, used: now, stays }
    }

    /// Whether nothing is lost by forgetting it: all of it is in the store.
    fn is_blank(&self, now: Instant) -> bool {
        self.spent == Amount(0) && self.is_quiet(now)
    }

    fn is_idle(&self, now: Instant) -> bool {
        now.duration_since(self.used) > IDLE_MAX && self.is_quiet(now)
    }

    /// Whether nothing is under way, and nothing came of late that counts.
    fn is_quiet(&self, now: Instant) -> bool {
        let over = self.window.as_ref().is_none_or(|window| window.is_over(now));
        !self.stays && self.aside == Amount(0) && self.paced <= now && over
    }

    /// Whether an answer of at most `most` fits under `limit` now.
    fn admit(&mut self, limit: &Limit, most: Amount, now: Instant) -> Result<(), Over> {
        let (name, asked) = (limit.name, most);
        let left = Amount(limit.spend.0.saturating_sub(self.spent.0));
        if asked > left {
            return Err(Over::Spent { name, asked, left });
        }
        if asked.0 > left.0.saturating_sub(self.aside.0) {
            return Err(Over::SetAside { name, asked });
        }
        let Some(per_minute) = limit.per_minute else { return Ok(()) };
        let window = self.window.get_or_insert_with(|| Box::new(Window::new(now)));
        match window.wait(now, per_minute) {
            None => Ok(()),
            Some(wait) => Err(Over::Rate { name, per_minute, retry_after_s: whole_s(wait) }),
        }
    }
}

/// When orders at the allowed pace reach one more, if it may come `now`; else how long it has to
/// wait.
fn pace(paced: Instant, now: Instant, per_minute: u32) -> Result<Instant, Duration> {
    if per_minute == 0 {
        return Err(MINUTE);
    }
    let next = paced.max(now) + MINUTE / per_minute;
    let ahead = next.duration_since(now);
    if ahead > MINUTE { Err(ahead - MINUTE) } else { Ok(next) }
}

/// Seconds after which a wait is over.
fn whole_s(wait: Duration) -> u32 {
    u32::try_from(wait.as_secs() + 1).unwrap_or(u32::MAX)
}

/// What goes on under all names.
#[derive(Debug, Default)]
pub(crate) struct Budgets {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    accounts: HashMap<B256, Account>,
    /// Names at which idle ones are swept out next.
    sweep_at: usize,
}

impl State {
    fn account(&mut self, name: B256, now: Instant) -> &mut Account {
        self.accounts.entry(name).or_insert_with(|| Account::new(Amount(0), false, now))
    }

    fn forget_if_blank(&mut self, name: B256, now: Instant) {
        if self.accounts.get(&name).is_some_and(|account| account.is_blank(now)) {
            self.accounts.remove(&name);
        }
    }

    fn sweep(&mut self, now: Instant) {
        if self.accounts.len() < self.sweep_at.max(SWEEP_MIN) {
            return;
        }
        self.accounts.retain(|_, account| !account.is_idle(now));
        self.sweep_at = 2 * self.accounts.len();
    }
}

impl Budgets {
    /// Whether nothing has to be learned about a name.
    pub(crate) fn knows(&self, name: B256) -> bool {
        self.lock().accounts.contains_key(&name)
    }

    /// Takes in what the store says was spent under a name that is not known yet; one that `stays` is
    /// never forgotten.
    pub(crate) fn learn(&self, name: B256, spent: Amount, stays: bool) {
        let (mut state, now) = (self.lock(), Instant::now());
        state.sweep(now);
        state.accounts.entry(name).or_insert_with(|| Account::new(spent, stays, now));
    }

    /// What answers under a name have cost.
    pub(crate) fn spent(&self, name: B256) -> Amount {
        self.lock().accounts.get(&name).map_or(Amount(0), |account| account.spent)
    }

    /// Counts a request under a name.
    pub(crate) fn count(&self, name: B256, per_minute: u32) -> Result<(), Over> {
        let (mut state, now) = (self.lock(), Instant::now());
        let account = state.account(name, now);
        account.paced = pace(account.paced, now, per_minute).map_err(|wait| Over::Rate {
            name,
            per_minute,
            retry_after_s: whole_s(wait),
        })?;
        Ok(())
    }

    /// Sets aside what an answer may cost, and counts its order, under all names or none. What was
    /// spent under each has been learned.
    pub(crate) fn set_aside(
        self: &Arc<Self>,
        limits: &[Limit],
        most: Amount,
    ) -> Result<Spending, Over> {
        self.set_aside_at(limits, most, Instant::now())
    }

    fn set_aside_at(
        self: &Arc<Self>,
        limits: &[Limit],
        most: Amount,
        now: Instant,
    ) -> Result<Spending, Over> {
        let mut state = self.lock();
        let admitted = limits
            .iter()
            .try_for_each(|limit| state.account(limit.name, now).admit(limit, most, now));
        admitted.inspect_err(|_| {
            limits.iter().for_each(|limit| state.forget_if_blank(limit.name, now));
        })?;
        for limit in limits {
            let account = state.account(limit.name, now);
            // Both are at most what the name allows, so nothing overflows.
            account.aside.0 += most.0;
            account.used = now;
            if let Some(window) = &mut account.window {
                window.count(now);
            }
        }
        let names = limits.iter().map(|limit| limit.name).collect();
        let budgets = Some(Arc::clone(self));
        Ok(Spending { budgets, names, most, open: AtomicBool::new(true), place: None })
    }

    /// Ends what was set aside for an answer that cost `price`.
    fn close(&self, names: &[B256], most: Amount, price: Amount) {
        let now = Instant::now();
        let mut state = self.lock();
        for name in names {
            if let Some(account) = state.accounts.get_mut(name) {
                account.aside.0 = account.aside.0.saturating_sub(most.0);
                account.spent.0 = account.spent.0.saturating_add(price.0);
                account.used = now;
            }
            state.forget_if_blank(*name, now);
        }
    }

    /// Takes back the `price` of an answer that nobody got.
    fn undo(&self, names: &[B256], price: Amount) {
        let mut state = self.lock();
        for name in names {
            if let Some(account) = state.accounts.get_mut(name) {
                account.spent.0 = account.spent.0.saturating_sub(price.0);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an answer under way may cost its client. Dropping it frees what was not booked.
#[derive(Debug)]
pub(crate) struct Spending {
    budgets: Option<Arc<Budgets>>,
    names: Vec<B256>,
    most: Amount,
    /// Whether its price is still unknown.
    open: AtomicBool,
    /// The place of a client's own order among those under way.
    place: Option<Place>,
}

impl Spending {
    /// Of a client whose spending nobody bounds.
    pub(crate) fn free() -> Self {
        let open = AtomicBool::new(true);
        Self { budgets: None, names: Vec::new(), most: Amount(0), open, place: None }
    }

    /// The same for a client's own order, which is under way until this is dropped.
    pub(crate) fn in_place(self, place: Place) -> Self {
        let mut spending = self;
        spending.place = Some(place);
        spending
    }

    /// Books the answer's price; gives what has to be kept with it. None if an answer was booked
    /// already: an order is billed once, however many providers answered it.
    pub(crate) fn book(&self, price: Amount) -> Option<Vec<Row>> {
        if !self.close(price) {
            return None;
        }
        let spent = self.names.iter().map(|name| Row::Spend { key: *name, amount: price });
        Some(spent.chain(self.place.as_ref().map(Place::row)).collect())
    }

    /// Whether it is for an order that its client signed, and so may hand in again.
    pub(crate) fn is_clients_own(&self) -> bool {
        self.place.is_some()
    }

    /// Undoes what was booked for an answer of that `price` which could not be kept.
    pub(crate) fn unbook(&self, price: Amount) {
        if let Some(budgets) = &self.budgets {
            budgets.undo(&self.names, price);
        }
    }

    /// Ends it once; whether it was open.
    fn close(&self, price: Amount) -> bool {
        if !self.open.swap(false, Ordering::Relaxed) {
            return false;
        }
        if let Some(budgets) = &self.budgets {
            budgets.close(&self.names, self.most, price);
        }
        true
    }
}

impl Drop for Spending {
    fn drop(&mut self) {
        self.close(Amount(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: B256 = B256::repeat_byte(1);
    const GRANT: B256 = B256::repeat_byte(2);

    fn limit(name: B256, spend: u128, per_minute: Option<u32>) -> Limit {
        Limit { name, spend: Amount(spend), per_minute }
    }

    #[test]
    fn so_many_may_come_at_once_and_then_at_the_pace() {
        let start = Instant::now();
        let mut paced = start;
        for _ in 0..6 {
            paced = pace(paced, start, 6).unwrap();
        }
        assert_eq!(pace(paced, start, 6), Err(Duration::from_secs(10)));
        let later = start + Duration::from_secs(10);
        paced = pace(paced, later, 6).unwrap();
        assert_eq!(pace(paced, later, 6), Err(Duration::from_secs(10)));
        assert!(pace(paced, later + Duration::from_secs(3600), 6).is_ok());
        assert_eq!(pace(start, start, 0), Err(MINUTE));
    }

    #[test]
    fn a_grants_rate_holds_in_every_minute() {
        let (budgets, start) = (Arc::new(Budgets::default()), Instant::now());
        let order = |second| {
            let now = start + Duration::from_secs(second);
            let limits = [limit(GRANT, 100, Some(2))];
            budgets.set_aside_at(&limits, Amount(1), now).map(|most| most.book(Amount(1)))
        };
        assert!(order(0).is_ok() && order(1).is_ok());
        for second in [2, 31, 59, 64] {
            let retry_after_s = 70 - u32::try_from(second).unwrap() + 1;
            let over = Over::Rate { name: GRANT, per_minute: 2, retry_after_s };
            assert_eq!(order(second).unwrap_err(), over);
        }
        assert!(order(70).is_ok() && order(71).is_ok());
        assert!(order(72).is_err());
    }

    #[test]
    fn an_answer_fits_under_all_names_or_none() {
        let budgets = Arc::new(Budgets::default());
        let limits = [limit(KEY, 100, None), limit(GRANT, 50, Some(2))];
        let set = |most| budgets.set_aside(&limits, Amount(most));
        let (asked, left) = (Amount(60), Amount(50));
        assert_eq!(set(60).unwrap_err(), Over::Spent { name: GRANT, asked, left });
        // Nothing was set aside under the key, and nothing is remembered.
        assert!(!budgets.knows(KEY) && !budgets.knows(GRANT));
        let first = set(40).unwrap();
        assert_eq!(set(40).unwrap_err(), Over::SetAside { name: GRANT, asked: Amount(40) });
        assert_eq!(first.book(Amount(15)).map(|rows| rows.len()), Some(2));
        assert!(first.book(Amount(15)).is_none());
        let second = set(30).unwrap();
        assert!(matches!(set(1), Err(Over::Rate { name: GRANT, per_minute: 2, .. })));
        drop(second);
        assert_eq!((budgets.spent(KEY), budgets.spent(GRANT)), (Amount(15), Amount(15)));
    }

    #[test]
    fn what_the_store_says_is_learned_once() {
        let budgets = Arc::new(Budgets::default());
        budgets.learn(GRANT, Amount(7), false);
        let most = budgets.set_aside(&[limit(GRANT, 10, None)], Amount(3)).unwrap();
        most.book(Amount(2));
        budgets.learn(GRANT, Amount(7), false);
        assert_eq!(budgets.spent(GRANT), Amount(9));
    }

    #[test]
    fn what_was_booked_for_an_answer_that_was_not_kept_is_free_again() {
        let budgets = Arc::new(Budgets::default());
        budgets.learn(GRANT, Amount(3), false);
        let most = budgets.set_aside(&[limit(GRANT, 10, None)], Amount(5)).unwrap();
        assert!(most.book(Amount(4)).is_some());
        most.unbook(Amount(4));
        drop(most);
        assert_eq!(budgets.spent(GRANT), Amount(3));
        assert!(budgets.set_aside(&[limit(GRANT, 10, None)], Amount(7)).is_ok());
    }

    #[test]
    fn names_that_bought_nothing_are_forgotten() {
        let budgets = Arc::new(Budgets::default());
        for byte in 0..=255 {
            let limits = [limit(B256::repeat_byte(byte), 10, None)];
            drop(budgets.set_aside(&limits, Amount(5)).unwrap());
        }
        assert!(budgets.lock().accounts.is_empty());
    }
}
