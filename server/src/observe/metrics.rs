//! Counts of what the server does, in the text format of Prometheus.
//!
//! Every metric is a static, so that the code that counts needs nothing handed to it, and stands in [`ALL`], which is
//! what `/metrics` writes and what `spec/operations.md` lists.
//!
//! Over 500 lines, because the list is one: half of the metrics elsewhere would be forgotten here.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::appservices::TRANSACTIONS;
use super::budgets::BudgetsRefused;
use super::jobs::JobCounts;
use super::peers::{CounterBy, PeersSample};
use super::readers::READERS;
use super::tasks::TaskCounts;

/// Connections accepted by the client listener.
pub static CONNECTIONS: Counter = Counter::new("maru_connections_total", "Connections accepted.");
/// Connections that are open now, WebSockets included.
pub static CONNECTIONS_OPEN: Gauge = Gauge::new("maru_connections_open", "Connections that are open.");
/// Connections that keep nothing but a request that waits.
pub static CONNECTIONS_RESTING: Gauge = Gauge::new("maru_connections_resting", "Connections at rest.");
/// Connections of addresses that had too many.
pub static CONNECTIONS_REFUSED: Counter = Counter::new(
    "maru_connections_refused_total",
    "Connections refused because their address had too many.",
);
/// TLS handshakes that failed or took too long.
pub static TLS_HANDSHAKES_FAILED: Counter = Counter::new(
    "maru_tls_handshakes_failed_total",
    "TLS handshakes that failed or took too long.",
);
/// What was refused because a budget was spent.
pub static BUDGETS_REFUSED: BudgetsRefused = BudgetsRefused;
/// Requests by endpoint.
pub static REQUESTS: Requests = Requests::new();
/// Commits of the log.
pub static COMMITS: Counter = Counter::new("maru_commits_total", "Commits of the log.");
/// Records stored by commits of the log.
pub static RECORDS: Counter = Counter::new("maru_records_total", "Records stored in the log.");
/// Records that other nodes have stored.
pub static RECORDS_FOLLOWED: Counter = Counter::new(
    "maru_follower_records_total",
    "Records that other nodes have stored in the log.",
);
/// Changes that were refused by the database.
pub static CHANGES_FAILED: Counter =
    Counter::new("maru_changes_failed_total", "Changes that could not be stored.");
/// Time that the database took to make a commit durable.
pub static COMMIT_TIME: Histogram = Histogram::new(
    "maru_commit_seconds",
    "Time that the database took to make a commit durable.",
);
/// Time that this node waited for its turn to write to the log.
pub static TURN_WAIT: Histogram = Histogram::new(
    "maru_turn_wait_seconds",
    "Time that this node waited for its turn to write to the log.",
);
/// Time for which this node kept its turn, while no other could write to the log.
pub static TURN_TIME: Histogram = Histogram::new(
    "maru_turn_seconds",
    "Time for which this node kept its turn, while no other could write to the log.",
);

/// What other nodes said of typing and presence.
pub static NODE_MESSAGES_HEARD: Counter = Counter::new(
    "maru_node_messages_heard_total",
    "What other nodes said of typing and presence.",
);
/// What was to be said between nodes, or was heard, and was dropped.
pub static NODE_MESSAGES_DROPPED: Counter = Counter::new(
    "maru_node_messages_dropped_total",
    "Messages between nodes that were dropped: too much waited, or nobody carried them.",
);
/// What arrived between nodes and is no message.
pub static NODE_MESSAGES_REFUSED: Counter = Counter::new(
    "maru_node_messages_refused_total",
    "What arrived as a message between nodes and is none.",
);
/// Whether NATS carries what nodes tell each other.
pub static NATS_CONNECTED: Gauge =
    Gauge::new("maru_nats_connected", "1 while this node is connected with NATS.");

/// Messages to devices that were refused: too much waited for the device or for its server.
pub static TO_DEVICE_REFUSED: Counter = Counter::new(
    "maru_to_device_refused_total",
    "Messages to devices that were refused: too much waited for the device or its server.",
);
/// Messages to devices of other servers that were dropped: they waited for too long.
pub static PEER_MESSAGES_DROPPED: Counter = Counter::new(
    "maru_peer_messages_dropped_total",
    "Messages to devices of other servers dropped: they waited for too long.",
);
/// Items of peers' logs, beside events, that were dropped.
pub static PEER_ITEMS_REFUSED: Counter = Counter::new(
    "maru_peer_items_refused_total",
    "Messages, device lists and receipts of peers that were refused.",
);
/// Datagrams of peers that were dropped after they had been read.
pub static DATAGRAMS_REFUSED: Counter = Counter::new(
    "maru_datagrams_refused_total",
    "Typing and presence of peers that were refused.",
);

