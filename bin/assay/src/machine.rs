//! What this machine gives: processors, memory, disk, open files.

use std::num::NonZeroUsize;
use std::path::Path;

use assay_kernels::{Cpu, Isa};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::failure::{Exit, Failure, Outcome};

/// Files and sockets that one process is ever given; more would only cost tables.
const FILES_MAX: u64 = 1 << 16;

/// How many threads compute.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct ThreadsArgument {
    /// Threads that compute [default: one per processor]
    #[arg(long, value_name = "N", env = "ASSAY_THREADS")]
    threads: Option<NonZeroUsize>,
}

impl ThreadsArgument {
    /// The processor that computes. `ASSAY_ISA` forces an instruction set; the bits are the same.
    pub(crate) fn cpu(self) -> Outcome<Cpu> {
        let isa = Isa::from_env().map_err(|error| {
            Failure::new(Exit::Usage, "ASSAY_ISA cannot be followed")
                .why(error)
                .fix("unset it, and the fastest instructions are used")
        })?;
        let threads = self.threads.unwrap_or_else(processors);
        Cpu::new(isa, threads).map_err(|error| {
            Failure::new(Exit::Failed, format_args!("{threads} threads cannot be started"))
                .why(error)
                .fix("pass a smaller --threads")
        })
    }
}

/// Processors that this process may use.
pub(crate) fn processors() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Raises the number of files and sockets this process may open as far as it may, and says how
/// far that is.
pub(crate) fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(FILES_MAX).min(FILES_MAX);
    let now = limit.current.unwrap_or(FILES_MAX);
    let raised = Rlimit { current: Some(most), maximum: limit.maximum };
    if now < most && setrlimit(Resource::Nofile, raised).is_ok() {
        return most;
    }
    now
}

/// Bytes free for this user where `path` lies; `None` where the system does not say.
pub(crate) fn disk_free(path: &Path) -> Option<u64> {
    // A directory that does not exist yet will lie on its nearest parent's disk.
    let existing = path.ancestors().find(|folder| folder.exists())?;
    let disk = rustix::fs::statvfs(existing).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Bytes of memory available to new work; `None` where the system does not say.
pub(crate) fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    available_in(&text)
}

fn available_in(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_words_are_read() {
        let text = "MemTotal:       24 kB\nMemAvailable:   23 kB\n";
        assert_eq!(available_in(text), Some(23 * 1024));
        assert_eq!(available_in("MemAvailable: much\n"), None);
    }

    #[test]
    fn open_files_never_fall() {
        let now = getrlimit(Resource::Nofile).current.unwrap_or(FILES_MAX);
        assert!(raise_open_files() >= now.min(FILES_MAX));
        assert!(getrlimit(Resource::Nofile).current.unwrap_or(FILES_MAX) >= now.min(FILES_MAX));
    }
}
