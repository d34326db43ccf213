//! What the admin sees of a running server: log lines and metrics.

pub mod appservices;
pub mod budgets;
pub mod jobs;
pub mod logging;
pub mod metrics;
pub mod peers;
pub mod process;
pub mod rate_limited_log;
pub mod readers;
pub mod tasks;