/// What became of events that came from elsewhere.
pub static INGESTED: CounterBy<7> = CounterBy::new(
    "maru_ingested_events_total",
    "Events of other homeservers that were offered to their rooms, by outcome.",
    "outcome",
    [
        "accepted",
        "soft_failed",
        "rejected",
        "known",
        "lacking",
        "broken",
        "too_costly",
    ],
);
/// Time that the rules took for an event that came from elsewhere.
pub static JUDGING_TIME: Histogram = Histogram::new(
    "maru_judging_seconds",
    "Time to judge an event of another homeserver, state resolution included.",
);

/// Requests to the object storage of media that failed, for all that they were tried again.
pub static MEDIA_STORAGE_FAILED: Counter = Counter::new(
    "maru_media_storage_failed_total",
    "Requests to the object storage of media that failed.",
);
/// Durable jobs.
pub static JOBS: JobCounts = JobCounts::new();
/// Tasks beside requests.
pub static TASKS: TaskCounts = TaskCounts::new();

/// Every metric but those of the process and of the peers, in the order in which they are written.
pub static ALL: &[&(dyn Metric + Sync)] = &[
    &CONNECTIONS,
    &CONNECTIONS_OPEN,
    &CONNECTIONS_RESTING,
    &CONNECTIONS_REFUSED,
    &TLS_HANDSHAKES_FAILED,
    &BUDGETS_REFUSED,
    &REQUESTS,
    &COMMITS,
    &RECORDS,
    &RECORDS_FOLLOWED,
    &CHANGES_FAILED,
    &COMMIT_TIME,
    &NODE_MESSAGES_HEARD,
    &NODE_MESSAGES_DROPPED,
    &NODE_MESSAGES_REFUSED,
    &NATS_CONNECTED,
    &TURN_WAIT,
    &TURN_TIME,
    &TO_DEVICE_REFUSED,
    &PEER_MESSAGES_DROPPED,
    &PEER_ITEMS_REFUSED,
    &DATAGRAMS_REFUSED,
    &INGESTED,
    &JUDGING_TIME,
    &MEDIA_STORAGE_FAILED,
    &JOBS,
    &TASKS,
    &READERS,
    &TRANSACTIONS,
];

/// A name with samples under it.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// The name, beginning with `maru_`.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// One sentence.
    pub help: &'static str,
}

/// Something that is written to `/metrics`.
pub trait Metric {
    /// What it writes.
    fn families(&self) -> Vec<Family>;

    /// Writes each family with its samples.
    ///
    /// # Errors
    /// Only what the writer returns.
    fn write(&self, out: &mut String) -> fmt::Result;
}

/// Everything in the text format of Prometheus.
pub fn render(peers: &PeersSample) -> String {
    let mut out = String::with_capacity(16 * 1024);
    for metric in ALL {
        let _ = metric.write(&mut out);
    }
    let _ = peers.write(&mut out);
    out.push_str(&super::process::render());
    out
}

pub(super) fn announce(out: &mut String, Family { name, kind, help }: Family) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

/// A number that only grows.
pub struct Counter {
    family: Family,
    value: AtomicU64,
}

impl Counter {
    /// A counter at zero. Names end with `_total`.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self {
            family: Family {
                name,
                kind: "counter",
                help,
            },
            value: AtomicU64::new(0),
        }
    }

    /// Adds.
    pub fn add(&self, count: u64) {
        self.value.fetch_add(count, Ordering::Relaxed);
    }

    /// The present count.
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

impl Metric for Counter {
    fn families(&self) -> Vec<Family> {
        vec![self.family]
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        announce(out, self.family)?;
        writeln!(out, "{} {}", self.family.name, self.get())
    }
}

/// A number that grows and shrinks.
pub struct Gauge {
    family: Family,
    value: AtomicI64,
}

