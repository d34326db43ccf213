//! Processor time and memory of processes, from `/proc`.

use std::fs;
use std::time::Duration;

use crate::error::LoadError;

/// `/proc` counts processor time in ticks of `USER_HZ`, which is part of the kernel's interface: 100 a second.
const TICK: Duration = Duration::from_millis(10);

/// Some processes, with or without what they have forked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Processes {
    /// Their ids; none means that nobody is watched.
    pub(crate) pids: Vec<u32>,
    /// Whether their descendants count too.
    pub(crate) descendants: bool,
}

/// The fields of `/proc/PID/stat` that are needed here.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// User and system time of all threads, dead ones included.
    own: u32,
    /// User and system time of children that have ended and been waited for.
    ended_children: u32,
}

impl Processes {
    /// Whether there is anybody to watch.
    pub(crate) fn is_watched(&self) -> bool {
        !self.pids.is_empty()
    }

    /// Processor time used so far by all threads; `None` if nobody is watched. Fails when a process is gone.
    pub(crate) fn cpu(&self) -> Result<Option<Duration>, LoadError> {
        let mut ticks = 0;
        for pid in self.family() {
            let stat = match read_stat(pid) {
                Ok(stat) => stat,
                // A descendant may end between the listing and the reading.
                Err(_) if !self.pids.contains(&pid) => continue,
                Err(error) => return Err(error),
            };
            ticks += stat.own + if self.descendants { stat.ended_children } else { 0 };
        }
        Ok(self.is_watched().then(|| TICK * ticks))
    }

    /// Resident memory in KiB; `None` if nobody is watched.
    pub(crate) fn resident_kib(&self) -> Result<Option<u64>, LoadError> {
        let mut sum = 0;
        for pid in self.family() {
            let path = format!("/proc/{pid}/status");
            let status = fs::read_to_string(&path).map_err(LoadError::io(path))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            sum += line
                .and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
                .unwrap_or(0);
        }
        Ok(self.is_watched().then_some(sum))
    }

    /// The processes and, if wanted, their descendants.
    fn family(&self) -> Vec<u32> {
        let mut family = self.pids.clone();
        if !self.descendants || family.is_empty() {
            return family;
        }
        let everybody: Vec<(u32, u32)> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, read_stat(pid).ok()?.parent)))
            .collect();
        let mut next = 0;
        while let Some(&pid) = family.get(next) {
            family.extend(
                everybody
                    .iter()
                    .filter(|(_, parent)| *parent == pid)
                    .map(|(child, _)| *child),
            );
            next += 1;
        }
        family.sort_unstable();
        family.dedup();
        family
    }
}

/// Processor time of this process so far.
pub(crate) fn own_cpu() -> Result<Duration, LoadError> {
    Ok(TICK * read_stat(std::process::id())?.own)
}

fn read_stat(pid: u32) -> Result<Stat, LoadError> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).map_err(LoadError::io(format!("process {pid}")))?;
    parse_stat(&text).ok_or_else(|| LoadError::Protocol(format!("{path} is not understood")))
}

/// The command's name comes first in parentheses and may itself contain spaces and parentheses.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u32>().ok();
    Some(Stat {
        parent: number(1)?,
        own: number(11)?.checked_add(number(12)?)?,
        ended_children: number(13)?.checked_add(number(14)?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_a_hostile_name() {
        let text = "42 (a) 1 (b c)) S 7 42 42 0 -1 4194560 900 0 0 0 130 20 5 6 20 0 9 0 100 1 2 3";
        assert_eq!(
            parse_stat(text),
            Some(Stat {
                parent: 7,
                own: 150,
                ended_children: 11
            })
        );
        assert_eq!(parse_stat("42 (a) S 7"), None);
    }

    #[test]
    fn this_process_has_memory_and_a_gone_one_is_an_error() {
        let own = Processes {
            pids: vec![std::process::id()],
            descendants: true,
        };
        assert!(own.resident_kib().unwrap().unwrap() > 100);
        assert!(own.cpu().unwrap().is_some());
        let gone = Processes {
            pids: vec![u32::MAX],
            descendants: false,
        };
        assert!(gone.cpu().is_err());
        assert_eq!(Processes::default().cpu().unwrap(), None);
    }
}
