//! Who is served next. Pure: no clock, no model.
//!
//! Tenants share an engine by what they are served, not by what they ask for: each has a tally of the
//! tokens that were computed for it, and of those that wait the one with the smallest tally is next
//! (virtual token counters, Sheng et al. 2024). A tenant's own jobs go first come, first served. So a
//! tenant that asks for a thousand answers delays its own, and another's single question waits for
//! none of them. A tenant that comes back starts level with those that wait, so nobody saves up by
//! staying away.
//!
//! Jobs of one tenant and different priorities are tallied apart, and tokens of a higher priority
//! weigh less: it is served more often, and the others never wait for ever.

use std::collections::{BTreeMap, VecDeque};

use assay_protocol::Address;

use crate::job::{Job, Priority};

/// Jobs that are tallied together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Flow {
    pub(super) tenant: Address,
    pub(super) priority: Priority,
}

impl Flow {
    /// The one that a job belongs to.
    pub(super) fn of(job: &Job) -> Self {
        Self { tenant: job.tenant, priority: job.priority }
    }
}

/// Jobs that wait, and what the tenants of those that run were served.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// Tallies of whoever waits or runs; nothing is known of the others.
    tallies: BTreeMap<Flow, Tally<T>>,
    /// Jobs that came so far.
    came: u64,
}

