//! What a process takes, as Linux tells it; elsewhere nothing is told, and nothing bounded.

/// Most address space of a test. Readers may have a large stack of their own, of which little is used.
#[cfg(target_os = "linux")]
const ADDRESSES_MAX: u64 = 16 << 30;

/// Lets an absurd allocation fail, rather than succeed because nobody touches it.
#[cfg(target_os = "linux")]
pub(crate) fn bound_address_space() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::As);
    limit.current = Some(limit.maximum.unwrap_or(u64::MAX).min(ADDRESSES_MAX));
    // Where it may not be set, memory that is used is still bounded.
    let _ = setrlimit(Resource::As, limit);
}

/// Does nothing.
#[cfg(not(target_os = "linux"))]
pub(crate) fn bound_address_space() {}

/// The most memory that this process ever had, in bytes; 0 where the system does not say.
pub(crate) fn memory_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    1024 * kibibytes.unwrap_or(0u64)
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_os = "linux")]
    fn memory_that_is_used_is_seen() {
        let before = super::memory_peak();
        let used = vec![7u8; 300 << 20];
        assert!(used.iter().step_by(4096).all(|&byte| byte == 7));
        assert!(super::memory_peak() > before.max(200 << 20));
    }
}
