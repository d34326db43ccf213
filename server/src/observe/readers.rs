//! What is counted of named readers of the log: of those that this process leads.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::metrics::{Family, Metric, announce};

/// Named readers.
pub static READERS: ReaderMetrics = ReaderMetrics(Mutex::new(BTreeMap::new()));

/// Where a reader stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReaderSample {
    /// Everything up to this position is dealt with.
    pub position: i64,
    /// Positions that it is behind.
    pub lag: i64,
    /// Records that it went past.
    pub set_aside: u64,
    /// Whether it waits to be resumed.
    pub paused: bool,
    /// Whether it reads the stored events, and will go on in the log later.
    pub building: bool,
}

/// Named readers by name and shard. The program knows their names, so their number is bounded.
pub struct ReaderMetrics(Mutex<BTreeMap<(String, u32), Counted>>);

#[derive(Clone, Copy, Default)]
struct Counted {
    sample: Option<ReaderSample>,
    errors: u64,
}

const POSITION: Family = Family {
    name: "maru_reader_position",
    kind: "gauge",
    help: "Position up to which a reader has dealt with the log, by reader, on the node that leads it.",
};
const LAG: Family = Family {
    name: "maru_reader_lag",
    kind: "gauge",
    help: "Positions that a reader is behind the log, by reader.",
};
const SET_ASIDE: Family = Family {
    name: "maru_reader_set_aside",
    kind: "gauge",
    help: "Records that a reader could not deal with and went past, by reader.",
};
const PAUSED: Family = Family {
    name: "maru_reader_paused",
    kind: "gauge",
    help: "Whether a reader waits to be resumed: 1 or 0, by reader.",
};
const BUILDING: Family = Family {
    name: "maru_reader_building",
    kind: "gauge",
    help: "Whether a reader reads the stored events before it follows the log: 1 or 0, by reader.",
};
const ERRORS: Family = Family {
    name: "maru_reader_errors_total",
    kind: "counter",
    help: "Failures of readers on this node, by reader.",
};

impl ReaderMetrics {
    /// Shows where a reader stands.
    pub fn show(&self, name: &str, shard: u32, sample: ReaderSample) {
        self.lock().entry((name.to_owned(), shard)).or_default().sample = Some(sample);
    }

    /// Shows a reader no more: another node leads it.
    pub fn forget(&self, name: &str, shard: u32) {
        if let Some(counted) = self.lock().get_mut(&(name.to_owned(), shard)) {
            counted.sample = None;
        }
    }

    /// Counts a failure.
    pub fn failed(&self, name: &str, shard: u32) {
        self.lock().entry((name.to_owned(), shard)).or_default().errors += 1;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, u32), Counted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Metric for ReaderMetrics {
    fn families(&self) -> Vec<Family> {
        vec![POSITION, LAG, SET_ASIDE, PAUSED, BUILDING, ERRORS]
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let readers = self.lock().clone();
        let mut family = |family: Family, value: &dyn Fn(&Counted) -> Option<u64>| {
            announce(out, family)?;
            let samples = readers
                .iter()
                .filter_map(|(id, counted)| Some((id, value(counted)?)));
            samples.into_iter().try_for_each(|((name, shard), value)| {
                let labels: &dyn Display = &format!("{{reader=\"{name}\",shard=\"{shard}\"}}");
                writeln!(out, "{}{labels} {value}", family.name)
            })
        };
        let position = |sample: &ReaderSample| sample.position.unsigned_abs();
        family(POSITION, &|counted| counted.sample.as_ref().map(position))?;
        family(LAG, &|counted| {
            counted.sample.map(|sample| sample.lag.unsigned_abs())
        })?;
        family(SET_ASIDE, &|counted| {
            counted.sample.map(|sample| sample.set_aside)
        })?;
        family(PAUSED, &|counted| {
            counted.sample.map(|sample| sample.paused.into())
        })?;
        family(BUILDING, &|counted| {
            counted.sample.map(|sample| sample.building.into())
        })?;
        family(ERRORS, &|counted| Some(counted.errors))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_shown_while_it_is_led_here() {
        let readers = ReaderMetrics(Mutex::default());
        let sample = ReaderSample {
            position: 7,
            lag: 3,
            set_aside: 1,
            paused: true,
            building: false,
        };
        readers.show("push", 0, sample);
        readers.failed("push", 0);
        let mut out = String::new();
        readers.write(&mut out).unwrap();
        for line in [
            "maru_reader_position{reader=\"push\",shard=\"0\"} 7\n",
            "maru_reader_lag{reader=\"push\",shard=\"0\"} 3\n",
            "maru_reader_set_aside{reader=\"push\",shard=\"0\"} 1\n",
            "maru_reader_paused{reader=\"push\",shard=\"0\"} 1\n",
            "maru_reader_building{reader=\"push\",shard=\"0\"} 0\n",
            "maru_reader_errors_total{reader=\"push\",shard=\"0\"} 1\n",
        ] {
            assert!(out.contains(line), "{line}{out}");
        }
        readers.forget("push", 0);
        let mut out = String::new();
        readers.write(&mut out).unwrap();
        assert!(
            !out.contains("maru_reader_lag{") && out.contains("maru_reader_errors_total{"),
            "{out}"
        );
    }
}
