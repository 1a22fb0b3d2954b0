//! Which pages of keys and values there are, and who uses them. Pure: a page is whatever the caller
//! says it is.
//!
//! A sequence takes pages as it grows. A page that is full is kept under the tokens that it holds and
//! the page that it follows, so a prompt that begins with the same tokens finds it and need not be
//! computed. Where such a chain begins it names the tenant: what one tenant asked before makes no
//! other's prompt faster, so nobody can ask a clock what others asked. Pages that no sequence uses
//! stay until somebody needs the room; those that were used longest ago go first, the ends of chains
//! before their beginnings.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use assay_protocol::Address;

/// Names a kept page; never given twice.
type Serial = u64;

/// The pages of one model.
pub(super) struct Pool<P> {
    /// Positions of a page.
    positions: usize,
    /// Pages that may exist.
    pages_max: usize,
    kept: HashMap<Serial, Kept<P>>,
    /// Where to find a kept page. The map compares what it finds by content, so equal hashes of
    /// different tokens do no harm.
    found_by: HashMap<Key, Serial>,
    /// Kept pages that no sequence uses, longest unused first.
    idle: BTreeMap<u64, Serial>,
    /// Pages that one sequence has for itself.
    own: usize,
    /// Serials and times given so far.
    clock: u64,
}

/// What a page is kept under.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    after: After,
    tokens: Arc<[u32]>,
}

/// What comes before a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum After {
    /// Nothing: a sequence of this tenant begins with it.
    Start(Address),
    /// Another page.
    Page(Serial),
}

struct Kept<P> {
    key: Key,
    page: P,
    /// Sequences that use it.
    users: usize,
    /// When it became idle, if it is.
    idle_since: u64,
}

/// The pages of one sequence, in order: kept ones, then its own. Give it back to
/// [`Pool::close`], or its pages stay taken.
#[derive(Debug)]
#[must_use]
pub(super) struct Table {
    tenant: Address,
    kept: Vec<Serial>,
    own: usize,
}

impl Table {
    /// Pages that belong to a sequence of this tenant before it has started.
    pub(super) fn new(tenant: Address) -> Self {
        Self { tenant, kept: Vec::new(), own: 0 }
    }

    /// How many of its pages are kept for others to find.
    pub(super) fn kept(&self) -> usize {
        self.kept.len()
    }

    fn after(&self) -> After {
        self.kept.last().map_or(After::Start(self.tenant), |&serial| After::Page(serial))
    }
}

impl<P: Clone> Pool<P> {
    /// A pool of at most `pages_max` pages of so many positions.
    pub(super) fn new(positions: usize, pages_max: usize) -> Self {
        Self {
            positions,
            pages_max,
            kept: HashMap::new(),
            found_by: HashMap::new(),
            idle: BTreeMap::new(),
            own: 0,
            clock: 0,
        }
    }

    /// Starts a sequence of these tokens: its pages, of which the first ones may be there already.
    /// None if there is no room for all that its tokens need.
    ///
    /// The last token is never found, since it must be computed to know what follows.
    pub(super) fn open(&mut self, tenant: Address, tokens: &[u32]) -> Option<(Table, Vec<P>)> {
        let (mut table, mut pages) = (Table::new(tenant), Vec::new());
        for tokens in tokens[..tokens.len().saturating_sub(1)].chunks_exact(self.positions) {
            let key = Key { after: table.after(), tokens: tokens.into() };
            let Some(&serial) = self.found_by.get(&key) else { break };
            pages.push(self.take(serial));
            table.kept.push(serial);
        }
        if self.reserve(&mut table, tokens.len()) {
            return Some((table, pages));
        }
        self.close(&mut table);
        None
    }

    /// Makes sure that a sequence has pages for so many positions. False if there is no room, and
    /// nothing changes then.
    pub(super) fn reserve(&mut self, table: &mut Table, positions: usize) -> bool {
        let has = table.kept.len() + table.own;
        let wanted = positions.div_ceil(self.positions).saturating_sub(has);
        if self.used() + wanted > self.pages_max {
            return false;
        }
        while self.own + self.kept.len() + wanted > self.pages_max {
            self.evict();
        }
        table.own += wanted;
        self.own += wanted;
        true
    }

