//! Log lines, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;

use crate::config::{Log, LogFormat, LogLevel};

/// Starts logging. `RUST_LOG`, if it is set, refines the configured level by module.
///
/// Calling it a second time changes nothing.
pub fn init(log: &Log) {
    let level = match log.level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    };
    let mut filter = EnvFilter::builder()
        .with_default_directive(level.into())
        .from_env_lossy();
    // The database driver logs every statement with its values, which are none of the log's business; the rules of
    // Matrix log every step of every event, which would cost more than the steps.
    for quiet in ["sqlx=warn", "ruma_state_res=warn"] {
        if let Ok(quiet) = quiet.parse::<Directive>() {
            filter = filter.add_directive(quiet);
        }
    }
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let _ = match log.format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).try_init(),
    };
}
