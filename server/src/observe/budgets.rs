//! What was refused by the budgets of `limits`, which count it themselves.

use std::fmt::{self, Write};

use super::metrics::{Family, Metric, announce};
use crate::limits;

/// Refusals by budget.
pub struct BudgetsRefused;

const FAMILY: Family = Family {
    name: "maru_budgets_refused_total",
    kind: "counter",
    help: "Requests and frames refused because a rate was exceeded, by budget.",
};

impl Metric for BudgetsRefused {
    fn families(&self) -> Vec<Family> {
        vec![FAMILY]
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        announce(out, FAMILY)?;
        for (budget, count) in limits::refused() {
            writeln!(out, "{}{{budget=\"{}\"}} {count}", FAMILY.name, budget.key())?;
        }
        Ok(())
    }
}