    /// Takes back what a sequence of so many positions does not need.
    pub(super) fn trim(&mut self, table: &mut Table, positions: usize) {
        let needed = positions.div_ceil(self.positions).saturating_sub(table.kept.len());
        self.own -= table.own.saturating_sub(needed);
        table.own = table.own.min(needed);
    }

    /// Keeps the first of a sequence's own pages, which is full of these tokens. If such a page is
    /// kept already, the sequence uses that one from now on: the page returned.
    pub(super) fn keep(&mut self, table: &mut Table, tokens: &[u32], page: P) -> Option<P> {
        assert_eq!(tokens.len(), self.positions, "a page that is not full");
        assert!(table.own > 0, "a page that was not reserved");
        table.own -= 1;
        self.own -= 1;
        let key = Key { after: table.after(), tokens: tokens.into() };
        if let Some(&serial) = self.found_by.get(&key) {
            table.kept.push(serial);
            return Some(self.take(serial));
        }
        let serial = self.tick();
        self.found_by.insert(key.clone(), serial);
        self.kept.insert(serial, Kept { key, page, users: 1, idle_since: 0 });
        table.kept.push(serial);
        None
    }

    /// Ends a sequence: its own pages are gone, the kept ones stay while there is room.
    pub(super) fn close(&mut self, table: &mut Table) {
        self.own -= std::mem::take(&mut table.own);
        for serial in std::mem::take(&mut table.kept).into_iter().rev() {
            let now = self.tick();
            let kept = self.kept.get_mut(&serial).expect("a page in use is kept");
            kept.users -= 1;
            if kept.users == 0 {
                kept.idle_since = now;
                self.idle.insert(now, serial);
            }
        }
    }

    /// Pages that sequences use.
    pub(super) fn used(&self) -> usize {
        self.len() - self.idle.len()
    }

    /// Pages that there are.
    pub(super) fn len(&self) -> usize {
        self.own + self.kept.len()
    }

    /// Pages that there may be.
    pub(super) fn pages_max(&self) -> usize {
        self.pages_max
    }

    /// One more sequence uses a kept page.
    fn take(&mut self, serial: Serial) -> P {
        let kept = self.kept.get_mut(&serial).expect("a page that is found is kept");
        if kept.users == 0 {
            self.idle.remove(&kept.idle_since);
        }
        kept.users += 1;
        kept.page.clone()
    }

