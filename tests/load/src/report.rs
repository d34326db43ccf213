//! What a run found: one JSON document, and a table for people.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::machine::Machine;
use crate::measure::{Latencies, Usage, millis};

/// The figures of one scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    /// The subcommand.
    pub(crate) scenario: &'static str,
    /// Its sizes.
    pub(crate) size: Value,
    /// What was measured, by name; the unit is the end of the name.
    pub(crate) figures: Map<String, Value>,
    /// What was asked for.
    pub(crate) targets: Vec<Goal>,
    /// Whether everything that was asked for was reached and everything that was sent arrived.
    pub(crate) met: bool,
    /// Why the scenario could not be finished or did not hold.
    pub(crate) error: Option<String>,
}

/// A figure to reach.
#[derive(Debug, Serialize)]
pub(crate) struct Goal {
    /// The name of the figure.
    pub(crate) figure: &'static str,
    /// `>=` or `<=`.
    pub(crate) relation: &'static str,
    /// What to reach.
    pub(crate) limit: f64,
    /// Whether it was reached; `None` if the figure could not be measured.
    pub(crate) met: Option<bool>,
}

/// A whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Where it was made.
    pub(crate) machine: Machine,
    /// In the order they ran.
    pub(crate) results: Vec<Outcome>,
}

impl Outcome {
    /// Nothing measured yet.
    pub(crate) fn new(scenario: &'static str, size: &impl Serialize) -> Self {
        let size = serde_json::to_value(size).unwrap_or(Value::Null);
        Self {
            scenario,
            size,
            figures: Map::new(),
            targets: Vec::new(),
            met: true,
            error: None,
        }
    }

    /// Adds a figure, rounded to what can be told apart.
    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64) {
        self.figures
            .insert(name.into(), json!((value * 1e4).round() / 1e4));
    }

    /// Adds median and 99th percentile of latencies, in milliseconds.
    pub(crate) fn latencies(&mut self, name: &str, latencies: &Latencies) {
        self.figure(format!("{name}_median_ms"), millis(latencies.percentile(0.5)));
        self.figure(format!("{name}_p99_ms"), millis(latencies.percentile(0.99)));
    }

    /// Adds the processor time of server, database and driver for each of `count` units of work.
    pub(crate) fn cpu(&mut self, usage: &Usage, count: usize, unit: &str) {
        for (party, cpu) in usage.parties() {
            self.figure(
                format!("{party}_cpu_ms_per_{unit}"),
                millis(cpu) / count.max(1) as f64,
            );
        }
    }

    /// Adds how many cores server, database and driver kept busy.
    pub(crate) fn busy(&mut self, usage: &Usage) {
        for (party, cpu) in usage.parties() {
            self.figure(
                format!("{party}_cores_busy"),
                cpu.as_secs_f64() / usage.wall.as_secs_f64().max(1e-9),
            );
        }
    }

    /// The figure has to be `limit` or more.
    pub(crate) fn at_least(&mut self, figure: &'static str, limit: f64) {
        self.goal(figure, ">=", limit, |value| value >= limit);
    }

    /// The figure has to be `limit` or less.
    pub(crate) fn at_most(&mut self, figure: &'static str, limit: f64) {
        self.goal(figure, "<=", limit, |value| value <= limit);
    }

    fn goal(
        &mut self,
        figure: &'static str,
        relation: &'static str,
        limit: f64,
        holds: impl Fn(f64) -> bool,
    ) {
        let met = self.figures.get(figure).and_then(Value::as_f64).map(holds);
        self.met &= met == Some(true);
        self.targets.push(Goal {
            figure,
            relation,
            limit,
            met,
        });
    }
}

impl Report {
    /// Whether every scenario was finished and everything that was sent arrived.
    pub(crate) fn sound(&self) -> bool {
        self.results.iter().all(|outcome| outcome.error.is_none())
    }

    /// Whether every target was reached too.
    pub(crate) fn met(&self) -> bool {
        self.results.iter().all(|outcome| outcome.met)
    }

    /// A table of all figures, with targets beside those that have one.
    pub(crate) fn table(&self) -> String {
        let Machine {
            cores,
            cpu_model,
            kernel,
            load_average,
            fsync_us,
        } = &self.machine;
        let mut table = format!(
            "{cores} cores, {cpu_model}, Linux {kernel}, fsync {fsync_us:.0} µs, load average {load_average}\n"
        );
        for outcome in &self.results {
            // Writing to a String cannot fail.
            let _ = outcome.write_rows(&mut table);
        }
        table
    }
}

impl Outcome {
    fn write_rows(&self, table: &mut String) -> std::fmt::Result {
        writeln!(table, "\n{} {}", self.scenario, self.size)?;
        for (name, value) in &self.figures {
            write!(table, "  {name:<40} {:>14}", value.to_string())?;
            for goal in self.targets.iter().filter(|goal| goal.figure == name) {
                let met = if goal.met == Some(true) { "met" } else { "MISSED" };
                write!(table, "   {} {} {met}", goal.relation, goal.limit)?;
            }
            writeln!(table)?;
        }
        for goal in self.targets.iter().filter(|goal| goal.met.is_none()) {
            writeln!(
                table,
                "  {:<40} not measured   {} {}",
                goal.figure, goal.relation, goal.limit
            )?;
        }
        self.error
            .as_ref()
            .map_or(Ok(()), |error| writeln!(table, "  FAILED: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(figure: f64) -> Outcome {
        let mut outcome = Outcome::new("send", &json!({}));
        outcome.figure("messages_per_second", figure);
        outcome.at_least("messages_per_second", 10.0);
        outcome
    }

    #[test]
    fn a_target_is_met_missed_or_not_measured() {
        assert!(outcome(10.0).met);
        assert!(!outcome(9.9).met);
        let mut unmeasured = outcome(10.0);
        unmeasured.at_most("server_cpu_ms_per_message", 1.0);
        assert!(!unmeasured.met);
    }
}
