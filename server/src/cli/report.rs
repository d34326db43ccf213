//! `maru report`: what users have reported.

use clap::Subcommand;

use super::admin::{execute, print};
use super::{Failure, Flags};
use crate::admin::{AdminCommand, ReportCommand, ReportLine};

/// What to do with reports.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Show reports, oldest first, a thousand at a time
    List {
        /// The number after which to begin
        #[arg(long, default_value_t = 0)]
        after: i64,
    },
    /// Remove a report that has been dealt with
    Drop {
        /// Its number
        id: i64,
    },
}

pub(super) async fn run(action: Action, flags: Flags) -> Result<(), Failure> {
    let command = match action {
        Action::List { after } => ReportCommand::List { after },
        Action::Drop { id } => ReportCommand::Drop { id },
    };
    let config = flags.load()?.config;
    print(execute(&config, AdminCommand::Report(command)).await?)
}

/// A report as a line of text. What strangers wrote cannot move the cursor of a terminal.
pub(super) fn line(report: &ReportLine) -> String {
    let ReportLine {
        id,
        reporter,
        subject,
        reason,
        seconds_ago,
    } = report;
    format!("{id}: {reporter} reports {subject}, {seconds_ago} s ago: {reason:?}")
}
