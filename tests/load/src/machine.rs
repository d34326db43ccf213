//! The machine a run was made on: figures mean nothing without it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::LoadError;
use crate::measure::Latencies;

/// What the figures of a run depend on most.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    /// Processors that this process may use.
    pub(crate) cores: usize,
    /// As the processor names itself.
    pub(crate) cpu_model: String,
    /// Kernel release.
    pub(crate) kernel: String,
    /// Runnable processes over the last minute when the run began: figures are good only from a quiet machine.
    pub(crate) load_average: f64,
    /// Median time of one `fdatasync` after overwriting 4 KiB, in microseconds: what durability costs at least.
    pub(crate) fsync_us: f64,
}

/// How many times the disk is asked.
const FSYNCS: usize = 200;

impl Machine {
    /// Looks at the machine; writes a small file to `directory` and removes it again.
    pub(crate) fn inspect(directory: &Path) -> Result<Self, LoadError> {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus
            .lines()
            .find(|line| line.starts_with("model name"))
            .and_then(|line| line.split_once(": "));
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Ok(Self {
            load_average: load
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(0.0),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            cpu_model: model.map_or("unknown", |(_, model)| model).to_owned(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
                .to_owned(),
            fsync_us: (fsync_median(directory)?.as_secs_f64() * 1e6).round(),
        })
    }
}

fn fsync_median(directory: &Path) -> Result<Duration, LoadError> {
    let path = directory.join(format!(".maru-load-fsync-{}", std::process::id()));
    let measured = measure_fsync(&path);
    // The file may never have been made; that error is the one to report.
    let _ = fs::remove_file(&path);
    measured
        .map(|latencies| latencies.percentile(0.5))
        .map_err(LoadError::io(path.display().to_string()))
}

fn measure_fsync(path: &Path) -> std::io::Result<Latencies> {
    let file = File::create(path)?;
    let mut block = [0; 4096];
    file.write_all_at(&block, 0)?;
    file.sync_all()?;
    let mut latencies = Vec::with_capacity(FSYNCS);
    for round in 0..FSYNCS {
        block[0] = (round % 251) as u8;
        let started = Instant::now();
        file.write_all_at(&block, 0)?;
        file.sync_data()?;
        latencies.push(started.elapsed());
    }
    Ok(Latencies::new(latencies))
}

/// Lets this process hold as many sockets as the system allows it to.
pub(crate) fn raise_open_files() -> Result<u64, LoadError> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )
    .map_err(|error| LoadError::io("raising the limit of open files")(error.into()))?;
    Ok(maximum.unwrap_or(u64::MAX))
}