impl Gauge {
    /// A gauge at zero.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self {
            family: Family {
                name,
                kind: "gauge",
                help,
            },
            value: AtomicI64::new(0),
        }
    }

    /// Adds.
    pub fn add(&self, count: i64) {
        self.value.fetch_add(count, Ordering::Relaxed);
    }

    /// Subtracts.
    pub fn subtract(&self, count: i64) {
        self.value.fetch_sub(count, Ordering::Relaxed);
    }

    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.value.store(value, Ordering::Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> i64 {
        self.value.load(Ordering::Relaxed)
    }
}

impl Metric for Gauge {
    fn families(&self) -> Vec<Family> {
        vec![self.family]
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        announce(out, self.family)?;
        writeln!(out, "{} {}", self.family.name, self.get())
    }
}

/// Upper bounds of the buckets of a [`Histogram`], in microseconds: 0.1 ms to 30 s.
const BOUNDS: [u64; 12] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000, 5_000_000, 30_000_000,
];

/// How often a thing took how long.
pub struct Histogram {
    family: Family,
    buckets: Buckets,
}

impl Histogram {
    /// An empty histogram. Names end with `_seconds`.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self {
            family: Family {
                name,
                kind: "histogram",
                help,
            },
            buckets: Buckets::new(),
        }
    }

    /// Counts one.
    pub fn observe(&self, took: Duration) {
        self.buckets.observe(took);
    }
}

impl Metric for Histogram {
    fn families(&self) -> Vec<Family> {
        vec![self.family]
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        announce(out, self.family)?;
        self.buckets.write(out, self.family.name, "")
    }
}

struct Buckets {
    /// One for each bound and one for what is beyond.
    counts: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

impl Buckets {
    const fn new() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; BOUNDS.len() + 1],
            microseconds: AtomicU64::new(0),
        }
    }

    fn observe(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < took);
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.microseconds.fetch_add(took, Ordering::Relaxed);
    }

    /// Writes the buckets with `labels`, which are empty or end with a comma.
    fn write(&self, out: &mut String, name: &str, labels: &str) -> fmt::Result {
        let mut so_far = 0;
        for (position, count) in self.counts.iter().enumerate() {
            so_far += count.load(Ordering::Relaxed);
            match BOUNDS.get(position) {
                Some(bound) => {
                    writeln!(
                        out,
                        "{name}_bucket{{{labels}le=\"{}\"}} {so_far}",
                        seconds(*bound)
                    )?;
                }
                None => writeln!(out, "{name}_bucket{{{labels}le=\"+Inf\"}} {so_far}")?,
            }
        }
        let labels = labels
            .strip_suffix(',')
            .map(|labels| format!("{{{labels}}}"))
            .unwrap_or_default();
        writeln!(
            out,
            "{name}_sum{labels} {}",
            seconds(self.microseconds.load(Ordering::Relaxed))
        )?;
        writeln!(out, "{name}_count{labels} {so_far}")
    }
}

fn seconds(microseconds: u64) -> f64 {
    Duration::from_micros(microseconds).as_secs_f64()
}

const REQUEST_FAMILIES: [Family; 2] = [
    Family {
        name: "maru_http_requests_total",
        kind: "counter",
        help: "Requests answered, by method, endpoint and class of status.",
    },
    Family {
        name: "maru_http_request_seconds",
        kind: "histogram",
        help: "Time until the head of the answer; polls wait on purpose.",
    },
];

