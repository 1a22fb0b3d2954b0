//! What a backend did so far, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a native backend did since it started, and how it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Prompt tokens of the jobs that were started.
    pub prompt_tokens: u64,
    /// How many of them did not have to be computed, since an earlier job began alike.
    pub cached_tokens: u64,
    /// Tokens drawn.
    pub output_tokens: u64,
    /// Tokens that were guessed and computed ahead.
    pub guessed_tokens: u64,
    /// How many of them were the ones drawn.
    pub guessed_right: u64,
    /// Times that a running job had to make room and was computed again later.
    pub preempted: u64,
    /// Jobs that wait for their first start.
    pub waiting: u64,
    /// Bytes of keys and values that running jobs have taken now, …
    pub kv_used_bytes: u64,
    /// … those that there are, kept for prompts that begin alike included, …
    pub kv_bytes: u64,
    /// … and those that there may be.
    pub kv_bytes_max: u64,
}

/// The same, while they grow.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) prompt_tokens: AtomicU64,
    pub(super) cached_tokens: AtomicU64,
    pub(super) output_tokens: AtomicU64,
    pub(super) guessed_tokens: AtomicU64,
    pub(super) guessed_right: AtomicU64,
    pub(super) preempted: AtomicU64,
    pub(super) kv_used_bytes: AtomicU64,
    pub(super) kv_bytes: AtomicU64,
    pub(super) kv_bytes_max: AtomicU64,
}

impl Counters {
    pub(super) fn add(&self, which: impl Fn(&Self) -> &AtomicU64, more: usize) {
        which(self).fetch_add(more as u64, Ordering::Relaxed);
    }

    pub(super) fn set(&self, which: impl Fn(&Self) -> &AtomicU64, value: usize) {
        which(self).store(value as u64, Ordering::Relaxed);
    }

    pub(super) fn figures(&self, waiting: usize) -> Figures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Figures {
            prompt_tokens: read(&self.prompt_tokens),
            cached_tokens: read(&self.cached_tokens),
            output_tokens: read(&self.output_tokens),
            guessed_tokens: read(&self.guessed_tokens),
            guessed_right: read(&self.guessed_right),
            preempted: read(&self.preempted),
            waiting: waiting as u64,
            kv_used_bytes: read(&self.kv_used_bytes),
            kv_bytes: read(&self.kv_bytes),
            kv_bytes_max: read(&self.kv_bytes_max),
        }
    }
}
