//! What the admin asks of reports, and is told.

use serde::{Deserialize, Serialize};

use super::AdminReply;
use crate::refusal::Refusal;
use crate::server::Server;
use crate::store::moderation::reports::{StoredReport, Subject};

/// Reports in one reply.
const AT_ONCE: i64 = 1_000;

/// What to do with reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum ReportCommand {
    /// List some, oldest first.
    List {
        /// The number after which to begin; 0 for the first.
        after: i64,
    },
    /// Remove one that has been dealt with.
    Drop {
        /// Its number.
        id: i64,
    },
}

/// One report in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportLine {
    /// Its number.
    pub id: i64,
    /// Who reports.
    pub reporter: String,
    /// What is reported.
    pub subject: String,
    /// Why, in the reporter's words.
    pub reason: String,
    /// How many seconds ago.
    pub seconds_ago: i64,
}

/// Does what a command asks for.
pub(super) async fn execute(server: &Server, command: ReportCommand) -> Result<AdminReply, Refusal> {
    let (reports, now) = (&server.store.moderation, server.now());
    match command {
        ReportCommand::List { after } => {
            let listed = reports.reports_after(after, AT_ONCE).await?;
            Ok(AdminReply::Reports {
                reports: listed.into_iter().map(|report| line(report, now)).collect(),
            })
        }
        ReportCommand::Drop { id } => match reports.drop_report(id).await? {
            true => Ok(AdminReply::Done {
                message: format!("dropped {id}"),
            }),
            false => Err(Refusal::not_found("there is no such report")),
        },
    }
}

fn line(stored: StoredReport, now: i64) -> ReportLine {
    let report = stored.report;
    ReportLine {
        id: stored.id,
        reporter: report.reporter.to_string(),
        subject: match report.subject {
            Subject::Event(room_id, event_id) => format!("event {event_id} in room {room_id}"),
            Subject::Room(room_id) => format!("room {room_id}"),
            Subject::User(user_id) => format!("user {user_id}"),
        },
        reason: report.reason,
        seconds_ago: (now - report.reported_at) / 1000,
    }
}