#[derive(Debug)]
struct Tally<T> {
    /// Tokens served, by weight.
    served: u64,
    /// Jobs taken out and not over.
    running: usize,
    waiting: VecDeque<Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    job: T,
    /// Its place among all that came.
    came: u64,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self { tallies: BTreeMap::new(), came: 0 }
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.tallies.values().all(|tally| tally.waiting.is_empty())
    }

    /// Lets a job wait behind the others of its flow.
    pub(super) fn push(&mut self, flow: Flow, job: T) {
        self.came += 1;
        let came = self.came;
        let level = self.level();
        let new = || Tally { served: 0, running: 0, waiting: VecDeque::new() };
        let tally = self.tallies.entry(flow).or_insert_with(new);
        if tally.waiting.is_empty() {
            tally.served = tally.served.max(level);
        }
        tally.waiting.push_back(Waiting { job, came });
    }

    /// Where who comes starts: level with the least served that waits, or, if nobody does and so
    /// nobody is owed anything, with the most served that runs.
    fn level(&self) -> u64 {
        let least = self.waiting().map(|(_, tally)| tally.served).min();
        let most = || self.tallies.values().map(|tally| tally.served).max();
        least.or_else(most).unwrap_or(0)
    }

    /// Lets a job that was running wait before the others of its flow.
    pub(super) fn give_back(&mut self, flow: Flow, job: T) {
        let tally = self.tally(flow);
        tally.running -= 1;
        tally.waiting.push_front(Waiting { job, came: 0 });
    }

    /// The flow that is next, and its first job.
    pub(super) fn next(&mut self) -> Option<(Flow, &mut T)> {
        let flow = self.waiting().min_by_key(|(_, tally)| (tally.served, tally.waiting[0].came));
        let flow = *flow?.0;
        let job = self.tally(flow).waiting.front_mut()?;
        Some((flow, &mut job.job))
    }

    /// Takes a flow's first job out; it counts as running until [`Queue::end`].
    pub(super) fn start(&mut self, flow: Flow) -> Option<T> {
        let tally = self.tallies.get_mut(&flow)?;
        let Waiting { job, .. } = tally.waiting.pop_front()?;
        tally.running += 1;
        Some(job)
    }

    /// A running job of the flow is over.
    pub(super) fn end(&mut self, flow: Flow) {
        self.tally(flow).running -= 1;
        self.forget();
    }

    /// Tallies tokens that were computed for a running job.
    pub(super) fn charge(&mut self, flow: Flow, tokens: usize) {
        self.tally(flow).served += tokens as u64 * flow.priority.token_weight();
    }

    /// What a flow was served, for comparison with others.
    pub(super) fn served(&self, flow: Flow) -> u64 {
        self.tallies.get(&flow).map_or(0, |tally| tally.served)
    }

    /// Takes out the waiting jobs that need not wait any more.
    pub(super) fn take(&mut self, mut over: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for tally in self.tallies.values_mut() {
            let waiting = std::mem::take(&mut tally.waiting).into_iter();
            let (gone, left) = waiting.partition(|waiting| over(&waiting.job));
            tally.waiting = left;
            taken.extend(VecDeque::into_iter(gone).map(|waiting| waiting.job));
        }
        self.forget();
        taken
    }

    fn waiting(&self) -> impl Iterator<Item = (&Flow, &Tally<T>)> {
        self.tallies.iter().filter(|(_, tally)| !tally.waiting.is_empty())
    }

    fn tally(&mut self, flow: Flow) -> &mut Tally<T> {
        self.tallies.get_mut(&flow).expect("who waits or runs has a tally")
    }

    /// Forgets who neither waits nor runs, so that strangers leave nothing behind.
    fn forget(&mut self) {
        self.tallies.retain(|_, tally| tally.running > 0 || !tally.waiting.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flow(tenant: u8, priority: Priority) -> Flow {
        Flow { tenant: Address::repeat_byte(tenant), priority }
    }

    fn normal(tenant: u8) -> Flow {
        flow(tenant, Priority::Normal)
    }

    /// Serves jobs of so many tokens one after the other; the names in the order of service.
    fn check(jobs: &[(Flow, &str, usize)], expected: &str) {
        let mut queue = Queue::new();
        for (flow, name, tokens) in jobs {
            queue.push(*flow, (*name, *tokens));
        }
        let mut order = Vec::new();
        while let Some((flow, _)) = queue.next() {
            let (name, tokens) = queue.start(flow).unwrap();
            order.push(name);
            queue.charge(flow, tokens);
            queue.end(flow);
        }
        assert_eq!(order.join(" "), expected);
        assert!(queue.tallies.is_empty(), "somebody left something behind");
    }

    #[test]
    fn one_tenants_many_jobs_delay_its_own() {
        let [ada, bob] = [1, 2].map(normal);
        check(&[(ada, "a1", 9), (ada, "a2", 9), (ada, "a3", 9), (bob, "b1", 9)], "a1 b1 a2 a3");
    }

    #[test]
    fn a_long_job_counts_for_as_many_short_ones() {
        let [ada, bob] = [1, 2].map(normal);
        let short = [(bob, "b1", 10), (bob, "b2", 10), (bob, "b3", 10)];
        check(&[&[(ada, "a1", 25), (ada, "a2", 25)][..], &short].concat(), "a1 b1 b2 b3 a2");
    }

    #[test]
    fn priorities_are_served_more_often_not_only() {
        let (low, high) = (flow(1, Priority::Low), flow(1, Priority::High));
        let mut jobs = vec![(low, "l", 1), (low, "l", 1)];
        jobs.extend([(high, "h", 1); 20]);
        check(&jobs, &format!("l{} l{}", " h".repeat(16), " h".repeat(4)));
    }

    #[test]
    fn nobody_saves_up_by_staying_away() {
        let mut queue = Queue::new();
        let [ada, bob] = [1, 2].map(normal);
        queue.push(ada, ());
        queue.start(ada).unwrap();
        queue.charge(ada, 1_000_000);
        queue.push(bob, ());
        queue.push(ada, ());
        assert_eq!(queue.served(bob), queue.served(ada));
    }

    #[test]
    fn a_job_given_back_is_the_first_of_its_flow() {
        let mut queue = Queue::new();
        queue.push(normal(1), 1);
        queue.push(normal(1), 2);
        let first = queue.start(normal(1)).unwrap();
        queue.give_back(normal(1), first);
        assert_eq!(queue.next(), Some((normal(1), &mut 1)));
        assert_eq!(queue.take(|job| *job == 1), [1]);
        assert_eq!(queue.next(), Some((normal(1), &mut 2)));
    }

    proptest! {
        /// Tenants that always wait are served the same, to within what one job can take; and each
        /// job comes out once, those of a flow in their order.
        #[test]
        fn who_always_waits_is_served_the_same(
            jobs in prop::collection::vec((0u8..4, 1usize..100), 1..200),
            slots in 1usize..5,
        ) {
            let mut queue = Queue::new();
            for (index, (tenant, tokens)) in jobs.iter().enumerate() {
                queue.push(normal(*tenant), (index, *tokens));
            }
            let mut left: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
            for (index, (tenant, _)) in jobs.iter().enumerate() {
                left.entry(*tenant).or_default().push(index);
            }
            let mut served: BTreeMap<u8, usize> = left.keys().map(|tenant| (*tenant, 0)).collect();
            let mut running = VecDeque::new();
            while let Some((flow, _)) = queue.next() {
                let (index, tokens) = queue.start(flow).unwrap();
                queue.charge(flow, tokens);
                let tenant = jobs[index].0;
                prop_assert_eq!(left.get_mut(&tenant).unwrap().remove(0), index);
                *served.get_mut(&tenant).unwrap() += tokens;
                running.push_back(flow);
                if running.len() == slots {
                    queue.end(running.pop_front().unwrap());
                }
                let waits = |tenant: &u8| !left[tenant].is_empty();
                let of_waiting = served.iter().filter(|(tenant, _)| waits(tenant));
                let of_waiting: Vec<usize> = of_waiting.map(|(_, tokens)| *tokens).collect();
                let least = of_waiting.iter().min().copied().unwrap_or(0);
                let most = of_waiting.iter().max().copied().unwrap_or(0);
                prop_assert!(most - least <= 100, "{:?}", served);
            }
            prop_assert!(left.values().all(Vec::is_empty));
        }

        /// However many jobs of other tenants and higher priorities keep coming, a low one is served.
        #[test]
        fn nobody_waits_for_ever(others in prop::collection::vec((1u8..5, 1usize..100), 1..8)) {
            let mut queue = Queue::new();
            let low = flow(9, Priority::Low);
            let mut rounds = 0;
            for (tenant, tokens) in &others {
                queue.push(flow(*tenant, Priority::High), *tokens);
            }
            queue.push(low, 1);
            loop {
                let (next, _) = queue.next().unwrap();
                let tokens = queue.start(next).unwrap();
                if next == low {
                    break;
                }
                queue.charge(next, tokens);
                queue.push(next, tokens);
                queue.end(next);
                rounds += 1;
                prop_assert!(rounds < 1000);
            }
        }
    }
}