    /// Forgets the page that was not used for longest.
    fn evict(&mut self) {
        let (_, serial) = self.idle.pop_first().expect("what is not used is idle");
        let gone = self.kept.remove(&serial).expect("an idle page is kept");
        self.found_by.remove(&gone.key);
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POSITIONS: usize = 4;
    const ADA: Address = Address::repeat_byte(1);
    const BOB: Address = Address::repeat_byte(2);

    /// A page says which tokens stand in it and before it.
    type Said = Vec<u32>;

    fn pool(pages_max: usize) -> Pool<Said> {
        Pool::new(POSITIONS, pages_max)
    }

    /// Computes a whole sequence; how many positions were found.
    fn run(pool: &mut Pool<Said>, tenant: Address, tokens: &[u32]) -> Option<(Table, usize)> {
        let (mut table, found) = pool.open(tenant, tokens)?;
        for index in found.len()..tokens.len() / POSITIONS {
            let end = (index + 1) * POSITIONS;
            let page = tokens[..end].to_vec();
            let other = pool.keep(&mut table, &tokens[end - POSITIONS..end], page.clone());
            assert!(other.is_none_or(|other| other == page));
        }
        for (index, page) in found.iter().enumerate() {
            assert_eq!(page[..], tokens[..(index + 1) * POSITIONS]);
        }
        Some((table, found.len() * POSITIONS))
    }

    fn found(pool: &mut Pool<Said>, tenant: Address, tokens: &[u32]) -> usize {
        let (mut table, found) = run(pool, tenant, tokens).expect("there is room");
        pool.close(&mut table);
        found
    }

    #[test]
    fn a_prompt_that_begins_alike_is_found_up_to_its_last_token() {
        let mut pool = pool(100);
        let tokens: Vec<u32> = (0..18).collect();
        assert_eq!(found(&mut pool, ADA, &tokens), 0);
        assert_eq!(found(&mut pool, ADA, &tokens), 16);
        assert_eq!(found(&mut pool, ADA, &tokens[..16]), 12);
        assert_eq!(found(&mut pool, ADA, &[&tokens[..7], &[9; 9]].concat()), 4);
        assert_eq!(found(&mut pool, ADA, &tokens[4..]), 0, "the same tokens at other positions");
        assert_eq!(found(&mut pool, BOB, &tokens), 0, "another tenant's");
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_ends_before_beginnings() {
        let mut pool = pool(6);
        let [old, new] = [1, 2].map(|first| vec![first; 13]);
        assert_eq!(found(&mut pool, ADA, &old), 0);
        assert_eq!(found(&mut pool, ADA, &new), 0);
        assert_eq!(found(&mut pool, ADA, &old[..9]), 8, "one page of three went for the own ones");
    }

    #[test]
    fn used_pages_are_never_taken() {
        let mut pool = pool(5);
        let (mut table, _) = run(&mut pool, ADA, &[1; 13]).unwrap();
        assert!(run(&mut pool, ADA, &[2; 5]).is_none());
        let (mut other, found) = run(&mut pool, ADA, &[1; 5]).expect("it shares a page");
        assert_eq!((found, pool.used()), (4, 5));
        assert!(!pool.reserve(&mut table, 17));
        assert!(pool.reserve(&mut table, 16));
        pool.close(&mut other);
        assert!(pool.reserve(&mut table, 17));
        pool.trim(&mut table, 13);
        assert_eq!(pool.used(), 4);
        pool.close(&mut table);
        assert_eq!(pool.used(), 0);
    }

    proptest! {
        /// Sequences of few different tokens come and go: pages are what they say they are, and no
        /// more than there may be.
        #[test]
        fn pages_stay_within_bounds_and_say_the_truth(
            pages_max in 4usize..20,
            steps in prop::collection::vec(
                (any::<bool>(), prop::collection::vec(0u32..2, 1..24), 0usize..8),
                1..60,
            ),
        ) {
            let mut pool = pool(pages_max);
            let mut open: Vec<Table> = Vec::new();
            for (tenant, tokens, leaves) in steps {
                if leaves < open.len() {
                    pool.close(&mut open.swap_remove(leaves));
                }
                if let Some((table, _)) = run(&mut pool, if tenant { ADA } else { BOB }, &tokens) {
                    open.push(table);
                } else {
                    prop_assert!(pool.used() + tokens.len().div_ceil(POSITIONS) > pages_max);
                }
                prop_assert!(pool.own + pool.kept.len() <= pages_max);
                prop_assert_eq!(pool.kept.len(), pool.found_by.len());
                let mut users: HashMap<Serial, usize> = HashMap::new();
                open.iter().flat_map(|table| &table.kept).for_each(|&serial| {
                    *users.entry(serial).or_default() += 1;
                });
                for (serial, kept) in &pool.kept {
                    prop_assert_eq!(kept.users, users.get(serial).copied().unwrap_or(0));
                    if let After::Page(before) = kept.key.after {
                        prop_assert!(pool.kept.contains_key(&before), "a page that nobody finds");
                    }
                }
                prop_assert_eq!(pool.own, open.iter().map(|table| table.own).sum::<usize>());
            }
            open.iter_mut().for_each(|table| pool.close(table));
            prop_assert_eq!(pool.used(), 0);
        }
    }
}
