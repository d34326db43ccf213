//! Log lines, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat, LogLevel};

/// Starts logging. `RUST_LOG`, if it is set, refines the configured level by module.
///
/// Levels beyond `info` are for our own code only: what libraries say of a connection or a statement at `trace` may hold
/// messages and tokens.
///
/// Calling it a second time changes nothing.
pub fn init(log: &Log) {
    let (libraries, ours) = match log.level {
        LogLevel::Error => ("error", "error"),
        LogLevel::Warn => ("warn", "warn"),
        LogLevel::Info => ("info", "info"),
        LogLevel::Debug => ("info", "debug"),
        LogLevel::Trace => ("info", "trace"),
    };
    // The database driver logs every statement with its values, which are none of the log's business; the rules of
    // Matrix log every step of every event, which would cost more than the steps.
    let refined = std::env::var("RUST_LOG").unwrap_or_default();
    let filter = EnvFilter::builder().parse_lossy(format!(
        "{libraries},maru={ours},sqlx=warn,async_nats=warn,ruma_state_res=warn,{refined}"
    ));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let _ = match log.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).try_init(),
    };
}
