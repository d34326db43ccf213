//! What is counted of other homeservers: of each peer, of those that were refused, and of what came from them.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::metrics::{Family, Metric, announce};

/// Peers with samples of their own. What the others have moved is counted under `other`.
const MOST_PEERS: usize = 200;

/// A counter for each of a few words.
pub struct CounterBy<const N: usize> {
    family: Family,
    label: &'static str,
    words: [&'static str; N],
    counts: [AtomicU64; N],
}

impl<const N: usize> CounterBy<N> {
    /// Counters at zero. Names end with `_total`.
    pub const fn new(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        words: [&'static str; N],
    ) -> Self {
        Self {
            family: Family {
                name,
                kind: "counter",
                help,
            },
            label,
            words,
            counts: [const { AtomicU64::new(0) }; N],
        }
    }

    /// Counts one of a word; an unknown one is not counted.
    pub fn add(&self, word: &str) {
        let position = self.words.iter().position(|known| *known == word);
        if let Some(count) = position.and_then(|position| self.counts.get(position)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<const N: usize> Metric for CounterBy<N> {
    fn families(&self) -> Vec<Family> {
        vec![self.family]
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        announce(out, self.family)?;
        for (word, count) in self.words.iter().zip(&self.counts) {
            let count = count.load(Ordering::Relaxed);
            writeln!(out, "{}{{{}=\"{word}\"}} {count}", self.family.name, self.label)?;
        }
        Ok(())
    }
}

/// One peer at a moment.
#[derive(Clone, Debug, Default)]
pub struct PeerSample {
    /// Its name.
    pub name: String,
    /// Whether both sides are ready.
    pub connected: bool,
    /// Positions of our log that it is behind, if it has said how far it is.
    pub lag: Option<u64>,
    /// The round trip of its connection.
    pub round_trip: Option<Duration>,
    /// What was moved, towards us and away from us, since the start.
    pub moved: [Moved; 2],
}

/// What was moved in one direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moved {
    /// Frames of log streams.
    pub frames: u64,
    /// Bytes of log streams, requests and answers.
    pub bytes: u64,
    /// Requests.
    pub requests: u64,
}

/// Other homeservers at a moment.
#[derive(Clone, Debug, Default)]
pub struct PeersSample {
    /// One for each.
    pub peers: Vec<PeerSample>,
    /// Connections that were refused or closed for a fault, by reason.
    pub refusals: BTreeMap<&'static str, u64>,
    /// Events that were dropped before any room saw them, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Names under which somebody came with another root key.
    pub refused_keys: usize,
    /// Events and bytes that were received and wait to be taken into their rooms.
    pub inbox: (u64, u64),
}

const fn family(name: &'static str, kind: &'static str, help: &'static str) -> Family {
    Family { name, kind, help }
}

const CONNECTED: Family = family(
    "maru_peer_connected",
    "gauge",
    "Whether a peer is connected: 1 or 0, by peer.",
);
const LAG: Family = family(
    "maru_peer_cursor_lag",
    "gauge",
    "Positions of our log that a peer has not confirmed, by peer.",
);
const ROUND_TRIP: Family = family(
    "maru_peer_round_trip_seconds",
    "gauge",
    "Round trip of the connection with a peer, by peer.",
);
const FRAMES: Family = family(
    "maru_peer_frames_total",
    "counter",
    "Frames of log streams, by peer and direction.",
);
const BYTES: Family = family(
    "maru_peer_bytes_total",
    "counter",
    "Bytes of log streams, requests and answers, by peer and direction.",
);
const REQUESTS: Family = family(
    "maru_peer_requests_total",
    "counter",
    "Requests, by peer and direction.",
);
const REFUSALS: Family = family(
    "maru_peer_refusals_total",
    "counter",
    "Connections with peers that were refused or closed for a fault, by reason.",
);
const DROPPED: Family = family(
    "maru_peer_events_dropped_total",
    "counter",
    "Events of peers that were dropped before any room saw them, by reason.",
);
const REFUSED_KEYS: Family = family(
    "maru_refused_keys",
    "gauge",
    "Names under which somebody came with another root key than the one known.",
);
const INBOX_EVENTS: Family = family(
    "maru_inbox_events",
    "gauge",
    "Events of peers that wait to be taken into their rooms.",
);
const INBOX_BYTES: Family = family("maru_inbox_bytes", "gauge", "Bytes of those events.");

impl PeersSample {
    /// The peers with samples of their own, those that are connected first, and what all others have moved.
    fn shown(&self) -> (Vec<&PeerSample>, Option<PeerSample>) {
        let mut peers: Vec<_> = self.peers.iter().collect();
        peers.sort_by_key(|peer| (!peer.connected, &peer.name));
        let others = peers.split_off(peers.len().min(MOST_PEERS));
        let mut other = PeerSample {
            name: "other".to_owned(),
            ..PeerSample::default()
        };
        for peer in &others {
            for (sum, moved) in other.moved.iter_mut().zip(&peer.moved) {
                sum.frames += moved.frames;
                sum.bytes += moved.bytes;
                sum.requests += moved.requests;
            }
        }
        (peers, (!others.is_empty()).then_some(other))
    }
}

/// Writes a family with one sample for each label and value.
fn write<V: fmt::Display>(
    out: &mut String,
    family: Family,
    samples: impl Iterator<Item = (String, V)>,
) -> fmt::Result {
    announce(out, family)?;
    for (labels, value) in samples {
        writeln!(out, "{}{labels} {value}", family.name)?;
    }
    Ok(())
}

impl Metric for PeersSample {
    fn families(&self) -> Vec<Family> {
        vec![
            CONNECTED,
            LAG,
            ROUND_TRIP,
            FRAMES,
            BYTES,
            REQUESTS,
            REFUSALS,
            DROPPED,
            REFUSED_KEYS,
            INBOX_EVENTS,
            INBOX_BYTES,
        ]
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let (peers, other) = self.shown();
        let of = |peer: &PeerSample| format!("{{peer=\"{}\"}}", peer.name);
        write(
            out,
            CONNECTED,
            peers.iter().map(|peer| (of(peer), u8::from(peer.connected))),
        )?;
        write(
            out,
            LAG,
            peers.iter().filter_map(|peer| Some((of(peer), peer.lag?))),
        )?;
        let round_trips = peers
            .iter()
            .filter_map(|peer| Some((of(peer), peer.round_trip?.as_secs_f64())));
        write(out, ROUND_TRIP, round_trips)?;
        let moved = |count: fn(&Moved) -> u64| {
            let all = peers.iter().copied().chain(&other);
            all.flat_map(move |peer| {
                let directions = ["in", "out"].into_iter().zip(&peer.moved);
                directions.map(move |(direction, moved)| {
                    let labels = format!("{{peer=\"{}\",direction=\"{direction}\"}}", peer.name);
                    (labels, count(moved))
                })
            })
        };
        write(out, FRAMES, moved(|moved| moved.frames))?;
        write(out, BYTES, moved(|moved| moved.bytes))?;
        write(out, REQUESTS, moved(|moved| moved.requests))?;
        let by_reason = |(reason, count): (&&'static str, &u64)| (format!("{{reason=\"{reason}\"}}"), *count);
        write(out, REFUSALS, self.refusals.iter().map(by_reason))?;
        write(out, DROPPED, self.dropped.iter().map(by_reason))?;
        let one = |value: u64| std::iter::once((String::new(), value));
        write(out, REFUSED_KEYS, one(self.refused_keys as u64))?;
        write(out, INBOX_EVENTS, one(self.inbox.0))?;
        write(out, INBOX_BYTES, one(self.inbox.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_beyond_the_bound_are_counted_together() {
        let peer = |n: usize| PeerSample {
            name: format!("{n}.example"),
            connected: n > MOST_PEERS,
            lag: Some(7),
            moved: [Moved {
                frames: 2,
                ..Moved::default()
            }; 2],
            ..PeerSample::default()
        };
        let sample = PeersSample {
            peers: (0..MOST_PEERS + 3).map(peer).collect(),
            refusals: [("denied", 4)].into(),
            ..PeersSample::default()
        };
        let mut out = String::new();
        sample.write(&mut out).unwrap();
        assert_eq!(out.matches("maru_peer_cursor_lag{").count(), MOST_PEERS);
        for line in [
            "maru_peer_frames_total{peer=\"other\",direction=\"out\"} 6\n",
            "maru_peer_connected{peer=\"201.example\"} 1\n",
            "maru_peer_refusals_total{reason=\"denied\"} 4\n",
            "maru_inbox_events 0\n",
        ] {
            assert!(out.contains(line), "{line}{out}");
        }
    }

    #[test]
    fn a_word_is_counted_under_its_label() {
        let counter = CounterBy::new("t_total", "Test.", "outcome", ["good", "bad"]);
        counter.add("bad");
        counter.add("unheard of");
        let mut out = String::new();
        counter.write(&mut out).unwrap();
        assert!(
            out.contains("t_total{outcome=\"good\"} 0\nt_total{outcome=\"bad\"} 1\n"),
            "{out}"
        );
    }
}
