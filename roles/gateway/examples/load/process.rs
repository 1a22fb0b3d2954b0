//! What a process and its children use, as Linux tells it.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

/// Ticks of `/proc/*/stat` in a second: Linux shows every program this many.
const TICKS: u64 = 100;

/// What a process and its children have used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// Time on a processor, since they were started.
    pub(crate) cpu: Duration,
    /// Memory that is resident now, in MiB.
    pub(crate) rss_mib: f64,
}

/// A row of `/proc/*/stat` and `status`.
struct Row {
    parent: u32,
    ticks: u64,
    rss_kib: u64,
}

/// What `pid` and all that descend from it have used.
pub(crate) fn used(pid: u32) -> Used {
    let rows: HashMap<u32, Row> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, row(pid)?)))
        .collect();
    let descends = |mut at: u32| loop {
        if at == pid {
            return true;
        }
        match rows.get(&at) {
            Some(row) if row.parent != 0 => at = row.parent,
            _ => return false,
        }
    };
    let family = rows.iter().filter(|(at, _)| descends(**at));
    let (ticks, kib) =
        family.fold((0, 0), |(ticks, kib), (_, row)| (ticks + row.ticks, kib + row.rss_kib));
    let cpu = Duration::from_millis(ticks * 1000 / TICKS);
    Used { cpu, rss_mib: kib as f64 / 1024.0 }
}

fn row(pid: u32) -> Option<Row> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let field = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let rss_kib = rss.and_then(|rss| rss.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    let parent = u32::try_from(field(1)?).ok()?;
    Some(Row { parent, ticks: field(11)? + field(12)?, rss_kib })
}