/// Requests by method and endpoint, with how they ended and how long the answer took.
///
/// Endpoints are the routes, not the paths that strangers ask for, so their number is bounded by the program.
pub struct Requests(RwLock<BTreeMap<(&'static str, String), Arc<Endpoint>>>);

struct Endpoint {
    /// Answers by the first digit of their status, 1 to 5.
    statuses: [AtomicU64; 5],
    took: Buckets,
}

impl Requests {
    const fn new() -> Self {
        Self(RwLock::new(BTreeMap::new()))
    }

    /// Counts a request that was answered with `status` after `took`. `endpoint` is the route, such as
    /// `/_matrix/client/v3/sync`, and empty for a path that nobody serves.
    pub fn observe(&self, method: &'static str, endpoint: &str, status: u16, took: Duration) {
        let counted = self.endpoint(method, endpoint);
        if let Some(count) = counted.statuses.get(usize::from(status / 100).wrapping_sub(1)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        counted.took.observe(took);
    }

    fn endpoint(&self, method: &'static str, endpoint: &str) -> Arc<Endpoint> {
        let key = (method, endpoint.to_owned());
        if let Some(found) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return found.clone();
        }
        let new = || {
            Arc::new(Endpoint {
                statuses: Default::default(),
                took: Buckets::new(),
            })
        };
        self.0
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key)
            .or_insert_with(new)
            .clone()
    }
}

impl Metric for Requests {
    fn write(&self, out: &mut String) -> fmt::Result {
        let endpoints = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let labels = |(method, endpoint): &(_, _)| format!("method=\"{method}\",endpoint=\"{endpoint}\",");
        let [total, took] = REQUEST_FAMILIES;
        announce(out, total)?;
        for (key, counted) in &endpoints {
            for (class, count) in (1..).zip(&counted.statuses) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    writeln!(
                        out,
                        "{}{{{}status=\"{class}xx\"}} {count}",
                        total.name,
                        labels(key)
                    )?;
                }
            }
        }
        announce(out, took)?;
        endpoints
            .iter()
            .try_for_each(|(key, counted)| counted.took.write(out, took.name, &labels(key)))
    }

    fn families(&self) -> Vec<Family> {
        REQUEST_FAMILIES.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_up_to_each_bound() {
        let histogram = Histogram::new("t_seconds", "Test.");
        for took in [
            Duration::ZERO,
            Duration::from_micros(100),
            Duration::from_millis(2),
            Duration::from_secs(60),
        ] {
            histogram.observe(took);
        }
        let mut out = String::new();
        histogram.write(&mut out).unwrap();
        assert!(out.contains("t_seconds_bucket{le=\"0.0001\"} 2\n"), "{out}");
        assert!(out.contains("t_seconds_bucket{le=\"0.0025\"} 3\n"), "{out}");
        assert!(out.contains("t_seconds_bucket{le=\"30\"} 3\n"), "{out}");
        assert!(out.contains("t_seconds_bucket{le=\"+Inf\"} 4\n"), "{out}");
        assert!(
            out.contains("t_seconds_sum 60.0021\n") && out.contains("t_seconds_count 4\n"),
            "{out}"
        );
    }

    #[test]
    fn requests_are_counted_by_endpoint() {
        let requests = Requests::new();
        requests.observe("GET", "/a", 200, Duration::from_millis(1));
        requests.observe("GET", "/a", 404, Duration::from_millis(1));
        requests.observe("GET", "/a", 999, Duration::from_millis(1));
        let mut out = String::new();
        requests.write(&mut out).unwrap();
        let sample = |status| {
            format!("maru_http_requests_total{{method=\"GET\",endpoint=\"/a\",status=\"{status}\"}} 1\n")
        };
        assert!(
            out.contains(&sample("2xx")) && out.contains(&sample("4xx")),
            "{out}"
        );
        assert!(
            out.contains("maru_http_request_seconds_count{method=\"GET\",endpoint=\"/a\"} 3\n"),
            "{out}"
        );
    }

    fn families() -> impl Iterator<Item = Family> {
        let peers = PeersSample::default().families();
        ALL.iter().flat_map(|metric| metric.families()).chain(peers)
    }

    #[test]
    fn every_metric_is_in_the_operations_guide() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../spec/operations.md");
        let guide = std::fs::read_to_string(path).unwrap();
        for Family { name, kind, help } in families() {
            let line = format!("| `{name}` | {kind} | {help} |");
            assert!(
                guide.contains(&line),
                "spec/operations.md lacks this line:\n{line}"
            );
        }
    }

    #[test]
    fn a_family_is_announced_once() {
        let requests = Requests::new();
        requests.observe("GET", "/a", 200, Duration::ZERO);
        requests.observe("GET", "/b", 200, Duration::ZERO);
        let mut out = String::new();
        requests.write(&mut out).unwrap();
        assert_eq!(out.matches("# TYPE ").count(), 2, "{out}");
        let last_count = out.rfind("maru_http_requests_total{").unwrap();
        assert!(
            last_count < out.find("# TYPE maru_http_request_seconds").unwrap(),
            "{out}"
        );
    }

    #[test]
    fn every_family_is_announced_before_its_samples() {
        CONNECTIONS.add(1);
        let text = render(&PeersSample::default());
        let announced = text.find("# TYPE maru_connections_total counter").unwrap();
        assert!(announced < text.find("\nmaru_connections_total ").unwrap());
    }
}
