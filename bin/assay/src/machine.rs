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

/// Bytes of memory available to new work: what the machine has left, or less where this process lives
/// under a limit of its own, as in a container. `None` where the system does not say.
pub(crate) fn memory_available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let machine = available_in(&text)?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limited = left_in_groups(Path::new("/sys/fs/cgroup"), &groups);
    Some(limited.map_or(machine, |limited| limited.min(machine)))
}

/// What the limits of the control groups leave, of which the kernel names ours in `groups`: version 2 as
/// `0::/path`, version 1 as `4:memory:/path`. The smallest of ours and of those around it counts.
fn left_in_groups(root: &Path, groups: &str) -> Option<u64> {
    let mut least = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(kinds), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, files) = match kinds {
            "" => (root.to_owned(), ["memory.max", "memory.current"]),
            kinds if kinds.split(',').any(|kind| kind == "memory") => {
                (root.join("memory"), ["memory.limit_in_bytes", "memory.usage_in_bytes"])
            }
            _ => continue,
        };
        // Within a container, the path may be one that is seen only from outside.
        for folder in Path::new(path.trim_start_matches('/')).ancestors() {
            let left = left_in_group(&root.join(folder), files);
            least = [least, left].into_iter().flatten().min();
        }
    }
    least
}

/// What one group leaves; `None` without a limit. Pages of files can go, so they are not counted.
fn left_in_group(folder: &Path, [limit, used]: [&str; 2]) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let (limit, used) = (number(limit)?, number(used)?);
    let stat = read("memory.stat").unwrap_or_default();
    let files = stat.lines().find_map(|line| line.strip_prefix("inactive_file "));
    let files = files.and_then(|files| files.trim().parse::<u64>().ok()).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(files)))
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
    fn limits_of_control_groups_count() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("a/memory.max", "1000\n");
        put("a/memory.current", "300\n");
        put("a/b/memory.max", "max\n");
        put("a/b/memory.current", "10\n");
        assert_eq!(left_in_groups(root.path(), "0::/a/b\n"), Some(700));
        put("a/memory.stat", "anon 5\ninactive_file 200\n");
        assert_eq!(left_in_groups(root.path(), "0::/a/b\n"), Some(900));
        put("memory/memory.limit_in_bytes", "50");
        put("memory/memory.usage_in_bytes", "60");
        assert_eq!(left_in_groups(root.path(), "3:cpu:/x\n4:hugetlb,memory:/docker/x\n"), Some(0));
        assert_eq!(left_in_groups(root.path(), "0::/c\nnonsense\n"), None);
    }

    #[test]
    fn open_files_never_fall() {
        let now = getrlimit(Resource::Nofile).current.unwrap_or(FILES_MAX);
        assert!(raise_open_files() >= now.min(FILES_MAX));
        assert!(getrlimit(Resource::Nofile).current.unwrap_or(FILES_MAX) >= now.min(FILES_MAX));
    }
}
