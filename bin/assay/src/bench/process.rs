//! What a process and its children have used, as Linux tells it.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

/// Ticks of `/proc/*/stat` in a second: Linux shows every program this many.
const TICKS: u64 = 100;

/// Time on a processor that `pid` and all that descend from it have used; none if there is no such
/// process, or no Linux.
pub(super) fn cpu(pid: u32) -> Option<Duration> {
    let rows: HashMap<u32, (u32, u64)> = fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, row(pid)?)))
        .collect();
    rows.get(&pid)?;
    let descends = |mut at: u32| loop {
        match rows.get(&at) {
            _ if at == pid => return true,
            Some((parent, _)) if *parent != 0 => at = *parent,
            _ => return false,
        }
    };
    let ticks = rows.iter().filter(|(at, _)| descends(**at)).map(|(_, (_, ticks))| ticks);
    Some(Duration::from_millis(ticks.sum::<u64>() * 1000 / TICKS))
}

/// Parent, and ticks used, of one process.
fn row(pid: u32) -> Option<(u32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let field = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((u32::try_from(field(1)?).ok()?, field(11)? + field(12)?))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_its_number() {
        assert!(cpu(std::process::id()).is_some());
        assert!(cpu(u32::MAX).is_none());
    }
}
