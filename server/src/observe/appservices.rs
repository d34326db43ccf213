//! What is counted of application services: of those that this process sends transactions to.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::{Mutex, PoisonError};

use super::metrics::{Family, Metric, announce};

/// Transactions to application services.
pub static TRANSACTIONS: ServiceTransactions = ServiceTransactions(Mutex::new(BTreeMap::new()));

const FAMILY: Family = Family {
    name: "maru_appservice_transactions_total",
    kind: "counter",
    help: "Attempts of this node to send transactions to application services, by service and outcome.",
};

/// Attempts by service: accepted, and failed. Services are few, since the admin registers them.
pub struct ServiceTransactions(Mutex<BTreeMap<String, (u64, u64)>>);

impl ServiceTransactions {
    /// Counts an attempt.
    pub fn note(&self, service: &str, is_accepted: bool) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (accepted, failed) = counts.entry(service.to_owned()).or_default();
        match is_accepted {
            true => *accepted += 1,
            false => *failed += 1,
        }
    }
}

impl Metric for ServiceTransactions {
    fn families(&self) -> Vec<Family> {
        vec![FAMILY]
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        announce(out, FAMILY)?;
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (service, (accepted, failed)) in counts {
            for (outcome, count) in [("accepted", accepted), ("failed", failed)] {
                writeln!(
                    out,
                    "{}{{service=\"{service}\",outcome=\"{outcome}\"}} {count}",
                    FAMILY.name
                )?;
            }
        }
        Ok(())
    }
}
