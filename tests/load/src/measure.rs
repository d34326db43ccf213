//! Durations: of requests, and of processor time between two moments.

use std::time::{Duration, Instant};

use crate::error::LoadError;
use crate::process::{Processes, own_cpu};

/// The durations of many requests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latencies {
    sorted: Vec<Duration>,
}

impl Latencies {
    /// In any order.
    pub(crate) fn new(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        Self { sorted: durations }
    }

    /// The smallest duration that at least `share` of all (0 to 1) do not exceed; zero if there are none.
    pub(crate) fn percentile(&self, share: f64) -> Duration {
        // Counts are far below 2^52, so that nothing is lost on the way through f64.
        let rank = (share * self.sorted.len() as f64).ceil() as usize;
        self.sorted
            .get(rank.saturating_sub(1))
            .or(self.sorted.last())
            .copied()
            .unwrap_or_default()
    }
}

/// Milliseconds, for reports.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The processes whose processor time a scenario counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watched {
    /// The homeserver.
    pub(crate) server: Processes,
    /// Its database server, if it has one.
    pub(crate) database: Processes,
    /// The homeserver that it shares rooms with.
    pub(crate) other: Processes,
}

/// What was used between a start and a finish.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// By the clock.
    pub(crate) wall: Duration,
    /// Processor time of the homeserver, if it is watched.
    pub(crate) server: Option<Duration>,
    /// Processor time of its database server, if it is watched.
    pub(crate) database: Option<Duration>,
    /// Processor time of the second homeserver, if it is watched.
    pub(crate) other: Option<Duration>,
    /// Processor time of this driver.
    pub(crate) driver: Duration,
}

impl Usage {
    /// Processor time of everybody who is watched, by name.
    pub(crate) fn parties(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        [
            ("server", self.server),
            ("database", self.database),
            ("other", self.other),
            ("driver", Some(self.driver)),
        ]
        .into_iter()
        .filter_map(|(party, cpu)| Some((party, cpu?)))
    }
}

/// A running measurement.
#[derive(Debug)]
pub(crate) struct Stopwatch<'a> {
    watched: &'a Watched,
    started: Instant,
    server: Option<Duration>,
    database: Option<Duration>,
    other: Option<Duration>,
    driver: Duration,
}

impl<'a> Stopwatch<'a> {
    /// Fails when a watched process is gone.
    pub(crate) fn start(watched: &'a Watched) -> Result<Self, LoadError> {
        let (server, database) = (watched.server.cpu()?, watched.database.cpu()?);
        Ok(Self {
            watched,
            server,
            database,
            other: watched.other.cpu()?,
            driver: own_cpu()?,
            started: Instant::now(),
        })
    }

    /// What has been used since the start.
    pub(crate) fn usage(&self) -> Result<Usage, LoadError> {
        let wall = self.started.elapsed();
        let since = |now: Option<Duration>, then: Option<Duration>| Some(now?.saturating_sub(then?));
        Ok(Usage {
            wall,
            server: since(self.watched.server.cpu()?, self.server),
            database: since(self.watched.database.cpu()?, self.database),
            other: since(self.watched.other.cpu()?, self.other),
            driver: own_cpu()?.saturating_sub(self.driver),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks() {
        let latencies = Latencies::new((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!(latencies.percentile(0.5), Duration::from_millis(50));
        assert_eq!(latencies.percentile(0.99), Duration::from_millis(99));
        assert_eq!(latencies.percentile(1.0), Duration::from_millis(100));
        assert_eq!(
            Latencies::new(vec![Duration::from_millis(7)]).percentile(0.5),
            Duration::from_millis(7)
        );
        assert_eq!(Latencies::default().percentile(0.5), Duration::ZERO);
    }
}
