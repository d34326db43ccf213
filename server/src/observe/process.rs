//! What the system knows of this process: memory, processor time, open files. And how many files it may open.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files that are kept for other things than connections.
const OTHER_FILES: usize = 512;

/// Raises the number of files and connections that this process may have open to what the system allows at most, and
/// returns it; `None` when there is no bound.
///
/// # Errors
///
/// When the system refuses.
pub fn raise_open_files() -> std::io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        )?;
    }
    Ok(limit.maximum)
}

/// How many of the wanted connections fit when so many files may be open: database, media and peers need some too.
pub fn connections_within(wanted: usize, open_files: Option<u64>) -> usize {
    let Some(files) = open_files.and_then(|files| usize::try_from(files).ok()) else {
        return wanted;
    };
    wanted
        .min(files.saturating_sub(OTHER_FILES).max(files / 2))
        .max(1)
}

/// The lines of `/metrics` about the process, under the names that Prometheus gives them. Empty where there is no
/// `/proc`.
pub(super) fn render() -> String {
    let mut out = String::new();
    let mut line = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
    };
    line(
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory.",
        resident_bytes().map(|bytes| bytes as f64),
    );
    line(
        "process_cpu_seconds_total",
        "counter",
        "Processor time, user and system.",
        cpu_time().map(|time| time.as_secs_f64()),
    );
    line(
        "process_open_fds",
        "gauge",
        "Open files and connections.",
        open_files().map(|count| count as f64),
    );
    line(
        "process_max_fds",
        "gauge",
        "Most files and connections that may be open.",
        getrlimit(Resource::Nofile).current.map(|count| count as f64),
    );
    line(
        "process_time_seconds",
        "gauge",
        "The clock of this machine, in seconds since 1970.",
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()
            .map(|time| time.as_secs_f64()),
    );
    out
}

/// Resident memory in bytes.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Processor time used so far.
fn cpu_time() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(Duration::new(
        time.tv_sec.try_into().ok()?,
        time.tv_nsec.try_into().ok()?,
    ))
}

/// Files and connections that are open.
fn open_files() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_rest() {
        assert_eq!(connections_within(50_000, None), 50_000);
        assert_eq!(connections_within(50_000, Some(1_000_000)), 50_000);
        assert_eq!(connections_within(50_000, Some(20_000)), 19_488);
        assert_eq!(connections_within(50_000, Some(256)), 128);
        assert_eq!(connections_within(50_000, Some(0)), 1);
    }

    #[test]
    fn the_process_knows_itself() {
        assert!(raise_open_files().unwrap().is_none_or(|files| files > 0));
        let text = render();
        for name in [
            "process_resident_memory_bytes",
            "process_cpu_seconds_total",
            "process_open_fds",
        ] {
            assert!(text.contains(&format!("\n{name} ")), "{text}");
        }
    }
}
