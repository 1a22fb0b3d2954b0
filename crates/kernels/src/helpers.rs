//! Threads that share tasks with the one that calls.
//!
//! A forward pass is some hundred short pieces of shared work in a row, and waking a sleeping
//! thread takes as long as some of them. So helpers that have run out of tasks stay awake for a
//! moment, and so does a caller whose last tasks are still running elsewhere.

use std::cell::Cell;
use std::hint::spin_loop;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder, Yield};

/// Looks around, of some 30 ns each, for which a thread stays awake without work: longer than what
/// lies between two pieces of shared work in a pass, too short to matter between passes.
const LOOKS: usize = 1_500;

thread_local! {
    /// Whether this helper is staying awake, further up its stack.
    static LINGERS: Cell<bool> = const { Cell::new(false) };
}

/// All threads but the calling one.
pub(crate) struct Helpers {
    pool: ThreadPool,
}

impl Helpers {
    /// So many of them.
    pub(crate) fn new(count: NonZeroUsize) -> Result<Helpers, ThreadPoolBuildError> {
        let builder = ThreadPoolBuilder::new().num_threads(count.get());
        let pool = builder.thread_name(|i| format!("kernels-{i}")).build()?;
        Ok(Helpers { pool })
    }

    /// Runs every task, on the calling thread and on as many helpers as there are further tasks.
    ///
    /// The calling thread takes tasks as well, so that it need not wait for the others to wake.
    pub(crate) fn share<T: Send>(
        &self,
        tasks: impl ExactSizeIterator<Item = T> + Send,
        run: impl Fn(T) + Sync,
    ) {
        let wanted = self.pool.current_num_threads().min(tasks.len().saturating_sub(1));
        let (tasks, finished) = (Mutex::new(tasks), AtomicUsize::new(0));
        let work = || {
            while let Some(task) = next(&tasks) {
                run(task);
            }
        };
        self.pool.in_place_scope(|scope| {
            for _ in 0..wanted {
                scope.spawn(|_| {
                    work();
                    rayon::spawn(linger);
                    finished.fetch_add(1, Ordering::Release);
                });
            }
            work();
            spin_until(|| finished.load(Ordering::Acquire) == wanted);
        });
    }
}

/// The next task; nothing more once a task has panicked while being fetched.
fn next<T>(tasks: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    tasks.lock().ok()?.next()
}

/// Looks for work on a helper until there has been none for a while.
fn linger() {
    if LINGERS.replace(true) {
        return;
    }
    let mut looks = 0;
    while looks < LOOKS {
        looks += 1;
        match rayon::yield_now() {
            Some(Yield::Executed) => looks = 0,
            _ => spin_loop(),
        }
    }
    LINGERS.set(false);
}

/// Waits awake, for a while at most.
fn spin_until(done: impl Fn() -> bool) {
    let mut looks = 0;
    while looks < LOOKS && !done() {
        looks += 1;
        spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_however_often_work_is_shared() {
        for count in 1..4 {
            let helpers = Helpers::new(NonZeroUsize::new(count).unwrap()).unwrap();
            for round in 0..2_000 {
                let mut numbers = vec![0; round % 9];
                helpers.share(numbers.iter_mut(), |number| *number += 1);
                assert_eq!(numbers, vec![1; round % 9]);
            }
        }
    }

    #[test]
    fn work_after_a_rest_is_shared_too() {
        let helpers = Helpers::new(NonZeroUsize::MIN).unwrap();
        for _ in 0..3 {
            let mut numbers = [0; 5];
            helpers.share(numbers.iter_mut(), |number| *number += 1);
            assert_eq!(numbers, [1; 5]);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    #[should_panic(expected = "task 3")]
    fn a_panic_reaches_the_caller() {
        let helpers = Helpers::new(NonZeroUsize::MIN).unwrap();
        helpers.share(0..8, |task| assert_ne!(task, 3, "task {task}"));
    }
}
